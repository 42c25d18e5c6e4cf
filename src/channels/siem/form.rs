//! How a SIEM is entered by hand.

use crate::channels::form::{Field, Form, Input};

pub(super) static FORM: Form = Form {
    title: "SIEM webhook",
    sentence: "Every decision to Splunk, Datadog, Sumo Logic or any HTTP endpoint, as CEF, OCSF or JSON.",
    steps: &[
        "URL: the intake of your SIEM.",
        "Format: CEF for ArcSight and QRadar, OCSF for most others, JSON for whatever you make of it.",
        "Envelope: splunk for HEC, datadog for Logs, sumo for an HTTP source; none sends the format bare.",
        "Headers: add Authorization: Splunk HEC-TOKEN, DD-API-KEY: KEY, or what your endpoint asks for.",
        "Events: most people send all but ALLOW. SANITIZE is not ticked unless you tick it.",
    ],
    fields: &[
        Field::new("url", "URL", Input::Url)
            .hint("The intake of your SIEM.")
            .like("https://splunk.example:8088/services/collector/event")
            .needed(),
        Field::new("format", "Format", Input::Choice { options: &["cef", "ocsf", "json"], default: "json" }),
        Field::new(
            "envelope",
            "Envelope",
            Input::Choice { options: &["none", "splunk", "datadog", "sumo"], default: "none" },
        )
        .hint("What the endpoint wants around each decision."),
        Field::new("headers", "Headers", Input::Headers)
            .hint("Name: value, one a line. Values are shown to nobody again.")
            .like("Authorization: Splunk 0f0f0f0f-..."),
        Field::new("signing_secret", "Signing secret", Input::Secrets)
            .hint("Standard Webhooks: one or several, one a line; each signs.")
            .like("whsec_...")
            .more(),
        Field::new("template", "Template", Input::Json)
            .hint("With format json only: the JSON to send, {{id}} and its like stand for fields of the decision.")
            .like(r#"{"id": "{{id}}", "what": "{{title}}"}"#)
            .more(),
        Field::new(
            "ocsf_class",
            "OCSF class",
            Input::Choice { options: &["detection_finding", "security_finding"], default: "detection_finding" },
        )
        .hint("With format ocsf only.")
        .more(),
        Field::new(
            "ocsf_version",
            "OCSF version",
            Input::Choice { options: &super::reading::OCSF_VERSIONS, default: "1.5.0" },
        )
        .hint("With format ocsf only.")
        .more(),
        Field::new("batch.events", "Decisions in a request", Input::Number)
            .hint("1 to 1000; 1 if left out.")
            .like("100")
            .more(),
        Field::new("batch.bytes", "Bytes in a request", Input::Size)
            .hint("10KB to 5MB; 900KB if left out.")
            .like("900KB")
            .more(),
        Field::new("batch.wait", "Wait for company", Input::Text)
            .hint("How long the first decision of a batch waits for others; 1s if left out.")
            .like("1s")
            .more(),
        Field::new("compression", "Compression", Input::Choice { options: &["none", "gzip"], default: "none" }).more(),
    ],
};
