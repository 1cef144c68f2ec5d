//! What replacements that are over came to, and why drains were cut short: labels that follow from
//! records.

use prometheus_client::encoding::EncodeLabelValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::record::{
    CapacityState, FallbackState, FlowBox, GroupKind, Outcome, Phase, ReplacementStatus, StepRecord,
};

/// What a replacement that is over came to.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EncodeLabelValue,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Ending {
    /// A Spot instance took over at once.
    OnSpot,
    /// An on-demand instance stood in, and went back.
    Returned,
    /// What stood in was lost, or somebody else terminated it.
    FallbackLost,
    /// The Spot group brought a successor by itself.
    ByGroup,
    /// An on-demand instance was left to its owner.
    Released,
    /// The node was drained, and nothing was requested.
    DrainedOnly,
    /// The instance went before anything was begun, or another record goes on.
    NothingDone,
    /// EC2 did not take the instance at its deadline.
    FalseNotice,
    /// Spot Guard gave it up, and the node stays.
    GivenUp,
    /// A person cancelled it.
    Cancelled,
}

impl Ending {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::OnSpot,
        Self::Returned,
        Self::FallbackLost,
        Self::ByGroup,
        Self::Released,
        Self::DrainedOnly,
        Self::NothingDone,
        Self::FalseNotice,
        Self::GivenUp,
        Self::Cancelled,
    ];

    /// That of a record that is over. Of one that began anew only the last time counts.
    #[must_use]
    pub fn of(status: &ReplacementStatus) -> Self {
        let is_of_this_time = |step: &&StepRecord| status.started_at.is_none_or(|begun| step.at >= begun);
        let had = |is: fn(&StepRecord) -> bool| status.steps.iter().filter(is_of_this_time).any(is);
        if status.old_node.is_retained() && had(|step| step.outcome == Outcome::NoticeFalse) {
            return Self::FalseNotice;
        }
        if status.old_node.is_retained() {
            let by_person = |step: &StepRecord| {
                (step.flow_box, step.outcome) == (FlowBox::CleanUp, Outcome::ActionFollowed)
            };
            return if had(by_person) { Self::Cancelled } else { Self::GivenUp };
        }
        if matches!(*status.fallback, FallbackState::Gone { .. }) {
            let went_back = had(|step| step.outcome == Outcome::ScaledDown);
            return if went_back { Self::Returned } else { Self::FallbackLost };
        }
        match &*status.capacity {
            CapacityState::Taken { instance, .. } if instance.group == GroupKind::Spot => Self::OnSpot,
            CapacityState::Taken { .. } => Self::Released,
            CapacityState::Withdrawn { .. } => Self::ByGroup,
            CapacityState::NotRequested {} if had(|step| step.flow_box == FlowBox::Drain) => {
                Self::DrainedOnly
            }
            _ => Self::NothingDone,
        }
    }

    /// The last phase of such a record.
    pub(super) fn phase(self) -> Phase {
        match self {
            Self::FalseNotice | Self::GivenUp | Self::Cancelled => Phase::Cancelled,
            _ => Phase::Completed,
        }
    }
}

/// Why a drain ended before all pods ran elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub(super) enum CutShort {
    /// Its deadline pressed.
    Deadline,
    /// The instance went before.
    InstanceGone,
    /// Without a deadline Spot Guard gave it up, or stopped waiting for the last pods.
    GivenUp,
}

