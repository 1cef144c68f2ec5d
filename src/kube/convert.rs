//! From what is read of the Kubernetes API's objects to the types of [`spot_guard_core::cluster`].
//!
//! Pure and tolerant: a missing field is what the API's default says, and what cannot be read is taken the
//! cautious way (a request as more than any node has, a node's room as none) and reported.

mod nodes;
mod pods;
mod quantity;
mod selectors;
#[cfg(test)]
mod tests;
mod unread;
mod volumes;

use self::quantity::{Rounding, Unit, quantity};
use crate::kube::slim::{self as api, PodDisruptionBudget, Quantity};
use jiff::Timestamp;
use spot_guard_core::cluster::{DisruptionBudget, Effect, Labels, PodSpec, Resources, UnhealthyPods};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// Stands for a request that could not be read: more than any node has, and small enough to add up.
const UNREADABLE: i64 = 1 << 52;

/// After so many bytes that came in, what nothing uses is forgotten: with pods of the usual size, some ten
/// thousand.
const FORGET_AFTER: usize = 32 << 20;
/// What is kept for each text besides its bytes, about.
const ENTRY: usize = 64;

/// Something in an object that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadField {
    /// The object, as `kind namespace/name`.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for UnreadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// Converts, and shares what is equal: strings, label sets and pod specs are kept once.
#[derive(Debug, Default)]
pub struct Converter {
    strings: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    specs: HashSet<Arc<PodSpec>>,
    /// How many bytes came in since what nothing uses was forgotten, about.
    taken_in: usize,
}

/// An object, and what could not be read in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object, the cautious way where something could not be read.
    pub object: T,
    /// What could not be read; usually empty.
    pub problems: Vec<UnreadField>,
}

impl Converter {
    /// Forgets what nothing uses any more, once so much came in that it may weigh. To be called after each
    /// change.
    pub fn tidy(&mut self) {
        if self.taken_in > FORGET_AFTER {
            self.forget_unused();
        }
    }

    /// How many texts, label sets and specs are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.strings.len() + self.labels.len() + self.specs.len()
    }

    /// Forgets what nothing uses any more.
    pub fn forget_unused(&mut self) {
        self.taken_in = 0;
        self.specs.retain(|s| Arc::strong_count(s) > 1);
        self.labels.retain(Labels::is_shared);
        self.strings.retain(|s| Arc::strong_count(s) > 1);
    }

    pub(super) fn string(&mut self, text: &str) -> Arc<str> {
        self.taken_in += text.len() + ENTRY;
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.strings.insert(new.clone());
        new
    }

    pub(super) fn label_set(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs: Vec<_> =
            labels.into_iter().flatten().map(|(k, v)| (self.string(k), self.string(v))).collect();
        let new: Labels = pairs.into_iter().collect();
        shared(&mut self.labels, new)
    }

    /// The labels of a namespace.
    pub fn namespace(&mut self, namespace: &api::Namespace) -> (Arc<str>, Labels) {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        (self.string(name), self.label_set(namespace.metadata.labels.as_ref()))
    }

    fn resources(
        &mut self,
        list: Option<&BTreeMap<String, Quantity>>,
        rounding: Rounding,
        problems: &mut Problems,
    ) -> Resources {
        let mut sum = Resources::default();
        let mut extended = BTreeMap::new();
        for (name, amount) in list.into_iter().flatten() {
            let unit = if name == "cpu" { Unit::Milli } else { Unit::One };
            let value = match quantity(&amount.0, unit, rounding) {
                Ok(value) if value >= 0 => value.min(UNREADABLE),
                _ => {
                    problems.add(format!("the amount \"{}\" of {name} cannot be read", amount.0));
                    if rounding == Rounding::Up { UNREADABLE } else { 0 }
                }
            };
            match name.as_str() {
                "cpu" => sum.cpu_millis = value,
                "memory" => sum.memory = value,
                "ephemeral-storage" => sum.ephemeral_storage = value,
                "pods" => sum.pods = value,
                _ => {
                    extended.insert(self.string(name), value);
                }
            }
        }
        sum.extended = extended.into_iter().filter(|(_, amount)| *amount != 0).collect();
        sum
    }

    pub(super) fn spec(&mut self, new: PodSpec) -> Arc<PodSpec> {
        shared(&mut self.specs, Arc::new(new))
    }

    /// A budget.
    pub fn budget(&mut self, budget: &PodDisruptionBudget) -> DisruptionBudget {
        let spec = budget.spec.as_ref();
        let status = budget.status.as_ref();
        let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
        DisruptionBudget {
            namespace: self.string(budget.metadata.namespace.as_deref().unwrap_or("default")),
            name: self.string(budget.metadata.name.as_deref().unwrap_or_default()),
            selector: spec.and_then(|s| s.selector.as_ref()).map(|s| self.selector(s)),
            disruptions_allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
            observed: observed >= budget.metadata.generation.unwrap_or(0),
            current_healthy: status.and_then(|s| s.current_healthy).unwrap_or(0).into(),
            desired_healthy: status.and_then(|s| s.desired_healthy).unwrap_or(0).into(),
            expected_pods: status.and_then(|s| s.expected_pods).unwrap_or(0).into(),
            unhealthy_pods: match spec.and_then(|s| s.unhealthy_pod_eviction_policy.as_deref()) {
                Some("AlwaysAllow") => UnhealthyPods::AlwaysAllow,
                None | Some("" | "IfHealthyBudget") => UnhealthyPods::IfHealthyBudget,
                Some(_) => UnhealthyPods::Unknown,
            },
        }
    }
}

struct Problems {
    object: String,
    list: Vec<UnreadField>,
}

impl Problems {
    fn of<A>(kind: &str, metadata: &api::ObjectMeta<A>) -> Self {
        let name = metadata.name.as_deref().unwrap_or_default();
        let object = match metadata.namespace.as_deref() {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        };
        Self { object, list: Vec::new() }
    }

    fn add(&mut self, message: String) {
        self.list.push(UnreadField { object: self.object.clone(), message });
    }
}

fn shared<T: Hash + Eq + Clone>(known: &mut HashSet<T>, new: T) -> T {
    if let Some(old) = known.get(&new) {
        return old.clone();
    }
    known.insert(new.clone());
    new
}

fn time(time: Option<&api::Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn effect(text: &str) -> Option<Effect> {
    match text {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}
