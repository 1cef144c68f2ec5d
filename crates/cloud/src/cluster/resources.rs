//! The resources that the simulated API serves.

use k8s_openapi::api::{apps, coordination, core, events, policy, storage};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One resource of the API.
#[derive(Clone, Debug)]
pub struct ResourceKind {
    /// API group, empty for core.
    pub group: String,
    /// Served version.
    pub version: String,
    /// Kind of its objects.
    pub kind: String,
    /// Plural name, as in the path.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether status is a subresource.
    pub status: bool,
    /// Whether a create may bring a status along: kubelets register their node so.
    pub(super) status_on_create: bool,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub(super) generation: bool,
    /// Whether an update may leave out the resource version.
    pub(super) unconditional_update: bool,
    /// Reads an object as its built-in type and writes it again: wrong types are refused, unknown fields
    /// vanish. `None` for custom resources.
    pub(super) normalise: Option<fn(Value) -> Result<Value, String>>,
}

impl ResourceKind {
    /// A cluster-scoped custom resource with a status subresource.
    #[must_use]
    pub fn custom(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced: false,
            status: true,
            status_on_create: false,
            generation: true,
            unconditional_update: false,
            normalise: None,
        }
    }

    fn built_in<K>(namespaced: bool, status: bool) -> Self
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Serialize,
    {
        Self {
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            namespaced,
            status,
            status_on_create: false,
            generation: status,
            unconditional_update: true,
            normalise: Some(normalise::<K>),
        }
    }

    /// `plural.group`, or the plural alone for core: the name under which the store keeps it.
    #[must_use]
    pub fn id(&self) -> String {
        resource_id(&self.group, &self.plural)
    }

    /// `group/version`, or the version alone for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(super) fn is_custom(&self) -> bool {
        self.normalise.is_none()
    }
}

pub(super) fn resource_id(group: &str, plural: &str) -> String {
    super::refusal::qualified(plural, group)
}

/// The name under which the store keeps the objects of a type.
pub(super) fn id_of<K: Resource<DynamicType = ()>>() -> String {
    resource_id(&K::group(&()), &K::plural(&()))
}

fn normalise<K: DeserializeOwned + Serialize>(object: Value) -> Result<Value, String> {
    let typed: K = serde_json::from_value(object).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Everything that is served from the start.
pub(super) fn catalogue() -> Vec<ResourceKind> {
    let node = ResourceKind {
        status_on_create: true,
        generation: false,
        ..ResourceKind::built_in::<core::v1::Node>(false, true)
    };
    let without_generation = |kind: ResourceKind| ResourceKind { generation: false, ..kind };
    let conditional = |kind: ResourceKind| ResourceKind { unconditional_update: false, ..kind };
    let mut kinds = vec![
        node,
        ResourceKind::built_in::<core::v1::Pod>(true, true),
        ResourceKind::built_in::<core::v1::Event>(true, false),
        without_generation(ResourceKind::built_in::<core::v1::Namespace>(false, true)),
        ResourceKind::built_in::<core::v1::ServiceAccount>(true, false),
        ResourceKind::built_in::<core::v1::ConfigMap>(true, false),
        without_generation(ResourceKind::built_in::<core::v1::PersistentVolume>(false, true)),
        without_generation(ResourceKind::built_in::<core::v1::PersistentVolumeClaim>(true, true)),
        ResourceKind::built_in::<apps::v1::Deployment>(true, true),
        ResourceKind::built_in::<apps::v1::ReplicaSet>(true, true),
        ResourceKind::built_in::<apps::v1::DaemonSet>(true, true),
        conditional(ResourceKind::built_in::<policy::v1::PodDisruptionBudget>(true, true)),
        conditional(ResourceKind::built_in::<coordination::v1::Lease>(true, false)),
        ResourceKind::built_in::<events::v1::Event>(true, false),
        ResourceKind::built_in::<storage::v1::CSINode>(false, false),
        ResourceKind::built_in::<storage::v1::StorageClass>(false, false),
        ResourceKind::built_in::<storage::v1::CSIDriver>(false, false),
        ResourceKind::built_in::<storage::v1::VolumeAttachment>(false, true),
    ];
    for (kind, plural) in [
        ("SpotPool", "spotpools"),
        ("InterruptionNotice", "interruptionnotices"),
        ("NodeReplacement", "nodereplacements"),
        ("SpotAction", "spotactions"),
    ] {
        kinds.push(ResourceKind::custom("spotguard.dev", "v1alpha1", kind, plural));
    }
    kinds
}
