//! What holds a replacement, a pool or a return up.

use crate::effort::TooMuch;
use crate::freshness::StaleWatch;
use crate::group::{CapacityUnit, Rollout};
use crate::ids::{GroupName, InstanceId, NodeName, ReplacementName};
use crate::neighbours::Neighbour;
use crate::placement::PodName;
use crate::reason::NodeTrouble;
use crate::reason::{BlockedReason, Finding, GroupProblem, NoLaunch, Pause, Reason};
use crate::record::GroupKind;
use jiff::Timestamp;
use std::fmt::{Display, Formatter, Result};
use std::time::Duration;

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Paused(pause) => pause.fmt(f),
            Self::NodeTooYoung { seconds } => too_young(*seconds, f),
            Self::ConcurrencyLimit { limit } => concurrency_limit(*limit, f),
            Self::ObserveOnly { at_once } => observe_only(*at_once, f),
            Self::LeftToNeighbour(neighbour) => write!(f, "the node is left to {neighbour}"),
            Self::TerminationHandlerRuns { workload } => termination_handler(workload, f),
            Self::NotInPool => f.write_str("the node is in no accepted pool: only a deadline drains it"),
            Self::NoSuchPool { pool } => write!(f, "SpotPool {pool} no longer exists"),
            Self::PoolRefused(finding) => write!(f, "the pool is not accepted: {finding}"),
            Self::ReplacedByGroup => replaced_by_group(f),
            Self::RebalanceIgnored => rebalance_ignored(f),
            Self::InStandby { instance_id } => in_standby(instance_id, f),
            Self::NodeCordoned { node } => write!(f, "node {node} is cordoned"),
            Self::NodeMissing { node } => write!(f, "node {node} is not in the cluster"),
            Self::CheckPending { node } => write!(f, "the check whether the pods of {node} fit is running"),
            Self::CheckTooLarge { node } => check_too_large(node, f),
            Self::NoRoomYet { pod, reasons } => write!(f, "pod {pod} fits on no node yet ({reasons})"),
            Self::BothGroupsFailed { on_demand } => write!(f, "both groups failed; on-demand: {on_demand}"),
            Self::InstanceUnusable { instance_id, why, since } => unusable(instance_id, *why, *since, f),
            Self::LaunchHeld { instance_id, since } => launch_held(instance_id, *since, f),
            Self::StaleWatch(watch) => watch.fmt(f),
            Self::InstanceDisputed { instance_id, node } => disputed(instance_id, node, f),
            Self::Rollout { group, rollout } => rolled_out(group, rollout, f),
            Self::TerminatedByOther { instance_id, replacement } => by_other(instance_id, replacement, f),
            Self::Undrainable(blocker) => write!(f, "{blocker} (needed: {})", blocker.hint()),
            Self::BudgetShut { budget, healthy, required } => budget_shut(budget, *healthy, *required, f),
            Self::EvictionRefused { pod, answer } => write!(f, "pod {pod}: {answer}"),
            Self::NodeNotTainted { node } => not_marked(node, f),
            Self::DeletionNotAllowed { pod } => not_deleted(pod, f),
            Self::PodHolds { pod, reason, until } => pod_holds(pod, *reason, *until, f),
            Self::ConnectionsEnd { until } => connections_end(*until, f),
            Self::PodTerminating { pod } => write!(f, "pod {pod} is still terminating"),
            Self::PodOverstayed { pod, due, finalizers } => overstayed(pod, *due, *finalizers, f),
            Self::PodComesBack { pod } => comes_back(pod, f),
            Self::SuccessorsNotReady { controller, ready, expected } => {
                write!(f, "{ready} of {expected} pods of {controller} are ready elsewhere")
            }
            Self::PodsNotListed { error } => write!(f, "the node's pods could not be listed: {error}"),
            Self::PodNotWatched { pod } => not_watched(pod.as_ref(), f),
            Self::InstanceNotGone { .. } | Self::TerminationHeld { .. } | Self::NodeNotGone { .. } => {
                not_gone(self, f)
            }
            Self::CapacityNotSettled { group } => not_settled(*group, f),
            Self::InterruptionBrake { .. }
            | Self::ReturnsLost { .. }
            | Self::ReplacementsUnderWay { .. }
            | Self::ReturnUnderWay { .. }
            | Self::ReturnBudget { .. }
            | Self::ReturnWindow
            | Self::ReturnRetry { .. }
            | Self::BadReturnWindow(_) => limit_of_returns(self, f),
            Self::NoSpotInstance => f.write_str("the Spot group has no instance for the return yet"),
            Self::AtMinimum { group } => write!(f, "group {group} is at its minimum size"),
            Self::InstancesMissing { group, in_service, expected, desired } => {
                instances_missing(group, *in_service, *expected, *desired, f)
            }
            Self::LaunchFailed { group, message } => write!(f, "a launch failed in {group}: {message}"),
            Self::NodesNotReady { instances, of } => nodes_not_ready(instances, *of, f),
            Self::NotStable { node, ready_for, required } => not_stable(node, *ready_for, *required, f),
            Self::LaunchFrozen { .. }
            | Self::ShortfallObserved { .. }
            | Self::StandInLimit { .. }
            | Self::AtMaximum { .. } => shortfall(self, f),
            Self::OnFallback { .. } | Self::AboveBaseline { .. } => on_demand(self, f),
            Self::More(count) => write!(f, "and {count} more"),
        }
    }
}

