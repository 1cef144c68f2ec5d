use super::*;

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

/// What LaunchInstances gave for `i-1`, in a group that had `active` of three instances.
fn answered(active: i32) -> Ledger {
    let mut ledger = next(&Ledger::default(), &launching(), &spot("i-1")).ledger;
    launched(&mut ledger, GroupKind::Spot, vec!["i-4".into()], &[], now());
    ledger.scaling_requests[0].active = active;
    ledger
}

#[test]
fn desired_capacity_is_corrected_only_if_it_is_below_what_is_active_half_a_minute_after_the_launch() {
    let plan_at = |ledger: &Ledger, view: &PoolView, seconds| {
        let then = now() + SignedDuration::from_secs(seconds);
        let (ends, facts) = (BTreeSet::new(), InstanceFacts::default());
        plan(ledger, view, &spot("i-1"), &ends, &facts, &Deferred::default(), then)
    };
    // Desired capacity and what is active half a minute later, how many were active before; the call, and
    // whether desired capacity is known to be raised in the end.
    for (desired, active, before, call, raised) in [
        (4, 4, 3, None, true),
        (3, 4, 3, set(GroupKind::Spot, 4), true),
        // Somebody lowered it: before AWS raised it, or where AWS raises nothing.
        (3, 3, 3, None, true),
        (2, 3, 3, set(GroupKind::Spot, 3), true),
        (2, 2, 3, None, true),
        // The instance took a place that was empty.
        (3, 3, 2, None, false),
        // Several were lowered while AWS raises nothing: ours alone is counted.
        (1, 4, 3, set(GroupKind::Spot, 2), true),
    ] {
        let mut view = launching();
        view.spot.desired = desired;
        view.spot.instances.truncate(active - 1);
        add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
        let case = format!("desired {desired}, {active} active, {before} before");
        let early = plan_at(&answered(before), &view, 29);
        assert_eq!(early.call, None, "{case}");
        let late = plan_at(&early.ledger, &view, 30);
        assert_eq!(late.call, call, "{case}");
        let mut ledger = late.ledger;
        if let Some(call) = &late.call {
            accepted(&mut ledger, call);
        }
        assert_eq!(share(&ledger, "i-1").is_raised(), raised, "{case}");
        assert!(ledger.scaling_requests.iter().all(|held| held.state == RequestState::Applied), "{case}");
    }
}

#[test]
fn launches_side_by_side_are_counted_together() {
    let mut ledger = answered(3);
    let mut second = ledger.scaling_requests[0].clone();
    second.id.push_str("-second");
    second.shares[0].replacement = "i-2".into();
    second.shares[0].instance_id = Some("i-5".into());
    ledger.scaling_requests.push(second);
    let mut view = launching();
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::Pending);
    let mut wants = spot("i-1");
    wants.extend(spot("i-2"));
    for (desired, raised) in [(4, false), (5, true)] {
        view.spot.desired = desired;
        let plan = next(&ledger, &view, &wants);
        assert_eq!(plan.call, None, "one raise is not told from the other");
        for id in ["i-1", "i-2"] {
            assert_eq!(share(&plan.ledger, id).is_raised(), raised, "{id} with desired {desired}");
        }
    }
}

#[test]
fn what_was_launched_is_not_given_back_before_it_is_known_whether_desired_capacity_counts_it() {
    let mut view = launching();
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::InService);
    let nothing: Wants = [((GroupKind::Spot, "i-1".into()), Want::Nothing)].into();
    let uncounted = next(&answered(3), &view, &nothing);
    assert_eq!((uncounted.call, uncounted.ledger.shares(GroupKind::Spot).count()), (None, 1));
    view.spot.desired = 4;
    let (group, instance_id) = (GroupKind::Spot, "i-4".into());
    let end = Call::Terminate { group, instance_id, decrement: true };
    assert_eq!(next(&uncounted.ledger, &view, &nothing).call, Some(end));
}

#[test]
fn a_termination_whose_answer_was_lost_may_be_seen_twenty_seconds_later() {
    let (ledger, view) = served();
    let facts = InstanceFacts::default();
    let lost =
        plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now()).ledger;
    let wanted = wants([
        (GroupKind::Spot, "i-1", instance()),
        (GroupKind::Spot, "i-2", instance()),
        (GroupKind::OnDemand, "i-3", instance()),
    ]);
    let look = |view: &PoolView, wants: &Wants, seconds: i64| {
        let (deferred, at) = (Deferred::begin(&lost), now() + SignedDuration::from_secs(seconds));
        plan(&lost, view, wants, &ends("i-1", "i-1"), &facts, &deferred, at)
    };
    let on_demand = wants([(GroupKind::OnDemand, "i-3", instance())]);
    assert_eq!(look(&view, &on_demand, 19).call, set(GroupKind::OnDemand, 1), "the other group is asked");
    for seconds in [0, 19] {
        let waits = look(&view, &spot("i-2"), seconds);
        assert_eq!((waits.call, waits.ledger.reduction.is_some()), (None, true), "after {seconds} s");
        assert_eq!(waits.ledger.desired_seen, [], "a lowering may be ours");
    }
    assert_eq!(look(&view, &spot("i-1"), 20).call, end("i-1", true), "it was lost on its way");
    let mut seen = view.clone();
    seen.spot.desired = 3;
    seen.spot.instances[0].lifecycle = Lifecycle::Leaving;
    let settled = look(&seen, &wanted, 5).ledger;
    assert_eq!((settled.reduction.is_some(), share(&settled, "i-1").balance), (false, Balance::Even));
}
