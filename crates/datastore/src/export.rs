//! Datastores: directories of the pool's root with an export of their own (R-SCOPE-03,
//! R-REPL-02).

use std::cell::RefCell;
use std::rc::Rc;

use base::FileId;
use engine::store::{Change, Store};
use ipnet::IpNet;

use crate::attr::FileKind;
use crate::batch::Batch;
use crate::caller::{Caller, NOBODY, admits};
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{
    DATASTORE_NAME_BYTES_MAX, DATASTORES, DOOMED, DatastoreRow, ENTRIES, Inode, NETWORKS_MAX, SUPER, SUPER_DATASTORE,
    entry_from_row, key_file, key_of_file, key_pair, number_from_row,
};
use crate::gate::Mode;
use crate::handle::{DatastoreId, Handle};
use crate::names::check_name;
use crate::refusal::Refusal;
use crate::usage::Usage;

/// What root of a client is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootUser {
    /// Root here too (hypervisors need it).
    #[default]
    Allowed,
    /// Nobody.
    Squashed,
}

/// Settings of a datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatastoreOptions {
    /// Networks that may use it. Empty admits nobody.
    pub clients: Vec<IpNet>,
    /// What a client's root is.
    pub root: RootUser,
    /// Refuses every change.
    pub read_only: bool,
    /// Most bytes its files may take, or no limit but the pool's.
    pub quota_bytes: Option<u64>,
}

impl DatastoreOptions {
    /// Open to every address, root allowed, writable, no quota.
    pub fn open() -> DatastoreOptions {
        let everywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a constant network parses"));
        DatastoreOptions { clients: everywhere.to_vec(), ..DatastoreOptions::default() }
    }
}

/// A datastore as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreInfo {
    /// Its id; [`DatastoreId::POOL`] for the pool's root.
    pub id: DatastoreId,
    /// Its name, empty for the pool's root.
    pub name: String,
    /// Its settings.
    pub options: DatastoreOptions,
}

/// How much a deletion may destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Only an empty datastore.
    IfEmpty,
    /// With everything in it.
    WithContent,
}

/// A line of the export list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// `/` or `/name`.
    pub path: String,
    /// Networks that may mount it.
    pub clients: Vec<IpNet>,
}

/// Answer to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Handle of the directory that was asked for.
    pub handle: Handle,
}

/// A datastore in memory.
pub(crate) struct Datastore {
    pub id: DatastoreId,
    pub root: FileId,
    pub name: String,
    pub options: RefCell<DatastoreOptions>,
    pub usage: Usage,
}

impl Datastore {
    pub fn new(id: DatastoreId, row: DatastoreRow) -> Datastore {
        Datastore { id, root: row.root, name: row.name, options: RefCell::new(row.options), usage: Usage::default() }
    }

    fn info(&self) -> DatastoreInfo {
        DatastoreInfo { id: self.id, name: self.name.clone(), options: self.options.borrow().clone() }
    }

    fn row(&self, options: DatastoreOptions) -> DatastoreRow {
        DatastoreRow { root: self.root, name: self.name.clone(), options }
    }
}

/// Refuses settings that cannot be stored.
pub(crate) fn check_options(options: &DatastoreOptions) -> Result<(), Refusal> {
    if options.clients.len() > NETWORKS_MAX { Err(Refusal::BadArgument) } else { Ok(()) }
}

