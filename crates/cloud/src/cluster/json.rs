//! Reading and writing Kubernetes objects as plain JSON.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) type Labels = BTreeMap<String, String>;

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object in a namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key that the metadata of `object` gives.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        Self::new(
            text(object, "/metadata/namespace").unwrap_or_default(),
            text(object, "/metadata/name").unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            out.write_str(&self.name)
        } else {
            write!(out, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A JSON pointer without escapes, which costs no allocation.
pub(super) fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(object, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    at(object, pointer).and_then(Value::as_str)
}

pub(super) fn number(object: &Value, pointer: &str) -> Option<i64> {
    at(object, pointer).and_then(Value::as_i64)
}

pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    at(object, pointer).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid").unwrap_or_default()
}

pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    at(object, "/metadata/annotations").and_then(|all| all.get(name)).and_then(Value::as_str)
}

/// A map of strings at `pointer`; anything else there reads as empty.
pub(super) fn strings(object: &Value, pointer: &str) -> Labels {
    let Some(map) = at(object, pointer).and_then(Value::as_object) else { return Labels::new() };
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The object at `key` of `object`, made if it is not there.
pub(super) fn section<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let Value::Object(map) = object else { unreachable!("made an object above") };
    let slot = map.entry(key).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets or removes `object[outer][key]`.
pub(super) fn set(object: &mut Value, outer: &str, key: &str, value: Option<Value>) {
    let map = section(object, outer);
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
}

/// `metav1.Time`: seconds only.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The condition of that type is True.
pub(super) fn condition_true(object: &Value, kind: &str) -> bool {
    items(object, "/status/conditions").iter().any(|condition| {
        condition["type"].as_str() == Some(kind) && condition["status"].as_str() == Some("True")
    })
}

/// Sets a condition; its transition time moves only when its status does.
pub(super) fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = section(object, "status").entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(conditions) = conditions else { return };
    let mut fresh = json!({ "type": kind, "status": status, "lastTransitionTime": seconds(now) });
    if !reason.is_empty() {
        fresh["reason"] = json!(reason);
    }
    if !message.is_empty() {
        fresh["message"] = json!(message);
    }
    match conditions.iter_mut().find(|condition| condition["type"].as_str() == Some(kind)) {
        None => conditions.push(fresh),
        Some(old) => {
            if old["status"].as_str() == Some(status) && !old["lastTransitionTime"].is_null() {
                fresh["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = fresh;
        }
    }
}

/// The owner reference that controls the object.
pub(super) fn controller_of(object: &Value) -> Option<&Value> {
    items(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner["controller"].as_bool() == Some(true))
}

/// A resource quantity in thousandths, rounded up; `None` if it is not one.
pub(crate) fn quantity(value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text.as_str(), 1.0));
    let amount: f64 = digits.parse().ok()?;
    // Far above any node, far below where the conversion would lose whole numbers.
    #[allow(clippy::cast_possible_truncation)]
    let thousandths = (amount * factor * 1000.0 - 1e-6).ceil() as i64;
    amount.is_finite().then_some(thousandths)
}
