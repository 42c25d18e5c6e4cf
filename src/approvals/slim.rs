//! What is remembered of a decision: all of most, and of a large one what names it and what a card can show.

use std::sync::Arc;

use serde_json::json;

use crate::model::Decision;

/// Decisions up to this size are remembered as they came, in bytes.
const WHOLE_BYTES_MAX: usize = 16 * 1024;

/// What is remembered of the texts of larger ones: no card shows more.
const TITLE_CHARS_MAX: usize = 1_000;
const NAME_CHARS_MAX: usize = 200;
const REASONS_MAX: usize = 100;

/// The decision, or of a large one its shorter self: with the same ids, tool and operation, because grants go by them.
pub(super) fn slim(decision: Arc<Decision>) -> Arc<Decision> {
    if decision.raw().len() <= WHOLE_BYTES_MAX {
        return decision;
    }
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let reasons: Vec<String> =
        decision.reasons.iter().take(REASONS_MAX).map(|reason| cut(reason, NAME_CHARS_MAX)).collect();
    let short = json!({
        "id": decision.id, "time": decision.time, "decision": decision.kind, "severity": decision.severity,
        "risk": decision.risk, "title": decision.title.as_deref().map(|title| cut(title, TITLE_CHARS_MAX)),
        "agent": {"id": decision.agent.id, "name": decision.agent.name.as_deref().map(|name| cut(name, NAME_CHARS_MAX))},
        "tool": decision.tool(), "operation": decision.operation(), "reasons": reasons, "src": decision.src,
        "approval": decision.approval.as_ref().map(|one| json!({"id": one.id, "expires_at": one.expires_at})),
    });
    Decision::decode(short.to_string().into()).map_or(decision, Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_decision_is_cut_and_what_it_is_known_by_is_not() {
        let of = |title: usize, extra: usize| {
            let value = json!({
                "id": "1", "time": "2026-06-01T12:00:00.123456789Z", "decision": "REQUIRE_APPROVAL", "severity": "HIGH",
                "risk": 0.71, "title": "é".repeat(title), "agent": {"id": "a".repeat(500), "name": "n".repeat(500)},
                "tool": "t.u", "operation": "o", "reasons": vec!["r".repeat(300); 500], "src": "10.0.0.1",
                "approval": {"id": "apr", "expires_at": "2026-06-01T12:10:00Z"}, "extra": "x".repeat(extra),
            });
            Arc::new(Decision::decode(value.to_string().into()).unwrap())
        };
        let large = of(2_000, 1_000);
        let short = slim(Arc::clone(&large));
        assert!(short.raw().len() < 24 * 1024, "{}", short.raw().len());
        assert_eq!((&short.id, short.time, &short.agent.id), (&large.id, large.time, &large.agent.id));
        assert_eq!((short.tool(), short.operation()), ("t.u", Some("o")));
        assert_eq!((&short.approval, short.risk, short.src), (&large.approval, large.risk, large.src));
        assert_eq!((short.reasons.len(), short.title.as_deref().map(|one| one.chars().count())), (100, Some(1_000)));
        let small: Arc<Decision> = Arc::new(
            Decision::decode(
                r#"{"id":"1","time":"2026-06-01T12:00:00Z","decision":"DENY","severity":"LOW","agent":{"id":"a"},"tool":"t","x":1}"#
                    .into(),
            )
            .unwrap(),
        );
        assert_eq!(slim(Arc::clone(&small)).raw(), small.raw());
    }
}
