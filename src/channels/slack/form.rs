//! How a Slack channel is entered by hand.

use crate::channels::form::{Field, Form, Input};

pub(super) static FORM: Form = Form {
    title: "Slack",
    sentence: "Cards in a Slack channel; approvals are answered in place, with Approve and Deny.",
    steps: &[
        "Create a Slack app at api.slack.com/apps.",
        "Enable Incoming Webhooks, install the app to the workspace, and add a webhook to the channel that is to be told.",
        "Enable Interactivity & Shortcuts, and set its Request URL to {public_url}/v1/slack/interactions.",
        "Copy the webhook's URL, and the Signing Secret from Basic Information.",
        "Test: a sample card should land in Slack.",
    ],
    fields: &[
        Field::new("webhook_url", "Webhook URL", Input::Url)
            .hint("From Incoming Webhooks. Give this, or a bot token with a channel.")
            .like("https://hooks.slack.com/services/..."),
        Field::new("bot_token", "Bot token", Input::Secret)
            .hint("In place of a webhook: posts with chat.postMessage, and cards are changed when they have been answered.")
            .like("xoxb-..."),
        Field::new("channel", "Channel", Input::Text)
            .hint("With a bot token only: the id of the Slack channel.")
            .like("C024BE91L"),
        Field::new("signing_secret", "Signing secret", Input::Secrets)
            .hint("From Basic Information; without it, cards have no buttons. While it is changed, give the old and the new one, one a line."),
        Field::new("approvers", "Approvers", Input::Words)
            .hint("Member ids of those who may answer, one a line. Empty: everyone in the Slack channel.")
            .like("U024BE7LH"),
        Field::new("api_url", "Web API", Input::Url).hint("For a bot behind a proxy of yours.").like("https://slack.com/api").more(),
        Field::new("response_hosts", "Hosts of response URLs", Input::Words)
            .hint("Where answers to clicks may be posted, one a line.")
            .like("hooks.slack.com")
            .more(),
    ],
};
