//! Dead letters: what they died of, each of them whole, and what is done to them.

use askama::Template;

use super::{Asked, Block, Frame, Section, Text, When, approvals::severity_look};
use crate::model::{DeathReason, DecisionKind, Severity};

/// Why something died, as people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub DeathReason);

impl Reason {
    /// Every one.
    pub const ALL: [DeathReason; 8] = DeathReason::ALL;

    /// Its word, as the API says it.
    pub const fn word(self) -> &'static str {
        self.0.as_str()
    }

    /// What it means.
    pub const fn says(self) -> &'static str {
        match self.0 {
            DeathReason::Malformed => "The message could not be read as a decision. Its bytes are kept as they came.",
            DeathReason::Poison => "Handling it made the worker fail.",
            DeathReason::Refused => "The endpoint refused this very message, in its plain form, too.",
            DeathReason::Exhausted => "The endpoint failed at every one of the permitted attempts.",
            DeathReason::Expired => "It waited for longer than the channel's max_age.",
            DeathReason::ApprovalExpired => "The approval that it asks for expired before the card could be posted.",
            DeathReason::ChannelRemoved => "Its channel was removed while it waited.",
            DeathReason::BrokerGaveUp => "The broker itself gave it up: a limit of its queue was reached.",
        }
    }

    /// What to do about it.
    pub const fn hint(self) -> &'static str {
        match self.0 {
            DeathReason::Malformed => {
                "Mend what publishes it. A replay sends the same bytes, which die again unless a newer version can read them."
            }
            DeathReason::Poison => "Report it with the decision below, and replay it with a version that is mended.",
            DeathReason::Refused => {
                "Look at the endpoint's words: they say what it does not take. Replay it when that has changed."
            }
            DeathReason::Exhausted => "Test the channel. When its endpoint is well again, replay.",
            DeathReason::Expired => {
                "Find out why the channel waited (paused, held, too slow). Raise max_age if that was right; replay what people still need."
            }
            DeathReason::ApprovalExpired => "Nobody waits for the answer any more: purge it. The agent may ask again.",
            DeathReason::ChannelRemoved => "Bring the channel back under the same id and replay, or purge.",
            DeathReason::BrokerGaveUp => {
                "Look at the broker's queues and limits (`interven-alerts doctor`), then replay."
            }
        }
    }

    /// The class of its look.
    pub const fn look(self) -> &'static str {
        match self.0 {
            DeathReason::Malformed | DeathReason::Poison | DeathReason::Refused | DeathReason::BrokerGaveUp => "bad",
            DeathReason::Exhausted => "warn",
            DeathReason::Expired | DeathReason::ApprovalExpired | DeathReason::ChannelRemoved => "calm",
        }
    }

    /// A sign that is no colour.
    pub const fn sign(self) -> &'static str {
        match self.0 {
            DeathReason::Malformed | DeathReason::Poison | DeathReason::Refused | DeathReason::BrokerGaveUp => "✕",
            DeathReason::Exhausted => "!",
            DeathReason::Expired | DeathReason::ApprovalExpired | DeathReason::ChannelRemoved => "–",
        }
    }
}

/// Letters that died of the same thing.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Why.
    pub reason: Reason,
    /// Of which channel.
    pub channel: Option<Text>,
    /// What differs from letter to letter left out.
    pub detail: Text,
    /// How many.
    pub count: String,
    /// When the first one died.
    pub oldest: When,
    /// When the last one died.
    pub newest: When,
    /// The list of them.
    pub href: String,
    /// Where they are replayed, for who may.
    pub replay: Option<String>,
}

/// One letter in a list.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its id.
    pub id: Text,
    /// Its page.
    pub href: String,
    /// When it died.
    pub died: When,
    /// Why.
    pub reason: Reason,
    /// Of which channel.
    pub channel: Option<Text>,
    /// How grave.
    pub severity: Option<Severity>,
    /// What was decided.
    pub kind: Option<DecisionKind>,
    /// The decision's id.
    pub decision: Option<Text>,
    /// The detail for people.
    pub detail: Option<Text>,
    /// Who has it.
    pub worker: Text,
}

impl DeadLetter {
    fn severity_look(&self) -> &'static str {
        self.severity.map_or("calm", severity_look)
    }
}

/// A worker that could not be asked.
#[derive(Clone, Debug)]
pub struct Missing {
    /// How it is called.
    pub worker: Text,
    /// Why.
    pub why: Text,
}

/// What a worker does to its letters, or did last.
#[derive(Clone, Debug)]
pub struct Doing {
    /// Which one.
    pub worker: Text,
    /// What.
    pub what: Deed,
    /// By whose order.
    pub by: Text,
    /// How many it has looked at, and of how many, while it is at it.
    pub progress: Option<(u64, Option<u64>)>,
    /// What came of it, and when it ended.
    pub ended: Option<(Text, When)>,
}

/// What is done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// They are sent again.
    Replay,
    /// They are deleted.
    Purge,
}

impl Deed {
    /// Its word in addresses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Purge => "purge",
        }
    }

    /// What is done, while it is.
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Replay => "Replaying",
            Self::Purge => "Purging",
        }
    }
}

/// What the list is narrowed to, as the form shows it.
#[derive(Clone, Debug, Default)]
pub struct LetterForm {
    /// The channels to choose from.
    pub channels: Vec<Text>,
    /// The chosen one.
    pub channel: Option<Text>,
    /// The chosen reason.
    pub reason: Option<DeathReason>,
    /// The chosen cause, as it is sent again; people see it as a [`Text`].
    pub cause: Option<String>,
    /// The decision's id.
    pub decision: Text,
    /// The chosen severity.
    pub severity: Option<Severity>,
    /// Died at this time or later.
    pub since: Text,
    /// Died before this time.
    pub until: Text,
    /// Whether anything is chosen.
    pub is_narrowed: bool,
}

