//! `POST /v1/events`: decisions from publishers that speak HTTP and not AMQP.
//!
//! One event or NDJSON, up to [`BODY_BYTES_MAX`]. Every line is checked before any is published, so a bad line refuses the whole
//! request and names itself; 202 means that the broker has confirmed every one.
//!
//! All requests together hold at most [`HELD_BYTES_MAX`] of bodies. While a broker that confirms nothing keeps them waiting, who
//! comes later is asked to come again, and this worker's memory is not what fills up.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};

use super::{Inside, errors::ApiError, guard::Caller};
use crate::{
    broker::{Destination, Message, PublishError},
    model::{Decision, decision::DecodeError},
};

/// The largest body, in bytes: thirty of the largest decisions.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Publishes under way at once, per request.
const UNDER_WAY_MAX: usize = 256;

/// The bodies of all requests under way together, in bytes, and what they are counted in.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
const UNIT_BYTES: usize = 64 * 1024;

/// How long a request waits for its place among them.
const PLACE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Door {
    inside: Inside,
    held: Arc<Semaphore>,
}

pub(super) fn routes(inside: Inside) -> Router {
    let held = Arc::new(Semaphore::new(HELD_BYTES_MAX / UNIT_BYTES));
    Router::new().route("/v1/events", post(take_in)).with_state(Door { inside, held })
}

async fn take_in(State(door): State<Door>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    let body = request.into_body();
    let Some(_place) = place(&door.held, units(&body)).await else { return busy() };
    match publish(&door.inside, &caller, body).await {
        Ok(count) => (StatusCode::ACCEPTED, Json(serde_json::json!({"accepted": count}))).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The room of a body: as much as it says that it has, and the most that it may have if it does not say.
fn units(body: &Body) -> u32 {
    let bytes = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(BODY_BYTES_MAX);
    // What is larger is refused before it is read, and needs no more room than that.
    let units = bytes.min(BODY_BYTES_MAX).div_ceil(UNIT_BYTES).max(1);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// Waits for that much room.
async fn place(held: &Semaphore, units: u32) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(PLACE_MAX, held.acquire_many(units)).await.ok()?.ok()
}

fn busy() -> Response {
    let error = ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "busy",
        message: String::from("too many events wait for the broker's confirm"),
        hint: "send the request again in a moment; nothing of it was published. If it goes on, look at the broker",
    };
    let mut response = error.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

async fn publish(inside: &Inside, caller: &Caller, body: Body) -> Result<usize, ApiError> {
    let too_large = || ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "too_large",
        message: format!("the body has more than {BODY_BYTES_MAX} bytes, or did not arrive whole"),
        hint: "send fewer events in one request; nothing of this one was published",
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| too_large())?;
    let messages = read(&body)?;
    let (count, broker) = (messages.len(), &inside.broker);
    let mut results = stream::iter(messages).map(|message| broker.publish(message)).buffer_unordered(UNDER_WAY_MAX);
    let mut confirmed = 0;
    let mut trouble: Option<PublishError> = None;
    while let Some(result) = results.next().await {
        match result {
            Ok(()) => confirmed += 1,
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        None => {
            info!(publisher = caller.name, count, "events taken in");
            Ok(count)
        }
        Some(error) => {
            warn!(publisher = caller.name, count, confirmed, %error, "events could not all be published");
            Err(ApiError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "broker_unavailable",
                message: format!("{confirmed} of {count} events were confirmed: {error}"),
                hint: "send the request again: an event that is taken in twice is delivered twice, never lost",
            })
        }
    }
}

/// One event, or one a line.
fn read(body: &Bytes) -> Result<Vec<Message>, ApiError> {
    let whole = Decision::decode(body.clone());
    let decisions = match whole {
        Ok(decision) => vec![decision],
        Err(whole_fault) => {
            let lines: Vec<(usize, &[u8])> = (1..)
                .zip(body.split(|byte| *byte == b'\n'))
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .collect();
            let single = lines.len() <= 1;
            let mut decisions = Vec::with_capacity(lines.len());
            for (number, line) in lines {
                let decision = Decision::decode(body.slice_ref(line.trim_ascii())).map_err(|fault| {
                    if single { refused(&whole_fault, "") } else { refused(&fault, &format!("line {number}: ")) }
                })?;
                decisions.push(decision);
            }
            if decisions.is_empty() {
                return Err(malformed(String::from("the body holds no event")));
            }
            decisions
        }
    };
    Ok(decisions
        .into_iter()
        .map(|decision| Message {
            to: Destination::DecisionsExchange,
            id: decision.id.to_string(),
            body: decision.raw().clone(),
        })
        .collect())
}

/// What is said of an event that is none; `place` comes before it.
fn refused(fault: &DecodeError, place: &str) -> ApiError {
    let message = format!("{place}{fault}");
    match fault {
        DecodeError::TooLarge { .. } => ApiError {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "too_large",
            message,
            hint: "nothing of this request was published; make the event smaller",
        },
        DecodeError::NotText | DecodeError::NotAnObject | DecodeError::Json(_) | DecodeError::Field { .. } => {
            malformed(message)
        }
    }
}

fn malformed(message: String) -> ApiError {
    ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        message,
        hint: "send one decision as JSON, or one a line; nothing of this request was published",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{"id":"a"},"tool":"t"}"#;

    #[test]
    fn a_body_is_one_event_or_one_a_line() {
        for (body, count) in [
            (LINE.to_owned(), 1),
            (LINE.replace(',', ",\n"), 1),
            (format!("{LINE}\n"), 1),
            (format!("{LINE}\r\n\n{LINE}"), 2),
        ] {
            assert_eq!(read(&Bytes::from(body)).unwrap().len(), count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_hold_so_much_together_and_who_comes_later_is_asked_to_come_again() {
        // A body that does not say how long it is counts as the longest.
        let unsaid = units(&Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))])));
        let (large, small) = (units(&Body::from(vec![b'x'; BODY_BYTES_MAX + 1])), units(&Body::from(LINE)));
        assert_eq!((unsaid, large, small, units(&Body::empty())), (128, 128, 1, 1));
        let held = Semaphore::new(256);
        let (first, second) = (place(&held, unsaid).await.unwrap(), place(&held, large).await.unwrap());
        assert!(place(&held, small).await.is_none());
        drop(first);
        let third = place(&held, small).await.unwrap();
        assert!(place(&held, unsaid).await.is_none(), "a small one has taken some of its room");
        drop((second, third));
        assert_eq!(held.available_permits(), 256);
        assert_eq!(busy().headers()[RETRY_AFTER], "5");
    }

    #[test]
    fn one_bad_line_refuses_the_request_and_names_itself() {
        let error = read(&Bytes::from(format!("{LINE}\n{{}}\n{LINE}"))).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.message.starts_with("line 2: "), "{}", error.message);
        assert!(read(&Bytes::from(" \n")).is_err());
        let large = LINE.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(300_000)), 1);
        for (body, says) in [(large.clone(), ""), (format!("{LINE}\n{large}"), "line 2: ")] {
            let error = read(&Bytes::from(body)).unwrap_err();
            assert_eq!((error.status, error.code), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
            assert!(error.message.starts_with(says), "{}", error.message);
        }
    }
}
