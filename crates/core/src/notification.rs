//! The notifications: the few steps of a replacement that people want to know at once.

use crate::record::{FlowBox, Outcome};
use serde::{Deserialize, Serialize};

/// Why somebody is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotificationKind {
    /// A notice was received: sent at once, not after the drain.
    Notice,
    /// An on-demand instance is requested in place of Spot.
    Fallback,
    /// A fallback went back to Spot: the on-demand group shrank.
    Return,
    /// Something that somebody may have to look at.
    Failure,
}

impl NotificationKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Notice, Self::Fallback, Self::Return, Self::Failure];

    /// What a step is to be notified as, if at all.
    ///
    /// A Spot group without capacity is no failure: falling back is what the pool is for. What holds a drain
    /// up for a while is none either; it becomes one when the drain's time has run out.
    #[must_use]
    pub fn of(flow_box: FlowBox, outcome: Outcome) -> Option<Self> {
        match (outcome, flow_box) {
            (Outcome::NoticeReceived | Outcome::Escalated, _) => Some(Self::Notice),
            (Outcome::Requested, FlowBox::Fallback) => Some(Self::Fallback),
            (Outcome::ScaledDown, _) => Some(Self::Return),
            (
                Outcome::Misconfigured
                | Outcome::LaunchRefused
                | Outcome::Unusable
                | Outcome::NodeKept
                | Outcome::TakenByAws
                | Outcome::ReturnGivenUp,
                _,
            )
            | (Outcome::TimedOut, FlowBox::Drain | FlowBox::ScaleDown) => Some(Self::Failure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_for_people_is_notified() {
        let cases = [
            (FlowBox::Notice, Outcome::NoticeReceived, Some(NotificationKind::Notice)),
            (FlowBox::Notice, Outcome::Escalated, Some(NotificationKind::Notice)),
            (FlowBox::ScaleUp, Outcome::Requested, None),
            (FlowBox::Wait, Outcome::NoCapacity, None),
            (FlowBox::Wait, Outcome::TimedOut, None),
            (FlowBox::Wait, Outcome::Misconfigured, Some(NotificationKind::Failure)),
            (FlowBox::Wait, Outcome::LaunchRefused, Some(NotificationKind::Failure)),
            (FlowBox::Fallback, Outcome::Unusable, Some(NotificationKind::Failure)),
            (FlowBox::Fallback, Outcome::Requested, Some(NotificationKind::Fallback)),
            (FlowBox::Fallback, Outcome::NodeKept, Some(NotificationKind::Failure)),
            (FlowBox::Drain, Outcome::Blocked, None),
            (FlowBox::Drain, Outcome::TimedOut, Some(NotificationKind::Failure)),
            (FlowBox::Drain, Outcome::TakenByAws, Some(NotificationKind::Failure)),
            (FlowBox::ScaleDown, Outcome::ReturnGivenUp, Some(NotificationKind::Failure)),
            (FlowBox::ScaleDown, Outcome::ScaledDown, Some(NotificationKind::Return)),
            (FlowBox::CleanUp, Outcome::CleanedUp, None),
        ];
        for (flow_box, outcome, expected) in cases {
            assert_eq!(NotificationKind::of(flow_box, outcome), expected, "{flow_box:?} {outcome:?}");
        }
    }
}
