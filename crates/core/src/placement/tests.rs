use super::obstacles::Rules;
use super::packer::Packer;
use super::*;
use crate::cluster::index32;
use crate::cluster::{
    Attachment, Claim, ClaimRef, ClassTerms, DriverTerms, Effect, HostPort, LabelSelector, NodeSelectorTerm,
    Operator, Owner, OwnerKind, Parts, PodSpec, Requirement, Storage, Toleration, TolerationOperator,
    VolumeReach,
};
use crate::ids::NodeName;
use crate::policy::Policy;
use crate::testing::{
    GIB, HOST, ZONE, cluster, labels, node, node_in, one_of, parts, pod, spec, spread, taint, term,
};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Places all pods of node `old`.
fn place_old(snapshot: &Snapshot) -> Placement {
    let pods: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
    place(&pods, snapshot, &ExcludedNodes::from_iter(["old"]), &PlacementOptions::default())
}

#[track_caller]
fn fits(nodes: Vec<Node>, pods: Vec<Pod>) {
    let placement = place_old(&cluster(with_old(nodes), pods));
    assert!(placement.fits(), "{:?}", placement.unplaced);
}

#[track_caller]
fn does_not_fit(nodes: Vec<Node>, pods: Vec<Pod>, reasons: &[NodeReason]) {
    check_reasons(&cluster(with_old(nodes), pods), reasons);
}

/// Compares the first pod's reasons, but for the old node itself.
#[track_caller]
fn check_reasons(snapshot: &Snapshot, reasons: &[NodeReason]) {
    let placement = place_old(snapshot);
    assert!(!placement.fits(), "{:?}", placement.example);
    assert!(!placement.certain);
    let found = placement.unplaced[0].reasons.0.iter().map(|count| &count.reason);
    let found: BTreeSet<&NodeReason> = found.filter(|r| **r != NodeReason::Excluded).collect();
    assert_eq!(found, reasons.iter().collect());
}

fn with_old(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.push(node("old"));
    nodes
}

fn insufficient(resource: &str) -> NodeReason {
    NodeReason::Insufficient(resource.to_owned())
}

#[test]
fn pods_are_placed_together_and_not_each_on_the_same_free_node() {
    let pods = |n| (0..n).map(|i| pod(&format!("web-{i}"), "old", 1500)).collect::<Vec<_>>();
    fits(vec![node("n1")], pods(2));
    does_not_fit(vec![node("n1")], pods(3), &[insufficient("cpu")]);
}

#[test]
fn the_example_of_the_documentation() {
    let pods = || vec![pod("api", "old", 4000), pod("web-1", "old", 1000), pod("web-2", "old", 1000)];
    let two = place_old(&cluster(with_old(vec![node("n1"), node("n2")]), pods()));
    assert!(!two.fits() && two.fits_in_some_order && !two.certain);
    let three = place_old(&cluster(with_old(vec![node("n1"), node("n2"), node("n3")]), pods()));
    assert!(three.fits() && three.certain);
    assert_eq!(three.packings, 1);
}

#[test]
fn what_pods_already_take_is_not_free() {
    fits(vec![node("n1")], vec![pod("web-1", "old", 1000), pod("db-1", "n1", 3000)]);
    let pods = vec![pod("web-1", "old", 1000), pod("db-1", "n1", 3001)];
    does_not_fit(vec![node("n1")], pods, &[insufficient("cpu")]);
}

#[test]
fn every_resource_counts() {
    let asks = |change: fn(&mut PodSpec)| vec![spec(pod("web-1", "old", 1), change)];
    let gpu = |n: i64| -> Box<[(Arc<str>, i64)]> { [("nvidia.com/gpu".into(), n)].into() };
    does_not_fit(vec![node("n1")], asks(|s| s.requests.memory = 17 * GIB), &[insufficient("memory")]);
    let disk = asks(|s| s.requests.ephemeral_storage = 1);
    does_not_fit(vec![node("n1")], disk, &[insufficient("ephemeral-storage")]);
    let with_gpu =
        |n| Node { allocatable: Resources { extended: gpu(n), ..node("n1").allocatable }, ..node("n1") };
    let two = || asks(|s| s.requests.extended = [("nvidia.com/gpu".into(), 2)].into());
    does_not_fit(vec![node("n1")], two(), &[insufficient("nvidia.com/gpu")]);
    does_not_fit(vec![with_gpu(1)], two(), &[insufficient("nvidia.com/gpu")]);
    fits(vec![with_gpu(2)], two());
    let crowded = Node { allocatable: Resources { pods: 1, ..node("n1").allocatable }, ..node("n1") };
    does_not_fit(
        vec![crowded],
        vec![pod("web-1", "old", 1), pod("db-1", "n1", 1)],
        &[NodeReason::TooManyPods],
    );
}

#[test]
fn nodes_that_are_cordoned_not_ready_or_excluded_are_not_used() {
    let one = || vec![pod("web-1", "old", 1)];
    does_not_fit(vec![Node { unschedulable: true, ..node("n1") }], one(), &[NodeReason::Cordoned]);
    does_not_fit(vec![Node { ready: false, ..node("n1") }], one(), &[NodeReason::NotReady]);
    does_not_fit(vec![], one(), &[]);
}

#[test]
fn taints_must_be_tolerated_unless_they_are_only_a_preference() {
    let tainted = |effect| vec![Node { taints: [taint("spot", effect)].into(), ..node("n1") }];
    let one = || vec![pod("web-1", "old", 1)];
    does_not_fit(tainted(Effect::NoSchedule), one(), &[NodeReason::Taint("spot:NoSchedule".into())]);
    does_not_fit(tainted(Effect::NoExecute), one(), &[NodeReason::Taint("spot:NoExecute".into())]);
    fits(tainted(Effect::PreferNoSchedule), one());
    let tolerant = spec(pod("web-1", "old", 1), |s| {
        let operator = TolerationOperator::Exists;
        s.tolerations = [Toleration { key: Some("spot".into()), operator, effect: None }].into();
    });
    fits(tainted(Effect::NoSchedule), vec![tolerant]);
}

