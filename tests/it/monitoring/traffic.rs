//! What the firewall publishes while Prometheus looks: a little of everything, all the time.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::model::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{firewall::Publisher, unique_name};

/// How often something is published. Prometheus looks once in a second.
const EVERY: Duration = Duration::from_millis(500);

/// A decision of now about this tool.
pub(super) fn decision(tool: &str, kind: &str, severity: &str) -> Bytes {
    of(&unique_name("decision"), tool, kind, severity, None)
}

/// A request for an approval, which expires so much later; with its id.
pub(super) fn request(tool: &str, expires: Duration) -> (String, Bytes) {
    let id = unique_name("apr");
    let body = of(&unique_name("decision"), tool, "REQUIRE_APPROVAL", "HIGH", Some((&id, expires)));
    (id, body)
}

fn of(id: &str, tool: &str, kind: &str, severity: &str, approval: Option<(&str, Duration)>) -> Bytes {
    let now = Clock::System.now();
    let mut decision = json!({
        "id": id, "time": now, "decision": kind, "severity": severity, "title": "Secret egress blocked",
        "agent": {"id": "agt_42", "name": "production-langgraph"}, "tool": tool, "operation": "post_message",
        "reasons": ["SECRET_DETECTED"],
    });
    if let Some((approval, expires)) = approval {
        decision["approval"] = json!({"id": approval, "expires_at": now.plus(expires)});
    }
    decision.to_string().into()
}

/// Decisions that are published until this is dropped.
pub(super) struct Traffic {
    _tasks: JoinSet<()>,
}

impl Traffic {
    /// One decision about each of these tools, again and again.
    pub(super) fn about(mut publisher: Publisher, tools: &'static [&'static str]) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let bodies: Vec<_> = tools.iter().map(|tool| decision(tool, "DENY", "HIGH")).collect();
                // What is not confirmed is the broker's trouble, and comes again soon in any case.
                let _confirmed = publisher.publish(&bodies).await;
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { _tasks: tasks }
    }

    /// The same with an approval now and then, which is answered at once at the API of `server`.
    pub(super) fn with_answers(mut publisher: Publisher, tools: &'static [&'static str], server: String) -> Self {
        let mut tasks = JoinSet::new();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        tasks.spawn(async move {
            for turn in 0.. {
                let mut bodies: Vec<_> = tools.iter().map(|tool| decision(tool, "DENY", "HIGH")).collect();
                if turn % 4 == 0 {
                    let (approval, body) = request(tools[0], Duration::from_mins(10));
                    bodies.push(body);
                    let (client, url) = (client.clone(), format!("{server}/api/approvals/{approval}"));
                    let _confirmed = publisher.publish(&bodies).await;
                    while !answer(&client, &url).await {
                        tokio::time::sleep(EVERY).await;
                    }
                } else {
                    let _confirmed = publisher.publish(&bodies).await;
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { _tasks: tasks }
    }
}

async fn answer(client: &reqwest::Client, url: &str) -> bool {
    let request = client.post(url).bearer_auth("token-of-analyst").body(r#"{"answer":"approve"}"#);
    request.send().await.is_ok_and(|reply| reply.status().is_success())
}