/// What is left of an instance that is to be gone.
fn not_gone(reason: &Reason, f: &mut Formatter<'_>) -> Result {
    match reason {
        Reason::InstanceNotGone { instance_id } => write!(f, "{instance_id} is still in its group"),
        Reason::TerminationHeld { instance_id, retained: false } => {
            write!(f, "a lifecycle hook holds {instance_id} in Terminating:Wait: complete it")
        }
        Reason::TerminationHeld { instance_id, retained: true } => {
            write!(f, "{instance_id} is in Terminating:Retained, ")?;
            f.write_str("and its group keeps it until somebody terminates it")
        }
        Reason::NodeNotGone { node, group: None } => write!(f, "node {node} is still in the cluster"),
        Reason::NodeNotGone { node, group: Some(group) } => {
            write!(f, "node {node} is still Ready, though its instance has left {group}")
        }
        _ => Ok(()),
    }
}

fn too_young(seconds: u32, f: &mut Formatter<'_>) -> Result {
    write!(f, "the node is younger than {seconds} s (minNodeAgeSeconds)")
}

fn by_other(id: &InstanceId, replacement: &ReplacementName, f: &mut Formatter<'_>) -> Result {
    write!(f, "replacement {replacement} terminates {id} already")
}

fn rolled_out(group: &GroupName, rollout: &Rollout, f: &mut Formatter<'_>) -> Result {
    match rollout {
        Rollout::InstanceRefresh(status) => {
            write!(f, "an instance refresh of {group} is under way ({status})")?;
        }
        Rollout::NodeGroupUpdate(name) => {
            write!(f, "EKS updates the managed node group {name} of {group}")?;
        }
    }
    f.write_str("; only deadlines begin something")
}

fn disputed(instance_id: &InstanceId, node: &NodeName, f: &mut Formatter<'_>) -> Result {
    write!(f, "node {node} also reports that it runs on {instance_id}")
}

fn not_marked(node: &NodeName, f: &mut Formatter<'_>) -> Result {
    write!(
        f,
        "taint and cordon of node {node} cannot be set; see the log, and the webhooks and policies for nodes"
    )
}

fn not_deleted(pod: &PodName, f: &mut Formatter<'_>) -> Result {
    write!(f, "pod {pod} is not deleted: deleteAtDeadline is false")
}

fn not_all_spot(group: &GroupName, f: &mut Formatter<'_>) -> Result {
    write!(f, "{group} is not all Spot; set OnDemandBaseCapacity and ")?;
    f.write_str("OnDemandPercentageAboveBaseCapacity to 0")
}

fn foreign_ids(group: &GroupName, node: &NodeName, provider_id: &str, f: &mut Formatter<'_>) -> Result {
    write!(f, "no Node is known for an instance of {group}, ")?;
    write!(f, "and node {node} has the providerID {provider_id}; set it to aws:///ZONE/INSTANCE")
}

fn out_of_range(group: &GroupName, baseline: u32, min: i32, max: i32, f: &mut Formatter<'_>) -> Result {
    write!(f, "spec.onDemand.baseline is {baseline}, and {group} can have {min} to {max} instances")
}

/// What is not on Spot.
fn on_demand(reason: &Reason, f: &mut Formatter<'_>) -> Result {
    match reason {
        Reason::OnFallback { instances: 1 } => f.write_str("an on-demand instance stands in for Spot"),
        Reason::OnFallback { instances } => write!(f, "{instances} on-demand instances stand in for Spot"),
        Reason::AboveBaseline { group, instances, baseline } => {
            let counted = if *instances == 1 { "instance" } else { "instances" };
            write!(f, "{group} has {instances} {counted} above its baseline of {baseline}")
        }
        _ => Ok(()),
    }
}

