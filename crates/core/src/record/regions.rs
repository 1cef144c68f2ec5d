//! The state of a replacement: three regions that are worked on side by side, and every transition of each.
//!
//! [`Guarded::enter`] is the only way from one state to another, and it knows the tables.
//! `docs/states.mmd` is written from them.

#[cfg(test)]
pub(crate) mod diagram;

use super::words::{Capacity, FlowBox};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// A way from one state of a region to another.
#[derive(Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// The box of the flow that decides it.
    pub flow_box: FlowBox,
    /// When it is taken.
    pub when: &'static str,
}

const fn way(from: &'static str, to: &'static str, flow_box: FlowBox, when: &'static str) -> Transition {
    Transition { from, to, flow_box, when }
}

/// A part of a replacement's state that has transitions of its own.
pub trait Region: Sized {
    /// How the diagram names it.
    const NAME: &'static str;

    /// Every transition that there is.
    const TABLE: &'static [Transition];

    /// The state as the table names it.
    fn name(&self) -> &'static str;
}

/// The state of a region as a record holds it: everybody may read it, and only [`Guarded::enter`] leads from
/// one state to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Guarded<R>(R);

impl<R: Region> Guarded<R> {
    /// Goes to another state.
    pub fn enter(&mut self, to: R) {
        let (from, next) = (self.0.name(), to.name());
        debug_assert!(
            R::TABLE.iter().any(|known| (known.from, known.to) == (from, next)),
            "no transition leads from {from} to {next}"
        );
        #[cfg(test)]
        diagram::note(R::NAME, from, next);
        self.0 = to;
    }
}

impl<R> Deref for Guarded<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0
    }
}

impl<R: PartialEq> PartialEq<R> for Guarded<R> {
    fn eq(&self, other: &R) -> bool {
        self.0 == *other
    }
}

/// A state that was not come to by the table, for tests.
#[cfg(any(test, feature = "testing"))]
impl<R> From<R> for Guarded<R> {
    fn from(state: R) -> Self {
        Self(state)
    }
}

/// How far the search for an instance is that takes over. In the schema of a custom resource every case has
/// to be an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CapacityState {
    /// Nothing was requested yet.
    NotRequested {},
    /// Boxes 2 and 3: one more instance was requested from the Spot group.
    SpotRequested {
        /// When the wait for the Spot group began.
        since: Timestamp,
    },
    /// Box 3.2: one was requested from the on-demand group, too.
    BothRequested {
        /// When the wait for the Spot group began.
        spot_since: Timestamp,
        /// When the wait for the on-demand group began.
        on_demand_since: Timestamp,
    },
    /// Box 3.2: both groups failed, and the node is kept. An instance that comes late is taken all the same.
    BackingOff {
        /// When capacity is requested from both groups again.
        until: Timestamp,
    },
    /// Boxes 3.1 and 3.2: an instance is in service, and its node Ready.
    Taken {
        /// The instance.
        instance: Capacity,
        /// Whether on-demand capacity was requested, too: what it brings goes back.
        on_demand_requested: bool,
    },
    /// Box 11: the replacement was cancelled, or its group has brought a successor by itself: what was
    /// requested goes back.
    Withdrawn {
        /// Whether on-demand capacity was requested, too.
        on_demand_requested: bool,
    },
}

impl Default for CapacityState {
    fn default() -> Self {
        Self::NotRequested {}
    }
}

