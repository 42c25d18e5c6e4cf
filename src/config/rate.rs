//! `rate_limit` and `burst`: how people write a pace.

use std::time::Duration;

use crate::{
    channels::Rate,
    settings::units::{parse_duration, show_duration},
};

/// The most sends per period.
const COUNT_MAX: u32 = 1_000_000;

/// The longest period.
const PER_MAX: Duration = Duration::from_hours(24);

/// Reads `1/s`, `20/min`, `5/2s`: a number of sends, and the period with an optional number before its unit. The burst is 1.
pub(super) fn parse_rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let per = per.trim_start();
    // `min` and `hour` read better after a slash than the units of durations do.
    let per = per.replace("min", "m").replace("sec", "s").replace("hour", "h");
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per } else { format!("1{per}") };
    let per = parse_duration(&per)?;
    let digits = count.trim_end();
    let count = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    let sound = (1..=COUNT_MAX).contains(&count) && !per.is_zero() && per <= PER_MAX;
    sound.then_some(Rate { count, per, burst: 1 })
}

/// A pace for people: `1/s`, `2/s burst 5`, `1/s and 20/min`, or `none`.
pub fn show_pace(pace: &[Rate]) -> String {
    if pace.is_empty() {
        return String::from("none");
    }
    let show = |rate: &Rate| {
        let per = match show_duration(rate.per).as_str() {
            "1s" => String::from("s"),
            "1m" => String::from("min"),
            "1h" => String::from("h"),
            other => other.to_owned(),
        };
        let burst = if rate.burst > 1 { format!(" burst {}", rate.burst) } else { String::new() };
        format!("{}/{per}{burst}", rate.count)
    };
    pace.iter().map(show).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_people_write_it() {
        let rate = |count, seconds| Some(Rate { count, per: Duration::from_secs(seconds), burst: 1 });
        let cases = [
            ("1/s", rate(1, 1)),
            ("20/min", rate(20, 60)),
            ("20/m", rate(20, 60)),
            ("5/2s", rate(5, 2)),
            ("100 / h", rate(100, 3_600)),
            ("3/10min", rate(3, 600)),
            ("0/s", None),
            ("1/0s", None),
            ("1", None),
            ("/s", None),
            ("1/", None),
            ("-1/s", None),
            ("+1/s", None),
            ("1.5/s", None),
            ("1/week", None),
            ("1/25h", None),
            ("99999999/s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_rate(text), expected, "{text}");
        }
    }

    #[test]
    fn a_pace_is_shown_as_it_would_be_written() {
        let minute = Rate { count: 20, per: Duration::from_mins(1), burst: 20 };
        let second = Rate { count: 1, per: Duration::from_secs(1), burst: 1 };
        assert_eq!(show_pace(&[second, minute]), "1/s and 20/min burst 20");
        assert_eq!(show_pace(&[Rate { per: Duration::from_secs(2), ..second }]), "1/2s");
        assert_eq!(show_pace(&[]), "none");
    }
}
