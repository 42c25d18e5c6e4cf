//! One queue of the embedded broker, as it is in memory: who consumes it, what is out, and what comes next.
//!
//! Bodies stay on disk until a consumer has room for them. Pure but for the senders of arrivals and the reading of records.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{desk::ConsumerDesk, records::Shelf};
use crate::broker::{Arrival, Receipt};

/// The pause before a message whose receipt was dropped is handed out again: the first one, doubled up to the longest.
const RETURN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A message that was handed out.
#[derive(Debug)]
struct Out {
    consumer: u64,
    pieces: u16,
    /// How often it came back.
    returns: u32,
}

/// A message that came back.
#[derive(Debug)]
struct Returned {
    due: Instant,
    returns: u32,
}

/// A consumer, and how much it has out.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) window: usize,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) desk: Arc<ConsumerDesk>,
    pub(super) out: usize,
}

/// A queue.
#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) shelf: Shelf,
    /// Whether only the first consumer gets anything.
    single: bool,
    /// The place of the next message that is published.
    pub(super) next: u64,
    /// Messages before this place were there when the store was opened: an earlier process may have handed them out.
    old_before: u64,
    /// Messages from this place on were never handed out by this process.
    cursor: u64,
    /// How many messages wait, handed out or not.
    pub(super) waiting: u64,
    out: HashMap<u64, Out>,
    returned: BTreeMap<u64, Returned>,
    members: Vec<Member>,
    turn: usize,
}

impl QueueState {
    /// The queue on `shelf`, as it is on disk.
    pub(super) fn load(db: &sled::Db, shelf: Shelf, single: bool) -> sled::Result<Self> {
        let next = shelf.end(db)?;
        let waiting = shelf.places(db).try_fold(0, |count, place| place.map(|_| count + 1))?;
        Ok(Self {
            shelf,
            single,
            next,
            old_before: next,
            cursor: 0,
            waiting,
            out: HashMap::new(),
            returned: BTreeMap::new(),
            members: Vec::new(),
            turn: 0,
        })
    }

    /// After the store was opened again: counts anew. `doomed` messages are settled and about to be removed.
    pub(super) fn recount(&mut self, db: &sled::Db, doomed: impl Fn(u64) -> bool) -> sled::Result<()> {
        self.next = self.next.max(self.shelf.end(db)?);
        self.waiting = 0;
        for place in self.shelf.places(db) {
            self.waiting += u64::from(!doomed(place?));
        }
        Ok(())
    }

    pub(super) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    /// Forgets a consumer. What it has out stays out until its receipts are closed.
    pub(super) fn leave(&mut self, consumer: u64) {
        self.members.retain(|member| member.id != consumer);
    }

    /// Forgets every consumer.
    pub(super) fn leave_all(&mut self) {
        self.members.clear();
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether any consumer still takes what arrives.
    pub(super) fn is_consumed(&self) -> bool {
        self.members.iter().any(|member| !member.arrivals.is_closed())
    }

    /// How many receipts are out.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }

    /// A receipt was closed. Returns how many pieces are to be removed, if the message is done with.
    pub(super) fn close(&mut self, place: u64, settled: bool) -> Option<u16> {
        let out = self.out.remove(&place)?;
        let member = self.members.iter_mut().find(|member| member.id == out.consumer);
        let alive = member.is_some_and(|member| {
            member.out -= 1;
            !member.arrivals.is_closed()
        });
        if settled {
            self.waiting = self.waiting.saturating_sub(1);
            return Some(out.pieces);
        }
        // The pause is against a loop over a message that nobody can handle; a consumer that went away is no such loop.
        let pause =
            if alive { (RETURN.0 * 2_u32.saturating_pow(out.returns.min(10))).min(RETURN.1) } else { Duration::ZERO };
        let returns = out.returns + u32::from(alive);
        self.returned.insert(place, Returned { due: Instant::now() + pause, returns });
        None
    }

    /// When the next message that came back is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let room = |member: &Member| member.out < member.window;
        // It is handed out to the first member alone, or to any; where there is no room, a settled receipt is what is waited for.
        let able = if self.single { self.members.first().is_some_and(room) } else { self.members.iter().any(room) };
        able.then(|| self.returned.values().map(|returned| returned.due).min()).flatten()
    }

    /// Hands out what there is to whoever has room.
    pub(super) fn dispatch(&mut self, db: &sled::Db) -> sled::Result<()> {
        while let Some(member) = self.next_member() {
            let Some((place, body, returns)) = self.next_message(db)? else { return Ok(()) };
            let member = &mut self.members[member];
            let arrival = Arrival {
                redelivered: returns.is_some() || place < self.old_before,
                receipt: Receipt::new(place, Arc::clone(&member.desk) as _),
                body: body.clone(),
            };
            // The receipt may come back before the next line: but it comes by the inbox, which only we empty.
            self.out.insert(
                place,
                Out { consumer: member.id, pieces: Shelf::pieces(body.len()), returns: returns.unwrap_or(0) },
            );
            member.out += 1;
            // The buffer is as large as the window. A send that fails drops the receipt, which brings the message back.
            drop(member.arrivals.try_send(arrival));
        }
        Ok(())
    }

    fn next_member(&mut self) -> Option<usize> {
        let has_room = |member: &Member| member.out < member.window && !member.arrivals.is_closed();
        if self.single {
            return self.members.first().filter(|member| has_room(member)).map(|_| 0);
        }
        let count = self.members.len();
        let found = (0..count).map(|step| (self.turn + step) % count).find(|&index| has_room(&self.members[index]))?;
        self.turn = found + 1;
        Some(found)
    }

    /// The next message, and how often it came back if it did.
    fn next_message(&mut self, db: &sled::Db) -> sled::Result<Option<(u64, bytes::Bytes, Option<u32>)>> {
        let now = Instant::now();
        while let Some(place) = self.returned.iter().find(|(_, returned)| returned.due <= now).map(|(&place, _)| place)
        {
            let returns = self.returned.remove(&place).map(|returned| returned.returns);
            let found = self.shelf.first_from(db, place)?.filter(|stored| stored.place == place);
            if let Some(body) = found.and_then(|stored| stored.body) {
                return Ok(Some((place, body, returns)));
            }
        }
        while self.cursor < self.next {
            let Some(stored) = self.shelf.first_from(db, self.cursor)? else { return Ok(None) };
            self.cursor = stored.place + 1;
            if let Some(body) = stored.body {
                return Ok(Some((stored.place, body, None)));
            }
            tracing::error!(place = stored.place, "a message on disk is damaged and is left where it is");
        }
        Ok(None)
    }
}
