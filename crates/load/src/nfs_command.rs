//! `vmhold nfs ls|get|put|rm|mkdir|exports`: files on a server without mounting it and
//! without root.
//!
//! `get` and `put` keep [`DEPTH`] calls of up to 1 MiB in flight and leave holes alone:
//! runs of zeros are not written, so a sparse disk image stays sparse on either side.
//! `put` writes under a name of its own and renames at the end: under the final name
//! there is the old file or the whole new one, each write stable before the rename.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tokio::task::LocalSet;

use crate::bench::{calling, progress};
use crate::command::{Console, GetArgs, MkdirArgs, NfsAction, NfsCommand, Output, PathArgs, PutArgs, RemoveArgs};
use crate::failure::{Failure, Usage};
use crate::fileset;
use crate::nfs3::{Attributes, CreateMode, Entry, FileHandle, FileKind, NfsClient, NfsError, SetAttributes};
use crate::report::{document, new_table, thousands};
use crate::target::Mounted;
use crate::transfer::{TransferError, join_all, read_whole, write_whole};

/// Calls in flight.
const DEPTH: usize = 8;
/// Grain of holes.
const HOLE_BYTES: usize = 4096;

/// Runs the command on a runtime of its own.
pub fn run(command: &NfsCommand, console: Console) -> Result<Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run_here(command, console))
}

/// Runs the command inside the caller's `LocalSet`.
pub async fn run_here(command: &NfsCommand, console: Console) -> Result<Output, Failure> {
    match &command.action {
        NfsAction::Ls(arguments) => list(arguments).await,
        NfsAction::Get(arguments) => get(arguments, console).await,
        NfsAction::Put(arguments) => put(arguments, console).await,
        NfsAction::Rm(arguments) => remove(arguments).await,
        NfsAction::Mkdir(arguments) => mkdir(arguments).await,
        NfsAction::Exports(arguments) => exports(arguments).await,
    }
}

async fn mounted(remote: &crate::target::Target, connect: &crate::command::ConnectArgs) -> Result<Mounted, Failure> {
    Ok(connect.mount(remote).await?)
}

/// Bytes as text, with what is no text escaped.
fn readable(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        _ => name.escape_ascii().to_string(),
    }
}

/// A directory entry as listed.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    mode: u32,
    size_bytes: u64,
    used_bytes: u64,
    file_id: u64,
    modified_at: String,
}

impl Listed {
    fn new(name: String, attributes: &Attributes) -> Self {
        let time = attributes.modified;
        let modified = UNIX_EPOCH + Duration::new(time.seconds.into(), time.nanoseconds.min(999_999_999));
        Listed {
            name,
            kind: kind_name(attributes.kind),
            mode: attributes.mode,
            size_bytes: attributes.size_bytes,
            used_bytes: attributes.used_bytes,
            file_id: attributes.file_id,
            modified_at: humantime::format_rfc3339_seconds(modified).to_string(),
        }
    }
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::BlockDevice => "block device",
        FileKind::CharacterDevice => "character device",
        FileKind::Socket => "socket",
        FileKind::Fifo => "fifo",
    }
}

