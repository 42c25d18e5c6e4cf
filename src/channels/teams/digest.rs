//! A digest as Teams shows it: the numbers as facts, the most severe as lines with a link in each.

use super::{
    super::digest_card::{DigestCard, Word},
    Action, Element, Fact, in_text, quote,
};

/// The body of the card, and its actions. In the plain form there are paragraphs alone, and the link stands in the text.
pub(super) fn elements(card: &DigestCard<'_>, plain: bool) -> (Vec<Element>, Vec<Action>) {
    let mut body = Vec::with_capacity(16);
    body.push(Element::heading(&card.headline));
    let facts = card.rows.iter().map(|row| Fact { title: row.label, value: line(&row.words) });
    if plain {
        body.extend(facts.map(|fact| Element::text(format!("{}: {}", fact.title, fact.value))));
    } else {
        body.push(Element::FactSet { facts: facts.collect() });
    }
    body.extend(card.note.iter().map(|note| Element::text(note.clone())));
    if !card.worst.is_empty() {
        body.push(Element::text(String::from("most severe:")));
    }
    for named in &card.worst {
        let mut text = line(&named.words);
        if let Some(link) = &named.link {
            text.push(' ');
            text.push_str(&in_text(link));
        }
        body.push(Element::text(text));
    }
    if plain {
        body.extend(card.view.iter().map(|link| Element::text(in_text(link))));
        return (body, Vec::new());
    }
    (body, card.view.iter().cloned().map(Action::open).collect())
}

fn line(words: &[Word<'_>]) -> String {
    let mut line = String::with_capacity(256);
    for word in words {
        match word {
            Word::Ours(ours) => line.push_str(ours),
            Word::Quoted(text, room) => line.push_str(&quote(text, *room)),
        }
    }
    line
}
