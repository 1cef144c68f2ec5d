//! What preflight finds about the groups of a pool.

use super::code::ReasonCode;
use crate::group::{CapacityUnit, Rollout};
use crate::ids::{GroupName, NodeName, PoolName};

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing, but it is worth to know.
    Note,
    /// The pool works less well than it could, or not at all for now.
    Degraded,
    /// Spot Guard does not act on the pool.
    Refused,
}

/// What was found about a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The group that it is about.
    pub group: GroupName,
    /// What it is.
    pub problem: GroupProblem,
}

/// What may be wrong with a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupProblem {
    /// There is no such group in this account and Region.
    NoSuchGroup,
    /// Another, older pool has it.
    OtherPool(PoolName),
    /// The Spot group replaces instances at risk by itself, and the pool is to be replaced by Spot Guard.
    CapacityRebalance,
    /// The Spot group does not replace instances at risk, and the pool is to be replaced by it.
    DoesNotReplace,
    /// The Spot group terminates instances at risk, and no lifecycle hook gives their pods time to leave (EC2
    /// Auto Scaling User Guide, "Capacity Rebalancing").
    NoTerminationHook,
    /// Both groups belong to this EKS managed node group.
    SameNodeGroup(String),
    /// Another AWS service owns it.
    Operator(String),
    /// EKS replaces and drains its nodes by itself.
    EksManaged(String),
    /// The Spot group buys on-demand instances, too.
    NotAllSpot,
    /// The on-demand group buys Spot instances, too.
    NotAllOnDemand,
    /// The group counts its capacity in something else than instances.
    CountedInUnits(CapacityUnit),
    /// The whole group is being deleted.
    BeingDeleted,
    /// The group may terminate instances by itself, to even out its zones.
    AzRebalance,
    /// The group terminates nothing.
    TerminateSuspended,
    /// The group launches nothing.
    LaunchSuspended(String),
    /// The group keeps instances that are unhealthy.
    ReplaceUnhealthySuspended(&'static str),
    /// The group replaces its instances by itself at this age, in seconds (API Reference, AutoScalingGroup,
    /// MaxInstanceLifetime).
    MaxInstanceLifetime(i32),
    /// All its instances are being replaced.
    Rollout(Rollout),
    /// The group has no room for one more instance: its maximum.
    NoRoom(i32),
    /// LaunchInstances cannot be used: failures are seen later.
    NoLaunchInstances(NoLaunch),
    /// The group cannot shrink below it, so what is owed to a fallback stays in it.
    AtMinimum(i32),
    /// The baseline of the on-demand group is below its minimum or above its maximum.
    BaselineOutOfRange {
        /// The baseline (`spec.onDemand.baseline`).
        baseline: u32,
        /// The group's minimum size.
        min: i32,
        /// The group's maximum size.
        max: i32,
    },
    /// An instance in service has no Node, and there is a Node that names no EC2 instance.
    ForeignProviderIds {
        /// One of those Nodes.
        node: NodeName,
        /// Its `spec.providerID`.
        provider_id: String,
    },
}

/// Why LaunchInstances cannot be used on a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoLaunch {
    /// The group has a launch configuration in place of a launch template.
    LaunchConfiguration,
    /// The group has a warm pool.
    WarmPool,
    /// The group is that of this EKS managed node group, and no person allowed it there.
    ManagedNodeGroup(String),
    /// AWS refused the call, in these words.
    Refused(String),
}

impl Rollout {
    /// Its code: the reason of conditions and events.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::InstanceRefresh(_) => ReasonCode::InstanceRefresh,
            Self::NodeGroupUpdate(_) => ReasonCode::NodeGroupUpdate,
        }
    }
}

impl GroupProblem {
    /// Its code: the reason of conditions and events.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NoSuchGroup => ReasonCode::NoSuchGroup,
            Self::OtherPool(_) => ReasonCode::GroupOfOtherPool,
            Self::CapacityRebalance => ReasonCode::CapacityRebalance,
            Self::DoesNotReplace => ReasonCode::GroupDoesNotReplace,
            Self::NoTerminationHook => ReasonCode::NoTerminationHook,
            Self::SameNodeGroup(_) => ReasonCode::SameNodeGroup,
            Self::Operator(_) => ReasonCode::OperatorOwned,
            Self::EksManaged(_) => ReasonCode::EksManagedNodeGroup,
            Self::NotAllSpot => ReasonCode::NotAllSpot,
            Self::NotAllOnDemand => ReasonCode::NotAllOnDemand,
            Self::CountedInUnits(_) => ReasonCode::CountedInUnits,
            Self::BeingDeleted => ReasonCode::GroupBeingDeleted,
            Self::AzRebalance => ReasonCode::AzRebalance,
            Self::ReplaceUnhealthySuspended(_) => ReasonCode::ReplaceUnhealthySuspended,
            Self::MaxInstanceLifetime(_) => ReasonCode::MaxInstanceLifetime,
            Self::Rollout(rollout) => rollout.code(),
            Self::TerminateSuspended => ReasonCode::TerminateSuspended,
            Self::LaunchSuspended(_) => ReasonCode::LaunchSuspended,
            Self::NoRoom(_) => ReasonCode::NoRoom,
            Self::NoLaunchInstances(_) => ReasonCode::NoLaunchInstances,
            Self::AtMinimum(_) => ReasonCode::AtMinimum,
            Self::BaselineOutOfRange { .. } => ReasonCode::BaselineOutOfRange,
            Self::ForeignProviderIds { .. } => ReasonCode::ForeignProviderId,
        }
    }

    /// What follows from it.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoSuchGroup
            | Self::OtherPool(_)
            | Self::CapacityRebalance
            | Self::DoesNotReplace
            | Self::SameNodeGroup(_)
            | Self::Operator(_)
            | Self::EksManaged(_)
            | Self::NotAllSpot
            | Self::NotAllOnDemand
            | Self::CountedInUnits(_)
            | Self::BeingDeleted
            | Self::BaselineOutOfRange { .. }
            | Self::TerminateSuspended => Severity::Refused,
            // A group that launches nothing is what the other one is there for.
            Self::LaunchSuspended(_)
            | Self::NoTerminationHook
            | Self::ReplaceUnhealthySuspended(_)
            | Self::NoRoom(_)
            | Self::ForeignProviderIds { .. } => Severity::Degraded,
            Self::MaxInstanceLifetime(_)
            | Self::Rollout(_)
            | Self::NoLaunchInstances(_)
            | Self::AtMinimum(_)
            | Self::AzRebalance => Severity::Note,
        }
    }
}