impl Region for CapacityState {
    const NAME: &'static str = "Capacity";
    const TABLE: &'static [Transition] = &[
        way("NotRequested", "SpotRequested", FlowBox::ScaleUp, "nothing holds the replacement back"),
        way("NotRequested", "Taken", FlowBox::Monitor, "an instance above the baseline is adopted"),
        way("SpotRequested", "Taken", FlowBox::Success, "an instance can take the pods"),
        way("SpotRequested", "BothRequested", FlowBox::Fallback, "Spot failed or timed out"),
        way("BothRequested", "Taken", FlowBox::Fallback, "the first instance that can take the pods"),
        way("BothRequested", "BackingOff", FlowBox::Fallback, "on-demand failed or timed out, too"),
        way("BackingOff", "BothRequested", FlowBox::ScaleUp, "the backoff is over"),
        way("BackingOff", "Taken", FlowBox::Fallback, "an instance came late"),
        way("Taken", "SpotRequested", FlowBox::ScaleUp, "the instance was lost before the drain ended"),
        way("Taken", "Taken", FlowBox::Monitor, "another instance has to go back"),
        way("SpotRequested", "Withdrawn", FlowBox::CleanUp, "cancelled, or its group replaced it"),
        way("BothRequested", "Withdrawn", FlowBox::CleanUp, "cancelled, or its group replaced it"),
        way("BackingOff", "Withdrawn", FlowBox::CleanUp, "cancelled, or its group replaced it"),
        way("Taken", "Withdrawn", FlowBox::CleanUp, "cancelled, or lost after that"),
        way("Withdrawn", "Taken", FlowBox::CleanUp, "pods run on an instance that came"),
        way("Withdrawn", "SpotRequested", FlowBox::Notice, "an interruption notice after all"),
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::NotRequested {} => "NotRequested",
            Self::SpotRequested { .. } => "SpotRequested",
            Self::BothRequested { .. } => "BothRequested",
            Self::BackingOff { .. } => "BackingOff",
            Self::Taken { .. } => "Taken",
            Self::Withdrawn { .. } => "Withdrawn",
        }
    }
}

impl CapacityState {
    /// The instance that took over.
    #[must_use]
    pub fn taken(&self) -> Option<&Capacity> {
        match self {
            Self::Taken { instance, .. } => Some(instance),
            _ => None,
        }
    }

    /// Whether an on-demand instance that was requested beside goes back as soon as it is idle: a Spot
    /// instance was taken, or nothing is wanted any more.
    #[must_use]
    pub fn gives_on_demand_back(&self) -> bool {
        let spot_taken = self.taken().is_some_and(|held| held.group == super::GroupKind::Spot);
        spot_taken || matches!(self, Self::Withdrawn { .. })
    }

    /// Whether an instance was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        !matches!(self, Self::NotRequested {})
    }

    /// Whether an instance was requested from the on-demand group, too.
    #[must_use]
    pub fn is_on_demand_requested(&self) -> bool {
        match self {
            Self::NotRequested {} | Self::SpotRequested { .. } => false,
            Self::BothRequested { .. } | Self::BackingOff { .. } => true,
            Self::Taken { on_demand_requested, .. } | Self::Withdrawn { on_demand_requested } => {
                *on_demand_requested
            }
        }
    }

    /// When the wait for the Spot group began, while nothing else has been tried.
    #[must_use]
    pub fn spot_requested_at(&self) -> Option<Timestamp> {
        match self {
            Self::SpotRequested { since } => Some(*since),
            _ => None,
        }
    }

    /// When capacity is requested from both groups again.
    #[must_use]
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        match self {
            Self::BackingOff { until } => Some(*until),
            _ => None,
        }
    }
}

/// The drain of the old node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldDrain {
    /// When it began.
    pub since: Timestamp,
    /// Whether it was reported that the node has its taint.
    #[serde(default)]
    pub tainted: bool,
    /// Since when something holds it up, and no pod leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck_since: Option<Timestamp>,
}

impl OldDrain {
    /// A drain that begins.
    #[must_use]
    pub fn begun(since: Timestamp) -> Self {
        Self { since, tainted: false, stuck_since: None }
    }
}

/// The old node and its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum OldNodeState {
    /// It is as it was: no taint, no cordon.
    Kept {},
    /// Boxes 4 and 5: it gets its taint and cordon, and its pods are evicted.
    Draining(OldDrain),
    /// Box 5: nothing on it is waited for any longer.
    Drained(OldDrain),
    /// Box 5: the termination of its instance is decided.
    Terminating(OldDrain),
    /// Its instance is terminated, and the group's desired capacity is settled.
    Gone {},
    /// The replacement was cancelled: the node stays.
    Retained {},
}

