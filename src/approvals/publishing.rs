//! The answer's way to the firewall: one message on the exchange `interven.approvals`, key `approved.<tool>` or `denied.<tool>`.
//!
//! ```json
//! {"id":"4f0c...","approval_id":"apr_7","decision_id":"f1e2...","answer":"approved","by":{"id":"U024BE7LH","name":"ann","team":"T1"},
//!  "via":"slack","at":"2026-06-01T12:03:00Z","agent":{"id":"agt_42","name":"production-langgraph"},
//!  "tool":"slack","operation":"post_message","grant":{"expires_at":"2026-06-01T12:13:00Z"}}
//! ```
//!
//! `grant` is `null` for what was denied. Message id and `id` are the UUIDv5 of the approval's id, so that whoever gets the message
//! twice sees it. That can happen, with the same bytes: the worker whose click won publishes at once and writes down that it has; the
//! others do it when that is not written down for some seconds, because that worker may be dead. Where the log does not tell what
//! was asked (its beginning is gone), what only the decision says is `null`, and `tool` is the full name that the button held.
//!
//! While nothing is bound to the exchange, publishing is tried again and again, with a warning, as long as the answer means anything.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{ANSWERS_MAX, Answer, Answered, Approval, Approvals, Change, Deed, Entry, Inner, News};
use crate::{
    broker::{Destination, Message, PublishError},
    channels::button::Name,
    model::{Decision, Timestamp},
};

/// The namespace of the ids: itself the UUIDv5 of the DNS name `answers.interven-alerts` in the DNS namespace.
const NAMESPACE: Uuid = Uuid::from_u128(0x926a_b40c_a320_52e2_bd46_9500_3a57_5ea0);

/// The longest routing key that AMQP takes, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How long the others leave it to the worker whose click won. Each adds up to as much again, so that usually one steps in.
const OTHERS_AFTER: Duration = Duration::from_secs(6);

/// How long it is waited for what was asked, where a click was faster: longer than the intake's longest wait between tries to
/// record it. An answer that is published without it says less, and another worker that publishes it again says more.
const DECISION_MAX: Duration = Duration::from_secs(10);

/// Waits between tries; each is made longer by up to half.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(40);

/// How long an answer means something to the firewall: an approval as long as it is a grant, and a short one a little longer.
const APPROVED_AT_LEAST: Duration = Duration::from_mins(1);
const DENIED: Duration = Duration::from_hours(6);

/// How many are published at once.
const UNDER_WAY_MAX: usize = 32;

/// While answers cannot be published, it is said so often, and not for each.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether everything is done, while the worker stops.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An answer that must be published.
#[derive(Clone, Copy, Debug)]
struct Plan {
    due: Instant,
    wait: Duration,
    /// The broker has it, and only that is not written down yet.
    confirmed: bool,
    /// Whether a stop waits for it: this worker's own answers, until their first try is over.
    own: bool,
}

/// What has become of a try.
type Tried = (Name, Plan, Result<(), PublishError>);

struct Publisher<'a> {
    inner: &'a Inner,
    plans: HashMap<Name, Plan>,
    under_way: FuturesUnordered<BoxFuture<'a, Tried>>,
    told_at: Option<Instant>,
    /// Those that nobody has written down as published while they meant anything, as they were last told of.
    missed: HashSet<Name>,
}

impl Approvals {
    /// Publishes answers until `stop`, and then those that were given here meanwhile.
    pub async fn publish_answers(self, stop: CancellationToken) {
        let mut news = self.subscribe();
        let mut publisher = Publisher::new(&self.0);
        publisher.look_at_all();
        while !(stop.is_cancelled() && publisher.is_done()) {
            publisher.begin(stop.is_cancelled());
            publisher.show();
            let next_due = publisher.next_due(stop.is_cancelled());
            tokio::select! {
                heard = news.recv() => match heard {
                    Some(News::Whole) => publisher.look_at_all(),
                    Some(News::Changed(change)) => publisher.hear(&change),
                    Some(News::Expired(_)) => {}
                    None => return,
                },
                Some((name, plan, result)) = publisher.under_way.next() => publisher.conclude(name, plan, result),
                () = tokio::time::sleep_until(next_due), if !publisher.is_full() => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY), if stop.is_cancelled() => {}
            }
        }
    }
}

