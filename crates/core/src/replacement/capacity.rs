//! Boxes 2, 3, 3.1 and 3.2: capacity is requested from Spot, then from on-demand. The first instance that
//! can take the pods is taken.

use super::facts::{Fit, NodeFact, Turn};
use super::unusable;
use crate::flow::Event;
use crate::group::request_failure::RequestFailure;
use crate::ids::{InstanceId, NodeName};
use crate::ledger::Share;
use crate::policy::seconds;
use crate::reason::NodeTrouble;
use crate::reason::Reason;
use crate::record::{
    Capacity, CapacityState, FallbackState, FlowBox, GroupKind, OldNodeState, OpenFallback,
    ReplacementStatus, set_condition,
};
use jiff::Timestamp;
use std::time::Duration;

/// The next step of the search.
pub(super) fn find(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    if keeps_or_begins_again(next, turn) {
        return;
    }
    let now = turn.facts.now;
    if !next.capacity.is_requested() {
        next.capacity.enter(CapacityState::SpotRequested { since: now });
        Event::SpotRequested.add_to(next, &turn.subject.node, now);
        return;
    }
    if take(next, turn) {
        return;
    }
    go_on(next, turn);
}

/// Whether there is nothing to search for: the replacement was cancelled, or its instance is there. One that
/// is lost sends the record back to box 2.
pub(super) fn keeps_or_begins_again(next: &mut ReplacementStatus, turn: &Turn<'_>) -> bool {
    if next.old_node.is_retained() {
        return true;
    }
    let Some(capacity) = next.capacity.taken() else { return false };
    let lost = !turn.facts.is_active(capacity.group, &capacity.instance_id);
    if !lost || next.old_node.is_past_drain() {
        return true;
    }
    begin_again(next, turn.facts.now);
    false
}

/// No instance can take the pods yet: a failure or a timeout leads on.
pub(super) fn go_on(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    match *next.capacity {
        CapacityState::SpotRequested { since } => fall_back(next, since, turn),
        CapacityState::BothRequested { spot_since, on_demand_since } => {
            back_off(next, spot_since, on_demand_since, turn);
        }
        CapacityState::BackingOff { until } if turn.facts.now >= until => request_both_again(next, turn),
        CapacityState::BackingOff { .. } => turn.keep(next, FlowBox::Fallback),
        _ => {}
    }
}

/// A replacement that is lost before the drain ends sends the record back to box 2.
fn begin_again(next: &mut ReplacementStatus, now: Timestamp) {
    next.attempt += 1;
    next.capacity.enter(CapacityState::SpotRequested { since: now });
    if next.fallback.is_open() {
        next.fallback.enter(FallbackState::None {});
    }
    if matches!(*next.old_node, OldNodeState::Draining(_)) {
        next.old_node.enter(OldNodeState::Kept {});
    }
}

/// Takes the first instance that can take the pods; whether there was one.
pub(super) fn take(next: &mut ReplacementStatus, turn: &Turn<'_>) -> bool {
    let mut misfits = Vec::new();
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        let share = share_of_attempt(next, group, turn);
        let Some((instance_id, node)) = turn.facts.serving_node(share, group) else {
            misfits.extend(unusable::reason(share, group, turn.facts));
            continue;
        };
        let misfit = misfit(next, &instance_id, &node, turn);
        if misfit.is_empty() {
            taken(next, group, instance_id, node.name, turn.facts.now);
            return true;
        }
        misfits.extend(misfit);
    }
    if !misfits.is_empty() {
        next.block(FlowBox::Wait, misfits, turn.facts.now);
    }
    false
}

/// The group's share, unless it is of an earlier attempt: that may be on its way back, for the AsgScaler has
/// not heard of this one yet.
pub(super) fn share_of_attempt<'a>(
    status: &ReplacementStatus,
    group: GroupKind,
    turn: &'a Turn<'_>,
) -> Option<&'a Share> {
    turn.facts.share(group, turn.subject).filter(|share| share.attempt == status.requests_made())
}

/// Why the node cannot take the pods, if so. Ready is not yet that (zone, size, start-up taints). A deadline
/// cannot wait for it.
pub(super) fn misfit(
    status: &ReplacementStatus,
    instance_id: &InstanceId,
    node: &NodeFact,
    turn: &Turn<'_>,
) -> Vec<Reason> {
    if node.cordoned {
        return vec![Reason::NodeCordoned { node: node.name.clone() }];
    }
    if node.tainted {
        let (why, since) = (NodeTrouble::Tainted, node.ready_changed.unwrap_or(turn.facts.now));
        return vec![Reason::InstanceUnusable { instance_id: instance_id.clone(), why, since }];
    }
    if status.deadline.is_some() {
        return Vec::new();
    }
    match (turn.facts.fit_with)(&node.name) {
        Fit::Fits => Vec::new(),
        Fit::Misfits(reasons) => reasons,
        Fit::Unknown => vec![Reason::CheckPending { node: turn.subject.node.clone() }],
    }
}

