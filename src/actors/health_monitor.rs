//! Assesses each pool every 30 s, for ever: healthy, stable, and which fallbacks are safe to drain.
//!
//! - Boxes: 7, 8, 9, 12
//! - Part of: 6 (the Spot group)
//! - Hears: [`PoolObserved`], [`PoolRefused`], [`QueueRead`]
//! - Sends: [`PoolAssessed`]
//! - Decided in: [`spot_guard_core::health`], [`spot_guard_core::safety`], [`spot_guard_core::limits`]
//!
//! What was found is written into the SpotPool's status, too.

mod adoptions;
mod assessment;
mod context;
mod shortfalls;
mod status;

use self::assessment::assess;
use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::messages::{PoolAssessed, PoolObserved, PoolRefused, QueueRead};
use crate::actors::supervision::{MessageLink, answers_ping};
use crate::crd::{InterruptionNotice, NodeReplacement, SpotPool};
use crate::kube::autoscaler;
use crate::kube::problem::RequestProblem;
use crate::telemetry::events::Told;
use crate::telemetry::metrics::{BoundedCheck, Spent};
use actix::prelude::*;
use jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use spot_guard_core::adoption::Adoption;
use spot_guard_core::agents::{self, WatchedNodes};
use spot_guard_core::freshness::{Freshness, Step};
use spot_guard_core::group::GroupView;
use spot_guard_core::health::{PoolAssessment, PoolReplacement};
use spot_guard_core::ids::{PoolName, ReplacementName};
use spot_guard_core::neighbours;
use spot_guard_core::placement::PodName;
use spot_guard_core::preflight;
use spot_guard_core::reason::{Finding, Pause, Reason, ReasonCode, in_one_line};
use spot_guard_core::record::{Condition, NoticeKind, ReplacedBy, set_condition};
use spot_guard_core::savings::{NodeAccount, NodeCounts};
use spot_guard_core::shortfall::{ModeInForce, Shortfall, ShortfallMode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the pools are looked at for one whose assessment is due.
const TURN: Duration = Duration::from_secs(1);

/// So long after its last reading the notice queue counts as read. A reading takes 20 s at most, and a new
/// leader needs its time.
const READ_FOR: Duration = Duration::from_secs(60);

/// What is not to wait for the next assessment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Urgent {
    /// A person has paused the pool.
    pause: Option<Pause>,
    /// When a person last asked for a return.
    return_asked: Option<Timestamp>,
    /// Which watches show an old picture.
    freshness: Freshness,
    /// Whether Spot instances are missing without a notice.
    short: bool,
    /// The fallbacks whose nodes are drained: once one more is, the next one may begin.
    returning: Vec<ReplacementName>,
}

/// What an assessment found.
struct Found {
    /// Boxes 7 to 9.
    assessment: PoolAssessment,
    /// What stands in for Spot capacity that is missing without a notice.
    shortfall: Shortfall,
    /// The mode of that which is in force.
    in_force: ModeInForce,
    /// What becomes of on-demand above the baseline.
    adoption: Adoption,
}

impl Found {
    /// What keeps the pool from having all that it wants on Spot.
    fn not_on_spot(&self) -> Vec<Reason> {
        let instances = self.assessment.returns.len();
        let fallback = (instances > 0).then_some(Reason::OnFallback { instances });
        fallback.into_iter().chain(self.adoption.held.iter().cloned()).collect()
    }
}

/// Assess the pools that are due.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// The actor.
pub struct HealthMonitor {
    deps: Deps,
    assessed: MessageLink<PoolAssessed>,
    observed: BTreeMap<PoolName, PoolObserved>,
    due: BTreeMap<PoolName, Instant>,
    /// Pools whose assessment is under way.
    under_way: BTreeSet<PoolName>,
    /// What each pool was assessed by last.
    urgent: BTreeMap<PoolName, Urgent>,
    /// The statuses as they were written last.
    written: BTreeMap<PoolName, serde_json::Value>,
    /// The findings that were told of each pool.
    told: BTreeMap<PoolName, BTreeSet<Finding>>,
    /// When the notice queue was read last.
    queue_read: Option<Instant>,
    /// Whether a cluster-autoscaler leads, as far as is known.
    autoscaler_leads: Option<bool>,
    /// When that is looked for again; none while it is being looked for.
    autoscaler_due: Option<Instant>,
}

