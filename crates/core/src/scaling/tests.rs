use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn group(name: &str, desired: i32, instances: &[(&str, Lifecycle)]) -> GroupView {
    GroupView {
        name: name.to_owned(),
        desired,
        min: 0,
        max: 5,
        zones: vec!["a".to_owned(), "b".to_owned()],
        can_launch: false,
        setup: crate::preflight::GroupSetup::default(),
        instances: instances
            .iter()
            .map(|(id, lifecycle)| Instance {
                id: (*id).to_owned(),
                zone: "a".to_owned(),
                lifecycle: *lifecycle,
            })
            .collect(),
        failures: Vec::new(),
        observed_at: now(),
    }
}

/// Three Spot instances in service, `i-1` to `i-3`; nothing on demand.
fn usual() -> PoolView {
    use Lifecycle::InService;
    let spot = [("i-1", InService), ("i-2", InService), ("i-3", InService)];
    PoolView { spot: group("spot", 3, &spot), on_demand: group("on-demand", 0, &[]) }
}

fn add(view: &mut PoolView, kind: GroupKind, id: &str, lifecycle: Lifecycle) {
    let group = match kind {
        GroupKind::Spot => &mut view.spot,
        GroupKind::OnDemand => &mut view.on_demand,
    };
    group.instances.push(Instance { id: id.to_owned(), zone: "a".to_owned(), lifecycle });
}

fn instance() -> Want {
    Want::Instance { attempt: 0, deadline: None, stood_in_for: false, zone: None, gone: false }
}

fn wants<const N: usize>(all: [(GroupKind, &str, Want); N]) -> Wants {
    all.into_iter().map(|(kind, name, want)| ((kind, name.to_owned()), want)).collect()
}

fn spot(name: &str) -> Wants {
    wants([(GroupKind::Spot, name, instance())])
}

fn next(ledger: &Ledger, view: &PoolView, wants: &Wants) -> Plan {
    plan(ledger, view, wants, &BTreeSet::new(), &InstanceFacts::default(), &Deferred::default(), now())
}

fn set(group: GroupKind, desired: i32) -> Option<Call> {
    Some(Call::SetDesired { group, desired })
}

fn end(id: &str, decrement: bool) -> Option<Call> {
    Some(Call::Terminate { group: GroupKind::Spot, instance_id: id.to_owned(), decrement })
}

fn ends(id: &str, replacement: &str) -> BTreeSet<End> {
    let (instance_id, replacement) = (id.to_owned(), replacement.to_owned());
    [End { group: GroupKind::Spot, instance_id, replacement, pressed: false }].into()
}

/// The ledger and the view after one more was asked for `i-1` and brought `i-4`.
fn served() -> (Ledger, PoolView) {
    let mut view = usual();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::InService);
    (next(&ledger, &view, &spot("i-1")).ledger, view)
}

fn share(ledger: &Ledger, replacement: &str) -> Share {
    ledger.share(GroupKind::Spot, replacement).expect("a share").clone()
}

#[test]
fn concurrent_stories_become_one_written_request() {
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", instance())]);
    let plan = next(&Ledger::default(), &usual(), &both);
    assert_eq!(plan.call, set(GroupKind::Spot, 5));
    let [request] = &plan.ledger.scaling_requests[..] else { panic!("{:?}", plan.ledger) };
    assert_eq!((request.baseline, request.target, request.state), (3, 5, RequestState::Intended));
    assert!(request.shares.iter().all(|share| !share.is_raised()), "nothing is ours before the call");
}

#[test]
fn a_call_that_was_not_made_is_made_from_a_fresh_reading() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut view = usual();
    view.spot.desired = 4; // Somebody else raised it: theirs stays, and ours comes on top.
    view.spot.instances.clear();
    let before = next(&asked.ledger, &usual(), &spot("i-1"));
    assert_eq!(before.call, asked.call);
    // Not to be told from our own call with a lost answer.
    assert_eq!(next(&asked.ledger, &view, &spot("i-1")).call, None);
}

#[test]
fn a_call_whose_answer_was_lost_is_not_made_again() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut view = usual();
    view.spot.desired = 4;
    let resumed = next(&asked.ledger, &view, &spot("i-1"));
    assert_eq!(resumed.call, None);
    assert!(share(&resumed.ledger, "i-1").is_raised());
}

