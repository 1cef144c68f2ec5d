//! Which Spot nodes are watched: those with a ready agent, or all while the notice queue is read.
//!
//! Nobody can claim to be the agent of another node: the pod counts that the DaemonSet has in the namespace
//! of Spot Guard, bound to the node by the scheduler, ready by its kubelet's word. Who may create pods in
//! that namespace is trusted with it.

use crate::cluster::{Node, OwnerKind, Pod, Snapshot};
use crate::group::GroupView;
use crate::ids::NodeName;
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// The labels of an agent's pod, as the manifests set them.
pub const AGENT_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "spot-guard"), ("app.kubernetes.io/component", "agent")];
/// So long a new node may have no agent: its image is fetched, and its probe has to succeed.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// How many Spot nodes of a pool are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedNodes {
    /// How many Ready nodes of Spot instances in service there are.
    pub nodes: usize,
    /// Those that are not watched, by name.
    pub unwatched: Vec<NodeName>,
}

impl WatchedNodes {
    /// What is known of each node: its name, and whether it is watched.
    #[must_use]
    pub fn of(nodes: impl IntoIterator<Item = (NodeName, bool)>) -> Self {
        let mut watched = Self::default();
        for (node, is_watched) in nodes {
            watched.nodes += 1;
            if !is_watched {
                watched.unwatched.push(node);
            }
        }
        watched.unwatched.sort();
        watched
    }

    /// What the cluster shows of the Spot group's nodes. `namespace` is that of Spot Guard. A node that has
    /// just become Ready is left out: its agent starts. `by_queue` is whether the notice queue is read.
    #[must_use]
    pub fn in_cluster(
        spot: &GroupView,
        cluster: &Snapshot,
        namespace: &str,
        by_queue: bool,
        now: Timestamp,
    ) -> Self {
        Self::of(ready_nodes(spot, cluster).filter_map(|node| {
            let has_agent = has_agent(node, cluster, namespace);
            let starts = node.ready_changed.is_some_and(|at| since(at, now) < STARTS_WITHIN);
            let watched = has_agent || by_queue;
            (watched || !starts).then(|| (node.name.clone(), watched))
        }))
    }
}

/// How many of the Spot group's Ready nodes have a ready agent, whether or not the notice queue is read.
#[must_use]
pub fn with_ready_agent(spot: &GroupView, cluster: &Snapshot, namespace: &str) -> usize {
    ready_nodes(spot, cluster).filter(|node| has_agent(node, cluster, namespace)).count()
}

fn ready_nodes<'c>(spot: &'c GroupView, cluster: &'c Snapshot) -> impl Iterator<Item = &'c Node> {
    let instances = spot.instances.iter().filter(move |instance| spot.is_in_service(&instance.id));
    let nodes = instances.filter_map(move |instance| cluster.node_of_instance(&instance.id));
    nodes.filter(|node| node.ready)
}

fn has_agent(node: &Node, cluster: &Snapshot, namespace: &str) -> bool {
    cluster.pods_on(&node.name).any(|pod| is_ready_agent(pod, namespace))
}

