//! Small clusters for tests.

use crate::cluster::{
    AffinityTerm, Effect, LabelSelector, Labels, Node, Operator, Owner, OwnerKind, Parts, Pod, PodPhase,
    PodSpec, Requirement, Resources, Snapshot, SpreadConstraint, Taint,
};
use crate::group::{GroupSetup, GroupView, Instance, Lifecycle};
use std::sync::Arc;

/// A name that lives as long as the test.
pub fn leaked<T: for<'a> From<&'a str>>(text: &str) -> &'static T {
    Box::leak(Box::new(text.into()))
}

/// A gibibyte, in bytes.
pub const GIB: i64 = 1 << 30;
/// The label of the zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label of the host.
pub const HOST: &str = "kubernetes.io/hostname";

/// A ready node in zone `a` with 4 cores, 16 GiB and room for 110 pods.
pub fn node(name: &str) -> Node {
    node_in(name, "a")
}

/// A node in a zone.
pub fn node_in(name: &str, zone: &str) -> Node {
    Node {
        name: name.into(),
        uid: format!("uid-{name}").into(),
        provider_id: format!("aws:///{zone}/i-{name}").into(),
        zone: zone.into(),
        labels: [(ZONE, zone), (HOST, name)].into_iter().collect(),
        ready: true,
        allocatable: Resources { cpu_millis: 4000, memory: 16 * GIB, pods: 110, ..Resources::default() },
        ..Node::default()
    }
}

/// A running, ready pod of a ReplicaSet with label `app` set to its name up to the first dash; 1 GiB.
pub fn pod(name: &str, node: &str, cpu_millis: i64) -> Pod {
    let app = name.split('-').next().unwrap_or(name);
    Pod {
        namespace: "default".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
        node: (!node.is_empty()).then(|| node.into()),
        phase: if node.is_empty() { PodPhase::Pending } else { PodPhase::Running },
        ready: !node.is_empty(),
        owner: Owner { kind: OwnerKind::ReplicaSet, name: app.into() },
        labels: labels(&[("app", app)]),
        spec: Arc::new(PodSpec {
            requests: Resources { cpu_millis, memory: GIB, ..Resources::default() },
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// Labels of these pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

/// The pod with a changed spec.
pub fn spec(mut pod: Pod, change: impl FnOnce(&mut PodSpec)) -> Pod {
    change(Arc::make_mut(&mut pod.spec));
    pod
}

/// A taint.
pub fn taint(key: &str, effect: Effect) -> Taint {
    Taint { key: key.into(), value: "".into(), effect }
}

/// The selector of an application.
pub fn app(name: &str) -> Option<LabelSelector> {
    Some(LabelSelector::of_labels([("app", name)]))
}

/// An affinity term.
pub fn term(app_name: &str, key: &str) -> AffinityTerm {
    AffinityTerm {
        selector: app(app_name),
        namespaces: Box::default(),
        namespace_selector: None,
        topology_key: key.into(),
    }
}

/// A spread constraint.
pub fn spread(app_name: &str, key: &str) -> SpreadConstraint {
    SpreadConstraint {
        max_skew: 1,
        topology_key: key.into(),
        selector: app(app_name),
        min_domains: 1,
        honour_node_affinity: true,
        honour_taints: false,
    }
}

/// A requirement of one of these values.
pub fn one_of(key: &str, values: &[&str]) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(values.iter().map(|v| (*v).into()).collect()) }
}

/// The parts of a cluster.
pub fn parts(nodes: Vec<Node>, pods: Vec<Pod>) -> Parts {
    Parts {
        nodes: nodes.into_iter().map(Arc::new).collect(),
        pods: pods.into_iter().map(Arc::new).collect(),
        ..Parts::default()
    }
}

/// A cluster.
pub fn cluster(nodes: Vec<Node>, pods: Vec<Pod>) -> Snapshot {
    Snapshot::new(parts(nodes, pods))
}

/// A group whose instances all serve in zone `a`, as it was read at that moment.
pub fn serving_group(name: &str, desired: i32, ids: &[&str], observed_at: jiff::Timestamp) -> GroupView {
    let (lifecycle, protected) = (Lifecycle::InService, false);
    let instance = |id: &&str| Instance { id: (*id).into(), zone: "a".to_owned(), lifecycle, protected };
    GroupView {
        name: name.into(),
        desired,
        min: 0,
        max: 10,
        zones: vec!["a".to_owned()],
        can_launch: true,
        setup: GroupSetup::default(),
        instances: ids.iter().map(instance).collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at,
    }
}
