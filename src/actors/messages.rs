//! The messages between the actors of the controller, in the order of the flow.
//!
//! Each is a complete picture or a fact that is repeated, so one that is lost costs a turn and nothing else.
//! What an actor sends itself stands in its own file. A notice (box 1) comes through the Kubernetes API, as
//! an InterruptionNotice.

use actix::Message;
use jiff::Timestamp;
use spot_guard_core::adoption::Adoption;
use spot_guard_core::drain::NodeInstance;
use spot_guard_core::group::PoolView;
use spot_guard_core::health::PoolAssessment;
use spot_guard_core::ids::{InstanceId, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::reason::Finding;
use spot_guard_core::replacement::{DrainCommand, DrainPurpose, DrainReport};
use spot_guard_core::scaling::instances::InstanceFacts;
use spot_guard_core::scaling::wants::{End, Want, Wants};
use spot_guard_core::shortfall::Shortfall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which picture of a pool's wants was known. A later picture has a higher one, and so has a later life of
/// who sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    life: u64,
    number: u64,
}

impl Revision {
    /// The revision that follows, sent by this life of the FallbackTracker.
    #[must_use]
    pub fn next_of(self, life: u64) -> Self {
        Self { life, number: self.number + 1 }
    }
}

/// Box 1: QueuePoller → HealthMonitor.
///
/// The notice queue was read just now: no node needs an agent.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct QueueRead;

/// Part of box 3: QueuePoller → AsgScaler.
///
/// EC2 has terminated or stopped an instance, or does so now. Its group sees it later.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct InstanceEnded {
    /// The instance, of any group.
    pub instance_id: InstanceId,
}

/// Boxes 2, 3.2, 5, 10: FallbackTracker → AsgScaler.
///
/// Everything that the replacements of a pool want of its groups. It replaces the picture that was sent
/// before.
#[derive(Message, Clone, Debug, Default, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct ScaleGroups {
    /// The pool.
    pub pool: PoolName,
    /// Which picture this is.
    pub revision: Revision,
    /// Wants by group and replacement.
    pub wants: Wants,
    /// Instances to terminate.
    pub ends: BTreeSet<End>,
    /// What the replacements and the cluster know about instances.
    pub instances: InstanceFacts,
    /// Since when failed launches of a Spot group matter that nothing is requested of.
    pub spot_failures_since: Option<Timestamp>,
}

impl ScaleGroups {
    /// Whether a replacement waits for something of the groups.
    #[must_use]
    pub fn wants_something(&self) -> bool {
        !self.wants.is_empty() || !self.ends.is_empty() || self.spot_failures_since.is_some()
    }

    /// Whether an instance is wanted before a deadline.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let has_deadline = |want: &Want| matches!(want, Want::Instance { deadline: Some(_), .. });
        self.wants.values().any(has_deadline)
    }
}

/// Boxes 3, 3.1, 6: AsgScaler → FallbackTracker, HealthMonitor.
///
/// The groups and the ledger of a pool, as they were just read and written.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct PoolObserved {
    /// The pool.
    pub pool: PoolName,
    /// Its groups.
    pub view: Arc<PoolView>,
    /// Its ledger.
    pub ledger: Arc<Ledger>,
    /// Which [`ScaleGroups`] was known when the ledger was written.
    pub revision: Revision,
    /// Spare instances that are terminated once their nodes are cordoned.
    pub cordon: Arc<BTreeSet<InstanceId>>,
}

/// Box 3: AsgScaler → FallbackTracker, HealthMonitor.
///
/// The groups of a pool cannot be used.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct PoolRefused {
    /// The pool.
    pub pool: PoolName,
    /// What is wrong.
    pub finding: Finding,
}

/// Boxes 4, 5, 10: FallbackTracker → Drainer.
///
/// All drains that must be under way. The list replaces the one that was sent before; the taint and cordon of
/// any other node come off.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct DrainNodes {
    /// One per node.
    pub drains: Vec<DrainCommand>,
    /// Spare instances whose nodes are to take no pods: they are about to be terminated.
    pub cordoned: BTreeSet<InstanceId>,
    /// Instances whose nodes cluster-autoscaler is not to scale down meanwhile.
    pub protected: BTreeSet<InstanceId>,
}

/// Boxes 5, 10: Drainer → FallbackTracker.
///
/// How far all drains are.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct DrainsReported {
    /// By replacement and purpose.
    pub reports: BTreeMap<(ReplacementName, DrainPurpose), DrainReport>,
    /// When the API server listed each cordoned node as empty, of those that it did.
    pub found_empty: BTreeMap<NodeInstance, Timestamp>,
}

/// Boxes 7, 8, 9: HealthMonitor → FallbackTracker.
///
/// What was found about a pool.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct PoolAssessed {
    /// The pool.
    pub pool: PoolName,
    /// Healthy, stable, and each fallback's return.
    pub assessment: PoolAssessment,
    /// What stands in for Spot capacity that is missing without a notice.
    pub shortfall: Shortfall,
    /// What becomes of on-demand above the baseline.
    pub adoption: Adoption,
}
