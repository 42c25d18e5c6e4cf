//! `/api/approvals` and `/api/grants`: what is asked for, an analyst's answer to it, and what is granted because of one.
//!
//! Every worker tells the same, because all follow the same log. Nothing is called unknown before this worker has read it: till
//! then the answer is 503, so that nobody takes a worker that starts for a no.
//!
//! An answer is 200 only for the one that counts. Of the others, 409 names the one that does.

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Inside, errors::ApiError, guard::Caller, trail::Trail};
use crate::{
    approvals::{
        Answer, AnswerError, Answered, Approval, By, Click, Grant, Name, Outcome, Scope, State as Standing, Via,
        in_words,
    },
    model::Timestamp,
};

/// The largest body of an answer, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// How many approvals a list has.
const LIST: usize = 100;
const LIST_MAX: usize = 500;

/// How much is shown of a decision's texts, in characters, and of its reasons.
const TEXT_CHARS_MAX: usize = 1_000;
const REASONS_MAX: usize = 50;

/// How much of an id is quoted, in characters.
const QUOTED_CHARS_MAX: usize = 80;

type Reply = Result<Json<Value>, ApiError>;

pub(super) fn routes(inside: Inside) -> Router {
    Router::new()
        .route("/api/approvals", get(list))
        .route("/api/approvals/{id}", get(show).post(answer))
        .route("/api/grants", get(grant))
        .with_state(inside)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Option<String>,
    limit: Option<usize>,
}

async fn list(State(inside): State<Inside>, wanted: Result<Query<Wanted>, QueryRejection>) -> Reply {
    let hint = "send `?state=` waiting, answered or expired, and `&limit=` 1 to 500, or neither";
    let Query(wanted) = wanted.map_err(|error| malformed(error.body_text(), hint))?;
    let state = wanted.state.map(|text| {
        let named = Standing::ALL.into_iter().find(|state| state.as_str() == text);
        named.ok_or_else(|| malformed(String::from("there is no such state"), hint))
    });
    let state = state.transpose()?;
    let limit = wanted.limit.unwrap_or(LIST);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(malformed(format!("the limit {limit} is not from 1 to {LIST_MAX}"), hint));
    }
    if !inside.approvals.known() {
        return Err(not_read());
    }
    let now = inside.clock.now();
    let approvals: Vec<Value> =
        inside.approvals.list(state, limit).iter().map(|approval| as_json(approval, now)).collect();
    Ok(Json(Value::Array(approvals)))
}

async fn show(State(inside): State<Inside>, id: Result<Path<String>, PathRejection>) -> Reply {
    let id = read_id(id)?;
    match inside.approvals.get(&Name::of(&id)).filter(|approval| is_told(approval)) {
        Some(approval) => Ok(Json(as_json(&approval, inside.clock.now()))),
        None if inside.approvals.known() => Err(unknown(&id)),
        None => Err(not_read()),
    }
}

async fn answer(
    State(inside): State<Inside>,
    id: Result<Path<String>, PathRejection>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Reply {
    let id = read_id(id)?;
    let answer = read_answer(body).await?;
    match give(&inside, &caller, &id, answer, Via::Api).await {
        Ok(Outcome::Won(Answered { approval, .. })) => Ok(Json(as_json(&approval, inside.clock.now()))),
        Ok(Outcome::Late(answered)) => Err(late(&id, &answered)),
        Ok(Outcome::Expired) => Err(ApiError {
            status: StatusCode::GONE,
            code: "approval_expired",
            message: format!("the time for `{}` is over", quoted(&id)),
            hint: "let the agent ask again",
        }),
        Ok(Outcome::Unknown) => Err(unknown(&id)),
        Err(error) => Err(unavailable(&error)),
    }
}

/// Gives a caller's answer, and writes down what it came to.
pub(super) async fn give(
    inside: &Inside,
    caller: &Caller,
    id: &str,
    answer: Answer,
    via: Via,
) -> Result<Outcome, AnswerError> {
    let by = By { id: caller.name.clone(), name: caller.name.clone(), team: None };
    let click = Click::new(Name::of(id), answer, by, via, inside.clock.now());
    let trail = Trail::begin(caller, answer.as_str(), &quoted(id));
    let outcome = inside.approvals.answer(click).await;
    trail.end(Some(in_words(&outcome)));
    outcome
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    agent: Option<String>,
    tool: Option<String>,
    operation: Option<String>,
}

async fn grant(State(inside): State<Inside>, asked: Result<Query<Asked>, QueryRejection>) -> Reply {
    let hint = "send `?agent=AGENT_ID&tool=TOOL&operation=OPERATION`, without `operation` for a call that has none";
    let Query(asked) = asked.map_err(|error| malformed(error.body_text(), hint))?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
    let (Some(agent), Some(tool)) = (given(asked.agent), given(asked.tool)) else {
        return Err(malformed(String::from("`agent` and `tool` must be given"), hint));
    };
    let scope = Scope { agent, tool, operation: given(asked.operation) };
    match inside.approvals.grant(&scope) {
        Some(grant) => Ok(Json(grant_as_json(&scope, &grant))),
        None if inside.approvals.known() => Err(ApiError {
            status: StatusCode::NOT_FOUND,
            code: "no_grant",
            message: String::from("no approval holds for this agent, tool and operation at present"),
            hint: "ask for an approval: publish a REQUIRE_APPROVAL decision",
        }),
        None => Err(not_read()),
    }
}

fn read_id(id: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let hint = "write the approval's id percent-encoded, as UTF-8";
    id.map(|Path(id)| id).map_err(|error| malformed(error.body_text(), hint))
}

async fn read_answer(body: Body) -> Result<Answer, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        answer: Answer,
    }
    let bad = |message: String| malformed(message, "send {\"answer\": \"approve\"} or {\"answer\": \"deny\"}");
    let bytes =
        axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| bad(String::from("the body is too large")))?;
    let Given { answer } =
        serde_json::from_slice(&bytes).map_err(|error| bad(format!("the body is no answer: {error}")))?;
    Ok(answer)
}

