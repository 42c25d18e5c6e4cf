//! What the pool knows of its channels beyond the configuration: the log `...log.channels`, which every worker follows.
//!
//! An operator who pauses a channel tells one worker, and it must hold in all of them and after all of them were restarted, so it
//! is a record in a log on the broker, and the last record of a channel counts. Channels that are made over the API are there too,
//! sealed; a worker holds one record of each, however long the log has become. The same log says which lanes there are, because
//! AMQP cannot list queues and a lane whose channel was removed must not be forgotten with what waits in it.
//!
//! Absent on purpose: what follows from a record. The worker's steward (`app`) tells the lanes.
//!
//! Start with [`ChannelLog::follow`]; `record.rs` is the wire format, `standing.rs` what the records amount to.

mod record;
mod standing;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{debug, warn};
use uuid::Uuid;

pub use record::{Content, Deed, Entry};
pub use standing::{Change, Made, Pause, Standing};

use crate::broker::{Broker, BrokerError, Destination, End, Health, Log, Message, PublishError, Record, Start};

/// Waits between tries to read the log.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// How long appending a mark may take, and how long a log that holds one may give nothing.
const MARK_MAX: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What a follower hears.
#[derive(Debug)]
pub enum News {
    /// What the whole log amounts to: first, and again whenever the connection was lost in between.
    Whole(Standing),
    /// One more record.
    Entry(Entry),
}

/// The log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChannelLog {
    broker: Arc<dyn Broker>,
}

impl ChannelLog {
    /// The log on this broker.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker }
    }

    /// Appends a record; `Ok` when the broker has confirmed it.
    pub async fn append(&self, entry: &Entry) -> Result<(), PublishError> {
        let message = Message { to: Destination::Log(Log::Channels), id: entry.id.to_string(), body: entry.to_bytes() };
        self.broker.publish(message).await
    }

    /// Reads the log from its first record and tells what comes, until nobody listens. It outlives every trouble of the broker, and
    /// begins again when the connection was lost: a broker that was made anew may number its records from the beginning.
    pub async fn follow(self, news: mpsc::Sender<News>) {
        let mut health = self.broker.health();
        let mut wait = AGAIN_FIRST;
        while !news.is_closed() {
            if health.wait_for(|health| health.connected).await.is_err() {
                return;
            }
            let since = health.borrow_and_update().reconnects;
            let outcome = tokio::select! {
                outcome = self.read(&news, &mut wait) => outcome,
                anew = made_anew(&mut health, since) => {
                    if anew {
                        continue;
                    }
                    return;
                }
                () = news.closed() => return,
            };
            if let Err(error) = outcome {
                warn!(%error, hint = error.hint, retry_in = ?wait, "the log of the channels could not be read");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN_LONGEST);
        }
    }

    /// Tells the whole log, then each record that comes, until that fails.
    async fn read(&self, news: &mpsc::Sender<News>, wait: &mut Duration) -> Result<(), BrokerError> {
        let present = self.find_present().await?;
        let mut records = self.broker.read(Log::Channels, Start::First, End::Follow);
        let mut standing = Standing::default();
        let mut is_whole = matches!(present, Present::Empty);
        while !is_whole {
            let late = || BrokerError {
                what: String::from("the log of the channels gives nothing"),
                hint: "look at the broker's log: the stream may be without a majority of its nodes",
                source: None,
            };
            let Some(record) = timeout(SILENCE_MAX, records.recv()).await.map_err(|_| late())? else { return Ok(()) };
            let record = record?;
            if let Some(entry) = decode(&record) {
                standing.apply(entry);
            }
            is_whole = match present {
                Present::Empty => true,
                Present::Mark(id) => record::is_mark(&record.body, id),
                Present::At(last) => record.offset >= last,
            };
        }
        *wait = AGAIN_FIRST;
        let mut heard = news.send(News::Whole(standing)).await;
        while heard.is_ok()
            && let Some(record) = records.recv().await
        {
            if let Some(entry) = decode(&record?) {
                heard = news.send(News::Entry(entry)).await;
            }
        }
        Ok(())
    }

    /// Finds out where the log ends at present. A stream cannot be asked for its end, and finding it by waiting for silence takes
    /// long, so a mark is appended: all that was there before stands before it. Where nothing can be written (a broker with a
    /// full disk still reads), it is waited for all the same.
    async fn find_present(&self) -> Result<Present, BrokerError> {
        let id = Uuid::now_v7();
        let message = Message { to: Destination::Log(Log::Channels), id: id.to_string(), body: record::mark(id) };
        if let Ok(Ok(())) = timeout(MARK_MAX, self.broker.publish(message)).await {
            return Ok(Present::Mark(id));
        }
        let mut last = Present::Empty;
        let mut records = self.broker.read(Log::Channels, Start::First, End::Present);
        while let Some(record) = records.recv().await {
            last = Present::At(record?.offset);
        }
        Ok(last)
    }
}

/// Where the log ends at present.
#[derive(Clone, Copy, Debug)]
enum Present {
    /// There is nothing in it.
    Empty,
    /// With the mark with this id.
    Mark(Uuid),
    /// With the record at this place.
    At(u64),
}

/// Waits until the connection was made again since `since`; false when it never will be.
async fn made_anew(health: &mut watch::Receiver<Health>, since: u64) -> bool {
    health.wait_for(|health| health.reconnects != since).await.is_ok()
}

fn decode(record: &Record) -> Option<Entry> {
    match Entry::decode(&record.body) {
        Ok(Some(entry)) => Some(entry),
        Ok(None) => {
            debug!(offset = record.offset, "a mark, or a record that only a newer worker knows");
            None
        }
        Err(error) => {
            debug!(offset = record.offset, %error, "a record of the log of the channels is none, and is passed over");
            None
        }
    }
}
