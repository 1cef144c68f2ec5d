//! Disruption budgets.

use super::labels::LabelSelector;
use super::pod::Pod;
use std::sync::Arc;

/// What a budget says of pods that are not ready (`unhealthyPodEvictionPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnhealthyPods {
    /// They may go while enough others are healthy. The default.
    #[default]
    IfHealthyBudget,
    /// They may always go.
    AlwaysAllow,
    /// The policy is one that we do not know: they never go without the budget (API Reference,
    /// `unhealthyPodEvictionPolicy`).
    Unknown,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// Its namespace: it holds for pods there.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its pods; `None` means none.
    pub selector: Option<LabelSelector>,
    /// How many healthy pods may go now.
    pub disruptions_allowed: i64,
    /// The status belongs to the newest spec.
    pub observed: bool,
    /// Healthy pods now.
    pub current_healthy: i64,
    /// Healthy pods it wants.
    pub desired_healthy: i64,
    /// The pods there are to be: what their controllers want, or, if `minAvailable` is a number, those there
    /// are.
    pub expected_pods: i64,
    /// What it says of pods that are not ready.
    pub unhealthy_pods: UnhealthyPods,
}

impl DisruptionBudget {
    /// Whether the budget holds for the pod.
    #[must_use]
    pub fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}
