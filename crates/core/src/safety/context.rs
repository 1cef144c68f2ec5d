//! The inputs of the check beside the cluster itself.

use super::policy::SafetyContext;
use super::utilisation::Utilisation;
use crate::cluster::Snapshot;
use crate::health::PoolReplacement;
use crate::ids::{InstanceId, NodeName};
use crate::record::OldNodeState;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

impl SafetyContext {
    /// For a node in `own` replacement, or in none, among the open `stories` of the cluster. `members`
    /// are the instances of the pool's two groups, `taint_key` is that of the taint that a drain sets.
    ///
    /// Pods do not keep to a pool: a node that goes in another one is nothing to count on, either.
    #[must_use]
    pub fn of<'a>(
        own: Option<&PoolReplacement<'_>>,
        stories: &[PoolReplacement<'_>],
        members: impl Iterator<Item = &'a InstanceId>,
        snapshot: &Snapshot,
        taint_key: &Arc<str>,
        now: Timestamp,
    ) -> Self {
        let node_of =
            |instance: &InstanceId| snapshot.node_of_instance(instance).map(|node| node.name.clone());
        let nodes_of =
            |instance: &InstanceId| snapshot.nodes_of_instance(instance).map(|node| node.name.clone());
        let (mut excluded, mut drained): (Vec<NodeName>, BTreeSet<NodeName>) = Default::default();
        for other in stories.iter().filter(|other| own.is_none_or(|own| own.name != other.name)) {
            if !other.status.old_node.is_over() {
                let is_drained = matches!(*other.status.old_node, OldNodeState::Draining(_));
                excluded.extend(nodes_of(other.instance_id));
                drained.extend(nodes_of(other.instance_id).filter(|_| is_drained));
            }
            if let Some(capacity) = other.status.goes_back() {
                excluded.extend(nodes_of(&capacity.instance_id));
                drained.extend(nodes_of(&capacity.instance_id).filter(|_| other.is_returning()));
            }
        }
        Self {
            excluded: excluded.into_iter().collect(),
            pool_nodes: members.filter_map(node_of).collect(),
            utilisation_before_story: own
                .and_then(|own| own.status.utilisation_before.as_ref())
                .map(Utilisation::from),
            taint_key: taint_key.clone(),
            drained,
            now,
        }
    }
}
