//! The keeper: one thread that owns the database and the queues.
//!
//! Each round takes everything that came in, writes all of it with one batch, syncs once, answers, and hands out what can be
//! handed out. So the busier it is, the more messages share a sync.
//!
//! When the disk is full or fails, publishes are answered with an error, what was settled is remembered, and the database is
//! dropped and opened again until that works.

use std::{collections::HashMap, io::Write, path::PathBuf, sync::Arc, time::Duration};

use sled::Batch;
use tokio::{sync::watch, time::Instant};

use super::{
    EmbeddedSettings,
    desk::{Ask, ConsumerDesk, Inbox, Job, Page, Place, Post},
    queue::{Member, QueueState},
    records::Shelf,
    vault::{Vault, VaultError},
};
use crate::{
    broker::{BrokerError, Destination, Health, Log, PublishError, Queue, Record, Start},
    model::{ChannelId, Clock},
};

/// How long settled messages may stay on disk, unsynced or not yet removed, when nothing else is written.
const IDLE_SYNC: Duration = Duration::from_millis(20);

/// How often the logs are shortened.
const SHORTEN_EVERY: Duration = Duration::from_secs(60);

/// The most records that are removed from a log in one round.
const SHORTEN_STEP: u64 = 2000;

/// How often the database is tried again after the disk failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// What must fit on the disk before the database is opened again, in bytes.
const ROOM_BYTES: usize = 4 << 20;

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
    pub(super) const ALL: [Self; 4] =
        [Self::Log(Log::Decisions), Self::Log(Log::Channels), Self::Log(Log::Approvals), Self::Answers];

    fn shelf(self) -> Shelf {
        Shelf::new(
            b'l',
            match self {
                Self::Log(Log::Decisions) => "decisions",
                Self::Log(Log::Channels) => "channels",
                Self::Log(Log::Approvals) => "approvals",
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
    dirty: bool,
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
    }
}

fn load(db: &sled::Db, queue: &Queue) -> sled::Result<QueueState> {
    QueueState::load(db, shelf_of(queue), matches!(queue, Queue::Lane(_)))
}

/// What went wrong with the database, for a caller.
pub(super) fn broker_error(error: VaultError) -> BrokerError {
    let hint = match &error {
        VaultError::Locked(_) => {
            "another worker runs with this `data_dir`: the embedded broker serves one; use RabbitMQ for more"
        }
        VaultError::Io(..) => "check that `data_dir` is writable and that its disk has space",
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
        let vault = Vault::open(&settings.dir, clock.now()).map_err(broker_error)?.vault;
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
            known.extend(std::str::from_utf8(&key[1..]).ok().and_then(|lane| lane.parse().ok()).map(Queue::Lane));
        }
        known.extend(settings.lanes.iter().cloned().map(Queue::Lane));
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
            dirty: false,
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
            let busy = !jobs.is_empty();
            self.write(jobs);
            for ask in asks {
                self.answer(ask);
            }
            if !busy {
                self.sync_if_idle();
            }
            self.dispatch();
            self.shorten();
            self.inbox.show_unsettled(self.queues.values().map(|queue| queue.out() as u64).sum());
            if let Some(deadline) = self.stopping
                && (self.queues.values().all(|queue| queue.out() == 0) || Instant::now() >= deadline)
                && (self.doomed.is_empty() || self.vault.is_none())
            {
                break;
            }
        }
        self.sync_if_idle();
        self.inbox.end();
        self.health.send_modify(|health| health.connected = false);
    }

    /// How long nothing may happen before something is due.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let due = self.queues.values().filter_map(QueueState::due).chain([self.shorten_at]);
        let due = due.chain(self.vault.is_none().then_some(self.reopen_at)).chain(self.stopping);
        let soon = (self.dirty || !self.doomed.is_empty()).then_some(IDLE_SYNC);
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
        let written = match &self.vault {
            // Removals alone may be lost in a crash: their messages would only come again. They are synced when it is quiet.
            Some(vault) if answers.is_empty() => vault.apply(batch),
            Some(vault) => vault.commit(batch),
            None => Err(VaultError::Io(self.dir.clone(), std::io::Error::other("the disk failed before"))),
        };
        match written {
            Ok(()) => {
                self.dirty = answers.is_empty();
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
                answers.into_iter().for_each(|(done, outcome)| drop(done.send(outcome)));
            }
            Err(error) => {
                let why = error.to_string()
                    + &std::error::Error::source(&error).map_or(String::new(), |why| format!(": {why}"));
                for (done, outcome) in answers {
                    drop(done.send(outcome.and(Err(PublishError::Storage { why: why.clone() }))));
                }
                self.fail(&why);
            }
        }
    }

    fn target(&self, to: &Destination) -> Target {
        match to {
            Destination::DecisionsExchange => Target::Queue(Queue::Decisions),
            Destination::Queue(queue) => Target::Queue(queue.clone()),
            Destination::ApprovalsExchange(_) => Target::Book(Book::Answers),
            Destination::Log(Log::Decisions) if self.keep_decisions.is_none() => Target::Nowhere,
            Destination::Log(log) => Target::Book(Book::Log(*log)),
        }
    }

    /// Syncs removals when nothing else is to be written.
    fn sync_if_idle(&mut self) {
        if std::mem::take(&mut self.dirty)
            && let Some(vault) = &self.vault
            && let Err(error) = vault.commit(Batch::default())
        {
            self.fail(&error.to_string());
        }
    }

    fn fail(&mut self, why: &str) {
        if self.vault.take().is_some() {
            tracing::error!(dir = %self.dir.display(), why, "the embedded broker cannot write; free space on its disk");
            self.health.send_modify(|health| health.connected = false);
        }
        self.reopen_at = Instant::now() + REOPEN_EVERY;
    }

    /// After a failure: opens the database again when there is room.
    fn reopen(&mut self) {
        if self.vault.is_some() || Instant::now() < self.reopen_at || self.stopping.is_some() {
            return;
        }
        self.reopen_at = Instant::now() + REOPEN_EVERY;
        if let Err(error) = has_room(&self.dir) {
            tracing::debug!(%error, "still no room on the disk");
            return;
        }
        let opened = match Vault::open(&self.dir, self.clock.now()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "the database cannot be opened yet");
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
        tracing::info!(dir = %self.dir.display(), "the embedded broker writes again");
        self.health.send_modify(|health| {
            health.connected = true;
            health.reconnects += 1;
        });
    }

    fn dispatch(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let Some(vault) = &self.vault else { return };
        let outcome =
            self.queues.values_mut().filter(|queue| queue.has_members()).try_for_each(|q| q.dispatch(vault.db()));
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
            let oldest = match (book, self.keep_decisions) {
                (Book::Log(Log::Decisions), Some(keep)) => Some((self.clock.now(), keep)),
                (Book::Log(_) | Book::Answers, _) => None,
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
            self.dirty = true;
        }
        if removed >= SHORTEN_STEP {
            self.shorten_at = Instant::now() + Duration::from_millis(50);
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Consume { id, queue, window, arrivals } => {
                let lane = if let Queue::Lane(lane) = &queue { vec![lane.clone()] } else { Vec::new() };
                if let Err(error) = self.ensure_lanes(lane) {
                    tracing::error!(%error, "a lane's queue could not be made");
                }
                let desk = Arc::new(ConsumerDesk { inbox: Arc::clone(&self.inbox), queue: queue.clone() });
                if let Some(state) = self.queues.get_mut(&queue)
                    && self.stopping.is_none()
                {
                    state.join(Member { id, window: usize::from(window), arrivals, desk, out: 0 });
                }
            }
            Ask::Gone { id, queue } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    queue.leave(id);
                }
            }
            Ask::EnsureLanes { lanes, done } => drop(done.send(self.ensure_lanes(lanes).map_err(broker_error))),
            Ask::RemoveLane { lane, done } => drop(done.send(self.remove_lane(lane).map_err(broker_error))),
            Ask::Waiting { queue, done } => {
                let count = self.queues.get(&queue).map(|queue| queue.waiting);
                drop(done.send(count.ok_or_else(|| BrokerError {
                    what: format!("there is no queue {queue:?}"),
                    hint: "only lanes of configured channels have queues",
                    source: None,
                })));
            }
            Ask::Read { log, from, most, done } => drop(done.send(self.read(log, from, most).map_err(broker_error))),
        }
    }

    fn vault(&self) -> Result<&Vault, VaultError> {
        let failed = || VaultError::Io(self.dir.clone(), std::io::Error::other("the disk failed before"));
        self.vault.as_ref().ok_or_else(failed)
    }

    fn ensure_lanes(&mut self, lanes: Vec<ChannelId>) -> Result<(), VaultError> {
        let new: Vec<_> = lanes.into_iter().filter(|l| !self.queues.contains_key(&Queue::Lane(l.clone()))).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        new.iter().for_each(|lane| batch.insert(lane_key(lane), b""));
        self.vault()?.commit(batch)?;
        for lane in new {
            let queue = Queue::Lane(lane);
            let state = load(self.vault()?.db(), &queue).map_err(|error| VaultError::Damaged(error.to_string()))?;
            self.queues.insert(queue, state);
        }
        Ok(())
    }

    fn remove_lane(&mut self, lane: ChannelId) -> Result<u64, VaultError> {
        let mut batch = Batch::default();
        batch.remove(lane_key(&lane));
        let queue = Queue::Lane(lane);
        let Some(waiting) = self.queues.get(&queue).map(|queue| queue.waiting) else { return Ok(0) };
        if waiting == 0 {
            // What was settled in this very round goes with it.
            self.bury(&mut batch);
            self.vault()?.commit(batch)?;
            self.doomed.clear();
            self.queues.remove(&queue);
        }
        Ok(waiting)
    }

    fn read(&self, log: Log, from: Place, most: usize) -> Result<Page, VaultError> {
        let damaged = |error: sled::Error| VaultError::Damaged(error.to_string());
        let (vault, book) = (self.vault()?, &self.books[&Book::Log(log)]);
        let mut place = match from {
            Place::From(place) => place,
            Place::Start(Start::First) => 0,
            Place::Start(Start::At(time)) => book.shelf.find(vault.db(), time).map_err(damaged)?,
        };
        let mut records = Vec::new();
        while records.len() < most
            && let Some(found) = book.shelf.first_from(vault.db(), place).map_err(damaged)?
        {
            place = found.place + 1;
            match found.body {
                Some(body) => records.push(Record { offset: found.place, body }),
                None => tracing::error!(place = found.place, "a record of a log is damaged and is passed over"),
            }
        }
        Ok(Page { records, end: book.next })
    }
}

/// Where a message goes.
enum Target {
    Queue(Queue),
    Book(Book),
    Nowhere,
}

/// Whether a few megabytes fit on the disk.
fn has_room(dir: &std::path::Path) -> std::io::Result<()> {
    let path = dir.join("room");
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0xA5; ROOM_BYTES])?;
        file.sync_data()
    });
    std::fs::remove_file(&path)?;
    written
}
