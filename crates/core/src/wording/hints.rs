//! What to do about each reason, as docs/reasons.md has it.

use crate::reason::ReasonCode;

/// The codes in their order, each with what to do.
const HINTS: [(ReasonCode, &str); ReasonCode::ALL.len()] = [
    (
        ReasonCode::Paused,
        "Set spec.paused to false, remove the label spotguard.dev/paused from the namespace, or request \
         Resume.",
    ),
    (ReasonCode::NodeTooYoung, "Wait, lower minNodeAgeSeconds, or request Replace for the node."),
    (ReasonCode::ConcurrencyLimit, "Wait, or raise maxConcurrentReplacements and maxConcurrentPercent."),
    (ReasonCode::ObserveOnly, "Set spec.mode to Act."),
    (
        ReasonCode::LeftToNeighbour,
        "Nothing. Remove the label or taint that the message names if that tool is gone.",
    ),
    (ReasonCode::TerminationHandlerRuns, "Remove it, or keep it from the nodes of the pools."),
    (ReasonCode::NotInPool, "Create a SpotPool for its group, or see the condition Accepted of the pool."),
    (ReasonCode::NoSuchPool, "Create the pool again, or cancel the replacement."),
    (ReasonCode::RebalanceIgnored, "Set spec.rebalance to Replace, or request Replace for the node."),
    (ReasonCode::ReplacedByGroup, "Nothing, or turn off Capacity Rebalancing of the group."),
    (ReasonCode::NoSuchGroup, "Correct the name in the pool."),
    (ReasonCode::GroupOfOtherPool, "Remove the group from one of the two pools."),
    (
        ReasonCode::CapacityRebalance,
        "Turn off Capacity Rebalancing of the group, or set spec.replacedBy to Group.",
    ),
    (ReasonCode::OperatorOwned, "Use a group of your own."),
    (ReasonCode::EksManagedNodeGroup, "Set spec.replacedBy to Group."),
    (
        ReasonCode::GroupDoesNotReplace,
        "Turn on Capacity Rebalancing of the group, or set spec.replacedBy to SpotGuard.",
    ),
    (
        ReasonCode::NoTerminationHook,
        "Add a lifecycle hook for autoscaling:EC2_INSTANCE_TERMINATING to the group.",
    ),
    (ReasonCode::SameNodeGroup, "Name another group in spec.onDemandGroup."),
    (ReasonCode::NotAllSpot, "Set OnDemandBaseCapacity and OnDemandPercentageAboveBaseCapacity to 0."),
    (ReasonCode::NotAllOnDemand, "Set OnDemandPercentageAboveBaseCapacity to 100."),
    (ReasonCode::CountedInUnits, "Remove the weights, and set DesiredCapacityType to units."),
    (ReasonCode::GroupBeingDeleted, "Name another group in the pool, or delete the pool."),
    (ReasonCode::AzRebalance, "Nothing, or suspend its process AZRebalance."),
    (ReasonCode::TerminateSuspended, "Resume its process Terminate."),
    (ReasonCode::LaunchSuspended, "Resume its process Launch."),
    (ReasonCode::ReplaceUnhealthySuspended, "Resume its processes ReplaceUnhealthy and HealthCheck."),
    (ReasonCode::MaxInstanceLifetime, "Turn MaxInstanceLifetime of the group off."),
    (ReasonCode::NoRoom, "Raise the maximum size of the group."),
    (
        ReasonCode::NoLaunchInstances,
        "Give the group a launch template and no warm pool. For an EKS managed node group, set \
         spec.launchInstances to Always. See the message.",
    ),
    (ReasonCode::AtMinimum, "Lower the minimum size of the group."),
    (
        ReasonCode::ForeignProviderId,
        "Start the kubelets with --provider-id=aws:///ZONE/INSTANCE, or run the cloud controller manager \
         of AWS.",
    ),
    (ReasonCode::InStandby, "Return it to service, or terminate it. An interruption notice does not wait."),
    (ReasonCode::NodeCordoned, "Uncordon the node, or terminate it."),
    (ReasonCode::NodeUnknown, "Nothing if it is gone. Else see why its kubelet does not join."),
    (ReasonCode::CheckPending, "Nothing: the answer comes within seconds."),
    (
        ReasonCode::PodDoesNotFit,
        "Make room on a node that the pod may use, or change its requests, selectors or tolerations.",
    ),
    (ReasonCode::CheckTooLarge, "Reduce the pods' affinity terms, spread constraints, ports or volumes."),
    (
        ReasonCode::BothGroupsFailed,
        "See the message. Add instance types or zones to the groups, or raise quotas.",
    ),
    (
        ReasonCode::InstanceUnusable,
        "Look at the instance's boot log, and at the DaemonSets that remove start-up taints. Delete a Node \
         object that is not the instance's.",
    ),
    (ReasonCode::LaunchHeld, "Complete the lifecycle action, or see what was to complete it."),
    (ReasonCode::StaleWatch, "See the logs for the watch, the API server and the network."),
    (ReasonCode::InstanceDisputed, "Delete the Node object that is wrong."),
    (ReasonCode::InstanceRefresh, "Wait, or cancel the refresh."),
    (ReasonCode::NodeGroupUpdate, "Wait for the update, or see why it does not end."),
    (ReasonCode::TerminatedByOther, "Wait."),
    (ReasonCode::ConnectionsEnd, "Wait, or set waitBeforeTerminationSeconds of the pool."),
    (ReasonCode::PodTerminating, "Wait for its grace period."),
    (ReasonCode::PodOverstayed, "Remove its finalizers, or see why its kubelet does not end it."),
    (ReasonCode::NotSafeToEvict, "End the pod, change the annotation, or set podHoldSeconds of the pool."),
    (ReasonCode::DoNotDisrupt, "End the pod, change the annotation, or set podHoldSeconds of the pool."),
    (
        ReasonCode::PodUnmanaged,
        "End the pod, or set podHoldSeconds, evictUnmanaged or returnUnmanaged of the pool.",
    ),
    (ReasonCode::PodWithEmptyDir, "Set evictEmptyDir or returnEmptyDir of the pool."),
    (ReasonCode::PodComesBack, "Narrow the tolerations of the pod."),
    (ReasonCode::ToleratesDrain, "Narrow the tolerations of the pod."),
    (ReasonCode::BudgetExhausted, "Run more healthy pods of the application, or give the budget more room."),
    (ReasonCode::BudgetNotObserved, "Nothing: the disruption controller sees to it."),
    (ReasonCode::SeveralBudgets, "Change the selectors so that one budget is left."),
    (ReasonCode::EvictionForbidden, "See the message, and the rights of Spot Guard in the namespace."),
    (ReasonCode::EvictionFailed, "See the message."),
    (
        ReasonCode::NodeNotTainted,
        "See the log, the rights of Spot Guard, and the webhooks and policies for nodes.",
    ),
    (ReasonCode::DeletionNotAllowed, "Set deleteAtDeadline of the pool."),
    (ReasonCode::SuccessorsNotReady, "See why the pods of the controller do not become ready."),
    (ReasonCode::PodsNotListed, "See the message and the API server."),
    (ReasonCode::PodNotWatched, "Nothing if it goes. Else see the logs for the watch of pods."),
    (ReasonCode::InstanceNotGone, "Nothing if it goes. Else see the activities of the group."),
    (
        ReasonCode::TerminationHeld,
        "Complete the lifecycle action, or see what was to complete it. A retained instance stays until \
         somebody terminates it.",
    ),
    (ReasonCode::NodeNotGone, "Nothing if it goes. Else see whether its instance runs outside the group."),
    (ReasonCode::CapacityNotSettled, "Nothing: it settles within a minute."),
    (ReasonCode::InterruptionBrake, "Wait, or raise brakeInterruptions and brakePercent."),
    (ReasonCode::ReturnsLost, "Wait, or request Return."),
    (ReasonCode::ReplacementsUnderWay, "Wait, or request Return."),
    (ReasonCode::ReturnBudget, "Wait, raise returnBudget, or request Return."),
    (ReasonCode::ReturnWindow, "Wait, change returnWindows, or request Return."),
    (ReasonCode::BadReturnWindow, "Correct the entry of returnWindows that the message names."),
    (ReasonCode::ReturnRetry, "See why it was given up in the steps of the replacement, or request Return."),
    (ReasonCode::NoSpotInstance, "Wait for Spot capacity, or add instance types and zones to the group."),
    (ReasonCode::InstancesMissing, "See the activities of the group."),
    (ReasonCode::LaunchFailed, "See the message, and the activities of the group."),
    (ReasonCode::NodesNotReady, "See these nodes, or raise notReadyPercent."),
    (ReasonCode::NotStable, "Wait, lower stabilitySeconds, or request Return."),
    (ReasonCode::ReturnUnderWay, "Wait, or raise maxConcurrentReturns."),
    (ReasonCode::BufferExceeded, "Add Spot capacity, run fewer pods, or raise maxUtilisationPercent."),
    (ReasonCode::LaunchFrozen, "Resume Launch."),
    (ReasonCode::ShortfallObserved, "Set spec.shortfall.mode to Act."),
    (ReasonCode::StandInLimit, "Wait, or raise spec.shortfall.maxStandIns."),
    (ReasonCode::OnFallback, "Nothing: they go back when boxes 7 to 9 allow it."),
    (
        ReasonCode::AboveBaseline,
        "See the reasons beside it. Without any, wait for adoptAfterSeconds, for other returns and \
         replacements of the pool, or for 30 minutes after one was released.",
    ),
    (ReasonCode::BaselineOutOfRange, "Correct the baseline, or the sizes of the group."),
    (ReasonCode::MoreReasons, "See the others."),
];

impl ReasonCode {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        HINTS.iter().find(|(code, _)| *code == self).map_or("", |(_, hint)| hint)
    }
}
