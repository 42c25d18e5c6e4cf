//! Every rule about what happens after a try: the table of the contract, section 5, as one pure function.
//!
//! [`decide`] looks at one try's verdict and at where the lane stands, and says what becomes of the delivery and of the lane.
//! It does not wait, send or count: the loop in `mod.rs` carries the step out. [`too_late`] is its companion for deliveries
//! that should not be tried at all any more.
//!
//! What a digest is refused for is nobody's fault in particular: it is tried as plain text, and then each delivery goes by itself.
//! A digest that meets trouble costs its deliveries no attempts.
//!
//! What counts as an attempt: a try that the endpoint answered with a failure of its own (5xx, 408, 425). A 429 is a request
//! to wait, and where no answer came (refused, reset, timeout, TLS, DNS) nothing is known of the payload, so neither uses up
//! the delivery's attempts; `max_age` bounds both.

use std::time::Duration;

use super::backoff::Backoff;
use crate::model::{DeathReason, Delivery, RetryPlan, Timestamp, Trouble, Verdict};

/// Failures in a row that pause the lane. Source: contract 5.
pub const FAILURES_TO_PAUSE: u32 = 5;

/// The longest wait that an endpoint can impose. Source: contract 5.
pub const ASKED_WAIT_MAX: Duration = Duration::from_hours(1);

/// The shortest wait where an endpoint asked for one: a zero would make us hammer it. Source: platforms.md, 13.
pub const ASKED_WAIT_MIN: Duration = Duration::from_millis(250);

/// The first wait between probes of a held lane. Source: contract 5.
pub const PROBE_FIRST: Duration = Duration::from_mins(5);

/// The longest wait between probes of a held lane. Source: contract 5.
pub const PROBE_LONGEST: Duration = Duration::from_hours(1);

/// A canary that was not delivered by then has told what it was sent to find out. Source: README, "Canaries".
pub const CANARY_AGE_MAX: Duration = Duration::from_mins(2);

/// Where a lane stands when a try ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the try was the one that finds out, sent while the lane was paused or held.
    pub probe: bool,
    /// Whether the lane was paused or held while this try, no probe, was still under way: it was sent before.
    pub resting: bool,
    /// Whether the lane was told something while this try was under way (another configuration, to stop, to flow): what the
    /// try found out is true of what was before.
    pub stale: bool,
    /// Tries in a row, before this one, that failed in a way that time may mend.
    pub failures: u32,
    /// Pauses in a row, before this try, that a probe did not end.
    pub pauses: u32,
    /// Probes in a row, before this one, that found the destination broken.
    pub holds: u32,
}

/// One delivery, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Tries before this one that counted.
    pub attempts: u32,
    /// Whether the plain-text form was sent.
    pub plain: bool,
    /// Whether it was sent to an address that the endpoint had named.
    pub detoured: bool,
    /// How many deliveries shared the request, each told in it.
    pub batch: usize,
    /// Whether the request was a digest of them all.
    pub digest: bool,
}

/// The answer to one try: what came back, or why nothing did.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The endpoint's reply, judged by the channel.
    Reply(Verdict),
    /// No reply.
    Silence(Trouble),
}

/// What becomes of the delivery (of each one, where several shared the request).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is delivered.
    Delivered,
    /// It is tried again after this wait, as `form` says.
    Again {
        /// How long it waits; zero is at once.
        after: Duration,
        /// Whether this try is counted as an attempt.
        counts: bool,
        /// What is different the next time.
        form: Form,
    },
    /// It is dead.
    Bury(DeathReason),
    /// Of the batch, the first `accepted` are delivered, the next is dead, the others are tried again at once.
    BuryOne {
        /// How many are delivered.
        accepted: usize,
    },
    /// The batch is sent again in two halves.
    Split,
    /// The digest is given up: each of its deliveries is told by itself.
    Unfold,
}

/// What is different the next time that a delivery is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing.
    Same,
    /// The plain-text form.
    Plain,
    /// The same to another address, which the lane keeps for what follows.
    Detour(String),
}