impl HealthMonitor {
    /// A monitor that has seen nothing yet.
    #[must_use]
    pub fn new(deps: Deps, assessed: MessageLink<PoolAssessed>) -> Self {
        let (observed, due, under_way, urgent, written, told) = Default::default();
        let (queue_read, autoscaler_leads, autoscaler_due) = (None, None, Some(Instant::now()));
        Self {
            deps,
            assessed,
            observed,
            due,
            under_way,
            urgent,
            written,
            told,
            queue_read,
            autoscaler_leads,
            autoscaler_due,
        }
    }

    /// The pool as it is stored.
    fn stored(&self, pool: &PoolName) -> Option<Arc<SpotPool>> {
        self.deps.view.pools.find(|held| held.metadata.name.as_deref() == Some(&**pool))
    }

    /// The conditions that the pool has now, and the generation of its spec.
    fn conditions(&self, pool: &PoolName) -> (Vec<Condition>, Option<i64>) {
        let found = self.stored(pool);
        let generation = found.as_ref().and_then(|pool| pool.metadata.generation);
        let conditions = found.and_then(|pool| Some(pool.status.as_ref()?.conditions.clone()));
        (conditions.unwrap_or_default(), generation)
    }

    /// Looks whether a cluster-autoscaler leads, if that decides the mode of a pool.
    fn look_for_autoscaler(&mut self, pools: &BTreeMap<PoolName, PoolConfig>, ctx: &mut Context<Self>) {
        let mut pools = pools.values();
        let decides = pools.any(|pool| pool.shortfall.mode_said(pool.mode).is_none());
        if !decides || self.autoscaler_due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.autoscaler_due = None;
        let (client, lease) = (self.deps.client.clone(), self.deps.autoscaler_lease.clone());
        let now = self.deps.clock.now();
        let look = async move { autoscaler::leads(client, &lease, now).await };
        ctx.spawn(look.into_actor(self).map(|leads, actor, _| {
            actor.autoscaler_leads = leads;
            actor.autoscaler_due = Some(Instant::now() + shortfalls::LOOK);
        }));
    }

