//! interven-alerts: the durable delivery worker behind the Interven firewall for AI agents.
//!
//! Decisions come in from a broker, are routed to the channels that want them, and are delivered to Slack, Discord, Teams,
//! Telegram and SIEMs. One sentence governs everything: **a decision is acknowledged to the broker only when every channel it was
//! routed to has it, or it is confirmed in that channel's lane queue on the broker, or it is flushed to the dead-letter store.**
//!
//! # The map
//!
//! Data moves one way, and imports run downhill with it (`tests/it/architecture.rs` holds the table):
//!
//! - [`model`]: the nouns. No input or output, imports nothing of ours.
//! - [`settings`] and [`config`]: the operator's file, read key by key, into a plan that can be trusted, or every fault at once.
//! - [`broker`]: where durable things wait; RabbitMQ and the embedded one behind one seam. Holds the [`broker::Receipt`].
//! - [`intake`]: decisions in: decode, route, hand over. [`route`]: which channels, compiled.
//! - [`lane`]: one per channel: pace, attempt, retry, pause, hold. [`lane::step`] is every rule, pure.
//! - [`channels`]: how to say it and what replies mean, one file per kind. [`formats`]: decisions for machines.
//! - [`settle`]: what "done" means. [`dead_letters`]: what could not be delivered, on disk, and how it is replayed.
//! - [`notices`] and [`canary`]: what the worker itself says: that a channel is in trouble, and tests of channels.
//! - [`approvals`]: the side door: a click is recorded in one order for the whole pool, and the first one is the answer.
//! - [`interactions`]: clicks in Slack come in, and cards are changed when their approval has ended.
//! - [`channel_log`]: what operators decided about channels, for the whole pool; [`managed`]: the channels that they made.
//! - [`sealing`]: the pool's key, and what is sealed with it.
//! - [`export`]: what was decided, out of the decisions log, for those who pull.
//! - [`workers`]: the other workers of the pool, asked over their API, and their answers put together.
//! - [`console`]: the pages that people see of it in a browser.
//! - [`http`], [`telemetry`], [`cli`]: how people and machines look in.
//! - [`app`]: builds the rooms and starts and stops them in order.
//! - [`stand_ins`]: local endpoints that answer as the real ones do, for the demo and the tests.
//!
//! Read first: [`broker::receipt`], then [`lane::step`], then [`intake`] and [`settle`].
//!
//! # Invariants
//!
//! - Only the intake and the lanes settle receipts, and only under the sentence above. A dropped receipt is a redelivery.
//! - Every queue has a bound, every wait on a network a limit, every body a maximum.
//! - All text of a decision is hostile until a channel or a format has cleaned it for its platform.
//! - A secret has no way to print itself.

pub mod app;
pub mod approvals;
pub mod broker;
pub mod canary;
pub mod channel_log;
pub mod channels;
pub mod cli;
pub mod config;
pub mod console;
pub mod dead_letters;
pub mod export;
pub mod formats;
pub mod http;
pub mod intake;
pub mod interactions;
pub mod lane;
pub mod managed;
pub mod model;
pub mod notices;
pub mod route;
pub mod sealing;
pub mod settings;
pub mod settle;
pub mod stand_ins;
pub mod telemetry;
pub mod tls;
pub mod workers;
