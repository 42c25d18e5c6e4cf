//! Making cards anew when their approval has ended: every card that a bot posted, and the one whose click was the answer.
//!
//! All workers hear of an answer at the same time, and every one of them could change the cards. The one that took the click does
//! it at once; the others wait for a random while, and look first whether the log says that it has been done. So a worker that
//! dies in between loses no card, and a card that is changed twice says the same twice.
//!
//! Whatever is missed (a worker that was away, a queue that was full) is found when everything is looked at, once a minute.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{
    Answerable,
    courier::{Courier, Tried, USABLE_FOR, USES_MAX, wait},
    ended,
};
use crate::{
    approvals::{Answered, Approval, Approvals, Change, Deed, News, Shown, State, Via},
    channels::{Endpoint, PostedCard, button::Name},
    model::{ChannelId, Timestamp},
};

/// How often everything is looked at, and how many approvals that is.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
const SWEPT_MAX: usize = 10_000;

/// Cards that wait to be made anew.
const JOBS_MAX: usize = 10_000;

/// Cards under way at once.
const UNDER_WAY_MAX: usize = 16;

/// `chat.update` may be called so often, by each worker for each channel: 50 a minute. Source: Slack, "Rate limits", tier 3.
const UPDATES_EVERY: Duration = Duration::from_millis(1_200);

/// How long a card that a bot posted is tried to be changed, and how long after its end an approval's cards are worth it at all.
const TRIED_FOR: Duration = Duration::from_hours(1);
const WORTH_FOR: Duration = Duration::from_hours(24);

/// How long it is waited for what was asked, where a click was faster, and how often it is looked: a card without it says little.
const DECISION_MAX: Duration = Duration::from_secs(3);
const DECISION_EVERY: Duration = Duration::from_millis(200);

/// The least wait where somebody has to mend something first.
const BROKEN_WAIT: Duration = Duration::from_mins(1);

/// How long the others leave a card to the worker that took the click: longer than a good day's change of it takes.
const OTHERS_WAIT: Duration = Duration::from_secs(10);

/// How far apart workers begin that have no reason to be first.
const SPREAD: Duration = Duration::from_secs(3);

/// One card that is to say something else: one that was posted, by its id, or the one whose click was the answer, by the click's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    approval: Name,
    card: Uuid,
    shown: Shown,
}

/// What is known about the making anew of a card.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Its place in the agenda; `None` while it is under way.
    place: Option<(Instant, u64)>,
    began: Instant,
    tries: u32,
    /// What is left of the click's URL.
    uses: u8,
    plain: bool,
    /// Whether it has been made anew, or given up, and only the log does not say so yet.
    done: bool,
    /// Whether it waits for its turn among the channel's updates.
    in_turn: bool,
}

/// What is to be done, in the order of its time.
#[derive(Debug, Default)]
struct Agenda {
    jobs: HashMap<Key, Job>,
    order: BTreeMap<(Instant, u64), Key>,
    count: u64,
}

impl Agenda {
    /// Something is to be done at `due`, or earlier if it is to be done earlier already.
    fn add(&mut self, key: Key, due: Instant) {
        if let Some(job) = self.jobs.get_mut(&key) {
            // One that is under way, or waits for a reason, stays where it is.
            if let Job { place: Some(place), tries: 0, in_turn: false, .. } = job
                && due < place.0
            {
                self.order.remove(place);
                *place = (due, place.1);
                self.order.insert(*place, key);
            }
        } else if self.jobs.len() >= JOBS_MAX {
            debug!("too many cards are to be made anew; this one is looked at again in a while");
        } else {
            let began = Instant::now();
            let job = Job { place: None, began, tries: 0, uses: USES_MAX, plain: false, done: false, in_turn: false };
            self.put_back(key, job, due);
        }
    }

    fn put_back(&mut self, key: Key, job: Job, due: Instant) {
        self.count += 1;
        let place = (due, self.count);
        self.order.insert(place, key.clone());
        self.jobs.insert(key, Job { place: Some(place), ..job });
    }

    /// What is due at `now`; it is under way from now on.
    fn take(&mut self, now: Instant) -> Option<(Key, Job)> {
        let entry = self.order.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = entry.remove();
        let job = self.jobs.get_mut(&key)?;
        job.place = None;
        Some((key, *job))
    }

    fn next_due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((due, _), _)| *due)
    }

    fn remove(&mut self, key: &Key) {
        self.jobs.remove(key);
    }
}

/// The cards of `approval` that do not say yet that it has ended, at `now`.
fn wanted(approval: &Approval, now: Timestamp) -> Vec<Key> {
    let (shown, ended_at) = match (approval.state(now), &approval.answer, approval.expires_at()) {
        (State::Answered, Some(click), _) => (Shown::Answered, click.at),
        (State::Expired, _, Some(end)) => (Shown::Expired, end),
        (State::Waiting | State::Answered | State::Expired, ..) => return Vec::new(),
    };
    if now.since(ended_at) > WORTH_FOR {
        return Vec::new();
    }
    let clicked = approval.answer.as_ref().filter(|click| {
        // A bot changes the card that it posted, and that one is the same.
        let is_posted = approval.cards.iter().any(|card| Some(&card.channel) == click.channel.as_ref());
        click.response_url.is_some() && !is_posted && now.since(click.at) < USABLE_FOR
    });
    let ids = approval.cards.iter().map(|card| card.id).chain(clicked.map(|click| click.id));
    let missing = ids.filter(|card| !approval.shows(*card, shown));
    missing.map(|card| Key { approval: approval.name.clone(), card, shown }).collect()
}

