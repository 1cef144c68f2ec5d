//! Box 9: may this on-demand node be drained?
//!
//! Yes if all its pods find a place together on the rest of the cluster, every PodDisruptionBudget lets them
//! go, and the pool keeps its buffer. If not, the report says what is in the way and what would clear it.

use crate::cluster::{Pod, Snapshot};
use crate::drain::{self, BlockedReason, DrainPolicy, Purpose, Verdict};
use crate::effort::{Effort, TooMuch};
use crate::placement::{ExcludedNodes, PlacementOptions, PodName, Reasons, place_within};
use crate::policy::Policy;
pub use buffer::{Utilisation, pool_utilisation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

mod budgets;
mod buffer;
mod context;

/// What counts as safe.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyPolicy {
    /// How full the pool may be afterwards, as a share of each resource.
    pub max_utilisation: f64,
    /// By how much more than before the story, in any case. A cluster that always runs fuller than
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
    /// Nodes not to count on: other fallback nodes and nodes in a story.
    pub excluded: ExcludedNodes,
    /// The nodes of the pool's two groups.
    pub pool_nodes: BTreeSet<Arc<str>>,
    /// How full the pool was before the story began, if that was recorded.
    pub utilisation_before_story: Option<Utilisation>,
    /// The key of the taint that a drain sets.
    pub taint_key: Arc<str>,
}

