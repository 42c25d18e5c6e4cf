//! Live configuration: a changed file is taken over without dropping anything, a faulty one changes nothing, and what waits for a
//! removed channel is never forgotten.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::{DeathReason, Reply},
    stand_ins::{Platform, Script, StandIn, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, door, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess, post_events},
};

/// How long a changed file, and then the end of a removed channel, may take on a loaded machine.
const CHANGE: Duration = Duration::from_secs(90);

fn always(status: u16, body: &'static str) -> Script {
    Script::always(Step::Reply { reply: Reply::new(status, body), taken: false })
}

fn decisions(what: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|number| super::deny(&format!("{what}-{number}"))).collect()
}

fn channel(id: &str, stand_in: &StandIn) -> String {
    format!("[[channel]]\nid = \"{id}\"\n{}{FAST}{PATIENT}\n", door(Platform::Slack, stand_in))
}

/// One a line.
fn lines(decisions: &[Bytes]) -> String {
    String::from_utf8(decisions.join(&b"\n"[..])).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_adds_changes_and_removes_channels_while_deliveries_wait() {
    // Goal: a held channel whose URL is corrected gets everything that waited; a removed one's deliveries are dead; an added one
    // gets what comes from then on; and the one that did not change is not touched.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("reload"));
    let mut scene = Scene::default();
    for (id, script) in [
        ("stays", Script::accept()),
        ("broken", always(404, "no_service")),
        ("leaves", always(503, "down")),
        ("resting", always(404, "no_service")),
    ] {
        scene.add(id, Platform::Slack, script, &format!("{FAST}{PATIENT}")).await;
    }
    let broker = on(rabbit, &prefix, "");
    let mut worker = WorkerProcess::new(&format!("{broker}{}", scene.channels()));
    worker.start_ready().await;
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    publisher.publish_surely(&decisions("before", 20), PATIENCE).await;
    eventually("one is told, two are held, one waits", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let held = |id: &str| metrics.sum("lane_state", &[&format!("channel=\"{id}\""), "state=\"held\""]) == 1;
        let matched = metrics.sum("deliveries_matched_total", &[]) == 80;
        (matched && held("broken") && held("resting") && scene.stand_in("stays").different_ids() == 20).then_some(())
    })
    .await;
    let (right, joins) =
        (StandIn::start(Platform::Slack, Script::accept()), StandIn::start(Platform::Slack, Script::accept()));
    let (right, joins) = (right.await.unwrap(), joins.await.unwrap());
    let same = |id: &str| channel(id, scene.stand_in(id));
    worker.reconfigure(&format!(
        "{broker}{}{}{}{}",
        channel("joins", &joins),
        same("resting"),
        channel("broken", &right),
        same("stays"),
    ));
    eventually("what waited for the corrected channel is told", CHANGE, async || {
        (right.different_ids() == 20).then_some(())
    })
    .await;
    let dead = ["channel=\"leaves\"", "reason=\"channel_removed\""];
    eventually("what waited for the removed channel is dead, and its queue is gone", CHANGE, async || {
        let gone =
            !rabbit.ctl(&["list_queues", "name", "--silent"]).await.contains(&format!("{prefix}.alerts.lane.leaves"));
        (gone && worker.metrics().await.sum("dead_letters", &dead) == 20).then_some(())
    })
    .await;
    publisher.publish_surely(&decisions("after", 5), PATIENCE).await;
    eventually("all three have what came after", PATIENCE, async || {
        let told = (joins.different_ids(), right.different_ids(), scene.stand_in("stays").different_ids());
        (told == (5, 25, 25)).then_some(())
    })
    .await;
    let metrics = eventually("the numbers add up", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let ended = metrics.sum("deliveries_total", &["channel=\"leaves\"", "ending=\"dead\""]);
        (ended == metrics.sum("deliveries_matched_total", &["channel=\"leaves\""])).then_some(metrics)
    })
    .await;
    for gauge in ["lane_state", "deliveries_waiting"] {
        assert!(!metrics.shows(gauge, "channel=\"leaves\""), "{gauge} of a channel that is gone");
    }
    assert_eq!(metrics.sum("lane_state", &["channel=\"resting\"", "state=\"held\""]), 1, "a lane was touched");
    assert_eq!(scene.duplicates(), 0);
    assert_eq!(worker.terminate().await.0, 0);
    let letters = worker.dead_letters().await;
    assert_eq!(letters.len(), 20);
    for letter in letters {
        assert_eq!((letter.reason, letter.channel.unwrap().as_str()), (DeathReason::ChannelRemoved, "leaves"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_file_changes_nothing_and_is_told_and_a_signal_takes_the_mended_one() {
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let secret = "https://hooks.slack.com/services/T0/B0/aVerySecretPath12345";
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", scene.channels()));
    worker.start_ready().await;
    assert_eq!(worker.metrics().await.sum("config_last_reload_successful", &[]), 1);
    let more =
        format!("[[channel]]\nid = \"more\"\nkind = \"slack\"\nwebhook_url = \"{secret}\"\nevents = [\"INCIDENT\"]\n");
    worker.reconfigure(&format!("{PUBLISHER}{}{more}min_severity = \"GRAVE\"\nbirst = 3\n", scene.channels()));
    eventually("both faults are told, and that the old one stays", CHANGE, async || {
        let logs = worker.logs();
        let told = logs.contains("birst") && logs.contains("min_severity") && logs.contains("faulty and was refused");
        told.then_some(())
    })
    .await;
    eventually("the metrics say that it was refused", PATIENCE, async || {
        (worker.metrics().await.sum("config_last_reload_successful", &[]) == 0).then_some(())
    })
    .await;
    let told = post_events(&worker.server(), Some(PUBLISHER_TOKEN), lines(&decisions("old", 3))).await.unwrap();
    assert_eq!(told.0, 202, "{told:?}");
    eventually("the old configuration works", PATIENCE, async || (scene.taken() == 3).then_some(())).await;
    assert!(!worker.metrics().await.shows("lane_state", "channel=\"more\""));

    let grace = "[shutdown]\ngrace = \"20s\"\n";
    worker.reconfigure(&format!("{PUBLISHER}{grace}{}{more}", scene.channels()));
    worker.hang_up();
    eventually("the mended one is taken over", CHANGE, async || {
        worker.metrics().await.shows("lane_state", "channel=\"more\"").then_some(())
    })
    .await;
    eventually("and so do the metrics", PATIENCE, async || {
        (worker.metrics().await.sum("config_last_reload_successful", &[]) == 1).then_some(())
    })
    .await;
    eventually("what needs a restart is said", PATIENCE, async || {
        let logs = worker.logs();
        logs.lines()
            .any(|line| line.contains("WARN") && line.contains("[shutdown]") && line.contains("restart"))
            .then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    assert!(!worker.logs().contains("aVerySecretPath"), "a secret of a new configuration was printed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_rotated_in_its_file_is_taken_over() {
    let mut scene = Scene::default();
    scene.add("old", Platform::Slack, always(403, "invalid_token"), PATIENT).await;
    scene.add("new", Platform::Slack, Script::accept(), PATIENT).await;
    let text = format!(
        "{PUBLISHER}[[channel]]\nid = \"slack\"\nkind = \"slack\"\nwebhook_url_file = \"secret\"\n{FAST}{PATIENT}"
    );
    let mut worker = WorkerProcess::new(&text);
    let file = worker.dir().join("secret");
    std::fs::write(&file, scene.stand_in("old").url()).unwrap();
    worker.start_ready().await;
    let told = post_events(&worker.server(), Some(PUBLISHER_TOKEN), lines(&decisions("rotated", 3))).await.unwrap();
    assert_eq!(told.0, 202, "{told:?}");
    eventually("the channel is held", PATIENCE, async || {
        (worker.metrics().await.sum("lane_state", &["state=\"held\""]) == 1).then_some(())
    })
    .await;
    std::fs::write(&file, scene.stand_in("new").url()).unwrap();
    eventually("what waited is told", CHANGE, async || (scene.stand_in("new").different_ids() == 3).then_some(()))
        .await;
}

/// Lets deliveries of a channel wait, stops the worker, removes the channel, and starts the worker: they must be dead. Then the
/// channel comes back, and a replay brings them to it.
async fn removed_while_nobody_ran(broker: &str) {
    let mut scene = Scene::default();
    scene.add("stays", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    scene.add("leaves", Platform::Slack, always(503, "down"), &format!("{FAST}{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!("{broker}{PUBLISHER}{}", scene.channels()));
    worker.start_ready().await;
    let told = post_events(&worker.server(), Some(PUBLISHER_TOKEN), lines(&decisions("gone", 10))).await.unwrap();
    assert_eq!(told.0, 202, "{told:?}");
    eventually("one has them, for the other they wait", PATIENCE, async || {
        let metrics = worker.metrics().await;
        let waiting = metrics.sum("deliveries_waiting", &["channel=\"leaves\"", "where=\"lane_queue\""]);
        (waiting == 10 && scene.stand_in("stays").different_ids() == 10).then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    worker.reconfigure(&format!("{broker}{PUBLISHER}{}", channel("stays", scene.stand_in("stays"))));
    worker.start_ready().await;
    eventually("they are dead", CHANGE, async || {
        let metrics = worker.metrics().await;
        (metrics.sum("dead_letters_total", &["channel=\"leaves\"", "reason=\"channel_removed\""]) == 10).then_some(())
    })
    .await;
    eventually("the lane is gone", CHANGE, async || {
        worker.logs().contains("the lane of a removed channel is gone").then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    let letters = worker.dead_letters().await;
    assert!(
        letters.len() == 10 && letters.iter().all(|letter| letter.reason == DeathReason::ChannelRemoved),
        "{letters:?}"
    );
    scene.heal();
    worker.reconfigure(&format!("{broker}{PUBLISHER}{}", scene.channels()));
    let said = worker.command(&["dead-letters", "replay", "--channel", "leaves"], "").await;
    assert_eq!(said.code, 0, "{said:?}");
    worker.start_ready().await;
    eventually("the channel has them", PATIENCE, async || {
        (scene.stand_in("leaves").different_ids() == 10).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_channel_that_was_removed_while_no_worker_ran_is_dead() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("removed"));
    removed_while_nobody_ran(&on(rabbit, &prefix, "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_channel_that_was_removed_while_the_embedded_broker_was_closed_is_dead() {
    removed_while_nobody_ran("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deliveries_of_a_channel_that_another_worker_has_are_left_alone() {
    // Goal: a rolling restart with two configurations must not bury the other half's deliveries. Method: one worker has the
    // channel and cannot deliver; another one without it runs well beyond the time after which it would bury.
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("halves"));
    let mut scene = Scene::default();
    scene.add("shared", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    scene.add("mine", Platform::Slack, always(503, "down"), &format!("{FAST}{PATIENT}")).await;
    let broker = on(rabbit, &prefix, "");
    let mut one = WorkerProcess::new(&format!("{broker}{}", scene.channels()));
    one.start_ready().await;
    eventually("the lanes are written down", PATIENCE, async || {
        one.logs().contains("decisions are taken in").then_some(())
    })
    .await;
    Publisher::new(rabbit.url(), &prefix).publish_surely(&decisions("halves", 5), PATIENCE).await;
    eventually("they wait", PATIENCE, async || {
        (one.metrics().await.sum("deliveries_waiting", &["channel=\"mine\"", "lane_queue"]) == 5).then_some(())
    })
    .await;
    let mut other = WorkerProcess::new(&format!("{broker}{}", channel("shared", scene.stand_in("shared"))))
        .flags(&["--log-level", "debug"]);
    other.start_ready().await;
    eventually("it has looked, and left it alone", CHANGE, async || {
        let looks = other.logs().matches("is left alone").count();
        (looks >= 2).then_some(())
    })
    .await;
    scene.heal();
    eventually("they are told", PATIENCE, async || (scene.stand_in("mine").different_ids() == 5).then_some(())).await;
    assert_eq!(other.metrics().await.sum("dead_letters_total", &[]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_stops_working_and_a_new_one_works() {
    let mut scene = Scene::default();
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let auditor = token_of("auditor");
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}", scene.channels()));
    worker.start_ready().await;
    let event = || lines(&decisions("token", 1));
    assert_eq!(post_events(&worker.server(), Some(PUBLISHER_TOKEN), event()).await.unwrap().0, 202);
    assert_eq!(worker.api("GET", "/api/channels", "token-of-auditor", "").await.0, 401);
    worker.reconfigure(&format!("{auditor}{}", scene.channels()));
    worker.hang_up();
    eventually("the new token works", CHANGE, async || {
        (worker.api("GET", "/api/channels", "token-of-auditor", "").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(post_events(&worker.server(), Some(PUBLISHER_TOKEN), event()).await.unwrap().0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_a_whole_pool_removes_leaves_each_delivery_in_one_store_and_no_queue() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("together"));
    let mut scene = Scene::default();
    scene.add("stays", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    scene.add("leaves", Platform::Slack, always(503, "down"), &format!("{FAST}{PATIENT}")).await;
    let broker = on(rabbit, &prefix, "");
    let config = format!("{broker}{}", scene.channels());
    let mut pool = [WorkerProcess::new(&config), WorkerProcess::new(&config)];
    for worker in &mut pool {
        worker.start_ready().await;
    }
    Publisher::new(rabbit.url(), &prefix).publish_surely(&decisions("together", 40), PATIENCE).await;
    eventually("one has them all, and so they wait for the other", PATIENCE, async || {
        (scene.stand_in("stays").different_ids() == 40).then_some(())
    })
    .await;
    let dead = async |worker: &WorkerProcess| {
        worker.metrics().await.sum("dead_letters", &["channel=\"leaves\"", "reason=\"channel_removed\""])
    };
    for worker in &pool {
        worker.reconfigure(&format!("{broker}{}", channel("stays", scene.stand_in("stays"))));
        worker.hang_up();
    }
    eventually("each is in a store", CHANGE, async || {
        (dead(&pool[0]).await + dead(&pool[1]).await >= 40).then_some(())
    })
    .await;
    eventually("the queue is gone", CHANGE, async || {
        let listed = rabbit.ctl(&["list_queues", "name", "--silent"]).await;
        (!listed.contains(&format!("{prefix}.alerts.lane.leaves"))).then_some(())
    })
    .await;
    let mut letters = Vec::new();
    for worker in &mut pool {
        assert_eq!(worker.terminate().await.0, 0);
        letters.extend(worker.dead_letters().await);
    }
    let mut ids: Vec<String> = letters.into_iter().filter_map(|letter| letter.decision_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_changes_while_the_broker_is_away_is_taken_over_and_works_when_it_is_back() {
    let rabbit = tokio::task::block_in_place(|| Rabbit::start("", "[]."));
    let mut scene = Scene::default();
    scene.add("leaves", Platform::Slack, always(503, "down"), &format!("{FAST}{PATIENT}")).await;
    let broker = on(&rabbit, "interven", "");
    let mut worker = WorkerProcess::new(&format!("{broker}{}", scene.channels()));
    worker.start_ready().await;
    Publisher::new(rabbit.url(), "interven").publish_surely(&decisions("away", 5), PATIENCE).await;
    eventually("they wait in the lane's queue", PATIENCE, async || {
        let waiting = worker.metrics().await.sum("deliveries_waiting", &["where=\"lane_queue\""]);
        (waiting == 5).then_some(())
    })
    .await;
    rabbit.remember_queues().await;
    rabbit.crash();
    eventually("the broker is away", PATIENCE, async || {
        (worker.metrics().await.sum("broker_connected", &[]) == 0).then_some(())
    })
    .await;
    let joins = StandIn::start(Platform::Slack, Script::accept()).await.unwrap();
    worker.reconfigure(&format!("{broker}{}", channel("joins", &joins)));
    worker.hang_up();
    eventually("it is taken over", CHANGE, async || {
        worker.logs().contains("the new configuration was taken over").then_some(())
    })
    .await;
    tokio::task::block_in_place(|| rabbit.boot());
    worker.until_ready(Duration::from_mins(1)).await;
    Publisher::new(rabbit.url(), "interven").publish_surely(&decisions("back", 5), PATIENCE).await;
    eventually("the added channel has what came", CHANGE, async || (joins.different_ids() == 5).then_some(())).await;
    eventually("what waited for the removed one is dead", CHANGE, async || {
        (worker.metrics().await.sum("dead_letters", &["channel=\"leaves\"", "reason=\"channel_removed\""]) == 5)
            .then_some(())
    })
    .await;
}
