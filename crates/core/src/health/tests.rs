use super::*;
use crate::group::{FailedActivity, GroupView, Instance, Lifecycle};
use crate::ids::InstanceId;
use crate::ledger::{Balance, Method, RequestState, ScalingRequest, Share};
use crate::reason::Blocker;
use crate::record::{
    Capacity, CapacityState, FallbackState, OldDrain, OldNodeState, OpenFallback, Phase, ReplacedBy,
};
use crate::testing::leaked;
use std::time::Duration;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn group(desired: i32, in_service: &[&str], pending: &[&str]) -> GroupView {
    let instance = |id: &&str, lifecycle| Instance {
        id: (*id).into(),
        zone: "a".to_owned(),
        lifecycle,
        protected: false,
    };
    let serving = in_service.iter().map(|id| instance(id, Lifecycle::InService));
    GroupView {
        name: "spot".into(),
        desired,
        min: 0,
        max: 10,
        zones: vec!["a".to_owned()],
        can_launch: false,
        setup: crate::group::GroupSetup::default(),
        instances: serving.chain(pending.iter().map(|id| instance(id, Lifecycle::Pending))).collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: now(),
    }
}

fn view(spot: GroupView) -> PoolView {
    PoolView { spot, on_demand: group(0, &[], &[]) }
}

/// A share of the story of `old` in the Spot group.
fn share(old: &str, balance: Balance, instance_id: Option<&str>) -> Share {
    Share {
        replacement: old.into(),
        balance,
        attempt: 0,
        since: now(),
        deadline: None,
        stood_in_for: true,
        instance_id: instance_id.map(Into::into),
        claimed_at: None,
        unusable: None,
        discarded: None,
        failure: None,
    }
}

fn ledger(shares: Vec<Share>) -> Ledger {
    let request = ScalingRequest {
        id: "r".to_owned(),
        group: GroupKind::Spot,
        group_name: "spot".into(),
        desired_before: 3,
        target: 4,
        instances_before: Vec::new(),
        active: 3,
        requested_at: now(),
        answered_at: None,
        method: Method::SetDesiredCapacity {},
        state: RequestState::Applied,
        failure: None,
        shares,
    };
    Ledger { scaling_requests: vec![request], ..Ledger::default() }
}

fn fallback(old_node: OldNodeState, started_minute: i64) -> ReplacementStatus {
    let capacity = |group, id: &str, ready_at| Capacity {
        group,
        instance_id: id.into(),
        node_name: id.into(),
        ready_at,
    };
    ReplacementStatus {
        phase: Phase::OnFallback,
        started_at: Some(Timestamp::from_second(started_minute * 60).expect("a time")),
        old_node: old_node.into(),
        capacity: CapacityState::Taken {
            instance: capacity(GroupKind::OnDemand, "od", now()),
            on_demand_requested: true,
        }
        .into(),
        fallback: FallbackState::OnFallback(OpenFallback {
            successor: Some(capacity(GroupKind::Spot, "i-4", now() - Duration::from_secs(120))),
            ..OpenFallback::default()
        })
        .into(),
        ..ReplacementStatus::default()
    }
}

fn changed(status: &ReplacementStatus, change: impl FnOnce(&mut OpenFallback)) -> ReplacementStatus {
    let mut changed = status.clone();
    change(changed.fallback.open_mut().expect("an open fallback"));
    changed
}

