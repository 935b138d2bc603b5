//! The way to the API of the store a command is about.

use std::path::Path;
use std::time::Duration;

use control::access::Secret;
use control::client::{Call, Client};
use control::{Problem, codes};

use crate::cli::Global;
use crate::place::{Place, unusable};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// `fsck` reads everything; a checkpoint may have a full journal to move.
const WORK_WITHIN: Duration = Duration::from_secs(3600);

/// A change as the options of every command ask for it.
pub fn change(global: &Global) -> Call<'static> {
    Call { dry_run: global.dry_run, ..Call::default() }
}

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
    let place = Place::of(&global.dir);
    let announced = place.announced();
    let is_elsewhere = global.api.is_some_and(|api| announced.as_ref().is_none_or(|here| here.ready.api != api));
    if is_elsewhere || (global.token_file.is_some() && global.fingerprint.is_some() && global.api.is_some()) {
        return elsewhere(global, timeout);
    }
    let announced = announced.map_or_else(|| Err(not_running(global, &place)), Ok)?;
    let fingerprint = match &global.fingerprint {
        Some(digits) => digits.parse()?,
        None => announced.ready.fingerprint.ok_or_else(|| strange(global))?,
    };
    let file = global.token_file.clone().unwrap_or_else(|| announced.state.join(node::LOCAL_TOKEN));
    Ok(Client::new(announced.ready.api, fingerprint, timeout).with_token(token_of(&file)?))
}

/// A server that does not run on the folder: everything has to be said.
fn elsewhere(global: &Global, timeout: Duration) -> Result<Client, Problem> {
    let missing = |what: &str, how: &str| {
        Problem::new(&codes::LOGIN_REQUIRED, format!("{what} of the API is not known"))
            .why("its folder is not here, so nothing says whom to trust and how to log in")
            .step(how)
    };
    let address = global.api.ok_or_else(|| missing("the address", "name it: --api ADDR"))?;
    let fingerprint = global
        .fingerprint
        .as_deref()
        .ok_or_else(|| missing("the fingerprint", "it was shown at the first start there: --fingerprint DIGITS"))?;
    let client = Client::new(address, fingerprint.parse()?, timeout);
    match &global.token_file {
        Some(file) => Ok(client.with_token(token_of(file)?)),
        None => Err(missing("a token", "make one there with `vmhold token create NAME`: --token-file FILE")),
    }
}

fn token_of(file: &Path) -> Result<Secret, Problem> {
    std::fs::read_to_string(file).map(|text| Secret::from_text(&text)).map_err(|error| unusable(file, &error))
}

fn strange(global: &Global) -> Problem {
    Problem::new(&codes::LOGIN_REQUIRED, format!("ready.json in {} names no fingerprint", global.dir.display()))
        .step("start the server again")
}

fn not_running(global: &Global, place: &Place) -> Problem {
    let dir = global.dir.display();
    if !place.config().exists() && !place.ready().exists() {
        return Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no store in {dir}"))
            .step("start one: vmhold quickstart")
            .step("name its folder with --dir DIR, or its API with --api ADDR");
    }
    if place.manifest().exists() {
        return Problem::new(&codes::DEMO_NOT_RUNNING, format!("the demo in {dir} is not running"))
            .step(format!("vmhold quickstart resume --dir {dir}"));
    }
    Problem::new(&codes::SERVER_UNREACHABLE, format!("no server runs on the store in {dir}"))
        .step(format!("vmhold serve --dir {dir}"))
}
