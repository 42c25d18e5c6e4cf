//! What a digest says, before any platform has a word in how: [`Card`](super::card::Card) for thousands of decisions at once.
//!
//! The numbers are never cut: names are, so that the rows fit every platform whatever the names are. The most severe decisions
//! come last and take what room is left, because each of them has a link, whose length is the operator's and the id's.
//!
//! Absent on purpose: anything to answer. Who is asked for an approval gets a card of its own.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    Occasion,
    card::{Link, Markup, agent, lasting, lateness, risk, title, usable},
};
use crate::model::{Decision, Digest, Severity, Timestamp, digest::Groups};

/// What a digest says.
#[derive(Debug)]
pub(super) struct DigestCard<'a> {
    /// `[Interven] 9998 decisions`, in digits alone: programs read it too.
    pub headline: String,
    /// `DENY 9000, ALLOW 998`.
    pub kinds: String,
    /// The counts and the time.
    pub rows: Vec<Row<'a>>,
    /// What else the reader must know: that it comes late.
    pub note: Option<String>,
    /// The most severe decisions, from the worst.
    pub worst: Vec<Named<'a>>,
    /// How grave the worst one is.
    pub severity: Severity,
    /// Where all decisions can be looked at.
    pub view: Option<Link>,
}

/// One line of counts.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// What is counted, without a colon.
    pub label: &'static str,
    /// The counts.
    pub words: Vec<Word<'a>>,
}

/// One decision in a line.
#[derive(Debug)]
pub(super) struct Named<'a> {
    /// What it was.
    pub words: Vec<Word<'a>>,
    /// Where it can be looked at.
    pub link: Option<Link>,
}

/// A piece of a line.
#[derive(Debug)]
pub(super) enum Word<'a> {
    /// What we say ourselves: plain text without markup.
    Ours(Cow<'a, str>),
    /// What a platform must show as it is, which hostile text is, and how much of it is shown.
    Quoted(Cow<'a, str>, usize),
}

/// How much of each hostile text is shown, in the platform's unit: 30 names, and five decisions with a title and two names.
struct Rooms {
    name: usize,
    title: usize,
}

impl Rooms {
    /// For cards: 2,320 together. With the numbers, Telegram's 4,096 is the closest limit.
    const CARD: Self = Self { name: 48, title: 80 };
    /// For the plain-text form: 600 in the rows, because Discord takes 2,000 with the numbers.
    const PLAIN: Self = Self { name: 20, title: 40 };
}

impl<'a> DigestCard<'a> {
    /// The card of a digest.
    pub(super) fn new(digest: &'a Digest, plain: bool, occasion: &Occasion<'_>) -> Self {
        let rooms = if plain { Rooms::PLAIN } else { Rooms::CARD };
        let noun = if digest.total == 1 { "decision" } else { "decisions" };
        let kinds: Vec<String> = digest.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let kinds = kinds.join(", ");
        let rows = vec![
            Row { label: "decisions", words: vec![Word::Ours(kinds.clone().into())] },
            Row { label: "agents", words: counts(&digest.agents, &rooms) },
            Row { label: "tools", words: counts(&digest.tools, &rooms) },
            Row { label: "reasons", words: counts(&digest.reasons, &rooms) },
            Row { label: "time", words: span(digest.span) },
        ];
        let view = usable(&occasion.links.console).map(|url| Link { label: "View in Console", url });
        Self {
            headline: format!("[Interven] {} {noun}", digest.total),
            kinds,
            rows,
            // Of the one that has waited longest.
            note: lateness(occasion.now, digest.span.0),
            worst: digest.worst.iter().map(|decision| named(decision, &rooms, occasion)).collect(),
            severity: digest.worst.first().map_or(Severity::Low, |decision| decision.severity),
            view,
        }
    }
}

/// `crawler` 9000, `builder` 990 and 2 others: 8.
fn counts<'a>(groups: &'a Groups, rooms: &Rooms) -> Vec<Word<'a>> {
    let mut words = Vec::with_capacity(2 * groups.top.len() + 1);
    for (index, (name, count)) in groups.top.iter().enumerate() {
        words.push(Word::Quoted(name.into(), rooms.name));
        let last = index + 1 == groups.top.len();
        words.push(Word::Ours(format!(" {count}{}", if last { "" } else { ", " }).into()));
    }
    match groups.others {
        0 if words.is_empty() => words.push(Word::Ours("none".into())),
        0 => {}
        1 => words.push(Word::Ours(format!(" and 1 other: {}", groups.others_total).into())),
        others => words.push(Word::Ours(format!(" and {others} others: {}", groups.others_total).into())),
    }
    words
}