/// Something that stands against the drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Blocker {
    /// The node is not in the cluster.
    NodeUnknown {
        /// Its name.
        node: String,
    },
    /// A pod finds no node, or may find none.
    PodDoesNotFit {
        /// The pod.
        pod: PodName,
        /// Why the nodes are out.
        reasons: Reasons,
        /// It found one when the pods were placed in another order.
        fits_in_some_order: bool,
    },
    /// A budget has too little room for the node's pods that share it, one after another.
    BudgetExhausted {
        /// The budget.
        budget: PodName,
        /// The node's pods that share it.
        pods: Vec<PodName>,
        /// How many of them do not come back elsewhere.
        for_good: usize,
        /// The disruptions that it takes until all are gone.
        needed: i64,
        /// The disruptions that it allows now.
        allowed: i64,
        /// Its healthy pods.
        current_healthy: i64,
        /// The healthy pods it wants.
        desired_healthy: i64,
        /// The pods there are to be.
        expected_pods: i64,
    },
    /// A budget's status is older than its spec.
    BudgetNotObserved {
        /// The budget.
        budget: PodName,
    },
    /// More than one budget covers a pod: the eviction API refuses that.
    SeveralBudgets {
        /// The pod.
        pod: PodName,
        /// The budgets.
        budgets: Vec<PodName>,
    },
    /// A pod must not be evicted.
    NotEvictable {
        /// The pod.
        pod: PodName,
        /// Why.
        reason: BlockedReason,
    },
    /// A pod may come back to the node: neither cordon nor taint keeps it away.
    IgnoresMarks {
        /// The pod.
        pod: PodName,
    },
    /// The pool would be too full.
    BufferExceeded {
        /// Of what, as Kubernetes calls the resource.
        resource: String,
        /// The share in use afterwards.
        after: f64,
        /// The share that may be in use.
        limit: f64,
    },
    /// It cannot be said whether it is safe: finding out is more work than a check may be.
    CheckTooLarge {
        /// The pod of the cluster whose rules are most to compare.
        heaviest: Option<PodName>,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeUnknown { node } => write!(f, "node {node} is not in the cluster"),
            Self::PodDoesNotFit { pod, reasons, fits_in_some_order: false } => {
                write!(f, "pod {pod} fits on no other node ({reasons})")
            }
            Self::PodDoesNotFit { pod, reasons, fits_in_some_order: true } => {
                write!(f, "pod {pod} may be left without a node, if other pods take its place ({reasons})")
            }
            Self::BudgetExhausted {
                budget,
                pods,
                for_good,
                needed,
                allowed,
                current_healthy,
                desired_healthy,
                expected_pods,
            } => {
                write!(f, "PodDisruptionBudget {budget} allows ")?;
                match allowed {
                    ..=0 => write!(f, "no disruption")?,
                    1 => write!(f, "1 disruption")?,
                    more => write!(f, "{more} disruptions")?,
                }
                write!(
                    f,
                    " ({current_healthy} healthy, {desired_healthy} wanted, {expected_pods} expected), and {} of \
                     the node's pods share it",
                    pods.len()
                )?;
                if *for_good > 0 {
                    write!(f, ", {for_good} of which do not come back")?;
                }
                if expected_pods <= desired_healthy {
                    write!(f, "; it wants all that are expected, so it never opens")?;
                }
                if *needed > 1 { write!(f, "; they take {needed}") } else { Ok(()) }
            }
            Self::BudgetNotObserved { budget } => {
                write!(f, "PodDisruptionBudget {budget} was changed and its status is not up to date yet")
            }
            Self::SeveralBudgets { pod, budgets } => {
                let names: Vec<&str> = budgets.iter().map(|b| b.name.as_str()).collect();
                write!(f, "pod {pod} is covered by several PodDisruptionBudgets ({})", names.join(", "))
            }
            Self::NotEvictable { pod, reason } => write!(f, "pod {pod} must not be evicted: {reason}"),
            Self::IgnoresMarks { pod } => write!(
                f,
                "pod {pod} tolerates cordon and taint of a drain, so the scheduler may place it on this node again"
            ),
            Self::BufferExceeded { resource, after, limit } => write!(
                f,
                "the pool would use {:.1} % of its {resource}, the limit is {:.1} %",
                after * 100.0,
                limit * 100.0
            ),
            Self::CheckTooLarge { heaviest } => {
                write!(f, "it cannot be said whether it is safe: {TooMuch}")?;
                match heaviest {
                    Some(pod) => write!(f, " (the pod with most rules is {pod})"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Blocker {
    /// What a check says that was given up.
    #[must_use]
    pub fn too_large(snapshot: &Snapshot) -> Self {
        Self::CheckTooLarge { heaviest: snapshot.heaviest().map(PodName::from) }
    }

    /// What it is and what would clear it, in one sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{self}; it would take {}", self.hint())
    }

    /// What would clear it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NodeUnknown { .. } => "nothing to do if the node is gone: its record is cleaned up",
            Self::PodDoesNotFit { fits_in_some_order: true, .. } => {
                "one more Spot node, or a little more room on the nodes that this pod can use"
            }
            Self::PodDoesNotFit { .. } => {
                "room on a node that the pod may use, or another request, selector or toleration of the pod"
            }
            Self::BudgetExhausted { desired_healthy, expected_pods, .. }
                if expected_pods <= desired_healthy =>
            {
                "more replicas of the application, or a budget that allows a disruption when all of them are healthy"
            }
            Self::BudgetExhausted { for_good: 1.., .. } => {
                "a budget that allows more disruptions, or the end of the pods that no controller makes anew"
            }
            Self::BudgetExhausted { .. } => {
                "more healthy pods of the application, or a budget with more room"
            }
            Self::BudgetNotObserved { .. } => "nothing to do: the disruption controller will see to it",
            Self::SeveralBudgets { .. } => "selectors that leave the pod with one budget",
            Self::NotEvictable { reason, .. } => match reason {
                BlockedReason::NotSafeToEvict | BlockedReason::DoNotDisrupt => {
                    "the pod's end, or another value of the annotation"
                }
                BlockedReason::Unmanaged => {
                    "deleting the pod, or a pool policy that evicts pods without a controller"
                }
                BlockedReason::EmptyDir => "a pool policy that evicts pods with an emptyDir",
            },
            Self::IgnoresMarks { .. } => {
                "tolerations of the pod that name what they are for, in place of one for every taint"
            }
            Self::CheckTooLarge { .. } => {
                "fewer pods with many affinity terms, topology spread constraints, ports or volumes"
            }
            Self::BufferExceeded { .. } => "more Spot capacity, fewer pods, or a higher limit for the pool",
        }
    }
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
            Verdict::Skip(_) => {}
            Verdict::Evictable => moving.push(pod),
            Verdict::Blocked(reason) => {
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
                blockers.push(Blocker::IgnoresMarks { pod: (*pod).into() });
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
    blockers.extend(too_large.then(|| Blocker::too_large(snapshot)));
    SafetyReport {
        safe: blockers.is_empty(),
        blockers,
        utilisation_before,
        utilisation_after,
        pods_to_move: moving.into_iter().map(PodName::from).collect(),
    }
}

/// The budgets that have too little room for the node's pods now: the one part of [`check_return`] that changes with
/// every eviction, for a look just before a return begins. It is looked at by those who have other things to do, so it
/// may be little work.
#[must_use]
pub fn shut_budgets(node: &str, snapshot: &Snapshot, policy: &Policy) -> Vec<Blocker> {
    let moving: Vec<&Pod> = snapshot.pods_on(node).filter(|pod| drain::must_move(pod)).collect();
    budgets::blockers(&moving, snapshot, policy.placeholders_below(), &Effort::of(GLANCE_EFFORT))
        .unwrap_or_else(|TooMuch| vec![Blocker::too_large(snapshot)])
}

/// How much work a look may be that others wait for.
pub(super) const GLANCE_EFFORT: u64 = 100_000;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
