//! Two hundred people click at once, on four workers: one of them has answered.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, StandIn, Step},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{LOOKS, Press, asks, client, live, until_agreed, until_ended, until_live};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{Scene, on, token_of},
    turn_of_the_heavy, unique_name,
    worker::{PATIENCE, WorkerProcess},
};

const CLICKS: usize = 200;
const WORKERS: usize = 4;
const APPROVAL: &str = "apr-storm";

/// Longer than any worker leaves a card to the one that took the click.
const OTHERS_WAIT: Duration = Duration::from_secs(21);

struct Stage {
    scene: Scene,
    workers: Vec<WorkerProcess>,
    firewall: Publisher,
    queue: String,
    client: reqwest::Client,
}

impl Stage {
    /// Four workers that are ready, and one card in front of them.
    async fn set(rabbit: &Rabbit, what: &str) -> Self {
        let mut scene = Scene::default();
        scene.add("soc", Platform::Slack, Script::accept(), &live()).await;
        let prefix = unique_name(what);
        let config =
            format!("{}{}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), token_of("auditor"), scene.channels());
        let mut workers: Vec<_> = (0..WORKERS).map(|_| WorkerProcess::new(&config)).collect();
        join_all(workers.iter_mut().map(WorkerProcess::start_ready)).await;
        let (mut firewall, queue) = (Publisher::new(rabbit.url(), &prefix), format!("{prefix}.firewall"));
        firewall.listen_for_answers(&queue).await;
        firewall.publish_surely(&[asks(APPROVAL, Duration::from_hours(1))], PATIENCE).await;
        Self { scene, workers, firewall, queue, client: client() }
    }

    fn slack(&self) -> &StandIn {
        self.scene.stand_in("soc")
    }

    /// So many different people click on the card, every other one to deny.
    async fn presses(&self) -> Vec<Press> {
        let card = until_live(self.slack(), APPROVAL).await;
        let answer = |number: usize| if number.is_multiple_of(2) { "approve" } else { "deny" };
        (0..CLICKS).map(|number| Press::on(self.slack(), &card, answer(number), &format!("U{number}"))).collect()
    }

    /// Everything that the firewall got.
    async fn got(&mut self) -> Vec<Value> {
        let queue = self.queue.clone();
        let got: Vec<Bytes> =
            eventually("the firewall reads its queue", PATIENCE, async || self.firewall.take_all(&queue).await).await;
        got.iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }

    /// The card's name, and what it says at last: who has answered.
    async fn until_told(&self, won: &Press) -> String {
        let ts = self.slack().wall().messages()[0].ts.clone();
        let words = format!("`{}`) at ", won.user);
        let card = until_ended(self.slack(), &ts, &words).await;
        let text = card.now()["text"].as_str().unwrap().to_owned();
        assert!(text.to_lowercase().contains(&format!("{} by", won.past())), "{text}");
        text
    }
}

/// The click that is the answer, by what the workers say of it.
fn winner<'p>(presses: &'p [Press], said: &Value) -> &'p Press {
    let won = presses.iter().find(|one| said["answer"]["by"]["id"] == one.user.as_str()).expect("one of ours won");
    assert_eq!((&said["answer"]["answer"], &said["answer"]["via"]), (&won.past().into(), &"slack".into()));
    won
}

