//! What the log amounts to: which approvals wait, which were answered by whom, which grants there are. Pure.
//!
//! The table is a function of the records in their order and of nothing else: no clock, no configuration. So every worker that has
//! read the same records says the same, also one that was started a minute ago.
//!
//! The rule: the first click in the log that was in time is the answer. All later ones change nothing, and neither does a click that
//! is there twice: what a click came to is decided where it stands first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use super::{
    approval::{Approval, Grant, Scope, State, is_over},
    record::{Click, Deed, Entry},
    slim::slim,
};
use crate::{
    channels::button::Name,
    model::{Decision, Timestamp},
};

/// What a table may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Approvals; of grants, as many.
    pub approvals: usize,
    /// Bytes of all their decisions together.
    pub bytes: usize,
    /// Clicks whose fate is remembered.
    pub fates: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { approvals: 100_000, bytes: 256 << 20, fates: 20_000 }
    }
}

/// How long what has ended is kept before it goes first.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// How many cards of one approval are remembered.
const CARDS_MAX: usize = 64;

/// What a click came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the answer.
    Won,
    /// There was an answer already.
    Late,
    /// It came when the time was over.
    Expired,
    /// Nobody asked for this approval: there is no record of it and no button, or the button is of another agent or tool.
    Unknown,
}

/// What a record has changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// An approval is asked for.
    Asked(Arc<Approval>),
    /// It was answered.
    Answered(Arc<Approval>),
    /// A card of it was posted that can be changed.
    Posted(Arc<Approval>),
    /// Its answer was published, or a card was changed.
    Noted(Arc<Approval>),
}

#[derive(Clone, Debug)]
struct Known {
    place: u64,
    approval: Arc<Approval>,
}

impl Known {
    /// When it was asked for; where only the answer is known, when that was given; `None` where only a card is known.
    fn asked_at(&self) -> Option<Timestamp> {
        let Approval { decision, answer, .. } = &*self.approval;
        decision.as_deref().map(|decision| decision.time).or_else(|| answer.as_deref().map(|click| click.at))
    }
}

/// What the log amounts to.
#[derive(Clone, Debug, Default)]
pub struct Table {
    limits: Limits,
    approvals: HashMap<Name, Known>,
    /// In the order in which the log first tells of them.
    order: BTreeMap<u64, Name>,
    next_place: u64,
    bytes: usize,
    /// Those that wait for an answer, by the millisecond of their end.
    ends: BTreeSet<(i64, Name)>,
    /// Those whose answer was not published.
    unpublished: BTreeSet<Name>,
    grants: HashMap<Scope, Grant>,
    fates: HashMap<Uuid, Fate>,
    fates_in_order: VecDeque<Uuid>,
    /// The latest time that a record tells: the log's own clock.
    latest: Option<Timestamp>,
    live_forgotten: u64,
}

impl Table {
    /// An empty table with these limits.
    pub fn with(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes the next record of the log in.
    pub fn apply(&mut self, entry: Entry) -> Option<Change> {
        self.latest = self.latest.max(Some(entry.at));
        match entry.deed {
            Deed::Asked(decision) => self.asked(decision),
            Deed::Click(click) => self.clicked(click),
            Deed::Published(name) => {
                let answered = self.change(&name, |approval| {
                    let news = approval.answer.is_some() && !approval.published;
                    approval.published |= news;
                    news
                });
                self.unpublished.remove(&name);
                answered.map(Change::Noted)
            }
            Deed::Posted(name, card) => {
                self.make_place(&name);
                let posted = self.change(&name, |approval| {
                    let news = approval.cards.iter().all(|one| one.id != card.id) && approval.cards.len() < CARDS_MAX;
                    if news {
                        approval.cards.push(card);
                    }
                    news
                });
                posted.map(Change::Posted)
            }
            Deed::Updated(name, card, shown) => {
                let updated = self.change(&name, |approval| {
                    // What was changed last counts: a change that was under way when the answer came may have overwritten it.
                    if let Some((_, last)) = approval.shown.iter_mut().find(|(one, _)| *one == card) {
                        return std::mem::replace(last, shown) != shown;
                    }
                    let news = approval.shown.len() < 2 * CARDS_MAX;
                    if news {
                        approval.shown.push((card, shown));
                    }
                    news
                });
                updated.map(Change::Noted)
            }
        }
    }

    /// The approval with this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<Approval>> {
        self.approvals.get(name).map(|known| &known.approval)
    }

    /// What a click came to; `None` where the log has not told of it, or so long ago that it is forgotten.
    pub fn fate(&self, click: Uuid) -> Option<Fate> {
        self.fates.get(&click).copied()
    }

