//! `vmhold bench`: runs a load and measures.
//!
//! `depth` workers on one thread, each with one call in flight, spread over the
//! connections. They share what they choose from, what they expect and what they
//! count ([`State`]); no borrow of it is held while waiting.
//!
//! ```text
//!  connect -> make files -> fill -> warm up -> measure -> read all back -> remove files
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::{JoinSet, LocalSet};

use crate::block::{Blocks, Shape};
use crate::command::{BenchArgs, Console};
use crate::expectation::{Expectations, FileSet};
use crate::failure::{Failure, Usage};
use crate::fileset::{self, Opened};
use crate::journal::{Event, Header, JournalWriter, Record};
use crate::nfs3::NfsClient;
use crate::report::{BenchReport, End, OutageReport, Violation};
use crate::tally::Tally;
use crate::verify;
use crate::workload::{Chooser, Pattern, flat_files, vm_files};

mod operation;

/// Violations kept with their text; the rest is only counted.
pub(crate) const VIOLATIONS_KEPT: usize = 1000;
const FILL_BYTES: u64 = 1 << 20;
/// Time measured when neither that nor a number of operations is given.
const DURATION: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(200);
/// After an interrupt, outstanding calls get this long.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);

/// What the workers share.
struct Run {
    blocks: Blocks,
    files: FileSet,
    opened: Opened,
    clients: Vec<NfsClient>,
    verify: bool,
    max_errors: u64,
    started: Instant,
    started_unix_ns: u64,
    state: RefCell<State>,
    end: Cell<Option<End>>,
}

struct State {
    chooser: Chooser,
    expectations: Expectations,
    journal: Option<JournalWriter>,
    journal_error: Option<io::Error>,
    tally: Tally,
    sequence: u64,
    /// Operations still to be started.
    operations_left: u64,
    violation_count: u64,
    violations: Vec<Violation>,
}

/// Runs the load on a runtime of its own. The report is not printed.
pub fn run(arguments: &BenchArgs, console: Console) -> Result<BenchReport, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run_here(arguments, console))
}

/// Runs the load inside the caller's `LocalSet`.
pub async fn run_here(arguments: &BenchArgs, console: Console) -> Result<BenchReport, Failure> {
    let plan = Plan::new(arguments)?;
    let behaviour = arguments.connect.behaviour();
    let target = arguments.connect.target(arguments.target.as_ref().ok_or(Usage::NothingToDo)?);
    let mounted = arguments.connect.mount(&target).await?;
    let parent = mounted.walk(&mounted.below).await?;
    let limits = mounted.client.fsinfo(&mounted.root).await.map_err(calling("ask for the server's limits"))?;
    let limit_bytes = limits.read_bytes_max.min(limits.write_bytes_max);
    plan.check_limit(limit_bytes)?;
    let mut clients = vec![mounted.client.clone()];
    while clients.len() < arguments.connections {
        clients.push(mounted.another_connection(&behaviour).await?);
    }
    let directory = format!("vmhold-bench-{:016x}", plan.shape.run_id);
    let opened = fileset::create(&clients[0], (&parent, &directory), &plan.files, plan.shape.unit_bytes);
    let opened = opened.await.map_err(calling("make the files"))?;
    let header = Header {
        target: target.to_string(),
        directory: directory.clone(),
        shape: plan.shape,
        files: plan.files.files().to_vec(),
    };
    let run = Rc::new(plan.start(arguments, (clients, opened), &header)?);
    if arguments.fill.unwrap_or(arguments.mix.reads()) {
        fill(&run, arguments, FILL_BYTES.min(limit_bytes.into()), console).await;
    }
    let (cpu_seconds, outages) = measure(&run, arguments, console).await;
    run.close_journal()?;
    if arguments.verify_end
        && run.end.get() != Some(End::Interrupted)
        && let Err(failure) = read_back(&run, arguments).await
    {
        run.state.borrow_mut().tally.failed(|| failure.to_string());
    }
    let mut report = run.report(arguments, &header, (cpu_seconds, outages));
    if arguments.journal.is_none()
        && !arguments.keep
        && report.ok
        && let Err(error) = fileset::remove_tree(&run.clients[0], &parent, directory.as_bytes()).await
    {
        report.ok = false;
        report.error_count += 1;
        report.errors.push(format!("cannot remove the files of the run: {error}"));
    }
    Ok(report)
}

