//! Secrets of a channel as the API shows them, and takes them back.
//!
//! A URL is shown without its path (`https://hooks.slack.com/...wxyz`), everything else as `[secret]`; of several, as `[secret 1]`,
//! `[secret 2]`. Whoever sends a mask back where it was shown keeps the secret that it stands for.
//!
//! A secret is kept only while every URL of the channel stays as it is. Otherwise whoever may change channels could point one
//! at a host of his own and be sent a token that he may not see.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Complaint;
use crate::{model::Secret, settings::Hidden};

/// The keys that hold secrets, by their path.
pub(super) type HiddenKeys = BTreeMap<String, Hidden>;

const MASK: &str = "[secret]";

/// The channel as people may see it.
pub(super) fn masked(channel: &Map<String, Value>, hidden: &HiddenKeys) -> Map<String, Value> {
    let mut shown = channel.clone();
    for (path, how) in hidden {
        if let Some(value) = at_mut(&mut shown, path) {
            *value = mask(value, *how);
        }
    }
    shown
}

fn mask(value: &Value, how: Hidden) -> Value {
    match value {
        Value::String(text) if how == Hidden::Url => Secret::new(text.as_str()).masked_url().into(),
        Value::Array(items) if items.len() > 1 => {
            (1..=items.len()).map(|number| Value::from(format!("[secret {number}]"))).collect()
        }
        Value::Array(items) => items.iter().map(|_| Value::from(MASK)).collect(),
        Value::Object(table) => table.keys().map(|key| (key.clone(), Value::from(MASK))).collect::<Map<_, _>>().into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => MASK.into(),
    }
}

/// Puts the secrets of `present` where `new` has their masks. The keys that may not be kept are complained about.
pub(super) fn restore(
    new: &mut Map<String, Value>,
    present: &Map<String, Value>,
    hidden: &HiddenKeys,
) -> Vec<Complaint> {
    let mut kept = Vec::new();
    for (path, how) in hidden {
        let before = at(present, path);
        let Some(value) = at_mut(new, path) else { continue };
        let restored = restored(value, before, *how);
        if restored && *how == Hidden::Whole {
            kept.push(path);
        }
    }
    let moved = hidden.iter().any(|(path, how)| *how == Hidden::Url && at(new, path) != at(present, path));
    let complain = |path: &&String| {
        let problem = "is to be kept, but the channel would post to another URL".to_owned();
        let hint = "give the secret itself once more: it may be sent only where somebody who knows it wants it sent";
        Complaint::new(path, problem, hint)
    };
    if moved { kept.iter().map(complain).collect() } else { Vec::new() }
}

