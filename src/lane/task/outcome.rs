//! What a try has led to: the one log line of it, and what `step::decide` says becomes of the deliveries and of the lane.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{LATER_MAX, Lane, Load, Sent, WAIT_IN_MEMORY_MAX};
use crate::{
    channels::Channel,
    dead_letters::{DeadLetter, LastReply},
    delivery_log::Ended,
    lane::{
        CardPosted, Errand, LaneState, Origin,
        step::{self, Answer, Course, Fate, Form, Standing, Step, Tried},
    },
    model::{Attempt, DeathReason, Ending, Reply, Timestamp, Verdict},
};

impl Lane {
    /// Does what the rules say about a try that has come back.
    pub(super) async fn conclude(&mut self, sent: Sent) {
        let Sent { load: Load { mut errands, digest }, channel, told, result, took, probe, detoured } = sent;
        self.pace.seen(Instant::now(), took);
        let answer = match &result {
            Ok(reply) => Answer::Reply(self.judge(&*channel, reply)),
            Err(trouble) => Answer::Silence(*trouble),
        };
        let Some(first) = errands.first() else { return };
        let attempts = errands.iter().map(|errand| errand.delivery.attempts).min().unwrap_or(0);
        let tried = match digest {
            None => Tried { attempts, plain: first.delivery.plain, detoured, batch: errands.len(), digest: false },
            Some(plain) => Tried { attempts, plain, detoured, batch: 1, digest: true },
        };
        // An order may have come while it was under way.
        let probe = probe && matches!(self.state, LaneState::Probing { .. });
        let (resting, stale) = (!probe && !self.flows(), told != self.told);
        let standing =
            Standing { probe, resting, stale, failures: self.failures, pauses: self.pauses, holds: self.holds };
        let step = step::decide(&answer, tried, standing, &self.plan.retry, &mut self.backoff);
        let asked = matches!(&answer, Answer::Reply(Verdict::TryLater { after: Some(_), .. }));
        let verdict = match answer {
            Answer::Reply(verdict) => verdict,
            Answer::Silence(trouble) => trouble.into(),
        };
        self.metrics.attempt_duration.observe(took.as_secs_f64());
        self.metrics.tried(verdict.outcome(), 1);
        let why = self.tools.scrubber.scrub(verdict.why());
        let status = result.as_ref().ok().map(|reply| reply.status.as_u16());
        self.tell(&errands, &verdict, status, &why, took, &step);
        if let (Ok(reply), Fate::Delivered, None) = (&result, &step.fate, digest) {
            self.tell_of_card(&*channel, reply, &errands);
        }
        if !matches!(step.fate, Fate::Delivered) {
            let failed = Attempt::new(self.tools.clock.now(), verdict.outcome(), status, &why);
            for errand in &mut errands {
                failed.clone().remember(&mut errand.delivery.history);
            }
        }
        let last = (!why.is_empty()).then(|| LastReply { status, text: why.clone(), at: self.tools.clock.now() });
        if let (true, Course::Pause { wait }) = (asked, step.course) {
            self.asked_until = Some(Instant::now() + wait);
        }
        if !stale || step.course != Course::Stay {
            self.take_course(step.course, why, probe).await;
        }
        if digest.is_some() {
            self.carry_out_digest(errands, step.fate).await;
        } else {
            self.carry_out(errands, step.fate, last).await;
        }
        if matches!(self.state, LaneState::Stopped) {
            // Nothing of the lane's queue stays with a lane that an operator stopped.
            self.give_back_queue();
        }
    }

    /// `channel` is the one that made the request: by now the lane's may be another.
    pub(super) fn judge(&self, channel: &dyn Channel, reply: &Reply) -> Verdict {
        std::panic::catch_unwind(AssertUnwindSafe(|| channel.judge(reply))).unwrap_or_else(|_panic| {
            error!(channel = %self.plan.id, status = reply.status.as_u16(), "judging a reply panicked: please report it");
            crate::channels::judging::by_status(reply)
        })
    }

