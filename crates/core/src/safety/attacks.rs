//! Objects that tenants may create, made to keep a check busy. Each is of a size that the API server takes:
//! 1.5 MiB.

use super::*;
use crate::cluster::{
    AffinityTerm, Claim, ClaimRef, DisruptionBudget, Effect, HostPort, LabelSelector, Labels, Node,
    NodeSelectorTerm, Operator, Parts, Pod, PodSpec, Requirement, Snapshot, SpreadConstraint, Toleration,
    TolerationOperator, VolumeReach,
};
use crate::placement::CHECK_EFFORT;
use crate::placement::{PlacementOptions, PodName};
use crate::policy::Policy;
use crate::testing::{HOST, ZONE, app, labels, node_in, one_of, parts, pod, spec, taint, term};
use std::sync::Arc;
use std::time::Duration;

/// A part of what a check may be, so that builds without optimisation try it in time, and what it may take of
/// CPU time: other work of the machine does not count.
const EFFORT: u64 = CHECK_EFFORT / 8;
const LIMIT: Duration = Duration::from_secs(4);

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain system call that fills the struct.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the clock can be read");
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// The node whose return is checked.
const OLD: &str = "old";

fn nodes(count: usize) -> Vec<Node> {
    let mut nodes = vec![node_in(OLD, "a")];
    nodes.extend((1..count).map(|i| node_in(&format!("n{i}"), ["a", "b", "c"][i % 3])));
    nodes
}

/// `count` pods, the first `moving` of them on the old node, the rest waiting or spread over the others.
fn pods(
    count: usize,
    moving: usize,
    nodes: usize,
    waiting: bool,
    change: impl Fn(usize, &mut PodSpec),
) -> Vec<Pod> {
    let one = |i: usize| {
        let on = if i < moving {
            OLD.to_owned()
        } else if waiting {
            String::new()
        } else {
            format!("n{}", 1 + i % (nodes - 1))
        };
        spec(pod(&format!("evil{i}-1"), &on, 1), |spec| {
            spec.requests.memory = 1;
            change(i, spec);
        })
    };
    (0..count).map(one).collect()
}

fn plain(count: usize, nodes: usize) -> Vec<Pod> {
    let one = |i: usize| {
        spec(pod(&format!("web{i}-1"), &format!("n{}", 1 + i % (nodes - 1)), 1), |s| s.requests.memory = 1)
    };
    (0..count).map(one).collect()
}

fn value(i: usize) -> Arc<str> {
    format!("v{i}").into()
}

fn any_of(key: &str, values: usize) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In((0..values).map(value).collect()) }
}

fn not(key: &str, values: usize) -> Requirement {
    Requirement { key: key.into(), operator: Operator::NotIn((0..values).map(value).collect()) }
}

fn over(key: &str, requirements: Vec<Requirement>) -> AffinityTerm {
    AffinityTerm { selector: Some(LabelSelector { requirements: requirements.into() }), ..term("x", key) }
}

/// Checks the old node, and demands that it takes no longer than it may.
#[track_caller]
fn checked(name: &str, parts: Parts) -> SafetyReport {
    let snapshot = Snapshot::new(parts);
    let placement = PlacementOptions { effort: EFFORT, ..PlacementOptions::default() };
    let policy = SafetyPolicy { placement, ..SafetyPolicy::default() };
    let pool_nodes = snapshot.nodes().iter().map(|node| node.name.clone()).collect();
    let context = SafetyContext { pool_nodes, taint_key: "spot-guard".into(), ..SafetyContext::default() };
    let began = cpu_time();
    let report = check_return(&OLD.into(), &snapshot, &policy, &context);
    let took = cpu_time() - began;
    let given_up = report.blockers.iter().any(|blocker| matches!(blocker, Blocker::CheckTooLarge { .. }));
    println!("{name}: {took:.2?}, {}", if given_up { "given up" } else { "answered" });
    assert!(took < LIMIT, "{name}: {took:?}");
    assert_eq!(report.safe, report.blockers.is_empty());
    report
}

fn with(nodes: Vec<Node>, evil: Vec<Pod>, others: Vec<Pod>) -> Parts {
    parts(nodes, evil.into_iter().chain(others).collect())
}

fn is_given_up(report: &SafetyReport) -> bool {
    report.blockers.iter().any(|blocker| matches!(blocker, Blocker::CheckTooLarge { .. }))
}

