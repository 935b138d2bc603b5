//! The server of a demo: a process of its own that announces itself on its standard
//! output, ends with this process while its standard input is open, and logs to a file.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use control::{Document, Envelope, Exit, Problem, codes};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::runtime::{Builder, Runtime};

use crate::cli::Global;
use crate::daemon::DETACH;
use crate::place::{Announcement, Place, unusable, write_json};
use crate::process::ProcessId;
use crate::say::Say;
use crate::signals::Signals;
use crate::witness_command::WitnessAnnouncement;

/// A full journal is replayed well within this.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOG_LINES_SHOWN: usize = 5;
const LOG_BYTES_SHOWN: u64 = 16 << 10;
const LOG_LINE_CHARACTERS: usize = 200;

/// A running server, and what it announced.
pub struct Server<T = Announcement> {
    runtime: Runtime,
    signals: Signals,
    child: Child,
    stdin: Option<ChildStdin>,
    process: ProcessId,
    /// What it announced.
    pub announced: T,
}

impl Server<WitnessAnnouncement> {
    /// Starts a witness in the folder.
    pub fn of_witness(place: &Place, listen: SocketAddr, global: &Global) -> Result<Self, Problem> {
        let listen = listen.to_string();
        Self::begin(place, &["witness", "serve", "--listen", &listen], global, |announced| announced.process)
    }
}

impl Server {
    /// Starts the server of the folder and waits until every door is open.
    pub fn start(place: &Place, global: &Global) -> Result<Self, Problem> {
        if let Some(announced) = place.announced() {
            let dir = global.dir.display();
            return Err(Problem::new(&codes::DEMO_RUNNING, format!("the demo in {dir} is already running"))
                .why(format!("process {} serves it", announced.process.pid))
                .step(format!("vmhold status --dir {dir}")));
        }
        Self::begin(place, &["serve"], global, |announced| announced.process)
    }
}

impl<T: Document + DeserializeOwned> Server<T> {
    fn begin(
        place: &Place,
        role: &[&str],
        global: &Global,
        process_of: impl Fn(&T) -> ProcessId,
    ) -> Result<Self, Problem> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| cannot_start(&error))?;
        let within = global.timeout.unwrap_or(READY_WITHIN);
        let entered = runtime.enter();
        let mut signals = Signals::catch().map_err(|error| cannot_start(&error))?;
        drop(entered);
        let (child, stdin, announced) = runtime.block_on(spawn(place, role, within, &mut signals))?;
        Ok(Self { runtime, signals, child, stdin: Some(stdin), process: process_of(&announced), announced })
    }

    /// Lets it go on without us.
    pub fn let_go(&mut self) -> Result<(), Problem> {
        let mut stdin = self.stdin.take().expect("a server is let go once");
        self.runtime.block_on(async {
            let detached = stdin.write_all(format!("{DETACH}\n").as_bytes()).await;
            detached.and(stdin.flush().await).map_err(|error| cannot_start(&error))
        })
    }

    /// In the background: lets it go on without us. Else stays until it ends or a signal
    /// asks for its end, and ends it.
    pub fn stay(&mut self, background: bool, place: &Place, say: &Say) -> Result<Exit, Problem> {
        if background {
            self.let_go()?;
            return Ok(Exit::Success);
        }
        let Self { runtime, signals, child, process, .. } = self;
        runtime.block_on(async {
            let status = supervise(child, *process, (signals, say)).await.map_err(|error| cannot_start(&error))?;
            if status.success() {
                say.note("stopped");
                return Ok(Exit::Success);
            }
            Err(died(place, &status.to_string()))
        })
    }
}

/// Waits for the end of the server; Ctrl-C and SIGTERM ask for it.
async fn supervise(
    child: &mut Child,
    process: ProcessId,
    (signals, say): (&mut Signals, &Say),
) -> std::io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            () = signals.next() => {}
        }
        say.note("stopping ...");
        process.signal(Signal::TERM);
    }
}

async fn spawn<T: Document + DeserializeOwned>(
    place: &Place,
    role: &[&str],
    within: Duration,
    signals: &mut Signals,
) -> Result<(Child, ChildStdin, T), Problem> {
    let program = std::env::current_exe().map_err(|error| cannot_start(&error))?;
    let log = OpenOptions::new().append(true).create(true).open(place.log());
    let log: File = log.map_err(|error| unusable(&place.log(), &error))?;
    let mut command = Command::new(program);
    command.arg("--json").args(role).args(["--until-eof", "--dir"]).arg(place.dir());
    command.env_remove("VMHOLD_API").env_remove("VMHOLD_DIR");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).current_dir("/");
    let mut child = command.spawn().map_err(|error| cannot_start(&error))?;
    if let Some(process) = child.id().and_then(ProcessId::of) {
        write_json(&place.server(), &process)?;
    }
    let stdin = child.stdin.take().expect("it was asked for");
    let mut stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut line = String::new();
    let problem = tokio::select! {
        _ = stdout.read_line(&mut line) => None,
        () = tokio::time::sleep(within) => Some(Problem::new(&codes::TIMED_OUT, "the server was not ready in time")),
        () = signals.next() => Some(Problem::new(&codes::DEMO_NOT_RUNNING, "the server was stopped before it was ready")),
    };
    if let Some(problem) = problem {
        // Its standard input closes with us, and it stops as soon as it can.
        return Err(problem.why(log_tail(&place.log())));
    }
    let said: Option<Envelope<T>> = serde_json::from_str(&line).ok();
    match said.map(Envelope::into_result) {
        Some(Ok(announced)) => Ok((child, stdin, announced)),
        Some(Err(problem)) => {
            let _ = child.wait().await;
            Err(problem.note(format!("its log: {}", place.log().display())))
        }
        None => {
            // What it still has to say is in its log.
            let _ = stdout.read_to_string(&mut line).await;
            let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(died(place, &status))
        }
    }
}

fn cannot_start(error: &std::io::Error) -> Problem {
    Problem::new(&codes::PATH_UNUSABLE, "the server cannot be started").why(error.to_string())
}

fn died(place: &Place, status: &str) -> Problem {
    Problem::new(&codes::DEMO_NOT_RUNNING, format!("the server has ended: {status}"))
        .why(log_tail(&place.log()))
        .step(format!("vmhold quickstart resume --dir {}", place.dir().display()))
        .step(format!("read {}", place.log().display()))
}

/// The last lines of a log, each cut to a sensible length.
fn log_tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
        file.read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("its log {} cannot be read: {error}", path.display());
    }
    let text = String::from_utf8_lossy(&bytes);
    // The report for people repeats what the last of these says.
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter();
    let cut: Vec<String> = last.map(|line| line.chars().take(LOG_LINE_CHARACTERS).collect()).collect();
    format!("its log ends with: {}", cut.join(" / "))
}