#[test]
fn beyond_the_maximum_a_story_is_refused_at_once_and_the_most_urgent_goes_first() {
    let mut view = usual();
    view.spot.max = 4;
    let urgent =
        Want::Instance { attempt: 0, deadline: Some(now()), stood_in_for: false, zone: None, gone: false };
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", urgent)]);
    let plan = next(&Ledger::default(), &view, &both);
    assert_eq!(plan.call, set(GroupKind::Spot, 4));
    assert_eq!(share(&plan.ledger, "i-2").failure, None);
    assert_eq!(share(&plan.ledger, "i-1").failure.map(|f| f.class), Some(FailureClass::Capacity));
}

#[test]
fn what_was_refused_is_asked_again_in_the_next_attempt_only() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut ledger = asked.ledger;
    refused(&mut ledger, GroupKind::Spot, FailureClass::Configuration, "no", now());
    assert_eq!(share(&ledger, "i-1").failure.map(|f| f.class), Some(FailureClass::Configuration));
    assert_eq!(next(&ledger, &usual(), &spot("i-1")).call, None);
    let again = Want::Instance { attempt: 1, deadline: None, stood_in_for: false, zone: None, gone: false };
    let plan = next(&ledger, &usual(), &wants([(GroupKind::Spot, "i-1", again)]));
    assert_eq!(plan.call, set(GroupKind::Spot, 4));
}

#[test]
fn an_open_plus_one_serves_the_next_attempt() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let mut view = usual();
    view.spot.desired = 4;
    view.spot.failures = vec![failed(0, FailureClass::Capacity)];
    let failed = next(&ledger, &view, &spot("i-1"));
    assert!(share(&failed.ledger, "i-1").failure.is_some());
    let again = Want::Instance { attempt: 1, deadline: None, stood_in_for: false, zone: None, gone: false };
    view.spot.failures.clear();
    let plan = next(&failed.ledger, &view, &wants([(GroupKind::Spot, "i-1", again)]));
    assert_eq!(plan.call, None, "never another +1");
    assert_eq!(share(&plan.ledger, "i-1").failure, None);
}

fn failed(seconds_ago: i64, class: FailureClass) -> FailedActivity {
    let started_at = now() - SignedDuration::from_secs(seconds_ago);
    FailedActivity { started_at, class, message: "text".to_owned() }
}

#[test]
fn only_failures_since_the_request_count_and_throttling_never() {
    let rows = [
        (0, FailureClass::Capacity, true),
        (2, FailureClass::Capacity, true),
        (3, FailureClass::Capacity, false),
        (0, FailureClass::Unknown, true),
        (0, FailureClass::Throttle, false),
    ];
    for (ago, class, counts) in rows {
        let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
        let mut ledger = asked.ledger;
        accepted(&mut ledger, &asked.call.expect("a call"));
        let mut view = usual();
        view.spot.desired = 4;
        view.spot.failures = vec![failed(ago, class)];
        let plan = next(&ledger, &view, &spot("i-1"));
        assert_eq!(share(&plan.ledger, "i-1").failure.is_some(), counts, "{ago} s ago, {class:?}");
    }
}

#[test]
fn a_new_instance_goes_to_the_most_urgent_story_and_never_to_a_second_one() {
    let urgent =
        Want::Instance { attempt: 0, deadline: Some(now()), stood_in_for: false, zone: None, gone: false };
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", urgent)]);
    let asked = next(&Ledger::default(), &usual(), &both);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let mut view = usual();
    view.spot.desired = 5;
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let ledger = next(&ledger, &view, &both).ledger;
    assert_eq!(share(&ledger, "i-2").instance_id.as_deref(), Some("i-4"));
    assert_eq!(share(&ledger, "i-1").instance_id, None);
}

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
fn an_instance_is_busy_while_pods_run_or_end_on_its_node_and_schedulable_until_that_is_cordoned() {
    use crate::cluster::{Node, Pod};
    use crate::testing::{cluster, node, pod};
    let cordoned = Node { unschedulable: true, ..node("1") };
    let ending = Pod { deletion: Some(now() + std::time::Duration::from_secs(20)), ..pod("web-2", "2", 1) };
    let cluster = cluster(vec![cordoned, node("2")], vec![pod("web-1", "1", 1), ending]);
    let mut facts = InstanceFacts::default();
    facts.found_empty.insert("i-1".to_owned(), now());
    facts.look_at(&usual(), &cluster, &Freshness::default(), now());
    assert_eq!(facts.with_pods, ["i-1", "i-2"].map(str::to_owned).into());
    assert_eq!(facts.schedulable, ["i-2".to_owned()].into(), "and i-3 has no node yet");
}

