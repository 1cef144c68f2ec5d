//! Create and replace, with the rules that all resources share.

use super::disruption::Loss;
use super::json::{ObjectKey, annotation, items, number, seconds, section, set, text, uid};
use super::notice_names::is_name_of;
use super::refusal::{Refusal, already_exists, bad_request, conflict, invalid, modified, not_found, refusal};
use super::request::Identity;
use super::resources::ResourceKind;
use super::world::World;
use serde_json::{Value, json};
use std::sync::Arc;

/// Which half of an object a write may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Everything but the status, where that is a subresource.
    Main,
    /// The status alone.
    Status,
}

impl World {
    pub(super) fn existing(&self, kind: &ResourceKind, key: &ObjectKey) -> Result<Arc<Value>, Refusal> {
        self.store
            .get(&kind.id(), key)
            .cloned()
            .ok_or_else(|| not_found(&kind.plural, &kind.group, &key.name))
    }

    /// Stores a new object; its namespace is set already.
    pub(super) fn create(
        &mut self,
        kind: &ResourceKind,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Value>, Refusal> {
        if text(&object, "/metadata/resourceVersion").is_some_and(|version| !version.is_empty()) {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(refusal(500, "", message));
        }
        if text(&object, "/metadata/name").is_none_or(str::is_empty) {
            let Some(prefix) = text(&object, "/metadata/generateName").map(str::to_owned) else {
                return Err(invalid(
                    &kind.kind,
                    &kind.group,
                    "",
                    "metadata.name",
                    "Required value: name or generateName is required",
                ));
            };
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.suffix()));
        }
        let key = ObjectKey::of(&object);
        check_name(kind, &key.name)?;
        check_notice(kind, &key.name, &object)?;
        if kind.namespaced && self.store.get("namespaces", &ObjectKey::new("", &key.namespace)).is_none() {
            return Err(not_found("namespaces", "", &key.namespace));
        }
        if self.store.get(&kind.id(), &key).is_some() {
            return Err(already_exists(&kind.plural, &kind.group, &key.name));
        }
        let (uid, now) = (self.new_uid(), self.now());
        let metadata = section(&mut object, "metadata");
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(seconds(now)));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        if kind.status
            && !kind.status_on_create
            && let Value::Object(map) = &mut object
        {
            map.remove("status");
        }
        defaults(kind, &mut object);
        let object = normalised(kind, object)?;
        if dry_run {
            return Ok(Arc::new(object));
        }
        Ok(self.put(&kind.id(), object))
    }

    /// Replaces one half of an object, if nobody else has changed it since the version that the new one
    /// names.
    pub(super) fn replace(
        &mut self,
        kind: &ResourceKind,
        key: &ObjectKey,
        mut object: Value,
        half: Half,
        dry_run: bool,
        by: &Identity,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.existing(kind, key)?;
        let stored = text(&old, "/metadata/resourceVersion").unwrap_or_default();
        match text(&object, "/metadata/resourceVersion").unwrap_or_default() {
            "" if !kind.unconditional_update => {
                let why = "Invalid value: 0: must be specified for an update";
                return Err(invalid(&kind.kind, &kind.group, &key.name, "metadata.resourceVersion", why));
            }
            "" => {}
            version if version != stored => return Err(modified(&kind.plural, &kind.group, &key.name)),
            _ => {}
        }
        if let Some(wanted) = text(&object, "/metadata/uid")
            && !wanted.is_empty()
            && wanted != uid(&old)
        {
            let why = format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {}",
                uid(&old)
            );
            return Err(conflict(&kind.plural, &kind.group, &key.name, &why));
        }
        if half == Half::Status {
            let status = object.get("status").cloned();
            object = Value::clone(&old);
            if let (Value::Object(map), Some(status)) = (&mut object, status) {
                map.insert("status".to_owned(), status);
            }
        } else {
            keep_system_fields(kind, &old, &mut object);
        }
        let mut object = normalised(kind, object)?;
        if kind.generation && half == Half::Main && spec_differs(kind, &old, &object) {
            let generation = number(&old, "/metadata/generation").unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        if dry_run {
            return Ok(Arc::new(object));
        }
        let health = self.health_of(kind, key);
        let released = object["metadata"]["deletionTimestamp"].is_string()
            && items(&object, "/metadata/finalizers").is_empty()
            && number(&object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0;
        let stored = self.put(&kind.id(), object);
        if released {
            self.remove(&kind.id(), key);
        }
        if let Some(pod) = health {
            self.audit(&pod, by, Loss::Status);
        }
        Ok(stored)
    }
}

