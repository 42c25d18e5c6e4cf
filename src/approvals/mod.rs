//! Approvals, the side door: an analyst's click -> recorded in one order for the whole pool -> published for the firewall.
//!
//! Clicks come to every worker, by Slack, the console and the API, many at once and about the same approval. They are appended to a
//! log on the broker that every worker follows, and the first one in it that was in time is the answer: no worker has to ask another
//! one, and all say the same. What the firewall asks for is in the log too, put there by the intake before the decision is
//! acknowledged, and so are the cards that can be changed later and what has been done about an answer. A worker that is started
//! reads the whole log and knows all that the others know.
//!
//! An approval is a grant for a while: for the same agent, tool and operation. The answer goes to the firewall as one message
//! (`publishing.rs`), and grants can be asked for.
//!
//! Absent on purpose: who may click, what a card looks like, how Slack is told. That is for whoever brings the click.
//!
//! Start with `table.rs`, which is pure and holds every rule; `record.rs` is the wire format; [`Approvals::answer`] is the door.

mod approval;
mod follower;
mod healing;
mod publishing;
mod record;
mod slim;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, broadcast, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

pub use approval::{Approval, Grant, Scope, State};
pub use publishing::answer_id;
pub use record::{Answer, By, Card, Claim, Click, Deed, Entry, RecordError, Shown, Via, asked};
pub use table::{Change, Fate, Limits, Table};
use uuid::Uuid;

pub use crate::channels::button::Name;
use crate::{
    broker::{Broker, Destination, Log, Message, PublishError},
    model::Clock,
    telemetry::Metrics,
};

/// How long an answer may take to be recorded and heard of.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How many answers may be under way at once: each is a person who waits.
const ANSWERS_MAX: usize = 1_024;

/// A recorded click that is not heard of for so long is recorded again: with the same id, so that it still counts once.
const HEARD_MAX: Duration = Duration::from_secs(5);

/// Waits between tries to record.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LONGEST: Duration = Duration::from_secs(2);

/// How much news is kept for those who listen slowly. Who falls behind is told [`News::Whole`].
const NEWS_MAX: usize = 1_024;

/// How often it is looked whose time is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For how long an approval is a grant.
    pub grant: Duration,
}

impl Default for Terms {
    /// Ten minutes. Source: the product page.
    fn default() -> Self {
        Self { grant: Duration::from_mins(10) }
    }
}

/// The answer to an approval.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The approval.
    pub approval: Arc<Approval>,
    /// The click that is the answer: who, what, when.
    pub click: Arc<Click>,
}

impl Answered {
    /// The answer to `approval`, if it has one.
    pub fn of(approval: &Arc<Approval>) -> Option<Self> {
        let click = Arc::clone(approval.answer.as_ref()?);
        Some(Self { approval: Arc::clone(approval), click })
    }
}

/// What has become of a click.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is the answer.
    Won(Answered),
    /// Somebody else was faster.
    Late(Answered),
    /// The time was over.
    Expired,
    /// Nobody asks for this approval.
    Unknown,
}

/// Why nobody can say what has become of a click. It may be the answer all the same: look again, or answer again.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The log has not been read to its end since the start, or since the broker was lost.
    #[error("this worker has not read yet which approvals there are")]
    NotRead,
    /// Too many at once.
    #[error("more than {ANSWERS_MAX} answers are being recorded")]
    Busy,
    /// It could not be recorded.
    #[error("the answer could not be recorded in time")]
    NotRecorded(#[source] PublishError),
    /// It was recorded, but the log does not tell.
    #[error("the answer was recorded, but the broker does not tell in time whether it was the first")]
    NotHeard,
    /// The worker stops.
    #[error("the worker is stopping")]
    Stopping,
}

impl AnswerError {
    /// What the caller can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotRead => "try again in a moment; if it stays so, look at the broker",
            Self::Busy | Self::Stopping => "try again",
            Self::NotRecorded(error) => error.hint(),
            Self::NotHeard => "look at the approval again in a moment: the answer may count",
        }
    }
}

/// What an answer came to, in the words of the audit: the same wherever it was given.
pub fn in_words(outcome: &Result<Outcome, AnswerError>) -> &'static str {
    match outcome {
        Ok(Outcome::Won(_)) => "done",
        Ok(Outcome::Late(_)) => "too late: it was answered already",
        Ok(Outcome::Expired) => "too late: it had expired",
        Ok(Outcome::Unknown) => "there is no such approval",
        Err(AnswerError::NotHeard) => "in doubt: it is recorded, and what it came to is not known",
        Err(AnswerError::NotRead | AnswerError::Busy | AnswerError::NotRecorded(_) | AnswerError::Stopping) => {
            "in doubt: it could not be recorded"
        }
    }
}

