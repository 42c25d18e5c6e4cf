//! What only the embedded broker can suffer: its own process killed, a second one on its directory, damage, a full disk.

use std::{io::BufRead, path::Path, process::Stdio, time::Duration};

use interven_alerts::{
    broker::{
        Broker, Destination, Log, PublishError, Queue, Start,
        embedded::{Embedded, EmbeddedSettings},
    },
    model::Clock,
};
use tokio_util::task::TaskTracker;

use super::bench::*;

async fn open(dir: &Path) -> Embedded {
    let settings = EmbeddedSettings { dir: dir.to_owned(), keep_decisions: None, lanes: vec![lane("soc")] };
    Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap()
}

/// Not a test of its own: what [`everything_confirmed_survives_a_killed_process`] starts and kills, in a directory that it
/// prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of another test"]
async fn child_that_publishes_until_it_is_killed() {
    assert!(Path::new("prepared").exists(), "this is the child of another test, not one to run by hand");
    let broker = open(Path::new("broker")).await;
    let mut arrivals = broker.consume(Queue::Decisions, window(8));
    for round in 0_usize.. {
        publish(&broker, &Destination::DecisionsExchange, round * 16..(round + 1) * 16).await;
        eprintln!("confirmed {}", (round + 1) * 16);
        // Half of it is consumed and settled meanwhile.
        for arrival in take(&mut arrivals, 8).await {
            let id = id(&arrival.body);
            arrival.receipt.settle();
            eprintln!("settled {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_confirmed_survives_a_killed_process() {
    // Goal: whatever was confirmed and not settled is there after kill -9.
    // Method: a child process publishes, settles and says so; kill it at a random moment; open its store here.
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prepared"), "").unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "broker::embedded::child_that_publishes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ]);
        command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().expect("the child says something").unwrap();
        assert!(first.starts_with("confirmed"), "{first}");
        // Read all the while: a child that waits for room in the pipe would be killed between a deed and the word of it.
        let said = std::thread::spawn(|| lines.map_while(Result::ok).chain([first]).collect::<Vec<String>>());
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..300))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let said = said.join().unwrap();
        let numbers = |what: &str| -> Vec<usize> {
            said.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
        };
        let confirmed = numbers("confirmed").into_iter().max().unwrap();
        let settled = numbers("settled");

        let broker = open(&dir.path().join("broker")).await;
        let expected = (0..confirmed).filter(|id| !settled.contains(id));
        let mut arrivals = broker.consume(Queue::Decisions, window(1000));
        drain(&mut arrivals, expected).await;
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_on_the_same_directory_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let settings = EmbeddedSettings { dir: dir.path().to_owned(), keep_decisions: None, lanes: vec![] };
    let error = Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert!(error.hint.contains("RabbitMQ"), "{}", error.hint);
    first.close().await;
    open(dir.path()).await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_starts_on_a_damaged_store_and_keeps_the_damaged_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("broker");
    let broker = open(&dir).await;
    publish(&broker, &Destination::DecisionsExchange, 0..500).await;
    broker.close().await;
    // The header of the file: nothing can be read without it.
    let mut bytes = std::fs::read(dir.join("db")).unwrap();
    bytes[..4096].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(dir.join("db"), bytes).unwrap();

    let broker = open(&dir).await;
    publish(&broker, &Destination::DecisionsExchange, 1000..1001).await;
    drain(&mut broker.consume(Queue::Decisions, window(1000)), 1000..1001).await;
    broker.close().await;
    let aside = std::fs::read_dir(root.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("broker.corrupt-"));
    assert_eq!(aside.count(), 1, "the damaged store is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_the_firewall_and_a_log_that_is_not_kept_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    publish(&broker, &Destination::ApprovalsExchange("approved.slack".into()), 0..3).await;
    for log in [Log::Decisions, Log::Deliveries] {
        publish(&broker, &Destination::Log(log), 0..3).await;
        assert!(read(&broker, log, Start::First).await.is_empty());
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_kept_for_as_long_as_they_should_be_and_no_longer() {
    // Goal: the log loses what is too old, also when it was written by an earlier run, and all of it when nothing is kept any
    // more. Method: open the same store at different times; each opening shortens the log.
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_hours(1);
    let open_at = async |minutes: u64, keep_decisions| {
        let from = interven_alerts::model::Timestamp::from_unix_millis(1_780_000_000_000);
        let clock = Clock::starting_at(from.plus(Duration::from_mins(minutes)));
        let settings = EmbeddedSettings { dir: dir.path().to_owned(), keep_decisions, lanes: Vec::new() };
        Embedded::open(settings, clock, &TaskTracker::new()).await.unwrap()
    };
    let holds = async |broker: &Embedded, count: usize| {
        crate::support::eventually(&format!("{count} are kept"), PATIENCE, async || {
            (read(broker, Log::Decisions, Start::First).await.len() == count).then_some(())
        })
        .await;
    };
    let log = Destination::Log(Log::Decisions);
    let broker = open_at(0, Some(hour)).await;
    // More than is removed in one step.
    for some in 0..9 {
        publish(&broker, &log, some * 500..(some + 1) * 500).await;
    }
    holds(&broker, 4_500).await;
    broker.close().await;
    let broker = open_at(50, Some(hour)).await;
    publish(&broker, &log, 9_000..9_010).await;
    holds(&broker, 4_510).await;
    broker.close().await;
    let broker = open_at(70, Some(hour)).await;
    holds(&broker, 10).await;
    assert!(read(&broker, Log::Decisions, Start::First).await.iter().all(|record| id(&record.body) >= 9_000));
    broker.close().await;
    let broker = open_at(71, None).await;
    assert!(read(&broker, Log::Decisions, Start::First).await.is_empty());
    // Another log says when a round was done that came after the shortening.
    publish(&broker, &Destination::Log(Log::Channels), 0..1).await;
    broker.close().await;
    let broker = open_at(71, Some(hour)).await;
    assert!(read(&broker, Log::Decisions, Start::First).await.is_empty());
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, to mount a small file system"]
async fn a_full_disk_is_an_error_until_there_is_space_again() {
    // Goal: nothing is lost or hangs when the disk is full, and it goes on when there is space.
    let root = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let done = std::process::Command::new("mount").args(arguments).arg(root.path()).status().unwrap();
        assert!(done.success(), "mount needs root");
    };
    mount(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"]);
    let broker = open(&root.path().join("broker")).await;
    publish(&broker, &Destination::DecisionsExchange, 0..10).await;
    let mut arrivals = broker.consume(Queue::Decisions, window(5));
    let held = take(&mut arrivals, 5).await;
    let ballast = root.path().join("ballast");
    let mut filled = None;
    for size in (1..60).rev() {
        if std::fs::write(&ballast, vec![1_u8; size << 20]).is_ok() {
            filled = Some(size);
            break;
        }
    }
    assert!(filled.is_some());
    let large = |id: usize| {
        let mut message = message(Destination::DecisionsExchange, id);
        message.body = vec![b'x'; 200 << 10].into();
        message
    };
    let refused =
        crate::support::eventually("the disk is full", PATIENCE, async || broker.publish(large(1)).await.err()).await;
    assert!(matches!(refused, PublishError::Storage { .. }), "{refused:?}");
    assert!(!broker.health().borrow().connected);
    for arrival in held {
        arrival.receipt.settle();
    }
    std::fs::remove_file(ballast).unwrap();
    crate::support::eventually("publishes pass again", PATIENCE, async || {
        broker.publish(message(Destination::DecisionsExchange, 77)).await.ok()
    })
    .await;
    let mut missing: std::collections::BTreeSet<_> = (5..10).chain([77]).collect();
    while !missing.is_empty() {
        let arrival = next(&mut arrivals).await;
        if arrival.body.starts_with(b"body of") {
            let id = id(&arrival.body);
            assert!(id >= 5, "{id} was settled while the disk was full, and came again");
            missing.remove(&id);
        }
        arrival.receipt.settle();
    }
    broker.close().await;
    assert!(std::process::Command::new("umount").arg(root.path()).status().unwrap().success());
}