    /// Says in the pool's status what was found.
    fn publish(
        &mut self,
        observed: &PoolObserved,
        all: &Found,
        (replaced_by, findings, pace): (ReplacedBy, &[Finding], Duration),
        Urgent { pause, freshness, .. }: &Urgent,
        other: Option<PodName>,
        ctx: &mut Context<Self>,
    ) {
        let Found { assessment: found, shortfall, in_force, adoption } = all;
        let pool = &observed.pool;
        let (mut conditions, generation) = self.conditions(pool);
        let now = self.deps.clock.now();
        let accepted = preflight::refusals(findings).is_empty();
        let reason = findings.first().map_or("Accepted", |finding| finding.problem.code().as_str());
        set_condition(&mut conditions, "Accepted", accepted, reason, &in_one_line(findings), now);
        self.tell(pool, findings);
        self.tell_mode(pool, in_force);
        let mut say = |type_: &str, reasons: &[Reason]| {
            let reason = reasons.first().map_or(type_, |reason| reason.code().as_str());
            set_condition(&mut conditions, type_, reasons.is_empty(), reason, &in_one_line(reasons), now);
        };
        say("Healthy", &found.unhealthy);
        say("Stable", &[&found.unhealthy[..], &found.unstable].concat());
        say("OnSpot", &all.not_on_spot());
        // What a pool never had, it says nothing of: a pause, an old picture, somebody else on its nodes.
        let mut say_once_met =
            |type_: &str, met: Option<ReasonCode>, holds: bool, else_: &'static str, text: &str| {
                if met.is_some() || conditions.iter().any(|held| held.type_ == type_) {
                    let reason = met.map_or(else_, ReasonCode::as_str);
                    set_condition(&mut conditions, type_, holds, reason, text, now);
                }
            };
        let paused = pause.as_ref().map(|_| ReasonCode::Paused);
        say_once_met("Paused", paused, pause.is_some(), "NotPaused", &in_one_line(pause.as_slice()));
        let stale = freshness.against(Step::Return);
        let old = stale.first().map(|_| ReasonCode::StaleWatch);
        say_once_met("Observed", old, stale.is_empty(), "Current", &in_one_line(&stale));
        let others: Vec<Reason> =
            other.into_iter().map(|workload| Reason::TerminationHandlerRuns { workload }).collect();
        let disturbed = others.first().map(Reason::code);
        say_once_met("Undisturbed", disturbed, others.is_empty(), "Undisturbed", &in_one_line(&others));
        let uncovered = shortfall.held.first().map(Reason::code);
        say_once_met("Covered", uncovered, uncovered.is_none(), "Covered", &in_one_line(&shortfall.held));
        let watched = self.say_watched(observed, &mut conditions);
        status::sum_up(&mut conditions, now);
        let status = serde_json::json!({
            "observedGeneration": generation,
            "watchedNodes": watched.nodes - watched.unwatched.len(),
            "unwatchedNodes": watched.unwatched.len(),
            "spot": status::of_group(&observed.view.spot, 0),
            "onDemand": status::of_group(&observed.view.on_demand, adoption.excess),
            "activeFallbacks": found.returns.len(),
            "aboveBaseline": adoption.excess,
            "nodeAccount": self.count_nodes(observed, found.returns.len(), pace),
            "replacedBy": replaced_by,
            "shortfall": in_force,
            "recommendations": self.recommendations(replaced_by, &observed.view.spot),
            "conditions": conditions,
        });
        self.write(pool, status, ctx);
    }

    /// Counts the checks that were given up, and looks again as soon as a Spot node has become stable.
    fn take_in(&mut self, pool: &PoolName, found: &PoolAssessment) {
        let blockers = found.returns.values().flat_map(|found| &found.unsafe_);
        let given_up = blockers.filter(|reason| reason.code() == ReasonCode::CheckTooLarge).count();
        self.deps.metrics.checks_given_up(BoundedCheck::Return, Spent::Work, given_up);
        let stable = found.stable_in().map(|left| Instant::now() + left);
        if let Some((due, stable)) = self.due.get_mut(pool).zip(stable) {
            *due = stable.min(*due);
        }
    }

    /// How long the pool's nodes have served, up to now.
    fn count_nodes(&self, observed: &PoolObserved, fallbacks: usize, pace: Duration) -> NodeAccount {
        let pool = self.stored(&observed.pool);
        let account = pool.as_ref().and_then(|pool| pool.status.as_ref()?.node_account.as_ref());
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let nodes = NodeCounts {
            spot: count(observed.view.spot.in_service()),
            on_demand: count(observed.view.on_demand.in_service()),
            fallbacks: count(fallbacks),
        };
        NodeAccount::counted(account, nodes, pace, self.deps.clock.now())
    }

    /// How many instances are under a recommendation that is left to their group.
    fn recommendations(&self, replaced_by: ReplacedBy, spot: &GroupView) -> usize {
        let left = |notice: &InterruptionNotice| {
            let spec = &notice.spec;
            spec.kind == NoticeKind::RebalanceRecommendation && spot.is_active(&spec.instance_id)
        };
        if replaced_by == ReplacedBy::SpotGuard {
            return 0;
        }
        self.deps.view.notices.state().iter().filter(|notice| left(notice)).count()
    }

    /// Says whether each Spot node is watched.
    fn say_watched(&self, observed: &PoolObserved, conditions: &mut Vec<Condition>) -> WatchedNodes {
        let (now, cluster) = (self.deps.clock.now(), self.deps.view.snapshot());
        let by_queue = self.queue_read.is_some_and(|read| read.elapsed() < READ_FOR);
        let namespace = &self.deps.namespace;
        let watched = WatchedNodes::in_cluster(&observed.view.spot, &cluster, namespace, by_queue, now);
        let all = watched.unwatched.is_empty();
        let reason = if all { "Watched" } else { "NotWatched" };
        set_condition(conditions, "Watched", all, reason, &watched.to_string(), now);
        let agents = agents::with_ready_agent(&observed.view.spot, &cluster, namespace);
        self.deps.metrics.ready_agents(&observed.pool, agents);
        watched
    }

    /// An event for each finding that is new.
    fn tell(&mut self, pool: &PoolName, findings: &[Finding]) {
        let found = BTreeSet::from_iter(findings.iter().cloned());
        let known = self.told.insert(pool.to_owned(), found.clone()).unwrap_or_default();
        let Some(object) = self.stored(pool) else { return };
        for finding in found.difference(&known) {
            let (reason, note) = (finding.problem.code().as_str(), &finding.to_string());
            let action = "Preflight".to_owned();
            let told = Told { warning: true, reason, action, note, secondary: None };
            self.deps.events.tell(object.object_ref(&()), told);
        }
    }

    /// An event when another mode of shortfalls is in force.
    fn tell_mode(&self, pool: &PoolName, in_force: &ModeInForce) {
        let Some(object) = self.stored(pool) else { return };
        let held = object.status.as_ref().and_then(|status| status.shortfall);
        if held.is_none_or(|held| held.mode == in_force.mode) {
            return;
        }
        let (reason, note) = ("ShortfallMode", &in_force.to_string());
        let action = "Preflight".to_owned();
        let told = Told { warning: false, reason, action, note, secondary: None };
        self.deps.events.tell(object.object_ref(&()), told);
    }

    /// Writes the pool's status if it changed; what else is in it belongs to the AsgScaler.
    fn write(&mut self, pool: &PoolName, status: serde_json::Value, ctx: &mut Context<Self>) {
        if self.written.get(pool) == Some(&status) || !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        self.written.insert(pool.to_owned(), status.clone());
        let api: Api<SpotPool> = Api::all(self.deps.client.clone());
        let name = pool.to_owned();
        let write = async move {
            let patch = serde_json::json!({ "status": status });
            let result = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            (name, result.err())
        };
        ctx.spawn(write.into_actor(self).map(|(name, error), actor, _| {
            if let Some(error) = error {
                tracing::warn!(
                    pool = &*name,
                    error = %RequestProblem(&error),
                    "the status of the pool could not be written; the next attempt follows"
                );
                actor.written.remove(&name);
            }
        }));
    }
}

