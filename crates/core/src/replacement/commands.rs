//! What must hold in the world for a stored record.

use super::adopted;
use super::close::is_settled;
use super::facts::{Facts, Mode, Subject, is_unsafe_for_long};
use crate::drain::DrainCommand;
use crate::group::{GroupView, Lifecycle};
use crate::ids::{InstanceId, NodeName};
use crate::ledger::wants::{End, Want, Wants};
use crate::policy::seconds;
use crate::reason::{NodeTrouble, ReasonCode};
use crate::record::{
    CapacityState, DrainPurpose, FallbackState, FlowBox, GroupKind, NoticeKind, OldNodeState, Phase,
    ReplacementStatus,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What must hold in the world for a stored record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Wants of the groups.
    pub wants: Wants,
    /// Instances to end.
    pub ends: BTreeSet<End>,
    /// Drains to be under way.
    pub drains: Vec<DrainCommand>,
    /// Instances that this replacement stands on.
    pub taken: BTreeSet<InstanceId>,
    /// Instances that were launched for this replacement, and whose nodes its pods do not fit with.
    pub misfits: BTreeMap<InstanceId, NodeTrouble>,
    /// Instances whose nodes nobody else is to scale down until the replacement is over.
    pub protected: BTreeSet<InstanceId>,
    /// Since when a failed launch of the Spot group matters to it.
    pub spot_failures_since: Option<Timestamp>,
    /// Nodes of which must be known whether the old node's pods fit on the cluster with each of them counted.
    pub questions: BTreeSet<NodeName>,
}

