//! Logs hold no objects, bodies, tokens or secrets: the real processes on a real API server, with a marker in
//! every kind of object and request, and everything that they print is searched for it.

use crate::helpers::{object, wait_for};
use crate::process::{LOOPBACK, free_port};
use crate::product::{self, PATIENCE, WEBHOOK, kubectl};
use crate::testbed::{Options, Testbed};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard::crd::{NodeReplacement, SpotPool, SpotPoolSpec};
use spot_guard::sim::nodes::KubeNodes;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, Market};
use spot_guard_core::policy::PolicySpec;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// What no line may hold; the key for AWS holds it, too.
const SECRET: &str = "hunter2";
/// The namespace of a tenant.
const TENANT: &str = "tenant";

fn meta(name: &str) -> Value {
    json!({ "name": name, "annotations": { "example.com/token": SECRET }, "labels": { "token": SECRET } })
}

/// An entry that the API server takes and that a type with a real clock cannot hold.
fn unreadable() -> Value {
    json!([{ "manager": "somebody", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59Z",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": {} } } }])
}

/// A pod that never gets a node, with the marker in its environment.
fn pod(name: &str) -> Value {
    json!({
        "metadata": meta(name),
        "spec": {
            "nodeSelector": { "example.com/no": "node" },
            "containers": [{ "name": "main", "image": "example.invalid/main",
                "env": [{ "name": "TOKEN", "value": SECRET }] }],
        },
    })
}

async fn plant(client: &Client) {
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&create, &object(json!({ "metadata": meta(TENANT) }))).await.expect("a namespace");
    let pods: Api<Pod> = Api::namespaced(client.clone(), TENANT);
    wait_for("the account of the namespace", PATIENCE, async || {
        pods.create(&create, &object(pod("plain"))).await.ok()
    })
    .await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), TENANT);
    let claim = json!({ "metadata": meta("data"), "spec": { "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } } } });
    claims.create(&create, &object(claim)).await.expect("a claim");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), TENANT);
    let budget = json!({ "metadata": meta("budget"),
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "token": SECRET } } } });
    budgets.create(&create, &object(budget)).await.expect("a budget");
}

/// Creates the pod as it is written: our types could not hold it.
async fn create_unreadable_pod(client: &Client) {
    let mut pod = pod("unreadable");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["managedFields"] = unreadable();
    let request = http::Request::post(format!("/api/v1/namespaces/{TENANT}/pods"))
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes())
        .expect("a request");
    client.request_text(request).await.expect("the API server takes it");
}

/// A metadata service whose token and answers hold the marker, and are none.
fn start_metadata() -> (String, actix_web::dev::ServerHandle) {
    let answer = |request: HttpRequest| {
        let mut answer = HttpResponse::Ok();
        if request.path() == "/latest/api/token" {
            answer.insert_header(("x-aws-ec2-metadata-token-ttl-seconds", "21600"));
        }
        std::future::ready(answer.body(format!("{SECRET} {}", request.path())))
    };
    let server = HttpServer::new(move || App::new().default_service(web::to(answer)))
        .workers(1)
        .disable_signals()
        .bind((LOOPBACK, 0))
        .expect("a port");
    let url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix::spawn(server);
    (url, handle)
}

/// Sends a request as it is written, and waits for an answer or the end of the connection.
async fn send(address: SocketAddr, request: String) {
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        stream.read(&mut [0; 1024])
    });
    // Whatever it answers: what it logs counts.
    let _ = exchange.await.expect("it is sent");
}

/// Requests that hold the marker wherever one can hold something.
async fn ask(address: SocketAddr) {
    let body = format!("{{\"node\": \"{SECRET}\", \"reason\": 5}}");
    let length = body.len();
    for (line, headers) in [
        ("GET /api/v1/pools", format!("Authorization: Bearer {SECRET}\r\n")),
        ("GET /api/v1/pools?token=hunter2", format!("Cookie: session={SECRET}\r\n")),
        ("POST /api/v1/nodes/hunter2/replace", format!("Authorization: Bearer {SECRET}\r\n")),
        (
            "POST /webhooks/v1/scale-down",
            format!("webhook-id: {SECRET}\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,{SECRET}\r\n"),
        ),
        ("GET /api/v1/pools", format!("Authorization: Basic {SECRET}\r\nX-Bad: {SECRET}\u{1}\r\n")),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
        send(
            address,
            format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
        )
        .await;
    }
}

