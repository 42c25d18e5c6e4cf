//! Publishing: one task per AMQP channel, batches with a barrier, and `Ok` only for what the broker confirmed *and* routed.
//!
//! Why one task: two tasks that publish on one channel of the client library can swap their confirms (measured: 71 of 20,000
//! rejected messages were reported as accepted). Why a barrier: see [`line`](super::line).
//!
//! There are three publishers: one for queues and exchanges, one for logs, one for the log of the deliveries. A stream acknowledges
//! and drops publishes for half a second after its broker started, so the last two ask for their streams after each connect before
//! they publish; the first one must not wait for that. The log of the deliveries may be missing or silent, and the other logs, for
//! which acknowledgements wait, must not wait for it. What goes to a destination that did not confirm in time goes through neither of them, so that it
//! delays nothing else: see [`quarantine`](super::quarantine).

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Tasks,
    failure::Failure,
    line::{Job, Line, Mail, answer, confirm, tell},
    link::Link,
    quarantine::Quarantine,
    topology::{Topology, close},
};
use crate::broker::{Destination, Log, Message, PublishError, Queue};

/// The most messages that are published before their confirms are awaited.
pub(super) const BATCH: usize = 256;

/// The longest that a batch to one destination may wait for its confirms.
pub(super) const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// The same for a batch to several destinations: one of them may be silent, and the others wait for it. The leader of a queue
/// moves in less than a second.
const SHARED_LIMIT: Duration = Duration::from_secs(5);

/// The same for a batch to logs. A stream confirms within milliseconds; a confirm that got lost, as one may just after the stream was
/// declared or its leader moved, never comes, and appending again costs a duplicate that every reader of a log expects.
const LOG_LIMIT: Duration = Duration::from_secs(4);

/// The longest that a message may wait in all: for a connection, for the batches before it, and for its confirm.
const PUBLISH_LIMIT: Duration = Duration::from_secs(20);

/// The largest body, in bytes. RabbitMQ 4 takes 16 MiB unless told otherwise.
const BODY_BYTES_MAX: usize = 16 << 20;

/// All publishers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Publishers {
    topology: Arc<Topology>,
    link: Link,
    queues: mpsc::Sender<Job>,
    logs: mpsc::Sender<Job>,
    deliveries: mpsc::Sender<Job>,
    quarantine: Arc<Quarantine>,
}

impl Publishers {
    /// Starts them. They end, their last batches confirmed, when `stop` was cancelled.
    pub(super) fn start(link: Link, topology: Arc<Topology>, tasks: &Arc<Tasks>, stop: &CancellationToken) -> Self {
        let quarantine = Arc::new(Quarantine::new(link.clone(), Arc::clone(tasks), stop.clone()));
        let publisher = |quarantine| {
            let (jobs, inbox) = mpsc::channel(4 * BATCH);
            let (link, stop, batch) = (link.clone(), stop.clone(), Vec::with_capacity(BATCH));
            let task = Task { link, tasks: Arc::clone(tasks), inbox, stop, line: None, batch, quarantine };
            tasks.spawn(task.run());
            jobs
        };
        let (queues, logs, deliveries) = (publisher(Some(Arc::clone(&quarantine))), publisher(None), publisher(None));
        Self { topology, link, queues, logs, deliveries, quarantine }
    }

    /// Publishes and waits for the outcome.
    pub(super) async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.send(message, None).await
    }

    /// Publishes a message between workers, which has nothing but its kind and an id.
    pub(super) async fn signal(&self, queue: Queue, kind: &'static str, id: String) -> Result<(), PublishError> {
        self.send(Message { to: Destination::Queue(queue), id, body: Bytes::new() }, Some(kind)).await
    }

    async fn send(&self, message: Message, kind: Option<&'static str>) -> Result<(), PublishError> {
        if message.body.len() > BODY_BYTES_MAX {
            return Err(PublishError::TooLarge { bytes: message.body.len() });
        }
        // A log that is not kept: there is nothing to do, and nothing to wait for.
        let Some((exchange, key)) = self.topology.address(&message.to) else { return Ok(()) };
        let jobs = match &message.to {
            Destination::Log(Log::Deliveries) if self.topology.lacks_deliveries() => {
                return Err(PublishError::Unroutable { to: key.to_string() });
            }
            Destination::Log(Log::Deliveries) => self.deliveries.clone(),
            Destination::Log(_) => self.logs.clone(),
            to @ (Destination::DecisionsExchange | Destination::ApprovalsExchange(_) | Destination::Queue(_)) => {
                self.quarantine.cell(to).unwrap_or_else(|| self.queues.clone())
            }
        };
        let mail = Mail { message, exchange, key, kind };
        let outcome = async {
            let (done, outcome) = oneshot::channel();
            jobs.send(Job { mail, done }).await.map_err(|_| PublishError::Disconnected)?;
            outcome.await.map_err(|_| PublishError::Disconnected)?
        };
        tokio::time::timeout(PUBLISH_LIMIT, outcome).await.unwrap_or_else(|_| match self.link.now() {
            None => Err(PublishError::Disconnected),
            Some(_) => Err(PublishError::Timeout { seconds: PUBLISH_LIMIT.as_secs() }),
        })
    }
}

