//! The spans of calls that change something: each below the replacement that it is made for, with links to
//! the others.
//!
//! A call is not stored, unlike a step. So its span is made while it happens. That of a replacement which is
//! not traced is held until it is. Lines of the logs have the span too, with or without an exporter: it says
//! which replacement they are about.

use crate::crd::NodeReplacement;
use crate::telemetry::replacement_trace::root;
use crate::telemetry::trace_export::{hold_calls, is_traced};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use spot_guard_core::ids::InstanceId;
use spot_guard_core::record::ReplacementStatus;
use std::fmt;
use std::sync::Arc;
use tracing::{Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// How many replacements a span has links to: one call may be for hundreds.
const MAX_LINKS: usize = 32;

/// The span for a call about `target`, to make the call in; none if it is for no replacement.
#[must_use]
pub fn call_span(
    operation: &str,
    target: &str,
    records: impl FnOnce() -> Vec<Arc<NodeReplacement>>,
    is_for: impl Fn(&NodeReplacement) -> bool,
) -> Span {
    let mut records = records();
    records.retain(|record| is_for(record));
    // What tidies up after a replacement is its own as long as no other one needs it.
    if records.iter().any(|record| record.is_open()) {
        records.retain(|record| record.is_open());
    }
    if records.iter().any(|record| is_traced(record)) {
        records.retain(|record| is_traced(record));
    } else if let Some(first) = records.first() {
        hold_calls(first);
    }
    let Some(first) = records.first() else { return Span::none() };
    let name = first.replacement_name();
    span_below(operation, target, name.as_str(), records.iter().map(|record| root(record)))
}

/// Whether a record is about an instance: the old one, or one that came for it.
#[must_use]
pub fn is_about(record: &NodeReplacement, instance: &InstanceId) -> bool {
    let came = |status: &ReplacementStatus| {
        let took_over = status.took_over().any(|capacity| capacity.instance_id == *instance);
        took_over || status.discarded.contains(instance)
    };
    record.old_instance() == instance || record.status.as_ref().is_some_and(came)
}

fn span_below(
    operation: &str,
    target: &str,
    replacement: &str,
    replacements: impl IntoIterator<Item = SpanContext>,
) -> Span {
    let mut replacements = replacements.into_iter();
    let Some(first) = replacements.next() else { return Span::none() };
    let span = info_span!(
        target: "spot_guard::calls",
        parent: None,
        "call",
        replacement,
        trace_id = %first.trace_id(),
        otel.name = operation,
        otel.kind = "client",
        otel.status_description = field::Empty,
        spot_guard.target = target,
        spot_guard.result = field::Empty,
        aws.request_id = field::Empty,
        k8s.audit_id = field::Empty
    );
    // Without an exporter there is no layer to tell.
    let _ = span.set_parent(Context::new().with_remote_span_context(first));
    replacements.take(MAX_LINKS).for_each(|other| span.add_link(other));
    span
}

/// Writes what was answered into the span that the call is made in, if there is one.
pub fn answered(result: impl fmt::Debug, request_id: Option<&str>, failure: Option<&dyn fmt::Display>) {
    let span = Span::current();
    span.record("spot_guard.result", field::debug(result));
    span.record("aws.request_id", request_id);
    if let Some(failure) = failure {
        span.record("otel.status_description", field::display(failure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace_context::context_of;
    use crate::telemetry::tracing::tests::Collected;
    use opentelemetry::trace::{SpanKind, Status, TracerProvider};
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_call_is_below_the_first_replacement_with_links_to_the_others_and_has_its_answer() {
        let exporter = Collected::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let roots: Vec<SpanContext> = ["b7ad6b7169203331", "00f067aa0ba902b7"]
            .map(|id| context_of(&format!("00-0af7651916cd43dd8448eb211c80319c-{id}-01")).unwrap())
            .into();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let made = span_below("LaunchInstances", "web-spot", "i-1", roots.clone());
            made.in_scope(|| answered("Ok", Some("7b6f4a"), None));
            drop(made);
            span_below("evict pod", "default/db-0", "i-1", roots[..1].to_vec())
                .in_scope(|| answered("Failed", None, Some(&"no answer in time")));
            assert!(span_below("evict pod", "default/db-0", "i-1", []).is_none());
        });
        let spans = exporter.0.lock().unwrap();
        let value = |span: &SpanData, key: &str| {
            let held = span.attributes.iter().find(|held| held.key.as_str() == key);
            held.map(|held| held.value.to_string())
        };
        assert_eq!((&*spans[0].name, &spans[0].span_kind), ("LaunchInstances", &SpanKind::Client));
        assert_eq!(spans[0].span_context.trace_id(), roots[0].trace_id());
        assert_eq!(spans[0].parent_span_id, roots[0].span_id());
        let linked: Vec<_> = spans[0].links.iter().map(|link| link.span_context.span_id()).collect();
        assert_eq!(linked, [roots[1].span_id()]);
        assert_eq!(value(&spans[0], "aws.request_id").as_deref(), Some("7b6f4a"));
        assert_eq!(value(&spans[0], "spot_guard.target").as_deref(), Some("web-spot"));
        assert_eq!(value(&spans[0], "replacement").as_deref(), Some("i-1"));
        assert_eq!(value(&spans[0], "trace_id").as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(spans[0].status, Status::Unset);
        assert_eq!((&*spans[1].name, spans[1].links.len()), ("evict pod", 0));
        assert_eq!(spans[1].status, Status::error("no answer in time"));
    }
}
