//! A digest as Slack shows it: the numbers in one section, the most severe in another, and a button below.

use super::{
    super::{card::push_links, digest_card::DigestCard},
    MARKUP, TEXT_CHARS_MAX,
    message::{Block, Element, Message},
    write_link,
};

/// The longest text of a section, in characters. Source: Slack API reference, Block Kit, "section".
const SECTION_CHARS_MAX: usize = 3_000;

/// The longest link to the console in a plain message, in bytes: the most severe have links too.
const LINK_BYTES_MAX: usize = 1_000;

/// Puts the digest into `message`.
pub(super) fn write<'c>(message: &mut Message<'c>, card: &'c DigestCard<'_>, plain: bool) {
    if plain {
        message.text = in_text(card);
        return;
    }
    message.text = format!("{}: {}", card.headline, card.kinds);
    let (mut counts, mut worst) = (String::with_capacity(1_024), String::with_capacity(1_024));
    MARKUP.counts(&mut counts, card);
    MARKUP.worst(&mut worst, card, "", SECTION_CHARS_MAX, write_link);
    message.blocks = vec![Block::header(&card.headline), Block::section(counts)];
    if !worst.is_empty() {
        message.blocks.push(Block::section(worst));
    }
    let view = card.view.iter().map(|link| Element::link("view", link.clone()));
    message.blocks.extend(Block::actions(view.collect()));
}

/// The digest without blocks, for when Slack refuses ours.
fn in_text(card: &DigestCard<'_>) -> String {
    let mut text = String::with_capacity(1_024);
    MARKUP.strong(&mut text, &card.headline);
    text.push('\n');
    MARKUP.counts(&mut text, card);
    let mut end = String::new();
    push_links(&mut end, card.view.as_slice(), LINK_BYTES_MAX, ["\n", ""], write_link);
    let room = TEXT_CHARS_MAX.saturating_sub(text.encode_utf16().count() + end.len());
    MARKUP.worst(&mut text, card, "\n", room, write_link);
    text.push_str(&end);
    text
}
