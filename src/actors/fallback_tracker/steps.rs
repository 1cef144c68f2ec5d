//! What is told of the steps that were stored: log lines, spans, events and notifications.

use super::FallbackTracker;
use crate::crd::NodeReplacement;
use crate::telemetry::events::{self, EventIdentity, Told};
use crate::telemetry::notifications::Notification;
use crate::telemetry::tracing::box_span;
use kube::{Resource, ResourceExt};
use spot_guard_core::record::StepRecord;
use spot_guard_core::time::since;
use std::time::Duration;

/// A new leader tells the steps of this time once more: longer than any change of leadership takes.
const TOLD_AGAIN: Duration = Duration::from_mins(10);

impl FallbackTracker {
    /// One log line, one span and one event for each step that was stored, and a notification for some.
    pub(super) fn log_steps(&self, before: Option<&NodeReplacement>, after: &NodeReplacement) {
        let Some(status) = &after.status else { return };
        let known = before.and_then(|record| record.status.as_ref()).map_or(&[][..], |status| &status.steps);
        for step in status.steps.iter().filter(|step| !known.contains(step)) {
            let span = box_span(
                step.flow_box,
                &after.replacement_name(),
                &step.node,
                after.spec.pool.as_ref(),
                status.traceparent.as_deref(),
            );
            span.in_scope(|| tracing::info!(outcome = ?step.outcome, "{}", step.message));
            self.tell_step(after, step);
            if let Some(told) = Notification::of(&after.replacement_name(), after.spec.pool.as_ref(), step) {
                self.deps.notifications.tell(&told);
            }
        }
        let before = before.and_then(|record| record.status.as_ref());
        self.deps.metrics.record_stored(after.spec.pool.as_ref(), before, status);
    }

    /// The leader before this one may have been killed after it stored a step and before its event was out.
    pub(super) fn tell_recent_steps(&self, record: &NodeReplacement) {
        let now = self.deps.clock.now();
        let steps = record.status.iter().flat_map(|status| &status.steps);
        for step in steps.filter(|step| since(step.at, now) < TOLD_AGAIN) {
            self.tell_step(record, step);
        }
    }

    /// An event on the step's node, or on the pool if it has none. It has one name, whoever tells it and
    /// however often.
    fn tell_step(&self, record: &NodeReplacement, step: &StepRecord) {
        let told = Told {
            warning: step.outcome.is_warning(),
            reason: &format!("{:?}", step.outcome),
            action: format!("Box{}", step.flow_box.number()),
            note: &step.message,
            secondary: Some(record.object_ref(&())),
        };
        let identity = EventIdentity { name: event_name(record, step), at: step.at };
        let about = match record.spec.pool.as_ref().filter(|_| step.node.is_empty()) {
            Some(pool) => events::pool(pool),
            None => events::node(&step.node),
        };
        self.deps.events.tell_once(about, told, identity);
    }
}

/// The name of a step's event: of no other step, of this record or of one that had its name before.
fn event_name(record: &NodeReplacement, step: &StepRecord) -> String {
    let uid = record.uid().unwrap_or_else(|| record.name_any());
    let at = step.at.as_microsecond();
    let what = format!("{:?}{}", step.outcome, step.flow_box.number()).to_lowercase();
    format!("spot-guard.{uid}.{at:x}.{what}")
}
