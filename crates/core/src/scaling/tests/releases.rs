use super::super::instances::Trouble;
use super::*;
use crate::ids::InstanceId;
use crate::reason::NodeTrouble;

#[test]
fn the_old_instance_is_ended_with_its_plus_one() {
    let (ledger, view) = served();
    assert_eq!(share(&ledger, "i-1").instance_id.as_deref(), Some("i-4"));
    let facts = InstanceFacts::default();
    let plan = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(plan.call, end("i-1", true));
    let mut ledger = plan.ledger;
    accepted(&mut ledger, &plan.call.expect("a call"));
    assert!(!share(&ledger, "i-1").is_raised() && ledger.reduction.is_none());
}

#[test]
fn at_the_minimum_an_instance_is_ended_without_decrement() {
    let (ledger, mut view) = served();
    view.spot.min = 4;
    let facts = InstanceFacts::default();
    let plan = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(plan.call, end("i-1", false));
}

#[test]
fn an_end_without_effect_is_planned_anew_and_one_with_effect_is_not_repeated() {
    let (ledger, mut view) = served();
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    let again =
        plan(&ending.ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(again.call, end("i-1", true));
    assert_eq!(next(&ending.ledger, &view, &spot("i-1")).call, None, "nobody wants it any more");
    view.spot.desired = 3;
    view.spot.instances[0].lifecycle = Lifecycle::Leaving;
    let resumed =
        plan(&ending.ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(resumed.call, None);
    assert!(!share(&resumed.ledger, "i-1").is_raised());
}

#[test]
fn when_aws_was_faster_the_idle_newcomer_goes_and_a_busy_one_does_not() {
    let (ledger, mut view) = served();
    view.spot.instances.remove(0);
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::InService);
    let mut facts = InstanceFacts::default();
    facts.taken.insert("i-4".into());
    let settled =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(settled.call, end("i-5", true));
    let mut taking_pods = facts.clone();
    taking_pods.schedulable.insert("i-5".into());
    let cordoned =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &taking_pods, &Deferred::default(), now());
    assert_eq!(
        (cordoned.call, cordoned.cordon),
        (None, taking_pods.schedulable),
        "its node is cordoned first"
    );
    facts.with_pods.insert("i-5".into());
    let kept = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, BTreeSet::new()));
}

#[test]
fn desired_is_lowered_only_if_fewer_are_there_and_nobody_waits_for_them() {
    let (ledger, mut view) = served();
    view.spot.instances.remove(0);
    let facts = InstanceFacts::default();
    out_of_capacity(&mut view.spot, 1);
    let settled =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(settled.call, set(GroupKind::Spot, 3));
    // The group has replaced the old one, and what is missing now is what another story waits for.
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::InService);
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", instance())]);
    let asked = next(&ledger, &view, &both);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 5;
    let mut facts = InstanceFacts::default();
    facts.with_pods.insert("i-5".into());
    let plan = plan(&ledger, &view, &both, &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(plan.call, None, "{:?}", plan.ledger);
}

#[test]
fn desired_is_lowered_without_an_instance_only_while_the_group_launches_nothing() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let nothing = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    let lowered = |change: &dyn Fn(&mut GroupView), waited: i64| {
        let mut view = usual();
        view.spot.desired = 4;
        change(&mut view.spot);
        let later = now() + SignedDuration::from_secs(waited);
        let facts = InstanceFacts::default();
        let found =
            plan(&ledger, &view, &nothing, &BTreeSet::new(), &facts, &Deferred::default(), later).call;
        assert!(found.is_none() || found == set(GroupKind::Spot, 3), "{found:?}");
        found.is_some()
    };
    let in_one_zone = |group: &mut GroupView| group.failures = vec![failure(0, FailureClass::Capacity)];
    assert!(!lowered(&|_| (), 0), "nothing is known of its launch yet");
    assert!(!lowered(&|_| (), 3600), "nor ever");
    assert!(!lowered(&in_one_zone, 1), "it tries the other zone");
    assert!(lowered(&|group| out_of_capacity(group, 0), 1));
    assert!(lowered(&|group| out_of_capacity(group, 0), 20));
    assert!(!lowered(&|group| out_of_capacity(group, 0), 21), "the next launch may have begun");
    let launches_again = |group: &mut GroupView| {
        out_of_capacity(group, 0);
        group.unlisted_launches = 1;
    };
    assert!(!lowered(&launches_again, 1), "the next launch has begun");
    let suspended = |group: &mut GroupView| {
        group.setup.suspended.insert("Launch".to_owned(), "User suspended at noon".to_owned());
    };
    assert!(lowered(&suspended, 3600));
}

