//! `/api/v1/pools/{name}/history`: the instances of a pool over time.
//!
//! Each replica remembers what it has seen of every pool's status since it was started. Nothing of it is
//! stored: the metrics are there for longer times.

use super::model::Counts;
use crate::crd::SpotPool;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes that are remembered of one pool.
const MOST: usize = 500;
/// What was so long ago is forgotten.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// The instances of a pool from a moment on, until the next sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Since when it was so.
    pub at: Timestamp,
    /// The Spot group, once it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot: Option<Counts>,
    /// The on-demand group, once it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Counts>,
}

/// `/api/v1/pools/{name}/history`: how many instances there were, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolHistory {
    /// The pool.
    pub pool: String,
    /// A sample for each change since this replica was started, of the last day at most.
    pub items: Vec<Sample>,
}

/// What this replica has seen of the pools so far.
#[derive(Default)]
pub struct History {
    pools: Mutex<BTreeMap<String, VecDeque<Sample>>>,
}

impl History {
    /// Takes in how the pools are now. Pools that are gone are forgotten.
    pub fn take(&self, pools: &[Arc<SpotPool>], now: Timestamp) {
        let mut held = self.held();
        let mut kept = BTreeMap::new();
        for pool in pools {
            let name = pool.name_any();
            let mut samples = held.remove(&name).unwrap_or_default();
            let status = pool.status.as_ref();
            let spot = status.and_then(|status| status.spot.as_ref()).map(Counts::of);
            let on_demand = status.and_then(|status| status.on_demand.as_ref()).map(Counts::of);
            if samples.back().is_none_or(|last| (last.spot, last.on_demand) != (spot, on_demand)) {
                samples.push_back(Sample { at: now, spot, on_demand });
            }
            // The last sample before that is how the time after it began.
            let is_old =
                |sample: Option<&Sample>| sample.is_some_and(|held| now.duration_since(held.at) > KEPT);
            while samples.len() > MOST || is_old(samples.get(1)) {
                samples.pop_front();
            }
            kept.insert(name, samples);
        }
        *held = kept;
    }

    pub(super) fn of(&self, pool: &str) -> Vec<Sample> {
        self.held().get(pool).map(|samples| samples.iter().cloned().collect()).unwrap_or_default()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Sample>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
