//! What holds voluntary work back: how many nodes are moved at a time and how old they must be, the brake,
//! the budget and the windows of returns, and pauses. An interruption notice passes all of them.

#[cfg(test)]
mod tests;

use crate::group::PoolView;
use crate::ids::InstanceId;
use crate::policy::{Policy, seconds};
pub use crate::reason::Pause;
use crate::reason::Reason;
use crate::record::{CapacityState, FlowBox, NoticeKind, Phase, ReplacementStatus};
use crate::time::since;
use crate::windows::ReturnWindow;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A drain that is blocked for so long no longer counts as under way, if its replacement is there.
const BLOCKED_TOO_LONG: Duration = Duration::from_secs(600);
/// A Spot instance that is interrupted so soon after a return began that relied on it makes it a lost one.
const LOST_WITHIN: Duration = Duration::from_secs(1800);
/// So long the next return waits after a lost one; each further one doubles it, up to the longest wait.
const LOST_WAIT: Duration = Duration::from_secs(600);
const LONGEST_LOST_WAIT: Duration = Duration::from_secs(4 * 3600);
/// A quiet time of this length halves it.
const QUIET: Duration = Duration::from_secs(3600);
/// What the brake looks back at.
const BRAKE_PERIOD: Duration = Duration::from_secs(3600);

/// What stands against beginning a replacement in a pool now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// A pause.
    pub pause: Option<Pause>,
    /// As many replacements as the pool allows at a time are under way: so many.
    pub full: Option<usize>,
}

/// How many replacements may be under way in the pool at a time; at least one.
#[must_use]
pub fn at_most(policy: &Policy, view: Option<&PoolView>) -> usize {
    let share = view.map_or(usize::MAX, |view| {
        pool_size(view) * usize::try_from(policy.max_concurrent_percent).unwrap_or(100) / 100
    });
    usize::try_from(policy.max_concurrent_replacements).unwrap_or(usize::MAX).min(share).max(1)
}

/// Whether a replacement moves its node now: from its first request until the node is drained.
///
/// A doomed node keeps taint and cordon however long a budget holds its drain up; that must not keep the
/// others waiting.
#[must_use]
pub fn is_under_way(status: &ReplacementStatus, now: Timestamp) -> bool {
    if status.is_finished() || status.phase() == Phase::Received || status.old_node.is_past_drain() {
        return false;
    }
    let blocked = status
        .blocking
        .iter()
        .any(|reason| reason.flow_box == FlowBox::Drain && since(reason.since, now) >= BLOCKED_TOO_LONG);
    !(status.old_node.is_over() || blocked && status.capacity.taken().is_some())
}

/// Why a replacement may not begin, if so; `created` is when its node was. What a person requested passes
/// the minimum age.
#[must_use]
pub fn start_held(
    starts: &Starts,
    policy: &Policy,
    notice: Option<NoticeKind>,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Option<Reason> {
    if let Some(pause) = &starts.pause {
        return Some(Reason::Paused(pause.clone()));
    }
    let counts = notice != Some(NoticeKind::Manual);
    if created
        .filter(|_| counts)
        .is_some_and(|created| since(created, now) < seconds(policy.min_node_age_seconds))
    {
        return Some(Reason::NodeTooYoung { seconds: policy.min_node_age_seconds });
    }
    starts.full.map(|limit| Reason::ConcurrencyLimit { limit })
}

/// How many nodes of the pool may return at a time.
#[must_use]
pub fn returns_at_most(policy: &Policy, view: &PoolView) -> usize {
    match usize::try_from(policy.max_concurrent_returns) {
        Ok(0) => (pool_size(view) / 10).clamp(1, 5),
        limit => limit.unwrap_or(usize::MAX),
    }
}

/// Which limits let no return begin in a pool now; `known` are all its replacements, finished ones too, with
/// their old instances. For a return that a person requested only the brake counts.
#[must_use]
pub fn returns_held<'a>(
    policy: &Policy,
    view: &PoolView,
    known: impl Iterator<Item = (&'a InstanceId, &'a ReplacementStatus)> + Clone,
    requested: bool,
    now: Timestamp,
) -> Vec<Reason> {
    let replacements = known.clone().map(|(_, status)| status);
    let mut reasons = Vec::new();
    let within = |at: Option<Timestamp>, period| at.is_some_and(|at| since(at, now) < period);
    let notices = replacements
        .clone()
        .filter(|status| is_interruption(status))
        .filter(|status| within(status.started_at, BRAKE_PERIOD))
        .count();
    let brake = brake_at(policy, view);
    if notices > brake {
        reasons.push(Reason::InterruptionBrake { limit: brake });
    }
    if requested {
        return reasons;
    }
    let until = lost_until(known).filter(|until| now < *until);
    reasons.extend(until.map(|until| Reason::ReturnsLost { until }));
    let first_try = seconds(policy.spot_timeout_seconds) + seconds(policy.on_demand_timeout_seconds);
    let waits = |status: &&ReplacementStatus| {
        let takes_long = status.started_at.is_none_or(|at| since(at, now) >= first_try);
        !takes_long && waits_for_capacity(status)
    };
    let count = replacements.clone().filter(waits).count();
    reasons.extend((count > 0).then_some(Reason::ReplacementsUnderWay { count }));
    let period = seconds(policy.return_budget_seconds);
    let begun = replacements.filter(|status| within(status.return_started_at, period)).count();
    let budget = usize::try_from(policy.return_budget).unwrap_or(usize::MAX);
    if budget > 0 && begun >= budget {
        reasons.push(Reason::ReturnBudget { budget, period });
    }
    reasons.extend(outside_windows(&policy.return_windows, now));
    reasons
}

