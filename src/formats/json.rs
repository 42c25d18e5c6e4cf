//! A decision as JSON: the very bytes that the firewall published, less the white space between tokens.
//!
//! Reading a decision into a tree and writing it again would round its large numbers and drop duplicate keys, so that is never
//! done. What JSON needs escaped is escaped already, or the decision would not have been read.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::Decision;

/// A decision's JSON on one line, always UTF-8. Cheap to clone, and a copy is made only of what was not on one line already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact(Bytes);

impl Compact {
    /// The JSON of `decision`.
    pub fn of(decision: &Decision) -> Self {
        Self::of_raw(decision.raw())
    }

    /// The same of a decision's bytes as they came, which are valid JSON.
    pub fn of_raw(raw: &Bytes) -> Self {
        match std::str::from_utf8(raw) {
            Ok(text) if !has_outer_space(text) => Self(raw.clone()),
            Ok(text) => Self(without_outer_space(text).into()),
            // Decoding skips what it does not know without checking its UTF-8. Such bytes can only be inside of a string, so
            // replacing them leaves valid JSON, and no receiver would have taken them as they are.
            Err(_) => Self(without_outer_space(&String::from_utf8_lossy(raw)).into()),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        checked(&self.0)
    }

    /// As bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// The text of a [`Compact`].
fn checked(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("`Compact::of` makes nothing but UTF-8")
}

/// The fields of a JSON object, each as it was written; `None` if `text` is no object, or a key of it is no text (half a
/// surrogate pair). Of a key that is there twice the last one counts.
pub fn fields(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// `value` as JSON on one line.
pub(super) fn written<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("texts, numbers, and objects whose keys are texts are always JSON")
}

/// Whether valid JSON has white space outside of its strings.
fn has_outer_space(json: &str) -> bool {
    let mut outside = Outside::default();
    json.bytes().any(|byte| outside.sees(byte) && byte.is_ascii_whitespace())
}

/// Valid JSON without the white space outside of its strings.
fn without_outer_space(json: &str) -> String {
    let mut outside = Outside::default();
    json.chars()
        .filter(|c| {
            // Anything but ASCII can only be inside of a string; any letter will do to stand for it.
            let byte = u8::try_from(*c).ok().filter(u8::is_ascii).unwrap_or(b'x');
            !(outside.sees(byte) && byte.is_ascii_whitespace())
        })
        .collect()
}

/// Follows valid JSON byte by byte and knows which are outside of strings.
#[derive(Default)]
struct Outside {
    in_string: bool,
    escaped: bool,
}

impl Outside {
    /// Takes one byte; true if it is outside of strings.
    fn sees(&mut self, byte: u8) -> bool {
        let outside = !self.in_string;
        if self.escaped {
            self.escaped = false;
        } else if byte == b'"' {
            self.in_string = !self.in_string;
        } else if byte == b'\\' {
            self.escaped = self.in_string;
        }
        outside
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::hostile;

    #[test]
    fn a_decision_on_one_line_is_passed_on_without_a_copy() {
        let decision = hostile::decode(hostile::EXAMPLE);
        let compact = Compact::of(&decision).into_bytes();
        assert_eq!(compact.as_ptr(), decision.raw().as_ptr());
        assert_eq!(compact, hostile::EXAMPLE);
    }

    #[test]
    fn only_white_space_between_tokens_is_dropped() {
        let spaced = "\n{ \"a b\" : \"c \\\" d\\\\\" ,\t\"n\":\r\n 1.10e+5 , \"x\": [ ] }\n";
        assert_eq!(without_outer_space(spaced), r#"{"a b":"c \" d\\","n":1.10e+5,"x":[]}"#);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_inside_of_unknown_fields() {
        let raw = b"{\"id\":\"1\",\"time\":\"2026-06-01T12:00:00Z\",\"decision\":\"DENY\",\"severity\":\"LOW\",\"agent\":{\"id\":\"a\"},\"tool\":\"t\",\"x\":\"\xff\"}";
        let Ok(decision) = Decision::decode(Bytes::from_static(raw)) else {
            // A stricter decoder is welcome; then there is nothing to replace.
            return;
        };
        assert!(Compact::of(&decision).as_str().ends_with("\"x\":\"\u{fffd}\"}"));
    }

    proptest! {
        #[test]
        fn a_compact_decision_means_the_same_and_has_no_line_break(decision in hostile::decision()) {
            let compact = Compact::of(&decision);
            let before: serde_json::Value = serde_json::from_slice(decision.raw()).unwrap();
            let after: serde_json::Value = serde_json::from_str(compact.as_str()).unwrap();
            prop_assert_eq!(before, after);
            prop_assert!(!compact.as_str().contains(['\n', '\r']));
        }
    }
}
