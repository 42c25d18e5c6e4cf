//! The channels, one of them, and an operator's test, pause and resume, by what the API does.
//!
//! A page is made of what the API tells of a channel, and of nothing else: so it is made of what all workers of the pool tell, put
//! together. What an operator does here is done by this worker, and holds for all.

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use serde_json::Value;

use super::{Id, Visit, field, fields, forms::sentence, id_of, lead, views::views};
use crate::{
    channel_log::Deed,
    console::{self, Channel, ChannelPage, ChannelsPage, Lane, Section, Text, Tone, When},
    http::{
        catalogue, channel_changes,
        channels::{WHY_CHARS_MAX, as_json, decide, find, one_line},
        guard::{Caller, Gate},
        pool::Heard,
    },
    managed::{Report, Subject},
    model::{ChannelId, Role, Timestamp},
    workers::channels::rank,
};

/// Where all of them are.
const PATH: &str = "/channels";

/// How many deliveries in a row must have died to say that the endpoint takes none: one may be the fault of what it says.
const DYING: u64 = 3;

/// How long the oldest delivery must wait to say that a channel is behind: as long as the alert `OldestWaiting` lets it.
const BEHIND: Duration = Duration::from_mins(15);

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let Heard { of: lanes, unheard } = gate.pool.channels(Gate::credential(&caller, &headers).as_ref()).await;
    let channels = lanes.channels.iter().map(|told| channel(told, gate.inside.clock.now())).collect();
    let views = views(lanes.workers, &unheard);
    let (may_act, may_change) = (may_act(caller.role), may_change(caller.role));
    Visit::new(&gate, &caller, &headers).page("Channels", Some(Section::Channels), |frame| {
        console::html(&ChannelsPage { frame, channels, views, may_act, may_change })
    })
}

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let id = id_of(id);
    let visit = Visit::new(&gate, &caller, &headers);
    let Ok(shown) = find(&gate.inside, &id) else { return unknown(visit, &id) };
    let Heard { of: lanes, unheard } = gate.pool.channels(Gate::credential(&caller, &headers).as_ref()).await;
    let views = views(lanes.workers, &unheard);
    let told = lanes.channels.into_iter().find(|told| told["id"] == id.as_str());
    let (told, now) = (told.unwrap_or_else(|| as_json(&shown, &gate.inside)), gate.inside.clock.now());
    let tries = told["attempts"].as_object().into_iter().flatten();
    visit.page(&id, Some(Section::Channels), |frame| {
        console::html(&ChannelPage {
            frame,
            wants: wants(&told),
            policy: policy(&told),
            attempts: tries.map(|(outcome, count)| (Text::short(outcome), count.as_u64().unwrap_or(0))).collect(),
            changed: told["changed_by"].as_str().map(|by| (Text::short(by), moment(&told["changed_at"], now))),
            shadows: told["shadows"].is_object(),
            channel: channel(&told, now),
            views,
            may_act: may_act(caller.role),
            may_change: may_change(caller.role),
        })
    })
}

pub(super) fn unknown(visit: Visit, id: &str) -> Response {
    let message = format!("There is no channel “{}”.", Text::short(id));
    let hint = "It may have been deleted. What waited for it became dead letters.";
    visit.notice(StatusCode::NOT_FOUND, "There is no such channel", Section::Channels, &message, hint)
}

/// Whether somebody with this role may test, pause and resume.
fn may_act(role: Role) -> bool {
    catalogue::find(&Method::POST, "/channels/{id}/test").is_some_and(|route| route.admits(role))
}

/// Whether somebody with this role may add, change and delete channels.
pub(super) fn may_change(role: Role) -> bool {
    catalogue::find(&Method::POST, "/channels/{id}/edit").is_some_and(|route| route.admits(role))
}

pub(super) async fn pause(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    id: Id,
    body: Body,
) -> Response {
    told(&gate, &caller, (&id_of(id), Deed::Pause), body, "is paused; what it wants waits").await
}

pub(super) async fn resume(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    id: Id,
    body: Body,
) -> Response {
    told(&gate, &caller, (&id_of(id), Deed::Resume), body, "is resumed").await
}

