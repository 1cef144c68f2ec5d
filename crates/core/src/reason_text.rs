//! The English of reasons: all of it stands here.
//!
//! A text begins with a small letter and has no full stop, for several may stand in one line. It names the
//! setting that it is about, and what would clear what blocks, where that is not plain.

use crate::effort::TooMuch;
use crate::freshness::StaleWatch;
use crate::neighbours::Neighbour;
use crate::placement::PodName;
use crate::reason::{
    BlockedReason, Blocker, EvictionAnswer, Finding, GroupProblem, NoLaunch, Pause, Reason, ShutBudget,
};
use crate::trigger_answer::TriggerAnswer;
use jiff::Timestamp;
use std::fmt::{Display, Formatter, Result};

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Paused(pause) => pause.fmt(f),
            Self::NodeTooYoung { seconds: s } => {
                write!(f, "the node is younger than {s} s (minNodeAgeSeconds)")
            }
            Self::ConcurrencyLimit { limit } => concurrency_limit(*limit, f),
            Self::ObserveOnly { at_once } => observe_only(*at_once, f),
            Self::LeftToNeighbour(neighbour) => write!(f, "the node is left to {neighbour}"),
            Self::NotInPool => f.write_str("the node is in no accepted pool: only a deadline drains it"),
            Self::NoSuchPool { pool } => write!(f, "SpotPool {pool} no longer exists"),
            Self::PoolRefused(finding) => write!(f, "the pool is not accepted: {finding}"),
            Self::RebalanceIgnored => {
                f.write_str("the pool ignores recommendations (spec.rebalance: Ignore)")
            }
            Self::NodeCordoned { node } => write!(f, "node {node} is cordoned"),
            Self::NodeMissing { node } => write!(f, "node {node} is not in the cluster"),
            Self::CheckPending { node } => write!(f, "whether the pods of {node} fit is being checked"),
            Self::CheckTooLarge { node } => {
                write!(f, "whether the pods of {node} fit cannot be said: {TooMuch}")
            }
            Self::NoRoomYet { pod, reasons } => write!(f, "pod {pod} fits on no node yet ({reasons})"),
            Self::BothGroupsFailed { on_demand } => write!(f, "both groups failed; on-demand: {on_demand}"),
            Self::StaleWatch(watch) => watch.fmt(f),
            Self::InstanceDisputed { instance_id: instance, node } => {
                write!(f, "node {node} also reports that it runs on {instance}")
            }
            Self::Undrainable(blocker) => write!(f, "{blocker} (needed: {})", blocker.hint()),
            Self::BudgetShut { budget, healthy, required } => budget_shut(budget, *healthy, *required, f),
            Self::EvictionRefused { pod, answer } => write!(f, "pod {pod}: {answer}"),
            Self::DeletionNotAllowed { pod } => {
                write!(f, "pod {pod} is not deleted: deleteAtDeadline is false")
            }
            Self::PodTerminating { pod } => write!(f, "pod {pod} is still terminating"),
            Self::PodOverstayed { pod, due, finalizers } => overstayed(pod, *due, *finalizers, f),
            Self::PodComesBack { pod } => {
                write!(f, "pod {pod} comes back to the node after each eviction: it tolerates the taint")
            }
            Self::SuccessorsNotReady { controller, ready, expected } => {
                write!(f, "{ready} of {expected} pods of {controller} are ready elsewhere")
            }
            Self::PodsNotListed { error } => write!(f, "the node's pods could not be listed: {error}"),
            Self::PodNotWatched { pod } => not_watched(pod.as_ref(), f),
            Self::InterruptionBrake { limit } => brake(*limit, f),
            Self::ReturnBudget { budget, period } => return_budget(*budget, period.as_secs(), f),
            Self::ReturnWindow => f.write_str("no window for returns is open (returnWindows)"),
            Self::BadReturnWindow { error } => write!(f, "returnWindows: {error}"),
            Self::NoSpotInstance => f.write_str("the Spot group has no instance for the return yet"),
            Self::AtMinimum { group } => write!(f, "group {group} is at its minimum size"),
            Self::InstancesMissing { group, in_service, expected, desired } => {
                write!(f, "{in_service} of {expected} instances are in service in {group} ")?;
                write!(f, "(desired capacity {desired}, without what is owed or under way)")
            }
            Self::LaunchFailed { group, message } => write!(f, "a launch failed in {group}: {message}"),
            Self::NodesNotReady { instances, of } => {
                write!(f, "{} of {of} Spot nodes are not Ready: {}", instances.len(), instances.join(", "))
            }
            Self::NotStable { node, ready_for, required } => {
                let (ready_for, required) = (ready_for.as_secs(), required.as_secs());
                write!(f, "Spot node {node} has been Ready for {ready_for} of {required} s")
            }
            Self::ReturnUnderWay { replacement } => {
                write!(f, "the return of {replacement} is under way: returns are made one at a time")
            }
            Self::More(count) => write!(f, "and {count} more"),
        }
    }
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
    let cause = if finalizers { "its finalizers hold it" } else { "its kubelet has not ended it" };
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

