//! Pods that wait for nodes like those of a pool, and how many such nodes would hold them.

use crate::cluster::{Node, OwnerKind, Pod, Resources, Snapshot, take_off};
use crate::drain::{CORDON, must_move};
use crate::group::{GroupView, PoolView};
use crate::ids::{InstanceId, NodeName, NodeUid};
use crate::policy::Policy;
use crate::time::since;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A pod waits once the scheduler has found no node for so long.
const UNSCHEDULABLE_FOR: Duration = Duration::from_secs(30);
/// So long after its node became Ready an instance still counts as arriving: the scheduler has to find it.
const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// Of more pods nobody needs to know how many nodes they want: the limits are far below.
const MOST_PODS: usize = 5_000;
/// EKS says by this label which market a node is of (EKS User Guide, "Managed node groups").
const CAPACITY_TYPE: &str = "eks.amazonaws.com/capacityType";

/// The label of a node's type of instance.
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// So many types of a group are looked at.
const MOST_TYPES: usize = 3;
/// No taint has this key.
const NO_TAINT: &str = "";
/// The label of a node's own name.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The name of a node that is not there yet. It is no name that a node can have.
pub const HYPOTHETICAL: &str = "(one more Spot node)";

/// What the nodes of a pool are like: one Ready node of each group that has one. A pod fits only if it fits
/// on all of them, for it stands on on-demand first and on Spot in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shapes(Vec<Shape>);

/// What pods that wait need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// So many empty nodes like those of the pool would hold them.
    pub nodes: usize,
    /// So many instances of the Spot group are on their way in.
    pub spot_arrives: usize,
    /// So many of the on-demand group.
    pub on_demand_arrives: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Shape {
    node: Node,
    /// What its DaemonSets leave of it.
    free: Resources,
}

impl Shape {
    fn takes(&self, pod: &Pod) -> bool {
        let node = &self.node;
        pod.spec.untolerated(node).is_none() && pod.spec.selects(node) && holds(&self.free, pod)
    }
}

impl Shapes {
    /// The shapes of the pool's nodes as they are now.
    #[must_use]
    pub fn of(view: &PoolView, snapshot: &Snapshot, taint_key: &str) -> Self {
        let groups = [&view.on_demand, &view.spot];
        let mut found: Vec<Shape> =
            groups.into_iter().filter_map(|group| shape(group, snapshot, taint_key)).collect();
        if let [only] = &mut found[..] {
            // A pod that wants the other market is not to be promised a node of this one by its label.
            only.node.labels = only.node.labels.iter().filter(|(key, _)| *key != CAPACITY_TYPE).collect();
        }
        Self(found)
    }

    /// The cluster with one more, empty node like those of the Spot group: of each type of instance, in each
    /// zone of the group. Which of them Spot gives nobody knows before. None without a node to look at.
    #[must_use]
    pub fn with_spot_node(view: &PoolView, snapshot: &Snapshot, taint_key: &str) -> Vec<Snapshot> {
        let types = of_each_type(&view.spot, snapshot);
        let shapes = types.into_iter().map(|node| shape_of(node, snapshot, taint_key));
        shapes.flat_map(|shape| Self::in_each_zone(&shape, &view.spot, snapshot)).collect()
    }

    /// The cluster with one more such node, in each zone of the group; that of the node comes first.
    fn in_each_zone(Shape { node, free }: &Shape, group: &GroupView, snapshot: &Snapshot) -> Vec<Snapshot> {
        let own = &*node.zone;
        let others = group.zones.iter().map(String::as_str).filter(|zone| *zone != own);
        let zones = std::iter::once(own).chain(others);
        let in_zone = |zone: &str| {
            let of_node = node.labels.iter().filter(|(key, _)| *key != HOSTNAME);
            // Drivers of volumes have labels of their own for the zone.
            let moved = of_node.map(|(key, value)| (key, if value == own { zone } else { value }));
            let labels = moved.chain([(HOSTNAME, HYPOTHETICAL)]).collect();
            let (name, uid) = (NodeName::from(HYPOTHETICAL), NodeUid::default());
            let allocatable = free.clone();
            Node { name, uid, labels, zone: zone.into(), provider_id: "".into(), allocatable, ..node.clone() }
        };
        zones.map(|zone| snapshot.with_node(in_zone(zone))).collect()
    }

    /// Whether a pod would fit on an empty node of the pool. Without a node to look at nobody knows.
    fn take(&self, pod: &Pod) -> bool {
        self.0.iter().all(|shape| shape.takes(pod))
    }

