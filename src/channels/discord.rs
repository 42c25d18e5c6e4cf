//! Discord: incoming webhooks.
//!
//! A card is one embed. Webhooks cannot carry buttons, so approvals are links to the console's page. Hostile text stands in code
//! spans, `allowed_mentions` forbids every mention that could slip through, and embeds never preview the links in them.
//!
//! `wait=true` is always asked for: without it Discord answers 204 to messages that it then throws away.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{
    Built, Channel, Endpoint, Kind, Occasion, Parcel, Rate,
    card::{Card, Link, Markup, Rooms, push_links},
    digest_card::DigestCard,
    form::{Field, Form, Input},
    judging::{Meaning, by_status_alone, explain, retry_after},
    text::{self, Script},
};
use crate::{
    model::{Delivery, Digest, Reply, Secret, Severity, Verdict},
    settings::Settings,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "discord",
    concurrency: 1,
    chat: true,
    sample: "webhook_url = \"{base}/api/webhooks/1234567890/abcdefghijklmnopqrstuvwx\"\n",
    form: &FORM,
    build,
};

/// How one is entered by hand.
static FORM: Form = Form {
    title: "Discord",
    sentence: "Cards in a Discord channel; approvals are links to this console.",
    steps: &[
        "In your Discord server: channel settings, Integrations, Webhooks, New Webhook.",
        "Copy the webhook's URL and paste it here.",
        "Pick events and severity.",
    ],
    fields: &[Field::new("webhook_url", "Webhook URL", Input::Url)
        .hint("From channel settings, Integrations, Webhooks, Copy Webhook URL.")
        .like("https://discord.com/api/webhooks/...")
        .needed()],
};

/// Per webhook, 5 in 2 seconds in practice; the `X-RateLimit-*` headers say more, and are listened to.
const PACE: Rate = Rate { count: 2, per: Duration::from_secs(1), burst: 5 };

/// The form that Discord requires; others may be blocked before they reach it.
const USER_AGENT: &str = concat!("DiscordBot (", env!("CARGO_PKG_REPOSITORY"), ", ", env!("CARGO_PKG_VERSION"), ")");

/// The longest `description` of an embed, in characters. The sum over all embeds is 6,000, which one cannot reach with it.
const DESCRIPTION_CHARS_MAX: usize = 4_096;

/// The longest `content`, in characters.
const CONTENT_CHARS_MAX: usize = 2_000;

/// `SUPPRESS_EMBEDS`: no previews of links in `content`.
const SUPPRESS_EMBEDS: u32 = 4;

/// A longer wait in a header is doubted when the body asks for a shorter one: old API versions gave milliseconds.
const WAIT_DOUBTED: Duration = Duration::from_mins(10);

/// Inside a code span only the backtick is active. UTF-16 units are counted: whatever Discord counts is never more.
const MARKUP: Markup = Markup {
    strong: ("**", "**"),
    quote: ("`", "`"),
    script: Script { escape: |c| (c == '`').then_some("'"), cost: char::len_utf16 },
};

/// One Discord webhook.
#[derive(Debug)]
pub struct Discord {
    endpoint: Endpoint,
    headers: HeaderMap,
    /// The webhook's own secret: `.../webhooks/{id}/{token}`.
    token: Option<Secret>,
}

impl Discord {
    /// A channel behind `webhook`. Its query is kept (`thread_id`), but for `wait`, which is ours.
    pub fn new(mut webhook: Url) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let mut path = webhook.path_segments().into_iter().flatten().skip_while(|segment| *segment != "webhooks");
        let token = path.nth(2).filter(|token| !token.is_empty()).map(Secret::new);
        let kept = webhook.query().unwrap_or_default().split('&');
        let kept = kept.filter(|pair| !pair.is_empty() && *pair != "wait" && !pair.starts_with("wait="));
        let query = kept.chain(["wait=true"]).collect::<Vec<_>>().join("&");
        let configured = webhook.clone();
        webhook.set_query(Some(&query));
        Self { endpoint: Endpoint::new(webhook).known_as(&configured), headers, token }
    }

    fn parcel(&self, message: &Message<'_>) -> Parcel {
        let body = serde_json::to_vec(message).expect("texts and numbers are always JSON");
        Parcel { endpoint: self.endpoint.clone(), headers: self.headers.clone(), body: body.into() }
    }
}

