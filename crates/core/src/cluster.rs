//! The cluster as the decisions see it: only the fields that they need, cheap to keep for 150,000 pods.
//!
//! Nodes and pods are shared (`Arc`), and so is what all pods of one template have in common ([`PodSpec`],
//! [`Labels`]). [`Snapshot`] adds the indexes that the placement check looks things up in; it groups pods
//! by those shared parts, so a selector is matched once per template and not once per pod. [`Live`] keeps a
//! snapshot up to date, change by change.

mod budget;
mod budgets;
mod labels;
mod node;
mod node_selector;
mod parts;
mod pod;
mod resources;
mod snapshot;
mod storage;
mod taints;
#[cfg(test)]
mod tests;
mod volume;
mod weight;

pub use budget::{DisruptionBudget, UnhealthyPods};
pub use labels::{LabelSelector, Labels, Operator, Requirement};
pub use node::{KNOWN_FEATURES, Node, ScaleDown, VolumeLimits};
pub use node_selector::NodeSelectorTerm;
pub use parts::Parts;
pub use pod::{
    AffinityTerm, ClaimRef, HostPort, Owner, OwnerKind, Pod, PodKey, PodPhase, PodSpec, SpreadConstraint,
};
pub use resources::Resources;
pub(crate) use resources::{add, add_extended, take_off};
pub(crate) use snapshot::index32;
pub use snapshot::{Live, PodGroup, Snapshot};
pub use storage::Storage;
pub use taints::{Effect, Taint, Toleration, TolerationOperator};
pub use volume::{Attachment, Claim, ClaimTerms, ClassTerms, DriverTerms, Volume, VolumeReach};
