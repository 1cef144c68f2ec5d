//! Volumes and claims.

use super::node_selector::NodeSelectorTerm;
use crate::ids::NodeName;
use std::sync::Arc;

/// Where a volume may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VolumeReach {
    /// Everywhere.
    #[default]
    Anywhere,
    /// On nodes that meet one of these terms: the bound volume's node affinity.
    Nodes(Box<[NodeSelectorTerm]>),
    /// Not known, for instance because the claim is not bound.
    Unknown,
}

/// A PersistentVolumeClaim and what it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The bound volume's name; empty if there is none.
    pub volume: Arc<str>,
    /// The bound volume's CSI driver, if it is one.
    pub driver: Option<Arc<str>>,
    /// Where the volume may be used.
    pub reach: VolumeReach,
    /// The class of the storage; empty without one.
    pub class: Arc<str>,
    /// One pod at a time may use it (`ReadWriteOncePod`).
    pub one_pod: bool,
    /// One node at a time may use it (`ReadWriteOnce` alone), which the scheduler does not look at
    /// (kubernetes/kubernetes#103305).
    pub one_node: bool,
}

/// What a claim says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimTerms {
    /// The name of the volume that it is bound to for good; empty if a new pod could not use it.
    pub volume: Arc<str>,
    /// The class of the storage; empty without one.
    pub class: Arc<str>,
    /// One pod at a time may use it (`ReadWriteOncePod`).
    pub one_pod: bool,
    /// One node at a time may use it (`ReadWriteOnce` alone), which the scheduler does not look at
    /// (kubernetes/kubernetes#103305).
    pub one_node: bool,
}

/// A volume that is attached to a node, or is about to be: a VolumeAttachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The node.
    pub node: NodeName,
    /// The CSI driver; `None` if it is not known.
    pub driver: Option<Arc<str>>,
    /// The volume's name; `None` if it stands in the pod itself.
    pub volume: Option<Arc<str>>,
}

/// What a CSIDriver asks of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverTerms {
    /// Its volumes are only for nodes where it is installed (`preventPodSchedulingIfMissing`, KEP-5030).
    pub must_be_installed: bool,
    /// New volumes need room in its storage, which is not read (`storageCapacity`, KEP-1472).
    pub counts_capacity: bool,
}

/// Where a StorageClass makes new volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTerms {
    /// The driver that makes them.
    pub provisioner: Arc<str>,
    /// Wherever the pod goes: binding waits for it, and no topology is excluded.
    pub follows_pod: bool,
}

impl Claim {
    /// The claim of these terms; of its volume `found` is known.
    #[must_use]
    pub fn bound_to(terms: ClaimTerms, found: Option<&Volume>) -> Self {
        let ClaimTerms { volume, class, one_pod, one_node } = terms;
        let (driver, reach) = match found {
            Some(found) if !volume.is_empty() => (found.driver.clone(), found.reach.clone()),
            _ => (None, VolumeReach::Unknown),
        };
        Self { volume, driver, reach, class, one_pod, one_node }
    }
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its CSI driver, if it has one.
    pub driver: Option<Arc<str>>,
    /// Where it may be used.
    pub reach: VolumeReach,
    /// Namespace and name of the claim that it is for.
    pub claim: Option<(Arc<str>, Arc<str>)>,
}
