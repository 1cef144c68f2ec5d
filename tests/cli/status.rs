//! `spot-guard status` against the real HTTP API, and against what is none.

use crate::spot_guard;
use crate::stub::Stub;
use jiff::Timestamp;
use kube::runtime::{reflector, watcher::Event};
use serde_json::{Value, json};
use spot_guard::actors::last_readings::LastReadings;
use spot_guard::clock::Clock;
use spot_guard::crd::NodeReplacement;
use spot_guard::http::{ApiState, Door, SpotActions, serve};
use spot_guard::telemetry::metrics::Metrics;
use spot_guard::telemetry::readiness::Readiness;
use spot_guard_core::cluster::{Parts, Snapshot};
use spot_guard_core::policy::Policy;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// A controller's API that knows one fallback, which waits at box 9.
pub struct Api {
    pub url: String,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    pub fn start() -> Self {
        Self::telling(state)
    }

    fn telling(state: impl FnOnce() -> ApiState + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, handle) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = serve(listener, Door::Local, state()).expect("a server");
                sender.send(server.handle()).expect("the test waits");
                server.await.expect("the server ends well");
            });
        });
        Self { url, handle: handle.recv().expect("a server"), thread: Some(thread) }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // The order is given at once; only its answer would have to be awaited.
        drop(self.handle.stop(true));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server ends");
        }
    }
}

fn state() -> ApiState {
    state_with("pod default/db-0 fits on no other node")
}

/// The record of a fallback that waits at box 9, for what this says.
pub fn record(message: &str) -> Value {
    let now: Timestamp = Timestamp::now();
    let ago = |seconds: i64| now - jiff::SignedDuration::from_secs(seconds);
    json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "NodeReplacement",
        "metadata": { "name": "i-old" },
        "spec": { "pool": "web", "nodeName": "node-old", "instanceId": "i-old" },
        "status": {
            "phase": "OnFallback",
            "fallback": { "onFallback": {} },
            "oldNode": { "gone": {} },
            "capacity": { "taken": {
                "instance": {
                    "group": "OnDemand", "instanceId": "i-new", "nodeName": "node-new", "readyAt": ago(7300),
                },
                "onDemandRequested": true,
            } },
            "blocking": [{ "box": "9", "reason": "PodDoesNotFit", "message": message, "since": ago(150) }],
            "steps": [{ "box": "1", "at": ago(7400), "outcome": "NoticeReceived", "node": "node-old", "message": message }],
        },
    })
}

