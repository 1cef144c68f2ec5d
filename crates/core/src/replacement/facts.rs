//! What the next step of a replacement depends on, and how to request it.

use crate::drain::DrainReport;
use crate::freshness::{Freshness, StaleWatch, Step};
use crate::group::{Lifecycle, PoolView};
use crate::ids::{GroupName, InstanceId, NodeName, ReplacementName};
use crate::ledger::{Ledger, Share};
use crate::limits::Starts;
use crate::neighbours::Neighbour;
use crate::policy::{Policy, seconds};
use crate::reason::{Reason, ReasonCode, ReturnAssessment};
use crate::record::{BlockingReason, FlowBox, GroupKind, NoticeKind, Phase, ReplacedBy, ReplacementStatus};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a raised desired capacity may wait for an instance that can be terminated without a drain.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// What a return holds is released when it has not been safe for so long: an adopted instance, or the Spot
/// instance that stands idle.
const RELEASED_AFTER: Duration = Duration::from_secs(1800);

/// How a pool is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Everything the flow says.
    #[default]
    Act,
    /// Nothing is changed; the record says what would be done.
    Observe,
    /// Nodes are tainted and drained, no group is changed.
    DrainOnly,
}

/// What a rebalance recommendation starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebalanceMode {
    /// The node is replaced.
    #[default]
    Replace,
    /// Nothing: the node waits for an interruption notice.
    Ignore,
}

/// Who a replacement is about; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The replacement's name.
    pub name: ReplacementName,
    /// The old node; empty of a place.
    pub node: NodeName,
    /// The old instance; empty of a place.
    pub instance_id: InstanceId,
    /// Whether the node belongs to an accepted pool; others only get their drain.
    pub in_pool: bool,
    /// Whether it is an on-demand instance above the baseline, which was adopted; it has no old node.
    pub adopted: bool,
}

impl Subject {
    /// Whether it has neither an old node nor an old instance: it is about an empty place of the Spot group,
    /// or about an adopted instance.
    #[must_use]
    pub fn is_place(&self) -> bool {
        self.instance_id.is_empty()
    }
}

/// A node as far as a replacement needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// Its name.
    pub name: NodeName,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it takes no new pods, whoever has cordoned it.
    pub cordoned: bool,
    /// Whether it keeps a start-up taint, as [`crate::reason::NodeTrouble::Tainted`] says it.
    pub tainted: bool,
    /// Whether pods that would have to move run on it.
    pub has_pods: bool,
    /// Its zone, if such pods have volumes, which cannot leave it.
    pub volume_zone: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its Ready condition last changed.
    pub ready_changed: Option<Timestamp>,
}

/// The open replacements of a pool whose Spot group serves them by itself. Which of its instances is whose
/// successor nobody says: those that stay are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The instances that EC2 takes.
    pub leaving: BTreeSet<InstanceId>,
    /// How many replacements come before this one: the missing instances are theirs first.
    pub before: usize,
}

/// Whether the pods of the old node fit on the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// It is being found out.
    Unknown,
    /// They fit.
    Fits,
    /// They do not, and why.
    Misfits(Vec<Reason>),
}

/// Everything that the next step of a replacement depends on.
pub struct Facts<'a> {
    /// The time.
    pub now: Timestamp,
    /// The pool's settings.
    pub policy: &'a Policy,
    /// The pool's mode.
    pub mode: Mode,
    /// What advice starts in this pool.
    pub rebalance: RebalanceMode,
    /// Whether another record of the same node and instance goes on: this one was begun before the node said
    /// which instance it has.
    pub taken_over: bool,
    /// Who replaces the nodes of the pool, once its groups were read.
    pub replaced_by: Option<ReplacedBy>,
    /// Where the replacement stands among those that the Spot group serves by itself.
    pub queue: &'a Queue,
    /// What stands against beginning a replacement in the pool.
    pub starts: Starts,
    /// Which watches show an old picture.
    pub freshness: &'a Freshness,
    /// Why the pool is not accepted; empty: it is.
    pub refused: &'a [Reason],
    /// Who else has the old node in its hands.
    pub neighbour: Option<Neighbour>,
    /// The pool's groups, once they were read.
    pub view: Option<&'a PoolView>,
    /// How many on-demand instances the pool is to have, if a person said so.
    pub baseline: Option<u32>,
    /// The pool's ledger.
    pub ledger: &'a Ledger,
    /// Whether that ledger was written when it was known that nothing more is wanted of the Spot group.
    pub withdrawn: bool,
    /// The old node, while it exists: a node of its name that runs on another instance is not it.
    pub old_node: Option<&'a NodeFact>,
    /// The nodes that say that they run on an instance, but the given node.
    pub other_holders: &'a dyn Fn(&InstanceId, &NodeName) -> Vec<NodeName>,
    /// Another replacement that ends an instance: it has begun to replace it, or sends it back.
    pub ended_by_other: &'a dyn Fn(&InstanceId) -> Option<ReplacementName>,
    /// Why the pods of the old node never leave it as their disruption budgets are now.
    pub never_leave: &'a dyn Fn() -> Vec<Reason>,
    /// The node of an instance, if one only says so.
    pub node_of: &'a dyn Fn(&InstanceId) -> Option<NodeFact>,
    /// Whether the old node's pods fit on the cluster with the given node counted.
    pub fit_with: &'a dyn Fn(&NodeName) -> Fit,
    /// The drain of the old node.
    pub drain: Option<&'a DrainReport>,
    /// The drain of the on-demand node.
    pub return_drain: Option<&'a DrainReport>,
    /// The latest assessment of the return.
    pub assessment: Option<&'a ReturnAssessment>,
}

