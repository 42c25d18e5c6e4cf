//! One clearly marked sample to a channel's endpoint, and what it answered: for `channels test` and for the API.
//!
//! It goes straight to the endpoint, past queue, pace and state: the question is whether this configuration can deliver, and
//! the answer must not wait behind what waits. It is one try; what a lane would do next is told, not done.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    channels::{Links, Occasion, judging::explain},
    config::ChannelPlan,
    lane::Post,
    model::{Delivery, Scrubber, Timestamp, Verdict, verdict::Outcome},
    settings::printable,
};

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The channel.
    pub channel: String,
    /// Whether the endpoint has the sample.
    pub delivered: bool,
    /// The outcome of the try, as metrics name it.
    pub outcome: &'static str,
    /// The endpoint, masked.
    pub endpoint: String,
    /// The HTTP status, where a reply came.
    pub status: Option<u16>,
    /// What the endpoint said, or why nothing came, in one line without secrets.
    pub reply: String,
    /// What a lane would make of it.
    pub meaning: &'static str,
    /// How long it took.
    #[serde(skip)]
    pub took: Duration,
}

/// Posts `sample` to `channel`, for at most `limit`, and judges the reply.
pub async fn try_channel(
    channel: &ChannelPlan,
    sample: &Delivery,
    links: &Links,
    post: &dyn Post,
    scrubber: &Scrubber,
    (now, limit): (Timestamp, Duration),
) -> Report {
    let occasion = Occasion { now, links, detour: None };
    let parcel = channel.channel.render(sample, &occasion);
    let endpoint = parcel.endpoint.masked();
    let began = Instant::now();
    let (status, said, verdict) = match post.post(parcel, channel.timeout.min(limit)).await {
        Ok(reply) => (Some(reply.status.as_u16()), explain(&reply), channel.channel.judge(&reply)),
        Err(trouble) => (None, trouble.as_str().to_owned(), trouble.into()),
    };
    let outcome = verdict.outcome();
    Report {
        channel: channel.id.to_string(),
        delivered: matches!(outcome, Outcome::Delivered | Outcome::Accepted),
        outcome: outcome.as_str(),
        endpoint,
        status,
        // An endpoint may echo a token back at us, and may send what a terminal would obey.
        reply: printable(&scrubber.scrub(&said)),
        meaning: meaning(&verdict),
        took: began.elapsed(),
    }
}

/// What a lane would do, in words for people.
fn meaning(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered { confirmed: true, .. } => "delivered: look for the message titled TEST",
        Verdict::Delivered { confirmed: false, .. } => {
            "accepted: the platform queued it and promises no more, so look whether the message arrived"
        }
        Verdict::TryLater { throttled: true, .. } => "too many: the lane would pause and try again by itself",
        Verdict::TryLater { throttled: false, .. } => {
            "a failure that time may mend: the lane would try again by itself"
        }
        Verdict::Refused { .. } | Verdict::RefusedOne { .. } => "refused: the endpoint does not take this message",
        Verdict::TooLarge { .. } => "too large for the endpoint",
        Verdict::Broken { .. } => "broken: the lane would be held until someone mends the channel or its endpoint",
        Verdict::Moved { .. } => "moved: the lane would follow to the new address; update the configuration",
    }
}
