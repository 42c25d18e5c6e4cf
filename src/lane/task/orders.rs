//! What the lane is told while it runs: a new configuration, an operator's pause and its end.

use tokio::{sync::oneshot, time::Instant};
use tracing::info;

use super::{Lane, window::window};
use crate::{
    broker::{Arrivals, Queue},
    channels::Batcher,
    lane::{LanePlan, LaneState, LaneTools, Origin, order::Order, pace::Pace},
};

impl Lane {
    /// Does as it is told. To retire is the loop's own business: then it says whom to tell.
    pub(super) async fn obey(&mut self, order: Order) -> Option<oneshot::Sender<()>> {
        match order {
            Order::Renew(news) => self.renew(news.0, news.1).await,
            Order::Stop => self.stop_sending().await,
            Order::Resume => self.resume(),
            Order::Retire(done) => return Some(done),
        }
        None
    }

    /// Takes a new configuration over. Nothing that waits is touched: it is rendered, paced and retried by the new one from now on.
    async fn renew(&mut self, plan: LanePlan, tools: LaneTools) {
        info!(channel = %plan.id, "the channel has a new configuration");
        // What was rendered by the old configuration is rendered again.
        if let Some(forming) = self.forming.take() {
            self.ready.put_back(forming.errands);
        }
        if plan.pace != self.plan.pace {
            // As if the old pace had just been used up: a reload is no second burst.
            self.pace = Pace::new(&plan.pace);
            self.pace.spend(Instant::now());
        }
        self.batching = plan.channel.batcher().map(Batcher::limits).filter(|limits| limits.events > 1);
        self.detour = None;
        (self.plan, self.tools) = (plan, tools);
        let window = window(&self.plan, self.batching);
        let stopped = matches!(self.state, LaneState::Stopped);
        if window != self.window {
            self.window = window;
            if !stopped {
                self.consume_anew();
            }
        }
        self.forget_failures();
        // A changed configuration lets everything flow, but for what an operator stopped.
        if stopped {
            return;
        }
        let asked = self.asked_until.is_some_and(|until| until > Instant::now());
        if asked && matches!(self.state, LaneState::Paused { .. }) {
            // But what the endpoint asked for, it asked of whoever sends to it.
            self.rest_in(self.state.clone()).await;
        } else if self.pace.is_limited() {
            // What an unlimited lane had taken from memory goes the way of a limited one.
            self.rest_in(LaneState::Flowing).await;
        } else {
            self.enter(LaneState::Flowing);
        }
    }

    /// Comes to rest until an operator says otherwise. The queue is given back whole: no other worker sends from it either, so
    /// nothing needs to be held.
    async fn stop_sending(&mut self) {
        if matches!(self.state, LaneState::Stopped) {
            return;
        }
        info!(channel = %self.plan.id, was = self.state.as_str(), "an operator paused the channel");
        self.rest_in(LaneState::Stopped).await;
        self.arrivals = Arrivals::nothing();
        self.give_back_queue();
    }

    fn resume(&mut self) {
        info!(channel = %self.plan.id, was = self.state.as_str(), "an operator resumed the channel");
        if matches!(self.state, LaneState::Stopped) {
            self.consume_anew();
        }
        self.forget_failures();
        self.enter(LaneState::Flowing);
    }

    fn forget_failures(&mut self) {
        (self.failures, self.pauses, self.holds) = (0, 0, 0);
    }

    /// Consumes the lane's queue from scratch. What was taken from it and is not under way goes back to it first.
    pub(super) fn consume_anew(&mut self) -> usize {
        self.consuming_since = Instant::now();
        self.taken_over = None;
        // The old consumer ends here, and only then do its receipts go, so that they do not come again to it.
        self.arrivals = self.tools.broker.consume(Queue::Lane(self.plan.id.clone()), self.window);
        self.give_back_queue()
    }

    /// Drops what came from the lane's queue and is not under way: the broker hands it out again. Returns how many that were.
    pub(super) fn give_back_queue(&mut self) -> usize {
        let before = self.ready.len() + self.later.len();
        self.ready.retain(|errand| errand.origin == Origin::Memory);
        self.later.retain(|_, errand| errand.origin == Origin::Memory);
        before - self.ready.len() - self.later.len()
    }
}