/// All nodes are Ready, and one more Spot node makes no difference.
fn assess_by(
    view: &PoolView,
    ledger: &Ledger,
    stories: &[PoolReplacement<'_>],
    unsafe_: &dyn Fn(&PoolReplacement<'_>) -> Vec<Reason>,
) -> PoolAssessment {
    let questions = Questions { ready: &|_| Some(true), unsafe_, unsafe_with_spot: unsafe_ };
    assess(view, ledger, stories, &questions, &Policy::default(), now())
}

#[test]
fn health_counts_what_is_to_serve_and_not_what_is_owed_or_on_its_way_out() {
    let old_there = fallback(OldNodeState::Kept {}, 0);
    let old_gone = fallback(OldNodeState::Gone {}, 0);
    let none = Ledger::default();
    let surplus = ledger(vec![share("i-1", Balance::Raised, Some("i-4"))]);
    let awaited = ledger(vec![share("i-1", Balance::Raised, None)]);
    let in_group = ledger(vec![share("i-1", Balance::OwedByGroup, None)]);
    let rows: [(&str, GroupView, &Ledger, Option<&ReplacementStatus>, bool); 8] = [
        ("all there", group(3, &["i-1", "i-2", "i-3"], &[]), &none, None, true),
        ("one missing", group(3, &["i-1", "i-2"], &[]), &none, None, false),
        ("one still pending", group(3, &["i-1", "i-2"], &["i-3"]), &none, None, false),
        (
            "the drained node does not count",
            group(4, &["i-1", "i-2", "i-3", "i-4"], &[]),
            &surplus,
            Some(&old_there),
            true,
        ),
        (
            "without it one is missing",
            group(4, &["i-1", "i-2", "i-4"], &[]),
            &surplus,
            Some(&old_there),
            false,
        ),
        (
            "what was asked for is awaited",
            group(4, &["i-1", "i-2", "i-3"], &[]),
            &awaited,
            Some(&old_there),
            true,
        ),
        ("what the group owes is awaited", group(3, &["i-2", "i-3"], &[]), &in_group, Some(&old_gone), true),
        ("another is missing as well", group(3, &["i-2"], &[]), &in_group, Some(&old_gone), false),
    ];
    for (name, spot, ledger, status, healthy) in rows {
        let stories: Vec<PoolReplacement<'_>> = status
            .iter()
            .map(|status| PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status })
            .collect();
        let found = unhealthy(&view(spot), ledger, &stories, &Policy::default(), now());
        assert_eq!(found.is_empty(), healthy, "{name}: {found:?}");
    }
}

#[test]
fn recent_failures_are_ill_health_unless_they_are_our_own_probes_or_throttling() {
    let rows = [
        (60, FailureClass::Capacity, false, false),
        (119, FailureClass::Unknown, false, false),
        (121, FailureClass::Capacity, false, true),
        (60, FailureClass::Throttle, false, true),
        (60, FailureClass::Capacity, true, true),
    ];
    for (seconds_ago, class, probing, healthy) in rows {
        let started_at = now() - Duration::from_secs(seconds_ago);
        let mut spot = group(3, &["i-1", "i-2", "i-3"], &[]);
        spot.failures = vec![FailedActivity { started_at, zone: None, class, message: "text".to_owned() }];
        let ledger = match probing {
            true => {
                spot.desired = 4;
                ledger(vec![share("i-9", Balance::Raised, None)])
            }
            false => Ledger::default(),
        };
        let found = unhealthy(&view(spot), &ledger, &[], &Policy::default(), now());
        assert_eq!(found.is_empty(), healthy, "{class:?} {seconds_ago} s ago, probing {probing}: {found:?}");
    }
}

#[test]
fn what_on_demand_stands_in_for_in_a_pool_that_replaces_by_itself_is_no_ill_health() {
    let mut stands_in = fallback(OldNodeState::Gone {}, 0);
    stands_in.replaced_by = Some(ReplacedBy::Group);
    let mut returns = stands_in.clone();
    returns.fallback = FallbackState::Draining(OpenFallback::default()).into();
    let mut cancelled = stands_in.clone();
    cancelled.old_node = OldNodeState::Retained {}.into();
    for (name, in_service, statuses, healthy) in [
        ("nobody stands in", 3, vec![], false),
        ("one stands in", 3, vec![&stands_in], true),
        ("two places are empty", 2, vec![&stands_in], false),
        ("one goes back, and covers nothing", 2, vec![&stands_in, &returns], false),
        ("the other one is enough", 3, vec![&stands_in, &returns], true),
        ("its old node stays", 3, vec![&cancelled], false),
        ("one more than what is missing", 2, vec![&stands_in, &stands_in, &stands_in], true),
    ] {
        let there = stands_in.capacity.taken().expect("an instance").instance_id.clone();
        let mut spot = group(4, &["i-2", "i-3", "i-4"][..in_service], &[]);
        let (started_at, zone, class) = (now() - Duration::from_secs(60), None, FailureClass::Capacity);
        spot.failures = vec![FailedActivity { started_at, zone, class, message: "dry".to_owned() }];
        let story = |status| PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status };
        let stories: Vec<PoolReplacement<'_>> = statuses.into_iter().map(story).collect();
        let view = PoolView { spot, on_demand: group(1, &[&there], &[]) };
        let found = unhealthy(&view, &Ledger::default(), &stories, &Policy::default(), now());
        assert_eq!(found.is_empty(), healthy, "{name}: {found:?}");
    }
}

