//! A channel as JSON -> the same as TOML text, so that it is read by the code that reads the operator's file.
//!
//! Strings, whole numbers, fractions, truth values, lists and tables are one to one. `null` is a key that was left out. A string of
//! JSON is a basic string of TOML but for one character, DEL, which TOML wants escaped.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Complaint;

/// The deepest nesting: no channel needs more, and the readers below have limits of their own that explain less.
const DEPTH_MAX: usize = 16;

/// The keys of a channel, one a line. Every key that TOML cannot hold is complained about.
pub(super) fn toml_text(channel: &Map<String, Value>) -> Result<String, Vec<Complaint>> {
    let mut writer = Writer { text: String::new(), complaints: Vec::new() };
    for (key, value) in channel.iter().filter(|(_, value)| !value.is_null()) {
        writer.string(key);
        writer.text.push_str(" = ");
        writer.value(key, value, 1);
        writer.text.push('\n');
    }
    if writer.complaints.is_empty() { Ok(writer.text) } else { Err(writer.complaints) }
}

struct Writer {
    text: String,
    complaints: Vec<Complaint>,
}

impl Writer {
    fn value(&mut self, path: &str, value: &Value, depth: usize) {
        if depth > DEPTH_MAX {
            let problem = format!("is nested more than {DEPTH_MAX} deep");
            self.complaints.push(Complaint::new(path, problem, "write it flatter"));
            return;
        }
        match value {
            Value::Null => {
                let complaint = Complaint::new(path, "has null in a list".to_owned(), "leave it out of the list");
                self.complaints.push(complaint);
            }
            Value::Bool(truth) => self.text.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => write!(self.text, "{number}").expect("writing to a String never fails"),
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.text.push('[');
                for item in items {
                    self.value(path, item, depth + 1);
                    self.text.push_str(", ");
                }
                self.text.push(']');
            }
            Value::Object(table) => {
                self.text.push_str("{ ");
                let entries = table.iter().filter(|(_, value)| !value.is_null());
                for (at, (key, value)) in entries.enumerate() {
                    self.text.push_str(if at == 0 { "" } else { ", " });
                    self.string(key);
                    self.text.push_str(" = ");
                    self.value(&format!("{path}.{key}"), value, depth + 1);
                }
                self.text.push_str(" }");
            }
        }
    }

    fn string(&mut self, text: &str) {
        let quoted = Value::from(text).to_string();
        self.text.push_str(&quoted.replace('\u{7f}', "\\u007f"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Outside, read};

    fn text(value: &Value) -> Result<String, Vec<Complaint>> {
        toml_text(value.as_object().unwrap())
    }

    proptest::proptest! {
        #[test]
        fn whatever_json_holds_is_read_back_as_it_was(strings in proptest::collection::vec(".*", 0..4), key in ".*", number: i64, fraction in -1.0e9..1.0e9_f64) {
            let value = json!({ "value": { "texts": strings, "number": number, "fraction": fraction, "truth": true,
                "inner": { key: "\u{7f}\0\u{1b}\"\\" } } });
            let text = text(&value).unwrap();
            // `$${` stands for `${`: what is no variable reads back as it is.
            if !text.contains("${") {
                let reading = read(&text, &Outside::closed(), |settings| settings.json("value"));
                proptest::prop_assert!(reading.faults.is_empty(), "{:?} in {text}", reading.faults);
                proptest::prop_assert_eq!(reading.value.flatten().unwrap(), value["value"].clone());
            }
        }
    }

    #[test]
    fn null_is_what_was_left_out_and_what_toml_cannot_hold_is_complained_about_with_its_key() {
        assert_eq!(text(&json!({"a": null, "b": {"c": null, "d": 1}})).unwrap(), "\"b\" = { \"d\" = 1 }\n");
        let mut deep = json!(1);
        for _ in 0..DEPTH_MAX {
            deep = json!([deep]);
        }
        let complaints = text(&json!({"a": {"b": [null]}, "deep": deep})).unwrap_err();
        let keys: Vec<&str> = complaints.iter().map(|complaint| complaint.key.as_str()).collect();
        assert_eq!(keys, ["a.b", "deep"]);
    }
}