async fn list(arguments: &PathArgs) -> Result<Output, Failure> {
    let mounted = mounted(&arguments.remote, &arguments.connect).await?;
    let client = &mounted.client;
    let handle = mounted.walk(&mounted.below).await?;
    let attributes = client.getattr(&handle).await.map_err(calling("read the attributes"))?;
    let mut listed = Vec::new();
    if attributes.kind == FileKind::Directory {
        let entries = fileset::list(client, &handle).await.map_err(calling("list the directory"))?;
        for entry in entries {
            let attributes = attributes_of(client, &handle, &entry).await.map_err(calling("read the attributes"))?;
            listed.push(Listed::new(readable(&entry.name), &attributes));
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
    } else {
        listed.push(Listed::new(mounted.below.last().cloned().unwrap_or_default(), &attributes));
    }
    let mut table = new_table(&["KIND", "MODE", "BYTES", "USED", "MODIFIED", "NAME"]);
    for entry in &listed {
        table.add_row([
            entry.kind.to_string(),
            format!("{:04o}", entry.mode & 0o7777),
            thousands(entry.size_bytes),
            thousands(entry.used_bytes),
            entry.modified_at.clone(),
            entry.name.clone(),
        ]);
    }
    Ok(Output { ok: true, json: document("vmhold.nfs.list/v1", &listed), text: format!("{table}\n") })
}

async fn attributes_of(client: &NfsClient, directory: &FileHandle, entry: &Entry) -> Result<Attributes, NfsError> {
    match (entry.attributes, entry.handle) {
        (Some(attributes), _) => Ok(attributes),
        (None, Some(handle)) => client.getattr(&handle).await,
        (None, None) => client.getattr(&client.lookup(directory, &entry.name).await?.0).await,
    }
}

/// What was copied.
#[derive(Debug, Serialize)]
struct Copied {
    from: String,
    to: String,
    size_bytes: u64,
    /// Without the holes.
    moved_bytes: u64,
}

impl Copied {
    fn output(&self) -> Output {
        let (size, moved) = (thousands(self.size_bytes), thousands(self.moved_bytes));
        let text = format!("{} -> {}: {size} bytes, {moved} of them moved (the rest are holes)\n", self.from, self.to);
        Output { ok: true, json: document("vmhold.nfs.copy/v1", self), text }
    }
}

fn local_failure(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Local { path: path.into(), source }
}

/// A transfer failed on one of its two sides.
enum CopyError {
    Remote(TransferError),
    Local(io::Error),
}

impl CopyError {
    fn failure(self, doing: &'static str, path: &Path) -> Failure {
        match self {
            CopyError::Remote(source) => Failure::Transfer { doing, source },
            CopyError::Local(source) => Failure::Local { path: path.into(), source },
        }
    }
}

async fn get(arguments: &GetArgs, console: Console) -> Result<Output, Failure> {
    let mounted = mounted(&arguments.remote, &arguments.connect).await?;
    let client = &mounted.client;
    let handle = mounted.walk(&mounted.below).await?;
    let size_bytes = client.getattr(&handle).await.map_err(calling("read the attributes"))?.size_bytes;
    let limits = client.fsinfo(&mounted.root).await.map_err(calling("ask for the server's limits"))?;
    let piece_bytes = limits.read_bytes_max.clamp(4096, 1 << 20);
    let name = mounted.below.last().ok_or(Usage::NoName)?;
    let Some(local) = arguments.local.as_deref().filter(|path| *path != Path::new("-")) else {
        return get_to_stdout(client, &handle, (size_bytes, piece_bytes)).await;
    };
    let path = if local.is_dir() { local.join(name) } else { local.to_path_buf() };
    let file = File::create(&path).map_err(local_failure(&path))?;
    file.set_len(size_bytes).map_err(local_failure(&path))?;
    let bar = progress(console, "getting", Some(size_bytes));
    let (front, moved) = (Cell::new(0), Cell::new(0));
    let readers = (0..DEPTH).map(async |_| {
        while front.get() < size_bytes {
            let offset = front.get();
            let length = (size_bytes - offset).min(piece_bytes.into()) as u32;
            front.set(offset + u64::from(length));
            let data = read_whole(client, &handle, offset, length).await.map_err(CopyError::Remote)?;
            for (start, data) in runs_of_data(&data) {
                file.write_all_at(data, offset + start as u64).map_err(CopyError::Local)?;
                moved.set(moved.get() + data.len() as u64);
            }
            bar.inc(length.into());
        }
        Ok(())
    });
    for outcome in join_all(readers).await {
        outcome.map_err(|error: CopyError| error.failure("read the file", &path))?;
    }
    bar.finish_and_clear();
    file.sync_all().map_err(local_failure(&path))?;
    let (from, to) = (arguments.remote.to_string(), path.display().to_string());
    Ok(Copied { from, to, size_bytes, moved_bytes: moved.get() }.output())
}

/// In order, nothing else on standard output.
async fn get_to_stdout(
    client: &NfsClient,
    handle: &FileHandle,
    (size_bytes, piece_bytes): (u64, u32),
) -> Result<Output, Failure> {
    let mut out = io::stdout().lock();
    let mut offset = 0;
    while offset < size_bytes {
        let length = (size_bytes - offset).min(piece_bytes.into()) as u32;
        let data = read_whole(client, handle, offset, length).await;
        let data = data.map_err(|source| Failure::Transfer { doing: "read the file", source })?;
        out.write_all(&data)?;
        offset += u64::from(length);
    }
    out.flush()?;
    Ok(Output { ok: true, json: String::new(), text: String::new() })
}

/// The parts of `data` that are not whole 4 KiB pieces of zeros: (start, bytes).
fn runs_of_data(data: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, &[u8])> = Vec::new();
    for (index, piece) in data.chunks(HOLE_BYTES).enumerate() {
        if piece.iter().all(|&byte| byte == 0) {
            continue;
        }
        let start = index * HOLE_BYTES;
        match runs.last_mut() {
            Some((first, run)) if *first + run.len() == start => *run = &data[*first..start + piece.len()],
            _ => runs.push((start, piece)),
        }
    }
    runs
}

