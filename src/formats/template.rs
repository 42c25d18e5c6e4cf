//! JSON in the operator's own shape: a document whose strings hold placeholders such as `{{agent.name}}`.
//!
//! The template is taken apart once, when the configuration is read, into fixed JSON and the places between. Rendering only
//! writes one after the other, and what is written into a place is JSON already, so the result is valid whatever a decision
//! holds: there is nothing that could be injected.
//!
//! * A string that is exactly one placeholder becomes the value with its type: `"{{risk}}"` becomes `0.71`, what is not there
//!   becomes `null`, and numbers keep every digit.
//! * Elsewhere in a string a placeholder becomes text: what is not there is empty, an object or a list is its JSON.
//! * A path names a field of the decision as the firewall wrote it, also one that we do not know; `reasons.0` is the first of a
//!   list. Five names are ours and come first: see [`Ours`].
//! * Keys hold no placeholders: two could come out the same.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde_json::{Value, value::RawValue};

use crate::model::{Decision, DeliveryId};

use super::json::{self, Compact};

/// The most placeholders in one template: each may write a whole decision, so this bounds the size of what comes out.
const PLACEHOLDERS_MAX: usize = 100;

/// A template that was read and checked. Its fixed text may hold what came from a variable, so it does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// JSON as it stands.
    Fixed(String),
    /// A whole value.
    Value(Source),
    /// Text inside of a string.
    Text(Source),
}

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Ours(Ours),
    Path(Vec<Box<str>>),
}

/// Names that are no field of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// `{{tool_name}}`: `tool.operation`, or just the tool.
    ToolName,
    /// `{{console_url}}`: the decision's page in the console.
    ConsoleUrl,
    /// `{{delivery_id}}`: the same on every try.
    DeliveryId,
    /// `{{time_ms}}`: the decision's time in milliseconds since 1970, a number.
    TimeMillis,
    /// `{{event}}`: the whole decision.
    Event,
}

/// What a template is filled from.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// The decision.
    pub decision: &'a Decision,
    /// Its page in the console.
    pub link: &'a str,
    /// The id of this delivery.
    pub delivery: DeliveryId,
}

/// Why a value is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not an object: SIEMs take objects only.
    #[error("the template is not an object")]
    NotAnObject,
    /// A string that should hold a JSON document does not.
    #[error("the template is not JSON: {0}")]
    NotJson(String),
    /// `{{` without `}}`.
    #[error("a placeholder is not closed in `{0}`")]
    Unclosed(String),
    /// Nothing, or an empty step, between `{{` and `}}`.
    #[error("a placeholder names nothing in `{0}`")]
    Unnamed(String),
    /// A placeholder in a key.
    #[error("the key `{0}` holds a placeholder")]
    InKey(String),
    /// More than [`PLACEHOLDERS_MAX`].
    #[error("the template has more than {PLACEHOLDERS_MAX} placeholders")]
    TooMany,
}

impl TemplateError {
    /// What the operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotAnObject | Self::NotJson(_) => {
                r#"write an object, such as {"id": "{{id}}", "who": "{{agent.name}}"}"#
            }
            Self::Unclosed(_) | Self::Unnamed(_) => {
                "write {{field}} or {{field.inner}} with the decision's field names"
            }
            Self::InKey(_) => "placeholders stand in values only",
            Self::TooMany => "use {{event}} for the whole decision",
        }
    }
}

impl Template {
    /// Reads a template: an object, or a string that holds one as JSON.
    pub fn parse(value: &Value) -> Result<Self, TemplateError> {
        let from_text: Value;
        let mut value = value;
        if let Value::String(text) = value {
            from_text = serde_json::from_str(text).map_err(|error| TemplateError::NotJson(error.to_string()))?;
            value = &from_text;
        }
        if !value.is_object() {
            return Err(TemplateError::NotAnObject);
        }
        let mut template = Self { parts: Vec::new() };
        template.read(value)?;
        if template.parts.iter().filter(|part| !matches!(part, Part::Fixed(_))).count() > PLACEHOLDERS_MAX {
            return Err(TemplateError::TooMany);
        }
        Ok(template)
    }

