//! Volumes and claims.

use super::node_selector::NodeSelectorTerm;
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
}

impl Claim {
    /// The claim that names `volume`, of which `found` is known.
    #[must_use]
    pub fn bound_to(volume: Arc<str>, found: Option<&Volume>) -> Self {
        match found {
            Some(found) if !volume.is_empty() => {
                Self { volume, driver: found.driver.clone(), reach: found.reach.clone() }
            }
            _ => Self { volume, driver: None, reach: VolumeReach::Unknown },
        }
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
