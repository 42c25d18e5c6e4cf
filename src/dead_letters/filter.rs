//! Which letters are meant, and what makes two deaths the same cause. Pure.

use super::{LetterId, record::Head};
use crate::model::{ChannelId, DeathReason, Severity, Timestamp};

/// Which letters are meant: those that meet every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this channel.
    pub channel: Option<ChannelId>,
    /// Dead for this reason.
    pub reason: Option<DeathReason>,
    /// Dead of this cause: the detail without its numbers and ids, as a grouping tells it.
    pub cause: Option<String>,
    /// Of the decision with this id.
    pub decision: Option<String>,
    /// Exactly this grave.
    pub severity: Option<Severity>,
    /// Dead at this time or later.
    pub since: Option<Timestamp>,
    /// Dead before this time.
    pub until: Option<Timestamp>,
    /// Buried no later than this, in the store's own order of burials: what a grouping says that it has counted. Times cannot say
    /// it, because a letter has died before it is buried.
    pub up_to: Option<u64>,
    /// At most so many, the newest; a listing without it shows [`LetterFilter::LIMIT_DEFAULT`], a selection takes all.
    pub limit: Option<usize>,
    /// Only these. Empty: any.
    pub ids: Vec<LetterId>,
}

impl LetterFilter {
    /// How many letters a listing shows when nobody said.
    pub const LIMIT_DEFAULT: usize = 100;
    /// How many letters one page holds at most.
    pub const LIMIT_MAX: usize = 1_000;

    /// Whether a letter with this head is meant. `ids` and `limit` are the caller's business: they say where to look.
    pub(super) fn matches(&self, head: &Head) -> bool {
        self.channel.as_ref().is_none_or(|channel| head.channel.as_ref() == Some(channel))
            && self.reason.is_none_or(|reason| head.reason == reason)
            && self.cause.as_deref().is_none_or(|cause| *head.cause == *cause)
            && self.decision.as_deref().is_none_or(|decision| head.decision_id.as_deref() == Some(decision))
            && self.severity.is_none_or(|severity| head.severity == Some(severity))
            && self.since.is_none_or(|since| head.died_at_ms >= since.unix_millis())
            && self.until.is_none_or(|until| head.died_at_ms < until.unix_millis())
            && self.up_to.is_none_or(|up_to| head.burial <= up_to)
    }

    /// Whether only reason and channel matter, so that the counts in memory know the answer.
    pub(super) fn is_counted(&self) -> bool {
        self.cause.is_none()
            && self.decision.is_none()
            && self.severity.is_none()
            && self.since.is_none()
            && self.until.is_none()
            && self.up_to.is_none()
            && self.ids.is_empty()
    }
}

/// A detail without what differs from death to death, so that a thousand deaths of one cause read as one: words that hold a
/// digit or are long become `#`. At most 120 characters.
pub(super) fn cause_of(detail: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut cause = String::new();
    let (mut chars, mut before) = (0, "");
    for word in detail.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let varies = word.len() > 40 || word.bytes().any(|byte| byte.is_ascii_digit());
        // An HTTP status is the cause itself, so it stays.
        let bare = |word: &str| word.trim_matches(|c: char| c.is_ascii_punctuation()).to_ascii_lowercase();
        let is_status = bare(word).len() == 3 && matches!(&*bare(before), "http" | "status");
        before = word;
        let word = if varies && !is_status { "#" } else { word };
        if !cause.is_empty() {
            cause.push(' ');
        }
        cause.push_str(word);
        chars += word.chars().count() + 1;
        if chars > CHARS_MAX {
            break;
        }
    }
    cause.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::cause_of;

    #[test]
    fn details_that_differ_in_numbers_and_ids_alone_are_one_cause() {
        let one = cause_of("HTTP 503: upstream 10.0.0.7:443 gave up after 1200ms (request f1e2d3c4-5b6a)");
        let two = cause_of("HTTP 503: upstream 10.0.0.9:443 gave up after 800ms (request 00aa11bb-0000)");
        assert_eq!(one, two);
        assert!(one.starts_with("HTTP 503:"), "{one}");
        assert_eq!(cause_of("try 503 failed"), cause_of("try 7 failed"));
        assert_ne!(one, cause_of("HTTP 502: upstream 10.0.0.9:443 gave up after 800ms (request 00aa11bb-0000)"));
    }

    #[test]
    fn a_hostile_detail_makes_a_short_cause_without_line_breaks() {
        let cause = cause_of(&"\u{202e}evil\n\tword ".repeat(500));
        assert!(cause.chars().count() <= 120 && !cause.contains('\n'), "{cause}");
    }
}
