//! Records without an old node are opened here: stand-ins for Spot capacity that is missing without an
//! interruption notice, and on-demand instances above the baseline that are adopted.

use super::known::PoolFacts;
use super::store::Write;
use super::turn_view::TurnView;
use crate::actors::deps::PoolConfig;
use crate::crd::{AdoptedInstance, EmptyPlace, NodeReplacement, NodeReplacementSpec};
use jiff::Timestamp;
use spot_guard_core::adoption::{self, Adopted};
use spot_guard_core::baseline::may_adopt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::group::{GroupView, PoolView};
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement::Mode;
use spot_guard_core::shortfall;
use std::collections::{BTreeMap, BTreeSet};

impl TurnView<'_> {
    /// The pool, its groups and its ledger, if a record that nobody announced may be opened in it.
    fn may_begin(&self, pool: &PoolName) -> Option<(&PoolConfig, &PoolView, &Ledger)> {
        let (config, facts) = (self.configs.get(pool)?, self.pools.get(pool)?);
        let PoolFacts::Observed { view, ledger, .. } = facts else { return None };
        let held = config.deleted || config.mode != Mode::Act || config.pause.is_some();
        (!held && self.is_accepted(pool)).then_some((config, &**view, &**ledger))
    }

    /// The record of an adopted instance, if it may still be adopted.
    pub(super) fn adopt(
        &self,
        pool: &PoolName,
        adopted: Adopted,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
    ) -> Option<Write> {
        let id = adopted.instance.instance_id.clone();
        let (config, view, ledger) = self.may_begin(pool)?;
        let mut of_pool = records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let baseline = config.on_demand.baseline;
        let is_free = may_adopt(ledger, &view.on_demand, &id, baseline) == Some(true);
        if !is_free || of_pool.any(NodeReplacement::is_open) {
            return None;
        }
        // One that cannot be read and adopts the same instance has claimed it in the ledger.
        let is_new =
            |name: &ReplacementName| !records.contains_key(name) && !self.deps.view.may_hide_record(name);
        let name = adoption::names(pool, &id).find(is_new)?;
        let status = self.adopted(pool, &adopted, &view.spot);
        Some(opened(&name, pool, (None, Some(adopted.into())), status))
    }

    /// The first status of an adopted instance.
    pub(super) fn adopted(&self, pool: &PoolName, adopted: &Adopted, spot: &GroupView) -> ReplacementStatus {
        let status = adoption::open(adopted, spot, self.deps.clock.now());
        ReplacementStatus { utilisation_before: Some(self.utilisation(pool)), ..status }
    }

    /// The records of the stand-ins that begin: so many as are wanted, and as are still missing.
    pub(super) fn stand_in(
        &self,
        pool: &PoolName,
        wanted: usize,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
    ) -> Vec<Write> {
        // A record that cannot be read may be that of a stand-in.
        let unread = self.deps.view.not_understood().names(WatchedKind::Replacement).next().is_some();
        let Some((_, view, ledger)) = self.may_begin(pool).filter(|_| !unread) else { return Vec::new() };
        let of_pool = records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let known = of_pool.filter_map(NodeReplacement::in_pool);
        let empty = shortfall::uncovered(ledger, &view.spot, known, self.deps.clock.now());
        let mut taken = BTreeSet::new();
        let mut writes = Vec::new();
        for since in empty.into_iter().take(wanted) {
            let mut names = shortfall::names(pool, since);
            let Some(name) = names.find(|name| !records.contains_key(name) && !taken.contains(name)) else {
                continue;
            };
            let status = self.begun(pool, since, &view.spot);
            writes.push(opened(&name, pool, (Some(EmptyPlace { since }), None), status));
            taken.insert(name);
        }
        writes
    }

    /// The first status of a stand-in.
    pub(super) fn begun(
        &self,
        pool: &PoolName,
        empty_since: Timestamp,
        spot: &GroupView,
    ) -> ReplacementStatus {
        let status = shortfall::open(empty_since, spot, self.deps.clock.now());
        ReplacementStatus { utilisation_before: Some(self.utilisation(pool)), ..status }
    }
}

/// A new record that has no old node: it is about a place, or about an adopted instance.
fn opened(
    name: &ReplacementName,
    pool: &PoolName,
    (place, adopted): (Option<EmptyPlace>, Option<AdoptedInstance>),
    status: ReplacementStatus,
) -> Write {
    let (node_name, instance_id) = (NodeName::default(), InstanceId::default());
    let spec = NodeReplacementSpec { pool: Some(pool.clone()), node_name, instance_id, place, adopted };
    let mut record = NodeReplacement::new(name, spec);
    record.status = Some(status);
    Write::Create(record)
}
