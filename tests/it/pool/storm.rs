//! A storm: more decisions than a chat could ever be told one by one. It is told in a handful of digests that count every decision
//! once, nobody who waits for an answer notices it, and a machine beside it gets every event.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};
use tokio::time::Instant;

use super::{NO_DIGESTS, SECOND, Stage, decision};
use crate::support::{
    eventually,
    scene::{ALL_EVENTS, PATIENT, Scene},
    turn_of_the_heavy,
    worker::PATIENCE,
};

/// What stands in every digest and in no card: the end of its headline.
const IN_DIGESTS: &str = " decisions";

/// Digests as they are by default.
const DIGESTS: &str = "digest = { over = 20 }\n";

/// `count` decisions of three agents; every `critical`th is CRITICAL (0: none).
fn storm(what: &str, count: usize, critical: usize) -> Vec<Bytes> {
    let one = |number: usize| {
        let severity = if critical > 0 && number.is_multiple_of(critical) { "CRITICAL" } else { "HIGH" };
        decision(&format!("{what}-{number}"), "DENY", severity, ["agt_1", "agt_2", "agt_3"][number % 3])
    };
    (0..count).map(one).collect()
}

/// What an endpoint was told of a storm.
#[derive(Debug)]
struct Told {
    /// In so many digests.
    digests: u64,
    /// By digests, as they count.
    folded: u64,
    /// By a card of their own, and how often.
    alone: HashMap<String, u32>,
}

impl Told {
    fn by(endpoint: &StandIn) -> Self {
        let counters = endpoint.counters();
        Self { digests: counters.digests, folded: counters.folded, alone: endpoint.received_ids() }
    }

    /// How many decisions, if each was told once.
    fn decisions(&self) -> u64 {
        self.folded + self.alone.len() as u64
    }

    fn alone_twice(&self) -> usize {
        self.alone.values().filter(|times| **times > 1).count()
    }
}

impl Stage {
    /// Publishes all of them at once. What is not confirmed may be there all the same, so it is not published again: that would be
    /// another count.
    async fn publish_once(&mut self, decisions: &[Bytes]) {
        for batch in decisions.chunks(500) {
            assert!(self.publisher.publish(batch).await, "a part of the storm was not confirmed");
        }
    }

    /// Waits until `soc` was told of so many decisions.
    async fn until_storm_told(&self, decisions: u64, limit: Duration) {
        let soc = self.soc();
        let told = async || (Told::by(soc).decisions() >= decisions).then_some(());
        eventually(&format!("{decisions} decisions are told"), limit, told).await;
    }

