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

use std::{ops::ControlFlow, sync::Arc};

use tokio::sync::mpsc;

pub use record::{Content, Deed, Entry};
pub use standing::{Change, Made, Pause, Standing};

use crate::broker::{
    Broker, Destination, Log, Message, PublishError, Record,
    following::{Follower, follow, known},
};

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

    /// Reads the log from its first record and tells what comes, until nobody listens. It outlives every trouble of the broker.
    pub async fn follow(self, news: mpsc::Sender<News>) {
        let mut listener = Listener { news, beginning: None };
        follow(&*self.broker, Log::Channels, "channels", &mut listener).await;
    }
}

/// Who tells what the log tells.
struct Listener {
    news: mpsc::Sender<News>,
    /// What the beginning of the log amounts to, while it is read.
    beginning: Option<Standing>,
}

impl Listener {
    async fn tell(&self, news: News) -> ControlFlow<()> {
        if self.news.send(news).await.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Follower for Listener {
    fn begin(&mut self, _: u64) {
        self.beginning = Some(Standing::default());
    }

    async fn take(&mut self, record: Record) -> ControlFlow<()> {
        let Some(entry) = known("channels", &record, Entry::decode(&record.body)) else {
            return ControlFlow::Continue(());
        };
        match &mut self.beginning {
            Some(standing) => {
                standing.apply(entry);
                ControlFlow::Continue(())
            }
            None => self.tell(News::Entry(entry)).await,
        }
    }

    async fn is_whole(&mut self) -> ControlFlow<()> {
        let whole = self.beginning.take().unwrap_or_default();
        self.tell(News::Whole(whole)).await
    }

    async fn closed(&self) {
        self.news.closed().await;
    }
}