    /// Recursion is bounded: neither JSON nor TOML is read deeper than about a hundred levels.
    fn read(&mut self, value: &Value) -> Result<(), TemplateError> {
        match value {
            Value::Object(map) => {
                for (index, (key, value)) in map.iter().enumerate() {
                    if key.contains("{{") {
                        return Err(TemplateError::InKey(key.clone()));
                    }
                    self.fixed(if index == 0 { "{" } else { "," });
                    self.fixed(&json::written(key));
                    self.fixed(":");
                    self.read(value)?;
                }
                self.fixed(if map.is_empty() { "{}" } else { "}" });
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    self.fixed(if index == 0 { "[" } else { "," });
                    self.read(value)?;
                }
                self.fixed(if list.is_empty() { "[]" } else { "]" });
            }
            Value::String(text) => self.read_text(text)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => self.fixed(&value.to_string()),
        }
        Ok(())
    }

    fn read_text(&mut self, text: &str) -> Result<(), TemplateError> {
        if let Some(inner) = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"))
            && !inner.contains("}}")
        {
            self.parts.push(Part::Value(Source::parse(inner, text)?));
            return Ok(());
        }
        let mut rest = text;
        self.fixed("\"");
        while let Some((before, after)) = rest.split_once("{{") {
            let (inner, after) = after.split_once("}}").ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
            self.fixed(unquoted(&json::written(before)));
            self.parts.push(Part::Text(Source::parse(inner, text)?));
            rest = after;
        }
        self.fixed(unquoted(&json::written(rest)));
        self.fixed("\"");
        Ok(())
    }

    fn fixed(&mut self, json: &str) {
        match self.parts.last_mut() {
            Some(Part::Fixed(text)) => text.push_str(json),
            _ => self.parts.push(Part::Fixed(json.to_owned())),
        }
    }

    /// The document filled in: one JSON object on one line.
    pub fn render(&self, filling: &Filling<'_>) -> String {
        let compact = Compact::of(filling.decision);
        let fields = json::fields(compact.as_str()).unwrap_or_default();
        let mut out = String::with_capacity(512);
        for part in &self.parts {
            match part {
                Part::Fixed(json) => out.push_str(json),
                Part::Value(source) => source.with(filling, &compact, &fields, |json| out.push_str(json)),
                Part::Text(source) => source.with(filling, &compact, &fields, |json| push_text(&mut out, json)),
            }
        }
        out
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} parts)", self.parts.len())
    }
}

/// Writes a JSON value as the inside of a JSON string. A string is that already, escapes and all.
fn push_text(out: &mut String, json: &str) {
    match json.as_bytes().first() {
        Some(b'"') => out.push_str(unquoted(json)),
        Some(b'{' | b'[') => out.push_str(unquoted(&json::written(json))),
        _ if json == "null" => {}
        _ => out.push_str(json),
    }
}

/// A JSON string without its quotes.
fn unquoted(json: &str) -> &str {
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default()
}

impl Source {
    fn parse(name: &str, whole: &str) -> Result<Self, TemplateError> {
        let name = name.trim();
        let ours = match name {
            "tool_name" => Some(Ours::ToolName),
            "console_url" => Some(Ours::ConsoleUrl),
            "delivery_id" => Some(Ours::DeliveryId),
            "time_ms" => Some(Ours::TimeMillis),
            "event" => Some(Ours::Event),
            _ => None,
        };
        if let Some(ours) = ours {
            return Ok(Self::Ours(ours));
        }
        let steps: Vec<Box<str>> = name.split('.').map(Into::into).collect();
        let unnamed = steps.iter().any(|step| step.is_empty() || step.contains('{'));
        if unnamed { Err(TemplateError::Unnamed(whole.to_owned())) } else { Ok(Self::Path(steps)) }
    }

    /// Hands the value, as compact JSON, to `write`; `null` where there is none.
    fn with(
        &self,
        filling: &Filling<'_>,
        compact: &Compact,
        fields: &BTreeMap<String, &RawValue>,
        write: impl FnOnce(&str),
    ) {
        match self {
            Self::Ours(Ours::ToolName) => write(&json::written(filling.decision.tool_name())),
            Self::Ours(Ours::ConsoleUrl) => write(&json::written(filling.link)),
            Self::Ours(Ours::TimeMillis) => write(&filling.decision.time.unix_millis().to_string()),
            Self::Ours(Ours::Event) => write(compact.as_str()),
            Self::Ours(Ours::DeliveryId) => {
                let mut quoted = String::with_capacity(38);
                write!(quoted, "\"{}\"", filling.delivery).expect("writing to a String never fails");
                write(&quoted);
            }
            Self::Path(steps) => write(find(fields, steps).map_or("null", RawValue::get)),
        }
    }
}

