//! The dead letters of the whole pool: the list with what they died of, and each of them whole. What is done to them is in
//! `acting.rs`, which ones are meant in `choice.rs`.

pub(super) mod acting;
mod choice;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use tokio::time::Instant;

use self::choice::Choice;
use super::{Id, Visit, again_after, decisions::asked, id_of, views::missing};
use crate::{
    console::{self, Block, DeadLettersPage, Doing, LetterForm, Reason, Section, Text, When},
    dead_letters::{self as store, LetterFilter},
    http::{
        catalogue,
        errors::ApiError,
        guard::{Caller, Gate},
        pool::Heard,
    },
    model::{ChannelId, Decision, Role, Timestamp},
    workers::{Unheard, letters},
};

/// Where they are.
const PATH: &str = "/dead-letters";

/// How many letters a page lists, and how many causes.
const LETTERS_MAX: usize = 50;
const CAUSES_MAX: usize = 50;

/// How often the list is looked at anew, in seconds: while a worker replays or purges, and else. Letters do not die every second.
const LIVE: (u64, u64) = (2, 8);

/// For how long it is told what was done to them last.
const TOLD: std::time::Duration = std::time::Duration::from_mins(10);

/// Whether somebody with this role may do it.
fn may(role: Role, deed: console::Deed) -> bool {
    let path = format!("{PATH}/{}", deed.word());
    catalogue::find(&Method::POST, &path).is_some_and(|route| route.admits(role))
}

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let (began, visit) = (Instant::now(), Visit::new(&gate, &caller, &headers));
    let choice = match Choice::of_query(query.as_deref().unwrap_or_default()) {
        Ok(choice) => choice,
        Err(error) => return not_understood(visit, &error),
    };
    let credential = Gate::credential(&caller, &headers);
    let (causes, listed) = tokio::join!(
        gate.pool.causes(&choice.filter, credential.as_ref()),
        gate.pool.letters(&choice.filter, choice.before, LETTERS_MAX, credential.as_ref()),
    );
    let now = gate.inside.clock.now();
    let link = |deed: console::Deed, filter: &LetterFilter| {
        may(caller.role, deed).then(|| choice::href(&format!("{PATH}/{}", deed.word()), filter))
    };
    let Heard { of: workers, unheard } = causes;
    let several = workers.len() > 1 || !unheard.is_empty() || !listed.unheard.is_empty();
    let doings = workers.iter().filter_map(|(name, grouped)| doing(name, grouped.errand.as_ref()?, now));
    let doings: Vec<Doing> = doings.collect();
    let is_busy = doings.iter().any(|doing| doing.progress.is_some());
    let live = again_after(began, if is_busy { LIVE.0 } else { LIVE.1 });
    let count = workers.iter().map(|(_, grouped)| grouped.letters()).sum();
    let all = letters::together(workers.into_iter().map(|(_, grouped)| grouped));
    let more_causes = all.len().saturating_sub(CAUSES_MAX);
    let form = form(&gate, &choice.filter, &all);
    let causes = all.iter().take(CAUSES_MAX).map(|cause| {
        let filter = choice::of_cause(&choice.filter, cause);
        console::Cause {
            reason: Reason(cause.reason),
            channel: cause.channel.as_ref().map(|id| Text::short(id.as_str())),
            detail: Text::short(&cause.detail),
            count: console::grouped(cause.count),
            oldest: When::new(cause.oldest, now),
            newest: When::new(cause.newest, now),
            href: choice::href(PATH, &filter),
            replay: filter.cause.is_some().then(|| link(console::Deed::Replay, &filter)).flatten(),
        }
    });
    let causes = causes.collect();
    let shown = listed.of.letters.iter().map(|(worker, letter)| shown(letter, worker, now)).collect();
    let (replay, purge) = (link(console::Deed::Replay, &choice.filter), link(console::Deed::Purge, &choice.filter));
    let older = listed.of.next.map(|next| choice::page_href(PATH, &choice.filter, next));
    let newest = choice.before.map(|_| choice::href(PATH, &choice.filter));
    visit.page("Dead letters", Some(Section::DeadLetters), |frame| {
        console::html(&DeadLettersPage {
            frame,
            form,
            count,
            causes,
            more_causes,
            letters: shown,
            damaged: listed.of.damaged.len(),
            older,
            newest,
            replay,
            purge,
            missing: missing(unheard.iter().chain(&listed.unheard)),
            doings,
            several,
            live,
        })
    })
}

