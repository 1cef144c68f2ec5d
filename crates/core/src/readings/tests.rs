use super::*;
use crate::group::GroupSetup;
use crate::ledger::DesiredSeen;
use crate::record::GroupKind;
use Lifecycle::{InService, Leaving, Other, Pending};
use jiff::Timestamp;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn group(name: &str, desired: i32, instances: &[(&str, Lifecycle)]) -> GroupView {
    GroupView {
        name: name.into(),
        desired,
        min: 0,
        max: 9,
        zones: vec!["a".to_owned()],
        can_launch: true,
        setup: GroupSetup::default(),
        instances: instances
            .iter()
            .map(|(id, lifecycle)| Instance {
                id: (*id).into(),
                zone: "a".to_owned(),
                lifecycle: *lifecycle,
                protected: false,
            })
            .collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: Timestamp::UNIX_EPOCH,
    }
}

fn view(desired: i32, instances: &[(&str, Lifecycle)]) -> PoolView {
    PoolView { spot: group("spot", desired, instances), on_demand: group("on-demand", 0, &[]) }
}

/// What is believed of a reading of the Spot group.
fn read(
    readings: &mut Readings,
    desired: i32,
    instances: &[(&str, Lifecycle)],
    seconds: u64,
) -> (i32, Vec<(String, Lifecycle)>) {
    let mut view = view(desired, instances);
    readings.correct(&mut view, &Ledger::default(), at(seconds));
    let instances = view.spot.instances.iter().map(|held| (held.id.to_string(), held.lifecycle));
    (view.spot.desired, instances.collect())
}

fn one(id: &str, lifecycle: Lifecycle) -> Vec<(String, Lifecycle)> {
    vec![(id.to_owned(), lifecycle)]
}

#[test]
fn what_was_read_is_not_undone_by_an_older_picture_for_ten_seconds() {
    let mut readings = Readings::default();
    assert_eq!(read(&mut readings, 3, &[], 0), (3, Vec::new()));
    assert_eq!(read(&mut readings, 4, &[("i-1", Pending)], 1), (4, one("i-1", Pending)));
    assert_eq!(read(&mut readings, 3, &[], 10), (4, one("i-1", Pending)), "an older picture");
    assert_eq!(read(&mut readings, 3, &[], 11), (3, Vec::new()), "somebody has undone it");
    assert_eq!(read(&mut readings, 4, &[("i-1", Pending)], 12), (3, Vec::new()), "again an older one");
    assert_eq!(read(&mut readings, 5, &[], 13), (5, Vec::new()), "what was never there is new");
}

#[test]
fn an_instance_does_not_go_back_in_its_life() {
    for (before, after, believed) in [
        (Pending, InService, InService),
        (InService, Pending, InService),
        (InService, Other, Other),
        (Other, InService, InService),
        (Leaving, InService, Leaving),
        (Leaving, Pending, Leaving),
    ] {
        let mut readings = Readings::default();
        read(&mut readings, 1, &[("i-1", before)], 0);
        assert_eq!(read(&mut readings, 1, &[("i-1", after)], 9).1, one("i-1", believed), "{before:?}");
        assert_eq!(read(&mut readings, 1, &[("i-1", after)], 20).1, one("i-1", after), "in the end");
    }
    let mut readings = Readings::default();
    read(&mut readings, 1, &[("i-1", Leaving)], 0);
    assert_eq!(read(&mut readings, 1, &[], 1).1, [], "it is gone");
    assert_eq!(read(&mut readings, 1, &[("i-1", Leaving)], 9).1, [], "and stays so");
    read(&mut readings, 1, &[], 12);
    assert!(readings.groups.values().all(|known| known.instances.is_empty()), "nothing is kept for ever");
}

#[test]
fn an_instance_that_was_there_for_long_may_be_gone_from_one_reading_to_the_next() {
    let mut readings = Readings::default();
    read(&mut readings, 1, &[("i-1", InService)], 0);
    assert_eq!(read(&mut readings, 1, &[], 15).1, []);
}

#[test]
fn an_answer_counts_before_a_listing_shows_it() {
    let group = GroupKind::Spot;
    let mut readings = Readings::default();
    read(&mut readings, 3, &[("i-1", InService)], 0);
    let planned_from = view(3, &[("i-1", InService)]);
    let mut tell = |call: &Call, answer: &Answer| readings.told(&planned_from, call, answer, at(1));
    let launch = Call::Launch { group, zone: "a".to_owned(), count: 1, token: "token".to_owned() };
    tell(&launch, &Answer::Launched { instance_ids: vec!["i-2".into()], errors: Vec::new() });
    tell(&Call::SetDesired { group, desired: 4 }, &Answer::Done);
    let shown = |lifecycle| vec![("i-1".to_owned(), lifecycle), ("i-2".to_owned(), Pending)];
    assert_eq!(read(&mut readings, 3, &[("i-1", InService)], 2), (4, shown(InService)));

    let planned_from = view(4, &[("i-1", InService), ("i-2", Pending)]);
    for (says_shrunk, desired) in [(false, 4), (true, 3)] {
        let mut readings = readings.clone();
        let end = Call::Terminate { group, instance_id: "i-1".into(), decrement: true };
        readings.told(&planned_from, &end, &Answer::Terminated { says_shrunk }, at(2));
        let read = read(&mut readings, 4, &[("i-1", InService), ("i-2", Pending)], 3);
        assert_eq!(read, (desired, shown(Leaving)));
    }
}