    /// What a click would come to if it were the next record. A button proves that we asked, and for what: its agent and tool must be
    /// those of the decision, or else two decisions with the same approval id could be granted by each other's cards.
    pub fn judge(&self, click: &Click) -> Fate {
        let approval = self.get(&click.approval);
        if let Some(answer) = approval.and_then(|approval| approval.answer.as_ref()) {
            return if answer.id == click.id { Fate::Won } else { Fate::Late };
        }
        let asked = approval.and_then(|approval| approval.asked());
        let proof = match (approval.and_then(|approval| approval.decision.as_ref()), &click.claim) {
            (Some(decision), Some(claim)) => claim.is_of(decision),
            (asked, claim) => asked.is_some() || claim.is_some(),
        };
        if !proof {
            return Fate::Unknown;
        }
        let ends = asked.and_then(|asked| asked.expires_at).into_iter();
        let mut ends = ends.chain(click.claim.as_ref().and_then(|claim| claim.expires_at));
        if ends.any(|end| is_over(end, click.at)) { Fate::Expired } else { Fate::Won }
    }

    /// The approvals that are in this state at this moment (`None`: in any), those asked for last first, at most `most`. One of which
    /// only a card is known is not told of.
    ///
    /// By when the decision was made, and not by its place in the log: several workers write down what they read at the same time, so
    /// the log has them in no order that means anything to people.
    pub fn list(&self, state: Option<State>, now: Timestamp, most: usize) -> Vec<Arc<Approval>> {
        let mut wanted: Vec<_> = self.told(state, now).collect();
        let newest_first = |(at, place, _): &(Timestamp, u64, &Arc<Approval>)| std::cmp::Reverse((*at, *place));
        if wanted.len() > most {
            wanted.select_nth_unstable_by_key(most.saturating_sub(1), newest_first);
            wanted.truncate(most);
        }
        wanted.sort_unstable_by_key(newest_first);
        wanted.into_iter().map(|(.., approval)| Arc::clone(approval)).collect()
    }

    /// How many there are of those.
    pub fn count(&self, state: Option<State>, now: Timestamp) -> usize {
        self.told(state, now).count()
    }

    /// Those in this state that somebody asked for: when, their place in the log, and what.
    fn told(&self, state: Option<State>, now: Timestamp) -> impl Iterator<Item = (Timestamp, u64, &Arc<Approval>)> {
        let told = self.approvals.values().filter_map(|known| Some((known.asked_at()?, known.place, &known.approval)));
        told.filter(move |(.., approval)| state.is_none_or(|state| approval.state(now) == state))
    }

    /// The grant that holds for `scope` at this moment.
    pub fn grant(&self, scope: &Scope, now: Timestamp) -> Option<&Grant> {
        self.grants.get(scope).filter(|grant| !is_over(grant.expires_at, now))
    }

    /// Those whose answer was not published yet.
    pub fn unpublished(&self) -> impl Iterator<Item = &Arc<Approval>> {
        self.unpublished.iter().filter_map(|name| self.get(name))
    }

