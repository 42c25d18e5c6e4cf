//! The HTTP side: events in, metrics and probes out. Two listeners, so that what a scraper may reach is not what the world may.
//!
//! Every body, header and wait has a bound. Handlers are thin: they check who calls, read plain values, and call a room.
//!
//! Start with [`open`]; `events.rs` is the one route that changes anything.

mod access;
mod errors;
mod events;
mod probes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{broker::Broker, dead_letters::Store, model::Role, telemetry::Metrics};

/// How long a stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// What the handlers need of the worker.
#[derive(Clone)]
pub struct Inside {
    /// What is counted.
    pub metrics: Metrics,
    /// The dead-letter store.
    pub store: Store,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Cancelled when the worker stops.
    pub draining: CancellationToken,
    /// Name, role and SHA-256 of each token.
    pub tokens: Vec<(String, Role, [u8; 32])>,
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
    let draining = inside.draining.clone();
    serve(api_listener, events::routes(inside.clone()), draining.clone(), tracker);
    serve(metrics_listener, probes::routes(inside, tracker), draining, tracker);
    Ok(doors)
}

fn serve(listener: TcpListener, routes: Router, draining: CancellationToken, tracker: &TaskTracker) {
    tracker.spawn(async move {
        let stop = draining.clone();
        let server = axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await });
        let overdue = async {
            draining.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        // A client that keeps its connection open must not keep the worker from stopping.
        tokio::select! {
            result = server => if let Err(error) = result { warn!(%error, "an HTTP listener has ended") },
            () = overdue => {}
        }
    });
}
