//! The objects, their versions and the history that watches read.

use super::json::ObjectKey;
use super::resources::{ResourceKind, catalogue};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// How many events of one resource a watch can be behind before it has to list again.
const HISTORY: usize = 10_000;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came into being.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One step in the life of one object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) kind: ChangeKind,
    /// The object afterwards; for a deletion, its last state under the revision of the deletion.
    pub(super) object: Arc<Value>,
    pub(super) before: Option<Arc<Value>>,
}

/// The objects of one resource.
pub(super) struct Table {
    pub(super) kind: ResourceKind,
    pub(super) objects: BTreeMap<ObjectKey, Arc<Value>>,
    history: VecDeque<Event>,
    /// Watches can resume from this revision or later.
    oldest: u64,
    news: watch::Sender<u64>,
}

impl Table {
    fn new(kind: ResourceKind, revision: u64) -> Self {
        Self {
            kind,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            oldest: revision,
            news: watch::Sender::new(revision),
        }
    }

    /// The events after `revision`, or the oldest revision that is still served.
    pub(super) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Event>, u64> {
        if revision < self.oldest {
            return Err(self.oldest);
        }
        let start = self.history.partition_point(|event| event.revision <= revision);
        Ok(self.history.range(start..))
    }

    /// Follows the revision of the last change; ends when the server closes its watches.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn record(&mut self, event: Event) {
        let revision = event.revision;
        self.history.push_back(event);
        while self.history.len() > HISTORY {
            if let Some(forgotten) = self.history.pop_front() {
                self.oldest = forgotten.revision;
            }
        }
        self.news.send_replace(revision);
    }
}

/// Every resource and its objects, under one revision counter.
pub(super) struct Store {
    tables: BTreeMap<String, Table>,
    revision: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        let mut store = Self { tables: BTreeMap::new(), revision: 1 };
        for kind in catalogue() {
            store.register(kind);
        }
        store
    }

    pub(super) fn register(&mut self, kind: ResourceKind) {
        let revision = self.revision;
        self.tables.entry(kind.id()).or_insert_with(|| Table::new(kind, revision));
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = &ResourceKind> {
        self.tables.values().map(|table| &table.kind)
    }

    pub(super) fn table(&self, resource: &str) -> Option<&Table> {
        self.tables.get(resource)
    }

    pub(super) fn get(&self, resource: &str, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.tables.get(resource)?.objects.get(key)
    }

    /// The objects of a resource in the order of their keys.
    pub(super) fn all(&self, resource: &str) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.tables.get(resource).into_iter().flat_map(|table| table.objects.iter())
    }

    /// Stores the object under a new revision. `None` if nothing differs from what is stored: then nobody
    /// hears of it, as in the real API.
    pub(super) fn put(&mut self, resource: &str, mut object: Value) -> Option<Event> {
        let table = self.tables.get_mut(resource)?;
        let key = ObjectKey::of(&object);
        let before = table.objects.get(&key).cloned();
        if let Some(before) = &before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if **before == object {
                return None;
            }
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        table.objects.insert(key, Arc::clone(&object));
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let event = Event { revision: self.revision, kind, object, before };
        table.record(event.clone());
        Some(event)
    }

    pub(super) fn remove(&mut self, resource: &str, key: &ObjectKey) -> Option<Event> {
        let table = self.tables.get_mut(resource)?;
        let before = table.objects.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&before);
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let event = Event {
            revision: self.revision,
            kind: ChangeKind::Deleted,
            object: Arc::new(last),
            before: Some(before),
        };
        table.record(event.clone());
        Some(event)
    }

    /// Forgets the history: whoever resumes a watch from before now has to list again.
    pub(super) fn compact(&mut self) {
        for table in self.tables.values_mut() {
            table.history.clear();
            table.oldest = self.revision;
        }
    }

    /// Ends every open watch, as a restart of the API server does.
    pub(super) fn close_watches(&mut self) {
        for table in self.tables.values_mut() {
            table.news = watch::Sender::new(self.revision);
        }
    }
}
