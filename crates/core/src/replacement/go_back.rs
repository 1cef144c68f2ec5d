//! Boxes 6 to 10: what stands in goes back, when Spot can take over.

use super::by_group;
use super::facts::{Facts, Turn};
use super::leave::ended;
use super::unusable;
use crate::baseline::{may_adopt, needs_back};
use crate::drain::DrainEnd;
use crate::flow::Event;
use crate::freshness::Step;
use crate::ids::{InstanceId, NodeName};
use crate::ledger::Share;
use crate::policy::{backoff, seconds, spread};
use crate::preflight;
use crate::reason::{Reason, ReturnAssessment};
use crate::record::{
    Capacity, CapacityState, DrainPurpose, FallbackState, FlowBox, GroupKind, OpenFallback, ReplacementStatus,
};
use jiff::Timestamp;
use std::time::Duration;

/// So many probes keep the pace, half an hour by default: a market that dries up for minutes is the usual
/// case.
const PROBES_AT_PACE: u32 = 45;

/// The next step of the return.
pub(super) fn go_back(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    if !next.old_node.is_over() || !next.fallback.is_open() {
        return;
    }
    let Some(mut capacity) = next.capacity.taken().cloned() else { return };
    if let FallbackState::Pending(open) = (*next.fallback).clone() {
        next.fallback.enter(FallbackState::OnFallback(open));
        monitoring(next, &capacity, turn.facts.now);
    }
    if is_awaited(&capacity, turn) && matches!(*next.fallback, FallbackState::OnFallback(_)) {
        await_adoption(next, &capacity, turn);
        return;
    }
    if !matches!(*next.fallback, FallbackState::Terminating(_)) {
        if capacity.group == GroupKind::Spot
            && !turn.facts.is_spot_raised(turn.subject)
            && turn.facts.ledger.reduction.is_none()
        {
            // Another instance could be terminated after all: the node stays.
            nothing_to_return(next);
            return;
        }
        if !turn.facts.is_active(capacity.group, &capacity.instance_id) {
            let Some(successor) = lost(next, &capacity, turn) else { return };
            capacity = successor;
        }
    }
    match (*next.fallback).clone() {
        FallbackState::OnFallback(open) => assess(next, open, &capacity, turn),
        FallbackState::Draining(open) => follow(next, open, &capacity, turn),
        FallbackState::Terminating(open) => finish_termination(next, open, &capacity, turn),
        _ => {}
    }
}

fn nothing_to_return(next: &mut ReplacementStatus) {
    next.fallback.enter(FallbackState::None {});
    next.blocking.clear();
}

/// Whether the ledger does not hold yet what was raised for the instance. Nothing is done with it before.
fn is_awaited(capacity: &Capacity, turn: &Turn<'_>) -> bool {
    let held = turn.facts.share(GroupKind::OnDemand, turn.subject);
    turn.subject.adopted && capacity.group == GroupKind::OnDemand && held.is_none()
}

/// Waits for the ledger. If nothing is above the baseline by now, the instance is released.
fn await_adoption(next: &mut ReplacementStatus, capacity: &Capacity, turn: &Turn<'_>) {
    let Facts { view: Some(view), ledger, baseline, .. } = turn.facts else { return };
    match may_adopt(ledger, &view.on_demand, &capacity.instance_id, *baseline) {
        Some(false) => release(next, capacity, turn),
        _ => next.block(FlowBox::Monitor, [turn.facts.not_settled(GroupKind::OnDemand)], turn.facts.now),
    }
}

/// Whether the baseline needs an adopted instance after all: others have ended as many meanwhile, or it was
/// raised.
fn is_of_baseline(capacity: &Capacity, turn: &Turn<'_>) -> bool {
    let Facts { view: Some(view), ledger, baseline, .. } = turn.facts else { return false };
    let is_adopted = turn.subject.adopted && capacity.group == GroupKind::OnDemand;
    is_adopted && needs_back(ledger, &view.on_demand, *baseline, &turn.subject.name)
}

/// The instance is left to its owner again.
fn release(next: &mut ReplacementStatus, capacity: &Capacity, turn: &Turn<'_>) {
    nothing_to_return(next);
    Event::Released.add_to(next, &capacity.node_name, turn.facts.now);
}

/// Box 6 watches what stands in.
fn monitoring(next: &mut ReplacementStatus, capacity: &Capacity, now: Timestamp) {
    let node = capacity.node_name.clone();
    let cancelled = next.old_node.is_retained();
    Event::Monitoring { group: capacity.group, node, cancelled }.add_to(next, &capacity.node_name, now);
}