    /// How many nodes of the pool would hold the pods that wait, without those that an earlier pool looks
    /// after, and what is on its way in. Without a node to look at one is tried.
    ///
    /// A pod does not count if it has waited since before one of the `stand_ins` was Ready that is idle and
    /// would take it: it waits for something else.
    #[must_use]
    pub fn need(
        &self,
        view: &PoolView,
        snapshot: &Snapshot,
        earlier: &[Self],
        policy: &Policy,
        stand_ins: &[(InstanceId, Timestamp)],
        now: Timestamp,
    ) -> Need {
        let below = policy.placeholders_below();
        let idle = |node: &&Node| !snapshot.pods_on(&node.name).any(must_move);
        let ready: Vec<(Shape, Timestamp)> = stand_ins
            .iter()
            .filter_map(|(id, at)| Some((snapshot.node_of_instance(id).filter(idle)?, *at)))
            .map(|(node, at)| (shape_of(node, snapshot, NO_TAINT), at))
            .collect();
        let waits = |pod: &&Pod| {
            waits(pod, now)
                && !ready.iter().any(|(shape, at)| pod.unschedulable_since < Some(*at) && shape.takes(pod))
                && !pod.spec.is_placeholder(below)
                && self.take(pod)
                && !earlier.iter().any(|shapes| !shapes.0.is_empty() && shapes.take(pod))
        };
        let mut pods: Vec<&Pod> = snapshot.waiting().filter(waits).take(MOST_PODS).collect();
        let [spot_arrives, on_demand_arrives] =
            [&view.spot, &view.on_demand].map(|group| arriving(group, snapshot, now));
        let on_demand_arrives = on_demand_arrives + unfilled(&view.on_demand);
        let Some(shape) = self.0.first() else {
            return Need { nodes: usize::from(!pods.is_empty()), spot_arrives, on_demand_arrives };
        };
        pods.sort_by_key(|pod| std::cmp::Reverse((pod.spec.requests.cpu_millis, pod.spec.requests.memory)));
        let mut nodes: Vec<Resources> = Vec::new();
        for pod in pods {
            let room = nodes.iter_mut().find(|free| holds(free, pod));
            match room {
                Some(free) => take_off(free, &pod.spec.requests),
                None => {
                    let mut free = shape.free.clone();
                    take_off(&mut free, &pod.spec.requests);
                    nodes.push(free);
                }
            }
        }
        Need { nodes: nodes.len(), spot_arrives, on_demand_arrives }
    }
}

/// Whether the scheduler looks for a node for the pod, and has found none for a while.
fn waits(pod: &Pod, now: Timestamp) -> bool {
    let own_scheduler = pod.spec.scheduler.is_none() && pod.spec.not_understood.is_none();
    let moves = !matches!(pod.owner.kind, OwnerKind::DaemonSet | OwnerKind::Mirror);
    let long = pod.unschedulable_since.is_some_and(|at| since(at, now) >= UNSCHEDULABLE_FOR);
    long && own_scheduler && moves && !pod.gated && !pod.terminating() && pod.nominated.is_none()
}

/// How many instances of the group are on their way in, up to the moment when the scheduler has found them.
fn arriving(group: &GroupView, snapshot: &Snapshot, now: Timestamp) -> usize {
    let settled =
        |node: &Node| node.ready && node.ready_changed.is_none_or(|at| since(at, now) >= FOUND_WITHIN);
    let active = group.instances.iter().filter(|held| held.lifecycle.may_be_claimed());
    let waits = active.filter(|held| {
        let node = snapshot.node_of_instance(&held.id);
        // A node that was there for long and is not Ready now does not arrive.
        let is_new = |node: &Node| node.created.is_none_or(|at| since(at, now) < Duration::from_mins(10));
        match node {
            Some(node) => !settled(node) && is_new(node),
            None => held.lifecycle.is_arriving(),
        }
    });
    waits.count()
}

/// How many instances the group has still to launch: somebody has raised its desired capacity.
fn unfilled(group: &GroupView) -> usize {
    usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active())
}

/// The nodes of a group that take pods.
fn open_nodes<'s>(group: &GroupView, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s Node> {
    let nodes = group.instances.iter().filter_map(|held| snapshot.node_of_instance(&held.id));
    nodes.filter(|node| node.ready && !node.unschedulable)
}

/// A node of each type of instance, as few as matter; of each the one with the fewest taints.
fn of_each_type<'s>(group: &GroupView, snapshot: &'s Snapshot) -> Vec<&'s Node> {
    let mut found: BTreeMap<&str, &Node> = BTreeMap::new();
    for node in open_nodes(group, snapshot) {
        let rank = |node: &Node| (node.taints.len(), node.name.clone());
        let held = found.entry(node.labels.get(INSTANCE_TYPE).unwrap_or_default()).or_insert(node);
        if rank(node) < rank(held) {
            *held = node;
        }
    }
    found.into_values().take(MOST_TYPES).collect()
}

fn shape(group: &GroupView, snapshot: &Snapshot, taint_key: &str) -> Option<Shape> {
    let node = open_nodes(group, snapshot).min_by_key(|node| &node.name)?;
    Some(shape_of(node, snapshot, taint_key))
}

fn shape_of(node: &Node, snapshot: &Snapshot, taint_key: &str) -> Shape {
    let mut free = node.allocatable.clone();
    let daemons = |pod: &&Pod| pod.owner.kind == OwnerKind::DaemonSet && !pod.phase.finished();
    snapshot.pods_on(&node.name).filter(daemons).for_each(|pod| take_off(&mut free, &pod.spec.requests));
    let passes = |key: &str| key == taint_key || key == CORDON || key.starts_with("node.kubernetes.io/");
    let taints = node.taints.iter().filter(|taint| !passes(&taint.key)).cloned().collect();
    Shape { node: Node { taints, ..node.clone() }, free }
}

fn holds(free: &Resources, pod: &Pod) -> bool {
    let asked = &pod.spec.requests;
    free.cpu_millis >= asked.cpu_millis
        && free.memory >= asked.memory
        && free.ephemeral_storage >= asked.ephemeral_storage
        && free.pods >= 1
        && asked.extended.iter().all(|(name, amount)| free.extended(name) >= *amount)
}
