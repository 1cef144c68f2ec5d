//! What the cluster tests have in common.

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::time::Instant;

/// Waits until `check` has an answer, and panics with `what` if that takes longer than `timeout`.
///
/// A check that is under way when the time is over is given up.
pub async fn wait_for<T>(what: &str, timeout: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let polling = async {
        loop {
            if let Some(answer) = check().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(timeout, polling).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {:.1} s for {what}", started.elapsed().as_secs_f64()),
    }
}

/// A node to create, as the kubelet of an instance would register it.
pub struct NodeSpec<'a> {
    pub name: &'a str,
    /// `aws:///<zone>/<instance id>`
    pub provider_id: &'a str,
    pub zone: &'a str,
    /// Beside those of name, zone and region.
    pub labels: &'a [(&'a str, &'a str)],
    pub cpu: &'a str,
    pub memory: &'a str,
    pub pods: u32,
}

impl Default for NodeSpec<'_> {
    fn default() -> Self {
        Self {
            name: "",
            provider_id: "",
            zone: "us-east-1a",
            labels: &[],
            cpu: "4",
            memory: "16Gi",
            pods: 58,
        }
    }
}

/// Creates a node, which KWOK runs, and returns it when it is Ready.
pub async fn create_node(client: &Client, spec: &NodeSpec<'_>) -> Node {
    let region = spec.zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let mut labels: BTreeMap<&str, &str> = spec.labels.iter().copied().collect();
    labels.insert("kubernetes.io/hostname", spec.name);
    labels.insert("kubernetes.io/os", "linux");
    labels.insert("kubernetes.io/arch", "amd64");
    labels.insert("topology.kubernetes.io/zone", spec.zone);
    labels.insert("topology.kubernetes.io/region", region);
    let resources = json!({ "cpu": spec.cpu, "memory": spec.memory, "pods": spec.pods.to_string() });
    let node = object(json!({
        "metadata": { "name": spec.name, "labels": labels },
        "spec": { "providerID": spec.provider_id },
        "status": { "capacity": resources, "allocatable": resources },
    }));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .create(&PostParams::default(), &node)
        .await
        .unwrap_or_else(|error| panic!("cannot create node {}: {error}", spec.name));
    wait_for(&format!("node {} to be Ready", spec.name), Duration::from_secs(30), async || {
        // Ready for the scheduler too: it goes by the taints that follow the condition.
        nodes.get(spec.name).await.ok().filter(|node| is_ready(node) && !has_not_ready_taint(node))
    })
    .await
}

/// Whether the node's condition Ready is True.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_not_ready_taint(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready")
}

/// A deployment to create, whose pods carry the label `app` with its name.
pub struct DeploymentSpec<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub replicas: i32,
    /// What each pod requests.
    pub cpu: &'a str,
    pub memory: &'a str,
    /// With it a PodDisruptionBudget of the same name is created.
    pub pdb_min_available: Option<i32>,
    /// Of each pod; see `testbed/stages.yaml` for what KWOK makes of them.
    pub annotations: &'a [(&'a str, &'a str)],
}

impl Default for DeploymentSpec<'_> {
    fn default() -> Self {
        Self {
            namespace: "default",
            name: "",
            replicas: 1,
            cpu: "100m",
            memory: "64Mi",
            pdb_min_available: None,
            annotations: &[],
        }
    }
}

/// Creates a deployment, and its PodDisruptionBudget if it has one. It does not wait for the pods.
pub async fn create_deployment(client: &Client, spec: &DeploymentSpec<'_>) {
    let labels = json!({ "app": spec.name });
    let annotations: BTreeMap<&str, &str> = spec.annotations.iter().copied().collect();
    if let Some(min_available) = spec.pdb_min_available {
        let budget = object(json!({
            "metadata": { "name": spec.name },
            "spec": { "minAvailable": min_available, "selector": { "matchLabels": labels } },
        }));
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), spec.namespace);
        budgets
            .create(&PostParams::default(), &budget)
            .await
            .unwrap_or_else(|error| panic!("cannot create the budget of {}: {error}", spec.name));
    }
    let deployment = object(json!({
        "metadata": { "name": spec.name },
        "spec": {
            "replicas": spec.replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels, "annotations": annotations },
                "spec": { "containers": [{
                    "name": "main",
                    "image": "example.invalid/main",
                    "resources": { "requests": { "cpu": spec.cpu, "memory": spec.memory } },
                }] },
            },
        },
    }));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), spec.namespace);
    deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap_or_else(|error| panic!("cannot create deployment {}: {error}", spec.name));
}

/// The pods of a deployment that are there to stay, when exactly `count` of them are Running and Ready.
pub async fn running_pods(client: &Client, namespace: &str, deployment: &str, count: usize) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("app={deployment}"));
    wait_for(&format!("{count} running pods of {deployment}"), Duration::from_secs(60), async || {
        let mut found = pods.list(&selector).await.ok()?.items;
        found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        (found.len() == count && found.iter().all(is_running)).then_some(found)
    })
    .await
}

fn is_running(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    status.phase.as_deref() == Some("Running")
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// An object written as the YAML of a manifest would have it.
pub fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

/// The answer to an HTTP request.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
}

/// One plain HTTP request on its own connection: enough for a mock, and no client's manners (retries,
/// redirects, proxies) between a test and what it asks.
pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<HttpAnswer> {
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let exchange = tokio::task::spawn_blocking(move || -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = exchange.await.context("the request was interrupted")??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("no HTTP answer: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| anyhow!("no HTTP status: {head}"))?;
    Ok(HttpAnswer { status, body: body.to_owned() })
}
