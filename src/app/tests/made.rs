//! Channels of the log, as the steward takes them over.

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::channel_log::Content;

const TEXT: &str = "0123456789abcdef";

fn key(text: &str) -> Key {
    Key::from_text(text).unwrap()
}

/// A put of a Discord channel, sealed with the key of this text.
fn put(channel: &str, hook: &str, text: &str) -> Entry {
    put_at(channel, &format!("https://discord.com/api/webhooks/1/{hook}"), text)
}

fn put_at(channel: &str, url: &str, text: &str) -> Entry {
    let config = json!({"kind": "discord", "webhook_url": url});
    let sealed = key(text).seal("channels", channel, config.to_string().as_bytes()).unwrap();
    let open = json!({"kind": "discord"}).as_object().unwrap().clone();
    let content = Content { sealed: sealed.into(), open: Arc::new(open) };
    Entry::put(id(channel), content, "someone", Timestamp::UNIX_EPOCH)
}

impl House {
    async fn hears(&self, entry: Entry) {
        self.news.send(News::Entry(entry)).await.unwrap();
    }

    async fn until_gone(&self, channel: &str) {
        while self.state(channel).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn takes_decisions_in(&self) -> bool {
        !self.broker.asked("consume Decisions").is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_have_channels_of_the_log_takes_no_decision_in_before_it_knows_them() {
    let mut house = House::with_key(&channel("soc", "a"), true, Some(key(TEXT)));
    house.opens().await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(house.state("soc"), Some(LaneState::Flowing), "what waits is delivered");
    assert!(!house.takes_decisions_in(), "a decision could be lost to a channel of the log");
    house.news.send(whole([put("made", "b", TEXT), entry("made", Deed::Pause)])).await.unwrap();
    house.until("made", &LaneState::Stopped).await;
    while !house.takes_decisions_in() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(house.tasks.len(), 4, "two lanes, the intake, the steward");
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_made_changed_and_removed_by_the_log_and_a_reload_of_the_file_does_not_touch_it() {
    let mut house = House::with_key(&channel("soc", "a"), true, Some(key(TEXT)));
    house.news.send(whole([])).await.unwrap();
    house.opens().await;
    house.hears(put("made", "b", TEXT)).await;
    house.until("made", &LaneState::Flowing).await;
    assert_eq!(house.broker.asked(&format!("ensure {:?}", [id("made")])).len(), 1);
    let reloaded = house.reload(&channel("soc", "c")).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.removed.len(), reloaded.added.len()), ([id("soc")].into(), 0, 0));
    assert_eq!(house.state("made"), Some(LaneState::Flowing));
    // The file takes the id, and gives it back.
    let both = [channel("soc", "c"), channel("made", "of-the-file")].concat();
    assert_eq!(house.reload(&both).await.unwrap().changed, [id("made")].into());
    assert_eq!(house.routing.borrow().lanes().len(), 2, "one lane for each id");
    let reloaded = house.reload(&channel("soc", "c")).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.removed.len()), ([id("made")].into(), 0));
    house.hears(entry("made", Deed::Delete)).await;
    house.until_gone("made").await;
    while !matches!(house.census.borrow().tenure(&id("made")), Some(Tenure::Removed(_))) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_cannot_be_read_holds_what_it_wants_until_it_can() {
    let mut house = House::with_key("", true, Some(key(TEXT)));
    house.news.send(whole([put("made", "b", "another key of 32 characters....")])).await.unwrap();
    house.opens().await;
    house.until("made", &LaneState::Stopped).await;
    assert!(house.metrics.encode().contains("channels_unreadable 1"));
    // No operator can make it flow.
    house.hears(entry("made", Deed::Resume)).await;
    house.hears(entry("other", Deed::Resume)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.state("made"), Some(LaneState::Stopped));
    assert!(house.broker.asked("consume Lane(\"made\")").is_empty(), "what waits was taken out of its queue");
    house.hears(put("made", "b", TEXT)).await;
    house.until("made", &LaneState::Flowing).await;
    assert!(house.metrics.encode().contains("channels_unreadable 0"));
    // And back, under a pause of an operator's that outlives both.
    house.hears(entry("made", Deed::Pause)).await;
    house.hears(put("made", "c", "another key of 32 characters....")).await;
    house.hears(put("made", "d", TEXT)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.state("made"), Some(LaneState::Stopped));
    house.hears(entry("made", Deed::Resume)).await;
    house.until("made", &LaneState::Flowing).await;
}

#[tokio::test(start_paused = true)]
async fn another_guard_of_the_file_stops_a_channel_that_it_forbids_and_lets_it_go_on_when_it_no_longer_does() {
    crate::tls::install();
    let mut house = House::with_key("", true, Some(key(TEXT)));
    house.news.send(whole([put_at("made", "https://10.1.2.3/hook", TEXT)])).await.unwrap();
    house.opens().await;
    house.until("made", &LaneState::Flowing).await;
    let reloaded = house.reload("[egress]\ndeny = [\"10.0.0.0/8\"]\n").await.unwrap();
    assert_eq!((reloaded.changed, reloaded.removed.len()), ([id("made")].into(), 0));
    house.until("made", &LaneState::Stopped).await;
    house.reload("").await.unwrap();
    house.until("made", &LaneState::Flowing).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_queue_cannot_be_made_is_run_all_the_same_and_the_queue_tried_again() {
    let mut house = House::with_key("", true, Some(key(TEXT)));
    *house.broker.refuses_lanes.lock().unwrap() = true;
    house.news.send(whole([put("made", "b", TEXT)])).await.unwrap();
    house.opens().await;
    house.until("made", &LaneState::Flowing).await;
    assert_eq!(house.census.borrow().tenure(&id("made")), Some(Tenure::Configured), "it would be taken for an orphan");
    let asked = || house.broker.asked(&format!("ensure {:?}", [id("made")])).len();
    assert_eq!(asked(), 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(asked(), 2);
    *house.broker.refuses_lanes.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_the_log_has_lost_is_written_again_and_runs_on() {
    let mut house = House::with_key("", true, Some(key(TEXT)));
    house.news.send(whole([put("made", "b", TEXT)])).await.unwrap();
    house.opens().await;
    house.news.send(whole([])).await.unwrap();
    while house.broker.asked("Put made").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(house.state("made"), Some(LaneState::Flowing));
}

#[tokio::test(start_paused = true)]
async fn the_queue_of_a_channel_that_the_log_holds_is_nobodys_to_remove() {
    let grave = Grave::new("made", None, std::iter::repeat_n(Some(2), 1_000));
    let put = put("made", "b", "another key of 32 characters....").only_after(Some(Uuid::nil()));
    grave.standing.send_modify(|standing| drop(Arc::make_mut(standing).apply(put)));
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(grave.broker.asked("remove made").is_empty() && grave.jobs.is_empty());
    grave.standing.send_modify(|standing| drop(Arc::make_mut(standing).apply(entry("made", Deed::Delete))));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!grave.broker.asked("remove made").is_empty(), "now it is an orphan like any other");
}
