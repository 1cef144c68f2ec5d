//! Boxes 2, 3, 3.1 and 3.2, and the decrement of box 10: every call that changes a group, one writer each.
//!
//! Hears [`ScaleGroups`] from the FallbackTracker: the complete picture of what a pool's stories want, repeated
//! until it is so. Tells the FallbackTracker and the HealthMonitor [`PoolObserved`] after every look at the
//! groups. What to do is planned by [`crate::core::scaling`]; here the ledger is stored, and only then the
//! call is made.

use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::fallback_tracker::FallbackTracker;
use crate::actors::health_monitor::{HealthMonitor, PoolRefused};
use crate::actors::supervision::{Link, answers_ping};
use crate::aws::{CallError, CallFailure, Launched};
use crate::core::policy::seconds;
use crate::core::record::GroupKind;
use crate::core::scaling::{self, Call, End, InstanceFacts, Ledger, PoolView, Wants};
use crate::crd::SpotPool;
use actix::prelude::*;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Concurrent requests within this time become one call.
const COALESCE: Duration = Duration::from_millis(100);
/// While a request waits, the groups are looked at this often at first.
const FAST_POLL: Duration = Duration::from_secs(1);
/// For how long the fast looks go on after a change.
const FAST_POLL_FOR: Duration = Duration::from_secs(10);
/// What this actor is called in the process's readiness.
const PART: &str = "auto-scaling";
/// One turn makes at most so many calls; the next turn goes on.
const MAX_CALLS_PER_TURN: usize = 40;

/// What the stories of a pool want of its groups: the complete picture, replacing the last one.
#[derive(Message, Clone, Debug, Default, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct ScaleGroups {
    /// The pool.
    pub pool: String,
    /// Wants by group and replacement.
    pub wants: Wants,
    /// Instances to end.
    pub ends: BTreeSet<End>,
    /// What the stories and the cluster know about instances.
    pub instances: InstanceFacts,
}

/// The groups and the ledger of a pool, as they were just read and written.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct PoolObserved {
    /// The pool.
    pub pool: String,
    /// Its groups.
    pub view: Arc<PoolView>,
    /// Its ledger.
    pub ledger: Arc<Ledger>,
}

/// Time to look at a pool.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn {
    pool: String,
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
    pool: String,
    outcome: Result<TurnResult, TurnError>,
}

struct TurnResult {
    ledger: Ledger,
    view: PoolView,
    changed: bool,
    cannot_launch: BTreeSet<GroupKind>,
}

#[derive(Debug, Error)]
enum TurnError {
    #[error(transparent)]
    Aws(#[from] CallError),
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("Auto Scaling group {0} does not exist")]
    NoSuchGroup(String),
    #[error("the ledger of the pool was written by somebody else")]
    NotTheWriter,
    #[error("this process does not lead, or not for long enough")]
    NotLeading,
}

#[derive(Default)]
struct PoolState {
    wanted: ScaleGroups,
    ledger: Option<Ledger>,
    view: Option<Arc<PoolView>>,
    /// Groups on which LaunchInstances was refused: they are served by SetDesiredCapacity.
    cannot_launch: BTreeSet<GroupKind>,
    busy: bool,
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
    tracker: Link<FallbackTracker>,
    monitor: Link<HealthMonitor>,
    pools: BTreeMap<String, PoolState>,
}

impl AsgScaler {
    /// An AsgScaler that has looked at nothing yet.
    #[must_use]
    pub fn new(deps: Deps, tracker: Link<FallbackTracker>, monitor: Link<HealthMonitor>) -> Self {
        Self { deps, tracker, monitor, pools: BTreeMap::new() }
    }

    fn schedule(&mut self, pool: &str, delay: Duration, ctx: &mut Context<Self>) {
        let Some(state) = self.pools.get_mut(pool) else { return };
        state.timer += 1;
        let turn = Turn { pool: pool.to_owned(), timer: state.timer };
        ctx.notify_later(turn, delay);
    }

    /// Ready when every pool is: one that works does not hide one that does not.
    fn tell_readiness(&self) {
        let problems: Vec<String> = self
            .pools
            .iter()
            .filter_map(|(name, state)| Some(format!("pool {name}: {}", state.problem.as_ref()?)))
            .collect();
        if problems.is_empty() {
            self.deps.readiness.ready(PART);
        } else {
            self.deps.readiness.not_ready(PART, problems.join("; "));
        }
    }

