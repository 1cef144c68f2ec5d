use super::*;

/// The pool after its spec was changed: its Spot group is another one, with three instances and one that is
/// new.
fn renamed() -> PoolView {
    use Lifecycle::InService;
    let spot = [("j-1", InService), ("j-2", InService), ("j-3", InService), ("j-4", InService)];
    PoolView { spot: group("other", 4, &spot), on_demand: group("on-demand", 0, &[]) }
}

fn gone() -> Want {
    Want::Instance {
        attempt: 1,
        deadline: Some(now()),
        stood_in_for: false,
        zone: None,
        gone: true,
        join_timeout: JOIN_TIMEOUT,
    }
}

/// A request for `i-1`: intended, applied and not served, served, served and the old instance gone.
fn open_requests() -> [(Ledger, PoolView); 4] {
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let mut raised = asked.ledger.clone();
    accepted(&mut raised, &asked.call.expect("a call"));
    let mut view = usual();
    view.spot.desired = 4;
    let (mut owed, owed_view) = served();
    owed.scaling_requests[0].shares[0].balance = Balance::OwedByUs;
    owed.scaling_requests[0].shares[0].instance_id = None;
    [(asked.ledger, usual()), (raised, view), served(), (owed, owed_view)]
}

#[test]
fn the_new_group_is_not_touched_for_what_the_old_one_owes() {
    for (ledger, _) in open_requests() {
        for want in [instance(), gone(), Want::Nothing, Want::Done] {
            let wanted = wants([(GroupKind::Spot, "i-1", want.clone())]);
            let facts = InstanceFacts::default();
            let mut held = ledger.clone();
            for _ in 0..3 {
                let plan = plan(
                    &held,
                    &renamed(),
                    &wanted,
                    &ends("i-1", "i-1"),
                    &facts,
                    &Deferred::default(),
                    now(),
                );
                assert_eq!((plan.call, &plan.cordon), (None, &BTreeSet::new()), "{want:?}: {ledger:?}");
                held = plan.ledger;
                assert_eq!(held.share(GroupKind::Spot, &"i-1".into()), None, "nothing is claimed");
                assert_eq!(held.left_behind.len(), 1);
                assert_eq!(held.left_behind[0].request.group_name, "spot");
                assert!(!held.is_settled(), "what was raised is still open");
            }
        }
    }
}

#[test]
fn a_request_goes_on_when_its_group_is_named_again() {
    for (ledger, view) in open_requests() {
        let away = next(&ledger, &renamed(), &spot("i-1")).ledger;
        assert_eq!(next(&away, &view, &spot("i-1")), next(&ledger, &view, &spot("i-1")));
    }
}

#[test]
fn a_story_that_left_a_request_behind_may_ask_the_group_that_stayed() {
    let (ledger, _) = served();
    let both = wants([(GroupKind::Spot, "i-1", gone()), (GroupKind::OnDemand, "i-1", instance())]);
    assert_eq!(next(&ledger, &renamed(), &both).call, set(GroupKind::OnDemand, 1));
}

#[test]
fn another_story_asks_the_new_group_for_itself() {
    let (ledger, _) = served();
    let both = wants([(GroupKind::Spot, "i-1", gone()), (GroupKind::Spot, "j-1", instance())]);
    let plan = next(&ledger, &renamed(), &both);
    assert_eq!(plan.call, set(GroupKind::Spot, 5));
    assert_eq!(plan.ledger.shares(GroupKind::Spot).count(), 1);
}

#[test]
fn a_reduction_of_the_old_group_is_booked_and_not_made_in_the_new_one() {
    let (ledger, view) = served();
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    assert_eq!(ending.call, end("i-1", true));
    let away = next(&ending.ledger, &renamed(), &spot("i-1"));
    assert_eq!((away.call, away.ledger.reduction), (None, None));
    assert!(!away.ledger.left_behind[0].request.shares[0].is_raised(), "it is lowered once at most");
}

#[test]
fn what_was_seen_of_the_old_group_is_not_compared_with_the_new_one() {
    let [_, (raised, view), ..] = open_requests();
    let mut seen = next(&raised, &view, &spot("i-1")).ledger;
    assert_eq!(seen.desired_seen.len(), 1);
    let none = (Wants::new(), BTreeSet::new(), InstanceFacts::default(), Deferred::default());
    let look =
        |ledger: &Ledger, view: &PoolView| plan(ledger, view, &none.0, &none.1, &none.2, &none.3, now());
    seen.take_over(now());
    let mut doubtful = next(&Ledger::default(), &usual(), &spot("i-1")).ledger;
    doubtful.take_over(now());
    for ledger in [seen, doubtful] {
        let mut other = renamed();
        other.spot.desired = 3;
        let held = look(&ledger, &other).ledger;
        other.spot.desired = 4;
        let found = look(&held, &other);
        assert_eq!((found.call, found.ledger.scaling_requests), (None, Vec::new()));
        assert_eq!(found.ledger.doubts.len(), ledger.doubts.len());
    }
}

#[test]
fn a_group_that_cannot_launch_is_known_by_its_name() {
    let asked = next(&Ledger::default(), &launching(), &spot("i-1"));
    let mut ledger = asked.ledger;
    launch_refused(&mut ledger, GroupKind::Spot, "not for you", true, now());
    let mut other = launching();
    other.spot.name = "other".into();
    let mut same = launching();
    ledger.limit_launches(&mut other, now());
    ledger.limit_launches(&mut same, now());
    assert!(other.spot.can_launch && !same.spot.can_launch);
}

#[test]
fn what_was_left_behind_is_forgotten_once_its_story_is_over_and_nothing_of_it_is_left() {
    let (ledger, view) = served();
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    let settled = next(&ending.ledger, &renamed(), &spot("i-1")).ledger;
    assert_eq!(settled.left_behind[0].request.shares[0].balance, Balance::Even);
    let over = wants([(GroupKind::Spot, "i-1", Want::Done)]);
    for (held, wanted, left) in [
        (&settled, &spot("i-1"), 1),
        (&settled, &Wants::new(), 1),
        (&settled, &over, 0),
        (&next(&ledger, &renamed(), &spot("i-1")).ledger, &over, 1),
    ] {
        let after = next(held, &renamed(), wanted).ledger;
        assert_eq!((after.left_behind.len(), after.is_settled()), (left, left == 0), "{wanted:?}");
    }

    let mut wanted = Wants::new();
    super::super::wants::end_orphans(&mut wanted, &settled, &|_| false);
    assert_eq!(wanted, over, "its record was deleted");
}
