//! Following a log: from its first record, for ever, through every trouble of the broker.
//!
//! After a lost connection the log is read again from its beginning: a broker that was made anew may number its records from the
//! beginning too, and nothing else tells. What was heard before stays true until then, so a follower keeps it until it hears that
//! it has heard all.
//!
//! A stream cannot be asked where it ends, and finding that out by waiting for silence takes long, so a mark is appended: all that
//! was there before stands before it. Where nothing can be written (a broker with a full disk still reads), silence is waited for
//! all the same.

use std::{fmt, ops::ControlFlow, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{Broker, BrokerError, Destination, End, Health, Log, Message, Record, Start};

/// Waits between tries to read the log.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// How long appending a mark may take, and how long a log that holds one may give nothing.
const MARK_MAX: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What the record of a mark says that it does, in the form that the records of all logs have: nothing. Whoever wrote it sees by it that
/// it has read all that was there before.
const MARK: &str = "mark";

/// The version of a mark's layout.
const MARK_VERSION: u32 = 1;

/// The record of a mark.
pub fn mark(id: Uuid) -> Bytes {
    serde_json::json!({"v": MARK_VERSION, "id": id, "do": MARK}).to_string().into()
}

/// Whether the record is the mark with this id.
pub fn is_mark(bytes: &[u8], id: Uuid) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        id: Uuid,
        r#do: String,
    }
    serde_json::from_slice::<Kind>(bytes).is_ok_and(|kind| kind.r#do == MARK && kind.id == id)
}

/// What a record of a log was decoded to, where this worker knows it. What it does not know is passed over: one record that nobody
/// can read must not keep all others from being read. `name` is the log's.
pub fn known<T>(name: &str, record: &Record, decoded: Result<Option<T>, impl fmt::Display>) -> Option<T> {
    match decoded {
        Ok(Some(entry)) => Some(entry),
        Ok(None) => {
            debug!(offset = record.offset, "a mark, or a record that only a newer worker knows");
            None
        }
        Err(error) => {
            debug!(offset = record.offset, %error, "a record of the log of the {name} is none, and is passed over");
            None
        }
    }
}

/// Who follows a log. `Break` ends the following.
pub trait Follower: Send {
    /// The log is read from its beginning, on the connection that was made after so many others.
    fn begin(&mut self, reconnects: u64);

    /// The next record.
    fn take(&mut self, record: Record) -> impl Future<Output = ControlFlow<()>> + Send;

    /// All that was in the log when reading began has been taken.
    fn is_whole(&mut self) -> impl Future<Output = ControlFlow<()>> + Send;

    /// Resolves when nobody needs it any more.
    fn closed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Follows `log`, until the broker is closed or the follower does not want to. `name` is the log's in what is told of trouble.
pub async fn follow(broker: &dyn Broker, log: Log, name: &'static str, follower: &mut impl Follower) {
    let mut health = broker.health();
    let mut wait = AGAIN_FIRST;
    loop {
        if health.wait_for(|health| health.connected).await.is_err() {
            return;
        }
        let since = health.borrow_and_update().reconnects;
        let outcome = tokio::select! {
            outcome = read(broker, log, name, follower, since, &mut wait) => outcome,
            anew = made_anew(&mut health, since) => {
                if anew {
                    continue;
                }
                return;
            }
        };
        match outcome {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => {}
            Err(error) => warn!(%error, hint = error.hint, retry_in = ?wait, "the log of the {name} could not be read"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = follower.closed() => return,
        }
        wait = (wait * 2).min(AGAIN_LONGEST);
    }
}

/// Tells the whole log, then each record that comes, until that fails.
async fn read(
    broker: &dyn Broker,
    log: Log,
    name: &str,
    follower: &mut impl Follower,
    since: u64,
    wait: &mut Duration,
) -> Result<ControlFlow<()>, BrokerError> {
    let present = find_present(broker, log).await?;
    let mut records = broker.read(log, Start::First, End::Follow);
    follower.begin(since);
    let mut is_whole = matches!(present, Present::Empty);
    while !is_whole {
        let late = || BrokerError {
            what: format!("the log of the {name} gives nothing"),
            hint: "look at the broker's log: the stream may be without a majority of its nodes",
            source: None,
        };
        let record = timeout(SILENCE_MAX, records.recv()).await.map_err(|_| late())?;
        let Some(record) = record else { return Ok(ControlFlow::Continue(())) };
        let record = record?;
        is_whole = match present {
            Present::Empty => true,
            Present::Mark(id) => is_mark(&record.body, id),
            Present::At(last) => record.offset >= last,
        };
        if follower.take(record).await.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    *wait = AGAIN_FIRST;
    if follower.is_whole().await.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    loop {
        let record = tokio::select! {
            record = records.recv() => record,
            () = follower.closed() => return Ok(ControlFlow::Break(())),
        };
        let Some(record) = record else { return Ok(ControlFlow::Continue(())) };
        if follower.take(record?).await.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// Where a log ends at present.
#[derive(Clone, Copy, Debug)]
enum Present {
    /// There is nothing in it.
    Empty,
    /// With the mark with this id.
    Mark(Uuid),
    /// With the record at this place.
    At(u64),
}

/// Finds out where the log ends at present.
async fn find_present(broker: &dyn Broker, log: Log) -> Result<Present, BrokerError> {
    let id = Uuid::now_v7();
    let message = Message { to: Destination::Log(log), id: id.to_string(), body: mark(id) };
    if let Ok(Ok(())) = timeout(MARK_MAX, broker.publish(message)).await {
        return Ok(Present::Mark(id));
    }
    let mut last = Present::Empty;
    let mut records = broker.read(log, Start::First, End::Present);
    while let Some(record) = records.recv().await {
        last = Present::At(record?.offset);
    }
    Ok(last)
}

/// Waits until the connection was made again since `since`; false when it never will be.
async fn made_anew(health: &mut watch::Receiver<Health>, since: u64) -> bool {
    health.wait_for(|health| health.reconnects != since).await.is_ok()
}