pub(crate) fn calling(doing: &'static str) -> impl Fn(crate::nfs3::NfsError) -> Failure {
    move |source| Failure::Call { doing, source }
}

/// Checked arguments.
struct Plan {
    shape: Shape,
    files: FileSet,
    sizes: Vec<u64>,
    block_bytes_max: u64,
    seed: u64,
}

impl Plan {
    fn new(arguments: &BenchArgs) -> Result<Plan, Failure> {
        let unit_bytes = arguments.unit;
        if !(512..=1 << 20).contains(&unit_bytes) || !unit_bytes.is_multiple_of(8) {
            return Err(Usage::Unit.into());
        }
        if let Some(&block_bytes) = arguments.block_size.iter().find(|bytes| !bytes.is_multiple_of(unit_bytes)) {
            return Err(Usage::BlockNotUnits { block_bytes, unit_bytes }.into());
        }
        let least = [arguments.depth as u64, arguments.connections as u64, arguments.files, arguments.vms.unwrap_or(1)];
        if least.contains(&0) || arguments.connections > arguments.depth {
            return Err(Usage::Zero.into());
        }
        let files = FileSet::new(match arguments.vms {
            Some(vms) => vm_files(vms, arguments.vm_size, unit_bytes as u32),
            None => flat_files(arguments.files, arguments.file_size, unit_bytes as u32),
        });
        let block_bytes_max = *arguments.block_size.iter().max().ok_or(Usage::Zero)?;
        let blocks = files.units() * unit_bytes / block_bytes_max;
        if blocks < 4 * arguments.depth as u64 {
            return Err(Usage::TooFewBlocks { blocks, depth: arguments.depth }.into());
        }
        let mut random = [[0; 8]; 2];
        getrandom::fill(random.as_flattened_mut()).map_err(io::Error::other)?;
        let [run_id, seed] = random.map(u64::from_le_bytes);
        let shape = Shape {
            run_id,
            unit_bytes: unit_bytes as u32,
            compressible_percent: arguments.compressible,
            dedup_percent: arguments.dedup,
        };
        let sizes = arguments.block_size.iter().map(|bytes| bytes / unit_bytes).collect();
        Ok(Plan { shape, files, sizes, block_bytes_max, seed: arguments.seed.unwrap_or(seed >> 11) })
    }

    fn check_limit(&self, limit_bytes: u32) -> Result<(), Usage> {
        let block_bytes = self.block_bytes_max;
        if block_bytes > limit_bytes.into() { Err(Usage::BlockAboveLimit { block_bytes, limit_bytes }) } else { Ok(()) }
    }

    fn start(
        self,
        arguments: &BenchArgs,
        (clients, opened): (Vec<NfsClient>, Opened),
        header: &Header,
    ) -> Result<Run, Failure> {
        let journal = arguments.journal.as_ref().map(|path| JournalWriter::create(path, header)).transpose()?;
        let started = Instant::now();
        let state = State {
            chooser: Chooser::new(arguments.mix, self.sizes, arguments.pattern, self.seed),
            expectations: Expectations::new(self.files.units()),
            journal,
            journal_error: None,
            tally: Tally::new(started),
            sequence: 0,
            operations_left: u64::MAX,
            violation_count: 0,
            violations: Vec::new(),
        };
        Ok(Run {
            blocks: Blocks::new(self.shape),
            files: self.files,
            opened,
            clients,
            verify: arguments.verify,
            max_errors: arguments.max_errors,
            started,
            started_unix_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            state: RefCell::new(state),
            end: Cell::new(None),
        })
    }
}

