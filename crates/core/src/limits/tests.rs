use super::*;
use crate::group::{GroupView, Instance, Lifecycle};
use crate::reason::ReasonCode;
use crate::record::{
    BlockingReason, Capacity, CapacityState, FallbackState, GroupKind, OldDrain, OldNodeState,
};
use crate::testing::leaked;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-01-01T12:00:00Z")
}

fn ago(seconds: u64) -> Option<Timestamp> {
    Some(now() - Duration::from_secs(seconds))
}

fn pool(spot: usize, on_demand: usize) -> PoolView {
    let group = |name: &str, count: usize| GroupView {
        name: name.into(),
        desired: 0,
        min: 0,
        max: 1000,
        zones: Vec::new(),
        can_launch: true,
        setup: crate::group::GroupSetup::default(),
        instances: (0..count)
            .map(|number| Instance {
                id: format!("i-{number}").into(),
                zone: "a".to_owned(),
                lifecycle: Lifecycle::InService,
                protected: false,
            })
            .collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: now(),
    };
    PoolView { spot: group("spot", spot), on_demand: group("on-demand", on_demand) }
}

#[test]
fn as_many_at_a_time_as_the_number_and_the_share_allow_and_always_one() {
    for (number, percent, nodes, expected) in
        [(10, 50, 3, 1), (10, 50, 8, 4), (10, 50, 1000, 10), (10, 1, 5, 1), (1, 100, 50, 1), (10, 50, 0, 1)]
    {
        let policy = Policy {
            max_concurrent_replacements: number,
            max_concurrent_percent: percent,
            ..Policy::default()
        };
        let found = at_most(&policy, Some(&pool(nodes, 0)));
        assert_eq!(found, expected, "{number}, {percent} % of {nodes}");
    }
    let policy = Policy::default();
    assert_eq!(at_most(&policy, Some(&pool(2, 6))), 4, "on-demand nodes are nodes of the pool");
    assert_eq!(at_most(&policy, None), 10, "of a pool that was not read yet the number counts");
}

fn moving() -> ReplacementStatus {
    ReplacementStatus { old_node: draining().into(), ..Default::default() }
}

fn blocked_at(flow_box: FlowBox, seconds: u64) -> Vec<BlockingReason> {
    vec![BlockingReason {
        flow_box,
        reason: ReasonCode::BudgetExhausted,
        message: "budget".to_owned(),
        since: ago(seconds).expect("a time"),
    }]
}

fn draining() -> OldNodeState {
    OldNodeState::Draining(OldDrain::begun(now()))
}

fn replaced() -> CapacityState {
    let instance = Capacity {
        group: GroupKind::Spot,
        instance_id: "i-9".into(),
        node_name: "n-9".into(),
        ready_at: now(),
    };
    CapacityState::Taken { instance, on_demand_requested: false }
}

#[test]
fn a_replacement_is_under_way_from_its_first_request_until_its_node_is_drained() {
    let rows = [
        ("waits", ReplacementStatus::default(), false),
        (
            "asks",
            ReplacementStatus {
                capacity: CapacityState::SpotRequested { since: now() }.into(),
                ..Default::default()
            },
            true,
        ),
        (
            "keeps its node",
            ReplacementStatus {
                capacity: CapacityState::BackingOff { until: now() }.into(),
                ..Default::default()
            },
            true,
        ),
        ("drains", moving(), true),
        (
            "is drained",
            ReplacementStatus { old_node: OldNodeState::Drained(OldDrain::begun(now())).into(), ..moving() },
            false,
        ),
        ("is on fallback", ReplacementStatus { old_node: OldNodeState::Gone {}.into(), ..moving() }, false),
        ("is over", ReplacementStatus { finished_at: Some(now()), ..moving() }, false),
        ("has an old phase on record", ReplacementStatus { phase: Phase::Completed, ..moving() }, true),
        (
            "is blocked for 10 min, its replacement there",
            ReplacementStatus {
                blocking: blocked_at(FlowBox::Drain, 600),
                capacity: replaced().into(),
                ..moving()
            },
            false,
        ),
        (
            "is blocked for less",
            ReplacementStatus {
                blocking: blocked_at(FlowBox::Drain, 599),
                capacity: replaced().into(),
                ..moving()
            },
            true,
        ),
        (
            "is blocked without a replacement",
            ReplacementStatus { blocking: blocked_at(FlowBox::Drain, 600), ..moving() },
            true,
        ),
        (
            "waits for capacity for long",
            ReplacementStatus {
                blocking: blocked_at(FlowBox::Wait, 6000),
                capacity: replaced().into(),
                ..moving()
            },
            true,
        ),
    ];
    for (name, status, expected) in rows {
        assert_eq!(is_under_way(&status, now()), expected, "{name}");
    }
}

