//! Layer walls: who may depend on whom, and on what from outside.
//!
//! This table is the only place that says so. Lower layers never import higher ones;
//! a new edge or a new outside dependency of a pure crate needs a decision record.

use super::Finding;
use crate::tree::{Dependency, Package};

struct Wall {
    name: &'static str,
    /// Our crates it may use.
    ours: &'static [&'static str],
    /// Our crates its tests and benches may use as well.
    in_tests: &'static [&'static str],
    /// Outside crates it may use; `None` means no wall.
    outside: Option<&'static [&'static str]>,
}

const WALLS: &[Wall] = &[
    pure("base", &[], &["bytes", "zerocopy", "crc-fast", "blake3", "thiserror", "siphasher"]),
    pure("parity", &["base"], &["thiserror", "smallvec"]),
    pure("journal", &["base"], &["zerocopy", "thiserror", "smallvec", "bytes", "tokio"]),
    pure(
        "raid",
        &["base", "parity"],
        &["zerocopy", "thiserror", "smallvec", "bytes", "hashbrown", "futures-util", "tokio"],
    ),
    pure(
        "engine",
        &["base", "journal", "raid"],
        &[
            "zerocopy",
            "thiserror",
            "smallvec",
            "bytes",
            "futures-util",
            "hashbrown",
            "lz4_flex",
            "quick_cache",
            "siphasher",
            "tokio",
        ],
    ),
    pure(
        "datastore",
        &["base", "engine"],
        &["zerocopy", "thiserror", "smallvec", "bytes", "hashbrown", "siphasher", "ipnet", "tokio"],
    ),
    Wall {
        // its tests run the datastore on the store's model in memory
        in_tests: &["world-sim", "engine"],
        ..pure(
            "nfs",
            &["base", "datastore"],
            &["thiserror", "smallvec", "bytes", "hashbrown", "siphasher", "ipnet", "tokio"],
        )
    },
    pure(
        "cache",
        &["base", "journal"],
        &["zerocopy", "thiserror", "smallvec", "bytes", "futures-util", "quick_cache", "tokio"],
    ),
    pure("nbd", &[], &["thiserror", "zerocopy"]),
    pure("world-sim", &["base"], &["rand", "bytes", "blake3", "hashbrown", "thiserror", "siphasher", "smallvec"]),
    pure("witness", &["base"], &["zerocopy", "thiserror"]),
    pure("mirror", &["base", "witness"], &["zerocopy", "thiserror"]),
    pure("replica", &["base", "engine", "mirror", "witness"], &["zerocopy", "thiserror", "tokio", "futures-util"]),
    open("world-real", &["base"], &["world-sim"]),
    open("witness-serve", &["base", "witness", "world-real", "control"], &["world-sim"]),
    open("control", &["base"], &[]),
    open(
        "node",
        &[
            "base",
            "parity",
            "journal",
            "raid",
            "engine",
            "datastore",
            "nfs",
            "mirror",
            "replica",
            "witness",
            "witness-serve",
            "world-real",
            "control",
        ],
        &["world-sim", "load"],
    ),
    open("host", &["base", "journal", "cache", "nbd", "world-real", "control"], &["world-sim"]),
    open("load", &["control"], &["world-sim"]),
    open("vmhold", &["base", "node", "host", "witness-serve", "control", "load"], &["world-sim", "witness"]),
    open(
        "swarm",
        &["base", "parity", "journal", "raid", "engine", "datastore", "nfs", "world-sim", "node", "control", "load"],
        // two stores of one pair
        &["mirror", "replica", "witness"],
    ),
    open("xtask", &["load"], &[]),
];

const fn pure(name: &'static str, ours: &'static [&'static str], outside: &'static [&'static str]) -> Wall {
    Wall { name, ours, in_tests: &["world-sim"], outside: Some(outside) }
}

const fn open(name: &'static str, ours: &'static [&'static str], in_tests: &'static [&'static str]) -> Wall {
    Wall { name, ours, in_tests, outside: None }
}

/// Every dependency edge the table does not allow.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    let manifest = format!("{}/Cargo.toml", package.folder);
    let Some(wall) = WALLS.iter().find(|wall| wall.name == package.name) else {
        let what = format!("crate `{}` has no place in the layers", package.name);
        return vec![Finding::new(&manifest, 0, what, "give it a row in xtask/src/tidy/walls.rs and a reason")];
    };
    package.dependencies.iter().filter_map(|edge| judge(wall, edge, &manifest)).collect()
}

fn judge(wall: &Wall, edge: &Dependency, manifest: &str) -> Option<Finding> {
    let name = edge.name.as_str();
    if edge.ours {
        if wall.ours.contains(&name) || (edge.dev && wall.in_tests.contains(&name)) {
            return None;
        }
        let what = format!("`{}` must not depend on `{name}`", wall.name);
        let cure = format!("move the code to the layer that may know `{name}`, or meet it through a port in `base`");
        return Some(Finding::new(manifest, 0, what, cure));
    }
    let outside = wall.outside.filter(|_| !edge.dev)?;
    if !outside.contains(&name) {
        let what = format!("pure crate `{}` takes in `{name}` from outside", wall.name);
        return Some(Finding::new(manifest, 0, what, "do without, or allow it in walls.rs with a decision record"));
    }
    if name == "tokio" && edge.features.iter().any(|feature| feature != "sync") {
        let what = format!("pure crate `{}` uses tokio beyond `sync`", wall.name);
        return Some(Finding::new(manifest, 0, what, "use only the feature `sync`; the runtime belongs to the world"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, edge: Dependency) -> Vec<String> {
        let package = Package {
            name: name.into(),
            folder: format!("crates/{name}"),
            dependencies: vec![edge],
            benches: Vec::new(),
        };
        check(&[package]).into_iter().map(|finding| finding.what).collect()
    }

    fn edge(name: &str, ours: bool, dev: bool, features: &[&str]) -> Dependency {
        let features = features.iter().map(|feature| (*feature).to_owned()).collect();
        Dependency { name: name.into(), dev, ours, features }
    }

    #[test]
    fn an_upward_edge_is_found() {
        assert_eq!(found("raid", edge("engine", true, false, &[])), ["`raid` must not depend on `engine`"]);
        assert_eq!(found("datastore", edge("raid", true, false, &[])), ["`datastore` must not depend on `raid`"]);
        assert!(found("engine", edge("raid", true, false, &[])).is_empty());
    }

    #[test]
    fn the_simulated_world_is_for_tests_only() {
        assert!(found("raid", edge("world-sim", true, true, &[])).is_empty());
        assert_eq!(found("raid", edge("world-sim", true, false, &[])).len(), 1);
        assert_eq!(found("raid", edge("world-real", true, true, &[])).len(), 1);
    }

    #[test]
    fn a_pure_crate_takes_in_little_from_outside() {
        assert_eq!(found("raid", edge("axum", false, false, &[])).len(), 1);
        assert!(found("raid", edge("proptest", false, true, &[])).is_empty());
        assert!(found("node", edge("axum", false, false, &[])).is_empty());
        assert!(found("nfs", edge("tokio", false, false, &["sync"])).is_empty());
        assert_eq!(found("nfs", edge("tokio", false, false, &["sync", "net"])).len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(found("newcomer", edge("base", true, false, &[])).len(), 1);
    }
}
