use super::*;
use crate::cluster::{Labels, Node, Pod, Snapshot};
use crate::group::{FailedActivity, FailureClass};
use crate::ledger::{ScalingRequest, Share};
use crate::record::{Capacity, Phase};
use crate::testing::{cluster, node, pod, serving_group};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn group(name: &str, desired: i32, ids: &[&str]) -> GroupView {
    let zones = vec!["a".to_owned(), "b".to_owned()];
    GroupView { zones, ..serving_group(name, desired, ids, at(0)) }
}

fn fails(group: &mut GroupView, zone: Option<&str>, seconds: i64) {
    let zone = zone.map(str::to_owned);
    let message = "no capacity".to_owned();
    group.failures.push(FailedActivity {
        started_at: at(seconds),
        zone,
        class: FailureClass::Capacity,
        message,
    });
}

fn share(balance: &str, instance: Option<&str>) -> Share {
    let share = serde_json::json!({
        "replacement": "i-old", "balance": balance, "attempt": 0, "since": at(0), "instanceId": instance,
    });
    serde_json::from_value(share).expect("a share")
}

fn request(state: RequestState, share: Share) -> ScalingRequest {
    ScalingRequest {
        id: "1".to_owned(),
        group: GroupKind::Spot,
        group_name: "spot".into(),
        desired_before: 3,
        target: 4,
        instances_before: Vec::new(),
        active: 3,
        requested_at: at(0),
        answered_at: None,
        method: crate::ledger::Method::default(),
        state,
        failure: None,
        shares: vec![share],
    }
}

#[test]
fn what_replacements_wait_for_is_no_empty_place() {
    let applied = RequestState::Applied;
    let (two, three) = (["i-1", "i-2"], ["i-1", "i-2", "i-3"]);
    for (desired, ids, share, expected) in [
        (3, &two[..], None, Some(1)),
        (3, &three[..], None, Some(0)),
        (2, &three[..], None, Some(0)),
        (5, &three[..], None, Some(2)),
        (4, &three[..], Some((applied, share("Raised", None))), Some(0)),
        (4, &two[..], Some((applied, share("Raised", None))), Some(1)),
        (3, &two[..], Some((applied, share("OwedByGroup", None))), Some(0)),
        (3, &three[..], Some((applied, share("OwedByGroup", Some("i-3")))), Some(0)),
        (3, &two[..], Some((applied, share("OwedByGroup", Some("i-2")))), Some(1)),
        (2, &two[..], Some((applied, share("OwedByUs", None))), Some(0)),
        (3, &two[..], Some((RequestState::Intended, share("Even", None))), None),
    ] {
        let requests = share.clone().map(|(state, share)| request(state, share));
        let ledger = Ledger { scaling_requests: requests.into_iter().collect(), ..Ledger::default() };
        let told = format!("{desired} {ids:?} {share:?}");
        assert_eq!(missing(&ledger, &group("spot", desired, ids)), expected, "{told}");
    }
}

#[test]
fn a_place_counts_when_it_was_seen_empty_twice_and_keeps_its_time() {
    let (short, full) = (group("spot", 3, &["i-1"]), group("spot", 3, &["i-1", "i-2", "i-3"]));
    let mut ledger = Ledger::default();
    watch(&mut ledger, &group("spot", 3, &["i-1", "i-2"]), at(0));
    watch(&mut ledger, &short, at(3));
    let stands = |ledger: &Ledger, spot: &GroupView, now| uncovered(ledger, spot, [].into_iter(), at(now));
    assert_eq!(ledger.empty_places, [at(0), at(3)]);
    assert_eq!(stands(&ledger, &short, 4), []);
    assert_eq!(stands(&ledger, &short, 5), [at(0)]);
    assert_eq!(stands(&ledger, &short, 60), [at(0), at(3)]);
    assert_eq!(stands(&ledger, &full, 60), [], "what is not so any more does not count");
    let stored = serde_json::to_string(&ledger).expect("text");
    assert_eq!(serde_json::from_str::<Ledger>(&stored).expect("a ledger"), ledger);

    let mut moving = ledger.clone();
    moving.scaling_requests = vec![request(RequestState::Intended, share("Even", None))];
    watch(&mut moving, &full, at(61));
    assert_eq!(moving.empty_places, ledger.empty_places, "while a call is under way nothing is said");
    assert_eq!(stands(&moving, &short, 61), []);
    watch(&mut ledger, &full, at(61));
    assert!(ledger.empty_places.is_empty());
}

