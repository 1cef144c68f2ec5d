//! Everything that the FallbackTracker knows, as [`spot_guard_core::replacement`] asks for it.

use super::fits::{Around, FitQuestion, Fits};
use super::known::{Accepted, Known, PoolFacts, Reading};
use super::store::Write;
use crate::actors::deps::{Deps, PoolConfig};
use crate::crd::{GroupStatus, NodeReplacement};
use crate::kube::marks;
use crate::telemetry::metrics::{BoundedCheck, Spent};
use spot_guard_core::cluster::{Node, Snapshot};
use spot_guard_core::drain;
use spot_guard_core::freshness::Freshness;
use spot_guard_core::group::{GroupView, PoolView};
use spot_guard_core::ids::{InstanceId, NodeName, NodeUid, PoolName, ReplacementName};
use spot_guard_core::ledger::{Ledger, Share};
use spot_guard_core::limits::{self, Starts};
use spot_guard_core::neighbours;
use spot_guard_core::notices;
use spot_guard_core::placement::PlacementOptions;
use spot_guard_core::policy::Policy;
use spot_guard_core::preflight;
use spot_guard_core::reason::{Blocker, Reason};
use spot_guard_core::record::{
    FallbackState, GroupKind, OldNodeState, ReplacedBy, ReplacementStatus, UtilisationPercent,
};
use spot_guard_core::replacement::{
    self, Commands, DrainPurpose, DrainReport, Facts, Fit, Mode, NodeFact, Queue, RebalanceMode,
    ReturnAssessment, Subject,
};
use spot_guard_core::safety::{self, Drains, SafetyPolicy};
use spot_guard_core::scaling::instances::keeps_start_up_taint;
use spot_guard_core::spot_action::RequestedAction;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that this actor knows, as the core asks for it.
pub(super) struct TurnView<'a> {
    pub(super) deps: &'a Deps,
    /// Which watches showed an old picture before the snapshot was taken.
    pub(super) freshness: &'a Freshness,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) configs: &'a BTreeMap<PoolName, PoolConfig>,
    pub(super) pools: &'a BTreeMap<PoolName, PoolFacts>,
    pub(super) records: &'a BTreeMap<ReplacementName, NodeReplacement>,
    drains: &'a BTreeMap<(ReplacementName, DrainPurpose), DrainReport>,
    assessments: &'a BTreeMap<ReplacementName, ReturnAssessment>,
    /// Why each pool is not acted on; empty: it is.
    refused: BTreeMap<PoolName, Vec<Reason>>,
    /// How many replacements of each pool move their node now.
    under_way: BTreeMap<PoolName, usize>,
    fits: &'a Fits,
    no_pool: Policy,
    no_ledger: Ledger,
    /// Nodes that are being drained, or are about to be: their pods take room, too.
    moving: BTreeSet<NodeName>,
    /// The notices that are believed, by instance.
    pub(super) accepted: BTreeMap<InstanceId, Vec<Accepted>>,
    /// The SpotActions that open records have to take in, by record.
    pub(super) asked: BTreeMap<ReplacementName, Vec<RequestedAction>>,
}

