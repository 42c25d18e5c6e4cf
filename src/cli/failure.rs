//! Why a command did not do what it was asked, in the form people and scripts see.

use std::error::Error;

/// How the process ends. The numbers are API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The configuration is faulty (`EX_CONFIG` of sysexits.h): restarting will not help.
    Config,
}

impl Exit {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 78,
        }
    }
}

/// A failed command: what, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    /// The exit code to end with.
    pub exit: Exit,
    /// What went wrong: lower case, no full stop. Empty where everything was said already.
    pub problem: String,
    /// The causes, from the nearest.
    pub causes: Vec<String>,
    /// What to do; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, problem: problem.into(), causes: Vec::new(), hint: String::new() }
    }

    /// The failure that `error` is, its sources as causes.
    pub fn of(error: &dyn Error) -> Self {
        let mut failure = Self::new(error.to_string());
        for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
            // Many an error ends with the words of its own cause.
            if !failure.causes.last().unwrap_or(&failure.problem).ends_with(&cause) {
                failure.causes.push(cause);
            }
        }
        failure
    }

    /// The same failure with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same failure with a cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The same failure with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing to standard output. A reader that went away (`| head`) has what it wanted.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new("").exit(Exit::Done);
        }
        Self { causes: vec![error.to_string()], ..Self::new("could not write to standard output") }
    }
}
