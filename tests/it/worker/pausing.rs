//! An operator pauses a channel: it holds in the whole pool and over restarts, until somebody resumes it.

use std::time::Duration;

use bytes::Bytes;
use interven_alerts::{
    model::Reply,
    stand_ins::{Platform, Script, Step},
};

use crate::support::{
    eventually,
    firewall::Publisher,
    rabbit::Rabbit,
    scene::{FAST, PATIENT, PUBLISHER, PUBLISHER_TOKEN, Scene, on, token_of},
    unique_name,
    worker::{PATIENCE, Said, WorkerProcess, post_events},
};

const TOKEN: &str = "INTERVEN_ALERTS_TOKEN";

fn decisions(what: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|number| super::deny(&format!("{what}-{number}"))).collect()
}

fn tokens() -> String {
    ["auditor", "analyst", "admin"].map(token_of).concat()
}

/// Waits until the worker says that the lane of `soc` is in this state.
async fn until(worker: &WorkerProcess, state: &str) -> serde_json::Value {
    eventually(state, PATIENCE, async || {
        let (status, channel) = worker.api("GET", "/api/channels/soc", "token-of-auditor", "").await;
        assert_eq!(status, 200, "{channel}");
        (channel["state"] == state && channel["why"] != "the worker waits for the broker").then_some(channel)
    })
    .await
}

