//! Why a node cannot take a pod.

use crate::cluster::Pod;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A pod, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&Pod> for PodName {
    fn from(pod: &Pod) -> Self {
        Self { namespace: pod.namespace.to_string(), name: pod.name.to_string() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeReason {
    /// It is leaving or a fallback itself, so it is not counted on.
    Excluded,
    /// It is not Ready.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// It has a taint that the pod does not tolerate.
    Taint(String),
    /// The pod's node selector or node affinity does not allow it.
    NodeAffinity,
    /// A volume of the pod cannot be used there: the claim's name.
    Volume(String),
    /// It cannot be said where a volume of the pod may be used: the claim's name.
    VolumeUnknown(String),
    /// It cannot attach more volumes of this driver.
    VolumeLimit(String),
    /// This driver of a volume is not installed there.
    DriverMissing(String),
    /// It has not enough of this resource left.
    Insufficient(String),
    /// It runs as many pods as it may.
    TooManyPods,
    /// The port is taken.
    HostPort(u16),
    /// The pods that this pod wants to be near are not there.
    PodAffinity,
    /// A pod is there that this pod, or which this pod, must not be near.
    PodAntiAffinity,
    /// The pods would be spread unevenly over this label.
    TopologySpread(String),
    /// Its kubelet does not declare this feature, which the pod needs.
    Feature(String),
    /// The scheduler keeps it for a pod that waits.
    Nominated,
    /// The pod is placed by this scheduler, whose rules are not known.
    OtherScheduler(String),
    /// The pod or the node uses this field of the API, which is not checked.
    NotUnderstood(String),
}

/// How many nodes are out for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The first reason of each of these nodes.
    pub reason: NodeReason,
    /// How many they are.
    pub nodes: usize,
}

/// Why no node can take a pod, the reason of most nodes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons(pub Vec<ReasonCount>);

/// A pod that found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The pod.
    pub pod: PodName,
    /// Why each node is out, after the other pods were placed.
    pub reasons: Reasons,
}