    /// How many deliveries to `soc` ended so, over all workers.
    async fn ended(&self, ending: &str) -> u64 {
        self.pool.sum("deliveries_total", &["channel=\"soc\"", &format!("ending=\"{ending}\"")]).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_denials_become_a_handful_of_digests_and_approvals_overtake_all_of_them() {
    // Goal: each approval is posted within 5 s of its publication, the storm is told within a minute, each decision once.
    // Method: two workers, a Slack channel as it is by default in front of an endpoint that takes exactly one a second, a SIEM beside
    // it; a thousand a second for ten seconds, and five approvals in their midst.
    const STORM: usize = 10_000;
    const APPROVALS: usize = 5;
    const PARTS: usize = 20;
    let _turn = turn_of_the_heavy().await;
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept().exact_rate(1, SECOND), DIGESTS).await;
    scene.add("siem", Platform::Siem, Script::accept(), ALL_EVENTS).await;
    let mut stage = Stage::with("storm", 2, scene).await;
    let denials = storm("storm", STORM, 0);

    let began = Instant::now();
    let mut published = Vec::new();
    let mut ticks = tokio::time::interval(SECOND / 2);
    for (number, part) in denials.chunks(STORM / PARTS).enumerate() {
        ticks.tick().await;
        stage.publish_once(part).await;
        if number % (PARTS / APPROVALS) == 2 {
            let id = format!("approval-{number}");
            stage.publish_once(&[decision(&id, "REQUIRE_APPROVAL", "HIGH", "agt_2")]).await;
            published.push((id, Instant::now()));
        }
    }
    let raged = began.elapsed();
    stage.until_storm_told((STORM + APPROVALS) as u64, Duration::from_mins(1)).await;
    let took = began.elapsed();
    stage.until_quiet().await;

    let told = Told::by(stage.soc());
    let kept = stage.soc().kept();
    let posted = |id: &String| kept.iter().find(|one| one.ids.contains(id)).map(|one| one.at);
    let waits: Vec<Duration> = published.iter().map(|(id, at)| posted(id).expect("it is told") - *at).collect();
    println!(
        "{STORM} denials published in {raged:.1?} and told in {took:.1?}: {} in {} digests, {} alone; approvals after {waits:.2?}",
        told.folded,
        told.digests,
        told.alone.len() - APPROVALS
    );
    assert!(took <= Duration::from_mins(1), "the storm took {took:?}");
    assert!(waits.iter().all(|wait| *wait <= 5 * SECOND), "approvals were posted after {waits:?}");
    assert!((1..=20).contains(&told.digests), "{} digests", told.digests);
    assert_eq!((told.decisions(), told.alone_twice()), ((STORM + APPROVALS) as u64, 0), "each decision is told once");
    assert_eq!((stage.ended("folded").await, stage.ended("delivered").await), (told.folded, told.alone.len() as u64));
    assert_eq!(stage.soc().counters().violations, 0);

    let siem = stage.scene.stand_in("siem");
    eventually("the SIEM has every event", PATIENCE, async || {
        (siem.different_ids() == STORM + APPROVALS).then_some(())
    })
    .await;
    assert!(siem.received_ids().values().all(|times| *times == 1), "the SIEM got events twice");
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_critical_is_told_one_by_one_in_the_midst_of_a_storm() {
    const STORM: usize = 600;
    const CRITICAL_EVERY: usize = 60;
    let _turn = turn_of_the_heavy().await;
    let script = Script::accept().exact_rate(5, SECOND);
    let mut stage =
        Stage::set("critical", 2, script, &format!("rate_limit = \"4/s\"\nburst = 1\n{DIGESTS}{PATIENT}")).await;
    stage.publish_once(&storm("critical", STORM, CRITICAL_EVERY)).await;
    stage.until_storm_told(STORM as u64, Duration::from_mins(1)).await;
    stage.until_quiet().await;
    let told = Told::by(stage.soc());
    println!("{} in {} digests, {} alone", told.folded, told.digests, told.alone.len());
    assert_eq!((told.decisions(), told.alone_twice()), (STORM as u64, 0), "each decision is told once");
    assert!(told.digests > 0, "there was no digest");
    for number in (0..STORM).step_by(CRITICAL_EVERY) {
        assert_eq!(stage.soc().times_received(&format!("critical-{number}")), 1, "critical-{number}");
    }
    assert_eq!(stage.ended("folded").await, told.folded);
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_that_the_endpoint_refuses_in_both_forms_is_told_one_by_one() {
    const STORM: usize = 60;
    let _turn = turn_of_the_heavy().await;
    let refuse = Step::Reply { reply: Reply::new(400, "invalid_blocks"), taken: false };
    let script = Script::accept().where_body_holds(IN_DIGESTS, refuse);
    let mut stage =
        Stage::set("unfold", 2, script, &format!("rate_limit = \"10/s\"\nburst = 1\n{DIGESTS}{PATIENT}")).await;
    stage.publish_once(&storm("unfold", STORM, 0)).await;
    stage.until_storm_told(STORM as u64, PATIENCE).await;
    stage.until_quiet().await;
    let refused: Vec<_> = stage.soc().kept().into_iter().filter(|one| one.status == Some(400)).collect();
    let plain = refused.iter().filter(|one| !one.body.windows(8).any(|part| part == b"\"blocks\"")).count();
    let told = Told::by(stage.soc());
    println!("{} refused, {plain} of them plain; {} alone", refused.len(), told.alone.len());
    assert!(plain > 0 && refused.len() > plain, "{} refused, {plain} of them plain", refused.len());
    assert_eq!((told.digests, told.alone.len(), told.alone_twice()), (0, STORM, 0));
    assert_eq!((stage.ended("folded").await, stage.ended("delivered").await), (0, STORM as u64));
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_overtakes_a_backlog_that_is_told_one_by_one_and_goes_on_doing_so_with_another_owner() {
    // Goal: 5 s, with many more waiting than a worker holds of its lane's queue. Method: at two a second the backlog takes minutes;
    // one approval while it waits, and one just before the worker that sends is killed.
    const BACKLOG: usize = 400;
    let _turn = turn_of_the_heavy().await;
    let keys = format!("rate_limit = \"2/s\"\nburst = 1\n{NO_DIGESTS}");
    let mut stage = Stage::set("overtake", 2, Script::accept(), &keys).await;
    stage.publish_once(&storm("overtake", BACKLOG, 0)).await;
    stage.until_handed_on().await;
    let mut waits = Vec::new();
    for id in ["approval-1", "approval-2"] {
        let owner = stage.pool.owner("soc").await;
        stage.publish_once(&[decision(id, "REQUIRE_APPROVAL", "HIGH", "agt_2")]).await;
        let published = Instant::now();
        if id == "approval-2" {
            stage.pool.kill(owner);
        }
        eventually("the approval is posted", PATIENCE, async || (stage.soc().times_received(id) > 0).then_some(()))
            .await;
        waits.push(published.elapsed());
    }
    let before = stage.soc().different_ids();
    println!("approvals after {waits:.2?}, with {} of {BACKLOG} told before", before - 2);
    assert!(waits.iter().all(|wait| *wait <= 5 * SECOND), "approvals were posted after {waits:?}");
    assert!(before < BACKLOG / 2, "{before} were told: there was nothing to overtake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_counted_exactly_while_all_of_its_workers_are_replaced() {
    // Goal: who leaves in order finishes the digest that is under way, and hands over the rest, so that nothing is counted twice.
    const STORM: usize = 4_000;
    const PARTS: usize = 8;
    let _turn = turn_of_the_heavy().await;
    let script = Script::accept().exact_rate(2, SECOND);
    let mut stage =
        Stage::set("relay", 2, script, &format!("rate_limit = \"2/s\"\nburst = 1\n{DIGESTS}{PATIENT}")).await;
    for (number, part) in storm("relay", STORM, 400).chunks(STORM / PARTS).enumerate() {
        stage.publish_once(part).await;
        if number % 2 == 1 {
            stage.until_taken("soc", stage.soc().counters().taken + 1).await;
            stage.pool.join().await;
            stage.pool.leave(0).await;
        }
    }
    stage.until_storm_told(STORM as u64, Duration::from_mins(1)).await;
    stage.until_quiet().await;
    let told = Told::by(stage.soc());
    println!("{} in {} digests, {} alone", told.folded, told.digests, told.alone.len());
    assert_eq!((told.decisions(), told.alone_twice()), (STORM as u64, 0), "each decision is told once");
    assert_eq!(stage.soc().counters().violations, 0);
    assert!(stage.pool.end().await.is_empty(), "there are dead letters");
}
