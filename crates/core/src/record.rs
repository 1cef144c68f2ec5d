//! What is remembered of a story: the status of a NodeReplacement.

use crate::reason::{Reason, ReasonCode};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an interruption notice announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NoticeKind {
    /// EC2 advises to move: the instance is at elevated risk (EC2 User Guide, "rebalance recommendations").
    RebalanceRecommendation,
    /// EC2 takes the instance at the deadline (EC2 User Guide, "Spot Instance interruption notices").
    SpotInterruption,
    /// A person asked for the replacement.
    Manual,
}

impl NoticeKind {
    /// The kind as a part of an object's name.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::RebalanceRecommendation => "rebalance-recommendation",
            Self::SpotInterruption => "spot-interruption",
            Self::Manual => "manual",
        }
    }
}

impl std::fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Which of a pool's two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GroupKind {
    /// The Spot group.
    Spot,
    /// The on-demand group.
    OnDemand,
}

impl GroupKind {
    /// The kind as a part of a name or a label.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

impl std::fmt::Display for GroupKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spot => "Spot",
            Self::OnDemand => "on-demand",
        })
    }
}

/// Where a replacement stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// The notice is stored; nothing was asked for yet.
    #[default]
    Received,
    /// Boxes 2 and 3: the Spot group was asked for one more instance.
    ScalingUp,
    /// Box 3.2: the on-demand group was asked.
    FallingBack,
    /// Both groups failed: the node is kept and the next attempt waits.
    BackingOff,
    /// Boxes 4 and 5: the node is marked, its pods move.
    Draining,
    /// The old instance is being ended.
    Ending,
    /// Boxes 6 to 9: an on-demand instance stands in until Spot can take over again.
    OnFallback,
    /// Box 10: the on-demand node is marked and drained.
    Returning,
    /// Box 10: the on-demand instance is being ended.
    ScalingDown,
    /// Box 11: done.
    Completed,
    /// A person ended the story: its marks come off, and what it brought goes back.
    Cancelling,
    /// A person ended the story.
    Cancelled,
}

impl Phase {
    /// Whether the story is over.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// What a step of the flow ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// Box 1: a notice was received.
    NoticeReceived,
    /// Box 1: a notice with a deadline followed the advice.
    Escalated,
    /// Box 1: the pool only observes; what would be done is told.
    Observed,
    /// Box 1: another tool has the node in its hands.
    SteppedAside,
    /// A person asked for something by a trigger.
    Asked,
    /// Box 2 or 3.2: one more instance was asked for.
    Requested,
    /// Box 3 or 3.2: no capacity, a quota, or the group is at its maximum.
    NoCapacity,
    /// Box 3 or 3.2: the group's configuration is wrong.
    Misconfigured,
    /// Box 3 or 3.2: the time to wait ran out.
    TimedOut,
    /// Box 3.1 or 3.2: in service, and its node Ready.
    InService,
    /// Box 3.2: both groups failed, the node is kept for now.
    NodeKept,
    /// Box 4: the node carries the taint.
    Tainted,
    /// Box 5 or 10: something holds the drain up.
    Blocked,
    /// Box 5 or 10: the pods run elsewhere.
    Drained,
    /// Box 5: the old instance is gone.
    Ended,
    /// Box 5: AWS took the instance before we ended it.
    TakenByAws,
    /// Box 6: the fallback is being watched.
    Monitoring,
    /// Box 7: the Spot group is healthy.
    Healthy,
    /// Box 8: healthy for long enough.
    Stable,
    /// Box 9: the on-demand node can be drained.
    Safe,
    /// Box 10: a return was given up, its marks undone; it is tried again.
    ReturnGivenUp,
    /// Box 10: the on-demand group shrank.
    ScaledDown,
    /// Box 11: the story is over and cleaned up.
    CleanedUp,
    /// A person ended the story.
    Cancelled,
}

impl Outcome {
    /// Whether somebody might want to look.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::NoCapacity
                | Self::Misconfigured
                | Self::TimedOut
                | Self::NodeKept
                | Self::Blocked
                | Self::TakenByAws
                | Self::ReturnGivenUp
        )
    }
}

