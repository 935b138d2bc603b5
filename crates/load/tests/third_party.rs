//! Our bytes against another implementation of XDR and NFSv3 (`nfs3_types`): it decodes
//! what we send and makes what we decode.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener};

use load::connection::{Behaviour, Connection};
use load::nfs3::{CreateMode, DirectoryPage, FileHandle, FileKind, NfsClient, SetAttributes, Stable};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_flavor, auth_unix, fragment_header, msg_body, rpc_msg};
use nfs3_types::xdr_codec::{List, Opaque, Pack, Unpack};

type Answer = Box<dyn FnOnce(&mut Cursor<Vec<u8>>) -> Vec<u8> + Send>;

fn pack(value: impl Pack) -> Vec<u8> {
    let mut out = Vec::new();
    value.pack(&mut out).unwrap();
    out
}

/// Decodes the arguments with the other implementation, to the last byte.
fn arguments<T: Unpack>(body: &mut Cursor<Vec<u8>>) -> T {
    let (value, _) = T::unpack(body).unwrap();
    assert_eq!(body.position() as usize, body.get_ref().len(), "no bytes are left over");
    value
}

/// Serves one connection: each call must be the next (procedure, answer) of the script.
fn serve(script: Vec<(u32, Answer)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for (procedure, answer) in script {
            let mut mark = [0; 4];
            stream.read_exact(&mut mark).unwrap();
            let mark = fragment_header::from(mark);
            assert!(mark.eof());
            let mut record = vec![0; mark.fragment_length() as usize];
            stream.read_exact(&mut record).unwrap();
            let mut body = Cursor::new(record);
            let (message, _) = rpc_msg::unpack(&mut body).unwrap();
            let msg_body::CALL(call) = message.body else { panic!("a call") };
            assert_eq!((call.rpcvers, call.prog, call.vers, call.proc), (2, 100_003, 3, procedure));
            assert_eq!(call.cred.flavor, auth_flavor::AUTH_UNIX);
            let (credential, _) = auth_unix::unpack(&mut Cursor::new(call.cred.body.to_vec())).unwrap();
            assert_eq!((credential.uid, credential.gid, credential.gids.len()), (0, 0, 0));
            assert_eq!(&*credential.machinename.0, b"vmhold-load");
            let results = answer(&mut body);
            let header: Vec<u8> = [message.xid, 1, 0, 0, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
            let length = (header.len() + results.len()) as u32;
            let mark = fragment_header::new(length, true).into_xdr_buf();
            stream.write_all(&[&mark[..], &header, &results].concat()).unwrap();
        }
    });
    address
}

fn attributes() -> fattr3 {
    let time = |seconds| nfstime3 { seconds, nseconds: 5 };
    fattr3 {
        type_: ftype3::NF3REG,
        mode: 0o640,
        nlink: 2,
        uid: 3,
        gid: 4,
        size: 5 << 40,
        used: 6,
        rdev: specdata3 { specdata1: 7, specdata2: 8 },
        fsid: 9,
        fileid: 10,
        atime: time(11),
        mtime: time(12),
        ctime: time(13),
    }
}

fn wcc() -> wcc_data {
    let time = nfstime3 { seconds: 1, nseconds: 2 };
    wcc_data {
        before: Nfs3Option::Some(wcc_attr { size: 1, mtime: time, ctime: time }),
        after: Nfs3Option::Some(attributes()),
    }
}

fn handle(bytes: &'static [u8]) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::borrowed(bytes) }
}

fn with_client(script: Vec<(u32, Answer)>, test: impl AsyncFnOnce(NfsClient, FileHandle)) {
    let address = serve(script);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let behaviour = Behaviour { ride_out: false, ..Behaviour::default() };
        let connection = Connection::open(address, behaviour).await.unwrap();
        test(NfsClient::new(connection), FileHandle::new(b"odd handle, 21 bytes.").unwrap()).await;
    });
}

const HANDLE: &[u8] = b"odd handle, 21 bytes.";

