//! The command line: parse flags, make one call, print.
//!
//! One file per subcommand, each with its `Args` and a `run`. To add one: write the file, add a variant to [`Command`] and an arm
//! to [`dispatch`]. Commands print through a [`Shell`], so that tests run them without a process.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 usage, 78 faulty
//! configuration.
//!
//! Absent on purpose: rules. A command that decides anything calls the room that owns the decision.
//!
//! Start with [`run`], then `explain.rs`, a short complete command.

pub mod channels;
pub mod channels_running;
pub mod channels_test;
pub mod check;
pub mod completions;
pub mod config_file;
pub mod dead_letters;
pub mod decisions;
pub mod demo;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod failure;
pub mod logging;
pub mod moment;
pub mod place;
pub mod publish;
pub mod render;
pub mod run;
pub mod server;
pub mod shell;
pub mod table;
pub mod token;

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use failure::{Exit, Failure};
pub use shell::Shell;

/// Durable delivery of an AI firewall's decisions to Slack, Discord, Teams, Telegram and SIEMs.
#[derive(Debug, Parser)]
#[command(
    name = "interven-alerts",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_long_help = "\
Examples:
  interven-alerts demo                                       see it all at work, with nothing installed
  interven-alerts run                                        run the worker
  interven-alerts check                                      find every fault of the configuration
  interven-alerts explain decision.json                      which channels would get this decision, and why not the others
  interven-alerts render decision.json --channel soc-slack   the exact body that Slack would get
  interven-alerts token soc-lead --role admin                make a token for the API

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 faulty configuration."
)]
pub struct Cli {
    /// The flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The configuration file
    ///
    /// Left out: `interven-alerts.toml` in the current directory, else /etc/interven-alerts/interven-alerts.toml.
    #[arg(long, global = true, value_name = "FILE", env = "INTERVEN_ALERTS_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// How log lines on standard error look
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "human",
        env = "INTERVEN_ALERTS_LOG_FORMAT",
        help_heading = "Global options"
    )]
    pub log_format: logging::LogFormat,
    /// Which log lines are written: off, error, warn, info, debug, trace, or directives such as `info,interven_alerts::lane=debug`
    ///
    /// Left out: info for `run`, off for `demo`, warn for the other commands.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "INTERVEN_ALERTS_LOG_LEVEL",
        value_parser = logging::parse_level,
        help_heading = "Global options"
    )]
    pub log_level: Option<String>,
    /// Which flags were given, and not set by variables.
    #[arg(skip)]
    pub by_flag: place::ByFlag,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the worker until it is told to stop
    Run(run::Args),
    /// Check the configuration: every fault at once, with line and hint
    Check(check::Args),
    /// Say which channels would get a decision, and why not the others
    Explain(explain::Args),
    /// Print the exact body that a channel would get
    Render(render::Args),
    /// Look at the channels, test, pause and resume them
    Channels(channels::Args),
    /// Make a token for the API
    Token(token::Args),
    /// Publish decisions to the broker, each one confirmed
    Publish(publish::Args),
    /// Look at what could not be delivered, replay it or purge it
    DeadLetters(dead_letters::Args),
    /// Write out what was decided
    Decisions(decisions::Args),
    /// Find out whether everything is there that the worker needs
    Doctor(doctor::Args),
    /// Watch the whole program at work for half a minute, with nothing installed
    Demo(demo::command::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

impl Command {
    /// The log level where nobody said.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Run(_) => "info",
            Self::Demo(_) => "off",
            Self::Check(_)
            | Self::Explain(_)
            | Self::Render(_)
            | Self::Channels(_)
            | Self::Token(_)
            | Self::Publish(_)
            | Self::DeadLetters(_)
            | Self::Decisions(_)
            | Self::Doctor(_)
            | Self::Completions(_) => "warn",
        }
    }
}

/// The runtime that a command's asynchronous part runs on: the worker's on every core, anything else's on this thread.
fn runtime(worker: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = if worker {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().map_err(|error| Failure::of(&error))
}

/// The http or https URL that an argument gives.
fn url_argument(text: &str) -> Result<url::Url, Failure> {
    url::Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()).ok_or_else(
        || {
            Failure::new(format!("`{}` is no URL of a worker", crate::settings::printable(text)))
                .hint("give it as http://HOST:PORT")
                .exit(Exit::Usage)
        },
    )
}

/// Runs the command that `argv` asks for, and returns the exit code.
pub fn run(argv: impl IntoIterator<Item = OsString>, shell: &mut Shell<'_>) -> u8 {
    let done = match parse(argv) {
        Ok(cli) => {
            logging::init(&cli.global, cli.command.log_level(), shell.color);
            dispatch(cli, shell)
        }
        // Help and version arrive here, too.
        Err(error) => return shell.print_usage(&error),
    };
    match done.and_then(|()| shell.out.flush().map_err(Failure::from)) {
        Ok(()) => Exit::Done.code(),
        Err(failure) => shell.print_failure(&failure),
    }
}

fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(argv)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
    cli.global.by_flag = place::ByFlag::of(&matches);
    Ok(cli)
}

fn dispatch(cli: Cli, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Check(args) => check::run(&args, &global, shell),
        Command::Explain(args) => explain::run(&args, &global, shell),
        Command::Render(args) => render::run(&args, &global, shell),
        Command::Channels(args) => channels::run(&args, &global, shell),
        Command::Token(args) => token::run(&args, shell),
        Command::Run(_) => run::run(&global, shell),
        Command::Publish(args) => publish::run(&args, &global, shell),
        Command::DeadLetters(args) => dead_letters::run(&args, &global, shell),
        Command::Decisions(args) => decisions::run(&args, &global, shell),
        Command::Doctor(args) => doctor::run(&args, &global, shell),
        Command::Demo(_) => demo::command::run(shell),
        Command::Completions(args) => completions::run(&args, shell),
    }
}

#[cfg(test)]
mod tests;
