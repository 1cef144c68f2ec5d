//! EKS beside the product: it drains the nodes that the group of a managed node group ends, and completes the
//! lifecycle hook that holds them meanwhile (EKS User Guide, "Managed node groups" and "Understand each phase
//! of node updates").

use crate::autoscaler::evict_from;
use crate::clock::since;
use crate::cloud::{Cloud, InstanceSnapshot, LifecycleState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

/// How often it looks at its groups.
const EVERY: Duration = Duration::from_secs(5);
/// After this time pods that stay are left to the end of their node.
const PATIENCE: Duration = Duration::from_secs(900);

/// The drainer of some managed node groups.
pub struct EksDrainer {
    cloud: Cloud,
    client: Client,
    groups: Vec<String>,
    /// Since when each instance is drained.
    began: BTreeMap<String, Timestamp>,
}

impl EksDrainer {
    /// One for these groups.
    #[must_use]
    pub fn new(cloud: Cloud, client: Client, groups: Vec<String>) -> Self {
        Self { cloud, client, groups, began: BTreeMap::new() }
    }

    /// Drains what is ended, for ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            if let Err(error) = self.turn().await {
                tracing::debug!(%error, "EKS could not go on with a drain");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let found = self.groups.iter().filter_map(|name| self.cloud.group(name));
        let held = found.flat_map(|group| group.instances);
        let held: Vec<_> = held.filter(|held| held.state == LifecycleState::TerminatingWait).collect();
        self.began.retain(|id, _| held.iter().any(|instance| instance.id == *id));
        for instance in held {
            let now = self.cloud.now();
            let began = *self.began.entry(instance.id.clone()).or_insert(now);
            if self.is_drained(&instance).await? || since(began, now) >= PATIENCE {
                self.cloud.complete_termination(&instance.id);
            }
        }
        Ok(())
    }

    /// Cordons the node, takes it out of load balancers, and evicts its pods; whether none is left.
    async fn is_drained(&self, instance: &InstanceSnapshot) -> Result<bool, kube::Error> {
        let name = &instance.node_name;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let names_it = |node: &Node| {
            let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
            provider_id.is_some_and(|text| text.ends_with(&instance.id))
        };
        let Some(node) = nodes.get_opt(name).await?.filter(names_it) else { return Ok(true) };
        if node.spec.is_none_or(|spec| spec.unschedulable != Some(true)) {
            let labels = json!({ "node.kubernetes.io/exclude-from-external-load-balancers": "true" });
            let patch = json!({ "metadata": { "labels": labels }, "spec": { "unschedulable": true } });
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        let pods = Api::<Pod>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        Ok(evict_from(&self.client, &pods, name).await)
    }
}
