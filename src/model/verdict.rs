//! What an endpoint answered, and what that means.
//!
//! A [`Verdict`] is a sum type on purpose: a flag beside an error is how most integrations forget that 429 can be retried.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Timestamp;

/// The most that is read of a reply's body, in bytes; the rest is left on the socket and the connection closed.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;

/// An endpoint's reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`REPLY_BYTES_MAX`] bytes of it.
    pub body: Bytes,
    /// When it came: what a date in a `Retry-After` is measured from.
    pub at: Timestamp,
}

impl Reply {
    /// A reply with this status and no headers, at the beginning of Unix time, for tests and tables.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: HeaderMap::new(), body: body.into(), at: Timestamp::UNIX_EPOCH }
    }

    /// The same reply with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = http::HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Why no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nobody listens there.
    Refused,
    /// The connection was cut.
    Reset,
    /// No reply within the channel's `timeout`. The endpoint may have the delivery all the same.
    Timeout,
    /// No encrypted connection could be made.
    Tls,
    /// The host's name has no address now.
    Dns,
    /// Every address of the host is forbidden by `[egress]`.
    Egress,
    /// Anything else on the way.
    Other,
}

impl Trouble {
    /// The name in logs and dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Timeout => "timeout",
            Self::Tls => "tls failure",
            Self::Dns => "dns failure",
            Self::Egress => "forbidden by [egress]",
            Self::Other => "request failed",
        }
    }
}

/// What an endpoint's reply means for the delivery and its lane. `why` is text for people, already free of secrets as far as
/// the channel knows; callers scrub it once more.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The endpoint has it.
    Delivered {
        /// False where a 2xx promises no more than that it was queued (Teams): the outcome is then `accepted`.
        confirmed: bool,
        /// How long the endpoint wants to be left alone before the next one, where it said so.
        breathe: Option<Duration>,
    },
    /// A failure that time may mend.
    TryLater {
        /// How long the endpoint asked to wait, unclamped.
        after: Option<Duration>,
        /// Whether the endpoint said "too many" (429), which pauses the lane at once.
        throttled: bool,
        /// What it said.
        why: String,
    },
    /// This payload can never be accepted.
    Refused {
        /// Whether the plain-text form is worth a try.
        plain_may_pass: bool,
        /// What it said.
        why: String,
    },
    /// Of a batch, the first `accepted` deliveries are in, the next one can never be accepted, the rest were not looked at.
    RefusedOne {
        /// How many from the start the endpoint has.
        accepted: usize,
        /// What it said.
        why: String,
    },
    /// The batch is too large for the endpoint: send it in halves; a single delivery is refused.
    TooLarge {
        /// What it said.
        why: String,
    },
    /// The destination is broken until somebody acts.
    Broken {
        /// What it said.
        why: String,
    },
    /// The destination has moved: send it once more to the new address, which the channel's `render` understands.
    Moved {
        /// The new address, for example a Telegram chat id.
        to: String,
        /// What it said.
        why: String,
    },
}

/// The outcome of one try, as metrics and logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint has it.
    Delivered,
    /// The endpoint queued it and promises no more.
    Accepted,
    /// A failure that time may mend.
    TryLater,
    /// Too many.
    Throttled,
    /// This payload can never be accepted.
    Refused,
    /// The destination is broken.
    Broken,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Delivered, Self::Accepted, Self::TryLater, Self::Throttled, Self::Refused, Self::Broken];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::TryLater => "try_later",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

impl Verdict {
    /// Delivered, for certain, and no wish for a rest.
    pub const DELIVERED: Self = Self::Delivered { confirmed: true, breathe: None };

    /// What the try counts as.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Delivered { confirmed: true, .. } => Outcome::Delivered,
            Self::Delivered { confirmed: false, .. } => Outcome::Accepted,
            Self::TryLater { throttled: false, .. } | Self::Moved { .. } => Outcome::TryLater,
            Self::TryLater { throttled: true, .. } => Outcome::Throttled,
            Self::Refused { .. } | Self::RefusedOne { .. } | Self::TooLarge { .. } => Outcome::Refused,
            Self::Broken { .. } => Outcome::Broken,
        }
    }

    /// What the endpoint said, where it was not pleased.
    pub fn why(&self) -> &str {
        match self {
            Self::Delivered { .. } => "",
            Self::TryLater { why, .. }
            | Self::Refused { why, .. }
            | Self::RefusedOne { why, .. }
            | Self::TooLarge { why }
            | Self::Broken { why }
            | Self::Moved { why, .. } => why,
        }
    }
}

impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        let why = trouble.as_str().to_owned();
        match trouble {
            Trouble::Egress => Self::Broken { why },
            Trouble::Refused | Trouble::Reset | Trouble::Timeout | Trouble::Tls | Trouble::Dns | Trouble::Other => {
                Self::TryLater { after: None, throttled: false, why }
            }
        }
    }
}
