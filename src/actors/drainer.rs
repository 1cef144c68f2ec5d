//! Boxes 4 and 5, and the taint, cordon and drain of box 10.
//!
//! Hears [`DrainNodes`] from the FallbackTracker: all drains that must be under way; a mark of ours on any
//! other node is taken off. Tells the FallbackTracker [`DrainsReported`] whenever something changed. What to
//! evict next is decided by [`crate::core::drain`] each time a pod or a budget changes, so the next eviction
//! goes out the moment its budget has room.

use crate::actors::deps::Deps;
use crate::actors::fallback_tracker::FallbackTracker;
use crate::actors::supervision::{Link, answers_ping};
use crate::core::cluster::{Pod, ScaleDown, Snapshot};
use crate::core::drain::{
    self, DrainClock, DrainPolicy, EvictionAnswer, GiveUp, NextStep, Purpose, SkipReason, Turn, Verdict,
};
use crate::core::policy::{Policy, seconds};
use crate::core::replacement::{DrainCommand, DrainPurpose, DrainReport};
use crate::kube::marks::{self, Marks};
use crate::kube::pods;
use crate::telemetry::metrics;
use actix::prelude::*;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Evictions of one node that are under way at the same time.
const PARALLEL_EVICTIONS: usize = 20;
/// Time moves a drain too (retries, deadlines): how often drains are gone through.
const TURN: Duration = Duration::from_secs(1);
/// A drain counts as blocked when no pod left for so long.
const BLOCKED_AFTER: Duration = Duration::from_secs(10);

/// All drains that must be under way, replacing the last list.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct DrainNodes {
    /// One per node.
    pub drains: Vec<DrainCommand>,
    /// Nodes that cluster-autoscaler is not to scale down meanwhile.
    pub protected: BTreeSet<String>,
}

/// How all drains stand.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct DrainsReported {
    /// By replacement and purpose.
    pub reports: BTreeMap<(String, DrainPurpose), DrainReport>,
}

/// Go through the drains.
#[derive(Message)]
#[rtype(result = "()")]
struct Drive;

/// A node's marks were set or taken off, or not.
#[derive(Message)]
#[rtype(result = "()")]
struct Marked {
    node: String,
}

/// The eviction API answered.
#[derive(Message)]
#[rtype(result = "()")]
struct Answered {
    node: String,
    pod: Arc<Pod>,
    answer: EvictionAnswer,
}

#[derive(Default)]
struct PodState {
    in_flight: bool,
    attempts: u32,
    not_before: Option<Instant>,
    given_up: Option<String>,
}

/// A controller's pods: namespace, kind of owner and name of owner.
type OwnerKey = (String, String);

struct Drain {
    command: DrainCommand,
    policy: Policy,
    pods: BTreeMap<Arc<str>, PodState>,
    /// Pods that each owner had in all when the drain began: so many must run again elsewhere.
    expected: BTreeMap<OwnerKey, usize>,
    left: usize,
    progress_at: Instant,
    emptied_at: Option<Instant>,
    report: DrainReport,
}

/// The actor.
pub struct Drainer {
    deps: Deps,
    tracker: Link<FallbackTracker>,
    /// `None` until the tracker spoke: before that nobody knows whose marks are left over.
    wanted: Option<DrainNodes>,
    drains: BTreeMap<String, Drain>,
    /// Nodes whose marks are being changed.
    marking: BTreeSet<String>,
}

impl Drainer {
    /// A Drainer that was told nothing yet.
    #[must_use]
    pub fn new(deps: Deps, tracker: Link<FallbackTracker>) -> Self {
        Self { deps, tracker, wanted: None, drains: BTreeMap::new(), marking: BTreeSet::new() }
    }

    fn report(&self) {
        let reports = self
            .drains
            .values()
            .map(|drain| ((drain.command.replacement.clone(), drain.command.purpose), drain.report.clone()))
            .collect();
        self.tracker.send(DrainsReported { reports });
    }

