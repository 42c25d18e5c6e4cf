//! A channel as a form: what somebody entered -> the channel as it is sent, and a channel as it is shown -> what stands in its form.
//!
//! What is right is not known here: an entry goes into the channel as it is, and is read by the code that reads the operator's
//! file. What cannot be anything at all (a header without a name) is complained about here, in the same words.
//!
//! **Secrets** go into a form and never out of it. One that the channel has is shown as its mask; see `masks.rs` for what becomes of
//! it. One that was typed and not saved yet is [`Held`] by whoever shows the form again, and stands there as `[typed]`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Complaint;
use crate::{
    channels::{
        KINDS, Kind,
        form::{Field, Input},
    },
    config,
    model::Secret,
};

/// What stands for a secret that was typed before, and is held.
const TYPED: &str = "[typed]";

/// The kind with this name.
pub fn kind_of(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// Secrets that were typed and not saved yet, by the place where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<String, Secret>);

impl Held {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, to be sealed.
    pub fn to_text(&self) -> Zeroizing<String> {
        let texts: Map<String, Value> =
            self.0.iter().map(|(place, secret)| (place.clone(), Value::from(secret.expose()))).collect();
        Zeroizing::new(Value::from(texts).to_string())
    }

    /// The same again.
    pub fn from_text(text: &str) -> Option<Self> {
        let texts: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
        Some(Self(texts.into_iter().map(|(place, text)| (place, Secret::new(text))).collect()))
    }
}

/// What stands where a secret is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hush {
    /// Nothing.
    Nothing,
    /// The mask of the one that the channel has.
    Kept(String),
    /// A new one.
    Typed(Secret),
}

/// What stands in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A text, a number, JSON, a choice: as it was typed.
    Text(String),
    /// Words, one a line.
    Words {
        /// As they were typed.
        lines: String,
        /// Whether the channel has the list, with nothing in it: that is another thing than no list.
        none: bool,
    },
    /// Several choices.
    Several(Vec<String>),
    /// Yes or no.
    On(bool),
    /// One secret.
    One(Hush),
    /// Several, each with its name where they have names.
    Each(Vec<(Option<String>, Hush)>),
}

/// A form with what stands in it.
#[derive(Clone, Debug)]
pub struct Filled {
    kind: &'static Kind,
    entries: Vec<(&'static Field, Entry)>,
    complaints: Vec<Complaint>,
}

impl Filled {
    /// The form of a channel that is to be made.
    pub fn blank(kind: &'static Kind) -> Self {
        Self::of(kind, &Map::new())
    }

    /// The form of a channel as it is shown, its secrets masked.
    pub fn of(kind: &'static Kind, config: &Map<String, Value>) -> Self {
        let entries = config::form::fields(kind).map(|field| (field, shown(field, at(config, field.key)))).collect();
        Self { kind, entries, complaints: Vec::new() }
    }

    /// The form as it was sent: the name and the value of each input, in their order. `held` was typed before, `present` is the
    /// channel as it is shown. A field `drop:KEY` says that the secret at `KEY` is to go.
    pub fn sent(
        kind: &'static Kind,
        pairs: &[(String, String)],
        held: &Held,
        present: Option<&Map<String, Value>>,
    ) -> Self {
        let mut sender = Sent { pairs, held, complaints: Vec::new() };
        let entry = |field: &'static Field| {
            let before = present.and_then(|present| at(present, field.key));
            (field, sender.entry(field, before))
        };
        let entries = config::form::fields(kind).map(entry).collect();
        Self { kind, entries, complaints: sender.complaints }
    }