/// All that the firewall got is this answer.
fn assert_one_answer(got: &[Value], won: &Press) {
    assert!(!got.is_empty() && got.iter().all(|one| one == &got[0]), "{got:#?}");
    assert_eq!((&got[0]["answer"], &got[0]["by"]["id"]), (&won.past().into(), &won.user.as_str().into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_clicks_on_four_workers_one_answers_and_the_others_are_told_who_was_faster() {
    // Goal: one answer for the firewall, the same on every worker; 199 private replies that name the winner; the card replaced once.
    let _turn = turn_of_the_heavy().await;
    let mut stage = Stage::set(tokio::task::block_in_place(Rabbit::shared), "storm").await;
    let presses = stage.presses().await;
    let began = Instant::now();
    let posts = presses.iter().enumerate().map(|(at, press)| press.post(&stage.client, &stage.workers[at % WORKERS]));
    let statuses = join_all(posts).await;
    println!("{CLICKS} clicks were taken in {:?}", began.elapsed());
    assert!(statuses.iter().all(|status| *status == Some(200)), "{statuses:?}");
    let said = until_agreed(&stage.workers, APPROVAL).await;
    let won = winner(&presses, &said);
    stage.until_told(won).await;
    let wall = stage.slack().wall();
    let told = async || (wall.whispers().len() >= CLICKS - 1).then_some(());
    eventually("everybody else is told", Duration::from_mins(1), told).await;
    println!("everybody was told within {:?}", began.elapsed());
    // Nobody replaces the card again, although every worker knows of the click.
    tokio::time::sleep(OTHERS_WAIT.saturating_sub(began.elapsed())).await;
    let whispers = wall.whispers();
    assert_eq!(whispers.len(), CLICKS - 1);
    let told: HashSet<&str> = whispers.iter().map(|(path, _)| path.as_str()).collect();
    assert!(told.len() == CLICKS - 1 && !told.contains(won.path.as_str()), "somebody was told twice, or the winner");
    let name = format!("`{0}.name` (`{0}`)", won.user);
    assert!(whispers.iter().all(|(_, text)| text.contains(&name)), "{whispers:?}");
    let card = &wall.messages()[0];
    assert_eq!(card.versions.len(), 2, "posted, and replaced once: {:#?}", card.versions);
    let got = stage.got().await;
    assert_eq!(got.len(), 1, "{got:#?}");
    assert_one_answer(&got, won);
    for worker in &mut stage.workers {
        assert_eq!(worker.terminate().await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clicks_survive_a_worker_that_is_killed_among_them() {
    // Goal: exactly one answer, everybody alive agrees, and whoever got no answer clicks again and gets one.
    // Method: one of the four is killed when ten clicks have come back.
    let _turn = turn_of_the_heavy().await;
    let mut stage = Stage::set(tokio::task::block_in_place(Rabbit::shared), "killed").await;
    let mut presses = stage.presses().await;
    let mut under_way: FuturesUnordered<_> = presses
        .iter()
        .enumerate()
        .map(|(at, press)| {
            let posting = press.post(&stage.client, &stage.workers[at % WORKERS]);
            async move { (at, posting.await) }
        })
        .collect();
    let (mut back, mut unheard) = (0, Vec::new());
    while let Some((at, status)) = under_way.next().await {
        back += 1;
        if back == 10 {
            stage.workers[0].kill();
        }
        if status != Some(200) {
            unheard.push(at);
        }
    }
    drop(under_way);
    println!("{} clicks got no answer", unheard.len());
    stage.workers.remove(0);
    // Those who saw Slack's warning click again, if the card still lets them.
    let live = stage.slack().wall().messages()[0].clone();
    if !live.buttons().is_empty() {
        for at in unheard {
            let again = Press::on(stage.slack(), &live, presses[at].answer, &presses[at].user);
            assert_eq!(again.post(&stage.client, &stage.workers[at % stage.workers.len()]).await, Some(200));
            presses.push(again);
        }
    }
    let said = until_agreed(&stage.workers, APPROVAL).await;
    let won = winner(&presses, &said);
    stage.until_told(won).await;
    assert_one_answer(&stage.got().await, won);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clicks_survive_a_broker_that_crashes_among_them() {
    // Goal: exactly one answer, everybody agrees, nobody's click is lost in silence: it is refused, or answered privately, or won.
    // Method: half of them click while the broker dies, half while it is dead; whoever still sees buttons afterwards clicks again.
    let _turn = turn_of_the_heavy().await;
    let rabbit = Arc::new(tokio::task::block_in_place(|| Rabbit::start("", "[].")));
    let mut stage = Stage::set(&rabbit, "crash").await;
    let mut presses = stage.presses().await;
    rabbit.remember_queues().await;
    let post_all = async |half: &[Press]| {
        join_all(half.iter().enumerate().map(|(at, press)| press.post(&stage.client, &stage.workers[at % WORKERS])))
            .await
    };
    let dying = Arc::clone(&rabbit);
    let crash = tokio::task::spawn_blocking(move || dying.crash());
    let mut statuses = post_all(&presses[..CLICKS / 2]).await;
    crash.await.unwrap();
    statuses.extend(post_all(&presses[CLICKS / 2..]).await);
    let booting = Arc::clone(&rabbit);
    tokio::task::spawn_blocking(move || booting.boot()).await.unwrap();
    assert!(statuses.iter().all(|status| matches!(status, Some(200 | 503))), "{statuses:?}");
    let taken: Vec<usize> = (0..CLICKS).filter(|at| statuses[*at] == Some(200)).collect();
    println!("{} of {CLICKS} clicks were taken", taken.len());
    let ts = stage.slack().wall().messages()[0].ts.clone();
    let mut number = 0;
    // Those who were taken are told within the time that a worker tries to record a click.
    eventually("the card is answered", Duration::from_mins(2), async || {
        let card = stage.slack().wall().messages().into_iter().find(|one| one.ts == ts)?;
        if card.buttons().is_empty() {
            return Some(());
        }
        number += 1;
        let again = Press::on(stage.slack(), &card, "approve", &format!("UAGAIN{number}"));
        again.post(&stage.client, &stage.workers[number % WORKERS]).await;
        presses.push(again);
        tokio::time::sleep(Duration::from_millis(500)).await;
        None
    })
    .await;
    let said = until_agreed(&stage.workers, APPROVAL).await;
    let won = winner(&presses, &said);
    stage.until_told(won).await;
    assert_one_answer(&stage.got().await, won);
    // Whoever saw no warning and did not win was told something.
    let unheard = async || {
        let whispers = stage.slack().wall().whispers();
        let told: HashSet<&str> = whispers.iter().map(|(path, _)| path.as_str()).collect();
        let heard = |press: &Press| press.path == won.path || told.contains(press.path.as_str());
        taken.iter().all(|at| heard(&presses[*at])).then_some(())
    };
    eventually("every click that was taken is answered", Duration::from_mins(1), unheard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_card_is_made_anew_although_the_worker_that_took_the_click_dies_before_it_could() {
    // Method: Slack takes no replacement until the worker that took the only click is dead.
    let mut stage = Stage::set(tokio::task::block_in_place(Rabbit::shared), "heir").await;
    let card = until_live(stage.slack(), APPROVAL).await;
    let busy = Step::Reply { reply: Reply::new(503, "busy"), taken: false };
    stage.slack().set_script(Script::accept().where_body_holds("replace_original\":true", busy));
    let press = Press::on(stage.slack(), &card, "approve", "U7");
    assert_eq!(press.post(&stage.client, &stage.workers[0]).await, Some(200));
    let tried = async || stage.slack().kept().iter().any(|one| one.path == press.path).then_some(());
    eventually("the worker tries", PATIENCE, tried).await;
    stage.workers.remove(0).kill();
    let said = until_agreed(&stage.workers, APPROVAL).await;
    assert_eq!(said["answer"]["by"]["id"], "U7");
    assert!(!stage.slack().wall().messages()[0].buttons().is_empty(), "nobody could replace it");
    stage.slack().set_script(Script::accept());
    stage.until_told(&press).await;
    assert_one_answer(&stage.got().await, &press);
    // All know it, also who is asked now.
    let (status, _) = stage.workers[2].api("GET", &format!("/api/approvals/{APPROVAL}"), LOOKS, "").await;
    assert_eq!(status, 200);
}
