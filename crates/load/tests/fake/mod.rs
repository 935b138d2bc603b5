//! A small NFSv3 server in memory, with the misbehaviour a client must live with:
//! connections cut in the middle, answers out of order, twice, in fragments, too short,
//! "try later" first; and the crimes a checker must find.

#![allow(dead_code, reason = "each test uses its part")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use load::xdr::{Decoder, Encoder, Malformed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Misbehaviour, by counts so that it is the same each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Cut the connection instead of sending every n-th reply (the operation is done).
    pub cut_after_doing: u64,
    /// Cut the connection instead of doing every n-th call.
    pub cut_before_doing: u64,
    /// Send the replies of a batch in reverse.
    pub reverse: bool,
    /// Send every n-th reply twice.
    pub twice: u64,
    /// Send replies in fragments of this many bytes.
    pub fragment_bytes: usize,
    /// Move at most this many bytes per READ and WRITE.
    pub short_bytes: usize,
    /// Say JUKEBOX to every n-th NFS call first.
    pub jukebox: u64,
    /// Forget every n-th WRITE after acknowledging it.
    pub forget_write: u64,
    /// Put every n-th WRITE one block of its length further.
    pub misplace_write: u64,
    /// Flip a bit of every n-th WRITE.
    pub damage_write: u64,
    /// Fail every n-th WRITE with NFS3ERR_IO.
    pub fail_write: u64,
    /// Answer WRITE as unstable.
    pub lie_unstable: bool,
    /// Never answer.
    pub silent: bool,
    /// Do not store data (for measuring the client).
    pub sink: bool,
}

#[derive(Clone, Debug)]
pub enum Node {
    File(Vec<u8>),
    Folder(BTreeMap<Vec<u8>, u64>),
}

/// What survives a "restart".
#[derive(Debug)]
pub struct Disk {
    pub nodes: BTreeMap<u64, Node>,
    pub manners: Manners,
    pub calls: u64,
    pub writes: u64,
    pub connections: u64,
    next_id: u64,
    /// Replies of non-idempotent calls by xid.
    replies: BTreeMap<u32, Vec<u8>>,
}

/// The server; dropping it does not stop connections, cutting does.
#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    pub disk: Rc<RefCell<Disk>>,
}

impl Fake {
    /// Listens on a free loopback port. Call inside a `LocalSet`.
    pub async fn start(manners: Manners) -> Fake {
        Fake::start_at("127.0.0.1:0", manners).await
    }

    pub async fn start_at(address: &str, manners: Manners) -> Fake {
        let nodes = BTreeMap::from([(1, Node::Folder(BTreeMap::new()))]);
        let disk = Disk { nodes, manners, calls: 0, writes: 0, connections: 0, next_id: 2, replies: BTreeMap::new() };
        let disk = Rc::new(RefCell::new(disk));
        let listener = TcpListener::bind(address).await.unwrap();
        let fake = Fake { address: listener.local_addr().unwrap(), disk: disk.clone() };
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                disk.borrow_mut().connections += 1;
                tokio::task::spawn_local(serve(disk.clone(), stream));
            }
        });
        fake
    }

    pub fn url(&self, path: &str) -> String {
        format!("nfs://{}{path}", self.address)
    }

    /// Contents of all files.
    pub fn files(&self) -> Vec<Vec<u8>> {
        let disk = self.disk.borrow();
        let contents = disk.nodes.values().filter_map(|node| match node {
            Node::File(bytes) => Some(bytes.clone()),
            Node::Folder(_) => None,
        });
        contents.collect()
    }
}

async fn serve(disk: Rc<RefCell<Disk>>, mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut inbox = BytesMut::new();
    loop {
        inbox.reserve(256 << 10);
        match stream.read_buf(&mut inbox).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut replies = Vec::new();
        let mut cut = false;
        while let Some(record) = next_record(&mut inbox) {
            let disk = &mut *disk.borrow_mut();
            disk.calls += 1;
            if every(disk.manners.cut_before_doing, disk.calls) {
                cut = true;
                break;
            }
            if disk.manners.silent {
                continue;
            }
            let reply = answer(disk, &record).unwrap();
            if every(disk.manners.cut_after_doing, disk.calls) {
                cut = true;
                break;
            }
            if every(disk.manners.twice, disk.calls) {
                replies.push(reply.clone());
            }
            replies.push(reply);
        }
        let manners = disk.borrow().manners;
        if manners.reverse {
            replies.reverse();
        }
        let mut out = Vec::new();
        replies.iter().for_each(|reply| mark(&mut out, reply, manners.fragment_bytes));
        if stream.write_all(&out).await.is_err() || cut {
            return;
        }
    }
}

