use super::*;
use crate::scaling::calls::Uncertain;

#[test]
fn without_a_deadline_no_absolute_number_comes_from_a_reading_that_is_behind() {
    let (view, none) = (usual(), Ledger::default());
    let mut deferred = Deferred::default();
    deferred.note_uncertain(Uncertain { desired: [GroupKind::Spot].into(), ..Uncertain::default() });
    let calls = |ledger: &Ledger, wants: &Wants| {
        plan(ledger, &view, wants, &BTreeSet::new(), &InstanceFacts::default(), &deferred, now())
    };
    assert_eq!(calls(&none, &spot("i-1")).call, None);
    let of_on_demand = wants([(GroupKind::OnDemand, "i-1", instance())]);
    assert_eq!(calls(&none, &of_on_demand).call, set(GroupKind::OnDemand, 1), "the other group is known");
    let pressed = wants([(GroupKind::Spot, "i-1", urgent())]);
    let asked = calls(&none, &pressed);
    assert_eq!(asked.call, set(GroupKind::Spot, 4), "with a deadline nobody waits");
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let both = wants([(GroupKind::Spot, "i-1", urgent()), (GroupKind::Spot, "i-2", instance())]);
    assert_eq!(calls(&ledger, &both).call, None, "what has a deadline is requested already");
}

#[test]
fn concurrent_stories_become_one_written_request() {
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", instance())]);
    let plan = next(&Ledger::default(), &usual(), &both);
    assert_eq!(plan.call, set(GroupKind::Spot, 5));
    let [request] = &plan.ledger.scaling_requests[..] else { panic!("{:?}", plan.ledger) };
    assert_eq!((request.desired_before, request.target, request.state), (3, 5, RequestState::Intended));
    assert!(request.shares.iter().all(|share| !share.is_raised()), "nothing is ours before the call");
}

#[test]
fn beyond_the_maximum_a_story_is_refused_at_once_and_the_most_urgent_goes_first() {
    let mut view = usual();
    view.spot.max = 4;
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", urgent())]);
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
    let plan = next(&ledger, &usual(), &wants([(GroupKind::Spot, "i-1", of_attempt(1))]));
    assert_eq!(plan.call, set(GroupKind::Spot, 4));
}

#[test]
fn an_open_plus_one_serves_the_next_attempt() {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let mut view = usual();
    view.spot.desired = 4;
    view.spot.zones.truncate(1);
    view.spot.failures = vec![failure(0, FailureClass::Capacity)];
    let failed = next(&ledger, &view, &spot("i-1"));
    assert!(share(&failed.ledger, "i-1").failure.is_some());
    view.spot.failures.clear();
    let plan = next(&failed.ledger, &view, &wants([(GroupKind::Spot, "i-1", of_attempt(1))]));
    assert_eq!(plan.call, None, "never another +1");
    assert_eq!(share(&plan.ledger, "i-1").failure, None);
}

#[test]
fn an_instance_that_the_group_replaces_by_itself_is_not_asked_for() {
    let mut view = usual();
    view.spot.instances.remove(0);
    let gone = Want::Instance {
        attempt: 0,
        deadline: None,
        stood_in_for: false,
        zone: None,
        gone: true,
        join_timeout: JOIN_TIMEOUT,
    };
    let gone = wants([(GroupKind::Spot, "i-1", gone)]);
    let plan = next(&Ledger::default(), &view, &gone);
    assert_eq!(plan.call, None);
    assert_eq!(share(&plan.ledger, "i-1").balance, Balance::OwedByGroup);
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let ledger = next(&plan.ledger, &view, &gone).ledger;
    assert_eq!(share(&ledger, "i-1").instance_id.as_deref(), Some("i-4"));
}

