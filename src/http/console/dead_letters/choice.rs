//! Which letters are meant: the words of an address or of a form, which are those of the API. Pure.
//!
//! A page's own words come on top: an empty field of a form means nothing, and times may be written as people do, in UTC.

use crate::{
    dead_letters::{Cause, LetterFilter, LetterId},
    http::{
        console::moment,
        dead_letters::words::{self, Asked},
        errors::ApiError,
        pool::orders::Bound,
    },
    workers::letters::query,
};

/// The words of the API's that a page understands.
const WORDS: [&str; 8] = ["channel", "reason", "cause", "decision", "severity", "since", "until", "before"];

/// The words of a page's own: one letter, and up to where a worker was counted.
const ONE: &str = "id";
pub(super) const COUNTED: &str = "counted";

/// What is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) filter: LetterFilter,
    /// Only what is older than this one.
    pub(super) before: Option<LetterId>,
    /// Up to where each worker was counted.
    pub(super) bounds: Vec<Bound>,
}

impl Choice {
    pub(super) fn of_query(query: &str) -> Result<Self, ApiError> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self::of_fields(&pairs)
    }

    pub(super) fn of_fields(fields: &[(String, String)]) -> Result<Self, ApiError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let (mut ids, mut bounds) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            // A cause is what somebody's endpoint said, to the last space.
            let value = if name == "cause" { value } else { value.trim() };
            match name.as_str() {
                ONE if !value.is_empty() => ids.push(words::id(value)?),
                COUNTED => bounds.extend(bound(value)),
                "since" | "until" if !value.is_empty() => drop(query.append_pair(name, &moment(value))),
                word if WORDS.contains(&word) && !value.is_empty() => drop(query.append_pair(name, value)),
                // What a page does not know narrows nothing; a purge shows what it means before it is one.
                _ => {}
            }
        }
        let Asked { filter, before, .. } = Asked::read(&query.finish())?;
        Ok(Self { filter: LetterFilter { ids, ..filter }, before, bounds })
    }
}

/// The address of `path` for these letters.
pub(super) fn href(path: &str, filter: &LetterFilter) -> String {
    let mut parts = vec![query(&LetterFilter { limit: None, ..filter.clone() })];
    parts.extend(filter.ids.iter().map(|id| format!("{ONE}={id}")));
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

/// The address of those of them that are older than this one.
pub(super) fn page_href(path: &str, filter: &LetterFilter, before: LetterId) -> String {
    let first = href(path, filter);
    let joint = if first.contains('?') { '&' } else { '?' };
    format!("{first}{joint}before={before}")
}

/// Those among the chosen that died of this.
pub(super) fn of_cause(filter: &LetterFilter, cause: &Cause) -> LetterFilter {
    LetterFilter {
        channel: cause.channel.clone(),
        reason: Some(cause.reason),
        // What a store has too many causes to tell apart is no cause.
        cause: Some(cause.detail.clone()).filter(|detail| !detail.is_empty() && detail != "(other)"),
        ..filter.clone()
    }
}

/// The fields of a form that mean the same.
pub(super) fn fields(filter: &LetterFilter, bounds: &[Bound]) -> Vec<(&'static str, String)> {
    let words = query(&LetterFilter { limit: None, ..filter.clone() });
    let named = |name: &str| WORDS.into_iter().find(|word| *word == name);
    let pairs = url::form_urlencoded::parse(words.as_bytes());
    let mut fields: Vec<(&'static str, String)> =
        pairs.filter_map(|(name, value)| Some((named(&name)?, value.into_owned()))).collect();
    fields.extend(filter.ids.iter().map(|id| (ONE, id.to_string())));
    fields.extend(bounds.iter().map(|bound| (COUNTED, format!("{}@{}@{}", bound.worker, bound.up_to, bound.server))));
    fields
}

/// What a form says of a worker's count. What is none is left out, and that worker is given no order.
fn bound(text: &str) -> Option<Bound> {
    let mut parts = text.splitn(3, '@');
    let (worker, up_to) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // A name that is none of a peer's finds nobody.
    Some(Bound { worker, up_to, server: parts.next().unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{DeathReason, Severity};

    const ID: &str = "0197a2b4-0000-7000-8000-000000000001";

    #[test]
    fn a_form_with_empty_fields_means_what_the_others_say_and_times_are_read_as_people_write_them() {
        let choice = Choice::of_query(
            "channel=&reason=refused&severity=HIGH&decision=+d-1+&since=2026-06-01+12%3A30&until=2026-06-02&continued=1",
        );
        let Choice { filter, before, bounds } = choice.unwrap();
        assert_eq!((filter.reason, filter.severity), (Some(DeathReason::Refused), Some(Severity::High)));
        assert_eq!((filter.channel, filter.decision.as_deref()), (None, Some("d-1")));
        assert_eq!(filter.since.unwrap().to_string(), "2026-06-01T12:30:00Z");
        assert_eq!(filter.until.unwrap().to_string(), "2026-06-02T00:00:00Z");
        assert!(before.is_none() && bounds.is_empty());
        for bad in ["since=yesterday", "reason=boredom", "channel=UPPER", "id=1", "severity=high"] {
            assert!(Choice::of_query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_page_links_to_and_what_its_form_sends_means_the_same_again() {
        let filter = LetterFilter {
            channel: Some("soc".parse().unwrap()),
            reason: Some(DeathReason::Refused),
            cause: Some(String::from(" 100% & more: # ")),
            since: Some("2026-06-01T12:00:00Z".parse().unwrap()),
            ids: vec![ID.parse().unwrap()],
            ..LetterFilter::default()
        };
        let bounds = vec![Bound {
            worker: Uuid::from_u128(7),
            up_to: 1_780_000_000_123,
            server: String::from("http://[::1]:80"),
        }];
        let link = href("/dead-letters", &filter);
        let read = Choice::of_query(link.split_once('?').unwrap().1).unwrap();
        assert_eq!(read, Choice { filter: filter.clone(), before: None, bounds: Vec::new() });
        let fields: Vec<(String, String)> =
            fields(&filter, &bounds).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(Choice::of_fields(&fields).unwrap(), Choice { filter, before: None, bounds });
        let everything = LetterFilter::default();
        assert_eq!(href("/dead-letters", &everything), "/dead-letters");
        let older = page_href("/dead-letters", &everything, ID.parse().unwrap());
        assert_eq!(older, format!("/dead-letters?before={ID}"));
    }

    #[test]
    fn a_count_that_cannot_be_read_counts_nothing() {
        for bad in ["", "x", "@1", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000@-1"] {
            assert_eq!(bound(bad), None, "{bad}");
        }
    }
}
