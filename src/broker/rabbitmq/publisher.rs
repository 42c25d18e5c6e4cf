//! Publishing: one task per AMQP channel, batches with a barrier, and `Ok` only for what the broker confirmed *and* routed.
//!
//! Why one task: two tasks that publish on one channel of the client library can swap their confirms (measured: 71 of 20,000
//! rejected messages were reported as accepted). Why a barrier: a returned message may be attached to any confirm of the same
//! `multiple` acknowledgement, so all confirms of a batch are awaited before any of its messages is judged.
//!
//! There are two publishers: one for queues and exchanges, one for logs. A stream acknowledges and drops publishes for half a
//! second after its broker started, so the second one asks for its streams after each connect before it publishes; the first
//! one must not wait for that.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    failure::{Failure, NOT_FOUND, limited, reply_code},
    link::{Backoff, Link},
    topology::{Topology, close, look_at_queue, open, short},
};
use crate::broker::{Destination, Log, Message, PublishError};

/// The most messages that are published before their confirms are awaited.
const BATCH: usize = 256;

/// The longest that a batch may wait for its confirms.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// The longest that a message may wait in all: for a connection, for the batches before it, and for its confirm.
const PUBLISH_LIMIT: Duration = Duration::from_secs(20);

/// The largest body, in bytes. RabbitMQ 4 takes 16 MiB unless told otherwise.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A message on its way, and who waits for the outcome.
struct Job {
    message: Message,
    done: oneshot::Sender<Result<(), PublishError>>,
}

/// A handle of a publisher task.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    link: Link,
}

impl Publisher {
    /// The handle, and the task. The task ends, its last batch confirmed, when `stop` was cancelled.
    pub(super) fn start(
        link: Link,
        topology: Arc<Topology>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, inbox) = mpsc::channel(4 * BATCH);
        let task = Task { link: link.clone(), topology, inbox, stop, line: None, batch: Vec::with_capacity(BATCH) };
        (Self { jobs, link }, task.run())
    }

    /// Publishes and waits for the outcome.
    pub(super) async fn publish(self, message: Message) -> Result<(), PublishError> {
        if message.body.len() > BODY_BYTES_MAX {
            return Err(PublishError::TooLarge { bytes: message.body.len() });
        }
        let outcome = async {
            let (done, outcome) = oneshot::channel();
            self.jobs.send(Job { message, done }).await.map_err(|_| PublishError::Disconnected)?;
            outcome.await.map_err(|_| PublishError::Disconnected)?
        };
        tokio::time::timeout(PUBLISH_LIMIT, outcome).await.unwrap_or_else(|_| match self.link.now() {
            None => Err(PublishError::Disconnected),
            Some(_) => Err(PublishError::Timeout { seconds: PUBLISH_LIMIT.as_secs() }),
        })
    }
}

/// A channel in confirm mode, and the logs that are known to be awake on its connection.
struct Line {
    connection: Arc<Connection>,
    channel: Channel,
    awake: HashSet<Log>,
}

