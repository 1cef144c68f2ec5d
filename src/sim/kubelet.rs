//! Stands in for the kubelets of simulated instances on a real Kubernetes API: their heartbeats, and pods
//! that run and end. Only nodes that carry the demo's label are touched.

use crate::clock::Clock;
use crate::sim::nodes::{DEMO_LABEL, conditions};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often pods are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a pod takes to be ready, at least.
const POD_START: Duration = Duration::from_secs(2);
/// A node whose kubelet is silent for 40 s is not Ready any more (node-monitor-grace-period).
const HEARTBEAT_EVERY: u32 = 10;
/// Requests at the same time.
const PARALLEL: usize = 16;

/// Plays the kubelets until dropped.
pub async fn run(client: Client) {
    for turn in 0_u32.. {
        if let Err(error) = look(&client, turn.is_multiple_of(HEARTBEAT_EVERY)).await {
            tracing::warn!(%error, "the simulated kubelets missed a turn");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(client: &Client, heartbeat: bool) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let own = nodes.list(&ListParams::default().labels(DEMO_LABEL)).await?.items;
    if heartbeat {
        for node in own.iter().filter(|node| is_ready(node)) {
            let status = json!({ "status": { "conditions": conditions(true) } });
            nodes.patch_status(&node.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await?;
        }
    }
    let names: BTreeSet<String> = own.iter().map(ResourceExt::name_any).collect();
    let pods: Api<Pod> = Api::all(client.clone());
    let found = pods.list(&ListParams::default()).await?.items;
    let on_own = found.into_iter().filter(|pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some_and(|node| names.contains(node))
    });
    futures::stream::iter(on_own)
        .for_each_concurrent(PARALLEL, |pod| async move {
            if let Err(error) = play(client, &pod).await {
                tracing::debug!(pod = pod.name_any(), %error, "the pod changed meanwhile");
            }
        })
        .await;
    Ok(())
}

async fn play(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteParams::default().grace_period(0);
        return api.delete(&pod.name_any(), &now).await.map(drop);
    }
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    if pod_is_ready(pod) || spot_guard_core::time::since(created, Clock::System.now()) < POD_START {
        return Ok(());
    }
    let now = Clock::System.now();
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let statuses: Vec<_> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": true,
                "restartCount": 0, "state": { "running": { "startedAt": now } },
            })
        })
        .collect();
    let met = |type_: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": now });
    let status = json!({ "status": {
        "phase": "Running",
        "startTime": now,
        "conditions": [met("Initialized"), met("ContainersReady"), met("Ready")],
        "containerStatuses": statuses,
    } });
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await.map(drop)
}

pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|found| found.type_ == "Ready" && found.status == "True"))
}

/// Whether a pod runs and is ready.
#[must_use]
pub fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|found| found.type_ == "Ready" && found.status == "True"))
}
