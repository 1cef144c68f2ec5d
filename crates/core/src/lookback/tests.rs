//! Tables of what activities say, and small pasts whose figures are known.

use super::cause::{Deed, Saying, deed, is_readable, loss, sayings};
use super::timeline::{HOUR, Steps};
use super::*;
use crate::group::FailureClass;
use crate::ids::{GroupName, InstanceId};
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// A Monday, 00:00 UTC.
const MONDAY: &str = "2026-11-02T00:00:00Z";
const DRY: &str = "Could not launch Spot Instances. UnfulfillableCapacity - There is no capacity available that \
                   matches your request. Launching EC2 instance failed.";

/// So many seconds after the Monday.
fn at(seconds: i64) -> Timestamp {
    MONDAY.parse::<Timestamp>().expect("a time") + SignedDuration::from_secs(seconds)
}

fn said(seconds: i64) -> String {
    format!("{:.0}", at(seconds))
}

#[test]
fn what_an_activity_does_is_read_from_its_description() {
    let id = || InstanceId::from("i-0d44425630326060f");
    for (description, expected) in [
        ("Launching a new EC2 instance: i-0d44425630326060f", Some(Deed::Launch(Some(id())))),
        ("Launching a new EC2 instance", Some(Deed::Launch(None))),
        (
            "Launching a new EC2 instance.  Status Reason: Could not launch Spot Instances.",
            Some(Deed::Launch(None)),
        ),
        ("Terminating EC2 instance: i-0d44425630326060f", Some(Deed::Terminate(id()))),
        (
            "Terminating EC2 instance: i-0d44425630326060f - Waiting For ELB Connection Draining.",
            Some(Deed::Terminate(id())),
        ),
        ("Moving EC2 instance to Standby: i-0d44425630326060f", Some(Deed::Go(id()))),
        ("Moving EC2 instance out of Standby: i-0d44425630326060f", Some(Deed::Come(id()))),
        ("Detaching EC2 instance: i-0d44425630326060f", Some(Deed::Go(id()))),
        ("Attaching an existing EC2 instance: i-0d44425630326060f", Some(Deed::Come(id()))),
        (
            "Could not scale to desired capacity because all remaining instances are protected",
            Some(Deed::Nothing),
        ),
        ("Terminating EC2 instance: i-0d44425630326060f\nforged", Some(Deed::Terminate(id()))),
        ("Terminating EC2 instance: something", None),
        ("Dancing with an EC2 instance: i-0d44425630326060f", None),
        ("", None),
    ] {
        assert_eq!(deed(description), expected, "{description}");
    }
}

#[test]
fn what_a_cause_says_of_desired_capacity() {
    let says = |seconds: i64, before: Option<i64>, after: i64| Saying {
        at: at(seconds).as_millisecond(),
        before,
        after,
    };
    let difference = "in response to a difference between desired and actual capacity";
    for (cause, expected) in [
        (
            format!(
                "At {} a user request update of AutoScalingGroup constraints to min: 0, max: 16, desired: 16 changing \
                 the desired capacity from 0 to 16.  At {} an instance was started {difference}, increasing the \
                 capacity from 0 to 16.",
                said(0),
                said(16)
            ),
            vec![says(0, Some(0), 16), says(16, None, 16)],
        ),
        (
            format!(
                "At {} a monitor alarm AlarmLow in state ALARM triggered policy At-night changing the desired \
                 capacity from 3 to 2.  At {} an instance was taken out of service {difference}, shrinking the \
                 capacity from 3 to 2.  At {} instance i-1 was selected for termination.",
                said(0),
                said(5),
                said(5)
            ),
            vec![says(0, Some(3), 2), says(5, None, 2)],
        ),
        (
            format!(
                "At {} instance i-1 was taken out of service in response to a user request, shrinking the capacity \
                 from 5 to 4.",
                said(7)
            ),
            vec![says(7, Some(5), 4)],
        ),
        (
            format!(
                "At {} an instance was started {difference}, increasing the capacity from 5 to many.",
                said(0)
            ),
            vec![],
        ),
        (format!("At {} an instance was launched in response to an unhealthy instance.", said(0)), vec![]),
        ("an instance was started, increasing the capacity from 1 to 2".to_owned(), vec![]),
        (format!("At {} it is increasing the capacity from -1 to 99999999999999.", said(0)), vec![]),
        (String::new(), vec![]),
    ] {
        assert_eq!(sayings(&cause), expected, "{cause}");
    }
}