fn brake(limit: usize, f: &mut Formatter<'_>) -> Result {
    write!(f, "there were more than {limit} interruptions within an hour: the pool stays on on-demand ")?;
    f.write_str("(brakeInterruptions, brakePercent)")
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
            Self::Trigger { trigger, by, everything } => {
                let what = if *everything { "everything" } else { "the pool" };
                write!(f, "{what} is paused (trigger {trigger}")?;
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

impl Display for BlockedReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::NotSafeToEvict => {
                "it is annotated cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\""
            }
            Self::DoNotDisrupt => "it is annotated karpenter.sh/do-not-disrupt",
            Self::Unmanaged => "it has no controller that would replace it",
            Self::EmptyDir => "the content of its emptyDir would be lost",
        })
    }
}

impl Display for EvictionAnswer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Evicted => f.write_str("the eviction was granted"),
            Self::Gone => f.write_str("the pod is gone"),
            Self::BudgetExhausted { .. } => f.write_str("its PodDisruptionBudget refused the eviction (429)"),
            Self::RateLimited { .. } => f.write_str("the API server has too much to do (429)"),
            Self::SeveralBudgets => {
                f.write_str("several PodDisruptionBudgets cover it, which the eviction API refuses (500)")
            }
            Self::Forbidden { message } => write!(f, "its eviction is forbidden (403): {message}"),
            Self::Conflict => f.write_str("another client changed it at the same time (409)"),
            Self::Failed { status: 0, message } => write!(f, "the API server gave no answer: {message}"),
            Self::Failed { status, message } => write!(f, "its eviction was refused ({status}): {message}"),
        }
    }
}

impl Display for Blocker {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NodeUnknown { node } => write!(f, "node {node} is not in the cluster"),
            Self::PodDoesNotFit { pod, reasons, fits_in_some_order: false } => {
                write!(f, "pod {pod} fits on no other node ({reasons})")
            }
            Self::PodDoesNotFit { pod, reasons, fits_in_some_order: true } => {
                write!(f, "pod {pod} may be left without a node, if other pods take its place ({reasons})")
            }
            Self::BudgetExhausted(budget) => budget.fmt(f),
            Self::BudgetNotObserved { budget } => {
                write!(f, "the status of PodDisruptionBudget {budget} is not up to date yet")
            }
            Self::SeveralBudgets { pod, budgets } => {
                let names: Vec<&str> = budgets.iter().map(|budget| budget.name.as_str()).collect();
                write!(f, "pod {pod} is covered by several PodDisruptionBudgets ({})", names.join(", "))
            }
            Self::NotEvictable { pod, reason } => write!(f, "pod {pod} must not be evicted: {reason}"),
            Self::ToleratesDrain { pod } => {
                write!(f, "pod {pod} tolerates taint and cordon of a drain, so it may come back to the node")
            }
            Self::BufferExceeded { resource, after, limit } => {
                let (after, limit) = (after * 100.0, limit * 100.0);
                write!(f, "the pool would use {after:.1} % of its {resource}, the limit is {limit:.1} %")
            }
            Self::CheckTooLarge { heaviest } => {
                write!(f, "whether it is safe cannot be said: {TooMuch}")?;
                heaviest.iter().try_for_each(|pod| write!(f, " (the pod with most rules is {pod})"))
            }
        }
    }
}

