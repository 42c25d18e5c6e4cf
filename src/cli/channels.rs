//! `channels`: look at the channels of the configuration.

use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;

use super::{Failure, Global, Shell, channels_test, config_file, event, runtime, table};
use crate::{
    channels::Occasion,
    config::{ChannelPlan, Plan, show_pace},
    lane::HttpPost,
    model::{DecisionKind, Timestamp, filter::Pattern},
    settings::units::show_duration,
};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands of `channels`.
#[derive(Debug, Subcommand)]
enum Command {
    /// List the channels, secrets masked
    #[command(after_long_help = "\
Examples:
  interven-alerts channels list
  interven-alerts channels list --json | jq -r '.[] | select(.kind == \"slack\") | .id'")]
    List(ListArgs),
    /// Post a sample to a channel's endpoint, and tell what it answers
    Test(channels_test::Args),
}

/// Flags of `channels list`.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::List(list) => {
            let plan = config_file::load(global, shell)?;
            let views = views(&plan, shell.clock.now());
            if list.json {
                return shell.print_json(&views);
            }
            Ok(write!(shell.out, "{}", overview(&views))?)
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

/// A channel as it may be shown to anybody who may read the configuration.
#[derive(Debug, Serialize)]
pub struct View {
    /// Its id.
    pub id: String,
    kind: &'static str,
    events: Vec<&'static str>,
    min_severity: &'static str,
    tools: Option<Vec<String>>,
    agents: Option<Vec<String>>,
    endpoint: String,
    rate_limit: String,
    timeout: String,
    concurrency: u16,
    retry: RetryView,
    digest_over: Option<u32>,
    notices: bool,
    canary: Option<String>,
}

#[derive(Debug, Serialize)]
struct RetryView {
    attempts: u32,
    first: String,
    longest: String,
    max_age: String,
}

/// Every channel of the plan, secrets masked.
pub fn views(plan: &Plan, now: Timestamp) -> Vec<View> {
    plan.channels.iter().map(|channel| view(plan, channel, now)).collect()
}

fn view(plan: &Plan, channel: &ChannelPlan, now: Timestamp) -> View {
    // Where a channel posts to is known to nobody but the parcels it makes.
    let occasion = Occasion { now, links: &plan.links, detour: None };
    let endpoint = channel.channel.render(&event::sample(channel, now), &occasion).endpoint;
    let patterns = |patterns: &Option<Vec<Pattern>>| {
        patterns.as_ref().map(|patterns| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect())
    };
    let retry = &channel.retry;
    View {
        id: channel.id.to_string(),
        kind: channel.kind.name,
        events: channel.filter.events.iter().map(DecisionKind::as_str).collect(),
        min_severity: channel.filter.min_severity.as_str(),
        tools: patterns(&channel.filter.tools),
        agents: patterns(&channel.filter.agents),
        endpoint: endpoint.secret().masked_url(),
        rate_limit: show_pace(&channel.pace),
        timeout: show_duration(channel.timeout),
        concurrency: channel.concurrency.get(),
        retry: RetryView {
            attempts: retry.attempts().get(),
            first: show_duration(retry.first()),
            longest: show_duration(retry.longest()),
            max_age: show_duration(retry.max_age()),
        },
        digest_over: channel.digest.map(|digest| digest.over.get()),
        notices: channel.notices,
        canary: channel.canary.map(show_duration),
    }
}

/// The channels as a table for people.
pub fn overview(views: &[View]) -> String {
    let head = ["CHANNEL", "KIND", "EVENTS", "FROM", "TOOLS", "AGENTS", "RATE", "ENDPOINT"].map(str::to_owned).to_vec();
    let list = |patterns: &Option<Vec<String>>| patterns.as_ref().map_or_else(|| "all".into(), |list| list.join(","));
    let row = |view: &View| {
        let View { id, kind, events, min_severity, tools, agents, rate_limit, endpoint, .. } = view;
        let events = if events.len() == DecisionKind::ALL.len() { "all".into() } else { events.join(",") };
        let cells = [id, *kind, events.as_str(), *min_severity, &list(tools), &list(agents), rate_limit, endpoint];
        cells.map(crate::settings::printable).to_vec()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(views.iter().map(row)).collect();
    table::aligned(&rows)
}
