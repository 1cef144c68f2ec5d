//! Boxes 4 and 5: the old node is tainted and drained, and its instance terminated.

use super::begin::cancel;
use super::by_group;
use super::capacity;
use super::facts::{Mode, Turn};
use crate::drain::{DrainEnd, DrainReport};
use crate::flow::Event;
use crate::freshness::{Step, WatchedKind};
use crate::group::PoolView;
use crate::ledger::unusable::Unusable;
use crate::policy::seconds;
use crate::reason::{NodeTrouble, Reason, ReasonCode, in_one_line};
use crate::record::{
    CapacityState, DrainPurpose, FlowBox, GroupKind, NoticeKind, OldDrain, OldNodeState, ReplacementStatus,
    set_condition,
};
use std::time::Duration;

/// What stands in on advice goes back if the old instance is still in service after this time: AWS may hold
/// back for hours (EC2 Auto Scaling User Guide, "Capacity Rebalancing").
const ADVICE_IS_OLD: Duration = Duration::from_secs(1800);

/// An instance that serves so long after its deadline had no interruption notice of EC2.
const FALSE_AFTER: Duration = Duration::from_secs(180);
/// Maintenance may come later than its time, and is over without an end of the instance if EC2 reboots it.
const MAINTAINED_AFTER: Duration = Duration::from_secs(3600);

/// The next step of the drain. Nothing is tainted before a replacement can take the pods, unless a deadline
/// presses.
pub(super) fn drain(next: &mut ReplacementStatus, mode: Mode, turn: &Turn<'_>) {
    match (*next.old_node).clone() {
        OldNodeState::Kept {} if by_group::is_left_to_eks(next, turn.facts) => {}
        // EC2 may never take it: its pods stay until the group ends it.
        OldNodeState::Kept {} if next.stands_in_on_advice() => {}
        OldNodeState::Kept {}
            if next.capacity.taken().is_some() || next.deadline.is_some() || mode == Mode::DrainOnly =>
        {
            next.old_node.enter(OldNodeState::Draining(OldDrain::begun(turn.facts.now)));
        }
        OldNodeState::Draining(drain) => follow(next, drain, turn),
        _ => {}
    }
}

/// A drain that has begun.
fn follow(next: &mut ReplacementStatus, mut drain: OldDrain, turn: &Turn<'_>) {
    let (facts, subject, now) = (turn.facts, turn.subject, turn.facts.now);
    let report = facts.drain.filter(|report| report.node == subject.node);
    if is_gone(next, report, turn) {
        next.old_node.enter(OldNodeState::Drained(drain));
        next.blocking.clear();
        let instance_id = subject.instance_id.clone();
        Event::GoneBeforeDrained { instance_id }.add_to(next, &subject.node, now);
        return;
    }
    if report.is_some_and(|report| report.tainted) && !drain.tainted {
        drain.tainted = true;
        next.old_node.note(drain.clone());
        Event::Tainted.add_to(next, &subject.node, now);
    }
    let stale = facts.freshness.against(Step::End);
    if !stale.is_empty() {
        // It goes on as far as it may; whether it is over is found when the picture is current again.
        next.block(FlowBox::Drain, stale, now);
        return;
    }
    match report {
        Some(DrainReport { end: Some(end), .. }) => {
            next.old_node.enter(OldNodeState::Drained(drain));
            next.blocking.clear();
            let event = ended(end, DrainPurpose::Replace);
            let (reason, text) = (event.outcome().as_str(), event.to_string());
            set_condition(&mut next.conditions, "Drained", true, reason, &text, now);
            event.add_to(next, &subject.node, now);
        }
        Some(report) if report.stuck && report.held_until.is_none() && !report.blocked.is_empty() => {
            report_trouble(next, drain, &report.blocked, turn);
        }
        Some(report) => {
            next.old_node.note(OldDrain { stuck_since: None, ..drain });
            if report.held_until.is_some() {
                next.block(FlowBox::Drain, report.blocked.clone(), now);
            }
        }
        None => turn.keep(next, FlowBox::Drain),
    }
}

/// Whether there is nothing left to drain: the node is gone, or only its object is left, and what is bound to
/// it does not move.
fn is_gone(next: &ReplacementStatus, report: Option<&DrainReport>, turn: &Turn<'_>) -> bool {
    let (facts, instance_id) = (turn.facts, &turn.subject.instance_id);
    if !facts.freshness.is_current(WatchedKind::Node) {
        return false;
    }
    let Some(node) = facts.old_node else {
        // A node of an instance that serves may only not have been shown yet: its drain knows.
        return !facts.is_active(GroupKind::Spot, instance_id);
    };
    report.is_some_and(|report| report.stuck)
        && facts.left_of(GroupKind::Spot, instance_id, Some(node), next).is_none()
}

