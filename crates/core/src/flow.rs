//! What happens to a replacement. Box, outcome and severity of each event follow from it; its English stands
//! in `wording`.

use crate::group::request_failure::RequestFailure;
use crate::ids::{InstanceId, NodeName};
use crate::neighbours::Neighbour;
use crate::reason::NodeTrouble;
use crate::reason::Reason;
use crate::record::{DrainPurpose, FlowBox, GroupKind, NoticeKind, Outcome, ReplacementStatus};
use jiff::Timestamp;
use std::time::Duration;

/// What a person requested for a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Its beginning, without an interruption notice.
    Replacement,
    /// The return of its fallback.
    Return,
    /// Its end.
    Cancellation,
}

/// Why a replacement is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It was cancelled before anything was requested.
    NothingRequested,
    /// The instance went before anything was begun.
    InstanceGone,
    /// The node was to be drained only, and is gone.
    NodeGone,
    /// Its node says by now which instance it has, and another record goes on.
    TakenOver,
    /// Neither group owes or holds anything for it.
    Settled,
}

/// What happened to a replacement.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Box 1: a notice came.
    NoticeReceived {
        /// What it announces.
        kind: NoticeKind,
        /// The instance.
        instance_id: InstanceId,
        /// When EC2 takes the instance, if it said so.
        deadline: Option<Timestamp>,
    },
    /// Box 1: an interruption notice followed, or one with an earlier deadline.
    Escalated {
        /// What it announces.
        kind: NoticeKind,
        /// The instance.
        instance_id: InstanceId,
        /// When EC2 takes the instance.
        deadline: Timestamp,
    },
    /// Boxes 1, 6 and 11: a SpotAction is followed.
    ActionFollowed {
        /// What it requests.
        wish: Wish,
        /// Its name.
        spot_action: String,
        /// Who requested it.
        by: Option<String>,
        /// Why.
        reason: Option<String>,
    },
    /// Box 1: the pool only observes.
    Observed {
        /// Whether a deadline presses.
        pressed: bool,
    },
    /// Box 1: another tool replaces the node.
    SteppedAside {
        /// The tool.
        neighbour: Neighbour,
    },
    /// Box 2: the Spot group replaces the old instance by itself.
    LeftToGroup,
    /// Box 2: one more instance was requested from the Spot group.
    SpotRequested,
    /// Box 2: capacity is requested from both groups again.
    BothRequested {
        /// The number of the attempt.
        attempt: u32,
    },
    /// Boxes 3 and 3.2: a group has not brought an instance.
    RequestFailed {
        /// The group.
        group: GroupKind,
        /// Why.
        failure: RequestFailure,
    },
    /// Box 3.2: one more instance was requested from the on-demand group.
    OnDemandRequested,
    /// Box 3.2: both groups failed, the node is kept.
    NodeKept {
        /// When capacity is requested from both groups again.
        retry_in: Duration,
    },
    /// Boxes 3.1 and 3.2: an instance can take the pods.
    InService {
        /// Its group.
        group: GroupKind,
        /// The instance.
        instance_id: InstanceId,
        /// Its node.
        node: NodeName,
    },
    /// Boxes 3 and 3.2: an instance is terminated because its node could not be used.
    Discarded {
        /// Its group.
        group: GroupKind,
        /// The instance.
        instance_id: InstanceId,
        /// Why.
        why: NodeTrouble,
        /// For how many seconds it was waited for.
        waited_seconds: u32,
    },
    /// Box 4: the node has its taint.
    Tainted,
    /// Box 5: something holds the drain up.
    DrainBlocked {
        /// What.
        reasons: Vec<Reason>,
    },
    /// Box 5: the drain is given up, and the node stays.
    DrainGivenUp {
        /// For how long no pod has left.
        patience: Duration,
        /// What holds it up.
        reasons: Vec<Reason>,
    },
    /// Box 3: what was brought does not fit, no other zone can be tried, and the node stays.
    FitGivenUp {
        /// For how long the pods did not fit.
        waited: Duration,
        /// Why they do not.
        reasons: Vec<Reason>,
    },
    /// Box 3: what stands in on advice goes back, for the old instance is still in service.
    AdviceGivenUp {
        /// The old instance.
        instance_id: InstanceId,
        /// For how long it stood in.
        waited: Duration,
    },
    /// Box 3: the old instance serves long after its deadline, so EC2 gave no notice.
    NoticeFalse {
        /// The old instance.
        instance_id: InstanceId,
        /// When it was to be taken.
        deadline: Timestamp,
    },
    /// Box 3: the old instance serves long after the time of its maintenance.
    Maintained {
        /// The old instance.
        instance_id: InstanceId,
        /// When the maintenance was to begin.
        deadline: Timestamp,
    },
    /// Boxes 5 and 10: the pods run elsewhere.
    Drained {
        /// Which drain.
        purpose: DrainPurpose,
    },
    /// Boxes 5 and 10: nothing on the node is waited for any longer.
    DrainedWithout {
        /// Which drain.
        purpose: DrainPurpose,
        /// What is not as it should be.
        reasons: Vec<Reason>,
    },
    /// Box 5: the instance went before its drain ended.
    GoneBeforeDrained {
        /// The instance.
        instance_id: InstanceId,
    },
    /// Box 5: the instance is terminated with what is on it.
    DeadlineNear {
        /// What the drain waited for.
        reasons: Vec<Reason>,
    },
    /// Box 5: the old instance is gone.
    Terminated {
        /// The instance.
        instance_id: InstanceId,
        /// Whether its group has launched another one for it, too.
        replaced_by_group: bool,
    },
    /// Box 6: an on-demand instance above the baseline has to go back.
    Adopted {
        /// The instance.
        instance_id: InstanceId,
        /// Whether a Spot instance is requested for its pods.
        requests_spot: bool,
    },
    /// Box 6: an instance stands in and has to go back.
    Monitoring {
        /// Its group.
        group: GroupKind,
        /// Its node.
        node: NodeName,
        /// Whether the replacement was cancelled.
        cancelled: bool,
    },
    /// Box 6: an adopted instance is left to its owner again.
    Released,
    /// Box 7: the Spot group is healthy.
    Healthy,
    /// Box 8: it has been healthy for long enough.
    Stable,
    /// Box 9: the node can be drained.
    Safe,
    /// Box 10: the return was given up, and is tried again.
    ReturnGivenUp {
        /// Why.
        reasons: Vec<Reason>,
    },
    /// Box 10: the instance that stood in was lost when Spot could take over.
    FallbackLost {
        /// The instance.
        instance_id: InstanceId,
    },
    /// Somebody else terminated the instance that stood in, and lowered the desired capacity with it.
    FallbackTerminated {
        /// The instance.
        instance_id: InstanceId,
    },
    /// Box 10: the instance that stood in is gone.
    ScaledDown {
        /// Its group.
        group: GroupKind,
        /// The instance.
        instance_id: InstanceId,
    },
    /// Box 11: the replacement is done.
    CleanedUp(Finish),
    /// Box 11: the cancelled replacement has left nothing.
    Cancelled(Finish),
}

