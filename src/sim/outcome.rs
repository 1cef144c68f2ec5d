//! Days of a Spot market played through the product: what on-demand they take, what capacity is missing, and
//! how often pods are moved, beside an oracle that knows the future.

use crate::actors::supervision::Shutdown;
use crate::clock::Clock;
use crate::sim::kubelet::pod_is_ready;
use crate::sim::scenario::usual_start;
use crate::sim::world::{App, Gates, ON_DEMAND, SPOT, Start, World, WorldOptions};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde::Deserialize;
use spot_guard_cloud::cloud::{BootTimes, Cloud, InstanceSnapshot, Supply};
use spot_guard_cloud::cluster::Cluster;
use spot_guard_core::policy::PolicySpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the market is looked at, and the world is counted.
const TICK: Duration = Duration::from_secs(5);
/// A Spot instance that is taken so soon after its launch was hardly worth it.
const SHORT: Duration = Duration::from_secs(600);
/// EC2 gives two minutes (EC2 User Guide, "Spot Instance interruption notices").
const NOTICE: Duration = Duration::from_secs(120);
/// A node holds one pod of the application.
const POD_CPU_MILLIS: u32 = 3000;

/// How many instances a market had, zone by zone, run-length encoded.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// How long a tick is.
    gap_seconds: u64,
    /// For each zone: so many instances, for so many ticks.
    zones: BTreeMap<String, Vec<(u32, u64)>>,
}

impl Trace {
    /// Reads a trace: `{"gapSeconds", "zones": {zone: [[instances, ticks], …]}}`.
    ///
    /// # Errors
    /// If it is not one, or has no zone.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let trace: Self = serde_json::from_str(text)?;
        anyhow::ensure!(!trace.zones.is_empty(), "zones: there is none");
        anyhow::ensure!(trace.gap_seconds > 0, "gapSeconds: 0 is no length");
        Ok(trace)
    }

    /// How long it lasts in all zones that are played.
    #[must_use]
    pub fn length(&self) -> Duration {
        let ticks =
            self.played().into_iter().map(|runs| runs.iter().map(|(_, ticks)| ticks).sum::<u64>()).min();
        Duration::from_secs(ticks.unwrap_or(0) * self.gap_seconds)
    }

    /// The zones that a simulated group has: three at most, those with the most capacity.
    fn played(&self) -> Vec<&[(u32, u64)]> {
        let mut zones: Vec<&[(u32, u64)]> = self.zones.values().map(Vec::as_slice).collect();
        let capacity =
            |runs: &[(u32, u64)]| runs.iter().map(|(count, ticks)| u64::from(*count) * ticks).sum::<u64>();
        zones.sort_by_key(|runs| std::cmp::Reverse(capacity(runs)));
        zones.truncate(3);
        zones
    }

    fn available(&self, runs: &[(u32, u64)], at: Duration) -> u32 {
        let mut left = at.as_secs() / self.gap_seconds;
        for (count, ticks) in runs {
            match left.checked_sub(*ticks) {
                Some(rest) => left = rest,
                None => return *count,
            }
        }
        0
    }
}

/// Who looks after the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The product.
    SpotGuard,
    /// cluster-autoscaler with its priority expander, Spot first.
    Autoscaler,
    /// Nobody: the Spot group tries by itself.
    Nobody,
}

/// What came of it. Hours are those of instances.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MarketOutcome {
    /// On-demand, from the launch to the termination.
    pub on_demand_hours: f64,
    /// Pods that were not Ready.
    pub missing_hours: f64,
    /// Interruption notices.
    pub notices: usize,
    /// Pods that were moved before their instance was taken.
    pub moved: usize,
    /// Pods that were taken with their instance.
    pub killed: usize,
    /// Spot instances that were taken within ten minutes of their launch.
    pub short_lived: usize,
    /// Calls to AWS that change a group.
    pub changes: usize,
    /// All calls to AWS.
    pub calls: usize,
}

/// What one who knows the future makes of a market.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Oracle {
    /// On-demand, from the launch to the termination, in hours of instances.
    pub on_demand_hours: f64,
    /// How often a pod is moved.
    pub moved: usize,
}

