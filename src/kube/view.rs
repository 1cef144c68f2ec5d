//! What the controller knows of the cluster, kept by watches: one connection a kind, whatever its size.

use crate::clock::Clock;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotAction, SpotPool};
use crate::kube::asked::OpenActions;
use crate::kube::crowd::{CrowdedOut, NoticeFilter};
use crate::kube::follower::{Shared, lock};
use crate::kube::picture::{Change, Key, Picture, pauses};
use crate::kube::slim::{Own, Watched};
use crate::kube::unread::NotUnderstood;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::{Freshness, WatchedKind};
use spot_guard_core::ids::NodeName;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::kube::picture::PAUSED_LABEL;

/// A live view of the cluster; clones share it.
#[derive(Clone)]
pub struct View {
    picture: Arc<Mutex<Picture>>,
    shared: Shared,
    _tasks: Arc<Tasks>,
    /// Whether everything is paused: whether the namespace of Spot Guard carries [`PAUSED_LABEL`].
    pub paused: watch::Receiver<bool>,
    /// The pools.
    pub pools: Store<SpotPool>,
    /// The notices, of each node a few.
    pub notices: Store<InterruptionNotice>,
    /// The notices that are too many of their node.
    pub crowded_out: CrowdedOut,
    /// The records as they were last seen; the FallbackTracker knows the newest.
    pub replacements: Store<NodeReplacement>,
    /// What people requested.
    pub spot_actions: Store<SpotAction>,
    /// The SpotActions that are not over.
    pub open_spot_actions: OpenActions,
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

impl View {
    /// Starts the watches; they reconnect for ever, backing off. A watch that is broken shows in readiness.
    /// `own_namespace` is that of Spot Guard.
    #[must_use]
    pub fn start(
        client: &Client,
        own_namespace: &str,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let picture = Arc::new(Mutex::new(Picture::default()));
        let shared = Shared::new(client.clone(), readiness.clone(), metrics.clone(), clock);
        let (pools, pool_task) = reflect::<SpotPool>(&shared, WatchedKind::Pool, |_, _, _| None);
        let crowded_out = CrowdedOut::default();
        let gate = keep_few(NoticeFilter::new(crowded_out.clone()), picture.clone());
        let (notices, notice_task) = reflect(&shared, WatchedKind::Notice, gate);
        let (replacements, replacement_task) =
            reflect::<NodeReplacement>(&shared, WatchedKind::Replacement, |_, _, _| None);
        let open_spot_actions = OpenActions::default();
        let open = open_spot_actions.clone();
        let (spot_actions, spot_action_task) =
            reflect(&shared, WatchedKind::SpotAction, move |name, now: Option<&SpotAction>, _| {
                match now {
                    Some(spot_action) => open.set(spot_action),
                    None => open.remove(name),
                }
                None
            });
        let (pause, paused) = watch::channel(false);
        let own = Key::new("", own_namespace);
        let namespace = move |picture: &mut Picture, change: Change<_>| {
            if let Some(paused) = pauses(&change, &own) {
                pause.send_replace(paused);
            }
            picture.namespace(change);
        };
        let tasks = vec![
            paint(&shared, &picture, WatchedKind::Node, Picture::node),
            paint(&shared, &picture, WatchedKind::CsiNode, Picture::csi_node),
            paint(&shared, &picture, WatchedKind::Pod, Picture::pod),
            paint(&shared, &picture, WatchedKind::DisruptionBudget, Picture::budget),
            paint(&shared, &picture, WatchedKind::Claim, Picture::claim),
            paint(&shared, &picture, WatchedKind::Volume, Picture::volume),
            paint(&shared, &picture, WatchedKind::Attachment, Picture::attachment),
            paint(&shared, &picture, WatchedKind::Driver, Picture::driver),
            paint(&shared, &picture, WatchedKind::StorageClass, Picture::storage_class),
            paint(&shared, &picture, WatchedKind::Namespace, namespace),
            pool_task,
            notice_task,
            replacement_task,
            spot_action_task,
        ];
        let tasks = Arc::new(Tasks(tasks));
        Self {
            picture,
            shared,
            _tasks: tasks,
            paused,
            pools,
            notices,
            crowded_out,
            replacements,
            spot_actions,
            open_spot_actions,
        }
    }

    /// Waits until every kind was listed once.
    pub async fn synced(&self) {
        let mut unsynced = self.shared.unsynced.subscribe();
        // The sender lives as long as this view.
        let _ = unsynced.wait_for(|left| *left == 0).await;
    }

    /// A receiver that wakes with every change of the view.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Which watches show an old picture: broken, silent for more than 45 s, or not listed yet.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.shared.freshness()
    }

    /// Which objects are there without being understood. Of a pool, a notice, a record or a SpotAction the
    /// last version that was understood stays in its store, if there was one.
    #[must_use]
    pub fn not_understood(&self) -> Arc<NotUnderstood> {
        self.shared.not_understood()
    }

    /// Whether a record of that name may be there that cannot be read: what it holds stays as it is.
    #[must_use]
    pub fn may_hide_record(&self, name: &str) -> bool {
        self.shared.not_understood().may_hold(WatchedKind::Replacement, name)
    }

    /// The cluster now, with its indexes.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.picture).snapshot()
    }
}

/// Keeps a slim copy of each object in the picture.
fn paint<K: Watched>(
    shared: &Shared,
    picture: &Arc<Mutex<Picture>>,
    kind: WatchedKind,
    apply: impl Fn(&mut Picture, Change<K>) + Send + 'static,
) -> JoinHandle<()> {
    let picture = picture.clone();
    shared.follow(kind, move |change| apply(&mut lock(&picture), change))
}

/// Keeps the objects themselves. `settle` is told of each object as it is now, or that none of that name is
/// left, and gives the name of one that is not to be kept.
fn reflect<K>(
    shared: &Shared,
    kind: WatchedKind,
    mut settle: impl FnMut(&str, Option<&K>, &Store<K>) -> Option<String> + Send + 'static,
) -> (Store<K>, JoinHandle<()>)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    Own<K>: Watched,
{
    let (store, mut writer) = reflector::store::<K>();
    let held = store.clone();
    let forget = move |writer: &mut Writer<K>, name: &str| {
        if let Some(object) = held.get(&ObjectRef::new(name)) {
            writer.apply_watcher_event(&Event::Delete(K::clone(&object)));
        }
    };
    let held = store.clone();
    let task = shared.follow(kind, move |change: Change<Own<K>>| match change {
        Change::Is(key, Own(object)) => {
            let out = settle(key.name(), Some(&object), &held);
            if out.as_deref() != Some(key.name()) {
                writer.apply_watcher_event(&Event::Apply(object));
            }
            if let Some(name) = out {
                forget(&mut writer, &name);
            }
        }
        // As it was last understood, if it was.
        Change::Unread(..) => {}
        Change::Gone(key) => {
            settle(key.name(), None, &held);
            forget(&mut writer, key.name());
        }
    });
    (store, task)
}

/// Keeps a few notices of each node.
fn keep_few(
    mut gate: NoticeFilter,
    picture: Arc<Mutex<Picture>>,
) -> impl FnMut(&str, Option<&InterruptionNotice>, &Store<InterruptionNotice>) -> Option<String> {
    move |name, now, held| {
        let kept = |name: &str| held.get(&ObjectRef::new(name));
        let instance_of = |node: &NodeName| {
            let cluster = lock(&picture).snapshot();
            cluster.node(node)?.instance_id()
        };
        match now {
            Some(notice) => gate.take(notice, kept, instance_of),
            None => {
                gate.leave(name, kept(name).as_deref());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
