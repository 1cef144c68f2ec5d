//! Bounds that hold for all kinds: what can be stored can be read, and costs little.
//!
//! Strings, lists and the sizes of both have limits at their fields. This adds what no field has to say:
//! times are UTC and within two centuries, whole numbers have a range, and maps a size.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The years 2020 to 2199 in UTC, as [`jiff::Timestamp`] writes times. The format `date-time` alone takes
/// times that no parser of ours can hold, such as the end of the year 9999.
const TIME: &str =
    r"^(20[2-9][0-9]|21[0-9]{2})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?Z$";
/// The longest time that fits the pattern, in characters.
const TIME_LENGTH: i64 = 30;
/// Entries of a map.
const MAP_SIZE: i64 = 64;
/// The largest whole number: counts, seconds and per cent are far below it.
const LARGEST: f64 = 2_147_483_647.0;

/// The definition with its bounds.
pub(super) fn bounded(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        bound(schema);
    }
    definition
}

fn bound(schema: &mut JSONSchemaProps) {
    match schema.type_.as_deref() {
        Some("integer") => {
            schema.minimum.get_or_insert(0.0);
            schema.maximum.get_or_insert(LARGEST);
            // The API knows int32 and int64 only, and says so to whoever applies the definition.
            if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
                schema.format = None;
            }
        }
        Some("string") if schema.format.as_deref() == Some("date-time") => {
            schema.pattern = Some(TIME.to_owned());
            schema.max_length = Some(TIME_LENGTH);
        }
        _ => {}
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        bound(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        schema.max_properties.get_or_insert(MAP_SIZE);
        bound(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::definitions;

    /// What of a schema has no limit, by its path.
    fn unbounded(path: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        let lacks = |what: &str| format!("{path}: {what}");
        match schema.type_.as_deref() {
            Some("string") if schema.max_length.is_none() && schema.enum_.is_none() => {
                found.push(lacks("maxLength"));
            }
            Some("array") if schema.max_items.is_none() => found.push(lacks("maxItems")),
            Some("integer" | "number") if schema.minimum.is_none() || schema.maximum.is_none() => {
                found.push(lacks("a range"));
            }
            Some("object") if schema.additional_properties.is_some() && schema.max_properties.is_none() => {
                found.push(lacks("maxProperties"));
            }
            Some("string" | "array" | "integer" | "number" | "object" | "boolean") => {}
            other => found.push(lacks(&format!("a known type, not {other:?}"))),
        }
        if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
            found.push(lacks("an end: it keeps unknown fields"));
        }
        if schema.format.as_deref().is_some_and(|format| !["date-time", "int32", "int64"].contains(&format)) {
            found.push(lacks("a format that the API knows"));
        }
        for (name, property) in schema.properties.iter().flatten() {
            if !(path.is_empty() && name == "metadata") {
                unbounded(&format!("{path}.{name}"), property, found);
            }
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            unbounded(&format!("{path}[]"), items, found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            unbounded(&format!("{path}{{}}"), values, found);
        }
    }

    #[test]
    fn every_string_list_map_and_number_of_every_kind_has_a_limit() {
        let mut found = Vec::new();
        for definition in definitions() {
            for version in &definition.spec.versions {
                let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
                let before = found.len();
                unbounded("", schema.expect("a schema"), &mut found);
                for line in &mut found[before..] {
                    line.insert_str(0, &definition.spec.names.kind);
                }
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}