fn every(n: u64, count: u64) -> bool {
    n > 0 && count.is_multiple_of(n)
}

fn next_record(inbox: &mut BytesMut) -> Option<BytesMut> {
    let mark = u32::from_be_bytes(*inbox.first_chunk::<4>()?);
    assert!(mark & load::rpc::LAST_FRAGMENT != 0, "our client sends whole records");
    let length = (mark & !load::rpc::LAST_FRAGMENT) as usize;
    if inbox.len() < 4 + length {
        return None;
    }
    inbox.advance(4);
    Some(inbox.split_to(length))
}

fn mark(out: &mut Vec<u8>, reply: &[u8], fragment_bytes: usize) {
    let size = if fragment_bytes == 0 { reply.len() } else { fragment_bytes };
    let count = reply.len().div_ceil(size);
    for (index, fragment) in reply.chunks(size).enumerate() {
        let last = if index + 1 == count { load::rpc::LAST_FRAGMENT } else { 0 };
        out.extend_from_slice(&(last | fragment.len() as u32).to_be_bytes());
        out.extend_from_slice(fragment);
    }
}

fn answer(disk: &mut Disk, record: &[u8]) -> Result<Vec<u8>, Malformed> {
    let xdr = &mut Decoder::new(record);
    let xid = xdr.u32()?;
    assert_eq!((xdr.u32()?, xdr.u32()?), (0, 2), "a call of RPC version 2");
    let (program, version, procedure) = (xdr.u32()?, xdr.u32()?, xdr.u32()?);
    assert_eq!(version, 3);
    assert_eq!(xdr.u32()?, 1, "AUTH_SYS");
    xdr.opaque(400)?;
    xdr.u32()?;
    xdr.opaque(400)?;
    if let Some(reply) = disk.replies.get(&xid) {
        return Ok(reply.clone());
    }
    let mut reply = Vec::new();
    let out = &mut Encoder::new(&mut reply);
    for word in [xid, 1, 0, 0, 0, 0] {
        out.u32(word);
    }
    match program {
        100_005 => mountd(disk, procedure, xdr, out)?,
        100_003 if procedure != 0 && every(disk.manners.jukebox, disk.calls) => out.u32(10_008),
        100_003 => nfs(disk, procedure, xdr, out)?,
        _ => panic!("program {program}"),
    }
    if (8..=15).contains(&procedure) && program == 100_003 && !every(disk.manners.jukebox, disk.calls) {
        disk.replies.insert(xid, reply.clone());
    }
    Ok(reply)
}

fn mountd(_disk: &mut Disk, procedure: u32, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    match procedure {
        0 => {}
        1 if xdr.opaque(1024)? == b"/export" => {
            out.u32(0);
            handle(out, 1);
            out.u32(1);
            out.u32(1);
        }
        1 => out.u32(2),
        2 => {
            out.bool(true);
            out.opaque(b"somewhere");
            out.opaque(b"/export");
            out.bool(false);
        }
        3 => {}
        5 => {
            out.bool(true);
            out.opaque(b"/export");
            out.bool(true);
            out.opaque(b"everyone");
            out.bool(false);
            out.bool(false);
        }
        other => panic!("mount procedure {other}"),
    }
    Ok(())
}

fn handle(out: &mut Encoder<'_>, id: u64) {
    out.opaque(&id.to_be_bytes());
}

fn attributes(out: &mut Encoder<'_>, id: u64, node: &Node) {
    let (kind, mode, size) = match node {
        Node::File(bytes) => (1, 0o644, bytes.len() as u64),
        Node::Folder(_) => (2, 0o755, 4096),
    };
    for word in [kind, mode, 1, 0, 0] {
        out.u32(word);
    }
    for word in [size, size, 0, 7, id, 1, 2, 3] {
        out.u64(word);
    }
}

