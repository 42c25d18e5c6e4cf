//! A channel as somebody sent it -> one that can be run, or every complaint at once.

use serde_json::{Map, Value};

use super::{
    Complaint,
    masks::{self, HiddenKeys},
    writing::toml_text,
};
use crate::{
    channels::KINDS,
    config::{self, ChannelPlan},
    model::{ChannelId, Egress, Secret},
    settings::Fault,
};

/// A channel that can be run.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// How it is run.
    pub(super) plan: ChannelPlan,
    /// What was sent, its secrets in their places: what is kept. `null` and the id are left out.
    pub(super) config: Secretive,
    /// Which of its keys hold secrets.
    pub(super) hidden: HiddenKeys,
    /// What looks wrong in it.
    pub(super) warnings: Vec<Complaint>,
    /// Every secret in it.
    pub(super) secrets: Vec<Secret>,
    /// Whether some of it was taken from the present channel.
    pub(super) keeps: bool,
}

/// The keys of a channel with their secrets. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secretive(pub(super) Map<String, Value>);

impl std::fmt::Debug for Secretive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[channel]")
    }
}

impl Draft {
    /// The channel as people may see it.
    pub(super) fn masked(&self) -> Map<String, Value> {
        masks::masked(&self.config.0, &self.hidden)
    }
}

/// Reads the channel `id`. Masks in it stand for the secrets of `present`, if it is of the same kind.
pub(super) fn read(
    id: &ChannelId,
    sent: &Map<String, Value>,
    egress: &Egress,
    present: Option<&Draft>,
) -> Result<Draft, Vec<Complaint>> {
    let mut sent: Map<String, Value> =
        sent.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
    let present = present.filter(|present| sent.get("kind") == present.config.0.get("kind"));
    let as_sent = sent.clone();
    let mut complaints =
        present.map_or_else(Vec::new, |present| masks::restore(&mut sent, &present.config.0, &present.hidden));
    let text = toml_text(&sent)?;
    let reading = config::parse_channel(&text, id, egress, KINDS);
    complaints.extend(masks::left_over(&sent, &reading.hidden));
    // What is wrong with a mask is told once, and not as a URL or token that is none.
    let told = |fault: &Fault, complaints: &[Complaint]| complaints.iter().any(|complaint| complaint.key == fault.path);
    let faults: Vec<Complaint> =
        reading.faults.into_iter().filter(|fault| !told(fault, &complaints)).map(complain).collect();
    complaints.extend(faults);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let Some(plan) = reading.value.flatten() else {
        let problem = "cannot be read".to_owned();
        return Err(vec![Complaint::new("", problem, "compare it with `[[channel]]` in the README")]);
    };
    let keeps = sent != as_sent;
    sent.remove("id");
    let mut secrets = reading.secrets;
    secrets.extend(plan.channel.secrets());
    let warnings = reading.warnings.into_iter().map(complain).collect();
    Ok(Draft { plan, config: Secretive(sent), hidden: reading.hidden, warnings, secrets, keeps })
}

