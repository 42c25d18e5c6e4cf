//! One reading of one text: what it may refer to outside itself, and what came of it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{Fault, Settings, fault::Show};
use crate::model::{Egress, Scrubber, Secret};

/// The most that is read of the file of a `KEY_file`, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The most syntax errors that are reported: one slip can make many.
const SYNTAX_FAULTS_MAX: usize = 20;

/// What a configuration may refer to outside itself. Passed in, because only `main` reads the environment.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    directory: &'a Path,
    /// Nothing outside may be referred to at all.
    closed: bool,
}

impl<'a> Outside<'a> {
    /// Variables come from `env`; relative paths of `KEY_file` start at `directory`, which holds the configuration file.
    pub fn new(env: &'a dyn Fn(&str) -> Option<String>, directory: &'a Path) -> Self {
        Self { env, directory, closed: false }
    }

    /// No variable is set, and relative paths start at the current directory.
    pub fn nothing() -> Outside<'static> {
        Outside { env: &|_| None, directory: Path::new(""), closed: false }
    }

    /// Neither variables nor files may be named: for what does not come from the machine's own operator, who alone may know what
    /// the environment and the disk hold. `${NAME}` and `KEY_file` are faults, and no file is opened.
    pub fn closed() -> Outside<'static> {
        Outside { closed: true, ..Outside::nothing() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    pub(super) fn directory(&self) -> &'a Path {
        self.directory
    }
}

impl std::fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outside({})", self.directory.display())
    }
}

/// What came of a reading.
#[derive(Debug)]
pub struct Reading<T> {
    /// What was built; `None` where the text is not TOML at all. Not to be used while there are faults.
    pub value: Option<T>,
    /// What is wrong, in the order of the text.
    pub faults: Vec<Fault>,
    /// What looks wrong but can be used, in the order of the text.
    pub warnings: Vec<Fault>,
    /// Every secret that was read, and every text that came from outside.
    pub secrets: Vec<Secret>,
    /// The keys that were asked for as secrets, by their path.
    pub hidden: BTreeMap<String, Hidden>,
    /// Every key that was asked for, by its path.
    pub asked: BTreeSet<String>,
}

/// How a value that is a secret may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Not at all.
    Whole,
    /// As a URL without its path.
    Url,
}

/// Reads `text` as TOML with `build`, which is handed the whole document. Keys that it does not ask for are faults.
pub fn read<T>(text: &str, outside: &Outside<'_>, build: impl FnOnce(&mut Settings<'_>) -> T) -> Reading<T> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Reading what could be recovered would report keys as missing that are just misspelled TOML.
        let place = |error: &toml::de::Error| error.span().unwrap_or(text.len()..text.len());
        let hint =
            "mend the TOML first; the other checks need it (strings stand in quotes, a key stands once per table)";
        let faults = errors.iter().take(SYNTAX_FAULTS_MAX).map(|error| {
            let problem = format!("this is not TOML: {}", error.message());
            Fault::at(text, &place(error), Show::Key, String::new(), problem, hint)
        });
        let (warnings, secrets, hidden, asked) = Default::default();
        return Reading { value: None, faults: faults.collect(), warnings, secrets, hidden, asked };
    }
    let notes = Notes::new(text, *outside);
    let mut settings = Settings::new(&notes, document.get_ref(), 0..0, String::new());
    let value = build(&mut settings);
    settings.finish();
    let (hidden, asked) = (notes.hidden.take(), notes.asked.take());
    let (faults, warnings, secrets) = notes.into_parts();
    Reading { value: Some(value), faults, warnings, secrets, hidden, asked }
}

/// What the tables of one reading share.
pub(super) struct Notes<'a> {
    pub(super) text: &'a str,
    pub(super) outside: Outside<'a>,
    /// `[egress]`, once it was read.
    pub(super) egress: RefCell<Egress>,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
    secrets: RefCell<Vec<Secret>>,
    /// The keys that were asked for as secrets.
    pub(super) hidden: RefCell<BTreeMap<String, Hidden>>,
    /// The keys that were asked for.
    pub(super) asked: RefCell<BTreeSet<String>>,
    /// Files that were read, so that two looks at one key see the same content.
    files: RefCell<BTreeMap<PathBuf, Result<Secret, String>>>,
}

impl<'a> Notes<'a> {
    fn new(text: &'a str, outside: Outside<'a>) -> Self {
        Self {
            text,
            outside,
            egress: RefCell::default(),
            faults: RefCell::default(),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
            hidden: RefCell::default(),
            asked: RefCell::default(),
            files: RefCell::default(),
        }
    }

    pub(super) fn fault(&self, span: &Range<usize>, show: Show, path: String, problem: String, hint: &str) {
        self.faults.borrow_mut().push(Fault::at(self.text, span, show, path, problem, hint));
    }

    pub(super) fn fault_of_variable(&self, name: &str, problem: String, hint: &str) {
        self.faults.borrow_mut().push(Fault::of_variable(name, problem, hint));
    }

    pub(super) fn warn(&self, span: &Range<usize>, show: Show, path: String, problem: String, hint: &str) {
        self.warnings.borrow_mut().push(Fault::at(self.text, span, show, path, problem, hint));
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.outside.variable(name)
    }

    pub(super) fn remember(&self, secret: Secret) {
        self.secrets.borrow_mut().push(secret);
    }

    /// The content of a file without one trailing newline, or what is wrong with it.
    pub(super) fn file(&self, path: &str) -> Result<Secret, String> {
        if self.outside.closed {
            return Err(String::from("no file may be named here"));
        }
        let path = self.outside.directory.join(path);
        let mut files = self.files.borrow_mut();
        files.entry(path).or_insert_with_key(|path| content(path)).clone()
    }

    /// Everything that was noted, sorted, and without the secrets: a room below may have quoted a value.
    fn into_parts(self) -> (Vec<Fault>, Vec<Fault>, Vec<Secret>) {
        let secrets = self.secrets.into_inner();
        let scrubber = Scrubber::new(secrets.iter().cloned());
        let tidy = |faults: RefCell<Vec<Fault>>| {
            let mut faults = faults.into_inner();
            for fault in &mut faults {
                for text in [&mut fault.problem, &mut fault.hint, &mut fault.excerpt] {
                    *text = scrubber.scrub(text);
                }
            }
            faults.sort_by_key(|fault| (fault.line, fault.column));
            faults.dedup();
            faults
        };
        (tidy(self.faults), tidy(self.warnings), secrets)
    }
}

/// The content of a file without one trailing newline, or what is wrong with it. Bounded, so that a device or a wrong path
/// cannot fill the memory.
pub(super) fn content(path: &Path) -> Result<Secret, String> {
    let cannot = |error: &std::io::Error| format!("cannot read the file `{}`: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file `{}` is larger than 64 KiB", path.display()));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Secret::new(text))
}
