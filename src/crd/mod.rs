//! The four custom resources, group `spotguard.dev/v1alpha1`: all state of Spot Guard lives in them.
//!
//! A [`SpotPool`] pairs a Spot group with its on-demand group. An [`InterruptionNotice`] is what an agent
//! saw, or the notice queue said, and never changes. A [`NodeReplacement`] is the durable record of one
//! node's replacement. A [`SpotAction`] is what a person requested.

mod bounds;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::adoption::{self, Adopted, Candidate, OnDemandSpec};
use spot_guard_core::group::LaunchInstances;
use spot_guard_core::health::PoolReplacement;
use spot_guard_core::ids::{GroupName, InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
pub use spot_guard_core::notices::{dated_notice_name, notice_name};
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::{Condition, NoticeKind, ReplacedBy, ReplacementStatus};
use spot_guard_core::replacement::{Mode, RebalanceMode};
use spot_guard_core::savings::{HourlyPrices, NodeAccount};
use spot_guard_core::shortfall::{ModeInForce, OwnRecord, ShortfallSpec};
use spot_guard_core::spot_action::{ActionKind, ActionStage, RequestedAction};
use spot_guard_core::stand_ins::CoverSpec;

/// The finalizer of a SpotPool for which something was requested that is not settled. While it stands, the
/// API server keeps a pool that is deleted (Kubernetes, "Finalizers").
pub const OPEN_REQUESTS: &str = "spotguard.dev/open-requests";

/// The API group of all kinds.
pub const GROUP: &str = "spotguard.dev";

/// The definitions to install, in the order in which they should be applied.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [SpotPool::crd(), InterruptionNotice::crd(), NodeReplacement::crd(), SpotAction::crd()]
        .map(bounds::bounded)
        .into()
}

/// What was requested of a group is taken back from that group.
const GROUPS_STAY: &str = "(self.spec.spotGroup == oldSelf.spec.spotGroup && \
    self.spec.onDemandGroup == oldSelf.spec.onDemandGroup) || !has(oldSelf.status) || \
    !has(oldSelf.status.scalingRequests) || size(oldSelf.status.scalingRequests) == 0";

/// A pair of Auto Scaling groups, and how their nodes are looked after.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spotguard.dev",
    version = "v1alpha1",
    kind = "SpotPool",
    plural = "spotpools",
    category = "spotguard",
    status = "SpotPoolStatus",
    derive = "PartialEq",
    validation = Rule::new(GROUPS_STAY).message("spec.spotGroup and spec.onDemandGroup cannot change while requests are open (status.scalingRequests)"),
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Replaced-By","type":"string","jsonPath":".status.replacedBy"}"#,
    printcolumn = r#"{"name":"Spot","type":"string","jsonPath":".status.spot.summary"}"#,
    printcolumn = r#"{"name":"On-Demand","type":"string","jsonPath":".status.onDemand.summary"}"#,
    printcolumn = r#"{"name":"Fallbacks","type":"integer","jsonPath":".status.activeFallbacks"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Healthy","type":"string","jsonPath":".status.conditions[?(@.type==\"Healthy\")].status"}"#,
    printcolumn = r#"{"name":"Stable","type":"string","jsonPath":".status.conditions[?(@.type==\"Stable\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("self.spotGroup != self.onDemandGroup").message("spec.onDemandGroup must differ from spec.spotGroup"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpotPoolSpec {
    /// The Auto Scaling group of Spot instances.
    #[schemars(length(min = 1, max = 255))]
    pub spot_group: GroupName,
    /// The Auto Scaling group of on-demand instances that stands in for it.
    #[schemars(length(min = 1, max = 255))]
    pub on_demand_group: GroupName,
    /// Whether to act, only to say what would be done, or to drain without scaling.
    #[serde(default)]
    pub mode: Mode,
    /// What a rebalance recommendation starts.
    #[serde(default)]
    pub rebalance: RebalanceMode,
    /// Lets no replacement and no return begin; an interruption notice passes it.
    #[serde(default)]
    pub paused: bool,
    /// Whether LaunchInstances is used on the group of an EKS managed node group, too.
    #[serde(default)]
    pub launch_instances: LaunchInstances,
    /// Who replaces the Spot nodes. By default their group, if its CapacityRebalance is on or if it is that
    /// of an EKS managed node group, else Spot Guard. A value that contradicts the group is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<ReplacedBy>,
    /// Whether a termination that a lifecycle hook of the groups holds waits until its node is drained. It
    /// takes a notice queue that hears of the hook. Spot Guard completes the lifecycle action then.
    #[serde(default)]
    pub complete_lifecycle_actions: bool,
    /// What is done about Spot capacity that is missing without an interruption notice.
    #[serde(default)]
    pub shortfall: ShortfallSpec,
    /// What on-demand stands in for in a pool whose Spot group replaces its nodes by itself.
    #[serde(default)]
    pub cover: CoverSpec,
    /// How many on-demand instances the pool is to have, and what becomes of others.
    #[serde(default)]
    pub on_demand: OnDemandSpec,
    /// What an instance costs per hour, to estimate what fallbacks cost; without it nothing is estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly_prices: Option<HourlyPrices>,
    /// Timings and thresholds that differ from the configuration.
    #[serde(default)]
    pub policy: PolicySpec,
}

