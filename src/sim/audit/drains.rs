//! What nodes go through: their marks, the eviction of their pods, and the end of their instances.

use super::{Auditor, Invariant};
use crate::crd::{NodeReplacement, SpotPool};
use crate::kube::marks;
use crate::sim::world::TAINT;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use spot_guard_core::ledger::Share;
use spot_guard_core::policy::seconds;
use spot_guard_core::reason::NodeTrouble;
use spot_guard_core::record::{GroupKind, OldNodeState};
use spot_guard_core::replacement::Mode;
use spot_guard_core::time::since;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// So long may a mark outlive its replacement, or the decision to take it back: a change of leaders included.
pub(super) const MARKS_GO_WITHIN: Duration = Duration::from_secs(60);
/// A Spot instance that came for a return which stays unsafe is kept for so long.
const IDLE_FOR: Duration = Duration::from_secs(1800);

impl Auditor {
    /// The instance may be ended: nothing on its node could still move, or its deadline is there. What was on
    /// a machine that AWS has taken moves no more, nor does a pod whose grace period is over.
    pub(super) fn check_drained(&self, instance: &str) {
        // The pods under the name of its node may be those of another one by now, or of the one before it.
        let is_there = |node: &str| self.inner.cluster.get::<Node>("", node).is_some();
        let runs = |node: &String| self.runs(instance) && is_there(node) && self.is_on(node, instance);
        let Some(node) = self.node_of(instance).filter(runs) else { return };
        let mut movable = self.inner.cluster.movable_pods_on(&node);
        let now = self.inner.clock.now();
        movable.retain(|pod| {
            let found: Option<Pod> = self.inner.cluster.get(&pod.namespace, &pod.name);
            let due = found.and_then(|pod| pod.metadata.deletion_timestamp);
            due.is_none_or(|due| due.0 > now)
        });
        if movable.is_empty() {
            return;
        }
        let ahead = seconds(self.inner.policy.terminate_before_deadline_seconds) + self.inner.skew;
        let pressed = self.records().iter().any(|record| {
            let deadline = record.status.as_ref().and_then(|status| status.deadline);
            record.spec.instance_id == instance && deadline.is_some_and(|deadline| now + ahead >= deadline)
        });
        if !pressed {
            let found = format!("it is to be ended while {node} runs {movable:?}");
            self.violated(Invariant::DrainedFirst, instance, found);
        }
    }

    /// A node has got its marks.
    pub(super) fn check_marked(&self, node: &str) {
        self.note(format!("{node} is marked"));
        let records = self.records();
        let old = records.iter().find(|record| {
            let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
            record.spec.node_name == node
                && status.is_some_and(|status| status.old_node.drain().is_some())
                && self.is_on(node, &record.spec.instance_id)
        });
        if let Some(record) = old {
            self.check_replacement_first(node, record);
            return;
        }
        match records.iter().find(|record| self.returns(record, node)) {
            Some(record) => self.check_safe_return(node, record, &records),
            None if was_just_cancelled(&records, node, self.inner.clock.now()) => {}
            None if self.is_surplus(node) => {}
            None => {
                let found = "it is marked, and no record says that it is drained".to_owned();
                self.violated(Invariant::ReplacementFirst, node, found);
            }
        }
    }

    pub(super) fn check_replacement_first(&self, node: &str, record: &NodeReplacement) {
        let Some(status) = &record.status else { return };
        let pool = record.spec.pool.as_deref();
        let acts =
            self.pools().iter().any(|held| Some(&*held.name_any()) == pool && held.spec.mode == Mode::Act);
        if status.deadline.is_some() || !acts {
            return;
        }
        let found = match status.capacity.taken() {
            None => Some("it has no replacement".to_owned()),
            Some(capacity) if !self.is_in_service(&capacity.instance_id) => {
                Some(format!("its replacement {} is not in service", capacity.instance_id))
            }
            Some(capacity) if !self.node_is_ready(&capacity.node_name) => {
                Some(format!("its replacement {} is not Ready", capacity.node_name))
            }
            Some(_) => {
                let homeless = self.inner.cluster.homeless_without(&[node], &BTreeSet::new());
                (!homeless.is_empty()).then(|| format!("{homeless:?} would find no place elsewhere"))
            }
        };
        if let Some(found) = found {
            self.violated(Invariant::ReplacementFirst, node, format!("it is marked, and {found}"));
        }
    }

    /// For so long from now nobody can list nodes, records, pools or groups.
    pub fn note_blindness(&self, duration: Duration) {
        let until = self.inner.clock.now() + duration;
        let mut state = self.state();
        state.blind_until = state.blind_until.max(Some(until));
    }

