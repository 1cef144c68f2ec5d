//! Whether the PodDisruptionBudgets that the pods of a node share let all of them go.
//!
//! Evictions go one after another, and each pod that comes back elsewhere gives its disruption back. So a
//! budget with room for one is enough for many, as long as it has room when all pods are there. What does not
//! come back (no controller makes it anew, or it is one more than there are to be) takes its part for good.

use crate::cluster::{DisruptionBudget, Node, OwnerKind, Pod, Snapshot};
use crate::drain::{self, BudgetView};
use crate::effort::{Effort, TooMuch};
use crate::placement::PodName;
use crate::reason::{Blocker, ShutBudget};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many of the budgets that cover one pod are named.
const NAMED: usize = 10;

/// The node's pods under one budget.
struct Shared<'a> {
    budget: &'a DisruptionBudget,
    pods: Vec<PodName>,
    /// Those that do not come back.
    for_good: usize,
    /// Those that come back only once all of them are gone.
    clinging: usize,
    /// Whether pods of another node leave under it: they come first, one at a time.
    is_taken: bool,
}

impl Shared<'_> {
    /// How many disruptions it takes until all are gone.
    fn needed(&self) -> i64 {
        let coming_back = self.pods.len() - self.for_good;
        let opens_again = self.budget.expected_pods > self.budget.desired_healthy;
        let at_a_time = if opens_again { coming_back.min(1).max(self.clinging) } else { coming_back };
        i64::try_from(self.for_good + at_a_time + usize::from(self.is_taken)).unwrap_or(i64::MAX)
    }

    fn blocker(self, name: PodName) -> Option<Blocker> {
        let (needed, budget) = (self.needed(), self.budget);
        let shut = ShutBudget {
            budget: name,
            pods: self.pods,
            for_good: self.for_good,
            needed,
            allowed: budget.disruptions_allowed,
            current_healthy: budget.current_healthy,
            desired_healthy: budget.desired_healthy,
            expected_pods: budget.expected_pods,
        };
        (budget.disruptions_allowed < needed).then_some(Blocker::BudgetExhausted(shut))
    }
}

/// What the budgets of the pods that move have against it. `leaving` are the pods that are to leave other
/// nodes.
///
/// # Errors
/// If finding out is more work than `effort` has left.
pub(super) fn blockers(
    moving: &[&Pod],
    leaving: &[&Pod],
    snapshot: &Snapshot,
    placeholders_below: Option<i32>,
    effort: &Effort,
) -> Result<Vec<Blocker>, TooMuch> {
    let name =
        |b: &DisruptionBudget| PodName { namespace: b.namespace.to_string(), name: b.name.to_string() };
    let mut shared: BTreeMap<PodName, Shared<'_>> = BTreeMap::new();
    let mut stale: BTreeSet<PodName> = BTreeSet::new();
    let mut several = Vec::new();
    for pod in moving {
        match drain::budget_view(pod, snapshot.budgets_of(pod, effort)?) {
            BudgetView::Free => {}
            BudgetView::Spends(budget) | BudgetView::Exhausted(budget) => {
                let none = Shared { budget, pods: Vec::new(), for_good: 0, clinging: 0, is_taken: false };
                let shared = shared.entry(name(budget)).or_insert(none);
                shared.pods.push((*pod).into());
                let for_good =
                    pod.owner.kind == OwnerKind::None || pod.spec.is_placeholder(placeholders_below);
                shared.for_good += usize::from(for_good);
                shared.clinging += usize::from(!for_good && clings(pod, moving, leaving, snapshot, effort)?);
            }
            BudgetView::NotObserved(budget) => {
                stale.insert(name(budget));
            }
            BudgetView::Several(budgets) => {
                let budgets = budgets.into_iter().take(NAMED).map(name).collect();
                several.push(Blocker::SeveralBudgets { pod: (*pod).into(), budgets });
            }
        }
    }
    if !shared.is_empty() {
        for pod in leaving.iter().filter(|pod| !pod.terminating()) {
            for budget in snapshot.budgets_of(pod, effort)? {
                if let Some(held) = shared.get_mut(&name(budget)) {
                    held.is_taken = true;
                }
            }
        }
    }
    let exhausted = shared.into_iter().filter_map(|(name, shared)| shared.blocker(name));
    let stale = stale.into_iter().map(|budget| Blocker::BudgetNotObserved { budget });
    Ok(exhausted.chain(stale).chain(several).collect())
}

/// Whether a pod has to be near pods that all leave with it: its successor finds no place while one of them
/// runs on the node, for only the first of its kind may go anywhere (interpodaffinity/filtering.go). Where
/// another node of the same place takes pods, it can go there.
fn clings(
    pod: &Pod,
    moving: &[&Pod],
    leaving: &[&Pod],
    snapshot: &Snapshot,
    effort: &Effort,
) -> Result<bool, TooMuch> {
    let own = pod.node.as_ref().and_then(|name| snapshot.node(name));
    for term in &pod.spec.pod_affinity {
        let Some(selector) = &term.selector else { continue };
        let is_own = term.namespaces.is_empty() && term.namespace_selector.is_none();
        // Which namespaces a selector means is not looked up: it may mean all that leave, and none that stay.
        let in_reach = |other: &Pod, by_selector: bool| match is_own {
            true => other.namespace == pod.namespace,
            false => by_selector || term.namespaces.contains(&other.namespace),
        };
        let by_selector = term.namespace_selector.is_some();
        let means = |other: &Pod| in_reach(other, by_selector) && selector.matches(&other.labels);
        let surely_means = |other: &Pod| in_reach(other, false) && selector.matches(&other.labels);
        effort.spend(selector.weight().saturating_mul(moving.len()))?;
        if !moving.iter().any(|other| other.uid != pod.uid && means(other)) {
            continue;
        }
        let place = own.and_then(|node| node.labels.get(&term.topology_key));
        effort.spend(snapshot.nodes().len() / 4)?;
        let is_alike = |other: &&Arc<Node>| {
            let takes_pods = other.ready && !other.unschedulable;
            takes_pods
                && Some(&other.name) != pod.node.as_ref()
                && other.labels.get(&term.topology_key) == place
        };
        if place.is_some() && snapshot.nodes().iter().any(|other| is_alike(&other)) {
            continue;
        }
        let leaving = [moving, leaving].concat();
        if !runs_elsewhere(&surely_means, selector.weight(), &leaving, snapshot, effort)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether such a pod runs that does not leave.
fn runs_elsewhere(
    means: &dyn Fn(&Pod) -> bool,
    weight: usize,
    leaving: &[&Pod],
    snapshot: &Snapshot,
    effort: &Effort,
) -> Result<bool, TooMuch> {
    for group in snapshot.groups() {
        effort.spend(weight / 4)?;
        let mut members = group.members.iter().map(|index| &snapshot.pods()[*index as usize]);
        if members.clone().next().is_some_and(|first| means(first)) {
            effort.spend(group.members.len().saturating_mul(leaving.len()))?;
            let stays = members.any(|other| {
                let runs = other.node.is_some() && !other.phase.finished() && !other.terminating();
                runs && leaving.iter().all(|gone| gone.uid != other.uid)
            });
            if stays {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
