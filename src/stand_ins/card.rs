//! A card as people would see it: the texts and buttons of a chat message, in order, whatever the platform.
//!
//! For the demo's terminal and for tests that ask what a card says. It reads structure and knows nothing of our renderers.

use serde_json::Value;

use super::{Platform, entities};

/// What a card shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Its texts, line by line, markup as it came (Telegram's HTML is resolved).
    pub lines: Vec<String>,
    /// The labels of its buttons and of its links that look like buttons.
    pub buttons: Vec<String>,
}

impl Card {
    /// Reads the card in a message to a chat platform; `None` for what is no such message.
    pub fn read(platform: Platform, body: &[u8]) -> Option<Self> {
        let message: Value = serde_json::from_slice(body).ok()?;
        let mut card = Self::default();
        match platform {
            Platform::Slack => card.slack(&message),
            Platform::Discord => card.discord(&message),
            Platform::Teams => {
                for attachment in items(&message, "attachments") {
                    card.adaptive(attachment.get("content")?);
                }
            }
            Platform::Telegram => card.telegram(&message),
            Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => return None,
        }
        Some(card)
    }

    /// What a digest counts in the row of this label (`decisions`, `agents`, `tools`, `reasons`), most first; what it counts
    /// together comes last, as `others`. For names without commas and markup, as tests choose them. `None` without such a row.
    pub fn counts(&self, label: &str) -> Option<Vec<(String, u64)>> {
        let row = self.lines.iter().find_map(|line| {
            let bare: String = line.chars().filter(|c| !matches!(c, '*' | '`' | '\\')).collect();
            bare.strip_prefix(label)?.strip_prefix(": ").map(str::to_owned)
        })?;
        if row == "none" {
            return Some(Vec::new());
        }
        let others = row.rsplit_once(" and ").and_then(|(named, rest)| {
            let (number, total) = rest.split_once(" others: ").or_else(|| rest.split_once(" other: "))?;
            number.parse::<u64>().ok()?;
            Some((named, total.parse().ok()?))
        });
        let named = others.map_or(&*row, |(named, _)| named).split(", ").map(|one| {
            let (name, count) = one.rsplit_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        named.chain(others.map(|(_, total)| Some(("others".to_owned(), total)))).collect()
    }

    fn say(&mut self, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str) {
            self.lines.extend(text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned));
        }
    }

    fn button(&mut self, label: Option<&Value>) {
        self.buttons.extend(label.and_then(Value::as_str).map(str::to_owned));
    }

    fn slack(&mut self, message: &Value) {
        let blocks = items(message, "blocks");
        if blocks.is_empty() {
            self.say(message.get("text"));
        }
        for block in blocks {
            match block.get("text") {
                Some(text @ Value::String(_)) => self.say(Some(text)),
                Some(text) => self.say(text.get("text")),
                None => {}
            }
            for field in items(block, "fields") {
                self.say(field.get("text"));
            }
            for element in items(block, "elements").iter().chain(block.get("accessory")) {
                if element.get("type").and_then(Value::as_str) == Some("button") {
                    self.button(element.pointer("/text/text"));
                } else {
                    self.say(element.get("text"));
                }
            }
        }
    }

    fn discord(&mut self, message: &Value) {
        self.say(message.get("content"));
        for embed in items(message, "embeds") {
            self.say(embed.pointer("/author/name"));
            self.say(embed.get("title"));
            self.say(embed.get("description"));
            for field in items(embed, "fields") {
                let part = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or("");
                self.lines.push(format!("{}: {}", part("name"), part("value")));
            }
            self.say(embed.pointer("/footer/text"));
        }
        for row in items(message, "components") {
            for component in items(row, "components") {
                self.button(component.get("label"));
            }
        }
    }

    fn adaptive(&mut self, card: &Value) {
        for element in items(card, "body").iter().chain(items(card, "items")) {
            self.say(element.get("text"));
            for fact in items(element, "facts") {
                let part = |key: &str| fact.get(key).and_then(Value::as_str).unwrap_or("");
                self.lines.push(format!("{}: {}", part("title").trim_end_matches(':'), part("value")));
            }
            for column in items(element, "columns") {
                self.adaptive(column);
            }
            self.adaptive(element);
        }
        for action in items(card, "actions") {
            self.button(action.get("title"));
        }
    }

    fn telegram(&mut self, message: &Value) {
        let text = message.get("text").and_then(Value::as_str).unwrap_or("");
        let html =
            message.get("parse_mode").and_then(Value::as_str).is_some_and(|mode| mode.eq_ignore_ascii_case("html"));
        let shown = if html { entities::parse_html(text).unwrap_or_else(|_| text.to_owned()) } else { text.to_owned() };
        self.say(Some(&Value::String(shown)));
        for row in message.pointer("/reply_markup/inline_keyboard").and_then(Value::as_array).into_iter().flatten() {
            for button in row.as_array().into_iter().flatten() {
                self.button(button.get("text"));
            }
        }
    }
}

/// The list at `key`; empty when there is none.
fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_card_is_read_from_every_chat_platform() {
        let slack = json!({"text": "fallback", "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": "one\ntwo"}},
            {"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Go"}}]}]});
        let discord = json!({"embeds": [{"title": "one", "description": "two"}],
            "components": [{"components": [{"label": "Go"}]}]});
        let teams = json!({"attachments": [{"content": {"body": [{"type": "TextBlock", "text": "one"},
            {"type": "Container", "items": [{"type": "TextBlock", "text": "two"}]}], "actions": [{"title": "Go"}]}}]});
        let telegram = json!({"text": "<b>one</b>\ntwo", "parse_mode": "HTML",
            "reply_markup": {"inline_keyboard": [[{"text": "Go", "url": "https://x.example"}]]}});
        let cases = [
            (Platform::Slack, slack),
            (Platform::Discord, discord),
            (Platform::Teams, teams),
            (Platform::Telegram, telegram),
        ];
        for (platform, message) in cases {
            let card = Card::read(platform, message.to_string().as_bytes()).unwrap();
            assert_eq!(
                (card.lines, card.buttons),
                (vec!["one".to_owned(), "two".to_owned()], vec!["Go".to_owned()]),
                "{platform:?}"
            );
        }
        assert_eq!(Card::read(Platform::Siem, b"{}"), None);
        assert_eq!(Card::read(Platform::Slack, b"no json"), None);
    }

    #[test]
    fn the_counts_of_a_digest_are_read_from_every_platforms_markup() {
        let card =
            |line: &str| Card { lines: vec!["[Interven] 9 decisions".to_owned(), line.to_owned()], ..Card::default() };
        let pair = |name: &str, count| (name.to_owned(), count);
        for line in [
            "*agents:* `web crawler` 5, `builder` 2 and 3 others: 4",
            "**agents:** `web crawler` 5, `builder` 2 and 3 others: 4",
            "agents: web crawler 5, builder 2 and 3 others: 4",
        ] {
            let expected = vec![pair("web crawler", 5), pair("builder", 2), pair("others", 4)];
            assert_eq!(card(line).counts("agents"), Some(expected), "{line}");
        }
        assert_eq!(card("tools: you and me 1 and 1 other: 1").counts("tools").unwrap()[0], pair("you and me", 1));
        assert_eq!(card("decisions: DENY 8, ALLOW 1").counts("decisions").unwrap().len(), 2);
        assert_eq!(card("reasons: none").counts("reasons"), Some(Vec::new()));
        for (line, label) in [("agents: crawler", "agents"), ("agents: a 1, b", "agents"), ("agents: a 1", "tools")] {
            assert_eq!(card(line).counts(label), None, "{line}");
        }
    }
}
