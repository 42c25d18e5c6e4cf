//! What a card says, before any platform has a word in how.
//!
//! [`Card`] is the picture of the product page: headline, title, agent, tool, why, risk, how late it is, and what may be
//! clicked. Hostile text in it is still raw, and is only borrowed; what we say ourselves is plain text without markup. The
//! chat kinds take it from here: [`Markup`] writes it as lines of text, where a platform has no better form.
//!
//! All hostile text stands in code spans, on every platform that has them. Inside one nothing is a mention, a link, an emoji or
//! bold, and there is one character to defuse instead of a platform's whole grammar.

use std::{borrow::Cow, time::Duration};

use super::{
    Links, Occasion,
    text::{Line, Script, is_blank},
};
use crate::model::{Approval, Decision, Delivery, Timestamp};

/// From when on a delivery says how late it is. Source: contract 9.
const LATE_AFTER: Duration = Duration::from_mins(1);

/// The longest link that is shown, in bytes: shorter than every platform's limit (Discord: 2,048). Only an absurd
/// `public_url` or a hostile id makes a longer one, and the card is worth more than the link.
const LINK_BYTES_MAX: usize = 1_024;

/// What a card says.
#[derive(Debug)]
pub(super) struct Card<'a> {
    /// `[Interven] REQUIRE_APPROVAL`.
    pub headline: String,
    /// Hostile; left out where nothing of it can be seen.
    pub title: Option<&'a str>,
    /// Hostile: the agent's name, or its id.
    pub agent: &'a str,
    /// Hostile: `tool.operation`.
    pub tool: &'a str,
    /// Hostile, possibly none.
    pub reasons: &'a [Box<str>],
    /// `HIGH (0.71)`, or `HIGH` where there is no number.
    pub risk: String,
    /// What else the reader must know: that it comes late, that it is too late to answer.
    pub notes: Vec<String>,
    /// The approval that can still be answered, where there is one.
    pub ask: Option<Ask<'a>>,
    /// Where the decision can be looked at.
    view: Option<Link>,
}

/// An approval that can still be answered.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// The approval.
    pub approval: &'a Approval,
    /// The page where it is answered.
    page: Option<String>,
}

/// Something to click that leads to a page of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// What it says.
    pub label: &'static str,
    /// Where it leads: printable ASCII with nothing that ends a link in any platform's markup.
    pub url: String,
}

impl<'a> Card<'a> {
    /// The card of a delivery.
    pub(super) fn new(delivery: &'a Delivery, occasion: &Occasion<'_>) -> Self {
        let decision = &*delivery.decision;
        let mut card = Self::of(decision, occasion.links);
        card.notes.extend(lateness(occasion.now, decision.time));
        if let Some(approval) = decision.approval_asked() {
            if approval.expires_at.is_some_and(|end| end <= occasion.now) {
                card.notes.push(String::from("the approval has expired"));
            } else {
                card.ask = Some(Ask { approval, page: usable(&occasion.links.approval(&approval.id)) });
            }
        }
        card
    }

    /// What is to be said of a decision whenever that is: nothing can be answered.
    pub(super) fn of(decision: &'a Decision, links: &Links) -> Self {
        Self {
            headline: format!("[Interven] {}", decision.kind),
            title: title(decision),
            agent: agent(decision),
            tool: decision.tool_name(),
            reasons: &decision.reasons,
            risk: risk(decision),
            notes: Vec::new(),
            ask: None,
            view: usable(&links.decision(&decision.id)).map(|url| Link { label: "View in Console", url }),
        }
    }

    /// The link to the decision.
    pub(super) fn view(&self) -> Option<Link> {
        self.view.clone()
    }

    /// The link to the page where the approval is answered, where one is asked for.
    pub(super) fn review(&self) -> Option<Link> {
        let url = self.ask.as_ref()?.page.clone()?;
        Some(Link { label: "Review", url })
    }

    /// Approve, Deny and View in Console as links, for platforms where nothing can be answered in place.
    pub(super) fn links(&self) -> Vec<Link> {
        let page = self.ask.as_ref().and_then(|ask| ask.page.as_deref());
        let answer = |label, answer| page.map(|page| Link { label, url: format!("{page}?answer={answer}") });
        [answer("Approve", "approve"), answer("Deny", "deny"), self.view()].into_iter().flatten().collect()
    }
}

/// The title, where something of it can be seen.
pub(super) fn title(decision: &Decision) -> Option<&str> {
    decision.title.as_deref().filter(|title| !is_blank(title))
}

/// The agent's name where something of it can be seen, or else its id.
pub(super) fn agent(decision: &Decision) -> &str {
    decision.agent.name.as_deref().filter(|name| !is_blank(name)).unwrap_or(&decision.agent.id)
}

/// `HIGH (0.71)`, or `HIGH` where there is no number.
pub(super) fn risk(decision: &Decision) -> String {
    match decision.risk {
        Some(risk) => format!("{} ({risk:.2})", decision.severity),
        None => decision.severity.to_string(),
    }
}

/// How late something is that happened at `time`, where it is worth saying.
pub(super) fn lateness(now: Timestamp, time: Timestamp) -> Option<String> {
    let late = now.since(time);
    (late > LATE_AFTER).then(|| format!("delivered {} late", lasting(late)))
}

