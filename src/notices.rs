//! Notices: when a channel is held or its dead letters grow, the channels that asked for it (`notices = true`) are told.
//!
//! A watchman looks once a second at the lanes and at the counters of dead letters. [`Ledger::look`] is every rule, pure: what is
//! told, given what is seen and what was told before. A notice is a decision like any other from then on; it is made in
//! `model::own` and told through lanes as all decisions are.
//!
//! The rules: a channel's trouble is never told through that channel; at most one notice per channel and [`Terms::silence`], which
//! then tells all that has happened since the last one; a hold that has ended unheard of is not told. Only what happens while this
//! worker runs counts. A notice that dies itself is no reason for another one, so two channels that refuse everything do not talk
//! to each other for ever.
//!
//! In a pool, the workers that notice the same in the same slot of the clock say it with the same delivery id, and the receiving
//! lane drops the repetition. Each counts its own dead letters, so the number in a notice is at least so many; the metrics add
//! the pool up. Two that notice it on the two sides of a slot's end both tell it.
//!
//! Absent on purpose: a memory on disk. A restarted worker that finds the channel held again says so again.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    broker::Receipt,
    intake::{Router, Routing},
    lane::{LaneHandle, LaneState},
    model::{ChannelId, Clock, DeathReason, Decision, Delivery, Timestamp, own},
    telemetry::{Metrics, metrics::Deaths},
};

/// The longest piece of what an endpoint said that a notice repeats, in characters.
const WHY_CHARS_MAX: usize = 200;

/// How patient the watchman is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How often he looks.
    pub look_every: Duration,
    /// How long dead letters gather before they are told: they seldom come alone.
    pub gather: Duration,
    /// A channel that was told of is not told of again for so long.
    pub silence: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(1),
            gather: Duration::from_secs(5),
            // Source: issue 3, point 7.
            silence: Duration::from_mins(15),
        }
    }
}

/// Watches until `stop`. Between two looks nothing of the router or of a lane is held: a handle would keep the settler from ending.
pub async fn watch(routing: Routing, metrics: Metrics, clock: Clock, terms: Terms, stop: CancellationToken) {
    let watching = async move {
        let mut ledger = Ledger::default();
        let mut looks = tokio::time::interval(terms.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let router = Arc::clone(&routing.borrow());
            let tellers: Vec<&LaneHandle> =
                router.own().filter(|(_, terms)| terms.notices).map(|(lane, _)| lane).collect();
            let ids: Vec<&ChannelId> = tellers.iter().map(|lane| lane.id()).collect();
            for notice in ledger.look(sights(&router, &metrics), &ids, terms, Instant::now()) {
                tell(&notice, &tellers, terms, clock).await;
            }
        }
    };
    // The routing goes with the future, as soon as the stop is heard of.
    stop.run_until_cancelled(watching).await;
}

/// Hands a notice to every lane that asked for it, but to the one it is about.
async fn tell(notice: &Notice, tellers: &[&LaneHandle], terms: Terms, clock: Clock) {
    let now = clock.now();
    let decision = Arc::new(notice.decision(terms.silence, now));
    for lane in tellers.iter().filter(|lane| Some(lane.id()) != notice.about.as_ref()) {
        info!(channel = %lane.id(), notice = %decision.id, title = decision.title, "telling of a channel in trouble");
        let delivery = Delivery::new(Arc::clone(&decision), lane.id().clone(), now);
        lane.hand_over(delivery, Receipt::of_nobody(), false).await;
    }
}

/// What is seen of one channel, or of what belongs to none.
#[derive(Clone, Debug, Default)]
struct Sight {
    channel: Option<ChannelId>,
    /// Why the lane is held, if it is.
    held: Option<String>,
    /// Dead letters since this worker started.
    deaths: Deaths,
}

fn sights<'a>(router: &'a Router, metrics: &Metrics) -> impl Iterator<Item = Sight> + use<'a> {
    let of_none = Sight { deaths: metrics.deaths_of_no_channel(), ..Sight::default() };
    let of_lane = |lane: &LaneHandle| Sight {
        channel: Some(lane.id().clone()),
        held: why_held(lane.state()),
        deaths: lane.metrics().deaths(),
    };
    router.lanes().iter().map(of_lane).chain([of_none])
}