/// A record that was settled goes on with an instance that has to go back.
pub(super) fn stand_in(
    next: &mut ReplacementStatus,
    group: GroupKind,
    instance_id: InstanceId,
    node: NodeName,
    now: Timestamp,
) {
    let instance = Capacity { group, instance_id, node_name: node, ready_at: now };
    take(next, instance.clone());
    next.fallback.enter(FallbackState::OnFallback(OpenFallback::default()));
    next.return_started_at = None;
    monitoring(next, &instance, now);
}

/// Another instance stands in from now on.
fn take(next: &mut ReplacementStatus, instance: Capacity) {
    let on_demand_requested = next.capacity.is_on_demand_requested();
    next.capacity.enter(CapacityState::Taken { instance, on_demand_requested });
}

/// What stood in was lost before its termination was decided; the instance that stands in now, if there is
/// one.
fn lost(next: &mut ReplacementStatus, capacity: &Capacity, turn: &Turn<'_>) -> Option<Capacity> {
    let (facts, now) = (turn.facts, turn.facts.now);
    if next.old_node.is_retained() {
        let on_demand_requested = next.capacity.is_on_demand_requested();
        next.capacity.enter(CapacityState::Withdrawn { on_demand_requested });
        nothing_to_return(next);
        return None;
    }
    let spot = facts.serving_node(facts.share(GroupKind::Spot, turn.subject), GroupKind::Spot);
    let is_spare = next.is_replaced_by_group() && !turn.subject.adopted && facts.is_served_by_nodes();
    if capacity.group == GroupKind::OnDemand && (spot.is_some() || is_spare) {
        // Its pods have moved by themselves, and Spot has paid its debt: there is nothing to return.
        let successor = next.fallback.successor().cloned();
        next.fallback.enter(FallbackState::Gone { successor });
        next.blocking.clear();
        let instance_id = capacity.instance_id.clone();
        Event::FallbackLost { instance_id }.add_to(next, &capacity.node_name, now);
        return None;
    }
    let share = facts.share(capacity.group, turn.subject);
    if capacity.group == GroupKind::OnDemand
        && share.is_some_and(|share| share.instance_id.is_none() && !share.has_place())
    {
        // Its place went with it: the group launches no successor, and no other node of it is ours.
        next.fallback.enter(FallbackState::Gone { successor: None });
        next.blocking.clear();
        let instance_id = capacity.instance_id.clone();
        Event::FallbackTerminated { instance_id }.add_to(next, &capacity.node_name, now);
        return None;
    }
    // The group replaces an instance that was lost: the fallback goes on with its successor.
    let (instance_id, node) = facts.serving_node(share, capacity.group)?;
    let capacity = Capacity { group: capacity.group, instance_id, node_name: node.name, ready_at: now };
    take(next, capacity.clone());
    if let FallbackState::Draining(open) = (*next.fallback).clone() {
        next.fallback.enter(FallbackState::OnFallback(open));
    }
    Some(capacity)
}

/// Boxes 7, 8 and 9, on the HealthMonitor's word and never without a Spot instance claimed for the return. A
/// Spot node that is one too many needs none, nor does what a cancelled replacement brought: its old instance
/// stays. Of a group that replaces by itself none is claimed: its instances are counted.
fn assess(next: &mut ReplacementStatus, mut open: OpenFallback, capacity: &Capacity, turn: &Turn<'_>) {
    let now = turn.facts.now;
    if is_of_baseline(capacity, turn) {
        release(next, capacity, turn);
        return;
    }
    let obstacle = claim(&mut open, next, capacity, turn)
        .or_else(|| obstacle(capacity, turn.facts))
        .or_else(|| pass_boxes(&mut open, next, capacity, turn));
    let begins = obstacle.is_none() && open.not_before.is_none_or(|at| now >= at);
    if let Some(fallback) = next.fallback.open_mut() {
        *fallback = open.clone();
    }
    match obstacle {
        Some(Obstacle::At(FlowBox::Safety, _)) if turn.is_to_be_released() => release(next, capacity, turn),
        Some(Obstacle::At(flow_box, reasons)) => next.block(flow_box, reasons, now),
        Some(Obstacle::NotAssessed) => {
            let boxes = [FlowBox::Monitor, FlowBox::Health, FlowBox::Stability, FlowBox::Safety];
            boxes.into_iter().for_each(|flow_box| turn.keep(next, flow_box));
        }
        None if begins => {
            next.blocking.clear();
            next.fallback.enter(FallbackState::Draining(open));
            next.return_started_at = Some(now);
        }
        None => {
            next.block(FlowBox::ScaleDown, open.not_before.map(|until| Reason::ReturnRetry { until }), now)
        }
    }
}

