//! The worker as a process, between a real broker and endpoints that behave as the real ones do, at their worst.
//!
//! `main_job.rs` holds the safety sentence against everything at once. Here, each module holds one promise.

mod channels_api;
mod disk;
mod embedded;
mod looking_in;
mod pausing;
mod reload;
mod replies;
mod secrets;
mod silent_queue;
mod stopping;
mod telling;

use bytes::Bytes;

/// A decision that every channel with default filters wants.
fn deny(id: &str) -> Bytes {
    decision(id, "DENY", "HIGH")
}

/// A decision of this kind and severity, of now.
fn decision(id: &str, kind: &str, severity: &str) -> Bytes {
    let now = interven_alerts::model::Clock::System.now();
    let json = serde_json::json!({
        "id": id, "time": now, "decision": kind, "severity": severity, "title": "Secret egress blocked",
        "agent": {"id": "agt_42", "name": "production-langgraph"}, "tool": "slack", "operation": "post_message",
        "reasons": ["SECRET_DETECTED"],
    });
    json.to_string().into()
}
