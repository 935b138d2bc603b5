//! The state folder: what a store remembers about itself beside its data. Events, jobs and
//! the audit log are ledgers; then the tokens, and the certificate of the API with its key.
//! None of it is needed to serve datastores; without it the API does not start.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::access::{Access, Secret, Shelf};
use control::activity_book::{ActivityBook, segment_names};
use control::audit::Audit;
use control::events::EventBook;
use control::history::HistoryBook;
use control::jobs::JobBook;
use control::roles::RoleBook;
use control::server::Books;
use control::tls::{self, Fingerprint, Pem, TlsConfig};
use control::{Problem, codes};

use crate::config::StoreConfig;
use crate::ledger::{Keep, LedgerFile, files_of};
use crate::segments::Segments;

const LEDGERS: [&str; 6] = ["events", "jobs", "audit", "history", "history-rolled", "roles"];
const TOKENS: &str = "tokens.json";
const CERTIFICATE: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";
/// Holds the token of this machine's CLI: new with every start, readable by the owner.
pub const LOCAL_TOKEN: &str = "local-token";
/// Only the owner of the store reads secrets.
const SECRET_MODE: u32 = 0o600;

/// Every file a state folder may hold, for those who have to remove one.
#[must_use]
pub fn state_files() -> Vec<String> {
    let mut files: Vec<String> = LEDGERS.into_iter().flat_map(files_of).collect();
    files.extend(segment_names());
    for name in [TOKENS, CERTIFICATE, KEY, LOCAL_TOKEN] {
        files.extend([name.to_owned(), format!("{name}.new")]);
    }
    files
}

/// See the module's head.
pub(crate) struct Records {
    /// Events, jobs, audit log, access.
    pub books: Books,
    /// How the API speaks TLS.
    pub tls: Arc<TlsConfig>,
    /// What its certificate is known by.
    pub fingerprint: Fingerprint,
    /// Whether the certificate was made just now.
    pub is_first_start: bool,
}

impl Records {
    /// Opens the folder, which is made if it is not there.
    pub fn open(config: &StoreConfig, api: SocketAddr) -> Result<Records, Problem> {
        let folder = &config.state;
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        let ledger = |name: &str, keep| LedgerFile::open(folder, name, keep).map_err(|error| unusable(folder, &error));
        let (events, lines) = ledger("events", Keep::Soon)?;
        let events = EventBook::open(lines.iter().map(String::as_str), Box::new(events));
        let (jobs, lines) = ledger("jobs", Keep::Soon)?;
        let jobs = JobBook::open(lines.iter().map(String::as_str), Box::new(jobs));
        let (fine, fine_lines) = ledger("history", Keep::Soon)?;
        let (rolled, rolled_lines) = ledger("history-rolled", Keep::Soon)?;
        let history = HistoryBook::open(
            (fine_lines.iter().map(String::as_str), Box::new(fine)),
            (rolled_lines.iter().map(String::as_str), Box::new(rolled)),
        );
        let (roles, lines) = ledger("roles", Keep::Soon)?;
        let roles = RoleBook::open(lines.iter().map(String::as_str), Box::new(roles));
        let (audit, lines) = ledger("audit", Keep::Now)?;
        let audit = Audit::open(lines.iter().map(String::as_str), Box::new(audit));
        let activity = ActivityBook::open(Box::new(Segments(folder.clone())));
        let access = Arc::new(open_access(folder)?);
        let (pem, is_first_start) = certificate(folder, &config.site, api)?;
        let (tls, fingerprint) = tls::server(&pem)?;
        Ok(Records {
            books: Books { events, jobs, history, roles, activity, audit, access },
            tls,
            fingerprint,
            is_first_start,
        })
    }
}

fn open_access(folder: &Path) -> Result<Access, Problem> {
    let tokens = Tokens(folder.join(TOKENS));
    let file = match std::fs::read_to_string(&tokens.0) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&tokens.0, &error)),
    };
    let local = Secret::random()?;
    let access = Access::open(file.as_deref(), &local, Box::new(tokens))?;
    let path = folder.join(LOCAL_TOKEN);
    replace(&path, local.text()).map_err(|error| unusable(&path, &error))?;
    Ok(access)
}

/// The certificate of the folder, made if there is none.
fn certificate(folder: &Path, site: &str, api: SocketAddr) -> Result<(Pem, bool), Problem> {
    let (certificate_file, key_file) = (folder.join(CERTIFICATE), folder.join(KEY));
    match (std::fs::read_to_string(&certificate_file), std::fs::read_to_string(&key_file)) {
        (Ok(certificate), Ok(key)) => Ok((Pem { certificate, key }, false)),
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            let pem = tls::make(site, api.ip())?;
            // The key first: a certificate that is there has its key.
            replace(&key_file, &pem.key).map_err(|error| unusable(&key_file, &error))?;
            replace(&certificate_file, &pem.certificate).map_err(|error| unusable(&certificate_file, &error))?;
            Ok((pem, true))
        }
        (Err(error), _) => Err(unusable(&certificate_file, &error)),
        (_, Err(error)) => Err(unusable(&key_file, &error)),
    }
}

/// The token file.
struct Tokens(PathBuf);

impl Shelf for Tokens {
    fn put(&self, text: &str) -> io::Result<()> {
        replace(&self.0, text)
    }
}

/// Replaces a secret file so that a reader sees the old one or the new one, also after a
/// power cut.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(SECRET_MODE).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(&codes::PATH_UNUSABLE, format!("{} cannot be used", path.display())).why(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(folder: &Path) -> StoreConfig {
        StoreConfig {
            site: "site-a".into(),
            pool: "flash0".into(),
            lab: false,
            drives: Vec::new(),
            spares: Vec::new(),
            return_wait_seconds: None,
            file: None,
            journal: Vec::new(),
            unit_bytes: None,
            stripe_data: None,
            cache_bytes: None,
            nfs: ([127, 0, 0, 1], 0).into(),
            mount: None,
            portmap: false,
            rpcbind: false,
            api: ([127, 0, 0, 1], 0).into(),
            io: None,
            pair: None,
            state: folder.join("control"),
        }
    }

    #[test]
    fn a_second_start_keeps_the_fingerprint_and_changes_the_local_token() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let first = Records::open(&config, config.api).unwrap();
        let token = std::fs::read_to_string(config.state.join(LOCAL_TOKEN)).unwrap();
        assert!(first.books.access.by_token(&token, None, jiff::Timestamp::now()).is_some());
        let second = Records::open(&config, config.api).unwrap();
        assert_eq!((first.fingerprint, first.is_first_start), (second.fingerprint, true));
        assert!(!second.is_first_start);
        assert!(
            second.books.access.by_token(&token, None, jiff::Timestamp::now()).is_none(),
            "a new start, a new token"
        );
    }

    #[test]
    fn secrets_are_for_the_owner_and_every_file_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        Records::open(&config, config.api).unwrap();
        let known = state_files();
        for entry in std::fs::read_dir(&config.state).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            assert!(known.contains(&name), "{name} would be left behind by who removes the folder");
            let mode = entry.metadata().unwrap().permissions().mode();
            assert!(name.ends_with(".jsonl") || mode & 0o077 == 0, "{name} has mode {mode:o}");
        }
    }
}
