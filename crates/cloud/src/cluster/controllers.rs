//! The built-in controllers: they act on what changed, one round after another, until nothing is left to do.

use super::deletion::DeleteOptions;
use super::json::{ObjectKey, items, number, section, set_condition, text, uid};
use super::kubelet::NODE_DAEMON_TOLERATIONS;
use super::placement::{NodeChoice, tolerates};
use super::view::PodView;
use super::world::{Job, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A round that makes work for the next one is normal; so many rounds mean two controllers at odds.
const MAX_ROUNDS: usize = 1000;

impl World {
    /// Does everything that is due and everything that follows from it.
    pub(super) fn reconcile(&mut self) {
        for _ in 0..MAX_ROUNDS {
            while let Some(job) = self.due() {
                self.perform(job);
            }
            if self.work.is_empty() {
                return;
            }
            let work = std::mem::take(&mut self.work);
            for namespace in work.lost_namespaces {
                self.empty_namespace(&namespace);
            }
            for owner in work.lost_owners {
                self.collect_dependents(&owner);
            }
            for name in work.nodes {
                self.sync_node(&name);
            }
            for mirror in work.mirrors {
                self.remake_mirror(&mirror);
            }
            for key in work.deployments {
                self.sync_deployment(&key);
            }
            for key in work.replica_sets {
                self.sync_replica_set(&key);
            }
            for key in work.daemon_sets {
                self.sync_daemon_set(&key);
            }
            for key in work.pods {
                self.sync_pod(&key);
            }
            if work.schedule {
                self.schedule();
            }
            for key in work.budgets {
                self.sync_budget(&key);
            }
        }
        tracing::warn!("the controllers of the simulated cluster do not come to rest");
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::StartPod { key, uid } => self.start_pod(&key, &uid),
            Job::StopPod { key, uid } => self.stop_pod(&key, &uid),
            Job::CollectPod { key, uid } => self.collect_pod(&key, &uid),
            Job::TaintDeletesPod { key, uid } => self.delete_for_taint(&key, &uid),
            Job::RecheckBudget { key } => self.sync_budget(&key),
        }
    }

    /// The garbage collector: what belongs to an owner that is gone goes too, unless it has another one.
    fn collect_dependents(&mut self, owner: &str) {
        for (resource, key) in self.dependents.get(owner).cloned().unwrap_or_default() {
            let Some(object) = self.store.get(&resource, &key).cloned() else { continue };
            let others = items(&object, "/metadata/ownerReferences").len() > 1;
            if others {
                self.edit(&resource, &key, |object| {
                    if let Some(Value::Array(owners)) = section(object, "metadata").get_mut("ownerReferences")
                    {
                        owners.retain(|reference| reference["uid"].as_str() != Some(owner));
                    }
                });
            } else {
                self.delete_as_controller(&resource, &key);
            }
        }
    }

    fn empty_namespace(&mut self, namespace: &str) {
        let all: Vec<(String, ObjectKey)> = self
            .store
            .kinds()
            .filter(|kind| kind.namespaced)
            .flat_map(|kind| {
                let id = kind.id();
                let keys: Vec<ObjectKey> = self.store.all(&id).map(|(key, _)| key.clone()).collect();
                keys.into_iter().map(move |key| (id.clone(), key))
            })
            .filter(|(_, key)| key.namespace == namespace)
            .collect();
        for (resource, key) in all {
            self.remove(&resource, &key);
        }
    }

    pub(super) fn delete_as_controller(&mut self, resource: &str, key: &ObjectKey) {
        let Some(kind) = self.store.table(resource).map(|table| table.kind.clone()) else { return };
        // It may be gone already; then there is nothing left to do.
        let _ = self.delete(&kind, key, &DeleteOptions::default(), None);
    }

    pub(super) fn create_as_controller(&mut self, resource: &str, object: Value) {
        let Some(kind) = self.store.table(resource).map(|table| table.kind.clone()) else { return };
        if let Err(refusal) = self.create(&kind, object, false) {
            tracing::warn!(resource, %refusal, "a built-in controller cannot create");
        }
    }

    fn sync_deployment(&mut self, key: &ObjectKey) {
        let Some(deployment) = self.store.get("deployments.apps", key).cloned() else { return };
        if deployment["metadata"]["deletionTimestamp"].is_string() {
            return;
        }
        let hash = template_hash(&deployment["spec"]["template"]);
        let replicas = number(&deployment, "/spec/replicas").unwrap_or(1);
        let current = format!("{}-{hash}", key.name);
        let sets: Vec<ObjectKey> = self
            .dependents
            .get(uid(&deployment))
            .into_iter()
            .flatten()
            .filter(|(resource, _)| resource == "replicasets.apps")
            .map(|(_, key)| key.clone())
            .collect();
        if !sets.iter().any(|set| set.name == current) {
            let set = replica_set(&deployment, key, &current, &hash, replicas);
            self.create_as_controller("replicasets.apps", set);
        }
        for set in sets {
            let wanted = if set.name == current { replicas } else { 0 };
            self.edit("replicasets.apps", &set, |object| object["spec"]["replicas"] = json!(wanted));
        }
        let set = ObjectKey::new(&key.namespace, &current);
        let (total, ready) = self.store.get("replicasets.apps", &set).map_or((0, 0), |set| {
            (number(set, "/status/replicas").unwrap_or(0), number(set, "/status/readyReplicas").unwrap_or(0))
        });
        let now = self.now();
        self.edit("deployments.apps", key, |object| {
            let generation = number(object, "/metadata/generation").unwrap_or(0);
            object["status"]["observedGeneration"] = json!(generation);
            object["status"]["replicas"] = json!(total);
            object["status"]["updatedReplicas"] = json!(total);
            object["status"]["readyReplicas"] = json!(ready);
            object["status"]["availableReplicas"] = json!(ready);
            object["status"]["unavailableReplicas"] = json!((replicas - ready).max(0));
            let (status, reason) = if ready >= replicas {
                ("True", "MinimumReplicasAvailable")
            } else {
                ("False", "MinimumReplicasUnavailable")
            };
            set_condition(object, "Available", status, reason, "", now);
        });
    }

    fn sync_replica_set(&mut self, key: &ObjectKey) {
        let Some(set) = self.store.get("replicasets.apps", key).cloned() else { return };
        let owned: Vec<PodView> = self.owned_pods(uid(&set));
        let mut active: Vec<&PodView> =
            owned.iter().filter(|pod| !pod.terminating && !pod.finished()).collect();
        let replicas = if set["metadata"]["deletionTimestamp"].is_string() {
            0
        } else {
            usize::try_from(number(&set, "/spec/replicas").unwrap_or(1)).unwrap_or(0)
        };
        for _ in active.len()..replicas {
            let pod = pod_from_template(&set["spec"]["template"], "ReplicaSet", &set, key);
            self.create_as_controller("pods", pod);
        }
        // The least useful go first: not scheduled, not ready, youngest.
        active.sort_by_key(|pod| (!pod.node.is_empty(), pod.ready, std::cmp::Reverse(pod.born)));
        let surplus = active.len().saturating_sub(replicas);
        for pod in &active[..surplus] {
            self.delete_as_controller("pods", &pod.key);
        }
        let (total, ready) = (active.len(), active.iter().filter(|pod| pod.ready).count());
        self.edit("replicasets.apps", key, |object| {
            let generation = number(object, "/metadata/generation").unwrap_or(0);
            object["status"]["observedGeneration"] = json!(generation);
            object["status"]["replicas"] = json!(total);
            object["status"]["fullyLabeledReplicas"] = json!(total);
            object["status"]["readyReplicas"] = json!(ready);
            object["status"]["availableReplicas"] = json!(ready);
        });
    }

    fn sync_daemon_set(&mut self, key: &ObjectKey) {
        let Some(set) = self.store.get("daemonsets.apps", key).cloned() else { return };
        if set["metadata"]["deletionTimestamp"].is_string() {
            return;
        }
        let template = daemon_template(&set["spec"]["template"]);
        let mut by_node: BTreeMap<String, Vec<PodView>> = BTreeMap::new();
        for pod in self.owned_pods(uid(&set)) {
            if let Some(node) = daemon_node(&pod.object) {
                by_node.entry(node.to_owned()).or_default().push(pod);
            }
        }
        let choice = NodeChoice::of(&template["spec"]);
        let tolerations = items(&template, "/spec/tolerations");
        let wanted: Vec<String> = self
            .view
            .nodes
            .values()
            .filter(|node| choice.allows(node) && tolerates(tolerations, node, true).is_ok())
            .map(|node| node.name.clone())
            .collect();
        let (mut current, mut ready) = (0, 0);
        for node in &wanted {
            let pods = by_node.remove(node).unwrap_or_default();
            let mut alive = pods.iter().filter(|pod| !pod.finished());
            match alive.next() {
                Some(pod) => {
                    current += 1;
                    ready += i32::from(pod.ready);
                }
                None => {
                    let mut pod = pod_from_template(&template, "DaemonSet", &set, key);
                    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
                    *required = json!({ "nodeSelectorTerms": [{ "matchFields": [
                        { "key": "metadata.name", "operator": "In", "values": [node] }] }] });
                    self.create_as_controller("pods", pod);
                }
            }
            for pod in pods.iter().filter(|pod| pod.phase == "Failed") {
                self.delete_as_controller("pods", &pod.key);
            }
        }
        // Pods of nodes that exist and are no longer wanted; those of lost nodes are the pod collector's.
        for (node, pods) in by_node {
            if !self.view.nodes.contains_key(&node) {
                continue;
            }
            for pod in pods.iter().filter(|pod| !pod.terminating) {
                self.delete_as_controller("pods", &pod.key);
            }
        }
        let desired = wanted.len();
        self.edit("daemonsets.apps", key, |object| {
            let generation = number(object, "/metadata/generation").unwrap_or(0);
            object["status"]["observedGeneration"] = json!(generation);
            object["status"]["desiredNumberScheduled"] = json!(desired);
            object["status"]["currentNumberScheduled"] = json!(current);
            object["status"]["updatedNumberScheduled"] = json!(current);
            object["status"]["numberReady"] = json!(ready);
            object["status"]["numberAvailable"] = json!(ready);
            object["status"]["numberMisscheduled"] = json!(0);
        });
    }

    fn owned_pods(&self, owner: &str) -> Vec<PodView> {
        self.dependents
            .get(owner)
            .into_iter()
            .flatten()
            .filter(|(resource, _)| resource == "pods")
            .filter_map(|(_, key)| self.view.pods.get(key).cloned())
            .filter(|pod| pod.owner.as_ref().is_some_and(|controller| controller.uid == owner))
            .collect()
    }
}

