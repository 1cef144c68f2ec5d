//! Replacements in a pool whose Spot group replaces its instances by itself.

use super::*;
use crate::group::FailedActivity;
use crate::record::OpenFallback;
use crate::stand_ins::open_on_advice;

const MARKETS: [GroupKind; 2] = [GroupKind::Spot, GroupKind::OnDemand];

/// A pool whose Spot group replaces by itself, and a notice of two minutes.
fn by_group() -> Stage {
    let mut stage = Stage::urgent();
    stage.replaced_by = Some(ReplacedBy::Group);
    stage.queue.leaving.insert(OLD.into());
    stage.go();
    stage
}

fn arrives(stage: &mut Stage, id: &str, lifecycle: Lifecycle) {
    let group = &mut stage.view.spot;
    group.instances.retain(|held| held.id != id);
    group.instances.push(Instance { id: id.into(), zone: "a".to_owned(), lifecycle, protected: false });
    if lifecycle == Lifecycle::InService {
        stage.nodes.push((id.into(), false));
    }
}

fn launch_fails(stage: &mut Stage, class: FailureClass) {
    let (started_at, message) = (stage.now, "no capacity".to_owned());
    stage.view.spot.failures.push(FailedActivity { started_at, zone: None, class, message });
}

fn stands_in(stage: &Stage) -> bool {
    let commands = stage.commands();
    assert!(commands.ends.iter().all(|end| end.group == GroupKind::OnDemand), "no Spot instance is ended");
    let spot = want(&commands, GroupKind::Spot);
    assert!(spot.is_none_or(|want| *want == Want::Done), "nothing is asked of Spot: {spot:?}");
    matches!(want(&commands, GroupKind::OnDemand), Some(Want::Instance { .. }))
}

#[test]
fn a_recommendation_in_a_group_pool_and_no_launch_for_an_hour_nothing_is_held() {
    let mut stage = Stage::new();
    stage.replaced_by = Some(ReplacedBy::Group);
    for _ in 0..60 {
        stage.pass(60).go();
        launch_fails(&mut stage, FailureClass::Capacity);
    }
    assert_eq!(stage.phase(), Phase::Received);
    assert_eq!(stage.status.blocking[0].reason, ReasonCode::ReplacedByGroup);
    let commands = stage.commands();
    let asked = MARKETS.iter().any(|group| want(&commands, *group).is_some());
    assert!(!asked && commands.drains.is_empty() && commands.protected.is_empty());
}

/// A stand-in on advice is in service.
fn stood_in_for_on_advice() -> Stage {
    let mut stage = Stage::new();
    stage.replaced_by = Some(ReplacedBy::Group);
    launch_fails(&mut stage, FailureClass::Capacity);
    let fresh = stage.status.clone();
    stage.status = open_on_advice(fresh, &"old".into(), stage.now, &stage.view, stage.now);
    stage.queue.leaving = [OLD.into()].into();
    stage.go();
    assert!(stands_in(&stage) && stage.has(FlowBox::Wait, Outcome::NoCapacity), "the failure is known");
    stage.share(GroupKind::OnDemand, Some("od"), None).go();
    assert_eq!(stage.status.capacity.taken().map(|held| held.group), Some(GroupKind::OnDemand));
    stage
}

#[test]
fn what_stands_in_on_advice_goes_back_without_spot_after_half_an_hour_and_nothing_is_drained() {
    let mut stage = stood_in_for_on_advice();
    stage.pass(1799).go();
    assert!(!stage.marks(DrainPurpose::Replace) && stage.status.capacity.taken().is_some(), "AWS holds back");
    stage.pass(1).go();
    assert!(stage.status.old_node.is_retained() && stage.has(FlowBox::Wait, Outcome::TimedOut));
    assert_eq!(want(&stage.commands(), GroupKind::OnDemand), Some(&Want::Nothing));
    // Its pods move before that, and nothing is asked of the Spot group.
    (stage.nodes, stage.assessment) = (vec![("od".into(), true)], Some(ReturnAssessment::default()));
    stage.lose("i-2").go();
    assert!(stage.marks(DrainPurpose::Return), "{:?}", stage.status.blocking);
    let wanted = want(&stage.commands(), GroupKind::Spot).cloned();
    assert_eq!(wanted, Some(Want::Nothing), "the AsgScaler says that it knows, and the record ends");
}

