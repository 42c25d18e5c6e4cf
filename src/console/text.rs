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
}
