//! Telegram: the Bot API's `sendMessage`.
//!
//! A card is HTML, because one `<` too many is easier to avoid than one of MarkdownV2's eighteen characters; hostile text stands
//! in `<code>`, where Telegram looks for no mention, link or command. The plain form has no `parse_mode`, and tells the same by
//! `entities`, which cannot fail to parse.
//!
//! A group can become a supergroup with another id. The reply says so, [`Verdict::Moved`] carries the new id, and
//! [`Occasion::detour`] brings it back for the next try.

mod digest;
mod form;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Built, Channel, Endpoint, Kind, Occasion, Parcel, Rate,
    card::{Card, Link, Markup, Rooms, push_links},
    digest_card::DigestCard,
    judging::{Meaning, by_status_alone, explain},
    text::Script,
};
use crate::{
    model::{Delivery, Digest, Reply, Secret, Verdict},
    settings::Settings,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "telegram",
    concurrency: 1,
    chat: true,
    sample: "bot_token = \"1234567890:abcdefghijklmnopqrstuvwxyz_ABCDEFGH\"\nchat_id = 1001\napi_url = \"{base}\"\n",
    form: &form::FORM,
    build,
};

/// One message a second to a chat. Source: Telegram's bot FAQ.
const PACE: Rate = Rate { count: 1, per: Duration::from_secs(1), burst: 1 };

/// And 20 a minute to a group. No burst: one would let more than 20 into some minute.
const PACE_GROUP: Rate = Rate { count: 20, per: Duration::from_mins(1), burst: 1 };

/// Where the Bot API is.
const API: &str = "https://api.telegram.org";

/// The longest text, in characters after parsing. We count UTF-16 units, which are never fewer.
const TEXT_UNITS_MAX: usize = 4_096;

const HTML: Markup = Markup {
    strong: ("<b>", "</b>"),
    quote: ("<code>", "</code>"),
    script: Script {
        escape: |c| match c {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            _ => None,
        },
        cost: char::len_utf16,
    },
};

/// The plain form is first written with marks around hostile text, which [`entities`] then takes out. They are control
/// characters, so hostile text never holds one.
const MARKED: Markup = Markup {
    strong: ("", ""),
    quote: (MARK_OPEN, MARK_CLOSE),
    script: Script { escape: |_| None, cost: char::len_utf16 },
};
const MARK_OPEN: &str = "\u{2}";
const MARK_CLOSE: &str = "\u{3}";

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ChatId {
    /// A user (positive), a group or a supergroup (negative).
    Number(i64),
    /// A public channel, `@name`.
    Name(String),
}

/// Why a text is not a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chat is a whole number, or the `@name` of a public channel")]
pub struct ChatIdError;

impl std::str::FromStr for ChatId {
    type Err = ChatIdError;

    fn from_str(text: &str) -> Result<Self, ChatIdError> {
        if let Ok(number) = text.parse() {
            return if number == 0 { Err(ChatIdError) } else { Ok(Self::Number(number)) };
        }
        let name = text.strip_prefix('@').ok_or(ChatIdError)?;
        let fits = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits { Ok(Self::Name(text.to_owned())) } else { Err(ChatIdError) }
    }
}

impl ChatId {
    /// Whether Telegram's limit for groups holds.
    fn is_group(&self) -> bool {
        matches!(self, Self::Number(..0))
    }
}

/// One Telegram chat.
#[derive(Debug)]
pub struct Telegram {
    endpoint: Endpoint,
    headers: HeaderMap,
    token: Secret,
    chat: ChatId,
}

/// Why a channel cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelegramError {
    /// Not a bot's token.
    #[error("`bot_token` does not look like a token: it must be digits, a colon, and letters, digits, - or _")]
    Token,
    /// No method can be called below it.
    #[error("`api_url` cannot be extended by a method's name")]
    Api,
}

