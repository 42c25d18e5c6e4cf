//! What each platform answers: the documented success for a minimal message, the documented error for each violation.

use std::{io::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    super::{
        Fate, Options, Platform, Script, StandIn,
        client::{post, request},
    },
    LINK, headers, minimal, refuses, send, start, teams, teams_card,
};

#[tokio::test]
async fn a_minimal_message_is_answered_with_the_documented_success_and_recorded() {
    for platform in Platform::ALL {
        let stand_in = start(platform).await;
        let mut arrivals = stand_in.subscribe();
        let answer = send(&stand_in, &minimal(platform)).await;
        let (status, words) = match platform {
            Platform::Slack => (200, "ok"),
            Platform::Discord => (200, r#""channel_id""#),
            Platform::Teams => (202, ""),
            Platform::Telegram => (200, r#""message_id":1"#),
            Platform::Splunk => (200, r#""text":"Success""#),
            Platform::Datadog => (202, "{}"),
            Platform::Sumo => (200, ""),
            Platform::Siem => (200, r#"{"status":"ok"}"#),
        };
        assert_eq!(answer.status, status, "{platform:?}: {answer:?}");
        assert!(answer.body.contains(words), "{platform:?}: {answer:?}");
        assert_eq!(stand_in.received_ids(), [("d-1".to_owned(), 1)].into(), "{platform:?}");
        assert_eq!(stand_in.counters().taken, 1);
        assert_eq!(arrivals.recv().await.unwrap().fate, Fate::Taken);
        assert_eq!(stand_in.kept().len(), 1);
    }
}

#[tokio::test]
async fn slack_refuses_what_it_cannot_show_in_one_word() {
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    let button = |url: &str| json!({"type": "button", "text": {"type": "plain_text", "text": "View"}, "url": url});
    let blocks = |blocks: Value| json!({"text": "t", "blocks": blocks});
    refuses(
        Platform::Slack,
        &[
            (json!([]), 400, "invalid_payload"),
            (json!({}), 400, "no_text"),
            (json!({"text": ""}), 400, "no_text"),
            (json!({"text": "t", "attachments": vec![json!({}); 101]}), 400, "too_many_attachments"),
            (blocks(json!(vec![json!({"type": "divider"}); 51])), 400, "invalid_blocks"),
            (blocks(json!([section(&"x".repeat(3_001))])), 400, "invalid_blocks"),
            (blocks(json!([section("")])), 400, "invalid_blocks"),
            (blocks(json!(vec![section(&"x".repeat(2_900)); 5])), 400, "invalid_blocks"),
            (blocks(json!([{"type": "actions", "elements": vec![button(LINK); 26]}])), 400, "invalid_blocks"),
            (blocks(json!([{"type": "actions", "elements": [button("console/decisions/1")]}])), 400, "invalid_blocks"),
            (
                blocks(json!([{"type": "header", "text": {"type": "plain_text", "text": "x".repeat(151)}}])),
                400,
                "invalid_blocks",
            ),
            (blocks(json!([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}])), 400, "invalid_blocks"),
            (blocks(json!([{"type": "sektion"}])), 400, "invalid_blocks"),
            (
                blocks(json!([{"type": "divider", "block_id": "a"}, {"type": "divider", "block_id": "a"}])),
                400,
                "invalid_blocks",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn slacks_web_api_puts_its_failures_into_a_200_with_pointers() {
    let stand_in = start(Platform::Slack).await;
    let call = async |token: &str, body: Value| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        post(&stand_in, "/api/chat.postMessage", &headers, body.to_string().as_bytes()).await.unwrap()
    };
    let good = json!({"channel": "C1", "text": LINK});
    let answer = call("Bearer xoxb-1", good.clone()).await;
    let reply: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &reply["ok"], reply["ts"].is_string()), (200, &json!(true), true));
    let long = json!({"channel": "C1", "text": "t", "blocks": [{"type": "divider"}, {"type": "divider"},
        {"type": "section", "text": {"type": "mrkdwn", "text": "x".repeat(3_001)}}]});
    let many = vec![json!({"type": "section", "text": {"type": "mrkdwn", "text": "x".repeat(2_900)}}); 5];
    let cases = [
        ("Bearer xoxp-1", good.clone(), "invalid_auth"),
        ("Basic 1", good, "not_authed"),
        ("Bearer xoxb-1", json!({"text": "t"}), "channel_not_found"),
        ("Bearer xoxb-1", json!({"channel": "C1"}), "no_text"),
        ("Bearer xoxb-1", long, "must be less than 3001 characters [json-pointer:/blocks/2/text/text]"),
        ("Bearer xoxb-1", json!({"channel": "C1", "text": "t", "blocks": many}), "msg_blocks_too_long"),
    ];
    for (token, body, error) in cases {
        let answer = call(token, body).await;
        assert!(answer.status == 200 && answer.body.contains(error), "{error}: {answer:?}");
        assert!(answer.body.contains(r#""ok":false"#), "{answer:?}");
    }
    assert_eq!(stand_in.counters().taken, 1);
}

#[tokio::test]
async fn discord_names_the_field_that_is_wrong() {
    let embed = |embed: Value| json!({"embeds": [embed]});
    let field = json!({"name": "n", "value": "v"});
    refuses(
        Platform::Discord,
        &[
            (json!({}), 400, "50006"),
            (json!("text"), 400, "50109"),
            (json!({"content": "x".repeat(2_001)}), 400, r#""content":{"_errors""#),
            (json!({"content": "x", "username": "Discord alerts"}), 400, "USERNAME_INVALID_CONTAINS"),
            (json!({"embeds": vec![json!({"title": "t"}); 11]}), 400, "Must be 10 or fewer"),
            (embed(json!({"title": "x".repeat(257)})), 400, r#""title":{"_errors""#),
            (embed(json!({"description": "x".repeat(4_097)})), 400, "Must be 4096 or fewer in length."),
            (embed(json!({"fields": vec![field; 26]})), 400, "Must be 25 or fewer"),
            (embed(json!({"fields": [{"name": "n", "value": ""}]})), 400, "BASE_TYPE_REQUIRED"),
            (embed(json!({"title": "t", "url": "console"})), 400, "URL_TYPE_INVALID_URL"),
            (embed(json!({"title": "t", "color": 0x1_000_000})), 400, "NUMBER_TYPE_MAX"),
            (embed(json!({"title": "t", "timestamp": "yesterday"})), 400, "DATE_TIME_TYPE_PARSE"),
            (json!({"embeds": vec![json!({"description": "x".repeat(3_100)}); 2]}), 400, "MAX_EMBED_SIZE_EXCEEDED"),
            (
                json!({"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}}),
                400,
                "mutually exclusive",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn discord_answers_204_without_wait_and_always_tells_its_limits() {
    let stand_in =
        StandIn::start(Platform::Discord, Script::accept().strict_rate(2, Duration::from_mins(1))).await.unwrap();
    let body = minimal(Platform::Discord).to_string();
    let first = post(&stand_in, Platform::Discord.path(), headers(Platform::Discord), body.as_bytes()).await.unwrap();
    assert_eq!((first.status, first.header("x-ratelimit-remaining"), first.body.as_str()), (204, "1", ""));
    let second = send(&stand_in, &minimal(Platform::Discord)).await;
    assert_eq!((second.status, second.header("x-ratelimit-remaining")), (200, "0"));
    assert!(second.header("x-ratelimit-reset-after").parse::<f64>().unwrap() > 50.0);
    let third = send(&stand_in, &minimal(Platform::Discord)).await;
    assert_eq!((third.status, third.header("x-ratelimit-scope")), (429, "user"));
    assert!(serde_json::from_str::<Value>(&third.body).unwrap()["retry_after"].is_f64(), "{third:?}");
    let nameless = post(&stand_in, Platform::Discord.path(), &[], body.as_bytes()).await.unwrap();
    assert_eq!(nameless.status, 429, "the limit comes before everything else");
}

#[tokio::test]
async fn teams_answers_202_to_cards_that_nobody_will_see() {
    let stand_in = start(Platform::Teams).await;
    let edited = |edit: fn(&mut Value)| {
        let mut card = teams_card();
        edit(&mut card);
        teams(&card)
    };
    let large = |card: &mut Value| card["body"][0]["text"] = "x".repeat(25_000).into();
    let cases = [
        (json!({"text": "bare"}), "foreach of attachments"),
        (edited(large), "MessageSizeExceeded"),
        (edited(|card| card["version"] = "1.5".into()), "couldn't be displayed"),
        (edited(|card| card["body"][0]["wrap"] = false.into()), "clipped"),
        (edited(|card| card["actions"][0]["type"] = "Action.Submit".into()), "does not work"),
        (edited(|card| card["body"][0]["type"] = "Table".into()), "no element of version 1.4"),
    ];
    for (body, why) in cases {
        let answer = send(&stand_in, &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (202, ""));
        let fate = stand_in.kept().pop().unwrap().fate.clone();
        assert!(matches!(&fate, Fate::Swallowed(said) if said.contains(why)), "{why}: {fate:?}");
    }
    assert_eq!((stand_in.counters().swallowed, stand_in.received_ids().len()), (6, 0));
    let answer = post(&stand_in, Platform::Teams.path(), &[], b"no json").await.unwrap();
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn telegram_refuses_in_the_words_of_its_server() {
    let text = |text: &str, mode: &str| json!({"chat_id": 1, "text": text, "parse_mode": mode});
    refuses(
        Platform::Telegram,
        &[
            (json!({"text": "x"}), 400, "Bad Request: chat_id is empty"),
            (json!({"chat_id": "nobody", "text": "x"}), 400, "Bad Request: chat not found"),
            (text("", "HTML"), 400, "Bad Request: message text is empty"),
            (text("<b> </b>", "HTML"), 400, "Bad Request: message text is empty"),
            (text("a <x", "HTML"), 400, "can't parse entities: Unclosed start tag at byte offset 2"),
            (text("<b>a", "HTML"), 400, "Can't find end tag corresponding to start tag"),
            (text(&"x".repeat(4_097), "HTML"), 400, "Bad Request: message is too long"),
            (text(&"x".repeat(32_769), "HTML"), 400, "Bad Request: text is too long"),
            (text("x", "Wiki"), 400, "Unsupported parse_mode"),
            (
                json!({"chat_id": 1, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "v", "url": "no url"}]]}}),
                400,
                "Wrong HTTP URL",
            ),
        ],
    )
    .await;
    // Lengths count after parsing: markup is free.
    let stand_in = start(Platform::Telegram).await;
    let marked = text(&format!("<b>{}</b>&amp;", "é".repeat(4_095)), "HTML");
    assert_eq!(send(&stand_in, &marked).await.status, 200);
}

#[tokio::test]
async fn splunk_indexes_what_stands_before_the_object_that_it_refuses() {
    let stand_in = start(Platform::Splunk).await;
    let path = Platform::Splunk.path();
    let event = |id: &str| json!({"event": {"id": id, "decision": "DENY"}}).to_string();
    let cases = [
        (format!("{}\n{}{}", event("a"), event("b"), r#"{"sourcetype":"x"}"#), 400, 12, vec!["a", "b"]),
        (format!("{}{}", event("c"), r#"{"event":" "}"#), 400, 13, vec!["c"]),
        (r#"{"event":null}"#.to_owned(), 400, 6, vec![]),
        (format!("[{}]", event("d")), 400, 6, vec![]),
        (r#"{"event":"x","fields":{"a":{"b":1}}}"#.to_owned(), 400, 15, vec![]),
        (" ".to_owned(), 400, 5, vec![]),
        (format!("{}{}{}", event("e"), r#"{"event":"x","severity":"HIGH"}"#, event("f")), 200, 0, vec!["e"]),
    ];
    for (body, status, code, indexed) in cases {
        let answer = post(&stand_in, path, headers(Platform::Splunk), body.as_bytes()).await.unwrap();
        let reply: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, reply["code"].as_u64()), (status, Some(code)), "{body}");
        let received = stand_in.kept().pop().unwrap();
        assert_eq!(received.ids, indexed, "{body}");
        assert_ne!(received.fate, Fate::Taken, "{body}");
    }
    let first = stand_in.kept().first().unwrap().clone();
    assert_eq!(first.status, Some(400));
    let health = request("GET", stand_in.port(), "/services/collector/health", &[], b"").await.unwrap();
    assert!(health.body.contains("17"));
}

#[tokio::test]
async fn compressed_batches_are_inflated_and_each_record_is_counted() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for id in ["a", "b", "a"] {
        writeln!(gzip, "{}", json!({"id": id, "decision": "DENY"})).unwrap();
    }
    let body = gzip.finish().unwrap();
    for platform in [Platform::Sumo, Platform::Siem] {
        let stand_in = start(platform).await;
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
        let answer = post(&stand_in, platform.path(), &headers, &body).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stand_in.received_ids(), [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
        assert!(stand_in.kept()[0].body.starts_with(b"{"));
        let torn = post(&stand_in, platform.path(), &headers, &body[..10]).await.unwrap();
        assert!(torn.status >= 400, "{torn:?}");
    }
}

#[tokio::test]
async fn datadog_sumo_and_siem_refuse_what_they_cannot_read() {
    refuses(
        Platform::Datadog,
        &[
            (json!([]), 400, "Bad Request"),
            (json!([{"service": "x"}]), 400, "Bad Request"),
            (json!(vec![json!({"message": "x"}); 1_001]), 413, "Payload Too Large"),
            (json!([{"message": "x".repeat(5_000_001)}]), 413, "Payload Too Large"),
        ],
    )
    .await;
    refuses(Platform::Sumo, &[(json!("x".repeat(1_000_001)), 413, "Payload Too Large")]).await;
    refuses(Platform::Siem, &[(json!(1), 400, "no object"), (json!("CEF:0|a"), 400, "no object")]).await;
    let stand_in = start(Platform::Siem).await;
    for (cef, status) in [
        ("CEF:0|Interven|AIF|0.6|DENY|a \\| b|7|src=10.0.0.42 externalId=d-1", 200),
        ("CEF:0|Interven|AIF|0.6|DENY|name|11|src=10.0.0.42", 400),
        ("CEF:0|Interven|AIF|0.6|DENY|name|7|", 400),
        ("CEF:0|Interven|AIF|0.6|DENY|name", 400),
        ("<13>CEF:0|Interven|AIF|0.6|DENY|name|7|a=b", 400),
        ("", 400),
    ] {
        let answer = post(&stand_in, "/x", &[("content-type", "text/plain")], cef.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{cef}: {answer:?}");
    }
}

#[tokio::test]
async fn a_wrong_address_or_credential_gets_the_platforms_own_answer() {
    let cases: [(Platform, &str, u16, &str); 13] = [
        (Platform::Slack, "/services/T1/B1/other", 404, "no_service"),
        (Platform::Slack, "/services/X", 404, "no_team"),
        (Platform::Discord, "/api/webhooks/1/other", 401, "50027"),
        (Platform::Discord, "/api/v10/webhooks/abc/right", 404, "10015"),
        (
            Platform::Teams,
            "/workflows/1/triggers/manual/paths/invoke?api-version=1",
            401,
            "DirectApiAuthorizationRequired",
        ),
        (Platform::Teams, "/workflows/1/triggers/manual/paths/invoke?sig=right", 400, "MissingApiVersionParameter"),
        (Platform::Teams, "/elsewhere", 404, "WorkflowNotFound"),
        (Platform::Telegram, "/bot1:other/sendMessage", 401, "Unauthorized"),
        (Platform::Telegram, "/botright/sendMessage", 404, "Not Found"),
        (Platform::Splunk, "/services/collector", 403, "Invalid token"),
        (Platform::Splunk, "/collector", 404, "404"),
        (Platform::Datadog, "/api/v2/logs", 403, "Forbidden"),
        (Platform::Sumo, "/receiver/v1/http/other", 401, ""),
    ];
    for (platform, path, status, words) in cases {
        let options = Options { credential: Some("right".to_owned()), ..Options::default() };
        let stand_in = StandIn::start_with(platform, Script::accept(), options).await.unwrap();
        let body = minimal(platform).to_string();
        let answer = post(&stand_in, path, headers(platform), body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.body.contains(words), "{path}: {answer:?}");
        assert_eq!(stand_in.counters().taken, 0);
    }
    let splunk = start(Platform::Splunk).await;
    for (headers, code) in [(&[][..], "2"), (&[("authorization", "Bearer x")][..], "3")] {
        let answer = post(&splunk, Platform::Splunk.path(), headers, b"{\"event\":1}").await.unwrap();
        assert!(answer.status == 401 && answer.body.contains(&format!("\"code\":{code}")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_standard_webhooks_signature_is_checked_against_the_secret() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let options = Options { credential: Some(format!("whsec_{secret}")), ..Options::default() };
    let stand_in = StandIn::start_with(Platform::Siem, Script::accept(), options).await.unwrap();
    let body = minimal(Platform::Siem).to_string();
    let now = crate::model::Clock::System.now().unix_seconds();
    for (sent, tampered, status) in [(now, false, 200), (now, true, 401), (now - 400, false, 401)] {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(secret).unwrap()).unwrap();
        mac.update(format!("msg_1.{sent}.{body}").as_bytes());
        let signature = format!("v1,AAAA v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let sent = sent.to_string();
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &sent),
            ("webhook-signature", &signature),
        ];
        let body = if tampered { body.replace("DENY", "ALLOW") } else { body.clone() };
        let answer = post(&stand_in, "/events", &headers, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
    }
}