#[test]
fn a_new_life_does_not_take_an_older_picture_for_a_lowering_by_others() {
    let seen = DesiredSeen { group: GroupKind::Spot, group_name: "spot".into(), desired: 4 };
    let ledger = Ledger { desired_seen: vec![seen], ..Ledger::default() };
    let mut readings = Readings::of(&ledger, at(0));
    assert_eq!(read(&mut readings, 3, &[], 1).0, 4);
    assert_eq!(read(&mut readings, 3, &[], 10).0, 3);
    assert_eq!(read(&mut Readings::of(&ledger, at(0)), 5, &[], 1).0, 5);
}

#[test]
fn instance_refreshes_are_asked_for_every_two_minutes_and_told_until_they_are_over() {
    let (spot, on_demand) = (GroupName::from("spot"), GroupName::from("on-demand"));
    let mut readings = Readings::default();
    let due =
        |readings: &mut Readings, seconds| readings.ask_for_refreshes(&[&spot, &on_demand], at(seconds));
    assert_eq!(due(&mut readings, 0), [spot.clone(), on_demand.clone()]);
    readings.note_refresh(&spot, Some("InProgress".to_owned()));
    assert!(due(&mut readings, 119).is_empty());
    let mut seen = view(3, &[]);
    readings.show_rollouts(&mut seen, Duration::ZERO);
    assert_eq!(seen.spot.setup.rollout, Some(Rollout::InstanceRefresh("InProgress".to_owned())));
    assert_eq!(due(&mut readings, 120).len(), 2);
    readings.note_refresh(&spot, None);
    readings.show_rollouts(&mut seen, Duration::ZERO);
    assert_eq!((&seen.spot.setup.rollout, seen.spot.setup.termination_hook), (&None, None));
    readings.note_hook(&spot, false);
    readings.show_rollouts(&mut seen, Duration::ZERO);
    assert_eq!(
        (seen.spot.setup.termination_hook, seen.on_demand.setup.termination_hook),
        (Some(false), None)
    );
}

#[test]
fn what_is_not_certain_yet_is_said_for_as_long() {
    let uncertain = |readings: &mut Readings, desired, seconds| {
        let uncertain = readings.correct(&mut view(desired, &[]), &Ledger::default(), at(seconds));
        (!uncertain.desired.is_empty(), !uncertain.launches.is_empty())
    };
    let mut readings = Readings::default();
    assert_eq!(uncertain(&mut readings, 3, 0), (false, false));
    readings.told(
        &view(3, &[]),
        &Call::SetDesired { group: GroupKind::Spot, desired: 4 },
        &Answer::Done,
        at(1),
    );
    assert_eq!(uncertain(&mut readings, 3, 10), (true, false), "old, or set back");
    assert_eq!(uncertain(&mut readings, 3, 11), (false, false), "set back");
    let launch =
        Call::Launch { group: GroupKind::Spot, zone: "a".to_owned(), count: 1, token: "t".to_owned() };
    let launched = Answer::Launched { instance_ids: vec!["i-2".into()], errors: Vec::new() };
    readings.told(&view(3, &[]), &launch, &launched, at(20));
    assert_eq!(uncertain(&mut readings, 3, 49), (false, true));
    assert_eq!(uncertain(&mut readings, 3, 50), (false, false));
}

#[test]
fn a_reduction_may_be_seen_for_twenty_seconds_whatever_the_clock_is_set_to() {
    let reduction = |id: &str| Reduction {
        group: GroupKind::Spot,
        group_name: "spot".into(),
        instance_id: Some(id.into()),
        settles: None,
        desired_before: 3,
        requested_at: Timestamp::MAX,
    };
    let mut readings = Readings::default();
    let mut is_young = |reduction, seconds| {
        let ledger = Ledger { reduction, ..Ledger::default() };
        readings.correct(&mut view(3, &[]), &ledger, at(seconds)).reduction
    };
    assert!(is_young(Some(reduction("i-1")), 0) && is_young(Some(reduction("i-1")), 19));
    assert!(!is_young(Some(reduction("i-1")), 20));
    assert!(is_young(Some(reduction("i-2")), 21), "another one");
    assert!(!is_young(None, 22) && is_young(Some(reduction("i-2")), 23));
}

#[test]
fn an_update_of_a_node_group_is_two_versions_and_sizes_that_others_move() {
    let update = Some(Rollout::NodeGroupUpdate("workers".to_owned()));
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let shown = |readings: &mut Readings, mixed_versions, max, minute| {
        let mut seen = view(3, &[]);
        seen.spot.setup.eks_node_group = Some("workers".to_owned());
        (seen.spot.setup.mixed_versions, seen.spot.max) = (mixed_versions, max);
        readings.show_rollouts(&mut seen, minutes(minute));
        seen.spot.setup.rollout
    };
    let mut readings = Readings::default();
    assert_eq!(shown(&mut readings, false, 9, 0), None);
    assert_eq!(shown(&mut readings, false, 10, 1), None, "a person raised it");
    assert_eq!(shown(&mut readings, true, 10, 16), None, "two versions alone are no update");
    assert_eq!(shown(&mut readings, true, 12, 17), update);
    assert_eq!(shown(&mut readings, true, 12, 136), update, "until it is over");
    assert_eq!(shown(&mut readings, true, 12, 137), None, "or two hours without a sign");
    assert_eq!(shown(&mut readings, true, 11, 138), update);
    assert_eq!(shown(&mut readings, true, 10, 139), update);
    assert_eq!(shown(&mut readings, true, 10, 154), None, "what an update that failed has left");
    assert_eq!(shown(&mut readings, true, 12, 160), update);
    assert_eq!(shown(&mut readings, false, 12, 161), None);

    // A controller that starts in the middle of an update knows no earlier maximum.
    let mut late = Readings::default();
    assert_eq!(shown(&mut late, true, 12, 0), update);
    assert_eq!(shown(&mut late, true, 12, 15), None);
    assert_eq!(shown(&mut late, true, 11, 20), update);
}
