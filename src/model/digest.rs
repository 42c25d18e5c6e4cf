//! A digest: what a storm of decisions was about, in exact counts, so that one card can tell thousands.
//!
//! Built from the deliveries that it stands for, and pure: the same deliveries give the same digest.

use std::sync::Arc;

use super::{Decision, DecisionKind, Delivery, Timestamp};

/// How many of the most severe decisions are named one by one.
pub const NAMED_MAX: usize = 5;

/// How many agents, tools and reasons are counted by name; the others are counted together.
pub const GROUPS_MAX: usize = 10;

/// The decisions of one digest, counted.
#[derive(Clone, Debug)]
pub struct Digest {
    /// How many decisions it stands for, at least 1.
    pub total: usize,
    /// Counts by kind of decision, most first; they add up to `total`.
    pub kinds: Vec<(DecisionKind, usize)>,
    /// Counts by agent (its name, or else its id).
    pub agents: Groups,
    /// Counts by `tool.operation`.
    pub tools: Groups,
    /// Counts by reason. A decision with two reasons counts in both, one without in none.
    pub reasons: Groups,
    /// The earliest and the latest time of a decision.
    pub span: (Timestamp, Timestamp),
    /// The most severe decisions (then the riskiest, then the latest), at most [`NAMED_MAX`].
    pub worst: Vec<Arc<Decision>>,
}

/// Counts by name, most first, ties by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The biggest groups, at most [`GROUPS_MAX`]. Names are hostile text.
    pub top: Vec<(String, usize)>,
    /// How many other groups there are.
    pub others: usize,
    /// What they count together.
    pub others_total: usize,
}

impl Digest {
    /// The digest of `deliveries`; `None` of none.
    pub fn of<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Option<Self> {
        let all: Vec<&Delivery> = deliveries.into_iter().collect();
        let first = all.first()?;
        let span = (first.decision.time, first.decision.time);
        let worst = all.iter().map(|delivery| Arc::clone(&delivery.decision)).take(NAMED_MAX).collect();
        let (agents, tools, reasons) = Default::default();
        Some(Self { total: all.len(), kinds: Vec::new(), agents, tools, reasons, span, worst })
    }
}
