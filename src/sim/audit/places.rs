//! Stand-ins for Spot capacity that is missing without a notice: never more than are missing.

use super::{Auditor, Invariant};
use crate::crd::SpotPool;
use kube::ResourceExt;
use spot_guard_core::record::CapacityState;
use spot_guard_core::time::since;
use std::time::Duration;

/// What came so lately may not have been read yet: a group that something is awaited from is read every 10 s.
const READ_WITHIN: Duration = Duration::from_secs(15);

impl Auditor {
    /// A stand-in begins, or an instance is requested of an on-demand group: as many are missing.
    pub(super) fn watch_places(&self, on_demand: Option<&str>) {
        let pools = self.pools();
        let named = |pool: &&std::sync::Arc<SpotPool>| {
            on_demand.is_none_or(|group| pool.spec.on_demand_group.as_str() == group)
        };
        for pool in pools.iter().filter(named) {
            let records = self.records();
            let requested = records.iter().filter(|record| {
                let own = record.spec.place.is_some()
                    && *record.spec.pool.as_deref().unwrap_or("") == *pool.name_any();
                let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
                let waits = |capacity: &CapacityState| {
                    capacity.taken().is_none() && !matches!(capacity, CapacityState::Withdrawn { .. })
                };
                own && status.is_some_and(|status| waits(&status.capacity))
            });
            let (requested, missing) = (requested.count(), self.missing(&pool.spec.spot_group));
            if requested > missing {
                let found =
                    format!("{requested} stand-ins are requested, and {missing} instances are missing");
                self.violated(Invariant::OnlyMissing, &pool.name_any(), found);
            }
        }
    }

    /// How many instances a group lacks, or lacked until lately.
    fn missing(&self, group: &str) -> usize {
        let Some(found) = self.inner.cloud.group(group) else { return 0 };
        let now = self.inner.clock.now();
        let is_there = |held: &&spot_guard_cloud::cloud::InstanceSnapshot| {
            !held.state.is_ending() && held.machine_runs && since(held.launched_at, now) >= READ_WITHIN
        };
        let there = found.instances.iter().filter(is_there).count();
        // What others take out may not have been read either.
        let desired = i64::from(found.desired) + found.lowered_by_others;
        usize::try_from(desired).unwrap_or(0).saturating_sub(there)
    }
}
