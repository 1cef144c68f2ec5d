//! The marks of Spot Guard on a node: taint, cordon, and the label that takes it out of load balancers.
//!
//! Only what Spot Guard set is ever taken off: a node that somebody else had cordoned stays cordoned.

use k8s_openapi::api::core::v1 as core_v1;
use kube::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use spot_guard_core::cluster::Node;
use std::collections::BTreeMap;

/// Says that the cordon is ours.
pub const CORDONED_BY: &str = "spotguard.dev/cordoned";
/// Takes a node out of load balancers; unschedulable nodes stay in them since Kubernetes 1.19.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Keeps cluster-autoscaler from scaling a node down (its FAQ).
pub const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
/// Says that [`SCALE_DOWN_DISABLED`] is ours.
pub const PROTECTED_BY: &str = "spotguard.dev/scale-down-disabled";
/// The value by which our label is known.
const OWN: &str = "spot-guard";

/// Whether marks are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// No new pods, no new connections.
    On,
    /// As it was before.
    Off,
}

/// Whether the node carries all marks of a drain.
#[must_use]
pub fn are_set(node: &Node, taint_key: &str) -> bool {
    node.unschedulable && node.taints.iter().any(|taint| &*taint.key == taint_key)
}

/// Whether the node carries any mark of ours.
#[must_use]
pub fn any_set(node: &Node, taint_key: &str) -> bool {
    node.taints.iter().any(|taint| &*taint.key == taint_key) || node.labels.get(EXCLUDE_LABEL) == Some(OWN)
}

/// The same of an object as the API gives it.
#[must_use]
pub fn are_left_on(node: &core_v1::Node, taint_key: &str) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let annotations = node.metadata.annotations.as_ref();
    let label = node.metadata.labels.as_ref().and_then(|labels| labels.get(EXCLUDE_LABEL));
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == taint_key))
        || annotations.is_some_and(|annotations| annotations.contains_key(CORDONED_BY))
        || label.is_some_and(|value| value == OWN)
}

/// Sets taint, cordon and annotations or takes them off. Reads the node first and writes only if it has
/// not changed since. A node that is gone needs no marks, though another one may have its name by now.
///
/// # Errors
/// What the API answers.
pub async fn apply(client: &Client, node: &Node, taint_key: &str, marks: Marks) -> Result<(), kube::Error> {
    let Some(found) = read(client, node).await? else { return Ok(()) };
    match patch(&found, taint_key, marks) {
        Some(patch) => write(client, &node.name, &patch).await,
        None => Ok(()),
    }
}

/// Keeps cluster-autoscaler from scaling the node down, or lets it again. What somebody else set stays.
///
/// # Errors
/// What the API answers; a node that is gone needs no protection and is no error.
pub async fn protect(client: &Client, node: &Node, marks: Marks) -> Result<(), kube::Error> {
    let Some(found) = read(client, node).await? else { return Ok(()) };
    let has = |key: &str| found.metadata.annotations.contains_key(key);
    let value = match marks {
        Marks::On if !has(SCALE_DOWN_DISABLED) => json!("true"),
        Marks::Off if has(PROTECTED_BY) => Value::Null,
        Marks::On | Marks::Off => return Ok(()),
    };
    let patch = json!({
        "metadata": {
            "resourceVersion": found.metadata.resource_version,
            "annotations": { SCALE_DOWN_DISABLED: value, PROTECTED_BY: value },
        }
    });
    write(client, &node.name, &patch).await
}

/// What is read of a node to be marked: whatever else it carries must not keep it from being drained.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Marked {
    metadata: MarkedMeta,
    spec: MarkedSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MarkedMeta {
    uid: String,
    resource_version: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MarkedSpec {
    unschedulable: bool,
    /// Written back as they were read.
    taints: Vec<Value>,
}

fn path(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

/// The node as it is now; `None` if it is gone, whoever has its name.
async fn read(client: &Client, node: &Node) -> Result<Option<Marked>, kube::Error> {
    let request = http::Request::get(path(&node.name)).body(Vec::new());
    let request = request.map_err(|error| kube::Error::Service(error.into()))?;
    match client.request::<Marked>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        answer => answer.map(|found| Some(found).filter(|found| found.metadata.uid == *node.uid)),
    }
}

/// What is answered is the node as it is now; it is not read.
async fn write(client: &Client, name: &str, patch: &Value) -> Result<(), kube::Error> {
    let request = http::Request::patch(path(name))
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes());
    let request = request.map_err(|error| kube::Error::Service(error.into()))?;
    client.request_text(request).await.map(drop)
}

