//! What a change means to the controllers: the work that it files.

use super::json::{ObjectKey, annotation, condition_true, items, strings, text, uid};
use super::selector::LabelSelector;
use super::store::{ChangeKind, Event};
use super::world::{Change, World, owner_key};
use serde_json::Value;
use std::sync::Arc;

impl World {
    /// Files the work that a change makes.
    pub(super) fn note(&mut self, resource: &str, key: &ObjectKey, event: &Event) {
        let before = event.before.as_deref();
        let gone = event.kind == ChangeKind::Deleted;
        self.index_owners(resource, key, event);
        match resource {
            "pods" => {
                self.view.apply_pod(event);
                self.note_pod(key, event);
            }
            "nodes" => {
                self.view.apply_node(event);
                self.note_node(&key.name, event);
            }
            "deployments.apps" => {
                self.work.deployments.insert(key.clone());
            }
            "replicasets.apps" => {
                self.work.replica_sets.insert(key.clone());
                if let Some(owner) = owner_key(&event.object, "Deployment") {
                    self.work.deployments.insert(owner);
                }
            }
            "daemonsets.apps" => {
                self.work.daemon_sets.insert(key.clone());
            }
            "poddisruptionbudgets.policy" => {
                self.work.budgets.insert(key.clone());
            }
            "namespaces" if gone => {
                self.work.lost_namespaces.insert(key.name.clone());
            }
            "persistentvolumes" | "persistentvolumeclaims" => self.work.schedule = true,
            _ => {}
        }
        if gone
            && let Some(before) = before
            && self.dependents.contains_key(uid(before))
        {
            self.work.lost_owners.insert(uid(before).to_owned());
        }
        if !self.work.is_empty() {
            self.wake.notify_one();
        }
        // Nobody may be listening.
        let _ = self.changes.send(Change {
            at: self.now(),
            resource: resource.to_owned(),
            kind: event.kind,
            object: Arc::clone(&event.object),
            before: event.before.clone(),
        });
    }

    fn note_pod(&mut self, key: &ObjectKey, event: &Event) {
        let pod = &event.object;
        let before = event.before.as_deref();
        if let Some(owner) = owner_key(pod, "ReplicaSet") {
            self.work.replica_sets.insert(owner);
        }
        if let Some(owner) = owner_key(pod, "DaemonSet") {
            self.work.daemon_sets.insert(owner);
        }
        self.note_budgets(key, event);
        if event.kind == ChangeKind::Deleted {
            self.work.schedule = true;
            let node = text(pod, "/spec/nodeName").unwrap_or_default();
            if annotation(pod, "kubernetes.io/config.mirror").is_some() && self.view.nodes.contains_key(node)
            {
                self.work.mirrors.push(Arc::clone(pod));
            }
            return;
        }
        self.work.pods.insert(key.clone());
        // A change of conditions alone frees no room and must not start another round of scheduling.
        let same = before.is_some_and(|before| {
            before["spec"] == pod["spec"]
                && strings(before, "/metadata/labels") == strings(pod, "/metadata/labels")
                && before["status"]["phase"] == pod["status"]["phase"]
        });
        self.work.schedule |= !same;
    }

    /// The budgets that cover a pod, or did, unless nothing has changed that they count.
    fn note_budgets(&mut self, key: &ObjectKey, event: &Event) {
        let (pod, before) = (&*event.object, event.before.as_deref());
        let same = |path: &str| before.is_some_and(|before| before.pointer(path) == pod.pointer(path));
        let counted = ["/status", "/metadata/labels", "/metadata/deletionTimestamp"];
        if event.kind != ChangeKind::Deleted && counted.into_iter().all(same) {
            return;
        }
        let labels: Vec<_> =
            before.into_iter().chain([pod]).map(|pod| strings(pod, "/metadata/labels")).collect();
        let covers = |budget: &Value| {
            let selector = LabelSelector::from_object(&budget["spec"]["selector"]);
            selector.is_some_and(|selector| labels.iter().any(|labels| selector.matches(labels)))
        };
        let budgets = self.store.all("poddisruptionbudgets.policy");
        let own = budgets.filter(|(budget, _)| budget.namespace == key.namespace);
        self.work.budgets.extend(own.filter(|(_, budget)| covers(budget)).map(|(key, _)| key.clone()));
    }

    fn note_node(&mut self, name: &str, event: &Event) {
        let node = &event.object;
        self.work.nodes.insert(name.to_owned());
        let same = event.kind == ChangeKind::Modified
            && event.before.as_deref().is_some_and(|before| {
                before["spec"] == node["spec"]
                    && before["metadata"]["labels"] == node["metadata"]["labels"]
                    && before["status"]["allocatable"] == node["status"]["allocatable"]
                    && condition_true(before, "Ready") == condition_true(node, "Ready")
            });
        if !same {
            self.work.schedule = true;
            let all: Vec<ObjectKey> = self.store.all("daemonsets.apps").map(|(key, _)| key.clone()).collect();
            self.work.daemon_sets.extend(all);
        }
    }

    fn index_owners(&mut self, resource: &str, key: &ObjectKey, event: &Event) {
        let entry = (resource.to_owned(), key.clone());
        let owners = |object: &Value| -> Vec<String> {
            items(object, "/metadata/ownerReferences")
                .iter()
                .filter_map(|owner| owner["uid"].as_str().map(str::to_owned))
                .collect()
        };
        if let Some(before) = event.before.as_deref() {
            for owner in owners(before) {
                if let Some(set) = self.dependents.get_mut(&owner) {
                    set.remove(&entry);
                    if set.is_empty() {
                        self.dependents.remove(&owner);
                    }
                }
            }
        }
        if event.kind != ChangeKind::Deleted {
            for owner in owners(&event.object) {
                self.dependents.entry(owner).or_default().insert(entry.clone());
            }
        }
    }
}
