//! How a delivery ends, and why a dead one died.

/// How a delivery ends. A delivery that waits has no ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The endpoint has it.
    Delivered,
    /// It was told in a digest.
    Folded,
    /// It is in the dead-letter store.
    Dead,
}

impl Ending {
    /// Every ending, in the order of the contract.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Folded, Self::Dead];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Folded => "folded",
            Self::Dead => "dead",
        }
    }
}

/// Why something is a dead letter. The names are API: metrics, filters of the command line, the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeathReason {
    /// The message could not be read as a decision; its bytes are kept as they came.
    Malformed,
    /// Handling the decision panicked.
    Poison,
    /// The endpoint refused this very payload, the plain-text form included.
    Refused,
    /// The endpoint answered every one of the permitted attempts with a failure of its own.
    Exhausted,
    /// Older than the channel's `max_age`.
    Expired,
    /// The approval's `expires_at` had passed before the card could be posted.
    ApprovalExpired,
    /// The channel is no longer in the configuration.
    ChannelRemoved,
    /// The broker itself gave the message up (its delivery limit, a length limit).
    BrokerGaveUp,
}

impl DeathReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Poison,
        Self::Refused,
        Self::Exhausted,
        Self::Expired,
        Self::ApprovalExpired,
        Self::ChannelRemoved,
        Self::BrokerGaveUp,
    ];

    /// Whether it is the endpoint's doing: it refused, or took nothing for too long.
    pub const fn is_of_endpoint(self) -> bool {
        matches!(self, Self::Refused | Self::Exhausted | Self::Expired)
    }

    /// The name in metrics, logs, filters and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Poison => "poison",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::ApprovalExpired => "approval_expired",
            Self::ChannelRemoved => "channel_removed",
            Self::BrokerGaveUp => "broker_gave_up",
        }
    }
}

impl std::fmt::Display for DeathReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for DeathReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// A text that names no reason.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a reason: use one of malformed, poison, refused, exhausted, expired, approval_expired, channel_removed, broker_gave_up"
)]
pub struct UnknownReason(String);

#[cfg(test)]
mod tests {
    use super::DeathReason;

    #[test]
    fn every_reason_reads_back_from_its_name_and_serialises_as_it() {
        for reason in DeathReason::ALL {
            assert_eq!(reason.as_str().parse::<DeathReason>().unwrap(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("tired".parse::<DeathReason>().is_err());
    }
}
