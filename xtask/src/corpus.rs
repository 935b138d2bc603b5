//! Inputs that fuzzing found worth keeping: one text file for each target, a line of hex digits for
//! each input, so that a change of them can be read. They stand where bolero looks for the inputs
//! of a target, beside its source file, and are unpacked there for the tests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Most bytes of the kept inputs of a target: the smallest ones, which are as good as larger ones.
const KEPT_BYTES_MAX: usize = 32 << 10;

/// The kept inputs of one target.
#[derive(Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The text file.
    packed: PathBuf,
    /// Where bolero looks: a file for each input.
    folder: PathBuf,
}

impl Corpus {
    /// Of the test whose path within its program is `test` (`module::name`), in the source file `source`.
    pub fn of(source: &Path, test: &str) -> Corpus {
        // As bolero names its folders.
        let (modules, name) = test.rsplit_once("::").map_or((None, test), |(modules, name)| (Some(modules), name));
        let name = name.strip_prefix("test_").or(name.strip_prefix("fuzz_")).unwrap_or(name);
        let name = name.strip_suffix("_test").or(name.strip_suffix("_fuzz")).unwrap_or(name);
        let path = modules.map_or(name.to_owned(), |modules| format!("{}__{name}", modules.replace("::", "__")));
        let folder = source.with_file_name("__fuzz__");
        Corpus { packed: folder.join(format!("{path}.hex")), folder: folder.join(path).join("corpus") }
    }

    /// The text file.
    pub fn packed(&self) -> &Path {
        &self.packed
    }

    /// Where the inputs stand once they are unpacked.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts the inputs where bolero looks for them, and nothing else. How many.
    pub fn unpack(&self) -> Result<usize, String> {
        let inputs = match fs::read_to_string(&self.packed) {
            Ok(text) => decode(&text).ok_or_else(|| format!("{}: not lines of hex digits", self.packed.display()))?,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(why) => return Err(format!("{}: {why}", self.packed.display())),
        };
        let failed = |why: std::io::Error| format!("{}: {why}", self.folder.display());
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(self.folder.join(format!("{number:05}")), input).map_err(failed)?;
        }
        Ok(inputs.len())
    }

    /// Keeps the files of `folder` as inputs beside those kept before, the smallest first. How many.
    pub fn pack(&self, folder: &Path) -> Result<usize, String> {
        self.unpack()?;
        let mut inputs = Vec::new();
        for folder in [folder, self.folder()] {
            let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
            if !folder.exists() {
                continue;
            }
            for file in fs::read_dir(folder).map_err(failed)? {
                inputs.push(fs::read(file.map_err(failed)?.path()).map_err(failed)?);
            }
        }
        inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        inputs.dedup();
        let mut bytes = 0;
        inputs.retain(|input| {
            bytes += input.len();
            bytes <= KEPT_BYTES_MAX
        });
        let parent = self.packed.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&self.packed, encode(&inputs)));
        written.map_err(|why| format!("{}: {why}", self.packed.display()))?;
        Ok(inputs.len())
    }
}

fn encode(inputs: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for input in inputs {
        for byte in input {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn decode(text: &str) -> Option<Vec<Vec<u8>>> {
    let line = |line: &str| {
        let pairs = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        pairs
            .map(|pair| pair.filter(|pair| pair.len() == 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect()
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_corpus_stands_where_bolero_looks() {
        let of = |source: &str, test: &str| Corpus::of(Path::new(source), test).folder;
        let engine = "crates/engine/src/__fuzz__/fuzz__any_page/corpus";
        assert_eq!(of("crates/engine/src/fuzz.rs", "fuzz::any_page"), Path::new(engine));
        let nfs = "crates/nfs/tests/__fuzz__/any_datagram/corpus";
        assert_eq!(of("crates/nfs/tests/fuzz.rs", "any_datagram"), Path::new(nfs));
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let folder = std::env::temp_dir().join(format!("xtask-corpus-{}", std::process::id()));
        fs::create_dir_all(folder.join("found")).unwrap();
        let inputs: [&[u8]; 3] = [b"", b"\x00\xff", b"abc"];
        inputs.iter().enumerate().for_each(|(at, input)| fs::write(folder.join(format!("found/{at}")), input).unwrap());
        let corpus = Corpus::of(&folder.join("fuzz.rs"), "any_bytes");
        assert_eq!(corpus.unpack(), Ok(0), "nothing is kept yet");
        assert_eq!(corpus.pack(&folder.join("found")), Ok(3));
        assert_eq!(corpus.unpack(), Ok(3));
        let read: BTreeSet<Vec<u8>> =
            fs::read_dir(corpus.folder()).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert_eq!(read, inputs.iter().map(|input| input.to_vec()).collect());
        fs::create_dir_all(folder.join("later")).unwrap();
        fs::write(folder.join("later/0"), b"new").unwrap();
        assert_eq!(corpus.pack(&folder.join("later")), Ok(4), "what was kept before stays");
        fs::write(folder.join("found/large"), vec![1; KEPT_BYTES_MAX]).unwrap();
        assert_eq!(corpus.pack(&folder.join("found")), Ok(4), "the smallest are kept");
        fs::write(folder.join("__fuzz__/any_bytes.hex"), "0g\n").unwrap();
        assert!(corpus.unpack().is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
