//! What a drain has asked for its pods so far.

use super::moment::Moment;
use crate::cluster::DisruptionBudget;
use crate::reason::EvictionAnswer;
use jiff::Timestamp;
use std::time::Duration;

/// What was requested for a pod, and the answer.
#[derive(Debug, Default)]
pub(super) struct PodRequest {
    pub(super) in_flight: bool,
    pub(super) attempts: u32,
    /// Whether a deletion was tried, after evictions.
    pub(super) deleted: bool,
    pub(super) not_before: Option<Duration>,
    /// Until when the watch has time to show that the pod ends.
    pub(super) granted_until: Option<Duration>,
    /// The budget as it was seen when the eviction was requested: once it is another, waiting has no point.
    pub(super) budget: Option<DisruptionBudget>,
    /// The last answer, if it was no.
    pub(super) refusal: Option<EvictionAnswer>,
}

impl PodRequest {
    pub(super) fn is_under_way(&self, now: Moment) -> bool {
        self.in_flight || self.granted_until.is_some_and(|until| now.up < until)
    }
}

/// How often the pods of a controller came back to the node.
#[derive(Debug, Default)]
pub(super) struct Returns {
    pub(super) times: u32,
    /// When one was evicted last, in seconds of the Unix epoch.
    evicted_at: i64,
}

impl Returns {
    /// Counts the eviction of a pod that came after the drain began. Those that came together came back once;
    /// a pod's creation is told in whole seconds.
    pub(super) fn count(&mut self, created: Option<Timestamp>, now: Timestamp) {
        if self.times == 0 || created.is_some_and(|created| created.as_second() >= self.evicted_at) {
            self.times += 1;
            self.evicted_at = now.as_second();
        }
    }
}
