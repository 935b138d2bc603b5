//! The way to the API of the store a command is about.

use std::time::Duration;

use control::client::Client;
use control::{Problem, codes};
use node::StoreConfig;

use crate::cli::Global;
use crate::place::Place;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// `fsck` reads everything; a checkpoint may have a full journal to move.
const WORK_WITHIN: Duration = Duration::from_secs(3600);

/// For questions.
pub fn client(global: &Global) -> Result<Client, Problem> {
    within(global, ANSWER_WITHIN)
}

/// For work that takes its time.
pub fn patient_client(global: &Global) -> Result<Client, Problem> {
    within(global, WORK_WITHIN)
}

fn within(global: &Global, default: Duration) -> Result<Client, Problem> {
    let timeout = global.timeout.unwrap_or(default);
    let address = match global.api {
        Some(address) => address,
        None => address_of(global)?,
    };
    Ok(Client::new(address, timeout))
}

fn address_of(global: &Global) -> Result<std::net::SocketAddr, Problem> {
    let place = Place::of(&global.dir);
    let dir = global.dir.display();
    if let Some(announced) = place.announced() {
        return Ok(announced.ready.api);
    }
    if !place.config().exists() {
        return Err(Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no store in {dir}"))
            .step("start one: vmhold quickstart")
            .step("name its folder with --dir DIR, or its API with --api ADDR"));
    }
    if place.manifest().exists() {
        return Err(Problem::new(&codes::DEMO_NOT_RUNNING, format!("the demo in {dir} is not running"))
            .step(format!("vmhold quickstart resume --dir {dir}")));
    }
    Ok(StoreConfig::load(&place.config())?.api)
}