#[test]
fn an_instance_that_two_nodes_say_they_run_on_counts_as_busy() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node};
    let idle = |name: &str| Node { unschedulable: true, provider_id: "aws:///a/i-1".into(), ..node(name) };
    for (nodes, busy) in [(vec![idle("1")], 0), (vec![idle("1"), idle("e")], 1)] {
        let mut facts = InstanceFacts::default();
        facts.look_at(&usual(), &cluster(nodes, vec![]), &Freshness::default(), now());
        assert_eq!(facts.with_pods.len(), busy);
    }
}

#[test]
fn when_aws_was_faster_the_idle_newcomer_goes_and_a_busy_one_does_not() {
    let (ledger, mut view) = served();
    view.spot.instances.remove(0);
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::InService);
    let mut facts = InstanceFacts::default();
    facts.taken.insert("i-4".to_owned());
    let settled =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(settled.call, end("i-5", true));
    let mut taking_pods = facts.clone();
    taking_pods.schedulable.insert("i-5".to_owned());
    let cordoned =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &taking_pods, &Deferred::default(), now());
    assert_eq!(
        (cordoned.call, cordoned.cordon),
        (None, taking_pods.schedulable),
        "its node is cordoned first"
    );
    facts.with_pods.insert("i-5".to_owned());
    let kept = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, BTreeSet::new()));
}

#[test]
fn desired_is_lowered_only_if_fewer_are_there_and_nobody_waits_for_them() {
    let (ledger, mut view) = served();
    view.spot.instances.remove(0);
    let facts = InstanceFacts::default();
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
    facts.with_pods.insert("i-5".to_owned());
    let plan = plan(&ledger, &view, &both, &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(plan.call, None, "{:?}", plan.ledger);
}

#[test]
fn on_an_old_picture_nothing_is_ended_but_at_its_deadline() {
    let (ledger, view) = served();
    let stale = InstanceFacts { stale: true, ..InstanceFacts::default() };
    let waits = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &stale, &Deferred::default(), now());
    assert_eq!(waits.call, None);
    let pressed = ends("i-1", "i-1").into_iter().map(|end| End { pressed: true, ..end }).collect();
    let ended = plan(&ledger, &view, &spot("i-1"), &pressed, &stale, &Deferred::default(), now());
    assert_eq!(ended.call, end("i-1", true));
    // What nobody wants any more is idle by this picture only.
    let nothing = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &stale, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, BTreeSet::new()));
    let current = InstanceFacts::default();
    let back = plan(&ledger, &view, &nothing, &BTreeSet::new(), &current, &Deferred::default(), now());
    assert_eq!(back.call, end("i-4", true));
}

