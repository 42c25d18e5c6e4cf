//! The handle of the dead-letter store: cheap to clone, safe to use from any task.
//!
//! Every call goes to the one thread that owns the files ([`super::owner`]) over a bounded queue. Long calls (a listing, an
//! export, a deep check) are many short commands, so burials never wait long behind them.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    DeadLetter, DeadLetterError, LetterFilter, LetterId,
    engine::{Outcome, Work},
    files,
    owner::{Answer, Command, Owner, Shared, Verifying},
    reading::{Found, Step, Want},
    report::{Burial, Cause, Causes, Kept, OpenReport, Page, VerifyReport},
    tally::Kind,
};
use crate::model::{ChannelId, Clock, DeathReason, Timestamp};

/// Commands that wait. With the largest usual letter, 256 KiB, they take at most 64 MiB.
const COMMANDS_WAITING_MAX: usize = 256;
/// Causes that a grouping tells apart; details come from outside, so there is no natural bound.
const CAUSES_MAX: usize = 1_000;
/// One command that takes longer is a disk that hangs.
const HANGS_AFTER: Duration = Duration::from_mins(1);
/// Ids that are removed or fetched by one command.
const IDS_MAX: usize = 4_096;

/// How the store is run.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where the names of what is set aside get their time.
    pub clock: Clock,
    /// sled's page cache.
    pub cache_bytes: u64,
    /// Burials are refused while the disk has fewer bytes free.
    pub free_bytes_min: u64,
    /// How long sled may take to open before it is given up as damaged.
    pub open_limit: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            clock: Clock::System,
            cache_bytes: 64 * 1024 * 1024,
            free_bytes_min: 32 * 1024 * 1024,
            open_limit: Duration::from_mins(1),
        }
    }
}

/// When the first and the last of a group died.
struct Times {
    oldest: Timestamp,
    newest: Timestamp,
}

