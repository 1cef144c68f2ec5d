//! What is told of the steps that were stored: log lines, spans, events and notifications.

use super::FallbackTracker;
use crate::crd::{NodeReplacement, dated_notice_name};
use crate::telemetry::events::{self, EventIdentity, Told};
use crate::telemetry::notifications::Notification;
use crate::telemetry::replacement_trace::{Part, trace_id};
use crate::telemetry::trace_export;
use crate::telemetry::tracing::step_span;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use spot_guard_core::ids::PoolName;
use spot_guard_core::record::{ReplacementStatus, StepRecord};
use spot_guard_core::time::since;
use std::time::Duration;

/// A new leader tells the steps of this time once more: longer than any change of leadership takes.
const TOLD_AGAIN: Duration = Duration::from_mins(10);
/// Spans are sent within this time, so what was not sent when a leader was killed is as close to the last
/// step of its record. Nobody may have led for longer.
const UNSENT: Duration = Duration::from_mins(1);
/// A replacement that ended longer ago has all its spans.
const ENDED_LATELY: Duration = Duration::from_mins(60);

impl FallbackTracker {
    /// One log line, one span and one event for each step that was stored, and a notification for some.
    pub(super) fn log_steps(&self, before: Option<&NodeReplacement>, after: &NodeReplacement) {
        let Some(status) = &after.status else { return };
        let before = before.and_then(|record| record.status.as_ref());
        let known = before.map_or(&[][..], |status| &status.steps);
        for step in status.steps.iter().filter(|step| !known.contains(step)) {
            let span = step_span(
                step.flow_box,
                &after.replacement_name(),
                &step.node,
                after.spec.pool.as_ref(),
                trace_id(after),
            );
            span.in_scope(|| tracing::info!(outcome = ?step.outcome, "{}", step.message));
            self.tell_step(after, step);
            if let Some(told) = Notification::of(&after.replacement_name(), after.spec.pool.as_ref(), step) {
                self.deps.notifications.tell(&told);
            }
        }
        trace_export::tell(after, Part::After(before));
        self.deps.metrics.record_stored(after.spec.pool.as_ref(), before, status);
        if before.is_none_or(|before| before.started_at != status.started_at) {
            self.measure_wait(after, status);
        }
    }

    /// How long the notice waited by which the replacement begins, if an agent or the queue stored one.
    fn measure_wait(&self, record: &NodeReplacement, status: &ReplacementStatus) {
        let (Some(kind), Some(begun)) = (status.notice, status.started_at) else { return };
        let (node, instance) = (&record.spec.node_name, &record.spec.instance_id);
        let name = dated_notice_name(node, instance, kind, status.deadline);
        let notice = self.deps.view.notices.get(&ObjectRef::new(&name));
        if let Some(created) = notice.and_then(|notice| notice.creation_timestamp()) {
            self.deps.metrics.notice_waited(record.spec.pool.as_ref(), since(created.0, begun));
        }
    }

    /// The leader before this one may have been killed after it stored a step and before its event and its
    /// span were out.
    pub(super) fn tell_recent_steps(&self, record: &NodeReplacement) {
        let now = self.deps.clock.now();
        let last = record.status.as_ref().and_then(|status| status.steps.last());
        if let Some(last) = last.filter(|last| record.is_open() || since(last.at, now) < ENDED_LATELY) {
            let since_then = last.at.checked_sub(UNSENT).unwrap_or(Timestamp::MIN);
            trace_export::tell(record, Part::Since(since_then));
        }
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
            reason: step.outcome.as_str(),
            action: format!("Box{}", step.flow_box.number()),
            note: &step.message,
            secondary: Some(record.object_ref(&())),
        };
        let identity = EventIdentity { name: event_name(record, step), at: step.at };
        let about = match record.spec.pool.as_ref().filter(|_| step.node.is_empty()) {
            Some(pool) => self.pool_reference(pool),
            None => events::node(&step.node),
        };
        self.deps.events.tell_once(about, told, identity);
    }

    /// A pool, as what an event is about. `kubectl describe` looks for the UID, which the stored pool has.
    fn pool_reference(&self, pool: &PoolName) -> ObjectReference {
        let stored = self.deps.view.pools.find(|held| held.metadata.name.as_deref() == Some(&**pool));
        stored.map_or_else(|| events::pool(pool), |held| held.object_ref(&()))
    }
}

/// The name of a step's event: of no other step, of this record or of one that had its name before.
fn event_name(record: &NodeReplacement, step: &StepRecord) -> String {
    let uid = record.uid().unwrap_or_else(|| record.name_any());
    let at = step.at.as_microsecond();
    let what = format!("{}{}", step.outcome.as_str(), step.flow_box.number()).to_lowercase();
    format!("spot-guard.{uid}.{at:x}.{what}")
}
