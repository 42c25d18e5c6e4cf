//! Finding the configuration file and loading it, or telling everything that is wrong with it.

use std::path::{Path, PathBuf};

use super::{Exit, Failure, Global, Shell};
use crate::{
    config::{self, LoadError, Plan, Sound},
    settings::Fault,
};

/// The name that is looked for in the current directory.
const NAME: &str = "interven-alerts.toml";

/// Where a package puts the file.
const SYSTEM: &str = "/etc/interven-alerts/interven-alerts.toml";

/// The configuration file: the one that was asked for, or the first that is there.
pub fn find(global: &Global, shell: &Shell<'_>) -> Result<PathBuf, Failure> {
    if let Some(path) = &global.config {
        return Ok(path.clone());
    }
    if shell.directory.join(NAME).exists() {
        // Relative, because it is printed with every fault.
        return Ok(PathBuf::from(NAME));
    }
    if Path::new(SYSTEM).exists() {
        return Ok(PathBuf::from(SYSTEM));
    }
    let problem = format!("there is no configuration: neither {NAME} in this directory nor {SYSTEM}");
    let hint = "give one with `--config FILE` or INTERVEN_ALERTS_CONFIG; `interven-alerts demo` needs none, and the README has one to begin with";
    Err(Failure::new(problem).hint(hint).exit(Exit::Config))
}

/// Loads the configuration. Its faults are printed to standard error.
pub fn load(global: &Global, shell: &mut Shell<'_>) -> Result<Plan, Failure> {
    let path = find(global, shell)?;
    match load_file(&path, shell) {
        Ok(sound) => Ok(sound.plan),
        Err(LoadError::Faulty(faulty)) => {
            print_faults(shell, &path, "error", &faulty.faults);
            Err(Failure::new(faulty.to_string()).exit(Exit::Config))
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

/// Loads the file at `path`, seen from the shell's directory.
pub(super) fn load_file(path: &Path, shell: &Shell<'_>) -> Result<Sound, LoadError> {
    config::load(&shell.directory.join(path), shell.env, shell.kinds)
}

/// The failure that a file which could not be read is.
pub(super) fn unreadable(path: &Path, error: &LoadError) -> Failure {
    let mut failure = Failure::of(error).hint(error.hint()).exit(Exit::Config);
    failure.problem = format!("{}: {}", path.display(), failure.problem);
    failure
}

/// Prints each fault with its place, the line and the hint.
pub(super) fn print_faults(shell: &mut Shell<'_>, path: &Path, label: &str, faults: &[Fault]) {
    let file = path.display().to_string();
    for fault in faults {
        shell.say(label, fault.show(&file).trim_end());
    }
}

/// The channel with this id, or a failure that lists the ids there are.
pub fn channel<'p>(plan: &'p Plan, id: &str) -> Result<&'p config::ChannelPlan, Failure> {
    plan.channel(id).ok_or_else(|| {
        let known: Vec<&str> = plan.channels.iter().map(|channel| channel.id.as_str()).collect();
        let hint = if known.is_empty() {
            "the configuration has no channel".into()
        } else {
            format!("there are {}", known.join(", "))
        };
        Failure::new(format!("there is no channel `{}`", crate::settings::printable(id))).hint(hint)
    })
}
