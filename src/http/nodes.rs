//! `/api/v1/nodes`: the nodes of the pools, and whether one could be drained now.

use super::ApiState;
use super::model::{Items, NodeRole, NodeSafety, PoolNode, SafetyBlocker};
use super::problem::{self, ProblemReason, Refused};
use super::query::{Filter, path_name};
use super::state::MAX_CHECKS;
use crate::actors::deps::PoolConfig;
use crate::crd::{NodeReplacement, SpotPool};
use crate::telemetry::metrics::{BoundedCheck, Spent};
use actix_web::web::{self, Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use jiff::Timestamp;
use spot_guard_core::cluster::{self, Snapshot};
use spot_guard_core::health::PoolReplacement;
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::policy::Policy;
use spot_guard_core::reason::{ReasonCode, in_one_line};
use spot_guard_core::record::{Capacity, FallbackState, GroupKind, ReplacementStatus, UtilisationPercent};
use spot_guard_core::safety::{self, SafetyContext, SafetyPolicy};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) async fn nodes(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<PoolNode>>, Refused> {
    let filter = Filter::of(&request)?;
    let fits = |node: &PoolNode| {
        filter.of_pool(node.pool.as_ref())
            && filter.phase.is_none_or(|phase| node.phase == Some(phase))
            && filter.node.as_ref().is_none_or(|name| node.name == **name)
            && filter.since(node.created)
    };
    let found = known(&state).into_values().filter(fits).collect();
    let (items, next) = filter.page(found, |node| &node.name);
    Ok(Json(Items { items, next }))
}

/// A node of that name, with its replacement: also one that was replaced and is gone.
pub(super) async fn node_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let name = path_name(&request);
    let found = known(&state).remove(name.as_str());
    let plays_a_part = found.as_ref().is_some_and(|node| node.replacement.is_some());
    let replaced = (!plays_a_part).then(|| last_replacement_of(&state, &name)).flatten();
    let node = match (found, replaced) {
        (None, Some(record)) => Some(PoolNode::replaced_by(&record)),
        // Another node of that name is another node.
        (Some(node), Some(record)) if node.instance_id.as_ref() == Some(&record.spec.instance_id) => {
            Some(node.with(&record))
        }
        (found, _) => found,
    };
    match node {
        Some(node) => HttpResponse::Ok().json(node),
        None => problem::no_such(&request, &format!("no node of a pool or a replacement is named {name}")),
    }
}

/// The last replacement of the node of that name.
fn last_replacement_of(state: &ApiState, node: &str) -> Option<Arc<NodeReplacement>> {
    let records = state.replacements.state().into_iter();
    let began = |record: &Arc<NodeReplacement>| record.status.as_ref().and_then(|status| status.started_at);
    records.filter(|record| *record.spec.node_name == *node).max_by_key(began)
}

/// The check of box 9, made for any node, as if it were to be drained now.
pub(super) async fn safety_of(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let name = NodeName::from(path_name(&request));
    // In this order: what is current now is so in the snapshot, too.
    let stale = (state.stale)();
    if !stale.is_empty() {
        return problem::unavailable(ProblemReason::StaleWatch, &request, &in_one_line(&stale));
    }
    let snapshot = (state.snapshot)();
    if snapshot.node(&name).is_none() {
        return problem::no_such(&request, &format!("no node of the cluster is named {name}"));
    }
    let Ok(turn) = state.checks.clone().try_acquire_owned() else {
        let detail = format!("{MAX_CHECKS} safety checks are under way");
        return problem::unavailable(ProblemReason::TooManyChecks, &request, &detail);
    };
    let (pools, records) = (state.pools.state(), state.replacements.state());
    let (defaults, taint_key, now) = (state.defaults.clone(), state.taint_key.clone(), (state.now)());
    // Of a large cluster it takes its time, and the thread that serves has others to answer.
    let work = web::block(move || {
        let _turn = turn;
        let (pool, report) = check(&name, &snapshot, &pools, &records, &defaults, (&taint_key, now));
        NodeSafety {
            node: name,
            pool,
            checked_at: now,
            safe: report.safe,
            blockers: report.blockers.iter().map(SafetyBlocker::from).collect(),
            utilisation_before: UtilisationPercent::from(report.utilisation_before),
            utilisation_after: UtilisationPercent::from(report.utilisation_after),
            pods_to_move: report.pods_to_move.iter().map(ToString::to_string).collect(),
        }
    });
    match work.await {
        Ok(report) => {
            let is_given_up = |held: &&SafetyBlocker| held.reason == ReasonCode::CheckTooLarge;
            let given_up = report.blockers.iter().filter(is_given_up).count();
            state.metrics.checks_given_up(BoundedCheck::Request, Spent::Work, given_up);
            HttpResponse::Ok().json(report)
        }
        Err(_) => problem::internal(&request, "the check was aborted"),
    }
}

