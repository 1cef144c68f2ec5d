//! Whether a cluster-autoscaler runs in the cluster: its Lease says so.

use crate::kube::problem::RequestProblem;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use spot_guard_core::time::since;
use std::time::Duration;
use tokio::time::timeout;

/// Where it leads, and what its Lease is called (cluster-autoscaler, `--namespace` and
/// `--leader-elect-resource-name`, by default).
const NAMESPACE: &str = "kube-system";
const NAME: &str = "cluster-autoscaler";
/// One that was renewed within this time is alive.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);
/// How long the request may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a cluster-autoscaler leads now; `None` if that could not be read.
pub async fn lives(client: Client, now: Timestamp) -> Option<bool> {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let lease = match timeout(TIMEOUT, api.get_opt(NAME)).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(error)) => {
            tracing::debug!(error = %RequestProblem(&error), "the Lease of cluster-autoscaler could not be read");
            return None;
        }
        Err(_) => return None,
    };
    let renewed = lease.and_then(|lease| lease.spec?.renew_time);
    Some(renewed.is_some_and(|at| since(at.0, now) < RENEWED_WITHIN))
}
