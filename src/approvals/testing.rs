//! Records for tests.

use std::{sync::Arc, time::Duration};

use super::{Answer, By, Click, Deed, Entry, Name, Via};
use crate::model::{Decision, Timestamp};

/// The beginning of all tests.
pub(super) fn start() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

/// A decision that asks for an approval, decided at [`start`].
pub(super) fn decision(approval: &str, tool: &str, expires_at: Option<Timestamp>) -> Arc<Decision> {
    let value = serde_json::json!({
        "id": format!("d-{}", approval.chars().take(100).collect::<String>()), "time": start(), "decision": "REQUIRE_APPROVAL",
        "severity": "HIGH", "agent": {"id": "agt_42"}, "tool": tool, "operation": "post_message",
        "approval": {"id": approval, "expires_at": expires_at},
    });
    Arc::new(Decision::decode(value.to_string().into()).unwrap())
}

pub(super) fn asked(approval: &str, tool: &str, expires_at: Option<Timestamp>) -> Entry {
    Entry::new(Deed::Asked(decision(approval, tool, expires_at)), start())
}

/// A click by the API, one second after [`start`], for a grant of ten minutes.
pub(super) fn click(approval: &str, answer: Answer) -> Click {
    let by = By { id: String::from("soc"), name: String::from("soc"), team: None };
    let at = start().plus(Duration::from_secs(1));
    Click { grant: Duration::from_mins(10), ..Click::new(Name::of(approval), answer, by, Via::Api, at) }
}

pub(super) fn clicked(click: &Click) -> Entry {
    Entry::new(Deed::Click(click.clone()), click.at)
}
