//! The questions that a room may ask of its table, one per type of value. Each that finds a fault notes it and answers `None`.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use toml::{Spanned, de::DeValue};
use url::Url;

use super::{
    Hidden, Settings, Show, Text,
    units::{parse_duration, parse_size, show_duration, show_size},
};
use crate::model::Secret;

/// What hints show, where it may be written.
const EXAMPLE_DURATION: Duration = Duration::from_secs(30);
const EXAMPLE_SIZE: u64 = 900_000;

impl Settings<'_> {
    /// The text at `key`, if it is there.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.string(key).map(|text| text.value)
    }

    /// The text at `key`; its absence is a fault with this hint.
    pub fn require_text(&mut self, key: &'static str, hint: &str) -> Option<String> {
        self.require(key, hint);
        self.text(key)
    }

    /// The secret text at `key`, if it is there.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.hide(key, Hidden::Whole);
        let secret = Secret::new(self.string(key)?.value);
        self.notes.remember(secret.clone());
        Some(secret)
    }

    /// The secret text at `key`; its absence is a fault with this hint.
    pub fn require_secret(&mut self, key: &'static str, hint: &str) -> Option<Secret> {
        self.require(key, hint);
        self.secret(key)
    }

    /// The secret texts at `key`: one string or a list of them. Empty when it is not there.
    pub fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        self.hide(key, Hidden::Whole);
        if self.table.get(key).is_some_and(|value| value.get_ref().is_array()) {
            let texts = self.list(key).unwrap_or_default();
            let secrets: Vec<Secret> = texts.into_iter().map(Secret::new).collect();
            for secret in &secrets {
                self.notes.remember(secret.clone());
            }
            return secrets;
        }
        self.secret(key).into_iter().collect()
    }

    /// The list of texts at `key`, if it is there.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.list(key)
    }

    /// The whole number at `key`, if it is there; outside `range` it is a fault.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.ask(key, false)?;
        let Some(number) = value.get_ref().as_integer() else {
            let example = format!("one from {} to {}, without quotes", range.start(), range.end());
            self.wrong_type(key, value, harmless(value), "a whole number", &example);
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let inside = number.filter(|number| range.contains(number));
        if inside.is_none() {
            let problem = format!("must be from {} to {}", range.start(), range.end());
            self.fault_showing(key, &value.span(), problem, "write a number in this range");
        }
        inside
    }

    /// The truth value at `key`, if it is there.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.ask(key, false)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            let example = format!("{key} = true or {key} = false, without quotes");
            self.wrong_type(key, value, harmless(value), "true or false", &example);
        }
        truth
    }

    /// The duration at `key` (`250ms`, `10s`, `5m`, `24h`, `30d`), if it is there; outside `range` it is a fault.
    pub fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.string(key)?;
        let Some(duration) = parse_duration(&text.value) else {
            // Whoever writes it just so is not to be refused once more.
            let example = Some(EXAMPLE_DURATION).filter(|example| range.contains(example)).unwrap_or(*range.start());
            let example = show_duration(example);
            let hint = format!("write it as {example}; units are ms, s, m, h, d, and 1h30m is one, too");
            self.fault_showing(key, &text.span, "is not a duration".to_owned(), &hint);
            return None;
        };
        if !range.contains(&duration) {
            let (from, to) = (show_duration(*range.start()), show_duration(*range.end()));
            self.fault_showing(
                key,
                &text.span,
                format!("must be from {from} to {to}"),
                "write a duration in this range",
            );
            return None;
        }
        Some(duration)
    }

    /// The duration at `key`, or `None` inside for the word `none`, if it is there.
    pub fn duration_or_none(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Option<Duration>> {
        if self.table.get(key).is_some_and(|value| value.get_ref().as_str() == Some("none")) {
            self.ask(key, true);
            return Some(None);
        }
        self.duration(key, range).map(Some)
    }

    /// The number of bytes at `key` (`900KB`, `1MiB`, or a whole number of bytes), if it is there; outside `range` it is a fault.
    pub fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.table.get(key).and_then(|value| value.get_ref().as_integer());
        let (size, span) = if let Some(number) = number {
            let span = self.ask(key, true)?.span();
            (u64::from_str_radix(number.as_str(), number.radix()).ok(), span)
        } else {
            let text = self.string(key)?;
            (parse_size(&text.value), text.span)
        };
        let Some(size) = size else {
            let example =
                show_size(Some(EXAMPLE_SIZE).filter(|example| range.contains(example)).unwrap_or(*range.start()));
            let hint = format!("write it as {example}; units are B, KB, KiB, MB, MiB, GB, GiB");
            self.fault_showing(key, &span, "is not a size".to_owned(), &hint);
            return None;
        };
        if !range.contains(&size) {
            let (from, to) = (show_size(*range.start()), show_size(*range.end()));
            self.fault_showing(key, &span, format!("must be from {from} to {to}"), "write a size in this range");
            return None;
        }
        Some(size)
    }

    /// The text at `key`, if it is there; anything but one of `choices` is a fault that lists them. Returns its index.
    pub fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Option<usize> {
        let text = self.string(key)?;
        let chosen = choices.iter().position(|choice| *choice == text.value);
        if chosen.is_none() {
            let (problem, hint) = not_one_of(&text.value, text.outside, choices);
            self.fault_showing(key, &text.span, problem, &hint);
        }
        chosen
    }

    /// The texts at `key`, each one of `choices`, if it is there. Returns their indexes.
    pub fn choices(&mut self, key: &'static str, choices: &[&'static str]) -> Option<Vec<usize>> {
        let texts = self.list(key)?;
        let place = self.place(key);
        let chosen = texts.iter().map(|text| {
            let at = choices.iter().position(|choice| choice == text);
            if at.is_none() {
                let (problem, hint) = not_one_of(text, false, choices);
                self.fault_showing(key, &place, problem, &hint);
            }
            at
        });
        chosen.collect::<Vec<_>>().into_iter().collect()
    }

    /// The http or https URL at `key`, if it is there. Plain http is a fault but to a loopback host or where `[egress]`
    /// `allow_http` is set. User names and passwords in the URL are kept; a fragment is a fault.
    pub fn url(&mut self, key: &'static str) -> Option<Url> {
        self.hide(key, Hidden::Url);
        let text = self.string(key)?;
        self.notes.remember(Secret::new(text.value.as_str()));
        let hint = "write it as https://host/path; in a password, @ / # stand as %40 %2F %23";
        let url = self.parse_url(key, &text, Show::Key, hint)?;
        let egress = self.notes.egress.borrow().clone();
        if url.scheme() == "http" && !egress.allow_http && !is_loopback(&url) {
            let problem = "plain http would show secrets and decisions to everyone on the way".to_owned();
            self.fault(key, problem, "write https://, or set `allow_http = true` in [egress]");
            return None;
        }
        if literal_ip(&url).is_some_and(|ip| !egress.permits(ip)) {
            let problem = "this address is forbidden by [egress] (cloud metadata and link-local always are)".to_owned();
            self.fault(key, problem, "point it at another host, or look at `deny` in [egress]");
            return None;
        }
        Some(url)
    }

    /// The URL at `key`; its absence is a fault with this hint.
    pub fn require_url(&mut self, key: &'static str, hint: &str) -> Option<Url> {
        self.require(key, hint);
        self.url(key)
    }

    /// The http or https URL at `key` that people are sent to, if it is there: no secret, and not ours to connect to. Without a
    /// trailing slash.
    pub fn link(&mut self, key: &'static str) -> Option<String> {
        let text = self.string(key)?;
        let url =
            self.parse_url(key, &text, Show::Value, "write it as https://host, with https:// or http:// in front")?;
        if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
            let problem = "must be a plain address without user, password or query".to_owned();
            self.fault(key, problem, "write it as https://host/path");
            return None;
        }
        Some(url.as_str().trim_end_matches('/').to_owned())
    }

    fn parse_url(&mut self, key: &'static str, text: &Text, show: Show, hint: &str) -> Option<Url> {
        let problem = match Url::parse(&text.value) {
            Err(url::ParseError::RelativeUrlWithoutBase) => "is not a URL: it names no scheme".to_owned(),
            Err(error) => format!("is not a URL: {error}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => "must be an http or https URL".to_owned(),
            Ok(url) if url.fragment().is_some() => "has a fragment (`#...`), which is never sent".to_owned(),
            Ok(url) => return Some(url),
        };
        self.notes.fault(&text.span, show, self.path_of(key), problem, hint);
        None
    }

    /// Notes the absence of `key` as a fault.
    pub(super) fn require(&mut self, key: &'static str, hint: &str) {
        if !self.has(key) {
            self.fault(key, "is missing".to_owned(), hint);
        }
    }

    /// The strings of the list at `key`, variables replaced. Empty strings in it are faults.
    fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.ask(key, false)?;
        let Some(items) = value.get_ref().as_array() else {
            // Where a list may be a secret, one string may stand in its place, and does not get here.
            self.wrong_type(key, value, harmless(value), "a list of strings", &format!("{key} = [\"...\"]"));
            return None;
        };
        let texts: Vec<Option<String>> = items.iter().map(|item| self.list_item(key, item)).collect();
        texts.into_iter().collect()
    }

    fn list_item(&self, key: &str, item: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.resolve(key, item)?.value;
        if text.is_empty() {
            let problem = "has an empty text in its list".to_owned();
            self.notes.fault(&item.span(), Show::Key, self.path_of(key), problem, "give a value, or leave it out");
            return None;
        }
        Some(text)
    }
}

