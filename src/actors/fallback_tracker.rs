//! Boxes 6 (tracking) and 11 (removal), and the thread of every story: owns the NodeReplacements.
//!
//! Hears [`PoolObserved`] from the AsgScaler, [`DrainsReported`] from the Drainer, [`PoolAssessed`] from the
//! HealthMonitor, and the notices from the watch. Feeds them into [`crate::core::replacement`], stores the
//! records, and only then tells the AsgScaler [`ScaleGroups`] and the Drainer [`DrainNodes`]: always the
//! complete picture, so that a lost message costs one turn and nothing else.

use crate::actors::asg_scaler::{AsgScaler, PoolObserved, ScaleGroups};
use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::drainer::{DrainNodes, Drainer, DrainsReported};
use crate::actors::health_monitor::PoolAssessed;
use crate::actors::supervision::{Link, answers_ping};
use crate::core::cluster::{Node, Pod, Snapshot};
use crate::core::drain;
use crate::core::placement::{self, ExcludedNodes, PlacementOptions};
use crate::core::policy::Policy;
use crate::core::record::{GroupKind, UtilisationPercent, set_condition};
use crate::core::replacement::{
    self, Commands, DrainPurpose, DrainReport, Facts, Mode, NodeFact, RebalanceMode, ReturnAssessment,
    Subject,
};
use crate::core::safety::{self, SafetyPolicy};
use crate::core::scaling::{InstanceFacts, Ledger, PoolView, Want};
use crate::crd::{InterruptionNotice, InterruptionNoticeStatus, NodeReplacement, NodeReplacementSpec};
use crate::telemetry::tracing::box_span;
use actix::prelude::*;
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Time alone moves a story too (timeouts, retries): how often the records are gone through.
const TURN: Duration = Duration::from_secs(1);
/// How many records are written at the same time.
const PARALLEL_WRITES: usize = 8;

/// Go through the records.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// The writes of a turn ended: the records as they are stored now.
#[derive(Message)]
#[rtype(result = "()")]
struct TurnEnded {
    stored: Vec<NodeReplacement>,
    failed: bool,
}

struct PoolFacts {
    view: Arc<PoolView>,
    ledger: Arc<Ledger>,
}

/// The actor.
pub struct FallbackTracker {
    deps: Deps,
    scaler: Link<AsgScaler>,
    drainer: Link<Drainer>,
    pools: BTreeMap<String, PoolFacts>,
    drains: BTreeMap<(String, DrainPurpose), DrainReport>,
    assessments: BTreeMap<String, ReturnAssessment>,
    /// The records as this actor stored them last: newer than the watch.
    records: BTreeMap<String, NodeReplacement>,
    busy: bool,
    again: bool,
}

impl FallbackTracker {
    /// A tracker that has read nothing yet.
    #[must_use]
    pub fn new(deps: Deps, scaler: Link<AsgScaler>, drainer: Link<Drainer>) -> Self {
        Self {
            deps,
            scaler,
            drainer,
            pools: BTreeMap::new(),
            drains: BTreeMap::new(),
            assessments: BTreeMap::new(),
            records: BTreeMap::new(),
            busy: false,
            again: false,
        }
    }

    /// Takes in what the watch knows: records that are gone, and records that this life has not seen.
    fn merge_watch(&mut self) {
        let seen = self.deps.view.replacements.state();
        let names: BTreeSet<String> = seen.iter().map(|record| record.name_any()).collect();
        self.records.retain(|name, record| {
            names.contains(name) || record.status.as_ref().is_none_or(|s| !s.phase.is_finished())
        });
        for record in seen {
            let newer =
                self.records.get(&record.name_any()).is_none_or(|held| version(&record) > version(held));
            if newer {
                self.records.insert(record.name_any(), (*record).clone());
            }
        }
    }
}

/// Resource versions are decimal numbers that grow (KEP-5504, comparable resource versions).
fn version(record: &NodeReplacement) -> u64 {
    record.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Actor for FallbackTracker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Turn);
        ctx.run_interval(TURN, |actor, ctx| {
            let open = actor.records.values().any(is_open);
            if open {
                ctx.notify(Turn);
            }
        });
        let changes = self.deps.view.subscribe();
        let stream = futures::stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            Some((Turn, changes))
        });
        ctx.add_message_stream(stream);
    }
}