/// What is known of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpotPoolStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The Spot group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot: Option<GroupStatus>,
    /// The on-demand group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<GroupStatus>,
    /// How many on-demand instances are above the baseline, and not a fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_baseline: Option<u32>,
    /// How many fallbacks are open.
    #[serde(default)]
    pub active_fallbacks: u32,
    /// Who replaces the Spot nodes, once the groups were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<ReplacedBy>,
    /// How many Spot instances are under a rebalance recommendation that is left to their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendations: Option<u32>,
    /// What is done about Spot capacity that is missing without an interruption notice, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<ModeInForce>,
    /// How many Ready nodes of Spot instances in service have a ready agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_nodes: Option<u32>,
    /// How many have none: nobody hears of their interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched_nodes: Option<u32>,
    /// How long its nodes have served, by day and market.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_account: Option<NodeAccount>,
    /// `Ready`, which sums up; `Accepted`, `Healthy`, `Stable`, `OnSpot` and `Watched`; `Paused`, `Observed`,
    /// `Undisturbed` and `Covered` once they had something to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The open scaling requests: what we changed and have not settled.
    #[serde(flatten)]
    pub ledger: Ledger,
}

/// The counts of a group as they were last read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Desired capacity.
    pub desired: i32,
    /// Instances in service.
    pub in_service: i32,
    /// Minimum size.
    pub min: i32,
    /// Maximum size.
    pub max: i32,
    /// `in service/desired`, and in brackets how many are above the baseline.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// Its instances by id as they were last read, in any state: which nodes are the pool's, for every
    /// replica and without AWS. Written also when empty: a merge patch keeps what it does not name.
    #[serde(default)]
    #[schemars(length(max = 20_000), inner(length(max = 32)))]
    pub instances: Vec<InstanceId>,
}

/// What an agent saw on its own node. It never changes after it was created.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spotguard.dev",
    version = "v1alpha1",
    kind = "InterruptionNotice",
    plural = "interruptionnotices",
    category = "spotguard",
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: a notice never changes"),
    validation = Rule::new("self.metadata.name == self.spec.nodeName + '.' + self.spec.instanceId + {'RebalanceRecommendation': '-rebalance-recommendation', 'SpotInterruption': '-spot-interruption', 'ScheduledMaintenance': '-scheduled-maintenance', 'GroupTermination': '-group-termination'}[self.spec.kind] || (self.spec.kind == 'ScheduledMaintenance' && self.metadata.name.startsWith(self.spec.nodeName + '.' + self.spec.instanceId + '-scheduled-maintenance-'))").message("metadata.name must be <spec.nodeName>.<spec.instanceId>-<spec.kind in lower case with hyphens>, and of maintenance its time may follow"),
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"Instance","type":"string","jsonPath":".spec.instanceId"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.kind"}"#,
    printcolumn = r#"{"name":"Deadline","type":"string","jsonPath":".spec.deadline"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("self.kind != 'Manual'").message("spec.kind must be what an agent reports"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterruptionNoticeSpec {
    /// The Kubernetes node that the notice is about; an agent reports its own.
    #[schemars(length(min = 1, max = 200))]
    pub node_name: NodeName,
    /// The EC2 instance that the notice is about.
    #[schemars(length(max = 19), regex(pattern = "^i-[0-9a-f]{8,17}$"))]
    pub instance_id: InstanceId,
    /// What is announced.
    pub kind: NoticeKind,
    /// When EC2 says that it gave the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_time: Option<Timestamp>,
    /// When EC2 takes the instance, by EC2's clock; absent for advice. Of maintenance it may be weeks away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When the agent or the controller saw the notice.
    pub detected_at: Timestamp,
    /// W3C trace context of the detection: the whole replacement is one trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
}