#[test]
fn a_cordoned_node_is_idle_only_for_a_while_after_it_was_listed_as_empty() {
    use crate::cluster::Node;
    use crate::testing::{cluster, node};
    let cluster = cluster(vec![Node { unschedulable: true, ..node("1") }], vec![]);
    let schedulable = |found_empty: &[Timestamp], freshness: &Freshness| {
        let found_empty = found_empty.iter().map(|at| ("i-1".to_owned(), *at)).collect();
        let mut facts = InstanceFacts { found_empty, ..InstanceFacts::default() };
        facts.look_at(&usual(), &cluster, freshness, now());
        (!facts.schedulable.is_empty(), facts.stale)
    };
    let current = Freshness::default();
    let ago = |seconds| now() - Duration::from_secs(seconds);
    assert_eq!(schedulable(&[], &current), (true, false));
    assert_eq!(schedulable(&[ago(60)], &current), (true, false));
    assert_eq!(schedulable(&[ago(59)], &current), (false, false));
    let kind = crate::freshness::WatchedKind::Pod;
    let old = Freshness { stale: vec![crate::freshness::StaleWatch { kind, since: ago(5) }] };
    assert_eq!(schedulable(&[ago(59)], &old), (false, true));
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
    let back = Call::Terminate { group: GroupKind::OnDemand, instance_id: "i-9".to_owned(), decrement: true };
    assert_eq!(next(&ledger, &view, &nothing).call, Some(back));
    let busy = InstanceFacts { with_pods: ["i-9".to_owned()].into(), ..InstanceFacts::default() };
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &busy, &Deferred::default(), now());
    assert_eq!(kept.call, None, "what runs pods is not ended");
    let schedulable: BTreeSet<String> = ["i-9".to_owned()].into();
    let taking_pods = InstanceFacts { schedulable: schedulable.clone(), ..InstanceFacts::default() };
    let kept = plan(&ledger, &view, &nothing, &BTreeSet::new(), &taking_pods, &Deferred::default(), now());
    assert_eq!((kept.call, kept.cordon), (None, schedulable), "its node is cordoned first");
    view.on_demand.min = 1;
    let kept = next(&ledger, &view, &nothing);
    assert_eq!(kept.call, None, "at the minimum the group would launch it again, each time");
    assert!(kept.ledger.share(GroupKind::OnDemand, "i-1").is_some_and(|share| share.is_raised()));
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
    let back = next(&ledger, &view, &wants([(GroupKind::OnDemand, "i-1", Want::Nothing)]));
    let lower = set(GroupKind::OnDemand, usual().on_demand.desired);
    assert_eq!(back.call, lower);
    // The process dies before it hears the answer, and the story that was cancelled begins anew.
    let again = next(&back.ledger, &usual(), &on_demand);
    assert_eq!(again.call, set(GroupKind::OnDemand, usual().on_demand.desired + 1), "{:?}", again.ledger);
}

#[test]
fn a_share_that_goes_back_claims_nothing_more() {
    let mut view = usual();
    let on_demand = wants([(GroupKind::OnDemand, "i-1", instance())]);
    let asked = next(&Ledger::default(), &view, &on_demand);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    ledger.scaling_requests[0].shares[0].balance = Balance::Even;
    view.on_demand.desired = 1;
    add(&mut view, GroupKind::OnDemand, "theirs", Lifecycle::InService);
    let nothing = wants([(GroupKind::OnDemand, "i-1", Want::Nothing)]);
    let plan = next(&ledger, &view, &nothing);
    assert_eq!((plan.call, plan.ledger), (None, Ledger::default()));
}

#[test]
fn an_instance_whose_plus_one_is_settled_belongs_to_the_group_and_is_not_ended() {
    let (mut ledger, mut view) = served();
    ledger.scaling_requests[0].shares[0].balance = Balance::Even;
    view.spot.desired = 3;
    view.spot.instances.remove(0);
    let nothing = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    assert_eq!(next(&ledger, &view, &nothing), Plan::default());
}