#[test]
fn a_cause_that_says_nothing_known_is_unreadable() {
    let when = said(0);
    for (cause, expected) in [
        (
            format!(
                "At {when} an instance was launched in response to an unhealthy instance needing to be replaced."
            ),
            true,
        ),
        (format!("At {when} an instance was taken out of service in response to an instance refresh."), true),
        (format!("At {when} instance i-1 was taken out of service in response to a user request."), true),
        (
            format!(
                "At {when} a difference between desired and actual, increasing the capacity from 1 to 2."
            ),
            true,
        ),
        (
            format!(
                "At {when} a difference between desired and actual, increasing the capacity from a to b."
            ),
            false,
        ),
        (format!("At {when} an instance danced."), false),
        (String::new(), false),
    ] {
        assert_eq!(is_readable(&cause), expected, "{cause}");
    }
}

#[test]
fn why_an_instance_was_lost() {
    use LossReason::{Rebalance, SpotInterruption, TerminatedOrStopped, Unhealthy};
    let service = "an instance was taken out of service in response to";
    for (cause, message, expected) in [
        (
            format!("{service} an EC2 health check indicating it has been terminated or stopped."),
            "",
            Some(TerminatedOrStopped),
        ),
        (
            format!("{service} a EC2 health check indicating it has been terminated or stopped."),
            "",
            Some(TerminatedOrStopped),
        ),
        (format!("{service} a system health-check."), "", Some(TerminatedOrStopped)),
        (
            format!("{service} an EC2 health check indicating it has been terminated or stopped."),
            "Termination Reason: Server.SpotInstanceTermination: Spot instance termination",
            Some(SpotInterruption),
        ),
        (format!("{service} an EC2 instance rebalance recommendation."), "", Some(Rebalance)),
        (format!("{service} an EC2 instance status checks failure."), "", Some(Unhealthy)),
        (format!("{service} an ELB system health check failure."), "", Some(Unhealthy)),
        (format!("{service} a user health-check."), "", Some(Unhealthy)),
        (format!("{service} an EC2 scheduled reboot"), "", Some(Unhealthy)),
        (format!("{service} a difference between desired and actual capacity"), "", None),
        (format!("{service} a user request."), "", None),
        ("An instance was launched to aid in balancing the group's zones.".to_owned(), "", None),
    ] {
        assert_eq!(loss(&cause, message), expected, "{cause} {message}");
    }
}

#[test]
fn steps_are_summed_over_parts_of_time() {
    let steps = Steps::summed(1, vec![(20, -3), (10, 2), (10, 1)]);
    for (from, to, expected) in [(0, 10, 10), (0, 20, 50), (5, 25, 5 + 40 + 5), (20, 30, 10), (15, 15, 0)] {
        assert_eq!(steps.sum(from, to), expected, "{from}..{to}");
    }
    let twice = steps.with(&Steps::of(0, vec![(10, 10), (15, 0)]), |one, other| one + other);
    assert_eq!([0, 10, 15, 20].map(|at| twice.at(at)), [1, 14, 4, 1]);
}

/// A past to be told: activities of both groups, in hours after the Monday.
struct Past {
    spot: Vec<ScalingActivity>,
    on_demand: Vec<ScalingActivity>,
    spot_now: GroupNow,
    on_demand_now: GroupNow,
}

fn activity(
    seconds: i64,
    ends: i64,
    description: &str,
    cause: &str,
    failure: Option<&str>,
) -> ScalingActivity {
    ScalingActivity {
        description: description.to_owned(),
        cause: format!("At {} {cause}", said(seconds)),
        started_at: at(seconds),
        ended_at: Some(at(ends)),
        status: if failure.is_some() { ActivityStatus::Failed } else { ActivityStatus::Successful },
        message: failure.unwrap_or_default().to_owned(),
    }
}

fn launched(seconds: i64, id: &str, from: u32, to: u32) -> ScalingActivity {
    let cause = format!(
        "an instance was started in response to a difference between desired and actual capacity, increasing the \
         capacity from {from} to {to}."
    );
    activity(seconds, seconds + 60, &format!("Launching a new EC2 instance: {id}"), &cause, None)
}

fn refused(seconds: i64, from: u32, to: u32, why: &str) -> ScalingActivity {
    let failed = launched(seconds, "i-none", from, to);
    let description = "Launching a new EC2 instance".to_owned();
    ScalingActivity { description, status: ActivityStatus::Failed, message: why.to_owned(), ..failed }
}

