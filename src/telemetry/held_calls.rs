//! The spans of calls for replacements that are not traced yet: a failure later on brings them back.

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Replacements whose calls are held at most. The one that has been held longest makes room.
const MAX_REPLACEMENTS: usize = 256;
/// Spans that are held of one at most: its first ones.
const MAX_SPANS: usize = 64;

/// What is held, by the span of the whole replacement that it is below.
#[derive(Debug, Default)]
pub(super) struct HeldCalls(Mutex<VecDeque<(SpanId, Vec<SpanData>)>>);

impl HeldCalls {
    /// From now on the calls of this replacement are held.
    pub(super) fn begin(&self, replacement: SpanId) {
        let mut held = self.lock();
        if held.iter().all(|(id, _)| *id != replacement) {
            if held.len() >= MAX_REPLACEMENTS {
                held.pop_front();
            }
            held.push_back((replacement, Vec::new()));
        }
    }

    /// Holds the span if it is to be held, and gives it back if not.
    pub(super) fn hold(&self, span: SpanData) -> Option<SpanData> {
        let mut held = self.lock();
        let Some((_, spans)) = held.iter_mut().find(|(id, _)| *id == span.parent_span_id) else {
            return Some(span);
        };
        if spans.len() < MAX_SPANS {
            spans.push(span);
        }
        None
    }

    /// What is held of a replacement that is traced from now on.
    pub(super) fn release(&self, replacement: SpanId) -> Vec<SpanData> {
        let mut held = self.lock();
        let at = held.iter().position(|(id, _)| *id == replacement);
        at.and_then(|at| held.remove(at)).map(|(_, spans)| spans).unwrap_or_default()
    }

    /// Forgets the spans of a replacement that is over. It stays held: a call under way ends later.
    pub(super) fn forget(&self, replacement: SpanId) {
        let mut held = self.lock();
        held.iter_mut().filter(|(id, _)| *id == replacement).for_each(|(_, spans)| *spans = Vec::new());
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(SpanId, Vec<SpanData>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanKind, Status};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use std::time::SystemTime;

    fn call(replacement: SpanId) -> SpanData {
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: replacement,
            parent_span_is_remote: true,
            span_kind: SpanKind::Client,
            name: "evict pod".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    fn id(number: usize) -> SpanId {
        SpanId::from(number as u64)
    }

    #[test]
    fn calls_are_held_until_their_replacement_is_traced_or_over() {
        let held = HeldCalls::default();
        assert!(held.hold(call(id(1))).is_some(), "a traced one");
        held.begin(id(1));
        held.begin(id(2));
        held.begin(id(1));
        assert!(held.hold(call(id(1))).is_none());
        assert!(held.hold(call(id(2))).is_none());
        assert!(held.hold(call(id(3))).is_some());
        assert_eq!(held.release(id(1)), [call(id(1))]);
        assert!(held.hold(call(id(1))).is_some(), "it is traced now");
        held.forget(id(2));
        assert!(held.hold(call(id(2))).is_none(), "a call that ends after its replacement");
        assert_eq!(held.release(id(2)).len(), 1);
        assert_eq!(held.release(id(2)), []);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let held = HeldCalls::default();
        for number in 1..=MAX_REPLACEMENTS + 1 {
            held.begin(id(number));
        }
        assert!(held.hold(call(id(1))).is_some(), "the longest held one made room");
        for _ in 0..=MAX_SPANS {
            assert!(held.hold(call(id(2))).is_none());
        }
        assert_eq!(held.release(id(2)).len(), MAX_SPANS);
    }
}
