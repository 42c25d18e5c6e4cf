//! What a command may touch of the world around it, as values: streams, the environment, the clock, the kinds of channels.

use std::{
    fmt,
    io::{Read, Write},
    path::PathBuf,
};

use serde::Serialize;

use super::Failure;
use crate::{channels::Kind, model::Clock};

/// The world around a command. `main` makes one of the real world, tests make one of buffers.
pub struct Shell<'a> {
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The kinds of channels that there are.
    pub kinds: &'a [&'static Kind],
    /// Where relative paths start.
    pub directory: PathBuf,
    /// Wall time.
    pub clock: Clock,
    /// Standard input.
    pub input: &'a mut (dyn Read + Send),
    /// Standard output: results.
    pub out: &'a mut dyn Write,
    /// Whether somebody looks at standard output.
    pub out_is_terminal: bool,
    /// Standard error: everything else.
    pub err: &'a mut dyn Write,
    /// Whether standard error is a terminal that takes colours (and `NO_COLOR` is not set).
    pub color: bool,
}

/// Whether a terminal wants no colours and nothing that moves: `NO_COLOR` is set to anything (no-color.org), or it can do neither.
pub fn is_plain(env: &dyn Fn(&str) -> Option<String>) -> bool {
    env("NO_COLOR").is_some_and(|value| !value.is_empty()) || env("TERM").is_some_and(|term| term == "dumb")
}

impl Shell<'_> {
    /// Whether whoever looks wants no colours and nothing that moves.
    pub fn plain(&self) -> bool {
        is_plain(self.env)
    }

    /// Lends the input out, to be read beside everything else.
    pub(super) fn lend_input<T>(&mut self, with: impl FnOnce(&mut (dyn Read + Send), &mut Shell<'_>) -> T) -> T {
        let Shell { env, kinds, directory, clock, input, out, out_is_terminal, err, color } = self;
        let mut rest = Shell {
            env: *env,
            kinds,
            directory: directory.clone(),
            clock: *clock,
            input: &mut std::io::empty(),
            out: &mut **out,
            out_is_terminal: *out_is_terminal,
            err: &mut **err,
            color: *color,
        };
        with(&mut **input, &mut rest)
    }

    /// Prints `value` as JSON, indented, with a newline.
    pub fn print_json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(value).map_err(|error| Failure::of(&error))?;
        Ok(writeln!(self.out, "{json}")?)
    }

    /// Prints a line to standard error with a label in front: `warning: ...`.
    ///
    /// If standard error is gone there is nobody left to tell, so a failure to write there is no failure.
    pub fn say(&mut self, label: &str, text: &str) {
        let colour = match label {
            "error" => "\u{1b}[1;31m",
            "warning" => "\u{1b}[1;33m",
            _ => "\u{1b}[1;36m",
        };
        let done = if self.color {
            writeln!(self.err, "{colour}{label}:\u{1b}[0m {text}")
        } else {
            writeln!(self.err, "{label}: {text}")
        };
        done.unwrap_or_default();
    }

    pub(super) fn print_failure(&mut self, failure: &Failure) -> u8 {
        if !failure.problem.is_empty() {
            self.say("error", &failure.problem);
        }
        for cause in &failure.causes {
            self.say("caused by", cause);
        }
        if !failure.hint.is_empty() {
            self.say("hint", &failure.hint);
        }
        failure.exit.code()
    }

    pub(super) fn print_usage(&mut self, error: &clap::Error) -> u8 {
        let (out, color): (&mut dyn Write, bool) = if error.use_stderr() {
            (&mut *self.err, self.color)
        } else {
            (&mut *self.out, self.color && self.out_is_terminal)
        };
        let text = error.render();
        let done = if color { write!(out, "{}", text.ansi()) } else { write!(out, "{text}") };
        done.and_then(|()| out.flush()).unwrap_or_default();
        u8::try_from(error.exit_code()).unwrap_or(2)
    }
}

impl fmt::Debug for Shell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shell({})", self.directory.display())
    }
}