impl Default for OldNodeState {
    fn default() -> Self {
        Self::Kept {}
    }
}

impl Region for OldNodeState {
    const NAME: &'static str = "OldNode";
    const TABLE: &'static [Transition] = &[
        way("Kept", "Draining", FlowBox::Taint, "an instance is taken, a deadline presses, or only drains"),
        way("Draining", "Kept", FlowBox::ScaleUp, "the replacement was lost"),
        way("Draining", "Drained", FlowBox::Drain, "its pods run on other nodes, or EC2 takes it"),
        way("Drained", "Terminating", FlowBox::Drain, "no other node claims its instance"),
        way("Terminating", "Drained", FlowBox::Drain, "another node claims its instance"),
        way("Terminating", "Draining", FlowBox::Drain, "a watch is stale, nothing has begun"),
        way("Terminating", "Gone", FlowBox::Drain, "instance, node and raised capacity are gone"),
        way("Kept", "Gone", FlowBox::Drain, "there is none, or EKS has drained it and it is gone"),
        way("Drained", "Gone", FlowBox::Drain, "EC2 or its group ended it, as in a Group pool"),
        way("Kept", "Retained", FlowBox::CleanUp, "cancelled"),
        way("Draining", "Retained", FlowBox::CleanUp, "cancelled, or given up without a deadline"),
        way("Drained", "Retained", FlowBox::CleanUp, "cancelled"),
        way("Retained", "Kept", FlowBox::Notice, "an interruption notice after all"),
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Kept {} => "Kept",
            Self::Draining(_) => "Draining",
            Self::Drained(_) => "Drained",
            Self::Terminating(_) => "Terminating",
            Self::Gone {} => "Gone",
            Self::Retained {} => "Retained",
        }
    }
}

impl OldNodeState {
    /// Whether the replacement has nothing more to do with the old instance.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Gone {} | Self::Retained {})
    }

    /// Whether the replacement was cancelled, and the node stays.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        matches!(self, Self::Retained {})
    }

    /// Whether the node has nothing more to lose: it is drained, or further.
    #[must_use]
    pub fn is_past_drain(&self) -> bool {
        matches!(self, Self::Drained(_) | Self::Terminating(_) | Self::Gone {})
    }

    /// The drain, from its begin until the instance is gone.
    #[must_use]
    pub fn drain(&self) -> Option<&OldDrain> {
        match self {
            Self::Draining(drain) | Self::Drained(drain) | Self::Terminating(drain) => Some(drain),
            Self::Kept {} | Self::Gone {} | Self::Retained {} => None,
        }
    }
}

/// What is known of a fallback while it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenFallback {
    /// The Spot instance that takes over at the return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Capacity>,
    /// The last of the boxes 7 to 9 that was reported as passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<FlowBox>,
    /// When a return may be tried again after one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When the instance that Spot owes is requested again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Timestamp>,
    /// When a person last requested the return now: stability, budget and windows are not waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
}

/// The instance that stands in and has to go back: an on-demand one, or a Spot one that is one too many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FallbackState {
    /// Nothing has to go back.
    None {},
    /// Box 3.2: an on-demand instance was taken, and the old node is not over yet.
    Pending(OpenFallback),
    /// Boxes 6 to 9: it stands in until Spot can take over.
    OnFallback(OpenFallback),
    /// Box 10: its node gets its taint and cordon, and its pods are evicted.
    Draining(OpenFallback),
    /// Box 10: the termination of its instance is decided.
    Terminating(OpenFallback),
    /// It is over.
    Gone {
        /// The Spot instance that took over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        successor: Option<Capacity>,
    },
}

impl Default for FallbackState {
    fn default() -> Self {
        Self::None {}
    }
}

