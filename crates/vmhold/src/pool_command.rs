//! `pool` and `drive`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control::client::{Call, Changed, Client, segment};
use control::expansion::{ExpandOrder, PoolExpanded};
use control::pool::{DriveList, DriveState, Pool, PoolList, PoolState};
use control::upkeep::{DriveOffer, DriveTaken, ScrubAction, ScrubOrder, ScrubReport};
use control::{Document, Envelope, Exit, Problem, codes};
use jiff::Timestamp;
use node::{PairConfig, PairInvitation, StoreConfig};
use serde::Serialize;

use crate::appliance::{self, change};
use crate::cli::{
    DriveAction, DriveCommand, Global, PoolAction, PoolCommand, PoolCreate, PoolExpand, ScrubVerb, SpareAction,
};
use crate::consent;
use crate::place::unusable;
use crate::say::{Say, width};

/// How long `pool wait` waits, and how often it looks.
const WAITS_WITHIN: Duration = Duration::from_secs(3600);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Port of the API when nothing else is said.
const API_PORT: u16 = 8080;
/// Files beyond this are made with care: nothing else lies in the first bytes of an empty drive.
const ROOM_FOR_LABEL: usize = 4096;

/// `pool create`.
#[derive(Debug, Serialize)]
struct PoolCreated {
    pool: String,
    config: String,
    drives: usize,
    journal_legs: usize,
    datastore: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation: Option<String>,
}

impl Document for PoolCreated {
    const SCHEMA: &'static str = "vmhold.pool.create/v1";
}

/// Runs a verb of `pool`.
pub fn run(command: &PoolCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        PoolAction::List => {
            let list: Envelope<PoolList> = appliance::client(global)?.get("/v1/pools")?;
            say.envelope(&list, |list, _| list.human(width()));
        }
        PoolAction::Show { name, map } => {
            let pool: Envelope<Pool> = appliance::client(global)?.get(&format!("/v1/pools/{}", segment(name)))?;
            say.envelope(&pool, |pool, _| pool.human(*map, Timestamp::now()));
        }
        PoolAction::Scrub { action, name } => scrub(*action, name, global, say)?,
        PoolAction::Wait { name } => return wait(name, global, say),
        PoolAction::History { name } => {
            let path = format!("/v1/pools/{}/scrub", segment(name));
            let report: Envelope<ScrubReport> = appliance::client(global)?.get(&path)?;
            say.envelope(&report, |report, _| report.human_history(width()));
        }
        PoolAction::Create(create) => return self::create(create, global, say),
        PoolAction::Expand(order) => return expand(order, global, say),
    }
    Ok(Exit::Success)
}