/// A drain that does not go on. Without a deadline it is given up in the end: nothing says that EC2 takes the
/// node, and two run side by side.
fn report_trouble(next: &mut ReplacementStatus, drain: OldDrain, reasons: &[Reason], turn: &Turn<'_>) {
    let (node, now) = (&turn.subject.node, turn.facts.now);
    let patience = seconds(turn.facts.policy.drain_timeout_seconds);
    let since = drain.stuck_since.unwrap_or(now);
    if drain.stuck_since.is_none() {
        next.old_node.note(OldDrain { stuck_since: Some(now), ..drain });
        Event::DrainBlocked { reasons: reasons.to_vec() }.add_to(next, node, now);
    }
    // The successors of pods have their own time, and so have pods that end: their grace period.
    let ends_by_itself =
        |reason: &Reason| matches!(reason, Reason::SuccessorsNotReady { .. } | Reason::PodTerminating { .. });
    let goes_on = reasons.iter().all(ends_by_itself);
    if next.deadline.is_none() && !goes_on && crate::time::since(since, now) >= patience {
        Event::DrainGivenUp { patience, reasons: reasons.to_vec() }.add_to(next, node, now);
        cancel(next, now);
        return;
    }
    next.block(FlowBox::Drain, reasons.to_vec(), now);
}

/// Gives the search up if the pods have not fitted with an instance for twice the time that a node has.
///
/// The instance would have been given back by then if another zone could be asked. Without a deadline nothing
/// says that EC2 takes the old node, and two run side by side.
pub(super) fn give_up(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, now) = (turn.facts, turn.facts.now);
    if next.deadline.is_some() || next.capacity.taken().is_some() || next.old_node.is_retained() {
        return;
    }
    let waited = 2 * seconds(facts.policy.join_timeout_seconds);
    let is_final = |held: &Unusable| {
        let is_misfit = held.is_now() && held.why == NodeTrouble::PodsDoNotFit;
        is_misfit && crate::time::since(held.since, now) >= waited
    };
    let found = [GroupKind::Spot, GroupKind::OnDemand].into_iter().find_map(|group| {
        let share = capacity::share_of_attempt(next, group, turn);
        let share = share.filter(|share| share.unusable.as_ref().is_some_and(is_final))?;
        facts.serving_node(Some(share), group)
    });
    let Some((instance_id, node)) = found else { return };
    let reasons = capacity::misfit(next, &instance_id, &node, turn);
    Event::FitGivenUp { waited, reasons }.add_to(next, &turn.subject.node, now);
    cancel(next, now);
}

/// Ends what stands in on advice once the group has an instance more, or while the old instance stays in
/// service: it goes back without Spot.
pub(super) fn give_up_advice(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, now) = (turn.facts, turn.facts.now);
    let stays = facts.view.is_some_and(|view| view.spot.is_in_service(&turn.subject.instance_id));
    if !next.is_advice_of_group() || next.old_node != (OldNodeState::Kept {}) || !stays {
        return;
    }
    let waited = next.started_at.map_or(ADVICE_IS_OLD, |at| crate::time::since(at, now));
    if waited >= ADVICE_IS_OLD || matches!(*next.capacity, CapacityState::Withdrawn { .. }) {
        let instance_id = turn.subject.instance_id.clone();
        Event::AdviceGivenUp { instance_id, waited }.add_to(next, &turn.subject.node, now);
        cancel(next, now);
    }
}

/// Ends what a false notice began, or maintenance that is over. Where the group replaces by itself nothing of
/// ours ends the old instance, so that it serves shows that EC2 did not take it: a stolen token of an agent
/// can say what it likes.
pub(super) fn give_up_false_notice(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, now) = (turn.facts, turn.facts.now);
    let patience = match next.notice {
        Some(NoticeKind::SpotInterruption) => FALSE_AFTER,
        Some(NoticeKind::ScheduledMaintenance) => MAINTAINED_AFTER,
        _ => return,
    };
    let Some(deadline) = next.deadline.filter(|deadline| now >= *deadline + patience) else { return };
    let instance_id = &turn.subject.instance_id;
    let is_listed = |view: &PoolView| {
        view.spot.observed_at >= deadline + patience / 2 && view.spot.is_in_service(instance_id)
    };
    let serves = facts.view.is_some_and(is_listed)
        && facts.old_node.is_some_and(|node| node.ready)
        && facts.freshness.is_current(WatchedKind::Node);
    if next.is_replaced_by_group() && serves && !next.old_node.is_over() {
        let instance_id = instance_id.clone();
        let event = match next.notice {
            Some(NoticeKind::SpotInterruption) => Event::NoticeFalse { instance_id, deadline },
            _ => Event::Maintained { instance_id, deadline },
        };
        event.add_to(next, &turn.subject.node, now);
        // The next notice of the instance has a deadline of its own.
        next.deadline = None;
        cancel(next, now);
    }
}