impl Region for FallbackState {
    const NAME: &'static str = "Fallback";
    const TABLE: &'static [Transition] = &[
        way("None", "Pending", FlowBox::Fallback, "an on-demand instance is taken"),
        way("Pending", "None", FlowBox::ScaleUp, "it was lost before the drain ended, or cancelled"),
        way("Pending", "OnFallback", FlowBox::Monitor, "the old node is over"),
        way("OnFallback", "Draining", FlowBox::ScaleDown, "healthy, stable and safe"),
        way("Draining", "OnFallback", FlowBox::ScaleDown, "given up, or its instance was lost"),
        way("Draining", "Terminating", FlowBox::ScaleDown, "its pods run on other nodes"),
        way("Terminating", "Draining", FlowBox::ScaleDown, "a watch is stale, nothing has begun"),
        way(
            "Terminating",
            "OnFallback",
            FlowBox::ScaleDown,
            "another node claims it, its group replaced it or is at its minimum",
        ),
        way("Terminating", "Gone", FlowBox::ScaleDown, "instance, node and raised capacity are gone"),
        way("OnFallback", "Gone", FlowBox::ScaleDown, "it was lost, and nothing has to go back"),
        way("Draining", "Gone", FlowBox::ScaleDown, "it was lost, and nothing has to go back"),
        way("OnFallback", "None", FlowBox::Monitor, "nothing has to go back any more"),
        way("Draining", "None", FlowBox::Monitor, "nothing has to go back any more"),
        way("None", "OnFallback", FlowBox::CleanUp, "one too many runs pods, or an instance is adopted"),
        way("Gone", "OnFallback", FlowBox::CleanUp, "an instance too many runs pods"),
        way("Terminating", "None", FlowBox::Notice, "a cancelled one has to go on, or the baseline needs it"),
        way("Gone", "None", FlowBox::Notice, "a cancelled replacement has to go on"),
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::None {} => "None",
            Self::Pending(_) => "Pending",
            Self::OnFallback(_) => "OnFallback",
            Self::Draining(_) => "Draining",
            Self::Terminating(_) => "Terminating",
            Self::Gone { .. } => "Gone",
        }
    }
}

impl FallbackState {
    /// What is known of the fallback while it is open.
    #[must_use]
    pub fn open(&self) -> Option<&OpenFallback> {
        match self {
            Self::Pending(open) | Self::OnFallback(open) | Self::Draining(open) | Self::Terminating(open) => {
                Some(open)
            }
            Self::None {} | Self::Gone { .. } => None,
        }
    }

    /// Whether something has to go back, and has not yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open().is_some()
    }

    /// Whether the return has begun, and is not over.
    #[must_use]
    pub fn is_returning(&self) -> bool {
        matches!(self, Self::Draining(_) | Self::Terminating(_))
    }

    /// Whether the termination is decided, or done.
    #[must_use]
    pub fn is_past_drain(&self) -> bool {
        matches!(self, Self::Terminating(_) | Self::Gone { .. })
    }

    /// The Spot instance that takes over at the return, or has.
    #[must_use]
    pub fn successor(&self) -> Option<&Capacity> {
        match self {
            Self::Gone { successor } => successor.as_ref(),
            open => open.open()?.successor.as_ref(),
        }
    }

    /// When a person last requested the return now.
    #[must_use]
    pub fn requested_at(&self) -> Option<Timestamp> {
        self.open()?.requested_at
    }
}

impl Guarded<OldNodeState> {
    /// Remembers what was reported of the drain; it goes on.
    pub(crate) fn note(&mut self, drain: OldDrain) {
        if let OldNodeState::Draining(held) = &mut self.0 {
            *held = drain;
        }
    }
}

impl Guarded<FallbackState> {
    /// What is known of the fallback while it is open, to be changed.
    pub fn open_mut(&mut self) -> Option<&mut OpenFallback> {
        match &mut self.0 {
            FallbackState::Pending(open)
            | FallbackState::OnFallback(open)
            | FallbackState::Draining(open)
            | FallbackState::Terminating(open) => Some(open),
            FallbackState::None {} | FallbackState::Gone { .. } => None,
        }
    }
}
