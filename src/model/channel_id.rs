//! The name of a channel, as the operator wrote it: `[a-z0-9-]{1,64}`.

use std::{fmt, sync::Arc};

/// The id of a channel. Every `ChannelId` in existence matches `[a-z0-9-]{1,64}`, so it may stand in a queue name, a
/// metric label or a path without a second look. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Arc<str>);

/// Why a text is not a channel id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a channel id: it must be 1 to 64 characters of a-z, 0-9 and -")]
pub struct ChannelIdError {
    text: String,
}

impl ChannelId {
    /// The longest id, in characters. Source: contract 3.
    pub const CHARS_MAX: usize = 64;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ChannelId {
    type Err = ChannelIdError;

    fn from_str(text: &str) -> Result<Self, ChannelIdError> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text.into())) } else { Err(ChannelIdError { text: text.chars().take(80).collect() }) }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl serde::Serialize for ChannelId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ChannelId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::ChannelId;

    #[test]
    fn an_id_is_lower_case_letters_digits_and_hyphens_up_to_64() {
        for good in ["a", "soc-slack", "0-9", &"x".repeat(64)] {
            assert!(good.parse::<ChannelId>().is_ok(), "{good}");
        }
        for bad in ["", "Soc", "a_b", "a.b", "é", &"x".repeat(65), "a b"] {
            assert!(bad.parse::<ChannelId>().is_err(), "{bad}");
        }
    }
}
