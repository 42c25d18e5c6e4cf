//! `doctor`: is everything there that the worker needs? Broker, topology, store, channels, clock.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio_util::task::TaskTracker;

use super::{Failure, Global, Shell, config_file, event, runtime, table};
use crate::{
    app,
    channels::{Occasion, Parcel},
    config::{BrokerPlan, ChannelPlan, Plan},
    dead_letters::{DeadLetterError, Store, StoreOptions},
    lane::HttpPost,
    model::{Clock, Trouble},
    settings::printable,
};

/// How long one endpoint may take to answer.
const ENDPOINT_MAX: Duration = Duration::from_secs(10);

/// A clock that is further off breaks signatures (Slack and Standard Webhooks allow five minutes) and lateness.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(30);

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Nothing is posted to any channel: its host is looked up, connected to, and asked for its head page, which tells the time too.
`interven-alerts channels test ID` posts a sample.

With the embedded broker or a dead-letter store in use by a running worker, that is said and counts as well.")]
pub struct Args {
    /// Print JSON
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

#[derive(Debug, Serialize)]
struct Finding {
    part: String,
    health: Health,
    says: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

impl Finding {
    fn new(part: impl Into<String>, health: Health, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { part: part.into(), health, says: says.into(), hint: hint.into() }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let plan = config_file::load(global, shell)?;
    let clock = shell.clock;
    let findings = runtime(false)?.block_on(examine(&plan, clock));
    if args.json {
        shell.print_json(&findings)?;
    } else {
        let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
        writeln!(shell.out, "{}", table::aligned(&rows).trim_end())?;
    }
    let ill = findings.iter().filter(|finding| finding.health == Health::Ill).count();
    if ill > 0 { Err(Failure::new(format!("{ill} of {} parts are ill", findings.len()))) } else { Ok(()) }
}

fn row(finding: &Finding) -> Vec<String> {
    let mark = match finding.health {
        Health::Well => "ok",
        Health::Doubtful => "warn",
        Health::Ill => "FAIL",
    };
    let hint = if finding.hint.is_empty() { String::new() } else { format!(" (hint: {})", finding.hint) };
    vec![mark.to_owned(), finding.part.clone(), printable(&format!("{}{hint}", finding.says))]
}

async fn examine(plan: &Plan, clock: Clock) -> Vec<Finding> {
    let mut findings =
        vec![Finding::new("configuration", Health::Well, format!("{} channels", plan.channels.len()), "")];
    findings.push(store(plan, clock));
    findings.extend(broker(plan, clock).await);
    crate::tls::install();
    match HttpPost::new(Arc::new(plan.egress.clone()), clock) {
        Ok(post) => {
            let mut clocks = Vec::new();
            for channel in &plan.channels {
                findings.push(endpoint(plan, channel, &post, clock, &mut clocks).await);
            }
            findings.push(time(&clocks));
        }
        Err(error) => {
            findings.push(Finding::new("tls", Health::Ill, error.to_string(), "install the package `ca-certificates`"));
        }
    }
    findings
}

fn store(plan: &Plan, clock: Clock) -> Finding {
    let dir = plan.data_dir.join(app::DEAD_LETTERS_DIR);
    let part = "dead-letter store";
    if !dir.exists() {
        // Whoever runs this command may not be who runs the worker: a directory that it made could not be written by the worker.
        let parent = dir.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(&dir);
        if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
            return Finding::new(
                part,
                Health::Doubtful,
                format!(
                    "{} is not there, and this user could not make it: {} cannot be written",
                    dir.display(),
                    parent.display()
                ),
                "make `data_dir` and give it to the worker's user, or run doctor as that user",
            );
        }
        return Finding::new(
            part,
            Health::Well,
            format!("{} is not there yet; the worker makes it", dir.display()),
            "",
        );
    }
    match Store::open(&dir, StoreOptions { clock, ..StoreOptions::default() }) {
        Ok((_, report)) if report.down.is_some() => {
            Finding::new(part, Health::Ill, report.down.unwrap_or_default(), "free space on the disk of `data_dir`")
        }
        Ok((_, report)) if !report.incidents.is_empty() => Finding::new(
            part,
            Health::Doubtful,
            format!("{} letters; damage was found: {}", report.letters, report.incidents.join("; ")),
            "run `interven-alerts dead-letters verify`",
        ),
        Ok((_, report)) => {
            Finding::new(part, Health::Well, format!("{} letters in {}", report.letters, dir.display()), "")
        }
        Err(DeadLetterError::InUse { .. }) => {
            Finding::new(part, Health::Well, format!("{} is in use by a running worker", dir.display()), "")
        }
        Err(error) => Finding::new(part, Health::Ill, error.to_string(), error.hint()),
    }
}

async fn broker(plan: &Plan, clock: Clock) -> Vec<Finding> {
    let tracker = TaskTracker::new();
    match app::connect(plan, clock, &tracker).await {
        Ok(broker) => {
            let lacking = broker.lacking();
            broker.close().await;
            let says = match &plan.broker {
                BrokerPlan::RabbitMq { prefix, declare: true, .. } => {
                    format!("connected; every exchange, queue and log of `{prefix}` is there or was made")
                }
                BrokerPlan::RabbitMq { prefix, declare: false, .. } => {
                    format!("connected; every exchange, queue and log of `{prefix}` that a worker needs is there")
                }
                BrokerPlan::Embedded { .. } => String::from("the embedded broker opens"),
            };
            let hint = "the worker works without it; make it as the README's table says to have what it is for";
            let without = |name| Finding::new("broker", Health::Doubtful, format!("`{name}` is not there"), hint);
            [Finding::new("broker", Health::Well, says, "")]
                .into_iter()
                .chain(lacking.into_iter().map(without))
                .collect()
        }
        Err(error) => {
            let causes = Failure::of(&error).causes.join(": ");
            let embedded = matches!(plan.broker, BrokerPlan::Embedded { .. });
            let health = if embedded { Health::Doubtful } else { Health::Ill };
            vec![Finding::new("broker", health, format!("{error}: {causes}"), error.hint())]
        }
    }
}

async fn endpoint(
    plan: &Plan,
    channel: &ChannelPlan,
    post: &HttpPost,
    clock: Clock,
    clocks: &mut Vec<Duration>,
) -> Finding {
    let part = format!("channel {}", channel.id);
    let parcel = sample(plan, channel, clock);
    let host = parcel.endpoint.expose().host_str().unwrap_or("?").to_owned();
    match post.ask_the_time(&parcel.endpoint, ENDPOINT_MAX).await {
        Ok(told) => {
            if let Some(told) = told {
                let now = clock.now();
                clocks.push(now.since(told).max(told.since(now)));
            }
            Finding::new(part, Health::Well, format!("{host} answers"), "")
        }
        Err(trouble) => {
            let hint = match trouble {
                Trouble::Refused => "nobody listens there: is the endpoint up?",
                Trouble::Dns => "check the host name, and this machine's resolver",
                Trouble::Tls => "check the endpoint's certificate, and this machine's root certificates",
                Trouble::Egress => "`[egress]` forbids this address",
                Trouble::Timeout | Trouble::Reset | Trouble::Other => "check the firewall between here and there",
            };
            Finding::new(part, Health::Ill, format!("{host}: {}", trouble.as_str()), hint)
        }
    }
}

/// What would be posted: it knows where to.
fn sample(plan: &Plan, channel: &ChannelPlan, clock: Clock) -> Parcel {
    let now = clock.now();
    channel.channel.render(&event::sample(channel, now), &Occasion { now, links: &plan.links, detour: None })
}

fn time(clocks: &[Duration]) -> Finding {
    let Some(off) = clocks.iter().min() else {
        let hint = "no endpoint told the time; run `timedatectl` to see whether the clock is synchronised";
        return Finding::new("clock", Health::Doubtful, "could not be compared with anything", hint);
    };
    // HTTP tells whole seconds, and an answer takes time: the nearest of all is the fairest.
    let says = format!("within {} s of the endpoints' clocks", off.as_secs() + 1);
    if *off > CLOCK_OFF_MAX {
        return Finding::new(
            "clock",
            Health::Ill,
            format!("{} s off", off.as_secs()),
            "synchronise the clock (NTP): signatures and lateness depend on it",
        );
    }
    Finding::new("clock", Health::Well, says, "")
}
