//! Whether pods find a place together on the rest of the cluster, as the scheduler would place them.
//!
//! The scheduler places pods one by one, in an order and on nodes that nobody controls. So one packing that
//! works proves nothing. [`place`] says that pods fit only if either
//! - each pod has more possible nodes than there are other pods to place, and each of those can spoil one
//!   node at most: then it fits whatever the others do ([`Placement::certain`]); or
//! - every packing tried succeeds: large and small pods first, spread and packed, shuffled, and some for each
//!   pod in question in which all others take the nodes that it could use; and, as far as the steps allowed
//!   for it reach, a search through all orders and choices finds none that fails.
//!
//! Preemption is not counted on, but for placeholder pods if the pool has them, and nodes that are cordoned or not ready are not used. The rules are those
//! of the scheduler's filter plugins (pkg/scheduler/framework/plugins), named where they are applied.

use crate::cluster::{Node, OwnerKind, Pod, Resources, Snapshot};
use crate::effort::{Effort, TooMuch};
use crate::policy::Policy;
use packer::Packer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

mod packer;

/// Nodes that are not counted on: the one that is drained, other fallback nodes, nodes in a story.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedNodes(BTreeSet<Arc<str>>);

impl ExcludedNodes {
    /// Whether the node is not counted on.
    #[must_use]
    pub fn contains(&self, node: &str) -> bool {
        self.0.contains(node)
    }

    /// These and one more.
    #[must_use]
    pub fn and(&self, node: &str) -> Self {
        let mut all = self.0.clone();
        all.insert(node.into());
        Self(all)
    }
}

impl<S: Into<Arc<str>>> FromIterator<S> for ExcludedNodes {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

/// How [`place`] goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementOptions {
    /// Pods with a lower priority than this are placeholders: they need no place, and what they take counts as
    /// free, unless a pod that is placed preempts nobody.
    pub placeholders_below: Option<i32>,
    /// How many shuffled packings are tried next to the fixed ones.
    pub shuffles: usize,
    /// How many packings, at most, in which all other pods take the nodes of one.
    pub adversaries: usize,
    /// How far all orders and choices are searched if no packing failed. Enough for small clusters, where
    /// this is proof.
    pub search_steps: usize,
    /// Where the shuffles begin.
    pub seed: u64,
    /// How much work a whole check may be, in units of [`Effort`]. What would be more cannot be said.
    pub effort: u64,
}

/// How much work a check may be. A node with 30 pods in a cluster of 5,000 nodes takes less than a tenth of it. All of
/// it takes seconds without optimisation: a check has a thread of its own.
pub const CHECK_EFFORT: u64 = 40_000_000;

/// Of more pods than this no search would come to an end, and it goes as deep as there are pods.
const SEARCHED: usize = 500;

impl Default for PlacementOptions {
    fn default() -> Self {
        Self {
            placeholders_below: None,
            shuffles: 12,
            adversaries: 48,
            search_steps: 20_000,
            seed: 1,
            effort: CHECK_EFFORT,
        }
    }
}

impl PlacementOptions {
    /// With what a pool's settings say of placeholders.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self { placeholders_below: policy.placeholders_below(), ..Self::default() }
    }
}

