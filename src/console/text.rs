//! Text of others, ready for a page.

use std::fmt;

use crate::formats::clean::is_invisible;

/// One line that a person can read, of bounded length. A character that cannot be seen, or that turns the words around it, stands
/// there as a mark, `[U+200B]`: if it were dropped, two names would look the same to whoever is asked to approve one of them. It
/// is not escaped: the templates do that, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(String);

impl Text {
    /// An id, a reason: at most 200 characters.
    pub fn short(text: &str) -> Self {
        Self::cut(marked(text, 200, prose), 200)
    }

    /// A title or a message: at most 1,000 characters.
    pub fn long(text: &str) -> Self {
        Self::cut(marked(text, 1_000, prose), 1_000)
    }

    /// A name that something depends on, at most 200 characters: no other one looks like it as far as that goes, be it by white
    /// space or by what looks like a mark. Only the letters themselves can look alike.
    pub fn name(text: &str) -> Self {
        Self::cut(marked(text, 200, exact), 200)
    }

    fn cut(line: String, chars_max: usize) -> Self {
        if line.chars().count() <= chars_max {
            return Self(line);
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

/// How a character is shown.
enum Seen {
    As(char),
    Marked,
    Not,
}

/// A character of `text` at this place, by what stands around it.
struct Place<'a> {
    before: Option<char>,
    /// From the character on.
    rest: &'a str,
}

/// In a sentence: white space of every kind is a space. What joins or shapes the letters and signs of other scripts is left out,
/// since the signs can be read without it.
fn prose(c: char, place: &Place<'_>) -> Seen {
    match c {
        c if c.is_whitespace() => Seen::As(' '),
        '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' => {
            // After one that can be seen, so that nothing is written with them alone; `1`, U+FE0F, U+20E3 is a sign, too.
            let shapes = |c: char| !c.is_ascii() && (!is_invisible(c) || c == '\u{fe0f}');
            let keycap = place.rest.chars().nth(1) == Some('\u{20e3}');
            if keycap || place.before.is_some_and(shapes) { Seen::Not } else { Seen::Marked }
        }
        c if is_invisible(c) => Seen::Marked,
        c => Seen::As(c),
    }
}

/// In a name: a space is one where it can be told from none and from two, and what looks like a mark is one.
fn exact(c: char, place: &Place<'_>) -> Seen {
    let next = place.rest.chars().nth(1);
    match c {
        ' ' if place.before.is_some() && next.is_some_and(|next| next != ' ') => Seen::As(' '),
        '[' if place.rest.starts_with("[U+") => Seen::Marked,
        c if c.is_whitespace() || is_invisible(c) => Seen::Marked,
        c => Seen::As(c),
    }
}

/// `text` on one line and trimmed; more than `chars_max` characters where it is longer than that.
fn marked(text: &str, chars_max: usize, see: fn(char, &Place<'_>) -> Seen) -> String {
    let (mut line, mut length, mut before) = (String::new(), 0, None);
    let mut chars = text.char_indices().peekable();
    while length <= chars_max
        && let Some((at, c)) = chars.next()
    {
        match see(c, &Place { before, rest: &text[at..] }) {
            Seen::As(' ') if line.is_empty() => {}
            Seen::As(c) => {
                line.push(c);
                length += 1;
            }
            Seen::Not => {}
            Seen::Marked => {
                let mut count = 1_u64;
                while chars.next_if(|(_, next)| *next == c).is_some() {
                    count += 1;
                }
                let mark =
                    format!("[U+{:04X}{}]", u32::from(c), if count > 1 { format!(" x{count}") } else { String::new() });
                length += mark.len();
                line.push_str(&mark);
            }
        }
        before = Some(c);
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

/// Several lines that a person can read, for what is shown as it came, and of bounded length. What cannot be seen, line breaks
/// left out, is escaped as JSON does it, `\u200b`. The templates escape the rest.
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
        let (mut shown, mut length) = (String::new(), 0);
        for c in text.chars() {
            let start = shown.len();
            if c == '\n' || !is_invisible(c) {
                shown.push(c);
                length += 1;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    shown.extend(["\\u", &format!("{unit:04x}")]);
                }
                length += shown.len() - start;
            }
            if length > Self::CHARS_MAX {
                shown.truncate(start);
                return Self { text: shown, is_cut: true };
            }
        }
        Self { text: shown, is_cut: false }
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
    fn a_text_says_that_it_was_cut_and_what_cannot_be_seen_in_it() {
        for (text, shown) in [
            ("plain", "plain"),
            ("a\u{202e}b\nc\0", "a[U+202E]b c[U+0000]"),
            ("\u{200b}", "[U+200B]"),
            ("a\u{200b}\u{200b}\u{feff}b\u{e0041}", "a[U+200B x2][U+FEFF]b[U+E0041]"),
            (" [U+200B] ", "[U+200B]"),
            // What people write in their scripts, and with emoji.
            ("e\u{301} שלום", "e\u{301} שלום"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}\u{200d}🔥 1\u{fe0f}\u{20e3}", "👨👩👧 ❤🔥 1\u{20e3}"),
            ("a\u{200d}b é\u{200d}\u{200c}\u{200d}", "a[U+200D]b é[U+200C][U+200D]"),
        ] {
            assert_eq!(Text::short(text).as_str(), shown);
            assert_eq!(Text::short(shown).as_str(), shown, "what is shown is shown within a sentence as it is");
        }
        let (whole, long) = ("x".repeat(200), "x".repeat(201));
        assert_eq!(Text::short(&whole).as_str(), whole);
        let cut = Text::short(&long);
        assert!(cut.as_str().ends_with('…') && cut.as_str().chars().count() == 200);
        assert_eq!(Text::short(&"\u{200b}".repeat(70_000)).as_str(), "[U+200B x70000]");
        assert!(Text::short(" \n").is_empty());
    }

    #[test]
    fn a_name_looks_like_no_other() {
        let looks = [
            "a b",
            " a b",
            "a b ",
            "a  b",
            "a\tb",
            "a\u{a0}b",
            "a\u{200b} b",
            "a[U+200B] b",
            "a[U+200B]  b",
            "a é\u{200d}",
            "a é",
        ];
        let looks = looks.map(|name| Text::name(name).to_string());
        let different: std::collections::HashSet<&String> = looks.iter().collect();
        assert_eq!(different.len(), looks.len(), "{looks:?}");
        for (name, shown) in [
            ("post_message", "post_message"),
            ("abc\u{202e}gnp", "abc[U+202E]gnp"),
            ("a b", "a b"),
            ("   ", "[U+0020 x3]"),
            ("a\u{3000}", "a[U+3000]"),
            ("[[U+200B]", "[[U+005B]U+200B]"),
        ] {
            assert_eq!(Text::name(name).as_str(), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_can_be_seen_and_is_of_bounded_length(text in "\\PC*|.*|[ \\r\\n\u{202a}-\u{202e}\u{200b}-\u{200d}é\u{fe0f}\\[U+a-c]{0,300}") {
            for shown in [Text::short(&text), Text::name(&text)] {
                proptest::prop_assert!(shown.as_str().chars().count() <= 200 && !shown.as_str().chars().any(is_invisible));
                proptest::prop_assert_eq!(&Text::short(shown.as_str()), &shown);
            }
            proptest::prop_assert_eq!(Text::name(&text).is_empty(), text.is_empty());
            proptest::prop_assert!(Block::new(&text).to_string().chars().all(|c| c == '\n' || !is_invisible(c)));
        }
    }

    #[test]
    fn json_is_shown_by_lines_and_token_for_token_as_it_came() {
        let json = r#"{"a": 12345678901234567890.10, "b":["x, \"{y\\",{}, []],"a":null}"#;
        let shown = Block::of_json(json).to_string();
        let expected = "{\n  \"a\": 12345678901234567890.10,\n  \"b\": [\n    \"x, \\\"{y\\\\\",\n    {},\n    []\n  ],\n  \"a\": null\n}";
        assert_eq!(shown, expected);
        assert_eq!(Block::new("a\u{202e}b\nc\u{1b}[2J").to_string(), "a\\u202eb\nc\\u001b[2J");
        assert_eq!(Block::of_json("\"\u{e0041}\"").to_string(), "\"\\udb40\\udc41\"");
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
