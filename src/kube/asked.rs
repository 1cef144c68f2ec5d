//! The triggers that are not over: what a turn has to look at does not grow with what was answered long ago.

use crate::crd::Trigger;
use crate::kube::follower::lock;
use jiff::Timestamp;
use spot_guard_core::trigger::{Ask, TriggerStage};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// When a trigger was made, and its version.
type Order = (Option<Timestamp>, u64);

/// A trigger that is not over.
#[derive(Clone, Debug)]
pub struct OpenTrigger {
    /// What it asks for.
    pub ask: Ask,
    /// The object.
    pub trigger: Arc<Trigger>,
}

/// All of them, kept by the watch; clones share them.
#[derive(Clone, Debug, Default)]
pub struct OpenTriggers(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    by_order: BTreeMap<Order, OpenTrigger>,
    orders: HashMap<String, Order>,
}

impl OpenTriggers {
    /// Takes in how a trigger is now.
    pub(super) fn set(&self, trigger: &Trigger) {
        let ask = trigger.ask();
        let mut held = lock(&self.0);
        held.remove(&ask.name);
        if ask.stage != TriggerStage::Over {
            held.orders.insert(ask.name.clone(), ask.order);
            held.by_order.insert(ask.order, OpenTrigger { ask, trigger: Arc::new(trigger.clone()) });
        }
    }

    /// Forgets the trigger of that name.
    pub(super) fn remove(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// Those that pause something.
    #[must_use]
    pub fn pauses(&self) -> Vec<Ask> {
        let held = lock(&self.0);
        held.by_order.values().map(|open| &open.ask).filter(|ask| ask.pauses()).cloned().collect()
    }

    /// The oldest of those that are meant, no more than so many.
    #[must_use]
    pub fn oldest(&self, count: usize, is_meant: impl Fn(&Ask) -> bool) -> Vec<OpenTrigger> {
        let held = lock(&self.0);
        held.by_order.values().filter(|open| is_meant(&open.ask)).take(count).cloned().collect()
    }

    /// The one of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OpenTrigger> {
        let held = lock(&self.0);
        held.by_order.get(held.orders.get(name)?).cloned()
    }
}

impl Held {
    fn remove(&mut self, name: &str) {
        if let Some(order) = self.orders.remove(name) {
            self.by_order.remove(&order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trigger(name: &str, version: u64, action: &str, conditions: &[(&str, &str)]) -> Trigger {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status)| {
                json!({
                    "type": type_,
                    "status": status,
                    "reason": "Test",
                    "message": "",
                    "lastTransitionTime": "2026-03-01T12:00:00Z",
                })
            })
            .collect();
        let object = json!({
            "apiVersion": "spotguard.dev/v1alpha1",
            "kind": "Trigger",
            "metadata": { "name": name, "resourceVersion": version.to_string() },
            "spec": { "action": action },
            "status": { "conditions": conditions },
        });
        serde_json::from_value(object).expect("a trigger")
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_is_open_comes_in_its_order() {
        let open = OpenTriggers::default();
        for number in 0..5_000 {
            open.set(&trigger(&format!("over-{number}"), 100 + number, "Replace", &[("Accepted", "False")]));
        }
        open.set(&trigger("second", 9, "Replace", &[]));
        open.set(&trigger("pause", 7, "Pause", &[("Accepted", "True")]));
        open.set(&trigger("first", 8, "Return", &[]));
        let names = |count| {
            let found = open.oldest(count, Ask::needs_look);
            found.into_iter().map(|held| held.ask.name).collect::<Vec<_>>()
        };
        assert_eq!(lock(&open.0).by_order.len(), 3, "what is over is not walked");
        assert_eq!(names(9), ["first", "second"], "a pause in force needs no look");
        assert_eq!(names(1), ["first"]);
        assert_eq!(open.pauses().len(), 1);
        open.set(&trigger("first", 10, "Return", &[("Complete", "True")]));
        open.remove("pause");
        assert_eq!(names(9), ["second"]);
        assert!(open.pauses().is_empty() && open.get("first").is_none() && open.get("second").is_some());
    }
}
