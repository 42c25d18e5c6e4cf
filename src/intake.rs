//! Decisions in: decode, route, hand over, settle.
//!
//! The intake holds one share of a decision's receipt until every delivery has been handed over with a share of its own, so a
//! panic anywhere in between reads as "not settled". A panic of our own on some input would come back with every redelivery for
//! ever, so it is caught and the message becomes a dead letter, `poison`.
//!
//! Absent on purpose: pace, retries, endpoints. A full or paused lane never holds the intake up for long: what a lane cannot
//! take now goes to its queue on the broker.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    approvals,
    broker::{Arrival, Arrivals, Log, Receipt},
    dead_letters::DeadLetter,
    delivery_log::DeliveryLog,
    lane::LaneHandle,
    model::{ChannelId, Clock, DeathReason, Decision, Delivery, Own, decision::DecodeError},
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
    own: Vec<OwnTerms>,
}

/// What the worker itself says to a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnTerms {
    /// Whether it is told when another channel is in trouble.
    pub notices: bool,
    /// How often it is tested by a canary; `None` never.
    pub canary: Option<Duration>,
}

impl Router {
    /// A router over `lanes`, whose filters are `routes`, in the same order.
    pub fn new(routes: Routes, lanes: Vec<LaneHandle>) -> Self {
        Self { routes, lanes, own: Vec::new() }
    }

    /// The same, with what the worker itself says to each lane's channel, in the same order. Without it, that is nothing.
    #[must_use]
    pub fn with_own(self, own: Vec<OwnTerms>) -> Self {
        Self { own, ..self }
    }

    /// The lanes with what the worker itself says to their channels.
    pub fn own(&self) -> impl Iterator<Item = (&LaneHandle, OwnTerms)> {
        self.lanes.iter().zip(self.own.iter().copied())
    }

    /// The lanes.
    pub fn lanes(&self) -> &[LaneHandle] {
        &self.lanes
    }
}

/// The present router: a reload puts another one in its place, and what is routed from then on goes by it.
pub type Routing = watch::Receiver<Arc<Router>>;

