//! Builds the rooms from a plan, starts and stops them in the order in which decisions flow, and changes them while they run.
//!
//! Start: store, broker, settler, HTTP; then, when the broker is there and has told which channels operators have paused, lanes and
//! intake. A broker that is away does not stop the start: the worker says that it is not ready and goes on trying.
//!
//! While it runs, one task, the steward, owns the lanes: reloads and operators' decisions are done one after the other, and nothing
//! else starts, renews or retires a lane.
//!
//! Stop: the intake stops taking decisions; the lanes finish what is under way and hand the rest to the broker; answers to approvals
//! are recorded and published; the settler carries the last of it; what became of it all is written down; acknowledgements are
//! flushed; the connections close. What the grace does not suffice for is dropped
//! unsettled, so the broker hands it out again: a duplicate at worst, never a loss.
//!
//! Start with `start.rs`, then `steward.rs`; `reload.rs` is how a new configuration is taken over, `made.rs` how channels are that
//! operators make over the API, `orphans.rs` what becomes of the deliveries of a channel that is gone.

mod approving;
mod interacting;
mod made;
mod orphans;
mod reload;
mod start;
mod steward;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::reload::{ReloadError, Reloaded};
use self::steward::Ask;
use crate::{
    broker::{Broker, BrokerError},
    config::Plan,
    dead_letters::{DeadLetterError, Store},
    delivery_log::DeliveryLog,
    http::Doors,
    intake::Routing,
    lane::{ClientError, LaneHandle},
    model::{Clock, Scrubber},
    telemetry::Metrics,
};

/// How long the last flush of acknowledgements may take, after the grace.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How long the last records of what became of deliveries may take, after that.
const RECORDS_MAX: Duration = Duration::from_secs(2);

/// How long a command waits for the broker before it gives up.
const READY_MAX: Duration = Duration::from_secs(15);

/// The name of the dead-letter store below `data_dir`.
pub const DEAD_LETTERS_DIR: &str = "dead-letters";

/// The name of the key file below `data_dir`, for a worker with the embedded broker and without `INTERVEN_ALERTS_KEY`.
pub const KEY_FILE: &str = "key";

