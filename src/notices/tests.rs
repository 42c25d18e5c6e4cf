//! The watchman's rules, asked at chosen moments; and the watchman himself, in virtual time.

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    broker::{Destination, Queue},
    intake::OwnTerms,
    route::Routes,
    settle::{Job, Settler},
};

const TERMS: Terms = Terms { look_every: secs(1), gather: secs(5), silence: secs(900) };

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(text: &str) -> ChannelId {
    text.parse().unwrap()
}

fn held(channel: &str) -> Sight {
    Sight { channel: Some(id(channel)), held: Some(String::from("404 no_service")), deaths: Deaths::default() }
}

fn dead(channel: Option<&str>, refused: u64, expired: u64) -> Sight {
    let mut deaths = Deaths::default();
    deaths[DeathReason::Refused as usize] = refused;
    deaths[DeathReason::Expired as usize] = expired;
    Sight { channel: channel.map(id), held: None, deaths }
}

/// A watchman whose only teller is `ops`, asked at moments in seconds.
struct Watchman {
    ledger: Ledger,
    start: Instant,
}

impl Watchman {
    fn new() -> Self {
        Self { ledger: Ledger::default(), start: Instant::now() }
    }

    /// What he tells of these sights, as titles.
    fn at(&mut self, seconds: u64, sights: impl IntoIterator<Item = Sight>) -> Vec<String> {
        self.telling_to(&["ops"], seconds, sights)
    }

    fn telling_to(&mut self, tellers: &[&str], seconds: u64, sights: impl IntoIterator<Item = Sight>) -> Vec<String> {
        let tellers: Vec<ChannelId> = tellers.iter().map(|text| id(text)).collect();
        let tellers: Vec<&ChannelId> = tellers.iter().collect();
        let notices = self.ledger.look(sights, &tellers, TERMS, self.start + secs(seconds));
        notices.iter().map(Notice::title).collect()
    }
}

const HELD: &str = "Channel soc is held: 404 no_service";

#[test]
fn a_hold_is_told_once_however_long_it_lasts() {
    let mut watchman = Watchman::new();
    assert_eq!(watchman.at(0, [held("soc")]), [HELD]);
    for seconds in [1, 100, 901, 5_000] {
        assert_eq!(watchman.at(seconds, [held("soc")]), [""; 0], "at {seconds}");
    }
}

#[test]
fn a_new_hold_in_the_silence_is_told_when_the_silence_is_over_and_only_if_it_lasts() {
    let mut watchman = Watchman::new();
    assert_eq!(watchman.at(0, [held("soc"), held("gone")]).len(), 2);
    assert_eq!(watchman.at(10, [dead(Some("soc"), 0, 0), dead(Some("gone"), 0, 0)]), [""; 0]);
    assert_eq!(watchman.at(20, [held("soc"), held("gone")]), [""; 0]);
    assert_eq!(watchman.at(899, [held("soc"), dead(Some("gone"), 0, 0)]), [""; 0]);
    assert_eq!(watchman.at(900, [held("soc"), dead(Some("gone"), 0, 0)]), [HELD]);
    assert_eq!(watchman.at(1_801, [held("soc"), held("gone")]), ["Channel gone is held: 404 no_service"]);
}

#[test]
fn dead_letters_gather_for_a_moment_and_are_told_with_exact_counts() {
    let mut watchman = Watchman::new();
    assert_eq!(watchman.at(0, [dead(Some("soc"), 1, 0)]), [""; 0]);
    assert_eq!(watchman.at(4, [dead(Some("soc"), 7, 1)]), [""; 0]);
    assert_eq!(watchman.at(5, [dead(Some("soc"), 10, 2)]), ["12 new dead letters (refused 10, expired 2) for soc"]);
    assert_eq!(watchman.at(899, [dead(Some("soc"), 10, 3)]), [""; 0], "the silence lasts");
    assert_eq!(watchman.at(905, [dead(Some("soc"), 11, 3)]), ["2 new dead letters (refused 1, expired 1) for soc"]);
    assert_eq!(watchman.at(9_999, [dead(Some("soc"), 11, 3)]), [""; 0], "nothing has grown");
}

#[test]
fn one_notice_tells_a_hold_and_the_dead_letters_that_come_with_it() {
    let mut watchman = Watchman::new();
    let both = Sight { held: held("soc").held, ..dead(Some("soc"), 1, 0) };
    assert_eq!(watchman.at(0, [both.clone()]), [format!("{HELD}; 1 new dead letter (refused 1)")]);
    assert_eq!(watchman.at(2_000, [both]), [""; 0]);
}

#[test]
fn trouble_is_never_told_through_the_channel_that_has_it_and_waits_for_somebody_who_can_tell_it() {
    let mut watchman = Watchman::new();
    assert_eq!(watchman.telling_to(&[], 0, [held("soc")]), [""; 0]);
    assert_eq!(watchman.telling_to(&["soc"], 1, [held("soc")]), [""; 0]);
    assert_eq!(watchman.telling_to(&["soc", "ops"], 2, [held("soc")]), [HELD]);
    assert_eq!(watchman.telling_to(&["soc"], 3, [held("ops")]), ["Channel ops is held: 404 no_service"]);
}

#[test]
fn what_belongs_to_no_channel_is_told_through_any() {
    let mut watchman = Watchman::new();
    assert_eq!(watchman.at(0, [dead(None, 3, 0)]), [""; 0]);
    assert_eq!(watchman.at(5, [dead(None, 3, 0)]), ["3 new dead letters (refused 3) for no channel"]);
}