/// The fallbacks of the pool whose return drains a node now.
fn returning(pool: &PoolName, records: &[Arc<NodeReplacement>]) -> Vec<ReplacementName> {
    let own = records.iter().filter(|record| record.spec.pool.as_ref() == Some(pool));
    let returning = own.filter_map(|record| record.as_open()).filter(PoolReplacement::is_returning);
    returning.map(|story| story.name).collect()
}

/// When a person last asked for the return of one of the pool's fallbacks.
fn return_asked(pool: &PoolName, records: &[Arc<NodeReplacement>]) -> Option<Timestamp> {
    let own = records.iter().filter(|record| record.spec.pool.as_ref() == Some(pool));
    own.filter_map(|record| record.status.as_ref()?.fallback.requested_at()).max()
}

impl Actor for HealthMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TURN, |_, ctx| ctx.notify(Turn));
    }
}

impl Handler<PoolObserved> for HealthMonitor {
    type Result = ();

    fn handle(&mut self, message: PoolObserved, _: &mut Self::Context) {
        self.observed.insert(message.pool.clone(), message);
    }
}

impl Handler<QueueRead> for HealthMonitor {
    type Result = ();

    fn handle(&mut self, _: QueueRead, _: &mut Self::Context) {
        self.queue_read = Some(Instant::now());
    }
}

impl Handler<PoolRefused> for HealthMonitor {
    type Result = ();

    fn handle(&mut self, PoolRefused { pool, finding }: PoolRefused, ctx: &mut Self::Context) {
        self.observed.remove(&pool);
        let (mut conditions, generation) = self.conditions(&pool);
        let (reason, now) = (finding.problem.code().as_str(), self.deps.clock.now());
        set_condition(&mut conditions, "Accepted", false, reason, &finding.to_string(), now);
        self.tell(&pool, &[finding]);
        conditions.retain(|condition| ["Ready", "Accepted"].contains(&&*condition.type_));
        status::sum_up(&mut conditions, now);
        let status = serde_json::json!({ "observedGeneration": generation, "conditions": conditions });
        self.write(&pool, status, ctx);
    }
}

