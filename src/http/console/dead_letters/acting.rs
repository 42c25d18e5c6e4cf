//! Replaying and purging: first a page that says how many letters are meant, then the deed, to those that were counted and no others.
//!
//! A deed may take long. It is a task of its own, so no browser waits for it: what was done is told when that is soon, and else the
//! list tells how far each worker is, on whichever worker it is looked at.

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};

use super::{
    PATH,
    choice::{self, Choice},
    has_channel, not_understood,
};
use crate::{
    console::{self, ConfirmPage, Section, Text, Tone, grouped},
    dead_letters::{LetterFilter, ReplayReport},
    http::{
        console::{
            Visit, fields, lead,
            views::{missing, why},
        },
        dead_letters::errand::Deed,
        guard::{Caller, Gate},
        pool::orders::{Done, Tally, Wish},
    },
    model::Timestamp,
    workers::Credential,
};

/// How many letters are looked at one by one, to say before a replay what would become of each; and how long that may take.
const REHEARSED_MAX: u64 = 20_000;
const REHEARSAL_MAX: Duration = Duration::from_secs(20);

/// How long a browser waits for the end of a deed.
const WAITS_MAX: Duration = Duration::from_secs(8);

/// How many workers are named where something failed.
const NAMED_MAX: usize = 3;

type Asking = (State<Gate>, Extension<Caller>, HeaderMap, RawQuery);

pub(in crate::http::console) async fn ask_replay(asking: Asking) -> Response {
    ask(Deed::Replay, asking).await
}

pub(in crate::http::console) async fn ask_purge(asking: Asking) -> Response {
    ask(Deed::Purge, asking).await
}

/// Says how many letters are meant.
async fn ask(deed: Deed, (State(gate), Extension(caller), headers, RawQuery(query)): Asking) -> Response {
    let visit = Visit::new(&gate, &caller, &headers);
    let choice = match Choice::of_query(query.as_deref().unwrap_or_default()) {
        Ok(choice) => choice,
        Err(error) => return not_understood(visit, &error),
    };
    let credential = Gate::credential(&caller, &headers);
    let filter = &choice.filter;
    let tally = gate.pool.tally(filter, credential.as_ref()).await;
    let count = tally.count();
    let exceptions = match deed {
        Deed::Replay if count > 0 => rehearse(&gate, filter, &tally, caller, credential).await,
        Deed::Replay | Deed::Purge => Vec::new(),
    };
    let channels = tally.by_channel().into_iter().map(|(id, count)| {
        let known = id.as_ref().is_some_and(|id| has_channel(&gate, id));
        (id.map(|id| Text::short(id.as_str())), grouped(count), known)
    });
    let channels = channels.collect();
    let workers = tally.counted.iter().map(|one| (Text::short(&one.name), grouped(one.count))).collect();
    let back = match filter.ids[..] {
        [id] => format!("{PATH}/{id}"),
        _ => choice::href(PATH, filter),
    };
    let title = if deed == Deed::Replay { "Replay dead letters" } else { "Purge dead letters" };
    visit.page(title, Some(Section::DeadLetters), |frame| {
        console::html(&ConfirmPage {
            frame,
            deed: shown(deed),
            count,
            chosen: chosen(filter),
            channels,
            workers,
            exceptions,
            missing: missing(&tally.unheard),
            fields: choice::fields(filter, &tally.bounds()),
            back,
        })
    })
}

/// What would become of letters that are not simply sent again, a sentence each.
async fn rehearse(
    gate: &Gate,
    filter: &LetterFilter,
    tally: &Tally,
    caller: Caller,
    credential: Option<Credential>,
) -> Vec<String> {
    if tally.count() > REHEARSED_MAX {
        return vec![String::from(
            "There are too many to look at each of them now. Approvals that have expired and letters of channels that are not there \
             are skipped, and stay.",
        )];
    }
    let wish = Wish { deed: Deed::Replay, filter: filter.clone(), bounds: tally.bounds(), dry_run: true };
    let rehearsal = gate.pool.give(wish, caller, credential);
    let Ok(done) = tokio::time::timeout(REHEARSAL_MAX, rehearsal).await else {
        return vec![String::from("It took too long to look at each of them.")];
    };
    let mut report = ReplayReport::default();
    let mut sentences = Vec::new();
    for Done { name, summary, trouble } in done {
        if let Some(summary) = summary {
            report.add(&summary.report.replay);
        }
        sentences.extend(trouble.map(|trouble| format!("{name} could not look at them: {}.", why(&trouble))));
    }
    let ReplayReport { skipped_expired, skipped_no_channel, failed, unreadable, .. } = report;
    let parts = [
        (skipped_expired, "stay where they are: their approvals have expired, and nobody waits for the answers."),
        (skipped_no_channel, "stay where they are: their channels are not configured."),
        (failed, "cannot be replayed and stay where they are."),
        (unreadable, "are no decisions that this version can read: they are sent, and come back as malformed."),
    ];
    let told = parts.into_iter().filter(|(count, _)| *count > 0);
    sentences.extend(told.map(|(count, what)| format!("{} of them {what}", grouped(count))));
    sentences
}

