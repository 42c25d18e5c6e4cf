//! Hostile text made fit for one line of a card.
//!
//! A decision quotes what an agent wrote, and an agent can be made to write anything. Before such text meets a platform's
//! markup it is cleaned (nothing invisible, nothing that turns the direction of reading, one line) and cut at a character,
//! and only then escaped: cutting what is escaped leaves halves of entities behind.
//!
//! Absent on purpose: what is markup on which platform. Each kind brings its own [`Script`].

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

/// Whether a character has no shape of its own: controls, everything that Unicode calls a format character (bidirectional
/// overrides, zero-width joiners, tags, language marks), fillers, variation selectors, and what is no character at all.
///
/// Joiners and selectors also shape some scripts and emoji; a card gives that up, because the same characters hide text from
/// the reader who is asked to approve it. Source: Unicode 16, general category Cf and property `Default_Ignorable_Code_Point`.
pub(super) fn is_invisible(c: char) -> bool {
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
        || u32::from(c) & 0xfffe == 0xfffe
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
