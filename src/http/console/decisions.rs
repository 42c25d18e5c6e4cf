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

/// What somebody looks for, as the address has it.
#[derive(Debug, Default)]
struct Wish {
    asked: export::Asked,
    search: Search,
    before: Option<u64>,
}

impl Wish {
    /// Reads an address. What is left empty in the form is not asked for.
    fn read(text: &str, now: Timestamp) -> Self {
        let mut wish = Self::default();
        for (key, value) in parse(text.as_bytes()) {
            let value = value.trim();
            if !value.is_empty() {
                wish.take(&key, value);
            }
        }
        let Self { asked, search, .. } = &mut wish;
        if let (Some(since), Some(until)) = (asked.since, asked.until)
            && since >= until
        {
            let (since, label) = (since.for_people(), Search::label("until"));
            let fault = format!("{since} is not before {label}, {}. Give an earlier time.", until.for_people());
            search.faults.push(("since", Text::long(&fault)));
        }
        search.since = asked.since.map(in_field).unwrap_or_default();
        search.until = asked.until.map(in_field).unwrap_or_default();
        search.kinds.clone_from(&asked.decisions);
        search.severity = asked.min_severity;
        search.agent = asked.agents.join(", ");
        search.tool = asked.tools.join(", ");
        let timeless = asked.since.is_none() && asked.until.is_none();
        if !search.faults.is_empty() {
            // Nothing is looked for, so no span either.
            search.last = None;
        } else if timeless && asked.ids.is_empty() {
            let last = *search.last.get_or_insert(Last::Day);
            asked.since = Some(now.minus(span(last)));
        } else {
            // An id is looked for wherever it is.
            search.last = None;
        }
        wish
    }

    fn take(&mut self, key: &str, value: &str) {
        let Self { asked, search, before } = self;
        let taken = match key {
            "since" | "until" => asked.take(key, &moment(value)).map_err(|QueryFault { problem, .. }| {
                // What was written cannot be shown in a field for times.
                let is_time = moment(value).replace(' ', "+").parse::<Timestamp>().is_ok();
                let problem = if is_time { problem } else { String::from(NO_TIME) };
                QueryFault::new(key, format!("“{}” {problem}", Text::short(value)))
            }),
            "last" => {
                search.last = Last::ALL.into_iter().find(|last| last.word() == value);
                return;
            }
            "before" => {
                *before = value.parse().ok();
                return;
            }
            "agent" | "tool" => {
                let patterns = value.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
                patterns.map(|pattern| asked.take(key, pattern)).find(Result::is_err).unwrap_or(Ok(true))
            }
            "id" => {
                value.clone_into(&mut search.id);
                asked.take(key, value)
            }
            "decision" | "min_severity" => asked.take(key, value),
            // A mark of the way here, or somebody else's: a page is shown all the same.
            _ => return,
        };
        if let Err(fault) = taken {
            self.blame(&fault);
        }
    }

