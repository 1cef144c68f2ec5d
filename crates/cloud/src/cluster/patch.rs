//! The four kinds of patch.

use super::refusal::{Refusal, bad_request, refusal};
use serde_json::{Map, Value};

/// How a patch body is to be read, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub(super) fn from_content_type(content_type: &str) -> Result<Self, Refusal> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+json" => Ok(Self::Apply),
            other => Err(unsupported(other)),
        }
    }
}

pub(super) fn unsupported(content_type: &str) -> Refusal {
    refusal(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - {content_type:?} is not accepted here"),
    )
}

/// `object` as `patch` leaves it.
pub(super) fn patched(object: &Value, patch: &Value, kind: PatchKind) -> Result<Value, Refusal> {
    let mut result = object.clone();
    match kind {
        PatchKind::Json => json_patch(&mut result, patch)?,
        PatchKind::Merge => merge(&mut result, patch),
        PatchKind::Strategic | PatchKind::Apply => keyed_merge(&mut result, patch),
    }
    Ok(result)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// The list fields that merge by key. Every other list is atomic, node taints among them: whoever patches
/// them replaces the whole list.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "conditions" | "addresses" => Some("type"),
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "ownerReferences" => Some("uid"),
        "topologySpreadConstraints" => Some("topologyKey"),
        _ => None,
    }
}

fn keyed_merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if changes.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = patch.clone();
        if let Value::Object(map) = target {
            map.remove("$patch");
        }
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (field, change) in changes {
        if field.starts_with('$') {
            continue;
        }
        if change.is_null() {
            map.remove(field);
            continue;
        }
        let slot = map.entry(field.clone()).or_insert(Value::Null);
        match (change, merge_key(field)) {
            (Value::Array(list), Some(key)) => merge_list(slot, list, key),
            (Value::Array(list), None) if field == "finalizers" => merge_set(slot, list),
            (Value::Array(_), None) => *slot = change.clone(),
            _ => keyed_merge(slot, change),
        }
    }
    if let Some(Value::Array(removed)) = changes.get("$deleteFromPrimitiveList/finalizers")
        && let Some(Value::Array(list)) = map.get_mut("finalizers")
    {
        list.retain(|item| !removed.contains(item));
    }
}

fn merge_list(slot: &mut Value, changes: &[Value], key: &str) {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(list) = slot else { return };
    if changes.iter().any(|change| change["$patch"].as_str() == Some("replace") && change[key].is_null()) {
        list.clear();
    }
    for change in changes.iter().filter(|change| !change[key].is_null()) {
        let at = list.iter().position(|item| item[key] == change[key]);
        match (change["$patch"].as_str() == Some("delete"), at) {
            (true, Some(at)) => {
                list.remove(at);
            }
            (true, None) => {}
            (false, Some(at)) => keyed_merge(&mut list[at], change),
            (false, None) => {
                let mut fresh = Value::Null;
                keyed_merge(&mut fresh, change);
                list.push(fresh);
            }
        }
    }
}

fn merge_set(slot: &mut Value, additions: &[Value]) {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(list) = slot else { return };
    for addition in additions {
        if !list.contains(addition) {
            list.push(addition.clone());
        }
    }
}

/// RFC 6902. A `test` that does not hold refuses the whole patch.
fn json_patch(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let Value::Array(operations) = patch else {
        return Err(bad_request("a JSON patch is a list of operations"));
    };
    for operation in operations {
        let path = pointer(operation, "path")?;
        let value =
            || operation.get("value").cloned().ok_or_else(|| bad_request("this operation needs a value"));
        match operation["op"].as_str().unwrap_or_default() {
            "add" => add(target, path, value()?)?,
            "remove" => {
                take(target, path)?;
            }
            "replace" => match target.pointer_mut(path) {
                Some(slot) => *slot = value()?,
                None => return Err(unprocessable(format!("replace: there is nothing at {path:?}"))),
            },
            "move" => {
                let moved = take(target, pointer(operation, "from")?)?;
                add(target, path, moved)?;
            }
            "copy" => {
                let from = pointer(operation, "from")?;
                let copied = target.pointer(from).cloned();
                let copied =
                    copied.ok_or_else(|| unprocessable(format!("copy: there is nothing at {from:?}")))?;
                add(target, path, copied)?;
            }
            "test" => {
                // An absent member tests equal to null, as in the library that the real API uses.
                if *target.pointer(path).unwrap_or(&Value::Null) != value()? {
                    return Err(unprocessable(format!("testing path {path} failed")));
                }
            }
            other => return Err(bad_request(format!("unknown operation {other:?}"))),
        }
    }
    Ok(())
}

fn pointer<'a>(operation: &'a Value, field: &str) -> Result<&'a str, Refusal> {
    operation[field].as_str().ok_or_else(|| bad_request(format!("an operation needs a {field}")))
}

fn unprocessable(message: String) -> Refusal {
    refusal(
        422,
        "Invalid",
        format!("the server rejected our request due to an error in our request: {message}"),
    )
}

/// The container that `path` points into, and the last step.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Refusal> {
    let (above, last) =
        path.rsplit_once('/').ok_or_else(|| bad_request(format!("{path:?} is not a pointer")))?;
    let container =
        target.pointer_mut(above).ok_or_else(|| unprocessable(format!("there is nothing at {above:?}")))?;
    Ok((container, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
            Ok(())
        }
        (Value::Array(list), key) if key == "-" => {
            list.push(value);
            Ok(())
        }
        (Value::Array(list), key) => match key.parse::<usize>() {
            Ok(at) if at <= list.len() => {
                list.insert(at, value);
                Ok(())
            }
            _ => Err(unprocessable(format!("add: {path:?} is out of range"))),
        },
        _ => Err(unprocessable(format!("add: {path:?} is not inside an object or a list"))),
    }
}

fn take(target: &mut Value, path: &str) -> Result<Value, Refusal> {
    let removed = match parent(target, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), key) => {
            key.parse::<usize>().ok().filter(|at| *at < list.len()).map(|at| list.remove(at))
        }
        _ => None,
    };
    removed.ok_or_else(|| unprocessable(format!("remove: there is nothing at {path:?}")))
}
