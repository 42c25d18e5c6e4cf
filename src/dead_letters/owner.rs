//! The owner: the one thread that touches the files, and what it does when it cannot.
//!
//! Commands arrive on a bounded queue; burials and removals that wait together are written together, so one sync serves many
//! callers. After a fault the engine is dropped whole (a sled handle that met a full disk never recovers) and opened again,
//! at once when the index was damaged, else after a pause that grows. Meanwhile every command is answered with an error, so
//! that the keeper can put letters into the broker's dead queue instead.
//!
//! A disk that is nearly full is not a fault: burials are refused before sled could be hurt, while listing, replaying and
//! purging go on.

use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    DeadLetterError, LetterFilter, LetterId,
    engine::{Engine, Outcome, Work},
    error::Fault,
    reading::{Step, Want},
    recovery,
    report::{Kept, OpenReport, VerifyReport},
    store::StoreOptions,
    tally::Kind,
};

/// Commands that are taken off the queue at once.
const COMMANDS_MAX: usize = 256;
/// The wait before the first and the longest before every later try to open again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(15);
/// How often a disk that was full is looked at again.
const ROOM_CHECK: Duration = Duration::from_millis(500);
/// How long sled may take to let go of its files.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The answer's way back.
pub(super) type Answer<T> = oneshot::Sender<Result<T, DeadLetterError>>;

/// What the handle asks of the owner.
#[derive(Debug)]
pub(super) enum Command {
    Write(Box<Work>, Answer<Outcome>),
    Fetch(Vec<LetterId>, Answer<Vec<Result<Kept, DeadLetterError>>>),
    Scan {
        before: Option<LetterId>,
        filter: LetterFilter,
        want: Want,
        limit: usize,
        answer: Answer<Step>,
    },
    /// The number of the last record: every later burial has a greater one.
    Mark(Answer<u64>),
    VerifySegments(Answer<Vec<u64>>),
    VerifySegment(u64, VerifyReport, Answer<VerifyReport>),
    VerifyLetters(Option<LetterId>, Box<Verifying>, Answer<(Option<LetterId>, Box<Verifying>)>),
    Close(oneshot::Sender<()>),
}

/// A deep check under way.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    pub(super) report: VerifyReport,
    /// Bodies that letters need.
    pub(super) blobs: std::collections::BTreeSet<u64>,
}

/// What the handle sees without asking.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counts: std::sync::Mutex<BTreeMap<Kind, u64>>,
    pub(super) writable: watch::Sender<bool>,
    /// Since when the owner is busy with one thing.
    pub(super) busy: std::sync::Mutex<Option<Instant>>,
}

/// The thread's state.
pub(super) struct Owner {
    dir: PathBuf,
    options: StoreOptions,
    shared: Arc<Shared>,
    /// Held for as long as the thread lives.
    _lock: File,
    state: State,
}

enum State {
    Open(Box<Engine>),
    Down { why: Why, retry: Instant, pause: Duration },
}

#[derive(Clone)]
enum Why {
    Full,
    Other(String),
}

impl Why {
    fn told(&self) -> DeadLetterError {
        match self {
            Self::Full => DeadLetterError::Full,
            Self::Other(why) => DeadLetterError::Down { why: why.clone() },
        }
    }
}

impl Owner {
    /// Opens the store, or says why not and keeps trying later.
    pub(super) fn start(
        dir: PathBuf,
        options: StoreOptions,
        lock: File,
        shared: Arc<Shared>,
        report: &mut OpenReport,
    ) -> Self {
        let retry = Instant::now();
        let state = State::Down { why: Why::Other("it was not opened yet".to_owned()), retry, pause: RETRY_FIRST };
        let mut owner = Self { dir, options, shared, _lock: lock, state };
        owner.reopen(report);
        owner
    }

    /// Serves commands until the store is closed or the last handle is gone.
    pub(super) async fn serve(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::new();
        let told = loop {
            let received = match self.next_wake() {
                Some(wake) => tokio::select! {
                    biased;
                    received = commands.recv_many(&mut batch, COMMANDS_MAX) => Some(received),
                    () = tokio::time::sleep_until(wake) => None,
                },
                None => Some(commands.recv_many(&mut batch, COMMANDS_MAX).await),
            };
            match received {
                Some(0) => break None,
                Some(_) => {
                    self.busy(true);
                    let close = self.work(std::mem::take(&mut batch));
                    self.busy(false);
                    if close.is_some() {
                        break close;
                    }
                }
                None => self.wake(),
            }
            self.publish();
        };
        // Whoever still waits gets its sender dropped, which reads as closed.
        drop(commands);
        self.close();
        if let Some(told) = told {
            told.send(()).unwrap_or_default();
        }
    }