/// Without line and excerpt: whoever sent JSON never saw the text that was read.
fn complain(fault: Fault) -> Complaint {
    let Fault { path, problem, hint, line: _, column: _, excerpt: _ } = fault;
    Complaint { key: path, problem, hint }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{channels::Kind, settings::Outside};

    fn id() -> ChannelId {
        "soc".parse().unwrap()
    }

    fn read_json(value: &Value) -> Result<Draft, Vec<Complaint>> {
        read(&id(), value.as_object().unwrap(), &Egress::default(), None)
    }

    fn keys(complaints: &[Complaint]) -> Vec<&str> {
        complaints.iter().map(|complaint| complaint.key.as_str()).collect()
    }

    /// The kind's sample as JSON, by way of the TOML that it is.
    fn sample(kind: &Kind) -> Value {
        let text = format!("{}\n", kind.sample.replace("{base}", "http://127.0.0.1:9"));
        let table = crate::settings::read(&format!("[all]\n{text}"), &Outside::closed(), |s| s.json("all"));
        let mut sample = table.value.flatten().unwrap();
        sample["kind"] = kind.name.into();
        sample
    }

    #[test]
    fn every_kind_is_made_from_json_as_it_is_from_the_file() {
        for kind in KINDS {
            let mut sample = sample(kind);
            sample["retry"] = json!({"attempts": 3, "first": "2s"});
            sample["events"] = json!(["INCIDENT"]);
            sample["burst"] = Value::Null;
            let draft = read_json(&sample).unwrap_or_else(|complaints| panic!("{}: {complaints:?}", kind.name));
            let text = toml_text(sample.as_object().unwrap()).unwrap();
            let file = config::testing::plan(&format!("[[channel]]\nid = \"soc\"\n{text}"));
            let (made, written) = (&draft.plan, &file.channels[0]);
            let told = |plan: &ChannelPlan| format!("{:?}", ChannelPlan { fingerprint: String::new(), ..plan.clone() });
            assert_eq!(told(made), told(written), "{}", kind.name);
            let printed = format!("{:?} {:?}", draft.config, made.channel);
            assert!(!printed.contains("abcdefghijklmnop"), "a secret was printed: {printed}");
            // Shown and sent back, it is the same.
            let again = read(&id(), &draft.masked(), &Egress::default(), Some(&draft)).unwrap();
            assert_eq!(again.config, draft.config, "{}", kind.name);
            assert_eq!(again.plan.fingerprint, made.fingerprint);
            let shown = Value::from(draft.masked()).to_string();
            // A URL without a path is a host alone, which is no secret.
            let bare = |secret: &Secret| url::Url::parse(secret.expose()).is_ok_and(|url| url.path() == "/");
            for secret in draft.secrets.iter().filter(|secret| !bare(secret)) {
                assert!(!shown.contains(secret.expose()), "{}: {shown}", kind.name);
            }
        }
    }

    #[test]
    fn every_fault_is_told_at_once_by_its_key_and_none_quotes_a_secret() {
        let complaints = read_json(&json!({
            "id": "other", "kind": "siem", "url": "ftp://siem.example/very-secret-token", "min_severity": "GRAVE",
            "retry": {"attempts": 0}, "birst": 3, "timeout": 5, "headers": {"Host": "very-secret-token"},
        }))
        .unwrap_err();
        let expected = ["birst", "headers", "id", "min_severity", "retry.attempts", "timeout", "url"];
        let mut found = keys(&complaints);
        found.sort_unstable();
        assert_eq!(found, expected, "{complaints:#?}");
        assert!(complaints.iter().all(|complaint| !complaint.hint.is_empty()), "{complaints:#?}");
        assert!(!format!("{complaints:?}").contains("very-secret"), "{complaints:#?}");
        assert_eq!(keys(&read_json(&json!({"kind": "pager"})).unwrap_err()), ["kind"]);
        assert_eq!(keys(&read_json(&json!({})).unwrap_err()), ["kind"]);
    }

    #[test]
    fn neither_the_environment_nor_the_disk_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "https://hooks.slack.com/services/T/B/from-the-disk").unwrap();
        let complaints = read_json(&json!({
            "kind": "siem", "url": "https://siem.example/${PATH}", "signing_secret_file": file,
            "headers": {"Authorization": "Bearer ${HOME}", "X-Key_file": file, "X-Odd": "${"},
            "tools": ["${USER}"],
        }))
        .unwrap_err();
        let mut found = keys(&complaints);
        found.sort_unstable();
        let expected =
            ["headers.Authorization", "headers.X-Key_file", "headers.X-Odd", "signing_secret_file", "tools", "url"];
        assert_eq!(found, expected, "{complaints:#?}");
        assert!(
            complaints.iter().all(|one| one.problem.contains("only") && !one.hint.contains("_file")),
            "{complaints:#?}"
        );
        let escaped =
            read_json(&json!({"kind": "siem", "url": "https://siem.example/in", "tools": ["$${USER}"]})).unwrap();
        assert_eq!(escaped.plan.filter.tools.unwrap()[0].as_str(), "${USER}");
    }

    #[test]
    fn the_guard_of_egress_holds_here_too() {
        for url in ["http://siem.example/in", "https://169.254.169.254/latest", "http://[fe80::1]/"] {
            let complaints = read_json(&json!({"kind": "siem", "url": url})).unwrap_err();
            assert_eq!(keys(&complaints), ["url"], "{url}");
        }
    }

    #[test]
    fn a_mask_is_no_secret_of_another_kind_and_a_complaint_of_its_own() {
        let slack = json!({"kind": "slack", "webhook_url": "https://hooks.slack.com/services/T/B/abcdefghijkl"});
        let present = read_json(&slack).unwrap();
        let masked = present.masked();
        assert_eq!(masked["webhook_url"], "https://hooks.slack.com/...ijkl");
        let discord = json!({"kind": "discord", "webhook_url": masked["webhook_url"]});
        let complaints = read(&id(), discord.as_object().unwrap(), &Egress::default(), Some(&present)).unwrap_err();
        assert_eq!(keys(&complaints), ["webhook_url"]);
        let secret = json!({"kind": "slack", "webhook_url": "[secret]"});
        let complaints = read(&id(), secret.as_object().unwrap(), &Egress::default(), Some(&present)).unwrap_err();
        assert!(complaints.len() == 1 && complaints[0].problem.contains("mask"), "{complaints:?}");
    }
}
