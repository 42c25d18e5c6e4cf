//! How a Telegram chat is entered by hand.

use crate::channels::form::{Field, Form, Input};

pub(super) static FORM: Form = Form {
    title: "Telegram",
    sentence: "Messages of a bot in a Telegram chat; approvals are links to this console.",
    steps: &[
        "Message @BotFather, send /newbot, and save the bot's token.",
        "Add the bot to the chat that is to be told.",
        "Send a message there, then ask https://api.telegram.org/bot<TOKEN>/getUpdates and read chat.id.",
        "Pick events and severity.",
    ],
    fields: &[
        Field::new("bot_token", "Bot token", Input::Secret)
            .hint("The whole token that @BotFather sent.")
            .like("123456:ABC-DEF...")
            .needed(),
        Field::new("chat_id", "Chat ID", Input::Text)
            .hint("The number from getUpdates; groups are negative. Or @name of a public channel.")
            .like("-1001234567890")
            .needed(),
        Field::new("api_url", "Bot API", Input::Url)
            .hint("For a Bot API server of your own.")
            .like("https://api.telegram.org")
            .more(),
    ],
};
