//! Splunk's HTTP event collector: JSON objects one after the other, a number for everything that is wrong, and a habit of
//! indexing half a batch.

use serde_json::{Value, json};

use super::{Ask, Judged, ids};
use crate::model::Reply;

/// The largest body, in bytes. Source: Splunk Cloud's documented limit.
const BODY_BYTES_MAX: usize = 1_000_000;

/// The keys that an envelope may have.
const KEYS: [&str; 7] = ["time", "host", "source", "sourcetype", "index", "event", "fields"];

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    match request.segments().as_slice() {
        ["services", "collector", "health" | "health/1.0"] => return Judged::aside(reply(200, 17, "HEC is healthy")),
        ["services", "collector"] | ["services", "collector", "event" | "raw"] => {}
        _ => {
            let text = "The requested URL was not found on this server.";
            return Judged::refused(super::json(404, &json!({"text": text, "code": 404})));
        }
    }
    if request.method != "POST" {
        let text = "The requested URL was not found on this server.";
        return Judged::refused(super::json(405, &json!({"text": text, "code": 404})));
    }
    let Some(authorization) = request.header("authorization").filter(|value| !value.is_empty()) else {
        return Judged::refused(reply(401, 2, "Token is required"));
    };
    let Some(token) = authorization.strip_prefix("Splunk ") else {
        return Judged::refused(reply(401, 3, "Invalid authorization"));
    };
    if !ask.is_right(token) {
        return Judged::refused(reply(403, 4, "Invalid token"));
    }
    if !matches!(request.header("content-encoding"), None | Some("gzip" | "identity")) {
        return Judged::refused(super::text(415, "Unsupported Media Type"));
    }
    let Some(body) = ask.inflated() else { return Judged::refused(reply(400, 6, "Invalid data format")) };
    if body.len() > BODY_BYTES_MAX {
        return Judged::refused(super::text(413, "Content-Length is too large"));
    }
    if body.trim_ascii().is_empty() {
        return Judged::refused(reply(400, 5, "No data"));
    }
    if request.path.ends_with("/raw") {
        let ids = String::from_utf8_lossy(&body).lines().filter_map(ids::in_text).collect();
        return Judged::taken(reply(200, 0, "Success"), ids);
    }
    index(&body)
}

/// Indexes the objects of a batch one by one, as far as that goes.
fn index(body: &[u8]) -> Judged {
    let mut indexed = Vec::new();
    for (number, object) in serde_json::Deserializer::from_slice(body).into_iter::<Value>().enumerate() {
        let fault = |code, text: &str| {
            let reply = super::json(400, &json!({"text": text, "code": code, "invalid-event-number": number}));
            Judged::refused(reply)
        };
        let judged = match object.as_ref().ok().and_then(Value::as_object) {
            None => fault(6, "Invalid data format"),
            Some(envelope) => {
                if let Some(unknown) = envelope.keys().find(|key| !KEYS.contains(&key.as_str())) {
                    let why = format!("the unknown key `{unknown}` makes Splunk drop object {number} and all after it");
                    return Judged { ids: indexed, ..Judged::swallowed(reply(200, 0, "Success"), why) };
                }
                match check(envelope) {
                    Ok(()) => {
                        indexed.extend(envelope.get("event").and_then(ids::in_record));
                        continue;
                    }
                    Err(Problem::Skipped) => {
                        let why = format!("object {number} has fields but no event, and is skipped");
                        return Judged { ids: indexed, ..Judged::swallowed(reply(200, 0, "Success"), why) };
                    }
                    Err(Problem::Refused(code, text)) => fault(code, text),
                }
            }
        };
        // What stands before the bad object is indexed already.
        return Judged { ids: indexed, ..judged };
    }
    Judged::taken(reply(200, 0, "Success"), indexed)
}

enum Problem {
    Refused(u32, &'static str),
    Skipped,
}

fn check(envelope: &serde_json::Map<String, Value>) -> Result<(), Problem> {
    let fields = envelope.get("fields");
    match envelope.get("event") {
        None if fields.is_some() => return Err(Problem::Skipped),
        None => return Err(Problem::Refused(12, "Event field is required")),
        Some(Value::Null | Value::Bool(false)) => return Err(Problem::Refused(6, "Invalid data format")),
        Some(Value::String(text)) if text.trim().is_empty() => {
            return Err(Problem::Refused(13, "Event field cannot be blank"));
        }
        Some(_) => {}
    }
    let flat = |value: &Value| match value {
        Value::String(_) => true,
        Value::Array(list) => list.iter().all(Value::is_string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if let Some(fields) = fields
        && !fields.as_object().is_some_and(|fields| fields.values().all(flat))
    {
        return Err(Problem::Refused(15, "Error in handling indexed fields"));
    }
    match envelope.get("time") {
        None | Some(Value::Number(_)) => {}
        Some(Value::String(text)) if text.parse::<f64>().is_ok() && !text.contains(['e', 'E']) => {}
        Some(_) => return Err(Problem::Refused(6, "Invalid data format")),
    }
    for key in ["host", "source", "sourcetype", "index"] {
        if envelope.get(key).is_some_and(|value| !value.is_string()) {
            return Err(Problem::Refused(6, "Invalid data format"));
        }
    }
    Ok(())
}

/// A reply in the collector's shape.
pub(super) fn reply(status: u16, code: u32, text: &str) -> Reply {
    super::json(status, &json!({"text": text, "code": code}))
}
