//! Four workers on RabbitMQ.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{sync::Notify, time::Instant};

use super::{LONG, answer_all, asks, assert_one_answer, look, tokens, until_agreed, until_asked, with_status};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::on,
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, WorkerProcess},
};

const ANSWERS: usize = 200;
const WORKERS: usize = 4;
const HOUR: Duration = Duration::from_hours(1);

/// Four workers that are ready, the firewall's side of their broker, and the queue in which it waits for answers.
struct Stage {
    workers: Vec<WorkerProcess>,
    firewall: Publisher,
    queue: String,
}

impl Stage {
    async fn set(rabbit: &Rabbit, what: &str) -> Self {
        let prefix = unique_name(what);
        // What is asked for is remembered also where no decisions are kept.
        let config = format!("{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), tokens());
        let mut workers: Vec<_> = (0..WORKERS).map(|_| WorkerProcess::new(&config)).collect();
        join_all(workers.iter_mut().map(WorkerProcess::start_ready)).await;
        let mut firewall = Publisher::new(rabbit.url(), &prefix);
        let queue = format!("{prefix}.firewall");
        firewall.listen_for_answers(&queue).await;
        Self { workers, firewall, queue }
    }

    async fn ask(&mut self, approval: &str, tool: &str) {
        self.firewall.publish_surely(&[asks(approval, tool, HOUR)], PATIENCE).await;
        until_asked(&self.workers, approval).await;
    }

    async fn restart_all(&mut self) {
        for worker in &mut self.workers {
            assert_eq!(worker.terminate().await.0, 0);
        }
        join_all(self.workers.iter_mut().map(WorkerProcess::start_ready)).await;
    }

    /// Everything that the firewall got.
    async fn got(&mut self) -> Vec<Bytes> {
        let queue = self.queue.clone();
        eventually("the firewall reads its queue", PATIENCE, async || self.firewall.take_all(&queue).await).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_answers_over_four_workers_one_counts_everywhere_and_after_a_restart_of_all() {
    let _turn = turn_of_the_heavy().await;
    let mut stage = Stage::set(tokio::task::block_in_place(Rabbit::shared), "answers").await;
    stage.ask("apr-mixed", "slack").await;
    stage.ask("apr-granted", "github").await;
    let began = Instant::now();
    let given = answer_all(&stage.workers, "apr-mixed", ANSWERS, |_| {}).await;
    let took = began.elapsed();
    let (won, late) = (with_status(&given, 200), with_status(&given, 409));
    assert_eq!((won.len(), late.len()), (1, ANSWERS - 1), "{given:#?}");
    let said = until_agreed(&stage.workers, "apr-mixed").await;
    println!("{ANSWERS} answers in {took:?}, all agree after {:?}: {}", began.elapsed(), said["answer"]);
    assert_eq!(said["answer"]["by"]["name"], won[0].who);
    assert_eq!(said["answer"]["answer"], if won[0].answer == "approve" { "approved" } else { "denied" });
    for one in late {
        let error = &one.reply.as_ref().unwrap().1["error"];
        assert_eq!(error["code"], "already_answered", "{error}");
        let message = error["message"].as_str().unwrap();
        let named = message.contains(won[0].who) && message.contains(said["answer"]["answer"].as_str().unwrap());
        assert!(named, "who and what is not in: {message}");
    }
    // One that is surely a grant.
    let body = r#"{"answer":"approve"}"#;
    let (status, _) = stage.workers[1].api("POST", "/api/approvals/apr-granted", "token-of-analyst", body).await;
    assert_eq!(status, 200);
    let granted = until_agreed(&stage.workers, "apr-granted").await;
    stage.restart_all().await;
    for worker in &stage.workers {
        eventually("the log is read", PATIENCE, async || (look(worker, "apr-mixed").await.0 == 200).then_some(()))
            .await;
    }
    assert_eq!(until_agreed(&stage.workers, "apr-mixed").await, said);
    assert_eq!(until_agreed(&stage.workers, "apr-granted").await, granted);
    let got = stage.got().await;
    assert_one_answer(&of(&got, "apr-mixed"), &said, 1);
    assert_one_answer(&of(&got, "apr-granted"), &granted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_is_killed_among_answers_leaves_one_answer_and_the_others_publish_it() {
    let _turn = turn_of_the_heavy().await;
    let mut stage = Stage::set(tokio::task::block_in_place(Rabbit::shared), "killed").await;
    stage.ask("apr", "slack").await;
    let mut victim = stage.workers.remove(0);
    let (begun, others) = (Notify::new(), &stage.workers);
    let path = "/api/approvals/apr";
    let to_victim: Vec<_> = (0..ANSWERS / WORKERS)
        .map(|_| victim.asking("POST", path, "token-of-analyst", r#"{"answer":"approve"}"#))
        .collect();
    // The victim's come first, so that the winner may well be among them when it is killed.
    let of_victim = join_all(to_victim.into_iter().map(async |asking| {
        let reply = asking.await;
        begun.notify_one();
        reply
    }));
    let kill = async {
        begun.notified().await;
        victim.kill();
    };
    let rest = answer_all(others, "apr", ANSWERS - ANSWERS / WORKERS, |_| begun.notify_one());
    let (of_victim, given, ()) = tokio::join!(of_victim, rest, kill);
    let won = with_status(&given, 200).len() + of_victim.iter().flatten().filter(|(status, _)| *status == 200).count();
    let lost = of_victim.iter().filter(|reply| reply.is_none()).count();
    println!("{won} heard that they won, {lost} were not answered");
    assert!(won <= 1, "{won} winners");
    assert!(given.iter().all(|one| matches!(one.reply, Some((200 | 409, _)))), "{given:#?}");
    let said = until_agreed(&stage.workers, "apr").await;
    victim.start_ready().await;
    stage.workers.push(victim);
    until_asked(&stage.workers, "apr").await;
    assert_eq!(until_agreed(&stage.workers, "apr").await, said);
    // A copy for the one that was killed when the broker had it and the log had not.
    assert_one_answer(&stage.got().await, &said, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broker_that_crashes_among_answers_leaves_one_answer() {
    let _turn = turn_of_the_heavy().await;
    let rabbit = Arc::new(tokio::task::block_in_place(|| Rabbit::start("", "[].")));
    let mut stage = Stage::set(&rabbit, "crash").await;
    stage.ask("apr", "slack").await;
    stage.ask("apr-away", "github").await;
    rabbit.remember_queues().await;
    let crash = async {
        let rabbit = Arc::clone(&rabbit);
        let suffering = tokio::task::spawn_blocking(move || {
            rabbit.crash();
            std::thread::sleep(Duration::from_secs(1));
            rabbit.boot();
        });
        suffering.await.unwrap();
    };
    // Half of them while the broker dies, the rest while it is away: about the same approval, and about another one.
    let answers = async {
        let first = answer_all(&stage.workers, "apr", ANSWERS / 2, |_| {});
        let rest = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let away = answer_all(&stage.workers, "apr-away", ANSWERS / 4, |_| {});
            tokio::join!(answer_all(&stage.workers, "apr", ANSWERS / 4, |_| {}), away)
        };
        let (mut given, (more, away)) = tokio::join!(first, rest);
        given.extend(more);
        [("apr", given), ("apr-away", away)]
    };
    let (answers, ()) = tokio::join!(answers, crash);
    for (approval, given) in &answers {
        let count = |status| with_status(given, status).len();
        let silent = given.iter().filter(|one| one.reply.is_none()).count();
        println!("{approval}: 200: {}, 409: {}, 503: {}, none: {silent}", count(200), count(409), count(503));
        assert!(count(200) <= 1, "{given:#?}");
        assert_eq!(count(200) + count(409) + count(503) + silent, given.len(), "{given:#?}");
    }
    let mut all = Vec::new();
    for (approval, _) in &answers {
        // Those that were in doubt may all be lost; then the next one counts.
        eventually("somebody's answer counts", LONG, async || {
            let one = answer_all(&stage.workers[..1], approval, 1, |_| {}).await;
            matches!(one[0].reply, Some((200 | 409, _))).then_some(())
        })
        .await;
        all.push((*approval, until_agreed(&stage.workers, approval).await));
    }
    stage.restart_all().await;
    let got = stage.got().await;
    for (approval, said) in all {
        until_asked(&stage.workers, approval).await;
        assert_eq!(until_agreed(&stage.workers, approval).await, said);
        // Confirms that were lost with the connection are published again, with the same bytes.
        assert_one_answer(&of(&got, approval), &said, usize::MAX);
    }
}

/// The answers to this approval.
fn of(got: &[Bytes], approval: &str) -> Vec<Bytes> {
    let named = format!("\"approval_id\":\"{approval}\"");
    got.iter().filter(|body| String::from_utf8_lossy(body).contains(&named)).cloned().collect()
}
