//! What comes in: from the intake's memory, and from the lane's queue; and what is handed on instead.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{CAUGHT_UP_AFTER, Lane, TURN_MAX};
use crate::{
    broker::Arrival,
    dead_letters::DeadLetter,
    lane::{Errand, LaneState, Origin, step},
    model::{DeathReason, Delivery, Ending, Own},
};

impl Lane {
    pub(super) async fn take_errand(&mut self, errand: Errand, under_way: usize) {
        let idle = under_way == 0 && self.ready.is_empty();
        let wanted_for_probe = matches!(self.state, LaneState::Probing { .. }) && idle;
        if self.flows() && !self.overloaded && errand.taken_at.elapsed() > TURN_MAX {
            self.fall_behind();
        }
        let room = self.ready.len() + under_way < self.capacity();
        if (self.flows() && (room || !self.overloaded)) || wanted_for_probe {
            self.accept(errand);
        } else {
            // The lane cannot deliver now: the broker keeps it, and the decision is free.
            self.park(errand).await;
        }
    }

    /// A slow endpoint must hold no more decisions than it can take in a moment: the intake's window is everybody's.
    fn fall_behind(&mut self) {
        warn!(channel = %self.plan.id, waiting = self.inbox.len(), "the lane has fallen behind; what comes waits on the broker");
        self.overloaded = true;
        self.full_since = None;
        self.open.store(false, Ordering::Relaxed);
    }

    /// Where sends hang, nothing is taken from the inbox, and so nobody would see how long it waits there.
    pub(super) fn watch_the_inbox(&mut self, now: Instant, free: usize) {
        if free > 0 || self.overloaded || !self.flows() || self.pace.is_limited() {
            self.full_since = None;
            return;
        }
        if *self.full_since.get_or_insert(now) + TURN_MAX <= now {
            if self.inbox.is_empty() {
                self.full_since = Some(now);
            } else {
                self.fall_behind();
            }
        }
    }

    pub(super) async fn take_arrival(&mut self, arrival: Arrival) {
        match (self.taken_over.replace(arrival.redelivered), arrival.redelivered) {
            // Somebody had it before, whose connection is gone: what that worker sent a moment ago counts against the limit.
            (None | Some(false), true) => self.pace.spend(Instant::now()),
            // The first one of all may come between another worker's leaving and the return of what that one held.
            (None, false) => self.pace.begin(Instant::now()),
            (Some(_), false) | (Some(true), true) => {}
        }
        match Delivery::from_bytes(&arrival.body) {
            Ok(mut delivery) => {
                delivery.channel = self.plan.id.clone();
                let errand = Errand {
                    delivery,
                    receipt: arrival.receipt,
                    origin: Origin::LaneQueue,
                    in_memory: None,
                    redelivered: arrival.redelivered,
                    taken_at: Instant::now(),
                };
                self.accept(errand);
            }
            Err(fault) => {
                warn!(channel = %self.plan.id, error = %fault, "a message in the lane's queue is no delivery; it is kept as a dead letter");
                let now = self.tools.clock.now();
                let letter = DeadLetter::of_message(arrival.body, DeathReason::Malformed, &fault.to_string(), now);
                self.tools.settler.bury(letter, arrival.receipt, None).await;
            }
        }
    }

    /// A lane that had fallen behind takes from memory again when it has had nothing to do for a while. What it handed to the
    /// broker comes back to it, so as long as there is a backlog it has.
    pub(super) fn catch_up(&mut self, now: Instant, under_way: usize) {
        let idle = self.flows()
            && under_way == 0
            && self.ready.is_empty()
            && self.forming.is_none()
            && self.arrivals.is_empty()
            && self.inbox.is_empty();
        if !self.overloaded || !idle {
            self.idle_since = None;
        } else if *self.idle_since.get_or_insert(now) + CAUGHT_UP_AFTER <= now {
            info!(channel = %self.plan.id, "the lane has caught up");
            self.overloaded = false;
            self.enter(LaneState::Flowing);
        }
    }

    pub(super) fn accept(&mut self, errand: Errand) {
        if self.is_known(&errand) {
            self.conclude_known(errand);
            return;
        }
        let wait = errand.delivery.not_before.map_or(Duration::ZERO, |due| due.since(self.tools.clock.now()));
        // Nobody writes down a longer wait than this: what says so was written, or is read, by a clock that is wrong.
        let longest = self.plan.retry.longest().max(step::ASKED_WAIT_MAX);
        if wait.is_zero() || wait > longest {
            self.ready.push_back(errand);
        } else {
            self.keep_for_later(errand, wait);
        }
    }

    /// Whether it was delivered before: a connection was lost and the broker had not heard of it, or another worker has said the
    /// same (see [`Own`]).
    pub(super) fn is_known(&self, errand: &Errand) -> bool {
        (errand.redelivered || errand.delivery.own().is_some()) && self.recent.contains(errand.delivery.id())
    }

    pub(super) fn conclude_known(&self, errand: Errand) {
        debug!(channel = %self.plan.id, delivery = %errand.delivery.id(), "already delivered");
        let uncounted = match errand.delivery.own() {
            None => errand.origin == Origin::Memory,
            // Another worker's, which it has counted as matched.
            Some(Own::Notice) => !errand.redelivered,
            Some(Own::Canary(_)) => false,
        };
        if uncounted {
            self.count_ended(&errand, Ending::Delivered, self.tools.clock.now());
        }
        errand.receipt.settle();
    }

    pub(super) fn keep_for_later(&mut self, errand: Errand, wait: Duration) {
        self.later_count += 1;
        self.later.insert((Instant::now() + wait, self.later_count), errand);
    }

    pub(super) async fn park(&mut self, errand: Errand) {
        if errand.comes_again() {
            return;
        }
        let stake = self.metrics.stake(errand.in_memory);
        self.tools.settler.park(&errand.delivery, errand.receipt, stake).await;
    }

    /// Keeps a delivery to be tried as soon as may be: here, or on the broker where the lane rests and the delivery came from
    /// memory, so that no decision waits unacknowledged behind a pause.
    pub(super) async fn keep(&mut self, errand: Errand) {
        if self.flows() || errand.origin == Origin::LaneQueue {
            self.ready.push_back(errand);
        } else {
            self.park(errand).await;
        }
    }
}
