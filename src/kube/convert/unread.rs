//! What an object counts as whose fields cannot be read: it is there, and what depends on it waits.

use super::{Converter, UNREADABLE};
use crate::kube::slim::Head;
use spot_guard_core::cluster::{
    Attachment, DisruptionBudget, LabelSelector, Node, Pod, PodPhase, PodSpec, Resources, VolumeLimits,
};

/// The driver whose limit is the first to matter on EC2.
const EBS: &str = "ebs.csi.aws.com";

impl Converter {
    /// It takes its place, whatever it asks for, and fits nowhere else.
    pub(in crate::kube) fn unread_pod(&mut self, head: &Head) -> Pod {
        let metadata = &head.metadata;
        let node = head.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let requests =
            Resources { cpu_millis: UNREADABLE, memory: UNREADABLE, pods: 0, ..Resources::default() };
        let not_understood = Some(self.string("Pod"));
        Pod {
            namespace: self.string(metadata.namespace.as_deref().unwrap_or("default")),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            node: node.filter(|name| !name.is_empty()).map(|name| self.string(name).into()),
            phase: PodPhase::Unknown,
            labels: self.label_set(metadata.labels.as_ref()),
            spec: self.spec(PodSpec { requests, not_understood, ..PodSpec::default() }),
            ..Pod::default()
        }
    }

    /// It is there, on the instance that it was on, and takes no pods.
    pub(in crate::kube) fn unread_node(&mut self, head: &Head, before: Option<&Node>) -> Node {
        let provider_id = head.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
        let uid = head.metadata.uid.as_deref().unwrap_or_default();
        let before = before.filter(|before| before.uid == uid).cloned().unwrap_or_default();
        Node {
            name: self.string(head.metadata.name.as_deref().unwrap_or_default()).into(),
            uid: uid.into(),
            provider_id: provider_id.map_or(before.provider_id.clone(), Into::into),
            labels: head.metadata.labels.as_ref().map_or(before.labels.clone(), |l| self.label_set(Some(l))),
            unschedulable: true,
            ready: false,
            ready_changed: None,
            allocatable: Resources::default(),
            ..before
        }
    }

    /// It covers whatever is in its namespace and allows nothing.
    pub(in crate::kube) fn unread_budget(&mut self, head: &Head) -> DisruptionBudget {
        DisruptionBudget {
            namespace: self.string(head.metadata.namespace.as_deref().unwrap_or("default")),
            name: self.string(head.metadata.name.as_deref().unwrap_or_default()),
            selector: Some(LabelSelector::default()),
            disruptions_allowed: 0,
            observed: true,
            ..DisruptionBudget::default()
        }
    }

    /// It is on the node that it names, for any driver.
    pub(in crate::kube) fn unread_attachment(&mut self, head: &Head) -> Option<Attachment> {
        let node = head.spec.as_ref().and_then(|spec| spec.node_name.as_deref())?;
        Some(Attachment { node: self.string(node).into(), driver: None, volume: None })
    }

    /// As many as before, or none of the driver that has a limit on EC2.
    pub(in crate::kube) fn unread_limits(&mut self, before: Option<&VolumeLimits>) -> VolumeLimits {
        before
            .filter(|before| !before.is_empty())
            .cloned()
            .unwrap_or_else(|| Box::from([(self.string(EBS), 0)]))
    }
}
