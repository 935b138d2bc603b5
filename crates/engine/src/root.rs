//! The root: everything a checkpoint leaves behind that is not in a stripe. A small blob
//! in the RAID group's registers, replaced as a whole by compare-and-set.

use base::{Incarnation, MediaCheck, Osn, media_check};
use journal::{Sequence, TrimPoint};

use crate::format::{FormatError, Place, Take};
use crate::pages::{PageEntry, TableRoot};
use crate::stripes::{ROW_BYTES, Usage};
use crate::tree::{PageId, Tree};

/// Name of the register that holds the root.
pub const ROOT_REGISTER: &str = "engine-root";
const MAGIC: u64 = 0x746f_6f72_646c_6f68;
const VERSION: u16 = 4;
/// Named every usage object itself; its roots end before [`Root::usage_index`].
const VERSION_3: u16 = 3;
/// Its mapping deltas are a window; its roots end before [`Root::log_is_whole`].
const VERSION_2: u16 = 2;
/// Knew no snapshots; its roots end before [`Root::applied`].
const VERSION_1: u16 = 1;

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Number of the checkpoint; the version of the pages it wrote.
    pub checkpoint: u64,
    /// Raised at each opening; high part of generations and object ids, so that neither
    /// is ever used twice.
    pub opening: u64,
    /// Highest OSN given out.
    pub last_osn: Osn,
    /// Highest file counter given out.
    pub last_file: u64,
    /// First page number never used.
    pub next_page: u64,
    /// Epoch of first layers: 1.
    pub epoch: u32,
    /// Key of content checks.
    pub content_key: [u8; 32],
    /// Journal legs that hold what comes after this root.
    pub incarnations: Vec<Incarnation>,
    /// Where the journal starts.
    pub trim: TrimPoint,
    /// Everything through here stands in stripes.
    pub through: Sequence,
    /// Top of the page table.
    pub table: TableRoot,
    /// Trees by number.
    pub trees: Vec<Tree>,
    /// Index objects: places of the oldest usage objects, in order.
    pub usage_index: Vec<Place>,
    /// Usage objects behind these, oldest first.
    pub usage: Vec<Place>,
    /// How many usage objects, index included, are the full table; the others are changes.
    pub usage_base: u32,
    /// Rows of the stripes that the newest usage objects went to.
    pub own_usage: Vec<Usage>,
    /// Delta objects kept, oldest first.
    pub deltas: Vec<Place>,
    /// Everything but data that was still staged is in the trees through here.
    pub applied: Sequence,
    /// The delta objects kept say all that the trees say: nothing that still holds was let go.
    pub log_is_whole: bool,
}

