//! Slack: incoming webhooks, or `chat.postMessage` with a bot token, and the only kind whose cards can be answered in place.
//!
//! A card is a header, one section and a row of buttons. The section is `mrkdwn` with `verbatim`, and hostile text stands in code
//! spans with `&`, `<` and `>` escaped: mentions and disguised links need a `<`, and nothing else is active inside a code span.
//!
//! Replies: a webhook says `ok` in plain text, or names its error there; the Web API answers 200 to everything and puts
//! `"ok": false` into JSON. Both tables are in [`meaning`].
//!
//! A card that has ended is told by `ended.rs`, and what only the one who clicked reads by `whisper.rs`.
//!
//! Absent on purpose: what a click does. [`Interactivity`] only says what it is held against.

mod digest;
mod ended;
mod form;
mod interactivity;
mod message;
mod whisper;

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use url::Url;

use self::message::{Block, Element, Message};
pub use self::{
    ended::{Ended, Given, How},
    interactivity::{Approver, ApproverError, Interactivity, is_id},
    whisper::Whisper,
};
use super::{
    Built, Channel, Endpoint, Kind, Occasion, Parcel, PostedCard, Rate, button,
    card::{Ask, Card, Link, Markup, Rooms, push_links},
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
    name: "slack",
    concurrency: 1,
    chat: true,
    sample: "webhook_url = \"{base}/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx\"\n\
             signing_secret = \"8f742231b10e8888abcd99yyyzzz85a5\"\n",
    form: &form::FORM,
    build,
};

/// One message per second per channel; bursts are tolerated, not promised. Source: Slack, "Rate limits".
const PACE: Rate = Rate { count: 1, per: Duration::from_secs(1), burst: 1 };

/// Where the Web API is.
const API: &str = "https://slack.com/api";

/// The longest plain message, in characters: what Slack recommends for `text`.
const TEXT_CHARS_MAX: usize = 4_000;

/// How long the signing secrets are that Slack makes: 16 bytes in hexadecimal digits, as the pages of apps show them.
const SIGNING_SECRET_DIGITS: usize = 32;

/// Hostile text is counted after escaping, in UTF-16 units: whatever Slack counts is never more. The backtick would end the span.
const MARKUP: Markup = Markup {
    strong: ("*", "*"),
    quote: ("`", "`"),
    script: Script { escape, cost: |c| escape(c).map_or(c.len_utf16(), str::len) },
};

fn escape(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '`' => Some("'"),
        _ => None,
    }
}

/// How messages get in.
#[derive(Clone, Debug)]
pub enum Door {
    /// An incoming webhook. The URL is the secret, and names the channel.
    Webhook(Url),
    /// The Web API.
    Bot {
        /// Where it is, without a method's name.
        api: Url,
        /// The bot's token.
        token: Secret,
        /// The channel's id or name.
        channel: String,
    },
}

/// One Slack channel.
#[derive(Debug)]
pub struct Slack {
    endpoint: Endpoint,
    /// Where messages are changed, with a bot token.
    update: Option<Endpoint>,
    headers: HeaderMap,
    /// With a bot token: the channel and the token.
    bot: Option<(String, Secret)>,
    interactivity: Interactivity,
}

/// Why a channel cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlackError {
    /// It could not stand in a header.
    #[error("`bot_token` has characters that no token has")]
    Token,
    /// No method can be called below it.
    #[error("`api_url` cannot be extended by a method's name")]
    Api,
}

impl Slack {
    /// A channel behind `door`.
    pub fn new(door: Door, interactivity: Interactivity) -> Result<Self, SlackError> {
        let mut headers = json_headers();
        let (endpoint, update, bot) = match door {
            Door::Webhook(url) => (Endpoint::new(url), None, None),
            Door::Bot { api, token, channel } => {
                let mut bearer =
                    HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| SlackError::Token)?;
                bearer.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, bearer);
                let method = |name: &str| {
                    let url = format!("{}/{name}", api.as_str().trim_end_matches('/'));
                    let url = Url::parse(&url).map_err(|_| SlackError::Api)?;
                    Ok(Endpoint::new(url).known_as(&api))
                };
                (method("chat.postMessage")?, Some(method("chat.update")?), Some((channel, token)))
            }
        };
        Ok(Self { endpoint, update, headers, bot, interactivity })
    }

    /// What clicks on its cards are held against.
    pub fn interactivity(&self) -> &Interactivity {
        &self.interactivity
    }

    fn parcel(&self, message: &Message<'_>) -> Parcel {
        let body = serde_json::to_vec(message).expect("texts and flags are always JSON");
        Parcel { endpoint: self.endpoint.clone(), headers: self.headers.clone(), body: body.into() }
    }

    fn buttons(&self, card: &Card<'_>, delivery: &Delivery) -> Vec<Element> {
        let mut elements = Vec::with_capacity(3);
        match (&card.ask, self.interactivity.signing_secrets.first()) {
            (Some(Ask { approval, .. }), Some(secret)) => {
                let agent = &delivery.decision.agent.id;
                let value = button::seal(secret, &delivery.channel, approval, agent, card.tool);
                elements.push(Element::live("approve", "Approve", "primary", value.clone()));
                elements.push(Element::live("deny", "Deny", "danger", value));
            }
            (Some(_), None) => elements.extend(card.review().map(|link| Element::link("review", link))),
            (None, _) => {}
        }
        elements.extend(card.view().map(|link| Element::link("view", link)));
        elements
    }
}

