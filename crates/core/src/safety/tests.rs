use super::*;
use crate::cluster::{
    DisruptionBudget, Effect, Node, Owner, OwnerKind, Parts, Pod, PodPhase, Resources, Snapshot, Taint,
    Toleration, TolerationOperator,
};
use crate::placement::{ExcludedNodes, PodName};
use crate::placement::{NodeReason, ReasonCount, Reasons};
use crate::policy::Policy;
use crate::reason::{ReasonCode, ShutBudget};
use crate::record::UtilisationPercent;
use crate::testing::{HOST, ZONE, app, cluster, node, parts, pod, spec, term};
use jiff::Timestamp;
use std::sync::Arc;

fn budget(name: &str, app_name: &str, allowed: i64) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: name.into(),
        selector: app(app_name),
        disruptions_allowed: allowed,
        observed: true,
        current_healthy: 2 + allowed,
        desired_healthy: 2,
        expected_pods: 3,
        ..DisruptionBudget::default()
    }
}

/// Checks node `od` of a pool of `od`, `s1` and `s2`.
fn check(pods: Vec<Pod>, budgets: Vec<DisruptionBudget>) -> SafetyReport {
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let snapshot = Snapshot::new(Parts { budgets, ..parts(nodes, pods) });
    check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &pool(&["od", "s1", "s2"]))
}

fn pool(nodes: &[&str]) -> SafetyContext {
    let pool_nodes = nodes.iter().map(|n| (*n).into()).collect();
    SafetyContext { pool_nodes, ..SafetyContext::default() }
}

fn kinds(report: &SafetyReport) -> Vec<ReasonCode> {
    assert_eq!(report.safe, report.blockers.is_empty());
    report.blockers.iter().map(Blocker::code).collect()
}

/// What is too full, in thousandths, and what it may be.
fn too_full(report: &SafetyReport) -> Vec<(&str, f64, f64)> {
    let thousandths = |share: f64| (share * 1000.0).round();
    let over = |blocker| match blocker {
        &Blocker::BufferExceeded { ref resource, after, limit } => {
            (resource.as_str(), thousandths(after), thousandths(limit))
        }
        other => panic!("{other}"),
    };
    report.blockers.iter().map(over).collect()
}

fn named(name: &str) -> PodName {
    PodName { namespace: "default".into(), name: name.into() }
}

#[test]
fn a_node_whose_pods_fit_elsewhere_is_safe() {
    let report = check(vec![pod("web-1", "od", 1000), pod("web-2", "s1", 1000)], vec![]);
    assert!(report.safe, "{:?}", report.blockers);
    assert_eq!(report.pods_to_move, [PodName { namespace: "default".into(), name: "web-1".into() }]);
}

#[test]
fn daemonset_mirror_finished_and_ending_pods_do_not_move() {
    let of = |kind, name: &str| Pod { owner: Owner { kind, name: "x".into() }, ..pod(name, "od", 9000) };
    let pods = vec![
        of(OwnerKind::DaemonSet, "log-1"),
        of(OwnerKind::Mirror, "proxy-1"),
        Pod { phase: PodPhase::Succeeded, ..pod("job-1", "od", 9000) },
        Pod { deletion: Some(jiff::Timestamp::UNIX_EPOCH), ..pod("web-1", "od", 9000) },
    ];
    let report = check(pods, vec![]);
    assert!(report.safe, "{:?}", report.blockers);
    assert!(report.pods_to_move.is_empty());
}

#[test]
fn the_successor_of_an_ending_stateful_set_pod_needs_its_place_too() {
    for (kind, safe) in [(OwnerKind::StatefulSet, false), (OwnerKind::ReplicaSet, true)] {
        let owner = Owner { kind, name: "db".into() };
        let deletion = Some(jiff::Timestamp::UNIX_EPOCH);
        let report = check(vec![Pod { deletion, owner, ..pod("db-0", "od", 9000) }], vec![]);
        assert_eq!(report.safe, safe, "{kind:?}: {:?}", report.blockers);
        assert!(report.pods_to_move.is_empty(), "it goes by itself");
    }
}

