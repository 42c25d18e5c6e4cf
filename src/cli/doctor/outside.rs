//! What the worker needs of others: the broker, the channels' endpoints, the address in the links, and a clock that is right.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio_util::task::TaskTracker;

use super::Finding;
use crate::{
    app,
    channels::{Endpoint, Occasion, teams},
    cli::{Failure, event},
    config::{BrokerPlan, ChannelPlan, Plan},
    lane::HttpPost,
    model::{Clock, Egress, Timestamp, Trouble},
};

/// How long one endpoint may take to answer, and how many are asked at once.
const ENDPOINT_MAX: Duration = Duration::from_secs(10);
const AT_ONCE_MAX: usize = 16;

/// How long the broker may take in all; connecting has a shorter bound of its own.
const BROKER_MAX: Duration = Duration::from_secs(30);

/// A clock that is further off breaks signatures (Slack and Standard Webhooks allow five minutes) and lateness.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(30);

/// The broker; `known` is what the disk says of the embedded one.
pub(super) async fn broker(plan: &Plan, clock: Clock, known: Option<Finding>) -> Finding {
    if let Some(known) = known {
        return known;
    }
    let part = "broker";
    let tracker = TaskTracker::new();
    let opened = tokio::time::timeout(BROKER_MAX, app::connect(plan, clock, &tracker)).await;
    let Ok(opened) = opened else {
        let hint = "look for a memory or disk alarm on the broker (`rabbitmqctl status`)";
        return Finding::ill(part, format!("no answer within {} s", BROKER_MAX.as_secs())).hint(hint);
    };
    match opened {
        Ok(broker) => {
            broker.close().await;
            Finding::well(
                part,
                match &plan.broker {
                    BrokerPlan::RabbitMq { prefix, declare: true, .. } => {
                        format!("connected; every exchange, queue and log of `{prefix}` is there or was made")
                    }
                    BrokerPlan::RabbitMq { prefix, declare: false, .. } => {
                        format!("connected; every exchange, queue and log of `{prefix}` is there")
                    }
                    BrokerPlan::Embedded { .. } => String::from("embedded; it opens"),
                },
            )
        }
        Err(error) => {
            let mut causes = Failure::of(&error).causes;
            let says = if causes.is_empty() { error.to_string() } else { causes.remove(0) };
            let missing = matches!(plan.broker, BrokerPlan::RabbitMq { declare: false, .. });
            // The broker's own hint sends people here.
            let hint = if missing && error.hint().contains("doctor") {
                "with `declare = false` nothing is made: start a worker with `declare = true` once, by a user who may configure, or make \
                 it by hand as the README's table of the broker says"
            } else if error.hint().contains("doctor") {
                "it was made otherwise than is needed: delete it when it is empty, and the worker makes it again"
            } else {
                error.hint()
            };
            Finding::ill(part, says).because(causes.join(": ")).hint(hint)
        }
    }
}

/// The endpoints of all channels, the address in the links, and the clock, which they tell.
pub(super) async fn endpoints(plan: &Plan, clock: Clock) -> Vec<Finding> {
    crate::tls::install();
    let posts = HttpPost::new(Arc::new(plan.egress.clone()), clock)
        .and_then(|post| HttpPost::new(Arc::new(Egress::default()), clock).map(|free| (post, free)));
    let (post, free) = match posts {
        Ok(posts) => posts,
        Err(error) => {
            let hint = "install the package `ca-certificates`";
            return vec![Finding::ill("tls", error.to_string()).hint(hint)];
        }
    };
    // Many channels may have one host, which is asked once.
    let now = clock.now();
    let of_channel = |channel: &ChannelPlan| {
        let occasion = Occasion { now, links: &plan.links, detour: None };
        channel.channel.render(&event::sample(channel, now), &occasion).endpoint
    };
    let places: Vec<Endpoint> = plan.channels.iter().map(of_channel).collect();
    let hosts: BTreeMap<String, &Endpoint> = places.iter().map(|place| (origin(place), place)).collect();
    let asked = stream::iter(hosts.into_iter().map(async |(host, place)| (host, ask(&post, place, clock).await)));
    let answers = asked.buffered(AT_ONCE_MAX).collect::<BTreeMap<_, _>>();
    let (answers, links) = tokio::join!(answers, links(plan, &free, clock));
    let mut findings: Vec<Finding> =
        plan.channels.iter().zip(&places).map(|(channel, place)| endpoint(channel, place, &answers)).collect();
    findings.insert(0, links);
    findings.push(time(answers.values().filter_map(|answer| answer.as_ref().ok().copied().flatten())));
    findings
}