impl Facts<'_> {
    /// What the group owes or holds for the replacement.
    pub(super) fn share(&self, group: GroupKind, subject: &Subject) -> Option<&Share> {
        self.ledger.share(group, &subject.name)
    }

    /// Whether the Spot group's desired capacity is still raised by 1 for the replacement.
    pub(super) fn is_spot_raised(&self, subject: &Subject) -> bool {
        self.share(GroupKind::Spot, subject).is_some_and(Share::is_raised)
    }

    /// Whether the group counts the instance as one that stays.
    pub(super) fn is_active(&self, group: GroupKind, instance_id: &InstanceId) -> bool {
        self.view.is_some_and(|view| view.group(group).is_active(instance_id))
    }

    /// The instance of a share that is in service, with its Ready node.
    pub(super) fn serving_node(
        &self,
        share: Option<&Share>,
        group: GroupKind,
    ) -> Option<(InstanceId, NodeFact)> {
        let id = share?.instance_id.as_ref()?;
        let in_service = self.view.is_some_and(|view| view.group(group).is_in_service(id));
        let node = (self.node_of)(id).filter(|node| node.ready)?;
        in_service.then(|| (id.clone(), node))
    }

    /// How a replacement is treated. A node in no accepted pool only gets its drain. What has requested
    /// capacity is brought to its end, whatever became of the pool meanwhile. For what its group terminates
    /// nothing is scaled: the group has decided how many instances it wants.
    pub(super) fn mode_for(&self, subject: &Subject, status: &ReplacementStatus) -> Mode {
        let may_begin = self.refused.is_empty() && !self.names_another_group(status);
        let begun = status.capacity.is_requested();
        let scales = begun || status.notice != Some(NoticeKind::GroupTermination);
        match self.mode {
            mode if subject.in_pool && (begun || may_begin) && (scales || mode == Mode::Observe) => mode,
            _ => Mode::DrainOnly,
        }
    }

    /// The pool's Spot group, if the old instance is in it.
    pub(super) fn group_of_old(&self, subject: &Subject) -> Option<GroupName> {
        let spot = &self.view?.spot;
        spot.instance(&subject.instance_id).map(|_| spot.name.clone())
    }

    /// The zone of the old instance, if it is in the pool's Spot group.
    pub(super) fn zone_of_old(&self, subject: &Subject) -> Option<String> {
        self.view?.spot.instance(&subject.instance_id).map(|held| held.zone.clone())
    }

    /// Whether the pool names another Spot group than the one that had the old instance: that it is not in
    /// the new one says nothing.
    pub(super) fn names_another_group(&self, status: &ReplacementStatus) -> bool {
        let (named, had) = (self.view.map(|view| &view.spot.name), status.spot_group.as_ref());
        named.is_some_and(|named| had.is_some_and(|had| had != named))
    }

    /// What is left of an instance that is to be gone: the instance in its group, or its Ready node; `None`:
    /// nothing.
    ///
    /// A Node object may stay for ever: nobody deletes it without a cloud controller (Kubernetes, "Cloud
    /// Controller Manager", node lifecycle), or a finalizer holds it. So one that is not Ready counts no
    /// more.
    pub(super) fn left_of(
        &self,
        group: GroupKind,
        instance_id: &InstanceId,
        node: Option<&NodeFact>,
        status: &ReplacementStatus,
    ) -> Option<Reason> {
        let held = self.view.map(|view| view.group(group));
        let listed = held.and_then(|held| held.instance(instance_id)).map(|instance| instance.lifecycle);
        let Some(held) = held.filter(|_| listed.is_none()) else {
            let instance_id = instance_id.clone();
            return Some(match listed {
                Some(Lifecycle::TerminationHeld) => Reason::TerminationHeld { instance_id, retained: false },
                Some(Lifecycle::Retained) => Reason::TerminationHeld { instance_id, retained: true },
                _ => Reason::InstanceNotGone { instance_id },
            });
        };
        // Another group than the one that had the instance says nothing about it.
        let unknown = group == GroupKind::Spot && self.names_another_group(status);
        let node = node.filter(|node| node.ready || unknown)?;
        let (node, group) = (node.name.clone(), held.name.clone());
        Some(Reason::NodeNotGone { node, group: (!unknown).then_some(group) })
    }

    /// That the group's desired capacity is still raised, or being lowered.
    pub(super) fn not_settled(&self, group: GroupKind) -> Reason {
        Reason::CapacityNotSettled { group }
    }

    /// Whether the instance is terminated as it is, for EC2 would take it otherwise.
    pub(super) fn is_pressed(&self, status: &ReplacementStatus) -> bool {
        let ahead = seconds(self.policy.terminate_before_deadline_seconds);
        status.deadline.is_some_and(|deadline| self.now + ahead >= deadline)
    }

    /// Which stale watches forbid a termination that has not begun yet, as far as is known.
    pub(super) fn stale_before_end(&self, instance_id: &InstanceId, group: GroupKind) -> Vec<StaleWatch> {
        if !self.is_active(group, instance_id) || self.ledger.reduction.is_some() {
            return Vec::new();
        }
        self.freshness.against(Step::End)
    }

    /// That another replacement ends the instance already.
    pub(super) fn ends_by_other(&self, instance_id: &InstanceId) -> Option<Reason> {
        let replacement = (self.ended_by_other)(instance_id)?;
        Some(Reason::TerminatedByOther { instance_id: instance_id.clone(), replacement })
    }

    /// Why the instance is not to be terminated, whatever presses: another node says that it runs on it, and
    /// nobody knows whose pods do. Once the termination has begun there is nothing left to decide.
    pub(super) fn disputed(
        &self,
        instance_id: &InstanceId,
        node: &NodeName,
        group: GroupKind,
    ) -> Vec<Reason> {
        let reduction = self.ledger.reduction.as_ref();
        if !self.is_active(group, instance_id)
            || reduction.is_some_and(|held| held.instance_id.as_ref() == Some(instance_id))
        {
            return Vec::new();
        }
        let others = (self.other_holders)(instance_id, node).into_iter();
        let disputed = |node| Reason::InstanceDisputed { instance_id: instance_id.to_owned(), node };
        others.map(disputed).collect()
    }
}

