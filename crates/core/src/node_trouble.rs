//! Why nodes cannot be used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why the node of an instance cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeTrouble {
    /// No node says that it runs on the instance.
    NotJoined,
    /// The node is not Ready.
    NotReady,
    /// The node is cordoned.
    Cordoned,
    /// The node keeps a taint that no node with pods in the pool has, as start-up taints are (Kubernetes,
    /// "Taints and Tolerations").
    Tainted,
    /// More than one node says that it runs on the instance. It is kept: nobody knows whose pods run on it.
    Disputed,
    /// The node is fine, and the pods that it is for do not fit with it: the zone is the wrong one, say.
    PodsDoNotFit,
    /// The node is fine and runs nothing: the return that it came for has not been safe for half an hour.
    StandsIdle,
}

impl NodeTrouble {
    /// Whether nothing is wrong with the node itself.
    #[must_use]
    pub fn is_of_pods(self) -> bool {
        matches!(self, Self::PodsDoNotFit | Self::StandsIdle)
    }
}
