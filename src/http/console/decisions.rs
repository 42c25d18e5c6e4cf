//! The search for decisions, and one decision for the links of cards.
//!
//! The log of the decisions is in the order of their arrival and has no index. A link of a card carries the decision's id alone, so a
//! decision is looked for from the end of the log backwards; where that takes too long, the page leads on to look further back. Links
//! of the console's own carry the time too (`at`), and there it is found at once.

use std::time::Duration;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, parse};

use super::{Id, Visit, again_after, id_of};
use crate::{
    console::{
        self, Asked, Became, Block, DecisionPage, Decisions, DecisionsPage, Lane, Last, NoticePage, Outcome, Row,
        Search, Section, Text, Told, When, spelled,
    },
    delivery_log::Ended,
    export::{self, ExportError, Format, Query, QueryFault},
    http::{
        decisions::{self, Looked, Standing, look},
        guard::{Caller, Gate},
    },
    model::{DeathReason, Decision, Ending, Timestamp},
};

/// How many reasons are shown.
const REASONS_MAX: usize = 50;

/// How many decisions a page of the list has.
const LIST: usize = 50;

/// How often the list is looked at anew, in seconds, where a search is short.
const LIVE: u64 = 5;

/// Where the dead letters of a decision are looked for.
const LETTERS: &str = "/dead-letters?decision=";

/// What somebody looks for, as the address has it.
#[derive(Debug, Default)]
struct Wish {
    asked: export::Asked,
    search: Search,
    before: Option<u64>,
}

impl Wish {
    /// Reads an address. What is left empty in the form is not asked for.
    fn read(text: &str, now: Timestamp) -> (Self, Option<QueryFault>) {
        let (mut wish, mut fault) = (Self::default(), None);
        for (key, value) in parse(text.as_bytes()) {
            let value = value.trim();
            if !value.is_empty()
                && let Err(error) = wish.take(&key, value)
            {
                fault = fault.or(Some(error));
            }
        }
        let timeless = wish.asked.since.is_none() && wish.asked.until.is_none();
        // An id is looked for wherever it is.
        if timeless && wish.asked.ids.is_empty() {
            let last = *wish.search.last.get_or_insert(Last::Day);
            wish.asked.since = Some(now.minus(span(last)));
        } else {
            wish.search.last = None;
        }
        (wish, fault)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), QueryFault> {
        let search = &mut self.search;
        match key {
            "since" | "until" => {
                let place = if key == "since" { &mut search.since } else { &mut search.until };
                *place = Text::short(value);
                let exact = moment(value);
                self.asked.take(key, &exact)?;
            }
            "last" => search.last = Last::ALL.into_iter().find(|last| last.word() == value),
            "before" => self.before = value.parse().ok(),
            "decision" => {
                self.asked.take(key, value)?;
                search.kinds.clone_from(&self.asked.decisions);
            }
            "min_severity" => {
                self.asked.take(key, value)?;
                search.severity = self.asked.min_severity;
            }
            "agent" | "tool" | "id" => {
                let place = match key {
                    "agent" => &mut search.agent,
                    "tool" => &mut search.tool,
                    _ => &mut search.id,
                };
                *place = Text::short(value);
                self.asked.take(key, value)?;
            }
            // A mark of the way here, or somebody else's: a page is shown all the same.
            _ => {}
        }
        Ok(())
    }

    /// The filters as an address has them, the times left out.
    fn filters(&self, query: &mut Serializer<'_, String>) {
        let asked = &self.asked;
        query.extend_pairs(asked.decisions.iter().map(|kind| ("decision", kind.as_str())));
        query.extend_pairs(asked.min_severity.map(|severity| ("min_severity", severity.as_str())));
        query.extend_pairs(asked.agents.iter().map(|agent| ("agent", agent)));
        query.extend_pairs(asked.tools.iter().map(|tool| ("tool", tool)));
        query.extend_pairs(asked.ids.iter().map(|id| ("id", id)));
    }

    /// Where the same is looked for, among those that came in before `before`.
    fn path(&self, before: Option<u64>) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.search.last.map(|last| ("last", last.word())));
        if self.search.last.is_none() {
            query.extend_pairs(self.asked.since.map(|time| ("since", time.to_string())));
            query.extend_pairs(self.asked.until.map(|time| ("until", time.to_string())));
        }
        self.filters(&mut query);
        query.extend_pairs(before.map(|before| ("before", before.to_string())));
        format!("/decisions?{}", query.finish())
    }

    /// Where all of it is exported.
    fn exports(&self) -> Vec<(&'static str, String)> {
        let path = |format: Format| {
            let mut query = Serializer::new(String::new());
            query.append_pair("format", format.as_str());
            query.extend_pairs(self.asked.since.map(|time| ("since", time.to_string())));
            query.extend_pairs(self.asked.until.map(|time| ("until", time.to_string())));
            self.filters(&mut query);
            (format.as_str(), format!("/api/telemetry/decisions/export?{}", query.finish()))
        };
        Format::ALL.map(path).into()
    }
}

