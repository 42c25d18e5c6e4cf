//! The desk where operators change channels of the log, and try them.
//!
//! A change is answered when its record is confirmed, this worker has read it back, and its lane does as it says: the other
//! workers read the same log, and follow within a second. Nothing that could be refused is written: the queue of a new channel is
//! made before the record.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::{
    Book, Complaint, Kept, Report,
    book::seal,
    draft::{self, Draft},
    trial::try_channel,
};
use crate::{
    broker::{Broker, BrokerError, PublishError},
    channel_log::{ChannelLog, Deed, Entry, Standing},
    channels::Links,
    config::{self, ChannelPlan},
    lane::Post,
    model::{ChannelId, Clock, Decision, DecisionKind, Delivery, Egress, Scrubber},
    sealing::Key,
};

/// The most channels of the log.
const CHANNELS_MAX: usize = 1_000;

/// How long the queue of a new channel may take to be made.
const QUEUE_MAX: Duration = Duration::from_secs(15);

/// How long a confirmed record may take to be heard and done here.
const HEARD_MAX: Duration = Duration::from_secs(15);

/// How long a worker that has only just started may take to read the log, before a caller is told to come again.
const READ_MAX: Duration = Duration::from_secs(5);

/// Tests at once, of different channels, and how long one may take.
const TESTS_MAX: usize = 4;
const TEST_MAX: Duration = Duration::from_secs(30);

/// What the desk sees of the worker.
pub struct Present {
    /// Where a channel may be pointed.
    pub egress: Egress,
    /// Where links in cards point.
    pub links: Arc<Links>,
    /// The socket.
    pub post: Arc<dyn Post>,
    /// Every channel that is run.
    pub channels: Vec<ChannelPlan>,
    /// Those of the file.
    pub file: BTreeSet<ChannelId>,
    /// Those of the log.
    pub book: Book,
}

/// Upon which version a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Upon any.
    Always,
    /// Only where there is no such channel yet.
    Absent,
    /// Only where there is one.
    There,
    /// Only upon this one.
    Version(Uuid),
}

/// What a put came to.
#[derive(Debug)]
pub struct Put {
    /// Whether the channel is new.
    pub created: bool,
    /// What looks wrong in it.
    pub warnings: Vec<Complaint>,
}

/// Which configuration is tried.
#[derive(Debug)]
pub enum Subject {
    /// The one that is run.
    Present,
    /// One that is not saved; its masks stand for the secrets of the channel with its id.
    Sent(Map<String, Value>),
}

/// Why nothing was done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The channel is the file's.
    #[error("the channel `{0}` comes from the worker's configuration file and is read-only here")]
    Provisioned(ChannelId),
    /// There is no key.
    #[error("this worker has no key, and a channel must not be kept unsealed")]
    NoKey,
    /// There is no such channel.
    #[error("there is no channel `{0}`")]
    Unknown(ChannelId),
    /// The channel is there and cannot be read.
    #[error("the channel `{channel}` cannot be read by this worker: {why}")]
    Locked {
        /// Which.
        channel: ChannelId,
        /// Why.
        why: String,
    },
    /// What was sent is no channel that could be run.
    #[error("the channel has {}", if .0.len() == 1 { String::from("1 fault") } else { format!("{} faults", .0.len()) })]
    Faulty(Vec<Complaint>),
    /// There are enough.
    #[error("there are {CHANNELS_MAX} channels made over the API, which is the most")]
    TooMany,
    /// Somebody else has changed the channel.
    #[error("the channel `{0}` is not in the version that the request was made upon")]
    Changed(ChannelId),
    /// The worker has not read the log yet.
    #[error("this worker does not know yet which channels there are")]
    NotReady,
    /// The queue could not be made.
    #[error("the queue of the channel could not be made: {0}")]
    Queue(BrokerError),
    /// The record could not be written.
    #[error("the broker did not confirm it: {0}")]
    Write(PublishError),
    /// It could not be sealed.
    #[error("the channel could not be sealed: {0}")]
    Seal(std::io::Error),
    /// It is written and not done.
    #[error("it is written down for the whole pool, and this worker has not done it yet")]
    NotYet,
    /// Too many tests.
    #[error("{0}")]
    Busy(&'static str),
    /// Not a decision to test with.
    #[error("the decision to test with is none: {0}")]
    Decision(String),
    /// Not a decision to test with.
    #[error("a test must not ask for an approval: somebody could answer it")]
    Approval,
}