/// One Spot instance of three is missing since `at(0)`, a pod waits for a node, and launches fail.
struct Case {
    spec: ShortfallSpec,
    mode: ShortfallMode,
    view: PoolView,
    records: Vec<(bool, ReplacementStatus)>,
    need: Need,
    held: Vec<Reason>,
    policy: Policy,
}

fn case() -> Case {
    let mut view =
        PoolView { spot: group("spot", 3, &["i-1", "i-2"]), on_demand: group("on-demand", 0, &[]) };
    fails(&mut view.spot, Some("a"), 1);
    fails(&mut view.spot, Some("b"), 2);
    Case {
        spec: ShortfallSpec::default(),
        mode: ShortfallMode::Act,
        view,
        records: Vec::new(),
        need: Need { nodes: 1, ..Need::default() },
        held: Vec::new(),
        policy: Policy::default(),
    }
}

impl Case {
    fn at(&self, now: i64) -> (usize, Vec<Reason>) {
        let mut ledger = Ledger::default();
        watch(&mut ledger, &self.view.spot, at(0));
        let known: Vec<OwnRecord<'_>> =
            self.records.iter().map(|(is_place, status)| OwnRecord { is_place: *is_place, status }).collect();
        let found = judge(&Circumstances {
            spec: &self.spec,
            mode: self.mode,
            policy: &self.policy,
            view: &self.view,
            ledger: &ledger,
            known: &known,
            need: &|| self.need,
            held: &self.held,
            now: at(now),
        });
        (found.wanted, found.held)
    }

    fn place(&self, ended: Option<i64>, begun: i64) -> (bool, ReplacementStatus) {
        let mut status = open(at(0), &self.view.spot, at(begun));
        status.finished_at = ended.map(at);
        (true, status)
    }
}

#[test]
fn a_missing_instance_is_stood_in_for_once_launches_fail_in_all_zones_or_the_time_of_spot_is_over() {
    let usual = case();
    assert_eq!([usual.at(4).0, usual.at(11).0, usual.at(12).0], [0, 0, 1]);
    let mut one_zone = case();
    one_zone.view.spot.failures.truncate(1);
    assert_eq!([one_zone.at(60).0, one_zone.at(179).0, one_zone.at(180).0], [0, 0, 1]);
    let mut no_zone = case();
    no_zone.view.spot.failures.clear();
    fails(&mut no_zone.view.spot, None, 1);
    assert_eq!(no_zone.at(12).0, 1, "a failure that names no zone counts for all");
    let patient = Case { spec: ShortfallSpec { after_seconds: Some(60), ..usual.spec }, ..case() };
    assert_eq!([patient.at(30).0, patient.at(62).0], [0, 1]);
}

#[test]
fn launch_suspended_by_a_person_is_a_freeze_and_by_aws_a_market_that_is_dry() {
    let suspended = |reason: &str| {
        let mut held = case();
        held.view.spot.failures.clear();
        held.view.spot.setup.suspended.insert("Launch".to_owned(), reason.to_owned());
        held.at(10)
    };
    assert_eq!(suspended("Administrative suspension at 2026-01-01: launches keep failing").0, 1);
    let frozen = vec![Reason::LaunchFrozen { group: "spot".into() }];
    assert_eq!(suspended("User suspended at 2026-01-01T03:00:00Z"), (0, frozen));
}

#[test]
fn nothing_is_bought_that_no_pod_waits_for_or_that_is_on_its_way() {
    let with = |missing: i32, nodes, spot_arrives, on_demand_arrives| {
        let mut held = case();
        held.view.spot.desired = 2 + missing;
        held.need = Need { nodes, spot_arrives, on_demand_arrives };
        held.at(60)
    };
    assert_eq!(with(1, 0, 0, 0), (0, vec![]));
    assert_eq!(with(2, 1, 0, 0).0, 1, "no more than the pods need");
    assert_eq!(with(1, 5, 0, 0).0, 1, "no more than are missing");
    assert_eq!(with(2, 1, 1, 0).0, 0);
    assert_eq!(with(2, 2, 0, 1).0, 1);
}

