//! What `/api/v1` answers with. Times are RFC 3339 in UTC; lists are sorted by name.

use crate::core::record::{Capacity, Condition, FlowBox, NoticeKind, Phase, StepRecord};
use crate::core::replacement::{Mode, RebalanceMode};
use crate::core::scaling::{Reduction, ScalingRequest};
use crate::crd::GroupStatus;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items<T> {
    /// Sorted by name.
    pub items: Vec<T>,
}

/// `/api/v1/status`: the whole at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of Spot Guard.
    pub version: String,
    /// When this was true.
    pub now: Timestamp,
    /// Whether the replica that answers is the one that acts.
    pub leader: bool,
    /// Whether every part of it works; `/readyz` says why not.
    pub ready: bool,
    /// How many stories there are.
    pub replacements: ReplacementCounts,
    /// The pools.
    pub pools: Vec<PoolSummary>,
}

/// How many stories there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All, by phase; phases without a story are left out.
    pub by_phase: BTreeMap<Phase, usize>,
}

/// A pool in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// How it is treated.
    pub mode: Mode,
    /// Whether new stories are held back.
    pub paused: bool,
    /// The Spot group, once it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<Counts>,
    /// The on-demand group, once it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Counts>,
    /// How many fallbacks are open.
    pub fallbacks: usize,
    /// The conditions `Accepted`, `Healthy` and `Stable`: `True`, `False` or `Unknown`.
    pub conditions: BTreeMap<String, String>,
}

/// The instances of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Desired capacity, in instances.
    pub desired: i32,
    /// Instances in service.
    pub in_service: i32,
}

/// `/api/v1/pools`: a pool in full.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The Auto Scaling group of Spot instances.
    pub spot_group: String,
    /// The Auto Scaling group that stands in for it.
    pub on_demand_group: String,
    /// How it is treated.
    pub mode: Mode,
    /// What a rebalance recommendation starts.
    pub rebalance: RebalanceMode,
    /// Whether new stories are held back.
    pub paused: bool,
    /// The Spot group as it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<GroupStatus>,
    /// The on-demand group as it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<GroupStatus>,
    /// How many fallbacks are open.
    pub fallbacks: usize,
    /// `Accepted`, `Healthy` and `Stable`, with their reasons.
    pub conditions: Vec<Condition>,
    /// What Spot Guard asked of the groups and has not settled.
    pub scaling_requests: Vec<ScalingRequest>,
    /// The reduction under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction: Option<Reduction>,
}

/// `/api/v1/replacements`: the story of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Its name: the old instance.
    pub name: String,
    /// The node to replace.
    pub node: String,
    /// Its instance.
    pub instance_id: String,
    /// Its pool; absent for a node in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Where the story stands.
    pub phase: Phase,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Timestamp>,
    /// The box of the flow that it is at.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// The most urgent notice so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeKind>,
    /// When the first notice was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When EC2 takes the instance, if it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// How often capacity was asked for again after both groups failed.
    pub retries: u32,
    /// When capacity is asked for again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Whether on-demand capacity stands in.
    pub fallback: bool,
    /// The instance that took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The Spot instance that takes over from the on-demand one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_capacity: Option<Capacity>,
    /// What holds the story up.
    pub blocked_by: Vec<Blocker>,
    /// The story so far.
    pub steps: Vec<StepRecord>,
    /// The trace of the story.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// When the story ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Something that holds a story up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// The box of the flow that waits for it.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// In plain words.
    pub message: String,
    /// Since when the box waits.
    pub since: Timestamp,
    /// How long that is, in seconds.
    pub seconds: u64,
}

/// `/api/v1/fallbacks`: on-demand capacity that stands in for Spot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// The name of the replacement that it belongs to.
    pub replacement: String,
    /// Its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The Spot node that was replaced.
    pub replaced_node: String,
    /// The on-demand node.
    pub node: String,
    /// The on-demand instance.
    pub instance_id: String,
    /// Since when it has been in service, its node Ready.
    pub since: Timestamp,
    /// How long that is, in seconds.
    pub on_demand_seconds: u64,
    /// Where the story stands.
    pub phase: Phase,
    /// The box of the flow that it is at.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// What keeps it from the next box; empty: nothing does.
    pub blocked_by: Vec<Blocker>,
    /// The earliest time of the next try, after a return was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_not_before: Option<Timestamp>,
    /// The Spot instance that is to take over, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_capacity: Option<Capacity>,
    /// The trace of the story.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}
