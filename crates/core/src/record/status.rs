//! The durable record of a replacement: the status of a NodeReplacement.

use super::regions::{CapacityState, FallbackState, Guarded, OldNodeState};
use super::words::{
    BlockingReason, Capacity, Condition, FlowBox, NoticeKind, Outcome, Phase, ReplacedBy, StepRecord,
    UtilisationPercent, clipped,
};
use crate::ids::{GroupName, InstanceId, NodeName, NodeUid};
use crate::reason::Reason;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many names of SpotActions a record keeps; the oldest give way.
const MAX_SPOT_ACTIONS: usize = 20;

/// How many instances a record keeps whose nodes could not be used; the oldest give way.
const MAX_DISCARDED: usize = 20;

/// How many steps a record keeps; the oldest repetitions give way.
pub const MAX_STEPS: usize = 60;

/// How many reasons a record keeps of what holds it up.
const MAX_BLOCKING: usize = 50;

/// The durable record of a replacement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementStatus {
    /// Where the replacement stands: it follows from the regions, and is stored for printing.
    #[serde(default)]
    pub phase: Phase,
    /// Since when it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Timestamp>,
    /// The most urgent notice so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeKind>,
    /// When the first notice was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When EC2 takes the instance, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Who replaces the nodes of its pool, as it was when this replacement began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<ReplacedBy>,
    /// The Spot group that had the old instance: the pool may name another one later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub spot_group: Option<GroupName>,
    /// The Availability Zone of the old instance: others there may be interrupted next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub zone: Option<String>,
    /// The UID that the old node had: a later node of its name has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub node_uid: Option<NodeUid>,
    /// How often capacity was requested anew after it had failed or was lost.
    #[serde(default)]
    pub attempt: u32,
    /// How often the instance that Spot owes was requested again.
    #[serde(default)]
    pub probes: u32,
    /// The last instances that were terminated because their nodes could not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_DISCARDED), inner(length(max = 32)))]
    pub discarded: Vec<InstanceId>,
    /// The search for an instance that takes over.
    #[serde(default)]
    pub capacity: Guarded<CapacityState>,
    /// The old node and its instance.
    #[serde(default)]
    pub old_node: Guarded<OldNodeState>,
    /// What stands in and has to go back.
    #[serde(default)]
    pub fallback: Guarded<FallbackState>,
    /// When the last return began: the budget of returns counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_started_at: Option<Timestamp>,
    /// The SpotActions that this record has taken in, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SPOT_ACTIONS), inner(length(max = 253)))]
    pub spot_actions: Vec<String>,
    /// How full the pool was when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation_before: Option<UtilisationPercent>,
    /// What holds it up now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_BLOCKING))]
    pub blocking: Vec<BlockingReason>,
    /// What happened so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_STEPS))]
    pub steps: Vec<StepRecord>,
    /// W3C trace context of the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Standard conditions: `CapacityReady`, `Drained`, `Completed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

