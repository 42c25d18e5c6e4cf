//! The search for decisions, and one decision for the links of cards.
//!
//! The log of the decisions is in the order of their arrival and has no index. A link of a card carries the decision's id alone, so a
//! decision is looked for from the end of the log backwards; where that takes too long, the page leads on to look further back. Links
//! of the console's own carry the time too (`at`), and there it is found at once.

mod wish;

use std::time::Duration;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, parse};

use wish::Wish;

use super::{Id, Visit, again_after, id_of};
use crate::{
    console::{
        self, Asked, Became, Block, DecisionPage, Decisions, DecisionsPage, Lane, NoticePage, Outcome, Row, Search,
        Section, Text, Told, When, spelled,
    },
    delivery_log::Ended,
    export::{self, ExportError, Query},
    http::{
        decisions::{self, Looked, Standing, look},
        guard::{Caller, Gate},
    },
    model::{Agent, DeathReason, Decision, Ending, Timestamp},
};

/// How many reasons are shown.
const REASONS_MAX: usize = 50;

/// How many decisions a page of the list has.
const LIST: usize = 50;

/// How often the list is looked at anew, in seconds, where a search is short.
const LIVE: u64 = 5;

/// Where the dead letters of a decision are looked for.
const LETTERS: &str = "/dead-letters?decision=";

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(text): RawQuery,
) -> Response {
    let (inside, began) = (&gate.inside, Instant::now());
    let now = inside.clock.now();
    let mut wish = Wish::read(&text.unwrap_or_default(), now);
    let query = if wish.search.faults.is_empty() {
        Query::try_from(wish.asked.clone()).map_err(|fault| wish.blame(&fault)).ok()
    } else {
        None
    };
    let (mut exports, is_query) = (Vec::new(), query.is_some());
    let found = match query {
        Some(query) => {
            exports = wish.exports();
            look(inside, &query, wish.before, LIST).await.map_err(|error| unsearchable(&error))
        }
        None => Err(faulty(&wish.search)),
    };
    let found = found.map(|Looked { page, told }| Decisions {
        list: page.decisions.iter().zip(told).filter_map(|(found, told)| row(found, &told, now)).collect(),
        older: page.older.map(|older| wish.path(Some(older))),
        newest: wish.before.is_some().then(|| wish.path(None)),
        complete: page.complete,
        looked_back_to: page.looked_back_to.map(|at| When::new(at, now)),
    });
    // Where it could not be looked for just now, too: it can be in a moment.
    let changes = is_query && wish.before.is_none() && wish.asked.until.is_none();
    let live = changes.then(|| again_after(began, LIVE));
    let mut rest = Serializer::new(String::new());
    wish.filters(&mut rest);
    let rest = rest.finish();
    wish.search.rest = if rest.is_empty() { rest } else { format!("&{rest}") };
    let search = wish.search;
    Visit::new(&gate, &caller, &headers).page("Decisions", Some(Section::Decisions), |frame| {
        console::html(&DecisionsPage { frame, search, found, live, exports })
    })
}

/// Says which fields are to be mended.
fn faulty(search: &Search) -> (Text, Text) {
    let labels: Vec<&str> = search.faults.iter().map(|(field, _)| Search::label(field)).collect();
    let problem = format!("Nothing was looked for: see {} in the search above.", labels.join(", "));
    (Text::long(&problem), Text::long("Times are in UTC; * stands for any text in agents and tools."))
}

fn unsearchable(error: &ExportError) -> (Text, Text) {
    (Text::long(&format!("{error}.")), Text::long(&format!("Hint: {}.", error.hint())))
}

/// A decision in the list; `None` of one that nobody can read, which nothing of ours appends.
fn row(found: &export::Found, told: &decisions::Told, now: Timestamp) -> Option<Row> {
    let decision = Decision::decode(found.body.clone()).ok()?;
    Some(Row {
        href: format!("{}?at={}", console::decision_path(&decision.id), found.time),
        time: When::new(decision.time, now),
        kind: decision.kind,
        severity: decision.severity,
        agent: called(&decision.agent),
        tool: Text::name(decision.tool()),
        operation: decision.operation().map(Text::name),
        title: decision.title.as_deref().map(Text::short).filter(|title| !title.is_empty()),
        became: became(&decision.id, decision.time, told, now),
    })
}

fn became(id: &str, time: Timestamp, told: &decisions::Told, now: Timestamp) -> Became {
    match told {
        decisions::Told::Unrouted(_) => Became::Unrouted,
        decisions::Told::NotRecorded => Became::NotRecorded,
        decisions::Told::Unknown => Became::Unknown,
        decisions::Told::To { channels, routed_at } => {
            let each = channels.iter().map(|delivery| told_in(id, time, delivery, now)).collect();
            Became::To(each, routed_at.is_some())
        }
    }
}

fn told_in(id: &str, time: Timestamp, delivery: &decisions::Delivery, now: Timestamp) -> Told {
    let told = Told {
        channel: Text::short(delivery.channel.as_str()),
        outcome: Outcome::Unknown,
        at: None,
        late: None,
        tries: None,
        reason: None,
        letters: None,
    };
    match delivery.standing {
        Standing::Ended(Ended { ending, at, tries, reason }) => Told {
            outcome: Outcome::Ended(ending),
            at: Some(When::new(at, now)),
            late: (ending != Ending::Dead).then(|| after(at.since(time))),
            tries: Some(tries),
            reason: reason.map(DeathReason::as_str),
            letters: (ending == Ending::Dead).then(|| {
                let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
                format!("{LETTERS}{id}")
            }),
            ..told
        },
        Standing::Waiting { since, lane } => {
            let lane = lane.and_then(|word| Lane::ALL.into_iter().find(|lane| lane.word() == word));
            Told { outcome: Outcome::Waiting(lane), at: since.map(|since| When::new(since, now)), ..told }
        }
        Standing::NotRecorded => Told { outcome: Outcome::NotRecorded, ..told },
        Standing::Unknown => told,
    }
}