fn span(last: Last) -> Duration {
    match last {
        Last::Hour => Duration::from_hours(1),
        Last::Day => Duration::from_hours(24),
        Last::Week => Duration::from_hours(7 * 24),
    }
}

/// A time as a form writes it, without seconds or zone, as RFC 3339 in UTC; anything else as it is.
fn moment(text: &str) -> String {
    let zone = |text: &str| format!("{text}Z");
    match text.len() {
        16 => zone(&format!("{text}:00")),
        19 | 21..=23 if !text.ends_with('Z') => zone(text),
        _ => text.to_owned(),
    }
}

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(text): RawQuery,
) -> Response {
    let (inside, began) = (&gate.inside, Instant::now());
    let now = inside.clock.now();
    let (mut wish, fault) = Wish::read(&text.unwrap_or_default(), now);
    let query = match fault {
        Some(fault) => Err(fault),
        None => Query::try_from(wish.asked.clone()),
    };
    let (mut exports, is_query) = (Vec::new(), query.is_ok());
    let found = match query {
        Ok(query) => {
            exports = wish.exports();
            look(inside, &query, wish.before, LIST).await.map_err(|error| unsearchable(&error))
        }
        Err(fault) => {
            let hint = "Times are in UTC, as 2026-06-01T12:00; * stands for any text in agents and tools.";
            Err((Text::long(&format!("{fault}.")), Text::long(hint)))
        }
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
        agent: Text::short(decision.agent.label()),
        tool: Text::short(decision.tool()),
        operation: decision.operation().map(Text::short),
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
    visit.page("Decision", Some(Section::Decisions), |frame| {
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
        agent: Text::short(agent.label()),
        agent_id: (agent.label() != &*agent.id).then(|| Text::short(&agent.id)),
        tool: Text::short(decision.tool()),
        operation: decision.operation().map(Text::short),
        reasons: decision.reasons.iter().take(REASONS_MAX).map(|reason| Text::short(reason)).collect(),
        more_reasons: decision.reasons.len().saturating_sub(REASONS_MAX),
        src: decision.src.map(|src| src.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-06-10T12:00:00Z".parse().unwrap()
    }

    fn read(text: &str) -> (Wish, Option<QueryFault>) {
        Wish::read(text, now())
    }

    #[test]
    fn what_is_left_empty_is_not_asked_for_and_a_day_is_looked_at_where_no_time_is_given() {
        let (wish, fault) = read("since=&until=&min_severity=&agent=&tool=+&id=&continued=1&last=forever");
        assert!(fault.is_none());
        assert_eq!((wish.asked.since, wish.asked.until), (Some(now().minus(Duration::from_hours(24))), None));
        assert_eq!((wish.search.last, wish.path(None).as_str()), (Some(Last::Day), "/decisions?last=24h"));
        let (wish, _) = read("last=7d&agent=production-*&decision=DENY&decision=INCIDENT&min_severity=HIGH");
        assert_eq!(wish.asked.since, Some(now().minus(Duration::from_hours(7 * 24))));
        let path = "/decisions?last=7d&decision=DENY&decision=INCIDENT&min_severity=HIGH&agent=production-*";
        assert_eq!(wish.path(None), path);
        assert_eq!(wish.path(Some(42)), format!("{path}&before=42"));
        let (again, fault) = read(wish.path(Some(42)).split_once('?').unwrap().1);
        assert!(fault.is_none() && again.before == Some(42) && again.path(None) == path);
        let (csv, href) = &wish.exports()[1];
        assert_eq!(*csv, "csv");
        assert!(href.contains("format=csv&since=2026-06-03T12%3A00%3A00Z&decision=DENY"), "{href}");
    }

    #[test]
    fn times_are_taken_as_forms_write_them_and_as_programs_do() {
        for (text, time) in [
            ("2026-06-01T12:00", "2026-06-01T12:00:00Z"),
            ("2026-06-01T12:00:01", "2026-06-01T12:00:01Z"),
            ("2026-06-01T12:00:01.5", "2026-06-01T12:00:01.5Z"),
            ("2026-06-01T12:00:01.123", "2026-06-01T12:00:01.123Z"),
            ("2026-06-01T14:00:00%2B02:00", "2026-06-01T12:00:00Z"),
            ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z"),
        ] {
            let (wish, fault) = read(&format!("since={text}&last=1h"));
            assert!(fault.is_none(), "{text}: {fault:?}");
            assert_eq!((wish.asked.since, wish.search.last), (Some(time.parse().unwrap()), None), "{text}");
        }
        for bad in ["since=yesterday", "until=12:00", "decision=deny", "min_severity=URGENT", "since=2026-06-31T00:00"]
        {
            assert!(read(bad).1.is_some(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_looked_for_wherever_it_is() {
        let (wish, _) = read("id=f1e2&last=24h");
        assert_eq!((wish.asked.since, wish.search.last, wish.asked.ids.len()), (None, None, 1));
    }
}
