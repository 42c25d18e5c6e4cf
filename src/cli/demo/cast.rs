//! The demo's endpoints and the configuration of the worker that delivers to them.

use std::path::Path;

use super::Trouble;
use crate::stand_ins::{Platform, Script, StandIn};

/// The id of the channel whose endpoint refuses one message.
pub const TELEGRAM: &str = "on-call-telegram";

/// The five endpoints.
#[derive(Debug)]
pub struct Cast {
    pub(super) slack: StandIn,
    pub(super) discord: StandIn,
    pub(super) teams: StandIn,
    pub(super) telegram: StandIn,
    pub(super) siem: StandIn,
}

impl Cast {
    /// Starts the endpoints on free ports of 127.0.0.1.
    pub async fn start() -> Result<Self, Trouble> {
        let start = |platform| StandIn::start(platform, Script::accept());
        Ok(Self {
            slack: start(Platform::Slack).await?,
            discord: start(Platform::Discord).await?,
            teams: start(Platform::Teams).await?,
            telegram: start(Platform::Telegram).await?,
            siem: start(Platform::Siem).await?,
        })
    }

    /// Each endpoint with the id of its channel, in the order of the configuration.
    pub(super) fn channels(&self) -> [(&'static str, &StandIn); 5] {
        [
            ("soc-slack", &self.slack),
            ("dev-discord", &self.discord),
            ("it-teams", &self.teams),
            (TELEGRAM, &self.telegram),
            ("siem", &self.siem),
        ]
    }

    /// The worker's configuration: no `[broker]`, so the embedded one in `data_dir`, and short waits, so that half a minute
    /// shows what takes hours in earnest.
    pub fn config(&self, data_dir: &Path) -> String {
        // A JSON string is a TOML string, whatever the path holds.
        let data_dir = serde_json::Value::from(data_dir.to_string_lossy().as_ref());
        let retry = "[channel.retry]\nattempts = 10\nfirst = \"250ms\"\nlongest = \"1s\"\n";
        format!(
            r#"data_dir = {data_dir}

[http]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
public_url = "https://alerts.example.com"
console_url = "https://console.example.com"

[[channel]]
id = "soc-slack"
kind = "slack"
webhook_url = "{slack}"
min_severity = "HIGH"
rate_limit = "8/s"
burst = 4
timeout = "3s"
{retry}
[[channel]]
id = "dev-discord"
kind = "discord"
webhook_url = "{discord}"
events = ["DENY", "INCIDENT"]
min_severity = "MEDIUM"
rate_limit = "10/s"
burst = 5
timeout = "3s"
{retry}
[[channel]]
id = "it-teams"
kind = "teams"
webhook_url = "{teams}"
events = ["REQUIRE_APPROVAL", "INCIDENT"]
min_severity = "HIGH"
rate_limit = "8/s"
burst = 4
timeout = "3s"
{retry}
[[channel]]
id = "{TELEGRAM}"
kind = "telegram"
bot_token = "100001:madeUpTokenOfAStandIn"
chat_id = 100001
api_url = "{telegram}"
min_severity = "CRITICAL"
rate_limit = "8/s"
burst = 4
timeout = "3s"
{retry}
[[channel]]
id = "siem"
kind = "siem"
url = "{siem}"
format = "ocsf"
events = ["ALLOW", "DENY", "SANITIZE", "REQUIRE_APPROVAL", "INCIDENT"]
timeout = "3s"
{retry}"#,
            slack = self.slack.url(),
            discord = self.discord.url(),
            teams = self.teams.url(),
            telegram = self.telegram.base_url(),
            siem = self.siem.url(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configuration_is_toml_and_names_every_endpoint() {
        let cast = Cast::start().await.unwrap();
        let text = cast.config(Path::new("/tmp/a \"quoted\" dir\\x"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["data_dir"].as_str(), Some("/tmp/a \"quoted\" dir\\x"));
        let channels = table["channel"].as_array().unwrap();
        for ((id, stand_in), channel) in cast.channels().iter().zip(channels) {
            assert_eq!(channel["id"].as_str(), Some(*id));
            assert!(format!("{channel:?}").contains(&stand_in.base_url()), "{channel:?}");
            assert_eq!(channel["retry"]["first"].as_str(), Some("250ms"));
        }
        assert_eq!(channels.len(), 5);
    }
}
