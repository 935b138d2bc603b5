//! `host serve`: one process that owns a host's flash until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use control::{Document, Exit, Problem, codes};
use host::{HostConfig, HostReady};
use serde::{Deserialize, Serialize};

use crate::cli::{Global, HostAction, HostCommand, HostServe};
use crate::daemon::{Ending, tell_ready, tell_stopping};
use crate::log_lines;
use crate::place::{unusable, write_json};
use crate::process::ProcessId;
use crate::say::Say;

/// What an agent tells when every door is open, and writes to `host.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostAnnouncement {
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Where it answers.
    #[serde(flatten)]
    pub ready: HostReady,
}

impl Document for HostAnnouncement {
    const SCHEMA: &'static str = "vmhold.host.serve/v1";
}

/// Where the agent of `--dir` answers.
pub fn api_socket(global: &Global) -> PathBuf {
    global.dir.join("host.sock")
}

/// Runs a verb of `host`.
pub fn run(command: &HostCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        HostAction::Serve(serve) => self::serve(serve, global, say),
    }
}

fn serve(serve: &HostServe, global: &Global, say: &Say) -> Result<Exit, Problem> {
    for address in [serve.nbd, serve.metrics].into_iter().flatten() {
        check_reach(address, serve.i_understand_insecure)?;
    }
    std::fs::create_dir_all(&global.dir).map_err(|error| unusable(&global.dir, &error))?;
    let dir = std::path::absolute(&global.dir).map_err(|error| unusable(&global.dir, &error))?;
    let flash = std::path::absolute(&serve.flash).map_err(|error| unusable(&serve.flash, &error))?;
    let made = make_flash(&flash, serve.flash_size)?;
    let name = serve.name.clone().or_else(name_of_machine).unwrap_or_else(|| "host".into());
    let config = HostConfig {
        name,
        flash,
        format_blank: made || serve.format,
        nbd_socket: dir.join("nbd.sock"),
        nbd: serve.nbd,
        api_socket: dir.join("host.sock"),
        metrics: serve.metrics,
    };
    log_lines::start(&config.name);
    let ending = Ending::catch()?;
    let doors_open = ending.doors_open();
    let file = dir.join("host.json");
    let announced = (file.clone(), *say);
    let announce = move |ready: &HostReady| {
        doors_open();
        tell(ready, announced.0, announced.1);
    };
    let stop = async move {
        ending.signalled().await;
        tell_stopping();
    };
    let served = host::serve(config, announce, stop);
    let _ = std::fs::remove_file(&file);
    served.inspect_err(|problem| tracing::error!(code = %problem.code(), "{}", problem.what()))?;
    Ok(Exit::Success)
}

fn name_of_machine() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// What has no login stays on this machine, unless its user knows better.
fn check_reach(address: SocketAddr, accepted: bool) -> Result<(), Problem> {
    if address.ip().is_loopback() || accepted {
        return Ok(());
    }
    Err(Problem::new(&codes::INSECURE_BIND, format!("{address} can be reached by others"))
        .why("NBD and metrics of a host have no login and no encryption in this version")
        .step("use a loopback address, or the socket in the folder"))
}

/// Makes the flash file if a size is given and it is not there; whether it did.
fn make_flash(flash: &std::path::Path, size_bytes: Option<u64>) -> Result<bool, Problem> {
    match size_bytes {
        Some(size_bytes) if !flash.exists() => {
            host::create_zeroed_file(flash, size_bytes).map_err(|error| unusable(flash, &error))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn tell(ready: &HostReady, file: PathBuf, say: Say) {
    let Some(process) = ProcessId::own() else {
        tracing::error!("this system has no /proc; the folder cannot name its agent");
        return;
    };
    let announcement = HostAnnouncement { process, ready: ready.clone() };
    if let Err(problem) = write_json(&file, &announcement) {
        tracing::warn!("{}", problem.what());
    }
    tracing::info!(nbd = %ready.nbd_socket.display(), "serving");
    say.document(announcement, |said| {
        format!(
            "serving NBD at {}; disks: vmhold accel status --dir {}\n",
            said.ready.nbd_socket.display(),
            said.ready.api_socket.parent().unwrap_or(said.ready.api_socket.as_path()).display()
        )
    });
    tell_ready();
}