#[test]
fn two_hundred_pods_with_120_affinity_terms_each_are_checked_in_time() {
    for (moving, waiting) in [(0, true), (100, true), (200, true), (100, false)] {
        let evil = pods(200, moving, 10, waiting, |i, spec| {
            spec.pod_affinity =
                (0..120).map(|t| term(&format!("web{}", (i * 120 + t) % 500), HOST)).collect();
        });
        checked(
            &format!("affinity, {moving} moving, waiting {waiting}"),
            with(nodes(10), evil, plain(500, 10)),
        );
        let evil = pods(200, moving, 10, waiting, |i, spec| {
            spec.pod_anti_affinity = (0..120)
                .map(|t| over(HOST, vec![not("tier", 2 + (i * 120 + t) % 7), any_of("app", 2)]))
                .collect();
        });
        checked(
            &format!("anti-affinity, {moving} moving, waiting {waiting}"),
            with(nodes(10), evil, plain(500, 10)),
        );
    }
}

#[test]
fn terms_that_mean_everybody_are_checked_in_time() {
    for waiting in [true, false] {
        let everybody = |i: usize, t: usize| {
            let namespaces = [Arc::from("default"), value(i * 120 + t)].into();
            AffinityTerm { namespaces, ..over(ZONE, vec![not("nothing", 1)]) }
        };
        let evil = pods(200, 50, 30, waiting, |i, spec| {
            spec.pod_affinity = (0..120).map(|t| everybody(i, t)).collect();
        });
        checked("affinity to everybody", with(nodes(30), evil, plain(2_000, 30)));
        let evil = pods(200, 50, 30, waiting, |i, spec| {
            spec.pod_anti_affinity = (0..120).map(|t| everybody(i, t)).collect();
        });
        checked("anti-affinity to everybody", with(nodes(30), evil, plain(2_000, 30)));
    }
}

#[test]
fn many_topology_spread_constraints_are_checked_in_time() {
    let key = |i: usize| -> Arc<str> { format!("example.com/rack-{i}").into() };
    let mut racks = nodes(400);
    for (at, node) in racks.iter_mut().enumerate() {
        let own: Vec<(Arc<str>, Arc<str>)> =
            (0..60).map(|rack| (key(rack), value(at / (1 + rack % 5)))).collect();
        let held =
            node.labels.iter().map(|(k, v)| (k.into(), v.into())).collect::<Vec<(Arc<str>, Arc<str>)>>();
        node.labels = own.into_iter().chain(held).collect();
    }
    let constraint = |topology_key: Arc<str>| SpreadConstraint {
        max_skew: 1,
        topology_key,
        selector: Some(LabelSelector { requirements: [not("nothing", 1)].into() }),
        min_domains: 1,
        honour_node_affinity: true,
        honour_taints: true,
    };
    for (count, moving, keys) in [(100, 100, 60), (300, 20, 60), (100, 30, 1), (5, 5, 5_000)] {
        let evil = pods(count, moving, 400, true, |i, spec| {
            spec.grace_period_seconds = i64::try_from(i).unwrap();
            spec.topology_spread = (0..keys).map(|rack| constraint(key(rack))).collect();
        });
        checked(&format!("{count} pods with {keys} constraints"), with(racks.clone(), evil, plain(500, 400)));
    }
}

#[test]
fn many_tolerations_taints_and_node_terms_are_checked_in_time() {
    let mut tainted = nodes(500);
    for node in tainted.iter_mut().skip(1) {
        node.taints = (0..50).map(|i| taint(&format!("taint-{i}"), Effect::NoSchedule)).collect();
    }
    let tolerations: Box<[Toleration]> = (0..10_000)
        .map(|i| Toleration {
            key: Some(format!("taint-{}", i % 60 + i / 200 * 60).into()),
            operator: TolerationOperator::Exists,
            effect: None,
        })
        .collect();
    let shared = Arc::new(PodSpec { tolerations: tolerations.clone(), ..PodSpec::default() });
    let unlabelled = labels(&[]);
    // Of one template, so that they take little room in the API server.
    let alike = |count: usize| {
        let one = |i: usize| Pod {
            spec: shared.clone(),
            labels: unlabelled.clone(),
            ..pod(&format!("evil{i}"), OLD, 1)
        };
        (0..count).map(one).collect::<Vec<Pod>>()
    };
    checked("tolerations", with(tainted.clone(), alike(10_000), plain(500, 500)));
    let apart = pods(100, 100, 500, true, |i, spec| {
        spec.tolerations = tolerations.clone();
        spec.priority = i32::try_from(i).unwrap();
    });
    checked("tolerations, told apart", with(tainted, apart, plain(500, 500)));
    let terms = |count: usize, values: usize| -> Box<[NodeSelectorTerm]> {
        let one = |i: usize| NodeSelectorTerm {
            labels: [
                Requirement { key: HOST.into(), operator: any_of("x", values).operator },
                one_of("y", &[&format!("{i}")]),
            ]
            .into(),
            fields: Box::default(),
        };
        (0..count).map(one).collect()
    };
    for (count, values) in [(10_000, 1), (10, 10_000), (100, 1_000)] {
        let all = terms(count, values);
        let evil = pods(20, 10, 500, true, |i, spec| {
            spec.node_affinity = Some(all.clone());
            spec.priority = i32::try_from(i).unwrap();
        });
        checked(&format!("{count} node terms of {values} values"), with(nodes(500), evil, plain(500, 500)));
    }
}