fn taken(seconds: i64, id: &str) -> ScalingActivity {
    let cause = "an instance was taken out of service in response to an EC2 health check indicating it has been \
                 terminated or stopped.";
    activity(seconds, seconds + 30, &format!("Terminating EC2 instance: {id}"), cause, None)
}

fn set(seconds: i64, from: u32, to: u32) -> String {
    format!(
        "a user request explicitly set group desired capacity changing the desired capacity from {from} to {to}.  At \
         {} ",
        said(seconds)
    )
}

/// Raised to `to`, and the instance that came of it.
fn raised(seconds: i64, id: &str, from: u32, to: u32) -> ScalingActivity {
    let launch = launched(seconds, id, from, to);
    let (time, rest) = launch.cause.split_at(24);
    ScalingActivity { cause: format!("{time}{}{rest}", set(seconds, from, to)), ..launch }
}

fn group(desired: u32, in_service: &[&str]) -> GroupNow {
    let in_service = in_service.iter().map(|id| InstanceId::from(*id)).collect();
    GroupNow { desired, in_service, ..GroupNow::default() }
}

impl Past {
    fn facts(&self, days: i64) -> LookbackFacts {
        let record = |name: &str, now: &GroupNow, activities: &[ScalingActivity]| GroupRecord {
            name: GroupName::from(name),
            now: Some(now.clone()),
            activities: activities.to_vec(),
            known_from: at(0),
            gaps: Vec::new(),
        };
        LookbackFacts {
            spot: record("spot", &self.spot_now, &self.spot),
            on_demand: record("on-demand", &self.on_demand_now, &self.on_demand),
            since: at(0),
            now: at(days * 86_400),
            baseline: None,
        }
    }

    fn told(&self, days: i64) -> LookbackReport {
        look_back(&self.facts(days))
    }
}

fn actions(report: &LookbackReport) -> Vec<(i64, WouldDo, u32)> {
    let since = |found: &WouldHave| found.at.duration_since(at(0)).as_secs();
    report.would_have.iter().map(|found| (since(found), found.action, found.instances)).collect()
}

fn kinds(report: &LookbackReport) -> Vec<(GapKind, u32)> {
    report.gaps.iter().map(|gap| (gap.kind, gap.count)).collect()
}

#[test]
fn a_replaced_interruption_is_a_minute_of_missing_capacity() {
    let past = Past {
        spot: vec![taken(3600, "i-a"), launched(3601, "i-b", 1, 2)],
        on_demand: Vec::new(),
        spot_now: group(2, &["i-b", "i-c"]),
        on_demand_now: group(0, &[]),
    };
    let report = past.told(1);
    assert_eq!(report.total.interruptions, 1);
    assert_eq!(report.total.lost_by_reason, BTreeMap::from([(LossReason::TerminatedOrStopped, 1)]));
    assert_eq!(report.total.spot_unmet, Unmet { hours: 0.02, instance_hours: 0.02 });
    assert_eq!(actions(&report), [(3600, WouldDo::ReplaceOnSpot, 1)]);
    assert_eq!(kinds(&report), [(GapKind::LossUnexplained, 1)]);
}

#[test]
fn a_dry_market_is_missing_capacity_a_fallback_and_a_return() {
    // One of two is taken at 1:00; Spot refuses until 3:00; on-demand stands in from 1:10 until 5:00.
    let shrinks = "instance i-o was taken out of service in response to a user request, shrinking the capacity from \
                   1 to 0.";
    let past = Past {
        spot: vec![
            taken(3600, "i-a"),
            refused(3601, 1, 2, DRY),
            refused(7200, 1, 2, DRY),
            launched(10_800, "i-b", 1, 2),
        ],
        on_demand: vec![
            raised(4140, "i-o", 0, 1),
            activity(18_000, 18_030, "Terminating EC2 instance: i-o", shrinks, None),
        ],
        spot_now: group(2, &["i-b", "i-c"]),
        on_demand_now: group(0, &[]),
    };
    let report = past.told(1);
    assert_eq!(report.total.spot_launches_failed, BTreeMap::from([(FailureClass::Capacity, 2)]));
    assert_eq!(report.total.spot_unmet, Unmet { hours: 2.02, instance_hours: 2.02 });
    assert_eq!(report.total.on_demand_unmet, Unmet { hours: 0.02, instance_hours: 0.02 });
    let above = AboveBaseline { spot_could_serve: 2.0, spot_failed: 1.83, not_known: 0.0 };
    assert_eq!(report.total.on_demand_above_baseline, above);
    assert_eq!(
        actions(&report),
        [
            (3600, WouldDo::FallBackToOnDemand, 1),
            (3601, WouldDo::StayOnDemand, 1),
            (7200, WouldDo::StayOnDemand, 1),
            (10_980, WouldDo::ReturnToSpot, 1),
        ]
    );
    assert_eq!(kinds(&report), [(GapKind::LossUnexplained, 1)]);
}

