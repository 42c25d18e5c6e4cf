//! Slack's side of approvals, from outside: people click on cards, Slack posts what they did to a worker, and the cards change.
//!
//! The stand-in is a Slack whose messages change as the real one's do; the signatures are made here, from Slack's documentation, and
//! by Slack's own SDK (`sdk.rs`).

mod bot;
mod door;
mod sdk;
mod storm;

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use interven_alerts::{
    model::{Clock, hex},
    stand_ins::{SlackMessage, StandIn},
};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    worker::{PATIENCE, WorkerProcess},
};

/// Slack's own example of a signing secret.
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// The keys of a channel whose cards can be clicked on.
fn live() -> String {
    format!("signing_secret = \"{SECRET}\"\nresponse_hosts = [\"127.0.0.1\"]\n")
}

const LOOKS: &str = "token-of-auditor";
const ANSWERS: &str = "token-of-analyst";

/// A decision of now that asks for this approval.
fn asks(approval: &str, lasts: Duration) -> Bytes {
    let now = Clock::System.now();
    let value = json!({
        "id": format!("decision-{approval}"), "time": now, "decision": "REQUIRE_APPROVAL", "severity": "HIGH", "risk": 0.71,
        "title": "Secret egress", "agent": {"id": "agt_42", "name": "production"}, "tool": "slack",
        "operation": "post_message", "reasons": ["PII_EGRESS"], "approval": {"id": approval, "expires_at": now.plus(lasts)},
    });
    value.to_string().into()
}

/// Waits until a card that tells this is there, and gives the newest version of it.
async fn until_card(slack: &StandIn, what: &str, told: impl Fn(&SlackMessage) -> bool) -> SlackMessage {
    eventually(what, Duration::from_mins(1), async || slack.wall().messages().into_iter().find(&told)).await
}

/// Waits until the card of this approval can be clicked on.
async fn until_live(slack: &StandIn, approval: &str) -> SlackMessage {
    let link = format!("decision-{approval}");
    until_card(slack, "there is a live card", |one| {
        !one.buttons().is_empty() && one.versions[0].to_string().contains(&link)
    })
    .await
}

/// Waits until this card says `words` and has no live button, and gives it.
async fn until_ended(slack: &StandIn, ts: &str, words: &str) -> SlackMessage {
    until_card(slack, &format!("the card says `{words}`"), |one| {
        one.ts == ts && one.buttons().is_empty() && one.now()["text"].as_str().is_some_and(|text| text.contains(words))
    })
    .await
}

/// Somebody's click, as Slack posts it.
#[derive(Clone, Debug)]
struct Press {
    user: String,
    answer: &'static str,
    /// The path of the click's URL.
    path: String,
    body: String,
}

impl Press {
    /// `user` clicks on this button of this card.
    fn on(slack: &StandIn, card: &SlackMessage, answer: &'static str, user: &str) -> Self {
        let (_, value) = card.buttons().into_iter().find(|(id, _)| id == answer).expect("the button is there");
        let path = slack.wall().click(&card.ts);
        let payload = json!({
            "type": "block_actions", "api_app_id": "A1", "team": {"id": "T1", "domain": "acme"},
            "user": {"id": user, "username": "jane", "name": format!("{user}.name"), "team_id": "T1"},
            "channel": {"id": "C1", "name": "sec"}, "message": {"ts": card.ts, "blocks": card.now()["blocks"]},
            "response_url": format!("{}{path}", slack.base_url()),
            "actions": [{"type": "button", "action_id": answer, "block_id": "interven", "value": value}],
        });
        let body =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
        Self { user: user.to_owned(), answer, path, body }
    }

    /// What the answer is called when it has been given.
    fn past(&self) -> &'static str {
        if self.answer == "approve" { "approved" } else { "denied" }
    }

    /// Slack posts it to this worker; the status, or `None` when no answer came.
    fn post(
        &self,
        client: &reqwest::Client,
        worker: &WorkerProcess,
    ) -> impl Future<Output = Option<u16>> + Send + use<> {
        let timestamp = Clock::System.now().unix_seconds().to_string();
        let tag = sign(SECRET, &timestamp, &self.body);
        deliver(client, worker, &timestamp, &tag, self.body.clone())
    }
}

fn sign(secret: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("v0:{timestamp}:{body}").as_bytes());
    format!("v0={}", hex(&mac.finalize().into_bytes()))
}

fn deliver(
    client: &reqwest::Client,
    worker: &WorkerProcess,
    timestamp: &str,
    tag: &str,
    body: String,
) -> impl Future<Output = Option<u16>> + Send + use<> {
    let request = client
        .post(format!("{}/v1/slack/interactions", worker.server()))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-slack-request-timestamp", timestamp)
        .header("x-slack-signature", tag)
        .body(body);
    async move { Some(request.send().await.ok()?.status().as_u16()) }
}

fn client() -> reqwest::Client {
    interven_alerts::tls::install();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// What this worker says of the approval.
async fn look(worker: &WorkerProcess, approval: &str) -> (u16, Value) {
    worker.api("GET", &format!("/api/approvals/{approval}"), LOOKS, "").await
}

/// Waits until every worker says that it was answered and published, and checks that all say the same; what they say.
async fn until_agreed(workers: &[WorkerProcess], approval: &str) -> Value {
    let mut all = Vec::new();
    for worker in workers {
        let published = async || {
            let (status, said) = look(worker, approval).await;
            (status == 200 && said["published"] == true).then_some(said)
        };
        all.push(eventually("the answer is published", PATIENCE, published).await);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the workers disagree: {all:#?}");
    all.swap_remove(0)
}
