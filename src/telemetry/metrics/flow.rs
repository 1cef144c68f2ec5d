//! What became of notices and replacements, by pool.

use super::labels::{BoxLabels, CauseLabels, FinishLabels, NoticeLabels, PoolLabels, Word};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, Phase, ReplacementStatus, StepRecord};
use spot_guard_core::time::since;

/// Seconds; an interruption notice leaves two minutes.
const REQUEST_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Seconds; to an instance whose node is Ready, and to a drained node.
const PROGRESS_BUCKETS: [f64; 11] = [5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0];

/// A histogram for each pool.
type ByPool = Family<PoolLabels, Histogram, fn() -> Histogram>;

/// What became of notices and replacements. A node in no accepted pool has the pool "".
#[derive(Debug)]
pub(super) struct FlowCounts {
    notices: Family<NoticeLabels, Counter>,
    started: Family<CauseLabels, Counter>,
    finished: Family<FinishLabels, Counter>,
    fallbacks: Family<PoolLabels, Counter>,
    returns: Family<PoolLabels, Counter>,
    drains_incomplete: Family<PoolLabels, Counter>,
    box_transitions: Family<BoxLabels, Counter>,
    notice_to_request: ByPool,
    notice_to_ready: ByPool,
    notice_to_drained: ByPool,
}

impl Default for FlowCounts {
    fn default() -> Self {
        let progress: fn() -> Histogram = || Histogram::new(PROGRESS_BUCKETS);
        Self {
            notices: Family::default(),
            started: Family::default(),
            finished: Family::default(),
            fallbacks: Family::default(),
            returns: Family::default(),
            drains_incomplete: Family::default(),
            box_transitions: Family::default(),
            notice_to_request: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            notice_to_ready: Family::new_with_constructor(progress),
            notice_to_drained: Family::new_with_constructor(progress),
        }
    }
}

impl FlowCounts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "notices_accepted",
            "Notices that began or escalated a replacement, by kind",
            self.notices.clone(),
        );
        registry.register(
            "replacements_started",
            "Replacements begun, by the kind of their first notice",
            self.started.clone(),
        );
        registry.register(
            "replacements_finished",
            "Replacements that are over, by the kind of their last notice and their last phase",
            self.finished.clone(),
        );
        for (name, help, metric) in [
            ("fallbacks", "Replacements whose capacity came from on-demand (box 3.2)", &self.fallbacks),
            (
                "returns",
                "Fallbacks that went back to Spot: the on-demand group shrank (box 10)",
                &self.returns,
            ),
            (
                "drains_incomplete",
                "Drains of old nodes that ended before all pods ran elsewhere (box 5)",
                &self.drains_incomplete,
            ),
        ] {
            registry.register(name, help, metric.clone());
        }
        registry.register(
            "box_transitions",
            "Steps of the flow, by box and outcome",
            self.box_transitions.clone(),
        );
        for (name, help, metric) in [
            (
                "notice_to_request",
                "From the stored notice to the first written request for capacity",
                &self.notice_to_request,
            ),
            (
                "notice_to_ready",
                "From the stored notice to an instance in service whose node is Ready",
                &self.notice_to_ready,
            ),
            (
                "notice_to_drained",
                "From the stored notice to the old node whose pods run elsewhere",
                &self.notice_to_drained,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
    }

    /// Lets the series of a pool begin at zero: a counter that appears with its first event hides that
    /// event from rate().
    pub(super) fn begin(&self, pool: &str) {
        let pool = || pool.to_owned();
        for kind in NoticeKind::REPORTED.into_iter().chain([NoticeKind::Manual]) {
            let cause = Word(kind);
            drop(self.notices.get_or_create(&NoticeLabels { pool: pool(), kind: cause }));
            drop(self.started.get_or_create(&CauseLabels { pool: pool(), cause }));
            for phase in [Phase::Completed, Phase::Cancelled].map(Word) {
                drop(self.finished.get_or_create(&FinishLabels { pool: pool(), cause, phase }));
            }
        }
        for flow_box in [FlowBox::Wait, FlowBox::Fallback] {
            for outcome in [Outcome::LaunchRefused, Outcome::Misconfigured] {
                let labels = BoxLabels { pool: pool(), r#box: Word(flow_box), outcome: Word(outcome) };
                drop(self.box_transitions.get_or_create(&labels));
            }
        }
        let labels = PoolLabels { pool: pool() };
        for counts in [&self.fallbacks, &self.returns, &self.drains_incomplete] {
            drop(counts.get_or_create(&labels));
        }
        for times in [&self.notice_to_request, &self.notice_to_ready, &self.notice_to_drained] {
            drop(times.get_or_create(&labels));
        }
    }

    /// Counts what a stored change of a record means.
    pub(super) fn stored(&self, pool: &str, before: Option<&ReplacementStatus>, after: &ReplacementStatus) {
        let labels = PoolLabels { pool: pool.to_owned() };
        let steps_before = before.map_or(&[][..], |before| &before.steps);
        for step in after.steps.iter().rev().take_while(|step| !steps_before.contains(step)) {
            self.step(&labels, step, after);
        }
        self.notice(&labels, before, after);
        if after.fallback.is_open() && !before.is_some_and(|before| before.fallback.is_open()) {
            self.fallbacks.get_or_create(&labels).inc();
        }
        let Some(started) = after.started_at else { return };
        if before.is_none_or(|before| !before.capacity.is_requested())
            && let Some(asked) = after.capacity.spot_requested_at()
        {
            self.notice_to_request.get_or_create(&labels).observe(since(started, asked).as_secs_f64());
        }
        if before.is_none_or(|before| before.capacity.taken().is_none())
            && let Some(taken) = after.capacity.taken()
        {
            let took = since(started, taken.ready_at);
            self.notice_to_ready.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    fn step(&self, labels: &PoolLabels, step: &StepRecord, after: &ReplacementStatus) {
        let (flow_box, outcome) = (step.flow_box, step.outcome);
        let pool = labels.pool.clone();
        let counted = BoxLabels { pool, r#box: Word(flow_box), outcome: Word(outcome) };
        self.box_transitions.get_or_create(&counted).inc();
        match (flow_box, outcome) {
            (_, Outcome::ScaledDown) => {
                self.returns.get_or_create(labels).inc();
            }
            (FlowBox::Drain, Outcome::TimedOut | Outcome::TakenByAws) => {
                self.drains_incomplete.get_or_create(labels).inc();
            }
            (FlowBox::Drain, Outcome::Drained) => {
                if let Some(started) = after.started_at {
                    let took = since(started, step.at);
                    self.notice_to_drained.get_or_create(labels).observe(took.as_secs_f64());
                }
            }
            _ => {}
        }
    }

    fn notice(
        &self,
        PoolLabels { pool }: &PoolLabels,
        before: Option<&ReplacementStatus>,
        after: &ReplacementStatus,
    ) {
        let Some(kind) = after.notice else { return };
        let (pool, cause) = (|| pool.clone(), Word(kind));
        let is_over = after.phase().is_finished();
        let was_over = before.is_some_and(|before| before.phase().is_finished());
        let begins = before.is_none() || was_over && !is_over;
        if begins {
            self.started.get_or_create(&CauseLabels { pool: pool(), cause }).inc();
        }
        if begins || before.is_some_and(|before| before.notice != Some(kind)) {
            self.notices.get_or_create(&NoticeLabels { pool: pool(), kind: cause }).inc();
        }
        if is_over && !was_over {
            let phase = Word(after.phase());
            self.finished.get_or_create(&FinishLabels { pool: pool(), cause, phase }).inc();
        }
    }
}