#[test]
fn when_neither_group_launches_both_are_tried_again() {
    let past = Past {
        spot: vec![refused(3600, 1, 3, DRY), refused(7200, 1, 3, DRY)],
        on_demand: vec![refused(3660, 0, 1, DRY)],
        spot_now: group(3, &["i-a"]),
        on_demand_now: group(1, &[]),
    };
    let report = past.told(1);
    let expected = [(3600, WouldDo::KeepTrying, 2), (7200, WouldDo::FallBackToOnDemand, 2)];
    assert_eq!(actions(&report), expected);
    assert_eq!(report.total.on_demand_launches_failed, BTreeMap::from([(FailureClass::Capacity, 1)]));
}

#[test]
fn what_says_nothing_of_spot_is_waited_for() {
    let throttled = "Could not launch Spot Instances. RequestLimitExceeded - Request limit exceeded.";
    let past = Past {
        spot: vec![refused(3600, 1, 2, throttled), refused(7200, 1, 2, "Something new")],
        on_demand: Vec::new(),
        spot_now: group(2, &["i-a"]),
        on_demand_now: group(0, &[]),
    };
    assert_eq!(actions(&past.told(1)), [(3600, WouldDo::Wait, 0), (7200, WouldDo::Wait, 0)]);
}

#[test]
fn an_hour_after_a_failure_that_nobody_tried_again_nothing_is_known_of_spot() {
    // Spot fails at 1:00, and desired capacity is lowered again at 2:00 with a termination.
    let lowers = "instance i-a was taken out of service in response to a user request, shrinking the capacity from 3 \
                  to 1.";
    let past = Past {
        spot: vec![
            refused(3600, 2, 3, DRY),
            activity(7200, 7230, "Terminating EC2 instance: i-a", lowers, None),
        ],
        on_demand: Vec::new(),
        spot_now: group(1, &["i-b"]),
        on_demand_now: group(1, &["i-o"]),
    };
    let report = past.told(1);
    let above = AboveBaseline { spot_could_serve: 1.0, spot_failed: 1.0, not_known: 22.0 };
    assert_eq!(report.total.on_demand_above_baseline, above);
    let expected = [(3600, WouldDo::FallBackToOnDemand, 1), (7200, WouldDo::EndFallback, 1)];
    assert_eq!(actions(&report), expected);
}

#[test]
fn on_demand_counts_above_the_larger_of_minimum_and_baseline() {
    for (min, baseline, expected) in [(0, None, 48.0), (1, None, 24.0), (0, Some(2), 0.0), (1, Some(0), 24.0)]
    {
        let past = Past {
            spot: Vec::new(),
            on_demand: Vec::new(),
            spot_now: group(0, &[]),
            on_demand_now: GroupNow { min, ..group(2, &["i-1", "i-2"]) },
        };
        let report = look_back(&LookbackFacts { baseline, ..past.facts(1) });
        let above = report.total.on_demand_above_baseline;
        assert_eq!(above.spot_could_serve, expected, "minimum {min}, baseline {baseline:?}");
    }
}

#[test]
fn a_change_that_no_activity_shows_is_a_gap_and_the_figure_a_lower_bound() {
    // Refused at 1:00 with 3 desired and 1 there; now 2 are desired, and nothing says since when.
    let past = Past {
        spot: vec![refused(3600, 1, 3, DRY)],
        on_demand: Vec::new(),
        spot_now: group(2, &["i-a"]),
        on_demand_now: group(0, &[]),
    };
    let report = past.told(1);
    assert_eq!(report.total.spot_unmet.instance_hours, 2.0 + 23.0);
    let gap = &report.gaps[0];
    assert_eq!((gap.kind, gap.count), (GapKind::DesiredUnknown, 1));
    assert_eq!((gap.hours, gap.instance_hours), (Some(23.0), Some(23.0)));
}