#[test]
fn pods_that_have_to_be_near_each_other_leave_one_budget_together() {
    let near = |name: &str| spec(pod(name, "od", 1), |s| s.pod_affinity = [term("web", HOST)].into());
    let pods = |more: Vec<Pod>| [vec![near("web-1"), near("web-2")], more].concat();
    let held = |allowed, more| check(pods(more), vec![budget("pdb", "web", allowed)]).blockers;
    let needed = |blockers: Vec<Blocker>| match &blockers[..] {
        [] => 0,
        [Blocker::BudgetExhausted(shut)] => shut.needed,
        other => panic!("{other:?}"),
    };
    assert_eq!(needed(held(1, vec![])), 2, "the first successor waits for the last pod to be gone");
    assert_eq!(needed(held(2, vec![])), 0);
    let of_zone = |name: &str| spec(near(name), |s| s.pod_affinity = [term("web", ZONE)].into());
    let zoned = check(vec![of_zone("web-1"), of_zone("web-2")], vec![budget("pdb", "web", 1)]);
    assert!(zoned.safe, "another node of the zone takes them one by one: {:?}", zoned.blockers);
    assert_eq!(needed(held(1, vec![pod("web-3", "s1", 1)])), 0, "one that stays takes them in one by one");
}

#[test]
fn a_pod_that_fits_nowhere_blocks_and_the_report_says_why() {
    let report = check(vec![pod("web-1", "od", 5000)], vec![]);
    let reasons = [(NodeReason::Insufficient("cpu".into()), 2), (NodeReason::Excluded, 1)];
    let reasons = reasons.map(|(reason, nodes)| ReasonCount { reason, nodes });
    let expected = Blocker::PodDoesNotFit {
        pod: named("web-1"),
        reasons: Reasons(reasons.into()),
        fits_in_some_order: false,
    };
    assert_eq!(report.blockers[0], expected);
}

#[test]
fn other_fallback_nodes_are_not_counted_on() {
    let nodes = vec![node("od"), node("od2"), node("s1")];
    let snapshot = cluster(nodes, vec![pod("web-1", "od", 3000), pod("db-1", "s1", 2000)]);
    let mut context = pool(&["od", "od2", "s1"]);
    let fits = |context: &SafetyContext| {
        let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), context);
        !report.blockers.iter().any(|b| matches!(b, Blocker::PodDoesNotFit { .. }))
    };
    assert!(fits(&context));
    context.excluded = ExcludedNodes::from_iter(["od2"]);
    assert!(!fits(&context));
}

#[test]
fn one_disruption_is_room_enough_for_many_pods() {
    let pods = || vec![pod("web-1", "od", 1), pod("web-2", "od", 1), pod("web-3", "od", 1)];
    assert!(check(pods(), vec![budget("pdb", "web", 1)]).safe);
    let report = check(pods(), vec![budget("pdb", "web", 0)]);
    let shut = ShutBudget {
        budget: named("pdb"),
        pods: vec![named("web-1"), named("web-2"), named("web-3")],
        for_good: 0,
        needed: 1,
        allowed: 0,
        current_healthy: 2,
        desired_healthy: 2,
        expected_pods: 3,
    };
    assert_eq!(report.blockers, [Blocker::BudgetExhausted(shut)]);
}

