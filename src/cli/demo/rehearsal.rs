//! The story, rehearsed: a worker of sixty lines stands in for the real one, so that the story, the endpoints and the summary
//! are tested together before anything else is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::{Account, Backstage, Cast, Pace, Screen, Style, Trouble, play};
use crate::{
    dead_letters::letter::{DeadLetter, LetterId},
    model::{ChannelId, Clock, DeathReason, Decision, Delivery},
    stand_ins::{Platform, client},
};

const PACE: Pace = Pace {
    decisions: 60,
    stream: Duration::from_millis(900),
    outage: Duration::from_millis(200),
    patience: Duration::from_secs(8),
};

/// How the rehearsal's worker may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Counts a delivery as delivered that nobody got.
    Forgets,
}

struct Understudy {
    channels: Vec<(ChannelId, Platform, u16)>,
    flaw: Flaw,
    tasks: TaskTracker,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<ChannelId, Account>,
    letters: Vec<DeadLetter>,
}

impl Understudy {
    fn new(cast: &Cast, flaw: Flaw) -> Self {
        let mut state = State::default();
        let channels = cast.channels().map(|(id, stand_in)| {
            let channel: ChannelId = id.parse().unwrap();
            let account = Account {
                channel: channel.clone(),
                matched: 0,
                delivered: 0,
                folded: 0,
                dead: 0,
                replayed: 0,
                waiting: 0,
            };
            state.accounts.insert(channel.clone(), account);
            (channel, stand_in.platform(), stand_in.port())
        });
        Self { channels: channels.into(), flaw, tasks: TaskTracker::new(), state: Arc::new(Mutex::new(state)) }
    }

    /// Delivers in the background, trying until it is delivered or refused.
    fn deliver(&self, decision: &Arc<Decision>, channel: &ChannelId, platform: Platform, port: u16) {
        let (decision, channel, state) = (Arc::clone(decision), channel.clone(), Arc::clone(&self.state));
        let forgets = self.flaw == Flaw::Forgets && platform == Platform::Teams;
        self.tasks.spawn(async move {
            let refusal = loop {
                if forgets {
                    break None;
                }
                let body = message(platform, &decision.id);
                let headers = [("content-type", "application/json"), ("user-agent", "DiscordBot (x, 1)")];
                match client::request("POST", port, platform.path(), &headers, body.as_bytes()).await {
                    Some(answer) if (200..300).contains(&answer.status) => break None,
                    Some(answer) if answer.status == 400 => break Some(answer.body),
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let mut state = state.lock().unwrap();
            let account = state.accounts.get_mut(&channel).unwrap();
            account.waiting -= 1;
            match refusal {
                None => account.delivered += 1,
                Some(why) => {
                    account.dead += 1;
                    let now = Clock::System.now();
                    let delivery = Delivery::new(decision, channel, now);
                    let letter = DeadLetter::of_delivery(&delivery, DeathReason::Refused, &why, None, now);
                    state.letters.push(letter);
                }
            }
        });
    }
}

fn message(platform: Platform, id: &str) -> String {
    let link = format!("https://console.example.com/decisions/{id}");
    match platform {
        Platform::Slack => json!({"text": link}),
        Platform::Discord => json!({"content": link}),
        Platform::Teams => json!({"type": "message", "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {"type": "AdaptiveCard", "version": "1.4", "body": [{"type": "TextBlock", "text": link, "wrap": true}]}}]}),
        Platform::Telegram => json!({"chat_id": 1, "text": link}),
        Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => json!({"id": id, "decision": "DENY"}),
    }
    .to_string()
}

impl Backstage for Understudy {
    async fn publish(&self, decision: Bytes) -> Result<(), Trouble> {
        let decision = Arc::new(Decision::decode(decision)?);
        for (channel, platform, port) in &self.channels {
            {
                let mut state = self.state.lock().unwrap();
                let account = state.accounts.get_mut(channel).unwrap();
                account.matched += 1;
                account.waiting += 1;
            }
            self.deliver(&decision, channel, *platform, *port);
        }
        Ok(())
    }

    async fn accounts(&self) -> Result<Vec<Account>, Trouble> {
        Ok(self.state.lock().unwrap().accounts.values().cloned().collect())
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, Trouble> {
        Ok(self.state.lock().unwrap().letters.clone())
    }

    async fn replay(&self, letters: &[LetterId]) -> Result<usize, Trouble> {
        let taken: Vec<DeadLetter> = {
            let mut state = self.state.lock().unwrap();
            let (taken, left) =
                std::mem::take(&mut state.letters).into_iter().partition(|one| letters.contains(&one.id));
            state.letters = left;
            taken
        };
        for letter in &taken {
            let decision = Arc::new(Decision::decode(letter.body.clone())?);
            let channel = letter.channel.clone().ok_or("a letter of no channel")?;
            let (_, platform, port) = self.channels.iter().find(|(id, ..)| *id == channel).ok_or("no such channel")?;
            {
                let mut state = self.state.lock().unwrap();
                let account = state.accounts.get_mut(&channel).unwrap();
                account.replayed += 1;
                account.waiting += 1;
            }
            self.deliver(&decision, &channel, *platform, *port);
        }
        Ok(taken.len())
    }
}

#[tokio::test]
async fn the_story_ends_with_every_delivery_accounted_for() {
    let mut cast = Cast::start().await.unwrap();
    let understudy = Understudy::new(&cast, Flaw::None);
    let mut out = Vec::new();
    let summary = play(&mut cast, &understudy, &mut Screen::new(&mut out, Style::Plain), PACE).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(summary.adds_up(), "{out}");
    assert_eq!(summary.published, 60);
    let telegram = summary.lines.iter().find(|line| line.account.channel.as_str() == super::TELEGRAM).unwrap();
    assert_eq!((telegram.account.dead, telegram.account.replayed), (1, 1), "{out}");
    for words in [
        "answers 429",
        "Discord is back",
        "answers 400",
        "refused decision",
        "can't parse entities",
        "nothing was lost",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[tokio::test]
async fn a_worker_that_claims_what_no_endpoint_has_is_found_out() {
    let mut cast = Cast::start().await.unwrap();
    let understudy = Understudy::new(&cast, Flaw::Forgets);
    let mut out = Vec::new();
    let summary = play(&mut cast, &understudy, &mut Screen::new(&mut out, Style::Plain), PACE).await.unwrap();
    assert!(!summary.adds_up());
    assert!(String::from_utf8(out).unwrap().contains("DO NOT ADD UP"));
}
