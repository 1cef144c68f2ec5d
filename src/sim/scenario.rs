//! The scenarios that the demo plays and the simulation tests assert.

use crate::sim::world::{App, ON_DEMAND, SPOT, Start, World};
use Act::{Interrupt, Lose, OnDemandHas, Probe, Rebalance, SpotHas};
use anyhow::Context as _;
use clap::ValueEnum;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use spot_guard_cloud::cloud::{BootFault, Supply};
use spot_guard_core::adoption::OnDemandSpec;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::{FlowBox as B, Outcome as O};
use spot_guard_core::stand_ins::CoverSpec;
use std::time::Duration;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Scenario {
    /// A rebalance recommendation while Spot has capacity.
    Rebalance,
    /// Spot is dry: fallback to on-demand, then the return to Spot.
    DrySpot,
    /// The same with groups that do not know LaunchInstances: they are asked by SetDesiredCapacity.
    DrySpotSetDesired,
    /// Both markets are dry: the node is kept until Spot is back.
    AllDry,
    /// A Spot interruption notice: two minutes.
    TwoMinuteNotice,
    /// A PodDisruptionBudget holds the drain up for a while.
    PdbBlocked,
    /// A cluster that always runs above 75 %: it falls back, and returns all the same.
    FullCluster,
    /// Three nodes fall back; Spot gives one instance back at a time.
    ThreeFallbacks,
    /// 20 nodes at once, two of them with two minutes: ten are moved at a time, by few calls.
    Storm,
    /// Both groups belong to EKS managed node groups: Spot replaces by itself, and on-demand stands in for
    /// what it does not bring.
    ManagedNodeGroup,
    /// A Spot instance dies without a notice while Spot is out of capacity, and pods wait.
    SilentLoss,
    /// A fallback and its return beside a cluster-autoscaler.
    Autoscaler,
    /// Somebody else has an on-demand instance above the baseline. Its pods need one more Spot node.
    Adoption,
}

