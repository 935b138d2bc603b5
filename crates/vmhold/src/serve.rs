//! `serve`: one process that owns a store until it is told to stop.

use std::fs::File;
use std::path::{Path, PathBuf};

use control::{Exit, Problem, codes};
use node::StoreConfig;

use crate::cli::{Global, ServeCommand};
use crate::daemon::{Ending, tell_ready, told_to_stop};
use crate::log_lines;
use crate::place::{Announcement, lock, write_json};
use crate::process::ProcessId;
use crate::say::Say;

/// Serves until a signal, then makes a checkpoint.
pub fn run(command: &ServeCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let path = command.config.clone().unwrap_or_else(|| global.dir.join("vmhold.toml"));
    if !path.exists() {
        return Err(Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no configuration {}", path.display()))
            .step("make a pool and its configuration: vmhold pool create")
            .step("or start a demo: vmhold quickstart"));
    }
    let _sole_owner: File = lock(&path)?;
    let mut config = StoreConfig::load(&path)?;
    if let Some(api) = global.api {
        config.api = api;
    }
    log_lines::start(&config.site);
    let ready_file = path.with_file_name("ready.json");
    let ending = Ending::catch()?;
    let doors_open = ending.doors_open();
    let state = std::path::absolute(&config.state).unwrap_or_else(|_| config.state.clone());
    let tell = announcer(ready_file.clone(), state, *say);
    let announce = move |ready: &node::Ready| {
        doors_open();
        tell(ready);
    };
    let served = node::serve(config, announce, told_to_stop(ending, command.until_eof));
    // Gone already if another has cleaned up; then there is nothing left to do.
    let _ = std::fs::remove_file(&ready_file);
    served.inspect_err(|problem| tracing::error!(code = %problem.code(), "{}", problem.what()))?;
    tracing::info!(code = "VH8042", "stopped; everything is on the drives");
    Ok(Exit::Success)
}

fn announcer(file: PathBuf, state: PathBuf, say: Say) -> impl FnOnce(&node::Ready) + 'static {
    move |ready| {
        let Some(process) = ProcessId::own() else {
            tracing::error!("this system has no /proc; the folder cannot name its server");
            return;
        };
        let announcement = Announcement { process, ready: *ready, state };
        if let Err(problem) = write_json(&file, &announcement) {
            // A configuration in a folder of root is served all the same.
            tracing::warn!("{}; tools need --api", problem.what());
        }
        tracing::info!(code = "VH8041", nfs = %ready.nfs, mount = %ready.mount, api = %ready.api, "serving");
        say.document(announcement, served);
        tell_ready();
    }
}

fn served(said: &Announcement) -> String {
    let fingerprint = said.ready.fingerprint.map(|digits| format!("  fingerprint {digits}\n")).unwrap_or_default();
    format!("serving NFS at {}, API and web UI at https://{}\n{fingerprint}", said.ready.nfs, said.ready.api)
}

/// Whether a configuration is being served.
pub fn is_served(config: &Path) -> bool {
    matches!(lock(config), Err(problem) if problem.code() == &codes::POOL_IN_USE)
}
