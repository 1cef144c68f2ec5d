//! What became of the messages of the notice queue.

use super::labels::{KindLabels, MessageLabels, Word};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use spot_guard_core::queue::{MessageKind, MessageResult};
use spot_guard_core::record::NoticeKind;
use std::time::Duration;

/// Seconds; an interruption notice leaves two minutes.
const LATENCY_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The counters of the notice queue.
#[derive(Debug)]
pub struct QueueCounts {
    messages: Family<MessageLabels, Counter>,
    age: Histogram,
    latency: Family<KindLabels, Histogram, fn() -> Histogram>,
}

impl Default for QueueCounts {
    fn default() -> Self {
        let latency: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        let (messages, age) = (Family::default(), Histogram::new(LATENCY_BUCKETS));
        Self { messages, age, latency: Family::new_with_constructor(latency) }
    }
}

impl QueueCounts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_messages",
            "Messages of the notice queue, by kind and by what became of them",
            self.messages.clone(),
        );
        registry.register_with_unit(
            "queue_message_age",
            "How old messages of the notice queue were when they were received",
            Unit::Seconds,
            self.age.clone(),
        );
        registry.register_with_unit(
            "queue_notice_latency",
            "From the event of EC2 to the notice that is stored, by the notice queue (box 1)",
            Unit::Seconds,
            self.latency.clone(),
        );
    }

    /// Lets series begin at zero.
    pub(super) fn begin(&self) {
        for kind in MessageKind::ALL.map(Word) {
            for result in MessageResult::ALL.map(Word) {
                drop(self.messages.get_or_create(&MessageLabels { kind, result }));
            }
        }
        for kind in NoticeKind::REPORTED.map(Word) {
            drop(self.latency.get_or_create(&KindLabels { kind }));
        }
    }

    /// Counts a message and what became of it.
    pub fn message(&self, kind: MessageKind, result: MessageResult) {
        self.messages.get_or_create(&MessageLabels { kind: Word(kind), result: Word(result) }).inc();
    }

    /// How many messages of a kind had that result.
    #[must_use]
    pub fn messages(&self, kind: MessageKind, result: MessageResult) -> u64 {
        self.messages.get_or_create(&MessageLabels { kind: Word(kind), result: Word(result) }).get()
    }

    /// Notes how old a message was when it was received.
    pub fn received(&self, age: Duration) {
        self.age.observe(age.as_secs_f64());
    }

    /// Notes how long it took from the event until the notice was stored.
    pub fn stored(&self, kind: NoticeKind, after: Duration) {
        self.latency.get_or_create(&KindLabels { kind: Word(kind) }).observe(after.as_secs_f64());
    }
}
