//! Logs hold no objects, bodies, tokens or secrets: a marker is planted in every kind of object, some cannot
//! be read for a while, the API answers errors that hold it, and nothing that is logged may show it. And each
//! line says which replacement it is about, once.

use crate::play::{Play, Stage, ends, on_paused_time};
use serde_json::{Value, json};
use spot_guard::crd::notice_name;
use spot_guard::kube::problem::RequestProblem;
use spot_guard::sim::scenario::Scenario;
use spot_guard::sim::world::Gates;
use spot_guard::telemetry::tracing::log_filter;
use spot_guard_cloud::cloud::{CallFate, CallGate};
use spot_guard_cloud::cluster::{self, RequestInfo};
use spot_guard_core::record::NoticeKind;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What no line may hold.
const SECRET: &str = "hunter2";
/// Every kind that is watched and has objects in a story.
const KINDS: [&str; 6] = [
    "pods",
    "nodes",
    "namespaces",
    "poddisruptionbudgets.policy",
    "persistentvolumeclaims",
    "spotpools.spotguard.dev",
];

/// Everything that was logged, with its time: a line is written at once.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Instant, String)>>>);

impl Log {
    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, line)| line.as_str()).collect()
    }

    /// The lines, without the time of the machine that stands in front.
    fn lines(&self) -> Vec<(Instant, String)> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = |line: &str| line.split_once(' ').map_or(line, |(_, rest)| rest).trim().to_owned();
        told.iter().map(|(at, line)| (*at, rest(line))).collect()
    }

    /// Takes in what this thread logs at the default level.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .with_filter(log_filter(EnvFilter::new("info")));
        tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every fifth write is answered with an error that holds the marker.
#[derive(Default)]
struct Errors(AtomicUsize);

impl cluster::RequestGate for Errors {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        let writes = matches!(request.verb.as_str(), "create" | "update" | "patch");
        if writes && request.resource != "leases" && self.0.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
            return cluster::RequestFate::Refuse(500, format!("because of {SECRET}"));
        }
        cluster::RequestFate::Pass
    }
}

/// Puts the marker into an annotation and a label, and into the environment of a pod's containers.
fn plant(object: &mut Value) {
    for map in ["annotations", "labels"] {
        if object["metadata"][map].is_null() {
            object["metadata"][map] = json!({});
        }
        object["metadata"][map]["example.com/token"] = json!(SECRET);
    }
    let containers = object.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        container["env"] = json!([{ "name": "TOKEN", "value": SECRET }]);
    }
}

fn each(stage: &Stage, kind: &str, change: impl Fn(&mut Value)) {
    for object in stage.cluster.list_json(kind) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        stage.cluster.edit(kind, &text("namespace"), &text("name"), &change);
    }
}

/// For a while every object of each kind is unreadable: a field that holds the marker in the place of
/// something else.
async fn befall(stage: Stage) {
    stage
        .cluster
        .create_json(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "data", "namespace": "default" },
            "spec": { "accessModes": ["ReadWriteOnce"] },
        }))
        .expect("a claim");
    for kind in KINDS {
        each(&stage, kind, plant);
    }
    let notice = json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "InterruptionNotice",
        "metadata": { "name": notice_name(&"no-node".into(), &"i-0123456789abcdef0".into(), NoticeKind::RebalanceRecommendation), "annotations": { "example.com/token": SECRET } },
        "spec": { "nodeName": "no-node", "instanceId": "i-0123456789abcdef0", "kind": "RebalanceRecommendation",
            "detectedAt": stage.cloud.now(), "traceparent": SECRET },
    });
    stage.cluster.create_json(notice).expect("a notice");
    for kind in KINDS {
        each(&stage, kind, |object| object["metadata"]["deletionGracePeriodSeconds"] = json!(SECRET));
        stage.pass(20).await;
        each(&stage, kind, |object| {
            if let Value::Object(map) = &mut object["metadata"] {
                map.remove("deletionGracePeriodSeconds");
            }
        });
        stage.pass(5).await;
    }
}

/// Whether a place in the code logs at all is kept for the whole process (`tracing_core::callsite`). So the
/// tests that listen do it in turn. And a subscriber of the whole process that hears nothing stands beside
/// theirs: of a single one, another thread that reaches a place first would find that nobody listens.
fn in_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static DEAF: Once = Once::new();
    DEAF.call_once(|| {
        let deaf = tracing_subscriber::registry().with(LevelFilter::OFF);
        tracing::subscriber::set_global_default(deaf).expect("no other one is set");
    });
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn nothing_that_is_logged_shows_what_objects_and_answers_hold() {
    let _turn = in_turn();
    for scenario in [Scenario::DrySpot, Scenario::PdbBlocked] {
        let log = Log::default();
        let listening = log.listen();
        let gates = Gates { kube: Some(Arc::new(Errors::default())), ..Gates::default() };
        Play::plot("secrets", ends(scenario)).faults(gates).beside(befall).play();
        drop(listening);
        let text = log.text();
        for told in ["spot_guard", "the next attempt follows", "box 2 scale up"] {
            assert!(text.contains(told), "something is logged, {told:?} too:\n{text}");
        }
        let shown: Vec<&str> = text.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(shown.is_empty(), "{} lines show it, the first: {:.600}", shown.len(), shown[0]);
    }
}