#[test]
fn a_failed_launch_is_forgotten_after_ten_minutes_however_long_stability_takes() {
    let policy = Policy { stability_seconds: 7200, ..Policy::default() };
    for (seconds_ago, healthy) in [(599, false), (600, true)] {
        let started_at = now() - Duration::from_secs(seconds_ago);
        let (zone, class, message) = (None, FailureClass::Capacity, "text".to_owned());
        let mut spot = group(3, &["i-1", "i-2", "i-3"], &[]);
        spot.failures = vec![FailedActivity { started_at, zone, class, message }];
        let found = unhealthy(&view(spot), &Ledger::default(), &[], &policy, now());
        assert_eq!(found.is_empty(), healthy, "{seconds_ago} s ago: {found:?}");
    }
}

#[test]
fn few_unready_nodes_are_allowed_and_the_drained_one_does_not_count() {
    let names: Vec<String> = (1..=40).map(|number| format!("i-{number}")).collect();
    let rows = [(3, 0, true), (3, 1, false), (19, 1, false), (20, 1, true), (20, 2, false), (40, 2, true)];
    for (nodes, unready, stable) in rows {
        let all: Vec<&str> = names.iter().take(nodes).map(String::as_str).collect();
        let ready = |id: &InstanceId| all.iter().position(|name| name == id).map(|at| at >= unready);
        let desired = i32::try_from(nodes).expect("a small number");
        let found = unready_nodes(&view(group(desired, &all, &[])), &[], &ready, &Policy::default());
        assert_eq!(found.is_empty(), stable, "{unready} of {nodes}: {found:?}");
    }
    let status = fallback(OldNodeState::Terminating(OldDrain::begun(now())), 0);
    let stories = [PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status: &status }];
    let spot = view(group(4, &["i-1", "i-2", "i-3", "i-4"], &[]));
    assert!(unready_nodes(&spot, &stories, &|id| Some(id != "i-1"), &Policy::default()).is_empty());
}

#[test]
fn an_instance_whose_node_never_joins_holds_no_return() {
    let spot = view(group(4, &["i-1", "i-2", "i-3", "i-4"], &[]));
    let joined = |id: &InstanceId| (id != "i-4").then_some(true);
    assert_eq!(unready_nodes(&spot, &[], &joined, &Policy::default()), []);
    let one_is_unready = |id: &InstanceId| (id != "i-4").then_some(id != "i-3");
    let found = unready_nodes(&spot, &[], &one_is_unready, &Policy::default());
    assert_eq!(found, [Reason::NodesNotReady { instances: vec!["i-3".into()], of: 3 }]);
}

fn too_full() -> Reason {
    Blocker::BufferExceeded { resource: "cpu".to_owned(), after: 0.8, limit: 0.75 }.into()
}

fn assessed(status: &ReplacementStatus, blocker: Option<Reason>) -> ReturnAssessment {
    let stories = [PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status }];
    let spot = view(group(3, &["i-2", "i-3", "i-4"], &[]));
    let share = ledger(vec![share("i-1", Balance::Even, Some("i-4"))]);
    let unsafe_ = |_: &PoolReplacement<'_>| blocker.clone().into_iter().collect();
    let mut found = assess_by(&spot, &share, &stories, &unsafe_);
    found.returns.remove("i-1").unwrap_or_default()
}