impl Display for ShutBudget {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "PodDisruptionBudget {} allows ", self.budget)?;
        match self.allowed {
            ..=0 => write!(f, "no disruption")?,
            1 => write!(f, "1 disruption")?,
            more => write!(f, "{more} disruptions")?,
        }
        let (healthy, required, expected) = (self.current_healthy, self.desired_healthy, self.expected_pods);
        write!(f, " ({healthy} healthy, {required} required, {expected} expected), ")?;
        write!(f, "and {} of the node's pods share it", self.pods.len())?;
        if self.for_good > 0 {
            write!(f, ", {} of which do not come back", self.for_good)?;
        }
        if self.never_opens() {
            f.write_str("; it requires all that are expected, so it never opens")?;
        }
        if self.needed > 1 { write!(f, "; they take {}", self.needed) } else { Ok(()) }
    }
}

impl Blocker {
    /// What would clear it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NodeUnknown { .. } => "nothing if the node is gone, for its record is cleaned up",
            Self::PodDoesNotFit { fits_in_some_order: true, .. } => {
                "one more Spot node, or a little more room on the nodes that this pod can use"
            }
            Self::PodDoesNotFit { .. } => {
                "room on a node that the pod may use, or another request, selector or toleration of the pod"
            }
            Self::BudgetExhausted(budget) if budget.never_opens() => {
                "more replicas of the application, or a budget that allows a disruption when all are healthy"
            }
            Self::BudgetExhausted(ShutBudget { for_good: 1.., .. }) => {
                "a budget that allows more disruptions, or the end of the pods that have no controller"
            }
            Self::BudgetExhausted(_) => "more healthy pods of the application, or a budget with more room",
            Self::BudgetNotObserved { .. } => "nothing, the disruption controller sees to it",
            Self::SeveralBudgets { .. } => "selectors that leave the pod with one budget",
            Self::NotEvictable { reason, .. } => match reason {
                BlockedReason::NotSafeToEvict | BlockedReason::DoNotDisrupt => {
                    "the pod's end, or another value of the annotation"
                }
                BlockedReason::Unmanaged => {
                    "the pod's end, or a pool policy that evicts pods without a controller"
                }
                BlockedReason::EmptyDir => "a pool policy that evicts pods with an emptyDir",
            },
            Self::ToleratesDrain { .. } => {
                "tolerations of the pod that name their taints, in place of one for every taint"
            }
            Self::CheckTooLarge { .. } => {
                "fewer pods with many affinity terms, topology spread constraints, ports or volumes"
            }
            Self::BufferExceeded { .. } => "more Spot capacity, fewer pods, or a higher limit for the pool",
        }
    }
}

impl Display for NoLaunch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::LaunchConfiguration => f.write_str("it has no launch template"),
            Self::WarmPool => f.write_str("it has a warm pool"),
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
                write!(f, "{group} replaces instances at risk by itself; turn its CapacityRebalance off")
            }
            GroupProblem::Operator(principal) => write!(f, "{group} may be changed by {principal} alone"),
            GroupProblem::EksManaged(name) => {
                write!(f, "{group} belongs to the EKS managed node group {name}, ")?;
                f.write_str("which replaces its nodes by itself")
            }
            GroupProblem::NotAllSpot => {
                write!(f, "{group} is not all Spot; set OnDemandBaseCapacity and ")?;
                f.write_str("OnDemandPercentageAboveBaseCapacity to 0")
            }
            GroupProblem::NotAllOnDemand => {
                write!(f, "{group} is not all on-demand; set OnDemandPercentageAboveBaseCapacity to 100")
            }
            GroupProblem::AzRebalance => {
                write!(f, "{group} may terminate instances by itself to even out its zones; suspend its ")?;
                f.write_str("process AZRebalance, or accept it with spec.acceptAzRebalance")
            }
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
            GroupProblem::AtMinimum(min) => {
                write!(f, "{group} is at its minimum of {min}: ")?;
                f.write_str("what it owes a fallback it goes on launching by itself")
            }
        }
    }
}

