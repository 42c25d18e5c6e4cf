//! Text of others, ready for a page.

use std::fmt;

use crate::formats::clean;

/// One line that a person can read: without control, bidirectional and invisible characters, and of bounded length. It is not
/// escaped: the templates do that, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(String);

impl Text {
    /// A name, an id, a reason: at most 200 characters.
    pub fn short(text: &str) -> Self {
        Self::cut(text, 200)
    }

    /// A title or a message: at most 1,000 characters.
    pub fn long(text: &str) -> Self {
        Self::cut(text, 1_000)
    }

    fn cut(text: &str, chars_max: usize) -> Self {
        let line = clean::one_line(text, chars_max + 1);
        if line.chars().count() <= chars_max {
            return Self(line.into_owned());
        }
        let mut cut: String = line.chars().take(chars_max - 1).collect();
        cut.push('…');
        Self(cut)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Several lines that a person can read, for what is shown as it came: without what cannot be seen but line breaks, and of bounded
/// length. The templates escape it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    text: String,
    is_cut: bool,
}

impl Block {
    /// The longest, in characters.
    const CHARS_MAX: usize = 32 * 1024;

    /// This text.
    pub fn new(text: &str) -> Self {
        let mut kept = text.chars().filter(|c| *c == '\n' || !clean::is_invisible(*c));
        let shown: String = kept.by_ref().take(Self::CHARS_MAX).collect();
        Self { text: shown, is_cut: kept.next().is_some() }
    }

    /// JSON, one member a line. Its tokens stay as they are, down to the last digit of a number.
    pub fn of_json(json: &str) -> Self {
        Self::new(&indented(json))
    }

    /// Whether there was more.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The same JSON with line breaks and indents. Reading and writing it would not do: that changes long numbers and drops members that
/// are there twice.
fn indented(json: &str) -> String {
    const DEPTH_MAX: usize = 64;
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut chars = json.trim().chars().peekable();
    let broken = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(DEPTH_MAX)));
    };
    while let Some(c) = chars.next() {
        if in_text {
            in_text = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            out.push(c);
            continue;
        }
        match c {
            c if c.is_whitespace() => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                if chars.peek().is_some_and(|next| matches!(next, '}' | ']')) {
                    out.extend(chars.next());
                } else {
                    depth += 1;
                    broken(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                broken(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                broken(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    out
}

/// A number as people read it: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_that_it_was_cut_and_has_nothing_invisible() {
        assert_eq!(Text::short("plain").as_str(), "plain");
        assert_eq!(Text::short("a\u{202e}b\nc\0").as_str(), "ab c");
        let (whole, long) = ("x".repeat(200), "x".repeat(201));
        assert_eq!(Text::short(&whole).as_str(), whole);
        let cut = Text::short(&long);
        assert!(cut.as_str().ends_with('…') && cut.as_str().chars().count() == 200);
        assert!(Text::short("\u{200b}").is_empty());
    }

    #[test]
    fn json_is_shown_by_lines_and_token_for_token_as_it_came() {
        let json = r#"{"a": 12345678901234567890.10, "b":["x, \"{y\\",{}, []],"a":null}"#;
        let shown = Block::of_json(json).to_string();
        let expected = "{\n  \"a\": 12345678901234567890.10,\n  \"b\": [\n    \"x, \\\"{y\\\\\",\n    {},\n    []\n  ],\n  \"a\": null\n}";
        assert_eq!(shown, expected);
        assert_eq!(Block::new("a\u{202e}b\nc\u{1b}[2J").to_string(), "ab\nc[2J");
        let long = Block::new(&"é".repeat(Block::CHARS_MAX + 1));
        assert!(long.is_cut() && long.to_string().chars().count() == Block::CHARS_MAX && !Block::new("").is_cut());
    }

    #[test]
    fn numbers_are_read_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
