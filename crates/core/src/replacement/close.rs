//! Box 11: a replacement is over once nothing of it is left in the ledger.

use super::facts::Turn;
use super::go_back::stand_in;
use crate::flow::{Event, Finish};
use crate::freshness::WatchedKind;
use crate::record::{CapacityState, GroupKind, OldNodeState, ReplacementStatus, set_condition};
use std::time::Duration;

/// A node in no pool that is not Ready for so long does not come back: by then the node lifecycle controller
/// has evicted its pods (Kubernetes, "Taint based evictions": 300 s).
const ABANDONED_AFTER: Duration = Duration::from_secs(900);

/// Whether only the ledger's shares are left to be forgotten.
pub(super) fn is_settled(status: &ReplacementStatus) -> bool {
    let done = match *status.old_node {
        OldNodeState::Gone {} => {
            matches!(*status.capacity, CapacityState::Taken { .. } | CapacityState::Withdrawn { .. })
        }
        OldNodeState::Retained {} => true,
        _ => false,
    };
    done && !status.fallback.is_open()
}

/// Goes on with what still has to go back, or ends.
pub(super) fn close(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    if !is_settled(next) {
        return;
    }
    let (facts, subject) = (turn.facts, turn.subject);
    let cancelled = next.old_node.is_retained();
    if cancelled {
        // Pods may have moved to what the replacement brought: it goes back like a fallback then.
        if returns_late_winner(next, GroupKind::Spot, turn) {
            return;
        }
    } else if facts.is_spot_raised(subject) {
        // AWS took the old instance before we terminated it, its group has replaced it, and by now everything
        // that could be terminated at once runs pods: the replacement's own Spot node goes back like a
        // fallback.
        let share = facts.share(GroupKind::Spot, subject);
        if turn.waited_to_settle
            && let Some((instance_id, node)) = facts.serving_node(share, GroupKind::Spot)
        {
            stand_in(next, GroupKind::Spot, instance_id, node.name, facts.now);
        }
        return;
    }
    // Pods may have moved to an on-demand node that came too late: it goes back like any other fallback.
    if !subject.adopted && returns_late_winner(next, GroupKind::OnDemand, turn) {
        return;
    }
    let open =
        [GroupKind::Spot, GroupKind::OnDemand].iter().any(|group| facts.share(*group, subject).is_some());
    // A request of a replacement that was cancelled may not be in the ledger yet that we know.
    let goes_back = matches!(*next.capacity, CapacityState::Withdrawn { .. });
    let heard = facts.withdrawn || !(cancelled || goes_back);
    if !open && heard {
        finish(next, Finish::Settled, turn);
    }
}

/// Whether an instance that came too late runs pods, and has to go back.
fn returns_late_winner(next: &mut ReplacementStatus, group: GroupKind, turn: &Turn<'_>) -> bool {
    let share = turn.facts.share(group, turn.subject).filter(|share| share.is_raised());
    let Some((instance_id, node)) = turn.facts.serving_node(share, group).filter(|(_, node)| node.has_pods)
    else {
        return false;
    };
    stand_in(next, group, instance_id, node.name, turn.facts.now);
    true
}

/// The end of the record.
pub(super) fn finish(next: &mut ReplacementStatus, finish: Finish, turn: &Turn<'_>) {
    let now = turn.facts.now;
    next.blocking.clear();
    next.finished_at = Some(now);
    next.settle_phase(now);
    let event = if next.old_node.is_retained() { Event::Cancelled(finish) } else { Event::CleanedUp(finish) };
    let reason = event.outcome().as_str();
    set_condition(&mut next.conditions, "Completed", true, reason, &finish.to_string(), now);
    event.add_to(next, &turn.subject.node, now);
}

/// Whether the old instance is neither in its group nor in the cluster. Of a node in no pool no group tells:
/// only that it is not Ready for good.
pub(super) fn is_gone(status: &ReplacementStatus, turn: &Turn<'_>) -> bool {
    let (facts, subject) = (turn.facts, turn.subject);
    if !facts.freshness.is_current(WatchedKind::Node) {
        return false;
    }
    if subject.in_pool {
        return facts.left_of(GroupKind::Spot, &subject.instance_id, facts.old_node, status).is_none();
    }
    facts.old_node.is_none_or(|node| {
        let long_ago = |at| crate::time::since(at, facts.now) >= ABANDONED_AFTER;
        !node.ready && node.ready_changed.is_some_and(long_ago)
    })
}
