//! A pool whose channels, stores and configurations fail, each in its own way.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, Step},
};
use serde_json::json;

use super::{
    Eye,
    traffic::{Traffic, decision, request},
};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{FAST, IMPATIENT, Scene, on, token_of},
    tmpfs::Tmpfs,
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// Each channel wants what is about the tool of its own name.
const CHANNELS: [&str; 6] = ["gone", "split", "fails", "slow", "stopped", "refuses"];

/// Two workers, of which the second was given another key than the first.
pub(super) struct Ill {
    pub(super) workers: [WorkerProcess; 2],
    publisher: Publisher,
    traffic: Publisher,
    /// The configuration of both at first.
    config: String,
    /// What somebody made of it on one machine: a channel more, and another webhook for `split`.
    other: String,
    scene: Scene,
    _elsewhere: Scene,
    /// Where the data of both is; none where the tests may not mount one.
    disk: Option<Tmpfs>,
}

fn says(status: u16, body: &'static str) -> Script {
    Script::always(Step::Reply { reply: Reply::new(status, body), taken: false })
}

fn about(tool: &str, more: &str) -> String {
    format!("tools = [\"{tool}\"]\n{more}")
}

impl Ill {
    pub(super) async fn start(rabbit: &Rabbit) -> Self {
        let (prefix, mut scene) = (unique_name("ill"), Scene::default());
        for (id, platform, keys) in [
            ("gone", Platform::Slack, "rate_limit = \"5/s\"\n"),
            ("fails", Platform::Teams, "canary = \"5m\"\n"),
            ("slow", Platform::Discord, "rate_limit = \"1/s\"\n"),
            ("stopped", Platform::Telegram, "rate_limit = \"5/s\"\n"),
            ("refuses", Platform::Slack, FAST),
            ("desk", Platform::Slack, "rate_limit = \"5/s\"\n"),
        ] {
            let retry = if id == "refuses" { IMPATIENT } else { "" };
            scene.add(id, platform, Script::accept(), &about(id, &format!("{keys}{retry}"))).await;
        }
        let [mut split, mut elsewhere] = [Scene::default(), Scene::default()];
        split.add("split", Platform::Discord, Script::accept(), &about("split", FAST)).await;
        elsewhere.add("split", Platform::Discord, says(404, r#"{"code": 10015}"#), &about("split", FAST)).await;
        elsewhere.add("extra", Platform::Slack, Script::accept(), &about("extra", "")).await;
        let tokens = ["analyst", "admin"].map(token_of).concat();
        let head = format!("{}{tokens}{}", on(rabbit, &prefix, ""), scene.channels());
        let [config, other] = [&split, &elsewhere].map(|more| format!("{head}{}", more.channels()));
        scene.actors.append(&mut split.actors);

        let disk = Tmpfs::mount(96);
        let mut workers = ["the-key-of-this-pool-0123456789", "a-key-that-nobody-else-has-0000"].map(|key| {
            let data = disk.as_ref().map(|disk| disk.path().join(unique_name("data")));
            WorkerProcess::with_metrics_port(&config, data.as_deref()).env("INTERVEN_ALERTS_KEY", key)
        });
        for worker in &mut workers {
            worker.start_ready().await;
        }
        let [publisher, traffic] = [(); 2].map(|()| Publisher::new(rabbit.url(), &prefix));
        Self { workers, publisher, traffic, config, other, scene, _elsewhere: elsewhere, disk }
    }

    /// Whether no disk could be filled, because the tests may not mount one.
    pub(super) fn is_without_disk(&self) -> bool {
        self.disk.is_none()
    }

    /// Everything that can befall it at once, and what can only come after it.
    pub(super) async fn suffer(&mut self, eye: &Eye<'_>) {
        let _traffic = self.traffic_begins();
        self.break_everything().await;
        let approvals = self.ask_for_approvals().await;
        tokio::join!(
            eye.fires("ChannelHeld", r#"channel="gone""#),
            eye.fires("ChannelHeldInOneWorker", r#"channel="split",instance="ill-1""#),
            eye.fires("NoSuccess", r#"channel="fails""#),
            eye.fires("LanePaused", r#"channel="fails""#),
            eye.fires("CanaryMissing", r#"channel="fails""#),
            eye.fires("OldestWaiting", r#"channel="fails""#),
            eye.fires("OldestWaiting", r#"channel="slow""#),
            eye.fires("Backlog", r#"channel="slow""#),
            eye.fires("DeliveriesLate", r#"channel="slow""#),
            eye.fires("DeadLettersGrowing", r#"channel="refuses",reason="refused""#),
            eye.fires("MessagesUnreadable", r#"reason="malformed""#),
            eye.fires("CriticalUnrouted", ""),
            eye.fires("ConfigurationReloadFailed", r#"instance="ill-0""#),
            eye.fires("ConfigurationsDiffer", r#"channel="extra""#),
            eye.fires("ChannelsUnreadable", r#"instance="ill-1""#),
            self.resume_late(eye),
            self.answer_late(eye, &approvals),
            self.fill_the_disk(eye),
        );
    }

    fn traffic_begins(&mut self) -> Traffic {
        let publisher = std::mem::replace(&mut self.traffic, Publisher::to_any(Vec::new(), ""));
        Traffic::about(publisher, &CHANNELS)
    }

    async fn break_everything(&mut self) {
        self.scene.stand_in("gone").set_script(says(404, "no_service"));
        self.scene.stand_in("fails").set_script(says(503, "not now"));
        self.scene.stand_in("refuses").set_script(says(400, "invalid_payload"));
        let [first, second] = &self.workers;
        let (status, channel) = first.api("POST", "/api/channels/stopped/pause", "token-of-analyst", "").await;
        assert_eq!(status, 200, "{channel}");
        // Made by the one worker, it cannot be read by the other. Nothing is ever sent to it.
        let made = json!({"kind": "slack", "webhook_url": "http://127.0.0.1:1/services/T/B/x", "tools": ["nothing"]});
        let (status, channel) = first.api("PUT", "/api/channels/made", "token-of-admin", &made.to_string()).await;
        assert_eq!(status, 201, "{channel}");
        second.reconfigure(&self.other);
        second.hang_up();
        first.reconfigure(&format!("nonsense = true\n{}", self.config));
        first.hang_up();
        let unheard = [decision("nobody", "INCIDENT", "CRITICAL"), Bytes::from_static(b"no decision")];
        self.publisher.publish_surely(&unheard, PATIENCE).await;
    }

    /// Asks for approvals, of which one is for a channel that is paused; the ids of the others.
    async fn ask_for_approvals(&mut self) -> Vec<String> {
        let (ids, mut bodies): (Vec<_>, Vec<_>) = (0..4).map(|_| request("desk", Duration::from_mins(10))).unzip();
        bodies.push(request("stopped", Duration::from_secs(5)).1);
        self.publisher.publish_surely(&bodies, PATIENCE).await;
        ids
    }

    /// Nobody resumes the channel that was paused until it is too late for an approval.
    async fn resume_late(&self, eye: &Eye<'_>) {
        eye.fires("LaneStopped", r#"channel="stopped""#).await;
        let (status, channel) =
            self.workers[0].api("POST", "/api/channels/stopped/resume", "token-of-analyst", "").await;
        assert_eq!(status, 200, "{channel}");
        eye.fires("ApprovalsExpiredUntold", r#"channel="stopped""#).await;
    }

    /// Nobody answers what is asked, until somebody does, late.
    async fn answer_late(&self, eye: &Eye<'_>, approvals: &[String]) {
        eye.fires("ApprovalsUnanswered", "").await;
        for approval in approvals {
            let path = format!("/api/approvals/{approval}");
            eventually("it is answered", PATIENCE, async || {
                let answered = self.workers[0].asking("POST", &path, "token-of-analyst", r#"{"answer":"deny"}"#).await;
                answered.filter(|(status, _)| *status == 200)
            })
            .await;
        }
        // No queue of a firewall is bound, so nobody hears of it.
        tokio::join!(eye.fires("ApprovalsSlow", ""), eye.fires("AnswersUnpublished", ""));
    }

    /// Dead letters are left where they are, until there is no room for more.
    async fn fill_the_disk(&self, eye: &Eye<'_>) {
        eye.fires("DeadLettersLeft", "").await;
        let Some(disk) = &self.disk else { return };
        disk.fill();
        eye.fires("StoreNotWritable", "").await;
        eye.fires("DeadLettersWaitOnBroker", "").await;
    }
}
