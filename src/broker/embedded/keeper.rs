//! The keeper: one thread that owns the database and the queues.
//!
//! Each round takes everything that came in, writes all of it with one batch, syncs once, answers, and hands out what can be
//! handed out. So the busier it is, the more messages share a sync.
//!
//! When the disk is full or fails, publishes are answered with an error, what was settled is remembered, and the database is
//! dropped and opened again until that works.

mod asks;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use sled::Batch;
use tokio::{sync::watch, time::Instant};

use super::{
    EmbeddedSettings,
    desk::{Inbox, Job, Post},
    queue::QueueState,
    records::Shelf,
    vault::{Opened, Vault, VaultError},
};
use crate::{
    broker::{BrokerError, Destination, Health, Log, PublishError, Queue},
    model::{ChannelId, Clock},
};

/// How long removals of settled messages may wait for a sync: a crash before it brings those messages back.
const IDLE_SYNC: Duration = Duration::from_millis(20);

/// How often the logs are shortened.
const SHORTEN_EVERY: Duration = Duration::from_mins(1);

/// The most records that are removed from a log in one round.
const SHORTEN_STEP: u64 = 2000;

/// How often the database is tried again after the disk failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// How long receipts that are out may still be settled when the broker is closed.
const CLOSING: Duration = Duration::from_secs(3);

/// The longest wait for nothing.
const IDLE: Duration = Duration::from_secs(30);

/// A log, or the answers that were published for the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Book {
    Log(Log),
    /// What is published to the approvals exchange. Nobody consumes it here, so it is kept as a log with an end.
    Answers,
}

impl Book {
    pub(super) const ALL: [Self; 5] = [
        Self::Log(Log::Decisions),
        Self::Log(Log::Channels),
        Self::Log(Log::Approvals),
        Self::Log(Log::Deliveries),
        Self::Answers,
    ];

    fn shelf(self) -> Shelf {
        Shelf::new(
            b'l',
            match self {
                Self::Log(Log::Decisions) => "decisions",
                Self::Log(Log::Channels) => "channels",
                Self::Log(Log::Approvals) => "approvals",
                Self::Log(Log::Deliveries) => "deliveries",
                Self::Answers => "answers",
            },
        )
    }

    /// The most records that are kept, besides any limit of age.
    fn most(self) -> u64 {
        match self {
            Self::Log(Log::Decisions) => u64::MAX,
            Self::Log(Log::Channels) => 100_000,
            Self::Log(Log::Approvals) => 1_000_000,
            // At most one a second while little happens, and of at most 48 KiB while much does.
            Self::Log(Log::Deliveries) => 4_000_000,
            Self::Answers => 10_000,
        }
    }
}

struct BookState {
    shelf: Shelf,
    next: u64,
    grown: watch::Sender<u64>,
}

/// The thread's state.
pub(super) struct Keeper {
    dir: PathBuf,
    clock: Clock,
    keep_decisions: Option<Duration>,
    inbox: Arc<Inbox>,
    vault: Option<Vault>,
    queues: HashMap<Queue, QueueState>,
    books: HashMap<Book, BookState>,
    /// Settled messages that are not removed yet, with their number of pieces.
    doomed: HashMap<(Queue, u64), u16>,
    health: watch::Sender<Health>,
    shorten_at: Instant,
    reopen_at: Instant,
    /// Removals were applied that no sync has covered.
    dirty: Option<Instant>,
    /// The disk had too little room when last looked at.
    full: bool,
    stopping: Option<Instant>,
}

/// A lane's own record: that it exists.
fn lane_key(lane: &ChannelId) -> Vec<u8> {
    [b"k", lane.as_str().as_bytes()].concat()
}

fn shelf_of(queue: &Queue) -> Shelf {
    match queue {
        Queue::Decisions => Shelf::new(b'q', "decisions"),
        Queue::Dead => Shelf::new(b'q', "dead"),
        Queue::Lane(lane) => Shelf::new(b'q', &format!("lane/{lane}")),
        Queue::Urgent(lane) => Shelf::new(b'q', &format!("lane/{lane}.urgent")),
    }
}

fn load(db: &sled::Db, queue: &Queue) -> sled::Result<QueueState> {
    QueueState::load(db, shelf_of(queue), matches!(queue, Queue::Lane(_) | Queue::Urgent(_)))
}

