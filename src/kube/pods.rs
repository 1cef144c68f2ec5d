//! Evictions and deletions of exactly the pod that was meant: its UID is a precondition. And the pods of one
//! node, as the API server lists them.

use crate::kube::caps::{parts, read};
use crate::kube::problem::RequestProblem;
use crate::kube::slim::ListRest;
use crate::kube::splitter::{Piece, Shape, Splitter};
use crate::kube::watch::{WatchFailure, escaped, get};
use http_body_util::BodyExt as _;
use kube::api::{DeleteParams, Preconditions};
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use spot_guard_core::cluster::{Node, Pod};
use spot_guard_core::drain::{EvictionAnswer, Listed, ListedPod, NodeInstance};
use spot_guard_core::ids::{InstanceId, NodeName};
use std::time::Duration;
use tokio::time::timeout;

/// Asks the eviction API, with the pod's own grace period or this one, in seconds.
///
/// The request is made here: kube's `Api::evict` writes the options under a name that the server ignores, and
/// the precondition would be lost.
pub async fn evict(client: &Client, pod: &Pod, grace: Option<i64>, limit: Duration) -> EvictionAnswer {
    let mut eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": &*pod.name, "namespace": &*pod.namespace },
        "deleteOptions": { "preconditions": { "uid": &*pod.uid } },
    });
    if let Some(grace) = grace {
        eviction["deleteOptions"]["gracePeriodSeconds"] = grace.into();
    }
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
        Ok(Err(error)) => refusal(&error),
        Err(_) => EvictionAnswer::Failed { status: 0, message: "no answer in time".to_owned() },
    }
}

/// Rules: pkg/registry/core/pod/storage/eviction.go. A 429 comes from a budget or from a rate limit; its
/// cause tells.
fn refusal(error: &Error) -> EvictionAnswer {
    // A message of the API server may repeat what the pod holds, and it would land in a status.
    let message = RequestProblem(error).to_string();
    let Error::Api(status) = error else { return EvictionAnswer::Failed { status: 0, message } };
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
        403 => EvictionAnswer::Forbidden { message },
        // A precondition that failed: another pod has the name now.
        409 if status.message.contains("Precondition failed") || status.message.contains("UID") => {
            EvictionAnswer::Gone
        }
        409 => EvictionAnswer::Conflict,
        code => EvictionAnswer::Failed { status: code, message },
    }
}

/// How many pods of a node are listed at a time: one pod may be of more than a megabyte.
const PAGE: usize = 25;
/// No node has so many pages of pods: a list that does not end is given up.
const MAX_PAGES: usize = 100;

/// A pod, only with what tells whether its node may go. All times are texts, so that none makes the list
/// unreadable.
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
    annotations: Option<SlimAnnotations>,
    #[serde(deserialize_with = "parts")]
    owner_references: Option<Vec<SlimOwner>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SlimAnnotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
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
        let mirror = meta.annotations.is_some_and(|all| all.mirror.is_some());
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let of_node =
            mirror || controller.is_some_and(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"));
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let SlimMeta { namespace, name, uid, .. } = meta;
        Self::Pod(ListedPod { namespace, name, uid, of_node, finished, deletion })
    }
}

impl From<Piece<'_>> for Listed {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Object(bytes) => read::<SlimPod>(bytes).map_or(Self::Unreadable, Self::from),
            Piece::TooLarge => Self::Unreadable,
        }
    }
}

/// The pods that are bound to a node, from the API server itself and not from a watch, in pages. None if the
/// name is by now that of a node on another instance: they are bound to that one.
///
/// # Errors
/// Why there was no complete answer within `limit`, in plain words.
pub async fn listed_on(
    client: &Client,
    NodeInstance { node, instance_id }: &NodeInstance,
    limit: Duration,
) -> Result<Vec<Listed>, String> {
    // What has finished holds nothing, and may be thousands: the garbage collector lets 12,500 stay.
    let fields = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
    let of_node = format!("fieldSelector={}&limit={PAGE}", escaped(&fields));
    let list = async {
        let (mut pods, mut query) = (Vec::new(), of_node.clone());
        for _ in 0..MAX_PAGES {
            match list_page(client, &query, &mut pods).await.map_err(|failure| failure.to_string())? {
                Some(next) => query = format!("{of_node}&continue={}", escaped(&next)),
                None if pods.is_empty() => return Ok(pods),
                // Asked afterwards: what has changed hands does not come back.
                None => return Ok(if is_on(client, node, instance_id).await? { pods } else { Vec::new() }),
            }
        }
        Err("the list does not end".to_owned())
    };
    timeout(limit, list).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Whether the node of that name may still run on the instance.
async fn is_on(client: &Client, name: &NodeName, instance_id: &InstanceId) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        spec: NamedSpec,
    }
    #[derive(Default, Deserialize)]
    struct NamedSpec {
        #[serde(default, rename = "providerID")]
        provider_id: String,
    }
    let request = http::Request::get(format!("/api/v1/nodes/{name}")).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    match client.request::<Named>(request).await {
        Ok(Named { spec }) => {
            let found = Node { provider_id: spec.provider_id.into(), ..Node::default() };
            Ok(found.instance_id().is_none_or(|id| id == *instance_id))
        }
        // Its pods are still bound to the name.
        Err(Error::Api(status)) if status.code == 404 => Ok(true),
        Err(error) => Err(RequestProblem(&error).to_string()),
    }
}

