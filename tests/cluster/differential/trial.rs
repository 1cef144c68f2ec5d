//! One cluster on the real control plane: what the check says of it, and what the scheduler makes of the
//! drain.

use super::generator::{Cluster, DRIVER, LEAVING, NAMESPACES, PodPlan, SCRATCH, TAINT};
use crate::helpers::{object, wait_for};
use fastrand::Rng;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spot_guard::kube::view::View;
use spot_guard_core::cluster::{DisruptionBudget, VolumeReach};
use spot_guard_core::placement::ExcludedNodes;
use spot_guard_core::safety::{self, SafetyContext, SafetyPolicy, SafetyReport};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long something may take that takes milliseconds on an idle machine. Beside much other work the API
/// server is so slow that it gives up a call by itself, after half a minute; then the call is made again.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many objects are created at a time.
const PARALLEL: usize = 16;
/// How many orders are tried.
pub const ORDERS: u64 = 20;
/// How often a call is made before it counts as failed: a machine that is busy lets some time out.
const TRIES: u32 = 5;
/// Of these, so many evict one pod after another, each made anew at once. In the others all pods are gone
/// before the first is made anew.
const ONE_BY_ONE: u64 = 5;

/// What the scheduler did with each pod, kept by a watch.
pub struct Watched {
    state: Arc<Mutex<BTreeMap<String, Fate>>>,
    changed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Fate {
    node: Option<String>,
    /// What the scheduler says of a pod that it found no node for.
    unschedulable: Option<String>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Watches all pods. Their names differ, whatever their namespace.
    pub fn start(client: &Client) -> Self {
        let state: Arc<Mutex<BTreeMap<String, Fate>>> = Arc::default();
        let (sender, changed) = watch::channel(0);
        let held = state.clone();
        let pods: Api<Pod> = Api::all(client.clone());
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher::watcher(pods, watcher::Config::default()));
            while let Some(event) = events.next().await {
                {
                    let mut state = held.lock().unwrap_or_else(PoisonError::into_inner);
                    match event.expect("the watch of pods goes on") {
                        Event::Apply(pod) | Event::InitApply(pod) => {
                            state.insert(pod.metadata.name.clone().unwrap_or_default(), fate(&pod));
                        }
                        Event::Delete(pod) => {
                            state.remove(&pod.metadata.name.unwrap_or_default());
                        }
                        Event::Init | Event::InitDone => {}
                    }
                }
                sender.send_modify(|version| *version += 1);
            }
        });
        Self { state, changed, task }
    }

    fn names(&self) -> BTreeSet<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.keys().cloned().collect()
    }

    fn fate(&self, name: &str) -> Fate {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.get(name).cloned().unwrap_or_default()
    }

    /// Waits until all the pods have a node. An error if the scheduler has found none for one of them and
    /// nothing has changed for `quiet`.
    async fn all_bound(&self, names: &[String], quiet: Duration) -> Result<(), String> {
        let mut changed = self.changed.clone();
        let began = Instant::now();
        loop {
            changed.mark_unchanged();
            let fates: Vec<Fate> = names.iter().map(|name| self.fate(name)).collect();
            if let Some(at) = fates.iter().position(|fate| fate.node.as_deref() == Some(LEAVING)) {
                return Err(format!("pod {} came back to the node", names[at]));
            }
            if fates.iter().all(|fate| fate.node.is_some()) {
                return Ok(());
            }
            let decided = fates.iter().all(|fate| fate.node.is_some() || fate.unschedulable.is_some());
            let left = quiet.max(Duration::from_secs(u64::from(!decided) * 30));
            if tokio::time::timeout(left, changed.changed()).await.is_err() || began.elapsed() > PATIENCE {
                let stays = names.iter().zip(&fates).find(|(_, fate)| fate.node.is_none());
                let (name, fate) = stays.expect("one has no node");
                let why = fate.unschedulable.as_deref().unwrap_or("the scheduler says nothing");
                return Err(format!("pod {name} stays pending: {why}"));
            }
        }
    }
}

fn fate(pod: &Pod) -> Fate {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let unschedulable = conditions.into_iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    });
    Fate {
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        unschedulable: unschedulable.map(|condition| condition.message.clone().unwrap_or_default()),
    }
}

/// What the scheduler made of the drain.
pub enum Drained {
    /// In every order tried, every pod of the node found another one.
    Always,
    /// In this order, for this reason, not.
    Not { order: String, reason: String },
}

