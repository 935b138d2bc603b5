//! Making and removing the files of a run on the server.

use std::collections::BTreeMap;

use crate::expectation::FileSet;
use crate::nfs3::{CreateMode, DirectoryPage, EXIST, FileHandle, FileKind, NOENT, NfsClient, NfsError, SetAttributes};

/// Name of the folder for the other operations of the mix.
pub const SCRATCH: &str = "scratch";

/// Handles of a run's files.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The run's directory.
    pub directory: FileHandle,
    /// In the order of the file set.
    pub files: Vec<FileHandle>,
    /// Folder for CREATE, RENAME, REMOVE.
    pub scratch: FileHandle,
}

/// Makes the directory `name` in `parent` and all files in it, sparse, at full length.
pub async fn create(
    client: &NfsClient,
    (parent, name): (&FileHandle, &str),
    set: &FileSet,
    unit_bytes: u32,
) -> Result<Opened, NfsError> {
    let directory = client.mkdir(parent, name.as_bytes()).await?;
    let mut folders = BTreeMap::new();
    let mut files = Vec::with_capacity(set.files().len());
    for spec in set.files() {
        let (folder, leaf) = split(&spec.path);
        let folder = match (folder, folder.and_then(|folder| folders.get(folder))) {
            (None, _) => directory,
            (Some(_), Some(&known)) => known,
            (Some(new), None) => {
                let handle = client.mkdir(&directory, new.as_bytes()).await?;
                folders.insert(new, handle);
                handle
            }
        };
        let file = client.create(&folder, leaf.as_bytes(), CreateMode::Guarded).await?;
        let size_bytes = Some(spec.units * u64::from(unit_bytes));
        client.setattr(&file, &SetAttributes { size_bytes, ..SetAttributes::default() }).await?;
        files.push(file);
    }
    let scratch = client.mkdir(&directory, SCRATCH.as_bytes()).await?;
    Ok(Opened { directory, files, scratch })
}

/// Looks the files of a run up; `None` for those that are gone.
pub async fn look_up(
    client: &NfsClient,
    directory: &FileHandle,
    set: &FileSet,
) -> Result<Vec<Option<FileHandle>>, NfsError> {
    let mut handles = Vec::with_capacity(set.files().len());
    for spec in set.files() {
        let (folder, leaf) = split(&spec.path);
        let folder = match folder {
            Some(folder) => found(client.lookup(directory, folder.as_bytes()).await)?,
            None => Some(*directory),
        };
        handles.push(match folder {
            Some(folder) => found(client.lookup(&folder, leaf.as_bytes()).await)?,
            None => None,
        });
    }
    Ok(handles)
}

fn found<T>(answer: Result<(FileHandle, T), NfsError>) -> Result<Option<FileHandle>, NfsError> {
    match answer {
        Ok((handle, _)) => Ok(Some(handle)),
        Err(NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn split(path: &str) -> (Option<&str>, &str) {
    path.split_once('/').map_or((None, path), |(folder, leaf)| (Some(folder), leaf))
}

/// Every entry of a directory but `.` and `..`, with handles where the server gives them.
pub async fn list(client: &NfsClient, directory: &FileHandle) -> Result<Vec<crate::nfs3::Entry>, NfsError> {
    let mut entries = Vec::new();
    let mut page = DirectoryPage::default();
    while !page.eof {
        let before = page.cookie;
        page = client.readdirplus(directory, &page).await?;
        if !page.eof && (page.entries.is_empty() || page.cookie == before) {
            return Err(crate::xdr::Malformed("directory page that does not move on").into());
        }
        entries.append(&mut page.entries.clone());
    }
    entries.retain(|entry| entry.name != b"." && entry.name != b"..");
    Ok(entries)
}

/// Removes the directory `name` in `parent` with everything in it.
pub async fn remove_tree(client: &NfsClient, parent: &FileHandle, name: &[u8]) -> Result<(), NfsError> {
    let (directory, _) = client.lookup(parent, name).await?;
    for entry in list(client, &directory).await? {
        let kind = match entry.attributes {
            Some(attributes) => attributes.kind,
            None => client.getattr(&client.lookup(&directory, &entry.name).await?.0).await?.kind,
        };
        if kind == FileKind::Directory {
            Box::pin(remove_tree(client, &directory, &entry.name)).await?;
        } else {
            client.remove(&directory, &entry.name).await?;
        }
    }
    client.rmdir(parent, name).await
}

/// Makes a directory, or takes the one that is there.
pub async fn mkdir_or_existing(client: &NfsClient, parent: &FileHandle, name: &[u8]) -> Result<FileHandle, NfsError> {
    match client.mkdir(parent, name).await {
        Err(EXIST) => Ok(client.lookup(parent, name).await?.0),
        made => made,
    }
}
