//! Endpoints and the configuration of the worker that delivers to them.

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    channels::KINDS,
    config::{self, Plan},
    model::{ChannelId, Decision},
    stand_ins::{Platform, Script, StandIn},
};
use tokio::time::Instant;

use super::rabbit::Rabbit;

/// Every kind of decision.
pub(crate) const ALL_EVENTS: &str =
    "events = [\"ALLOW\", \"DENY\", \"SANITIZE\", \"REQUIRE_APPROVAL\", \"INCIDENT\"]\n";

/// Waits short enough for a test, and more attempts than any test uses up.
pub(crate) const PATIENT: &str = "[channel.retry]\nattempts = 1000\nfirst = \"50ms\"\nlongest = \"500ms\"\n";

/// Keys of a channel that goes as fast as it can.
pub(crate) const FAST: &str = "rate_limit = \"none\"\nconcurrency = 4\n";

/// The same, giving up soon.
pub(crate) const IMPATIENT: &str = "[channel.retry]\nattempts = 2\nfirst = \"50ms\"\nlongest = \"500ms\"\n";

/// A token with the role `publisher`, and the lines that let it in.
pub(crate) const PUBLISHER_TOKEN: &str = "ia_Tq7mWz3xRk9vNc5bLp2d";
pub(crate) const PUBLISHER: &str = "[[access.token]]\nname = \"firewall\"\nrole = \"publisher\"\n\
     sha256 = \"3ae99ae9ea424d1c9cc8dda2c9af6018758b7cab5a61386395630f93ff6afd8b\"\n";

/// The lines that let somebody in with this role, whose token is `token-of-ROLE`.
pub(crate) fn token_of(role: &str) -> String {
    use sha2::Digest as _;
    let hash = interven_alerts::model::hex(&sha2::Sha256::digest(format!("token-of-{role}")));
    format!("[[access.token]]\nname = \"the-{role}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
}

/// One endpoint and its channel.
pub(crate) struct Actor {
    pub(crate) id: &'static str,
    pub(crate) stand_in: StandIn,
    toml: String,
}

/// All endpoints of a test.
#[derive(Default)]
pub(crate) struct Scene {
    pub(crate) actors: Vec<Actor>,
}

impl Scene {
    /// Adds an endpoint with this script; `more` are keys of its channel, tables last.
    pub(crate) async fn add(&mut self, id: &'static str, platform: Platform, script: Script, more: &str) {
        let stand_in = StandIn::start(platform, script).await.unwrap();
        let door = door(platform, &stand_in);
        let chat = matches!(platform, Platform::Slack | Platform::Discord | Platform::Teams | Platform::Telegram);
        // Most tests count decisions one by one; those that are about digests say so.
        let unfolded = if chat && !more.contains("digest") { "digest = { enabled = false }\n" } else { "" };
        self.add_with_door(id, stand_in, &format!("{door}{unfolded}{more}"));
    }

    /// Adds an endpoint whose channel says all of its own keys.
    pub(crate) fn add_with_door(&mut self, id: &'static str, stand_in: StandIn, keys: &str) {
        let toml = format!("[[channel]]\nid = \"{id}\"\n{keys}\n");
        self.actors.push(Actor { id, stand_in, toml });
    }

    /// The channels' part of the configuration.
    pub(crate) fn channels(&self) -> String {
        self.actors.iter().map(|actor| actor.toml.as_str()).collect()
    }

    /// The ids of the channels.
    pub(crate) fn ids(&self) -> Vec<&'static str> {
        self.actors.iter().map(|actor| actor.id).collect()
    }

    /// One endpoint.
    pub(crate) fn stand_in(&self, id: &str) -> &StandIn {
        &self.actors.iter().find(|actor| actor.id == id).expect("it was added").stand_in
    }

    /// From now on every endpoint answers as its platform would.
    pub(crate) fn heal(&self) {
        for actor in &self.actors {
            actor.stand_in.set_script(Script::accept());
        }
    }

    /// Waits until every delivery among `expected` has been told.
    pub(crate) async fn until_told(&self, expected: &[(ChannelId, Vec<Arc<str>>)], limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let missing = self.missing(expected);
            if missing.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} deliveries not within {limit:?}: {:?}",
                missing.len(),
                &missing[..missing.len().min(5)]
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many messages the endpoints have taken.
    pub(crate) fn taken(&self) -> u64 {
        self.actors.iter().map(|actor| actor.stand_in.counters().taken).sum()
    }

    /// How often decisions were told more than once, over all endpoints.
    pub(crate) fn duplicates(&self) -> u32 {
        let counts = self.actors.iter().flat_map(|actor| actor.stand_in.received_ids().into_values());
        counts.map(|count| count - 1).sum()
    }

    /// The deliveries that `decisions` make under the configuration at `path`, by channel.
    pub(crate) fn expected(path: &Path, decisions: &[Bytes]) -> Vec<(ChannelId, Vec<Arc<str>>)> {
        let decisions: Vec<Decision> =
            decisions.iter().map(|body| Decision::decode(body.clone()).expect("a decision")).collect();
        let wanted = |plan: &Plan, at: usize| {
            let filter = &plan.channels[at].filter;
            decisions.iter().filter(|one| filter.check(one).is_ok()).map(|one| Arc::from(&*one.id)).collect()
        };
        let plan = config::load(path, &|_| None, KINDS).expect("the configuration is sound").plan;
        (0..plan.channels.len()).map(|at| (plan.channels[at].id.clone(), wanted(&plan, at))).collect()
    }

    /// The deliveries among `expected` that no endpoint has.
    pub(crate) fn missing<'a>(&self, expected: &'a [(ChannelId, Vec<Arc<str>>)]) -> Vec<(&'a ChannelId, &'a str)> {
        let of_channel = expected.iter().flat_map(|(channel, ids)| {
            let received = self.stand_in(channel.as_str()).received_ids();
            ids.iter().filter(move |id| !received.contains_key(&***id)).map(move |id| (channel, &**id))
        });
        of_channel.collect()
    }
}