/// Whether the log tells of more than a card.
pub(super) fn is_told(approval: &Approval) -> bool {
    approval.decision.is_some() || approval.answer.is_some()
}

fn as_json(approval: &Approval, now: Timestamp) -> Value {
    let cut = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
    let decision = approval.decision.as_deref().map(|decision| {
        let reasons: Vec<String> = decision.reasons.iter().take(REASONS_MAX).map(|reason| cut(reason)).collect();
        json!({
            "id": decision.id, "time": decision.time, "severity": decision.severity, "risk": decision.risk,
            "title": decision.title.as_deref().map(cut),
            "agent": {"id": cut(&decision.agent.id), "name": decision.agent.name.as_deref().map(cut)},
            "tool": cut(decision.tool()), "operation": decision.operation().map(cut), "reasons": reasons,
            "src": decision.src,
        })
    });
    let answer = approval
        .answer
        .as_deref()
        .map(|click| json!({"answer": click.answer.past(), "by": click.by, "via": click.via, "at": click.at}));
    let grant = approval.granted_until().filter(|_| approval.decision.is_some());
    json!({
        "id": approval.id(), "state": approval.state(now).as_str(), "expires_at": approval.expires_at(),
        "decision": decision, "answer": answer, "published": approval.published, "grant": grant.map(|end| json!({"expires_at": end})),
    })
}

fn grant_as_json(scope: &Scope, grant: &Grant) -> Value {
    let (approval, click) = (&grant.approval, grant.approval.answer.as_deref());
    json!({
        "agent": scope.agent, "tool": scope.tool, "operation": scope.operation, "expires_at": grant.expires_at,
        "approval_id": approval.id(), "decision_id": approval.decision.as_deref().map(|decision| &decision.id),
        "by": click.map(|click| &click.by), "via": click.map(|click| click.via), "at": click.map(|click| click.at),
    })
}

fn malformed(message: String, hint: &'static str) -> ApiError {
    ApiError { status: StatusCode::BAD_REQUEST, code: "malformed", message, hint }
}

fn not_read() -> ApiError {
    unavailable(&AnswerError::NotRead)
}

fn unavailable(error: &AnswerError) -> ApiError {
    let code = match error {
        AnswerError::NotRead | AnswerError::Stopping => "not_ready",
        AnswerError::Busy => "busy",
        AnswerError::NotRecorded(_) => "broker_unavailable",
        AnswerError::NotHeard => "in_doubt",
    };
    let message = error.to_string();
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, code, message, hint: error.hint() }
}

fn unknown(id: &str) -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        code: "unknown_approval",
        message: format!("nobody asks for an approval `{}`", quoted(id)),
        hint: "`GET /api/approvals` lists what is asked for; what ended long ago is forgotten",
    }
}

fn late(id: &str, answered: &Answered) -> ApiError {
    let click = &answered.click;
    let message = format!(
        "`{}` was {} by {} ({}) at {}",
        quoted(id),
        click.answer.past(),
        quoted(&click.by.name),
        click.via.as_str(),
        click.at.to_rfc3339_millis()
    );
    ApiError {
        status: StatusCode::CONFLICT,
        code: "already_answered",
        message,
        hint: "the first answer counts; `GET /api/approvals/{id}` shows it",
    }
}

/// A text of others, in a message: short and without control characters.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect::<String>().escape_debug().to_string()
}
