//! The `siem` kind: decisions to machines, as CEF, OCSF or JSON, bare or in the envelope of Splunk, Datadog or Sumo Logic.
//!
//! A format says what a decision looks like (`formats`), an envelope how the endpoint wants it wrapped and what it answers.
//! The two are free of each other. All that does not change from one request to the next, headers above all, is built once:
//! this kind carries the firehose, and a plain JSON decision goes out without being copied.
//!
//! One request carries one decision, or with `batch` up to a thousand. With a batch configured, a JSON body is an array also
//! when only one decision was there, so that a receiver sees one shape.
//!
//! | envelope | CEF | OCSF, JSON |
//! |---|---|---|
//! | `none` | a line each | one object; an array with `batch` |
//! | `splunk` | HEC event objects, one after the other | the same |
//! | `datadog` | an array of log objects | the same |
//! | `sumo` | a line each | a line each |
//!
//! With `signing_secret`, requests are signed by Standard Webhooks. `webhook-id` is the delivery's id, for a batch the UUIDv5
//! of the ids in it: the same batch has the same id, however often it is tried.
//!
//! Absent on purpose: Splunk's indexer acknowledgement. It needs sticky sessions and a poll per batch, and a 200 without it
//! already means that HEC has the event.
//!
//! Start with [`Siem`]; `reading.rs` makes one of a configuration, `judge.rs` knows the replies.

mod form;
mod headers;
mod judge;
mod reading;

use std::{io::Write as _, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use uuid::Uuid;

use super::{BatchLimits, Batcher, Channel, Endpoint, Kind, Occasion, Parcel};
use crate::{
    formats::{
        Payload, cef, datadog,
        json::Compact,
        ocsf, splunk,
        standard_webhooks::{self, SigningKey},
        template::{Filling, Template},
    },
    model::{Delivery, DeliveryId, Reply, Secret, Verdict},
};

/// The `siem` kind.
pub static KIND: Kind = Kind {
    name: "siem",
    concurrency: 16,
    chat: false,
    sample: r#"
url = "{base}/siem"
headers = { Authorization = "Bearer sample-token-of-a-siem" }
"#,
    form: &form::FORM,
    build: reading::build,
};

/// How large a batch may be configured, in decisions: as many as one request to Datadog may hold.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// How a decision is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of CEF.
    Cef,
    /// An OCSF event.
    Ocsf(ocsf::Shape),
    /// The decision as the firewall published it, or what a template makes of it.
    Json(Option<Template>),
}

/// How the endpoint wants it wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Not at all.
    None,
    /// Splunk's HTTP Event Collector.
    Splunk,
    /// Datadog's logs intake.
    Datadog,
    /// Sumo Logic's HTTP source.
    Sumo,
}

/// What a SIEM channel is made of.
#[derive(Debug)]
pub struct Plan {
    /// Where requests go.
    pub endpoint: Endpoint,
    /// How a decision is written.
    pub format: Format,
    /// How it is wrapped.
    pub envelope: Envelope,
    /// The operator's headers, checked by [`headers`].
    pub headers: HeaderMap,
    /// With a key, requests are signed; with several, by each of them.
    pub keys: Vec<SigningKey>,
    /// When a batch is full. `bytes` is what a whole body may have; `events` is 1 to [`BATCH_EVENTS_MAX`], 1 for no batches.
    pub batch: BatchLimits,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Every secret in the above.
    pub secrets: Vec<Secret>,
}

impl Plan {
    /// Decisions as they come to `endpoint`, one at a time, unsigned.
    pub fn new(endpoint: Endpoint, format: Format, envelope: Envelope) -> Self {
        let secrets = vec![endpoint.secret()];
        let batch = BatchLimits { events: 1, bytes: 900_000, wait: Duration::from_secs(1) };
        Self { endpoint, format, envelope, headers: HeaderMap::new(), keys: Vec::new(), batch, gzip: false, secrets }
    }
}

/// One configured SIEM.
#[derive(Debug)]
pub struct Siem {
    plan: Plan,
    /// The headers of every request, but for a signature.
    headers: HeaderMap,
    joint: Joint,
}

/// What stands before, between and after the records of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    Lines,
    Array,
}

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How many bytes of a batch record are the delivery's id, where requests are signed.
const ID_BYTES: usize = 16;

impl Siem {
    /// The channel that `plan` describes.
    pub fn new(plan: Plan) -> Self {
        let batched = plan.batch.events > 1;
        let lines = match (plan.envelope, &plan.format) {
            (Envelope::Splunk | Envelope::Sumo, _) | (Envelope::None, Format::Cef) => true,
            (Envelope::None, Format::Ocsf(_) | Format::Json(_)) => !batched,
            (Envelope::Datadog, _) => false,
        };
        let content_type = match (plan.envelope, &plan.format) {
            (Envelope::None | Envelope::Sumo, Format::Cef) => "text/plain; charset=utf-8",
            (Envelope::Splunk | Envelope::Datadog, _) | (_, Format::Ocsf(_) | Format::Json(_)) => "application/json",
        };
        let mut headers = plan.headers.clone();
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        if plan.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Self { plan, headers, joint: if lines { Joint::Lines } else { Joint::Array } }
    }

