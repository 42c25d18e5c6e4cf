//! What somebody looks for among the decisions: read from an address, and written as one.

use std::time::Duration;

use url::form_urlencoded::{Serializer, parse};

use crate::{
    console::{Last, Search, Text},
    export::{self, Format, QueryFault},
    http::console::moment,
    model::Timestamp,
};

/// What somebody looks for, as the address has it.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) asked: export::Asked,
    pub(super) search: Search,
    pub(super) before: Option<u64>,
}

impl Wish {
    /// Reads an address. What is left empty in the form is not asked for.
    pub(super) fn read(text: &str, now: Timestamp) -> Self {
        let mut wish = Self::default();
        for (key, value) in parse(text.as_bytes()) {
            let value = value.trim();
            if !value.is_empty() {
                wish.take(&key, value);
            }
        }
        let Self { asked, search, .. } = &mut wish;
        if let (Some(since), Some(until)) = (asked.since, asked.until)
            && since >= until
        {
            let (since, label) = (since.for_people(), Search::label("until"));
            let fault = format!("{since} is not before {label}, {}. Give an earlier time.", until.for_people());
            search.faults.push(("since", Text::long(&fault)));
        }
        search.since = asked.since.map(in_field).unwrap_or_default();
        search.until = asked.until.map(in_field).unwrap_or_default();
        search.kinds.clone_from(&asked.decisions);
        search.severity = asked.min_severity;
        search.agent = asked.agents.join(", ");
        search.tool = asked.tools.join(", ");
        let timeless = asked.since.is_none() && asked.until.is_none();
        if !search.faults.is_empty() {
            // Nothing is looked for, so no span either.
            search.last = None;
        } else if timeless && asked.ids.is_empty() {
            let last = *search.last.get_or_insert(Last::Day);
            asked.since = Some(now.minus(span(last)));
        } else {
            // An id is looked for wherever it is.
            search.last = None;
        }
        wish
    }

    fn take(&mut self, key: &str, value: &str) {
        let Self { asked, search, before } = self;
        let taken = match key {
            "since" | "until" => asked.take(key, &moment(value)).map_err(|QueryFault { problem, .. }| {
                // What was written cannot be shown in a field for times.
                let is_time = moment(value).replace(' ', "+").parse::<Timestamp>().is_ok();
                let problem = if is_time { problem } else { String::from(NO_TIME) };
                QueryFault::new(key, format!("“{}” {problem}", Text::short(value)))
            }),
            "last" => {
                search.last = Last::ALL.into_iter().find(|last| last.word() == value);
                return;
            }
            "before" => {
                *before = value.parse().ok();
                return;
            }
            "agent" | "tool" => {
                let patterns = value.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
                patterns.map(|pattern| asked.take(key, pattern)).find(Result::is_err).unwrap_or(Ok(true))
            }
            "id" => {
                value.clone_into(&mut search.id);
                asked.take(key, value)
            }
            "decision" | "min_severity" => asked.take(key, value),
            // A mark of the way here, or somebody else's: a page is shown all the same.
            _ => return,
        };
        if let Err(fault) = taken {
            self.blame(&fault);
        }
    }

    /// Notes what is wrong with a field, in the words of the form.
    pub(super) fn blame(&mut self, fault: &QueryFault) {
        const FIELDS: [&str; 7] = ["since", "until", "decision", "min_severity", "agent", "tool", "id"];
        let Some(field) = FIELDS.into_iter().find(|field| *field == fault.key) else { return };
        let sentence = format!("{}.", fault.problem.replace('`', ""));
        self.search.faults.push((field, Text::long(&sentence)));
    }

    /// The filters as an address has them, the times left out.
    pub(super) fn filters(&self, query: &mut Serializer<'_, String>) {
        let asked = &self.asked;
        query.extend_pairs(asked.decisions.iter().map(|kind| ("decision", kind.as_str())));
        query.extend_pairs(asked.min_severity.map(|severity| ("min_severity", severity.as_str())));
        query.extend_pairs(asked.agents.iter().map(|agent| ("agent", agent)));
        query.extend_pairs(asked.tools.iter().map(|tool| ("tool", tool)));
        query.extend_pairs(asked.ids.iter().map(|id| ("id", id)));
    }

    /// Where the same is looked for, among those that came in before `before`.
    pub(super) fn path(&self, before: Option<u64>) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.search.last.map(|last| ("last", last.word())));
        if self.search.last.is_none() {
            query.extend_pairs(self.asked.since.map(|time| ("since", time.to_string())));
            query.extend_pairs(self.asked.until.map(|time| ("until", time.to_string())));
        }
        self.filters(&mut query);
        query.extend_pairs(before.map(|before| ("before", before.to_string())));
        format!("/decisions?{}", query.finish())
    }

    /// Where all of it is exported.
    pub(super) fn exports(&self) -> Vec<(&'static str, String)> {
        let path = |format: Format| {
            let mut query = Serializer::new(String::new());
            query.append_pair("format", format.as_str());
            query.extend_pairs(self.asked.since.map(|time| ("since", time.to_string())));
            query.extend_pairs(self.asked.until.map(|time| ("until", time.to_string())));
            self.filters(&mut query);
            (format.as_str(), format!("/api/telemetry/decisions/export?{}", query.finish()))
        };
        Format::ALL.map(path).into()
    }
}

