//! `/api/v1`: what Spot Guard knows, as JSON.

use super::ApiState;
use super::history::PoolHistory;
use super::model::{
    BlockedBy, Counts, Fallback, Items, Notice, Pool, PoolSummary, Replacement, ReplacementCounts, Status,
    Timeline, TimelineEntry,
};
use super::pauses::in_force;
use super::problem::{self, Refused};
use super::query::{Filter, path_name};
use crate::actors::deps::Pauses;
use crate::crd::{GroupStatus, InterruptionNotice, NodeReplacement, SpotPool};
use crate::telemetry::metrics::Ending;
use crate::telemetry::replacement_trace;
use crate::telemetry::tracing::trace_id_of;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use spot_guard_core::baseline::GroupStanding;
use spot_guard_core::ids::{InstanceId, NodeName, PoolName};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{BlockingReason, Condition, GroupKind, ReplacementStatus, StepRecord};
use spot_guard_core::time::since;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) async fn status(state: Data<ApiState>) -> Json<Status> {
    let replacements = sorted(state.replacements.state());
    let pools = sorted(state.pools.state());
    let pauses = pauses(&state);
    let read = |pool: &Arc<SpotPool>| observed_at(&state, &pool.name_any().into());
    Json(Status {
        version: state.version.to_owned(),
        now: (state.now)(),
        cluster_name: state.cluster_name.clone(),
        leader: *state.is_leader.borrow(),
        holder: state.holder.borrow().clone(),
        observed_at: pools.iter().filter_map(read).min(),
        paused: pauses.of_everything().is_some(),
        pauses: in_force(*state.paused.borrow(), &pools, pauses.asked()),
        ready: state.readiness.serves(),
        replacements: count(&replacements),
        pools: pools.iter().map(|pool| summary(pool, &replacements, &pauses)).collect(),
    })
}

pub(super) async fn pools(state: Data<ApiState>, request: HttpRequest) -> Result<Json<Items<Pool>>, Refused> {
    let replacements = state.replacements.state();
    let (pools, next) = Filter::of(&request)?.page(state.pools.state(), name_of);
    let pauses = pauses(&state);
    let told = |pool: &Arc<SpotPool>| in_full(pool, &replacements, &pauses, &state);
    Ok(Json(Items { items: pools.iter().map(told).collect(), next }))
}

pub(super) async fn pool_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    match find(&state.pools, &path_name(&request)) {
        Some(pool) => {
            let (replacements, pauses) = (state.replacements.state(), pauses(&state));
            HttpResponse::Ok().json(in_full(&pool, &replacements, &pauses, &state))
        }
        None => no_such(&request, "pool"),
    }
}

pub(super) async fn history_of(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    match find(&state.pools, &path_name(&request)) {
        Some(pool) => {
            let pool = PoolName::from(pool.name_any());
            HttpResponse::Ok().json(PoolHistory { items: state.history.of(&pool), pool })
        }
        None => no_such(&request, "pool"),
    }
}

pub(super) async fn notices(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<Notice>>, Refused> {
    let filter = Filter::of(&request)?;
    let pools: HashMap<InstanceId, PoolName> = state
        .replacements
        .state()
        .iter()
        .filter_map(|record| Some((record.spec.instance_id.clone(), record.spec.pool.clone()?)))
        .collect();
    let fits = |notice: &Arc<InterruptionNotice>| {
        filter.of_pool(pools.get(&notice.spec.instance_id))
            && filter.node.as_ref().is_none_or(|node| notice.spec.node_name == *node)
            && filter.since(Some(notice.spec.detected_at))
    };
    let (found, next) = filter.page(state.notices.state().into_iter().filter(fits).collect(), name_of);
    let told = |held: &Arc<InterruptionNotice>| notice(held, pools.get(&held.spec.instance_id).cloned());
    Ok(Json(Items { items: found.iter().map(told).collect(), next }))
}

pub(super) async fn notice_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let Some(found) = find(&state.notices, &path_name(&request)) else {
        return no_such(&request, "notice");
    };
    let record = state.replacements.find(|record| record.spec.instance_id == found.spec.instance_id);
    HttpResponse::Ok().json(notice(&found, record.and_then(|record| record.spec.pool.clone())))
}

