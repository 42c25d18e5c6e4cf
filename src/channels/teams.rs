//! Microsoft Teams: a Workflow that was made with "When a Teams webhook request is received".
//!
//! A card is an Adaptive Card 1.4: newer ones show as "couldn't be displayed". Cards there know no code span, so hostile text is
//! escaped for the Markdown that Teams reads in every text ([`escape`]).
//!
//! A 202 means that the flow was queued and promises no more; a card that is too large or malformed fails inside it, unseen. So
//! the limits are kept by construction, with room to spare, and success counts as accepted, not delivered.
//!
//! Absent on purpose: `Action.Submit`, which webhooks do not support. Approvals are links.

mod digest;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Built, Channel, Endpoint, Kind, Occasion, Parcel, Rate,
    card::{Card, Link, Markup, Rooms},
    digest_card::DigestCard,
    form::{Field, Form, Input},
    judging::{Meaning, by_status_alone, explain},
    text::{self, Script},
};
use crate::{
    model::{Delivery, Digest, Reply, Secret, Verdict},
    settings::Settings,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "teams",
    concurrency: 1,
    chat: true,
    sample: "webhook_url = \"{base}/powerautomate/automations/direct/workflows/0a1b/triggers/manual/paths/invoke\
             ?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=abcdefghijklmnopqrstuvwx\"\n",
    form: &FORM,
    build,
};

/// How one is entered by hand. The product page still tells of connectors, which Microsoft has retired: a Workflow is the way since.
static FORM: Form = Form {
    title: "Microsoft Teams",
    sentence: "Cards in a Teams channel; approvals are links to this console.",
    steps: &[
        "In your Teams channel: the three dots, then Workflows.",
        "Choose the template \"Post to a channel when a webhook request is received\", and name it.",
        "Save, copy the URL and paste it here. URLs of the old connectors no longer post anything.",
        "Pick events and severity.",
    ],
    fields: &[
        Field::new("webhook_url", "Webhook URL", Input::Url)
            .hint("Of the Workflow.")
            .like("https://...api.powerplatform.com/.../workflows/...")
            .needed(),
        Field::new("allow_retired", "Allow a retired connector", Input::Switch { default: false })
            .hint("For what still answers at the address of an old connector.")
            .more(),
    ],
};

/// Half of the 4 requests a second that are seen to be refused.
const PACE: Rate = Rate { count: 2, per: Duration::from_secs(1), burst: 2 };

/// The largest body, in bytes: the flow takes 28,672 after the server has wrapped the card, which added a fifth when measured.
/// The rooms of [`Rooms::CARD`] times four bytes for a character, three links and the frame stay below; a property test holds it.
#[cfg(test)]
const BODY_BYTES_MAX: usize = 20_000;

/// The reasons without any markup around them; [`escape`] comes after the cut.
const UNMARKED: Markup = Markup { strong: ("", ""), quote: ("", ""), script: Script::VERBATIM };

/// One Teams channel.
#[derive(Debug)]
pub struct Teams {
    endpoint: Endpoint,
    headers: HeaderMap,
    /// The signature in the URL, as it stands there and decoded.
    signature: Vec<Secret>,
    /// Whether the host is of the retired connectors, which answer 200 with the text of an error.
    connector: bool,
}

impl Teams {
    /// A channel behind `webhook`, whose query is kept byte by byte: it is signed.
    pub fn new(webhook: Url) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let raw = webhook.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("sig="));
        let decoded = webhook.query_pairs().filter(|(key, _)| key == "sig").map(|(_, value)| value.into_owned());
        let signature = raw.map(String::from).chain(decoded).map(Secret::new).collect();
        let connector =
            webhook.host_str().is_some_and(|host| host.ends_with(".office.com") || host.ends_with(".office365.com"));
        Self { endpoint: Endpoint::new(webhook), headers, signature, connector }
    }

    fn parcel(&self, body: Vec<Element>, actions: Vec<Action>) -> Parcel {
        let content = Content {
            schema: "http://adaptivecards.io/schemas/adaptive-card.json",
            r#type: "AdaptiveCard",
            version: "1.4",
            msteams: Width { width: "Full" },
            body,
            actions,
        };
        let attachment =
            Attachment { content_type: "application/vnd.microsoft.card.adaptive", content_url: (), content };
        let message = Message { r#type: "message", attachments: [attachment] };
        let body = serde_json::to_vec(&message).expect("texts and flags are always JSON");
        Parcel { endpoint: self.endpoint.clone(), headers: self.headers.clone(), body: body.into() }
    }
}

