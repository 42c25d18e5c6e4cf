//! Whole requests: bodies by format and envelope, batches, signatures, compression.

use std::{io::Read as _, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    channels::Links,
    formats::hostile,
    model::{Decision, Timestamp},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn links() -> Links {
    Links { public: "https://alerts.example.com".into(), console: "https://app.example.com".into() }
}

fn occasion(links: &Links) -> Occasion<'_> {
    Occasion { now: Timestamp::from_unix_millis(1_780_315_201_000), links, detour: None }
}

fn plan(format: Format, envelope: Envelope) -> Plan {
    Plan::new(Endpoint::new("https://siem.example/in".parse().unwrap()), format, envelope)
}

fn batched(format: Format, envelope: Envelope) -> Plan {
    let mut plan = plan(format, envelope);
    plan.batch.events = 10;
    plan
}

fn delivery(decision: Decision) -> Delivery {
    Delivery::new(Arc::new(decision), "soc-siem".parse().unwrap(), Timestamp::UNIX_EPOCH)
}

fn example() -> Delivery {
    delivery(hostile::decode(hostile::EXAMPLE))
}

fn other() -> Delivery {
    delivery(hostile::example(&json!({"id": "other"})))
}

fn text(parcel: &Parcel) -> &str {
    std::str::from_utf8(&parcel.body).unwrap()
}

fn packed(siem: &Siem, deliveries: &[Delivery]) -> Parcel {
    let links = links();
    let occasion = occasion(&links);
    let batcher = siem.batcher().expect("a batch is configured");
    let records: Vec<Bytes> = deliveries.iter().map(|delivery| batcher.record(delivery, &occasion)).collect();
    batcher.pack(&records, &occasion)
}

fn every_plan(build: fn(Format, Envelope) -> Plan) -> impl Iterator<Item = Plan> {
    let template = Template::parse(&json!({"id": "{{id}}", "all": "{{event}}"})).unwrap();
    let formats = [Format::Cef, Format::Ocsf(ocsf::Shape::default()), Format::Json(None), Format::Json(Some(template))];
    let envelopes = [Envelope::None, Envelope::Splunk, Envelope::Datadog, Envelope::Sumo];
    formats.into_iter().flat_map(move |format| envelopes.map(|envelope| build(format.clone(), envelope)))
}

#[test]
fn a_plain_json_decision_goes_out_without_a_copy() {
    let (links, delivery) = (links(), example());
    let parcel = Siem::new(plan(Format::Json(None), Envelope::None)).render(&delivery, &occasion(&links));
    assert_eq!(parcel.body.as_ptr(), delivery.decision.raw().as_ptr());
    assert_eq!(parcel.body, hostile::EXAMPLE);
    assert_eq!(parcel.headers[CONTENT_TYPE], "application/json");
    assert_eq!(parcel.headers.len(), 1);
}

#[test]
fn cef_goes_out_as_text_and_a_batch_of_it_as_lines() {
    let links = links();
    let single = Siem::new(plan(Format::Cef, Envelope::None)).render(&example(), &occasion(&links));
    assert_eq!(single.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    assert!(text(&single).starts_with("CEF:0|Interven|AIF|0.6|DENY|") && !text(&single).contains('\n'));
    let batch = packed(&Siem::new(batched(Format::Cef, Envelope::None)), &[example(), other()]);
    let events: Vec<&str> = text(&batch).split('\n').collect();
    assert_eq!((events.len(), events[0]), (2, text(&single)));
}

#[test]
fn a_batch_of_json_is_an_array_even_of_one() {
    let siem = Siem::new(batched(Format::Json(None), Envelope::None));
    assert_eq!(text(&packed(&siem, &[example()])), format!("[{}]", hostile::EXAMPLE));
    let both: Vec<Value> = serde_json::from_slice(&packed(&siem, &[example(), other()]).body).unwrap();
    assert_eq!((both.len(), &both[1]["id"]), (2, &json!("other")));
}

#[test]
fn rendering_one_is_packing_one() {
    let links = links();
    for mut plan in every_plan(batched) {
        plan.keys = vec![SigningKey::parse(&Secret::new(SECRET)).unwrap()];
        let siem = Siem::new(plan);
        let (rendered, packed) = (siem.render(&example(), &occasion(&links)), packed(&siem, &[example()]));
        assert_eq!((rendered.body, rendered.headers), (packed.body, packed.headers), "{siem:?}");
    }
}

#[test]
fn splunk_gets_event_objects_one_after_the_other() {
    let batch = packed(&Siem::new(batched(Format::Cef, Envelope::Splunk)), &[example(), other()]);
    let events: Vec<Value> =
        serde_json::Deserializer::from_slice(&batch.body).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["time"], json!(1_780_315_200.123));
    assert!(events[1]["event"].as_str().unwrap().starts_with("CEF:0|"));
    assert_eq!(batch.headers[CONTENT_TYPE], "application/json");
}

#[test]
fn datadog_gets_an_array_even_without_batches() {
    let links = links();
    let parcel = Siem::new(plan(Format::Ocsf(ocsf::Shape::default()), Envelope::Datadog));
    let logs: Vec<Value> = serde_json::from_slice(&parcel.render(&example(), &occasion(&links)).body).unwrap();
    assert_eq!((logs.len(), &logs[0]["status"], &logs[0]["ocsf"]["class_uid"]), (1, &json!("error"), &json!(2004)));
}

