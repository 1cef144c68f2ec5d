//! The gauges that are computed at each scrape.

use super::labels::{PoolLabels, Word};
use crate::crd::{NodeReplacement, SpotPool, SpotPoolStatus};
use crate::telemetry::readiness::Readiness;
use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::encoding::{EncodeCounterValue, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use spot_guard_core::ids::PoolName;
use spot_guard_core::ledger::Balance;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{BlockingReason, FlowBox, GroupKind, Phase, ReplacementStatus};
use spot_guard_core::savings::NodeHours;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PhaseLabels {
    pool: String,
    phase: Word<Phase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    pool: String,
    group: Word<GroupKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    pool: String,
    condition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct BlockedLabels {
    pool: String,
    r#box: Word<FlowBox>,
    reason: Word<ReasonCode>,
}

/// What works: the same that `/readyz` says.
#[must_use]
pub fn of_parts(readiness: &Readiness) -> Registry {
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
    of_replacements(&mut registry, replacements, pools);
    let with_status = pools.iter().map(Borrow::borrow).filter_map(|pool: &SpotPool| {
        let labels = PoolLabels { pool: pool.name_any() };
        Some((labels, pool.status.as_ref()?))
    });
    let with_status: Vec<(PoolLabels, &SpotPoolStatus)> = with_status.collect();
    of_groups(&mut registry, &with_status);
    of_accounts(&mut registry, &with_status);
    of_costs(&mut registry, pools);
    let nodes = |count: fn(&SpotPoolStatus) -> Option<u32>| {
        let counted = |(labels, status): &(PoolLabels, &SpotPoolStatus)| {
            Some((labels.clone(), i64::from(count(status)?)))
        };
        Gauges(with_status.iter().filter_map(counted).collect())
    };
    registry.register(
        "pool_watched_nodes",
        "Spot nodes that are watched: by a ready agent, or by the notice queue",
        nodes(|status| status.watched_nodes),
    );
    registry.register(
        "pool_unwatched_nodes",
        "Spot nodes that nobody watches: without a ready agent, while no notice queue is read",
        nodes(|status| status.unwatched_nodes),
    );
    registry.register(
        "pool_above_baseline",
        "On-demand instances above the baseline that are no fallback",
        nodes(|status| status.above_baseline),
    );
    let conditions = with_status.iter().flat_map(|(PoolLabels { pool }, status)| {
        status.conditions.iter().map(|held| {
            let labels = ConditionLabels { pool: pool.clone(), condition: held.type_.clone() };
            (labels, i64::from(held.status == "True"))
        })
    });
    registry.register(
        "pool_condition",
        "1 while a condition of a pool is True, else 0",
        Gauges(conditions.collect()),
    );
    registry
}

/// What the records say, by pool; of a node in no accepted pool the pool is "".
fn of_replacements(
    registry: &mut Registry,
    replacements: &[impl Borrow<NodeReplacement>],
    pools: &[impl Borrow<SpotPool>],
) {
    let names = pools.iter().map(|pool| pool.borrow().name_any()).chain([String::new()]);
    let names: Vec<String> = names.collect();
    let mut by_phase: BTreeMap<PhaseLabels, i64> = BTreeMap::new();
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    for pool in &names {
        open.insert(pool.clone(), 0);
        for phase in Phase::ALL.map(Word) {
            by_phase.insert(PhaseLabels { pool: pool.clone(), phase }, 0);
        }
    }
    let mut oldest: BTreeMap<String, i64> = BTreeMap::new();
    let mut blocks = Blocks::default();
    for held in replacements {
        let held: &NodeReplacement = held.borrow();
        let pool = || held.spec.pool.as_ref().map_or_else(String::new, ToString::to_string);
        let status = held.status.as_ref();
        let phase = status.map_or_else(Phase::default, ReplacementStatus::phase);
        *by_phase.entry(PhaseLabels { pool: pool(), phase: Word(phase) }).or_default() += 1;
        let Some(status) = status.filter(|_| !phase.is_finished()) else { continue };
        if status.fallback.is_open() {
            *open.entry(pool()).or_default() += 1;
            let ready = status.capacity.taken().map(|taken| taken.ready_at).or(status.started_at);
            if let Some(since) = ready.map(Timestamp::as_second) {
                oldest.entry(pool()).and_modify(|first| *first = since.min(*first)).or_insert(since);
            }
        }
        blocks.add(&pool(), &status.blocking);
    }
    let of_pools = |counts: BTreeMap<String, i64>| {
        Gauges(counts.into_iter().map(|(pool, count)| (PoolLabels { pool }, count)).collect())
    };
    registry.register(
        "replacements",
        "Stored replacements, by phase",
        Gauges(by_phase.into_iter().collect()),
    );
    registry.register("pool_fallbacks", "Open fallbacks", of_pools(open));
    registry.register_with_unit(
        "pool_oldest_fallback_timestamp",
        "Since when the oldest open fallback stands in, in Unix time; no series without a fallback",
        Unit::Seconds,
        of_pools(oldest),
    );
    blocks.register(registry);
}

/// What holds replacements up, and since when.
#[derive(Default)]
struct Blocks {
    counts: BTreeMap<BlockedLabels, i64>,
    oldest: BTreeMap<BlockedLabels, i64>,
}

impl Blocks {
    /// Adds what holds one replacement up.
    fn add(&mut self, pool: &str, blocking: &[BlockingReason]) {
        let mut seen = BTreeSet::new();
        for held in blocking {
            let (r#box, reason) = (Word(held.flow_box), Word(held.reason));
            let labels = BlockedLabels { pool: pool.to_owned(), r#box, reason };
            let since = held.since.as_second();
            let oldest = self.oldest.entry(labels.clone()).or_insert(since);
            *oldest = since.min(*oldest);
            if seen.insert((held.flow_box, held.reason)) {
                *self.counts.entry(labels).or_default() += 1;
            }
        }
    }

    fn register(self, registry: &mut Registry) {
        registry.register(
            "blocked_replacements",
            "Open replacements that wait, by box and reason; one counts once for each reason",
            Gauges(self.counts.into_iter().collect()),
        );
        registry.register_with_unit(
            "oldest_block_timestamp",
            "Since when the longest wait for a reason lasts, in Unix time; no series without one",
            Unit::Seconds,
            Gauges(self.oldest.into_iter().collect()),
        );
    }
}

/// What is known of both groups of each pool, in instances.
fn of_groups(registry: &mut Registry, pools: &[(PoolLabels, &SpotPoolStatus)]) {
    let (mut desired, mut in_service) = (Vec::new(), Vec::new());
    let (mut baseline, mut owed) = (Vec::new(), Vec::new());
    for (PoolLabels { pool }, status) in pools {
        for (group, counts) in [(GroupKind::Spot, &status.spot), (GroupKind::OnDemand, &status.on_demand)] {
            let Some(counts) = counts else { continue };
            let labels = || GroupLabels { pool: pool.clone(), group: Word(group) };
            let shares = |is: fn(Balance) -> bool| {
                let count = status.ledger.shares(group).filter(|share| is(share.balance)).count();
                i64::try_from(count).unwrap_or(i64::MAX)
            };
            let raised = shares(|balance| balance == Balance::Raised);
            let lowered = shares(|balance| balance == Balance::OwedByUs);
            desired.push((labels(), i64::from(counts.desired)));
            in_service.push((labels(), i64::from(counts.in_service)));
            baseline.push((labels(), i64::from(counts.desired) - raised + lowered));
            owed.push((labels(), lowered + shares(|balance| balance == Balance::OwedByGroup)));
        }
    }
    for (name, help, gauges) in [
        ("pool_desired", "Desired capacity of a group, in instances", desired),
        ("pool_in_service", "Instances in service of a group", in_service),
        ("pool_baseline", "Desired capacity of a group without our changes, in instances", baseline),
        ("pool_owed", "Instances that a group owes to replacements", owed),
    ] {
        registry.register(name, help, Gauges(gauges));
    }
}

/// How long the nodes of each pool have served, as the leader has counted it.
fn of_accounts(registry: &mut Registry, pools: &[(PoolLabels, &SpotPoolStatus)]) {
    let (mut nodes, mut fallbacks) = (Vec::new(), Vec::new());
    for (labels, status) in pools {
        let Some(account) = &status.node_account else { continue };
        for (group, seconds) in
            [(GroupKind::Spot, account.total.spot), (GroupKind::OnDemand, account.total.on_demand)]
        {
            nodes.push((GroupLabels { pool: labels.pool.clone(), group: Word(group) }, seconds));
        }
        fallbacks.push((labels.clone(), account.total.fallbacks));
    }
    let seconds = Unit::Seconds;
    let help = "How long instances of a group have been in service, in seconds of one instance";
    registry.register_with_unit("pool_node", help, seconds.clone(), Counters(nodes));
    let help = "How long fallbacks have stood in, in seconds of one fallback";
    registry.register_with_unit("pool_fallback", help, seconds, Counters(fallbacks));
}

/// What the nodes of each pool have cost by its prices, in their currency. A new price counts for all of it.
fn of_costs(registry: &mut Registry, pools: &[impl Borrow<SpotPool>]) {
    let (mut fallbacks, mut saved) = (Vec::new(), Vec::new());
    for pool in pools {
        let pool: &SpotPool = pool.borrow();
        let total = pool.status.as_ref().and_then(|status| Some(status.node_account.as_ref()?.total));
        let prices = pool.spec.hourly_prices.as_ref();
        let Some(cost) = total.and_then(|total| NodeHours::of(total, prices).cost) else { continue };
        let labels = PoolLabels { pool: pool.name_any() };
        fallbacks.push((labels.clone(), cost.fallbacks.max(0.0)));
        saved.push((labels, cost.saved.max(0.0)));
    }
    let help = "What fallbacks have cost more than Spot would have, by spec.hourlyPrices";
    registry.register("pool_fallback_cost", help, Counters(fallbacks));
    let help = "What Spot instances have saved against on-demand, by spec.hourlyPrices";
    registry.register("pool_savings", help, Counters(saved));
}

/// How many Spot nodes of each pool have a ready agent, whether or not the notice queue is read.
pub(super) fn of_agents(agents: &BTreeMap<PoolName, usize>, pools: &[impl Borrow<SpotPool>]) -> Registry {
    let mut registry = Registry::with_prefix("spot_guard");
    let counted = pools.iter().filter_map(|pool| {
        let pool = pool.borrow().name_any();
        let count = agents.get(pool.as_str())?;
        Some((PoolLabels { pool }, i64::try_from(*count).unwrap_or(i64::MAX)))
    });
    registry.register(
        "pool_ready_agents",
        "Spot nodes with a ready agent, whether or not the notice queue is read",
        Gauges(counted.collect()),
    );
    registry
}

/// Counters whose values are stored.
#[derive(Debug)]
struct Counters<L, N>(Vec<(L, N)>);

impl<L: EncodeLabelSet, N: EncodeCounterValue + Copy> EncodeMetric for Counters<L, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(labels, value)| {
            let counter = ConstCounter::new(*value);
            counter.encode(encoder.encode_family(labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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