impl Handler<Turn> for HealthMonitor {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        let now = Instant::now();
        let pools = self.deps.pools();
        self.due.retain(|name, _| pools.contains_key(name));
        self.told.retain(|name, _| pools.contains_key(name));
        self.urgent.retain(|name, _| pools.contains_key(name));
        self.look_for_autoscaler(&pools, ctx);
        let freshness = self.deps.view.freshness();
        let records = self.deps.view.replacements.state();
        for (name, pool) in &pools {
            let urgent = Urgent {
                pause: pool.pause.clone(),
                return_asked: return_asked(name, &records),
                freshness: freshness.clone(),
                short: shortfalls::is_short(pool, self.observed.get(name)),
                returning: returning(name, &records),
            };
            let waits = self.due.get(name).is_some_and(|due| now < *due);
            if waits && self.urgent.get(name) == Some(&urgent) {
                continue;
            }
            let Some(observed) = self.observed.get(name).cloned() else { continue };
            if !self.under_way.insert(name.clone()) {
                continue;
            }
            let usual = spot_guard_core::policy::seconds(pool.policy.monitor_seconds);
            let pause = if urgent.short { usual.min(shortfalls::LOOK) } else { usual };
            self.due.insert(name.clone(), now + pause);
            let records = records.clone();
            self.urgent.insert(name.clone(), urgent.clone());
            let snapshot = self.deps.view.snapshot();
            let findings = pool.findings(&pools, &observed.view, &observed.ledger, Some(&snapshot));
            let replacer = pool.replacer(&observed.view);
            let (name, pool) = (name.clone(), pool.clone());
            let time = self.deps.clock.now();
            let taint_key = self.deps.taint_key.clone();
            let stale = freshness.against(Step::Return);
            let heavy = self.deps.heavy.clone();
            let held = self.stored(&name).and_then(|pool| pool.status.as_ref()?.shortfall);
            let in_force = ModeInForce::next(held, &pool.shortfall, pool.mode, self.autoscaler_leads, time);
            let short = urgent.short && preflight::refusals(&findings).is_empty();
            let known = |name: &PoolName| Some(self.stored(name)?.status.as_ref()?.shortfall?.mode);
            let stale_now = (&*stale, time);
            let around = shortfalls::Around::of(&pool, &pools, &self.observed, &records, &known, stale_now);
            let mode = if short { in_force.mode } else { ShortfallMode::Off };
            let work = move || {
                let assessment = assess(&pool, &observed, &records, &snapshot, &taint_key, &stale, time);
                let known = (&*records, &*snapshot, &*taint_key);
                let shortfall = shortfalls::judge(&pool, &observed, mode, &around, known, time);
                let known = (&*records, &*snapshot, &taint_key);
                let adoption = adoptions::judge(&pool, &observed, &assessment, &around.held, known, time);
                let found = Found { assessment, shortfall, in_force, adoption };
                (observed, found, neighbours::termination_handler(&snapshot))
            };
            let work = async move { heavy.run(work).await };
            ctx.spawn(work.into_actor(self).map(move |done, actor, ctx| {
                actor.under_way.remove(&name);
                let Ok((observed, found, other)) = done else {
                    actor.deps.metrics.checks_given_up(BoundedCheck::Return, Spent::Time, 1);
                    tracing::warn!(pool = &*name, "other checks took all places; the pool is assessed later");
                    actor.due.remove(&name);
                    return;
                };
                actor.publish(&observed, &found, (replacer, &findings, usual), &urgent, other, ctx);
                actor.take_in(&name, &found.assessment);
                let Found { assessment, shortfall, adoption, .. } = found;
                actor.assessed.send(PoolAssessed { pool: name, assessment, shortfall, adoption });
            }));
        }
    }
}

answers_ping!(HealthMonitor);
