//! The SpotActions that are not over: what a turn has to look at does not grow with what was answered long
//! ago.

use crate::crd::SpotAction;
use crate::kube::follower::lock;
use jiff::Timestamp;
use spot_guard_core::spot_action::{ActionStage, RequestedAction};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// When a SpotAction was made, and its version.
type Order = (Option<Timestamp>, u64);

/// A SpotAction that is not over.
#[derive(Clone, Debug)]
pub struct OpenAction {
    /// What it asks for.
    pub ask: RequestedAction,
    /// The object.
    pub spot_action: Arc<SpotAction>,
}

/// All of them, kept by the watch; clones share them.
#[derive(Clone, Debug, Default)]
pub struct OpenActions(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    by_order: BTreeMap<Order, OpenAction>,
    orders: HashMap<String, Order>,
}

impl OpenActions {
    /// Takes in how a SpotAction is now.
    pub(super) fn set(&self, spot_action: &SpotAction) {
        let ask = spot_action.ask();
        let mut held = lock(&self.0);
        held.remove(&ask.name);
        if ask.stage != ActionStage::Over {
            held.orders.insert(ask.name.clone(), ask.order);
            held.by_order.insert(ask.order, OpenAction { ask, spot_action: Arc::new(spot_action.clone()) });
        }
    }

    /// Forgets the SpotAction of that name.
    pub(super) fn remove(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// Those that pause something.
    #[must_use]
    pub fn pauses(&self) -> Vec<RequestedAction> {
        let held = lock(&self.0);
        held.by_order.values().map(|open| &open.ask).filter(|ask| ask.pauses()).cloned().collect()
    }

    /// The oldest of those that are meant, no more than so many.
    #[must_use]
    pub fn oldest(&self, count: usize, is_meant: impl Fn(&RequestedAction) -> bool) -> Vec<OpenAction> {
        let held = lock(&self.0);
        held.by_order.values().filter(|open| is_meant(&open.ask)).take(count).cloned().collect()
    }

    /// The one of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OpenAction> {
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

    fn spot_action(name: &str, version: u64, action: &str, conditions: &[(&str, &str)]) -> SpotAction {
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
            "kind": "SpotAction",
            "metadata": { "name": name, "resourceVersion": version.to_string() },
            "spec": { "action": action },
            "status": { "conditions": conditions },
        });
        serde_json::from_value(object).expect("a SpotAction")
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_is_open_comes_in_its_order() {
        let open = OpenActions::default();
        for number in 0..5_000 {
            open.set(&spot_action(
                &format!("over-{number}"),
                100 + number,
                "Replace",
                &[("Accepted", "False")],
            ));
        }
        open.set(&spot_action("second", 9, "Replace", &[]));
        open.set(&spot_action("pause", 7, "Pause", &[("Accepted", "True")]));
        open.set(&spot_action("first", 8, "Return", &[]));
        let names = |count| {
            let found = open.oldest(count, RequestedAction::needs_look);
            found.into_iter().map(|held| held.ask.name).collect::<Vec<_>>()
        };
        assert_eq!(lock(&open.0).by_order.len(), 3, "what is over is not walked");
        assert_eq!(names(9), ["first", "second"], "a pause in force needs no look");
        assert_eq!(names(1), ["first"]);
        assert_eq!(open.pauses().len(), 1);
        open.set(&spot_action("first", 10, "Return", &[("Complete", "True")]));
        open.remove("pause");
        assert_eq!(names(9), ["second"]);
        assert!(open.pauses().is_empty() && open.get("first").is_none() && open.get("second").is_some());
    }
}