/// Where a channel finds its endpoint.
pub(crate) fn door(platform: Platform, stand_in: &StandIn) -> String {
    let (url, base) = (stand_in.url(), stand_in.base_url());
    let mut text = String::new();
    match platform {
        Platform::Slack | Platform::Discord | Platform::Teams => {
            write!(text, "kind = \"{}\"\nwebhook_url = \"{url}\"\n", platform.as_str()).unwrap();
        }
        Platform::Telegram => {
            let token = "100001:madeUpTokenOfAStandIn";
            write!(text, "kind = \"telegram\"\nbot_token = \"{token}\"\nchat_id = 100001\napi_url = \"{base}\"\n")
                .unwrap();
        }
        Platform::Splunk | Platform::Datadog | Platform::Sumo | Platform::Siem => {
            write!(text, "kind = \"siem\"\nurl = \"{url}\"\n").unwrap();
            text.push_str(match platform {
                Platform::Splunk => "envelope = \"splunk\"\nheaders = { Authorization = \"Splunk madeUpToken\" }\n",
                Platform::Datadog => "envelope = \"datadog\"\nheaders = { DD-API-KEY = \"madeUpKey\" }\n",
                Platform::Sumo => "envelope = \"sumo\"\n",
                Platform::Slack | Platform::Discord | Platform::Teams | Platform::Telegram | Platform::Siem => "",
            });
        }
    }
    text
}

/// The `[broker]` section for a broker of ours.
pub(crate) fn on(rabbit: &Rabbit, prefix: &str, more: &str) -> String {
    format!("[broker]\nurl = \"{}\"\nprefix = \"{prefix}\"\n{more}\n", rabbit.url().expose())
}
