//! Box 9: may this on-demand node be drained?
//!
//! Yes if all its pods find a place together on the rest of the cluster, every PodDisruptionBudget lets them
//! go, and the pool keeps its buffer. If not, the report says what is in the way and what would clear it.

use crate::cluster::{Pod, Snapshot};
use crate::drain::{self, DrainPolicy, PodFate, Purpose};
use crate::effort::{Effort, TooMuch};
use crate::placement::{ExcludedNodes, PlacementOptions, PodName, place_within};
use crate::policy::Policy;
pub use crate::reason::Blocker;
pub use buffer::{Utilisation, pool_utilisation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

mod budgets;
mod buffer;
mod context;

/// What counts as safe.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyPolicy {
    /// How full the pool may be afterwards, as a share of each resource.
    pub max_utilisation: f64,
    /// By how much more than before the replacement, in any case. A cluster that always runs fuller than
    /// `max_utilisation` must still find its way back.
    pub utilisation_slack: f64,
    /// Which pods may be evicted.
    pub drain: DrainPolicy,
    /// How the placement check goes about it.
    pub placement: PlacementOptions,
}

impl Default for SafetyPolicy {
    fn default() -> Self {
        Self {
            max_utilisation: 0.75,
            utilisation_slack: 0.05,
            drain: DrainPolicy::default_for(Purpose::Return),
            placement: PlacementOptions::default(),
        }
    }
}

impl SafetyPolicy {
    /// The part of a pool's settings that counts here.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            max_utilisation: f64::from(policy.max_utilisation_percent) / 100.0,
            utilisation_slack: f64::from(policy.utilisation_slack_percent) / 100.0,
            drain: DrainPolicy::of(policy, Purpose::Return, false),
            placement: PlacementOptions::of(policy),
        }
    }
}

/// What the snapshot does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SafetyContext {
    /// Nodes not to count on: other fallback nodes and nodes in a replacement.
    pub excluded: ExcludedNodes,
    /// The nodes of the pool's two groups.
    pub pool_nodes: BTreeSet<Arc<str>>,
    /// How full the pool was before the replacement began, if that was recorded.
    pub utilisation_before_story: Option<Utilisation>,
    /// The key of the taint that a drain sets.
    pub taint_key: Arc<str>,
}

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
    node: &str,
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
        match drain::classify(pod, &policy.drain, Purpose::Return) {
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

/// What a check says that was given up.
fn check_too_large(snapshot: &Snapshot) -> Blocker {
    Blocker::CheckTooLarge { heaviest: snapshot.heaviest().map(PodName::from) }
}

/// The budgets that have too little room for the node's pods now: the one part of [`check_return`] that
/// changes with every eviction, for a look just before a return begins. It is looked at by those who have
/// other things to do, so it may be little work.
#[must_use]
pub fn shut_budgets(node: &str, snapshot: &Snapshot, policy: &Policy) -> Vec<Blocker> {
    let moving: Vec<&Pod> = snapshot.pods_on(node).filter(|pod| drain::must_move(pod)).collect();
    budgets::blockers(&moving, snapshot, policy.placeholders_below(), &Effort::of(GLANCE_EFFORT))
        .unwrap_or_else(|TooMuch| vec![check_too_large(snapshot)])
}

/// How much work a look may be that others wait for.
pub(super) const GLANCE_EFFORT: u64 = 100_000;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
