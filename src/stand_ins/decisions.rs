//! The firewall's stand-in: varied decisions as a busy company's agents cause them, some of them hostile.
//!
//! The same seed gives the same decisions, but for their times, which are the present's.

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::model::{Clock, DecisionKind, Severity};

/// Tools and what they are asked to do.
const CALLS: [(&str, &str); 14] = [
    ("slack", "post_message"),
    ("slack", "upload_file"),
    ("github", "create_pull_request"),
    ("github", "create_release"),
    ("github", "delete_branch"),
    ("postgres", "query"),
    ("postgres", "drop_table"),
    ("shell", "exec"),
    ("http", "request"),
    ("gmail", "send"),
    ("stripe", "create_refund"),
    ("kubernetes", "apply"),
    ("s3", "get_object"),
    ("jira", "create_issue"),
];

const AGENTS: [(&str, &str); 7] = [
    ("agt_42", "production-langgraph"),
    ("agt_7", "support-triage"),
    ("agt_19", "release-bot"),
    ("agt_23", "finance-reconciler"),
    ("agt_31", "sre-copilot"),
    ("agt_58", "sales-research"),
    ("agt_77", "data-pipeline"),
];

/// What speaks for a decision of each kind, with the title that goes with it.
const REASONS: [(DecisionKind, &[(&str, &str)]); 5] = [
    (
        DecisionKind::Allow,
        &[("POLICY_MATCH", "Call allowed by policy"), ("RECENT_APPROVAL_GRANT", "Allowed by a recent approval")],
    ),
    (
        DecisionKind::Deny,
        &[
            ("SECRET_DETECTED", "Secret egress blocked"),
            ("PROMPT_INJECTION", "Injected instruction refused"),
            ("TOOL_NOT_ALLOWED", "Tool outside the agent's scope"),
            ("DESTRUCTIVE_OPERATION", "Destructive statement blocked"),
        ],
    ),
    (DecisionKind::Sanitize, &[("PII_REDACTED", "Personal data removed"), ("URL_DEFANGED", "Unknown link removed")]),
    (
        DecisionKind::RequireApproval,
        &[
            ("PII_EGRESS", "Customer data leaves the company"),
            ("HIGH_VALUE_TRANSACTION", "Refund above the limit"),
            ("PRODUCTION_CHANGE", "Change to production"),
        ],
    ),
    (
        DecisionKind::Incident,
        &[("DATA_EXFILTRATION", "Repeated attempts to send secrets out"), ("AGENT_DRIFT", "Agent leaves its task")],
    ),
];

/// What agents write when somebody else holds the pen.
const HOSTILE: [&str; 12] = [
    "<!channel> <@U024BE7LH> urgent, click <https://evil.example|here>",
    "@everyone **free nitro** [console](https://evil.example)",
    "</b></pre><script>alert(1)</script> & <a href=\"tg://user?id=1\">x</a>",
    "```\n# heading\n> quote ||spoiler|| ~~gone~~ `code`",
    "invoice\u{202e}fdp.exe \u{2066}isolated\u{2069} zero\u{200b}width",
    "\u{1b}[2J\u{1b}[31mterminal\u{7} escape\u{0}",
    "CEF:0|a|b|c \\ pipe | equals = newline\nCEF:0|Forged|x|1|ALLOW|x|0|act=ALLOW",
    "=cmd|' /C calc'!A1",
    "{\"decision\":\"ALLOW\"} \"quoted\" \\\" backslash",
    "&lt;b&gt; &amp;amp; &#60;script&#62; %3Cscript%3E",
    "🔥👩‍👩‍👧‍👦 e\u{301} \u{1f3f4}\u{e0067}\u{e0062}\u{e007f} 漢字 العربية",
    "*_~`>#+-=|{}.!() [](){}",
];

/// The longest hostile title, in bytes. Source: contract 9, "the worst card still arrives".
const LONG_TITLE_BYTES: usize = 10_240;

/// The most reasons of a hostile decision. Source: contract 9.
const MANY_REASONS: usize = 500;

/// A stream of decisions.
#[derive(Clone, Debug)]
pub struct Firewall {
    dice: fastrand::Rng,
    clock: Clock,
    made: u32,
    hostile_every: u32,
}

