#[cfg(feature = "sim")]
mod access;
mod history;
mod lists;
mod savings;
mod smuggling;
#[cfg(feature = "sim")]
mod spot_actions;
mod status;
#[cfg(feature = "sim")]
mod streams;
mod tls;
#[cfg(feature = "sim")]
mod webhook;

use super::*;
use crate::actors::last_readings::LastReadings;
use crate::crd::{
    GroupStatus, InterruptionNotice, NodeReplacement, NodeReplacementSpec, SpotAction, SpotPool,
    SpotPoolStatus,
};
use crate::telemetry::liveness::Liveness;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Readiness, UnreadyCode};
use actix_web::App;
use actix_web::http::{Method, StatusCode, header};
use actix_web::test::{TestRequest, call_service, init_service, read_body, read_body_json};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;
use kube::runtime::{reflector, watcher::Event};
use serde_json::{Value, json};
use spot_guard_core::cluster::Parts;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::policy::Policy;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{
    BlockingReason, Capacity, CapacityState, FallbackState, FlowBox, GroupKind, NoticeKind, OldNodeState,
    OpenFallback, Phase, ReplacementStatus, set_condition,
};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A replica that follows, at noon, with what it knows.
struct Fixture {
    readiness: Readiness,
    pools: Vec<SpotPool>,
    replacements: Vec<NodeReplacement>,
    notices: Vec<InterruptionNotice>,
    cluster: Parts,
    client: Option<Client>,
    webhook_secrets: Secrets,
    trace_url: Option<String>,
    leader: bool,
    last_readings: LastReadings,
    spot_actions: Vec<SpotAction>,
    paused: bool,
    silent: Duration,
}