/// `2026-06-01 12:00:00 to 12:34:10 UTC`, and how long that is.
///
/// Quoted, because `:00:` could be an emoji of somebody's.
fn span<'a>((first, last): (Timestamp, Timestamp)) -> Vec<Word<'a>> {
    let mut text = String::with_capacity(48);
    let (from, to) = (first.date_time(), last.date_time());
    for (index, moment) in [from, to].into_iter().enumerate() {
        if index > 0 {
            text.push_str(" to ");
        }
        if index == 0 || from.date() != to.date() {
            write!(text, "{} ", moment.date()).expect("writing to a String never fails");
        }
        write!(text, "{:02}:{:02}:{:02}", moment.hour(), moment.minute(), moment.second())
            .expect("writing to a String never fails");
    }
    text.push_str(" UTC");
    let room = text.len();
    vec![Word::Quoted(text.into(), room), Word::Ours(format!(" ({})", lasting(last.since(first))).into())]
}

/// HIGH (0.71) DENY `slack.post_message` by `crawler`: `Secret egress blocked`.
fn named<'a>(decision: &'a Decision, rooms: &Rooms, occasion: &Occasion<'_>) -> Named<'a> {
    let mut words = vec![
        Word::Ours(format!("{} {} ", risk(decision), decision.kind).into()),
        Word::Quoted(decision.tool_name().into(), rooms.name),
        Word::Ours(" by ".into()),
        Word::Quoted(agent(decision).into(), rooms.name),
    ];
    if let Some(title) = title(decision) {
        words.extend([Word::Ours(": ".into()), Word::Quoted(title.into(), rooms.title)]);
    }
    let link = usable(&occasion.links.decision(&decision.id)).map(|url| Link { label: "View", url });
    Named { words, link }
}

impl Markup {
    /// Writes everything but headline, the most severe and the link to `out`: a line for each row, and the note.
    pub(super) fn counts(&self, out: &mut String, card: &DigestCard<'_>) {
        for (index, row) in card.rows.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.strong(out, &format!("{}:", row.label));
            out.push(' ');
            self.words(out, &row.words);
        }
        if let Some(note) = &card.note {
            out.push('\n');
            out.push_str(note);
        }
    }

    /// Writes the most severe to `out` after `before`, a line each, links by `write`, in at most `room` UTF-16 units. A link
    /// that finds no room is left out, and so is a decision with those after it.
    pub(super) fn worst(
        &self,
        out: &mut String,
        card: &DigestCard<'_>,
        before: &str,
        room: usize,
        write: impl Fn(&mut String, &Link),
    ) {
        let mut left = room;
        let mut fits = |out: &mut String, mark: usize| {
            let rest = left.checked_sub(out[mark..].encode_utf16().count());
            left = rest.unwrap_or(left);
            if rest.is_none() {
                out.truncate(mark);
            }
            rest.is_some()
        };
        for (index, named) in card.worst.iter().enumerate() {
            let mark = out.len();
            if index == 0 {
                out.push_str(before);
                self.strong(out, "most severe:");
            }
            out.push('\n');
            self.words(out, &named.words);
            if !fits(out, mark) {
                return;
            }
            let mark = out.len();
            if let Some(link) = &named.link {
                out.push(' ');
                write(out, link);
                fits(out, mark);
            }
        }
    }

    fn words(&self, out: &mut String, words: &[Word<'_>]) {
        for word in words {
            match word {
                Word::Ours(ours) => out.push_str(ours),
                Word::Quoted(text, room) => self.quote(out, text, *room),
            }
        }
    }
}
