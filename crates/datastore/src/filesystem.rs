//! One filesystem per pool: what every procedure stands on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use base::port::World;
use base::{FileId, WallNanos};
use engine::store::{BLOCK_BYTES, Change, FileHead, Store, StoreRefusal, Table};

use crate::attr::{Attr, FileKind};
use crate::batch::Batch;
use crate::cache::InodeCache;
use crate::caller::{Caller, Rights, admits};
use crate::export::{Datastore, DatastoreOptions, check_options};
use crate::format::{
    DATASTORES, DOOMED, DatastoreRow, FORMAT_VERSION, INODES, Inode, SUPER, SUPER_DATASTORE, SUPER_FORMAT, SUPER_STAMP,
    SuperRow, key_file, key_of_file, name_from_row, number_from_row,
};
use crate::gate::{Gates, Mode};
use crate::handle::{DatastoreId, Handle};
use crate::locks::service::LockService;
use crate::qos::Qos;
use crate::refusal::Refusal;
use crate::reply::Replies;
use crate::stamp::{RESERVE_NS, Stamps};
use crate::table::all_rows;
use crate::vm::Owners;
use zerocopy::{FromBytes, IntoBytes};

/// Who this pool is and how its handles are sealed. The same on every node of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pool (or cluster), in every handle and `fsid`.
    pub pool: u64,
    /// Key of the handles' seal.
    pub handle_key: [u8; 16],
}

/// Why a filesystem does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// The store holds no filesystem.
    #[error("the pool holds no filesystem")]
    NotFormatted,
    /// It holds one already.
    #[error("the pool holds a filesystem already")]
    AlreadyFormatted,
    /// It was written by a later version.
    #[error("the filesystem has format version {0}, which this program does not know")]
    UnknownVersion(u16),
    /// It belongs to another pool.
    #[error("the filesystem belongs to another pool")]
    OtherPool,
    /// The settings of the pool's root are not acceptable.
    #[error("too many networks")]
    BadOptions,
    /// A table row is malformed.
    #[error("a row of the filesystem's tables is malformed")]
    Malformed,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
}

/// The filesystem of a pool. See the crate's head.
pub struct Filesystem<S> {
    pub(crate) store: Rc<S>,
    pub(crate) world: World,
    pub(crate) identity: Identity,
    pub(crate) root: FileId,
    pub(crate) verifier: [u8; 8],
    pub(crate) stamps: Stamps,
    pub(crate) cache: InodeCache,
    /// Inodes: shared by WRITE, alone by whatever changes an inode or a directory's names.
    pub(crate) gates: Gates,
    /// Who may move a directory to another one. Entered before `gates`.
    pub(crate) tree: Gates,
    /// Shared by every change of the namespace, alone by `check`. Entered first of all.
    pub(crate) quiet: Gates,
    /// Alone by whatever changes VMs or their snapshots. Entered after `quiet`, before `gates`.
    pub(crate) vm_turn: Gates,
    pub(crate) datastores: RefCell<BTreeMap<DatastoreId, Rc<Datastore>>>,
    pub(crate) replies: RefCell<Replies>,
    pub(crate) locks: LockService,
    /// Whose each file is.
    pub(crate) owners: Owners,
    /// Who may have how much, and whose turn it is.
    pub(crate) qos: Qos,
}

/// The single key of a gate that is not about one inode.
pub(crate) const WHOLE: FileId = FileId(0);

/// An inode that a caller may use as far as the export goes.
pub(crate) struct Admitted<'a> {
    pub rights: Rights<'a>,
    pub inode: Inode,
    pub datastore: Rc<Datastore>,
}

impl Admitted<'_> {
    /// Whether the export lets anything be changed.
    pub fn may_change(&self) -> Result<(), Refusal> {
        if self.datastore.options.borrow().read_only { Err(Refusal::ReadOnly) } else { Ok(()) }
    }
}