impl<'a> TurnView<'a> {
    pub(super) fn new(deps: &'a Deps, reading: &'a Reading, known: &'a Known, fits: &'a Fits) -> Self {
        let Known { records, pools, drains, assessments, found_empty: _ } = known;
        let Reading { freshness, snapshot, configs } = reading;
        let mut under_way = BTreeMap::new();
        for record in records.values() {
            let moves =
                record.status.as_ref().is_some_and(|status| limits::is_under_way(status, deps.clock.now()));
            if let Some(pool) = record.spec.pool.as_ref().filter(|_| moves) {
                *under_way.entry(pool.clone()).or_insert(0) += 1;
            }
        }
        let refused =
            configs.keys().map(|name| (name.clone(), refusals(name, configs, pools.get(name)))).collect();
        Self {
            deps,
            freshness,
            snapshot,
            configs,
            refused,
            pools,
            drains,
            assessments,
            under_way,
            fits,
            no_pool: deps.outside_pools(),
            no_ledger: Ledger::default(),
            moving: moving(snapshot, records, drains),
            records,
            accepted: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// The node of an instance, judged beside the others of its pool.
    fn node_of(&self, instance_id: &InstanceId, pool: Option<&PoolView>) -> Option<NodeFact> {
        let node = self.snapshot.node_of_instance(instance_id)?;
        let tainted =
            pool.is_some_and(|view| keeps_start_up_taint(view, self.snapshot, &self.deps.taint_key, node));
        Some(NodeFact { tainted, ..self.fact(node) })
    }

    fn fact(&self, node: &Node) -> NodeFact {
        let (name, ready_changed) = (node.name.clone(), node.ready_changed);
        let has_pods = self.snapshot.pods_on(&node.name).any(drain::must_move);
        let volumes =
            self.snapshot.pods_on(&node.name).any(|pod| drain::must_move(pod) && !pod.spec.claims.is_empty());
        let volume_zone = volumes.then(|| node.zone.to_string()).filter(|zone| !zone.is_empty());
        NodeFact {
            name,
            ready: node.ready,
            cordoned: node.unschedulable,
            tainted: false,
            has_pods,
            volume_zone,
            created: node.created,
            ready_changed,
        }
    }

    /// The UID of the node of that name.
    pub(super) fn uid_of(&self, node: &NodeName) -> Option<NodeUid> {
        self.snapshot.node(node).map(|node| node.uid.clone()).filter(|uid| !uid.is_empty())
    }

    /// Before every pool was read once, nobody knows whose an instance is.
    pub(super) fn all_read(&self) -> bool {
        self.configs.keys().all(|name| self.pools.contains_key(name))
    }

    /// Whether the node may belong to a group that launched it after it was read last, as when AWS cannot be
    /// read: the next reading tells.
    pub(super) fn may_be_unread(&self, node: &Node) -> bool {
        let views = self.pools.values().filter_map(PoolFacts::view);
        notices::may_be_unread(node, views.map(|view| view.spot.observed_at))
    }

    /// The instances that are on their way out and whose nodes carry our marks. The marks stay, or the
    /// termination that the agent reports would look like somebody else's.
    pub(super) fn marked_and_leaving(&self, view: &PoolView) -> impl Iterator<Item = InstanceId> {
        let leaving = view.instances().filter(|held| held.lifecycle.is_leaving()).map(|held| &held.id);
        let is_marked = |id: &InstanceId| {
            self.snapshot.nodes_of_instance(id).any(|node| marks::are_set(node, &self.deps.taint_key))
        };
        leaving.filter(move |id| is_marked(id)).cloned()
    }

    /// The pool that owns what this tells of, if any does. A pool that was deleted owns nothing new.
    pub(super) fn owner_of(&self, has: impl Fn(&PoolName) -> bool) -> Option<PoolName> {
        let owns = |pool: &&PoolConfig| !pool.deleted && has(&pool.name);
        notices::owner_of(self.configs.values().filter(owns).map(PoolConfig::claim)).cloned()
    }

    /// A pool's groups, if they could be read.
    pub(super) fn view(&self, pool: &PoolName) -> Option<&PoolView> {
        self.pools.get(pool).and_then(PoolFacts::view)
    }

    /// The pool whose Spot group has the instance.
    pub(super) fn pool_of(&self, instance_id: &InstanceId) -> Option<PoolName> {
        self.owner_of(|pool| self.view(pool).is_some_and(|view| view.spot.instance(instance_id).is_some()))
    }

    /// The same by the Spot groups as an earlier life has read them.
    pub(super) fn pool_last_seen_with(&self, instance_id: &InstanceId) -> Option<PoolName> {
        self.owner_of(|pool| self.last_seen(pool).0.iter().any(|id| id == instance_id))
    }

    /// The pool whose on-demand group has the instance.
    pub(super) fn pool_standing_in_with(&self, instance_id: &InstanceId) -> Option<PoolName> {
        self.owner_of(|pool| self.last_seen(pool).1.contains(instance_id))
    }

    /// The instances of a pool's groups, Spot and on-demand, as they were read last.
    fn last_seen(&self, pool: &PoolName) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let ids = |group: &GroupView| group.instances.iter().map(|instance| instance.id.clone()).collect();
        if let Some(view) = self.pools.get(pool).and_then(PoolFacts::view) {
            return (ids(&view.spot), ids(&view.on_demand));
        }
        let stored = self.deps.view.pools.find(|held| held.metadata.name.as_deref() == Some(&**pool));
        let status = stored.and_then(|pool| pool.status.clone()).unwrap_or_default();
        let ids = |group: Option<GroupStatus>| group.map(|group| group.instances).unwrap_or_default();
        (ids(status.spot), ids(status.on_demand))
    }

    /// The record's next state, if it differs. A replacement that begins takes its place at once.
    pub(super) fn advance(&mut self, record: &NodeReplacement) -> Option<Write> {
        let subject = subject(record);
        let now = self.deps.clock.now();
        let mut status = record.status.clone().unwrap_or_default();
        if let (Some(place), Some(pool), None) = (&record.spec.place, &record.spec.pool, status.started_at) {
            // The process died between the record and its first status.
            status = self.begun(pool, place.since, &self.view(pool)?.spot);
        }
        if let (Some(held), Some(pool), None) = (&record.spec.adopted, &record.spec.pool, status.started_at) {
            status = self.adopted(pool, &held.into(), &self.view(pool)?.spot);
        }
        for held in self.notices_of(record) {
            let spec = &held.notice.spec;
            if status.started_at.is_none() {
                // The process died between the record and its first status.
                let pool = record.spec.pool.as_ref();
                let unread = pool.is_some_and(|pool| !self.pools.contains_key(pool));
                if unread && held.deadline.is_none() {
                    return None;
                }
                status = replacement::open(
                    &subject,
                    spec.kind,
                    held.deadline,
                    pool.map(|pool| self.utilisation(pool)),
                    spec.traceparent.clone(),
                    now,
                );
                status.node_uid = self.uid_of(&subject.node);
                status = self.as_stand_in_on_advice(record, held.deadline, status);
            }
            replacement::escalate(&mut status, &subject, spec.kind, held.deadline, now);
        }
        self.take_in_spot_actions(record, &subject, &mut status);
        let next = self.with_facts(record, |facts| replacement::advance(&subject, &status, facts));
        if matches!(*next.old_node, OldNodeState::Draining(_)) {
            self.moving.insert(subject.node.clone());
        }
        if let (FallbackState::Draining(_), Some(capacity)) = (&*next.fallback, next.capacity.taken()) {
            self.moving.insert(capacity.node_name.clone());
        }
        if let Some(pool) = &record.spec.pool
            && limits::is_under_way(&next, now)
            && !limits::is_under_way(&status, now)
        {
            *self.under_way.entry(pool.clone()).or_default() += 1;
        }
        if Some(&next) == record.status.as_ref() {
            return None;
        }
        let mut changed = record.clone();
        changed.status = Some(next);
        Some(Write::Status(changed))
    }

    pub(super) fn commands(&self, record: &NodeReplacement) -> Commands {
        let Some(status) = &record.status else { return Commands::default() };
        self.with_facts(record, |facts| replacement::commands(&subject(record), status, facts))
    }

    /// What else it depends on whether the pods of the record's node fit once `new` is taken.
    fn around(&self, record: &NodeReplacement, new: &NodeName, policy: &Policy) -> Around {
        let others = self.moving.iter().filter(|node| **node != record.spec.node_name).cloned().collect();
        Around { others, spare: self.spare(record, new), options: PlacementOptions::of(policy) }
    }

    /// The idle on-demand nodes that go back: of other records, and of this one once it has taken `new`.
    fn spare(&self, record: &NodeReplacement, new: &NodeName) -> BTreeSet<NodeName> {
        let this = record.replacement_name();
        let node_of = |share: &Share| self.snapshot.node_of_instance(share.instance_id.as_ref()?);
        let goes_back = |ledger: &Ledger, share: &Share| {
            if share.replacement == this {
                let on_spot = ledger.share(GroupKind::Spot, &this).and_then(node_of);
                return on_spot.is_some_and(|node| node.name == *new);
            }
            let status = self.records.get(&share.replacement).and_then(|other| other.status.as_ref());
            status.is_some_and(|status| status.capacity.gives_on_demand_back())
        };
        let ledgers = self.pools.values().filter_map(PoolFacts::ledger);
        let shares =
            ledgers.flat_map(|ledger| ledger.shares(GroupKind::OnDemand).map(move |share| (ledger, share)));
        let spare = shares.filter(|(ledger, share)| goes_back(ledger, share));
        let nodes = spare.filter_map(|(_, share)| node_of(share));
        let idle = nodes.filter(|node| !self.snapshot.pods_on(&node.name).any(drain::must_move));
        idle.map(|node| node.name.clone()).collect()
    }

    /// What the record's next step has to know of these nodes.
    pub(super) fn questions(&self, record: &NodeReplacement, nodes: BTreeSet<NodeName>) -> Vec<FitQuestion> {
        let config = record.spec.pool.as_ref().and_then(|pool| self.configs.get(pool));
        let policy = config.map_or(&self.no_pool, |config| &config.policy);
        let old = &record.spec.node_name;
        let question = |new: NodeName| {
            let around = self.around(record, &new, policy);
            ((old.clone(), new), around)
        };
        nodes.into_iter().map(question).collect()
    }

    fn with_facts<T>(&self, record: &NodeReplacement, decide: impl FnOnce(&Facts<'_>) -> T) -> T {
        let name = record.replacement_name();
        let config = record.spec.pool.as_ref().and_then(|pool| self.configs.get(pool));
        let pool = record.spec.pool.as_ref().and_then(|pool| self.pools.get(pool));
        let node_of = |id: &InstanceId| self.node_of(id, pool.and_then(PoolFacts::view));
        let policy = config.map_or(&self.no_pool, |config| &config.policy);
        let old_node = old_node(self.snapshot, record);
        let fit_with = |new: &NodeName| match old_node {
            Some(old) => self.fits.fit(&old.name, new, self.snapshot, &self.around(record, new, policy)),
            // No pods are left to be placed; those of a later node of its name stay where they are.
            None => Fit::Fits,
        };
        let neighbour = old_node.and_then(neighbours::owner);
        let old_node = old_node.map(|node| self.fact(node));
        let other_holders = |id: &InstanceId, node: &NodeName| {
            let others = self.snapshot.nodes_of_instance(id).filter(|held| held.name != node);
            others.map(|held| held.name.clone()).collect()
        };
        let ended_by_other = |id: &InstanceId| {
            let mut others = self.records.iter().filter(|(other, _)| **other != name);
            let ends = |other: &NodeReplacement| {
                other.status.as_ref().is_some_and(|status| status.ends(&other.spec.instance_id, id))
            };
            others.find(|(_, other)| ends(other)).map(|(other, _)| other.clone())
        };
        let never_leave = || {
            let found = safety::budgets_that_never_open(&record.spec.node_name, self.snapshot, policy);
            found.into_iter().map(Reason::from).collect()
        };
        let refused = record.spec.pool.as_ref().map_or_else(Vec::new, |pool| {
            let known = self.refused.get(pool).cloned();
            known.unwrap_or_else(|| vec![Reason::NoSuchPool { pool: pool.clone() }])
        });
        let drain = |purpose| self.drains.get(&(name.clone(), purpose));
        let queue = self.queue(record);
        decide(&Facts {
            now: self.deps.clock.now(),
            policy,
            mode: config.map_or(Mode::DrainOnly, |config| config.mode),
            rebalance: config.map_or(RebalanceMode::Replace, |config| config.rebalance),
            taken_over: self.is_taken_over(record),
            replaced_by: record.spec.pool.as_ref().and_then(|pool| self.replacer(pool)),
            queue: &queue,
            starts: self.starts(record.spec.pool.as_ref()),
            freshness: self.freshness,
            refused: &refused,
            neighbour,
            view: pool.and_then(PoolFacts::view),
            baseline: config.and_then(|config| config.on_demand.baseline),
            ledger: pool.and_then(PoolFacts::ledger).unwrap_or(&self.no_ledger),
            withdrawn: pool.is_some_and(|facts| facts.has_withdrawn(&name)),
            old_node: old_node.as_ref(),
            other_holders: &other_holders,
            ended_by_other: &ended_by_other,
            never_leave: &never_leave,
            node_of: &node_of,
            fit_with: &fit_with,
            drain: drain(DrainPurpose::Replace),
            return_drain: drain(DrainPurpose::Return),
            assessment: self.assessment(record, policy).as_deref(),
        })
    }

    /// The latest assessment of the replacement's return, with what the budgets say now: another drain
    /// may have used them up since.
    fn assessment(&self, record: &NodeReplacement, policy: &Policy) -> Option<Cow<'a, ReturnAssessment>> {
        let found = self.assessments.get(&record.replacement_name())?;
        let status = record.status.as_ref().filter(|status| !status.fallback.is_returning());
        let Some(capacity) = status.and_then(|status| status.capacity.taken()) else {
            return Some(Cow::Borrowed(found));
        };
        let held = [&found.unhealthy, &found.unstable, &found.unsafe_];
        if held.iter().any(|reasons| !reasons.is_empty()) {
            // Nothing begins by it, so nothing that came since makes a difference.
            return Some(Cow::Borrowed(found));
        }
        let drains = Drains { taint_key: &self.deps.taint_key, nodes: &self.moving };
        let mut pods = safety::moving(&capacity.node_name, self.snapshot);
        let mut drained = safety::drained_beside(&capacity.node_name, self.snapshot, &drains);
        if pods.any(|pod| !found.pods.contains(&pod.uid)) || drained.any(|node| !found.drained.contains(node))
        {
            // Pods have come that need room, too: whether there is enough for all is to be found out.
            return None;
        }
        let shut = safety::shut_budgets(&capacity.node_name, self.snapshot, policy, &drains);
        if shut.is_empty() {
            return Some(Cow::Borrowed(found));
        }
        let given_up = shut.iter().filter(|held| matches!(held, Blocker::CheckTooLarge { .. })).count();
        self.deps.metrics.checks_given_up(BoundedCheck::ReturnBudgets, Spent::Work, given_up);
        let unsafe_ = shut.into_iter().map(Reason::from).collect();
        Some(Cow::Owned(ReturnAssessment { unsafe_, ..found.clone() }))
    }

    /// Whether the record was begun before its node said which instance it has, and another one goes on by
    /// now.
    fn is_taken_over(&self, record: &NodeReplacement) -> bool {
        let proven = self.records.get(record.spec.instance_id.as_str());
        proven.filter(|other| other.metadata.uid != record.metadata.uid).is_some_and(|other| {
            let now = self.deps.clock.now();
            let goes_on = other.status.as_ref().is_some_and(|status| notices::takes_over(status, now));
            other.spec.node_name == record.spec.node_name && goes_on
        })
    }

    /// Whether a pool's groups were read and may be acted on.
    pub(super) fn is_accepted(&self, pool: &PoolName) -> bool {
        self.refused.get(pool).is_some_and(Vec::is_empty)
    }

    /// Who replaces the Spot nodes of a pool, once its groups were read.
    pub(super) fn replacer(&self, pool: &PoolName) -> Option<ReplacedBy> {
        Some(self.configs.get(pool)?.replacer(self.view(pool)?))
    }

    /// Where the record stands among those that the Spot group of its pool serves by itself.
    fn queue(&self, record: &NodeReplacement) -> Queue {
        if !record.status.as_ref().is_some_and(ReplacementStatus::is_replaced_by_group) {
            return Queue::default();
        }
        let of_pool = self.records.iter().filter(|(_, held)| held.spec.pool == record.spec.pool);
        // An adopted instance stands in for nothing that the group lacks.
        let open = of_pool
            .filter(|(_, held)| held.is_open() && held.spec.adopted.is_none())
            .filter_map(|(name, held)| Some((name, &held.spec.instance_id, held.status.as_ref()?)));
        let view = record.spec.pool.as_ref().and_then(|pool| self.view(pool));
        replacement::queue(&record.replacement_name(), open, view)
    }

    /// What stands against beginning a replacement in the pool now.
    pub(super) fn starts(&self, pool: Option<&PoolName>) -> Starts {
        let Some((name, config)) = pool.and_then(|name| self.configs.get_key_value(name)) else {
            return Starts::default();
        };
        let view = self.pools.get(name).and_then(PoolFacts::view);
        let limit = limits::at_most(&config.policy, view);
        let under_way = self.under_way.get(name).copied().unwrap_or(0);
        Starts { pause: config.pause.clone(), full: (under_way >= limit).then_some(limit) }
    }

    /// How full the pool's nodes are.
    pub(super) fn utilisation(&self, pool: &PoolName) -> UtilisationPercent {
        let (spot, on_demand) = self.last_seen(pool);
        let found = spot.iter().chain(&on_demand).filter_map(|id| self.snapshot.node_of_instance(id));
        let nodes: BTreeSet<NodeName> = found.map(|node| node.name.clone()).collect();
        let policy = self.configs.get(pool).map_or(&self.no_pool, |config| &config.policy);
        safety::pool_utilisation(&nodes, self.snapshot, &SafetyPolicy::of(policy)).into()
    }
}

/// The old node of a record, while it exists: a later node of its name is another one.
fn old_node<'s>(snapshot: &'s Snapshot, record: &NodeReplacement) -> Option<&'s Node> {
    let uid = record.status.as_ref().and_then(|status| status.node_uid.as_ref());
    snapshot.node_on(&record.spec.node_name, &record.spec.instance_id, uid)
}

