//! From the operator's keys to a [`Plan`]. Every fault is noted before giving up, so that one run reports them all.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{BATCH_EVENTS_MAX, Envelope, Format, Plan, Siem, headers};
use crate::{
    channels::{BatchLimits, Built, Endpoint},
    formats::{
        ocsf::{Class, Shape, Version},
        standard_webhooks::SigningKey,
        template::Template,
    },
    model::Secret,
    settings::Settings,
};

/// From how many characters on a piece of a URL is taken for a token.
const TOKEN_CHARS_MIN: usize = 16;

/// The versions of OCSF by their names, in the order of [`Version::ALL`].
pub(super) const OCSF_VERSIONS: [&str; Version::ALL.len()] =
    ["1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0", "1.8.0"];

/// Reads the keys of a `siem` channel.
pub(super) fn build(settings: &mut Settings<'_>) -> Option<Built> {
    let url = settings
        .require_url("url", "the intake of your SIEM, such as https://splunk.example:8088/services/collector/event");
    let envelope = match settings.choice("envelope", &["none", "splunk", "datadog", "sumo"]) {
        Some(1) => Envelope::Splunk,
        Some(2) => Envelope::Datadog,
        Some(3) => Envelope::Sumo,
        Some(_) | None => Envelope::None,
    };
    let format = read_format(settings);
    let signing_secrets = settings.secrets("signing_secret");
    let keys = read_keys(settings, &signing_secrets);
    let (headers, mut secrets) = read_headers(settings, !signing_secrets.is_empty());
    let batch = read_batch(settings);
    let gzip = settings.choice("compression", &["none", "gzip"]) == Some(1);
    if let Some(url) = &url
        && envelope == Envelope::Splunk
        && url.path().trim_end_matches('/').ends_with("/collector/raw")
    {
        let problem = String::from("the raw endpoint of Splunk takes no event objects");
        settings.fault("url", problem, "use /services/collector/event, or set `envelope` to none");
    }

    let endpoint = Endpoint::new(url?);
    secrets.push(endpoint.secret());
    secrets.extend(tokens_in(endpoint.expose()));
    secrets.extend(signing_secrets);
    let plan = Plan { endpoint, format: format?, envelope, headers: headers?, keys: keys?, batch, gzip, secrets };
    Some(Built { channel: Arc::new(Siem::new(plan)), pace: Vec::new() })
}

/// `format` and the keys that go with one format only.
fn read_format(settings: &mut Settings<'_>) -> Option<Format> {
    let choice = settings.choice("format", &["cef", "ocsf", "json"]);
    let default = Shape::default();
    let class = match settings.choice("ocsf_class", &["detection_finding", "security_finding"]) {
        Some(1) => Class::SecurityFinding,
        Some(_) | None => Class::DetectionFinding,
    };
    let version = settings.choice("ocsf_version", &OCSF_VERSIONS).map_or(default.version, |index| Version::ALL[index]);
    let template = settings.json("template");
    let template = match template.as_ref().map(Template::parse).transpose() {
        Ok(template) => Some(template),
        Err(error) => {
            settings.fault("template", error.to_string(), error.hint());
            None
        }
    };
    let format = match choice {
        Some(0) => Format::Cef,
        Some(1) => Format::Ocsf(Shape { class, version }),
        Some(_) | None => Format::Json(template.clone()?),
    };
    let foreign: &[(&str, &str)] = match format {
        Format::Cef => &[("template", "json"), ("ocsf_class", "ocsf"), ("ocsf_version", "ocsf")],
        Format::Ocsf(_) => &[("template", "json")],
        Format::Json(_) => &[("ocsf_class", "ocsf"), ("ocsf_version", "ocsf")],
    };
    for (key, wanted) in foreign {
        if settings.has(key) {
            settings.fault(
                key,
                format!("goes with the `format` {wanted} only"),
                "leave it out, or change the `format`",
            );
        }
    }
    template.is_some().then_some(format)
}

fn read_keys(settings: &mut Settings<'_>, secrets: &[Secret]) -> Option<Vec<SigningKey>> {
    let mut keys = Some(Vec::new());
    for secret in secrets {
        match SigningKey::parse(secret) {
            Ok(key) => keys.iter_mut().for_each(|keys| keys.push(key.clone())),
            Err(error) => {
                settings.fault("signing_secret", error.to_string(), error.hint());
                keys = None;
            }
        }
    }
    keys
}

/// The operator's headers, if none is at fault, and the secrets in them.
fn read_headers(settings: &mut Settings<'_>, signed: bool) -> (Option<HeaderMap>, Vec<Secret>) {
    let written = settings.secret_map("headers");
    let (map, faults) = headers::checked(&written, signed);
    for fault in &faults {
        settings.fault("headers", fault.to_string(), fault.hint());
    }
    let secrets = written.iter().flat_map(|(name, value)| headers::secrets_in(name, value)).collect();
    (faults.is_empty().then_some(map), secrets)
}

fn read_batch(settings: &mut Settings<'_>) -> BatchLimits {
    let events_max = i64::try_from(BATCH_EVENTS_MAX).unwrap_or(i64::MAX);
    let read = settings.table("batch", |batch| {
        let events = batch.integer("events", 1..=events_max).and_then(|events| usize::try_from(events).ok());
        // Five megabytes is what one request to Datadog may have; Splunk Cloud and Sumo take one.
        let bytes = batch.size("bytes", 10_000..=5_000_000).and_then(|bytes| usize::try_from(bytes).ok());
        let wait = batch.duration("wait", Duration::from_millis(1)..=Duration::from_mins(1));
        (events, bytes, wait)
    });
    let (events, bytes, wait) = read.unwrap_or_default();
    BatchLimits {
        events: events.unwrap_or(1),
        bytes: bytes.unwrap_or(900_000),
        wait: wait.unwrap_or(Duration::from_secs(1)),
    }
}

