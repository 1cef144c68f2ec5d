//! On-demand instances above a pool's baseline that no replacement requested, and how they go back to Spot.
//!
//! [`crate::baseline`] says how many there are. [`judge`] names the one that is adopted next. From then on it
//! is a fallback like any other: boxes 6 to 11.

#[cfg(test)]
mod tests;

use crate::baseline::ADOPTED;
use crate::cluster::{Node, ScaleDown, Snapshot};
use crate::flow::Event;
use crate::group::{GroupView, Lifecycle, PoolView};
use crate::ids::{InstanceId, NodeName, PoolName, ReplacementName, name_stem};
use crate::ledger::Ledger;
use crate::neighbours;
use crate::policy::seconds;
use crate::reason::{Neighbour, Reason};
use crate::record::{
    Capacity, CapacityState, FallbackState, GroupKind, OldNodeState, OpenFallback, ReplacedBy,
    ReplacementStatus, UtilisationPercent,
};
use crate::replacement::Mode;
use crate::safety;
use crate::time::since;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::time::Duration;

/// A node with this label is never adopted.
pub const KEEP: &str = "spotguard.dev/keep";
/// By taints that begin so cluster-autoscaler says that it may take a node away soon (its FAQ).
const DELETION_CANDIDATE: &str = "DeletionCandidateOfClusterAutoscaler";
/// So many instances are looked at in one assessment.
const MOST_CANDIDATES: usize = 8;
/// So long after one was released none is adopted.
const REST: Duration = Duration::from_secs(1800);

/// How many on-demand instances a pool is to have, and what becomes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnDemandSpec {
    /// How many on-demand instances the pool has without any fallback. What is above it goes back to Spot,
    /// whoever requested it. Without it, only what Spot Guard requested goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000))]
    pub baseline: Option<u32>,
    /// For how many seconds instances above the baseline must have stood before one goes back; by default
    /// 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86_400))]
    pub adopt_after_seconds: Option<u32>,
}

impl OnDemandSpec {
    fn adopt_after(&self) -> Duration {
        seconds(self.adopt_after_seconds.unwrap_or(1800))
    }
}

/// An instance that may be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its node.
    pub node: NodeName,
}

/// What is adopted next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The instance.
    pub instance: Candidate,
    /// Whether a Spot instance is requested for its pods: they do not fit on the nodes that there are.
    pub requests_spot: bool,
}

/// What is adopted next, or what holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adoption {
    /// How many instances are above the baseline.
    pub excess: u32,
    /// The next one.
    pub next: Option<Adopted>,
    /// Why none is adopted.
    pub held: Vec<Reason>,
}

/// A replacement of the pool.
#[derive(Clone, Copy, Debug)]
pub struct AdoptionRecord<'a> {
    /// Whether it is about an adopted instance.
    pub is_adopted: bool,
    /// Its record.
    pub status: &'a ReplacementStatus,
}

impl AdoptionRecord<'_> {
    /// Whether it is open, and its pods have not begun to move.
    fn waits(&self) -> bool {
        !self.status.is_finished() && matches!(*self.status.fallback, FallbackState::OnFallback(_))
    }

    /// Whether it was released lately: it went no step of a return.
    fn was_released(&self, now: Timestamp) -> bool {
        let lately = self.status.finished_at.is_some_and(|at| since(at, now) < REST);
        self.is_adopted && lately && !matches!(*self.status.fallback, FallbackState::Gone { .. })
    }
}

/// What [`judge`] looks at.
pub struct AdoptionInputs<'a> {
    /// The pool's baseline.
    pub spec: &'a OnDemandSpec,
    /// The pool's mode.
    pub mode: Mode,
    /// Who replaces its Spot nodes: of a group that does it by itself nothing is requested.
    pub replaced_by: ReplacedBy,
    /// Its groups.
    pub view: &'a PoolView,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// Its replacements, finished ones too.
    pub known: &'a [AdoptionRecord<'a>],
    /// How many of its nodes may go back at a time.
    pub at_most: usize,
    /// What holds all voluntary work: a pause, an old picture, a rollout, an unhealthy Spot group.
    pub held: &'a [Reason],
    /// The cluster.
    pub cluster: &'a Snapshot,
    /// The key of our taint.
    pub taint_key: &'a str,
    /// The cluster with one more Spot node, once for each zone; none without a Spot node to look at.
    pub with_spot_node: &'a dyn Fn() -> Vec<Snapshot>,
    /// Box 9: why the node of an instance cannot be given back in such a cluster.
    pub unsafe_: &'a dyn Fn(&Candidate, &Snapshot) -> Vec<Reason>,
    /// The time.
    pub now: Timestamp,
}

