//! Tables inside tables, values of any shape, and the keys that nobody asked for.

use std::{collections::BTreeMap, ops::Range};

use sha2::{Digest as _, Sha256};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Hidden, Settings, Show};
use crate::model::Secret;

impl Settings<'_> {
    /// The table at `key`, if it is there, read by `read`; keys that `read` did not ask for are faults.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Settings<'_>) -> T) -> Option<T> {
        let value = self.ask(key, false)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, Show::Key, "a table", &format!("[{}]", self.path_of(key)));
            return None;
        };
        let mut inner = Settings::new(self.notes, table, self.header(key, value), self.path_of(key));
        let built = read(&mut inner);
        inner.finish();
        Some(built)
    }

    /// Each table of the list at `key`, read by `read`; none when it is not there.
    pub fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Settings<'_>) -> T) -> Vec<T> {
        let Some(value) = self.ask(key, false) else { return Vec::new() };
        let path = self.path_of(key);
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, Show::Key, "a list of tables", &format!("[[{path}]]"));
            return Vec::new();
        };
        let mut built = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong_type(key, item, Show::Key, "a table", &format!("[[{path}]]"));
                continue;
            };
            let mut inner = Settings::new(self.notes, table, item.span(), format!("{path}[{at}]"));
            built.push(read(&mut inner));
            inner.finish();
        }
        built
    }

    /// The table of texts at `key` (HTTP headers, for example), values secret. Empty when it is not there. Here, too, a value
    /// may be in a file: `Name_file = "path"`.
    pub fn secret_map(&mut self, key: &'static str) -> BTreeMap<String, Secret> {
        self.hide(key, Hidden::Whole);
        let Some(value) = self.ask(key, false) else { return BTreeMap::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, Show::Key, "a table of strings", &format!("{key} = {{ Name = \"value\" }}"));
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, value) in table {
            let path = format!("{key}.{}", name.get_ref());
            let (name, text) = match name.get_ref().strip_suffix("_file") {
                Some(name) => (name, self.resolve_file(&path, value)),
                None => (name.get_ref().as_ref(), self.resolve(&path, value)),
            };
            let Some(text) = text else { continue };
            let secret = Secret::new(text.value);
            self.notes.remember(secret.clone());
            if map.insert(name.to_owned(), secret).is_some() {
                let problem = format!("`{name}` is given twice, once as a file");
                self.notes.fault(&value.span(), Show::Key, self.path_of(&path), problem, "keep one of them");
            }
        }
        map
    }

    /// The value at `key` as JSON, of any shape, `${NAME}` replaced in its strings, if it is there.
    pub fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        let value = self.ask(key, false)?;
        self.to_json(key, value)
    }

    fn to_json(&self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<serde_json::Value> {
        let number = match value.get_ref() {
            DeValue::String(_) => return Some(self.resolve(path, value)?.value.into()),
            DeValue::Boolean(truth) => return Some((*truth).into()),
            DeValue::Datetime(date) => return Some(date.to_string().into()),
            DeValue::Array(items) => {
                // All of them first, so that one fault does not hide the next.
                let items: Vec<_> = items.iter().map(|item| self.to_json(path, item)).collect();
                return items.into_iter().collect::<Option<Vec<_>>>().map(Into::into);
            }
            DeValue::Table(table) => {
                let entry = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, _)| {
                    let name = name.get_ref();
                    Some((name.to_string(), self.to_json(&format!("{path}.{name}"), value)?))
                };
                let entries: Vec<_> = table.iter().map(entry).collect();
                return entries.into_iter().collect::<Option<serde_json::Map<_, _>>>().map(Into::into);
            }
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Into::into),
            DeValue::Float(number) => number.as_str().parse().ok().and_then(serde_json::Number::from_f64),
        };
        if number.is_none() {
            let problem = "has a number that JSON has not".to_owned();
            self.notes.fault(&value.span(), Show::Key, self.path_of(path), problem, "write a finite number of 64 bits");
        }
        number.map(serde_json::Value::Number)
    }

    /// A hash of the whole table as it resolves: variables replaced, files read. It changes when what the table means may have
    /// changed, and not with comments, order or layout.
    ///
    /// It is made of secrets: compare it, do not print it.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.hash_table(&mut hash, self.table);
        crate::model::hex(&hash.finalize())
    }

    /// Each part goes in with a tag and its length, so that no two different tables feed the same bytes.
    fn hash_table(&self, hash: &mut Sha256, table: &DeTable<'_>) {
        put(hash, b'{', &table.len().to_string());
        // The map is ordered by key.
        for (key, value) in table {
            put(hash, b'k', key.get_ref());
            let path = value.get_ref().as_str().filter(|_| key.get_ref().ends_with("_file"));
            if let Some(content) = path.and_then(|path| self.notes.file(&self.expand_quietly(path)).ok()) {
                put(hash, b'f', content.expose());
            } else {
                self.hash_value(hash, value);
            }
        }
    }

    fn hash_value(&self, hash: &mut Sha256, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::String(text) => put(hash, b's', &self.expand_quietly(text)),
            DeValue::Integer(number) => put(hash, b'i', &number.to_string()),
            DeValue::Float(number) => put(hash, b'd', &number.to_string()),
            DeValue::Boolean(truth) => put(hash, b'b', if *truth { "true" } else { "false" }),
            DeValue::Datetime(date) => put(hash, b't', &date.to_string()),
            DeValue::Array(items) => {
                put(hash, b'[', &items.len().to_string());
                items.iter().for_each(|item| self.hash_value(hash, item));
            }
            DeValue::Table(table) => self.hash_table(hash, table),
        }
    }

    /// The text with its variables replaced, or as it is where that is a fault, which is noted elsewhere.
    fn expand_quietly(&self, text: &str) -> String {
        super::expand(text, &|name| self.notes.outside.variable(name))
            .map_or_else(|_| text.to_owned(), |expanded| expanded.text)
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(&mut self) {
        if self.pardoned {
            return;
        }
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            let known = |name: &str| self.asked.iter().any(|(asked, _)| *asked == name);
            let known_file = |base: &str| self.asked.iter().any(|(asked, text)| *asked == base && *text);
            if known(name) || name.strip_suffix("_file").is_some_and(known_file) {
                continue;
            }
            let mut asked: Vec<&'static str> = self.asked.iter().map(|(asked, _)| *asked).collect();
            asked.sort_unstable();
            asked.dedup();
            let hint = match nearest(name, asked.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("remove it; known here: {}", asked.join(", ")),
            };
            let problem = String::from("is not a key that is known here");
            self.notes.fault(&key.span(), Show::Key, self.path_of(&name.escape_debug().to_string()), problem, &hint);
        }
    }

    /// Where a table begins: at its header or, as for `a = { ... }` and dotted keys, at its key.
    fn header(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Range<usize> {
        let key = self.table.get_key_value(key).map(|(key, _)| key.span());
        key.filter(|key| key.start < value.span().start).unwrap_or_else(|| value.span())
    }
}

/// Feeds one part to a hash.
fn put(hash: &mut Sha256, tag: u8, text: &str) {
    hash.update([tag]);
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

/// The one of `known` that `name` was probably meant to be: at most a third of its letters differ.
pub(super) fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let name: String = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let distance = |one: &str| strsim::osa_distance(&name, &one.to_lowercase());
    let (best, distance) = known.into_iter().map(|one| (one, distance(one))).min_by_key(|(_, distance)| *distance)?;
    let longest = best.len().max(name.len());
    (distance <= longest.div_ceil(3)).then_some(best)
}
