//! Makes every call that changes an Auto Scaling group, as the only writer of each.
//!
//! - Boxes: 2, 3, 3.1, 3.2
//! - Part of: 10 (desired capacity lowered by 1)
//! - Hears: [`ScaleGroups`], [`InstanceEnded`]
//! - Sends: [`PoolObserved`], [`PoolRefused`]
//! - Decided in: [`spot_guard_core::scaling`], [`spot_guard_core::classify`]
//!
//! The ledger is stored in the pool's status, and only then the call is made. The groups are read again after
//! each call.

mod groups;
mod ledger_store;
mod served;

use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::messages::{InstanceEnded, PoolObserved, PoolRefused, Revision, ScaleGroups};
use crate::actors::supervision::{MessageLink, answers_ping};
use crate::aws::{CallError, Launched, Terminated};
use crate::crd::SpotPool;
use crate::telemetry::readiness::UnreadyCode;
use actix::prelude::*;
use groups::TurnError;
use jiff::Timestamp;
use kube::api::Api;
use ledger_store::{LedgerStore, StoreError, Stored};
use spot_guard_core::baseline;
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::{InstanceId, PoolName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::policy::seconds;
use spot_guard_core::readings::Readings;
use spot_guard_core::reason::{Finding, GroupProblem};
use spot_guard_core::record::GroupKind;
use spot_guard_core::scaling::answers::{self, AfterFailure, Answer};
use spot_guard_core::scaling::calls::{Call, Deferred};
use spot_guard_core::scaling::inputs::Inputs;
use spot_guard_core::scaling::{self, Plan};
use spot_guard_core::shortfall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// Concurrent requests within this time become one call.
const COALESCE: Duration = Duration::from_millis(100);
/// While a request waits, the groups are looked at this often at first.
const FAST_POLL: Duration = Duration::from_secs(1);
/// For how long the fast looks go on after a change.
const FAST_POLL_FOR: Duration = Duration::from_secs(10);
/// So long an instance counts as ended that EC2 has ended. Its group sees it within minutes (Amazon EC2 Auto
/// Scaling User Guide, "Health checks for instances").
const ENDED_FOR: Duration = Duration::from_secs(600);
/// What this actor is called in the process's readiness.
const PART: &str = "auto-scaling";
/// One turn makes at most so many calls; the next turn goes on.
const MAX_CALLS_PER_TURN: usize = 40;

/// Time to look at a pool.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn {
    pool: PoolName,
    /// Which timer it was: a later one makes it stale.
    timer: u64,
}

/// The pools that there are changed, or might have.
#[derive(Message)]
#[rtype(result = "()")]
struct LookForPools;

/// A look at a pool ended.
#[derive(Message)]
#[rtype(result = "()")]
struct TurnEnded {
    pool: PoolName,
    readings: Readings,
    outcome: Result<TurnResult, TurnError>,
}

struct TurnResult {
    stored: Stored,
    view: PoolView,
    revision: Revision,
    cordon: BTreeSet<InstanceId>,
    changed: bool,
    /// What AWS would not take in this turn.
    delayed: Option<CallError>,
}

#[derive(Default)]
struct PoolState {
    wanted: ScaleGroups,
    stored: Option<Stored>,
    view: Option<Arc<PoolView>>,
    /// The spare instances whose nodes are cordoned.
    cordon: Arc<BTreeSet<InstanceId>>,
    readings: Readings,
    under_way: bool,
    again: bool,
    timer: u64,
    fast_until: Option<tokio::time::Instant>,
    failures: u32,
    /// Why the last look failed.
    problem: Option<String>,
}

/// The actor.
pub struct AsgScaler {
    deps: Deps,
    observed: Vec<MessageLink<PoolObserved>>,
    refused: Vec<MessageLink<PoolRefused>>,
    pools: BTreeMap<PoolName, PoolState>,
    began: tokio::time::Instant,
    /// Instances of the groups that EC2 has ended, and when this was heard.
    ended: BTreeMap<InstanceId, tokio::time::Instant>,
}

impl AsgScaler {
    /// An AsgScaler that has read nothing yet. `observed` and `refused` are who hears what it reads.
    #[must_use]
    pub fn new(
        deps: Deps,
        observed: Vec<MessageLink<PoolObserved>>,
        refused: Vec<MessageLink<PoolRefused>>,
    ) -> Self {
        let (pools, ended, began) = (BTreeMap::new(), BTreeMap::new(), tokio::time::Instant::now());
        Self { deps, observed, refused, pools, began, ended }
    }

    fn schedule(&mut self, pool: &PoolName, delay: Duration, ctx: &mut Context<Self>) {
        let Some(state) = self.pools.get_mut(pool) else { return };
        state.timer += 1;
        let turn = Turn { pool: pool.clone(), timer: state.timer };
        ctx.notify_later(turn, delay);
    }