impl Telegram {
    /// The bot of `token`, posting to `chat` by the Bot API at `api`.
    pub fn new(api: &Url, token: Secret, chat: ChatId) -> Result<Self, TelegramError> {
        let (id, rest) = token.expose().split_once(':').ok_or(TelegramError::Token)?;
        let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        let letters = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !digits || !letters {
            return Err(TelegramError::Token);
        }
        let url = format!("{}/bot{}/sendMessage", api.as_str().trim_end_matches('/'), token.expose());
        let endpoint = Endpoint::new(Url::parse(&url).map_err(|_| TelegramError::Api)?).known_as(api);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { endpoint, headers, token, chat })
    }

    /// The request that posts `message`, to where the chat has moved.
    fn parcel(&self, message: Message, occasion: &Occasion<'_>) -> Parcel {
        let detour = occasion.detour.and_then(|to| to.parse().ok());
        let addressed = Addressed { chat_id: detour.as_ref().unwrap_or(&self.chat), message };
        let body = serde_json::to_vec(&addressed).expect("texts and numbers are always JSON");
        Parcel { endpoint: self.endpoint.clone(), headers: self.headers.clone(), body: body.into() }
    }
}

impl Channel for Telegram {
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel {
        let card = Card::new(delivery, occasion);
        let mut message = Message::default();
        let text = &mut message.text;
        if delivery.plain {
            MARKED.strong(text, &card.headline);
            text.push('\n');
            MARKED.rows(text, &card, Rooms::PLAIN);
            let room = TEXT_UNITS_MAX.saturating_sub(text.encode_utf16().count());
            // Links stand in the text: a refused button may be why there is a plain form.
            push_links(text, &card.links(), room, ["\n\n", "\n"], write_link);
            message.entities = entities(text);
        } else {
            HTML.strong(text, &card.headline);
            text.push('\n');
            HTML.rows(text, &card, Rooms::CARD);
            message.parse_mode = Some("HTML");
            message.reply_markup = keyboard(card.links());
        }
        self.parcel(message, occasion)
    }

    fn render_digest(&self, digest: &Digest, plain: bool, occasion: &Occasion<'_>) -> Option<Parcel> {
        let message = digest::message(&DigestCard::new(digest, plain, occasion), plain);
        Some(self.parcel(message, occasion))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        let answer: Option<Answer> = serde_json::from_slice(&reply.body).ok();
        let Some(answer) = answer else {
            // Gateways answer in HTML. A 2xx of theirs is none of Telegram's.
            return if reply.status.is_success() {
                Meaning::Later.verdict(reply, format!("not an answer of Telegram: {}", explain(reply)))
            } else {
                by_status_alone(reply)
            };
        };
        if answer.ok && reply.status.is_success() {
            return Verdict::DELIVERED;
        }
        if let Some(to) = answer.parameters.and_then(|parameters| parameters.migrate_to_chat_id) {
            return Verdict::Moved { to: to.to_string(), why: explain(reply) };
        }
        if let Some(meaning) = meaning(&answer.description.to_lowercase()) {
            return meaning.verdict(reply, explain(reply));
        }
        if reply.status.is_success() {
            // A failure inside a success: its own code is what counts.
            let status = http::StatusCode::from_u16(answer.error_code).ok().filter(|status| !status.is_success());
            let status = status.unwrap_or(http::StatusCode::BAD_REQUEST);
            return by_status_alone(&Reply { status, ..reply.clone() });
        }
        by_status_alone(reply)
    }

    fn secrets(&self) -> Vec<Secret> {
        vec![self.endpoint.secret(), self.token.clone()]
    }
}

/// What a description means, in lower case; others go by status. Source: tdlib/telegram-bot-api and tdlib/td. Descriptions are
/// text for people with a prefix (`Bad Request: `), so they are searched, not compared.
fn meaning(description: &str) -> Option<Meaning> {
    const BROKEN: &[&str] = &[
        "chat not found",
        "chat_id is empty",
        "message thread not found",
        "not enough rights",
        "have no write access",
        "topic_closed",
        "bot was kicked",
        "bot is not a member",
        "group chat was deleted",
        "group chat was upgraded",
        "user is deactivated",
        "bot was blocked",
        "bot can't initiate",
        "bot can't send messages",
        "unauthorized",
    ];
    const REFUSED: &[&str] = &[
        "can't parse entities",
        "message is too long",
        "text is too long",
        "message text is empty",
        "unsupported parse_mode",
        "button_url_invalid",
        "wrong http url",
    ];
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| description.contains(phrase));
    if description.starts_with("too many requests") {
        Some(Meaning::TooMany)
    } else if says(REFUSED) {
        Some(Meaning::Refused)
    } else if says(BROKEN) {
        Some(Meaning::Broken)
    } else {
        None
    }
}