/// Waits until the pool is ONLINE and nothing is being filled.
fn wait(name: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let begun = Instant::now();
    let within = global.timeout.unwrap_or(WAITS_WITHIN);
    loop {
        let pool: Envelope<Pool> = appliance::client(global)?.get(&format!("/v1/pools/{}", segment(name)))?;
        let pool = pool.into_result()?;
        if pool.state == PoolState::Online && pool.rebuild.is_none() {
            return Ok(say.done(pool, |pool| format!("{} is ONLINE, every drive is whole\n", pool.name)));
        }
        if begun.elapsed() >= within {
            let out = pool.drives.iter().find(|drive| drive.state != DriveState::Online);
            let why =
                out.map_or_else(String::new, |drive| format!("{} is {:?}", drive.id(), drive.state).to_uppercase());
            return Err(Problem::new(&codes::TIMED_OUT, format!("{name} is not ONLINE yet")).why(why));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn scrub(verb: ScrubVerb, name: &str, global: &Global, say: &Say) -> Result<(), Problem> {
    let path = format!("/v1/pools/{}/scrub", segment(name));
    let action = match verb {
        ScrubVerb::Start => Some(ScrubAction::Start),
        ScrubVerb::Pause => Some(ScrubAction::Pause),
        ScrubVerb::Resume => Some(ScrubAction::Resume),
        ScrubVerb::Status => None,
    };
    let client = appliance::client(global)?;
    let report: Changed<ScrubReport> = match action {
        None => Changed::Done(client.get(&path)?),
        Some(action) => post(&client, &path, &ScrubOrder { action }, global)?,
    };
    say.changed(&report, |report, _| report.human(Timestamp::now()));
    Ok(())
}

fn post<T: Document + serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &impl Serialize,
    global: &Global,
) -> Result<Changed<T>, Problem> {
    let body = serde_json::to_string(body).expect("only strings as keys and finite numbers");
    client.change(&Call { method: "POST", path, body: Some(&body), ..change(global) })
}

/// Gives the pool a drive.
fn offer(api_path: &str, drive: Option<&Path>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let absolute = drive.map(|path| std::path::absolute(path).map_err(|error| unusable(path, &error))).transpose()?;
    if let Some(path) = absolute.as_deref().filter(|path| !global.dry_run && is_device(path)) {
        let name = path.display().to_string();
        consent::confirmed(global, &name, &format!("everything on {name} will be gone"))?;
    }
    let offer = DriveOffer { path: absolute.map(|path| path.display().to_string()) };
    let taken: Changed<DriveTaken> = post(&appliance::patient_client(global)?, api_path, &offer, global)?;
    Ok(say.changed(&taken, |taken, _| taken.human()))
}

/// Pool and slot of a drive named `POOL/SLOT`.
pub fn place_of(id: &str) -> Result<(&str, u32), Problem> {
    let place = id.split_once('/').and_then(|(pool, slot)| Some((pool, slot.parse().ok()?)));
    place.ok_or_else(|| {
        Problem::new(&codes::BAD_INPUT, format!("{id:?} is not a drive")).step("name it POOL/SLOT, as in flash0/3")
    })
}

/// Runs a verb of `drive`.
pub fn drives(command: &DriveCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        DriveAction::Spare(SpareAction::Add { path }) => return offer("/v1/drives", Some(path), global, say),
        DriveAction::Replace { id, with } => {
            let (pool, slot) = place_of(id)?;
            let path = format!("/v1/drives/{}/{slot}/replace", segment(pool));
            return offer(&path, with.as_deref(), global, say);
        }
        DriveAction::Retire { id, with } => {
            let (pool, slot) = place_of(id)?;
            let path = format!("/v1/drives/{}/{slot}/retire", segment(pool));
            return offer(&path, with.as_deref(), global, say);
        }
        DriveAction::List | DriveAction::Show { .. } => {}
    }
    let mut list: Envelope<DriveList> = appliance::client(global)?.get("/v1/drives")?;
    if let DriveAction::Show { id } = &command.action
        && let control::Outcome::Data(drives) = &mut list.outcome
    {
        drives.0.retain(|drive| drive.id() == *id);
        if drives.0.is_empty() {
            return Err(Problem::new(&codes::NOT_FOUND, format!("no drive {id:?}")).step("vmhold drive list"));
        }
    }
    say.envelope(&list, |list, _| list.human(width()));
    Ok(Exit::Success)
}

/// Adds drives; files that this command made for it go away again when they did not join.
fn expand(order: &PoolExpand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| unusable(path, &error));
    let paths = order.drives.iter().map(absolute).collect::<Result<Vec<PathBuf>, Problem>>()?;
    let devices: Vec<String> =
        paths.iter().filter(|path| is_device(path)).map(|path| path.display().to_string()).collect();
    if !global.dry_run && !devices.is_empty() {
        consent::confirmed(global, &order.name, &format!("everything on {} will be gone", devices.join(", ")))?;
    }
    let mut made = Vec::new();
    let outcome = match global.dry_run {
        true => Ok(()),
        false => make_drives(&paths, order.drive_size, &mut made),
    };
    let expanded = outcome.and_then(|()| ask_to_expand(order, &paths, global)).inspect_err(|problem| {
        // After a clear no, and only what is still blank: one drive may have joined before
        // the next was refused, or may be joining now if no answer came.
        let refused = [&codes::SPARE_REFUSED, &codes::POOL_NOT_FOUND, &codes::PATH_UNUSABLE].contains(&problem.code());
        made.iter()
            .filter(|path| refused && check_empty(path).is_ok())
            .for_each(|path| drop(std::fs::remove_file(path)));
    })?;
    Ok(say.changed(&expanded, |expanded, _| expanded.human()))
}

fn ask_to_expand(order: &PoolExpand, paths: &[PathBuf], global: &Global) -> Result<Changed<PoolExpanded>, Problem> {
    let body = ExpandOrder {
        drives: paths.iter().map(|path| path.display().to_string()).collect(),
        stripe_data: order.stripe_data,
    };
    let path = format!("/v1/pools/{}/expand", segment(&order.name));
    let client = appliance::patient_client(global)?;
    post(&client, &path, &body, global)
}

fn make_drives(paths: &[PathBuf], size: Option<u64>, made: &mut Vec<PathBuf>) -> Result<(), Problem> {
    for path in paths.iter().filter(|path| !path.exists()) {
        let size_bytes = size.ok_or_else(|| {
            Problem::new(&codes::PATH_UNUSABLE, format!("{} is not there", path.display()))
                .step("have files made: add --drive-size SIZE")
        })?;
        node::create_sparse_file(path, size_bytes).map_err(|error| unusable(path, &error))?;
        made.push(path.clone());
    }
    Ok(())
}

