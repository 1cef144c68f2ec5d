//! The records: one for each instance, and only for what was reported or asked for.

use super::{Auditor, Invariant, Report};
use crate::crd::NodeReplacement;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::Value;
use std::sync::Arc;

impl Auditor {
    /// A record was written.
    pub(super) fn watch_records(&self) {
        for record in self.records() {
            if record.spec.place.is_some() || record.spec.adopted.is_some() {
                let is_new = self.state().places.insert(record.name_any());
                if is_new {
                    self.watch_places(None);
                }
                continue;
            }
            let uid = record.uid().unwrap_or_default();
            let instance = record.spec.instance_id.to_string();
            // Before its node says which instance it has, its pods are moved under a record of their own,
            // without a pool: one in the pool may follow.
            let of = (instance.clone(), record.spec.pool.is_some());
            let other = self.state().records.insert(of, uid.clone());
            if other.as_ref().is_some_and(|other| *other != uid) {
                let found = format!("it has a second record {}", record.name_any());
                self.violated(Invariant::OneReplacement, &instance, found);
            }
            self.watch_reported(&record);
        }
        self.watch_balance();
    }

    /// Remembers the notices that are there now: who refuses one may remove it.
    pub(super) fn read_notices(&self) {
        for notice in self.inner.cluster.list_json("interruptionnotices.spotguard.dev") {
            let uid = notice.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            let mut state = self.state();
            if !state.reports.contains_key(uid) {
                state.reports.extend(Report::of(&notice).map(|report| (uid.to_owned(), report)));
            }
        }
    }

    /// A replacement begins, or has a deadline, only because of who may say so.
    pub(super) fn watch_reported(&self, record: &NodeReplacement) {
        let (node, instance) = (&record.spec.node_name, &record.spec.instance_id);
        let status = record.status.as_ref();
        if status.is_some_and(|status| status.phase().is_finished()) {
            self.state().open.remove(instance.as_str());
            return;
        }
        let begins = self.state().open.insert(instance.to_string());
        let deadline = status.and_then(|status| status.deadline);
        let skew = self.inner.skew;
        let (reported, told) = {
            let state = self.state();
            let mut own =
                state.reports.values().filter(|told| *node == *told.node && *instance == *told.instance);
            let told = own.clone().any(|told| told.deadline == deadline && told.is_plausible(skew));
            (own.next().is_some(), told)
        };
        let mut found = Vec::new();
        if begins && !reported && !self.is_asked_for(node) {
            found.push("neither its agent nor a person has asked for it".to_owned());
        }
        if begins && self.true_node_of(instance).is_some_and(|real| *node != *real) {
            found.push(format!("{instance} is not the instance of {node}"));
        }
        if let Some(deadline) = deadline.filter(|_| !told) {
            found.push(format!("its agent has told no such deadline that can be true: {deadline}"));
        }
        if !found.is_empty() {
            self.violated(
                Invariant::OnlyReported,
                instance,
                format!("its replacement is open, and {}", found.join(", ")),
            );
        }
    }

    /// Whether a person has asked for the node's replacement.
    pub(super) fn is_asked_for(&self, node: &str) -> bool {
        let spot_actions = self.inner.cluster.list_json("spotactions.spotguard.dev");
        spot_actions.iter().any(|spot_action| {
            let spec = &spot_action["spec"];
            spec["action"].as_str() == Some("Replace") && spec["node"].as_str() == Some(node)
        })
    }

    /// The node of an instance as the cloud has it, or by its Node.
    pub(super) fn true_node_of(&self, instance: &str) -> Option<String> {
        self.node_of(instance).or_else(|| {
            let nodes = self.nodes();
            let is_its = |node: &&Arc<Node>| {
                let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
                id.and_then(|id| id.rsplit('/').next()) == Some(instance)
            };
            nodes.iter().find(is_its).map(|node| node.name_any())
        })
    }
}
