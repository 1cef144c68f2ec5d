//! What holds a replacement, a drain, a return or a pool up.
//!
//! A reason stays a type until it leaves the process. There its code ([`Reason::code`]) is for machines, and
//! its text (`Display`, in `wording`) for people.

mod blocker;
mod code;
mod finding;
mod neighbour;
mod pause;
#[cfg(test)]
mod tests;
mod unplaced;

pub use crate::node_trouble::NodeTrouble;
pub use blocker::{BlockedReason, Blocker, EvictionAnswer, ShutBudget};
pub use code::ReasonCode;
pub use finding::{Finding, GroupProblem, NoLaunch, Severity};
pub use neighbour::Neighbour;
pub use pause::Pause;
pub use unplaced::{NodeReason, PodName, ReasonCount, Reasons, Unplaced};

use crate::freshness::StaleWatch;
use crate::group::Rollout;
use crate::group::request_failure::RequestFailure;
use crate::group_kind::GroupKind;
use crate::ids::{GroupName, InstanceId, NodeName, PoolName, ReplacementName};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// What the HealthMonitor last found about the return of a fallback: boxes 6 to 9, each with what stands in
/// its way; empty means passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReturnAssessment {
    /// The instance that goes back, whose return was assessed.
    pub of: Option<InstanceId>,
    /// The Spot instance that was to take over.
    pub successor: Option<InstanceId>,
    /// The pods that were to move, by their UID.
    pub pods: BTreeSet<Arc<str>>,
    /// The nodes that were drained beside, whose pods need room, too.
    pub drained: BTreeSet<NodeName>,
    /// Box 6: the limits that let no return begin.
    pub held: Vec<Reason>,
    /// Box 7.
    pub unhealthy: Vec<Reason>,
    /// Box 8.
    pub unstable: Vec<Reason>,
    /// Box 9.
    pub unsafe_: Vec<Reason>,
    /// Before Spot is asked: why the node could not be given back with its instance, either.
    pub unsafe_with_spot: Vec<Reason>,
}

impl ReturnAssessment {
    /// Whether it may be about the return of this instance.
    #[must_use]
    pub fn is_of(&self, instance_id: &InstanceId) -> bool {
        self.of.as_ref().is_none_or(|of| of == instance_id)
    }
}