/// A controller that knows it.
fn state_with(message: &str) -> ApiState {
    let record: NodeReplacement = serde_json::from_value(record(message)).expect("a record");
    let (pools, _) = reflector::store();
    let (replacements, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Apply(record));
    let nobody = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
    let nobody = kube::Client::try_from(nobody).expect("a client");
    ApiState {
        pools,
        replacements,
        notices: reflector::store().0,
        stale: Arc::new(Vec::new),
        snapshot: Arc::new(|| Arc::new(Snapshot::new(Parts::default()))),
        spot_action_store: reflector::store().0,
        spot_actions: SpotActions::new(nobody),
        webhook_secrets: spot_guard::http::Secrets::default(),
        trace_url: None,
        defaults: Policy::default(),
        taint_key: "example.org/taint".into(),
        checks: spot_guard::http::checks(),
        liveness: spot_guard::telemetry::liveness::Liveness::of_this_thread(),
        readiness: Readiness::default(),
        metrics: Arc::new(Metrics::new()),
        now: Arc::new(|| Clock::System.now()),
        paused: watch::channel(false).1,
        is_leader: watch::channel(true).1,
        holder: watch::channel(None).1,
        last_readings: LastReadings::default(),
        cluster_name: None,
        changes: watch::channel(0).1,
        history: Arc::default(),
        streams: spot_guard::http::streams(),
        version: "1.2.3",
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn people_get_a_table_of_what_each_fallback_waits_for_and_since_when() {
    let api = Api::start();
    let told = text(&spot_guard(&["status", "--api", &api.url]));
    let lines: Vec<Vec<&str>> =
        told.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(lines[0], ["This replica leads. Replacements: 1 open, 1 blocked; fallbacks: 1."]);
    let row: Vec<&str> = lines[3].iter().map(|cell| cell.trim()).collect();
    let [name, pool, node, on_demand, place, since, waits_for] = row[..] else { panic!("{told}") };
    assert_eq!([name, pool, node, on_demand, place], ["i-old", "web", "node-new", "2h1m", "9"]);
    assert!(since.starts_with("2m3"), "{since}");
    assert_eq!(waits_for, "pod default/db-0 fits on no other node");
}

#[test]
fn scripts_get_what_the_api_answers_and_the_address_comes_from_the_environment_too() {
    let api = Api::start();
    let output = Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .args(["status", "-o", "json"])
        .env("SPOT_GUARD_API", format!("{}/", api.url))
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .output()
        .expect("spot-guard runs");
    let told: Value = serde_json::from_str(&text(&output)).expect("JSON");
    assert_eq!(told["status"]["version"], "1.2.3");
    assert_eq!(told["fallbacks"][0]["replacement"], "i-old");
    assert_eq!(told["fallbacks"][0]["blockedBy"][0]["box"], "9");
}

#[test]
fn pools_fallbacks_and_stories_are_told_one_by_one() {
    let api = Api::start();
    let ask = |arguments: &[&str]| text(&spot_guard(&[arguments, &["--api", &api.url]].concat()));
    assert_eq!(ask(&["pools"]), "POOL  MODE  SPOT  ON DEMAND  FALLBACKS  PROBLEMS\n");
    let fallbacks = ask(&["fallbacks"]);
    assert!(fallbacks.starts_with("FALLBACK ") && fallbacks.contains("i-old"), "{fallbacks}");
    let story = ask(&["explain", "i-old"]);
    for part in
        ["Replacement i-old of node node-old in pool web", "At box 9 (OnFallback)", "fits on no other node"]
    {
        assert!(story.contains(part), "{part}: {story}");
    }
    // People know the name of the node; this one is gone.
    let by_node = ask(&["explain", "node-old"]);
    assert_eq!(by_node.lines().next(), story.lines().next());
    // The API does not know this node, but its record does.
    let by_stand_in = ask(&["explain", "node-new"]);
    assert_eq!(by_stand_in.lines().next(), story.lines().next());
    let told: Value = serde_json::from_str(&ask(&["explain", "i-old", "-o", "json"])).expect("JSON");
    assert_eq!((&told["replacement"]["name"], &told["safety"]), (&json!("i-old"), &Value::Null));
    for (name, words) in [
        ("i-nobody", "no replacement, fallback or node is named i-nobody"),
        ("../status", "is not a Kubernetes name"),
    ] {
        let output = spot_guard(&["explain", name, "--api", &api.url]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(words), "{told}");
    }
}

#[test]
fn what_somebody_wrote_cannot_do_anything_to_a_terminal() {
    const HOSTILE: &str = "no room\n\u{1b}[2J\u{1b}]0;title\u{7}\rsafe\u{9b}31m\u{202e}txt";
    let safe = r"no room\n\u{1b}[2J\u{1b}]0;title\u{7}\rsafe\u{9b}31m\u{202e}txt";
    let api = Api::telling(|| state_with(HOSTILE));
    for arguments in [&["status"][..], &["fallbacks"], &["explain", "i-old"]] {
        let told = text(&spot_guard(&[arguments, &["--api", &api.url]].concat()));
        let bad = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!told.contains(bad), "{told:?}");
        assert!(told.contains(safe), "{arguments:?}: {told}");
        assert!(!told.lines().any(|line| line.starts_with("safe")), "{told}");
    }
    // Scripts get it as it is.
    let told = text(&spot_guard(&["fallbacks", "-o", "json", "--api", &api.url]));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["items"][0]["blockedBy"][0]["message"], HOSTILE);
    // Nor can an API that is none.
    let broken = Stub::answering(|_| (503, HOSTILE.to_owned()));
    let output = spot_guard(&["status", "--api", &broken.url()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(safe), "{told:?}");
}

#[test]
fn what_was_saved_is_a_line_for_each_pool() {
    let hours = json!({
        "spotHours": 20.0, "onDemandHours": 3.25, "fallbackHours": 1.0,
        "cost": { "paid": 1.1, "allOnDemand": 2.325, "saved": 1.225, "fallbacks": 0.06 },
    });
    let unpriced = json!({ "spotHours": 0.0, "onDemandHours": 0.0, "fallbackHours": 0.0 });
    let first = json!({ "day": "2026-01-01", "spotHours": 15.0, "onDemandHours": 0.0, "fallbackHours": 0.0 });
    let mut second =
        json!({ "day": "2026-01-02", "spotHours": 5.0, "onDemandHours": 3.2, "fallbackHours": 1.0 });
    second["cost"] = json!({ "paid": 0.5, "allOnDemand": 0.82, "saved": 0.32, "fallbacks": 0.06 });
    let answer = json!({ "items": [
        { "pool": "batch", "total": unpriced, "days": [] },
        { "pool": "web", "countedAt": "2026-01-02T12:00:00Z", "total": hours, "days": [first, second] },
    ] });
    let api = Stub::answering(move |_| (200, answer.to_string()));
    let url = api.url();
    let rows = |arguments: &[&str]| {
        let told = text(&spot_guard(&[&["savings", "--api", url.as_str()][..], arguments].concat()));
        let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        told.lines().skip(1).map(row).collect::<Vec<Vec<String>>>()
    };
    let all = rows(&[]);
    assert_eq!(all[0], ["batch", "0", "0.0", "0.0", "0.0", "-", "-", "-"]);
    assert_eq!(all[1], ["web", "2", "20.0", "3.2", "1.0", "1.10", "2.33", "1.23"]);
    let by_day = rows(&["--by-day"]);
    assert_eq!(by_day.len(), 3, "{by_day:?}");
    assert_eq!(by_day[0], ["batch", "-", "0.0", "0.0", "0.0", "-", "-", "-"]);
    assert_eq!(by_day[1], ["web", "2026-01-01", "15.0", "0.0", "0.0", "-", "-", "-"]);
    assert_eq!(by_day[2], ["web", "2026-01-02", "5.0", "3.2", "1.0", "0.50", "0.82", "0.32"]);
}

#[test]
fn what_is_no_api_is_named_with_its_address() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let web_server = Stub::answering(|_| (200, "<html>".to_owned()));
    let broken = Stub::answering(|_| (503, "no leader".to_owned()));
    let other = Stub::answering(|_| (200, "{}".to_owned()));
    for (url, words) in [
        (format!("http://{port}"), "does not answer"),
        (web_server.url(), "does not answer with JSON"),
        (broken.url(), "answers 503 Service Unavailable: no leader"),
        (other.url(), "of another version"),
        ("not a url".to_owned(), "not a url"),
    ] {
        let output = spot_guard(&["status", "--api", &url]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with("error: ") && told.contains(words), "{told}");
        assert!(output.stdout.is_empty());
    }
}
