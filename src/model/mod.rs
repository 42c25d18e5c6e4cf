//! The nouns of the program: what a decision, a channel, a delivery, a verdict and an ending are.
//!
//! No input or output happens here, and nothing of ours is imported, so every other room may use these words freely.
//! One word has one meaning; `../shared/contract.md` section 1 is the list.
//!
//! Start with [`decision`], then [`delivery`] and [`verdict`].

pub mod attempt;
pub mod channel_id;
pub mod clock;
pub mod decision;
pub mod delivery;
pub mod digest;
pub mod egress;
pub mod ending;
pub mod filter;
pub mod own;
pub mod retry_plan;
pub mod role;
pub mod secret;
pub mod verdict;

pub use attempt::Attempt;
pub use channel_id::ChannelId;
pub use clock::{Clock, Timestamp};
pub use decision::{Agent, Approval, Decision, DecisionKind, Severity};
pub use delivery::{Delivery, DeliveryId};
pub use digest::Digest;
pub use egress::Egress;
pub use ending::{DeathReason, Ending};
pub use filter::Filter;
pub use own::Own;
pub use retry_plan::RetryPlan;
pub use role::Role;
pub use secret::{Scrubber, Secret};
pub use verdict::{Reply, Trouble, Verdict};

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| DIGITS[usize::from(nibble)]).collect()
}

/// Reads 32 bytes from 64 hexadecimal digits of either case; `None` for anything else.
pub fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok())?;
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}