#[test]
fn a_young_node_stays_until_it_is_old_enough() {
    let policy = Policy { min_node_age_seconds: 600, ..Policy::default() };
    let held = |created| start_held(&Starts::default(), &policy, None, created, now());
    assert_eq!(held(ago(599)), Some(Reason::NodeTooYoung { seconds: 600 }));
    assert_eq!(held(ago(600)), None);
    assert_eq!(held(None), None, "a node that is gone is not young");
    let asked = start_held(&Starts::default(), &policy, Some(NoticeKind::Manual), ago(1), now());
    assert_eq!(asked, None, "a person may know better");
}

#[test]
fn a_pause_counts_before_a_limit() {
    let held = |starts: Starts| start_held(&starts, &Policy::default(), None, ago(6000), now());
    for pause in [
        Pause::Pool,
        Pause::Everything,
        Pause::SpotAction { spot_action: "t-1".to_owned(), by: Some("ann".to_owned()), everything: false },
    ] {
        let starts = Starts { pause: Some(pause.clone()), full: Some(1) };
        assert_eq!(held(starts), Some(Reason::Paused(pause)));
    }
    let full = Starts { pause: None, full: Some(5) };
    assert_eq!(held(full), Some(Reason::ConcurrencyLimit { limit: 5 }));
    assert_eq!(held(Starts::default()), None);
}

/// A story whose notice, and whose return if it began, were so many seconds ago.
fn story(kind: NoticeKind, notice: u64, returned: Option<u64>) -> ReplacementStatus {
    ReplacementStatus {
        notice: Some(kind),
        started_at: ago(notice),
        return_started_at: returned.and_then(ago),
        ..Default::default()
    }
}

#[track_caller]
fn assert_held(policy: &Policy, nodes: usize, stories: &[ReplacementStatus], by: Option<Reason>) {
    let found = returns_held(
        policy,
        &pool(nodes, 0),
        stories.iter().map(|story| (leaked("i-1"), story)),
        false,
        now(),
    );
    assert_eq!(found, Vec::from_iter(by));
}

#[test]
fn the_brake_counts_neither_adoptions_nor_what_is_only_recommended_to_a_group() {
    use crate::flow::Event;
    use crate::record::ReplacedBy;
    let mut adopted = story(NoticeKind::Manual, 60, None);
    adopted.notice = None;
    let event = Event::Adopted { instance_id: "od".into(), requests_spot: true };
    event.add_to(&mut adopted, &"od".into(), now());
    let mut advice = story(NoticeKind::RebalanceRecommendation, 60, None);
    advice.replaced_by = Some(ReplacedBy::Group);
    let lost = ReplacementStatus { notice: None, ..story(NoticeKind::Manual, 60, None) };
    let policy = Policy::default();
    for (status, counts) in [(adopted, false), (advice, false), (lost, true)] {
        let by = counts.then_some(Reason::InterruptionBrake { limit: 10 });
        assert_held(&policy, 3, &vec![status; 11], by);
    }
}

#[test]
fn the_brake_counts_the_notices_of_an_hour_against_the_larger_of_number_and_share() {
    let notices = |count, kind, seconds| vec![story(kind, seconds, None); count];
    let (advice, deadline) = (NoticeKind::RebalanceRecommendation, NoticeKind::SpotInterruption);
    let policy = Policy::default();
    assert_held(&policy, 3, &notices(10, advice, 60), None);
    assert_held(&policy, 3, &notices(11, advice, 60), Some(Reason::InterruptionBrake { limit: 10 }));
    assert_held(&policy, 3, &notices(11, deadline, 3599), Some(Reason::InterruptionBrake { limit: 10 }));
    assert_held(&policy, 3, &notices(11, deadline, 3600), None);
    assert_held(&policy, 3, &notices(11, NoticeKind::Manual, 60), None);
    assert_held(&policy, 100, &notices(25, advice, 60), None);
    assert_held(&policy, 100, &notices(26, advice, 60), Some(Reason::InterruptionBrake { limit: 25 }));
}

