//! The description of the HTTP API: printed, and tried by schemathesis against a server that has something to
//! tell.

use crate::spot_guard;
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, NodeReplacement, SpotPool};
use spot_guard::http::{ApiState, Door, Reviews, serve};
use spot_guard::kube::view::View;
use spot_guard::telemetry::liveness::Liveness;
use spot_guard::telemetry::metrics::Metrics;
use spot_guard::telemetry::readiness::Readiness;
use spot_guard_cloud::cluster::{Cluster, Identity, NodeSpec};
use spot_guard_core::policy::Policy;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// Of an object of each kind.
const NAME: &str = "i-0000000000000000b";
/// The name of its notice.
const NOTICE: &str = "i-0000000000000000b.i-0000000000000000b-spot-interruption";

fn committed() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    std::fs::read_to_string(path).expect("the committed description")
}

#[test]
fn it_is_printed() {
    let output = spot_guard(&["openapi"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout) == committed(), "docs/openapi.json is another one");
}

/// A server whose main door stands before a simulated cluster.
struct Server {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let (cluster, view, state) = world().await;
                let reviews = Arc::new(Reviews::new(cluster.client(), state.metrics.clone()));
                let server = serve(listener, Door::Main { reviews, tls: None }, state).expect("a server");
                let handle = server.handle();
                let running = actix_web::rt::spawn(server);
                ready.send(()).expect("the test waits");
                let _ = ended.await;
                handle.stop(true).await;
                running.await.expect("it is not broken off").expect("the server ends well");
                drop(view);
            });
        });
        is_ready.recv().expect("a server");
        Self { address, end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server ends");
        }
    }
}

/// One object of each kind, all of one name.
async fn world() -> (Cluster, View, ApiState) {
    let cluster = Cluster::new(Clock::System.into(), 1);
    actix_web::rt::spawn(cluster.clone().run());
    cluster.add_token("operator", Identity { user: "operator".to_owned(), ..Identity::default() });
    cluster.add_node(&NodeSpec::new(NAME, &format!("aws:///eu-west-1a/{NAME}"), "eu-west-1a"));
    let now = Clock::System.now();
    let client = cluster.client();
    let create = kube::api::PostParams::default();
    let pool: SpotPool = serde_json::from_value(json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotPool", "metadata": { "name": NAME },
        "spec": { "spotGroup": "spot", "onDemandGroup": "on-demand" },
    }))
    .expect("a pool");
    kube::Api::all(client.clone()).create(&create, &pool).await.expect("a pool");
    let notice: InterruptionNotice = serde_json::from_value(json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "InterruptionNotice", "metadata": { "name": NOTICE },
        "spec": { "nodeName": NAME, "instanceId": NAME, "kind": "SpotInterruption", "detectedAt": now },
    }))
    .expect("a notice");
    kube::Api::all(client.clone()).create(&create, &notice).await.expect("a notice");
    let record: NodeReplacement = serde_json::from_value(json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "NodeReplacement", "metadata": { "name": NAME },
        "spec": { "pool": NAME, "nodeName": "node-old", "instanceId": NAME },
    }))
    .expect("a record");
    let records = kube::Api::<NodeReplacement>::all(client.clone());
    records.create(&create, &record).await.expect("a record");
    let status = json!({ "status": {
        "phase": "OnFallback", "fallback": { "onFallback": {} }, "oldNode": { "gone": {} }, "startedAt": now,
        "capacity": { "taken": {
            "instance": { "group": "OnDemand", "instanceId": NAME, "nodeName": NAME, "readyAt": now },
            "onDemandRequested": true,
        } },
        "blocking": [{ "box": "9", "reason": "PodDoesNotFit", "message": "no room", "since": now }],
        "steps": [{ "box": "1", "at": now, "outcome": "NoticeReceived", "node": "node-old", "message": "a notice" }],
    } });
    let patch = kube::api::Patch::Merge(&status);
    records.patch_status(NAME, &kube::api::PatchParams::default(), &patch).await.expect("a status");
    let readiness = Readiness::default();
    let view = View::start(&client, "spot-guard", &readiness, &Arc::default(), Clock::System);
    view.synced().await;
    let metrics = Arc::new(Metrics::new());
    let liveness = Liveness::of_this_thread();
    let state =
        ApiState::of(&view, client, liveness, readiness, metrics, Policy::default(), "example.org/taint");
    (cluster, view, state)
}

/// Where `testbed/schemathesis` has installed it; it tells if it could not.
fn packages() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/schemathesis");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().expect("testbed/schemathesis runs");
    assert!(output.status.success(), "{} failed: {}", script.display(), output.status);
    let stdout = String::from_utf8(output.stdout).expect("testbed/schemathesis prints a path");
    stdout.lines().last().map(str::to_owned)
}

#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    let Some(packages) = packages() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    // Names that nobody has would only ever be answered with 404.
    let mut document: Value = serde_json::from_str(&committed()).expect("JSON");
    document["components"]["parameters"]["name"]["schema"] =
        json!({ "type": "string", "enum": [NAME, NOTICE, "nobody"] });
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("a file");
    let server = Server::start();
    let began = Instant::now();
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance";
    let output = Command::new("python3")
        .args(["-m", "schemathesis.cli", "--no-color", "run"])
        .arg(&file)
        .args(["--url", &format!("http://{}", server.address), "--header", "Authorization: Bearer operator"])
        // A stream has no end.
        .args(["--exclude-path", "/api/v1/events", "--checks", checks, "--phases", "coverage,fuzzing"])
        // The cases are made from the description, the same each time.
        .args(["--max-examples", "25", "--seed", "1", "--request-timeout", "30"])
        .args(["--generation-database", "none", "--warnings", "off"])
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .current_dir(folder.path())
        .output()
        .expect("schemathesis runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let operations = document["paths"].as_object().expect("paths").values();
    let operations: usize = operations.map(|path| path.as_object().map_or(0, |methods| methods.len())).sum();
    let all = format!("Tested: {}\n", operations - 1);
    assert!(told.contains(&all), "{all}{told}");
    println!("{all}in {:?}", began.elapsed());
}