#[test]
fn launch_instances_walks_the_zones_with_a_token_for_each() {
    let wanted = Want::Instance {
        attempt: 0,
        deadline: None,
        stood_in_for: false,
        zone: Some("b".to_owned()),
        gone: false,
        join_timeout: JOIN_TIMEOUT,
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

#[test]
fn zones_are_asked_in_the_order_of_volumes_interruptions_own_zone_and_crowd() {
    // Two nodes in a, one in b, none in c; `i-1` is in a, `i-3` in b.
    let mut view = launching();
    view.spot.zones = ["a", "b", "c"].map(str::to_owned).to_vec();
    view.on_demand.zones = view.spot.zones.clone();
    view.spot.instances[2].zone = "b".to_owned();
    let zones = |plan: &Plan| match &plan.ledger.scaling_requests[0].method {
        Method::LaunchInstances { zones } => zones.concat(),
        Method::SetDesiredCapacity {} => String::new(),
    };
    for (kind, name, volume, interrupted, expected) in [
        (GroupKind::Spot, "i-1", None, vec![], "acb"),
        (GroupKind::Spot, "i-3", None, vec![], "bca"),
        (GroupKind::Spot, "i-1", Some("b"), vec![], "bac"),
        (GroupKind::Spot, "i-1", None, vec!["a"], "cba"),
        (GroupKind::Spot, "i-1", Some("a"), vec!["a"], "acb"),
        (GroupKind::Spot, "i-3", None, vec!["a"], "bca"),
        (GroupKind::Spot, "i-1", None, vec!["a", "b"], "cab"),
        (GroupKind::OnDemand, "i-1", None, vec!["a"], "abc"),
    ] {
        let zone = volume.map(str::to_owned);
        let want = Want::Instance {
            attempt: 0,
            deadline: None,
            stood_in_for: false,
            zone,
            gone: false,
            join_timeout: JOIN_TIMEOUT,
        };
        let interrupted_zones: BTreeSet<_> = interrupted.into_iter().map(Into::into).collect();
        let facts = InstanceFacts { interrupted_zones, ..InstanceFacts::default() };
        let wanted = wants([(kind, name, want)]);
        let none = (BTreeSet::new(), Deferred::default());
        let plan = plan(&Ledger::default(), &view, &wanted, &none.0, &facts, &none.1, now());
        assert_eq!(zones(&plan), expected, "{kind} {name} {volume:?} {:?}", facts.interrupted_zones);
    }
}

#[test]
fn the_most_urgent_replacement_says_which_zone_is_asked_first() {
    let mut view = launching();
    view.spot.instances[1].zone = "b".to_owned();
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", urgent())]);
    let first = next(&Ledger::default(), &view, &both);
    assert_eq!(zone_of(first.call.as_ref()).map(|(zone, _)| zone), Some("b"));
    let mut ledger = first.ledger;
    launched(&mut ledger, GroupKind::Spot, vec!["i-4".into()], &[], now());
    view.spot.desired = 4;
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let second = next(&ledger, &view, &both);
    assert_eq!(
        zone_of(second.call.as_ref()).map(|(zone, _)| zone),
        Some("a"),
        "the other one in the next call"
    );
}

/// A Spot group over three zones that AWS evens out: two instances in `a`, one in `b`, none in `c`.
fn evened_out() -> PoolView {
    let mut view = launching();
    view.spot.zones = ["a", "b", "c"].map(str::to_owned).to_vec();
    view.spot.instances[2].zone = "b".to_owned();
    view.spot.setup.suspended.clear();
    view
}

fn suspended_az_rebalance(mut view: PoolView) -> PoolView {
    view.spot.setup.suspended.insert("AZRebalance".to_owned(), "User suspended".to_owned());
    view
}

fn zones_asked(view: &PoolView, deadline: Option<Timestamp>, volumes: Option<&str>) -> Vec<String> {
    let zone = volumes.map(str::to_owned);
    let join_timeout = JOIN_TIMEOUT;
    let want = Want::Instance { attempt: 0, deadline, stood_in_for: false, zone, gone: false, join_timeout };
    let plan = next(&Ledger::default(), view, &wants([(GroupKind::Spot, "i-1", want)]));
    let Some(Method::LaunchInstances { zones }) =
        plan.ledger.scaling_requests.first().map(|request| request.method.clone())
    else {
        panic!("{:?}", plan.ledger)
    };
    zones
}

#[test]
fn in_a_group_that_evens_out_its_zones_the_emptiest_alone_are_asked() {
    let view = evened_out();
    assert_eq!(zones_asked(&view, None, None), ["c"]);
    assert_eq!(zones_asked(&view, None, Some("a")), ["a", "c"], "volumes leave no choice");
    assert_eq!(zones_asked(&view, Some(now()), None).len(), 3, "a deadline leaves no choice");
    assert_eq!(zones_asked(&suspended_az_rebalance(view), None, None).len(), 3);
}

#[test]
fn of_the_zones_that_are_evened_out_one_whose_node_was_of_no_use_gives_way_to_the_next_emptiest() {
    use crate::scaling::even_zones::permitted;
    let view = evened_out();
    let asked = |avoided: &[&str]| {
        let (deadline, zone, join_timeout) = (None, None, JOIN_TIMEOUT);
        let want =
            Want::Instance { attempt: 0, deadline, stood_in_for: false, zone, gone: false, join_timeout };
        permitted(&view.spot, &want, view.spot.zones.clone(), avoided)
    };
    assert_eq!(asked(&[]), ["c"]);
    assert_eq!(asked(&["c"]), ["b"]);
    assert_eq!(asked(&["c", "b"]), ["a"]);
    assert_eq!(asked(&["c", "b", "a"]), ["c"], "all have been tried");
}

#[test]
fn the_emptiest_zone_out_of_capacity_is_not_the_market_the_group_itself_is_asked_once() {
    let no_capacity = [(FailureClass::Capacity, "InsufficientInstanceCapacity".to_owned())];
    let view = evened_out();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    assert_eq!(zone_of(asked.call.as_ref()).map(|(zone, _)| zone), Some("c"));
    let mut ledger = asked.ledger;
    launched(&mut ledger, GroupKind::Spot, vec![], &no_capacity, now());
    let again = next(&ledger, &view, &spot("i-1"));
    assert_eq!(again.call, set(GroupKind::Spot, 4));
    let mut ledger = again.ledger;
    accepted(&mut ledger, &again.call.expect("a call"));
    let mut raised = view.clone();
    raised.spot.desired = 4;
    let waits = next(&ledger, &raised, &spot("i-1"));
    assert_eq!(waits.call, None);
    assert!(share(&waits.ledger, "i-1").is_raised() && share(&waits.ledger, "i-1").failure.is_none());
    // Every zone was asked already, or none may be chosen freely: the failure is final.
    let mut tried = next(&Ledger::default(), &suspended_az_rebalance(evened_out()), &spot("i-1")).ledger;
    for _ in 0..3 {
        launched(&mut tried, GroupKind::Spot, vec![], &no_capacity, now());
    }
    assert_eq!(next(&tried, &suspended_az_rebalance(evened_out()), &spot("i-1")).call, None);
    // What one zone alone has not, another may have.
    for message in [
        "Unsupported - Your requested instance type (g5.xlarge) is not supported in your requested \
         Availability Zone (c).",
        "InvalidSubnetID.NotFound - The subnet ID 'subnet-1' does not exist",
    ] {
        let mut ledger = next(&Ledger::default(), &view, &spot("i-1")).ledger;
        let of_zone = [(FailureClass::Configuration, message.to_owned())];
        launched(&mut ledger, GroupKind::Spot, vec![], &of_zone, now());
        assert_eq!(next(&ledger, &view, &spot("i-1")).call, set(GroupKind::Spot, 4), "{message}");
    }
    // A wrong configuration is wrong in every zone.
    let mut wrong = next(&Ledger::default(), &view, &spot("i-1")).ledger;
    let misconfigured = [(FailureClass::Configuration, "InvalidAMIID.NotFound".to_owned())];
    launched(&mut wrong, GroupKind::Spot, vec![], &misconfigured, now());
    assert_eq!(next(&wrong, &view, &spot("i-1")).call, None);
}

#[test]
fn every_token_is_one_that_aws_takes() {
    for name in ["i-1", "workers.adopted-i-0123456789abcdef0", "node.ec2.internal.i-0123456789abcdef0"] {
        let asked = next(&Ledger::default(), &launching(), &spot(name));
        let Some(Call::Launch { token, .. }) = asked.call else { panic!("{:?}", asked.call) };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
        assert!(token.len() <= 64 && token.bytes().all(is_allowed), "{token}");
    }
}
