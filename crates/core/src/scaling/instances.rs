//! What the replacements and the cluster know about instances.

use crate::cluster::{Effect, Node, Pod, Snapshot, Taint};
use crate::drain::{self, CORDON};
use crate::freshness::{Freshness, Step};
use crate::group::{Instance, PoolView};
use crate::ids::InstanceId;
use crate::reason::NodeTrouble;
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
    /// Zones of which Spot instances were announced to be interrupted so lately that others may follow.
    pub interrupted_zones: BTreeSet<String>,
    /// When the API server listed the instance's node as empty, since it is cordoned.
    pub found_empty: BTreeMap<InstanceId, Timestamp>,
    /// The replacements found that these are of no use to them: the pods do not fit, or the node stands idle.
    pub misfits: BTreeMap<InstanceId, NodeTrouble>,
    /// The instances whose nodes cannot be used.
    pub troubles: BTreeMap<InstanceId, Trouble>,
    /// When the last node joined that runs pods and does not say on which instance it runs.
    pub unnamed_joined: Option<Timestamp>,
    /// Whether all of this comes from an old picture: nothing is ended by it but at its deadline.
    pub stale: bool,
}

/// Why the node of an instance cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub why: NodeTrouble,
    /// Whether the node carries our own marks: whether somebody else has cordoned it, too, is not seen then.
    pub marked: bool,
}

/// For so long a node that is cordoned and was listed as empty counts as empty, if no watch says otherwise.
const EMPTY_FOR: Duration = Duration::from_secs(60);

/// A node that has not said for so long which instance it has is not about to say it: the cloud controller
/// sets it within seconds, if there is one (Kubernetes, "Cloud Controller Manager", node controller).
const UNNAMED_FOR: Duration = Duration::from_secs(600);

impl InstanceFacts {
    /// Takes in what the cluster knows about the instances of a pool. `freshness` is to be read before the
    /// snapshot is taken; `taint_key` is the key of our own taint.
    pub fn look_at(
        &mut self,
        view: &PoolView,
        cluster: &Snapshot,
        freshness: &Freshness,
        taint_key: &str,
        now: Timestamp,
    ) {
        self.stale |= !freshness.allows(Step::End);
        self.troubles.clear();
        let is_late = |node: &Arc<Node>| {
            let created = node.created.is_some_and(|at| crate::time::since(at, now) < UNNAMED_FOR);
            node.provider_id.is_empty() && created
        };
        let some_are_late = cluster.nodes().iter().any(is_late);
        let nodes = PoolNodes { view, cluster, taint_key };
        for Instance { id, .. } in view.instances() {
            if let Some(trouble) = nodes.trouble(id) {
                self.troubles.insert(id.clone(), trouble);
            }
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
        let unnamed = cluster.nodes().iter().filter(|node| !node.names_its_cloud() && nodes.has_pods(node));
        self.unnamed_joined = unnamed.map(|node| node.created.unwrap_or(Timestamp::MAX)).max();
    }

    /// Why the node of an instance cannot be used, if so; `before` is what was said last.
    #[must_use]
    pub fn trouble(&self, id: &InstanceId, before: Option<NodeTrouble>) -> Option<NodeTrouble> {
        let Some(Trouble { why, marked }) = self.troubles.get(id).copied() else {
            return self.misfits.get(id).copied();
        };
        // The cordon may be our own: what is of no use is cordoned before it is given back.
        let may_be_ours = why == NodeTrouble::Cordoned && marked && before != Some(why);
        if may_be_ours { before.filter(|held| held.is_of_pods()) } else { Some(why) }
    }

    /// Whether the node of an instance that was requested at that time may have joined, and run pods, without
    /// a word of its instance.
    #[must_use]
    pub fn may_have_joined(&self, requested_at: Timestamp) -> bool {
        self.unnamed_joined.is_some_and(|at| at >= requested_at)
    }
}

/// Whether the node of an instance of the pool keeps a start-up taint, by the key of our own taint.
#[must_use]
pub fn keeps_start_up_taint(view: &PoolView, cluster: &Snapshot, taint_key: &str, node: &Node) -> bool {
    PoolNodes { view, cluster, taint_key }.keeps_taint(node)
}

/// The nodes of a pool.
struct PoolNodes<'a> {
    view: &'a PoolView,
    cluster: &'a Snapshot,
    taint_key: &'a str,
}

impl<'a> PoolNodes<'a> {
    fn trouble(&self, id: &InstanceId) -> Option<Trouble> {
        let mut nodes = self.cluster.nodes_of_instance(id);
        let Some(node) = nodes.next() else {
            return Some(Trouble { why: NodeTrouble::NotJoined, marked: false });
        };
        if nodes.next().is_some() {
            return Some(Trouble { why: NodeTrouble::Disputed, marked: false });
        }
        let why = if !node.ready {
            NodeTrouble::NotReady
        } else if self.keeps_taint(node) {
            NodeTrouble::Tainted
        } else if node.unschedulable {
            NodeTrouble::Cordoned
        } else {
            return None;
        };
        let marked = node.taints.iter().any(|taint| &*taint.key == self.taint_key);
        Some(Trouble { why, marked })
    }

    /// Whether the node is idle and keeps pods off by a taint that no node with pods in the pool has, and
    /// that none of these pods tolerates by its key: the two groups of a pool may have taints of their own.
    /// If no node has any pods, nothing can be compared.
    fn keeps_taint(&self, node: &Node) -> bool {
        let own: Vec<&Taint> = node.taints.iter().filter(|taint| self.is_of_node(taint)).collect();
        if own.is_empty() || self.has_pods(node) {
            return false;
        }
        let nodes = self.view.instances().filter_map(|held| self.cluster.node_of_instance(&held.id));
        let with_pods: Vec<&Node> = nodes.filter(|other| self.has_pods(other)).collect();
        let is_meant = |pod: &Pod, taint: &Taint| {
            pod.spec.tolerations.iter().any(|own| own.key.is_some() && own.tolerates(taint))
        };
        let is_usual = |taint: &&Taint| {
            with_pods.iter().any(|other| {
                let mut pods = self.cluster.pods_on(&other.name).filter(|pod| drain::must_move(pod));
                other.taints.contains(*taint) || pods.any(|pod| is_meant(pod, taint))
            })
        };
        !with_pods.is_empty() && !own.iter().all(is_usual)
    }

    fn has_pods(&self, node: &Node) -> bool {
        self.cluster.pods_on(&node.name).any(drain::must_move)
    }

    /// Whether the taint keeps pods off, and is neither ours nor that of a cordon.
    fn is_of_node(&self, taint: &Taint) -> bool {
        let repels = matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute);
        repels && &*taint.key != self.taint_key && &*taint.key != CORDON
    }
}
