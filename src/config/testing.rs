//! Two small kinds, so that the configuration and the command line are tested without the real ones.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};

use crate::{
    channels::{Built, Channel, Endpoint, Kind, Occasion, Parcel, Rate, form::Form, judging},
    model::{Delivery, Reply, Secret, Verdict},
    settings::Settings,
};

/// A chat and a firehose.
pub(crate) const KINDS: &[&Kind] = &[&CHAT, &FIREHOSE];

const CHAT: Kind = Kind {
    name: "chat",
    concurrency: 1,
    chat: true,
    sample: "webhook_url = \"{base}/hook\"\n",
    form: &Form::NONE,
    build: |s| build(s, vec![Rate { count: 2, per: Duration::from_secs(1), burst: 5 }]),
};

const FIREHOSE: Kind = Kind {
    name: "firehose",
    concurrency: 16,
    chat: false,
    sample: "webhook_url = \"{base}/hook\"\n",
    form: &Form::NONE,
    build: |s| build(s, Vec::new()),
};

#[derive(Debug)]
struct Mouth {
    endpoint: Endpoint,
    token: Option<Secret>,
}

fn build(s: &mut Settings<'_>, pace: Vec<Rate>) -> Option<Built> {
    let url = s.require_url("webhook_url", "copy it from the chat's settings");
    let token = s.secret("token");
    let channel = Arc::new(Mouth { endpoint: Endpoint::new(url?), token });
    Some(Built { channel, pace })
}

impl Channel for Mouth {
    fn render(&self, delivery: &Delivery, _: &Occasion<'_>) -> Parcel {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(token.expose()).expect("test tokens are ASCII");
            value.set_sensitive(true);
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let title = delivery.decision.title.as_deref().unwrap_or_default();
        let text = format!("{} {title}", delivery.decision.kind);
        let body = if delivery.plain { text } else { serde_json::json!({ "text": text }).to_string() };
        Parcel { endpoint: self.endpoint.clone(), headers, body: body.into() }
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        judging::by_status(reply)
    }

    fn secrets(&self) -> Vec<Secret> {
        self.token.iter().cloned().chain([self.endpoint.secret()]).collect()
    }
}

/// The plan that `text` holds, with the real kinds.
pub(crate) fn plan(text: &str) -> super::Plan {
    let outside = crate::settings::Outside::nothing();
    super::parse(text, &outside, crate::channels::KINDS).expect("the test's configuration is sound").plan
}
