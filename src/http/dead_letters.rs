//! `/api/dead-letters`: what this worker could not deliver, to look at, to send again, to delete.
//!
//! Each worker answers for its own store and knows of no other: whoever wants the whole pool asks every worker and merges.
//! `worker`, made anew at each start, tells the answers of one worker from those of another behind the same address.
//!
//! Looking is paged, and few may look at once, so that the memory of many callers is that of a few pages. Sending again and
//! deleting may take long and are errands (`errand.rs`); what is meant is read by `words.rs`.

mod errand;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::{
    errand::{Deed, Errand},
    words::{Asked, Order},
};
use super::{Inside, errors::ApiError, guard::Caller};
use crate::dead_letters::{DeadLetter, DeadLetterError, Page, report::Cause};

/// Pages that are read and written at once.
const LOOKS_MAX: usize = 4;

/// What the handlers need.
#[derive(Clone)]
struct Desk {
    inside: Inside,
    /// Where errands run: a stop of the worker waits for the batch under way.
    tasks: TaskTracker,
    /// One errand at a time: two replays of the same letters would send them twice.
    errands: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    worker: Uuid,
}

pub(super) fn routes(inside: Inside, tasks: &TaskTracker) -> Router {
    let desk = Desk {
        inside,
        tasks: tasks.clone(),
        errands: Arc::new(Semaphore::new(1)),
        looks: Arc::new(Semaphore::new(LOOKS_MAX)),
        worker: Uuid::new_v4(),
    };
    Router::new()
        .route("/api/dead-letters", get(list))
        .route("/api/dead-letters/{id}", get(show))
        .route("/api/dead-letters/replay", post(replay))
        .route("/api/dead-letters/purge", post(purge))
        .with_state(desk)
}

#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Letters {
        worker: Uuid,
        #[serde(flatten)]
        page: Page,
    },
    Causes {
        worker: Uuid,
        causes: Vec<Cause>,
    },
}

async fn list(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    match look(&desk, query.as_deref().unwrap_or_default()).await {
        Ok(found) => Json(found).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn look(desk: &Desk, query: &str) -> Result<Found, ApiError> {
    let Asked { filter, before, bodies, by_cause } = Asked::read(query)?;
    let (worker, store) = (desk.worker, &desk.inside.store);
    // It is never closed; were it, nobody would be kept out.
    let _place = desk.looks.acquire().await.ok();
    if by_cause {
        let causes = store.group_by_cause(&filter).await.map_err(|error| trouble(&error))?;
        return Ok(Found::Causes { worker, causes });
    }
    let mut page = store.list(&filter, before).await.map_err(|error| trouble(&error))?;
    if !bodies {
        page.letters.iter_mut().for_each(|letter| letter.body.clear());
    }
    Ok(Found::Letters { worker, page })
}

async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    match find(&desk, &id).await {
        Ok(letter) => Json(letter).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn find(desk: &Desk, id: &str) -> Result<DeadLetter, ApiError> {
    let id = words::id(id)?;
    let _place = desk.looks.acquire().await.ok();
    desk.inside.store.get(id).await.map_err(|error| trouble(&error))
}

async fn replay(State(desk): State<Desk>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    act(desk, Deed::Replay, caller, request).await
}

async fn purge(State(desk): State<Desk>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    act(desk, Deed::Purge, caller, request).await
}

async fn act(desk: Desk, deed: Deed, caller: Caller, request: Request) -> Response {
    let by_lines = errand::wants_lines(request.headers());
    let order = match Order::read(request.into_body(), deed).await {
        Ok(order) => order,
        Err(error) => return error.into_response(),
    };
    let Ok(place) = Arc::clone(&desk.errands).try_acquire_owned() else {
        let busy = ApiError {
            status: StatusCode::CONFLICT,
            code: "busy",
            message: String::from("dead letters of this worker are being replayed or purged already"),
            hint: "wait until that is done",
        };
        return busy.into_response();
    };
    let errand = Errand { inside: desk.inside, deed, order, caller, worker: desk.worker, _place: place };
    errand::answer(errand, &desk.tasks, by_lines).await
}

/// What the store said, as an answer.
fn trouble(error: &DeadLetterError) -> ApiError {
    let (status, code) = match error {
        DeadLetterError::NotFound { .. } => (StatusCode::NOT_FOUND, "unknown_dead_letter"),
        DeadLetterError::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
        DeadLetterError::InUse { .. }
        | DeadLetterError::Open { .. }
        | DeadLetterError::Full
        | DeadLetterError::Down { .. }
        | DeadLetterError::TooLarge { .. }
        | DeadLetterError::Transfer { .. }
        | DeadLetterError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
    };
    ApiError { status, code, message: error.to_string(), hint: error.hint() }
}
