//! Whether what was seen of a register is the history of one register.

use std::collections::BTreeMap;

/// What is known of a register whose changes carry versions, while operations on it go on, side by
/// side or cut off. It is linear if each version has one value, and no operation that begins after
/// another has ended sees less.
#[derive(Debug, Default)]
pub struct History {
    values: BTreeMap<u64, Vec<u8>>,
    /// The highest version of an operation that has ended.
    floor: u64,
}

impl History {
    /// An operation begins: it may not see less than this.
    pub fn begin(&self) -> u64 {
        self.floor
    }

    /// It has ended, having begun at `floor`, and saw or set `value` as `version`.
    pub fn end(&mut self, floor: u64, version: u64, value: &[u8]) {
        assert!(version >= floor, "the register went back: version {version} after {floor} was seen");
        let known = self.values.entry(version).or_insert_with(|| value.to_vec());
        assert_eq!(known, value, "the register is split: two values for version {version}");
        self.floor = self.floor.max(version);
    }

    /// The newest version that an operation has ended with, and its value.
    pub fn newest(&self) -> (u64, Vec<u8>) {
        (self.floor, self.values.get(&self.floor).cloned().unwrap_or_default())
    }
}
