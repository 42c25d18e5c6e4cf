//! A connection that is always being made again: the supervisor of one of our two connections.
//!
//! There are two, because a broker under memory alarm blocks every connection that has published, and acknowledgements with
//! it. The client library's own recovery stays off: it hides when a connection was lost, and gives up after a while.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    endpoint::Endpoint,
    failure::{Failure, limited},
    topology::Topology,
};
use crate::broker::Health;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A connection that lived shorter than this does not reset the pause: something is wrong with it.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// Growing pauses with jitter, so that a pool of workers does not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: PAUSES.0 }
    }

    /// The next pause: between half of and one and a half times the present one, which then doubles.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.5 + fastrand::f64());
        self.next = (self.next * 2).min(PAUSES.1);
        pause.min(PAUSES.1)
    }

    pub(super) fn reset(&mut self) {
        self.next = PAUSES.0;
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Deliveries and acknowledgements, and the topology.
    Consume,
    /// Publishes and their confirms.
    Publish,
}

/// How the two connections are, together.
#[derive(Debug)]
pub(super) struct Condition {
    up: Mutex<[bool; 2]>,
    health: watch::Sender<Health>,
    failure: watch::Sender<Option<Failure>>,
}

impl Condition {
    pub(super) fn new() -> Self {
        let health = Health { connected: false, reconnects: 0 };
        Self { up: Mutex::default(), health: watch::Sender::new(health), failure: watch::Sender::new(None) }
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The last failure since the connections were whole.
    pub(super) fn failure(&self) -> watch::Receiver<Option<Failure>> {
        self.failure.subscribe()
    }

    fn set(&self, role: Role, is_up: bool, again: bool) {
        let whole = {
            let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
            up[usize::from(role == Role::Publish)] = is_up;
            *up == [true; 2]
        };
        if whole {
            self.failure.send_replace(None);
        }
        self.health.send_if_modified(|health| {
            let before = *health;
            health.connected = whole;
            health.reconnects += u64::from(is_up && again);
            *health != before
        });
    }

    fn failed(&self, failure: Failure) {
        self.failure.send_replace(Some(failure));
    }
}

/// The near end of a supervised connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    up: watch::Receiver<Option<Arc<Connection>>>,
    broken: Arc<Notify>,
}

impl Link {
    /// The connection, as soon as there is one; `None` when the link was ended.
    pub(super) async fn connection(&self) -> Option<Arc<Connection>> {
        let mut up = self.up.clone();
        let up = up.wait_for(Option::is_some).await.ok()?;
        up.clone()
    }

    /// The connection, if there is one now.
    pub(super) fn now(&self) -> Option<Arc<Connection>> {
        self.up.borrow().clone()
    }

    /// Asks for a new connection: this one does not do its work.
    pub(super) fn renew(&self) {
        self.broken.notify_one();
    }
}

/// The far end: the task that makes the connection again and again.
pub(super) struct Supervisor {
    pub(super) role: Role,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) topology: Arc<Topology>,
    pub(super) condition: Arc<Condition>,
    /// Held while connecting: one attempt at a time in the process.
    pub(super) turnstile: Arc<AsyncMutex<()>>,
    pub(super) end: CancellationToken,
}

impl Supervisor {
    /// The link, and the task that keeps it.
    pub(super) fn start(self) -> (Link, impl Future<Output = ()> + Send + 'static) {
        let (up, near) = watch::channel(None);
        let broken = Arc::new(Notify::new());
        let link = Link { up: near, broken: Arc::clone(&broken) };
        (link, self.run(up, broken))
    }

    async fn run(mut self, up: watch::Sender<Option<Arc<Connection>>>, broken: Arc<Notify>) {
        let end = self.end.clone();
        let mut backoff = Backoff::new();
        let (mut again, mut told) = (false, String::new());
        for turn in 0.. {
            let attempt = tokio::select! {
                () = end.cancelled() => return,
                attempt = self.attempt(turn) => attempt,
            };
            match attempt {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    let since = tokio::time::Instant::now();
                    up.send_replace(Some(Arc::clone(&connection)));
                    self.condition.set(self.role, true, again);
                    tracing::info!(role = ?self.role, "connected to the broker");
                    let why = tokio::select! {
                        () = end.cancelled() => None,
                        why = death(&connection) => Some(why),
                        () = broken.notified() => Some(String::from("it does not do its work")),
                    };
                    up.send_replace(None);
                    self.condition.set(self.role, false, again);
                    if connection.status().connected() {
                        let call = connection.close(200, "done".into());
                        if let Err(failure) = limited("closing", "", Duration::from_secs(3), call).await {
                            tracing::debug!(%failure, "could not close the connection");
                        }
                    }
                    let Some(why) = why else { return };
                    tracing::warn!(role = ?self.role, why, "lost the connection to the broker, connecting again");
                    (again, told) = (true, String::new());
                    if since.elapsed() >= HEALTHY_AFTER {
                        backoff.reset();
                    }
                }
                Err(failure) => {
                    // An outage is told once per cause, not once per attempt.
                    let text = failure.to_string();
                    if text != told {
                        tracing::warn!(role = ?self.role, why = text, "no connection to the broker, trying again");
                        told = text;
                    }
                    self.condition.failed(failure);
                }
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    async fn attempt(&mut self, turn: usize) -> Result<Connection, Failure> {
        let count = self.endpoints.len();
        let endpoint = &mut self.endpoints[turn % count];
        let connection = {
            let _alone = self.turnstile.lock().await;
            let purpose = match self.role {
                Role::Consume => "consume",
                Role::Publish => "publish",
            };
            endpoint.connect(purpose).await?
        };
        match self.role {
            Role::Consume => self.topology.establish(&connection).await?,
            Role::Publish => {}
        }
        Ok(connection)
    }
}

/// Waits until the connection is dead, and says why.
async fn death(connection: &Connection) -> String {
    let mut events = std::pin::pin!(connection.events_listener());
    // The event is what normally tells; the look each second is for the death that happened before we listened.
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.next() => match event {
                // The library tells of errors of channels by the same event: they are none of ours.
                Some(Event::Error(error)) if !connection.status().connected() => return error.to_string(),
                Some(Event::ConnectionBlocked(why)) => {
                    tracing::warn!(why, "the broker blocks publishers: it has a memory or disk alarm");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!("the broker takes publishes again"),
                Some(_) => {}
                None => return String::from("it was closed"),
            },
            _ = look.tick() => if !connection.status().connected() {
                return String::from("it was closed");
            },
        }
    }
}