impl CutShort {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Deadline, Self::InstanceGone, Self::GivenUp];

    /// Whether and why the step says that the drain of the old node was cut short.
    pub(super) fn of(step: &StepRecord, status: &ReplacementStatus) -> Option<Self> {
        match (step.flow_box, step.outcome) {
            (FlowBox::Drain, Outcome::TakenByAws) => Some(Self::InstanceGone),
            (FlowBox::Drain, Outcome::TimedOut) if status.deadline.is_some() => Some(Self::Deadline),
            (FlowBox::Drain, Outcome::TimedOut) => Some(Self::GivenUp),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use spot_guard_core::record::{Capacity, OldNodeState};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn over(change: impl FnOnce(&mut ReplacementStatus), steps: &[(FlowBox, Outcome)]) -> ReplacementStatus {
        let step = |(flow_box, outcome): &(FlowBox, Outcome)| StepRecord {
            flow_box: *flow_box,
            at: at(10),
            outcome: *outcome,
            node: "n".into(),
            message: String::new(),
        };
        let mut status = ReplacementStatus {
            old_node: OldNodeState::Gone {}.into(),
            started_at: Some(at(5)),
            finished_at: Some(at(20)),
            steps: steps.iter().map(step).collect(),
            ..ReplacementStatus::default()
        };
        change(&mut status);
        status
    }

    fn taken(group: GroupKind) -> CapacityState {
        let instance = Capacity { group, instance_id: "i-2".into(), node_name: "n2".into(), ready_at: at(9) };
        CapacityState::Taken { instance, on_demand_requested: group == GroupKind::OnDemand }
    }

    fn retained(status: &mut ReplacementStatus) {
        status.old_node = OldNodeState::Retained {}.into();
    }

    #[test]
    fn each_record_that_is_over_came_to_something() {
        let gone = |status: &mut ReplacementStatus| {
            status.capacity = taken(GroupKind::OnDemand).into();
            status.fallback = FallbackState::Gone { successor: None }.into();
        };
        let scaled_down = (FlowBox::ScaleDown, Outcome::ScaledDown);
        let by_person = (FlowBox::CleanUp, Outcome::ActionFollowed);
        let drained = (FlowBox::Drain, Outcome::Drained);
        let withdrawn = CapacityState::Withdrawn { on_demand_requested: false };
        for (expected, status) in [
            (Ending::OnSpot, over(|status| status.capacity = taken(GroupKind::Spot).into(), &[drained])),
            (Ending::Returned, over(gone, &[scaled_down])),
            (Ending::FallbackLost, over(gone, &[(FlowBox::ScaleDown, Outcome::TakenByAws)])),
            (Ending::ByGroup, over(|status| status.capacity = withdrawn.into(), &[drained])),
            (Ending::Released, over(|status| status.capacity = taken(GroupKind::OnDemand).into(), &[])),
            (Ending::DrainedOnly, over(|_| {}, &[drained])),
            (Ending::NothingDone, over(|_| {}, &[(FlowBox::Notice, Outcome::NoticeReceived)])),
            (Ending::FalseNotice, over(retained, &[(FlowBox::Wait, Outcome::NoticeFalse)])),
            (Ending::GivenUp, over(retained, &[(FlowBox::Drain, Outcome::TimedOut)])),
            (Ending::Cancelled, over(retained, &[by_person])),
        ] {
            assert_eq!(Ending::of(&status), expected);
            assert_eq!(expected.phase(), status.phase(), "{expected:?}");
        }
        let mut anew = over(retained, &[by_person]);
        anew.started_at = Some(at(15));
        assert_eq!(Ending::of(&anew), Ending::GivenUp, "the person cancelled it the time before");
    }

    #[test]
    fn a_drain_that_is_given_up_without_a_deadline_missed_none() {
        let step = |outcome| over(|_| {}, &[(FlowBox::Drain, outcome)]).steps.remove(0);
        let mut status = ReplacementStatus::default();
        assert_eq!(CutShort::of(&step(Outcome::TimedOut), &status), Some(CutShort::GivenUp));
        status.deadline = Some(at(60));
        assert_eq!(CutShort::of(&step(Outcome::TimedOut), &status), Some(CutShort::Deadline));
        assert_eq!(CutShort::of(&step(Outcome::TakenByAws), &status), Some(CutShort::InstanceGone));
        assert_eq!(CutShort::of(&step(Outcome::Drained), &status), None);
    }
}
