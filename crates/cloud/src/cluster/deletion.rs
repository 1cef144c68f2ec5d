//! Deletion: preconditions, grace periods, finalizers, and dependents that are to outlive their owner.

use super::disruption::Loss;
use super::json::{ObjectKey, items, number, seconds, section, set, text, uid};
use super::refusal::{Refusal, bad_request, conflict};
use super::request::Identity;
use super::resources::ResourceKind;
use super::world::World;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Value, json};
use std::sync::Arc;

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
        let typed = match options {
            Value::Null => meta::DeleteOptions::default(),
            given => serde_json::from_value(given.clone())
                .map_err(|error| bad_request(format!("delete options: {error}")))?,
        };
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
