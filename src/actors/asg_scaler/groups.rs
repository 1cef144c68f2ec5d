//! How the groups of a pool are read.

use super::ledger_store::StoreError;
use crate::actors::deps::{Deps, PoolConfig};
use crate::aws::CallError;
use jiff::Timestamp;
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::GroupName;
use spot_guard_core::ledger::{CLOCK_SKEW, Ledger};
use spot_guard_core::readings::Readings;
use spot_guard_core::record::GroupKind;
use spot_guard_core::scaling::calls::Deferred;
use spot_guard_core::shortfall;
use std::time::Duration;
use thiserror::Error;

/// Why a look at a pool ended early.
#[derive(Debug, Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Aws(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("Auto Scaling group {0} does not exist")]
    NoSuchGroup(GroupName),
    #[error("this process does not hold the lease for long enough")]
    NotLeading,
}

/// Reads both groups, and of their activities what the ledger waits for. `up` is how long the readings have
/// been kept; what they leave open is noted in `deferred`.
pub(super) async fn read(
    deps: &Deps,
    pool: &PoolConfig,
    ledger: &Ledger,
    (spot_failures_since, urgent, pressed): (Option<Timestamp>, bool, bool),
    (readings, up): (&mut Readings, Duration),
    deferred: &mut Deferred,
) -> Result<PoolView, TurnError> {
    let names = [pool.spot_group.clone(), pool.on_demand_group.clone()];
    let mut found = deps.aws.groups(&names, urgent).await?;
    if names.iter().any(|name| !found.contains_key(name)) {
        // Not found is believed when it was read twice: an answer may be cut short on its way.
        found = deps.aws.groups(&names, urgent).await?;
    }
    let take =
        |name: &GroupName| found.get(name).cloned().ok_or_else(|| TurnError::NoSuchGroup(name.clone()));
    let mut view = PoolView { spot: take(&names[0])?, on_demand: take(&names[1])? };
    let now = deps.clock.now();
    ledger.limit_launches(&mut view, now);
    pool.launch_instances.limit(&mut view);
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let recent = spot_guard_core::health::failure_counts_for(&pool.policy);
        let watched = [spot_failures_since, shortfall::failures_matter_since(ledger, &pool.policy, now)];
        let watched = watched.into_iter().flatten().filter(|_| kind == GroupKind::Spot);
        let since = ledger.failures_matter_since(kind, recent, now).into_iter().chain(watched).min();
        if let Some(since) = since {
            let launches = match deps.aws.launches(pool.group(kind), since - CLOCK_SKEW).await {
                Ok(launches) => launches,
                // A deadline goes on without them: they only tell earlier what a timeout tells later.
                Err(error) if pressed => {
                    tracing::warn!(pool = &*pool.name, %error, "activities could not be read; a deadline goes on");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match kind {
                GroupKind::Spot => view.spot.take_in(launches),
                GroupKind::OnDemand => view.on_demand.take_in(launches),
            }
        }
    }
    deferred.note_uncertain(readings.correct(&mut view, ledger, up));
    Ok(view)
}

/// Reads which instance refreshes are under way, now and then, and whether a hook holds what a group
/// terminates by itself. At the end of a turn: no call waits for it.
pub(super) async fn read_refreshes(deps: &Deps, view: &mut PoolView, readings: &mut Readings, up: Duration) {
    for group in readings.ask_for_refreshes(&[&view.spot.name, &view.on_demand.name], up) {
        match deps.aws.refresh(&group).await {
            Ok(status) => readings.note_refresh(&group, status),
            // What was known holds, and the metric of calls tells: no turn fails for it.
            Err(error) => tracing::debug!(group = &*group, %error, "instance refreshes could not be read"),
        }
        if group == view.spot.name && view.spot.setup.needs_termination_hook() {
            match deps.aws.has_termination_hook(&group).await {
                Ok(found) => readings.note_hook(&group, found),
                Err(error) => tracing::debug!(group = &*group, %error, "lifecycle hooks could not be read"),
            }
        }
    }
    readings.show_rollouts(view, up);
}