fn group(name: &str, market: Market, desired: u32) -> GroupSpec {
    let boot = BootTimes {
        launch: Duration::from_secs(1),
        node_join: Duration::from_secs(1),
        node_ready: Duration::from_millis(500),
    };
    GroupSpec { zones: vec!["us-east-1a".to_owned()], desired, boot, ..GroupSpec::new(name, market) }
}

#[actix::test]
async fn logs_hold_no_objects_bodies_tokens_or_secrets() {
    let options = Options { pod_ready_delay: Duration::ZERO, ..Options::default() };
    let testbed = Testbed::start_with("logs", options).await;
    product::install(&testbed).await;
    let client = testbed.client();
    let cloud = Cloud::new(CloudClock::System, 1);
    let running = actix::spawn(cloud.clone().run(Arc::new(KubeNodes::new(
        client.clone(),
        Arc::new(drop),
        Clock::System,
    ))));
    cloud.add_group(group("workers-spot", Market::Spot, 2));
    cloud.add_group(group("workers-on-demand", Market::OnDemand, 0));
    let autoscaling = cloud
        .serve_autoscaling(TcpListener::bind((LOOPBACK, 0)).expect("a port"))
        .expect("the cloud answers");
    let policy = PolicySpec { min_node_age_seconds: Some(0), ..PolicySpec::default() };
    let spec = SpotPoolSpec {
        spot_group: "workers-spot".into(),
        on_demand_group: "workers-on-demand".into(),
        policy,
        ..SpotPoolSpec::default()
    };
    let pools: Api<SpotPool> = Api::all(client.clone());
    pools.create(&PostParams::default(), &SpotPool::new("workers", spec)).await.expect("a pool");
    plant(&client).await;

    // Nobody takes notifications there.
    let url = format!("http://{LOOPBACK}:{}/{SECRET}", free_port());
    fs::write(testbed.dir().join(WEBHOOK), url).expect("the URL is written");
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.becomes_ready().await;
    controller.leads().await;
    ask(controller.main).await;

    let instances = cloud.group("workers-spot").expect("the group").instances;
    let nodes: Api<Node> = Api::all(client.clone());
    wait_for("the nodes", PATIENCE, async || {
        (nodes.list(&ListParams::default()).await.ok()?.items.len() >= instances.len()).then_some(())
    })
    .await;
    for instance in &instances {
        kubectl(&testbed, &["annotate", "node", &instance.node_name, &format!("example.com/token={SECRET}")]);
    }

    // One agent reports; the metadata of the other one are none.
    let imds = cloud
        .serve_imds(&instances[0].id, TcpListener::bind((LOOPBACK, 0)).expect("a port"))
        .expect("the metadata service answers");
    let agent = product::start_agent_named(&testbed, "agent", &instances[0].node_name, &imds.url()).await;
    let (metadata, metadata_server) = start_metadata();
    let mut other =
        product::start_agent_named(&testbed, "other-agent", &instances[1].node_name, &metadata).await;
    other.is_not_ready_because("imds").await;

    create_unreadable_pod(&client).await;
    let patch = json!({ "metadata": { "managedFields": unreadable() } }).to_string();
    kubectl(&testbed, &["patch", "node", &instances[0].node_name, "--type=merge", "-p", &patch]);
    cloud.rebalance(&instances[0].id).expect("the instance");
    let records: Api<NodeReplacement> = Api::all(client.clone());
    wait_for("the story", PATIENCE, async || {
        records
            .get_opt(&instances[0].id)
            .await
            .ok()
            .flatten()?
            .status
            .filter(|status| !status.steps.is_empty())
    })
    .await;
    wait_for("the notification to be lost", PATIENCE, async || {
        controller.process.log().contains("a notification was not delivered").then_some(())
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), TENANT);
    pods.delete("plain", &DeleteParams::default()).await.expect("it is deleted");

    for (name, process) in
        [("controller", &controller.process), ("agent", &agent.process), ("other-agent", &other.process)]
    {
        let log = process.log();
        assert!(!log.is_empty(), "{name} logs");
        let shown: Vec<&str> = log.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(shown.is_empty(), "{} lines of {name} show it, the first: {:.600}", shown.len(), shown[0]);
    }
    metadata_server.stop(false).await;
    imds.stop().await;
    autoscaling.stop().await;
    running.abort();
}