impl<'a> Publisher<'a> {
    fn new(inner: &'a Inner) -> Self {
        let (plans, under_way, missed) = (HashMap::new(), FuturesUnordered::new(), HashSet::new());
        Self { inner, plans, under_way, told_at: None, missed }
    }

    /// Whether nothing is left that the worker must do before it stops, and no answer can come any more.
    fn is_done(&self) -> bool {
        // In this order: whoever has no place when the answers are closed gets none any more.
        let idle = self.inner.tasks.is_closed() && self.inner.places.available_permits() == ANSWERS_MAX;
        self.forget_published();
        idle && self.inner.won_here().is_empty()
            && self.under_way.is_empty()
            && self.plans.values().all(|plan| !plan.own)
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= UNDER_WAY_MAX
    }

    /// Shows how many answers the firewall has not been told.
    fn show(&self) {
        let waiting = self.plans.len() + self.under_way.len();
        self.inner.metrics.answers_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    fn next_due(&self, stops: bool) -> Instant {
        let next = self.plans.values().filter(|plan| plan.own || !stops).map(|plan| plan.due).min();
        next.unwrap_or_else(|| Instant::now() + Duration::from_hours(1))
    }

    /// What was answered here may have been published by another worker before this one heard of it: then there is no plan for it.
    fn forget_published(&self) {
        let is_unpublished =
            |name: &Name| self.inner.table().get(name).is_some_and(|one| one.answer.is_some() && !one.published);
        self.inner.won_here().retain(is_unpublished);
    }

    fn look_at_all(&mut self) {
        self.forget_published();
        let unpublished: Vec<Arc<Approval>> = self.inner.table().unpublished().cloned().collect();
        let names: HashSet<&Name> = unpublished.iter().map(|approval| &approval.name).collect();
        self.plans.retain(|name, _| names.contains(name));
        for approval in &unpublished {
            self.plan(approval);
        }
        self.tell_missed(&unpublished);
    }

    /// Tells of answers that it is too late for, once: of all workers, none was there in time, or the firewall was not.
    fn tell_missed(&mut self, unpublished: &[Arc<Approval>]) {
        let now = self.inner.clock.now();
        let missed = unpublished.iter().filter(|approval| {
            !self.plans.contains_key(&approval.name)
                && Answered::of(approval).is_some_and(|answered| is_over(&answered, now))
        });
        let missed: HashSet<Name> = missed.map(|approval| approval.name.clone()).collect();
        let new: Vec<&Name> = missed.difference(&self.missed).collect();
        if let Some(one) = new.first() {
            let (answers, one) = (new.len(), self.inner.table().get(one).and_then(|one| one.id().map(str::to_owned)));
            error!(
                answers,
                one,
                hint = "let the agents ask again",
                "answers were not published while they meant anything: the firewall may never have heard of them"
            );
        }
        self.missed = missed;
    }

    fn hear(&mut self, change: &Change) {
        match change {
            Change::Answered(approval) => self.plan(approval),
            Change::Noted(approval) if approval.published => drop(self.plans.remove(&approval.name)),
            // What an answer of ours has waited for.
            Change::Asked(approval) => {
                if let Some(plan) = self.plans.get_mut(&approval.name).filter(|plan| plan.own) {
                    plan.due = plan.due.min(Instant::now());
                }
            }
            Change::Posted(_) | Change::Noted(_) => {}
        }
    }

    fn plan(&mut self, approval: &Arc<Approval>) {
        let own = self.inner.won_here().remove(&approval.name);
        let Some(answered) = Answered::of(approval) else { return };
        if is_over(&answered, self.inner.clock.now()) {
            return;
        }
        let patience = if own { Duration::ZERO } else { more(OTHERS_AFTER, 1.0) };
        let for_decision = if approval.decision.is_none() { DECISION_MAX } else { Duration::ZERO };
        let due = Instant::now() + patience + for_decision;
        if let Some(plan) = self.plans.get_mut(&approval.name) {
            if own {
                // It was seen in the table before it was heard of as ours.
                *plan = Plan { due: plan.due.min(due), own, ..*plan };
            }
            return;
        }
        self.plans.insert(approval.name.clone(), Plan { due, wait: AGAIN_FIRST, confirmed: false, own });
    }

    /// Begins what is due; of others' answers nothing while the worker stops.
    fn begin(&mut self, stops: bool) {
        let now = Instant::now();
        let due: Vec<Name> = self
            .plans
            .iter()
            .filter(|(_, plan)| plan.due <= now && (plan.own || !stops))
            .map(|(name, _)| name.clone())
            .take(UNDER_WAY_MAX - self.under_way.len().min(UNDER_WAY_MAX))
            .collect();
        let is_current = self.inner.is_current();
        for name in due {
            let Some(plan) = self.plans.remove(&name) else { continue };
            if !plan.own && !plan.confirmed && !is_current {
                // It may have been published by the others, of whom we hear nothing now.
                self.plans.insert(name, Plan { due: now + more(AGAIN_FIRST, 1.0), ..plan });
                continue;
            }
            let approval = self.inner.table().get(&name).cloned();
            let Some(answered) = approval.filter(|approval| !approval.published).as_ref().and_then(Answered::of) else {
                continue;
            };
            if is_over(&answered, self.inner.clock.now()) && !plan.confirmed {
                let (approval, answer) = (answered.approval.id(), answered.click.answer.past());
                error!(
                    approval,
                    answer,
                    "the answer could not be published while it meant anything: the firewall never heard of it; \
                     bind its queue to the approvals exchange"
                );
                self.missed.insert(name);
                continue;
            }
            let inner = self.inner;
            self.under_way.push(Box::pin(async move {
                let mut plan = plan;
                let result = inner.publish(&answered, &mut plan).await;
                (name, plan, result)
            }));
        }
    }

    fn conclude(&mut self, name: Name, plan: Plan, result: Result<(), PublishError>) {
        let Err(cause) = result else { return };
        let wait = more(plan.wait, 0.5);
        let now = Instant::now();
        self.plans.insert(
            name,
            Plan { due: now + wait, wait: (plan.wait * 2).min(AGAIN_LONGEST), confirmed: plan.confirmed, own: false },
        );
        if self.told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
            self.told_at = Some(now);
            let hint = match &cause {
                PublishError::Unroutable { .. } => "bind the firewall's queue to the exchange `<prefix>.approvals`",
                PublishError::Rejected { .. }
                | PublishError::Forbidden { .. }
                | PublishError::Disconnected
                | PublishError::Timeout { .. }
                | PublishError::Silent { .. }
                | PublishError::TooLarge { .. }
                | PublishError::Storage { .. } => cause.hint(),
            };
            let answers = self.plans.len();
            warn!(error = %cause, hint, answers, retry_in = ?wait, "answers cannot be published for the firewall");
        }
    }
}

