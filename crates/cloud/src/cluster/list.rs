//! Lists: selection, paging, and the deletion of all that is selected.

use super::answer::Answer;
use super::apiserver::{Call, delete_options};
use super::deletion::Deleted;
use super::discovery;
use super::json::ObjectKey;
use super::refusal::{Refusal, bad_request, expired, refusal};
use super::request::Query;
use super::resources::ResourceKind;
use super::world::World;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

impl World {
    pub(super) fn list(&self, kind: &ResourceKind, call: &Call<'_>) -> Result<Answer, Refusal> {
        let filter = call.filter(kind)?;
        self.check_version_reachable(call.query)?;
        let limit = call.query.number("limit")?.unwrap_or(0);
        let start = call.query.get("continue").map(|token| self.read_continue(kind, token)).transpose()?;
        let revision = start.as_ref().map_or(self.store.revision(), |(revision, _)| *revision);
        let after = start.map(|(_, key)| key);
        let mut items: Vec<String> = Vec::new();
        let (mut last, mut remaining) = (None, 0_usize);
        for (key, object) in self.store.all(&kind.id()) {
            if after.as_ref().is_some_and(|after| key <= after) || !filter.matches(object) {
                continue;
            }
            if limit > 0 && items.len() as u64 == limit {
                remaining += 1;
                continue;
            }
            items.push(list_item(kind, object, call.metadata_only()));
            last = Some(key.clone());
        }
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let (Some(last), true) = (last, remaining > 0) {
            metadata["continue"] = json!(format!("{revision}:{}:{}", last.namespace, last.name));
            if filter.is_plain() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        let (list_kind, api_version) = if call.metadata_only() {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (format!("{}List", kind.kind), kind.api_version())
        };
        let body = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[{}]}}",
            json!(list_kind),
            json!(api_version),
            items.join(",")
        );
        Ok(Answer { code: 200, body: Bytes::from(body), retry_after: None })
    }

    /// Where the next page begins. All pages carry the revision of the first one, so a watch from there sees
    /// whatever changed between the pages.
    fn read_continue(&self, kind: &ResourceKind, token: &str) -> Result<(u64, ObjectKey), Refusal> {
        let mut parts = token.splitn(3, ':');
        let parsed = (|| {
            let revision: u64 = parts.next()?.parse().ok()?;
            Some((revision, ObjectKey::new(parts.next()?, parts.next()?)))
        })();
        let (revision, key) = parsed.ok_or_else(|| bad_request("continue key is not valid"))?;
        if let Some(Err(oldest)) = self.store.table(&kind.id()).map(|table| table.since(revision).map(drop)) {
            return Err(expired(revision, oldest));
        }
        Ok((revision, key))
    }

    /// Nobody can ask for a version that has not come yet.
    pub(super) fn check_version_reachable(&self, query: &Query) -> Result<u64, Refusal> {
        let wanted = query.number("resourceVersion")?.unwrap_or(0);
        let current = self.store.revision();
        if wanted > current {
            let message = format!("Too large resource version: {wanted}, current: {current}");
            return Err(refusal(504, "Timeout", message));
        }
        Ok(wanted)
    }

    pub(super) fn delete_collection(
        &mut self,
        kind: &ResourceKind,
        call: &Call<'_>,
    ) -> Result<Answer, Refusal> {
        let filter = call.filter(kind)?;
        let options = delete_options(call)?;
        let keys: Vec<ObjectKey> = self
            .store
            .all(&kind.id())
            .filter(|(_, object)| filter.matches(object))
            .map(|(key, _)| key.clone())
            .collect();
        let mut items = Vec::new();
        for key in keys {
            match self.delete(kind, &key, &options, Some(call.by))? {
                Deleted::Pending(object) | Deleted::Gone(object) => {
                    items.push(list_item(kind, &object, false));
                }
            }
        }
        let body = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{{\"resourceVersion\":{}}},\"items\":[{}]}}",
            json!(format!("{}List", kind.kind)),
            json!(kind.api_version()),
            json!(self.store.revision().to_string()),
            items.join(",")
        );
        Ok(Answer { code: 200, body: Bytes::from(body), retry_after: None })
    }
}

/// Items of built-in lists carry no type of their own, those of custom resources do.
fn list_item(kind: &ResourceKind, object: &Arc<Value>, metadata_only: bool) -> String {
    if metadata_only {
        return discovery::partial(object).to_string();
    }
    if kind.is_custom() {
        return object.to_string();
    }
    let mut item = Value::clone(object);
    if let Value::Object(map) = &mut item {
        map.remove("kind");
        map.remove("apiVersion");
    }
    item.to_string()
}
