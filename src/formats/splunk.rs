//! A decision as an event object of Splunk's HTTP Event Collector.
//!
//! Exactly the keys that HEC knows: one that it does not know makes it answer 200 and drop what follows in the request.
//! Source: `reference/platforms.md` section 6.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::Decision;

use super::{Payload, clean::one_line, json};

/// The longest indexed field, in characters.
const FIELD_CHARS_MAX: usize = 255;

#[derive(Serialize)]
struct Envelope<'a> {
    time: Box<RawValue>,
    source: &'static str,
    sourcetype: &'static str,
    event: Body<'a>,
    fields: Fields<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Text(&'a str),
    Json(&'a RawValue),
}

/// Flat texts only: HEC refuses nested ones.
#[derive(Serialize)]
struct Fields<'a> {
    decision: &'static str,
    severity: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    tool: Cow<'a, str>,
}

/// The event object that carries `payload`, one JSON object on one line.
pub fn event(decision: &Decision, payload: Payload<'_>) -> String {
    let (sourcetype, body) = match payload {
        Payload::Cef(line) => ("cef", Body::Text(line)),
        Payload::Ocsf(text) | Payload::Json(text) => ("_json", raw_or_text(text)),
    };
    let event = Envelope {
        time: time(decision.time.unix_millis()),
        source: "interven",
        sourcetype,
        event: body,
        fields: Fields {
            decision: decision.kind.as_str(),
            severity: decision.severity.as_str(),
            agent: one_line(&decision.agent.id, FIELD_CHARS_MAX),
            tool: one_line(decision.tool_name(), FIELD_CHARS_MAX),
        },
    };
    json::written(&event)
}

/// `text` as the JSON that it is. What is no JSON would be a fault of ours; it is carried as text rather than lost.
fn raw_or_text(text: &str) -> Body<'_> {
    serde_json::from_str(text).map_or(Body::Text(text), Body::Json)
}

/// Seconds with exactly three digits of fraction: HEC takes a 13-digit whole number for milliseconds and refuses exponents.
fn time(millis: i64) -> Box<RawValue> {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    let text = format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000);
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// `events` as one request's body: one after the other, as HEC wants them, a line each so that people can read it.
pub fn concatenate<'a>(events: impl IntoIterator<Item = &'a str>) -> String {
    events.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::formats::{Payload, cef, hostile, json::Compact};

    #[test]
    fn an_event_object_has_the_keys_that_splunk_knows() {
        let decision = hostile::decode(hostile::EXAMPLE);
        let line = cef::line(&decision, "");
        let compact = Compact::of(&decision);
        insta::assert_snapshot!(concatenate([
            event(&decision, Payload::Cef(&line)).as_str(),
            event(&decision, Payload::Json(compact.as_str())).as_str(),
        ]), @r#"
        {"time":1780315200.123,"source":"interven","sourcetype":"cef","event":"CEF:0|Interven|AIF|0.6|DENY|Secret egress blocked|7|src=10.0.0.42 act=DENY app=slack.post_message externalId=f1e2d3c4-5b6a-4788-99aa-bbccddeeff00 cs1Label=reasons cs1=SECRET_DETECTED rt=1780315200123 suser=production-langgraph suid=agt_42 cfp1Label=risk cfp1=0.71 cat=/AI Agent/Decision outcome=failure","fields":{"decision":"DENY","severity":"HIGH","agent":"agt_42","tool":"slack.post_message"}}
        {"time":1780315200.123,"source":"interven","sourcetype":"_json","event":{"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message","reasons":["SECRET_DETECTED"],"src":"10.0.0.42","policy":{"id":"p-1","rev":12345678901234567890123}},"fields":{"decision":"DENY","severity":"HIGH","agent":"agt_42","tool":"slack.post_message"}}
        "#);
    }

    #[test]
    fn a_time_is_in_seconds_with_three_digits_of_fraction() {
        let cases = [(1_780_315_200_123, "1780315200.123"), (5, "0.005"), (-1_500, "-1.500"), (0, "0.000")];
        for (millis, expected) in cases {
            assert_eq!(time(millis).get(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_decision_is_an_event_with_known_keys_and_flat_fields(decision in hostile::decision()) {
            let compact = Compact::of(&decision);
            let event: Value = serde_json::from_str(&event(&decision, Payload::Json(compact.as_str()))).unwrap();
            let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
            prop_assert_eq!(keys, ["event", "fields", "source", "sourcetype", "time"]);
            prop_assert!(event["event"].is_object());
            prop_assert!(event["fields"].as_object().unwrap().values().all(Value::is_string));
        }
    }
}
