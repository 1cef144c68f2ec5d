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
//! Preemption is not counted on, but for placeholder pods if the pool has them, and nodes that are cordoned
//! or not ready are not used. The rules are those of the scheduler's filter plugins
//! (pkg/scheduler/framework/plugins), named where they are applied.

mod answer;
mod candidates;
mod counters;
mod explain;
mod obstacles;
mod options;
mod packer;
mod packings;
mod room;
mod rules;
mod search;
#[cfg(test)]
mod tests;

pub use crate::reason::{NodeReason, PodName, ReasonCount, Reasons, Unplaced};
pub use answer::Placement;
pub use options::{CHECK_EFFORT, ExcludedNodes, PlacementOptions};

use crate::cluster::{Node, OwnerKind, Pod, Resources, Snapshot};
use crate::effort::{Effort, TooMuch};
use packer::Packer;
use std::collections::HashSet;

/// Of more pods than this no search would come to an end, and it goes as deep as there are pods.
const SEARCHED: usize = 500;

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
    place_within(pods, &[], onto, excluded, options, &Effort::of(options.effort))
}

/// The same with what is left of a check's effort. The pods of `beside` leave other nodes: they take room
/// first, too, and need no place for an answer.
pub(super) fn place_within(
    pods: &[&Pod],
    beside: &[&Pod],
    onto: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
    effort: &Effort,
) -> Placement {
    place_with(pods, beside, onto, excluded, options, None, effort).unwrap_or_else(Placement::given_up)
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
        .filter(|p| !p.phase.finished() && (!p.terminating() || p.comes_after_its_end()))
        .filter(|p| !matches!(p.owner.kind, OwnerKind::DaemonSet | OwnerKind::Mirror))
        .collect();
    place_with(&moving, &[], snapshot, excluded, options, Some((new_node, reserved)), &effort)
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
    beside: &[&Pod],
    onto: &Snapshot,
    excluded: &ExcludedNodes,
    options: &PlacementOptions,
    extra: Option<(&Node, Resources)>,
    effort: &Effort,
) -> Result<Placement, TooMuch> {
    let below = options.placeholders_below;
    let (mut idle, movers): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().copied().partition(|pod| pod.spec.is_placeholder(below));
    if movers.is_empty() {
        return Ok(Placement { fits_in_some_order: true, certain: true, ..Placement::default() });
    }
    idle.extend(beside);
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