    /// Those without an answer whose time ended after `after`, and at `until` at the latest.
    pub fn expired(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = &Arc<Approval>> {
        let due = self.ends_after(after).take_while(move |(end, _)| *end <= until.unix_millis());
        due.filter_map(|(_, name)| self.get(name))
    }

    fn ends_after(&self, after: Timestamp) -> impl Iterator<Item = &(i64, Name)> {
        // The least name of the next millisecond.
        self.ends.range((after.unix_millis().saturating_add(1), Name::Whole(String::new()))..)
    }

    /// How many approvals are known.
    pub fn len(&self) -> usize {
        self.approvals.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.approvals.is_empty()
    }

    /// How many had to be forgotten although somebody could still do something with them.
    pub fn live_forgotten(&self) -> u64 {
        self.live_forgotten
    }

    fn asked(&mut self, decision: Arc<Decision>) -> Option<Change> {
        let name = Name::of(&decision.approval_asked()?.id);
        if let Some(approval) = self.get(&name) {
            let claim = approval.answer.as_ref().and_then(|answer| answer.claim.as_ref());
            // The first one counts; and what was answered by a button was what the button said.
            if approval.decision.is_some() || claim.is_some_and(|claim| !claim.is_of(&decision)) {
                return None;
            }
        }
        self.make_place(&name);
        let approval = self.change(&name, |approval| {
            approval.decision = Some(slim(decision));
            true
        })?;
        self.bytes += approval.bytes();
        match (&approval.answer, approval.expires_at()) {
            (None, Some(end)) => drop(self.ends.insert((end.unix_millis(), name))),
            (None, None) => {}
            // The click on a card was faster than the record of the asking.
            (Some(_), _) => self.note_grant(&approval),
        }
        self.make_room();
        Some(Change::Asked(approval))
    }

    fn clicked(&mut self, click: Click) -> Option<Change> {
        if self.fates.contains_key(&click.id) {
            return None;
        }
        let fate = self.judge(&click);
        self.note_fate(click.id, fate);
        let is_new = self.get(&click.approval).is_none_or(|approval| approval.answer.is_none());
        if fate != Fate::Won || !is_new {
            return None;
        }
        let name = click.approval.clone();
        if let Some(end) = self.get(&name).and_then(|approval| approval.expires_at()) {
            self.ends.remove(&(end.unix_millis(), name.clone()));
        }
        self.make_place(&name);
        let approval = self.change(&name, |approval| {
            approval.answer = Some(Arc::new(click));
            true
        })?;
        self.unpublished.insert(name);
        self.note_grant(&approval);
        self.make_room();
        Some(Change::Answered(approval))
    }

    /// Of several grants for the same, the one that ends last counts.
    fn note_grant(&mut self, approval: &Arc<Approval>) {
        let (Some(decision), Some(expires_at)) = (&approval.decision, approval.granted_until()) else { return };
        let grant = Grant { approval: Arc::clone(approval), expires_at };
        let scope = Scope::of(decision);
        if self.grants.get(&scope).is_none_or(|other| other.expires_at < expires_at) {
            self.grants.insert(scope, grant);
        }
        if self.grants.len() > self.limits.approvals {
            let latest = self.latest.unwrap_or(Timestamp::UNIX_EPOCH);
            self.grants.retain(|_, grant| !is_over(grant.expires_at, latest));
            while self.grants.len() > self.limits.approvals {
                let first = self.grants.iter().min_by_key(|(_, grant)| (grant.expires_at, &grant.approval.name));
                let Some(scope) = first.map(|(scope, _)| scope.clone()) else { break };
                self.grants.remove(&scope);
                self.live_forgotten += 1;
            }
        }
    }

    fn note_fate(&mut self, click: Uuid, fate: Fate) {
        self.fates.insert(click, fate);
        self.fates_in_order.push_back(click);
        if self.fates_in_order.len() > self.limits.fates
            && let Some(oldest) = self.fates_in_order.pop_front()
        {
            self.fates.remove(&oldest);
        }
    }

    /// Makes sure that there is an entry of this name.
    fn make_place(&mut self, name: &Name) {
        if !self.approvals.contains_key(name) {
            let (place, approval) = (self.next_place, Arc::new(Approval::new(name.clone())));
            self.next_place += 1;
            self.order.insert(place, name.clone());
            self.approvals.insert(name.clone(), Known { place, approval });
        }
    }

    /// Changes an approval; gives it back if the change was news.
    fn change(&mut self, name: &Name, change: impl FnOnce(&mut Approval) -> bool) -> Option<Arc<Approval>> {
        let known = self.approvals.get_mut(name)?;
        change(Arc::make_mut(&mut known.approval)).then(|| Arc::clone(&known.approval))
    }

    /// Forgets what must go: first what ended long ago, then what has ended, then the oldest.
    fn make_room(&mut self) {
        let is_full = |table: &Self, most: usize, bytes: usize| table.approvals.len() > most || table.bytes > bytes;
        let Limits { approvals: most, bytes, .. } = self.limits;
        if !is_full(self, most, bytes) {
            return;
        }
        let latest = self.latest.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut candidates: Vec<_> = self
            .approvals
            .values()
            .map(|Known { place, approval }| match approval.ends_at().filter(|end| is_over(*end, latest)) {
                Some(end) => {
                    let rank = if latest.since(end) >= KEPT { Rank::LongOver } else { Rank::Over };
                    (rank, end.unix_millis(), *place)
                }
                None => (Rank::Live, 0, *place),
            })
            .collect();
        candidates.sort_unstable();
        // A tenth more than must go, so that the sorting is not for one at a time.
        for (rank, _, place) in candidates {
            if !is_full(self, most - most / 10, bytes - bytes / 10) {
                break;
            }
            self.live_forgotten += u64::from(rank == Rank::Live);
            self.forget(place);
        }
    }

    fn forget(&mut self, place: u64) {
        let Some(name) = self.order.remove(&place) else { return };
        let Some(Known { approval, .. }) = self.approvals.remove(&name) else { return };
        self.bytes -= approval.bytes();
        if let Some(end) = approval.expires_at() {
            self.ends.remove(&(end.unix_millis(), name.clone()));
        }
        self.unpublished.remove(&name);
    }
}

/// In which order approvals go when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    LongOver,
    Over,
    Live,
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
