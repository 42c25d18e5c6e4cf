//! Reading configuration: a table of the operator's file, read key by key, with every fault noted and none fatal.
//!
//! A room that can be configured takes a [`Settings`], asks for the keys it knows, and returns what it builds or `None`. Each
//! fault carries its place in the file and a hint, and reading goes on, so that one run reports them all. A key that nobody
//! asked for is a fault too, so ask for every key before giving up on one.
//!
//! Every string may hold `${NAME}`, taken from the environment, or be given as `KEY_file = "path"`, whose content is the
//! value (one trailing newline removed; relative paths start at the configuration file). `$${` stands for a literal `${`. An
//! empty string is a fault wherever a value is needed: it is nearly always a variable that was set to nothing.
//!
//! Secrets: what [`Settings::secret`], [`Settings::url`] and their like return, and whatever came from a variable or a file,
//! is remembered, and no fault prints it.
//!
//! This room is low on purpose: `channels` reads its own keys with it, and `config` on top puts the plan together.
//!
//! Start with [`read`], the way in; `values.rs` has the questions that a room may ask.

mod expand;
mod fault;
mod files;
mod reading;
mod tables;
pub mod units;
mod values;

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use fault::Show;
pub use fault::{Fault, printable};
pub use files::files_named;
use reading::Notes;
pub use reading::{Hidden, Outside, Reading, read};

use crate::model::{Egress, Secret};
use expand::{ExpandError, expand};

/// A table of the configuration that is being read.
pub struct Settings<'a> {
    notes: &'a Notes<'a>,
    table: &'a DeTable<'a>,
    /// The table's header, for faults of the table as a whole.
    span: Range<usize>,
    /// `channel.soc-slack`; empty for the document.
    path: String,
    /// The keys that were asked for, and whether each may be given as `KEY_file`.
    asked: Vec<(&'static str, bool)>,
    /// Whether nobody knows which keys belong here, so that none is unknown.
    pardoned: bool,
}

/// A string of the file with its variables replaced.
struct Text {
    value: String,
    span: Range<usize>,
    /// Whether something of it came from a variable or a file: then it is not quoted.
    outside: bool,
}