/// A box of the flow, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FlowBox {
    /// IMDS check.
    #[serde(rename = "1")]
    Notice,
    /// Scale up the Spot group.
    #[serde(rename = "2")]
    ScaleUp,
    /// Wait for the new instance.
    #[serde(rename = "3")]
    Wait,
    /// The Spot instance is in service.
    #[serde(rename = "3.1")]
    Success,
    /// Fall back to on-demand.
    #[serde(rename = "3.2")]
    Fallback,
    /// Taint the node.
    #[serde(rename = "4")]
    Taint,
    /// Drain the node.
    #[serde(rename = "5")]
    Drain,
    /// Monitor.
    #[serde(rename = "6")]
    Monitor,
    /// Health.
    #[serde(rename = "7")]
    Health,
    /// Stability.
    #[serde(rename = "8")]
    Stability,
    /// Safety.
    #[serde(rename = "9")]
    Safety,
    /// Scale down the on-demand node.
    #[serde(rename = "10")]
    ScaleDown,
    /// Clean up.
    #[serde(rename = "11")]
    CleanUp,
}

impl FlowBox {
    /// The number as the flow writes it.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Notice => "1",
            Self::ScaleUp => "2",
            Self::Wait => "3",
            Self::Success => "3.1",
            Self::Fallback => "3.2",
            Self::Taint => "4",
            Self::Drain => "5",
            Self::Monitor => "6",
            Self::Health => "7",
            Self::Stability => "8",
            Self::Safety => "9",
            Self::ScaleDown => "10",
            Self::CleanUp => "11",
        }
    }
}

/// One step of a story, as it is told afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The box of the flow.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// When.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
    /// The node that the step was about.
    #[schemars(length(max = 253))]
    pub node: String,
    /// In plain words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// Something that holds a story up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockingReason {
    /// The box that it waits at.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// What it is, for machines.
    pub reason: ReasonCode,
    /// In plain words, with what would unblock it.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// An instance that was claimed for a story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// The group that it came from.
    pub group: GroupKind,
    /// The instance.
    #[schemars(length(max = 32))]
    pub instance_id: String,
    /// Its node, once it has joined.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// When it was in service and its node Ready.
    pub ready_at: Timestamp,
}

/// What pods have reserved of each resource, in per cent of what the nodes have, rounded up. What nobody has reserved
/// is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UtilisationPercent(pub BTreeMap<String, u32>);

/// How far the drain of the old node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainState {
    /// Not begun: the node carries no mark of ours.
    #[default]
    NotStarted,
    /// The intent is written; marks and evictions may have begun.
    Started,
    /// The pods have moved, or the node is gone.
    Finished,
}

/// The old instance, or the on-demand one at the return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndState {
    /// Still wanted.
    #[default]
    Kept,
    /// The intent to end it is written.
    Ending,
    /// No longer in its group, and what it owed to the desired capacity is settled.
    Gone,
    /// The story was cancelled: the old instance stays, and is none of its business any more.
    Released,
}

impl EndState {
    /// Whether the story has nothing more to do with the old instance.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Gone | Self::Released)
    }
}

/// How many names of triggers a record keeps; the oldest give way.
const MAX_TRIGGERS: usize = 20;

/// How many steps a record keeps; the oldest repetitions give way.
pub const MAX_STEPS: usize = 60;

/// How many reasons a record keeps of what holds its story up.
const MAX_BLOCKING: usize = 50;

/// How many characters a stored message has at most. Some tell AWS's words, or a list of names.
pub const MAX_MESSAGE: usize = 2048;

