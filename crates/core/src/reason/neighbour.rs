//! Who else may have a node in its hands.

/// Another tool that has a node in its hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// The node is Karpenter's.
    Karpenter,
    /// The node belongs to an EKS managed node group.
    EksManagedNodeGroup,
    /// aws-node-termination-handler drains it.
    NodeTerminationHandler,
    /// cluster-autoscaler is about to delete it.
    ClusterAutoscaler,
}