/// The end of a drain as it is reported.
pub(super) fn ended(end: &DrainEnd, purpose: DrainPurpose) -> Event {
    match end {
        DrainEnd::Moved => Event::Drained { purpose },
        DrainEnd::Without(reasons) | DrainEnd::GivenUp(reasons) => {
            Event::DrainedWithout { purpose, reasons: reasons.clone() }
        }
    }
}

/// The old instance is terminated, exactly that one: after its drain or just before its deadline.
pub(super) fn terminate(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, subject, now) = (turn.facts, turn.subject, turn.facts.now);
    if next.old_node.is_over() {
        return;
    }
    if next.is_replaced_by_group() {
        by_group::await_end(next, turn);
        return;
    }
    let disputed = facts.disputed(&subject.instance_id, &subject.node, GroupKind::Spot);
    if !disputed.is_empty() {
        if let OldNodeState::Terminating(drain) = (*next.old_node).clone() {
            next.old_node.enter(OldNodeState::Drained(drain));
        }
        next.block(FlowBox::Drain, disputed, now);
        return;
    }
    let pressed = facts.is_pressed(next);
    if let OldNodeState::Draining(drain) = (*next.old_node).clone()
        && pressed
    {
        next.old_node.enter(OldNodeState::Drained(drain));
        next.blocking.clear();
        let waits = facts.drain.filter(|report| report.node == subject.node);
        let reasons = waits.map_or_else(Vec::new, |report| report.blocked.clone());
        Event::DeadlineNear { reasons }.add_to(next, &subject.node, now);
    }
    match (*next.old_node).clone() {
        OldNodeState::Drained(drain) => next.old_node.enter(OldNodeState::Terminating(drain)),
        OldNodeState::Terminating(drain) => finish_termination(next, drain, pressed, turn),
        _ => {}
    }
}

/// A termination that was decided.
fn finish_termination(next: &mut ReplacementStatus, drain: OldDrain, pressed: bool, turn: &Turn<'_>) {
    let (facts, subject, now) = (turn.facts, turn.subject, turn.facts.now);
    let stale = facts.stale_before_end(&subject.instance_id, GroupKind::Spot);
    if !stale.is_empty() && !pressed {
        // Whether its drain is over is found anew when the picture is current again.
        next.old_node.enter(OldNodeState::Draining(drain));
        let reason = ReasonCode::StaleWatch.as_str();
        set_condition(&mut next.conditions, "Drained", false, reason, &in_one_line(&stale), now);
        next.block(FlowBox::Drain, stale, now);
        return;
    }
    let raised = facts.is_spot_raised(subject);
    let uncounted = facts.ledger.is_uncounted(GroupKind::Spot, &subject.name);
    let unsettled = facts.ledger.reduction.is_some() || uncounted || raised && !turn.waited_to_settle;
    let left = facts.left_of(GroupKind::Spot, &subject.instance_id, facts.old_node, next);
    if let Some(waits) = left.or_else(|| unsettled.then(|| facts.not_settled(GroupKind::Spot))) {
        next.block(FlowBox::Drain, [waits], now);
        return;
    }
    next.blocking.retain(|reason| reason.flow_box != FlowBox::Drain);
    next.old_node.enter(OldNodeState::Gone {});
    let instance_id = subject.instance_id.clone();
    Event::Terminated { instance_id, replaced_by_group: raised }.add_to(next, &subject.node, now);
}

/// A node that is only drained waits for its end.
pub(super) fn await_end(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    if !matches!(*next.old_node, OldNodeState::Drained(_)) {
        return;
    }
    let waits = match turn.facts.old_node {
        Some(node) => Reason::NodeNotGone { node: node.name.clone(), group: None },
        None => Reason::InstanceNotGone { instance_id: turn.subject.instance_id.clone() },
    };
    next.block(FlowBox::Drain, [waits], turn.facts.now);
}