/// Whether another instance may be adopted beside the replacements of its pool: while a node is replaced,
/// none is. Each earlier one must be in the ledger: else nobody knows what is above the baseline.
#[must_use]
pub fn has_room<'a>(
    ledger: &Ledger,
    known: impl Iterator<Item = AdoptionRecord<'a>>,
    at_most: usize,
) -> bool {
    let claimed = ledger.claimed(GroupKind::OnDemand);
    let is_counted = |record: &AdoptionRecord<'_>| {
        let taken = record.status.capacity.taken();
        record.is_adopted && taken.is_some_and(|held| claimed.contains(&held.instance_id))
    };
    // What is only recommended, and has begun nothing, may stay so for weeks.
    let waits = |status: &ReplacementStatus| status.deadline.is_none() && !status.capacity.is_requested();
    let open: Vec<_> = known
        .filter(|record| !record.status.is_finished() && (record.is_adopted || !waits(record.status)))
        .collect();
    open.len() < at_most && open.iter().all(is_counted)
}

/// How full the pool was before the instances were adopted whose return is under way.
#[must_use]
pub fn utilisation<'a>(mut known: impl Iterator<Item = AdoptionRecord<'a>>) -> Option<UtilisationPercent> {
    let found = known.find(|record| record.is_adopted && !record.status.is_finished());
    found.and_then(|record| record.status.utilisation_before.clone())
}

/// Which instance above the baseline is adopted next.
#[must_use]
pub fn judge(inputs: &AdoptionInputs<'_>) -> Adoption {
    let Some((excess, baseline)) = inputs.ledger.excess.zip(inputs.spec.baseline) else {
        return Adoption::default();
    };
    let group = inputs.view.on_demand.name.clone();
    let above = Reason::AboveBaseline { group, instances: excess.instances, baseline };
    let found = |next: Option<Adopted>, held: Vec<Reason>| {
        let held = if next.is_some() { held } else { [vec![above.clone()], held].concat() };
        Adoption { excess: excess.instances, next, held }
    };
    if inputs.mode != Mode::Act {
        return found(None, vec![Reason::ObserveOnly { at_once: false }]);
    }
    if !inputs.held.is_empty() {
        return found(None, inputs.held.to_vec());
    }
    let rests = inputs.known.iter().any(|known| known.was_released(inputs.now));
    let is_full = !has_room(inputs.ledger, inputs.known.iter().copied(), inputs.at_most);
    if rests || is_full || since(excess.since, inputs.now) < inputs.spec.adopt_after() {
        return found(None, Vec::new());
    }
    let (next, held) = first_safe(inputs);
    found(next, held)
}

/// The first candidate whose node can be given back, as the cluster is or with one more Spot node; else why
/// the first of all cannot.
fn first_safe(inputs: &AdoptionInputs<'_>) -> (Option<Adopted>, Vec<Reason>) {
    let candidates = candidates(inputs);
    let adopted = |instance: &Candidate, requests_spot| {
        (Some(Adopted { instance: instance.clone(), requests_spot }), Vec::new())
    };
    let held = match safe_in(inputs.cluster, &candidates, inputs) {
        // The room that it would take may be another one's, which has not begun to drain.
        Ok(_) if inputs.known.iter().any(AdoptionRecord::waits) => return (None, Vec::new()),
        Ok(instance) => return adopted(instance, false),
        Err(held) => held,
    };
    let spot = &inputs.view.spot;
    if inputs.replaced_by != ReplacedBy::SpotGuard || spot.desired >= spot.max {
        return (None, held);
    }
    let clusters = (inputs.with_spot_node)();
    if clusters.is_empty() {
        // Without a Spot node to look at, one is tried.
        return candidates.first().map_or((None, held), |instance| adopted(instance, true));
    }
    let mut held = held;
    for (number, cluster) in clusters.iter().enumerate() {
        match safe_in(cluster, &candidates, inputs) {
            Ok(instance) => return adopted(instance, true),
            Err(reasons) if number == 0 => held = reasons,
            Err(_) => {}
        }
    }
    (None, held)
}

