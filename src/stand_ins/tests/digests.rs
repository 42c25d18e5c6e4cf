//! Digests as they arrive: counted once each, and never as the decisions that they link to.

use serde_json::{Value, json};

use super::{
    super::{Counters, Digest, Platform, Script, StandIn, Step},
    LINK, headers, minimal, post, send, start, target, teams,
};

/// A digest of `total` that links to decision `d-1`, in the shape of the platform's cards.
fn digest(platform: Platform, total: u64) -> Value {
    let headline = format!("[Interven] {total} decisions");
    match platform {
        Platform::Slack => json!({"text": "t", "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": headline}},
            {"type": "section", "text": {"type": "mrkdwn", "text": format!("<{LINK}|View>")}}]}),
        Platform::Discord => json!({"embeds": [{"title": headline, "description": format!("[View]({LINK})")}]}),
        Platform::Teams => teams(&json!({"type": "AdaptiveCard", "version": "1.4", "body": [
            {"type": "TextBlock", "text": headline, "weight": "Bolder", "wrap": true},
            {"type": "TextBlock", "text": format!("[View]({LINK})"), "wrap": true}]})),
        Platform::Telegram => json!({"chat_id": 1, "parse_mode": "HTML",
            "text": format!("<b>{headline}</b>\n<a href=\"{LINK}\">View</a>")}),
        Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => {
            unreachable!("nobody reads digests there")
        }
    }
}

const CHATS: [Platform; 4] = [Platform::Slack, Platform::Discord, Platform::Teams, Platform::Telegram];

#[tokio::test]
async fn digests_add_up_beside_the_decisions_that_were_told_one_by_one() {
    for platform in CHATS {
        let stand_in = start(platform).await;
        for body in [digest(platform, 9_000), minimal(platform), digest(platform, 998)] {
            assert!(send(&stand_in, &body).await.status < 300, "{platform:?}");
        }
        assert_eq!(stand_in.received_ids(), [("d-1".to_owned(), 1)].into(), "{platform:?}: only the card tells it");
        let Counters { taken, digests, folded, .. } = stand_in.counters();
        assert_eq!((taken, digests, folded), (3, 2, 9_998), "{platform:?}");
        let totals: Vec<_> = stand_in.kept().iter().map(|received| received.digest_total()).collect();
        assert_eq!(totals, [Some(9_000), None, Some(998)], "{platform:?}");
        let named = vec!["d-1".to_owned()];
        assert_eq!(stand_in.kept()[0].digest, Some(Digest { total: 9_000, named }), "{platform:?}");
    }
}

#[tokio::test]
async fn a_digest_that_nobody_will_see_counts_nothing_and_one_whose_reply_is_lost_counts() {
    for platform in CHATS {
        let script = Script::ordered([Step::Reset { taken: false }, Step::Reset { taken: true }]);
        let stand_in = StandIn::start(platform, script).await.unwrap();
        for _ in 0..2 {
            let body = digest(platform, 7).to_string();
            let answer = post(&stand_in, &target(platform), headers(platform), body.as_bytes()).await;
            assert!(answer.is_none(), "{platform:?}: {answer:?}");
        }
        let Counters { taken, refused, digests, folded, .. } = stand_in.counters();
        assert_eq!((taken, refused, digests, folded), (1, 1, 1, 7), "{platform:?}");
    }
}