/// The least on-demand that keeps all nodes: Spot is used in each window that saves more than its two changes
/// cost, and on-demand serves in the moment in which an instance is taken.
#[must_use]
pub fn oracle(trace: &Trace, nodes: u32, length: Duration) -> Oracle {
    let boot = boot_time();
    let zones = trace.played();
    let mut outcome = Oracle::default();
    for level in 1..=nodes {
        let has = |at: Duration| zones.iter().map(|runs| trace.available(runs, at)).sum::<u32>() >= level;
        let tick_length = Duration::from_secs(trace.gap_seconds);
        let ticks = length.as_secs() / trace.gap_seconds;
        let mut gone_since = None;
        let mut came: Option<Duration> = None;
        for tick in 0..=ticks {
            let at = tick_length * u32::try_from(tick).unwrap_or(u32::MAX);
            let is_there = has(at) && tick < ticks;
            match (is_there, came) {
                (true, None) => came = Some(at),
                (false, Some(since)) => {
                    came = None;
                    let saves = (at - since) + NOTICE > 2 * boot || since.is_zero();
                    if saves {
                        outcome.add_gap(gone_since, since, boot);
                        gone_since = Some(at);
                    }
                }
                _ => {}
            }
        }
        // Spot is out of capacity at the end, or was so all the time.
        let last = gone_since.unwrap_or(Duration::ZERO);
        if last < length {
            outcome.on_demand_hours += hours((length - last).saturating_sub(NOTICE) + boot);
            outcome.moved += 1;
        }
    }
    outcome
}

impl Oracle {
    /// On-demand stands in from the notice of one window to the beginning of the next.
    fn add_gap(&mut self, gone_since: Option<Duration>, came: Duration, boot: Duration) {
        let Some(from) = gone_since.or((!came.is_zero()).then_some(Duration::ZERO)) else { return };
        self.on_demand_hours += hours((came - from).saturating_sub(NOTICE) + 2 * boot);
        self.moved += 2;
    }
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3600.0
}

fn boot_time() -> Duration {
    let BootTimes { launch, node_join, node_ready } = BootTimes::default();
    launch + node_join + node_ready
}

/// Plays the first `length` of a trace with so many nodes, each with one pod. To be called inside an actix
/// system whose time is paused.
///
/// # Errors
/// If the world cannot be made.
pub async fn play(
    trace: &Trace,
    nodes: u32,
    length: Duration,
    keeper: Keeper,
) -> anyhow::Result<MarketOutcome> {
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse()?);
    let zones = trace.played();
    let app = App {
        name: "web".to_owned(),
        replicas: nodes,
        cpu_millis: POD_CPU_MILLIS,
        memory_mib: 64,
        max_unavailable: Some((nodes / 5).max(1)),
    };
    let start = Start {
        spot_nodes: nodes,
        on_demand_nodes: 0,
        apps: vec![app],
        policy: PolicySpec { wait_before_termination_seconds: Some(0), ..PolicySpec::default() },
        zones: zones.len(),
        autoscaler: keeper == Keeper::Autoscaler,
        ..usual_start()
    };
    let world = World::begin_on(&start, clock, 1, WorldOptions::default()).await?;
    let end = Shutdown::new();
    let _controller =
        (keeper == Keeper::SpotGuard).then(|| world.start_controller("outcome", Gates::default(), &end));
    let cluster = world.cluster.clone().context("a simulated cluster")?;
    let mut market = Market { trace, zones, noticed: BTreeSet::new() };
    let mut count = Count::default();
    let mut outcome = MarketOutcome::default();
    let mut at = Duration::ZERO;
    while at < length {
        market.turn(&world, at, &mut outcome)?;
        count.turn(&world.cloud, &cluster, nodes, &mut outcome);
        tokio::time::sleep(TICK).await;
        at += TICK;
    }
    let calls = world.cloud.calls();
    outcome.calls = calls.len();
    outcome.changes = calls.iter().filter(|call| !call.operation.starts_with("Describe")).count();
    end.trigger();
    Ok(outcome)
}

/// The market of a trace.
struct Market<'a> {
    trace: &'a Trace,
    zones: Vec<&'a [(u32, u64)]>,
    /// Instances that have their notice.
    noticed: BTreeSet<String>,
}

