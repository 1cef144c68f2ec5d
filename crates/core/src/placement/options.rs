//! The options of a placement.

use crate::ids::NodeName;
use crate::policy::Policy;
use std::collections::BTreeSet;

/// Nodes that are not counted on: the one that is drained, other fallback nodes, nodes in a replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedNodes(BTreeSet<NodeName>);

impl ExcludedNodes {
    /// Whether the node is not counted on.
    #[must_use]
    pub fn contains(&self, node: &NodeName) -> bool {
        self.0.contains(node)
    }

    /// These and one more.
    #[must_use]
    pub fn and(&self, node: &NodeName) -> Self {
        let mut all = self.0.clone();
        all.insert(node.into());
        Self(all)
    }
}

impl<S: Into<NodeName>> FromIterator<S> for ExcludedNodes {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

/// How [`place`] goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementOptions {
    /// Pods with a lower priority than this are placeholders: they need no place, and what they take counts
    /// as free, unless a pod that is placed preempts nobody.
    pub placeholders_below: Option<i32>,
    /// How many shuffled packings are tried next to the fixed ones.
    pub shuffles: usize,
    /// How many packings, at most, in which all other pods take the nodes of one.
    pub adversaries: usize,
    /// How far all orders and choices are searched if no packing failed. Enough for small clusters, where
    /// this is proof.
    pub search_steps: usize,
    /// Where the shuffles begin.
    pub seed: u64,
    /// How much work a whole check may be, in units of [`Effort`]. What would be more cannot be said.
    pub effort: u64,
}

/// How much work a check may be. A node with 30 pods in a cluster of 5,000 nodes takes less than a tenth of
/// it. All of it takes seconds without optimisation: a check has a thread of its own.
pub const CHECK_EFFORT: u64 = 40_000_000;

impl Default for PlacementOptions {
    fn default() -> Self {
        Self {
            placeholders_below: None,
            shuffles: 12,
            adversaries: 48,
            search_steps: 20_000,
            seed: 1,
            effort: CHECK_EFFORT,
        }
    }
}

impl PlacementOptions {
    /// With what a pool's settings say of placeholders.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self { placeholders_below: policy.placeholders_below(), ..Self::default() }
    }
}
