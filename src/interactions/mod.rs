//! Slack's side of approvals: clicks come in, cards are changed, and the one who clicked in vain is told why.
//!
//! A click is believed when Slack's signature says that Slack sent it (`signature.rs`), when it is a click on one of our buttons
//! (`payload.rs`) whose sealed value names a channel that the signature's app belongs to, and when its approvers have the one who
//! clicked among them (`reception.rs`). Whether it is the answer is the approvals' business. Then every card of the approval is made
//! anew from our own data (`renewing.rs`), by whichever worker comes first, and `courier.rs` posts it.
//!
//! Cards that a bot posted can be changed at any time. One that a webhook posted can be changed only by a click on it: within half
//! an hour, five times. Source: Slack, "Handling user interaction".
//!
//! Absent on purpose: HTTP (`http` hands headers and body over), and what a card looks like (`channels::slack`).
//!
//! Start with [`Reception::take`].

mod courier;
pub mod payload;
mod reception;
mod renewing;
pub mod signature;

use std::sync::Arc;

pub use self::{
    courier::Courier,
    reception::{Reception, Taken},
    renewing::Renewer,
};
use crate::{
    approvals::{Answered, Approval, State, Via},
    channels::{
        Channel, Links,
        slack::{Ended, Given, How, Slack},
    },
    model::{ChannelId, Secret, Timestamp},
};

/// The channels whose cards can be answered in place, as they are configured at present.
#[derive(Clone, Debug)]
pub struct Answerable {
    channels: Vec<(ChannelId, Arc<dyn Channel>)>,
    /// Their signing secrets, each once: one app usually serves many channels.
    secrets: Vec<Secret>,
    links: Arc<Links>,
}

impl Answerable {
    /// Those of `channels` whose cards can be answered in place; links in their cards point to `links`.
    pub fn new(channels: impl IntoIterator<Item = (ChannelId, Arc<dyn Channel>)>, links: Arc<Links>) -> Self {
        let channels: Vec<_> = channels.into_iter().filter(|(_, channel)| channel.answerable().is_some()).collect();
        let mut secrets: Vec<Secret> = Vec::new();
        for (_, slack) in each(&channels) {
            for secret in &slack.interactivity().signing_secrets {
                if !secrets.contains(secret) {
                    secrets.push(secret.clone());
                }
            }
        }
        Self { channels, secrets, links }
    }

    fn each(&self) -> impl Iterator<Item = (&ChannelId, &Slack)> {
        each(&self.channels)
    }

    fn get(&self, id: &ChannelId) -> Option<&Slack> {
        self.each().find(|(one, _)| *one == id).map(|(_, slack)| slack)
    }
}

fn each(channels: &[(ChannelId, Arc<dyn Channel>)]) -> impl Iterator<Item = (&ChannelId, &Slack)> {
    channels.iter().filter_map(|(id, channel)| Some((id, channel.answerable()?)))
}

/// An answer, as cards and whispers tell it.
fn given(answered: &Answered) -> Given<'_> {
    let click = &*answered.click;
    let place = match click.via {
        Via::Slack => "in Slack",
        Via::Console => "in the console",
        Via::Api => "over the API",
    };
    let approved = click.answer == crate::approvals::Answer::Approve;
    Given { approved, name: &click.by.name, id: &click.by.id, at: click.at, place }
}

/// What a card of `approval` says now that it has ended; `None` while it can be answered. `answered` is its answer, where it has
/// one.
fn ended<'a>(approval: &'a Approval, answered: Option<&'a Answered>, now: Timestamp) -> Option<Ended<'a>> {
    let how = match (approval.state(now), answered) {
        (State::Answered, Some(answered)) => How::Answered(given(answered)),
        (State::Expired, _) => How::Expired(approval.expires_at()),
        (State::Waiting | State::Answered, _) => return None,
    };
    Some(Ended { decision: approval.decision.as_deref(), approval: approval.id(), how })
}
