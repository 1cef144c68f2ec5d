//! Create, replace and delete, with the rules that all resources share.

use super::disruption::Loss;
use super::json::{ObjectKey, annotation, items, number, seconds, section, set, text, uid};
use super::refusal::{Refusal, already_exists, bad_request, conflict, invalid, modified, not_found};
use super::request::Identity;
use super::resources::ResourceKind;
use super::world::World;
use jiff::{SignedDuration, Timestamp};
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

/// `metav1.DeleteOptions`, as far as they are served.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub(super) grace: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) dry_run: bool,
    pub(super) orphan: bool,
}

impl DeleteOptions {
    pub(super) fn read(options: &Value) -> Result<Self, Refusal> {
        let typed: k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions =
            if options.is_null() { Ok(Default::default()) } else { serde_json::from_value(options.clone()) }
                .map_err(|error| bad_request(format!("delete options: {error}")))?;
        let preconditions = typed.preconditions.unwrap_or_default();
        Ok(Self {
            grace: typed.grace_period_seconds,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run: typed.dry_run.is_some_and(|dry_run| !dry_run.is_empty()),
            orphan: typed.propagation_policy.as_deref() == Some("Orphan"),
        })
    }
}

/// How a deletion ended.
pub(super) enum Deleted {
    /// It waits for a grace period or for finalizers.
    Pending(Arc<Value>),
    /// It is gone.
    Gone(Arc<Value>),
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
            return Err(bad_request("resourceVersion should not be set on objects to be created"));
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
        if kind.namespaced && self.store.get("namespaces", &ObjectKey::new("", &key.namespace)).is_none() {
            return Err(not_found("namespaces", "", &key.namespace));
        }
        if self.store.get(&kind.id(), &key).is_some() {
            return Err(already_exists(&kind.plural, &kind.group, &key.name));
        }
        let (uid, now) = (self.new_uid(), self.now());
        let metadata = section(&mut object, "metadata");
        metadata.remove("managedFields");
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

    /// Replaces one half of an object, if nobody else has changed it since the version that the new one names.
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

    /// Deletes an object, at once or gracefully.
    pub(super) fn delete(
        &mut self,
        kind: &ResourceKind,
        key: &ObjectKey,
        options: &DeleteOptions,
        by: Option<&Identity>,
    ) -> Result<Deleted, Refusal> {
        let old = self.existing(kind, key)?;
        check_preconditions(kind, key, &old, options)?;
        let now = self.now();
        let mut object = Value::clone(&old);
        let finalizers = !items(&old, "/metadata/finalizers").is_empty();
        let mut immediate = true;
        if kind.id() == "pods" {
            match grace(&old, options, now) {
                Grace::Immediate => {}
                Grace::Unchanged => return Ok(Deleted::Pending(old)),
                Grace::Until(at, period) => {
                    immediate = period == 0;
                    mark_deleted(&mut object, at, period);
                }
            }
        }
        if immediate && finalizers {
            if old["metadata"]["deletionTimestamp"].is_null() {
                mark_deleted(&mut object, now, 0);
            } else {
                set(&mut object, "metadata", "deletionGracePeriodSeconds", Some(json!(0)));
            }
        }
        if options.dry_run {
            let object = Arc::new(object);
            return Ok(if immediate && !finalizers {
                Deleted::Gone(object)
            } else {
                Deleted::Pending(object)
            });
        }
        let health = self.health_of(kind, key);
        if options.orphan {
            self.orphan(uid(&old));
        }
        let outcome = if immediate && !finalizers {
            Deleted::Gone(self.remove(&kind.id(), key).unwrap_or(old))
        } else {
            Deleted::Pending(self.put(&kind.id(), object))
        };
        if let (Some(pod), Some(by)) = (health, by) {
            self.audit(&pod, by, Loss::Delete);
        }
        Ok(outcome)
    }

    /// Takes the owner out of its dependents, so that they outlive it.
    fn orphan(&mut self, owner: &str) {
        for (resource, key) in self.dependents.get(owner).cloned().unwrap_or_default() {
            self.edit(&resource, &key, |object| {
                if let Some(Value::Array(owners)) = section(object, "metadata").get_mut("ownerReferences") {
                    owners.retain(|reference| reference["uid"].as_str() != Some(owner));
                }
            });
        }
    }
}

/// Reads the object as its type, so that the same is stored as by the real API.
fn normalised(kind: &ResourceKind, object: Value) -> Result<Value, Refusal> {
    match kind.normalise {
        None => Ok(object),
        Some(normalise) => normalise(object).map_err(|error| {
            bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {error}",
                kind.kind,
                kind.api_version(),
                kind.kind
            ))
        }),
    }
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

fn check_preconditions(
    kind: &ResourceKind,
    key: &ObjectKey,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Refusal> {
    let stored_uid = uid(old);
    if let Some(wanted) = &options.uid
        && wanted != stored_uid
    {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({stored_uid}). \
             The object might have been deleted and then recreated"
        );
        return Err(conflict(&kind.kind, &kind.group, &key.name, &why));
    }
    let stored = text(old, "/metadata/resourceVersion").unwrap_or_default();
    if let Some(wanted) = &options.resource_version
        && wanted != stored
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({stored}). The object might have been modified"
        );
        return Err(conflict(&kind.kind, &kind.group, &key.name, &why));
    }
    Ok(())
}

enum Grace {
    Immediate,
    /// It is being deleted already, and not later than this asks for.
    Unchanged,
    Until(Timestamp, i64),
}

/// How long a pod may take to stop.
fn grace(pod: &Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    let later = |time: Timestamp, period: i64| {
        time.checked_add(SignedDuration::from_secs(period)).unwrap_or(Timestamp::MAX)
    };
    let asked = options.grace.map(|period| if period < 0 { 1 } else { period });
    let pending = text(pod, "/metadata/deletionTimestamp").and_then(|at| at.parse::<Timestamp>().ok());
    if let Some(due) = pending {
        let current = number(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        return match asked {
            _ if current == 0 => Grace::Immediate,
            Some(period) if period < current => {
                let (mut at, mut period) = (later(later(due, -current), period), period);
                if at < now {
                    at = now;
                    period = period.min(1);
                }
                Grace::Until(at, period)
            }
            _ => Grace::Unchanged,
        };
    }
    let finished = matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"));
    let unscheduled = text(pod, "/spec/nodeName").is_none_or(str::is_empty);
    if finished || unscheduled {
        return Grace::Immediate;
    }
    let period = asked.or_else(|| number(pod, "/spec/terminationGracePeriodSeconds")).unwrap_or(0);
    if period == 0 { Grace::Immediate } else { Grace::Until(later(now, period), period) }
}

fn mark_deleted(object: &mut Value, at: Timestamp, period: i64) {
    if let Some(generation) = number(object, "/metadata/generation")
        && object["metadata"]["deletionTimestamp"].is_null()
    {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    set(object, "metadata", "deletionTimestamp", Some(json!(seconds(at))));
    set(object, "metadata", "deletionGracePeriodSeconds", Some(json!(period)));
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
    section(object, "metadata").remove("managedFields");
    if kind.status
        && let Value::Object(map) = object
    {
        match old.get("status") {
            Some(status) => map.insert("status".to_owned(), status.clone()),
            None => map.remove("status"),
        };
    }
}

/// Whether the desired state differs: the spec of a built-in type, all but metadata and status of a custom one.
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