/// What listeners hear.
#[derive(Clone, Debug)]
pub enum News {
    /// The log was read from its beginning, or the listener was too slow: anything may have changed, so look at everything.
    Whole,
    /// One approval has changed.
    Changed(Change),
    /// The time of one was over, and nobody had answered.
    Expired(Arc<Approval>),
}

/// What listens.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<News>);

impl Listener {
    /// What comes next; `None` when the worker has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<News> {
        match self.0.recv().await {
            Ok(news) => Some(news),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(News::Whole),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The approvals. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Approvals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Arc<dyn Broker>,
    clock: Clock,
    metrics: Metrics,
    terms: Terms,
    table: RwLock<Table>,
    known: watch::Sender<bool>,
    /// After how many reconnects the log was last read to its end.
    read_after: AtomicU64,
    news: broadcast::Sender<News>,
    /// Answers under way: finished also when nobody waits for them any more.
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    /// The clicks of this worker that were not heard of yet, and who waits for each.
    mine: Mutex<HashMap<Uuid, Mine>>,
    /// What was answered here and is not planned for publishing yet.
    won_here: Mutex<HashSet<Name>>,
}

/// A click of this worker that was not heard of yet.
#[derive(Debug)]
struct Mine {
    approval: Name,
    heard: Vec<oneshot::Sender<Fate>>,
}

impl Approvals {
    /// The approvals on this broker. Answers under way are tasks of `tasks`.
    pub fn new(broker: Arc<dyn Broker>, clock: Clock, metrics: Metrics, terms: Terms, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner {
            broker,
            clock,
            metrics,
            terms,
            table: RwLock::default(),
            known: watch::Sender::new(false),
            read_after: AtomicU64::new(0),
            news: broadcast::Sender::new(NEWS_MAX),
            tasks,
            places: Arc::new(Semaphore::new(ANSWERS_MAX)),
            mine: Mutex::default(),
            won_here: Mutex::default(),
        }))
    }

    /// Whether the log has been read to its end at least once. Before that, nothing can be said to be unknown.
    pub fn known(&self) -> bool {
        *self.0.known.borrow()
    }

    /// Waits until [`Self::known`].
    pub async fn until_known(&self) {
        // An error is impossible: we hold the sender.
        drop(self.0.known.subscribe().wait_for(|known| *known).await);
    }

    /// For how long an approval that is given now would be a grant.
    pub fn grant_lasts(&self) -> Duration {
        self.0.terms.grant
    }

    /// The approval with this name; [`Name::of`] makes one of an id.
    pub fn get(&self, name: &Name) -> Option<Arc<Approval>> {
        self.0.table().get(name).cloned()
    }

    /// The approvals in this state (`None`: in any), those asked for last first, at most `most`.
    pub fn list(&self, state: Option<State>, most: usize) -> Vec<Arc<Approval>> {
        self.0.table().list(state, self.0.clock.now(), most)
    }

    /// How many are in this state (`None`: in any).
    pub fn count(&self, state: Option<State>) -> usize {
        self.0.table().count(state, self.0.clock.now())
    }

    /// The grant that holds for this call at present.
    pub fn grant(&self, scope: &Scope) -> Option<Grant> {
        self.0.table().grant(scope, self.0.clock.now()).cloned()
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Listener {
        Listener(self.0.news.subscribe())
    }

    /// Appends what is no click (a card that was posted, one that was changed); `Ok` when the broker has confirmed it.
    pub async fn note(&self, deed: Deed) -> Result<(), PublishError> {
        self.0.append(&Entry::new(deed, self.0.clock.now())).await
    }

    /// Tells listeners when the time of an approval is over. Runs for ever.
    pub async fn watch_expiry(self) {
        let mut told = self.0.clock.now();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.0.clock.now();
            let expired: Vec<Arc<Approval>> = self.0.table().expired(told, now).cloned().collect();
            told = told.max(now);
            for approval in expired {
                // An error says that nobody listens.
                drop(self.0.news.send(News::Expired(approval)));
            }
        }
    }

    /// Gives an answer, and says what has become of it, which can take a while: the broker may be away. It is finished even if the
    /// caller does not wait for it, and giving the same click again changes nothing.
    pub async fn answer(&self, click: Click) -> Result<Outcome, AnswerError> {
        let click = Click { grant: self.0.terms.grant, ..click };
        let (heard, judged) = {
            let table = self.0.table();
            (table.fate(click.id), table.judge(&click))
        };
        // What is certain already needs no record, so that nobody can fill the log by clicking.
        match (heard, judged) {
            (None, Fate::Won) => {}
            // What was asked for while the broker was away, the others know.
            (None, Fate::Unknown) if !self.0.is_current() => return Err(AnswerError::NotRead),
            (Some(fate), _) | (None, fate @ (Fate::Late | Fate::Expired | Fate::Unknown)) => {
                return self.0.outcome(&click, fate);
            }
        }
        // The place first: whoever stops looks the other way round, so that no answer slips through between the two.
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| AnswerError::Busy)?;
        if self.0.tasks.is_closed() {
            return Err(AnswerError::Stopping);
        }
        let inner = Arc::clone(&self.0);
        let under_way = self.0.tasks.spawn(async move {
            let _place = place;
            let fate = inner.record(&click).await?;
            inner.outcome(&click, fate)
        });
        under_way.await.unwrap_or(Err(AnswerError::Stopping))
    }
}

