//! Cards that a bot posted change whoever answers, wherever, and when nobody does.

use std::time::Duration;

use futures_util::future::join_all;
use interven_alerts::{
    model::{Clock, Reply},
    stand_ins::{Options, Platform, Script, StandIn, Step},
};

use super::{ANSWERS, Press, asks, client, live, look, until_agreed, until_ended, until_live};
use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, WorkerProcess},
};

const HOUR: Duration = Duration::from_hours(1);

/// Long enough for a card to be posted on a busy machine, and short enough to wait for.
const SOON: Duration = Duration::from_secs(20);

struct Stage {
    scene: Scene,
    workers: Vec<WorkerProcess>,
    firewall: Publisher,
}

impl Stage {
    async fn set(what: &str, size: usize) -> Self {
        let mut scene = Scene::default();
        let options = Options { credential: Some(String::from("xoxb-the-bot")), ..Options::default() };
        let slack = StandIn::start_with(Platform::Slack, Script::accept(), options).await.unwrap();
        let keys = format!(
            "kind = \"slack\"\nbot_token = \"xoxb-the-bot\"\nchannel = \"C024BE91L\"\napi_url = \"{}/api\"\n{}",
            slack.base_url(),
            live()
        );
        scene.add_with_door("soc", slack, &keys);
        let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name(what));
        let tokens = ["auditor", "analyst"].map(token_of).concat();
        let config = format!("{}{tokens}{}", on(rabbit, &prefix, "keep_decisions = \"none\""), scene.channels());
        let mut workers: Vec<_> = (0..size).map(|_| WorkerProcess::new(&config)).collect();
        join_all(workers.iter_mut().map(WorkerProcess::start_ready)).await;
        let mut firewall = Publisher::new(rabbit.url(), &prefix);
        firewall.listen_for_answers(&format!("{prefix}.firewall")).await;
        Self { scene, workers, firewall }
    }

    fn slack(&self) -> &StandIn {
        self.scene.stand_in("soc")
    }

    async fn ask(&mut self, approval: &str, lasts: Duration) {
        self.firewall.publish_surely(&[asks(approval, lasts)], PATIENCE).await;
    }

    async fn until_asked(&self, approval: &str) {
        for worker in &self.workers {
            let known = async || (look(worker, approval).await.0 == 200).then_some(());
            eventually("the approval is known", PATIENCE, known).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bots_card_tells_of_an_answer_from_anywhere_and_of_none() {
    let mut stage = Stage::set("bot", 2).await;
    stage.ask("apr-clicked", HOUR).await;
    let clicked = until_live(stage.slack(), "apr-clicked").await;
    let press = Press::on(stage.slack(), &clicked, "deny", "U7");
    assert_eq!(press.post(&client(), &stage.workers[1]).await, Some(200));
    until_ended(stage.slack(), &clicked.ts, "Denied by `U7.name` (`U7`)").await;

    stage.ask("apr-api", HOUR).await;
    let by_api = until_live(stage.slack(), "apr-api").await;
    stage.until_asked("apr-api").await;
    let answer = r#"{"answer":"approve"}"#;
    let (status, said) = stage.workers[0].api("POST", "/api/approvals/apr-api", ANSWERS, answer).await;
    assert_eq!(status, 200, "{said}");
    let card = until_ended(stage.slack(), &by_api.ts, "Approved by `the-analyst`").await;
    assert!(card.now().to_string().contains("over the API"), "{:#}", card.now());
    // Whoever clicks in Slack is told that it was answered elsewhere.
    let late = Press::on(stage.slack(), &by_api, "deny", "U8");
    assert_eq!(late.post(&client(), &stage.workers[1]).await, Some(200));
    let told = async || stage.slack().wall().whispers().into_iter().find(|(path, _)| *path == late.path);
    let (_, text) = eventually("the late one is told", PATIENCE, told).await;
    assert!(text.contains("*Approved* by `the-analyst`") && text.contains("over the API"), "{text}");

    stage.ask("apr-nobody", SOON).await;
    let expired = until_live(stage.slack(), "apr-nobody").await;
    until_ended(stage.slack(), &expired.ts, "nobody answered in time").await;
    let press = Press::on(stage.slack(), &expired, "approve", "U9");
    assert_eq!(press.post(&client(), &stage.workers[0]).await, Some(200));
    let told = async || stage.slack().wall().whispers().into_iter().find(|(path, _)| *path == press.path);
    let (_, text) = eventually("the one who came too late is told", PATIENCE, told).await;
    assert!(text.contains("*Expired* at "), "{text}");
    assert_eq!(look(&stage.workers[1], "apr-nobody").await.1["state"], "expired");

    // The audit tells of an answer in the same words, wherever it was given.
    for (worker, words) in [
        (1, ["\"what\":\"deny\"", "\"via\":\"slack\"", "\"who\":\"U7\"", "\"outcome\":\"done\""]),
        (0, ["\"what\":\"approve\"", "\"via\":\"token\"", "\"who\":\"the-analyst\"", "\"outcome\":\"done\""]),
        (
            1,
            [
                "\"what\":\"deny\"",
                "\"via\":\"slack\"",
                "\"who\":\"U8\"",
                "\"outcome\":\"too late: it was answered already\"",
            ],
        ),
    ] {
        let told = |line: &str| line.contains("interven_alerts::audit") && words.iter().all(|word| line.contains(word));
        let logged = async || stage.workers[worker].logs().lines().any(told).then_some(());
        eventually(&format!("{words:?} are in the audit"), PATIENCE, logged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_ends_while_no_worker_runs_or_slack_is_away_is_told_afterwards() {
    let mut stage = Stage::set("absent", 1).await;
    stage.ask("apr-absent", SOON).await;
    stage.ask("apr-broken", HOUR).await;
    let absent = until_live(stage.slack(), "apr-absent").await;
    let broken = until_live(stage.slack(), "apr-broken").await;
    stage.until_asked("apr-broken").await;
    // Slack takes no changes while the one is answered, and the worker is gone when the other's time is over.
    let away = Step::Reply { reply: Reply::new(503, ""), taken: false };
    stage.slack().set_script(Script::accept().where_body_holds("\"ts\":", away));
    let (status, said) =
        stage.workers[0].api("POST", "/api/approvals/apr-broken", ANSWERS, r#"{"answer":"deny"}"#).await;
    assert_eq!(status, 200, "{said}");
    until_agreed(&stage.workers, "apr-broken").await;
    let tried = async || stage.slack().kept().iter().any(|one| one.path.ends_with("chat.update")).then_some(());
    eventually("the worker tries to change the card", PATIENCE, tried).await;
    assert_eq!(stage.workers[0].terminate().await.0, 0);
    // It was asked before now.
    let end = Clock::System.now().plus(SOON);
    eventually("its time is over", PATIENCE, async || (Clock::System.now() > end).then_some(())).await;
    stage.slack().set_script(Script::accept());
    stage.workers[0].start_ready().await;
    until_ended(stage.slack(), &absent.ts, "nobody answered in time").await;
    until_ended(stage.slack(), &broken.ts, "Denied by `the-analyst`").await;
}