impl Fixture {
    fn empty() -> Self {
        Self {
            readiness: Readiness::default(),
            pools: vec![],
            replacements: vec![],
            notices: vec![],
            cluster: Parts::default(),
            client: None,
            webhook_secrets: Secrets::default(),
            trace_url: None,
            leader: false,
            last_readings: LastReadings::default(),
            spot_actions: vec![],
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
        let done = ReplacementStatus {
            phase: Phase::Completed,
            finished_at: Some(noon(-60)),
            ..ReplacementStatus::default()
        };
        let stands_in = ReplacementStatus {
            phase: Phase::OnFallback,
            old_node: OldNodeState::Gone {}.into(),
            notice: Some(NoticeKind::RebalanceRecommendation),
            started_at: Some(noon(-900)),
            fallback: FallbackState::OnFallback(OpenFallback::default()).into(),
            capacity: CapacityState::Taken {
                instance: Capacity {
                    group: GroupKind::OnDemand,
                    instance_id: "i-0000000000000000d".into(),
                    node_name: "node-d".into(),
                    ready_at: noon(-600),
                },
                on_demand_requested: true,
            }
            .into(),
            blocking: vec![BlockingReason {
                flow_box: FlowBox::Safety,
                reason: ReasonCode::PodDoesNotFit,
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
        let snapshot = Arc::new(Snapshot::new(self.cluster));
        let changes = watch::Sender::new(0);
        ApiState {
            changes: changes.subscribe(),
            pools: store(self.pools),
            replacements: store(self.replacements),
            notices: store(self.notices),
            stale: Arc::new(Vec::new),
            snapshot: Arc::new(move || {
                // The sender lives as long as the state does: without it streams would end.
                let _ = changes.receiver_count();
                snapshot.clone()
            }),
            spot_action_store: store(self.spot_actions),
            spot_actions: SpotActions::new(self.client.unwrap_or_else(nobody)),
            webhook_secrets: self.webhook_secrets,
            trace_url: self.trace_url,
            defaults: Policy::default(),
            taint_key: "example.org/taint".into(),
            checks: checks(),
            liveness: Liveness::silent_since(self.silent),
            readiness: self.readiness,
            metrics: Arc::new(Metrics::new()),
            now: Arc::new(|| noon(0)),
            is_leader: watch::channel(self.leader).1,
            holder: watch::channel(Some("spot-guard-0".to_owned())).1,
            last_readings: self.last_readings,
            cluster_name: Some("production".to_owned()),
            history: Arc::default(),
            streams: streams(),
            paused: watch::channel(self.paused).1,
            version: "1.2.3",
        }
    }

    /// Asks one question: status, media type, body.
    async fn ask(self, method: Method, path: &str) -> (StatusCode, String, String) {
        let state = self.state().await;
        let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
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

/// A client of an API server that is not there.
fn nobody() -> Client {
    Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap()
}

fn empty() -> SpotPoolStatus {
    SpotPoolStatus::default()
}

fn noon(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + seconds).unwrap()
}

fn group(desired: i32, in_service: i32) -> GroupStatus {
    let summary = format!("{in_service}/{desired}");
    GroupStatus { desired, in_service, min: 0, max: 9, summary, instances: vec![] }
}

fn pool(name: &str) -> SpotPool {
    let spec = json!({"spotGroup": format!("{name}-spot"), "onDemandGroup": format!("{name}-od")});
    SpotPool::new(name, serde_json::from_value(spec).unwrap())
}

fn replacement(name: &str, status: ReplacementStatus) -> NodeReplacement {
    let spec = NodeReplacementSpec {
        pool: Some("web".into()),
        node_name: format!("node-of-{name}").into(),
        instance_id: name.into(),
        place: None,
        adopted: None,
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
    let message = "the API server does not answer: connection refused";
    fixture.readiness.not_ready("kubernetes", UnreadyCode::WatchBroken, message);
    let (status, media_type, body) = fixture.ask(Method::GET, "/readyz").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
    let part = json!({"part": "kubernetes", "reason": "WatchBroken", "message": message, "serves": false});
    let expected = json!({"ready": false, "notReady": [part]});
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert!(body.lines().count() > 3, "not laid out for people: {body}");

    let fixture = Fixture::empty();
    fixture.readiness.impaired("auto-scaling", UnreadyCode::GroupsNotObserved, "throttled");
    let body = fixture.get("/readyz").await;
    assert_eq!((&body["ready"], &body["notReady"][0]["part"]), (&json!(true), &json!("auto-scaling")));
}

#[actix_web::test]
async fn metrics_are_open_metrics_text() {
    let leading = Fixture { leader: true, ..Fixture::with_a_fallback() };
    let (status, media_type, body) = leading.ask(Method::GET, "/metrics").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::OK, crate::telemetry::metrics::CONTENT_TYPE));
    assert!(body.contains("spot_guard_replacements{pool=\"web\",phase=\"OnFallback\"} 1\n"), "{body}");
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
        {"name": "batch", "mode": "Act", "paused": true, "fallbacks": 0, "conditions": {}},
        {
            "name": "web", "mode": "Act", "paused": true, "fallbacks": 1, "conditions": {"Healthy": "True"},
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
            "reason": "PodDoesNotFit",
            "message": "pod default/db-0 fits on no other node",
            "hint": "Make room on a node that the pod may use, or change its requests, selectors or tolerations.",
            "since": noon(-90).to_string(),
            "seconds": 90,
        }],
        "traceId": "0af7651916cd43dd8448eb211c80319c",
    }]});
    assert_eq!(fallbacks, expected);
}

#[actix_web::test]
async fn with_prices_a_fallback_tells_its_cost_and_with_a_trace_backend_its_trace() {
    let mut fixture = Fixture::with_a_fallback();
    for (prices, expected) in [
        (json!({ "spot": "0.05", "onDemand": "0.2" }), Some(25.0)),
        (json!({ "spot": "a lot", "onDemand": "0.2" }), None),
    ] {
        fixture.pools[0].spec.hourly_prices = Some(serde_json::from_value(prices).unwrap());
        let told = Fixture { pools: fixture.pools.clone(), ..Fixture::with_a_fallback() };
        let fallbacks = told.get("/api/v1/fallbacks").await;
        let thousandths =
            fallbacks["items"][0]["estimatedExtraCost"].as_f64().map(|cost| (cost * 1000.0).round());
        assert_eq!(thousandths, expected);
    }
    let trace_url = Some("https://traces.example.org/trace/{traceId}?full".to_owned());
    let replacements = Fixture { trace_url, ..Fixture::with_a_fallback() }.get("/api/v1/replacements").await;
    assert_eq!(
        replacements["items"][1]["traceUrl"],
        "https://traces.example.org/trace/0af7651916cd43dd8448eb211c80319c?full"
    );
    let own = replacements["items"][0]["traceUrl"].as_str().expect("a trace without a notice, too");
    assert_eq!(own.len(), "https://traces.example.org/trace/0af7651916cd43dd8448eb211c80319c?full".len());
    assert_ne!(replacements["items"][0]["traceId"], replacements["items"][1]["traceId"]);
}

