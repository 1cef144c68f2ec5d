//! What pods need and what nodes have left, as cluster-autoscaler reckons it: processor and memory.

use crate::cluster::quantity;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a pod needs, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    cpu: i64,
    memory: i64,
}

impl Load {
    /// What a pod requests.
    pub(super) fn of(pod: &Pod) -> Self {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.fold(Self::default(), |sum, container| {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            sum.plus(Self::from_amounts(requests))
        })
    }

    fn from_amounts(amounts: Option<&BTreeMap<String, Quantity>>) -> Self {
        let of = |name: &str| {
            let amount = amounts.and_then(|amounts| amounts.get(name));
            amount.and_then(|amount| quantity(&Value::from(amount.0.as_str()))).unwrap_or(0)
        };
        Self { cpu: of("cpu"), memory: of("memory") }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }
}

/// What a node has left, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    cpu: i64,
    memory: i64,
}

impl Room {
    /// That of a new node.
    pub(super) fn new(cpu: i64, memory: i64) -> Self {
        Self { cpu, memory }
    }

    /// What the pods on a node leave.
    pub(super) fn left_on(node: &Node, pods: &[Pod]) -> Self {
        let total = allocatable(node);
        let name = node.name_any();
        let room = Self { cpu: total.cpu, memory: total.memory };
        pods.iter().filter(|pod| is_on(pod, &name)).fold(room, |room, pod| room.without(Load::of(pod)))
    }

    /// The same without what a pod needs.
    pub(super) fn without(self, load: Load) -> Self {
        Self { cpu: self.cpu - load.cpu, memory: self.memory - load.memory }
    }

    /// Whether a pod fits.
    pub(super) fn holds(self, load: Load) -> bool {
        self.cpu >= load.cpu && self.memory >= load.memory
    }
}

/// Places a pod in the first room that holds it; whether there was one.
pub(super) fn place(load: Load, rooms: &mut [Room]) -> bool {
    let Some(room) = rooms.iter_mut().find(|room| room.holds(load)) else { return false };
    *room = room.without(load);
    true
}

/// Whether the scheduler has found no node for a pod.
pub(super) fn waits(pod: &Pod) -> bool {
    let unbound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unschedulable = conditions.into_iter().any(|held| {
        held.type_ == "PodScheduled"
            && held.status == "False"
            && held.reason.as_deref() == Some("Unschedulable")
    });
    unbound && unschedulable && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod is on a node and would have to move from it.
pub(super) fn moves_from(pod: &Pod, node: &str) -> bool {
    let owners = pod.owner_references();
    let stays = owners.iter().any(|owner| owner.kind == "DaemonSet" || owner.kind == "Node");
    is_on(pod, node) && !stays
}

/// Whether a pod keeps its node from being scaled down: nobody would make it again, or it says so.
pub(super) fn holds_its_node(pod: &Pod) -> bool {
    let safe = pod.annotations().get("cluster-autoscaler.kubernetes.io/safe-to-evict").map(String::as_str);
    safe == Some("false") || (pod.owner_references().is_empty() && safe != Some("true"))
}

/// Whether a node is Ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|held| held.type_ == "Ready" && held.status == "True")
}

/// Whether new pods can come to a node: nothing of this world tolerates a taint.
pub(super) fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let tainted = spec.and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
    is_ready(node) && !cordoned && !tainted
}

/// Whether less than half of a node's processor and of its memory is requested
/// (`--scale-down-utilization-threshold`).
pub(super) fn is_half_empty(node: &Node, pods: &[Pod]) -> bool {
    let (total, left) = (allocatable(node), Room::left_on(node, pods));
    2 * (total.cpu - left.cpu) < total.cpu && 2 * (total.memory - left.memory) < total.memory
}

fn is_on(pod: &Pod, node: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn allocatable(node: &Node) -> Load {
    Load::from_amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}
