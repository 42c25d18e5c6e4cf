//! A time as people write it on a command line: a moment, a day, or how long ago.

use std::{str::FromStr, time::Duration};

use crate::{
    model::{Clock, Timestamp},
    settings::units::parse_duration,
};

/// A time as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This time.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let midnight = format!("{text}T00:00:00Z");
        let time = text.parse().or_else(|error| midnight.parse().map_err(|_| error));
        time.map(Self::At).map_err(|error| format!("{error}, nor a day as 2026-06-01, nor how long ago as 24h"))
    }
}

impl Moment {
    /// The time that is meant.
    pub fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

/// The time that `text` means at this moment, for flags that hold a time.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    text.parse::<Moment>().map(|moment| moment.time(Clock::System.now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let now: Timestamp = "2026-06-10T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-06-01T14:00:00+02:00", "2026-06-01T12:00:00Z"),
            ("2026-06-01", "2026-06-01T00:00:00Z"),
            ("24h", "2026-06-09T12:00:00Z"),
            ("1d12h", "2026-06-09T00:00:00Z"),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.time(now), expected.parse().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "24", "2026-06-31", "12:00"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("RFC 3339") && error.contains("24h"), "{text}: {error}");
            assert_eq!(parse(text), Err(error));
        }
    }
}