    /// When to look again after a turn.
    fn next_look(&self, pool: &PoolConfig, state: &PoolState) -> Duration {
        if state.failures > 0 {
            return crate::core::policy::backoff(
                FAST_POLL,
                seconds(pool.policy.monitor_seconds),
                state.failures,
            );
        }
        let waiting = !state.wanted.ends.is_empty()
            || state
                .ledger
                .as_ref()
                .zip(state.view.as_ref())
                .is_some_and(|(ledger, view)| ledger.is_waiting(view));
        if !waiting {
            return seconds(pool.policy.monitor_seconds);
        }
        let fast = state.fast_until.is_some_and(|until| tokio::time::Instant::now() < until);
        if fast { FAST_POLL } else { seconds(pool.policy.group_poll_seconds) }
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
        if state.busy {
            state.again = true;
        } else {
            self.schedule(&pool, COALESCE, ctx);
        }
    }
}

impl Handler<LookForPools> for AsgScaler {
    type Result = ();

    fn handle(&mut self, _: LookForPools, ctx: &mut Self::Context) {
        let known: BTreeSet<String> = self.deps.pools().into_keys().collect();
        self.pools.retain(|name, _| known.contains(name));
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
        if state.timer != timer || state.busy {
            return;
        }
        state.busy = true;
        let turn = take_turn(
            self.deps.clone(),
            config,
            state.ledger.clone(),
            state.wanted.clone(),
            state.cannot_launch.clone(),
            state.view.is_none(),
        );
        let ended = async move { TurnEnded { pool, outcome: turn.await } };
        ctx.spawn(ended.into_actor(self).map(|ended, _, ctx| ctx.notify(ended)));
    }
}

impl Handler<TurnEnded> for AsgScaler {
    type Result = ();