fn create(create: &PoolCreate, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let file = create.config.clone().unwrap_or_else(|| global.dir.join("vmhold.toml"));
    if file.exists() {
        return Err(Problem::new(&codes::POOL_EXISTS, format!("{} is there already", file.display()))
            .step("serve it: vmhold serve --config FILE"));
    }
    let mut config = configuration(create, global)?;
    let media = || config.drives.iter().chain(&config.spares).chain(&config.journal);
    if media().any(|path| is_device(path)) {
        let names: Vec<String> = media().map(|path| path.display().to_string()).collect();
        consent::confirmed(global, &create.name, &format!("everything on {} will be gone", names.join(", ")))?;
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    }
    let mut made = Vec::new();
    let outcome = make_media(create, &config, &mut made).and_then(|()| make_pool(create, &file, &mut config));
    // Only what this command made goes away again.
    let invitation = outcome.inspect_err(|_| made.iter().for_each(|path| drop(std::fs::remove_file(path))))?;
    let created = PoolCreated {
        pool: create.name.clone(),
        config: file.display().to_string(),
        drives: config.drives.len(),
        journal_legs: config.journal.len(),
        datastore: create.datastore.clone(),
        invitation: invitation.map(|invitation| invitation.to_string()),
    };
    Ok(say.done(created, |created| {
        let mut out = format!("pool {} is made; serve it: vmhold serve --config {}\n", created.pool, created.config);
        if let Some(invitation) = &created.invitation {
            out.push_str(&format!(
                "Keep this secret. At the other site:\n\n  vmhold pool create ... --pair-join {invitation}\n\n"
            ));
        }
        out
    }))
}

/// Makes the pool, as one of two if that is wanted, and writes its configuration. Says what the
/// other site needs.
fn make_pool(create: &PoolCreate, file: &Path, config: &mut StoreConfig) -> Result<Option<PairInvitation>, Problem> {
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let Some((founding, invitation)) = create.pair.founding(folder, create.datastore.as_deref())? else {
        node::create(config, create.datastore.as_deref())?;
        config.save(file)?;
        return Ok(None);
    };
    node::create_paired(config, &founding)?;
    // The membership is beside the configuration, wherever both are moved.
    config.pair = Some(PairConfig { membership: ".".into(), ..founding.config });
    config.save(file)?;
    Ok(invitation)
}

fn configuration(create: &PoolCreate, global: &Global) -> Result<StoreConfig, Problem> {
    let absolute = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, Problem> {
        paths.iter().map(|path| std::path::absolute(path).map_err(|error| unusable(path, &error))).collect()
    };
    let unit_bytes = create.unit.map(u32::try_from).transpose();
    Ok(StoreConfig {
        site: create.site.clone(),
        pool: create.name.clone(),
        lab: create.lab,
        drives: absolute(&create.drives)?,
        spares: absolute(&create.spares)?,
        return_wait_seconds: None,
        file: None,
        journal: absolute(&create.journal)?,
        unit_bytes: unit_bytes.map_err(|_| Problem::new(&codes::BAD_INPUT, "--unit is above 4 GiB"))?,
        stripe_data: create.stripe_data,
        cache_bytes: None,
        nfs: create.nfs,
        mount: None,
        portmap: create.portmap,
        rpcbind: create.rpcbind,
        api: global.api.unwrap_or_else(|| ([127, 0, 0, 1], API_PORT).into()),
        io: None,
        pair: None,
        state: node::DEFAULT_STATE.into(),
    })
}

fn make_media(create: &PoolCreate, config: &StoreConfig, made: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let mut make = |path: &PathBuf, size: Option<u64>, option: &str, how: fn(&Path, u64) -> std::io::Result<()>| {
        if path.exists() {
            return check_empty(path);
        }
        let size_bytes = size.ok_or_else(|| {
            Problem::new(&codes::PATH_UNUSABLE, format!("{} is not there", path.display()))
                .step(format!("have files made: add {option} SIZE"))
        })?;
        how(path, size_bytes).map_err(|error| unusable(path, &error))?;
        made.push(path.clone());
        Ok(())
    };
    for path in config.drives.iter().chain(&config.spares) {
        make(path, create.drive_size, "--drive-size", node::create_sparse_file)?;
    }
    for path in &config.journal {
        make(path, create.journal_size, "--journal-size", node::create_zeroed_file)?;
    }
    Ok(())
}

/// A file or device with something at its start belongs to someone.
fn check_empty(path: &Path) -> Result<(), Problem> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unusable(path, &error))?;
    file.take(ROOM_FOR_LABEL as u64).read_to_end(&mut start).map_err(|error| unusable(path, &error))?;
    if start.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    Err(Problem::new(&codes::FOREIGN_DRIVE, format!("{} is not empty", path.display())))
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device() || meta.file_type().is_char_device())
}
