//! What the connector makes of spans, decoded by others, and beside a slow and obvious one over random streams and crashes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::connectors::testing::{
    Point, Runner, SECOND, Spanned, T0, arrived, points, spanned, stage, survives_damage, try_stage,
};

const TOTAL: &str = "traces_service_graph_request_total";
const FAILED: &str = "traces_service_graph_request_failed_total";
const SERVER: &str = "traces_service_graph_request_server";
const CLIENT: &str = "traces_service_graph_request_client";
const UNPAIRED: &str = "traces_service_graph_unpaired_spans_total";
const DROPPED: &str = "traces_service_graph_dropped_spans_total";

/// A call of `web`, as its span tells it.
fn client() -> Spanned {
    Spanned {
        service: "web",
        id: 7,
        kind: 3,
        took_ns: 30_000_000,
        ..spanned()
    }
}

/// The same call, as the called one tells it.
fn server() -> Spanned {
    Spanned {
        parent: 7,
        id: 8,
        took_ns: 20_000_000,
        ..spanned()
    }
}

/// The points that come of batches, each a second after the one before, when the process stops in order long after.
fn told(settings: &str, batches: &[&[Spanned]]) -> BTreeMap<String, Point> {
    let make = || stage(parse, settings);
    let mut runner = Runner::new(&make);
    let stream: Vec<Batch> = (0..)
        .zip(batches)
        .map(|(at, spans)| arrived(spans, at * SECOND))
        .collect();
    runner.take(&stream);
    runner.finish(50 * SECOND);
    points(&runner.out)
}

/// The counts of the points, without those of histograms.
fn counts(settings: &str, batches: &[&[Spanned]]) -> Vec<(String, u64)> {
    let told = told(settings, batches);
    let is_count = |name: &str| !name.starts_with(SERVER) && !name.starts_with(CLIENT);
    told.into_iter()
        .filter(|(name, _)| is_count(name))
        .map(|(name, point)| (name, point.count))
        .collect()
}

fn labels(client: &str, server: &str, connection: &str, failed: bool) -> String {
    format!("{{}}{{client={client},connection_type={connection},failed=BoolValue({failed}),server={server}}}")
}

#[test]
fn a_call_is_an_edge_whichever_half_comes_first() {
    let edge = labels("web", "shop", "", false);
    for batches in [
        &[&[client()][..], &[server()]][..],
        &[&[server()], &[client()]],
        &[&[client(), server()]],
    ] {
        let told = told("{}", batches);
        assert_eq!(
            told.keys().collect::<Vec<_>>(),
            [
                &format!("{CLIENT}{edge}"),
                &format!("{SERVER}{edge}"),
                &format!("{TOTAL}{edge}")
            ]
        );
        assert_eq!(told[&format!("{TOTAL}{edge}")].count, 1);
        let (client, server) = (&told[&format!("{CLIENT}{edge}")], &told[&format!("{SERVER}{edge}")]);
        assert_eq!(
            (client.sum, client.count, client.bounds[0], client.buckets[5]),
            (0.03, 1, 0.002, 1)
        );
        assert_eq!((server.sum, server.count, server.temporality), (0.02, 1, 2));
    }
}

#[test]
fn a_failure_of_either_side_is_one() {
    for (of_client, of_server) in [(2, 0), (0, 2), (2, 2)] {
        let (mut client, mut server) = (client(), server());
        (client.status, server.status) = (of_client, of_server);
        let edge = labels("web", "shop", "", true);
        assert_eq!(
            counts("{}", &[&[client], &[server]]),
            [(format!("{FAILED}{edge}"), 1), (format!("{TOTAL}{edge}"), 1)]
        );
    }
}

