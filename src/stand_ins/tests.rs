//! The stand-ins over real sockets. Here: a minimal message for each platform, and how it is sent.

mod digests;
mod misbehaving;
mod strictness;
mod walls;

use serde_json::{Value, json};

use super::{
    Platform, Script, StandIn,
    client::{Answer, post},
};

const LINK: &str = "https://console.example/decisions/d-1";

async fn start(platform: Platform) -> StandIn {
    StandIn::start(platform, Script::accept()).await.unwrap()
}

/// The headers that the platform wants beside the body.
fn headers(platform: Platform) -> &'static [(&'static str, &'static str)] {
    match platform {
        Platform::Discord => {
            &[("user-agent", "DiscordBot (https://example.com, 1)"), ("content-type", "application/json")]
        }
        Platform::Splunk => &[("authorization", "Splunk token")],
        Platform::Datadog => &[("dd-api-key", "key"), ("content-type", "application/json")],
        Platform::Slack | Platform::Teams | Platform::Telegram | Platform::Sumo | Platform::Siem => {
            &[("content-type", "application/json")]
        }
    }
}

fn target(platform: Platform) -> String {
    let wait = if platform == Platform::Discord { "?wait=true" } else { "" };
    format!("{}{wait}", platform.path())
}

fn teams(card: &Value) -> Value {
    json!({"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null,
        "content": card}]})
}

fn teams_card() -> Value {
    json!({"type": "AdaptiveCard", "version": "1.4", "body": [{"type": "TextBlock", "text": "hi", "wrap": true}],
        "actions": [{"type": "Action.OpenUrl", "title": "View", "url": LINK}]})
}

/// A minimal message that tells decision `d-1`.
fn minimal(platform: Platform) -> Value {
    match platform {
        Platform::Slack => json!({"text": LINK}),
        Platform::Discord => json!({"content": LINK, "allowed_mentions": {"parse": []}}),
        Platform::Teams => teams(&teams_card()),
        Platform::Telegram => {
            json!({"chat_id": -1_001_234_567_890_i64, "text": format!("<a href=\"{LINK}\">View</a>"), "parse_mode": "HTML"})
        }
        Platform::Splunk => json!({"event": {"id": "d-1", "decision": "DENY"}}),
        Platform::Datadog => json!([{"message": "CEF:0|a|b|1|DENY|n|7|externalId=d-1"}]),
        Platform::Sumo | Platform::Siem => json!({"id": "d-1", "decision": "DENY"}),
    }
}

async fn send(stand_in: &StandIn, body: &Value) -> Answer {
    let platform = stand_in.platform();
    post(stand_in, &target(platform), headers(platform), body.to_string().as_bytes()).await.unwrap()
}

/// Sends each body and expects an answer with this status and these words in it, and that nothing is posted.
async fn refuses(platform: Platform, cases: &[(Value, u16, &str)]) {
    let stand_in = start(platform).await;
    for (body, status, words) in cases {
        let answer = send(&stand_in, body).await;
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!(answer.status, *status, "{shown}: {answer:?}");
        assert!(answer.body.contains(words), "{shown}: {answer:?}");
    }
    let counters = stand_in.counters();
    assert_eq!((counters.taken, counters.refused), (0, cases.len() as u64));
    assert!(stand_in.received_ids().is_empty());
}
