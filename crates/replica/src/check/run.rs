//! The primary's end: from the point to the receipt.
//!
//! Whatever ends the check at the mirror drops the channels that this waits on, and it ends with them. What was
//! found until then counts: a difference is a difference.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base::{Buf, FileId, Nanos, Osn};
use engine::store::{FileHead, LOCAL_FILES, StoreRefusal};
use mirror::{Input, Mirror};
use tokio::sync::oneshot;

use super::ask::{Ask, Reply};
use super::look::differing_rows;
use super::marker::first_row;
use super::{
    BLOCKS_TOLD_MAX, CheckOutcome, CheckProgress, CheckRefused, CheckReport, CheckWanted, Differences, FILES_TOLD_MAX,
    FileDifference, FileLook, ROWS_TOLD_MAX, Sides,
};
use crate::replica::{Inner, Replica};
use crate::resync::ask::Key;
use crate::resync::rows::{self, Page};

/// Files of one question; fewer where they are read.
const FILES_AT_A_TIME: usize = 256;
const FILES_READ_AT_A_TIME: usize = 8;
/// Files that are listed at a time.
const FILES_LISTED: usize = 1024;
/// Chunks of one question.
const CHUNKS_AT_A_TIME: u64 = 16_384;

/// A check that runs, as the rest of the site sees it.
pub(crate) struct CheckCourse {
    number: Option<u64>,
    last: u64,
    /// All data is read.
    pub reads_data: bool,
    point: Option<oneshot::Sender<(u64, Osn)>>,
    told: BTreeMap<u64, oneshot::Sender<Buf>>,
    pub progress: CheckProgress,
}

impl CheckCourse {
    /// Its point is there.
    pub fn has_point(&mut self, number: u64, osn: Osn) {
        self.number = Some(number);
        // Whoever waits may have given up.
        let _ = self.point.take().map(|tell| tell.send((number, osn)));
    }

    /// Nothing more comes of it.
    pub fn ends(&mut self) {
        (self.number, self.point) = (None, None);
        self.told.clear();
    }

    pub fn told(&mut self, query: u64, body: Buf) {
        let _ = self.told.remove(&query).map(|tell| tell.send(body));
    }
}

/// Why it does not go on.
enum Stop {
    Because(&'static str),
    /// Enough is known.
    Enough,
}

impl From<StoreRefusal> for Stop {
    fn from(refusal: StoreRefusal) -> Stop {
        Stop::Because(match refusal {
            StoreRefusal::NoSpace => "the pool of this site has no room for what is in its journal",
            StoreRefusal::Unreadable { .. } => "metadata of this site cannot be read",
            _ => "this site has stopped",
        })
    }
}

const ENDED: Stop =
    Stop::Because("the sites parted, or one changed its role: nothing is known of what was not compared yet");
const CANNOT: Stop =
    Stop::Because("the other site could not look at what it has, or more was changed meanwhile than can be remembered");

impl Replica {
    /// Compares both sites. Clients wait for what is in flight to end, and are served meanwhile.
    ///
    /// # Errors
    /// [`CheckRefused`]: none was begun.
    pub async fn check(&self, wanted: CheckWanted) -> Result<CheckReport, CheckRefused> {
        let site = &self.inner;
        site.may_check()?;
        let (tell, point) = oneshot::channel();
        let (tell_told, told) = oneshot::channel();
        let course = CheckCourse {
            number: None,
            last: mirror::check::POINT,
            reads_data: wanted.reads_data,
            point: Some(tell),
            told: BTreeMap::from([(mirror::check::POINT, tell_told)]),
            progress: CheckProgress::default(),
        };
        *site.check_course.borrow_mut() = Some(course);
        let (done, report) = oneshot::channel();
        let owner = site.clone();
        // Whoever asked may go away: the check goes on, since what it finds counts.
        let work = async move {
            let report = Run::new(owner.clone(), wanted).all(point, told).await;
            owner.check_course.borrow_mut().take();
            owner.changed.notify_waiters();
            let _ = done.send(report);
        };
        site.world.spawn.spawn("check", Box::pin(work));
        report.await.map_err(|_| CheckRefused::Stopped)
    }

    /// How far the check that runs has come.
    #[must_use]
    pub fn check_progress(&self) -> Option<CheckProgress> {
        self.inner.check_course.borrow().as_ref().map(|course| course.progress)
    }

