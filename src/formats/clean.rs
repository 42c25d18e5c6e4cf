//! Hostile text on one line: what a reader cannot see, or what could forge a second line, is taken out.
//!
//! Escaping is not done here: every format has its own rules and does that last, after the text is cut, so that no cut ever
//! goes through an escape.

use std::borrow::Cow;

/// `text` on one line, trimmed, at most `chars_max` characters: white space of every kind (also line breaks) becomes a plain
/// space, and control, bidirectional and invisible characters are dropped. Borrows where nothing has to change.
pub fn one_line(text: &str, chars_max: usize) -> Cow<'_, str> {
    let plain = text.len() <= chars_max && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if plain {
        return Cow::Borrowed(text.trim_matches(' '));
    }
    let mut line = String::with_capacity(text.len().min(chars_max.saturating_mul(4)));
    let kept = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_hidden(*c));
    line.extend(kept.skip_while(|c| *c == ' ').take(chars_max));
    line.truncate(line.trim_end_matches(' ').len());
    Cow::Owned(line)
}

/// Whether a reader cannot see `c`, or it changes how others are seen: controls, direction marks and overrides, zero-width
/// and filler characters, variation selectors and the tag block (which can hide whole sentences).
pub const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_up_on_one_line_with_nothing_hidden_in_it() {
        let cases = [
            ("plain", 10, "plain"),
            ("  trimmed\n", 10, "trimmed"),
            ("a\r\nb\tc", 10, "a  b c"),
            ("a\u{2028}b\u{85}c", 10, "a b c"),
            ("evil\u{202e}gpj.exe", 20, "evilgpj.exe"),
            ("a\u{200b}\u{feff}b\u{e0041}", 10, "ab"),
            ("\u{1b}[31mred", 10, "[31mred"),
            ("häuser", 3, "häu"),
            ("ab cd", 3, "ab"),
            ("\u{3000}wide", 10, "wide"),
            ("\0", 10, ""),
            ("日本", 1, "日"),
        ];
        for (text, chars_max, expected) in cases {
            assert_eq!(one_line(text, chars_max), expected, "{text:?}");
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(one_line("slack.post_message", 31), Cow::Borrowed(_)));
    }

    proptest::proptest! {
        #[test]
        fn a_line_is_clean_within_its_limit_and_cleaning_it_again_changes_nothing(text in "\\PC*|.*|[ \\r\\n\u{202a}-\u{202e}a-c]*", chars_max in 0_usize..40) {
            let line = one_line(&text, chars_max);
            proptest::prop_assert!(line.chars().count() <= chars_max);
            proptest::prop_assert!(!line.chars().any(is_hidden));
            proptest::prop_assert_eq!(one_line(&line, chars_max), line.clone());
        }
    }
}
