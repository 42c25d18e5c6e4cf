//! Every page with hostile text in every place, held against the same page with plain text.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    formats::{clean::is_invisible, hostile},
    model::{DecisionKind, Ending, Role, Severity, Timestamp},
};

/// A time long after what the tests tell of.
fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn asked(text: &str) -> Asked {
    let short = || Text::short(text);
    Asked {
        decision: short(),
        decision_href: decision_path(text),
        time: When::new(now(), now()),
        severity: Severity::High,
        risk: Some(String::from("0.71")),
        title: Some(Text::long(text)),
        agent: short(),
        agent_id: Some(short()),
        tool: short(),
        operation: Some(short()),
        reasons: vec![short(), short()],
        more_reasons: 3,
        src: Some(String::from("2001:db8::1")),
    }
}

fn approval(text: &str, standing: Standing) -> Approval {
    let at = When::new(now().plus(Duration::from_mins(5)), now());
    let answered = matches!(standing, Standing::Approved | Standing::Denied);
    let answer = Answer { by: Text::short(text), id: Some(Text::short(text)), via: "Slack", at: at.clone() };
    Approval {
        id: Text::short(text),
        href: Some(approval_path(text)),
        standing,
        asked: Some(asked(text)),
        expires: Some(at.clone()),
        answer: answered.then_some(answer),
        granted: (standing == Standing::Approved).then_some(at),
        is_granted: true,
        published: true,
    }
}

fn channel(text: &str, lane: Lane) -> Channel {
    let short = || Text::short(text);
    Channel {
        // Letters, digits and hyphens by its type.
        id: Text::short("soc"),
        kind: Text::short("slack"),
        endpoint: short(),
        lane,
        why: Some(short()),
        until: Some(When::new(now(), now())),
        stopped_by: Some(short()),
        events: vec![short(), short()],
        min_severity: short(),
        narrowed: vec![short()],
        in_file: true,
        last_success: Some(When::new(now(), now())),
        waiting: 1,
        delivered: 2,
        dead: 3,
    }
}

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

fn decisions_pages(text: &str, frame: impl Fn() -> Frame) -> Vec<String> {
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
        since: short(),
        until: short(),
        last: Some(Last::Day),
        kinds: vec![DecisionKind::Deny],
        severity: Some(Severity::High),
        agent: short(),
        tool: short(),
        id: short(),
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
        let raw = Raw::of(format!("{{\"a\":{}}}", serde_json::Value::from(text)).as_bytes());
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

/// Every page, with this text in every place that a text of others has.
fn pages(text: &str) -> Vec<String> {
    let frame = || Frame {
        title: Text::short(text),
        here: Some(Section::Approvals),
        viewer: Some(Viewer { name: Text::short(text), role: Role::Analyst }),
        flash: Some(Flash { tone: Tone::Bad, text: Text::long(text) }),
    };
    let standings = [Standing::Waiting, Standing::Approved, Standing::Denied, Standing::Expired];
    let list = || standings.map(|standing| approval(text, standing)).to_vec();
    let mut pages: Vec<String> = standings
        .map(|standing| {
            let approval = approval(text, standing);
            html(&ApprovalPage { frame: frame(), approval, may_answer: true, grant: String::from("10 min") })
        })
        .to_vec();
    let approvals = Some(Approvals { list: list(), more: true });
    pages.push(html(&ApprovalsPage { frame: frame(), filter: Filter::All, approvals }));
    pages.push(html(&OverviewPage { frame: frame(), waiting: list(), more_wait: true, known: true }));
    let channels = Lane::ALL.map(|lane| channel(text, lane)).to_vec();
    pages.push(html(&ChannelsPage { frame: frame(), channels, may_act: true }));
    pages.extend(decisions_pages(text, frame));
    pages.push(html(&SignInPage { frame: frame(), next: text.to_owned(), refusal: Some(Text::long(text)) }));
    pages.push(html(&ContinuePage { frame: frame(), to: text.to_owned() }));
    let way = (text.to_owned(), "Back");
    pages.push(html(&NoticePage { frame: frame(), message: Text::long(text), hint: Text::long(text), way }));
    pages
}

/// What a browser takes for markup: the tags, without what stands between quotes in them.
fn markup(page: &str) -> Vec<String> {
    let tags = page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
    tags.map(|tag| tag.split('"').step_by(2).collect::<Vec<_>>().join("\"")).collect()
}

proptest! {
    #[test]
    fn no_text_of_others_changes_the_markup_of_any_page_or_hides_in_it(text in hostile::text()) {
        // A path of ours is checked before it gets here, and is graphic ASCII; the id in it is percent-encoded by then.
        let graphic: String = text.chars().filter(|c| !is_invisible(*c) && !c.is_whitespace()).collect();
        for text in [&text, &graphic] {
            for (hostile, plain) in pages(text).into_iter().zip(pages("plain")) {
                prop_assert_eq!(markup(&hostile), markup(&plain));
                if *text == graphic {
                    let hidden = hostile.chars().find(|c| is_invisible(*c) && *c != '\n');
                    prop_assert_eq!(hidden, None, "{}", hostile);
                }
            }
        }
    }

    #[test]
    fn what_a_decision_says_has_no_invisible_character_left(text in hostile::text()) {
        let text = Text::long(&text);
        prop_assert!(!text.as_str().chars().any(is_invisible));
    }
}

#[test]
fn pages_load_nothing_from_elsewhere_and_run_nothing_inline() {
    for page in pages("plain") {
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{page}");
        let without_names = page.replace("http://www.w3.org/2000/svg", "").replace("xmlns='http:", "");
        for bad in ["http://", "https://", "<style", " style=", " onclick=", "javascript:", "<script>"] {
            assert!(!without_names.contains(bad), "{bad} in {page}");
        }
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<h1").count(), 1, "{page}");
        assert!(page.contains(r##"href="#main""##) && page.contains(r#"id="main""#));
    }
}

#[test]
fn every_field_that_a_person_fills_in_has_a_label() {
    for page in pages("plain") {
        for input in page.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap()) {
            let id = input.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let labelled = id.is_some_and(|id| page.contains(&format!("<label for=\"{id}\"")));
            assert!(labelled || input.contains("type=\"hidden\""), "{input}");
        }
    }
}