#[test]
fn what_holds_is_said_and_nothing_is_bought() {
    let observed = Case { mode: ShortfallMode::Observe, ..case() };
    assert_eq!(observed.at(60), (0, vec![Reason::ShortfallObserved { instances: 1 }]));
    assert_eq!(Case { mode: ShortfallMode::Off, ..case() }.at(60), (0, vec![]));
    let pause = vec![Reason::Paused(crate::reason::Pause::Pool)];
    let paused = Case { held: pause.clone(), ..observed };
    assert_eq!(paused.at(60), (0, pause));

    let mut full = case();
    full.view.on_demand.max = 0;
    assert_eq!(full.at(60), (0, vec![Reason::AtMaximum { group: "on-demand".into(), max: 0 }]));
}

#[test]
fn stand_ins_have_a_limit_and_come_five_a_minute_and_rest_after_one_ended() {
    let storm = |missing: i32, limit: Option<u32>, records: Vec<(bool, ReplacementStatus)>| {
        let mut held = case();
        held.view.spot.desired = 2 + missing;
        held.spec.max_stand_ins = limit;
        (held.need.nodes, held.records) = (100, records);
        held.at(600)
    };
    let limit = |limit| vec![Reason::StandInLimit { limit }];
    assert_eq!(storm(2, None, vec![]), (2, vec![]));
    assert_eq!(storm(3, None, vec![]), (2, limit(2)), "the default is 2, or a quarter");
    assert_eq!(storm(18, None, vec![]).0, 5, "a quarter of 20");
    assert_eq!(storm(18, Some(9), vec![]), (5, limit(9)), "five a minute");
    assert_eq!(storm(3, Some(0), vec![]), (0, limit(0)));
    let place = |ended, begun| case().place(ended, begun);
    assert_eq!(storm(3, Some(2), vec![place(None, 300)]).0, 1);
    assert_eq!(storm(9, Some(9), vec![place(None, 590)]).0, 4);
    assert_eq!(storm(1, None, vec![place(None, 300)]), (0, vec![]), "it is looked after");
    assert_eq!(storm(1, None, vec![place(Some(541), 300)]), (0, limit(2)));
    assert_eq!(storm(1, None, vec![place(Some(540), 300)]).0, 1);
    assert_eq!(storm(1, None, vec![place(Some(540), 300), place(Some(400), 300)]).0, 0, "rests double");
}

fn waiting(name: &str, cpu: i64) -> Pod {
    Pod { unschedulable_since: Some(at(0)), ..pod(name, "", cpu) }
}

fn needed(nodes: Vec<Node>, pods: Vec<Pod>, now: i64) -> Need {
    let snapshot = cluster(nodes, pods);
    let view = PoolView { spot: group("spot", 3, &["i-s1", "i-s2"]), on_demand: group("od", 0, &["i-o1"]) };
    Shapes::of(&view, &snapshot, "spotguard.dev/leaving").need(
        &view,
        &snapshot,
        &[],
        &Policy::default(),
        &[],
        at(now),
    )
}

#[test]
fn the_pods_that_wait_are_counted_by_the_nodes_that_would_hold_them() {
    let nodes = || vec![node("s1"), node("s2")];
    let count = |pods: Vec<Pod>, now| needed(nodes(), pods, now).nodes;
    assert_eq!(count(vec![waiting("a-1", 1000)], 29), 0, "the scheduler may still find a node");
    assert_eq!(count(vec![waiting("a-1", 1000)], 30), 1);
    assert_eq!(count(vec![waiting("a-1", 2000), waiting("a-2", 2000)], 30), 1);
    assert_eq!(count(vec![waiting("a-1", 2000), waiting("a-2", 3000), waiting("a-3", 2000)], 30), 2);
    assert_eq!(count(vec![waiting("a-1", 5000)], 30), 0, "it fits on no node of the pool");
    let daemon = |node: &str| {
        let mut daemon = pod("ds-1", node, 500);
        daemon.owner.kind = crate::cluster::OwnerKind::DaemonSet;
        daemon
    };
    assert_eq!(count(vec![daemon("s1"), waiting("a-1", 3800)], 30), 0, "its DaemonSets take room, too");
    for change in [
        |pod: &mut Pod| pod.unschedulable_since = None,
        |pod: &mut Pod| pod.gated = true,
        |pod: &mut Pod| pod.deletion = Some(at(60)),
        |pod: &mut Pod| pod.nominated = Some("s1".into()),
        |pod: &mut Pod| pod.owner.kind = crate::cluster::OwnerKind::DaemonSet,
        |pod: &mut Pod| std::sync::Arc::make_mut(&mut pod.spec).scheduler = Some("other".into()),
        |pod: &mut Pod| {
            std::sync::Arc::make_mut(&mut pod.spec).node_selector = Labels::from_iter([("gpu", "yes")]);
        },
    ] {
        let mut held = waiting("a-1", 1000);
        change(&mut held);
        assert_eq!(count(vec![held.clone()], 30), 0, "{held:?}");
    }
    assert_eq!(needed(vec![], vec![waiting("a-1", 1), waiting("a-2", 9000)], 30).nodes, 1, "one is tried");
}