#[test]
fn node_selector_and_required_affinity_must_match() {
    let wants = |key: &'static str, value: &'static str| {
        vec![spec(pod("web-1", "old", 1), |s| s.node_selector = labels(&[(key, value)]))]
    };
    fits(vec![node_in("n1", "b")], wants(ZONE, "b"));
    does_not_fit(vec![node_in("n1", "b")], wants(ZONE, "a"), &[NodeReason::NodeAffinity]);
    let in_zones = |zones: &[&str]| {
        let term = NodeSelectorTerm { labels: [one_of(ZONE, zones)].into(), fields: Box::default() };
        vec![spec(pod("web-1", "old", 1), |s| s.node_affinity = Some([term].into()))]
    };
    fits(vec![node_in("n1", "b")], in_zones(&["a", "b"]));
    does_not_fit(vec![node_in("n1", "b")], in_zones(&["a"]), &[NodeReason::NodeAffinity]);
}

#[test]
fn host_ports_are_taken_by_pods_there_and_by_pods_that_move_along() {
    let port = || HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port: 80 };
    let proxy = |name: &str, node: &str| spec(pod(name, node, 1), |s| s.host_ports = [port()].into());
    fits(vec![node("n1")], vec![proxy("p-1", "old")]);
    does_not_fit(
        vec![node("n1")],
        vec![proxy("p-1", "old"), proxy("p-2", "n1")],
        &[NodeReason::HostPort(80)],
    );
    does_not_fit(
        vec![node("n1")],
        vec![proxy("p-1", "old"), proxy("p-2", "old")],
        &[NodeReason::HostPort(80)],
    );
    fits(vec![node("n1"), node("n2")], vec![proxy("p-1", "old"), proxy("p-2", "old")]);
}

fn alone(name: &str, node: &str, key: &str) -> Pod {
    let own = name.split('-').next().unwrap().to_owned();
    spec(pod(name, node, 1), |s| s.pod_anti_affinity = [term(&own, key)].into())
}

#[test]
fn anti_affinity_keeps_pods_apart_on_nodes_and_in_zones() {
    let moving = || vec![alone("db-1", "old", HOST), alone("db-2", "n1", HOST)];
    does_not_fit(vec![node("n1")], moving(), &[NodeReason::PodAntiAffinity]);
    fits(vec![node("n1"), node("n2")], moving());
    let by_zone = || vec![alone("db-1", "old", ZONE), alone("db-2", "n1", ZONE)];
    let same_zone = vec![node_in("n1", "b"), node_in("n2", "b")];
    does_not_fit(same_zone, by_zone(), &[NodeReason::PodAntiAffinity]);
    fits(vec![node_in("n1", "b"), node_in("n2", "c")], by_zone());
}

#[test]
fn anti_affinity_of_pods_already_there_counts_too() {
    let shy = spec(pod("shy-1", "n1", 1), |s| s.pod_anti_affinity = [term("web", HOST)].into());
    does_not_fit(vec![node("n1")], vec![pod("web-1", "old", 1), shy.clone()], &[NodeReason::PodAntiAffinity]);
    fits(vec![node("n1")], vec![pod("api-1", "old", 1), shy.clone()]);
    let elsewhere = Pod { namespace: "other".into(), ..shy };
    fits(vec![node("n1")], vec![pod("web-1", "old", 1), elsewhere]);
}

#[test]
fn anti_affinity_holds_between_pods_that_move_together() {
    let shy = || spec(pod("shy-1", "old", 1), |s| s.pod_anti_affinity = [term("web", HOST)].into());
    does_not_fit(vec![node("n1")], vec![pod("web-1", "old", 1), shy()], &[NodeReason::PodAntiAffinity]);
    fits(vec![node("n1"), node("n2")], vec![pod("web-1", "old", 1), shy()]);
}

#[test]
fn a_term_about_namespaces_by_label_is_read_the_cautious_way_if_they_are_not_known() {
    let mut selected = term("web", HOST);
    selected.namespace_selector = Some(LabelSelector::of_labels([("team", "x")]));
    let shy = spec(pod("shy-1", "n1", 1), |s| s.pod_anti_affinity = [selected].into());
    let with = |team: Option<&str>| {
        let namespaces = team.map(|t| ("default".into(), labels(&[("team", t)])));
        Snapshot::new(Parts {
            namespaces: namespaces.into_iter().collect(),
            ..parts(with_old(vec![node("n1")]), vec![pod("web-1", "old", 1), shy.clone()])
        })
    };
    check_reasons(&with(None), &[NodeReason::PodAntiAffinity]);
    check_reasons(&with(Some("x")), &[NodeReason::PodAntiAffinity]);
    assert!(place_old(&with(Some("y"))).fits());
}

fn near(name: &str, node: &str, app: &str, key: &str) -> Pod {
    spec(pod(name, node, 1), |s| s.pod_affinity = [term(app, key)].into())
}

#[test]
fn affinity_wants_the_other_pod_in_the_same_place() {
    let zones = || vec![node_in("n1", "b"), node_in("n2", "c")];
    fits(zones(), vec![near("web-1", "old", "cache", ZONE), pod("cache-1", "n1", 1)]);
    does_not_fit(zones(), vec![near("web-1", "old", "cache", ZONE)], &[NodeReason::PodAffinity]);
}

#[test]
fn affinity_is_met_by_a_pod_that_moves_along_in_either_order() {
    let pods = vec![near("web-1", "old", "cache", ZONE), pod("cache-1", "old", 1)];
    fits(vec![node_in("n1", "b"), node_in("n2", "c")], pods);
}

