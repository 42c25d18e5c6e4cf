//! What a caller of the HTTP side may do.

use std::{fmt, str::FromStr};

/// The role of a token. Contract 7 has the table of what each may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Auditor,
    /// Reads, answers approvals, tests, replays, pauses and resumes.
    Analyst,
    /// Everything that an analyst may, and changes channels and purges.
    Admin,
    /// Only publishes decisions.
    Publisher,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Auditor, Self::Analyst, Self::Admin, Self::Publisher];

    /// The name in the configuration and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Analyst => "analyst",
            Self::Admin => "admin",
            Self::Publisher => "publisher",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of auditor, analyst, admin, publisher")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}
