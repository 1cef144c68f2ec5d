//! The side door: what scenarios build, break and look at without a client.

use super::deletion::DeleteOptions;
use super::disruption;
use super::handle::Cluster;
use super::json::{Labels, ObjectKey, set_condition, text};
use super::objects::Half;
use super::refusal::{Refusal, not_found};
use super::request::{Identity, RequestInfo};
use super::resources::{ResourceKind, id_of, resource_id};
use super::view::PodView;
use super::world::{Change, PdbViolation, Timing, Validator};
use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::broadcast;

/// A node to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Object name, also its hostname label.
    pub name: String,
    /// `aws:///<zone>/<instance id>`.
    pub provider_id: String,
    /// Availability zone.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// Labels besides those that every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints as (key, value, effect).
    pub taints: Vec<(String, String, String)>,
    /// Allocatable cpu in thousandths.
    pub cpu_millis: i64,
    /// Allocatable memory.
    pub memory_bytes: i64,
    /// How many pods it takes.
    pub pods: i64,
    /// Whether it is Ready from the start.
    pub ready: bool,
}

impl NodeSpec {
    /// A ready node of 4 cpus and 16 GiB.
    #[must_use]
    pub fn new(name: &str, provider_id: &str, zone: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider_id: provider_id.to_owned(),
            zone: zone.to_owned(),
            instance_type: "m5.xlarge".to_owned(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cpu_millis: 4000,
            memory_bytes: 16 << 30,
            pods: 58,
            ready: true,
        }
    }
}

/// What a deployment has besides its size.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// Namespace, `default` if empty. It is made if it does not exist.
    pub namespace: String,
    /// Labels of the pods besides `app=<name>`.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// Merged into the pod's spec: affinity, tolerations, nodeSelector, volumes, ...
    pub pod_spec: Option<Value>,
}

impl Cluster {
    /// Serves one more resource.
    pub fn register_resource(&self, kind: ResourceKind) {
        self.world().store.register(kind);
    }

    /// How long things take from now on.
    pub fn set_timing(&self, timing: Timing) {
        self.world().timing = timing;
    }

    /// Who may do what, for requests and access reviews alike.
    pub fn set_policy(&self, policy: impl Fn(&Identity, &RequestInfo) -> bool + Send + Sync + 'static) {
        self.world().policy = Arc::new(policy);
    }

    /// Adds an admission check for creates, updates and patches.
    pub fn add_validator(&self, validator: Validator) {
        self.world().validators.push(validator);
    }

    /// Makes a bearer token known, to [`Cluster::handle`] and to token reviews.
    pub fn add_token(&self, token: &str, identity: Identity) {
        self.add_token_until(token, identity, Timestamp::MAX);
    }

    /// The same for a token that is valid until then.
    pub fn add_token_until(&self, token: &str, identity: Identity, until: Timestamp) {
        self.world().tokens.insert(token.to_owned(), (identity, until));
    }

    /// Creates an object of any registered kind, its namespace too. The status is kept as given.
    ///
    /// # Errors
    /// As the API refuses it.
    pub fn create_json(&self, object: Value) -> Result<Value, Refusal> {
        self.create_checked(object, None)
    }

    /// The same by somebody else, whom the admission checks may refuse.
    ///
    /// # Errors
    /// As the API or an admission check refuses it.
    pub fn create_json_as(&self, object: Value, by: &Identity) -> Result<Value, Refusal> {
        self.create_checked(object, Some(by))
    }

