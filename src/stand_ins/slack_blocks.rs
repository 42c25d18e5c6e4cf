//! Slack's Block Kit: what is wrong with a list of blocks, in Slack's own words and with its pointers.

use serde_json::Value;

/// The most characters in all blocks of a message. Undocumented; `msg_blocks_too_long` was seen from about 13,172 on.
/// Source: slackapi/bolt-js#2509.
pub(super) const MESSAGE_CHARS_MAX: usize = 13_000;

/// The most blocks of a message. Source: Slack API reference, Block Kit.
const BLOCKS_MAX: usize = 50;

/// Everything that is wrong; empty when nothing is.
pub(super) fn faults(blocks: &Value) -> Vec<String> {
    let mut check = Check { faults: Vec::new() };
    match blocks.as_array() {
        None => check.fault("must be an array", "/blocks"),
        Some(list) => {
            if list.len() > BLOCKS_MAX {
                check.fault("no more than 50 items allowed", "/blocks");
            }
            let mut seen = Vec::new();
            for (index, block) in list.iter().enumerate() {
                let at = format!("/blocks/{index}");
                check.block(block, &at);
                if let Some(id) = block.get("block_id").and_then(Value::as_str) {
                    if seen.contains(&id) {
                        check.fault(&format!("`block_id` \"{id}\" already exists"), &at);
                    }
                    seen.push(id);
                }
            }
        }
    }
    check.faults
}

/// The characters of every text that people see.
pub(super) fn characters(blocks: &Value) -> usize {
    match blocks {
        Value::Array(list) => list.iter().map(characters).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) if key == "text" => text.chars().count(),
                Value::Array(_) | Value::Object(_) => characters(value),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            })
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

struct Check {
    faults: Vec<String>,
}

impl Check {
    fn fault(&mut self, what: &str, at: &str) {
        self.faults.push(format!("[ERROR] {what} [json-pointer:{at}]"));
    }