fn nothing_against_the_return_of(instance: &str) -> ReturnAssessment {
    let (of, successor) = (Some(instance.into()), Some("i-4".into()));
    ReturnAssessment { of, successor, ..ReturnAssessment::default() }
}

#[test]
fn a_return_waits_for_its_spot_node_for_stability_and_for_safety() {
    let ready = fallback(OldNodeState::Gone {}, 0);
    assert_eq!(assessed(&ready, None), nothing_against_the_return_of("od"));
    let nothing = changed(&ready, |open| open.successor = None);
    assert_eq!(assessed(&nothing, None).unhealthy, [Reason::NoSpotInstance], "box 7");
    let fresh = changed(&ready, |open| {
        open.successor.as_mut().expect("a Spot instance").ready_at = now() - Duration::from_secs(119);
    });
    assert!(!assessed(&fresh, None).unstable.is_empty(), "box 8");
    assert_eq!(assessed(&ready, Some(too_full())).unsafe_, [too_full()], "box 9");
}

#[test]
fn in_a_small_pool_returns_are_made_one_by_one_the_oldest_first() {
    let (older, newer) = (fallback(OldNodeState::Gone {}, 1), fallback(OldNodeState::Gone {}, 2));
    let spot = view(group(4, &["i-3", "i-4", "i-5", "i-6"], &[]));
    let share =
        ledger(vec![share("i-1", Balance::Even, Some("i-4")), share("i-2", Balance::Even, Some("i-5"))]);
    let judge = |older: &ReplacementStatus, newer: &ReplacementStatus| {
        let stories = [
            PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status: newer },
            PoolReplacement { name: "i-2".into(), instance_id: leaked("i-2"), status: older },
        ];
        let found = assess_by(&spot, &share, &stories, &|_| Vec::new());
        (found.returns["i-1"].unsafe_.is_empty(), found.returns["i-2"].unsafe_.is_empty())
    };
    assert_eq!(judge(&older, &newer), (false, true), "the oldest has its turn");
    let mut returning = newer.clone();
    returning.fallback = FallbackState::Draining(OpenFallback::default()).into();
    assert_eq!(judge(&older, &returning), (true, false), "one that has begun ends first");
    returning.fallback = FallbackState::Terminating(OpenFallback::default()).into();
    assert_eq!(judge(&returning, &newer), (true, true), "one that terminates holds no turn");
    assert_eq!(judge(&older, &returning), (true, true), "and takes none");
}

#[test]
fn one_more_return_may_begin_in_each_assessment_until_as_many_drain_as_may() {
    let waiting = fallback(OldNodeState::Gone {}, 1);
    let later = changed(&waiting, |open| open.not_before = Some(now() + Duration::from_secs(1)));
    let mut returning = waiting.clone();
    returning.fallback = FallbackState::Draining(OpenFallback::default()).into();
    let may_begin = |limit: u32, statuses: [&ReplacementStatus; 3]| {
        let names = ["i-1", "i-2", "i-3"];
        let stories = std::iter::zip(names, statuses)
            .map(|(name, status)| PoolReplacement { name: name.into(), instance_id: leaked(name), status })
            .collect::<Vec<_>>();
        let ids = ["i-4", "i-5", "i-6"];
        let held = std::iter::zip(names, ids).map(|(name, id)| share(name, Balance::Even, Some(id)));
        let questions =
            Questions { ready: &|_| Some(true), unsafe_: &|_| Vec::new(), unsafe_with_spot: &|_| Vec::new() };
        let policy = Policy { max_concurrent_returns: limit, ..Policy::default() };
        let view = view(group(3, &ids, &[]));
        let found = assess(&view, &ledger(held.collect()), &stories, &questions, &policy, now());
        names.map(|name| found.returns[name].unsafe_.is_empty())
    };
    assert_eq!(may_begin(3, [&waiting; 3]), [true, false, false]);
    assert_eq!(may_begin(3, [&returning, &waiting, &waiting]), [true, true, false]);
    assert_eq!(may_begin(3, [&returning, &returning, &waiting]), [true; 3]);
    assert_eq!(may_begin(2, [&returning, &returning, &waiting]), [true, true, false]);
    assert_eq!(may_begin(1, [&later, &waiting, &waiting]), [true, true, false], "its time has not come");
}

