//! How far the watches can be relied on: no irreversible step is taken on a picture that is known to be old.

use jiff::Timestamp;
use std::fmt;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchedKind {
    /// Nodes.
    Node,
    /// CSINodes.
    CsiNode,
    /// Pods.
    Pod,
    /// PodDisruptionBudgets.
    DisruptionBudget,
    /// PersistentVolumeClaims.
    Claim,
    /// PersistentVolumes.
    Volume,
    /// Namespaces.
    Namespace,
    /// SpotPools.
    Pool,
    /// InterruptionNotices.
    Notice,
    /// NodeReplacements.
    Replacement,
    /// Triggers.
    Trigger,
}

impl WatchedKind {
    /// All of them, in their order.
    pub const ALL: [Self; 11] = [
        Self::Node,
        Self::CsiNode,
        Self::Pod,
        Self::DisruptionBudget,
        Self::Claim,
        Self::Volume,
        Self::Namespace,
        Self::Pool,
        Self::Notice,
        Self::Replacement,
        Self::Trigger,
    ];

    /// The plural by which the Kubernetes API knows the kind.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::CsiNode => "csinodes",
            Self::Pod => "pods",
            Self::DisruptionBudget => "poddisruptionbudgets",
            Self::Claim => "persistentvolumeclaims",
            Self::Volume => "persistentvolumes",
            Self::Namespace => "namespaces",
            Self::Pool => "spotpools",
            Self::Notice => "interruptionnotices",
            Self::Replacement => "nodereplacements",
            Self::Trigger => "triggers",
        }
    }
}

/// A watch whose picture is old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleWatch {
    /// What it watches.
    pub kind: WatchedKind,
    /// When its picture was last known to be current.
    pub since: Timestamp,
}

impl fmt::Display for StaleWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the watch of {} is broken or silent since {:.0}", self.kind.plural(), self.since)
    }
}

/// The watches whose picture is old; none: everything is current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// In the order of their kinds.
    pub stale: Vec<StaleWatch>,
}
