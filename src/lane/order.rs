//! What the rest of the worker can tell a lane to do while it runs.
//!
//! An order is carried out between two turns of the lane's loop, so nothing is ever half done; sends that are under way end as
//! they would have ended.

use tokio::sync::{mpsc, oneshot};

use super::{LanePlan, LaneTools};

/// How many orders may wait for a lane. They come from people and from reloads, and a lane takes them at once.
pub(super) const ORDERS_MAX: usize = 16;

/// One order.
pub(super) enum Order {
    /// From now on do as this says: the channel's configuration has changed. A pause or hold ends: what the endpoint had said
    /// was said of the old configuration.
    Renew(Box<(LanePlan, LaneTools)>),
    /// Send nothing until [`Order::Resume`]: an operator paused the channel.
    Stop,
    /// Flow, whatever the lane was doing: an operator resumed the channel.
    Resume,
    /// End: finish what is under way, give everything else to the lane's queue, consume it no longer, then say so.
    Retire(oneshot::Sender<()>),
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A place to give orders, and where the lane finds them.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Self(sender), receiver)
    }

    /// Gives an order. A lane that has ended takes none, and needs none.
    pub(super) async fn give(&self, order: Order) {
        if self.0.send(order).await.is_err() {
            tracing::debug!("a lane that has ended was given an order");
        }
    }
}
