//! The catalogue of metrics: every name, unit, label and bound, in one place. The names are API (contract 8).
//!
//! Every series exists, at zero, from the start, so that a rate over a counter never begins with a gap and an alert can tell
//! "nothing happened" from "not measured". Labels are bounded by the configuration and by closed lists.
//!
//! Counting on the hot path costs one relaxed atomic each: a lane holds its own handles ([`ChannelMetrics`]) and looks up no
//! label.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{AtomicF64, Collector, GenericCounterVec},
};

use super::Untaken;
use crate::model::{ChannelId, DeathReason, DecisionKind, Ending, Severity, verdict::Outcome};

/// Buckets of durations, in seconds: from a loopback reply to the longest timeouts and waits.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Buckets of the time from decision to delivery, in seconds: an outage makes hours of it.
const LATENCY_SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0];

/// The states of a lane. Source: contract 1.
pub const LANE_STATES: [&str; 5] = ["flowing", "paused", "probing", "held", "stopped"];

/// Why a lane with work waits.
pub const LANE_WAITS: [&str; 4] = ["pace", "backoff", "paused", "held"];

/// Where a delivery waits.
pub const WAITING_PLACES: [&str; 2] = ["memory", "lane_queue"];

/// How an answer to an approval is given, and on which surface.
const ANSWERS: [&str; 2] = ["approve", "deny"];
const SURFACES: [&str; 3] = ["slack", "console", "api"];

/// All metrics of a worker.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// `decisions_total{decision,severity}`: decisions read, redeliveries included.
    pub decisions: IntCounterVec,
    /// `decisions_unrouted_total{severity}`: decisions that no channel wanted. Worry when CRITICAL ones are among them.
    pub unrouted: IntCounterVec,
    /// `malformed_total`: messages that could not be read as a decision; each is a dead letter.
    pub malformed: IntCounter,
    /// `dead_letters{reason,channel}`: dead letters in this worker's store now. Worry when it grows.
    pub dead_letters: IntGaugeVec,
    /// `dead_letters_total{reason,channel}`: dead letters written.
    pub dead_letters_written: IntCounterVec,
    /// `dead_letters_waiting`: dead letters in the broker's last-resort queue, because no store could be written.
    pub dead_letters_waiting: IntGauge,
    /// `dead_letter_store_writable`: 1 while the store takes letters.
    pub store_writable: IntGauge,
    /// `dead_letter_store_damaged_total`: damage found in the store (each is kept aside, nothing is deleted).
    pub store_damaged: IntCounter,
    /// `broker_connected`: 1 while it is.
    pub broker_connected: IntGauge,
    /// `broker_reconnects_total`: connections made again.
    pub broker_reconnects: IntCounter,
    /// `prefetch`: how many unsettled decisions this worker may hold. Compare with `acks_waiting`.
    pub prefetch: IntGauge,
    /// `decisions_waiting`: decisions in the broker's queue that are not settled: read by no worker yet, or by this one. Every worker
    /// of a pool shows the same unread ones: take the maximum, not the sum. Worry when it is not 0 and `decisions_total` stands still:
    /// no worker takes decisions in.
    pub decisions_waiting: IntGauge,
    /// `acks_waiting`: messages that were read and are not acknowledged yet: decisions, and what lanes hold of their queues.
    pub acks_waiting: IntGauge,
    /// `approvals_total{answer,via}`: first answers to approvals.
    pub approvals: IntCounterVec,
    /// `answers_waiting`: answers that the firewall has not been told yet, as far as this worker knows; every worker of a pool knows of
    /// all, so take the maximum. Worry when it stays above 0: an agent waits for an answer that was given.
    pub answers_waiting: IntGauge,
    /// `approval_latency_seconds`: from decision to first answer.
    pub approval_latency: Histogram,
    /// `config_reload_success_timestamp_seconds`: when the present configuration was taken over.
    pub config_reloaded: Gauge,
    /// `config_last_reload_successful`: 0 after a new configuration was refused, until one is taken over. Worry when it is 0: the worker
    /// runs, and what was changed in the file does not count.
    pub config_sound: IntGauge,
    /// `channels_unreadable`: channels made over the API that this worker cannot read, and so only holds what they want. Worry when it
    /// is not 0: the worker's key, its version or its `[egress]` differ from those of the worker that made them.
    pub channels_unreadable: IntGauge,
    /// `delivery_records_lost_total`: records of what became of deliveries that could not be written down in time. The deliveries are
    /// as safe as ever; the console cannot tell of them. Worry when it grows while the broker is well: the log is missing or silent.
    pub delivery_records_lost: IntCounter,
    matched: IntCounterVec,
    deliveries: IntCounterVec,
    waiting: IntGaugeVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    delivery_latency: HistogramVec,
    lane_state: IntGaugeVec,
    lane_wait: GenericCounterVec<AtomicF64>,
    replayed: IntCounterVec,
    last_success: IntGaugeVec,
    oldest_waiting: IntGaugeVec,
    canary_period: IntGaugeVec,
    /// No series: how many of the dead letters written are notices that died.
    dead_notices: IntCounterVec,
}