#[test]
fn selectors_of_very_many_values_are_checked_in_time() {
    for values in [1_000, 20_000] {
        let evil = pods(10, 5, 50, true, |i, spec| {
            spec.pod_affinity = [over(ZONE, vec![any_of("app", values + i)])].into();
            spec.pod_anti_affinity = [over(HOST, vec![not("app", values + i)])].into();
        });
        checked(&format!("selectors of {values} values"), with(nodes(50), evil, plain(2_000, 50)));
    }
    let requirements = |count: usize| (0..count).map(|i| not(&format!("k{i}"), 1)).collect::<Vec<_>>();
    let evil = pods(50, 50, 50, true, |i, spec| {
        spec.pod_anti_affinity = [over(HOST, requirements(10_000 + i))].into();
    });
    checked("selectors of 10,000 requirements", with(nodes(50), evil, plain(2_000, 50)));
    let many: Labels = (0..20_000).map(|i| (format!("k{i}"), "v")).collect();
    let mut labelled = pods(50, 50, 50, true, |i, spec| {
        spec.pod_anti_affinity =
            (0..2_000).map(|t| over(HOST, vec![one_of(&format!("k{}", t + i), &["v"])])).collect();
    });
    labelled.iter_mut().for_each(|pod| pod.labels = many.clone());
    checked("20,000 labels", with(nodes(50), labelled, plain(500, 50)));
}

#[test]
fn very_many_volumes_ports_and_resources_are_checked_in_time() {
    let claim = |i: usize| ClaimRef { name: format!("c{i}").into(), ephemeral: false };
    let evil = pods(50, 50, 300, true, |i, spec| {
        spec.claims = (0..5_000).map(claim).collect();
        spec.priority = i32::try_from(i).unwrap();
    });
    let bound = |i: usize| {
        let term = NodeSelectorTerm { labels: [any_of(ZONE, 3), not("x", 1)].into(), fields: Box::default() };
        let reach =
            if i.is_multiple_of(2) { VolumeReach::Nodes([term].into()) } else { VolumeReach::Anywhere };
        let driver = Some(format!("csi-{}", i % 100).into());
        Claim { volume: value(i), driver, reach, ..Claim::default() }
    };
    let claims = (0..5_000).map(|i| ((Arc::<str>::from("default"), claim(i).name), bound(i))).collect();
    checked("volumes", Parts { claims, ..with(nodes(300), evil, plain(500, 300)) });

    let evil = pods(60, 60, 100, true, |i, spec| {
        let port = |port: u16| HostPort { ip: "10.0.0.1".into(), protocol: "TCP".into(), port };
        let first = u16::try_from(i * 1_000).unwrap();
        spec.host_ports = (first..first + 900).map(port).collect();
    });
    checked("host ports", with(nodes(100), evil, plain(500, 100)));

    let evil = pods(100, 50, 300, true, |i, spec| {
        let resource = |r: usize| (Arc::from(format!("example.com/r{:06}", i * 5_000 + r)), 1);
        spec.requests.extended = (0..5_000).map(resource).collect();
    });
    checked("extended resources", with(nodes(300), evil, plain(500, 300)));
}

#[test]
fn very_many_pods_are_checked_in_time() {
    checked(
        "10,000 pods on the node",
        with(nodes(100), pods(10_000, 10_000, 100, true, |_, _| {}), Vec::new()),
    );
    let evil = pods(10_000, 10_000, 100, true, |i, spec| {
        spec.pod_anti_affinity = [term(&format!("evil{i}"), HOST)].into();
        spec.topology_spread = [crate::testing::spread(&format!("evil{i}"), ZONE)].into();
    });
    checked("10,000 pods with rules on the node", with(nodes(100), evil, plain(500, 100)));
    let evil = pods(10_000, 50, 500, true, |i, spec| {
        spec.requests.cpu_millis = 100 + i64::try_from(i % 50).unwrap();
        spec.priority = i32::try_from(i).unwrap();
        spec.pod_affinity =
            if i % 3 == 0 { [term(&format!("evil{}", i + 1), ZONE)].into() } else { Box::default() };
    });
    checked("10,000 pods that wait", with(nodes(500), evil, plain(500, 500)));
    let near = pods(100, 100, 2_000, true, |i, spec| {
        spec.requests.cpu_millis = 900 + i64::try_from(i).unwrap();
        spec.pod_affinity = [over(HOST, vec![not("nothing", 1)])].into();
        spec.pod_anti_affinity = [term(&format!("evil{}", (i + 1) % 100), ZONE)].into();
    });
    checked("many orders", with(nodes(2_000), near, plain(2_000, 2_000)));
}