#[test]
fn data_calls_agree_with_the_other_implementation() {
    let script: Vec<(u32, Answer)> = vec![
        (
            7,
            Box::new(|body| {
                let call: WRITE3args<'_> = arguments(body);
                assert_eq!((&*call.file.data.0, call.offset, call.count), (HANDLE, 5 << 40, 13));
                assert_eq!((call.stable, &*call.data.0), (stable_how::FILE_SYNC, &b"thirteen byte"[..]));
                let verf = writeverf3(*b"verifier");
                pack(WRITE3res::Ok(WRITE3resok { file_wcc: wcc(), count: 13, committed: stable_how::FILE_SYNC, verf }))
            }),
        ),
        (
            6,
            Box::new(|body| {
                let call: READ3args = arguments(body);
                assert_eq!((&*call.file.data.0, call.offset, call.count), (HANDLE, 7, 100));
                let file_attributes = Nfs3Option::Some(attributes());
                let data = Opaque::borrowed(b"seven77");
                pack(READ3res::Ok(READ3resok { file_attributes, count: 7, eof: true, data }))
            }),
        ),
        (
            21,
            Box::new(|body| {
                let call: COMMIT3args = arguments(body);
                assert_eq!((call.offset, call.count), (1, 2));
                pack(COMMIT3res::Ok(COMMIT3resok { file_wcc: wcc(), verf: writeverf3(*b"verifier") }))
            }),
        ),
    ];
    with_client(script, async |client, file| {
        let written = client.write(&file, 5 << 40, Stable::FileSync, b"thirteen byte").await.unwrap();
        assert_eq!((written.count, written.committed, &written.verifier), (13, 2, b"verifier"));
        let read = client.read(&file, 7, 100).await.unwrap();
        assert_eq!((&read.data[..], read.eof), (&b"seven77"[..], true));
        assert_eq!(&client.commit(&file, 1, 2).await.unwrap(), b"verifier");
    });
}

#[test]
fn attribute_calls_agree_with_the_other_implementation() {
    let script: Vec<(u32, Answer)> = vec![
        (
            1,
            Box::new(|body| {
                let call: GETATTR3args = arguments(body);
                assert_eq!(&*call.object.data.0, HANDLE);
                pack(GETATTR3res::Ok(GETATTR3resok { obj_attributes: attributes() }))
            }),
        ),
        (
            2,
            Box::new(|body| {
                let call: SETATTR3args = arguments(body);
                assert!(matches!(call.new_attributes.mode, Nfs3Option::Some(0o600)));
                assert!(matches!(call.new_attributes.uid, Nfs3Option::None));
                assert!(matches!(call.new_attributes.size, Nfs3Option::Some(77)));
                assert!(matches!(call.new_attributes.mtime, set_mtime::SET_TO_SERVER_TIME));
                assert!(matches!(call.guard, Nfs3Option::None));
                pack(SETATTR3res::Ok(SETATTR3resok { obj_wcc: wcc() }))
            }),
        ),
        (
            19,
            Box::new(|body| {
                let _: FSINFO3args = arguments(body);
                pack(FSINFO3res::Ok(FSINFO3resok {
                    obj_attributes: Nfs3Option::None,
                    rtmax: 1,
                    rtpref: 2,
                    rtmult: 3,
                    wtmax: 4,
                    wtpref: 5,
                    wtmult: 6,
                    dtpref: 7,
                    maxfilesize: 8,
                    time_delta: nfstime3 { seconds: 0, nseconds: 1 },
                    properties: 27,
                }))
            }),
        ),
    ];
    with_client(script, async |client, file| {
        let found = client.getattr(&file).await.unwrap();
        assert_eq!((found.kind, found.mode, found.link_count), (FileKind::Regular, 0o640, 2));
        assert_eq!((found.uid, found.gid, found.size_bytes, found.used_bytes), (3, 4, 5 << 40, 6));
        assert_eq!((found.filesystem_id, found.file_id), (9, 10));
        assert_eq!((found.accessed.seconds, found.modified.seconds, found.changed.seconds), (11, 12, 13));
        let set = SetAttributes { mode: Some(0o600), size_bytes: Some(77), touch: true };
        client.setattr(&file, &set).await.unwrap();
        let limits = client.fsinfo(&file).await.unwrap();
        assert_eq!((limits.read_bytes_max, limits.write_bytes_max, limits.file_bytes_max), (1, 4, 8));
    });
}

