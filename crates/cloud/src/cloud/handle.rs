//! What a scenario does to the cloud, and what it sees of it.

use super::activity;
use super::event::{CallRecord, CloudEvent, EventKind};
use super::faults::{self, ErrorAnswer};
use super::host::{HostCall, NodeJoin};
use super::snapshot::{CloudSnapshot, GroupSnapshot};
use super::spec::{BootFault, CloudSettings, GroupSpec, ImdsMode, LaunchFailure, Supply};
use super::state::{Instance, State, Timer, after};
use crate::clock::CloudClock;
use anyhow::{Context, ensure};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};

/// Events that a slow subscriber may fall behind.
const EVENT_BACKLOG: usize = 4_096;

/// The simulated cloud; clones are the same cloud.
#[derive(Clone)]
pub struct Cloud {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) clock: CloudClock,
    pub(super) state: Mutex<State>,
    pub(super) wake: Notify,
}

impl Cloud {
    /// An empty cloud.
    #[must_use]
    pub fn new(clock: CloudClock, seed: u64) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let state = Mutex::new(State::new(seed, events));
        Self { inner: Arc::new(Inner { clock, state, wake: Notify::new() }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the cloud as it is now, and wakes the loop.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.inner.clock.now();
        let mut state = self.lock();
        state.advance(now);
        let outcome = act(&mut state, now);
        state.keep_picture(now);
        drop(state);
        self.inner.wake.notify_one();
        outcome
    }

    /// Brings the cloud up to now; gives the time until the next thing is due, and the calls for the host.
    pub(super) fn tick(&self) -> (Option<Duration>, Vec<HostCall>) {
        let now = self.inner.clock.now();
        let mut state = self.lock();
        state.advance(now);
        state.keep_picture(now);
        let next = state.timers.first_key_value().map(|((at, _), _)| crate::clock::since(now, *at));
        (next, std::mem::take(&mut state.outbox))
    }

    pub(super) async fn changed(&self) {
        self.inner.wake.notified().await;
    }

    pub(super) fn machine_runs(&self, node_name: &str) -> bool {
        self.lock().instances.values().any(|i| i.node_name == node_name && i.machine_runs)
    }

    /// The time of the simulation.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Changes timings and undocumented behaviours.
    pub fn configure(&self, change: impl FnOnce(&mut CloudSettings)) {
        self.with(|state, _| change(&mut state.settings));
    }

    /// Adds a group with its first instances already in service and their nodes Ready.
    pub fn add_group(&self, spec: GroupSpec) {
        self.with(|state, now| state.add_group(spec, now));
    }

    /// Changes a group's specification: sizes, boot times, tags and so on. Desired capacity follows the new
    /// sizes; otherwise it, the name and the suspended processes have their own ways.
    pub fn edit_group(&self, group: &str, change: impl FnOnce(&mut GroupSpec)) -> anyhow::Result<()> {
        self.with(|state, now| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            change(&mut entry.spec);
            let desired = entry.desired.min(entry.spec.max).max(entry.spec.min);
            if desired != entry.desired {
                state.change_for_others(group, desired, now);
            }
            Ok(())
        })
    }

    /// Deletes a group with all its instances at once, as `DeleteAutoScalingGroup` with `ForceDelete`.
    pub fn remove_group(&self, group: &str) -> anyhow::Result<()> {
        self.with(|state, now| {
            ensure!(state.groups.contains_key(group), no_group(group));
            let ids: Vec<_> = state.members(group).iter().map(|instance| instance.id.clone()).collect();
            ids.iter().for_each(|id| state.remove(id, now));
            state.groups.remove(group);
            Ok(())
        })
    }

    /// Sets desired capacity as a person or another controller would, within the group's sizes.
    pub fn set_desired(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        self.within_sizes(group, desired, |state, now| state.change_for_others(group, desired, now))
    }

    /// Lets a SetDesiredCapacity of a controller arrive that was under way for long.
    pub fn deliver_set_desired(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        self.within_sizes(group, desired, |state, now| {
            state.change_desired(group, desired, "a user request explicitly set group desired capacity", now);
        })
    }

    fn within_sizes(
        &self,
        group: &str,
        desired: u32,
        change: impl FnOnce(&mut State, Timestamp),
    ) -> anyhow::Result<()> {
        self.with(|state, now| {
            let entry = state.groups.get(group).with_context(|| no_group(group))?;
            let (min, max) = (entry.spec.min, entry.spec.max);
            ensure!((min..=max).contains(&desired), "{desired} lies outside {min}..={max}");
            change(state, now);
            Ok(())
        })
    }