/// What must hold in the world for this record.
#[must_use]
pub fn commands(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> Commands {
    let mut commands = Commands::default();
    let mode = facts.mode_for(subject, status);
    if status.is_finished() || mode == Mode::Observe {
        return commands;
    }
    if !subject.is_place() {
        commands.taken.insert(subject.instance_id.clone());
    }
    // An empty node keeps taint and cordon until its instance is gone.
    if let Some(drain) = status.old_node.drain() {
        commands.drains.push(DrainCommand {
            replacement: subject.name.clone(),
            node: subject.node.clone(),
            instance_id: subject.instance_id.clone(),
            node_uid: status.node_uid.clone(),
            purpose: DrainPurpose::Replace,
            deadline: status.deadline,
            is_announced: status.notice == Some(NoticeKind::SpotInterruption),
            is_held: may_be_held(subject, status, facts),
            since: Some(drain.since),
        });
    }
    // What a cancelled replacement requested is taken back in any mode.
    if mode != Mode::Act && !status.old_node.is_retained() {
        return commands;
    }
    protect(&mut commands, subject, status, facts);
    name_misfits(&mut commands, subject, status, facts);
    want(&mut commands, subject, status, facts);
    if status.is_replaced_by_group() {
        commands.spot_failures_since = status.capacity.spot_requested_at();
    }
    terminate_old(&mut commands, subject, status, facts);
    send_back(&mut commands, subject, status, facts);
    ask(&mut commands, subject, status, facts);
    commands
}

/// Whether a lifecycle hook may hold what the group ends: the deadline is a guess, and the group does not
/// list the instance as on its way out.
fn may_be_held(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> bool {
    let listed = facts.view.and_then(|view| view.spot.instance(&subject.instance_id));
    status.notice == Some(NoticeKind::GroupTermination)
        && listed.is_some_and(|held| !matches!(held.lifecycle, Lifecycle::Leaving | Lifecycle::Ended))
}

/// Whose nodes nobody else is to scale down.
fn protect(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    if let Some(capacity) = status.capacity.taken() {
        commands.taken.insert(capacity.instance_id.clone());
    }
    if status.phase() == Phase::Received {
        return;
    }
    let shares = [GroupKind::Spot, GroupKind::OnDemand].map(|kind| facts.share(kind, subject));
    let brought = shares.into_iter().flatten().filter_map(|share| share.instance_id.clone());
    let brought = brought.filter(|id| !subject.adopted || !facts.is_active(GroupKind::OnDemand, id));
    commands.protected.extend(brought);
    // An adopted instance is nobody's to keep: cluster-autoscaler may scale it down meanwhile.
    let stands_in = status.capacity.taken().filter(|_| !subject.adopted);
    commands.protected.extend(stands_in.map(|capacity| capacity.instance_id.clone()));
    if !status.old_node.is_over() {
        commands.protected.insert(subject.instance_id.clone());
    }
}

/// Which instances the record says are of no use: the pods do not fit with them, or they stand idle.
fn name_misfits(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    let is_told = |flow_box: FlowBox| {
        let told = (flow_box, ReasonCode::PodDoesNotFit);
        status.blocking.iter().any(|held| (held.flow_box, held.reason) == told)
    };
    if is_told(FlowBox::Wait) {
        let shares = [GroupKind::Spot, GroupKind::OnDemand].map(|kind| facts.share(kind, subject));
        let current = shares.into_iter().flatten().filter(|share| share.attempt == status.requests_made());
        let ids = current.filter_map(|share| share.instance_id.clone());
        commands.misfits.extend(ids.map(|id| (id, NodeTrouble::PodsDoNotFit)));
    }
    let idle = !subject.adopted && is_unsafe_for_long(&status.blocking, facts.now);
    let trouble = match () {
        () if idle => NodeTrouble::StandsIdle,
        () if is_told(FlowBox::Safety) => NodeTrouble::PodsDoNotFit,
        () => return,
    };
    let successor = status.fallback.successor().map(|capacity| &capacity.instance_id);
    let brought = facts.share(GroupKind::Spot, subject).and_then(|share| share.instance_id.as_ref());
    commands.misfits.extend(brought.filter(|id| Some(*id) == successor).map(|id| (id.clone(), trouble)));
}

/// What is wanted of each group.
fn want(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    let settled = is_settled(status);
    let cancelled = status.old_node.is_retained();
    let goes = status.fallback.is_past_drain();
    let from = status.capacity.taken().map(|capacity| capacity.group);
    let withdrawn = matches!(*status.capacity, CapacityState::Withdrawn { .. });
    let by_group = status.is_replaced_by_group();
    // The pods are on the old node, and later on the one that stands in.
    let stands_in = status.capacity.taken().filter(|_| status.old_node.is_over());
    let stands_in = stands_in.and_then(|capacity| (facts.node_of)(&capacity.instance_id));
    let zone = facts.old_node.or(stands_in.as_ref()).and_then(|node| node.volume_zone.clone());
    let is_gone =
        |spot: &GroupView| !spot.is_active(&subject.instance_id) && !spot.is_in_standby(&subject.instance_id);
    let gone = facts.view.is_some_and(|view| is_gone(&view.spot)) && !facts.names_another_group(status);
    let usual = seconds(facts.policy.join_timeout_seconds);
    let presses = status.deadline.is_some() && from.is_none();
    let instance = |stood_in_for, gone| Want::Instance {
        attempt: status.requests_made(),
        deadline: status.deadline,
        stood_in_for,
        zone: zone.clone(),
        gone,
        join_timeout: if presses { usual / 3 } else { usual },
    };
    if subject.adopted {
        let instance = |stood_in_for| instance(stood_in_for, false);
        commands.wants.extend(adopted::want(subject, status, facts, &instance));
        return;
    }
    // A group that replaces by itself is asked for nothing.
    if status.capacity.is_requested() && (!by_group || withdrawn || cancelled) {
        let want = if cancelled && from != Some(GroupKind::Spot) {
            Want::Nothing
        } else if settled || by_group || (goes && from == Some(GroupKind::Spot)) {
            Want::Done
        } else {
            instance(from == Some(GroupKind::OnDemand), gone)
        };
        commands.wants.insert((GroupKind::Spot, subject.name.clone()), want);
    }
    if status.capacity.is_on_demand_requested() || facts.share(GroupKind::OnDemand, subject).is_some() {
        let want = match from {
            Some(GroupKind::Spot) => Want::Nothing,
            None if cancelled || withdrawn => Want::Nothing,
            _ if settled || goes => Want::Done,
            _ => instance(false, false),
        };
        commands.wants.insert((GroupKind::OnDemand, subject.name.clone()), want);
    }
}

/// The old instance, once its termination is decided.
fn terminate_old(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    let decided = matches!(*status.old_node, OldNodeState::Terminating(_));
    if decided && facts.disputed(&subject.instance_id, &subject.node, GroupKind::Spot).is_empty() {
        commands.ends.insert(End {
            group: GroupKind::Spot,
            instance_id: subject.instance_id.clone(),
            replacement: subject.name.clone(),
            pressed: facts.is_pressed(status),
        });
    }
}

/// What stood in, once its return has begun.
fn send_back(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    let Some(capacity) = status.capacity.taken().filter(|_| status.fallback.is_returning()) else { return };
    commands.drains.push(DrainCommand {
        replacement: subject.name.clone(),
        node: capacity.node_name.clone(),
        instance_id: capacity.instance_id.clone(),
        node_uid: None,
        purpose: DrainPurpose::Return,
        deadline: None,
        is_announced: false,
        is_held: false,
        since: status.return_started_at,
    });
    let decided = matches!(*status.fallback, FallbackState::Terminating(_));
    if decided && facts.disputed(&capacity.instance_id, &capacity.node_name, capacity.group).is_empty() {
        commands.ends.insert(End {
            group: capacity.group,
            instance_id: capacity.instance_id.clone(),
            replacement: subject.name.clone(),
            pressed: false,
        });
    }
}

/// Which nodes could take over, if only the pods fit. A deadline does not wait for the answer.
fn ask(commands: &mut Commands, subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) {
    let searches = matches!(
        *status.capacity,
        CapacityState::SpotRequested { .. }
            | CapacityState::BothRequested { .. }
            | CapacityState::BackingOff { .. }
    );
    if !searches || status.deadline.is_some() || subject.is_place() {
        return;
    }
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        let node = facts.serving_node(facts.share(group, subject), group).map(|(_, node)| node);
        commands.questions.extend(node.filter(|node| !node.cordoned).map(|node| node.name));
    }
}