#[actix_web::test]
async fn one_fallback_is_answered_by_its_name_and_nothing_else_is() {
    let all = Fixture::with_a_fallback().get("/api/v1/fallbacks").await;
    let one = Fixture::with_a_fallback().get("/api/v1/fallbacks/i-0000000000000000b").await;
    assert_eq!(one, all["items"][0]);
    // Neither a story without a fallback, nor one that is not there.
    for name in ["i-0000000000000000a", "i-0000000000000000c"] {
        let path = format!("/api/v1/fallbacks/{name}");
        let (status, media_type, body) = Fixture::with_a_fallback().ask(Method::GET, &path).await;
        assert_eq!((status, media_type.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
        let expected = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "reason": "NoSuchObject",
            "detail": format!("no open fallback is named {name}"), "instance": path,
        });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }
}

/// The code of a problem.
fn reason(body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap();
    problem["reason"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn what_is_not_there_is_a_problem() {
    let (status, media_type, body) = Fixture::empty().ask(Method::GET, "/api/v1/nothing").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    let expected = json!({
        "type": "about:blank", "title": "Not Found", "status": 404, "reason": "NoSuchPath",
        "detail": "there is nothing at /api/v1/nothing", "instance": "/api/v1/nothing",
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
        assert_eq!(reason(&body), "MethodNotAllowed");
    }
    let state = Fixture::empty().state().await;
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let response = call_service(&app, TestRequest::post().uri("/readyz").to_request()).await;
    assert_eq!(response.headers().get(header::ALLOW).unwrap(), "GET, HEAD");
}

#[actix_web::test]
async fn a_server_answers_on_its_listener_and_stops() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve(listener, Door::Local, Fixture::empty().state().await).unwrap();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let ask = move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
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

/// A replica whose stories change while it is asked.
struct Live {
    writer: reflector::store::Writer<NodeReplacement>,
    changed: watch::Sender<u64>,
    state: ApiState,
}

impl Live {
    async fn new() -> Self {
        let (replacements, writer) = reflector::store();
        let changed = watch::Sender::new(0);
        let state = ApiState { replacements, changes: changed.subscribe(), ..Fixture::empty().state().await };
        Self { writer, changed, state }
    }

    /// The story of a node has so many steps now.
    fn steps(&mut self, name: &str, count: usize) {
        let mut status = ReplacementStatus::default();
        for number in 0..count {
            let node = format!("node-{number}");
            let at = noon(i64::try_from(number).unwrap());
            status.step(
                FlowBox::Wait,
                spot_guard_core::record::Outcome::Requested,
                &node.as_str().into(),
                "a step".to_owned(),
                at,
            );
        }
        self.writer.apply_watcher_event(&Event::Apply(replacement(name, status)));
        self.changed.send_modify(|version| *version += 1);
    }
}

/// The next piece of a stream, or nothing at its end.
async fn next_piece(body: &mut actix_web::body::BoxBody) -> Option<String> {
    use actix_web::body::MessageBody;
    let piece = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_next(cx)).await?;
    Some(String::from_utf8(piece.expect("a piece").to_vec()).unwrap())
}

#[actix_web::test]
async fn each_step_is_told_once_as_it_happens() {
    tokio::time::pause();
    let mut live = Live::new().await;
    live.steps("i-1", 2);
    let state = live.state.clone();
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let response = call_service(&app, TestRequest::get().uri("/api/v1/events").to_request()).await;
    assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), "text/event-stream");
    let mut body = response.into_body();
    assert!(next_piece(&mut body).await.unwrap().starts_with(':'), "what was before is not told");
    live.steps("i-1", 3);
    let step = next_piece(&mut body).await.unwrap();
    let id = format!("event: step\nid: {}/i-1\ndata: ", noon(2));
    let data = step.strip_prefix(&id).and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        (&told["replacement"], &told["node"], &told["box"]),
        (&json!("i-1"), &json!("node-2"), &json!("3"))
    );
    assert_eq!(next_piece(&mut body).await.unwrap(), "event: changed\ndata: {}\n\n");
    assert_eq!(next_piece(&mut body).await.unwrap(), ":\n\n", "nothing more but a sign of life");
}

