//! What the program can trust: the operator's file after every check, as plain data.
//!
//! Rooms never see a [`Plan`]; `app` takes it apart and hands each room its own parameters.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    approvals::Terms,
    channels::{Channel, Kind, Links, Rate},
    model::{ChannelId, Egress, Filter, RetryPlan, Role, Scrubber, Secret},
    sealing::Key,
};

/// The whole configuration.
#[derive(Debug)]
pub struct Plan {
    /// Where dead letters and the embedded broker live.
    pub data_dir: PathBuf,
    /// Where durable things wait.
    pub broker: BrokerPlan,
    /// Where the HTTP side listens.
    pub http: HttpPlan,
    /// The APIs of the other workers of the pool; this one may be among them.
    pub peers: Vec<url::Url>,
    /// The pool's key, where `INTERVEN_ALERTS_KEY` gives one.
    pub key: Option<Key>,
    /// Who may call it.
    pub access: AccessPlan,
    /// For how long an approval is a grant.
    pub approvals: Terms,
    /// How long a stop may take to finish what is under way.
    pub shutdown_grace: Duration,
    /// Which addresses a channel may be pointed at.
    pub egress: Egress,
    /// Where links in cards point.
    pub links: Links,
    /// The channels, in the order of the file; no two have the same id.
    pub channels: Vec<ChannelPlan>,
    pub(super) secrets: Vec<Secret>,
}

impl Plan {
    /// Removes every secret of this configuration from text.
    pub fn scrubber(&self) -> Scrubber {
        Scrubber::new(self.secrets())
    }

    /// Every secret of this configuration.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        let of_channels = self.channels.iter().flat_map(|channel| channel.channel.secrets());
        self.secrets.iter().cloned().chain(of_channels)
    }

    /// The channel with this id.
    pub fn channel(&self, id: &str) -> Option<&ChannelPlan> {
        self.channels.iter().find(|channel| channel.id.as_str() == id)
    }
}

/// Which broker, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerPlan {
    /// RabbitMQ.
    RabbitMq {
        /// The nodes of one cluster, at least one, tried in turn. amqp or amqps.
        urls: Vec<Secret>,
        /// What our names on the broker begin with.
        prefix: String,
        /// How many unsettled decisions a worker holds at most.
        prefetch: NonZeroU16,
        /// Whether to make what is missing, rather than to check only.
        declare: bool,
        /// How long decisions are kept for export; `None` keeps none.
        keep_decisions: Option<Duration>,
    },
    /// The embedded broker in `data_dir`, for one worker.
    Embedded {
        /// How many unsettled decisions the worker holds at most.
        prefetch: NonZeroU16,
        /// How long decisions are kept for export; `None` keeps none.
        keep_decisions: Option<Duration>,
    },
}

/// Where the HTTP side listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpPlan {
    /// Console, API, Slack interactions.
    pub listen: SocketAddr,
    /// Metrics and probes.
    pub metrics_listen: SocketAddr,
}

/// Who may call the HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPlan {
    /// The tokens; no two have the same name or hash.
    pub tokens: Vec<AccessToken>,
    /// How long a session lasts from its sign-in.
    pub session: Duration,
    /// Proxies whose word about where a caller calls from is taken.
    pub trusted_proxies: Vec<IpNet>,
}

/// A token, known by its hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Whose it is, for the record of who did what.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The SHA-256 of the token's text.
    pub sha256: [u8; 32],
}

/// One channel and its policy.
#[derive(Clone, Debug)]
pub struct ChannelPlan {
    /// Its id.
    pub id: ChannelId,
    /// Its kind.
    pub kind: &'static Kind,
    /// Which decisions it wants.
    pub filter: Filter,
    /// How to say it.
    pub channel: Arc<dyn Channel>,
    /// How fast; all rates hold at once. Empty: as fast as can be.
    pub pace: Vec<Rate>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Sends under way at once.
    pub concurrency: NonZeroU16,
    /// How often, with what waits, and until which age.
    pub retry: RetryPlan,
    /// When what waits is folded into one message; `None` never folds.
    pub digest: Option<DigestPlan>,
    /// Whether the channel is also told what happens to other channels (a lane held, dead letters growing).
    pub notices: bool,
    /// How often a sample is sent to see whether the endpoint is well; `None` never.
    pub canary: Option<Duration>,
    /// A hash of the channel's whole resolved configuration: a reload compares it to know what changed. Not for printing.
    pub fingerprint: String,
}

/// When a storm is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestPlan {
    /// When more than this many wait, they are folded.
    pub over: NonZeroU32,
}
