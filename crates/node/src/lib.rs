//! Composes the roles of a node and owns its ports.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod nfs_door;
