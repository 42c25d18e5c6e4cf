//! What the worker itself says: notices about a channel in trouble, and canaries, its quiet test decisions.
//!
//! Both are decisions like any other, so that they travel, wait and are shown as decisions do. They are told apart by their whole
//! structure and not by a flag that anybody could set: whatever differs in kind, severity, agent, tool, operation or the form of its
//! id is an ordinary decision. A canary is an ALLOW of LOW severity, so nothing that matters can hide as one.
//!
//! Ids are made of what is told and of a number of the time slot, so that all workers of a pool that say the same say it with the
//! same delivery id, and it is told once.

use std::time::Duration;

use super::{ChannelId, Decision, DecisionKind, Severity, Timestamp};

/// The agent and the tool of all that the worker itself says.
pub const NAME: &str = "interven-alerts";

const CANARY: &str = "canary";
const NOTICE: &str = "notice";

/// What kind of a word of the worker's own a decision is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// People are told that a channel is in trouble.
    Notice,
    /// A test of this channel: nothing to do.
    Canary(ChannelId),
}

impl Own {
    /// What kind of a word of the worker's own `decision` is; `None` for what came from a firewall.
    pub fn of(decision: &Decision) -> Option<Self> {
        if &*decision.agent.id != NAME || decision.tool() != NAME {
            return None;
        }
        match (decision.kind, decision.severity, decision.operation()) {
            (DecisionKind::Allow, Severity::Low, Some(CANARY)) => {
                let (channel, slot) = decision.id.strip_prefix("canary-")?.rsplit_once('-')?;
                is_number(slot).then_some(())?;
                Some(Self::Canary(channel.parse().ok()?))
            }
            (DecisionKind::Incident, Severity::High, Some(NOTICE)) => {
                let (_, slot) = decision.id.strip_prefix("notice-")?.rsplit_once('-')?;
                is_number(slot).then_some(Self::Notice)
            }
            _ => None,
        }
    }
}

/// The number of the time slot that `now` is in, where slots are `length` long: the same in every worker.
pub fn slot(now: Timestamp, length: Duration) -> u64 {
    u64::try_from(now.unix_millis()).unwrap_or(0) / millis(length)
}

/// When a slot begins.
pub fn slot_start(slot: u64, length: Duration) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(slot.saturating_mul(millis(length))).unwrap_or(i64::MAX))
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The canary of `channel` in this time slot.
pub fn canary(channel: &ChannelId, slot: u64, now: Timestamp) -> Decision {
    decode(&serde_json::json!({
        "id": format!("canary-{channel}-{slot}"), "time": now,
        "decision": DecisionKind::Allow, "severity": Severity::Low,
        "title": format!("Test of channel {channel}: nothing to do"),
        "agent": {"id": NAME, "name": NAME}, "tool": NAME, "operation": CANARY,
    }))
}

/// A notice. `what` is what it is about, a few characters of a-z and `-`; `about` is the channel in trouble, where it is one's.
pub fn notice(
    what: &str,
    about: Option<&ChannelId>,
    slot: u64,
    now: Timestamp,
    title: &str,
    reasons: &[&str],
) -> Decision {
    // A channel id has 64 characters at most, so the id has fewer than the 128 that a decision's may have. Without a channel, two
    // dashes follow each other, which no channel's name can bring about.
    let about = about.map_or("", ChannelId::as_str);
    decode(&serde_json::json!({
        "id": format!("notice-{what}-{about}-{slot}"), "time": now,
        "decision": DecisionKind::Incident, "severity": Severity::High, "title": title, "reasons": reasons,
        "agent": {"id": NAME, "name": NAME}, "tool": NAME, "operation": NOTICE,
    }))
}

fn decode(json: &serde_json::Value) -> Decision {
    Decision::decode(json.to_string().into()).expect("it was just made of parts that are all in their range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(1_780_000_000_000)
    }

    #[test]
    fn the_worker_knows_its_own_words_again() {
        let channel: ChannelId = "soc-slack-2".parse().unwrap();
        assert_eq!(Own::of(&canary(&channel, 17, now())), Some(Own::Canary(channel.clone())));
        let longest: ChannelId = "x".repeat(64).parse().unwrap();
        for about in [None, Some(&channel), Some(&longest)] {
            let notice = notice("dead-letters", about, u64::MAX, now(), "12 dead letters", &["DEAD_LETTERS"]);
            assert_eq!(Own::of(&notice), Some(Own::Notice));
        }
    }

    #[test]
    fn whatever_differs_in_any_part_is_an_ordinary_decision() {
        // Goal: nothing that matters can hide as a canary.
        let channel: ChannelId = "soc".parse().unwrap();
        let canary: serde_json::Value = serde_json::from_slice(canary(&channel, 1, now()).raw()).unwrap();
        let edits = [
            ("/decision", "DENY"),
            ("/decision", "INCIDENT"),
            ("/severity", "MEDIUM"),
            ("/severity", "CRITICAL"),
            ("/agent/id", "agt_42"),
            ("/tool", "slack"),
            ("/operation", "post_message"),
            ("/operation", ""),
            ("/id", "soc-1"),
            ("/id", "canary-soc"),
            ("/id", "canary-soc-"),
            ("/id", "canary-soc-one"),
            ("/id", "canary-SOC-1"),
            ("/id", "canary--1"),
        ];
        for (part, value) in edits {
            let mut edited = canary.clone();
            *edited.pointer_mut(part).unwrap() = value.into();
            assert_eq!(Own::of(&decode(&edited)), None, "{part} = {value}");
        }
    }
}
