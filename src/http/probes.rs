//! `/metrics`, `/livez` and `/readyz`: what scrapers and orchestrators ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Inside, errors::ApiError};

/// How often the pulse beats, and how late it may be before the process does not make progress.
const PULSE_EVERY: Duration = Duration::from_secs(1);
const PULSE_LATE: Duration = Duration::from_secs(15);

#[derive(Clone)]
struct Probes {
    inside: Inside,
    started: Instant,
    /// Milliseconds from `started` to the last beat.
    pulse: Arc<AtomicU64>,
}

pub(super) fn routes(inside: Inside, tracker: &TaskTracker) -> Router {
    let probes = Probes { inside, started: Instant::now(), pulse: Arc::new(AtomicU64::new(0)) };
    let beating = probes.clone();
    tracker.spawn(async move {
        let closing = beating.inside.closing.clone();
        closing.run_until_cancelled(beating.beat()).await;
    });
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/", any(elsewhere))
        .route("/{*path}", any(elsewhere))
        .with_state(probes)
}

impl Probes {
    /// Beats on a task of its own, so that a runtime whose tasks are all stuck stops beating.
    async fn beat(&self) {
        let mut ticks = tokio::time::interval(PULSE_EVERY);
        loop {
            ticks.tick().await;
            let at = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.pulse.store(at, Ordering::Relaxed);
        }
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    let unsettled = i64::try_from(probes.inside.broker.unsettled()).unwrap_or(i64::MAX);
    probes.inside.metrics.acks_waiting.set(unsettled);
    probes.inside.metrics.show_store(&probes.inside.store.counts(), probes.inside.store.writable());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], probes.inside.metrics.encode())
}

/// A probe's word, in plain text. That it has no charset tells `limits.rs` that it is ours, and not to be put into the shape of errors.
fn word(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain")], text).into_response()
}

/// Somebody took this listener for the API's.
async fn elsewhere() -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        message: String::from("there is nothing at this path"),
        hint: "this is `[http] metrics_listen`, with /metrics, /livez and /readyz: the API is at `[http] listen`",
    }
}

async fn livez(State(probes): State<Probes>) -> Response {
    let last = Duration::from_millis(probes.pulse.load(Ordering::Relaxed));
    let late = probes.started.elapsed().saturating_sub(last);
    if late > PULSE_LATE {
        return word(StatusCode::SERVICE_UNAVAILABLE, format!("no progress for {} s\n", late.as_secs()));
    }
    word(StatusCode::OK, String::from("ok\n"))
}

async fn readyz(State(probes): State<Probes>) -> Response {
    let mut faults = Vec::new();
    if probes.inside.draining.is_cancelled() {
        faults.push("draining");
    }
    if !probes.inside.broker.health().borrow().connected {
        faults.push("broker not connected");
    }
    if !probes.inside.store.writable() {
        faults.push("dead-letter store not writable");
    }
    if faults.is_empty() {
        return word(StatusCode::OK, String::from("ok\n"));
    }
    word(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", faults.join("\n")))
}
