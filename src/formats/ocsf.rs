//! A decision as an OCSF event: Detection Finding (class 2004), or Security Finding (2001) for those who still read it.
//!
//! The two classes differ in more than a number: 2001 has `finding` and `state_id` where 2004 has `finding_info` and
//! `status_id`, and `finding_info` is an attribute of 2001 in no version of the schema. Versions differ too: enums grow, and
//! `actor` was renamed inside. A receiver that validates drops what does not fit, so every rule that depends on the version
//! stands in [`Version`].
//!
//! Everything of the decision that OCSF has no attribute for is in `unmapped`, each field as the firewall wrote it.
//!
//! Source: ocsf/ocsf-schema at each tag; `reference/platforms.md` section 12. `ai_agent` is absent: no released version has it.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{Decision, DecisionKind, Severity};

use super::{
    clean::one_line,
    json::{self, Compact},
    summary, title,
};

/// The longest text that we put into an attribute, in characters. The schema allows more; tables in consoles do not.
const TEXT_CHARS_MAX: usize = 1_024;

/// A released version of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum Version {
    V1_1,
    V1_2,
    V1_3,
    V1_4,
    V1_5,
    V1_6,
    V1_7,
    V1_8,
}

impl Version {
    /// Every version that has both classes.
    pub const ALL: [Self; 8] =
        [Self::V1_1, Self::V1_2, Self::V1_3, Self::V1_4, Self::V1_5, Self::V1_6, Self::V1_7, Self::V1_8];

    /// As the schema writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_1 => "1.1.0",
            Self::V1_2 => "1.2.0",
            Self::V1_3 => "1.3.0",
            Self::V1_4 => "1.4.0",
            Self::V1_5 => "1.5.0",
            Self::V1_6 => "1.6.0",
            Self::V1_7 => "1.7.0",
            Self::V1_8 => "1.8.0",
        }
    }

    /// `action_id` and its caption. Before 1.4 there was neither Observed nor Modified.
    fn action(self, kind: DecisionKind) -> (u8, &'static str) {
        let rich = self >= Self::V1_4;
        match kind {
            DecisionKind::Allow => (1, "Allowed"),
            DecisionKind::Deny => (2, "Denied"),
            DecisionKind::Sanitize if rich => (4, "Modified"),
            DecisionKind::Sanitize => (99, "Modified"),
            DecisionKind::RequireApproval | DecisionKind::Incident if rich => (3, "Observed"),
            DecisionKind::RequireApproval | DecisionKind::Incident => (0, "Unknown"),
        }
    }
}

/// Which finding a decision becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2004, the one to use.
    DetectionFinding,
    /// 2001, deprecated since 1.1.0.
    SecurityFinding,
}

/// The shape of the events: a class in a version of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which finding.
    pub class: Class,
    /// Of which schema.
    pub version: Version,
}

impl Default for Shape {
    fn default() -> Self {
        Self { class: Class::DetectionFinding, version: Version::V1_5 }
    }
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    class: ClassPart<'a>,
    activity_id: u8,
    activity_name: &'static str,
    category_uid: u16,
    category_name: &'static str,
    time: i64,
    severity_id: u8,
    severity: &'static str,
    message: &'a str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_score: Option<u8>,
    risk_level_id: u8,
    risk_level: &'static str,
    resources: [Resource<'a>; 1],
    observables: Vec<Observable<'a>>,
    unmapped: BTreeMap<String, &'a RawValue>,
}

/// What only one of the two classes has.
#[derive(Serialize)]
#[serde(untagged)]
enum ClassPart<'a> {
    Detection {
        class_uid: u16,
        class_name: &'static str,
        type_uid: u32,
        type_name: &'static str,
        status_id: u8,
        status: &'static str,
        finding_info: Finding<'a>,
        action_id: u8,
        action: &'static str,
        disposition_id: u8,
        disposition: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        is_alert: Option<bool>,
        evidences: [Evidence<'a>; 1],
    },
    Security {
        class_uid: u16,
        class_name: &'static str,
        type_uid: u32,
        type_name: &'static str,
        state_id: u8,
        state: &'static str,
        finding: Finding<'a>,
    },
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_uid: Option<Cow<'a, str>>,
    event_code: &'static str,
    log_name: &'static str,
    original_time: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    profiles: &'static [&'static str],
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Finding<'a> {
    uid: &'a str,
    title: &'a str,
    desc: String,
    types: [&'static str; 1],
    created_time: i64,
    src_url: &'a str,
}

#[derive(Serialize)]
struct Resource<'a> {
    uid: &'a str,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Observable<'a> {
    name: &'static str,
    type_id: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    value: Cow<'a, str>,
}

#[derive(Serialize)]
struct Evidence<'a> {
    actor: Actor<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<Api<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<SourceEndpoint>,
}

