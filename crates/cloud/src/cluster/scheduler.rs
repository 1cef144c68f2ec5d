//! The scheduler: each waiting pod to the node with the most room among those where it can run.
//!
//! It does not preempt.

use super::json::{ObjectKey, items, section, set_condition, text};
use super::placement::Misfit;
use super::view::{NodeView, PodView};
use super::world::World;
use serde_json::json;
use std::collections::BTreeMap;

impl World {
    /// One attempt for every waiting pod, the most important first, then the oldest.
    pub(super) fn schedule(&mut self) {
        let mut waiting: Vec<PodView> = self
            .view
            .pods
            .values()
            .filter(|pod| {
                pod.node.is_empty()
                    && !pod.terminating
                    && !pod.finished()
                    && matches!(text(&pod.object, "/spec/schedulerName"), None | Some("default-scheduler"))
                    && items(&pod.object, "/spec/schedulingGates").is_empty()
            })
            .cloned()
            .collect();
        waiting.sort_by_key(|pod| (std::cmp::Reverse(pod.priority), pod.born));
        for pod in waiting {
            match self.choose(&pod) {
                Ok(node) => self.bind(&pod.key, &node),
                Err(why) => {
                    let now = self.now();
                    self.edit("pods", &pod.key, |pod| {
                        set_condition(pod, "PodScheduled", "False", "Unschedulable", &why, now);
                    });
                }
            }
        }
    }

    /// The best node for a pod, or why there is none.
    fn choose(&self, pod: &PodView) -> Result<String, String> {
        let surroundings = self.surroundings(&self.view, pod);
        let mut misfits: BTreeMap<Misfit, usize> = BTreeMap::new();
        let mut best: Option<(i64, &NodeView)> = None;
        for node in self.view.nodes.values() {
            match surroundings.fits(&self.view, pod, node) {
                Err(misfit) => *misfits.entry(misfit).or_default() += 1,
                Ok(()) => {
                    let load = load_with(pod, node);
                    if best.is_none_or(|(least, _)| load < least) {
                        best = Some((load, node));
                    }
                }
            }
        }
        match best {
            Some((_, node)) => Ok(node.name.clone()),
            None => {
                let reasons: Vec<String> =
                    misfits.into_iter().map(|(misfit, count)| format!("{count} {misfit}")).collect();
                let total = self.view.nodes.len();
                Err(format!("0/{total} nodes are available: {}.", reasons.join(", ")))
            }
        }
    }

    pub(super) fn bind(&mut self, key: &ObjectKey, node: &str) {
        let now = self.now();
        self.edit("pods", key, |pod| {
            section(pod, "spec").insert("nodeName".to_owned(), json!(node));
            set_condition(pod, "PodScheduled", "True", "", "", now);
        });
    }
}

/// How full a node would be, in thousandths of its cpu and memory, the pod counted.
fn load_with(pod: &PodView, node: &NodeView) -> i64 {
    ["cpu", "memory"]
        .into_iter()
        .map(|name| {
            let of = |amounts: &super::view::Amounts| i128::from(amounts.get(name).copied().unwrap_or(0));
            let load = (of(&node.used) + of(&pod.requests)) * 1000 / of(&node.allocatable).max(1);
            i64::try_from(load).unwrap_or(i64::MAX / 2)
        })
        .sum()
}
