//! What stands against a drain or an eviction, and what would clear it.

use crate::effort::TooMuch;
use crate::placement;
use crate::reason::{BlockedReason, Blocker, EvictionAnswer, ShutBudget};
use std::fmt::{Display, Formatter, Result};

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
                write!(f, "the safety check was given up: {TooMuch}")?;
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

impl Display for placement::NodeReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Excluded => f.write_str("leaving, or a fallback itself"),
            Self::NotReady => f.write_str("not ready"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::Taint(taint) => write!(f, "taint {taint} not tolerated"),
            Self::NodeAffinity => f.write_str("node selector or node affinity does not match"),
            Self::Volume(claim) => write!(f, "volume of claim {claim} is elsewhere"),
            Self::VolumeUnknown(claim) => {
                write!(f, "it is not known where the volume of claim {claim} can be")
            }
            Self::VolumeLimit(driver) => write!(f, "no more volumes of {driver}"),
            Self::DriverMissing(driver) => write!(f, "driver {driver} is not installed"),
            Self::Insufficient(resource) => write!(f, "insufficient {resource}"),
            Self::TooManyPods => f.write_str("too many pods"),
            Self::HostPort(port) => write!(f, "host port {port} is taken"),
            Self::PodAffinity => f.write_str("no pods of its pod affinity"),
            Self::PodAntiAffinity => f.write_str("pod anti-affinity"),
            Self::TopologySpread(key) => write!(f, "topology spread over {key}"),
            Self::Feature(feature) => write!(f, "kubelet without {feature}"),
            Self::Nominated => f.write_str("kept for a pod that waits"),
            Self::OtherScheduler(scheduler) => write!(f, "not checked: scheduler {scheduler}"),
            Self::NotUnderstood(field) => write!(f, "not checked: field {field}"),
        }
    }
}

impl Display for placement::Reasons {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.0.is_empty() {
            return f.write_str("there is no node");
        }
        for (i, placement::ReasonCount { reason, nodes }) in self.0.iter().enumerate() {
            let (gap, plural) = (if i == 0 { "" } else { "; " }, if *nodes == 1 { "" } else { "s" });
            write!(f, "{gap}{nodes} node{plural}: {reason}")?;
        }
        Ok(())
    }
}

impl Display for TooMuch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("there is too much to compare")
    }
}