/// The node runs `back` pods of a controller and `for_good` that nobody makes anew, all under `budget`.
/// Returns what it has against the return.
fn sharing(back: usize, for_good: usize, budget: DisruptionBudget) -> Option<ShutBudget> {
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let mut pods: Vec<Pod> = (0..back + for_good).map(|i| pod(&format!("web-{i}"), "od", 1)).collect();
    pods.iter_mut().skip(back).for_each(|pod| pod.owner = Owner::default());
    let snapshot = Snapshot::new(Parts { budgets: vec![budget], ..parts(nodes, pods) });
    let mut policy = SafetyPolicy::default();
    policy.drain.evict_unmanaged = true;
    let report = check_return(&"od".into(), &snapshot, &policy, &pool(&["od", "s1", "s2"]));
    match &report.blockers[..] {
        [] => None,
        [Blocker::BudgetExhausted(shut)] => Some(shut.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_budget_is_summed_over_the_pods_that_share_it() {
    // So many pods come back, so many do not; healthy, wanted, expected.
    let rows = [
        (1, 0, (3, 2, 3), true),
        (9, 0, (10, 9, 10), true),
        (0, 1, (3, 2, 3), true),
        (0, 2, (3, 2, 3), false),
        (0, 2, (4, 2, 4), true),
        // What does not come back, and one at a time of those that do.
        (2, 1, (3, 2, 3), false),
        (2, 1, (4, 2, 4), true),
        // It wants all that are expected: only what is there beyond that can go.
        (1, 0, (2, 2, 2), false),
        (1, 0, (3, 2, 2), true),
        (2, 0, (3, 2, 2), false),
        (2, 0, (4, 2, 2), true),
        // Not all are healthy: later perhaps.
        (1, 0, (2, 2, 3), false),
        // More wanted than there can ever be, and none expected at all.
        (1, 0, (2, 5, 2), false),
        (1, 0, (1, 0, 0), false),
    ];
    for (back, for_good, (healthy, wanted, expected), safe) in rows {
        let allowed = if expected > 0 { (healthy - wanted).max(0) } else { 0 };
        let numbers = DisruptionBudget {
            current_healthy: healthy,
            desired_healthy: wanted,
            expected_pods: expected,
            ..budget("pdb", "web", allowed)
        };
        let told = sharing(back, for_good, numbers);
        let row = format!("{back} + {for_good} of {healthy}/{wanted}/{expected}: {told:?}");
        assert_eq!(told.is_none(), safe, "{row}");
        if let Some(told) = told {
            assert_eq!(told.pods.len(), back + for_good, "{row}");
            assert_eq!(told.never_opens(), expected <= wanted, "{row}");
        }
    }
    let two_of_three = DisruptionBudget { current_healthy: 3, ..budget("pdb", "web", 1) };
    let shut = sharing(2, 1, two_of_three).expect("it is shut");
    assert_eq!((shut.allowed, shut.for_good, shut.needed), (1, 1, 2));
}

#[test]
fn a_node_that_is_drained_already_comes_first_in_a_budget_that_both_share() {
    let pods = |other: &str| vec![pod("web-1", "od", 1), pod(other, "s1", 1)];
    let safe = |key: &str, other: &str, allowed: i64| {
        let mut drained = node("s1");
        drained.taints = [Taint { key: key.into(), value: "".into(), effect: Effect::NoSchedule }].into();
        let nodes = vec![node("od"), drained, node("s2")];
        let budgets = vec![budget("pdb", "web", allowed)];
        let snapshot = Snapshot::new(Parts { budgets, ..parts(nodes, pods(other)) });
        let shut = shut_budgets(&"od".into(), &snapshot, &Policy::default(), &Drains::marked("leaving"));
        let context = SafetyContext { taint_key: "leaving".into(), ..pool(&["od", "s1", "s2"]) };
        let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &context);
        let budgets = |blocker: &&Blocker| matches!(blocker, Blocker::BudgetExhausted { .. });
        assert_eq!(report.blockers.iter().find(budgets), shut.first());
        shut.is_empty()
    };
    assert!(!safe("leaving", "web-2", 1));
    assert!(safe("leaving", "web-2", 2), "there is room for both");
    assert!(safe("leaving", "db-1", 1), "its pods have another budget");
    assert!(safe("other", "web-2", 1), "the node is not drained");
}

#[test]
fn pods_that_leave_another_node_take_room_first() {
    let mut drained = node("s1");
    drained.taints = [Taint { key: "leaving".into(), value: "".into(), effect: Effect::NoSchedule }].into();
    let fits = |key: &str, deletion: Option<Timestamp>| {
        let pods = vec![pod("web-1", "od", 3000), Pod { deletion, ..pod("db-1", "s1", 3000) }];
        let snapshot = cluster(vec![node("od"), drained.clone(), node("s2")], pods);
        let context = SafetyContext { taint_key: key.into(), ..pool(&["od", "s1", "s2"]) };
        let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &context);
        let beside: Vec<_> = drained_beside(&"od".into(), &snapshot, &Drains::marked(key)).cloned().collect();
        (beside, !kinds(&report).contains(&ReasonCode::PodDoesNotFit))
    };
    assert_eq!(fits("leaving", None), (vec!["s1".into()], false));
    assert_eq!(fits("leaving", Some(Timestamp::MAX)), (vec!["s1".into()], false), "its successor needs room");
    assert_eq!(fits("other", None), (vec![], true), "that one is not drained");
}

#[test]
fn pods_that_their_budget_lets_go_without_asking_are_not_in_its_sum() {
    let sick = Pod { ready: false, owner: Owner::default(), ..pod("web-1", "od", 1) };
    let pods = vec![sick, pod("web-2", "od", 1)];
    let report = check(pods, vec![budget("pdb", "web", 1)]);
    let budgets = |blocker: &&Blocker| matches!(blocker, Blocker::BudgetExhausted { .. });
    assert_eq!(report.blockers.iter().find(budgets), None, "only one spends it, and comes back");
}

#[test]
fn a_pod_that_ignores_cordon_and_taint_blocks_as_it_may_come_back() {
    let tolerates = |keys: &[Option<&str>]| {
        let one = |key: &Option<&str>| Toleration {
            key: key.map(Into::into),
            operator: TolerationOperator::Exists,
            effect: None,
        };
        let pod = spec(pod("web-1", "od", 1), |s| s.tolerations = keys.iter().map(one).collect());
        let nodes = vec![node("od"), node("s1"), node("s2")];
        let context = SafetyContext { taint_key: "leaving".into(), ..pool(&["od", "s1", "s2"]) };
        kinds(&check_return(&"od".into(), &cluster(nodes, vec![pod]), &SafetyPolicy::default(), &context))
    };
    assert_eq!(tolerates(&[None]), [ReasonCode::ToleratesDrain]);
    let cordon = Some("node.kubernetes.io/unschedulable");
    assert_eq!(tolerates(&[cordon, Some("leaving")]).len(), 1);
    assert_eq!(tolerates(&[cordon]), [], "the taint keeps it away");
    assert_eq!(tolerates(&[Some("leaving")]), [], "the cordon keeps it away");
    assert_eq!(tolerates(&[]), []);
}

#[test]
fn budgets_that_overlap_or_are_not_observed_block() {
    let one = || vec![pod("web-1", "od", 1)];
    let report = check(one(), vec![budget("a", "web", 5), budget("b", "web", 5)]);
    let several = Blocker::SeveralBudgets { pod: named("web-1"), budgets: vec![named("a"), named("b")] };
    assert_eq!(report.blockers, [several]);
    let stale = DisruptionBudget { observed: false, ..budget("a", "web", 5) };
    assert_eq!(kinds(&check(one(), vec![stale])), [ReasonCode::BudgetNotObserved]);
    assert!(check(one(), vec![budget("a", "other", 0)]).safe, "a budget of other pods does not matter");
}

#[test]
fn pods_that_must_not_be_evicted_block() {
    let reason = |pod: Pod| kinds(&check(vec![pod], vec![])).pop();
    let web = || pod("web-1", "od", 1);
    let unsafe_ = reason(Pod { safe_to_evict: Some(false), ..web() });
    assert_eq!(unsafe_, Some(ReasonCode::NotSafeToEvict));
    assert_eq!(reason(Pod { do_not_disrupt: Some(Timestamp::MAX), ..web() }), Some(ReasonCode::DoNotDisrupt));
    let for_a_while = Timestamp::from_second(600).unwrap();
    let nodes = || vec![node("od"), node("s1"), node("s2")];
    let calm = || vec![Pod { do_not_disrupt: Some(for_a_while), ..web() }];
    for (now, safe) in [(599, false), (600, true)] {
        let context =
            SafetyContext { now: Timestamp::from_second(now).unwrap(), ..pool(&["od", "s1", "s2"]) };
        let report =
            check_return(&"od".into(), &cluster(nodes(), calm()), &SafetyPolicy::default(), &context);
        assert_eq!(report.safe, safe, "{now}: {:?}", report.blockers);
    }
    assert_eq!(reason(Pod { owner: Owner::default(), ..web() }), Some(ReasonCode::PodUnmanaged));
    assert_eq!(reason(spec(web(), |s| s.uses_empty_dir = true)), None, "no obstacle by default");
}

/// A pool of `od` and two Spot nodes of 4 cores, of which `used` thousandths are in use on each Spot node
/// and `moving` on `od`.
fn with_buffer(used: i64, moving: i64, before_story: Option<f64>) -> SafetyReport {
    let pods = vec![pod("web-1", "od", moving), pod("web-2", "s1", used), pod("web-3", "s2", used)];
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let mut context = pool(&["od", "s1", "s2"]);
    context.utilisation_before_story = before_story.map(|cpu| [("cpu", cpu)].into_iter().collect());
    check_return(&"od".into(), &cluster(nodes, pods), &SafetyPolicy::default(), &context)
}

#[test]
fn the_buffer_is_kept() {
    let report = with_buffer(2500, 1000, None);
    assert!(report.safe, "{:?}", report.blockers);
    assert!((report.utilisation_before.of("cpu") - 0.5).abs() < 1e-9);
    assert!((report.utilisation_after.of("cpu") - 0.75).abs() < 1e-9);
    let report = with_buffer(2500, 1010, None);
    assert_eq!(too_full(&report), [("cpu", 751.0, 750.0)]);
}

#[test]
fn a_cluster_that_always_runs_full_still_finds_its_way_back() {
    assert!(!with_buffer(3000, 800, None).safe);
    assert!(with_buffer(3000, 800, Some(0.85)).safe, "85 % before and after");
    assert!(with_buffer(3200, 800, Some(0.85)).safe, "90 % is 5 points more");
    assert!(!with_buffer(3220, 780, Some(0.85)).safe);
}

/// `od` and two Spot nodes with `gpus` each; the pods ask for as many as given.
fn with_gpus(gpus: i64, moving: i64, used: i64, before_story: Option<f64>) -> SafetyReport {
    let gpu = |n: i64| -> Box<[(Arc<str>, i64)]> {
        if n == 0 { Box::default() } else { [("nvidia.com/gpu".into(), n)].into() }
    };
    let has = |name: &str, gpus| Node {
        allocatable: Resources { extended: gpu(gpus), ..node(name).allocatable },
        ..node(name)
    };
    let asks = |name: &str, node: &str, gpus| spec(pod(name, node, 1), |s| s.requests.extended = gpu(gpus));
    let nodes = vec![has("od", 8), has("s1", gpus), has("s2", gpus), has("elsewhere", 8)];
    let pods = vec![asks("web-1", "od", moving), asks("web-2", "s1", used), asks("web-3", "s2", used)];
    let mut context = pool(&["od", "s1", "s2"]);
    context.utilisation_before_story =
        before_story.map(|share| [("cpu", 0.0), ("nvidia.com/gpu", share)].into_iter().collect());
    check_return(&"od".into(), &cluster(nodes, pods), &SafetyPolicy::default(), &context)
}

#[test]
fn the_buffer_is_kept_of_every_resource_that_the_pods_ask_for() {
    assert_eq!(too_full(&with_gpus(8, 4, 5, None)), [("nvidia.com/gpu", 875.0, 750.0)]);
    assert!(with_gpus(8, 2, 5, None).safe, "12 of 16");
    assert!(with_gpus(8, 4, 5, Some(0.85)).safe, "as full before");
    assert!(!with_gpus(8, 4, 5, Some(0.5)).safe);
    let crowded =
        |name: &str, pods| Node { allocatable: Resources { pods, ..node(name).allocatable }, ..node(name) };
    let pods: Vec<Pod> =
        ["od", "s1", "s1", "s1"].iter().enumerate().map(|(i, n)| pod(&format!("w-{i}"), n, 1)).collect();
    let snapshot = cluster(vec![crowded("od", 110), crowded("s1", 5), crowded("elsewhere", 110)], pods);
    let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &pool(&["od", "s1"]));
    assert_eq!(too_full(&report), [("pods", 800.0, 750.0)]);
}

