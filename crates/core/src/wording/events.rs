//! What happens to a replacement.

use crate::flow::{Event, Finish, Wish};
use crate::group::NoInstance;
use crate::group::request_failure::RequestFailure;
use crate::reason::{Reason, in_one_line};
use crate::record::GroupKind;
use crate::stand_ins::{ModeInForce, ModeOrigin, ShortfallMode};
use std::fmt;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoticeReceived { kind, instance_id, deadline: Some(deadline) }
            | Self::Escalated { kind, instance_id, deadline } => {
                write!(f, "{kind}: EC2 takes {instance_id} at {deadline:.0}")
            }
            Self::NoticeReceived { kind, instance_id, deadline: None } => {
                write!(f, "{kind} for {instance_id}")
            }
            Self::ActionFollowed { wish, spot_action, by, reason } => {
                action_followed(*wish, spot_action, by.as_deref(), reason.as_deref(), f)
            }
            Self::Observed { pressed } => Reason::ObserveOnly { at_once: *pressed }.fmt(f),
            Self::SteppedAside { neighbour } => Reason::LeftToNeighbour(*neighbour).fmt(f),
            Self::LeftToGroup => f.write_str("the Spot group replaces the instance by itself"),
            Self::SpotRequested => f.write_str("one more instance is requested from the Spot group"),
            Self::BothRequested { attempt } => {
                write!(f, "attempt {attempt}: capacity is requested from both groups again")
            }
            Self::RequestFailed { group, failure } => write!(f, "{group}: {failure}"),
            Self::Discarded { group, instance_id, why, waited_seconds } => {
                let instance_id = instance_id.clone();
                let ended = NoInstance::Unusable { instance_id, why: *why, waited_seconds: *waited_seconds };
                write!(f, "{group}: {ended}")
            }
            Self::OnDemandRequested => f.write_str("one more instance is requested from the on-demand group"),
            Self::NodeKept { retry_in } => {
                write!(f, "the node is kept as it is; next attempt in {} s", retry_in.as_secs())
            }
            Self::InService { group, instance_id, node } => {
                write!(f, "{group} instance {instance_id} is in service, node {node} is Ready")
            }
            Self::Healthy => f.write_str("the Spot group is healthy"),
            Self::Stable => f.write_str("the Spot group has been healthy for long enough"),
            Self::Adopted { .. } | Self::Released => adoption(self, f),
            Self::Safe => f.write_str("its pods fit on other nodes, and the buffer is kept"),
            Self::CleanedUp(finish) | Self::Cancelled(finish) => finish.fmt(f),
            Self::AdviceGivenUp { .. } | Self::NoticeFalse { .. } | Self::Maintained { .. } => {
                stayed(self, f)
            }
            Self::Tainted
            | Self::DrainBlocked { .. }
            | Self::DrainGivenUp { .. }
            | Self::FitGivenUp { .. }
            | Self::Drained { .. }
            | Self::DrainedWithout { .. }
            | Self::GoneBeforeDrained { .. }
            | Self::DeadlineNear { .. }
            | Self::Terminated { .. }
            | Self::Monitoring { .. }
            | Self::ReturnGivenUp { .. }
            | Self::FallbackLost { .. }
            | Self::FallbackTerminated { .. }
            | Self::ScaledDown { .. } => leaving(self, f),
        }
    }
}

fn action_followed(
    wish: Wish,
    spot_action: &str,
    by: Option<&str>,
    reason: Option<&str>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_str(match wish {
        Wish::Replacement => "the replacement was requested",
        Wish::Return => "the return was requested",
        Wish::Cancellation => "the cancellation was requested",
    })?;
    by.iter().try_for_each(|by| write!(f, " by {by}"))?;
    write!(f, " (SpotAction {spot_action})")?;
    reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
}

/// Box 6: on-demand above the baseline.
fn adoption(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Adopted { instance_id, requests_spot } => {
            let then = if *requests_spot {
                "once Spot has brought one for it"
            } else {
                "for its pods fit elsewhere"
            };
            write!(f, "{instance_id} is above the on-demand baseline, and goes back to Spot {then}")
        }
        Event::Released => f.write_str("the instance is left to its owner: its return is not possible now"),
        _ => Ok(()),
    }
}

/// Box 3: the old instance stays, and what stands in for it goes back.
fn stayed(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::AdviceGivenUp { instance_id, waited } => {
            let seconds = waited.as_secs();
            write!(f, "{instance_id} is still in service after {seconds} s: what stands in for it goes back")
        }
        Event::NoticeFalse { instance_id, deadline } => {
            write!(
                f,
                "{instance_id} serves, though it was to be taken at {deadline:.0}: what stands in for it "
            )?;
            f.write_str("goes back, and its interruption notices begin nothing for an hour")
        }
        Event::Maintained { instance_id, deadline } => {
            write!(f, "{instance_id} serves, though maintenance was to begin at {deadline:.0}: ")?;
            f.write_str("what stands in for it goes back")
        }
        _ => Ok(()),
    }
}

