//! argv to exit code; the only reader of the environment.

use std::{
    io::{BufWriter, IsTerminal as _, stderr, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
};

use interven_alerts::{
    channels::KINDS,
    cli::{self, Shell, shell::is_plain},
    model::Clock,
};

fn main() -> ExitCode {
    let mut shell = Shell {
        env: &env,
        kinds: KINDS,
        // Relative to wherever the process is: paths are used, and shown, as they were given.
        directory: PathBuf::new(),
        clock: Clock::System,
        input: &mut stdin(),
        out_is_terminal: stdout().is_terminal(),
        out: &mut BufWriter::new(stdout()),
        color: stderr().is_terminal() && !is_plain(&env),
        err: &mut stderr(),
    };
    ExitCode::from(cli::run(std::env::args_os(), &mut shell))
}

/// A variable of the environment, where it is set and text.
#[expect(clippy::disallowed_methods, reason = "this is the one door of the environment")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
