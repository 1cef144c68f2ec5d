//! The trace of a replacement: its spans are made from the stored record, not while it happens.
//!
//! So a trace lasts for hours, over processes, leaders and restarts. Each id is a hash of what is stored: a
//! span that a new leader tells once more is the same span. The span of a box begins with the step before and
//! ends with its own, so it is whole when the step is stored. That of the whole replacement is told when the
//! record is finished.

#[cfg(test)]
mod tests;

use crate::crd::NodeReplacement;
use crate::telemetry::trace_context::context_of;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use kube::ResourceExt;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use spot_guard_core::record::{BlockingReason, FlowBox, Outcome, ReplacementStatus, StepRecord};
use std::borrow::Cow;
use std::time::SystemTime;

/// Which part of a record is told.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// What was stored since the record was like this; all of it if there was none.
    After(Option<&'a ReplacementStatus>),
    /// What happened since then: it may have been told before.
    Since(Timestamp),
}

impl<'a> Part<'a> {
    fn has_step(self, step: &StepRecord) -> bool {
        match self {
            Self::After(before) => before.is_none_or(|status| !status.steps.contains(step)),
            Self::Since(then) => step.at > then,
        }
    }

    fn has_end(self, end: Timestamp) -> bool {
        match self {
            Self::After(before) => before.is_none_or(|status| status.finished_at != Some(end)),
            Self::Since(then) => end > then,
        }
    }

    /// What held the replacement up until now.
    fn blocking(self) -> &'a [BlockingReason] {
        match self {
            Self::After(Some(before)) => &before.blocking,
            Self::After(None) | Self::Since(_) => &[],
        }
    }
}

/// Which replacements are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// None.
    Off,
    /// This share of them, and all with a fallback or a failure.
    Ratio(f64),
}

impl Sampling {
    /// What the standard variables say.
    #[must_use]
    pub fn of(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let ratio = || lookup("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.trim().parse().ok());
        match lookup("OTEL_TRACES_SAMPLER").as_deref() {
            Some("always_off" | "parentbased_always_off") => Self::Off,
            Some("traceidratio" | "parentbased_traceidratio") => Self::Ratio(ratio().unwrap_or(1.0)),
            _ => Self::Ratio(1.0),
        }
    }

    /// Whether a trace is one of the share. The SDK of the agents computes it the same way
    /// (`Sampler::TraceIdRatioBased`), so they agree.
    fn keeps(self, trace_id: TraceId) -> bool {
        match self {
            Self::Off => false,
            Self::Ratio(ratio) if ratio >= 1.0 => true,
            Self::Ratio(ratio) => {
                let bound = (ratio.max(0.0) * (1_u64 << 63) as f64) as u64;
                let low = u128::from_be_bytes(trace_id.to_bytes()) as u64;
                low >> 1 < bound
            }
        }
    }
}

/// Whether the replacement is told for this step, whatever the share is.
fn matters(step: &StepRecord) -> bool {
    step.flow_box == FlowBox::Fallback || step.outcome.is_warning()
}

/// The trace id of a replacement: that of its notice or of the request for it, else one of its own.
#[must_use]
pub fn trace_id(record: &NodeReplacement) -> TraceId {
    let begun_elsewhere = caller(record).map(|context| context.trace_id());
    begun_elsewhere.unwrap_or_else(|| TraceId::from_bytes(id_of(record, "trace")))
}

/// The context of the span of the whole replacement.
#[must_use]
pub fn root(record: &NodeReplacement) -> SpanContext {
    context(trace_id(record), SpanId::from_bytes(id_of(record, "root")))
}

/// Where the trace began, if that was before the record.
fn caller(record: &NodeReplacement) -> Option<SpanContext> {
    context_of(record.status.as_ref()?.traceparent.as_deref()?)
}

fn context(trace_id: TraceId, span_id: SpanId) -> SpanContext {
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::default())
}

/// The same for the same record, whoever asks. A cancelled record that begins anew has another trace.
fn id_of<const N: usize>(record: &NodeReplacement, what: &str) -> [u8; N] {
    let uid = record.uid().unwrap_or_else(|| record.name_any());
    let began = record.status.as_ref().and_then(|status| status.started_at).map(Timestamp::as_microsecond);
    let hash = digest(&SHA256, format!("{uid}/{}/{what}", began.unwrap_or_default()).as_bytes());
    let mut id = [0; N];
    id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    id
}

