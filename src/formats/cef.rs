//! A decision as one line of CEF (ArcSight Common Event Format), which ArcSight, QRadar and most SIEMs read.
//!
//! The keys come in the order of the product page, `src act app externalId cs1Label cs1`, then the rest. Every value is made
//! one clean line, cut to its key's length, and only then escaped, so that no cut leaves half an escape and no text of a
//! decision can add a key or a second event.
//!
//! Two fields are shorter in CEF than with us: `app` (31) and `externalId` (40). A longer tool name or id is cut there, and
//! stands whole in `cs2` or `cs3`.
//!
//! Source of keys, lengths and escapes: CEF Implementation Standard; `reference/platforms.md` section 11. The custom strings
//! are kept to 1,023 characters, where two editions of the standard disagree (1,023 and 4,000).

use std::{fmt::Write as _, net::IpAddr};

use crate::model::{Decision, DecisionKind, Severity};

use super::{clean::one_line, title};

/// Vendor, product and version in every line. The version is that of the format, not of this program: SIEM rules match it.
const DEVICE: &str = "CEF:0|Interven|AIF|0.6";
/// The longest `name` in the header, in characters.
const NAME_CHARS_MAX: usize = 512;
/// The longest `app`, in characters.
const APP_CHARS_MAX: usize = 31;
/// The longest `externalId`, in characters.
const EXTERNAL_ID_CHARS_MAX: usize = 40;
/// The longest of most other values, in characters.
const TEXT_CHARS_MAX: usize = 1_023;

/// The line, without a line break. `page` is the decision's page in the console.
pub fn line(decision: &Decision, page: &str) -> String {
    let mut line = Line { text: String::with_capacity(640), extension_at: 0 };
    line.text.push_str(DEVICE);
    line.header(decision.kind.as_str());
    line.header(&title(decision, NAME_CHARS_MAX));
    line.header(severity(decision.severity));
    line.begin_extension();

    // An IPv4 address that is written as an IPv6 one is still IPv4.
    let src = decision.src.map(|src| src.to_canonical());
    if let Some(IpAddr::V4(src)) = src {
        line.pair("src", &src.to_string(), TEXT_CHARS_MAX);
    }
    line.pair("act", decision.kind.as_str(), 63);
    line.pair("app", decision.tool_name(), APP_CHARS_MAX);
    line.pair("externalId", &decision.id, EXTERNAL_ID_CHARS_MAX);
    line.labelled("cs1", "reasons", &decision.reasons.join(","));
    line.pair("rt", &decision.time.unix_millis().to_string(), TEXT_CHARS_MAX);
    line.pair("suser", decision.agent.label(), TEXT_CHARS_MAX);
    line.pair("suid", &decision.agent.id, TEXT_CHARS_MAX);
    if let Some(risk) = decision.risk {
        // Four digits: a float in full could be hundreds of them. `abs` because a negative zero is a risk of zero.
        line.labelled("cfp1", "risk", &((risk * 10_000.0).round() / 10_000.0).abs().to_string());
    }
    line.pair("cat", "/AI Agent/Decision", TEXT_CHARS_MAX);
    if let Some(outcome) = outcome(decision.kind) {
        line.pair("outcome", outcome, 63);
    }
    line.pair("request", page, TEXT_CHARS_MAX);
    if let Some(IpAddr::V6(src)) = src {
        line.labelled("c6a2", "Source IPv6 Address", &src.to_string());
    }
    if longer(decision.tool_name(), APP_CHARS_MAX) {
        line.labelled("cs2", "tool", decision.tool_name());
    }
    if longer(&decision.id, EXTERNAL_ID_CHARS_MAX) {
        line.labelled("cs3", "decisionId", &decision.id);
    }
    if let Some(approval) = decision.approval_asked() {
        line.labelled("cs4", "approvalId", &approval.id);
        if let Some(expires_at) = approval.expires_at {
            line.labelled("cs5", "approvalExpires", &expires_at.to_rfc3339_millis());
        }
    }
    line.text
}

/// The severity of 0 to 10 that the contract gives to each of ours.
const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "3",
        Severity::Medium => "5",
        Severity::High => "7",
        Severity::Critical => "10",
    }
}

/// How the call came out, where that is settled.
const fn outcome(kind: DecisionKind) -> Option<&'static str> {
    match kind {
        DecisionKind::Allow | DecisionKind::Sanitize => Some("success"),
        DecisionKind::Deny => Some("failure"),
        DecisionKind::RequireApproval | DecisionKind::Incident => None,
    }
}

/// Whether `text` would be cut at `chars_max`.
fn longer(text: &str, chars_max: usize) -> bool {
    one_line(text, usize::MAX).chars().count() > chars_max
}

/// A line that is being written.
struct Line {
    text: String,
    /// Where the extension begins. A value may end in `|`, so the text alone does not tell.
    extension_at: usize,
}

impl Line {
    /// A field of the header: `|` and `\` are escaped, `=` is not.
    fn header(&mut self, text: &str) {
        self.text.push('|');
        self.escaped(text, '|');
    }

    /// The end of the header.
    fn begin_extension(&mut self) {
        self.text.push('|');
        self.extension_at = self.text.len();
    }

    /// A pair of the extension, unless the value is empty: `=` and `\` are escaped, `|` is not.
    fn pair(&mut self, key: &str, value: &str, chars_max: usize) {
        let value = one_line(value, chars_max);
        if value.is_empty() {
            return;
        }
        if self.text.len() > self.extension_at {
            self.text.push(' ');
        }
        write!(self.text, "{key}=").expect("writing to a String never fails");
        self.escaped(&value, '=');
    }

    /// A custom field, which CEF wants with its label; without a value both are left out.
    fn labelled(&mut self, key: &str, label: &str, value: &str) {
        let value = one_line(value, TEXT_CHARS_MAX);
        if !value.is_empty() {
            self.pair(&format!("{key}Label"), label, TEXT_CHARS_MAX);
            self.pair(key, &value, TEXT_CHARS_MAX);
        }
    }

    fn escaped(&mut self, text: &str, special: char) {
        for c in text.chars() {
            if c == '\\' || c == special {
                self.text.push('\\');
            }
            self.text.push(c);
        }
    }
}

#[cfg(test)]
#[path = "cef_tests.rs"]
mod tests;