/// The message as it can be stored.
#[must_use]
pub fn clipped(mut message: String) -> String {
    // Most are far shorter: their bytes tell.
    if message.len() > MAX_MESSAGE
        && let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE - 1)
        && message[end..].chars().nth(1).is_some()
    {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// The durable record of a story.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementStatus {
    /// Where the story stands.
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
    /// How often capacity was asked for after both groups failed.
    #[serde(default)]
    pub attempt: u32,
    /// How often Spot was asked again for what it owes.
    #[serde(default)]
    pub probes: u32,
    /// When Spot is asked again for what it owes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Timestamp>,
    /// When capacity is asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// When the wait for the Spot group began, in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot_asked_at: Option<Timestamp>,
    /// When the wait for the on-demand group began, in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_asked_at: Option<Timestamp>,
    /// The instance that stands in for the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Whether the capacity came from on-demand and has not gone back yet: an open fallback event.
    #[serde(default)]
    pub fallback: bool,
    /// The drain of the old node.
    #[serde(default)]
    pub drain: DrainState,
    /// When that drain began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_started_at: Option<Timestamp>,
    /// The old instance.
    #[serde(default)]
    pub old: EndState,
    /// The Spot instance that takes over from the on-demand one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_capacity: Option<Capacity>,
    /// The drain of the on-demand node.
    #[serde(default)]
    pub return_drain: DrainState,
    /// When that drain began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_started_at: Option<Timestamp>,
    /// The on-demand instance.
    #[serde(default)]
    pub fallback_end: EndState,
    /// When a return may be tried again after one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_not_before: Option<Timestamp>,
    /// When a person last asked to return the fallback now: stability, budget and windows are not waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_requested_at: Option<Timestamp>,
    /// The triggers that this record has taken in, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TRIGGERS), inner(length(max = 253)))]
    pub triggers: Vec<String>,
    /// How full the pool was when the story began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation_before: Option<UtilisationPercent>,
    /// What holds the story up now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_BLOCKING))]
    pub blocking: Vec<BlockingReason>,
    /// The story so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_STEPS))]
    pub steps: Vec<StepRecord>,
    /// W3C trace context of the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
    /// When the story ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Standard conditions: `CapacityReady`, `Drained`, `Completed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// A standard Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(max = 7))]
    pub status: String,
    /// One word, for machines.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// In plain words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
    /// When the status changed last.
    pub last_transition_time: Timestamp,
    /// The generation that it was seen at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Sets the condition of that type; its transition time moves only when the status does.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" };
    let held = conditions.iter().find(|held| held.type_ == type_ && held.status == status);
    let fresh = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: clipped(message.to_owned()),
        last_transition_time: held.map_or(now, |held| held.last_transition_time),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|held| held.type_ == type_) {
        Some(place) => *place = fresh,
        None => conditions.push(fresh),
    }
}

impl ReplacementStatus {
    /// Moves to `phase`.
    pub fn enter(&mut self, phase: Phase, now: Timestamp) {
        if self.phase != phase || self.phase_since.is_none() {
            self.phase = phase;
            self.phase_since = Some(now);
        }
    }

    /// Adds a step, unless the last one said the same of the same node.
    pub fn step(&mut self, flow_box: FlowBox, outcome: Outcome, node: &str, message: String, now: Timestamp) {
        if let Some(last) = self.steps.last()
            && (last.flow_box, last.outcome, last.node.as_str()) == (flow_box, outcome, node)
        {
            return;
        }
        if self.steps.len() >= MAX_STEPS {
            // The beginning of a story says most: what repeats in its middle gives way.
            self.steps.remove(MAX_STEPS / 2);
        }
        self.steps.push(StepRecord {
            flow_box,
            at: now,
            outcome,
            node: node.to_owned(),
            message: clipped(message),
        });
    }

    /// Remembers that the trigger of that name was taken in.
    pub fn take_in_trigger(&mut self, name: &str) {
        if self.triggers.len() >= MAX_TRIGGERS {
            self.triggers.remove(0);
        }
        self.triggers.push(name.to_owned());
    }

    /// Replaces what blocks the story; a reason that was there already keeps its time. Of very many, such as one for
    /// each of 10,000 pods that somebody bound to the node, the first are told: a record that is too large for the API
    /// server could never be stored.
    pub fn block<R: Into<Reason>>(
        &mut self,
        flow_box: FlowBox,
        reasons: impl IntoIterator<Item = R>,
        now: Timestamp,
    ) {
        let since =
            self.blocking.iter().find(|held| held.flow_box == flow_box).map_or(now, |held| held.since);
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

    /// How often the groups were asked anew: what tells a share's attempts apart.
    #[must_use]
    pub fn asked(&self) -> u32 {
        self.attempt + self.probes
    }

    /// The box that the story is at.
    #[must_use]
    pub fn current_box(&self) -> FlowBox {
        if let Some(reason) = self.blocking.first() {
            return reason.flow_box;
        }
        match self.phase {
            Phase::Received => FlowBox::Notice,
            Phase::ScalingUp => FlowBox::Wait,
            Phase::FallingBack | Phase::BackingOff => FlowBox::Fallback,
            Phase::Draining | Phase::Ending => FlowBox::Drain,
            Phase::OnFallback => FlowBox::Monitor,
            Phase::Returning | Phase::ScalingDown => FlowBox::ScaleDown,
            Phase::Cancelling | Phase::Completed | Phase::Cancelled => FlowBox::CleanUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        status.step(FlowBox::Wait, Outcome::NoCapacity, "a", long.clone(), now);
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