impl Channel for Discord {
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel {
        let card = Card::new(delivery, occasion);
        let mut text = String::with_capacity(640);
        let room = if delivery.plain {
            MARKUP.strong(&mut text, &card.headline);
            text.push('\n');
            MARKUP.rows(&mut text, &card, Rooms::PLAIN);
            CONTENT_CHARS_MAX
        } else {
            MARKUP.rows(&mut text, &card, Rooms::CARD);
            DESCRIPTION_CHARS_MAX
        };
        let room = room.saturating_sub(text.encode_utf16().count());
        push_links(&mut text, &card.links(), room, ["\n\n", " · "], write_link);
        self.parcel(&if delivery.plain {
            Message::plain(&text)
        } else {
            Message::card(Embed {
                title: &card.headline,
                url: card.view().map(|Link { url, .. }| url),
                description: &text,
                color: color(delivery.decision.severity),
                timestamp: delivery.decision.time.to_rfc3339_millis(),
            })
        })
    }

    fn render_digest(&self, digest: &Digest, plain: bool, occasion: &Occasion<'_>) -> Option<Parcel> {
        let card = DigestCard::new(digest, plain, occasion);
        let mut text = String::with_capacity(1_024);
        let mut end = String::new();
        push_links(&mut end, card.view.as_slice(), CONTENT_CHARS_MAX / 2, ["\n\n", ""], write_link);
        let room = if plain { CONTENT_CHARS_MAX } else { DESCRIPTION_CHARS_MAX };
        if plain {
            MARKUP.strong(&mut text, &card.headline);
            text.push('\n');
        }
        MARKUP.counts(&mut text, &card);
        let room = room.saturating_sub(text.encode_utf16().count() + end.len());
        MARKUP.worst(&mut text, &card, "\n\n", room, write_link);
        text.push_str(&end);
        Some(self.parcel(&if plain {
            Message::plain(&text)
        } else {
            Message::card(Embed {
                title: &card.headline,
                url: card.view.map(|Link { url, .. }| url),
                description: &text,
                color: color(card.severity),
                timestamp: digest.span.1.to_rfc3339_millis(),
            })
        }))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        if reply.status.is_success() {
            return Verdict::Delivered { confirmed: true, breathe: breathe(reply) };
        }
        let problem: Option<Problem> = serde_json::from_slice(&reply.body).ok();
        if let Some(problem) = &problem
            && let Some(meaning) = meaning(problem.code)
        {
            return meaning.verdict(reply, problem.explain(reply));
        }
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            let in_body = problem.and_then(|problem| Duration::try_from_secs_f64(problem.retry_after?).ok());
            let after = match (retry_after(reply), in_body) {
                (Some(longest), Some(asked)) if longest > WAIT_DOUBTED && asked <= WAIT_DOUBTED => Some(asked),
                (longest, _) => longest,
            };
            return Verdict::TryLater { after, throttled: true, why: explain(reply) };
        }
        by_status_alone(reply)
    }

    fn secrets(&self) -> Vec<Secret> {
        std::iter::once(self.endpoint.secret()).chain(self.token.clone()).collect()
    }
}

fn write_link(out: &mut String, link: &Link) {
    out.extend(["[", link.label, "](", &link.url, ")"]);
}

/// How long to wait after a success that used the last of the allowance.
fn breathe(reply: &Reply) -> Option<Duration> {
    if reply.header("x-ratelimit-remaining")?.trim() != "0" {
        return None;
    }
    // Only headers are asked: the body is the message that we sent, and holds no delay of Discord's.
    retry_after(&Reply { body: bytes::Bytes::new(), ..reply.clone() })
}