    /// Ends exactly this instance and lowers desired capacity with it, as cluster-autoscaler scales down.
    pub fn scale_down(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| {
            let Some(instance) = state.instances.get(id).filter(|held| !held.state.is_ending()) else {
                return;
            };
            let group = instance.group.clone();
            let Some(entry) = state.groups.get_mut(&group).filter(|entry| entry.desired > entry.spec.min)
            else {
                return;
            };
            entry.note_change_by_others(-1);
            entry.desired -= 1;
            let cause = format!(
                "At {} instance {id} was taken out of service in response to a user request, shrinking the capacity \
                 from {} to {}.",
                activity::seconds(now),
                entry.desired + 1,
                entry.desired
            );
            state.pictures.clear();
            state.terminate(id, &cause, now);
        })
    }

    /// Ends exactly this instance and leaves desired capacity as it is, as an update of EKS does.
    pub fn replace(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| {
            if state.instances.get(id).is_some_and(|held| !held.state.is_ending()) {
                let at = activity::seconds(now);
                let cause =
                    format!("At {at} instance {id} was taken out of service in response to a user request.");
                state.pictures.clear();
                state.terminate(id, &cause, now);
            }
        })
    }

    /// Sets what a zone's market still gives; `None` is every zone that has no setting of its own.
    pub fn set_supply(&self, group: &str, zone: Option<&str>, capacity: Supply) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.capacity.insert(zone.map(str::to_owned), capacity);
            Ok(())
        })
    }

    /// Makes launches of a group fail: the next `times`, or all until `None` is set again.
    pub fn set_launch_failure(
        &self,
        group: &str,
        failure: Option<LaunchFailure>,
        times: Option<u32>,
    ) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.set_failure(None, failure, times);
            Ok(())
        })
    }

    /// The same in one zone alone.
    pub fn set_zone_failure(
        &self,
        group: &str,
        zone: &str,
        failure: Option<LaunchFailure>,
        times: Option<u32>,
    ) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.set_failure(Some(zone), failure, times);
            Ok(())
        })
    }

    /// An activity of a group fails at once: a launch, a termination, or one of its warm pool (User Guide,
    /// "Verify a scaling activity for an Auto Scaling group"), for this cause. Nothing else comes of it.
    pub fn fail_activity(
        &self,
        group: &str,
        description: &str,
        cause: &str,
        message: &str,
    ) -> anyhow::Result<()> {
        self.with(|state, now| {
            ensure!(state.groups.contains_key(group), no_group(group));
            let cause = format!("At {} {cause}", activity::seconds(now));
            let id = state.begin_activity(group, description.to_owned(), cause, "InProgress", None, now);
            state.finish_activity(&id, now, "Failed", Some(message));
            Ok(())
        })
    }

    /// Makes the next `times` launched instances of a group boot wrongly.
    pub fn fault_next_boots(&self, group: &str, times: usize, fault: BootFault) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.boot_faults.extend(std::iter::repeat_n(fault, times));
            Ok(())
        })
    }

    /// Begins or ends an instance refresh of a group, by its status (API Reference, InstanceRefresh). It is
    /// shown and replaces nothing.
    pub fn set_refresh(&self, group: &str, status: &'static str) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.refresh = Some(status);
            Ok(())
        })
    }

    /// Suspends a process of a group: `Launch`, `Terminate`, `AZRebalance`.
    pub fn suspend(&self, group: &str, process: &str, reason: &str) -> anyhow::Result<()> {
        self.with(|state, _| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.suspended.insert(process.to_owned(), reason.to_owned());
            Ok(())
        })
    }

    /// Resumes a suspended process, and forgets how long launches have failed.
    pub fn resume(&self, group: &str, process: &str) -> anyhow::Result<()> {
        self.with(|state, now| {
            let entry = state.groups.get_mut(group).with_context(|| no_group(group))?;
            entry.suspended.remove(process);
            entry.failing_since = None;
            entry.retry_at = None;
            let soon = after(now, state.settings.reaction);
            state.at(soon, Timer::Reconcile(group.to_owned()));
            Ok(())
        })
    }

    fn on_instance<T>(&self, id: &str, act: impl FnOnce(&mut State, Timestamp) -> T) -> anyhow::Result<T> {
        self.with(|state, now| {
            ensure!(state.instances.contains_key(id), "no instance {id}");
            Ok(act(state, now))
        })
    }

    fn set_instance(&self, id: &str, change: impl FnOnce(&mut Instance)) -> anyhow::Result<()> {
        self.on_instance(id, |state, _| {
            if let Some(instance) = state.instances.get_mut(id) {
                change(instance);
            }
        })
    }

    /// EC2 recommends to rebalance this instance. The notice time of a first recommendation stays.
    pub fn rebalance(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| {
            let Some(instance) = state.instances.get_mut(id) else { return };
            if instance.rebalance_at.is_some() {
                return;
            }
            instance.rebalance_at = Some(now);
            let group = instance.group.clone();
            state.tell_recommendation(id, now);
            state.tell(now, EventKind::RebalanceRecommended, &group, Some(id), "rebalance recommendation");
            state.replace_at_risk(id, now);
        })
    }

    /// Gives the instance its interruption notice; it is taken when the notice has run out.
    pub fn interrupt(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| {
            let until = after(now, state.settings.interruption_notice);
            let Some(instance) = state.instances.get_mut(id) else { return };
            if instance.interrupt_at.is_some() {
                return;
            }
            instance.interrupt_at = Some(until);
            let group = instance.group.clone();
            state.at(until, Timer::Interrupt(id.to_owned()));
            state.tell_interruption(id, now);
            let text = format!("to be interrupted at {}", activity::seconds(until));
            state.tell(now, EventKind::InterruptionNoticed, &group, Some(id), text);
            state.replace_at_risk(id, now);
        })
    }

    /// A person puts an instance in service aside, which lowers desired capacity, or brings it back (API
    /// Reference, EnterStandby, ExitStandby). Whether it was done.
    pub fn set_standby(&self, id: &str, aside: bool) -> anyhow::Result<bool> {
        self.on_instance(id, |state, now| state.set_standby(id, aside, now))
    }

    /// Somebody terminates an instance that its group retains.
    pub fn end_retained(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| state.end_retained(id, now))
    }

    /// While an instance is in service, listings show it in this state.
    pub fn show_state(&self, id: &str, shown: Option<&'static str>) -> anyhow::Result<()> {
        self.set_instance(id, |instance| instance.shown = shown)
    }

    /// Lets an instance go on to its end that a lifecycle hook holds, as whoever drains it does.
    pub fn complete_termination(&self, id: &str) {
        self.with(|state, now| state.complete_termination(id, now));
    }

    /// Schedules that EC2 stops the instance so long from now.
    pub fn schedule_maintenance(&self, id: &str, ahead: Duration) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| {
            let at = after(now, ahead);
            let Some(instance) = state.instances.get_mut(id) else { return };
            instance.maintenance_at = Some(at);
            state.at(at, Timer::Interrupt(id.to_owned()));
            state.tell_maintenance(id, at, now);
        })
    }

    /// Takes the instance at once, without a notice or before its time.
    pub fn take_now(&self, id: &str) -> anyhow::Result<()> {
        self.on_instance(id, |state, now| state.take(id, now))
    }

    /// Sets how an instance's metadata service behaves.
    pub fn set_imds_mode(&self, id: &str, mode: ImdsMode) -> anyhow::Result<()> {
        self.set_instance(id, |instance| instance.imds_mode = mode)
    }

    /// What the group's health check says of an instance (API Reference, SetInstanceHealth). The group does
    /// not end one that is unhealthy, as where ReplaceUnhealthy is suspended.
    pub fn set_health(&self, id: &str, healthy: bool) -> anyhow::Result<()> {
        self.set_instance(id, |instance| instance.healthy = healthy)
    }

    /// Protects an instance from scale-in, or no longer.
    pub fn protect(&self, id: &str, protected: bool) -> anyhow::Result<()> {
        self.set_instance(id, |instance| instance.protected = protected)
    }

    /// Refuses the next `times` calls of an API action.
    pub fn fail_next(&self, operation: &str, times: u32, refusal: &ErrorAnswer) {
        self.with(|state, _| state.faults.fail_next(operation, times, refusal));
    }

    /// Throttles every Auto Scaling call for this long.
    pub fn throttle_for(&self, duration: Duration) {
        self.with(|state, now| state.faults.throttle_until(after(now, duration)));
    }

    /// Every market has capacity again, and nothing that a scenario has set fails any more.
    pub fn heal(&self) {
        self.with(|state, now| {
            state.faults = faults::Faults::default();
            let soon = after(now, state.settings.reaction);
            let names: Vec<String> = state.groups.keys().cloned().collect();
            for entry in state.groups.values_mut() {
                entry.capacity.clear();
                entry.boot_faults.clear();
                // AWS suspends Launch by itself; what else is suspended is somebody's will.
                entry.suspended.remove("Launch");
                entry.failures.clear();
                (entry.failing_since, entry.retry_at) = (None, None);
            }
            names.into_iter().for_each(|name| state.at(soon, Timer::Reconcile(name)));
        });
    }

    /// The latest calls of the Auto Scaling API, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.lock().calls.iter().cloned().collect()
    }

    /// When an API action was called last.
    #[must_use]
    pub fn last_call(&self, operation: &str) -> Option<Timestamp> {
        self.lock().calls.iter().rev().find(|call| call.operation == operation).map(|call| call.at)
    }

    /// What happens from now on. A subscriber that falls far behind misses the oldest events.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<CloudEvent> {
        self.lock().events.subscribe()
    }

    /// The cloud as it is now.
    #[must_use]
    pub fn snapshot(&self) -> CloudSnapshot {
        self.with(|state, _| CloudSnapshot {
            groups: state.groups.keys().filter_map(|name| GroupSnapshot::of(state, name)).collect(),
            activities: state.activities.iter().cloned().collect(),
        })
    }

    /// One group as it is now.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupSnapshot> {
        self.with(|state, _| GroupSnapshot::of(state, name))
    }

    /// The node that an instance has registered or will register.
    #[must_use]
    pub fn node_of(&self, id: &str) -> Option<NodeJoin> {
        self.with(|state, _| state.node_of(id))
    }
}

fn no_group(name: &str) -> String {
    format!("no group {name}")
}
