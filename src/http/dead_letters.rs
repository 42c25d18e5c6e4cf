//! `/api/dead-letters`: what this worker could not deliver, to look at, to send again, to delete.
//!
//! Each worker answers for its own store and knows of no other: whoever wants the whole pool asks every worker and merges.
//! `worker`, made anew at each start, tells the answers of one worker from those of another behind the same address.
//!
//! Looking is paged, and few may look at once, so that the memory of many callers is that of a few pages. Sending again and
//! deleting may take long and are errands (`errand.rs`); what is meant is read by `words.rs`.

pub(super) mod errand;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod words;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::{
    errand::{Begun, Deed, Errand},
    words::{Asked, Order},
};
use super::{Inside, errors::ApiError, guard::Caller};
use crate::{
    dead_letters::{Causes, DeadLetter, DeadLetterError, LetterFilter, LetterId, Page},
    workers::letters::{Doing, Grouped},
};

/// Pages that are read and written at once.
const LOOKS_MAX: usize = 4;

/// What is done with this worker's own letters, for the API and for the console.
#[derive(Clone)]
pub(super) struct Desk {
    inside: Inside,
    /// Where errands run: a stop of the worker waits for the batch under way.
    pub(super) tasks: TaskTracker,
    /// One errand at a time: two replays of the same letters would send them twice.
    errands: Arc<Semaphore>,
    /// And one that only counts, which changes nothing and need not wait for the others.
    counts: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    doing: Arc<watch::Sender<Option<Doing>>>,
    pub(super) worker: Uuid,
}

pub(super) fn routes(desk: Desk) -> Router {
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
        /// How many letters there are in all, whatever is asked for.
        total: u64,
        #[serde(flatten)]
        page: Page,
    },
    Causes(Grouped),
}

async fn list(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let Asked { filter, before, bodies, by_cause } = Asked::read(query.as_deref().unwrap_or_default())?;
        if by_cause {
            return desk.causes(&filter).await.map(Found::Causes);
        }
        let page = desk.page(&filter, before, bodies).await?;
        Ok(Found::Letters { worker: desk.worker, total: desk.total(), page })
    };
    found.await.map_or_else(ApiError::into_response, |found| Json(found).into_response())
}

async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let found = async { desk.find(words::id(&id)?).await };
    found.await.map_or_else(ApiError::into_response, |letter| Json(letter).into_response())
}

async fn replay(State(desk): State<Desk>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    act(desk, Deed::Replay, caller, request).await
}

async fn purge(State(desk): State<Desk>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    act(desk, Deed::Purge, caller, request).await
}

async fn act(desk: Desk, deed: Deed, caller: Caller, request: Request) -> Response {
    let by_lines = errand::wants_lines(request.headers());
    let begun = async { desk.begin(deed, Order::read(request.into_body(), deed).await?, caller).await };
    match begun.await {
        Ok(begun) => begun.answer(by_lines).await,
        Err(error) => error.into_response(),
    }
}

impl Desk {
    pub(super) fn new(inside: Inside, tasks: &TaskTracker, worker: Uuid) -> Self {
        Self {
            inside,
            tasks: tasks.clone(),
            errands: Arc::new(Semaphore::new(1)),
            counts: Arc::new(Semaphore::new(1)),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            doing: Arc::default(),
            worker,
        }
    }

    /// A page of letters, newest first; without the decisions themselves, which are most of it, where `bodies` is not set.
    pub(super) async fn page(
        &self,
        filter: &LetterFilter,
        before: Option<LetterId>,
        bodies: bool,
    ) -> Result<Page, ApiError> {
        // It is never closed; were it, nobody would be kept out.
        let _place = self.looks.acquire().await.ok();
        let mut page = self.inside.store.list(filter, before).await.map_err(|error| trouble(&error))?;
        if !bodies {
            page.letters.iter_mut().for_each(|letter| letter.body.clear());
        }
        Ok(page)
    }

    /// How many letters there are.
    pub(super) fn total(&self) -> u64 {
        self.inside.store.counts().values().sum()
    }

    /// What the letters died of.
    pub(super) async fn causes(&self, filter: &LetterFilter) -> Result<Grouped, ApiError> {
        let _place = self.looks.acquire().await.ok();
        let Causes { causes, count, up_to } =
            self.inside.store.causes(filter).await.map_err(|error| trouble(&error))?;
        let errand = self.doing.borrow().clone();
        Ok(Grouped { worker: self.worker, causes, count: Some(count), up_to: Some(up_to), errand })
    }

    /// One letter.
    pub(super) async fn find(&self, id: LetterId) -> Result<DeadLetter, ApiError> {
        let _place = self.looks.acquire().await.ok();
        self.inside.store.get(id).await.map_err(|error| trouble(&error))
    }

    /// Begins an errand. One that only counts waits for its turn; any other is refused while one is under way.
    pub(super) async fn begin(&self, deed: Deed, order: Order, caller: Caller) -> Result<Begun, ApiError> {
        let place = if order.dry_run {
            Arc::clone(&self.counts).acquire_owned().await.ok()
        } else {
            Arc::clone(&self.errands).try_acquire_owned().ok()
        };
        let place = place.ok_or_else(|| ApiError {
            status: StatusCode::CONFLICT,
            code: "busy",
            message: String::from("dead letters of this worker are being replayed or purged already"),
            hint: "wait until that is done",
        })?;
        let (inside, doing, worker) = (self.inside.clone(), Arc::clone(&self.doing), self.worker);
        Ok(Errand { inside, deed, order, caller, worker, doing, _place: place }.begin(&self.tasks))
    }
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