/// The node of the instance that a record has taken, while it exists.
fn stand_in<'s>(snapshot: &'s Snapshot, record: &NodeReplacement) -> Option<&'s Node> {
    let held = record.status.as_ref()?.capacity.taken()?;
    snapshot.node_on(&held.node_name, &held.instance_id, None)
}

/// The nodes that are being drained, or are about to be.
fn moving(
    snapshot: &Snapshot,
    records: &BTreeMap<ReplacementName, NodeReplacement>,
    drains: &BTreeMap<(ReplacementName, DrainPurpose), DrainReport>,
) -> BTreeSet<NodeName> {
    let drained = |(name, purpose): &(ReplacementName, DrainPurpose)| {
        let record = records.get(name)?;
        match purpose {
            DrainPurpose::Replace => old_node(snapshot, record),
            DrainPurpose::Return => stand_in(snapshot, record),
        }
    };
    let reported = drains.iter().filter(|(_, drain)| drain.end.is_none());
    let reported = reported.filter_map(|(key, _)| drained(key)).map(|node| node.name.clone());
    let is_draining = |record: &&NodeReplacement| {
        let status = record.status.as_ref().filter(|status| !status.is_finished());
        status.is_some_and(|status| matches!(*status.old_node, OldNodeState::Draining(_)))
    };
    let decided = records.values().filter(is_draining).filter_map(|record| old_node(snapshot, record));
    let goes_back = |record: &NodeReplacement| {
        let drains = matches!(*record.status.as_ref()?.fallback, FallbackState::Draining(_));
        stand_in(snapshot, record).filter(|_| drains)
    };
    let decided = decided.chain(records.values().filter_map(goes_back)).map(|node| node.name.clone());
    reported.chain(decided).collect()
}

/// Why a pool is not acted on.
fn refusals(name: &PoolName, all: &BTreeMap<PoolName, PoolConfig>, facts: Option<&PoolFacts>) -> Vec<Reason> {
    match (all.get(name), facts) {
        (Some(config), Some(PoolFacts::Observed { view, ledger, .. })) => {
            // A node of another scheme refuses nothing: its pool can be acted on.
            preflight::refusals(&config.findings(all, view, ledger, None))
        }
        (_, Some(PoolFacts::Refused(finding))) => vec![Reason::PoolRefused(finding.clone())],
        _ => Vec::new(),
    }
}

pub(super) fn subject(record: &NodeReplacement) -> Subject {
    Subject {
        name: record.replacement_name(),
        node: record.spec.node_name.clone(),
        instance_id: record.spec.instance_id.clone(),
        in_pool: record.spec.pool.is_some(),
        adopted: record.spec.adopted.is_some(),
    }
}
