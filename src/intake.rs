//! Decisions in: decode, route, hand over, settle.
//!
//! The intake holds one share of a decision's receipt until every delivery has been handed over with a share of its own, so a
//! panic anywhere in between reads as "not settled". A panic of our own on some input would come back with every redelivery for
//! ever, so it is caught and the message becomes a dead letter, `poison`.
//!
//! Absent on purpose: pace, retries, endpoints. A full or paused lane never holds the intake up for long: what a lane cannot
//! take now goes to its queue on the broker.

use std::{panic::AssertUnwindSafe, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    broker::{Arrival, Arrivals, Receipt},
    dead_letters::DeadLetter,
    lane::LaneHandle,
    model::{Clock, DeathReason, Decision, Delivery, decision::DecodeError},
    route::{Matches, Routes},
    settle::Settler,
    telemetry::Metrics,
};

/// How many arrivals are taken in one turn.
const BATCH: usize = 64;

/// Where decisions go: the rules, and the lanes that they number.
#[derive(Debug)]
pub struct Router {
    routes: Routes,
    lanes: Vec<LaneHandle>,
}

impl Router {
    /// A router over `lanes`, whose filters are `routes`, in the same order.
    pub fn new(routes: Routes, lanes: Vec<LaneHandle>) -> Self {
        Self { routes, lanes }
    }

    /// The lanes.
    pub fn lanes(&self) -> &[LaneHandle] {
        &self.lanes
    }
}

/// What takes decisions in.
#[derive(Debug)]
pub struct Intake {
    /// Where they go.
    pub router: Arc<Router>,
    /// How they are settled.
    pub settler: Settler,
    /// How every decision is appended to the decisions log, where one is kept.
    pub logger: Option<Settler>,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
}

impl Intake {
    /// Takes decisions in until `stop`, or until the broker was closed.
    pub async fn run(self, mut arrivals: Arrivals, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut matches = Matches::new();
        loop {
            // `recv_many` is cancel-safe: losing the race loses nothing. Handing over is not, so it is no arm of this select.
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                taken = arrivals.recv_many(&mut batch, BATCH) => taken,
            };
            if taken == 0 {
                return;
            }
            for arrival in batch.drain(..) {
                self.take_in(arrival, &mut matches).await;
            }
        }
    }

    async fn take_in(&self, arrival: Arrival, matches: &mut Matches) {
        let Arrival { body, redelivered, receipt } = arrival;
        let routed = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let decision = Decision::decode(body.clone())?;
            self.router.routes.matches(&decision, matches);
            Ok::<Decision, DecodeError>(decision)
        }));
        match routed {
            Ok(Ok(decision)) => self.hand_over(Arc::new(decision), redelivered, receipt, matches).await,
            Ok(Err(fault)) => {
                self.metrics.malformed.inc();
                warn!(bytes = body.len(), error = %fault, "a message is no decision; it is kept as a dead letter");
                let letter = DeadLetter::of_message(body, DeathReason::Malformed, &fault.to_string(), self.clock.now());
                self.settler.bury(letter, receipt, None).await;
            }
            Err(_panic) => {
                error!(
                    bytes = body.len(),
                    "handling a decision panicked; it is kept as a dead letter: please report it"
                );
                let letter =
                    DeadLetter::of_message(body, DeathReason::Poison, "handling it panicked", self.clock.now());
                self.settler.bury(letter, receipt, None).await;
            }
        }
    }

    async fn hand_over(&self, decision: Arc<Decision>, redelivered: bool, receipt: Receipt, matches: &[u32]) {
        let (kind, severity) = (decision.kind.as_str(), decision.severity.as_str());
        self.metrics.decisions.with_label_values(&[kind, severity]).inc();
        if matches.is_empty() {
            self.metrics.unrouted.with_label_values(&[severity]).inc();
            debug!(decision = %decision.id, kind, severity, "no channel wants this decision");
        }
        let now = self.clock.now();
        for &at in matches {
            let lane = &self.router.lanes[at as usize];
            let delivery = Delivery::new(Arc::clone(&decision), lane.id().clone(), now);
            lane.hand_over(delivery, receipt.share(), redelivered).await;
        }
        // After the lanes have it: a log that cannot be written must not keep anybody from being told.
        if let Some(logger) = &self.logger {
            logger.log(&decision, receipt.share()).await;
        }
        receipt.settle();
    }
}
