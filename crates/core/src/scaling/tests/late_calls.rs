use super::*;

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
    assert_eq!(back.call, None, "an instance may be on its way");
    out_of_capacity(&mut view.spot, 0);
    let back = next(&found, &view, &nobody(&found));
    assert_eq!(back.call, set(GroupKind::Spot, 3), "nothing was launched");
    add(&mut view, GroupKind::Spot, "i-5", Lifecycle::Pending);
    let with_pods = ["i-2", "i-3", "i-4"].map(Into::into).into();
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