#[test]
fn a_pod_that_has_not_used_an_idle_stand_in_waits_for_something_else() {
    let waited = |cpu: i64, ready_at: i64, on: &str| {
        let pods = vec![waiting("a-1", cpu), pod("b-1", on, 500)];
        let snapshot = cluster(vec![node("s1"), node("s2"), node("o1")], pods);
        let view =
            PoolView { spot: group("spot", 3, &["i-s1", "i-s2"]), on_demand: group("od", 1, &["i-o1"]) };
        let stand_ins = [("i-o1".into(), at(ready_at))];
        let shapes = Shapes::of(&view, &snapshot, "taint");
        shapes.need(&view, &snapshot, &[], &Policy::default(), &stand_ins, at(3600)).nodes
    };
    assert_eq!(waited(1000, 1, "s1"), 0, "it is idle, and came when the pod waited");
    assert_eq!(waited(1000, 1, "o1"), 1, "a pod that waited has used it");
    assert_eq!(waited(1000, -1, "s1"), 1, "it was there before");
}

#[test]
fn a_stand_in_has_ten_minutes_to_be_used() {
    let place = |ready_at: i64| {
        let mut status = open(at(0), &group("spot", 3, &[]), at(0));
        let instance = Capacity {
            group: GroupKind::OnDemand,
            instance_id: "i-o1".into(),
            node_name: "o1".into(),
            ready_at: at(ready_at),
        };
        status.capacity.enter(CapacityState::Taken { instance, on_demand_requested: true });
        status
    };
    let status = place(100);
    let standing = |is_place, status: &ReplacementStatus, now| {
        standing(&[OwnRecord { is_place, status }], at(now)).len()
    };
    assert_eq!([standing(true, &status, 699), standing(true, &status, 700)], [0, 1]);
    assert_eq!(standing(false, &status, 700), 0, "it stands in for a node");
    let over = ReplacementStatus { finished_at: Some(at(600)), phase: Phase::Completed, ..status };
    assert_eq!(standing(true, &over, 700), 0);
}

#[test]
fn a_pod_has_to_fit_on_both_markets_and_is_promised_none_by_the_label_of_one() {
    let of = |name: &str, market: &str| Node {
        labels: Labels::from_iter([("eks.amazonaws.com/capacityType", market)]),
        ..node(name)
    };
    let mut spot_only = waiting("a-1", 1000);
    std::sync::Arc::make_mut(&mut spot_only.spec).node_selector =
        Labels::from_iter([("eks.amazonaws.com/capacityType", "SPOT")]);
    assert_eq!(needed(vec![of("s1", "SPOT")], vec![spot_only.clone()], 60).nodes, 0);
    assert_eq!(needed(vec![of("s1", "SPOT"), of("o1", "ON_DEMAND")], vec![spot_only], 60).nodes, 0);
    assert_eq!(needed(vec![of("s1", "SPOT"), of("o1", "ON_DEMAND")], vec![waiting("a-1", 1)], 60).nodes, 1);
}

#[test]
fn an_instance_arrives_until_the_scheduler_has_had_time_to_find_its_node() {
    let new = |seconds| Node { ready_changed: Some(at(seconds)), created: Some(at(seconds)), ..node("o1") };
    let arrives = |node: Node| needed(vec![node], vec![], 60).on_demand_arrives;
    assert_eq!([arrives(new(31)), arrives(new(30))], [1, 0]);
    assert_eq!(arrives(Node { ready: false, ..new(31) }), 1);
    let old = Node { ready: false, created: Some(at(-3600)), ..new(31) };
    assert_eq!(arrives(old), 0, "a node that broke down does not arrive");
}

#[test]
fn a_pod_counts_for_the_first_pool_alone() {
    let snapshot = cluster(vec![node("s1"), node("s2")], vec![waiting("a-1", 1000)]);
    let pool = |id: &str| PoolView { spot: group("spot", 2, &[id]), on_demand: group("od", 0, &[]) };
    let shapes = |view: &PoolView| Shapes::of(view, &snapshot, "taint");
    let (first, second) = (pool("i-s1"), pool("i-s2"));
    let need = |view: &PoolView, earlier: &[Shapes]| {
        shapes(view).need(view, &snapshot, earlier, &Policy::default(), &[], at(60)).nodes
    };
    assert_eq!(need(&first, &[]), 1);
    assert_eq!(need(&second, &[shapes(&first)]), 0);
    let _: &Snapshot = &snapshot;
}