    fn create_checked(&self, object: Value, by: Option<&Identity>) -> Result<Value, Refusal> {
        let mut world = self.world();
        let (api_version, name) = (
            text(&object, "/apiVersion").unwrap_or_default().to_owned(),
            text(&object, "/kind").unwrap_or_default().to_owned(),
        );
        let found = world.store.kinds().find(|kind| kind.kind == name && kind.api_version() == api_version);
        let Some(kind) = found.cloned() else { return Err(not_found(&name, &api_version, "")) };
        let mut object = object;
        if kind.namespaced {
            let namespace = text(&object, "/metadata/namespace").unwrap_or("default").to_owned();
            object["metadata"]["namespace"] = json!(namespace);
            world.ensure_namespace(&namespace);
        }
        if let Some(by) = by {
            let info = RequestInfo {
                verb: "create".to_owned(),
                group: kind.group.clone(),
                version: kind.version.clone(),
                resource: kind.plural.clone(),
                namespace: text(&object, "/metadata/namespace").map(str::to_owned),
                ..RequestInfo::default()
            };
            world.authorize(&info, by)?;
            world.validators.iter().try_for_each(|validator| validator(&info, &object, by))?;
        }
        let status = object.get("status").cloned();
        let created = world.create(&kind, object, false)?;
        if let Some(status) = status {
            world.edit(&kind.id(), &ObjectKey::of(&created), |object| object["status"] = status);
        }
        let stored = world.existing(&kind, &ObjectKey::of(&created))?;
        Ok(Value::clone(&stored))
    }