#[test]
fn a_resource_that_no_pod_of_the_node_asks_for_never_traps_its_return() {
    let report = with_gpus(8, 0, 8, None);
    assert!(report.safe, "{:?}", report.blockers);
    assert!((report.utilisation_after.of("nvidia.com/gpu") - 1.0).abs() < 1e-9);
    // Memory is full as well, but the pod of the node asks for CPU alone.
    let full = |name: &str, node: &str| spec(pod(name, node, 1), |s| s.requests.memory = 16 << 30);
    let light = spec(pod("web-1", "od", 100), |s| s.requests.memory = 0);
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let snapshot = cluster(nodes, vec![light, full("a-1", "s1"), full("b-1", "s2")]);
    let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &pool(&["od", "s1", "s2"]));
    assert!(report.safe, "{:?}", report.blockers);
}

#[test]
fn a_resource_that_the_rest_of_the_pool_has_not_is_no_matter_of_its_buffer() {
    let report = with_gpus(0, 2, 0, None);
    assert!(report.safe, "the pod fits on a node of another pool: {:?}", report.blockers);
}

#[test]
fn a_placeholder_of_the_node_needs_no_room_elsewhere() {
    let filler = |name: &str, node: &str| spec(pod(name, node, 3000), |s| s.priority = -100);
    let nodes = vec![node("od"), node("s1")];
    let pods = vec![filler("a-1", "od"), filler("b-1", "s1"), pod("web-1", "od", 2000)];
    let snapshot = cluster(nodes, pods);
    let safe = |free| {
        let settings = Policy { placeholders_are_free: free, ..Policy::default() };
        check_return(&"od".into(), &snapshot, &SafetyPolicy::of(&settings), &pool(&["od", "s1"])).safe
    };
    assert!(safe(true) && !safe(false));
}

