//! The list of approvals, and the page where one is answered.

use std::ops::Range;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};

use super::{
    Id, Visit,
    decisions::{asked, call},
    field, fields, id_of, lead,
};
use crate::{
    approvals::{Answer, Answered, Approval, Click, Name, Outcome, State as Standing, Via},
    console::{self, ApprovalPage, Approvals, ApprovalsPage, Filter, Section, Text, Tone, When},
    http::{
        approvals::{give, is_told},
        catalogue,
        guard::{Caller, Gate},
    },
    model::Timestamp,
};

/// How many a list shows.
const LIST: usize = 100;

pub(super) async fn list(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let of = |name: &str| url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    let wanted = of("show").map(|(_, value)| value);
    let before = of("before").and_then(|(_, value)| value.parse::<u32>().ok());
    let before = before.and_then(|before| usize::try_from(before).ok()).unwrap_or(0);
    let named = |word: &str| Filter::ALL.into_iter().find(|filter| filter.word() == word);
    let filter = wanted.and_then(|word| named(&word)).unwrap_or(Filter::Waiting);
    let state = match filter {
        Filter::Waiting => Some(Standing::Waiting),
        Filter::Answered => Some(Standing::Answered),
        Filter::Expired => Some(Standing::Expired),
        Filter::All => None,
    };
    let approvals = gate.inside.approvals.known().then(|| some(&gate, state, before..before + LIST));
    Visit::new(&gate, &caller, &headers).page("Approvals", Some(Section::Approvals), |frame| {
        console::html(&ApprovalsPage { frame, filter, most: LIST, approvals })
    })
}

/// These of those in this state, the last page where there are not so many. Those that wait are in the order of their ends, so
/// that nobody's time is over unseen while the list is long; others the newest first.
pub(super) fn some(gate: &Gate, state: Option<Standing>, which: Range<usize>) -> Approvals {
    let now = gate.inside.clock.now();
    let (count, most) = (gate.inside.approvals.count(state), which.len());
    let before = if which.start < count { which.start } else { count.saturating_sub(1) / most.max(1) * most };
    let is_by_end = state == Some(Standing::Waiting);
    let mut found = gate.inside.approvals.list(state, if is_by_end { usize::MAX } else { before + most });
    if is_by_end {
        // One without an end can wait.
        found.sort_by_key(|one| (one.expires_at().is_none(), one.expires_at()));
    }
    let list = found.iter().skip(before).take(most).map(|one| shown(one, now)).collect();
    Approvals { list, before, count }
}

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let id = id_of(id);
    let visit = Visit::new(&gate, &caller, &headers);
    let approvals = &gate.inside.approvals;
    let Some(approval) = approvals.get(&Name::of(&id)).filter(|approval| is_told(approval)) else {
        return if approvals.known() { unknown(visit, &id) } else { not_read(visit) };
    };
    let approval = shown(&approval, gate.inside.clock.now());
    let may_answer = catalogue::find(&Method::POST, "/approvals/{id}").is_some_and(|route| route.admits(caller.role));
    let grant = console::spelled(approvals.grant_lasts());
    let what = approval.asked.as_ref().map_or_else(|| approval.id.to_string(), call);
    visit.page(&format!("{what} · Approval"), Some(Section::Approvals), |frame| {
        console::html(&ApprovalPage { frame, approval, may_answer, grant })
    })
}

fn unknown(visit: Visit, id: &str) -> Response {
    let message = format!("Nobody asks for an approval “{}”.", Text::short(id));
    let hint = "What ended long ago is forgotten. The export of the decisions may still tell of it.";
    visit.notice(StatusCode::NOT_FOUND, "There is no such approval", Section::Approvals, &message, hint)
}

fn not_read(visit: Visit) -> Response {
    let message = "This worker has not read yet what is asked for.";
    let hint = "It does so as soon as it reaches the broker. Load this page again in a moment.";
    visit.notice(StatusCode::SERVICE_UNAVAILABLE, "Not ready yet", Section::Approvals, message, hint)
}

pub(super) async fn answer(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
    body: Body,
) -> Response {
    let id = id_of(id);
    let fields = fields(body).await.unwrap_or_default();
    let answers = [Answer::Approve, Answer::Deny];
    let given = field(&fields, "answer").and_then(|word| answers.into_iter().find(|one| one.as_str() == word));
    let Some(given) = given else {
        let visit = Visit::new(&gate, &caller, &headers);
        let message = "The form said neither Approve nor Deny.";
        let hint = "Go back to the approval and press one of its buttons.";
        return visit.notice(StatusCode::BAD_REQUEST, "Nothing was answered", Section::Approvals, message, hint);
    };
    let (tone, text) = match give(&gate.inside, &caller, &id, given, Via::Console).await {
        Ok(Outcome::Won(answered)) => (Tone::Good, won(&answered)),
        Ok(Outcome::Late(Answered { click, .. })) => (Tone::Bad, format!("Too late: it was {}.", told(&click))),
        Ok(Outcome::Expired) => (Tone::Bad, String::from("Too late: it has expired. The agent may ask again.")),
        Ok(Outcome::Unknown) => return unknown(Visit::new(&gate, &caller, &headers), &id),
        Err(error) => {
            (Tone::Bad, format!("It is not certain that your answer counts: {error}. Hint: {}.", error.hint()))
        }
    };
    lead(&gate, &console::approval_path(&id), tone, &text)
}

fn won(Answered { approval, click }: &Answered) -> String {
    match (click.answer, approval.granted_until()) {
        (Answer::Approve, Some(end)) => format!("Approved. It is granted until {}.", end.for_people()),
        (Answer::Approve, None) => String::from("Approved."),
        (Answer::Deny, _) => String::from("Denied. The call may not be made."),
    }
}

/// What was answered by whom, and when.
fn told(click: &Click) -> String {
    let by = Text::short(&click.by.name);
    format!("{} by {by} in {} at {}", click.answer.past(), place(click.via), click.at.for_people())
}

const fn place(via: Via) -> &'static str {
    match via {
        Via::Slack => "Slack",
        Via::Console => "the console",
        Via::Api => "the API",
    }
}

/// An approval as it is shown at this moment.
fn shown(approval: &Approval, now: Timestamp) -> console::Approval {
    let click = approval.answer.as_deref();
    let standing = match (approval.state(now), click.map(|click| click.answer)) {
        (Standing::Waiting, _) => console::Standing::Waiting,
        (Standing::Expired, _) => console::Standing::Expired,
        (Standing::Answered, Some(Answer::Deny)) => console::Standing::Denied,
        (Standing::Answered, Some(Answer::Approve) | None) => console::Standing::Approved,
    };
    let granted = approval.granted_until().filter(|_| approval.decision.is_some());
    console::Approval {
        id: Text::name(approval.id().unwrap_or("an approval with a long id")),
        href: approval.id().map(console::approval_path),
        standing,
        asked: approval.decision.as_deref().map(|decision| asked(decision, now)),
        expires: approval.expires_at().map(|end| When::new(end, now)),
        answer: click.map(|click| console::Answer {
            by: Text::short(&click.by.name),
            id: Some(&click.by.id).filter(|id| **id != click.by.name).map(|id| Text::short(id)),
            via: place(click.via),
            at: When::new(click.at, now),
        }),
        granted: granted.map(|end| When::new(end, now)),
        is_granted: granted.is_some_and(|end| now < end),
        published: approval.published,
    }
}
