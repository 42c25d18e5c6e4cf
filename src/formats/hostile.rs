//! For tests: decisions whose every text may be anything at all, and the contract's example.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::Decision;

/// The example of the product page: what the CEF line and the OCSF excerpt of the contract are made from.
pub(crate) const EXAMPLE: &str = r#"{"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message","reasons":["SECRET_DETECTED"],"src":"10.0.0.42","policy":{"id":"p-1","rev":12345678901234567890123}}"#;

/// The console link of [`EXAMPLE`].
pub(crate) const LINK: &str = "https://app.example.com/decisions/f1e2d3c4-5b6a-4788-99aa-bbccddeeff00";

/// Reads a decision that the test knows to be one.
pub(crate) fn decode(text: &str) -> Decision {
    Decision::decode(Bytes::copy_from_slice(text.as_bytes())).expect("the test's decision is one")
}

/// [`EXAMPLE`] with fields set; `null` leaves a field out.
pub(crate) fn example(fields: &Value) -> Decision {
    let mut decision: Value = serde_json::from_str(EXAMPLE).expect("the example is JSON");
    let object = decision.as_object_mut().expect("the example is an object");
    for (key, value) in fields.as_object().expect("the fields are an object") {
        if value.is_null() {
            object.remove(key);
        } else {
            object.insert(key.clone(), value.clone());
        }
    }
    decode(&decision.to_string())
}

/// Text of the kind that breaks formats.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z_.]{0,12}",
        2 => any::<String>(),
        2 => "[|=\\\\\r\n\t \"',;{}<>&%\u{202e}\u{200b}\u{2028}\u{0}\u{1b}\u{7f}é日a-c+@-]{0,60}",
        1 => Just("\r\nCEF:0|Evil|AIF|0.6|ALLOW|fine|0|act=ALLOW".to_owned()),
        1 => Just("{{id}}\"},{\"event\":1}".to_owned()),
        1 => "[a|=\\\\é]{900,1300}",
    ]
}

prop_compose! {
    /// Any decision that decodes.
    pub(crate) fn decision()(
        (id, title, agent_id, agent_name, tool, operation) in (text(), prop::option::of(text()), text(), prop::option::of(text()), text(), prop::option::of(text())),
        reasons in prop::collection::vec(text(), 0..6),
        kind in prop::sample::select(vec!["ALLOW", "DENY", "SANITIZE", "REQUIRE_APPROVAL", "INCIDENT"]),
        severity in prop::sample::select(vec!["LOW", "MEDIUM", "HIGH", "CRITICAL"]),
        src in prop::option::of(any::<std::net::IpAddr>()),
        risk in prop::option::of(0.0..=1.0_f64),
        approval in prop::option::of(text()),
        millis in -1_000_000_000_000..9_000_000_000_000_i64,
        (unknown_key, unknown) in (text(), text()),
        pretty in any::<bool>(),
    ) -> Decision {
        let filled = |text: String| if text.is_empty() { String::from("x") } else { text };
        let id: String = filled(id.chars().filter(|c| !c.is_control()).take(128).collect());
        let mut value = json!({
            "id": id, "time": crate::model::Timestamp::from_unix_millis(millis), "decision": kind, "severity": severity,
            "agent": {"id": filled(agent_id), "name": agent_name, "extra": unknown}, "tool": filled(tool),
            "operation": operation, "reasons": reasons, "src": src, "risk": risk, "title": title,
            "approval": approval.map(|id| json!({"id": filled(id), "expires_at": "2026-06-01T12:10:00Z"})),
        });
        let known = value.as_object_mut().expect("an object");
        if !known.contains_key(&unknown_key) {
            known.insert(unknown_key, json!([unknown, {"deep": 1.5}]));
        }
        decode(&if pretty { serde_json::to_string_pretty(&value).expect("JSON") } else { value.to_string() })
    }
}