impl Inner {
    async fn publish(&self, answered: &Answered, plan: &mut Plan) -> Result<(), PublishError> {
        if !plan.confirmed {
            self.broker.publish(message(answered)).await?;
            plan.confirmed = true;
            let click = &answered.click;
            info!(
                approval = answered.approval.id(),
                answer = click.answer.past(),
                by = click.by.id,
                via = click.via.as_str(),
                "the answer is published for the firewall"
            );
        }
        let noted = self.append(&Entry::new(Deed::Published(answered.approval.name.clone()), self.clock.now())).await;
        noted.inspect_err(|error| debug!(%error, "that an answer is published could not be written down"))
    }
}

/// `wait`, made longer by up to `share` of it.
fn more(wait: Duration, share: f64) -> Duration {
    wait + wait.mul_f64(share * fastrand::f64())
}

/// Whether the answer means nothing any more.
fn is_over(answered: &Answered, now: Timestamp) -> bool {
    let at = answered.click.at;
    let end = match answered.click.answer {
        Answer::Approve => at.plus(answered.click.grant.max(APPROVED_AT_LEAST)),
        Answer::Deny => at.plus(DENIED),
    };
    end <= now
}

/// The id of the answer to this approval.
pub fn answer_id(approval: &Name) -> Uuid {
    let text = match approval {
        Name::Whole(id) => id,
        Name::Digest(digest) => digest,
    };
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

/// The message for the firewall: the same bytes in every worker.
fn message(answered: &Answered) -> Message {
    let Answered { approval, click } = answered;
    let decision = approval.decision.as_deref();
    let claimed = click.claim.as_ref().and_then(|claim| claim.tool.whole());
    let tool = decision.map(Decision::tool).or(claimed);
    let mut key = format!("{}.{}", click.answer.past(), tool.unwrap_or("unknown"));
    key.truncate(key.floor_char_boundary(KEY_BYTES_MAX));
    let id = answer_id(&approval.name);
    let body = json!({
        "id": id,
        "approval_id": approval.id(),
        "decision_id": decision.map(|decision| &decision.id),
        "answer": click.answer.past(),
        "by": click.by,
        "via": click.via,
        "at": click.at,
        "agent": decision.map_or(Value::Null, |one| json!({"id": one.agent.id, "name": one.agent.name})),
        "tool": tool,
        "operation": decision.and_then(Decision::operation),
        "grant": approval.granted_until().map(|end| json!({"expires_at": end})),
    });
    Message { to: Destination::ApprovalsExchange(key), id: id.to_string(), body: Bytes::from(body.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::{
        By, Claim, Click, Table, Via, testing,
        tests::{House, click, until},
    };

    fn answered(click: &Click, tool: &str) -> Answered {
        let mut table = Table::default();
        table.apply(testing::asked("apr_7", tool, None));
        table.apply(testing::clicked(click));
        Answered::of(table.get(&click.approval).unwrap()).unwrap()
    }

    #[test]
    fn the_message_is_as_documented() {
        let at: Timestamp = "2026-06-01T12:03:00Z".parse().unwrap();
        let by = By { id: String::from("U1"), name: String::from("ann"), team: Some(String::from("T1")) };
        let mut click = Click::new(Name::of("apr_7"), Answer::Approve, by, Via::Slack, at);
        click.grant = Duration::from_mins(10);
        let Message { to, id, body } = message(&answered(&click, "slack"));
        assert_eq!(to, Destination::ApprovalsExchange(String::from("approved.slack")));
        let value: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "id": id, "approval_id": "apr_7", "decision_id": "d-apr_7", "answer": "approved",
            "by": {"id": "U1", "name": "ann", "team": "T1"}, "via": "slack", "at": "2026-06-01T12:03:00Z",
            "agent": {"id": "agt_42", "name": null}, "tool": "slack", "operation": "post_message",
            "grant": {"expires_at": "2026-06-01T12:13:00Z"},
        });
        assert_eq!(value, expected);
        assert_eq!(id.parse::<Uuid>().unwrap(), answer_id(&Name::of("apr_7")));
        click.answer = Answer::Deny;
        let Message { to, body, .. } = message(&answered(&click, "slack"));
        assert_eq!(to, Destination::ApprovalsExchange(String::from("denied.slack")));
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["grant"], Value::Null);
    }

    #[tokio::test]
    async fn an_answer_of_ours_is_published_at_once_also_where_it_was_seen_in_the_table_first() {
        let (house, name) = (House::open(0).await, Name::of("apr"));
        let worker = house.worker(false).await;
        house.ask("apr", None).await;
        until("it is known", || worker.approvals.get(&name)).await;
        worker.approvals.answer(click("apr", 0)).await.unwrap();
        let inner = &worker.approvals.0;
        // As it is between the two steps of hearing.
        assert!(inner.won_here().remove(&name));
        let mut publisher = Publisher::new(inner);
        publisher.look_at_all();
        assert!(!publisher.plans[&name].own && publisher.plans[&name].due > Instant::now());
        inner.won_here().insert(name.clone());
        publisher.hear(&Change::Answered(worker.approvals.get(&name).unwrap()));
        assert!(publisher.plans[&name].own && publisher.plans[&name].due <= Instant::now());
    }

    #[tokio::test]
    async fn an_answer_that_was_faster_than_its_question_waits_for_it_and_not_longer() {
        let (house, name) = (House::open(0).await, Name::of("apr"));
        let worker = house.worker(false).await;
        let mut sealed = click("apr", 0);
        sealed.claim = Some(Claim { agent: None, tool: Name::of("slack.post_message"), expires_at: None });
        worker.approvals.answer(sealed).await.unwrap();
        let mut publisher = Publisher::new(&worker.approvals.0);
        publisher.hear(&Change::Answered(worker.approvals.get(&name).unwrap()));
        // The intake tries again to record a question every five seconds.
        assert!(publisher.plans[&name].due > Instant::now() + Duration::from_secs(5));
        house.ask("apr", None).await;
        let asked = until("it is asked", || worker.approvals.get(&name).filter(|one| one.decision.is_some())).await;
        publisher.hear(&Change::Asked(asked));
        assert!(publisher.plans[&name].due <= Instant::now());
    }

    #[tokio::test]
    async fn an_answer_that_was_never_published_in_time_is_told_of_once() {
        let (house, name) = (House::open(0).await, Name::of("apr"));
        let worker = house.worker(false).await;
        house.ask("apr", None).await;
        let old = Click { at: Timestamp::UNIX_EPOCH, grant: Duration::from_mins(10), ..click("apr", 0) };
        worker.approvals.note(Deed::Click(old)).await.unwrap();
        until("it is answered", || worker.approvals.get(&name)?.answer.clone()).await;
        let mut publisher = Publisher::new(&worker.approvals.0);
        publisher.look_at_all();
        assert!(publisher.plans.is_empty() && publisher.missed.contains(&name));
        worker.approvals.note(Deed::Published(name.clone())).await.unwrap();
        until("it is published", || worker.approvals.get(&name).filter(|one| one.published)).await;
        publisher.look_at_all();
        assert!(publisher.missed.is_empty());
    }

    #[test]
    fn a_hostile_tool_makes_no_key_that_amqp_cannot_carry() {
        let click = testing::click("apr_7", Answer::Deny);
        let Destination::ApprovalsExchange(key) = message(&answered(&click, &"🙂".repeat(5_000))).to else {
            panic!()
        };
        assert!(key.len() <= KEY_BYTES_MAX && key.len() > KEY_BYTES_MAX - 4, "{}", key.len());
    }

    #[test]
    fn an_answer_to_what_the_log_does_not_tell_of_says_what_the_button_said() {
        let mut click = testing::click("apr_7", Answer::Approve);
        click.claim = Some(Claim { agent: None, tool: Name::of("slack.post_message"), expires_at: None });
        let mut table = Table::default();
        table.apply(testing::clicked(&click));
        let Message { to, body, .. } = message(&Answered::of(table.get(&click.approval).unwrap()).unwrap());
        assert_eq!(to, Destination::ApprovalsExchange(String::from("approved.slack.post_message")));
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&value["approval_id"], &value["agent"]), (&json!("apr_7"), &Value::Null));
    }

    #[test]
    fn an_answer_is_published_as_long_as_it_means_something() {
        let mut click = testing::click("apr_7", Answer::Approve);
        click.grant = Duration::from_mins(10);
        let over = |click: &Click, after: Duration| is_over(&answered(click, "t"), click.at.plus(after));
        assert!(!over(&click, Duration::from_mins(9)) && over(&click, Duration::from_mins(10)));
        click.grant = Duration::from_secs(1);
        assert!(!over(&click, Duration::from_secs(30)));
        click.answer = Answer::Deny;
        assert!(!over(&click, Duration::from_hours(5)) && over(&click, Duration::from_hours(6)));
    }
}