#[test]
fn a_stand_in_on_advice_that_finds_no_capacity_is_given_up_in_time_and_one_that_is_not_needed_at_once() {
    let mut stage = stood_in_for_on_advice();
    stage.lose("od").share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).pass(9).go();
    for _ in 0..60 {
        stage.pass(30).share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).go();
    }
    assert!(stage.status.old_node.is_retained(), "{:?}", stage.status);
    let mut stage = stood_in_for_on_advice();
    stage.lose("od").go();
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.go();
    assert!(stage.status.old_node.is_retained(), "the group has followed the recommendation");
}

#[test]
fn a_stand_in_on_advice_is_there_when_the_interruption_comes_or_the_group_ends_the_node() {
    let mut stage = stood_in_for_on_advice();
    let deadline = Some(stage.now + Duration::from_secs(120));
    escalate(&mut stage.status, &subject(), NoticeKind::SpotInterruption, deadline, stage.now);
    stage.go();
    assert!(stage.marks(DrainPurpose::Replace) && stage.status.capacity.taken().is_some());
    let mut stage = stood_in_for_on_advice();
    stage.lose(OLD).old_node = false;
    stage.pass(1800).go();
    assert!(stage.status.old_node.is_over() && stage.status.fallback.is_open(), "{:?}", stage.status);
}

#[test]
fn a_failed_launch_after_the_notice_brings_the_stand_in_at_once_and_a_throttled_one_does_not() {
    let mut stage = by_group();
    assert!(!stands_in(&stage) && stage.marks(DrainPurpose::Replace));
    launch_fails(&mut stage, FailureClass::Throttle);
    stage.go();
    assert!(!stands_in(&stage));
    stage.pass(1);
    launch_fails(&mut stage, FailureClass::Unknown);
    stage.go();
    assert!(!stands_in(&stage), "the group tries again by itself");
    launch_fails(&mut stage, FailureClass::Configuration);
    stage.go();
    assert!(stands_in(&stage) && stage.has(FlowBox::Wait, Outcome::Misconfigured));
}

#[test]
fn a_launch_that_failed_before_the_notice_says_nothing() {
    let mut stage = Stage::urgent();
    (stage.replaced_by, stage.queue.leaving) = (Some(ReplacedBy::Group), [OLD.into()].into());
    launch_fails(&mut stage, FailureClass::Capacity);
    stage.pass(10).go().pass(10).go();
    assert!(!stands_in(&stage));
}

#[test]
fn without_a_launch_for_fifteen_seconds_on_demand_stands_in() {
    let mut stage = by_group();
    stage.pass(14).go();
    assert!(!stands_in(&stage));
    stage.pass(1).go();
    assert!(stands_in(&stage) && stage.has(FlowBox::Wait, Outcome::TimedOut));
}

#[test]
fn a_pending_instance_has_until_thirty_seconds_before_the_deadline() {
    let mut stage = by_group();
    arrives(&mut stage, "i-4", Lifecycle::Pending);
    stage.pass(89).go();
    assert!(!stands_in(&stage));
    let mut late = by_group();
    arrives(&mut late, "i-4", Lifecycle::Pending);
    late.pass(90).go();
    assert!(stands_in(&late));
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.pass(20).go();
    assert!(!stands_in(&stage), "it serves in time");
}

#[test]
pub(super) fn what_the_group_replaces_in_time_ends_without_a_call() {
    let mut stage = by_group();
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.pass(5).go().drained().go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Drained(_)), "it waits for EC2");
    stage.pass(115).lose(OLD).go();
    assert_eq!(stage.phase(), Phase::Completed, "{:#?}", stage.status);
    assert!(stage.commands().wants.is_empty());
}

#[test]
fn a_stand_in_that_is_no_longer_needed_goes_back_before_it_arrives() {
    let mut stage = by_group();
    stage.pass(15).go().share(GroupKind::OnDemand, None, None);
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.withdrawn = false;
    stage.go().drained().pass(105).lose(OLD).go();
    assert_eq!(want(&stage.commands(), GroupKind::OnDemand), Some(&Want::Nothing));
    stage.ledger = Ledger::default();
    stage.go();
    assert!(!stage.status.is_finished(), "the AsgScaler has not said that it knows");
    assert_eq!(want(&stage.commands(), GroupKind::Spot), Some(&Want::Done));
    stage.withdrawn = true;
    stage.go();
    assert_eq!(stage.phase(), Phase::Completed);
}