impl Event {
    /// The box of the flow that it belongs to.
    #[must_use]
    pub fn flow_box(&self) -> FlowBox {
        match self {
            Self::NoticeReceived { .. }
            | Self::Escalated { .. }
            | Self::Observed { .. }
            | Self::ActionFollowed { wish: Wish::Replacement, .. }
            | Self::SteppedAside { .. } => FlowBox::Notice,
            Self::LeftToGroup | Self::SpotRequested | Self::BothRequested { .. } => FlowBox::ScaleUp,
            Self::RequestFailed { group: GroupKind::Spot, .. }
            | Self::FitGivenUp { .. }
            | Self::AdviceGivenUp { .. }
            | Self::NoticeFalse { .. }
            | Self::Maintained { .. }
            | Self::Discarded { group: GroupKind::Spot, .. } => FlowBox::Wait,
            Self::InService { group: GroupKind::Spot, .. } => FlowBox::Success,
            Self::RequestFailed { group: GroupKind::OnDemand, .. }
            | Self::Discarded { group: GroupKind::OnDemand, .. }
            | Self::InService { group: GroupKind::OnDemand, .. }
            | Self::OnDemandRequested
            | Self::NodeKept { .. } => FlowBox::Fallback,
            Self::Tainted => FlowBox::Taint,
            Self::Drained { purpose: DrainPurpose::Replace }
            | Self::DrainedWithout { purpose: DrainPurpose::Replace, .. }
            | Self::DrainBlocked { .. }
            | Self::DrainGivenUp { .. }
            | Self::GoneBeforeDrained { .. }
            | Self::DeadlineNear { .. }
            | Self::Terminated { .. } => FlowBox::Drain,
            Self::Adopted { .. }
            | Self::Released
            | Self::Monitoring { .. }
            | Self::ActionFollowed { wish: Wish::Return, .. } => FlowBox::Monitor,
            Self::Healthy => FlowBox::Health,
            Self::Stable => FlowBox::Stability,
            Self::Safe => FlowBox::Safety,
            Self::Drained { purpose: DrainPurpose::Return }
            | Self::DrainedWithout { purpose: DrainPurpose::Return, .. }
            | Self::ReturnGivenUp { .. }
            | Self::FallbackLost { .. }
            | Self::FallbackTerminated { .. }
            | Self::ScaledDown { .. } => FlowBox::ScaleDown,
            Self::CleanedUp(_)
            | Self::Cancelled(_)
            | Self::ActionFollowed { wish: Wish::Cancellation, .. } => FlowBox::CleanUp,
        }
    }

