//! `/api/channels`: what each channel is and does, and an operator's pause and resume. How channels are changed and tried is in
//! `channel_changes.rs`.
//!
//! `source` says whose a channel is: `file`, read-only here, or `api`, with who made it so, when, in which `version`, and its
//! `config` with masked secrets. `unreadable` says why this worker only holds what such a channel wants; its state is then
//! `unreadable` too. `shadows` is told of a channel of the file that hides one of the API with the same id.
//!
//! A pause is a record in the log of the channels, so that it holds in the whole pool and after restarts. The answer comes when the
//! broker has confirmed the record and this worker's lane does as it says; the other workers hear of it within a second.

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tracing::warn;
use uuid::Uuid;

use super::{
    Inside, channel_changes,
    errors::ApiError,
    guard::Caller,
    trail::{Trail, UNCONFIRMED},
};
use crate::{
    channel_log::{Deed, Entry, Standing},
    lane::{LaneHandle, LaneState},
    model::{ChannelId, Ending, Filter, Timestamp, verdict::Outcome},
    telemetry::ChannelMetrics,
};

/// The largest body of a pause or resume, in bytes, and the longest reason in it, in characters.
const BODY_BYTES_MAX: usize = 16 * 1024;
pub(super) const WHY_CHARS_MAX: usize = 500;

/// The state of a channel that this worker cannot read.
pub(super) const UNREADABLE: &str = "unreadable";

/// How long a confirmed record may take to be heard and done here.
const HEARD_MAX: Duration = Duration::from_secs(15);

/// How often a lane is looked at that is being told.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A channel as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its id.
    pub id: ChannelId,
    /// What is configured, secrets masked, and whose it is: an object.
    pub configured: Value,
    /// Which decisions it wants.
    pub filter: Filter,
    /// How long a delivery may wait.
    pub max_age: Duration,
    /// Its version; `None` for a channel of the file.
    pub version: Option<Uuid>,
    /// Whether this worker cannot read it, and only holds what it wants.
    pub unreadable: bool,
    /// Its lane; `None` until the worker has reached the broker.
    pub lane: Option<LaneHandle>,
}

pub(super) fn routes(inside: Inside) -> Router {
    Router::new()
        .route("/api/channels", get(list))
        .route("/api/channels/{id}", get(show).put(channel_changes::put).delete(channel_changes::delete))
        .route("/api/channels/{id}/test", post(channel_changes::test))
        .route("/api/channels/{id}/pause", post(pause))
        .route("/api/channels/{id}/resume", post(resume))
        .with_state(inside)
}

async fn list(State(inside): State<Inside>) -> Json<Value> {
    let shown = inside.channels.borrow().clone();
    Json(shown.iter().map(|one| as_json(one, &inside)).collect())
}

