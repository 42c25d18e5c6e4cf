//! Decisions that commands work on: read from a file, or made up as a sample.

use std::{io::Read as _, path::Path, sync::Arc};

use bytes::Bytes;

use super::{Failure, Shell};
use crate::{
    config::ChannelPlan,
    model::{Decision, DecisionKind, Delivery, Timestamp, decision::DECISION_BYTES_MAX},
};

/// Reads one decision from `path`, or from standard input for `-`.
pub fn read(path: &Path, shell: &mut Shell<'_>) -> Result<Decision, Failure> {
    let limit = DECISION_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        (&mut *shell.input).take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(shell.directory.join(path)).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let name = if path == Path::new("-") { String::from("standard input") } else { path.display().to_string() };
    if let Err(error) = read {
        let failure = Failure::new(format!("could not read the decision from {name}"));
        return Err(Failure { causes: vec![error.to_string()], ..failure }
            .hint("give a file with one decision, or - for standard input"));
    }
    Decision::decode(Bytes::from(bytes)).map_err(|error| {
        let failure = Failure::new(format!("{name} holds no decision")).hint(
            "it must be one JSON object with at least `id`, `time`, `decision`, `severity`, `agent.id` and `tool`",
        );
        Failure { causes: vec![error.to_string()], ..failure }
    })
}

/// A delivery of a decision that is clearly a test, of a sort that the channel wants, and that asks nobody for an approval.
#[expect(clippy::missing_panics_doc, reason = "it never does: every field is in its range, which a test shows")]
pub fn sample(channel: &ChannelPlan, now: Timestamp) -> Delivery {
    let wanted = channel.filter.events.iter().find(|kind| *kind != DecisionKind::RequireApproval);
    let id = uuid::Uuid::new_v4();
    let decision = serde_json::json!({
        "id": format!("test-{id}"),
        "time": now,
        "decision": wanted.unwrap_or(DecisionKind::Incident).as_str(),
        "severity": channel.filter.min_severity.as_str(),
        "risk": 0.0,
        "title": format!("TEST of channel {}: nothing happened, no action is needed", channel.id),
        "agent": {"id": "interven-alerts", "name": "interven-alerts channels test"},
        "tool": "interven-alerts",
        "operation": "channels_test",
        "reasons": ["TEST"],
        "test": true,
    });
    let decision =
        Decision::decode(Bytes::from(decision.to_string())).expect("the sample has every field in its range");
    Delivery::new(Arc::new(decision), channel.id.clone(), now)
}
