//! `POST /api/explain`: which channels of this worker would get a decision, and the first filter that says no of each other one.
//!
//! Nothing is published, and nothing is kept.

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::{Inside, errors::ApiError};
use crate::model::{Decision, decision::DECISION_BYTES_MAX, filter::Explained};

pub(super) fn routes(inside: Inside) -> Router {
    Router::new().route("/api/explain", post(explain)).with_state(inside)
}

async fn explain(State(inside): State<Inside>, request: Request) -> Response {
    match read(request.into_body()).await {
        Ok(decision) => {
            let shown = inside.channels.borrow().clone();
            let answers = shown.iter().map(|channel| Explained::of(&channel.id, &channel.filter, &decision));
            Json(answers.collect::<Vec<_>>()).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn read(body: Body) -> Result<Decision, ApiError> {
    let malformed = |message: String| ApiError {
        status: StatusCode::BAD_REQUEST,
        code: "malformed",
        message,
        hint: "send one decision as JSON, with at least `id`, `time`, `decision`, `severity`, `agent.id` and `tool`",
    };
    let bytes = axum::body::to_bytes(body, DECISION_BYTES_MAX).await.map_err(|_| {
        malformed(format!("the body has more than {DECISION_BYTES_MAX} bytes, or did not arrive whole"))
    })?;
    Decision::decode(bytes).map_err(|error| malformed(error.to_string()))
}
