//! What became of notices and replacements, by pool.

use super::ending::{CutShort, Ending};
use super::labels::{
    BoxLabels, CauseLabels, CutLabels, EvictionLabels, EvictionResult, FinishLabels, NoticeLabels,
    PassLabels, PoolLabels, Word,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, ReplacementStatus, StepRecord};
use spot_guard_core::time::since;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Seconds; an interruption notice leaves two minutes.
const REQUEST_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Seconds; to an instance whose node is Ready, and to a drained node.
const PROGRESS_BUCKETS: [f64; 11] = [5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0];
/// Seconds; boxes 6 to 9 may take days.
const BOX_BUCKETS: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0];

/// Which series of pools there are.
#[derive(Debug, Default)]
struct Known {
    /// The pools of which something was written.
    pools: BTreeSet<String>,
    /// The steps that were counted for each pool.
    steps: BTreeMap<String, BTreeSet<(FlowBox, Outcome)>>,
}

/// What becomes of a series.
#[derive(Clone, Copy)]
enum Turn {
    Begins,
    Ends,
}

impl Turn {
    fn of<S, M, C>(self, family: &Family<S, M, C>, labels: &S)
    where
        S: Clone + Eq + Hash,
        C: MetricConstructor<M>,
    {
        match self {
            Self::Begins => drop(family.get_or_create(labels)),
            Self::Ends => {
                family.remove(labels);
            }
        }
    }
}

/// A histogram for each pool.
type ByPool = Family<PoolLabels, Histogram, fn() -> Histogram>;

/// What became of notices and replacements. A node in no accepted pool has the pool "".
#[derive(Debug)]
pub(super) struct FlowCounts {
    known: Mutex<Known>,
    notices: Family<NoticeLabels, Counter>,
    started: Family<CauseLabels, Counter>,
    finished: Family<FinishLabels, Counter>,
    fallbacks: Family<PoolLabels, Counter>,
    returns: Family<PoolLabels, Counter>,
    drains_incomplete: Family<CutLabels, Counter>,
    evictions: Family<EvictionLabels, Counter>,
    box_transitions: Family<BoxLabels, Counter>,
    box_times: Family<PassLabels, Histogram, fn() -> Histogram>,
    notice_to_record: ByPool,
    notice_to_request: ByPool,
    notice_to_ready: ByPool,
    notice_to_drained: ByPool,
}

impl Default for FlowCounts {
    fn default() -> Self {
        let request: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let progress: fn() -> Histogram = || Histogram::new(PROGRESS_BUCKETS);
        Self {
            known: Mutex::default(),
            notices: Family::default(),
            started: Family::default(),
            finished: Family::default(),
            fallbacks: Family::default(),
            returns: Family::default(),
            drains_incomplete: Family::default(),
            evictions: Family::default(),
            box_transitions: Family::default(),
            box_times: Family::new_with_constructor(|| Histogram::new(BOX_BUCKETS)),
            notice_to_record: Family::new_with_constructor(request),
            notice_to_request: Family::new_with_constructor(request),
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
            "Replacements that are over, by their last notice, last phase and what they came to",
            self.finished.clone(),
        );
        registry.register(
            "fallbacks",
            "Replacements whose capacity came from on-demand (box 3.2)",
            self.fallbacks.clone(),
        );
        registry.register(
            "returns",
            "Fallbacks that went back to Spot: the on-demand group shrank (box 10)",
            self.returns.clone(),
        );
        registry.register(
            "drains_incomplete",
            "Drains of old nodes that ended before all pods ran elsewhere (box 5)",
            self.drains_incomplete.clone(),
        );
        registry.register("evictions", "Evictions requested, by the answer", self.evictions.clone());
        registry.register(
            "box_transitions",
            "Steps of the flow, by box and outcome",
            self.box_transitions.clone(),
        );
        self.register_times(registry);
    }

