//! Folding: a storm that a chat lane could not tell one by one within any useful time is told in digests.
//!
//! When more deliveries than the operator's number are ready, everything that may be folded goes into one request. What may not
//! (somebody waits for an answer, it is CRITICAL, a digest with it was refused) is told by itself, and takes turns with the
//! digests so that neither waits for all of the other.
//!
//! A digest is a try like any other, and its deliveries stay unacknowledged until it is accepted: one that fails gives them
//! back to where they were.

use std::panic::AssertUnwindSafe;

use tracing::{debug, error};

use super::{Lane, Load};
use crate::{
    channels::{Occasion, Parcel},
    lane::{
        Errand,
        step::{self, Fate, Form},
    },
    model::{Digest, Ending},
};

/// Where a lane stands with its digests.
#[derive(Debug, Default)]
pub(super) struct Folding {
    /// Whether the last request was a digest: then what is told by itself has the next turn.
    pub(super) last: bool,
    /// Whether the next digest is to be in plain text, because the last one was refused.
    plainly: bool,
}

/// From now on each of them is told by itself.
fn unfold(errands: &mut [Errand]) {
    for errand in errands {
        errand.delivery.unfolded = true;
    }
}

impl Lane {
    /// The digest to send next, if it is time for one.
    pub(super) async fn next_digest(&mut self, probe: bool) -> Option<(Load, Parcel)> {
        let over = usize::try_from(self.plan.digest?.get()).unwrap_or(usize::MAX);
        // A probe finds out with as little as possible.
        let others_turn = self.ready.has_urgent() || (self.folding.last && self.ready.has_single());
        if probe || others_turn || self.ready.foldable() <= over {
            return None;
        }
        let waiting = self.ready.take_foldable();
        let mut members = Vec::with_capacity(waiting.len());
        let now = self.tools.clock.now();
        for errand in waiting {
            if errand.comes_again() {
                continue;
            }
            if self.is_known(&errand) {
                self.conclude_known(errand);
                continue;
            }
            match step::too_late(&errand.delivery, self.plan.chat, self.plan.retry.max_age(), now) {
                None => members.push(errand),
                Some(reason) => self.bury(errand, reason, "its time had passed", None).await,
            }
        }
        let plain = std::mem::take(&mut self.folding.plainly);
        if members.len() > over
            && let Some(parcel) = self.render_digest(&mut members, plain)
        {
            return Some((Load { errands: members, digest: Some(plain) }, parcel));
        }
        self.ready.put_back(members);
        None
    }

    /// The digest of `members`, who are to be told one by one if it cannot be made.
    fn render_digest(&self, members: &mut [Errand], plain: bool) -> Option<Parcel> {
        let occasion =
            Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: self.detour.as_deref() };
        let channel = &self.plan.channel;
        let parcel = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let digest = Digest::of(members.iter().map(|errand| &errand.delivery))?;
            channel.render_digest(&digest, plain, &occasion)
        }));
        let parcel = parcel.unwrap_or_else(|_panic| {
            error!(channel = %self.plan.id, "rendering a digest panicked; what it stood for is told one by one: please report it");
            None
        });
        if parcel.is_none() {
            unfold(members);
        }
        parcel
    }

    /// Does what the rules say about the members of a digest that has come back.
    pub(super) async fn carry_out_digest(&mut self, mut errands: Vec<Errand>, fate: Fate) {
        match fate {
            Fate::Delivered => errands.into_iter().for_each(|errand| self.folded(errand)),
            Fate::Again { after, form, .. } if after.is_zero() && self.flows() => {
                self.folding.plainly = form == Form::Plain;
                if let Form::Detour(to) = form {
                    self.take_detour(to);
                }
                self.ready.put_back(errands);
            }
            Fate::Again { after, form, .. } => {
                self.folding.plainly = form == Form::Plain;
                for errand in errands {
                    self.again(errand, after, false).await;
                }
            }
            // A batch is what the rules call several deliveries that are told each; a digest is none, so the last two do not come.
            Fate::Unfold | Fate::Bury(_) | Fate::BuryOne { .. } | Fate::Split => {
                debug!(channel = %self.plan.id, count = errands.len(), "a digest was refused; what it stood for is told one by one");
                unfold(&mut errands);
                if self.flows() {
                    self.ready.put_back(errands);
                } else {
                    for errand in errands {
                        self.keep(errand).await;
                    }
                }
            }
        }
    }

    fn folded(&mut self, errand: Errand) {
        debug!(channel = %self.plan.id, delivery = %errand.delivery.id(), decision = %errand.delivery.decision.id, "folded");
        self.told(errand, Ending::Folded);
    }
}