    /// Notes what is wrong with a field, in the words of the form.
    fn blame(&mut self, fault: &QueryFault) {
        const FIELDS: [&str; 7] = ["since", "until", "decision", "min_severity", "agent", "tool", "id"];
        let Some(field) = FIELDS.into_iter().find(|field| *field == fault.key) else { return };
        let sentence = format!("{}.", fault.problem.replace('`', ""));
        self.search.faults.push((field, Text::long(&sentence)));
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

/// What is wrong with what is no time, and what is right.
const NO_TIME: &str = "is not a time. Write it as 2026-06-01T12:00:00, or a day as 2026-06-01";

/// A time as a form writes it, without seconds or zone, or a day, as RFC 3339 in UTC; anything else as it is.
fn moment(text: &str) -> String {
    let zone = |text: &str| format!("{text}Z");
    match text.len() {
        10 => zone(&format!("{text}T00:00:00")),
        16 => zone(&format!("{text}:00")),
        19 | 21..=23 if !text.ends_with('Z') => zone(text),
        _ => text.to_owned(),
    }
}

/// A time as a field for times has it: without a zone, which is UTC, and to the second.
fn in_field(time: Timestamp) -> String {
    let people = time.for_people();
    people.get(..19).unwrap_or_default().replace(' ', "T")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-06-10T12:00:00Z".parse().unwrap()
    }

    fn read(text: &str) -> Wish {
        Wish::read(text, now())
    }

    #[test]
    fn what_is_left_empty_is_not_asked_for_and_a_day_is_looked_at_where_no_time_is_given() {
        let wish = read("since=&until=&min_severity=&agent=&tool=+&id=&continued=1&last=forever");
        assert!(wish.search.faults.is_empty());
        assert_eq!((wish.asked.since, wish.asked.until), (Some(now().minus(Duration::from_hours(24))), None));
        assert_eq!((wish.search.last, wish.path(None).as_str()), (Some(Last::Day), "/decisions?last=24h"));
        assert_eq!(wish.search.since, "", "a span of time is no time that was given");
        let wish = read("last=7d&agent=production-*&decision=DENY&decision=INCIDENT&min_severity=HIGH");
        assert_eq!(wish.asked.since, Some(now().minus(Duration::from_hours(7 * 24))));
        let path = "/decisions?last=7d&decision=DENY&decision=INCIDENT&min_severity=HIGH&agent=production-*";
        assert_eq!(wish.path(None), path);
        assert_eq!(wish.path(Some(42)), format!("{path}&before=42"));
        let again = read(wish.path(Some(42)).split_once('?').unwrap().1);
        assert!(again.search.faults.is_empty() && again.before == Some(42) && again.path(None) == path);
        let (csv, href) = &wish.exports()[1];
        assert_eq!(*csv, "csv");
        assert!(href.contains("format=csv&since=2026-06-03T12%3A00%3A00Z&decision=DENY"), "{href}");
    }

    #[test]
    fn times_are_taken_as_forms_write_them_and_as_programs_do_and_shown_as_a_field_takes_them() {
        for (text, time, shown) in [
            ("2026-06-01T12:00", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01T12:00:01", "2026-06-01T12:00:01Z", "2026-06-01T12:00:01"),
            ("2026-06-01T12:00:01.5", "2026-06-01T12:00:01.5Z", "2026-06-01T12:00:01"),
            ("2026-06-01T12:00:01.123", "2026-06-01T12:00:01.123Z", "2026-06-01T12:00:01"),
            ("2026-06-01T14:00:00%2B02:00", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z", "2026-06-01T12:00:00"),
            ("2026-06-01", "2026-06-01T00:00:00Z", "2026-06-01T00:00:00"),
        ] {
            let wish = read(&format!("since={text}&last=1h"));
            assert!(wish.search.faults.is_empty(), "{text}: {:?}", wish.search.faults);
            assert_eq!((wish.asked.since, wish.search.last), (Some(time.parse().unwrap()), None), "{text}");
            assert_eq!(wish.search.since, shown);
            // As the links of a page have it.
            assert_eq!(read(wish.path(Some(7)).split_once('?').unwrap().1).search.since, shown);
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_of_its_field_with_what_was_written_and_no_span_is_taken_for_it() {
        let time = "is not a time. Write it as 2026-06-01T12:00:00, or a day as 2026-06-01.";
        for (bad, fault) in [
            ("since=24h&last=24h", ("since", format!("“24h” {time}"))),
            ("until=12:00", ("until", format!("“12:00” {time}"))),
            ("since=2026-06-31T00:00", ("since", format!("“2026-06-31T00:00” {time}"))),
            (
                "since=2026-06-02&until=2026-06-01",
                (
                    "since",
                    "2026-06-02 00:00:00 UTC is not before Until (UTC), 2026-06-01 00:00:00 UTC. Give an earlier time."
                        .to_owned(),
                ),
            ),
        ] {
            let search = read(bad).search;
            assert_eq!((search.faults, search.last), (vec![(fault.0, Text::long(&fault.1))], None), "{bad}");
        }
        for (bad, field) in [("decision=deny", "decision"), ("min_severity=URGENT", "min_severity")] {
            let faults = read(bad).search.faults;
            assert!(faults.len() == 1 && faults[0].0 == field && !faults[0].1.as_str().contains('`'), "{faults:?}");
        }
    }

    #[test]
    fn several_agents_and_tools_are_asked_for_with_commas_or_one_by_one_and_all_are_shown() {
        for text in ["tool=slack&tool=github.create_*&agent=a,+b", "tool=slack,github.create_*,&agent=a&agent=+b+,"] {
            let wish = read(text);
            assert_eq!((wish.asked.tools.len(), wish.asked.agents.len()), (2, 2), "{text}");
            assert_eq!((&*wish.search.tool, &*wish.search.agent), ("slack, github.create_*", "a, b"));
            assert_eq!(wish.path(None), "/decisions?last=24h&agent=a&agent=b&tool=slack&tool=github.create_*");
        }
    }

    #[test]
    fn an_id_is_looked_for_wherever_it_is() {
        let wish = read("id=f1e2&last=24h");
        assert_eq!((wish.asked.since, wish.search.last, wish.asked.ids.len()), (None, None, 1));
    }
}