fn span(last: Last) -> Duration {
    match last {
        Last::Hour => Duration::from_hours(1),
        Last::Day => Duration::from_hours(24),
        Last::Week => Duration::from_hours(7 * 24),
    }
}

/// What is wrong with what is no time, and what is right.
const NO_TIME: &str = "is not a time. Write it as 2026-06-01T12:00:00, or a day as 2026-06-01";

/// A time as a field for times has it: without a zone, which is UTC, and to the second.
fn in_field(time: Timestamp) -> String {
    let people = time.for_people();
    people.get(..19).unwrap_or_default().replace(' ', "T")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-06-10T12:00:00Z".parse().unwrap()
    }

    fn read(text: &str) -> Wish {
        Wish::read(text, now())
    }

    #[test]
    fn what_is_left_empty_is_not_asked_for_and_a_day_is_looked_at_where_no_time_is_given() {
        let wish = read("since=&until=&min_severity=&agent=&tool=+&id=&continued=1&last=forever");
        assert!(wish.search.faults.is_empty());
        assert_eq!((wish.asked.since, wish.asked.until), (Some(now().minus(Duration::from_hours(24))), None));
        assert_eq!((wish.search.last, wish.path(None).as_str()), (Some(Last::Day), "/decisions?last=24h"));
        assert_eq!(wish.search.since, "", "a span of time is no time that was given");
        let wish = read("last=7d&agent=production-*&decision=DENY&decision=INCIDENT&min_severity=HIGH");
        assert_eq!(wish.asked.since, Some(now().minus(Duration::from_hours(7 * 24))));
        let path = "/decisions?last=7d&decision=DENY&decision=INCIDENT&min_severity=HIGH&agent=production-*";
        assert_eq!(wish.path(None), path);
        assert_eq!(wish.path(Some(42)), format!("{path}&before=42"));
        let again = read(wish.path(Some(42)).split_once('?').unwrap().1);
        assert!(again.search.faults.is_empty() && again.before == Some(42) && again.path(None) == path);
        let (csv, href) = &wish.exports()[1];
        assert_eq!(*csv, "csv");
        assert!(href.contains("format=csv&since=2026-06-03T12%3A00%3A00Z&decision=DENY"), "{href}");
    }

    #[test]
    fn times_are_taken_as_forms_write_them_and_as_programs_do_and_shown_as_a_field_takes_them() {
        for (text, time, shown) in [
            ("2026-06-01T12:00", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01T12:00:01", "2026-06-01T12:00:01Z", "2026-06-01T12:00:01"),
            ("2026-06-01T12:00:01.5", "2026-06-01T12:00:01.5Z", "2026-06-01T12:00:01"),
            ("2026-06-01T12:00:01.123", "2026-06-01T12:00:01.123Z", "2026-06-01T12:00:01"),
            ("2026-06-01T14:00:00%2B02:00", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01", "2026-06-01T00:00:00Z", "2026-06-01T00:00:00"),
        ] {
            let wish = read(&format!("since={text}&last=1h"));
            assert!(wish.search.faults.is_empty(), "{text}: {:?}", wish.search.faults);
            assert_eq!((wish.asked.since, wish.search.last), (Some(time.parse().unwrap()), None), "{text}");
            assert_eq!(wish.search.since, shown);
            // As the links of a page have it.
            assert_eq!(read(wish.path(Some(7)).split_once('?').unwrap().1).search.since, shown);
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_of_its_field_with_what_was_written_and_no_span_is_taken_for_it() {
        let time = "is not a time. Write it as 2026-06-01T12:00:00, or a day as 2026-06-01.";
        for (bad, fault) in [
            ("since=24h&last=24h", ("since", format!("“24h” {time}"))),
            ("until=12:00", ("until", format!("“12:00” {time}"))),
            ("since=2026-06-31T00:00", ("since", format!("“2026-06-31T00:00” {time}"))),
            (
                "since=2026-06-02&until=2026-06-01",
                (
                    "since",
                    "2026-06-02 00:00:00 UTC is not before Until (UTC), 2026-06-01 00:00:00 UTC. Give an earlier time."
                        .to_owned(),
                ),
            ),
        ] {
            let search = read(bad).search;
            assert_eq!((search.faults, search.last), (vec![(fault.0, Text::long(&fault.1))], None), "{bad}");
        }
        for (bad, field) in [("decision=deny", "decision"), ("min_severity=URGENT", "min_severity")] {
            let faults = read(bad).search.faults;
            assert!(faults.len() == 1 && faults[0].0 == field && !faults[0].1.as_str().contains('`'), "{faults:?}");
        }
    }

    #[test]
    fn several_agents_and_tools_are_asked_for_with_commas_or_one_by_one_and_all_are_shown() {
        for text in ["tool=slack&tool=github.create_*&agent=a,+b", "tool=slack,github.create_*,&agent=a&agent=+b+,"] {
            let wish = read(text);
            assert_eq!((wish.asked.tools.len(), wish.asked.agents.len()), (2, 2), "{text}");
            assert_eq!((&*wish.search.tool, &*wish.search.agent), ("slack, github.create_*", "a, b"));
            assert_eq!(wish.path(None), "/decisions?last=24h&agent=a&agent=b&tool=slack&tool=github.create_*");
        }
    }

    #[test]
    fn an_id_is_looked_for_wherever_it_is() {
        let wish = read("id=f1e2&last=24h");
        assert_eq!((wish.asked.since, wish.search.last, wish.asked.ids.len()), (None, None, 1));
    }
}