/// The queues of a lane.
fn queues_of(lane: &ChannelId) -> [Queue; 2] {
    [Queue::Urgent(lane.clone()), Queue::Lane(lane.clone())]
}

/// What went wrong with the database, for a caller.
pub(super) fn broker_error(error: VaultError) -> BrokerError {
    let hint = match &error {
        VaultError::Locked(_) => {
            "a worker runs with this `data_dir`: talk to it with `--server URL`, or stop it; several workers need RabbitMQ"
        }
        VaultError::Io(..) | VaultError::Full { .. } => "check that `data_dir` is writable and that its disk has space",
        VaultError::Damaged(_) => "look for `broker.corrupt-*` in `data_dir` and check the disk",
    };
    BrokerError { what: format!("the embedded broker could not be used: {error}"), hint, source: Some(Box::new(error)) }
}

impl Keeper {
    /// Opens the database and reads what is there.
    pub(super) fn open(
        settings: EmbeddedSettings,
        clock: Clock,
        inbox: Arc<Inbox>,
        health: watch::Sender<Health>,
        grown: &HashMap<Book, watch::Sender<u64>>,
    ) -> Result<Self, BrokerError> {
        let Opened { mut vault, quarantined } = Vault::open(&settings.dir, clock.now()).map_err(broker_error)?;
        if let Some(aside) = quarantined {
            tracing::error!(aside = %aside.display(), "decisions and deliveries that waited here may be missing");
        }
        let sled_error = |error: sled::Error| broker_error(VaultError::Damaged(error.to_string()));
        let mut books = HashMap::new();
        for book in Book::ALL {
            let shelf = book.shelf();
            let next = shelf.end(vault.db()).map_err(sled_error)?;
            let grown = grown[&book].clone();
            grown.send_replace(next);
            books.insert(book, BookState { shelf, next, grown });
        }
        let mut queues = HashMap::new();
        let mut known = vec![Queue::Decisions, Queue::Dead];
        for key in vault.db().scan_prefix(b"k").keys() {
            let key = key.map_err(sled_error)?;
            let lane = std::str::from_utf8(&key[1..]).ok().and_then(|lane| lane.parse().ok());
            known.extend(lane.iter().flat_map(queues_of));
        }
        known.extend(settings.lanes.iter().flat_map(queues_of));
        for queue in known {
            let state = load(vault.db(), &queue).map_err(sled_error)?;
            queues.insert(queue, state);
        }
        let mut batch = Batch::default();
        settings.lanes.iter().for_each(|lane| batch.insert(lane_key(lane), b""));
        vault.commit(batch).map_err(broker_error)?;
        health.send_replace(Health { connected: true, reconnects: 0 });
        let now = Instant::now();
        Ok(Self {
            dir: settings.dir,
            clock,
            keep_decisions: settings.keep_decisions,
            inbox,
            vault: Some(vault),
            queues,
            books,
            doomed: HashMap::new(),
            health,
            shorten_at: now,
            reopen_at: now,
            dirty: None,
            full: false,
            stopping: None,
        })
    }

    /// Works until the broker is closed.
    pub(super) fn run(mut self) {
        loop {
            let Post { jobs, closings, asks, stop, .. } = self.inbox.take(self.patience());
            if stop && self.stopping.is_none() {
                self.stopping = Some(Instant::now() + CLOSING);
                self.queues.values_mut().for_each(QueueState::leave_all);
            }
            for closing in closings {
                if let Some(queue) = self.queues.get_mut(&closing.queue)
                    && let Some(pieces) = queue.close(closing.place, closing.settled)
                {
                    self.doomed.insert((closing.queue, closing.place), pieces);
                }
            }
            self.reopen();
            self.write(jobs);
            for ask in asks {
                self.answer(ask);
            }
            if self.dirty.is_some_and(|since| since.elapsed() >= IDLE_SYNC) {
                self.sync();
            }
            self.dispatch();
            self.shorten();
            self.inbox.show_unsettled(self.queues.values().map(|queue| queue.out() as u64).sum());
            if let Some(deadline) = self.stopping
                && (self.queues.values().all(|queue| queue.out() == 0) || Instant::now() >= deadline)
                && (self.doomed.is_empty() || !self.is_well())
            {
                break;
            }
        }
        self.sync();
        self.inbox.end();
        self.health.send_modify(|health| health.connected = false);
    }

