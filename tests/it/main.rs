//! The one integration test binary: a module per subject.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]
#![expect(clippy::needless_for_each, reason = "settling a batch is one line so")]

mod broker;
mod support;