    fn handle(&mut self, TurnEnded { pool, outcome }: TurnEnded, ctx: &mut Self::Context) {
        let Some(config) = self.deps.pools().remove(&pool) else { return };
        let Some(state) = self.pools.get_mut(&pool) else { return };
        state.busy = false;
        match outcome {
            Ok(result) => {
                state.failures = 0;
                state.problem = None;
                if result.changed {
                    state.fast_until = Some(tokio::time::Instant::now() + FAST_POLL_FOR);
                }
                let observed = PoolObserved {
                    pool: pool.clone(),
                    view: Arc::new(result.view),
                    ledger: Arc::new(result.ledger.clone()),
                };
                state.ledger = Some(result.ledger);
                state.view = Some(observed.view.clone());
                state.cannot_launch = result.cannot_launch;
                self.tracker.send(observed.clone());
                self.monitor.send(observed);
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                // What was written and what was not is read again.
                state.ledger = None;
                tracing::warn!(pool, %error, "looking at the groups failed; it is tried again");
                if let TurnError::NoSuchGroup(_) = &error {
                    self.monitor.send(PoolRefused { pool: pool.clone(), reason: error.to_string() });
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
    ledger: Option<Ledger>,
    wanted: ScaleGroups,
    mut cannot_launch: BTreeSet<GroupKind>,
    takes_over: bool,
) -> Result<TurnResult, TurnError> {
    let api: Api<SpotPool> = Api::all(deps.client.clone());
    let mut store = LedgerStore::open(api, &pool.name, ledger).await?;
    let mut changed = false;
    if takes_over {
        let mut next = store.ledger.clone();
        next.take_over(deps.clock.now());
        store.write(next).await?;
    }
    for calls in 0.. {
        let view = read_groups(&deps, &pool, &store.ledger, &cannot_launch).await?;
        let now = deps.clock.now();
        let plan = scaling::plan(&store.ledger, &view, &wanted.wants, &wanted.ends, &wanted.instances, now);
        changed |= store.write(plan.ledger).await?;
        let Some(call) = plan.call.filter(|_| calls < MAX_CALLS_PER_TURN) else {
            return Ok(TurnResult { ledger: store.ledger, view, changed, cannot_launch });
        };
        if !deps.fence.may_act(deps.call_timeout) {
            return Err(TurnError::NotLeading);
        }
        let mut next = store.ledger.clone();
        let mut go_on = true;
        match make(&deps, &pool, &call).await {
            Ok(None) => scaling::accepted(&mut next, &call),
            Ok(Some(answer)) => {
                let Call::Launch { group, .. } = &call else { continue };
                scaling::launched(&mut next, *group, answer.instance_ids, &answer.errors, deps.clock.now());
            }
            Err(error) => {
                tracing::warn!(pool = pool.name, %error, ?call, "AWS did not do it");
                match (error.outcome, &call) {
                    // Gone already: the next reading tells what became of desired.
                    (CallFailure::NotFound, _) => {}
                    (CallFailure::Unclear, _) => return Err(error.into()),
                    // The group or the endpoint cannot: the request goes on as SetDesiredCapacity.
                    (CallFailure::Refused(_), Call::Launch { group, .. }) => {
                        cannot_launch.insert(*group);
                    }
                    (CallFailure::Refused(class), Call::SetDesired { group, .. }) => {
                        scaling::refused(&mut next, *group, class, &error.to_string(), deps.clock.now());
                        go_on = false;
                    }
                    (CallFailure::Refused(_), Call::Terminate { .. }) => {
                        next.reduction = None;
                        go_on = false;
                    }
                }
            }
        }
        store.write(next).await?;
        changed = true;
        if !go_on {
            let view = read_groups(&deps, &pool, &store.ledger, &cannot_launch).await?;
            return Ok(TurnResult { ledger: store.ledger, view, changed, cannot_launch });
        }
    }
    Err(TurnError::NotLeading)
}

/// Makes the call; LaunchInstances alone has an answer to read.
async fn make(deps: &Deps, pool: &PoolConfig, call: &Call) -> Result<Option<Launched>, CallError> {
    match call {
        Call::Launch { group, zone, count, token } => {
            let name = pool.group(*group);
            tracing::info!(pool = pool.name, group = name, zone, count, "LaunchInstances");
            deps.aws.launch(name, zone, *count, token).await.map(Some)
        }
        Call::SetDesired { group, desired } => {
            tracing::info!(pool = pool.name, group = pool.group(*group), desired, "SetDesiredCapacity");
            deps.aws.set_desired(pool.group(*group), *desired).await.map(|()| None)
        }
        Call::Terminate { instance_id, decrement, .. } => {
            tracing::info!(pool = pool.name, instance_id, decrement, "TerminateInstanceInAutoScalingGroup");
            deps.aws.terminate(instance_id, *decrement).await.map(|()| None)
        }
    }
}

async fn read_groups(
    deps: &Deps,
    pool: &PoolConfig,
    ledger: &Ledger,
    cannot_launch: &BTreeSet<GroupKind>,
) -> Result<PoolView, TurnError> {
    let names = [pool.spot_group.clone(), pool.on_demand_group.clone()];
    let mut found = deps.aws.describe(&names).await?;
    let mut take = |name: &String| found.remove(name).ok_or_else(|| TurnError::NoSuchGroup(name.clone()));
    let mut view = PoolView { spot: take(&names[0])?, on_demand: take(&names[1])? };
    view.spot.can_launch &= !cannot_launch.contains(&GroupKind::Spot);
    view.on_demand.can_launch &= !cannot_launch.contains(&GroupKind::OnDemand);
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        if let Some(since) = ledger.failures_matter_since(kind) {
            let failures = deps.aws.failures(pool.group(kind), since - scaling::CLOCK_SKEW).await?;
            match kind {
                GroupKind::Spot => view.spot.failures = failures,
                GroupKind::OnDemand => view.on_demand.failures = failures,
            }
        }
    }
    Ok(view)
}

/// The ledger in the pool's status; each write is refused if the pool changed since it was read.
struct LedgerStore {
    api: Api<SpotPool>,
    name: String,
    resource_version: Option<String>,
    ledger: Ledger,
}

impl LedgerStore {
    async fn open(api: Api<SpotPool>, name: &str, known: Option<Ledger>) -> Result<Self, kube::Error> {
        let mut store = Self {
            api,
            name: name.to_owned(),
            resource_version: None,
            ledger: known.clone().unwrap_or_default(),
        };
        if known.is_none() {
            store.ledger = store.read().await?;
        }
        Ok(store)
    }

    async fn read(&mut self) -> Result<Ledger, kube::Error> {
        let pool = self.api.get(&self.name).await?;
        self.resource_version = pool.resource_version();
        Ok(pool.status.unwrap_or_default().ledger)
    }

    /// Stores the ledger if it differs. Others write the rest of the status: on a conflict the pool is read
    /// again, and the write goes on only if its ledger is still the one that we know.
    async fn write(&mut self, next: Ledger) -> Result<bool, TurnError> {
        if next == self.ledger {
            return Ok(false);
        }
        for _ in 0..5 {
            if self.resource_version.is_none() && self.read().await? != self.ledger {
                return Err(TurnError::NotTheWriter);
            }
            let body = serde_json::json!({
                "metadata": { "resourceVersion": self.resource_version },
                "status": {
                    "scalingRequests": next.scaling_requests,
                    "reduction": next.reduction,
                    "doubts": next.doubts,
                },
            });
            match self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&body)).await {
                Ok(pool) => {
                    self.resource_version = pool.resource_version();
                    self.ledger = next;
                    return Ok(true);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => self.resource_version = None,
                Err(error) => return Err(error.into()),
            }
        }
        Err(TurnError::NotTheWriter)
    }
}
