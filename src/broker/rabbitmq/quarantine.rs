//! Destinations that did not confirm in time, each by itself, so that they delay nobody else.
//!
//! A queue whose leader is gone, or a cluster without a majority, confirms nothing, and a batch that holds one message for it
//! fails as a whole. Which destination of the batch was to blame nobody can say: single confirms of it prove nothing (see
//! [`line`](super::line)). So all of its destinations become suspects. What goes to a suspect goes through a *cell*: a task with an
//! AMQP channel of its own, whose batches go to this one destination. The cells try side by side, so the innocent are cleared in
//! the time of one confirm. A batch that comes back whole, whatever it says, clears its destination.
//!
//! A cell whose batch does not come back either stands still: it goes on waiting for that same batch, and says
//! [`PublishError::Silent`] to whoever comes meanwhile. Trying again and again would only leave one more duplicate in the queue
//! and one more stuck channel at the broker for each try.
//!
//! A broker that confirms nothing at all (a memory alarm) makes suspects of everything. Then nothing is `Silent`, because
//! nothing else was confirmed meanwhile: it is `Timeout`, which says nothing of the one destination.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Tasks,
    line::{Job, Line, Mail, answer, confirm, tell},
    link::Link,
    publisher::{BATCH, CONFIRM_LIMIT},
    topology::close,
};
use crate::broker::{Destination, PublishError};

/// How many cells may try at a time; one that stands still does not count.
const TRIES: usize = 64;

/// How long a cell stands still before it begins anew, with another channel.
const STANDSTILL: Duration = Duration::from_mins(2);

/// The suspects and their cells.
pub(super) struct Quarantine {
    link: Link,
    tasks: Arc<Tasks>,
    stop: CancellationToken,
    cells: Mutex<HashMap<Destination, mpsc::Sender<Job>>>,
    tries: Semaphore,
    /// When anything was last confirmed, for whatever destination.
    confirmed_at: Mutex<Option<Instant>>,
}

/// What a suspect is known by. The keys of an exchange are as many as the tools of all agents, so they share one cell.
fn place(to: &Destination) -> Destination {
    match to {
        Destination::ApprovalsExchange(_) => Destination::ApprovalsExchange(String::new()),
        Destination::DecisionsExchange | Destination::Queue(_) | Destination::Log(_) => to.clone(),
    }
}

impl Quarantine {
    pub(super) fn new(link: Link, tasks: Arc<Tasks>, stop: CancellationToken) -> Self {
        let (cells, tries, confirmed_at) = (Mutex::default(), Semaphore::new(TRIES), Mutex::default());
        Self { link, tasks, stop, cells, tries, confirmed_at }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<Destination, mpsc::Sender<Job>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of a suspect.
    pub(super) fn cell(&self, to: &Destination) -> Option<mpsc::Sender<Job>> {
        let cells = self.cells();
        if cells.is_empty() { None } else { cells.get(&place(to)).cloned() }
    }

    /// Something was confirmed: the broker works.
    pub(super) fn confirmed(&self) {
        *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether anything was confirmed after `since`.
    fn works_since(&self, since: Instant) -> bool {
        self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at > since)
    }

    /// Sends the jobs of suspects to their cells and gives back the others.
    pub(super) fn sort_out(&self, jobs: Vec<Job>) -> Vec<Job> {
        if self.cells().is_empty() {
            return jobs;
        }
        let (suspect, rest): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (self.cell(&job.mail.message.to), job)).partition(|(cell, _)| cell.is_some());
        for (cell, job) in suspect {
            let Some(cell) = cell else { continue };
            // A cell whose inbox is full has not got to it in time.
            if let Err(full) = cell.try_send(job) {
                answer(full.into_inner().done, Err(PublishError::Timeout { seconds: CONFIRM_LIMIT.as_secs() }));
            }
        }
        rest.into_iter().map(|(_, job)| job).collect()
    }

    /// A batch to these destinations did not come back in time.
    pub(super) fn suspect<'to>(self: &Arc<Self>, destinations: impl Iterator<Item = &'to Destination>) {
        let mut cells = self.cells();
        for to in destinations {
            let place = place(to);
            if !cells.contains_key(&place) {
                tracing::debug!(to = ?place, "a batch was not confirmed in time, its destinations are tried by themselves");
                let (jobs, inbox) = mpsc::channel(BATCH);
                cells.insert(place.clone(), jobs);
                self.tasks.spawn(Arc::clone(self).run(place, inbox));
            }
        }
    }

    /// One cell: until its suspect is cleared, and then until its inbox is empty.
    async fn run(self: Arc<Self>, place: Destination, mut inbox: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                received = inbox.recv_many(&mut batch, BATCH) => received,
            };
            if received == 0 {
                return;
            }
            batch.retain(|job| !job.done.is_closed());
            if !batch.is_empty() && self.try_alone(std::mem::take(&mut batch), &mut inbox).await {
                tracing::debug!(to = ?place, "it confirms");
                self.confirmed();
                self.cells().remove(&place);
            }
        }
        // There is no time to find out more about a suspect.
        inbox.close();
        while let Some(job) = inbox.recv().await {
            answer(job.done, Err(PublishError::Disconnected));
        }
    }

    /// Publishes a batch that goes to one destination. Whether it came back whole, however late.
    async fn try_alone(&self, batch: Vec<Job>, inbox: &mut mpsc::Receiver<Job>) -> bool {
        let turn = self.tries.acquire().await;
        let line = match Line::open(&self.link).await {
            Ok(line) => line,
            Err(failure) => {
                tracing::debug!(%failure, "nothing can be published now");
                for job in batch {
                    answer(job.done, Err(PublishError::Disconnected));
                }
                return false;
            }
        };
        let (mails, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.mail, job.done)).unzip();
        let began = Instant::now();
        let mut confirms = pin!(confirm(&line.channel, &mails));
        let came = if let Ok(outcome) = timeout(CONFIRM_LIMIT, confirms.as_mut()).await {
            tell(&mails, waiting, &outcome);
            outcome.is_ok()
        } else {
            drop(turn);
            for done in waiting {
                answer(done, Err(PublishError::Timeout { seconds: CONFIRM_LIMIT.as_secs() }));
            }
            let to = mails.first().map_or_else(String::new, Mail::to);
            tracing::warn!(to, "it confirms nothing; what goes there waits for it, and nothing else does");
            let end = tokio::time::sleep(STANDSTILL);
            let mut end = pin!(end);
            loop {
                tokio::select! {
                    outcome = confirms.as_mut() => break outcome.is_ok(),
                    Some(job) = inbox.recv() => {
                        let silent = self.works_since(began);
                        let seconds = CONFIRM_LIMIT.as_secs();
                        let why = if silent {
                            PublishError::Silent { to: to.clone() }
                        } else {
                            PublishError::Timeout { seconds }
                        };
                        answer(job.done, Err(why));
                    }
                    () = self.stop.cancelled() => break false,
                    () = end.as_mut() => break false,
                }
            }
        };
        // The broker's side of it may hang, and nobody needs to wait for that.
        let channel = line.channel.clone();
        self.tasks.spawn(async move { close(&channel).await });
        came
    }
}