/// What lets a return not begin.
enum Obstacle {
    /// Reasons at a box.
    At(FlowBox, Vec<Reason>),
    /// The HealthMonitor has not reported yet.
    NotAssessed,
}

fn at<R: Into<Reason>>(flow_box: FlowBox, reasons: Vec<R>) -> Option<Obstacle> {
    let reasons: Vec<Reason> = reasons.into_iter().map(Into::into).collect();
    (!reasons.is_empty()).then_some(Obstacle::At(flow_box, reasons))
}

/// The pause, the rollout and the limits that let no return begin.
fn limiting(facts: &Facts<'_>) -> Vec<Reason> {
    let limits = facts.assessment.map_or(&[][..], |found| &found.held);
    let pause = facts.starts.pause.clone().map(Reason::Paused);
    let rollout = facts.view.and_then(preflight::rollout);
    pause.into_iter().chain(rollout).chain(limits.iter().cloned()).collect()
}

/// The Spot instance that takes over is claimed, and Spot asked again for it.
fn claim(
    open: &mut OpenFallback,
    status: &mut ReplacementStatus,
    capacity: &Capacity,
    turn: &Turn<'_>,
) -> Option<Obstacle> {
    let facts = turn.facts;
    let cancelled = status.old_node.is_retained();
    if status.is_replaced_by_group() && !cancelled {
        let missing = (!by_group::is_spare(open, turn)).then_some(Reason::NoSpotInstance);
        return at(FlowBox::Health, Vec::from_iter(missing.or_else(|| at_minimum(capacity, turn))));
    }
    if capacity.group == GroupKind::Spot {
        // One too many needs no successor, and goes back whether its node can be used or not.
        return at(FlowBox::Health, Vec::from_iter(at_minimum(capacity, turn)));
    }
    let share = facts.share(GroupKind::Spot, turn.subject);
    let unusable = unusable::reason(share, GroupKind::Spot, facts);
    let claimed = facts.serving_node(share, GroupKind::Spot);
    let Some((instance_id, node)) = claimed.filter(|_| !cancelled) else {
        if !cancelled {
            open.successor = None;
            let of_this = |found: &&ReturnAssessment| found.is_of(&capacity.instance_id);
            let Some(found) = facts.assessment.filter(of_this) else {
                let stale = at(FlowBox::Safety, facts.freshness.against(Step::Return));
                return stale.or(Some(Obstacle::NotAssessed));
            };
            // An instance that Spot gave now would stand idle: the return may not begin yet, or the pods
            // could not move to it.
            let idle = at(FlowBox::Monitor, limiting(facts));
            if let Some(idle) = idle.or_else(|| at(FlowBox::Safety, found.unsafe_with_spot.clone())) {
                return Some(idle);
            }
            probe(open, status, turn);
            return at(FlowBox::Health, vec![unusable.unwrap_or(Reason::NoSpotInstance)]);
        }
        return at(FlowBox::Health, Vec::from_iter(at_minimum(capacity, turn)));
    };
    // Whether the pods fit with it is asked at box 9, again and again.
    let is_of_pods =
        |reason: &Reason| matches!(reason, Reason::InstanceUnusable { why, .. } if why.is_of_pods());
    if let Some(reason) = unusable.filter(|reason| !is_of_pods(reason)) {
        open.successor = None;
        return at(FlowBox::Health, vec![reason]);
    }
    if node.cordoned {
        // It is on its way out itself, or somebody keeps pods from it.
        open.successor = None;
        return at(FlowBox::Health, vec![Reason::NodeCordoned { node: node.name.clone() }]);
    }
    let minimum = at_minimum(capacity, turn);
    let known = open.successor.as_ref().is_some_and(|capacity| capacity.instance_id == instance_id);
    if minimum.is_none() && !known {
        let (group, node_name) = (GroupKind::Spot, node.name);
        open.successor = Some(Capacity { group, instance_id, node_name, ready_at: facts.now });
    }
    at(FlowBox::Health, Vec::from_iter(minimum))
}

/// At its minimum a group would replace what is terminated, and its desired capacity would stay raised: AWS
/// refuses to lower it (TerminateInstanceInAutoScalingGroup).
fn at_minimum(capacity: &Capacity, turn: &Turn<'_>) -> Option<Reason> {
    let group = turn.facts.view?.group(capacity.group);
    let share = turn.facts.share(capacity.group, turn.subject);
    let raised = capacity.group == GroupKind::Spot || share.is_some_and(Share::is_raised);
    let blocks = raised && group.desired <= group.min;
    blocks.then(|| Reason::AtMinimum { group: group.name.clone() })
}

