//! The disruption controller, and the audit that does not trust it.

use super::json::{ObjectKey, number, section, set_condition};
use super::request::Identity;
use super::resources::ResourceKind;
use super::selector::LabelSelector;
use super::view::PodView;
use super::world::{Job, PdbViolation, World};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// An eviction that was granted and not carried out within this time no longer counts.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// How a client took a pod away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Eviction,
    Delete,
    Status,
}

impl World {
    /// The pod as it is before a write, if it counts for budgets: what [`Self::audit`] compares with.
    pub(super) fn health_of(&self, kind: &ResourceKind, key: &ObjectKey) -> Option<PodView> {
        if kind.id() != "pods" {
            return None;
        }
        self.view.pods.get(key).filter(|pod| pod.healthy()).cloned()
    }

    /// Counts a violation for each budget that a client's write left with fewer healthy pods than it demands.
    /// Looks at specs and live pods only, never at a budget's status.
    pub(super) fn audit(&mut self, pod: &PodView, by: &Identity, loss: Loss) {
        let still_healthy =
            self.view.pods.get(&pod.key).is_some_and(|now| now.uid == pod.uid && now.healthy());
        if still_healthy {
            return;
        }
        let mut found = Vec::new();
        for (key, budget) in self.store.all(BUDGETS) {
            if key.namespace != pod.key.namespace {
                continue;
            }
            let Some(selector) = LabelSelector::from_object(&budget["spec"]["selector"]) else { continue };
            if !selector.matches(&pod.labels) {
                continue;
            }
            let pods: Vec<&PodView> = self.covered(key, &selector);
            let healthy = count(pods.iter().filter(|pod| pod.healthy()));
            // The pod that was just taken still tells how large the application is meant to be.
            let mut members = pods;
            if !members.iter().any(|member| member.uid == pod.uid) {
                members.push(pod);
            }
            let (_, desired) = self.expected(budget, &members);
            if healthy < desired {
                found.push(PdbViolation {
                    at: self.now(),
                    budget: key.clone(),
                    pod: pod.key.clone(),
                    user: by.user.clone(),
                    by: match loss {
                        Loss::Eviction => "eviction",
                        Loss::Delete => "delete",
                        Loss::Status => "status",
                    },
                    healthy,
                    desired,
                });
            }
        }
        self.violations.extend(found);
    }

