//! The form of a kind of channel: its keys in words for people, so that somebody with a browser can fill them in.
//!
//! Plain data, declared beside the code that reads the keys. Whoever shows a form walks the list and knows no kind; a test walks the
//! kinds and holds each list against the keys that the settings really ask for, both ways.
//!
//! Absent on purpose: what is right. Forms are checked by the code that reads the operator's file.

/// The form of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What people call the kind.
    pub title: &'static str,
    /// What it is, in one sentence.
    pub sentence: &'static str,
    /// How to come by what the fields ask for; `{public_url}` stands for the address of this worker's pool. Source: the product page,
    /// "Setup".
    pub steps: &'static [&'static str],
    /// The kind's own keys, in the order in which people want them.
    pub fields: &'static [Field],
}

impl Form {
    /// Of a kind that nobody makes with a browser.
    pub const NONE: Self = Self { title: "", sentence: "", steps: &[], fields: &[] };
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key, as a path from the channel: `retry.attempts`.
    pub key: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it takes and does; may be empty.
    pub hint: &'static str,
    /// What one may look like; may be empty.
    pub example: &'static str,
    /// What is entered.
    pub input: Input,
    /// Whether a channel cannot be without it.
    pub needed: bool,
    /// Whether most people never need it.
    pub more: bool,
}

/// What is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A line of text.
    Text,
    /// A whole number.
    Number,
    /// A size, with its unit or as a number of bytes.
    Size,
    /// A line that is shown to nobody again.
    Secret,
    /// An address that is shown to nobody again, because a token may stand in it.
    Url,
    /// Secrets, one a line.
    Secrets,
    /// HTTP headers, `Name: value`, one a line; their values are secrets.
    Headers,
    /// Words, one a line.
    Words,
    /// JSON of any shape.
    Json,
    /// Yes or no.
    Switch {
        /// What it is where nobody says.
        default: bool,
    },
    /// One of these.
    Choice {
        /// In order.
        options: &'static [&'static str],
        /// What it is where nobody says.
        default: &'static str,
    },
    /// Several of these.
    Several {
        /// In order.
        options: &'static [&'static str],
        /// Which ones where nobody says.
        default: &'static [&'static str],
    },
}

impl Input {
    /// Whether it is kept from people's eyes.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Url | Self::Secrets | Self::Headers)
    }
}

impl Field {
    /// A field that may be left out.
    pub const fn new(key: &'static str, label: &'static str, input: Input) -> Self {
        Self { key, label, hint: "", example: "", input, needed: false, more: false }
    }

    /// With this hint.
    #[must_use]
    pub const fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    /// With this example.
    #[must_use]
    pub const fn like(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// That may not be left out.
    #[must_use]
    pub const fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    /// That most people never need.
    #[must_use]
    pub const fn more(self) -> Self {
        Self { more: true, ..self }
    }
}
