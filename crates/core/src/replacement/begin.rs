//! Box 1: how a replacement begins, escalates, is cancelled and is held back.

use super::by_group;
use super::facts::{Facts, Mode, RebalanceMode, Subject};
use crate::flow::Event;
use crate::limits;
use crate::preflight;
use crate::reason::Reason;
use crate::record::{
    CapacityState, FallbackState, NoticeKind, OldNodeState, Outcome, ReplacementStatus, UtilisationPercent,
    set_condition,
};
use jiff::Timestamp;

/// A fresh record for a notice.
#[must_use]
pub fn open(
    subject: &Subject,
    kind: NoticeKind,
    deadline: Option<Timestamp>,
    utilisation: Option<UtilisationPercent>,
    traceparent: Option<String>,
    now: Timestamp,
) -> ReplacementStatus {
    let mut status = ReplacementStatus {
        notice: Some(kind),
        started_at: Some(now),
        deadline,
        utilisation_before: utilisation,
        traceparent,
        ..ReplacementStatus::default()
    };
    status.settle_phase(now);
    let instance_id = subject.instance_id.clone();
    Event::NoticeReceived { kind, instance_id, deadline }.add_to(&mut status, &subject.node, now);
    status
}

/// Takes in a further notice for the same node and instance: a deadline escalates the replacement from every
/// phase. The earliest counts: a later notice may bring it forward, never make it later. `deadline` is one
/// that EC2 may have given ([`crate::notices::deadline`]). That a group ends what the replacement ends itself
/// is no news. A replacement that has requested nothing yet leaves capacity to the group that ends the
/// instance.
pub fn escalate(
    status: &mut ReplacementStatus,
    subject: &Subject,
    kind: NoticeKind,
    deadline: Option<Timestamp>,
    now: Timestamp,
) {
    let Some(deadline) = deadline.filter(|_| !status.is_finished()) else { return };
    let ends_anyway = matches!(
        *status.old_node,
        OldNodeState::Drained(_) | OldNodeState::Terminating(_) | OldNodeState::Gone {}
    );
    if kind == NoticeKind::GroupTermination && ends_anyway {
        return;
    }
    if status.deadline.is_some_and(|known| known <= deadline) {
        return;
    }
    if status.old_node.is_retained() {
        resume(status, now);
    }
    status.deadline = Some(deadline);
    let was_ended = status.notice == Some(NoticeKind::GroupTermination);
    if !was_ended && (kind != NoticeKind::GroupTermination || !status.capacity.is_requested()) {
        status.notice = Some(kind);
    }
    let instance_id = subject.instance_id.clone();
    Event::Escalated { kind, instance_id, deadline }.add_to(status, &subject.node, now);
}

/// EC2 takes the node that was to stay. What the replacement brought may serve it after all.
fn resume(status: &mut ReplacementStatus, now: Timestamp) {
    status.attempt += 1;
    status.old_node.enter(OldNodeState::Kept {});
    if status.capacity.is_requested() {
        status.capacity.enter(CapacityState::SpotRequested { since: now });
    }
    forget_progress(status);
    status.conditions.clear();
}

/// Nothing has to go back, nothing blocks, and no return has begun.
fn forget_progress(status: &mut ReplacementStatus) {
    if status.fallback != (FallbackState::None {}) {
        status.fallback.enter(FallbackState::None {});
    }
    status.return_started_at = None;
    status.blocking.clear();
}

/// A cancelled replacement begins anew: something else happened to the same instance.
#[must_use]
pub fn reopen(cancelled: &ReplacementStatus, fresh: ReplacementStatus) -> ReplacementStatus {
    fresh.after(cancelled)
}

/// Ends a replacement whose old node is still wanted: taint and cordon come off, what it brought goes back as
/// late winners do. It is over when nothing of it is left.
pub fn cancel(status: &mut ReplacementStatus, now: Timestamp) {
    status.old_node.enter(OldNodeState::Retained {});
    if status.capacity.is_requested() {
        let on_demand_requested = status.capacity.is_on_demand_requested();
        if !matches!(*status.capacity, CapacityState::Withdrawn { .. }) {
            status.capacity.enter(CapacityState::Withdrawn { on_demand_requested });
        }
        let (reason, text) = (Outcome::Cancelled.as_str(), "requested capacity goes back");
        set_condition(&mut status.conditions, "CapacityReady", false, reason, text, now);
    }
    forget_progress(status);
    status.settle_phase(now);
}

/// The step that reports what holds a replacement back, if it is one beside the blocking reason.
pub(super) fn reported(reason: &Reason) -> Option<Event> {
    match reason {
        Reason::ObserveOnly { at_once } => Some(Event::Observed { pressed: *at_once }),
        Reason::LeftToNeighbour(neighbour) => Some(Event::SteppedAside { neighbour: *neighbour }),
        _ => None,
    }
}

/// Why nothing may be done; empty: it may. An interruption notice passes every pause and every limit.
pub(super) fn held_back(
    status: &ReplacementStatus,
    subject: &Subject,
    mode: Mode,
    facts: &Facts<'_>,
) -> Vec<Reason> {
    if mode == Mode::Observe {
        return vec![Reason::ObserveOnly { at_once: status.deadline.is_some() }];
    }
    if status.capacity.is_requested() || status.old_node != (OldNodeState::Kept {}) {
        return Vec::new();
    }
    let owner = by_group::owner(status, facts);
    if let Some(neighbour) = owner.filter(|held| status.deadline.is_none() || held.owns_nodes()) {
        return vec![Reason::LeftToNeighbour(neighbour)];
    }
    if status.deadline.is_some() {
        return Vec::new();
    }
    if let Some(reason) = facts.ends_by_other(&subject.instance_id) {
        return vec![reason];
    }
    if !subject.in_pool || facts.names_another_group(status) {
        return vec![Reason::NotInPool];
    }
    if !facts.refused.is_empty() {
        return facts.refused.to_vec();
    }
    if facts.view.is_some_and(|view| view.spot.is_in_standby(&subject.instance_id)) {
        return vec![Reason::InStandby { instance_id: subject.instance_id.clone() }];
    }
    if let Some(rollout) = facts.view.and_then(preflight::rollout) {
        return vec![rollout];
    }
    if facts.is_by_group() {
        return vec![Reason::ReplacedByGroup];
    }
    if facts.rebalance == RebalanceMode::Ignore && status.notice == Some(NoticeKind::RebalanceRecommendation)
    {
        return vec![Reason::RebalanceIgnored];
    }
    let created = facts.old_node.and_then(|node| node.created);
    match limits::start_held(&facts.starts, facts.policy, status.notice, created, facts.now) {
        Some(reason) => vec![reason],
        None => (facts.never_leave)(),
    }
}
