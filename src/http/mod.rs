//! The HTTP API: health, metrics, what Spot Guard knows, what it can be asked to do, and the dashboard.
//!
//! It reads from the process's own copy of the stored objects, and writes nothing but SpotActions, so any
//! replica can answer and no request reaches AWS. The Kubernetes API is asked who may.

mod access;
mod api;
mod connections;
mod dashboard;
mod endpoint;
mod events;
mod health;
mod history;
mod listener;
mod model;
mod nodes;
mod openapi;
mod pauses;
mod problem;
mod query;
mod refusal;
mod rights;
mod routes;
mod savings;
mod spot_actions;
mod state;
mod streams;
mod tls;
mod webhook;

pub use access::{AUDIENCE, Caller, Door, Reviews};
pub(crate) use connections::Limits;
pub use health::{NotReady, Ready};
pub use history::{History, PoolHistory, Sample};
pub use listener::bind;
pub(crate) use listener::listen;
pub use model::{
    Access, ActionRequest, ActionState, BlockedBy, Counts, Fallback, Items, NodeRole, NodeSafety, Notice,
    Pool, PoolNode, PoolSummary, Replacement, ReplacementCounts, SafetyBlocker, Status, Timeline,
    TimelineEntry,
};
pub use pauses::{PauseInForce, PauseScope, PauseSource};
pub use problem::{FieldProblem, Problem, ProblemReason};
pub use query::Filter;
pub use savings::{DayHours, Savings};
pub use spot_actions::{SpotActions, WriteError, Written, parse_reason};
pub use state::{ApiState, checks, keep_history, streams};
pub use streams::Streams;
pub use tls::{Certificate, TlsConfig};
pub use webhook::{SecretError, Secrets, parse_return};

use crate::telemetry::connections::Listener;
use actix_web::dev::Server;
use actix_web::web;
use serde_json::Value;
use std::net::TcpListener;

/// The connections of the main port. A proxy in front of it, or a port that is forwarded, is one peer.
const API_LIMITS: Limits = Limits { per_peer: 64, all: 128, most: 224 };
/// Those of the port for probes and scrapers: few come, and each for a moment.
pub(crate) const PROBE_LIMITS: Limits = Limits { per_peer: 8, all: 32, most: 128 };
/// Those of the local port, where every peer is this machine.
const LOCAL_LIMITS: Limits = Limits { per_peer: 64, all: 64, most: 128 };

/// The API's description of itself, of OpenAPI 3.1.0.
#[must_use]
pub fn document() -> Value {
    openapi::of_routes(routes::ENDPOINTS)
}

/// Adds all routes behind a door.
pub fn routes(cfg: &mut web::ServiceConfig, state: ApiState, door: Door) {
    routes::configure(cfg, |endpoint| door.serves(endpoint.need));
    cfg.app_data(web::Data::new(state)).app_data(web::Data::new(door));
    cfg.app_data(web::Data::new(openapi::Description(document)));
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