fn optional(out: &mut Encoder<'_>, disk: &Disk, id: u64) {
    out.bool(true);
    attributes(out, id, &disk.nodes[&id]);
}

fn wcc(out: &mut Encoder<'_>, disk: &Disk, id: u64) {
    out.bool(true);
    [1, 2, 3].into_iter().for_each(|word| out.u64(word));
    optional(out, disk, id);
}

fn nfs(disk: &mut Disk, procedure: u32, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    if procedure == 0 {
        return Ok(());
    }
    let id = u64::from_be_bytes(xdr.opaque(64)?.try_into().unwrap());
    if !disk.nodes.contains_key(&id) {
        out.u32(70);
        return Ok(());
    }
    match procedure {
        1 => {
            out.u32(0);
            attributes(out, id, &disk.nodes[&id]);
        }
        2 => setattr(disk, id, xdr, out)?,
        3 => match child(disk, id, xdr.opaque(255)?) {
            Some(found) => {
                out.u32(0);
                handle(out, found);
                optional(out, disk, found);
                optional(out, disk, id);
            }
            None => out.u32(2),
        },
        6 => read(disk, id, xdr, out)?,
        7 => write(disk, id, xdr, out)?,
        8 | 9 => make(disk, id, procedure, xdr, out)?,
        12 | 13 => {
            let name = xdr.opaque(255)?.to_vec();
            let gone = children(disk, id).remove(&name);
            out.u32(if gone.is_some() { 0 } else { 2 });
            if let Some(gone) = gone {
                disk.nodes.remove(&gone);
                wcc(out, disk, id);
            }
        }
        14 => {
            let from = xdr.opaque(255)?.to_vec();
            let to = u64::from_be_bytes(xdr.opaque(64)?.try_into().unwrap());
            let name = xdr.opaque(255)?.to_vec();
            match children(disk, id).remove(&from) {
                Some(moved) => {
                    if let Some(replaced) = children(disk, to).insert(name, moved) {
                        disk.nodes.remove(&replaced);
                    }
                    out.u32(0);
                    wcc(out, disk, id);
                    wcc(out, disk, to);
                }
                None => out.u32(2),
            }
        }
        16 | 17 => list(disk, id, procedure == 17, xdr, out)?,
        18..=21 => facts(disk, id, procedure, out),
        other => panic!("NFS procedure {other}"),
    }
    Ok(())
}

/// FSSTAT, FSINFO, PATHCONF and COMMIT.
fn facts(disk: &Disk, id: u64, procedure: u32, out: &mut Encoder<'_>) {
    match procedure {
        18 => {
            out.u32(0);
            optional(out, disk, id);
            [100, 90, 80, 70, 60, 50].into_iter().for_each(|word| out.u64(word));
            out.u32(0);
        }
        19 => {
            out.u32(0);
            optional(out, disk, id);
            [1 << 20, 1 << 20, 4096, 1 << 20, 1 << 20, 4096, 8192].into_iter().for_each(|word| out.u32(word));
            out.u64(1 << 60);
            out.u64(1);
            out.u32(27);
        }
        20 => {
            out.u32(0);
            optional(out, disk, id);
            [32000, 255, 1, 1, 0, 1].into_iter().for_each(|word| out.u32(word));
        }
        _ => {
            out.u32(0);
            wcc(out, disk, id);
            out.u64(99);
        }
    }
}

fn children(disk: &mut Disk, id: u64) -> &mut BTreeMap<Vec<u8>, u64> {
    match disk.nodes.get_mut(&id) {
        Some(Node::Folder(children)) => children,
        other => panic!("{other:?} is no folder"),
    }
}

fn child(disk: &mut Disk, id: u64, name: &[u8]) -> Option<u64> {
    children(disk, id).get(name).copied()
}

fn setattr(disk: &mut Disk, id: u64, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    if xdr.bool()? {
        xdr.u32()?;
    }
    assert!(!xdr.bool()? && !xdr.bool()?);
    if xdr.bool()? {
        let size = xdr.u64()? as usize;
        match disk.nodes.get_mut(&id) {
            Some(Node::File(bytes)) if !disk.manners.sink => bytes.resize(size, 0),
            _ => {}
        }
    }
    out.u32(0);
    wcc(out, disk, id);
    Ok(())
}