    /// Whether a check could begin now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_check(&self) -> Result<(), CheckRefused> {
        self.inner.may_check()
    }
}

impl Inner {
    fn may_check(&self) -> Result<(), CheckRefused> {
        if self.is_gone() {
            return Err(CheckRefused::Stopped);
        }
        if self.check_course.borrow().is_some() {
            return Err(CheckRefused::Running);
        }
        let may = self.with_mirror(Mirror::may_check);
        let known = self.shelf.borrow().kept().memory.known;
        match known {
            _ if may => Ok(()),
            Some(known) if known.primary != self.config.me => Err(CheckRefused::NotPrimary),
            Some(known) if known.in_sync => Err(CheckRefused::Apart),
            Some(_) => Err(CheckRefused::OutOfSync),
            None => Err(CheckRefused::NotPrimary),
        }
    }
}

struct Run {
    site: Rc<Inner>,
    wanted: CheckWanted,
    began: Nanos,
    report: CheckReport,
    found: Differences,
}

impl Run {
    fn new(site: Rc<Inner>, wanted: CheckWanted) -> Run {
        let clock = &site.world.clock;
        let (began, wall) = (clock.now(), clock.wall());
        let report = CheckReport {
            osn: None,
            began: wall,
            ended: wall,
            pause: Duration::ZERO,
            reads_data: wanted.reads_data,
            files: 0,
            bytes: 0,
            rows: 0,
            outcome: CheckOutcome::NotCompleted("it was not begun"),
        };
        Run { site, wanted, began, report, found: Differences::default() }
    }

    async fn all(mut self, point: oneshot::Receiver<(u64, Osn)>, told: oneshot::Receiver<Buf>) -> CheckReport {
        let came = self.compare(point, told).await;
        let tally = self.site.at_point(|marker| marker.tally).unwrap_or_default();
        (self.report.files, self.report.bytes, self.report.rows) = (tally.files, tally.bytes, tally.rows);
        self.report.ended = self.site.world.clock.wall();
        self.report.outcome = match came {
            _ if !self.found.is_none() => {
                // For good before anything else is said of it.
                self.site.tell(Input::Differs);
                self.site.caught_up_now().await;
                CheckOutcome::Differs(std::mem::take(&mut self.found))
            }
            Ok(outcome) => outcome,
            Err(Stop::Because(why)) => CheckOutcome::NotCompleted(why),
            Err(Stop::Enough) => CheckOutcome::NotCompleted("nothing was compared"),
        };
        let number = self.site.check_course.borrow().as_ref().and_then(|course| course.number);
        number.into_iter().for_each(|number| self.site.tell(Input::CheckedAll(number)));
        self.site.marker.borrow_mut().take();
        self.site.queued.notify_one();
        self.report
    }

    async fn compare(
        &mut self,
        point: oneshot::Receiver<(u64, Osn)>,
        told: oneshot::Receiver<Buf>,
    ) -> Result<CheckOutcome, Stop> {
        let osn = self.point(point, told).await?;
        self.report.osn = Some(osn);
        self.rows().await?;
        self.files().await?;
        if !self.found.is_none() {
            return Err(Stop::Enough);
        }
        let outcome = self.sign().await?;
        // It may be gone by now; what was signed stays true.
        let _ = self.ask(Ask::End).await;
        Ok(outcome)
    }

