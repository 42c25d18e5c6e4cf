//! The approvals' tasks: what follows the log, what publishes answers, what keeps where cards were posted.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    approvals::{Approvals, Card, Deed, Terms},
    broker::Broker,
    channels::button::Name,
    lane::CardPosted,
    model::Clock,
    telemetry::Metrics,
};

/// How many cards may wait to be written down.
const CARDS_MAX: usize = 1_024;

/// Waits between tries to write one down, and how long it is tried.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_LONGEST: Duration = Duration::from_secs(5);
const NOTE_MAX: Duration = Duration::from_mins(5);

/// How many tasks there are while all is well: among the answers, and of those that follow the log.
pub(super) const TASKS: [usize; 2] = [2, 2];

/// The approvals, and what belongs to them.
pub(super) struct Approving {
    pub(super) approvals: Approvals,
    /// Where lanes tell of cards.
    pub(super) posted: mpsc::Sender<CardPosted>,
    /// Answers under way, what publishes them, and what writes down cards.
    pub(super) answers: TaskTracker,
    /// What follows the log.
    pub(super) following: TaskTracker,
}

/// Starts the tasks; they run until `give_up`, so that answers under way at a stop are still heard of.
pub(super) fn start(
    broker: &Arc<dyn Broker>,
    clock: Clock,
    metrics: &Metrics,
    terms: Terms,
    [stop, give_up]: [&CancellationToken; 2],
) -> Approving {
    let (answers, following) = (TaskTracker::new(), TaskTracker::new());
    let approvals = Approvals::new(Arc::clone(broker), clock, metrics.clone(), terms, answers.clone());
    let (posted, told) = mpsc::channel(CARDS_MAX);
    let (reading, until) = (approvals.clone(), give_up.clone());
    following.spawn(async move { until.run_until_cancelled(reading.follow()).await });
    let (watching, until) = (approvals.clone(), give_up.clone());
    following.spawn(async move { until.run_until_cancelled(watching.watch_expiry()).await });
    // Among the answers: a stop waits for it, and it for the answers.
    let (publishing, until, stop) = (approvals.clone(), give_up.clone(), stop.clone());
    answers.spawn(async move { until.run_until_cancelled(publishing.publish_answers(stop)).await });
    // It ends by itself when the last lane is gone and all is written down.
    let (noting, until) = (approvals.clone(), give_up.clone());
    answers.spawn(async move { until.run_until_cancelled(note_cards(noting, told)).await });
    Approving { approvals, posted, answers, following }
}

/// Writes down where cards were posted, one after another, as long as that has a chance: one that is lost stays as it was posted.
async fn note_cards(approvals: Approvals, mut told: mpsc::Receiver<CardPosted>) {
    while let Some(CardPosted { approval, channel, card }) = told.recv().await {
        let id = uuid::Uuid::now_v7();
        let card = Card { id, channel, conversation: card.conversation, ts: card.ts };
        let deed = Deed::Posted(Name::of(&approval), card);
        let note = async {
            let mut wait = AGAIN_FIRST;
            // The same id each time, so that a card that is written down twice is still one.
            while let Err(error) = approvals.note(deed.clone()).await {
                debug!(%error, "where a card was posted could not be kept; it is tried again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN_LONGEST);
            }
        };
        if tokio::time::timeout(NOTE_MAX, note).await.is_err() {
            warn!("where a card was posted could not be kept: it will not be changed when it is answered");
        }
    }
}