/// Replaces the masks in `value` by what stood there `before`; whether there was any.
fn restored(value: &mut Value, before: Option<&Value>, how: Hidden) -> bool {
    let Some(before) = before else { return false };
    match value {
        Value::String(text) => {
            let secret = match (how, before) {
                (Hidden::Url, Value::String(url)) => (Secret::new(url.as_str()).masked_url() == *text).then_some(url),
                (Hidden::Url, _) => None,
                (Hidden::Whole, before) => by_number(text, before),
            };
            let Some(secret) = secret else { return false };
            *text = secret.clone();
            true
        }
        // Every one of them, also after the first one that is restored.
        Value::Array(items) => {
            items.iter_mut().map(|item| restored(item, Some(before), how)).filter(|restored| *restored).count() > 0
        }
        Value::Object(table) => {
            let each = table.iter_mut().map(|(key, value)| restored(value, before.get(key), how));
            each.filter(|restored| *restored).count() > 0
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The secret among those `before` that a mask names.
fn by_number<'v>(mask: &str, before: &'v Value) -> Option<&'v String> {
    let all: Vec<&String> = match before {
        Value::String(secret) => vec![secret],
        Value::Array(secrets) => {
            let texts = secrets.iter().filter_map(|secret| match secret {
                Value::String(text) => Some(text),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
            });
            texts.collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    match number(mask)? {
        0 if all.len() == 1 => all.first().copied(),
        0 => None,
        number => all.get(number - 1).copied(),
    }
}

/// The number in a mask, 0 in one that has none; `None` where the text is no mask.
fn number(text: &str) -> Option<usize> {
    if text == MASK {
        return Some(0);
    }
    let digits = text.strip_prefix("[secret ")?.strip_suffix(']')?;
    digits.parse().ok().filter(|number| *number > 0)
}

/// The masks that stand in `channel` still: nothing is there that they could stand for.
pub(super) fn left_over(channel: &Map<String, Value>, hidden: &HiddenKeys) -> Vec<Complaint> {
    let is_left = |path: &str, how: Hidden| at(channel, path).is_some_and(|value| holds_mask(value, how));
    let left = hidden.iter().filter(|(path, how)| is_left(path, **how));
    let complain = |(path, _): (&String, &Hidden)| {
        let problem = "is a mask, and there is no secret here that it could stand for".to_owned();
        Complaint::new(path, problem, "give the secret itself; `GET` shows which masks the channel has at present")
    };
    left.map(complain).collect()
}

fn holds_mask(value: &Value, how: Hidden) -> bool {
    match value {
        Value::String(text) if how == Hidden::Url => {
            number(text).is_some() || url::Url::parse(text).is_ok_and(|url| url.path().starts_with("/..."))
        }
        Value::String(text) => number(text).is_some(),
        Value::Array(items) => items.iter().any(|item| holds_mask(item, how)),
        Value::Object(table) => table.values().any(|value| holds_mask(value, how)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The value at a path of keys.
fn at<'v>(table: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => at(table.get(first)?.as_object()?, rest),
    }
}

fn at_mut<'v>(table: &'v mut Map<String, Value>, path: &str) -> Option<&'v mut Value> {
    match path.split_once('.') {
        None => table.get_mut(path),
        Some((first, rest)) => at_mut(table.get_mut(first)?.as_object_mut()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hidden() -> HiddenKeys {
        [("url", Hidden::Url), ("api_url", Hidden::Url), ("keys", Hidden::Whole), ("headers", Hidden::Whole)]
            .map(|(key, how)| (key.to_owned(), how))
            .into()
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn present() -> Map<String, Value> {
        object(&json!({
            "kind": "siem", "url": "https://siem.example/in/abcdefghijklmnop", "keys": ["first", "second"],
            "headers": {"Authorization": "Bearer hush", "X-Other": "quiet"}, "batch": {"events": 3},
        }))
    }

    #[test]
    fn what_is_shown_holds_no_secret_and_sent_back_it_is_the_same_channel() {
        let shown = masked(&present(), &hidden());
        let expected = json!({
            "kind": "siem", "url": "https://siem.example/...mnop", "keys": ["[secret 1]", "[secret 2]"],
            "headers": {"Authorization": "[secret]", "X-Other": "[secret]"}, "batch": {"events": 3},
        });
        assert_eq!(Value::from(shown.clone()), expected);
        let mut back = shown;
        assert_eq!(restore(&mut back, &present(), &hidden()), []);
        assert_eq!(back, present());
        assert_eq!(left_over(&back, &hidden()), []);
    }

    #[test]
    fn secrets_are_kept_one_by_one_beside_new_ones() {
        let mut new = masked(&present(), &hidden());
        new.insert("keys".into(), json!(["third", "[secret 2]"]));
        new.insert("headers".into(), json!({"X-Other": "[secret]", "X-New": "new"}));
        assert_eq!(restore(&mut new, &present(), &hidden()), []);
        assert_eq!(
            (&new["keys"], &new["headers"]),
            (&json!(["third", "second"]), &json!({"X-Other": "quiet", "X-New": "new"}))
        );
        let one = object(&json!({"keys": "only"}));
        for (sent, kept) in [(json!(["new", "[secret]"]), json!(["new", "only"])), (json!("[secret 1]"), json!("only"))]
        {
            let mut new = object(&json!({ "keys": sent }));
            assert_eq!(restore(&mut new, &one, &hidden()), []);
            assert_eq!(new["keys"], kept);
        }
    }

    #[test]
    fn a_secret_is_not_sent_to_where_nobody_who_knows_it_wanted_it_sent() {
        for (key, url) in [
            ("url", json!("https://mine.example/in/abcdefghijklmnop")),
            ("url", json!("https://siem.example/in/other-tenant")),
            ("api_url", json!("https://mine.example")),
        ] {
            let mut new = masked(&present(), &hidden());
            new.insert(key.into(), url);
            let complaints = restore(&mut new, &present(), &hidden());
            let keys: Vec<&str> = complaints.iter().map(|complaint| complaint.key.as_str()).collect();
            assert_eq!(keys, ["headers", "keys"]);
        }
        let mut new = object(&json!({"url": "https://mine.example/", "keys": ["known"]}));
        assert_eq!(restore(&mut new, &present(), &hidden()), [], "nothing is kept");
    }

    #[test]
    fn a_mask_that_stands_for_nothing_is_never_taken_for_a_secret() {
        for (key, value) in [
            ("url", json!("https://siem.example/...aaaa")),
            ("url", json!("[secret]")),
            ("keys", json!("[secret]")),
            ("keys", json!(["[secret 3]"])),
            ("headers", json!({"X-Unknown": "[secret]"})),
        ] {
            let mut new = object(&json!({ key: value }));
            restore(&mut new, &present(), &hidden());
            assert_eq!(left_over(&new, &hidden()).len(), 1, "{key}: {new:?}");
        }
    }
}