/// What becomes of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It flows, and past failures are forgotten. The endpoint may want a rest before the next one.
    Flow {
        /// How long it wants to be left alone.
        breathe: Duration,
    },
    /// It goes on as it was, one failure richer.
    Stay,
    /// Nothing is sent for this long, then a single probe.
    Pause {
        /// How long.
        wait: Duration,
    },
    /// An operator must act; a single probe is sent after this long all the same.
    Hold {
        /// How long.
        wait: Duration,
    },
}

/// What happens after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To the delivery.
    pub fate: Fate,
    /// To the lane.
    pub course: Course,
}

/// What happens after a try.
pub fn decide(answer: &Answer, tried: Tried, standing: Standing, plan: &RetryPlan, backoff: &mut Backoff) -> Step {
    let step = decide_at_once(answer, tried, standing, plan, backoff);
    match (answer, step) {
        // An endpoint that asks for a rest means it, whoever asked.
        (Answer::Reply(Verdict::TryLater { throttled: true, .. }), step) => step,
        // The old destination was broken; the delivery goes to the new one.
        (_, Step { fate: Fate::Again { counts, form, .. }, course: Course::Hold { .. } }) if standing.stale => {
            Step { fate: Fate::Again { after: Duration::ZERO, counts, form }, course: Course::Stay }
        }
        (_, Step { fate, .. }) if standing.stale => Step { fate, course: Course::Stay },
        (_, step) => step,
    }
}

/// The same, of a try that found out what is still true.
fn decide_at_once(answer: &Answer, tried: Tried, standing: Standing, plan: &RetryPlan, backoff: &mut Backoff) -> Step {
    // What was sent before the lane came to rest says nothing about whether it may flow again.
    let flow = |breathe| if standing.resting { Course::Stay } else { Course::Flow { breathe } };
    let flow_on = flow(Duration::ZERO);
    let verdict = match answer {
        Answer::Reply(verdict) => verdict,
        Answer::Silence(Trouble::Egress) => return hold(standing),
        Answer::Silence(
            Trouble::Refused | Trouble::Reset | Trouble::Timeout | Trouble::Tls | Trouble::Dns | Trouble::Other,
        ) => return later(None, false, false, tried, standing, plan, backoff),
    };
    match verdict {
        Verdict::Delivered { breathe, .. } => Step {
            fate: Fate::Delivered,
            course: flow(breathe.map_or(Duration::ZERO, |wait| wait.min(ASKED_WAIT_MAX))),
        },
        Verdict::TryLater { after, throttled, .. } => {
            later(*after, *throttled, !throttled, tried, standing, plan, backoff)
        }
        // The endpoint looked at the payload and said no: the destination works.
        Verdict::Refused { plain_may_pass: true, .. } | Verdict::TooLarge { .. }
            if tried.batch == 1 && !tried.plain =>
        {
            Step { fate: Fate::Again { after: Duration::ZERO, counts: false, form: Form::Plain }, course: flow_on }
        }
        // A batch is refused for one of its members: halves find out which.
        // It was the digest that the endpoint did not like, and none of its deliveries is to blame.
        Verdict::Refused { plain_may_pass: false, .. } | Verdict::RefusedOne { .. } if tried.digest && !tried.plain => {
            Step { fate: Fate::Again { after: Duration::ZERO, counts: false, form: Form::Plain }, course: flow_on }
        }
        Verdict::Refused { .. } | Verdict::TooLarge { .. } | Verdict::RefusedOne { .. } if tried.digest => {
            Step { fate: Fate::Unfold, course: flow_on }
        }
        Verdict::Refused { .. } | Verdict::TooLarge { .. } if tried.batch > 1 => {
            Step { fate: Fate::Split, course: flow_on }
        }
        Verdict::Refused { .. } | Verdict::TooLarge { .. } => {
            Step { fate: Fate::Bury(DeathReason::Refused), course: flow_on }
        }
        Verdict::RefusedOne { accepted, .. } => {
            Step { fate: Fate::BuryOne { accepted: (*accepted).min(tried.batch.saturating_sub(1)) }, course: flow_on }
        }
        Verdict::Moved { to, .. } if !tried.detoured => Step {
            fate: Fate::Again { after: Duration::ZERO, counts: false, form: Form::Detour(to.clone()) },
            course: flow_on,
        },
        Verdict::Broken { .. } | Verdict::Moved { .. } => hold(standing),
    }
}

