//! What the API tells about, as its handlers hold it.

use super::history::History;
use super::spot_actions::SpotActions;
use super::streams::Streams;
use super::webhook::Secrets;
use crate::actors::last_readings::LastReadings;
use crate::clock::Clock;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotAction, SpotPool};
use crate::kube::view::View;
use crate::telemetry::liveness::Liveness;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::{StaleWatch, Step};
use spot_guard_core::policy::Policy;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Safety checks that run at the same time: each keeps a core busy for up to its budget
/// (`CHECK_EFFORT`). They are made beside those of the actors.
pub(super) const MAX_CHECKS: usize = 2;

/// Changes within this time are seen as one.
const SETTLE: Duration = Duration::from_secs(1);

/// What the API tells about.
#[derive(Clone)]
pub struct ApiState {
    /// The pools.
    pub pools: Store<SpotPool>,
    /// The replacements.
    pub replacements: Store<NodeReplacement>,
    /// What the agents saw.
    pub notices: Store<InterruptionNotice>,
    /// What stands against a safety check now: watches that show an old picture.
    pub stale: Arc<dyn Fn() -> Vec<StaleWatch> + Send + Sync>,
    /// The cluster now.
    pub snapshot: Arc<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    /// What was requested.
    pub spot_action_store: Store<SpotAction>,
    /// Writes what is requested.
    pub spot_actions: SpotActions,
    /// Who may sign a message to the webhook.
    pub webhook_secrets: Secrets,
    /// Where a trace is shown: a URL with `{traceId}` in it.
    pub trace_url: Option<String>,
    /// The settings that pools start from.
    pub defaults: Policy,
    /// The key of our taint.
    pub taint_key: Arc<str>,
    /// Safety checks that may still be begun.
    pub checks: Arc<Semaphore>,
    /// Whether the actors' thread runs.
    pub liveness: Liveness,
    /// Which parts of the process work.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time. Handlers run on threads of their own, where a paused clock does not reach.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Whether this replica is the one that acts.
    pub is_leader: watch::Receiver<bool>,
    /// Who holds the lease, as this replica saw it last.
    pub holder: watch::Receiver<Option<String>>,
    /// When the groups of each pool were last read, while this replica leads.
    pub last_readings: LastReadings,
    /// The name of the cluster, if the configuration gives one.
    pub cluster_name: Option<String>,
    /// Wakes when any of the stored objects changes.
    pub changes: watch::Receiver<u64>,
    /// What the pools were like.
    pub history: Arc<History>,
    /// Streams of events that are open.
    pub streams: Arc<Streams>,
    /// Whether everything is paused.
    pub paused: watch::Receiver<bool>,
    /// The version of Spot Guard.
    pub version: &'static str,
}

impl ApiState {
    /// What a controller with this view tells, as a replica that follows.
    #[must_use]
    pub fn of(
        view: &View,
        client: Client,
        liveness: Liveness,
        readiness: Readiness,
        metrics: Arc<Metrics>,
        defaults: Policy,
        taint_key: &str,
    ) -> Self {
        let (snapshot, watches) = (view.clone(), view.clone());
        Self {
            pools: view.pools.clone(),
            replacements: view.replacements.clone(),
            notices: view.notices.clone(),
            stale: Arc::new(move || watches.freshness().against(Step::Return)),
            snapshot: Arc::new(move || snapshot.snapshot()),
            spot_action_store: view.spot_actions.clone(),
            spot_actions: SpotActions::new(client),
            webhook_secrets: Secrets::default(),
            trace_url: None,
            defaults,
            taint_key: taint_key.into(),
            checks: checks(),
            liveness,
            readiness,
            metrics,
            now: Arc::new(|| Clock::System.now()),
            is_leader: watch::channel(false).1,
            holder: watch::channel(None).1,
            last_readings: LastReadings::default(),
            cluster_name: None,
            changes: view.subscribe(),
            history: Arc::default(),
            streams: streams(),
            paused: view.paused.clone(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A fresh count of the safety checks that may be begun.
#[must_use]
pub fn checks() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_CHECKS))
}

/// A fresh count of the streams of events.
#[must_use]
pub fn streams() -> Arc<Streams> {
    Arc::default()
}

/// Keeps the history for as long as the stored objects are watched.
pub async fn keep_history(state: ApiState) {
    let mut changes = state.changes.clone();
    loop {
        state.history.take(&state.pools.state(), (state.now)());
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        changes.mark_unchanged();
    }
}
