//! Every page with hostile text in every place, held against the same page with plain text.

mod decisions;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    formats::{clean::is_invisible, hostile},
    model::{DeathReason, DecisionKind, Role, Severity, Timestamp},
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
        since: Some(When::new(now(), now())),
        stopped_by: Some((short(), Some(When::new(now(), now())))),
        events: vec![short(), short()],
        min_severity: short(),
        narrowed: vec![short()],
        in_file: true,
        last_success: Some(When::new(now(), now())),
        untaken: Some(3),
        behind: Some(When::new(now(), now())),
        waiting: (1, 2),
        delivered: 2,
        folded: 1,
        dead: 3,
        seen: Some(short()),
    }
}

fn letter(text: &str, reason: DeathReason) -> DeadLetter {
    let short = || Text::short(text);
    DeadLetter {
        id: short(),
        // A UUID by its type.
        href: String::from("/dead-letters/0197a2b4-0000-7000-8000-000000000001"),
        died: When::new(now(), now()),
        reason: Reason(reason),
        channel: Some(short()),
        severity: Some(Severity::High),
        kind: Some(DecisionKind::Deny),
        decision: Some(short()),
        detail: Some(Text::long(text)),
        worker: short(),
    }
}

fn dead_letters(text: &str, frame: &dyn Fn() -> Frame) -> [String; 4] {
    let (short, at) = (|| Text::short(text), || When::new(now(), now()));
    let href = || {
        Some(format!(
            "/dead-letters?cause={}",
            url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
        ))
    };
    let missing = || vec![Missing { worker: short(), why: Text::long(text) }];
    let cause = |reason| Cause {
        reason: Reason(reason),
        channel: Some(short()),
        detail: short(),
        count: grouped(1_234),
        oldest: at(),
        newest: at(),
        href: href().unwrap(),
        replay: href(),
    };
    let doing = |progress, ended| Doing { worker: short(), what: Deed::Replay, by: short(), progress, ended };
    let list = DeadLettersPage {
        frame: frame(),
        form: LetterForm {
            channels: vec![short()],
            channel: Some(short()),
            reason: Some(DeathReason::Refused),
            cause: Some(text.to_owned()),
            decision: short(),
            severity: Some(Severity::Low),
            since: short(),
            until: short(),
            is_narrowed: true,
        },
        count: 1_234,
        causes: Reason::ALL.map(cause).to_vec(),
        more_causes: 2,
        letters: Reason::ALL.map(|reason| letter(text, reason)).to_vec(),
        damaged: 1,
        older: href(),
        newest: href(),
        replay: href(),
        purge: href(),
        missing: missing(),
        doings: vec![doing(Some((3, Some(7))), None), doing(Some((0, None)), None), doing(None, Some((short(), at())))],
        several: true,
        live: 8,
    };
    let attempt = Attempt { at: at(), outcome: short(), status: Some(503), text: Text::long(text) };
    let page = DeadLetterPage {
        frame: frame(),
        letter: letter(text, DeathReason::Exhausted),
        first: at(),
        attempts: 3,
        history: vec![Attempt { status: None, ..attempt.clone() }, attempt],
        reply: Some(LastReply { at: at(), status: Some(400), text: Text::long(text) }),
        has_channel: false,
        decision: Some(asked(text)),
        raw: Block::new(text),
        raw_bytes: 7,
        replay: href(),
        purge: href(),
    };
    let confirm = |deed| ConfirmPage {
        frame: frame(),
        deed,
        count: 1_234,
        chosen: vec![("Cause", short())],
        channels: vec![(Some(short()), grouped(1_000), false), (None, grouped(234), false)],
        workers: vec![(short(), grouped(1_000)), (short(), grouped(234))],
        exceptions: vec![String::from("3 of them stay.")],
        missing: missing(),
        fields: vec![("cause", text.to_owned())],
        back: href().unwrap(),
    };
    [html(&list), html(&page), html(&confirm(Deed::Replay)), html(&confirm(Deed::Purge))]
}

fn fault(text: &str) -> Fault {
    Fault { problem: Text::long(text), hint: Text::long(text) }
}

fn make(text: &str) -> Aim {
    Aim::Make { id: text.to_owned(), faults: vec![fault(text)] }
}

