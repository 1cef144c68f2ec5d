//! The changes of groups: announced in the ledger, seldom, and taken back in the end.

use super::{Auditor, Invariant, Moved};
use crate::crd::NodeReplacement;
use kube::ResourceExt;
use spot_guard_cloud::cloud::GateCall;
use spot_guard_core::ids::GroupName;
use spot_guard_core::ledger::RequestState;
use spot_guard_core::record::{FlowBox, GroupKind, Outcome, ReplacementStatus};
use spot_guard_core::time::since;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// So often at the most is a group changed in a minute: one call is made at a time, and the largest storm has
/// twenty nodes.
const CHANGES_A_MINUTE: usize = 30;

impl Auditor {
    /// A controller is about to change a group.
    pub(super) fn before_change(&self, call: &GateCall) {
        self.note(format!(
            "AWS {} {}{}{}",
            call.operation,
            call.group.as_deref().unwrap_or("?"),
            call.instance.as_ref().map_or_else(String::new, |instance| format!(
                " {instance}{}",
                if call.decrement { " with decrement" } else { "" }
            )),
            call.desired.map_or_else(String::new, |desired| format!(" {desired}")),
        ));
        let Some(group) = &call.group else { return };
        self.watch_churn(group);
        if call.operation == "LaunchInstances" || call.operation == "SetDesiredCapacity" {
            self.watch_places(Some(group));
        }
        if call.decrement {
            self.note_adopted(call);
        }
        // An instance that waits for its hook was ended by its group: that changes no desired capacity.
        if !call.operation.contains("LifecycleAction") && !self.is_written(call, group) {
            let found = format!("{call:?} is not what the stored ledger announces: {:?}", self.ledgers());
            self.violated(Invariant::WrittenRequest, group, found);
        }
        if let Some(instance) = &call.instance
            && ["TerminateInstanceInAutoScalingGroup", "CompleteLifecycleAction"].contains(&&*call.operation)
        {
            self.check_drained(instance);
        }
    }

    /// A SetDesiredCapacity of a controller arrives long after it was made.
    ///
    /// # Errors
    /// When the group does not exist or cannot have so many.
    pub fn late_call(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        self.note(format!("AWS SetDesiredCapacity {group} {desired}, late"));
        self.inner.cloud.deliver_set_desired(group, desired)
    }

    pub(super) fn watch_churn(&self, group: &str) {
        let now = self.inner.clock.now();
        let changes = {
            let mut state = self.state();
            let changed = state.changed.entry(group.to_owned()).or_default();
            changed.push_back(now);
            changed.retain(|at| since(*at, now) < Duration::from_secs(60));
            changed.len()
        };
        if changes > CHANGES_A_MINUTE {
            self.violated(Invariant::NoChurn, group, format!("changed {changes} times in a minute"));
        }
    }

    /// Whether a stored ledger announces exactly this change.
    pub(super) fn is_written(&self, call: &GateCall, group: &str) -> bool {
        self.pools().into_iter().any(|pool| {
            let ledger = pool.status.clone().unwrap_or_default().ledger;
            let in_state = |state| {
                ledger
                    .scaling_requests
                    .iter()
                    .filter(move |request| request.group_name == group && request.state == state)
            };
            let intended = || in_state(RequestState::Intended);
            let reduction = ledger.reduction.as_ref().filter(|reduction| reduction.group_name == group);
            match call.operation.as_str() {
                "SetDesiredCapacity" => {
                    let desired = call.desired.and_then(|desired| i32::try_from(desired).ok());
                    // What was launched without raising desired capacity is made to count.
                    let launched = || in_state(RequestState::Launched);
                    intended().chain(launched()).any(|request| Some(request.target) == desired)
                        || reduction.is_some_and(|reduction| {
                            reduction.instance_id.is_none() && Some(reduction.desired_before - 1) == desired
                        })
                }
                "TerminateInstanceInAutoScalingGroup" => reduction.is_some_and(|reduction| {
                    reduction.instance_id.as_deref() == call.instance.as_deref()
                        && (reduction.settles.is_some() || !call.decrement)
                }),
                "LaunchInstances" => intended().next().is_some(),
                _ => false,
            }
        })
    }

