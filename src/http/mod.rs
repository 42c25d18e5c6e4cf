//! The HTTP side: events in, channels shown and paused, metrics and probes out. Two listeners, so that what a scraper may reach is not what the world may.
//!
//! Every body, header and wait has a bound. The guard checks who calls, by one table of routes; handlers are thin: they read plain
//! values, and call a room.
//!
//! What a reload may change (who may call, which channels there are) is looked at anew for every request.
//!
//! Start with [`open`], then `catalogue.rs` and `guard.rs`; the other files are routes by their subject.

mod access;
mod approvals;
mod catalogue;
mod channel_changes;
mod channels;
mod dead_letters;
mod errors;
mod events;
mod explain;
mod guard;
mod guests;
mod probes;
mod slack;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::{access::Tokens, channels::Shown};
use crate::{
    approvals::Approvals,
    broker::Broker,
    channel_log::{ChannelLog, Standing},
    dead_letters::Store,
    interactions, managed,
    model::Clock,
    sealing::Key,
    telemetry::Metrics,
};

/// How long a stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How long one request may take, the broker's confirms included.
const REQUEST_MAX: Duration = Duration::from_mins(1);

/// What the handlers need of the worker.
#[derive(Clone)]
pub struct Inside {
    /// What is counted.
    pub metrics: Metrics,
    /// The dead-letter store.
    pub store: Store,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Cancelled when the worker begins to stop: no more events are taken, and `/readyz` says so.
    pub draining: CancellationToken,
    /// Cancelled when it has stopped: until then metrics and probes answer.
    pub closing: CancellationToken,
    /// The pool's key; `None` where none was given, and channels can then not be made over the API.
    pub key: Option<Key>,
    /// Who may call.
    pub tokens: watch::Receiver<Tokens>,
    /// The channels, in the order of the configuration.
    pub channels: watch::Receiver<Arc<[Shown]>>,
    /// What operators decided about them, as far as this worker has heard and done it.
    pub standing: watch::Receiver<Arc<Standing>>,
    /// Where what operators decide is written down for the whole pool.
    pub log: ChannelLog,
    /// Where operators change channels of that log, and try them.
    pub desk: managed::Desk,
    /// What is asked for, answered and granted.
    pub approvals: Approvals,
    /// Who takes clicks of Slack's.
    pub slack: interactions::Desk,
    /// The time.
    pub clock: Clock,
}

/// Where the two listeners really listen.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// Events and the API.
    pub api: SocketAddr,
    /// Metrics and probes.
    pub metrics: SocketAddr,
}

/// Starts both listeners. On failure, the address that could not be had.
pub async fn open(
    api: SocketAddr,
    metrics: SocketAddr,
    inside: Inside,
    tracker: &TaskTracker,
) -> Result<Doors, (SocketAddr, std::io::Error)> {
    let api_listener = TcpListener::bind(api).await.map_err(|error| (api, error))?;
    let metrics_listener = TcpListener::bind(metrics).await.map_err(|error| (metrics, error))?;
    let doors = Doors {
        api: api_listener.local_addr().map_err(|error| (api, error))?,
        metrics: metrics_listener.local_addr().map_err(|error| (metrics, error))?,
    };
    info!(api = %doors.api, metrics = %doors.metrics, "listening");
    let (draining, closing) = (inside.draining.clone(), inside.closing.clone());
    let api = events::routes(inside.clone())
        .merge(channels::routes(inside.clone()))
        .merge(dead_letters::routes(inside.clone(), tracker))
        .merge(explain::routes(inside.clone()))
        .merge(approvals::routes(inside.clone()))
        .merge(slack::routes(inside.clone()))
        .route_layer(from_fn_with_state(inside.clone(), guard::guard));
    serve(api_listener, bounded(api), draining, tracker);
    serve(metrics_listener, bounded(probes::routes(inside, tracker)), closing, tracker);
    Ok(doors)
}

/// What every route has: a time limit, and errors of one shape.
fn bounded(routes: Router) -> Router {
    routes.fallback(errors::not_found).method_not_allowed_fallback(errors::wrong_method).layer(from_fn(in_time))
}

/// Answers within [`REQUEST_MAX`], the reading of the body included, so that nobody holds memory by sending slowly.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => errors::too_slow().into_response(),
    }
}

fn serve(listener: TcpListener, routes: Router, until: CancellationToken, tracker: &TaskTracker) {
    tracker.spawn(async move {
        let stop = until.clone();
        let server =
            axum::serve(guests::Places::new(listener), routes.into_make_service_with_connect_info::<guard::Peer>())
                .with_graceful_shutdown(async move { stop.cancelled().await });
        let overdue = async {
            until.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        // A client that keeps its connection open must not keep the worker from stopping.
        tokio::select! {
            result = server => if let Err(error) = result { warn!(%error, "an HTTP listener has ended") },
            () = overdue => {}
        }
    });
}
