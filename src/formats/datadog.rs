//! A decision as a log object of Datadog's logs intake (v2).
//!
//! Three traps are stepped around here. Datadog guesses a status from text by its first letter (`DENY` would be "debug",
//! `ALLOW` "alert"), so `status` is always one of its own words. A log above 1 MB is cut without a word, so a larger one is
//! sent without its attributes and says so. A timestamp older than 18 hours is not taken, so an older decision goes without
//! one and keeps its time in the attributes.
//!
//! Source: `reference/platforms.md` section 7.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{Decision, Severity, Timestamp};

use super::{Payload, json, summary};

/// The largest log that Datadog keeps whole, in bytes.
pub const LOG_BYTES_MAX: usize = 1_000_000;
/// The oldest timestamp that we send: an hour less than the 18 that Datadog takes, for retries and for clocks that disagree.
const TIMESTAMP_AGE_MAX: Duration = Duration::from_hours(17);

#[derive(Serialize)]
struct Log<'a> {
    ddsource: &'static str,
    service: &'static str,
    ddtags: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    message: &'a str,
    decision_id: &'a str,
    decision: &'static str,
    severity: &'static str,
    /// The OCSF event.
    #[serde(skip_serializing_if = "Option::is_none")]
    ocsf: Option<&'a RawValue>,
    /// The decision itself, or what a template made of it. Apart from our own attributes, so that no field of it can pose
    /// as `status` or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    interven: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interven_truncated: bool,
}

/// The log object that carries `payload`, one JSON object on one line of at most [`LOG_BYTES_MAX`] bytes. With `now`, a
/// timestamp that Datadog would not take is left out; without, it is always there (for an export that is read later).
pub fn log(decision: &Decision, payload: Payload<'_>, now: Option<Timestamp>) -> String {
    let fresh = now.is_none_or(|now| now.since(decision.time) <= TIMESTAMP_AGE_MAX);
    let summary = summary(decision);
    let mut log = Log {
        ddsource: "interven",
        service: "interven-aif",
        ddtags: format!("decision:{},severity:{}", decision.kind, decision.severity).to_ascii_lowercase(),
        status: status(decision.severity),
        timestamp: fresh.then(|| decision.time.unix_millis()),
        message: &summary,
        decision_id: &decision.id,
        decision: decision.kind.as_str(),
        severity: decision.severity.as_str(),
        ocsf: None,
        interven: None,
        interven_truncated: false,
    };
    match payload {
        Payload::Cef(line) => log.message = line,
        Payload::Ocsf(text) => log.ocsf = serde_json::from_str(text).ok(),
        Payload::Json(text) => log.interven = serde_json::from_str(text).ok(),
    }
    let text = json::written(&log);
    if text.len() <= LOG_BYTES_MAX {
        return text;
    }
    json::written(&Log { ocsf: None, interven: None, interven_truncated: true, ..log })
}

/// Datadog's word for a severity.
const fn status(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "info",
        Severity::Medium => "warn",
        Severity::High => "error",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::formats::{hostile, json::Compact};

    #[test]
    fn a_log_says_its_status_in_datadogs_words() {
        let decision = hostile::decode(hostile::EXAMPLE);
        let compact = Compact::of(&decision);
        insta::assert_snapshot!(log(&decision, Payload::Json(compact.as_str()), Some(decision.time)), @r#"{"ddsource":"interven","service":"interven-aif","ddtags":"decision:deny,severity:high","status":"error","timestamp":1780315200123,"message":"DENY slack.post_message for production-langgraph: Secret egress blocked","decision_id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","decision":"DENY","severity":"HIGH","interven":{"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message","reasons":["SECRET_DETECTED"],"src":"10.0.0.42","policy":{"id":"p-1","rev":12345678901234567890123}}}"#);
        for (severity, expected) in [("LOW", "info"), ("MEDIUM", "warn"), ("HIGH", "error"), ("CRITICAL", "critical")] {
            let decision = hostile::example(&json!({"severity": severity}));
            let log: Value = serde_json::from_str(&log(&decision, Payload::Cef("x"), None)).unwrap();
            assert_eq!(log["status"], expected);
        }
    }

    #[test]
    fn a_timestamp_that_datadog_would_not_take_is_left_out() {
        let decision = hostile::decode(hostile::EXAMPLE);
        let has = |now| log(&decision, Payload::Cef("x"), now).contains("\"timestamp\"");
        assert!(has(None) && has(Some(decision.time.plus(Duration::from_hours(16)))));
        assert!(!has(Some(decision.time.plus(Duration::from_hours(18)))));
    }

    #[test]
    fn a_log_that_is_too_large_is_cut_by_us_and_says_so() {
        let decision = hostile::decode(hostile::EXAMPLE);
        let huge = json!({"x": "y".repeat(LOG_BYTES_MAX)}).to_string();
        let text = log(&decision, Payload::Json(&huge), None);
        let log: Value = serde_json::from_str(&text).unwrap();
        assert!(text.len() < 2_000 && log["interven_truncated"] == true && log["decision_id"] == *decision.id);
    }

    proptest! {
        #[test]
        fn any_decision_is_a_log_whose_status_it_cannot_choose(decision in hostile::decision()) {
            let compact = Compact::of(&decision);
            let log: Value = serde_json::from_str(&log(&decision, Payload::Json(compact.as_str()), None)).unwrap();
            prop_assert_eq!(log["status"].as_str(), Some(status(decision.severity)));
            prop_assert_eq!(&log["interven"]["id"], &Value::from(&*decision.id));
        }
    }
}
