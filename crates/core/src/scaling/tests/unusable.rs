use super::*;
use crate::ledger::unusable::NodeTrouble;
use crate::scaling::instances::Trouble;

/// The node of this instance cannot be used.
fn trouble(id: &str, why: NodeTrouble) -> InstanceFacts {
    let troubles = [(id.into(), Trouble { why, marked: false })].into();
    InstanceFacts { troubles, ..InstanceFacts::default() }
}

fn at(seconds: u64) -> Timestamp {
    now() + Duration::from_secs(seconds)
}

fn looks(ledger: &Ledger, view: &PoolView, wants: &Wants, facts: &InstanceFacts, seconds: u64) -> Plan {
    plan(ledger, view, wants, &BTreeSet::new(), facts, &Deferred::default(), at(seconds))
}

/// `i-4`, which was requested for `i-1`, has been in service for so long, and its node has never joined.
fn never_joined(view: &PoolView, ledger: &Ledger, seconds: u64) -> Plan {
    let facts = trouble("i-4", NodeTrouble::NotJoined);
    let noted = looks(ledger, view, &spot("i-1"), &facts, 0).ledger;
    looks(&noted, view, &spot("i-1"), &facts, seconds)
}

#[test]
fn an_instance_whose_node_never_joins_is_terminated_by_id_and_the_next_one_comes_from_another_zone() {
    let (ledger, mut view) = served();
    assert_eq!(never_joined(&view, &ledger, 899).call, None, "it has its time");
    let plan = never_joined(&view, &ledger, 900);
    assert_eq!(plan.call, end("i-4", true), "with decrement: the group launches none by itself");
    let failure = share(&plan.ledger, "i-1").failure.expect("a failure");
    assert_eq!(failure.class, FailureClass::Unusable);
    assert_eq!(failure.message, "i-4 was terminated after 900 s: its node has not joined the cluster");

    let mut ledger = plan.ledger;
    accepted(&mut ledger, &plan.call.expect("a call"));
    view.spot.desired = 3;
    view.spot.instances.pop();
    view.spot.can_launch = true;
    let usual = InstanceFacts::default();
    let waits = looks(&ledger, &view, &spot("i-1"), &usual, 901);
    assert_eq!((&waits.call, share(&waits.ledger, "i-1").balance), (&None, Balance::Even));
    let again = |attempt| {
        let Want::Instance { deadline, stood_in_for, zone, gone, join_timeout, .. } = instance() else {
            panic!("an instance is wanted");
        };
        let want = Want::Instance { attempt, deadline, stood_in_for, zone, gone, join_timeout };
        wants([(GroupKind::Spot, "i-1", want)])
    };
    let rests = looks(&waits.ledger, &view, &again(1), &usual, 959);
    assert_eq!(rests.call, None, "the group rests for a minute");
    assert_eq!(
        share(&rests.ledger, "i-1").failure.map(|failure| failure.class),
        Some(FailureClass::Unusable)
    );
    let next = looks(&rests.ledger, &view, &again(2), &usual, 960);
    assert_eq!(zone_of(next.call.as_ref()).expect("a launch").0, "b", "the last one was in zone a");
    assert_eq!(share(&next.ledger, "i-1").discarded.expect("the last one").times, 1, "the rest grows");
}

#[test]
fn a_node_is_given_up_only_while_nothing_runs_on_it_and_the_picture_is_current() {
    let (ledger, view) = served();
    let facts = trouble("i-4", NodeTrouble::NotReady);
    let noted = looks(&ledger, &view, &spot("i-1"), &facts, 0).ledger;
    let id = || [InstanceId::from("i-4")].into();
    let rows = [
        ("nothing stands against it", facts.clone(), true),
        ("it runs pods", InstanceFacts { with_pods: id(), ..facts.clone() }, false),
        ("a replacement stands on it", InstanceFacts { taken: id(), ..facts.clone() }, false),
        ("it is not cordoned yet", InstanceFacts { schedulable: id(), ..facts.clone() }, false),
        ("the picture is old", InstanceFacts { stale: true, ..facts.clone() }, false),
        ("it is Ready by now", InstanceFacts::default(), false),
    ];
    for (what, facts, ends) in rows {
        let plan = looks(&noted, &view, &spot("i-1"), &facts, 900);
        assert_eq!(plan.call, end("i-4", true).filter(|_| ends), "{what}");
        let cordons = what == "it is not cordoned yet";
        assert_eq!(plan.cordon, if cordons { id() } else { BTreeSet::new() }, "{what}");
    }
}