/// `url` with everything percent-encoded that ends a link in some markup; `None` where it is too long to be one. The ids in it
/// are encoded already ([`super::Links`]); this is about the base, which an operator wrote.
pub(super) fn usable(url: &str) -> Option<String> {
    let mut safe = Cow::Borrowed(url);
    if !url.bytes().all(is_link_byte) {
        let mut encoded = String::with_capacity(url.len() + 16);
        for byte in url.bytes() {
            if is_link_byte(byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push('%');
                encoded.push(char::from(HEX[usize::from(byte >> 4)]));
                encoded.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        safe = Cow::Owned(encoded);
    }
    (safe.len() <= LINK_BYTES_MAX).then(|| safe.into_owned())
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Whether a byte may stand in a link as it is, on every platform.
fn is_link_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>[]{}|\\^`\"'*".contains(&byte)
}

/// A duration for people: `42 s`, `5 min`, `3 h 20 min`, `4 days`.
pub(super) fn lasting(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (hours, rest) = (minutes / 60, minutes % 60);
    match hours {
        0 if minutes == 0 => format!("{} s", duration.as_secs()),
        0 => format!("{minutes} min"),
        1..48 if rest == 0 => format!("{hours} h"),
        1..48 => format!("{hours} h {rest} min"),
        _ => format!("{} days", hours / 24),
    }
}

/// How much of each hostile text is shown, in the platform's unit. The sums leave room for what we say ourselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    pub title: usize,
    pub agent: usize,
    pub tool: usize,
    /// All reasons together.
    pub why: usize,
}

impl Rooms {
    /// For cards: 1,650 together, more than anybody reads, less than every platform takes.
    pub(super) const CARD: Self = Self { title: 300, agent: 150, tool: 200, why: 1_000 };
    /// For the plain-text form, which must pass where the card did not: 700 together.
    pub(super) const PLAIN: Self = Self { title: 200, agent: 80, tool: 120, why: 300 };
}

/// How a platform writes a card as lines of text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Markup {
    /// What stands before and after what is ours and important.
    pub strong: (&'static str, &'static str),
    /// What stands before and after hostile text, and switches all markup off in between.
    pub quote: (&'static str, &'static str),
    /// How hostile text is written in between.
    pub script: Script,
}

impl Markup {
    /// Writes everything but headline and links to `out`: title, agent, tool, why, risk and notes, a line each.
    pub(super) fn rows(&self, out: &mut String, card: &Card<'_>, rooms: Rooms) {
        if let Some(title) = card.title {
            self.quote(out, title, rooms.title);
            out.push('\n');
        }
        self.label(out, "agent:");
        self.quote(out, card.agent, rooms.agent);
        out.push('\n');
        self.label(out, "tool:");
        self.quote(out, card.tool, rooms.tool);
        out.push('\n');
        self.label(out, "why:");
        self.why(out, card.reasons, rooms.why);
        out.push('\n');
        self.label(out, "risk:");
        out.push_str(&card.risk);
        for note in &card.notes {
            out.push('\n');
            out.push_str(note);
        }
    }

    /// Writes what is ours, and important.
    pub(super) fn strong(&self, out: &mut String, ours: &str) {
        out.push_str(self.strong.0);
        out.push_str(ours);
        out.push_str(self.strong.1);
    }

    /// Writes hostile text.
    pub(super) fn quote(&self, out: &mut String, hostile: &str, room: usize) {
        out.push_str(self.quote.0);
        let mut line = Line::new(out, self.script, room);
        line.push(hostile);
        line.finish();
        out.push_str(self.quote.1);
    }

    /// Writes the reasons, comma between them, and how many found no room.
    pub(super) fn why(&self, out: &mut String, reasons: &[Box<str>], room: usize) {
        out.push_str(self.quote.0);
        let mut line = Line::new(out, self.script, room);
        let mut missing = 0;
        for (index, reason) in reasons.iter().enumerate() {
            if index > 0 {
                line.comma();
            }
            line.push(reason);
            if line.is_full() {
                missing = reasons.len() - index - 1;
                break;
            }
        }
        line.finish();
        out.push_str(self.quote.1);
        if missing > 0 {
            out.extend([" and ", &missing.to_string(), " more"]);
        }
    }

    fn label(&self, out: &mut String, label: &str) {
        self.strong(out, label);
        out.push(' ');
    }
}

/// Writes `links` to `out`, each by `write` after `before`, as long as `room` more characters are not exceeded. Those that
/// find no room are left out whole.
pub(super) fn push_links(
    out: &mut String,
    links: &[Link],
    room: usize,
    before: [&str; 2],
    write: impl Fn(&mut String, &Link),
) {
    let limit = out.len() + room;
    for (index, link) in links.iter().enumerate() {
        let mark = out.len();
        out.push_str(before[usize::from(index > 0)]);
        write(out, link);
        // Bytes bound characters from above, so no limit in characters is missed.
        if out.len() > limit {
            out.truncate(mark);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_the_largest_unit_that_matters() {
        for (seconds, told) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min"),
            (5 * 60 + 59, "5 min"),
            (3_600, "1 h"),
            (12_000, "3 h 20 min"),
            (4 * 86_400 + 7_000, "4 days"),
        ] {
            assert_eq!(lasting(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn a_link_holds_nothing_that_ends_it_and_is_left_out_when_absurd() {
        let link = usable("https://x.example/a)b|c>d e`ü/decisions/1").unwrap();
        assert_eq!(link, "https://x.example/a%29b%7Cc%3Ed%20e%60%C3%BC/decisions/1");
        assert_eq!(usable(&format!("https://x.example/{}", "x".repeat(LINK_BYTES_MAX))), None);
    }

    #[test]
    fn links_without_room_are_left_out_whole() {
        let links = [Link { label: "a", url: "12345".into() }, Link { label: "b", url: "67890".into() }];
        let write = |out: &mut String, link: &Link| out.push_str(&link.url);
        for (room, expected) in [(20, "x\n12345 67890"), (11, "x\n12345"), (5, "x")] {
            let mut out = String::from("x");
            push_links(&mut out, &links, room, ["\n", " "], write);
            assert_eq!(out, expected);
        }
    }
}
