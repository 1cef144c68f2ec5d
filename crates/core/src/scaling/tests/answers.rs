use super::*;
use crate::classify::CallFailure;
use crate::scaling::answers::{AfterFailure, Answer, failed, taken};

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
fn an_instance_that_aws_no_longer_knows_is_ended_once_in_a_turn() {
    let both: BTreeSet<End> = ends("i-1", "i-1").into_iter().chain(ends("i-2", "i-2")).collect();
    let facts = InstanceFacts::default();
    let turn = |ledger: &Ledger, deferred: &Deferred| {
        plan(ledger, &usual(), &Wants::new(), &both, &facts, deferred, now())
    };
    let first = turn(&Ledger::default(), &Deferred::default());
    let (mut ledger, mut deferred) = (first.ledger, Deferred::default());
    let call = first.call.expect("a call");
    let after = failed(&mut ledger, &mut deferred, &call, (CallFailure::NotFound, "not found"), now());
    assert_eq!(after, AfterFailure::GoOn);
    assert!(ledger.reduction.is_some(), "an earlier call may have taken effect: the listing tells");
    assert_eq!(turn(&ledger, &deferred).call, end("i-2", false), "the other one is not held up");
    assert_eq!(turn(&ledger, &Deferred::default()).call, Some(call), "the next turn looks again");
}

#[test]
fn a_call_that_got_no_answer_lets_the_other_group_be_asked_and_changes_nothing_else() {
    let wants = wants([GroupKind::Spot, GroupKind::OnDemand].map(|group| (group, "i-1", urgent())));
    let (facts, deferred) = (InstanceFacts::default(), Deferred::default());
    let (ends, view) = (ends("i-2", "i-2"), usual());
    let plan = |ledger: &Ledger| plan(ledger, &view, &wants, &ends, &facts, &deferred, now());
    let rest = |ledger: &Ledger| {
        let (view, wants, ends, instances, deferred) = (&view, &wants, &ends, &facts, &deferred);
        let inputs = Inputs { ledger, view, wants, ends, instances, deferred, now: now() };
        crate::scaling::plan_requests(&inputs, GroupKind::OnDemand)
    };
    let first = plan(&Ledger::default());
    assert_eq!(first.call, set(GroupKind::Spot, 4));
    let other = rest(&first.ledger);
    assert_eq!(other.call, set(GroupKind::OnDemand, 1));
    assert_eq!(rest(&other.ledger), other, "the same call as long as nothing is known of it");
    let mut done = other.ledger;
    taken(&mut done, &other.call.expect("a call"), Answer::Done, now());
    let nothing = rest(&done);
    assert_eq!(nothing.call, None, "nothing is ended, and nothing repeated");
    assert_eq!(plan(&nothing.ledger).call, first.call, "the next turn goes on");
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
        assert_eq!(ledger.cannot_launch(&"spot".into(), now()), remembered);
        assert!(!ledger.cannot_launch(&"on-demand".into(), now()));
        assert!(!ledger.cannot_launch(&"spot".into(), now() + SignedDuration::from_hours(25)));
        assert_eq!(next(&ledger, &view, &spot("i-1")).call, set(GroupKind::Spot, 4), "the request goes on");
    }
}