impl<S: Store> Filesystem<S> {
    /// Writes an empty filesystem into a store that holds none. `pool_root` are the settings
    /// of the export `/`.
    pub async fn format(
        store: &S,
        world: &World,
        identity: &Identity,
        pool_root: DatastoreOptions,
    ) -> Result<(), OpenRefusal> {
        if store.get(SUPER, SUPER_FORMAT).await?.is_some() {
            return Err(OpenRefusal::AlreadyFormatted);
        }
        check_options(&pool_root).map_err(|_| OpenRefusal::BadOptions)?;
        let root = store.next_file_id();
        let at = world.clock.wall();
        let mut write_verifier = [0; 8];
        world.chance.fill(&mut write_verifier);
        let row = SuperRow {
            version: FORMAT_VERSION.into(),
            pool: identity.pool.into(),
            root: root.0.into(),
            write_verifier,
        };
        let inode = Inode::directory(DatastoreId::POOL, root, at);
        let datastore = DatastoreRow { root, name: String::new(), options: pool_root };
        let put = |table: Table, key: &[u8], value: Vec<u8>| Change::Put { table, key: key.to_vec(), value };
        let changes = vec![
            put(SUPER, SUPER_FORMAT, row.as_bytes().to_vec()),
            put(SUPER, SUPER_STAMP, (at.0 + RESERVE_NS).to_be_bytes().to_vec()),
            put(SUPER, SUPER_DATASTORE, 0u64.to_be_bytes().to_vec()),
            put(INODES, &key_file(root), inode.to_row()),
            put(DATASTORES, &0u32.to_be_bytes(), datastore.to_row()),
        ];
        store.commit(changes).await?;
        Ok(())
    }

    /// Opens the filesystem in `store`. Deletions of datastores that were interrupted go on
    /// in the background.
    pub async fn open(store: Rc<S>, world: World, identity: Identity) -> Result<Rc<Filesystem<S>>, OpenRefusal> {
        let row = store.get(SUPER, SUPER_FORMAT).await?.ok_or(OpenRefusal::NotFormatted)?;
        let row = SuperRow::read_from_bytes(&row).map_err(|_| OpenRefusal::Malformed)?;
        if row.version.get() != FORMAT_VERSION {
            return Err(OpenRefusal::UnknownVersion(row.version.get()));
        }
        if row.pool.get() != identity.pool {
            return Err(OpenRefusal::OtherPool);
        }
        take_ids(&*store).await?;
        let ceiling = store.get(SUPER, SUPER_STAMP).await?.ok_or(OpenRefusal::Malformed)?;
        let ceiling = number_from_row(&ceiling).ok_or(OpenRefusal::Malformed)?;
        let mut datastores = BTreeMap::new();
        for (key, value) in all_rows(&*store, DATASTORES).await? {
            let id = DatastoreId(u32::from_be_bytes(key[..].try_into().map_err(|_| OpenRefusal::Malformed)?));
            let row = DatastoreRow::from_row(&value).ok_or(OpenRefusal::Malformed)?;
            datastores.insert(id, Rc::new(Datastore::new(id, row)));
        }
        let replies = Replies::load(&*store).await?;
        let locks = LockService::load(&*store).await?;
        let filesystem = Rc::new(Filesystem {
            store,
            world,
            identity,
            root: FileId(row.root.get()),
            verifier: row.write_verifier,
            stamps: Stamps::after(ceiling),
            cache: InodeCache::default(),
            gates: Gates::default(),
            tree: Gates::default(),
            quiet: Gates::default(),
            vm_turn: Gates::default(),
            datastores: RefCell::new(datastores),
            replies: RefCell::new(replies),
            locks,
            owners: Owners::default(),
            qos: Qos::default(),
        });
        filesystem.clone().resume_deletions().await?;
        Ok(filesystem)
    }

    async fn resume_deletions(self: Rc<Self>) -> Result<(), OpenRefusal> {
        let doomed = all_rows(&*self.store, DOOMED).await?;
        for (key, _) in doomed {
            let root = key_of_file(&key).ok_or(OpenRefusal::Malformed)?;
            let filesystem = self.clone();
            let task = async move {
                // A refusal (store stopped, media damaged) leaves the rest for the next open.
                let _ = filesystem.clear(root).await;
            };
            self.world.spawn.spawn("clear deleted datastore", Box::pin(task));
        }
        Ok(())
    }