/// An answer that is no review reaches the client, which is asked for one.
async fn read_what_is_no_review() -> kube::Error {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let body = format!("{{\"kind\":\"TokenReview\",\"spec\":\"{SECRET}\"}}");
        Ok::<_, io::Error>(http::Response::new(kube::client::Body::from(body.into_bytes())))
    });
    let client = kube::Client::new(service, "default");
    let request = http::Request::get("/x").body(Vec::new()).expect("a request");
    let answer = client.request::<k8s_openapi::api::authentication::v1::TokenReview>(request).await;
    answer.expect_err("it cannot be read")
}

#[test]
fn an_answer_that_cannot_be_read_is_not_logged_by_the_client_either() {
    let _turn = in_turn();
    let log = Log::default();
    let listening = log.listen();
    let error = on_paused_time(read_what_is_no_review());
    tracing::warn!(error = %RequestProblem(&error), "a review failed");
    drop(listening);
    let text = log.text();
    assert!(text.contains("a review failed"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

/// Without the filter, and with the client's own words, both would show it: the tests above can fail.
#[test]
fn the_clients_own_words_hold_what_it_was_answered() {
    let _turn = in_turn();
    let log = Log::default();
    let writer = log.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let registry = tracing_subscriber::registry().with(layer.with_filter(EnvFilter::new("info")));
    let listening = tracing::subscriber::set_default(registry);
    let error = on_paused_time(read_what_is_no_review());
    drop(listening);
    assert!(log.text().contains(SECRET), "the client logs the answer: {}", log.text());
    assert!(error.to_string().contains(SECRET), "{error}");
}

/// From a minute after the first call every call of AWS and every write of Kubernetes fails for half an hour.
#[derive(Default)]
struct Outage(OnceLock<Instant>);

impl Outage {
    fn is_on(&self) -> bool {
        (60..1860).contains(&self.0.get_or_init(Instant::now).elapsed().as_secs())
    }
}

impl cluster::RequestGate for Outage {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        let writes = matches!(request.verb.as_str(), "create" | "update" | "patch" | "delete");
        if self.is_on() && writes && request.resource != "leases" {
            return cluster::RequestFate::Refuse(500, "not now".into());
        }
        cluster::RequestFate::Pass
    }
}

impl CallGate for Outage {
    fn before(&self, _operation: &str, _group: Option<&str>) -> CallFate {
        if self.is_on() { CallFate::throttling() } else { CallFate::Pass }
    }
}

#[test]
fn an_outage_of_half_an_hour_repeats_no_warning_within_a_minute() {
    let _turn = in_turn();
    let log = Log::default();
    let listening = log.listen();
    let outage = Arc::new(Outage::default());
    let gates = Gates { kube: Some(outage.clone()), aws: Some(outage), ..Gates::default() };
    let warned: Rc<RefCell<Vec<(Duration, String)>>> = Rc::default();
    let (read, lines) = (log.clone(), warned.clone());
    let listen = async move |stage: Stage| {
        let (begun, mut known) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(1900) {
            stage.pass(1).await;
            let text = read.text();
            for line in text[known..].lines().filter(|line| line.contains("WARN") || line.contains("ERROR")) {
                // In front stands the time of the machine.
                let line = line.trim_start().split_once(' ').map_or(line, |(_, rest)| rest);
                lines.borrow_mut().push((begun.elapsed(), line.to_owned()));
            }
            known = text.len();
        }
    };
    Play::plot("outage", ends(Scenario::DrySpot)).faults(gates).beside(listen).play();
    drop(listening);
    let warned = warned.borrow();
    let lines: Vec<&str> = warned.iter().map(|(_, line)| line.as_str()).collect();
    for part in ["the groups could not be read", "could not be stored"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    for (number, (at, line)) in warned.iter().enumerate() {
        let again = warned[number + 1..].iter().find(|(_, later)| later == line);
        let soon = again.filter(|(later, _)| *later - *at < Duration::from_secs(59));
        assert!(soon.is_none(), "at {at:?} and again at {:?}: {line}", soon.map(|(later, _)| later));
    }
}

/// What a line of a step or of a call has, and how many such lines the story has at least.
const ABOUT_REPLACEMENTS: [(&str, usize); 4] = [
    (" outcome=", 12),
    ("LaunchInstances pool=", 2),
    ("TerminateInstanceInAutoScalingGroup pool=", 2),
    (" change=drained", 2),
];

#[test]
fn each_line_of_a_step_or_a_call_has_its_replacement_and_its_trace_and_none_repeats() {
    let _turn = in_turn();
    let log = Log::default();
    let listening = log.listen();
    Play::of(Scenario::DrySpot).play().assert_ok();
    drop(listening);
    let lines = log.lines();
    for (part, least) in ABOUT_REPLACEMENTS {
        let about: Vec<&str> =
            lines.iter().map(|(_, line)| line.as_str()).filter(|line| line.contains(part)).collect();
        assert!(about.len() >= least, "{part}: {about:#?}");
        let has_both = |line: &&str| line.contains("replacement=\"") && line.contains("trace_id=");
        let without: Vec<&str> = about.into_iter().filter(|line| !has_both(line)).collect();
        assert_eq!(without, [""; 0], "{part}");
    }
    // A call that is made again is another fact.
    let is_fact_of_its_own = |line: &str| line.starts_with("INFO") && !line.starts_with("INFO call{");
    let told: Vec<_> = lines.iter().filter(|(_, line)| is_fact_of_its_own(line)).collect();
    for (number, (at, line)) in told.iter().enumerate() {
        let again = told[number + 1..].iter().find(|(_, later)| later == line);
        let soon = again.filter(|(later, _)| later.duration_since(*at) < Duration::from_secs(60));
        assert!(soon.is_none(), "twice within a minute: {line}");
    }
}
