//! `completions`: a completion script for a shell.

use clap::CommandFactory as _;

use super::{Cli, Failure, Shell};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts completions bash > /usr/share/bash-completion/completions/interven-alerts
  interven-alerts completions zsh > \"${fpath[1]}/_interven-alerts\"
  interven-alerts completions fish > ~/.config/fish/completions/interven-alerts.fish")]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: &Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    // Into memory first: the generator panics where writing fails.
    clap_complete::generate(args.shell, &mut Cli::command(), "interven-alerts", &mut script);
    Ok(shell.out.write_all(&script)?)
}