#[test]
fn name_calls_agree_with_the_other_implementation() {
    let make_script: Vec<(u32, Answer)> = vec![
        (
            8,
            Box::new(|body| {
                let call: CREATE3args<'_> = arguments(body);
                assert_eq!(&*call.where_.name.0.0, b"name");
                assert!(matches!(call.how, createhow3::GUARDED(_)));
                let obj = Nfs3Option::Some(handle(b"new"));
                let obj_attributes = Nfs3Option::None;
                pack(CREATE3res::Ok(CREATE3resok { obj, obj_attributes, dir_wcc: wcc() }))
            }),
        ),
        (
            8,
            Box::new(|body| {
                let call: CREATE3args<'_> = arguments(body);
                assert!(matches!(call.how, createhow3::EXCLUSIVE(createverf3(verifier)) if &verifier == b"verifier"));
                pack(CREATE3res::Err((nfsstat3::NFS3ERR_EXIST, CREATE3resfail { dir_wcc: wcc() })))
            }),
        ),
        (
            10,
            Box::new(|body| {
                let call: SYMLINK3args<'_> = arguments(body);
                assert_eq!(&*call.symlink.symlink_data.0.0, b"to");
                let obj = Nfs3Option::Some(handle(b"link"));
                let obj_attributes = Nfs3Option::None;
                pack(SYMLINK3res::Ok(SYMLINK3resok { obj, obj_attributes, dir_wcc: wcc() }))
            }),
        ),
        (
            14,
            Box::new(|body| {
                let call: RENAME3args<'_, '_> = arguments(body);
                assert_eq!((&*call.from.name.0.0, &*call.to.name.0.0), (&b"from"[..], &b"to"[..]));
                pack(RENAME3res::Ok(RENAME3resok { fromdir_wcc: wcc(), todir_wcc: wcc() }))
            }),
        ),
        (
            15,
            Box::new(|body| {
                let call: LINK3args<'_> = arguments(body);
                assert_eq!((&*call.file.data.0, &*call.link.name.0.0), (HANDLE, &b"second"[..]));
                let file_attributes = Nfs3Option::Some(attributes());
                pack(LINK3res::Ok(LINK3resok { file_attributes, linkdir_wcc: wcc() }))
            }),
        ),
        (17, Box::new(list_answer)),
    ];
    with_client(make_script, async |client, folder| {
        let made = client.create(&folder, b"name", CreateMode::Guarded).await.unwrap();
        assert_eq!(made.as_bytes(), b"new");
        let refused = client.create(&folder, b"name", CreateMode::Exclusive(*b"verifier")).await;
        assert_eq!(refused, Err(load::nfs3::EXIST));
        assert_eq!(client.symlink(&folder, b"name", b"to").await.unwrap().as_bytes(), b"link");
        client.rename((&folder, b"from"), (&folder, b"to")).await.unwrap();
        client.link(&folder, (&folder, b"second")).await.unwrap();
        let page = client.readdirplus(&folder, &DirectoryPage::default()).await.unwrap();
        assert_eq!((page.entries.len(), page.cookie, page.eof, &page.verifier), (2, 22, true, b"cookie v"));
        assert_eq!((&page.entries[0].name[..], page.entries[0].file_id), (&b"first"[..], 1));
        assert_eq!(page.entries[0].attributes.unwrap().file_id, 10);
        assert_eq!(page.entries[1].handle.unwrap().as_bytes(), b"second");
        assert_eq!(page.entries[1].attributes, None);
    });
}

fn list_answer(body: &mut Cursor<Vec<u8>>) -> Vec<u8> {
    let call: READDIRPLUS3args = arguments(body);
    assert_eq!((call.cookie, call.cookieverf), (0, cookieverf3([0; 8])));
    let first = entryplus3 {
        fileid: 1,
        name: filename3(Opaque::borrowed(b"first")),
        cookie: 21,
        name_attributes: Nfs3Option::Some(attributes()),
        name_handle: Nfs3Option::None,
    };
    let second = entryplus3 {
        fileid: 2,
        name: filename3(Opaque::borrowed(b"second one")),
        cookie: 22,
        name_attributes: Nfs3Option::None,
        name_handle: Nfs3Option::Some(handle(b"second")),
    };
    pack(READDIRPLUS3res::Ok(READDIRPLUS3resok {
        dir_attributes: Nfs3Option::Some(attributes()),
        cookieverf: cookieverf3(*b"cookie v"),
        reply: dirlistplus3 { entries: List(vec![first, second]), eof: true },
    }))
}
