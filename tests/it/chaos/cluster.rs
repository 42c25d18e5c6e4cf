//! A cluster of three nodes loses the one that leads, again and again.

use std::{sync::Arc, time::Duration};

use interven_alerts::{
    model::Secret,
    stand_ins::{Platform, Script},
};
use tokio::time::sleep;

use super::{
    journal::{HEALED, Journal},
    oracle::{self, Evidence},
    press,
    stall::Watch,
};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{ALL_EVENTS, FAST, PATIENT, Scene},
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, WorkerProcess},
};

/// How long decisions are published when nobody asks for more: three nodes die in it.
const LENGTH: Duration = Duration::from_secs(24);

/// Which queue's leader is killed, in this order, again and again.
const LEADERS: [&str; 2] = ["decisions", "lane.limited"];

/// How long a killed node stays away: long enough for the others to elect, and to be short of one for a while.
const AWAY: Duration = Duration::from_secs(2);

/// How long all three nodes are there before the next one is killed: a node that comes back must catch up, for two must be left.
const TOGETHER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_the_node_that_leads_loses_nothing_else() {
    let _turn = turn_of_the_heavy().await;
    let (length, seed) = super::wishes();
    let length = length.max(LENGTH);
    let nodes: Vec<Arc<Rabbit>> =
        tokio::task::block_in_place(|| Rabbit::cluster(3).into_iter().map(Arc::new).collect());
    let mut scene = Scene::default();
    let quiet = "[channel.digest]\nenabled = false\n";
    scene.add("slack", Platform::Slack, Script::accept(), &format!("{ALL_EVENTS}{FAST}{PATIENT}{quiet}")).await;
    let limited = format!("{ALL_EVENTS}rate_limit = \"100/s\"\n{PATIENT}{quiet}");
    scene.add("limited", Platform::Discord, Script::accept(), &limited).await;
    let batched = format!("{ALL_EVENTS}batch = {{ events = 20, wait = \"100ms\" }}\n{PATIENT}");
    scene.add("splunk", Platform::Splunk, Script::accept(), &batched).await;
    let watched: Vec<_> = scene.actors.iter().map(|actor| (actor.id, Watch::on(&actor.stand_in))).collect();

    let prefix = unique_name("cluster");
    let urls: Vec<_> = nodes.iter().map(|node| node.url()).collect();
    let list: Vec<&str> = urls.iter().map(Secret::expose).collect();
    let mut workers: Vec<WorkerProcess> = (0..2)
        .map(|first: usize| {
            // Each begins at another node.
            let mut list = list.clone();
            list.rotate_left(first);
            let config = format!("[broker]\nurls = {list:?}\nprefix = \"{prefix}\"\n{}", scene.channels());
            WorkerProcess::new(&config).flags(&["--log-level", "info,interven_alerts=debug"])
        })
        .collect();
    for worker in &mut workers {
        worker.start_ready().await;
    }
    nodes[0].remember_queues().await;

    let mut publisher = Publisher::to_any(urls.clone(), &prefix);
    let journal = Journal::new();
    let publishing = press::publish(&mut publisher, seed, length, &journal);
    let killing = kill_leaders(&nodes, &prefix, length, &journal);
    let (ledger, ()) = tokio::join!(publishing, killing);
    journal.note(HEALED);
    let place = (&*nodes[0], &*prefix);
    let quiet = press::is_quiet_within(Duration::from_mins(2), &workers, &mut publisher, place, &journal).await;
    journal.note(if quiet { "it is quiet" } else { "it does not become quiet" });
    for worker in &mut workers {
        assert_eq!(worker.terminate().await.0, 0);
    }
    let evidence = Evidence {
        seed,
        ledger: &ledger,
        scene: &scene,
        watched: &watched,
        workers: &workers,
        publisher: &mut publisher,
        queues: &nodes[0].queues(&prefix).await,
        journal: &journal,
        quiet,
    };
    oracle::judge(evidence).await.assert_nothing_is_lost();
}

async fn kill_leaders(nodes: &[Arc<Rabbit>], prefix: &str, length: Duration, journal: &Journal) {
    for queue in LEADERS.into_iter().cycle() {
        sleep(TOGETHER).await;
        if journal.began().elapsed() >= length {
            return;
        }
        let name = format!("{prefix}.alerts.{queue}");
        let leader = eventually("the queue has a leader", PATIENCE, async || {
            let leader = nodes[0].leader_of(&name).await?;
            nodes.iter().find(|node| node.node() == leader)
        })
        .await;
        journal.note(format!("{}, which leads {queue}, is killed", leader.node()));
        let node = Arc::clone(leader);
        let suffering = tokio::task::spawn_blocking(move || {
            node.crash();
            std::thread::sleep(AWAY);
            node.boot();
        });
        suffering.await.unwrap();
        journal.note(format!("{} is there again", leader.node()));
    }
}