    /// How long nothing may happen before something is due.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let due = self.queues.values().filter_map(QueueState::due).chain([self.shorten_at]);
        let due = due.chain((!self.is_well()).then_some(self.reopen_at)).chain(self.stopping);
        let soon = (self.is_well() && (self.dirty.is_some() || !self.doomed.is_empty())).then_some(IDLE_SYNC);
        let next = due.map(|at| at.saturating_duration_since(now)).chain(soon).min();
        next.unwrap_or(IDLE).clamp(Duration::from_millis(1), IDLE)
    }

    /// Adds the removal of what is settled to `batch`.
    fn bury(&mut self, batch: &mut Batch) {
        for ((queue, place), pieces) in &self.doomed {
            if let Some(queue) = self.queues.get(queue) {
                queue.shelf.remove(batch, *place, *pieces);
            }
        }
    }

    /// Writes messages, and removes what is settled, in one batch; answers when it is on the platter.
    fn write(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() && self.doomed.is_empty() {
            return;
        }
        let bytes = jobs.iter().map(|job| job.message.body.len()).sum();
        if let Err(error) = Vault::room(&self.dir, bytes) {
            self.full = true;
            self.trouble(&error.to_string());
            for job in jobs {
                drop(job.done.send(Err(PublishError::Storage { why: error.to_string() })));
            }
            return;
        }
        let mut batch = Batch::default();
        let now = self.clock.now();
        self.bury(&mut batch);
        let mut answers = Vec::with_capacity(jobs.len());
        let mut arrived: Vec<Queue> = Vec::new();
        for Job { message, done } in jobs {
            if done.is_closed() {
                continue;
            }
            let outcome = match self.target(&message.to) {
                Target::Queue(name) => match self.queues.get_mut(&name) {
                    Some(queue) => {
                        queue.shelf.put(&mut batch, queue.next, now, &message.body);
                        queue.next += 1;
                        arrived.push(name);
                        Ok(())
                    }
                    None => Err(PublishError::Unroutable { to: format!("{name:?}") }),
                },
                Target::Book(book) => {
                    if let Some(book) = self.books.get_mut(&book) {
                        book.shelf.put(&mut batch, book.next, now, &message.body);
                        book.next += 1;
                    }
                    Ok(())
                }
                Target::Nowhere => Ok(()),
            };
            answers.push((done, outcome));
        }
        let written = match &mut self.vault {
            // Removals alone may be lost in a crash: their messages would only come again. They are synced when it is quiet.
            Some(vault) if answers.is_empty() => vault.apply(batch),
            Some(vault) => vault.commit(batch),
            None => Err(VaultError::Io(self.dir.clone(), std::io::Error::other("the disk failed before"))),
        };
        match written {
            Ok(()) => {
                self.dirty = if answers.is_empty() { self.dirty.or(Some(Instant::now())) } else { None };
                self.doomed.clear();
                for queue in arrived {
                    if let Some(queue) = self.queues.get_mut(&queue) {
                        queue.waiting += 1;
                    }
                }
                self.books.values().for_each(|book| {
                    book.grown.send_if_modified(|grown| std::mem::replace(grown, book.next) != book.next);
                });
                // Whoever gave up waiting does not want to know.
                for (done, outcome) in answers {
                    drop(done.send(outcome));
                }
            }
            Err(error) => {
                let why = error.to_string()
                    + &std::error::Error::source(&error).map_or(String::new(), |why| format!(": {why}"));
                self.fail(&why);
                for (done, outcome) in answers {
                    drop(done.send(outcome.and(Err(PublishError::Storage { why: why.clone() }))));
                }
            }
        }
    }

    fn target(&self, to: &Destination) -> Target {
        match to {
            Destination::DecisionsExchange => Target::Queue(Queue::Decisions),
            Destination::Queue(queue) => Target::Queue(queue.clone()),
            Destination::ApprovalsExchange(_) => Target::Book(Book::Answers),
            Destination::Log(log) if log.is_of_decisions() && self.keep_decisions.is_none() => Target::Nowhere,
            Destination::Log(log) => Target::Book(Book::Log(*log)),
        }
    }

    /// Syncs removals that no publish has taken along.
    fn sync(&mut self) {
        if self.dirty.take().is_some()
            && let Some(vault) = &mut self.vault
            && let Err(error) = vault.commit(Batch::default())
        {
            self.fail(&error.to_string());
        }
    }

    /// The handle failed: lets go of it.
    fn fail(&mut self, why: &str) {
        if let Some(vault) = self.vault.take() {
            vault.abandon();
        }
        self.trouble(why);
    }

    /// Nothing can be written for now.
    fn trouble(&mut self, why: &str) {
        let was_well = self.health.send_if_modified(|health| std::mem::replace(&mut health.connected, false));
        if was_well {
            tracing::error!(dir = %self.dir.display(), why, "the embedded broker cannot write; free space on its disk");
        }
        self.reopen_at = Instant::now() + REOPEN_EVERY;
    }

    fn well_again(&mut self) {
        self.full = false;
        tracing::info!(dir = %self.dir.display(), "the embedded broker writes again");
        self.health.send_modify(|health| {
            health.connected = true;
            health.reconnects += 1;
        });
    }

    /// Whether all is as it should be.
    fn is_well(&self) -> bool {
        self.vault.is_some() && !self.full
    }

    /// After trouble: goes on when there is room, with the database opened again where it was given up.
    fn reopen(&mut self) {
        if self.is_well() || Instant::now() < self.reopen_at || self.stopping.is_some() {
            return;
        }
        self.reopen_at = Instant::now() + REOPEN_EVERY;
        if let Err(error) = Vault::room(&self.dir, 0) {
            tracing::debug!(%error, "still no room on the disk");
            return;
        }
        if self.vault.is_some() {
            self.well_again();
            return;
        }
        let opened = match Vault::open(&self.dir, self.clock.now()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, "the database cannot be opened yet; if this goes on, start the worker again");
                return;
            }
        };
        let db = opened.vault.db();
        let recount = |queue: &Queue, state: &mut QueueState, doomed: &HashMap<_, _>| {
            state.recount(db, |place| doomed.contains_key(&(queue.clone(), place)))
        };
        let counted = self.queues.iter_mut().try_for_each(|(queue, state)| recount(queue, state, &self.doomed));
        if let Err(error) = counted {
            tracing::error!(%error, "the database cannot be read");
            return;
        }
        self.vault = Some(opened.vault);
        self.well_again();
    }

    fn dispatch(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let Some(vault) = &self.vault else { return };
        // What is urgent goes out first in each round, and so before what waits beside it.
        let (urgent, rest): (Vec<_>, Vec<_>) = self
            .queues
            .iter_mut()
            .filter(|(_, state)| state.has_members())
            .partition(|(queue, _)| matches!(queue, Queue::Urgent(_)));
        let outcome = urgent.into_iter().chain(rest).try_for_each(|(_, state)| state.dispatch(vault.db()));
        if let Err(error) = outcome {
            self.fail(&error.to_string());
        }
    }

    /// Removes the oldest records of logs that are too long or too old.
    fn shorten(&mut self) {
        if Instant::now() < self.shorten_at {
            return;
        }
        self.shorten_at = Instant::now() + SHORTEN_EVERY;
        let Some(vault) = &self.vault else { return };
        let mut batch = Batch::default();
        let mut removed = 0;
        for (book, state) in &self.books {
            let oldest = match book {
                // What was kept when decisions were still kept goes, too.
                Book::Log(log) if log.is_of_decisions() => {
                    Some((self.clock.now(), self.keep_decisions.unwrap_or_default()))
                }
                Book::Log(_) | Book::Answers => None,
            };
            let mut from = 0;
            while removed < SHORTEN_STEP
                && let Ok(Some(found)) = state.shelf.first_from(vault.db(), from)
            {
                let too_many = state.next - found.place > book.most();
                let too_old = oldest.is_some_and(|(now, keep)| now.since(found.at) > keep);
                if !too_many && !too_old {
                    break;
                }
                let pieces = Shelf::pieces(found.body.map_or(0, |body| body.len()));
                state.shelf.remove(&mut batch, found.place, pieces);
                from = found.place + 1;
                removed += 1;
            }
        }
        if removed > 0 {
            if let Err(error) = vault.apply(batch) {
                self.fail(&error.to_string());
            }
            self.dirty = self.dirty.or(Some(Instant::now()));
        }
        if removed >= SHORTEN_STEP {
            self.shorten_at = Instant::now() + Duration::from_millis(50);
        }
    }
}

/// Where a message goes.
enum Target {
    Queue(Queue),
    Book(Book),
    Nowhere,
}
