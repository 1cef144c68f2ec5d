//! The gauges that are computed at each scrape.

use super::labels::Word;
use crate::crd::{NodeReplacement, SpotPool};
use crate::telemetry::readiness::Readiness;
use kube::ResourceExt;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{GroupKind, Phase};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: Word<Phase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    pool: String,
    group: Word<GroupKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word<ReasonCode>,
}

/// What works: the same that `/readyz` says.
pub(super) fn of_parts(readiness: &Readiness) -> Registry {
    let mut registry = Registry::with_prefix("spot_guard");
    let parts = readiness.parts().into_iter().map(|(part, ready)| (PartLabels { part }, i64::from(ready)));
    registry.register(
        "part_ready",
        "1 while a part of the process is ready, else 0; /readyz says why",
        Gauges(parts.collect()),
    );
    registry
}

/// The gauges of the stored objects, built anew so that a deleted pool leaves no series behind.
pub(super) fn of_stored(
    replacements: &[impl Borrow<NodeReplacement>],
    pools: &[impl Borrow<SpotPool>],
) -> Registry {
    let mut registry = Registry::with_prefix("spot_guard");
    let phase_of = |replacement: &NodeReplacement| {
        replacement.status.as_ref().map_or_else(Phase::default, |status| status.phase())
    };
    let by_phase = Phase::ALL.map(|phase| {
        let count = replacements.iter().filter(|held| phase_of((*held).borrow()) == phase).count();
        (PhaseLabels { phase: Word(phase) }, i64::try_from(count).unwrap_or(i64::MAX))
    });
    registry.register("replacements", "Stored replacements, by phase", Gauges(by_phase.to_vec()));
    registry.register(
        "blocked_replacements",
        "Open replacements that wait, by reason; one counts once for each reason",
        Gauges(blocked(replacements)),
    );
    let mut desired = Vec::new();
    let mut in_service = Vec::new();
    let (mut watched, mut unwatched) = (Vec::new(), Vec::new());
    for pool in pools {
        let pool: &SpotPool = pool.borrow();
        let Some(status) = &pool.status else { continue };
        for (gauges, count) in
            [(&mut watched, status.watched_nodes), (&mut unwatched, status.unwatched_nodes)]
        {
            gauges.extend(count.map(|count| (PoolLabels { pool: pool.name_any() }, i64::from(count))));
        }
        for (group, counts) in [(GroupKind::Spot, &status.spot), (GroupKind::OnDemand, &status.on_demand)] {
            let Some(counts) = counts else { continue };
            let labels = GroupLabels { pool: pool.name_any(), group: Word(group) };
            desired.push((labels.clone(), i64::from(counts.desired)));
            in_service.push((labels, i64::from(counts.in_service)));
        }
    }
    registry.register("pool_desired", "Desired capacity of a group, in instances", Gauges(desired));
    registry.register("pool_in_service", "Instances in service of a group", Gauges(in_service));
    registry.register("pool_watched_nodes", "Spot nodes with a ready agent", Gauges(watched));
    registry.register("pool_unwatched_nodes", "Spot nodes without a ready agent", Gauges(unwatched));
    registry
}

/// How many open replacements wait for each reason; without those that none waits for.
fn blocked(replacements: &[impl Borrow<NodeReplacement>]) -> Vec<(ReasonLabels, i64)> {
    let mut counts: BTreeMap<ReasonCode, i64> = BTreeMap::new();
    let statuses = replacements.iter().filter_map(|held| held.borrow().status.as_ref());
    for status in statuses.filter(|status| !status.phase().is_finished()) {
        for reason in status.blocking.iter().map(|held| held.reason).collect::<BTreeSet<_>>() {
            *counts.entry(reason).or_default() += 1;
        }
    }
    counts.into_iter().map(|(reason, count)| (ReasonLabels { reason: Word(reason) }, count)).collect()
}

/// Gauges whose values are known when they are made.
#[derive(Debug)]
struct Gauges<L>(Vec<(L, i64)>);

impl<L: EncodeLabelSet> EncodeMetric for Gauges<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(labels, value)| {
            let gauge = ConstGauge::new(*value);
            gauge.encode(encoder.encode_family(labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