/// Boxes 4 to 6 and 10: how nodes are drained and instances go.
fn leaving(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Tainted => f.write_str("the node is tainted, so it gets no new pods"),
        Event::DrainBlocked { reasons } => f.write_str(&in_one_line(reasons)),
        Event::DrainGivenUp { patience, reasons } => {
            let (seconds, reasons) = (patience.as_secs(), in_one_line(reasons));
            write!(f, "no pod has left for {seconds} s, so the replacement is given up; taint and cordon ")?;
            write!(f, "are removed, and requested capacity goes back: {reasons}")
        }
        Event::FitGivenUp { waited, reasons } => {
            let (seconds, reasons) = (waited.as_secs(), in_one_line(reasons));
            write!(
                f,
                "the pods have not fitted with a new instance for {seconds} s, and no other zone can "
            )?;
            write!(f, "be tried, so the replacement is given up: {reasons}")
        }
        Event::Drained { .. } => f.write_str("its pods run on other nodes"),
        Event::DrainedWithout { reasons, .. } => {
            write!(f, "the drain waits for nothing any more: {}", in_one_line(reasons))
        }
        Event::GoneBeforeDrained { instance_id } => {
            write!(f, "{instance_id} was gone before its drain ended")
        }
        Event::DeadlineNear { reasons } => {
            write!(
                f,
                "the deadline is near, so the instance is terminated undrained: {}",
                in_one_line(reasons)
            )
        }
        Event::Terminated { instance_id, replaced_by_group: true } => {
            write!(f, "{instance_id} is gone; its group has launched a replacement, too")
        }
        Event::Terminated { instance_id, replaced_by_group: false } => {
            write!(f, "{instance_id} is gone; the Spot group's desired capacity is settled")
        }
        Event::Monitoring { group, node, cancelled: true } => {
            write!(f, "{group} node {node} runs pods, which move before its instance is terminated")
        }
        Event::Monitoring { group: GroupKind::OnDemand, node, .. } => {
            write!(f, "on-demand node {node} stands in until Spot is back")
        }
        Event::Monitoring { group: GroupKind::Spot, node, .. } => {
            write!(f, "the Spot group has one instance too many: node {node}")
        }
        Event::ReturnGivenUp { reasons } => {
            write!(f, "the return was given up; taint and cordon are removed: {}", in_one_line(reasons))
        }
        Event::FallbackLost { instance_id } => {
            write!(f, "{instance_id} was lost; the Spot instance has taken over")
        }
        Event::FallbackTerminated { instance_id } => {
            write!(
                f,
                "{instance_id} was terminated by somebody else, and the desired capacity lowered with it"
            )
        }
        Event::ScaledDown { group, instance_id } => {
            write!(f, "{instance_id} is gone; the desired capacity of the {group} group was lowered by 1")
        }
        _ => Ok(()),
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfCapacity(message)
            | Self::Misconfigured(message)
            | Self::Refused(message)
            | Self::Unusable(message) => f.write_str(message),
            Self::TimedOut(waited) => write!(f, "no instance in service after {} s", waited.as_secs()),
        }
    }
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingRequested => "nothing had been requested",
            Self::InstanceGone => "the instance is gone",
            Self::NodeGone => "the node was drained and is gone",
            Self::TakenOver => "the node says which instance it has: the record of that instance goes on",
            Self::Settled => "nothing of the replacement is left in either group",
        })
    }
}

impl fmt::Display for ModeInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.mode {
            ShortfallMode::Act => "on-demand stands in for Spot capacity that is missing without a notice",
            ShortfallMode::Observe => "what would stand in for missing Spot capacity is only reported",
            ShortfallMode::Off => "nothing stands in for Spot capacity that is missing without a notice",
        };
        let why = match self.because {
            ModeOrigin::ShortfallSpec => "spec.shortfall.mode of the pool says so",
            ModeOrigin::PoolMode => "spec.mode of the pool allows no more",
            ModeOrigin::AutoscalerLeads => "a cluster-autoscaler leads and answers the same shortfall",
            ModeOrigin::NoAutoscaler => "no cluster-autoscaler leads",
            ModeOrigin::AutoscalerUnknown => "nobody knows whether a cluster-autoscaler leads",
        };
        write!(f, "{what}: {why}")
    }
}
