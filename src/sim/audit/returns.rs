//! Returns and evictions: only when it is safe, and within the disruption budgets.

use super::{Auditor, Invariant};
use crate::crd::NodeReplacement;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use spot_guard_cloud::cluster::ObjectKey;
use spot_guard_core::ids::GroupName;
use spot_guard_core::policy::seconds;
use spot_guard_core::record::{FallbackState, GroupKind};
use spot_guard_core::time::since;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

impl Auditor {
    pub(super) fn check_safe_return(
        &self,
        node: &str,
        record: &NodeReplacement,
        all: &[Arc<NodeReplacement>],
    ) {
        let Some(status) = &record.status else { return };
        let now = self.inner.clock.now();
        let stability = seconds(self.inner.policy.stability_seconds);
        let mut found = Vec::new();
        // A Spot node that is one more than the group is to have waits for no other.
        let surplus = status.capacity.taken().is_some_and(|capacity| capacity.group == GroupKind::Spot);
        // Nor does one whose Spot group replaces by itself, or that needs no Spot node, while the group is to
        // have none.
        let wants_nothing = status.is_replaced_by_group() && self.wants_nothing(status.spot_group.as_ref());
        match status.fallback.successor() {
            None if surplus || wants_nothing || status.old_node.is_retained() => {}
            None => found.push("Spot has nothing for it".to_owned()),
            Some(spot) => {
                let serves =
                    |instance: &str, node: &str| self.is_in_service(instance) && self.node_is_ready(node);
                // The Spot node may be replaced itself meanwhile, by one that serves.
                let by_its_own = || {
                    let of_it = all.iter().filter(|other| *other.spec.instance_id == *spot.instance_id);
                    let mut held = of_it.filter_map(|other| other.status.as_ref()?.capacity.taken());
                    held.any(|held| serves(&held.instance_id, &held.node_name))
                };
                if !serves(&spot.instance_id, &spot.node_name) && !by_its_own() {
                    found.push(format!("its Spot node {} does not serve", spot.node_name));
                }
                let asked = status.fallback.requested_at().is_some();
                if !asked && since(spot.ready_at, now) + self.inner.skew < stability {
                    found.push(format!(
                        "its Spot node {} is Ready only since {}",
                        spot.node_name, spot.ready_at
                    ));
                }
            }
        }
        let fallbacks: BTreeSet<String> = all
            .iter()
            .filter_map(|other| other.status.as_ref())
            .filter(|status| status.fallback.is_open())
            .filter_map(|status| Some(status.capacity.taken()?.node_name.to_string()))
            .collect();
        let others: Vec<&str> = all
            .iter()
            .filter(|other| other.name_any() != record.name_any())
            .filter(|other| other.spec.pool == record.spec.pool)
            .filter_map(|other| other.status.as_ref())
            .filter(|status| matches!(*status.fallback, FallbackState::Draining(_)))
            .filter_map(|status| Some(&*status.capacity.taken()?.node_name))
            .collect();
        let homeless = self.inner.cluster.homeless_without(&[&others[..], &[node]].concat(), &fallbacks);
        if !homeless.is_empty() {
            found.push(format!("{homeless:?} would find no place elsewhere"));
        }
        found.extend(self.exhausted_budgets(node));
        if others.len() >= self.returns_at_most(record.spec.pool.as_deref()) {
            found.push(format!("the returns of {others:?} are under way"));
        }
        if !found.is_empty() {
            self.violated(
                Invariant::SafeReturn,
                node,
                format!("its return begins, and {}", found.join(", ")),
            );
        }
    }

    /// Whether a group is to have no instance at all.
    fn wants_nothing(&self, name: Option<&GroupName>) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        groups.iter().any(|group| name.is_some_and(|name| *name == group.name) && group.desired == 0)
    }

    /// How many nodes of a pool may return at a time.
    fn returns_at_most(&self, pool: Option<&str>) -> usize {
        let limit = usize::try_from(self.inner.policy.max_concurrent_returns).unwrap_or(usize::MAX);
        let is_own = |name: &str| pool.is_some_and(|pool| name.starts_with(&format!("{pool}-")));
        let groups = self.inner.cloud.snapshot().groups.into_iter();
        let size: usize = groups.filter(|group| is_own(&group.name)).map(|group| group.instances.len()).sum();
        if limit > 0 { limit } else { (size / 10).clamp(1, 5) }
    }

    /// The budgets that allow none of the node's pods to go. A pod that is pending or terminating asks its
    /// budget for nothing, nor does one that is not ready while enough others are healthy
    /// (pkg/registry/core/pod/storage/eviction.go).
    pub(super) fn exhausted_budgets(&self, node: &str) -> Vec<String> {
        let budgets: Vec<PodDisruptionBudget> = self.inner.cluster.list();
        let pods: Vec<Pod> = self
            .inner
            .cluster
            .movable_pods_on(node)
            .iter()
            .filter_map(|pod| self.inner.cluster.get::<Pod>(&pod.namespace, &pod.name))
            .filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending"))
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        budgets
            .iter()
            .filter(|budget| {
                let Some(status) = &budget.status else { return false };
                let desired = status.desired_healthy.unwrap_or(0);
                let enough = desired > 0 && status.current_healthy.unwrap_or(0) >= desired;
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                let labels = selector.and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
                status.disruptions_allowed.unwrap_or(0) <= 0
                    && pods.iter().filter(|pod| is_ready(pod) || !enough).any(|pod| {
                        budget.namespace() == pod.namespace()
                            && labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
                    })
            })
            .map(|budget| format!("PodDisruptionBudget {} has no room", budget.name_any()))
            .collect()
    }

    pub(super) fn watch_budgets(&self) {
        let all = self.inner.cluster.pdb_violations();
        let known = std::mem::replace(&mut self.state().budget_violations, all.len());
        for violation in all.iter().skip(known) {
            // Whether it is deleted, or evicted while others are deleted: the deadline leaves no choice.
            if self.is_overdue(&violation.pod, violation.at) {
                continue;
            }
            let found = format!(
                "{} took {}: {} healthy, {} wanted",
                violation.by, violation.pod.name, violation.healthy, violation.desired
            );
            self.violated(Invariant::BudgetsKept, &violation.budget.name, found);
        }
    }

    /// Whether the deadline of the pod's node leaves no more than its grace period, and the pool allows to
    /// delete it.
    pub(super) fn is_overdue(&self, pod: &ObjectKey, now: Timestamp) -> bool {
        let found: Option<Pod> = self.inner.cluster.get(&pod.namespace, &pod.name);
        let Some(spec) = found.and_then(|pod| pod.spec) else { return false };
        let node = spec.node_name.unwrap_or_default();
        let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or_default();
        let policy = &self.inner.policy;
        let ahead =
            seconds(policy.terminate_before_deadline_seconds) + self.inner.skew + Duration::from_secs(grace);
        policy.delete_at_deadline
            && self.records().iter().any(|record| {
                let deadline = record.status.as_ref().and_then(|status| status.deadline);
                record.spec.node_name == *node && deadline.is_some_and(|deadline| now + ahead >= deadline)
            })
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|held| held.type_ == "Ready" && held.status == "True"))
}
