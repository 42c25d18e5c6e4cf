//! Decisions that commands work on: read from a file, or made up as a sample.

use std::{io::Read as _, path::Path};

use bytes::Bytes;

use super::{Failure, Shell};
pub use crate::config::sample;
use crate::model::{Decision, decision::DECISION_BYTES_MAX};

/// Reads one decision from `path`, or from standard input for `-`.
pub fn read(path: &Path, shell: &mut Shell<'_>) -> Result<Decision, Failure> {
    let limit = DECISION_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        (&mut *shell.input).take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(shell.directory.join(path)).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let name = if path == Path::new("-") { String::from("standard input") } else { path.display().to_string() };
    if let Err(error) = read {
        let failure = Failure::new(format!("could not read the decision from {name}"));
        return Err(Failure { causes: vec![error.to_string()], ..failure }
            .hint("give a file with one decision, or - for standard input"));
    }
    Decision::decode(Bytes::from(bytes)).map_err(|error| {
        let failure = Failure::new(format!("{name} holds no decision")).hint(
            "it must be one JSON object with at least `id`, `time`, `decision`, `severity`, `agent.id` and `tool`",
        );
        Failure { causes: vec![error.to_string()], ..failure }
    })
}
