//! Boxes 2 to 5 and 7 in a pool whose Spot group replaces its instances by itself.
//!
//! Nothing is requested of that group, no instance of it is claimed, and none is terminated (EC2 Auto Scaling
//! User Guide, "Capacity Rebalancing"; EKS User Guide, "Managed node groups"). On-demand stands in for what
//! the group does not bring in time, and goes back as the group brings it.

use super::capacity;
use super::facts::{Facts, NodeFact, Queue, Turn};
use crate::classify;
use crate::flow::Event;
use crate::group::request_failure::RequestFailure;
use crate::group::{GroupView, Lifecycle, PoolView};
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::CLOCK_SKEW;
use crate::neighbours::Neighbour;
use crate::record::{
    Capacity, CapacityState, FlowBox, GroupKind, NoticeKind, OldNodeState, OpenFallback, ReplacedBy,
    ReplacementStatus,
};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::time::Duration;

/// So long after the notice the group may launch nothing.
const LAUNCHES_WITHIN: Duration = Duration::from_secs(15);
/// So long before the deadline an instance on its way in has to serve.
const SERVES_BEFORE: Duration = Duration::from_secs(30);

impl Facts<'_> {
    /// Whether the nodes of the pool are replaced by their group.
    pub(super) fn is_by_group(&self) -> bool {
        self.replaced_by == Some(ReplacedBy::Group)
    }

    /// How many instances the Spot group lacks of its desired capacity, without those that EC2 takes.
    fn missing(&self, pending_counts: bool) -> usize {
        let Some(spot) = self.view.map(|view| &view.spot) else { return 0 };
        let stays = |id: &InstanceId| !self.queue.leaving.contains(id);
        let serves = |lifecycle: Lifecycle| match lifecycle {
            Lifecycle::Pending | Lifecycle::Held => pending_counts,
            Lifecycle::InService | Lifecycle::Other => true,
            Lifecycle::Ended
            | Lifecycle::Standby
            | Lifecycle::Leaving
            | Lifecycle::TerminationHeld
            | Lifecycle::Retained => false,
        };
        let staying = spot.instances.iter().filter(|held| serves(held.lifecycle) && stays(&held.id)).count();
        usize::try_from(spot.desired).unwrap_or(0).saturating_sub(staying)
    }

    /// Whether the group has a successor for the old instance.
    fn is_served_by(&self, pending_counts: bool) -> bool {
        self.missing(pending_counts) <= self.queue.before
    }

    /// The same of what is in service.
    pub(super) fn is_served(&self) -> bool {
        self.is_served_by(false)
    }

    /// The same of instances whose nodes take pods.
    pub(super) fn is_served_by_nodes(&self) -> bool {
        let Some(spot) = self.view.map(|view| &view.spot) else { return false };
        let nodes = self.nodes_that_stay(spot).count() + self.queue.before;
        nodes >= usize::try_from(spot.desired).unwrap_or(0)
    }

    /// The node of an instance, if it takes pods.
    fn taking_pods(&self, id: &InstanceId) -> Option<NodeFact> {
        (self.node_of)(id).filter(|node| node.ready && !node.cordoned)
    }

    /// The instances of the group that are in service and stay, with their nodes that take pods.
    fn nodes_that_stay(&self, group: &GroupView) -> impl Iterator<Item = (InstanceId, NodeFact)> {
        let serving = group.instances.iter().filter(|held| held.lifecycle == Lifecycle::InService);
        let staying = serving.filter(|held| !self.queue.leaving.contains(&held.id));
        staying.filter_map(|held| Some((held.id.clone(), self.taking_pods(&held.id)?)))
    }
}

/// Whether nothing of the old node is ours: EKS cordons and drains the nodes of a managed node group.
pub(super) fn is_left_to_eks(status: &ReplacementStatus, facts: &Facts<'_>) -> bool {
    status.is_replaced_by_group() && facts.neighbour == Some(Neighbour::EksManagedNodeGroup)
}

/// The owner of the old node that lets nothing be done for it. For a node of EKS on-demand may stand in.
pub(super) fn owner(status: &ReplacementStatus, facts: &Facts<'_>) -> Option<Neighbour> {
    let stands_in = facts.is_by_group() && status.notice != Some(NoticeKind::GroupTermination);
    facts.neighbour.filter(|held| !(stands_in && *held == Neighbour::EksManagedNodeGroup))
}

/// The next step of the search.
pub(super) fn find(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    if capacity::keeps_or_begins_again(next, turn) {
        return;
    }
    let (facts, now) = (turn.facts, turn.facts.now);
    match *next.capacity {
        CapacityState::NotRequested {} => {
            next.capacity.enter(CapacityState::SpotRequested { since: now });
            Event::LeftToGroup.add_to(next, &turn.subject.node, now);
        }
        CapacityState::SpotRequested { since } => stand_in(next, since, turn),
        CapacityState::BothRequested { .. } | CapacityState::BackingOff { .. } => {
            if facts.is_served() {
                next.capacity.enter(CapacityState::Withdrawn { on_demand_requested: true });
            } else if !capacity::take(next, turn) {
                capacity::go_on(next, turn);
            }
        }
        CapacityState::Withdrawn { .. } if !next.old_node.is_over() && !facts.is_served_by(true) => {
            next.attempt += 1;
            next.capacity.enter(CapacityState::SpotRequested { since: now });
        }
        _ => {}
    }
}

