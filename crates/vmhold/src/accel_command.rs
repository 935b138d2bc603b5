//! `accel`: the disks of the host agent whose folder is `--dir`.

use std::time::{Duration, Instant};

use control::client::segment;
use control::text::bytes;
use control::{Envelope, Exit, Outcome, Problem, codes};
use host::client::Client;
use host::status::{AccelStatus, DiskAttach, DiskDetached, DiskDocument, DiskLine, PolicyWish};

use crate::cli::{AccelAction, AccelCommand, Global};
use crate::host_command::api_socket;
use crate::say::{Say, width};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Draining takes as long as the backing store needs.
const WORK_WITHIN: Duration = Duration::from_secs(3600);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn client(global: &Global, default: Duration) -> Client {
    Client::new(api_socket(global), global.timeout.unwrap_or(default))
}

fn status(global: &Global) -> Result<Envelope<AccelStatus>, Problem> {
    client(global, ANSWER_WITHIN).call("GET", "/v1/accel", "")
}

fn path_of(name: &str, verb: &str) -> String {
    format!("/v1/accel/disks/{}{verb}", segment(name))
}

/// Runs a verb.
pub fn run(command: &AccelCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        AccelAction::Status => say.envelope(&status(global)?, |status, _| status.human(width())),
        AccelAction::FlowControl => say.envelope(&status(global)?, |status, _| status.human_flow_control(width())),
        AccelAction::Attach { name, backing, policy, log } => {
            // The agent may have another working directory.
            let backing = std::path::absolute(backing).unwrap_or_else(|_| backing.clone()).display().to_string();
            let request = DiskAttach { name: name.clone(), backing, policy: policy.clone(), log_bytes: *log };
            let body = serde_json::to_string(&request).expect("a request holds only strings and numbers");
            let attached: Envelope<DiskDocument> =
                client(global, WORK_WITHIN).call("POST", "/v1/accel/disks", &body)?;
            say.envelope(&attached, |DiskDocument(disk), _| attached_text(disk, global));
        }
        AccelAction::Detach { name } => {
            let gone: Envelope<DiskDetached> = client(global, WORK_WITHIN).call("DELETE", &path_of(name, ""), "")?;
            say.envelope(&gone, |gone, _| {
                format!("disk {} is detached; {} is complete by itself\n", gone.name, gone.backing)
            });
        }
        AccelAction::Drain { name } => {
            let drained: Envelope<DiskDocument> =
                client(global, WORK_WITHIN).call("POST", &path_of(name, "/drain"), "")?;
            say.envelope(&drained, |DiskDocument(disk), _| {
                format!("disk {}: drained; {} dirty since then\n", disk.name, bytes(disk.dirty_bytes))
            });
        }
        AccelAction::Policy { name, policy, wait } => return set_policy(name, policy, *wait, global, say),
    }
    Ok(Exit::Success)
}

fn attached_text(disk: &DiskLine, global: &Global) -> String {
    let socket = std::path::absolute(&global.dir).unwrap_or_else(|_| global.dir.clone()).join("nbd.sock");
    format!(
        "disk {} stands in front of {} under {}, {}\n  qemu: nbd+unix:///{}?socket={}\n  take it away: vmhold accel detach {}\n",
        disk.name,
        disk.backing,
        disk.policy,
        bytes(disk.capacity_bytes),
        disk.name,
        socket.display(),
        disk.name,
    )
}

fn set_policy(name: &str, policy: &str, wait: bool, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let body = serde_json::to_string(&PolicyWish { policy: policy.to_owned() }).expect("a wish is a string");
    let limit = global.timeout.unwrap_or(WORK_WITHIN);
    let started = Instant::now();
    let mut answer: Envelope<DiskDocument> =
        client(global, ANSWER_WITHIN).call("POST", &path_of(name, "/policy"), &body)?;
    while let Outcome::Data(DiskDocument(disk)) = &answer.outcome {
        if !wait || disk.policy == policy {
            break;
        }
        if disk.policy_wanted != policy {
            return Err(Problem::new(&codes::CONFLICT, format!("disk {name} was given another policy meanwhile")));
        }
        if started.elapsed() > limit {
            return Err(Problem::new(&codes::TIMED_OUT, format!("disk {name} is still on its way to {policy}"))
                .why(format!("{} are dirty", bytes(disk.dirty_bytes))));
        }
        std::thread::sleep(LOOK_EVERY);
        answer = client(global, ANSWER_WITHIN).call("GET", &path_of(name, ""), "")?;
    }
    say.envelope(&answer, |DiskDocument(disk), _| {
        if disk.policy == disk.policy_wanted {
            return format!("disk {}: {} is in force\n", disk.name, disk.policy);
        }
        format!(
            "disk {}: on its way from {} to {}, {} dirty; wait for it with --wait\n",
            disk.name,
            disk.policy,
            disk.policy_wanted,
            bytes(disk.dirty_bytes)
        )
    });
    Ok(Exit::Success)
}
