//! What `/api/v1` answers with. Times are RFC 3339 in UTC; lists are sorted by name.

mod spot_actions;
mod status;

pub use spot_actions::{ActionRequest, ActionState, ScaleDownRequest};
pub use status::{Counts, PoolSummary, ReplacementCounts, Status};

use crate::crd::{Cause, GroupStatus, NodeReplacement};
use crate::telemetry::metrics::Ending;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::baseline::GroupStanding;
use spot_guard_core::cluster;
use spot_guard_core::ids::{GroupName, InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::ledger::{LeftBehind, Reduction, ScalingRequest};
use spot_guard_core::reason::{Blocker, ReasonCode};
use spot_guard_core::record::{
    Capacity, Condition, FlowBox, GroupKind, NoticeKind, Outcome, Phase, ReplacedBy, StepRecord,
    UtilisationPercent,
};
use spot_guard_core::replacement::{Mode, RebalanceMode};
use spot_guard_core::spot_action::ActionKind;
use std::collections::BTreeMap;

/// A list, or a page of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct Items<T> {
    /// Sorted by name.
    pub items: Vec<T>,
    /// The value of `continue` that gets the next page; absent on the last one.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `/api/v1/access`: what the caller may request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Who they are, as the cluster knows them; absent on the local port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The actions that they may request on every object.
    pub may: Vec<ActionKind>,
}

/// `/api/v1/pools`: a pool in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The Auto Scaling group of Spot instances.
    pub spot_group: GroupName,
    /// The Auto Scaling group that stands in for it.
    pub on_demand_group: GroupName,
    /// How it is treated.
    pub mode: Mode,
    /// What a rebalance recommendation starts.
    pub rebalance: RebalanceMode,
    /// Who replaces its Spot nodes, once the groups were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<ReplacedBy>,
    /// Whether new replacements are held back.
    pub paused: bool,
    /// When both groups were last read from AWS. The leader knows; a replica that follows does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Timestamp>,
    /// The Spot group as it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<GroupStatus>,
    /// The on-demand group as it was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<GroupStatus>,
    /// How the Spot group stands with what was changed for replacements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot_standing: Option<GroupStanding>,
    /// The same of the on-demand group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_standing: Option<GroupStanding>,
    /// How many on-demand instances it is to have, if a person said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<u32>,
    /// How many on-demand instances are above that, and not a fallback.
    #[serde(default)]
    pub above_baseline: u32,
    /// How many fallbacks are open.
    pub fallbacks: usize,
    /// `Accepted`, `Healthy`, `Stable` and `Watched`, with their reasons.
    pub conditions: Vec<Condition>,
    /// What to do about the reasons of these conditions, by code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hints: BTreeMap<ReasonCode, String>,
    /// What Spot Guard requested of the groups and has not settled.
    pub scaling_requests: Vec<ScalingRequest>,
    /// Requests to groups that the pool no longer names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<LeftBehind>,
    /// The reduction under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction: Option<Reduction>,
}

/// `/api/v1/replacements`: the replacement of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Its name: the old instance, for one that a notice or a person began.
    pub name: String,
    /// What began it.
    #[serde(default)]
    pub cause: Cause,
    /// The node that leaves; empty of a stand-in for a missing Spot instance.
    pub node: NodeName,
    /// Its instance; empty of such a stand-in.
    pub instance_id: InstanceId,
    /// Its pool; absent for a node in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The phase of the replacement.
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
    /// How often capacity was requested again after both groups failed.
    pub retries: u32,
    /// When capacity is requested again.
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
    /// What blocks the replacement.
    pub blocked_by: Vec<BlockedBy>,
    /// The steps so far.
    pub steps: Vec<StepRecord>,
    /// The trace of the replacement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Where the trace is shown, if that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_url: Option<String>,
    /// When the replacement ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What it came to, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Ending>,
}

/// Something that holds a replacement up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedBy {
    /// The box of the flow that waits for it.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// Its code. docs/reasons.md says what to do about each.
    pub reason: ReasonCode,
    /// In plain words.
    pub message: String,
    /// What to do about it, by the code alone.
    #[serde(default)]
    pub hint: String,
    /// Since when the box waits.
    pub since: Timestamp,
    /// How long that is, in seconds.
    pub seconds: u64,
}

/// `/api/v1/fallbacks`: on-demand capacity that stands in for Spot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// The name of the replacement that it belongs to.
    pub replacement: ReplacementName,
    /// Its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The Spot node that was replaced.
    pub replaced_node: NodeName,
    /// The on-demand node.
    pub node: NodeName,
    /// The on-demand instance.
    pub instance_id: InstanceId,
    /// Since when it has been in service, its node Ready.
    pub since: Timestamp,
    /// How long that is, in seconds.
    pub on_demand_seconds: u64,
    /// What that costs more than Spot would, about, in the currency of the pool's hourly prices; absent
    /// without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_extra_cost: Option<f64>,
    /// The phase of the replacement.
    pub phase: Phase,
    /// The box of the flow that it is at.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// What keeps it from the next box; empty: nothing does.
    pub blocked_by: Vec<BlockedBy>,
    /// The earliest time of the next try, after a return was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_not_before: Option<Timestamp>,
    /// The Spot instance that is to take over, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_capacity: Option<Capacity>,
    /// The trace of the replacement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// `/api/v1/nodes`: a node of a pool, or of a replacement.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Node")]
