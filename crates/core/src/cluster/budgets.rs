//! The budgets, and which of them may cover a pod: each is found by one label that its selector asks for, so
//! that a pod is compared with few of them.

use super::budget::DisruptionBudget;
use super::labels::LabelSelector;
use super::pod::Pod;
use crate::effort::{Effort, TooMuch};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Names of budgets.
type Names = BTreeSet<Arc<str>>;

/// All budgets, by namespace and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Budgets {
    list: Vec<DisruptionBudget>,
    // Copied only if a selector changes while an older snapshot is in use.
    index: Arc<HashMap<Arc<str>, InNamespace>>,
}

#[derive(Clone, Debug, Default)]
struct InNamespace {
    /// By the key and the value of a label that a pod must have.
    by_label: HashMap<Arc<str>, HashMap<Arc<str>, Names>>,
    /// Those whose selector asks for no such label.
    others: Names,
}

impl InNamespace {
    fn names(&mut self, budget: &DisruptionBudget) -> &mut Names {
        match budget.selector.as_ref().and_then(LabelSelector::required_label) {
            Some((key, value)) => {
                self.by_label.entry(key.into()).or_default().entry(value.into()).or_default()
            }
            None => &mut self.others,
        }
    }
}

impl Budgets {
    pub(super) fn all(&self) -> &[DisruptionBudget] {
        &self.list
    }

    /// Those that cover the pod, by name.
    pub(super) fn of<'s>(&'s self, pod: &Pod, effort: &Effort) -> Result<Vec<&'s DisruptionBudget>, TooMuch> {
        let Some(index) = self.index.get(&pod.namespace) else { return Ok(Vec::new()) };
        effort.spend(1 + pod.labels.len())?;
        let labels = pod.labels.iter().filter_map(|(key, value)| index.by_label.get(key)?.get(value));
        let mut covering = Vec::new();
        for name in labels.flatten().chain(&index.others) {
            // Finding it costs about as much as a few labels.
            effort.spend(4)?;
            let found = self.position(&pod.namespace, name).ok().and_then(|at| self.list.get(at));
            if let Some(budget) = found {
                effort.spend(budget.selector.as_ref().map_or(0, LabelSelector::weight))?;
                if budget.covers(pod) {
                    covering.push(budget);
                }
            }
        }
        covering.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(covering)
    }

    pub(super) fn set(&mut self, budget: DisruptionBudget) {
        match self.position(&budget.namespace, &budget.name) {
            Ok(at) if self.list[at].selector == budget.selector => self.list[at] = budget,
            Ok(at) => {
                let before = std::mem::replace(&mut self.list[at], budget.clone());
                self.forget(&before);
                self.know(&budget);
            }
            Err(at) => {
                self.know(&budget);
                self.list.insert(at, budget);
            }
        }
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        if let Ok(at) = self.position(namespace, name) {
            let budget = self.list.remove(at);
            self.forget(&budget);
        }
    }

    fn know(&mut self, budget: &DisruptionBudget) {
        let index = Arc::make_mut(&mut self.index).entry(budget.namespace.clone()).or_default();
        index.names(budget).insert(budget.name.clone());
    }

    fn forget(&mut self, budget: &DisruptionBudget) {
        if let Some(index) = Arc::make_mut(&mut self.index).get_mut(&budget.namespace) {
            index.names(budget).remove(&budget.name);
        }
    }

    fn position(&self, namespace: &str, name: &str) -> Result<usize, usize> {
        self.list.binary_search_by(|budget| (&*budget.namespace, &*budget.name).cmp(&(namespace, name)))
    }
}
