//! One approval, how it stands, and for whom it is a grant. Plain data: what changes it is in `table.rs`.

use std::sync::Arc;

use uuid::Uuid;

use super::record::{Answer, Card, Click, Shown};
use crate::{
    channels::button::Name,
    model::{self, Decision, Timestamp},
};

/// How an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be answered.
    Waiting,
    /// It was.
    Answered,
    /// It was not, and cannot be any more.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Answered, Self::Expired];

    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Answered => "answered",
            Self::Expired => "expired",
        }
    }
}

/// One approval.
#[derive(Clone, Debug)]
pub struct Approval {
    /// Its name.
    pub name: Name,
    /// The decision that asks for it, shortened if it is large; `None` where the log tells only of its cards or of a click on one.
    pub decision: Option<Arc<Decision>>,
    /// The answer.
    pub answer: Option<Arc<Click>>,
    /// Whether the answer has been published for the firewall.
    pub published: bool,
    /// Its cards that can be changed.
    pub cards: Vec<Card>,
    /// What cards were last changed to: by the id of a card, or of the click whose card it is. Each stands here once.
    pub shown: Vec<(Uuid, Shown)>,
}

impl Approval {
    pub(super) fn new(name: Name) -> Self {
        Self { name, decision: None, answer: None, published: false, cards: Vec::new(), shown: Vec::new() }
    }

    /// Its id; `None` where only the digest of a long one is known.
    pub fn id(&self) -> Option<&str> {
        self.asked().map(|approval| &*approval.id).or_else(|| self.name.whole())
    }

    /// From when on an answer is too late.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self.asked() {
            Some(asked) => asked.expires_at,
            None => self.answer.as_ref()?.claim.as_ref()?.expires_at,
        }
    }

    /// What the decision asks for.
    pub(super) fn asked(&self) -> Option<&model::Approval> {
        self.decision.as_ref()?.approval_asked()
    }

    /// How it stands at this moment.
    pub fn state(&self, now: Timestamp) -> State {
        if self.answer.is_some() {
            State::Answered
        } else if self.expires_at().is_some_and(|end| is_over(end, now)) {
            State::Expired
        } else {
            State::Waiting
        }
    }

    /// Until when it is a grant; `None` for one that was denied, or not answered.
    pub fn granted_until(&self) -> Option<Timestamp> {
        let click = self.answer.as_ref().filter(|click| click.answer == Answer::Approve)?;
        Some(click.at.plus(click.grant))
    }

    /// Whether a card, or the card that was clicked, has been changed to `shown`.
    pub fn shows(&self, card: Uuid, shown: Shown) -> bool {
        self.shown.contains(&(card, shown))
    }

    /// From when on nobody can do anything with it; `None` of one that waits for ever.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        match &self.answer {
            Some(click) => Some(self.expires_at().into_iter().chain(self.granted_until()).fold(click.at, Ord::max)),
            None => self.expires_at(),
        }
    }

    /// How much its decision takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.decision.as_ref().map_or(0, |decision| decision.raw().len())
    }
}

/// Whether `end` has come. By the millisecond, as buttons carry it.
pub(super) fn is_over(end: Timestamp, now: Timestamp) -> bool {
    end.unix_millis() <= now.unix_millis()
}

/// For whom a grant holds: the same agent, tool and operation, and nothing that only looks like them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The agent's id.
    pub agent: Box<str>,
    /// The tool.
    pub tool: Box<str>,
    /// The operation; `None` is a call without one, and not one with any.
    pub operation: Option<Box<str>>,
}

impl Scope {
    /// The scope of a decision.
    pub fn of(decision: &Decision) -> Self {
        Self {
            agent: decision.agent.id.clone(),
            tool: decision.tool().into(),
            operation: decision.operation().map(Into::into),
        }
    }
}

/// An approval while it lasts.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The approval, as it was when it was answered.
    pub approval: Arc<Approval>,
    /// Until when.
    pub expires_at: Timestamp,
}
