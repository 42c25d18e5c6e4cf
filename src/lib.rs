//! interven-alerts: the durable delivery worker behind the Interven firewall for AI agents.

pub mod broker;
pub mod channels;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod formats;
pub mod http;
pub mod lane;
pub mod model;
pub mod route;
pub mod settings;
pub mod telemetry;
pub mod tls;
