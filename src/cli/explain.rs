//! `explain`: which channels would get a decision, and the first filter that says no of each other one.

use std::path::PathBuf;

use serde::Serialize;

use super::{Failure, Global, Shell, config_file, event, table};
use crate::{
    model::{Decision, filter::Mismatch},
    settings::printable,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts explain decision.json
  jq -c .detail audit.json | interven-alerts explain - --json

Nothing is sent. Each channel is asked in the order events, min_severity, tools, agents; the first filter that the decision
does not pass is shown with both values.")]
pub struct Args {
    /// A file with one decision as JSON, or - for standard input
    #[arg(value_name = "EVENT.json|-")]
    event: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one channel says.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    channel: &'a str,
    matches: bool,
    #[serde(flatten)]
    mismatch: Option<Mismatch>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let plan = config_file::load(global, shell)?;
    let decision = event::read(&args.event, shell)?;
    let answers: Vec<Answer<'_>> = plan
        .channels
        .iter()
        .map(|channel| {
            let mismatch = channel.filter.check(&decision).err();
            Answer { channel: channel.id.as_str(), matches: mismatch.is_none(), mismatch }
        })
        .collect();
    if args.json {
        return shell.print_json(&answers);
    }
    let rows: Vec<Vec<String>> = answers.iter().map(row).collect();
    Ok(write!(shell.out, "{}\n{}", headline(&decision), table::aligned(&rows))?)
}

/// The decision in one line. Its text is hostile, and a terminal obeys more than a card does.
fn headline(decision: &Decision) -> String {
    let Decision { id, kind, severity, agent, .. } = decision;
    printable(&format!("{id}: {kind} {severity}, {} by {}", decision.tool_name(), agent.label()))
}

fn row(answer: &Answer<'_>) -> Vec<String> {
    let says = match &answer.mismatch {
        None => String::from("matches"),
        Some(Mismatch { filter, wanted, found }) => {
            let wanted = if wanted.is_empty() { "nothing" } else { wanted };
            printable(&format!("does not match: {filter} wants {wanted}, the decision has {found}"))
        }
    };
    vec![format!("  {}", answer.channel), says]
}