struct Task {
    link: Link,
    topology: Arc<Topology>,
    inbox: mpsc::Receiver<Job>,
    stop: CancellationToken,
    line: Option<Line>,
    batch: Vec<Job>,
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
            let line = match self.line().await {
                Ok(line) => line,
                Err(failure) => {
                    tracing::debug!(%failure, "nothing can be published now");
                    self.batch.drain(..).for_each(|job| answer(job, Err(PublishError::Disconnected)));
                    continue;
                }
            };
            let batch = std::mem::take(&mut self.batch);
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
        let gone = || Failure::new("the broker is not connected", "", false);
        let connection = tokio::select! {
            connection = self.link.connection() => connection,
            () = tokio::time::sleep(CONFIRM_LIMIT) => None,
            () = self.stop.cancelled() => self.link.now(),
        };
        let connection = connection.ok_or_else(gone)?;
        let channel = open(&connection).await?;
        let call = channel.confirm_select(ConfirmSelectOptions::default());
        limited("could not ask for confirms", "", CONFIRM_LIMIT, call).await?;
        Ok(Line { connection, channel, awake: HashSet::new() })
    }

    /// Makes sure that the logs of this batch are awake; answers the jobs of those that are not.
    async fn wake_logs(&self, mut line: Line, batch: Vec<Job>) -> (Line, Vec<Job>) {
        let mut asleep = HashSet::new();
        for job in &batch {
            if let Destination::Log(log) = job.message.to
                && !line.awake.contains(&log)
                && !asleep.contains(&log)
            {
                match self.topology.log(log) {
                    Some(name) if !wait_until_awake(&line.connection, &name).await => asleep.insert(log),
                    Some(_) | None => line.awake.insert(log),
                };
            }
        }
        let mut ready = Vec::with_capacity(batch.len());
        for job in batch {
            match job.message.to {
                Destination::Log(log) if asleep.contains(&log) => {
                    let to = self.topology.log(log).unwrap_or_default();
                    answer(job, Err(PublishError::Unroutable { to }));
                }
                Destination::Log(_)
                | Destination::DecisionsExchange
                | Destination::ApprovalsExchange(_)
                | Destination::Queue(_) => ready.push(job),
            }
        }
        (line, ready)
    }

    /// Publishes a batch and answers every job of it. Gives the line back if it is still good.
    async fn send(&self, line: Line, batch: Vec<Job>) -> Option<Line> {
        let mut jobs = Vec::with_capacity(batch.len());
        for job in batch {
            match self.topology.address(&job.message.to) {
                Some(address) => jobs.push((job, address)),
                // A log that is not kept: there is nothing to do, and nothing to wait for.
                None => answer(job, Ok(())),
            }
        }
        match tokio::time::timeout(CONFIRM_LIMIT, confirm(&line.channel, &jobs)).await {
            Ok(Ok(verdicts)) => {
                for ((job, (exchange, key)), verdict) in jobs.into_iter().zip(verdicts) {
                    let to = || if exchange.as_str().is_empty() { key.to_string() } else { exchange.to_string() };
                    let outcome = match verdict {
                        Verdict::Accepted => Ok(()),
                        Verdict::Returned => Err(PublishError::Unroutable { to: to() }),
                        Verdict::Refused => Err(PublishError::Rejected { to: to() }),
                    };
                    answer(job, outcome);
                }
                Some(line)
            }
            Ok(Err(error)) => {
                // A missing exchange closes the channel and says so; whose it was is in the message alone.
                let no_exchange = reply_code(&error) == Some(NOT_FOUND);
                tracing::debug!(%error, "a batch was not published");
                for (job, (exchange, _)) in jobs {
                    let missing =
                        no_exchange && !exchange.as_str().is_empty() && error.to_string().contains(exchange.as_str());
                    let to = exchange.to_string();
                    answer(
                        job,
                        Err(if missing { PublishError::Unroutable { to } } else { PublishError::Disconnected }),
                    );
                }
                close(&line.channel).await;
                None
            }
            Err(_) => {
                for (job, _) in jobs {
                    answer(job, Err(PublishError::Timeout { seconds: CONFIRM_LIMIT.as_secs() }));
                }
                self.link.renew();
                None
            }
        }
    }
}

/// What became of a message that was confirmed.
enum Verdict {
    Accepted,
    Returned,
    Refused,
}

/// Publishes every job, awaits every confirm, and only then judges.
async fn confirm(channel: &Channel, jobs: &[(Job, (ShortString, ShortString))]) -> lapin::Result<Vec<Verdict>> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sends = jobs.iter().map(|(job, (exchange, key))| {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(short(&job.message.id))
            .with_content_type("application/json".into());
        channel.basic_publish(exchange.clone(), key.clone(), options, &job.message.body, properties)
    });
    let confirms = join_all(sends).await.into_iter().collect::<lapin::Result<Vec<_>>>()?;
    let confirmations = join_all(confirms).await.into_iter().collect::<lapin::Result<Vec<_>>>()?;
    let accepted: Vec<bool> = confirmations.iter().map(Confirmation::is_ack).collect();
    // A returned message says where it was going and its id; which confirm carries it means nothing. Two messages of one batch
    // that agree in all of that would share the blame, and be published again.
    let returned: HashSet<(ShortString, ShortString, ShortString)> = confirmations
        .into_iter()
        .filter_map(Confirmation::take_message)
        .map(|message| {
            let id = message.delivery.properties.message_id().clone().unwrap_or_default();
            (message.delivery.exchange, message.delivery.routing_key, id)
        })
        .collect();
    Ok(jobs
        .iter()
        .zip(accepted)
        .map(|((job, (exchange, key)), accepted)| {
            if !accepted {
                Verdict::Refused
            } else if !returned.is_empty()
                && returned.contains(&(exchange.clone(), key.clone(), short(&job.message.id)))
            {
                Verdict::Returned
            } else {
                Verdict::Accepted
            }
        })
        .collect())
}

/// Waits until a stream takes publishes: until a passive declaration of it succeeds.
async fn wait_until_awake(connection: &Connection, name: &str) -> bool {
    let deadline = tokio::time::Instant::now() + CONFIRM_LIMIT;
    let mut backoff = Backoff::new();
    while connection.status().connected() {
        let look = async {
            let channel = open(connection).await?;
            look_at_queue(&channel, name).await?;
            close(&channel).await;
            Ok::<_, Failure>(())
        };
        match tokio::time::timeout_at(deadline, look).await {
            Ok(Ok(())) => return true,
            Ok(Err(failure)) => tracing::debug!(%failure, "the log is not there yet"),
            Err(_) => return false,
        }
        let pause = backoff.pause();
        if tokio::time::Instant::now() + pause >= deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
    }
    false
}

fn answer(job: Job, outcome: Result<(), PublishError>) {
    // Whoever gave up waiting does not want to know.
    drop(job.done.send(outcome));
}