pub(super) async fn replacements(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<Replacement>>, Refused> {
    let (filter, now) = (Filter::of(&request)?, (state.now)());
    let began = |record: &NodeReplacement| record.status.as_ref().and_then(|status| status.started_at);
    let fits = |record: &Arc<NodeReplacement>| about(&filter, record) && filter.since(began(record));
    let (found, next) = filter.page(state.replacements.state().into_iter().filter(fits).collect(), name_of);
    Ok(Json(Items { items: found.iter().map(|held| story(held, now, &state)).collect(), next }))
}

pub(super) async fn replacement_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    match find(&state.replacements, &path_name(&request)) {
        Some(record) => HttpResponse::Ok().json(story(&record, (state.now)(), &state)),
        None => no_such(&request, "replacement"),
    }
}

pub(super) async fn timeline_of(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    match find(&state.replacements, &path_name(&request)) {
        Some(record) => HttpResponse::Ok().json(timeline(&record, (state.now)())),
        None => no_such(&request, "replacement"),
    }
}

pub(super) async fn fallbacks(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<Fallback>>, Refused> {
    let (filter, now) = (Filter::of(&request)?, (state.now)());
    let open = state.replacements.state().into_iter().filter(|record| about(&filter, record));
    let open = open.filter_map(|record| fallback(&record, now, &state));
    let found = open.filter(|fallback| filter.since(Some(fallback.since))).collect();
    let (items, next) = filter.page(found, |fallback| &fallback.replacement);
    Ok(Json(Items { items, next }))
}

pub(super) async fn fallback_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let found = find(&state.replacements, &path_name(&request));
    match found.and_then(|held| fallback(&held, (state.now)(), &state)) {
        Some(fallback) => HttpResponse::Ok().json(fallback),
        None => no_such(&request, "open fallback"),
    }
}

/// What is paused: by label, in the pools, or by SpotActions.
fn pauses(state: &ApiState) -> Pauses {
    let spot_actions = state.spot_action_store.state();
    Pauses::of(*state.paused.borrow(), spot_actions.iter().map(|spot_action| spot_action.ask()))
}

pub(super) fn find<K>(store: &Store<K>, name: &str) -> Option<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.find(|held| held.meta().name.as_deref() == Some(name))
}

pub(super) fn no_such(request: &HttpRequest, what: &str) -> HttpResponse {
    problem::no_such(request, &format!("no {what} is named {}", path_name(request)))
}

pub(super) fn name_of<K: kube::Resource>(object: &Arc<K>) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// Whether on-demand capacity stands in now.
pub(super) fn has_open_fallback(record: &NodeReplacement) -> bool {
    record.status.as_ref().is_some_and(is_open_fallback)
}

/// Whether the replacement is about what was requested, but for its time.
fn about(filter: &Filter, record: &NodeReplacement) -> bool {
    let status = record.status.as_ref();
    let phase = status.map_or_else(Default::default, |status| status.phase());
    let has_node = |name: &NodeName| {
        let mut took_over = status.into_iter().flat_map(ReplacementStatus::took_over);
        record.spec.node_name == *name || took_over.any(|capacity| capacity.node_name == *name)
    };
    filter.of_pool(record.spec.pool.as_ref())
        && filter.phase.is_none_or(|wanted| phase == wanted)
        && filter.node.as_ref().is_none_or(has_node)
}

fn sorted<K: ResourceExt>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| object.name_any());
    objects
}

fn record(replacement: &NodeReplacement) -> ReplacementStatus {
    replacement.status.clone().unwrap_or_default()
}

fn is_open_fallback(status: &ReplacementStatus) -> bool {
    status.fallback.is_open() && !status.phase().is_finished()
}

fn count(replacements: &[Arc<NodeReplacement>]) -> ReplacementCounts {
    let mut counts = ReplacementCounts::default();
    for status in replacements.iter().map(|held| record(held)) {
        *counts.by_phase.entry(status.phase()).or_default() += 1;
        if status.phase().is_finished() {
            counts.finished += 1;
            continue;
        }
        counts.open += 1;
        counts.fallbacks += usize::from(status.fallback.is_open());
        counts.blocked += usize::from(!status.blocking.is_empty());
    }
    counts
}