#[test]
fn each_failure_of_a_call_has_its_consequence() {
    use AfterFailure::{GoOn, Later, ReadAgain};
    use CallFailure::{Busy, NotFound, Refused, Unclear, Unsupported};
    use FailureClass::{Capacity, Configuration};
    let asked = next(&Ledger::default(), &usual(), &spot("i-1"));
    let asked_by_launch = next(&Ledger::default(), &launching(), &spot("i-1"));
    let (served, view) = served();
    let facts = InstanceFacts::default();
    let ending = plan(&served, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    for (plan, failure, after, expected) in [
        (&asked, Unclear, ReadAgain, None),
        (&asked, NotFound, GoOn, None),
        (&asked, Busy, Later, None),
        (&asked, Refused(Capacity), GoOn, Some(Capacity)),
        (&asked, Unsupported, GoOn, Some(Configuration)),
        (&asked_by_launch, Refused(Capacity), GoOn, Some(Capacity)),
        (&asked_by_launch, Refused(Configuration), GoOn, None),
        (&asked_by_launch, Unsupported, GoOn, None),
        (&asked_by_launch, Busy, Later, None),
        (&ending, Refused(Configuration), Later, None),
        (&ending, Unsupported, Later, None),
        (&ending, NotFound, GoOn, None),
        (&ending, Unclear, ReadAgain, None),
    ] {
        let (mut ledger, mut deferred) = (plan.ledger.clone(), Deferred::default());
        let call = plan.call.as_ref().expect("a call");
        let found = failed(&mut ledger, &mut deferred, call, (failure, "AWS's words"), now());
        assert_eq!(found, after, "{call:?}: {failure:?}");
        assert_eq!(share(&ledger, "i-1").failure.map(|f| f.class), expected, "{call:?}: {failure:?}");
        let waits = after == Later || failure == NotFound;
        assert_eq!(deferred != Deferred::default(), waits, "{call:?}: {failure:?}");
        let by_launch = matches!(call, Call::Launch { .. });
        assert_eq!(ledger.cannot_launch(&"spot".into(), now()), by_launch && failure == Unsupported);
    }
}

#[test]
fn a_launch_that_is_refused_for_another_reason_than_capacity_goes_on_as_set_desired_capacity() {
    let asked = next(&Ledger::default(), &launching(), &spot("i-1"));
    let (mut ledger, mut deferred) = (asked.ledger, Deferred::default());
    let failure = (CallFailure::Refused(FailureClass::Configuration), "a value is wrong");
    assert_eq!(
        failed(&mut ledger, &mut deferred, &asked.call.expect("a call"), failure, now()),
        AfterFailure::GoOn
    );
    assert_eq!(next(&ledger, &launching(), &spot("i-1")).call, set(GroupKind::Spot, 4));
}

#[test]
fn a_termination_whose_answer_says_nothing_of_desired_capacity_is_told_from_the_next_reading() {
    let (ledger, mut view) = served();
    let facts = InstanceFacts::default();
    let ending = plan(&ledger, &view, &spot("i-1"), &ends("i-1", "i-1"), &facts, &Deferred::default(), now());
    let call = ending.call.clone().expect("a call");
    for (says_shrunk, raised) in [(true, false), (false, true)] {
        let mut ledger = ending.ledger.clone();
        taken(&mut ledger, &call, Answer::Terminated { says_shrunk }, now());
        assert_eq!(share(&ledger, "i-1").is_raised(), raised);
        assert_eq!(ledger.reduction.is_some(), raised);
    }
    view.spot.desired = 3;
    view.spot.instances.remove(0);
    let ledger = next(&ending.ledger, &view, &spot("i-1")).ledger;
    assert!(!share(&ledger, "i-1").is_raised() && ledger.reduction.is_none());
}

#[test]
fn the_zones_of_a_launch_fail_together_by_the_failure_that_decides() {
    use FailureClass::{Capacity, Configuration, Quota, Refused, Throttle};
    let error = |class: FailureClass| vec![(class, format!("{class:?}"))];
    for (first, second, expected) in [
        (Configuration, Capacity, Capacity),
        (Capacity, Configuration, Capacity),
        (Configuration, Configuration, Configuration),
        (Quota, Refused, Quota),
        (Throttle, Configuration, Throttle),
    ] {
        let mut asked = next(&Ledger::default(), &launching(), &spot("i-1"));
        for class in [first, second] {
            assert_eq!(share(&asked.ledger, "i-1").failure, None, "not before all zones were tried");
            let answer = Answer::Launched { instance_ids: Vec::new(), errors: error(class) };
            taken(&mut asked.ledger, &asked.call.expect("a call"), answer, now());
            asked = next(&asked.ledger, &launching(), &spot("i-1"));
        }
        let failure = share(&asked.ledger, "i-1").failure.expect("a failure");
        assert_eq!((failure.class, failure.message), (expected, format!("{expected:?}")));
    }
}

#[test]
fn a_throttled_launch_is_made_again_with_another_token_after_seconds() {
    let mut asked = next(&Ledger::default(), &launching(), &spot("i-1"));
    let Some(Call::Launch { token, .. }) = asked.call.clone() else { panic!("a launch: {:?}", asked.call) };
    for _ in 0..2 {
        let errors = vec![(FailureClass::Throttle, "RequestLimitExceeded".to_owned())];
        let answer = Answer::Launched { instance_ids: Vec::new(), errors };
        taken(&mut asked.ledger, &asked.call.expect("a call"), answer, now());
        asked = next(&asked.ledger, &launching(), &spot("i-1"));
    }
    let at = |seconds: i64| {
        let now = now() + SignedDuration::from_secs(seconds);
        let facts = InstanceFacts::default();
        let deferred = Deferred::default();
        plan(&asked.ledger, &launching(), &spot("i-1"), &BTreeSet::new(), &facts, &deferred, now)
    };
    assert_eq!(at(4).call, None);
    let again = at(5);
    assert!(
        matches!(&again.call, Some(Call::Launch { token: other, .. }) if *other != token),
        "{:?}",
        again.call
    );
    assert_eq!(share(&again.ledger, "i-1").failure, None);
}

#[test]
fn one_zone_out_of_capacity_is_not_the_market() {
    use FailureClass::{Capacity, Configuration, Quota, Refused, Unknown};
    let unsupported =
        "Your requested instance type is not supported in your requested Availability Zone (a).";
    let mut view = usual();
    view.spot.zones = ["a", "b", "c"].map(str::to_owned).to_vec();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    // The zones that failed, with which class, whether another one is being tried, seconds since the request.
    for (zones, class, message, launching, waited, is_final) in [
        (vec!["a"], Capacity, "no", false, 29, false),
        (vec!["a"], Capacity, "no", false, 30, true),
        (vec!["a"], Capacity, "no", true, 300, false),
        (vec!["a", "b"], Capacity, "no", false, 1, false),
        (vec!["a", "b", "c"], Capacity, "no", false, 1, true),
        (vec!["a"], Configuration, unsupported, false, 1, false),
        (vec!["a"], Configuration, "no", false, 1, true),
        (vec!["a"], Configuration, "The subnet ID 'subnet-1' does not exist", false, 1, false),
        (vec!["a"], Quota, "no", false, 1, true),
        (vec!["a"], Refused, "no", false, 1, true),
        (vec!["a"], Unknown, "no", false, 1, true),
    ] {
        for deadline in [None, Some(now() + SignedDuration::from_secs(600))] {
            let (mut view, mut ledger) = (view.clone(), ledger.clone());
            let mut wants = spot("i-1");
            if let Some(Want::Instance { deadline: wanted, .. }) =
                wants.get_mut(&(GroupKind::Spot, "i-1".into()))
            {
                *wanted = deadline;
            }
            ledger.scaling_requests[0].shares[0].deadline = deadline;
            let failed = |zone: &&str| FailedActivity {
                started_at: now(),
                zone: Some((*zone).to_owned()),
                class,
                message: message.to_owned(),
            };
            view.spot.failures = zones.iter().map(failed).collect();
            if launching {
                // Somebody else's, so that it is not claimed.
                ledger.scaling_requests[0].instances_before.push("i-9".into());
                add(&mut view, GroupKind::Spot, "i-9", Lifecycle::Pending);
            }
            let at = now() + SignedDuration::from_secs(waited);
            let facts = InstanceFacts::default();
            let plan = plan(&ledger, &view, &wants, &BTreeSet::new(), &facts, &Deferred::default(), at);
            let found = share(&plan.ledger, "i-1").failure.is_some();
            assert_eq!(
                found,
                is_final || deadline.is_some(),
                "{zones:?} {class:?} after {waited} s, {deadline:?}"
            );
        }
    }
}

#[test]
fn a_failure_that_says_nothing_gives_way_to_one_that_does() {
    use FailureClass::{Capacity, Configuration, Unknown};
    let (mut ledger, mut view) = asked_by_desired();
    view.spot.failures = vec![failure(0, Unknown)];
    ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert_eq!(share(&ledger, "i-1").failure.map(|held| held.class), Some(Unknown));
    assert_eq!(next(&ledger, &view, &spot("i-1")).ledger, ledger, "nothing new is written");
    view.spot.failures.insert(0, failure(0, Configuration));
    ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert_eq!(share(&ledger, "i-1").failure.map(|held| held.class), Some(Configuration));
    view.spot.failures.insert(0, failure(0, Capacity));
    ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert_eq!(
        share(&ledger, "i-1").failure.map(|held| held.class),
        Some(Configuration),
        "the first that does"
    );
}

#[test]
fn an_instance_that_dies_on_its_way_in_makes_its_launch_a_failed_one() {
    let (mut ledger, mut view) = asked_by_desired();
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let began = now();
    ledger = next(&ledger, &view, &spot("i-1")).ledger;
    assert_eq!(share(&ledger, "i-1").instance_id, Some("i-4".into()));
    view.spot.instances.pop();
    let at = |seconds: i64| began + SignedDuration::from_secs(seconds);
    let look = |ledger: &Ledger, view: &PoolView, seconds| {
        let (facts, deferred) = (InstanceFacts::default(), Deferred::default());
        plan(ledger, view, &spot("i-1"), &BTreeSet::new(), &facts, &deferred, at(seconds)).ledger
    };
    ledger = look(&ledger, &view, 40);
    assert!(share(&ledger, "i-1").since <= began, "its launch began before it was claimed");
    view.spot.failures = vec![failure(0, FailureClass::Configuration)];
    ledger = look(&ledger, &view, 41);
    assert_eq!(share(&ledger, "i-1").failure.map(|held| held.class), Some(FailureClass::Configuration));
}