/// Reads the object as its type, so that the same is stored as by the real API. Who manages which field is
/// stored as it is: the real API takes times there that our types cannot hold.
fn normalised(kind: &ResourceKind, mut object: Value) -> Result<Value, Refusal> {
    let Some(normalise) = kind.normalise else { return Ok(object) };
    let managed = section(&mut object, "metadata").remove("managedFields");
    let mut object = normalise(object).map_err(|error| {
        bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            kind.kind,
            kind.api_version(),
            kind.kind
        ))
    })?;
    if managed.is_some() {
        set(&mut object, "metadata", "managedFields", managed);
    }
    Ok(object)
}

/// RFC 1123: what object names may look like.
fn check_name(kind: &ResourceKind, name: &str) -> Result<(), Refusal> {
    let word = |part: &str| {
        let edge =
            |char: Option<char>| char.is_some_and(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
        part.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-')
            && edge(part.chars().next())
            && edge(part.chars().last())
    };
    if name.len() <= 253 && name.split('.').all(word) {
        return Ok(());
    }
    let why = format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case \
        alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
    );
    Err(invalid(&kind.kind, &kind.group, name, "metadata.name", &why))
}

/// As the definition of InterruptionNotices demands it: the name tells node, instance and kind.
fn check_notice(kind: &ResourceKind, name: &str, object: &Value) -> Result<(), Refusal> {
    if kind.plural != "interruptionnotices" || is_name_of(name, object) {
        return Ok(());
    }
    Err(invalid(&kind.kind, &kind.group, name, "metadata.name", "must be made of node, instance and kind"))
}

/// What a client cannot change by an ordinary update.
fn keep_system_fields(kind: &ResourceKind, old: &Value, object: &mut Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "namespace",
    ] {
        set(object, "metadata", field, old["metadata"].get(field).cloned());
    }
    // Whoever does not speak of it leaves it as it is.
    if object["metadata"]["managedFields"].is_null() {
        set(object, "metadata", "managedFields", old["metadata"].get("managedFields").cloned());
    }
    if kind.status
        && let Value::Object(map) = object
    {
        match old.get("status") {
            Some(status) => map.insert("status".to_owned(), status.clone()),
            None => map.remove("status"),
        };
    }
}

/// Whether the desired state differs: the spec of a built-in type, all but metadata and status of a custom
/// one.
fn spec_differs(kind: &ResourceKind, old: &Value, new: &Value) -> bool {
    if !kind.is_custom() {
        return old["spec"] != new["spec"];
    }
    let desired = |object: &Value| {
        let mut map = object.as_object().cloned().unwrap_or_default();
        map.remove("metadata");
        map.remove("status");
        map
    };
    desired(old) != desired(new)
}

/// The defaults that other parts of the cluster rely on.
fn defaults(kind: &ResourceKind, object: &mut Value) {
    match kind.id().as_str() {
        "pods" => default_pod(object),
        "namespaces" => object["status"] = json!({ "phase": "Active" }),
        "deployments.apps" | "replicasets.apps" => {
            section(object, "spec").entry("replicas").or_insert_with(|| json!(1));
        }
        _ => {}
    }
}

fn default_pod(pod: &mut Value) {
    if annotation(pod, "kubernetes.io/config.mirror").is_none() {
        pod["status"] = json!({ "phase": "Pending" });
    }
    let spec = section(pod, "spec");
    let priority = match spec.get("priorityClassName").and_then(Value::as_str) {
        Some("system-node-critical") => 2_000_001_000,
        Some("system-cluster-critical") => 2_000_000_000,
        _ => 0,
    };
    for (field, value) in [
        ("terminationGracePeriodSeconds", json!(30)),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("priority", json!(priority)),
    ] {
        spec.entry(field).or_insert(value);
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(list) = tolerations else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let known = list.iter().any(|toleration| {
            (toleration["key"].as_str() == Some(key) || toleration["key"].as_str().is_none_or(str::is_empty))
                && matches!(toleration["effect"].as_str(), None | Some("NoExecute" | ""))
        });
        if !known {
            list.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300 }));
        }
    }
}
