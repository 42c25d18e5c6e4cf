//! What is wrong with a configuration file, where, and what to do about it.
//!
//! A fault shows the line it is about, and lines of this file hold secrets. So the excerpt keeps the key and hides the value,
//! unless the value was asked for as something that is no secret. Hiding is by default; showing is the exception.

use std::ops::Range;

use serde::Serialize;

/// One thing that is wrong, or (as a warning) looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The line, from 1; 0 where the fault is not in the file but in a variable of the environment.
    pub line: usize,
    /// The column in characters, from 1; 0 where there is no line.
    pub column: usize,
    /// The path of the key: `channel.soc-slack.retry.attempts`, or the name of the variable. Empty for the file as a whole.
    pub path: String,
    /// What is wrong: lower case, no full stop, no secret.
    pub problem: String,
    /// What to do about it: an imperative. May be empty.
    pub hint: String,
    /// The line, with what may be secret hidden behind `*`.
    pub excerpt: String,
}

/// How much of a line an excerpt may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// The key and what stands in the span: that value is no secret.
    Value,
    /// The key alone.
    Key,
}

/// The longest excerpt, in characters.
const EXCERPT_CHARS_MAX: usize = 160;

impl Fault {
    /// The fault at `span` of `text`.
    pub(super) fn at(text: &str, span: &Range<usize>, show: Show, path: String, problem: String, hint: &str) -> Self {
        let start = floor_char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let source = text[line_start..line_end].trim_end_matches('\r');
        let hidden = hide_value(source);
        let excerpt: String = match show {
            Show::Key => hidden,
            // Only what stands inside the span: other values may share the line.
            Show::Value => source
                .char_indices()
                .zip(hidden.chars())
                .map(|((at, open), hidden)| if span.contains(&(line_start + at)) { open } else { hidden })
                .collect(),
        };
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            path,
            problem,
            hint: hint.to_owned(),
            excerpt: printable(&excerpt).chars().take(EXCERPT_CHARS_MAX).collect(),
        }
    }

    /// The fault of a variable of the environment, which has no place in the file.
    pub(super) fn of_variable(name: &str, problem: String, hint: &str) -> Self {
        let (path, hint, excerpt) = (name.to_owned(), hint.to_owned(), String::new());
        Self { line: 0, column: 0, path, problem, hint, excerpt }
    }

    /// The fault for people: `file:line:column: path: problem`, the excerpt with a caret, the hint.
    pub fn show(&self, file: &str) -> String {
        use std::fmt::Write as _;
        let Self { line, column, path, problem, hint, excerpt } = self;
        if *line == 0 {
            return format!("the environment variable {path}: {problem}\n  = hint: {hint}\n");
        }
        let colon = if path.is_empty() { "" } else { ": " };
        let mut shown = format!("{file}:{line}:{column}: {path}{colon}{problem}\n");
        let gutter = line.to_string().len();
        if !excerpt.trim().is_empty() && *column <= EXCERPT_CHARS_MAX {
            write!(shown, "  {line} | {excerpt}\n  {:gutter$} | {:>column$}\n", "", "^")
                .expect("writing to a String never fails");
        }
        if !hint.is_empty() {
            writeln!(shown, "  {:gutter$} = hint: {hint}", "").expect("writing to a String never fails");
        }
        shown
    }
}

/// The greatest character boundary of `text` at or below `at`.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The line with every letter and digit hidden behind `*` but for a table's header, the key before `=`, and the names of
/// variables, which faults name anyway. Columns stay, so a caret still points at the right place.
fn hide_value(line: &str) -> String {
    let bare = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '\t'))
    };
    let trimmed = line.trim();
    let header = trimmed.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    if header.is_some_and(|inner| bare(inner.trim_start_matches('[').trim_end_matches(']'))) {
        return line.to_owned();
    }
    let shown = match line.split_once('=') {
        // Padding of base64 in the middle of a multi-line string is no key: nothing, or one more `=`, follows it.
        Some((key, value)) if bare(key) && !value.trim().is_empty() && !value.starts_with('=') => key.len(),
        Some(_) | None => 0,
    };
    let mut hidden = line[..shown].to_owned();
    let mut rest = &line[shown..];
    let hide = |text: &str| text.chars().map(|c| if c.is_alphanumeric() { '*' } else { c }).collect::<String>();
    while let Some((before, after)) = rest.split_once("${") {
        let end = after.find('}').filter(|end| super::expand::is_name(&after[..*end])).unwrap_or(0);
        hidden.extend([hide(before).as_str(), "${", &after[..end]]);
        rest = &after[end..];
    }
    hidden + &hide(rest)
}

/// The text with a space for every character that does something to a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidirectional(c) { ' ' } else { c }).collect()
}

/// Characters that reorder what stands around them.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_keeps_the_key_and_hides_the_value() {
        let cases = [
            ("webhook_url = \"https://a.b/c1\"  # old: d", "webhook_url = \"*****://*.*/**\"  # ***: *"),
            ("[[channel]]", "[[channel]]"),
            ("[channel.retry]", "[channel.retry]"),
            ("  \"abc\",", "  \"***\","),
            ("c2VjcmV0c2VjcmV0==", "****************=="),
            ("c2VjcmV0c2VjcmV0=", "****************="),
            ("signing_secret = abc", "signing_secret = ***"),
            ("a = \"Bearer ${TOKEN}x\"", "a = \"****** ${TOKEN}*\""),
            ("a = \"p${1}q${ r${B\"", "a = \"*${*}*${ *${*\""),
            ("", ""),
        ];
        for (line, expected) in cases {
            assert_eq!(hide_value(line), expected);
        }
    }

    #[test]
    fn a_fault_points_at_its_column_in_characters() {
        let text = "a = 1\nb = \"é\" x\n";
        let fault = Fault::at(text, &(15..16), Show::Value, "b".into(), "is wrong".into(), "mend it");
        assert_eq!((fault.line, fault.column), (2, 9));
        assert_eq!(
            fault.show("f.toml"),
            "f.toml:2:9: b: is wrong\n  2 | b = \"*\" x\n    |         ^\n    = hint: mend it\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_place_makes_it_panic(text in ".*", start: u16, end: u16) {
            let fault = Fault::at(&text, &(start.into()..end.into()), Show::Key, String::new(), String::new(), "");
            proptest::prop_assert!(fault.line >= 1 && fault.column >= 1);
            std::hint::black_box(fault.show("f"));
        }
    }
}
