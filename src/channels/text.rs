//! Hostile text made fit for one line of a card.
//!
//! A decision quotes what an agent wrote, and an agent can be made to write anything. Before such text meets a platform's
//! markup it is cleaned (nothing invisible, nothing that turns the direction of reading, one line) and cut at a character,
//! and only then escaped: cutting what is escaped leaves halves of entities behind.
//!
//! Absent on purpose: what is markup on which platform (each kind brings its own [`Script`]), and what cannot be seen, which is
//! the same for machines: [`is_invisible`].

pub(super) use crate::formats::clean::is_invisible;

/// How a platform writes a character of hostile text, and what it counts for against the platform's limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// What stands for a character that may not stand for itself.
    pub escape: fn(char) -> Option<&'static str>,
    /// What a character costs, in the unit of the platform's limits.
    pub cost: fn(char) -> usize,
}

impl Script {
    /// Characters as they are, counted one by one.
    pub(super) const VERBATIM: Self = Self { escape: |_| None, cost: |_| 1 };
}

/// What stands where a text was cut.
pub(super) const ELLIPSIS: char = '…';

/// What stands for a text with nothing in it that can be seen: an empty code span would break the markup around it.
const NOTHING: char = '-';

/// Writes one line of hostile text to `out`: cleaned, escaped, and cut so that it costs at most `room`.
///
/// It is a writer so that several texts (the reasons) share one room, and so that nothing is built only to be copied.
pub(super) struct Line<'o> {
    out: &'o mut String,
    script: Script,
    room: usize,
    used: usize,
    /// How long `out` was when an ellipsis still had room behind it.
    mark: usize,
    /// A space is due before the next visible character: runs of white space become one, those at the end none.
    gap: bool,
    started: bool,
    full: bool,
}

impl<'o> Line<'o> {
    /// A line at the end of `out` that may cost `room`, at least 1 ellipsis.
    pub(super) fn new(out: &'o mut String, script: Script, room: usize) -> Self {
        let mark = out.len();
        Self { out, script, room, used: 0, mark, gap: false, started: false, full: false }
    }

    /// Adds `text`, as far as there is room.
    pub(super) fn push(&mut self, text: &str) {
        for c in text.chars() {
            if self.full {
                return;
            }
            if c.is_whitespace() {
                self.gap = self.started;
            } else if !is_invisible(c) {
                if std::mem::take(&mut self.gap) {
                    self.emit(' ');
                }
                self.emit(c);
            }
        }
    }

    /// Adds `, ` between two texts.
    pub(super) fn comma(&mut self) {
        self.gap = false;
        self.emit(',');
        self.gap = true;
    }

    /// Whether something was cut off: from then on nothing is added.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Ends the line.
    pub(super) fn finish(self) {
        if !self.started {
            self.out.push(NOTHING);
        }
    }

    fn emit(&mut self, c: char) {
        if self.full {
            return;
        }
        self.started = true;
        let cost = (self.script.cost)(c);
        if self.used + cost > self.room {
            self.out.truncate(self.mark);
            self.out.push(ELLIPSIS);
            self.full = true;
            return;
        }
        match (self.script.escape)(c) {
            Some(escaped) => self.out.push_str(escaped),
            None => self.out.push(c),
        }
        self.used += cost;
        if self.used + (self.script.cost)(ELLIPSIS) <= self.room {
            self.mark = self.out.len();
        }
    }
}

/// `text` as one clean line of at most `room` characters.
pub(super) fn one_line(text: &str, room: usize) -> String {
    let mut out = String::with_capacity(text.len().min(4 * room));
    let mut line = Line::new(&mut out, Script::VERBATIM, room);
    line.push(text);
    line.finish();
    out
}

/// Whether `text` has nothing in it that can be seen.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_invisible(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_what_can_be_seen_and_nothing_else() {
        let cases = [
            ("Secret egress blocked", "Secret egress blocked"),
            ("  two\r\n\tlines\u{2028}or \u{a0} three\u{85} ", "two lines or three"),
            ("evil\u{202e}gpj.exe", "evilgpj.exe"),
            ("a\u{200b}d\u{200d}m\u{2060}i\u{feff}n", "admin"),
            ("hi\u{e0041}\u{e0042}\u{e007f}\u{fe0f}\u{61c}\u{1b}[31m\u{0}", "hi[31m"),
            ("zażółć 日本 🙂", "zażółć 日本 🙂"),
            ("", "-"),
            ("\u{200b} \n", "-"),
        ];
        for (hostile, clean) in cases {
            assert_eq!(one_line(hostile, 80), clean, "{hostile:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcde…");
        assert_eq!(one_line("🙂🙂🙂", 2), "🙂…");
        assert_eq!(one_line("ab", 1), "…");
    }

    #[test]
    fn what_is_cut_is_the_text_and_never_an_escape() {
        let script = Script { escape: |c| (c == '&').then_some("&amp;"), cost: |c| if c == '&' { 5 } else { 1 } };
        for room in 1..20 {
            let mut out = String::new();
            let mut line = Line::new(&mut out, script, room);
            line.push("&&&&");
            line.finish();
            assert!(out.chars().count() <= room, "{room}: {out}");
            assert!(out.trim_end_matches(ELLIPSIS).replace("&amp;", "").is_empty(), "{room}: {out}");
        }
    }

    #[test]
    fn several_texts_share_one_room() {
        let mut out = String::from("why: ");
        let mut line = Line::new(&mut out, Script::VERBATIM, 8);
        line.push("ABC");
        line.comma();
        line.push("DEFG");
        assert!(line.is_full());
        line.comma();
        line.push("H");
        line.finish();
        assert_eq!(out, "why: ABC, DE…");
    }

    proptest::proptest! {
        #[test]
        fn any_text_becomes_one_clean_line_within_its_room(text in ".*", room in 1_usize..40) {
            let line = one_line(&text, room);
            proptest::prop_assert!(line.chars().count() <= room);
            proptest::prop_assert!(!line.chars().any(|c| is_invisible(c) || c.is_control() || (c.is_whitespace() && c != ' ')));
            proptest::prop_assert_eq!(line.trim(), &line);
        }
    }
}