fn taken(
    next: &mut ReplacementStatus,
    group: GroupKind,
    instance_id: InstanceId,
    node: NodeName,
    now: Timestamp,
) {
    let event = Event::InService { group, instance_id: instance_id.clone(), node: node.clone() };
    let instance = Capacity { group, instance_id, node_name: node.clone(), ready_at: now };
    let on_demand_requested = next.capacity.is_on_demand_requested();
    next.capacity.enter(CapacityState::Taken { instance, on_demand_requested });
    if group == GroupKind::OnDemand {
        next.fallback.enter(FallbackState::Pending(OpenFallback::default()));
    }
    next.blocking.clear();
    let reason = event.outcome().as_str();
    set_condition(&mut next.conditions, "CapacityReady", true, reason, &event.to_string(), now);
    event.add_to(next, &node, now);
}

/// Box 3 fails: an on-demand instance is requested, too.
fn fall_back(next: &mut ReplacementStatus, spot_since: Timestamp, turn: &Turn<'_>) {
    let Some(failure) = failure(next, GroupKind::Spot, spot_since, turn) else { return };
    let (now, node) = (turn.facts.now, &turn.subject.node);
    next.capacity.enter(CapacityState::BothRequested { spot_since, on_demand_since: now });
    Event::RequestFailed { group: GroupKind::Spot, failure }.add_to(next, node, now);
    Event::OnDemandRequested.add_to(next, node, now);
}

/// Both groups have failed: the node is kept.
fn back_off(
    next: &mut ReplacementStatus,
    spot_since: Timestamp,
    on_demand_since: Timestamp,
    turn: &Turn<'_>,
) {
    if failure(next, GroupKind::Spot, spot_since, turn).is_none() {
        return;
    }
    let Some(failure) = failure(next, GroupKind::OnDemand, on_demand_since, turn) else { return };
    let (now, node) = (turn.facts.now, &turn.subject.node);
    let retry_in = turn.facts.policy.retry_delay(next.attempt + 1, &turn.subject.name);
    next.capacity.enter(CapacityState::BackingOff { until: now + retry_in });
    let on_demand = failure.clone();
    let failed = Event::RequestFailed { group: GroupKind::OnDemand, failure };
    if next.attempt == 0 {
        failed.add_to(next, node, now);
        Event::NodeKept { retry_in }.add_to(next, node, now);
    }
    next.block(FlowBox::Fallback, [Reason::BothGroupsFailed { on_demand }], now);
}

/// The wait after two failures is over.
fn request_both_again(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let now = turn.facts.now;
    next.attempt += 1;
    next.capacity.enter(CapacityState::BothRequested { spot_since: now, on_demand_since: now });
    next.blocking.clear();
    let (attempt, by_group) = (next.attempt + 1, next.is_replaced_by_group());
    let event = if by_group { Event::OnDemandRequested } else { Event::BothRequested { attempt } };
    event.add_to(next, &turn.subject.node, now);
}

/// Whether, and how, a request failed. A throttled call is no failure, and what is unknown is waited for.
/// Before a deadline nobody waits for a group of Spot instances that has refused.
fn failure(
    status: &ReplacementStatus,
    group: GroupKind,
    since: Timestamp,
    turn: &Turn<'_>,
) -> Option<RequestFailure> {
    if let Some(failure) = share_of_attempt(status, group, turn).and_then(|share| share.failure.as_ref()) {
        let presses = group == GroupKind::Spot && status.deadline.is_some();
        let follows = if presses { RequestFailure::of_pressing } else { RequestFailure::of };
        let found = follows(failure.class, &failure.message);
        if found.is_some() {
            return found;
        }
    }
    let waited = crate::time::since(since, turn.facts.now);
    (waited >= timeout(status, group, since, turn)).then_some(RequestFailure::TimedOut(waited))
}

/// How long a group may take. A deadline shortens it: to an eighth of what was left when it was requested,
/// or to three quarters once an instance is on its way in.
fn timeout(status: &ReplacementStatus, group: GroupKind, since: Timestamp, turn: &Turn<'_>) -> Duration {
    let policy = turn.facts.policy;
    let usual = seconds(match group {
        GroupKind::Spot => policy.spot_timeout_seconds,
        GroupKind::OnDemand => policy.on_demand_timeout_seconds,
    });
    let Some(deadline) = status.deadline else { return usual };
    let left = crate::time::since(since, deadline);
    let is_launched = share_of_attempt(status, group, turn).is_some_and(|share| share.instance_id.is_some());
    usual.min(if is_launched { left * 3 / 4 } else { left / 8 })
}
