//! A message as Slack reads it: text, and the few blocks of Block Kit that our cards are made of.

use serde::Serialize;

use super::super::card::Link;

#[derive(Serialize)]
pub(super) struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    pub(super) text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) blocks: Vec<Block<'a>>,
    unfurl_links: bool,
    unfurl_media: bool,
}

impl<'a> Message<'a> {
    /// An empty message to `channel`, which a webhook knows by itself.
    pub(super) fn new(channel: Option<&'a str>) -> Self {
        Self { channel, text: String::new(), blocks: Vec::new(), unfurl_links: false, unfurl_media: false }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Header { text: Text<'a> },
    Section { text: Text<'a> },
    Actions { block_id: &'static str, elements: Vec<Element> },
}

impl<'a> Block<'a> {
    pub(super) fn header(ours: &'a str) -> Self {
        Self::Header { text: Text::Plain { text: ours, emoji: false } }
    }

    /// A section of mrkdwn, in which Slack looks for no links and names by itself.
    pub(super) fn section(text: String) -> Self {
        Self::Section { text: Text::Markdown { text, verbatim: true } }
    }

    /// The row of buttons, where there are any.
    pub(super) fn actions(elements: Vec<Element>) -> Option<Self> {
        (!elements.is_empty()).then_some(Self::Actions { block_id: "interven", elements })
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum Text<'a> {
    #[serde(rename = "plain_text")]
    Plain { text: &'a str, emoji: bool },
    #[serde(rename = "mrkdwn")]
    Markdown { text: String, verbatim: bool },
}

/// A button: live ones have a value, links a URL.
#[derive(Serialize)]
pub(super) struct Element {
    r#type: &'static str,
    action_id: &'static str,
    text: Text<'static>,
    #[serde(skip_serializing_if = "Option::is_none")]
    style: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Element {
    pub(super) fn live(action_id: &'static str, label: &'static str, style: &'static str, value: String) -> Self {
        let text = Text::Plain { text: label, emoji: false };
        Self { r#type: "button", action_id, text, style: Some(style), value: Some(value), url: None }
    }

    pub(super) fn link(action_id: &'static str, link: Link) -> Self {
        let text = Text::Plain { text: link.label, emoji: false };
        Self { r#type: "button", action_id, text, style: None, value: None, url: Some(link.url) }
    }
}
