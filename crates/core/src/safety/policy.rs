//! What counts as safe, and what the check is told beside the cluster.

use super::utilisation::Utilisation;
use crate::drain::{DrainPolicy, Purpose};
use crate::ids::NodeName;
use crate::placement::{ExcludedNodes, PlacementOptions};
use crate::policy::Policy;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How much work a look may be that others wait for.
pub(super) const GLANCE_EFFORT: u64 = 100_000;

/// What counts as safe.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyPolicy {
    /// How full the pool may be afterwards, as a share of each resource.
    pub max_utilisation: f64,
    /// By how much more than before the replacement, in any case. A cluster that always runs fuller than
    /// `max_utilisation` must still find its way back.
    pub utilisation_slack: f64,
    /// Which pods may be evicted.
    pub drain: DrainPolicy,
    /// How the placement check goes about it.
    pub placement: PlacementOptions,
}

impl Default for SafetyPolicy {
    fn default() -> Self {
        Self {
            max_utilisation: 0.75,
            utilisation_slack: 0.05,
            drain: DrainPolicy::default_for(Purpose::Return),
            placement: PlacementOptions::default(),
        }
    }
}

impl SafetyPolicy {
    /// The part of a pool's settings that counts here.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            max_utilisation: f64::from(policy.max_utilisation_percent) / 100.0,
            utilisation_slack: f64::from(policy.utilisation_slack_percent) / 100.0,
            drain: DrainPolicy::of(policy, Purpose::Return, false),
            placement: PlacementOptions::of(policy),
        }
    }
}

/// What the snapshot does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SafetyContext {
    /// Nodes not to count on: other fallback nodes and nodes in a replacement.
    pub excluded: ExcludedNodes,
    /// The nodes of the pool's two groups.
    pub pool_nodes: BTreeSet<NodeName>,
    /// How full the pool was before the replacement began, if that was recorded.
    pub utilisation_before_story: Option<Utilisation>,
    /// The key of the taint that a drain sets.
    pub taint_key: Arc<str>,
    /// The nodes whose drain has begun in its record: the taint may come later.
    pub drained: BTreeSet<NodeName>,
    /// The time.
    pub now: Timestamp,
}

impl SafetyContext {
    /// Which nodes are drained beside.
    #[must_use]
    pub fn drains(&self) -> Drains<'_> {
        Drains { taint_key: &self.taint_key, nodes: &self.drained }
    }
}

impl<'a> Drains<'a> {
    /// Those with such a taint alone.
    #[must_use]
    pub const fn marked(taint_key: &'a str) -> Self {
        const NONE: &BTreeSet<NodeName> = &BTreeSet::new();
        Self { taint_key, nodes: NONE }
    }
}

/// Which nodes are drained.
#[derive(Clone, Copy, Debug)]
pub struct Drains<'a> {
    /// Those with a taint of this key.
    pub taint_key: &'a str,
    /// And these.
    pub nodes: &'a BTreeSet<NodeName>,
}
