//! One session's part in the urgent queue of its lane: when to consume it, and how long to hold a marker.
//!
//! Why it is all so is in [`urgent`](super::urgent). Looks and markers are errands beside the session's own channel, because a
//! queue without a leader may hold up whatever talks to it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    failure::{ACCESS_REFUSED, Failure, NOT_FOUND, limited},
    session::Session,
    topology::short,
    urgent::{MARKER, Seen, TAKE_LIMIT, Tools, mark},
};
use crate::broker::Receipt;

/// Urgent messages that may be out besides a lane's window.
pub(super) const WINDOW: u16 = 64;

/// How often the urgent queue is looked at while a marker is held.
const LOOK: Duration = Duration::from_secs(1);

/// How often an owner that could not consume the urgent queue tries again.
const TAKE_AGAIN: Duration = Duration::from_secs(5);

/// When a session that does not consume the urgent queue looks at it first, and how often then.
const SLOW_LOOK: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// Looks that must find nothing before a marker is released.
const CLEAN_LOOKS: u8 = 2;

/// The longest that a marker is held, in time and in deliveries that must be remembered behind it.
const HELD_MAX: (Duration, usize) = (Duration::from_mins(10), 20_000);

/// The longest that a call on the session's own channel may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The longest that the probe may take to come back before the lane goes on.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Whether a delivery is a marker.
pub(super) fn is_marker(delivery: &Delivery) -> bool {
    delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == MARKER)
}

/// What a session has to deal with next.
pub(super) enum Event {
    /// Something from the urgent queue, or its end.
    Came(Option<lapin::Result<Box<Delivery>>>),
    /// It is time for a look.
    Due,
    /// A look came back.
    Looked(Result<Seen, Failure>),
    /// A marker was published; whether it was confirmed.
    Marked(bool),
}

/// The newest marker.
struct Held {
    tag: u64,
    since: Instant,
    clean_looks: u8,
}

/// One session's part in the urgent queue.
pub(super) struct Side {
    /// `None` of a queue that is no lane's.
    tools: Option<Arc<Tools>>,
    session: Arc<Session>,
    /// Whether the lane's queue has given us anything.
    owns: bool,
    consumer: Option<lapin::Consumer>,
    held: Option<Held>,
    errand: Option<BoxFuture<'static, Event>>,
    /// When to look next.
    at: Instant,
}

impl Side {
    pub(super) fn new(tools: Option<Arc<Tools>>, session: Arc<Session>) -> Self {
        // Not all lanes of all workers at once.
        let at = Instant::now() + SLOW_LOOK.0.mul_f64(0.5 + fastrand::f64());
        Self { tools, session, owns: false, consumer: None, held: None, errand: None, at }
    }

    /// Whether the lane is ours, as far as this session knows.
    pub(super) fn owns(&self) -> bool {
        self.owns
    }

