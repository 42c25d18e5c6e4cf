//! The reception that takes Slack's clicks, and the task that makes cards anew.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::approving::Approving;
use crate::{
    interactions::{Answerable, Courier, Reception, Renewer},
    lane::LaneTools,
};

/// How many answers may wait for their cards to be made anew at once; the rest is found a little later.
const RENEWALS_MAX: usize = 1_024;

/// Starts both. The reception's clicks under way are finished at a stop; the cards are left to other workers, or to the next start.
pub(super) fn start(
    approving: &Approving,
    tools: &LaneTools,
    answerable: watch::Receiver<Arc<Answerable>>,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Reception {
    let courier = Courier::new(Arc::clone(&tools.post), tools.scrubber.clone(), tools.clock, stop.clone());
    let (renew, asked) = mpsc::channel(RENEWALS_MAX);
    let renewer = Renewer::new(approving.approvals.clone(), answerable.clone(), courier.clone(), asked);
    let until = stop.clone();
    background.spawn(async move { until.run_until_cancelled(renewer.run()).await });
    Reception::new(approving.approvals.clone(), answerable, courier, renew, approving.answers.clone())
}
