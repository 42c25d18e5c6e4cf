//! The configuration files of the pool, which an operator edits while it runs.

use std::{fs, path::PathBuf};

use tokio::sync::RwLock;

use super::{
    journal::Journal,
    plan::{Bout, Edit},
};
use crate::support::worker::WorkerProcess;

/// What no program understands.
const FAULTY: &str = "\n[[channel]]\nid = \"coop\"\nkind = \"carrier-pigeon\"\n";

/// What an operator turns: limits, batches and times.
const CHANGES: [(&str, &str); 4] = [
    ("timeout = \"1s\"", "timeout = \"800ms\""),
    ("rate_limit = \"100/s\"\nburst = 5", "rate_limit = \"60/s\"\nburst = 2"),
    ("events = 20, wait = \"100ms\"", "events = 7, wait = \"50ms\""),
    ("concurrency = 4", "concurrency = 2"),
];

/// All files, as they are when nobody edits them.
pub(super) struct Files {
    originals: Vec<(PathBuf, String)>,
    /// One more channel, which comes and goes.
    guest: String,
    edition: RwLock<Edition>,
}

/// Which state of the files it is. Whoever starts a worker reads it for as long as that takes: a worker that finds a faulty file
/// ends, and starting it again would be all that an orchestrator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edition {
    number: u32,
    sound: bool,
}

impl Files {
    /// The files of these workers.
    pub(super) fn of(workers: &[WorkerProcess], guest: &str) -> Self {
        let original = |worker: &WorkerProcess| {
            let path = worker.config();
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        };
        let edition = RwLock::new(Edition { number: 0, sound: true });
        Self { originals: workers.iter().map(original).collect(), guest: guest.to_owned(), edition }
    }

    /// What they are now.
    pub(super) async fn edition(&self) -> Edition {
        *self.edition.read().await
    }

    /// Starts a worker as soon as its file is sound.
    pub(super) async fn start(&self, worker: &mut WorkerProcess) {
        loop {
            let edition = self.edition.read().await;
            if edition.sound {
                return worker.start().await;
            }
            drop(edition);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// An operator edits them, and takes it back.
    pub(super) async fn suffer(&self, track: &[Bout<Edit>], journal: &Journal) {
        for bout in track {
            journal.reaches(bout.at).await;
            journal.note(format!("configuration: {:?} for {:.1?}", bout.what, bout.lasts));
            self.write(Some(bout.what)).await;
            journal.reaches(bout.at + bout.lasts).await;
            self.write(None).await;
            journal.note("configuration: as it was");
        }
    }

    async fn write(&self, edit: Option<Edit>) {
        let mut edition = self.edition.write().await;
        for (path, original) in &self.originals {
            let text = match edit {
                None => original.clone(),
                Some(Edit::Changed) => {
                    CHANGES.iter().fold(original.clone(), |text, (before, after)| text.replace(before, after))
                }
                Some(Edit::Faulty) => format!("{original}{FAULTY}"),
                Some(Edit::Guest) => format!("{original}{}", self.guest),
            };
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, path).unwrap();
        }
        *edition = Edition { number: edition.number + 1, sound: edit != Some(Edit::Faulty) };
    }
}
