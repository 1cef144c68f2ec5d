//! What a SpotAction is answered, in its own status.

use crate::codes;
use crate::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use crate::neighbours::Neighbour;
use crate::reason::Pause;
use crate::record::{Condition, Phase, set_condition};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a SpotAction requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ActionKind {
    /// Replace a node, as on a rebalance recommendation.
    Replace,
    /// Return a fallback to Spot now: stability is skipped, safety is not.
    Return,
    /// Cancel the replacement of a node whose old instance is still wanted.
    Cancel,
    /// Let no replacement and no return begin, in a pool or everywhere, until a `Resume` for the same.
    Pause,
    /// End the pauses that were requested for the same pool, or for everything.
    Resume,
}

impl std::fmt::Display for ActionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

codes! {
    /// Why a SpotAction is refused or followed: the reason of its conditions, for machines.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ActionReason {
        /// It is followed.
        Accepted,
        /// It asks for what is so already.
        NothingToDo,
        /// Its request is written in the records.
        Recorded,
        /// A pause is in force.
        InForce,
        /// A pause was ended by a `Resume`.
        Resumed,
        /// Its target does not fit its action.
        BadTarget,
        /// There is no such pool, node or replacement.
        UnknownTarget,
        /// The node belongs to no pool.
        NotInPool,
        /// Another tool has the node in its hands.
        LeftToNeighbour,
        /// The node is an on-demand instance of a pool.
        OnDemandInstance,
        /// The replacement is being cancelled.
        BeingCancelled,
        /// The replacement is no open fallback.
        NoOpenFallback,
        /// The replacement is over.
        ReplacementOver,
        /// EC2 takes the instance at a deadline.
        DeadlinePresses,
        /// The old instance is being terminated.
        OldInstanceTerminating,
        /// The old instance is gone.
        OldInstanceGone,
    }
}