    /// Marks without a replacement must go within `patience` of when nodes, records and pools can be listed.
    pub(super) fn watch_marks(&self, patience: Duration) {
        let now = self.inner.clock.now();
        let records = self.records();
        let nodes = self.nodes();
        let covered = |node: &str| {
            records.iter().any(|record| {
                let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
                status.is_some_and(|status| {
                    let begun = status.old_node.drain().is_some() || status.old_node == OldNodeState::Gone {};
                    record.spec.node_name == node && begun && self.is_on(node, &record.spec.instance_id)
                }) || self.returns(record, node)
            }) || self.is_surplus(node) && self.inner.cluster.movable_pods_on(node).is_empty()
        };
        let stray: BTreeSet<String> = nodes
            .iter()
            .filter(|node| marks::are_left_on(node, TAINT))
            .map(|node| node.name_any())
            .filter(|node| !covered(node))
            .collect();
        let mut state = self.state();
        state.stray.retain(|node, _| stray.contains(node));
        let blind_until = state.blind_until;
        let late: Vec<(String, Timestamp)> = stray
            .into_iter()
            .map(|node| {
                let first = *state.stray.entry(node.clone()).or_insert(now);
                (node, first)
            })
            .filter(|(_, first)| {
                let seen = blind_until.map_or(*first, |until| until.max(*first));
                patience.is_zero() || since(seen, now) > patience
            })
            .collect();
        drop(state);
        for (node, first) in late {
            let found = format!("it carries marks that no replacement accounts for, since {first:.0}");
            self.violated(Invariant::NoMarkLeft, &node, found);
        }
    }

    /// A pod is to leave its node, by eviction or deletion.
    pub(super) fn check_leaves(&self, namespace: &str, pod: &str) {
        let found: Option<Pod> = self.inner.cluster.get(namespace, pod);
        let Some(node) = found.and_then(|pod| pod.spec?.node_name) else { return };
        let Some(instance) = self.instance_of(&node) else { return };
        let is_about = |record: &Arc<NodeReplacement>| {
            let mut took_over = record.status.iter().flat_map(|status| status.took_over());
            *record.spec.instance_id == *instance || took_over.any(|held| *held.instance_id == *instance)
        };
        if !self.records().iter().any(is_about) {
            let found = format!("pod {pod} is to leave it, and no replacement is about {instance}");
            self.violated(Invariant::RightNode, &node, found);
        }
    }

    /// Whether the record's stand-in is on `node`, and on its way back.
    fn returns(&self, record: &NodeReplacement, node: &str) -> bool {
        let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
        status.filter(|status| status.fallback.is_returning()).is_some_and(|status| {
            let held = status.capacity.taken().filter(|held| held.node_name == node);
            held.is_some_and(|held| self.is_on(node, &held.instance_id))
        })
    }

    /// Whether the node's instance is being ended, its group holds an instance more than is wanted, or the
    /// node had its time and cannot be used: it is to take no pods then, if none run on it.
    pub(super) fn is_surplus(&self, node: &str) -> bool {
        let now = self.inner.clock.now();
        // Before a deadline it has a third of its time.
        let time = seconds(self.inner.policy.join_timeout_seconds) / 3;
        let groups = self.inner.cloud.snapshot().groups;
        let held = groups.iter().find_map(|group| {
            let instance = group.instances.iter().find(|instance| instance.node_name == node)?;
            Some((group, instance))
        });
        held.is_some_and(|(group, instance)| {
            let surplus = |pool: &Arc<SpotPool>| {
                let ledger = pool.status.clone().unwrap_or_default().ledger;
                let given_up = |share: &Share| {
                    let claimed = share.claimed_at.map_or(Duration::ZERO, |at| since(at, now));
                    let had_its_time = share.unusable.as_ref().is_some_and(|held| match held.why {
                        NodeTrouble::StandsIdle => held.is_now() && claimed >= IDLE_FOR,
                        _ => held.is_now() && since(held.since, now) >= time,
                    });
                    had_its_time && share.instance_id.as_deref() == Some(&instance.id)
                };
                kind_in(pool, &group.name)
                    .is_some_and(|kind| ledger.shares(kind).any(|share| share.is_raised() || given_up(share)))
            };
            instance.state.is_ending() || self.pools().iter().any(surplus)
        })
    }
}

/// Which of the pool's groups it is.
fn kind_in(pool: &SpotPool, group: &str) -> Option<GroupKind> {
    let spec = &pool.spec;
    let kinds = [(&spec.spot_group, GroupKind::Spot), (&spec.on_demand_group, GroupKind::OnDemand)];
    kinds.into_iter().find(|(name, _)| *name == group).map(|(_, kind)| kind)
}

/// Whether the replacement of the node was cancelled so recently that its marks may still have been on their
/// way.
fn was_just_cancelled(records: &[Arc<NodeReplacement>], node: &str, now: Timestamp) -> bool {
    let statuses = records.iter().filter(|record| record.spec.node_name == node);
    let mut released =
        statuses.filter_map(|record| record.status.as_ref()).filter(|status| status.old_node.is_retained());
    released.any(|status| status.phase_since.is_some_and(|at| since(at, now) < MARKS_GO_WITHIN))
}