    fn covered<'a>(&'a self, budget: &ObjectKey, selector: &LabelSelector) -> Vec<&'a PodView> {
        self.view.in_namespace(&budget.namespace).filter(|pod| selector.matches(&pod.labels)).collect()
    }

    /// How many pods there should be, and how many of them must be healthy.
    fn expected(&self, budget: &Value, pods: &[&PodView]) -> (i64, i64) {
        let spec = &budget["spec"];
        let scale = || self.scale_of(pods);
        if let Some(max) = present(&spec["maxUnavailable"]) {
            let expected = scale();
            (expected, (expected - scaled(max, expected)).max(0))
        } else if let Some(min) = present(&spec["minAvailable"]) {
            if min.is_string() {
                let expected = scale();
                (expected, scaled(min, expected))
            } else {
                (count(pods.iter()), min.as_i64().unwrap_or(0))
            }
        } else {
            (0, 0)
        }
    }

    /// The replicas of all controllers that own one of the pods.
    fn scale_of(&self, pods: &[&PodView]) -> i64 {
        let mut scales: BTreeMap<String, i64> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = &pod.owner else { continue };
            let key = ObjectKey::new(&pod.key.namespace, &owner.name);
            let Some(set) = self.store.get("replicasets.apps", &key).filter(|_| owner.kind == "ReplicaSet")
            else {
                continue;
            };
            let deployment = super::world::owner_key(set, "Deployment")
                .and_then(|key| Some((key.clone(), self.store.get("deployments.apps", &key)?)));
            match deployment {
                Some((key, deployment)) => {
                    let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
                    scales.insert(format!("deployment {key}"), replicas);
                }
                None => {
                    scales.insert(owner.uid.clone(), number(set, "/spec/replicas").unwrap_or(1));
                }
            }
        }
        scales.values().sum()
    }

    /// Brings the status of a budget up to date.
    pub(super) fn sync_budget(&mut self, key: &ObjectKey) {
        let Some(budget) = self.store.get(BUDGETS, key).cloned() else { return };
        let now = self.now();
        let Some(selector) = LabelSelector::from_object(&budget["spec"]["selector"]) else { return };
        let pods = self.covered(key, &selector);
        let (expected, desired) = self.expected(&budget, &pods);
        let mut disrupted = Map::new();
        let mut recheck: Option<Timestamp> = None;
        if let Some(known) = budget.pointer("/status/disruptedPods").and_then(Value::as_object) {
            for pod in pods.iter().filter(|pod| !pod.terminating) {
                let Some(since) = known.get(&pod.key.name) else { continue };
                let until = since
                    .as_str()
                    .and_then(|since| since.parse::<Timestamp>().ok())
                    .and_then(|since| since.checked_add(DELETION_TIMEOUT).ok());
                if let Some(until) = until.filter(|until| *until >= now) {
                    disrupted.insert(pod.key.name.clone(), since.clone());
                    recheck = Some(recheck.map_or(until, |at| at.min(until)));
                }
            }
        }
        let healthy =
            count(pods.iter().filter(|pod| pod.healthy() && !disrupted.contains_key(&pod.key.name)));
        let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
        self.edit(BUDGETS, key, |object| {
            let generation = number(object, "/metadata/generation").unwrap_or(0);
            let status = section(object, "status");
            for (field, value) in [
                ("currentHealthy", healthy),
                ("desiredHealthy", desired),
                ("expectedPods", expected),
                ("disruptionsAllowed", allowed),
                ("observedGeneration", generation),
            ] {
                status.insert(field.to_owned(), json!(value));
            }
            if disrupted.is_empty() {
                status.remove("disruptedPods");
            } else {
                status.insert("disruptedPods".to_owned(), Value::Object(disrupted));
            }
            set_disruption_allowed(object, now);
        });
        if let Some(at) = recheck {
            let later = at.checked_add(SignedDuration::from_secs(1)).unwrap_or(at);
            self.arm(Job::RecheckBudget { key: key.clone() }, later);
        }
    }
}

/// The condition that follows from `disruptionsAllowed`.
pub(super) fn set_disruption_allowed(budget: &mut Value, now: Timestamp) {
    let (status, reason) = if number(budget, "/status/disruptionsAllowed").unwrap_or(0) > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    set_condition(budget, "DisruptionAllowed", status, reason, "", now);
    let generation = number(budget, "/metadata/generation").unwrap_or(0);
    if let Some(Value::Array(conditions)) = budget.pointer_mut("/status/conditions") {
        for condition in conditions {
            condition["observedGeneration"] = json!(generation);
            condition["message"] = json!("");
        }
    }
}

fn present(value: &Value) -> Option<&Value> {
    (!value.is_null()).then_some(value)
}

/// A number, or a percentage of `total` rounded up.
fn scaled(value: &Value, total: i64) -> i64 {
    match value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok()) {
        Some(percent) => (total * percent + 99) / 100,
        None => value.as_i64().unwrap_or(0),
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> i64 {
    i64::try_from(of.count()).unwrap_or(i64::MAX)
}

/// A budget that selects by labels, for scenarios.
pub(super) fn budget(
    namespace: &str,
    name: &str,
    selector: &super::json::Labels,
    min_available: Option<Value>,
    max_unavailable: Option<Value>,
) -> Value {
    let mut spec = json!({ "selector": { "matchLabels": selector } });
    if let Some(min) = min_available {
        spec["minAvailable"] = min;
    }
    if let Some(max) = max_unavailable {
        spec["maxUnavailable"] = max;
    }
    json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec })
}
