//! The channels, and an operator's test, pause and resume, by what the API does.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};
use serde_json::Value;

use super::{Id, Visit, id_of, lead};
use crate::{
    channel_log::Deed,
    console::{self, Channel, ChannelsPage, Lane, Section, Text, Tone, When},
    http::{
        Inside, Shown, catalogue, channel_changes,
        channels::{as_json, decide},
        guard::{Caller, Gate},
    },
    managed::{Report, Subject},
    model::{ChannelId, Ending, Timestamp},
};

/// Where every deed leads.
const PATH: &str = "/channels";

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let inside = &gate.inside;
    let shown = inside.channels.borrow().clone();
    let channels = shown.iter().map(|one| channel(one, inside)).collect();
    let test = catalogue::find(&Method::POST, "/channels/{id}/test");
    let may_act = test.is_some_and(|route| route.admits(caller.role));
    Visit::new(&gate, &caller, &headers)
        .page("Channels", Some(Section::Channels), |frame| console::html(&ChannelsPage { frame, channels, may_act }))
}

pub(super) async fn pause(State(gate): State<Gate>, Extension(caller): Extension<Caller>, id: Id) -> Response {
    told(&gate, &caller, &id_of(id), Deed::Pause, "is paused; what it wants waits").await
}

pub(super) async fn resume(State(gate): State<Gate>, Extension(caller): Extension<Caller>, id: Id) -> Response {
    told(&gate, &caller, &id_of(id), Deed::Resume, "is resumed").await
}

async fn told(gate: &Gate, caller: &Caller, id: &str, deed: Deed, done: &str) -> Response {
    match decide(&gate.inside, id, deed, caller, None).await {
        Ok(_) => lead(gate, PATH, Tone::Good, &format!("Channel {id} {done}.")),
        Err(error) => lead(gate, PATH, Tone::Bad, &format!("{}. Hint: {}.", error.message, error.hint)),
    }
}

pub(super) async fn test(State(gate): State<Gate>, Extension(caller): Extension<Caller>, id: Id) -> Response {
    let Ok(id) = id_of(id).parse::<ChannelId>() else {
        return lead(&gate, PATH, Tone::Bad, "There is no such channel.");
    };
    match channel_changes::try_out(&gate.inside, &caller, &id, Subject::Present, None).await {
        Ok(report) => {
            let tone = if report.delivered { Tone::Good } else { Tone::Bad };
            lead(&gate, PATH, tone, &said(&report))
        }
        Err(refusal) => lead(&gate, PATH, Tone::Bad, &format!("{refusal}. Hint: {}.", refusal.hint())),
    }
}

/// What the endpoint answered, in the platform's own words.
fn said(report: &Report) -> String {
    let outcome = if report.delivered { "has the test" } else { "has not taken the test" };
    let took = report.took.as_millis();
    format!("{} {outcome}: “{}” after {took} ms. {}.", report.channel, report.reply, report.meaning)
}

/// A channel as it is shown at this moment: what the API says of it, in the words of a page.
fn channel(shown: &Shown, inside: &Inside) -> Channel {
    let (now, told) = (inside.clock.now(), as_json(shown, inside));
    let text = |key: &str| told[key].as_str().map(Text::short);
    let list = |key: &str| told[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    let narrowed = |key: &str, what: &str| {
        let patterns: Vec<&str> = list(key).collect();
        (!patterns.is_empty()).then(|| Text::short(&format!("{what} {}", patterns.join(", "))))
    };
    let state = told["state"].as_str().unwrap_or_default();
    let metrics = shown.lane.as_ref().map(crate::lane::LaneHandle::metrics);
    let last_success = metrics.map(|metrics| metrics.last_success.get()).filter(|seconds| *seconds > 0);
    let waiting = |place: &str| told["waiting"][place].as_i64().unwrap_or(0);
    Channel {
        id: Text::short(shown.id.as_str()),
        kind: text("kind").unwrap_or_default(),
        endpoint: text("endpoint").unwrap_or_default(),
        lane: Lane::ALL.into_iter().find(|lane| lane.word() == state).unwrap_or(Lane::Unreadable),
        why: text("why"),
        until: told["until"].as_str().and_then(|until| until.parse().ok()).map(|until| When::new(until, now)),
        stopped_by: told["paused_by"]["name"].as_str().map(Text::short),
        events: list("events").map(Text::short).collect(),
        min_severity: text("min_severity").unwrap_or_default(),
        narrowed: [narrowed("tools", "tools"), narrowed("agents", "agents")].into_iter().flatten().collect(),
        in_file: told["source"] == "file",
        last_success: last_success
            .map(|seconds| When::new(Timestamp::from_unix_millis(seconds.saturating_mul(1_000)), now)),
        waiting: waiting("memory") + waiting("lane_queue"),
        delivered: metrics.map_or(0, |metrics| metrics.endings(Ending::Delivered)),
        dead: metrics.map_or(0, |metrics| metrics.endings(Ending::Dead)),
    }
}