    /// Says which pools have a problem: one that works does not hide one that does not. AWS and the pools are
    /// outside of this process, so it stays ready.
    fn tell_readiness(&self) {
        let problems: Vec<String> = self
            .pools
            .iter()
            .filter_map(|(name, state)| Some(format!("pool {name}: {}", state.problem.as_ref()?)))
            .collect();
        if problems.is_empty() {
            self.deps.readiness.ready(PART);
        } else {
            self.deps.readiness.impaired(PART, UnreadyCode::GroupsNotObserved, problems.join("; "));
        }
    }

    /// When to look again after a turn.
    fn next_look(&self, pool: &PoolConfig, state: &PoolState) -> Duration {
        let waiting = !state.wanted.ends.is_empty()
            || state.wanted.spot_failures_since.is_some()
            || state
                .stored
                .as_ref()
                .zip(state.view.as_ref())
                .is_some_and(|(stored, view)| stored.ledger.is_waiting(view));
        let slow = if waiting { pool.policy.group_poll_seconds } else { pool.policy.monitor_seconds };
        if state.failures > 0 {
            let spread = Duration::from_millis(fastrand::u64(..250));
            return spot_guard_core::policy::backoff(FAST_POLL, seconds(slow), state.failures) + spread;
        }
        let fast = state.fast_until.is_some_and(|until| tokio::time::Instant::now() < until);
        if waiting && fast { FAST_POLL } else { self.on_the_beat(seconds(slow)) }
    }

    /// The next multiple of `pause` since this actor began: pools that look equally often look together, so
    /// that their groups are read in one call.
    fn on_the_beat(&self, pause: Duration) -> Duration {
        let since_last = self.began.elapsed().as_millis() % pause.as_millis().max(1);
        pause - Duration::from_millis(u64::try_from(since_last).unwrap_or(0))
    }
}

impl Actor for AsgScaler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(LookForPools);
        ctx.run_interval(Duration::from_secs(5), |_, ctx| ctx.notify(LookForPools));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Who does not lead does not look, and has nothing to complain about.
        self.deps.readiness.ready(PART);
    }
}

impl Handler<ScaleGroups> for AsgScaler {
    type Result = ();

    fn handle(&mut self, message: ScaleGroups, ctx: &mut Self::Context) {
        let pool = message.pool.clone();
        let state = self.pools.entry(pool.clone()).or_default();
        if state.wanted == message {
            return;
        }
        state.wanted = message;
        state.fast_until = Some(tokio::time::Instant::now() + FAST_POLL_FOR);
        if state.under_way {
            state.again = true;
        } else {
            self.schedule(&pool, COALESCE, ctx);
        }
    }
}

impl Handler<InstanceEnded> for AsgScaler {
    type Result = ();

    fn handle(&mut self, InstanceEnded { instance_id }: InstanceEnded, ctx: &mut Self::Context) {
        let has = |state: &PoolState| {
            let mut known = state.view.iter().flat_map(|view| view.instances());
            known.any(|instance| instance.id == instance_id)
        };
        let pool = self.pools.iter().find(|(_, state)| has(state)).map(|(name, _)| name.clone());
        let Some(pool) = pool else { return };
        let now = tokio::time::Instant::now();
        self.ended.retain(|_, heard| now < *heard + ENDED_FOR);
        self.ended.insert(instance_id, now);
        match self.pools.get_mut(&pool) {
            Some(state) if state.under_way => state.again = true,
            _ => self.schedule(&pool, COALESCE, ctx),
        }
    }
}

impl Handler<LookForPools> for AsgScaler {
    type Result = ();

    fn handle(&mut self, _: LookForPools, ctx: &mut Self::Context) {
        let known: BTreeSet<PoolName> = self.deps.pools().into_keys().collect();
        self.pools.retain(|name, _| known.contains(name));
        self.deps.last_readings.keep(&known);
        for name in known {
            if !self.pools.contains_key(&name) {
                self.pools.insert(name.clone(), PoolState::default());
                self.schedule(&name, Duration::ZERO, ctx);
            }
        }
        self.tell_readiness();
    }
}

impl Handler<Turn> for AsgScaler {
    type Result = ();

    fn handle(&mut self, Turn { pool, timer }: Turn, ctx: &mut Self::Context) {
        let Some(config) = self.deps.pools().remove(&pool) else { return };
        let Some(state) = self.pools.get_mut(&pool) else { return };
        if state.timer != timer || state.under_way {
            return;
        }
        state.under_way = true;
        let takes_over = state.view.is_none();
        let now = tokio::time::Instant::now();
        let lately = self.ended.iter().filter(|(_, heard)| now < **heard + ENDED_FOR);
        let ended = lately.map(|(id, _)| id.clone()).collect();
        let known = (state.stored.clone(), ended);
        let (deps, wanted) = (self.deps.clone(), state.wanted.clone());
        let mut readings = std::mem::take(&mut state.readings);
        let began = self.began;
        let ended = async move {
            let outcome = take_turn(deps, config, known, wanted, (&mut readings, began), takes_over).await;
            TurnEnded { pool, readings, outcome }
        };
        ctx.spawn(ended.into_actor(self).map(|ended, _, ctx| ctx.notify(ended)));
    }
}