/// A cluster in being.
pub struct Trial<'a> {
    pub client: &'a Client,
    pub view: &'a View,
    pub watched: &'a Watched,
    pub cluster: &'a Cluster,
    pub seed: u64,
}

/// The namespaces, priorities and the runtime class that all clusters use.
pub async fn prepare(client: &Client) {
    for (name, team) in NAMESPACES {
        let namespace = json!({ "metadata": { "name": name, "labels": { "team": team } } });
        create_global::<Namespace>(client, &[namespace]).await;
    }
    let class = |name: &str, value: i32, preemption: &str| json!({ "metadata": { "name": name }, "value": value, "preemptionPolicy": preemption });
    let classes = [
        class("low", -10, "PreemptLowerPriority"),
        class("high", 1000, "PreemptLowerPriority"),
        class("high-patient", 1000, "Never"),
    ];
    create_global::<k8s_openapi::api::scheduling::v1::PriorityClass>(client, &classes).await;
    let runtime = json!({
        "metadata": { "name": "heavy" }, "handler": "heavy",
        "overhead": { "podFixed": { "cpu": "250m", "memory": "120Mi" } },
    });
    create_global::<k8s_openapi::api::node::v1::RuntimeClass>(client, &[runtime]).await;
}

impl Trial<'_> {
    /// Creates the cluster, and returns when the product sees it as it is.
    pub async fn set_up(&self) {
        let Self { client, cluster, .. } = self;
        create_global::<Node>(client, &cluster.nodes).await;
        create_global::<CSINode>(client, &cluster.csi_nodes).await;
        create_global::<CSIDriver>(client, &cluster.csi_drivers).await;
        create_global::<VolumeAttachment>(client, &cluster.attachments).await;
        create_global::<StorageClass>(client, &cluster.classes).await;
        let capacities = cluster.capacities.iter().map(|value| (NAMESPACES[0].0, value.clone()));
        create_namespaced::<CSIStorageCapacity>(client, &capacities.collect::<Vec<_>>()).await;
        create_global::<PersistentVolume>(client, &cluster.volumes).await;
        create_namespaced::<PersistentVolumeClaim>(client, &cluster.claims).await;
        create_namespaced::<PodDisruptionBudget>(client, &cluster.budgets).await;
        let plans = cluster.bystanders.iter().chain(&cluster.movers).chain(&cluster.waiting);
        let pods: Vec<_> = plans
            .map(|plan| {
                // The scheduler has no profile of this name: nobody schedules the pods that wait, until the
                // drain begins.
                let pod = cluster.pod(plan, &plan.name, plan.node.as_deref(), "default-scheduler");
                (cluster.namespace(plan), pod)
            })
            .collect();
        create_namespaced::<Pod>(client, &pods).await;
        let foreign: Vec<_> =
            cluster.foreign.iter().map(|plan| self.foreign(plan, &plan.name, None)).collect();
        create_namespaced::<Pod>(client, &foreign).await;
        for plan in &cluster.bystanders {
            self.resize(plan).await;
        }
        if !cluster.budgets.is_empty() {
            for plan in cluster.bystanders.iter().chain(&cluster.movers) {
                self.make_ready(plan, &plan.name).await;
            }
        }
        let began = Instant::now();
        wait_for(&format!("the view to show the cluster of seed {}", self.seed), PATIENCE, async || {
            let missing = self.missing_in_view();
            if missing.is_some() && began.elapsed() > PATIENCE / 2 {
                println!("seed {}: the view does not show {}", self.seed, missing.unwrap_or_default());
            }
            missing.is_none().then_some(())
        })
        .await;
    }

    /// A pod of another scheduler, which may have put it on a node.
    fn foreign(&self, plan: &PodPlan, name: &str, node: Option<&str>) -> (&'static str, Value) {
        (self.cluster.namespace(plan), self.cluster.pod(plan, name, node, "foreign"))
    }

    /// What the kubelet says of a pod that was resized in place.
    async fn resize(&self, plan: &PodPlan) {
        let Some(status) = &self.cluster.apps[plan.app].resized else { return };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.cluster.namespace(plan));
        let status = json!({ "status": status });
        let patch = Patch::Merge(&status);
        insist("a size", async || pods.patch_status(&plan.name, &PatchParams::default(), &patch).await)
            .await
            .unwrap_or_else(|error| panic!("seed {}: {} is not resized: {error}", self.seed, plan.name));
    }

    fn is_resized(&self, pod: &spot_guard_core::cluster::Pod) -> bool {
        let plan = self.cluster.bystanders.iter().find(|plan| *plan.name == *pod.name);
        let Some(plan) = plan else { return true };
        let Some(status) = &self.cluster.apps[plan.app].resized else { return true };
        let cpu = status["allocatedResources"]["cpu"].as_str().unwrap_or_default();
        cpu.trim_end_matches('m').parse().is_ok_and(|cpu: i64| pod.spec.requests.cpu_millis >= cpu)
    }

    /// The other scheduler puts its pods where there is room, whatever kube-scheduler would do.
    async fn place_foreign(&self, order: u64, rng: &mut Rng) {
        let number = |node: &Value, what: &str, unit: &str| -> i64 {
            let text = node["status"]["allocatable"][what].as_str().unwrap_or_default();
            text.trim_end_matches(unit).parse().unwrap_or_default()
        };
        let mut room: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
        for node in &self.cluster.nodes {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let has = (number(node, "cpu", "m"), number(node, "memory", "Mi"), number(node, "pods", ""));
            room.insert(name.to_owned(), has);
        }
        room.remove(LEAVING);
        for plan in &self.cluster.bystanders {
            if let Some(room) = plan.node.as_ref().and_then(|node| room.get_mut(node)) {
                let (cpu, memory) = self.cluster.asks(plan);
                *room = (room.0 - cpu, room.1 - memory, room.2 - 1);
            }
        }
        for plan in &self.cluster.foreign {
            if order == 0 {
                self.delete(plan, &plan.name).await;
            }
            let (cpu, memory) = self.cluster.asks(plan);
            let fits = |room: &(i64, i64, i64)| room.0 >= cpu && room.1 >= memory && room.2 >= 1;
            let nodes: Vec<String> =
                room.iter().filter(|(_, room)| fits(room)).map(|(name, _)| name.clone()).collect();
            let node = rng.choice(&nodes);
            if let Some(room) = node.and_then(|node| room.get_mut(node)) {
                *room = (room.0 - cpu, room.1 - memory, room.2 - 1);
            }
            let pod = self.foreign(plan, &format!("{}-{order}", plan.name), node.map(String::as_str));
            create_namespaced::<Pod>(self.client, &[pod]).await;
        }
    }

    /// What the view does not show yet.
    fn missing_in_view(&self) -> Option<&'static str> {
        let snapshot = self.view.snapshot();
        let cluster = self.cluster;
        let names = |list: &[Value]| -> BTreeSet<String> {
            list.iter().filter_map(|o| Some(o["metadata"]["name"].as_str()?.to_owned())).collect()
        };
        let plans = cluster.bystanders.iter().chain(&cluster.movers);
        let plans = plans.chain(&cluster.waiting).chain(&cluster.foreign);
        let pods: BTreeSet<String> = plans.map(|plan| plan.name.clone()).collect();
        let seen_nodes: BTreeSet<_> = snapshot.nodes().iter().map(|node| node.name.to_string()).collect();
        let seen_pods: BTreeSet<_> = snapshot.pods().iter().map(|pod| pod.name.to_string()).collect();
        let ready = snapshot.pods().iter().all(|pod| pod.ready || pod.node.is_none());
        let bound = |(namespace, claim): &(&str, Value)| {
            let name = claim["metadata"]["name"].as_str().unwrap_or_default();
            let claim = snapshot.claim(&(*namespace).into(), &name.into());
            claim.is_some_and(|claim| claim.reach != VolumeReach::Unknown)
        };
        let counted = |budget: &DisruptionBudget| {
            let healthy = snapshot.pods().iter().filter(|pod| pod.ready && budget.covers(pod)).count();
            // Of several budgets over one pod the disruption controller counts for one.
            let several = snapshot.budgets().len() > 1;
            budget.observed && (several || usize::try_from(budget.current_healthy) == Ok(healthy))
        };
        let limited = |node: &Arc<spot_guard_core::cluster::Node>| {
            let csi = cluster.csi_nodes.iter().find(|csi| csi["metadata"]["name"] == node.name.to_string());
            let drivers = csi.and_then(|csi| csi["spec"]["drivers"].as_array()).map_or(0, Vec::len);
            node.volume_limits.len() == drivers
        };
        let attached =
            snapshot.nodes().iter().map(|node| snapshot.storage().count_on(&node.name)).sum::<usize>();
        let on_node =
            cluster.bystanders.iter().chain(&cluster.movers).filter(|plan| cluster.has_scratch(plan));
        let has_claim = |plan: &PodPlan| {
            let name = format!("{}-{SCRATCH}", plan.name);
            snapshot.claim(&cluster.namespace(plan).into(), &name.as_str().into()).is_some()
        };
        let follows = cluster.classes.is_empty()
            || snapshot.storage().follows_pod(SCRATCH) != cluster.counts_capacity();
        let must_be_installed = cluster
            .csi_drivers
            .iter()
            .any(|driver| driver["spec"]["preventPodSchedulingIfMissing"] == json!(true));
        let all = [
            ("the nodes", seen_nodes == names(&cluster.nodes)),
            ("the pods", seen_pods == pods && self.watched.names() == pods),
            ("that the pods are ready", cluster.budgets.is_empty() || ready),
            ("the nodes' limits of volumes", snapshot.nodes().iter().all(limited)),
            ("what is attached", attached == cluster.attachments.len()),
            ("the class of local volumes", follows),
            ("the claims of local volumes", on_node.into_iter().all(has_claim)),
            ("the driver", snapshot.storage().must_be_installed(DRIVER) == must_be_installed),
            ("that pods are resized", snapshot.pods().iter().all(|pod| self.is_resized(pod))),
            ("the claims", cluster.claims.iter().all(bound)),
            ("the budgets", snapshot.budgets().len() == cluster.budgets.len()),
            ("that the budgets are counted", snapshot.budgets().iter().all(counted)),
        ];
        all.into_iter().find(|(_, seen)| !seen).map(|(what, _)| what)
    }

    /// What the check says, without its limit of utilisation.
    pub fn check(&self) -> SafetyReport {
        let policy = SafetyPolicy { max_utilisation: f64::INFINITY, ..SafetyPolicy::default() };
        let excluded: ExcludedNodes = self.cluster.excluded.iter().map(String::as_str).collect();
        let context = SafetyContext { excluded, taint_key: TAINT.into(), ..SafetyContext::default() };
        safety::check_return(&LEAVING.into(), &self.view.snapshot(), &policy, &context)
    }

    /// Drains the node in one order after another, until one leaves a pod without a node. `quiet` is how long
    /// nothing may happen before a pod without a node is taken to stay so.
    pub async fn drain(&self, quiet: Duration) -> Drained {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let taint = json!([
            { "key": TAINT, "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
        ]);
        let cordon = json!({ "spec": { "unschedulable": true, "taints": taint } });
        let patch = Patch::Merge(&cordon);
        insist("the cordon", async || nodes.patch(LEAVING, &PatchParams::default(), &patch).await)
            .await
            .unwrap_or_else(|error| panic!("seed {}: the node is not cordoned: {error}", self.seed));
        for order in 0..ORDERS {
            let profile = ["spreading", "packing", "spreading", "unscored"][order as usize % 4];
            let mut rng = Rng::with_seed(self.seed.wrapping_mul(1000) + order);
            self.place_foreign(order, &mut rng).await;
            let (how, result) = if order == 0 && !self.cluster.budgets.is_empty() {
                ("by evictions", self.evict(order, profile, &mut rng, quiet).await)
            } else if order < ONE_BY_ONE {
                ("one by one", self.one_by_one(order, profile, &mut rng, quiet).await)
            } else {
                ("all at once", self.all_at_once(order, profile, &mut rng, quiet).await)
            };
            let result = result.and_then(|()| self.nobody_was_preempted());
            if let Err(reason) = result {
                return Drained::Not { order: format!("{order}, {how}, scheduled by {profile}"), reason };
            }
        }
        Drained::Always
    }

    /// A pod that took the room of another one has not found any.
    fn nobody_was_preempted(&self) -> Result<(), String> {
        let gone = self.cluster.bystanders.iter().find(|plan| self.watched.fate(&plan.name).node.is_none());
        gone.map_or(Ok(()), |plan| Err(format!("pod {} was preempted", plan.name)))
    }

    async fn evict(&self, order: u64, profile: &str, rng: &mut Rng, quiet: Duration) -> Result<(), String> {
        let mut left: Vec<&PodPlan> = self.cluster.movers.iter().collect();
        rng.shuffle(&mut left);
        self.create_waiting(order, profile).await;
        let mut anew: Vec<(&PodPlan, String)> = Vec::new();
        let mut progress = Instant::now();
        while !left.is_empty() {
            // The kubelet of the new place starts them, and the budget opens.
            for (plan, name) in &anew {
                if self.watched.fate(name).node.is_some() {
                    self.make_ready(plan, name).await;
                }
            }
            let before = left.len();
            let mut kept = Vec::new();
            for plan in left {
                match self.try_evict(plan).await {
                    Ok(true) => {
                        let name = format!("{}-{order}", plan.name);
                        self.create(plan, &name, profile).await;
                        anew.push((plan, name));
                    }
                    Ok(false) => kept.push(plan),
                    Err(error) => return Err(error),
                }
            }
            left = kept;
            if left.len() < before {
                progress = Instant::now();
            } else if progress.elapsed() > quiet {
                return Err(format!("pod {} may not be evicted", left[0].name));
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let names: Vec<String> = anew.into_iter().map(|(_, name)| name).collect();
        self.watched.all_bound(&names, quiet).await?;
        self.remove_order(order).await;
        Ok(())
    }

    /// Whether the pod was evicted; not if its budget says that it must wait.
    async fn try_evict(&self, plan: &PodPlan) -> Result<bool, String> {
        let namespace = self.cluster.namespace(plan);
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": plan.name, "namespace": namespace },
            "deleteOptions": { "gracePeriodSeconds": 0 },
        });
        let evict = async || {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{}/eviction", plan.name);
            let request = http::Request::post(path)
                .header("Content-Type", "application/json")
                .body(eviction.to_string().into_bytes())
                .expect("a valid request");
            self.client.request_text(request).await
        };
        match insist("an eviction", evict).await {
            Ok(_) => Ok(true),
            // An earlier try has done it, and its answer was lost.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
            Err(error) => Err(format!("pod {} cannot be evicted: {error}", plan.name)),
        }
    }

    async fn one_by_one(
        &self,
        order: u64,
        profile: &str,
        rng: &mut Rng,
        quiet: Duration,
    ) -> Result<(), String> {
        if order > 0 {
            let original = |plan: &PodPlan| {
                (self.cluster.namespace(plan), self.cluster.pod(plan, &plan.name, Some(LEAVING), profile))
            };
            let originals: Vec<_> = self.cluster.movers.iter().map(original).collect();
            create_namespaced::<Pod>(self.client, &originals).await;
        }
        let mut movers: Vec<&PodPlan> = self.cluster.movers.iter().collect();
        rng.shuffle(&mut movers);
        self.create_waiting(order, profile).await;
        let mut names = Vec::new();
        for plan in movers {
            self.delete(plan, &plan.name).await;
            names.push(format!("{}-{order}", plan.name));
            self.create(plan, &names[names.len() - 1], profile).await;
        }
        self.watched.all_bound(&names, quiet).await?;
        self.remove_order(order).await;
        Ok(())
    }

    async fn all_at_once(
        &self,
        order: u64,
        profile: &str,
        rng: &mut Rng,
        quiet: Duration,
    ) -> Result<(), String> {
        let mut all: Vec<(&PodPlan, bool)> = self.cluster.movers.iter().map(|plan| (plan, true)).collect();
        all.extend(self.cluster.waiting.iter().map(|plan| (plan, false)));
        rng.shuffle(&mut all);
        let mut names = Vec::new();
        for (plan, moves) in all {
            let name = format!("{}-{order}", plan.name);
            self.create(plan, &name, profile).await;
            names.extend(moves.then_some(name));
        }
        self.watched.all_bound(&names, quiet).await?;
        self.remove_order(order).await;
        Ok(())
    }

    /// The pods that wait, for the scheduler this time.
    async fn create_waiting(&self, order: u64, profile: &str) {
        for plan in &self.cluster.waiting {
            if order == 0 {
                self.delete(plan, &plan.name).await;
            }
            self.create(plan, &format!("{}-{order}", plan.name), profile).await;
        }
    }

    async fn create(&self, plan: &PodPlan, name: &str, profile: &str) {
        let pod = self.cluster.pod(plan, name, None, profile);
        create_namespaced::<Pod>(self.client, &[(self.cluster.namespace(plan), pod)]).await;
    }

    async fn delete(&self, plan: &PodPlan, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.cluster.namespace(plan));
        let now = DeleteParams::default().grace_period(0);
        match insist("a deletion", async || pods.delete(name, &now).await).await {
            Ok(_) => {}
            // Preempted.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("seed {}: pod {name} is not deleted: {error}", self.seed),
        }
    }

    async fn remove_order(&self, order: u64) {
        let plans = self.cluster.movers.iter().chain(&self.cluster.waiting).chain(&self.cluster.foreign);
        let delete =
            plans.map(|plan| async move { self.delete(plan, &format!("{}-{order}", plan.name)).await });
        stream::iter(delete).buffer_unordered(PARALLEL).collect::<()>().await;
    }

    async fn make_ready(&self, plan: &PodPlan, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.cluster.namespace(plan));
        let status = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        let patch = Patch::Strategic(&status);
        insist("a status", async || pods.patch_status(name, &PatchParams::default(), &patch).await)
            .await
            .unwrap_or_else(|error| panic!("seed {}: pod {name} is not made ready: {error}", self.seed));
    }

    /// Removes everything, and returns when the view is empty.
    pub async fn tear_down(&self) {
        let client = self.client;
        for (namespace, _) in NAMESPACES {
            delete_all(Api::<Pod>::namespaced(client.clone(), namespace)).await;
            delete_all(Api::<PodDisruptionBudget>::namespaced(client.clone(), namespace)).await;
            delete_all(Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace)).await;
        }
        delete_all(Api::<PersistentVolume>::all(client.clone())).await;
        delete_all(Api::<VolumeAttachment>::all(client.clone())).await;
        delete_all(Api::<CSIDriver>::all(client.clone())).await;
        delete_all(Api::<StorageClass>::all(client.clone())).await;
        delete_all(Api::<CSIStorageCapacity>::namespaced(client.clone(), NAMESPACES[0].0)).await;
        delete_all(Api::<CSINode>::all(client.clone())).await;
        delete_all(Api::<Node>::all(client.clone())).await;
        wait_for("the view to be empty", PATIENCE, async || {
            let snapshot = self.view.snapshot();
            let empty = snapshot.nodes().is_empty()
                && snapshot.pods().is_empty()
                && snapshot.budgets().is_empty()
                && !snapshot.storage().must_be_installed(DRIVER)
                && !snapshot.storage().follows_pod(SCRATCH)
                && self.watched.names().is_empty();
            empty.then_some(())
        })
        .await;
    }
}