    /// Starts a change of marks unless one of this node is under way.
    fn mark(&mut self, node: &str, change: Marks, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) || !self.marking.insert(node.to_owned()) {
            return;
        }
        let (client, key, node) = (self.deps.client.clone(), self.deps.taint_key.clone(), node.to_owned());
        let done = async move {
            if let Err(error) = marks::apply(&client, &node, &key, change).await {
                tracing::warn!(node, %error, ?change, "the node's marks could not be changed; it is tried again");
            }
            Marked { node }
        };
        ctx.spawn(done.into_actor(self).map(|marked, _, ctx| ctx.notify(marked)));
    }

    /// Keeps cluster-autoscaler off a node, or lets it again, unless a change of its marks is under way.
    fn protect(&mut self, node: &str, change: Marks, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) || !self.marking.insert(node.to_owned()) {
            return;
        }
        let (client, node) = (self.deps.client.clone(), node.to_owned());
        let done = async move {
            if let Err(error) = marks::protect(&client, &node, change).await {
                tracing::warn!(node, %error, ?change, "cluster-autoscaler's annotation could not be changed; it is tried again");
            }
            Marked { node }
        };
        ctx.spawn(done.into_actor(self).map(|marked, _, ctx| ctx.notify(marked)));
    }

    fn evict(&mut self, node: &str, pod: Arc<Pod>, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        if let Some(drain) = self.drains.get_mut(node) {
            drain.pods.entry(pod.uid.clone()).or_default().in_flight = true;
        }
        let (client, node) = (self.deps.client.clone(), node.to_owned());
        let limit = self.deps.call_timeout;
        let done = async move {
            let answer = pods::evict(&client, &pod, limit).await;
            Answered { node, pod, answer }
        };
        ctx.spawn(done.into_actor(self).map(|answered, _, ctx| ctx.notify(answered)));
    }

    fn delete(&mut self, node: &str, pod: &Arc<Pod>, grace: i64, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        if let Some(drain) = self.drains.get_mut(node) {
            drain.pods.entry(pod.uid.clone()).or_default().in_flight = true;
        }
        tracing::warn!(node, pod = %pod.key(), grace, "deleted: the deadline leaves no more than its grace period");
        let (client, node, pod) = (self.deps.client.clone(), node.to_owned(), pod.clone());
        let limit = self.deps.call_timeout;
        let done = async move {
            let answer = pods::delete(&client, &pod, grace, limit).await;
            Answered { node, pod, answer }
        };
        ctx.spawn(done.into_actor(self).map(|answered, _, ctx| ctx.notify(answered)));
    }

    /// Goes through one drain and returns the evictions that are due.
    fn step(&mut self, node: &str, snapshot: &Snapshot) -> Vec<Arc<Pod>> {
        let Some(drain) = self.drains.get_mut(node) else { return Vec::new() };
        let now = Instant::now();
        let tainted = snapshot.node(node).is_some_and(|found| marks::are_set(found, &self.deps.taint_key));
        drain.report.tainted = tainted || drain.report.tainted;
        if snapshot.node(node).is_none() {
            drain.report.finished = true;
            drain.report.blocked.clear();
            return Vec::new();
        }
        if !tainted || drain.report.finished {
            return Vec::new();
        }
        let policy = drain.pod_policy();
        let mut left = 0;
        let mut blocked = Vec::new();
        let mut evictable = Vec::new();
        for index in snapshot.node_index(node).map_or(&[][..], |node| snapshot.pod_indexes_on(node)) {
            let pod = &snapshot.pods()[*index as usize];
            match drain::classify(pod, &policy, drain.purpose()) {
                Verdict::Skip(SkipReason::AlreadyTerminating) => left += 1,
                Verdict::Skip(_) => {}
                Verdict::Blocked(reason) => {
                    left += 1;
                    blocked.push(format!("pod {}: {reason}", pod.key()));
                }
                Verdict::Evictable => {
                    left += 1;
                    if drain.left == 0 || !drain.pods.contains_key(&pod.uid) {
                        drain.pods.entry(pod.uid.clone()).or_default();
                    }
                    evictable.push(pod.clone());
                }
            }
        }
        if left != drain.left {
            drain.left = left;
            drain.progress_at = now;
        }
        if left == 0 {
            drain.await_rescheduled(node, snapshot, now);
            return Vec::new();
        }
        drain.emptied_at = None;
        let under_way = drain.pods.values().filter(|state| state.in_flight).count();
        evictable.retain(|pod| drain.pods.get(&pod.uid).is_none_or(|state| !state.in_flight));
        let refs: Vec<&Pod> = evictable.iter().map(|pod| &**pod).collect();
        let order = drain::eviction_order(&refs, snapshot.budgets());
        let ordered: Vec<&Pod> = order.iter().map(|index| refs[*index]).collect();
        let mut due = Vec::new();
        for (place, turn) in
            drain::turns(&ordered, snapshot.budgets(), under_way, PARALLEL_EVICTIONS).iter().enumerate()
        {
            let pod = &evictable[order[place]];
            let state = drain.pods.entry(pod.uid.clone()).or_default();
            match turn {
                Turn::Now if state.not_before.is_none_or(|at| now >= at) => due.push(pod.clone()),
                Turn::Now | Turn::AfterOthers => {}
                Turn::AfterBudget(budget) => blocked.push(format!(
                    "PodDisruptionBudget {}/{} allows no disruption ({} healthy, {} wanted)",
                    budget.namespace, budget.name, budget.current_healthy, budget.desired_healthy
                )),
                Turn::Never(budgets) => {
                    let names: Vec<&str> = budgets.iter().map(|budget| &*budget.name).collect();
                    blocked.push(format!(
                        "pod {} is covered by several PodDisruptionBudgets: {}",
                        pod.key(),
                        names.join(", ")
                    ));
                }
            }
            if let Some(reason) = &state.given_up {
                blocked.push(format!("pod {}: {reason}", pod.key()));
            }
        }
        blocked.sort_unstable();
        blocked.dedup();
        let stuck = now.duration_since(drain.progress_at) >= BLOCKED_AFTER;
        drain.report.blocked = if stuck { blocked } else { Vec::new() };
        due
    }

    /// The pods that are to be deleted now, because the deadline leaves no more than their grace period.
    fn overdue(&self, node: &str, snapshot: &Snapshot, now: Timestamp) -> Vec<(Arc<Pod>, i64)> {
        let Some(drain) = self.drains.get(node).filter(|drain| drain.report.tainted) else {
            return Vec::new();
        };
        let policy = drain.pod_policy();
        let indexes = snapshot.node_index(node).map_or(&[][..], |node| snapshot.pod_indexes_on(node));
        indexes
            .iter()
            .map(|index| &snapshot.pods()[*index as usize])
            .filter(|pod| drain::classify(pod, &policy, drain.purpose()) == Verdict::Evictable)
            .filter(|pod| {
                drain.pods.get(&pod.uid).is_some_and(|state| state.attempts > 0 && !state.in_flight)
            })
            .filter_map(|pod| {
                let deletion = drain::overdue(pod, &policy, drain.clock(), now)?;
                Some((pod.clone(), deletion.grace_period_seconds))
            })
            .collect()
    }
}