impl Refusal {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Provisioned(_) => "change it in the file, or give this channel another id",
            Self::NoKey => {
                "set INTERVEN_ALERTS_KEY to the same secret text in every worker of the pool, and restart them"
            }
            Self::Unknown(_) => "`GET /api/channels` lists the channels of this worker",
            Self::Locked { .. } => "ask a worker that has the pool's key",
            Self::Faulty(_) => "`faults` lists every one with its key; the keys are those of `[[channel]]` in the file",
            Self::TooMany => "delete those that are not needed, or put channels into the file",
            Self::Changed(_) => "look at it again, and send the change upon its present `ETag`",
            Self::NotReady => "send the request again in a moment; the worker's log says what it waits for",
            Self::Queue(cause) => cause.hint,
            Self::Write(_) => "send the request again: to put or delete twice is the same as once",
            Self::Seal(_) => "the system gives no random numbers: look at the worker's machine",
            Self::NotYet => "look again with `GET /api/channels`; it is not lost",
            Self::Busy(_) => "wait for the tests under way, and send it again",
            Self::Decision(_) => "leave `decision` out, or give one as it would be published",
            Self::Approval => "test with a decision of another kind: buttons look alike, and only real ones may work",
        }
    }
}

/// The desk. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    key: Option<Key>,
    broker: Arc<dyn Broker>,
    log: ChannelLog,
    clock: Clock,
    scrubber: Scrubber,
    present: watch::Receiver<Option<Arc<Present>>>,
    standing: watch::Receiver<Arc<Standing>>,
    places: Arc<Semaphore>,
    under_test: Arc<Mutex<BTreeSet<ChannelId>>>,
}

impl Desk {
    /// A desk that seals with `key` and sees the worker as `present` and `standing` say. What it is told, `scrubber` hides.
    pub fn new(
        key: Option<Key>,
        broker: Arc<dyn Broker>,
        clock: Clock,
        scrubber: Scrubber,
        present: watch::Receiver<Option<Arc<Present>>>,
        standing: watch::Receiver<Arc<Standing>>,
    ) -> Self {
        let (log, places) = (ChannelLog::new(Arc::clone(&broker)), Arc::new(Semaphore::new(TESTS_MAX)));
        Self { key, broker, log, clock, scrubber, present, standing, places, under_test: Arc::default() }
    }

    /// What channels there are. A worker that has only just started is given a moment to read it.
    async fn present(&self) -> Result<Arc<Present>, Refusal> {
        let mut present = self.present.clone();
        let read = tokio::time::timeout(READ_MAX, present.wait_for(Option::is_some)).await;
        let present = read.ok().and_then(Result::ok).and_then(|present| present.clone());
        present.ok_or(Refusal::NotReady)
    }

    /// What the log amounts to, waited for as [`Self::present`].
    async fn standing(&self) -> Result<Arc<Standing>, Refusal> {
        let mut standing = self.standing.clone();
        let read = tokio::time::timeout(READ_MAX, standing.wait_for(|standing| standing.is_known())).await;
        read.ok().and_then(Result::ok).map(|standing| Arc::clone(&standing)).ok_or(Refusal::NotReady)
    }

    /// Makes the channel `id`, or makes it anew.
    pub async fn put(
        &self,
        id: &ChannelId,
        sent: &Map<String, Value>,
        by: &str,
        condition: Condition,
    ) -> Result<Put, Refusal> {
        let (present, standing) = (self.present().await?, self.standing().await?);
        if present.file.contains(id) {
            return Err(Refusal::Provisioned(id.clone()));
        }
        let key = self.key.as_ref().ok_or(Refusal::NoKey)?;
        let before = standing.channel(id).map(|made| made.version);
        let after = after(id, condition, before)?;
        if before.is_none() && standing.channels().len() >= CHANNELS_MAX {
            return Err(Refusal::TooMany);
        }
        let kept = present.book.channels().get(id);
        let draft =
            draft::read(id, sent, &present.egress, kept.and_then(|kept| kept.draft())).map_err(Refusal::Faulty)?;
        self.scrubber.learn(draft.secrets.iter().cloned());
        // A secret that is kept is that of the version it was taken from.
        let after = after.or_else(|| kept.filter(|_| draft.keeps).map(|kept| kept.version()));
        let asked = AskedFor { desk: self, id };
        if before.is_none() {
            self.ensure_queue(id).await?;
        }
        let content = seal(key, id, &draft).map_err(Refusal::Seal)?;
        let entry = Entry::put(id.clone(), content, by, self.clock.now()).only_after(after);
        self.log.append(&entry).await.map_err(Refusal::Write)?;
        // The channel is there, and so whoever runs it sees to its queue.
        std::mem::forget(asked);
        self.heard(entry).await?;
        let Draft { warnings, .. } = draft;
        Ok(Put { created: before.is_none(), warnings })
    }