fn budget(name: &str, selector: Option<LabelSelector>) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: name.into(),
        selector,
        observed: true,
        disruptions_allowed: 1,
        ..DisruptionBudget::default()
    }
}

#[test]
fn very_many_budgets_over_the_same_pods_are_checked_in_time() {
    for (count, values) in [(5_000, 2), (50, 20_000)] {
        let selector = Some(LabelSelector { requirements: [not("app", values)].into() });
        let budgets = (0..count).map(|i| budget(&format!("b{i}"), selector.clone())).collect::<Vec<_>>();
        let evil = pods(200, 200, 50, true, |_, _| {});
        let parts = Parts { budgets, ..with(nodes(50), evil, plain(500, 50)) };
        let report = checked(&format!("{count} budgets of {values} values"), parts.clone());
        assert!(!report.safe);
        let snapshot = Snapshot::new(parts);
        let began = cpu_time();
        let shut = shut_budgets(&OLD.into(), &snapshot, &Policy::default(), &Drains::marked("leaving"));
        println!("a look at them: {:.2?}", cpu_time() - began);
        assert!(matches!(shut[..], [Blocker::CheckTooLarge { .. }]), "{shut:?}");
        assert!(cpu_time() - began < LIMIT / 6, "the actors' thread waits for it");
    }
}

#[test]
fn a_check_that_is_given_up_is_not_safe_and_names_whose_rules_are_most() {
    let evil = pods(200, 1, 10, true, |i, spec| {
        let term = |t: usize| {
            let namespaces = [value(i * 200 + t), Arc::from("default")].into();
            AffinityTerm { namespaces, ..over(HOST, vec![not("x", 1)]) }
        };
        let terms = if i == 7 { 200 } else { 120 };
        spec.pod_anti_affinity = (0..terms).map(term).collect();
    });
    let report = checked("given up", with(nodes(10), evil, plain(400, 10)));
    assert!(!report.safe && is_given_up(&report));
    let heaviest = PodName { namespace: "default".to_owned(), name: "evil7-1".to_owned() };
    assert_eq!(report.blockers, [Blocker::CheckTooLarge { heaviest: Some(heaviest) }]);
}

/// Tenants that combine what is above at random.
#[test]
fn whatever_tenants_combine_is_checked_in_time() {
    let mut rng = fastrand::Rng::with_seed(15);
    for case in 0..25 {
        let many = |rng: &mut fastrand::Rng| [0, 1, 20, 120][rng.usize(0..4)];
        let (count, size) = (rng.usize(1..250), rng.usize(5..300));
        let (terms, against, spreads, tolerations) =
            (many(&mut rng), many(&mut rng), many(&mut rng), many(&mut rng));
        let (narrow, requirements) = (rng.bool(), rng.usize(1..6));
        let selector = |i: usize, t: usize| {
            let first = if narrow {
                one_of("app", &[&format!("web{}", (i + t) % 300)])
            } else {
                not("app", 1 + t % 9)
            };
            let rest = (1..requirements).map(|r| not(&format!("k{r}"), i % 5 + 1));
            std::iter::once(first).chain(rest).collect::<Vec<_>>()
        };
        let moving = rng.usize(0..count + 1);
        let evil = pods(count, moving, size, rng.bool(), |i, spec| {
            spec.pod_affinity = (0..terms).map(|t| over([HOST, ZONE][t % 2], selector(i, t))).collect();
            spec.pod_anti_affinity =
                (0..against).map(|t| over([HOST, ZONE][t % 2], selector(i, t))).collect();
            spec.topology_spread = (0..spreads.min(2))
                .map(|t| SpreadConstraint {
                    selector: app("web1"),
                    ..crate::testing::spread("web2", [HOST, ZONE][t])
                })
                .collect();
            spec.tolerations = (0..tolerations)
                .map(|t| Toleration {
                    key: Some(value(t)),
                    operator: TolerationOperator::Exists,
                    effect: None,
                })
                .collect();
            spec.requests.cpu_millis = i64::try_from(i % 40).unwrap() * 30;
        });
        let budgets = (0..many(&mut rng))
            .map(|b| budget(&format!("b{b}"), Some(LabelSelector { requirements: selector(b, b).into() })))
            .collect();
        let others = plain(rng.usize(0..1_500), size);
        let name =
            format!("case {case}: {count} pods ({moving} moving), {size} nodes, {terms}/{against}/{spreads}");
        checked(&name, Parts { budgets, ..with(nodes(size), evil, others) });
    }
}