type Pressing = (State<Gate>, Extension<Caller>, HeaderMap);

pub(in crate::http::console) async fn replay(pressing: Pressing, body: Body) -> Response {
    act(Deed::Replay, pressing, body).await
}

pub(in crate::http::console) async fn purge(pressing: Pressing, body: Body) -> Response {
    act(Deed::Purge, pressing, body).await
}

/// Does it.
async fn act(deed: Deed, (State(gate), Extension(caller), headers): Pressing, body: Body) -> Response {
    let sent = fields(body).await.unwrap_or_default();
    let Choice { filter, bounds, .. } = match Choice::of_fields(&sent) {
        Ok(choice) => choice,
        Err(error) => return not_understood(Visit::new(&gate, &caller, &headers), &error),
    };
    if bounds.is_empty() {
        // Not from the page that counts.
        return lead(&gate, PATH, Tone::Bad, "Nothing was done: nothing had been counted before. Begin with the list.");
    }
    // One letter that is gone has no page to go back to, and neither has a cause.
    let back = choice::href(PATH, &LetterFilter { ids: Vec::new(), cause: None, ..filter.clone() });
    let credential = Gate::credential(&caller, &headers);
    let (pool, wish) = (gate.pool.clone(), Wish { deed, filter, bounds, dry_run: false });
    let mut task = gate.pool.tasks().spawn(async move { pool.give(wish, caller, credential).await });
    let (tone, text) = match tokio::time::timeout(WAITS_MAX, &mut task).await {
        Ok(Ok(done)) => told(deed, &done),
        Ok(Err(_)) => (Tone::Bad, String::from("It has ended unexpectedly. The log of this worker says more.")),
        Err(_) => (Tone::Good, String::from("It has begun and goes on by itself. This page tells how far it is.")),
    };
    lead(&gate, &back, tone, &text)
}

/// What was done, in words.
fn told(deed: Deed, done: &[Done]) -> (Tone, String) {
    let (mut report, mut purged, mut failures) = (ReplayReport::default(), 0, Vec::new());
    for Done { name, summary, trouble } in done {
        if let Some(summary) = summary {
            report.add(&summary.report.replay);
            purged += summary.report.purged;
            failures.extend(summary.stopped.as_ref().map(|why| format!("{name} stopped before its end: {why}")));
        }
        failures.extend(trouble.as_ref().map(|trouble| format!("{name}: {}", why(trouble))));
    }
    let letters =
        |count: u64| format!("{} {}", grouped(count), if count == 1 { "dead letter" } else { "dead letters" });
    let mut sentences = match deed {
        Deed::Purge if purged == 0 && failures.is_empty() => {
            vec![String::from("Purged nothing: they were gone already.")]
        }
        Deed::Purge => vec![format!("Purged {}.", letters(purged))],
        Deed::Replay => vec![format!("Replayed {}.", letters(report.replayed))],
    };
    let parts = [
        (report.skipped_expired, "skipped: the approval has expired."),
        (report.skipped_no_channel, "skipped: the channel is not configured."),
        (report.failed, "failed and stay."),
        (report.unreadable, "cannot be read and will come back as malformed."),
        (report.gone, "were gone already."),
    ];
    sentences.extend(
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", grouped(count))),
    );
    let why = report.first_failure().filter(|_| report.failed > 0);
    sentences.extend(why.map(|why| format!("The first failure: {}.", why.trim_end_matches('.'))));
    let nothing = report.replayed + purged == 0;
    let not_all = nothing || report.skipped_expired + report.skipped_no_channel + report.unreadable > 0;
    let tone = if !failures.is_empty() || report.failed > 0 {
        Tone::Bad
    } else if not_all {
        Tone::Partly
    } else {
        Tone::Good
    };
    let more = failures.len().saturating_sub(NAMED_MAX);
    sentences.extend(failures.into_iter().take(NAMED_MAX).map(|failure| format!("{failure}.")));
    if more > 0 {
        sentences.push(format!("And {more} more workers failed."));
    }
    (tone, sentences.join(" "))
}

const fn shown(deed: Deed) -> console::Deed {
    match deed {
        Deed::Replay => console::Deed::Replay,
        Deed::Purge => console::Deed::Purge,
    }
}

/// Which letters are meant, as people read it.
fn chosen(filter: &LetterFilter) -> Vec<(&'static str, Text)> {
    let LetterFilter { channel, reason, cause, decision, severity, since, until, ids, up_to: _, limit: _ } = filter;
    let pairs = [
        ("Dead letter", ids.first().map(ToString::to_string)),
        ("Channel", channel.as_ref().map(ToString::to_string)),
        ("Reason", reason.map(|reason| reason.to_string())),
        ("Cause", cause.clone()),
        ("Decision", decision.clone()),
        ("Severity", severity.map(|severity| severity.to_string())),
        ("Died since", since.map(Timestamp::for_people)),
        ("Died before", until.map(Timestamp::for_people)),
    ];
    pairs.into_iter().filter_map(|(what, which)| Some((what, Text::short(&which?)))).collect()
}