    /// An approval's card is changed when it has been answered, so somebody must know where it is. Nothing waits for that: a card
    /// that is not known stays as it is, and clicks on it are answered all the same.
    fn tell_of_card(&self, channel: &dyn Channel, reply: &Reply, errands: &[Errand]) {
        let [errand] = errands else { return };
        let Some(asked) = errand.delivery.decision.approval_asked() else { return };
        let posted = std::panic::catch_unwind(AssertUnwindSafe(|| channel.posted(reply)));
        let Ok(Some(card)) = posted else { return };
        let told = CardPosted { approval: asked.id.clone(), channel: self.plan.id.clone(), card };
        if self.tools.posted.try_send(told).is_err() {
            warn!(channel = %self.plan.id, decision = %errand.delivery.decision.id, "where the card was posted could not be kept: it will not be changed");
        }
    }

    /// The one line of a try.
    pub(super) fn tell(
        &self,
        errands: &[Errand],
        verdict: &Verdict,
        status: Option<u16>,
        why: &str,
        took: Duration,
        step: &Step,
    ) {
        let Some(first) = errands.first() else { return };
        // The firehose is counted, not narrated, and so it does not pay for words that nobody reads.
        let quiet = matches!(step.fate, Fate::Delivered) && !self.pace.is_limited();
        if quiet && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let next = match &step.fate {
            Fate::Bury(_) if first.delivery.is_canary() => String::from("a canary is let go"),
            Fate::Again { after, .. } if !after.is_zero() && first.delivery.is_canary() => {
                String::from("a canary is let go")
            }
            Fate::Delivered
            | Fate::Again { .. }
            | Fate::Bury(_)
            | Fate::BuryOne { .. }
            | Fate::Split
            | Fate::Unfold => step.in_words(),
        };
        let (channel, outcome) = (&self.plan.id, verdict.outcome().as_str());
        let (took_ms, count) = (took.as_millis(), errands.len());
        let (id, decision, attempt) = (first.delivery.id(), &first.delivery.decision.id, first.delivery.attempts + 1);
        match (&step.fate, step.course) {
            (Fate::Delivered, _) if quiet => {
                debug!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, next, "attempt");
            }
            (Fate::Delivered, _) => {
                info!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, next, "attempt");
            }
            (Fate::Bury(_) | Fate::BuryOne { .. }, _) | (_, Course::Hold { .. }) => {
                error!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, why, next, "attempt");
            }
            (Fate::Again { .. } | Fate::Split | Fate::Unfold, _) => {
                warn!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, why, next, "attempt");
            }
        }
    }

    pub(super) async fn carry_out(&mut self, errands: Vec<Errand>, fate: Fate, last: Option<LastReply>) {
        match fate {
            Fate::Delivered => errands.into_iter().for_each(|errand| self.delivered(errand)),
            Fate::Again { after, counts, form } => {
                if let Form::Detour(to) = &form {
                    self.take_detour(to.clone());
                }
                for mut errand in errands {
                    errand.delivery.attempts += u32::from(counts);
                    errand.delivery.plain |= form == Form::Plain;
                    if step::is_exhausted(errand.delivery.attempts, &self.plan.retry) {
                        // Of a batch, some may have been tried more often than others.
                        let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                        self.bury(errand, DeathReason::Exhausted, &detail, last.clone()).await;
                    } else {
                        self.again(errand, after, counts).await;
                    }
                }
            }
            Fate::Bury(reason) => {
                let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                for mut errand in errands {
                    // The try that it dies of, and before a plain text that was refused the card that was.
                    errand.delivery.attempts += match reason {
                        DeathReason::Exhausted => 1,
                        DeathReason::Refused => 1 + u32::from(errand.delivery.plain),
                        DeathReason::Malformed
                        | DeathReason::Poison
                        | DeathReason::Expired
                        | DeathReason::ApprovalExpired
                        | DeathReason::ChannelRemoved
                        | DeathReason::BrokerGaveUp => 0,
                    };
                    self.bury(errand, reason, &detail, last.clone()).await;
                }
            }
            Fate::BuryOne { accepted } => {
                let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                for (at, mut errand) in errands.into_iter().enumerate() {
                    match at.cmp(&accepted) {
                        std::cmp::Ordering::Less => self.delivered(errand),
                        std::cmp::Ordering::Equal => {
                            errand.delivery.attempts += 1;
                            self.bury(errand, DeathReason::Refused, &detail, last.clone()).await;
                        }
                        std::cmp::Ordering::Greater => self.keep(errand).await,
                    }
                }
            }
            // Only a digest unfolds.
            Fate::Unfold => {
                for errand in errands {
                    self.keep(errand).await;
                }
            }
            Fate::Split => {
                let half = errands.len().div_ceil(2);
                self.split(errands, half).await;
            }
        }
    }

    pub(super) fn take_detour(&mut self, to: String) {
        warn!(channel = %self.plan.id, "the destination has moved; following it, but the configuration should be changed");
        self.detour = Some(to);
    }

    pub(super) fn delivered(&mut self, errand: Errand) {
        self.told(errand, Ending::Delivered);
    }

    /// The endpoint has accepted it, by itself or in a digest.
    pub(super) fn told(&mut self, errand: Errand, ending: Ending) {
        let now = self.tools.clock.now();
        self.metrics.last_success.set(now.unix_seconds());
        self.metrics.untaken.taken();
        if !errand.delivery.is_canary() {
            self.metrics.delivery_latency.observe(now.since(errand.delivery.decision.time).as_secs_f64());
            self.count_ended(&errand, ending, now);
        }
        self.recent.insert(errand.delivery.id());
        errand.receipt.settle();
    }

    /// Counts it, and writes it down.
    pub(super) fn count_ended(&self, errand: &Errand, ending: Ending, at: Timestamp) {
        self.metrics.ended(ending, 1);
        let tries = errand.delivery.attempts.saturating_add(1);
        let ended = Ended { ending, at, tries, reason: None };
        self.tools.deliveries.ended(&errand.delivery.decision.id, &self.plan.id, ended);
    }

    pub(super) async fn again(&mut self, mut errand: Errand, after: Duration, counted: bool) {
        if errand.delivery.is_canary() && !after.is_zero() {
            // It has found out what it was sent for.
            self.let_go(errand, "its try failed");
            return;
        }
        let stays = match errand.origin {
            Origin::Memory => self.flows() && after <= WAIT_IN_MEMORY_MAX && self.later.len() < LATER_MAX,
            // A counted attempt is written down, so that it survives this worker.
            Origin::LaneQueue => !counted,
        };
        if stays && after.is_zero() {
            self.ready.push_front(errand);
        } else if stays && !self.flows() {
            // The lane's own rest comes first; the delivery is the next to be tried after it.
            self.ready.push_back(errand);
        } else if stays {
            self.keep_for_later(errand, after);
        } else {
            // Where the lane itself rests, the delivery has no wait of its own: it would outlive a rest that an operator, a
            // restart or another worker ends early.
            errand.delivery.not_before = self.flows().then(|| self.tools.clock.now().plus(after));
            self.park(errand).await;
        }
    }

    pub(super) async fn bury(&mut self, errand: Errand, reason: DeathReason, detail: &str, last: Option<LastReply>) {
        if errand.comes_again() {
            return;
        }
        if errand.delivery.is_canary() {
            self.let_go(errand, detail);
            return;
        }
        let now = self.tools.clock.now();
        warn!(channel = %self.plan.id, delivery = %errand.delivery.id(), decision = %errand.delivery.decision.id, %reason, detail, "dead letter");
        if reason.is_of_endpoint() {
            self.metrics.untaken.died(now);
        }
        let letter = DeadLetter::of_delivery(&errand.delivery, reason, detail, last, now);
        let stake = self.metrics.stake(errand.in_memory);
        self.tools.settler.bury(letter, errand.receipt, Some(stake)).await;
    }

    /// Ends a canary that did not arrive: its silence in the metrics is the message.
    fn let_go(&self, canary: Errand, why: &str) {
        debug!(channel = %self.plan.id, canary = %canary.delivery.decision.id, why, "a canary did not arrive");
        canary.receipt.settle();
    }

    pub(super) async fn bury_poison(&mut self, errand: Errand) {
        error!(channel = %self.plan.id, decision = %errand.delivery.decision.id, "rendering a decision panicked: please report it");
        self.bury(errand, DeathReason::Poison, "rendering it panicked", None).await;
    }

    pub(super) async fn take_course(&mut self, course: Course, why: String, probe: bool) {
        let now = Instant::now();
        match course {
            Course::Flow { breathe } => {
                (self.failures, self.pauses, self.holds) = (0, 0, 0);
                self.pace.rest(now, breathe);
                if breathe > WAIT_IN_MEMORY_MAX {
                    // Too long to wait for in memory, so it is a pause like any other.
                    let why = String::from("the endpoint asked to be left alone for a while");
                    self.rest_in(LaneState::Paused { until: now + breathe, why }).await;
                } else if !self.flows() {
                    info!(channel = %self.plan.id, was = self.state.as_str(), "the lane flows again");
                    self.enter(LaneState::Flowing);
                }
            }
            // What was sent before the lane came to rest is no new failure.
            Course::Stay => self.failures = self.failures.saturating_add(u32::from(self.flows())),
            Course::Pause { wait } => {
                self.failures = self.failures.saturating_add(1);
                let until = now + wait;
                match &self.state {
                    // What was sent before the pause can prolong it, and begins no new one.
                    LaneState::Paused { until: present, .. } if !probe => {
                        let until = (*present).max(until);
                        self.enter(LaneState::Paused { until, why });
                    }
                    LaneState::Held { .. } | LaneState::Probing { .. } | LaneState::Stopped if !probe => {}
                    LaneState::Flowing
                    | LaneState::Paused { .. }
                    | LaneState::Probing { .. }
                    | LaneState::Held { .. }
                    | LaneState::Stopped => {
                        self.pauses = self.pauses.saturating_add(1);
                        self.rest_in(LaneState::Paused { until, why }).await;
                    }
                }
            }
            Course::Hold { wait } => {
                let already = matches!(self.state, LaneState::Held { .. } | LaneState::Stopped) && !probe;
                if !already {
                    self.holds = self.holds.saturating_add(1);
                    error!(channel = %self.plan.id, why, next_probe_in = ?wait, "the lane is held: its destination is broken until somebody acts");
                    self.rest_in(LaneState::Held { until: now + wait, why }).await;
                }
            }
        }
    }

    /// Comes to rest: what came from memory is handed to the broker, so that nothing but the broker waits.
    pub(super) async fn rest_in(&mut self, state: LaneState) {
        if self.flows() {
            // Only then: a probe that fails must not make the lane forget since when it holds its window.
            self.consuming_since = Instant::now();
        }
        self.enter(state);
        if let Some(forming) = self.forming.take() {
            forming.errands.into_iter().for_each(|errand| self.ready.push_back(errand));
        }
        for errand in self.ready.take() {
            match errand.origin {
                Origin::Memory => self.park(errand).await,
                Origin::LaneQueue => self.ready.push_back(errand),
            }
        }
        let (memory, queue) =
            std::mem::take(&mut self.later).into_iter().partition(|(_, errand)| errand.origin == Origin::Memory);
        self.later = queue;
        let memory: BTreeMap<_, Errand> = memory;
        for ((due, _), mut errand) in memory {
            errand.delivery.not_before =
                Some(self.tools.clock.now().plus(due.saturating_duration_since(Instant::now())));
            self.park(errand).await;
        }
    }
}
