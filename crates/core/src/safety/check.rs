//! The whole check, and the look at its budgets alone.

use super::policy::{GLANCE_EFFORT, SafetyContext, SafetyPolicy};
use super::utilisation::Utilisation;
use super::{budgets, buffer};
use crate::cluster::{Pod, Snapshot};
use crate::drain::{self, PodFate};
use crate::effort::{Effort, TooMuch};
use crate::ids::NodeName;
use crate::placement::{PodName, place_within};
use crate::policy::Policy;
use crate::reason::{Blocker, ShutBudget};
use serde::{Deserialize, Serialize};

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
    let mut moving: Vec<&Pod> = Vec::new();
    for pod in snapshot.pods_on(node) {
        match drain::classify(pod, &policy.drain) {
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
    match budgets::blockers(&moving, snapshot, policy.placement.placeholders_below, &effort) {
        Ok(shut) => blockers.extend(shut),
        Err(TooMuch) => too_large = true,
    }
    for pod in &moving {
        match effort.spend(2 * pod.spec.tolerations.len()) {
            Err(TooMuch) => too_large = true,
            Ok(()) if drain::ignores_marks(pod, &context.taint_key) => {
                blockers.push(Blocker::ToleratesDrain { pod: (*pod).into() });
            }
            Ok(()) => {}
        }
    }

    let excluded = context.excluded.and(node);
    let placement = place_within(&moving, snapshot, &excluded, &policy.placement, &effort);
    too_large |= placement.gave_up.is_some();
    blockers.extend(placement.unplaced.into_iter().map(|u| Blocker::PodDoesNotFit {
        pod: u.pod,
        reasons: u.reasons,
        fits_in_some_order: placement.fits_in_some_order,
    }));

    // Next to the rest this is little, so it is known also where the rest is not.
    let effort = Effort::of(policy.placement.effort);
    let judged = buffer::judge(node, &moving, &excluded, snapshot, policy, context, &effort);
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
    let mut found = shut_budgets(node, snapshot, policy);
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
pub fn shut_budgets(node: &NodeName, snapshot: &Snapshot, policy: &Policy) -> Vec<Blocker> {
    let moving: Vec<&Pod> = snapshot.pods_on(node).filter(|pod| drain::must_move(pod)).collect();
    budgets::blockers(&moving, snapshot, policy.placeholders_below(), &Effort::of(GLANCE_EFFORT))
        .unwrap_or_else(|TooMuch| vec![check_too_large(snapshot)])
}