impl LetterForm {
    fn is_channel(&self, channel: &Text) -> bool {
        self.channel.as_ref() == Some(channel)
    }

    fn is_reason(&self, reason: DeathReason) -> bool {
        self.reason == Some(reason)
    }

    fn is_severity(&self, severity: Severity) -> bool {
        self.severity == Some(severity)
    }

    fn shown_cause(&self) -> Text {
        self.cause.as_deref().map(Text::short).unwrap_or_default()
    }
}

/// The list of them, with what they died of.
#[derive(Debug, Template)]
#[template(path = "dead_letters.html", config = "src/console/askama.toml")]
pub struct DeadLettersPage {
    /// What is around it.
    pub frame: Frame,
    /// What it is narrowed to.
    pub form: LetterForm,
    /// How many letters are meant.
    pub count: u64,
    /// What they died of, most letters first.
    pub causes: Vec<Cause>,
    /// How many further causes there are.
    pub more_causes: usize,
    /// Some of them, the newest first.
    pub letters: Vec<DeadLetter>,
    /// How many of those cannot be read any more.
    pub damaged: usize,
    /// The page of the older ones.
    pub older: Option<String>,
    /// The page of the newest, where this is not it.
    pub newest: Option<String>,
    /// Where all that are meant are replayed, and purged, for who may.
    pub replay: Option<String>,
    /// Where they are purged.
    pub purge: Option<String>,
    /// Whose letters are not among these.
    pub missing: Vec<Missing>,
    /// What workers do to their letters.
    pub doings: Vec<Doing>,
    /// Whether there are several workers.
    pub several: bool,
    /// How often it is looked at anew, in seconds.
    pub live: u64,
}

impl DeadLettersPage {
    fn counted(&self) -> String {
        counted(self.count)
    }

    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        counted(self.count)
    }
}

/// `1 dead letter`, `1,234 dead letters`.
fn counted(count: u64) -> String {
    let letters = if count == 1 { "dead letter" } else { "dead letters" };
    format!("{} {letters}", super::grouped(count))
}

/// A try that failed.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it came back.
    pub at: When,
    /// What it meant.
    pub outcome: Text,
    /// The HTTP status, where a reply came.
    pub status: Option<u16>,
    /// What the endpoint said.
    pub text: Text,
}

/// What the endpoint said last.
#[derive(Clone, Debug)]
pub struct LastReply {
    /// When.
    pub at: When,
    /// The HTTP status, where a reply came.
    pub status: Option<u16>,
    /// Its words.
    pub text: Text,
}

/// One letter whole.
#[derive(Debug, Template)]
#[template(path = "dead_letter.html", config = "src/console/askama.toml")]
pub struct DeadLetterPage {
    /// What is around it.
    pub frame: Frame,
    /// The letter.
    pub letter: DeadLetter,
    /// When a worker first saw it.
    pub first: When,
    /// How many tries the endpoint answered with a failure of its own.
    pub attempts: u32,
    /// The last tries that failed, the oldest first.
    pub history: Vec<Attempt>,
    /// What the endpoint said last.
    pub reply: Option<LastReply>,
    /// Whether its channel is still there.
    pub has_channel: bool,
    /// The decision, where its message can be read as one.
    pub decision: Option<Asked>,
    /// The message as it came.
    pub raw: Block,
    /// How many bytes it has.
    pub raw_bytes: usize,
    /// Where it is replayed, for who may.
    pub replay: Option<String>,
    /// Where it is purged, for who may.
    pub purge: Option<String>,
}

/// Asks whether it is really meant, with how many.
#[derive(Debug, Template)]
#[template(path = "dead_letters_confirm.html", config = "src/console/askama.toml")]
pub struct ConfirmPage {
    /// What is around it.
    pub frame: Frame,
    /// What would be done.
    pub deed: Deed,
    /// To how many letters.
    pub count: u64,
    /// Which ones, in words: what, and which.
    pub chosen: Vec<(&'static str, Text)>,
    /// How many of which channel, and whether it is still there; without a channel, what is decoded and routed again.
    pub channels: Vec<(Option<Text>, String, bool)>,
    /// How many each worker has.
    pub workers: Vec<(Text, String)>,
    /// What would become of some of them otherwise, a sentence each.
    pub exceptions: Vec<String>,
    /// Whose letters are not counted and stay as they are.
    pub missing: Vec<Missing>,
    /// What the form sends: names and values.
    pub fields: Vec<(&'static str, String)>,
    /// Where it leads that leaves everything as it is.
    pub back: String,
}

impl ConfirmPage {
    fn counted(&self) -> String {
        counted(self.count)
    }

    /// To where they are sent, in the sentence that asks.
    fn destinations(&self) -> String {
        let named: Vec<&str> = self.channels.iter().filter_map(|(id, ..)| id.as_ref().map(Text::as_str)).collect();
        match named[..] {
            [] => String::from("the intake"),
            [one] if self.channels.len() == 1 => one.to_owned(),
            _ => format!("{} destinations", self.channels.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_it_means_and_what_to_do() {
        let words: std::collections::BTreeSet<_> =
            Reason::ALL.into_iter().map(Reason).map(|reason| (reason.says(), reason.hint())).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.iter().all(|(says, hint)| says.ends_with('.') && hint.ends_with('.')));
    }
}