/// The open fallbacks of a pool, from the replacements themselves: the pool's status may lag behind them.
fn open_fallbacks(pool: &SpotPool, replacements: &[Arc<NodeReplacement>]) -> usize {
    let name = pool.name_any();
    let of_pool = replacements.iter().filter(|held| held.spec.pool.as_ref() == Some(&name.as_str().into()));
    of_pool.filter(|held| held.status.as_ref().is_some_and(is_open_fallback)).count()
}

fn summary(pool: &SpotPool, replacements: &[Arc<NodeReplacement>], pauses: &Pauses) -> PoolSummary {
    let status = pool.status.clone().unwrap_or_default();
    PoolSummary {
        name: pool.name_any(),
        mode: pool.spec.mode,
        paused: pauses.of_pool(pool).is_some(),
        spot: status.spot.as_ref().map(Counts::of),
        on_demand: status.on_demand.as_ref().map(Counts::of),
        fallbacks: open_fallbacks(pool, replacements),
        conditions: status.conditions.into_iter().map(|held| (held.type_, held.status)).collect(),
    }
}

/// When the groups of a pool were last read, as far as this replica is the one that reads them.
fn observed_at(state: &ApiState, pool: &PoolName) -> Option<Timestamp> {
    state.is_leader.borrow().then(|| state.last_readings.of(pool)).flatten()
}

fn in_full(
    pool: &SpotPool,
    replacements: &[Arc<NodeReplacement>],
    pauses: &Pauses,
    state: &ApiState,
) -> Pool {
    let status = pool.status.clone().unwrap_or_default();
    let standing = |kind: GroupKind, group: &Option<GroupStatus>| {
        group.as_ref().map(|group| GroupStanding::of(&status.ledger, kind, group.desired))
    };
    let spot_standing = standing(GroupKind::Spot, &status.spot);
    let on_demand_standing = standing(GroupKind::OnDemand, &status.on_demand);
    Pool {
        name: pool.name_any(),
        spot_group: pool.spec.spot_group.clone(),
        on_demand_group: pool.spec.on_demand_group.clone(),
        mode: pool.spec.mode,
        rebalance: pool.spec.rebalance,
        replaced_by: status.replaced_by,
        paused: pauses.of_pool(pool).is_some(),
        observed_at: observed_at(state, &pool.name_any().into()),
        spot: status.spot.map(without_instances),
        on_demand: status.on_demand.map(without_instances),
        spot_standing,
        on_demand_standing,
        baseline: pool.spec.on_demand.baseline,
        above_baseline: status.above_baseline.unwrap_or(0),
        fallbacks: open_fallbacks(pool, replacements),
        hints: hints(&status.conditions),
        conditions: status.conditions,
        scaling_requests: status.ledger.scaling_requests,
        left_behind: status.ledger.left_behind,
        reduction: status.ledger.reduction,
    }
}

/// What to do about the reasons of conditions. Some have none: nothing is wrong then.
fn hints(conditions: &[Condition]) -> BTreeMap<ReasonCode, String> {
    let code = |held: &Condition| ReasonCode::ALL.into_iter().find(|code| code.as_str() == held.reason);
    conditions.iter().filter_map(code).map(|code| (code, code.hint().to_owned())).collect()
}

fn story(replacement: &NodeReplacement, now: Timestamp, state: &ApiState) -> Replacement {
    let status = record(replacement);
    let trace_id = Some(replacement_trace::trace_id(replacement).to_string());
    Replacement {
        name: replacement.name_any(),
        cause: replacement.cause(),
        node: replacement.old_node().clone(),
        instance_id: replacement.old_instance().clone(),
        pool: replacement.spec.pool.clone(),
        phase: status.phase(),
        phase_since: status.phase_since,
        flow_box: status.current_box(),
        notice: status.notice,
        started_at: status.started_at,
        deadline: status.deadline,
        retries: status.attempt,
        next_attempt_at: status.capacity.next_attempt_at(),
        fallback: status.fallback.is_open(),
        blocked_by: blocked_by(&status.blocking, now),
        trace_url: trace_url(state, trace_id.as_deref()),
        trace_id,
        outcome: status.is_finished().then(|| Ending::of(&status)),
        capacity: status.capacity.taken().cloned(),
        return_capacity: status.fallback.successor().cloned(),
        steps: status.steps,
        finished_at: status.finished_at,
    }
}

