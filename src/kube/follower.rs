//! Takes in what is told of one kind: keeps the picture, and says how far it can be relied on.

use crate::clock::Clock;
use crate::kube::picture::{Change, Key};
use crate::kube::slim::Watched;
use crate::kube::unread::{NotUnderstood, ReadError, UnreadOfKind};
use crate::kube::watch::{SILENT, Source, WatchFailure, WatchSignal};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Readiness, UnreadyCode};
use jiff::Timestamp;
use kube::Client;
use spot_guard_core::freshness::{Freshness, StaleWatch, WatchedKind};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Of objects that are not understood, so many are logged in a minute, a kind.
const LOGGED: u32 = 10;
const LOGGED_IN: Duration = Duration::from_secs(60);
/// So many of them are named in readiness.
const TOLD: usize = 5;

/// How far the picture of one kind can be relied on.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// When nothing was missing last; without a list yet: when the watch was begun.
    current: Instant,
    listed: bool,
    /// The same on the clock that people read.
    shown: Timestamp,
    /// Whether there is no watch, since an error.
    broken: bool,
}

impl Track {
    fn is_stale(&self, now: Instant) -> bool {
        !self.listed || self.broken || now - self.current > SILENT
    }
}

/// What all followers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Counts the changes.
    pub(super) changed: Arc<watch::Sender<u64>>,
    /// How many kinds were not listed yet.
    pub(super) unsynced: Arc<watch::Sender<usize>>,
    tracks: Arc<Mutex<BTreeMap<WatchedKind, Track>>>,
    not_understood: Arc<Mutex<Arc<NotUnderstood>>>,
}

impl Shared {
    pub(super) fn new(client: Client, readiness: Readiness, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            client,
            readiness,
            metrics,
            clock,
            changed: Arc::new(watch::Sender::new(0)),
            unsynced: Arc::new(watch::Sender::new(WatchedKind::ALL.len())),
            tracks: Arc::default(),
            not_understood: Arc::default(),
        }
    }

    pub(super) fn freshness(&self) -> Freshness {
        let now = Instant::now();
        let tracks = lock(&self.tracks);
        let stale = tracks.iter().filter(|(_, track)| track.is_stale(now));
        let stale_watch =
            |(kind, track): (&WatchedKind, &Track)| StaleWatch { kind: *kind, since: track.shown };
        Freshness { stale: stale.map(stale_watch).collect() }
    }

    pub(super) fn not_understood(&self) -> Arc<NotUnderstood> {
        lock(&self.not_understood).clone()
    }

    /// Follows a kind; `apply` keeps what is known of it.
    pub(super) fn follow<K: Watched>(
        &self,
        kind: WatchedKind,
        apply: impl FnMut(Change<K>) + Send + 'static,
    ) -> JoinHandle<()> {
        let shown = self.clock.now();
        let track = Track { current: Instant::now(), shown, listed: false, broken: false };
        lock(&self.tracks).insert(kind, track);
        self.readiness.not_ready(part(kind), UnreadyCode::NotListed, "not listed yet");
        let mut follower = Follower {
            shared: self.clone(),
            kind,
            apply,
            known: HashMap::new(),
            round: 0,
            listing: false,
            unread: BTreeMap::new(),
            nameless: 0,
            logged: (Instant::now(), 0),
        };
        let source = Source::new(self.client.clone(), path(kind));
        tokio::spawn(source.follow(move |signal| follower.take(signal)))
    }
}

struct Follower<A> {
    shared: Shared,
    kind: WatchedKind,
    apply: A,
    /// Every object, and the list that named it last.
    known: HashMap<Key, u32>,
    round: u32,
    listing: bool,
    unread: BTreeMap<Key, ReadError>,
    nameless: usize,
    /// Since when, and how many were logged.
    logged: (Instant, u32),
}

impl<A> Follower<A> {
    fn take<K: Watched>(&mut self, signal: WatchSignal<K>)
    where
        A: FnMut(Change<K>),
    {
        match signal {
            WatchSignal::Listing => {
                self.listing = true;
                self.round = self.round.wrapping_add(1);
                self.nameless = 0;
                return;
            }
            WatchSignal::Is(object) => {
                let (namespace, name, _) = object.identity();
                let key = Key::new(namespace, name);
                self.know(&key);
                let was_unread = self.unread.remove(&key).is_some();
                (self.apply)(Change::Is(key, object));
                self.publish_if(was_unread);
            }
            WatchSignal::Unread(head, problem) => {
                let (namespace, name, _) = head.identity();
                let key = Key::new(namespace, name);
                self.know(&key);
                let new = self.unread.insert(key.clone(), problem) != Some(problem);
                if new {
                    self.log(namespace, name, problem);
                }
                (self.apply)(Change::Unread(key, head));
                self.publish_if(new);
            }
            WatchSignal::Nameless(problem) => {
                self.nameless += 1;
                self.log("", "", problem);
                self.publish_if(true);
            }
            WatchSignal::Gone(namespace, name) => {
                let key = Key::new(&namespace, &name);
                self.known.remove(&key);
                let was_unread = self.unread.remove(&key).is_some();
                (self.apply)(Change::Gone(key));
                self.publish_if(was_unread);
            }
            WatchSignal::Listed => self.listed(),
            WatchSignal::Resumed => {
                self.track(|track| track.broken = false);
                self.shared.readiness.ready(part(self.kind));
                return;
            }
            WatchSignal::Current => {
                self.current();
                return;
            }
            WatchSignal::Broken(failure) => {
                self.broken(&failure);
                return;
            }
        }
        // Before a list is complete, its objects are half a picture.
        if !self.listing {
            self.current();
            self.shared.changed.send_modify(|version| *version += 1);
        }
    }