/// The name of the embedded broker below `data_dir`.
pub const BROKER_DIR: &str = "broker";

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The dead-letter store.
    #[error("the dead-letter store could not be opened")]
    Store(#[from] DeadLetterError),
    /// The broker, where trying again cannot help.
    #[error("the broker could not be set up")]
    Broker(#[from] BrokerError),
    /// The root certificates.
    #[error("endpoints cannot be posted to")]
    Client(#[from] ClientError),
    /// The key file.
    #[error("the key file `{}` could not be read or made", .path.display())]
    Key {
        /// Where it is.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(cause) => cause.hint(),
            Self::Broker(cause) => cause.hint,
            Self::Client(_) => "install the package `ca-certificates`",
            Self::Key { .. } => "give a key in INTERVEN_ALERTS_KEY, or let this user read and write the file",
            Self::Listen { .. } => "another program listens there: set `[http] listen` and `metrics_listen`",
        }
    }
}

/// A running worker. [`Worker::start`] is in `start.rs`.
#[derive(Debug)]
pub struct Worker {
    stop: CancellationToken,
    give_up: CancellationToken,
    closing: CancellationToken,
    intake_and_lanes: TaskTracker,
    answers: TaskTracker,
    following: TaskTracker,
    carrier: TaskTracker,
    carriers: usize,
    background: TaskTracker,
    broker: Arc<dyn Broker>,
    deliveries: DeliveryLog,
    store: Store,
    routing: Routing,
    /// How many tasks there are among intake and lanes while all is well.
    whole: Arc<AtomicUsize>,
    asks: mpsc::Sender<Ask>,
    opened: watch::Receiver<bool>,
    scrubber: Scrubber,
    metrics: Metrics,
    doors: Option<Doors>,
    grace: Duration,
}

impl Worker {
    /// Where the HTTP side listens: the API, then the metrics. With port 0 in the configuration, these are the real ports.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.doors.as_ref().map(|doors| (doors.api, doors.metrics))
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The lanes, in the order of the configuration.
    pub fn lanes(&self) -> Vec<LaneHandle> {
        self.routing.borrow().lanes().to_vec()
    }

    /// The broker, to publish to.
    pub fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker)
    }

    /// The dead-letter store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes another configuration over, without dropping anything: see `reload.rs`. One at a time; the next one waits.
    ///
    /// # Errors
    /// Where it cannot be taken over; then nothing has changed.
    pub fn reload(&self, plan: Plan) -> impl Future<Output = Result<Reloaded, ReloadError>> + Send + use<> {
        // Before anything that happens because of the new configuration can be told.
        self.scrubber.learn(plan.secrets());
        let asks = self.asks.clone();
        async move {
            let (done, outcome) = oneshot::channel();
            asks.send(Ask { plan: Box::new(plan), done }).await.map_err(|_| ReloadError::Stopping)?;
            outcome.await.unwrap_or(Err(ReloadError::Stopping))
        }
    }

    /// Waits until lanes and intake run, which they do as soon as the broker is there and has told what operators decided.
    pub async fn opened(&self) {
        // An error says that the worker stops.
        drop(self.opened.clone().wait_for(|opened| *opened).await);
    }

    /// Resolves when a part of the worker has ended that never should: then it must be stopped and started again.
    pub async fn broken(&self) {
        // Steward, lanes, intake, carriers and the approvals' tasks end only on `stop`. A tracker cannot tell which task ended, but
        // their number can.
        let [answering, following] = approving::TASKS;
        let whole = || {
            self.intake_and_lanes.len() >= self.whole.load(Ordering::Acquire)
                && self.carrier.len() >= self.carriers
                && self.answers.len() >= answering
                && self.following.len() >= following
        };
        while whole() || self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Stops in order, within the grace.
    pub async fn stop(self) {
        info!(grace = ?self.grace, "stopping: finishing what is under way, handing the rest to the broker");
        // Not the lanes themselves: the carrier ends with the last of their handles.
        let in_hand: Vec<_> =
            self.lanes().iter().map(|lane| (lane.id().clone(), lane.metrics().in_memory.clone())).collect();
        self.stop.cancel();
        self.intake_and_lanes.close();
        // The carrier ends when the last handle of a lane is gone: the steward, which ends now, takes the router's with it.
        let in_order = async {
            self.intake_and_lanes.wait().await;
            self.answers.close();
            self.answers.wait().await;
            self.carrier.close();
            self.carrier.wait().await;
        };
        if tokio::time::timeout(self.grace, in_order).await.is_err() {
            let lanes: Vec<_> =
                in_hand.iter().filter(|(_, count)| count.get() > 0).map(|(id, _)| id.as_str()).collect();
            let (tasks, carriers, answers) = (self.intake_and_lanes.len(), self.carrier.len(), self.answers.len());
            let unsettled = self.broker.unsettled();
            warn!(
                ?lanes,
                tasks,
                carriers,
                answers,
                unsettled,
                "the grace was too short for everything; the broker will hand the rest out again"
            );
        }
        self.give_up.cancel();
        // All that had an ending has it by now, and the broker is still there.
        self.deliveries.finish(RECORDS_MAX).await;
        if tokio::time::timeout(CLOSE_MAX, self.broker.close()).await.is_err() {
            warn!("the broker did not confirm the last acknowledgements in time; what they were for will come again");
        }
        // Probes and metrics answer until here: `/readyz` says that the worker drains, and nobody takes silence for a crash.
        self.closing.cancel();
        self.background.close();
        if tokio::time::timeout(CLOSE_MAX, self.background.wait()).await.is_err() {
            warn!("some background tasks did not stop in time");
        }
        self.store.close().await;
        info!("stopped");
    }
}

/// Connects to the plan's broker for a command, and waits until it is there.
pub async fn connect(plan: &Plan, clock: Clock, tracker: &TaskTracker) -> Result<Arc<dyn Broker>, StartError> {
    crate::tls::install();
    let lanes = plan.channels.iter().map(|channel| channel.id.clone()).collect();
    let broker = start::open_broker(plan, lanes, clock, tracker).await?;
    if let Err(error) = broker.ready(READY_MAX).await {
        broker.close().await;
        return Err(error.into());
    }
    Ok(broker)
}