    fn keys(&mut self, value: &Value, known: &[&str], at: &str) {
        for key in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if !known.contains(&key.as_str()) {
                self.fault(&format!("invalid additional property: {key}"), at);
            }
        }
    }

    /// A string of `min..=max` characters; absent is right unless it is required.
    fn string(&mut self, value: Option<&Value>, required: bool, min: usize, max: usize, at: &str) {
        match value {
            None if required => self.fault("missing required field", at),
            None => {}
            Some(Value::String(text)) => {
                let count = text.chars().count();
                if count > max {
                    self.fault(&format!("must be less than {} characters", max + 1), at);
                } else if count < min {
                    self.fault(&format!("must be more than {} characters", min - 1), at);
                }
            }
            Some(_) => self.fault("must be a string", at),
        }
    }

    /// A text object.
    fn text(&mut self, value: Option<&Value>, plain_only: bool, max: usize, at: &str) {
        let Some(object) = value.filter(|value| value.is_object()) else {
            return self.fault("missing required field", at);
        };
        match object.get("type").and_then(Value::as_str) {
            Some("plain_text") => self.keys(object, &["type", "text", "emoji"], at),
            Some("mrkdwn") if !plain_only => self.keys(object, &["type", "text", "verbatim"], at),
            Some(_) | None => self.fault("unsupported type", &format!("{at}/type")),
        }
        self.string(object.get("text"), true, 1, max, &format!("{at}/text"));
    }

    fn list<'a>(&mut self, value: Option<&'a Value>, max: usize, at: &str) -> &'a [Value] {
        match value.and_then(Value::as_array) {
            None => self.fault("must be an array", at),
            Some(list) if list.is_empty() => self.fault("no fewer than 1 items allowed", at),
            Some(list) if list.len() > max => self.fault(&format!("no more than {max} items allowed"), at),
            Some(list) => return list,
        }
        &[]
    }

    fn block(&mut self, block: &Value, at: &str) {
        self.string(block.get("block_id"), false, 1, 255, &format!("{at}/block_id"));
        match block.get("type").and_then(Value::as_str) {
            Some("section") => self.section(block, at),
            Some("header") => {
                self.keys(block, &["type", "block_id", "text"], at);
                self.text(block.get("text"), true, 150, &format!("{at}/text"));
            }
            Some("divider") => self.keys(block, &["type", "block_id"], at),
            Some("context") => {
                self.keys(block, &["type", "block_id", "elements"], at);
                let at = format!("{at}/elements");
                for (index, element) in self.list(block.get("elements"), 10, &at).iter().enumerate() {
                    if element.get("type").and_then(Value::as_str) != Some("image") {
                        self.text(Some(element), false, 3_000, &format!("{at}/{index}"));
                    }
                }
            }
            Some("actions") => {
                self.keys(block, &["type", "block_id", "elements"], at);
                let at = format!("{at}/elements");
                for (index, element) in self.list(block.get("elements"), 25, &at).iter().enumerate() {
                    self.button(element, &format!("{at}/{index}"));
                }
            }
            Some("markdown") => self.string(block.get("text"), true, 1, 12_000, &format!("{at}/text")),
            Some("image") => {
                self.url(block.get("image_url"), &format!("{at}/image_url"));
                self.string(block.get("alt_text"), true, 1, 2_000, &format!("{at}/alt_text"));
            }
            // Nested too freely to be checked here, and nobody of ours sends it.
            Some("rich_text") => {}
            Some(_) | None => self.fault("unsupported type", &format!("{at}/type")),
        }
    }

    fn section(&mut self, block: &Value, at: &str) {
        self.keys(block, &["type", "block_id", "text", "fields", "accessory", "expand"], at);
        let fields = block.get("fields");
        if block.get("text").is_some() || fields.is_none() {
            self.text(block.get("text"), false, 3_000, &format!("{at}/text"));
        }
        if fields.is_some() {
            let at = format!("{at}/fields");
            for (index, field) in self.list(fields, 10, &at).iter().enumerate() {
                self.text(Some(field), false, 2_000, &format!("{at}/{index}"));
            }
        }
        if let Some(accessory) = block.get("accessory") {
            self.button(accessory, &format!("{at}/accessory"));
        }
    }

    fn button(&mut self, button: &Value, at: &str) {
        if button.get("type").and_then(Value::as_str) != Some("button") {
            return self.fault("unsupported type", &format!("{at}/type"));
        }
        let known = ["type", "text", "action_id", "url", "value", "style", "confirm", "accessibility_label"];
        self.keys(button, &known, at);
        self.text(button.get("text"), true, 75, &format!("{at}/text"));
        self.string(button.get("action_id"), false, 1, 255, &format!("{at}/action_id"));
        self.string(button.get("value"), false, 1, 2_000, &format!("{at}/value"));
        self.string(button.get("accessibility_label"), false, 1, 75, &format!("{at}/accessibility_label"));
        if button.get("url").is_some() {
            self.url(button.get("url"), &format!("{at}/url"));
        }
        if let Some(style) = button.get("style")
            && style != "primary"
            && style != "danger"
        {
            self.fault("value must be one of: primary, danger", &format!("{at}/style"));
        }
        if let Some(confirm) = button.get("confirm") {
            let at = format!("{at}/confirm");
            self.keys(confirm, &["title", "text", "confirm", "deny", "style"], &at);
            self.text(confirm.get("title"), true, 100, &format!("{at}/title"));
            self.text(confirm.get("text"), false, 300, &format!("{at}/text"));
            for label in ["confirm", "deny"] {
                if confirm.get(label).is_some() {
                    self.text(confirm.get(label), true, 30, &format!("{at}/{label}"));
                }
            }
        }
    }

    fn url(&mut self, value: Option<&Value>, at: &str) {
        self.string(value, true, 1, 3_000, at);
        let text = value.and_then(Value::as_str).unwrap_or("");
        if !(text.starts_with("http://") || text.starts_with("https://")) {
            self.fault("must be a valid URL", at);
        }
    }
}
