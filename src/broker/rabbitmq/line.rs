//! One AMQP channel in confirm mode, and one batch on it.
//!
//! Why a barrier: the client library may attach a returned message to any confirm of the same `multiple` acknowledgement, so all
//! confirms of a batch are awaited before any of its messages is judged. A batch that did not come in whole is not judged at
//! all, not even those of its messages that were confirmed: the return of one of them may hang on a confirm that is missing.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    failure::{ACCESS_REFUSED, Failure, NOT_FOUND, limited, reply_code},
    link::{Backoff, Link},
    topology::{close, look_at_queue, open, short},
};
use crate::broker::{Log, Message, PublishError};

/// The longest that opening a channel or waking a log may take.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// A message with its address.
pub(super) struct Mail {
    pub(super) message: Message,
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    /// The AMQP property `type`, for a message between workers; such a one has no body of anybody's.
    pub(super) kind: Option<&'static str>,
}

impl Mail {
    /// Where it goes, for people.
    pub(super) fn to(&self) -> String {
        if self.exchange.as_str().is_empty() { self.key.to_string() } else { self.exchange.to_string() }
    }
}

/// Who waits for the outcome of a publish.
pub(super) type Done = oneshot::Sender<Result<(), PublishError>>;

/// A message on its way, and who waits for the outcome.
pub(super) struct Job {
    pub(super) mail: Mail,
    pub(super) done: Done,
}

/// Tells whoever waits; who gave up waiting does not want to know.
pub(super) fn answer(done: Done, outcome: Result<(), PublishError>) {
    drop(done.send(outcome));
}

/// A channel in confirm mode, and the logs that are known to be awake on its connection.
pub(super) struct Line {
    connection: Arc<Connection>,
    pub(super) channel: Channel,
    pub(super) awake: HashSet<Log>,
}

impl Line {
    /// Opens one as soon as there is a connection, or gives up after a while. A connection on which no channel can be opened is
    /// of no use, so another one is asked for.
    pub(super) async fn open(link: &Link) -> Result<Self, Failure> {
        let connection = tokio::time::timeout(OPEN_LIMIT, link.connection()).await.ok().flatten();
        let connection = connection.ok_or_else(|| Failure::new("the broker is not connected", "", false))?;
        let opened = async {
            let channel = open(&connection).await?;
            let call = channel.confirm_select(ConfirmSelectOptions::default());
            limited("could not ask for confirms", "", OPEN_LIMIT, call).await?;
            Ok(channel)
        };
        match opened.await {
            Ok(channel) => Ok(Self { connection, channel, awake: HashSet::new() }),
            Err(failure) => {
                if connection.status().connected() {
                    link.renew();
                }
                Err(failure)
            }
        }
    }

    /// Makes sure that a log takes what is published to it.
    pub(super) async fn wakes(&mut self, log: Log, name: &str) -> bool {
        let awake = self.awake.contains(&log) || wait_until_awake(&self.connection, name).await;
        if awake {
            self.awake.insert(log);
        }
        awake
    }
}

/// Tells everybody of a batch what became of it: `outcome` is that of [`confirm`].
pub(super) fn tell(mails: &[Mail], waiting: Vec<Done>, outcome: &lapin::Result<Vec<Verdict>>) {
    match outcome {
        Ok(verdicts) => {
            for ((mail, done), verdict) in mails.iter().zip(waiting).zip(verdicts) {
                let outcome = match verdict {
                    Verdict::Accepted => Ok(()),
                    Verdict::Returned => Err(PublishError::Unroutable { to: mail.to() }),
                    Verdict::Refused => Err(PublishError::Rejected { to: mail.to() }),
                };
                answer(done, outcome);
            }
        }
        Err(error) => {
            // A missing exchange closes the channel and says so; whose it was is in the message alone. So does a missing right.
            let [no_exchange, no_right] = [NOT_FOUND, ACCESS_REFUSED].map(|code| reply_code(error) == Some(code));
            tracing::debug!(%error, "a batch was not published");
            for (mail, done) in mails.iter().zip(waiting) {
                let exchange = mail.exchange.as_str();
                let missing = no_exchange && !exchange.is_empty() && error.to_string().contains(exchange);
                let why = if missing {
                    PublishError::Unroutable { to: mail.to() }
                } else if no_right {
                    PublishError::Forbidden { to: mail.to() }
                } else {
                    PublishError::Disconnected
                };
                answer(done, Err(why));
            }
        }
    }
}

/// What became of a message that was confirmed.
pub(super) enum Verdict {
    Accepted,
    Returned,
    Refused,
}

/// Publishes every job, awaits every confirm, and only then judges.
pub(super) async fn confirm(channel: &Channel, mails: &[Mail]) -> lapin::Result<Vec<Verdict>> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sends = mails.iter().map(|mail| {
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(short(&mail.message.id));
        let properties = match mail.kind {
            Some(kind) => properties.with_type(kind.into()),
            None => properties.with_content_type("application/json".into()),
        };
        channel.basic_publish(mail.exchange.clone(), mail.key.clone(), options, &mail.message.body, properties)
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
    Ok(mails
        .iter()
        .zip(accepted)
        .map(|(mail, accepted)| {
            if !accepted {
                Verdict::Refused
            } else if !returned.is_empty()
                && returned.contains(&(mail.exchange.clone(), mail.key.clone(), short(&mail.message.id)))
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
    let deadline = Instant::now() + OPEN_LIMIT;
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
        if Instant::now() + pause >= deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
    }
    false
}