impl Firewall {
    /// A firewall that decides as `seed` says, of whose decisions every twentieth holds hostile text.
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self { dice: fastrand::Rng::with_seed(seed), clock, made: 0, hostile_every: 20 }
    }

    /// The same firewall with hostile text in every `n`th decision; 0 for none.
    #[must_use]
    pub fn hostile_every(mut self, n: u32) -> Self {
        self.hostile_every = n;
        self
    }

    /// The next decision, of a kind and a severity as they come: most are harmless.
    pub fn decide(&mut self) -> Value {
        let kind = match self.dice.u32(0..100) {
            0..30 => DecisionKind::Allow,
            30..60 => DecisionKind::Deny,
            60..75 => DecisionKind::Sanitize,
            75..93 => DecisionKind::RequireApproval,
            _ => DecisionKind::Incident,
        };
        let throw = self.dice.u32(0..100);
        let severity = match kind {
            DecisionKind::Allow => Severity::Low,
            DecisionKind::Sanitize if throw < 60 => Severity::Low,
            DecisionKind::Sanitize => Severity::Medium,
            DecisionKind::Deny | DecisionKind::RequireApproval => match throw {
                0..20 => Severity::Low,
                20..50 => Severity::Medium,
                50..85 => Severity::High,
                _ => Severity::Critical,
            },
            DecisionKind::Incident if throw < 50 => Severity::High,
            DecisionKind::Incident => Severity::Critical,
        };
        self.decide_as(kind, severity)
    }

    /// The next decision as the message that the broker carries.
    pub fn message(&mut self) -> Bytes {
        self.decide().to_string().into()
    }

    /// The next decision, of this kind and severity.
    pub fn decide_as(&mut self, kind: DecisionKind, severity: Severity) -> Value {
        self.made += 1;
        let now = self.clock.now();
        let (tool, operation) = CALLS[self.dice.usize(..CALLS.len())];
        let (agent_id, agent_name) = AGENTS[self.dice.usize(..AGENTS.len())];
        let choices = REASONS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, choices)| *choices);
        let (reason, title) = choices[self.dice.usize(..choices.len())];
        let risk = match severity {
            Severity::Low => 0.05,
            Severity::Medium => 0.35,
            Severity::High => 0.65,
            Severity::Critical => 0.90,
        } + f64::from(self.dice.u32(0..10)) / 100.0;
        let id = uuid::Builder::from_random_bytes(self.dice.u128(..).to_be_bytes()).into_uuid();
        let mut decision = json!({
            "id": id, "time": now.to_rfc3339_millis(), "decision": kind, "severity": severity,
            "risk": (risk * 100.0).round() / 100.0, "title": title,
            "agent": {"id": agent_id, "name": agent_name}, "tool": tool, "operation": operation, "reasons": [reason],
            "src": if self.made.is_multiple_of(9) { "2001:db8::42".to_owned() } else { format!("10.0.0.{}", self.dice.u8(1..255)) },
            "tenant": "acme",
        });
        if kind == DecisionKind::RequireApproval {
            let expires_at = now.plus(std::time::Duration::from_mins(10));
            decision["approval"] = json!({"id": approval_id(&id), "expires_at": expires_at});
        }
        if self.hostile_every > 0 && self.made.is_multiple_of(self.hostile_every) {
            self.make_hostile(&mut decision);
        }
        decision
    }

    /// Puts hostile text into every field that the agent can influence. The ids stay: counting needs them.
    fn make_hostile(&mut self, decision: &mut Value) {
        let words = HOSTILE[self.dice.usize(..HOSTILE.len())];
        decision["title"] = words.into();
        decision["operation"] = words.into();
        decision["agent"]["name"] = words.into();
        decision["reasons"] = json!([words, "", "NORMAL_REASON"]);
        match self.dice.u8(0..4) {
            0 => decision["title"] = words.repeat(LONG_TITLE_BYTES / words.len() + 1).into(),
            1 => decision["reasons"] = json!(vec![words; MANY_REASONS]),
            _ => {}
        }
    }
}

fn approval_id(decision: &Uuid) -> String {
    format!("apr_{}", &decision.simple().to_string()[..12])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::{Decision, Timestamp};

    #[test]
    fn every_decision_is_valid_and_all_kinds_and_severities_come() {
        let mut firewall = Firewall::new(1, Clock::System).hostile_every(3);
        let mut seen = HashSet::new();
        let mut ids = HashSet::new();
        let mut longest = 0;
        for _ in 0..1_000 {
            let decision = Decision::decode(firewall.message()).unwrap();
            assert_eq!(decision.approval_asked().is_some(), decision.kind == DecisionKind::RequireApproval);
            longest = longest.max(decision.title.as_deref().map_or(0, str::len));
            seen.insert((decision.kind, decision.severity));
            assert!(ids.insert(decision.id));
        }
        for kind in DecisionKind::ALL {
            assert!(seen.iter().any(|(one, _)| *one == kind), "{kind}");
        }
        for severity in Severity::ALL {
            assert!(seen.iter().any(|(_, one)| *one == severity), "{severity}");
        }
        assert!(longest > LONG_TITLE_BYTES, "{longest}");
    }

    #[test]
    fn the_same_seed_gives_the_same_decisions() {
        // Bound to one clock that stands still, so that the times are the same as well.
        let still = || Clock::Virtual { from: Timestamp::UNIX_EPOCH, started: tokio::time::Instant::now() };
        let ids = |seed| -> Vec<Value> {
            let mut firewall = Firewall::new(seed, still());
            (0..50).map(|_| firewall.decide()["id"].take()).collect()
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }
}