    /// When something is to be done without a command.
    fn next_wake(&self) -> Option<Instant> {
        match &self.state {
            State::Down { retry, .. } => Some(*retry),
            State::Open(_) if !*self.shared.writable.borrow() => Some(Instant::now() + ROOM_CHECK),
            State::Open(_) => None,
        }
    }

    fn wake(&mut self) {
        self.busy(true);
        if let State::Down { .. } = self.state {
            let mut report = OpenReport::default();
            self.reopen(&mut report);
            if let State::Open(_) = self.state {
                tracing::info!(letters = report.letters, incidents = ?report.incidents, "the dead-letter store is back");
            }
        }
        self.busy(false);
    }

    fn work(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut writes = Vec::new();
        let mut close = None;
        for command in batch {
            match command {
                Command::Write(work, answer) => writes.push((*work, answer)),
                Command::Close(told) => close = Some(told),
                read @ (Command::Fetch(..)
                | Command::Scan { .. }
                | Command::Mark(_)
                | Command::VerifySegments(_)
                | Command::VerifySegment(..)
                | Command::VerifyLetters(..)) => {
                    // In the order of arrival: a read sees the writes that were asked for before it.
                    self.write(std::mem::take(&mut writes));
                    self.read(read);
                }
            }
        }
        self.write(writes);
        self.upkeep();
        close
    }

    fn write(&mut self, writes: Vec<(Work, Answer<Outcome>)>) {
        if writes.is_empty() {
            return;
        }
        let State::Open(engine) = &mut self.state else {
            let State::Down { why, .. } = &self.state else { return };
            let why = why.clone();
            return writes.into_iter().for_each(|(_, answer)| give(answer, Err(why.told())));
        };
        let free = Engine::free_bytes(&self.dir);
        let (works, answers): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .filter_map(|(work, answer)| {
                // Removals need little room and are how an operator makes some.
                let needed = match &work {
                    Work::Bury { letter, .. } => self.options.free_bytes_min + letter.body.len() as u64,
                    Work::Remove(_) => self.options.free_bytes_min / 8,
                };
                if free < needed {
                    self.shared.writable.send_if_modified(std::mem::take);
                    give(answer, Err(DeadLetterError::Full));
                    return None;
                }
                Some((work, answer))
            })
            .unzip();
        match engine.write(works) {
            Ok(outcomes) => {
                // Before the answers: who was told that a letter is kept finds it counted.
                self.publish();
                for (outcome, answer) in outcomes.into_iter().zip(answers) {
                    match outcome {
                        Outcome::Refused(error) => give(answer, Err(error)),
                        done @ (Outcome::Buried { .. } | Outcome::Removed(_)) => give(answer, Ok(done)),
                    }
                }
            }
            Err(fault) => {
                let told: Vec<_> = answers.iter().map(|_| fault.told()).collect();
                self.fall(&fault);
                for (answer, told) in answers.into_iter().zip(told) {
                    give(answer, Err(told));
                }
            }
        }
    }

    fn read(&mut self, command: Command) {
        match command {
            Command::Fetch(ids, answer) => {
                let read = self.reading(|engine| ids.iter().map(|id| engine.fetch(*id)).collect());
                give(answer, read);
            }
            Command::Scan { before, filter, want, limit, answer } => {
                let read = self.reading(|engine| engine.scan(before, &filter, want, limit));
                give(answer, read);
            }
            Command::Mark(answer) => {
                let read = self.reading(|engine| Ok(engine.seq));
                give(answer, read);
            }
            Command::VerifySegments(answer) => {
                let read = self.reading(|engine| {
                    // Known ones that are missing count too.
                    let mut segments = engine.journal.segments();
                    segments.extend(engine.tally.segments.keys());
                    segments.sort_unstable();
                    segments.dedup();
                    Ok(segments)
                });
                give(answer, read);
            }
            Command::VerifySegment(segment, report, answer) => {
                let read = self.reading(|engine| {
                    let mut report = report.clone();
                    engine.verify_segment(segment, &mut report)?;
                    Ok(report)
                });
                give(answer, read);
            }
            Command::VerifyLetters(before, verifying, answer) => {
                let read = self.reading(|engine| {
                    let mut verifying =
                        Box::new(Verifying { report: verifying.report.clone(), blobs: verifying.blobs.clone() });
                    let next = engine.verify_letters(before, &mut verifying.blobs, &mut verifying.report)?;
                    if next.is_none() {
                        let there = engine.blobs.numbers().map_err(Fault::disk("list the bodies of dead letters"))?;
                        let strays = there.iter().filter(|number| !verifying.blobs.contains(number)).count();
                        verifying.report.stray_blobs = strays as u64;
                    }
                    Ok((next, verifying))
                });
                give(answer, read);
            }
            Command::Write(..) | Command::Close(_) => {}
        }
    }

