//! The checkpoint: the counts at a place in the journal, so that opening reads only what came after it.
//!
//! A small file, replaced whole: a checksum in hexadecimal, a line break, JSON. A missing or damaged one costs time, never a
//! letter: everything in it can be counted again.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{files, tally::Tally};

/// What was true at a place in the journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The number of the last record that is counted in.
    pub(super) seq: u64,
    /// The segment and offset where the next record goes.
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) tally: Tally,
}

impl Checkpoint {
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        files::replace(path, format!("{:08x}\n{json}", crc32c::crc32c(json.as_bytes())).as_bytes())
    }

    /// The checkpoint, if there is a whole one.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let whole = || {
            let (crc, json) = bytes.split_at_checked(9)?;
            let expected = format!("{:08x}\n", crc32c::crc32c(json));
            (crc == expected.as_bytes()).then(|| serde_json::from_slice(json).ok()).flatten()
        };
        Ok(whole())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_with_one_flipped_bit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        assert_eq!(Checkpoint::read(&path).unwrap(), None);
        let checkpoint = Checkpoint { seq: 9, segment: 2, offset: 77, tally: Tally::default() };
        checkpoint.write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), Some(checkpoint));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            fs::write(&path, flipped).unwrap();
            assert_eq!(Checkpoint::read(&path).unwrap(), None, "flip at {at}");
        }
    }
}