#[test]
fn workers_that_notice_the_same_in_one_slot_make_the_same_delivery() {
    let ops = id("ops");
    let notice = |about: &str, held: Option<&str>| Notice {
        about: Some(id(about)),
        held: held.map(str::to_owned),
        deaths: Vec::new(),
    };
    let delivery = |notice: &Notice, seconds: i64| {
        let now = Timestamp::from_unix_millis(seconds * 1_000);
        Delivery::new(Arc::new(notice.decision(TERMS.silence, now)), ops.clone(), now).id()
    };
    let one = notice("soc", Some("404"));
    let same = notice("soc", Some("404 after all"));
    assert_eq!(delivery(&one, 1_800_000_000), delivery(&same, 1_800_000_899));
    assert_ne!(delivery(&one, 1_800_000_000), delivery(&one, 1_800_000_900));
    assert_ne!(delivery(&one, 1_800_000_000), delivery(&notice("soc", None), 1_800_000_000));
    assert_ne!(delivery(&one, 1_800_000_000), delivery(&notice("soc-2", Some("404")), 1_800_000_000));
}

#[test]
fn however_much_an_endpoint_says_a_notice_is_a_decision() {
    let now = Timestamp::from_unix_millis(1_780_000_000_000);
    let why = "\u{202e}\"<!channel>\\\n".repeat(100_000);
    let notice = Notice { about: Some(id(&"x".repeat(64))), held: Some(why), deaths: vec![(DeathReason::Expired, 2)] };
    let decision = notice.decision(TERMS.silence, now);
    assert_eq!(own::Own::of(&decision), Some(own::Own::Notice));
    assert_eq!(decision.reasons, ["CHANNEL_HELD".into(), "DEAD_LETTERS".into()]);
    assert!(decision.title.unwrap().ends_with("; 2 new dead letters (expired 2)"));
}

#[test]
fn a_probe_of_a_held_lane_is_no_end_of_the_hold_and_a_pause_is_none() {
    let (until, why) = (Instant::now(), || String::from("404"));
    assert_eq!(why_held(LaneState::Held { until, why: why() }), Some(why()));
    assert_eq!(why_held(LaneState::Probing { held: true, trying: true, why: why() }), Some(why()));
    for state in [
        LaneState::Flowing,
        LaneState::Paused { until, why: why() },
        LaneState::Probing { held: false, trying: true, why: why() },
        LaneState::Stopped,
    ] {
        assert_eq!(why_held(state), None);
    }
}

/// A watchman over the lanes `soc` and `ops`, of which `ops` asked for notices.
struct Room {
    metrics: Metrics,
    jobs: mpsc::Receiver<Job>,
    routing: watch::Sender<Arc<Router>>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Room {
    fn new() -> Self {
        let (settler, jobs) = Settler::by_hand();
        let (metrics, stop, tracker) = (Metrics::new(), CancellationToken::new(), TaskTracker::new());
        let lanes = ["soc", "ops"].map(|name| {
            // What would be in the lane's memory is not looked at, and may go.
            LaneHandle::by_hand(id(name), 1, settler.clone(), metrics.channel(&id(name))).0
        });
        let own = [false, true].map(|notices| OwnTerms { notices, canary: None });
        let router = Router::new(Routes::new(Vec::new()), lanes.into()).with_own(own.into());
        let routing = watch::channel(Arc::new(router)).0;
        let clock = Clock::starting_at(Timestamp::from_unix_millis(1_800_000_000_000));
        tracker.spawn(super::watch(routing.subscribe(), metrics.clone(), clock, TERMS, stop.clone()));
        tracker.close();
        Self { metrics, jobs, routing, stop, tracker }
    }
}

#[tokio::test(start_paused = true)]
async fn the_watchman_tells_through_the_lane_queue_of_the_other_channel_and_counts_it_there() {
    let mut room = Room::new();
    room.metrics.wrote_letter(DeathReason::Refused, Some(&id("soc")), false);
    let Some(Job::Publish { message, receipt, .. }) = room.jobs.recv().await else { panic!("not parked") };
    assert_eq!(message.to, Destination::Queue(Queue::Lane(id("ops"))));
    let delivery = Delivery::from_bytes(&message.body).unwrap();
    assert_eq!(delivery.decision.title.as_deref(), Some("1 new dead letter (refused 1) for soc"));
    receipt.settle();
    let matched = |name| room.metrics.channel(&id(name)).matched.get();
    assert_eq!((matched("ops"), matched("soc")), (1, 0));
    // That letter, and others that come, are old news until the silence is over.
    room.metrics.wrote_letter(DeathReason::Expired, Some(&id("soc")), false);
    let told = Instant::now();
    let Some(Job::Publish { message, .. }) = room.jobs.recv().await else { panic!("not parked") };
    let waited = told.elapsed();
    assert!((secs(899)..secs(903)).contains(&waited), "told again after {waited:?}");
    let delivery = Delivery::from_bytes(&message.body).unwrap();
    assert_eq!(delivery.decision.title.as_deref(), Some("1 new dead letter (expired 1) for soc"));
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_died_is_no_news() {
    let mut room = Room::new();
    room.metrics.wrote_letter(DeathReason::Refused, Some(&id("soc")), true);
    assert!(tokio::time::timeout(secs(3_600), room.jobs.recv()).await.is_err(), "something was told");
}

#[tokio::test(start_paused = true)]
async fn a_watchman_who_was_told_to_stop_keeps_no_lane_alive() {
    // Goal: the settler ends when the last handle of a lane is gone, so none may be left with the watchman.
    let Room { metrics, mut jobs, routing, stop, tracker } = Room::new();
    metrics.wrote_letter(DeathReason::Refused, Some(&id("soc")), false);
    assert!(jobs.recv().await.is_some());
    stop.cancel();
    tracker.wait().await;
    drop(routing);
    assert!(jobs.recv().await.is_none(), "a settler is still there");
}
