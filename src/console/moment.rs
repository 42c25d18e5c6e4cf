//! Moments as people read them: in UTC, and how far away.

use std::time::Duration;

use askama::Template;

use crate::model::Timestamp;

/// A moment on a page.
#[derive(Clone, Debug, PartialEq, Eq, Template)]
#[template(path = "when.html", config = "src/console/askama.toml")]
pub struct When {
    exact: String,
    people: String,
    short: String,
    hint: String,
}

/// Its parts are escaped by its own template.
impl askama::filters::HtmlSafe for When {}

impl When {
    /// `at`, seen from `now`.
    pub fn new(at: Timestamp, now: Timestamp) -> Self {
        let (past, future) = (now.since(at), at.since(now));
        let hint = match (past.as_secs(), future.as_secs()) {
            (0, 0) => String::from("just now"),
            (0, _) => format!("in {}", spelled(future)),
            (_, _) => format!("{} ago", spelled(past)),
        };
        // `2026-06-01 12:03:00 UTC`: of a moment of today, its day is known.
        let (people, today) = (at.for_people(), now.for_people());
        let minute = people.get(..16).unwrap_or(&people);
        let short = match (people.get(..10), people.get(11..16)) {
            (Some(day), Some(clock)) if Some(day) == today.get(..10) => format!("{clock} UTC"),
            _ => format!("{minute} UTC"),
        };
        Self { exact: at.to_rfc3339_millis(), people, short, hint }
    }

    /// The moment to its minute, and its day where that is not today.
    pub fn short(&self) -> &str {
        &self.short
    }

    /// Whether it is later than the other one.
    pub fn is_after(&self, other: &Self) -> bool {
        // All are in UTC, and of one length.
        self.exact > other.exact
    }

    /// The moment itself, for machines.
    pub fn exact(&self) -> &str {
        &self.exact
    }

    /// The moment itself.
    pub fn people(&self) -> &str {
        &self.people
    }

    /// How far away it is, in words.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

/// A duration in the two units that matter: `42 s`, `4 min 20 s`, `3 h 5 min`, `12 d`.
pub fn spelled(lasts: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = lasts.as_secs();
    let Some(largest) = UNITS.iter().position(|(size, _)| seconds >= *size) else { return String::from("0 s") };
    let (size, unit) = UNITS[largest];
    let (count, rest) = (seconds / size, seconds % size);
    match UNITS.get(largest + 1).map(|(size, unit)| (rest / size, unit)) {
        // Beyond ten of a unit, the smaller one says nothing.
        Some((smaller, unit_of_it)) if smaller > 0 && count < 10 => format!("{count} {unit} {smaller} {unit_of_it}"),
        _ => format!("{count} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_moments_are_said_in_the_units_that_matter() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (260, "4 min 20 s"),
            (659, "10 min"),
            (11_100, "3 h 5 min"),
            (86_400 * 12 + 5_000, "12 d"),
        ] {
            assert_eq!(spelled(Duration::from_secs(seconds)), text);
        }
        let now: Timestamp = "2026-06-01T12:00:00.5Z".parse().unwrap();
        let hint = |text: &str| When::new(text.parse().unwrap(), now).hint;
        assert_eq!(hint("2026-06-01T12:00:00Z"), "just now");
        assert_eq!(hint("2026-06-01T11:57:00.5Z"), "3 min ago");
        assert_eq!(hint("2026-06-01T12:04:20.5Z"), "in 4 min 20 s");
        assert_eq!(When::new("2026-06-01T11:57:59Z".parse().unwrap(), now).short(), "11:57 UTC");
        assert_eq!(When::new("2026-05-31T11:57:00Z".parse().unwrap(), now).short(), "2026-05-31 11:57 UTC");
        let html = When::new(now, now).render().unwrap();
        assert!(html.contains(r#"<time datetime="2026-06-01T12:00:00.500Z">2026-06-01 12:00:00 UTC</time>"#), "{html}");
    }
}