    /// An instance is given back. One that was adopted is above the baseline.
    fn note_adopted(&self, call: &GateCall) {
        let (Some(group), Some(instance)) = (&call.group, &call.instance) else { return };
        let records = self.records();
        // Of an instance that was lost its group's replacement goes back.
        let adopts = |record: &&Arc<NodeReplacement>| {
            let taken = record.status.as_ref().and_then(|status| status.capacity.taken());
            let is_it = taken.is_some_and(|held| held.instance_id == *instance);
            is_it && record.spec.adopted.is_some() && record.is_open()
        };
        let Some(record) = records.iter().find(adopts) else { return };
        let pools = self.pools();
        let pool = pools.iter().find(|pool| record.spec.pool.as_deref() == Some(&*pool.name_any()));
        let (Some(pool), Some(found)) = (pool, self.inner.cloud.group(group)) else { return };
        let ledger = pool.status.clone().unwrap_or_default().ledger;
        let others = ledger
            .shares(GroupKind::OnDemand)
            .filter(|share| share.is_raised() && share.replacement != record.replacement_name());
        let kept = i64::from(found.desired) - 1 - i64::try_from(others.count()).unwrap_or(i64::MAX);
        let baseline = pool.spec.on_demand.baseline.map(i64::from);
        if found.instances.iter().any(|held| held.id == *instance)
            && baseline.is_none_or(|least| kept < least)
        {
            let found =
                format!("{instance} is given back, {kept} are left, and the baseline is {baseline:?}");
            self.violated(Invariant::OnlyAboveBaseline, group, found);
        }
        let spot = record.spec.adopted.as_ref().is_some_and(|held| held.requests_spot);
        let moved = Moved { from: group.clone(), to: spot.then(|| pool.spec.spot_group.to_string()) };
        self.state().adopted.insert(instance.clone(), moved);
    }

    /// How many adopted instances of a group are gone, and for how many a group of Spot instances has grown.
    fn moved(&self, group: &str) -> (i64, i64) {
        let there: BTreeSet<String> = self
            .inner
            .cloud
            .snapshot()
            .groups
            .into_iter()
            .flat_map(|group| group.instances)
            .map(|held| held.id)
            .collect();
        let state = self.state();
        let count = |is: &dyn Fn(&Moved) -> bool| {
            let gone = state.adopted.iter().filter(|(id, of)| !there.contains(*id) && is(of));
            i64::try_from(gone.count()).unwrap_or(i64::MAX)
        };
        let taken_over = state.taken_over.values().filter(|to| *to == group).count();
        let taken_over = i64::try_from(taken_over).unwrap_or(i64::MAX);
        (count(&|of| of.from == group), count(&|of| of.to.as_deref() == Some(group)) + taken_over)
    }

    /// Remembers the adoptions whose instance somebody else took before it was given back.
    fn note_taken_over(&self, records: &[Arc<NodeReplacement>]) {
        let is_taken = |status: &ReplacementStatus| {
            let mut steps = status.steps.iter().filter(|step| step.flow_box == FlowBox::ScaleDown);
            status.is_finished() && steps.any(|step| step.outcome == Outcome::TakenByAws)
        };
        for record in records {
            let grew = record.spec.adopted.as_ref().is_some_and(|held| held.requests_spot);
            let status = record.status.as_ref().filter(|status| grew && is_taken(status));
            if let Some(group) = status.and_then(|status| status.spot_group.as_ref()) {
                self.state().taken_over.insert(record.replacement_name(), group.to_string());
            }
        }
    }

    /// What our calls have added to a group's desired capacity so far, and by how much others have lowered it
    /// while a replacement of its pool was open: whose place they took, nobody can tell.
    fn ours(&self, group: &str, is_unsettled: bool) -> (i64, i64) {
        let Some(found) = self.inner.cloud.group(group) else { return (0, 0) };
        let mut state = self.state();
        let initial = state.initial.get(group).copied().unwrap_or(0);
        let was_unsettled = if is_unsettled {
            !state.unsettled.insert(group.to_owned())
        } else {
            state.unsettled.remove(group)
        };
        let (seen, taken) = state.lowered.entry(group.to_owned()).or_default();
        if is_unsettled || was_unsettled {
            *taken += found.lowered_by_others - *seen;
        }
        *seen = found.lowered_by_others;
        (i64::from(found.desired) - found.added_by_others - initial, *taken)
    }

    /// No replacement of a pool is open: what we changed must have been changed back.
    pub(super) fn watch_balance(&self) {
        let records = self.records();
        self.note_taken_over(&records);
        let open = |pool: &str| {
            records.iter().any(|record| {
                record.spec.pool.as_deref() == Some(pool)
                    && record.status.as_ref().is_none_or(|status| !status.phase().is_finished())
            })
        };
        let pools = self.pools();
        let unsettled: BTreeSet<&GroupName> = pools
            .iter()
            .filter(|pool| open(&pool.name_any()))
            .flat_map(|pool| [&pool.spec.spot_group, &pool.spec.on_demand_group])
            .collect();
        for pool in &*pools {
            for group in [&pool.spec.spot_group, &pool.spec.on_demand_group] {
                // A pool that is not accepted may name the group of another one.
                let is_unsettled = unsettled.contains(group);
                let (sum, taken) = self.ours(group, is_unsettled);
                let (adopted, moved) = self.moved(group);
                // What others took out while we waited for it may have been asked for again.
                if !is_unsettled && !(-adopted..=taken + moved).contains(&sum) {
                    let found = format!(
                        "no replacement is open, and our changes to desired capacity sum up to {sum:+}"
                    );
                    self.violated(Invariant::BalancedDesired, group, found);
                }
            }
        }
    }
}
