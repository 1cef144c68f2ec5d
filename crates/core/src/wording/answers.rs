//! What a SpotAction is answered, and why a notice, a setting or a request is refused.

use crate::agents::WatchedNodes;
use crate::group::NoInstance;
use crate::ids::PoolName;
use crate::imds::ImdsProblem;
use crate::notices::NoticeRefusal;
use crate::reason::NodeTrouble;
use crate::reason::Pause;
use crate::scaling::calls::Call;
use crate::spot_action::ActionAnswer;
use crate::windows::BadSetting;
use std::fmt::{Display, Formatter, Result};

impl Display for ActionAnswer {
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
            Self::OldInstanceTerminating { instance_id } => {
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
                write!(f, "no SpotAction has paused {}", scope(pool.as_ref()))?;
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
            Self::EndedBy { spot_action, by } => {
                write!(f, "ended by SpotAction {spot_action}")?;
                by.iter().try_for_each(|by| write!(f, ", requested by {by}"))
            }
        }
    }
}

/// What a pause or its end is about.
fn scope(pool: Option<&PoolName>) -> String {
    pool.map_or_else(|| "everything".to_owned(), |pool| format!("pool {pool}"))
}

/// What a `Resume` does not end.
fn goes_on(still: Option<&Pause>, f: &mut Formatter<'_>) -> Result {
    still.into_iter().try_for_each(|still| write!(f, "; one pause goes on: {still}"))
}

impl Display for NoticeRefusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Misnamed => "metadata.name is not made of node, instance and kind",
            Self::InstanceOfAnotherNode => "spec.instanceId is the instance of another node",
            Self::NodeHasAnotherInstance => {
                "spec.instanceId is not the instance of the node (spec.providerID)"
            }
            Self::NodeWithoutInstance => {
                "the node does not say which instance it has (spec.providerID is empty)"
            }
            Self::ForeignProviderId => "spec.providerID of the node names no EC2 instance",
            Self::NoSuchNode => "there is no such node",
            Self::TooMany => "the node has more notices than it can have",
            Self::ImplausibleDeadline => "spec.deadline is implausible: the notice counts without it",
            Self::OutsidePools => "the node is in no pool (drainNodesOutsidePools is off)",
            Self::NotUnderstood => "the notice cannot be read",
            Self::Disbelieved => {
                "an interruption of the instance was announced within the hour and did not come"
            }
            Self::EndedByItsGroup => "the node is gone: its group has terminated it",
        })
    }
}

impl Display for NoInstance {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::LaunchSuspended(reason) => write!(f, "its process Launch is suspended: {reason}"),
            Self::AtMaximum(max) => write!(f, "the group is at its maximum of {max}"),
            Self::AnswerLost => f.write_str("the answer to LaunchInstances was lost"),
            Self::NoAnswer => f.write_str("LaunchInstances gave no instance and no reason"),
            Self::DesiredLowered(to) => write!(f, "somebody else lowered the desired capacity to {to}"),
            Self::Unusable { instance_id, why, waited_seconds } => {
                write!(f, "{instance_id} was terminated after {waited_seconds} s: {why}")
            }
        }
    }
}

impl Display for NodeTrouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::NotJoined => "its node has not joined the cluster",
            Self::NotReady => "its node is not Ready",
            Self::Cordoned => "its node is cordoned",
            Self::Tainted => "its node keeps a start-up taint",
            Self::Disputed => "more than one node says that it runs on it",
            Self::PodsDoNotFit => "the pods that it is for do not fit with its node",
            Self::StandsIdle => "the return that it came for is not safe, and its node stands idle",
        })
    }
}

impl Display for BadSetting {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::OutOfRange { setting, value, min, max } => {
                write!(f, "{setting}: {value} is not between {min} and {max}")
            }
            Self::Schedule { schedule, time_zone, why } => {
                write!(f, "schedule {schedule:?} in time zone {time_zone:?}: {why}")
            }
        }
    }
}

impl Display for ImdsProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::NotImds(status) => write!(
                f,
                "something else answers in the place of IMDS: the token request got status {status} and no token"
            ),
            Self::Unauthorized => f.write_str("the session token is refused (401)"),
            Self::Forbidden => f.write_str("access is forbidden (403)"),
            Self::Failing(status) => write!(f, "status {status}"),
            Self::UnexpectedStatus(status) => write!(f, "unexpected status {status}"),
            Self::InstanceChanged => f.write_str("the instance id is another one than before"),
            Self::Malformed { reason } => write!(f, "unreadable answer: {reason}"),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::SetDesired { group, desired } => write!(f, "SetDesiredCapacity to {desired}, {group:?}"),
            Self::Launch { group, zone, count, .. } => {
                write!(f, "LaunchInstances of {count} in {zone}, {group:?}")
            }
            Self::Terminate { group, instance_id, .. } => {
                write!(f, "TerminateInstanceInAutoScalingGroup of {instance_id}, {group:?}")
            }
        }
    }
}

/// So many nodes are named.
const NAMED: usize = 5;

impl Display for WatchedNodes {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { nodes, unwatched } = self;
        if unwatched.is_empty() {
            return write!(f, "all {nodes} Spot nodes are watched");
        }
        let named: Vec<&str> = unwatched.iter().take(NAMED).map(|node| &**node).collect();
        write!(f, "{} of {nodes} Spot nodes are not watched by a ready agent: ", unwatched.len())?;
        f.write_str(&named.join(", "))?;
        match unwatched.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