#[test]
fn databases_and_peers_are_nodes() {
    let calls = |key, value: &str| Spanned {
        attributes: vec![(key, value.to_owned())],
        ..client()
    };
    let check = |span: Spanned, server: &str, connection: &str| {
        let edge = labels("web", server, connection, false);
        assert_eq!(counts("{}", &[&[span]]), [(format!("{TOTAL}{edge}"), 1)]);
    };
    check(calls("db.name", "orders"), "orders", "database");
    check(calls("db.namespace", "orders"), "orders", "database");
    check(calls("peer.service", "bank"), "bank", "virtual_node");
    check(calls("db.system", "mysql"), "mysql", "virtual_node");
    check(calls("other", "x"), "unknown", "virtual_node");
    let root = Spanned { parent: 0, ..server() };
    let edge = labels("user", "shop", "virtual_node", false);
    let told = told("{}", &[&[root]]);
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        [&format!("{SERVER}{edge}"), &format!("{TOTAL}{edge}")],
        "nothing is said of how long it took for the client"
    );
    let edge = labels("web", "table", "database", false);
    let settings = "{ database_name_attribute: db.table }";
    assert_eq!(
        counts(settings, &[&[calls("db.table", "table")]]),
        [(format!("{TOTAL}{edge}"), 1)]
    );
    let label = "{}{client=web,connection_type=virtual_node,failed=BoolValue(false),server=bank,virtual_node=server}";
    let settings = "{ virtual_node_extra_label: true, virtual_node_peer_attributes: [whom] }";
    assert_eq!(
        counts(settings, &[&[calls("whom", "bank")]]),
        [(format!("{TOTAL}{label}"), 1)]
    );
}

#[test]
fn without_such_nodes_a_lonely_span_is_unpaired() {
    let root = Spanned {
        parent: 0,
        service: "root",
        ..server()
    };
    let alone =
        |client: &str, server: &str| format!("{UNPAIRED}{{}}{{client={client},connection_type=,server={server}}}");
    assert_eq!(
        counts(
            "{ virtual_node_peer_attributes: [] }",
            &[&[client(), root], &[], &[], &[server()]]
        ),
        [(alone("", "root"), 1), (alone("", "shop"), 1), (alone("web", ""), 1)]
    );
}

#[test]
fn a_message_may_have_many_consumers_and_a_consumer_many_messages() {
    let producer = |id| Spanned {
        kind: 4,
        id,
        ..client()
    };
    let consumer = |service, links: &[(u8, u8)]| Spanned {
        service,
        kind: 5,
        trace: 9,
        links: links.to_vec(),
        ..server()
    };
    let edge = |server| format!("{TOTAL}{}", labels("web", server, "messaging_system", false));
    let (mail, bill) = (consumer("mail", &[(1, 7)]), consumer("bill", &[(1, 7)]));
    for batches in [
        &[
            &[producer(7)][..],
            std::slice::from_ref(&mail),
            std::slice::from_ref(&bill),
        ][..],
        &[std::slice::from_ref(&mail), &[producer(7)], std::slice::from_ref(&bill)],
    ] {
        assert_eq!(
            counts("{ store: { ttl: 5s } }", batches),
            [(edge("bill"), 1), (edge("mail"), 1)]
        );
    }
    let both = consumer("mail", &[(1, 7), (1, 6)]);
    assert_eq!(
        counts("{}", &[&[producer(7), producer(6)], &[both]]),
        [(edge("mail"), 2)]
    );
    let child = Spanned { kind: 5, ..server() };
    assert_eq!(
        counts("{}", &[&[producer(7)], &[child]]),
        [(edge("shop"), 1)],
        "without links, by its parent"
    );
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let calls: Vec<Spanned> = (1..=5).map(|id| Spanned { id, ..client() }).collect();
    let dropped = format!("{DROPPED}{{}}{{client=web,connection_type=,server=}}");
    let virtual_edge = labels("web", "unknown", "virtual_node", false);
    assert_eq!(
        counts("{ store: { max_items: 2 } }", &[&calls]),
        [(dropped, 3), (format!("{TOTAL}{virtual_edge}"), 2)]
    );
}

