//! The whole check, and the look at its budgets alone.

use super::policy::{Drains, GLANCE_EFFORT, SafetyContext, SafetyPolicy};
use super::utilisation::Utilisation;
use super::{budgets, buffer};
use crate::cluster::{Node, Pod, Snapshot};
use crate::drain::{self, PodFate, SkipReason};
use crate::effort::{Effort, TooMuch};
use crate::ids::NodeName;
use crate::placement::{PodName, place_within};
use crate::policy::Policy;
use crate::reason::{Blocker, ShutBudget};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The answer of [`check_return`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SafetyReport {
    /// Nothing stands against it.
    pub safe: bool,
    /// What does.
    pub blockers: Vec<Blocker>,
    /// How full the pool is now, the node included.
    pub utilisation_before: Utilisation,
    /// How full it would be without the node.
    pub utilisation_after: Utilisation,
    /// The pods that would move.
    pub pods_to_move: Vec<PodName>,
}

/// The pods of a node that have to run elsewhere when it goes.
pub fn moving<'s>(node: &NodeName, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s Pod> {
    snapshot.pods_on(node).filter(|pod| drain::must_move(pod))
}

/// The nodes but this one that are drained already and have pods that leave: those with the taint of a drain,
/// and those that are to have it.
pub fn drained_beside<'s>(
    node: &NodeName,
    snapshot: &'s Snapshot,
    drains: &Drains<'_>,
) -> impl Iterator<Item = &'s NodeName> {
    let is_marked = move |other: &&Arc<Node>| {
        drains.nodes.contains(&other.name) || other.taints.iter().any(|taint| &*taint.key == drains.taint_key)
    };
    let others = snapshot.nodes().iter().filter(move |other| other.name != *node).filter(is_marked);
    others.map(|other| &other.name).filter(|other| snapshot.pods_on(other).any(leaves))
}

/// The pods that leave other nodes: they come first in budgets, and need their place, too.
fn leaving<'s>(node: &NodeName, snapshot: &'s Snapshot, drains: &Drains<'_>) -> Vec<&'s Pod> {
    let drained = drained_beside(node, snapshot, drains);
    drained.flat_map(|other| snapshot.pods_on(other)).filter(|pod| leaves(pod)).collect()
}

/// Whether the pod goes with its node. One that terminates is followed by a pod that needs its place: not
/// every controller makes that before the old one is gone (StatefulSet, Job).
fn leaves(pod: &Pod) -> bool {
    matches!(
        drain::fate_under_notice(pod),
        PodFate::Evictable | PodFate::Skip(SkipReason::AlreadyTerminating)
    )
}

/// Whether the node can be drained and given back.
#[must_use]
pub fn check_return(
    node: &NodeName,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
    context: &SafetyContext,
) -> SafetyReport {
    let mut blockers = Vec::new();
    if snapshot.node(node).is_none() {
        blockers.push(Blocker::NodeUnknown { node: node.to_owned() });
    }
    let (mut moving, mut ending): (Vec<&Pod>, Vec<&Pod>) = Default::default();
    for pod in snapshot.pods_on(node) {
        match drain::classify(pod, &policy.drain, context.now) {
            PodFate::Skip(SkipReason::AlreadyTerminating) if pod.comes_after_its_end() => ending.push(pod),
            PodFate::Skip(_) => {}
            PodFate::Evictable => moving.push(pod),
            PodFate::Blocked(reason) => {
                moving.push(pod);
                blockers.push(Blocker::NotEvictable { pod: pod.into(), reason });
            }
        }
    }
    let effort = Effort::of(policy.placement.effort);
    let mut too_large = false;
    let leaving = leaving(node, snapshot, &context.drains());
    let placeholders_below = policy.placement.placeholders_below;
    match budgets::blockers(&moving, &leaving, snapshot, placeholders_below, &effort) {
        Ok(shut) => blockers.extend(shut),
        Err(TooMuch) => too_large = true,
    }
    for pod in &moving {
        let spent = effort.spend(2 * pod.spec.tolerations.len());
        too_large |= spent.is_err();
        if spent.is_ok() && drain::ignores_marks(pod, &context.taint_key) {
            blockers.push(Blocker::ToleratesDrain { pod: (*pod).into() });
        }
    }
    let excluded = context.excluded.and(node);
    let placed = [&moving[..], &ending].concat();
    let placement = place_within(&placed, &leaving, snapshot, &excluded, &policy.placement, &effort);
    too_large |= placement.gave_up.is_some();
    blockers.extend(placement.unplaced.into_iter().map(|u| Blocker::PodDoesNotFit {
        pod: u.pod,
        reasons: u.reasons,
        fits_in_some_order: placement.fits_in_some_order,
    }));

    // Pods of a node that still takes some are counted there.
    let is_apart = |pod: &&&Pod| {
        let node = pod.node.as_ref().filter(|node| context.pool_nodes.contains(*node));
        let node = node.and_then(|node| snapshot.node(node));
        node.is_some_and(|node| excluded.contains(&node.name) || !node.ready || node.unschedulable)
    };
    let beside: Vec<&Pod> = leaving.iter().filter(is_apart).copied().collect();
    // Next to the rest this is little, so it is known also where the rest is not.
    let effort = Effort::of(policy.placement.effort);
    let judged = buffer::judge(node, (&moving, &beside), &excluded, snapshot, policy, context, &effort);
    too_large |= judged.is_err();
    let (utilisation_before, utilisation_after, too_full) = judged.unwrap_or_default();
    blockers.extend(too_full);
    blockers.extend(too_large.then(|| check_too_large(snapshot)));
    SafetyReport {
        safe: blockers.is_empty(),
        blockers,
        utilisation_before,
        utilisation_after,
        pods_to_move: moving.into_iter().map(PodName::from).collect(),
    }
}

/// The budgets that hold the node's pods for good, as far as their specs say: a drain that has time would
/// never end.
#[must_use]
pub fn budgets_that_never_open(node: &NodeName, snapshot: &Snapshot, policy: &Policy) -> Vec<Blocker> {
    let mut found = shut(node, &[], snapshot, policy);
    let for_good = |shut: &ShutBudget| shut.allowed < 1 && shut.never_opens();
    found.retain(|blocker| matches!(blocker, Blocker::BudgetExhausted(shut) if for_good(shut)));
    found
}

/// What a check says that was given up.
fn check_too_large(snapshot: &Snapshot) -> Blocker {
    Blocker::CheckTooLarge { heaviest: snapshot.heaviest().map(PodName::from) }
}

/// The budgets that have too little room for the node's pods now: the one part of [`check_return`] that
/// changes with every eviction, for a look just before a return begins. It is looked at by those who have
/// other things to do, so it may be little work.
#[must_use]
pub fn shut_budgets(
    node: &NodeName,
    snapshot: &Snapshot,
    policy: &Policy,
    drains: &Drains<'_>,
) -> Vec<Blocker> {
    shut(node, &leaving(node, snapshot, drains), snapshot, policy)
}

fn shut(node: &NodeName, leaving: &[&Pod], snapshot: &Snapshot, policy: &Policy) -> Vec<Blocker> {
    let moving: Vec<&Pod> = moving(node, snapshot).collect();
    let effort = Effort::of(GLANCE_EFFORT);
    budgets::blockers(&moving, leaving, snapshot, policy.placeholders_below(), &effort)
        .unwrap_or_else(|TooMuch| vec![check_too_large(snapshot)])
}