struct Task {
    link: Link,
    tasks: Arc<Tasks>,
    inbox: mpsc::Receiver<Job>,
    stop: CancellationToken,
    line: Option<Line>,
    batch: Vec<Job>,
    /// Where destinations go that did not confirm. Logs have none.
    quarantine: Option<Arc<Quarantine>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !self.inbox.is_closed() => {
                    // From here on the inbox takes nothing more, and gives out what it has.
                    self.inbox.close();
                    continue;
                }
                received = self.inbox.recv_many(&mut self.batch, BATCH) => received,
            };
            if received == 0 {
                break;
            }
            // Who gave up waiting publishes again: sending this one too would only make a duplicate.
            self.batch.retain(|job| !job.done.is_closed());
            let batch = std::mem::take(&mut self.batch);
            // What was on its way here when its destination fell silent.
            let batch = match &self.quarantine {
                Some(quarantine) => quarantine.sort_out(batch),
                None => batch,
            };
            if batch.is_empty() {
                continue;
            }
            let line = match self.line().await {
                Ok(line) => line,
                Err(failure) => {
                    tracing::debug!(%failure, "nothing can be published now");
                    for job in batch {
                        answer(job.done, Err(PublishError::Disconnected));
                    }
                    continue;
                }
            };
            let (line, batch) = self.wake_logs(line, batch).await;
            self.line = self.send(line, batch).await;
        }
        if let Some(line) = self.line.take() {
            close(&line.channel).await;
        }
    }

    /// The open channel, or a new one as soon as there is a connection.
    async fn line(&mut self) -> Result<Line, Failure> {
        if let Some(line) = self.line.take()
            && line.channel.status().connected()
        {
            return Ok(line);
        }
        Line::open(&self.link).await
    }

    /// Makes sure that the logs of this batch are awake; answers the jobs of those that are not.
    async fn wake_logs(&self, mut line: Line, batch: Vec<Job>) -> (Line, Vec<Job>) {
        let mut asleep = HashSet::new();
        for job in &batch {
            if let Destination::Log(log) = job.mail.message.to
                && !asleep.contains(&log)
                && !line.wakes(log, job.mail.key.as_str()).await
            {
                asleep.insert(log);
            }
        }
        let is_asleep = |job: &Job| matches!(job.mail.message.to, Destination::Log(log) if asleep.contains(&log));
        let (refused, ready): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_asleep);
        for job in refused {
            answer(job.done, Err(PublishError::Unroutable { to: job.mail.to() }));
        }
        (line, ready)
    }

    /// Publishes a batch and answers every job of it. Gives the line back if it is still good.
    async fn send(&self, line: Line, batch: Vec<Job>) -> Option<Line> {
        let (mails, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.mail, job.done)).unzip();
        let is_shared = mails.windows(2).any(|pair| pair[0].message.to != pair[1].message.to);
        let limit = match &self.quarantine {
            None => LOG_LIMIT,
            Some(_) if is_shared => SHARED_LIMIT,
            Some(_) => CONFIRM_LIMIT,
        };
        let outcome = tokio::time::timeout(limit, confirm(&line.channel, &mails)).await;
        let good = matches!(outcome, Ok(Ok(_)));
        if let Ok(outcome) = outcome {
            tell(&mails, waiting, &outcome);
        } else {
            if let Some(quarantine) = &self.quarantine {
                quarantine.suspect(mails.iter().map(|mail| &mail.message.to));
            }
            for done in waiting {
                answer(done, Err(PublishError::Timeout { seconds: limit.as_secs() }));
            }
        }
        if good {
            if let Some(quarantine) = &self.quarantine {
                quarantine.confirmed();
            }
            return Some(line);
        }
        // The broker's side of a channel may hang on a silent queue: nobody waits for it to close.
        self.tasks.spawn(async move { close(&line.channel).await });
        None
    }
}
