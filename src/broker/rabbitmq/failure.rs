//! What went wrong at the broker, in words that an operator can act on.
//!
//! Nothing here may quote a connection URL: it holds a password. Endpoints are named by host, port and virtual host.

use std::{fmt, time::Duration};

use lapin::ErrorKind;

use crate::broker::{BrokerError, RIGHTS};

/// A failure that can be kept and told again.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    what: String,
    hint: &'static str,
    /// Whether waiting alone cannot mend it.
    pub(super) lasting: bool,
    source: Option<Box<lapin::Error>>,
}

/// The AMQP reply codes that we tell apart. Source: AMQP 0-9-1, section 1.2.
pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// The AMQP reply code inside `error`, where the broker gave one.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    if let ErrorKind::ProtocolError(error) = error.kind() { Some(error.get_id()) } else { None }
}

impl Failure {
    /// `doing` failed with what the broker or the socket said.
    pub(super) fn of(doing: impl fmt::Display, error: lapin::Error) -> Self {
        let (hint, lasting) = match reply_code(&error) {
            Some(ACCESS_REFUSED) => (RIGHTS, true),
            Some(NOT_ALLOWED) => ("check the virtual host at the end of `[broker] url`; `/` is written `%2f`", true),
            Some(NOT_FOUND | PRECONDITION_FAILED | RESOURCE_LOCKED) => {
                ("run `interven-alerts doctor`, which compares the topology with what is needed", true)
            }
            Some(_) | None => ("check that the broker runs and that host and port in `[broker] url` are right", false),
        };
        Self { what: doing.to_string(), hint, lasting, source: Some(Box::new(error)) }
    }

    /// `doing` took longer than `limit`.
    pub(super) fn timeout(doing: impl fmt::Display, limit: Duration) -> Self {
        Self {
            what: format!("{doing}: no answer within {} s", limit.as_secs()),
            hint: "look for a memory or disk alarm, or a lost majority of nodes, on the broker (`rabbitmqctl status`)",
            lasting: false,
            source: None,
        }
    }

    /// A failure of our own finding.
    pub(super) fn new(what: impl Into<String>, hint: &'static str, lasting: bool) -> Self {
        Self { what: what.into(), hint, lasting, source: None }
    }

    /// The same failure with another hint.
    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    /// The AMQP reply code, where the broker gave one.
    pub(super) fn reply_code(&self) -> Option<u16> {
        self.source.as_deref().and_then(reply_code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl From<Failure> for BrokerError {
    fn from(failure: Failure) -> Self {
        Self { what: failure.what, hint: failure.hint, source: failure.source.map(|source| source as _) }
    }
}

/// Runs a call to the broker with a time limit: every one of them can hang (a blackhole, an alarm, a lost majority). `doing`
/// and the name of the thing, where it has one, begin the error.
pub(super) async fn limited<T>(
    doing: &str,
    name: &str,
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    let what = || if name.is_empty() { doing.to_owned() } else { format!("{doing} `{name}`") };
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(what(), error)),
        Err(_) => Err(Failure::timeout(what(), limit)),
    }
}