#[test]
fn before_spot_is_asked_it_is_found_out_whether_an_instance_would_be_of_use() {
    let owes = changed(&fallback(OldNodeState::Gone {}, 0), |open| open.successor = None);
    let stories: Vec<PoolReplacement<'_>> = (0..10)
        .map(|number| PoolReplacement {
            name: format!("i-{number}").into(),
            instance_id: leaked("i-1"),
            status: &owes,
        })
        .collect();
    let blocks = |_: &PoolReplacement<'_>| vec![too_full()];
    let looked_at = |balance| {
        let shares = stories.iter().map(|story| share(&story.name, balance, None)).collect();
        let found = assess_by(&view(group(3, &["i-3"], &[])), &ledger(shares), &stories, &blocks);
        found.returns.values().filter(|found| found.unsafe_with_spot == [too_full()]).count()
    };
    assert_eq!(looked_at(Balance::OwedByUs), 8, "so many in one assessment");
    assert_eq!(looked_at(Balance::OwedByGroup), 0, "a group that launches by itself is not asked");
}

#[test]
fn a_return_that_a_person_asked_for_waits_for_safety_and_not_for_stability() {
    let asked = changed(&fallback(OldNodeState::Gone {}, 0), |open| {
        open.requested_at = Some(now());
        open.successor.as_mut().expect("a Spot instance").ready_at = now();
    });
    assert_eq!(assessed(&asked, None), nothing_against_the_return_of("od"));
    assert_eq!(assessed(&asked, Some(too_full())).unsafe_, [too_full()], "box 9");
    let nothing = changed(&asked, |open| open.successor = None);
    assert!(!assessed(&nothing, None).unhealthy.is_empty(), "without a Spot instance nothing goes back");

    let older = fallback(OldNodeState::Gone {}, 0);
    let newer = changed(&fallback(OldNodeState::Gone {}, 1), |open| open.requested_at = Some(now()));
    let stories = [
        PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status: &older },
        PoolReplacement { name: "i-2".into(), instance_id: leaked("i-2"), status: &newer },
    ];
    let spot = view(group(4, &["i-3", "i-4", "i-5", "i-6"], &[]));
    let found = assess_by(&spot, &ledger(vec![]), &stories, &|_| Vec::new());
    assert!(found.returns["i-2"].unsafe_.is_empty() && !found.returns["i-1"].unsafe_.is_empty());
}

#[test]
fn the_node_of_a_cancelled_story_is_one_of_those_that_stay() {
    let status =
        ReplacementStatus { old_node: OldNodeState::Retained {}.into(), ..ReplacementStatus::default() };
    let stories = [PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status: &status }];
    let policy = Policy::default();
    let shares = ledger(vec![share("i-1", Balance::Raised, Some("i-4"))]);
    let judge =
        |serving: &[&str]| unhealthy(&view(group(4, serving, &[])), &shares, &stories, &policy, now());
    assert_eq!(judge(&["i-1", "i-2", "i-3", "i-4"]), Vec::<Reason>::new());
    assert_eq!(judge(&["i-1", "i-2", "i-4"]).len(), 1, "what is to go makes up for nothing");
    // A recommendation for the instance that goes back counts it no second time.
    let (instance_id, node_name) = ("i-4".into(), "i-4".into());
    let spare = Capacity { group: GroupKind::Spot, instance_id, node_name, ready_at: now() };
    let back = CapacityState::Taken { instance: spare, on_demand_requested: false };
    let fallback = FallbackState::OnFallback(OpenFallback::default()).into();
    let returning = ReplacementStatus { capacity: back.into(), fallback, ..status.clone() };
    let waiting = ReplacementStatus::default();
    let both = [
        PoolReplacement { name: "i-1".into(), instance_id: leaked("i-1"), status: &returning },
        PoolReplacement { name: "i-4".into(), instance_id: leaked("i-4"), status: &waiting },
    ];
    let serving = view(group(4, &["i-1", "i-2", "i-3", "i-4"], &[]));
    assert_eq!(unhealthy(&serving, &shares, &both, &policy, now()), Vec::<Reason>::new());
    let spot = view(group(3, &["i-1", "i-2", "i-3"], &[]));
    let unready = unready_nodes(&spot, &stories, &|id| Some(id != "i-1"), &policy);
    assert_eq!(unready.len(), 1);
}

