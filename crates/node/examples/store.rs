//! A whole store from the command line, for measuring without the CLI:
//! `cargo run --release -p node --example store -- FOLDER [DRIVES] [MIB_PER_DRIVE] [PORT]`.
//! Makes the pool in FOLDER if it is not there, serves the datastore `demo`, stops on ^C.

use std::path::PathBuf;

use node::StoreConfig;

fn main() {
    tracing_subscriber::fmt().init();
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().expect("a folder"));
    let mut number = |default: u64| words.next().map_or(default, |word| word.parse().expect("a number"));
    let (drives, mib, port) = (number(8), number(512), number(20049));
    let config = StoreConfig {
        site: "here".into(),
        pool: "flash0".into(),
        lab: false,
        drives: (0..drives).map(|n| folder.join(format!("drive{n}"))).collect(),
        spares: Vec::new(),
        return_wait_seconds: None,
        file: None,
        journal: vec![folder.join("journal")],
        unit_bytes: None,
        stripe_data: None,
        cache_bytes: None,
        nfs: ([127, 0, 0, 1], port as u16).into(),
        mount: None,
        portmap: false,
        rpcbind: false,
        api: ([127, 0, 0, 1], port as u16 + 1).into(),
        io: None,
        pair: None,
        state: folder.join(node::DEFAULT_STATE),
    };
    if !folder.exists() {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for drive in &config.drives {
            world_real::create_sparse_file(drive, mib << 20).expect("a drive file");
        }
        world_real::create_zeroed_file(&config.journal[0], 128 << 20).expect("a journal file");
        node::create(&config, Some("demo")).expect("a pool");
    }
    let ready = |ready: &node::Ready| println!("ready {ready:?}");
    let stop = async { tokio::signal::ctrl_c().await.expect("signals work") };
    node::serve(config, ready, stop).expect("served");
}