/// Adds the pods of a page as they come, so that one is held at most. Returns where the next page begins.
async fn list_page(
    client: &Client,
    query: &str,
    pods: &mut Vec<Listed>,
) -> Result<Option<String>, WatchFailure> {
    let mut body = get(client, "/api/v1/pods", query).await?;
    let mut splitter = Splitter::new(Shape::Items);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|error| WatchFailure::of(&error))?.into_data() else { continue };
        let fed = splitter.feed(&bytes, |piece| pods.push(piece.into()));
        fed.map_err(WatchFailure::Malformed)?;
    }
    let rest = splitter.finish().map_err(WatchFailure::Malformed)?;
    let rest = read::<ListRest>(&rest).map_err(WatchFailure::Unreadable)?;
    Ok(rest.metadata.next.filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use kube::client::Body;
    use kube::core::Status;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    fn place(instance: &str) -> NodeInstance {
        NodeInstance { node: "node-1".into(), instance_id: instance.into() }
    }

    /// Bytes that tell how many of their kind are held.
    struct Held(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_page_of_huge_pods_is_never_held_whole_and_one_that_cannot_be_read_hides_no_other() {
        let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (held.clone(), most.clone());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_node = request.uri().path() == "/api/v1/nodes/node-1";
            let query = request.uri().query().unwrap_or_default();
            let selects =
                query.contains("fieldSelector=spec.nodeName%3Dnode-1%2Cstatus.phase%21%3DSucceeded");
            assert!(is_node || selects && query.contains("&limit=25"), "{query}");
            let (is_first, (held, most)) = (!query.contains("continue=a%2Fb"), counts.clone());
            let pods = stream::unfold(if is_node { 25 } else { 0 }, move |at| {
                let (held, most) = (held.clone(), most.clone());
                let uid = if at == 3 { json!({ "x": 1 }) } else { json!(at.to_string()) };
                let pod = json!({ "metadata": { "uid": uid }, "spec": { "env": "x".repeat(1 << 20) } });
                let text = match at {
                    0 => format!("{{\"items\":[{pod}"),
                    1..25 => format!(",{pod}"),
                    25 if is_node => r#"{"spec":{"providerID":"aws:///a/i-1"}}"#.to_owned(),
                    25 if is_first => r#"],"metadata":{"continue":"a/b"}}"#.to_owned(),
                    25 => r#"],"metadata":{}}"#.to_owned(),
                    _ => String::new(),
                };
                most.fetch_max(held.fetch_add(text.len(), Ordering::Relaxed), Ordering::Relaxed);
                let bytes = Bytes::from_owner(Held(text.into_bytes(), held));
                async move { (at <= 25).then(|| (Ok::<_, Infallible>(Frame::data(bytes)), at + 1)) }
            });
            std::future::ready(Ok::<_, Infallible>(http::Response::new(StreamBody::new(pods))))
        });
        let client = crate::kube::client::bounded(
            &Client::new(service, "default"),
            Duration::from_secs(60),
            Arc::default(),
        );
        let found = listed_on(&client, &place("i-1"), Duration::from_secs(60)).await.expect("a list");
        assert_eq!(found.len(), 50);
        assert_eq!(found.iter().filter(|pod| **pod == Listed::Unreadable).count(), 2);
        let most = most.load(Ordering::Relaxed);
        assert!(most < 4 << 20, "{most} bytes were held at a time");
        let found = listed_on(&client, &place("i-2"), Duration::from_secs(60)).await.expect("a list");
        assert_eq!(found, [], "they are bound to another node of that name");
    }

    #[test]
    fn nothing_that_the_api_server_repeats_of_a_pod_is_told() {
        for code in [403, 422, 500] {
            let status = Status { code, message: "Invalid value: hunter2".to_owned(), ..Status::default() };
            let told = answer(Ok(Err(Error::Api(Box::new(status)))));
            assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
        }
        let error = serde_json::from_str::<u32>("\"hunter2\"").expect_err("no number");
        let told = answer(Ok(Err(Error::SerdeError(error))));
        assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
    }
}
