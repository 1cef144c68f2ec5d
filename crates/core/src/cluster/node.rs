//! Nodes.

use super::labels::Labels;
use super::resources::Resources;
use super::taints::Taint;
use crate::ids::{InstanceId, NodeName, NodeUid};
use jiff::Timestamp;
use std::sync::Arc;

/// How many volumes each CSI driver that is installed can attach to a node, sorted by driver; `i64::MAX` is
/// no limit.
pub type VolumeLimits = Box<[(Arc<str>, i64)]>;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its UID.
    pub uid: NodeUid,
    /// `spec.providerID`; empty while the cloud has not set it.
    pub provider_id: Arc<str>,
    /// `topology.kubernetes.io/zone`; empty if not set.
    pub zone: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Its Ready condition is true.
    pub ready: bool,
    /// When the Ready condition last changed.
    pub ready_changed: Option<Timestamp>,
    /// What pods can have of it.
    pub allocatable: Resources,
    /// How many volumes each CSI driver can attach.
    pub volume_limits: VolumeLimits,
    /// The features that its kubelet declares, sorted (`status.declaredFeatures`, KEP-5328).
    pub features: Box<[Arc<str>]>,
    /// A field in use that the placement check does not understand, as the API names it: no pod is said to
    /// fit there.
    pub not_understood: Option<Arc<str>>,
    /// When it joined.
    pub created: Option<Timestamp>,
    /// Whether cluster-autoscaler may take it away.
    pub scale_down: ScaleDown,
}

/// Whether cluster-autoscaler may take a node away for being little used (its FAQ, `scale-down-disabled`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDown {
    /// It may.
    #[default]
    Allowed,
    /// It may not, because of us.
    DisabledByUs,
    /// It may not, because of somebody else: nothing of ours is to be added or taken off.
    DisabledByOther,
}

/// The features whose need a pod's spec shows: see [`super::PodSpec::required_features`]. Of others nobody
/// here knows which pods need them.
pub const KNOWN_FEATURES: [&str; 3] =
    ["RestartAllContainersOnContainerExits", "UserNamespacesHostNetworkSupport", "VolumeBindMountOptions"];

/// How `spec.providerID` begins that says where the machine is (EKS User Guide, "hybrid nodes"; the cloud
/// controllers of Kubernetes).
const CLOUDS: [&str; 8] = [
    "aws://",
    "azure://",
    "digitalocean://",
    "eks-hybrid://",
    "gce://",
    "hcloud://",
    "openstack://",
    "vsphere://",
];

impl Node {
    /// The EC2 instance behind it: the last part of its providerID, `aws:///<zone>/<id>`.
    #[must_use]
    pub fn instance_id(&self) -> Option<InstanceId> {
        let id = self.provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
        id.starts_with("i-").then(|| id.into())
    }

    /// Whether its `spec.providerID` names no EC2 instance: another cloud's controller, or the distribution's
    /// own, has set it (`k3s://`, `rancher://`, `kind://`). Nobody can change it then.
    #[must_use]
    pub fn has_foreign_provider_id(&self) -> bool {
        !self.provider_id.is_empty() && self.instance_id().is_none()
    }

    /// Whether it says where its machine is: an instance, Fargate, a hybrid node, or another cloud. What a
    /// distribution calls its own (`k3s://`) may be an instance.
    #[must_use]
    pub fn names_its_cloud(&self) -> bool {
        CLOUDS.iter().any(|cloud| self.provider_id.starts_with(cloud))
    }

    /// Whether it is the node that runs on the instance. One that does not name an instance is known by the
    /// UID that was noted: a later node of the same name has another one.
    #[must_use]
    pub fn is(&self, instance_id: &InstanceId, uid: Option<&NodeUid>) -> bool {
        match self.instance_id() {
            Some(id) => id == *instance_id,
            None => uid.is_some_and(|uid| self.uid == *uid),
        }
    }
}