/// A form with every sort of field, with something wrong in each.
fn form(frame: Frame, aim: Aim, text: &str) -> FormPage {
    let value = || text.to_owned();
    let controls = [
        Control::Line { value: value(), number: true },
        Control::Lines { value: value(), none: true, secret: false },
        Control::Lines { value: value(), none: false, secret: true },
        Control::Secret { kept: Some(Text::short(text)), typed: false, url: true },
        Control::Secret { kept: None, typed: true, url: false },
        Control::Secret { kept: None, typed: false, url: false },
        Control::Choice { options: vec![("HIGH", true), ("LOW", false)] },
        Control::Several { options: vec![("DENY", true), ("ALLOW", false)] },
        Control::Switch { on: true },
    ];
    let keys = ["a", "b.c", "d", "e", "f", "g", "h", "i", "j"];
    let field = |(key, control)| FormField {
        key,
        label: "Label",
        hint: "Hint.",
        example: "like this",
        needed: false,
        control,
        faults: vec![fault(text)],
        meanwhile: Some(Text::short(text)),
    };
    let tried = Tried {
        delivered: false,
        status: Some(404),
        reply: Text::long(text),
        meaning: Text::long(text),
        endpoint: Text::short(text),
        took: String::from("12 ms"),
    };
    FormPage {
        frame,
        kind: "Slack",
        name: "slack",
        steps: vec![Text::short(text)],
        action: String::from("/channels/soc/edit"),
        leave: String::from("/channels/soc"),
        version: value(),
        sealed: value(),
        first: keys.into_iter().zip(controls).map(field).collect(),
        more_set: 2,
        more: vec![field(("more", Control::Switch { on: false }))],
        faults: vec![fault(text)],
        meanwhile: Some(Text::long(text)),
        testing: false,
        replaces: matches!(aim, Aim::Change { .. }).then_some("Discord"),
        aim,
        tried: Some(tried),
    }
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
    let approvals = Some(Approvals { list: list(), before: 100, count: 300 });
    pages.push(html(&ApprovalsPage { frame: frame(), filter: Filter::All, most: 100, approvals }));
    let channels = || Lane::ALL.map(|lane| channel(text, lane)).to_vec();
    let views = || Views { workers: 2, missing: vec![Missing { worker: Text::short(text), why: Text::long(text) }] };
    let counts = Counts { connected: false, sound: false, dead_letters: 2, decisions: 3, critical_unrouted: 1 };
    let long = vec![Text::short("soc")];
    pages.push(html(&OverviewPage {
        frame: frame(),
        waiting: list(),
        more_wait: 3,
        known: true,
        channels: channels(),
        long,
        views: views(),
        counts,
    }));
    pages.push(html(&ChannelsPage {
        frame: frame(),
        channels: channels(),
        views: views(),
        may_act: true,
        may_change: true,
    }));
    pages.extend(channels().into_iter().map(|channel| {
        html(&ChannelPage {
            frame: frame(),
            channel,
            views: views(),
            // A longer one is left out.
            wants: vec![("tool", text.chars().take(100).collect())],
            policy: vec![("Rate limit", Text::short(text))],
            attempts: vec![(Text::short(text), 3)],
            changed: Some((Text::short(text), Some(When::new(now(), now())))),
            shadows: true,
            may_act: true,
            may_change: true,
        })
    }));
    let choice = Choice { name: "slack", title: "Slack", sentence: "Cards." };
    pages.push(html(&KindsPage { frame: frame(), kinds: vec![choice] }));
    pages.extend([make(text), Aim::Change { id: Text::short("soc") }].map(|aim| html(&form(frame(), aim, text))));
    let (id, version) = (Text::short("soc"), text.to_owned());
    pages.extend([None, Some(0), Some(1), Some(2)].map(|waits| {
        let (id, version) = (id.clone(), version.clone());
        html(&DeletePage { frame: frame(), id, waits, version, in_file: waits == Some(2) })
    }));
    pages.extend(decisions::pages(text, frame));
    pages.extend(dead_letters(text, &frame));
    pages.extend([Lost::Nothing, Lost::Session, Lost::Form].map(|lost| {
        html(&SignInPage { frame: frame(), next: text.to_owned(), lost, refusal: Some(Text::long(text)) })
    }));
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
    fn what_a_decision_says_has_nothing_left_that_cannot_be_seen(text in hostile::text()) {
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
        let inputs = ["<input", "<textarea", "<select"].into_iter().flat_map(|tag| page.split(tag).skip(1));
        for input in inputs.map(|rest| rest.split('>').next().unwrap()) {
            let id = input.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let labelled = id.is_some_and(|id| page.contains(&format!("<label for=\"{id}\"")));
            assert!(labelled || input.contains("type=\"hidden\""), "{input}");
        }
    }
}

#[test]
fn whatever_is_come_to_only_to_be_scrolled_has_a_role_and_a_name() {
    for page in pages("plain") {
        for tag in
            page.split('<').filter_map(|rest| rest.split('>').next()).filter(|tag| tag.contains("tabindex=\"0\""))
        {
            assert!(tag.contains("role=\"region\"") && tag.contains(" aria-label"), "{tag}");
        }
    }
}

#[test]
fn the_keyboard_goes_through_a_page_as_it_is_read() {
    for page in pages("plain") {
        let orders = page.split("tabindex=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for order in orders {
            assert!(matches!(order, "0" | "-1"), "an order of its own: {order}");
        }
        // What a page leads to by its name is there.
        for to in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(page.contains(&format!("id=\"{to}\"")), "{to} is not in {page}");
        }
    }
}

#[test]
fn tries_are_told_with_what_they_mean_and_those_that_never_were_are_left_out() {
    let page = |attempts: &[(&str, u64)]| {
        html(&ChannelPage {
            frame: Frame::bare("soc"),
            channel: channel("soc", Lane::Flowing),
            views: Views::default(),
            wants: Vec::new(),
            policy: Vec::new(),
            attempts: attempts.iter().map(|(outcome, count)| (Text::short(outcome), *count)).collect(),
            changed: None,
            shadows: false,
            may_act: false,
            may_change: false,
        })
    };
    let told = page(&[("delivered", 2), ("try_later", 0), ("of_a_newer_worker", 1)]);
    assert!(told.contains("<code>delivered</code> <span class=\"hint\">the endpoint has it</span>"), "{told}");
    assert!(told.contains("<code>of_a_newer_worker</code></li>") && !told.contains("try_later"), "{told}");
    let never = page(&[("delivered", 0)]);
    assert!(never.contains("None yet.") && !never.contains("<code>delivered</code>"), "{never}");
}