fn is_open(record: &NodeReplacement) -> bool {
    record.status.as_ref().is_none_or(|status| !status.phase.is_finished())
}

impl Handler<PoolObserved> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolObserved, ctx: &mut Self::Context) {
        self.pools.insert(message.pool, PoolFacts { view: message.view, ledger: message.ledger });
        ctx.notify(Turn);
    }
}

impl Handler<DrainsReported> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: DrainsReported, ctx: &mut Self::Context) {
        if self.drains != message.reports {
            self.drains = message.reports;
            ctx.notify(Turn);
        }
    }
}

impl Handler<PoolAssessed> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolAssessed, ctx: &mut Self::Context) {
        for (name, assessment) in message.assessment.returns {
            self.assessments.insert(name, assessment);
        }
        ctx.notify(Turn);
    }
}

impl Handler<Turn> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        if self.busy {
            self.again = true;
            return;
        }
        self.merge_watch();
        let world = World::new(&self.deps, &self.pools, &self.drains, &self.assessments);
        let mut writes: Vec<Write> = world.open_stories(&self.records, &self.deps.view.notices.state());
        for record in self.records.values().filter(|record| is_open(record)) {
            if let Some(write) = world.advance(record) {
                writes.push(write);
            }
        }
        if writes.is_empty() {
            self.tell();
            return;
        }
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        self.busy = true;
        let deps = self.deps.clone();
        let stored = async move {
            let results: Vec<_> = futures::stream::iter(writes)
                .map(|write| store(&deps, write))
                .buffer_unordered(PARALLEL_WRITES)
                .collect()
                .await;
            let failed = results.iter().any(Option::is_none);
            TurnEnded { stored: results.into_iter().flatten().flatten().collect(), failed }
        };
        ctx.spawn(stored.into_actor(self).map(|ended, _, ctx| ctx.notify(ended)));
    }
}

impl Handler<TurnEnded> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, TurnEnded { stored, failed }: TurnEnded, ctx: &mut Self::Context) {
        self.busy = false;
        for record in stored {
            let name = record.name_any();
            self.log_steps(self.records.get(&name), &record);
            if !is_open(&record) {
                self.assessments.remove(&name);
            }
            self.records.insert(name, record);
        }
        self.tell();
        if std::mem::take(&mut self.again) && !failed {
            ctx.notify(Turn);
        } else if failed {
            ctx.notify_later(Turn, TURN);
        }
    }
}

answers_ping!(FallbackTracker);

impl FallbackTracker {
    /// Tells the AsgScaler and the Drainer what must hold for the stored records.
    fn tell(&self) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let world = World::new(&self.deps, &self.pools, &self.drains, &self.assessments);
        let busy = world.busy_instances();
        let mut by_pool: BTreeMap<String, ScaleGroups> = BTreeMap::new();
        for name in world.configs.keys() {
            let instances = InstanceFacts { busy: busy.clone(), ..InstanceFacts::default() };
            by_pool.insert(
                name.clone(),
                ScaleGroups { pool: name.clone(), instances, ..ScaleGroups::default() },
            );
        }
        let mut drains = Vec::new();
        for record in self.records.values().filter(|record| is_open(record)) {
            let commands = world.commands(record);
            drains.extend(commands.drains);
            let Some(wanted) = record.spec.pool.as_ref().and_then(|pool| by_pool.get_mut(pool)) else {
                continue;
            };
            wanted.wants.extend(commands.wants);
            wanted.ends.extend(commands.ends);
            wanted.instances.taken.extend(commands.taken);
        }
        for (name, wanted) in by_pool {
            let mut wanted = wanted;
            if let Some(facts) = self.pools.get(&name) {
                for kind in [GroupKind::Spot, GroupKind::OnDemand] {
                    for member in facts.ledger.members(kind) {
                        // Nobody's any more: its record was finished or deleted.
                        wanted.wants.entry((kind, member.replacement.clone())).or_insert(Want::Done);
                    }
                }
            }
            self.scaler.send(wanted);
        }
        self.drainer.send(DrainNodes { drains });
    }

    /// One log line and one span for each step that was stored.
    fn log_steps(&self, before: Option<&NodeReplacement>, after: &NodeReplacement) {
        let Some(status) = &after.status else { return };
        let known = before.and_then(|record| record.status.as_ref()).map_or(&[][..], |status| &status.steps);
        for step in status.steps.iter().filter(|step| !known.contains(step)) {
            let span = box_span(
                step.flow_box,
                &after.name_any(),
                &step.node,
                after.spec.pool.as_deref(),
                status.traceparent.as_deref(),
            );
            span.in_scope(|| tracing::info!(outcome = ?step.outcome, "{}", step.message));
        }
        self.deps.metrics.record_stored(before.and_then(|record| record.status.as_ref()), status);
    }
}