    fn know(&mut self, key: &Key) {
        match self.known.get_mut(key) {
            Some(round) => *round = self.round,
            None => {
                self.known.insert(key.clone(), self.round);
            }
        }
    }

    /// What was known before the list and is not named by it is gone.
    fn listed<K: Watched>(&mut self)
    where
        A: FnMut(Change<K>),
    {
        let unnamed: Vec<Key> = self
            .known
            .iter()
            .filter(|(_, round)| **round != self.round)
            .map(|(key, _)| key.clone())
            .collect();
        for key in unnamed {
            self.known.remove(&key);
            self.unread.remove(&key);
            (self.apply)(Change::Gone(key));
        }
        self.listing = false;
        self.publish();
        self.shared.readiness.ready(part(self.kind));
        let mut first = false;
        let shown = self.shared.clock.now();
        self.track(|track| {
            first = !track.listed;
            *track = Track { current: Instant::now(), shown, listed: true, broken: false };
        });
        if first {
            self.shared.unsynced.send_modify(|left| *left = left.saturating_sub(1));
        }
    }

    fn broken(&mut self, failure: &WatchFailure) {
        let (part, reason) = (part(self.kind), failure.to_string());
        tracing::warn!(part, reason, "the watch broke; it is started again");
        self.shared.readiness.not_ready(part, UnreadyCode::WatchBroken, reason);
        self.shared.metrics.watch_failed(self.kind);
        self.track(|track| track.broken = true);
        self.shared.changed.send_modify(|version| *version += 1);
    }

    /// Nothing is missing in the picture now.
    fn current(&self) {
        let shown = self.shared.clock.now();
        self.track(|track| (track.current, track.shown) = (Instant::now(), shown));
    }

    fn track(&self, change: impl FnOnce(&mut Track)) {
        if let Some(track) = lock(&self.shared.tracks).get_mut(&self.kind) {
            change(track);
        }
    }

    fn publish_if(&self, changed: bool) {
        if changed && !self.listing {
            self.publish();
        }
    }

    /// Says which objects are not understood.
    fn publish(&self) {
        let count = self.unread.len() + self.nameless;
        let all = self.unread.iter().map(|(key, problem)| (key.namespace(), key.name(), *problem));
        let unread = UnreadOfKind::of(count, all);
        self.shared.metrics.not_understood(self.kind, count);
        let remark = (count > 0).then(|| remark(&unread));
        self.shared.readiness.remark(part(self.kind), remark);
        Arc::make_mut(&mut *lock(&self.shared.not_understood)).set(self.kind, unread);
    }

    /// Never with a piece of the object.
    fn log(&mut self, namespace: &str, name: &str, problem: ReadError) {
        let (since, count) = &mut self.logged;
        if since.elapsed() >= LOGGED_IN {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count <= LOGGED {
            let kind = self.kind.plural();
            tracing::warn!(kind, namespace, name, %problem, "an object cannot be read; the others are not affected");
        }
    }
}

fn remark(unread: &UnreadOfKind) -> String {
    let mut text = format!("{} not understood", unread.count);
    for (i, object) in unread.named.iter().take(TOLD).enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{} {object}", if i == 0 { ":" } else { "," });
    }
    if unread.count > TOLD {
        text.push_str(", ...");
    }
    text
}

/// The name of its watch in readiness.
fn part(kind: WatchedKind) -> &'static str {
    match kind {
        WatchedKind::Node => "watch-nodes",
        WatchedKind::CsiNode => "watch-csi-nodes",
        WatchedKind::Pod => "watch-pods",
        WatchedKind::DisruptionBudget => "watch-disruption-budgets",
        WatchedKind::Claim => "watch-claims",
        WatchedKind::Volume => "watch-volumes",
        WatchedKind::Attachment => "watch-volume-attachments",
        WatchedKind::Driver => "watch-csi-drivers",
        WatchedKind::StorageClass => "watch-storage-classes",
        WatchedKind::Namespace => "watch-namespaces",
        WatchedKind::Pool => "watch-pools",
        WatchedKind::Notice => "watch-notices",
        WatchedKind::Replacement => "watch-replacements",
        WatchedKind::SpotAction => "watch-spotactions",
    }
}

/// Where its objects are, in all namespaces.
fn path(kind: WatchedKind) -> &'static str {
    match kind {
        WatchedKind::Node => "/api/v1/nodes",
        WatchedKind::CsiNode => "/apis/storage.k8s.io/v1/csinodes",
        WatchedKind::Pod => "/api/v1/pods",
        WatchedKind::DisruptionBudget => "/apis/policy/v1/poddisruptionbudgets",
        WatchedKind::Claim => "/api/v1/persistentvolumeclaims",
        WatchedKind::Volume => "/api/v1/persistentvolumes",
        WatchedKind::Attachment => "/apis/storage.k8s.io/v1/volumeattachments",
        WatchedKind::Driver => "/apis/storage.k8s.io/v1/csidrivers",
        WatchedKind::StorageClass => "/apis/storage.k8s.io/v1/storageclasses",
        WatchedKind::Namespace => "/api/v1/namespaces",
        WatchedKind::Pool => "/apis/spotguard.dev/v1alpha1/spotpools",
        WatchedKind::Notice => "/apis/spotguard.dev/v1alpha1/interruptionnotices",
        WatchedKind::Replacement => "/apis/spotguard.dev/v1alpha1/nodereplacements",
        WatchedKind::SpotAction => "/apis/spotguard.dev/v1alpha1/spotactions",
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