#[test]
fn dimensions_of_both_sides_and_the_bound_of_series() {
    let (mut client, mut server) = (client(), server());
    client.resource = vec![("env", "dev".into())];
    client.attributes = vec![("env", "not this".into())];
    server.attributes = vec![("env", "prod".into())];
    let expect = format!(
        "{TOTAL}{{}}{{client=web,client_env=dev,connection_type=,failed=BoolValue(false),server=shop,server_env=prod}}"
    );
    assert_eq!(
        counts("{ dimensions: [env, none] }", &[&[client.clone()], &[server]]),
        [(expect, 1)]
    );
    let calls: Vec<Spanned> = (1..=5)
        .map(|id| Spanned {
            id,
            attributes: vec![("peer.service", format!("{id}"))],
            ..client.clone()
        })
        .collect();
    let told = counts("{ aggregation_cardinality_limit: 2 }", &[&calls]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.contains(&(format!("{TOTAL}{{}}{{otel.metric.overflow=BoolValue(true)}}"), 3)),
        "{told:?}"
    );
}

#[test]
fn series_without_requests_are_forgotten() {
    let make = || stage(parse, "{}");
    let mut runner = Runner::new(&make);
    runner.take(&[arrived(&[client(), server()], 0)]);
    runner.commit();
    runner.tick(14 * 60 * SECOND);
    runner.commit();
    assert_eq!(runner.out.len(), 1);
    runner.crash();
    runner.tick(17 * 60 * SECOND);
    runner.commit();
    assert_eq!(runner.out.len(), 1, "nothing is told any more");
}

#[test]
fn an_interval_of_nothing_tells_with_every_batch_and_an_offset_tells_earlier() {
    let mut stage = stage(parse, "{ metrics_flush_interval: 0s, metrics_timestamp_offset: 5s }");
    let mut out = Vec::new();
    stage.take(arrived(&[client(), server()], 60 * SECOND), &mut out);
    let point = points(&out)[&format!("{TOTAL}{}", labels("web", "shop", "", false))].clone();
    assert_eq!((out.len(), point.start, point.time), (1, 55 * SECOND, 55 * SECOND));
    stage.finish(T0 + 61 * SECOND, &mut out);
    assert_eq!(out.len(), 1, "there is nothing new");
}

#[test]
fn an_exponential_histogram() {
    let told = told("{ exponential_histogram_max_size: 10 }", &[&[client()], &[server()]]);
    let point = &told[&format!("{SERVER}{}", labels("web", "shop", "", false))];
    assert_eq!((point.count, point.sum, &point.buckets[..]), (1, 0.02, &[1][..]));
}