async fn told(gate: &Gate, caller: &Caller, (id, deed): (&str, Deed), body: Body, done: &str) -> Response {
    // A reason that is lost or cut is none that anybody gave: better nothing is done.
    let Some(fields) = fields(body).await else {
        let text = "Nothing was done: the form was too large, or did not arrive whole.";
        return lead(gate, PATH, Tone::Bad, text);
    };
    let (why, to) = (field(&fields, "why").unwrap_or_default(), back(&fields, id));
    if why.chars().count() > WHY_CHARS_MAX {
        let text = format!("Nothing was done: the reason is longer than {WHY_CHARS_MAX} characters.");
        return lead(gate, &to, Tone::Bad, &text);
    }
    match decide(&gate.inside, id, deed, caller, one_line(why)).await {
        Ok(_) => lead(gate, &to, Tone::Good, &format!("Channel {id} {done}.")),
        Err(error) => lead(gate, &to, Tone::Bad, &format!("{} {}", sentence(&error.message), sentence(error.hint))),
    }
}

/// The page that the button was on.
fn back(fields: &[(String, String)], id: &str) -> String {
    let is_own = field(fields, "back") == Some("channel");
    id.parse::<ChannelId>().ok().filter(|_| is_own).map_or_else(|| PATH.to_owned(), |id| path(id.as_str()))
}

/// The page of a channel.
pub(super) fn path(id: &str) -> String {
    format!("{PATH}/{id}")
}

pub(super) async fn test(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    id: Id,
    body: Body,
) -> Response {
    let Ok(id) = id_of(id).parse::<ChannelId>() else {
        return lead(&gate, PATH, Tone::Bad, "There is no such channel.");
    };
    let to = back(&fields(body).await.unwrap_or_default(), id.as_str());
    match channel_changes::try_out(&gate.inside, &caller, &id, Subject::Present, None).await {
        Ok(report) => {
            let tone = if report.delivered { Tone::Good } else { Tone::Bad };
            lead(&gate, &to, tone, &said(&report))
        }
        Err(refusal) => {
            let text = format!("{} {}", sentence(&refusal.to_string()), sentence(refusal.hint()));
            lead(&gate, &to, Tone::Bad, &text)
        }
    }
}

/// What the endpoint answered, in the platform's own words.
fn said(report: &Report) -> String {
    let outcome = if report.delivered { "has the test" } else { "has not taken the test" };
    let took = report.took.as_millis();
    format!("{} {outcome}: “{}” after {took} ms. {}", report.channel, report.reply, sentence(report.meaning))
}

/// A moment that the API tells.
fn moment(told: &Value, now: Timestamp) -> Option<When> {
    told.as_str().and_then(|text| text.parse().ok()).map(|at| When::new(at, now))
}