#[test]
fn a_budget_bounds_the_returns_of_a_period() {
    let returned = |seconds| story(NoticeKind::Manual, 7000, Some(seconds));
    let stories = [returned(10), returned(599), returned(600), story(NoticeKind::Manual, 10, None)];
    let used_up = |budget| Some(Reason::ReturnBudget { budget, period: Duration::from_secs(600) });
    let policy = |budget| Policy { return_budget: budget, return_budget_seconds: 600, ..Policy::default() };
    assert_held(&policy(0), 3, &stories, None);
    assert_held(&policy(3), 3, &stories, None);
    assert_held(&policy(2), 3, &stories, used_up(2));
    assert_held(&policy(1), 3, &stories, used_up(1));
}

/// A return that began so many seconds ago and relied on that Spot instance.
fn relied_on(instance: &str, seconds: u64) -> ReplacementStatus {
    let successor = Capacity {
        group: GroupKind::Spot,
        instance_id: instance.into(),
        node_name: instance.into(),
        ready_at: now(),
    };
    ReplacementStatus {
        fallback: FallbackState::Gone { successor: Some(successor) }.into(),
        ..story(NoticeKind::SpotInterruption, 50_000, Some(seconds))
    }
}

#[test]
fn after_returns_that_were_lost_the_next_one_waits_ever_longer() {
    let wait = |losses: &[(u64, u64)]| {
        let stories: Vec<(InstanceId, ReplacementStatus)> = losses
            .iter()
            .enumerate()
            .flat_map(|(number, (returned, lost))| {
                let id = format!("i-{number}");
                let interrupted = story(NoticeKind::SpotInterruption, *lost, None);
                let finished = ReplacementStatus { finished_at: Some(now()), ..interrupted };
                [("old".into(), relied_on(&id, *returned)), (id.as_str().into(), finished)]
            })
            .collect();
        let known = stories.iter().map(|(id, status)| (id, status));
        match &returns_held(&Policy::default(), &pool(300, 0), known, false, now())[..] {
            [] => 0,
            [Reason::ReturnsLost { until }] => since(now(), *until).as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(&[(1799, 0)]), 600, "ten minutes");
    assert_eq!(wait(&[(1800, 0)]), 0, "half an hour later it is no lost return");
    assert_eq!(wait(&[(1500, 599)]), 1);
    assert_eq!(wait(&[(1500, 600)]), 0);
    assert_eq!(wait(&[(1200, 900), (600, 0)]), 1200, "doubled");
    assert_eq!(wait(&[(9000, 8000), (600, 0)]), 600, "two quiet hours between them");
    let many: Vec<(u64, u64)> = (0..6).rev().map(|number| (number * 60 + 30, number * 60)).collect();
    assert_eq!(wait(&many), 2 * 3600, "four hours at most, halved by each quiet hour");
}

#[test]
fn no_return_begins_while_other_nodes_wait_for_their_replacements() {
    let waiting = |seconds| ReplacementStatus {
        phase: Phase::ScalingUp,
        capacity: CapacityState::SpotRequested { since: now() }.into(),
        ..story(NoticeKind::RebalanceRecommendation, seconds, None)
    };
    let held = Some(Reason::ReplacementsUnderWay { count: 1 });
    assert_held(&Policy::default(), 3, &[waiting(479)], held);
    assert_held(&Policy::default(), 3, &[waiting(480)], None);
}

#[test]
fn a_tenth_of_a_pool_returns_at_a_time_unless_it_says_how_many() {
    let at_most = |limit, nodes| {
        returns_at_most(&Policy { max_concurrent_returns: limit, ..Policy::default() }, &pool(nodes, 0))
    };
    let found = [0, 9, 20, 49, 50, 500].map(|nodes| at_most(0, nodes));
    assert_eq!(found, [1, 1, 2, 4, 5, 5]);
    assert_eq!(at_most(7, 3), 7);
}

fn window(schedule: &str, time_zone: &str, hours: u32) -> ReturnWindow {
    ReturnWindow {
        schedule: schedule.to_owned(),
        time_zone: time_zone.to_owned(),
        duration_seconds: hours * 3600,
    }
}

#[test]
fn a_window_is_open_from_its_minute_for_its_duration_in_its_time_zone() {
    let rows = [
        ("0 22 * * *", "UTC", 4, "2026-01-01T21:59:59Z", false),
        ("0 22 * * *", "UTC", 4, "2026-01-01T22:00:00Z", true),
        ("0 22 * * *", "UTC", 4, "2026-01-02T01:59:59Z", true),
        ("0 22 * * *", "UTC", 4, "2026-01-02T02:00:00Z", false),
        // Berlin is an hour ahead of UTC in winter, two in summer.
        ("0 22 * * *", "Europe/Berlin", 1, "2026-01-15T21:30:00Z", true),
        ("0 22 * * *", "Europe/Berlin", 1, "2026-07-15T21:30:00Z", false),
        ("0 22 * * *", "Europe/Berlin", 1, "2026-07-15T20:30:00Z", true),
        // 2026-01-03 is a Saturday.
        ("0 0 * * SAT,SUN", "UTC", 24, "2026-01-02T23:59:00Z", false),
        ("0 0 * * SAT,SUN", "UTC", 24, "2026-01-04T12:00:00Z", true),
        ("*/30 * * * *", "Asia/Kolkata", 1, "2026-01-04T12:10:00Z", true),
    ];
    for (schedule, time_zone, hours, time, open) in rows {
        let found = window(schedule, time_zone, hours).is_open(at(time));
        assert_eq!(found, Ok(open), "{schedule} {time_zone} for {hours} h at {time}");
    }
}

#[test]
fn one_open_window_is_enough_and_without_any_it_is_always_time() {
    let (day, night) = (window("0 8 * * *", "UTC", 10), window("0 20 * * *", "UTC", 2));
    let policy = |windows: &[&ReturnWindow]| Policy {
        return_windows: windows.iter().map(|window| (*window).clone()).collect(),
        ..Policy::default()
    };
    assert_held(&policy(&[]), 3, &[], None);
    assert_held(&policy(&[&night, &day]), 3, &[], None);
    assert_held(&policy(&[&night]), 3, &[], Some(Reason::ReturnWindow));
}

#[test]
fn a_window_that_cannot_be_used_is_never_open_and_says_why() {
    for (bad, why) in [
        (window("0 25 * * *", "UTC", 1), "0 25 * * *"),
        (window("0 22 * *", "UTC", 1), "0 22 * *"),
        (window("0 22 * * * UTC", "Europe/Berlin", 1), "Europe/Berlin"),
        (window("0 22 * * *", "Europe/Bärlin", 1), "Europe/Bärlin"),
        (window("", "UTC", 1), "UTC"),
        (window("0 0 30 2 *", "UTC", 1), "four years"),
        (window("0 22 * * *", "UTC", 0), "durationSeconds: 0"),
    ] {
        let told = bad.validate().expect_err(why);
        assert!(told.contains(why) && !told.contains('\n'), "{told:?} does not name {why:?}");
        if bad.duration_seconds > 0 {
            let policy = Policy { return_windows: vec![bad], ..Policy::default() };
            let found = returns_held(&policy, &pool(3, 0), std::iter::empty(), false, now());
            let [Reason::ReturnWindow, Reason::BadReturnWindow(error)] = &found[..] else {
                panic!("{found:?}");
            };
            assert!(error.contains(why), "{error}");
        }
    }
}

#[test]
fn a_return_that_a_person_asked_for_passes_budget_and_windows_and_not_the_brake() {
    let policy = Policy {
        return_budget: 1,
        return_windows: vec![window("0 20 * * *", "UTC", 2)],
        ..Policy::default()
    };
    let mut stories = vec![story(NoticeKind::Manual, 7000, Some(10))];
    let held = |stories: &[ReplacementStatus], asked| {
        returns_held(&policy, &pool(3, 0), stories.iter().map(|story| (leaked("i-1"), story)), asked, now())
            .len()
    };
    assert_eq!((held(&stories, false), held(&stories, true)), (2, 0));
    stories.extend(vec![story(NoticeKind::RebalanceRecommendation, 60, None); 11]);
    assert_eq!((held(&stories, false), held(&stories, true)), (3, 1));
}

#[test]
fn a_finished_record_is_removable_once_it_was_shown_and_no_limit_counts_it() {
    let policy = |keep, budget| Policy {
        keep_finished_seconds: keep,
        return_budget_seconds: budget,
        ..Policy::default()
    };
    for (keep, budget, needed) in [(60, 60, 3600), (60, 7200, 7200), (86_400, 7200, 86_400)] {
        for (finished_at, removable) in [(None, false), (ago(needed - 1), false), (ago(needed), true)] {
            let status = ReplacementStatus { finished_at, ..ReplacementStatus::default() };
            assert_eq!(is_removable(&status, &policy(keep, budget), now()), removable, "{keep} {budget}");
        }
    }
}