/// Something that the world does.
#[derive(Clone, Debug)]
pub enum Act {
    /// The Spot market has this much left.
    SpotHas(Supply),
    /// The on-demand market has this much left.
    OnDemandHas(Supply),
    /// EC2 recommends to rebalance the Spot instance of that number, counted from the oldest.
    Rebalance(usize),
    /// EC2 gives the Spot instance of that number its two minutes.
    Interrupt(usize),
    /// The Spot instance of that number dies without a notice.
    Lose(usize),
    /// The nodes of the next instances of a group go wrong like this.
    NodesFail(&'static str, BootFault, usize),
    /// The budget of an application allows this many unavailable pods from now on.
    SetBudget(&'static str, u32),
    /// The readiness probe of a pod of an application fails, on another node than that of the oldest Spot
    /// instance; or all of its pods are ready again.
    Probe(&'static str, bool),
}

impl Act {
    /// In plain words.
    #[must_use]
    pub fn describe(&self) -> String {
        let market = |name: &str, capacity: &Supply| match capacity {
            Supply::Unlimited => format!("{name} capacity is back"),
            Supply::Left(count) => format!("{name} has {count} more to give"),
            Supply::None => format!("{name} is out of capacity"),
        };
        match self {
            Self::SpotHas(capacity) => market("Spot", capacity),
            Self::OnDemandHas(capacity) => market("on-demand", capacity),
            Self::Rebalance(number) => format!("EC2 recommends to move off Spot node number {}", number + 1),
            Self::Interrupt(number) => format!("EC2 takes Spot node number {} in two minutes", number + 1),
            Self::Lose(number) => format!("Spot node number {} dies without a notice", number + 1),
            Self::NodesFail(group, fault, count) => {
                let what = match fault {
                    BootFault::DiesPending => "die while they boot",
                    BootFault::NeverJoins => "never join",
                    BootFault::NeverReady => "are never Ready",
                    BootFault::KeepsTaint => "keep their start-up taint",
                    BootFault::StaysCordoned => "stay cordoned",
                    BootFault::HookHolds(_) => "are held by a lifecycle hook",
                    BootFault::HookAbandons(_) => "are abandoned by a lifecycle hook",
                };
                format!("the next {count} nodes of {group} {what}")
            }
            Self::SetBudget(app, count) => {
                format!("the PodDisruptionBudget {app} allows {count} unavailable")
            }
            Self::Probe(app, true) => format!("all pods of {app} are ready again"),
            Self::Probe(app, false) => format!("a pod of {app} is not ready any more"),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When the world has no such thing.
    pub async fn perform(&self, world: &World, spot_instances: &[String]) -> anyhow::Result<()> {
        let instance = |number: &usize| {
            spot_instances.get(*number).ok_or_else(|| anyhow::anyhow!("no Spot instance number {number}"))
        };
        match self {
            Self::SpotHas(capacity) => world.cloud.set_supply(SPOT, None, *capacity),
            Self::OnDemandHas(capacity) => world.cloud.set_supply(ON_DEMAND, None, *capacity),
            Self::Rebalance(number) => world.cloud.rebalance(instance(number)?),
            Self::Interrupt(number) => world.cloud.interrupt(instance(number)?),
            Self::Lose(number) => world.cloud.take_now(instance(number)?),
            Self::NodesFail(group, fault, count) => world.cloud.fault_next_boots(group, *count, *fault),
            Self::SetBudget(app, count) => {
                let patch = json!({ "spec": { "maxUnavailable": count } });
                let request = http::Request::patch(format!(
                    "/apis/policy/v1/namespaces/default/poddisruptionbudgets/{app}"
                ))
                .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
                .body(serde_json::to_vec(&patch)?)?;
                world.client.request::<serde_json::Value>(request).await?;
                Ok(())
            }
            Self::Probe(app, ready) => {
                let oldest = world.cloud.node_of(instance(&0)?).map(|node| node.node_name);
                probe(world, app, *ready, oldest.as_deref())
            }
        }
    }
}

/// The pods of an application are ready, or one of them is not that runs on another node than `but`.
fn probe(world: &World, app: &str, ready: bool, but: Option<&str>) -> anyhow::Result<()> {
    let cluster = world.cluster.as_ref().context("the cluster is not simulated")?;
    let mut pods: Vec<Pod> = cluster.list();
    pods.retain(|pod| {
        let labels = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app"));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        labels.is_some_and(|held| held == app) && (ready || node.is_some() && node != but)
    });
    for pod in pods.iter().take(if ready { usize::MAX } else { 1 }) {
        cluster.set_pod_ready("default", &pod.name_any(), ready);
    }
    Ok(())
}

/// A scenario's beginning, what the world does in it, and what is expected.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What the world begins with.
    pub start: Start,
    /// What the world does, and when after the beginning.
    pub script: Vec<(Duration, Act)>,
    /// How many nodes are replaced.
    pub replacements: usize,
    /// Boxes and outcomes that must come, in this order, in every replacement.
    pub steps: Vec<(B, O)>,
    /// After this simulated time the scenario counts as stuck.
    pub limit: Duration,
}

fn app(name: &str, replicas: u32, cpu_millis: u32, memory_mib: u32, max_unavailable: u32) -> App {
    App { name: name.to_owned(), replicas, cpu_millis, memory_mib, max_unavailable: Some(max_unavailable) }
}

const fn at(seconds: u64, act: Act) -> (Duration, Act) {
    (Duration::from_secs(seconds), act)
}

impl Scenario {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its plot.
    #[must_use]
    pub fn plot(self) -> Plot {
        match self {
            Self::Rebalance => rebalance(),
            Self::DrySpot => dry_spot(),
            Self::DrySpotSetDesired => dry_spot_set_desired(),
            Self::AllDry => all_dry(),
            Self::TwoMinuteNotice => two_minute_notice(),
            Self::PdbBlocked => pdb_blocked(),
            Self::FullCluster => full_cluster(),
            Self::ThreeFallbacks => three_fallbacks(),
            Self::Storm => storm(),
            Self::ManagedNodeGroup => managed_node_group(),
            Self::SilentLoss => silent_loss(),
            Self::Autoscaler => autoscaler(),
            Self::Adoption => adoption(),
        }
    }
}

/// A node gets its replacement on Spot.
const REPLACED: [(B, O); 4] =
    [(B::Success, O::InService), (B::Taint, O::Tainted), (B::Drain, O::Drained), (B::Drain, O::Terminated)];
/// What stands in for no node goes back to Spot.
const RETURNED: [(B, O); 6] = [
    (B::Health, O::Healthy),
    (B::Stability, O::Stable),
    (B::Safety, O::Safe),
    (B::ScaleDown, O::Drained),
    (B::ScaleDown, O::ScaledDown),
    (B::CleanUp, O::CleanedUp),
];
/// A node gets its replacement on demand, which goes back later.
const FELL_BACK: [(B, O); 12] = [
    (B::Wait, O::NoCapacity),
    (B::Fallback, O::Requested),
    (B::Fallback, O::InService),
    (B::Taint, O::Tainted),
    (B::Drain, O::Drained),
    (B::Drain, O::Terminated),
    (B::Monitor, O::Monitoring),
    (B::Health, O::Healthy),
    (B::Stability, O::Stable),
    (B::Safety, O::Safe),
    (B::ScaleDown, O::Drained),
    (B::ScaleDown, O::ScaledDown),
];
/// On-demand stands in for an instance that somebody else was to bring, or that nobody announced.
const STOOD_IN: [(B, O); 3] =
    [(B::Fallback, O::Requested), (B::Fallback, O::InService), (B::Monitor, O::Monitoring)];
/// What every node goes through, with or without a replacement.
const REPLACED_OR_NOT: [(B, O); 3] =
    [(B::Taint, O::Tainted), (B::Drain, O::Drained), (B::Drain, O::Terminated)];

/// These steps between the beginning and the end that all have.
fn steps(middle: &[(B, O)]) -> Vec<(B, O)> {
    let mut steps = vec![(B::Notice, O::NoticeReceived), (B::ScaleUp, O::Requested)];
    steps.extend_from_slice(middle);
    steps.push((B::CleanUp, O::CleanedUp));
    steps
}

/// What most scenarios begin with.
pub(super) fn usual_start() -> Start {
    Start {
        spot_nodes: 3,
        on_demand_nodes: 0,
        apps: vec![app("web", 6, 500, 1024, 1), app("api", 4, 750, 2048, 1)],
        policy: PolicySpec::default(),
        launch_instances: true,
        zones: 1,
        managed: false,
        cover: CoverSpec::default(),
        baseline: OnDemandSpec::default(),
        autoscaler: false,
        drain_outside_pools: false,
    }
}

fn usual_plot() -> Plot {
    Plot {
        start: usual_start(),
        script: Vec::new(),
        replacements: 1,
        steps: steps(&REPLACED),
        limit: Duration::from_secs(2 * 3600),
    }
}

fn rebalance() -> Plot {
    Plot { script: vec![at(5, Rebalance(0))], ..usual_plot() }
}

fn dry_spot() -> Plot {
    Plot {
        script: vec![at(5, SpotHas(Supply::None)), at(10, Rebalance(0)), at(240, SpotHas(Supply::Unlimited))],
        steps: steps(&FELL_BACK),
        ..usual_plot()
    }
}

fn dry_spot_set_desired() -> Plot {
    Plot {
        start: Start { launch_instances: false, ..usual_start() },
        script: vec![at(5, SpotHas(Supply::None)), at(10, Rebalance(0)), at(240, SpotHas(Supply::Unlimited))],
        steps: steps(&FELL_BACK),
        ..usual_plot()
    }
}

fn all_dry() -> Plot {
    Plot {
        script: vec![
            at(5, SpotHas(Supply::None)),
            at(5, OnDemandHas(Supply::None)),
            at(10, Rebalance(0)),
            at(300, SpotHas(Supply::Unlimited)),
        ],
        steps: steps(
            &[
                &[
                    (B::Wait, O::NoCapacity),
                    (B::Fallback, O::Requested),
                    (B::Fallback, O::NoCapacity),
                    (B::Fallback, O::NodeKept),
                ],
                &REPLACED[..],
            ]
            .concat(),
        ),
        ..usual_plot()
    }
}

fn two_minute_notice() -> Plot {
    Plot {
        script: vec![at(5, Interrupt(0))],
        steps: vec![
            (B::Notice, O::NoticeReceived),
            (B::ScaleUp, O::Requested),
            (B::Taint, O::Tainted),
            (B::Drain, O::Drained),
            (B::CleanUp, O::CleanedUp),
        ],
        ..usual_plot()
    }
}

fn pdb_blocked() -> Plot {
    Plot {
        start: Start {
            apps: vec![app("web", 6, 500, 1024, 1), app("api", 4, 750, 2048, 1)],
            ..usual_start()
        },
        // The budget has no room as long as a pod is not ready.
        script: vec![at(1, Probe("web", false)), at(5, Rebalance(0)), at(180, Probe("web", true))],
        steps: steps(&[
            (B::Success, O::InService),
            (B::Taint, O::Tainted),
            (B::Drain, O::Blocked),
            (B::Drain, O::Drained),
            (B::Drain, O::Terminated),
        ]),
        ..usual_plot()
    }
}

fn full_cluster() -> Plot {
    Plot {
        start: Start {
            apps: vec![app("web", 13, 500, 1024, 2), app("api", 5, 750, 2048, 1)],
            ..usual_start()
        },
        script: vec![at(5, SpotHas(Supply::None)), at(10, Rebalance(0)), at(240, SpotHas(Supply::Unlimited))],
        steps: steps(&FELL_BACK),
        ..usual_plot()
    }
}

fn three_fallbacks() -> Plot {
    Plot {
        start: Start {
            spot_nodes: 4,
            apps: vec![app("web", 8, 500, 1024, 2), app("api", 5, 750, 2048, 1)],
            policy: PolicySpec { max_concurrent_percent: Some(100), ..PolicySpec::default() },
            ..usual_start()
        },
        script: vec![
            at(5, SpotHas(Supply::None)),
            at(10, Rebalance(0)),
            at(11, Rebalance(1)),
            at(12, Rebalance(2)),
            at(300, SpotHas(Supply::Left(1))),
            at(900, SpotHas(Supply::Left(1))),
            at(1500, SpotHas(Supply::Left(1))),
        ],
        replacements: 3,
        steps: steps(&FELL_BACK),
        limit: Duration::from_secs(3 * 3600),
    }
}

fn managed_node_group() -> Plot {
    Plot {
        start: Start { managed: true, ..usual_start() },
        script: vec![at(5, SpotHas(Supply::None)), at(40, Interrupt(0)), at(600, SpotHas(Supply::Unlimited))],
        steps: [&STOOD_IN[..], &RETURNED].concat(),
        ..usual_plot()
    }
}

fn silent_loss() -> Plot {
    Plot {
        script: vec![at(5, SpotHas(Supply::None)), at(60, Lose(0)), at(900, SpotHas(Supply::Unlimited))],
        steps: [&STOOD_IN[..], &RETURNED].concat(),
        ..full_cluster()
    }
}

fn autoscaler() -> Plot {
    Plot { start: Start { autoscaler: true, ..usual_start() }, ..dry_spot() }
}

fn adoption() -> Plot {
    Plot {
        start: Start {
            on_demand_nodes: 1,
            baseline: OnDemandSpec { baseline: Some(0), adopt_after_seconds: None },
            apps: vec![app("web", 18, 500, 1024, 2), app("api", 5, 750, 2048, 1)],
            ..usual_start()
        },
        steps: [&[(B::Monitor, O::Adopted)][..], &RETURNED].concat(),
        ..usual_plot()
    }
}

fn storm() -> Plot {
    Plot {
        start: Start {
            spot_nodes: 20,
            apps: vec![app("web", 40, 500, 1024, 4), app("api", 26, 750, 2048, 3)],
            // One notice more, and the brake would hold the returns for an hour.
            policy: PolicySpec { brake_interruptions: Some(20), ..PolicySpec::default() },
            ..usual_start()
        },
        script: std::iter::once(at(5, SpotHas(Supply::Left(12))))
            .chain((0..20).map(|number| at(10, Rebalance(number))))
            .chain([at(20, Interrupt(18)), at(20, Interrupt(19)), at(300, SpotHas(Supply::Unlimited))])
            .collect(),
        replacements: 20,
        steps: steps(&REPLACED_OR_NOT),
        limit: Duration::from_secs(3 * 3600),
    }
}
