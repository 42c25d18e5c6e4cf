//! `check`: every fault of the configuration at once.

use std::path::Path;

use serde::Serialize;

use super::{Exit, Failure, Global, Shell, channels, config_file, table};
use crate::{
    config::{BrokerPlan, Faulty, LoadError, Plan, Sound, View},
    settings::{Fault, units::show_duration},
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Check the configuration of this directory, or another one:
    interven-alerts check
    interven-alerts check --config new.toml
  Faults for another program:
    interven-alerts check --json | jq -r '.faults[] | \"\\(.line): \\(.path) \\(.problem)\"'

Exit codes:
  0   the configuration can be used; there may be warnings
  78  it has faults, or could not be read")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: String,
    ok: bool,
    faults: &'a [Fault],
    warnings: &'a [Fault],
    channels: Vec<View>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let path = config_file::find(global, shell)?;
    let file = path.display().to_string();
    match config_file::load_file(&path, shell) {
        Ok(Sound { plan, warnings }) => {
            let channels = channels::views(&plan, shell.clock.now());
            if args.json {
                return shell.print_json(&Report { file, ok: true, faults: &[], warnings: &warnings, channels });
            }
            config_file::print_faults(shell, &path, "warning", &warnings);
            Ok(write!(shell.out, "{}", summary(&path, &plan, &channels))?)
        }
        Err(LoadError::Faulty(found)) => {
            let failure = Failure::new(format!("{file}: {found}")).exit(Exit::Config);
            if args.json {
                let Faulty { faults, warnings } = &found;
                shell.print_json(&Report { file, ok: false, faults, warnings, channels: Vec::new() })?;
                return Err(failure);
            }
            config_file::print_faults(shell, &path, "error", &found.faults);
            config_file::print_faults(shell, &path, "warning", &found.warnings);
            Err(failure)
        }
        Err(error) => Err(config_file::unreadable(&path, &error)),
    }
}

fn summary(path: &Path, plan: &Plan, channels: &[View]) -> String {
    let row = |name: &str, value: String| vec![format!("  {name}"), value];
    let kept = |keep: &Option<_>| {
        keep.map_or_else(|| "no decisions kept".into(), |keep| format!("decisions kept {}", show_duration(keep)))
    };
    let broker = match &plan.broker {
        BrokerPlan::RabbitMq { urls, prefix, keep_decisions, .. } => {
            let nodes: Vec<String> = urls.iter().map(crate::model::Secret::masked_url).collect();
            format!("RabbitMQ {}, prefix {prefix}, {}", nodes.join(" "), kept(keep_decisions))
        }
        BrokerPlan::Embedded { keep_decisions, .. } => format!("embedded, {}", kept(keep_decisions)),
    };
    let rows = [
        row("data", plan.data_dir.display().to_string()),
        row("broker", broker),
        row("listens", format!("{} (console, API), {} (metrics)", plan.http.listen, plan.http.metrics_listen)),
        row("links", format!("{} (approvals), {} (decisions)", plan.links.public, plan.links.console)),
        row("tokens", plan.access.tokens.len().to_string()),
        row("channels", channels.len().to_string()),
    ];
    let overview = if channels.is_empty() { String::new() } else { format!("\n{}", channels::overview(channels)) };
    format!("{}: no faults\n{}{overview}", path.display(), table::aligned(&rows))
}
