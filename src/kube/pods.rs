//! Evictions and deletions of exactly the pod that was meant: its UID is a precondition. And the pods of one node, as
//! the API server lists them.

use crate::core::cluster::Pod;
use crate::core::drain::{EvictionAnswer, Listed, ListedPod};
use crate::kube::problem::RequestProblem;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::{Request, Status};
use kube::{Client, Error};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

/// Asks the eviction API.
///
/// The request is made here: kube's `Api::evict` writes the options under a name that the server ignores, and
/// the precondition would be lost.
pub async fn evict(client: &Client, pod: &Pod, limit: Duration) -> EvictionAnswer {
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": &*pod.name, "namespace": &*pod.namespace },
        "deleteOptions": { "preconditions": { "uid": &*pod.uid } },
    });
    let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(eviction.to_string().into_bytes())
        .map_err(|error| Error::Service(error.into()));
    let send = async { client.request::<Value>(request?).await.map(drop) };
    answer(timeout(limit, send).await)
}

/// Deletes past the budgets, with this grace period in seconds.
pub async fn delete(client: &Client, pod: &Pod, grace: i64, limit: Duration) -> EvictionAnswer {
    let params = exactly(pod).grace_period(u32::try_from(grace).unwrap_or(0));
    let path = format!("/api/v1/namespaces/{}/pods", pod.namespace);
    // The answer may be the pod, whose fields need not be readable.
    let request = Request::new(path).delete(&pod.name, &params).map_err(Error::BuildRequest);
    let send = async { client.request::<Value>(request?).await.map(drop) };
    answer(timeout(limit, send).await)
}

fn exactly(pod: &Pod) -> DeleteParams {
    let uid = Preconditions { uid: Some(pod.uid.to_string()), ..Preconditions::default() };
    DeleteParams::default().preconditions(uid)
}

fn answer(result: Result<Result<(), Error>, tokio::time::error::Elapsed>) -> EvictionAnswer {
    match result {
        Ok(Ok(())) => EvictionAnswer::Evicted,
        Ok(Err(Error::Api(status))) => refusal(&status),
        Ok(Err(error)) => EvictionAnswer::Failed { status: 0, message: error.to_string() },
        Err(_) => EvictionAnswer::Failed { status: 0, message: "no answer in time".to_owned() },
    }
}

/// Rules: pkg/registry/core/pod/storage/eviction.go. A 429 comes from a budget or from a rate limit; its
/// cause tells.
fn refusal(status: &Status) -> EvictionAnswer {
    let details = status.details.as_ref();
    let retry_after = details
        .map(|details| details.retry_after_seconds)
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(u64::from(seconds)));
    let by_budget =
        details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "DisruptionBudget"));
    match status.code {
        404 => EvictionAnswer::Gone,
        429 if by_budget => EvictionAnswer::BudgetExhausted { retry_after },
        429 => EvictionAnswer::RateLimited { retry_after },
        500 if status.message.contains("more than one PodDisruptionBudget") => EvictionAnswer::SeveralBudgets,
        403 => EvictionAnswer::Forbidden { message: status.message.clone() },
        // A precondition that failed: another pod has the name now.
        409 if status.message.contains("Precondition failed") || status.message.contains("UID") => {
            EvictionAnswer::Gone
        }
        409 => EvictionAnswer::Conflict,
        code => EvictionAnswer::Failed { status: code, message: status.message.clone() },
    }
}

/// How many pods of a node are listed at a time: one pod may be of more than a megabyte.
const PAGE: u32 = 25;
/// No node has so many pages of pods: a list that does not end is given up.
const MAX_PAGES: usize = 100;

/// A pod, only with what tells whether its node may go. All times are texts, so that none makes the list unreadable.
#[derive(Deserialize)]
struct SlimPod {
    #[serde(default)]
    metadata: SlimMeta,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimMeta {
    name: String,
    namespace: String,
    uid: String,
    deletion_timestamp: Option<String>,
    annotations: Option<HashMap<String, IgnoredAny>>,
    owner_references: Option<Vec<SlimOwner>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    phase: Option<String>,
}

#[derive(Deserialize)]
struct SlimOwner {
    #[serde(default)]
    kind: String,
    controller: Option<bool>,
}

#[derive(Deserialize)]
struct SlimList {
    #[serde(default)]
    metadata: SlimListMeta,
    items: Option<Vec<SlimPod>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SlimListMeta {
    #[serde(rename = "continue")]
    continued: Option<String>,
}

impl From<SlimPod> for Listed {
    fn from(pod: SlimPod) -> Self {
        let SlimPod { metadata: meta, status } = pod;
        let deletion = match meta.deletion_timestamp.map(|time| time.parse()) {
            None => None,
            Some(Ok(due)) => Some(due),
            Some(Err(_)) => return Self::Unreadable,
        };
        if meta.uid.is_empty() {
            return Self::Unreadable;
        }
        let mirror = meta.annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let of_node =
            mirror || controller.is_some_and(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"));
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let SlimMeta { namespace, name, uid, .. } = meta;
        Self::Pod(ListedPod { namespace, name, uid, of_node, finished, deletion })
    }
}

/// The pods that are bound to a node, from the API server itself and not from a watch, in pages.
///
/// # Errors
/// Why there was no complete answer within `limit`, in plain words.
pub async fn listed_on(client: &Client, node: &str, limit: Duration) -> Result<Vec<Listed>, String> {
    let mut params = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(PAGE);
    let list = async {
        let mut pods = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = Request::new("/api/v1/pods")
                .list(&params)
                .map_err(|_| "the request cannot be made".to_owned())?;
            let page: SlimList =
                client.request(request).await.map_err(|error| RequestProblem(&error).to_string())?;
            pods.extend(page.items.into_iter().flatten().map(Listed::from));
            params.continue_token = page.metadata.continued.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(pods);
            }
        }
        Err("the list does not end".to_owned())
    };
    timeout(limit, list).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(pod: Value) -> Listed {
        serde_json::from_value::<SlimPod>(pod).expect("a pod").into()
    }

    #[test]
    fn a_pod_is_read_by_what_decides_and_one_that_cannot_be_read_is_there() {
        let now = "2026-01-01T03:00:00Z".parse().expect("a time");
        let owned = |kind: &str, controller: bool| json!([{ "kind": kind, "controller": controller }]);
        let meta = |field: &str, value: Value| json!({ "metadata": { "uid": "u", field: value } });
        for (pod, holds) in [
            (json!({ "metadata": { "uid": "u" }, "status": { "phase": "Running" } }), true),
            (json!({ "metadata": { "uid": "u" }, "status": { "phase": "Succeeded" } }), false),
            (json!({ "metadata": { "uid": "u" }, "status": { "phase": "Failed" } }), false),
            (meta("ownerReferences", owned("DaemonSet", true)), false),
            (meta("ownerReferences", owned("DaemonSet", false)), true),
            (meta("ownerReferences", owned("ReplicaSet", true)), true),
            (meta("annotations", json!({ "kubernetes.io/config.mirror": "x" })), false),
            (meta("annotations", Value::Null), true),
            (meta("deletionTimestamp", json!("2026-01-01T02:59:40Z")), true),
            (meta("deletionTimestamp", json!("2026-01-01T02:59:20Z")), false),
            (meta("deletionTimestamp", json!("9999-12-31T23:59:59Z")), true),
            (meta("managedFields", json!([{ "time": "99999-01-01T00:00:00Z" }])), true),
            (json!({ "metadata": {}, "status": {} }), true),
        ] {
            assert_eq!(listed(pod.clone()).holds_its_node(now), holds, "{pod}");
        }
    }
}
