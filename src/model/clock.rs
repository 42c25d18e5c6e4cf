//! Wall time, and the one door it comes in by.
//!
//! Durations are measured with `tokio::time::Instant`, which tests can pause. Wall time (a decision's time, an expiry, a
//! signature's timestamp) comes from a [`Clock`], so that a test can set it and so that nothing else reads the machine's.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A moment in UTC, with nanoseconds. Reads and prints RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// Why a text is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time in RFC 3339, as 2026-06-01T12:00:00Z is")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// The beginning of Unix time.
    pub const UNIX_EPOCH: Self = Self(OffsetDateTime::UNIX_EPOCH);

    /// The moment `millis` milliseconds after the beginning of Unix time, clamped to the years -9999 to 9999.
    pub fn from_unix_millis(millis: i64) -> Self {
        let nanos = i128::from(millis) * 1_000_000;
        Self(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(if millis < 0 {
            time::macros::datetime!(-9999-01-01 0:00 UTC)
        } else {
            time::macros::datetime!(9999-12-31 23:59:59 UTC)
        }))
    }

    /// Whole milliseconds since the beginning of Unix time, rounded down.
    pub fn unix_millis(self) -> i64 {
        i64::try_from(self.0.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Whole seconds since the beginning of Unix time, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0 - earlier.0).unwrap_or(Duration::ZERO)
    }

    /// The moment `later` after this one, clamped to the year 9999.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        let sum = time::Duration::try_from(later).ok().and_then(|d| self.0.checked_add(d));
        Self(sum.unwrap_or(time::macros::datetime!(9999-12-31 23:59:59 UTC)))
    }

    /// The calendar date and time, for formats that need their own layout.
    pub fn date_time(self) -> OffsetDateTime {
        self.0
    }

    /// RFC 3339 with exactly three digits of a second, `2026-06-01T12:00:00.123Z`: what people and SIEMs expect.
    pub fn to_rfc3339_millis(self) -> String {
        const LAYOUT: &[time::format_description::BorrowedFormatItem<'_>] =
            time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        self.0.format(LAYOUT).unwrap_or_else(|_| String::from("9999-12-31T23:59:59.000Z"))
    }

    /// To the second, for people: `2026-06-01 12:00:00 UTC`.
    pub fn for_people(self) -> String {
        const LAYOUT: &[time::format_description::BorrowedFormatItem<'_>] =
            time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
        self.0.format(LAYOUT).unwrap_or_else(|_| String::from("9999-12-31 23:59:59 UTC"))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // The last hours of the year 9999 west of Greenwich are in a year that cannot be written, and `to_offset` panics there.
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|one| one.checked_to_offset(UtcOffset::UTC));
        moment.map(Self).ok_or_else(|| TimestampError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.format(&Rfc3339) {
            Ok(text) => f.write_str(&text),
            Err(_) => f.write_str(&self.to_rfc3339_millis()),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where wall time comes from. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that starts at `from` and moves with tokio's time, paused or not. For tests.
    Virtual {
        /// The moment that the clock showed at `started`.
        from: Timestamp,
        /// When, in tokio's time, the clock was started.
        started: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that shows `from` now and moves with tokio's time.
    pub fn starting_at(from: Timestamp) -> Self {
        Self::Virtual { from, started: tokio::time::Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the one door of wall time")]
            Self::System => Timestamp(OffsetDateTime::from(SystemTime::now())),
            Self::Virtual { from, started } => from.plus(started.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn a_time_is_read_in_any_offset_and_printed_in_utc() {
        let moment: Timestamp = "2026-06-01T14:00:00.1234+02:00".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-06-01T12:00:00.1234Z");
        assert_eq!(moment.to_rfc3339_millis(), "2026-06-01T12:00:00.123Z");
        assert_eq!(moment.unix_millis(), 1_780_315_200_123);
        assert_eq!(Timestamp::from_unix_millis(moment.unix_millis()).unix_millis(), moment.unix_millis());
    }

    #[test]
    fn extremes_are_clamped_and_do_not_panic() {
        for millis in [i64::MIN, i64::MAX, -1, 0] {
            assert!(!Timestamp::from_unix_millis(millis).to_string().is_empty());
        }
        let late = Timestamp::from_unix_millis(i64::MAX).plus(std::time::Duration::MAX);
        assert_eq!(late.since(Timestamp::UNIX_EPOCH).as_secs(), 253_402_300_799);
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for bad in ["", "yesterday", "2026-06-01", "2026-06-01 12:00:00", "1767225600", "9999-12-31T23:59:59-01:00"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
