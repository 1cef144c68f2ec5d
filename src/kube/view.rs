//! What the controller knows of the cluster, kept by watches: one connection a kind, whatever its size.

use crate::core::cluster::{Claim, Live, Node, Snapshot, Volume, VolumeLimits};
use crate::core::freshness::Freshness;
use crate::core::policy::backoff;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotPool, Trigger};
use crate::kube::convert::Converter;
use crate::kube::problem::RequestProblem;
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
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String);

/// How many changes may pass until what nothing uses any more is forgotten.
const FORGET_EVERY: usize = 10_000;

#[derive(Default)]
struct State {
    converter: Converter,
    live: Live,
    /// How many volumes of each driver the nodes can attach.
    volume_limits: BTreeMap<Key, VolumeLimits>,
    /// The volume that a claim is bound to.
    claims: BTreeMap<Key, Arc<str>>,
    volumes: BTreeMap<Arc<str>, Volume>,
    changes: usize,
}

impl State {
    fn pod(&mut self, change: Change<core_v1::Pod>) {
        match change {
            Change::Is(_, pod) => self.live.set_pod(Arc::new(self.converter.pod(&pod).object)),
            Change::Gone((namespace, name)) => self.live.remove_pod(&namespace, &name),
        }
        self.changes += 1;
        if self.changes.is_multiple_of(FORGET_EVERY) {
            self.converter.forget_unused();
        }
    }

    fn node(&mut self, change: Change<core_v1::Node>) {
        match change {
            Change::Is(key, node) => {
                let limits = self.volume_limits.get(&key).cloned().unwrap_or_default();
                self.live.set_node(Arc::new(self.converter.node(&node, limits).object));
            }
            Change::Gone((_, name)) => self.live.remove_node(&name),
        }
    }

    fn csi_node(&mut self, change: Change<CSINode>) {
        let (key, limits) = match change {
            Change::Is(key, csi) => (key, self.converter.volume_limits(&csi)),
            Change::Gone(key) => (key, VolumeLimits::default()),
        };
        if let Some(node) = self.live.snapshot().node(&key.1) {
            self.live.set_node(Arc::new(Node { volume_limits: limits.clone(), ..node.clone() }));
        }
        if limits.is_empty() {
            self.volume_limits.remove(&key);
        } else {
            self.volume_limits.insert(key, limits);
        }
    }

    fn budget(&mut self, change: Change<PodDisruptionBudget>) {
        match change {
            Change::Is(_, budget) => self.live.set_budget(self.converter.budget(&budget)),
            Change::Gone((namespace, name)) => self.live.remove_budget(&namespace, &name),
        }
    }

    fn claim(&mut self, change: Change<core_v1::PersistentVolumeClaim>) {
        match change {
            Change::Is(key, claim) => {
                let volume = self.converter.bound_volume(&claim);
                self.claims.insert(key.clone(), volume);
                self.bind(&key);
            }
            Change::Gone(key) => {
                self.claims.remove(&key);
                self.live.set_claim(key.0.into(), key.1.into(), None);
            }
        }
    }

    fn volume(&mut self, change: Change<core_v1::PersistentVolume>) {
        let claim = match change {
            Change::Is((_, name), volume) => {
                let volume = self.converter.volume(&volume);
                let claim = volume.claim.clone();
                let before = self.volumes.insert(name.into(), volume);
                claim.or(before.and_then(|volume| volume.claim))
            }
            Change::Gone((_, name)) => self.volumes.remove(name.as_str()).and_then(|volume| volume.claim),
        };
        if let Some((namespace, name)) = claim {
            self.bind(&(namespace.to_string(), name.to_string()));
        }
    }

    /// Brings claim and volume together. Either may come first.
    fn bind(&mut self, key: &Key) {
        let Some(volume) = self.claims.get(key) else { return };
        let claim = Claim::bound_to(volume.clone(), self.volumes.get(volume));
        self.live.set_claim(key.0.as_str().into(), key.1.as_str().into(), Some(claim));
    }

    fn namespace(&mut self, change: Change<core_v1::Namespace>) {
        match change {
            Change::Is(_, namespace) => {
                let (name, labels) = self.converter.namespace(&namespace);
                self.live.set_namespace(name, Some(labels));
            }
            Change::Gone((_, name)) => self.live.set_namespace(name.into(), None),
        }
    }
}