/// Writes everything once, in order, in large blocks.
async fn fill(run: &Rc<Run>, arguments: &BenchArgs, block_bytes: u64, console: Console) {
    let units = (block_bytes / arguments.unit).max(1);
    let write = "write".parse().expect("a known mix");
    let filler = Chooser::new(write, vec![units], Pattern::Sequential, 0);
    let blocks: u64 = run.files.files().iter().map(|file| file.units.div_ceil(units)).sum();
    let measured = {
        let state = &mut *run.state.borrow_mut();
        state.operations_left = blocks;
        std::mem::replace(&mut state.chooser, filler)
    };
    let bar = progress(console, "filling", Some(blocks));
    drive(run, arguments.depth, None, &bar).await;
    run.state.borrow_mut().chooser = measured;
    if run.end.get() == Some(End::Operations) {
        run.end.set(None);
    }
}

/// Warms up and measures; gives CPU seconds and outages of the measured part.
async fn measure(run: &Rc<Run>, arguments: &BenchArgs, console: Console) -> (f64, OutageReport) {
    if !arguments.warmup.is_zero() && run.end.get().is_none() {
        run.state.borrow_mut().operations_left = u64::MAX;
        let bar = progress(console, "warming up", None);
        drive(run, arguments.depth, Some(arguments.warmup), &bar).await;
        if run.end.get() == Some(End::Duration) {
            run.end.set(None);
        }
    }
    let errors = run.state.borrow().tally.error_count;
    let cpu_before = cpu_seconds();
    {
        let state = &mut *run.state.borrow_mut();
        let units_checked = state.tally.units_checked;
        let failures = std::mem::take(&mut state.tally.errors);
        state.tally = Tally::new(Instant::now());
        (state.tally.error_count, state.tally.errors, state.tally.units_checked) = (errors, failures, units_checked);
        state.operations_left = arguments.ops.unwrap_or(u64::MAX);
    }
    if run.end.get().is_none() {
        let bar = progress(console, "measuring", arguments.ops);
        let duration = arguments.duration.or(if arguments.ops.is_some() { None } else { Some(DURATION) });
        drive(run, arguments.depth, duration, &bar).await;
    }
    let outages = OutageReport::of(run.clients.iter().map(|client| client.connection().outages()));
    (cpu_seconds() - cpu_before, outages)
}

/// Lets `depth` workers work until the end is set by time, operations, errors or user.
async fn drive(run: &Rc<Run>, depth: usize, duration: Option<Duration>, bar: &ProgressBar) {
    let mut workers = JoinSet::new();
    for number in 0..depth {
        workers.spawn_local(operation::work(run.clone(), number));
    }
    let started = Instant::now();
    let mut over = std::pin::pin!(tokio::time::sleep(duration.unwrap_or(Duration::from_secs(u32::MAX.into()))));
    let mut tick = tokio::time::interval(TICK);
    let mut interrupt = std::pin::pin!(interrupted());
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupt, if run.end.get().is_none() => {
                run.end.set(Some(End::Interrupted));
                let _ = tokio::time::timeout(INTERRUPT_GRACE, async { while workers.join_next().await.is_some() {} }).await;
                workers.abort_all();
            }
            () = &mut over, if run.end.get().is_none() => run.end.set(Some(End::Duration)),
            _ = tick.tick() => run.tick(bar, started),
            ended = workers.join_next() => if ended.is_none() { break },
        }
    }
    bar.finish_and_clear();
}

/// Waits for SIGINT or SIGTERM, so that the journal is closed in good order.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        _ => std::future::pending().await,
    }
}

impl Run {
    /// Several times a second: journal out, progress on.
    fn tick(&self, bar: &ProgressBar, started: Instant) {
        let state = &mut *self.state.borrow_mut();
        if let Some(journal) = &mut state.journal
            && let Err(error) = journal.flush()
        {
            state.journal_error.get_or_insert(error);
            self.end.set(Some(End::Errors));
        }
        let operations = state.tally.operations();
        bar.set_position(operations);
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        let reconnects: u64 = self.clients.iter().map(|client| client.connection().outages().reconnects).sum();
        let mut message = format!("{:.0} s, {:.0} ops/s", seconds, operations as f64 / seconds);
        if reconnects > 0 {
            message += &format!(", {reconnects} reconnects");
        }
        bar.set_message(message);
    }

    /// Unix time of a moment of the run.
    fn unix_ns(&self, moment: Instant) -> u64 {
        self.started_unix_ns + moment.duration_since(self.started).as_nanos() as u64
    }

