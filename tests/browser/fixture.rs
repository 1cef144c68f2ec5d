//! The real API and the dashboard of a replica that knows what a test says: no controller, no cloud.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use spot_guard::actors::last_readings::LastReadings;
use spot_guard::clock::Clock;
use spot_guard::crd::{NodeReplacement, SpotAction, SpotPool};
use spot_guard::http::{ApiState, Door, SpotActions, serve};
use spot_guard::telemetry::metrics::Metrics;
use spot_guard::telemetry::readiness::Readiness;
use spot_guard_core::cluster::{Parts, Snapshot};
use spot_guard_core::policy::Policy;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// What a replica knows.
#[derive(Default)]
pub struct Known {
    pub pools: Vec<SpotPool>,
    pub replacements: Vec<NodeReplacement>,
    pub spot_actions: Vec<SpotAction>,
    pub cluster: Parts,
}

/// A server that answers until it is dropped.
pub struct Fixture {
    pub url: String,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Fixture {
    pub fn serving(known: Known) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (sender, handle) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                // While it lives, streams of events stay open.
                let changes = watch::Sender::new(0);
                let server = serve(listener, Door::Local, state(known, &changes)).expect("a server");
                sender.send(server.handle()).expect("the test waits");
                server.await.expect("the server ends well");
            });
        });
        Self { url, handle: handle.recv().expect("a server"), thread: Some(thread) }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Streams are open as long as the page is: nobody waits for them.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server ends");
        }
    }
}

fn state(known: Known, changes: &watch::Sender<u64>) -> ApiState {
    let nobody = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
    let nobody = kube::Client::try_from(nobody).expect("a client");
    let last_readings = LastReadings::default();
    known.pools.iter().for_each(|pool| last_readings.read(&pool.name_any().into(), ago(12)));
    let snapshot = Arc::new(Snapshot::new(known.cluster));
    ApiState {
        pools: store(known.pools),
        replacements: store(known.replacements),
        notices: store(Vec::new()),
        stale: Arc::new(Vec::new),
        snapshot: Arc::new(move || snapshot.clone()),
        spot_action_store: store(known.spot_actions),
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
        holder: watch::channel(Some("spot-guard-0".to_owned())).1,
        last_readings,
        cluster_name: Some("production".to_owned()),
        changes: changes.subscribe(),
        history: Arc::default(),
        streams: spot_guard::http::streams(),
        version: "1.2.3",
    }
}

fn store<K>(objects: Vec<K>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (reader, mut writer) = reflector::store();
    objects.into_iter().for_each(|object| writer.apply_watcher_event(&Event::Apply(object)));
    reader
}

/// So many seconds ago; in the future, if it is less than nothing.
pub fn ago(seconds: i64) -> Timestamp {
    Clock::System.now() - SignedDuration::from_secs(seconds)
}

/// The same pool with prices, and an account of two days in UTC: 20 and 10 hours of Spot, 2 and 4 hours of
/// fallbacks.
pub fn with_account(mut pool: SpotPool) -> SpotPool {
    let day = |seconds: i64, spot: u32, fallbacks: u32| {
        let day = &ago(seconds).to_string()[..10];
        json!({ "day": day, "spot": spot * 3600, "onDemand": fallbacks * 3600, "fallbacks": fallbacks * 3600 })
    };
    let total = json!({ "spot": 108_000, "onDemand": 21_600, "fallbacks": 21_600 });
    let account = json!({ "countedAt": ago(0), "total": total, "days": [day(86_400, 20, 2), day(0, 10, 4)] });
    let prices = json!({ "spot": "0.10", "onDemand": "0.35" });
    pool.spec.hourly_prices = Some(serde_json::from_value(prices).expect("prices"));
    let status = pool.status.as_mut().expect("a status");
    status.node_account = Some(serde_json::from_value(account).expect("an account"));
    pool
}

/// A pool whose Spot group has so many of the instances that it wants.
pub fn pool(name: &str, in_service: i32, desired: i32) -> SpotPool {
    let group = |desired: i32, in_service: i32| {
        let summary = format!("{in_service}/{desired}");
        json!({ "desired": desired, "inService": in_service, "min": 0, "max": 99, "summary": summary })
    };
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": ago(600),
    });
    let object = json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotPool", "metadata": { "name": name },
        "spec": { "spotGroup": format!("{name}-spot"), "onDemandGroup": format!("{name}-on-demand") },
        "status": { "spot": group(desired, in_service), "onDemand": group(1, 1), "conditions": [ready] },
    });
    serde_json::from_value(object).expect("a pool")
}

/// The record of a replacement of the pool.
pub fn replacement(name: &str, pool: &str, status: &Value) -> NodeReplacement {
    let spec = json!({ "pool": pool, "nodeName": format!("node-of-{name}"), "instanceId": name });
    let record = json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "NodeReplacement",
        "metadata": { "name": name }, "spec": spec, "status": status,
    });
    serde_json::from_value(record).expect("a record")
}

/// The status of a replacement whose on-demand instance stands in for so many seconds.
pub fn on_fallback(name: &str, seconds: i64) -> Value {
    let step = |number: &str, outcome: &str, at: i64| {
        let node = format!("node-of-{name}");
        json!({ "box": number, "at": ago(at), "outcome": outcome, "node": node, "message": "a step" })
    };
    json!({
        "phase": "OnFallback",
        "startedAt": ago(seconds + 100),
        "fallback": { "onFallback": {} },
        "oldNode": { "gone": {} },
        "capacity": { "taken": {
            "instance": {
                "group": "OnDemand", "instanceId": format!("{name}d"), "nodeName": format!("node-{name}d"),
                "readyAt": ago(seconds),
            },
            "onDemandRequested": true,
        } },
        "steps": [
            step("1", "NoticeReceived", seconds + 100), step("2", "Requested", seconds + 98),
            step("3", "NoCapacity", seconds + 90), step("3.2", "Requested", seconds + 88),
            step("3.2", "InService", seconds), step("4", "Tainted", seconds - 1),
            step("5", "Drained", seconds - 30),
        ],
    })
}
