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

#[test]
fn desired_is_made_to_count_what_was_launched_if_aws_did_not_see_to_it() {
    for raised in [true, false] {
        let asked = next(&Ledger::default(), &launching(), &spot("i-1"));
        let mut ledger = asked.ledger;
        launched(&mut ledger, GroupKind::Spot, vec!["i-4".into()], &[], now());
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