#[test]
fn the_first_of_its_kind_may_go_anywhere_and_the_others_follow() {
    let pods = vec![near("web-1", "old", "web", ZONE), near("web-2", "old", "web", ZONE)];
    fits(vec![node_in("n1", "b"), node_in("n2", "c")], pods);
    // One is in zone c already, where there is no room.
    let full =
        vec![near("web-1", "old", "web", ZONE), near("web-2", "n2", "web", ZONE), pod("db-1", "n2", 3999)];
    let reasons = [insufficient("cpu"), NodeReason::PodAffinity];
    does_not_fit(vec![node_in("n1", "b"), node_in("n2", "c")], full, &reasons);
}

fn spreading(name: &str, node: &str, key: &str) -> Pod {
    let own = name.split('-').next().unwrap().to_owned();
    spec(pod(name, node, 1), |s| s.topology_spread = [spread(&own, key)].into())
}

#[test]
fn topology_spread_keeps_the_skew() {
    let zones = || vec![node_in("n1", "b"), node_in("n2", "c")];
    // Zone a has only the old node, which is still a domain: with nobody in it.
    let uneven = NodeReason::TopologySpread(ZONE.to_owned());
    fits(zones(), vec![spreading("web-1", "old", ZONE), spreading("web-2", "n2", ZONE)]);
    let pods =
        vec![spreading("web-1", "old", ZONE), spreading("web-2", "n2", ZONE), spreading("web-3", "n1", ZONE)];
    does_not_fit(zones(), pods, &[uneven]);
}

#[test]
fn a_domain_that_the_pod_cannot_use_does_not_count_if_taints_are_honoured() {
    let mut nodes = vec![node_in("n1", "b"), node_in("n2", "c"), node("old")];
    nodes[2].taints = [taint("leaving", Effect::NoSchedule)].into();
    let honours = |name: &str, node: &str| {
        spec(spreading(name, node, ZONE), |s| s.topology_spread[0].honour_taints = true)
    };
    let pods = vec![honours("web-1", "old"), honours("web-2", "n2"), honours("web-3", "n1")];
    assert!(place_old(&cluster(nodes, pods)).fits());
}

#[test]
fn too_few_domains_count_as_an_empty_one() {
    let fits_with = |min_domains| {
        let wants = |name: &str, node: &str| {
            spec(spreading(name, node, ZONE), |s| s.topology_spread[0].min_domains = min_domains)
        };
        let nodes = vec![node_in("old", "b"), node_in("n1", "b"), node_in("n2", "c")];
        let pods = vec![wants("web-1", "old"), wants("web-2", "n1"), wants("web-3", "n2")];
        place_old(&cluster(nodes, pods)).fits()
    };
    assert!(fits_with(2));
    assert!(!fits_with(3));
}

#[test]
fn pods_that_end_are_not_counted_for_spread() {
    let nodes = vec![node_in("old", "b"), node_in("n1", "b"), node_in("n2", "c")];
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), ..spreading("web-4", "n1", ZONE) };
    let mut pods = vec![spreading("web-1", "old", ZONE), spreading("web-2", "n1", ZONE)];
    pods.extend([spreading("web-3", "n2", ZONE), pod("db-1", "n2", 3999), ending]);
    assert!(place_old(&cluster(nodes, pods)).fits());
}

fn with_claim(claim: Option<Claim>) -> Snapshot {
    let db = spec(pod("db-1", "old", 1), |s| {
        s.claims = [ClaimRef { name: "data".into(), ephemeral: false }].into();
    });
    let limited = Node { volume_limits: [("ebs".into(), 1)].into(), ..node_in("n1", "b") };
    let other = spec(pod("db-2", "n1", 1), |s| {
        s.claims = [ClaimRef { name: "other".into(), ephemeral: false }].into();
    });
    let driver = claim.as_ref().and_then(|c| c.driver.clone());
    let other_claim = Claim { volume: "pv-2".into(), driver, ..Claim::default() };
    let key = |name: &str| ("default".into(), name.into());
    let claims = claim.map(|c| (key("data"), c)).into_iter().chain([(key("other"), other_claim)]);
    Snapshot::new(Parts { claims: claims.collect(), ..parts(with_old(vec![limited]), vec![db, other]) })
}

#[test]
fn volumes_bind_pods_to_their_zone() {
    let zone = |zone| {
        let term = NodeSelectorTerm { labels: [one_of(ZONE, &[zone])].into(), fields: Box::default() };
        let reach = VolumeReach::Nodes([term].into());
        Some(Claim { volume: "pv-1".into(), reach, ..Claim::default() })
    };
    assert!(place_old(&with_claim(zone("b"))).fits());
    check_reasons(&with_claim(zone("a")), &[NodeReason::Volume("data".into())]);
}

#[test]
fn a_claim_that_is_not_known_or_not_bound_is_not_safe() {
    check_reasons(&with_claim(None), &[NodeReason::VolumeUnknown("data".into())]);
    let unbound = Claim { reach: VolumeReach::Unknown, ..Claim::default() };
    check_reasons(&with_claim(Some(unbound)), &[NodeReason::VolumeUnknown("data".into())]);
}

#[test]
fn a_node_attaches_only_so_many_volumes_of_a_driver() {
    let of_driver =
        |driver: &str| Claim { volume: "pv-1".into(), driver: Some(driver.into()), ..Claim::default() };
    check_reasons(&with_claim(Some(of_driver("ebs"))), &[NodeReason::VolumeLimit("ebs".into())]);
    assert!(place_old(&with_claim(Some(of_driver("efs")))).fits());
}

#[test]
fn pods_that_wait_take_room_first() {
    let pods = |waiting| vec![pod("web-1", "old", 3000), pod("new-1", "", waiting)];
    fits(vec![node("n1")], pods(1000));
    does_not_fit(vec![node("n1")], pods(1001), &[insufficient("cpu")]);
    // One that fits nowhere takes none.
    fits(vec![node("n1")], pods(5000));
}