/// What may be shown of a value of a wrong type: what is one word, but not what has an inside.
fn harmless(value: &Spanned<DeValue<'_>>) -> Show {
    if value.get_ref().is_table() || value.get_ref().is_array() { Show::Key } else { Show::Value }
}

/// The words of a fault: `text` is none of `choices`.
fn not_one_of(text: &str, outside: bool, choices: &[&'static str]) -> (String, String) {
    // What came from outside may be a secret in the wrong place.
    let quoted: String = if outside {
        String::from("the value")
    } else {
        format!("`{}`", text.escape_debug().take(60).collect::<String>())
    };
    let meant = super::tables::nearest(text, choices.iter().copied()).filter(|_| !outside);
    let hint = match meant {
        Some(choice) => format!("did you mean {choice}?"),
        None => format!("write one of {}", choices.join(", ")),
    };
    (format!("{quoted} is not one of {}", choices.join(", ")), hint)
}

/// The address that the URL names without asking a resolver.
fn literal_ip(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        url::Host::Domain(_) => None,
    }
}

/// Whether the URL names this machine.
fn is_loopback(url: &Url) -> bool {
    let named = || url.host_str().is_some_and(|host| host == "localhost" || host.ends_with(".localhost"));
    literal_ip(url).map_or_else(named, |ip| ip.to_canonical().is_loopback())
}
