use super::*;

#[test]
fn an_instance_has_pods_while_pods_run_or_end_on_its_node_and_schedulable_until_that_is_cordoned() {
    use crate::cluster::{Node, Pod};
    use crate::testing::{cluster, node, pod};
    let cordoned = Node { unschedulable: true, ..node("1") };
    let ending = Pod { deletion: Some(now() + std::time::Duration::from_secs(20)), ..pod("web-2", "2", 1) };
    let cluster = cluster(vec![cordoned, node("2")], vec![pod("web-1", "1", 1), ending]);
    let mut facts = InstanceFacts::default();
    facts.found_empty.insert("i-1".into(), now());
    facts.look_at(&usual(), &cluster, &Freshness::default(), "ours", now());
    assert_eq!(facts.with_pods, ["i-1", "i-2"].map(Into::into).into());
    assert_eq!(facts.schedulable, ["i-2".into()].into(), "and i-3 has no node yet");
}

#[test]
fn an_instance_that_two_nodes_say_they_run_on_counts_as_one_with_pods() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node};
    let idle = |name: &str| Node { unschedulable: true, provider_id: "aws:///a/i-1".into(), ..node(name) };
    for (nodes, with_pods) in [(vec![idle("1")], 0), (vec![idle("1"), idle("e")], 1)] {
        let mut facts = InstanceFacts::default();
        facts.look_at(&usual(), &cluster(nodes, vec![]), &Freshness::default(), "ours", now());
        assert_eq!(facts.with_pods.len(), with_pods);
    }
}

#[test]
fn an_instance_without_a_node_is_not_idle_while_a_young_node_does_not_say_which_one_it_has() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node};
    let ago = |seconds| Some(now() - Duration::from_secs(seconds));
    for (provider_id, created, with_pods) in [
        ("", ago(599), vec!["i-1", "i-3"]),
        ("", ago(600), vec![]),
        ("", None, vec![]),
        ("aws:///a/i-9", ago(9), vec![]),
        ("eks-hybrid:///x", ago(9), vec![]),
    ] {
        let young = Node { provider_id: provider_id.into(), created, ..node("young") };
        let mut facts = InstanceFacts::default();
        facts.look_at(
            &usual(),
            &cluster(vec![node("2"), young], vec![]),
            &Freshness::default(),
            "ours",
            now(),
        );
        assert_eq!(
            facts.with_pods,
            with_pods.into_iter().map(Into::into).collect(),
            "{provider_id} {created:?}"
        );
    }
}

#[test]
fn on_an_old_picture_nothing_is_ended_but_at_its_deadline() {
    let (ledger, view) = served();
    let stale = InstanceFacts { stale: true, ..InstanceFacts::default() };
    let waits = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &stale, &Deferred::default(), now());
    assert_eq!(waits.call, None);
    let pressed = ends("i-1", "i-1").into_iter().map(|end| End { pressed: true, ..end }).collect();
    let ended = plan(&ledger, &view, &spot("i-1"), &pressed, &stale, &Deferred::default(), now());
    assert_eq!(ended.call, end("i-1", true));
    // What nobody wants any more is idle by this picture only.
    let nothing = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &stale, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, BTreeSet::new()));
    let current = InstanceFacts::default();
    let back = plan(&ledger, &view, &nothing, &BTreeSet::new(), &current, &Deferred::default(), now());
    assert_eq!(back.call, end("i-4", true));
}

#[test]
fn a_cordoned_node_is_idle_only_for_a_while_after_it_was_listed_as_empty() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node};
    let cluster = cluster(vec![Node { unschedulable: true, ..node("1") }], vec![]);
    let schedulable = |found_empty: &[Timestamp], freshness: &Freshness| {
        let found_empty = found_empty.iter().map(|at| ("i-1".into(), *at)).collect();
        let mut facts = InstanceFacts { found_empty, ..InstanceFacts::default() };
        facts.look_at(&usual(), &cluster, freshness, "ours", now());
        (!facts.schedulable.is_empty(), facts.stale)
    };
    let current = Freshness::default();
    let ago = |seconds| now() - Duration::from_secs(seconds);
    assert_eq!(schedulable(&[], &current), (true, false));
    assert_eq!(schedulable(&[ago(60)], &current), (true, false));
    assert_eq!(schedulable(&[ago(59)], &current), (false, false));
    let kind = crate::freshness::WatchedKind::Pod;
    let old = Freshness { stale: vec![crate::freshness::StaleWatch { kind, since: ago(5) }] };
    assert_eq!(schedulable(&[ago(59)], &old), (false, true));
}
