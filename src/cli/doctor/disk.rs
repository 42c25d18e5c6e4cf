//! The data directory, the dead-letter store and the embedded broker in it.
//!
//! A store that is there is opened, because only that shows whether it is whole, but never by another user than its own: whatever
//! is written meanwhile would belong to the wrong one.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::Access;

use super::Finding;
use crate::{
    app,
    config::{BrokerPlan, Plan},
    dead_letters::{DeadLetterError, Store, StoreOptions},
    model::Clock,
    settings::units::show_size,
};

/// With less free space than this, a bad day at one endpoint fills the disk: a million dead letters take about 1 GB.
const FREE_BYTES_WANTED: u64 = 1024 * 1024 * 1024;

/// What was found on the disk.
pub(super) struct Disk {
    pub(super) findings: Vec<Finding>,
    /// Whether a running worker has the directory.
    pub(super) in_use: bool,
}

/// Looks at the data directory and at the dead-letter store.
pub(super) fn look(plan: &Plan, clock: Clock) -> Disk {
    let mut findings = vec![directory(&plan.data_dir)];
    findings.extend(space(&plan.data_dir));
    let (store, in_use) = store(plan, clock);
    findings.push(store);
    Disk { findings, in_use }
}

fn directory(dir: &Path) -> Finding {
    let (part, shown) = ("data_dir", dir.display());
    if dir.exists() && !dir.is_dir() {
        return Finding::ill(part, format!("{shown} is no directory")).hint("point `data_dir` at a directory");
    }
    let exists = dir.exists();
    let there = existing(dir);
    if rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let hint = "make it and give it to the worker's user, or run doctor as that user";
        return if exists {
            Finding::ill(part, format!("{shown} cannot be written by this user")).hint(hint)
        } else {
            let why = format!("{} cannot be written by this user", there.display());
            Finding::ill(part, format!("{shown} is not there and cannot be made")).because(why).hint(hint)
        };
    }
    if let Some(owner) = other_owner(dir) {
        let hint = "run doctor as the worker's user";
        let why = "a worker that runs as this user would leave files that the other one cannot write";
        return Finding::doubtful(part, format!("{shown} belongs to user {owner}, not to this one"))
            .because(why)
            .hint(hint);
    }
    let says = if exists { "can be written" } else { "is not there yet; the worker makes it" };
    Finding::well(part, format!("{shown} {says}"))
}

/// The directory, or the nearest one above it that is there.
fn existing(dir: &Path) -> &Path {
    // A relative path has nothing above its first part but the current directory.
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."))
}

/// The user whom `path` belongs to, where that is not this one.
fn other_owner(path: &Path) -> Option<u32> {
    let owner = std::fs::metadata(path).ok()?.uid();
    // This process belongs to whoever runs it.
    let us = std::fs::metadata("/proc/self").ok()?.uid();
    (owner != us).then_some(owner)
}

/// Free space, where the system tells it.
fn space(dir: &Path) -> Option<Finding> {
    let part = "disk space";
    let stat = rustix::fs::statvfs(existing(dir)).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let says = format!("{} free for {}", show_round(free), dir.display());
    let gate = StoreOptions::default().free_bytes_min;
    Some(if free < gate {
        let why =
            format!("with less than {} the store takes no dead letters; they wait on the broker", show_size(gate));
        Finding::ill(part, says).because(why).hint("free space on the disk of `data_dir`, or point it at another disk")
    } else if free < FREE_BYTES_WANTED {
        let why = "when an endpoint is broken for long, dead letters take 1 KB or more each";
        Finding::doubtful(part, says).because(why).hint("give the disk of `data_dir` some gigabytes")
    } else {
        Finding::well(part, says)
    })
}

/// A size as people say it: `3.2 GB`.
fn show_round(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000_000 => (1_000, "KB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// The store, and whether a running worker has it.
fn store(plan: &Plan, clock: Clock) -> (Finding, bool) {
    let dir = plan.data_dir.join(app::DEAD_LETTERS_DIR);
    let part = "dead letters";
    if !dir.exists() {
        return (Finding::well(part, "there is no store yet; the worker makes it"), false);
    }
    if let Some(owner) = other_owner(&dir) {
        let says = format!("{} was not opened: it belongs to user {owner}", dir.display());
        return (Finding::doubtful(part, says).hint("run doctor as the worker's user"), false);
    }
    match Store::open(&dir, StoreOptions { clock, ..StoreOptions::default() }) {
        Ok((_, report)) if report.down.is_some() => {
            let finding = Finding::ill(part, "the store cannot be opened").because(report.down.unwrap_or_default());
            (finding.hint("look at the disk of `data_dir`: is it full, read-only, or failing?"), false)
        }
        Ok((_, report)) if !report.incidents.is_empty() => {
            let says = format!("{} dead letters; damage was found", report.letters);
            let finding = Finding::doubtful(part, says).because(report.incidents.join("; "));
            (finding.hint("run `interven-alerts dead-letters verify`, and look at the disk"), false)
        }
        Ok((_, report)) if report.letters > 0 => {
            let says = format!("{} could not be delivered", report.letters);
            (Finding::doubtful(part, says).hint("run `interven-alerts dead-letters list --by-cause`"), false)
        }
        Ok(_) => (Finding::well(part, "there are none"), false),
        Err(DeadLetterError::InUse { .. }) => {
            (Finding::well(part, "a running worker has the store: ask it with `dead-letters list --server URL`"), true)
        }
        Err(error) => {
            let causes = crate::cli::Failure::of(&error).causes.join(": ");
            (Finding::ill(part, error.to_string()).because(causes).hint(error.hint()), false)
        }
    }
}

/// What can be said of the embedded broker without opening it; `None` where it is another broker, or can be opened.
pub(super) fn embedded(plan: &Plan, in_use: bool) -> Option<Finding> {
    let BrokerPlan::Embedded { .. } = &plan.broker else { return None };
    let dir = plan.data_dir.join(app::BROKER_DIR);
    if in_use {
        return Some(Finding::well("broker", "embedded; the running worker has it"));
    }
    if !dir.exists() {
        return Some(Finding::well("broker", "embedded; it is not there yet, the worker makes it"));
    }
    let owner = other_owner(&dir)?;
    let says = format!("embedded; it was not opened: it belongs to user {owner}");
    Some(Finding::doubtful("broker", says).hint("run doctor as the worker's user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        let cases = [(0, "0.0 KB"), (999, "0.9 KB"), (32_500_000, "32.5 MB"), (3_260_000_000, "3.2 GB")];
        assert_eq!(cases.map(|(bytes, _)| show_round(bytes)), cases.map(|(_, shown)| shown));
    }

    #[test]
    fn the_nearest_directory_that_is_there_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")), dir.path());
        assert_eq!(existing(Path::new("surely-not-there/b")), Path::new("."));
    }
}
