//! Bodies too large for a record: one file each, written and synced before the record that names it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{files, record::BlobRef};

/// The directory of large bodies.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        files::make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Writes `body` under `number`, which no other blob has. The entry lasts after [`Self::sync`].
    pub(super) fn write(&self, number: u64, body: &[u8]) -> io::Result<BlobRef> {
        let path = self.path(number);
        // An attempt that failed halfway and could not clean up leaves a file that nobody refers to.
        if path.try_exists()? {
            fs::remove_file(&path)?;
        }
        let written = files::create(&path).and_then(|mut file| {
            file.write_all(body)?;
            file.sync_all()
        });
        if let Err(error) = written {
            self.remove(number);
            return Err(error);
        }
        Ok(BlobRef { number, bytes: u32::try_from(body.len()).unwrap_or(u32::MAX), crc: crc32c::crc32c(body) })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        files::sync_dir(&self.dir)
    }

    /// The body, if it is there and whole.
    pub(super) fn read(&self, blob: BlobRef) -> Option<Bytes> {
        let path = self.path(blob.number);
        // A file that grew is not read whole to find that out.
        if fs::metadata(&path).ok()?.len() != u64::from(blob.bytes) {
            return None;
        }
        let body = fs::read(path).ok()?;
        (crc32c::crc32c(&body) == blob.crc).then(|| body.into())
    }

    /// Removes a body that nothing refers to any more. One that stays by accident is harmless and counted by `verify`.
    pub(super) fn remove(&self, number: u64) {
        if let Err(error) = fs::remove_file(self.path(number))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, number, "could not remove a dead letter's body");
        }
    }

    /// The numbers of all files there are.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Some(number) = number_of(&entry?.path()) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.body"))
    }
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".body")?;
    u64::from_str_radix(name, 16).ok()
}
