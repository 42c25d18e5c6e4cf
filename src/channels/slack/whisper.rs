//! What only the one who clicked gets to read: why the click changed nothing.

use serde_json::json;

use super::{
    super::{Endpoint, Parcel},
    ended::{Given, How, how, who},
};
use crate::model::Timestamp;

/// Something to say to the one who clicked.
#[derive(Clone, Copy, Debug)]
pub enum Whisper<'a> {
    /// Somebody was faster, perhaps the same person.
    Already(Given<'a>),
    /// The time was over.
    Expired(Option<Timestamp>),
    /// Nobody asks for this.
    Unknown,
    /// The channel of the card is not configured any more.
    NoChannel,
    /// They are not among the approvers.
    MayNot {
        /// Their id, to be told to whoever can change that.
        id: &'a str,
    },
    /// It could not be recorded.
    NotRecorded,
    /// It was recorded, and what came of it is not known yet.
    NotHeard,
}

impl Whisper<'_> {
    /// What is said, as mrkdwn.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(200);
        match *self {
            Self::Already(given) => {
                text.push_str("This was answered before your click. ");
                how(&mut text, How::Answered(given), true);
                text.push('.');
            }
            Self::Expired(at) => {
                text.push_str("Your click came too late. ");
                how(&mut text, How::Expired(at), true);
                text.push('.');
            }
            Self::Unknown => text.push_str("Nobody asks for this approval, or not any more, so nothing was answered. The card of a test looks the same."),
            Self::NoChannel => text.push_str(
                "The channel that this card belongs to is not configured any more, so nothing was answered. \
                 Please answer in the console.",
            ),
            Self::MayNot { id } => {
                text.push_str(
                    "You may not answer approvals in this channel, so nothing was answered. Your member id is ",
                );
                who(&mut text, "", id);
                text.push_str(": whoever operates the alerts can add it to the approvers.");
            }
            Self::NotRecorded => {
                text.push_str(
                    "Your answer could not be recorded. Please click again in a moment, or answer in the console.",
                );
            }
            Self::NotHeard => {
                text.push_str(
                    "Your answer was recorded, but it is not known yet whether it was the first. The card will tell; \
                     if it does not change, please click again.",
                );
            }
        }
        text
    }

    /// The request that says it, by the URL that came with the click.
    pub fn parcel(&self, to: Endpoint) -> Parcel {
        let body = json!({"response_type": "ephemeral", "replace_original": false, "text": self.text()});
        Parcel { endpoint: to, headers: super::json_headers(), body: body.to_string().into() }
    }
}
