//! The index: sled, and everything that sled 0.34.7 needs around it (measured: `shared/reference/broker.md`, section 7).
//!
//! - It panics over damaged files, at open and later: every call runs inside `catch_unwind`, and opening and closing happen
//!   on a helper thread with a time limit.
//! - `flush` does not sync: our own descriptor of its file does, after each.
//! - `flush_async` deadlocks: it is not used; nor is the background flusher.
//! - A handle that met a full disk is poisoned for good: the owner drops it and opens again.
//!
//! A letter's value is `version | crc32c | place in the journal | record`, so a flipped bit that sled's own checksums miss is
//! found when it is read, and the journal answers instead.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use sled::IVec;
use uuid::Uuid;

use super::{LetterId, error::Fault, journal::Place, record::Put};

const VERSION: u8 = 1;
const APPLIED: &[u8] = b"applied";
/// Version, checksum, place (segment, offset, bytes), first segment.
const VALUE_HEAD: usize = 1 + 4 + 8 + 8 + 4 + 8;

/// Why the index did not open.
#[derive(Debug)]
pub(super) enum OpenFault {
    InUse,
    Fault(Fault),
}

/// A letter as the index keeps it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// The oldest segment that may hold a record of this letter.
    pub(super) first: u64,
    /// The record, as in the journal.
    pub(super) record: Bytes,
}

/// One change of the index.
#[derive(Debug)]
pub(super) enum Change {
    Put { place: Place, first: u64, id: LetterId, subject: Uuid, record: Vec<u8> },
    Remove { id: LetterId, subject: Option<Uuid> },
}

/// The sled store.
#[derive(Debug)]
pub(super) struct Index {
    db: sled::Db,
    letters: sled::Tree,
    subjects: sled::Tree,
    /// For the sync that sled does not do.
    file: File,
}

impl Index {
    /// Opens the store at `dir` or makes it.
    pub(super) fn open(dir: &Path, cache_bytes: u64, limit: Duration) -> Result<Self, OpenFault> {
        let path = dir.to_owned();
        let opened = on_helper(limit, move || open_here(&path, cache_bytes));
        match opened {
            Some(result) => result,
            None => {
                Err(OpenFault::Fault(Fault::Index { why: format!("it did not open within {} s", limit.as_secs()) }))
            }
        }
    }

    /// Closes it; `false` when sled did not let go in time, and its lock with it.
    pub(super) fn close(self, limit: Duration) -> bool {
        on_helper(limit, move || drop(self)).is_some()
    }

