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
pub mod choice;
pub mod completions;
pub mod config_file;
pub mod dead_letters;
pub mod decisions;
pub mod demo;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod failure;
pub mod help;
pub mod logging;
pub mod man;
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

/// Durable delivery of an AI firewall's decisions to Slack, Discord, Teams, Telegram and SIEMs
///
/// The worker takes decisions from RabbitMQ, or from the broker that it brings along, and tells them to the channels that want them.
/// A decision is acknowledged only when every channel has it, or it waits safely on the broker or among the dead letters: at least
/// once, never silently lost.
///
/// Results go to standard output, everything else to standard error. What lists or shows something prints JSON with --json.
#[derive(Debug, Parser)]
#[command(
    name = "interven-alerts",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_long_help = "\
Examples:
  See it all at work in half a minute, with nothing installed or configured:
    interven-alerts demo
  Find every fault of the configuration, then look at everything that the worker needs:
    interven-alerts check
    interven-alerts doctor
  Run the worker:
    interven-alerts run
  Which channels would get a decision, and what exactly one of them would get:
    interven-alerts explain decision.json
    interven-alerts render decision.json --channel soc-slack
  Look at running workers, and at what could not be delivered:
    interven-alerts channels list --server http://127.0.0.1:8080
    interven-alerts dead-letters list --by-cause --server http://127.0.0.1:8080

Environment:
  INTERVEN_ALERTS_CONFIG      the configuration file, as --config
  INTERVEN_ALERTS_LOG_FORMAT  as --log-format
  INTERVEN_ALERTS_LOG_LEVEL   as --log-level
  INTERVEN_ALERTS_SERVER      the running workers to ask, as --server; several with commas
  INTERVEN_ALERTS_TOKEN       the token for them; a flag would show it to everybody on the machine
  INTERVEN_ALERTS_KEY         the pool's key, the same in every worker: `openssl rand -base64 32`
  NO_COLOR                    set to anything: no colours and no progress bars, even on a terminal

  What is on the command line counts for more than a variable.

Files:
  interven-alerts.toml                       the configuration, in the current directory
  /etc/interven-alerts/interven-alerts.toml  the configuration, where there is none here

Exit codes:
  0   done
  1   failed
  2   wrong usage
  78  faulty configuration: starting again does not help"
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
    /// Left out: info for `run`, off for `demo` and `doctor`, warn for the other commands.
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
    ///
    /// Reads decisions from the broker and delivers them to the channels of the configuration. Start as many as you like on one
    /// RabbitMQ; each needs a `data_dir` and ports of its own. Without `[broker]` it uses the broker that it brings along, alone.
    Run(run::Args),
    /// Check the configuration: every fault at once, with line and hint
    ///
    /// Nothing is sent and nothing is connected to: `interven-alerts doctor` does that. Variables and files that the configuration
    /// names are read, so run it where the worker runs, as the worker's user. Of a line with a fault, what may be a secret is hidden.
    Check(check::Args),
    /// Say which channels would get a decision, and why not the others
    ///
    /// For the question "why was I not told?". Nothing is sent. Each channel is asked in the order events, min_severity, tools,
    /// agents; the first filter that the decision does not pass is shown with both values.
    Explain(explain::Args),
    /// Print the exact body that a channel would get
    ///
    /// Nothing is sent. Secrets of the configuration are masked, and a compressed body is shown unpacked.
    Render(render::Args),
    /// Look at the channels, test, pause and resume them
    Channels(channels::Args),
    /// Make a token for the API
    ///
    /// The token has 256 random bits. It is printed once and kept nowhere: the configuration gets its SHA-256. A caller sends it as
    /// `Authorization: Bearer TOKEN`, commands take it from INTERVEN_ALERTS_TOKEN, and people sign in to the console with it.
    Token(token::Args),
    /// Publish decisions to the broker, each one confirmed
    ///
    /// To try a configuration, or to tell again what is kept elsewhere. One decision a line; each line is checked first. A line that is
    /// no decision is told with its number and left out, and the exit code is then 1. A decision counts as published when the broker
    /// has confirmed it.
    Publish(publish::Args),
    /// Look at what could not be delivered, replay it or purge it
    ///
    /// Each worker keeps its own dead letters. With --server every worker that is named is asked, a name with several addresses means
    /// all of them, and their answers are put together; where one of them fails or is silent, the exit code is 1, and what the others
    /// did stands. Without it, the store of a stopped worker is opened: --data-dir, or `data_dir` of the configuration.
    DeadLetters(dead_letters::Args),
    /// Write out what was decided
    Decisions(decisions::Args),
    /// Find out whether everything is there that the worker needs
    ///
    /// Looks at the configuration, the data directory, the ports, who may ask the worker, the links in cards, the broker and what must
    /// be there on it, each channel's endpoint, and the clock. Each finding says what is so, and what to do about it. Nothing is posted
    /// to a channel: its host is connected to and asked for its head page (`interven-alerts channels test ID` posts a sample). With
    /// `declare = true` what is missing on the broker is made, as the worker would.
    Doctor(doctor::Args),
    /// Watch the whole program at work for half a minute, with nothing installed
    Demo(demo::command::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page of a command, or write all of them
    ///
    /// The pages say what --help says; they are made of the same text.
    Man(man::Args),
}

impl Command {
    /// The log level where nobody said.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Run(_) => "info",
            // The one tells a story, the other says all that it finds.
            Self::Demo(_) | Self::Doctor(_) => "off",
            Self::Check(_)
            | Self::Explain(_)
            | Self::Render(_)
            | Self::Channels(_)
            | Self::Token(_)
            | Self::Publish(_)
            | Self::DeadLetters(_)
            | Self::Decisions(_)
            | Self::Completions(_)
            | Self::Man(_) => "warn",
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

/// Whether a URL names this machine.
fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
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
        Command::Man(args) => man::run(&args, shell),
    }
}

#[cfg(test)]
mod tests;