/// What holds stand-ins for missing Spot instances.
fn shortfall(reason: &Reason, f: &mut Formatter<'_>) -> Result {
    match reason {
        Reason::LaunchFrozen { group } => {
            write!(f, "a person has suspended Launch of {group}: nothing stands in for what it lacks")
        }
        Reason::ShortfallObserved { instances } => {
            write!(f, "pods wait, and {instances} on-demand instances would stand in (shortfall.mode)")
        }
        Reason::StandInLimit { limit } => write!(
            f,
            "as many stand-ins are open, or began or ended lately, as the limits allow \
             (shortfall.maxStandIns is {limit})"
        ),
        Reason::AtMaximum { group, max } => {
            write!(f, "group {group} has no room for one more stand-in: its maximum is {max}")
        }
        _ => Ok(()),
    }
}

fn check_too_large(node: &NodeName, f: &mut Formatter<'_>) -> Result {
    write!(f, "the check whether the pods of {node} fit was given up: {TooMuch}")
}

fn launch_held(instance_id: &InstanceId, since: Timestamp, f: &mut Formatter<'_>) -> Result {
    write!(f, "a lifecycle hook holds {instance_id}, waited for since {since:.0}: complete it")
}

fn evens_out_zones(group: &GroupName, f: &mut Formatter<'_>) -> Result {
    write!(f, "{group} may terminate instances by itself to even out its zones, ")?;
    f.write_str("so without a deadline an instance is requested of the emptiest zones alone")
}

fn lifetime(group: &GroupName, seconds: i32, f: &mut Formatter<'_>) -> Result {
    write!(f, "{group} replaces its instances by itself after {seconds} s; ")?;
    f.write_str("turn its MaxInstanceLifetime off, or their pods may be terminated with them")
}

fn unusable(instance_id: &InstanceId, why: NodeTrouble, since: Timestamp, f: &mut Formatter<'_>) -> Result {
    write!(f, "{instance_id} is in service, and {why}, since {since:.0} (joinTimeoutSeconds)")
}

fn termination_handler(workload: &PodName, f: &mut Formatter<'_>) -> Result {
    write!(f, "aws-node-termination-handler ({workload}) drains the same nodes: ")?;
    f.write_str("remove it, or keep it from the nodes of the pool")
}

fn pod_holds(pod: &PodName, reason: BlockedReason, until: Timestamp, f: &mut Formatter<'_>) -> Result {
    write!(f, "pod {pod} holds the node until {until:.0} at most (podHoldSeconds): {reason}")
}

fn connections_end(until: Timestamp, f: &mut Formatter<'_>) -> Result {
    write!(f, "the node is out of its load balancers: connections have until {until:.0} to end ")?;
    f.write_str("(waitBeforeTerminationSeconds)")
}

fn comes_back(pod: &PodName, f: &mut Formatter<'_>) -> Result {
    write!(f, "pod {pod} comes back to the node after each eviction: it tolerates the taint")
}

fn nodes_not_ready(instances: &[InstanceId], of: usize, f: &mut Formatter<'_>) -> Result {
    write!(f, "{} of {of} Spot nodes are not Ready: {}", instances.len(), instances.join(", "))
}

fn instances_missing(
    group: &GroupName,
    in_service: i64,
    expected: i64,
    desired: i64,
    f: &mut Formatter<'_>,
) -> Result {
    write!(f, "{in_service} of {expected} instances are in service in {group} ")?;
    write!(f, "(desired capacity {desired}, without what is owed or under way)")
}

fn not_stable(node: &NodeName, ready_for: Duration, required: Duration, f: &mut Formatter<'_>) -> Result {
    let (ready_for, required) = (ready_for.as_secs(), required.as_secs());
    write!(f, "Spot node {node} has been Ready for {ready_for} of {required} s")
}

fn replaced_by_group(f: &mut Formatter<'_>) -> Result {
    f.write_str("the Spot group replaces its instances by itself; ")?;
    f.write_str("Spot Guard stands in for what it does not bring after an interruption notice")
}

fn not_settled(group: GroupKind, f: &mut Formatter<'_>) -> Result {
    write!(f, "the desired capacity of the {group} group is not settled yet")
}

