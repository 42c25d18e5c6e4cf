//! The few things that every durable file needs: to be private, and to be in its directory after a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::model::Timestamp;

/// Makes `dir` and its parents, readable by this user alone: letters hold what decisions hold.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Makes a new or renamed entry of `dir` last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a file that must not exist yet.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
}

/// Replaces `path` whole: after a crash it holds the old bytes or the new ones.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Renames what is damaged to `<name>.<why>-<time>`, beside where it was, and returns its new name. Never overwrites.
pub(super) fn set_aside(path: &Path, why: &str, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.to_rfc3339_millis().replace([':', '-', '.'], "");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut aside = path.with_file_name(format!("{name}.{why}-{stamp}"));
    let mut again = 1;
    while aside.try_exists()? {
        aside = path.with_file_name(format!("{name}.{why}-{stamp}-{again}"));
        again += 1;
    }
    fs::rename(path, &aside)?;
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(aside)
}

/// Tries something that another process may be holding, again and again for two seconds. A lock outlives its owner for a moment:
/// a worker that was killed is still being taken apart when the next one starts, and a child that was just forked holds every
/// lock of its parent until it begins to be another program.
pub(super) fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..80 {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    look()
}