/// A write that must precede what follows from it.
enum Write {
    Create(NodeReplacement),
    Status(NodeReplacement),
    Refuse(Arc<InterruptionNotice>, String),
}

/// Stores; `None` if it must be tried again.
async fn store(deps: &Deps, write: Write) -> Option<Option<NodeReplacement>> {
    let api: Api<NodeReplacement> = Api::all(deps.client.clone());
    let outcome = match write {
        Write::Create(record) => match api.create(&PostParams::default(), &record).await {
            Ok(created) => {
                let mut full = record;
                full.metadata = created.metadata;
                api.replace_status(&full.name_any(), &PostParams::default(), &full).await.map(Some)
            }
            // Created in an earlier life, or by a former leader: it is read and carried on.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.get(&record.name_any()).await.map(Some)
            }
            Err(error) => Err(error),
        },
        Write::Status(record) => {
            match api.replace_status(&record.name_any(), &PostParams::default(), &record).await {
                Err(kube::Error::Api(status)) if status.code == 409 => api.get_opt(&record.name_any()).await,
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                other => other.map(Some),
            }
        }
        Write::Refuse(notice, reason) => {
            let api: Api<InterruptionNotice> = Api::all(deps.client.clone());
            let mut status = InterruptionNoticeStatus::default();
            set_condition(&mut status.conditions, "Accepted", false, "Refused", &reason, deps.clock.now());
            tracing::warn!(notice = notice.name_any(), reason, "the notice is refused");
            let patch = serde_json::json!({ "status": status });
            api.patch_status(&notice.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .map(|_| None)
        }
    };
    outcome
        .inspect_err(|error| tracing::warn!(%error, "a record could not be stored; it is tried again"))
        .ok()
}

/// Everything that this actor knows, as the core asks for it.
struct World<'a> {
    deps: &'a Deps,
    snapshot: Arc<Snapshot>,
    by_instance: BTreeMap<String, usize>,
    configs: BTreeMap<String, PoolConfig>,
    pools: &'a BTreeMap<String, PoolFacts>,
    drains: &'a BTreeMap<(String, DrainPurpose), DrainReport>,
    assessments: &'a BTreeMap<String, ReturnAssessment>,
    no_pool: Policy,
    no_ledger: Ledger,
}