/// Makes a call that may be repeated until it is answered, and says so each time it was not.
async fn insist<T>(
    what: &str,
    mut call: impl AsyncFnMut() -> Result<T, kube::Error>,
) -> Result<T, kube::Error> {
    for attempt in 1..TRIES {
        match call().await {
            Err(error) if passes(&error) => println!("{what}, try {attempt}: {error}"),
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(250) * attempt).await;
    }
    call().await
}

/// Whether the same call may be answered otherwise a little later.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 && !status.message.contains("PodDisruptionBudget"),
        _ => true,
    }
}

async fn delete_all<K: Resource + Clone + DeserializeOwned + Debug>(api: Api<K>) {
    // Repeating it does no harm, and a machine that is busy may let a call time out.
    wait_for("everything to be deleted", PATIENCE, async || {
        let now = DeleteParams::default().grace_period(0);
        let deleted = api.delete_collection(&now, &ListParams::default()).await;
        deleted.map_err(|error| println!("a deletion of everything: {error}")).ok().map(drop)
    })
    .await;
}

async fn create_global<K>(client: &Client, objects: &[Value])
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    create_all(objects.iter().map(|value| (api.clone(), value))).await;
}

async fn create_namespaced<K>(client: &Client, objects: &[(&'static str, Value)])
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
{
    let api = |namespace: &str| Api::<K>::namespaced(client.clone(), namespace);
    create_all(objects.iter().map(|(namespace, value)| (api(namespace), value))).await;
}

async fn create_all<'v, K>(objects: impl Iterator<Item = (Api<K>, &'v Value)>)
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let create = objects.map(|(api, value)| async move {
        let object: K = object(value.clone());
        match insist("an object", async || api.create(&PostParams::default(), &object).await).await {
            Ok(_) => {}
            // An earlier try has done it, and its answer was lost: names are used once.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{value} is not created: {error}"),
        }
    });
    stream::iter(create).buffer_unordered(PARALLEL).collect::<()>().await;
}