impl Drain {
    fn new(command: DrainCommand, policy: Policy, snapshot: &Snapshot) -> Self {
        let report =
            DrainReport { node: command.node.clone(), tainted: false, finished: false, blocked: Vec::new() };
        let owners: BTreeSet<OwnerKey> =
            snapshot.pods_on(&command.node).filter(|pod| drain::must_move(pod)).filter_map(owner).collect();
        let mut expected = BTreeMap::new();
        for key in snapshot
            .pods()
            .iter()
            .filter(|pod| !pod.phase.finished() && !pod.terminating())
            .filter_map(|pod| owner(pod))
        {
            if owners.contains(&key) {
                *expected.entry(key).or_default() += 1;
            }
        }
        Self {
            command,
            policy,
            pods: BTreeMap::new(),
            expected,
            left: 0,
            progress_at: Instant::now(),
            emptied_at: None,
            report,
        }
    }

    fn purpose(&self) -> Purpose {
        match self.command.purpose {
            DrainPurpose::Replace => Purpose::Replace,
            DrainPurpose::Return => Purpose::Return,
        }
    }

    fn pod_policy(&self) -> DrainPolicy {
        DrainPolicy {
            delete_at_deadline: self.policy.delete_at_deadline,
            ..DrainPolicy::default_for(self.purpose())
        }
    }

