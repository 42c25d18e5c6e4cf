//! A decision as it was published, for people to read: JSON with one field a line, every digit as it came.

use std::fmt;

use crate::formats::clean::is_invisible;

/// The longest that is shown, in characters.
const CHARS_MAX: usize = 64 << 10;

/// How far it is indented at most: what is nested deeper is no easier to read by it.
const DEPTH_MAX: usize = 40;

/// JSON on several lines. What cannot be seen is written as JSON escapes it, so that nothing hides in it and it is still the same
/// JSON. It is not escaped for HTML: the templates do that, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    text: String,
    is_cut: bool,
}

impl Raw {
    /// What these bytes say, which are JSON. Of what is none, something readable comes out too.
    pub fn of(json: &[u8]) -> Self {
        let json = String::from_utf8_lossy(json);
        let mut out = Out { text: String::with_capacity(json.len().min(CHARS_MAX)), chars: 0 };
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        let mut chars = json.chars().peekable();
        while let Some(c) = chars.next() {
            if out.chars >= CHARS_MAX {
                out.text.push('…');
                return Self { text: out.text, is_cut: true };
            }
            if in_string {
                out.put(c);
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
                continue;
            }
            match c {
                '"' => {
                    in_string = true;
                    out.put(c);
                }
                '{' | '[' => {
                    out.put(c);
                    while chars.next_if(char::is_ascii_whitespace).is_some() {}
                    if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                        out.put(end);
                    } else {
                        depth += 1;
                        out.line(depth);
                    }
                }
                '}' | ']' => {
                    depth = depth.saturating_sub(1);
                    out.line(depth);
                    out.put(c);
                }
                ',' => {
                    out.put(c);
                    out.line(depth);
                }
                ':' => {
                    out.put(c);
                    out.put(' ');
                }
                c if c.is_ascii_whitespace() => {}
                c => out.put(c),
            }
        }
        Self { text: out.text, is_cut: false }
    }

    /// Whether it goes on.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Out {
    text: String,
    chars: usize,
}

impl Out {
    fn put(&mut self, c: char) {
        if is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                self.text.push_str("\\u");
                let digit = |shift: u32| char::from_digit(u32::from(*unit) >> shift & 15, 16);
                self.text.extend([12, 8, 4, 0].into_iter().filter_map(digit));
                self.chars += 6;
            }
        } else {
            self.text.push(c);
            self.chars += 1;
        }
    }

    fn line(&mut self, depth: usize) {
        self.text.push('\n');
        let spaces = depth.min(DEPTH_MAX) * 2;
        self.text.extend(std::iter::repeat_n(' ', spaces));
        self.chars += spaces + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::hostile;

    #[test]
    fn a_decision_is_shown_field_by_field_and_to_the_last_digit() {
        let json = br#" {"a":12345678901234567890123,"b" : [ ],"c":{"d":"x, {y}: \"\\","e":[1,true]}}"#;
        let expected = r#"{
  "a": 12345678901234567890123,
  "b": [],
  "c": {
    "d": "x, {y}: \"\\",
    "e": [
      1,
      true
    ]
  }
}"#;
        assert_eq!(Raw::of(json).to_string(), expected);
        let long = format!("\"{}\"", "x".repeat(CHARS_MAX));
        assert!(Raw::of(long.as_bytes()).is_cut());
        let deep = "[".repeat(5_000);
        assert!(Raw::of(deep.as_bytes()).to_string().len() < CHARS_MAX + 200);
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_decision_it_stays_the_same_json_and_nothing_hides_in_it(decision in hostile::decision()) {
            let raw = Raw::of(decision.raw());
            prop_assert!(!raw.text.chars().any(|c| is_invisible(c) && c != '\n'), "{}", raw);
            if !raw.is_cut() {
                let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
                prop_assert_eq!(read(raw.text.as_bytes()), read(decision.raw()));
            }
        }
    }
}
