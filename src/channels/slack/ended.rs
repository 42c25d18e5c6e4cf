//! A card whose approval has ended: the same card without the buttons, and with who answered and when, or that nobody did in time.
//!
//! It is made from what we know, and nothing of the message that comes with a click stands in it. People choose what they are
//! called, so their names are hostile text as the decision's is.

use bytes::Bytes;
use serde::Serialize;

use super::{
    super::{
        Endpoint, Links, Parcel, PostedCard,
        card::{Card, Link, Rooms, push_links},
        text::is_blank,
    },
    MARKUP, Said, Slack, TEXT_CHARS_MAX,
    message::{Block, Element},
    write_link,
};
use crate::model::{Decision, Reply, Timestamp, Verdict};

/// How much of a person's name, and of an approval's id, is shown, in UTF-16 units.
const NAME_UNITS_MAX: usize = 80;

/// An approval that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// What asked for it, where that is known.
    pub decision: Option<&'a Decision>,
    /// Its id, where that is known; shown where the decision is not.
    pub approval: Option<&'a str>,
    /// How it ended.
    pub how: How<'a>,
}

/// How an approval ended.
#[derive(Clone, Copy, Debug)]
pub enum How<'a> {
    /// Somebody answered.
    Answered(Given<'a>),
    /// Nobody did before this moment.
    Expired(Option<Timestamp>),
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Whether it was to approve.
    pub approved: bool,
    /// What the one who gave it is called. Hostile.
    pub name: &'a str,
    /// Their id, which they cannot choose.
    pub id: &'a str,
    /// When.
    pub at: Timestamp,
    /// Where: `in Slack`.
    pub place: &'static str,
}

/// What Slack is told about a message that is there already.
#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replace_original: Option<bool>,
    /// What is changed is read as if somebody had typed it, unless we say how a message that is posted is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    parse: Option<&'static str>,
    text: String,
    /// Written also where there are none: otherwise the old ones stay.
    blocks: Vec<Block<'a>>,
}

impl Slack {
    /// The request that changes a card that was posted; `None` where there is no bot, and so nobody who could change it.
    pub fn change(&self, posted: &PostedCard, ended: &Ended<'_>, links: &Links, plain: bool) -> Option<Parcel> {
        let update = self.update.clone()?;
        let card = ended.decision.map(|decision| Card::of(decision, links));
        let mut change = written(ended, card.as_ref(), plain);
        change.channel = Some(&posted.conversation);
        change.ts = Some(&posted.ts);
        change.parse = Some("none");
        Some(Parcel { endpoint: update, headers: self.headers.clone(), body: json(&change) })
    }

    /// The request that replaces the card that was clicked, by the URL that came with the click.
    pub fn replacement(&self, to: Endpoint, ended: &Ended<'_>, links: &Links, plain: bool) -> Parcel {
        let card = ended.decision.map(|decision| Card::of(decision, links));
        let mut change = written(ended, card.as_ref(), plain);
        change.replace_original = Some(true);
        Parcel { endpoint: to, headers: super::json_headers(), body: json(&change) }
    }

    /// What `reply` to what was sent to the URL of a click means. Slack names no body for it: a 2xx that names no error has it.
    pub fn judge_replacement(&self, reply: &Reply) -> Verdict {
        match Said::read(reply.text().trim()) {
            Said::Ok | Said::Other if reply.status.is_success() => Verdict::DELIVERED,
            Said::Ok | Said::Other | Said::Error(_) => self.judge_change(reply),
        }
    }

    /// What `reply` to a change means. What is gone cannot be changed: no other form of the card helps, and nobody can mend it.
    pub fn judge_change(&self, reply: &Reply) -> Verdict {
        let gone = |code: &str| {
            let codes = ["message_not_found", "cant_update_message", "edit_window_closed", "expired_url", "used_url"];
            codes.contains(&code)
        };
        if let Said::Error(code) = Said::read(reply.text().trim())
            && gone(&code)
        {
            return Verdict::Refused { plain_may_pass: false, why: super::explain(reply) };
        }
        super::Channel::judge(self, reply)
    }
}

fn json(change: &impl Serialize) -> Bytes {
    serde_json::to_vec(change).expect("texts and flags are always JSON").into()
}

fn written<'a>(ended: &Ended<'_>, card: Option<&'a Card<'_>>, plain: bool) -> Change<'a> {
    let mut status = String::with_capacity(160);
    how(&mut status, ended.how, true);
    let (mut text, mut blocks) = (String::with_capacity(512), Vec::new());
    let headline = card.map_or("[Interven] REQUIRE_APPROVAL", |card| &card.headline);
    let mut rows = String::with_capacity(512);
    if let Some(card) = card {
        MARKUP.rows(&mut rows, card, if plain { Rooms::PLAIN } else { Rooms::CARD });
    } else {
        MARKUP.strong(&mut rows, "approval:");
        rows.push(' ');
        MARKUP.quote(&mut rows, ended.approval.unwrap_or("-"), NAME_UNITS_MAX);
    }
    let view = card.and_then(Card::view);
    if plain {
        MARKUP.strong(&mut text, headline);
        text.extend(["\n", &rows, "\n", &status]);
        let links: Vec<Link> = view.into_iter().collect();
        let room = TEXT_CHARS_MAX.saturating_sub(text.encode_utf16().count());
        push_links(&mut text, &links, room, ["\n", " | "], write_link);
    } else {
        text.extend([headline, ": "]);
        how(&mut text, ended.how, false);
        blocks = vec![Block::header(headline), Block::section(rows), Block::section(status)];
        blocks.extend(Block::actions(view.into_iter().map(|link| Element::link("view", link)).collect()));
    }
    Change { channel: None, ts: None, replace_original: None, parse: None, text, blocks }
}

/// Writes how it ended: `Approved by NAME (ID) at TIME, in Slack`.
pub(super) fn how(out: &mut String, how: How<'_>, loud: bool) {
    let say = |out: &mut String, ours: &str| if loud { MARKUP.strong(out, ours) } else { out.push_str(ours) };
    match how {
        How::Answered(given) => {
            say(out, if given.approved { "Approved" } else { "Denied" });
            out.push_str(" by ");
            who(out, given.name, given.id);
            out.extend([" at ", &given.at.for_people(), ", ", given.place]);
        }
        How::Expired(at) => {
            say(out, "Expired");
            if let Some(at) = at {
                out.extend([" at ", &at.for_people()]);
            }
            out.push_str(": nobody answered in time");
        }
    }
}

/// Writes a person: what they are called, and who they really are.
pub(super) fn who(out: &mut String, name: &str, id: &str) {
    if !is_blank(name) && name != id {
        MARKUP.quote(out, name, NAME_UNITS_MAX);
        out.push_str(" (");
        MARKUP.quote(out, id, NAME_UNITS_MAX);
        out.push(')');
    } else {
        MARKUP.quote(out, id, NAME_UNITS_MAX);
    }
}

#[cfg(test)]
#[path = "ended_tests.rs"]
mod tests;
