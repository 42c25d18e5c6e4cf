//! What the keeper is asked for besides publishing: consumers, lanes, counts and pages of logs.

use std::sync::Arc;

use sled::Batch;

use super::{Book, Keeper, broker_error, lane_key, load, queues_of};
use crate::{
    broker::{
        BrokerError, Log, Queue, Record, Start,
        embedded::{
            desk::{Ask, ConsumerDesk, Page, Place},
            queue::{Member, QueueState},
            vault::{Vault, VaultError},
        },
    },
    model::ChannelId,
};

/// Bytes of records that are read at once, while everybody else waits.
const PAGE_BYTES: usize = 1 << 20;

impl Keeper {
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Consume { id, queue, window, arrivals } => {
                let lane = match &queue {
                    Queue::Lane(lane) | Queue::Urgent(lane) => vec![lane.clone()],
                    Queue::Decisions | Queue::Dead => Vec::new(),
                };
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
            Ask::RemoveLane { lane, done } => drop(done.send(self.remove_lane(&lane))),
            Ask::Waiting { queue, done } => {
                let urgent = match &queue {
                    Queue::Lane(lane) => self.queues.get(&Queue::Urgent(lane.clone())),
                    Queue::Decisions | Queue::Urgent(_) | Queue::Dead => None,
                };
                let urgent = urgent.map_or(0, |urgent| urgent.waiting);
                let count = self.queues.get(&queue).map(|queue| queue.waiting + urgent);
                drop(done.send(count.ok_or_else(|| BrokerError {
                    what: format!("there is no queue {queue:?}"),
                    hint: "only lanes of configured channels have queues",
                    source: None,
                })));
            }
            Ask::Read { log, from, most, done } => drop(done.send(self.read(log, from, most).map_err(broker_error))),
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), VaultError> {
        self.vault()?;
        Vault::room(&self.dir, 0)?;
        self.vault.as_mut().map_or(Ok(()), |vault| vault.commit(batch))
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
        for lane in &new {
            batch.insert(lane_key(lane), b"");
        }
        self.commit(batch)?;
        for lane in new {
            for queue in queues_of(&lane) {
                let state = load(self.vault()?.db(), &queue).map_err(|error| VaultError::Damaged(error.to_string()))?;
                self.queues.insert(queue, state);
            }
        }
        Ok(())
    }

    fn remove_lane(&mut self, lane: &ChannelId) -> Result<u64, BrokerError> {
        let queues = queues_of(lane);
        let states = || queues.iter().filter_map(|queue| self.queues.get(queue));
        if states().any(QueueState::is_consumed) {
            return Err(BrokerError {
                what: format!("the lane `{lane}` is still consumed and was not removed"),
                hint: "try again when the worker has the new configuration",
                source: None,
            });
        }
        let waiting = states().map(|state| state.waiting).sum();
        if waiting == 0 && states().next().is_some() {
            let mut batch = Batch::default();
            batch.remove(lane_key(lane));
            // What was settled in this very round goes with it.
            self.bury(&mut batch);
            self.commit(batch).map_err(broker_error)?;
            self.doomed.clear();
            for queue in &queues {
                self.queues.remove(queue);
            }
        }
        Ok(waiting)
    }

    fn read(&self, log: Log, from: Place, most: usize) -> Result<Page, VaultError> {
        let damaged = |error: sled::Error| VaultError::Damaged(error.to_string());
        let (vault, book) = (self.vault()?, &self.books[&Book::Log(log)]);
        let mut place = match from {
            Place::From(place) => place,
            Place::Start(Start::First) => 0,
            Place::Start(Start::Offset(offset)) => offset,
            Place::Start(Start::Newest(count)) => book.next.saturating_sub(count),
            Place::Start(Start::At(time)) => book.shelf.find(vault.db(), time).map_err(damaged)?,
        };
        let mut records = Vec::new();
        // Damaged ones are passed over, and a page without any record means the end of the log.
        while records.is_empty() {
            let page = book.shelf.page(vault.db(), place, most, PAGE_BYTES).map_err(damaged)?;
            let Some(last) = page.last() else { break };
            place = last.place + 1;
            for found in page {
                match found.body {
                    Some(body) => records.push(Record { offset: found.place, body }),
                    None => {
                        tracing::error!(place = found.place, "a record of a log is damaged and is passed over");
                    }
                }
            }
        }
        Ok(Page { records, end: book.next })
    }
}
