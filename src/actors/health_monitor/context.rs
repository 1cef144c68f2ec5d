//! What box 9 is told beside the cluster.

use jiff::Timestamp;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::group::PoolView;
use spot_guard_core::health::PoolReplacement;
use spot_guard_core::safety::SafetyContext;
use spot_guard_core::shortfall::HYPOTHETICAL;
use std::sync::Arc;

/// The inputs of box 9, in a cluster that may have one more Spot node.
pub(super) fn safety_context(
    own: Option<&PoolReplacement<'_>>,
    stories: &[PoolReplacement<'_>],
    view: &PoolView,
    snapshot: &Snapshot,
    (taint_key, now): (&Arc<str>, Timestamp),
) -> SafetyContext {
    let members = view.instances().map(|instance| &instance.id);
    let mut context = SafetyContext::of(own, stories, members, snapshot, taint_key, now);
    context.pool_nodes.extend(snapshot.node(&HYPOTHETICAL.into()).map(|node| node.name.clone()));
    context
}