/// How many dead letters were written, by reason, in the order of [`DeathReason::ALL`].
pub type Deaths = [u64; DeathReason::ALL.len()];

/// One channel's handles.
#[derive(Clone, Debug)]
pub struct ChannelMetrics {
    /// `deliveries_matched_total{channel}`: deliveries made by routing.
    pub matched: IntCounter,
    /// `deliveries_waiting{channel,where="memory"}`: straight from the intake, held by this worker alone.
    pub in_memory: IntGauge,
    /// `deliveries_waiting{channel,where="lane_queue"}`: in the lane's queue on the broker, this worker's share of it handed out or
    /// not. Every worker of a pool shows the same queue: take the maximum, not the sum.
    pub in_lane_queue: IntGauge,
    /// `attempt_duration_seconds{channel}`: from the request to the end of the reply.
    pub attempt_duration: Histogram,
    /// `delivery_latency_seconds{channel}`: from the decision's time to its acceptance.
    pub delivery_latency: Histogram,
    /// `replayed_total{channel}`: dead letters sent again.
    pub replayed: IntCounter,
    /// `last_success_timestamp_seconds{channel}`: when the endpoint last took something from this worker, canaries included; 0 before
    /// the first time. Worry when it is older than two periods of the channel's canary, in every worker of a pool.
    pub last_success: IntGauge,
    /// `oldest_waiting_timestamp_seconds{channel}`: when the oldest delivery that waits was first routed, of those that this worker
    /// has in hand, under way, or next from the lane's queue; 0 when it has none, and while an operator has paused the channel, because
    /// nobody looks into the queue then. Seconds old at most. A lane's queue is handed to one worker of a pool: take the minimum of
    /// those that are not 0.
    pub oldest_waiting: IntGauge,
    /// What has died since the endpoint last took something from this worker. The console shows it; as a metric, it is what
    /// `dead_letters_total` and `last_success_timestamp_seconds` say.
    pub untaken: Arc<Untaken>,
    deaths: [IntCounter; DeathReason::ALL.len()],
    dead_notices: [IntCounter; DeathReason::ALL.len()],
    endings: [IntCounter; Ending::ALL.len()],
    outcomes: [IntCounter; Outcome::ALL.len()],
    states: [IntGauge; LANE_STATES.len()],
    waits: [prometheus::Counter; LANE_WAITS.len()],
}

impl ChannelMetrics {
    /// Counts `count` deliveries that ended so.
    pub fn ended(&self, ending: Ending, count: u64) {
        self.endings[ending as usize].inc_by(count);
    }

    /// How many deliveries ended so in this worker.
    pub fn endings(&self, ending: Ending) -> u64 {
        self.endings[ending as usize].get()
    }

