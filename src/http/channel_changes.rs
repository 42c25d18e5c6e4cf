//! `PUT`, `DELETE` and `test` of a channel. The rules are in `managed`; here is what they are called over HTTP.
//!
//! For whoever describes the API:
//! - `PUT /api/channels/{id}`: the keys of `[[channel]]` as JSON, at most 64 KiB; 201 or 200 with the channel as `GET` shows it and
//!   `warnings`; 422 `faulty_channel` with `faults: [{key, problem, hint}]`; 409 `provisioned`, `too_many_channels`; 412 `changed`;
//!   503 `no_key`, `queue_unavailable`, `broker_unavailable`, `not_ready`, `not_yet_done`.
//! - Both take `If-Match` with the `ETag` of `GET` (or `*`), `PUT` also `If-None-Match: *`.
//! - `config` in `GET` is what `PUT` takes, secrets masked; a mask that is sent back in its place keeps the secret, while no URL
//!   changes. A secret that is left out or null is removed.
//! - `POST /api/channels/{id}/test`: no body, or `{"decision": {...}, "channel": {...}}`, each optional; `channel` is tried without
//!   being saved, and only admins may send one, because it says where the worker connects to.

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Inside,
    channels::{as_json, find},
    errors::ApiError,
    guard::Caller,
    trail::{Trail, UNCONFIRMED},
};
use crate::{
    managed::{Complaint, Condition, Put, Refusal, Report, Subject},
    model::{ChannelId, Role},
};

/// The largest channel, and the largest test: a channel with a decision.
pub(super) const CHANNEL_BYTES_MAX: usize = 64 * 1024;
const TEST_BYTES_MAX: usize = CHANNEL_BYTES_MAX + 256 * 1024;

/// How much of an id an audit line has, in characters.
const SUBJECT_CHARS_MAX: usize = 80;

