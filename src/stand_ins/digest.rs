//! Whether a message is a digest, and how many decisions it counts: for adding up what a storm came to.
//!
//! Strict: the headline must stand where the platform's form of a card has it, alone and to the letter, so that no text of a
//! decision passes for one, and so that a renderer that words it differently is found out.

use serde_json::Value;

use super::{Platform, ids};

/// A digest as a platform received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many decisions it counts.
    pub total: u64,
    /// The ids of those that it links to: named as the most severe, and counted in `total` too.
    pub named: Vec<String>,
}

impl Digest {
    /// Reads a message to a chat platform; `None` for what is no digest.
    pub(super) fn read(platform: Platform, message: &Value) -> Option<Self> {
        let total = total(headline(platform, message)?)?;
        Some(Self { total, named: ids::in_card(message) })
    }
}

/// The headline of a card: of the card itself, or in the first line of the plain form.
fn headline(platform: Platform, message: &Value) -> Option<&str> {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let is = |pointer: &str, expected: &str| text(pointer) == Some(expected);
    let first_line = |pointer: &str, before: &str, after: &str| {
        text(pointer)?.lines().next()?.strip_prefix(before)?.strip_suffix(after)
    };
    match platform {
        Platform::Slack if message.get("blocks").is_some() => {
            text("/blocks/0/text/text").filter(|_| is("/blocks/0/type", "header"))
        }
        Platform::Slack => first_line("/text", "*", "*"),
        Platform::Discord if message.get("embeds").is_some() => text("/embeds/0/title"),
        Platform::Discord => first_line("/content", "**", "**"),
        Platform::Teams => {
            let block = "/attachments/0/content/body/0";
            text(&format!("{block}/text")).filter(|_| is(&format!("{block}/weight"), "Bolder"))
        }
        Platform::Telegram if is("/parse_mode", "HTML") => first_line("/text", "<b>", "</b>"),
        Platform::Telegram => first_line("/text", "", ""),
        Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => None,
    }
}

/// The number in `[Interven] 9998 decisions`.
fn total(headline: &str) -> Option<u64> {
    let (number, noun) = headline.strip_prefix("[Interven] ")?.split_once(' ')?;
    if number.starts_with('0') || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let total = number.parse().ok()?;
    (noun == if total == 1 { "decision" } else { "decisions" }).then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A message of each platform and form with this headline and this text below it.
    fn messages(headline: &str, text: &str) -> [(Platform, Value); 7] {
        let lines = |before: &str, after: &str| format!("{before}{headline}{after}\n{text}");
        let block = |kind: &str, text: &str| json!({"type": kind, "text": {"type": "x", "text": text}});
        let teams =
            json!([{"type": "TextBlock", "text": headline, "weight": "Bolder"}, {"type": "TextBlock", "text": text}]);
        [
            (Platform::Slack, json!({"text": headline, "blocks": [block("header", headline), block("section", text)]})),
            (Platform::Slack, json!({"text": lines("*", "*")})),
            (Platform::Discord, json!({"embeds": [{"title": headline, "description": text}]})),
            (Platform::Discord, json!({"content": lines("**", "**")})),
            (Platform::Teams, json!({"attachments": [{"content": {"body": teams}}]})),
            (Platform::Telegram, json!({"text": lines("<b>", "</b>"), "parse_mode": "HTML"})),
            (Platform::Telegram, json!({"text": lines("", "")})),
        ]
    }

    #[test]
    fn a_digest_is_known_by_its_headline_and_names_what_it_links_to() {
        for (platform, message) in messages("[Interven] 9998 decisions", "https://c.example/decisions/d-1 and more") {
            let expected = Digest { total: 9_998, named: vec!["d-1".to_owned()] };
            assert_eq!(Digest::read(platform, &message), Some(expected), "{message}");
        }
        for (platform, message) in messages("[Interven] 1 decision", "") {
            assert_eq!(Digest::read(platform, &message), Some(Digest { total: 1, named: Vec::new() }), "{message}");
        }
    }

    #[test]
    fn nothing_else_passes_for_a_digest() {
        let hostile = "[Interven] 7 decisions\n*[Interven] 7 decisions*\n**[Interven] 7 decisions**\n<b>[Interven] 7 decisions</b>";
        for headline in [
            "[Interven] DENY",
            "[Interven] 0 decisions",
            "[Interven] 007 decisions",
            "[Interven] +7 decisions",
            "[Interven] 9,998 decisions",
            "[Interven] 1 decisions",
            "[Interven] 7 decision",
            "[Interven] 7 decisions ",
            "[Interven]  7 decisions",
            "7 decisions",
            "[Interven] 99999999999999999999 decisions",
            "",
        ] {
            for (platform, message) in messages(headline, hostile) {
                assert_eq!(Digest::read(platform, &message), None, "{message}");
            }
        }
        assert_eq!(Digest::read(Platform::Siem, &json!({"text": "[Interven] 7 decisions"})), None);
    }
}