    /// The number of the last record that is in the index.
    pub(super) fn applied(&self) -> Result<u64, Fault> {
        let value = guard(|| self.db.get(APPLIED))?;
        Ok(value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// A letter. `Some(Err)`: it is there, and damaged.
    pub(super) fn get(&self, id: LetterId) -> Result<Option<Result<Entry, Damaged>>, Fault> {
        Ok(guard(|| self.letters.get(id.0.as_bytes()))?.map(|value| Entry::decode(&value)))
    }

    /// The letter that stands for `subject`.
    pub(super) fn of_subject(&self, subject: Uuid) -> Result<Option<LetterId>, Fault> {
        let value = guard(|| self.subjects.get(subject.as_bytes()))?;
        Ok(value.and_then(|value| Uuid::from_slice(&value).ok()).map(LetterId))
    }

    /// Makes changes; they last after [`Self::sync`]. Trees are changed in an order that makes doing it again harmless.
    /// With `applied`, the index also remembers that it has every record up to that number.
    pub(super) fn apply(&self, changes: &[Change], applied: Option<u64>) -> Result<(), Fault> {
        let (mut letters, mut subjects) = (sled::Batch::default(), sled::Batch::default());
        for change in changes {
            match change {
                Change::Put { place, first, id, subject, record } => {
                    letters.insert(id.0.as_bytes(), encode(*place, *first, record));
                    subjects.insert(subject.as_bytes(), id.0.as_bytes());
                }
                Change::Remove { id, subject } => {
                    letters.remove(id.0.as_bytes());
                    if let Some(subject) = subject {
                        subjects.remove(subject.as_bytes());
                    }
                }
            }
        }
        guard(|| {
            self.letters.apply_batch(letters)?;
            self.subjects.apply_batch(subjects)?;
            match applied {
                Some(seq) => self.db.insert(APPLIED, &seq.to_be_bytes()).map(drop),
                None => Ok(()),
            }
        })
    }

    /// Makes all changes so far durable.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        guard(|| self.db.flush().map(drop))?;
        self.file.sync_data().map_err(Fault::disk("sync the dead-letter index"))
    }

    /// Visits letters from the newest before `before` on, until `visit` says stop; returns whether the end was reached.
    pub(super) fn visit(
        &self,
        before: Option<LetterId>,
        mut visit: impl FnMut(LetterId, Result<Entry, Damaged>) -> Go,
    ) -> Result<bool, Fault> {
        guard(|| {
            let range = match before {
                Some(before) => self.letters.range(..*before.0.as_bytes()),
                None => self.letters.range::<[u8; 16], _>(..),
            };
            for item in range.rev() {
                let (key, value) = item?;
                let Ok(id) = Uuid::from_slice(&key) else { continue };
                if visit(LetterId(id), Entry::decode(&value)) == Go::Stop {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

/// Whether a visit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Stop,
}

/// A value whose checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Entry {
    /// The letter's record, parsed; the checksum vouches for it.
    pub(super) fn put(&self) -> Option<Put> {
        Put::decode(&self.record)
    }

    fn decode(value: &IVec) -> Result<Self, Damaged> {
        let (head, record) = value.split_at_checked(VALUE_HEAD).ok_or(Damaged)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[5..]), record);
        if head[0] != VERSION || head[1..5] != crc.to_be_bytes() {
            return Err(Damaged);
        }
        let number = |at: usize| head[at..at + 8].try_into().map(u64::from_be_bytes).map_err(|_| Damaged);
        let bytes = head[21..25].try_into().map(u32::from_be_bytes).map_err(|_| Damaged)?;
        Ok(Self {
            place: Place { segment: number(5)?, offset: number(13)?, bytes },
            first: number(25)?,
            record: Bytes::copy_from_slice(record),
        })
    }
}

fn encode(place: Place, first: u64, record: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_HEAD + record.len());
    value.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    value.extend_from_slice(&place.segment.to_be_bytes());
    value.extend_from_slice(&place.offset.to_be_bytes());
    value.extend_from_slice(&place.bytes.to_be_bytes());
    value.extend_from_slice(&first.to_be_bytes());
    value.extend_from_slice(record);
    let crc = crc32c::crc32c(&value[5..]);
    value[1..5].copy_from_slice(&crc.to_be_bytes());
    value
}

fn open_here(dir: &Path, cache_bytes: u64) -> Result<Index, OpenFault> {
    let open = || {
        let db = sled::Config::new()
            .path(dir)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .open()?;
        let (letters, subjects) = (db.open_tree("letters")?, db.open_tree("subjects")?);
        Ok((db, letters, subjects))
    };
    let opened = super::files::patiently(|| match guard(open) {
        // sled has no error of its own for this.
        Err(Fault::Index { why }) if why.contains("could not acquire lock") => None,
        opened => Some(opened),
    });
    let (db, letters, subjects) = opened.ok_or(OpenFault::InUse)?.map_err(OpenFault::Fault)?;
    let file = File::open(dir.join("db"))
        .and_then(|file| {
            file.sync_all()?;
            super::files::sync_dir(dir)?;
            Ok(file)
        })
        .map_err(|source| OpenFault::Fault(Fault::Disk { what: "sync the dead-letter index", source }))?;
    Ok(Index { db, letters, subjects, file })
}

/// Runs `call`, with a panic of sled as a fault.
fn guard<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if is_of_the_system(&source) => {
            Err(Fault::Disk { what: "use the dead-letter index", source })
        }
        Ok(Err(error)) => Err(Fault::Index { why: error.to_string() }),
        Err(panic) => Err(Fault::Index { why: format!("sled panicked: {}", words_of(&*panic)) }),
    }
}

/// An error of the operating system, not one that sled made from damaged bytes.
fn is_of_the_system(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || super::error::is_full(error)
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}

/// Runs `work` on its own thread; `None` when it is not done in time. The thread is then left alone: it cannot be stopped.
fn on_helper<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, wait) = mpsc::sync_channel(1);
    let helper = thread::Builder::new().name("dead-letter-index".to_owned()).spawn(move || {
        // Nobody waits for a helper that is late.
        done.send(work()).unwrap_or_default();
    });
    helper.ok()?;
    wait.recv_timeout(limit).ok()
}

/// The directory of the index inside the store.
pub(super) fn dir_in(store: &Path) -> PathBuf {
    store.join("index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_anywhere_in_a_value_is_found() {
        let place = Place { segment: 1, offset: 2, bytes: 3 };
        let value = encode(place, 1, b"the record");
        assert_eq!(Entry::decode(&value.as_slice().into()).unwrap().place, place);
        for at in 0..value.len() {
            let mut flipped = value.clone();
            flipped[at] ^= 0x40;
            assert_eq!(Entry::decode(&flipped.into()).map(drop), Err(Damaged), "flip at {at}");
        }
    }

    #[test]
    fn a_panic_of_sled_is_a_fault_and_not_the_end_of_the_thread() {
        let fault = guard::<()>(|| panic!("bad page")).unwrap_err();
        assert!(matches!(fault, Fault::Index { why } if why.contains("bad page")));
    }
}
