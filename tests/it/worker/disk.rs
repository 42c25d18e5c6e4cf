//! A full disk under the dead-letter store: letters wait on the broker, the probes say so, and nothing is lost.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::{DeathReason, Reply},
    stand_ins::{Platform, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{FAST, PATIENT, Scene, on},
    tmpfs::Tmpfs,
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_dead_letters_wait_on_the_broker_and_come_into_the_store_when_there_is_room() {
    let Some(disk) = Tmpfs::mount(48) else { return };
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("disk"));
    let mut scene = Scene::default();
    let refuse = Step::Reply { reply: Reply::new(400, "invalid_payload"), taken: false };
    let script = Script::accept().where_body_holds("refuse-", refuse);
    scene.add("slack", Platform::Slack, script, &format!("{FAST}{PATIENT}")).await;
    let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
    let mut worker = WorkerProcess::with_data_dir(&config, Some(&disk.path().join("data")));
    worker.start_ready().await;
    disk.fill();

    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    let mut messages: Vec<Bytes> = (0..20).map(|number| super::deny(&format!("refuse-{number}"))).collect();
    messages.extend((0..20).map(|number| Bytes::from(format!("malformed {number}"))));
    // What is fine is told, disk or no disk.
    messages.extend((0..20).map(|number| super::deny(&format!("fine-{number}"))));
    publisher.publish_surely(&messages, PATIENCE).await;
    let dead = format!("{prefix}.alerts.dead");
    eventually("the letters wait on the broker", PATIENCE, async || {
        (publisher.ready_in(&dead).await == Some(40)).then_some(())
    })
    .await;
    let (status, says) = worker.probe("/readyz").await.unwrap();
    assert!(status == 503 && says.contains("store"), "{status} {says}");
    assert_eq!(worker.probe("/livez").await.map(|(status, _)| status), Some(200));
    eventually("the rest is told and acknowledged", PATIENCE, async || {
        let done = scene.taken() == 20 && worker.metrics().await.sum("acks_waiting", &[]) == 0;
        done.then_some(())
    })
    .await;

    // A worker that is started on a full disk works all the same.
    assert_eq!(worker.terminate().await.0, 0);
    worker.start().await;
    publisher.publish_surely(&[super::deny("fine-last")], PATIENCE).await;
    eventually("it is told", PATIENCE, async || (scene.taken() == 21).then_some(())).await;

    disk.free();
    worker.until_ready(Duration::from_mins(1)).await;
    eventually("the letters come into the store", Duration::from_mins(1), async || {
        let metrics = worker.metrics().await;
        (metrics.sum("dead_letters", &[]) == 40 && publisher.ready_in(&dead).await == Some(0)).then_some(())
    })
    .await;
    assert_eq!(worker.terminate().await.0, 0);
    let letters = worker.dead_letters().await;
    let count = |reason| letters.iter().filter(|letter| letter.reason == reason).count();
    assert_eq!((letters.len(), count(DeathReason::Refused), count(DeathReason::Malformed)), (40, 20, 20));
    assert_eq!(scene.duplicates(), 0);
}
