use super::*;
use crate::core::record::{
    BlockingReason, Capacity, FlowBox, GroupKind, NoticeKind, Phase, ReplacementStatus, set_condition,
};
use crate::crd::{GroupStatus, NodeReplacementSpec, SpotPoolStatus};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use jiff::Timestamp;
use kube::runtime::{reflector, watcher::Event};
use serde_json::{Value, json};
use std::io::{Read, Write};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A replica that follows, at noon, with what it knows.
struct Fixture {
    readiness: Readiness,
    pools: Vec<SpotPool>,
    replacements: Vec<NodeReplacement>,
    leader: bool,
    paused: bool,
    silent: Duration,
}

impl Fixture {
    fn empty() -> Self {
        Self {
            readiness: Readiness::default(),
            pools: vec![],
            replacements: vec![],
            leader: false,
            paused: false,
            silent: Duration::ZERO,
        }
    }

    /// Two pools; one node replaced by Spot, one on a fallback that a pod holds up.
    fn with_a_fallback() -> Self {
        let mut web = pool("web");
        let mut status = SpotPoolStatus { spot: Some(group(3, 3)), on_demand: Some(group(1, 1)), ..empty() };
        set_condition(&mut status.conditions, "Healthy", true, "Healthy", "all in service", noon(0));
        web.status = Some(status);
        let done = ReplacementStatus { phase: Phase::Completed, ..ReplacementStatus::default() };
        let stands_in = ReplacementStatus {
            phase: Phase::OnFallback,
            notice: Some(NoticeKind::RebalanceRecommendation),
            started_at: Some(noon(-900)),
            fallback: true,
            capacity: Some(Capacity {
                group: GroupKind::OnDemand,
                instance_id: "i-0000000000000000d".to_owned(),
                node_name: "node-d".to_owned(),
                ready_at: noon(-600),
            }),
            blocking: vec![BlockingReason {
                flow_box: FlowBox::Safety,
                message: "pod default/db-0 fits on no other node".to_owned(),
                since: noon(-90),
            }],
            traceparent: Some(TRACEPARENT.to_owned()),
            ..ReplacementStatus::default()
        };
        Self {
            pools: vec![web, pool("batch")],
            replacements: vec![
                replacement("i-0000000000000000b", stands_in),
                replacement("i-0000000000000000a", done),
            ],
            ..Self::empty()
        }
    }

    async fn state(self) -> ApiState {
        ApiState {
            pools: store(self.pools),
            replacements: store(self.replacements),
            liveness: Liveness::silent_since(self.silent),
            readiness: self.readiness,
            metrics: Arc::new(Metrics::new()),
            clock: Clock::Simulated { epoch: noon(0), origin: tokio::time::Instant::now() },
            is_leader: watch::channel(self.leader).1,
            paused: watch::channel(self.paused).1,
            version: "1.2.3",
        }
    }

    /// Asks one question: status, media type, body.
    async fn ask(self, method: Method, path: &str) -> (StatusCode, String, String) {
        let state = self.state().await;
        let app = init_service(App::new().configure(|cfg| routes(cfg, state))).await;
        let request = TestRequest::default().method(method).uri(path).to_request();
        let response = call_service(&app, request).await;
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE).unwrap().to_str().unwrap().to_owned();
        let body = read_body(response).await;
        (status, media_type, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(self, path: &str) -> Value {
        let (status, media_type, body) = self.ask(Method::GET, path).await;
        assert_eq!((status, media_type.as_str()), (StatusCode::OK, "application/json"), "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn empty() -> SpotPoolStatus {
    SpotPoolStatus::default()
}

fn noon(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + seconds).unwrap()
}

fn group(desired: i32, in_service: i32) -> GroupStatus {
    let summary = format!("{in_service}/{desired}");
    GroupStatus { desired, in_service, min: 0, max: 9, summary }
}

fn pool(name: &str) -> SpotPool {
    let spec = json!({"spotGroup": format!("{name}-spot"), "onDemandGroup": format!("{name}-od")});
    SpotPool::new(name, serde_json::from_value(spec).unwrap())
}

fn replacement(name: &str, status: ReplacementStatus) -> NodeReplacement {
    let spec = NodeReplacementSpec {
        pool: Some("web".to_owned()),
        node_name: format!("node-of-{name}"),
        instance_id: name.to_owned(),
    };
    let mut replacement = NodeReplacement::new(name, spec);
    replacement.status = Some(status);
    replacement
}

fn store<K>(objects: Vec<K>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (reader, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(object));
    }
    reader
}

#[actix_web::test]
async fn the_process_lives() {
    let blocked = Fixture { silent: Duration::from_secs(42), ..Fixture::empty() };
    let (status, _, body) = blocked.ask(Method::GET, "/healthz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "the thread of the actors has not run for 42 s\n");
    let (status, _, body) = Fixture::empty().ask(Method::GET, "/healthz").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok\n"));
}

#[actix_web::test]
async fn readiness_names_the_parts_that_do_not_work() {
    assert_eq!(Fixture::empty().get("/readyz").await, json!({"ready": true, "notReady": []}));

    let fixture = Fixture::empty();
    fixture.readiness.ready("aws");
    fixture.readiness.not_ready("kubernetes", "the API server does not answer: connection refused");
    let (status, media_type, body) = fixture.ask(Method::GET, "/readyz").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
    let part = json!({"part": "kubernetes", "reason": "the API server does not answer: connection refused"});
    let expected = json!({"ready": false, "notReady": [part]});
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert!(body.lines().count() > 3, "not laid out for people: {body}");
}

#[actix_web::test]
async fn metrics_are_open_metrics_text() {
    let (status, media_type, body) = Fixture::with_a_fallback().ask(Method::GET, "/metrics").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::OK, crate::telemetry::metrics::CONTENT_TYPE));
    assert!(body.contains("spot_guard_replacements{phase=\"OnFallback\"} 1\n"), "{body}");
    assert!(body.contains("spot_guard_pool_desired{pool=\"web\",group=\"OnDemand\"} 1\n"), "{body}");
    assert!(body.ends_with("# EOF\n"));
}