fn hold(standing: Standing) -> Step {
    let wait = PROBE_FIRST.saturating_mul(1 << standing.holds.min(8)).min(PROBE_LONGEST);
    Step { fate: Fate::Again { after: wait, counts: false, form: Form::Same }, course: Course::Hold { wait } }
}

fn later(
    asked: Option<Duration>,
    throttled: bool,
    counts: bool,
    tried: Tried,
    standing: Standing,
    plan: &RetryPlan,
    backoff: &mut Backoff,
) -> Step {
    let failures = standing.failures.saturating_add(1);
    let asked = asked.map(|wait| wait.clamp(ASKED_WAIT_MIN, ASKED_WAIT_MAX));
    // A delivery waits longer with every attempt of its own, a lane with every pause that did not help.
    let rounds = tried.attempts.max(standing.pauses).saturating_add(1);
    let wait = match asked {
        // Never less than asked, and a little more, so that a pool does not come back all at once.
        Some(asked) => (asked + backoff.sliver(asked)).min(ASKED_WAIT_MAX),
        None => backoff.delay(plan, rounds),
    };
    let counts = counts && !tried.digest;
    let fate = if counts && is_exhausted(tried.attempts.saturating_add(1), plan) {
        Fate::Bury(DeathReason::Exhausted)
    } else {
        Fate::Again { after: wait, counts, form: Form::Same }
    };
    let pauses = throttled || standing.probe || (!standing.resting && failures >= FAILURES_TO_PAUSE);
    Step { fate, course: if pauses { Course::Pause { wait } } else { Course::Stay } }
}

/// Whether so many attempts are all that a delivery has.
pub fn is_exhausted(attempts: u32, plan: &RetryPlan) -> bool {
    attempts >= plan.attempts().get()
}

/// Why a delivery should not be tried any more, if so. A card with buttons that nobody may press any more is not posted
/// (`chat` kinds); a SIEM gets every event.
pub fn too_late(delivery: &Delivery, chat: bool, max_age: Duration, now: Timestamp) -> Option<DeathReason> {
    let expired = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    if chat && expired(delivery.decision.approval_asked().and_then(|approval| approval.expires_at)) {
        return Some(DeathReason::ApprovalExpired);
    }
    if delivery.is_canary() && now.since(delivery.decision.time) > CANARY_AGE_MAX {
        return Some(DeathReason::Expired);
    }
    (now.since(delivery.first_at) > max_age).then_some(DeathReason::Expired)
}