fn check_datastore_name(name: &str) -> Result<(), Refusal> {
    if name.len() > DATASTORE_NAME_BYTES_MAX {
        return Err(Refusal::NameTooLong);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_');
    if starts_well && name.bytes().all(plain) { Ok(()) } else { Err(Refusal::BadArgument) }
}

fn datastore_row(datastore: DatastoreId, row: &DatastoreRow) -> Change {
    Change::Put { table: DATASTORES, key: datastore.0.to_be_bytes().to_vec(), value: row.to_row() }
}

impl<S: Store> Filesystem<S> {
    /// MOUNT: the directory at `path`, `/` for the pool, `/name` for a datastore, `/name/a/b`
    /// for a directory in it. Only the export list counts, and only of the export mounted;
    /// symbolic links are not followed.
    pub async fn mount(&self, caller: &Caller, path: &[u8]) -> Result<Mounted, Refusal> {
        let mut parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        let datastore = match parts.next() {
            None => self.datastore(DatastoreId::POOL)?,
            Some(name) => self.named(name).ok_or(Refusal::NoEntry)?,
        };
        if !admits(&datastore.options.borrow(), caller.address) {
            return Err(Refusal::NotAllowed);
        }
        let mut file = datastore.root;
        for name in parts {
            check_name(name)?;
            (_, file) = self.find(file, name).await?.ok_or(Refusal::NoEntry)?;
        }
        let inode = self.inode(file).await?.ok_or(Refusal::NoEntry)?;
        if inode.kind != FileKind::Directory {
            return Err(Refusal::NotDirectory);
        }
        Ok(Mounted { handle: self.handle_of(file, &inode) })
    }

    /// The export list, from memory.
    pub fn exports(&self) -> Vec<Export> {
        let datastores = self.datastores.borrow();
        let export = |datastore: &Rc<Datastore>| Export {
            path: format!("/{}", datastore.name),
            clients: datastore.options.borrow().clients.clone(),
        };
        let mut exports: Vec<Export> = datastores.values().map(export).collect();
        exports.sort_by(|a, b| a.path.cmp(&b.path));
        exports
    }

    /// All datastores in order of their names, from memory; the pool's root is not one.
    pub fn datastores(&self) -> Vec<DatastoreInfo> {
        let datastores = self.datastores.borrow();
        let named = datastores.values().filter(|datastore| datastore.id != DatastoreId::POOL);
        let mut infos: Vec<DatastoreInfo> = named.map(|datastore| datastore.info()).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(crate) fn named(&self, name: &[u8]) -> Option<Rc<Datastore>> {
        self.datastores.borrow().values().find(|datastore| datastore.name.as_bytes() == name).cloned()
    }

    /// Creates a datastore. Names are 1 to 64 of letters, digits, '.', '_', '-', starting with
    /// a letter, digit or '_'. Its root directory belongs to root, or to nobody if root is
    /// squashed.
    pub async fn create_datastore(&self, name: &str, options: DatastoreOptions) -> Result<DatastoreInfo, Refusal> {
        check_datastore_name(name)?;
        check_options(&options)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _passes = self.gates.enter_all(&[self.root]).await;
        if self.find(self.root, name.as_bytes()).await?.is_some() {
            return Err(Refusal::Exists);
        }
        let last = self.store.get(SUPER, SUPER_DATASTORE).await?.ok_or(Refusal::Inconsistent)?;
        let last = number_from_row(&last).ok_or(Refusal::Inconsistent)?;
        let id = DatastoreId(u32::try_from(last + 1).map_err(|_| Refusal::NoSpace)?);
        let mut pool_root = self.inode(self.root).await?.ok_or(Refusal::Inconsistent)?;
        let (root, at) = (self.store.next_file_id(), self.stamp().await?);
        let mut inode = Inode::directory(id, self.root, at);
        if options.root == RootUser::Squashed {
            (inode.uid, inode.gid) = (NOBODY, NOBODY);
        }
        let row = DatastoreRow { root, name: name.to_owned(), options };
        let mut batch = Batch::default();
        batch.push(Change::Put {
            table: SUPER,
            key: SUPER_DATASTORE.to_vec(),
            value: u64::from(id.0).to_be_bytes().to_vec(),
        });
        batch.push(datastore_row(id, &row));
        batch.put_inode(root, inode);
        batch.put_name(self.root, name.as_bytes(), pool_root.next_cookie, root);
        pool_root.add_name(true, at);
        batch.put_inode(self.root, pool_root);
        self.apply(batch).await?;
        let datastore = Rc::new(Datastore::new(id, row));
        self.datastores.borrow_mut().insert(id, datastore.clone());
        Ok(datastore.info())
    }

    /// Changes the settings of a datastore, or of the pool's root ([`DatastoreId::POOL`]).
    pub async fn set_datastore(&self, id: DatastoreId, options: DatastoreOptions) -> Result<(), Refusal> {
        check_options(&options)?;
        let _passes = self.gates.enter_all(&[self.root]).await;
        let datastore = self.datastore(id)?;
        self.store.commit(vec![datastore_row(id, &datastore.row(options.clone()))]).await?;
        *datastore.options.borrow_mut() = options;
        Ok(())
    }

    /// Deletes a datastore; [`Refusal::NotEmpty`] if it holds anything and `deletion` does
    /// not cover that. From the first moment on its handles are stale; its content goes
    /// piece by piece before this returns (or after the next open, if interrupted).
    pub async fn delete_datastore(&self, name: &str, deletion: Deletion) -> Result<(), Refusal> {
        let root = self.cut_off(name, deletion).await?;
        self.clear(root).await
    }

    /// Takes a datastore out of the pool's root and the export list in one commit; its tree
    /// is doomed.
    async fn cut_off(&self, name: &str, deletion: Deletion) -> Result<FileId, Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let datastore = self.named(name.as_bytes()).filter(|found| found.id != DatastoreId::POOL);
        let datastore = datastore.ok_or(Refusal::NoEntry)?;
        let _passes = self.gates.enter_all(&[self.root, datastore.root]).await;
        let (cookie, _) = self.find(self.root, name.as_bytes()).await?.ok_or(Refusal::NoEntry)?;
        let root = self.inode(datastore.root).await?.ok_or(Refusal::NoEntry)?;
        if deletion == Deletion::IfEmpty && root.count > 0 {
            return Err(Refusal::NotEmpty);
        }
        let mut pool_root = self.inode(self.root).await?.ok_or(Refusal::Inconsistent)?;
        let at = self.stamp().await?;
        let mut batch = Batch::default();
        let key = datastore.id.0.to_be_bytes().to_vec();
        batch.push(Change::Delete { table: DATASTORES, key: key.clone() });
        batch.push(Change::Put { table: DOOMED, key: key_file(datastore.root), value: key });
        batch.delete_name(self.root, name.as_bytes(), cookie);
        pool_root.take_name(true, at);
        batch.put_inode(self.root, pool_root);
        self.apply(batch).await?;
        self.datastores.borrow_mut().remove(&datastore.id);
        Ok(datastore.root)
    }

    /// Removes a doomed tree, one name at a time, deepest first: always the first name of
    /// the directory it stands in, going down into directories and up from empty ones.
    pub(crate) async fn clear(&self, root: FileId) -> Result<(), Refusal> {
        if let Some(inode) = self.inode(root).await? {
            self.drop_snapshots_in(inode.datastore).await?;
            self.drop_vm_rows_in(inode.datastore).await?;
        }
        let mut dir = root;
        loop {
            let first = self.store.scan(ENTRIES, &key_pair(dir, 0), 1).await?.into_iter().next();
            let first = first.filter(|(key, _)| key_of_file(key) == Some(dir));
            let above = self.inode(dir).await?.map(|inode| inode.parent);
            match (first, above) {
                (Some((_, value)), _) => {
                    let (target, name) = entry_from_row(&value).ok_or(Refusal::Inconsistent)?;
                    let inode = self.inode(target).await?.ok_or(Refusal::Inconsistent)?;
                    if inode.kind == FileKind::Directory && inode.count > 0 {
                        dir = target;
                    } else {
                        self.clear_name(dir, name).await?;
                    }
                }
                (None, Some(above)) if dir != root => dir = above,
                // An operation that was under way may have put something in.
                (None, _) => match self.clear_root(root).await {
                    Err(Refusal::NotEmpty) => dir = root,
                    done => return done,
                },
            }
        }
    }

    async fn clear_name(&self, dir: FileId, name: &[u8]) -> Result<(), Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let (_passes, found) = self.hold(&[(dir, name)], &[]).await?;
        let Some((cookie, file)) = found[0] else { return Ok(()) };
        let mut inode = self.inode(dir).await?.ok_or(Refusal::Inconsistent)?;
        let victim = self.inode(file).await?.ok_or(Refusal::Inconsistent)?;
        if victim.kind == FileKind::Directory && victim.count > 0 {
            return Ok(()); // an operation that was under way put something in
        }
        let _locks = self.locks.gates.enter(file, Mode::Exclusive).await;
        let at = self.stamp().await?;
        let mut batch = Batch::default();
        batch.delete_name(dir, name, cookie);
        inode.take_name(victim.kind == FileKind::Directory, at);
        batch.put_inode(dir, inode);
        self.unlink(&mut batch, file, victim, at);
        self.apply(batch).await
    }

    async fn clear_root(&self, root: FileId) -> Result<(), Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _passes = self.gates.enter_all(&[root]).await;
        let mut batch = Batch::default();
        if let Some(inode) = self.inode(root).await? {
            if inode.count > 0 {
                return Err(Refusal::NotEmpty);
            }
            batch.drop_inode(root, &inode);
        }
        batch.push(Change::Delete { table: DOOMED, key: key_file(root) });
        self.apply(batch).await
    }
}