/// Something that holds a replacement, a drain, a return or a pool up.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// A pause.
    Paused(Pause),
    /// The node is younger than the minimum age.
    NodeTooYoung {
        /// The minimum age, in seconds.
        seconds: u32,
    },
    /// As many nodes of the pool are being replaced as the limits allow.
    ConcurrencyLimit {
        /// How many.
        limit: usize,
    },
    /// The pool only observes.
    ObserveOnly {
        /// Whether the node would be drained at once, for EC2 takes it at a deadline.
        at_once: bool,
    },
    /// Another tool has the node in its hands.
    LeftToNeighbour(Neighbour),
    /// aws-node-termination-handler runs in the cluster, and drains the same nodes.
    TerminationHandlerRuns {
        /// Its DaemonSet or ReplicaSet.
        workload: PodName,
    },
    /// The node is in no accepted pool.
    NotInPool,
    /// The pool no longer exists.
    NoSuchPool {
        /// Its name.
        pool: PoolName,
    },
    /// The pool is not accepted.
    PoolRefused(Finding),
    /// The pool ignores rebalance recommendations.
    RebalanceIgnored,
    /// The Spot group replaces its instances by itself: only an interruption notice begins something.
    ReplacedByGroup,
    /// A person has put the old instance into Standby.
    InStandby {
        /// The instance.
        instance_id: InstanceId,
    },
    /// A node that is to take the pods is cordoned.
    NodeCordoned {
        /// The node.
        node: NodeName,
    },
    /// A node that is to take the pods is not in the cluster.
    NodeMissing {
        /// The node.
        node: NodeName,
    },
    /// Whether the pods of a node fit elsewhere is being checked.
    CheckPending {
        /// The node.
        node: NodeName,
    },
    /// Whether the pods of a node fit elsewhere cannot be said.
    CheckTooLarge {
        /// The node.
        node: NodeName,
    },
    /// A pod fits on no node yet.
    NoRoomYet {
        /// The pod.
        pod: PodName,
        /// Why the nodes are out.
        reasons: Reasons,
    },
    /// Neither group has given an instance.
    BothGroupsFailed {
        /// How the on-demand group failed.
        on_demand: RequestFailure,
    },
    /// An instance is in service, and its node cannot be used.
    InstanceUnusable {
        /// The instance.
        instance_id: InstanceId,
        /// Why.
        why: NodeTrouble,
        /// Since when.
        since: Timestamp,
    },
    /// A lifecycle hook holds an instance on its way in.
    LaunchHeld {
        /// The instance.
        instance_id: InstanceId,
        /// Since when it is waited for.
        since: Timestamp,
    },
    /// A watch shows an old picture.
    StaleWatch(StaleWatch),
    /// Another node reports that it runs on the same instance.
    InstanceDisputed {
        /// The instance.
        instance_id: InstanceId,
        /// The other node.
        node: NodeName,
    },
    /// Another replacement terminates the instance already, and drains its node.
    TerminatedByOther {
        /// The instance.
        instance_id: InstanceId,
        /// The other replacement.
        replacement: ReplacementName,
    },
    /// All instances of a group are being replaced.
    Rollout {
        /// The group.
        group: GroupName,
        /// By what.
        rollout: Rollout,
    },
    /// Something stands against the drain.
    Undrainable(Blocker),
    /// A disruption budget allows no disruption now.
    BudgetShut {
        /// The budget.
        budget: PodName,
        /// Its healthy pods.
        healthy: i64,
        /// The healthy pods that it requires.
        required: i64,
    },
    /// An eviction was refused.
    EvictionRefused {
        /// The pod.
        pod: PodName,
        /// What the API server answered.
        answer: EvictionAnswer,
    },
    /// Taint and cordon of a node cannot be set.
    NodeNotTainted {
        /// The node.
        node: NodeName,
    },
    /// The pool does not allow to delete a pod at the deadline.
    DeletionNotAllowed {
        /// The pod.
        pod: PodName,
    },
    /// A pod holds the drain of its node for a while.
    PodHolds {
        /// The pod.
        pod: PodName,
        /// Why.
        reason: BlockedReason,
        /// When it is evicted at the latest, unless EC2 sets a deadline.
        until: Timestamp,
    },
    /// An instance was taken out of load balancers, and its connections have time to end.
    ConnectionsEnd {
        /// When that time is over.
        until: Timestamp,
    },
    /// A pod is still terminating.
    PodTerminating {
        /// The pod.
        pod: PodName,
    },
    /// A pod has not terminated in its time, so it is not waited for any longer.
    PodOverstayed {
        /// The pod.
        pod: PodName,
        /// When it was to be gone.
        due: Timestamp,
        /// Whether finalizers hold it.
        finalizers: bool,
    },
    /// A pod comes back to the node after each eviction.
    PodComesBack {
        /// The pod.
        pod: PodName,
    },
    /// Pods that left the node are not ready elsewhere.
    SuccessorsNotReady {
        /// Their controller.
        controller: PodName,
        /// How many are ready elsewhere.
        ready: usize,
        /// How many are to be.
        expected: usize,
    },
    /// The node's pods could not be listed.
    PodsNotListed {
        /// Why.
        error: String,
    },
    /// A pod is on the node that the watch does not show.
    PodNotWatched {
        /// The pod, if it can be read.
        pod: Option<PodName>,
    },
    /// An instance that is to be gone is in its group.
    InstanceNotGone {
        /// The instance.
        instance_id: InstanceId,
    },
    /// An instance that is to be gone is held on its way out: by a lifecycle hook, or retained by its group.
    TerminationHeld {
        /// The instance.
        instance_id: InstanceId,
        /// Whether its group retains it.
        retained: bool,
    },
    /// The node of an instance that is to be gone is in the cluster.
    NodeNotGone {
        /// The node.
        node: NodeName,
        /// The group that the instance has left, though the node is Ready; `None`: no group tells.
        group: Option<GroupName>,
    },
    /// The desired capacity of a group is still raised, or being lowered.
    CapacityNotSettled {
        /// Which group.
        group: GroupKind,
    },
    /// There were too many interruptions within an hour.
    InterruptionBrake {
        /// How many the pool takes.
        limit: usize,
    },
    /// Spot instances that took over were interrupted soon after.
    ReturnsLost {
        /// When the next return may begin.
        until: Timestamp,
    },
    /// Other nodes of the pool are being replaced, and their replacements are not Ready.
    ReplacementsUnderWay {
        /// How many.
        count: usize,
    },
    /// The budget of returns is used up.
    ReturnBudget {
        /// How many returns may begin within the period.
        budget: usize,
        /// The period.
        period: Duration,
    },
    /// No window for returns is open.
    ReturnWindow,
    /// A window for returns cannot be used.
    BadReturnWindow(String),
    /// The drain of a return was given up, and the next one waits.
    ReturnRetry {
        /// Until when.
        until: Timestamp,
    },
    /// The Spot group has no instance for the return.
    NoSpotInstance,
    /// A group is at its minimum size, so a terminated instance would be replaced.
    AtMinimum {
        /// The group.
        group: GroupName,
    },
    /// Instances of the Spot group are not in service.
    InstancesMissing {
        /// The group.
        group: GroupName,
        /// How many are in service.
        in_service: i64,
        /// How many are to be.
        expected: i64,
        /// The group's desired capacity.
        desired: i64,
    },
    /// A launch of the Spot group failed.
    LaunchFailed {
        /// The group.
        group: GroupName,
        /// What AWS said.
        message: String,
    },
    /// Spot nodes are not Ready.
    NodesNotReady {
        /// Their instances.
        instances: Vec<InstanceId>,
        /// How many nodes there are.
        of: usize,
    },
    /// The Spot node has not been Ready for long enough.
    NotStable {
        /// The node.
        node: NodeName,
        /// For how long it has been Ready.
        ready_for: Duration,
        /// For how long it has to be.
        required: Duration,
    },
    /// As many returns as the pool allows at a time are under way.
    ReturnUnderWay {
        /// The name of the replacement of one of them.
        replacement: ReplacementName,
    },
    /// A person has suspended Launch of the Spot group: nothing stands in for what it lacks.
    LaunchFrozen {
        /// The group.
        group: GroupName,
    },
    /// Stand-ins for missing Spot instances are only reported.
    ShortfallObserved {
        /// How many would begin.
        instances: usize,
    },
    /// As many stand-ins are open, or began or ended lately, as the limits allow.
    StandInLimit {
        /// How many may be open at a time.
        limit: usize,
    },
    /// The on-demand group has no room for one more stand-in.
    AtMaximum {
        /// The group.
        group: GroupName,
        /// Its maximum size.
        max: i32,
    },
    /// On-demand instances stand in for Spot.
    OnFallback {
        /// How many.
        instances: usize,
    },
    /// The on-demand group has more instances than its baseline, and nobody of ours requested them.
    AboveBaseline {
        /// The group.
        group: GroupName,
        /// How many are above it.
        instances: u32,
        /// The baseline.
        baseline: u32,
    },
    /// There are more reasons than a record holds.
    More(usize),
}