#[test]
fn a_reduction_is_written_whole_so_that_nothing_of_the_last_one_stays_in_its_place() {
    let reduction = Reduction {
        group: GroupKind::OnDemand,
        instance_id: None,
        settles: None,
        baseline: 1,
        requested_at: now(),
    };
    let written = serde_json::to_value(reduction).expect("JSON");
    for field in ["group", "instanceId", "settles", "baseline", "requestedAt"] {
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
fn an_instance_that_the_group_replaces_by_itself_is_not_asked_for() {
    let mut view = usual();
    view.spot.instances.remove(0);
    let gone = Want::Instance { attempt: 0, deadline: None, stood_in_for: false, zone: None, gone: true };
    let gone = wants([(GroupKind::Spot, "i-1", gone)]);
    let plan = next(&Ledger::default(), &view, &gone);
    assert_eq!(plan.call, None);
    assert_eq!(share(&plan.ledger, "i-1").balance, Balance::OwedByGroup);
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let ledger = next(&plan.ledger, &view, &gone).ledger;
    assert_eq!(share(&ledger, "i-1").instance_id.as_deref(), Some("i-4"));
}

#[test]
fn a_debt_that_is_left_over_is_given_back_to_the_group() {
    let (mut ledger, mut view) = served();
    let share = &mut ledger.scaling_requests[0].shares[0];
    (share.balance, share.instance_id) = (Balance::OwedByUs, None);
    view.spot.desired = 2;
    view.spot.instances.truncate(2);
    let done = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    let plan = next(&ledger, &view, &done);
    assert_eq!(plan.call, set(GroupKind::Spot, 3));
    let mut ledger = plan.ledger;
    accepted(&mut ledger, &plan.call.expect("a call"));
    view.spot.desired = 3;
    assert_eq!(next(&ledger, &view, &done).ledger, Ledger::default());
}

/// The pool with groups that LaunchInstances can be used on.
fn launching() -> PoolView {
    let mut view = usual();
    (view.spot.can_launch, view.on_demand.can_launch) = (true, true);
    view
}

fn zone_of(call: Option<&Call>) -> Option<(&str, &str)> {
    match call {
        Some(Call::Launch { zone, token, .. }) => Some((zone, token)),
        _ => None,
    }
}

#[test]
fn launch_instances_walks_the_zones_with_a_token_for_each() {
    let wanted = Want::Instance {
        attempt: 0,
        deadline: None,
        stood_in_for: false,
        zone: Some("b".to_owned()),
        gone: false,
    };
    let wanted = wants([(GroupKind::Spot, "i-1", wanted)]);
    let first = next(&Ledger::default(), &launching(), &wanted);
    let (zone, token) = zone_of(first.call.as_ref()).expect("a launch");
    assert_eq!(zone, "b", "the volumes' zone first");
    let repeated = next(&first.ledger, &launching(), &wanted);
    assert_eq!(repeated.call, first.call, "the same token: AWS answers as before");
    let mut ledger = first.ledger.clone();
    launched(&mut ledger, GroupKind::Spot, Vec::new(), &[(FailureClass::Capacity, "dry".into())], now());
    assert_eq!(share(&ledger, "i-1").failure, None, "there is another zone");
    let second = next(&ledger, &launching(), &wanted);
    let (other_zone, other_token) = zone_of(second.call.as_ref()).expect("a launch");
    assert_eq!(other_zone, "a");
    assert_ne!(token, other_token);
    let mut ledger = second.ledger;
    launched(&mut ledger, GroupKind::Spot, Vec::new(), &[(FailureClass::Capacity, "dry".into())], now());
    assert_eq!(share(&ledger, "i-1").failure.map(|f| f.class), Some(FailureClass::Capacity));
    assert!(!share(&next(&ledger, &launching(), &wanted).ledger, "i-1").is_raised(), "nothing was changed");
}

#[test]
fn a_token_that_aws_may_have_forgotten_is_not_used_again_and_what_came_by_it_is_adopted() {
    let asked = next(&Ledger::default(), &launching(), &spot("i-1"));
    assert!(asked.call.is_some());
    let facts = InstanceFacts::default();
    let at = |view: &PoolView, hours| {
        let then = now() + SignedDuration::from_hours(hours);
        plan(&asked.ledger, view, &spot("i-1"), &BTreeSet::new(), &facts, &Deferred::default(), then)
    };
    assert_eq!(at(&launching(), 6).call, asked.call, "AWS still answers as it did");
    let late = at(&launching(), 8);
    assert_eq!(late.call, None, "it would launch again");
    assert_eq!(share(&late.ledger, "i-1").failure.map(|f| f.class), Some(FailureClass::Unknown));
    let mut view = launching();
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::InService);
    view.spot.desired = 4;
    assert_eq!(share(&at(&view, 8).ledger, "i-1").instance_id.as_deref(), Some("i-4"));
}

#[test]
fn desired_is_made_to_count_what_was_launched_if_aws_did_not_see_to_it() {
    for raised in [true, false] {
        let asked = next(&Ledger::default(), &launching(), &spot("i-1"));
        let mut ledger = asked.ledger;
        launched(&mut ledger, GroupKind::Spot, vec!["i-4".to_owned()], &[], now());
        let mut view = launching();
        add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
        view.spot.desired = if raised { 4 } else { 3 };
        let plan = next(&ledger, &view, &spot("i-1"));
        assert_eq!(plan.call, if raised { None } else { set(GroupKind::Spot, 4) });
        let mut ledger = plan.ledger;
        if let Some(call) = &plan.call {
            accepted(&mut ledger, call);
        }
        assert!(share(&ledger, "i-1").is_raised());
    }
}

#[test]
fn a_debt_in_the_record_is_paid_by_a_request_of_ours_alone() {
    let mut view = launching();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    for _ in 0..2 {
        launched(&mut ledger, GroupKind::Spot, Vec::new(), &[(FailureClass::Capacity, "dry".into())], now());
    }
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(ending.call, end("i-1", true), "what is owed moves out of the group");
    let mut ledger = ending.ledger;
    accepted(&mut ledger, &ending.call.expect("a call"));
    assert_eq!(share(&ledger, "i-1").balance, Balance::OwedByUs);
    view.spot.desired = 2;
    view.spot.instances.remove(0);
    add(&mut view, GroupKind::Spot, "theirs", Lifecycle::InService);
    assert_eq!(share(&next(&ledger, &view, &spot("i-1")).ledger, "i-1").instance_id, None);
}

/// A ledger in which `i-1` has asked Spot and `i-2` on-demand, neither answered yet.
fn both_asked() -> (Ledger, PoolView, Wants) {
    let wants = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::OnDemand, "i-2", instance())]);
    (next(&Ledger::default(), &usual(), &wants).ledger, usual(), wants)
}