#[test]
fn each_thing_that_the_record_does_not_show_is_counted() {
    let mut odd = launched(60, "i-b", 1, 2);
    odd.cause = "Something new".to_owned();
    let mut other = launched(120, "i-c", 1, 2);
    other.description = "Dancing".to_owned();
    let under_way = ScalingActivity { status: ActivityStatus::UnderWay, ..launched(180, "i-d", 1, 2) };
    let past = Past {
        spot: vec![odd, other, under_way],
        on_demand: Vec::new(),
        spot_now: group(2, &["i-b", "i-d"]),
        on_demand_now: GroupNow { is_weighted: true, created_at: Some(at(3600)), ..group(9, &["i-o"]) },
    };
    let mut facts = past.facts(1);
    facts.since = at(-6 * 7 * 86_400);
    facts.spot.known_from = facts.since;
    facts.on_demand.known_from = facts.since;
    let report = look_back(&facts);
    let expected = [
        (GapKind::OlderThanSixWeeks, 1),
        (GapKind::UnreadableCause, 1),
        (GapKind::UnknownActivity, 1),
        (GapKind::ServiceUnknown, 1),
        (GapKind::Weighted, 1),
        (GapKind::GroupIsYounger, 1),
    ];
    assert_eq!(kinds(&report), expected);
    assert_eq!(report.gaps[0].hours, Some(24.0));
    assert_eq!(report.gaps[1].example.as_deref(), Some("Something new"));
    assert_eq!(report.total.on_demand_unmet.instance_hours, 0.0);
    assert_eq!(report.total.on_demand_above_baseline.spot_could_serve, 23.0);
}

#[test]
fn what_is_before_the_record_is_neither_counted_nor_summed() {
    let past = Past {
        spot: vec![refused(3600, 1, 2, DRY), taken(7200, "i-a")],
        on_demand: Vec::new(),
        spot_now: group(2, &[]),
        on_demand_now: group(1, &["i-o"]),
    };
    let mut facts = past.facts(1);
    facts.spot.known_from = at(7200);
    let report = look_back(&facts);
    assert_eq!((report.total.interruptions, report.total.spot_launches_failed.len()), (1, 0));
    assert_eq!(report.total.spot_unmet.instance_hours, 44.0);
    let known = (report.weeks[0].spot_known_hours, report.weeks[0].on_demand_known_hours);
    assert_eq!(known, (22.0, 24.0));
    let above = report.total.on_demand_above_baseline;
    assert_eq!(above.spot_could_serve + above.spot_failed + above.not_known, 22.0);
}

#[test]
fn weeks_begin_on_monday_and_sum_up_to_the_whole() {
    let past = Past {
        spot: vec![taken(3 * 86_400, "i-a"), launched(8 * 86_400, "i-b", 0, 1)],
        on_demand: Vec::new(),
        spot_now: group(1, &["i-b"]),
        on_demand_now: group(1, &["i-o"]),
    };
    let mut facts = past.facts(10);
    facts.since = at(2 * 86_400);
    let report = look_back(&facts);
    let weeks: Vec<_> = report.weeks.iter().map(|week| (week.monday, week.from, week.to)).collect();
    let monday = at(7 * 86_400);
    assert_eq!(weeks, [(at(0), at(2 * 86_400), monday), (monday, monday, at(10 * 86_400))]);
    let missing: Vec<f64> = report.weeks.iter().map(|week| week.figures.spot_unmet.instance_hours).collect();
    assert_eq!(missing, [96.0, 24.02]);
    assert_eq!(report.total.spot_unmet.instance_hours, 120.02);
    let cells = &report.weeks[0].cells;
    assert_eq!(cells.len(), 56);
    assert!(!cells[15].is_known && cells[16].is_known, "two days of eight cells are not looked at");
    let third_day = (cells[23].missing, cells[24].missing, cells[24].interruptions);
    assert_eq!(third_day, (0.0, 1.0, 1));
}

#[test]
fn hours_are_rounded_to_two_decimals() {
    for (millis, expected) in [(0, 0.0), (HOUR, 1.0), (HOUR / 3, 0.33), (2 * HOUR / 3, 0.67), (1, 0.0)] {
        assert_eq!(timeline::hours(millis), expected, "{millis}");
    }
}
