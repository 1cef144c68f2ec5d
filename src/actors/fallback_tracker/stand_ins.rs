//! Stand-ins for Spot capacity that is missing without an interruption notice: their records are opened here.

use super::known::PoolFacts;
use super::store::Write;
use super::turn_view::TurnView;
use crate::crd::{EmptyPlace, NodeReplacement, NodeReplacementSpec};
use jiff::Timestamp;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::group::GroupView;
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement::Mode;
use spot_guard_core::shortfall;
use std::collections::{BTreeMap, BTreeSet};

impl TurnView<'_> {
    /// The records of the stand-ins that begin: so many as are wanted, and as are still missing.
    pub(super) fn stand_in(
        &self,
        pool: &PoolName,
        wanted: usize,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
    ) -> Vec<Write> {
        let facts = (self.configs.get(pool), self.pools.get(pool));
        let (Some(config), Some(PoolFacts::Observed { view, ledger, .. })) = facts else { return Vec::new() };
        // A record that cannot be read may be that of a stand-in.
        let unread = self.deps.view.not_understood().names(WatchedKind::Replacement).next().is_some();
        if unread
            || config.deleted
            || config.mode != Mode::Act
            || config.pause.is_some()
            || !self.is_accepted(pool)
        {
            return Vec::new();
        }
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
            let mut record = NodeReplacement::new(
                &name,
                NodeReplacementSpec {
                    pool: Some(pool.clone()),
                    node_name: NodeName::default(),
                    instance_id: InstanceId::default(),
                    place: Some(EmptyPlace { since }),
                },
            );
            record.status = Some(self.begun(pool, since, &view.spot));
            taken.insert(name);
            writes.push(Write::Create(record));
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
