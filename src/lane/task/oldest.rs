//! How long the oldest delivery has waited: what an operator asks first about a lane that does not get through.
//!
//! A lane knows the deliveries that it has in hand, those under way, and the next ones that the broker has handed it out of its queue.
//! A queue gives out in order, so what lies deeper is younger, but for what was tried already and put back at the end of it: that is
//! seen when its turn is near again. A lane that an operator stopped takes nothing out, and so knows nothing.
//!
//! Looked at every few seconds and not on each turn: the numbers are for people, and the lane for deliveries.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use super::{Lane, Sends, Sent};
use crate::{
    lane::Errand,
    model::{Delivery, Timestamp},
};

/// A try under way.
pub(super) struct Sending {
    /// When the oldest of what it tells was first routed.
    oldest: Option<Timestamp>,
    sent: BoxFuture<'static, Sent>,
}

impl Sending {
    /// The try `sent`; the oldest of what it tells was first routed at `oldest`.
    pub(super) fn new(oldest: Option<Timestamp>, sent: BoxFuture<'static, Sent>) -> Self {
        Self { oldest, sent }
    }

    /// When the oldest of these was first routed.
    pub(super) fn oldest_of(errands: &[Errand]) -> Option<Timestamp> {
        errands.iter().map(|errand| errand.delivery.first_at).min()
    }
}

impl Future for Sending {
    type Output = Sent;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sent> {
        self.sent.as_mut().poll(context)
    }
}

impl Lane {
    /// Whether there is something to look at, or to take back.
    pub(super) fn has_an_oldest(&self, under_way: usize) -> bool {
        under_way > 0
            || !self.ready.is_empty()
            || !self.later.is_empty()
            || self.forming.is_some()
            || !self.arrivals.is_empty()
            || self.metrics.oldest_waiting.get() != 0
    }

    /// Shows when the oldest of what waits was first routed.
    pub(super) fn show_oldest(&mut self, sends: &Sends) {
        let in_hand = self.ready.iter().chain(self.later.values());
        let in_hand = in_hand.chain(self.forming.iter().flat_map(|forming| &forming.errands));
        let in_hand = in_hand.map(|errand| errand.delivery.first_at).min();
        let under_way = sends.iter().filter_map(|sending| sending.oldest).min();
        // What is no delivery becomes a dead letter when it is taken.
        let next = self.arrivals.next_ones().filter_map(|arrival| Delivery::from_bytes(&arrival.body).ok());
        let next = next.map(|delivery| delivery.first_at).min();
        let oldest = [in_hand, under_way, next].into_iter().flatten().min();
        self.metrics.oldest_waiting.set(oldest.map_or(0, Timestamp::unix_seconds));
    }
}
