//! Whether a cluster-autoscaler runs in the cluster: its Lease says so.

use crate::kube::problem::RequestProblem;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use serde::Deserialize;
use spot_guard_core::time::since;
use std::time::Duration;
use tokio::time::timeout;

/// One that was renewed within this time is alive.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);
/// How long the request may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The Lease of cluster-autoscaler (its flags `--namespace` and `--leader-elect-resource-name`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AutoscalerLease {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Default for AutoscalerLease {
    fn default() -> Self {
        Self { name: "cluster-autoscaler".to_owned(), namespace: "kube-system".to_owned() }
    }
}

/// Whether a cluster-autoscaler leads now; `None` if that could not be read.
pub async fn leads(client: Client, lease: &AutoscalerLease, now: Timestamp) -> Option<bool> {
    let api: Api<Lease> = Api::namespaced(client, &lease.namespace);
    let lease = match timeout(TIMEOUT, api.get_opt(&lease.name)).await {
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
