//! What is paused, by whom and why.

use crate::crd::SpotPool;
use jiff::Timestamp;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::ids::PoolName;
use spot_guard_core::spot_action::RequestedAction;
use std::sync::Arc;

/// So many pauses are told at most.
const MOST: usize = 100;

/// What a pause holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PauseScope {
    /// All pools.
    Everything,
    /// One pool.
    Pool,
}

/// Where a pause was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PauseSource {
    /// The label `spotguard.dev/paused` of the namespace.
    Namespace,
    /// `spec.paused` of the pool.
    Pool,
    /// A SpotAction.
    SpotAction,
}

/// A pause that holds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseInForce {
    /// What it holds.
    pub scope: PauseScope,
    /// The pool, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Where it was written.
    pub source: PauseSource,
    /// The name of the SpotAction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot_action: Option<String>,
    /// The user who requested it; known of SpotActions alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason, in the words of the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when; known of SpotActions alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl PauseInForce {
    fn written(source: PauseSource, pool: Option<PoolName>) -> Self {
        let scope = if pool.is_some() { PauseScope::Pool } else { PauseScope::Everything };
        Self { scope, pool, source, spot_action: None, by: None, reason: None, since: None }
    }

    fn requested(ask: &RequestedAction) -> Self {
        Self {
            spot_action: Some(ask.name.clone()),
            by: ask.by.clone(),
            reason: ask.reason.clone(),
            since: ask.order.0,
            ..Self::written(PauseSource::SpotAction, ask.pool.clone())
        }
    }
}

/// The pauses that hold now, those of everything first; `label` is whether the namespace of Spot Guard says
/// that everything is paused.
pub(super) fn in_force(label: bool, pools: &[Arc<SpotPool>], asked: &[RequestedAction]) -> Vec<PauseInForce> {
    let of_namespace = label.then(|| PauseInForce::written(PauseSource::Namespace, None));
    let by_spec = pools.iter().filter(|pool| pool.spec.paused);
    let by_spec = by_spec.map(|pool| PauseInForce::written(PauseSource::Pool, Some(pool.name_any().into())));
    let mut found: Vec<PauseInForce> =
        of_namespace.into_iter().chain(by_spec).chain(asked.iter().map(PauseInForce::requested)).collect();
    found.sort_by(|a, b| (a.scope, &a.pool, a.since).cmp(&(b.scope, &b.pool, b.since)));
    found.truncate(MOST);
    found
}