/// Who acted. `app_name` and `app_uid` came with 1.3; before, `invoked_by` had to do.
#[derive(Serialize)]
#[serde(untagged)]
enum Actor<'a> {
    App { app_name: &'a str, app_uid: &'a str },
    InvokedBy { invoked_by: &'a str },
}

#[derive(Serialize)]
struct Api<'a> {
    operation: Cow<'a, str>,
    service: Service<'a>,
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct SourceEndpoint {
    ip: String,
}

/// The texts of a decision that stand in several places, cleaned once.
struct Texts<'a> {
    link: Cow<'a, str>,
    title: Cow<'a, str>,
    message: String,
    tool: Cow<'a, str>,
    operation: Option<Cow<'a, str>>,
    agent_id: Cow<'a, str>,
    agent: Cow<'a, str>,
    src: Option<String>,
}

impl Shape {
    /// The event of `decision`: one JSON object on one line. `link` is the decision's page in the console.
    pub fn event(self, decision: &Decision, link: &str) -> String {
        let texts = Texts {
            link: one_line(link, TEXT_CHARS_MAX),
            title: title(decision, 512),
            message: summary(decision),
            tool: one_line(decision.tool(), TEXT_CHARS_MAX),
            operation: decision.operation().map(|operation| one_line(operation, TEXT_CHARS_MAX)),
            agent_id: one_line(&decision.agent.id, TEXT_CHARS_MAX),
            agent: one_line(decision.agent.label(), TEXT_CHARS_MAX),
            src: decision.src.map(|src| src.to_canonical().to_string()),
        };
        let compact = Compact::of(decision);
        let (severity_id, severity) = severity(decision.severity);
        let (risk_level_id, risk_level) = risk_level(decision.severity);
        let event = Event {
            class: self.class_part(decision, &texts),
            activity_id: 1,
            activity_name: "Create",
            category_uid: 2,
            category_name: "Findings",
            time: decision.time.unix_millis(),
            severity_id,
            severity,
            message: &texts.message,
            metadata: self.metadata(decision),
            risk_score: decision.risk.map(percent),
            risk_level_id,
            risk_level,
            resources: [Resource { uid: &texts.agent_id, name: &texts.agent, kind: "AI Agent" }],
            observables: self.observables(&texts),
            unmapped: self.unmapped(json::fields(compact.as_str()).unwrap_or_default()),
        };
        json::written(&event)
    }

