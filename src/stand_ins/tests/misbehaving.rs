//! Scripts, limits, outages and odd requests.

use std::time::Duration;

use serde_json::json;

use super::{
    super::{
        Class, Options, Platform, Script, Sink, StandIn, Step,
        client::{post, request},
        every_reply, sink,
    },
    minimal, send, start,
};

#[tokio::test]
async fn every_platform_says_too_many_where_its_clients_look_for_it() {
    for platform in Platform::ALL {
        let script = Script::ordered([Step::RateLimited { retry_after: Duration::from_secs(3) }]);
        let stand_in = StandIn::start(platform, script).await.unwrap();
        let answer = send(&stand_in, &minimal(platform)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, "3"), "{platform:?}");
        if platform == Platform::Telegram {
            assert!(answer.body.contains(r#""parameters":{"retry_after":3}"#), "{answer:?}");
        }
        // Coming back at once is noted.
        send(&stand_in, &minimal(platform)).await;
        let counters = stand_in.counters();
        assert_eq!((counters.impatient, counters.refused, counters.taken), (1, 1, 1), "{platform:?}");
    }
}

#[tokio::test]
async fn a_strict_rate_is_enforced_and_violations_are_counted() {
    let script = Script::accept().strict_rate(3, Duration::from_mins(1));
    let stand_in = StandIn::start(Platform::Slack, script).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(send(&stand_in, &minimal(Platform::Slack)).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let counters = stand_in.counters();
    assert_eq!((counters.violations, counters.taken), (2, 3));
}

#[tokio::test]
async fn a_scripted_failure_may_come_before_or_after_the_message_is_posted() {
    for taken in [false, true] {
        let steps = [Step::Reset { taken }, Step::Garbage { taken }];
        let stand_in = StandIn::start(Platform::Slack, Script::ordered(steps)).await.unwrap();
        let body = minimal(Platform::Slack).to_string();
        for _ in 0..2 {
            assert!(post(&stand_in, Platform::Slack.path(), &[], body.as_bytes()).await.is_none());
        }
        assert_eq!(stand_in.times_received("d-1"), if taken { 2 } else { 0 });
        assert_eq!(send(&stand_in, &minimal(Platform::Slack)).await.status, 200);
    }
    // A message that the platform would refuse is not posted, whatever the script says.
    let stand_in = StandIn::start(Platform::Slack, Script::always(Step::Reset { taken: true })).await.unwrap();
    assert!(post(&stand_in, Platform::Slack.path(), &[], b"{}").await.is_none());
    assert_eq!((stand_in.counters().taken, stand_in.counters().refused), (0, 1));
}

#[tokio::test]
async fn a_hanging_endpoint_never_answers_and_a_slow_one_takes_the_message_in_the_end() {
    let steps = [Step::Hang { taken: true }, Step::Slow(Duration::from_millis(80))];
    let stand_in = StandIn::start(Platform::Siem, Script::ordered(steps)).await.unwrap();
    let body = minimal(Platform::Siem);
    let hanging = tokio::time::timeout(Duration::from_millis(50), send(&stand_in, &body)).await;
    assert!(hanging.is_err());
    assert_eq!(stand_in.times_received("d-1"), 1);
    let gone = tokio::time::timeout(Duration::from_millis(20), send(&stand_in, &body)).await;
    assert!(gone.is_err());
    assert!(stand_in.wait_until(Duration::from_secs(5), |one| one.times_received("d-1") == 2).await);
}

#[tokio::test]
async fn an_outage_refuses_connections_and_ends_at_the_same_port_with_nothing_forgotten() {
    let mut stand_in = start(Platform::Discord).await;
    send(&stand_in, &minimal(Platform::Discord)).await;
    let port = stand_in.port();
    stand_in.stop().await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    stand_in.restart().await.unwrap();
    send(&stand_in, &minimal(Platform::Discord)).await;
    assert_eq!((stand_in.port(), stand_in.times_received("d-1")), (port, 2));
    drop(stand_in);
    let again = StandIn::start_at(Platform::Discord, Script::accept(), port).await.unwrap();
    assert_eq!(again.counters().requests, 0);
}

#[tokio::test]
async fn every_reply_of_the_catalogue_can_be_scripted() {
    for platform in Platform::ALL {
        let stand_in = start(platform).await;
        let mut posted = 0;
        for entry in every_reply(platform) {
            stand_in.set_script(Script::always(Step::Reply { reply: entry.reply.clone(), taken: entry.taken }));
            let answer = send(&stand_in, &minimal(platform)).await;
            assert_eq!(answer.status, entry.reply.status.as_u16(), "{platform:?} {}", entry.name);
            posted += u64::from(entry.taken);
            let success = (200..300).contains(&answer.status) && !answer.body.contains(r#""ok":false"#);
            assert_eq!(success, entry.class == Class::Success, "{platform:?} {}", entry.name);
        }
        assert_eq!(stand_in.counters().taken, posted, "{platform:?}");
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_what_is_counted_is_not() {
    let options = Options { kept_bytes: 4_000, ..Options::default() };
    let stand_in = StandIn::start_with(Platform::Siem, Script::accept(), options).await.unwrap();
    for id in 0..20 {
        send(&stand_in, &json!({"id": id.to_string(), "decision": "DENY"})).await;
    }
    let kept = stand_in.kept();
    assert!((1..8).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().ids, ["19"]);
    assert_eq!((stand_in.different_ids(), stand_in.counters().taken), (20, 20));
}

#[tokio::test]
async fn bodies_in_chunks_are_read_and_nonsense_is_refused() {
    let stand_in = start(Platform::Siem).await;
    let chunked = b"10\r\n{\"id\":\"d-1\",\"dec\r\n10;x=y\r\nision\":\"DENY\"}  \r\n0\r\n\r\n";
    let headers = [("transfer-encoding", "chunked"), ("content-type", "application/json")];
    let answer = post(&stand_in, "/", &headers, chunked).await.unwrap();
    assert_eq!((answer.status, stand_in.times_received("d-1")), (200, 1), "{answer:?}");
    let answer = post(&stand_in, "/", &headers, b"zz\r\n").await.unwrap();
    assert_eq!(answer.status, 400);
    let answer = request("POST", stand_in.port(), "no-slash", &[], b"").await.unwrap();
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn the_sink_answers_pipelined_and_torn_requests_and_counts_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let sink = Sink::start(2).await.unwrap();
    let url = url::Url::parse(&sink.url()).unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let body = r#"{"id":"d-1","x":1}"#;
    let one = format!("POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let three = one.repeat(3);
    let (first, second) = three.split_at(one.len() + one.len() / 2);
    stream.write_all(first.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answers = vec![0; sink::ANSWER.len() * 3];
    stream.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers, sink::ANSWER.repeat(3));
    assert_eq!((sink.requests(), sink.body_bytes()), (3, 3 * body.len() as u64));
    let stamps = sink.take_stamps();
    assert_eq!(stamps.iter().map(|stamp| &*stamp.id).collect::<Vec<_>>(), ["d-1", "d-1"]);
}
