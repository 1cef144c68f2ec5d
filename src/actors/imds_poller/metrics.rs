//! What the agent counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use spot_guard_core::imds::ImdsProblem;
use spot_guard_core::record::NoticeKind;
use std::time::Duration;

/// Seconds; an interruption notice leaves two minutes.
const LATENCY_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0];

/// A read that gave something.
const FOUND: &str = "Found";
/// A read that found nothing, as is usual.
const NOT_FOUND: &str = "NotFound";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// The counters of one agent; clones share them.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    imds_requests: Family<ResultLabels, Counter>,
    notices_reported: Family<KindLabels, Counter>,
    names_taken: Family<KindLabels, Counter>,
    latency: Family<KindLabels, Histogram, fn() -> Histogram>,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        let metrics = Self {
            imds_requests: Family::default(),
            notices_reported: Family::default(),
            names_taken: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
        };
        // A counter that appears with its first event hides that event from rate(). An agent that never
        // reads anything is one that an alert is about.
        for result in [FOUND, NOT_FOUND] {
            drop(metrics.imds_requests.get_or_create(&ResultLabels { result }));
        }
        for kind in NoticeKind::REPORTED {
            drop(metrics.of_kind(kind));
            drop(metrics.names_taken.get_or_create(&KindLabels { kind: kind.to_string() }));
            drop(metrics.latency.get_or_create(&KindLabels { kind: kind.to_string() }));
        }
        metrics
    }
}

impl AgentMetrics {
    /// Registers `spot_guard_imds_requests_total`, `spot_guard_notices_reported_total` and
    /// `spot_guard_notice_conflicts_total`; the registry brings the prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "imds_requests",
            "Reads of the instance metadata service, by result",
            self.imds_requests.clone(),
        );
        registry.register(
            "notices_reported",
            "Notices that are stored, by kind (box 1)",
            self.notices_reported.clone(),
        );
        registry.register(
            "notice_conflicts",
            "Attempts to store a notice whose name was taken, by kind (box 1)",
            self.names_taken.clone(),
        );
        registry.register_with_unit(
            "agent_notice_latency",
            "From the word of EC2 to the notice that is stored, by the agent (box 1)",
            Unit::Seconds,
            self.latency.clone(),
        );
    }

    /// Counts a read of IMDS; `absent` if the answer was 404.
    pub(crate) fn imds_request<T>(&self, understood: &Result<T, ImdsProblem>, absent: bool) {
        let result = match understood {
            Err(problem) => problem.as_str(),
            Ok(_) if absent => NOT_FOUND,
            Ok(_) => FOUND,
        };
        self.imds_requests.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a notice that is stored.
    pub(super) fn notice_reported(&self, kind: NoticeKind) {
        self.of_kind(kind).inc();
    }

    /// Notes how long it took from the word of EC2 until the notice was stored.
    pub(super) fn stored_after(&self, kind: NoticeKind, time: Duration) {
        self.latency.get_or_create(&KindLabels { kind: kind.to_string() }).observe(time.as_secs_f64());
    }

    /// Counts an attempt that found the notice's name taken.
    pub(super) fn name_taken(&self, kind: NoticeKind) {
        self.names_taken.get_or_create(&KindLabels { kind: kind.to_string() }).inc();
    }

    /// How many attempts found the notice's name taken.
    #[cfg(test)]
    pub(super) fn names_taken(&self, kind: NoticeKind) -> u64 {
        self.names_taken.get_or_create(&KindLabels { kind: kind.to_string() }).get()
    }

    /// How many reads of IMDS ended like that.
    #[cfg(test)]
    pub(super) fn imds_requests(&self, result: &'static str) -> u64 {
        self.imds_requests.get_or_create(&ResultLabels { result }).get()
    }

    /// How many notices of that kind are stored.
    #[must_use]
    pub fn notices_reported(&self, kind: NoticeKind) -> u64 {
        self.of_kind(kind).get()
    }

    fn of_kind(&self, kind: NoticeKind) -> impl std::ops::Deref<Target = Counter> + '_ {
        self.notices_reported.get_or_create(&KindLabels { kind: kind.to_string() })
    }
}
