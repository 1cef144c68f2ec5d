//! What people ask for beside the notices, and what comes of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a trigger asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TriggerAction {
    /// Replace a node, as on a rebalance recommendation.
    Replace,
    /// Return a fallback to Spot now: stability is not waited for, safety is.
    Return,
    /// End the story of a node whose old instance is still wanted.
    Cancel,
    /// Let no replacement and no return begin, in a pool or everywhere, until a `Resume` for the same.
    Pause,
    /// End the pauses that were asked for the same pool, or for everything.
    Resume,
}

impl std::fmt::Display for TriggerAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
