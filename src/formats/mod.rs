//! A decision as machines read it: CEF, OCSF, JSON, CSV, and the envelopes that Splunk and Datadog want around them.
//!
//! Everything here is a pure function from a [`Decision`] to text, so that a channel that pushes and an export that is pulled
//! say the same thing in the same words. All text in a decision is hostile: each format escapes by its own rules, and
//! [`clean`] takes out what no log line may hold (line breaks, control, bidirectional and invisible characters) wherever a
//! text is shown on one line.
//!
//! JSON formats carry the decision as the firewall published it: only white space between its tokens is dropped, so that no
//! number loses a digit and no unknown field is lost.
//!
//! Absent on purpose: sockets, batches and headers, which are the business of `channels::siem`.
//!
//! Start with [`cef`], then [`json`] and [`ocsf`].

pub mod cef;
pub mod clean;
pub mod csv;
pub mod datadog;
pub mod json;
pub mod ocsf;
pub mod splunk;
pub mod standard_webhooks;
pub mod template;

#[cfg(test)]
pub(crate) mod hostile;

use std::borrow::Cow;

use crate::model::{Decision, DecisionKind};

/// A decision that is already written in one of the formats, as an envelope carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A line of CEF.
    Cef(&'a str),
    /// An OCSF event, one JSON object.
    Ocsf(&'a str),
    /// The decision itself or what a template made of it, one JSON object.
    Json(&'a str),
}

/// The decision's title on one line of at most `chars_max` characters; without one, a stable text for what was decided, so
/// that a SIEM can group by it.
pub fn title(decision: &Decision, chars_max: usize) -> Cow<'_, str> {
    let given = clean::one_line(decision.title.as_deref().unwrap_or_default(), chars_max);
    if given.is_empty() { Cow::Borrowed(stable_title(decision.kind)) } else { given }
}

/// What is said of a decision without a title of its own.
const fn stable_title(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::Allow => "Agent tool call allowed",
        DecisionKind::Deny => "Agent tool call denied",
        DecisionKind::Sanitize => "Agent tool call sanitized",
        DecisionKind::RequireApproval => "Agent tool call requires approval",
        DecisionKind::Incident => "Agent security incident",
    }
}

/// One sentence for a list of log lines: `DENY slack.post_message for production-langgraph: Secret egress blocked`.
pub fn summary(decision: &Decision) -> String {
    let tool = clean::one_line(decision.tool_name(), 200);
    let agent = clean::one_line(decision.agent.label(), 200);
    format!("{} {tool} for {agent}: {}", decision.kind, title(decision, 512))
}