fn in_standby(instance_id: &InstanceId, f: &mut Formatter<'_>) -> Result {
    write!(f, "{instance_id} is in Standby: it is left alone until it is in service or terminated")
}

fn rebalance_ignored(f: &mut Formatter<'_>) -> Result {
    f.write_str("the pool ignores recommendations (spec.rebalance: Ignore)")
}

fn concurrency_limit(limit: usize, f: &mut Formatter<'_>) -> Result {
    write!(f, "{limit} nodes of the pool are being replaced, which is the limit ")?;
    f.write_str("(maxConcurrentReplacements, maxConcurrentPercent)")
}

fn observe_only(at_once: bool, f: &mut Formatter<'_>) -> Result {
    f.write_str("the pool only observes (mode: Observe); Spot Guard would request one more Spot instance, ")?;
    f.write_str("or an on-demand one if Spot is out of capacity, and taint and drain the node ")?;
    f.write_str(if at_once { "at once" } else { "after that" })
}

fn budget_shut(budget: &PodName, healthy: i64, required: i64, f: &mut Formatter<'_>) -> Result {
    write!(f, "PodDisruptionBudget {budget} allows no disruption ({healthy} healthy, {required} required)")
}

fn overstayed(pod: &PodName, due: Timestamp, finalizers: bool, f: &mut Formatter<'_>) -> Result {
    let cause = if finalizers { "its finalizers hold it" } else { "its kubelet has not terminated it" };
    write!(f, "pod {pod} was to be gone at {due:.0}: {cause}")
}

fn not_watched(pod: Option<&PodName>, f: &mut Formatter<'_>) -> Result {
    match pod {
        Some(pod) => write!(f, "pod {pod} is on the node, and the watch of pods does not show it"),
        None => {
            f.write_str("a pod that cannot be read is on the node, and the watch of pods does not show it")
        }
    }
}

/// What lets no return begin.
fn limit_of_returns(reason: &Reason, f: &mut Formatter<'_>) -> Result {
    match reason {
        Reason::InterruptionBrake { limit } => brake(*limit, f),
        Reason::ReturnsLost { until } => returns_lost(*until, f),
        Reason::ReplacementsUnderWay { count } => {
            write!(f, "the replacements of {count} other nodes of the pool are not Ready yet")
        }
        Reason::ReturnUnderWay { replacement } => {
            write!(f, "the return of {replacement} is under way (maxConcurrentReturns)")
        }
        Reason::ReturnBudget { budget, period } => return_budget(*budget, period.as_secs(), f),
        Reason::ReturnWindow => f.write_str("no window for returns is open (returnWindows)"),
        Reason::ReturnRetry { until } => {
            write!(f, "its drain was given up; the return waits until {until:.0} (returnRetrySeconds)")
        }
        Reason::BadReturnWindow(error) => write!(f, "returnWindows: {error}"),
        _ => Ok(()),
    }
}

fn brake(limit: usize, f: &mut Formatter<'_>) -> Result {
    write!(f, "there were more than {limit} interruptions within an hour: the pool stays on on-demand ")?;
    f.write_str("(brakeInterruptions, brakePercent)")
}

fn returns_lost(until: Timestamp, f: &mut Formatter<'_>) -> Result {
    let until = until.strftime("%H:%M:%S");
    write!(
        f,
        "Spot instances that took over were interrupted soon after: the next return waits until {until} UTC"
    )
}

fn return_budget(budget: usize, seconds: u64, f: &mut Formatter<'_>) -> Result {
    write!(f, "{budget} returns have begun within {seconds} s, which uses the budget up (returnBudget)")
}

impl Display for Pause {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Pool => f.write_str("the pool is paused (spec.paused)"),
            Self::Everything => f.write_str(
                "everything is paused (label spotguard.dev/paused on the namespace of Spot Guard)",
            ),
            Self::SpotAction { spot_action, by, everything } => {
                let what = if *everything { "everything" } else { "the pool" };
                write!(f, "{what} is paused (SpotAction {spot_action}")?;
                by.iter().try_for_each(|by| write!(f, ", requested by {by}"))?;
                f.write_str(")")
            }
        }
    }
}

impl Display for Neighbour {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Karpenter => "Karpenter (label karpenter.sh/nodepool)",
            Self::EksManagedNodeGroup => "an EKS managed node group (label eks.amazonaws.com/nodegroup)",
            Self::NodeTerminationHandler => {
                "aws-node-termination-handler (taint aws-node-termination-handler/..)"
            }
            Self::ClusterAutoscaler => "cluster-autoscaler (taint ToBeDeletedByClusterAutoscaler)",
        })
    }
}