    /// What is next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        if self.tools.is_none() {
            return std::future::pending().await;
        }
        let Self { consumer, errand, at, .. } = self;
        let idle = errand.is_none();
        let came = async {
            match consumer {
                Some(consumer) => consumer.next().await,
                None => std::future::pending().await,
            }
        };
        let done = async {
            match errand {
                Some(errand) => errand.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            came = came => Event::Came(came.map(|came| came.map(Box::new))),
            event = done => {
                self.errand = None;
                event
            }
            () = tokio::time::sleep_until(*at), if idle => Event::Due,
        }
    }

    /// The lane's queue gave us something: so the urgent queue is ours too. Returns what is urgent and there already, so that it
    /// goes first. An error costs the session.
    pub(super) async fn own(&mut self, channel: &Channel) -> Result<Vec<Delivery>, Failure> {
        self.owns = true;
        let Some(tools) = self.tools.clone() else { return Ok(Vec::new()) };
        if self.consumer.is_some() || tools.is_refused() || !tools.topology.has_urgent(&tools.lane) {
            return Ok(Vec::new());
        }
        // If this fails, it is tried again on the side.
        self.at = Instant::now() + LOOK;
        match timeout(TAKE_LIMIT, tools.look(true)).await {
            Ok(Ok(Seen { probe: Some(probe), .. })) => self.take(channel, &tools, &probe).await,
            Ok(Ok(_)) | Err(_) => Ok(Vec::new()),
            Ok(Err(failure)) => {
                tracing::debug!(lane = %tools.lane, %failure, "the urgent queue could not be taken yet");
                Ok(Vec::new())
            }
        }
    }

    /// Consumes the urgent queue, and waits until the probe has come back.
    async fn take(&mut self, channel: &Channel, tools: &Tools, probe: &str) -> Result<Vec<Delivery>, Failure> {
        self.consume(channel, tools).await?;
        let (mut came, end) = (Vec::new(), Instant::now() + PROBE_LIMIT);
        // No more can come than the window; and it is no loss if the owner before us still has the queue.
        while let Some(consumer) = self.consumer.as_mut().filter(|_| came.len() < usize::from(WINDOW)) {
            match timeout_at(end, consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    let id = delivery.properties.message_id().as_ref();
                    let is_probe = id.is_some_and(|id| id.as_str() == probe);
                    came.push(delivery);
                    if is_probe {
                        break;
                    }
                }
                Ok(Some(Err(error))) => return Err(Failure::of("the consumer was ended", error)),
                Ok(None) => self.gone(),
                Err(_) => break,
            }
        }
        Ok(came)
    }

    /// Consumes the urgent queue on the session's own channel.
    async fn consume(&mut self, channel: &Channel, tools: &Tools) -> Result<(), Failure> {
        let (doing, name) = ("could not consume the urgent queue", tools.name());
        let call = async {
            // It counts for the consumers that begin after it: the lane's keeps its own.
            channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
            channel.basic_consume(short(&name), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
        };
        match limited(doing, &name, CALL_LIMIT, call).await {
            Ok(consumer) => {
                self.consumer = Some(consumer);
                self.session.has_urgent.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(failure) => {
                if tools.link.now().is_some_and(|connection| connection.status().connected()) {
                    // It cost the channel alone, so it was meant: the next session does without for a while.
                    tools.refused();
                }
                if failure.reply_code() == Some(ACCESS_REFUSED) {
                    tools.topology.lacks_urgent(&tools.lane, &failure);
                }
                Err(failure)
            }
        }
    }

    /// Something came by the urgent queue: its receipt, or nothing if it is a probe.
    pub(super) fn urgent(session: &Arc<Session>, delivery: &Delivery) -> Option<Receipt> {
        if is_marker(delivery) {
            session.hold(delivery.delivery_tag);
            session.release(delivery.delivery_tag);
            return None;
        }
        Some(session.delivered_urgent(delivery.delivery_tag))
    }

    /// A marker came by the lane's queue: it takes the place of the one before.
    pub(super) fn keep(&mut self, tag: u64) {
        self.session.hold(tag);
        let held = Held { tag, since: Instant::now(), clean_looks: 0 };
        if let Some(before) = self.held.replace(held) {
            self.session.release(before.tag);
        }
        if self.tools.is_none() {
            // One that was given up into another queue means nothing there.
            self.release();
        }
        self.at = self.at.min(Instant::now() + LOOK);
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.session.release(held.tag);
        }
    }

    /// It is time for a look, or for a new marker.
    pub(super) fn due(&mut self) {
        let Some(tools) = self.tools.clone() else { return };
        let wants = self.owns && self.consumer.is_none() && tools.topology.has_urgent(&tools.lane);
        let pause = match (wants, &self.held) {
            (true, _) => TAKE_AGAIN,
            (false, Some(_)) => LOOK,
            (false, None) => SLOW_LOOK.1,
        };
        self.at = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        if self.held.is_some() && !tools.topology.has_urgent(&tools.lane) {
            self.release();
        }
        if tools.is_refused() {
            return;
        }
        if self.is_held_too_long() {
            self.errand = Some(Box::pin(async move { Event::Marked(mark(&tools.publishers, &tools.lane).await) }));
        } else if self.held.is_some() || self.consumer.is_none() {
            let probe = self.owns && self.consumer.is_none();
            self.errand = Some(Box::pin(async move { Event::Looked(tools.look(probe).await) }));
        }
    }

    fn is_held_too_long(&self) -> bool {
        let long = |held: &Held| held.since.elapsed() >= HELD_MAX.0 || self.session.length() > HELD_MAX.1;
        self.held.as_ref().is_some_and(long)
    }

    /// A marker was published. If it was because ours is held too long, ours may go: the new one waits in the lane's queue.
    pub(super) fn marked(&mut self, confirmed: bool) {
        if confirmed && self.is_held_too_long() {
            self.release();
        }
    }

    /// A look came back. Returns what is urgent and there already, as [`Self::own`] does.
    pub(super) async fn looked(
        &mut self,
        outcome: Result<Seen, Failure>,
        channel: &Channel,
    ) -> Result<Vec<Delivery>, Failure> {
        let Some(tools) = self.tools.clone() else { return Ok(Vec::new()) };
        let seen = match outcome {
            Ok(seen) => seen,
            Err(failure) => {
                if failure.reply_code() != Some(NOT_FOUND) {
                    tracing::debug!(lane = %tools.lane, %failure, "the urgent queue could not be looked at");
                }
                return Ok(Vec::new());
            }
        };
        if let (Some(probe), None) = (&seen.probe, &self.consumer) {
            return self.take(channel, &tools, probe).await;
        }
        if let Some(held) = &mut self.held {
            let (ready, consumers) = seen.urgent;
            let clean = ready == 0 && consumers > 0 && self.session.urgent_out() == 0;
            held.clean_looks = if clean { held.clean_looks + 1 } else { 0 };
            if held.clean_looks >= CLEAN_LOOKS {
                self.release();
            }
        } else if self.consumer.is_none() && seen.urgent.0 > 0 && seen.lane == 0 {
            // Whoever owns the lane may not know it.
            self.errand = Some(Box::pin(async move { Event::Marked(mark(&tools.publishers, &tools.lane).await) }));
        }
        Ok(Vec::new())
    }

    /// The urgent queue was deleted under us.
    pub(super) fn gone(&mut self) {
        self.consumer = None;
        self.session.has_urgent.store(false, Ordering::Relaxed);
        self.at = Instant::now() + LOOK;
    }

    /// Takes nothing more, and gives the marker to whoever is next. Where nothing urgent is left there is nothing to say, and a
    /// marker would stand in the lane's queue like a delivery that waits.
    pub(super) async fn end(&mut self, channel: &Channel) {
        self.errand = None;
        if !channel.status().connected() {
            return;
        }
        // What a look cannot see, because it is on its way to us, is looked for when the consumer has been cancelled; if it is
        // missed there too, a slow look finds it.
        let looks = self.tools.clone().filter(|_| self.held.is_some() && self.consumer.is_some());
        let nothing_left = match looks.map(|tools| async move { timeout(LOOK, tools.look(false)).await }) {
            Some(look) => matches!(look.await, Ok(Ok(Seen { urgent: (0, 1..), .. }))),
            None => false,
        };
        let mut marker = self.held.take().map(|held| held.tag);
        let call = async {
            let mut on_the_wire = false;
            if let Some(mut consumer) = self.consumer.take() {
                channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
                on_the_wire = consumer.next().now_or_never().flatten().is_some();
            }
            if nothing_left && !on_the_wire && self.session.urgent_out() == 0 {
                marker.take().into_iter().for_each(|tag| self.session.release(tag));
            }
            if let Some(tag) = marker {
                // It may go to the tail of the queue: it is as good there, behind deliveries that prove the same.
                channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).await?;
            }
            Ok(())
        };
        match limited("could not give the urgent queue back", "", CALL_LIMIT, call).await {
            Ok(()) => {
                if let Some(tag) = marker {
                    self.session.gave_back(tag);
                }
            }
            Err(failure) => tracing::debug!(%failure, "the broker finds out by the channel's end"),
        }
    }
}