/// The dead-letter store.
#[derive(Clone, Debug)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store in `dir` (`<data_dir>/dead-letters`), or makes it. Blocks: up to two seconds for a million letters,
    /// longer only when damage is mended. A full or failing disk is no error: the report says so, and the store keeps trying.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Self, OpenReport), DeadLetterError> {
        let fault = |source| DeadLetterError::Open { path: dir.to_owned(), source };
        files::make_dir(dir).map_err(fault)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(fault)?;
        match super::files::patiently(|| match lock.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => None,
            taken => Some(taken),
        }) {
            Some(Ok(())) => {}
            Some(Err(std::fs::TryLockError::Error(source))) => return Err(fault(source)),
            Some(Err(std::fs::TryLockError::WouldBlock)) | None => {
                return Err(DeadLetterError::InUse { path: dir.to_owned() });
            }
        }
        let shared = Arc::new(Shared {
            counts: Mutex::new(BTreeMap::new()),
            writable: watch::Sender::new(false),
            busy: Mutex::new(None),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(fault)?;
        let (commands, inbox) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (opened, wait) = std::sync::mpsc::sync_channel(1);
        let (path, seen) = (dir.to_owned(), Arc::clone(&shared));
        let serve = move || {
            let mut report = OpenReport::default();
            let owner = Owner::start(path, options, lock, seen, &mut report);
            opened.send(report).unwrap_or_default();
            runtime.block_on(owner.serve(inbox));
        };
        thread::Builder::new().name("dead-letters".to_owned()).spawn(serve).map_err(fault)?;
        let report = wait.recv().map_err(|_| DeadLetterError::Closed)?;
        Ok((Self { commands, shared }, report))
    }

    /// Keeps a letter. Returns when it is on the platter, with the id that it has in the store: a subject that is there
    /// already keeps its letter's id, and this letter replaces it.
    pub async fn bury(&self, letter: DeadLetter) -> Result<LetterId, DeadLetterError> {
        self.keep(letter, false).await.map(|(id, _)| id)
    }

    /// Keeps a letter of an export unless its subject or id is there; returns whether it was new.
    pub(super) async fn restore(&self, letter: DeadLetter) -> Result<bool, DeadLetterError> {
        self.keep(letter, true).await.map(|(_, fresh)| fresh)
    }

    async fn keep(&self, letter: DeadLetter, import: bool) -> Result<(LetterId, bool), DeadLetterError> {
        match self.write(Work::Bury { letter, import }).await? {
            Outcome::Buried { id, fresh } => Ok((id, fresh)),
            Outcome::Refused(error) => Err(error),
            Outcome::Removed(_) => Err(DeadLetterError::Closed),
        }
    }

    /// A letter.
    pub async fn get(&self, id: LetterId) -> Result<DeadLetter, DeadLetterError> {
        let mut kept = self.fetch(vec![id]).await?;
        kept.pop().unwrap_or(Err(DeadLetterError::NotFound { id })).map(|kept| kept.letter)
    }

    /// Letters with the burial that they are of, in the order asked for: for who wants to remove exactly what it has seen.
    pub async fn fetch(&self, ids: Vec<LetterId>) -> Result<Vec<Result<Kept, DeadLetterError>>, DeadLetterError> {
        self.ask(|answer| Command::Fetch(ids, answer)).await
    }

    /// Letters, newest first: at most `filter.limit` (or [`LetterFilter::LIMIT_DEFAULT`]), older than `after`.
    /// A page may be short when its letters are large; it is the last when `next` is none.
    pub async fn list(&self, filter: &LetterFilter, after: Option<LetterId>) -> Result<Page, DeadLetterError> {
        let limit = filter.limit.unwrap_or(LetterFilter::LIMIT_DEFAULT).min(LetterFilter::LIMIT_MAX);
        let mut page = Page::default();
        if limit == 0 {
            return Ok(page);
        }
        let (mut next, mut bytes) = (after, 0);
        loop {
            let step = self.step(next, filter, Want::Letters, limit - page.letters.len()).await?;
            page.damaged.extend(step.damaged);
            for Found { head, kept } in step.found {
                match kept {
                    Some(kept) => {
                        bytes += kept.letter.body.len();
                        page.letters.push(kept.letter);
                    }
                    None => page.damaged.push(head.id),
                }
            }
            next = step.next;
            if next.is_none() || page.letters.len() >= limit || bytes > 16 * 1024 * 1024 {
                page.next = next;
                return Ok(page);
            }
        }
    }

    /// The ids of all letters that `filter` means (at most `filter.limit`, the newest), oldest first.
    pub async fn select(&self, filter: &LetterFilter) -> Result<Vec<LetterId>, DeadLetterError> {
        Ok(self.select_seen(filter).await?.into_iter().map(|(id, _)| id).collect())
    }

    /// The same, each with the burial that is meant: one that has died again since is another.
    pub async fn select_seen(&self, filter: &LetterFilter) -> Result<Vec<(LetterId, Burial)>, DeadLetterError> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let (mut ids, mut next) = (Vec::new(), None);
        while ids.len() < limit {
            let step = self.step(next, filter, Want::Heads, limit - ids.len()).await?;
            ids.extend(step.found.iter().map(|found| (found.head.id, Burial(found.head.burial))));
            next = step.next;
            if next.is_none() {
                break;
            }
        }
        ids.reverse();
        Ok(ids)
    }

    /// How many letters `filter` means, its limit aside.
    pub async fn count(&self, filter: &LetterFilter) -> Result<u64, DeadLetterError> {
        if filter.is_counted() {
            let meant = |(reason, channel): &Kind| {
                filter.reason.is_none_or(|wanted| wanted == *reason)
                    && filter.channel.as_ref().is_none_or(|wanted| channel.as_ref() == Some(wanted))
            };
            return Ok(self.counts().iter().filter(|(kind, _)| meant(kind)).map(|(_, count)| count).sum());
        }
        let filter = LetterFilter { limit: None, ..filter.clone() };
        self.select(&filter).await.map(|ids| ids.len() as u64)
    }

    /// The letters that `filter` means by what they died of, most first. Its limit is that of the causes.
    pub async fn group_by_cause(&self, filter: &LetterFilter) -> Result<Vec<Cause>, DeadLetterError> {
        Ok(self.causes(filter).await?.causes)
    }

    /// The same, and up to which burial: exactly those that were in the store when this began.
    pub async fn causes(&self, filter: &LetterFilter) -> Result<Causes, DeadLetterError> {
        let mut groups: BTreeMap<(Kind, Box<str>), (u64, Times)> = BTreeMap::new();
        // Before the first look: a scan has many steps, and letters go on dying between them.
        let mark = self.ask(Command::Mark).await?;
        let up_to = filter.up_to.map_or(mark, |up_to| up_to.min(mark));
        let filter = LetterFilter { up_to: Some(up_to), ..filter.clone() };
        let mut next = None;
        loop {
            let step = self.step(next, &filter, Want::Heads, usize::MAX).await?;
            for Found { head, .. } in step.found {
                let died_at = head.died_at();
                let mut key = ((head.reason, head.channel), head.cause);
                if groups.len() >= CAUSES_MAX && !groups.contains_key(&key) {
                    key.1 = "(other)".into();
                }
                let (count, times) = groups.entry(key).or_insert((0, Times { oldest: died_at, newest: died_at }));
                *count += 1;
                times.oldest = died_at.min(times.oldest);
                times.newest = died_at.max(times.newest);
            }
            next = step.next;
            if next.is_none() {
                break;
            }
        }
        let mut causes: Vec<Cause> = groups
            .into_iter()
            .map(|(((reason, channel), detail), (count, Times { oldest, newest }))| Cause {
                reason,
                channel,
                detail: detail.into(),
                count,
                oldest,
                newest,
            })
            .collect();
        let count = causes.iter().map(|cause| cause.count).sum();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
        causes.truncate(filter.limit.unwrap_or(CAUSES_MAX));
        Ok(Causes { causes, count, up_to })
    }

    /// Removes letters, whatever happened to them meanwhile: a purge. Returns how many there were.
    pub async fn remove(&self, ids: Vec<LetterId>) -> Result<usize, DeadLetterError> {
        self.remove_each(ids.into_iter().map(|id| (id, None)).collect()).await
    }

    /// Removes letters that are still the burial that was seen: after a replay, which may have died again since.
    pub async fn remove_seen(&self, seen: Vec<(LetterId, Burial)>) -> Result<usize, DeadLetterError> {
        self.remove_each(seen.into_iter().map(|(id, burial)| (id, Some(burial))).collect()).await
    }

    async fn remove_each(&self, items: Vec<(LetterId, Option<Burial>)>) -> Result<usize, DeadLetterError> {
        let mut removed = 0;
        for items in items.chunks(IDS_MAX) {
            match self.write(Work::Remove(items.to_vec())).await? {
                Outcome::Removed(count) => removed += count,
                Outcome::Refused(error) => return Err(error),
                Outcome::Buried { .. } => return Err(DeadLetterError::Closed),
            }
        }
        Ok(removed)
    }

    /// How many letters there are of each reason and channel, from memory: the gauge `dead_letters{reason,channel}`. A pair
    /// that had letters since the start stays, at zero. While the store is down, what was last known.
    pub fn counts(&self) -> BTreeMap<(DeathReason, Option<ChannelId>), u64> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a letter could be buried now; for `/readyz`. Cheap, no disk is touched.
    pub fn writable(&self) -> bool {
        let busy = *self.shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *self.shared.writable.borrow() && busy.is_none_or(|since| since.elapsed() < HANGS_AFTER)
    }

    /// The same as it changes.
    pub fn watch_writable(&self) -> watch::Receiver<bool> {
        self.shared.writable.subscribe()
    }

    /// Reads every byte, mends what can be mended, and tells. Burials go on meanwhile.
    pub async fn verify(&self) -> Result<VerifyReport, DeadLetterError> {
        let mut verifying = Box::new(Verifying::default());
        for segment in self.ask(Command::VerifySegments).await? {
            let report = std::mem::take(&mut verifying.report);
            verifying.report = self.ask(|answer| Command::VerifySegment(segment, report, answer)).await?;
        }
        let mut next = None;
        loop {
            let asked = verifying;
            (next, verifying) = self.ask(|answer| Command::VerifyLetters(next, asked, answer)).await?;
            if next.is_none() {
                return Ok(verifying.report);
            }
        }
    }

    /// Finishes what was asked for, writes the checkpoint and lets go of the files. Idempotent; other handles find it closed.
    pub async fn close(&self) {
        let (told, closed) = oneshot::channel();
        if self.commands.send(Command::Close(told)).await.is_ok() {
            // An error is a thread that is gone, and the files with it.
            closed.await.unwrap_or_default();
        }
    }

    /// One step of a scan, or for a filter with ids, those.
    pub(super) async fn step(
        &self,
        before: Option<LetterId>,
        filter: &LetterFilter,
        want: Want,
        limit: usize,
    ) -> Result<Step, DeadLetterError> {
        if filter.ids.is_empty() {
            let filter = filter.clone();
            return self.ask(|answer| Command::Scan { before, filter, want, limit, answer }).await;
        }
        let mut ids = filter.ids.clone();
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        ids.dedup();
        ids.retain(|id| before.is_none_or(|before| *id < before));
        let rest = ids.split_off(ids.len().min(limit).min(64));
        let mut step = Step { next: ids.last().copied().filter(|_| !rest.is_empty()), ..Step::default() };
        for (id, kept) in ids.iter().zip(self.fetch(ids.clone()).await?) {
            match kept {
                Ok(kept) => step.found.extend(Some(Found::of(kept, want)).filter(|found| filter.matches(&found.head))),
                Err(DeadLetterError::NotFound { .. }) => {}
                Err(_) => step.damaged.push(*id),
            }
        }
        Ok(step)
    }

    async fn write(&self, work: Work) -> Result<Outcome, DeadLetterError> {
        self.ask(|answer| Command::Write(Box::new(work), answer)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, DeadLetterError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| DeadLetterError::Closed)?;
        answered.await.map_err(|_| DeadLetterError::Closed)?
    }
}
