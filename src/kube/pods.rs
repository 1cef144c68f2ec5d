//! Evictions and deletions of exactly the pod that was meant: its UID is a precondition.

use crate::core::cluster::Pod;
use crate::core::drain::EvictionAnswer;
use k8s_openapi::api::core::v1 as core_v1;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Value, json};
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
    let api: Api<core_v1::Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let params = exactly(pod).grace_period(u32::try_from(grace).unwrap_or(0));
    answer(timeout(limit, api.delete(&pod.name, &params)).await.map(|result| result.map(drop)))
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
