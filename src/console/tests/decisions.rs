//! The pages of decisions, for the tests that walk all pages.

use super::*;
use crate::model::Ending;

fn became(text: &str) -> [Became; 4] {
    let at = || Some(When::new(now(), now()));
    let outcomes = [
        Outcome::Ended(Ending::Delivered),
        Outcome::Ended(Ending::Folded),
        Outcome::Ended(Ending::Dead),
        Outcome::Waiting(Some(Lane::Held)),
        Outcome::Waiting(None),
        Outcome::NotRecorded,
        Outcome::Unknown,
    ];
    let told = |outcome| Told {
        channel: Text::short("soc"),
        outcome,
        at: at(),
        late: Some(String::from("12 ms")),
        tries: Some(3),
        reason: Some("refused"),
        letters: Some(decision_path(text)),
    };
    [Became::Unrouted, Became::NotRecorded, Became::Unknown, Became::To(outcomes.map(told).to_vec(), false)]
}

/// Every page of decisions, with this text in every place that a text of others has.
pub(super) fn pages(text: &str, frame: impl Fn() -> Frame) -> Vec<String> {
    let short = || Text::short(text);
    let row = |became| Row {
        href: decision_path(text),
        time: When::new(now(), now()),
        kind: DecisionKind::Deny,
        severity: Severity::Critical,
        agent: short(),
        tool: short(),
        operation: Some(short()),
        title: Some(short()),
        became,
    };
    let search = || Search {
        since: text.to_owned(),
        until: text.to_owned(),
        last: Some(Last::Day),
        kinds: vec![DecisionKind::Deny],
        severity: Some(Severity::High),
        agent: text.to_owned(),
        tool: text.to_owned(),
        id: text.to_owned(),
        faults: ["since", "min_severity", "decision"].map(|field| (field, short())).to_vec(),
        rest: decision_path(text),
    };
    let found = || Decisions {
        list: became(text).map(row).to_vec(),
        older: Some(decision_path(text)),
        newest: Some(decision_path(text)),
        complete: false,
        looked_back_to: Some(When::new(now(), now())),
    };
    let page = |found, live| {
        html(&DecisionsPage {
            frame: frame(),
            search: search(),
            found,
            live,
            exports: vec![("csv", decision_path(text))],
        })
    };
    let mut pages = vec![page(Ok(found()), Some(5)), page(Err((Text::long(text), Text::long(text))), None)];
    for became in became(text) {
        let (kind, approval) = (DecisionKind::Deny, Some(approval_path(text)));
        let raw = Block::of_json(&format!("{{\"a\":{}}}", serde_json::Value::from(text)));
        let routed_at = Some(When::new(now(), now()));
        pages.push(html(&DecisionPage {
            frame: frame(),
            kind,
            decision: asked(text),
            approval,
            became,
            routed_at,
            raw,
        }));
    }
    pages
}