    async fn point(&mut self, point: oneshot::Receiver<(u64, Osn)>, told: oneshot::Receiver<Buf>) -> Result<Osn, Stop> {
        let site = &self.site;
        let ask = Ask::Point {
            pair: site.config.pair,
            key_name: site.engine.sum_key_name(),
            reads_data: self.wanted.reads_data,
        };
        site.tell(Input::Check(ask.encode().into()));
        let no_point = Stop::Because("what is in flight did not end in time, or the sites parted: there was no point");
        let (_, osn) = point.await.map_err(|_| no_point)?;
        self.report.pause = site.world.clock.now().since(self.began);
        site.until_point(osn).await;
        let here = site.in_flight_at_point.get();
        let reply = Reply::decode(&told.await.map_err(|_| ENDED)?).ok_or(CANNOT)?;
        match reply {
            Reply::Pointed { in_flight: 0 } if here == 0 => Ok(osn),
            Reply::Pointed { .. } => Err(Stop::Because("something was in flight at the point")),
            Reply::OtherKey => Err(Stop::Because(
                "the sites make their sums with different keys: the other one was not made as a half of this pair",
            )),
            _ => Err(CANNOT),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Stop> {
        let (tell, told) = oneshot::channel();
        let (number, query) = {
            let mut course = self.site.check_course.borrow_mut();
            let course = course.as_mut().ok_or(ENDED)?;
            let number = course.number.ok_or(ENDED)?;
            course.last += 1;
            course.told.insert(course.last, tell);
            (number, course.last)
        };
        self.site.tell(Input::Query(number, query, ask.encode().into()));
        let body = told.await.map_err(|_| ENDED)?;
        if self.site.at_point(|marker| marker.overflowed) == Some(true) {
            return Err(CANNOT);
        }
        Reply::decode(&body).ok_or(CANNOT)
    }

    fn note(&self, change: impl FnOnce(&mut CheckProgress)) {
        if let Some(course) = self.site.check_course.borrow_mut().as_mut() {
            change(&mut course.progress);
        }
    }

    // -- rows

    async fn rows(&mut self) -> Result<(), Stop> {
        let mut from = first_row();
        loop {
            let Page { rows, next } = self.site.rows_at_point(&from, None).await?;
            self.page(&from, next.as_ref(), &rows).await?;
            self.site.at_point(|marker| marker.rows_are_done(next.clone()));
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    async fn page(&mut self, from: &Key, to: Option<&Key>, rows: &[(Key, Vec<u8>)]) -> Result<(), Stop> {
        let digest = rows::digest_of(rows);
        let reply = self.ask(Ask::Rows { from: from.clone(), to: to.cloned(), digest }).await?;
        self.site.at_point(|marker| {
            marker.tally.rows += rows.len() as u64;
            marker.tally.add(&digest);
        });
        self.note(|progress| progress.rows += rows.len() as u64);
        match reply {
            Reply::Same => Ok(()),
            Reply::Rows(theirs) => {
                let mut differ = differing_rows(rows, &theirs);
                self.found.rows_in_all += differ.len().max(1) as u64;
                differ.truncate(ROWS_TOLD_MAX.saturating_sub(self.found.rows.len()));
                self.found.rows.append(&mut differ);
                Ok(())
            }
            _ => Err(CANNOT),
        }
    }

    // -- files

    async fn files(&mut self) -> Result<(), Stop> {
        self.note_size().await?;
        let through = FileId(LOCAL_FILES.0 - 1);
        let limit = if self.wanted.reads_data { FILES_READ_AT_A_TIME } else { FILES_AT_A_TIME };
        let mut from = FileId(1);
        while from <= through {
            let (files, last) = self.site.files_at_point(from, through, limit).await?;
            if self.wanted.reads_data {
                self.site.keep_files(files.clone(), false).await?;
            }
            let mut looks = Vec::with_capacity(files.len());
            for file in files {
                let Some(look) = self.site.look_at(file).await? else { continue };
                self.note(|progress| {
                    progress.files += 1;
                    progress.bytes += if self.wanted.reads_data { 0 } else { look.size_bytes };
                });
                looks.push(look);
            }
            self.batch((from, last), &looks).await?;
            self.site.files_are_done(last).await?;
            from = last.next();
        }
        Ok(())
    }

    /// How much there is to compare, about: files may be gone when they are come to.
    async fn note_size(&self) -> Result<(), Stop> {
        let mut from = FileId(1);
        loop {
            let listed = self.site.engine.files(from, FILES_LISTED).await?;
            let shared = listed.iter().filter(|listed| listed.file < LOCAL_FILES);
            let reads_data = self.wanted.reads_data;
            let of = |head: &FileHead| if reads_data { head.used_bytes } else { head.size_bytes };
            let bytes: u64 = shared.map(|listed| of(&listed.head)).sum();
            self.note(|progress| progress.bytes_in_all += bytes);
            let Some(last) = listed.last().filter(|last| last.file < LOCAL_FILES) else { return Ok(()) };
            from = last.file.next();
        }
    }

    async fn batch(&mut self, (from, through): (FileId, FileId), looks: &[FileLook]) -> Result<(), Stop> {
        let reply = self.ask(Ask::Files { from, through, files: looks.to_vec() }).await?;
        self.site.at_point(|marker| {
            for look in looks {
                marker.tally.files += 1;
                marker.tally.bytes += look.size_bytes;
                marker.tally.add(&look.bytes());
            }
        });
        let mut theirs: BTreeMap<FileId, Option<FileLook>> = match reply {
            Reply::Same => BTreeMap::new(),
            Reply::Files(theirs) => theirs.into_iter().collect(),
            _ => return Err(CANNOT),
        };
        // What is not sound here is not, whatever the other site says.
        for look in looks.iter().filter(|look| !look.is_sound()) {
            theirs.entry(look.file).or_insert(Some(*look));
        }
        if theirs.is_empty() {
            return Ok(());
        }
        let mine = |file: &FileId| looks.iter().find(|look| look.file == *file).copied();
        let room = FILES_TOLD_MAX.saturating_sub(self.found.files.len());
        self.found.files_in_all += theirs.len() as u64;
        let told: Vec<FileDifference> = theirs
            .into_iter()
            .take(room)
            .map(|(file, secondary)| FileDifference {
                file,
                primary: mine(&file),
                secondary,
                blocks: Vec::new(),
                more_blocks: false,
                kept: None,
            })
            .collect();
        let first = self.found.files.len();
        self.found.files.extend(told);
        self.trace(first).await?;
        let is_full = self.found.files.len() == FILES_TOLD_MAX;
        if is_full || self.wanted.reads_data { Err(Stop::Enough) } else { Ok(()) }
    }

    /// Keeps what differs as it was, at both, and finds the blocks.
    async fn trace(&mut self, first: usize) -> Result<(), Stop> {
        let files: Vec<FileId> = self.found.files[first..].iter().map(|one| one.file).collect();
        self.site.keep_files(files.clone(), true).await?;
        self.ask(Ask::Keep { files }).await?;
        for at in first..self.found.files.len() {
            let one = &self.found.files[at];
            let file = one.file;
            let kept = self.site.at_point(|marker| marker.stand_in(file)).flatten();
            let content = |look: &FileLook| (look.sum, look.unreadable, look.sum_is_wrong);
            let both = one.primary.as_ref().zip(one.secondary.as_ref());
            let in_content = both.is_some_and(|(mine, theirs)| content(mine) != content(theirs));
            self.found.files[at].kept = kept.map(|stand_in| stand_in.file);
            if in_content {
                let (blocks, more_blocks) = self.blocks(file).await?;
                (self.found.files[at].blocks, self.found.files[at].more_blocks) = (blocks, more_blocks);
            }
        }
        Ok(())
    }

    async fn blocks(&self, file: FileId) -> Result<(Vec<u64>, bool), Stop> {
        let sums = self.site.chunk_sums(file).await?;
        let mut blocks = Vec::new();
        let mut rest = sums.as_slice();
        let mut from = 0;
        loop {
            let some = &rest[..rest.len().min(CHUNKS_AT_A_TIME as usize)];
            rest = &rest[some.len()..];
            let to = rest.first().map_or(u64::MAX, |next| next.0);
            let chunks = match self.ask(Ask::Chunks { file, from, to, sums: some.to_vec() }).await? {
                Reply::Numbers(chunks) => chunks,
                _ => return Err(CANNOT),
            };
            for chunk in chunks {
                let terms = self.site.chunk_terms(file, chunk).await?;
                let Reply::Numbers(some) = self.ask(Ask::Terms { file, chunk, terms }).await? else {
                    return Err(CANNOT);
                };
                blocks.extend(some);
                if blocks.len() > BLOCKS_TOLD_MAX {
                    blocks.truncate(BLOCKS_TOLD_MAX);
                    return Ok((blocks, true));
                }
            }
            if rest.is_empty() {
                return Ok((blocks, false));
            }
            from = to;
        }
    }

    // -- receipt

    async fn sign(&self) -> Result<CheckOutcome, Stop> {
        let site = &self.site;
        let sides = Sides { primary: site.config.me, secondary: site.config.peer };
        let at = site.world.clock.wall();
        let statement = site.statement(self.wanted.about.clone(), at, sides).ok_or(ENDED)?;
        let theirs = match self.ask(Ask::Sign { about: self.wanted.about.clone(), at }).await? {
            Reply::Signed(seal) => seal,
            _ => return Err(CANNOT),
        };
        let seals = site.seal(&statement).into_iter().chain(theirs).collect();
        Ok(CheckOutcome::Clean { statement, seals })
    }
}
