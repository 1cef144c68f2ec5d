use super::*;
use crate::core::cluster::{Node, Owner, OwnerKind, Parts, Phase};
use crate::core::testing::{app, cluster, node, parts, pod, spec};

fn budget(name: &str, app_name: &str, allowed: i64) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: name.into(),
        selector: app(app_name),
        disruptions_allowed: allowed,
        observed: true,
        current_healthy: 2 + allowed,
        desired_healthy: 2,
        ..DisruptionBudget::default()
    }
}

/// Checks node `od` of a pool of `od`, `s1` and `s2`.
fn check(pods: Vec<Pod>, budgets: Vec<DisruptionBudget>) -> SafetyReport {
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let snapshot = Snapshot::new(Parts { budgets, ..parts(nodes, pods) });
    check_return("od", &snapshot, &SafetyPolicy::default(), &pool(&["od", "s1", "s2"]))
}

fn pool(nodes: &[&str]) -> SafetyContext {
    let pool_nodes = nodes.iter().map(|n| (*n).into()).collect();
    SafetyContext { pool_nodes, ..SafetyContext::default() }
}

fn kinds(report: &SafetyReport) -> Vec<String> {
    assert_eq!(report.safe, report.blockers.is_empty());
    report.blockers.iter().map(ToString::to_string).collect()
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
        Pod { phase: Phase::Succeeded, ..pod("job-1", "od", 9000) },
        Pod { deletion: Some(jiff::Timestamp::UNIX_EPOCH), ..pod("web-1", "od", 9000) },
    ];
    let report = check(pods, vec![]);
    assert!(report.safe, "{:?}", report.blockers);
    assert!(report.pods_to_move.is_empty());
}

#[test]
fn a_pod_that_fits_nowhere_blocks_and_the_report_says_why() {
    let report = check(vec![pod("web-1", "od", 5000)], vec![]);
    assert_eq!(
        kinds(&report)[0],
        "pod default/web-1 fits on no other node (2 nodes: insufficient cpu; 1 node: leaving or fallback, \
         not counted on)"
    );
}

#[test]
fn other_fallback_nodes_are_not_counted_on() {
    let nodes = vec![node("od"), node("od2"), node("s1")];
    let snapshot = cluster(nodes, vec![pod("web-1", "od", 3000), pod("db-1", "s1", 2000)]);
    let mut context = pool(&["od", "od2", "s1"]);
    let fits = |context: &SafetyContext| {
        let report = check_return("od", &snapshot, &SafetyPolicy::default(), context);
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
    assert_eq!(
        kinds(&report),
        ["PodDisruptionBudget default/pdb allows no disruption (2 healthy, 2 wanted), and 3 of the node's \
          pods need it"]
    );
}

#[test]
fn budgets_that_overlap_or_are_not_observed_block() {
    let one = || vec![pod("web-1", "od", 1)];
    let report = check(one(), vec![budget("a", "web", 5), budget("b", "web", 5)]);
    assert_eq!(kinds(&report), ["pod default/web-1 is covered by several PodDisruptionBudgets (a, b)"]);
    let stale = DisruptionBudget { observed: false, ..budget("a", "web", 5) };
    assert!(kinds(&check(one(), vec![stale]))[0].contains("not up to date"));
    assert!(check(one(), vec![budget("a", "other", 0)]).safe, "a budget of other pods does not matter");
}

#[test]
fn pods_that_must_not_be_evicted_block() {
    let reason = |pod: Pod| kinds(&check(vec![pod], vec![])).pop().unwrap_or_default();
    let web = || pod("web-1", "od", 1);
    assert!(reason(Pod { safe_to_evict: Some(false), ..web() }).contains("safe-to-evict"));
    assert!(reason(Pod { do_not_disrupt: true, ..web() }).contains("do-not-disrupt"));
    assert!(reason(Pod { owner: Owner::default(), ..web() }).contains("no controller"));
    assert_eq!(reason(spec(web(), |s| s.uses_empty_dir = true)), "", "emptyDir is no obstacle by default");
}

/// A pool of `od` and two Spot nodes of 4 cores, of which `used` thousandths are in use on each Spot node
/// and `moving` on `od`.
fn with_buffer(used: i64, moving: i64, before_story: Option<f64>) -> SafetyReport {
    let pods = vec![pod("web-1", "od", moving), pod("web-2", "s1", used), pod("web-3", "s2", used)];
    let nodes = vec![node("od"), node("s1"), node("s2")];
    let mut context = pool(&["od", "s1", "s2"]);
    context.utilisation_before_story = before_story.map(|cpu| Utilisation { cpu, memory: 0.0 });
    check_return("od", &cluster(nodes, pods), &SafetyPolicy::default(), &context)
}

#[test]
fn the_buffer_is_kept() {
    let report = with_buffer(2500, 1000, None);
    assert!(report.safe, "{:?}", report.blockers);
    assert!((report.utilisation_before.cpu - 0.5).abs() < 1e-9);
    assert!((report.utilisation_after.cpu - 0.75).abs() < 1e-9);
    let report = with_buffer(2500, 1010, None);
    assert_eq!(kinds(&report), ["the pool would use 75.1 % of its CPU, the limit is 75.0 %"]);
}

#[test]
fn a_cluster_that_always_runs_full_still_finds_its_way_back() {
    assert!(!with_buffer(3000, 800, None).safe);
    assert!(with_buffer(3000, 800, Some(0.85)).safe, "85 % before and after");
    assert!(with_buffer(3200, 800, Some(0.85)).safe, "90 % is 5 points more");
    assert!(!with_buffer(3220, 780, Some(0.85)).safe);
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
    let report =
        check_return("od", &cluster(nodes, pods), &SafetyPolicy::default(), &pool(&["od", "s1", "s2", "s3"]));
    assert!((report.utilisation_after.cpu - 0.75).abs() < 1e-9, "{:?}", report.utilisation_after);
    assert!(report.safe, "{:?}", report.blockers);
}

#[test]
fn a_pool_without_any_other_node_is_full() {
    let snapshot = cluster(vec![node("od"), node("elsewhere")], vec![pod("web-1", "od", 1)]);
    let report = check_return("od", &snapshot, &SafetyPolicy::default(), &pool(&["od"]));
    assert!(report.blockers.iter().any(|b| matches!(b, Blocker::BufferExceeded { .. })));
}

#[test]
fn an_unknown_node_is_not_safe() {
    let snapshot = cluster(vec![node("s1")], vec![]);
    let report = check_return("od", &snapshot, &SafetyPolicy::default(), &pool(&["s1"]));
    assert_eq!(kinds(&report), ["node od is not in the cluster"]);
}

#[test]
fn what_a_story_records_is_how_full_the_pool_was() {
    let snapshot = cluster(vec![node("s1"), node("s2")], vec![pod("web-1", "s1", 2000)]);
    let names = ["s1".into(), "s2".into()].into_iter().collect();
    let utilisation = pool_utilisation(&names, &snapshot, &SafetyPolicy::default());
    assert!((utilisation.cpu - 0.25).abs() < 1e-9);
}

#[test]
fn a_report_survives_being_written_and_read() {
    let report = check(vec![pod("web-1", "od", 5000)], vec![budget("pdb", "web", 0)]);
    let text = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(serde_json::from_str::<SafetyReport>(&text).unwrap(), report);
    insta::assert_snapshot!(text);
    assert!(report.blockers.iter().all(|b| !b.hint().is_empty()));
}
