//! The budgets of the pods that a drain evicts, and what they make it wait for.

use super::rules::Turn;
use crate::cluster::{DisruptionBudget, Pod, Snapshot};
use crate::effort::Effort;
use crate::placement::PodName;
use crate::reason::{Blocker, EvictionAnswer, Reason};
use std::collections::HashMap;
use std::sync::Arc;

/// How much work it may be to find the budgets of a node's pods, which is done with every change of a pod.
const BUDGETS_EFFORT: u64 = 100_000;

/// The budgets of each of these pods, by its UID, each by name.
#[derive(Default)]
pub(super) struct Covering<'s>(HashMap<Arc<str>, Vec<&'s DisruptionBudget>>);

impl<'s> Covering<'s> {
    /// Of pods whose budgets are too many to compare it is as if they had none: the eviction API has the last
    /// word anyway, and a drain must not wait for this one.
    pub(super) fn of(pods: &[Arc<Pod>], snapshot: &'s Snapshot) -> Self {
        let effort = Effort::of(BUDGETS_EFFORT);
        let known = |pod: &Arc<Pod>| Some((pod.uid.clone(), snapshot.budgets_of(pod, &effort).ok()?));
        Self(pods.iter().filter_map(known).collect())
    }

    pub(super) fn budgets(&self, pod: &Pod) -> &[&'s DisruptionBudget] {
        self.0.get(&pod.uid).map_or(&[], Vec::as_slice)
    }
}

/// Why the pod is not evicted now, if that is not for want of a free slot; `refusal` is the last answer that
/// was no.
pub(super) fn waits_for(pod: &Pod, turn: &Turn<'_>, refusal: Option<&EvictionAnswer>) -> Option<Reason> {
    match turn {
        Turn::AfterBudget(budget) if !budget.observed => {
            Some(Blocker::BudgetNotObserved { budget: name_of(budget) }.into())
        }
        Turn::AfterBudget(budget) if budget.disruptions_allowed < 1 => Some(Reason::BudgetShut {
            budget: name_of(budget),
            healthy: budget.current_healthy,
            required: budget.desired_healthy,
        }),
        Turn::Never(budgets) => {
            let budgets = budgets.iter().map(|budget| name_of(budget)).collect();
            Some(Blocker::SeveralBudgets { pod: pod.into(), budgets }.into())
        }
        // Its turn comes when others have had theirs.
        Turn::AfterBudget(_) | Turn::AfterOthers => None,
        Turn::Now => {
            refusal.map(|answer| Reason::EvictionRefused { pod: pod.into(), answer: answer.clone() })
        }
    }
}

fn name_of(budget: &DisruptionBudget) -> PodName {
    PodName { namespace: budget.namespace.to_string(), name: budget.name.to_string() }
}
