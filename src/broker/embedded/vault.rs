//! A sled database that can be trusted with what was promised.
//!
//! sled 0.34.7 is the last stable one, and needs help (measured; `shared/reference/broker.md`, section 7):
//! - its `flush` syncs nothing to the platter on Linux, so a commit also syncs the file through a descriptor of ours;
//! - its `flush_async` deadlocks under load, so there is one owner, who commits in batches;
//! - damage makes `open` panic, fail or hang, so it is read through once when it is opened, on its owner's thread, for which
//!   nobody waits longer than [`OPEN_LIMIT`]. On that thread and no other: what is read stays in sled's cache, and memory that one
//!   thread has filled is not used again by another, so reading on a second one would take all of it twice;
//! - damage may also make it forget everything after some point, without a word, so each commit counts itself, and a small file
//!   beside it, the tide mark, remembers a count that was on the platter: less than that is damage;
//! - after a full disk a handle is poisoned for good, and even dropping it may hang, with its lock held. So nothing is written
//!   unless there is ample room, and a handle that failed all the same is dropped on a thread of its own.
//!
//! A damaged database is never deleted: it is renamed, rebuilt from a copy without its snapshots where that helps, and begun
//! anew where it does not.

use std::{
    fs::{DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::Timestamp;

/// What sled may keep in memory, in bytes.
const CACHE_BYTES: u64 = 64 << 20;

/// The longest that opening may take, reading it all included: a million records of 1 KB take two seconds.
pub(super) const OPEN_LIMIT: Duration = Duration::from_mins(5);

/// What must be free on the disk besides twice what is to be written, in bytes: sled writes segments ahead of their content.
const ROOM_BYTES: u64 = 16 << 20;

/// An open database.
#[derive(Debug)]
pub(crate) struct Vault {
    db: sled::Db,
    /// The file that sled writes to; syncing it is up to us.
    file: File,
    /// Where the tide mark is.
    tide: PathBuf,
    /// How many commits there were.
    commits: u64,
    /// When the tide mark was last written.
    marked: Option<Instant>,
}

/// The key of the count of commits.
const COMMITS: &[u8] = b"\0commits";

/// How old the tide mark may grow.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Why a database could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// Another process has it.
    #[error("`{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The disk said no.
    #[error("could not use `{}`", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The disk has too little room. Nothing was written, and the handle is still good.
    #[error("the disk of `{}` has less than {} MiB left", .dir.display(), ROOM_BYTES >> 20)]
    Full {
        /// The directory.
        dir: PathBuf,
    },
    /// It is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
}

/// What opening found.
pub(crate) struct Opened {
    /// The database.
    pub(crate) vault: Vault,
    /// Where a damaged database was put.
    pub(crate) quarantined: Option<PathBuf>,
}

impl Vault {
    /// Opens the database in `dir`, or makes it. A damaged one is set aside under a name that holds `now`.
    pub(crate) fn open(dir: &Path, now: Timestamp) -> Result<Opened, VaultError> {
        // Decisions are nobody else's business: for its owner only, also where an earlier version made it for everybody.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let closed = made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)));
        closed.map_err(|error| VaultError::Io(dir.to_owned(), error))?;
        match Self::open_patiently(dir) {
            Ok(vault) => Ok(Opened { vault, quarantined: None }),
            Err(VaultError::Damaged(why)) => {
                let io = |error| VaultError::Io(dir.to_owned(), error);
                let aside = set_aside(dir, now).map_err(io)?;
                tracing::error!(
                    dir = %dir.display(), aside = %aside.display(), why,
                    "the database is damaged and was set aside; keep it, it may hold what was not delivered"
                );
                // Users of sled report that a database with bad snapshots comes back from its log alone.
                let saved = copy_without_snapshots(&aside, dir).map_err(io).and_then(|()| Self::try_open(dir));
                match saved {
                    Ok(vault) => Ok(Opened { vault, quarantined: Some(aside) }),
                    Err(error) => {
                        tracing::error!(dir = %dir.display(), %error, "nothing of it could be saved, a new one is begun");
                        std::fs::remove_dir_all(dir).map_err(io)?;
                        let vault = Self::try_open(dir)?;
                        Ok(Opened { vault, quarantined: Some(aside) })
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A lock outlives its owner for a moment: a worker that was killed is still being taken apart when the next one starts.
    fn open_patiently(dir: &Path) -> Result<Self, VaultError> {
        for _ in 0..80 {
            match Self::try_open(dir) {
                Err(VaultError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(25)),
                outcome => return outcome,
            }
        }
        Self::try_open(dir)
    }

    fn try_open(dir: &Path) -> Result<Self, VaultError> {
        let io = |error| VaultError::Io(dir.to_owned(), error);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            // Damage in the middle shows only when it is read.
            for record in db.iter() {
                record?;
            }
            Ok(db)
        }));
        let db = match opened {
            Ok(db) => db.map_err(|error| sort(dir, error))?,
            Err(_) => return Err(VaultError::Damaged("opening it panicked".into())),
        };
        // The names of the files are data too, once.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        let file = File::open(dir.join("db")).map_err(io)?;
        let tide = dir.join("tide");
        let commits = number(db.get(COMMITS).map_err(|error| sort(dir, error))?.as_deref());
        let marked = number(std::fs::read(&tide).ok().as_deref());
        if commits < marked {
            return Err(VaultError::Damaged(format!("it holds {commits} commits of at least {marked}")));
        }
        Ok(Self { db, file, tide, commits, marked: None })
    }

    /// Reads.
    pub(crate) fn db(&self) -> &sled::Db {
        &self.db
    }

    /// Refuses when the disk of `dir` has too little room to write about `bytes`.
    pub(crate) fn room(dir: &Path, bytes: usize) -> Result<(), VaultError> {
        let free = rustix::fs::statvfs(dir).map_err(|error| VaultError::Io(dir.to_owned(), error.into()))?;
        if free.f_bavail.saturating_mul(free.f_frsize) < ROOM_BYTES + 2 * bytes as u64 {
            return Err(VaultError::Full { dir: dir.to_owned() });
        }
        Ok(())
    }

    /// Drops a handle that failed, without waiting for it: it may hang until the process ends.
    pub(crate) fn abandon(self) {
        drop(std::thread::Builder::new().name("sled-abandoned".into()).spawn(move || drop(self)));
    }

    /// Applies a batch, all or nothing, and returns when it is on the platter; see to it that there is [`Self::room`] first.
    /// After an error the handle is of no use: [`Self::abandon`] it and open again. Whether the batch is there is unknown.
    pub(crate) fn commit(&mut self, mut batch: sled::Batch) -> Result<(), VaultError> {
        batch.insert(COMMITS, &(self.commits + 1).to_be_bytes());
        Self::guard(|| {
            self.db.apply_batch(batch)?;
            self.db.flush().map(drop)
        })?;
        self.file.sync_data().map_err(|error| VaultError::Io(PathBuf::from("db"), error))?;
        self.commits += 1;
        if self.marked.is_none_or(|marked| marked.elapsed() >= MARK_EVERY) {
            self.mark();
        }
        Ok(())
    }

    /// Writes the tide mark: after the sync, so that it never promises more than there is.
    fn mark(&mut self) {
        self.marked = Some(Instant::now());
        if let Err(error) = std::fs::write(&self.tide, self.commits.to_be_bytes()) {
            // An old or empty mark only notices less.
            tracing::debug!(%error, "the tide mark was not written");
        }
    }

    /// Applies a batch that may be lost in a crash; a later [`Self::commit`] makes it last.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), VaultError> {
        Self::guard(|| self.db.apply_batch(batch))
    }

    fn guard<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, VaultError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(outcome) => outcome.map_err(|error| sort(Path::new("db"), error)),
            Err(_) => Err(VaultError::Damaged("writing to it panicked".into())),
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.mark();
    }
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Tells sled's errors apart by what to do about them.
fn sort(dir: &Path, error: sled::Error) -> VaultError {
    match error {
        // sled has no kind for it: it wraps the refusal of `flock` in a text of its own.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            VaultError::Locked(dir.to_owned())
        }
        sled::Error::Io(error) => VaultError::Io(dir.to_owned(), error),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => VaultError::Damaged(error.to_string()),
    }
}

fn set_aside(dir: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".corrupt-{}", now.unix_millis()));
    let aside = PathBuf::from(name);
    std::fs::rename(dir, &aside)?;
    Ok(aside)
}

