//! What a worker said that did not do what it was asked, or why it said nothing.

use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::settings::printable;

/// The longest text of a worker that is shown, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// What a worker said, or why it said nothing.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It could not be reached, or did not answer: another one may.
    Silent(String),
    /// It said no.
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// What was wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

impl Trouble {
    /// Whether no other worker would answer otherwise.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Silent(_) => false,
            Self::Refused { status, .. } => {
                !status.is_server_error() && ![StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
        }
    }

    /// Whether it does not have what it was asked for, which is an answer, too.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// Why, in one line.
    pub fn why(&self) -> &str {
        match self {
            Self::Silent(why) => why,
            Self::Refused { message, .. } => message,
        }
    }
}

/// A worker that did not say what it was asked, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Unheard {
    /// How it is called.
    pub server: String,
    /// Why.
    #[serde(rename = "why", serialize_with = "in_words")]
    pub trouble: Trouble,
}

fn in_words<S: serde::Serializer>(trouble: &Trouble, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(trouble.why())
}

impl Unheard {
    /// The worker of this name.
    pub fn new(server: &str, trouble: Trouble) -> Self {
        Self { server: server.to_owned(), trouble }
    }
}

/// What a worker that says no says, be it by its status or at the end of an order.
pub fn refused(status: StatusCode, bytes: &[u8]) -> Trouble {
    let error: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text =
        |key: &str| error["error"][key].as_str().map(|text| printable(text).chars().take(TEXT_CHARS_MAX).collect());
    Trouble::Refused {
        status,
        message: text("message").unwrap_or_else(|| format!("it answered {status}")),
        hint: text("hint").unwrap_or_else(|| String::from("check that this is the address of a worker's API")),
    }
}

/// An answer of a known shape.
pub fn understand<T: DeserializeOwned>(answer: Value) -> Result<T, Trouble> {
    serde_json::from_value(answer)
        .map_err(|_| Trouble::Silent(String::from("its answer is not understood: is it a worker of another version?")))
}
