//! Datadog's logs intake, version 2.

use serde_json::{Value, json};

use super::{Ask, Judged, ids};
use crate::model::Reply;

/// The largest payload, inflated, in bytes.
const PAYLOAD_BYTES_MAX: usize = 5_000_000;

/// The largest log, in bytes. Longer ones are cut, and answered with a success all the same.
const LOG_BYTES_MAX: usize = 1_000_000;

/// The most logs of a payload.
const LOGS_MAX: usize = 1_000;

pub(super) fn judge(ask: &Ask<'_>) -> Judged {
    let request = ask.request;
    if request.path != "/api/v2/logs" || request.method != "POST" {
        return Judged::refused(error(404, "Not Found"));
    }
    match request.header("dd-api-key") {
        None | Some("") => return Judged::refused(error(401, "Unauthorized")),
        Some(key) if !ask.is_right(key) => return Judged::refused(error(403, "Forbidden")),
        Some(_) => {}
    }
    if !request.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return Judged::refused(error(415, "Unsupported Media Type"));
    }
    let Some(body) = ask.inflated() else { return Judged::refused(error(400, "Bad Request")) };
    if body.len() > PAYLOAD_BYTES_MAX {
        return Judged::refused(error(413, "Payload Too Large"));
    }
    let logs = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Array(logs)) => logs,
        Ok(log @ Value::Object(_)) => vec![log],
        Ok(_) | Err(_) => return Judged::refused(error(400, "Bad Request")),
    };
    if logs.is_empty() || logs.iter().any(|log| !log.get("message").is_some_and(Value::is_string)) {
        return Judged::refused(error(400, "Bad Request"));
    }
    if logs.len() > LOGS_MAX {
        return Judged::refused(error(413, "Payload Too Large"));
    }
    let ids = logs.iter().filter_map(ids::in_record).collect();
    let accepted = super::json(202, &json!({}));
    if logs.iter().any(|log| log.to_string().len() > LOG_BYTES_MAX) {
        return Judged { ids, ..Judged::swallowed(accepted, "a log of more than 1 MB is cut") };
    }
    Judged::taken(accepted, ids)
}

/// An error in the intake's shape.
pub(super) fn error(status: u16, title: &str) -> Reply {
    let fault = json!({"status": status.to_string(), "title": title, "detail": title});
    super::json(status, &json!({"errors": [fault]}))
}