#[test]
fn a_pod_whose_demand_is_not_understood_never_fits() {
    let odd = spec(pod("odd-1", "old", 1), |s| s.not_understood = Some("devices".into()));
    does_not_fit(vec![node("n1")], vec![odd], &[NodeReason::NotUnderstood("devices".into())]);
}

#[test]
fn placeholder_pods_count_as_free_if_so_configured() {
    let filler = spec(pod("filler-1", "n1", 4000), |s| s.priority = -10);
    let snapshot = cluster(with_old(vec![node("n1")]), vec![pod("web-1", "old", 1000), filler]);
    assert!(!place_old(&snapshot).fits());
    let options = PlacementOptions { placeholders_below: Some(-5), ..PlacementOptions::default() };
    let pods: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
    assert!(place(&pods, &snapshot, &ExcludedNodes::from_iter(["old"]), &options).fits());
}

/// Whether the pod fits where placeholders are, which have `change` in common with it.
fn beside_placeholders(mover: Pod, nodes: Vec<Node>, change: fn(&mut PodSpec)) -> bool {
    let filler = |name: &str, node: &str| {
        let filler = spec(pod(name, node, 100), |s| s.priority = -100);
        spec(filler, change)
    };
    let fillers = nodes.iter().enumerate().map(|(i, node)| filler(&format!("filler-{i}"), &node.name));
    let pods = fillers.chain([mover]).collect();
    let snapshot = cluster(with_old(nodes), pods);
    let options = PlacementOptions { placeholders_below: Some(-5), ..PlacementOptions::default() };
    let pods: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
    place(&pods, &snapshot, &ExcludedNodes::from_iter(["old"]), &options).fits()
}

#[test]
fn nothing_that_a_placeholder_has_is_taken() {
    let one = || vec![node("n1")];
    let port: fn(&mut PodSpec) = |s| {
        s.host_ports = [HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port: 80 }].into();
    };
    assert!(beside_placeholders(spec(pod("web-1", "old", 1), port), one(), port), "its host port");
    let shy: fn(&mut PodSpec) = |s| s.pod_anti_affinity = [term("web", HOST)].into();
    assert!(beside_placeholders(pod("web-1", "old", 1), one(), shy), "its anti-affinity");
    let aloof = spec(pod("web-1", "old", 1), |s| s.pod_anti_affinity = [term("filler", HOST)].into());
    assert!(beside_placeholders(aloof, one(), |_| {}), "the anti-affinity against it");
    let even = spec(pod("web-1", "old", 1), |s| s.topology_spread = [spread("filler", HOST)].into());
    assert!(beside_placeholders(even, one(), |_| {}), "its part in a spread over nodes");
    // Being near one is nothing to rely on.
    let near = spec(pod("web-1", "old", 1), |s| s.pod_affinity = [term("filler", HOST)].into());
    assert!(!beside_placeholders(near, one(), |_| {}), "affinity to it");
    // Preempting the one on its own node does not take away the other one's in the same zone.
    let far: fn(&mut PodSpec) = |s| s.pod_anti_affinity = [term("web", ZONE)].into();
    let zone = vec![node_in("n1", "b"), node_in("n2", "b")];
    assert!(!beside_placeholders(pod("web-1", "old", 1), zone, far), "what it forbids in a zone");
}

#[test]
fn placeholders_are_no_room_for_a_pod_that_preempts_nobody_and_need_none_themselves() {
    let full: fn(&mut PodSpec) = |s| s.requests.cpu_millis = 4000;
    let web = |never| spec(pod("web-1", "old", 1000), |s| s.never_preempts = never);
    assert!(beside_placeholders(web(false), vec![node("n1")], full));
    assert!(!beside_placeholders(web(true), vec![node("n1")], full));
    let filler = spec(pod("filler-9", "old", 9000), |s| s.priority = -100);
    assert!(beside_placeholders(filler, vec![node("n1")], full));
    // One that moves along may be there first.
    let old = spec(pod("filler-9", "old", 3500), |s| s.priority = -100);
    let snapshot = cluster(with_old(vec![node("n1")]), vec![old, web(true)]);
    let options = PlacementOptions { placeholders_below: Some(-5), ..PlacementOptions::default() };
    let pods: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
    let placement = place(&pods, &snapshot, &ExcludedNodes::from_iter(["old"]), &options);
    assert!(!placement.fits(), "{placement:?}");
    assert_eq!(placement.unplaced[0].pod.name, "web-1");
}

#[test]
fn the_settings_of_a_pool_say_which_pods_are_placeholders() {
    let below = |free, priority| {
        let policy =
            Policy { placeholders_are_free: free, placeholder_priority: priority, ..Policy::default() };
        PlacementOptions::of(&policy).placeholders_below
    };
    assert_eq!(below(false, 10), None);
    assert_eq!(below(true, 10), Some(-10));
    assert_eq!(below(true, 1_000_000_000), Some(-1_000_000_000));
}

#[test]
fn room_that_preemption_would_make_is_not_counted_on() {
    let web = spec(pod("web-1", "old", 1000), |s| s.priority = 1000);
    let low = spec(pod("low-1", "n1", 3500), |s| s.priority = -1000);
    does_not_fit(vec![node("n1")], vec![web, low], &[insufficient("cpu")]);
}

#[test]
fn affinity_to_a_node_by_name_must_match() {
    let not_on = |name: &str| {
        let field =
            Requirement { key: "metadata.name".into(), operator: Operator::NotIn([name.into()].into()) };
        let term = NodeSelectorTerm { labels: Box::default(), fields: [field].into() };
        vec![spec(pod("web-1", "old", 1), |s| s.node_affinity = Some([term].into()))]
    };
    fits(vec![node("n1")], not_on("n2"));
    does_not_fit(vec![node("n1")], not_on("n1"), &[NodeReason::NodeAffinity]);
}