async fn show(State(inside): State<Inside>, Path(id): Path<String>) -> Response {
    match find(&inside, &id) {
        Ok(shown) => (channel_changes::etag(shown.version), Json(as_json(&shown, &inside))).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn pause(
    State(inside): State<Inside>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    answer(decide_for(&inside, &id, Deed::Pause, &caller, request.into_body()).await)
}

async fn resume(
    State(inside): State<Inside>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    answer(decide_for(&inside, &id, Deed::Resume, &caller, request.into_body()).await)
}

fn answer(result: Result<Value, ApiError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => error.into_response(),
    }
}

pub(super) fn find(inside: &Inside, id: &str) -> Result<Shown, ApiError> {
    let shown = inside.channels.borrow().clone();
    shown.iter().find(|shown| shown.id.as_str() == id).cloned().ok_or_else(|| ApiError {
        status: StatusCode::NOT_FOUND,
        code: "unknown_channel",
        message: format!(
            "there is no channel `{}`",
            id.escape_debug().to_string().chars().take(80).collect::<String>()
        ),
        hint: "`GET /api/channels` lists the channels of this worker",
    })
}

async fn decide_for(inside: &Inside, id: &str, deed: Deed, caller: &Caller, body: Body) -> Result<Value, ApiError> {
    find(inside, id)?;
    let why = read_why(body).await?;
    decide(inside, id, deed, caller, why).await
}

/// Writes down what an operator decided, for the whole pool, and waits until it is done here.
pub(super) async fn decide(
    inside: &Inside,
    id: &str,
    deed: Deed,
    caller: &Caller,
    why: Option<String>,
) -> Result<Value, ApiError> {
    let shown = find(inside, id)?;
    let entry = Entry::new(shown.id.clone(), deed, &caller.name, why, inside.clock.now());
    let trail = Trail::begin(caller, deed.as_str(), shown.id.as_str());
    let appended = inside.log.append(&entry).await;
    let done = || entry.why.as_deref().unwrap_or("done");
    trail.end(Some(if appended.is_ok() { done() } else { UNCONFIRMED }));
    appended.map_err(|error| {
        warn!(channel = %shown.id, by = caller.name, %error, "what an operator decided could not be written down");
        ApiError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "broker_unavailable",
            message: format!("the broker did not confirm it: {error}"),
            hint: "send the request again: to pause or resume twice is the same as once",
        }
    })?;
    let mut standing = inside.standing.clone();
    let done_here = async {
        // An error says that the worker stops; then the next one does it.
        drop(standing.wait_for(|standing| standing.has(entry.id)).await);
        // Its lane may have started only now, or be gone.
        let lane = find(inside, id).ok().and_then(|shown| shown.lane);
        if let Some(lane) = &lane {
            until_done(lane, deed).await;
        }
    };
    if tokio::time::timeout(HEARD_MAX, done_here).await.is_err() {
        return Err(ApiError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "not_yet_done",
            message: String::from("it is written down for the whole pool, and this worker has not done it yet"),
            hint: "look again with `GET /api/channels`; it is not lost",
        });
    }
    Ok(as_json(&find(inside, id).unwrap_or(shown), inside))
}

/// Waits until the lane does as it was told. Another operator may decide otherwise meanwhile, so it is waited for by the clock.
async fn until_done(lane: &LaneHandle, deed: Deed) {
    let deadline = Instant::now() + HEARD_MAX / 3;
    let stopped = deed == Deed::Pause;
    while matches!(lane.state(), LaneState::Stopped) != stopped && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[serde(default)]
    why: Option<String>,
}

/// The operator's reason, where one is given. It is shown to people, so it is one line without control characters.
async fn read_why(body: Body) -> Result<Option<String>, ApiError> {
    let bad = |message: &str| ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        message: message.to_owned(),
        hint: "send no body, or {\"why\": \"...\"} with at most 500 characters",
    };
    let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| bad("the body is too large"))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Reason { why } =
        serde_json::from_slice(&bytes).map_err(|error| bad(&format!("the body is not it: {error}")))?;
    let why = why.as_deref().and_then(one_line);
    if why.as_ref().is_some_and(|why| why.chars().count() > WHY_CHARS_MAX) {
        return Err(bad("the reason is longer than 500 characters"));
    }
    Ok(why)
}

/// A text in one line; nothing where there is nothing in it.
pub(super) fn one_line(text: &str) -> Option<String> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

pub(super) fn as_json(shown: &Shown, inside: &Inside) -> Value {
    let standing = inside.standing.borrow().clone();
    let mut object = shown.configured.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.extend(present(shown, &standing, inside.clock.now()));
    }
    object
}