impl std::fmt::Display for ActionReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to a SpotAction, with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionAnswer {
    /// The target does not fit the action.
    BadTarget {
        /// The action.
        action: ActionKind,
        /// The fields of which it needs one.
        needs: &'static str,
    },
    /// The node does not exist.
    NoSuchNode {
        /// The node.
        node: NodeName,
    },
    /// The pool does not exist.
    NoSuchPool {
        /// The pool.
        pool: PoolName,
    },
    /// The replacement does not exist.
    NoSuchReplacement {
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The node has no replacement.
    NoReplacementOfNode {
        /// The node.
        node: NodeName,
    },
    /// The node is in the Spot group of no pool.
    NotInPool {
        /// The node.
        node: NodeName,
    },
    /// Another tool has the node in its hands.
    LeftToNeighbour {
        /// The node.
        node: NodeName,
        /// The tool.
        neighbour: Neighbour,
    },
    /// The node is an on-demand instance of a pool.
    OnDemandInstance {
        /// The node.
        node: NodeName,
        /// The pool.
        pool: PoolName,
    },
    /// The node's replacement is being cancelled.
    BeingCancelled {
        /// The node.
        node: NodeName,
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The node was replaced already.
    ReplacedAlready {
        /// The node.
        node: NodeName,
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The replacement is over.
    ReplacementOver {
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The replacement is no open fallback.
    NoFallback {
        /// The replacement.
        replacement: ReplacementName,
        /// Where it stands.
        phase: Phase,
    },
    /// The node is no part of an open fallback.
    NoFallbackOfNode {
        /// The node.
        node: NodeName,
    },
    /// The pool has no open fallback.
    NoFallbackInPool {
        /// The pool.
        pool: PoolName,
    },
    /// EC2 takes the instance at a deadline.
    DeadlinePresses {
        /// The replacement.
        replacement: ReplacementName,
        /// The instance.
        instance_id: InstanceId,
        /// The deadline.
        deadline: Timestamp,
    },
    /// The old instance is being terminated.
    OldInstanceTerminating {
        /// The instance.
        instance_id: InstanceId,
    },
    /// The old instance is gone.
    OldInstanceGone {
        /// The instance.
        instance_id: InstanceId,
    },
    /// The old instance is gone, and a fallback stands in for it.
    FallbackStandsIn {
        /// The replacement.
        replacement: ReplacementName,
        /// The instance.
        instance_id: InstanceId,
    },
    /// The node is being replaced.
    Replacing {
        /// The node.
        node: NodeName,
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The fallback returns as soon as that is safe.
    Returning,
    /// The replacement is being cancelled.
    Cancelling {
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The replacement was cancelled before.
    CancelledAlready {
        /// The replacement.
        replacement: ReplacementName,
    },
    /// The pause is in force.
    Paused {
        /// The pool, or everything.
        pool: Option<PoolName>,
    },
    /// No SpotAction has paused it.
    NotPaused {
        /// The pool, or everything.
        pool: Option<PoolName>,
        /// The pause that goes on.
        still: Option<Pause>,
    },
    /// The `Resume` ends these pauses.
    Ends {
        /// Their SpotActions.
        pauses: Vec<String>,
        /// The pause that goes on.
        still: Option<Pause>,
    },
    /// The pauses that the `Resume` was to end are over.
    PausesOver {
        /// The pause that goes on.
        still: Option<Pause>,
    },
    /// A `Resume` has ended the pause.
    EndedBy {
        /// Its SpotAction.
        spot_action: String,
        /// Who requested it.
        by: Option<String>,
    },
}

impl ActionAnswer {
    /// The code, for machines.
    #[must_use]
    pub fn reason(&self) -> ActionReason {
        match self {
            Self::BadTarget { .. } => ActionReason::BadTarget,
            Self::NoSuchNode { .. }
            | Self::NoSuchPool { .. }
            | Self::NoSuchReplacement { .. }
            | Self::NoReplacementOfNode { .. } => ActionReason::UnknownTarget,
            Self::NotInPool { .. } => ActionReason::NotInPool,
            Self::LeftToNeighbour { .. } => ActionReason::LeftToNeighbour,
            Self::OnDemandInstance { .. } => ActionReason::OnDemandInstance,
            Self::BeingCancelled { .. } => ActionReason::BeingCancelled,
            Self::ReplacedAlready { .. } | Self::ReplacementOver { .. } => ActionReason::ReplacementOver,
            Self::NoFallback { .. } | Self::NoFallbackOfNode { .. } => ActionReason::NoOpenFallback,
            Self::DeadlinePresses { .. } => ActionReason::DeadlinePresses,
            Self::OldInstanceTerminating { .. } => ActionReason::OldInstanceTerminating,
            Self::OldInstanceGone { .. } | Self::FallbackStandsIn { .. } => ActionReason::OldInstanceGone,
            Self::Replacing { .. }
            | Self::Returning
            | Self::Cancelling { .. }
            | Self::Paused { .. }
            | Self::Ends { .. } => ActionReason::Accepted,
            Self::NoFallbackInPool { .. } | Self::CancelledAlready { .. } | Self::NotPaused { .. } => {
                ActionReason::NothingToDo
            }
            Self::PausesOver { .. } | Self::EndedBy { .. } => ActionReason::Resumed,
        }
    }
}

/// What is written into a SpotAction's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionUpdate {
    /// The condition `Accepted`, if it changes: whether the SpotAction is followed, and why.
    pub accepted: Option<(bool, ActionReason)>,
    /// The condition `Complete`, if it changes: whether nothing is left to do for it.
    pub complete: Option<(bool, ActionReason)>,
    /// What both say.
    pub answer: ActionAnswer,
    /// The replacements that it led to.
    pub replacements: Vec<ReplacementName>,
}

impl ActionUpdate {
    pub(crate) fn new(
        accepted: Option<(bool, ActionReason)>,
        complete: Option<(bool, ActionReason)>,
        answer: ActionAnswer,
    ) -> Self {
        Self { accepted, complete, answer, replacements: Vec::new() }
    }

    /// What is told of a pause that a `Resume` of this name has ended.
    #[must_use]
    pub fn ended_by(spot_action: String, by: Option<String>) -> Self {
        let answer = ActionAnswer::EndedBy { spot_action, by };
        Self::new(None, Some((true, answer.reason())), answer)
    }

    /// Whether the SpotAction is refused.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.accepted.is_some_and(|(accepted, _)| !accepted)
    }

    /// Sets the conditions.
    pub fn tell(&self, conditions: &mut Vec<Condition>, now: Timestamp) {
        let message = self.answer.to_string();
        for (type_, change) in [("Accepted", self.accepted), ("Complete", self.complete)] {
            if let Some((status, reason)) = change {
                set_condition(conditions, type_, status, &reason.to_string(), &message, now);
            }
        }
    }
}
