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
    let kept = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_invisible(*c));
    line.extend(kept.skip_while(|c| *c == ' ').take(chars_max));
    line.truncate(line.trim_end_matches(' ').len());
    Cow::Owned(line)
}

/// Whether a character has no shape of its own: controls, everything that Unicode calls a format character (bidirectional
/// overrides, zero-width joiners, tags, language marks), fillers, variation selectors, and what is no character at all.
///
/// Joiners and selectors also shape some scripts and emoji; that is given up, because the same characters hide text from the
/// reader who is asked to approve it, and let two names look like one in a SIEM. Source: Unicode 16, general category Cf and
/// property `Default_Ignorable_Code_Point`.
pub const fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}'
        | '\u{fffe}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        // The last two of every plane are no characters.
        || c as u32 & 0xfffe == 0xfffe
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
            proptest::prop_assert!(!line.chars().any(is_invisible));
            proptest::prop_assert_eq!(one_line(&line, chars_max), line.clone());
        }
    }
}