#[test]
fn nodes_that_the_pod_may_not_use_are_no_domain_unless_it_says_so() {
    // Zone d has room for the spread, but not for this pod.
    let fits_with = |honour| {
        let wants = |name: &str, node: &str| {
            spec(spreading(name, node, ZONE), |s| {
                s.topology_spread[0].honour_node_affinity = honour;
                s.node_selector = labels(&[("disk", "ssd")]);
            })
        };
        let with_disk = |node: Node| {
            let labels = node.labels.iter().chain([("disk", "ssd")]).collect::<Vec<_>>();
            Node { labels: labels.into_iter().collect(), ..node }
        };
        let nodes = vec![
            with_disk(node_in("old", "b")),
            with_disk(node_in("n1", "b")),
            with_disk(node_in("n2", "c")),
            node_in("n3", "d"),
        ];
        let pods = vec![wants("web-1", "old"), wants("web-2", "n1"), wants("web-3", "n2")];
        place_old(&cluster(nodes, pods)).fits()
    };
    assert!(fits_with(true));
    assert!(!fits_with(false));
}

#[test]
fn a_packing_that_works_is_not_enough_if_another_order_fails() {
    // The large pod can only use n1; the small one can use both, and may take n1 first.
    let large = spec(pod("large-1", "old", 3500), |s| s.node_selector = labels(&[(HOST, "n1")]));
    let snapshot = cluster(
        vec![node("n1"), node("n2"), node("old")],
        vec![large, pod("small-1", "old", 1000), pod("db-1", "n2", 2500)],
    );
    let placement = place_old(&snapshot);
    assert!(!placement.fits());
    assert!(placement.fits_in_some_order);
}

#[test]
fn with_more_nodes_than_pods_one_packing_is_proof() {
    let nodes = (0..5).map(|i| node(&format!("n{i}"))).collect();
    let pods = (0..5).map(|i| pod(&format!("web-{i}"), "old", 3000)).collect();
    let placement = place_old(&cluster(with_old(nodes), pods));
    assert!(placement.fits() && placement.certain);
    assert_eq!(placement.packings, 1);
}

#[test]
fn a_waiting_pod_that_fits_nowhere_does_not_spoil_the_proof() {
    let stuck = pod("stuck-1", "", 9000);
    let placement = place_old(&cluster(with_old(vec![node("n1")]), vec![pod("web-1", "old", 3000), stuck]));
    assert!(placement.fits() && placement.certain);
    assert_eq!(placement.packings, 1);
}

#[test]
fn the_reasons_are_counted_by_node() {
    let nodes = vec![
        node("n1"),
        node("n2"),
        Node { taints: [taint("gpu", Effect::NoSchedule)].into(), ..node("n3") },
        Node { unschedulable: true, ..node("n4") },
    ];
    let pods = vec![pod("web-1", "old", 3000), pod("db-1", "n1", 2000), pod("db-2", "n2", 2000)];
    let placement = place_old(&cluster(with_old(nodes), pods));
    assert_eq!(
        placement.unplaced[0].reasons.to_string(),
        "2 nodes: insufficient cpu; 1 node: leaving, or a fallback itself; 1 node: cordoned; \
         1 node: taint gpu:NoSchedule not tolerated"
    );
}

#[test]
fn a_new_node_counts_whether_the_snapshot_has_it_or_not() {
    let pods = vec![pod("web-1", "old", 3000), pod("db-1", "n1", 2000)];
    let excluded = ExcludedNodes::from_iter(["old"]);
    let options = PlacementOptions::default();
    for nodes in [vec![node("old"), node("n1")], vec![node("old"), node("n1"), node("new")]] {
        let snapshot = cluster(nodes, pods.clone());
        let moving: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        assert!(can_take(&moving, &node("new"), &snapshot, &excluded, &options).fits());
        let tainted = Node { taints: [taint("startup", Effect::NoSchedule)].into(), ..node("other") };
        let taken = snapshot.node(&"new".into()).is_some();
        assert_eq!(can_take(&moving, &tainted, &snapshot, &excluded, &options).fits(), taken);
    }
}

#[test]
fn room_is_kept_on_the_new_node_for_daemonset_pods_that_are_not_there_yet() {
    let daemon = |node: &str| Pod {
        owner: Owner { kind: OwnerKind::DaemonSet, name: "log".into() },
        ..pod(&format!("log-{node}"), node, 500)
    };
    let fits = |cpu, on_new: Option<Pod>| {
        let mut pods = vec![pod("web-1", "old", cpu), daemon("old")];
        pods.extend(on_new);
        let snapshot = cluster(vec![node("old"), node("new")], pods);
        let old: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        can_take(&old, &node("new"), &snapshot, &excluded, &PlacementOptions::default()).fits()
    };
    assert!(fits(3500, None));
    assert!(!fits(3501, None));
    assert!(fits(3500, Some(daemon("new"))), "its own room is not taken twice");
    let pages = |amount| [("hugepages-2Mi".into(), amount)].into();
    let paged = |pod| spec(pod, |s| s.requests.extended = pages(1));
    let fits = |has| {
        let new = || Node {
            allocatable: Resources { extended: pages(has), ..node("new").allocatable },
            ..node("new")
        };
        let snapshot =
            cluster(vec![node("old"), new()], vec![paged(pod("web-1", "old", 1)), paged(daemon("old"))]);
        let old: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        can_take(&old, &new(), &snapshot, &excluded, &PlacementOptions::default()).fits()
    };
    assert_eq!([fits(1), fits(2)], [false, true], "what is named is kept free, too");
}

#[test]
fn a_node_that_lacks_a_feature_of_the_pods_own_node_takes_it_only_if_it_is_known_who_needs_the_feature() {
    for (feature, taken) in [("ContainerUlimits", false), ("VolumeBindMountOptions", true)] {
        let old = Node { features: [feature.into()].into(), ..node("old") };
        let snapshot = cluster(vec![old, node("n1")], vec![pod("web-1", "old", 1)]);
        let moving: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        let found = place(&moving, &snapshot, &excluded, &PlacementOptions::default());
        assert_eq!(found.fits(), taken, "{feature}");
    }
}