    fn clock(&self) -> DrainClock {
        // The instance is ended a little ahead of the deadline, so the pods have that much less.
        let ahead = seconds(self.policy.end_before_deadline_seconds);
        self.command.deadline.map_or(DrainClock::Patient, |deadline| DrainClock::Deadline(deadline - ahead))
    }

    /// The node is empty: the drain ends when as many pods run again elsewhere, or when waiting for it ends.
    fn await_rescheduled(&mut self, node: &str, snapshot: &Snapshot, now: Instant) {
        let emptied = *self.emptied_at.get_or_insert(now);
        let mut running: BTreeMap<OwnerKey, usize> = BTreeMap::new();
        for pod in snapshot.pods() {
            if pod.ready
                && !pod.terminating()
                && pod.node.as_deref() != Some(node)
                && let Some(key) = owner(pod)
            {
                *running.entry(key).or_default() += 1;
            }
        }
        let missing: Vec<String> = self
            .expected
            .iter()
            .filter(|(key, count)| running.get(key).copied().unwrap_or(0) < **count)
            .map(|((namespace, name), _)| format!("pods of {namespace}/{name} do not run elsewhere yet"))
            .collect();
        let waited = now.duration_since(emptied);
        let patience = seconds(self.policy.reschedule_timeout_seconds);
        if missing.is_empty() || waited >= patience || self.command.deadline.is_some() {
            if !missing.is_empty() {
                tracing::warn!(node, ?missing, "the drain goes on without waiting for them any longer");
            }
            self.report.finished = true;
            self.report.blocked.clear();
        } else {
            self.report.blocked = if waited >= BLOCKED_AFTER { missing } else { Vec::new() };
        }
    }
}

/// The controller that makes a pod anew.
fn owner(pod: &Pod) -> Option<OwnerKey> {
    (!pod.owner.name.is_empty()).then(|| (pod.namespace.to_string(), pod.owner.name.to_string()))
}

impl Actor for Drainer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TURN, |actor, ctx| {
            if !actor.drains.is_empty() {
                ctx.notify(Drive);
            }
        });
        let stream = futures::stream::unfold(self.deps.view.subscribe(), |mut changes| async move {
            changes.changed().await.ok()?;
            Some((Drive, changes))
        });
        ctx.add_message_stream(stream);
    }
}

impl Handler<DrainNodes> for Drainer {
    type Result = ();

    fn handle(&mut self, message: DrainNodes, ctx: &mut Self::Context) {
        if self.wanted.as_ref() != Some(&message) {
            self.wanted = Some(message);
            ctx.notify(Drive);
        }
    }
}

impl Handler<Drive> for Drainer {
    type Result = ();

