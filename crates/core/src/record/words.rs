//! The words of a replacement's record: notices, groups, phases, boxes of the flow, outcomes.

use crate::codes;
use crate::group_kind::GroupKind;
use crate::ids::{InstanceId, NodeName};
use crate::reason::ReasonCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who replaces the Spot nodes of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplacedBy {
    /// Spot Guard: a notice begins boxes 2 to 5.
    #[default]
    SpotGuard,
    /// Their group by itself. On-demand stands in for what it does not bring before EC2 takes an instance.
    Group,
}

/// What an interruption notice announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NoticeKind {
    /// EC2 advises to move: the instance is at elevated risk (EC2 User Guide, "rebalance recommendations").
    RebalanceRecommendation,
    /// EC2 takes the instance at the deadline (EC2 User Guide, "Spot Instance interruption notices").
    SpotInterruption,
    /// EC2 reboots, stops or retires the instance at the deadline, which may be weeks away (EC2 User Guide,
    /// "Scheduled events for your instances").
    ScheduledMaintenance,
    /// The instance's group terminates it, and looks after its own capacity: the node is drained, nothing is
    /// scaled (Amazon EC2 Auto Scaling User Guide, "Retrieve the target lifecycle state through instance
    /// metadata").
    GroupTermination,
    /// A person requested the replacement.
    Manual,
}

impl NoticeKind {
    /// Every kind that an agent reports.
    pub const REPORTED: [Self; 4] = [
        Self::RebalanceRecommendation,
        Self::SpotInterruption,
        Self::ScheduledMaintenance,
        Self::GroupTermination,
    ];

    /// Whether it says something of the Spot market.
    #[must_use]
    pub fn is_of_market(self) -> bool {
        matches!(self, Self::RebalanceRecommendation | Self::SpotInterruption)
    }

    /// The kind as a part of an object's name.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::RebalanceRecommendation => "rebalance-recommendation",
            Self::SpotInterruption => "spot-interruption",
            Self::ScheduledMaintenance => "scheduled-maintenance",
            Self::GroupTermination => "group-termination",
            Self::Manual => "manual",
        }
    }
}

impl std::fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why a node is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainPurpose {
    /// Boxes 4 and 5: the node is under notice.
    Replace,
    /// Box 10: the on-demand node goes back.
    Return,
}

/// Where a replacement stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// The notice is stored; nothing was requested yet.
    #[default]
    Received,
    /// Boxes 2 and 3: one more instance was requested from the Spot group.
    ScalingUp,
    /// Box 3.2: one was requested from the on-demand group, too.
    FallingBack,
    /// Both groups failed: the node is kept and the next attempt waits.
    BackingOff,
    /// Boxes 4 and 5: the node is tainted and cordoned, its pods move.
    Draining,
    /// The old instance is being terminated.
    Terminating,
    /// Boxes 6 to 9: an on-demand instance stands in until Spot can take over again.
    OnFallback,
    /// Box 10: the on-demand node is tainted, cordoned and drained.
    Returning,
    /// Box 10: the on-demand instance is being terminated.
    ScalingDown,
    /// Box 11: done.
    Completed,
    /// A person cancelled it: taint and cordon come off, and what it brought goes back.
    Cancelling,
    /// A person cancelled it.
    Cancelled,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Received,
        Self::ScalingUp,
        Self::FallingBack,
        Self::BackingOff,
        Self::Draining,
        Self::Terminating,
        Self::OnFallback,
        Self::Returning,
        Self::ScalingDown,
        Self::Completed,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// Whether the replacement is over.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

codes! {
    /// What a step of the flow ended with.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
    pub enum Outcome {
        /// Box 1: a notice was received.
        NoticeReceived,
        /// Box 1: an interruption notice followed the recommendation.
        Escalated,
        /// Box 1: the pool only observes; what would be done is reported.
        Observed,
        /// Box 1: another tool replaces the node.
        SteppedAside,
        /// Boxes 1, 6 and 11: a SpotAction is followed.
        ActionFollowed,
        /// Box 2 or 3.2: one more instance was requested.
        Requested,
        /// Box 3 or 3.2: no capacity, a quota, or the group is at its maximum.
        NoCapacity,
        /// Box 3 or 3.2: the group's configuration is wrong.
        Misconfigured,
        /// Box 3 or 3.2: AWS refused the launch for a reason that is not known.
        LaunchRefused,
        /// Box 3 or 3.2: the node of an instance could not be used, and the instance was terminated.
        Unusable,
        /// Box 3 or 3.2: the time to wait ran out.
        TimedOut,
        /// Box 3: EC2 did not take the instance at its deadline; what stands in for it goes back.
        NoticeFalse,
        /// Box 3.1 or 3.2: in service, and its node Ready.
        InService,
        /// Box 3.2: both groups failed, the node is kept for now.
        NodeKept,
        /// Box 4: the node carries the taint.
        Tainted,
        /// Box 5 or 10: something holds the drain up.
        Blocked,
        /// Box 5 or 10: the pods run elsewhere.
        Drained,
        /// Box 5: the old instance is gone.
        Terminated,
        /// Box 5: AWS took the instance before we terminated it.
        TakenByAws,
        /// Box 6: the fallback is being watched.
        Monitoring,
        /// Box 6: an on-demand instance above the baseline is to go back to Spot.
        Adopted,
        /// Box 6: an adopted instance is left to its owner again.
        Released,
        /// Box 7: the Spot group is healthy.
        Healthy,
        /// Box 8: healthy for long enough.
        Stable,
        /// Box 9: the on-demand node can be drained.
        Safe,
        /// Box 10: a return was given up, taint and cordon removed; it is tried again.
        ReturnGivenUp,
        /// Box 10: the on-demand group shrank.
        ScaledDown,
        /// Box 11: the replacement is over and cleaned up.
        CleanedUp,
        /// A person cancelled the replacement.
        Cancelled,
    }
}

