//! Nodes, notices, timelines and safety; filters, pages and what is refused.

use super::*;
use crate::crd::InterruptionNoticeSpec;
use spot_guard_core::cluster::Node;
use spot_guard_core::record::{CapacityState, FallbackState, OldNodeState, OpenFallback, Outcome};
use spot_guard_core::testing::{node, pod};
use std::collections::BTreeSet;
use std::time::Instant;

fn ec2(name: &str, instance: &str) -> Arc<Node> {
    let made = node(name);
    Arc::new(Node { provider_id: format!("aws:///eu-west-1a/{instance}").as_str().into(), ..made })
}

fn instances(ids: &[&str]) -> GroupStatus {
    GroupStatus { instances: ids.iter().map(|id| (*id).into()).collect(), ..group(1, 1) }
}

/// A pool of three nodes in the middle of a return, a node of no pool, and a notice.
fn cluster() -> Fixture {
    let mut web = pool("web");
    web.status = Some(SpotPoolStatus {
        spot: Some(instances(&["i-1", "i-2"])),
        on_demand: Some(instances(&["i-d"])),
        ..empty()
    });
    let capacity = |group, instance: &str, node: &str| Capacity {
        group,
        instance_id: instance.into(),
        node_name: node.into(),
        ready_at: noon(-600),
    };
    let mut status = ReplacementStatus {
        phase: Phase::OnFallback,
        started_at: Some(noon(-900)),
        old_node: OldNodeState::Gone {}.into(),
        capacity: CapacityState::Taken {
            instance: capacity(GroupKind::OnDemand, "i-d", "node-d"),
            on_demand_requested: true,
        }
        .into(),
        fallback: FallbackState::OnFallback(OpenFallback {
            successor: Some(capacity(GroupKind::Spot, "i-2", "node-2")),
            ..OpenFallback::default()
        })
        .into(),
        ..ReplacementStatus::default()
    };
    for (outcome, at) in
        [(Outcome::NoticeReceived, -900), (Outcome::Requested, -890), (Outcome::InService, -600)]
    {
        status.step(FlowBox::Wait, outcome, &"node-0".into(), "a step".to_owned(), noon(at));
    }
    let notice = InterruptionNoticeSpec {
        node_name: "node-0".into(),
        instance_id: "i-0".into(),
        kind: NoticeKind::RebalanceRecommendation,
        notice_time: None,
        deadline: None,
        detected_at: noon(-901),
        traceparent: Some(TRACEPARENT.to_owned()),
    };
    let nodes = vec![ec2("node-1", "i-1"), ec2("node-2", "i-2"), ec2("node-d", "i-d"), ec2("node-x", "i-x")];
    Fixture {
        pools: vec![web],
        replacements: vec![NodeReplacement {
            spec: NodeReplacementSpec {
                pool: Some("web".into()),
                node_name: "node-0".into(),
                instance_id: "i-0".into(),
                place: None,
                adopted: None,
            },
            ..replacement("i-0", status)
        }],
        notices: vec![InterruptionNotice::new("i-0-rebalance-recommendation", notice)],
        cluster: Parts { nodes, pods: vec![Arc::new(pod("web-1", "node-d", 9_000))], ..Parts::default() },
        ..Fixture::empty()
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.get("name").or(item.get("replacement")).unwrap().as_str().unwrap())
        .collect()
}