/// Copies all but the snapshots, and the tide mark, which a rescue cannot be held to.
fn copy_without_snapshots(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            copy_without_snapshots(&entry.path(), &to.join(name))?;
        } else if !name.to_string_lossy().starts_with("snap.") && name != "tide" {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &str, value: &str) -> sled::Batch {
        let mut batch = sled::Batch::default();
        batch.insert(key, value);
        batch
    }

    #[test]
    fn a_second_owner_is_told_that_the_database_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let first = Vault::open(dir.path(), Timestamp::UNIX_EPOCH).unwrap();
        let second = Vault::open(dir.path(), Timestamp::UNIX_EPOCH).err().unwrap();
        assert!(matches!(second, VaultError::Locked(_)), "{second:?}");
        drop(first);
        assert!(Vault::open(dir.path(), Timestamp::UNIX_EPOCH).unwrap().quarantined.is_none());
    }

    #[test]
    fn a_damaged_database_is_set_aside_and_a_usable_one_takes_its_place() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let mut vault = Vault::open(&dir, Timestamp::UNIX_EPOCH).unwrap().vault;
        for n in 0..200 {
            vault.commit(batch(&format!("key {n}"), &"v".repeat(1000))).unwrap();
        }
        drop(vault);
        let file = dir.join("db");
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle..middle + 4096].fill(0xA5);
        std::fs::write(&file, bytes).unwrap();

        let mut opened = Vault::open(&dir, Timestamp::from_unix_millis(7)).unwrap();
        let aside = opened.quarantined.expect("the damage is noticed, although sled may keep silent about it");
        assert_eq!(aside, root.path().join("store.corrupt-7"));
        assert!(aside.join("db").exists(), "the damaged database was deleted");
        opened.vault.commit(batch("new", "value")).unwrap();
        assert_eq!(opened.vault.db().get("new").unwrap().unwrap(), "value");
    }

    #[test]
    fn an_empty_snapshot_costs_no_record() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let mut vault = Vault::open(&dir, Timestamp::UNIX_EPOCH).unwrap().vault;
        vault.commit(batch("key", "value")).unwrap();
        drop(vault);
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                std::fs::write(path, "").unwrap();
            }
        }
        let opened = Vault::open(&dir, Timestamp::from_unix_millis(7)).unwrap();
        assert_eq!(opened.vault.db().get("key").unwrap().unwrap(), "value");
    }
}
