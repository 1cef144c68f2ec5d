//! Calls of an earlier life that arrive late.
//!
//! SetDesiredCapacity is absolute and has no token, and a compare-and-swap does not fence AWS. A leader that
//! was stopped between its last look at the lease and the sending of such a call may send it long after
//! another one has repeated the request, settled and forgotten it. So a new life remembers what may still be
//! under way. If a group's desired capacity goes to exactly that, and nothing that we know of did it, the
//! call has arrived: it is booked as a request of ours that nobody wants, and taken back like any other.

use super::calls::Call;
use super::inputs::Inputs;
use crate::group::{GroupView, PoolView};
use crate::ledger::{Balance, Doubt, Ledger, Method, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// AWS refuses a request that arrives more than 15 min after it was signed (API Reference, Common Errors,
/// `RequestExpired`).
const SIGNATURE_LIFE: SignedDuration = SignedDuration::from_mins(15);

impl Ledger {
    /// What another process, or an earlier life of this one, may have under way: to be called once, with the
    /// ledger as a new life finds it.
    pub fn take_over(&mut self, now: Timestamp) {
        let requests = self
            .scaling_requests
            .iter()
            .filter(|request| request.state == RequestState::Intended)
            .filter(|request| request.method == Method::SetDesiredCapacity {})
            .map(|request| (request.group, request.group_name.clone(), request.target));
        let reduction = self.reduction.iter().filter(|reduction| reduction.instance_id.is_none());
        let reduction = reduction
            .map(|reduction| (reduction.group, reduction.group_name.clone(), reduction.desired_before - 1));
        let calls: Vec<_> = requests.chain(reduction).collect();
        for (group, group_name, desired) in calls {
            self.doubts.retain(|doubt| (&doubt.group_name, doubt.desired) != (&group_name, desired));
            self.doubts.push(Doubt { group, group_name, desired, since: now, missing: false, last: None });
        }
    }

    /// What is read next of a group that a call of ours may have changed is accounted for.
    pub(super) fn note_moved(&mut self) {
        let requests = self.scaling_requests.iter().filter(|request| request.state != RequestState::Applied);
        let requests = requests.map(|request| request.group);
        let moved: BTreeSet<GroupKind> =
            requests.chain(self.reduction.iter().map(|reduction| reduction.group)).collect();
        moved.into_iter().for_each(|group| self.has_moved(group));
    }

    /// What the first reading of a new life shows to have arrived arrives no more.
    pub(super) fn take_in_arrived(&mut self, view: &PoolView) {
        self.doubts.retain_mut(|doubt| {
            if !view.names(doubt.group, &doubt.group_name) {
                return true;
            }
            doubt.missing |= view.group(doubt.group).desired != doubt.desired;
            doubt.missing
        });
    }

    /// A call of ours has changed the group: what is read next is accounted for.
    pub(super) fn has_moved(&mut self, group: GroupKind) {
        self.doubts.iter_mut().filter(|doubt| doubt.group == group).for_each(|doubt| doubt.last = None);
    }
}

/// Looks for calls that have arrived late.
pub(super) fn find_late_calls(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Option<Call> {
    let now = inputs.now;
    ledger.doubts.retain(|doubt| now.duration_since(doubt.since) <= SIGNATURE_LIFE);
    let arrived = |doubt: &Doubt| {
        let desired = inputs.group(doubt.group).desired;
        inputs.view.names(doubt.group, &doubt.group_name)
            && desired == doubt.desired
            && doubt.last.is_some_and(|last| last != desired)
    };
    if let Some(index) = ledger.doubts.iter().position(arrived) {
        let Doubt { group, last, .. } = ledger.doubts.remove(index);
        // Every other call in doubt about this group sees the change as accounted for.
        ledger.has_moved(group);
        return book(ledger, inputs.group(group), group, last?, now);
    }
    for doubt in &mut ledger.doubts {
        let group = inputs.group(doubt.group);
        doubt.last = (group.name == doubt.group_name).then_some(group.desired);
    }
    None
}

/// Books a change from `before` to what the group has now: raised, it is a share that nobody wants; lowered,
/// it is raised again.
fn book(
    ledger: &mut Ledger,
    group: &GroupView,
    kind: GroupKind,
    before: i32,
    now: Timestamp,
) -> Option<Call> {
    let raised = group.desired > before;
    let share = |number: i32| Share {
        replacement: format!("late-call-{}-{number}", now.as_millisecond()).into(),
        balance: if raised { Balance::Raised } else { Balance::OwedByUs },
        attempt: 0,
        since: now,
        deadline: None,
        stood_in_for: false,
        instance_id: None,
        claimed_at: None,
        unusable: None,
        discarded: None,
        failure: None,
    };
    let (desired_before, target, state) = if raised {
        (before, group.desired, RequestState::Applied)
    } else {
        (group.desired, before.min(group.max), RequestState::Intended)
    };
    let request = ScalingRequest {
        id: format!("{}-{}-late-call", kind.slug(), now.as_millisecond()),
        group: kind,
        group_name: group.name.clone(),
        desired_before,
        target,
        instances_before: Vec::new(),
        active: i32::try_from(group.active()).unwrap_or(i32::MAX),
        requested_at: now,
        answered_at: None,
        method: Method::SetDesiredCapacity {},
        state,
        failure: None,
        shares: (0..target - desired_before).map(share).collect(),
    };
    let call = if raised { None } else { Call::of(&request) };
    ledger.scaling_requests.push(request);
    call
}
