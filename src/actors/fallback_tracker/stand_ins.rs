//! Records that no interruption notice asks for are opened here: stand-ins for Spot capacity that is missing,
//! or that a recommendation endangers, and on-demand instances above the baseline that are adopted.

use super::known::{Accepted, PoolFacts};
use super::store::Write;
use super::turn_view::TurnView;
use crate::actors::deps::PoolConfig;
use crate::crd::{AdoptedInstance, EmptyPlace, InterruptionNotice, NodeReplacement, NodeReplacementSpec};
use jiff::Timestamp;
use kube::ResourceExt;
use spot_guard_core::adoption::{self, Adopted};
use spot_guard_core::baseline::may_adopt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::group::{GroupView, PoolView};
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::limits::returns_at_most;
use spot_guard_core::record::{NoticeKind, ReplacedBy, ReplacementStatus};
use spot_guard_core::replacement::{Mode, RebalanceMode};
use spot_guard_core::shortfall::{self, OwnRecord};
use spot_guard_core::stand_ins::{self, Advice, OnAdvice};
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
        let of_pool = records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let beside = of_pool.clone().filter_map(NodeReplacement::beside_adoption);
        let has_room = of_pool.clone().all(|record| record.status.is_some())
            && adoption::has_room(ledger, beside, returns_at_most(&config.policy, view));
        let baseline = config.on_demand.baseline;
        if !has_room || may_adopt(ledger, &view.on_demand, &id, baseline) != Some(true) {
            return None;
        }
        // One that cannot be read and adopts the same instance has claimed it in the ledger.
        let is_new =
            |name: &ReplacementName| !records.contains_key(name) && !self.deps.view.may_hide_record(name);
        let name = adoption::names(pool, &id).find(is_new)?;
        let status = self.adopted(pool, &adopted, &view.spot);
        Some(opened(&name, pool, (None, Some(adopted.into())), status))
    }

    /// The first status of an adopted instance. The pool counts as full as before the others that are under
    /// way: what Spot has brought for them is in it by now.
    pub(super) fn adopted(&self, pool: &PoolName, adopted: &Adopted, spot: &GroupView) -> ReplacementStatus {
        let status = adoption::open(adopted, spot, self.deps.clock.now());
        let of_pool = self.records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let beside = adoption::utilisation(of_pool.filter_map(|record| record.beside_adoption()));
        let utilisation = beside.unwrap_or_else(|| self.utilisation(pool));
        ReplacementStatus { utilisation_before: Some(utilisation), ..status }
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

    /// The record of a stand-in on advice, if a launch of the Spot group has failed since the notice.
    pub(super) fn on_advice(
        &self,
        held: &Accepted,
        name: &ReplacementName,
        pool: &PoolName,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
    ) -> Option<NodeReplacement> {
        let spec = &held.notice.spec;
        let (config, view, _) =
            self.may_begin(pool).filter(|_| spec.kind == NoticeKind::RebalanceRecommendation)?;
        let of_pool = records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let known: Vec<OwnRecord<'_>> = of_pool.filter_map(NodeReplacement::in_pool).collect();
        let now = self.deps.clock.now();
        let failed_at = stand_ins::advised(&Advice {
            ignored: config.rebalance == RebalanceMode::Ignore,
            cover: config.cover,
            spec: &config.shortfall,
            policy: &config.policy,
            view,
            known: &known,
            starts: &self.starts(Some(pool)),
            instance_id: &spec.instance_id,
            noticed_at: held.notice.creation_timestamp()?.0,
            node_created: self.snapshot.node(&spec.node_name).and_then(|node| node.created),
            now,
        })?;
        let mut record = self.fresh_record(held, name, Some(pool));
        let fresh = record.status.take()?;
        record.status = Some(stand_ins::open_on_advice(fresh, &spec.node_name, failed_at, view, now));
        Some(record)
    }

    /// The first status of a record whose process died before it was written: without a deadline, a record in
    /// such a pool was opened because a launch had failed.
    pub(super) fn as_stand_in_on_advice(
        &self,
        record: &NodeReplacement,
        deadline: Option<Timestamp>,
        fresh: ReplacementStatus,
    ) -> ReplacementStatus {
        let pool = record.spec.pool.as_ref().filter(|_| deadline.is_none());
        let by_group = |pool: &&PoolName| self.replacer(pool) == Some(ReplacedBy::Group);
        let Some(view) = pool.filter(by_group).and_then(|pool| self.view(pool)) else { return fresh };
        let now = self.deps.clock.now();
        stand_ins::open_on_advice(fresh, &record.spec.node_name, now, view, now)
    }

    /// Whether a recommendation stands that a failed launch of the Spot group begins a stand-in for.
    pub(super) fn awaits_failed_launch(&self, pool: &PoolName) -> bool {
        let covers = self.configs.get(pool).is_some_and(|config| config.cover.on_advice == OnAdvice::Failure);
        let Some(view) = self.view(pool).filter(|_| covers) else { return false };
        let stands = |notice: &InterruptionNotice| {
            let spec = &notice.spec;
            spec.kind == NoticeKind::RebalanceRecommendation && view.spot.is_active(&spec.instance_id)
        };
        self.replacer(pool) == Some(ReplacedBy::Group)
            && self.deps.view.notices.state().iter().any(|notice| stands(notice))
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