/// The steps of the record. One that began anew keeps those of its former life, which had a trace of its own.
fn own_steps(status: &ReplacementStatus) -> impl Iterator<Item = &StepRecord> {
    status.steps.iter().filter(|step| status.started_at.is_none_or(|began| step.at >= began))
}

/// Whether a replacement is told, as its record stands now.
#[must_use]
pub fn is_kept(record: &NodeReplacement, sampling: Sampling) -> bool {
    let has_to_be = |status: &ReplacementStatus| own_steps(status).any(matters);
    let in_share = || sampling.keeps(trace_id(record));
    sampling != Sampling::Off && (in_share() || record.status.as_ref().is_some_and(has_to_be))
}

/// The spans of this part of a record, as [`Sampling`] decides it once for all of them. The earlier ones of
/// a replacement that was none of the share are told with its first fallback or failure.
#[must_use]
pub fn spans_of(record: &NodeReplacement, part: Part<'_>, sampling: Sampling) -> Vec<SpanData> {
    let Some(status) = record.status.as_ref().filter(|_| sampling != Sampling::Off) else {
        return Vec::new();
    };
    let root = root(record);
    let steps: Vec<&StepRecord> = own_steps(status).collect();
    let all = match steps.iter().find(|step| matters(step)) {
        _ if sampling.keeps(root.trace_id()) => false,
        Some(first) => part.has_step(first),
        None => return Vec::new(),
    };
    let told = |at: &usize| all || part.has_step(steps[*at]);
    let mut held_up = part.blocking();
    let story = Story { record, status, root: &root, steps: &steps };
    let mut spans: Vec<SpanData> = (0..steps.len())
        .filter(told)
        .map(|at| {
            // What held the replacement up did so until its next step.
            let is_next = part.has_step(steps[at]);
            story.of_step(at, if is_next { std::mem::take(&mut held_up) } else { &[] })
        })
        .collect();
    let end = status.finished_at.filter(|end| all || part.has_end(*end));
    spans.extend(end.map(|end| story.whole(end)));
    spans
}

/// What the spans of a replacement have in common.
struct Story<'a> {
    record: &'a NodeReplacement,
    status: &'a ReplacementStatus,
    root: &'a SpanContext,
    steps: &'a [&'a StepRecord],
}

