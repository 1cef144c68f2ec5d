//! Box 9: may this on-demand node be drained?
//!
//! Yes if all its pods find a place together on the rest of the cluster, every PodDisruptionBudget lets them
//! go, and the pool keeps its buffer. If not, the report says what is in the way and what would clear it.

use crate::core::cluster::{DisruptionBudget, Pod, Resources, Snapshot};
use crate::core::drain::{self, BlockedReason, BudgetView, DrainPolicy, Purpose, Verdict};
use crate::core::placement::{ExcludedNodes, PlacementOptions, PodName, Reasons, place};
use crate::core::policy::Policy;
use crate::core::record::UtilisationPercent;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

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

impl From<UtilisationPercent> for Utilisation {
    fn from(percent: UtilisationPercent) -> Self {
        Self { cpu: f64::from(percent.cpu) / 100.0, memory: f64::from(percent.memory) / 100.0 }
    }
}

impl From<Utilisation> for UtilisationPercent {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, not negative")]
    fn from(share: Utilisation) -> Self {
        let percent = |share: f64| (share * 100.0).ceil() as u32;
        Self { cpu: percent(share.cpu), memory: percent(share.memory) }
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
}

/// What pods have reserved, as a share of what the nodes have (1 is all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Utilisation {
    /// Of CPU.
    pub cpu: f64,
    /// Of memory.
    pub memory: f64,
}

/// A resource that the buffer is kept of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BufferResource {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
}

impl fmt::Display for BufferResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
        })
    }
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
    /// A budget has no disruption left.
    BudgetExhausted {
        /// The budget.
        budget: PodName,
        /// The node's pods that need it.
        pods: Vec<PodName>,
        /// Its healthy pods.
        current_healthy: i64,
        /// The healthy pods it wants.
        desired_healthy: i64,
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
    /// The pool would be too full.
    BufferExceeded {
        /// Of what.
        resource: BufferResource,
        /// The share in use afterwards.
        after: f64,
        /// The share that may be in use.
        limit: f64,
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
            Self::BudgetExhausted { budget, pods, current_healthy, desired_healthy } => write!(
                f,
                "PodDisruptionBudget {budget} allows no disruption ({current_healthy} healthy, \
                 {desired_healthy} wanted), and {} of the node's pods need it",
                pods.len()
            ),
            Self::BudgetNotObserved { budget } => {
                write!(f, "PodDisruptionBudget {budget} was changed and its status is not up to date yet")
            }
            Self::SeveralBudgets { pod, budgets } => {
                let names: Vec<&str> = budgets.iter().map(|b| b.name.as_str()).collect();
                write!(f, "pod {pod} is covered by several PodDisruptionBudgets ({})", names.join(", "))
            }
            Self::NotEvictable { pod, reason } => write!(f, "pod {pod} must not be evicted: {reason}"),
            Self::BufferExceeded { resource, after, limit } => write!(
                f,
                "the pool would use {:.1} % of its {resource}, the limit is {:.1} %",
                after * 100.0,
                limit * 100.0
            ),
        }
    }
}

