//! Instances that are neither in service nor on their way out for good: Standby, and those that are retained.

use super::event::EventKind;
use super::state::{LifecycleState, State, Timer, after};
use jiff::Timestamp;

impl State {
    /// Puts an instance aside or brings it back, with one instance of desired capacity. Whether it was done.
    pub(super) fn set_standby(&mut self, id: &str, aside: bool, at: Timestamp) -> bool {
        let (from, to, change) = match aside {
            true => (LifecycleState::InService, LifecycleState::Standby, -1_i64),
            false => (LifecycleState::Standby, LifecycleState::Pending, 1),
        };
        let Some(instance) = self.instances.get_mut(id).filter(|held| held.state == from) else {
            return false;
        };
        let Some(group) = self.groups.get_mut(&instance.group) else { return false };
        let desired = u32::try_from(i64::from(group.desired) + change).unwrap_or(0);
        if !(group.spec.min..=group.spec.max).contains(&desired) {
            return false;
        }
        let (name, boot) = (instance.group.clone(), group.spec.boot);
        instance.state = to;
        group.note_change_by_others(change);
        group.desired = desired;
        // What others set is not in an older picture: see `change_for_others`.
        self.pictures.clear();
        let text = if aside { "put aside" } else { "brought back" };
        self.tell(at, EventKind::DesiredChanged, &name, Some(id), text);
        if !aside {
            self.at(after(at, boot.launch), Timer::InService(id.to_owned()));
        }
        self.reconcile(&name, at);
        true
    }

    /// The time of a termination hook is over: the instance ends, or its group retains it.
    pub(super) fn end_hook(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let retains = self.groups.get(&instance.group).is_some_and(|group| group.spec.retains);
        if retains {
            instance.state = LifecycleState::TerminatingRetained;
            instance.hook_until = None;
        } else {
            self.end_machine(id, at);
        }
    }

    /// Somebody terminates an instance that its group retains.
    pub(super) fn end_retained(&mut self, id: &str, at: Timestamp) {
        let is_retained = |state: LifecycleState| state == LifecycleState::TerminatingRetained;
        if self.instances.get(id).is_some_and(|instance| is_retained(instance.state)) {
            self.end_machine(id, at);
        }
    }
}
