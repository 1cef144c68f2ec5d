//! A world for a scenario: the simulated cloud, a cluster (simulated, or a real one), and the real product in
//! it.

use crate::actors::supervision::Shutdown;
use crate::agent;
use crate::clock::Clock;
use crate::controller::{Actors, CALL_TIMEOUT, Controller, ControllerSettings};
use crate::crd::{self, InterruptionNotice, NodeReplacement, SpotPool};
use crate::kube::autoscaler::AutoscalerLease;
use crate::kube::lease::LeaseTimes;
use crate::sim::kubelet::{self, is_ready, pod_is_ready};
use crate::sim::nodes::{DEMO_LABEL, KubeNodes, NodeChange};
pub use crate::sim::start::{App, ON_DEMAND, POOL, PoolStart, SPOT, Start, ZONES};
use anyhow::Context as _;
use aws_config::imds;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use spot_guard_cloud::cloud::{self, BootTimes, Cloud, Market};
use spot_guard_cloud::cluster::{self, Cluster};
use spot_guard_core::policy::Policy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The key of the taint, as it is configured by default.
pub const TAINT: &str = crate::config::DEFAULT_TAINT_KEY;

/// Where a scenario plays, and how fast its cloud is.
#[derive(Clone)]
pub struct WorldOptions {
    /// The real cluster that it plays on; without it, a simulated one.
    pub client: Option<Client>,
    /// Whether this process plays what runs on the machines: the agents of the Spot nodes and, on a real
    /// cluster, the kubelets. If not, they are the caller's.
    pub plays_machines: bool,
    /// How long a new instance takes.
    pub boot: BootTimes,
    /// The timings of the cloud.
    pub cloud: cloud::CloudSettings,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            client: None,
            plays_machines: true,
            boot: BootTimes::default(),
            cloud: cloud::CloudSettings::default(),
        }
    }
}

/// A world.
pub struct World {
    /// Its time.
    pub clock: Clock,
    /// Its cloud.
    pub cloud: Cloud,
    /// Its cluster, if it is a simulated one.
    pub cluster: Option<Cluster>,
    /// A client with all rights.
    pub client: Client,
    drain_outside_pools: bool,
    agents_end: Shutdown,
}

impl World {
    /// A world on a stage. To be called inside an actix system.
    ///
    /// # Errors
    /// When the cluster refuses what the scenario needs.
    pub async fn begin_on(
        start: &Start,
        clock: Clock,
        seed: u64,
        stage: WorldOptions,
    ) -> anyhow::Result<Self> {
        let cloud = Cloud::new(clock.into(), seed);
        cloud.configure(|settings| *settings = stage.cloud);
        start.pool().add_groups(&cloud, stage.boot);
        let (cluster, client) = match stage.client {
            Some(client) => (None, client),
            None => {
                let cluster = Cluster::new(clock.into(), seed);
                let client = cluster.client();
                actix::spawn(cluster.clone().run());
                (Some(cluster), client)
            }
        };
        start.start_neighbours(&cloud, &client);
        let drain_outside_pools = start.drain_outside_pools;
        let world = Self { clock, cloud, cluster, client, drain_outside_pools, agents_end: Shutdown::new() };
        if world.cluster.is_none() {
            world.define_kinds().await?;
        }
        if world.cluster.is_none() && stage.plays_machines {
            actix::spawn(kubelet::run(world.client.clone()));
        }
        if world.cluster.is_some() {
            world.install(start).await?;
            world.run_nodes(stage.plays_machines);
        } else {
            // Its scheduler would crowd the pods onto the nodes that come first.
            world.run_nodes(stage.plays_machines);
            world.until(async || world.open_nodes().await >= start.nodes()).await;
            world.install(start).await?;
        }
        let pods = start.apps.iter().map(|app| app.replicas).sum::<u32>() as usize;
        world
            .until(async || {
                let running = world.pods().await.iter().filter(|pod| pod_is_ready(pod)).count();
                running >= pods && world.open_nodes().await >= start.nodes()
            })
            .await;
        Ok(world)
    }