/// A pod, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&Pod> for PodName {
    fn from(pod: &Pod) -> Self {
        Self { namespace: pod.namespace.to_string(), name: pod.name.to_string() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// It is leaving or a fallback itself, so it is not counted on.
    Excluded,
    /// It is not Ready.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// It has a taint that the pod does not tolerate.
    Taint(String),
    /// The pod's node selector or node affinity does not allow it.
    NodeAffinity,
    /// A volume of the pod cannot be used there: the claim's name.
    Volume(String),
    /// It cannot be said where a volume of the pod may be used: the claim's name.
    VolumeUnknown(String),
    /// It cannot attach more volumes of this driver.
    VolumeLimit(String),
    /// It has not enough of this resource left.
    Insufficient(String),
    /// It runs as many pods as it may.
    TooManyPods,
    /// The port is taken.
    HostPort(u16),
    /// The pods that this pod wants to be near are not there.
    PodAffinity,
    /// A pod is there that this pod, or which this pod, must not be near.
    PodAntiAffinity,
    /// The pods would be spread unevenly over this label.
    TopologySpread(String),
    /// The pod asks for something that is not checked.
    NotUnderstood(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => write!(f, "leaving or fallback, not counted on"),
            Self::NotReady => write!(f, "not ready"),
            Self::Cordoned => write!(f, "cordoned"),
            Self::Taint(taint) => write!(f, "taint {taint} not tolerated"),
            Self::NodeAffinity => write!(f, "node selector or node affinity does not match"),
            Self::Volume(claim) => write!(f, "volume of claim {claim} is elsewhere"),
            Self::VolumeUnknown(claim) => write!(f, "where the volume of claim {claim} can go is not known"),
            Self::VolumeLimit(driver) => write!(f, "no more volumes of {driver}"),
            Self::Insufficient(resource) => write!(f, "insufficient {resource}"),
            Self::TooManyPods => write!(f, "too many pods"),
            Self::HostPort(port) => write!(f, "host port {port} is taken"),
            Self::PodAffinity => write!(f, "pods of its pod affinity are not there"),
            Self::PodAntiAffinity => write!(f, "pod anti-affinity"),
            Self::TopologySpread(key) => write!(f, "topology spread over {key}"),
            Self::NotUnderstood(what) => write!(f, "not checked: {what}"),
        }
    }
}

/// How many nodes are out for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The first reason of each of these nodes.
    pub reason: Reason,
    /// How many they are.
    pub nodes: usize,
}

/// Why no node can take a pod, the reason of most nodes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons(pub Vec<ReasonCount>);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "there is no node");
        }
        for (i, ReasonCount { reason, nodes }) in self.0.iter().enumerate() {
            let (gap, plural) = (if i == 0 { "" } else { "; " }, if *nodes == 1 { "" } else { "s" });
            write!(f, "{gap}{nodes} node{plural}: {reason}")?;
        }
        Ok(())
    }
}

/// A pod that found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The pod.
    pub pod: PodName,
    /// Why each node is out, after the other pods were placed.
    pub reasons: Reasons,
}

/// What [`place`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Pods without a node in the first packing that failed. Empty: the pods fit.
    pub unplaced: Vec<Unplaced>,
    /// Another packing placed them all: the scheduler may succeed, or may not.
    pub fits_in_some_order: bool,
    /// No choice of the scheduler can leave a pod without a node.
    pub certain: bool,
    /// The first packing: each pod that found a node and that node's name.
    pub example: Vec<(PodName, Arc<str>)>,
    /// How many packings were tried.
    pub packings: usize,
    /// It cannot be said whether they fit: finding out is more work than a check may be.
    pub gave_up: Option<TooMuch>,
}

impl Placement {
    fn given_up(why: TooMuch) -> Self {
        Self { gave_up: Some(why), ..Self::default() }
    }

    /// Whether all pods find a place, in whatever order.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.unplaced.is_empty() && self.gave_up.is_none()
    }
}

/// Places all the pods together on the nodes of `onto` that are not excluded.
///
/// The pods may be in `onto` still: they are counted at their new place only. Pods that wait for a node take
/// room first. A node that is excluded goes on counting as a domain of topology spread, as it does for the
/// scheduler while it is drained.
#[must_use]
pub fn place(
    pods: &[&Pod],
    onto: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
) -> Placement {
    place_within(pods, onto, excluded, options, &Effort::of(options.effort))
}

/// The same with what is left of a check's effort.
pub(super) fn place_within(
    pods: &[&Pod],
    onto: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
    effort: &Effort,
) -> Placement {
    place_with(pods, onto, excluded, options, None, effort).unwrap_or_else(Placement::given_up)
}

