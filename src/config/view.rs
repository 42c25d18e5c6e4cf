//! A channel as people may see it: everything but its secrets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use super::{ChannelPlan, show_pace};
use crate::{
    channels::{Links, Occasion},
    model::{Decision, DecisionKind, Delivery, Timestamp, filter::Pattern},
    settings::units::show_duration,
};

/// For how long the approval of a test could be answered, if anybody asked for it. Less, and its card would have no buttons.
const TEST_APPROVAL: Duration = Duration::from_mins(10);

/// A channel as it may be shown to anybody who may read the configuration.
#[derive(Debug, Serialize)]
pub struct View {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: &'static str,
    /// Which decisions it wants.
    pub events: Vec<&'static str>,
    /// From which severity on.
    pub min_severity: &'static str,
    /// Of which tools; `None` is all.
    pub tools: Option<Vec<String>>,
    /// Of which agents; `None` is all.
    pub agents: Option<Vec<String>>,
    /// Where it posts to, masked.
    pub endpoint: String,
    /// How fast.
    pub rate_limit: String,
    /// How long one try may take.
    pub timeout: String,
    /// Tries under way at once.
    pub concurrency: u16,
    /// How often, and for how long.
    pub retry: RetryView,
    /// When what waits is folded.
    pub digest_over: Option<u32>,
    /// Whether it is told of other channels' trouble.
    pub notices: bool,
    /// How often it is tried with a sample.
    pub canary: Option<String>,
}

/// How often a delivery is tried.
#[derive(Debug, Serialize)]
pub struct RetryView {
    attempts: u32,
    first: String,
    longest: String,
    max_age: String,
}

/// The channel, its secrets masked.
pub fn view(channel: &ChannelPlan, links: &Links, now: Timestamp) -> View {
    // Where a channel posts to is known to nobody but the parcels it makes.
    let occasion = Occasion { now, links, detour: None };
    let endpoint = channel.channel.render(&sample(channel, now), &occasion).endpoint;
    let patterns = |patterns: &Option<Vec<Pattern>>| {
        patterns.as_ref().map(|patterns| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect())
    };
    let retry = &channel.retry;
    View {
        id: channel.id.to_string(),
        kind: channel.kind.name,
        events: channel.filter.events.iter().map(DecisionKind::as_str).collect(),
        min_severity: channel.filter.min_severity.as_str(),
        tools: patterns(&channel.filter.tools),
        agents: patterns(&channel.filter.agents),
        endpoint: endpoint.masked(),
        rate_limit: show_pace(&channel.pace),
        timeout: show_duration(channel.timeout),
        concurrency: channel.concurrency.get(),
        retry: RetryView {
            attempts: retry.attempts().get(),
            first: show_duration(retry.first()),
            longest: show_duration(retry.longest()),
            max_age: show_duration(retry.max_age()),
        },
        digest_over: channel.digest.map(|digest| digest.over.get()),
        notices: channel.notices,
        canary: channel.canary.map(show_duration),
    }
}

/// A delivery of a decision that is clearly a test, of a sort that the channel wants. It asks for an approval only where the card has
/// live buttons, which are to be seen and tried: nobody has asked for that approval, so a click answers nothing, and says so.
#[expect(clippy::missing_panics_doc, reason = "it never does: every field is in its range, which a test shows")]
pub fn sample(channel: &ChannelPlan, now: Timestamp) -> Delivery {
    let events = channel.filter.events;
    let slack = channel.channel.answerable();
    let asks = events.contains(DecisionKind::RequireApproval)
        && slack.is_some_and(|slack| !slack.interactivity().signing_secrets.is_empty());
    let wanted = if asks {
        DecisionKind::RequireApproval
    } else {
        events.iter().find(|kind| *kind != DecisionKind::RequireApproval).unwrap_or(DecisionKind::Incident)
    };
    let id = uuid::Uuid::new_v4();
    let mut decision = serde_json::json!({
        "id": format!("test-{id}"),
        "time": now,
        "decision": wanted.as_str(),
        "severity": channel.filter.min_severity.as_str(),
        "risk": 0.0,
        "title": format!("TEST of channel {}: nothing happened, no action is needed", channel.id),
        "agent": {"id": "interven-alerts", "name": "interven-alerts channels test"},
        "tool": "interven-alerts",
        "operation": "channels_test",
        "reasons": ["TEST"],
        "test": true,
    });
    if asks {
        decision["approval"] = serde_json::json!({"id": format!("test-{id}"), "expires_at": now.plus(TEST_APPROVAL)});
    }
    let decision =
        Decision::decode(Bytes::from(decision.to_string())).expect("the sample has every field in its range");
    Delivery::new(Arc::new(decision), channel.id.clone(), now)
}
