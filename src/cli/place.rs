//! Where a command looks: at running workers, into the data directory of a stopped one, or where the configuration says.
//!
//! One rule for all commands: what is said on the command line counts for more than a variable of the environment, which may be set
//! for other commands. So `--config FILE` is obeyed although INTERVEN_ALERTS_SERVER is set.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, parser::ValueSource};

use super::{Exit, Failure, Global, server};

/// The heading of the flags that say where.
pub const WHERE: &str = "Where";

/// The flags of commands that look at running workers or at a stopped one.
#[derive(Clone, Debug, clap::Args)]
// Every command's flags have this name, and a group of it would be there twice.
#[group(skip)]
pub struct Args {
    /// The data directory of a stopped worker
    ///
    /// Left out: `data_dir` of the configuration.
    #[arg(help_heading = WHERE, long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The running workers.
    #[command(flatten)]
    pub server: server::Args,
}

/// Which flags were given on the command line, and not by a variable.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByFlag {
    pub(super) config: bool,
    pub(super) server: bool,
}

impl ByFlag {
    /// What `matches` and those of its subcommands say.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        Self { config: by_flag(matches, "config"), server: by_flag(matches, server::FLAG) }
    }
}

fn by_flag(matches: &ArgMatches, id: &str) -> bool {
    // Asking for what a command does not have is a panic.
    let here = matches!(matches.try_contains_id(id), Ok(true));
    here && matches.value_source(id) == Some(ValueSource::CommandLine)
        || matches.subcommand().is_some_and(|(_, below)| by_flag(below, id))
}

/// Where a command looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The running workers that were named.
    Workers,
    /// The directory of a stopped worker.
    DataDir(&'a Path),
    /// Where the configuration says.
    Configuration,
}

impl<'a> Place<'a> {
    /// The place that the command line and the environment name.
    pub fn of(server: &server::Args, data_dir: Option<&'a Path>, global: &Global) -> Result<Self, Failure> {
        let named = server.given().next().is_some();
        let ByFlag { config, server } = global.by_flag;
        match data_dir {
            Some(_) if named && server => Err(Failure::new("both `--server` and `--data-dir` are given")
                .hint("ask running workers with `--server`, or look into the directory of a stopped one with `--data-dir`")
                .exit(Exit::Usage)),
            Some(dir) => Ok(Self::DataDir(dir)),
            None if named && (server || !config) => Ok(Self::Workers),
            None => Ok(Self::Configuration),
        }
    }

    /// Whether running workers are asked, by a command that knows them and the configuration.
    pub fn is_workers(server: &server::Args, global: &Global) -> bool {
        matches!(Self::of(server, None, global), Ok(Self::Workers))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn what_is_on_the_command_line_counts_for_more_than_what_the_environment_says() {
        // The variable cannot be set here, so its part is played by a flag that is said not to have been one.
        let place = |line: &str, variable: bool| {
            let matches = Cli::command().get_matches_from(line.split_whitespace());
            let mut global = Cli::from_arg_matches(&matches).unwrap().global;
            global.by_flag = ByFlag::of(&matches);
            global.by_flag.server &= !variable;
            let (_, of_command) = matches.subcommand().unwrap();
            let deepest = of_command.subcommand().map_or(of_command, |(_, deepest)| deepest);
            let args = Args::from_arg_matches(deepest).unwrap();
            Place::of(&args.server, args.data_dir.as_deref(), &global).map(|place| format!("{place:?}")).ok()
        };
        let (server, config, dir) = ("--server http://a:1", "--config c.toml", "--data-dir d");
        for command in ["dead-letters list", "decisions export"] {
            for (flags, variable, expected) in [
                (String::new(), false, Some("Configuration")),
                (config.into(), false, Some("Configuration")),
                (server.into(), false, Some("Workers")),
                (server.into(), true, Some("Workers")),
                (format!("{server} {config}"), false, Some("Workers")),
                (format!("{server} {config}"), true, Some("Configuration")),
                (format!("{server} {dir}"), false, None),
                (format!("{server} {dir}"), true, Some("DataDir(\"d\")")),
                (dir.into(), false, Some("DataDir(\"d\")")),
            ] {
                let line = format!("interven-alerts {command} {flags}");
                assert_eq!(place(&line, variable).as_deref(), expected, "{line} {variable}");
            }
        }
    }
}
