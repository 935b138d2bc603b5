//! Files of the history of VMs (`docs/formats/activity.md`), in the state folder.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use control::activity_book::SegmentFolder;

/// See the module's head.
pub(crate) struct Segments(pub PathBuf);

impl SegmentFolder for Segments {
    fn read(&self, name: &str) -> io::Result<String> {
        match std::fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    fn append(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.0.join(name))?;
        file.write_all(text.as_bytes())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_until_it_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let folder = || Segments(state.path().to_owned());
        assert_eq!(folder().read("fine").unwrap(), "");
        folder().append("fine", "a\n").unwrap();
        folder().append("fine", "b\n").unwrap();
        assert_eq!(folder().read("fine").unwrap(), "a\nb\n");
        folder().remove("fine").unwrap();
        folder().remove("fine").unwrap();
        assert_eq!(folder().read("fine").unwrap(), "");
    }
}
