//! `channels`: look at the channels, of the configuration or of running workers, and pause and resume them.

use std::sync::Arc;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{
    Failure, Global, Shell, channels_test, config_file, runtime,
    server::{self, Servers},
    table,
};
use crate::{
    config::{Plan, View, view},
    lane::HttpPost,
    model::{ChannelId, DecisionKind, Timestamp},
    settings::printable,
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
  interven-alerts channels list --json | jq -r '.[] | select(.kind == \"slack\") | .id'
  interven-alerts channels list --server http://alerts:8080

Without `--server` it shows the channels of the configuration file; with it, what each worker has and what each lane does.")]
    List(ListArgs),
    /// Pause channels: nothing is sent to them until they are resumed, and everything waits on the broker
    #[command(after_long_help = "\
Examples:
  interven-alerts channels pause soc-slack --why 'maintenance until noon' --server http://alerts:8080

One worker is told, and the whole pool knows within a second. A pause holds over restarts.")]
    Pause(DecideArgs),
    /// Resume channels: what kept them from flowing is over, be it an operator's pause or a hold after the endpoint's refusal
    Resume(DecideArgs),
    /// Post a sample to a channel's endpoint, and tell what it answers
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
    /// Why, for whoever looks at the channel later
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
        Command::List(list) if list.server.given().next().is_some() => {
            runtime(false)?.block_on(list_running(list, shell))
        }
        Command::Pause(decide) => runtime(false)?.block_on(tell(decide, "pause", shell)),
        Command::Resume(decide) => runtime(false)?.block_on(tell(decide, "resume", shell)),
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

/// Shows what every worker has and does. What some answered is printed even if others are silent.
async fn list_running(args: &ListArgs, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = Servers::find(&args.server, shell).await?;
    let (mut found, mut failed) = (Vec::new(), None);
    for server in servers.iter() {
        match server.ask(Method::GET, "/api/channels", None).await {
            Ok(Value::Array(channels)) => found.extend(channels.into_iter().map(|mut channel| {
                if let Some(fields) = channel.as_object_mut() {
                    fields.insert(String::from("server"), server.name.clone().into());
                }
                channel
            })),
            Ok(_) => failed = Some(Failure::new(format!("{} answered something else than channels", server.name))),
            Err(trouble) => {
                let failure = trouble.failure(&server.name);
                if let Some(earlier) = failed.replace(failure) {
                    shell.say("error", &earlier.problem);
                }
            }
        }
    }
    if args.json {
        shell.print_json(&found)?;
    } else if !found.is_empty() {
        write!(shell.out, "{}", running(&found, servers.several()))?;
    }
    failed.map_or(Ok(()), Err)
}

/// What lanes do, as a table for people.
fn running(channels: &[Value], several: bool) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            printable(&other.to_string())
        }
    };
    let number = |value: &Value| value.as_i64().unwrap_or(0).to_string();
    let row = |channel: &Value| {
        let paused_by = &channel["paused_by"]["name"];
        let by = if paused_by.is_null() { String::new() } else { format!("paused by {}", text(paused_by)) };
        let why =
            [by, text(&channel["why"])].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let mut cells = vec![
            text(&channel["id"]),
            text(&channel["kind"]),
            text(&channel["state"]),
            number(&channel["waiting"]["memory"]),
            number(&channel["waiting"]["lane_queue"]),
            text(&channel["until"]),
            why,
        ];
        if several {
            cells.insert(0, text(&channel["server"]));
        }
        cells
    };
    let mut head = ["CHANNEL", "KIND", "STATE", "IN MEMORY", "IN QUEUE", "UNTIL", "WHY"].map(str::to_owned).to_vec();
    if several {
        head.insert(0, String::from("SERVER"));
    }
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(channels.iter().map(row)).collect();
    table::aligned(&rows)
}

/// Pauses or resumes each channel by telling one worker.
async fn tell(args: &DecideArgs, what: &str, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let servers = Servers::find(&args.server, shell).await?;
    let body = args.why.as_ref().map_or_else(|| json!({}), |why| json!({ "why": why }));
    let mut answers = Vec::new();
    for channel in &args.channels {
        let answer = servers.ask_any(Method::POST, &format!("/api/channels/{channel}/{what}"), &body).await?;
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
