//! What was found about the return of a fallback.

use super::Reason;
use crate::ids::{InstanceId, NodeName};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the HealthMonitor last found about the return of a fallback: boxes 6 to 9, each with what stands in
/// its way; empty means passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReturnAssessment {
    /// The instance that goes back, whose return was assessed.
    pub of: Option<InstanceId>,
    /// The Spot instance that was to take over.
    pub successor: Option<InstanceId>,
    /// The pods that were to move, by their UID.
    pub pods: BTreeSet<Arc<str>>,
    /// The nodes that were drained beside, whose pods need room, too.
    pub drained: BTreeSet<NodeName>,
    /// Box 6: the limits that let no return begin.
    pub held: Vec<Reason>,
    /// Box 7.
    pub unhealthy: Vec<Reason>,
    /// Box 8.
    pub unstable: Vec<Reason>,
    /// Box 9.
    pub unsafe_: Vec<Reason>,
    /// Before Spot is asked: why the node could not be given back with its instance, either.
    pub unsafe_with_spot: Vec<Reason>,
}

impl ReturnAssessment {
    /// Whether it may be about the return of this instance.
    #[must_use]
    pub fn is_of(&self, instance_id: &InstanceId) -> bool {
        self.of.as_ref().is_none_or(|of| of == instance_id)
    }
}