impl Story<'_> {
    /// The span of a box: from the step before to this one.
    fn of_step(&self, at: usize, held_up: &[BlockingReason]) -> SpanData {
        let step = self.steps[at];
        let before = at.checked_sub(1).map_or(self.status.started_at, |before| Some(self.steps[before].at));
        let start = before.unwrap_or(step.at).min(step.at);
        let (flow_box, outcome) = (step.flow_box, step.outcome.as_str());
        let same = |earlier: &&&StepRecord| (earlier.flow_box, earlier.outcome) == (flow_box, step.outcome);
        let attempt = self.steps[..=at].iter().filter(same).count() as i64;
        let blocked = step.outcome == Outcome::Blocked;
        let reasons = if blocked { &self.status.blocking[..] } else { held_up };
        let reason = reasons.iter().find(|held| held.flow_box == flow_box);
        let mut attributes = self.attributes();
        attributes.extend([
            KeyValue::new("spot_guard.box", flow_box.number()),
            KeyValue::new("spot_guard.outcome", outcome),
            KeyValue::new("spot_guard.attempt", attempt),
            KeyValue::new("spot_guard.message", step.message.clone()),
        ]);
        attributes.extend(reason.map(|held| KeyValue::new("spot_guard.reason", held.reason.as_str())));
        attributes.extend(known("k8s.node.name", &step.node));
        attributes.extend(self.instance_of(step).and_then(|instance| known("host.id", instance)));
        let id = format!("{}/{outcome}/{}/{}", flow_box.number(), step.at.as_microsecond(), step.node);
        let retry = (attempt > 1 && !step.outcome.is_warning()).then(|| retry(start, attempt));
        let waits = held_up.iter().filter(|held| held.since <= step.at).map(|held| wait(held, start));
        SpanData {
            status: if step.outcome.is_warning() {
                Status::error(step.message.clone())
            } else {
                Status::Unset
            },
            events: events(retry.into_iter().chain(waits).collect()),
            ..self.span(&id, name_of(flow_box), (start, step.at), attributes)
        }
    }

    /// The span of the whole replacement, below that of its notice or of the request for it, if that was
    /// recorded.
    fn whole(&self, end: Timestamp) -> SpanData {
        let first = self.status.started_at.or(self.steps.first().map(|step| step.at)).unwrap_or(end);
        let mut attributes = self.attributes();
        attributes.extend([
            KeyValue::new("spot_guard.cause", format!("{:?}", self.record.cause())),
            KeyValue::new("spot_guard.outcome", format!("{:?}", self.status.phase())),
            KeyValue::new("spot_guard.retries", i64::from(self.status.attempt)),
        ]);
        let notice = self.status.notice.map(|kind| format!("{kind:?}"));
        attributes.extend(notice.map(|kind| KeyValue::new("spot_guard.notice", kind)));
        attributes.extend(known("k8s.node.name", self.record.old_node()));
        attributes.extend(known("host.id", self.record.old_instance()));
        let parent = caller(self.record).filter(SpanContext::is_sampled);
        SpanData {
            span_context: self.root.clone(),
            parent_span_id: parent.as_ref().map_or(SpanId::INVALID, SpanContext::span_id),
            parent_span_is_remote: parent.is_some(),
            ..self.span("root", "replacement", (first.min(end), end), attributes)
        }
    }

    /// A span below that of the whole replacement.
    fn span(
        &self,
        id: &str,
        name: &'static str,
        (start, end): (Timestamp, Timestamp),
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let span_id = SpanId::from_bytes(id_of(self.record, id));
        SpanData {
            span_context: context(self.root.trace_id(), span_id),
            parent_span_id: self.root.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(name),
            start_time: SystemTime::from(start),
            end_time: SystemTime::from(end),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME")).build(),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let name = KeyValue::new("spot_guard.replacement", self.record.name_any());
        let pool = self.record.spec.pool.as_deref().and_then(|pool| known("spot_guard.pool", pool));
        std::iter::once(name).chain(pool).collect()
    }

    /// The instance of the node that a step is about, if the record knows it.
    fn instance_of(&self, step: &StepRecord) -> Option<&str> {
        if step.node == *self.record.old_node() {
            return Some(self.record.old_instance());
        }
        let mut took_over = self.status.took_over();
        took_over.find(|capacity| capacity.node_name == step.node).map(|capacity| &*capacity.instance_id)
    }
}

fn known(key: &'static str, value: &str) -> Option<KeyValue> {
    (!value.is_empty()).then(|| KeyValue::new(key, Value::from(value.to_owned())))
}

/// A wait that was seen during a span which begins at `start`.
fn wait(held: &BlockingReason, start: Timestamp) -> Event {
    let attributes = vec![
        KeyValue::new("spot_guard.box", held.flow_box.number()),
        KeyValue::new("spot_guard.reason", held.reason.as_str()),
        KeyValue::new("spot_guard.message", held.message.clone()),
    ];
    Event::new("wait", SystemTime::from(held.since.max(start)), attributes, 0)
}

/// What was done before begins once more, with the span.
fn retry(start: Timestamp, attempt: i64) -> Event {
    Event::new("retry", SystemTime::from(start), vec![KeyValue::new("spot_guard.attempt", attempt)], 0)
}

fn events(list: Vec<Event>) -> SpanEvents {
    let mut events = SpanEvents::default();
    events.events = list;
    events
}

/// The name of the span of a box.
#[must_use]
pub fn name_of(flow_box: FlowBox) -> &'static str {
    match flow_box {
        FlowBox::Notice => "box 1 notice",
        FlowBox::ScaleUp => "box 2 scale up",
        FlowBox::Wait => "box 3 wait",
        FlowBox::Success => "box 3.1 success",
        FlowBox::Fallback => "box 3.2 fallback",
        FlowBox::Taint => "box 4 taint",
        FlowBox::Drain => "box 5 drain",
        FlowBox::Monitor => "box 6 monitor",
        FlowBox::Health => "box 7 health",
        FlowBox::Stability => "box 8 stability",
        FlowBox::Safety => "box 9 safety",
        FlowBox::ScaleDown => "box 10 scale down",
        FlowBox::CleanUp => "box 11 clean up",
    }
}