    /// Checks the bytes of a handle as they came over the wire: [`Refusal::BadHandle`] if
    /// this pool never gave them out.
    pub fn handle(&self, bytes: &[u8]) -> Result<Handle, Refusal> {
        Handle::parse(&self.identity, bytes)
    }

    /// WRITE's and COMMIT's verifier: constant for the life of the pool, since every write
    /// is stable when it is answered.
    pub fn write_verifier(&self) -> [u8; 8] {
        self.verifier
    }

    /// The store this filesystem stands on.
    pub fn store(&self) -> &Rc<S> {
        &self.store
    }

    pub(crate) fn handle_of(&self, file: FileId, inode: &Inode) -> Handle {
        Handle::new(&self.identity, inode.datastore, file, inode.generation)
    }

    pub(crate) fn datastore(&self, id: DatastoreId) -> Result<Rc<Datastore>, Refusal> {
        self.datastores.borrow().get(&id).cloned().ok_or(Refusal::Stale)
    }

    /// The inode of `file` as committed, if it exists.
    pub(crate) async fn inode(&self, file: FileId) -> Result<Option<Inode>, Refusal> {
        if let Some(inode) = self.cache.get(file) {
            return Ok(Some(inode));
        }
        let version = self.cache.version();
        let Some(row) = self.store.get(INODES, &key_file(file)).await? else { return Ok(None) };
        let inode = Inode::from_row(&row).ok_or(Refusal::Inconsistent)?;
        self.cache.fill(version, file, inode);
        Ok(Some(inode))
    }