    /// Installs the custom resources on a real cluster.
    async fn define_kinds(&self) -> anyhow::Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for definition in crd::definitions() {
            let name = definition.name_any();
            let apply = PatchParams::apply("spot-guard-demo").force();
            api.patch(&name, &apply, &Patch::Apply(&definition)).await?;
            let established = await_condition(api.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established)
                .await
                .with_context(|| format!("{name} is not established"))??;
        }
        Ok(())
    }

    /// Removes from a real cluster what the world made in it.
    pub async fn clean_up(&self) {
        if self.cluster.is_some() {
            return;
        }
        let all = ListParams::default();
        let now = DeleteParams::default();
        let own = ListParams::default().labels(DEMO_LABEL);
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "default");
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), "default");
        let pools: Api<SpotPool> = Api::all(self.client.clone());
        let notices: Api<InterruptionNotice> = Api::all(self.client.clone());
        let records: Api<NodeReplacement> = Api::all(self.client.clone());
        let nodes: Api<Node> = Api::all(self.client.clone());
        let results = [
            pools.delete(POOL, &now).await.map(drop),
            deployments.delete_collection(&now, &own).await.map(drop),
            budgets.delete_collection(&now, &own).await.map(drop),
            notices.delete_collection(&now, &all).await.map(drop),
            records.delete_collection(&now, &all).await.map(drop),
            nodes.delete_collection(&now, &own).await.map(drop),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "something of the demo is left in the cluster");
        }
    }

    /// Adds a pool, and waits until its nodes are Ready.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn add_pool(&self, pool: &PoolStart, boot: BootTimes) -> anyhow::Result<()> {
        let wanted = self.open_nodes().await + (pool.spot_nodes + pool.on_demand_nodes) as usize;
        pool.add_groups(&self.cloud, boot);
        pool.start_drainer(&self.cloud, &self.client);
        let pools: Api<SpotPool> = Api::all(self.client.clone());
        pools.create(&PostParams::default(), &pool.object()).await?;
        self.until(async || self.open_nodes().await >= wanted).await;
        Ok(())
    }

    /// Makes the pool and the applications.
    async fn install(&self, start: &Start) -> anyhow::Result<()> {
        let pools: Api<SpotPool> = Api::all(self.client.clone());
        pools.create(&PostParams::default(), &start.pool().object()).await?;
        for app in &start.apps {
            self.create("/apis/apps/v1/namespaces/default/deployments", &deployment(app)).await?;
            if let Some(max_unavailable) = app.max_unavailable {
                let budget = json!({
                    "apiVersion": "policy/v1",
                    "kind": "PodDisruptionBudget",
                    "metadata": { "name": app.name, "namespace": "default", "labels": { DEMO_LABEL: "true" } },
                    "spec": { "maxUnavailable": max_unavailable, "selector": { "matchLabels": { "app": app.name } } },
                });
                self.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", &budget).await?;
            }
        }
        Ok(())
    }

    async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(object)?)?;
        self.client.request::<Value>(request).await?;
        Ok(())
    }

    /// Lets instances become nodes, and runs an agent on each Spot node if that is wanted.
    fn run_nodes(&self, with_agents: bool) {
        let (sender, mut changes) = mpsc::channel::<NodeChange>(4096);
        let listener = Arc::new(move |change| {
            if sender.try_send(change).is_err() {
                tracing::error!("an agent could not be started or stopped: too many nodes changed at once");
            }
        });
        let host = KubeNodes::new(self.client.clone(), listener, self.clock);
        actix::spawn(self.cloud.clone().run(Arc::new(host)));
        let (cloud, cluster, client) = (self.cloud.clone(), self.cluster.clone(), self.client.clone());
        let (clock, end) = (self.clock, self.agents_end.clone());
        actix::spawn(async move {
            let mut agents: BTreeMap<String, Shutdown> = BTreeMap::new();
            while let Some(change) = changes.recv().await {
                match change {
                    NodeChange::Ready { node, instance_id } => {
                        let spot =
                            cloud.node_of(&instance_id).is_some_and(|found| found.market == Market::Spot);
                        if !with_agents || !spot || agents.contains_key(&node) || end.is_triggered() {
                            continue;
                        }
                        let identity = cluster::Identity::service_account("spot-guard", "spot-guard-agent")
                            .on_node(&node);
                        let client = cluster
                            .as_ref()
                            .map_or_else(|| client.clone(), |cluster| cluster.client_as(identity));
                        let imds =
                            imds::Client::builder().configure(&cloud.imds_provider(&instance_id, None));
                        let poll = Duration::from_secs(2);
                        let running = agent::start(node.clone(), client, imds, clock, poll);
                        agents.insert(node, running.shutdown);
                    }
                    NodeChange::Stopped { node } => {
                        if let Some(stop) = agents.remove(&node) {
                            stop.trigger();
                        }
                    }
                }
            }
        });
    }

    /// Waits until this holds; a real cluster may take its time, but not for ever.
    async fn until(&self, mut holds: impl AsyncFnMut() -> bool) {
        for _ in 0..600 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// How many of the world's nodes are Ready and take pods.
    async fn open_nodes(&self) -> usize {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let is_open = |node: &&Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
            self.owns(node) && is_ready(node) && taints.is_empty()
        };
        found.iter().filter(is_open).count()
    }

    fn owns(&self, node: &Node) -> bool {
        let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default();
        provider_id.rsplit('/').next().is_some_and(|instance| self.cloud.node_of(instance).is_some())
    }

    /// The pods of the applications.
    pub async fn pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let own = ListParams::default().labels(DEMO_LABEL);
        pods.list(&own).await.map(|list| list.items).unwrap_or_default()
    }

    /// Starts a controller; `end` ends it gracefully.
    pub fn start_controller(&self, identity: &str, gates: Gates, end: &Shutdown) -> ControllerHandle {
        let client = match (&self.cluster, gates.kube) {
            (Some(cluster), Some(gate)) => cluster.client_with(gate),
            (Some(cluster), None) => cluster.client(),
            (None, _) => self.client.clone(),
        };
        let clock = gates.clock.unwrap_or(self.clock);
        let controller =
            Controller::new(self.settings(identity), client, &self.cloud.sdk_config(gates.aws), clock)
                .with_checks_inline();
        let handle = ControllerHandle {
            view: controller.view.clone(),
            metrics: controller.metrics.clone(),
            readiness: controller.readiness.clone(),
            leading: controller.leading(),
            holder: controller.holder(),
            last_readings: controller.last_readings.clone(),
            actors: controller.actors(),
        };
        actix::spawn(controller.run(end.clone()));
        handle
    }

    fn settings(&self, identity: &str) -> ControllerSettings {
        ControllerSettings {
            namespace: "default".to_owned(),
            lease: "spot-guard".to_owned(),
            identity: identity.to_owned(),
            times: LeaseTimes {
                duration: Duration::from_secs(15),
                renew: Duration::from_secs(5),
                call_timeout: CALL_TIMEOUT,
            },
            autoscaler_lease: AutoscalerLease::default(),
            taint_key: TAINT.to_owned(),
            notifications: Vec::new(),
            queue_url: self.cloud.has_queue().then(|| "https://sqs.sim/111122223333/notices".to_owned()),
            // Every node of a world is young when its scenario begins.
            defaults: Policy { min_node_age_seconds: 0, ..Policy::default() },
            drain_outside_pools: self.drain_outside_pools,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.agents_end.trigger();
    }
}