impl Display for TriggerAnswer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::BadTarget { action, needs } => write!(f, "action {action} needs {needs}"),
            Self::NoSuchNode { node } => write!(f, "node {node} does not exist"),
            Self::NoSuchPool { pool } => write!(f, "SpotPool {pool} does not exist"),
            Self::NoSuchReplacement { replacement } => {
                write!(f, "NodeReplacement {replacement} does not exist")
            }
            Self::NoReplacementOfNode { node } => write!(f, "node {node} has no replacement"),
            Self::NotInPool { node } => write!(f, "node {node} is in the Spot group of no pool"),
            Self::LeftToNeighbour { node, neighbour } => write!(f, "node {node} is left to {neighbour}"),
            Self::OnDemandInstance { node, pool } => {
                write!(f, "node {node} is an on-demand instance of pool {pool}: request its return instead")
            }
            Self::BeingCancelled { node, replacement } => {
                write!(f, "replacement {replacement} of node {node} is being cancelled: try again after that")
            }
            Self::ReplacedAlready { node, replacement } => {
                write!(f, "node {node} was replaced already, by replacement {replacement}")
            }
            Self::ReplacementOver { replacement } => write!(f, "replacement {replacement} is over"),
            Self::NoFallback { replacement, phase } => {
                write!(f, "replacement {replacement} is no open fallback: it is {phase:?}")
            }
            Self::NoFallbackOfNode { node } => write!(f, "node {node} is no part of an open fallback"),
            Self::NoFallbackInPool { pool } => write!(f, "pool {pool} has no open fallback"),
            Self::DeadlinePresses { replacement, instance_id, deadline } => {
                write!(f, "EC2 takes {instance_id} at {deadline:.0}: ")?;
                write!(f, "replacement {replacement} cannot be cancelled")
            }
            Self::OldInstanceEnding { instance_id } => {
                write!(f, "the old instance {instance_id} is being terminated already")
            }
            Self::OldInstanceGone { instance_id } => write!(f, "the old instance {instance_id} is gone"),
            Self::FallbackStandsIn { replacement, instance_id } => {
                write!(f, "the old instance {instance_id} is gone; fallback {replacement} stands in: ")?;
                f.write_str("request its return (action Return), or wait for it")
            }
            Self::Replacing { node, replacement } => {
                write!(f, "replacement {replacement} is about node {node}")
            }
            Self::Returning => f.write_str(
                "the return begins as soon as it is safe; stability, budget and windows are not waited for",
            ),
            Self::Cancelling { replacement } => {
                write!(f, "replacement {replacement} is cancelled; what was requested for it goes back")
            }
            Self::CancelledAlready { replacement } => {
                write!(f, "replacement {replacement} was cancelled already")
            }
            Self::Paused { pool } => write!(f, "in force until a Resume of {}", scope(pool.as_ref())),
            Self::NotPaused { pool, still } => {
                write!(f, "no trigger has paused {}", scope(pool.as_ref()))?;
                goes_on(still.as_ref(), f)
            }
            Self::Ends { pauses, still } => {
                write!(f, "the Resume ends {}", pauses.join(", "))?;
                goes_on(still.as_ref(), f)
            }
            Self::PausesOver { still } => {
                f.write_str("the pauses are over")?;
                goes_on(still.as_ref(), f)
            }
            Self::EndedBy { trigger, by } => {
                write!(f, "ended by trigger {trigger}")?;
                by.iter().try_for_each(|by| write!(f, ", requested by {by}"))
            }
        }
    }
}

/// What a pause or its end is about.
fn scope(pool: Option<&String>) -> String {
    pool.map_or_else(|| "everything".to_owned(), |pool| format!("pool {pool}"))
}

/// What a `Resume` does not end.
fn goes_on(still: Option<&Pause>, f: &mut Formatter<'_>) -> Result {
    still.into_iter().try_for_each(|still| write!(f, "; one pause goes on: {still}"))
}