#[actix_web::test]
async fn nodes_are_those_of_pools_and_stories_with_the_part_they_play() {
    let nodes = cluster().get("/api/v1/nodes").await;
    assert_eq!(names(&nodes), ["node-1", "node-2", "node-d"]);
    let expected = json!({
        "name": "node-d", "instanceId": "i-d", "pool": "web", "group": "OnDemand", "ready": true,
        "unschedulable": false, "replacement": "i-0", "role": "Fallback", "phase": "OnFallback", "box": "6",
    });
    let mut found = nodes["items"][2].clone();
    found.as_object_mut().unwrap().retain(|key, _| !["zone", "created"].contains(&key.as_str()));
    assert_eq!(found, expected);
    assert_eq!(nodes["items"][1]["role"], "Successor");
    assert_eq!(nodes["items"][0]["role"], Value::Null);
    assert_eq!(cluster().get("/api/v1/nodes/node-d").await, nodes["items"][2]);
    // It was replaced, and is gone.
    let gone = cluster().get("/api/v1/nodes/node-0").await;
    let expected = json!({
        "name": "node-0", "instanceId": "i-0", "pool": "web", "ready": false, "unschedulable": false,
        "replacement": "i-0", "role": "Replaced", "phase": "OnFallback", "box": "6",
    });
    assert_eq!(gone, expected);
    let (status, _, body) = cluster().ask(Method::GET, "/api/v1/nodes/node-x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("no node of a pool or a replacement is named node-x"), "{body}");
}

#[actix_web::test]
async fn a_later_node_of_the_same_name_plays_no_part() {
    let mut fixture = cluster();
    fixture.cluster.nodes[2] = ec2("node-d", "i-later");
    assert_eq!(names(&fixture.get("/api/v1/nodes").await), ["node-1", "node-2"]);
    let mut fixture = cluster();
    fixture.cluster.nodes[2] = ec2("node-d", "i-later");
    assert_eq!(fixture.get("/api/v1/nodes/node-d/safety").await["pool"], Value::Null);
}

#[actix_web::test]
async fn safety_is_told_of_any_node_of_the_cluster() {
    let report = cluster().get("/api/v1/nodes/node-d/safety").await;
    assert_eq!((&report["pool"], &report["safe"]), (&json!("web"), &json!(false)));
    assert_eq!(report["podsToMove"], json!(["default/web-1"]));
    let kinds: BTreeSet<&str> = report["blockers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|blocker| blocker["reason"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, BTreeSet::from(["BufferExceeded", "PodDoesNotFit"]), "{report}");
    assert!(report["blockers"][0]["message"].as_str().unwrap().contains("default/web-1"));
    assert!(report["blockers"][0]["hint"].is_string());
    assert_eq!(cluster().get("/api/v1/nodes/node-1/safety").await["safe"], true);
    // Without a pool the settings that pools start from count.
    let other = cluster().get("/api/v1/nodes/node-x/safety").await;
    assert_eq!((&other["pool"], &other["safe"]), (&Value::Null, &json!(true)));
    let (status, _, _) = cluster().ask(Method::GET, "/api/v1/nodes/node-y/safety").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn safety_checks_are_bounded() {
    let state = cluster().state().await;
    let held = state.checks.clone().acquire_many_owned(2).await.unwrap();
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let ask =
        async || call_service(&app, TestRequest::get().uri("/api/v1/nodes/node-1/safety").to_request()).await;
    let response = ask().await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
    let problem: Value = read_body_json(response).await;
    assert_eq!(problem["reason"], "TooManyChecks");
    drop(held);
    for _ in 0..5 {
        assert_eq!(ask().await.status(), StatusCode::OK, "the turn is given back");
    }
}

#[actix_web::test]
async fn a_notice_is_told_with_the_pool_of_its_story() {
    let notices = cluster().get("/api/v1/notices").await;
    let expected = json!({
        "name": "i-0-rebalance-recommendation", "node": "node-0", "instanceId": "i-0", "pool": "web",
        "kind": "RebalanceRecommendation", "detectedAt": noon(-901).to_string(),
        "traceId": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(notices, json!({ "items": [expected] }));
    assert_eq!(cluster().get("/api/v1/notices/i-0-rebalance-recommendation").await, notices["items"][0]);
}

#[actix_web::test]
async fn a_timeline_says_how_long_each_step_was() {
    let timeline = cluster().get("/api/v1/replacements/i-0/timeline").await;
    assert_eq!((&timeline["replacement"], &timeline["seconds"]), (&json!("i-0"), &json!(900)));
    let seconds = |key: &str| -> Vec<u64> {
        timeline["items"].as_array().unwrap().iter().map(|item| item[key].as_u64().unwrap()).collect()
    };
    assert_eq!(seconds("afterSeconds"), [0, 10, 300]);
    assert_eq!(seconds("lastedSeconds"), [10, 290, 600]);
    assert_eq!(timeline["items"][2]["outcome"], "InService");
    assert_eq!(cluster().get("/api/v1/replacements/i-0").await["steps"].as_array().unwrap().len(), 3);
    assert_eq!(cluster().get("/api/v1/pools/web").await["name"], "web");
}

#[actix_web::test]
async fn lists_are_narrowed_down() {
    for (path, expected) in [
        ("nodes?pool=web", vec!["node-1", "node-2", "node-d"]),
        ("nodes?pool=batch", vec![]),
        ("nodes?node=node-2", vec!["node-2"]),
        ("nodes?phase=OnFallback", vec!["node-2", "node-d"]),
        ("nodes?phase=Draining", vec![]),
        ("notices?node=node-0&pool=web", vec!["i-0-rebalance-recommendation"]),
        ("notices?pool=batch", vec![]),
        ("notices?since=2030-03-17T17:31:39Z", vec!["i-0-rebalance-recommendation"]),
        ("notices?since=2030-03-17T17:31:40Z", vec![]),
        ("replacements?node=node-d&pool=web&phase=OnFallback", vec!["i-0"]),
        ("replacements?node=node-0", vec!["i-0"]),
        ("replacements?node=node-1", vec![]),
        ("replacements?since=2030-03-17T17:31:40Z", vec!["i-0"]),
        ("replacements?since=2030-03-17T17:31:41Z", vec![]),
        ("fallbacks?node=node-2", vec!["i-0"]),
        ("fallbacks?since=2030-03-17T17:36:40Z", vec!["i-0"]),
        ("fallbacks?since=2030-03-17T17:36:41Z", vec![]),
        ("fallbacks?phase=Returning", vec![]),
    ] {
        let list = cluster().get(&format!("/api/v1/{path}")).await;
        assert_eq!(names(&list), expected, "{path}");
    }
}

#[actix_web::test]
async fn ten_thousand_replacements_are_told_in_pages() {
    let replacements = (0..10_000)
        .map(|number| {
            let mut held = replacement(&format!("i-{number:05}"), ReplacementStatus::default());
            held.spec.pool = Some(if number % 2 == 0 { "web" } else { "batch" }.into());
            held
        })
        .collect();
    let state = Fixture { replacements, ..Fixture::empty() }.state().await;
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let ask = async |query: &str| -> Value {
        let request = TestRequest::get().uri(&format!("/api/v1/replacements?{query}")).to_request();
        let response = call_service(&app, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&read_body(response).await).unwrap()
    };
    let began = Instant::now();
    for (query, limit, total) in
        [("", 100, 10_000), ("limit=500&", 500, 10_000), ("pool=web&limit=7&", 7, 5_000)]
    {
        let (mut told, mut next, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = ask(&format!("{query}{next}")).await;
            told.extend(names(&page).into_iter().map(str::to_owned));
            pages += 1;
            let Some(cursor) = page["continue"].as_str() else { break };
            next = format!("continue={cursor}");
            if pages == 20 {
                break;
            }
        }
        assert_eq!(told.len(), (pages * limit).min(total));
        assert!(told.is_sorted() && told.iter().collect::<BTreeSet<_>>().len() == told.len());
    }
    println!("60 pages of 10,000 replacements: {:?}", began.elapsed());
}

#[actix_web::test]
async fn what_a_query_says_wrongly_is_named() {
    let cursor = Fixture::with_a_fallback().get("/api/v1/replacements?limit=1").await["continue"].clone();
    let cursor = cursor.as_str().unwrap();
    let page =
        Fixture::with_a_fallback().get(&format!("/api/v1/replacements?limit=1&continue={cursor}")).await;
    assert_eq!(names(&page), ["i-0000000000000000b"]);
    assert_eq!(page["continue"], Value::Null);
    for (path, field, detail) in [
        ("replacements?limit=0", "limit", "it is not a number from 1 to 500"),
        ("replacements?limit=501", "limit", "it is not a number from 1 to 500"),
        ("replacements?limit=ten", "limit", "it is not a number from 1 to 500"),
        ("replacements?limit=1&limit=2", "limit", "it stands there twice"),
        ("replacements?pool=", "pool", "it is empty"),
        ("replacements?phase=Lost", "phase", "unknown variant `Lost`"),
        ("replacements?since=yesterday", "since", "not an RFC 3339 time"),
        ("replacements?colour=red", "colour", "there is no such parameter; there are: pool, phase"),
        ("pools?pool=web", "pool", "there are: limit, continue"),
        ("status?verbose=1", "verbose", "there are: none"),
        ("fallbacks/i-0000000000000000b?limit=1", "limit", "there are: none"),
        ("replacements?continue=nonsense", "continue", "it is not the continue of a page of this list"),
        (&format!("replacements?pool=web&continue={cursor}"), "continue", "with these filters"),
        (&format!("fallbacks?continue={cursor}"), "continue", "a page of this list"),
    ] {
        let (status, media_type, body) =
            Fixture::with_a_fallback().ask(Method::GET, &format!("/api/v1/{path}")).await;
        assert_eq!(
            (status.as_u16(), media_type.as_str()),
            (400, "application/problem+json"),
            "{path}: {body}"
        );
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["reason"], "InvalidField", "{path}: {body}");
        assert_eq!(problem["errors"][0]["field"], field, "{path}: {body}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(detail), "{path}: {body}");
    }
}

#[actix_web::test]
async fn what_is_too_long_is_refused() {
    let long = format!("/api/v1/pools?limit={}", "1".repeat(9_000));
    let (status, _, body) = Fixture::empty().ask(Method::GET, &long).await;
    assert_eq!((status, reason(&body).as_str()), (StatusCode::URI_TOO_LONG, "TargetTooLong"));
    let state = Fixture::empty().state().await;
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let request = TestRequest::get().uri("/api/v1/pools").insert_header(("x-long", "a".repeat(17_000)));
    let response = call_service(&app, request.to_request()).await;
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let problem: Value = read_body_json(response).await;
    assert_eq!(problem["reason"], "HeadersTooLong");
}