/// Telegram's description of what happened.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error_code: u16,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    migrate_to_chat_id: Option<i64>,
}

#[derive(Serialize)]
struct Addressed<'a> {
    chat_id: &'a ChatId,
    #[serde(flatten)]
    message: Message,
}

#[derive(Default, Serialize)]
struct Message {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parse_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entities: Vec<Entity>,
    link_preview_options: Preview,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_markup: Option<Keyboard>,
}

/// Previews of links, never.
#[derive(Serialize)]
struct Preview {
    is_disabled: bool,
}

impl Default for Preview {
    fn default() -> Self {
        Self { is_disabled: true }
    }
}

/// A link in a plain text, where clients make URLs clickable.
fn write_link(out: &mut String, link: &Link) {
    out.extend([link.label, ": ", &link.url]);
}

/// A stretch of code, in UTF-16 units, as Telegram counts.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Entity {
    r#type: &'static str,
    offset: usize,
    length: usize,
}

/// Takes the marks of [`MARKED`] out of `text` and says where they were.
fn entities(text: &mut String) -> Vec<Entity> {
    let mut found = Vec::with_capacity(5);
    let (mut at, mut open) = (0, 0);
    text.retain(|c| {
        if MARK_OPEN.contains(c) {
            open = at;
        } else if MARK_CLOSE.contains(c) {
            found.push(Entity { r#type: "code", offset: open, length: at - open });
        } else {
            at += c.len_utf16();
            return true;
        }
        false
    });
    found
}

#[derive(Serialize)]
struct Keyboard {
    inline_keyboard: Vec<Vec<Button>>,
}

#[derive(Serialize)]
struct Button {
    text: &'static str,
    url: String,
}

/// Approve and Deny in one row, View in Console below, where a thumb does not hit it by mistake.
fn keyboard(links: Vec<Link>) -> Option<Keyboard> {
    let mut buttons: Vec<Button> = links.into_iter().map(|link| Button { text: link.label, url: link.url }).collect();
    let last = buttons.pop()?;
    let rows = [buttons, vec![last]];
    Some(Keyboard { inline_keyboard: rows.into_iter().filter(|row| !row.is_empty()).collect() })
}

fn build(settings: &mut Settings<'_>) -> Option<Built> {
    let hint = "ask @BotFather for it with /newbot, or /token for an old bot";
    let token = settings.require_secret("bot_token", hint);
    let api = settings.url("api_url").or_else(|| Url::parse(API).ok())?;
    let hint = "give the number from getUpdates (groups are negative), or @name of a public channel";
    let chat = match settings.json("chat_id") {
        Some(serde_json::Value::Number(number)) => number.to_string().parse(),
        Some(serde_json::Value::String(text)) => text.parse(),
        Some(_) => Err(ChatIdError),
        // `chat_id_file`, or a value that is a fault already.
        None if settings.has("chat_id") => settings.text("chat_id")?.parse(),
        None => {
            settings.fault("chat_id", String::from("is missing"), hint);
            return None;
        }
    };
    let chat: ChatId = match chat {
        Ok(chat) => chat,
        Err(error) => {
            settings.fault("chat_id", error.to_string(), hint);
            return None;
        }
    };
    let pace = if chat.is_group() { vec![PACE, PACE_GROUP] } else { vec![PACE] };
    match Telegram::new(&api, token?, chat) {
        Ok(channel) => Some(Built { channel: std::sync::Arc::new(channel), pace }),
        Err(error @ TelegramError::Token) => {
            settings.fault(
                "bot_token",
                error.to_string(),
                "copy the whole token that @BotFather sent, as in 123456:ABC-DEF",
            );
            None
        }
        Err(error @ TelegramError::Api) => {
            settings.fault("api_url", error.to_string(), "leave `api_url` out, or give it as https://host");
            None
        }
    }
}

#[cfg(test)]
mod tests;