/// Runs `channels ...` with the analyst's token, asking `worker`.
async fn channels(worker: &WorkerProcess, arguments: &[&str], servers: &str) -> Said {
    let arguments = [&["channels"], arguments].concat();
    worker.command_with(&arguments, "", &[(TOKEN, "token-of-analyst"), ("INTERVEN_ALERTS_SERVER", servers)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_in_the_whole_pool_and_after_a_restart_of_all_of_it_until_it_is_resumed() {
    let (rabbit, prefix) = (tokio::task::block_in_place(Rabbit::shared), unique_name("pause"));
    let mut scene = Scene::default();
    for id in ["soc", "other"] {
        scene.add(id, Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    }
    let config = format!("{}{}{}", on(rabbit, &prefix, ""), tokens(), scene.channels());
    let mut pool = [WorkerProcess::new(&config), WorkerProcess::new(&config)];
    for worker in &mut pool {
        worker.start_ready().await;
        until(worker, "flowing").await;
    }
    // The first server of the list is not there; the next one is asked instead.
    let servers = format!("http://127.0.0.1:1,{}", pool[0].server());
    let said = channels(&pool[0], &["pause", "soc", "--why", "a quiet\nnight"], &servers).await;
    assert_eq!((said.code, said.out.as_str()), (0, "soc: stopped\n"), "{said:?}");
    for worker in &pool {
        let channel = until(worker, "stopped").await;
        assert_eq!((&channel["paused_by"]["name"], &channel["why"]), (&"the-analyst".into(), &"a quiet night".into()));
    }
    let mut publisher = Publisher::new(rabbit.url(), &prefix);
    publisher.publish_surely(&decisions("first", 20), PATIENCE).await;
    let told = async |count: usize| {
        let other = scene.stand_in("other");
        eventually("the other channel has them", PATIENCE, async || (other.different_ids() == count).then_some(()))
            .await;
        assert_eq!(scene.stand_in("soc").counters().requests, 0, "a paused channel was posted to");
    };
    told(20).await;
    for worker in &mut pool {
        assert_eq!(worker.terminate().await.0, 0);
    }
    for worker in &mut pool {
        worker.start_ready().await;
    }
    for worker in &pool {
        until(worker, "stopped").await;
    }
    publisher.publish_surely(&decisions("second", 5), PATIENCE).await;
    told(25).await;
    let said = channels(&pool[1], &["resume", "soc", "--json"], &pool[1].server()).await;
    assert_eq!((said.code, &said.json()[0]["state"]), (0, &"flowing".into()), "{said:?}");
    eventually("everything flows", PATIENCE, async || (scene.stand_in("soc").different_ids() == 25).then_some(()))
        .await;
    for worker in &pool {
        until(worker, "flowing").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_on_the_embedded_broker_survives_kill_9_and_a_new_configuration() {
    let mut scene = Scene::default();
    for id in ["soc", "other"] {
        scene
            .add(id, Platform::Slack, Script::accept(), &format!("rate_limit = \"500/s\"\nburst = 50\n{PATIENT}"))
            .await;
    }
    let config = format!("{PUBLISHER}{}{}", tokens(), scene.channels());
    let mut worker = WorkerProcess::new(&config);
    worker.start_ready().await;
    let (status, channel) = worker.api("POST", "/api/channels/soc/pause", "token-of-admin", "").await;
    assert_eq!((status, &channel["state"]), (200, &"stopped".into()), "{channel}");
    let body = String::from_utf8(decisions("kill", 10).join(&b"\n"[..])).unwrap();
    let answer = post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await.unwrap();
    assert_eq!(answer.0, 202, "{answer:?}");
    worker.kill();
    worker.start_ready().await;
    eventually("the other channel has them", PATIENCE, async || {
        (scene.stand_in("other").different_ids() == 10).then_some(())
    })
    .await;
    until(&worker, "stopped").await;
    // Other words for the same channel: a new configuration ends a hold, and not what an operator decided.
    worker.reconfigure(&config.replace("500/s", "400/s"));
    worker.hang_up();
    eventually("the new configuration is taken over", PATIENCE, async || {
        let (_, channel) = worker.api("GET", "/api/channels/soc", "token-of-auditor", "").await;
        (channel["rate_limit"] == "400/s burst 50").then_some(())
    })
    .await;
    until(&worker, "stopped").await;
    assert_eq!(scene.stand_in("soc").counters().requests, 0, "a paused channel was posted to");
    assert_eq!(worker.api("POST", "/api/channels/soc/resume", "token-of-admin", "{}").await.0, 200);
    eventually("everything flows", PATIENCE, async || (scene.stand_in("soc").different_ids() == 10).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_lets_a_held_channel_flow_at_once() {
    let mut scene = Scene::default();
    let gone = Script::always(Step::Reply { reply: Reply::new(404, "no_service"), taken: false });
    scene.add("soc", Platform::Slack, gone, &format!("{FAST}{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!("{PUBLISHER}{}{}", tokens(), scene.channels()));
    worker.start_ready().await;
    let body = String::from_utf8(decisions("held", 4).join(&b"\n"[..])).unwrap();
    assert_eq!(post_events(&worker.server(), Some(PUBLISHER_TOKEN), body).await.unwrap().0, 202);
    let channel = until(&worker, "held").await;
    assert!(
        channel["until"].is_string() && channel["why"].as_str().is_some_and(|why| why.contains("no_service")),
        "{channel}"
    );
    scene.heal();
    let said = channels(&worker, &["resume", "soc"], &worker.server()).await;
    assert_eq!(said.code, 0, "{said:?}");
    // The first probe of a held lane would come after five minutes.
    eventually("everything flows", Duration::from_mins(1), async || (scene.taken() == 4).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_say_what_is_wrong_and_never_the_token() {
    let mut scene = Scene::default();
    scene.add("soc", Platform::Slack, Script::accept(), &format!("{FAST}{PATIENT}")).await;
    let mut worker = WorkerProcess::new(&format!("{}{}", tokens(), scene.channels()));
    worker.start_ready().await;
    let server = worker.server();
    let good = ["channels", "pause", "soc", "--server", server.as_str()];
    let unknown = ["channels", "resume", "nobody", "--server", server.as_str()];
    let nowhere = ["channels", "list", "--server", "http://127.0.0.1:1"];
    for (arguments, token, code, says) in [
        (&good[..], Some("token-of-auditor"), 1, "may not"),
        (&good, Some("nonsense-token"), 1, "not known"),
        (&good, None, 2, TOKEN),
        (&good[..3], Some("token-of-analyst"), 2, "--server"),
        (&unknown, Some("token-of-analyst"), 1, "no channel"),
        (&nowhere, Some("token-of-analyst"), 1, "did not answer"),
    ] {
        let env: Vec<_> = token.map(|token| (TOKEN, token)).into_iter().collect();
        let said = worker.command_with(arguments, "", &env).await;
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.err.contains(says) && said.err.contains("hint"), "{arguments:?}: {said:?}");
        assert!(token.is_none_or(|token| !said.err.contains(token)), "the token was printed: {said:?}");
    }
    until(&worker, "flowing").await;
    // What one worker answers is shown, although the other is silent.
    let servers = format!("{server},http://127.0.0.1:1");
    let said = channels(&worker, &["list"], &servers).await;
    assert!(said.code == 1 && said.out.contains("soc") && said.out.contains("flowing"), "{said:?}");
    let said = channels(&worker, &["list", "--json"], &server).await;
    let listed = said.json();
    let from = &listed[0]["servers"][0]["server"];
    assert_eq!((said.code, &listed[0]["id"], from), (0, &"soc".into(), &server.into()), "{said:?}");
    assert!(listed[0]["endpoint"].as_str().unwrap().contains("..."), "the endpoint is masked: {said:?}");
}