#[test]
fn a_late_winner_sends_the_on_demand_share_back() {
    let mut view = usual();
    view.on_demand.desired = 1;
    add(&mut view, GroupKind::OnDemand, "i-9", Lifecycle::Pending);
    let on_demand = wants([(GroupKind::OnDemand, "i-1", instance())]);
    let asked =
        next(&Ledger::default(), &PoolView { on_demand: group("on-demand", 0, &[]), ..usual() }, &on_demand);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let ledger = next(&ledger, &view, &on_demand).ledger;
    let nothing = wants([(GroupKind::OnDemand, "i-1", Want::Nothing)]);
    let back = Call::Terminate { group: GroupKind::OnDemand, instance_id: "i-9".into(), decrement: true };
    assert_eq!(next(&ledger, &view, &nothing).call, Some(back.clone()));
    let with_pods = InstanceFacts { with_pods: ["i-9".into()].into(), ..InstanceFacts::default() };
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &with_pods, &Deferred::default(), now());
    assert_eq!(kept.call, None, "what runs pods is not ended");
    let schedulable: BTreeSet<InstanceId> = ["i-9".into()].into();
    let taking_pods = InstanceFacts { schedulable: schedulable.clone(), ..InstanceFacts::default() };
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &taking_pods, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, schedulable), "its node is cordoned first");
    for (joined, call) in [(1, None), (-1, Some(back))] {
        let troubles = [("i-9".into(), Trouble { why: NodeTrouble::NotJoined, marked: false })].into();
        let unnamed_joined = Some(now() + SignedDuration::from_secs(joined));
        let unseen = InstanceFacts { troubles, unnamed_joined, ..InstanceFacts::default() };
        let plan = plan(&ledger, &view, &nothing, &BTreeSet::new(), &unseen, &Deferred::default(), now());
        assert_eq!(plan.call, call, "a node with pods that names no instance joined {joined} s after it");
    }
    view.on_demand.min = 1;
    let kept = next(&ledger, &view, &nothing);
    assert_eq!(kept.call, None, "at the minimum the group would launch it again, each time");
    assert!(kept.ledger.share(GroupKind::OnDemand, &"i-1".into()).is_some_and(|share| share.is_raised()));
    view.on_demand.min = 0;
    assert_eq!(
        next(&kept.ledger, &view, &nothing).call,
        next(&ledger, &view, &nothing).call,
        "once there is room"
    );
}

#[test]
fn an_on_demand_share_that_went_back_is_asked_for_again() {
    let on_demand = wants([(GroupKind::OnDemand, "i-1", instance())]);
    let asked = next(&Ledger::default(), &usual(), &on_demand);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let mut view = usual();
    view.on_demand.desired += 1;
    out_of_capacity(&mut view.on_demand, 0);
    let back = next(&ledger, &view, &wants([(GroupKind::OnDemand, "i-1", Want::Nothing)]));
    let lower = set(GroupKind::OnDemand, usual().on_demand.desired);
    assert_eq!(back.call, lower);
    // The process dies before it hears the answer, and the story that was cancelled begins anew.
    let anew = wants([(GroupKind::OnDemand, "i-1", of_attempt(1))]);
    let again = next(&back.ledger, &usual(), &anew);
    assert_eq!(again.call, set(GroupKind::OnDemand, usual().on_demand.desired + 1), "{:?}", again.ledger);
}

#[test]
fn a_reduction_is_written_whole_so_that_nothing_of_the_last_one_stays_in_its_place() {
    let reduction = Reduction {
        group: GroupKind::OnDemand,
        group_name: "on-demand".into(),
        instance_id: None,
        settles: None,
        desired_before: 1,
        requested_at: now(),
    };
    let written = serde_json::to_value(reduction).expect("JSON");
    for field in ["group", "groupName", "instanceId", "settles", "desiredBefore", "requestedAt"] {
        assert!(written.get(field).is_some(), "{field} is left out of {written}");
    }
}

#[test]
fn a_story_that_is_over_leaves_nothing_in_the_ledger() {
    let (mut ledger, mut view) = served();
    ledger.scaling_requests[0].shares[0].balance = Balance::Even;
    view.spot.desired = 3;
    let done = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    assert_eq!(next(&ledger, &view, &done), Plan::default());
}

#[test]
fn a_debt_that_is_left_over_is_given_back_to_the_group() {
    let (mut ledger, mut view) = served();
    let share = &mut ledger.scaling_requests[0].shares[0];
    (share.balance, share.instance_id) = (Balance::OwedByUs, None);
    view.spot.desired = 2;
    view.spot.instances.truncate(2);
    // Seed 964: its instance came for somebody else and went with a decrement; then it was cancelled.
    let cancelled = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    assert!(view.spot.is_active(&"i-1".into()), "the old instance stays");
    assert_eq!(next(&ledger, &view, &cancelled).call, set(GroupKind::Spot, 3));
    let done = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    let plan = next(&ledger, &view, &done);
    assert_eq!(plan.call, set(GroupKind::Spot, 3));
    let mut ledger = plan.ledger;
    accepted(&mut ledger, &plan.call.expect("a call"));
    view.spot.desired = 3;
    assert_eq!(next(&ledger, &view, &done).ledger, Ledger::default());
}
