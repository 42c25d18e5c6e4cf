//! `completions`: a completion script for a shell.

use clap::CommandFactory as _;

use super::{Cli, Failure, Shell};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  bash, for this user (with the package bash-completion):
    mkdir -p ~/.local/share/bash-completion/completions
    interven-alerts completions bash > ~/.local/share/bash-completion/completions/interven-alerts
  zsh, for this user (before compinit in ~/.zshrc: fpath=(~/.zfunc $fpath)):
    mkdir -p ~/.zfunc
    interven-alerts completions zsh > ~/.zfunc/_interven-alerts
  fish, for this user:
    mkdir -p ~/.config/fish/completions
    interven-alerts completions fish > ~/.config/fish/completions/interven-alerts.fish

For all users of a machine:
  bash  /usr/share/bash-completion/completions/interven-alerts
  zsh   /usr/local/share/zsh/site-functions/_interven-alerts
  fish  /usr/share/fish/vendor_completions.d/interven-alerts.fish")]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: &Args, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    // Into memory first: the generator panics where writing fails.
    clap_complete::generate(args.shell, &mut Cli::command(), "interven-alerts", &mut script);
    if args.shell == clap_complete::Shell::Bash {
        // The script writes the hyphen of our name in two ways, so that nothing below a command would be completed.
        // Source: github.com/clap-rs/clap/issues/6421, open at clap_complete 4.6.11; mended there, this changes nothing.
        script = String::from_utf8_lossy(&script).replace("interven__subcmd__alerts", "interven__alerts").into_bytes();
    }
    Ok(shell.out.write_all(&script)?)
}
