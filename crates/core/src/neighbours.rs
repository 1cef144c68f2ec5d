//! Who else looks after a node: Spot Guard steps aside for them.
//!
//! Labels and taints: facts of Karpenter (pkg/apis/v1/labels.go), EKS managed node groups (EKS User Guide),
//! aws-node-termination-handler (pkg/node/node.go) and cluster-autoscaler (FAQ).

use crate::cluster::{Node, OwnerKind, Pod, Snapshot};
pub use crate::reason::Neighbour;
use crate::reason::PodName;

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
    if node.labels.get("karpenter.sh/nodepool").is_some() || is_tainted(node, "karpenter.sh/") {
        Some(Neighbour::Karpenter)
    } else if node.labels.get("eks.amazonaws.com/nodegroup").is_some() {
        Some(Neighbour::EksManagedNodeGroup)
    } else {
        ender(node)
    }
}

/// Who says by a taint that it takes the node away now. It may be a node of a managed node group, too.
#[must_use]
pub fn ender(node: &Node) -> Option<Neighbour> {
    if is_tainted(node, "aws-node-termination-handler/") {
        Some(Neighbour::NodeTerminationHandler)
    } else if is_tainted(node, "ToBeDeletedByClusterAutoscaler") {
        Some(Neighbour::ClusterAutoscaler)
    } else {
        None
    }
}

fn is_tainted(node: &Node, prefix: &str) -> bool {
    node.taints.iter().any(|taint| taint.key.starts_with(prefix))
}

/// What aws-node-termination-handler is called by its Helm chart: the name of the chart, which is part of the
/// names of its objects and the value of their label `app.kubernetes.io/name`, unless `nameOverride` says
/// otherwise. The label `k8s-app` of its pods and the name of its image stay
/// (config/helm/aws-node-termination-handler/templates/daemonset.linux.yaml).
pub const TERMINATION_HANDLER: &str = "aws-node-termination-handler";
/// The labels whose value is the name of the tool, in the pods of its Helm chart.
pub const NAME_LABELS: [&str; 2] = ["app.kubernetes.io/name", "k8s-app"];

/// Whether the image is that of aws-node-termination-handler, from whatever registry. Some add a word at the
/// end of its name, as for another architecture.
#[must_use]
pub fn is_termination_handler(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.starts_with(TERMINATION_HANDLER)
}

/// The DaemonSet or ReplicaSet of an aws-node-termination-handler that runs, if one does. Without
/// `taintNode`, which is its default, no mark on a node shows it before it drains the node, too.
#[must_use]
pub fn termination_handler(cluster: &Snapshot) -> Option<PodName> {
    let is_it = |pod: &&std::sync::Arc<Pod>| {
        let called = pod.spec.termination_handler
            || NAME_LABELS.iter().any(|label| pod.labels.get(label) == Some(TERMINATION_HANDLER))
            || pod.owner.kind != OwnerKind::None && pod.owner.name.contains(TERMINATION_HANDLER);
        called && !pod.phase.finished() && !pod.terminating()
    };
    let found = cluster.pods().iter().filter(is_it).map(|pod| {
        let name = if pod.owner.kind == OwnerKind::None { &pod.name } else { &pod.owner.name };
        PodName { namespace: pod.namespace.to_string(), name: name.to_string() }
    });
    found.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Effect, Labels, Owner, PodPhase, PodSpec, Taint};
    use crate::testing::{node, parts, pod};

    #[test]
    fn a_termination_handler_is_known_by_its_labels_its_image_or_the_name_of_its_controller() {
        let owned = |kind, name: &str, labels: &[(&'static str, &'static str)]| Pod {
            owner: Owner { kind, name: name.into() },
            labels: Labels::from_iter(labels.iter().copied()),
            ..pod("x", "n", 1)
        };
        let label = [("app.kubernetes.io/name", "aws-node-termination-handler")];
        let found = |pod: Pod| {
            let name = termination_handler(&Snapshot::new(parts(vec![node("n")], vec![pod])));
            name.map(|name| name.name)
        };
        let (set, deployment) = (OwnerKind::DaemonSet, OwnerKind::ReplicaSet);
        assert_eq!(found(owned(set, "nth", &label)).as_deref(), Some("nth"));
        assert_eq!(found(owned(OwnerKind::None, "", &label)).as_deref(), Some("x"));
        let queue = "my-aws-node-termination-handler-5d9c";
        assert_eq!(found(owned(deployment, queue, &[])).as_deref(), Some(queue));
        assert_eq!(found(owned(set, "aws-node", &[])), None);
        // As with `nameOverride: nth`.
        let renamed = [("app.kubernetes.io/name", "nth"), ("k8s-app", "aws-node-termination-handler")];
        assert_eq!(found(owned(set, "nth", &renamed)).as_deref(), Some("nth"));
        let by_image = PodSpec { termination_handler: true, ..PodSpec::default() };
        let by_image = Pod { spec: by_image.into(), ..owned(set, "nth", &renamed[..1]) };
        assert_eq!(found(by_image).as_deref(), Some("nth"));
        assert_eq!(found(owned(set, "nth", &renamed[..1])), None);
        let over = Pod { phase: PodPhase::Succeeded, ..owned(deployment, queue, &label) };
        assert_eq!(found(over), None);
    }

    #[test]
    fn the_image_of_a_termination_handler_is_known_from_any_registry() {
        for (image, expected) in [
            ("public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25.0", true),
            ("registry:5000/mirror/aws-node-termination-handler@sha256:0", true),
            ("aws-node-termination-handler", true),
            ("cgr.dev/x/aws-node-termination-handler-fips:1", true),
            ("aws-node-termination-handler/sidecar:1", false),
            ("registry/web:aws-node-termination-handler", false),
            ("", false),
        ] {
            assert_eq!(is_termination_handler(image), expected, "{image}");
        }
    }

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