/// The same template gives the same name, in every run.
fn template_hash(template: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    format!("{:010x}", hasher.finish() & 0xff_ffff_ffff)
}

fn owner_reference(kind: &str, owner: &Value) -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": kind, "name": owner["metadata"]["name"],
        "uid": uid(owner), "controller": true, "blockOwnerDeletion": true }])
}

fn replica_set(deployment: &Value, key: &ObjectKey, name: &str, hash: &str, replicas: i64) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = json!(hash);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": { "namespace": key.namespace, "name": name,
            "labels": template["metadata"]["labels"],
            "ownerReferences": owner_reference("Deployment", deployment) },
        "spec": { "replicas": replicas, "selector": selector, "template": template },
    })
}

fn pod_from_template(template: &Value, kind: &str, owner: &Value, key: &ObjectKey) -> Value {
    let mut metadata = template["metadata"].clone();
    metadata["namespace"] = json!(key.namespace);
    metadata["generateName"] = json!(format!("{}-", key.name));
    metadata["ownerReferences"] = owner_reference(kind, owner);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

/// Daemon pods tolerate what befalls nodes.
fn daemon_template(template: &Value) -> Value {
    let mut template = template.clone();
    let tolerations = section(&mut template, "spec").entry("tolerations").or_insert_with(|| json!([]));
    if let Value::Array(list) = tolerations {
        for (key, effect) in NODE_DAEMON_TOLERATIONS {
            list.push(json!({ "key": key, "operator": "Exists", "effect": effect }));
        }
    }
    template
}

/// The node that a daemon pod is made for.
fn daemon_node(pod: &Value) -> Option<&str> {
    text(pod, "/spec/nodeName").filter(|node| !node.is_empty()).or_else(|| {
        text(
            pod,
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
             /matchFields/0/values/0",
        )
    })
}