    fn handle(&mut self, _: Drive, ctx: &mut Self::Context) {
        let Some(DrainNodes { drains: wanted, protected }) = self.wanted.clone() else { return };
        let snapshot = self.deps.view.snapshot();
        let nodes: BTreeSet<&str> = wanted.iter().map(|command| command.node.as_str()).collect();
        self.drains.retain(|node, _| nodes.contains(node.as_str()));
        for node in snapshot.nodes() {
            if !nodes.contains(&*node.name) && marks::any_set(node, &self.deps.taint_key) {
                self.mark(&node.name, Marks::Off, ctx);
            }
            match (protected.contains(&*node.name), node.scale_down) {
                (true, ScaleDown::Allowed) => self.protect(&node.name, Marks::On, ctx),
                (false, ScaleDown::DisabledByUs) => self.protect(&node.name, Marks::Off, ctx),
                _ => {}
            }
        }
        for command in wanted {
            let node = command.node.clone();
            match self.drains.get_mut(&node) {
                Some(drain)
                    if drain.command.replacement == command.replacement
                        && drain.command.purpose == command.purpose =>
                {
                    // A second notice may have brought a deadline.
                    drain.command = command;
                }
                _ => {
                    let policy = self.deps.policy_of(&command.replacement);
                    self.drains.insert(node.clone(), Drain::new(command, policy, &snapshot));
                }
            }
            if snapshot.node(&node).is_some_and(|found| !marks::are_set(found, &self.deps.taint_key)) {
                self.mark(&node, Marks::On, ctx);
            }
            for pod in self.step(&node, &snapshot) {
                self.evict(&node, pod, ctx);
            }
            for (pod, grace) in self.overdue(&node, &snapshot, self.deps.clock.now()) {
                self.delete(&node, &pod, grace, ctx);
            }
        }
        self.report();
    }
}

impl Handler<Marked> for Drainer {
    type Result = ();

    fn handle(&mut self, Marked { node }: Marked, _: &mut Self::Context) {
        // The watch shows whether it worked; a failure is tried again with the next turn.
        self.marking.remove(&node);
    }
}

impl Handler<Answered> for Drainer {
    type Result = ();

    fn handle(&mut self, Answered { node, pod, answer }: Answered, ctx: &mut Self::Context) {
        self.deps.metrics.eviction(metric(&answer));
        let now = self.deps.clock.now();
        let Some(drain) = self.drains.get_mut(&node) else { return };
        let (policy, clock) = (drain.pod_policy(), drain.clock());
        let state = drain.pods.entry(pod.uid.clone()).or_default();
        let step = drain::next_step(&answer, state.attempts, &pod, &policy, clock, now);
        state.in_flight = false;
        state.attempts = state.attempts.saturating_add(1);
        state.given_up = None;
        state.not_before = None;
        match step {
            NextStep::WaitUntilGone | NextStep::Done => {
                drain.progress_at = Instant::now();
                // The watch will show it as terminating; until then it is not evicted again.
                state.not_before = Some(Instant::now() + Duration::from_secs(5));
            }
            // The watch shows when the budget opens; this bounds the wait for an event that got lost.
            NextStep::WaitForBudget(wait) => state.not_before = Some(Instant::now() + wait.min(TURN)),
            NextStep::RetryAfter(wait) => state.not_before = Some(Instant::now() + wait),
            NextStep::Delete(deletion) => self.delete(&node, &pod, deletion.grace_period_seconds, ctx),
            NextStep::GiveUp(reason) => {
                state.given_up = Some(match reason {
                    GiveUp::SeveralBudgets => "several PodDisruptionBudgets cover it".to_owned(),
                    GiveUp::Forbidden => "its eviction is forbidden".to_owned(),
                    GiveUp::Rejected { status, message } => {
                        format!("its eviction was rejected ({status}): {message}")
                    }
                });
                state.not_before = Some(Instant::now() + Duration::from_secs(30));
            }
        }
        ctx.notify(Drive);
    }
}

answers_ping!(Drainer);

fn metric(answer: &EvictionAnswer) -> metrics::EvictionAnswer {
    match answer {
        EvictionAnswer::Evicted => metrics::EvictionAnswer::Accepted,
        EvictionAnswer::Gone => metrics::EvictionAnswer::Gone,
        EvictionAnswer::BudgetExhausted { .. } => metrics::EvictionAnswer::Budget,
        EvictionAnswer::RateLimited { .. } => metrics::EvictionAnswer::Throttled,
        EvictionAnswer::SeveralBudgets
        | EvictionAnswer::Forbidden
        | EvictionAnswer::Conflict
        | EvictionAnswer::Failed { .. } => metrics::EvictionAnswer::Failed,
    }
}