#[test]
fn a_successor_that_is_lost_again_is_stood_in_for() {
    let mut stage = by_group();
    stage.pass(15).go();
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.go();
    assert!(matches!(*stage.status.capacity, CapacityState::Withdrawn { .. }));
    stage.lose("i-4").go();
    let attempt = stage.status.attempt;
    stage.pass(15).go();
    assert!(stands_in(&stage) && attempt == 1);
}

#[test]
fn the_fallback_returns_when_the_group_is_full_and_nothing_of_spot_is_claimed_or_ended() {
    let mut stage = on_fallback();
    assert_eq!(stage.status.blocking[0].reason, ReasonCode::NoSpotInstance);
    arrives(&mut stage, "i-4", Lifecycle::Pending);
    stage.go();
    assert_eq!(stage.phase(), Phase::OnFallback);
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.pass(600).go();
    assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
    assert!(stage.status.fallback.successor().is_some(), "stability is counted from it");
    stage.drained().go();
    assert_eq!(stage.commands().ends.iter().map(|end| end.group).collect::<Vec<_>>(), [GroupKind::OnDemand]);
    stage.settle(GroupKind::OnDemand).lose("od").go();
    stage.ledger = Ledger::default();
    stage.go();
    assert_eq!(stage.phase(), Phase::Completed, "{:#?}", stage.status);
}

/// On-demand stands in, and the old node is gone.
fn on_fallback() -> Stage {
    let mut stage = by_group();
    stage.pass(15).go().share(GroupKind::OnDemand, Some("od"), None).go();
    stage.drained().go().pass(105).lose(OLD).go();
    (stage.drain, stage.return_drain) = (None, None);
    stage.assessment = Some(ReturnAssessment::default());
    stage.go();
    assert_eq!(stage.phase(), Phase::OnFallback, "{:#?}", stage.status);
    stage
}

#[test]
fn a_fallback_returns_without_spot_when_nothing_is_wanted_of_the_spot_group() {
    let mut stage = on_fallback();
    (stage.view.spot.desired, stage.view.spot.instances) = (0, Vec::new());
    stage.go();
    assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
}

#[test]
fn what_stands_in_and_is_lost_while_spot_can_take_over_is_not_bought_again() {
    let mut stage = on_fallback();
    arrives(&mut stage, "i-4", Lifecycle::InService);
    let nodes = std::mem::take(&mut stage.nodes);
    stage.lose("od").go();
    assert!(!stage.has(FlowBox::ScaleDown, Outcome::TakenByAws), "its node takes no pods yet");
    stage.nodes = nodes;
    let of_spot: Vec<_> = stage.view.spot.instances.iter().map(|held| (held.id.clone(), false)).collect();
    stage.nodes.extend(of_spot);
    stage.lose("od").go();
    assert!(stage.has(FlowBox::ScaleDown, Outcome::TakenByAws), "{:#?}", stage.status);
    assert_eq!(want(&stage.commands(), GroupKind::OnDemand), Some(&Want::Done));
}

#[test]
fn a_fallback_returns_when_the_other_stand_ins_are_enough_for_what_spot_lacks() {
    let mut stage = on_fallback();
    // Two places are empty: this one's, and one more.
    stage.view.spot.desired += 1;
    arrives(&mut stage, "i-4", Lifecycle::InService);
    stage.queue.before = 0;
    stage.pass(600).go();
    assert_eq!(stage.status.blocking[0].reason, ReasonCode::NoSpotInstance);
    stage.queue.before = 1;
    stage.go();
    assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
}

#[test]
pub(super) fn a_node_of_eks_is_stood_in_for_and_neither_marked_nor_drained() {
    let mut stage = Stage::urgent();
    (stage.replaced_by, stage.neighbour) = (Some(ReplacedBy::Group), Some(Neighbour::EksManagedNodeGroup));
    stage.queue.leaving.insert(OLD.into());
    stage.go().pass(15).go();
    assert!(stands_in(&stage) && !stage.marks(DrainPurpose::Replace));
    stage.share(GroupKind::OnDemand, Some("od"), None).go().pass(105).lose(OLD).go();
    assert_eq!(stage.phase(), Phase::OnFallback, "{:#?}", stage.status);
}