impl Step {
    /// What happens next, for the log line of the try.
    pub fn in_words(&self) -> String {
        let fate = match &self.fate {
            Fate::Delivered => String::from("done"),
            Fate::Again { after, form, .. } => {
                let form = match form {
                    Form::Same => "",
                    Form::Plain => " as plain text",
                    Form::Detour(_) => " to the new address",
                };
                format!("again in {:.1} s{form}", after.as_secs_f64())
            }
            Fate::Bury(reason) => format!("dead letter: {reason}"),
            Fate::BuryOne { accepted } => format!("{accepted} done, one dead letter, the rest again"),
            Fate::Split => String::from("again in two halves"),
            Fate::Unfold => String::from("told one by one"),
        };
        match self.course {
            Course::Flow { .. } | Course::Stay => fate,
            Course::Pause { wait } => format!("{fate}; lane paused for {:.1} s", wait.as_secs_f64()),
            Course::Hold { wait } => format!("{fate}; lane held, probe in {:.0} s", wait.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::retry_plan::RetryNumbers;

    const FIRST: Tried = Tried { attempts: 0, plain: false, detoured: false, batch: 1, digest: false };
    const FLOWING: Standing = Standing { probe: false, resting: false, stale: false, failures: 0, pauses: 0, holds: 0 };

    fn plan() -> RetryPlan {
        RetryPlan::try_from(RetryNumbers::default()).unwrap()
    }

    fn step(verdict: Verdict, tried: Tried, standing: Standing) -> Step {
        decide(&Answer::Reply(verdict), tried, standing, &plan(), &mut Backoff::seeded(1))
    }

    fn why() -> String {
        String::from("because")
    }

    fn try_later(after: Option<u64>, throttled: bool) -> Verdict {
        Verdict::TryLater { after: after.map(Duration::from_secs), throttled, why: why() }
    }

    #[test]
    fn a_success_ends_every_rest_but_only_if_it_was_sent_since() {
        let flow = Course::Flow { breathe: Duration::ZERO };
        for probe in [false, true] {
            let found = step(Verdict::DELIVERED, FIRST, Standing { probe, failures: 4, pauses: 2, ..FLOWING });
            assert_eq!(found, Step { fate: Fate::Delivered, course: flow });
        }
        let late = step(Verdict::DELIVERED, FIRST, Standing { resting: true, ..FLOWING });
        assert_eq!(late, Step { fate: Fate::Delivered, course: Course::Stay });
    }

    #[test]
    fn the_fifth_failure_in_a_row_pauses_the_lane_and_a_429_at_once() {
        for failures in 0..FAILURES_TO_PAUSE {
            let found = step(try_later(None, false), FIRST, Standing { failures, ..FLOWING });
            let pauses = matches!(found.course, Course::Pause { .. });
            assert_eq!(pauses, failures + 1 >= FAILURES_TO_PAUSE, "{failures}");
            assert!(matches!(found.fate, Fate::Again { counts: true, .. }));
        }
        let found = step(try_later(Some(30), true), FIRST, FLOWING);
        let Step { fate: Fate::Again { after, counts: false, .. }, course: Course::Pause { wait } } = found else {
            panic!("{found:?}")
        };
        assert!(after == wait && wait >= Duration::from_secs(30) && wait <= Duration::from_secs(33), "{wait:?}");
    }

    #[test]
    fn what_an_endpoint_asks_for_is_kept_within_a_quarter_second_and_an_hour() {
        for (asked, low, high) in [(0, 250, 275), (10, 10_000, 11_000), (1_000_000, 3_600_000, 3_600_000)] {
            let Course::Pause { wait } = step(try_later(Some(asked), true), FIRST, FLOWING).course else { panic!() };
            assert!((low..=high).contains(&wait.as_millis()), "asked {asked} s, waits {wait:?}");
        }
    }

    #[test]
    fn only_an_answered_failure_counts_and_the_last_one_is_the_end() {
        let last = Tried { attempts: 9, ..FIRST };
        assert_eq!(step(try_later(None, false), last, FLOWING).fate, Fate::Bury(DeathReason::Exhausted));
        assert!(matches!(step(try_later(None, true), last, FLOWING).fate, Fate::Again { counts: false, .. }));
        for trouble in [Trouble::Refused, Trouble::Reset, Trouble::Timeout, Trouble::Tls, Trouble::Dns, Trouble::Other]
        {
            let found = decide(&Answer::Silence(trouble), last, FLOWING, &plan(), &mut Backoff::seeded(1));
            assert!(matches!(found.fate, Fate::Again { counts: false, .. }), "{trouble:?}: {found:?}");
        }
    }

    #[test]
    fn a_broken_destination_holds_the_lane_with_probes_from_five_minutes_to_an_hour() {
        let waits: Vec<u64> = (0..6)
            .map(|holds| match step(Verdict::Broken { why: why() }, FIRST, Standing { holds, ..FLOWING }).course {
                Course::Hold { wait } => wait.as_secs() / 60,
                Course::Flow { .. } | Course::Stay | Course::Pause { .. } => panic!("not held"),
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        let egress = decide(&Answer::Silence(Trouble::Egress), FIRST, FLOWING, &plan(), &mut Backoff::seeded(1));
        assert!(matches!(egress.course, Course::Hold { .. }));
    }

    #[test]
    fn a_refused_payload_is_tried_as_plain_text_once() {
        let refused = |plain_may_pass| Verdict::Refused { plain_may_pass, why: why() };
        let again = step(refused(true), FIRST, FLOWING).fate;
        assert_eq!(again, Fate::Again { after: Duration::ZERO, counts: false, form: Form::Plain });
        assert_eq!(step(refused(true), Tried { plain: true, ..FIRST }, FLOWING).fate, Fate::Bury(DeathReason::Refused));
        assert_eq!(step(refused(false), FIRST, FLOWING).fate, Fate::Bury(DeathReason::Refused));
        assert_eq!(step(refused(true), Tried { batch: 8, ..FIRST }, FLOWING).fate, Fate::Split);
        assert_eq!(step(Verdict::TooLarge { why: why() }, Tried { batch: 2, ..FIRST }, FLOWING).fate, Fate::Split);
        let one = Verdict::RefusedOne { accepted: 99, why: why() };
        assert_eq!(step(one, Tried { batch: 3, ..FIRST }, FLOWING).fate, Fate::BuryOne { accepted: 2 });
    }

    #[test]
    fn what_a_try_found_out_of_an_old_configuration_changes_the_lane_only_if_it_asks_for_a_rest() {
        let stale = Standing { stale: true, failures: 4, ..FLOWING };
        let broken = step(Verdict::Broken { why: why() }, FIRST, stale);
        let again = Fate::Again { after: Duration::ZERO, counts: false, form: Form::Same };
        assert_eq!(broken, Step { fate: again, course: Course::Stay });
        assert_eq!(step(Verdict::DELIVERED, FIRST, stale), Step { fate: Fate::Delivered, course: Course::Stay });
        assert_eq!(step(try_later(None, false), FIRST, stale).course, Course::Stay);
        assert!(matches!(step(try_later(Some(3), true), FIRST, stale).course, Course::Pause { .. }));
    }

    #[test]
    fn a_digest_that_is_refused_is_tried_as_plain_text_and_then_unfolds_and_costs_no_attempts() {
        let digest = Tried { batch: 1, digest: true, ..FIRST };
        let plain = Tried { plain: true, ..digest };
        let again = Fate::Again { after: Duration::ZERO, counts: false, form: Form::Plain };
        let refusals = || {
            [true, false]
                .map(|plain_may_pass| Verdict::Refused { plain_may_pass, why: why() })
                .into_iter()
                .chain([Verdict::TooLarge { why: why() }, Verdict::RefusedOne { accepted: 1, why: why() }])
        };
        for (rich, poor) in refusals().zip(refusals()) {
            assert_eq!(step(rich, digest, FLOWING).fate, again);
            assert_eq!(step(poor, plain, FLOWING).fate, Fate::Unfold);
        }
        let last = Tried { attempts: 9, ..digest };
        assert!(matches!(step(try_later(None, false), last, FLOWING).fate, Fate::Again { counts: false, .. }));
    }

    #[test]
    fn a_destination_that_moves_is_followed_once() {
        let moved = || Verdict::Moved { to: String::from("-100"), why: why() };
        assert!(matches!(step(moved(), FIRST, FLOWING).fate, Fate::Again { form: Form::Detour(_), .. }));
        assert!(matches!(step(moved(), Tried { detoured: true, ..FIRST }, FLOWING).course, Course::Hold { .. }));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_never_pass_it() {
        let (plan, mut backoff) = (plan(), Backoff::seeded(7));
        for round in 1..=40 {
            let middle = (1_u64 << (round - 1).min(20)).min(300);
            let wait = backoff.delay(&plan, round).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "at most 300")]
            let middle = middle as f64;
            assert!(wait >= middle * 0.75 - 0.001 && wait <= (middle * 1.25).min(300.0) + 0.001, "{round}: {wait}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_wait_is_zero_after_a_failure_or_longer_than_an_hour(
            status in 100_u16..600, attempts in 0_u32..20, failures in 0_u32..20, pauses in 0_u32..40, holds in 0_u32..40,
            probe in proptest::bool::ANY, batch in 1_usize..5,
        ) {
            let verdict = crate::channels::judging::by_status(&crate::model::Reply::new(status, ""));
            let standing = Standing { probe, resting: false, stale: false, failures, pauses, holds };
            let failed = matches!(verdict, Verdict::TryLater { .. } | Verdict::Broken { .. });
            let found = step(verdict, Tried { attempts, batch, ..FIRST }, standing);
            if let (true, Fate::Again { after, .. }) = (failed, &found.fate) {
                proptest::prop_assert!(!after.is_zero() && *after <= Duration::from_hours(1));
            }
        }
    }
}
