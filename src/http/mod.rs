//! The HTTP side: events in; the API and the console, over this worker and over the whole pool; metrics and probes out. Two
//! listeners, so that what a scraper may reach is not what the world may.
//!
//! Every body, header and wait has a bound. The guard checks who calls, by one table of routes; handlers are thin: they read plain
//! values, and call a room.
//!
//! What a reload may change (who may call and on what terms, which channels there are) is looked at anew for every request.
//!
//! Start with [`open`], then `catalogue.rs` and `guard.rs`; `pool.rs` asks the other workers, `console/` makes the pages, and the other
//! files are routes by their subject.

mod access;
mod approvals;
mod catalogue;
mod channel_changes;
mod channels;
mod console;
mod cross_origin;
mod dead_letters;
mod decisions;
mod errors;
mod events;
mod explain;
mod exports;
mod guard;
mod guests;
mod headers;
mod limits;
mod openapi;
mod pool;
mod probes;
mod serving;
mod session;
mod sessions;
mod slack;
mod terms;
#[cfg(test)]
mod tests;
mod throttle;
mod trail;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    http::HeaderValue,
    middleware::{from_fn, from_fn_with_state},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use uuid::Uuid;

pub use self::{access::Tokens, channels::Shown, terms::Terms};
use self::{
    dead_letters::Desk, guard::Gate, headers::OfApi, limits::bounded, pool::Pool, serving::serve, sessions::Sessions,
    throttle::Throttle,
};
use crate::{
    approvals::Approvals,
    broker::Broker,
    channel_log::{ChannelLog, Standing},
    dead_letters::Store,
    delivery_log::{self, DeliveryLog},
    export::Exporter,
    interactions, managed,
    model::{Clock, Role},
    sealing::Key,
    telemetry::Metrics,
    workers::Patience,
};

/// What the handlers need of the worker.
#[derive(Clone)]
pub struct Inside {
    /// What is counted.
    pub metrics: Metrics,
    /// The dead-letter store.
    pub store: Store,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// What gives exports of the decisions log.
    pub exporter: Exporter,
    /// Where it is written down that dead letters were sent again.
    pub deliveries: DeliveryLog,
    /// What tells what became of decisions.
    pub accounts: delivery_log::Reader,
    /// Cancelled when the worker begins to stop: no more events are taken, and `/readyz` says so.
    pub draining: CancellationToken,
    /// Cancelled when it has stopped: until then metrics and probes answer.
    pub closing: CancellationToken,
    /// The pool's key; `None` where none was given, and channels can then not be made over the API.
    pub key: Option<Key>,
    /// Who may call.
    pub tokens: watch::Receiver<Tokens>,
    /// On what terms.
    pub terms: watch::Receiver<Arc<Terms>>,
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
    pub slack: interactions::Reception,
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
    open_with(api, metrics, inside, tracker, Patience::default()).await
}

/// The same, with this patience with the other workers.
async fn open_with(
    api: SocketAddr,
    metrics: SocketAddr,
    inside: Inside,
    tracker: &TaskTracker,
    patience: Patience,
) -> Result<Doors, (SocketAddr, std::io::Error)> {
    let api_listener = TcpListener::bind(api).await.map_err(|error| (api, error))?;
    let metrics_listener = TcpListener::bind(metrics).await.map_err(|error| (metrics, error))?;
    let doors = Doors {
        api: api_listener.local_addr().map_err(|error| (api, error))?,
        metrics: metrics_listener.local_addr().map_err(|error| (metrics, error))?,
    };
    info!(api = %doors.api, metrics = %doors.metrics, "listening");
    let (draining, closing) = (inside.draining.clone(), inside.closing.clone());
    let sessions = Sessions::new(sessions_key(&inside).map_err(|error| (api, error))?);
    let worker = Uuid::new_v4();
    let desk = Desk::new(inside.clone(), tracker, worker);
    let pool = Pool::new(inside.clone(), desk.clone(), patience);
    let gate = Gate { inside: inside.clone(), sessions, throttle: Arc::new(Throttle::default()), pool };
    let routes = events::routes(inside.clone())
        .merge(channels::routes(inside.clone()))
        .merge(dead_letters::routes(desk))
        .merge(explain::routes(inside.clone()))
        .merge(exports::routes(inside.clone()))
        .merge(decisions::routes(inside.clone()))
        .merge(approvals::routes(inside.clone()))
        .merge(slack::routes(inside.clone()))
        .merge(session::routes(gate.clone()))
        .merge(openapi::routes())
        .merge(console::routes(gate.clone()))
        .route_layer(from_fn_with_state(gate.clone(), guard::guard));
    let worker = HeaderValue::try_from(worker.to_string()).map_err(|error| (api, std::io::Error::other(error)))?;
    let of_api = OfApi { terms: inside.terms.clone(), worker };
    let routes = bounded(routes).layer(from_fn_with_state(gate, console::for_people));
    let routes = routes.layer(from_fn_with_state(of_api, headers::of_api));
    serve(api_listener, routes, draining, tracker);
    serve(metrics_listener, bounded(probes::routes(inside, tracker)).layer(from_fn(headers::plain)), closing, tracker);
    Ok(doors)
}

/// The key of the sessions: the pool's, or one of this worker's own.
fn sessions_key(inside: &Inside) -> std::io::Result<Key> {
    if let Some(key) = &inside.key {
        return Ok(key.clone());
    }
    let people = inside.tokens.borrow().iter().any(|(_, role, _)| *role != Role::Publisher);
    if people {
        warn!(
            hint = "set INTERVEN_ALERTS_KEY, the same for the whole pool: `openssl rand -base64 32` makes one",
            "there is no INTERVEN_ALERTS_KEY: a sign-in holds on this worker only, and until it stops"
        );
    }
    Key::random()
}