#[test]
fn memory_is_given_back_when_a_half_is_gone() {
    let budget = Budget::root("process", 1 << 20);
    let mut stage = stage(parse, "{}");
    stage.start(&budget);
    let mut out = Vec::new();
    stage.take(arrived(&[client()], 0), &mut out);
    let waiting = budget.used_bytes();
    stage.take(arrived(&[server()], SECOND), &mut out);
    let paired = budget.used_bytes();
    for second in 2..100 {
        stage.take(arrived(&[client(), server()], second * SECOND), &mut out);
    }
    assert!(
        waiting > 0 && budget.used_bytes() == paired,
        "{waiting} {paired} {}",
        budget.used_bytes()
    );
    drop(stage);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn a_state_of_other_settings_or_of_nothing_is_refused() {
    let mut before = stage(parse, "{}");
    before.take(arrived(&[client()], 0), &mut Vec::new());
    let state = before.state(false);
    for other in ["{ dimensions: [a] }", "{ exponential_histogram_max_size: 10 }"] {
        let error = stage(parse, other).restore(&state).expect_err(other);
        assert!(error.to_string().contains("not those of before"), "{error}");
    }
    stage(parse, "{ store: { ttl: 9s } }")
        .restore(&state)
        .expect("the same series");
    for bad in [&[][..], &[9], &[1, 0x32, 2, 0x08, 7], &[1, 0x2a, 3, 0x0a, 1, 0]] {
        let bad = State::Whole(Bytes::copy_from_slice(bad));
        assert!(stage(parse, "{}").restore(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn mistakes_are_explained() {
    let check = |settings: &str, expect: &str| {
        let problems = match try_stage(parse, settings) {
            Ok(_) => panic!("{settings} is taken"),
            Err(problems) => problems.to_string(),
        };
        assert!(problems.contains(expect), "{settings}: {problems}");
    };
    check("{ stor: {} }", "store");
    check("{ store: { ttl: 0s } }", "above 0");
    check("{ dimensions: [a, a] }", "`a` is there already");
    check("{ latency_histogram_buckets: [2s, 1s] }", "ascend");
    check(
        "{ latency_histogram_buckets: [1s], exponential_histogram_max_size: 5 }",
        "use either",
    );
    check("{ exponential_histogram_max_size: 1 }", "from 2 to 16384");
    let settings = "{ metrics_exporter: x, latency_histogram_buckets: [100us, 1ms], dimensions: [dimension-1], store: { ttl: 1s, max_items: 10 },
        cache_loop: 1m, store_expiration_loop: 2s, virtual_node_peer_attributes: [db.name, rpc.service], database_name_attribute: db.name }";
    assert!(try_stage(parse, settings).is_ok());
}

#[derive(Debug, Clone)]
struct Call {
    /// Seconds, where the span comes at all.
    client: Option<u64>,
    server: Option<u64>,
    failed: bool,
}

proptest! {
    /// Against a slow and obvious model: halves that come within the time of each other are an edge, others are not; wherever the process is killed.
    #[test]
    fn edges_are_the_halves_that_met_in_time(
        calls in proptest::collection::vec((proptest::option::of(0u64..30), proptest::option::of(0u64..30), any::<bool>()), 1..40),
        commits in proptest::collection::vec(0u64..30, 0..10),
        crashes in proptest::collection::vec(0u64..30, 0..5),
    ) {
        let calls: Vec<Call> = calls.into_iter().map(|(client, server, failed)| Call { client, server, failed }).collect();
        let mut expect: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = |name: String| *expect.entry(name).or_default() += 1;
        for call in &calls {
            let (is_client, is_server) = (call.client.is_some(), call.server.is_some());
            let met = call.client.zip(call.server).is_some_and(|(client, server)| client.abs_diff(server) < 5);
            if met {
                count(format!("{TOTAL}{}", labels("web", "shop", "", call.failed)));
            }
            if is_client && !met {
                count(format!("{TOTAL}{}", labels("web", "unknown", "virtual_node", call.failed)));
            }
            if is_server && !met {
                count(format!("{UNPAIRED}{{}}{{client=,connection_type=,server=shop}}"));
            }
            if call.failed && (met || is_client) {
                let name = if met { labels("web", "shop", "", true) } else { labels("web", "unknown", "virtual_node", true) };
                count(format!("{FAILED}{name}"));
            }
        }
        let make = || stage(parse, "{ store: { ttl: 5s }, metrics_flush_interval: 7s }");
        let mut runner = Runner::new(&make);
        let mut stream = Vec::new();
        for second in 0..30 {
            let at = |when: Option<u64>| when == Some(second);
            let mut spans = Vec::new();
            for (index, call) in calls.iter().enumerate() {
                let trace = index as u8 + 1;
                let status = if call.failed { 2 } else { 0 };
                if at(call.client) {
                    spans.push(Spanned { trace, status, ..client() });
                }
                if at(call.server) {
                    spans.push(Spanned { trace, ..server() });
                }
            }
            stream.push(arrived(&spans, second * SECOND));
            runner.take(&stream);
            if commits.contains(&second) {
                runner.commit();
            }
            if crashes.contains(&second) {
                runner.crash();
                runner.take(&stream);
            }
        }
        runner.tick(40 * SECOND);
        runner.finish(41 * SECOND);
        let told: BTreeMap<String, u64> = points(&runner.out)
            .into_iter()
            .filter(|(name, _)| !name.starts_with(SERVER) && !name.starts_with(CLIENT))
            .map(|(name, point)| (name, point.count))
            .collect();
        prop_assert_eq!(told, expect);
    }

    #[test]
    fn no_damaged_state_is_a_panic(damage in proptest::collection::vec((0usize..10_000, 1u8..), 0..4), exponential: bool) {
        let settings = if exponential { "{ exponential_histogram_max_size: 4 }" } else { "{}" };
        let spans = [client(), server(), Spanned { id: 9, ..client() }, Spanned { parent: 3, ..server() }];
        let mut before = stage(parse, settings);
        before.take(arrived(&spans, 0), &mut Vec::new());
        survives_damage(stage(parse, settings), &before.state(true), &damage, &spans);
    }
}