    /// How many tries had this outcome in this worker.
    pub fn tries(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].get()
    }

    /// The dead letters of the channel that this worker has written since it started. Notices that died are left out: to tell of
    /// them would only make more of them.
    pub fn deaths(&self) -> Deaths {
        std::array::from_fn(|at| self.deaths[at].get().saturating_sub(self.dead_notices[at].get()))
    }

    /// Counts one delivery in memory, for as long as the value lives.
    pub fn hold_in_memory(&self) -> InMemory {
        self.in_memory.inc();
        InMemory(self.in_memory.clone())
    }

    /// The stake of a delivery that is handed on; `in_memory` is where it was counted until now, if it was.
    pub fn stake(&self, in_memory: Option<InMemory>) -> Stake {
        Stake { dead: self.endings[Ending::Dead as usize].clone(), _in_memory: in_memory }
    }

    /// Counts `count` tries with this outcome.
    pub fn tried(&self, outcome: Outcome, count: u64) {
        self.outcomes[outcome as usize].inc_by(count);
    }

    /// Shows `state`, an index of [`LANE_STATES`], as the present one.
    pub fn show_state(&self, state: usize) {
        for (at, gauge) in self.states.iter().enumerate() {
            gauge.set(i64::from(at == state));
        }
    }

    /// Adds time that the lane had work and waited; `why` is an index of [`LANE_WAITS`].
    pub fn waited(&self, why: usize, time: Duration) {
        self.waits[why].inc_by(time.as_secs_f64());
    }
}

/// One delivery in this worker's memory: counted from when it is made until it is dropped, wherever that happens.
#[derive(Debug)]
pub struct InMemory(IntGauge);

impl Drop for InMemory {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a delivery that is carried somewhere still owes to the numbers of its channel: it waits in memory until it has arrived,
/// and it may die on the way.
#[derive(Debug)]
pub struct Stake {
    dead: IntCounter,
    _in_memory: Option<InMemory>,
}

impl Stake {
    /// The delivery has ended in the dead-letter store.
    pub fn died(self) {
        self.dead.inc();
    }
}

/// Builds metrics and registers them. A name that is there twice or malformed is a bug of this file, which every test that makes
/// a `Metrics` would show.
struct Catalogue(Registry);

impl Catalogue {
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels below are well-formed");
        self.0.register(Box::new(metric.clone())).expect("every name below is unique");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels))
    }

    /// Counters for the program's own use: they are in no catalogue.
    fn counters_apart(labels: &[&str]) -> IntCounterVec {
        IntCounterVec::new(opts("apart", "Not a series."), labels).expect("the name and the labels are well-formed")
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(seconds(name, help, buckets), CHANNEL))
    }
}

/// Why a message dies that belongs to no channel.
const OF_NO_CHANNEL: [DeathReason; 3] = [DeathReason::Malformed, DeathReason::Poison, DeathReason::BrokerGaveUp];

/// The one label of most series.
const CHANNEL: &[&str] = &["channel"];

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("interven_alerts_{name}"), help)
}

fn seconds(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec())
}