    /// One decision, written and wrapped.
    fn written(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Bytes {
        let decision = &*delivery.decision;
        // The link costs a copy, and a decision that goes out as it came needs none.
        let page = || occasion.links.decision(&decision.id);
        match &self.plan.format {
            Format::Cef => {
                let line = cef::line(decision, &page());
                self.wrapped(delivery, Payload::Cef(&line), occasion).unwrap_or_else(|| line.into())
            }
            Format::Ocsf(shape) => {
                let event = shape.event(decision, &page());
                self.wrapped(delivery, Payload::Ocsf(&event), occasion).unwrap_or_else(|| event.into())
            }
            Format::Json(Some(template)) => {
                let filled = template.render(&Filling { decision, link: &page(), delivery: delivery.id() });
                self.wrapped(delivery, Payload::Json(&filled), occasion).unwrap_or_else(|| filled.into())
            }
            Format::Json(None) => {
                let compact = Compact::of(decision);
                match self.plan.envelope {
                    // The hot path: the bytes that came are the bytes that go.
                    Envelope::None | Envelope::Sumo => compact.into_bytes(),
                    Envelope::Splunk | Envelope::Datadog => {
                        let wrapped = self.wrapped(delivery, Payload::Json(compact.as_str()), occasion);
                        wrapped.unwrap_or_else(|| compact.into_bytes())
                    }
                }
            }
        }
    }

    /// `payload` in its envelope, where there is one around each decision.
    fn wrapped(&self, delivery: &Delivery, payload: Payload<'_>, occasion: &Occasion<'_>) -> Option<Bytes> {
        match self.plan.envelope {
            Envelope::None | Envelope::Sumo => None,
            Envelope::Splunk => Some(splunk::event(&delivery.decision, payload).into()),
            Envelope::Datadog => Some(datadog::log(&delivery.decision, payload, Some(occasion.now)).into()),
        }
    }

    /// The request that carries `records`, signed as `id`, which is asked for only where there is something to sign.
    fn parcel(&self, records: &[Bytes], id: impl FnOnce() -> Uuid, occasion: &Occasion<'_>) -> Parcel {
        let mut body = self.joint.join(records);
        if self.plan.gzip {
            body = gzip(&body);
        }
        let mut headers = self.headers.clone();
        if !self.plan.keys.is_empty() {
            let id = id().to_string();
            let signatures = standard_webhooks::signatures(&self.plan.keys, &id, occasion.now, &body);
            let texts = [
                (WEBHOOK_ID, id),
                (WEBHOOK_TIMESTAMP, occasion.now.unix_seconds().to_string()),
                (WEBHOOK_SIGNATURE, signatures),
            ];
            for (name, text) in texts {
                headers.insert(name, HeaderValue::try_from(text).expect("hex, digits and base64 fit into a header"));
            }
        }
        Parcel { endpoint: self.plan.endpoint.clone(), headers, body }
    }

    /// Whether a batch record begins with its delivery's id. Only a signature needs it.
    fn marks(&self) -> bool {
        !self.plan.keys.is_empty()
    }

    /// A record without its mark, and the id in it.
    fn unmarked(&self, record: &Bytes) -> (Bytes, Uuid) {
        match record.first_chunk::<ID_BYTES>() {
            Some(id) if self.marks() => (record.slice(ID_BYTES..), Uuid::from_bytes(*id)),
            Some(_) | None => (record.clone(), Uuid::nil()),
        }
    }
}

impl Channel for Siem {
    fn render(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Parcel {
        self.parcel(&[self.written(delivery, occasion)], || delivery.id().uuid(), occasion)
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        judge::judge(self.plan.envelope, self.plan.batch.events > 1, reply)
    }

    fn secrets(&self) -> Vec<Secret> {
        self.plan.secrets.clone()
    }

    fn batcher(&self) -> Option<&dyn Batcher> {
        (self.plan.batch.events > 1).then_some(self as &dyn Batcher)
    }
}

impl Batcher for Siem {
    fn limits(&self) -> BatchLimits {
        // What joins the records counts too, so that the whole body stays within the configured size.
        let bytes = self.plan.batch.bytes.saturating_sub(self.plan.batch.events + 1);
        BatchLimits { bytes, ..self.plan.batch }
    }

    fn record(&self, delivery: &Delivery, occasion: &Occasion<'_>) -> Bytes {
        let written = self.written(delivery, occasion);
        if !self.marks() {
            return written;
        }
        let mut marked = BytesMut::with_capacity(ID_BYTES + written.len());
        marked.put_slice(delivery.id().uuid().as_bytes());
        marked.put_slice(&written);
        marked.freeze()
    }

    fn pack(&self, records: &[Bytes], occasion: &Occasion<'_>) -> Parcel {
        let (records, ids): (Vec<Bytes>, Vec<Uuid>) = records.iter().map(|record| self.unmarked(record)).unzip();
        self.parcel(&records, || batch_id(&ids), occasion)
    }
}

/// The id of a request that carries these deliveries: of one its own, of several the UUIDv5 of all their ids.
fn batch_id(ids: &[Uuid]) -> Uuid {
    if let [id] = ids {
        return *id;
    }
    let all: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
    Uuid::new_v5(&DeliveryId::NAMESPACE, &all)
}

impl Joint {
    /// The body that holds `records`. A single one that nothing is put around is passed on without a copy.
    fn join(self, records: &[Bytes]) -> Bytes {
        let (before, between, after) = match self {
            Self::Lines => (&b""[..], b'\n', &b""[..]),
            Self::Array => (&b"["[..], b',', &b"]"[..]),
        };
        if let (Self::Lines, [only]) = (self, records) {
            return only.clone();
        }
        let size = records.iter().map(|record| record.len() + 1).sum::<usize>() + 2;
        let mut body = BytesMut::with_capacity(size);
        body.put_slice(before);
        for (index, record) in records.iter().enumerate() {
            if index > 0 {
                body.put_u8(between);
            }
            body.put_slice(record);
        }
        body.put_slice(after);
        body.freeze()
    }
}

fn gzip(body: &[u8]) -> Bytes {
    // The fastest level: JSON and CEF shrink to a tenth either way, and this is the hot path.
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4 + 64), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing to a Vec never fails").into()
}

#[cfg(test)]
mod tests;
