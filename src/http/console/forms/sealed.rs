//! Secrets that were typed into a form and are not saved yet, in the form itself, sealed.
//!
//! Whoever presses Test, or is told of a fault, would otherwise have to type them again, because no page ever shows a secret. What
//! is sealed can be opened by the workers alone, by the caller who typed it alone, in the form where it was typed alone, and for a
//! quarter of an hour. A worker keeps nothing, so the next press may come to another one of the pool.

use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use crate::{managed::Held, model::Timestamp, sealing::Key};

/// What the key is used for here.
const PURPOSE: &str = "typed_secrets";

/// For how long it can be opened.
const LASTS: Duration = Duration::from_mins(15);

/// Seals it for whoever typed it, and for this form; empty where there is nothing to seal.
pub(super) fn seal(key: &Key, held: &Held, (who, form): (&str, &str), now: Timestamp) -> String {
    if held.is_empty() {
        return String::new();
    }
    let until = now.plus(LASTS).unix_millis();
    let text = held.to_text();
    let plain = Zeroizing::new(json!([until, &**text]).to_string());
    // Without it they have to be typed again, and the page asks for it.
    key.seal(PURPOSE, &about(who, form), plain.as_bytes()).unwrap_or_default()
}

/// What was sealed; nothing where it is not ours, not theirs, or too old.
pub(super) fn open(key: &Key, sealed: &str, (who, form): (&str, &str), now: Timestamp) -> Held {
    let open = || {
        let plain = key.open(PURPOSE, &about(who, form), sealed)?;
        let (until, text): (i64, Zeroizing<String>) =
            serde_json::from_slice(&plain).map(|(until, text): (i64, String)| (until, Zeroizing::new(text))).ok()?;
        (now.unix_millis() < until).then(|| Held::from_text(&text))?
    };
    open().unwrap_or_default()
}

/// Neither a name nor a path has a line end.
fn about(who: &str, form: &str) -> String {
    format!("{form}\n{who}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_opened_for_who_typed_it_where_it_was_typed_and_not_for_long() {
        let (key, now) = (Key::random().unwrap(), Timestamp::from_unix_millis(1_780_000_000_000));
        let held = Held::from_text(r#"{"webhook_url":"https://hooks.slack.com/hush"}"#).unwrap();
        let place = ("maya", "/add-channel/slack");
        let sealed = seal(&key, &held, place, now);
        assert!(!sealed.is_empty() && !sealed.contains("hush") && !sealed.contains("hooks"), "{sealed}");
        let later = |seconds| now.plus(Duration::from_secs(seconds));
        assert_eq!(open(&key, &sealed, place, later(899)), held);
        let nothing = Held::default();
        assert_eq!(open(&key, &sealed, place, later(900)), nothing);
        assert_eq!(open(&key, &sealed, ("otto", place.1), now), nothing);
        assert_eq!(open(&key, &sealed, (place.0, "/channels/soc/edit"), now), nothing);
        assert_eq!(open(&Key::random().unwrap(), &sealed, place, now), nothing);
        for bad in ["", "v1.", "x"] {
            assert_eq!(open(&key, bad, place, now), nothing);
        }
        assert_eq!(seal(&key, &nothing, place, now), "");
    }
}
