//! The address of the pair between machines: a command of the administrator brings it up where the
//! pair is served, and takes it down everywhere else.
//!
//! ```text
//!  HOOK up IP PORT       before this site answers clients; it has to succeed
//!  HOOK down IP PORT     when it does not any more, and at each start: an earlier life may have left it up
//! ```
//!
//! On one network that is one `ip address` and one gratuitous ARP (`packaging/pair/vmhold-address`); between
//! networks it is whatever announces a route. Without a hook the address has to be the machine's already, as any
//! loopback address is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use control::{Problem, codes};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

/// A hook takes at most this.
const WITHIN: Duration = Duration::from_secs(10);
/// What it said before it ended comes within this.
const WORDS_WITHIN: Duration = Duration::from_millis(200);

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct Address {
    hook: Option<PathBuf>,
    at: SocketAddr,
}

impl Address {
    /// The one that `hook` brings up and takes down, if there is one.
    pub fn new(hook: Option<PathBuf>, at: SocketAddr) -> Address {
        Address { hook, at }
    }

    /// Brings it to this machine.
    ///
    /// # Errors
    /// `ADDRESS_NOT_MOVED` when the hook fails or takes too long.
    pub async fn up(&self) -> Result<(), Problem> {
        self.run("up").await
    }

    /// Takes it away from this machine. That it fails is said and nothing else: clients are not answered
    /// here in any case.
    pub async fn down(&self) {
        if let Err(problem) = self.run("down").await {
            let why = problem.reason().unwrap_or_default();
            tracing::warn!(code = %problem.code(), why, "{}", problem.what());
        }
    }

    async fn run(&self, what: &str) -> Result<(), Problem> {
        let Some(hook) = &self.hook else { return Ok(()) };
        let failed = |why: String| {
            Problem::new(&codes::ADDRESS_NOT_MOVED, format!("{} was not brought {what}", self.at.ip()))
                .why(format!("{}: {why}", hook.display()))
        };
        let mut command = Command::new(hook);
        command.arg(what).arg(self.at.ip().to_string()).arg(self.at.port().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let stderr = child.stderr.take();
        // Its own end, not that of what it may leave behind.
        let ended = timeout(WITHIN, child.wait()).await.map_err(|_| failed("it takes too long".to_owned()))?;
        let status = ended.map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        Err(failed(format!("{status}: {}", last_words(stderr).await)))
    }
}

/// The last line that the hook wrote, if it comes soon.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        let mut part = [0; 4096];
        while let Ok(Ok(length @ 1..)) = timeout(WORDS_WITHIN, stderr.read(&mut part)).await {
            said.extend_from_slice(&part[..length]);
            said.drain(..said.len().saturating_sub(part.len()));
        }
    }
    String::from_utf8_lossy(&said).lines().last().unwrap_or("it says nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn hook(folder: &Path, script: &str) -> Address {
        let path = folder.join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Address::new(Some(path), ([10, 10, 0, 50], 2049).into())
    }

    #[tokio::test]
    async fn the_hook_is_told_what_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let address = hook(folder.path(), &format!("echo \"$@\" >>{}", said.display()));
        address.up().await.unwrap();
        address.down().await;
        assert_eq!(std::fs::read_to_string(said).unwrap(), "up 10.10.0.50 2049\ndown 10.10.0.50 2049\n");
    }

    #[tokio::test]
    async fn what_a_hook_leaves_behind_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let address = hook(
            folder.path(),
            "sleep 60 & echo $! >pid; exit 0".replace("pid", &folder.path().join("pid").display().to_string()).as_str(),
        );
        timeout(Duration::from_secs(9), address.up()).await.unwrap().unwrap();
        let child = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        std::process::Command::new("kill").arg(child.trim()).status().unwrap();
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_told_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let problem = hook(folder.path(), "echo 'no such device' >&2; exit 3").up().await.unwrap_err();
        assert_eq!(problem.code(), &codes::ADDRESS_NOT_MOVED);
        assert!(problem.reason().unwrap().contains("no such device"), "{problem:?}");
        let missing = Address::new(Some(folder.path().join("nowhere")), ([10, 10, 0, 50], 2049).into());
        assert_eq!(missing.up().await.unwrap_err().code(), &codes::ADDRESS_NOT_MOVED);
        missing.down().await;
    }
}