/// Whether some order of pods and some choice of nodes leaves a pod without a node, tried exhaustively.
fn can_go_wrong(packer: &mut Packer<'_>, left: &[usize]) -> bool {
    let mut stuck = true;
    for (at, i) in left.iter().enumerate() {
        let class = packer.incoming[*i].class;
        for n in 0..index32(packer.nodes.len()) {
            if packer.obstacle(class, n, Rules::All).is_some() {
                continue;
            }
            stuck = false;
            packer.change(class, n, 1);
            packer.placed.push((class, n));
            let mut rest = left.to_vec();
            rest.remove(at);
            let wrong = can_go_wrong(packer, &rest);
            packer.placed.pop();
            packer.change(class, n, -1);
            if wrong {
                return true;
            }
        }
    }
    stuck && !left.is_empty()
}

fn any_pod(name: String) -> impl Strategy<Value = Pod> {
    (prop::sample::select(vec![500, 1000, 1500, 2500]), 0..8u8, 0..4u8).prop_map(move |(cpu, rule, app)| {
        let app = ["x", "y", "z", "z"][usize::from(app)];
        let base = Pod { labels: labels(&[("app", app)]), ..pod(&name, "old", cpu) };
        spec(base, |s| match rule {
            0 => s.pod_anti_affinity = [term(app, HOST)].into(),
            1 => s.pod_anti_affinity = [term("x", ZONE)].into(),
            2 => s.pod_affinity = [term("y", ZONE)].into(),
            3 => s.topology_spread = [spread(app, ZONE)].into(),
            4 => s.node_selector = labels(&[(ZONE, "b")]),
            _ => {}
        })
    })
}

fn simple_pod(name: String) -> impl Strategy<Value = Pod> {
    (prop::sample::select(vec![500, 1000, 1500, 2500]), any::<bool>()).prop_map(move |(cpu, bound)| {
        spec(pod(&name, "old", cpu), |s| {
            if bound {
                s.node_selector = labels(&[(ZONE, "b")]);
            }
        })
    })
}