/// How long after the decision, in words.
fn after(late: Duration) -> String {
    if late < Duration::from_secs(1) { format!("{} ms", late.as_millis()) } else { spelled(late) }
}

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
    RawQuery(text): RawQuery,
) -> Response {
    let id = id_of(id);
    let text = text.unwrap_or_default();
    let of = |name: &str| parse(text.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let at = of("at").and_then(|at| at.replace(' ', "+").parse::<Timestamp>().ok());
    let before = of("before").and_then(|before| before.parse().ok());
    let visit = Visit::new(&gate, &caller, &headers);
    let now = gate.inside.clock.now();
    match find(&gate, &id, at, before).await {
        Ok(Looked { page, told }) => {
            let decision = page.decisions.first().and_then(|found| Decision::decode(found.body.clone()).ok());
            match (decision, told.first()) {
                (Some(decision), Some(told)) => shown(visit, &decision, told, now),
                (None, _) | (_, None) => missing(visit, &id, &page, now),
            }
        }
        Err(error) => {
            let title = "The decision could not be looked up";
            let message = format!("{error}.");
            visit.notice(StatusCode::SERVICE_UNAVAILABLE, title, Section::Decisions, &message, error.hint())
        }
    }
}

/// The decision with this id, where it came in just after `at` or at any time before `before`.
async fn find(gate: &Gate, id: &str, at: Option<Timestamp>, before: Option<u64>) -> Result<Looked, ExportError> {
    let asked = |at: Option<Timestamp>| export::Asked {
        since: at,
        until: at.map(|at| at.plus(Duration::from_millis(1))),
        ids: vec![id.to_owned()],
        ..export::Asked::default()
    };
    for at in [at.map(Some), Some(None)].into_iter().flatten() {
        // An id is never a faulty query: an empty one is nobody's.
        let Ok(query) = Query::try_from(asked(at)) else { continue };
        let looked = look(&gate.inside, &query, before, 1).await?;
        if !looked.page.decisions.is_empty() || at.is_none() {
            return Ok(looked);
        }
    }
    Ok(Looked::default())
}

fn shown(visit: Visit, decision: &Decision, told: &decisions::Told, now: Timestamp) -> Response {
    let kind = decision.kind;
    let approval = decision.approval_asked().map(|approval| console::approval_path(&approval.id));
    let became = became(&decision.id, decision.time, told, now);
    let routed_at = told.routed_at().map(|at| When::new(at, now));
    let raw = Block::of_json(&String::from_utf8_lossy(decision.raw()));
    let decision = asked(decision, now);
    let title = format!("{kind} {} · Decision", call(&decision));
    visit.page(&title, Some(Section::Decisions), |frame| {
        console::html(&DecisionPage { frame, kind, decision, approval, became, routed_at, raw })
    })
}

/// It was not found, or not yet.
fn missing(visit: Visit, id: &str, page: &export::Page, now: Timestamp) -> Response {
    let shown = Text::short(id);
    let Some(older) = page.older.filter(|_| !page.complete) else {
        let message = format!("There is no decision “{shown}” in the log.");
        let hint = "It may be older than what is kept (`[broker] keep_decisions`), or not have come in.";
        return visit.notice(StatusCode::NOT_FOUND, "The decision was not found", Section::Decisions, &message, hint);
    };
    let so_far = page.looked_back_to.map(|at| When::new(at, now));
    let so_far = so_far.map_or(String::new(), |at| format!(", back to {} ({})", at.people(), at.hint()));
    let message = format!("The decision “{shown}” is not among the newest{so_far}.");
    let hint = "The log is long. Look further back, or search by the decision's time.";
    let way = (format!("{}?before={older}", console::decision_path(id)), "Look further back");
    let mut response = visit.page("The decision was not found yet", Some(Section::Decisions), |frame| {
        console::html(&NoticePage { frame, message: Text::long(&message), hint: Text::long(hint), way })
    });
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// What people call an agent. A name is theirs to choose; what the id is, or a name that would leave nothing to see, is shown exactly.
fn called(agent: &Agent) -> Text {
    let name = Text::short(agent.label());
    if name.is_empty() || agent.label() == &*agent.id { Text::name(agent.label()) } else { name }
}

/// The tool and the operation, for the title of a page.
pub(super) fn call(asked: &Asked) -> String {
    asked.operation.as_ref().map_or_else(|| asked.tool.to_string(), |operation| format!("{}.{operation}", asked.tool))
}

/// What a decision says, as it is shown.
pub(super) fn asked(decision: &Decision, now: Timestamp) -> Asked {
    let agent = &decision.agent;
    Asked {
        decision: Text::short(&decision.id),
        decision_href: console::decision_path(&decision.id),
        time: When::new(decision.time, now),
        severity: decision.severity,
        risk: decision.risk.map(|risk| format!("{risk:.2}")),
        title: decision.title.as_deref().map(Text::long).filter(|title| !title.is_empty()),
        agent: called(agent),
        agent_id: (agent.label() != &*agent.id).then(|| Text::name(&agent.id)),
        tool: Text::name(decision.tool()),
        operation: decision.operation().map(Text::name),
        reasons: decision.reasons.iter().take(REASONS_MAX).map(|reason| Text::name(reason)).collect(),
        more_reasons: decision.reasons.len().saturating_sub(REASONS_MAX),
        src: decision.src.map(|src| src.to_string()),
    }
}