impl Outcome {
    /// Whether somebody might want to look.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::NoCapacity
                | Self::Misconfigured
                | Self::LaunchRefused
                | Self::Unusable
                | Self::TimedOut
                | Self::NoticeFalse
                | Self::NodeKept
                | Self::Blocked
                | Self::TakenByAws
                | Self::ReturnGivenUp
        )
    }
}

/// A box of the flow, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FlowBox {
    /// IMDS check.
    #[serde(rename = "1")]
    Notice,
    /// Scale up the Spot group.
    #[serde(rename = "2")]
    ScaleUp,
    /// Wait for the new instance.
    #[serde(rename = "3")]
    Wait,
    /// The Spot instance is in service.
    #[serde(rename = "3.1")]
    Success,
    /// Fall back to on-demand.
    #[serde(rename = "3.2")]
    Fallback,
    /// Taint the node.
    #[serde(rename = "4")]
    Taint,
    /// Drain the node.
    #[serde(rename = "5")]
    Drain,
    /// Monitor.
    #[serde(rename = "6")]
    Monitor,
    /// Health.
    #[serde(rename = "7")]
    Health,
    /// Stability.
    #[serde(rename = "8")]
    Stability,
    /// Safety.
    #[serde(rename = "9")]
    Safety,
    /// Scale down the on-demand node.
    #[serde(rename = "10")]
    ScaleDown,
    /// Clean up.
    #[serde(rename = "11")]
    CleanUp,
}

impl FlowBox {
    /// The number as the flow writes it.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Notice => "1",
            Self::ScaleUp => "2",
            Self::Wait => "3",
            Self::Success => "3.1",
            Self::Fallback => "3.2",
            Self::Taint => "4",
            Self::Drain => "5",
            Self::Monitor => "6",
            Self::Health => "7",
            Self::Stability => "8",
            Self::Safety => "9",
            Self::ScaleDown => "10",
            Self::CleanUp => "11",
        }
    }
}

/// One step of a replacement, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The box of the flow.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// When.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
    /// The node that the step was about.
    #[schemars(length(max = 253))]
    pub node: NodeName,
    /// In plain words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// Something that holds a replacement up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockingReason {
    /// The box that it waits at.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// What it is, for machines.
    pub reason: ReasonCode,
    /// In plain words, with what would unblock it.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// An instance that was claimed for a replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// The group that it came from.
    pub group: GroupKind,
    /// The instance.
    #[schemars(length(max = 32))]
    pub instance_id: InstanceId,
    /// Its node, once it has joined.
    #[schemars(length(max = 253))]
    pub node_name: NodeName,
    /// When it was in service and its node Ready.
    pub ready_at: Timestamp,
}

/// What pods have reserved of each resource, in per cent of what the nodes have, rounded up. What nobody has
/// reserved is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UtilisationPercent(pub BTreeMap<String, u32>);

/// On-demand instances above the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Excess {
    /// How many there are.
    pub instances: u32,
    /// Since when there are so many, or more.
    pub since: Timestamp,
}

/// How many characters a stored message has at most. Some hold AWS's words, or a list of names.
pub const MAX_MESSAGE: usize = 2048;

/// The message as it can be stored.
#[must_use]
pub fn clipped(mut message: String) -> String {
    // Most are far shorter: their bytes tell.
    if message.len() > MAX_MESSAGE
        && let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE - 1)
        && message[end..].chars().nth(1).is_some()
    {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// A standard Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(max = 7))]
    pub status: String,
    /// One word, for machines.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// In plain words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
    /// When the status changed last.
    pub last_transition_time: Timestamp,
    /// The generation that it was seen at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Sets the condition of that type; its transition time moves only when the status does.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" };
    let condition =
        conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    let fresh = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: clipped(message.to_owned()),
        last_transition_time: condition.map_or(now, |condition| condition.last_transition_time),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(place) => *place = fresh,
        None => conditions.push(fresh),
    }
}
