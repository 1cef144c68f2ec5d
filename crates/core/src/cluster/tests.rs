use super::*;
use crate::testing::{cluster, labels, node, pod};
use jiff::Timestamp;

#[track_caller]
fn meets(operator: Operator, value: Option<&str>, expected: bool) {
    let requirement = Requirement { key: "k".into(), operator: operator.clone() };
    assert_eq!(requirement.matches(value), expected, "{operator:?} on {value:?}");
}

#[test]
fn requirements_match_as_in_the_api() {
    let values = || Box::from(["a".into(), "b".into()]);
    meets(Operator::In(values()), Some("a"), true);
    meets(Operator::In(values()), Some("c"), false);
    meets(Operator::In(values()), None, false);
    meets(Operator::NotIn(values()), Some("a"), false);
    meets(Operator::NotIn(values()), Some("c"), true);
    meets(Operator::NotIn(values()), None, true);
    meets(Operator::Exists, Some(""), true);
    meets(Operator::Exists, None, false);
    meets(Operator::DoesNotExist, None, true);
    meets(Operator::DoesNotExist, Some(""), false);
    meets(Operator::Gt(5), Some("6"), true);
    meets(Operator::Gt(5), Some("5"), false);
    meets(Operator::Gt(5), Some("six"), false);
    meets(Operator::Lt(5), Some("4"), true);
    meets(Operator::Lt(5), None, false);
    meets(Operator::Unknown, Some("a"), false);
    meets(Operator::Unknown, None, false);
}

#[test]
fn an_empty_selector_matches_everything_and_an_empty_node_term_nothing() {
    assert!(LabelSelector::default().matches(&labels(&[("a", "b")])));
    assert!(!NodeSelectorTerm::default().matches(&node("n")));
}

#[track_caller]
fn tolerated(key: Option<&str>, operator: TolerationOperator, effect: Option<Effect>, expected: bool) {
    let taint = Taint { key: "spot".into(), value: "yes".into(), effect: Effect::NoSchedule };
    let toleration = Toleration { key: key.map(Into::into), operator, effect };
    assert_eq!(toleration.tolerates(&taint), expected, "{toleration:?}");
}

#[test]
fn tolerations_match_as_in_the_api() {
    use TolerationOperator::{Equal, Exists, Unknown};
    tolerated(Some("spot"), Equal("yes".into()), Some(Effect::NoSchedule), true);
    tolerated(Some("spot"), Equal("yes".into()), None, true);
    tolerated(Some("spot"), Equal("no".into()), None, false);
    tolerated(Some("spot"), Exists, None, true);
    tolerated(Some("other"), Exists, None, false);
    tolerated(None, Exists, None, true);
    tolerated(None, Exists, Some(Effect::NoExecute), false);
    tolerated(Some("spot"), Unknown, None, false);
}

#[test]
fn finished_pods_take_no_room_and_ending_pods_do() {
    let finished = Pod { phase: PodPhase::Succeeded, ..pod("done-1", "n", 1000) };
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), ..pod("web-1", "n", 500) };
    let snapshot = cluster(vec![node("n")], vec![finished, ending]);
    assert_eq!(snapshot.used(0).cpu_millis, 500);
    assert_eq!(snapshot.used(0).pods, 1);
    assert_eq!(snapshot.pods_on("n").count(), 2);
}

#[test]
fn only_pods_that_the_scheduler_looks_at_wait() {
    let gated = Pod { gated: true, ..pod("gated-1", "", 1) };
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), ..pod("ending-1", "", 1) };
    let snapshot = cluster(vec![node("n")], vec![pod("web-1", "", 1), gated, ending, pod("web-2", "n", 1)]);
    assert_eq!(snapshot.waiting().map(|p| &*p.name).collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn pods_that_share_labels_and_spec_make_one_group() {
    let first = pod("web-1", "n", 1);
    let second = Pod { name: "web-2".into(), ..first.clone() };
    let other = pod("db-1", "n", 1);
    let snapshot = cluster(vec![node("n")], vec![first, other, second]);
    assert_eq!(snapshot.groups().iter().map(|g| &g.members[..]).collect::<Vec<_>>(), [&[0, 2][..], &[1]]);
}

#[test]
fn ports_conflict_on_the_same_address_only() {
    let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
    assert!(port("0.0.0.0", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
    assert!(port("10.0.0.1", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
    assert!(!port("10.0.0.2", "TCP", 80).conflicts(&port("10.0.0.1", "TCP", 80)));
    assert!(!port("0.0.0.0", "UDP", 80).conflicts(&port("0.0.0.0", "TCP", 80)));
    assert!(!port("0.0.0.0", "TCP", 81).conflicts(&port("0.0.0.0", "TCP", 80)));
}
