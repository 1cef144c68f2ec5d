//! The judgement of a notice.

use crate::codes;
use crate::ids::{InstanceId, NodeName};
use crate::record::{NoticeKind, Outcome, ReplacementStatus};
use crate::time::since;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest name of a node that a notice can be about: with instance, kind and the time of maintenance it
/// has to fit the name of an object, 253 characters (Kubernetes, "Object Names and IDs").
pub const MAX_NODE_NAME: usize = 200;
/// A deadline that has passed may count for so long yet.
const PAST: SignedDuration = SignedDuration::from_secs(30);
/// EC2 gives two minutes (EC2 User Guide, "Spot Instance interruption notices"). No deadline is further away.
const AHEAD: SignedDuration = SignedDuration::from_secs(600);
/// The Node of a notice may be seen later than the notice: they come by two watches. A watch may be silent
/// for 45 s before its picture counts as old, so nothing is refused by a picture for longer than that.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// A cloud controller that is away for longer than this does not tell the node's instance in time.
const INSTANCE_PATIENCE: Duration = Duration::from_secs(600);
/// So long after a false interruption notice none of the same instance is believed.
const DISBELIEVED_FOR: Duration = Duration::from_secs(3600);
/// The clocks of this machine and of the API server may differ by so much.
pub(super) const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(30);
/// Clocks that differ by less agree: the API server stores whole seconds.
const CLOCKS_AGREE: SignedDuration = SignedDuration::from_secs(3);
/// The API server's clock counts as behind EC2's by so much at most.
const BEHIND: SignedDuration = SignedDuration::from_secs(60);
/// So many notices of one node are looked at in a turn. An honest node has one of each kind, and some more if
/// its maintenance is moved.
pub const LOOKED_AT: usize = 8;

/// The name of the notice of `kind` of the node `node` about `instance_id`: reporting the same notice twice
/// is one object, and no node has the name of another one's.
///
/// The notice time is not a part of it: a mock of IMDS may answer another one on every read.
#[must_use]
pub fn notice_name(node: &NodeName, instance_id: &InstanceId, kind: NoticeKind) -> String {
    format!("{node}.{instance_id}-{}", kind.slug())
}

/// The name of a notice with that deadline. EC2 moves scheduled events, cancels them and adds others (EC2
/// User Guide, "Scheduled events for your instances"), and a notice never changes. So the time of maintenance
/// is a part of the name, in seconds: each time that EC2 gives is an object.
#[must_use]
pub fn dated_notice_name(
    node: &NodeName,
    instance_id: &InstanceId,
    kind: NoticeKind,
    deadline: Option<Timestamp>,
) -> String {
    let name = notice_name(node, instance_id, kind);
    match deadline.filter(|_| kind == NoticeKind::ScheduledMaintenance) {
        Some(at) => format!("{name}-{}", at.as_second()),
        None => name,
    }
}

/// A notice as it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node that reports.
    pub node: &'a NodeName,
    /// The instance that it says it has.
    pub instance_id: &'a InstanceId,
    /// What is announced.
    pub kind: NoticeKind,
    /// When EC2 takes the instance, by EC2's clock, if it says so.
    pub deadline: Option<Timestamp>,
    /// When the agent saw it, by the clock of the instance.
    pub detected: Timestamp,
    /// When it was stored, by the API server's clock.
    pub created: Timestamp,
}

/// What is known of the node that reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// There is no Node of that name.
    Missing,
    /// Its `spec.providerID` is empty yet.
    WithoutInstance,
    /// Its `spec.providerID` names this instance.
    Has(InstanceId),
    /// Its `spec.providerID` names something that is no EC2 instance, and cannot be changed any more.
    Foreign,
}

/// Whose an instance is, as the Nodes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// No Node has it.
    Nobody,
    /// This Node has it.
    One(&'a NodeName),
    /// Several Nodes say that they have it, which each says of itself: one of them may lie.
    Several,
}

/// The record of the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// The node that it is about.
    pub node: &'a NodeName,
    /// Whether its replacement goes on.
    pub open: bool,
    /// Whether an interruption of the instance is not believed: see [`is_disbelieved`].
    pub disbelieved: bool,
}

/// Whether an interruption notice of the instance was false within the last hour, as its record says.
#[must_use]
pub fn is_disbelieved(record: &ReplacementStatus, now: Timestamp) -> bool {
    let found_false = record.steps.iter().rfind(|step| step.outcome == Outcome::NoticeFalse);
    found_false.is_some_and(|step| since(step.at, now) < DISBELIEVED_FOR)
}