/// What the API tells of a channel, in the words of a page.
pub(super) fn channel(told: &Value, now: Timestamp) -> Channel {
    let text = |key: &str| told[key].as_str().map(Text::short);
    let count = |key: &str| told[key].as_u64().unwrap_or(0);
    let list = |key: &str| told[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    let narrowed = |key: &str, what: &str| {
        // A list with nothing in it is another thing than no list: nothing matches it.
        told[key].as_array()?;
        let patterns: Vec<&str> = list(key).collect();
        Some(Text::short(&if patterns.is_empty() {
            format!("no {what} at all: no decision ever matches")
        } else {
            format!("{what} {}", patterns.join(", "))
        }))
    };
    let state = told["state"].as_str().unwrap_or_default();
    let waiting = |place: &str| told["waiting"][place].as_i64().unwrap_or(0);
    // Of several workers each counts its own row: what another one delivered since ends it.
    let untaken = told["dead_in_a_row"].as_u64().filter(|count| *count >= DYING);
    let untaken = untaken.filter(|_| told["last_death"].as_str() > told["last_success"].as_str());
    let oldest = told["oldest_waiting"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let behind = oldest.filter(|oldest| now.since(*oldest) >= BEHIND).map(|oldest| When::new(oldest, now));
    let (stopper, lane) = (&told["paused_by"], Lane::ALL.into_iter().find(|lane| lane.word() == state));
    Channel {
        id: text("id").unwrap_or_default(),
        kind: text("kind").unwrap_or_default(),
        endpoint: text("endpoint").unwrap_or_default(),
        lane: lane.unwrap_or(Lane::Unreadable),
        // Where a channel cannot be read, the API says why in a key of its own.
        why: text("unreadable").or_else(|| told["why"].as_str().map(Text::long)),
        since: moment(&told["since"], now),
        until: moment(&told["until"], now),
        stopped_by: stopper["name"].as_str().map(|name| (Text::short(name), moment(&stopper["at"], now))),
        events: list("events").map(Text::short).collect(),
        min_severity: text("min_severity").unwrap_or_default(),
        narrowed: [narrowed("tools", "tools"), narrowed("agents", "agents")].into_iter().flatten().collect(),
        in_file: told["source"] == "file",
        last_success: moment(&told["last_success"], now),
        waiting: (waiting("memory"), waiting("lane_queue")),
        delivered: count("delivered"),
        folded: count("folded"),
        dead: count("dead"),
        untaken,
        behind,
        seen: seen(&told["servers"]),
    }
}

/// How many workers see which state, where they do not agree.
fn seen(servers: &Value) -> Option<Text> {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for state in servers.as_array().into_iter().flatten().filter_map(|server| server["state"].as_str()) {
        match states.iter_mut().find(|(known, _)| *known == state) {
            Some((_, count)) => *count += 1,
            None => states.push((state, 1)),
        }
    }
    states.sort_by_key(|(state, _)| rank(state));
    let told: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    (told.len() > 1).then(|| Text::short(&told.join(", ")))
}

/// The patterns that it is narrowed to. The search takes a comma for the end of one, so there any text stands for it.
fn wants(told: &Value) -> Vec<(&'static str, String)> {
    let of = |(key, name): (&str, &'static str)| {
        let patterns = told[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        patterns.map(|pattern| (name, pattern.replace(',', "*"))).collect::<Vec<_>>()
    };
    [("tools", "tool"), ("agents", "agent")].into_iter().flat_map(of).collect()
}

/// How it delivers, in words.
fn policy(told: &Value) -> Vec<(&'static str, Text)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let retry = &told["retry"];
    let never = || String::from("never");
    let digest = told["digest_over"].as_u64().map_or_else(never, |over| format!("when more than {over} wait"));
    let canary = told["canary"].as_str().map_or_else(never, |every| format!("every {every}"));
    let retries = format!(
        "{} attempts, waiting {} at first and {} at most, until it is {} old",
        retry["attempts"],
        text(&retry["first"]),
        text(&retry["longest"]),
        text(&retry["max_age"])
    );
    let mut policy = vec![
        ("Rate limit", text(&told["rate_limit"])),
        ("Concurrency", text(&told["concurrency"])),
        ("Timeout", text(&told["timeout"])),
        ("Retry", retries),
        ("Digests", digest),
        ("Canary", canary),
    ];
    if told["notices"] == true {
        policy.push(("Notices", String::from("it is told of other channels' trouble")));
    }
    policy.into_iter().map(|(what, how)| (what, Text::short(&how))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_came_of_a_test_is_told_in_whole_sentences() {
        let report = Report {
            channel: String::from("soc"),
            delivered: false,
            outcome: "broken",
            endpoint: String::new(),
            status: Some(404),
            reply: String::from("no_service"),
            meaning: "broken: the lane would be held",
            took: Duration::from_millis(7),
        };
        let expected = "soc has not taken the test: “no_service” after 7 ms. Broken: the lane would be held.";
        assert_eq!(said(&report), expected);
    }

    #[test]
    fn a_list_of_patterns_with_nothing_in_it_is_not_shown_as_no_list() {
        let told = serde_json::json!({"tools": [], "agents": null});
        let narrowed = channel(&told, "2026-06-01T12:00:00Z".parse().unwrap()).narrowed;
        assert_eq!(
            narrowed.iter().map(Text::as_str).collect::<Vec<_>>(),
            ["no tools at all: no decision ever matches"]
        );
    }
}
