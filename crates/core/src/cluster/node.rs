//! Nodes.

use super::labels::Labels;
use super::resources::Resources;
use super::taints::Taint;
use crate::ids::{InstanceId, NodeName};
use jiff::Timestamp;
use std::sync::Arc;

/// How many volumes each CSI driver can attach to a node, sorted by driver; one not listed has no limit.
pub type VolumeLimits = Box<[(Arc<str>, i64)]>;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
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

impl Node {
    /// The EC2 instance behind it: the last part of its providerID, `aws:///<zone>/<id>`.
    #[must_use]
    pub fn instance_id(&self) -> Option<InstanceId> {
        let id = self.provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
        id.starts_with("i-").then(|| id.into())
    }

    /// Whether it says nothing of its instance: it has no providerID yet, or one of another cloud.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        !self.provider_id.starts_with("aws://")
    }

    /// Whether it runs on the instance, as far as it says: it may not have said anything yet.
    #[must_use]
    pub fn may_run_on(&self, instance_id: &InstanceId) -> bool {
        self.provider_id.is_empty() || self.instance_id().as_ref() == Some(instance_id)
    }
}