impl Handler<TurnEnded> for AsgScaler {
    type Result = ();

    fn handle(&mut self, TurnEnded { pool, readings, outcome }: TurnEnded, ctx: &mut Self::Context) {
        let Some(config) = self.deps.pools().remove(&pool) else { return };
        let Some(state) = self.pools.get_mut(&pool) else { return };
        state.under_way = false;
        state.readings = readings;
        match outcome {
            Ok(result) => {
                state.failures = if result.delayed.is_some() { state.failures.saturating_add(1) } else { 0 };
                state.problem = result.delayed.map(|error| error.to_string());
                if result.changed {
                    state.fast_until = Some(tokio::time::Instant::now() + FAST_POLL_FOR);
                }
                // Of a turn that could not do everything it is not complete: what was cordoned stays so.
                let kept =
                    if state.failures > 0 { std::mem::take(&mut state.cordon) } else { Arc::default() };
                state.cordon = Arc::new(result.cordon.union(&kept).cloned().collect());
                let observed = PoolObserved {
                    pool: pool.clone(),
                    view: Arc::new(result.view),
                    ledger: Arc::new(result.stored.ledger.clone()),
                    revision: result.revision,
                    cordon: state.cordon.clone(),
                };
                state.stored = Some(result.stored);
                state.view = Some(observed.view.clone());
                self.deps.last_readings.read(&pool, observed.view.read_at());
                self.observed.iter().for_each(|link| link.send(observed.clone()));
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                // What was written and what was not is read again.
                state.stored = None;
                tracing::warn!(pool = &*pool, %error, "the groups could not be read; the next attempt follows");
                if let TurnError::NoSuchGroup(group) = &error {
                    let finding = Finding { group: group.clone(), problem: GroupProblem::NoSuchGroup };
                    let refused = PoolRefused { pool: pool.clone(), finding };
                    self.refused.iter().for_each(|link| link.send(refused.clone()));
                }
                if !matches!(error, TurnError::NotLeading) {
                    state.problem = Some(error.to_string());
                }
            }
        }
        self.tell_readiness();
        let Some(state) = self.pools.get_mut(&pool) else { return };
        let again = std::mem::take(&mut state.again);
        let state = &self.pools[&pool];
        let delay = if again && state.failures == 0 { COALESCE } else { self.next_look(&config, state) };
        self.schedule(&pool, delay, ctx);
    }
}

answers_ping!(AsgScaler);

/// Reads the groups, plans, stores the ledger, makes the call, and so on until there is nothing left to do.
async fn take_turn(
    deps: Deps,
    pool: PoolConfig,
    (known, ended): (Option<Stored>, BTreeSet<InstanceId>),
    wanted: ScaleGroups,
    (readings, began): (&mut Readings, tokio::time::Instant),
    takes_over: bool,
) -> Result<TurnResult, TurnError> {
    let api: Api<SpotPool> = Api::all(deps.client.clone());
    let mut store = LedgerStore::open(api, &pool.name, known).await?;
    let mut changed = false;
    let mut deferred = Deferred::begin(&store.stored.ledger);
    let mut delayed = None;
    // After a call without an answer only the other group is asked for capacity in this turn.
    let mut unanswered: Option<(CallError, GroupKind)> = None;
    // A new life, or a replacement that wants something, waits for nobody else's look.
    let urgent = takes_over || wanted.wants_something();
    if takes_over {
        take_over(&mut store, readings, began.elapsed(), deps.clock.now()).await?;
    }
    for calls in 0.. {
        let asked = (wanted.spot_failures_since, urgent, wanted.is_pressed());
        let (ledger, kept) = (&store.stored.ledger, (&mut *readings, began.elapsed()));
        let mut view = groups::read(&deps, &pool, ledger, asked, kept, &mut deferred).await?;
        let now = deps.clock.now();
        view.note_ended(|id| ended.contains(id));
        let only = unanswered.as_ref().map(|(_, group)| group.other());
        let plan = plan(&deps, (&store.stored.ledger, &view), &wanted, &deferred, only, now);
        tell_left_behind(&pool.name, &store.stored.ledger, &plan.ledger);
        changed |= store.write(with_places(plan.ledger, &pool, &view, now)).await?;
        let Some(call) = plan.call.filter(|_| calls < MAX_CALLS_PER_TURN) else {
            groups::read_refreshes(&deps, &mut view, readings, began.elapsed()).await;
            // A turn without an answer has not done all that was wanted.
            let revision = if only.is_none() { wanted.revision } else { Revision::default() };
            let delayed = unanswered.map(|(error, _)| error).or(delayed);
            let (stored, cordon) = (store.stored, plan.cordon);
            return Ok(TurnResult { stored, view, revision, cordon, changed, delayed });
        };
        if !deps.fence.may_act(deps.call_timeout) {
            return Err(TurnError::NotLeading);
        }
        let mut next = store.stored.ledger.clone();
        let span = served::span_of(&deps, &next, pool.group(call.group()), &call);
        match make(&deps, &pool, &call).instrument(span.clone()).await {
            Ok(answer) => {
                readings.told(&view, &call, &answer, began.elapsed());
                answers::taken(&mut next, &call, answer, deps.clock.now());
            }
            Err(error) => {
                span.in_scope(|| tracing::warn!(pool = &*pool.name, %error, %call, "AWS refused the call"));
                let told = (error.outcome, &*error.to_string());
                match answers::failed(&mut next, &mut deferred, &call, told, deps.clock.now()) {
                    AfterFailure::GoOn => {}
                    AfterFailure::Later => delayed = Some(error),
                    AfterFailure::ReadAgain if unanswered.is_some() => return Err(error.into()),
                    AfterFailure::ReadAgain => unanswered = Some((error, call.group())),
                }
            }
        }
        changed |= store.write(next).await?;
    }
    Err(TurnError::NotLeading)
}