/// How long a worker waits that only hears that the approval has ended.
fn patience(approval: &Approval) -> Duration {
    let spread = SPREAD.mul_f64(fastrand::f64());
    match &approval.answer {
        Some(click) if click.via == Via::Slack => OTHERS_WAIT + 3 * spread,
        Some(_) | None => spread,
    }
}

/// What is needed to make cards anew. Cheap to clone.
#[derive(Clone)]
struct Tools {
    approvals: Approvals,
    board: watch::Receiver<Arc<Answerable>>,
    courier: Courier,
}

/// Makes cards anew. One for each worker.
pub struct Renewer {
    tools: Tools,
    asked: mpsc::Receiver<Name>,
    agenda: Agenda,
    /// From when on a channel's next card may be updated.
    turns: HashMap<ChannelId, Instant>,
}

impl Renewer {
    /// One that makes the cards of the channels on `board` anew; those of the approvals that it is told of by `asked`, at once.
    pub fn new(
        approvals: Approvals,
        board: watch::Receiver<Arc<Answerable>>,
        courier: Courier,
        asked: mpsc::Receiver<Name>,
    ) -> Self {
        let tools = Tools { approvals, board, courier };
        Self { tools, asked, agenda: Agenda::default(), turns: HashMap::new() }
    }

    /// Does so until it is dropped. What is under way then is left to another worker, or to this one's next start.
    pub async fn run(mut self) {
        let mut news = self.tools.approvals.subscribe();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        loop {
            self.begin(&mut under_way);
            let room = under_way.len() < UNDER_WAY_MAX;
            let next = self.agenda.next_due().filter(|_| room);
            tokio::select! {
                heard = news.recv() => match heard {
                    Some(News::Changed(Change::Answered(one) | Change::Posted(one)) | News::Expired(one)) => {
                        self.look_at(&one, Some(patience(&one)));
                    }
                    Some(News::Whole) => self.look_at_all(),
                    Some(News::Changed(Change::Asked(_) | Change::Noted(_))) => {}
                    None => return,
                },
                Some(name) = self.asked.recv() => {
                    if let Some(one) = self.tools.approvals.get(&name) {
                        self.look_at(&one, None);
                    }
                }
                Some(result) = under_way.join_next() => match result {
                    Ok((key, job, Some(wait))) => self.agenda.put_back(key, job, Instant::now() + wait),
                    Ok((key, _, None)) => self.agenda.remove(&key),
                    // Panics are caught inside, and nothing aborts them.
                    Err(error) => error!(%error, "the making anew of a card was cut off"),
                },
                _ = sweep.tick() => self.look_at_all(),
                () = sleep_until(next) => {}
            }
        }
    }

    fn look_at_all(&mut self) {
        self.turns.retain(|_, turn| *turn > Instant::now());
        for one in self.tools.approvals.list(None, SWEPT_MAX) {
            let after = patience(&one) + OTHERS_WAIT;
            self.look_at(&one, Some(after));
        }
    }

    /// Puts the approval's cards on the agenda: at once, or `after` a while.
    fn look_at(&mut self, approval: &Approval, after: Option<Duration>) {
        let due = Instant::now() + after.unwrap_or_default();
        for key in wanted(approval, self.tools.courier.clock().now()) {
            self.agenda.add(key, due);
        }
    }

    /// Begins what is due, as far as there is room.
    fn begin(&mut self, under_way: &mut JoinSet<(Key, Job, Option<Duration>)>) {
        let now = Instant::now();
        while under_way.len() < UNDER_WAY_MAX
            && let Some((key, mut job)) = self.agenda.take(now)
        {
            if !job.in_turn
                && let Some(turn) = self.turn(&key, now)
            {
                job.in_turn = true;
                self.agenda.put_back(key, job, turn);
                continue;
            }
            job.in_turn = false;
            let (tools, of) = (self.tools.clone(), (key.clone(), job));
            under_way.spawn(async move {
                let worked = AssertUnwindSafe(work(&tools, key, job)).catch_unwind().await;
                worked.unwrap_or_else(|_panic| {
                    error!("making a card anew panicked: please report it");
                    (of.0, of.1, None)
                })
            });
        }
    }