/// Whether a reason at box 9 says that the return waits for its turn, or for a current picture: nothing is
/// known yet of whether it is safe.
pub(super) fn waits_for_turn(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::ReturnUnderWay
            | ReasonCode::TerminatedByOther
            | ReasonCode::InstanceDisputed
            | ReasonCode::StaleWatch
    )
}

/// Whether a return has not been safe for so long that what it holds is released.
pub(super) fn is_unsafe_for_long(blocking: &[BlockingReason], now: Timestamp) -> bool {
    blocking.iter().any(|held| {
        held.flow_box == FlowBox::Safety
            && !waits_for_turn(held.reason)
            && crate::time::since(held.since, now) >= RELEASED_AFTER
    })
}

/// One step of one replacement.
pub(super) struct Turn<'a> {
    /// Who it is about.
    pub(super) subject: &'a Subject,
    /// What is known.
    pub(super) facts: &'a Facts<'a>,
    /// Whether a raised desired capacity has had its time to be settled by terminating an idle instance.
    pub(super) waited_to_settle: bool,
    /// What held the replacement up before it.
    blocking: &'a [BlockingReason],
}

impl<'a> Turn<'a> {
    /// A step that begins with this record.
    pub(super) fn new(subject: &'a Subject, status: &'a ReplacementStatus, facts: &'a Facts<'a>) -> Self {
        let settles = matches!(status.phase(), Phase::Terminating | Phase::ScalingDown);
        let waited_to_settle = settles
            && status.phase_since.is_some_and(|at| crate::time::since(at, facts.now) >= SETTLE_PATIENCE);
        Self { subject, facts, waited_to_settle, blocking: &status.blocking }
    }

    /// Whether the return of an adopted instance has not been safe for so long that it is left to its owner.
    pub(super) fn is_to_be_released(&self) -> bool {
        self.subject.adopted && is_unsafe_for_long(self.blocking, self.facts.now)
    }

    /// What held it up at that box still does, as far as is known.
    pub(super) fn keep(&self, next: &mut ReplacementStatus, flow_box: FlowBox) {
        if next.blocking.is_empty() {
            let kept = self.blocking.iter().filter(|reason| reason.flow_box == flow_box);
            next.blocking.extend(kept.cloned());
        }
    }
}
