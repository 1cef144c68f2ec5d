//! What the replacements and the cluster know about instances.

use crate::cluster::{Node, Snapshot};
use crate::drain;
use crate::freshness::{Freshness, Step};
use crate::group::{Instance, PoolView};
use crate::ids::InstanceId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the replacements and the cluster know about instances that a group's listing does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Replacements stand on these (old nodes, capacity in use): they are never claimed again.
    pub taken: BTreeSet<InstanceId>,
    /// Their nodes run pods that would have to move, or that are still ending: they are never ended as
    /// surplus.
    pub with_pods: BTreeSet<InstanceId>,
    /// Their nodes take new pods, or were not listed as empty since they do not: they are cordoned and looked
    /// at before they are ended as surplus, or a pod could be bound to them at the last moment, or have been
    /// unseen.
    pub schedulable: BTreeSet<InstanceId>,
    /// They were announced to be interrupted so lately that others of their zones may follow.
    pub interrupted: BTreeSet<InstanceId>,
    /// When the API server listed the instance's node as empty, since it is cordoned.
    pub found_empty: BTreeMap<InstanceId, Timestamp>,
    /// Whether all of this comes from an old picture: nothing is ended by it but at its deadline.
    pub stale: bool,
}

/// For so long a node that is cordoned and was listed as empty counts as empty, if no watch says otherwise.
const EMPTY_FOR: Duration = Duration::from_secs(60);

/// A node that has not said for so long which instance it has is not about to say it: the cloud controller
/// sets it within seconds, if there is one (Kubernetes, "Cloud Controller Manager", node controller).
const UNNAMED_FOR: Duration = Duration::from_secs(600);

impl InstanceFacts {
    /// Takes in what the cluster knows about the instances of a pool. `freshness` is to be read before the
    /// snapshot is taken.
    pub fn look_at(&mut self, view: &PoolView, cluster: &Snapshot, freshness: &Freshness, now: Timestamp) {
        self.stale |= !freshness.allows(Step::End);
        let is_late = |node: &Arc<Node>| {
            let created = node.created.is_some_and(|at| crate::time::since(at, now) < UNNAMED_FOR);
            node.provider_id.is_empty() && created
        };
        let some_are_late = cluster.nodes().iter().any(is_late);
        for Instance { id, .. } in view.spot.instances.iter().chain(&view.on_demand.instances) {
            if cluster.nodes_of_instance(id).nth(1).is_some() {
                // Nobody knows whose pods run on it.
                self.with_pods.insert(id.clone());
            }
            let Some(node) = cluster.node_of_instance(id) else {
                if some_are_late {
                    // One of those may be its node, with pods.
                    self.with_pods.insert(id.clone());
                }
                continue;
            };
            if cluster.pods_on(&node.name).any(|pod| drain::holds_its_node(pod, now)) {
                self.with_pods.insert(id.clone());
            }
            let found_empty =
                self.found_empty.get(id).is_some_and(|at| crate::time::since(*at, now) < EMPTY_FOR);
            if !node.unschedulable || !found_empty {
                self.schedulable.insert(id.clone());
            }
        }
    }
}