/// The patch that leads there; `None` if it is so already.
fn patch(node: &Marked, taint_key: &str, marks: Marks) -> Option<Value> {
    let label = node.metadata.labels.get(EXCLUDE_LABEL);
    let cordoned = node.spec.unschedulable;
    let own_cordon = node.metadata.annotations.contains_key(CORDONED_BY);
    let taints = &node.spec.taints;
    let mut kept: Vec<Value> = taints.iter().filter(|taint| taint["key"] != taint_key).cloned().collect();
    let had_taint = kept.len() < taints.len();
    let mut metadata = json!({ "resourceVersion": node.metadata.resource_version });
    let mut changes = json!({});
    match marks {
        Marks::On => {
            if had_taint && cordoned {
                return None;
            }
            kept.push(json!({ "key": taint_key, "effect": "NoSchedule" }));
            if label.is_none() {
                metadata["labels"] = json!({ EXCLUDE_LABEL: OWN });
            }
            if !cordoned {
                metadata["annotations"] = json!({ CORDONED_BY: "true" });
                changes["unschedulable"] = json!(true);
            }
        }
        Marks::Off => {
            if label.is_some_and(|value| value == OWN) {
                metadata["labels"] = json!({ EXCLUDE_LABEL: Value::Null });
            } else if !had_taint && !own_cordon {
                return None;
            }
            if own_cordon {
                metadata["annotations"] = json!({ CORDONED_BY: Value::Null });
                changes["unschedulable"] = Value::Null;
                // The node controller's taint goes with the cordon.
                kept.retain(|taint| taint["key"] != "node.kubernetes.io/unschedulable");
            }
        }
    }
    changes["taints"] = json!(kept);
    Some(json!({ "metadata": metadata, "spec": changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "status-taint.cluster-autoscaler.kubernetes.io/RebalanceRecommendation";

    fn node(value: Value) -> Marked {
        serde_json::from_value(value).expect("a node")
    }

    #[test]
    fn marks_are_added_to_what_is_there() {
        let found = node(json!({"metadata": {"name": "n", "resourceVersion": "7"},
            "spec": {"taints": [{"key": "dedicated", "effect": "NoExecute", "value": "x"}]}}));
        let patch = patch(&found, KEY, Marks::On).expect("a change");
        assert_eq!(patch["spec"]["taints"][0]["key"], "dedicated");
        assert_eq!(patch["spec"]["taints"][1], json!({"key": KEY, "effect": "NoSchedule"}));
        assert_eq!(patch["spec"]["unschedulable"], true);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn only_our_own_marks_come_off() {
        let foreign = node(
            json!({"metadata": {"name": "n", "labels": {EXCLUDE_LABEL: "aws-node-termination-handler"}},
            "spec": {"unschedulable": true}}),
        );
        assert_eq!(patch(&foreign, KEY, Marks::Off), None);
        let both = node(json!({"metadata": {"name": "n", "labels": {EXCLUDE_LABEL: OWN}},
            "spec": {"unschedulable": true, "taints": [{"key": KEY, "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]}}));
        let patch = patch(&both, KEY, Marks::Off).expect("a change");
        assert_eq!(
            patch["spec"],
            json!({"taints": [{"key": "other", "effect": "NoSchedule"}]}),
            "cordoned by another"
        );
        assert_eq!(patch["metadata"]["labels"], json!({EXCLUDE_LABEL: null}));
    }

    #[test]
    fn our_cordon_is_undone() {
        let ours = node(json!({"metadata": {"name": "n", "annotations": {CORDONED_BY: "true"}},
            "spec": {"unschedulable": true, "taints": [{"key": KEY, "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}));
        let patch = patch(&ours, KEY, Marks::Off).expect("a change");
        assert_eq!(patch["spec"], json!({"taints": [], "unschedulable": null}));
    }

    #[test]
    fn what_a_node_carries_besides_does_not_keep_it_from_being_marked() {
        let poisoned = node(json!({"metadata": {"name": "n", "resourceVersion": "7",
            "managedFields": [{"time": "9999-12-31T23:59:59Z"}], "creationTimestamp": 7,
            "annotations": {"x": ["y"]}},
            "spec": {"taints": [{"key": "a", "effect": "NoExecute", "timeAdded": "9999-12-31T23:59:59Z"}]}}));
        let patch = patch(&poisoned, KEY, Marks::On).expect("a change");
        assert_eq!(patch["spec"]["taints"][0]["timeAdded"], "9999-12-31T23:59:59Z");
    }

    #[tokio::test]
    async fn another_node_that_has_the_name_by_now_is_not_marked() {
        for (uid, written) in [("before", false), ("now", true)] {
            let api = tower::service_fn(move |request: http::Request<kube::client::Body>| async move {
                assert!(written || request.method() == http::Method::GET, "nothing is written");
                let node = json!({ "metadata": { "name": "n", "uid": "now" } });
                Ok::<_, tower::BoxError>(http::Response::new(kube::client::Body::from(serde_json::to_vec(
                    &node,
                )?)))
            });
            let client = Client::new(api, "default");
            let node = Node { name: "n".into(), uid: uid.into(), ..Node::default() };
            apply(&client, &node, KEY, Marks::On).await.expect("done");
            protect(&client, &node, Marks::On).await.expect("done");
        }
    }
}