    /// What came of it, as records and metrics count it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoticeReceived { .. } => Outcome::NoticeReceived,
            Self::Escalated { .. } => Outcome::Escalated,
            Self::ActionFollowed { .. } => Outcome::ActionFollowed,
            Self::Observed { .. } => Outcome::Observed,
            Self::SteppedAside { .. } | Self::LeftToGroup => Outcome::SteppedAside,
            Self::SpotRequested | Self::BothRequested { .. } | Self::OnDemandRequested => Outcome::Requested,
            Self::RequestFailed { failure, .. } => match failure {
                RequestFailure::OutOfCapacity(_) => Outcome::NoCapacity,
                RequestFailure::Misconfigured(_) => Outcome::Misconfigured,
                RequestFailure::Refused(_) => Outcome::LaunchRefused,
                RequestFailure::Unusable(_) => Outcome::Unusable,
                RequestFailure::TimedOut(_) => Outcome::TimedOut,
            },
            Self::Discarded { .. } => Outcome::Unusable,
            Self::NodeKept { .. } => Outcome::NodeKept,
            Self::InService { .. } => Outcome::InService,
            Self::Tainted => Outcome::Tainted,
            Self::NoticeFalse { .. } => Outcome::NoticeFalse,
            Self::DrainBlocked { .. } => Outcome::Blocked,
            Self::DrainGivenUp { .. }
            | Self::FitGivenUp { .. }
            | Self::AdviceGivenUp { .. }
            | Self::Maintained { .. }
            | Self::DrainedWithout { .. }
            | Self::DeadlineNear { .. } => Outcome::TimedOut,
            Self::Drained { .. } => Outcome::Drained,
            Self::GoneBeforeDrained { .. } | Self::FallbackLost { .. } | Self::FallbackTerminated { .. } => {
                Outcome::TakenByAws
            }
            Self::Terminated { .. } => Outcome::Terminated,
            Self::Adopted { .. } => Outcome::Adopted,
            Self::Released => Outcome::Released,
            Self::Monitoring { .. } => Outcome::Monitoring,
            Self::Healthy => Outcome::Healthy,
            Self::Stable => Outcome::Stable,
            Self::Safe => Outcome::Safe,
            Self::ReturnGivenUp { .. } => Outcome::ReturnGivenUp,
            Self::ScaledDown { .. } => Outcome::ScaledDown,
            Self::CleanedUp(_) => Outcome::CleanedUp,
            Self::Cancelled(_) => Outcome::Cancelled,
        }
    }

    /// Writes it into the record, as a step at `node`.
    pub fn add_to(&self, status: &mut ReplacementStatus, node: &NodeName, now: Timestamp) {
        status.step(self.flow_box(), self.outcome(), node, self.to_string(), now);
    }
}