impl Blocker {
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
            Self::BudgetExhausted { .. } => {
                "more healthy pods of the application, or a budget that allows at least one disruption"
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
    blockers.extend(budget_blockers(&moving, snapshot));

    let excluded = context.excluded.and(node);
    let placement = place(&moving, snapshot, &excluded, &policy.placement);
    blockers.extend(placement.unplaced.into_iter().map(|u| Blocker::PodDoesNotFit {
        pod: u.pod,
        reasons: u.reasons,
        fits_in_some_order: placement.fits_in_some_order,
    }));

    let (utilisation_before, utilisation_after) =
        utilisation(node, &moving, &excluded, snapshot, policy, context);
    blockers.extend(buffer_blockers(utilisation_after, policy, context));
    SafetyReport {
        safe: blockers.is_empty(),
        blockers,
        utilisation_before,
        utilisation_after,
        pods_to_move: moving.into_iter().map(PodName::from).collect(),
    }
}

/// The budgets that let none of the node's pods go now: the one part of [`check_return`] that changes with every
/// eviction, for a look just before a return begins.
#[must_use]
pub fn shut_budgets(node: &str, snapshot: &Snapshot) -> Vec<Blocker> {
    let moving: Vec<&Pod> = snapshot.pods_on(node).filter(|pod| drain::must_move(pod)).collect();
    budget_blockers(&moving, snapshot)
}

/// A budget with room for one disruption can be drained pod by pod, as each becomes ready elsewhere. So what
/// blocks is a budget without room, however many of the node's pods share it.
fn budget_blockers(moving: &[&Pod], snapshot: &Snapshot) -> Vec<Blocker> {
    let name =
        |b: &DisruptionBudget| PodName { namespace: b.namespace.to_string(), name: b.name.to_string() };
    let mut exhausted: BTreeMap<PodName, (&DisruptionBudget, Vec<PodName>)> = BTreeMap::new();
    let mut stale: BTreeSet<PodName> = BTreeSet::new();
    let mut several = Vec::new();
    for pod in moving {
        match drain::budget_view(pod, snapshot.budgets().iter()) {
            BudgetView::Free | BudgetView::Spends(_) => {}
            BudgetView::Exhausted(budget) => {
                exhausted.entry(name(budget)).or_insert((budget, Vec::new())).1.push((*pod).into());
            }
            BudgetView::NotObserved(budget) => {
                stale.insert(name(budget));
            }
            BudgetView::Several(budgets) => {
                let budgets = budgets.into_iter().map(name).collect();
                several.push(Blocker::SeveralBudgets { pod: (*pod).into(), budgets });
            }
        }
    }
    let exhausted = exhausted.into_iter().map(|(name, (budget, pods))| Blocker::BudgetExhausted {
        budget: name,
        pods,
        current_healthy: budget.current_healthy,
        desired_healthy: budget.desired_healthy,
    });
    let stale = stale.into_iter().map(|budget| Blocker::BudgetNotObserved { budget });
    exhausted.chain(stale).chain(several).collect()
}

fn buffer_blockers(after: Utilisation, policy: &SafetyPolicy, context: &SafetyContext) -> Vec<Blocker> {
    let story = context.utilisation_before_story;
    let limit = |before: Option<f64>| {
        before.map_or(policy.max_utilisation, |b| policy.max_utilisation.max(b + policy.utilisation_slack))
    };
    let all = [
        (BufferResource::Cpu, after.cpu, limit(story.map(|s| s.cpu))),
        (BufferResource::Memory, after.memory, limit(story.map(|s| s.memory))),
    ];
    all.into_iter()
        // A share that only rounding puts over the limit is at the limit.
        .filter(|(_, after, limit)| *after > *limit + 1e-9)
        .map(|(resource, after, limit)| Blocker::BufferExceeded { resource, after, limit })
        .collect()
}

#[derive(Clone, Copy, Default)]
struct Sum {
    cpu: (i64, i64),
    memory: (i64, i64),
}

impl Sum {
    fn add(&mut self, used: &Resources) {
        self.cpu.0 = self.cpu.0.saturating_add(used.cpu_millis);
        self.memory.0 = self.memory.0.saturating_add(used.memory);
    }

    fn shares(&self) -> Utilisation {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = |(used, has): (i64, i64)| match (used, has) {
            (0, 0) => 0.0,
            (_, ..=0) => 1.0,
            (used, has) => used as f64 / has as f64,
        };
        Utilisation { cpu: share(self.cpu), memory: share(self.memory) }
    }
}

/// How full the pool is with the node and would be without it. Only nodes that pods can be placed on count.
///
/// All pods that move are counted in the pool, even if some would go elsewhere.
fn utilisation(
    leaving: &str,
    moving: &[&Pod],
    excluded: &ExcludedNodes,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
    context: &SafetyContext,
) -> (Utilisation, Utilisation) {
    let mut rest = Sum::default();
    let mut before = Sum::default();
    let counts = |pod: &&Pod| {
        let placeholder = policy.placement.placeholders_below.is_some_and(|p| pod.spec.priority < p);
        !pod.phase.finished() && !placeholder
    };
    for name in &context.pool_nodes {
        let Some(node) = snapshot.node(name) else { continue };
        if &**name == leaving || excluded.contains(name) || !node.ready || node.unschedulable {
            continue;
        }
        rest.cpu.1 = rest.cpu.1.saturating_add(node.allocatable.cpu_millis);
        rest.memory.1 = rest.memory.1.saturating_add(node.allocatable.memory);
        match (policy.placement.placeholders_below, snapshot.node_index(name)) {
            (None, Some(index)) => rest.add(snapshot.used(index)),
            _ => snapshot.pods_on(name).filter(counts).for_each(|p| rest.add(&p.spec.requests)),
        }
    }
    if let Some(node) = snapshot.node(leaving) {
        before = rest;
        before.cpu.1 = before.cpu.1.saturating_add(node.allocatable.cpu_millis);
        before.memory.1 = before.memory.1.saturating_add(node.allocatable.memory);
        snapshot.pods_on(leaving).filter(counts).for_each(|p| before.add(&p.spec.requests));
    }
    let mut after = rest;
    moving.iter().filter(|p| counts(p)).for_each(|p| after.add(&p.spec.requests));
    (before.shares(), after.shares())
}

/// How full the nodes are that pods can be placed on: what a story records when it begins.
#[must_use]
pub fn pool_utilisation(
    pool_nodes: &BTreeSet<Arc<str>>,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
) -> Utilisation {
    let context = SafetyContext { pool_nodes: pool_nodes.clone(), ..SafetyContext::default() };
    utilisation("", &[], &ExcludedNodes::default(), snapshot, policy, &context).1
}

#[cfg(test)]
mod tests;
