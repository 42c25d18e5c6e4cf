//! What a stand-in received: counters and decision ids always, whole messages as long as there is room.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::Digest;

/// How many different decision ids are told apart; further ones only raise a counter.
const IDS_MAX: usize = 2_000_000;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is a message, and it is posted.
    Taken,
    /// It is answered as a success, but nobody will ever see it, for this reason. Real platforms do this; a worker must not
    /// let it come to that.
    Swallowed(String),
    /// It is not posted, and the reply (or its absence) says so. Of a refused batch, the decisions in `ids` are posted.
    Refused,
    /// It is no message: a health check, the update of a card.
    Aside,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had been read whole.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, inflated where it was compressed.
    pub body: Bytes,
    /// What became of it.
    pub fate: Fate,
    /// The decisions that it told, each as often as it was told. A digest tells none: it counts them.
    pub ids: Vec<String>,
    /// The digest, where it is one and is posted.
    pub digest: Option<Digest>,
    /// The status that was answered; none where nothing was.
    pub status: Option<u16>,
}

impl Received {
    /// How many decisions it counts, where it is a digest and is posted.
    pub fn digest_total(&self) -> Option<u64> {
        self.digest.as_ref().map(|digest| digest.total)
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All requests.
    pub requests: u64,
    /// Messages that are posted.
    pub taken: u64,
    /// Requests that were answered as a success while nobody will see the message.
    pub swallowed: u64,
    /// Requests that were turned down, or scripted to fail.
    pub refused: u64,
    /// Requests above the strict rate.
    pub violations: u64,
    /// Requests that came while the endpoint had asked to be left alone. A worker that sends several at once may have had some
    /// under way when it was asked.
    pub impatient: u64,
    /// Decision ids that were not told apart, because there were too many.
    pub ids_beyond: u64,
    /// Digests that are posted; they count among `taken` too.
    pub digests: u64,
    /// The decisions that those digests count, together.
    pub folded: u64,
}

/// Everything received.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) counters: Counters,
    ids: HashMap<String, u32>,
    kept: VecDeque<Arc<Received>>,
    kept_bytes: usize,
    kept_bytes_max: usize,
}

impl Records {
    pub(super) fn new(kept_bytes_max: usize) -> Self {
        Self {
            counters: Counters::default(),
            ids: HashMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            kept_bytes_max,
        }
    }

    /// Counts and keeps one more; the oldest are dropped where room is needed.
    pub(super) fn add(&mut self, received: Arc<Received>) {
        match received.fate {
            Fate::Taken => self.counters.taken += 1,
            Fate::Swallowed(_) => self.counters.swallowed += 1,
            Fate::Refused => self.counters.refused += 1,
            Fate::Aside => {}
        }
        if let Some(total) = received.digest_total() {
            self.counters.digests += 1;
            self.counters.folded += total;
        }
        for id in &received.ids {
            if let Some(count) = self.ids.get_mut(id) {
                *count += 1;
            } else if self.ids.len() < IDS_MAX {
                self.ids.insert(id.clone(), 1);
            } else {
                self.counters.ids_beyond += 1;
            }
        }
        self.kept_bytes += weight(&received);
        self.kept.push_back(received);
        while self.kept_bytes > self.kept_bytes_max {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= weight(&oldest);
        }
    }

    pub(super) fn ids(&self) -> HashMap<String, u32> {
        self.ids.clone()
    }

    pub(super) fn times_received(&self, id: &str) -> u32 {
        self.ids.get(id).copied().unwrap_or(0)
    }

    pub(super) fn different_ids(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn kept(&self) -> Vec<Arc<Received>> {
        self.kept.iter().cloned().collect()
    }
}

/// What keeping a request costs, in bytes, roughly.
fn weight(received: &Received) -> usize {
    let headers: usize = received.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
    512 + received.body.len() + received.path.len() + received.query.len() + headers
}
