//! Calls of an earlier life that arrive late.
//!
//! SetDesiredCapacity is absolute and has no token, and a compare-and-swap does not fence AWS. A leader that was
//! stopped between its last look at the lease and the sending of such a call may send it long after another one
//! has repeated the request, settled and forgotten it. So a new life remembers what may still be under way. If a
//! group's desired capacity goes to exactly that, and nothing that we know of did it, the call has arrived: it is
//! booked as a request of ours that nobody wants, and taken back like any other.

use super::{Balance, Call, GroupView, Ledger, Method, PoolView, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// AWS refuses a request that arrives more than 15 min after it was signed (API Reference, Common Errors,
/// `RequestExpired`).
const SIGNATURE_LIFE: SignedDuration = SignedDuration::from_mins(15);

/// A SetDesiredCapacity of which nobody knows whether it is still to arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// Which group.
    pub group: GroupKind,
    /// The capacity that it asks for.
    pub desired: i32,
    /// Since when it is in doubt.
    pub since: Timestamp,
    /// Whether the group was read since, and the call had not arrived.
    #[serde(default)]
    pub missing: bool,
    /// Desired capacity as it was last read and accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<i32>,
}

impl Ledger {
    /// What another process, or an earlier life of this one, may have under way: to be called once, with the
    /// ledger as a new life finds it.
    pub fn take_over(&mut self, now: Timestamp) {
        let requests = self
            .scaling_requests
            .iter()
            .filter(|request| request.state == RequestState::Intended)
            .filter(|request| request.method == Method::SetDesiredCapacity {})
            .map(|request| (request.group, request.target));
        let reduction = self.reduction.iter().filter(|reduction| reduction.instance_id.is_none());
        let calls: Vec<_> =
            requests.chain(reduction.map(|reduction| (reduction.group, reduction.baseline - 1))).collect();
        for (group, desired) in calls {
            self.doubts.retain(|doubt| (doubt.group, doubt.desired) != (group, desired));
            self.doubts.push(Doubt { group, desired, since: now, missing: false, last: None });
        }
    }

    /// The groups that a call of ours may have changed since they were last read.
    pub(super) fn in_motion(&self) -> BTreeSet<GroupKind> {
        let requests = self.scaling_requests.iter().filter(|request| request.state != RequestState::Applied);
        requests.map(|request| request.group).chain(self.reduction.iter().map(|held| held.group)).collect()
    }

    /// What the first reading of a new life shows to have arrived arrives no more.
    pub(super) fn take_in_arrived(&mut self, view: &PoolView) {
        self.doubts.retain_mut(|doubt| {
            doubt.missing |= view.group(doubt.group).desired != doubt.desired;
            doubt.missing
        });
    }

    /// A call of ours has changed the group: what is read next is accounted for.
    pub(super) fn has_moved(&mut self, group: GroupKind) {
        self.doubts.iter_mut().filter(|doubt| doubt.group == group).for_each(|doubt| doubt.last = None);
    }
}

/// Looks for calls that have arrived late; `moved` are the groups that our own calls have changed.
pub(super) fn find_late_calls(
    ledger: &mut Ledger,
    view: &PoolView,
    moved: &BTreeSet<GroupKind>,
    now: Timestamp,
) -> Option<Call> {
    moved.iter().for_each(|group| ledger.has_moved(*group));
    ledger.doubts.retain(|doubt| now.duration_since(doubt.since) <= SIGNATURE_LIFE);
    let arrived = |doubt: &Doubt| {
        let desired = view.group(doubt.group).desired;
        desired == doubt.desired && doubt.last.is_some_and(|last| last != desired)
    };
    if let Some(index) = ledger.doubts.iter().position(arrived) {
        let Doubt { group, last, .. } = ledger.doubts.remove(index);
        // Every other call in doubt about this group sees the change as accounted for.
        ledger.has_moved(group);
        return book(ledger, view.group(group), group, last?, now);
    }
    for doubt in &mut ledger.doubts {
        doubt.last = Some(view.group(doubt.group).desired);
    }
    None
}

/// Books a change from `before` to what the group has now: raised, it is an open +1 that nobody wants; lowered, it
/// is raised again.
fn book(
    ledger: &mut Ledger,
    group: &GroupView,
    kind: GroupKind,
    before: i32,
    now: Timestamp,
) -> Option<Call> {
    let raised = group.desired > before;
    let share = |number: i32| Share {
        replacement: format!("late-call-{}-{number}", now.as_millisecond()),
        balance: if raised { Balance::Raised } else { Balance::OwedByUs },
        attempt: 0,
        since: now,
        deadline: None,
        stood_in_for: false,
        instance_id: None,
        failure: None,
    };
    let (baseline, target, state) = if raised {
        (before, group.desired, RequestState::Applied)
    } else {
        (group.desired, before.min(group.max), RequestState::Intended)
    };
    let request = ScalingRequest {
        id: format!("{}-{}-late-call", kind.slug(), now.as_millisecond()),
        group: kind,
        baseline,
        target,
        instances_before: Vec::new(),
        requested_at: now,
        method: Method::SetDesiredCapacity {},
        state,
        shares: (0..target - baseline).map(share).collect(),
    };
    let call = if raised { None } else { request.call() };
    ledger.scaling_requests.push(request);
    call
}
