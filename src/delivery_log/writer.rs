//! Writing: entries gather in a record until it is full or a second old, and full records wait to be appended.
//!
//! [`Gathering`] is where they do, bounded in bytes: when it is full, the oldest record goes, and its entries are lost. [`Writer`] takes
//! one record after the other to the broker, for as long as it takes, and nobody waits for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Seldom, Shared,
    record::{HEAD, TAIL},
};
use crate::broker::{Broker, Destination, Log, Message};

/// A record is full with so many bytes or entries. The embedded broker keeps up to 48 KiB in one piece.
const RECORD_BYTES: usize = 40 << 10;
const RECORD_ENTRIES: u64 = 500;

/// How long a record is open at most.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// The most bytes of full records that wait: what became of some fifty thousand decisions.
const WAITING_BYTES: usize = 8 << 20;

/// Waits between tries to append a record.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// A full record.
#[derive(Debug)]
struct Full {
    body: Bytes,
    entries: u64,
}

/// Where entries gather.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    open: Vec<u8>,
    entries: u64,
    opened_at: Option<Instant>,
    full: VecDeque<Full>,
    full_bytes: usize,
    /// Entries of the record that is being appended.
    in_hand: u64,
}

/// What noting an entry has led to.
pub(super) struct Noted {
    /// Whether the writer has something new to do.
    pub(super) wakes: bool,
    /// How many entries had to go.
    pub(super) lost: u64,
}

impl Gathering {
    /// Notes an entry, which `put` writes.
    pub(super) fn note(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Noted {
        let opens = self.opened_at.is_none();
        if opens {
            self.open.reserve(RECORD_BYTES + RECORD_BYTES / 8);
            self.open.extend_from_slice(HEAD);
            self.opened_at = Some(Instant::now());
        } else {
            self.open.push(b',');
        }
        put(&mut self.open);
        self.entries += 1;
        let closes = self.open.len() >= RECORD_BYTES || self.entries >= RECORD_ENTRIES;
        if closes {
            self.close();
        }
        let mut lost = 0;
        while self.full_bytes > WAITING_BYTES
            && let Some(oldest) = self.take()
        {
            lost += oldest.entries;
        }
        Noted { wakes: opens || closes, lost }
    }

    /// Closes the open record, if there is one.
    fn close(&mut self) {
        if self.opened_at.take().is_some() {
            self.open.extend_from_slice(TAIL);
            let body = Bytes::from(std::mem::take(&mut self.open));
            self.full_bytes += body.len();
            self.full.push_back(Full { body, entries: std::mem::take(&mut self.entries) });
        }
    }

    fn take(&mut self) -> Option<Full> {
        let full = self.full.pop_front()?;
        self.full_bytes -= full.body.len();
        Some(full)
    }

    /// Lets go of everything; how many entries that were.
    pub(super) fn clear(&mut self) -> u64 {
        self.close();
        let waiting: u64 = std::iter::from_fn(|| self.take()).map(|full| full.entries).sum();
        waiting + std::mem::take(&mut self.in_hand)
    }
}

/// The task that appends.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: Arc<dyn Broker>,
}

impl Writer {
    /// Appends until it is told to finish and nothing is left.
    pub(super) async fn run(self) {
        let mut outage = None;
        while let Some(full) = self.next().await {
            if !self.append(full, &mut outage).await {
                return;
            }
        }
    }

    /// The next record to append; `None` when that was all.
    async fn next(&self) -> Option<Full> {
        loop {
            let finishes = self.shared.finish.is_cancelled();
            let due = {
                let mut gathering = self.shared.gathering();
                let due = gathering.opened_at.map(|at| at + OPEN_MAX);
                if finishes || (gathering.full.is_empty() && due.is_some_and(|due| due <= Instant::now())) {
                    gathering.close();
                }
                match gathering.take() {
                    Some(full) => {
                        gathering.in_hand = full.entries;
                        return Some(full);
                    }
                    None if finishes => return None,
                    None => due,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = self.shared.finish.cancelled() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Appends one record, however long that takes. False where the worker stops before it could.
    async fn append(&self, full: Full, outage: &mut Option<Outage>) -> bool {
        let message = Message {
            to: Destination::Log(Log::Deliveries),
            id: Uuid::now_v7().to_string(),
            body: Bytes::clone(&full.body),
        };
        let mut wait = RETRY_FIRST;
        loop {
            let error = match self.broker.publish(message.clone()).await {
                Ok(()) => {
                    self.shared.gathering().in_hand = 0;
                    if let Some(outage) = outage.take() {
                        let lost = self.shared.lost() - outage.lost_before;
                        info!(lost, "what becomes of deliveries is written down again");
                    }
                    return true;
                }
                Err(error) => error,
            };
            if self.shared.finish.is_cancelled() {
                return false;
            }
            let outage =
                outage.get_or_insert_with(|| Outage { tells: Seldom::default(), lost_before: self.shared.lost() });
            if outage.tells.is_due() {
                let lost = self.shared.lost() - outage.lost_before;
                warn!(%error, hint = error.hint(), lost, "what becomes of deliveries cannot be written down: all is delivered as ever, and the console cannot tell of it");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.finish.cancelled() => {}
            }
            wait = (wait * 2).min(RETRY_LONGEST);
        }
    }
}

/// Since when nothing can be appended.
struct Outage {
    tells: Seldom,
    lost_before: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> impl Fn(&mut Vec<u8>) {
        move |out| out.extend(std::iter::repeat_n(b'1', bytes))
    }

    #[test]
    fn a_record_is_closed_when_it_is_full_and_never_larger_than_one_entry_more() {
        let mut gathering = Gathering::default();
        let first = gathering.note(put(100));
        assert!(first.wakes && first.lost == 0 && gathering.full.is_empty());
        assert!(!gathering.note(put(100)).wakes, "the writer knows of this record");
        while gathering.full.is_empty() {
            gathering.note(put(100));
        }
        let full = gathering.take().unwrap();
        assert!((RECORD_BYTES..RECORD_BYTES + 110).contains(&full.body.len()), "{}", full.body.len());
        assert!(full.body.starts_with(HEAD) && full.body.ends_with(TAIL) && gathering.full_bytes == 0);
        for _ in 0..RECORD_ENTRIES {
            gathering.note(put(1));
        }
        let full = gathering.take().unwrap();
        assert_eq!(full.entries, RECORD_ENTRIES);
        assert!(serde_json::from_slice::<serde_json::Value>(&full.body).is_ok());
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_and_is_counted() {
        let mut gathering = Gathering::default();
        let (mut noted, mut lost) = (0_u64, 0);
        while lost == 0 {
            lost += gathering.note(put(10_000)).lost;
            noted += 1;
        }
        assert!(gathering.full_bytes <= WAITING_BYTES, "{}", gathering.full_bytes);
        assert!(noted * 10_000 > WAITING_BYTES as u64, "{noted}");
        assert_eq!(lost, 5, "one record of 40 KiB");
        assert_eq!(gathering.clear(), noted - lost);
        assert_eq!((gathering.full_bytes, gathering.clear()), (0, 0));
    }
}