    /// When it is this card's turn among its channel's updates; `None`: now.
    fn turn(&mut self, key: &Key, now: Instant) -> Option<Instant> {
        let approval = self.tools.approvals.get(&key.approval)?;
        let channel = &approval.cards.iter().find(|card| card.id == key.card)?.channel;
        let turn = self.turns.get(channel).copied().filter(|turn| *turn > now);
        self.turns.insert(channel.clone(), turn.unwrap_or(now) + UPDATES_EVERY);
        turn
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Tries once to make a card anew and to write that down; how long to wait until the next try, or `None` when nothing is left to do.
async fn work(tools: &Tools, key: Key, mut job: Job) -> (Key, Job, Option<Duration>) {
    if !job.done {
        match renew(tools, &key, &mut job).await {
            Step::Note => job.done = true,
            Step::Again(wait) => return (key, job, Some(wait)),
            Step::Nothing => return (key, job, None),
        }
    }
    let deed = Deed::Updated(key.approval.clone(), key.card, key.shown);
    match tools.approvals.note(deed).await {
        Ok(()) => (key, job, None),
        Err(error) => {
            debug!(%error, "that a card was made anew could not be written down yet");
            job.tries += 1;
            let wait = wait(None, job.tries);
            (key, job, Some(wait))
        }
    }
}

enum Step {
    /// There is nothing to do any more.
    Nothing,
    /// It is done or given up: nobody else is to try it.
    Note,
    /// After this wait.
    Again(Duration),
}

async fn renew(tools: &Tools, key: &Key, job: &mut Job) -> Step {
    let now = tools.courier.clock().now();
    let Some(approval) = tools.approvals.get(&key.approval) else { return Step::Nothing };
    // Another worker may have done it, or there is an answer now where there was none.
    if !wanted(&approval, now).contains(key) {
        return Step::Nothing;
    }
    if approval.decision.is_none() && job.began.elapsed() < DECISION_MAX {
        return Step::Again(DECISION_EVERY);
    }
    let board = Arc::clone(&tools.board.borrow());
    let answered = Answered::of(&approval);
    let Some(ended) = ended(&approval, answered.as_ref(), now) else { return Step::Nothing };
    let posted = approval.cards.iter().find(|card| card.id == key.card);
    let channel = match (posted, &answered) {
        (Some(card), _) => Some(&card.channel),
        (None, Some(answered)) => answered.click.channel.as_ref(),
        (None, None) => None,
    };
    // A channel that is gone leaves its cards as they are.
    let Some((channel, slack)) = channel.and_then(|id| Some((id, board.get(id)?))) else { return Step::Nothing };
    let parcel = match (posted, &answered) {
        (Some(card), _) => {
            let message = PostedCard { conversation: card.conversation.clone(), ts: card.ts.clone() };
            slack.change(&message, &ended, &board.links, job.plain)
        }
        (None, answered) => {
            let url = answered.as_ref().and_then(|one| one.click.response_url.as_ref());
            let url = url.and_then(|url| slack.interactivity().may_reply_to(url.expose()));
            url.map(|url| slack.replacement(Endpoint::new(url), &ended, &board.links, job.plain))
        }
    };
    let Some(parcel) = parcel else { return Step::Nothing };
    let tried = tools.courier.post(parcel, |reply| slack.judge_change(reply)).await;
    let shown = match key.shown {
        Shown::Answered => "answered",
        Shown::Expired => "expired",
    };
    let left = match posted {
        Some(_) => TRIED_FOR.saturating_sub(job.began.elapsed()),
        None => USABLE_FOR.saturating_sub(now.since(answered.as_ref().map_or(now, |one| one.click.at))),
    };
    let (step, why) = job.judge(tried, posted.is_some(), left);
    let approval = approval.id().unwrap_or_default();
    match (&step, why) {
        (_, None) => info!(%channel, approval, shown, "a card was made anew"),
        (Step::Again(wait), Some(why)) => {
            warn!(%channel, approval, shown, why, retry_in = ?wait, "a card could not be made anew");
        }
        (Step::Note | Step::Nothing, Some(why)) => {
            error!(%channel, approval, shown, why, "a card could not be made anew and stays as it is: clicks on it are answered privately");
        }
    }
    step
}

impl Job {
    /// What follows from a try, and what was said where it failed. `is_posted`: a bot's card and no clicked one; `left`: how long
    /// it can still be tried.
    fn judge(&mut self, tried: Tried, is_posted: bool, left: Duration) -> (Step, Option<String>) {
        self.tries += 1;
        let (pause, used, why) = match tried {
            Tried::Done => return (Step::Note, None),
            Tried::Plainer(why) if !self.plain => {
                self.plain = true;
                (Duration::ZERO, true, why)
            }
            Tried::Broken(why) if is_posted => (wait(None, self.tries).max(BROKEN_WAIT), false, why),
            Tried::Plainer(why) | Tried::Broken(why) | Tried::Hopeless(why) => return (Step::Note, Some(why)),
            Tried::Again { after, used, why } => (wait(after, self.tries), used, why),
        };
        self.uses = self.uses.saturating_sub(u8::from(used && !is_posted));
        let step = if self.uses == 0 || pause > left { Step::Note } else { Step::Again(pause) };
        (step, Some(why))
    }
}

#[cfg(test)]
#[path = "renewing_tests.rs"]
mod tests;