#[test]
fn a_signature_covers_the_body_and_the_id_stays_the_same_on_every_try() {
    let links = links();
    let key = SigningKey::parse(&Secret::new(SECRET)).unwrap();
    let mut plan = plan(Format::Json(None), Envelope::None);
    plan.keys = vec![key.clone(), key.clone()];
    plan.gzip = true;
    let siem = Siem::new(plan);
    let first = siem.render(&example(), &occasion(&links));
    let later = Occasion { now: Timestamp::from_unix_millis(1_780_399_999_999), ..occasion(&links) };
    let second = siem.render(&example(), &later);
    let id = example().id().to_string();
    assert_eq!(first.headers["webhook-id"], *id);
    assert_eq!(second.headers["webhook-id"], *id);
    assert_eq!(second.headers["webhook-timestamp"], "1780399999");
    let signature = key.sign(&id, later.now, &second.body);
    assert_eq!(second.headers["webhook-signature"], format!("{signature} {signature}"));
    assert_ne!(first.headers["webhook-signature"], second.headers["webhook-signature"]);
}

#[test]
fn the_id_of_a_batch_depends_on_its_deliveries_and_their_order_alone() {
    let mut plan = batched(Format::Cef, Envelope::None);
    plan.keys = vec![SigningKey::parse(&Secret::new(SECRET)).unwrap()];
    let siem = Siem::new(plan);
    let id = |deliveries: &[Delivery]| packed(&siem, deliveries).headers["webhook-id"].clone();
    assert_eq!(id(&[example(), other()]), id(&[example(), other()]));
    assert_ne!(id(&[example(), other()]), id(&[other(), example()]));
    assert_eq!(id(&[example()]), *example().id().to_string());
    assert!(!text(&packed(&siem, &[example(), other()])).contains(|c: char| c != '\n' && c.is_control()));
}

#[test]
fn the_operators_headers_are_sent_and_may_name_the_content_type() {
    let links = links();
    let mut plan = plan(Format::Cef, Envelope::Splunk);
    plan.headers.insert(http::header::AUTHORIZATION, HeaderValue::from_static("Splunk abc"));
    plan.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-own"));
    plan.gzip = true;
    let parcel = Siem::new(plan).render(&example(), &occasion(&links));
    assert_eq!(parcel.headers["authorization"], "Splunk abc");
    assert_eq!(parcel.headers[CONTENT_TYPE], "application/x-own");
    assert_eq!(parcel.headers[CONTENT_ENCODING], "gzip");
}

#[test]
fn a_channel_that_is_printed_shows_no_secret() {
    let mut plan = plan(Format::Cef, Envelope::None);
    plan.endpoint = Endpoint::new("https://siem.example/very-secret-path?token=very-secret".parse().unwrap());
    plan.keys = vec![SigningKey::parse(&Secret::new(SECRET)).unwrap()];
    let siem = Siem::new(plan);
    let printed = format!("{siem:?} {:?}", siem.render(&example(), &occasion(&links())));
    assert!(!printed.contains("very-secret") && !printed.contains("MfKQ9r8G"), "{printed}");
}

/// How many decisions a body holds, read as its endpoint would.
fn count(plan_format: &Format, envelope: Envelope, body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).unwrap();
    match (envelope, plan_format) {
        (Envelope::Splunk, _) => {
            let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            values.map(|value| assert!(value.unwrap().is_object())).count()
        }
        (Envelope::Sumo, Format::Ocsf(_) | Format::Json(_)) => {
            text.lines().map(|line| assert!(serde_json::from_str::<Value>(line).unwrap().is_object())).count()
        }
        (Envelope::None | Envelope::Sumo, Format::Cef) => {
            text.split('\n').map(|line| assert!(line.starts_with("CEF:0|Interven|AIF|0.6|"))).count()
        }
        (Envelope::Datadog, _) | (Envelope::None, Format::Ocsf(_) | Format::Json(_)) => {
            serde_json::from_str::<Vec<Value>>(text).unwrap().len()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_batch_reads_back_whole_within_its_size_also_compressed(
        decisions in prop::collection::vec(hostile::decision(), 1..6),
        gzip in any::<bool>(),
        signed in any::<bool>(),
    ) {
        let deliveries: Vec<Delivery> = decisions.into_iter().map(delivery).collect();
        let links = links();
        let occasion = occasion(&links);
        for mut plan in every_plan(batched) {
            plan.gzip = gzip;
            plan.keys = signed.then(|| SigningKey::parse(&Secret::new(SECRET)).unwrap()).into_iter().collect();
            let (format, envelope, bytes_max) = (plan.format.clone(), plan.envelope, plan.batch.bytes);
            let siem = Siem::new(plan);
            let records: Vec<Bytes> = deliveries.iter().map(|delivery| siem.record(delivery, &occasion)).collect();
            let total: usize = records.iter().map(Bytes::len).sum();
            let parcel = siem.pack(&records, &occasion);
            let mut body = Vec::new();
            if gzip {
                flate2::read::GzDecoder::new(&parcel.body[..]).read_to_end(&mut body).unwrap();
            } else {
                body.extend_from_slice(&parcel.body);
            }
            prop_assert_eq!(count(&format, envelope, &body), deliveries.len());
            prop_assert!(total > siem.limits().bytes || body.len() <= bytes_max);
            prop_assert!(body.len() <= total + siem.limits().events + 1);
        }
    }
}