/// What the channel does at present.
fn present(shown: &Shown, standing: &Standing, now: Timestamp) -> serde_json::Map<String, Value> {
    let pause = standing.pause(&shown.id);
    let state = shown.lane.as_ref().map(LaneHandle::state);
    let (why, until) = match &state {
        Some(LaneState::Paused { until, why } | LaneState::Held { until, why }) => {
            (Some(why.clone()), Some(now.plus(until.saturating_duration_since(Instant::now()))))
        }
        Some(LaneState::Probing { why, .. }) => (Some(why.clone()), None),
        Some(LaneState::Stopped) => (pause.and_then(|pause| pause.why.clone()), None),
        Some(LaneState::Flowing) => (None, None),
        None => (Some(String::from("the worker waits for the broker")), None),
    };
    let state = state.as_ref().map_or("paused", LaneState::as_str);
    // Its lane is stopped, and by nobody's wish.
    let state = if shown.unreadable { UNREADABLE } else { state };
    let since = shown
        .lane
        .as_ref()
        .filter(|lane| lane.state() != LaneState::Flowing)
        .map(|lane| now.minus(lane.since().elapsed()));
    let counts = counts(shown.lane.as_ref().map(LaneHandle::metrics));
    let fields = json!({
        "state": state, "why": why, "since": since.map(Timestamp::to_rfc3339_millis),
        "until": until.map(Timestamp::to_rfc3339_millis),
        "paused_by": pause.map(|pause| json!({"name": pause.by, "at": pause.at, "why": pause.why})),
    });
    let objects = [fields, counts].into_iter().filter_map(|fields| match fields {
        Value::Object(fields) => Some(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    });
    objects.flatten().collect()
}

/// What is counted of the channel, by this worker since it started; what waits in the queue is the pool's.
fn counts(metrics: Option<&ChannelMetrics>) -> Value {
    let number = |count: fn(&ChannelMetrics) -> u64| metrics.map_or(0, count);
    let last_success = metrics.map(|metrics| metrics.last_success.get()).filter(|seconds| *seconds > 0);
    let of_seconds = |seconds: i64| Timestamp::from_unix_millis(seconds.saturating_mul(1_000));
    let last_success = last_success.map(of_seconds);
    let oldest = metrics.map(|metrics| metrics.oldest_waiting.get()).filter(|seconds| *seconds > 0).map(of_seconds);
    let untaken = metrics.and_then(|metrics| metrics.untaken.in_a_row());
    let tries = Outcome::ALL
        .map(|outcome| (outcome.as_str().to_owned(), Value::from(metrics.map_or(0, |metrics| metrics.tries(outcome)))));
    json!({
        "waiting": {
            "memory": metrics.map_or(0, |metrics| metrics.in_memory.get()),
            "lane_queue": metrics.map_or(0, |metrics| metrics.in_lane_queue.get()),
        },
        "matched": number(|metrics| metrics.matched.get()),
        "delivered": number(|metrics| metrics.endings(Ending::Delivered)),
        "folded": number(|metrics| metrics.endings(Ending::Folded)),
        "dead": number(|metrics| metrics.endings(Ending::Dead)),
        "attempts": Value::from(serde_json::Map::from_iter(tries)),
        "last_success": last_success.map(Timestamp::to_rfc3339_millis),
        "dead_in_a_row": untaken.map_or(0, |(count, _)| count),
        "last_death": untaken.map(|(_, at)| at.to_rfc3339_millis()),
        "oldest_waiting": oldest.map(Timestamp::to_rfc3339_millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reason_is_one_line_of_bounded_length_and_may_be_left_out() {
        let read = async |body: &str| read_why(Body::from(body.to_owned())).await;
        assert_eq!(read("").await.unwrap(), None);
        assert_eq!(read("{}").await.unwrap(), None);
        assert_eq!(read(r#"{"why":" a\nb "}"#).await.unwrap().as_deref(), Some("a b"));
        let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(501));
        for bad in ["3", r#"{"why":1}"#, r#"{"reason":"x"}"#, &long, &"x".repeat(BODY_BYTES_MAX + 1)] {
            assert_eq!(read(bad).await.unwrap_err().status, StatusCode::BAD_REQUEST);
        }
    }
}
