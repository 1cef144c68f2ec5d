//! A look back at a pair of groups: what AWS still knows of interruptions and failed launches, and what Spot
//! Guard would have done.
//!
//! The past is put together from scaling activities. What they do not show is a [`Gap`], never a guess.

mod cause;
mod facts;
mod gaps;
mod history;
mod market;
mod report;
#[cfg(test)]
mod tests;
mod timeline;
mod weeks;
mod would_have;

pub use facts::{ActivityStatus, GroupNow, GroupRecord, LookbackFacts, ScalingActivity};
pub use gaps::{Gap, GapKind};
pub use report::{
    AboveBaseline, Figures, LookbackReport, LossReason, Occasion, PlotCell, Unmet, WeekReport, WouldDo,
    WouldHave,
};

use jiff::{SignedDuration, Timestamp};
use timeline::{millis, time};
use weeks::Pasts;

/// For how long AWS keeps scaling activities: six weeks (API Reference, DescribeScalingActivities).
pub const KEPT: SignedDuration = SignedDuration::from_hours(6 * 7 * 24);

/// The beginning of what can be looked at, and what is too old for it.
#[must_use]
pub fn beginning(since: Timestamp, now: Timestamp) -> (Timestamp, Option<Gap>) {
    let oldest = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    let gap = (since < oldest).then(|| Gap::new(GapKind::OlderThanSixWeeks, None, 1).covering(since, oldest));
    (since.max(oldest), gap)
}

/// Looks back.
#[must_use]
pub fn look_back(facts: &LookbackFacts) -> LookbackReport {
    let (from, too_old) = beginning(facts.since, facts.now);
    let (from, to) = (millis(from), millis(facts.now));
    let spot = history::history(&facts.spot, from, to);
    let on_demand = history::history(&facts.on_demand, from, to);
    let market = market::market(&spot, to);
    let min = facts.on_demand.now.as_ref().map_or(0, |now| now.min);
    let baseline = facts.baseline.unwrap_or(min).max(min);
    let pasts = Pasts::new(&spot, &on_demand, &market, baseline);
    let total = pasts.figures(from, to);
    let unexplained = total.lost_by_reason.get(&LossReason::TerminatedOrStopped).copied().unwrap_or(0);
    let unexplained = Gap::new(GapKind::LossUnexplained, Some(&facts.spot.name), unexplained);
    let mut gaps: Vec<Gap> = too_old.into_iter().chain(spot.gaps.clone()).collect();
    gaps.extend(on_demand.gaps.iter().cloned());
    gaps.extend(Some(unexplained).filter(|gap| gap.count > 0));
    LookbackReport {
        spot_group: facts.spot.name.clone(),
        on_demand_group: facts.on_demand.name.clone(),
        from: time(from),
        to: time(to),
        baseline,
        weeks: pasts.weeks(from, to),
        total,
        would_have: would_have::would_have(&spot, &on_demand, &market, to),
        gaps,
    }
}