#[test]
fn an_end_that_the_group_has_decided_of_a_node_of_eks_is_left_to_eks() {
    let deadline = Some(now() + Duration::from_secs(120));
    let status = open(&subject(), NoticeKind::GroupTermination, deadline, None, None, now());
    let mut stage = Stage { status, ..Stage::new() };
    (stage.replaced_by, stage.neighbour) = (Some(ReplacedBy::Group), Some(Neighbour::EksManagedNodeGroup));
    stage.go();
    assert_eq!(stage.status.blocking[0].reason, ReasonCode::LeftToNeighbour);
    assert!(stage.commands().drains.is_empty());
}

#[test]
fn a_replacement_goes_on_as_it_began_whoever_replaces_by_now() {
    for (began, then) in
        [(ReplacedBy::SpotGuard, ReplacedBy::Group), (ReplacedBy::Group, ReplacedBy::SpotGuard)]
    {
        let mut stage = Stage::urgent();
        stage.replaced_by = Some(began);
        stage.queue.leaving.insert(OLD.into());
        stage.go();
        stage.replaced_by = Some(then);
        stage.pass(5).go();
        assert_eq!(stage.status.replaced_by, Some(began));
        let asks_spot = want(&stage.commands(), GroupKind::Spot).is_some();
        assert_eq!(asks_spot, began == ReplacedBy::SpotGuard);
    }
}

#[test]
fn missing_instances_belong_to_those_that_are_stood_in_for_and_then_to_the_latest_notice() {
    let record = |name: &str, seconds: u64, capacity: CapacityState, replaced_by| {
        let started_at = Some(now() + Duration::from_secs(seconds));
        let status =
            ReplacementStatus { started_at, capacity: capacity.into(), replaced_by, ..Default::default() };
        let deadline = (name != "advice").then(now);
        let mut status = ReplacementStatus { deadline, ..status };
        match name {
            "stays" => status.old_node.enter(OldNodeState::Retained {}),
            "returns" => status.fallback = FallbackState::Draining(OpenFallback::default()).into(),
            "ended" => status.notice = Some(NoticeKind::GroupTermination),
            _ => {}
        }
        (ReplacementName::from(name), InstanceId::from(name), status)
    };
    let group = Some(ReplacedBy::Group);
    let searching = || CapacityState::SpotRequested { since: now() };
    let asked = || CapacityState::BothRequested { spot_since: now(), on_demand_since: now() };
    let taken = |id: &str| CapacityState::Taken {
        instance: Capacity {
            group: GroupKind::OnDemand,
            instance_id: id.into(),
            node_name: "node".into(),
            ready_at: now(),
        },
        on_demand_requested: true,
    };
    let records = [
        record("first", 0, searching(), group),
        record("served", 1, CapacityState::Withdrawn { on_demand_requested: false }, group),
        record("last", 9, searching(), group),
        record("taken", 2, taken("od"), group),
        record("requested", 7, asked(), group),
        record("lost", 6, taken("gone"), group),
        // Neither covers a hole, so neither comes before those that wait for one.
        record("returns", 8, asked(), group),
        record("ended", 10, CapacityState::NotRequested {}, group),
        record("other", 3, searching(), Some(ReplacedBy::SpotGuard)),
        record("advice", 4, CapacityState::NotRequested {}, group),
        record("stays", 5, CapacityState::Withdrawn { on_demand_requested: true }, group),
    ];
    let mut view = Stage::new().view;
    let lifecycle = Lifecycle::InService;
    view.on_demand.instances =
        vec![Instance { id: "od".into(), zone: "a".to_owned(), lifecycle, protected: false }];
    let of = |name: &str| {
        let open = records.iter().map(|(name, instance_id, status)| (name, instance_id, status));
        queue(&name.into(), open, Some(&view))
    };
    let order = ["taken", "requested", "lost", "last", "first", "served"];
    assert_eq!(order.map(|name| of(name).before), [0, 1, 2, 3, 4, 5]);
    assert_eq!(of("adopted").before, 1, "only what serves comes before what covers nothing itself");
    let leaving = order.into_iter().chain(["returns", "ended"]).map(InstanceId::from).collect();
    assert_eq!(of("first").leaving, leaving);
}