    fn class_part<'a>(self, decision: &'a Decision, texts: &'a Texts<'_>) -> ClassPart<'a> {
        let finding = Finding {
            uid: &decision.id,
            title: &texts.title,
            desc: description(decision),
            types: [decision.kind.as_str()],
            created_time: decision.time.unix_millis(),
            src_url: &texts.link,
        };
        match self.class {
            Class::DetectionFinding => {
                let (action_id, action) = self.version.action(decision.kind);
                let (disposition_id, disposition) = disposition(decision.kind);
                ClassPart::Detection {
                    class_uid: 2004,
                    class_name: "Detection Finding",
                    type_uid: 200_401,
                    type_name: "Detection Finding: Create",
                    status_id: 1,
                    status: "New",
                    finding_info: finding,
                    action_id,
                    action,
                    disposition_id,
                    disposition,
                    is_alert: (self.version >= Version::V1_5).then_some(decision.kind != DecisionKind::Allow),
                    evidences: [self.evidence(texts)],
                }
            }
            Class::SecurityFinding => ClassPart::Security {
                class_uid: 2001,
                class_name: "Security Finding",
                type_uid: 200_101,
                type_name: "Security Finding: Create",
                state_id: 1,
                state: "New",
                finding,
            },
        }
    }

    fn evidence<'a>(self, texts: &'a Texts<'_>) -> Evidence<'a> {
        Evidence {
            actor: if self.version >= Version::V1_3 {
                Actor::App { app_name: &texts.agent, app_uid: &texts.agent_id }
            } else {
                Actor::InvokedBy { invoked_by: &texts.agent }
            },
            // `api` without its required `operation` would not validate.
            api: texts
                .operation
                .as_deref()
                .map(|operation| Api { operation: Cow::Borrowed(operation), service: Service { name: &texts.tool } }),
            src_endpoint: texts.src.clone().map(|ip| SourceEndpoint { ip }),
        }
    }

    fn metadata(self, decision: &Decision) -> Metadata<'_> {
        Metadata {
            version: self.version.as_str(),
            product: Product { name: "Interven AIF", vendor_name: "Interven", version: env!("CARGO_PKG_VERSION") },
            uid: &decision.id,
            correlation_uid: decision.approval_asked().map(|approval| one_line(&approval.id, TEXT_CHARS_MAX)),
            event_code: decision.kind.as_str(),
            log_name: "decisions",
            original_time: decision.time.to_rfc3339_millis(),
            // `action_id` and `disposition_id` are attributes only where this profile is named.
            profiles: match self.class {
                Class::DetectionFinding => &["security_control"],
                Class::SecurityFinding => &[],
            },
        }
    }

    fn observables<'a>(self, texts: &'a Texts<'_>) -> Vec<Observable<'a>> {
        const OTHER: u8 = 99;
        let mut all =
            vec![Observable { name: "interven.tool", type_id: OTHER, kind: "Tool", value: (*texts.tool).into() }];
        if let Some(operation) = texts.operation.as_deref() {
            all.push(Observable {
                name: "interven.operation",
                type_id: OTHER,
                kind: "Operation",
                value: operation.into(),
            });
        }
        let agent_id = Cow::Borrowed(&*texts.agent_id);
        all.push(Observable { name: "resources.uid", type_id: 10, kind: "Resource UID", value: agent_id });
        if let Some(src) = texts.src.as_deref() {
            all.push(Observable { name: self.src_at(), type_id: 2, kind: "IP Address", value: src.into() });
        }
        all
    }

    /// Where the event has the source's address. Security Finding has no attribute for it.
    const fn src_at(self) -> &'static str {
        match self.class {
            Class::DetectionFinding => "evidences.src_endpoint.ip",
            Class::SecurityFinding => "unmapped.src",
        }
    }

    /// The decision's fields that no attribute carries whole.
    fn unmapped(self, mut fields: BTreeMap<String, &RawValue>) -> BTreeMap<String, &RawValue> {
        fields.retain(|key, _| match key.as_str() {
            "id" | "time" | "severity" | "title" | "tool" => false,
            // These two have their place in the evidence, which only one class has.
            "operation" | "src" => self.class == Class::SecurityFinding,
            _ => true,
        });
        fields
    }
}

fn description(decision: &Decision) -> String {
    let tool = one_line(decision.tool_name(), 200);
    if decision.reasons.is_empty() {
        return format!("{} of {tool}", decision.kind);
    }
    let reasons = decision.reasons.join(", ");
    format!("{} of {tool}: {}", decision.kind, one_line(&reasons, TEXT_CHARS_MAX))
}

const fn severity(severity: Severity) -> (u8, &'static str) {
    match severity {
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    }
}

const fn risk_level(severity: Severity) -> (u8, &'static str) {
    match severity {
        Severity::Low => (1, "Low"),
        Severity::Medium => (2, "Medium"),
        Severity::High => (3, "High"),
        Severity::Critical => (4, "Critical"),
    }
}

const fn disposition(kind: DecisionKind) -> (u8, &'static str) {
    match kind {
        DecisionKind::Allow => (1, "Allowed"),
        DecisionKind::Deny => (2, "Blocked"),
        DecisionKind::Sanitize => (11, "Corrected"),
        DecisionKind::RequireApproval => (14, "Delayed"),
        DecisionKind::Incident => (19, "Alert"),
    }
}

/// A risk of 0 to 1 as a whole number of 0 to 100: the schema's `risk_score` is an integer.
fn percent(risk: f64) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 first")]
    {
        (risk * 100.0).round().clamp(0.0, 100.0) as u8
    }
}

#[cfg(test)]
#[path = "ocsf_tests.rs"]
mod tests;