impl Inner {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn mine(&self) -> MutexGuard<'_, HashMap<Uuid, Mine>> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn won_here(&self) -> MutexGuard<'_, HashSet<Name>> {
        self.won_here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the table says what the log says at present, and not only what it said before the connection was lost.
    fn is_current(&self) -> bool {
        let health = *self.broker.health().borrow();
        health.connected && *self.known.borrow() && self.read_after.load(Ordering::Relaxed) == health.reconnects
    }

    async fn append(&self, entry: &Entry) -> Result<(), PublishError> {
        let message =
            Message { to: Destination::Log(Log::Approvals), id: entry.id.to_string(), body: entry.to_bytes() };
        self.broker.publish(message).await
    }

    /// Records a click and waits until the log has told what it came to.
    async fn record(&self, click: &Click) -> Result<Fate, AnswerError> {
        let deadline = Instant::now() + ANSWER_MAX;
        let (heard, mut fate) = oneshot::channel();
        let new = || Mine { approval: click.approval.clone(), heard: Vec::new() };
        self.mine().entry(click.id).or_insert_with(new).heard.push(heard);
        let entry = Entry::new(Deed::Click(click.clone()), click.at);
        let mut wait = AGAIN_FIRST;
        let mut trouble = None;
        while Instant::now() < deadline {
            let appended = tokio::select! {
                biased;
                // It may be heard of before the broker confirms it.
                fate = &mut fate => return fate.map_err(|_| AnswerError::NotHeard),
                appended = timeout_at(deadline, self.append(&entry)) => appended,
            };
            let patience = match appended {
                Ok(Ok(())) => {
                    trouble = None;
                    HEARD_MAX
                }
                Ok(Err(error)) => {
                    debug!(%error, click = %click.id, "an answer could not be recorded; it is tried again");
                    trouble = Some(error);
                    wait = (wait * 2).min(AGAIN_LONGEST);
                    wait
                }
                Err(_) => break,
            };
            if let Ok(fate) = timeout_at(deadline.min(Instant::now() + patience), &mut fate).await {
                return fate.map_err(|_| AnswerError::NotHeard);
            }
        }
        // It may still be heard of, and is then counted and published here; but only so many are waited for.
        let mut mine = self.mine();
        if mine.len() > ANSWERS_MAX {
            mine.remove(&click.id);
        }
        Err(trouble.map_or(AnswerError::NotHeard, AnswerError::NotRecorded))
    }

    fn outcome(&self, click: &Click, fate: Fate) -> Result<Outcome, AnswerError> {
        let answered = || self.table().get(&click.approval).and_then(Answered::of).ok_or(AnswerError::NotHeard);
        Ok(match fate {
            Fate::Won => Outcome::Won(answered()?),
            Fate::Late => Outcome::Late(answered()?),
            Fate::Expired => Outcome::Expired,
            Fate::Unknown => Outcome::Unknown,
        })
    }

    /// Tells who waits for a click what it came to; whether it was one of this worker's.
    fn tell(&self, click: Uuid, fate: Fate) -> bool {
        let Some(Mine { heard, .. }) = self.mine().remove(&click) else { return false };
        for heard in heard {
            // An error says that nobody waits any more.
            heard.send(fate).ok();
        }
        true
    }
}