/// On-demand is requested once a launch has failed, or none has begun in time. An instance on its way in has
/// until shortly before the deadline.
fn stand_in(next: &mut ReplacementStatus, since: Timestamp, turn: &Turn<'_>) {
    let (facts, node, now) = (turn.facts, &turn.subject.node, turn.facts.now);
    let pending_counts = next.deadline.is_none_or(|deadline| now + SERVES_BEFORE < deadline);
    if facts.is_served_by(pending_counts) {
        if next.old_node.is_over() && facts.is_served() {
            next.capacity.enter(CapacityState::Withdrawn { on_demand_requested: false });
        }
        return;
    }
    let waited = crate::time::since(since, now);
    let failed = facts.view.map(|view| view.spot.failed_since(since - CLOCK_SKEW));
    let decisive = failed.and_then(|failed| classify::decisive(failed, |failed| failed.class));
    // Of an unknown failure nothing follows: the group goes on trying by itself.
    let failure = match decisive.and_then(|failed| RequestFailure::of(failed.class, &failed.message)) {
        Some(failure) => failure,
        None if waited >= LAUNCHES_WITHIN => RequestFailure::TimedOut(waited),
        None => return,
    };
    next.capacity.enter(CapacityState::BothRequested { spot_since: since, on_demand_since: now });
    Event::RequestFailed { group: GroupKind::Spot, failure }.add_to(next, node, now);
    Event::OnDemandRequested.add_to(next, node, now);
}

/// The old instance is EC2's and its group's to end: it is waited for.
pub(super) fn await_end(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    let (facts, subject, now) = (turn.facts, turn.subject, turn.facts.now);
    let left = facts.left_of(GroupKind::Spot, &subject.instance_id, facts.old_node, next);
    let drained = matches!(*next.old_node, OldNodeState::Drained(_));
    match left {
        None if drained || next.old_node == (OldNodeState::Kept {}) => {
            next.blocking.retain(|reason| reason.flow_box != FlowBox::Drain);
            next.old_node.enter(OldNodeState::Gone {});
            let instance_id = subject.instance_id.clone();
            Event::Terminated { instance_id, replaced_by_group: false }.add_to(next, &subject.node, now);
        }
        Some(waits) if drained => next.block(FlowBox::Drain, [waits], now),
        _ => {}
    }
}

/// Whether the other stand-ins are enough for what the Spot group lacks, which stands for a claim. Since when
/// Spot can take over is told by the instance that came last; nothing of it is held.
pub(super) fn is_spare(open: &mut OpenFallback, turn: &Turn<'_>) -> bool {
    let facts = turn.facts;
    let Some(spot) = facts.view.map(|view| &view.spot).filter(|_| facts.is_served()) else {
        open.successor = None;
        return false;
    };
    let serves = |id: &InstanceId| spot.is_in_service(id) && facts.taking_pods(id).is_some();
    if open.successor.as_ref().is_some_and(|held| serves(&held.instance_id)) {
        return true;
    }
    let newest = facts.nodes_that_stay(spot).max_by_key(|(id, node)| (node.created, id.clone()));
    open.successor = newest.map(|(instance_id, node)| Capacity {
        group: GroupKind::Spot,
        instance_id,
        node_name: node.name,
        ready_at: facts.now,
    });
    open.successor.is_some() || spot.wants_nothing()
}

/// Where a replacement stands among the open ones of its pool that the Spot group serves by itself. Those
/// whose on-demand instance is there come first, then those that on-demand is requested for. Of the others
/// those that were noticed last come first: they have had the least time.
///
/// One that is not among them covers nothing itself, and only what serves comes before it.
#[must_use]
pub fn queue<'a>(
    own: &ReplacementName,
    open: impl Iterator<Item = (&'a ReplacementName, &'a InstanceId, &'a ReplacementStatus)>,
    view: Option<&PoolView>,
) -> Queue {
    let serves =
        |held: &Capacity| view.is_some_and(|view| view.group(held.group).is_active(&held.instance_id));
    // What is only recommended may stay for hours, and waits for nothing; nor does a node that stays.
    let leaves = |status: &ReplacementStatus| {
        (status.deadline.is_some() || status.capacity.is_requested()) && !status.old_node.is_retained()
    };
    let rank = |status: &ReplacementStatus| match &*status.capacity {
        CapacityState::Taken { instance, .. } if serves(instance) => 0,
        CapacityState::BothRequested { .. }
        | CapacityState::BackingOff { .. }
        | CapacityState::Taken { .. } => 1,
        CapacityState::NotRequested {} | CapacityState::SpotRequested { .. } => 2,
        CapacityState::Withdrawn { .. } => 3,
    };
    let mut all: Vec<_> =
        open.filter(|(_, _, status)| status.is_replaced_by_group() && leaves(status)).collect();
    all.sort_by_key(|(name, _, status)| (rank(status), Reverse(status.started_at), (*name).clone()));
    // What goes back covers nothing by then, and for what its group ends nothing is requested.
    let counts = |status: &ReplacementStatus| {
        let is_ended = status.notice == Some(NoticeKind::GroupTermination) && !status.capacity.is_requested();
        !status.fallback.is_returning() && !is_ended
    };
    let is_listed = all.iter().any(|(name, ..)| *name == own);
    let earlier = all.iter().take_while(|(name, ..)| *name != own);
    let before = earlier.filter(|(.., status)| counts(status) && (is_listed || rank(status) == 0)).count();
    Queue { leaving: all.into_iter().map(|(_, instance_id, _)| instance_id.clone()).collect(), before }
}