/// An old picture, another node that claims the instance, or another record that drains its node: two drains
/// of one node wait for each other.
fn obstacle(capacity: &Capacity, facts: &Facts<'_>) -> Option<Obstacle> {
    let Capacity { instance_id, node_name, group, .. } = capacity;
    at(FlowBox::Safety, facts.freshness.against(Step::Return))
        .or_else(|| at(FlowBox::Safety, facts.disputed(instance_id, node_name, *group)))
        .or_else(|| at(FlowBox::Safety, Vec::from_iter(facts.ends_by_other(instance_id))))
}

/// The limits, and boxes 7 to 9; each box is reported once.
fn pass_boxes(
    open: &mut OpenFallback,
    status: &mut ReplacementStatus,
    capacity: &Capacity,
    turn: &Turn<'_>,
) -> Option<Obstacle> {
    // What was found of an instance that went back before says nothing of this one, nor what was found while
    // another one was to take over.
    let successor = open.successor.as_ref().map(|held| &held.instance_id);
    let is_of_this = |found: &&ReturnAssessment| {
        found.is_of(&capacity.instance_id) && (found.of.is_none() || found.successor.as_ref() == successor)
    };
    let Some(found) = turn.facts.assessment.filter(is_of_this) else { return Some(Obstacle::NotAssessed) };
    let boxes =
        [(Event::Healthy, &found.unhealthy), (Event::Stable, &found.unstable), (Event::Safe, &found.unsafe_)];
    if let Some(waiting) = at(FlowBox::Monitor, limiting(turn.facts)) {
        return Some(waiting);
    }
    for (event, reasons) in boxes {
        let flow_box = event.flow_box();
        if !reasons.is_empty() {
            return at(flow_box, reasons.clone());
        }
        if open.passed < Some(flow_box) {
            open.passed = Some(flow_box);
            event.add_to(status, &capacity.node_name, turn.facts.now);
        }
    }
    None
}

/// What Spot owes in our record is requested again, with backoff: LaunchInstances tries nothing by itself.
/// The replacements of a group ask at the same moments, so that one call serves them all, and at once when
/// Spot has given one of them an instance.
fn probe(open: &mut OpenFallback, status: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, now) = (turn.facts, turn.facts.now);
    let share = facts.share(GroupKind::Spot, turn.subject);
    let Some(share) = share.filter(|share| share.instance_id.is_none() && !share.has_place()) else {
        open.next_probe_at = None;
        return;
    };
    let gave = facts.ledger.shares(GroupKind::Spot).filter_map(|other| other.claimed_at).max();
    let is_answered = share.attempt == status.requests_made() && !share.rests(now);
    let failed = share.failure.as_ref().filter(|_| is_answered);
    let gives = failed.is_some_and(|failure| gave.is_some_and(|at| at > failure.at));
    match open.next_probe_at {
        Some(at) if now < at && !gives => return,
        Some(_) => status.probes += 1,
        None => {}
    }
    let first = seconds(facts.policy.probe_seconds);
    let failures = (status.probes + 1).saturating_sub(PROBES_AT_PACE);
    let pause = backoff(first, seconds(facts.policy.probe_max_seconds), failures);
    let group = facts.view.map_or("", |view| &view.spot.name);
    open.next_probe_at = Some(mark(now + pause, first.min(pause), group));
}

/// The last of a group's marks, which lie so far apart, before that moment.
fn mark(at: Timestamp, apart_by: Duration, group: &str) -> Timestamp {
    let apart = i64::try_from(apart_by.as_millis()).unwrap_or(i64::MAX).max(1);
    let offset = i64::try_from(spread(5 * apart_by, group).as_millis()).unwrap_or(0);
    let past = (at.as_millisecond() - offset).rem_euclid(apart);
    at - Duration::from_millis(past.unsigned_abs())
}