#[test]
fn one_node_that_spot_may_give_is_enough_and_a_check_that_is_too_large_is_not_made_again() {
    let too_large: Reason = Blocker::CheckTooLarge { heaviest: None }.into();
    let asked = std::cell::Cell::new(0);
    let of = |found: &[Vec<Reason>]| {
        asked.set(0);
        let counted = found.iter().cloned().inspect(|_| asked.set(asked.get() + 1));
        (of_any_node(counted), asked.get())
    };
    assert_eq!(of(&[]), (vec![], 0));
    assert_eq!(of(&[vec![too_full()], vec![Reason::NoSpotInstance]]), (vec![too_full()], 2));
    assert_eq!(of(&[vec![too_full()], vec![], vec![too_full()]]), (vec![], 2));
    assert_eq!(of(&[vec![too_large.clone()], vec![]]), (vec![too_large], 1));
}

#[test]
fn one_more_spot_node_makes_the_pool_less_full_unless_it_stood_idle_and_an_unknown_one_may_take_any_pod() {
    use crate::ledger::unusable::Discarded;
    let status = fallback(OldNodeState::Gone {}, 0);
    let (name, instance_id) = ("old".into(), "old".into());
    let story = PoolReplacement { name, instance_id: &instance_id, status: &status };
    let mut owed = share("old", Balance::OwedByUs, None);
    let left = |owed: &Share, is_unknown| {
        let pod = || crate::reason::PodName { namespace: "default".into(), name: "web".into() };
        let no_place =
            Blocker::PodDoesNotFit { pod: pod(), reasons: Default::default(), fits_in_some_order: false };
        let found = vec![too_full(), Reason::CheckTooLarge { node: "od".into() }, no_place.into()];
        let found = with_more_spot(found, &story, &ledger(vec![owed.clone()]), is_unknown);
        found.iter().map(Reason::code).collect::<Vec<_>>()
    };
    let (large, place) = (ReasonCode::CheckTooLarge, ReasonCode::PodDoesNotFit);
    assert_eq!(left(&owed, false), [large, place]);
    assert_eq!(left(&owed, true), [large]);
    let (zone, why, at) = (String::new(), NodeTrouble::StandsIdle, now());
    let (earlier_zones, waited_seconds, times) = (Vec::new(), 1800, 1);
    owed.discarded =
        Some(Discarded { instance_id: "i-4".into(), zone, earlier_zones, why, waited_seconds, at, times });
    assert_eq!(left(&owed, false), [ReasonCode::BufferExceeded, large, place]);
}

#[test]
fn what_stood_in_on_advice_waits_for_no_health_of_the_group_that_replaces_by_itself() {
    let mut status = fallback(OldNodeState::Retained {}, 0);
    status.fallback.open_mut().expect("an open fallback").successor = None;
    let (name, instance_id) = (ReplacementName::from("old"), InstanceId::from("old"));
    let found = |status: &ReplacementStatus| {
        let stories = [PoolReplacement { name: name.clone(), instance_id: &instance_id, status }];
        let view = view(group(3, &["old"], &[]));
        assess_by(&view, &Ledger::default(), &stories, &|_| Vec::new()).returns.remove(&name).expect("one")
    };
    assert!(!found(&status).unhealthy.is_empty(), "two are missing");
    status.replaced_by = Some(crate::record::ReplacedBy::Group);
    assert!(found(&status).unhealthy.is_empty());
}
