//! The inbox of the keeper's thread: everything that anybody wants of the embedded broker goes through it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    broker::{Arrival, BrokerError, Log, Message, PublishError, Queue, Record, Start, receipt::Desk},
    model::ChannelId,
};

/// A receipt that was closed.
pub(super) struct Closing {
    pub(super) queue: Queue,
    pub(super) place: u64,
    pub(super) settled: bool,
}

/// A message to write, and who waits for it.
pub(super) struct Job {
    pub(super) message: Message,
    pub(super) done: oneshot::Sender<Result<(), PublishError>>,
}

/// Where a reader goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Start(Start),
    From(u64),
}

/// Records, and the place after the last one that the log has.
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    pub(super) end: u64,
}

type Answer<T> = oneshot::Sender<Result<T, BrokerError>>;

/// Anything else.
pub(super) enum Ask {
    Consume { id: u64, queue: Queue, window: u16, arrivals: mpsc::Sender<Arrival> },
    Gone { id: u64, queue: Queue },
    EnsureLanes { lanes: Vec<ChannelId>, done: Answer<()> },
    RemoveLane { lane: ChannelId, done: Answer<u64> },
    Waiting { queue: Queue, done: Answer<u64> },
    Read { log: Log, from: Place, most: usize, done: Answer<Page> },
}

/// What came in since the keeper last looked.
#[derive(Default)]
pub(super) struct Post {
    pub(super) jobs: Vec<Job>,
    pub(super) closings: Vec<Closing>,
    pub(super) asks: Vec<Ask>,
    pub(super) stop: bool,
    /// The keeper is gone: nothing is taken any more.
    over: bool,
}

impl Post {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.closings.is_empty() && self.asks.is_empty() && !self.stop
    }
}

/// The inbox. Bounded by those who use it: publishers hold a permit each, receipts are bounded by the windows.
#[derive(Default)]
pub(super) struct Inbox {
    post: Mutex<Post>,
    bell: Condvar,
}

impl Inbox {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, put: impl FnOnce(&mut Post)) {
        let mut post = self.post();
        if post.over {
            return;
        }
        let silent = post.is_empty();
        put(&mut post);
        drop(post);
        if silent {
            self.bell.notify_one();
        }
    }

    pub(super) fn publish(&self, job: Job) {
        self.put(|post| post.jobs.push(job));
    }

    pub(super) fn ask(&self, ask: Ask) {
        self.put(|post| post.asks.push(ask));
    }

    pub(super) fn stop(&self) {
        self.put(|post| post.stop = true);
    }

    /// Everything that came in; waits for something at most `patience`.
    pub(super) fn take(&self, patience: Duration) -> Post {
        let post = self.post();
        let (mut post, _) = self
            .bell
            .wait_timeout_while(post, patience, |post| post.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *post)
    }

    /// Takes nothing any more, and drops what is there: whoever waits learns of it by that.
    pub(super) fn end(&self) {
        let mut post = self.post();
        *post = Post { over: true, ..Post::default() };
    }
}

/// Where the receipts of one consumer come back.
pub(super) struct ConsumerDesk {
    pub(super) inbox: Arc<Inbox>,
    pub(super) queue: Queue,
}

impl std::fmt::Debug for ConsumerDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerDesk").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Desk for ConsumerDesk {
    fn close(&self, tag: u64, settled: bool) {
        let queue = self.queue.clone();
        self.inbox.put(|post| post.closings.push(Closing { queue, place: tag, settled }));
    }
}
