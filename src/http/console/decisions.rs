//! One decision, for the links of cards.
//!
//! The log of the decisions is in the order of their arrival and has no index. So a decision is looked for among the approvals
//! and the newest of the log; who wants an older one has its time, and exports by that.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{Id, Visit, id_of};
use crate::{
    console::{self, Asked, DecisionPage, Section, Text, When},
    export,
    http::guard::{Caller, Gate},
    model::{Decision, Timestamp},
};

/// How many reasons are shown.
const REASONS_MAX: usize = 50;

pub(super) async fn show(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    id: Id,
) -> Response {
    let id = id_of(id);
    let visit = Visit::new(&gate, &caller, &headers);
    let found = newest(&gate, &id).await;
    let now = gate.inside.clock.now();
    match found {
        Ok(Some(decision)) => {
            let kind = decision.kind;
            let approval = decision.approval_asked().map(|approval| console::approval_path(&approval.id));
            let decision = asked(&decision, now);
            visit.page("Decision", None, |frame| console::html(&DecisionPage { frame, kind, decision, approval }))
        }
        Ok(None) => {
            let message = format!("The decision “{}” is not among the newest {}.", Text::short(&id), export::LIMIT_MAX);
            let hint = "Export the decisions of its day (`interven-alerts decisions export --since ... --until ...`) and search there for its id.";
            visit.notice(StatusCode::NOT_FOUND, "The decision was not found", Section::Overview, &message, hint)
        }
        Err(error) => {
            let title = "The decision could not be looked up";
            let message = format!("{error}.");
            visit.notice(StatusCode::SERVICE_UNAVAILABLE, title, Section::Overview, &message, error.hint())
        }
    }
}

/// The decision with this id, among the newest.
async fn newest(gate: &Gate, id: &str) -> Result<Option<Decision>, export::ExportError> {
    let Ok(everything) = export::Query::try_from(export::Asked::default()) else { return Ok(None) };
    let recent = gate.inside.exporter.recent(&everything, export::LIMIT_MAX).await?;
    let decoded = recent.decisions.into_iter().filter_map(|raw| Decision::decode(raw).ok());
    Ok(decoded.into_iter().find(|decision| &*decision.id == id))
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
