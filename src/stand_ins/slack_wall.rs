//! What people see in Slack: messages that are posted, changed and replaced, and what only the one who clicked reads.
//!
//! A bot's message can be changed by the same bot, at any time. Any message can be replaced by the URL that comes with a click on
//! it, five times. Source: Slack, "Handling user interaction".

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// How often the URL of a click may be used.
const USES_MAX: u8 = 5;

/// Messages, and URLs of clicks, that are remembered.
const MESSAGES_MAX: usize = 2_000;
const CLICKS_MAX: usize = 100_000;

/// A message.
#[derive(Clone, Debug)]
pub struct SlackMessage {
    /// Where it is: what a bot posted to; empty for a webhook's.
    pub channel: String,
    /// Its name there.
    pub ts: String,
    /// The bot's token; none for a webhook's.
    token: Option<String>,
    /// What it has said, the newest last.
    pub versions: Vec<Value>,
}

impl SlackMessage {
    /// What it says now.
    pub fn now(&self) -> &Value {
        self.versions.last().unwrap_or(&Value::Null)
    }

    /// The values of the buttons that can be clicked now, by their `action_id`.
    pub fn buttons(&self) -> Vec<(String, String)> {
        let blocks = self.now().get("blocks").and_then(Value::as_array).into_iter().flatten();
        let elements = blocks.filter_map(|block| block.get("elements")?.as_array()).flatten();
        let text = |element: &Value, key: &str| element.get(key).and_then(Value::as_str).map(str::to_owned);
        elements.filter_map(|element| Some((text(element, "action_id")?, text(element, "value")?))).collect()
    }
}

/// Messages and clicks.
#[derive(Debug, Default)]
pub struct SlackWall(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<SlackMessage>,
    /// By path: the message that was clicked, and how often the URL was used.
    clicks: HashMap<String, (String, u8)>,
    /// What only the one who clicked reads: the path of the click's URL, and the text.
    whispers: Vec<(String, String)>,
}

/// Why a change is turned down, in Slack's word.
pub(super) type Refusal = &'static str;

impl SlackWall {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages, the oldest first.
    pub fn messages(&self) -> Vec<SlackMessage> {
        self.state().messages.iter().cloned().collect()
    }

    /// What those who clicked were told privately: the path of the click's URL, and the text.
    pub fn whispers(&self) -> Vec<(String, String)> {
        self.state().whispers.clone()
    }

    /// Somebody clicks on the message with this `ts`: the path of the URL that comes with the click.
    pub fn click(&self, ts: &str) -> String {
        let mut state = self.state();
        let path = format!("/actions/T0STANDIN/{}/madeUpTokenOfAClick", state.clicks.len());
        // Beyond that, the URL is one that has expired already.
        if state.clicks.len() < CLICKS_MAX {
            state.clicks.insert(path.clone(), (ts.to_owned(), 0));
        }
        path
    }

    /// A message is posted.
    pub(super) fn post(&self, channel: &str, ts: &str, token: Option<&str>, message: &Value) {
        let (channel, ts, token) = (channel.to_owned(), ts.to_owned(), token.map(str::to_owned));
        let mut state = self.state();
        state.messages.push_back(SlackMessage { channel, ts, token, versions: vec![message.clone()] });
        if state.messages.len() > MESSAGES_MAX {
            state.messages.pop_front();
        }
    }

    /// A bot changes a message of its own.
    pub(super) fn update(&self, channel: &str, ts: &str, token: &str, message: &Value) -> Result<(), Refusal> {
        let mut state = self.state();
        let found = state.messages.iter_mut().find(|one| one.channel == channel && one.ts == ts);
        let found = found.ok_or("message_not_found")?;
        if found.token.as_deref() != Some(token) {
            return Err("cant_update_message");
        }
        found.versions.push(message.clone());
        Ok(())
    }

    /// Something is posted to the URL of a click: it replaces the message, or is a whisper.
    pub(super) fn reply(&self, path: &str, message: &Value) -> Result<(), Refusal> {
        let mut state = self.state();
        let (ts, uses) = state.clicks.get_mut(path).ok_or("expired_url")?;
        if *uses == USES_MAX {
            return Err("used_url");
        }
        *uses += 1;
        let ts = ts.clone();
        let is = |key: &str| message.get(key) == Some(&Value::Bool(true));
        if is("delete_original") {
            state.messages.retain(|one| one.ts != ts);
        } else if is("replace_original") {
            let found = state.messages.iter_mut().find(|one| one.ts == ts).ok_or("message_not_found")?;
            found.versions.push(message.clone());
        } else {
            let text = message.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
            state.whispers.push((path.to_owned(), text));
        }
        Ok(())
    }
}
