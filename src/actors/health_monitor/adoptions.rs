//! Which on-demand instance above the baseline goes back to Spot next.

use super::context::safety_context;
use crate::actors::deps::PoolConfig;
use crate::actors::messages::PoolObserved;
use crate::crd::NodeReplacement;
use jiff::Timestamp;
use spot_guard_core::adoption::{self, Adoption, AdoptionInputs, AdoptionRecord, Candidate};
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::health::{PoolAssessment, PoolReplacement};
use spot_guard_core::limits;
use spot_guard_core::reason::Reason;
use spot_guard_core::safety::{self, SafetyPolicy, Utilisation};
use spot_guard_core::shortfall::Shapes;
use std::sync::Arc;

/// Which instance is adopted next, or what holds it.
pub(super) fn judge(
    pool: &PoolConfig,
    observed: &PoolObserved,
    found: &PoolAssessment,
    held: &[Reason],
    (records, snapshot, taint_key): (&[Arc<NodeReplacement>], &Snapshot, &Arc<str>),
    now: Timestamp,
) -> Adoption {
    if pool.deleted || observed.ledger.excess.is_none() {
        return Adoption::default();
    }
    let own = records.iter().filter(|record| record.spec.pool.as_ref() == Some(&pool.name));
    let known: Vec<AdoptionRecord<'_>> = own.clone().filter_map(|record| record.beside_adoption()).collect();
    let everywhere: Vec<PoolReplacement<'_>> = records.iter().filter_map(|record| record.as_open()).collect();
    let view = &*observed.view;
    let policy = SafetyPolicy::of(&pool.policy);
    let unsafe_ = |candidate: &Candidate, cluster: &Snapshot| {
        let mut context = safety_context(None, &everywhere, view, cluster, (taint_key, now));
        // An adoption may leave the pool as full as it is.
        let now = || safety::pool_utilisation(&context.pool_nodes, snapshot, &policy);
        let before = adoption::utilisation(known.iter().copied());
        context.utilisation_before_story = Some(before.as_ref().map_or_else(now, Utilisation::from));
        let report = safety::check_return(&candidate.node, cluster, &policy, &context);
        report.blockers.into_iter().map(Reason::from).collect()
    };
    let returns = own.filter_map(|record| Some((&record.spec.instance_id, record.status.as_ref()?)));
    // What is adopted goes back at once: Spot would be requested for a return that may not begin.
    let limits = limits::returns_held(&pool.policy, view, returns, false, now);
    let held = held.iter().chain(&found.unhealthy).chain(&found.unstable).chain(&limits);
    let held: Vec<Reason> = held.cloned().collect();
    adoption::judge(&AdoptionInputs {
        spec: &pool.on_demand,
        mode: pool.mode,
        replaced_by: pool.replacer(view),
        view,
        ledger: &observed.ledger,
        known: &known,
        at_most: limits::returns_at_most(&pool.policy, view),
        held: &held,
        cluster: snapshot,
        taint_key,
        with_spot_node: &|| Shapes::with_spot_node(view, snapshot, taint_key),
        unsafe_: &unsafe_,
        now,
    })
}