#[actix_web::test]
async fn who_comes_back_is_told_what_was_missed() {
    tokio::time::pause();
    let mut live = Live::new().await;
    live.steps("i-1", 40);
    let state = live.state.clone();
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let open = async |id: &str| {
        let request = TestRequest::get().uri("/api/v1/events").insert_header(("last-event-id", id));
        call_service(&app, request.to_request()).await
    };
    let told = async |id: String| {
        let mut body = open(&id).await.into_body();
        let mut told = Vec::new();
        while let Some(piece) = next_piece(&mut body).await.filter(|piece| piece != ":\n\n") {
            told.push(piece);
        }
        told
    };
    let missed = told(format!("{}/i-1", noon(20))).await;
    assert!(missed[0].starts_with(": "), "{missed:?}");
    // What was a little earlier is told once more, so that nothing is missing.
    assert!(missed[1].contains("node-10") && missed[30].contains("node-39"), "{missed:?}");
    assert_eq!((missed.len(), missed[31].as_str()), (32, "event: changed\ndata: {}\n\n"));

    for story in 2..6 {
        live.steps(&format!("i-{story}"), 60);
    }
    let missed = told(format!("{}/i-1", noon(0))).await;
    assert_eq!(missed.len(), 1 + 128 + 1, "the last ones");
    assert!(missed[128].contains("node-59"), "{missed:?}");

    let refused = open("yesterday").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let problem: Value = serde_json::from_slice(&read_body(refused).await).unwrap();
    assert_eq!(problem["errors"][0]["field"], "last-event-id");
}

#[actix_web::test]
async fn a_reader_that_does_not_keep_up_is_dropped() {
    tokio::time::pause();
    let mut live = Live::new().await;
    let state = live.state.clone();
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let response = call_service(&app, TestRequest::get().uri("/api/v1/events").to_request()).await;
    let mut body = response.into_body();
    for story in 0..20 {
        live.steps(&format!("i-{story}"), 30);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut pieces = 0;
    while next_piece(&mut body).await.is_some() {
        pieces += 1;
    }
    assert!(pieces < 300, "{pieces} of 600 steps were kept for it, then it was dropped");
    assert_eq!(live.state.streams.available_permits(), streams().available_permits(), "its place is free");
}

#[actix_web::test]
async fn streams_are_bounded() {
    let live = Live::new().await;
    let state = live.state.clone();
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let open = async || call_service(&app, TestRequest::get().uri("/api/v1/events").to_request()).await;
    let mut held = Vec::new();
    for _ in 0..streams().available_permits() {
        held.push(open().await);
    }
    assert!(held.iter().all(|response| response.status() == StatusCode::OK));
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[actix_web::test]
async fn the_dashboard_is_small_and_needs_nothing_from_elsewhere() {
    let state = Fixture::empty().state().await;
    let app = init_service(App::new().configure(|cfg| routes(cfg, state, Door::Local))).await;
    let mut size = 0;
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/icon.svg", "image/svg+xml"),
        ("/dashboard/app.js", "text/javascript; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
    ] {
        let response = call_service(&app, TestRequest::get().uri(path).to_request()).await;
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), media_type);
        let policy =
            response.headers().get(header::CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
        size += text.len();
        let outside = text.matches("://").count() - text.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(outside, 0, "{path} names another server");
        assert!(
            !text.contains("innerHTML") && !text.contains(" style=") && !text.contains(" onclick"),
            "{path}"
        );
    }
    assert!(size < 150_000, "{size} bytes");
}
