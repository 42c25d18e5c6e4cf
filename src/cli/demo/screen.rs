//! The demo's terminal: cards as they arrive, one line each, and what happens around them.
//!
//! Plain lines where nobody watches (a pipe, a file, CI); colours and a status line that is drawn over where somebody does.
//! What the cards say comes from decisions and is hostile, so nothing reaches the terminal that is not a printable character.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use tokio::time::Instant;

use crate::stand_ins::{Card, Fate, Platform, Received};

/// How wide a line may become, in characters.
const LINE_CHARS_MAX: usize = 118;

/// How many lines of the first card of a channel are drawn.
const CARD_LINES_MAX: usize = 12;

/// How the terminal is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lines of text, nothing else.
    Plain,
    /// Colours and a status line.
    Live,
}

impl Style {
    /// Live on a terminal whose user did not ask for `NO_COLOR`.
    pub fn choose(terminal: bool, no_color: bool) -> Self {
        if terminal && !no_color { Self::Live } else { Self::Plain }
    }
}

/// What the demo draws on.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    style: Style,
    started: Instant,
    introduced: HashSet<String>,
    status: String,
}

impl<W: Write> Screen<W> {
    /// A screen that writes to `out`.
    pub fn new(out: W, style: Style) -> Self {
        Self { out, style, started: Instant::now(), introduced: HashSet::new(), status: String::new() }
    }

    /// A part of the story begins.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.line("")?;
        let text = self.paint("1", &format!("== {text}"));
        self.line(&text)
    }

    /// Something happens.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint("1;33", &format!("   {} {}", self.seconds(), printable(text)));
        self.line(&text)
    }

    /// A line of the summary, as it is.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        match self.style {
            Style::Plain => writeln!(self.out, "{text}"),
            Style::Live => {
                // Over the status line, which is drawn again below.
                writeln!(self.out, "\r\x1b[2K{text}")?;
                write!(self.out, "\x1b[2m{}\x1b[0m", self.status)?;
                self.out.flush()
            }
        }
    }

    /// The line at the bottom; a plain screen has none.
    pub(super) fn status(&mut self, text: String) -> io::Result<()> {
        if self.style == Style::Live && text != self.status {
            self.status = text;
            write!(self.out, "\r\x1b[2K\x1b[2m{}\x1b[0m", self.status)?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// A request arrived at an endpoint.
    pub(super) fn arrival(&mut self, channel: &str, platform: Platform, received: &Received) -> io::Result<()> {
        let colour = colour(platform);
        let name = self.paint(colour, &format!("{channel:<17}"));
        match &received.fate {
            Fate::Refused => {
                let status = received.status.map_or("no answer".to_owned(), |status| status.to_string());
                let words = self.paint("31", &format!("x answers {status}"));
                self.line(&format!("   {} {name} {words}", self.seconds()))
            }
            Fate::Swallowed(why) => self.line(&format!("   {} {name} lost there: {}", self.seconds(), printable(why))),
            Fate::Aside => Ok(()),
            Fate::Taken => {
                let card = Card::read(platform, &received.body);
                if self.introduced.insert(channel.to_owned()) {
                    return self.first(channel, colour, card, received);
                }
                // A firehose is counted, not narrated: it has no card.
                let Some(card) = card else { return Ok(()) };
                let room = LINE_CHARS_MAX - 28;
                let said: Vec<String> = card.lines.iter().map(|line| printable(line)).collect();
                self.line(&format!("   {} {name} {}", self.seconds(), cut(&said.join(" | "), room)))
            }
        }
    }

    /// The first message that a channel got, drawn whole.
    fn first(&mut self, channel: &str, colour: &str, card: Option<Card>, received: &Received) -> io::Result<()> {
        let mut lines = Vec::new();
        if let Some(card) = card {
            lines.extend(card.lines.iter().take(CARD_LINES_MAX).map(|line| cut(&printable(line), LINE_CHARS_MAX - 8)));
            if !card.buttons.is_empty() {
                let buttons: Vec<String> =
                    card.buttons.iter().map(|label| format!("[ {} ]", printable(label))).collect();
                lines.push(cut(&buttons.join("  "), LINE_CHARS_MAX - 8));
            }
        } else {
            lines.push(cut(&printable(&String::from_utf8_lossy(&received.body)), LINE_CHARS_MAX - 8));
        }
        let top = self.paint(colour, &format!("   +-- {channel}: the first message"));
        self.line(&top)?;
        let bar = self.paint(colour, "   |");
        for line in lines {
            self.line(&format!("{bar}   {line}"))?;
        }
        let bottom = self.paint(colour, "   +--");
        self.line(&bottom)
    }

    /// Ends the status line.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.status(String::new())?;
        self.out.flush()
    }

    fn seconds(&self) -> String {
        format!("{:>5.1}s", self.started.elapsed().as_secs_f64())
    }

    fn paint(&self, codes: &str, text: &str) -> String {
        match self.style {
            Style::Plain => text.to_owned(),
            Style::Live => format!("\x1b[{codes}m{text}\x1b[0m"),
        }
    }
}

const fn colour(platform: Platform) -> &'static str {
    match platform {
        Platform::Slack => "35",
        Platform::Discord => "34",
        Platform::Teams => "36",
        Platform::Telegram => "32",
        Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => "33",
    }
}

/// The printable characters of a text: no control characters, nothing that turns the direction of writing, nothing invisible.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| {
            !c.is_control()
                && !matches!(*c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                && !matches!(*c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        })
        .collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(chars_max - 3).collect();
    cut.push_str("...");
    cut
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn received(text: &str) -> Received {
        Received {
            at: Instant::now(),
            method: "POST".to_owned(),
            path: String::new(),
            query: String::new(),
            headers: http::HeaderMap::new(),
            body: Bytes::from(json!({"text": text}).to_string()),
            fate: Fate::Taken,
            ids: Vec::new(),
            digest: None,
            status: Some(200),
        }
    }

    #[test]
    fn a_plain_screen_writes_no_escape_whatever_a_card_says() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Style::Plain);
        for _ in 0..2 {
            let hostile = received("\u{1b}[2J\u{9b}31m\u{7}\u{202e}evil\u{0} \u{2066}x\r\nsecond line");
            screen.arrival("soc-slack", Platform::Slack, &hostile).unwrap();
        }
        screen.status("unseen".to_owned()).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
        assert!(out.contains("evil") && out.contains("second line") && !out.contains("unseen"), "{out}");
        assert!(!out.contains('\u{202e}') && !out.contains('\u{2066}'));
    }

    #[test]
    fn lines_are_bounded_and_no_colour_is_used_unless_somebody_watches() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Style::choose(true, false));
        for _ in 0..2 {
            screen.arrival("siem", Platform::Telegram, &received(&"é".repeat(5_000))).unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\x1b[32m"));
        assert!(out.lines().all(|line| line.chars().count() < LINE_CHARS_MAX + 40), "{out}");
        assert_eq!(Style::choose(true, true), Style::Plain);
        assert_eq!(Style::choose(false, false), Style::Plain);
    }
}