#[actix_web::test]
async fn status_shows_the_whole_at_a_glance() {
    let status =
        Fixture { leader: true, paused: true, ..Fixture::with_a_fallback() }.get("/api/v1/status").await;
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["paused"], true);
    assert_eq!((&status["leader"], &status["ready"]), (&json!(true), &json!(true)));
    let counts = json!({
        "open": 1, "finished": 1, "fallbacks": 1, "blocked": 1, "byPhase": {"OnFallback": 1, "Completed": 1},
    });
    assert_eq!(status["replacements"], counts);
    let pools = json!([
        {"name": "batch", "mode": "Act", "paused": false, "fallbacks": 0, "conditions": {}},
        {
            "name": "web", "mode": "Act", "paused": false, "fallbacks": 1, "conditions": {"Healthy": "True"},
            "spot": {"desired": 3, "inService": 3}, "onDemand": {"desired": 1, "inService": 1},
        },
    ]);
    assert_eq!(status["pools"], pools);
}

#[actix_web::test]
async fn pools_are_sorted_and_in_full() {
    let pools = Fixture::with_a_fallback().get("/api/v1/pools").await;
    assert_eq!(pools["items"][0]["name"], "batch");
    let web = &pools["items"][1];
    assert_eq!((&web["spotGroup"], &web["onDemandGroup"]), (&json!("web-spot"), &json!("web-od")));
    assert_eq!(web["spot"]["max"], 9);
    assert_eq!(web["conditions"][0]["reason"], "Healthy");
    assert_eq!(web["scalingRequests"], json!([]));
}

#[actix_web::test]
async fn replacements_are_sorted_and_tell_their_story() {
    let replacements = Fixture::with_a_fallback().get("/api/v1/replacements").await;
    let items = replacements["items"].as_array().unwrap();
    assert_eq!(items[0]["name"], "i-0000000000000000a");
    assert_eq!((&items[0]["phase"], &items[0]["box"]), (&json!("Completed"), &json!("11")));
    assert_eq!((&items[1]["phase"], &items[1]["box"]), (&json!("OnFallback"), &json!("9")));
    assert_eq!(items[1]["node"], "node-of-i-0000000000000000b");
    assert_eq!(items[1]["traceId"], "0af7651916cd43dd8448eb211c80319c");
}

#[actix_web::test]
async fn a_fallback_says_what_blocks_it_and_what_it_took_so_far() {
    let fallbacks = Fixture::with_a_fallback().get("/api/v1/fallbacks").await;
    let expected = json!({"items": [{
        "replacement": "i-0000000000000000b",
        "pool": "web",
        "replacedNode": "node-of-i-0000000000000000b",
        "node": "node-d",
        "instanceId": "i-0000000000000000d",
        "since": noon(-600).to_string(),
        "onDemandSeconds": 600,
        "phase": "OnFallback",
        "box": "9",
        "blockedBy": [{
            "box": "9",
            "message": "pod default/db-0 fits on no other node",
            "since": noon(-90).to_string(),
            "seconds": 90,
        }],
        "traceId": "0af7651916cd43dd8448eb211c80319c",
    }]});
    assert_eq!(fallbacks, expected);
}

#[actix_web::test]
async fn what_is_not_there_is_a_problem() {
    let (status, media_type, body) = Fixture::empty().ask(Method::GET, "/api/v1/nodes").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    let expected = json!({
        "type": "about:blank", "title": "Not Found", "status": 404,
        "detail": "there is nothing at /api/v1/nodes", "instance": "/api/v1/nodes",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[actix_web::test]
async fn what_cannot_be_done_is_a_problem() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let (status, media_type, body) = Fixture::empty().ask(method.clone(), "/api/v1/pools").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(media_type, "application/problem+json");
        assert!(body.contains(&format!("takes GET and HEAD, not {method}")), "{body}");
    }
    let state = Fixture::empty().state().await;
    let app = init_service(App::new().configure(|cfg| routes(cfg, state))).await;
    let response = call_service(&app, TestRequest::post().uri("/readyz").to_request()).await;
    assert_eq!(response.headers().get(header::ALLOW).unwrap(), "GET, HEAD");
}

#[actix_web::test]
async fn a_server_answers_on_its_listener_and_stops() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve(listener, Fixture::empty().state().await).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let ask = move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = web::block(ask).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}
