use super::*;

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
        view.spot.zones.truncate(1);
        view.spot.failures = vec![failure(ago, class)];
        let plan = next(&ledger, &view, &spot("i-1"));
        assert_eq!(share(&plan.ledger, "i-1").failure.is_some(), counts, "{ago} s ago, {class:?}");
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
    assert_eq!(
        ledger.desired_seen,
        [DesiredSeen { group: GroupKind::Spot, group_name: "spot".into(), desired: 4 }]
    );
    view.spot.desired = 3;
    let erased = next(&ledger, &view, &spot("i-1"));
    let share = share(&erased.ledger, "i-1");
    assert!(!share.is_raised(), "{share:?}");
    assert_eq!(share.failure.expect("a failure").class, FailureClass::Capacity);
    assert_eq!(erased.call, None, "not at once: whoever lowered it would do so again");
    let later = wants([(GroupKind::Spot, "i-1", of_attempt(1))]);
    assert_eq!(next(&erased.ledger, &view, &later).call, set(GroupKind::Spot, 4));
}

#[test]
fn what_was_erased_while_another_instance_stands_in_is_owed_once_the_old_one_goes() {
    let owed = || Want::Instance {
        attempt: 0,
        deadline: None,
        stood_in_for: true,
        zone: None,
        gone: false,
        join_timeout: JOIN_TIMEOUT,
    };
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
