//! From HTTP request to HTTP response.

use super::answer::Answer;
use super::deletion::{DeleteOptions, Deleted};
use super::eviction;
use super::json::{ObjectKey, text, uid};
use super::objects::Half;
use super::patch::{PatchKind, patched, unsupported};
use super::refusal::{Refusal, bad_request, forbidden, invalid, refusal};
use super::request::{Identity, Query, RequestInfo};
use super::resources::{ResourceKind, resource_id};
use super::selector::Filter;
use super::world::World;
use super::{discovery, review};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// One request, taken apart.
pub(super) struct Call<'a> {
    pub(super) info: &'a RequestInfo,
    pub(super) query: &'a Query,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    pub(super) by: &'a Identity,
}

impl Call<'_> {
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn metadata_only(&self) -> bool {
        self.headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|accept| accept.contains("as=PartialObjectMetadata"))
    }

    /// The body as JSON; `Null` if there is none.
    fn json(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(self.body)
            .map_err(|error| bad_request(format!("the body of the request is not JSON: {error}")))
    }

    fn object(&self) -> Result<Value, Refusal> {
        let content_type = self.content_type();
        if !(content_type.is_empty() || content_type.starts_with("application/json")) {
            return Err(unsupported(content_type));
        }
        let object = self.json()?;
        if object.is_object() { Ok(object) } else { Err(bad_request("the body of the request is no object")) }
    }

    /// What of a resource a list, a watch or a deletion of many covers.
    pub(super) fn filter(&self, kind: &ResourceKind) -> Result<Filter, Refusal> {
        let (labels, fields) = (self.query.get("labelSelector"), self.query.get("fieldSelector"));
        Filter::new(kind, self.info.namespace.as_deref(), labels, fields)
    }

    fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }
}

impl World {
    /// May this identity do this? The message is that of RBAC.
    pub(super) fn authorize(&self, info: &RequestInfo, by: &Identity) -> Result<(), Refusal> {
        if (self.policy)(by, info) {
            return Ok(());
        }
        let place = info
            .namespace
            .as_ref()
            .map_or("at the cluster scope".to_owned(), |namespace| format!("in the namespace {namespace:?}"));
        let resource = if info.subresource.is_empty() {
            info.resource.clone()
        } else {
            format!("{}/{}", info.resource, info.subresource)
        };
        let why = format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
            by.user, info.verb, info.group
        );
        Err(forbidden(&info.resource, &info.group, info.name.as_deref().unwrap_or_default(), &why))
    }

    /// The resource that a request names.
    pub(super) fn kind_of(&self, info: &RequestInfo) -> Result<ResourceKind, Refusal> {
        let unknown = || refusal(404, "NotFound", "the server could not find the requested resource");
        let table = self.store.table(&resource_id(&info.group, &info.resource)).ok_or_else(unknown)?;
        let all_namespaces = info.namespace.is_none() && matches!(info.verb.as_str(), "list" | "watch");
        let scope_fits = table.kind.namespaced == info.namespace.is_some() || all_namespaces;
        if table.kind.version != info.version || !scope_fits {
            return Err(unknown());
        }
        Ok(table.kind.clone())
    }

    /// Answers everything but watches.
    pub(super) fn respond(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        if let Some(answer) = review::respond(self, call.info, call.by, || call.json())? {
            return Ok(answer);
        }
        let kind = self.kind_of(call.info)?;
        let key = ObjectKey::new(call.info.namespace.as_deref().unwrap_or_default(), call.name());
        match (call.info.verb.as_str(), call.info.subresource.as_str()) {
            ("get", "") => self.existing(&kind, &key).map(|object| ok(&object, call)),
            ("get", "status") if kind.status => self.existing(&kind, &key).map(|object| ok(&object, call)),
            ("list", "") => self.list(&kind, call),
            ("create", "") if call.info.name.is_none() => self.post(&kind, call),
            ("create", "eviction") if kind.id() == "pods" => {
                eviction::respond(self, &kind, &key, &call.object()?, call.query.dry_run(), call.by)
            }
            ("create", "binding") if kind.id() == "pods" => self.bind_pod(&kind, &key, &call.object()?),
            ("update", sub) => {
                let half = half_of(&kind, sub)?;
                self.put_object(&kind, &key, half, call)
            }
            ("patch", sub) => {
                let half = half_of(&kind, sub)?;
                self.patch_object(&kind, &key, half, call)
            }
            ("delete", "") => {
                let options = delete_options(call)?;
                let deleted = self.delete(&kind, &key, &options, Some(call.by))?;
                Ok(deletion_answer(&kind, deleted))
            }
            ("deletecollection", "") => self.delete_collection(&kind, call),
            _ => Err(refusal(404, "NotFound", "the server could not find the requested resource")),
        }
    }

    fn post(&mut self, kind: &ResourceKind, call: &Call<'_>) -> Result<Answer, Refusal> {
        let mut object = call.object()?;
        fit(kind, call.info, &mut object)?;
        self.admit(call, &object)?;
        let created = self.create(kind, object, call.query.dry_run())?;
        Ok(Answer { code: 201, ..ok(&created, call) })
    }

    fn put_object(
        &mut self,
        kind: &ResourceKind,
        key: &ObjectKey,
        half: Half,
        call: &Call<'_>,
    ) -> Result<Answer, Refusal> {
        let mut object = call.object()?;
        fit(kind, call.info, &mut object)?;
        if text(&object, "/metadata/name") != Some(&key.name) {
            return Err(bad_request("the name of the object does not match the name on the URL"));
        }
        self.existing(kind, key)?;
        self.admit(call, &object)?;
        let stored = self.replace(kind, key, object, half, call.query.dry_run(), call.by)?;
        Ok(ok(&stored, call))
    }

    fn patch_object(
        &mut self,
        kind: &ResourceKind,
        key: &ObjectKey,
        half: Half,
        call: &Call<'_>,
    ) -> Result<Answer, Refusal> {
        let how = PatchKind::from_content_type(call.content_type())?;
        if how == PatchKind::Strategic && kind.is_custom() {
            return Err(unsupported(call.content_type()));
        }
        let change = call.json()?;
        if how == PatchKind::Apply {
            if call.query.get("fieldManager").is_none() {
                return Err(bad_request(
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: \
                    Required value: is required for apply patch",
                ));
            }
            if self.store.get(&kind.id(), key).is_none() && half == Half::Main {
                let mut object = change;
                fit(kind, call.info, &mut object)?;
                object["metadata"]["name"] = json!(key.name);
                self.admit(call, &object)?;
                let created = self.create(kind, object, call.query.dry_run())?;
                return Ok(Answer { code: 201, ..ok(&created, call) });
            }
        }
        let old = self.existing(kind, key)?;
        let mut object = patched(&old, &change, how)?;
        if !object.is_object() {
            return Err(bad_request("the patch leaves no object"));
        }
        if text(&object, "/metadata/name") != Some(&key.name) {
            let why = "Invalid value: field is immutable";
            return Err(invalid(&kind.kind, &kind.group, &key.name, "metadata.name", why));
        }
        fit(kind, call.info, &mut object)?;
        self.admit(call, &object)?;
        let stored = self.replace(kind, key, object, half, call.query.dry_run(), call.by)?;
        Ok(ok(&stored, call))
    }

    fn bind_pod(&mut self, kind: &ResourceKind, key: &ObjectKey, binding: &Value) -> Result<Answer, Refusal> {
        let pod = self.existing(kind, key)?;
        let node = text(binding, "/target/name").unwrap_or_default().to_owned();
        if text(&pod, "/spec/nodeName").is_some_and(|node| !node.is_empty()) {
            let why = format!("pod {} is already assigned to a node", key.name);
            return Err(super::refusal::conflict("pods/binding", "", &key.name, &why));
        }
        self.bind(key, &node);
        Ok(Answer::new(
            201,
            &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "code": 201 }),
        ))
    }

    fn admit(&self, call: &Call<'_>, object: &Value) -> Result<(), Refusal> {
        self.validators.iter().try_for_each(|validator| validator(call.info, object, call.by))
    }
}