async fn put(arguments: &PutArgs, console: Console) -> Result<Output, Failure> {
    let mounted = mounted(&arguments.remote, &arguments.connect).await?;
    let client = &mounted.client;
    let stdin = arguments.local == Path::new("-");
    let (parent, name) = place_to_put(&mounted, arguments, stdin).await?;
    let limits = client.fsinfo(&mounted.root).await.map_err(calling("ask for the server's limits"))?;
    let piece_bytes = limits.write_bytes_max.clamp(4096, 1 << 20) as usize;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let partial = format!(".vmhold-put-{:016x}", u64::from_ne_bytes(random));
    let created = client.create(&parent, partial.as_bytes(), CreateMode::Guarded).await;
    let handle = created.map_err(calling("create the file"))?;
    let copied = if stdin {
        copy_stream(client, &handle, piece_bytes).await
    } else {
        copy_file(client, &handle, (&arguments.local, piece_bytes), console).await
    };
    let renamed = match copied {
        Ok(copied) => {
            let renamed = client.rename((&parent, partial.as_bytes()), (&parent, name.as_bytes())).await;
            renamed.map(|()| copied).map_err(calling("rename the file to its name"))
        }
        Err(failure) => Err(failure),
    };
    if renamed.is_err() {
        // The first failure is the one to report.
        let _ = client.remove(&parent, partial.as_bytes()).await;
    }
    let (size_bytes, moved_bytes) = renamed?;
    let (from, to) = (arguments.local.display().to_string(), arguments.remote.to_string());
    Ok(Copied { from, to, size_bytes, moved_bytes }.output())
}

/// Directory and name to put to: an existing directory or a trailing slash keeps the
/// local name.
async fn place_to_put(mounted: &Mounted, arguments: &PutArgs, stdin: bool) -> Result<(FileHandle, String), Failure> {
    let local_name = arguments.local.file_name().filter(|_| !stdin).and_then(|name| name.to_str()).map(String::from);
    if let Ok(existing) = mounted.walk(&mounted.below).await {
        let attributes = mounted.client.getattr(&existing).await.map_err(calling("read the attributes"))?;
        if attributes.kind == FileKind::Directory {
            return Ok((existing, local_name.ok_or(Usage::NoName)?));
        }
    }
    let (name, above) = mounted.below.split_last().ok_or(Usage::NoName)?;
    if arguments.remote.path.ends_with('/') {
        return Ok((mounted.walk(&mounted.below).await?, local_name.ok_or(Usage::NoName)?));
    }
    Ok((mounted.walk(above).await?, name.clone()))
}

/// Copies a local file; gives its size and the bytes that were not holes.
async fn copy_file(
    client: &NfsClient,
    handle: &FileHandle,
    (path, piece_bytes): (&Path, usize),
    console: Console,
) -> Result<(u64, u64), Failure> {
    let file = File::open(path).map_err(local_failure(path))?;
    let size_bytes = file.metadata().map_err(local_failure(path))?.len();
    let set = SetAttributes { size_bytes: Some(size_bytes), ..SetAttributes::default() };
    client.setattr(handle, &set).await.map_err(calling("set the file's size"))?;
    let bar = progress(console, "putting", Some(size_bytes));
    let (front, moved) = (Cell::new(0), Cell::new(0));
    let writers = (0..DEPTH).map(async |_| {
        let mut piece = vec![0; piece_bytes];
        while front.get() < size_bytes {
            let offset = front.get();
            let length = (size_bytes - offset).min(piece_bytes as u64) as usize;
            front.set(offset + length as u64);
            file.read_exact_at(&mut piece[..length], offset).map_err(CopyError::Local)?;
            for (start, data) in runs_of_data(&piece[..length]) {
                put_run(client, handle, offset + start as u64, data).await?;
                moved.set(moved.get() + data.len() as u64);
            }
            bar.inc(length as u64);
        }
        Ok(())
    });
    for outcome in join_all(writers).await {
        outcome.map_err(|error: CopyError| error.failure("write the file", path))?;
    }
    bar.finish_and_clear();
    Ok((size_bytes, moved.get()))
}

