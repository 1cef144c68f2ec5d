//! What the controller knows of the cluster, kept by watches: one connection a kind, whatever its size.

use crate::core::cluster::{Claim, DisruptionBudget, Labels, Node, Parts, Pod, Snapshot, VolumeLimits};
use crate::core::policy::backoff;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotPool};
use crate::kube::convert::Converter;
use crate::telemetry::readiness::Readiness;
use futures::StreamExt;
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::CSINode;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String);

#[derive(Default)]
struct State {
    converter: Converter,
    nodes: BTreeMap<Key, Arc<Node>>,
    /// How many volumes of each driver the nodes can attach.
    volume_limits: BTreeMap<Key, VolumeLimits>,
    pods: BTreeMap<Key, Arc<Pod>>,
    budgets: BTreeMap<Key, DisruptionBudget>,
    claims: BTreeMap<Key, core_v1::PersistentVolumeClaim>,
    volumes: BTreeMap<Key, core_v1::PersistentVolume>,
    namespaces: BTreeMap<Key, Labels>,
    snapshot: Option<Arc<Snapshot>>,
}

/// A live view of the cluster; clones share it.
#[derive(Clone)]
pub struct View {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    unsynced: watch::Receiver<usize>,
    _tasks: Arc<Tasks>,
    /// The pools.
    pub pools: Store<SpotPool>,
    /// The notices.
    pub notices: Store<InterruptionNotice>,
    /// The records as they were last seen; the FallbackTracker knows the newest.
    pub replacements: Store<NodeReplacement>,
}

/// The watches end with the last clone of the view.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// First and longest pause before a broken watch begins anew with a list.
const RELIST_FIRST: Duration = Duration::from_secs(1);
const RELIST_MAX: Duration = Duration::from_secs(30);
/// The number of kinds that are watched.
const KINDS: usize = 10;

impl View {
    /// Starts the watches; they reconnect for ever, backing off. A watch that is broken shows in readiness.
    #[must_use]
    pub fn start(client: &Client, readiness: &Readiness) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let changed = Arc::new(watch::Sender::new(0));
        let (synced, unsynced) = watch::channel(KINDS);
        let synced = Arc::new(synced);
        let follow =
            Follow { state: state.clone(), changed: changed.clone(), synced, readiness: readiness.clone() };
        let (pools, pool_writer) = reflector::store();
        let (notices, notice_writer) = reflector::store();
        let (replacements, replacement_writer) = reflector::store();
        let tasks = vec![
            follow.start(client, "watch-nodes", |state, key, node: Option<core_v1::Node>| {
                let limits = state.volume_limits.get(&key).cloned().unwrap_or_default();
                let object = node.map(|node| Arc::new(state.converter.node(&node, limits).object));
                put(&mut state.nodes, key, object);
            }),
            follow.start(client, "watch-csi-nodes", |state, key, csi: Option<CSINode>| {
                let limits = csi.map(|csi| state.converter.volume_limits(&csi));
                if let Some(node) = state.nodes.get_mut(&key) {
                    Arc::make_mut(node).volume_limits = limits.clone().unwrap_or_default();
                }
                put(&mut state.volume_limits, key, limits);
            }),
            follow.start(client, "watch-pods", |state, key, pod: Option<core_v1::Pod>| {
                let object = pod.map(|pod| Arc::new(state.converter.pod(&pod).object));
                put(&mut state.pods, key, object);
            }),
            follow.start(
                client,
                "watch-disruption-budgets",
                |state, key, budget: Option<PodDisruptionBudget>| {
                    let object = budget.map(|budget| state.converter.budget(&budget));
                    put(&mut state.budgets, key, object);
                },
            ),
            follow.start(client, "watch-claims", |state, key, claim| put(&mut state.claims, key, claim)),
            follow.start(client, "watch-volumes", |state, key, volume| put(&mut state.volumes, key, volume)),
            follow.start(client, "watch-namespaces", |state, key, namespace: Option<core_v1::Namespace>| {
                let object = namespace.map(|namespace| state.converter.namespace(&namespace).1);
                put(&mut state.namespaces, key, object);
            }),
            follow.reflect(client, "watch-pools", pool_writer),
            follow.reflect(client, "watch-notices", notice_writer),
            follow.reflect(client, "watch-replacements", replacement_writer),
        ];
        Self { state, changed, unsynced, _tasks: Arc::new(Tasks(tasks)), pools, notices, replacements }
    }

    /// Waits until every kind was listed once.
    pub async fn synced(&self) {
        let mut unsynced = self.unsynced.clone();
        // The sender lives as long as the watches, which live as long as this view.
        let _ = unsynced.wait_for(|left| *left == 0).await;
    }

    /// A receiver that wakes with every change of the view.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The cluster now, with its indexes; kept until something changes.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut state = lock(&self.state);
        if let Some(snapshot) = &state.snapshot {
            return snapshot.clone();
        }
        let snapshot = Arc::new(Snapshot::new(state.parts()));
        state.snapshot = Some(snapshot.clone());
        snapshot
    }
}

