//! What the auditor reads of the cloud and the cluster.

use super::Auditor;
use crate::crd::{NodeReplacement, SpotPool};
use crate::kube::marks;
use crate::sim::world::TAINT;
use k8s_openapi::api::core::v1::Node;
use spot_guard_cloud::cloud::LifecycleState;
use spot_guard_core::ledger::Ledger;
use std::sync::Arc;

impl Auditor {
    pub(super) fn records(&self) -> Vec<Arc<NodeReplacement>> {
        let stored = self.inner.cluster.list_json("nodereplacements.spotguard.dev");
        self.read().records.all(stored)
    }

    pub(super) fn pools(&self) -> Vec<Arc<SpotPool>> {
        let stored = self.inner.cluster.list_json("spotpools.spotguard.dev");
        self.read().pools.all(stored)
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let stored = self.inner.cluster.list_json("nodes");
        self.read().nodes.all(stored)
    }

    pub(super) fn ledgers(&self) -> Vec<Ledger> {
        self.pools().iter().map(|pool| pool.status.clone().unwrap_or_default().ledger).collect()
    }

    pub(super) fn node_of(&self, instance: &str) -> Option<String> {
        Some(self.inner.cloud.node_of(instance)?.node_name)
    }

    /// The instance that a node says it runs on.
    pub(super) fn instance_of(&self, node: &str) -> Option<String> {
        let found: Option<Node> = self.inner.cluster.get("", node);
        let id = found.and_then(|node| node.spec?.provider_id)?;
        id.strip_prefix("aws://")?.rsplit('/').next().map(str::to_owned)
    }

    /// Whether the node of that name is the one on the instance, as far as it says.
    pub(super) fn is_on(&self, node: &str, instance: &str) -> bool {
        self.instance_of(node).is_none_or(|found| found == instance)
    }

    pub(super) fn node_is_ready(&self, node: &str) -> bool {
        let found: Option<Node> = self.inner.cluster.get("", node);
        let conditions = found.and_then(|node| node.status).and_then(|status| status.conditions);
        conditions.is_some_and(|all| all.iter().any(|held| held.type_ == "Ready" && held.status == "True"))
    }

    /// Whether it serves pods. One that a person has just put aside does: the last reading may not know it.
    pub(super) fn is_in_service(&self, instance: &str) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        let mut shares = groups.iter().flat_map(|group| &group.instances);
        shares.any(|share| {
            let serves = matches!(share.state, LifecycleState::InService | LifecycleState::Standby);
            share.id == instance && serves && share.machine_runs
        })
    }

    pub(super) fn runs(&self, instance: &str) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        groups.iter().flat_map(|group| &group.instances).any(|held| held.id == instance && held.machine_runs)
    }

    pub(super) fn is_marked(&self, node: &str) -> bool {
        let found: Option<Node> = self.inner.cluster.get("", node);
        found.is_some_and(|node| marks::are_left_on(&node, TAINT))
    }
}