#[test]
fn failed_launches_are_read_for_no_longer_than_they_tell_something() {
    let mut ledger = Ledger::default();
    let since = |ledger: &Ledger, now| failures_matter_since(ledger, &Policy::default(), at(now));
    assert_eq!(since(&ledger, 0), None);
    ledger.empty_places = vec![at(0), at(100)];
    assert_eq!([since(&ledger, 179), since(&ledger, 180)], [Some(at(-60)), Some(at(40))]);
    assert_eq!(since(&ledger, 280), None);
}

#[test]
fn names_are_the_same_for_every_leader_and_never_too_long() {
    let first = |pool: &str| names(&pool.into(), at(0)).next().expect("a name").to_string();
    assert_eq!(first("web"), "web.place-1800000000-0");
    assert!(first(&"x".repeat(253)).len() <= 253);
    assert!(first(&format!("{}-{}", "x".repeat(199), "y".repeat(50))).starts_with(&"x".repeat(199)));
    assert!(!first(&format!("{}-{}", "x".repeat(199), "y".repeat(50))).contains("-."));
}

#[test]
fn the_pool_says_the_mode_or_a_cluster_autoscaler_decides() {
    use ShortfallMode::{Act, Observe, Off};
    let rows = [
        (Mode::Act, None, None),
        (Mode::Act, Some(Act), Some(Act)),
        (Mode::Act, Some(Observe), Some(Observe)),
        (Mode::Act, Some(Off), Some(Off)),
        (Mode::Observe, None, Some(Observe)),
        (Mode::DrainOnly, Some(Act), Some(Observe)),
        (Mode::Observe, Some(Off), Some(Off)),
    ];
    for (pool, mode, expected) in rows {
        let spec = ShortfallSpec { mode, ..ShortfallSpec::default() };
        assert_eq!(spec.mode_said(pool), expected, "{pool:?}, {mode:?}");
    }
    for (lives, expected) in [(Some(false), Act), (Some(true), Observe), (None, Observe)] {
        assert_eq!(ShortfallMode::beside(lives), expected, "{lives:?}");
    }
}

#[test]
fn what_spot_may_give_is_tried_in_each_type_and_zone_without_the_taints_of_one_node() {
    let typed = |name: &str, type_: &str, zone: &str| {
        let labels = [("node.kubernetes.io/instance-type", type_), ("topology.kubernetes.io/zone", zone)];
        let labels: Labels = labels.into_iter().collect();
        Node { labels, zone: zone.into(), provider_id: format!("aws:///{zone}/{name}").into(), ..node(name) }
    };
    let mut tainted = typed("i-1", "m5", "a");
    tainted.taints = Box::new([crate::cluster::Taint {
        key: "a-person/keeps".into(),
        value: "".into(),
        effect: crate::cluster::Effect::NoSchedule,
    }]);
    let mut large = typed("i-3", "r5", "b");
    large.allocatable.memory *= 4;
    let snapshot = cluster(vec![tainted, typed("i-2", "m5", "a"), large], vec![]);
    let view = PoolView { spot: group("spot", 3, &["i-1", "i-2", "i-3"]), on_demand: group("od", 0, &[]) };
    let clusters = Shapes::with_spot_node(&view, &snapshot, "leaving");
    let found: Vec<(String, i64, usize)> = clusters
        .iter()
        .map(|cluster| {
            let node = cluster.node(&HYPOTHETICAL.into()).expect("one more node");
            let zone = node.labels.get("topology.kubernetes.io/zone").unwrap_or_default();
            assert_eq!(zone, &*node.zone);
            (zone.to_owned(), node.allocatable.memory, node.taints.len())
        })
        .collect();
    let memory = node("i-2").allocatable.memory;
    let expected = [("a", memory), ("b", memory), ("b", 4 * memory), ("a", 4 * memory)];
    assert_eq!(found, expected.map(|(zone, memory)| (zone.to_owned(), memory, 0)));
    assert!(Shapes::with_spot_node(&view, &cluster(vec![], vec![]), "leaving").is_empty());
}
