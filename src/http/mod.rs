//! The HTTP API: health, metrics, what Spot Guard knows, what it can be asked to do, and the dashboard.
//!
//! It reads from the process's own copy of the stored objects, and writes nothing but triggers, so any
//! replica can answer and no request reaches AWS. The Kubernetes API is asked who may.

mod access;
mod api;
mod connections;
mod dashboard;
mod events;
mod health;
mod history;
mod listener;
mod model;
mod nodes;
mod openapi;
mod problem;
mod query;
mod routes;
mod tls;
mod triggers;
mod webhook;

pub use access::{AUDIENCE, Caller, Door, Reviews};
pub(crate) use connections::Limits;
pub use events::Streams;
pub use health::{NotReady, Ready};
pub use history::{History, PoolHistory, Sample, keep as keep_history};
pub use listener::bind;
pub(crate) use listener::listen;
pub use model::{
    Access, BlockedBy, Counts, Fallback, Items, NodeRole, NodeSafety, Notice, Pool, PoolNode, PoolSummary,
    Replacement, ReplacementCounts, SafetyBlocker, Status, Timeline, TimelineEntry, TriggerRequest,
    TriggerState,
};
pub use openapi::document;
pub use problem::Problem;
pub use tls::Certificate;
pub use triggers::{Triggers, WriteError, Written};
pub use webhook::{SecretError, Secrets};

use crate::clock::Clock;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotPool, Trigger};
use crate::kube::view::View;
use crate::telemetry::connections::Listener;
use crate::telemetry::liveness::Liveness;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use actix_web::dev::Server;
use actix_web::web;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::{StaleWatch, Step};
use spot_guard_core::policy::Policy;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// The connections of the main port. A proxy in front of it, or a port that is forwarded, is one peer. Fewer
/// in all than the 256 handshakes at which actix-tls would stop accepting.
const API_LIMITS: Limits = Limits { per_peer: 64, all: 128, most: 224 };
/// Those of the port for probes and scrapers: few come, and each for a moment.
pub(crate) const PROBE_LIMITS: Limits = Limits { per_peer: 8, all: 32, most: 128 };
/// Those of the local port, where every peer is this machine.
const LOCAL_LIMITS: Limits = Limits { per_peer: 64, all: 64, most: 128 };

/// What the API tells about.
#[derive(Clone)]
pub struct ApiState {
    /// The pools.
    pub pools: Store<SpotPool>,
    /// The stories.
    pub replacements: Store<NodeReplacement>,
    /// What the agents saw.
    pub notices: Store<InterruptionNotice>,
    /// What stands against a safety check now: watches that show an old picture.
    pub stale: Arc<dyn Fn() -> Vec<StaleWatch> + Send + Sync>,
    /// The cluster now.
    pub snapshot: Arc<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    /// What was asked for.
    pub trigger_store: Store<Trigger>,
    /// Writes what is asked for.
    pub triggers: Triggers,
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
            trigger_store: view.triggers.clone(),
            triggers: Triggers::new(client),
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
    Arc::new(Semaphore::new(nodes::MAX_CHECKS))
}

/// A fresh count of the streams of events.
#[must_use]
pub fn streams() -> Arc<Streams> {
    Arc::default()
}

/// Adds all routes behind a door.
pub fn routes(cfg: &mut web::ServiceConfig, state: ApiState, door: Door) {
    routes::configure(cfg, |endpoint| door.serves(endpoint.need));
    cfg.app_data(web::Data::new(state)).app_data(web::Data::new(door));
}

/// Serves the routes of a door on a listener that is bound already, until the server is stopped by its
/// handle.
///
/// # Errors
/// If the listener cannot be used, or the certificate.
pub fn serve(listener: TcpListener, door: Door, state: ApiState) -> anyhow::Result<Server> {
    let (name, limits, tls) = match &door {
        Door::Main { tls, .. } => {
            let tls = tls.as_ref().map(|certificate| certificate.server_config()).transpose()?;
            (Listener::Api, API_LIMITS, tls)
        }
        Door::Local => (Listener::Local, LOCAL_LIMITS, None),
        Door::Probes => (Listener::Probes, PROBE_LIMITS, None),
    };
    let counted = state.metrics.connections();
    let configure = move |cfg: &mut web::ServiceConfig| routes(cfg, state.clone(), door.clone());
    Ok(listen(listener, name, limits, tls, counted, configure)?)
}

#[cfg(test)]
mod tests;