    /// Every field with what stands in it.
    pub fn entries(&self) -> &[(&'static Field, Entry)] {
        &self.entries
    }

    /// How many of these fields are otherwise than by default.
    pub fn set(&self, of: impl Fn(&Field) -> bool) -> usize {
        self.entries.iter().filter(|(field, entry)| of(field) && value(field, entry).is_some()).count()
    }

    /// What cannot go into a channel at all.
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// The channel, as `PUT` takes it. What stands for its default is left out.
    pub fn channel(&self) -> Map<String, Value> {
        let mut channel = Map::new();
        channel.insert(String::from("kind"), self.kind.name.into());
        for (field, entry) in &self.entries {
            if let Some(value) = value(field, entry) {
                put(&mut channel, field.key, value);
            }
        }
        channel
    }

    /// The secrets that were typed.
    pub fn held(&self) -> Held {
        let mut held = BTreeMap::new();
        for (field, entry) in &self.entries {
            match entry {
                Entry::One(Hush::Typed(secret)) => drop(held.insert(field.key.to_owned(), secret.clone())),
                Entry::Each(each) => {
                    for (place, (_, hush)) in places(field.key, each).into_iter().zip(each) {
                        if let Hush::Typed(secret) = hush {
                            held.insert(place, secret.clone());
                        }
                    }
                }
                Entry::Text(_) | Entry::Words { .. } | Entry::Several(_) | Entry::On(_) | Entry::One(_) => {}
            }
        }
        Held(held)
    }

    /// The field that a complaint is about: its key, or the beginning of it.
    pub fn field_of(&self, key: &str) -> Option<&'static Field> {
        let is_of =
            |field: &Field| key.strip_prefix(field.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.entries.iter().map(|(field, _)| *field).find(|field| is_of(field))
    }
}

impl Entry {
    /// What is shown of it, and nothing of a secret.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Words { lines: text, .. } => text.clone(),
            Self::Several(texts) => texts.join(", "),
            Self::On(on) => String::from(if *on { "yes" } else { "no" }),
            Self::One(hush) => match hush {
                Hush::Nothing => String::new(),
                Hush::Kept(mask) => mask.clone(),
                Hush::Typed(_) => String::from(TYPED),
            },
            Self::Each(each) => {
                let mut typed = 0;
                let lines = each.iter().map(|(name, hush)| {
                    let text = match hush {
                        Hush::Nothing => String::new(),
                        Hush::Kept(mask) => mask.clone(),
                        Hush::Typed(_) if name.is_some() => String::from(TYPED),
                        Hush::Typed(_) => {
                            typed += 1;
                            format!("[typed {typed}]")
                        }
                    };
                    name.as_ref().map_or_else(|| text.clone(), |name| format!("{name}: {text}"))
                });
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Where each of several secrets is held: by its name, or by its number among those that were typed.
fn places(key: &str, each: &[(Option<String>, Hush)]) -> Vec<String> {
    let mut typed = 0;
    let place = |(name, hush): &(Option<String>, Hush)| {
        typed += usize::from(matches!(hush, Hush::Typed(_)));
        name.as_ref().map_or_else(|| format!("{key}.{typed}"), |name| format!("{key}.{name}"))
    };
    each.iter().map(place).collect()
}

/// What stands in the form for what the channel has at `field`.
fn shown(field: &Field, value: Option<&Value>) -> Entry {
    let texts = |value: &Value| match value.as_array() {
        Some(items) => items.iter().map(in_words).collect(),
        None => vec![in_words(value)],
    };
    match field.input {
        Input::Secret | Input::Url => Entry::One(value.map_or(Hush::Nothing, |value| Hush::Kept(in_words(value)))),
        Input::Secrets => {
            let masks = value.map(texts).unwrap_or_default();
            Entry::Each(masks.into_iter().map(|mask| (None, Hush::Kept(mask))).collect())
        }
        Input::Headers => {
            let table = value.and_then(Value::as_object).into_iter().flatten();
            Entry::Each(table.map(|(name, value)| (Some(name.clone()), Hush::Kept(in_words(value)))).collect())
        }
        Input::Words => {
            let none = value.and_then(Value::as_array).is_some_and(Vec::is_empty);
            Entry::Words { lines: value.map(texts).unwrap_or_default().join("\n"), none }
        }
        Input::Several { default, .. } => {
            Entry::Several(value.map_or_else(|| default.iter().map(ToString::to_string).collect(), texts))
        }
        Input::Switch { default } => Entry::On(value.and_then(Value::as_bool).unwrap_or(default)),
        Input::Choice { default, .. } => Entry::Text(value.map_or_else(|| default.to_owned(), in_words)),
        Input::Json => Entry::Text(value.map_or_else(String::new, |value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => serde_json::to_string_pretty(value).unwrap_or_default(),
        })),
        Input::Text | Input::Number | Input::Size => Entry::Text(value.map_or_else(String::new, in_words)),
    }
}

/// A value as somebody would type it.
fn in_words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What an entry puts into the channel.
fn value(field: &Field, entry: &Entry) -> Option<Value> {
    let secret = |hush: &Hush| match hush {
        Hush::Nothing => None,
        Hush::Kept(mask) => Some(Value::from(mask.as_str())),
        Hush::Typed(secret) => Some(Value::from(secret.expose())),
    };
    match entry {
        Entry::Text(text) if text.is_empty() => None,
        Entry::Text(text) => {
            let as_it_is = || Value::from(text.as_str());
            match field.input {
                Input::Choice { default, .. } => (text != default).then(as_it_is),
                // What is no number is told as such by whoever reads it.
                Input::Number | Input::Size => Some(text.parse::<i64>().map_or_else(|_| as_it_is(), Value::from)),
                Input::Text
                | Input::Json
                | Input::Secret
                | Input::Url
                | Input::Secrets
                | Input::Headers
                | Input::Words
                | Input::Switch { .. }
                | Input::Several { .. } => Some(as_it_is()),
            }
        }
        Entry::Words { lines, none } => {
            let words: Vec<&str> = lines.lines().map(str::trim).filter(|word| !word.is_empty()).collect();
            (!words.is_empty() || *none).then(|| words.into())
        }
        Entry::Several(texts) => Some(texts.as_slice().into()),
        Entry::On(on) => (field.input != Input::Switch { default: *on }).then(|| (*on).into()),
        Entry::One(hush) => secret(hush),
        Entry::Each(each) if each.is_empty() => None,
        Entry::Each(each) if field.input == Input::Headers => {
            let named = each.iter().filter_map(|(name, hush)| Some((name.clone()?, secret(hush)?)));
            Some(named.collect::<Map<_, _>>().into())
        }
        Entry::Each(each) => Some(each.iter().filter_map(|(_, hush)| secret(hush)).collect::<Vec<_>>().into()),
    }
}

/// The reading of a form that was sent.
struct Sent<'a> {
    pairs: &'a [(String, String)],
    held: &'a Held,
    complaints: Vec<Complaint>,
}

impl Sent<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn first(&self, name: &str) -> String {
        // Browsers send line ends as the network's, whatever was typed.
        self.all(name).next().unwrap_or_default().trim().replace("\r\n", "\n")
    }