/// The durable record of one node's replacement, or of what stands in for an empty place of the Spot group.
/// Named after the old instance, so that a node has one at most.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spotguard.dev",
    version = "v1alpha1",
    kind = "NodeReplacement",
    plural = "nodereplacements",
    category = "spotguard",
    status = "ReplacementStatus",
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: a replacement is about one node"),
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"New-Node","type":"string","jsonPath":".status.capacity.taken.instance.nodeName"}"#,
    printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".status.capacity.taken.instance.group"}"#,
    printcolumn = r#"{"name":"Blocked-By","type":"string","jsonPath":".status.blocking[0].message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.place) || has(self.adopted) ? has(self.pool) && !has(self.nodeName) && !has(self.instanceId) && !(has(self.place) && has(self.adopted)) : has(self.nodeName) && has(self.instanceId)").message("either spec.nodeName and spec.instanceId, or spec.pool and one of spec.place and spec.adopted must be set"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeReplacementSpec {
    /// The pool that the node belongs to; absent for a node in no accepted pool, which only gets its drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pool: Option<PoolName>,
    /// The node to replace; absent of a place.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: NodeName,
    /// Its instance; absent of a place.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    #[schemars(length(max = 19), regex(pattern = "^i-[0-9a-f]{8,17}$"))]
    pub instance_id: InstanceId,
    /// The empty place of the Spot group that an on-demand instance stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<EmptyPlace>,
    /// The on-demand instance above the baseline that goes back to Spot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<AdoptedInstance>,
}

/// An on-demand instance above the baseline that no replacement requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptedInstance {
    /// The instance.
    #[schemars(length(max = 19), regex(pattern = "^i-[0-9a-f]{8,17}$"))]
    pub instance_id: InstanceId,
    /// Its node.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: NodeName,
    /// Whether a Spot instance is requested for its pods: they did not fit on the nodes that there were.
    pub requests_spot: bool,
}

impl From<Adopted> for AdoptedInstance {
    fn from(adopted: Adopted) -> Self {
        let Adopted { instance: Candidate { instance_id, node }, requests_spot } = adopted;
        Self { instance_id, node_name: node, requests_spot }
    }
}

impl From<&AdoptedInstance> for Adopted {
    fn from(held: &AdoptedInstance) -> Self {
        let AdoptedInstance { instance_id, node_name, requests_spot } = held.clone();
        Self { instance: Candidate { instance_id, node: node_name }, requests_spot }
    }
}

/// What began a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cause {
    /// A notice, or a person.
    #[default]
    Notice,
    /// A Spot instance that is missing without a notice.
    Shortfall,
    /// An on-demand instance above the baseline.
    Adoption,
}

/// A place of a Spot group that has no instance, without any interruption notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyPlace {
    /// Since when it is empty.
    pub since: Timestamp,
}

/// What a person requested: of the HTTP API, by the webhook, or with kubectl. It never changes after it was
/// created.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spotguard.dev",
    version = "v1alpha1",
    kind = "SpotAction",
    plural = "spotactions",
    category = "spotguard",
    status = "SpotActionStatus",
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: create another SpotAction"),
    printcolumn = r#"{"name":"Action","type":"string","jsonPath":".spec.action"}"#,
    printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.pool"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Replacement","type":"string","jsonPath":".spec.replacement"}"#,
    printcolumn = r#"{"name":"Requested-By","type":"string","jsonPath":".spec.requestedBy"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Complete","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("[has(self.pool), has(self.node), has(self.replacement)].filter(given, given).size() <= 1").message("at most one of spec.pool, spec.node and spec.replacement may be set"))]