impl<'a> World<'a> {
    fn new(
        deps: &'a Deps,
        pools: &'a BTreeMap<String, PoolFacts>,
        drains: &'a BTreeMap<(String, DrainPurpose), DrainReport>,
        assessments: &'a BTreeMap<String, ReturnAssessment>,
    ) -> Self {
        let snapshot = deps.view.snapshot();
        let by_instance = snapshot
            .nodes()
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((instance_of(node)?.to_owned(), index)))
            .collect();
        Self {
            deps,
            snapshot,
            by_instance,
            configs: deps.pools(),
            pools,
            drains,
            assessments,
            no_pool: deps.defaults.clone(),
            no_ledger: Ledger::default(),
        }
    }

    fn node_of(&self, instance_id: &str) -> Option<NodeFact> {
        let node = &self.snapshot.nodes()[*self.by_instance.get(instance_id)?];
        Some(self.fact(node))
    }

    fn fact(&self, node: &Node) -> NodeFact {
        let busy = self.snapshot.pods_on(&node.name).any(drain::must_move);
        let volumes =
            self.snapshot.pods_on(&node.name).any(|pod| drain::must_move(pod) && !pod.spec.claims.is_empty());
        let volume_zone = volumes.then(|| node.zone.to_string()).filter(|zone| !zone.is_empty());
        NodeFact { name: node.name.to_string(), ready: node.ready, busy, volume_zone }
    }

    fn busy_instances(&self) -> BTreeSet<String> {
        self.by_instance
            .iter()
            .filter(|(_, index)| self.fact(&self.snapshot.nodes()[**index]).busy)
            .map(|(instance, _)| instance.clone())
            .collect()
    }

    /// The records that notices ask for: new stories, refused notices. Escalations come with [`Self::advance`].
    fn open_stories(
        &self,
        records: &BTreeMap<String, NodeReplacement>,
        notices: &[Arc<InterruptionNotice>],
    ) -> Vec<Write> {
        let mut writes = BTreeMap::new();
        let mut sorted: Vec<_> = notices.to_vec();
        sorted.sort_by_key(|notice| (notice.spec.deadline.is_none(), notice.spec.detected_at));
        for notice in sorted {
            let instance = &notice.spec.instance_id;
            if records.contains_key(instance) || writes.contains_key(instance) {
                continue;
            }
            if notice.status.as_ref().is_some_and(|status| !status.conditions.is_empty()) {
                continue;
            }
            if let Some(write) = self.open_story(&notice) {
                writes.insert(instance.clone(), write);
            }
        }
        writes.into_values().collect()
    }

    fn open_story(&self, notice: &Arc<InterruptionNotice>) -> Option<Write> {
        // Before every pool was read once, nobody knows whose instance it is.
        if self.configs.keys().any(|name| !self.pools.contains_key(name)) {
            return None;
        }
        let spec = &notice.spec;
        let pool = self.pool_of(&spec.instance_id);
        let refuse = |reason: String| Some(Write::Refuse(notice.clone(), reason));
        match self.snapshot.node(&spec.node_name) {
            Some(node) if instance_of(node) != Some(spec.instance_id.as_str()) => {
                return refuse(format!(
                    "spec.instanceId {} is not the instance of node {} (its spec.providerID is {:?})",
                    spec.instance_id, spec.node_name, &*node.provider_id
                ));
            }
            Some(_) => {}
            None if pool.is_none() => {
                return refuse(format!(
                    "there is no node {} and no pool with {}",
                    spec.node_name, spec.instance_id
                ));
            }
            None => {}
        }
        let subject = Subject {
            name: spec.instance_id.clone(),
            node: spec.node_name.clone(),
            instance_id: spec.instance_id.clone(),
            in_pool: pool.is_some(),
        };
        let utilisation = pool.as_ref().map(|pool| self.utilisation(pool));
        let status = replacement::open(
            &subject,
            spec.kind,
            spec.deadline,
            utilisation,
            spec.traceparent.clone(),
            self.deps.clock.now(),
        );
        let mut record = NodeReplacement::new(
            &subject.name,
            NodeReplacementSpec {
                pool,
                node_name: subject.node.clone(),
                instance_id: subject.instance_id.clone(),
            },
        );
        record.status = Some(status);
        Some(Write::Create(record))
    }

    fn pool_of(&self, instance_id: &str) -> Option<String> {
        self.pools
            .iter()
            .find(|(_, facts)| facts.view.spot.instance(instance_id).is_some())
            .map(|(name, _)| name.clone())
    }

    /// The record's next state, if it differs.
    fn advance(&self, record: &NodeReplacement) -> Option<Write> {
        let subject = subject(record);
        let now = self.deps.clock.now();
        let mut status = record.status.clone().unwrap_or_default();
        let notices = self.deps.view.notices.state();
        let own = notices.iter().filter(|notice| notice.spec.instance_id == subject.instance_id);
        for notice in own {
            if status.started_at.is_none() {
                // The process died between the record and its first status.
                let pool = record.spec.pool.as_deref();
                if pool.is_some_and(|pool| !self.pools.contains_key(pool)) {
                    return None;
                }
                let spec = &notice.spec;
                status = replacement::open(
                    &subject,
                    spec.kind,
                    spec.deadline,
                    pool.map(|pool| self.utilisation(pool)),
                    spec.traceparent.clone(),
                    now,
                );
            }
            replacement::escalate(&mut status, &subject, notice.spec.kind, notice.spec.deadline, now);
        }
        let next = self.with_facts(record, |facts| replacement::advance(&subject, &status, facts));
        if Some(&next) == record.status.as_ref() {
            return None;
        }
        let mut changed = record.clone();
        changed.status = Some(next);
        Some(Write::Status(changed))
    }

    fn commands(&self, record: &NodeReplacement) -> Commands {
        let Some(status) = &record.status else { return Commands::default() };
        self.with_facts(record, |facts| replacement::commands(&subject(record), status, facts.mode, facts))
    }

    fn with_facts<T>(&self, record: &NodeReplacement, decide: impl FnOnce(&Facts<'_>) -> T) -> T {
        let name = record.name_any();
        let config = record.spec.pool.as_ref().and_then(|pool| self.configs.get(pool));
        let pool = record.spec.pool.as_ref().and_then(|pool| self.pools.get(pool));
        let node_of = |id: &str| self.node_of(id);
        let misfit_with = |new_node: &str| self.misfit(&record.spec.node_name, new_node);
        let old_node = self.snapshot.node(&record.spec.node_name).map(|node| self.fact(node));
        let drain = |purpose| self.drains.get(&(name.clone(), purpose));
        decide(&Facts {
            now: self.deps.clock.now(),
            policy: config.map_or(&self.no_pool, |config| &config.policy),
            mode: config.map_or(Mode::DrainOnly, |config| config.mode),
            rebalance: config.map_or(RebalanceMode::Replace, |config| config.rebalance),
            paused: config.is_some_and(|config| config.paused),
            view: pool.map(|pool| &*pool.view),
            ledger: pool.map_or(&self.no_ledger, |pool| &pool.ledger),
            old_node: old_node.as_ref(),
            node_of: &node_of,
            misfit_with: &misfit_with,
            drain: drain(DrainPurpose::Replace),
            return_drain: drain(DrainPurpose::Return),
            assessment: self.assessments.get(&name),
        })
    }

    /// How full the pool's nodes are.
    fn utilisation(&self, pool: &str) -> UtilisationPercent {
        let Some(facts) = self.pools.get(pool) else { return UtilisationPercent::default() };
        let members = facts.view.spot.instances.iter().chain(&facts.view.on_demand.instances);
        let nodes: BTreeSet<Arc<str>> = members
            .filter_map(|instance| self.by_instance.get(&instance.id))
            .map(|index| self.snapshot.nodes()[*index].name.clone())
            .collect();
        safety::pool_utilisation(&nodes, &self.snapshot, &SafetyPolicy::default()).into()
    }

    /// What keeps the pods of `old` from fitting on the cluster with `new` counted and `old` not.
    fn misfit(&self, old: &str, new: &str) -> Vec<String> {
        let Some(new_node) = self.snapshot.node(new) else { return vec![format!("node {new} is not there")] };
        let pods: Vec<&Pod> = self.snapshot.pods_on(old).filter(|pod| drain::must_move(pod)).collect();
        let excluded = ExcludedNodes::default().and(old);
        let placement =
            placement::can_take(&pods, new_node, &self.snapshot, &excluded, &PlacementOptions::default());
        placement
            .unplaced
            .iter()
            .map(|unplaced| format!("pod {} fits nowhere yet: {}", unplaced.pod, unplaced.reasons))
            .collect()
    }
}

fn subject(record: &NodeReplacement) -> Subject {
    Subject {
        name: record.name_any(),
        node: record.spec.node_name.clone(),
        instance_id: record.spec.instance_id.clone(),
        in_pool: record.spec.pool.is_some(),
    }
}

/// The instance id in a node's providerID, `aws:///<zone>/<id>`.
pub(crate) fn instance_of(node: &Node) -> Option<&str> {
    let id = node.provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
    id.starts_with("i-").then_some(id)
}