impl Metrics {
    /// The catalogue, every series without a channel at zero.
    pub fn new() -> Self {
        let all = Catalogue(Registry::new());
        let deaths = &["reason", "channel"];
        let metrics = Self {
            decisions: all.counters(
                "decisions_total",
                "Decisions read from the broker, redeliveries included.",
                &["decision", "severity"],
            ),
            unrouted: all.counters("decisions_unrouted_total", "Decisions that no channel wanted.", &["severity"]),
            malformed: all.counter("malformed_total", "Messages that could not be read as a decision."),
            dead_letters: all.gauges("dead_letters", "Dead letters in this worker's store.", deaths),
            dead_letters_written: all.counters("dead_letters_total", "Dead letters written.", deaths),
            dead_letters_waiting: all.gauge("dead_letters_waiting", "Dead letters in the broker's last-resort queue."),
            store_writable: all.gauge("dead_letter_store_writable", "1 while the dead-letter store takes letters."),
            store_damaged: all.counter(
                "dead_letter_store_damaged_total",
                "Damage found in the dead-letter store; what was damaged is kept aside.",
            ),
            broker_connected: all.gauge("broker_connected", "1 while the broker is connected."),
            broker_reconnects: all
                .counter("broker_reconnects_total", "Connections to the broker that were made again."),
            prefetch: all.gauge("prefetch", "Unsettled decisions that this worker may hold."),
            decisions_waiting: all.gauge(
                "decisions_waiting",
                "Decisions that are not settled: unread, or read by this worker. Take the maximum over workers.",
            ),
            acks_waiting: all.gauge(
                "acks_waiting",
                "Messages read and not yet acknowledged: decisions, and deliveries out of lane queues.",
            ),
            approvals: all.counters("approvals_total", "First answers to approvals.", &["answer", "via"]),
            answers_waiting: all.gauge(
                "answers_waiting",
                "Answers to approvals that the firewall has not been told. Take the maximum.",
            ),
            approval_latency: all.add(Histogram::with_opts(seconds(
                "approval_latency_seconds",
                "From decision to first answer.",
                &LATENCY_SECONDS,
            ))),
            config_reloaded: all.add(Gauge::with_opts(opts(
                "config_reload_success_timestamp_seconds",
                "When the present configuration was taken over.",
            ))),
            config_sound: all.gauge(
                "config_last_reload_successful",
                "1 while the configuration last read is the one in use; 0 after it was refused.",
            ),
            channels_unreadable: all
                .gauge("channels_unreadable", "Channels made over the API that this worker cannot read."),
            delivery_records_lost: all.counter(
                "delivery_records_lost_total",
                "Records of what became of deliveries that could not be written down.",
            ),
            matched: all.counters("deliveries_matched_total", "Deliveries made by routing.", CHANNEL),
            deliveries: all.counters("deliveries_total", "Deliveries by how they ended.", &["channel", "ending"]),
            waiting: all.gauges(
                "deliveries_waiting",
                "Deliveries that wait, by place. The lane queue is the pool's: take the maximum over workers.",
                &["channel", "where"],
            ),
            attempts: all.counters(
                "attempts_total",
                "Tries by outcome; a delivery that was retried twice adds three.",
                &["channel", "outcome"],
            ),
            attempt_duration: all.histograms(
                "attempt_duration_seconds",
                "From request to the end of the reply.",
                &SECONDS,
            ),
            delivery_latency: all.histograms(
                "delivery_latency_seconds",
                "From the decision's time to its acceptance.",
                &LATENCY_SECONDS,
            ),
            lane_state: all.gauges("lane_state", "1 for the state that the lane is in.", &["channel", "state"]),
            lane_wait: all.add(GenericCounterVec::new(
                opts("lane_wait_seconds_total", "Time that a lane had work and waited."),
                &["channel", "why"],
            )),
            replayed: all.counters("replayed_total", "Dead letters sent again.", CHANNEL),
            last_success: all.gauges(
                "last_success_timestamp_seconds",
                "When the endpoint last took anything.",
                CHANNEL,
            ),
            oldest_waiting: all.gauges(
                "oldest_waiting_timestamp_seconds",
                "When the oldest delivery that waits was first routed; 0 when none does.",
                CHANNEL,
            ),
            canary_period: all.gauges("canary_period_seconds", "How often a canary is sent; 0 for never.", CHANNEL),
            dead_notices: Catalogue::counters_apart(deaths),
            registry: all.0,
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        for severity in Severity::ALL {
            self.unrouted.with_label_values(&[severity.as_str()]);
            for kind in DecisionKind::ALL {
                self.decisions.with_label_values(&[kind.as_str(), severity.as_str()]);
            }
        }
        for reason in OF_NO_CHANNEL {
            self.dead_letters.with_label_values(&[reason.as_str(), ""]);
            self.dead_letters_written.with_label_values(&[reason.as_str(), ""]);
        }
        self.replayed.with_label_values(&[""]);
        self.config_sound.set(1);
        for (answer, via) in ANSWERS.iter().flat_map(|answer| SURFACES.iter().map(move |via| (answer, via))) {
            self.approvals.with_label_values(&[answer, via]);
        }
        let all = Catalogue(self.registry.clone());
        let build = all.gauges("build_info", "Always 1; the version is in the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("the process collector is registered once");
    }

    /// The handles of one channel, every series of it at zero.
    pub fn channel(&self, id: &ChannelId) -> ChannelMetrics {
        let id = id.as_str();
        for reason in DeathReason::ALL {
            self.dead_letters.with_label_values(&[reason.as_str(), id]);
            self.dead_letters_written.with_label_values(&[reason.as_str(), id]);
        }
        ChannelMetrics {
            matched: self.matched.with_label_values(&[id]),
            in_memory: self.waiting.with_label_values(&[id, WAITING_PLACES[0]]),
            in_lane_queue: self.waiting.with_label_values(&[id, WAITING_PLACES[1]]),
            attempt_duration: self.attempt_duration.with_label_values(&[id]),
            delivery_latency: self.delivery_latency.with_label_values(&[id]),
            replayed: self.replayed.with_label_values(&[id]),
            last_success: self.last_success.with_label_values(&[id]),
            oldest_waiting: self.oldest_waiting.with_label_values(&[id]),
            untaken: Arc::default(),
            deaths: DeathReason::ALL.map(|reason| self.dead_letters_written.with_label_values(&[reason.as_str(), id])),
            dead_notices: DeathReason::ALL.map(|reason| self.dead_notices.with_label_values(&[reason.as_str(), id])),
            endings: Ending::ALL.map(|ending| self.deliveries.with_label_values(&[id, ending.as_str()])),
            outcomes: Outcome::ALL.map(|outcome| self.attempts.with_label_values(&[id, outcome.as_str()])),
            states: LANE_STATES.map(|state| self.lane_state.with_label_values(&[id, state])),
            waits: LANE_WAITS.map(|why| self.lane_wait.with_label_values(&[id, why])),
        }
    }

    /// Counts a dead letter that was written; `notice` says that it holds a notice.
    pub fn wrote_letter(&self, reason: DeathReason, channel: Option<&ChannelId>, notice: bool) {
        let labels = [reason.as_str(), channel.map_or("", ChannelId::as_str)];
        self.dead_letters_written.with_label_values(&labels).inc();
        if notice {
            self.dead_notices.with_label_values(&labels).inc();
        }
    }

    /// Counts dead letters that were sent again; those of no channel went back to where decisions come from.
    pub fn sent_again(&self, channel: Option<&ChannelId>, count: u64) {
        self.replayed.with_label_values(&[channel.map_or("", ChannelId::as_str)]).inc_by(count);
    }

    /// The dead letters of no channel that this worker has written since it started.
    pub fn deaths_of_no_channel(&self) -> Deaths {
        let mut deaths = Deaths::default();
        for reason in OF_NO_CHANNEL {
            deaths[reason as usize] = self.dead_letters_written.with_label_values(&[reason.as_str(), ""]).get();
        }
        deaths
    }

    /// Takes the gauges of a removed channel away, because nothing sets them any more. Its counters stay, as counters must.
    pub fn remove_gauges(&self, id: &ChannelId) {
        // An error says that the series is not there, which is what is wanted.
        for place in WAITING_PLACES {
            drop(self.waiting.remove_label_values(&[id.as_str(), place]));
        }
        for state in LANE_STATES {
            drop(self.lane_state.remove_label_values(&[id.as_str(), state]));
        }
        for gauge in [&self.last_success, &self.oldest_waiting, &self.canary_period] {
            drop(gauge.remove_label_values(&[id.as_str()]));
        }
    }

    /// `canary_period_seconds{channel}`: how often a canary tests the channel; 0 for never.
    pub fn show_canary(&self, id: &ChannelId, period: Option<Duration>) {
        let seconds = period.map_or(0, |period| i64::try_from(period.as_secs()).unwrap_or(i64::MAX));
        self.canary_period.with_label_values(&[id.as_str()]).set(seconds);
    }

    /// The stake of a delivery whose channel is not configured: it may only die.
    pub fn stake_of_removed(&self, id: &ChannelId) -> Stake {
        let labels = [id.as_str(), Ending::Dead.as_str()];
        Stake { dead: self.deliveries.with_label_values(&labels), _in_memory: None }
    }

    /// Shows what the dead-letter store holds and whether it can be written.
    pub fn show_store(&self, counts: &BTreeMap<(DeathReason, Option<ChannelId>), u64>, writable: bool) {
        for ((reason, channel), count) in counts {
            let channel = channel.as_ref().map_or("", ChannelId::as_str);
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.dead_letters.with_label_values(&[reason.as_str(), channel]).set(count);
        }
        self.store_writable.set(i64::from(writable));
    }

    /// All series in the text format of Prometheus (`text/plain; version=0.0.4`).
    pub fn encode(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be written");
            String::new()
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Metrics};
    use crate::model::DeathReason;

    #[test]
    fn a_removed_channel_shows_no_gauges_and_keeps_its_counters() {
        let metrics = Metrics::new();
        let id = "soc".parse().unwrap();
        metrics.channel(&id).matched.inc();
        metrics.show_canary(&id, Some(Duration::from_hours(1)));
        assert!(metrics.encode().contains("canary_period_seconds{channel=\"soc\"} 3600"));
        metrics.remove_gauges(&id);
        metrics.stake_of_removed(&id).died();
        let text = metrics.encode();
        for gauge in [
            "lane_state",
            "deliveries_waiting",
            "last_success_timestamp_seconds",
            "oldest_waiting_timestamp_seconds",
            "canary_period_seconds",
        ] {
            assert!(
                !text.contains(&format!("{gauge}{{channel=\"soc\"")),
                "{gauge} of a channel that is gone in\n{text}"
            );
        }
        for series in
            ["deliveries_matched_total{channel=\"soc\"} 1", "deliveries_total{channel=\"soc\",ending=\"dead\"} 1"]
        {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
    }

    #[test]
    fn every_series_of_the_contract_is_there_at_zero_from_the_start() {
        let metrics = Metrics::new();
        let channel = metrics.channel(&"soc".parse().unwrap());
        channel.show_state(0);
        metrics.show_canary(&"soc".parse().unwrap(), None);
        let text = metrics.encode();
        for series in [
            r#"decisions_total{decision="DENY",severity="LOW"} 0"#,
            r#"decisions_unrouted_total{severity="CRITICAL"} 0"#,
            "malformed_total 0",
            "delivery_records_lost_total 0",
            r#"deliveries_matched_total{channel="soc"} 0"#,
            r#"deliveries_total{channel="soc",ending="folded"} 0"#,
            r#"deliveries_waiting{channel="soc",where="lane_queue"} 0"#,
            r#"attempts_total{channel="soc",outcome="broken"} 0"#,
            r#"attempt_duration_seconds_count{channel="soc"} 0"#,
            r#"delivery_latency_seconds_count{channel="soc"} 0"#,
            r#"lane_state{channel="soc",state="flowing"} 1"#,
            r#"lane_state{channel="soc",state="held"} 0"#,
            r#"lane_wait_seconds_total{channel="soc",why="pace"} 0"#,
            r#"dead_letters{channel="soc",reason="expired"} 0"#,
            r#"dead_letters_total{channel="",reason="malformed"} 0"#,
            r#"replayed_total{channel="soc"} 0"#,
            r#"last_success_timestamp_seconds{channel="soc"} 0"#,
            r#"oldest_waiting_timestamp_seconds{channel="soc"} 0"#,
            r#"canary_period_seconds{channel="soc"} 0"#,
            "prefetch 0",
            "decisions_waiting 0",
            "broker_connected 0",
            "broker_reconnects_total 0",
            "acks_waiting 0",
            r#"approvals_total{answer="deny",via="console"} 0"#,
            "answers_waiting 0",
            "approval_latency_seconds_count 0",
            "config_reload_success_timestamp_seconds 0",
            "config_last_reload_successful 1",
            "build_info{version=",
        ] {
            assert!(text.contains(&format!("interven_alerts_{series}")), "{series} is missing in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(!text.contains("interven_alerts_apart"), "it is no series");
    }

    #[test]
    fn notices_that_died_are_counted_as_dead_letters_and_not_as_deaths_to_tell_of() {
        let metrics = Metrics::new();
        let id = "soc".parse().unwrap();
        let channel = metrics.channel(&id);
        metrics.wrote_letter(DeathReason::Refused, Some(&id), false);
        metrics.wrote_letter(DeathReason::Refused, Some(&id), true);
        metrics.wrote_letter(DeathReason::Malformed, None, false);
        let count = |deaths: super::Deaths, reason| (deaths[reason as usize], deaths.iter().sum::<u64>());
        assert_eq!(count(channel.deaths(), DeathReason::Refused), (1, 1));
        assert_eq!(count(metrics.deaths_of_no_channel(), DeathReason::Malformed), (1, 1));
        let text = metrics.encode();
        assert!(text.contains(r#"dead_letters_total{channel="soc",reason="refused"} 2"#), "{text}");
    }
}