/// The first candidate whose node can be given back in such a cluster, or why the first of all cannot.
fn safe_in<'a>(
    cluster: &Snapshot,
    candidates: &'a [Candidate],
    inputs: &AdoptionInputs<'_>,
) -> Result<&'a Candidate, Vec<Reason>> {
    let mut held = Vec::new();
    for instance in candidates {
        let reasons = (inputs.unsafe_)(instance, cluster);
        if reasons.is_empty() {
            return Ok(instance);
        }
        if held.is_empty() {
            held = reasons;
        }
    }
    Err(held)
}

/// The instances that may be adopted: first those whose nodes have the fewest pods to move, then the newest.
fn candidates(inputs: &AdoptionInputs<'_>) -> Vec<Candidate> {
    let claimed = inputs.ledger.claimed(GroupKind::OnDemand);
    let serving = inputs.view.on_demand.instances.iter().filter(|held| {
        held.lifecycle == Lifecycle::InService && !held.protected && !claimed.contains(&held.id)
    });
    let mut found: Vec<_> = serving
        .filter_map(|held| {
            let node = inputs.cluster.node_of_instance(&held.id)?;
            let pods = safety::moving(&node.name, inputs.cluster).count();
            is_free(node, inputs.taint_key).then(|| {
                let candidate = Candidate { instance_id: held.id.clone(), node: node.name.clone() };
                ((pods, Reverse(node.created), held.id.clone()), candidate)
            })
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found.into_iter().map(|(_, candidate)| candidate).take(MOST_CANDIDATES).collect()
}

/// Whether nobody keeps the node, and nobody else takes it away.
fn is_free(node: &Node, taint_key: &str) -> bool {
    let is_marked = |key: &str| key == taint_key || key.starts_with(DELETION_CANDIDATE);
    let owner = neighbours::owner(node).filter(|owner| *owner != Neighbour::EksManagedNodeGroup);
    node.ready
        && !node.unschedulable
        && owner.or_else(|| neighbours::ender(node)).is_none()
        && node.scale_down != ScaleDown::DisabledByOther
        && node.labels.get(KEEP).is_none()
        && !node.taints.iter().any(|taint| is_marked(&taint.key))
}

/// The record of an adopted instance: there is no old node, and a fallback stands in from its beginning.
#[must_use]
pub fn open(adopted: &Adopted, spot: &GroupView, now: Timestamp) -> ReplacementStatus {
    let replaced_by = if adopted.requests_spot { ReplacedBy::SpotGuard } else { ReplacedBy::Group };
    let mut status = ReplacementStatus {
        started_at: Some(now),
        replaced_by: Some(replaced_by),
        spot_group: Some(spot.name.clone()),
        ..ReplacementStatus::default()
    };
    let Candidate { instance_id, node } = adopted.instance.clone();
    let instance = Capacity {
        group: GroupKind::OnDemand,
        instance_id: instance_id.clone(),
        node_name: node.clone(),
        ready_at: now,
    };
    status.capacity.enter(CapacityState::Taken { instance, on_demand_requested: true });
    status.old_node.enter(OldNodeState::Gone {});
    status.fallback.enter(FallbackState::OnFallback(OpenFallback::default()));
    status.settle_phase(now);
    Event::Adopted { instance_id, requests_spot: adopted.requests_spot }.add_to(&mut status, &node, now);
    status
}

/// What the record of an adopted instance may be called, the first choice first: the same for every leader.
pub fn names(pool: &PoolName, id: &InstanceId) -> impl Iterator<Item = ReplacementName> + use<> {
    let stem = format!("{}{ADOPTED}{id}", name_stem(pool));
    (0..100).map(move |number| ReplacementName::from(format!("{stem}-{number}")))
}
