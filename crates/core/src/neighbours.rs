//! Who else looks after a node: Spot Guard steps aside for them.
//!
//! Labels and taints: facts of Karpenter (pkg/apis/v1/labels.go), EKS managed node groups (EKS User Guide),
//! aws-node-termination-handler (pkg/node/node.go) and cluster-autoscaler (FAQ).

use crate::cluster::Node;
pub use crate::reason::Neighbour;

impl Neighbour {
    /// Whether the node is its own, and not only marked by it. A mark may be old: nothing says that anybody
    /// still drains the node (kubernetes/autoscaler#5657).
    #[must_use]
    pub fn owns_nodes(self) -> bool {
        matches!(self, Self::Karpenter | Self::EksManagedNodeGroup)
    }
}

/// Who has the node in its hands, if anybody but us.
#[must_use]
pub fn owner(node: &Node) -> Option<Neighbour> {
    let tainted = |prefix: &str| node.taints.iter().any(|taint| taint.key.starts_with(prefix));
    if node.labels.get("karpenter.sh/nodepool").is_some() || tainted("karpenter.sh/") {
        Some(Neighbour::Karpenter)
    } else if node.labels.get("eks.amazonaws.com/nodegroup").is_some() {
        Some(Neighbour::EksManagedNodeGroup)
    } else if tainted("aws-node-termination-handler/") {
        Some(Neighbour::NodeTerminationHandler)
    } else if tainted("ToBeDeletedByClusterAutoscaler") {
        Some(Neighbour::ClusterAutoscaler)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Effect, Labels, Taint};
    use crate::testing::node;

    #[test]
    fn each_neighbour_is_known_by_its_mark_and_nobody_by_others() {
        let labelled = |key: &str| Node { labels: Labels::from_iter([(key, "x")]), ..node("n") };
        let tainted = |key: &str| {
            let taint = Taint { key: key.into(), value: "".into(), effect: Effect::NoSchedule };
            Node { taints: vec![taint].into(), ..node("n") }
        };
        for (found, expected) in [
            (labelled("karpenter.sh/nodepool"), Some(Neighbour::Karpenter)),
            (tainted("karpenter.sh/disrupted"), Some(Neighbour::Karpenter)),
            (labelled("eks.amazonaws.com/nodegroup"), Some(Neighbour::EksManagedNodeGroup)),
            (
                tainted("aws-node-termination-handler/rebalance-recommendation"),
                Some(Neighbour::NodeTerminationHandler),
            ),
            (tainted("aws-node-termination-handler/spot-itn"), Some(Neighbour::NodeTerminationHandler)),
            (tainted("ToBeDeletedByClusterAutoscaler"), Some(Neighbour::ClusterAutoscaler)),
            (tainted("status-taint.cluster-autoscaler.kubernetes.io/RebalanceRecommendation"), None),
            (labelled("eks.amazonaws.com/capacityType"), None),
            (tainted("node.kubernetes.io/not-ready"), None),
            (node("n"), None),
        ] {
            assert_eq!(owner(&found), expected, "{found:?}");
        }
    }
}
