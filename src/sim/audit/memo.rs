//! The objects of the cluster as they were read last.

use crate::crd::{NodeReplacement, SpotPool};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spot_guard_cloud::cluster;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects as they were read last: each is read from its JSON once per change.
#[derive(Default)]
pub(super) struct Read {
    pub(super) records: Memo<NodeReplacement>,
    pub(super) nodes: Memo<Node>,
    pub(super) pools: Memo<SpotPool>,
}

/// What was read of the objects of one kind, by namespace and name.
pub(super) struct Memo<K>(BTreeMap<(String, String), (Arc<Value>, Arc<K>)>);

impl<K> Default for Memo<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: DeserializeOwned + ResourceExt> Memo<K> {
    pub(super) fn all(&mut self, stored: Vec<Arc<Value>>) -> Vec<Arc<K>> {
        let mut held = std::mem::take(&mut self.0);
        for object in stored {
            let text =
                |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            let known = held.remove(&key).filter(|(seen, _)| Arc::ptr_eq(seen, &object));
            let read = known.or_else(|| {
                let read = cluster::readable(&object)?;
                Some((object, Arc::new(read)))
            });
            self.0.extend(read.map(|read| (key, read)));
        }
        self.0.values().map(|(_, read)| read.clone()).collect()
    }
}