/// Whether `host` served Office 365 connectors, which Microsoft has retired.
pub(crate) fn is_retired(host: &str) -> bool {
    matches!(host, "outlook.office.com" | "outlook.office365.com" | "webhook.office.com")
        || host.ends_with(".webhook.office.com")
}

impl Channel for Teams {
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel {
        let card = Card::new(delivery, occasion);
        let (body, actions) = if delivery.plain { plain(&card) } else { rich(&card) };
        self.parcel(body, actions)
    }

    fn render_digest(&self, digest: &Digest, plain: bool, occasion: &Occasion<'_>) -> Option<Parcel> {
        let (body, actions) = digest::elements(&DigestCard::new(digest, plain, occasion), plain);
        Some(self.parcel(body, actions))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        let body = reply.text();
        let body = body.trim();
        if reply.status.is_success() {
            if let Some(status) = quoted_status(body) {
                // An error that names no failure is still an error.
                let status = if status.is_success() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
                return by_status_alone(&Reply { status, ..reply.clone() });
            }
            return match body {
                "1" => Verdict::DELIVERED,
                _ if self.connector && !body.is_empty() => Meaning::Refused.verdict(reply, explain(reply)),
                _ => Verdict::Delivered { confirmed: false, breathe: None },
            };
        }
        match error_code(reply).as_deref() {
            // The URL lacks its signature or version, or the flow is switched off: whoever owns the flow must act.
            Some("DirectApiAuthorizationRequired" | "MissingApiVersionParameter" | "WorkflowTriggerIsNotEnabled") => {
                Meaning::Broken.verdict(reply, explain(reply))
            }
            Some("RequestEntityTooLarge" | "MessageSizeExceeded") => Meaning::Refused.verdict(reply, explain(reply)),
            Some(_) | None => by_status_alone(reply),
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        std::iter::once(self.endpoint.secret()).chain(self.signature.iter().cloned()).collect()
    }
}

/// The status in `... Microsoft Teams endpoint returned HTTP error 429 with ContextId ...`, as connectors wrote it into a 200.
fn quoted_status(body: &str) -> Option<StatusCode> {
    let digits = body.split_once("endpoint returned HTTP error ")?.1.get(..3)?;
    StatusCode::from_bytes(digits.as_bytes()).ok()
}

/// The code in `{"error":{"code":"...","message":"..."}}`.
fn error_code(reply: &Reply) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        error: Problem,
    }
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    serde_json::from_slice(&reply.body).ok().map(|answer: Answer| answer.error.code)
}

/// Headline, title, facts and notes; links as buttons.
fn rich(card: &Card<'_>) -> (Vec<Element>, Vec<Action>) {
    let mut body = Vec::with_capacity(5);
    body.push(Element::heading(&card.headline));
    body.extend(card.title.map(|title| Element::text(quote(title, Rooms::CARD.title))));
    body.push(Element::FactSet { facts: facts(card, Rooms::CARD).into() });
    body.extend(card.notes.iter().map(|note| Element::text(note.clone())));
    (body, card.links().into_iter().map(Action::open).collect())
}

/// The same in paragraphs and less than half of the length, for when the card was refused. Links stand in the text.
fn plain(card: &Card<'_>) -> (Vec<Element>, Vec<Action>) {
    let mut body = Vec::with_capacity(10);
    body.push(Element::heading(&card.headline));
    body.extend(card.title.map(|title| Element::text(quote(title, Rooms::PLAIN.title))));
    body.extend(facts(card, Rooms::PLAIN).map(|fact| Element::text(format!("{}: {}", fact.title, fact.value))));
    body.extend(card.notes.iter().map(|note| Element::text(note.clone())));
    body.extend(card.links().into_iter().map(|link| Element::text(in_text(&link))));
    (body, Vec::new())
}