#[test]
fn nodes_that_take_no_pods_are_no_buffer() {
    let nodes = vec![
        node("od"),
        node("s1"),
        Node { unschedulable: true, ..node("s2") },
        Node { ready: false, ..node("s3") },
        node("not-of-the-pool"),
    ];
    let pods = vec![pod("web-1", "od", 2000), pod("web-2", "s1", 1000), pod("web-3", "s2", 4000)];
    let report = check_return(
        &"od".into(),
        &cluster(nodes, pods),
        &SafetyPolicy::default(),
        &pool(&["od", "s1", "s2", "s3"]),
    );
    assert!((report.utilisation_after.of("cpu") - 0.75).abs() < 1e-9, "{:?}", report.utilisation_after);
    assert!(report.safe, "{:?}", report.blockers);
}

#[test]
fn a_pool_without_any_other_node_is_full() {
    let snapshot = cluster(vec![node("od"), node("elsewhere")], vec![pod("web-1", "od", 1)]);
    let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &pool(&["od"]));
    assert!(report.blockers.iter().any(|b| matches!(b, Blocker::BufferExceeded { .. })));
}

#[test]
fn an_unknown_node_is_not_safe() {
    let snapshot = cluster(vec![node("s1")], vec![]);
    let report = check_return(&"od".into(), &snapshot, &SafetyPolicy::default(), &pool(&["s1"]));
    assert_eq!(report.blockers, [Blocker::NodeUnknown { node: "od".into() }]);
}