/// Copies standard input, in order.
async fn copy_stream(client: &NfsClient, handle: &FileHandle, piece_bytes: usize) -> Result<(u64, u64), Failure> {
    let input = RefCell::new(io::stdin().lock());
    let (mut offset, mut moved) = (0, 0);
    let mut piece = Vec::with_capacity(piece_bytes);
    loop {
        piece.clear();
        let read = input.borrow_mut().by_ref().take(piece_bytes as u64).read_to_end(&mut piece)?;
        if read == 0 {
            break;
        }
        for (start, data) in runs_of_data(&piece) {
            let put = put_run(client, handle, offset + start as u64, data).await;
            put.map_err(|error| error.failure("write the file", Path::new("-")))?;
            moved += data.len() as u64;
        }
        offset += read as u64;
    }
    let set = SetAttributes { size_bytes: Some(offset), ..SetAttributes::default() };
    client.setattr(handle, &set).await.map_err(calling("set the file's size"))?;
    Ok((offset, moved))
}

async fn put_run(client: &NfsClient, handle: &FileHandle, offset: u64, data: &[u8]) -> Result<(), CopyError> {
    let fill = |out: &mut Vec<u8>| out.extend_from_slice(data);
    write_whole(client, handle, (offset, data.len() as u32), fill).await.map_err(CopyError::Remote)
}

/// What was changed.
#[derive(Debug, Serialize)]
struct Changed {
    path: String,
}

async fn remove(arguments: &RemoveArgs) -> Result<Output, Failure> {
    let mounted = mounted(&arguments.remote, &arguments.connect).await?;
    let client = &mounted.client;
    let (name, above) = mounted.below.split_last().ok_or(Usage::NoName)?;
    let parent = mounted.walk(above).await?;
    let (handle, _) = client.lookup(&parent, name.as_bytes()).await.map_err(calling("find what to remove"))?;
    let kind = client.getattr(&handle).await.map_err(calling("read the attributes"))?.kind;
    let removed = if kind == FileKind::Directory && arguments.recursive {
        fileset::remove_tree(client, &parent, name.as_bytes()).await
    } else {
        client.remove(&parent, name.as_bytes()).await
    };
    removed.map_err(calling("remove it"))?;
    Ok(changed(&arguments.remote, "removed"))
}

fn changed(remote: &crate::target::Target, verb: &str) -> Output {
    let path = remote.to_string();
    let text = format!("{verb} {path}\n");
    Output { ok: true, json: document("vmhold.nfs.change/v1", &Changed { path }), text }
}

async fn mkdir(arguments: &MkdirArgs) -> Result<Output, Failure> {
    let mounted = mounted(&arguments.remote, &arguments.connect).await?;
    let client = &mounted.client;
    let (name, above) = mounted.below.split_last().ok_or(Usage::NoName)?;
    if arguments.parents {
        let mut handle = mounted.root;
        for component in &mounted.below {
            let made = fileset::mkdir_or_existing(client, &handle, component.as_bytes()).await;
            handle = made.map_err(calling("make the directory"))?;
        }
    } else {
        let parent = mounted.walk(above).await?;
        client.mkdir(&parent, name.as_bytes()).await.map_err(calling("make the directory"))?;
    }
    Ok(changed(&arguments.remote, "made"))
}

/// An export as listed.
#[derive(Debug, Serialize)]
struct Exported {
    path: String,
    clients: Vec<String>,
}

async fn exports(arguments: &PathArgs) -> Result<Output, Failure> {
    let found = arguments.connect.target(&arguments.remote).exports(&arguments.connect.behaviour()).await?;
    let exported: Vec<Exported> = found
        .iter()
        .map(|export| Exported {
            path: readable(&export.path),
            clients: export.groups.iter().map(|group| readable(group)).collect(),
        })
        .collect();
    let mut text = String::new();
    for export in &exported {
        let clients = if export.clients.is_empty() { "everyone".into() } else { export.clients.join(", ") };
        text += &format!("{}  {clients}\n", export.path);
    }
    Ok(Output { ok: true, json: document("vmhold.nfs.exports/v1", &exported), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out_and_data_is_not() {
        let mut data = vec![0; 5 * HOLE_BYTES + 100];
        assert!(runs_of_data(&data).is_empty());
        data[HOLE_BYTES] = 1;
        data[3 * HOLE_BYTES - 1] = 1;
        *data.last_mut().unwrap() = 1;
        let runs: Vec<_> = runs_of_data(&data).iter().map(|(start, run)| (*start, run.len())).collect();
        assert_eq!(runs, [(HOLE_BYTES, 2 * HOLE_BYTES), (5 * HOLE_BYTES, 100)]);
    }

    #[test]
    fn names_that_are_no_text_are_escaped() {
        assert_eq!(readable("dïsk".as_bytes()), "dïsk");
        assert_eq!(readable(b"a\xff\n"), "a\\xff\\n");
    }
}
