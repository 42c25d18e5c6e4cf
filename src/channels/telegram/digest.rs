//! A digest as Telegram shows it: the numbers, the most severe with a link in each line, and a button below.

use super::{
    super::{card::push_links, digest_card::DigestCard},
    HTML, MARKED, Message, TEXT_UNITS_MAX, entities, keyboard, write_link,
};

/// How much markup the most severe may take with their links, in UTF-16 units, which are at most three bytes each: the text
/// as it is sent may have 32,768 bytes. Without the markup they always fit, because links do not count.
const HTML_UNITS_MAX: usize = 7_000;

/// The longest link to the console in a plain message, in bytes: the most severe have links too.
const LINK_BYTES_MAX: usize = 1_000;

/// The message that tells the digest.
pub(super) fn message(card: &DigestCard<'_>, plain: bool) -> Message {
    let mut message = Message::default();
    let text = &mut message.text;
    let markup = if plain { MARKED } else { HTML };
    markup.strong(text, &card.headline);
    text.push('\n');
    markup.counts(text, card);
    if plain {
        let mut end = String::new();
        push_links(&mut end, card.view.as_slice(), LINK_BYTES_MAX, ["\n\n", ""], write_link);
        let room = TEXT_UNITS_MAX.saturating_sub(text.encode_utf16().count() + end.len());
        markup.worst(text, card, "\n\n", room, write_link);
        text.push_str(&end);
        message.entities = entities(text);
    } else {
        markup.worst(text, card, "\n\n", HTML_UNITS_MAX, |out, link| {
            // In an attribute only `&` is left to escape: `Link` promises that there is no quotation mark and no bracket.
            let url = link.url.replace('&', "&amp;");
            out.extend(["<a href=\"", &url, "\">", link.label, "</a>"]);
        });
        message.parse_mode = Some("HTML");
        message.reply_markup = keyboard(card.view.iter().cloned().collect());
    }
    message
}