impl Market<'_> {
    /// Gives and takes what the trace says of this moment. What was there longest is taken first.
    fn turn(&mut self, world: &World, at: Duration, outcome: &mut MarketOutcome) -> anyhow::Result<()> {
        let held = world.cloud.group(SPOT).map(|group| group.instances).unwrap_or_default();
        let now = world.clock.now();
        for (zone, runs) in crate::sim::start::ZONES.iter().zip(&self.zones) {
            let available = self.trace.available(runs, at) as usize;
            let stays = |held: &&InstanceSnapshot| {
                held.zone == *zone && !held.state.is_ending() && !self.noticed.contains(&held.id)
            };
            let staying: Vec<&InstanceSnapshot> = held.iter().filter(stays).collect();
            let taken: Vec<String> = staying
                .iter()
                .take(staying.len().saturating_sub(available))
                .map(|held| held.id.clone())
                .collect();
            let left = u32::try_from(available.saturating_sub(staying.len()))?;
            // Those of the beginning were there before.
            outcome.short_lived += staying
                .iter()
                .take(taken.len())
                .filter(|held| spot_guard_core::time::since(held.launched_at, now) < SHORT && at >= SHORT)
                .count();
            outcome.notices += taken.len();
            for id in taken {
                world.cloud.interrupt(&id)?;
                self.noticed.insert(id);
            }
            world.cloud.set_supply(SPOT, Some(zone), Supply::Left(left))?;
        }
        Ok(())
    }
}

/// The pods as they were seen last.
#[derive(Default)]
struct Count {
    /// By uid: the node, and whether it was being deleted.
    pods: BTreeMap<String, (String, bool)>,
}

impl Count {
    fn turn(&mut self, cloud: &Cloud, cluster: &Cluster, nodes: u32, outcome: &mut MarketOutcome) {
        let on_demand = cloud.group(ON_DEMAND).map_or(0, |group| group.instances.len());
        let pods: Vec<Pod> = cluster.list();
        let ready = pods.iter().filter(|pod| pod_is_ready(pod)).count();
        let missing = (nodes as usize).saturating_sub(ready);
        let tick = hours(TICK);
        #[allow(clippy::cast_precision_loss, reason = "a handful of nodes")]
        {
            outcome.on_demand_hours += on_demand as f64 * tick;
            outcome.missing_hours += missing as f64 * tick;
        }
        let there: BTreeSet<String> = cluster.list::<Node>().iter().map(ResourceExt::name_any).collect();
        let now: BTreeMap<String, (String, bool)> = pods
            .iter()
            .filter_map(|pod| {
                let node = pod.spec.as_ref()?.node_name.clone()?;
                Some((pod.uid()?, (node, pod.metadata.deletion_timestamp.is_some())))
            })
            .collect();
        for (uid, (node, deleted)) in &self.pods {
            if !now.contains_key(uid) {
                let is_killed = !deleted && !there.contains(node);
                outcome.killed += usize::from(is_killed);
                outcome.moved += usize::from(!is_killed);
            }
        }
        self.pods = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(runs: &[(u32, u64)]) -> Trace {
        Trace { gap_seconds: 300, zones: [("a".to_owned(), runs.to_vec())].into() }
    }

    #[test]
    fn a_trace_says_how_much_there_is_at_each_moment() {
        let text = r#"{ "source": "made up", "gapSeconds": 300, "zones": { "a": [[2, 3], [0, 1]] } }"#;
        let trace = Trace::read(text).expect("a trace");
        let at = |seconds| trace.available(trace.played()[0], Duration::from_secs(seconds));
        assert_eq!([at(0), at(899), at(900), at(1199), at(1200)], [2, 2, 0, 0, 0]);
        assert_eq!(trace.length(), Duration::from_secs(1200));
        for wrong in
            ["{}", r#"{ "gapSeconds": 0, "zones": { "a": [] } }"#, r#"{ "gapSeconds": 1, "zones": {} }"#]
        {
            assert!(Trace::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_oracle_pays_for_the_time_without_spot_and_for_the_boots_at_both_ends() {
        let hour = Duration::from_secs(3600);
        let of = |runs: &[(u32, u64)]| oracle(&trace(runs), 1, hour);
        assert_eq!(of(&[(1, 12)]), Oracle::default());
        // Out of capacity for 20 minutes in the middle: 1200 s less the notice, and two boots of 60 s.
        let found = of(&[(1, 4), (0, 4), (1, 4)]);
        assert!((found.on_demand_hours - 1200.0 / 3600.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.moved, 2);
        // Out of capacity to the end: no boot at its end.
        let found = of(&[(1, 4), (0, 8)]);
        assert!((found.on_demand_hours - (2400.0 - 60.0) / 3600.0).abs() < 1e-9, "{found:?}");
    }
}