pub struct PoolNode {
    /// Its name.
    pub name: String,
    /// Its instance, once the cloud has named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Its pool; absent for a node in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The group that it belongs to, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupKind>,
    /// Its Availability Zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// When it joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The open replacement that it plays a part in, or the last one that replaced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<ReplacementName>,
    /// Which part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
    /// The phase of that replacement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The box of the flow that it is at.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub flow_box: Option<FlowBox>,
}

impl PoolNode {
    /// A node without a replacement.
    pub(super) fn of(node: &cluster::Node, pool: Option<PoolName>, group: Option<GroupKind>) -> Self {
        Self {
            name: node.name.to_string(),
            instance_id: node.instance_id(),
            pool,
            group,
            zone: (!node.zone.is_empty()).then(|| node.zone.to_string()),
            ready: node.ready,
            unschedulable: node.unschedulable,
            created: node.created,
            replacement: None,
            role: None,
            phase: None,
            flow_box: None,
        }
    }

    /// A node that was replaced and is gone.
    pub(super) fn replaced_by(record: &NodeReplacement) -> Self {
        let node = cluster::Node { name: record.spec.node_name.clone(), ..cluster::Node::default() };
        let instance_id = Some(record.spec.instance_id.clone());
        Self { instance_id, ..Self::of(&node, record.spec.pool.clone(), None) }.with(record)
    }

    /// The same with the replacement that it has or had.
    pub(super) fn with(self, record: &NodeReplacement) -> Self {
        let status = record.status.as_ref();
        Self {
            replacement: Some(record.replacement_name()),
            role: Some(NodeRole::Replaced),
            phase: status.map(|status| status.phase()),
            flow_box: status.map(|status| status.current_box()),
            ..self
        }
    }
}

/// The part that a node plays in a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum NodeRole {
    /// It is to be replaced, or was.
    Replaced,
    /// It took over, and is a Spot node.
    Replacement,
    /// It took over, and is an on-demand node that waits for Spot.
    Fallback,
    /// It takes over from a fallback.
    Successor,
}

/// `/api/v1/nodes/NAME/safety`: whether the node could be drained now, as box 9 judges a fallback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSafety {
    /// The node.
    pub node: NodeName,
    /// The pool whose settings and nodes count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// When it was checked.
    pub checked_at: Timestamp,
    /// Nothing stands against it.
    pub safe: bool,
    /// What does.
    pub blockers: Vec<SafetyBlocker>,
    /// How full the pool is now, the node included.
    pub utilisation_before: UtilisationPercent,
    /// How full it would be without the node.
    pub utilisation_after: UtilisationPercent,
    /// The pods that would move, as `namespace/name`.
    pub pods_to_move: Vec<String>,
}

/// Something that stands against a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SafetyBlocker {
    /// Its code. docs/reasons.md says what to do about each.
    pub reason: ReasonCode,
    /// In plain words.
    pub message: String,
    /// What would clear it.
    pub hint: String,
}

impl From<&Blocker> for SafetyBlocker {
    fn from(blocker: &Blocker) -> Self {
        Self { reason: blocker.code(), message: blocker.to_string(), hint: blocker.hint().to_owned() }
    }
}

/// `/api/v1/notices`: what was announced of a node.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Its name: the node, the instance and the kind.
    pub name: String,
    /// The node that it is about.
    pub node: NodeName,
    /// Its instance.
    pub instance_id: InstanceId,
    /// The pool of its replacement, if that is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What is announced.
    pub kind: NoticeKind,
    /// When EC2 says that it gave the notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice_time: Option<Timestamp>,
    /// When EC2 takes the instance; absent for advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When it was seen.
    pub detected_at: Timestamp,
    /// The trace of the replacement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// `/api/v1/replacements/NAME/timeline`: a replacement by its steps.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The replacement.
    pub replacement: ReplacementName,
    /// When the first notice was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the replacement ended; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// From its first step until it ended, or until now, in seconds.
    pub seconds: u64,
    /// Its steps, the first one first.
    pub items: Vec<TimelineEntry>,
}

/// A step of a replacement, and how long it was before the next one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// The box of the flow.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// When.
    pub at: Timestamp,
    /// Seconds since the first step.
    pub after_seconds: u64,
    /// Seconds until the next step, or until the end or now.
    pub lasted_seconds: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// The node that the step was about.
    pub node: NodeName,
    /// In plain words.
    pub message: String,
}
