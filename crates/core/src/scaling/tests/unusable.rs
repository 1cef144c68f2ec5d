use super::*;
use crate::reason::NodeTrouble;
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
    let again = |attempt| wants([(GroupKind::Spot, "i-1", of_attempt(attempt))]);
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
fn a_node_that_could_be_used_for_a_third_of_its_time_has_all_of_it_again() {
    let (ledger, view) = served();
    let wants = spot("i-1");
    let facts = trouble("i-4", NodeTrouble::NotReady);
    let usual = InstanceFacts::default();
    let mut ledger = looks(&ledger, &view, &wants, &facts, 0).ledger;
    ledger = looks(&ledger, &view, &wants, &usual, 500).ledger;
    ledger = looks(&ledger, &view, &wants, &usual, 799).ledger;
    assert!(share(&ledger, "i-1").unusable.is_some_and(|held| !held.is_now()));
    ledger = looks(&ledger, &view, &wants, &usual, 800).ledger;
    assert_eq!(share(&ledger, "i-1").unusable, None);
    ledger = looks(&ledger, &view, &wants, &facts, 810).ledger;
    assert_eq!(looks(&ledger, &view, &wants, &facts, 1709).call, None);
    assert_eq!(looks(&ledger, &view, &wants, &facts, 1710).call, end("i-4", true));
}

#[test]
fn a_node_that_flaps_is_given_up_at_its_time_and_not_while_it_is_ready() {
    let (mut ledger, view) = served();
    let wants = spot("i-1");
    let facts = trouble("i-4", NodeTrouble::NotReady);
    for seconds in (0..900).step_by(30) {
        let now = if seconds % 60 == 0 { &facts } else { &InstanceFacts::default() };
        let plan = looks(&ledger, &view, &wants, now, seconds);
        assert_eq!(plan.call, None, "after {seconds} s");
        ledger = plan.ledger;
    }
    assert_eq!(looks(&ledger, &view, &wants, &InstanceFacts::default(), 900).call, None);
    assert_eq!(looks(&ledger, &view, &wants, &facts, 900).call, end("i-4", true));
}

