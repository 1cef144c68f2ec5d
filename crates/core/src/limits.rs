//! What holds voluntary work back: how many nodes are moved at a time and how old they must be, the brake,
//! the budget and the windows of returns, and pauses. An interruption notice passes all of them.

#[cfg(test)]
mod tests;

use crate::group::PoolView;
use crate::policy::{Policy, seconds};
pub use crate::reason::Pause;
use crate::reason::Reason;
use crate::record::{FlowBox, NoticeKind, Phase, ReplacementStatus};
use crate::time::since;
use crate::windows::ReturnWindow;
use jiff::Timestamp;
use std::time::Duration;

/// A drain that is blocked for so long no longer counts as under way, if its replacement is there.
const BLOCKED_TOO_LONG: Duration = Duration::from_secs(600);
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

/// Which limits let no return begin in a pool now; `replacements` are all that are known of it, finished
/// ones too. For a return that a person requested only the brake counts, not the budget and the windows.
#[must_use]
pub fn returns_held<'a>(
    policy: &Policy,
    view: &PoolView,
    replacements: impl Iterator<Item = &'a ReplacementStatus> + Clone,
    requested: bool,
    now: Timestamp,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let within = |at: Option<Timestamp>, period| at.is_some_and(|at| since(at, now) < period);
    let notices = replacements
        .clone()
        .filter(|status| status.notice.is_none_or(NoticeKind::is_of_market))
        .filter(|status| within(status.started_at, BRAKE_PERIOD))
        .count();
    let brake = brake_at(policy, view);
    if notices > brake {
        reasons.push(Reason::InterruptionBrake { limit: brake });
    }
    if requested {
        return reasons;
    }
    let period = seconds(policy.return_budget_seconds);
    let begun = replacements.filter(|status| within(status.return_started_at, period)).count();
    let budget = usize::try_from(policy.return_budget).unwrap_or(usize::MAX);
    if budget > 0 && begun >= budget {
        reasons.push(Reason::ReturnBudget { budget, period });
    }
    reasons.extend(outside_windows(&policy.return_windows, now));
    reasons
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
    let unusable = found.into_iter().filter_map(Result::err).map(|error| Reason::BadReturnWindow { error });
    std::iter::once(Reason::ReturnWindow).chain(unusable).collect()
}