/// Whether everything is paused from now on, if the change is about our own namespace.
fn pauses(change: &Change<core_v1::Namespace>, own: &Key) -> Option<bool> {
    match change {
        Change::Is(key, namespace) if key == own => {
            let labels = namespace.metadata.labels.as_ref();
            let value = labels.and_then(|labels| labels.get(PAUSED_LABEL));
            Some(value.is_some_and(|value| value != "false"))
        }
        Change::Gone(key) if key == own => Some(false),
        Change::Is(..) | Change::Gone(_) => None,
    }
}

/// What a watch says of an object.
enum Change<K> {
    /// It is so now.
    Is(Key, K),
    /// It is gone.
    Gone(Key),
}

/// A live view of the cluster; clones share it.
#[derive(Clone)]
pub struct View {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    unsynced: watch::Receiver<usize>,
    _tasks: Arc<Tasks>,
    /// Whether everything is paused: whether the namespace of Spot Guard carries [`PAUSED_LABEL`].
    pub paused: watch::Receiver<bool>,
    /// The pools.
    pub pools: Store<SpotPool>,
    /// The notices.
    pub notices: Store<InterruptionNotice>,
    /// The records as they were last seen; the FallbackTracker knows the newest.
    pub replacements: Store<NodeReplacement>,
    /// What people asked for.
    pub triggers: Store<Trigger>,
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

/// On the namespace of Spot Guard it pauses every pool, with any value but `false`.
pub const PAUSED_LABEL: &str = "spotguard.dev/paused";
/// First and longest pause before a broken watch begins anew with a list.
const RELIST_FIRST: Duration = Duration::from_secs(1);
const RELIST_MAX: Duration = Duration::from_secs(30);
/// After so many seconds the API server ends the watch of notices, which then goes on from where it was. One that has
/// not ended 5 s later has lost its connection without a word; a notice of two minutes cannot wait the 5 min that it
/// takes with the other kinds.
const NOTICES_FOR: u32 = 30;
/// The number of kinds that are watched.
const KINDS: usize = 11;

impl View {
    /// Starts the watches; they reconnect for ever, backing off. A watch that is broken shows in readiness.
    /// `own_namespace` is that of Spot Guard.
    #[must_use]
    pub fn start(client: &Client, own_namespace: &str, readiness: &Readiness) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let changed = Arc::new(watch::Sender::new(0));
        let (synced, unsynced) = watch::channel(KINDS);
        let synced = Arc::new(synced);
        let follow =
            Follow { state: state.clone(), changed: changed.clone(), synced, readiness: readiness.clone() };
        let (pools, pool_writer) = reflector::store();
        let (notices, notice_writer) = reflector::store();
        let (replacements, replacement_writer) = reflector::store();
        let (triggers, trigger_writer) = reflector::store();
        let (pause, paused) = watch::channel(false);
        let own_key: Key = (String::new(), own_namespace.to_owned());
        let tasks = vec![
            follow.start(client, "watch-nodes", State::node),
            follow.start(client, "watch-csi-nodes", State::csi_node),
            follow.start(client, "watch-pods", State::pod),
            follow.start(client, "watch-disruption-budgets", State::budget),
            follow.start(client, "watch-claims", State::claim),
            follow.start(client, "watch-volumes", State::volume),
            follow.start(client, "watch-namespaces", move |state: &mut State, change| {
                if let Some(paused) = pauses(&change, &own_key) {
                    pause.send_replace(paused);
                }
                state.namespace(change);
            }),
            follow.reflect(client, "watch-pools", pool_writer, watcher::Config::default()),
            follow.reflect(
                client,
                "watch-notices",
                notice_writer,
                watcher::Config::default().timeout(NOTICES_FOR),
            ),
            follow.reflect(client, "watch-replacements", replacement_writer, watcher::Config::default()),
            follow.reflect(client, "watch-triggers", trigger_writer, watcher::Config::default()),
        ];
        Self {
            state,
            changed,
            unsynced,
            _tasks: Arc::new(Tasks(tasks)),
            paused,
            pools,
            notices,
            replacements,
            triggers,
        }
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

    /// Which watches show an old picture.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        Freshness::default()
    }

    /// The cluster now, with its indexes.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.state).live.snapshot()
    }
}

struct Follow {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    synced: Arc<watch::Sender<usize>>,
    readiness: Readiness,
}