#[test]
fn what_a_story_records_is_how_full_the_pool_was() {
    let snapshot = cluster(vec![node("s1"), node("s2")], vec![pod("web-1", "s1", 2000)]);
    let names = ["s1".into(), "s2".into()].into_iter().collect();
    let utilisation = pool_utilisation(&names, &snapshot, &SafetyPolicy::default());
    assert!((utilisation.of("cpu") - 0.25).abs() < 1e-9);
}

#[test]
fn a_report_survives_being_written_and_read() {
    let report = check(vec![pod("web-1", "od", 5000)], vec![budget("pdb", "web", 0)]);
    let text = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(serde_json::from_str::<SafetyReport>(&text).unwrap(), report);
    insta::assert_snapshot!(text);
    assert!(report.blockers.iter().all(|b| !b.hint().is_empty()));
}

#[test]
fn how_full_a_pool_is_fits_in_a_record_whatever_pods_ask_for() {
    let extended = (0..100).map(|number| (format!("example.com/r{number}"), 0.5));
    let shares = extended.chain([("cpu".to_owned(), 1e12), ("pods".to_owned(), 0.25)]);
    let percent = UtilisationPercent::from(shares.collect::<Utilisation>());
    assert_eq!(percent.0.len(), 64);
    assert!(percent.0.values().all(|share| *share <= 1_000_000), "{:?}", percent.0);
    assert_eq!((percent.0.get("cpu"), percent.0.get("pods")), (Some(&1_000_000), Some(&25)));
}