/// What takes decisions in.
#[derive(Debug)]
pub struct Intake {
    /// Where they go.
    pub router: Routing,
    /// How they are settled.
    pub settler: Settler,
    /// How every decision is appended to the decisions log, where one is kept.
    pub logger: Option<Settler>,
    /// How what the firewall asks for is appended to the approvals log.
    pub asker: Settler,
    /// Where it is written down where they were routed to.
    pub deliveries: DeliveryLog,
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
            let router = Arc::clone(&self.router.borrow());
            if stop.is_cancelled() {
                // The router may have been emptied already: by it, nobody would want these. The broker keeps them.
                return;
            }
            for arrival in batch.drain(..) {
                self.take_in(&router, arrival, &mut matches).await;
            }
        }
    }

    async fn take_in(&self, router: &Router, arrival: Arrival, matches: &mut Matches) {
        let Arrival { body, redelivered, receipt } = arrival;
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let decision = Decision::decode(body.clone())?;
            router.routes.matches(&decision, matches);
            Ok::<Decision, DecodeError>(decision)
        }));
        match outcome {
            Ok(Ok(decision)) => self.hand_over(router, Arc::new(decision), redelivered, receipt, matches).await,
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

    async fn hand_over(
        &self,
        router: &Router,
        decision: Arc<Decision>,
        redelivered: bool,
        receipt: Receipt,
        matches: &[u32],
    ) {
        if let Some(Own::Canary(channel)) = Own::of(&decision) {
            return self.pass_canary(router, decision, &channel, receipt).await;
        }
        let (kind, severity) = (decision.kind.as_str(), decision.severity.as_str());
        self.metrics.decisions.with_label_values(&[kind, severity]).inc();
        if matches.is_empty() {
            self.metrics.unrouted.with_label_values(&[severity]).inc();
            debug!(decision = %decision.id, kind, severity, "no channel wants this decision");
        }
        let now = self.clock.now();
        // Before any of them can have an ending.
        self.deliveries.routed(&decision.id, now, matches.iter().map(|&at| router.lanes[at as usize].id()));
        for &at in matches {
            let lane = &router.lanes[at as usize];
            let delivery = Delivery::new(Arc::clone(&decision), lane.id().clone(), now);
            lane.hand_over(delivery, receipt.share(), redelivered).await;
        }
        // After the lanes have it: a log that cannot be written must not keep anybody from being told.
        if decision.approval_asked().is_some() {
            let (id, record) = approvals::asked(&decision, now);
            self.asker.append(Log::Approvals, id.to_string(), record, receipt.share()).await;
        }
        if let Some(logger) = &self.logger {
            logger.log(&decision, receipt.share()).await;
        }
        receipt.settle();
    }

    /// A canary goes to the channel that it tests and to no other, whatever the filters say. It is no decision of the firewall's, so
    /// it is neither counted nor logged as one.
    async fn pass_canary(&self, router: &Router, canary: Arc<Decision>, channel: &ChannelId, receipt: Receipt) {
        let Some(lane) = router.lanes.iter().find(|lane| lane.id() == channel) else {
            debug!(%channel, canary = %canary.id, "a canary for a channel that is no more");
            receipt.settle();
            return;
        };
        let delivery = Delivery::new(canary, channel.clone(), self.clock.now());
        lane.hand_over(delivery, receipt, false).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        broker::{Destination, Queue, receipt::Desk},
        model::{Ending, Filter, Severity, own},
        settle::Job,
    };

    /// Notes which messages were settled, and which were given back.
    #[derive(Default)]
    struct Ledger(Mutex<Vec<(u64, bool)>>);

    impl Desk for Ledger {
        fn close(&self, tag: u64, settled: bool) {
            self.0.lock().unwrap().push((tag, settled));
        }
    }

    /// An intake in front of two lanes that have room for one delivery each and never send it.
    struct Bench {
        arrivals: mpsc::Sender<Arrival>,
        ledger: Arc<Ledger>,
        jobs: mpsc::Receiver<Job>,
        metrics: Metrics,
        router: Arc<Router>,
        task: tokio_util::task::TaskTracker,
        stop: CancellationToken,
        _kept: Vec<Box<dyn Send>>,
    }

    impl Bench {
        fn new(keep_decisions: bool) -> Self {
            let (settler, jobs) = Settler::by_hand();
            let (metrics, mut kept) = (Metrics::new(), Vec::<Box<dyn Send>>::new());
            let lanes = ["one", "two"].map(|id| {
                let id = id.parse().unwrap();
                let channel = metrics.channel(&id);
                let (lane, inside) = LaneHandle::by_hand(id, 1, settler.clone(), channel);
                kept.push(Box::new(inside));
                lane
            });
            let all =
                Filter { events: Filter::default_events(), min_severity: Severity::Medium, tools: None, agents: None };
            let router = Arc::new(Router::new(Routes::new(vec![all.clone(), all]), lanes.into()));
            let (sender, arrivals) = mpsc::channel(1_000);
            let (task, stop) = (tokio_util::task::TaskTracker::new(), CancellationToken::new());
            let clock = Clock::System;
            let logger = keep_decisions.then(|| settler.clone());
            let routing = watch::channel(Arc::clone(&router)).1;
            let asker = settler.clone();
            let deliveries = DeliveryLog::none();
            let metrics_of_it = metrics.clone();
            let intake = Intake { router: routing, settler, logger, asker, deliveries, clock, metrics: metrics_of_it };
            task.spawn(intake.run(Arrivals::new(arrivals), stop.clone()));
            task.close();
            let ledger = Arc::new(Ledger::default());
            Self { arrivals: sender, ledger, jobs, metrics, router, task, stop, _kept: kept }
        }

        fn arrives(&self, tag: u64, body: impl Into<Bytes>) {
            let receipt = Receipt::new(tag, Arc::clone(&self.ledger) as Arc<dyn Desk>);
            self.arrivals.try_send(Arrival { body: body.into(), redelivered: false, receipt }).unwrap();
        }

        fn decision(&self, tag: u64, severity: &str) {
            let json = serde_json::json!({
                "id": tag.to_string(), "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": severity,
                "agent": {"id": "a"}, "tool": "t",
            });
            self.arrives(tag, json.to_string());
        }

        fn closed(&self) -> Vec<(u64, bool)> {
            self.ledger.0.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_into_a_lane_goes_to_its_queue_and_the_decision_waits_for_both() {
        let mut bench = Bench::new(false);
        bench.decision(1, "HIGH");
        bench.decision(2, "HIGH");
        for lane in ["one", "two"] {
            assert_eq!(bench.closed(), [], "nothing is safe yet");
            let Job::Publish { message, receipt, .. } = bench.jobs.recv().await.unwrap() else { panic!("not parked") };
            assert_eq!(message.to, Destination::Queue(Queue::Lane(lane.parse().unwrap())));
            receipt.settle();
        }
        assert_eq!(bench.closed(), [(2, true)], "the first is still in both lanes' memory");
        for lane in bench.router.lanes() {
            assert_eq!((lane.metrics().matched.get(), lane.metrics().in_memory.get()), (2, 1));
            assert_eq!(lane.metrics().endings(Ending::Delivered), 0);
        }
    }

    #[tokio::test]
    async fn a_decision_is_not_settled_before_the_log_has_it() {
        let mut bench = Bench::new(true);
        bench.decision(1, "LOW");
        let Job::Publish { message, receipt, .. } = bench.jobs.recv().await.unwrap() else { panic!("not logged") };
        assert_eq!(message.to, Destination::Log(Log::Decisions));
        tokio::task::yield_now().await;
        assert_eq!(bench.closed(), []);
        receipt.settle();
        assert_eq!(bench.closed(), [(1, true)]);
        assert_eq!(bench.metrics.unrouted.with_label_values(&["LOW"]).get(), 1);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_in_the_approvals_log_before_the_decision_is_settled_also_where_no_decisions_are_kept()
    {
        let mut bench = Bench::new(false);
        let json = serde_json::json!({
            "id": "1", "time": "2026-06-01T12:00:00Z", "decision": "REQUIRE_APPROVAL", "severity": "LOW",
            "agent": {"id": "a"}, "tool": "t", "approval": {"id": "apr_7"},
        });
        bench.arrives(1, json.to_string());
        let Job::Publish { message, receipt, .. } = bench.jobs.recv().await.unwrap() else { panic!("not recorded") };
        assert_eq!(message.to, Destination::Log(Log::Approvals));
        let record = approvals::Entry::decode(&message.body).unwrap().unwrap();
        let approvals::Deed::Asked(decision) = record.deed else { panic!("something else: {record:?}") };
        assert_eq!((decision.raw(), message.id), (&Bytes::from(json.to_string()), record.id.to_string()));
        tokio::task::yield_now().await;
        assert_eq!(bench.closed(), []);
        receipt.settle();
        assert_eq!(bench.closed(), [(1, true)]);
        // One that carries an approval and asks for nothing is none.
        let mut json = json;
        json["decision"] = "DENY".into();
        bench.arrives(2, json.to_string());
        while bench.closed() != [(1, true), (2, true)] {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_canary_goes_to_the_channel_that_it_tests_and_is_neither_counted_nor_logged() {
        let mut bench = Bench::new(true);
        let canary = |channel: &str| own::canary(&channel.parse().unwrap(), 1, Clock::System.now());
        bench.arrives(1, canary("two").raw().clone());
        let Job::Publish { message, receipt, .. } = bench.jobs.recv().await.unwrap() else { panic!("not parked") };
        assert_eq!(message.to, Destination::Queue(Queue::Lane("two".parse().unwrap())));
        receipt.settle();
        bench.arrives(2, canary("gone").raw().clone());
        // The next thing that anybody hears of is what came after it.
        bench.decision(3, "LOW");
        let Job::Publish { message, .. } = bench.jobs.recv().await.unwrap() else { panic!("not logged") };
        assert_eq!((message.to, message.id), (Destination::Log(Log::Decisions), String::from("3")));
        assert_eq!(bench.closed(), [(1, true), (2, true), (3, false)]);
        let count = |kind, severity| bench.metrics.decisions.with_label_values(&[kind, severity]).get();
        assert_eq!((count("ALLOW", "LOW"), count("DENY", "LOW")), (0, 1));
        assert_eq!(bench.metrics.unrouted.with_label_values(&["LOW"]).get(), 1);
        assert!(bench.router.lanes().iter().all(|lane| lane.metrics().matched.get() == 0));
    }

    #[tokio::test]
    async fn what_only_looks_like_a_canary_is_a_decision_like_any_other() {
        let bench = Bench::new(false);
        let canary = own::canary(&"gone".parse().unwrap(), 1, Clock::System.now());
        let mut json: serde_json::Value = serde_json::from_slice(canary.raw()).unwrap();
        json["decision"] = "DENY".into();
        json["severity"] = "HIGH".into();
        bench.arrives(1, json.to_string());
        while bench.router.lanes().iter().any(|lane| lane.metrics().matched.get() == 0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.metrics.decisions.with_label_values(&["DENY", "HIGH"]).get(), 1);
    }

    #[tokio::test]
    async fn what_is_no_decision_is_kept_as_it_came_and_holds_nobody_up() {
        let mut bench = Bench::new(false);
        bench.arrives(1, &b"\xff{not json"[..]);
        bench.decision(2, "LOW");
        let Job::Bury { letter, receipt, .. } = bench.jobs.recv().await.unwrap() else { panic!("not buried") };
        assert_eq!((letter.reason, &letter.body[..]), (DeathReason::Malformed, &b"\xff{not json"[..]));
        while bench.closed() != [(2, true)] {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.metrics.malformed.get(), 1);
        drop(receipt);
        assert_eq!(bench.closed(), [(2, true), (1, false)], "a letter that was not kept comes again");
    }

    #[tokio::test]
    async fn a_settler_that_is_full_holds_the_intake_up_and_a_stop_gives_everything_back() {
        // Goal: memory stays bounded while the broker takes nothing, and what could not be handed over is not settled.
        let Bench { arrivals, ledger, jobs, metrics, router, task, stop, _kept: kept } = Bench::new(false);
        let bench = Bench { arrivals, ledger, jobs: mpsc::channel(1).1, metrics, router, task, stop, _kept: kept };
        (0..900).for_each(|tag| bench.decision(tag, "HIGH"));
        while jobs.len() < jobs.max_capacity() {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let taken = bench.router.lanes()[0].metrics().matched.get();
        assert!(taken <= 300, "{taken} decisions were taken in with nowhere to put them");
        bench.stop.cancel();
        drop(jobs);
        bench.task.wait().await;
        assert!(!bench.closed().is_empty() && bench.closed().iter().all(|(_, settled)| !settled));
    }
}
