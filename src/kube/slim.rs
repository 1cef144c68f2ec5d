//! What is read of the Kubernetes API's objects: the fields that decisions need, and nothing else.
//!
//! Whatever is not named here is skipped unread and never kept: nobody can blind the controller by a field
//! that it has no use for, or fill its memory with one. The names are those of the API.

use crate::crd::{
    InterruptionNotice, InterruptionNoticeSpec, NodeReplacement, NodeReplacementSpec, SpotPool, SpotPoolSpec,
    SpotPoolStatus, Trigger, TriggerSpec, TriggerStatus,
};
use crate::kube::caps::{labels, labels_if_few, part_list, part_map, parts, rule_list, rule_map, rules};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::{DeserializeOwned, Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use spot_guard_core::record::ReplacementStatus;
use std::collections::BTreeMap;
use std::fmt;

/// Times are kept within these years, so that some hours more or less are a time, too.
const EARLIEST: Timestamp = Timestamp::constant(-62_135_596_800, 0);
const LATEST: Timestamp = Timestamp::constant(221_845_392_000, 0);

/// A point in time. One beyond the year 9000 is its beginning: pods and nodes may carry any year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Time {
    fn read(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(Self(time.clamp(EARLIEST, LATEST)));
        }
        let year = text.split_once('-')?.0;
        let digits = year.bytes().all(|digit| digit.is_ascii_digit());
        (digits && (year.len() > 4 || year.len() == 4 && year >= "9000")).then_some(Self(LATEST))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                Time::read(text).ok_or_else(|| E::custom("no time"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// One struct a kind: every field may be missing. `null` is what Go writes for what is not set.
macro_rules! slim {
    ($($(#[$of:meta])* $name:ident { $($(#[$field_of:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$of])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $(
                #[doc = concat!("`", stringify!($field), "`, as the API describes it.")]
                $(#[$field_of])*
                pub $field: $type,
            )*
        }
    )*};
}

/// An amount of a resource, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Metadata with those annotations that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "A: DeserializeOwned + Default")]
pub struct ObjectMeta<A = IgnoredAny> {
    /// Its name.
    pub name: Option<String>,
    /// Its namespace; none for what belongs to the whole cluster.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: Option<String>,
    /// Its version.
    pub resource_version: Option<String>,
    /// How often its wishes changed.
    pub generation: Option<i64>,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// When it is to be gone.
    pub deletion_timestamp: Option<Time>,
    /// What has to happen before it goes.
    pub finalizers: Option<Vec<IgnoredAny>>,
    /// Its labels.
    #[serde(deserialize_with = "labels")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Those of its annotations that are read.
    pub annotations: Option<A>,
    /// Its owners.
    #[serde(deserialize_with = "parts")]
    pub owner_references: Option<Vec<OwnerReference>>,
}

slim! {
    /// The owner of a pod.
    OwnerReference { kind: String, name: String, controller: Option<bool>, }
    /// A condition of a node or a pod.
    Condition {
        #[serde(rename = "type")] type_: String,
        status: String,
        last_transition_time: Option<Time>,
    }
    /// The annotations of a node that are read.
    NodeAnnotations {
        #[serde(rename = "cluster-autoscaler.kubernetes.io/scale-down-disabled")]
        scale_down_disabled: Option<String>,
        #[serde(rename = "spotguard.dev/scale-down-disabled")] protected_by: Option<IgnoredAny>,
    }
    /// A node.
    Node { metadata: ObjectMeta<NodeAnnotations>, spec: Option<NodeSpec>, status: Option<NodeStatus>, }
    /// What is wanted of a node.
    NodeSpec {
        #[serde(rename = "providerID")] provider_id: Option<String>,
        unschedulable: Option<bool>,
        #[serde(deserialize_with = "rules")] taints: Option<Vec<Taint>>,
    }
    /// A taint.
    Taint { key: String, value: Option<String>, effect: String, }
    /// What a node says of itself.
    NodeStatus {
        #[serde(deserialize_with = "parts")] conditions: Option<Vec<Condition>>,
        #[serde(deserialize_with = "part_map")] allocatable: Option<Amounts>,
    }
    /// The annotations of a pod that are read.
    PodAnnotations {
        #[serde(rename = "kubernetes.io/config.mirror")] mirror: Option<IgnoredAny>,
        #[serde(rename = "cluster-autoscaler.kubernetes.io/safe-to-evict")] safe_to_evict: Option<String>,
        #[serde(rename = "karpenter.sh/do-not-disrupt")] do_not_disrupt: Option<String>,
    }
    /// A pod.
    Pod { metadata: ObjectMeta<PodAnnotations>, spec: Option<PodSpec>, status: Option<PodStatus>, }
    /// What is wanted of a pod.
    PodSpec {
        node_name: Option<String>,
        scheduling_gates: Option<Vec<IgnoredAny>>,
        #[serde(deserialize_with = "part_list")] containers: Vec<Container>,
        #[serde(deserialize_with = "parts")] init_containers: Option<Vec<Container>>,
        #[serde(deserialize_with = "part_map")] overhead: Option<Amounts>,
        resources: Option<ResourceRequirements>,
        #[serde(deserialize_with = "rules")] tolerations: Option<Vec<Toleration>>,
        #[serde(deserialize_with = "rule_map")] node_selector: Option<BTreeMap<String, String>>,
        affinity: Option<Affinity>,
        #[serde(deserialize_with = "rules")]
        topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
        priority: Option<i32>,
        preemption_policy: Option<String>,
        #[serde(deserialize_with = "rules")] volumes: Option<Vec<Volume>>,
        termination_grace_period_seconds: Option<i64>,
        resource_claims: Option<Vec<IgnoredAny>>,
        scheduling_group: Option<IgnoredAny>,
    }
    /// A container.
    Container {
        name: String,
        resources: Option<ResourceRequirements>,
        restart_policy: Option<String>,
        #[serde(deserialize_with = "parts")] ports: Option<Vec<ContainerPort>>,
    }
    /// What a container asks for.
    ResourceRequirements {
        #[serde(deserialize_with = "part_map")] requests: Option<Amounts>,
    }
    /// A port of a container.
    ContainerPort {
        host_port: Option<i32>,
        #[serde(rename = "hostIP")] host_ip: Option<String>,
        protocol: Option<String>,
    }
    /// A toleration.
    Toleration {
        key: Option<String>,
        operator: Option<String>,
        value: Option<String>,
        effect: Option<String>,
    }
    /// Rules about nodes and other pods.
    Affinity {
        node_affinity: Option<NodeAffinity>,
        pod_affinity: Option<PodAffinity>,
        pod_anti_affinity: Option<PodAffinity>,
    }
    /// Rules about nodes.
    NodeAffinity { required_during_scheduling_ignored_during_execution: Option<NodeSelector>, }
    /// Rules about other pods, for or against.
    PodAffinity {
        #[serde(deserialize_with = "rules")]
        required_during_scheduling_ignored_during_execution: Option<Vec<PodAffinityTerm>>,
    }
    /// Alternatives.
    NodeSelector {
        #[serde(deserialize_with = "rule_list")] node_selector_terms: Vec<NodeSelectorTerm>,
    }
    /// One of them.
    NodeSelectorTerm {
        #[serde(deserialize_with = "rules")] match_expressions: Option<Vec<SelectorRequirement>>,
        #[serde(deserialize_with = "rules")] match_fields: Option<Vec<SelectorRequirement>>,
    }
    /// A line of a selector.
    SelectorRequirement {
        key: String,
        operator: String,
        #[serde(deserialize_with = "rules")] values: Option<Vec<String>>,
    }
    /// A rule about other pods.
    PodAffinityTerm {
        label_selector: Option<LabelSelector>,
        #[serde(deserialize_with = "rules")] match_label_keys: Option<Vec<String>>,
        #[serde(deserialize_with = "rules")] mismatch_label_keys: Option<Vec<String>>,
        #[serde(deserialize_with = "rules")] namespaces: Option<Vec<String>>,
        namespace_selector: Option<LabelSelector>,
        topology_key: String,
    }
    /// A selector of labels.
    LabelSelector {
        #[serde(deserialize_with = "rule_map")] match_labels: Option<BTreeMap<String, String>>,
        #[serde(deserialize_with = "rules")] match_expressions: Option<Vec<SelectorRequirement>>,
    }
    /// A rule about even spread.
    TopologySpreadConstraint {
        max_skew: i32,
        topology_key: String,
        when_unsatisfiable: String,
        label_selector: Option<LabelSelector>,
        #[serde(deserialize_with = "rules")] match_label_keys: Option<Vec<String>>,
        min_domains: Option<i32>,
        node_affinity_policy: Option<String>,
        node_taints_policy: Option<String>,
    }
    /// A volume of a pod.
    Volume {
        name: String,
        persistent_volume_claim: Option<ClaimSource>,
        ephemeral: Option<IgnoredAny>,
        empty_dir: Option<IgnoredAny>,
    }
    /// The claim that a pod names.
    ClaimSource { claim_name: String, }
    /// What is so of a pod.
    PodStatus {
        phase: Option<String>,
        #[serde(deserialize_with = "parts")] conditions: Option<Vec<Condition>>,
        #[serde(deserialize_with = "parts")] container_statuses: Option<Vec<ContainerStatus>>,
        #[serde(deserialize_with = "parts")] init_container_statuses: Option<Vec<ContainerStatus>>,
    }
    /// What is so of a container.
    ContainerStatus {
        name: String,
        #[serde(deserialize_with = "part_map")] allocated_resources: Option<Amounts>,
        resources: Option<ResourceRequirements>,
    }
    /// What the drivers of a node can attach.
    CSINode { metadata: ObjectMeta, spec: CSINodeSpec, }
    /// The drivers of a node.
    CSINodeSpec {
        #[serde(deserialize_with = "part_list")] drivers: Vec<CSINodeDriver>,
    }
    /// A driver.
    CSINodeDriver { name: String, allocatable: Option<VolumeCount>, }
    /// How many volumes it can attach.
    VolumeCount { count: Option<i32>, }
    /// A claim.
    PersistentVolumeClaim { metadata: ObjectMeta, spec: Option<ClaimSpec>, }
    /// What a claim is bound to.
    ClaimSpec { volume_name: Option<String>, }
    /// A volume.
    PersistentVolume { metadata: ObjectMeta, spec: Option<VolumeSpec>, }
    /// What a volume is.
    VolumeSpec {
        csi: Option<CsiSource>,
        aws_elastic_block_store: Option<IgnoredAny>,
        node_affinity: Option<VolumeNodeAffinity>,
        claim_ref: Option<ObjectReference>,
    }
    /// The driver of a volume.
    CsiSource { driver: String, }
    /// Where a volume can be used.
    VolumeNodeAffinity { required: Option<NodeSelector>, }
    /// The claim that a volume is for.
    ObjectReference { namespace: Option<String>, name: Option<String>, }
    /// A budget.
    PodDisruptionBudget {
        metadata: ObjectMeta,
        spec: Option<BudgetSpec>,
        status: Option<BudgetStatus>,
    }
    /// What a budget covers.
    BudgetSpec { selector: Option<LabelSelector>, unhealthy_pod_eviction_policy: Option<String>, }
    /// What a budget allows.
    BudgetStatus {
        observed_generation: Option<i64>,
        disruptions_allowed: Option<i32>,
        current_healthy: Option<i32>,
        desired_healthy: Option<i32>,
        expected_pods: Option<i32>,
    }
    /// A namespace.
    Namespace { metadata: ObjectMeta, }
    /// What is read first of an object whose fields cannot be read: what it is called, and where it is.
    Head { metadata: HeadMeta, spec: Option<HeadSpec>, }
    /// What it is called.
    HeadMeta {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        #[serde(deserialize_with = "labels_if_few")] labels: Option<BTreeMap<String, String>>,
    }
    /// Where a pod runs, what a node runs on.
    HeadSpec { node_name: Option<String>, #[serde(rename = "providerID")] provider_id: Option<String>, }
    /// What is left if not even that can be read.
    Bare { metadata: BareMeta, }
    /// What an object is called.
    BareMeta {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
    }
    /// An answer that says why there is no other (apimachinery, `metav1.Status`).
    Status { code: Option<u16>, reason: Option<String>, }
    /// What a list says besides its items.
    ListRest { metadata: ListMeta, }
    /// Its version, and where the next page begins.
    ListMeta { resource_version: Option<String>, #[serde(rename = "continue")] next: Option<String>, }
}

/// An object that is watched.
pub trait Watched: DeserializeOwned + Send + 'static {
    /// Namespace (empty for what belongs to the whole cluster), name and version.
    fn identity(&self) -> (&str, &str, &str);
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

macro_rules! watched {
    ($($kind:ty)*) => {$(
        impl Watched for $kind {
            fn identity(&self) -> (&str, &str, &str) {
                let metadata = &self.metadata;
                (text(&metadata.namespace), text(&metadata.name), text(&metadata.resource_version))
            }
        }
    )*};
}
watched!(Node Pod CSINode PersistentVolumeClaim PersistentVolume PodDisruptionBudget Namespace Head);

impl From<Bare> for Head {
    fn from(bare: Bare) -> Self {
        let BareMeta { name, namespace, uid, resource_version } = bare.metadata;
        let metadata = HeadMeta { name, namespace, uid, resource_version, labels: None };
        Self { metadata, spec: None }
    }
}

impl<A> ObjectMeta<A> {
    /// As the records of Spot Guard carry it. What nobody reads there stays with the API server.
    fn into_record(self) -> meta::ObjectMeta {
        let time = |time: Time| meta::Time(time.0);
        meta::ObjectMeta {
            name: self.name,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.map(time),
            deletion_timestamp: self.deletion_timestamp.map(time),
            labels: self.labels,
            ..meta::ObjectMeta::default()
        }
    }
}

/// A resource of Spot Guard's own, with slim metadata.
#[derive(Clone, Debug)]
pub struct Own<K>(pub K);

macro_rules! own {
    ($($kind:ident { $($part:ident: $type:ty),* })*) => {$(
        impl<'de> Deserialize<'de> for Own<$kind> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Parts {
                    metadata: ObjectMeta,
                    $($part: $type),*
                }
                let Parts { metadata, $($part),* } = Parts::deserialize(deserializer)?;
                Ok(Self($kind { metadata: metadata.into_record(), $($part),* }))
            }
        }

        impl Watched for Own<$kind> {
            fn identity(&self) -> (&str, &str, &str) {
                let metadata = &self.0.metadata;
                (text(&metadata.namespace), text(&metadata.name), text(&metadata.resource_version))
            }
        }
    )*};
}
own! {
    SpotPool { spec: SpotPoolSpec, status: Option<SpotPoolStatus> }
    InterruptionNotice { spec: InterruptionNoticeSpec }
    NodeReplacement { spec: NodeReplacementSpec, status: Option<ReplacementStatus> }
    Trigger { spec: TriggerSpec, status: Option<TriggerStatus> }
}
