//! The receipt: what both sites say of a check that found no difference, in words that both sign.
//!
//! The words are lines of `name value` in one fixed order, so that the same check has the same words at
//! both sites; the secondary signs only what it has found itself.

use base::{Osn, PairId, SiteId, WallNanos};

use super::Sides;

/// First line; a later version has another one.
const TITLE: &str = "vmhold integrity receipt 1";

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The pair.
    pub pair: PairId,
    /// What the primary calls the datastore.
    pub about: String,
    /// Both had done the operations through this one.
    pub osn: Osn,
    /// The sites.
    pub sides: Sides,
    /// Every block was read at both.
    pub reads_data: bool,
    /// Files and snapshots.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Of all that was compared.
    pub digest: [u8; 16],
    /// When it was compared, by the primary's clock.
    pub at: WallNanos,
}

/// Why words are no statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the receipt's statement is not what it should be")]
pub struct StatementFault(pub usize);

/// Who vouches for a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The site.
    pub site: SiteId,
    /// Its certificate (DER), by whose fingerprint the witness knows it.
    pub certificate: Vec<u8>,
    /// Of the words, by the certificate's key.
    pub signature: Vec<u8>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_plain = text.len() == 2 * N && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_plain {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Statement {
    /// The words that are signed.
    #[must_use]
    pub fn words(&self) -> String {
        let how = if self.reads_data { "data" } else { "sums" };
        format!(
            "{TITLE}\npair {}\nabout {}\noperation {}.{}\nprimary {}\nsecondary {}\nfrom {how}\nfiles {}\nbytes {}\n\
             rows {}\ndigest {}\nat-ns {}\nthe sites hold the same\n",
            hex(&self.pair.0),
            one_line(&self.about),
            self.osn.epoch().0,
            self.osn.counter(),
            hex(&self.sides.primary.0),
            hex(&self.sides.secondary.0),
            self.files,
            self.bytes,
            self.rows,
            hex(&self.digest),
            self.at.0,
        )
    }

    /// What words say.
    ///
    /// # Errors
    /// [`StatementFault`]: only words that this version writes are read.
    pub fn read(words: &str) -> Result<Statement, StatementFault> {
        let lines: Vec<&str> = words.lines().collect();
        let value = |at: usize, name: &str| -> Result<&str, StatementFault> {
            let line = lines.get(at).ok_or(StatementFault(at + 1))?;
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or(StatementFault(at + 1))
        };
        let number = |at: usize, name: &str| value(at, name)?.parse::<u64>().map_err(|_| StatementFault(at + 1));
        let id = |at: usize, name: &str| unhex::<16>(value(at, name)?).ok_or(StatementFault(at + 1));
        let operation = value(3, "operation")?.split_once('.').ok_or(StatementFault(4))?;
        let part =
            |text: &str, below: u64| text.parse::<u64>().ok().filter(|number| *number < below).ok_or(StatementFault(4));
        let (epoch, counter) = (part(operation.0, 1 << 16)?, part(operation.1, 1 << 48)?);
        let statement = Statement {
            pair: PairId(id(1, "pair")?),
            about: value(2, "about")?.to_owned(),
            osn: Osn::of(base::Epoch(epoch), counter),
            sides: Sides { primary: SiteId(id(4, "primary")?), secondary: SiteId(id(5, "secondary")?) },
            reads_data: match value(6, "from")? {
                "data" => true,
                "sums" => false,
                _ => return Err(StatementFault(7)),
            },
            files: number(7, "files")?,
            bytes: number(8, "bytes")?,
            rows: number(9, "rows")?,
            digest: id(10, "digest")?,
            at: WallNanos(number(11, "at-ns")?),
        };
        // Whatever else there is, or is missing, was not written here.
        let differs = statement.words().lines().zip(&lines).position(|(mine, theirs)| mine != *theirs);
        match differs {
            None if statement.words() == words => Ok(statement),
            None => Err(StatementFault(lines.len())),
            Some(at) => Err(StatementFault(at + 1)),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use base::Epoch;

    use super::*;

    #[test]
    fn only_the_words_that_are_written_are_read() {
        let statement = Statement {
            pair: PairId([7; 16]),
            about: "flash0: vms".to_owned(),
            osn: Osn::of(Epoch(3), 99),
            sides: Sides { primary: SiteId([1; 16]), secondary: SiteId([2; 16]) },
            reads_data: false,
            files: 2,
            bytes: 3,
            rows: 4,
            digest: [0xab; 16],
            at: WallNanos(5),
        };
        let words = statement.words();
        assert_eq!(Statement::read(&words), Ok(statement.clone()));
        assert_eq!(Statement::read(&words.replace("files 2", "files 02")), Err(StatementFault(8)));
        assert_eq!(Statement::read(&words.replace("hold the same", "do not")), Err(StatementFault(13)));
        assert_eq!(Statement::read(&format!("{words}more\n")), Err(StatementFault(14)));
        for line in 0..words.lines().count() {
            let cut: Vec<&str> = words.lines().take(line).collect();
            assert!(Statement::read(&cut.join("\n")).is_err(), "{line} lines");
        }
        let sly = Statement { about: "a\nfiles 9".into(), ..statement };
        assert!(sly.words().contains("about a files 9\n"));
    }
}
