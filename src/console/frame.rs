//! What is around every page: its title, where it stands, who is signed in, and what has just been done.

use super::{
    Text,
    assets::{SCRIPT, STYLE},
};
use crate::model::Role;

/// The parts of the console, as its navigation lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// How things stand.
    Overview,
    /// What is asked for.
    Approvals,
    /// What was decided, and who was told.
    Decisions,
    /// Where decisions go.
    Channels,
    /// What could not be delivered.
    DeadLetters,
}

impl Section {
    /// Every part, in order.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Approvals, Self::Decisions, Self::Channels, Self::DeadLetters];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Approvals => "Approvals",
            Self::Decisions => "Decisions",
            Self::Channels => "Channels",
            Self::DeadLetters => "Dead letters",
        }
    }

    /// Where it is.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Approvals => "/approvals",
            Self::Decisions => "/decisions",
            Self::Channels => "/channels",
            Self::DeadLetters => "/dead-letters",
        }
    }
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The name of the token.
    pub name: Text,
    /// What it may do.
    pub role: Role,
}

/// How what has been done went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it was meant.
    Good,
    /// Not quite.
    Partly,
    /// Not.
    Bad,
}

impl Tone {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Good, Self::Partly, Self::Bad];

    /// The class of its look.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Partly => "warn",
            Self::Bad => "bad",
        }
    }

    /// A sign that is no colour.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Partly | Self::Bad => "!",
        }
    }
}

/// What has just been done, said once.
#[derive(Clone, Debug)]
pub struct Flash {
    /// How it went.
    pub tone: Tone,
    /// In words.
    pub text: Text,
}

/// What is around every page.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What the page is about.
    pub title: Text,
    /// Where it stands.
    pub here: Option<Section>,
    /// Who looks at it; `None` before the sign-in.
    pub viewer: Option<Viewer>,
    /// What has just been done.
    pub flash: Option<Flash>,
}

impl Frame {
    /// A page that stands nowhere, for nobody in particular.
    pub fn bare(title: &str) -> Self {
        Self { title: Text::short(title), here: None, viewer: None, flash: None }
    }

    pub(super) fn style() -> &'static str {
        &STYLE.path
    }

    pub(super) fn script() -> &'static str {
        &SCRIPT.path
    }

    pub(super) fn is_here(&self, section: Section) -> bool {
        self.here == Some(section)
    }
}
