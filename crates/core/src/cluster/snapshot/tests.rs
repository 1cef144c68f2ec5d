use super::*;
use crate::cluster::{LabelSelector, Operator, PodPhase, PodSpec, Requirement};
use crate::testing::{app, labels, node, pod};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    SetPod { name: usize, node: Option<usize>, phase: PodPhase, template: usize, ending: bool },
    RemovePod(usize),
    SetNode { name: usize, instance: usize },
    RemoveNode(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let phase = prop::sample::select(vec![
        PodPhase::Running,
        PodPhase::Running,
        PodPhase::Pending,
        PodPhase::Succeeded,
    ]);
    prop_oneof![
        6 => (0..9usize, prop::option::of(0..4usize), phase, 0..3usize, any::<bool>())
            .prop_map(|(name, node, phase, template, ending)| {
                Step::SetPod { name, node, phase, template, ending }
            }),
        2 => (0..9usize).prop_map(Step::RemovePod),
        2 => (0..4usize, 0..6usize).prop_map(|(name, instance)| Step::SetNode { name, instance }),
        1 => (0..4usize).prop_map(Step::RemoveNode),
    ]
}

/// Everything that can be looked up, without the order of things.
fn told(snapshot: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let name = |index: &u32| snapshot.pods()[*index as usize].name.to_string();
    let nodes: BTreeMap<_, _> = snapshot
        .nodes()
        .iter()
        .map(|node| {
            let index = snapshot.node_index(&node.name).unwrap();
            let pods: BTreeSet<_> = snapshot.pods_on(&node.name).map(|pod| pod.name.to_string()).collect();
            let holders = snapshot.nodes_of_instance(node.instance_id().unwrap());
            let holders: BTreeSet<_> = holders.map(|node| node.name.to_string()).collect();
            assert!(holders.contains(&*node.name));
            (node.name.to_string(), (pods, snapshot.used(index).clone(), holders))
        })
        .collect();
    let groups: BTreeSet<BTreeSet<_>> =
        snapshot.groups().iter().map(|group| group.members.iter().map(name).collect()).collect();
    let waiting: BTreeSet<_> = snapshot.waiting().map(|pod| pod.name.to_string()).collect();
    let unready: BTreeSet<_> = snapshot.unready().map(|pod| pod.name.to_string()).collect();
    let pods: BTreeSet<_> = snapshot.pods().iter().map(|pod| pod.name.to_string()).collect();
    let owned = |pod: &Arc<Pod>| {
        let owner = owner(pod);
        let pods: BTreeSet<_> = snapshot.pods_of(&owner).map(|pod| pod.name.to_string()).collect();
        (owner.1.name.to_string(), (pods, snapshot.pods_of(&owner).count()))
    };
    let owners: BTreeMap<_, _> = snapshot.pods().iter().map(owned).collect();
    let members = snapshot.groups().iter().map(|group| group.members.len()).sum::<usize>();
    (nodes, groups, (waiting, unready), pods, owners, snapshot.of_owner.len(), members, snapshot.pods().len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn after_any_changes_it_is_as_if_built_at_once(steps in prop::collection::vec(step(), 1..60)) {
        let specs: Vec<Arc<PodSpec>> =
            [100, 200, 300].map(|cpu| pod("x", "n", cpu).spec).into_iter().collect();
        let shared: Vec<Labels> =
            ["a", "b", "c"].map(|value| labels(&[("app", value)])).into_iter().collect();
        let mut live = Live::default();
        let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
        let mut kept = Vec::new();
        for step in steps {
            match step {
                Step::SetPod { name, node, phase, template, ending } => {
                    let name = format!("p{name}");
                    let pod = Arc::new(Pod {
                        node: node.map(|node| format!("n{node}").into()),
                        phase,
                        owner: Owner { kind: OwnerKind::ReplicaSet, name: format!("o{template}").into() },
                        labels: shared[template].clone(),
                        spec: specs[template].clone(),
                        deletion: ending.then_some(jiff::Timestamp::UNIX_EPOCH),
                        ..pod(&name, "", 1)
                    });
                    pods.insert(name, pod.clone());
                    live.set_pod(pod);
                }
                Step::RemovePod(name) => {
                    let name = format!("p{name}");
                    pods.remove(&name);
                    live.remove_pod("default", &name);
                }
                Step::SetNode { name, instance } => {
                    let name = format!("n{name}");
                    let provider_id = format!("aws:///a/i-{instance}").into();
                    let node = Arc::new(Node { provider_id, ..node(&name) });
                    nodes.insert(name, node.clone());
                    live.set_node(node);
                }
                Step::RemoveNode(name) => {
                    let name = format!("n{name}");
                    nodes.remove(&name);
                    live.remove_node(&name);
                }
            }
            let parts = Parts {
                nodes: nodes.values().cloned().collect(),
                pods: pods.values().cloned().collect(),
                ..Parts::default()
            };
            prop_assert_eq!(told(&live.snapshot()), told(&Snapshot::new(parts.clone())));
            kept.push((live.snapshot(), parts));
        }
        for (snapshot, parts) in kept {
            let again = Snapshot::new(parts);
            prop_assert_eq!(told(&snapshot), told(&again), "what was given out does not change");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_budgets_of_a_pod_are_those_whose_selector_matches(
        changes in prop::collection::vec((0..5usize, 0..6usize, 0..2usize), 1..30),
        pods in prop::collection::vec((0..3usize, 0..3usize, 0..2usize), 1..6),
    ) {
        let namespaces = ["default", "other"];
        let any = |operator| Requirement { key: "tier".into(), operator };
        let selectors = [
            app("web"),
            app("db"),
            Some(LabelSelector::default()),
            None,
            Some(LabelSelector { requirements: [any(Operator::Exists)].into() }),
        ];
        let mut live = Live::default();
        for (name, selector, namespace) in changes {
            let (name, namespace) = (format!("b{name}"), namespaces[namespace]);
            match selectors.get(selector) {
                Some(selector) => live.set_budget(DisruptionBudget {
                    namespace: namespace.into(),
                    name: name.into(),
                    selector: selector.clone(),
                    ..DisruptionBudget::default()
                }),
                None => live.remove_budget(namespace, &name),
            }
        }
        let snapshot = live.snapshot();
        for (app, tier, namespace) in pods {
            let all = [("app", ["web", "db", "x"][app]), ("tier", "front")];
            let (labels, namespace) = (labels(&all[..=tier.min(1)]), namespaces[namespace].into());
            let pod = Pod { namespace, labels, ..pod("p", "n", 1) };
            let found: Vec<_> = snapshot.budgets_of(&pod, &Effort::of(u64::MAX)).unwrap();
            let expected: Vec<_> = snapshot.budgets().iter().filter(|b| b.covers(&pod)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn an_instance_that_two_nodes_say_they_run_on_is_nobodys_until_one_is_gone() {
    let on = |name: &str, instance: &str| {
        Arc::new(Node { provider_id: format!("aws:///a/{instance}").into(), ..node(name) })
    };
    let mut live = Live::default();
    for (name, instance) in [("victim", "i-1"), ("e", "i-1"), ("other", "i-2")] {
        live.set_node(on(name, instance));
    }
    let snapshot = live.snapshot();
    assert!(snapshot.node_of_instance("i-1").is_none());
    let names: Vec<_> = snapshot.nodes_of_instance("i-1").map(|node| node.name.to_string()).collect();
    assert_eq!(names, ["victim", "e"]);
    live.remove_node("e");
    let name = |id: &str| live.snapshot().node_of_instance(id).map(|node| node.name.to_string());
    assert_eq!((name("i-1").as_deref(), name("i-2").as_deref()), (Some("victim"), Some("other")));
    live.set_node(on("victim", "i-3"));
    assert!(live.snapshot().nodes_of_instance("i-1").next().is_none());
}

#[test]
fn budgets_claims_and_namespaces_come_and_go() {
    let budget = |name: &str, allowed| DisruptionBudget {
        namespace: "default".into(),
        name: name.into(),
        selector: app("web"),
        disruptions_allowed: allowed,
        ..DisruptionBudget::default()
    };
    let mut live = Live::default();
    for (name, allowed) in [("b", 1), ("a", 2), ("b", 3)] {
        live.set_budget(budget(name, allowed));
    }
    let before = live.snapshot();
    live.remove_budget("default", "a");
    live.remove_budget("default", "none");
    assert_eq!(before.budgets(), [budget("a", 2), budget("b", 3)]);
    assert_eq!(live.snapshot().budgets(), [budget("b", 3)]);

    let covering = |pod: &Pod| {
        let snapshot = live.snapshot();
        let found = snapshot.budgets_of(pod, &Effort::of(u64::MAX)).unwrap();
        found.iter().map(|b| b.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(covering(&pod("web-1", "n", 1)), ["b"]);
    assert_eq!(covering(&pod("db-1", "n", 1)), [""; 0]);
    let elsewhere = Pod { namespace: "other".into(), ..pod("web-1", "n", 1) };
    assert_eq!(covering(&elsewhere), [""; 0]);

    let key = || (Arc::from("default"), Arc::from("data"));
    live.set_claim(key().0, key().1, Some(Claim { volume: "pv".into(), ..Claim::default() }));
    live.set_namespace("default".into(), Some(labels(&[("team", "x")])));
    let before = live.snapshot();
    live.set_claim(key().0, key().1, None);
    live.set_namespace("default".into(), None);
    assert!(before.claim(&key().0, &key().1).is_some() && before.namespace_labels("default").is_some());
    let after = live.snapshot();
    assert!(after.claim(&key().0, &key().1).is_none() && after.namespace_labels("default").is_none());
}
