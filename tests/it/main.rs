//! The one integration test binary: a module per subject.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; the lint's own exception stops at test functions"
)]

mod access;
mod approvals;
mod architecture;
mod broker;
mod chaos;
mod cli;
mod console;
mod dead_letters;
mod deploy;
mod export;
mod interactions;
mod main_job;
mod monitoring;
mod operators;
mod pool;
mod support;
mod worker;