fn is_ready_agent(pod: &Pod, namespace: &str) -> bool {
    pod.ready
        && !pod.terminating()
        && &*pod.namespace == namespace
        && pod.owner.kind == OwnerKind::DaemonSet
        && AGENT_LABELS.iter().all(|(key, value)| pod.labels.get(key) == Some(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Labels, Live, Owner};
    use crate::group::{GroupSetup, Instance, Lifecycle};
    use std::sync::Arc;

    const NAMESPACE: &str = "spot-guard";

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().expect("a time")
    }

    fn agent(node: &str) -> Pod {
        Pod {
            namespace: NAMESPACE.into(),
            name: format!("agent-{node}").into(),
            uid: format!("agent-{node}").into(),
            node: Some(node.into()),
            ready: true,
            owner: Owner { kind: OwnerKind::DaemonSet, name: "spot-guard-agent".into() },
            labels: AGENT_LABELS.into_iter().collect(),
            ..Pod::default()
        }
    }

    fn watched(pods: Vec<Pod>, change: impl Fn(&mut Node)) -> WatchedNodes {
        watched_beside_queue(pods, false, change)
    }

    fn watched_beside_queue(pods: Vec<Pod>, by_queue: bool, change: impl Fn(&mut Node)) -> WatchedNodes {
        let (spot, live) = cluster(pods, change);
        WatchedNodes::in_cluster(&spot, &live.snapshot(), NAMESPACE, by_queue, now())
    }

    /// Two Spot nodes, as they are changed, and these pods.
    fn cluster(pods: Vec<Pod>, change: impl Fn(&mut Node)) -> (GroupView, Live) {
        let mut live = Live::default();
        let mut instances = Vec::new();
        for number in 1..=2 {
            let id = format!("i-0000000{number}");
            let mut node = Node {
                name: format!("n{number}").into(),
                provider_id: format!("aws:///a/{id}").into(),
                ready: true,
                ready_changed: now().checked_sub(Duration::from_secs(600)).ok(),
                ..Node::default()
            };
            change(&mut node);
            live.set_node(Arc::new(node));
            let zone = "a".to_owned();
            instances.push(Instance {
                id: id.as_str().into(),
                zone,
                lifecycle: Lifecycle::InService,
                protected: false,
            });
        }
        pods.into_iter().for_each(|pod| live.set_pod(Arc::new(pod)));
        let spot = GroupView {
            name: "spot".into(),
            desired: 2,
            min: 0,
            max: 9,
            zones: vec!["a".to_owned()],
            can_launch: false,
            setup: GroupSetup::default(),
            instances,
            failures: Vec::new(),
            unlisted_launches: 0,
            observed_at: now(),
        };
        (spot, live)
    }

    #[test]
    fn a_node_is_watched_by_a_ready_agent_of_its_own_and_by_nothing_else() {
        let all = |_: &mut Node| {};
        assert_eq!(
            watched(vec![agent("n1"), agent("n2")], all),
            WatchedNodes { nodes: 2, unwatched: vec![] }
        );
        for (what, pod) in [
            ("no pod", None),
            ("not ready", Some(Pod { ready: false, ..agent("n2") })),
            ("ends", Some(Pod { deletion: Some(now()), ..agent("n2") })),
            ("somebody else's namespace", Some(Pod { namespace: "tenant".into(), ..agent("n2") })),
            ("no DaemonSet's", Some(Pod { owner: Owner::default(), ..agent("n2") })),
            ("the controller", Some(Pod { labels: Labels::default(), ..agent("n2") })),
            ("no node yet", Some(Pod { node: None, ..agent("n2") })),
        ] {
            let found = watched([agent("n1")].into_iter().chain(pod).collect(), all);
            assert_eq!(found, WatchedNodes { nodes: 2, unwatched: vec!["n2".into()] }, "{what}");
        }
        let text = watched(vec![agent("n1")], all).to_string();
        assert_eq!(text, "1 of 2 Spot nodes are not watched by a ready agent: n2");
    }

    #[test]
    fn while_the_notice_queue_is_read_every_node_is_watched_without_an_agent() {
        let all = |_: &mut Node| {};
        let found = watched_beside_queue(Vec::new(), true, all);
        assert_eq!(found, WatchedNodes { nodes: 2, unwatched: vec![] });
        for (pods, expected) in [(vec![], 0), (vec![agent("n1")], 1)] {
            let (spot, live) = cluster(pods, all);
            assert_eq!(with_ready_agent(&spot, &live.snapshot(), NAMESPACE), expected);
        }
    }

    #[test]
    fn a_node_that_has_just_come_or_is_down_is_not_missed() {
        let fresh = watched(Vec::new(), |node| node.ready_changed = Some(now()));
        assert_eq!(fresh, WatchedNodes::default());
        assert_eq!(watched(Vec::new(), |node| node.ready = false), WatchedNodes::default());
    }
}