fn check(
    name: &NodeName,
    snapshot: &Snapshot,
    pools: &[Arc<SpotPool>],
    records: &[Arc<NodeReplacement>],
    defaults: &Policy,
    (taint_key, now): (&Arc<str>, Timestamp),
) -> (Option<PoolName>, safety::SafetyReport) {
    let stories: Vec<PoolReplacement<'_>> = records.iter().filter_map(|record| open(record)).collect();
    let instance = snapshot.node(name).and_then(cluster::Node::instance_id).unwrap_or_default();
    let own =
        stories.iter().find(|story| *story.instance_id == instance || stands_in(story.status, &instance));
    let of_story = own.and_then(|own| {
        let record = records.iter().find(|record| record.metadata.name.as_deref() == Some(&*own.name))?;
        record.spec.pool.clone()
    });
    let pool = pools.iter().find(|pool| match &of_story {
        Some(name) => pool.metadata.name.as_deref() == Some(&**name),
        None => members(pool).any(|(_, id)| *id == instance),
    });
    let members: Vec<&InstanceId> =
        pool.into_iter().flat_map(|pool| members(pool)).map(|(_, id)| id).collect();
    let context = SafetyContext::of(own, &stories, members.into_iter(), snapshot, taint_key, now);
    let policy = pool.map_or_else(|| defaults.clone(), |pool| PoolConfig::of(pool, defaults, None).policy);
    let report = safety::check_return(name, snapshot, &SafetyPolicy::of(&policy), &context);
    (pool.and_then(|pool| Some(pool.metadata.name.as_deref()?.into())), report)
}

/// The instances of a pool, as the leader last read its groups.
fn members(pool: &SpotPool) -> impl Iterator<Item = (GroupKind, &InstanceId)> {
    let groups = pool.status.as_ref().map(|status| {
        [(GroupKind::Spot, status.spot.as_ref()), (GroupKind::OnDemand, status.on_demand.as_ref())]
    });
    groups.into_iter().flatten().flat_map(|(kind, group)| {
        group.into_iter().flat_map(move |group| group.instances.iter().map(move |id| (kind, id)))
    })
}

fn open(record: &NodeReplacement) -> Option<PoolReplacement<'_>> {
    let status = record.status.as_ref().filter(|status| !status.phase().is_finished())?;
    let name = record.metadata.name.as_deref()?;
    Some(PoolReplacement { name: name.into(), instance_id: &record.spec.instance_id, status })
}

/// Whether the node is one that took over, or is to.
fn stands_in(status: &ReplacementStatus, instance: &InstanceId) -> bool {
    status.took_over().any(|held| held.instance_id == *instance)
}

/// The nodes of the pools and of the replacements, by name.
fn known(state: &ApiState) -> BTreeMap<NodeName, PoolNode> {
    let snapshot = (state.snapshot)();
    let mut known = BTreeMap::new();
    for pool in state.pools.state() {
        for (group, instance) in members(&pool) {
            for node in snapshot.nodes_of_instance(instance) {
                let name = pool.metadata.name.clone().map(Into::into);
                known.insert(node.name.clone(), PoolNode::of(node, name, Some(group)));
            }
        }
    }
    let records: HashMap<ReplacementName, Arc<NodeReplacement>> = state
        .replacements
        .state()
        .into_iter()
        .filter_map(|record| Some((record.metadata.name.as_deref()?.into(), record)))
        .collect();
    for record in records.values() {
        let Some(story) = open(record) else { continue };
        let status = story.status;
        // A later node of the same name plays no part.
        let mut plays = |node: Option<&cluster::Node>, group: Option<GroupKind>, role: NodeRole| {
            let Some(node) = node else { return };
            let of_story = || PoolNode::of(node, record.spec.pool.clone(), group);
            let node = known.entry(node.name.clone()).or_insert_with(of_story);
            node.replacement = Some(story.name.clone());
            node.role = Some(role);
            node.phase = Some(status.phase());
            node.flow_box = Some(status.current_box());
        };
        let node_of = |held: &Capacity| snapshot.node_on(&held.node_name, &held.instance_id, None);
        if !status.old_node.is_over() {
            let (spec, uid) = (&record.spec, status.node_uid.as_ref());
            let old = snapshot.node_on(&spec.node_name, &spec.instance_id, uid);
            plays(old, None, NodeRole::Replaced);
        }
        let returned = matches!(*status.fallback, FallbackState::Gone { .. });
        if let Some(held) = status.capacity.taken().filter(|_| !returned) {
            let role =
                if held.group == GroupKind::OnDemand { NodeRole::Fallback } else { NodeRole::Replacement };
            plays(node_of(held), Some(held.group), role);
        }
        if let Some(held) = status.fallback.successor() {
            plays(node_of(held), Some(held.group), NodeRole::Successor);
        }
    }
    known
}