    /// One object; the namespace is empty for cluster-scoped ones. `None` if it does not exist or is no `K`.
    #[must_use]
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let object = self.get_json(&id_of::<K>(), namespace, name)?;
        readable(&object)
    }

    /// One object as JSON, by `plural.group`.
    #[must_use]
    pub fn get_json(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.world().store.get(resource, &ObjectKey::new(namespace, name)).cloned()
    }

    /// All objects of a type, in all namespaces.
    #[must_use]
    pub fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        self.list_json(&id_of::<K>()).into_iter().filter_map(|object| readable(&object)).collect()
    }

    /// All objects of a resource as JSON, by `plural.group`.
    #[must_use]
    pub fn list_json(&self, resource: &str) -> Vec<Arc<Value>> {
        self.world().store.all(resource).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Replaces an object, spec and status at once, whatever version it has.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn update<K>(&self, object: &K) -> Result<(), Refusal>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let object = serde_json::to_value(object).unwrap_or_default();
        let mut world = self.world();
        let id = resource_id(&K::group(&()), &K::plural(&()));
        let Some(kind) = world.store.table(&id).map(|table| table.kind.clone()) else {
            return Err(not_found(&K::plural(&()), &K::group(&()), ""));
        };
        let key = ObjectKey::of(&object);
        for half in [Half::Main, Half::Status] {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] =
                world.existing(&kind, &key)?["metadata"]["resourceVersion"].clone();
            world.replace(&kind, &key, object, half, false, &Identity::admin())?;
        }
        Ok(())
    }

    /// Changes the stored JSON of an object, as a controller would.
    pub fn edit(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.world().edit(resource, &ObjectKey::new(namespace, name), change);
    }

    /// Takes an object away, whatever it is like. `false` if there was none.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.world().remove(resource, &ObjectKey::new(namespace, name)).is_some()
    }

    /// Somebody who minds no budget deletes a pod, with its grace period. `false` if there was none.
    pub fn delete_pod(&self, namespace: &str, name: &str) -> bool {
        self.delete("pods", namespace, name)
    }

    /// Somebody deletes an object, which stays as long as a grace period or its finalizers say. `false` if
    /// there was none.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let mut world = self.world();
        let Some(kind) = world.store.table(resource).map(|table| table.kind.clone()) else { return false };
        world.delete(&kind, &ObjectKey::new(namespace, name), &DeleteOptions::default(), None).is_ok()
    }

    /// The built-in controllers take in what was changed, before anybody else does anything.
    pub fn settle(&self) {
        self.world().reconcile();
    }

    /// A node joins.
    pub fn add_node(&self, spec: &NodeSpec) {
        let mut labels = spec.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", spec.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("topology.kubernetes.io/zone", spec.zone.as_str()),
            ("node.kubernetes.io/instance-type", spec.instance_type.as_str()),
        ] {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        if let Some(region) = spec.zone.get(..spec.zone.len().saturating_sub(1)).filter(|r| !r.is_empty()) {
            labels.entry("topology.kubernetes.io/region".to_owned()).or_insert_with(|| region.to_owned());
        }
        let taints: Vec<Value> = spec
            .taints
            .iter()
            .map(|(key, value, effect)| json!({ "key": key, "value": value, "effect": effect }))
            .collect();
        let amounts = json!({ "cpu": format!("{}m", spec.cpu_millis), "memory": spec.memory_bytes.to_string(),
            "pods": spec.pods.to_string(), "ephemeral-storage": (100_i64 << 30).to_string() });
        let mut node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": spec.name, "labels": labels },
            "spec": { "providerID": spec.provider_id },
            "status": { "capacity": amounts, "allocatable": amounts,
                "addresses": [{ "type": "Hostname", "address": spec.name }],
                "nodeInfo": { "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "",
                    "systemUUID": "", "kernelVersion": "6.12", "osImage": "simulated",
                    "containerRuntimeVersion": "simulated", "kubeletVersion": "v1.37.2",
                    "kubeProxyVersion": "" } },
        });
        if !taints.is_empty() {
            node["spec"]["taints"] = json!(taints);
        }
        let now = self.world().now();
        ready_condition(&mut node, spec.ready, now);
        if let Err(refusal) = self.create_json(node) {
            tracing::warn!(node = spec.name, %refusal, "the node cannot join");
        }
    }

    /// The node's kubelet is heard of again, or no longer.
    pub fn set_node_ready(&self, name: &str, ready: bool) {
        let mut world = self.world();
        let now = world.now();
        world.edit("nodes", &ObjectKey::new("", name), |node| ready_condition(node, ready, now));
    }

    /// The node object goes, as when its instance is terminated. `false` if there was none.
    pub fn delete_node(&self, name: &str) -> bool {
        self.world().remove("nodes", &ObjectKey::new("", name)).is_some()
    }

    /// The readiness of a running pod, as its probe would set it.
    pub fn set_pod_ready(&self, namespace: &str, name: &str, ready: bool) {
        let mut world = self.world();
        let now = world.now();
        world.edit("pods", &ObjectKey::new(namespace, name), |pod| {
            let status = if ready { "True" } else { "False" };
            set_condition(pod, "Ready", status, "", "", now);
            set_condition(pod, "ContainersReady", status, "", "", now);
        });
    }

    /// A deployment of pods labelled `app=<name>`.
    ///
    /// # Errors
    /// As the API refuses it.
    pub fn add_deployment(
        &self,
        name: &str,
        replicas: i64,
        cpu_millis: i64,
        memory_bytes: i64,
        options: Deployment,
    ) -> Result<Value, Refusal> {
        let namespace = if options.namespace.is_empty() { "default" } else { &options.namespace };
        let mut labels = options.labels;
        labels.insert("app".to_owned(), name.to_owned());
        let requests = json!({ "cpu": format!("{cpu_millis}m"), "memory": memory_bytes.to_string() });
        let mut spec = json!({ "containers": [
            { "name": "main", "image": "app:1", "resources": { "requests": requests } }] });
        if let (Value::Object(spec), Some(Value::Object(more))) = (&mut spec, options.pod_spec) {
            spec.extend(more);
        }
        self.create_json(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "namespace": namespace, "name": name },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": name } },
                "template": { "metadata": { "labels": labels, "annotations": options.annotations },
                    "spec": spec } },
        }))
    }

    /// A budget in the namespace `default`: numbers or percentages, of which one is given.
    ///
    /// # Errors
    /// As the API refuses it.
    pub fn add_pdb(
        &self,
        name: &str,
        selector: &[(&str, &str)],
        min_available: Option<Value>,
        max_unavailable: Option<Value>,
    ) -> Result<Value, Refusal> {
        let selector: Labels =
            selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.create_json(disruption::budget("default", name, &selector, min_available, max_unavailable))
    }

    /// The pods that have no node.
    #[must_use]
    pub fn pending_pods(&self) -> Vec<ObjectKey> {
        let world = self.world();
        let waiting = |pod: &&PodView| pod.node.is_empty() && !pod.terminating && !pod.finished();
        world.view.pods.values().filter(waiting).map(|pod| pod.key.clone()).collect()
    }

    /// The pods of a node that are not finished, those of daemons and mirror pods among them.
    #[must_use]
    pub fn pods_on(&self, node: &str) -> Vec<ObjectKey> {
        let world = self.world();
        world.view.pods_on(node).filter(|pod| !pod.finished()).map(|pod| pod.key.clone()).collect()
    }

    /// The pods of a node that a drain has to move: not finished, no mirror, no daemon's.
    #[must_use]
    pub fn movable_pods_on(&self, node: &str) -> Vec<ObjectKey> {
        let world = self.world();
        world
            .view
            .pods_on(node)
            .filter(|pod| !pod.finished() && !pod.mirror)
            .filter(|pod| pod.owner.as_ref().is_none_or(|owner| owner.kind != "DaemonSet"))
            .map(|pod| pod.key.clone())
            .collect()
    }

    /// The pods of some nodes that would find no place together on the others, if they had to move now. Nodes
    /// in `without` do not count.
    #[must_use]
    pub fn homeless_without(&self, nodes: &[&str], without: &BTreeSet<String>) -> Vec<ObjectKey> {
        let movable: Vec<_> = nodes.iter().flat_map(|node| self.movable_pods_on(node)).collect();
        let world = self.world();
        // They leave together, and each that has found a place counts for the next one.
        let mut view = world.view.clone();
        let mut pods: Vec<PodView> = movable.iter().filter_map(|key| view.unbind(key)).collect();
        pods.retain(|pod| !pod.terminating);
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.requests.get("cpu").copied().unwrap_or(0)));
        let mut homeless = Vec::new();
        for pod in pods {
            let around = world.surroundings(&view, &pod);
            let mut others = view
                .nodes
                .values()
                .filter(|other| !nodes.contains(&&*other.name) && !without.contains(&other.name));
            let home = others.find(|other| around.fits(&view, &pod, other).is_ok());
            match home.map(|home| home.name.clone()) {
                Some(home) => view.bind(pod, &home),
                None => homeless.push(pod.key.clone()),
            }
        }
        homeless
    }

    /// Every time that a client took a pod below what its budget demands.
    #[must_use]
    pub fn pdb_violations(&self) -> Vec<PdbViolation> {
        self.world().violations.clone()
    }

    /// Every change from now on; a receiver that lags by more than 4,096 changes loses the oldest.
    #[must_use]
    pub fn subscribe_changes(&self) -> broadcast::Receiver<Change> {
        self.world().changes.subscribe()
    }

    /// Forgets the history: watches from before now are told 410 Gone.
    pub fn compact(&self) {
        self.world().store.compact();
    }

    /// Ends every open watch, as a restart of the API server does.
    pub fn close_watches(&self) {
        self.world().store.close_watches();
    }
}

/// Reads an object without the fields that nobody here needs and in which others may put what our types
/// cannot hold: the truth must not depend on them.
pub fn readable<K: DeserializeOwned>(object: &Value) -> Option<K> {
    let mut object = object.clone();
    for (outer, field) in [("metadata", "managedFields"), ("status", "startTime")] {
        if let Some(Value::Object(map)) = object.get_mut(outer) {
            map.remove(field);
        }
    }
    serde_json::from_value(object).ok()
}

fn ready_condition(node: &mut Value, ready: bool, now: jiff::Timestamp) {
    let (status, reason, message) = if ready {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
    };
    set_condition(node, "Ready", status, reason, message, now);
}
