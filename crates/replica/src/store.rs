//! The pair as a [`Store`]: whatever stands on it does not know that there are two sites.

use base::meter::{Meter, Part};
use base::{Buf, FileId, Osn, WallNanos};
use engine::Store;
use engine::store::{Change, Extent, FileHead, ReadOut, Row, Space, StoreRefusal, Table, Wrote};
use mirror::locks::{Use, Want};
use mirror::{Answer, Request, Span, Write};

use crate::replica::{Replica, Told};

impl Replica {
    /// Puts it to the mirror until it is not told to come again.
    async fn put(&self, request: Request, changes: Option<Vec<Change>>) -> Result<Told, StoreRefusal> {
        loop {
            let changed = self.inner.changed.notified();
            let told = self.measured(&request, self.inner.run(request.clone(), changes.clone())).await?;
            if let Some(refusal) = told.refusal {
                return Err(refusal);
            }
            match told.answer {
                Answer::Busy => changed.await,
                Answer::Refused => return Err(StoreRefusal::NoSpace),
                Answer::TooLarge => return Err(StoreRefusal::TooBig),
                Answer::NotPrimary | Answer::Gone => return Err(StoreRefusal::Stopped),
                Answer::Read(_) | Answer::Written(_) | Answer::Changed(..) => return Ok(told),
                Answer::Replied(_) => return Err(StoreRefusal::Stopped),
            }
        }
    }

    /// Adds the time of an operation to its parts: a read waits for the drives; anything else for
    /// the other site, but for the time until it was stable here.
    async fn measured(
        &self,
        request: &Request,
        run: impl Future<Output = Result<Told, StoreRefusal>>,
    ) -> Result<Told, StoreRefusal> {
        let Some(meter) = self.meter() else { return run.await };
        let begun = meter.clock();
        if matches!(request, Request::Read(_)) {
            return meter.wait(Part::Flash, run).await;
        }
        let told = meter.wait(Part::Mirror, run).await?;
        if let Some(local_at) = told.local_at {
            let local_ns = u64::try_from(local_at.since(begun).as_nanos()).unwrap_or(u64::MAX);
            meter.reassign(Part::Mirror, Part::Journal, local_ns);
        }
        Ok(told)
    }

    async fn put_write(&self, write: Write) -> Result<Wrote, StoreRefusal> {
        let (file, len) = (write.file, write.payload.len());
        self.inner.engine.check_write(file, write.offset_bytes, len).await?;
        let told = self.put(Request::Write(write), None).await?;
        let Answer::Written(osn) = told.answer else { return Err(StoreRefusal::Stopped) };
        let (before, after) = match told.heads {
            Some(heads) => heads,
            // An empty write finds and leaves the same.
            None => {
                let head = self.head(file).await?.ok_or(StoreRefusal::NoSuchFile)?;
                (head, head)
            }
        };
        Ok(Wrote { before, after, osn })
    }
}

/// What a commit must have for itself. Rows of tables are kept apart by whoever commits.
fn wants_of(changes: &[Change]) -> Vec<Want> {
    let mut wants = Vec::new();
    for change in changes {
        let files: &[(FileId, Use)] = match change {
            Change::CreateFile { file, .. }
            | Change::DropFile { file }
            | Change::SetSize { file, .. }
            | Change::SetTimes { file, .. }
            | Change::Snapshot { file, .. } => &[(*file, Use::Writes)],
            Change::Clone { snapshot, file, .. } => &[(*snapshot, Use::Reads), (*file, Use::Writes)],
            Change::Rollback { file, snapshot, .. } => &[(*file, Use::Writes), (*snapshot, Use::Reads)],
            Change::Put { .. } | Change::Delete { .. } | Change::Ids { .. } => &[],
        };
        wants.extend(files.iter().map(|(file, usage)| Want::whole(*file, *usage)));
    }
    wants
}

impl Store for Replica {
    fn next_file_id(&self) -> FileId {
        self.inner.engine.next_file_id()
    }

    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        self.inner.admitted().await?;
        let found = self.inner.engine.head(file).await?;
        self.inner.admitted().await?;
        Ok(found)
    }

    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        let span = Span { file, offset_bytes, length_bytes: len_bytes as u64 };
        let told = self.put(Request::Read(span), None).await?;
        told.read.unwrap_or(Err(StoreRefusal::Stopped))
    }

    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.put_write(Write { file, offset_bytes, payload: parts.concat().into(), at }).await
    }

    async fn write_buf(
        &self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.put_write(Write { file, offset_bytes, payload: data.clone(), at }).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        let told = self.put(Request::Change(wants_of(&changes)), Some(changes)).await?;
        match told.answer {
            Answer::Changed(osn, _) => Ok(osn),
            _ => Err(StoreRefusal::Stopped),
        }
    }

    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        self.inner.admitted().await?;
        let found = self.inner.engine.differences(one, other).await?;
        self.inner.admitted().await?;
        Ok(found)
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        self.inner.admitted().await?;
        let found = self.inner.engine.get(table, key).await?;
        self.inner.admitted().await?;
        Ok(found)
    }

    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        self.inner.admitted().await?;
        let found = self.inner.engine.scan(table, from, limit).await?;
        self.inner.admitted().await?;
        Ok(found)
    }

    async fn may_tell(&self) -> Result<(), StoreRefusal> {
        self.inner.admitted().await
    }

    fn meter(&self) -> Option<&Meter> {
        self.inner.engine.meter()
    }

    fn space(&self) -> Space {
        self.inner.engine.space()
    }
}