/// Whether the rest of the cluster and `new_node` together can take the pods of a node that is replaced.
///
/// `new_node` may be in the snapshot already. The DaemonSet pods among `old_node_pods` do not move; for each
/// whose DaemonSet has no pod on the new node yet, its room there is kept free.
#[must_use]
pub fn can_take(
    old_node_pods: &[&Pod],
    new_node: &Node,
    snapshot: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
) -> Placement {
    let effort = Effort::of(options.effort);
    let Ok(reserved) = reserved(old_node_pods, new_node, snapshot, &effort) else {
        return Placement::given_up(TooMuch);
    };
    let moving: Vec<&Pod> = old_node_pods
        .iter()
        .copied()
        .filter(|p| !p.phase.finished() && !p.terminating())
        .filter(|p| !matches!(p.owner.kind, OwnerKind::DaemonSet | OwnerKind::Mirror))
        .collect();
    place_with(&moving, snapshot, excluded, options, Some((new_node, reserved)), &effort)
        .unwrap_or_else(Placement::given_up)
}

/// What the DaemonSets whose pods are on the old node and not on the new one yet will ask for there.
fn reserved(
    old_node_pods: &[&Pod],
    new_node: &Node,
    snapshot: &Snapshot,
    effort: &Effort,
) -> Result<Resources, TooMuch> {
    let there: HashSet<_> = snapshot.pods_on(&new_node.name).map(|p| (&p.namespace, &p.owner)).collect();
    let mut reserved = Resources::default();
    for pod in old_node_pods.iter().filter(|p| p.owner.kind == OwnerKind::DaemonSet && !p.phase.finished()) {
        let compared = pod.spec.tolerations.len().saturating_mul(new_node.taints.len());
        effort.spend(1 + compared + reserved.extended.len() + pod.spec.requests.extended.len())?;
        if pod.spec.untolerated(new_node).is_none() && !there.contains(&(&pod.namespace, &pod.owner)) {
            crate::cluster::add(&mut reserved, &pod.spec.requests);
        }
    }
    Ok(reserved)
}

fn place_with(
    pods: &[&Pod],
    onto: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
    extra: Option<(&Node, Resources)>,
    effort: &Effort,
) -> Result<Placement, TooMuch> {
    let below = options.placeholders_below;
    let (idle, movers): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().copied().partition(|pod| pod.spec.is_placeholder(below));
    if movers.is_empty() {
        return Ok(Placement { fits_in_some_order: true, certain: true, ..Placement::default() });
    }
    // Placeholders make room for those who preempt; before others they may get there first.
    let free_below = below.filter(|_| movers.iter().all(|pod| !pod.spec.never_preempts));
    let mut packer = Packer::new(&movers, &idle, onto, excluded, free_below, extra, effort)?;
    packer.find_candidates()?;
    let certain = packer.incoming.iter().all(|i| !i.moves || packer.classes[i.class].certified);
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let mut result = Placement { certain, ..Placement::default() };
    for packing in packer.packings(certain, options, &mut rng)? {
        let placed = packer.pack(&packing, &mut rng)?;
        result.packings += 1;
        let missing: Vec<usize> =
            (0..placed.len()).filter(|i| packer.incoming[*i].moves && placed[*i].is_none()).collect();
        if missing.is_empty() {
            result.fits_in_some_order = true;
        }
        if result.packings == 1 {
            result.example = packer.named(&placed);
        }
        if !missing.is_empty() && result.unplaced.is_empty() {
            result.unplaced = packer.explain(&missing)?;
            result.certain = false;
        }
        // The four fixed packings are enough to tell "never" from "not always".
        if !result.unplaced.is_empty() && (result.fits_in_some_order || result.packings > 4) {
            break;
        }
    }
    if result.fits() && !certain && packer.incoming.len() <= SEARCHED {
        let mut steps = options.search_steps;
        packer.clear();
        let mut left: Vec<usize> = (0..packer.incoming.len()).collect();
        if let Some(stuck) = packer.search(&mut left, &mut steps)? {
            result.certain = stuck.is_empty();
            result.unplaced = packer.explain(&stuck)?;
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests;