/// The value at the end of a path.
fn find<'a>(fields: &BTreeMap<String, &'a RawValue>, steps: &[Box<str>]) -> Option<&'a RawValue> {
    let (first, rest) = steps.split_first()?;
    let mut value = *fields.get(&**first)?;
    for step in rest {
        value = if value.get().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            list.get(step.parse::<usize>().ok()?).copied()?
        } else {
            json::fields(value.get())?.get(&**step).copied()?
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::formats::hostile;

    fn render(template: &Value, decision: &Decision) -> String {
        let delivery = DeliveryId::of(&decision.id, &"soc".parse().unwrap());
        Template::parse(template).unwrap().render(&Filling { decision, link: hostile::LINK, delivery })
    }

    #[test]
    fn a_lone_placeholder_keeps_its_type_and_others_become_text() {
        let template = json!({
            "id": "{{id}}", "risk": "{{risk}}", "who": "{{ agent.name }} ({{agent.id}})", "why": "{{reasons}}",
            "first": "{{reasons.0}}", "second": "{{reasons.1}}", "policy": "{{policy.rev}}", "at": "{{time_ms}}",
            "text": "risk {{risk}}, no {{nothing.here}}, {{policy}}", "fixed": [1, true, null, "a\"b", {}, []],
            "tool": "{{tool_name}}",
        });
        let text = render(&template, &hostile::decode(hostile::EXAMPLE));
        insta::assert_snapshot!(text, @r#"{"at":1780315200123,"first":"SECRET_DETECTED","fixed":[1,true,null,"a\"b",{},[]],"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","policy":12345678901234567890123,"risk":0.71,"second":null,"text":"risk 0.71, no , {\"id\":\"p-1\",\"rev\":12345678901234567890123}","tool":"slack.post_message","who":"production-langgraph (agt_42)","why":["SECRET_DETECTED"]}"#);
    }

    #[test]
    fn a_template_may_be_a_string_that_holds_json() {
        let decision = hostile::decode(hostile::EXAMPLE);
        assert_eq!(render(&json!(r#"{"e": "{{event}}"}"#), &decision), format!(r#"{{"e":{}}}"#, hostile::EXAMPLE));
        let text = render(&json!({"d": "{{delivery_id}}", "u": "{{console_url}}"}), &decision);
        assert!(text.starts_with(r#"{"d":""#) && text.contains(hostile::LINK), "{text}");
    }

    #[test]
    fn what_is_no_template_says_why() {
        let cases = [
            (json!([1]), "not an object"),
            (json!("{"), "not JSON"),
            (json!("[]"), "not an object"),
            (json!({"a": "x {{id"}), "not closed"),
            (json!({"a": "{{}}"}), "names nothing"),
            (json!({"a": "{{agent..id}}"}), "names nothing"),
            (json!({"{{id}}": 1}), "holds a placeholder"),
            (json!({"a": vec!["{{id}}"; 101]}), "more than 100"),
        ];
        for (value, expected) in cases {
            let error = Template::parse(&value).unwrap_err();
            assert!(error.to_string().contains(expected) && !error.hint().is_empty(), "{value}: {error}");
        }
    }

    #[test]
    fn a_template_in_a_decision_is_only_text() {
        let decision = hostile::example(&json!({"title": "{{agent.id}}\",\"x\":\"y"}));
        let value: Value = serde_json::from_str(&render(&json!({"t": "<{{title}}>"}), &decision)).unwrap();
        assert_eq!(value, json!({"t": "<{{agent.id}}\",\"x\":\"y>"}));
    }

    proptest! {
        #[test]
        fn any_decision_fills_a_template_with_valid_json(decision in hostile::decision()) {
            let template = json!({
                "a": "{{agent.id}}", "b": "x{{title}}y{{tool_name}}", "c": ["{{reasons}}", "{{reasons}} {{event}}"],
                "d": "{{agent.extra}}", "e": "{{risk}}|{{src}}|{{approval.id}}|{{missing}}",
            });
            let value: Value = serde_json::from_str(&render(&template, &decision)).unwrap();
            prop_assert_eq!(&value["a"], &Value::from(&*decision.agent.id));
            let title = decision.title.as_deref().unwrap_or_default();
            prop_assert_eq!(value["b"].as_str(), Some(&*format!("x{title}y{}", decision.tool_name())));
            prop_assert_eq!(value.as_object().unwrap().len(), 5);
            let event = value["c"][1].as_str().unwrap();
            prop_assert!(event.ends_with(Compact::of(&decision).as_str()));
        }
    }
}