    /// The first check of every call (I5): export of the handle's datastore, then the inode.
    pub(crate) async fn admit<'a>(&self, caller: &'a Caller, handle: &Handle) -> Result<Admitted<'a>, Refusal> {
        let datastore = self.datastore(handle.datastore())?;
        if let Some(meter) = self.store.meter() {
            meter.about(handle.datastore().0, handle.file());
        }
        let rights = {
            let options = datastore.options.borrow();
            if !admits(&options, caller.address) {
                return Err(Refusal::NotAllowed);
            }
            Rights::of(caller, &options)
        };
        let inode = self.inode(handle.file()).await?.ok_or(Refusal::Stale)?;
        if inode.generation != handle.generation() || inode.datastore != handle.datastore() {
            return Err(Refusal::Stale);
        }
        Ok(Admitted { rights, inode, datastore })
    }

    /// Tells the meter the payload of the operation under way.
    pub(crate) fn moves(&self, bytes: u64) {
        if let Some(meter) = self.store.meter() {
            meter.moves(bytes);
        }
    }

    /// The store's head of a regular file, nothing for others.
    pub(crate) async fn head_of(&self, file: FileId, inode: &Inode) -> Result<Option<FileHead>, Refusal> {
        if inode.kind != FileKind::Regular {
            return Ok(None);
        }
        Ok(Some(self.store.head(file).await?.ok_or(Refusal::Stale)?))
    }

    /// Attributes from an inode and (regular files) a head that belong together.
    pub(crate) fn attr(&self, file: FileId, inode: &Inode, head: Option<&FileHead>) -> Attr {
        let (size_bytes, used_bytes) = match (inode.kind, head) {
            (FileKind::Directory, _) => {
                let bytes = (inode.count * 64).next_multiple_of(4096).max(4096);
                (bytes, bytes)
            }
            (FileKind::Symlink, _) => (inode.count, 0),
            (_, Some(head)) => (head.size_bytes, head.used_bytes),
            (_, None) => (0, 0),
        };
        Attr {
            kind: inode.kind,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            size_bytes,
            used_bytes,
            device: inode.device,
            fsid: self.fsid(inode.datastore),
            file,
            accessed: inode.accessed,
            modified: head.map_or(inode.modified, |head| head.modified),
            changed: head.map_or(inode.changed, |head| head.changed),
        }
    }

    /// The pool, as it is in every handle.
    pub fn pool(&self) -> u64 {
        self.identity.pool
    }

    fn fsid(&self, datastore: DatastoreId) -> u64 {
        // An odd multiplier keeps ids of one pool apart and mixes them into all bits.
        self.identity.pool ^ u64::from(datastore.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Attributes of an inode that others may be changing: inode and head of one moment.
    pub(crate) async fn attr_now(&self, file: FileId) -> Result<Option<Attr>, Refusal> {
        let Some(inode) = self.inode(file).await? else { return Ok(None) };
        if inode.kind != FileKind::Regular {
            return Ok(Some(self.attr(file, &inode, None)));
        }
        if let Some(head) = self.store.head(file).await?
            && self.is_settled(file, &inode).await?
        {
            return Ok(Some(self.attr(file, &inode, Some(&head))));
        }
        let _pass = self.gates.enter(file, Mode::Shared).await;
        let Some(inode) = self.inode(file).await? else { return Ok(None) };
        let head = self.head_of(file, &inode).await?;
        Ok(Some(self.attr(file, &inode, head.as_ref())))
    }

    /// Whether a head read since `inode` was read belongs to it: nobody is changing both.
    pub(crate) async fn is_settled(&self, file: FileId, inode: &Inode) -> Result<bool, Refusal> {
        Ok(!self.gates.is_alone(file) && self.inode(file).await?.as_ref() == Some(inode))
    }

    /// Cookie and target of a name.
    pub(crate) async fn find(&self, dir: FileId, name: &[u8]) -> Result<Option<(u64, FileId)>, Refusal> {
        let key = crate::format::key_name(dir, name);
        let Some(row) = self.store.get(crate::format::NAMES, &key).await? else { return Ok(None) };
        Ok(Some(name_from_row(&row).ok_or(Refusal::Inconsistent)?))
    }

    /// Adds the kept answer of a change to its commit.
    pub(crate) fn keep_reply(
        &self,
        batch: &mut Batch,
        note: Option<crate::ReplyNote>,
        outcome: crate::Outcome<'_>,
        at: WallNanos,
    ) {
        if let Some(note) = note {
            let reply = crate::StoredReply { reply: (note.encode)(&outcome), key: note.key, at };
            self.replies.borrow_mut().keep(batch, reply);
        }
    }
}

impl Inode {
    /// A new directory of root's.
    pub(crate) fn directory(datastore: DatastoreId, parent: FileId, at: WallNanos) -> Inode {
        Inode { kind: FileKind::Directory, mode: 0o755, nlink: 2, next_cookie: 3, parent, ..Inode::node(datastore, at) }
    }

    /// A new inode of root's that is a regular file until somebody says otherwise.
    pub(crate) fn node(datastore: DatastoreId, at: WallNanos) -> Inode {
        Inode {
            kind: FileKind::Regular,
            mode: 0o644,
            generation: 1,
            datastore,
            nlink: 1,
            uid: 0,
            gid: 0,
            device: (0, 0),
            parent: FileId(0),
            accessed: at,
            modified: at,
            changed: at,
            next_cookie: 0,
            count: 0,
            verifier: None,
        }
    }
}

/// Space after cutting a file to `size_bytes`: exact when the last block is settled.
pub(crate) fn used_after_cut(head: &FileHead, size_bytes: u64) -> u64 {
    head.used_bytes.min(size_bytes.next_multiple_of(BLOCK_BYTES))
}

/// The ids of all inodes are given out, whatever the store remembers: a pool that was left by an earlier version
/// at a crash may remember less, and would give an id to a second one.
async fn take_ids<S: Store>(store: &S) -> Result<(), OpenRefusal> {
    let last = last_inode(store).await?;
    if store.next_file_id() <= last {
        store.commit(vec![Change::Ids { through: last }]).await?;
    }
    Ok(())
}

/// The highest id of an inode: the halves of the range are asked whether anything is in them.
async fn last_inode<S: Store>(store: &S) -> Result<FileId, OpenRefusal> {
    let (mut found, mut none_from) = (FileId(0), u64::MAX);
    while found.0 + 1 < none_from {
        let middle = FileId(found.0 + (none_from - found.0) / 2);
        match store.scan(INODES, &key_file(middle), 1).await?.first() {
            Some((key, _)) => found = key_of_file(key).ok_or(OpenRefusal::Malformed)?,
            None => none_from = middle.0,
        }
    }
    Ok(found)
}