    fn register_times(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "box",
            "From the step before to a step of the flow, by the box of the later one",
            Unit::Seconds,
            self.box_times.clone(),
        );
        for (name, help, metric) in [
            (
                "notice_to_record",
                "From the creation of a notice, in whole seconds, to the beginning of its replacement",
                &self.notice_to_record,
            ),
            (
                "notice_to_request",
                "From the beginning of a replacement to the first written request for capacity",
                &self.notice_to_request,
            ),
            (
                "notice_to_ready",
                "From the beginning of a replacement to an instance in service whose node is Ready",
                &self.notice_to_ready,
            ),
            (
                "notice_to_drained",
                "From the beginning of a replacement to the old node whose pods run elsewhere",
                &self.notice_to_drained,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
    }

    /// Lets the series of these pools begin at zero, and forgets those of others: a replacement may outlive
    /// its pool. What is in no pool stays.
    pub(super) fn follow(&self, pools: &BTreeSet<String>) {
        pools.iter().for_each(|pool| self.begin(pool));
        let mut known = self.known();
        let gone: Vec<String> =
            known.pools.difference(pools).filter(|pool| !pool.is_empty()).cloned().collect();
        for pool in gone {
            self.series(&pool, Turn::Ends);
            for (flow_box, outcome) in known.steps.remove(&pool).unwrap_or_default() {
                let (pool, r#box) = (|| pool.clone(), Word(flow_box));
                let labels = BoxLabels { pool: pool(), r#box, outcome: Word(outcome) };
                self.box_transitions.remove(&labels);
                self.box_times.remove(&PassLabels { pool: pool(), r#box });
            }
        }
        known.pools.retain(|pool| pool.is_empty() || pools.contains(pool));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that something of this pool is written.
    fn writes(&self, pool: &str) {
        let mut known = self.known();
        if !known.pools.contains(pool) {
            known.pools.insert(pool.to_owned());
        }
    }

    /// Lets the series of a pool begin at zero: a counter that appears with its first event hides that
    /// event from rate().
    pub(super) fn begin(&self, pool: &str) {
        self.writes(pool);
        self.series(pool, Turn::Begins);
    }

    fn series(&self, pool: &str, turn: Turn) {
        let pool = || pool.to_owned();
        for kind in NoticeKind::REPORTED.into_iter().chain([NoticeKind::Manual]) {
            let cause = Word(kind);
            turn.of(&self.notices, &NoticeLabels { pool: pool(), kind: cause });
            turn.of(&self.started, &CauseLabels { pool: pool(), cause });
            for outcome in Ending::ALL {
                let phase = Word(outcome.phase());
                turn.of(&self.finished, &FinishLabels { pool: pool(), cause, phase, outcome });
            }
        }
        for flow_box in [FlowBox::Wait, FlowBox::Fallback] {
            for outcome in [Outcome::NoCapacity, Outcome::LaunchRefused, Outcome::Misconfigured] {
                let labels = BoxLabels { pool: pool(), r#box: Word(flow_box), outcome: Word(outcome) };
                turn.of(&self.box_transitions, &labels);
            }
        }
        for why in CutShort::ALL {
            turn.of(&self.drains_incomplete, &CutLabels { pool: pool(), why });
        }
        for result in EvictionResult::ALL {
            turn.of(&self.evictions, &EvictionLabels { pool: pool(), result });
        }
        let labels = PoolLabels { pool: pool() };
        for counts in [&self.fallbacks, &self.returns] {
            turn.of(counts, &labels);
        }
        for times in
            [&self.notice_to_record, &self.notice_to_request, &self.notice_to_ready, &self.notice_to_drained]
        {
            turn.of(times, &labels);
        }
    }

    /// Counts an eviction.
    pub(super) fn eviction(&self, pool: &str, result: EvictionResult) {
        self.writes(pool);
        self.evictions.get_or_create(&EvictionLabels { pool: pool.to_owned(), result }).inc();
    }

    /// Notes how long a notice waited for its replacement to begin.
    pub(super) fn notice_waited(&self, pool: &str, waited: Duration) {
        self.writes(pool);
        let labels = PoolLabels { pool: pool.to_owned() };
        self.notice_to_record.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// Counts what a stored change of a record means.
    pub(super) fn stored(&self, pool: &str, before: Option<&ReplacementStatus>, after: &ReplacementStatus) {
        self.writes(pool);
        let labels = PoolLabels { pool: pool.to_owned() };
        let steps_before = before.map_or(&[][..], |before| &before.steps);
        let fresh = after.steps.iter().rev().take_while(|step| !steps_before.contains(step)).count();
        let known = after.steps.len() - fresh;
        for (at, step) in after.steps.iter().enumerate().skip(known) {
            self.step(&labels, step, after);
            let previous = at.checked_sub(1).and_then(|at| after.steps.get(at));
            // The steps of a record that began anew go on behind those of the time before.
            let previous = previous.filter(|held| after.started_at.is_none_or(|begun| held.at >= begun));
            if let Some(previous) = previous {
                let passed = PassLabels { pool: pool.to_owned(), r#box: Word(step.flow_box) };
                let took = since(previous.at, step.at);
                self.box_times.get_or_create(&passed).observe(took.as_secs_f64());
            }
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
        let mut known = self.known();
        known.steps.entry(labels.pool.clone()).or_default().insert((flow_box, outcome));
        drop(known);
        if let Some(why) = CutShort::of(step, after) {
            self.drains_incomplete.get_or_create(&CutLabels { pool: labels.pool.clone(), why }).inc();
        }
        match (flow_box, outcome) {
            (_, Outcome::ScaledDown) => {
                self.returns.get_or_create(labels).inc();
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
            let (phase, outcome) = (Word(after.phase()), Ending::of(after));
            self.finished.get_or_create(&FinishLabels { pool: pool(), cause, phase, outcome }).inc();
        }
    }
}
