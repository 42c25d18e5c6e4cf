//! Which decisions a message tells: for counting what arrived.
//!
//! Cards hold the id in the link to the console, `.../decisions/<id>`; SIEM records hold it as `finding_info.uid` (OCSF),
//! `externalId` (CEF) or `id` (the decision's own JSON).

use serde_json::Value;

const LINK: &str = "/decisions/";

/// The decisions that a card links to, each once: a card may hold its link in a button and in its text.
pub(super) fn in_card(card: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    strings(card, &mut |text| {
        for (at, _) in text.match_indices(LINK) {
            let rest = &text[at + LINK.len()..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.~%".contains(c))).unwrap_or(rest.len());
            let id = percent_decoded(&rest[..end]);
            if !id.is_empty() && !ids.contains(&id) {
                ids.push(id);
            }
        }
    });
    ids
}

/// The decision of one SIEM record.
pub(super) fn in_record(record: &Value) -> Option<String> {
    if let Value::String(text) = record {
        return in_text(text);
    }
    // Breadth first: a decision's own `id` stands above its agent's.
    let mut level: Vec<&Value> = vec![record];
    let mut nameless = None;
    while !level.is_empty() {
        for value in &level {
            if let Some(id) =
                value.pointer("/finding_info/uid").or_else(|| value.get("externalId")).and_then(Value::as_str)
            {
                return Some(id.to_owned());
            }
            if let Some(id) = value.get("id").and_then(Value::as_str) {
                if value.get("decision").is_some() {
                    return Some(id.to_owned());
                }
                nameless = nameless.or(Some(id));
            }
            if let Some(id) = ["event", "message", "msg"].iter().find_map(|key| in_text(value.get(key)?.as_str()?)) {
                return Some(id);
            }
        }
        level = level.into_iter().flat_map(children).collect();
    }
    nameless.map(str::to_owned)
}

/// The decision of one SIEM record that is text: CEF, or JSON in a string.
pub(super) fn in_text(text: &str) -> Option<String> {
    let text = text.trim();
    // First, because a hostile title in a JSON record may look like CEF.
    if text.starts_with('{') {
        return in_record(&serde_json::from_str(text).ok()?);
    }
    let cef = &text[text.find("CEF:")?..];
    let (_, rest) = cef.split_once(" externalId=").or_else(|| cef.split_once("|externalId="))?;
    Some(cef_value(rest))
}

/// A value of a CEF extension, from its beginning: it ends before the next ` key=`.
fn cef_value(rest: &str) -> String {
    let mut value = String::new();
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some(escaped) => value.push(escaped),
                None => break,
            },
            '=' => {
                // An unescaped `=` belongs to the next key, which must be cut off again.
                value.truncate(value.rfind(' ').unwrap_or(0));
                break;
            }
            other => value.push(other),
        }
    }
    value.trim_end().to_owned()
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Calls `see` with every string in `value`, in order.
fn strings(value: &Value, see: &mut impl FnMut(&str)) {
    if let Value::String(text) = value {
        see(text);
    }
    for child in children(value) {
        strings(child, see);
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_tells_the_decisions_it_links_to_each_once() {
        let card = json!({"text": "see https://c.example/decisions/a%2Fb%20c and (https://c.example/decisions/d-2)",
            "blocks": [{"elements": [{"url": "https://c.example/decisions/a%2Fb%20c"}]}]});
        let mut ids = in_card(&card);
        ids.sort();
        assert_eq!(ids, ["a/b c", "d-2"]);
        assert!(in_card(&json!({"text": "https://c.example/decisions/"})).is_empty());
    }

    #[test]
    fn a_record_tells_its_decision_in_every_format() {
        let decision = json!({"agent": {"id": "agt"}, "decision": "DENY", "id": "d-1"});
        let cases = [
            decision.clone(),
            json!({"metadata": {"uid": "x"}, "finding_info": {"uid": "d-1"}}),
            json!("CEF:0|Interven|AIF|0.6|DENY|t|7|act=DENY externalId=d-1 cs1Label=reasons cs1=X"),
            json!("CEF:0|Interven|AIF|0.6|DENY|t|7|externalId=d-1"),
            json!({"event": decision, "sourcetype": "_json"}),
            json!({"event": "CEF:0|Interven|AIF|0.6|DENY|t|7|act=DENY externalId=d-1"}),
            json!({"ddsource": "interven", "message": decision.to_string()}),
            json!({"agent": {"id": "agt"}, "interven": decision}),
            json!({"id": "d-1", "custom": true}),
        ];
        for record in cases {
            assert_eq!(in_record(&record).as_deref(), Some("d-1"), "{record}");
        }
        assert_eq!(in_text(r"CEF:0|a|b|c|d|e|7|externalId=a\=b\\ c act=DENY").as_deref(), Some(r"a=b\ c"));
        assert_eq!(in_record(&json!({"title": "no id"})), None);
    }
}