/// Up to three nodes in three zones, partly used, and up to four pods to move.
fn small_cluster<S: Strategy<Value = Pod>>(
    one: fn(String) -> S,
) -> impl Strategy<Value = (Vec<Node>, Vec<Pod>)> {
    let nodes = prop::collection::vec((0..3usize, 0..4000i64), 1..4);
    let pods = (0..4).map(|i| one(format!("p{i}"))).collect::<Vec<_>>();
    (nodes, pods, 1..5usize).prop_map(|(used, mut pods, count)| {
        let mut nodes = vec![node("old")];
        pods.truncate(count);
        for (i, (zone, used)) in used.into_iter().enumerate() {
            let name = format!("n{i}");
            nodes.push(node_in(&name, ["a", "b", "c"][zone]));
            pods.push(pod(&format!("there-{i}"), &name, used));
        }
        (nodes, pods)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn safe_and_unsafe_are_what_trying_every_order_and_choice_finds((nodes, pods) in small_cluster(any_pod)) {
        let snapshot = cluster(nodes, pods);
        let moving: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        let effort = Effort::of(u64::MAX);
        let mut packer = Packer::new(&moving, &[], &snapshot, &excluded, None, None, &effort).unwrap();
        let all: Vec<usize> = (0..packer.incoming.len()).collect();
        let truth = !can_go_wrong(&mut packer, &all);
        prop_assert_eq!(place_old(&snapshot).fits(), truth);
    }

    #[test]
    fn a_pod_less_to_move_never_makes_it_unsafe(
        (nodes, pods) in small_cluster(simple_pod),
        which in 0..4usize,
    ) {
        let snapshot = cluster(nodes, pods);
        let mut moving: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        let options = PlacementOptions::default();
        if place(&moving, &snapshot, &excluded, &options).fits() {
            moving.remove(which % moving.len());
            prop_assert!(place(&moving, &snapshot, &excluded, &options).fits());
        }
    }

    #[test]
    fn an_empty_node_more_never_makes_it_unsafe((nodes, pods) in small_cluster(simple_pod)) {
        let before = cluster(nodes.clone(), pods.clone());
        if place_old(&before).fits() {
            let mut more = nodes;
            more.push(node_in("more", "b"));
            prop_assert!(place_old(&cluster(more, pods)).fits());
        }
    }
}

#[test]
fn the_packings_alone_already_miss_less_than_one_failure_in_a_thousand() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = small_cluster(any_pod);
    let (mut failing, mut missed) = (0, 0);
    for _ in 0..5000 {
        let (nodes, pods) = strategy.new_tree(&mut runner).unwrap().current();
        let snapshot = cluster(nodes, pods);
        let moving: Vec<&Pod> = snapshot.pods_on(&"old".into()).collect();
        let excluded = ExcludedNodes::from_iter(["old"]);
        let options = PlacementOptions { search_steps: 0, ..PlacementOptions::default() };
        let effort = Effort::of(u64::MAX);
        let mut packer = Packer::new(&moving, &[], &snapshot, &excluded, None, None, &effort).unwrap();
        let all: Vec<usize> = (0..packer.incoming.len()).collect();
        let truth = !can_go_wrong(&mut packer, &all);
        let said = place(&moving, &snapshot, &excluded, &options).fits();
        assert!(said || !truth, "no packing can fail where none exists that fails");
        failing += usize::from(!truth);
        missed += usize::from(said && !truth);
    }
    assert!(failing > 3000 && missed * 1000 <= failing, "{missed} of {failing}");
}

/// 5,000 nodes in three zones and 150,000 pods of 3,000 templates, some of them with rules; about 70 % full.
fn large_cluster() -> Snapshot {
    let nodes: Vec<Node> = (0..5000).map(|i| node_in(&format!("n{i}"), ["a", "b", "c"][i % 3])).collect();
    let templates: Vec<Pod> = (0..3000)
        .map(|i| {
            let name = format!("app{i}");
            spec(pod(&name, "", 60 + (i % 7) * 12), |s| {
                s.requests.memory = GIB / 4 + (i % 5) * GIB / 20;
                match i % 10 {
                    0 => s.topology_spread = [spread(&name, ZONE)].into(),
                    1 => s.pod_anti_affinity = [term(&name, HOST)].into(),
                    2 => s.node_selector = labels(&[(ZONE, "b")]),
                    3 => s.topology_spread = [spread(&name, HOST)].into(),
                    _ => {}
                }
            })
        })
        .collect();
    let pods = (0..150_000).map(|i| {
        let mut pod = templates[(i * 7 + i / 5000) % 3000].clone();
        pod.name = format!("{}-{i}", pod.name).into();
        pod.uid = format!("uid-{i}").into();
        pod.node = Some(format!("n{}", i % 5000).into());
        pod.phase = crate::cluster::PodPhase::Running;
        pod.ready = true;
        pod
    });
    let pods = pods.collect();
    cluster(nodes, pods)
}

#[test]
fn the_largest_clusters_stay_far_inside_the_budget_of_a_check() {
    let snapshot = large_cluster();
    let spent = |nodes: usize| {
        let names: Vec<NodeName> = (0..nodes).map(|i| format!("n{i}").into()).collect();
        let pods: Vec<&Pod> = names.iter().flat_map(|name| snapshot.pods_on(name)).collect();
        let excluded = names.iter().collect();
        let effort = Effort::of(u64::MAX);
        let placement = place_within(&pods, &[], &snapshot, &excluded, &PlacementOptions::default(), &effort);
        assert!(placement.fits(), "{:?}", placement.unplaced);
        let spent = u64::MAX - effort.left();
        println!("{} pods: {spent} of {CHECK_EFFORT}", pods.len());
        spent
    };
    assert!(spent(1) < CHECK_EFFORT / 10, "a node with 30 pods");
    assert!(spent(4) < CHECK_EFFORT, "a node with 120 pods");
}

#[test]
fn very_many_pods_that_fit_take_no_more_than_the_stack_has() {
    let nodes: Vec<Node> = (0..20).map(|i| node(&format!("n{i}"))).collect();
    let pods = (0..2_000)
        .map(|i| {
            spec(pod(&format!("tiny{}-{i}", i % 2), "old", 1), |s| {
                s.requests.memory = 1;
                s.topology_spread = [spread("nobody", ZONE)].into();
            })
        })
        .collect();
    let placement = place_old(&cluster(with_old(nodes), pods));
    assert!(placement.fits() && !placement.certain, "{:?}", placement.unplaced.first());
}

/// `cargo test --release placement -- --ignored --nocapture` prints the times.
#[test]
#[ignore = "takes seconds, and says something in a release build only"]
fn a_node_with_30_pods_in_a_cluster_of_5000_is_checked_in_time() {
    let built = large_cluster();
    let parts = Parts { nodes: built.nodes().to_vec(), pods: built.pods().to_vec(), ..Parts::default() };
    let start = std::time::Instant::now();
    let snapshot = Snapshot::new(parts);
    println!("index: {:?}", start.elapsed());
    let mut slowest = std::time::Duration::ZERO;
    let start = std::time::Instant::now();
    for i in 0..20 {
        let name = format!("n{i}");
        let pods: Vec<&Pod> = snapshot.pods_on(&name.as_str().into()).collect();
        assert_eq!(pods.len(), 30);
        let one = std::time::Instant::now();
        let placement =
            place(&pods, &snapshot, &ExcludedNodes::from_iter([name.as_str()]), &PlacementOptions::default());
        slowest = slowest.max(one.elapsed());
        assert!(placement.fits(), "{:?}", placement.unplaced);
        println!("{name}: {:?}, {} packings", one.elapsed(), placement.packings);
    }
    println!("20 nodes: {:?}, slowest {slowest:?}", start.elapsed());
    assert!(slowest < std::time::Duration::from_millis(50));
}

#[test]
fn a_pod_that_ends_does_not_hold_an_affinity_open() {
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), ..pod("cache-1", "n1", 1) };
    does_not_fit(
        vec![node("n1")],
        vec![near("web-1", "old", "cache", ZONE), ending],
        &[NodeReason::PodAffinity],
    );
}

#[test]
fn of_kubelets_of_two_versions_only_those_that_declare_the_feature_take_the_pod() {
    let wants = || {
        vec![spec(pod("web-1", "old", 1), |s| s.required_features = ["VolumeBindMountOptions".into()].into())]
    };
    let newer = Node {
        features: ["RestartAllContainersOnContainerExits".into(), "VolumeBindMountOptions".into()].into(),
        ..node("n1")
    };
    let missing = NodeReason::Feature("VolumeBindMountOptions".into());
    fits(vec![newer, node("n2")], wants());
    does_not_fit(vec![node("n1"), node("n2")], wants(), &[missing]);
}

#[test]
fn a_field_that_is_not_understood_keeps_a_pod_off_each_node_and_a_node_from_each_pod() {
    let unknown = |field: &str| NodeReason::NotUnderstood(field.into());
    let odd = spec(pod("web-1", "old", 1), |s| s.not_understood = Some("PodSpec.quota".into()));
    does_not_fit(vec![node("n1")], vec![odd], &[unknown("PodSpec.quota")]);
    let odd = Node { not_understood: Some("NodeStatus.quota".into()), ..node("n1") };
    does_not_fit(vec![odd], vec![pod("web-1", "old", 1)], &[unknown("NodeStatus.quota")]);
}

