//! The keys that every kind of channel has, as they are entered by hand. `channel.rs` beside it reads them.

use crate::channels::{
    Kind,
    form::{Field, Input},
};

/// The filter: what the product page asks for in every channel.
static FILTER: [Field; 4] = [
    Field::new(
        "events",
        "Events",
        Input::Several {
            options: &["ALLOW", "DENY", "SANITIZE", "REQUIRE_APPROVAL", "INCIDENT"],
            default: &["DENY", "REQUIRE_APPROVAL", "INCIDENT"],
        },
    )
    .hint("Which decisions the channel is told of."),
    Field::new(
        "min_severity",
        "Min severity",
        Input::Choice { options: &["LOW", "MEDIUM", "HIGH", "CRITICAL"], default: "LOW" },
    )
    .hint("What is less grave is not told. HIGH is a good starting point where people read."),
    Field::new("tools", "Tools", Input::Words)
        .hint("One a line: a tool, or tool.operation; * stands for anything. Empty: all.")
        .like("github.create_*"),
    Field::new("agents", "Agents", Input::Words)
        .hint("One a line: an agent's id or name; * stands for anything. Empty: all.")
        .like("production-*"),
];

/// How it is delivered.
static DELIVERY: [Field; 10] = [
    Field::new("rate_limit", "Rate limit", Input::Text)
        .hint("Such as 1/s or 20/min; none lifts it. Empty: what the platform takes.")
        .like("1/s")
        .more(),
    Field::new("burst", "Burst", Input::Number).hint("How many may go at once after a rest.").like("1").more(),
    Field::new("timeout", "Timeout", Input::Text).hint("Of one try; 10s if left out.").like("10s").more(),
    Field::new("concurrency", "Concurrency", Input::Number).hint("Tries under way at once.").more(),
    Field::new("retry.attempts", "Attempts", Input::Number)
        .hint("Tries that the endpoint answers with a failure of its own, before the delivery becomes a dead letter; 10 if left out.")
        .like("10")
        .more(),
    Field::new("retry.first", "First wait", Input::Text).hint("Before the second try; 1s if left out.").like("1s").more(),
    Field::new("retry.longest", "Longest wait", Input::Text).hint("Between two tries; 5m if left out.").like("5m").more(),
    Field::new("retry.max_age", "Longest age", Input::Text)
        .hint("What is older is not told any more and becomes a dead letter; 24h if left out.")
        .like("24h")
        .more(),
    Field::new("notices", "Tell it of other channels' trouble", Input::Switch { default: false })
        .hint("A held channel, growing dead letters.")
        .more(),
    Field::new("canary", "Canary", Input::Text)
        .hint("How often a sample is sent to see whether the endpoint is well; empty: never.")
        .like("1h")
        .more(),
];

/// How a storm is folded, where people read.
static DIGEST: [Field; 2] = [
    Field::new("digest.enabled", "Fold a storm into digests", Input::Switch { default: true }).more(),
    Field::new("digest.over", "Fold when more wait than", Input::Number).hint("20 if left out.").like("20").more(),
];

/// Every key of a channel of this kind but `id` and `kind`, in the order in which people want them.
pub fn fields(kind: &Kind) -> impl Iterator<Item = &'static Field> {
    let digest: &[Field] = if kind.chat { &DIGEST } else { &[] };
    let (own, common) = (kind.form.fields, FILTER.iter().chain(&DELIVERY).chain(digest));
    let all = own.iter().chain(common);
    all.clone().filter(|field| !field.more).chain(all.filter(|field| field.more))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{
        channels::{KINDS, form::Form},
        config,
        model::{DecisionKind, Egress, Filter, Severity},
        settings::Hidden,
    };

    /// The first part of a path of keys.
    fn table(key: &str) -> Option<&str> {
        key.split_once('.').map(|(table, _)| table)
    }

    #[test]
    fn the_form_of_every_kind_has_the_keys_that_its_settings_ask_for_and_no_others() {
        for kind in KINDS {
            let form: BTreeMap<&str, &Field> = fields(kind).map(|field| (field.key, field)).collect();
            assert_eq!(form.len(), fields(kind).count(), "{}: a key is there twice", kind.name);
            let tables: BTreeSet<&str> = form.keys().filter_map(|key| table(key)).collect();
            let headers: Vec<String> = tables.iter().map(|table| format!("[{table}]")).collect();
            let sample = kind.sample.replace("{base}", "http://127.0.0.1:1");
            let text = format!("kind = \"{}\"\n{sample}\n{}\n", kind.name, headers.join("\n"));
            let reading = config::parse_channel(&text, &"soc".parse().unwrap(), &Egress::default(), KINDS);
            assert_eq!(reading.faults, [], "{}", kind.name);
            // What machines read is asked for its digest, to be refused one.
            let refused: &[&str] = if kind.chat { &["id", "kind"] } else { &["id", "kind", "digest"] };
            let asked = reading.asked.iter().map(String::as_str);
            let asked: BTreeSet<&str> = asked.filter(|key| !refused.contains(key) && !tables.contains(key)).collect();
            assert_eq!(form.keys().copied().collect::<BTreeSet<_>>(), asked, "{}", kind.name);
            // What the settings take for a secret, the form keeps from people's eyes in the same way.
            for (key, field) in &form {
                let how = if field.input == Input::Url { Hidden::Url } else { Hidden::Whole };
                let shown_as = field.input.is_secret().then_some(how);
                assert_eq!(reading.hidden.get(*key).copied(), shown_as, "{} {key}", kind.name);
            }
        }
    }

    #[test]
    fn every_form_says_what_it_is_for_and_every_field_what_it_is() {
        for kind in KINDS {
            let Form { title, sentence, steps, .. } = kind.form;
            assert!(!title.is_empty() && sentence.ends_with('.') && steps.len() > 1, "{}", kind.name);
            for Field { key, label, hint, input, .. } in fields(kind) {
                assert!(!label.is_empty(), "{} {key}", kind.name);
                assert!(hint.is_empty() || hint.ends_with('.'), "{} {key}: {hint}", kind.name);
                if let Input::Choice { options, default } = input {
                    assert!(options.contains(default), "{} {key}", kind.name);
                }
            }
        }
    }

    #[test]
    fn what_a_form_begins_with_is_what_a_channel_is_without_it() {
        let Input::Several { options, default } = FILTER[0].input else { panic!("events are several") };
        assert_eq!(options, DecisionKind::ALL.map(DecisionKind::as_str));
        let defaults: Vec<&str> = Filter::default_events().iter().map(DecisionKind::as_str).collect();
        assert_eq!(default, defaults);
        let Input::Choice { options, .. } = FILTER[1].input else { panic!("a severity is one of several") };
        assert_eq!(options, Severity::ALL.map(Severity::as_str));
    }
}