#[test]
fn a_group_that_is_busy_does_not_hold_up_the_other() {
    let (mut ledger, view, wants) = both_asked();
    let mut deferred = Deferred::default();
    deferred.add(&mut ledger, &Call::SetDesired { group: GroupKind::Spot, desired: 4 });
    let plan = plan(&ledger, &view, &wants, &BTreeSet::new(), &InstanceFacts::default(), &deferred, now());
    assert_eq!(plan.call, set(GroupKind::OnDemand, 1));
    let spot = plan.ledger.scaling_requests.iter().filter(|request| request.group == GroupKind::Spot);
    assert_eq!(
        spot.map(|request| request.state).collect::<Vec<_>>(),
        [RequestState::Intended],
        "kept as it is"
    );
}

#[test]
fn an_ending_that_is_busy_does_not_hold_up_the_next() {
    let both: BTreeSet<End> = ends("i-1", "i-1").into_iter().chain(ends("i-2", "i-2")).collect();
    let facts = InstanceFacts::default();
    let first = plan(&Ledger::default(), &usual(), &Wants::new(), &both, &facts, &Deferred::default(), now());
    assert_eq!(first.call, end("i-1", false));
    let (mut ledger, mut deferred) = (first.ledger, Deferred::default());
    deferred.add(&mut ledger, &first.call.expect("a call"));
    assert_eq!(ledger.reduction, None, "nothing changed");
    let second = plan(&ledger, &usual(), &Wants::new(), &both, &facts, &deferred, now());
    assert_eq!(second.call, end("i-2", false));
}

#[test]
fn who_cannot_launch_instances_is_asked_otherwise_and_that_is_forgotten_after_a_day() {
    let mut view = usual();
    view.spot.can_launch = true;
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    assert!(matches!(asked.call, Some(Call::Launch { .. })), "{:?}", asked.call);
    for (at_all, remembered) in [(true, true), (false, false)] {
        let mut ledger = asked.ledger.clone();
        launch_refused(&mut ledger, GroupKind::Spot, "no", at_all, now());
        assert_eq!(ledger.cannot_launch(GroupKind::Spot, now()), remembered);
        assert!(!ledger.cannot_launch(GroupKind::OnDemand, now()));
        assert!(!ledger.cannot_launch(GroupKind::Spot, now() + SignedDuration::from_hours(25)));
        assert_eq!(next(&ledger, &view, &spot("i-1")).call, set(GroupKind::Spot, 4), "the request goes on");
    }
}

#[test]
fn a_place_that_somebody_else_took_out_of_desired_is_asked_for_again_after_a_backoff() {
    let mut view = usual();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    let ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert_eq!(ledger.desired_seen, [DesiredSeen { group: GroupKind::Spot, desired: 4 }]);
    view.spot.desired = 3;
    let erased = next(&ledger, &view, &spot("i-1"));
    let share = share(&erased.ledger, "i-1");
    assert!(!share.is_raised(), "{share:?}");
    assert_eq!(share.failure.expect("a failure").class, FailureClass::Capacity);
    assert_eq!(erased.call, None, "not at once: whoever lowered it would do so again");
    let later = wants([(
        GroupKind::Spot,
        "i-1",
        Want::Instance { attempt: 1, deadline: None, stood_in_for: false, zone: None, gone: false },
    )]);
    assert_eq!(next(&erased.ledger, &view, &later).call, set(GroupKind::Spot, 4));
}