    /// What is wrong with a channel that is not saved, if anything is. Its masks stand for the secrets of the channel with its id.
    pub async fn check(&self, id: &ChannelId, sent: &Map<String, Value>) -> Result<(), Refusal> {
        let present = self.present().await?;
        let kept = present.book.channels().get(id).filter(|_| !present.file.contains(id));
        let draft = draft::read(id, sent, &present.egress, kept.and_then(|kept| kept.draft()));
        draft.map(drop).map_err(Refusal::Faulty)
    }

    /// Removes the channel `id`; whether the file has one of this id, which stays.
    pub async fn delete(&self, id: &ChannelId, by: &str, condition: Condition) -> Result<bool, Refusal> {
        let (present, standing) = (self.present().await?, self.standing().await?);
        let in_file = present.file.contains(id);
        let Some(before) = standing.channel(id).map(|made| made.version) else {
            return Err(if in_file { Refusal::Provisioned(id.clone()) } else { Refusal::Unknown(id.clone()) });
        };
        let after = after(id, condition, Some(before))?;
        let entry = Entry::new(id.clone(), Deed::Delete, by, None, self.clock.now()).only_after(after);
        self.log.append(&entry).await.map_err(Refusal::Write)?;
        self.heard(entry).await?;
        Ok(in_file)
    }

    /// Makes sure that the channel can have its queue, so that one that cannot is not written down.
    async fn ensure_queue(&self, id: &ChannelId) -> Result<(), Refusal> {
        let late = |_| BrokerError {
            what: format!("the broker did not answer within {} s", QUEUE_MAX.as_secs()),
            hint: "send the request again when the broker is well",
            source: None,
        };
        let made = tokio::time::timeout(QUEUE_MAX, self.broker.ensure_lanes(vec![id.clone()])).await;
        made.map_err(late).flatten().map_err(Refusal::Queue)
    }

    /// Waits until this worker has done what the record says.
    async fn heard(&self, entry: Entry) -> Result<(), Refusal> {
        let mut standing = self.standing.clone();
        let heard = standing.wait_for(|standing| standing.has(entry.id));
        // The inner error says that the worker stops; then the next one does it.
        let Ok(Ok(standing)) = tokio::time::timeout(HEARD_MAX, heard).await else { return Err(Refusal::NotYet) };
        if standing.was_void(entry.id) { Err(Refusal::Changed(entry.channel)) } else { Ok(()) }
    }

    /// Sends one sample through the channel, at once: with its own socket, time limit and guard, past its queue and pace.
    pub async fn test(
        &self,
        id: &ChannelId,
        subject: Subject,
        decision: Option<Map<String, Value>>,
    ) -> Result<Report, Refusal> {
        let present = self.present().await?;
        let kept = present.book.channels().get(id).filter(|_| !present.file.contains(id));
        let plan = match subject {
            Subject::Present => {
                if let Some(why) = kept.and_then(|kept| kept.locked()) {
                    return Err(Refusal::Locked { channel: id.clone(), why: why.to_owned() });
                }
                let plan = present.channels.iter().find(|channel| channel.id == *id);
                plan.cloned().ok_or_else(|| Refusal::Unknown(id.clone()))?
            }
            Subject::Sent(sent) => {
                let kept = kept.and_then(|kept: &Arc<Kept>| kept.draft());
                let draft = draft::read(id, &sent, &present.egress, kept).map_err(Refusal::Faulty)?;
                self.scrubber.learn(draft.secrets.iter().cloned());
                draft.plan
            }
        };
        let now = self.clock.now();
        let sample = match decision {
            None => config::sample(&plan, now),
            Some(decision) => Delivery::new(Arc::new(marked(id, decision)?), id.clone(), now),
        };
        let _place = self.places.try_acquire().map_err(|_| Refusal::Busy("too many channels are tested at once"))?;
        let _turn = Turn::take(&self.under_test, id).ok_or(Refusal::Busy("this channel is being tested already"))?;
        Ok(try_channel(&plan, &sample, &present.links, &*present.post, &self.scrubber, (now, TEST_MAX)).await)
    }
}