fn read(disk: &mut Disk, id: u64, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    let (offset, mut count) = (xdr.u64()? as usize, xdr.u32()? as usize);
    if disk.manners.short_bytes > 0 {
        count = count.min(disk.manners.short_bytes);
    }
    out.u32(0);
    optional(out, disk, id);
    let Node::File(bytes) = &disk.nodes[&id] else { panic!("READ of a folder") };
    if disk.manners.sink {
        out.u32(count as u32);
        out.bool(false);
        out.opaque_with(count, |out| out.resize(out.len() + count, 0));
        return Ok(());
    }
    let start = offset.min(bytes.len());
    let end = (start + count).min(bytes.len());
    out.u32((end - start) as u32);
    out.bool(end == bytes.len());
    out.opaque(&bytes[start..end]);
    Ok(())
}

fn write(disk: &mut Disk, id: u64, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    let (mut offset, count, stable) = (xdr.u64()? as usize, xdr.u32()? as usize, xdr.u32()?);
    let data = xdr.opaque(1 << 20)?;
    assert_eq!((data.len(), stable), (count, 2));
    disk.writes += 1;
    let (manners, writes) = (disk.manners, disk.writes);
    if every(manners.fail_write, writes) {
        out.u32(5);
        wcc(out, disk, id);
        return Ok(());
    }
    let taken = if manners.short_bytes > 0 { count.min(manners.short_bytes) } else { count };
    if every(manners.misplace_write, writes) {
        offset += count;
    }
    if !every(manners.forget_write, writes) && !manners.sink {
        let Some(Node::File(bytes)) = disk.nodes.get_mut(&id) else { panic!("WRITE to a folder") };
        bytes.resize(bytes.len().max(offset + taken), 0);
        bytes[offset..offset + taken].copy_from_slice(&data[..taken]);
        if every(manners.damage_write, writes) {
            bytes[offset + taken / 2] ^= 4;
        }
    }
    out.u32(0);
    wcc(out, disk, id);
    out.u32(taken as u32);
    out.u32(if manners.lie_unstable { 0 } else { 2 });
    out.u64(99);
    Ok(())
}

fn make(
    disk: &mut Disk,
    id: u64,
    procedure: u32,
    xdr: &mut Decoder<'_>,
    out: &mut Encoder<'_>,
) -> Result<(), Malformed> {
    let name = xdr.opaque(255)?.to_vec();
    let unchecked = procedure == 8 && xdr.u32()? == 0;
    if let Some(existing) = child(disk, id, &name) {
        out.u32(if unchecked { 0 } else { 17 });
        if unchecked {
            out.bool(true);
            handle(out, existing);
            optional(out, disk, existing);
        }
        wcc(out, disk, id);
        return Ok(());
    }
    let new = disk.next_id;
    disk.next_id += 1;
    let node = if procedure == 8 { Node::File(Vec::new()) } else { Node::Folder(BTreeMap::new()) };
    disk.nodes.insert(new, node);
    children(disk, id).insert(name, new);
    out.u32(0);
    // MKDIR leaves the handle out, so that the client has to look it up.
    out.bool(procedure == 8);
    if procedure == 8 {
        handle(out, new);
        optional(out, disk, new);
    } else {
        out.bool(false);
    }
    wcc(out, disk, id);
    Ok(())
}

fn list(disk: &mut Disk, id: u64, plus: bool, xdr: &mut Decoder<'_>, out: &mut Encoder<'_>) -> Result<(), Malformed> {
    let cookie = xdr.u64()?;
    out.u32(0);
    optional(out, disk, id);
    out.u64(5);
    let entries: Vec<_> = children(disk, id).clone().into_iter().collect();
    let page: Vec<_> = entries.iter().enumerate().skip(cookie as usize).take(3).collect();
    for (index, (name, child)) in &page {
        out.bool(true);
        out.u64(*child);
        out.opaque(name);
        out.u64(*index as u64 + 1);
        if plus {
            optional(out, disk, *child);
            out.bool(true);
            handle(out, *child);
        }
    }
    out.bool(false);
    out.bool(cookie as usize + page.len() >= entries.len());
    Ok(())
}
