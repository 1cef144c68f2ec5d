//! `/api/v1/status`, and what it tells of each pool.

use crate::crd::GroupStatus;
use crate::http::pauses::PauseInForce;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::record::Phase;
use spot_guard_core::replacement::Mode;
use std::collections::BTreeMap;

/// `/api/v1/status`: the whole at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of Spot Guard.
    pub version: String,
    /// When this was true.
    pub now: Timestamp,
    /// The name of the cluster, if the configuration gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Whether the replica that answers is the one that acts.
    pub leader: bool,
    /// The replica that acts, by its name in the Lease, as the one that answers saw it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// When AWS was last read, of the pool for which that is longest ago. The leader knows; a replica that
    /// follows does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Timestamp>,
    /// Whether everything is paused: nothing begins but what a deadline presses.
    pub paused: bool,
    /// The pauses that hold, those of everything first.
    #[serde(default)]
    pub pauses: Vec<PauseInForce>,
    /// Whether every part of it works; `/readyz` at the port for probes says why not.
    pub ready: bool,
    /// How many replacements there are.
    pub replacements: ReplacementCounts,
    /// The pools.
    pub pools: Vec<PoolSummary>,
}

/// How many replacements there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementCounts {
    /// Under way.
    pub open: usize,
    /// Over, and kept for a while.
    pub finished: usize,
    /// Under way on on-demand capacity.
    pub fallbacks: usize,
    /// Under way, and held up by something.
    pub blocked: usize,
    /// All, by phase; phases without a replacement are left out.
    pub by_phase: BTreeMap<Phase, usize>,
}

/// A pool in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// How it is treated.
    pub mode: Mode,
    /// Whether new replacements are held back.
    pub paused: bool,
    /// The Spot group, once it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<Counts>,
    /// The on-demand group, once it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Counts>,
    /// How many fallbacks are open.
    pub fallbacks: usize,
    /// The conditions `Accepted`, `Healthy`, `Stable` and `Watched`: `True`, `False` or `Unknown`.
    pub conditions: BTreeMap<String, String>,
}

/// The instances of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Desired capacity, in instances.
    pub desired: i32,
    /// Instances in service.
    pub in_service: i32,
}

impl Counts {
    /// Those of a group as it was last read.
    #[must_use]
    pub fn of(group: &GroupStatus) -> Self {
        Self { desired: group.desired, in_service: group.in_service }
    }
}