#[test]
fn what_was_erased_while_another_instance_stands_in_is_owed_once_the_old_one_goes() {
    let owed = || Want::Instance { attempt: 0, deadline: None, stood_in_for: true, zone: None, gone: false };
    let owed = wants([(GroupKind::Spot, "i-1", owed())]);
    let mut view = usual();
    let asked = next(&Ledger::default(), &view, &owed);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    let ledger = next(&ledger, &view, &owed).ledger;
    view.spot.desired = 3;
    let erased = next(&ledger, &view, &owed).ledger;
    assert_eq!(share(&erased, "i-1").balance, Balance::Even);
    // The old instance takes its place out of desired: the group replaces nothing, and we ask again.
    let ending = plan(
        &erased,
        &view,
        &owed,
        &ends("i-1", "i-1"),
        &InstanceFacts::default(),
        &Deferred::default(),
        now(),
    );
    assert_eq!(ending.call, end("i-1", true));
    let mut ledger = ending.ledger;
    accepted(&mut ledger, &ending.call.expect("a call"));
    assert_eq!(share(&ledger, "i-1").balance, Balance::OwedByUs);
}

#[test]
fn what_others_add_or_take_beside_our_places_erases_nothing() {
    let mut view = usual();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 6;
    let ledger = next(&ledger, &view, &spot("i-1")).ledger;
    // Two of three places that are open went; one is left for ours.
    view.spot.desired = 4;
    assert!(share(&next(&ledger, &view, &spot("i-1")).ledger, "i-1").is_raised());
}

#[test]
fn a_group_whose_launches_are_suspended_fails_at_once_and_for_its_configuration() {
    let mut view = usual();
    view.spot.setup.suspended.insert("Launch".to_owned(), "Administrative suspension".to_owned());
    let refused = next(&Ledger::default(), &view, &spot("i-1"));
    assert_eq!(refused.call, None);
    let failure = share(&refused.ledger, "i-1").failure.expect("a failure");
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("Administrative suspension"), "{}", failure.message);
}

/// The ledger of a new life that finds a request for `i-1`, made or not, makes it, and sees it served.
fn taken_over() -> (Ledger, PoolView) {
    let mut ledger = next(&Ledger::default(), &usual(), &spot("i-1")).ledger;
    ledger.take_over(now());
    let resumed = next(&ledger, &usual(), &spot("i-1"));
    let mut ledger = resumed.ledger;
    accepted(&mut ledger, &resumed.call.expect("the call is made again"));
    let mut view = usual();
    view.spot.desired = 4;
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::InService);
    (next(&ledger, &view, &spot("i-1")).ledger, view)
}

/// The same after the story: `i-1` was ended with its +1, and nothing is open.
fn settled() -> (Ledger, PoolView) {
    let (mut ledger, mut view) = taken_over();
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    ledger = ending.ledger;
    accepted(&mut ledger, &ending.call.expect("it is ended"));
    view.spot.desired = 3;
    view.spot.instances.remove(0);
    let done = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    let ledger = next(&ledger, &view, &done).ledger;
    assert!(ledger.scaling_requests.is_empty() && ledger.doubts.len() == 1, "{ledger:?}");
    (next(&ledger, &view, &Wants::new()).ledger, view)
}

/// What nobody wants any more: the tracker says so of every share that has no record.
fn nobody(ledger: &Ledger) -> Wants {
    let shares = ledger.shares(GroupKind::Spot);
    shares.map(|share| ((GroupKind::Spot, share.replacement.clone()), Want::Done)).collect()
}

#[test]
fn a_call_that_arrives_when_all_is_settled_is_taken_back() {
    let (ledger, mut view) = settled();
    view.spot.desired = 4;
    let found = next(&ledger, &view, &Wants::new()).ledger;
    assert_eq!(found.shares(GroupKind::Spot).filter(|share| share.is_raised()).count(), 1);
    assert!(found.doubts.is_empty(), "it arrives once");
    let back = next(&found, &view, &nobody(&found));
    assert_eq!(back.call, set(GroupKind::Spot, 3), "nothing was launched yet");
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::Pending);
    let with_pods = ["i-2", "i-3", "i-4"].map(str::to_owned).into();
    let facts = InstanceFacts { with_pods, ..InstanceFacts::default() };
    let back = plan(&found, &view, &nobody(&found), &BTreeSet::new(), &facts, &Deferred::default(), now());
    assert_eq!(back.call, end("i-5", true), "or exactly what was launched");
    let mut ledger = back.ledger;
    accepted(&mut ledger, &back.call.expect("a call"));
    view.spot.desired = 3;
    view.spot.instances.pop();
    assert_eq!(next(&ledger, &view, &nobody(&ledger)).ledger, Ledger::default());
}

