//! Figures of a time: of a week, of three hours, of all.

use super::history::GroupHistory;
use super::market::{FAILS, LAUNCHES, UNTRIED};
use super::report::{AboveBaseline, Figures, PlotCell, Unmet, WeekReport};
use super::timeline::{HOUR, Steps, hours, time};
use crate::group::FailureClass;
use std::collections::BTreeMap;

const WEEK: i64 = 7 * 24 * HOUR;
/// The first Monday of the Unix time: 1970-01-05.
const FIRST_MONDAY: i64 = 4 * 24 * HOUR;
/// The time of one column of a plot.
const CELL: i64 = 3 * HOUR;

/// What is counted and summed.
pub(super) struct Pasts<'a> {
    pub spot: &'a GroupHistory,
    pub on_demand: &'a GroupHistory,
    /// On-demand instances above the baseline, by the state of the Spot market.
    above: [Steps; 3],
}

impl<'a> Pasts<'a> {
    pub(super) fn new(
        spot: &'a GroupHistory,
        on_demand: &'a GroupHistory,
        market: &Steps,
        baseline: u32,
    ) -> Self {
        let above =
            on_demand.in_service.with(&Steps::default(), |there, _| (there - i64::from(baseline)).max(0));
        let in_state = |state| above.with(market, |above, market| if market == state { above } else { 0 });
        Self { spot, on_demand, above: [LAUNCHES, FAILS, UNTRIED].map(in_state) }
    }

    /// On-demand instance-milliseconds above the baseline, by the state of the Spot market. They need both
    /// records.
    fn above(&self, from: i64, to: i64) -> [i64; 3] {
        let from = from.max(self.spot.from).max(self.on_demand.from);
        [0, 1, 2].map(|state| self.above[state].sum(from.min(to), to))
    }

    pub(super) fn figures(&self, from: i64, to: i64) -> Figures {
        let (spot, on_demand) = (self.spot, self.on_demand);
        let mut figures = Figures::default();
        let losses = spot.losses.iter().filter(|loss| is_within(loss.at, spot, from, to));
        for loss in losses {
            *figures.lost_by_reason.entry(loss.reason).or_default() += 1;
            figures.interruptions += u32::from(loss.reason.is_interruption());
        }
        let [could, failed, unknown] = self.above(from, to).map(hours);
        Figures {
            spot_launches_failed: failures(spot, from, to),
            on_demand_launches_failed: failures(on_demand, from, to),
            spot_unmet: unmet(spot, from, to),
            on_demand_unmet: unmet(on_demand, from, to),
            on_demand_above_baseline: AboveBaseline {
                spot_could_serve: could,
                spot_failed: failed,
                not_known: unknown,
            },
            ..figures
        }
    }

    fn cell(&self, from: i64, to: i64) -> PlotCell {
        let (spot, on_demand) = (self.spot, self.on_demand);
        if to <= from.max(spot.from.min(on_demand.from)) {
            return PlotCell::default();
        }
        let count = |found: usize| u32::try_from(found).unwrap_or(u32::MAX);
        let lost = |group: &GroupHistory| {
            let losses = group.losses.iter().filter(|loss| loss.reason.is_interruption());
            losses.filter(|loss| is_within(loss.at, group, from, to)).count()
        };
        let failed = |group: &GroupHistory| failures(group, from, to).values().sum::<u32>();
        let span = hours(to - from);
        let average = |instance_millis: i64| if span > 0.0 { hours(instance_millis) / span } else { 0.0 };
        let [spot_could_serve, spot_failed, not_known] = self.above(from, to).map(average);
        PlotCell {
            is_known: true,
            interruptions: count(lost(spot)),
            launches_failed: failed(spot).saturating_add(failed(on_demand)),
            missing: average(spot.missing.sum(from.max(spot.from).min(to), to)),
            above_baseline: AboveBaseline { spot_could_serve, spot_failed, not_known },
        }
    }

    /// The weeks of a time, oldest first.
    pub(super) fn weeks(&self, from: i64, to: i64) -> Vec<WeekReport> {
        let mut monday = from - (from - FIRST_MONDAY).rem_euclid(WEEK);
        let mut weeks = Vec::new();
        while monday < to {
            let (begin, end) = (monday.max(from), (monday + WEEK).min(to));
            let cell =
                |at: i64| self.cell((monday + at * CELL).max(begin), (monday + (at + 1) * CELL).min(end));
            weeks.push(WeekReport {
                monday: time(monday),
                from: time(begin),
                to: time(end),
                spot_known_hours: hours((end - begin.max(self.spot.from)).max(0)),
                on_demand_known_hours: hours((end - begin.max(self.on_demand.from)).max(0)),
                figures: self.figures(begin, end),
                cells: (0..WEEK / CELL).map(cell).collect(),
            });
            monday += WEEK;
        }
        weeks
    }
}

/// Whether something of a group's record lies in a time.
fn is_within(at: i64, group: &GroupHistory, from: i64, to: i64) -> bool {
    at >= group.from && (from..to).contains(&at)
}

fn failures(group: &GroupHistory, from: i64, to: i64) -> BTreeMap<FailureClass, u32> {
    let mut counts = BTreeMap::new();
    let failed = group.launches.iter().filter(|launch| is_within(launch.at, group, from, to));
    failed.filter_map(|launch| launch.failed).for_each(|class| *counts.entry(class).or_default() += 1);
    counts
}

fn unmet(group: &GroupHistory, from: i64, to: i64) -> Unmet {
    let from = from.max(group.from).min(to);
    Unmet {
        hours: hours(group.missing.is_positive().sum(from, to)),
        instance_hours: hours(group.missing.sum(from, to)),
    }
}