#[test]
fn a_budget_that_never_opens_is_known_before_a_drain() {
    let never = |healthy, wanted, expected| {
        let numbers = DisruptionBudget {
            current_healthy: healthy,
            desired_healthy: wanted,
            expected_pods: expected,
            ..budget("pdb", "web", (healthy - wanted).max(0))
        };
        let parts = parts(vec![node("n")], vec![pod("web-1", "n", 1)]);
        let snapshot = Snapshot::new(Parts { budgets: vec![numbers], ..parts });
        !budgets_that_never_open(&"n".into(), &snapshot, &Policy::default()).is_empty()
    };
    assert!(never(1, 1, 1), "one replica, minAvailable 1");
    assert!(never(3, 3, 3), "maxUnavailable 0");
    assert!(never(2, 3, 3), "and one of its pods is not ready");
    assert!(!never(2, 2, 3), "it opens when all are ready");
    assert!(!never(2, 1, 1), "it is open");
}

#[test]
fn what_a_record_drains_counts_before_its_node_has_the_taint() {
    let instance = |name: &str| crate::record::Capacity {
        group: crate::record::GroupKind::OnDemand,
        instance_id: name.into(),
        node_name: name.into(),
        ready_at: Timestamp::UNIX_EPOCH,
    };
    let of = |name: &str, fallback: crate::record::FallbackState| {
        let capacity =
            crate::record::CapacityState::Taken { instance: instance(name), on_demand_requested: true };
        crate::record::ReplacementStatus {
            old_node: crate::record::OldNodeState::Gone {}.into(),
            capacity: capacity.into(),
            fallback: fallback.into(),
            ..Default::default()
        }
    };
    let open = crate::record::OpenFallback::default;
    let returning = of("i-2", crate::record::FallbackState::Draining(open()));
    let waiting = of("i-1", crate::record::FallbackState::OnFallback(open()));
    let stories = [("one", &waiting), ("two", &returning)].map(|(name, status)| {
        let instance_id = crate::testing::leaked("i-0");
        crate::health::PoolReplacement { name: name.into(), instance_id, status }
    });
    let on = |name: &str| Node { provider_id: format!("aws:///a/{name}").into(), ..node(name) };
    // Each of the two fits alone on the one node that takes pods; both do not.
    let pods = vec![pod("web-1", "i-1", 3000), pod("web-2", "i-2", 3000)];
    let snapshot = cluster(vec![on("i-1"), on("i-2"), on("i-3")], pods);
    let context = SafetyContext::of(
        Some(&stories[0]),
        &stories,
        std::iter::empty(),
        &snapshot,
        &"key".into(),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(context.drained.iter().map(|node| &**node).collect::<Vec<_>>(), ["i-2"]);
    let policy = SafetyPolicy { max_utilisation: 1.0, ..SafetyPolicy::default() };
    let report = check_return(&"i-1".into(), &snapshot, &policy, &context);
    assert!(kinds(&report).contains(&ReasonCode::PodDoesNotFit), "{:?}", report.blockers);
}