/// A link in a text.
fn in_text(link: &Link) -> String {
    format!("[{}]({})", link.label, link.url)
}

fn facts(card: &Card<'_>, rooms: Rooms) -> [Fact; 4] {
    let mut why = String::new();
    UNMARKED.why(&mut why, card.reasons, rooms.why);
    [
        Fact { title: "agent", value: quote(card.agent, rooms.agent) },
        Fact { title: "tool", value: quote(card.tool, rooms.tool) },
        Fact { title: "why", value: escape(&why) },
        Fact { title: "risk", value: card.risk.clone() },
    ]
}

/// Hostile text, cleaned and cut, then escaped.
fn quote(hostile: &str, room: usize) -> String {
    escape(&text::one_line(hostile, room))
}

/// `line` with nothing in it that Teams would read as Markdown, as a function of Adaptive Cards (`{{DATE(...)}}`) or as a bare
/// link.
///
/// Names stay readable where that is safe, for clients that show the backslash: `_`, `-` and `.` inside a word mean nothing.
fn escape(line: &str) -> String {
    let mut out = String::with_capacity(line.len() + 16);
    let mut before = [' '; 3];
    let mut number = true;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let active = match c {
            '\\' | '`' | '*' | '[' | ']' | '(' | ')' | '{' | '}' | '<' | '>' | '~' | '|' | '&' | '@' | '#' => true,
            // Emphasis opens and closes only at the edge of a word.
            '_' => !(before[2].is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric())),
            // Lists and headings begin lines.
            '-' | '+' | '=' => out.is_empty(),
            // `1. ` begins a list, `www.` a link.
            '.' => (number && !out.is_empty()) || before.iter().all(|w| matches!(w, 'w' | 'W')),
            // `://` makes a link of what stands around it.
            '/' => before[2] == ':',
            _ => false,
        };
        if active {
            out.push('\\');
        }
        out.push(c);
        number &= c.is_ascii_digit();
        before = [before[1], before[2], c];
    }
    out
}

#[derive(Serialize)]
struct Message {
    r#type: &'static str,
    attachments: [Attachment; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    content_type: &'static str,
    /// Always null, and always there.
    content_url: (),
    content: Content,
}

#[derive(Serialize)]
struct Content {
    #[serde(rename = "$schema")]
    schema: &'static str,
    r#type: &'static str,
    version: &'static str,
    msteams: Width,
    body: Vec<Element>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<Action>,
}

#[derive(Serialize)]
struct Width {
    width: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Element {
    TextBlock {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<&'static str>,
        /// Left out, a text is cut at the edge of the card.
        wrap: bool,
    },
    FactSet {
        facts: Vec<Fact>,
    },
}

impl Element {
    fn heading(ours: &str) -> Self {
        Self::TextBlock { text: ours.to_owned(), weight: Some("Bolder"), size: Some("Large"), wrap: true }
    }

    fn text(text: String) -> Self {
        Self::TextBlock { text, weight: None, size: None, wrap: true }
    }
}

#[derive(Serialize)]
struct Fact {
    title: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Action {
    r#type: &'static str,
    title: &'static str,
    url: String,
}

impl Action {
    fn open(link: Link) -> Self {
        Self { r#type: "Action.OpenUrl", title: link.label, url: link.url }
    }
}

fn build(settings: &mut Settings<'_>) -> Option<Built> {
    let allow_retired = settings.boolean("allow_retired").unwrap_or(false);
    let hint =
        "make a Workflow from the template \"Post to a channel when a webhook request is received\" and copy its URL";
    let webhook = settings.require_url("webhook_url", hint)?;
    if !allow_retired && webhook.host_str().is_some_and(is_retired) {
        let problem = String::from("Microsoft has retired connectors: this URL no longer posts anything");
        settings.fault(
            "webhook_url",
            problem,
            "make a Workflow in Teams and use its URL, or set `allow_retired` to true",
        );
        return None;
    }
    Some(Built { channel: Arc::new(Teams::new(webhook)), pace: vec![PACE] })
}

#[cfg(test)]
mod tests;