#[test]
fn a_late_call_that_lowers_what_others_wait_for_is_raised_again() {
    let (ledger, mut view) = taken_over();
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", instance())]);
    let second = next(&ledger, &view, &both);
    assert_eq!(second.call, set(GroupKind::Spot, 5));
    let mut ledger = second.ledger;
    accepted(&mut ledger, &second.call.expect("a call"));
    view.spot.desired = 5;
    let ledger = next(&ledger, &view, &both).ledger;
    view.spot.desired = 4;
    let found = next(&ledger, &view, &both);
    assert_eq!(found.call, set(GroupKind::Spot, 5));
    let mut ledger = found.ledger;
    accepted(&mut ledger, &found.call.expect("a call"));
    view.spot.desired = 5;
    let mut wanted = both.clone();
    wanted.extend(nobody(&ledger).into_iter().filter(|(key, _)| !both.contains_key(key)));
    let ledger = next(&ledger, &view, &wanted).ledger;
    let open: Vec<_> = ledger.shares(GroupKind::Spot).map(|share| share.replacement.as_str()).collect();
    assert_eq!(open, ["i-1", "i-2"], "the repair leaves nothing");
}

#[test]
fn what_others_or_we_change_is_not_taken_for_a_late_call() {
    let shares = |ledger: &Ledger| ledger.shares(GroupKind::Spot).count();
    let (ledger, mut view) = settled();
    view.spot.desired = 5;
    assert_eq!(shares(&next(&ledger, &view, &Wants::new()).ledger), 0, "another number is somebody else's");

    let (ledger, mut view) = settled();
    let asked = next(&ledger, &view, &spot("i-2"));
    assert_eq!(asked.call, set(GroupKind::Spot, 4), "the same number again");
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    assert_eq!(shares(&next(&ledger, &view, &spot("i-2")).ledger), 1, "asked for by ourselves");

    let (ledger, mut view) = taken_over();
    view.spot.desired = 5;
    let ledger = next(&ledger, &view, &spot("i-1")).ledger;
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    view.spot.desired = 4;
    view.spot.instances.remove(0);
    let ledger = next(&ending.ledger, &view, &spot("i-1")).ledger;
    assert_eq!(shares(&ledger), 1, "lowered by ourselves");

    let (ledger, mut view) = settled();
    view.spot.desired = 4;
    let later = now() + SignedDuration::from_mins(16);
    let none = (Wants::new(), BTreeSet::new(), InstanceFacts::default());
    let found = plan(&ledger, &view, &none.0, &none.1, &none.2, &Deferred::default(), later);
    assert_eq!(found.ledger, Ledger::default(), "no call lives so long");
}

#[test]
fn a_call_that_the_first_reading_of_a_new_life_shows_is_in_doubt_no_more() {
    let mut ledger = next(&Ledger::default(), &usual(), &spot("i-1")).ledger;
    ledger.take_over(now());
    let mut view = usual();
    view.spot.desired = 4;
    let ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert!(ledger.doubts.is_empty() && share(&ledger, "i-1").is_raised(), "{ledger:?}");
}

#[test]
fn only_a_new_life_has_doubts_and_only_about_calls_without_a_token() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1")).ledger;
    assert!(next(&asked, &usual(), &spot("i-1")).ledger.doubts.is_empty());
    let mut view = usual();
    view.spot.can_launch = true;
    let mut launching = next(&Ledger::default(), &view, &spot("i-1")).ledger;
    launching.take_over(now());
    assert!(launching.doubts.is_empty(), "the token makes a late LaunchInstances harmless");
    let (mut applied, _) = served();
    applied.take_over(now());
    assert!(applied.doubts.is_empty(), "its answer was seen");
}