#[test]
fn an_instance_with_two_nodes_is_named_and_kept() {
    use crate::testing::{cluster, node};
    let (ledger, view) = served();
    let of_4 = |name: &str| crate::cluster::Node { provider_id: "aws:///a/i-4".into(), ..node(name) };
    let cluster = cluster(vec![node("1"), of_4("4"), of_4("renamed")], vec![]);
    let look = |ledger: &Ledger, seconds| {
        let mut facts = InstanceFacts::default();
        facts.look_at(&view, &cluster, &Freshness::default(), "ours", at(seconds));
        looks(ledger, &view, &spot("i-1"), &facts, seconds)
    };
    let noted = look(&ledger, 0).ledger;
    assert_eq!(share(&noted, "i-1").unusable.map(|held| held.why), Some(NodeTrouble::Disputed));
    assert_eq!(look(&noted, 9000).call, None, "nobody knows whose pods run on it");
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
fn while_a_termination_is_in_doubt_its_share_takes_no_instance_of_others() {
    let (ledger, mut view) = served();
    // Somebody else has raised desired capacity.
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::InService);
    view.spot.desired = 5;
    let ending = never_joined(&view, &ledger, 900).ledger;
    let facts = InstanceFacts::default();
    let deferred = Deferred::begin(&ending);
    // The listing does not show yet that it was lowered.
    view.spot.instances.retain(|held| held.id != "i-4");
    let in_doubt = plan(&ending, &view, &spot("i-1"), &BTreeSet::new(), &facts, &deferred, at(905));
    assert_eq!((in_doubt.call, share(&in_doubt.ledger, "i-1").instance_id), (None, Some("i-4".into())));
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
fn what_does_not_fit_is_given_back_until_every_zone_was_tried() {
    let (mut ledger, mut view) = served();
    view.spot.can_launch = true;
    view.spot.zones = ["a", "b", "c"].map(str::to_owned).to_vec();
    let mut misfits: Vec<&str> = Vec::new();
    let mut began = 0;
    for (number, (id, zone, given_back)) in
        [("i-4", "a", true), ("i-5", "b", true), ("i-6", "c", false)].into_iter().enumerate()
    {
        misfits.push(id);
        let facts = InstanceFacts {
            misfits: misfits.iter().map(|id| ((*id).into(), NodeTrouble::PodsDoNotFit)).collect(),
            ..InstanceFacts::default()
        };
        let attempt = u32::try_from(number).unwrap_or(0);
        let want = |attempt| wants([(GroupKind::Spot, "i-1", of_attempt(attempt))]);
        ledger = looks(&ledger, &view, &want(attempt), &facts, began).ledger;
        assert_eq!(looks(&ledger, &view, &want(attempt), &facts, began + 899).call, None, "{id}");
        let plan = looks(&ledger, &view, &want(attempt), &facts, began + 900);
        assert_eq!(plan.call, end(id, true).filter(|_| given_back), "{id} in {zone}");
        let Some(call) = plan.call else { return };
        // It is cordoned before that, and then its node is not asked about any more.
        let marked = [(id.into(), Trouble { why: NodeTrouble::Cordoned, marked: true })].into();
        let cordoned = InstanceFacts { troubles: marked, ..InstanceFacts::default() };
        assert_eq!(looks(&ledger, &view, &want(attempt), &cordoned, began + 900).call, end(id, true));

        ledger = plan.ledger;
        accepted(&mut ledger, &call);
        view.spot.desired = 3;
        view.spot.instances.pop();
        let usual = InstanceFacts::default();
        ledger = looks(&ledger, &view, &want(attempt), &usual, began + 901).ledger;
        began += 2000;
        let next = looks(&ledger, &view, &want(attempt + 1), &usual, began);
        let next_zone = ["b", "c", ""][number];
        assert_eq!(zone_of(next.call.as_ref()).expect("a launch").0, next_zone, "after {zone}");
        ledger = next.ledger;
        let next_id = ["i-5", "i-6", ""][number];
        launched(&mut ledger, GroupKind::Spot, vec![next_id.into()], &[], at(began));
        view.spot.desired = 4;
        view.spot.instances.push(Instance {
            id: next_id.into(),
            zone: next_zone.to_owned(),
            lifecycle: Lifecycle::InService,
            protected: false,
        });
        ledger = looks(&ledger, &view, &want(attempt + 1), &usual, began + 1).ledger;
    }
    panic!("the last one is kept");
}

#[test]
fn what_does_not_fit_is_kept_where_the_group_chooses_the_zone() {
    let (ledger, view) = served();
    let misfits = [("i-4".into(), NodeTrouble::PodsDoNotFit)].into();
    let facts = InstanceFacts { misfits, ..InstanceFacts::default() };
    let noted = looks(&ledger, &view, &spot("i-1"), &facts, 0).ledger;
    let told = share(&noted, "i-1").unusable.map(|held| held.why);
    assert_eq!(told, Some(NodeTrouble::PodsDoNotFit), "it is said");
    assert_eq!(looks(&noted, &view, &spot("i-1"), &facts, 9000).call, None);
}

#[test]
fn what_stands_idle_is_terminated_at_once_but_not_at_the_minimum_and_not_under_pods() {
    let (ledger, mut view) = served();
    let misfits = [("i-4".into(), NodeTrouble::StandsIdle)].into();
    let facts = InstanceFacts { misfits, ..InstanceFacts::default() };
    let ends = |view: &PoolView, facts: &InstanceFacts| looks(&ledger, view, &spot("i-1"), facts, 0).call;
    assert_eq!(ends(&view, &facts), end("i-4", true), "with decrement: it is requested again");
    let plan = looks(&ledger, &view, &spot("i-1"), &facts, 0);
    let last = share(&plan.ledger, "i-1").discarded.expect("the last one");
    assert_eq!((last.zone.as_str(), last.why), ("", NodeTrouble::StandsIdle), "its zone is as good as any");
    let with_pods = InstanceFacts { with_pods: ["i-4".into()].into(), ..facts.clone() };
    assert_eq!(ends(&view, &with_pods), None, "pods run on it");
    view.spot.min = view.spot.desired;
    assert_eq!(ends(&view, &facts), None, "the group would launch the next one");
}

#[test]
fn each_further_one_in_a_row_makes_the_group_rest_for_longer() {
    use crate::ledger::unusable::Discarded;
    for (times, rests) in [(1, 60), (2, 120), (4, 480), (7, 3600), (30, 3600)] {
        let (instance_id, zone, why) = ("i-4".into(), "a".to_owned(), NodeTrouble::NotJoined);
        let (waited_seconds, earlier_zones) = (900, Vec::new());
        let last = Discarded { instance_id, zone, earlier_zones, why, waited_seconds, at: now(), times };
        assert!(last.rests(at(rests - 1)) && !last.rests(at(rests)), "{times}");
    }
}

#[test]
fn what_keeps_a_node_from_being_used_is_seen() {
    use crate::cluster::{Effect, Node, Pod, PodSpec, Taint, Toleration, TolerationOperator};
    use crate::testing::{cluster, node, pod};
    let taint = |key: &str| Taint { key: key.into(), value: "".into(), effect: Effect::NoExecute };
    let usual = || Node { taints: [taint("dedicated")].into(), ..node("1") };
    let with = |keys: &[&str]| Node { taints: keys.iter().map(|key| taint(key)).collect(), ..node("2") };
    let cordoned = |keys: &[&str]| Node { unschedulable: true, ..with(keys) };
    let key =
        |key: &str| Toleration { key: Some(key.into()), operator: TolerationOperator::Exists, effect: None };
    let web = || {
        let web = pod("web-1", "1", 1);
        let all = Toleration { key: None, ..key("") };
        let spec = PodSpec { tolerations: [key("on-demand"), all].into(), ..(*web.spec).clone() };
        Pod { spec: spec.into(), ..web }
    };
    let rows: [(Option<Node>, Option<NodeTrouble>); 9] = [
        // A taint of one group alone, which its pods tolerate.
        (Some(with(&["on-demand"])), None),
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
        let cluster = cluster(nodes, vec![web()]);
        facts.look_at(&super::usual(), &cluster, &Freshness::default(), "ours", now());
        assert_eq!(facts.trouble(&"i-2".into(), None), expected, "{about}");
        assert_eq!(facts.trouble(&"i-1".into(), None), None, "{about}");
    }
}

#[test]
fn an_instance_without_a_node_is_kept_while_a_node_that_names_none_runs_pods_since_its_request() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node, pod};
    let (ledger, view) = served();
    for (provider_id, joined, runs_pods, ends) in [
        ("", 0, true, false),
        ("k3s://x", 0, true, false),
        ("aws:///a/fargate-ip-10-0-0-1", 0, true, true),
        ("eks-hybrid:///us-east-1/x", 0, true, true),
        ("gce://project/zone/x", 0, true, true),
        ("", -1, true, true),
        ("", 0, false, true),
    ] {
        let created = Some(now() + jiff::SignedDuration::from_secs(joined));
        let unnamed = Node { provider_id: provider_id.into(), created, ..node("x") };
        let pods = if runs_pods { vec![pod("web-9", "x", 1)] } else { vec![] };
        let cluster = cluster(vec![node("1"), node("2"), node("3"), unnamed], pods);
        let look = |ledger: &Ledger, seconds| {
            let mut facts = InstanceFacts::default();
            facts.look_at(&view, &cluster, &Freshness::default(), "ours", at(seconds));
            looks(ledger, &view, &spot("i-1"), &facts, seconds)
        };
        let noted = look(&ledger, 0).ledger;
        let held = share(&noted, "i-1").unusable.map(|held| held.why);
        assert_eq!(held, Some(NodeTrouble::NotJoined), "it is said");
        assert_eq!(look(&noted, 900).call, end("i-4", true).filter(|_| ends), "{provider_id:?} {joined}");
    }
}