/// Whether a replacement has requested capacity and has none yet.
fn waits_for_capacity(status: &ReplacementStatus) -> bool {
    let requested =
        !matches!(*status.capacity, CapacityState::NotRequested {} | CapacityState::Withdrawn { .. });
    requested && status.capacity.taken().is_none() && !status.old_node.is_retained() && !status.is_finished()
}

/// Whether the record tells of an instance that Spot takes. What is only recommended to a group that replaces
/// by itself may never be taken, and of an adopted instance nothing was taken.
fn is_interruption(status: &ReplacementStatus) -> bool {
    status.notice.is_none_or(NoticeKind::is_of_market) && !status.is_advice_of_group() && !status.is_adopted()
}

/// Until when no return begins, after Spot instances that took over were lost soon after, as far back as
/// records are kept.
fn lost_until<'a>(
    known: impl Iterator<Item = (&'a InstanceId, &'a ReplacementStatus)> + Clone,
) -> Option<Timestamp> {
    let taken_over = known.clone().filter_map(|(_, status)| {
        let successor = status.fallback.successor().filter(|_| status.fallback.is_past_drain())?;
        Some((&successor.instance_id, status.return_started_at?))
    });
    let taken_over: BTreeMap<&InstanceId, Timestamp> = taken_over.collect();
    let is_lost = |(id, at): &(&InstanceId, Timestamp)| {
        let began = taken_over.get(id).filter(|began| **began <= *at);
        began.is_some_and(|began| since(*began, *at) < LOST_WITHIN)
    };
    let interrupted = known.filter(|(_, status)| is_interruption(status));
    let begun = interrupted.filter_map(|(id, status)| Some((id, status.started_at?)));
    let mut losses: Vec<Timestamp> = begun.filter(is_lost).map(|(_, at)| at).collect();
    losses.sort_unstable();
    let (mut wait, mut last) = (Duration::ZERO, *losses.first()?);
    for at in losses {
        wait = (halved(wait, quiet_hours(last, at)) * 2).clamp(LOST_WAIT, LONGEST_LOST_WAIT);
        last = at;
    }
    let ends = |hours: u32| (halved(wait, hours)).max(QUIET * hours);
    let end = (0..).map(ends).zip(1..).find(|(end, hour)| *end <= QUIET * *hour)?.0;
    Some(last + end)
}

fn quiet_hours(from: Timestamp, to: Timestamp) -> u32 {
    u32::try_from(since(from, to).as_secs() / QUIET.as_secs()).unwrap_or(u32::MAX)
}

fn halved(wait: Duration, times: u32) -> Duration {
    wait / (1 << times.min(16))
}

/// Whether a finished record may be removed: it was shown for as long as the pool asks, and no limit counts
/// it any more.
#[must_use]
pub fn is_removable(status: &ReplacementStatus, policy: &Policy, now: Timestamp) -> bool {
    let keep = seconds(policy.keep_finished_seconds).max(look_back(policy));
    status.finished_at.is_some_and(|at| since(at, now) >= keep)
}

/// How long finished records are needed for these decisions.
fn look_back(policy: &Policy) -> Duration {
    BRAKE_PERIOD.max(seconds(policy.return_budget_seconds))
}

/// How many interruptions within an hour the pool takes without the brake.
fn brake_at(policy: &Policy, view: &PoolView) -> usize {
    let share = pool_size(view) * usize::try_from(policy.brake_percent).unwrap_or(100) / 100;
    usize::try_from(policy.brake_interruptions).unwrap_or(usize::MAX).max(share)
}

fn pool_size(view: &PoolView) -> usize {
    view.spot.in_service() + view.on_demand.in_service()
}

/// Why returns may not begin now, if none of the windows is open. One that cannot be used never is.
fn outside_windows(windows: &[ReturnWindow], now: Timestamp) -> Vec<Reason> {
    let found: Vec<_> = windows.iter().map(|window| window.is_open(now)).collect();
    if windows.is_empty() || found.iter().any(|open| open == &Ok(true)) {
        return Vec::new();
    }
    let unusable = found.into_iter().filter_map(Result::err).map(Reason::BadReturnWindow);
    std::iter::once(Reason::ReturnWindow).chain(unusable).collect()
}
