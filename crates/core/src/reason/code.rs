//! The codes of reasons, for machines: they stay as they are, and their set is closed.

use crate::codes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

codes! {
    /// The code of a [`Reason`](super::Reason). `docs/reasons.md` lists all of them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
    pub enum ReasonCode {
        /// The pool, or everything, is paused.
        Paused,
        /// The node is younger than the minimum age.
        NodeTooYoung,
        /// As many nodes of the pool are being replaced as the limits allow.
        ConcurrencyLimit,
        /// The pool only observes.
        ObserveOnly,
        /// The node is left to another tool.
        LeftToNeighbour,
        /// aws-node-termination-handler runs in the cluster.
        TerminationHandlerRuns,
        /// The node is in no accepted pool.
        NotInPool,
        /// The pool no longer exists.
        NoSuchPool,
        /// The pool ignores rebalance recommendations.
        RebalanceIgnored,
        /// The group replaces the nodes of its pool by itself.
        ReplacedByGroup,
        /// An Auto Scaling group does not exist.
        NoSuchGroup,
        /// A group belongs to another pool.
        GroupOfOtherPool,
        /// A group replaces instances at risk by itself.
        CapacityRebalance,
        /// A group may be changed by an AWS service alone.
        OperatorOwned,
        /// A group belongs to an EKS managed node group.
        EksManagedNodeGroup,
        /// The group does not replace its instances by itself, and the pool says so.
        GroupDoesNotReplace,
        /// The Spot group terminates instances at risk, and no lifecycle hook holds them.
        NoTerminationHook,
        /// Both groups belong to one EKS managed node group.
        SameNodeGroup,
        /// The Spot group also buys on-demand instances.
        NotAllSpot,
        /// The on-demand group also buys Spot instances.
        NotAllOnDemand,
        /// A group counts its capacity in weights, vCPUs or memory.
        CountedInUnits,
        /// A group is being deleted.
        GroupBeingDeleted,
        /// A group may terminate instances to even out its zones.
        AzRebalance,
        /// A group terminates nothing.
        TerminateSuspended,
        /// A group launches nothing.
        LaunchSuspended,
        /// A group keeps unhealthy instances.
        ReplaceUnhealthySuspended,
        /// A group replaces its instances at a certain age.
        MaxInstanceLifetime,
        /// A group has no room for one more instance.
        NoRoom,
        /// LaunchInstances cannot be used on a group.
        NoLaunchInstances,
        /// A group is at its minimum size.
        AtMinimum,
        /// Nodes of the cluster name no EC2 instance.
        ForeignProviderId,
        /// A person has put the instance into Standby.
        InStandby,
        /// A node is cordoned.
        NodeCordoned,
        /// A node is not in the cluster.
        NodeUnknown,
        /// Whether the pods fit is being checked.
        CheckPending,
        /// A pod fits on no other node.
        PodDoesNotFit,
        /// A check would be more work than it may be.
        CheckTooLarge,
        /// Neither group has given an instance.
        BothGroupsFailed,
        /// An instance is in service, and its node cannot be used.
        InstanceUnusable,
        /// A lifecycle hook holds an instance on its way in.
        LaunchHeld,
        /// A watch shows an old picture.
        StaleWatch,
        /// Another node reports that it runs on the same instance.
        InstanceDisputed,
        /// An instance refresh replaces the instances of a group.
        InstanceRefresh,
        /// EKS updates the managed node group of a group.
        NodeGroupUpdate,
        /// Another replacement terminates the instance already.
        TerminatedByOther,
        /// An instance was taken out of load balancers, and its connections have time to end.
        ConnectionsEnd,
        /// A pod is still terminating.
        PodTerminating,
        /// A pod has not terminated in its time.
        PodOverstayed,
        /// A pod is annotated as not safe to evict.
        NotSafeToEvict,
        /// A pod is annotated as not to be disrupted.
        DoNotDisrupt,
        /// A pod has no controller.
        PodUnmanaged,
        /// A pod has an emptyDir.
        PodWithEmptyDir,
        /// A pod comes back to the node after each eviction.
        PodComesBack,
        /// A pod tolerates taint and cordon of a drain.
        ToleratesDrain,
        /// A disruption budget allows too few disruptions.
        BudgetExhausted,
        /// The status of a disruption budget is not up to date.
        BudgetNotObserved,
        /// Several disruption budgets cover a pod.
        SeveralBudgets,
        /// An eviction is forbidden.
        EvictionForbidden,
        /// An eviction failed.
        EvictionFailed,
        /// Taint and cordon of a node cannot be set.
        NodeNotTainted,
        /// The pool does not allow to delete pods at the deadline.
        DeletionNotAllowed,
        /// Pods that left the node are not ready elsewhere.
        SuccessorsNotReady,
        /// The node's pods could not be listed.
        PodsNotListed,
        /// A pod is on the node that the watch does not show.
        PodNotWatched,
        /// An instance that is to be gone is in its group.
        InstanceNotGone,
        /// A lifecycle hook holds an instance that is to be gone, or its group retains it.
        TerminationHeld,
        /// The node of an instance that is to be gone is in the cluster.
        NodeNotGone,
        /// The desired capacity of a group is still raised, or being lowered.
        CapacityNotSettled,
        /// There were too many interruptions within an hour.
        InterruptionBrake,
        /// Spot instances that took over were interrupted soon after.
        ReturnsLost,
        /// Other nodes of the pool are being replaced, and their replacements are not Ready.
        ReplacementsUnderWay,
        /// The budget of returns is used up.
        ReturnBudget,
        /// No window for returns is open.
        ReturnWindow,
        /// A window for returns cannot be used.
        BadReturnWindow,
        /// The drain of a return was given up, and the next one waits.
        ReturnRetry,
        /// The Spot group has no instance for the return.
        NoSpotInstance,
        /// Instances of the Spot group are not in service.
        InstancesMissing,
        /// A launch of the Spot group failed.
        LaunchFailed,
        /// Spot nodes are not Ready.
        NodesNotReady,
        /// The Spot node has not been Ready for long enough.
        NotStable,
        /// The return of another fallback is under way.
        ReturnUnderWay,
        /// The pool would be too full.
        BufferExceeded,
        /// A person has suspended launches of the Spot group.
        LaunchFrozen,
        /// Stand-ins for missing Spot instances are only reported.
        ShortfallObserved,
        /// As many stand-ins are open, or began or ended lately, as the limits allow.
        StandInLimit,
        /// On-demand instances stand in for Spot.
        OnFallback,
        /// The on-demand group has more instances than its baseline.
        AboveBaseline,
        /// The baseline does not fit with the sizes of the on-demand group.
        BaselineOutOfRange,
        /// There are more reasons than a record holds.
        MoreReasons,
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