    fn record(
        &self,
        state: &mut State,
        event: Event,
        (units, version): (Range<u64>, u32),
        (sequence, time_ns): (u64, u64),
    ) {
        let Some(journal) = &mut state.journal else { return };
        let place = self.files.place(units.start);
        let record = Record { event, place, units: (units.end - units.start) as u32, version, sequence, time_ns };
        if let Err(error) = journal.append(&record) {
            state.journal_error.get_or_insert(error);
            self.end.set(Some(End::Errors));
        }
    }

    fn close_journal(&self) -> Result<(), Failure> {
        let now_ns = self.unix_ns(Instant::now());
        let state = &mut *self.state.borrow_mut();
        if let Some(error) = state.journal_error.take() {
            return Err(crate::journal::JournalError::Io(error).into());
        }
        let closed = state.journal.take().map(|journal| journal.close(now_ns)).transpose();
        closed.map_err(crate::journal::JournalError::Io)?;
        Ok(())
    }

    fn report(&self, arguments: &BenchArgs, header: &Header, (cpu, outages): (f64, OutageReport)) -> BenchReport {
        let state = &*self.state.borrow();
        let tally = &state.tally;
        let (counts, operations) = (tally.counts(), tally.operations());
        let seconds = tally.elapsed().as_secs_f64().max(1e-9);
        let mix_within_bounds = arguments.mix.is_met_by(counts);
        let end = self.end.get().unwrap_or(End::Operations);
        BenchReport {
            ok: tally.error_count == 0 && state.violation_count == 0 && mix_within_bounds != Some(false),
            target: header.target.clone(),
            directory: header.directory.clone(),
            run_id: format!("{:016x}", header.shape.run_id),
            seed: arguments.seed.unwrap_or(state.chooser.seed()),
            mix_percent: arguments.mix.percent(),
            measured_mix_percent: counts.map(|count| count as f64 * 100.0 / operations.max(1) as f64),
            mix_within_bounds,
            block_bytes: arguments.block_size.clone(),
            unit_bytes: arguments.unit,
            pattern: arguments.pattern,
            depth: arguments.depth,
            connections: arguments.connections,
            file_count: self.files.files().len(),
            file_bytes: self.files.units() * arguments.unit,
            compressible_percent: arguments.compressible,
            dedup_percent: arguments.dedup,
            elapsed_seconds: seconds,
            operations,
            operations_per_second: operations as f64 / seconds,
            bytes_per_second: tally.bytes() as f64 / seconds,
            kinds: tally.kinds(),
            longest_pause_seconds: tally.longest_pause().as_secs_f64(),
            client_cpu_seconds: cpu,
            client_cpu_us_per_operation: cpu * 1e6 / operations.max(1) as f64,
            outages,
            end,
            error_count: tally.error_count,
            errors: tally.errors.clone(),
            units_checked: tally.units_checked,
            torn_reads: tally.torn_reads,
            violation_count: state.violation_count,
            violations: state.violations.clone(),
        }
    }
}

async fn read_back(run: &Rc<Run>, arguments: &BenchArgs) -> Result<(), Failure> {
    let expectations = std::mem::replace(&mut run.state.borrow_mut().expectations, Expectations::new(0));
    let handles: Vec<_> = run.opened.files.iter().copied().map(Some).collect();
    let job = verify::Job { blocks: &run.blocks, files: &run.files, handles: &handles, closed: true };
    let checked = verify::check(&run.clients, job, expectations, arguments.depth).await?;
    let state = &mut *run.state.borrow_mut();
    state.tally.units_checked += checked.units_checked;
    state.violation_count += checked.violation_count;
    state.violations.extend(checked.violations);
    state.violations.truncate(VIOLATIONS_KEPT);
    Ok(())
}

/// CPU of this process so far.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

pub(crate) fn progress(console: Console, what: &'static str, length: Option<u64>) -> ProgressBar {
    let target = if console.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = if length.is_some() { "{prefix} [{bar:30}] {percent} % {msg}" } else { "{prefix} {spinner} {msg}" };
    let style = ProgressStyle::with_template(template).expect("the templates are valid").progress_chars("#>.");
    ProgressBar::with_draw_target(length, target).with_style(style).with_prefix(what)
}