/// Where faults can be put between a controller and its world.
#[derive(Clone, Default)]
pub struct Gates {
    /// On the way to the Kubernetes API.
    pub kube: Option<Arc<dyn cluster::RequestGate>>,
    /// On the way to the Auto Scaling API.
    pub aws: Option<Arc<dyn cloud::CallGate>>,
    /// The clock of the controller's machine, if it shows another time than the world's.
    pub clock: Option<Clock>,
}

/// What a running controller shows.
#[derive(Clone)]
pub struct ControllerHandle {
    /// Its view of the cluster.
    pub view: crate::kube::view::View,
    /// What it counts.
    pub metrics: Arc<crate::telemetry::metrics::Metrics>,
    /// What works in it.
    pub readiness: crate::telemetry::readiness::Readiness,
    /// Whether it leads.
    pub leading: tokio::sync::watch::Receiver<bool>,
    /// Who holds the lease, as it saw it last.
    pub holder: tokio::sync::watch::Receiver<Option<String>>,
    /// When it last read the groups of each pool.
    pub last_readings: crate::actors::last_readings::LastReadings,
    /// Its actors, while it leads.
    pub actors: tokio::sync::watch::Receiver<Option<Actors>>,
}

fn deployment(app: &App) -> Value {
    let requests =
        json!({ "cpu": format!("{}m", app.cpu_millis), "memory": format!("{}Mi", app.memory_mib) });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": app.name, "namespace": "default", "labels": { DEMO_LABEL: "true" } },
        "spec": {
            "replicas": app.replicas,
            "selector": { "matchLabels": { "app": app.name } },
            "template": {
                "metadata": { "labels": { "app": app.name, DEMO_LABEL: "true" } },
                "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "nodeSelector": { DEMO_LABEL: "true" },
                    "containers": [{ "name": "main", "image": "registry.invalid/app:1", "resources": { "requests": requests } }],
                },
            },
        },
    })
}