fn half_of(kind: &ResourceKind, subresource: &str) -> Result<Half, Refusal> {
    match subresource {
        "" => Ok(Half::Main),
        "status" if kind.status => Ok(Half::Status),
        _ => Err(refusal(404, "NotFound", "the server could not find the requested resource")),
    }
}

/// Checks that the body is an object of this resource, and fills in what the path says already.
fn fit(kind: &ResourceKind, info: &RequestInfo, object: &mut Value) -> Result<(), Refusal> {
    for (field, expected) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
        match object[field].as_str() {
            None | Some("") => object[field] = json!(expected),
            Some(given) if given == expected => {}
            Some(given) => {
                return Err(bad_request(format!(
                    "the {field} in the data ({given}) does not match the \
                    expected {field} ({expected})"
                )));
            }
        }
    }
    if !(object["metadata"].is_object() || object["metadata"].is_null()) {
        return Err(bad_request("metadata is no object"));
    }
    match (&info.namespace, text(object, "/metadata/namespace")) {
        (Some(wanted), Some(given)) if !given.is_empty() && wanted != given => Err(bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        (Some(wanted), _) => {
            object["metadata"]["namespace"] = json!(wanted);
            Ok(())
        }
        (None, Some(given)) if !given.is_empty() => {
            Err(bad_request("namespace may not be set on a cluster-scoped object"))
        }
        (None, _) => Ok(()),
    }
}

pub(super) fn delete_options(call: &Call<'_>) -> Result<DeleteOptions, Refusal> {
    let mut options = DeleteOptions::read(&call.json()?)?;
    if let Some(period) = call.query.number("gracePeriodSeconds")? {
        options.grace = i64::try_from(period).ok();
    }
    options.orphan |= call.query.get("propagationPolicy") == Some("Orphan");
    options.dry_run |= call.query.dry_run();
    Ok(options)
}

/// Pods answer with the object, everything else that is gone with a Status.
fn deletion_answer(kind: &ResourceKind, deleted: Deleted) -> Answer {
    match deleted {
        Deleted::Gone(object) if kind.id() != "pods" => {
            let details = json!({ "name": text(&object, "/metadata/name"), "group": kind.group,
                "kind": kind.plural, "uid": uid(&object) });
            Answer::new(
                200,
                &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Success", "details": details }),
            )
        }
        Deleted::Gone(object) | Deleted::Pending(object) => Answer::new(200, &object),
    }
}

fn ok(object: &Arc<Value>, call: &Call<'_>) -> Answer {
    if call.metadata_only() {
        Answer::new(200, &discovery::partial(object))
    } else {
        Answer::new(200, object)
    }
}