    fn entry(&mut self, field: &'static Field, before: Option<&Value>) -> Entry {
        let text = self.first(field.key);
        match field.input {
            Input::Text | Input::Number | Input::Size | Input::Json | Input::Choice { .. } => Entry::Text(text),
            Input::Words => {
                let none = text.is_empty() && before.and_then(Value::as_array).is_some_and(Vec::is_empty);
                Entry::Words { lines: text, none }
            }
            Input::Several { .. } => Entry::Several(self.all(field.key).map(str::to_owned).collect()),
            Input::Switch { .. } => Entry::On(!text.is_empty()),
            Input::Secret | Input::Url => Entry::One(self.one(field.key, text, before)),
            Input::Secrets => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                Entry::Each(lines.filter_map(|line| Some((None, self.hush(field.key, None, line)?))).collect())
            }
            Input::Headers => self.headers(field.key, &text),
        }
    }

    fn one(&self, key: &str, text: String, before: Option<&Value>) -> Hush {
        if !text.is_empty() {
            return Hush::Typed(Secret::new(text));
        }
        if self.all(&format!("drop:{key}")).next().is_some() {
            return Hush::Nothing;
        }
        match (self.held.0.get(key), before) {
            (Some(typed), _) => Hush::Typed(typed.clone()),
            (None, Some(mask)) => Hush::Kept(in_words(mask)),
            (None, None) => Hush::Nothing,
        }
    }

    fn headers(&mut self, key: &str, text: &str) -> Entry {
        let mut each: Vec<(Option<String>, Hush)> = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = at + 1;
            let Some((name, value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim())) else {
                let hint = "write each header on a line of its own, as in Authorization: Splunk TOKEN";
                // The line may be a token without its name.
                self.complaints.push(Complaint::new(
                    key,
                    format!("line {number} is no header, and was left out"),
                    hint,
                ));
                continue;
            };
            if each.iter().any(|(other, _)| other.as_deref() == Some(name)) {
                let problem = format!("line {number} gives a header that another line gives already");
                self.complaints.push(Complaint::new(key, problem, "keep one of them"));
                continue;
            }
            each.extend(self.hush(key, Some(name), value).map(|hush| (Some(name.to_owned()), hush)));
        }
        Entry::Each(each)
    }

    /// What one line of several stands for; nothing where it stands for what is not held any longer.
    fn hush(&mut self, key: &str, name: Option<&str>, text: &str) -> Option<Hush> {
        if text == "[secret]" || text.starts_with("[secret ") && text.ends_with(']') {
            return Some(Hush::Kept(text.to_owned()));
        }
        let number = text.strip_prefix("[typed ").and_then(|rest| rest.strip_suffix(']'));
        let place = match (name, number) {
            (Some(name), None) if text == TYPED => format!("{key}.{name}"),
            (None, Some(number)) => format!("{key}.{number}"),
            (_, None) | (Some(_), Some(_)) => return Some(Hush::Typed(Secret::new(text))),
        };
        let held = self.held.0.get(&place).cloned().map(Hush::Typed);
        if held.is_none() {
            let problem = String::from("stands for what was typed before, and that is not kept any longer");
            self.complaints.push(Complaint::new(key, problem, "type it once more"));
        }
        held
    }
}

/// The value at a path of keys.
fn at<'v>(table: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let found = match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => at(table.get(first)?.as_object()?, rest),
    };
    found.filter(|value| !value.is_null())
}

fn put(table: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Map::new().into());
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
