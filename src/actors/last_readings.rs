//! When the groups of each pool were last read, for those who show it.

use jiff::Timestamp;
use spot_guard_core::ids::PoolName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When the groups of each pool were last read. The replica that leads is the one that reads. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct LastReadings(Arc<Mutex<BTreeMap<PoolName, Timestamp>>>);

impl LastReadings {
    /// The groups of a pool were read.
    pub fn read(&self, pool: &PoolName, at: Timestamp) {
        self.held().insert(pool.clone(), at);
    }

    /// When the groups of a pool were last read; `None` if this process has not read them in this term.
    #[must_use]
    pub fn of(&self, pool: &PoolName) -> Option<Timestamp> {
        self.held().get(pool).copied()
    }

    /// Forgets the pools that there are no more.
    pub fn keep(&self, pools: &BTreeSet<PoolName>) {
        self.held().retain(|pool, _| pools.contains(pool));
    }

    /// Forgets all: another replica reads from now on.
    pub fn forget(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<PoolName, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
