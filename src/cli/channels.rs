//! `channels`: look at the channels, of the configuration or of running workers, and pause and resume them.

use std::sync::Arc;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::{
    Failure, Global, Shell, channels_running, channels_test, config_file, place::Place, runtime, server, table,
};
use crate::{
    config::{Plan, View, view},
    lane::HttpPost,
    model::{ChannelId, DecisionKind, Severity, Timestamp},
    settings::printable,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  What is configured; what running workers do; whether an endpoint takes a sample:
    interven-alerts channels list
    interven-alerts channels list --server http://127.0.0.1:8080
    interven-alerts channels test soc-slack")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands of `channels`.
#[derive(Debug, Subcommand)]
enum Command {
    /// List the channels, secrets masked
    ///
    /// Without --server those of the configuration file; with it, those of the running workers, and what their lanes do.
    #[command(after_long_help = "\
Examples:
  The channels of the configuration file:
    interven-alerts channels list
  Those of running workers, what their lanes do, and what waits:
    interven-alerts channels list --server http://127.0.0.1:8080
  Their ids, for another program:
    interven-alerts channels list --json | jq -r '.[] | select(.kind == \"slack\") | .id'

States:
  flowing  delivers
  paused   waits until a time: the endpoint asked for it, or it fails
  probing  one try finds out whether the endpoint is well again
  held     an operator must act: a webhook was revoked, a token is wrong, a channel is archived
  stopped  an operator paused it

  Of running workers there is one line a channel: the state that tells most (the worker that owns a
  lane knows it best), how many workers see which, and what waits in the whole pool. With --json,
  each worker's own view is under `servers`.")]
    List(ListArgs),
    /// Pause channels: nothing is sent to them until they are resumed, and everything waits on the broker
    ///
    /// For the maintenance of an endpoint, or to let nothing out while a channel is put right.
    #[command(after_long_help = "\
Examples:
  Pause a channel during its maintenance, and let it flow again:
    interven-alerts channels pause soc-slack --why 'maintenance until noon'
    interven-alerts channels resume soc-slack

What happens:
  One running worker is told (--server, INTERVEN_ALERTS_SERVER), and the whole pool knows within a
  second. A pause holds over restarts, and nothing is lost by it.")]
    Pause(DecideArgs),
    /// Resume channels: an operator's pause, a hold after the endpoint's refusal or any other pause ends
    ///
    /// Everything that waits is delivered at the channel's own pace. A channel whose endpoint is still broken is held again.
    #[command(after_long_help = "\
Examples:
  The webhook was made anew; deliver what waits:
    interven-alerts channels resume soc-slack --why 'new webhook' --server http://127.0.0.1:8080")]
    Resume(DecideArgs),
    /// Post a sample to a channel's endpoint, and tell what it answers
    ///
    /// A sample decision titled TEST is posted once, straight to the endpoint: from here, as the configuration says, or with --server
    /// from a running worker, with the channel as it has it.
    Test(channels_test::Args),
}

/// Flags of `channels list`.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: server::Args,
}

/// Flags of `channels pause` and `channels resume`.
#[derive(Debug, clap::Args)]
struct DecideArgs {
    /// The channels
    #[arg(required = true, value_name = "ID")]
    channels: Vec<ChannelId>,
    /// Why, for whoever looks at the channel later: up to 500 characters
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: server::Args,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::List(list) if Place::is_workers(&list.server, global) => {
            runtime(false)?.block_on(channels_running::list(&list.server, list.json, shell))
        }
        Command::Pause(decide) => runtime(false)?.block_on(tell(decide, "pause", shell)),
        Command::Resume(decide) => runtime(false)?.block_on(tell(decide, "resume", shell)),
        Command::List(list) => {
            let plan = config_file::load(global, shell)?;
            let views = views(&plan, shell.clock.now());
            if list.json {
                return shell.print_json(&views);
            }
            table::print(&overview(&views), shell)
        }
        Command::Test(test) if Place::is_workers(&test.server, global) => {
            runtime(false)?.block_on(channels_running::test(test, shell))
        }
        Command::Test(test) => {
            let plan = config_file::load(global, shell)?;
            let channel = config_file::channel(&plan, &test.channel)?;
            crate::tls::install();
            let clock = shell.clock;
            let post = HttpPost::new(Arc::new(plan.egress.clone()), clock).map_err(|error| Failure::of(&error))?;
            let report = runtime(false)?.block_on(channels_test::test_channel(&plan, channel, &post, &clock));
            channels_test::print(test, &report, shell)
        }
    }
}

/// Pauses or resumes each channel by telling one worker.
async fn tell(args: &DecideArgs, what: &str, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = server::find(&args.server, shell).await?;
    let body = args.why.as_ref().map_or_else(|| json!({}), |why| json!({ "why": why }));
    let mut answers = Vec::new();
    for channel in &args.channels {
        let answer = servers.ask_any(Method::POST, &format!("/api/channels/{channel}/{what}"), &body).await;
        let answer = answer.map_err(|(server, trouble)| server::failure(&server, trouble))?;
        if args.json {
            answers.push(answer);
        } else {
            writeln!(shell.out, "{channel}: {}", printable(answer["state"].as_str().unwrap_or("done")))?;
            shell.out.flush()?;
        }
    }
    if args.json { shell.print_json(&answers) } else { Ok(()) }
}

/// Every channel of the plan, secrets masked.
pub fn views(plan: &Plan, now: Timestamp) -> Vec<View> {
    plan.channels.iter().map(|channel| view(channel, &plan.links, now)).collect()
}

/// The channels as a table for people.
pub fn overview(views: &[View]) -> Vec<Vec<String>> {
    let head =
        ["CHANNEL", "KIND", "EVENTS", "SEVERITY", "TOOLS", "AGENTS", "RATE", "ENDPOINT"].map(str::to_owned).to_vec();
    let list = |patterns: &Option<Vec<String>>| patterns.as_ref().map_or_else(|| "all".into(), |list| list.join(","));
    let row = |view: &View| {
        let View { id, kind, events, min_severity, tools, agents, rate_limit, endpoint, .. } = view;
        let events = if events.len() == DecisionKind::ALL.len() { "all".into() } else { events.join(",") };
        // As for the other filters: `all` where it keeps nothing back.
        let lowest = *min_severity == Severity::Low.as_str();
        let severity = if lowest { "all".into() } else { format!("{min_severity} and up") };
        let cells = [id, *kind, events.as_str(), &severity, &list(tools), &list(agents), rate_limit, endpoint];
        cells.map(crate::settings::printable).to_vec()
    };
    std::iter::once(head).chain(views.iter().map(row)).collect()
}
