//! Who changes something and hangs up before the answer is told of in the audit like everybody else.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    eventually,
    scene::token_of,
    worker::{PATIENCE, WorkerProcess},
};

/// Sends a PUT and cuts the connection off, with what is in it, after `moment`.
async fn put_and_run(worker: &WorkerProcess, id: &str, moment: Duration) {
    let address = worker.server().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = r#"{"kind":"siem","url":"https://siem.example/in"}"#;
    let head = format!("PUT /api/channels/{id} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer token-of-admin\r\n");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(moment).await;
    stream.set_zero_linger().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_the_audit_also_where_whoever_made_it_did_not_wait_for_the_answer() {
    let mut worker = WorkerProcess::new(&token_of("admin"));
    worker.start_ready().await;
    let mut tries: u64 = 0;
    // How long the worker takes to see the request, and to be done, is not known, so all moments are tried.
    let made = eventually("channels are made", PATIENCE, async || {
        put_and_run(&worker, &format!("left-{tries}"), Duration::from_micros(250 * (tries % 16))).await;
        tries += 1;
        let (status, channels) = worker.api("GET", "/api/channels", "token-of-admin", "").await;
        assert_eq!(status, 200);
        let ids = channels.as_array().unwrap().iter().map(|channel| channel["id"].as_str().unwrap().to_owned());
        let ids: Vec<String> = ids.collect();
        (ids.len() >= 12 && tries >= 32).then_some(ids)
    })
    .await;
    for id in made {
        let subject = format!("\"subject\":\"{id}\"");
        eventually("it is in the audit", PATIENCE, async || {
            let logs = worker.logs();
            logs.lines().any(|line| line.contains("\"put_channel\"") && line.contains(&subject)).then_some(())
        })
        .await;
    }
}
