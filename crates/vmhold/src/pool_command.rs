//! `pool` and `drive`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use control::client::segment;
use control::pool::{DriveList, Pool, PoolList};
use control::{Document, Envelope, Exit, Problem, codes};
use jiff::Timestamp;
use node::StoreConfig;
use serde::Serialize;

use crate::appliance;
use crate::cli::{DriveAction, DriveCommand, Global, PoolAction, PoolCommand, PoolCreate};
use crate::consent;
use crate::place::unusable;
use crate::say::{Say, width};

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
        PoolAction::Create(create) => return self::create(create, global, say),
    }
    Ok(Exit::Success)
}

/// Runs a verb of `drive`.
pub fn drives(command: &DriveCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
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

fn create(create: &PoolCreate, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let file = create.config.clone().unwrap_or_else(|| global.dir.join("vmhold.toml"));
    if file.exists() {
        return Err(Problem::new(&codes::POOL_EXISTS, format!("{} is there already", file.display()))
            .step("serve it: vmhold serve --config FILE"));
    }
    let config = configuration(create, global)?;
    let media = || config.drives.iter().chain(&config.journal);
    if media().any(|path| is_device(path)) {
        let names: Vec<String> = media().map(|path| path.display().to_string()).collect();
        consent::confirmed(global, &create.name, &format!("everything on {} will be gone", names.join(", ")))?;
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    }
    let mut made = Vec::new();
    let outcome = make_media(create, &config, &mut made)
        .and_then(|()| node::create(&config, create.datastore.as_deref()))
        .and_then(|()| config.save(&file));
    if let Err(problem) = outcome {
        // Only what this command made goes away again.
        for path in made {
            let _ = std::fs::remove_file(path);
        }
        return Err(problem);
    }
    let created = PoolCreated {
        pool: create.name.clone(),
        config: file.display().to_string(),
        drives: config.drives.len(),
        journal_legs: config.journal.len(),
        datastore: create.datastore.clone(),
    };
    Ok(say.done(created, |created| {
        format!("pool {} is made; serve it: vmhold serve --config {}\n", created.pool, created.config)
    }))
}

fn configuration(create: &PoolCreate, global: &Global) -> Result<StoreConfig, Problem> {
    let absolute = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, Problem> {
        paths.iter().map(|path| std::path::absolute(path).map_err(|error| unusable(path, &error))).collect()
    };
    let unit_bytes = create.unit.map(u32::try_from).transpose();
    Ok(StoreConfig {
        site: create.site.clone(),
        pool: create.name.clone(),
        drives: absolute(&create.drives)?,
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
    for path in &config.drives {
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
