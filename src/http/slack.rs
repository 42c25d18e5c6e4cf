//! `POST /v1/slack/interactions`: clicks on buttons. Slack's signature is the only credential.
//!
//! The answer is a status and nothing else: 200 for everything that Slack has signed, 401 for what nobody has, 503 where a click
//! could not be taken, so that whoever clicked sees Slack's warning and clicks again.

use axum::{
    Extension, Router,
    body::to_bytes,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::{Inside, errors::ApiError, guard::Peer};
use crate::interactions::Taken;

/// The largest body, in bytes. A click brings the whole message along, which Slack limits to less.
const BODY_BYTES_MAX: usize = 256 * 1024;

pub(super) fn routes(inside: Inside) -> Router {
    Router::new().route("/v1/slack/interactions", post(take)).with_state(inside)
}

async fn take(State(inside): State<Inside>, Extension(Peer(from)): Extension<Peer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return ApiError {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "too_large",
            message: format!("the body has more than {BODY_BYTES_MAX} bytes, or did not arrive whole"),
            hint: "only Slack's interactions belong here, and none is so large",
        }
        .into_response();
    };
    if inside.draining.is_cancelled() {
        return busy();
    }
    match inside.slack.take(&parts.headers, &body, from.ip()).await {
        Taken::Heard => StatusCode::OK.into_response(),
        Taken::Forged => ApiError {
            status: StatusCode::UNAUTHORIZED,
            code: "bad_signature",
            message: String::from("no channel's signing secret has made the signature of this request"),
            hint: "compare `signing_secret` with the app's, and this machine's clock with the true time",
        }
        .into_response(),
        Taken::Busy => busy(),
    }
}

fn busy() -> Response {
    ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "busy",
        message: String::from("the click could not be taken now"),
        hint: "click again in a moment",
    }
    .into_response()
}
