//! `/api/v1`: what Spot Guard knows, as JSON.

use super::model::{
    Blocker, Counts, Fallback, Items, Pool, PoolSummary, Replacement, ReplacementCounts, Status,
};
use super::{ApiState, problem};
use crate::clock::since;
use crate::core::record::{BlockingReason, EndState, GroupKind, ReplacementStatus};
use crate::crd::{GroupStatus, NodeReplacement, SpotPool};
use crate::telemetry::tracing::trace_id_of;
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

pub(super) async fn status(state: Data<ApiState>) -> Json<Status> {
    let replacements = sorted(state.replacements.state());
    let pools = sorted(state.pools.state());
    Json(Status {
        version: state.version.to_owned(),
        now: (state.now)(),
        leader: *state.is_leader.borrow(),
        ready: state.readiness.reasons().is_empty(),
        replacements: count(&replacements),
        pools: pools.iter().map(|pool| summary(pool, &replacements)).collect(),
    })
}

pub(super) async fn pools(state: Data<ApiState>) -> Json<Items<Pool>> {
    let replacements = state.replacements.state();
    let pools = sorted(state.pools.state());
    Json(Items { items: pools.iter().map(|pool| in_full(pool, &replacements)).collect() })
}

pub(super) async fn replacements(state: Data<ApiState>) -> Json<Items<Replacement>> {
    let now = (state.now)();
    let replacements = sorted(state.replacements.state());
    Json(Items { items: replacements.iter().map(|held| story(held, now)).collect() })
}

pub(super) async fn fallbacks(state: Data<ApiState>) -> Json<Items<Fallback>> {
    let now = (state.now)();
    let replacements = sorted(state.replacements.state());
    Json(Items { items: replacements.iter().filter_map(|held| fallback(held, now)).collect() })
}

pub(super) async fn fallback_named(
    request: HttpRequest,
    name: Path<String>,
    state: Data<ApiState>,
) -> HttpResponse {
    let found = state.replacements.find(|held| held.metadata.name.as_ref() == Some(&*name));
    match found.and_then(|held| fallback(&held, (state.now)())) {
        Some(fallback) => HttpResponse::Ok().json(fallback),
        None => problem::no_such(&request, &format!("no open fallback is named {name}")),
    }
}

fn sorted<K: ResourceExt>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| object.name_any());
    objects
}

fn record(replacement: &NodeReplacement) -> ReplacementStatus {
    replacement.status.clone().unwrap_or_default()
}

fn is_open_fallback(status: &ReplacementStatus) -> bool {
    status.fallback && !status.phase.is_finished()
}

fn count(replacements: &[Arc<NodeReplacement>]) -> ReplacementCounts {
    let mut counts = ReplacementCounts::default();
    for status in replacements.iter().map(|held| record(held)) {
        *counts.by_phase.entry(status.phase).or_default() += 1;
        if status.phase.is_finished() {
            counts.finished += 1;
            continue;
        }
        counts.open += 1;
        counts.fallbacks += usize::from(status.fallback);
        counts.blocked += usize::from(!status.blocking.is_empty());
    }
    counts
}

/// The open fallbacks of a pool, from the stories themselves: the pool's status may lag behind them.
fn open_fallbacks(pool: &SpotPool, replacements: &[Arc<NodeReplacement>]) -> usize {
    let name = pool.name_any();
    let of_pool = replacements.iter().filter(|held| held.spec.pool.as_ref() == Some(&name));
    of_pool.filter(|held| held.status.as_ref().is_some_and(is_open_fallback)).count()
}

fn summary(pool: &SpotPool, replacements: &[Arc<NodeReplacement>]) -> PoolSummary {
    let status = pool.status.clone().unwrap_or_default();
    let counts =
        |group: Option<GroupStatus>| group.map(|g| Counts { desired: g.desired, in_service: g.in_service });
    PoolSummary {
        name: pool.name_any(),
        mode: pool.spec.mode,
        paused: pool.spec.paused,
        spot: counts(status.spot),
        on_demand: counts(status.on_demand),
        fallbacks: open_fallbacks(pool, replacements),
        conditions: status.conditions.into_iter().map(|held| (held.type_, held.status)).collect(),
    }
}

fn in_full(pool: &SpotPool, replacements: &[Arc<NodeReplacement>]) -> Pool {
    let status = pool.status.clone().unwrap_or_default();
    Pool {
        name: pool.name_any(),
        spot_group: pool.spec.spot_group.clone(),
        on_demand_group: pool.spec.on_demand_group.clone(),
        mode: pool.spec.mode,
        rebalance: pool.spec.rebalance,
        paused: pool.spec.paused,
        spot: status.spot,
        on_demand: status.on_demand,
        fallbacks: open_fallbacks(pool, replacements),
        conditions: status.conditions,
        scaling_requests: status.ledger.scaling_requests,
        reduction: status.ledger.reduction,
    }
}

fn story(replacement: &NodeReplacement, now: Timestamp) -> Replacement {
    let status = record(replacement);
    Replacement {
        name: replacement.name_any(),
        node: replacement.spec.node_name.clone(),
        instance_id: replacement.spec.instance_id.clone(),
        pool: replacement.spec.pool.clone(),
        phase: status.phase,
        phase_since: status.phase_since,
        flow_box: status.current_box(),
        notice: status.notice,
        started_at: status.started_at,
        deadline: status.deadline,
        retries: status.attempt,
        next_attempt_at: status.next_attempt_at,
        fallback: status.fallback,
        blocked_by: blockers(&status.blocking, now),
        trace_id: status.traceparent.as_deref().and_then(trace_id_of),
        capacity: status.capacity,
        return_capacity: status.return_capacity,
        steps: status.steps,
        finished_at: status.finished_at,
    }
}

/// The fallback of a story, if it has one that is open and whose instance was claimed.
fn fallback(replacement: &NodeReplacement, now: Timestamp) -> Option<Fallback> {
    let status = record(replacement);
    if !is_open_fallback(&status) || status.fallback_end == EndState::Gone {
        return None;
    }
    let flow_box = status.current_box();
    let blocked_by = blockers(&status.blocking, now);
    let capacity = status.capacity.filter(|capacity| capacity.group == GroupKind::OnDemand)?;
    Some(Fallback {
        replacement: replacement.name_any(),
        pool: replacement.spec.pool.clone(),
        replaced_node: replacement.spec.node_name.clone(),
        node: capacity.node_name,
        instance_id: capacity.instance_id,
        since: capacity.ready_at,
        on_demand_seconds: since(capacity.ready_at, now).as_secs(),
        phase: status.phase,
        flow_box,
        blocked_by,
        return_not_before: status.return_not_before.filter(|at| *at > now),
        return_capacity: status.return_capacity,
        trace_id: status.traceparent.as_deref().and_then(trace_id_of),
    })
}

fn blockers(reasons: &[BlockingReason], now: Timestamp) -> Vec<Blocker> {
    let blocker = |reason: &BlockingReason| Blocker {
        flow_box: reason.flow_box,
        message: reason.message.clone(),
        since: reason.since,
        seconds: since(reason.since, now).as_secs(),
    };
    reasons.iter().map(blocker).collect()
}
