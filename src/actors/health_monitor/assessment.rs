//! Boxes 7 to 9 for one pool: what is asked, and of whom.

use super::context::safety_context;
use crate::actors::deps::PoolConfig;
use crate::actors::messages::PoolObserved;
use crate::crd::NodeReplacement;
use jiff::Timestamp;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::StaleWatch;
use spot_guard_core::group::PoolView;
use spot_guard_core::health::{self, PoolAssessment, PoolReplacement};
use spot_guard_core::ids::InstanceId;
use spot_guard_core::limits;
use spot_guard_core::reason::{Blocker, Reason};
use spot_guard_core::safety;
use spot_guard_core::shortfall::Shapes;
use std::cell::OnceCell;
use std::sync::Arc;

/// Boxes 7 to 9 for one pool.
pub(super) fn assess<'a>(
    pool: &PoolConfig,
    observed: &PoolObserved,
    records: &'a [Arc<NodeReplacement>],
    snapshot: &Snapshot,
    taint_key: &Arc<str>,
    stale: &[StaleWatch],
    now: Timestamp,
) -> PoolAssessment {
    let own = |record: &&'a Arc<NodeReplacement>| record.spec.pool.as_ref() == Some(&pool.name);
    let stories: Vec<PoolReplacement<'_>> =
        records.iter().filter(own).filter_map(|record| record.as_open()).collect();
    let everywhere: Vec<PoolReplacement<'_>> = records.iter().filter_map(|record| record.as_open()).collect();
    let ready = |instance: &InstanceId| {
        let nodes: Vec<_> = snapshot.nodes_of_instance(instance).collect();
        // Of two nodes with one instance nobody knows which one is it.
        (!nodes.is_empty()).then_some(matches!(&nodes[..], [node] if node.ready))
    };
    // By an old picture nothing is safe.
    let unsafe_ = |story: &PoolReplacement<'_>| match stale {
        [] => safety_blockers(story, &everywhere, pool, &observed.view, snapshot, (taint_key, now)),
        stale => stale.iter().cloned().map(Reason::StaleWatch).collect(),
    };
    let (view, policy) = (&observed.view, &pool.policy);
    let with_spot = OnceCell::new();
    let unsafe_with_spot = |story: &PoolReplacement<'_>| {
        let known: &Vec<Snapshot> =
            with_spot.get_or_init(|| Shapes::with_spot_node(view, snapshot, taint_key));
        let clusters = if known.is_empty() { std::slice::from_ref(snapshot) } else { known };
        let blockers = clusters.iter().map(|cluster| {
            let found = safety_blockers(story, &everywhere, pool, view, cluster, (taint_key, now));
            health::with_more_spot(found, story, &observed.ledger, known.is_empty())
        });
        health::of_any_node(blockers)
    };
    let questions =
        health::Questions { ready: &ready, unsafe_: &unsafe_, unsafe_with_spot: &unsafe_with_spot };
    let mut found = health::assess(view, &observed.ledger, &stories, &questions, policy, now);
    let known = records
        .iter()
        .filter(own)
        .filter_map(|record| Some((&record.spec.instance_id, record.status.as_ref()?)));
    let held = [false, true].map(|asked| limits::returns_held(policy, view, known.clone(), asked, now));
    for story in &stories {
        if let Some(assessed) = found.returns.get_mut(&story.name) {
            let asked = story.status.fallback.requested_at().is_some();
            if let Some(back) = story.status.capacity.taken() {
                let node = &back.node_name;
                let context = safety_context(Some(story), &everywhere, view, snapshot, (taint_key, now));
                assessed.pods = safety::moving(node, snapshot).map(|pod| pod.uid.clone()).collect();
                assessed.drained =
                    safety::drained_beside(node, snapshot, &context.drains()).cloned().collect();
            }
            assessed.held.clone_from(&held[usize::from(asked)]);
        }
    }
    found
}

/// Box 9: what stands against draining the fallback's node now.
fn safety_blockers(
    story: &PoolReplacement<'_>,
    stories: &[PoolReplacement<'_>],
    pool: &PoolConfig,
    view: &PoolView,
    snapshot: &Snapshot,
    taint_and_now: (&Arc<str>, Timestamp),
) -> Vec<Reason> {
    let Some(capacity) = story.status.capacity.taken() else { return Vec::new() };
    if snapshot.node_on(&capacity.node_name, &capacity.instance_id, None).is_none() {
        // Its name may be another node's by now, whose pods say nothing.
        return vec![Blocker::NodeUnknown { node: capacity.node_name.clone() }.into()];
    }
    let context = safety_context(Some(story), stories, view, snapshot, taint_and_now);
    let policy = safety::SafetyPolicy::of(&pool.policy);
    let report = safety::check_return(&capacity.node_name, snapshot, &policy, &context);
    report.blockers.into_iter().map(Reason::from).collect()
}