impl Reason {
    /// The code, for machines.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Paused(_) => ReasonCode::Paused,
            Self::NodeTooYoung { .. } => ReasonCode::NodeTooYoung,
            Self::ConcurrencyLimit { .. } => ReasonCode::ConcurrencyLimit,
            Self::ObserveOnly { .. } => ReasonCode::ObserveOnly,
            Self::LeftToNeighbour(_) => ReasonCode::LeftToNeighbour,
            Self::TerminationHandlerRuns { .. } => ReasonCode::TerminationHandlerRuns,
            Self::NotInPool => ReasonCode::NotInPool,
            Self::NoSuchPool { .. } => ReasonCode::NoSuchPool,
            Self::PoolRefused(finding) => finding.problem.code(),
            Self::RebalanceIgnored => ReasonCode::RebalanceIgnored,
            Self::ReplacedByGroup => ReasonCode::ReplacedByGroup,
            Self::InStandby { .. } => ReasonCode::InStandby,
            Self::NodeCordoned { .. } => ReasonCode::NodeCordoned,
            Self::NodeMissing { .. } => ReasonCode::NodeUnknown,
            Self::CheckPending { .. } => ReasonCode::CheckPending,
            Self::CheckTooLarge { .. } => ReasonCode::CheckTooLarge,
            Self::NoRoomYet { .. } => ReasonCode::PodDoesNotFit,
            Self::BothGroupsFailed { .. } => ReasonCode::BothGroupsFailed,
            Self::InstanceUnusable { .. } => ReasonCode::InstanceUnusable,
            Self::LaunchHeld { .. } => ReasonCode::LaunchHeld,
            Self::StaleWatch(_) => ReasonCode::StaleWatch,
            Self::InstanceDisputed { .. } => ReasonCode::InstanceDisputed,
            Self::TerminatedByOther { .. } => ReasonCode::TerminatedByOther,
            Self::Rollout { rollout, .. } => rollout.code(),
            Self::Undrainable(blocker) => blocker.code(),
            Self::BudgetShut { .. } => ReasonCode::BudgetExhausted,
            Self::EvictionRefused { answer, .. } => answer.code(),
            Self::NodeNotTainted { .. } => ReasonCode::NodeNotTainted,
            Self::DeletionNotAllowed { .. } => ReasonCode::DeletionNotAllowed,
            Self::PodHolds { reason, .. } => reason.code(),
            Self::ConnectionsEnd { .. } => ReasonCode::ConnectionsEnd,
            Self::PodTerminating { .. } => ReasonCode::PodTerminating,
            Self::PodOverstayed { .. } => ReasonCode::PodOverstayed,
            Self::PodComesBack { .. } => ReasonCode::PodComesBack,
            Self::SuccessorsNotReady { .. } => ReasonCode::SuccessorsNotReady,
            Self::PodsNotListed { .. } => ReasonCode::PodsNotListed,
            Self::PodNotWatched { .. } => ReasonCode::PodNotWatched,
            Self::InstanceNotGone { .. } => ReasonCode::InstanceNotGone,
            Self::TerminationHeld { .. } => ReasonCode::TerminationHeld,
            Self::NodeNotGone { .. } => ReasonCode::NodeNotGone,
            Self::CapacityNotSettled { .. } => ReasonCode::CapacityNotSettled,
            Self::InterruptionBrake { .. } => ReasonCode::InterruptionBrake,
            Self::ReturnsLost { .. } => ReasonCode::ReturnsLost,
            Self::ReplacementsUnderWay { .. } => ReasonCode::ReplacementsUnderWay,
            Self::ReturnBudget { .. } => ReasonCode::ReturnBudget,
            Self::ReturnWindow => ReasonCode::ReturnWindow,
            Self::BadReturnWindow(_) => ReasonCode::BadReturnWindow,
            Self::ReturnRetry { .. } => ReasonCode::ReturnRetry,
            Self::NoSpotInstance => ReasonCode::NoSpotInstance,
            Self::AtMinimum { .. } => ReasonCode::AtMinimum,
            Self::InstancesMissing { .. } => ReasonCode::InstancesMissing,
            Self::LaunchFailed { .. } => ReasonCode::LaunchFailed,
            Self::NodesNotReady { .. } => ReasonCode::NodesNotReady,
            Self::NotStable { .. } => ReasonCode::NotStable,
            Self::ReturnUnderWay { .. } => ReasonCode::ReturnUnderWay,
            Self::LaunchFrozen { .. } => ReasonCode::LaunchFrozen,
            Self::ShortfallObserved { .. } => ReasonCode::ShortfallObserved,
            Self::StandInLimit { .. } => ReasonCode::StandInLimit,
            Self::AtMaximum { .. } => ReasonCode::NoRoom,
            Self::OnFallback { .. } => ReasonCode::OnFallback,
            Self::AboveBaseline { .. } => ReasonCode::AboveBaseline,
            Self::More(_) => ReasonCode::MoreReasons,
        }
    }
}

/// Several reasons in one line.
#[must_use]
pub fn in_one_line<R: Display>(reasons: &[R]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<StaleWatch> for Reason {
    fn from(watch: StaleWatch) -> Self {
        Self::StaleWatch(watch)
    }
}

impl From<Blocker> for Reason {
    fn from(blocker: Blocker) -> Self {
        Self::Undrainable(blocker)
    }
}
