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
    const NO_SUBJECT: [&str; 8] = ["is ", "are ", "must ", "has ", "goes ", "means ", "stands ", "comes "];
    let label = if label.is_empty() { "The channel" } else { label };
    let problem = if NO_SUBJECT.iter().any(|verb| complaint.problem.starts_with(verb)) {
        format!("{label} {}", complaint.problem)
    } else {
        complaint.problem.clone()
    };
    let [problem, hint] = [&problem, &complaint.hint].map(|text| {
        filled.entries().iter().fold(text.clone(), |text, (field, _)| {
            text.replace(&format!("`{}`", field.key), &format!("“{}”", field.label))
        })
    });
    Fault { problem: Text::long(sentence(&problem).as_str().trim_end_matches('.')), hint: sentence(&hint) }
}

/// Words of ours as a sentence of its own.
pub(in crate::http::console) fn sentence(text: &str) -> Text {
    let mut letters = text.chars();
    let begun: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let stop = if begun.is_empty() || begun.ends_with(['.', '?', '!']) { "" } else { "." };
    Text::long(&format!("{begun}{stop}"))
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
