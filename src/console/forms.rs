//! Forms of channels: which kind, what it is to be, and whether it is to go.
//!
//! What stands in an input is shown as it was typed, not as a [`Text`]: it is the work of whoever changes channels, and an input
//! that lost a character on its way through a page would change the channel unseen. No secret is ever in one.

use askama::Template;

use super::{Frame, Section, Text};

/// A kind that can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Its word in addresses.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it is.
    pub sentence: &'static str,
}

/// Which kind?
#[derive(Debug, Template)]
#[template(path = "channel_kinds.html", config = "src/console/askama.toml")]
pub struct KindsPage {
    /// What is around it.
    pub frame: Frame,
    /// Every kind.
    pub kinds: Vec<Choice>,
}

/// What is entered in a field, and what stands there.
#[derive(Clone, Debug)]
pub enum Control {
    /// A line.
    Line {
        /// What stands there.
        value: String,
        /// Whether it is a number.
        number: bool,
    },
    /// Several lines.
    Lines {
        /// What stands there.
        value: String,
        /// Whether the channel has the list with nothing in it.
        none: bool,
        /// Whether what is typed is a secret.
        secret: bool,
    },
    /// A secret: nothing ever stands there.
    Secret {
        /// What the channel has, masked.
        kept: Option<Text>,
        /// Whether one was typed before, and is kept for the next press.
        typed: bool,
        /// Whether it is an address, which may be seen while it is typed.
        url: bool,
    },
    /// One of several.
    Choice {
        /// Each, and whether it is the one.
        options: Vec<(&'static str, bool)>,
    },
    /// Several of several.
    Several {
        /// Each, and whether it is among them.
        options: Vec<(&'static str, bool)>,
    },
    /// Yes or no.
    Switch {
        /// Yes.
        on: bool,
    },
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is wrong.
    pub problem: Text,
    /// What to do.
    pub hint: Text,
}

/// One field.
#[derive(Clone, Debug)]
pub struct FormField {
    /// The key: its name in what is sent.
    pub key: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it takes.
    pub hint: &'static str,
    /// What one may look like.
    pub example: &'static str,
    /// Whether a channel cannot be without it.
    pub needed: bool,
    /// What is entered.
    pub control: Control,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// What the channel has there by now, where somebody changed it meanwhile.
    pub meanwhile: Option<Text>,
}

impl FormField {
    /// The name of the field in the page.
    fn id(&self) -> String {
        self.key.replace('.', "-")
    }

    /// What describes it, by the names of what does.
    fn described_by(&self) -> String {
        let id = self.id();
        let hint = (!self.hint.is_empty()).then(|| format!("hint-{id}"));
        let fault = (!self.faults.is_empty()).then(|| format!("fault-{id}"));
        [hint, fault].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// What came of a test.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Whether the endpoint has it.
    pub delivered: bool,
    /// The status, where a reply came.
    pub status: Option<u16>,
    /// What the endpoint said.
    pub reply: Text,
    /// What a lane would make of it.
    pub meaning: Text,
    /// Where it went, masked.
    pub endpoint: Text,
    /// How long it took.
    pub took: String,
}

/// What the form is for.
#[derive(Clone, Debug)]
pub enum Aim {
    /// A new channel, with this id typed so far.
    Make {
        /// As it was typed.
        id: String,
        /// What is wrong with it.
        faults: Vec<Fault>,
    },
    /// This channel.
    Change {
        /// Its id.
        id: Text,
    },
}

/// The form of a channel.
#[derive(Debug, Template)]
#[template(path = "channel_form.html", config = "src/console/askama.toml")]
pub struct FormPage {
    /// What is around it.
    pub frame: Frame,
    /// What people call the kind.
    pub kind: &'static str,
    /// Its word in what is sent.
    pub name: &'static str,
    /// How to come by what it asks for.
    pub steps: Vec<Text>,
    /// What it is for.
    pub aim: Aim,
    /// Where it is sent: a path of ours.
    pub action: String,
    /// Where it is left to.
    pub leave: String,
    /// The version that it was made upon.
    pub version: String,
    /// The secrets that were typed, sealed.
    pub sealed: String,
    /// What most people need.
    pub first: Vec<FormField>,
    /// What most people do not.
    pub more: Vec<FormField>,
    /// How many of those are otherwise than by default.
    pub more_set: usize,
    /// What is wrong with no field alone.
    pub faults: Vec<Fault>,
    /// What somebody did meanwhile.
    pub meanwhile: Option<Text>,
    /// Whether a test was asked for, and not to save it.
    pub testing: bool,
    /// What people call the kind that the channel is of by now, where that is another one: to save the form replaces it.
    pub replaces: Option<&'static str>,
    /// What came of a test.
    pub tried: Option<Tried>,
}

impl FormPage {
    /// Every field that something is wrong with, to lead to.
    fn faulty(&self) -> Vec<(&'static str, String, &Fault)> {
        let id = match &self.aim {
            Aim::Make { faults, .. } => faults.as_slice(),
            Aim::Change { .. } => &[],
        };
        let id = id.iter().map(|fault| ("Name", String::from("id"), fault));
        let fields = self.first.iter().chain(&self.more);
        let fields = fields.flat_map(|field| field.faults.iter().map(|fault| (field.label, field.id(), fault)));
        id.chain(fields).collect()
    }

    /// How many things are wrong, in words.
    fn how_many(&self) -> String {
        let done = if self.testing { "sent" } else { "saved" };
        match self.faulty().len() + self.faults.len() {
            1 => format!("Nothing was {done}: there is 1 problem"),
            count => format!("Nothing was {done}: there are {count} problems"),
        }
    }

    /// Whether there is something to see among what most people do not need.
    fn more_is_open(&self) -> bool {
        self.more_set > 0 || self.more.iter().any(|field| !field.faults.is_empty() || field.meanwhile.is_some())
    }

    /// Whether whoever looks has begun, and no longer needs to know how to begin.
    fn has_begun(&self) -> bool {
        let new = matches!(&self.aim, Aim::Make { id, .. } if id.is_empty());
        !new || self.tried.is_some() || !self.faulty().is_empty()
    }

    /// Whether the channel has secrets that are kept.
    fn keeps(&self) -> bool {
        let kept = |field: &FormField| match &field.control {
            Control::Secret { kept, .. } => kept.is_some(),
            Control::Lines { value, secret, .. } => *secret && !value.is_empty(),
            Control::Line { .. } | Control::Choice { .. } | Control::Several { .. } | Control::Switch { .. } => false,
        };
        self.first.iter().chain(&self.more).any(kept)
    }
}

/// Is it to go?
#[derive(Debug, Template)]
#[template(path = "channel_delete.html", config = "src/console/askama.toml")]
pub struct DeletePage {
    /// What is around it.
    pub frame: Frame,
    /// Its id.
    pub id: Text,
    /// How many wait for it; `None` where that is not known.
    pub waits: Option<u64>,
    /// The version that is looked at.
    pub version: String,
    /// Whether the file has a channel of this id, which stays.
    pub in_file: bool,
}