/// What a judgement depends on.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// The node that reports.
    pub node: NodeState,
    /// Who has the instance by `spec.providerID`.
    pub holder: Holder<'a>,
    /// The record of the instance.
    pub record: Option<Recorded<'a>>,
    /// Whether the node carries our marks: it is being drained, or is to be ended.
    pub marked: bool,
    /// Whether the picture of the Nodes is current. An old one refuses nothing: what is removed does not come
    /// again.
    pub nodes_are_current: bool,
    /// The time.
    pub now: Timestamp,
}

/// What shows that the node has the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its Node says so.
    Node,
    /// Its Node is gone, and an open record says so.
    Record,
    /// Nothing but the notice yet, or nothing that another Node does not say too, and a deadline presses. The
    /// node is the reporter's own, the instance may be not.
    Reporter,
}

codes! {
    /// Why a notice is refused. `docs/reasons.md` lists all of them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
    pub enum NoticeRefusal {
        /// Its name is not that of its node, instance and kind, or not that of its time.
        Misnamed,
        /// Another node has the instance.
        InstanceOfAnotherNode,
        /// The node has another instance.
        NodeHasAnotherInstance,
        /// The node does not say which instance it has.
        NodeWithoutInstance,
        /// The node's `spec.providerID` names no EC2 instance.
        ForeignProviderId,
        /// There is no such node.
        NoSuchNode,
        /// The node has more notices than it can have.
        TooMany,
        /// It was taken in without its deadline, which no EC2 gave. It makes room for one that EC2 gave.
        ImplausibleDeadline,
        /// The node is in no pool, and the configuration leaves such nodes alone.
        OutsidePools,
        /// An interruption of the same instance was announced within the last hour and did not come.
        Disbelieved,
        /// Its fields cannot be read.
        NotUnderstood,
        /// The node went as it announced. That is no trouble, and nobody is told.
        EndedByItsGroup,
    }
}

/// What a notice is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may begin, escalate or reopen the replacement of this node and instance.
    Accepted(Proof),
    /// The answer is not known yet.
    Wait,
    /// Its replacement is over, and the node is gone: the notice has no effect.
    Over,
    /// It is to be removed.
    Refused(NoticeRefusal),
}

/// Whether the notice is believed: the Node that has the instance must be the notice's node, and the other
/// way round.
#[must_use]
pub fn judge(seen: &Seen<'_>, known: &Known<'_>) -> Judgement {
    if !is_well_named(seen) {
        return Judgement::Refused(NoticeRefusal::Misnamed);
    }
    let is_group_termination = seen.kind == NoticeKind::GroupTermination;
    match bind(seen, known) {
        Judgement::Refused(_) if !known.nodes_are_current => Judgement::Wait,
        Judgement::Refused(NoticeRefusal::InstanceOfAnotherNode | NoticeRefusal::NodeHasAnotherInstance)
            if since(seen.created, known.now) < NODE_PATIENCE =>
        {
            Judgement::Wait
        }
        // A group ends what we have drained, and what has gone already.
        Judgement::Refused(NoticeRefusal::NoSuchNode) if is_group_termination => {
            Judgement::Refused(NoticeRefusal::EndedByItsGroup)
        }
        Judgement::Accepted(_) if is_group_termination && known.marked && known.record.is_none() => {
            Judgement::Over
        }
        Judgement::Accepted(_)
            if seen.kind == NoticeKind::SpotInterruption
                && known.record.is_some_and(|record| record.disbelieved) =>
        {
            Judgement::Refused(NoticeRefusal::Disbelieved)
        }
        judgement => judgement,
    }
}

/// Maintenance may be without its time in the name: an agent of an earlier version stores it so.
fn is_well_named(seen: &Seen<'_>) -> bool {
    seen.name == notice_name(seen.node, seen.instance_id, seen.kind)
        || seen.name == dated_notice_name(seen.node, seen.instance_id, seen.kind, seen.deadline)
}