/// Box 10: a drain that has begun.
fn follow(next: &mut ReplacementStatus, open: OpenFallback, capacity: &Capacity, turn: &Turn<'_>) {
    let (facts, now) = (turn.facts, turn.facts.now);
    let stale = facts.freshness.against(Step::End);
    if !stale.is_empty() {
        next.block(FlowBox::ScaleDown, stale, now);
        return;
    }
    if is_of_baseline(capacity, turn) {
        release(next, capacity, turn);
        return;
    }
    let disputed = facts.disputed(&capacity.instance_id, &capacity.node_name, capacity.group);
    // Two drains of one node would wait for each other: the one with a deadline goes on.
    let against: Vec<Reason> =
        disputed.into_iter().chain(facts.ends_by_other(&capacity.instance_id)).collect();
    if !against.is_empty() {
        give_up(next, open, capacity, against, turn);
        return;
    }
    if let Some(reason) = at_minimum(capacity, turn) {
        give_up(next, open, capacity, vec![reason], turn);
        return;
    }
    let Some(report) = facts.return_drain.filter(|report| report.node == capacity.node_name) else {
        turn.keep(next, FlowBox::ScaleDown);
        return;
    };
    let policy = facts.policy;
    let patience = seconds(policy.drain_timeout_seconds) + seconds(policy.wait_before_termination_seconds);
    // Pods that end have their grace period, however long it is.
    let ends = |reason: &Reason| matches!(reason, Reason::PodTerminating { .. });
    let goes_on = !report.blocked.is_empty() && report.blocked.iter().all(ends);
    let overdue = !goes_on && crate::time::since(next.return_started_at.unwrap_or(now), now) >= patience;
    match &report.end {
        Some(end @ (DrainEnd::Moved | DrainEnd::Without(_))) => {
            next.blocking.clear();
            ended(end, DrainPurpose::Return).add_to(next, &capacity.node_name, now);
            next.fallback.enter(FallbackState::Terminating(open));
        }
        Some(DrainEnd::GivenUp(reasons)) => give_up(next, open, capacity, reasons.clone(), turn),
        None if overdue => give_up(next, open, capacity, report.blocked.clone(), turn),
        None if report.stuck || report.held_until.is_some() => {
            next.block(FlowBox::ScaleDown, report.blocked.clone(), now);
        }
        None => {}
    }
}

/// Taint and cordon come off, and the return is tried again later.
fn give_up(
    next: &mut ReplacementStatus,
    open: OpenFallback,
    capacity: &Capacity,
    reasons: Vec<Reason>,
    turn: &Turn<'_>,
) {
    let now = turn.facts.now;
    let not_before = Some(now + seconds(turn.facts.policy.return_retry_seconds));
    next.fallback.enter(FallbackState::OnFallback(OpenFallback { not_before, ..open }));
    Event::ReturnGivenUp { reasons }.add_to(next, &capacity.node_name, now);
}

/// Box 10: a termination that was decided.
fn finish_termination(
    next: &mut ReplacementStatus,
    open: OpenFallback,
    capacity: &Capacity,
    turn: &Turn<'_>,
) {
    let (facts, now, group) = (turn.facts, turn.facts.now, capacity.group);
    let stale = facts.stale_before_end(&capacity.instance_id, group);
    if !stale.is_empty() {
        next.fallback.enter(FallbackState::Draining(open));
        next.block(FlowBox::ScaleDown, stale, now);
        return;
    }
    let mut against = facts.disputed(&capacity.instance_id, &capacity.node_name, group);
    if facts.is_active(group, &capacity.instance_id) && facts.ledger.reduction.is_none() {
        if is_of_baseline(capacity, turn) {
            release(next, capacity, turn);
            return;
        }
        against.extend(at_minimum(capacity, turn));
    }
    if !against.is_empty() {
        give_up(next, open, capacity, against, turn);
        return;
    }
    let node = (facts.node_of)(&capacity.instance_id);
    let left = facts.left_of(group, &capacity.instance_id, node.as_ref(), next);
    let lowers = facts.ledger.reduction.is_some();
    if let Some(waits) = left.or_else(|| lowers.then(|| facts.not_settled(group))) {
        next.block(FlowBox::ScaleDown, [waits], now);
        return;
    }
    let share = facts.share(group, turn.subject);
    if !share.is_some_and(Share::is_raised) {
        next.blocking.clear();
        next.fallback.enter(FallbackState::Gone { successor: open.successor });
        let instance_id = capacity.instance_id.clone();
        Event::ScaledDown { group, instance_id }.add_to(next, &capacity.node_name, now);
    } else if turn.waited_to_settle
        && let Some((instance_id, node)) = facts.serving_node(share, group)
    {
        // AWS was faster, and the group's own replacement runs pods already: it goes back instead.
        take(next, Capacity { group, instance_id, node_name: node.name, ready_at: now });
        next.fallback.enter(FallbackState::OnFallback(open));
        next.blocking.clear();
    } else {
        next.block(FlowBox::ScaleDown, [facts.not_settled(group)], now);
    }
}