impl State {
    fn parts(&mut self) -> Parts {
        self.converter.forget_unused();
        let claims = self
            .claims
            .iter()
            .map(|((namespace, name), claim)| {
                let volume =
                    claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
                let found = self.volumes.get(&(String::new(), volume));
                let converted: Claim = self.converter.claim(claim, found);
                ((namespace.as_str().into(), name.as_str().into()), converted)
            })
            .collect();
        Parts {
            nodes: self.nodes.values().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
            budgets: self.budgets.values().cloned().collect(),
            claims,
            namespaces: self
                .namespaces
                .iter()
                .map(|((_, name), labels)| (name.as_str().into(), labels.clone()))
                .collect(),
        }
    }
}

struct Follow {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    synced: Arc<watch::Sender<usize>>,
    readiness: Readiness,
}

impl Follow {
    /// Keeps a slim copy of each object: `apply` gets the object, or nothing when it is gone.
    fn start<K>(
        &self,
        client: &Client,
        part: &'static str,
        mut apply: impl FnMut(&mut State, Key, Option<K>) + Send + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let state = self.state.clone();
        // What the last full list held: what a new list does not name is gone.
        let mut known: BTreeMap<Key, u64> = BTreeMap::new();
        let mut list = 0_u64;
        self.watch(client, part, move |event: &Event<K>| {
            let mut state = lock(&state);
            match event {
                Event::Init => list += 1,
                Event::InitApply(object) | Event::Apply(object) => {
                    known.insert(key(object), list);
                    apply(&mut state, key(object), Some(object.clone()));
                }
                Event::Delete(object) => {
                    known.remove(&key(object));
                    apply(&mut state, key(object), None);
                }
                Event::InitDone => {
                    let gone: Vec<Key> =
                        known.iter().filter(|(_, seen)| **seen < list).map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        known.remove(&key);
                        apply(&mut state, key, None);
                    }
                }
            }
            state.snapshot = None;
        })
    }

    fn reflect<K>(
        &self,
        client: &Client,
        part: &'static str,
        mut writer: reflector::store::Writer<K>,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.watch(client, part, move |event| writer.apply_watcher_event(event))
    }

    fn watch<K>(
        &self,
        client: &Client,
        part: &'static str,
        mut apply: impl FnMut(&Event<K>) + Send + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api: Api<K> = Api::all(client.clone());
        let (changed, synced, readiness) =
            (self.changed.clone(), self.synced.clone(), self.readiness.clone());
        readiness.not_ready(part, "not listed yet");
        tokio::spawn(async move {
            let mut first = true;
            let mut failures = 0;
            loop {
                let began = Instant::now();
                let mut stream = std::pin::pin!(
                    watcher::watcher(api.clone(), watcher::Config::default()).default_backoff()
                );
                while let Some(event) = stream.next().await {
                    match event {
                        Ok(event) => {
                            apply(&event);
                            if matches!(event, Event::InitDone) {
                                readiness.ready(part);
                                if std::mem::take(&mut first) {
                                    synced.send_modify(|left| *left = left.saturating_sub(1));
                                }
                            }
                            if !matches!(event, Event::Init | Event::InitApply(_)) {
                                changed.send_modify(|version| *version += 1);
                            }
                        }
                        Err(error) => {
                            let reason = with_causes(&error);
                            tracing::warn!(part, reason, "the watch broke; it is started again");
                            readiness.not_ready(part, reason);
                            // It would go on without a word where it stopped, and be taken for broken until
                            // something changes. So it begins anew, with a list. One that fails is repeated.
                            if !matches!(error, watcher::Error::InitialListFailed(_)) {
                                break;
                            }
                        }
                    }
                }
                failures = if began.elapsed() > RELIST_MAX { 1 } else { failures + 1 };
                tokio::time::sleep(backoff(RELIST_FIRST, RELIST_MAX, failures)).await;
            }
        })
    }
}

/// The error with its causes: only the last one says that a connection was refused, or why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        next = cause.source();
    }
    text
}

fn put<T>(map: &mut BTreeMap<Key, T>, key: Key, object: Option<T>) {
    match object {
        Some(object) => map.insert(key, object),
        None => map.remove(&key),
    };
}

fn key<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