impl ReplacementStatus {
    /// Where the replacement stands, as its regions say.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.is_finished() {
            return if self.old_node.is_retained() { Phase::Cancelled } else { Phase::Completed };
        }
        match &*self.fallback {
            FallbackState::Terminating(_) => return Phase::ScalingDown,
            FallbackState::Draining(_) => return Phase::Returning,
            FallbackState::Pending(_) | FallbackState::OnFallback(_) if self.old_node.is_over() => {
                return Phase::OnFallback;
            }
            _ => {}
        }
        match (&*self.old_node, &*self.capacity) {
            (OldNodeState::Retained {}, _) => Phase::Cancelling,
            (OldNodeState::Draining(_) | OldNodeState::Drained(_), _)
            | (OldNodeState::Kept {}, CapacityState::Taken { .. })
            | (OldNodeState::Terminating(_) | OldNodeState::Gone {}, CapacityState::NotRequested {}) => {
                Phase::Draining
            }
            (OldNodeState::Terminating(_) | OldNodeState::Gone {}, CapacityState::Taken { .. }) => {
                Phase::Terminating
            }
            // A deadline took the old instance before there was another one: that is still being looked for.
            (_, CapacityState::SpotRequested { .. }) => Phase::ScalingUp,
            (_, CapacityState::BothRequested { .. }) => Phase::FallingBack,
            (_, CapacityState::BackingOff { .. }) => Phase::BackingOff,
            (OldNodeState::Kept {}, CapacityState::NotRequested {}) => Phase::Received,
            (_, CapacityState::Withdrawn { .. }) if self.is_replaced_by_group() => Phase::Terminating,
            (_, CapacityState::Withdrawn { .. }) => Phase::Cancelling,
        }
    }

    /// Writes down where the replacement stands, and since when.
    pub fn settle_phase(&mut self, now: Timestamp) {
        let phase = self.phase();
        if self.phase != phase || self.phase_since.is_none() {
            self.phase = phase;
            self.phase_since = Some(now);
        }
    }

    /// Whether the Spot group replaces the old instance by itself.
    #[must_use]
    pub fn is_replaced_by_group(&self) -> bool {
        self.replaced_by == Some(ReplacedBy::Group)
    }

    /// Whether it tells of a recommendation in a pool whose Spot group replaces its nodes by itself: EC2 may
    /// never take the old instance.
    #[must_use]
    pub fn is_advice_of_group(&self) -> bool {
        let is_advice = self.notice == Some(NoticeKind::RebalanceRecommendation) && self.deadline.is_none();
        is_advice && self.is_replaced_by_group()
    }

    /// Whether it is about an instance above the baseline that was adopted.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == Outcome::Adopted)
    }

    /// Whether on-demand stands in, or is requested, on such a recommendation.
    #[must_use]
    pub fn stands_in_on_advice(&self) -> bool {
        let withdrawn = matches!(*self.capacity, CapacityState::Withdrawn { .. });
        let kept = *self.old_node == OldNodeState::Kept {};
        self.is_advice_of_group() && self.capacity.is_requested() && !withdrawn && kept && !self.is_finished()
    }

    /// Whether the replacement is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// The instances that took over: from the old one, and from that one at the return.
    pub fn took_over(&self) -> impl Iterator<Item = &Capacity> {
        self.capacity.taken().into_iter().chain(self.fallback.successor())
    }

    /// Whether the replacement of the instance `old` ends this one: it has begun to replace it, or sends it
    /// back.
    #[must_use]
    pub fn ends(&self, old: &InstanceId, instance_id: &InstanceId) -> bool {
        let replaces = old == instance_id && self.capacity.is_requested() && !self.old_node.is_over();
        let returns = self.goes_back().is_some_and(|capacity| capacity.instance_id == *instance_id);
        !self.is_finished() && (replaces || returns)
    }

    /// What is sent back: it stands in for the old instance, or is one too many.
    #[must_use]
    pub fn goes_back(&self) -> Option<&Capacity> {
        self.capacity.taken().filter(|_| self.fallback.is_open())
    }

    /// Adds a step, unless the last one said the same of the same node.
    pub fn step(
        &mut self,
        flow_box: FlowBox,
        outcome: Outcome,
        node: &NodeName,
        message: String,
        now: Timestamp,
    ) {
        if let Some(last) = self.steps.last()
            && (last.flow_box, last.outcome, last.node.as_str()) == (flow_box, outcome, node)
        {
            return;
        }
        self.keep_step(StepRecord {
            flow_box,
            at: now,
            outcome,
            node: node.to_owned(),
            message: clipped(message),
        });
    }

    fn keep_step(&mut self, step: StepRecord) {
        if self.steps.len() >= MAX_STEPS {
            // The beginning says most: what repeats in its middle gives way.
            self.steps.remove(MAX_STEPS / 2);
        }
        self.steps.push(step);
    }

    /// This beginning after what the record `earlier` of the same instance has seen.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        let (steps, spot_actions) = (earlier.steps.clone(), earlier.spot_actions.clone());
        let mut whole = Self { steps, spot_actions, ..self.clone() };
        self.steps.into_iter().for_each(|step| whole.keep_step(step));
        self.spot_actions.iter().for_each(|name| whole.take_in_spot_action(name));
        whole
    }

    /// Remembers that the SpotAction of that name was taken in.
    pub fn take_in_spot_action(&mut self, name: &str) {
        if self.spot_actions.len() >= MAX_SPOT_ACTIONS {
            self.spot_actions.remove(0);
        }
        self.spot_actions.push(name.to_owned());
    }

    /// Remembers an instance that was terminated because its node could not be used; whether that is new.
    pub fn note_discarded(&mut self, instance_id: &InstanceId) -> bool {
        if self.discarded.contains(instance_id) {
            return false;
        }
        if self.discarded.len() >= MAX_DISCARDED {
            self.discarded.remove(0);
        }
        self.discarded.push(instance_id.to_owned());
        true
    }

    /// Replaces what blocks it; a reason that was there already keeps its time. Of very many, such as
    /// one for each of 10,000 pods that somebody bound to the node, the first are kept: a record that is too
    /// large for the API server could never be stored.
    pub fn block<R: Into<Reason>>(
        &mut self,
        flow_box: FlowBox,
        reasons: impl IntoIterator<Item = R>,
        now: Timestamp,
    ) {
        let since = self
            .blocking
            .iter()
            .find(|reason| reason.flow_box == flow_box)
            .map_or(now, |reason| reason.since);
        let mut reasons: Vec<Reason> = reasons.into_iter().map(Into::into).collect();
        if reasons.len() > MAX_BLOCKING {
            let more = reasons.len() - (MAX_BLOCKING - 1);
            reasons.truncate(MAX_BLOCKING - 1);
            reasons.push(Reason::More(more));
        }
        let blocking = |reason: Reason| BlockingReason {
            flow_box,
            reason: reason.code(),
            message: clipped(reason.to_string()),
            since,
        };
        self.blocking = reasons.into_iter().map(blocking).collect();
    }

    /// How often capacity was requested anew: what tells a share's attempts apart.
    #[must_use]
    pub fn requests_made(&self) -> u32 {
        self.attempt + self.probes
    }

    /// The box that the replacement is at.
    #[must_use]
    pub fn current_box(&self) -> FlowBox {
        if let Some(reason) = self.blocking.first() {
            return reason.flow_box;
        }
        match self.phase() {
            Phase::Received => FlowBox::Notice,
            Phase::ScalingUp => FlowBox::Wait,
            Phase::FallingBack | Phase::BackingOff => FlowBox::Fallback,
            Phase::Draining | Phase::Terminating => FlowBox::Drain,
            Phase::OnFallback => FlowBox::Monitor,
            Phase::Returning | Phase::ScalingDown => FlowBox::ScaleDown,
            Phase::Cancelling | Phase::Completed | Phase::Cancelled => FlowBox::CleanUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::{MAX_MESSAGE, set_condition};
    use super::*;
    use crate::reason::ReasonCode;

    #[test]
    fn the_list_of_phases_is_whole() {
        let schema = schemars::schema_for!(Phase).to_value();
        let words = |value: &serde_json::Value| value["const"].as_str().map(str::to_owned);
        let declared: Vec<_> = schema["oneOf"].as_array().into_iter().flatten().filter_map(words).collect();
        assert_eq!(declared, Phase::ALL.map(|phase| format!("{phase:?}")));
    }

    #[test]
    fn what_is_written_fits_its_limits() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        for letter in ["x", "\u{e4}", "\u{1f980}"] {
            let whole = letter.repeat(MAX_MESSAGE);
            assert_eq!(clipped(whole.clone()), whole);
            let long = clipped(letter.repeat(MAX_MESSAGE + 1));
            assert_eq!(long.chars().count(), MAX_MESSAGE);
            assert!(long.ends_with('\u{2026}'), "it says that there was more");
            assert_eq!(clipped(long.clone()), long, "nothing changes the second time");
        }
        let long = "x".repeat(3 * MAX_MESSAGE);
        let mut status = ReplacementStatus::default();
        status.step(FlowBox::Wait, Outcome::NoCapacity, &"a".into(), long.clone(), now);
        let unlisted = Reason::PodsNotListed { error: long.clone() };
        status.block(FlowBox::Drain, vec![unlisted; 3 * MAX_BLOCKING], now);
        set_condition(&mut status.conditions, "Drained", false, "No", &long, now);
        let blocking = status.blocking.iter().map(|reason| &reason.message);
        let messages = [&status.steps[0].message, &status.conditions[0].message].into_iter().chain(blocking);
        assert!(messages.clone().all(|message| message.chars().count() <= MAX_MESSAGE));
        assert_eq!((status.blocking.len(), messages.count()), (MAX_BLOCKING, MAX_BLOCKING + 2));
        let more = BlockingReason {
            flow_box: FlowBox::Drain,
            reason: ReasonCode::MoreReasons,
            message: Reason::More(101).to_string(),
            since: now,
        };
        assert_eq!(status.blocking.last(), Some(&more));
    }
}