impl Follow {
    /// Keeps a slim copy of each object.
    fn start<K>(
        &self,
        client: &Client,
        part: &'static str,
        apply: impl Fn(&mut State, Change<K>) + Send + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let state = self.state.clone();
        let mut known: HashSet<Key> = HashSet::new();
        // What was known before a list and is not named by it is gone.
        let mut unnamed: Option<HashSet<Key>> = None;
        self.watch(client, part, watcher::Config::default(), move |event: Event<K>| {
            let mut state = lock(&state);
            match event {
                Event::Init => unnamed = Some(known.clone()),
                Event::InitApply(object) | Event::Apply(object) => {
                    let key = key(&object);
                    if let Some(unnamed) = &mut unnamed {
                        unnamed.remove(&key);
                    }
                    if !known.contains(&key) {
                        known.insert(key.clone());
                    }
                    apply(&mut state, Change::Is(key, object));
                }
                Event::Delete(object) => {
                    let key = key(&object);
                    known.remove(&key);
                    apply(&mut state, Change::Gone(key));
                }
                Event::InitDone => {
                    for key in unnamed.take().into_iter().flatten() {
                        known.remove(&key);
                        apply(&mut state, Change::Gone(key));
                    }
                }
            }
        })
    }

    fn reflect<K>(
        &self,
        client: &Client,
        part: &'static str,
        mut writer: reflector::store::Writer<K>,
        config: watcher::Config,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.watch(client, part, config, move |event| writer.apply_watcher_event(&event))
    }

    fn watch<K>(
        &self,
        client: &Client,
        part: &'static str,
        config: watcher::Config,
        mut apply: impl FnMut(Event<K>) + Send + 'static,
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
                let mut stream =
                    std::pin::pin!(watcher::watcher(api.clone(), config.clone()).default_backoff());
                while let Some(event) = stream.next().await {
                    match event {
                        Ok(event) => {
                            let listed = matches!(event, Event::InitDone);
                            let complete = !matches!(event, Event::Init | Event::InitApply(_));
                            apply(event);
                            if listed {
                                readiness.ready(part);
                                if std::mem::take(&mut first) {
                                    synced.send_modify(|left| *left = left.saturating_sub(1));
                                }
                            }
                            if complete {
                                changed.send_modify(|version| *version += 1);
                            }
                        }
                        Err(error) => {
                            let reason = problem(&error);
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

/// What is told of a watch that broke: nothing of the objects in it.
fn problem(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => {
            format!("failed to perform initial object list: {}", RequestProblem(error))
        }
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("the watch failed: {}", RequestProblem(error))
        }
        watcher::Error::WatchError(status) => format!("the watch ended with {}", status.code),
        watcher::Error::NoResourceVersion => "the list has no version".to_owned(),
    }
}

fn key<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use kube::client::Body;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An API server with nothing in it, whose first watch of notices loses its connection without a word; the next
    /// one tells of a notice.
    fn forgetful(watches: Arc<AtomicUsize>) -> Client {
        let notice = r#"{"type":"ADDED","object":{"apiVersion":"spotguard.dev/v1alpha1","kind":"InterruptionNotice","metadata":{"name":"n","resourceVersion":"2"},"spec":{"nodeName":"a","instanceId":"i-0a1b2c3d","kind":"SpotInterruption","detectedAt":"2026-03-01T12:00:00Z"}}}"#;
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let watches = watches.clone();
            async move {
                let uri = request.uri();
                let watch = uri.query().is_some_and(|query| query.contains("watch=true"));
                let text = if !watch {
                    r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#
                        .to_owned()
                } else if uri.path().ends_with("/interruptionnotices")
                    && watches.fetch_add(1, Ordering::Relaxed) > 0
                {
                    format!("{notice}\n")
                } else {
                    String::new()
                };
                let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(text)))]);
                let rest = stream::pending().take_until(async move {
                    if watch {
                        std::future::pending().await
                    }
                });
                Ok::<_, Infallible>(http::Response::new(StreamBody::new(first.chain(rest))))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_of_notices_that_has_lost_its_connection_without_a_word_is_found_within_a_minute() {
        let watches = Arc::new(AtomicUsize::new(0));
        let view = View::start(&forgetful(watches.clone()), "spot-guard", &Readiness::default());
        view.synced().await;
        let began = Instant::now();
        while view.notices.state().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{watches:?} watches were begun");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