#[test]
fn a_pod_of_another_scheduler_is_not_said_to_fit_and_takes_room_whatever_its_rules_say() {
    let other = |pod: Pod| spec(pod, |s| s.scheduler = Some("volcano".into()));
    let mover = other(pod("web-1", "old", 1));
    does_not_fit(vec![node("n1")], vec![mover], &[NodeReason::OtherScheduler("volcano".into())]);
    let waiting = || spec(pod("job-1", "", 2000), |s| s.node_selector = labels(&[("disk", "none")]));
    let web = || pod("web-1", "old", 3000);
    fits(vec![node("n1")], vec![web(), waiting()]);
    does_not_fit(vec![node("n1")], vec![web(), other(waiting())], &[insufficient("cpu")]);
}

#[test]
fn a_node_that_is_kept_for_a_pod_that_preempts_is_not_counted_on() {
    let waiting = Pod { nominated: Some("n1".into()), ..pod("high-1", "", 3500) };
    let there = || pod("low-1", "n1", 2000);
    fits(vec![node("n1")], vec![pod("web-1", "old", 1000), there()]);
    let pods = vec![pod("web-1", "old", 1000), there(), waiting];
    does_not_fit(vec![node("n1")], pods, &[NodeReason::Nominated]);
}

#[test]
fn a_waiting_pod_that_asks_for_a_device_of_no_node_takes_room() {
    let device: Box<[(Arc<str>, i64)]> = [("example.com/gpu".into(), 1)].into();
    let waiting = spec(pod("job-1", "", 2000), |s| s.requests.extended = device);
    let pods = vec![pod("web-1", "old", 3000), waiting];
    does_not_fit(vec![node("n1")], pods, &[insufficient("cpu")]);
}

/// The pods of node `old`, each with the claim `data`; node `n1` has two slots for the driver `ebs`.
fn with_storage(claim: Claim, ephemeral: bool, pods: usize, change: impl FnOnce(&mut Storage)) -> Snapshot {
    let db = |i| {
        spec(pod(&format!("db-{i}"), if i == 0 { "old" } else { "" }, 1), |s| {
            s.claims = [ClaimRef { name: "data".into(), ephemeral }].into();
        })
    };
    let node = Node { volume_limits: [("ebs".into(), 2)].into(), ..node("n1") };
    let mut storage = Storage::default();
    change(&mut storage);
    let claims = [(("default".into(), "data".into()), claim)].into_iter().collect();
    let parts = parts(with_old(vec![node]), (0..pods).map(db).collect());
    Snapshot::new(Parts { claims, storage, ..parts })
}

fn bound(driver: &str) -> Claim {
    Claim { volume: "pv-1".into(), driver: Some(driver.into()), ..Claim::default() }
}

#[test]
fn a_volume_that_is_attached_and_that_no_pod_claims_any_more_takes_its_slot() {
    let left = |driver: &str, count: usize| {
        let driver = Some(driver.into());
        with_storage(bound("ebs"), false, 1, move |storage| {
            for i in 0..count {
                let volume = Some(format!("pv-old-{i}").into());
                let attachment = Attachment { node: "n1".into(), driver: driver.clone(), volume };
                storage.set_attachment(format!("csi-{i}").into(), Some(attachment));
            }
        })
    };
    assert!(place_old(&left("ebs", 1)).fits());
    check_reasons(&left("ebs", 2), &[NodeReason::VolumeLimit("ebs".into())]);
    assert!(place_old(&left("efs", 2)).fits());
    let mut gone = Storage::default();
    let attachment = || Attachment { node: "n1".into(), driver: None, volume: None };
    gone.set_attachment("a".into(), Some(attachment()));
    gone.set_attachment("a".into(), Some(Attachment { node: "n2".into(), ..attachment() }));
    assert_eq!((gone.count_on(&"n1".into()), gone.count_on(&"n2".into())), (0, 1));
    gone.set_attachment("a".into(), None);
    assert_eq!(gone.count_on(&"n2".into()), 0);
}

#[test]
fn a_fresh_node_without_the_driver_takes_no_pod_with_its_volume_if_the_driver_says_so() {
    let with = |driver: &str, must_be_installed| {
        let terms = DriverTerms { must_be_installed, ..DriverTerms::default() };
        with_storage(bound(driver), false, 1, |storage| storage.set_driver(driver.into(), Some(terms)))
    };
    assert!(place_old(&with("fsx", false)).fits());
    check_reasons(&with("fsx", true), &[NodeReason::DriverMissing("fsx".into())]);
    assert!(place_old(&with("ebs", true)).fits());
}

#[test]
fn a_volume_that_is_made_anew_with_its_pod_follows_it_only_if_its_class_does() {
    let unknown = || [NodeReason::VolumeUnknown("data".into())];
    let claim = || Claim { class: "fast".into(), ..bound("ebs") };
    let with = |follows_pod, counts_capacity| {
        with_storage(claim(), true, 1, move |storage| {
            storage.set_class("fast".into(), Some(ClassTerms { provisioner: "ebs".into(), follows_pod }));
            let terms = DriverTerms { counts_capacity, ..DriverTerms::default() };
            storage.set_driver("ebs".into(), Some(terms));
        })
    };
    assert!(place_old(&with(true, false)).fits());
    check_reasons(&with(false, false), &unknown());
    check_reasons(&with(true, true), &unknown());
    check_reasons(&with_storage(claim(), true, 1, |_| {}), &unknown());
}

#[test]
fn of_two_pods_with_a_claim_for_one_the_other_may_be_first() {
    let claim = || Claim { one_pod: true, ..bound("ebs") };
    assert!(place_old(&with_storage(claim(), false, 1, |_| {})).fits());
    check_reasons(&with_storage(claim(), false, 2, |_| {}), &[NodeReason::VolumeUnknown("data".into())]);
    assert!(place_old(&with_storage(bound("ebs"), false, 2, |_| {})).fits());
    let of_one_node = || Claim { one_node: true, ..bound("ebs") };
    assert!(place_old(&with_storage(of_one_node(), false, 1, |_| {})).fits());
    check_reasons(
        &with_storage(of_one_node(), false, 2, |_| {}),
        &[NodeReason::VolumeUnknown("data".into())],
    );
}