/// What is to be done by this reading; with `only`, which requests of that group are.
fn plan(
    deps: &Deps,
    (ledger, view): (&Ledger, &PoolView),
    wanted: &ScaleGroups,
    deferred: &Deferred,
    only: Option<GroupKind>,
    now: Timestamp,
) -> Plan {
    // The tracker knows the instances that it was told of; this reading may be the first one for long.
    let mut instances = wanted.instances.clone();
    let freshness = deps.view.freshness();
    instances.look_at(view, &deps.view.snapshot(), &freshness, &deps.taint_key, now);
    let ScaleGroups { wants, ends, .. } = wanted;
    let inputs = Inputs { ledger, view, wants, ends, instances: &instances, deferred, now };
    match only {
        None => scaling::plan(&inputs),
        Some(group) => scaling::plan_requests(&inputs, group),
    }
}

/// Takes in what an earlier life, or another process, has written. `up` is how long this one has kept its
/// readings.
async fn take_over(
    store: &mut LedgerStore,
    readings: &mut Readings,
    up: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut next = store.stored.ledger.clone();
    if *readings == Readings::default() {
        *readings = Readings::of(&next, up);
    }
    next.take_over(now);
    store.write(next).await.map(drop)
}

/// The ledger with the empty places of the Spot group, if they are to be known.
fn with_places(mut ledger: Ledger, pool: &PoolConfig, view: &PoolView, now: Timestamp) -> Ledger {
    if pool.shortfall.is_on() {
        shortfall::watch(&mut ledger, &view.spot, now);
    } else {
        ledger.empty_places.clear();
    }
    baseline::watch(&mut ledger, &view.on_demand, pool.on_demand.baseline, now);
    ledger
}

/// Says which requests are to groups that the pool no longer names.
fn tell_left_behind(pool: &PoolName, before: &Ledger, after: &Ledger) {
    for left in after.left_behind.iter().filter(|left| !before.left_behind.contains(left)) {
        let (request, group) = (&left.request.id, &*left.request.group_name);
        tracing::warn!(pool = &**pool, request, group, "the pool no longer names the group of a request");
    }
}

/// Makes the call.
async fn make(deps: &Deps, pool: &PoolConfig, call: &Call) -> Result<Answer, CallError> {
    match call {
        Call::Launch { group, zone, count, token } => {
            let name = pool.group(*group);
            tracing::info!(pool = &*pool.name, group = &**name, zone, count, "LaunchInstances");
            let Launched { instance_ids, errors } = deps.aws.launch(name, zone, *count, token).await?;
            Ok(Answer::Launched { instance_ids, errors })
        }
        Call::SetDesired { group, desired } => {
            tracing::info!(pool = &*pool.name, group = &**pool.group(*group), desired, "SetDesiredCapacity");
            deps.aws.set_desired(pool.group(*group), *desired).await.map(|()| Answer::Done)
        }
        Call::Terminate { instance_id, decrement, .. } => {
            tracing::info!(
                pool = &*pool.name,
                instance_id = &**instance_id,
                decrement,
                "TerminateInstanceInAutoScalingGroup"
            );
            let Terminated { says_shrunk } = deps.aws.terminate(instance_id, *decrement).await?;
            Ok(Answer::Terminated { says_shrunk })
        }
    }
}
