//! Several workers as one system: processes on one real broker, in front of endpoints that hold them to what they promised.
//!
//! The endpoints enforce the limit exactly (`Script::exact_rate`): a request that comes a millisecond early is answered 429 and
//! not accepted, so whatever the pool does wrong together shows as a violation. Every test prints what it measured.

mod limit;
mod storm;
mod takeover;

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::Clock,
    stand_ins::{Fate, Platform, Script, StandIn},
};
use tokio::time::Instant;

use crate::support::{
    eventually,
    firewall::Publisher,
    pool::Pool,
    rabbit::Rabbit,
    scene::{Scene, on},
    unique_name,
    worker::PATIENCE,
};

const SECOND: Duration = Duration::from_secs(1);

/// One card for each delivery.
const NO_DIGESTS: &str = "[channel.digest]\nenabled = false\n";

/// A decision of now.
fn decision(id: &str, kind: &str, severity: &str, agent: &str) -> Bytes {
    let now = Clock::System.now();
    let mut json = serde_json::json!({
        "id": id, "time": now, "decision": kind, "severity": severity, "title": "Secret egress blocked",
        "agent": {"id": agent, "name": agent}, "tool": "slack", "operation": "post_message",
        "reasons": ["SECRET_DETECTED"],
    });
    if kind == "REQUIRE_APPROVAL" {
        let expires_at = now.plus(Duration::from_mins(10));
        json["approval"] = serde_json::json!({"id": format!("apr_{id}"), "expires_at": expires_at});
    }
    json.to_string().into()
}

/// So many decisions that a channel with default filters wants.
fn denies(what: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|number| decision(&format!("{what}-{number}"), "DENY", "HIGH", "agt_42")).collect()
}

/// A pool in front of one Slack channel, `soc`, and a publisher to it.
struct Stage {
    scene: Scene,
    pool: Pool,
    publisher: Publisher,
    prefix: String,
}

impl Stage {
    async fn set(what: &str, size: usize, script: Script, keys: &str) -> Self {
        let mut scene = Scene::default();
        scene.add("soc", Platform::Slack, script, keys).await;
        Self::with(what, size, scene).await
    }

    async fn with(what: &str, size: usize, scene: Scene) -> Self {
        let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name(what));
        let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
        let pool = Pool::start(config, size).await;
        Self { scene, pool, publisher: Publisher::new(rabbit.url(), &prefix), prefix }
    }

    fn soc(&self) -> &StandIn {
        self.scene.stand_in("soc")
    }

    /// Waits until every decision has been handed on, and the broker knows it: a worker that dies before makes decisions come
    /// again, which is another story than a lane that changes hands.
    async fn until_handed_on(&self) {
        let decisions = format!("{}.alerts.decisions", self.prefix);
        let gone = async || (Rabbit::shared().weight(&decisions).await.0 == 0).then_some(());
        eventually("every decision is handed on", PATIENCE, gone).await;
    }

    /// Waits until an endpoint has taken so many messages.
    async fn until_taken(&self, channel: &str, count: u64) {
        let endpoint = self.scene.stand_in(channel);
        let taken = async || (endpoint.counters().taken >= count).then_some(());
        eventually(&format!("{count} messages are taken"), Duration::from_mins(2), taken).await;
    }

    /// Waits until nothing waits anywhere.
    async fn until_quiet(&mut self) {
        let ids = self.scene.ids();
        let mut quiet = 0;
        eventually("nothing waits", PATIENCE, async || {
            let here = self.pool.sum("acks_waiting", &[]).await;
            let there = self.publisher.ready_in_all(&ids).await;
            quiet = if here == 0 && there == Some(0) { quiet + 1 } else { 0 };
            (quiet > 2).then_some(())
        })
        .await;
    }
}

/// How an endpoint's limit was used.
#[derive(Debug)]
struct Usage {
    accepted: usize,
    /// Answered 429.
    violations: u64,
    /// From the first accepted request to the last.
    span: Duration,
}

impl Usage {
    fn of(endpoint: &StandIn) -> Self {
        let times: Vec<Instant> =
            endpoint.kept().iter().filter(|one| one.fate == Fate::Taken).map(|one| one.at).collect();
        let span = times.last().zip(times.first()).map_or(Duration::ZERO, |(last, first)| *last - *first);
        Self { accepted: times.len(), violations: endpoint.counters().violations, span }
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn per_second(&self) -> f64 {
        (self.accepted - 1) as f64 / self.span.as_secs_f64()
    }
}