#[x_kube(validation = Rule::new("self.action != 'Replace' || has(self.node)").message("action Replace needs spec.node"))]
#[x_kube(validation = Rule::new("self.action != 'Return' || has(self.pool) || has(self.node) || has(self.replacement)").message("action Return needs spec.replacement, spec.node or spec.pool"))]
#[x_kube(validation = Rule::new("self.action != 'Cancel' || has(self.node) || has(self.replacement)").message("action Cancel needs spec.replacement or spec.node"))]
#[x_kube(validation = Rule::new("!(self.action in ['Pause', 'Resume']) || !(has(self.node) || has(self.replacement))").message("actions Pause and Resume take spec.pool, or nothing for everything"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpotActionSpec {
    /// What is to be done.
    pub action: ActionKind,
    /// The SpotPool that it is about. `Return`: all its open fallbacks. `Pause` and `Resume`: without it,
    /// everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pool: Option<PoolName>,
    /// The node that it is about. `Return`: the on-demand node, or the one that it stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<NodeName>,
    /// The NodeReplacement that it is about; a fallback has the name of its replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub replacement: Option<ReplacementName>,
    /// The user who requested it, as the API server named them to the HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub requested_by: Option<String>,
    /// The reason, in the words of the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
}

/// What came of a SpotAction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpotActionStatus {
    /// `Accepted`: whether it is followed, else why not. `Complete`: the request is recorded, and for
    /// a `Pause`: it is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The replacements that it led to, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), inner(length(max = 253)))]
    pub replacements: Vec<ReplacementName>,
}

impl SpotAction {
    /// What it asks for, as decisions need it.
    #[must_use]
    pub fn ask(&self) -> RequestedAction {
        let SpotActionSpec { action, pool, node, replacement, requested_by, reason, traceparent: _ } =
            self.spec.clone();
        let conditions = self.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let made_at = self.creation_timestamp().map(|time| time.0);
        RequestedAction {
            name: self.name_any(),
            action,
            pool,
            node,
            replacement,
            by: requested_by,
            reason,
            order: (made_at, version(self)),
            stage: ActionStage::of(conditions),
        }
    }
}

impl NodeReplacement {
    /// Its name.
    #[must_use]
    pub fn replacement_name(&self) -> ReplacementName {
        self.name_any().into()
    }

    /// Whether there is something left to do for it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status.as_ref().is_none_or(|status| !status.phase().is_finished())
    }

    /// The node that it is about: the old one, or that of an adopted instance; empty of a place.
    #[must_use]
    pub fn old_node(&self) -> &NodeName {
        self.spec.adopted.as_ref().map_or(&self.spec.node_name, |adopted| &adopted.node_name)
    }

    /// Its instance.
    #[must_use]
    pub fn old_instance(&self) -> &InstanceId {
        self.spec.adopted.as_ref().map_or(&self.spec.instance_id, |adopted| &adopted.instance_id)
    }

    /// What began it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match (&self.spec.place, &self.spec.adopted) {
            (Some(_), _) => Cause::Shortfall,
            (_, Some(_)) => Cause::Adoption,
            (None, None) => Cause::Notice,
        }
    }

    /// What an assessment has to know of it while it is open.
    #[must_use]
    pub fn as_open(&self) -> Option<PoolReplacement<'_>> {
        let status = self.status.as_ref().filter(|status| !status.phase().is_finished())?;
        let name = self.metadata.name.as_deref()?;
        Some(PoolReplacement { name: name.into(), instance_id: &self.spec.instance_id, status })
    }

    /// What an adoption in its pool is judged by; `None` before it has a status.
    #[must_use]
    pub fn beside_adoption(&self) -> Option<adoption::AdoptionRecord<'_>> {
        let status = self.status.as_ref()?;
        Some(adoption::AdoptionRecord { is_adopted: self.spec.adopted.is_some(), status })
    }

    /// What the shortfall of its pool is judged by; `None` before it has a status. An adopted instance stands
    /// in for nothing that is missing.
    #[must_use]
    pub fn in_pool(&self) -> Option<OwnRecord<'_>> {
        let status = self.status.as_ref().filter(|_| self.spec.adopted.is_none())?;
        Some(OwnRecord { is_place: self.spec.place.is_some(), status })
    }
}

/// Resource versions are decimal numbers that grow (KEP-5504, comparable resource versions).
pub fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether the text is a DNS subdomain (RFC 1123), as Kubernetes names are.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