/// A channel whose queue was asked for and that is not written down yet. A broker that must not make queues refuses every connection
/// while one that is asked for is missing: so what comes to nothing is forgotten, also where the caller has gone or the broker has.
struct AskedFor<'a> {
    desk: &'a Desk,
    id: &'a ChannelId,
}

impl Drop for AskedFor<'_> {
    fn drop(&mut self) {
        let in_use = |present: &Present| present.channels.iter().any(|channel| channel.id == *self.id);
        if !self.desk.present.borrow().as_deref().is_some_and(in_use) {
            self.desk.broker.forget_lane(self.id);
        }
    }
}

/// The version upon which the record is to count, for the log to decide. What can be seen here already is refused at once.
fn after(id: &ChannelId, condition: Condition, before: Option<Uuid>) -> Result<Option<Uuid>, Refusal> {
    let wanted = match (condition, before) {
        (Condition::Always, _) => return Ok(None),
        (Condition::Absent, _) => Uuid::nil(),
        (Condition::There, Some(version)) | (Condition::Version(version), _) => version,
        (Condition::There, None) => return Err(Refusal::Changed(id.clone())),
    };
    if wanted == before.unwrap_or_default() { Ok(Some(wanted)) } else { Err(Refusal::Changed(id.clone())) }
}

/// A decision of the caller's that nobody can take for a real one, and that nobody can answer.
fn marked(id: &ChannelId, mut decision: Map<String, Value>) -> Result<Decision, Refusal> {
    let title = decision.get("title").and_then(Value::as_str).unwrap_or("nothing happened, no action is needed");
    let title = format!("TEST of channel {id}: {title}");
    let test = [("id", json!(format!("test-{}", Uuid::new_v4()))), ("title", json!(title)), ("test", json!(true))];
    decision.extend(test.map(|(key, value)| (key.to_owned(), value)));
    let decision = Decision::decode(Value::from(decision).to_string().into())
        .map_err(|error| Refusal::Decision(error.to_string()))?;
    if decision.kind == DecisionKind::RequireApproval { Err(Refusal::Approval) } else { Ok(decision) }
}

/// One test of one channel.
struct Turn<'a> {
    all: &'a Mutex<BTreeSet<ChannelId>>,
    id: ChannelId,
}

impl<'a> Turn<'a> {
    fn take(all: &'a Mutex<BTreeSet<ChannelId>>, id: &ChannelId) -> Option<Self> {
        let is_first = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        is_first.then(|| Self { all, id: id.clone() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_refused_where_it_was_made_upon_another_version() {
        let id: ChannelId = "soc".parse().unwrap();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let upon = |condition, before| after(&id, condition, before).ok();
        for (condition, before, expected) in [
            (Condition::Always, None, Some(None)),
            (Condition::Always, Some(one), Some(None)),
            (Condition::Absent, None, Some(Some(Uuid::nil()))),
            (Condition::Absent, Some(one), None),
            (Condition::There, Some(one), Some(Some(one))),
            (Condition::There, None, None),
            (Condition::Version(one), Some(one), Some(Some(one))),
            (Condition::Version(other), Some(one), None),
            (Condition::Version(one), None, None),
        ] {
            assert_eq!(upon(condition, before), expected, "{condition:?} upon {before:?}");
        }
    }

    #[test]
    fn a_decision_to_test_with_is_clearly_a_test_and_asks_nobody_for_an_approval() {
        let id: ChannelId = "soc".parse().unwrap();
        let decision = |kind: &str| {
            let decision = json!({
                "id": "real-1", "time": "2026-06-01T12:00:00Z", "decision": kind, "severity": "LOW",
                "agent": {"id": "a"}, "tool": "t", "title": "Secret egress", "approval": {"id": "apr_7"},
            });
            marked(&id, decision.as_object().unwrap().clone())
        };
        let sample = decision("DENY").unwrap();
        assert!(sample.id.starts_with("test-"), "{}", sample.id);
        assert_eq!(sample.title.as_deref(), Some("TEST of channel soc: Secret egress"));
        assert!(matches!(decision("REQUIRE_APPROVAL"), Err(Refusal::Approval)));
        assert!(matches!(decision("NOTHING"), Err(Refusal::Decision(_))));
    }
}