    /// Reads; when the index turns out to be damaged, rebuilds it and reads once more.
    fn reading<T>(&mut self, read: impl Fn(&mut Engine) -> Result<T, Fault>) -> Result<T, DeadLetterError> {
        for attempt in 0..2 {
            let State::Open(engine) = &mut self.state else { break };
            match read(engine) {
                Ok(value) => return Ok(value),
                Err(fault) => {
                    let told = fault.told();
                    let damaged = matches!(fault, Fault::Index { .. });
                    self.fall(&fault);
                    if !damaged || attempt > 0 {
                        return Err(told);
                    }
                }
            }
        }
        match &self.state {
            State::Down { why, .. } => Err(why.told()),
            State::Open(_) => Err(DeadLetterError::Down { why: "the index keeps being damaged".to_owned() }),
        }
    }

    fn upkeep(&mut self) {
        let State::Open(engine) = &mut self.state else { return };
        if Engine::free_bytes(&self.dir) < self.options.free_bytes_min / 8 {
            return;
        }
        if let Err(fault) = engine.collect() {
            self.fall(&fault);
        }
    }

    /// Drops the engine after a fault. A damaged index is set aside and the store opened again at once.
    fn fall(&mut self, fault: &Fault) {
        let why = if fault.is_full() { Why::Full } else { Why::Other(fault.to_string()) };
        tracing::error!(%fault, "the dead-letter store failed: opening it again");
        let down = State::Down { why, retry: Instant::now() + RETRY_FIRST, pause: RETRY_FIRST };
        let mut damaged = match fault {
            Fault::Index { why } => Some(why.clone()),
            Fault::Disk { .. } => None,
        };
        if let State::Open(engine) = std::mem::replace(&mut self.state, down)
            && !engine.index.close(CLOSE_LIMIT)
        {
            // Its lock stays held by a thread that cannot be stopped; under a new name it is in nobody's way.
            damaged.get_or_insert_with(|| "it did not close".to_owned());
        }
        if let Some(why) = damaged {
            match recovery::set_index_aside(&self.dir, &self.options, &why) {
                Ok(_) => self.reopen(&mut OpenReport::default()),
                Err(fault) => tracing::error!(%fault, "could not set the damaged index aside"),
            }
        }
    }

    fn reopen(&mut self, report: &mut OpenReport) {
        let State::Down { why, pause, .. } = &self.state else { return };
        let (why, pause) = (why.clone(), (*pause * 2).min(RETRY_LONGEST));
        let later = |why| State::Down { why, retry: Instant::now() + pause, pause };
        if matches!(why, Why::Full) && Engine::free_bytes(&self.dir) < self.options.free_bytes_min {
            self.state = later(Why::Full);
            return;
        }
        match Engine::open(&self.dir, &self.options, report) {
            Ok(engine) => self.state = State::Open(Box::new(engine)),
            Err(fault) => {
                tracing::error!(%fault, "could not open the dead-letter store: trying again");
                report.down = Some(fault.to_string());
                self.state = later(if fault.is_full() { Why::Full } else { Why::Other(fault.to_string()) });
            }
        }
        self.publish();
    }

    /// Shows the counts and whether letters can be written.
    fn publish(&self) {
        let writable = match &self.state {
            State::Open(engine) => {
                let mut counts = self.shared.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                counts.clone_from(&engine.tally.counts);
                Engine::free_bytes(&self.dir) >= self.options.free_bytes_min
            }
            State::Down { .. } => false,
        };
        self.shared.writable.send_if_modified(|shown| std::mem::replace(shown, writable) != writable);
    }

    fn busy(&self, busy: bool) {
        *self.shared.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = busy.then(Instant::now);
    }

    fn close(mut self) {
        let why = Why::Other("it was closed".to_owned());
        let closed = State::Down { why, retry: Instant::now(), pause: RETRY_FIRST };
        if let State::Open(mut engine) = std::mem::replace(&mut self.state, closed) {
            if engine.dirty
                && let Err(fault) = engine.checkpoint()
            {
                tracing::warn!(%fault, "could not write the dead-letter checkpoint: the next start counts anew");
            }
            if !engine.index.close(CLOSE_LIMIT) {
                tracing::warn!("the dead-letter index did not close in time");
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Also after a panic: a store without its thread takes nothing.
        self.shared.writable.send_replace(false);
    }
}

fn give<T>(answer: Answer<T>, result: Result<T, DeadLetterError>) {
    // Who stopped waiting needs no answer; what was written stays written.
    answer.send(result).map_err(drop).unwrap_or_default();
}