fn not_understood(visit: Visit, error: &ApiError) -> Response {
    let message = format!("{}.", error.message);
    let hint = "Times are in UTC: 2026-06-01, 2026-06-01 12:00 or RFC 3339. Go back and change the filter.";
    visit.notice(StatusCode::BAD_REQUEST, "This filter is not understood", Section::DeadLetters, &message, hint)
}

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let visit = Visit::new(&gate, &caller, &headers);
    let text = id_of(id);
    let credential = Gate::credential(&caller, &headers);
    let Heard { of, unheard } = match text.parse() {
        Ok(id) => gate.pool.find(id, credential.as_ref()).await,
        Err(_) => Heard { of: None, unheard: Vec::new() },
    };
    let Some(had) = of else { return not_found(visit, &text, &unheard) };
    let (now, letter) = (gate.inside.clock.now(), &had.letter);
    let one = LetterFilter { ids: vec![letter.id], ..LetterFilter::default() };
    let link =
        |deed: console::Deed| may(caller.role, deed).then(|| choice::href(&format!("{PATH}/{}", deed.word()), &one));
    let (replay, purge) = (link(console::Deed::Replay), link(console::Deed::Purge));
    let history = letter.history.iter().map(|attempt| console::Attempt {
        at: When::new(attempt.at, now),
        outcome: Text::short(&attempt.outcome.replace('_', " ")),
        status: attempt.status,
        text: Text::long(&attempt.text),
    });
    let history = history.collect();
    let last = letter.last_reply.as_ref().map(|reply| console::LastReply {
        at: When::new(reply.at, now),
        status: reply.status,
        text: Text::long(&reply.text),
    });
    let decision = Decision::decode(letter.body.clone()).ok();
    let text = String::from_utf8_lossy(&letter.body);
    let raw = match serde_json::from_slice::<serde::de::IgnoredAny>(&letter.body) {
        Ok(_) => Block::of_json(&text),
        Err(_) => Block::new(&text),
    };
    visit.page("Dead letter", Some(Section::DeadLetters), |frame| {
        console::html(&console::DeadLetterPage {
            frame,
            letter: shown(letter, &had.server, now),
            first: When::new(letter.first_at, now),
            attempts: letter.attempts,
            history,
            reply: last,
            has_channel: letter.channel.as_ref().is_some_and(|channel| has_channel(&gate, channel)),
            decision: decision.map(|decision| asked(&decision, now)),
            raw,
            raw_bytes: letter.body.len(),
            replay,
            purge,
        })
    })
}

fn not_found(visit: Visit, id: &str, unheard: &[Unheard]) -> Response {
    let (title, here) = ("There is no such dead letter", Section::DeadLetters);
    if unheard.is_empty() {
        let message = format!("No worker has a dead letter “{}”.", Text::short(id));
        let hint = "It may have been replayed or purged meanwhile.";
        return visit.notice(StatusCode::NOT_FOUND, title, here, &message, hint);
    }
    let silent: Vec<String> = unheard.iter().map(|one| format!("{} ({})", one.server, one.trouble.why())).collect();
    let message = format!("No worker that could be asked has it. Not asked: {}.", silent.join(", "));
    let hint = "A worker that is silent may have it. Try again when all are there.";
    visit.notice(StatusCode::SERVICE_UNAVAILABLE, "The dead letter was not found", here, &message, hint)
}

/// Whether this worker has the channel, and so whether a replay finds its lane.
fn has_channel(gate: &Gate, id: &ChannelId) -> bool {
    gate.inside.channels.borrow().iter().any(|shown| shown.id == *id)
}

fn shown(letter: &store::DeadLetter, worker: &str, now: Timestamp) -> console::DeadLetter {
    console::DeadLetter {
        id: Text::short(&letter.id.to_string()),
        href: format!("{PATH}/{}", letter.id),
        died: When::new(letter.died_at, now),
        reason: Reason(letter.reason),
        channel: letter.channel.as_ref().map(|id| Text::short(id.as_str())),
        severity: letter.severity,
        kind: letter.decision,
        decision: letter.decision_id.as_deref().map(Text::short),
        detail: Some(Text::long(&letter.detail)).filter(|detail| !detail.is_empty()),
        worker: Text::short(worker),
    }
}

/// What a worker does, or has done of late.
fn doing(worker: &str, doing: &letters::Doing, now: Timestamp) -> Option<Doing> {
    let what = [console::Deed::Replay, console::Deed::Purge].into_iter().find(|deed| deed.word() == doing.what)?;
    let ended = doing.ended.map(|at| (Text::long(doing.outcome.as_deref().unwrap_or("done")), When::new(at, now)));
    let told = doing.ended.is_none_or(|at| now.since(at) < TOLD);
    let progress = doing.ended.is_none().then_some((doing.seen, doing.of));
    told.then(|| Doing { worker: Text::short(worker), what, by: Text::short(&doing.by), progress, ended })
}

/// What the list is narrowed to.
fn form(gate: &Gate, filter: &LetterFilter, causes: &[store::Cause]) -> LetterForm {
    let configured = gate.inside.channels.borrow().clone();
    let mut ids: Vec<&ChannelId> = configured.iter().map(|shown| &shown.id).collect();
    ids.extend(causes.iter().filter_map(|cause| cause.channel.as_ref()));
    ids.extend(filter.channel.as_ref());
    ids.sort_unstable();
    ids.dedup();
    let time = |time: Option<Timestamp>| time.map(|time| Text::short(&time.to_string())).unwrap_or_default();
    LetterForm {
        channels: ids.into_iter().map(|id| Text::short(id.as_str())).collect(),
        channel: filter.channel.as_ref().map(|id| Text::short(id.as_str())),
        reason: filter.reason,
        cause: filter.cause.clone(),
        decision: filter.decision.as_deref().map(Text::short).unwrap_or_default(),
        severity: filter.severity,
        since: time(filter.since),
        until: time(filter.until),
        is_narrowed: *filter != LetterFilter::default(),
    }
}
