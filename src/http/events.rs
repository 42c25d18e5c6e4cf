//! `POST /v1/events`: decisions from publishers that speak HTTP and not AMQP.
//!
//! One event or NDJSON, up to [`BODY_BYTES_MAX`]. Every line is checked before any is published, so a bad line refuses the whole
//! request and names itself; 202 means that the broker has confirmed every one.

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::{StreamExt as _, stream};
use tracing::{info, warn};

use super::{Inside, errors::ApiError, guard::Caller};
use crate::{
    broker::{Destination, Message, PublishError},
    model::Decision,
};

/// The largest body, in bytes: thirty of the largest decisions.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Publishes under way at once, per request.
const UNDER_WAY_MAX: usize = 256;

pub(super) fn routes(inside: Inside) -> Router {
    Router::new().route("/v1/events", post(take_in)).with_state(inside)
}

async fn take_in(State(inside): State<Inside>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    match publish(&inside, &caller, request.into_body()).await {
        Ok(count) => (StatusCode::ACCEPTED, Json(serde_json::json!({"accepted": count}))).into_response(),
        Err(error) => error.into_response(),
    }
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
                    let fault = if single { whole_fault.to_string() } else { format!("line {number}: {fault}") };
                    malformed(fault)
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

    #[test]
    fn one_bad_line_refuses_the_request_and_names_itself() {
        let error = read(&Bytes::from(format!("{LINE}\n{{}}\n{LINE}"))).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.message.starts_with("line 2: "), "{}", error.message);
        assert!(read(&Bytes::from(" \n")).is_err());
    }
}