/// Scheme, host and port: all of a URL that is no secret.
fn origin(place: &Endpoint) -> String {
    place.expose().origin().ascii_serialization()
}

/// How far the clocks are apart, where the other side tells the time.
type Told = Result<Option<Duration>, Trouble>;

async fn ask(post: &HttpPost, place: &Endpoint, clock: Clock) -> Told {
    let told: Option<Timestamp> = post.ask_the_time(place, ENDPOINT_MAX).await?;
    let now = clock.now();
    Ok(told.map(|told| now.since(told).max(told.since(now))))
}

fn endpoint(channel: &ChannelPlan, place: &Endpoint, answers: &BTreeMap<String, Told>) -> Finding {
    let (part, host) = (format!("channel {}", channel.id), origin(place));
    match answers.get(&host) {
        Some(Err(trouble)) => Finding::ill(part, format!("{host}: {}", trouble.as_str()))
            .because("what it wants waits on the broker until it is there")
            .hint(what_to_do(*trouble)),
        Some(Ok(_)) | None if is_retired(channel, place) => {
            Finding::doubtful(part, format!("{host} is a retired connector"))
                .because("Microsoft has retired connectors: such a URL may answer and post nothing")
                .hint("make a Workflow in Teams and use its URL")
        }
        Some(Ok(_)) | None => Finding::well(part, format!("{host} answers")),
    }
}

fn is_retired(channel: &ChannelPlan, place: &Endpoint) -> bool {
    channel.kind.name == "teams" && place.expose().host_str().is_some_and(teams::is_retired)
}

const fn what_to_do(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Refused => "nobody listens there: is the endpoint up, and the port right?",
        Trouble::Dns => "check the host name, and this machine's resolver",
        Trouble::Tls => "check the endpoint's certificate, and this machine's root certificates",
        Trouble::Egress => "`[egress]` forbids this address: point the channel elsewhere, or look at `deny`",
        Trouble::Timeout | Trouble::Reset | Trouble::Other => "check the firewall between here and there",
    }
}

/// Where links in cards point: people must get there, and what they do there must be nobody else's to read.
async fn links(plan: &Plan, post: &HttpPost, clock: Clock) -> Finding {
    let (part, url) = ("public_url", plan.links.public.as_str());
    let Ok(parsed) = url::Url::parse(url) else { return Finding::ill(part, format!("`{url}` is no URL")) };
    if crate::cli::is_loopback(&parsed) {
        return Finding::doubtful(part, format!("{url} is this machine alone"))
            .because("links in cards, such as those to approvals, open for nobody else")
            .hint("set `[http] public_url` to where analysts reach this worker");
    }
    if parsed.scheme() == "http" {
        return Finding::doubtful(part, format!("{url} is not https"))
            .because("tokens and sessions travel in clear")
            .hint(
                "put a proxy with TLS in front of `[http] listen`, and set `[http] public_url` to its https:// address",
            );
    }
    match ask(post, &Endpoint::new(parsed), clock).await {
        Ok(_) => Finding::well(part, format!("{url} answers")),
        // It may be reached from elsewhere, and need not be from here.
        Err(trouble) => Finding::doubtful(part, format!("{url} does not answer here: {}", trouble.as_str()))
            .because("Slack's buttons and links in cards need it")
            .hint("check the name, the certificate and the proxy in front of `[http] listen`, from where analysts are"),
    }
}

fn time(apart: impl Iterator<Item = Duration>) -> Finding {
    // HTTP tells whole seconds, and an answer takes time: the nearest of all is the fairest.
    let Some(off) = apart.min() else {
        return Finding::doubtful("clock", "could not be compared with anything: no endpoint told the time")
            .hint("run `timedatectl` to see whether it is synchronised");
    };
    if off > CLOCK_OFF_MAX {
        return Finding::ill("clock", format!("{} s apart from the endpoints' clocks", off.as_secs()))
            .because("signatures of Slack and of webhooks count for five minutes only, and cards say how late they are")
            .hint("synchronise it (NTP, `timedatectl set-ntp true`)");
    }
    Finding::well("clock", format!("within {} s of the endpoints' clocks", off.as_secs() + 1))
}