/// Where the trace is shown, if that is configured.
fn trace_url(state: &ApiState, trace_id: Option<&str>) -> Option<String> {
    Some(state.trace_url.as_ref()?.replace("{traceId}", trace_id?))
}

/// The fallback of a replacement, if it has one that is open and whose instance was claimed.
fn fallback(replacement: &NodeReplacement, now: Timestamp, state: &ApiState) -> Option<Fallback> {
    let status = record(replacement);
    if !is_open_fallback(&status) {
        return None;
    }
    let flow_box = status.current_box();
    let blocked_by = blocked_by(&status.blocking, now);
    let open = status.fallback.open()?;
    let capacity = status.capacity.taken().filter(|capacity| capacity.group == GroupKind::OnDemand)?;
    let pool = replacement.spec.pool.as_deref().and_then(|name| find(&state.pools, name));
    let prices = pool.as_ref().and_then(|pool| pool.spec.hourly_prices.as_ref());
    Some(Fallback {
        replacement: replacement.name_any().into(),
        pool: replacement.spec.pool.clone(),
        replaced_node: replacement.spec.node_name.clone(),
        node: capacity.node_name.clone(),
        instance_id: capacity.instance_id.clone(),
        since: capacity.ready_at,
        on_demand_seconds: since(capacity.ready_at, now).as_secs(),
        estimated_extra_cost: prices.and_then(|prices| prices.extra(since(capacity.ready_at, now))),
        phase: status.phase(),
        flow_box,
        blocked_by,
        return_not_before: open.not_before.filter(|at| *at > now),
        return_capacity: open.successor.clone(),
        trace_id: Some(replacement_trace::trace_id(replacement).to_string()),
    })
}

fn timeline(record: &NodeReplacement, now: Timestamp) -> Timeline {
    let status = self::record(record);
    let end = status.finished_at.unwrap_or(now);
    let first = status.steps.first().map_or(end, |step| step.at);
    let ends = status.steps.iter().skip(1).map(|step| step.at).chain([end]);
    let entry = |(step, until): (&StepRecord, Timestamp)| TimelineEntry {
        flow_box: step.flow_box,
        at: step.at,
        after_seconds: since(first, step.at).as_secs(),
        lasted_seconds: since(step.at, until).as_secs(),
        outcome: step.outcome,
        node: step.node.clone(),
        message: step.message.clone(),
    };
    Timeline {
        replacement: record.replacement_name(),
        started_at: status.started_at,
        finished_at: status.finished_at,
        seconds: since(first, end).as_secs(),
        items: status.steps.iter().zip(ends).map(entry).collect(),
    }
}

fn notice(held: &InterruptionNotice, pool: Option<PoolName>) -> Notice {
    let spec = &held.spec;
    Notice {
        name: held.name_any(),
        node: spec.node_name.clone(),
        instance_id: spec.instance_id.clone(),
        pool,
        kind: spec.kind,
        notice_time: spec.notice_time,
        deadline: spec.deadline,
        detected_at: spec.detected_at,
        trace_id: spec.traceparent.as_deref().and_then(trace_id_of),
    }
}

/// Which they are is told by `/api/v1/nodes`.
fn without_instances(group: GroupStatus) -> GroupStatus {
    GroupStatus { instances: Vec::new(), ..group }
}

fn blocked_by(reasons: &[BlockingReason], now: Timestamp) -> Vec<BlockedBy> {
    let blocked_by = |held: &BlockingReason| BlockedBy {
        flow_box: held.flow_box,
        reason: held.reason,
        message: held.message.clone(),
        hint: held.reason.hint().to_owned(),
        since: held.since,
        seconds: since(held.since, now).as_secs(),
    };
    reasons.iter().map(blocked_by).collect()
}
