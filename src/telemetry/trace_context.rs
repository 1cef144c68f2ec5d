//! W3C trace contexts as they are stored: the header `traceparent` (Trace Context, section 3.2).

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::HashMap;

/// The span that a trace context names, if it is a valid one.
#[must_use]
pub fn context_of(traceparent: &str) -> Option<SpanContext> {
    let parent = parent_of(traceparent).span().span_context().clone();
    parent.is_valid().then_some(parent)
}

/// The same, to join it.
#[must_use]
pub fn parent_of(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    // Extracted into an empty context: an invalid text must not fall back to the span that happens to be
    // open.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}
