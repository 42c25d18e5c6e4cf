//! What stands in a form, as the page shows it.

use crate::{
    console::{Control, Fault, FormField, Text},
    managed::{Complaint, Entry, Field, Filled, Hush, Input},
};

/// What is shown of the secrets that are kept.
const SECRET: &str = "a secret";

/// The fields of the form, and the complaints that are about none of them. `meanwhile` is what the channel has become since the form
/// was loaded.
pub(super) fn fields(
    filled: &Filled,
    complaints: &[Complaint],
    meanwhile: Option<&Filled>,
) -> (Vec<FormField>, Vec<Fault>) {
    let about = |key: &str| filled.field_of(key).map(|field| field.key);
    let shown = filled.entries().iter().map(|(field, entry)| {
        let ours = complaints.iter().filter(|complaint| about(&complaint.key) == Some(field.key));
        FormField {
            key: field.key,
            label: field.label,
            hint: field.hint,
            example: field.example,
            needed: field.needed,
            control: control(field, entry),
            faults: ours.map(|complaint| fault(filled, field.label, complaint)).collect(),
            meanwhile: meanwhile.and_then(|now| differs(field, entry, now)),
        }
    });
    let fields = shown.collect();
    let others = complaints.iter().filter(|complaint| about(&complaint.key).is_none());
    (fields, others.map(|complaint| fault(filled, &complaint.key, complaint)).collect())
}

/// A complaint about what people call `label`. The reader of the file speaks of keys, and leaves the subject of its sentences out.
pub(super) fn fault(filled: &Filled, label: &str, complaint: &Complaint) -> Fault {
    const NO_SUBJECT: [&str; 9] = ["is ", "are ", "must ", "has ", "does ", "goes ", "means ", "stands ", "takes "];
    /// What the reader says of quotes: the file has them, a form has not.
    const OF_QUOTES: [&str; 2] = [", not a string", ", without quotes"];
    let label = if label.is_empty() { "The channel" } else { label };
    let problem = if NO_SUBJECT.iter().any(|verb| complaint.problem.starts_with(verb)) {
        format!("{label} {}", complaint.problem)
    } else {
        complaint.problem.clone()
    };
    // Within a table the reader calls a key by its last part: `first` of `retry.first`.
    let table = complaint.key.rsplit_once('.').map_or("", |(table, _)| table);
    let short = |key: &'static str| key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')).unwrap_or(key);
    let [problem, hint] = [&problem, &complaint.hint].map(|text| {
        let text = OF_QUOTES.iter().fold(text.clone(), |text, of_quotes| text.replace(of_quotes, ""));
        filled.entries().iter().fold(text, |text, (field, _)| {
            let label = format!("“{}”", field.label);
            text.replace(&format!("`{}`", field.key), &label).replace(&format!("`{}`", short(field.key)), &label)
        })
    });
    Fault { problem: Text::long(sentence(&problem).as_str().trim_end_matches('.')), hint: sentence(&hint) }
}

/// Words of ours as a sentence of its own. What stands in backticks for a terminal stands in quotation marks here.
pub(in crate::http::console) fn sentence(text: &str) -> Text {
    let text = quoted(text);
    let mut letters = text.chars();
    let begun: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let stop = if begun.is_empty() || begun.ends_with(['.', '?', '!']) { "" } else { "." };
    Text::long(&format!("{begun}{stop}"))
}

/// The text with “ ” for each pair of backticks.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once('`').and_then(|(before, rest)| Some((before, rest.split_once('`')?)))
    {
        quoted.extend([before, "“", inside, "”"]);
        rest = after;
    }
    quoted + rest
}

fn control(field: &Field, entry: &Entry) -> Control {
    match (field.input, entry) {
        (Input::Choice { options, .. }, Entry::Text(text)) => {
            Control::Choice { options: options.iter().map(|option| (*option, option == text)).collect() }
        }
        (Input::Json, Entry::Text(text)) => Control::Lines { value: text.clone(), none: false, secret: false },
        (input, Entry::Text(text)) => Control::Line { value: text.clone(), number: input == Input::Number },
        (_, Entry::Words { lines, none }) => Control::Lines { value: lines.clone(), none: *none, secret: false },
        (Input::Several { options, .. }, Entry::Several(texts)) => {
            let is_on = |option: &str| texts.iter().any(|text| text == option);
            Control::Several { options: options.iter().map(|option| (*option, is_on(option))).collect() }
        }
        (_, Entry::Several(texts)) => Control::Line { value: texts.join(", "), number: false },
        (_, Entry::On(on)) => Control::Switch { on: *on },
        (input, Entry::One(hush)) => {
            let kept = if let Hush::Kept(mask) = hush { Some(Text::short(mask)) } else { None };
            Control::Secret { kept, typed: matches!(hush, Hush::Typed(_)), url: input == Input::Url }
        }
        (_, Entry::Each(_)) => Control::Lines { value: entry.text(), none: false, secret: true },
    }
}

/// What the channel has now, where it is not what stands in the form.
fn differs(field: &Field, entry: &Entry, now: &Filled) -> Option<Text> {
    let (_, present) = now.entries().iter().find(|(one, _)| one.key == field.key)?;
    if present == entry {
        return None;
    }
    let text = match (present, present.text()) {
        (_, text) if text.is_empty() => String::from("nothing"),
        (Entry::One(_) | Entry::Each(_), text) => format!("{SECRET}: {text}"),
        (_, text) => text,
    };
    Some(Text::short(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::kind_of;

    #[test]
    fn what_the_reader_of_the_file_says_is_said_of_a_form_with_the_labels_of_its_fields() {
        let cases = [
            (
                (
                    "slack",
                    "retry.first",
                    "the first wait is longer than the longest one",
                    "lower `first` or raise `longest`",
                ),
                ("The first wait is longer than the longest one", "Lower “First wait” or raise “Longest wait”."),
            ),
            (
                (
                    "slack",
                    "burst",
                    "must be a whole number, not a string",
                    "write one from 1 to 1000000, without quotes",
                ),
                ("Burst must be a whole number", "Write one from 1 to 1000000."),
            ),
            (
                ("slack", "approvers", "`ann` is not a member's id", "give member ids, as in U024BE7LH"),
                ("“ann” is not a member's id", "Give member ids, as in U024BE7LH."),
            ),
            (
                ("siem", "template", "goes with the `format` json only", "leave it out, or change the `format`"),
                ("Template goes with the “Format” json only", "Leave it out, or change the “Format”."),
            ),
            (
                ("slack", "signing_secret", "does not look like one of Slack's", "copy it once more"),
                ("Signing secret does not look like one of Slack's", "Copy it once more."),
            ),
            (("slack", "", "has no `signing_secret`", ""), ("The channel has no “Signing secret”", "")),
        ];
        for ((kind, key, problem, hint), expected) in cases {
            let filled = Filled::blank(kind_of(kind).unwrap());
            let complaint = Complaint { key: key.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() };
            let label = filled.field_of(key).map_or("", |field| field.label);
            let Fault { problem, hint } = fault(&filled, label, &complaint);
            assert_eq!((problem.as_str(), hint.as_str()), expected);
        }
    }

    #[test]
    fn backticks_become_quotation_marks_in_pairs() {
        let cases = [
            ("`the-auditor` may not", "“the-auditor” may not."),
            ("say `a` or `b`", "Say “a” or “b”."),
            ("one ` alone", "One ` alone."),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(sentence(text).as_str(), expected);
        }
    }
}