impl Display for StaleWatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "the watch of {} has been broken or silent since {:.0}", self.kind.plural(), self.since)
    }
}

impl Display for NoLaunch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::LaunchConfiguration => f.write_str("it has no launch template"),
            Self::WarmPool => f.write_str("it has a warm pool"),
            Self::ManagedNodeGroup(name) => {
                write!(f, "it is the group of the EKS managed node group {name}; ")?;
                f.write_str("LaunchInstances there takes spec.launchInstances: Always")
            }
            Self::Refused(message) => f.write_str(message),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let group = &self.group;
        match &self.problem {
            GroupProblem::NoSuchGroup => write!(f, "Auto Scaling group {group} does not exist"),
            GroupProblem::OtherPool(pool) => write!(f, "{group} belongs to SpotPool {pool} already"),
            GroupProblem::CapacityRebalance => {
                write!(f, "{group} replaces instances at risk by itself, and spec.replacedBy is ")?;
                f.write_str("SpotGuard; turn its CapacityRebalance off, or set spec.replacedBy to Group")
            }
            GroupProblem::DoesNotReplace => {
                write!(f, "{group} does not replace instances at risk, and spec.replacedBy is Group; ")?;
                f.write_str("turn its CapacityRebalance on, or set spec.replacedBy to SpotGuard")
            }
            GroupProblem::NoTerminationHook => {
                write!(f, "{group} terminates instances at risk, and no lifecycle hook holds them: ")?;
                f.write_str("their pods are killed; add one for autoscaling:EC2_INSTANCE_TERMINATING")
            }
            GroupProblem::SameNodeGroup(name) => {
                write!(f, "{group} belongs to the EKS managed node group {name}, as the Spot group does; ")?;
                f.write_str("name another group in spec.onDemandGroup")
            }
            GroupProblem::Operator(principal) => write!(f, "{group} may be changed by {principal} alone"),
            GroupProblem::EksManaged(name) => {
                write!(f, "{group} belongs to the EKS managed node group {name}, ")?;
                f.write_str("which replaces its nodes by itself, and spec.replacedBy is SpotGuard; ")?;
                f.write_str("set spec.replacedBy to Group")
            }
            GroupProblem::NotAllSpot => not_all_spot(group, f),
            GroupProblem::NotAllOnDemand => {
                write!(f, "{group} is not all on-demand; set OnDemandPercentageAboveBaseCapacity to 100")
            }
            GroupProblem::CountedInUnits(CapacityUnit::Weights) => {
                write!(f, "{group} counts its capacity in weights; remove the WeightedCapacity of its types")
            }
            GroupProblem::CountedInUnits(CapacityUnit::Type(unit)) => {
                write!(f, "{group} counts its capacity in {unit}; set its DesiredCapacityType to units")
            }
            GroupProblem::BeingDeleted => write!(f, "{group} is being deleted"),
            GroupProblem::ReplaceUnhealthySuspended(process) => {
                write!(f, "{group} keeps unhealthy instances; resume its process {process}")
            }
            GroupProblem::Rollout(rollout) => rolled_out(group, rollout, f),
            GroupProblem::MaxInstanceLifetime(seconds) => lifetime(group, *seconds, f),
            GroupProblem::AzRebalance => evens_out_zones(group, f),
            GroupProblem::TerminateSuspended => {
                write!(f, "{group} terminates nothing; resume its process Terminate")
            }
            GroupProblem::LaunchSuspended(reason) => {
                write!(f, "{group} launches nothing, {reason}; resume its process Launch")
            }
            GroupProblem::NoRoom(max) => {
                write!(f, "{group} has no room for one more instance; raise its maximum of {max}")
            }
            GroupProblem::NoLaunchInstances(why) => {
                write!(f, "{group} is scaled by SetDesiredCapacity, ")?;
                write!(f, "and its failures are read from its activities: {why}")
            }
            GroupProblem::ForeignProviderIds { node, provider_id } => {
                foreign_ids(group, node, provider_id, f)
            }
            GroupProblem::BaselineOutOfRange { baseline, min, max } => {
                out_of_range(group, *baseline, *min, *max, f)
            }
            GroupProblem::AtMinimum(min) => {
                write!(f, "{group} is at its minimum of {min}: ")?;
                f.write_str("it keeps launching the instance that it owes a fallback")
            }
        }
    }
}
