//! How full a pool is, and would be without a node: of each resource, over the nodes that take pods.

use super::policy::{GLANCE_EFFORT, SafetyContext, SafetyPolicy};
use super::utilisation::Utilisation;
use crate::cluster::{Pod, Resources, Snapshot, add_extended};
use crate::effort::{Effort, TooMuch};
use crate::ids::NodeName;
use crate::placement::ExcludedNodes;
use crate::reason::Blocker;
use std::collections::BTreeSet;

/// What pods ask for, and what nodes have.
#[derive(Clone, Default)]
struct Sum {
    requested: Resources,
    has: Resources,
}

impl Sum {
    fn pods<'p>(&mut self, pods: impl Iterator<Item = &'p Pod>, effort: &Effort) -> Result<(), TooMuch> {
        for pod in pods {
            effort.spend(1 + self.requested.extended.len() + pod.spec.requests.extended.len())?;
            grow(&mut self.requested, &pod.spec.requests, 1);
        }
        Ok(())
    }

    fn shares(&self) -> impl Iterator<Item = (&str, f64)> {
        all(&self.requested).filter(|(_, requested)| *requested > 0).map(|(resource, requested)| {
            let has = amount(&self.has, resource);
            #[allow(clippy::cast_precision_loss, reason = "a share")]
            let share = if has > 0 { requested as f64 / has as f64 } else { 1.0 };
            (resource, share)
        })
    }
}

fn all(resources: &Resources) -> impl Iterator<Item = (&str, i64)> {
    let fixed = [
        ("cpu", resources.cpu_millis),
        ("memory", resources.memory),
        ("ephemeral-storage", resources.ephemeral_storage),
        ("pods", resources.pods),
    ];
    fixed.into_iter().chain(resources.extended.iter().map(|(name, amount)| (&**name, *amount)))
}

/// How much there is of a resource, as Kubernetes calls it.
fn amount(resources: &Resources, name: &str) -> i64 {
    match name {
        "cpu" => resources.cpu_millis,
        "memory" => resources.memory,
        "ephemeral-storage" => resources.ephemeral_storage,
        "pods" => resources.pods,
        name => resources.extended(name),
    }
}

fn grow(sum: &mut Resources, by: &Resources, pods: i64) {
    sum.cpu_millis = sum.cpu_millis.saturating_add(by.cpu_millis);
    sum.memory = sum.memory.saturating_add(by.memory);
    sum.ephemeral_storage = sum.ephemeral_storage.saturating_add(by.ephemeral_storage);
    sum.pods = sum.pods.saturating_add(pods);
    add_extended(&mut sum.extended, &by.extended, 1);
}

/// How full the pool is with the node and would be without it, and what is too full of what the pods ask for.
///
/// Only nodes that pods can be placed on count. All pods that move are counted in the pool, even if some
/// would go elsewhere, and those that leave other nodes beside them.
///
/// # Errors
/// If finding out is more work than `effort` has left.
pub(super) fn judge(
    leaving: &NodeName,
    (moving, beside): (&[&Pod], &[&Pod]),
    excluded: &ExcludedNodes,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
    context: &SafetyContext,
    effort: &Effort,
) -> Result<(Utilisation, Utilisation, Vec<Blocker>), TooMuch> {
    let below = policy.placement.placeholders_below;
    let counts = |pod: &&Pod| !pod.phase.finished() && !pod.spec.is_placeholder(below);
    let mut rest = Sum::default();
    for name in &context.pool_nodes {
        let Some(index) = snapshot.node_index(name) else { continue };
        let node = &snapshot.nodes()[index];
        if &**name == leaving || excluded.contains(name) || !node.ready || node.unschedulable {
            continue;
        }
        effort.spend(1)?;
        grow(&mut rest.has, &node.allocatable, node.allocatable.pods);
        match below {
            None => {
                effort.spend(rest.requested.extended.len() + snapshot.used(index).extended.len())?;
                grow(&mut rest.requested, snapshot.used(index), snapshot.used(index).pods);
            }
            Some(_) => rest.pods(snapshot.pods_on(name).filter(counts), effort)?,
        }
    }
    let mut before = Sum::default();
    if let Some(node) = snapshot.node(leaving) {
        before = rest.clone();
        grow(&mut before.has, &node.allocatable, node.allocatable.pods);
        before.pods(snapshot.pods_on(leaving).filter(counts), effort)?;
    }
    let (mut after, mut moved) = (rest, Sum::default());
    after.pods(moving.iter().chain(beside).copied().filter(counts), effort)?;
    moved.pods(moving.iter().copied().filter(counts), effort)?;

    let story = context.utilisation_before_story.as_ref();
    let limit = |resource: &str| {
        let before = story.map(|story| story.of(resource) + policy.utilisation_slack);
        before.map_or(policy.max_utilisation, |before| policy.max_utilisation.max(before))
    };
    // A resource that no other node of the pool has is not the pool's to keep: whether the pods that need it
    // fit elsewhere is for their placement to say. Every node has CPU and memory.
    let kept = |resource: &str| matches!(resource, "cpu" | "memory") || amount(&after.has, resource) > 0;
    let requested = |resource: &str| amount(&moved.requested, resource) > 0;
    let too_full = after
        .shares()
        .filter(|(resource, _)| requested(resource) && kept(resource))
        .map(|(resource, after)| (resource, after, limit(resource)))
        // A share that only rounding puts over the limit is at the limit.
        .filter(|(_, after, limit)| *after > *limit + 1e-9)
        .map(|(resource, after, limit)| Blocker::BufferExceeded {
            resource: resource.to_owned(),
            after,
            limit,
        })
        .collect();
    Ok((before.shares().collect(), after.shares().collect(), too_full))
}

/// How full the nodes are that pods can be placed on: what a replacement records when it begins. Nothing is
/// recorded if finding out is more work than those who wait for it can wait; then the pool's limit alone
/// holds.
#[must_use]
pub fn pool_utilisation(
    pool_nodes: &BTreeSet<NodeName>,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
) -> Utilisation {
    let context = SafetyContext { pool_nodes: pool_nodes.clone(), ..SafetyContext::default() };
    let (nobody, effort) = (ExcludedNodes::default(), Effort::of(GLANCE_EFFORT));
    judge(&NodeName::default(), (&[], &[]), &nobody, snapshot, policy, &context, &effort)
        .unwrap_or_default()
        .1
}