/// Pieces of a URL that an endpoint may echo alone: long segments of the path (Sumo's collector code) and values of the query.
fn tokens_in(url: &url::Url) -> Vec<Secret> {
    let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let long = |piece: &String| piece.chars().count() >= TOKEN_CHARS_MIN;
    segments.chain(values).filter(long).map(Secret::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::settings::{Outside, Reading, read};

    fn built(text: &str) -> Reading<Option<Built>> {
        read(text, &Outside::nothing(), build)
    }

    /// The faults of a configuration as `problem (hint)`, one each.
    fn faults(text: &str) -> Vec<String> {
        let told = |reading: Reading<Option<Built>>| {
            reading.faults.iter().map(|fault| format!("{} ({})", fault.problem, fault.hint)).collect()
        };
        told(built(text))
    }

    /// The channel, as it prints.
    fn printed(text: &str) -> String {
        let reading = built(text);
        assert!(reading.faults.is_empty(), "{:?}", reading.faults);
        format!("{:?}", reading.value.flatten().expect("no fault, so a channel").channel)
    }

    #[test]
    fn a_url_is_enough_and_means_json_one_at_a_time() {
        let channel = printed("url = \"https://siem.example/in\"\n");
        for part in ["format: Json(None)", "envelope: None", "events: 1", "bytes: 900000", "wait: 1s", "gzip: false"] {
            assert!(channel.contains(part), "{part} in {channel}");
        }
    }

    #[test]
    fn every_key_is_read() {
        let channel = printed(
            r#"
url = "https://siem.example/services/collector/event"
format = "ocsf"
envelope = "splunk"
ocsf_class = "security_finding"
ocsf_version = "1.1.0"
headers = { Authorization = "Splunk 0f0f-token-0f0f" }
signing_secret = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"]
batch = { events = 500, bytes = "1MB", wait = "250ms" }
compression = "gzip"
"#,
        );
        for part in ["SecurityFinding", "V1_1", "Splunk", "events: 500", "bytes: 1000000", "wait: 250ms", "gzip: true"]
        {
            assert!(channel.contains(part), "{part} in {channel}");
        }
        for secret in ["0f0f", "MfKQ9r8G", "collector"] {
            assert!(!channel.contains(secret), "{secret} in {channel}");
        }
    }

    #[test]
    fn a_template_is_a_table_or_a_string() {
        for template in
            ["template = { id = \"{{id}}\" }", "template = '{\"id\": \"{{id}}\"}'", "[template]\nid = \"{{id}}\""]
        {
            let channel = printed(&format!("url = \"https://siem.example/in\"\n{template}\n"));
            assert!(channel.contains("Json(Some(Template"), "{channel}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once_and_none_shows_a_secret() {
        let text = r#"
url = "https://siem.example/services/collector/raw"
format = "cef"
envelope = "splunk"
ocsf_version = "1.5.0"
template = { id = "{{id" }
signing_secret = ["whsec_very-secret!", "very-secret"]
headers = { Host = "very-secret", "bad name" = "very-secret" }
batch = { events = 5000 }
compression = "deflate"
"#;
        let faults = faults(text);
        for part in [
            "takes no event objects",
            "goes with the `format` ocsf only",
            "goes with the `format` json only",
            "not closed",
            "not base64",
            "does not begin with whsec_",
            "`host` is written by",
            "`bad name` is not the name",
            "from 1 to 1000",
            "gzip",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} in {faults:#?}");
        }
        assert_eq!(faults.len(), 10, "{faults:#?}");
        assert!(!format!("{faults:?}").contains("very-secret"), "{faults:#?}");
    }

    #[test]
    fn every_version_of_ocsf_can_be_chosen_by_its_name() {
        for version in Version::ALL {
            let text = "url = \"https://siem.example/in\"\nformat = \"ocsf\"\nocsf_version = ";
            let channel = printed(&format!("{text}\"{}\"\n", version.as_str()));
            assert!(channel.contains(&format!("version: {version:?}")), "{channel}");
        }
    }

    #[test]
    fn the_secrets_of_a_channel_are_known_for_scrubbing() {
        let text = "url = \"https://siem.example/in/abcdefghijklmnop\"\nheaders = { A = \"Bearer token-1\" }\n";
        let channel = built(text).value.flatten().unwrap().channel;
        let secrets: Vec<String> = channel.secrets().iter().map(|secret| secret.expose().to_owned()).collect();
        for secret in ["Bearer token-1", "token-1", "abcdefghijklmnop", "https://siem.example/in/abcdefghijklmnop"] {
            assert!(secrets.iter().any(|one| one == secret), "{secret} in {secrets:?}");
        }
    }

    #[test]
    fn tokens_in_a_url_are_known_by_themselves() {
        let url = "https://x.example/receiver/v1/http/ZaVnC4dhaV1234567890?dd-api-key=0123456789abcdef&v=1";
        let tokens = tokens_in(&url.parse().unwrap());
        assert_eq!(tokens, [Secret::new("ZaVnC4dhaV1234567890"), Secret::new("0123456789abcdef")]);
    }
}
