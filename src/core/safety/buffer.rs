//! How full a pool is, and would be without a node: of each resource, over the nodes that take pods.

use super::{Blocker, SafetyContext, SafetyPolicy};
use crate::core::cluster::{Pod, Resources, Snapshot};
use crate::core::placement::ExcludedNodes;
use crate::core::record::UtilisationPercent;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What pods have reserved of each resource, as a share of what the nodes have (1 is all). What nobody has
/// reserved is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Utilisation(BTreeMap<String, f64>);

impl Utilisation {
    /// The share of `resource`, as Kubernetes calls it: `cpu`, `memory`, `pods`, `nvidia.com/gpu`.
    #[must_use]
    pub fn of(&self, resource: &str) -> f64 {
        self.0.get(resource).copied().unwrap_or(0.0)
    }
}

impl<S: Into<String>> FromIterator<(S, f64)> for Utilisation {
    fn from_iter<I: IntoIterator<Item = (S, f64)>>(shares: I) -> Self {
        Self(shares.into_iter().map(|(resource, share)| (resource.into(), share)).collect())
    }
}

impl From<&UtilisationPercent> for Utilisation {
    fn from(percent: &UtilisationPercent) -> Self {
        percent.0.iter().map(|(resource, percent)| (resource, f64::from(*percent) / 100.0)).collect()
    }
}

impl From<Utilisation> for UtilisationPercent {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, not negative")]
    fn from(shares: Utilisation) -> Self {
        let percent = |share: f64| (share * 100.0).ceil() as u32;
        Self(shares.0.into_iter().map(|(resource, share)| (resource, percent(share))).collect())
    }
}

/// What pods ask for, and what nodes have.
#[derive(Clone, Default)]
struct Sum {
    asked: Resources,
    has: Resources,
}

impl Sum {
    fn pod(&mut self, pod: &Pod) {
        grow(&mut self.asked, &pod.spec.requests, 1);
    }

    fn shares(&self) -> impl Iterator<Item = (&str, f64)> {
        all(&self.asked).filter(|(_, asked)| *asked > 0).map(|(resource, asked)| {
            let has = all(&self.has).find(|(name, _)| *name == resource).map_or(0, |(_, has)| has);
            #[allow(clippy::cast_precision_loss, reason = "a share")]
            let share = if has > 0 { asked as f64 / has as f64 } else { 1.0 };
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

fn grow(sum: &mut Resources, by: &Resources, pods: i64) {
    sum.cpu_millis = sum.cpu_millis.saturating_add(by.cpu_millis);
    sum.memory = sum.memory.saturating_add(by.memory);
    sum.ephemeral_storage = sum.ephemeral_storage.saturating_add(by.ephemeral_storage);
    sum.pods = sum.pods.saturating_add(pods);
    for (name, amount) in &by.extended {
        match sum.extended.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total = total.saturating_add(*amount),
            None => {
                let mut more = std::mem::take(&mut sum.extended).into_vec();
                more.push((name.clone(), *amount));
                sum.extended = more.into();
            }
        }
    }
}

/// How full the pool is with the node and would be without it, and what is too full of what the pods ask for.
///
/// Only nodes that pods can be placed on count. All pods that move are counted in the pool, even if some would
/// go elsewhere.
pub(super) fn judge(
    leaving: &str,
    moving: &[&Pod],
    excluded: &ExcludedNodes,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
    context: &SafetyContext,
) -> (Utilisation, Utilisation, Vec<Blocker>) {
    let below = policy.placement.placeholders_below;
    let counts = |pod: &&Pod| !pod.phase.finished() && !pod.spec.is_placeholder(below);
    let mut rest = Sum::default();
    for name in &context.pool_nodes {
        let Some(index) = snapshot.node_index(name) else { continue };
        let node = &snapshot.nodes()[index];
        if &**name == leaving || excluded.contains(name) || !node.ready || node.unschedulable {
            continue;
        }
        grow(&mut rest.has, &node.allocatable, node.allocatable.pods);
        match below {
            None => grow(&mut rest.asked, snapshot.used(index), snapshot.used(index).pods),
            Some(_) => snapshot.pods_on(name).filter(counts).for_each(|pod| rest.pod(pod)),
        }
    }
    let mut before = Sum::default();
    if let Some(node) = snapshot.node(leaving) {
        before = rest.clone();
        grow(&mut before.has, &node.allocatable, node.allocatable.pods);
        snapshot.pods_on(leaving).filter(counts).for_each(|pod| before.pod(pod));
    }
    let (mut after, mut moved) = (rest, Sum::default());
    for pod in moving.iter().filter(|pod| counts(pod)) {
        after.pod(pod);
        moved.pod(pod);
    }

    let story = context.utilisation_before_story.as_ref();
    let limit = |resource: &str| {
        let before = story.map(|story| story.of(resource) + policy.utilisation_slack);
        before.map_or(policy.max_utilisation, |before| policy.max_utilisation.max(before))
    };
    // A resource that no other node of the pool has is not the pool's to keep: whether the pods that need it fit
    // elsewhere is for their placement to say. Every node has CPU and memory.
    let kept = |resource: &str| {
        matches!(resource, "cpu" | "memory") || all(&after.has).any(|(name, has)| name == resource && has > 0)
    };
    let asked = |resource: &str| all(&moved.asked).any(|(name, asked)| name == resource && asked > 0);
    let too_full = after
        .shares()
        .filter(|(resource, _)| asked(resource) && kept(resource))
        .map(|(resource, after)| (resource, after, limit(resource)))
        // A share that only rounding puts over the limit is at the limit.
        .filter(|(_, after, limit)| *after > *limit + 1e-9)
        .map(|(resource, after, limit)| Blocker::BufferExceeded {
            resource: resource.to_owned(),
            after,
            limit,
        })
        .collect();
    (before.shares().collect(), after.shares().collect(), too_full)
}

/// How full the nodes are that pods can be placed on: what a story records when it begins.
#[must_use]
pub fn pool_utilisation(
    pool_nodes: &BTreeSet<Arc<str>>,
    snapshot: &Snapshot,
    policy: &SafetyPolicy,
) -> Utilisation {
    let context = SafetyContext { pool_nodes: pool_nodes.clone(), ..SafetyContext::default() };
    judge("", &[], &ExcludedNodes::default(), snapshot, policy, &context).1
}