/// Makes a channel, or makes it anew.
pub(super) async fn put(
    State(inside): State<Inside>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let read = async { Ok((condition(&parts.headers)?, object(body, CHANNEL_BYTES_MAX).await?)) };
    let (condition, sent) = match read.await {
        Ok(read) => read,
        Err(error) => return ApiError::into_response(error),
    };
    match put_channel(&inside, &caller, &id, &sent, condition).await {
        Ok(Put { created, warnings }) => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let Ok(shown) = find(&inside, &id) else { return refuse(&Refusal::NotYet) };
            let mut told = as_json(&shown, &inside);
            told["warnings"] = json!(warnings);
            (status, etag(shown.version), Json(told)).into_response()
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// Makes a channel, or makes it anew, and writes down what came of it.
pub(super) async fn put_channel(
    inside: &Inside,
    caller: &Caller,
    id: &str,
    sent: &Map<String, Value>,
    condition: Condition,
) -> Result<Put, Refusal> {
    let trail = Trail::begin(caller, "put_channel", &subject(id));
    let outcome = match id.parse::<ChannelId>() {
        Ok(channel) => inside.desk.put(&channel, sent, &caller.name, condition).await,
        Err(_) => Err(bad_id()),
    };
    trail.end(Some(&told(&outcome, |put| if put.created { "created" } else { "replaced" })));
    outcome
}

/// Removes a channel. What waits for it becomes dead letters.
pub(super) async fn delete(
    State(inside): State<Inside>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let condition = match condition(&headers) {
        Ok(condition) => condition,
        Err(error) => return error.into_response(),
    };
    let Ok(channel) = id.parse::<ChannelId>() else { return unknown(&inside, &id) };
    match delete_channel(&inside, &caller, &channel, condition).await {
        Ok(in_file) => {
            // Where the file has a channel of this id, that one was run all the time, and goes on.
            Json(json!({"id": id, "deleted": true, "in_file": in_file})).into_response()
        }
        Err(Refusal::Unknown(_)) => unknown(&inside, &id),
        Err(refusal) => refuse(&refusal),
    }
}

/// Removes a channel, and writes down what came of it; whether the file has one of this id, which stays.
pub(super) async fn delete_channel(
    inside: &Inside,
    caller: &Caller,
    channel: &ChannelId,
    condition: Condition,
) -> Result<bool, Refusal> {
    let trail = Trail::begin(caller, "delete_channel", channel.as_str());
    let outcome = inside.desk.delete(channel, &caller.name, condition).await;
    trail.end(Some(&told(&outcome, |_| "deleted")));
    outcome
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    #[serde(default)]
    decision: Option<Map<String, Value>>,
    #[serde(default)]
    channel: Option<Map<String, Value>>,
}

/// Sends a sample through a channel and tells what came of it.
pub(super) async fn test(
    State(inside): State<Inside>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Test { decision, channel } = match read_test(request.into_body()).await {
        Ok(test) => test,
        Err(error) => return error.into_response(),
    };
    if channel.is_some() && caller.role != Role::Admin {
        return forbidden(&caller).into_response();
    }
    let subject = channel.map_or(Subject::Present, Subject::Sent);
    let Ok(channel_id) = id.parse::<ChannelId>() else { return unknown(&inside, &id) };
    match try_out(&inside, &caller, &channel_id, subject, decision).await {
        Ok(report) => {
            let took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
            let told = json!({
                "channel": report.channel, "delivered": report.delivered, "outcome": report.outcome,
                "status": report.status, "took_ms": took_ms, "answer": report.reply,
                "endpoint": report.endpoint, "meaning": report.meaning,
            });
            Json(told).into_response()
        }
        Err(Refusal::Unknown(_)) => unknown(&inside, &id),
        Err(refusal) => refuse(&refusal),
    }
}

/// Sends a sample through a channel, and writes down what came of it.
pub(super) async fn try_out(
    inside: &Inside,
    caller: &Caller,
    channel: &ChannelId,
    subject: Subject,
    decision: Option<Map<String, Value>>,
) -> Result<Report, Refusal> {
    let what = if matches!(subject, Subject::Sent(_)) { "test_unsaved_channel" } else { "test_channel" };
    let trail = Trail::begin(caller, what, channel.as_str());
    let outcome = inside.desk.test(channel, subject, decision).await;
    trail.end(Some(&told(&outcome, |report| report.outcome)));
    outcome
}

/// What the audit tells of it: what was done, what may have been, and what was refused.
fn told<T>(outcome: &Result<T, Refusal>, done: impl FnOnce(&T) -> &'static str) -> String {
    match outcome {
        Ok(is_done) => done(is_done).to_owned(),
        Err(Refusal::NotYet) => String::from("written down for the whole pool, and not yet done by this worker"),
        Err(Refusal::Write(_)) => UNCONFIRMED.to_owned(),
        Err(Refusal::Faulty(faults)) => {
            let keys: Vec<&str> = faults.iter().take(KEYS_TOLD_MAX).map(|fault| key_told(&fault.key)).collect();
            format!("refused: {} ({})", status_and_code(&Refusal::Faulty(Vec::new())).1, keys.join(", "))
        }
        Err(refusal) => format!("refused: {}", status_and_code(refusal).1),
    }
}

/// The keys that an audit line names at most.
const KEYS_TOLD_MAX: usize = 20;

/// A key as the audit names it: its first part, where that can be one of ours. What somebody sends in the place of a key, or of
/// a header's name, may be the secret itself.
fn key_told(key: &str) -> &str {
    let first = key.split('.').next().unwrap_or_default();
    let is_word = |text: &str| text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_word(first) { first } else { "?" }
}

/// Whose channel an audit line is about, where the id may be anything.
fn subject(id: &str) -> String {
    id.chars().take(SUBJECT_CHARS_MAX).collect::<String>().escape_debug().to_string()
}

async fn read_test(body: Body) -> Result<Test, ApiError> {
    let bytes = read(body, TEST_BYTES_MAX).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Test::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        message: format!("the body is not it: {error}"),
        hint: "send no body, or {\"decision\": {...}, \"channel\": {...}}, each optional",
    })
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limit).await.map_err(|_| ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "too_large",
        message: format!("the body is larger than {} KiB, or did not arrive whole", limit / 1024),
        hint: "a channel has at most 64 KiB, a decision 256 KiB",
    })
}

async fn object(body: Body, limit: usize) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_slice(&read(body, limit).await?).map_err(|error| ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        // What the parser says quotes no more of the body than the type of a value.
        message: format!("the body is no JSON object: {error}"),
        hint: "send the keys of `[[channel]]` as one JSON object: {\"kind\": \"slack\", \"webhook_url\": \"...\"}",
    })
}

/// Upon which version the request is to count.
fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let bad = |name: &HeaderName| ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        message: format!("`{name}` is no version of a channel"),
        hint: "send the `ETag` of `GET /api/channels/{id}` as it is, or `*`",
    };
    let text = |name: &HeaderName| {
        let value = headers.get(name).map(|value| value.to_str().map(str::trim).map_err(|_| bad(name)));
        value.transpose()
    };
    match (text(&header::IF_MATCH)?, text(&header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Always),
        (Some("*"), None) => Ok(Condition::There),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.and_then(|version| version.parse::<Uuid>().ok());
            version.map(Condition::Version).ok_or_else(|| bad(&header::IF_MATCH))
        }
        (_, Some(_)) => Err(bad(&header::IF_NONE_MATCH)),
    }
}