/// How a fault names the type of a value.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Settings<'a> {
    fn new(notes: &'a Notes<'a>, table: &'a DeTable<'a>, span: Range<usize>, path: String) -> Self {
        Self { notes, table, span, path, asked: Vec::new(), pardoned: false }
    }

    /// Whether `key` was written at all (also as `KEY_file`).
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key) || self.table.contains_key(format!("{key}_file").as_str())
    }

    /// Notes a fault at `key` (or, if it was not written, at the table): what is wrong, and what to do.
    pub fn fault(&mut self, key: &str, problem: String, hint: &str) {
        self.notes.fault(&self.place(key), Show::Key, self.path_of(key), problem, hint);
    }

    /// The same for a value that is no secret, nor stands where people put one: it is shown.
    pub fn fault_shown(&mut self, key: &str, problem: String, hint: &str) {
        self.notes.fault(&self.place(key), self.shown(key), self.path_of(key), problem, hint);
    }

    /// Notes a fault of a variable of the environment, which is in no line of the file.
    pub fn fault_of_variable(&mut self, name: &str, problem: String, hint: &str) {
        self.notes.fault_of_variable(name, problem, hint);
    }

    /// Notes at `key` (or, if it was not written, at the table) what looks wrong but can be used.
    pub fn warn(&mut self, key: &str, problem: String, hint: &str) {
        self.notes.warn(&self.place(key), Show::Key, self.path_of(key), problem, hint);
    }

    /// The same for a value that is no secret, nor stands where people put one: it is shown.
    pub fn warn_shown(&mut self, key: &str, problem: String, hint: &str) {
        self.notes.warn(&self.place(key), self.shown(key), self.path_of(key), problem, hint);
    }

    /// What an excerpt shows of `key`. Where it was not written, the place is the table, which may be one line with secrets in it.
    fn shown(&self, key: &str) -> Show {
        if self.table.contains_key(key) { Show::Value } else { Show::Key }
    }

    /// The line of `key` in the file, from 1 (or, if it was not written, of the table).
    pub fn line_of(&self, key: &str) -> usize {
        let start = self.place(key).start;
        self.notes.text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Guards the URLs that are asked for from now on, in all tables.
    pub fn guard(&mut self, egress: Egress) {
        *self.notes.egress.borrow_mut() = egress;
    }

    /// Calls the table by `path` in faults from now on.
    pub fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// Lets every key pass: for a table whose keys nobody can know, because what decides about them is faulty.
    pub fn pardon(&mut self) {
        self.pardoned = true;
    }

    /// Remembers a secret that was made of others, so that no fault prints it.
    pub fn remember(&mut self, secret: Secret) {
        self.notes.remember(secret);
    }

    /// A variable of the environment, for what must not stand in the file.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.notes.variable(name)
    }

    /// The value at `key` is a secret, also where the text is shown again.
    fn hide(&self, key: &str, how: Hidden) {
        self.notes.hidden.borrow_mut().insert(self.path_of(key), how);
    }

    /// A fault at `key` whose value is no secret and may be shown.
    fn fault_showing(&self, key: &str, span: &Range<usize>, problem: String, hint: &str) {
        self.notes.fault(span, Show::Value, self.path_of(key), problem, hint);
    }

    /// The value at `key`, which is from now on a key that somebody asked for. `text` says whether it may be `KEY_file`.
    fn ask(&mut self, key: &'static str, text: bool) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push((key, text));
        self.notes.asked.borrow_mut().insert(self.path_of(key));
        self.table.get(key)
    }

    /// A fault: the value at `key` has a type that it must not have.
    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, show: Show, wanted: &str, example: &str) {
        let problem = format!("must be {wanted}, not {}", type_name(value.get_ref()));
        self.notes.fault(&value.span(), show, self.path_of(key), problem, &format!("write {example}"));
    }

    /// The string at `key` or the content of the file at `KEY_file`. An empty one is a fault.
    fn string(&mut self, key: &'static str) -> Option<Text> {
        let here = self.ask(key, true);
        let file_key = format!("{key}_file");
        let there = self.table.get(file_key.as_str());
        let text = match (here, there) {
            (None, None) => return None,
            (Some(_), Some(file)) => {
                let problem = format!("`{key}` is given twice, once as `{file_key}`");
                self.notes.fault(&file.span(), Show::Key, self.path_of(&file_key), problem, "keep one of them");
                return None;
            }
            (Some(value), None) => self.resolve(key, value)?,
            (None, Some(file)) => self.resolve_file(&file_key, file)?,
        };
        if text.value.is_empty() {
            let hint = if text.outside {
                "set the variable or fill the file it comes from"
            } else {
                "give a value, or leave the key out"
            };
            self.notes.fault(&text.span, Show::Key, self.path_of(key), "is empty".to_owned(), hint);
            return None;
        }
        Some(text)
    }

    /// A string value with its variables replaced. What came from a variable is remembered as a secret.
    fn resolve(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Text> {
        let Some(raw) = value.get_ref().as_str() else {
            self.wrong_type(key, value, Show::Key, "a string", &format!("{key} = \"...\""));
            return None;
        };
        let span = value.span();
        match expand(raw, &|name| self.notes.outside.variable(name)) {
            Ok(expanded) => {
                let outside = !expanded.pieces.is_empty();
                expanded.pieces.into_iter().for_each(|piece| self.notes.remember(Secret::new(piece)));
                Some(Text { value: expanded.text, span, outside })
            }
            Err(ExpandError::Unset(_) | ExpandError::Malformed) if self.notes.outside.is_closed() => {
                let problem =
                    "`${...}` stands for a variable of the worker's environment, and only its file may name one";
                let hint = "write the value itself, or $${ for a literal ${";
                self.notes.fault(&span, Show::Key, self.path_of(key), problem.to_owned(), hint);
                None
            }
            Err(ExpandError::Unset(name)) => {
                let problem = format!("the environment variable `{name}` is not set");
                let or = match key.rsplit_once('.') {
                    _ if key.ends_with("_file") => String::from("write the path itself"),
                    Some((table, key)) => {
                        format!("give the value in a file with `{key}_file = \"path\"` inside `{table}`")
                    }
                    None => format!("give the value in a file with `{key}_file = \"path\"`"),
                };
                let hint = format!("set `{name}`, or {or}");
                self.notes.fault(&span, Show::Key, self.path_of(key), problem, &hint);
                None
            }
            Err(ExpandError::Malformed) => {
                let problem = "`${` is not followed by a variable's name and `}`".to_owned();
                let hint = "write ${NAME} with letters, digits and _, or $${ for a literal ${";
                self.notes.fault(&span, Show::Key, self.path_of(key), problem, hint);
                None
            }
        }
    }

    /// The content of the file that `value` names.
    fn resolve_file(&self, file_key: &str, value: &Spanned<DeValue<'_>>) -> Option<Text> {
        if self.notes.outside.is_closed() {
            let problem = "names a file of the worker's machine, which only the worker's own file may do".to_owned();
            let key = file_key.trim_end_matches("_file");
            let hint = format!("give the value itself as `{key}`");
            self.notes.fault(&value.span(), Show::Key, self.path_of(file_key), problem, &hint);
            return None;
        }
        let path = self.resolve(file_key, value)?;
        match self.notes.file(&path.value) {
            Ok(content) => {
                let text = content.expose().to_owned();
                self.notes.remember(content);
                Some(Text { value: text, span: path.span, outside: true })
            }
            Err(problem) => {
                let hint =
                    "check the path (relative ones start at the configuration file) and that this user may read it";
                self.notes.fault(&path.span, Show::Key, self.path_of(file_key), problem, hint);
                None
            }
        }
    }

    /// Where a fault at `key` is shown: at its value, or at the table where it was not written.
    fn place(&self, key: &str) -> Range<usize> {
        let value = self.table.get(key).or_else(|| self.table.get(format!("{key}_file").as_str()));
        value.map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// The path of `key` in faults.
    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

impl fmt::Debug for Settings<'_> {
    /// The path alone: the table holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({:?})", self.path)
    }
}

#[cfg(test)]
mod tests;
