//! `doctor`: is everything there that the worker needs? What is not is told with why, and with what to do about it.
//!
//! It looks and changes nothing, but for what a worker with `declare = true` would make on the broker: whoever runs it may not be who
//! runs the worker, and a file that it left in `data_dir` could be one that the worker cannot write. Every wait has a bound, and what
//! can be looked at side by side is.
//!
//! Absent on purpose: posting to a channel. `channels test` does that.
//!
//! Start with [`examine`]; `disk.rs`, `ports.rs`, `access.rs`, `peers.rs` and `outside.rs` look at one thing each.

mod access;
mod disk;
mod outside;
mod peers;
mod ports;

use std::{fmt::Write as _, path::Path};

use serde::Serialize;

use super::{Exit, Failure, Global, Shell, config_file, runtime};
use crate::{
    config::{LoadError, Plan, Sound},
    model::Clock,
    settings::{Fault, printable},
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Look at everything that the configuration of this directory needs:
    interven-alerts doctor
  Before a rollout, as the worker's user and for another program:
    sudo -u interven-alerts interven-alerts doctor --config new.toml --json > findings.json

Findings:
  ok    is as it should be
  warn  may be meant so, or could not be looked at: read it
  FAIL  the worker would not do its work: it says what to do

Exit codes:
  0   nothing is broken; there may be warnings
  1   something is broken
  78  the configuration is faulty or missing: nothing else was looked at")]
pub struct Args {
    /// Print JSON: a list of {part, health, says, why, hint}; health is well, doubtful or ill
    #[arg(long)]
    json: bool,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Well,
    Doubtful,
    Ill,
}

impl Health {
    /// The word for people, and its colour.
    const fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::Well => ("ok", "32"),
            Self::Doubtful => ("warn", "33"),
            Self::Ill => ("FAIL", "1;31"),
        }
    }
}

/// What was found out about one part.
#[derive(Debug, Serialize)]
struct Finding {
    part: String,
    health: Health,
    /// What is so.
    says: String,
    /// Why, or what follows from it.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

impl Finding {
    fn well(part: impl Into<String>, says: impl Into<String>) -> Self {
        let (why, hint) = Default::default();
        Self { part: part.into(), health: Health::Well, says: says.into(), why, hint }
    }

    fn doubtful(part: impl Into<String>, says: impl Into<String>) -> Self {
        Self { health: Health::Doubtful, ..Self::well(part, says) }
    }

    fn ill(part: impl Into<String>, says: impl Into<String>) -> Self {
        Self { health: Health::Ill, ..Self::well(part, says) }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// The finding for people, beside parts of this width.
    fn show(&self, width: usize, color: bool) -> String {
        let Self { part, health, says, why, hint } = self;
        let (mark, codes) = health.mark();
        let painted = if color { format!("\u{1b}[{codes}m{mark:<4}\u{1b}[0m") } else { format!("{mark:<4}") };
        let mut shown = format!("{painted}  {part:<width$}  {}\n", printable(says));
        for (label, text) in [("because", why), ("hint", hint)] {
            if !text.is_empty() {
                let (indent, text) = (width + 8, printable(text));
                writeln!(shown, "{:indent$}{label}: {text}", "").expect("writing to a String never fails");
            }
        }
        shown
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let found = config_file::find(global, shell);
    let loaded = found.map(|path| (config_file::load_file(&path, shell), path));
    let plan = match loaded {
        Ok((Ok(Sound { plan, warnings }), path)) => {
            let says = format!("{}: {} channels", path.display(), plan.channels.len());
            let mut findings = vec![Finding::well("configuration", says)];
            findings.extend(warnings.iter().map(|warning| of_fault(warning, &path, Health::Doubtful)));
            Ok((plan, findings))
        }
        Ok((Err(LoadError::Faulty(found)), path)) => {
            let faults = found.faults.iter().map(|fault| of_fault(fault, &path, Health::Ill));
            let warnings = found.warnings.iter().map(|warning| of_fault(warning, &path, Health::Doubtful));
            Err(faults.chain(warnings).collect())
        }
        Ok((Err(error), path)) => Err(vec![of_failure(config_file::unreadable(&path, &error))]),
        Err(failure) => Err(vec![of_failure(failure)]),
    };
    let (plan, mut findings) = match plan {
        Ok(both) => both,
        Err(findings) => {
            tell(&findings, args.json, shell)?;
            let problem = "the configuration cannot be used, so nothing else was looked at";
            return Err(Failure::new(problem).exit(Exit::Config));
        }
    };
    let clock = shell.clock;
    findings.extend(runtime(false)?.block_on(examine(&plan, clock)));
    tell(&findings, args.json, shell)?;
    let ill = findings.iter().filter(|finding| finding.health == Health::Ill).count();
    match ill {
        0 => Ok(()),
        1 => Err(Failure::new("one thing is broken: see FAIL above")),
        ill => Err(Failure::new(format!("{ill} things are broken: see FAIL above"))),
    }
}

fn of_fault(fault: &Fault, path: &Path, health: Health) -> Finding {
    let Fault { line, path: key, problem, hint, .. } = fault;
    let place = if *line == 0 { String::from("environment") } else { format!("{}:{line}", path.display()) };
    let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
    Finding { health, ..Finding::well("configuration", format!("{place}: {key}{problem}")).hint(hint) }
}

fn of_failure(failure: Failure) -> Finding {
    Finding::ill("configuration", failure.problem).because(failure.causes.join(": ")).hint(failure.hint)
}

fn tell(findings: &[Finding], json: bool, shell: &mut Shell<'_>) -> Result<(), Failure> {
    if json {
        return shell.print_json(&findings);
    }
    let width = findings.iter().map(|finding| finding.part.chars().count()).max().unwrap_or(0);
    let color = shell.out_is_terminal && !shell.plain();
    let shown: String = findings.iter().map(|finding| finding.show(width, color)).collect();
    Ok(shell.out.write_all(shown.as_bytes())?)
}

/// Looks at everything but the configuration itself.
async fn examine(plan: &Plan, clock: Clock) -> Vec<Finding> {
    let disk = disk::look(plan, clock);
    let mut findings = disk.findings;
    findings.extend(ports::look(&plan.http, disk.in_use).await);
    findings.extend(access::look(plan));
    let embedded = disk::embedded(plan, disk.in_use);
    let (broker, outside, peers) =
        tokio::join!(outside::broker(plan, clock, embedded), outside::endpoints(plan, clock), peers::look(&plan.peers));
    findings.extend(broker);
    findings.extend(peers);
    findings.extend(outside);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_why_and_what_to_do_and_obeys_no_hostile_text() {
        let finding = Finding::ill("broker", "it is\u{1b}[2J away").because("nobody listens").hint("start it");
        let shown = finding.show(10, false);
        assert_eq!(
            shown,
            "FAIL  broker      it is [2J away\n                  because: nobody listens\n                  hint: start it\n"
        );
        assert!(finding.show(10, true).starts_with("\u{1b}[1;31mFAIL\u{1b}[0m  broker "));
        assert_eq!(Finding::well("clock", "is right").show(5, false), "ok    clock  is right\n");
    }
}