/// The version of a channel as a header; none for those of the file.
pub(super) fn etag(version: Option<Uuid>) -> HeaderMap {
    let tag = version.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok());
    tag.map(|tag| (header::ETAG, tag)).into_iter().collect()
}

fn unknown(inside: &Inside, id: &str) -> Response {
    // It is told as for every other method, also where the file's channel of this id is unknown to the log.
    find(inside, id).map_or_else(ApiError::into_response, |shown| refuse(&Refusal::Provisioned(shown.id)))
}

fn bad_id() -> Refusal {
    Refusal::Faulty(vec![Complaint {
        key: String::from("id"),
        problem: String::from("must be 1 to 64 characters of a-z, 0-9 and -"),
        hint: String::from("call it by another path, as in /api/channels/soc-slack"),
    }])
}

fn forbidden(caller: &Caller) -> ApiError {
    ApiError {
        status: StatusCode::FORBIDDEN,
        code: "forbidden",
        message: format!(
            "`{}` has the role `{}` and may not test a channel that is not saved",
            caller.name, caller.role
        ),
        hint: "save it first, or use a token of an admin: such a test says where the worker connects to",
    }
}

/// How a refusal is answered.
pub(super) fn status_and_code(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::Provisioned(_) => (StatusCode::CONFLICT, "provisioned"),
        Refusal::NoKey => (StatusCode::SERVICE_UNAVAILABLE, "no_key"),
        Refusal::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_channel"),
        Refusal::Locked { .. } => (StatusCode::CONFLICT, "unreadable_channel"),
        Refusal::Faulty(_) => (StatusCode::UNPROCESSABLE_ENTITY, "faulty_channel"),
        Refusal::TooMany => (StatusCode::CONFLICT, "too_many_channels"),
        Refusal::Changed(_) => (StatusCode::PRECONDITION_FAILED, "changed"),
        Refusal::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        Refusal::Queue(_) => (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
        Refusal::Write(_) => (StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable"),
        Refusal::Seal(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_sealed"),
        Refusal::NotYet => (StatusCode::SERVICE_UNAVAILABLE, "not_yet_done"),
        Refusal::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        Refusal::Decision(_) | Refusal::Approval => (StatusCode::UNPROCESSABLE_ENTITY, "faulty_decision"),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let (status, code) = status_and_code(refusal);
    let mut error = json!({"code": code, "message": refusal.to_string(), "hint": refusal.hint()});
    if let Refusal::Faulty(faults) = refusal {
        error["faults"] = json!(faults);
    }
    (status, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_names_the_keys_of_what_was_refused_and_nothing_that_somebody_may_have_put_in_their_place() {
        let complaint = |key: &str| Complaint { key: key.to_owned(), problem: String::new(), hint: String::new() };
        let keys =
            ["webhook_url", "retry.attempts", "headers.hunter2-token", "https://hooks.example/hunter2", "xoxb-hunter2"];
        let refused = |refusal| told::<()>(&Err(refusal), |()| "done");
        assert_eq!(
            refused(Refusal::Faulty(keys.map(complaint).to_vec())),
            "refused: faulty_channel (webhook_url, retry, headers, ?, ?)"
        );
        assert_eq!(refused(Refusal::Changed("soc".parse().unwrap())), "refused: changed");
        assert_eq!(refused(Refusal::Provisioned("soc".parse().unwrap())), "refused: provisioned");
        assert_eq!(told(&Ok(()), |()| "done"), "done");
        assert_eq!(subject("so\u{202e}\n").as_str(), r"so\u{202e}\n");
    }

    #[test]
    fn a_version_is_taken_as_it_was_given_and_nothing_else() {
        let read = |pairs: &[(HeaderName, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            condition(&headers).ok()
        };
        let version = Uuid::now_v7();
        let tag = etag(Some(version))[header::ETAG].to_str().unwrap().to_owned();
        assert!(etag(None).is_empty());
        let (is, not) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(read(&[]), Some(Condition::Always));
        assert_eq!(read(&[(is.clone(), &tag)]), Some(Condition::Version(version)));
        assert_eq!(read(&[(is.clone(), "*")]), Some(Condition::There));
        assert_eq!(read(&[(not.clone(), "*")]), Some(Condition::Absent));
        for (name, value) in [(&is, "x"), (&is, "W/\"1\""), (&is, "\"\""), (&not, &*tag)] {
            assert_eq!(read(&[(name.clone(), value)]), None, "{value}");
        }
        assert_eq!(read(&[(is, "*"), (not, "*")]), None);
    }
}