#[test]
fn a_node_that_was_ready_in_between_has_its_time_again() {
    let (ledger, view) = served();
    let wants = spot("i-1");
    let facts = trouble("i-4", NodeTrouble::NotReady);
    let mut ledger = looks(&ledger, &view, &wants, &facts, 0).ledger;
    ledger = looks(&ledger, &view, &wants, &InstanceFacts::default(), 800).ledger;
    assert_eq!(share(&ledger, "i-1").unusable, None);
    ledger = looks(&ledger, &view, &wants, &facts, 810).ledger;
    assert_eq!(looks(&ledger, &view, &wants, &facts, 1709).call, None);
    assert_eq!(looks(&ledger, &view, &wants, &facts, 1710).call, end("i-4", true));
}

#[test]
fn a_termination_whose_answer_was_lost_is_taken_in_or_decided_anew() {
    let (ledger, mut view) = served();
    let plan = never_joined(&view, &ledger, 900);
    let facts = trouble("i-4", NodeTrouble::NotJoined);
    let again = looks(&plan.ledger, &view, &spot("i-1"), &facts, 910);
    assert_eq!(again.call, end("i-4", true), "it has not arrived");
    assert_eq!(share(&again.ledger, "i-1").discarded.expect("it").times, 1, "and counts once");
    let ready = looks(&plan.ledger, &view, &spot("i-1"), &InstanceFacts::default(), 910);
    assert_eq!((ready.call, share(&ready.ledger, "i-1").discarded), (None, None), "it is Ready by now");
    view.spot.desired = 3;
    view.spot.instances.pop();
    let over = looks(&plan.ledger, &view, &spot("i-1"), &InstanceFacts::default(), 910);
    let left = share(&over.ledger, "i-1");
    assert_eq!((over.call, left.instance_id, left.balance), (None, None, Balance::Even));
    assert_eq!(left.failure.map(|failure| failure.class), Some(FailureClass::Unusable));
}

#[test]
fn at_its_minimum_the_group_launches_the_successor_by_itself() {
    let (ledger, mut view) = served();
    view.spot.min = 4;
    let plan = never_joined(&view, &ledger, 900);
    assert_eq!(plan.call, end("i-4", false));
    assert_eq!(share(&plan.ledger, "i-1").failure, None, "the share goes on waiting");
}

#[test]
fn each_further_one_in_a_row_makes_the_group_rest_for_longer() {
    use crate::ledger::unusable::Discarded;
    for (times, rests) in [(1, 60), (2, 120), (4, 480), (7, 3600), (30, 3600)] {
        let (instance_id, zone, why) = ("i-4".into(), "a".to_owned(), NodeTrouble::NotJoined);
        let last = Discarded { instance_id, zone, why, waited_seconds: 900, at: now(), times };
        assert!(last.rests(at(rests - 1)) && !last.rests(at(rests)), "{times}");
    }
}

#[test]
fn what_keeps_a_node_from_being_used_is_seen() {
    use crate::cluster::{Effect, Node, Taint};
    use crate::testing::{cluster, node, pod};
    let taint = |key: &str| Taint { key: key.into(), value: "".into(), effect: Effect::NoExecute };
    let usual = || Node { taints: [taint("dedicated")].into(), ..node("1") };
    let with = |keys: &[&str]| Node { taints: keys.iter().map(|key| taint(key)).collect(), ..node("2") };
    let cordoned = |keys: &[&str]| Node { unschedulable: true, ..with(keys) };
    let rows: [(Option<Node>, Option<NodeTrouble>); 8] = [
        (None, Some(NodeTrouble::NotJoined)),
        (Some(Node { ready: false, ..node("2") }), Some(NodeTrouble::NotReady)),
        (Some(with(&[])), None),
        (Some(with(&["dedicated"])), None),
        (Some(with(&["agent-not-ready"])), Some(NodeTrouble::Tainted)),
        (Some(with(&["ours"])), None),
        (Some(cordoned(&["node.kubernetes.io/unschedulable"])), Some(NodeTrouble::Cordoned)),
        (Some(cordoned(&["ours"])), None),
    ];
    for (new, expected) in rows {
        let about = format!("{new:?}");
        let nodes: Vec<Node> = [usual(), node("3")].into_iter().chain(new).collect();
        let mut facts = InstanceFacts::default();
        let cluster = cluster(nodes, vec![pod("web-1", "1", 1)]);
        facts.look_at(&super::usual(), &cluster, &Freshness::default(), "ours", now());
        assert_eq!(facts.trouble(&"i-2".into(), None, now()), expected, "{about}");
        assert_eq!(facts.trouble(&"i-1".into(), None, now()), None, "{about}");
    }
    // Nobody knows whether the node that says nothing of its instance is the one.
    let nameless = |joined: u64| Node { provider_id: "".into(), created: Some(at(joined)), ..node("x") };
    for (joined, expected) in [(9, Some(NodeTrouble::NotJoined)), (10, None)] {
        let mut facts = InstanceFacts::default();
        let cluster = cluster(vec![nameless(joined)], vec![]);
        facts.look_at(&super::usual(), &cluster, &Freshness::default(), "ours", now());
        assert_eq!(facts.trouble(&"i-2".into(), None, at(10)), expected);
    }
}
