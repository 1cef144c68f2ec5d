//! Nodes.

use super::quantity::Rounding;
use super::{Converted, Converter, Problems, effect, time};
use crate::kube::closed::Accounted as _;
use crate::kube::slim::{self as api};
use spot_guard_core::cluster::{Effect, Node, ScaleDown, Taint, VolumeLimits};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Converter {
    /// A node that can attach as many volumes as its CSINode says.
    pub fn node(&mut self, node: &api::Node, volume_limits: VolumeLimits) -> Converted<Node> {
        let mut problems = Problems::of("node", &node.metadata);
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|c| c.type_ == "Ready"));
        let labels = self.label_set(node.metadata.labels.as_ref());
        let zone = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]
            .iter()
            .find_map(|key| labels.get(key))
            .unwrap_or_default();
        let zone = self.string(zone);
        let taints = spec.and_then(|s| s.taints.as_ref()).into_iter().flatten();
        let taints: Vec<(&api::Taint, Effect)> = taints
            .map(|t| {
                let known = effect(&t.effect);
                if known.is_none() {
                    problems.add(format!("taint {} has the unknown effect {}", t.key, t.effect));
                }
                (t, known.unwrap_or(Effect::NoSchedule))
            })
            .collect();
        let taints = taints
            .into_iter()
            .map(|(t, effect)| Taint {
                key: self.string(&t.key),
                value: self.string(t.value.as_deref().unwrap_or_default()),
                effect,
            })
            .collect();
        let object = Node {
            name: self.string(node.metadata.name.as_deref().unwrap_or_default()).into(),
            uid: node.metadata.uid.as_deref().unwrap_or_default().into(),
            provider_id: spec.and_then(|s| s.provider_id.as_deref()).unwrap_or_default().into(),
            zone,
            labels,
            taints,
            // One that is being deleted is as good as cordoned, whatever holds its object.
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false)
                || node.metadata.deletion_timestamp.is_some(),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| time(c.last_transition_time.as_ref())),
            allocatable: self.resources(
                status.and_then(|s| s.allocatable.as_ref()),
                Rounding::Down,
                &mut problems,
            ),
            volume_limits,
            features: self.features(status),
            not_understood: spec.unknown().or_else(|| status.unknown()).map(|field| self.string(field)),
            created: time(node.metadata.creation_timestamp.as_ref()),
            scale_down: scale_down(node),
        };
        Converted { object, problems: problems.list }
    }

    fn features(&mut self, status: Option<&api::NodeStatus>) -> Box<[Arc<str>]> {
        let declared = status.and_then(|s| s.declared_features.as_ref()).into_iter().flatten();
        let sorted: BTreeSet<Arc<str>> = declared.map(|feature| self.string(feature)).collect();
        sorted.into_iter().collect()
    }
}

fn scale_down(node: &api::Node) -> ScaleDown {
    let annotations = node.metadata.annotations.as_ref();
    let disabled = annotations.and_then(|all| all.scale_down_disabled.as_deref());
    match annotations.and_then(|all| all.protected_by) {
        Some(_) => ScaleDown::DisabledByUs,
        None if disabled == Some("true") => ScaleDown::DisabledByOther,
        None => ScaleDown::Allowed,
    }
}
