//! What is read of the Kubernetes API's objects: the fields that decisions need, and nothing else.
//!
//! Whatever is not named here is skipped unread and never kept: nobody can blind the controller by a field
//! that it has no use for, or fill its memory with one. The names are those of the API.

use crate::crd::{
    InterruptionNotice, InterruptionNoticeSpec, NodeReplacement, NodeReplacementSpec, SpotAction,
    SpotActionSpec, SpotActionStatus, SpotPool, SpotPoolSpec, SpotPoolStatus,
};
use crate::kube::caps::labels_if_few;
pub use crate::kube::scheduled::*;
pub use crate::kube::values::*;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use spot_guard_core::record::ReplacementStatus;
use std::collections::BTreeMap;

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

slim! {
    /// The annotations of a node that are read.
    NodeAnnotations {
        #[serde(rename = "cluster-autoscaler.kubernetes.io/scale-down-disabled")]
        scale_down_disabled: Option<String>,
        #[serde(rename = "spotguard.dev/scale-down-disabled")] protected_by: Option<IgnoredAny>,
    }
    /// A node.
    Node { metadata: ObjectMeta<NodeAnnotations>, spec: Option<NodeSpec>, status: Option<NodeStatus>, }
    /// The annotations of a pod that are read.
    PodAnnotations {
        #[serde(rename = "kubernetes.io/config.mirror")] mirror: Option<IgnoredAny>,
        #[serde(rename = "cluster-autoscaler.kubernetes.io/safe-to-evict")] safe_to_evict: Option<String>,
        #[serde(rename = "karpenter.sh/do-not-disrupt")] do_not_disrupt: Option<String>,
        #[serde(rename = "karpenter.sh/do-not-evict")] do_not_evict: Option<String>,
    }
    /// A pod.
    Pod { metadata: ObjectMeta<PodAnnotations>, spec: Option<PodSpec>, status: Option<PodStatus>, }
    /// What the drivers of a node can attach.
    CSINode { metadata: ObjectMeta, spec: CSINodeSpec, }
    /// The annotations of a claim that are read.
    ClaimAnnotations {
        #[serde(rename = "pv.kubernetes.io/bind-completed")] bound: Option<IgnoredAny>,
    }
    /// A claim.
    PersistentVolumeClaim {
        metadata: ObjectMeta<ClaimAnnotations>,
        spec: Option<PersistentVolumeClaimSpec>,
        status: Option<PersistentVolumeClaimStatus>,
    }
    /// A volume.
    PersistentVolume { metadata: ObjectMeta, spec: Option<PersistentVolumeSpec>, }
    /// A volume that is attached to a node.
    VolumeAttachment { metadata: ObjectMeta, spec: VolumeAttachmentSpec, }
    /// A driver.
    CSIDriver { metadata: ObjectMeta, spec: CSIDriverSpec, }
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
watched! {
    Node Pod CSINode PersistentVolumeClaim PersistentVolume VolumeAttachment CSIDriver StorageClass
    PodDisruptionBudget Namespace Head
}

impl From<Bare> for Head {
    fn from(bare: Bare) -> Self {
        let BareMeta { name, namespace, uid, resource_version } = bare.metadata;
        let metadata = HeadMeta { name, namespace, uid, resource_version, labels: None };
        Self { metadata, spec: None }
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
    SpotAction { spec: SpotActionSpec, status: Option<SpotActionStatus> }
}
