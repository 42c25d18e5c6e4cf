//! What one decision costs on its way: reading it, finding its channels, saying it. No sockets, no broker.
//!
//! Run with `cargo bench --bench micro`. Numbers of a shared machine are orders of magnitude; compare within one run.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use interven_alerts::{
    channels::{KINDS, Links, Occasion},
    config,
    model::{Decision, DecisionKind, Delivery, Filter, Severity, Timestamp, filter::Pattern},
    route::{Matches, Routes},
    settings::Outside,
};

const EVENT: &[u8] = br#"{"id":"f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","time":"2026-06-01T12:00:00.123Z","decision":"REQUIRE_APPROVAL","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{"id":"agt_42","name":"production-langgraph"},"tool":"slack","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42","approval":{"id":"apr_7","expires_at":"2036-06-01T12:10:00Z"}}"#;

fn decision() -> Decision {
    Decision::decode(Bytes::from_static(EVENT)).expect("the example of the contract is a decision")
}

/// Filters as a large tenant would have them: most channels for one agent or one tool, some with wildcards, one that matches.
fn filters(count: u32) -> Vec<Filter> {
    let only = |tools: Option<String>, agents: Option<String>| Filter {
        events: DecisionKind::ALL.into_iter().collect(),
        min_severity: Severity::Low,
        tools: tools.map(|tool| vec![Pattern::new(&tool)]),
        agents: agents.map(|agent| vec![Pattern::new(&agent)]),
    };
    (0..count)
        .map(|at| match at {
            0 => only(None, Some(String::from("agt_42"))),
            at if at % 3 == 0 => only(Some(format!("tool{at}.create_*")), None),
            at if at % 3 == 1 => only(None, Some(format!("agt_9{at}"))),
            at => only(None, Some(format!("staging-{at}-*"))),
        })
        .collect()
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(EVENT.len() as u64));
    group.bench_function("decision", |b| b.iter(|| Decision::decode(black_box(Bytes::from_static(EVENT)))));
    let delivery = Delivery::new(Arc::new(decision()), "soc".parse().expect("an id"), Timestamp::UNIX_EPOCH);
    let waiting = delivery.to_bytes();
    group.bench_function("delivery to its lane queue", |b| b.iter(|| black_box(&delivery).to_bytes()));
    group.bench_function("delivery from its lane queue", |b| b.iter(|| Delivery::from_bytes(black_box(&waiting))));
    group.finish();
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("route one decision, one match");
    let decision = decision();
    for count in [10, 100, 1_000, 10_000] {
        let routes = Routes::new(filters(count));
        let mut matches = Matches::new();
        routes.matches(&decision, &mut matches);
        assert_eq!(matches, [0]);
        group.bench_function(format!("{count} channels"), |b| {
            b.iter(|| {
                routes.matches(black_box(&decision), &mut matches);
                black_box(matches.len())
            });
        });
    }
    group.finish();
}

fn rendering(c: &mut Criterion) {
    let mut group = c.benchmark_group("render");
    let links = Links { public: String::from("https://a.example"), console: String::from("https://c.example") };
    let occasion = Occasion { now: Timestamp::from_unix_millis(1_780_315_200_500), links: &links, detour: None };
    let delivery = Delivery::new(Arc::new(decision()), "soc".parse().expect("an id"), Timestamp::UNIX_EPOCH);
    for kind in KINDS {
        let sample = kind.sample.replace("{base}", "http://127.0.0.1:9");
        let text = format!("[[channel]]\nid = \"bench\"\nkind = \"{}\"\n{sample}", kind.name);
        let sound = config::parse(&text, &Outside::nothing(), KINDS).expect("every kind's sample is sound");
        let channel = Arc::clone(&sound.plan.channels[0].channel);
        group.bench_function(kind.name, |b| b.iter(|| channel.render(black_box(&delivery), &occasion)));
    }
    group.finish();
}

criterion_group!(benches, decoding, routing, rendering);
criterion_main!(benches);