impl Channel for Slack {
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel {
        let card = Card::new(delivery, occasion);
        let mut message = Message::new(self.bot.as_ref().map(|(channel, _)| channel.as_str()));
        if delivery.plain {
            message.text = plain(&card);
        } else {
            message.text = notification(&card);
            let mut text = String::with_capacity(512);
            MARKUP.rows(&mut text, &card, Rooms::CARD);
            message.blocks = vec![Block::header(&card.headline), Block::section(text)];
            message.blocks.extend(Block::actions(self.buttons(&card, delivery)));
        }
        self.parcel(&message)
    }

    fn render_digest(&self, digest: &Digest, plain: bool, occasion: &Occasion<'_>) -> Option<Parcel> {
        let card = DigestCard::new(digest, plain, occasion);
        let mut message = Message::new(self.bot.as_ref().map(|(channel, _)| channel.as_str()));
        digest::write(&mut message, &card, plain);
        Some(self.parcel(&message))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        let text = reply.text();
        let said = Said::read(text.trim());
        if let Said::Ok = said
            && reply.status.is_success()
        {
            return Verdict::DELIVERED;
        }
        if let Said::Error(code) = &said
            && let Some(meaning) = meaning(code)
        {
            return meaning.verdict(reply, explain(reply));
        }
        if !reply.status.is_success() {
            return by_status_alone(reply);
        }
        match said {
            // An error that we do not know, with a 2xx: as the Web API does it.
            Said::Error(_) => Meaning::Refused.verdict(reply, explain(reply)),
            // A 2xx that is not Slack's: a proxy or a maintenance page in between. It refuses nothing, so it is tried again.
            Said::Ok | Said::Other => {
                Meaning::Later.verdict(reply, format!("not an answer of Slack: {}", explain(reply)))
            }
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        let mut secrets = vec![self.endpoint.secret()];
        secrets.extend(self.bot.iter().map(|(_, token)| token.clone()));
        secrets.extend(self.interactivity.signing_secrets.iter().cloned());
        secrets
    }

    fn posted(&self, reply: &Reply) -> Option<PostedCard> {
        #[derive(Deserialize)]
        struct Posted {
            ok: bool,
            channel: String,
            ts: String,
        }
        // What only looks like an id must not come back as somebody's words.
        let is_ts = |ts: &str| (3..=32).contains(&ts.len()) && ts.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        self.update.as_ref()?;
        let Posted { ok, channel, ts } = serde_json::from_slice(&reply.body).ok()?;
        (ok && is_id(&channel) && is_ts(&ts)).then_some(PostedCard { conversation: channel, ts })
    }

    fn answerable(&self) -> Option<&Self> {
        Some(self)
    }
}

/// The headers of every request that brings its own right to be posted.
fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))])
}

/// The line that a phone shows while the card is closed, and that screen readers read.
fn notification(card: &Card<'_>) -> String {
    let mut text = String::with_capacity(160);
    text.push_str(&card.headline);
    text.push_str(": ");
    MARKUP.quote(&mut text, card.tool, Rooms::PLAIN.tool);
    text.push_str(" by ");
    MARKUP.quote(&mut text, card.agent, Rooms::PLAIN.agent);
    text.push_str(", ");
    text.push_str(&card.risk);
    text
}

/// The card without blocks, for when Slack refuses ours: `text` alone, so no buttons but links.
fn plain(card: &Card<'_>) -> String {
    let mut text = String::with_capacity(512);
    MARKUP.strong(&mut text, &card.headline);
    text.push('\n');
    MARKUP.rows(&mut text, card, Rooms::PLAIN);
    let links: Vec<Link> = [card.review(), card.view()].into_iter().flatten().collect();
    let room = TEXT_CHARS_MAX.saturating_sub(text.encode_utf16().count());
    push_links(&mut text, &links, room, ["\n", " | "], write_link);
    text
}

/// Writes a link as mrkdwn. Only `&` is left to escape: `Link` promises that there is no bracket and no bar.
fn write_link(out: &mut String, link: &Link) {
    let url = link.url.replace('&', "&amp;");
    out.extend(["<", &url, "|", link.label, ">"]);
}

/// What a body says.
enum Said<'a> {
    /// `ok`, or JSON with `"ok": true`.
    Ok,
    /// The name of an error: the first word of the text, or `error` of the JSON.
    Error(Cow<'a, str>),
    /// Nothing in Slack's words.
    Other,
}

impl<'a> Said<'a> {
    fn read(body: &'a str) -> Self {
        #[derive(Deserialize)]
        struct Answer<'a> {
            ok: bool,
            #[serde(borrow, default)]
            error: Option<Cow<'a, str>>,
        }
        if body == "ok" {
            return Self::Ok;
        }
        if body.starts_with('{') {
            return match serde_json::from_str(body) {
                Ok(Answer { ok: true, .. }) => Self::Ok,
                Ok(Answer { ok: false, error }) => Self::Error(error.unwrap_or_default()),
                Err(_) => Self::Other,
            };
        }
        let end = body.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(body.len());
        if end == 0 { Self::Other } else { Self::Error(Cow::Borrowed(&body[..end])) }
    }
}