/// Discord's description of a failure.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after: Option<f64>,
    /// Of an invalid form: a tree of field names whose leaves are lists named `_errors`.
    #[serde(default)]
    errors: Value,
}

impl Problem {
    /// Why, with the fields that Discord complains about.
    fn explain(&self, reply: &Reply) -> String {
        let mut fields = Vec::new();
        complaints(&self.errors, &mut String::new(), &mut fields);
        if fields.is_empty() {
            return explain(reply);
        }
        let said = format!("{} (code {}): {}", self.message, self.code, fields.join("; "));
        format!("HTTP {}: {}", reply.status.as_u16(), text::one_line(&said, 300))
    }
}

/// Collects `path: message` of the first three complaints. The depth is bounded: the parser refuses more than 128 levels.
fn complaints(tree: &Value, path: &mut String, found: &mut Vec<String>) {
    for (name, below) in tree.as_object().into_iter().flatten() {
        if found.len() == 3 {
            return;
        }
        if name == "_errors" {
            let message = below.get(0).and_then(|error| error.get("message")).and_then(Value::as_str);
            found.push(format!("{path}: {}", message.unwrap_or("invalid")));
        } else {
            let mark = path.len();
            if mark > 0 {
                path.push('.');
            }
            path.push_str(name);
            complaints(below, path, found);
            path.truncate(mark);
        }
    }
}

/// What a code of Discord means; others go by status. Source: Discord, "Opcodes and status codes".
fn meaning(code: u64) -> Option<Meaning> {
    Some(match code {
        // Empty message, invalid form, invalid JSON, too large.
        50_006 | 50_035 | 50_109 | 40_005 => Meaning::Refused,
        // Unknown channel or webhook, missing permission, invalid token, Cloudflare's ban, too many webhooks, and the forum
        // errors: only whoever set the webhook up can mend them, by a `thread_id` in the URL for example.
        10_003 | 10_015 | 50_013 | 50_027 | 40_333 | 30_007 | 30_058 | 220_001..=220_004 | 40_058 | 40_067 => {
            Meaning::Broken
        }
        20_028 | 20_029 | 40_062 => Meaning::TooMany,
        // Sending is switched off for now.
        40_004 => Meaning::Later,
        _ => return None,
    })
}

/// The colour of the embed's edge.
fn color(severity: Severity) -> u32 {
    match severity {
        Severity::Low => 0x2e_86c1,
        Severity::Medium => 0xf1_c40f,
        Severity::High => 0xe6_7e22,
        Severity::Critical => 0xc0_392b,
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embeds: Option<[Embed<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u32>,
    allowed_mentions: Mentions,
}

impl<'a> Message<'a> {
    fn card(embed: Embed<'a>) -> Self {
        Self { content: None, embeds: Some([embed]), flags: None, allowed_mentions: Mentions::NONE }
    }

    fn plain(text: &'a str) -> Self {
        Self { content: Some(text), embeds: None, flags: Some(SUPPRESS_EMBEDS), allowed_mentions: Mentions::NONE }
    }
}

#[derive(Serialize)]
struct Embed<'a> {
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    description: &'a str,
    color: u32,
    timestamp: String,
}

/// Who may be mentioned.
#[derive(Serialize)]
struct Mentions {
    parse: [&'static str; 0],
}

impl Mentions {
    /// Nobody. Left out, a webhook's message pings users.
    const NONE: Self = Self { parse: [] };
}

fn build(settings: &mut Settings<'_>) -> Option<Built> {
    let hint = "copy it from Discord: channel settings, Integrations, Webhooks, Copy Webhook URL";
    let webhook = settings.require_url("webhook_url", hint)?;
    if webhook.path().ends_with("/slack") || webhook.path().ends_with("/github") {
        let problem = String::from("this is the address for messages of Slack or GitHub, and refuses Discord's own");
        settings.fault("webhook_url", problem, "leave the last part of the URL out: it ends with the webhook's token");
        return None;
    }
    Some(Built { channel: std::sync::Arc::new(Discord::new(webhook)), pace: vec![PACE] })
}

#[cfg(test)]
mod tests;