/// Why a lane is held, if it is: a probe ends a hold only when it succeeds.
fn why_held(state: LaneState) -> Option<String> {
    match state {
        LaneState::Held { why, .. } | LaneState::Probing { held: true, why, .. } => Some(why),
        LaneState::Flowing | LaneState::Paused { .. } | LaneState::Probing { held: false, .. } | LaneState::Stopped => {
            None
        }
    }
}

/// What was told of each channel. An entry stays when its channel goes, as its metrics do: it may come back.
#[derive(Debug, Default)]
struct Ledger {
    told: HashMap<Option<ChannelId>, Told>,
}

/// What was told of one channel.
#[derive(Debug, Default)]
struct Told {
    /// When.
    at: Option<Instant>,
    /// Whether the present hold was.
    held: bool,
    /// How many dead letters there were by then.
    deaths: Deaths,
    /// Since when there are dead letters that were not told.
    gathering: Option<Instant>,
}

impl Ledger {
    /// What is to be told now. `tellers` are the channels that asked for notices.
    fn look(
        &mut self,
        sights: impl IntoIterator<Item = Sight>,
        tellers: &[&ChannelId],
        terms: Terms,
        now: Instant,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for sight in sights {
            let Sight { channel, held, deaths } = sight;
            let somebody = tellers.iter().any(|id| Some(*id) != channel.as_ref());
            let told = self.told.entry(channel.clone()).or_default();
            told.held &= held.is_some();
            let silent = told.at.is_some_and(|at| now.saturating_duration_since(at) < terms.silence);
            let grown = grown(&told.deaths, &deaths);
            if grown.is_empty() {
                told.gathering = None;
            }
            let gathered = !grown.is_empty() && *told.gathering.get_or_insert(now) + terms.gather <= now;
            let held = held.filter(|_| !told.held);
            if silent || !somebody || (held.is_none() && !gathered) {
                continue;
            }
            *told = Told { at: Some(now), held: told.held || held.is_some(), deaths, gathering: None };
            notices.push(Notice { about: channel, held, deaths: grown });
        }
        notices
    }
}

fn grown(told: &Deaths, now: &Deaths) -> Vec<(DeathReason, u64)> {
    let pairs = DeathReason::ALL.into_iter().zip(told.iter().zip(now));
    pairs.filter(|(_, (told, now))| now > told).map(|(reason, (told, now))| (reason, now - told)).collect()
}

/// What people are told of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Notice {
    /// The channel in trouble; `None`: messages that belong to no channel died.
    about: Option<ChannelId>,
    /// Why it is held, where that is news.
    held: Option<String>,
    /// Dead letters since the last notice.
    deaths: Vec<(DeathReason, u64)>,
}

impl Notice {
    /// The decision that tells it.
    fn decision(&self, silence: Duration, now: Timestamp) -> Decision {
        let slot = own::slot(now, silence);
        let what = if self.held.is_some() { "held" } else { "dead-letters" };
        let held = self.held.as_ref().map(|_| "CHANNEL_HELD");
        let deaths = (!self.deaths.is_empty()).then_some("DEAD_LETTERS");
        let reasons: Vec<&str> = held.into_iter().chain(deaths).collect();
        own::notice(what, self.about.as_ref(), slot, now, &self.title(), &reasons)
    }

    /// The one line for people. What the endpoint said is hostile; it is cut here and escaped where every title is.
    fn title(&self) -> String {
        let of = self.about.as_ref().map_or(Cow::Borrowed("no channel"), |id| Cow::Owned(id.to_string()));
        let deaths = counted(&self.deaths);
        match &self.held {
            None => format!("{deaths} for {of}"),
            Some(why) => {
                let why: String = why.chars().take(WHY_CHARS_MAX).collect();
                let colon = if why.is_empty() { "" } else { ": " };
                let more = if self.deaths.is_empty() { String::new() } else { format!("; {deaths}") };
                format!("Channel {of} is held{colon}{why}{more}")
            }
        }
    }
}

/// `12 new dead letters (refused 10, expired 2)`.
fn counted(deaths: &[(DeathReason, u64)]) -> String {
    let sum: u64 = deaths.iter().map(|(_, count)| count).sum();
    let letters = if sum == 1 { "letter" } else { "letters" };
    let reasons: Vec<String> = deaths.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{sum} new dead {letters} ({})", reasons.join(", "))
}

#[cfg(test)]
mod tests;