/// What an error of Slack means. Source: the tables of api.slack.com for webhooks (2016-05-17) and `chat.postMessage`, and
/// what has been seen since; others go by status.
fn meaning(code: &str) -> Option<Meaning> {
    Some(match code {
        "invalid_payload"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "invalid_attachments"
        | "no_text"
        | "missing_text_or_fallback_or_attachments"
        | "too_many_attachments"
        | "msg_too_long"
        | "msg_blocks_too_long" => Meaning::Refused,
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => Meaning::TooMany,
        "rollup_error" | "service_unavailable" | "internal_error" | "fatal_error" | "request_timeout" => Meaning::Later,
        "user_not_found"
        | "action_prohibited"
        | "invalid_token"
        | "posting_to_general_channel_denied"
        | "channel_not_found"
        | "channel_is_archived"
        | "no_service"
        | "no_service_id"
        | "no_active_hooks"
        | "no_team"
        | "team_disabled"
        | "not_in_channel"
        | "is_archived"
        | "restricted_action"
        | "token_revoked"
        | "token_expired"
        | "account_inactive"
        | "invalid_auth"
        | "not_authed"
        | "missing_scope"
        | "ekm_access_denied"
        | "org_login_required"
        | "team_access_not_granted"
        | "no_permission" => Meaning::Broken,
        _ => return None,
    })
}

/// Whether a signing secret has the form of those that Slack makes. Nothing promises that form, so another one is no fault.
fn looks_like_slacks(secret: &Secret) -> bool {
    let digits = secret.expose().as_bytes();
    digits.len() == SIGNING_SECRET_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
}

fn build(settings: &mut Settings<'_>) -> Option<Built> {
    let webhook = settings.url("webhook_url");
    let token = settings.secret("bot_token");
    let name = settings.text("channel");
    let api = settings.url("api_url");
    let approvers = settings.texts("approvers").map(|list| {
        let read = |one: &String| match one.parse::<Approver>() {
            Ok(approver) => Some(approver),
            Err(error) => {
                let hint = "give member ids, as in U024BE7LH, with the workspace for one of another, as in T012AB3C4/U024BE7LH";
                settings.fault("approvers", error.to_string(), hint);
                None
            }
        };
        list.iter().filter_map(read).collect()
    });
    let signing_secrets = settings.secrets("signing_secret");
    if !signing_secrets.iter().all(looks_like_slacks) {
        let problem =
            format!("does not look like one of Slack's, which are {SIGNING_SECRET_DIGITS} hexadecimal digits");
        settings.warn("signing_secret", problem, "copy the Signing Secret of the app's Basic Information once more");
    }
    let mut interactivity = Interactivity { signing_secrets, approvers, ..Interactivity::default() };
    if let Some(hosts) = settings.texts("response_hosts") {
        if let Some(bad) = hosts.iter().find(|host| host.is_empty() || host.contains(['/', '@', '?', '#', ' '])) {
            let problem = format!("`{bad}` is not a host");
            settings.fault("response_hosts", problem, "list host names alone, as in hooks.slack.com");
        }
        interactivity.response_hosts = hosts;
    }
    let door = match (settings.has("webhook_url"), settings.has("bot_token")) {
        (true, true) => {
            let problem = String::from("`webhook_url` and `bot_token` are both given, and only one can post");
            settings.fault("bot_token", problem, "keep `bot_token` with `channel`, or keep `webhook_url` alone");
            return None;
        }
        (false, false) => {
            let problem = String::from("nothing says where to post");
            settings.fault("webhook_url", problem, "give `webhook_url`, or `bot_token` with `channel`");
            return None;
        }
        (true, false) => {
            if settings.has("channel") {
                let problem = String::from("a webhook posts to the channel that it was made for");
                settings.fault("channel", problem, "leave `channel` out, or use `bot_token` in place of `webhook_url`");
            }
            Door::Webhook(webhook?)
        }
        (false, true) => {
            if name.is_none() && !settings.has("channel") {
                let problem = String::from("`bot_token` is given without `channel`");
                settings.fault("channel", problem, "give the id of the Slack channel, as in C024BE91L");
            }
            let api = api.or_else(|| Url::parse(API).ok())?;
            Door::Bot { api, token: token?, channel: name? }
        }
    };
    match Slack::new(door, interactivity) {
        Ok(channel) => Some(Built { channel: std::sync::Arc::new(channel), pace: vec![PACE] }),
        Err(error @ SlackError::Token) => {
            settings.fault("bot_token", error.to_string(), "copy the token that begins with `xoxb-` once more");
            None
        }
        Err(error @ SlackError::Api) => {
            settings.fault("api_url", error.to_string(), "leave `api_url` out, or give it as https://host/api");
            None
        }
    }
}

#[cfg(test)]
mod tests;