impl Root {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + 24 * (self.usage_index.len() + self.usage.len() + self.deltas.len()));
        let word = |out: &mut Vec<u8>, word: u64| out.extend_from_slice(&word.to_le_bytes());
        word(&mut out, MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for value in [self.checkpoint, self.opening, self.last_osn.0, self.last_file, self.next_page] {
            word(&mut out, value);
        }
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.content_key);
        out.extend_from_slice(&self.trim.encode());
        word(&mut out, self.through.0);
        out.push(self.table.level);
        out.extend_from_slice(&self.table.entry.place.encode());
        word(&mut out, self.table.entry.version);
        out.extend_from_slice(&self.usage_base.to_le_bytes());
        out.extend_from_slice(&(self.incarnations.len() as u32).to_le_bytes());
        self.incarnations.iter().for_each(|incarnation| out.extend_from_slice(&incarnation.0));
        out.extend_from_slice(&(self.trees.len() as u32).to_le_bytes());
        for tree in &self.trees {
            out.push(tree.number);
            word(&mut out, tree.root.0);
        }
        for places in [&self.usage, &self.deltas] {
            out.extend_from_slice(&(places.len() as u32).to_le_bytes());
            places.iter().for_each(|place| out.extend_from_slice(&place.encode()));
        }
        out.extend_from_slice(&(self.own_usage.len() as u32).to_le_bytes());
        self.own_usage.iter().for_each(|row| row.encode(&mut out));
        word(&mut out, self.applied.0);
        out.push(u8::from(self.log_is_whole));
        out.extend_from_slice(&(self.usage_index.len() as u32).to_le_bytes());
        self.usage_index.iter().for_each(|place| out.extend_from_slice(&place.encode()));
        let check = media_check(MAGIC, &out);
        word(&mut out, check.0);
        out
    }

    /// Reads what [`Root::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Root, FormatError> {
        let (body, check) = bytes.split_last_chunk::<8>().ok_or(FormatError("root"))?;
        if media_check(MAGIC, body) != MediaCheck(u64::from_le_bytes(*check)) {
            return Err(FormatError("root"));
        }
        let mut take = Take(body);
        let (magic, version) = (take.u64()?, take.u16()?);
        if magic != MAGIC || ![VERSION, VERSION_3, VERSION_2, VERSION_1].contains(&version) {
            return Err(FormatError("root: a version this program does not know"));
        }
        let mut root = Root {
            checkpoint: take.u64()?,
            opening: take.u64()?,
            last_osn: Osn(take.u64()?),
            last_file: take.u64()?,
            next_page: take.u64()?,
            epoch: take.u32()?,
            content_key: take.bytes(32)?.try_into().expect("32 bytes"),
            trim: TrimPoint::decode(take.bytes(TrimPoint::BYTES)?.try_into().expect("its length")),
            through: Sequence(take.u64()?),
            table: TableRoot { level: take.u8()?, entry: PageEntry { place: take.place()?, version: take.u64()? } },
            usage_base: take.u32()?,
            incarnations: take.list(16, |t| Ok(Incarnation(t.bytes(16)?.try_into().expect("16 bytes"))))?,
            trees: take.list(9, |t| Ok(Tree { number: t.u8()?, root: PageId(t.u64()?) }))?,
            usage_index: Vec::new(),
            usage: take.list(24, Take::place)?,
            deltas: take.list(24, Take::place)?,
            own_usage: take.list(ROW_BYTES, Usage::decode)?,
            applied: Sequence(0),
            log_is_whole: false,
        };
        // What follows in the journal may be redone in full where there are no snapshots.
        root.applied = if version == VERSION_1 { root.through } else { Sequence(take.u64()?) };
        root.log_is_whole = match version {
            VERSION_1 | VERSION_2 => false,
            _ => match take.u8()? {
                0 => false,
                1 => true,
                _ => return Err(FormatError("root")),
            },
        };
        if version == VERSION {
            root.usage_index = take.list(24, Take::place)?;
        }
        take.end()?;
        Ok(root)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A root with something in everything.
    pub(crate) fn root() -> Root {
        Root {
            checkpoint: 1,
            opening: 2,
            last_osn: Osn(3),
            last_file: 4,
            next_page: 5,
            epoch: 6,
            content_key: [7; 32],
            incarnations: vec![Incarnation([8; 16])],
            trim: TrimPoint {
                through: Sequence(1),
                anchor_first: Sequence(1),
                anchor_position_bytes: 4096,
                anchor_previous: 5,
            },
            through: Sequence(9),
            table: TableRoot {
                level: 1,
                entry: PageEntry { place: Place { stored_bytes: 4, ..Place::default() }, version: 3 },
            },
            trees: vec![Tree { number: 1, root: PageId(77) }],
            usage_index: vec![Place { stored_bytes: 48, ..Place::default() }],
            usage: vec![Place::default(); 2],
            usage_base: 1,
            own_usage: vec![Usage { stripe: raid::StripeId::unpack(9), generation: 1, live_bytes: 2 }],
            deltas: vec![Place::default()],
            applied: Sequence(11),
            log_is_whole: true,
        }
    }

    /// `root` as a program of an older `version` wrote it, without the last bytes that came later.
    fn older(root: &Root, version: u16, later_bytes: usize) -> Vec<u8> {
        let mut image = root.encode();
        image.truncate(image.len() - 8 - later_bytes);
        image[8..10].copy_from_slice(&version.to_le_bytes());
        let check = media_check(MAGIC, &image);
        image.extend_from_slice(&check.0.to_le_bytes());
        image
    }

    #[test]
    fn roots_of_older_versions_are_read() {
        let root = Root { usage_index: Vec::new(), ..root() };
        let (index_bytes, flag_bytes, applied_bytes) = (4, 1, 8);
        let version_3 = older(&root, VERSION_3, index_bytes);
        assert_eq!(Root::decode(&version_3), Ok(root.clone()));
        let log_is_whole = false;
        let version_2 = older(&root, VERSION_2, index_bytes + flag_bytes);
        assert_eq!(Root::decode(&version_2), Ok(Root { log_is_whole, ..root.clone() }));
        let version_1 = older(&root, VERSION_1, index_bytes + flag_bytes + applied_bytes);
        let applied = root.through;
        assert_eq!(Root::decode(&version_1), Ok(Root { log_is_whole, applied, ..root.clone() }));
        assert!(Root::decode(&older(&root, VERSION + 1, 0)).is_err(), "a version of the future");
    }

    #[test]
    fn a_root_reads_back_and_any_flipped_bit_shows() {
        let root = root();
        let mut bytes = root.encode();
        assert_eq!(Root::decode(&bytes), Ok(root));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Root::decode(&bytes).is_err());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
