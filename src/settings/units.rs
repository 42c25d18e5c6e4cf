//! Durations and sizes as people write them: `1h30m`, `900KB`.
//!
//! Both read exactly what [`show_duration`] and [`show_size`] print, so a fault may quote a limit and the operator may copy it.

use std::{fmt::Write as _, time::Duration};

/// Units of time, from the longest, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, in bytes. `KB` is a thousand, `KiB` is 1,024.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a duration: whole numbers with the units `d`, `h`, `m`, `s`, `ms`, each at most once and from the longest, as
/// `250ms`, `24h` or `1h30m`. `None` for anything else, and for what does not fit into 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = TIME_UNITS.iter();
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        // `units` only moves forward, so a unit that was used or passed by is not found again.
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Reads a size: a whole number with one of the units `B`, `KB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, as `900KB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, "") = number_and_unit(text)? else { return None };
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// A whole number, the letters after it (a space between them is fine), and the rest.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let (unit, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
    Some((digits.parse().ok()?, unit, rest))
}

/// A duration as [`parse_duration`] reads it, whole milliseconds.
pub fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return String::from("0s");
    }
    let mut shown = String::new();
    for (unit, factor) in TIME_UNITS {
        if millis >= factor {
            write!(shown, "{}{unit}", millis / factor).expect("writing to a String never fails");
            millis %= factor;
        }
    }
    shown
}

/// A size as [`parse_size`] reads it, in the largest unit that leaves no rest.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) =
        SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("24h", Some(86_400_000)),
            ("30d", Some(2_592_000_000)),
            ("1h30m", Some(5_400_000)),
            ("1m500ms", Some(60_500)),
            ("10 s", Some(10_000)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30m1h", None),
            ("1h1h", None),
            ("1y", None),
            ("10S", None),
            (" 10s", None),
            ("10s ", None),
            ("99999999999999999999d", None),
            ("999999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("900KB", Some(900_000)),
            ("1MiB", Some(1_048_576)),
            ("5 MB", Some(5_000_000)),
            ("12B", Some(12)),
            ("1GiB", Some(1 << 30)),
            ("12", None),
            ("1kb", None),
            ("KB", None),
            ("1KB2B", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_is_read_back(number: u64) {
            let duration = Duration::from_millis(number);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            proptest::prop_assert_eq!(parse_size(&show_size(number)), Some(number));
        }

        #[test]
        fn no_text_makes_them_panic(text in ".*") {
            std::hint::black_box((parse_duration(&text), parse_size(&text)));
        }
    }
}
