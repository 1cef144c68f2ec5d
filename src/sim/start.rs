//! What a world begins with: pools with their groups, and applications.

use crate::crd::{SpotPool, SpotPoolSpec};
use kube::Client;
use spot_guard_cloud::autoscaler::{Autoscaler, AutoscalerTimes, ScaledGroup};
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, Market};
use spot_guard_cloud::eks::EksDrainer;
use spot_guard_core::adoption::OnDemandSpec;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::savings::HourlyPrices;
use spot_guard_core::stand_ins::CoverSpec;
use std::time::Duration;

/// The pool of every scenario.
pub const POOL: &str = "workers";
/// Its Spot group.
pub const SPOT: &str = "workers-spot";
/// Its on-demand group.
pub const ON_DEMAND: &str = "workers-on-demand";
/// The zones of all groups.
pub const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// What a node of the groups holds: thousandths of a core, and GiB.
const CPU_MILLIS: u32 = 4000;
const MEMORY_GIB: u32 = 16;

/// No scenario lasts so long.
const NEVER: Duration = Duration::from_secs(48 * 3600);

/// An application that runs in the cluster from the start.
#[derive(Clone, Debug)]
pub struct App {
    /// Name of its Deployment, its budget and its label `app`.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// What a pod requests, thousandths of a core.
    pub cpu_millis: u32,
    /// What a pod requests, MiB.
    pub memory_mib: u32,
    /// `maxUnavailable` of its PodDisruptionBudget, if it has one.
    pub max_unavailable: Option<u32>,
}

/// What a world begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Spot nodes.
    pub spot_nodes: u32,
    /// On-demand nodes.
    pub on_demand_nodes: u32,
    /// Applications.
    pub apps: Vec<App>,
    /// Settings of the pool.
    pub policy: PolicySpec,
    /// Whether the groups know LaunchInstances; if not, they are served by SetDesiredCapacity.
    pub launch_instances: bool,
    /// In how many zones the groups are, three at the most.
    pub zones: usize,
    /// Whether the groups are those of EKS managed node groups.
    pub managed: bool,
    /// What on-demand stands in for if they are.
    pub cover: CoverSpec,
    /// How many on-demand instances the pool is to have, if it says so.
    pub baseline: OnDemandSpec,
    /// Whether a cluster-autoscaler scales the groups, too: by the priority expander, Spot first.
    pub autoscaler: bool,
    /// Whether the controllers drain Spot nodes outside all pools.
    pub drain_outside_pools: bool,
}

impl Start {
    /// Lets those scale and drain the groups, too, that are there.
    pub(super) fn start_neighbours(&self, cloud: &Cloud, client: &Client) {
        let pool = self.pool();
        pool.start_drainer(cloud, client);
        if self.autoscaler {
            actix::spawn(pool.autoscaler(cloud, client.clone()).run());
        }
    }

    pub(super) fn nodes(&self) -> usize {
        (self.spot_nodes + self.on_demand_nodes) as usize
    }

    /// Its pool.
    #[must_use]
    pub fn pool(&self) -> PoolStart {
        PoolStart {
            name: POOL.to_owned(),
            spot_nodes: self.spot_nodes,
            on_demand_nodes: self.on_demand_nodes,
            policy: self.policy.clone(),
            launch_instances: self.launch_instances,
            zones: self.zones,
            managed: self.managed,
            cover: self.cover,
            baseline: self.baseline.clone(),
        }
    }
}

/// A pool of a world: a pair of groups, and the SpotPool that names them.
#[derive(Clone, Debug)]
pub struct PoolStart {
    /// Its name; its groups are called after it.
    pub name: String,
    /// Spot nodes.
    pub spot_nodes: u32,
    /// On-demand nodes.
    pub on_demand_nodes: u32,
    /// Settings of the pool.
    pub policy: PolicySpec,
    /// Whether its groups know LaunchInstances.
    pub launch_instances: bool,
    /// In how many zones its groups are, three at the most.
    pub zones: usize,
    /// Whether its groups are those of EKS managed node groups.
    pub managed: bool,
    /// What on-demand stands in for if they are.
    pub cover: CoverSpec,
    /// How many on-demand instances it is to have, if it says so.
    pub baseline: OnDemandSpec,
}

impl PoolStart {
    /// The name of its Spot group.
    #[must_use]
    pub fn spot(&self) -> String {
        format!("{}-spot", self.name)
    }

    /// The name of its on-demand group.
    #[must_use]
    pub fn on_demand(&self) -> String {
        format!("{}-on-demand", self.name)
    }

    /// Lets EKS drain the nodes of its groups if they are those of managed node groups.
    pub(super) fn start_drainer(&self, cloud: &Cloud, client: &Client) {
        if self.managed {
            let groups = vec![self.spot(), self.on_demand()];
            actix::spawn(EksDrainer::new(cloud.clone(), client.clone(), groups).run());
        }
    }

    pub(super) fn add_groups(&self, cloud: &Cloud, boot: BootTimes) {
        for (name, market, desired) in [
            (self.spot(), Market::Spot, self.spot_nodes),
            (self.on_demand(), Market::OnDemand, self.on_demand_nodes),
        ] {
            let mut spec = GroupSpec {
                zones: ZONES.iter().take(self.zones).map(|zone| (*zone).to_owned()).collect(),
                instance_type: "m5.xlarge".to_owned(),
                min: 0,
                max: 50,
                desired,
                launch_instances: self.launch_instances,
                cpu_millis: CPU_MILLIS.into(),
                memory_bytes: u64::from(MEMORY_GIB) << 30,
                boot,
                ..GroupSpec::new(&name, market)
            };
            if self.managed {
                spec = spec.of_managed_node_group(&name);
            }
            cloud.add_group(spec);
        }
    }

    /// Its groups as cluster-autoscaler scales them: by the priority expander, Spot first.
    #[must_use]
    pub fn scaled_groups(&self) -> [ScaledGroup; 2] {
        [(self.spot(), 20), (self.on_demand(), 10)].map(|(name, priority)| ScaledGroup {
            name,
            priority,
            cpu_millis: CPU_MILLIS.into(),
            memory_bytes: i64::from(MEMORY_GIB) << 30,
        })
    }

    /// cluster-autoscaler with its defaults, but that it removes nothing as long as a scenario may last.
    fn autoscaler(&self, cloud: &Cloud, client: Client) -> Autoscaler {
        let times = AutoscalerTimes { unneeded: NEVER, ..AutoscalerTimes::default() };
        Autoscaler::new(cloud.clone(), client, self.scaled_groups().into(), times)
    }

    pub(super) fn object(&self) -> SpotPool {
        // No load balancer serves a world whose scenario does not say so.
        let wait_before_termination_seconds = self.policy.wait_before_termination_seconds.or(Some(0));
        let spec = SpotPoolSpec {
            spot_group: self.spot().into(),
            on_demand_group: self.on_demand().into(),
            on_demand: self.baseline.clone(),
            cover: self.cover,
            hourly_prices: Some(HourlyPrices { spot: "0.07".to_owned(), on_demand: "0.192".to_owned() }),
            policy: PolicySpec { wait_before_termination_seconds, ..self.policy.clone() },
            ..SpotPoolSpec::default()
        };
        SpotPool::new(&self.name, spec)
    }
}
