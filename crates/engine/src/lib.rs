//! The engine: files of blocks and tables of values, on stripes and a journal.

pub mod memory;
pub mod store;