fn bind(seen: &Seen<'_>, known: &Known<'_>) -> Judgement {
    let says_so = matches!(&known.node, NodeState::Has(id) if id == seen.instance_id);
    match known.holder {
        Holder::Several if says_so => {
            return match deadline(seen, known.now) {
                Some(_) => Judgement::Accepted(Proof::Reporter),
                None => Judgement::Wait,
            };
        }
        Holder::Several => return Judgement::Refused(NoticeRefusal::InstanceOfAnotherNode),
        Holder::One(holder) if holder != seen.node => {
            return Judgement::Refused(NoticeRefusal::InstanceOfAnotherNode);
        }
        Holder::One(_) | Holder::Nobody => {}
    }
    match &known.node {
        NodeState::Has(_) if says_so => return Judgement::Accepted(Proof::Node),
        NodeState::Has(_) => return Judgement::Refused(NoticeRefusal::NodeHasAnotherInstance),
        NodeState::Missing | NodeState::WithoutInstance | NodeState::Foreign => {}
    }
    match known.record {
        Some(record) if record.node != seen.node => {
            return Judgement::Refused(NoticeRefusal::InstanceOfAnotherNode);
        }
        Some(record) if record.open => return Judgement::Accepted(Proof::Record),
        Some(_) => return Judgement::Over,
        None => {}
    }
    let waited = since(seen.created, known.now);
    match &known.node {
        NodeState::Missing if waited < NODE_PATIENCE => Judgement::Wait,
        NodeState::Missing => Judgement::Refused(NoticeRefusal::NoSuchNode),
        _ if deadline(seen, known.now).is_some() => Judgement::Accepted(Proof::Reporter),
        NodeState::Foreign => Judgement::Refused(NoticeRefusal::ForeignProviderId),
        _ if waited < INSTANCE_PATIENCE => Judgement::Wait,
        _ => Judgement::Refused(NoticeRefusal::NodeWithoutInstance),
    }
}

/// The deadline of a notice that is taken in now, if it is one that EC2 may have given. A bad one does not
/// become good by waiting. Maintenance is announced weeks ahead, so its deadline counts once it is near.
///
/// `now` is the time of the API server. Its clock is behind EC2's if a notice was stored before it was seen:
/// then the deadline is that much earlier by it. It is never later than the notice says, and an agent that
/// lies about its clock only brings its own node's deadline forward, by a minute at most.
#[must_use]
pub fn deadline(seen: &Seen<'_>, now: Timestamp) -> Option<Timestamp> {
    let given_near = seen.kind != NoticeKind::ScheduledMaintenance;
    let plausible =
        |at: &Timestamp| is_between(*at, now) && (!given_near || at.duration_since(seen.created) <= AHEAD);
    let behind = seen.detected.duration_since(seen.created);
    let earlier = if behind > CLOCKS_AGREE { behind.min(BEHIND) } else { SignedDuration::ZERO };
    seen.deadline.and_then(|at| at.checked_sub(earlier).ok()).filter(plausible)
}

/// Whether the notice has a deadline that only time brings near.
#[must_use]
pub fn is_to_come(seen: &Seen<'_>, now: Timestamp) -> bool {
    seen.kind == NoticeKind::ScheduledMaintenance && seen.deadline.is_some_and(|at| is_too_far(at, now))
}

/// Whether a notice of that kind and deadline tells of maintenance whose time is not over. It is needed until
/// then, whatever became of the replacement that it began.
#[must_use]
pub fn is_scheduled(kind: NoticeKind, deadline: Option<Timestamp>, now: Timestamp) -> bool {
    kind == NoticeKind::ScheduledMaintenance && deadline.is_some_and(|at| at > now)
}

/// Whether the notice carried a deadline from the start that EC2 cannot have given.
#[must_use]
pub fn was_implausible(seen: &Seen<'_>) -> bool {
    let announced_ahead = |at: Timestamp| seen.kind == NoticeKind::ScheduledMaintenance && at > seen.created;
    seen.deadline.is_some_and(|at| !is_between(at, seen.created) && !announced_ahead(at))
}

/// Whether a record's deadline is further away than EC2 gives one.
#[must_use]
pub fn is_too_far(deadline: Timestamp, now: Timestamp) -> bool {
    deadline.duration_since(now) > AHEAD
}

fn is_between(deadline: Timestamp, now: Timestamp) -> bool {
    let left = deadline.duration_since(now);
    left >= -PAST && left <= AHEAD
}

/// The notices to look at, by their index, and those that are one too many of their node: those about the
/// node's own instance come first, then what is no maintenance, then the oldest. `instance_of` tells what a
/// node has.
#[must_use]
pub fn pick(
    notices: &[Seen<'_>],
    instance_of: impl Fn(&NodeName) -> Option<InstanceId>,
) -> (Vec<usize>, Vec<usize>) {
    let mut by_node: BTreeMap<&NodeName, Vec<usize>> = BTreeMap::new();
    for (index, seen) in notices.iter().enumerate() {
        by_node.entry(seen.node).or_default().push(index);
    }
    let (mut picked, mut surplus) = (Vec::new(), Vec::new());
    for (node, mut indexes) in by_node {
        let own = instance_of(node);
        indexes.sort_by_key(|index| {
            let seen = &notices[*index];
            // EC2 may have moved maintenance often.
            let is_dated = seen.kind == NoticeKind::ScheduledMaintenance;
            (own.as_ref() != Some(seen.instance_id), is_dated, seen.created, seen.name)
        });
        surplus.extend(indexes.split_off(indexes.len().min(LOOKED_AT)));
        picked.extend(indexes);
    }
    (picked, surplus)
}
