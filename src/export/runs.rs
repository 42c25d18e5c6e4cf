//! Sorted runs on disk: what did not fit into memory, in files that have no name.
//!
//! A file that was unlinked when it was made goes away with its handle: after a crash, a panic or a kill nothing is left behind.
//! They lie beside the worker's own data and never in `/tmp`, which may be memory, and they leave room on the disk: an export
//! must not be what stops the dead-letter store.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::chunk::{Moment, Row};

/// Bytes that are read or written at once, per run.
const BUFFER_BYTES: usize = 64 << 10;

/// Seconds, nanoseconds, length of the id, length of the body.
const HEAD_BYTES: usize = 8 + 4 + 2 + 4;

/// Where runs lie, and what they must leave free.
#[derive(Clone, Debug)]
pub struct Spill {
    /// The directories, of which the first that works is taken.
    pub dirs: Vec<PathBuf>,
    /// What stays free on the disk, in bytes.
    pub leave_free: u64,
}

impl Spill {
    /// Runs in the first of these directories that works.
    pub fn to(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, leave_free: 64 << 20 }
    }
}

/// Why what does not fit into memory could not be kept on disk.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// There would be too little room left.
    #[error("the disk of `{}` has {} MiB left, too few for what does not fit into memory", .dir.display(), .left >> 20)]
    Full {
        /// The directory.
        dir: PathBuf,
        /// What is free, in bytes.
        left: u64,
    },
    /// The system said no.
    #[error("could not use a temporary file in `{}`", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// A sorted run, whole.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    dir: PathBuf,
    rows: u64,
    pub(super) bytes: u64,
}

/// A run that is being written.
#[derive(Debug)]
pub(super) struct RunWriter {
    file: BufWriter<File>,
    dir: PathBuf,
    rows: u64,
    bytes: u64,
}

/// A run that is being read.
#[derive(Debug)]
pub(super) struct RunReader {
    file: BufReader<File>,
    dir: PathBuf,
    rows_left: u64,
}

fn failed(dir: &Path, source: io::Error) -> SpillError {
    SpillError::Io { dir: dir.to_owned(), source }
}

/// A file of no name in `dir`, where `bytes` more leave enough room.
fn file_in(dir: &Path, bytes: u64, leave_free: u64) -> Result<File, SpillError> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| failed(dir, error.into()))?;
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    if left < bytes.saturating_add(leave_free) {
        return Err(SpillError::Full { dir: dir.to_owned(), left });
    }
    tempfile::tempfile_in(dir).map_err(|error| failed(dir, error))
}

impl RunWriter {
    /// A run of about `bytes`.
    pub(super) fn new(spill: &Spill, bytes: u64) -> Result<Self, SpillError> {
        let mut trouble = None;
        for dir in &spill.dirs {
            match file_in(dir, bytes, spill.leave_free) {
                Ok(file) => {
                    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                    return Ok(Self { file, dir: dir.clone(), rows: 0, bytes: 0 });
                }
                // The first one is where it should have been.
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        Err(trouble.unwrap_or_else(|| failed(Path::new(""), io::ErrorKind::NotFound.into())))
    }

    pub(super) fn put(&mut self, row: &Row<'_>) -> Result<(), SpillError> {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&row.moment.seconds.to_le_bytes());
        head[8..12].copy_from_slice(&row.moment.nanos.to_le_bytes());
        let id_bytes = u16::try_from(row.id.len()).expect("it was in a chunk");
        head[12..14].copy_from_slice(&id_bytes.to_le_bytes());
        let body_bytes = u32::try_from(row.body.len()).expect("it was in a chunk");
        head[14..].copy_from_slice(&body_bytes.to_le_bytes());
        let mut put = || {
            self.file.write_all(&head)?;
            self.file.write_all(row.id)?;
            self.file.write_all(row.body)
        };
        put().map_err(|error| failed(&self.dir, error))?;
        self.rows += 1;
        self.bytes += (HEAD_BYTES + row.id.len() + row.body.len()) as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Run, SpillError> {
        let Self { file, dir, rows, bytes } = self;
        let rewound = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut file| {
            file.rewind()?;
            Ok(file)
        });
        match rewound {
            Ok(file) => Ok(Run { file, dir, rows, bytes }),
            Err(error) => Err(failed(&dir, error)),
        }
    }
}

impl Run {
    pub(super) fn open(self) -> RunReader {
        let file = BufReader::with_capacity(BUFFER_BYTES, self.file);
        RunReader { file, dir: self.dir, rows_left: self.rows }
    }
}

impl RunReader {
    /// Reads the next decision into what is given; `None` at the end.
    pub(super) fn next(&mut self, id: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<Moment>, SpillError> {
        if self.rows_left == 0 {
            return Ok(None);
        }
        self.rows_left -= 1;
        let mut read = || {
            let mut head = [0; HEAD_BYTES];
            self.file.read_exact(&mut head)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, i0, i1, b0, b1, b2, b3] = head;
            id.resize(usize::from(u16::from_le_bytes([i0, i1])), 0);
            body.resize(u32::from_le_bytes([b0, b1, b2, b3]) as usize, 0);
            self.file.read_exact(id)?;
            self.file.read_exact(body)?;
            let seconds = i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            Ok(Some(Moment { seconds, nanos: u32::from_le_bytes([n0, n1, n2, n3]) }))
        };
        read().map_err(|error| failed(&self.dir, error))
    }
}
