use crate::kube::scheduled;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use std::collections::BTreeSet;

/// What is said of the fields of a struct.
pub(in crate::kube) struct FieldList {
    /// The struct.
    pub(in crate::kube) name: &'static str,
    /// The fields that are read, as the API names them.
    pub(in crate::kube) understood: &'static [&'static str],
    /// Those that change nothing.
    pub(in crate::kube) irrelevant: &'static [&'static str],
    /// Those that hold a pod back.
    pub(in crate::kube) blocks: &'static [&'static str],
}

/// Listens to which fields a struct asks for.
pub(in crate::kube) struct Names<'a>(&'a mut &'static [&'static str]);

/// The fields that a struct reads.
pub(in crate::kube) fn names(read: impl FnOnce(Names<'_>) -> Result<(), Error>) -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    read(Names(&mut names)).expect_err("nothing is read");
    names
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("the names are known"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of the API version that is compiled in.
fn fields_of<T: JsonSchema>() -> BTreeSet<String> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let properties = schema.get("properties").and_then(|properties| properties.as_object());
    properties.expect("a struct").keys().cloned().collect()
}

/// The API's structs behind a list.
fn in_the_api(name: &str) -> BTreeSet<String> {
    match name {
        "NodeSpec" => fields_of::<core::NodeSpec>(),
        "Taint" => fields_of::<core::Taint>(),
        "NodeStatus" => fields_of::<core::NodeStatus>(),
        "PodSpec" => fields_of::<core::PodSpec>(),
        "Container" => fields_of::<core::Container>(),
        "ContainerRestartRule" => fields_of::<core::ContainerRestartRule>(),
        "VolumeMount" => fields_of::<core::VolumeMount>(),
        "ResourceRequirements" => fields_of::<core::ResourceRequirements>(),
        "ContainerPort" => fields_of::<core::ContainerPort>(),
        "Toleration" => fields_of::<core::Toleration>(),
        "Affinity" => fields_of::<core::Affinity>(),
        "NodeAffinity" => fields_of::<core::NodeAffinity>(),
        "PodAffinity" => &fields_of::<core::PodAffinity>() | &fields_of::<core::PodAntiAffinity>(),
        "NodeSelector" => fields_of::<core::NodeSelector>(),
        "NodeSelectorTerm" => fields_of::<core::NodeSelectorTerm>(),
        "SelectorRequirement" => {
            &fields_of::<core::NodeSelectorRequirement>() | &fields_of::<meta::LabelSelectorRequirement>()
        }
        "PodAffinityTerm" => fields_of::<core::PodAffinityTerm>(),
        "LabelSelector" => fields_of::<meta::LabelSelector>(),
        "TopologySpreadConstraint" => fields_of::<core::TopologySpreadConstraint>(),
        "Volume" => fields_of::<core::Volume>(),
        "ClaimSource" => fields_of::<core::PersistentVolumeClaimVolumeSource>(),
        "PodStatus" => fields_of::<core::PodStatus>(),
        "ContainerStatus" => fields_of::<core::ContainerStatus>(),
        "CSINodeSpec" => fields_of::<storage::CSINodeSpec>(),
        "CSINodeDriver" => fields_of::<storage::CSINodeDriver>(),
        "VolumeNodeResources" => fields_of::<storage::VolumeNodeResources>(),
        "PersistentVolumeClaimSpec" => fields_of::<core::PersistentVolumeClaimSpec>(),
        "PersistentVolumeClaimStatus" => fields_of::<core::PersistentVolumeClaimStatus>(),
        "PersistentVolumeSpec" => fields_of::<core::PersistentVolumeSpec>(),
        "CSIPersistentVolumeSource" => fields_of::<core::CSIPersistentVolumeSource>(),
        "VolumeNodeAffinity" => fields_of::<core::VolumeNodeAffinity>(),
        "ObjectReference" => fields_of::<core::ObjectReference>(),
        "VolumeAttachmentSpec" => fields_of::<storage::VolumeAttachmentSpec>(),
        "VolumeAttachmentSource" => fields_of::<storage::VolumeAttachmentSource>(),
        "CSIDriverSpec" => fields_of::<storage::CSIDriverSpec>(),
        "StorageClass" => fields_of::<storage::StorageClass>(),
        _ => panic!("{name}: which struct of the API is it?"),
    }
}

#[test]
fn every_field_that_the_api_has_is_understood_irrelevant_or_blocks() {
    for list in scheduled::field_lists() {
        let said: Vec<&str> = [list.understood, list.irrelevant, list.blocks].concat();
        let once: BTreeSet<String> = said.iter().map(ToString::to_string).collect();
        assert_eq!(once.len(), said.len(), "{}: a field stands in two lists", list.name);
        let api = in_the_api(list.name);
        let new: Vec<_> = api.difference(&once).collect();
        let gone: Vec<_> = once.difference(&api).collect();
        assert!(new.is_empty() && gone.is_empty(), "{}: new {new:?}, gone {gone:?}", list.name);
    }
}
