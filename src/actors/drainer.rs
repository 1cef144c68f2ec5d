//! Sets taint and cordon, evicts pods, and takes off what no replacement needs.
//!
//! - Boxes: 4, 5, 10
//! - Hears: [`DrainNodes`]
//! - Sends: [`DrainsReported`]
//! - Decided in: [`spot_guard_core::drain`]
//!
//! The decision is made anew each time a pod or a budget changes, so the next eviction goes out the moment
//! its budget has room. Before a node counts as empty, its pods are listed anew.

use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::messages::{DrainNodes, DrainsReported};
use crate::actors::supervision::{MessageLink, answers_ping};
use crate::crd::NodeReplacement;
use crate::kube::marks::{self, Marks};
use crate::kube::pods;
use crate::kube::problem::RequestProblem;
use crate::telemetry::call_trace::{answered, call_span, is_about};
use crate::telemetry::metrics::{self, MarkResult, PodsListed};
use actix::prelude::*;
use kube::runtime::reflector::ObjectRef;
use spot_guard_core::cluster::{Node, ScaleDown, Snapshot};
use spot_guard_core::drain::{
    Drain, EvictionAnswer, Look, Looks, Marking, MarksSet, Moment, NodeInstance, Order, Sight,
    one_for_each_node,
};
use spot_guard_core::freshness::{Freshness, Step, WatchedKind};
use spot_guard_core::ids::{InstanceId, NodeName, NodeUid, PoolName};
use spot_guard_core::replacement::DrainCommand;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

/// Time moves a drain too (retries, deadlines): how often drains are gone through.
const TURN: Duration = Duration::from_secs(1);

/// Go through the drains.
#[derive(Message)]
#[rtype(result = "()")]
struct Drive;

/// A node's marks were changed, or not.
#[derive(Message)]
#[rtype(result = "()")]
struct Marked {
    node: Box<Node>,
    change: Change,
    result: MarkResult,
}

/// The API answered what pods a node has, or not.
#[derive(Message)]
#[rtype(result = "()")]
struct Looked {
    node: NodeInstance,
    look: Look,
}

/// The API answered to a request about a pod.
#[derive(Message)]
#[rtype(result = "()")]
struct Answered {
    node: NodeInstance,
    order: Order,
    answer: EvictionAnswer,
}

/// What is changed on a node.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Taint, cordon and label.
    Drain(Marks),
    /// The annotation that keeps cluster-autoscaler off it.
    Protection(Marks),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain(Marks::On) => "drained",
            Self::Drain(Marks::Off) => "drained no longer",
            Self::Protection(Marks::On) => "kept from cluster-autoscaler",
            Self::Protection(Marks::Off) => "kept from cluster-autoscaler no longer",
        })
    }
}

/// The actor.
pub struct Drainer {
    deps: Deps,
    reported: MessageLink<DrainsReported>,
    /// `None` until the tracker spoke: before that nobody knows whose marks are left over.
    wanted: Option<DrainNodes>,
    /// A later node of the same name has no part in one of these.
    drains: BTreeMap<NodeInstance, Drain>,
    marking: Marking,
    looks: Looks,
    /// What [`Moment::up`] counts from.
    origin: Instant,
}

impl Drainer {
    /// A Drainer that was told nothing yet.
    #[must_use]
    pub fn new(deps: Deps, reported: MessageLink<DrainsReported>) -> Self {
        let (drains, marking, looks) = Default::default();
        Self { deps, reported, wanted: None, drains, marking, looks, origin: Instant::now() }
    }

    fn now(&self) -> Moment {
        Moment { at: self.deps.clock.now(), up: self.origin.elapsed() }
    }

    fn report(&self) {
        let report = |drain: &Drain| {
            let command = drain.command();
            ((command.replacement.clone(), command.purpose), drain.report().clone())
        };
        let reports = self.drains.values().map(report).collect();
        let found_empty = self.looks.found_empty(self.now().at);
        self.reported.send(DrainsReported { reports, found_empty });
    }

    /// Starts a change of marks unless one of this node is under way.
    fn mark(&mut self, node: &Node, change: Change, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let up = self.now().up;
        if !self.marking.begin(&node.uid, up) {
            return;
        }
        let span = self.span("taint node", &node.name, node.instance_id().as_ref());
        let node = Box::new(node.clone());
        let (client, key) = (self.deps.client.clone(), self.deps.taint_key.clone());
        let limit = self.deps.call_timeout;
        let done = async move {
            let call = async {
                match change {
                    Change::Drain(marks) => marks::apply(&client, &node, &key, marks).await,
                    Change::Protection(marks) => marks::protect(&client, &node, marks).await,
                }
            };
            let result = match timeout(limit, call).await {
                Ok(Ok(())) => {
                    tracing::info!(
                        node = &*node.name,
                        %change,
                        "taint, cordon or annotations of a node were changed"
                    );
                    MarkResult::Done
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        node = &*node.name,
                        error = %RequestProblem(&error),
                        %change,
                        "taint, cordon or annotations of a node could not be changed; the next attempt follows"
                    );
                    MarkResult::Failed
                }
                Err(_) => {
                    tracing::warn!(
                        node = &*node.name,
                        %change,
                        "no answer in time to a change of a node; the next attempt follows"
                    );
                    MarkResult::Failed
                }
            };
            let failed = (result == MarkResult::Failed).then_some(&"the change failed" as &dyn fmt::Display);
            answered(change, None, failed);
            Marked { node, change, result }
        };
        ctx.spawn(done.instrument(span).into_actor(self).map(|marked, _, ctx| ctx.notify(marked)));
    }

    /// The span for a call about a node of this instance, in the trace of the replacement that drains it.
    fn span(&self, operation: &str, target: &str, instance: Option<&InstanceId>) -> Span {
        let is_for = |record: &NodeReplacement| instance.is_some_and(|id| is_about(record, id));
        call_span(operation, target, || self.deps.view.replacements.state(), is_for)
    }

    /// Sends a request about a pod.
    fn send(&mut self, node: &NodeInstance, order: Order, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let Some(drain) = self.drains.get_mut(node) else { return };
        drain.sent(&order);
        let operation = match &order {
            Order::Evict(..) => "evict pod",
            Order::Delete(..) => "delete pod",
        };
        let span = self.span(operation, &order.pod().key().to_string(), Some(&node.instance_id));
        let (client, node) = (self.deps.client.clone(), node.clone());
        let limit = self.deps.call_timeout;
        let done = async move {
            let answer = match &order {
                Order::Evict(pod, grace) => pods::evict(&client, pod, *grace, limit).await,
                Order::Delete(pod, deletion) => {
                    let grace = deletion.grace_period_seconds;
                    tracing::warn!(
                        node = &*node.node,
                        pod = %pod.key(),
                        grace,
                        "deleted, since only its grace period is left"
                    );
                    pods::delete(&client, pod, grace, limit).await
                }
            };
            let result = metric(&answer);
            let failed = result == metrics::EvictionResult::Failed;
            answered(result, None, failed.then_some(&"the request failed" as &dyn fmt::Display));
            Answered { node, order, answer }
        };
        ctx.spawn(done.instrument(span).into_actor(self).map(|answered, _, ctx| ctx.notify(answered)));
    }

    /// Lists the node's pods, unless that is under way or to be waited for.
    fn look(&mut self, node: &NodeInstance, ctx: &mut Context<Self>) {
        let asked = self.now();
        if !self.looks.begin(node, asked.up) {
            return;
        }
        let (client, node, limit) = (self.deps.client.clone(), node.clone(), self.deps.call_timeout);
        let done = async move {
            let found = pods::listed_on(&client, &node, limit).await;
            Looked { node, look: Look { asked, found } }
        };
        ctx.spawn(done.into_actor(self).map(|looked, _, ctx| ctx.notify(looked)));
    }

    /// Whether a record of the node's instance is there that cannot be read: what it wants is not known.
    fn may_be_wanted(&self, id: &InstanceId, node: &NodeName) -> bool {
        let is_hidden = |name: &str| {
            let is_read = self.deps.view.replacements.get(&ObjectRef::new(name)).is_some();
            !is_read && self.deps.view.may_hide_record(name)
        };
        is_hidden(id) || is_hidden(&format!("{node}.{id}"))
    }

    /// Sets and takes off marks; no drain needs those of `node`.
    fn mark_idle(&mut self, node: &Node, is_spare: bool, may_undo: bool, ctx: &mut Context<Self>) {
        if let Some(instance_id) = node.instance_id().filter(|_| is_spare) {
            let place = NodeInstance { node: node.name.clone(), instance_id };
            if !marks::are_set(node, &self.deps.taint_key) {
                self.mark(node, Change::Drain(Marks::On), ctx);
            } else if self.looks.is_outdated(&place, self.now().at, self.now().up) {
                self.look(&place, ctx);
            }
        } else if may_undo && marks::any_set(node, &self.deps.taint_key) {
            self.mark(node, Change::Drain(Marks::Off), ctx);
        }
    }

    /// Goes on with one drain.
    fn drive(
        &mut self,
        command: &DrainCommand,
        pools: &BTreeMap<PoolName, PoolConfig>,
        snapshot: &Snapshot,
        freshness: &Freshness,
        now: Moment,
        ctx: &mut Context<Self>,
    ) {
        let place = command.place();
        let policy = self.deps.policy_of(&command.replacement, pools);
        if !self.drains.get_mut(&place).is_some_and(|drain| drain.renew(command, policy.clone())) {
            self.drains.insert(place.clone(), Drain::new(command.clone(), policy, snapshot, now));
        }
        let (mut marked, mut unmarkable) = (false, false);
        if let Some(found) = about(command, snapshot) {
            let shown = marks::are_set(found, &self.deps.taint_key);
            if self.marking.is_due(&found.uid, shown, now.up) {
                self.mark(found, Change::Drain(Marks::On), ctx);
            }
            marked = self.marking.counts(&found.uid, shown, command.deadline.is_some());
            unmarkable = self.marking.is_failing(&found.uid);
        }
        let Some(drain) = self.drains.get_mut(&place) else { return };
        let sight = Sight { snapshot, freshness, marked, unmarkable, look: self.looks.last(&place) };
        let orders = drain.step(&sight, now);
        if drain.wants_look() {
            self.look(&place, ctx);
        }
        for order in orders {
            self.send(&place, order, ctx);
        }
    }
}

/// The node to be drained, if it is there: a later node of its name is another one.
fn about<'s>(command: &DrainCommand, snapshot: &'s Snapshot) -> Option<&'s Node> {
    snapshot.node(&command.node).filter(|node| command.is_about(node))
}

impl Actor for Drainer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TURN, |actor, ctx| {
            if !actor.drains.is_empty() || !actor.marking.is_empty() || !actor.looks.is_empty() {
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
        let Some(wanted) = self.wanted.clone() else { return };
        // In this order: what is current now is so in the snapshot, too.
        let freshness = self.deps.view.freshness();
        let (snapshot, now) = (self.deps.view.snapshot(), self.now());
        let places: BTreeSet<NodeInstance> = wanted.drains.iter().map(DrainCommand::place).collect();
        self.drains.retain(|place, _| places.contains(place));
        let drained = wanted.drains.iter().filter_map(|command| about(command, &snapshot));
        let drained: BTreeSet<&NodeUid> = drained.map(|node| &node.uid).collect();
        let nodes_of = |instances: &BTreeSet<InstanceId>| {
            let nodes = instances.iter().flat_map(|id| snapshot.nodes_of_instance(id));
            nodes.map(|node| &node.uid).collect::<BTreeSet<_>>()
        };
        let (spare, protected) = (nodes_of(&wanted.cordoned), nodes_of(&wanted.protected));
        self.marking.retain(
            |uid| snapshot.nodes().iter().any(|node| node.uid == *uid),
            |uid| drained.contains(uid),
            |uid| protected.contains(uid),
        );
        let taint_key = self.deps.taint_key.clone();
        let is_marked = |place: &NodeInstance| {
            let found = snapshot.node_on(&place.node, &place.instance_id, None);
            found.is_some_and(|node| marks::are_set(node, &taint_key))
        };
        self.looks.retain(|place| {
            places.contains(place) || wanted.cordoned.contains(&place.instance_id) && is_marked(place)
        });
        // First of all: one change of a node's marks is made at a time.
        let pools = self.deps.pools();
        for command in one_for_each_node(&wanted.drains) {
            self.drive(command, &pools, &snapshot, &freshness, now, ctx);
        }
        let undoes = freshness.allows(Step::Undo);
        // Nearly always none is: the thousands of nodes are not looked up then.
        let unread = self.deps.view.not_understood().names(WatchedKind::Replacement).next().is_some();
        for node in snapshot.nodes() {
            let is_wanted = || node.instance_id().is_some_and(|id| self.may_be_wanted(&id, &node.name));
            let may_undo = undoes && !(unread && is_wanted());
            if !drained.contains(&node.uid) {
                self.mark_idle(node, spare.contains(&node.uid), may_undo, ctx);
            }
            match (protected.contains(&node.uid), node.scale_down) {
                (true, ScaleDown::Allowed) if !self.marking.is_protected(&node.uid, now.up) => {
                    self.mark(node, Change::Protection(Marks::On), ctx);
                }
                (false, ScaleDown::DisabledByUs) if may_undo => {
                    self.mark(node, Change::Protection(Marks::Off), ctx)
                }
                _ => {}
            }
        }
        self.report();
    }
}

impl Handler<Marked> for Drainer {
    type Result = ();

    fn handle(&mut self, Marked { node, change, result }: Marked, ctx: &mut Self::Context) {
        self.deps.metrics.marks_changed(result);
        let up = self.now().up;
        if result == MarkResult::Failed {
            self.marking.failed(&node.uid, up);
            return;
        }
        let is_drained = self.drains.values().any(|drain| drain.command().is_about(&node));
        let set = match change {
            Change::Drain(Marks::On) if is_drained => Some(MarksSet::Drain),
            Change::Protection(Marks::On) => Some(MarksSet::Protection),
            Change::Drain(_) | Change::Protection(_) => None,
        };
        self.marking.done(&node.uid, set, up);
        if set == Some(MarksSet::Drain) {
            ctx.notify(Drive);
        }
    }
}

impl Handler<Answered> for Drainer {
    type Result = ();

    fn handle(&mut self, Answered { node, order, answer }: Answered, ctx: &mut Self::Context) {
        let replacement = self.drains.get(&node).map(|drain| &drain.command().replacement);
        let pool = replacement.and_then(|name| self.deps.pool_of(name));
        self.deps.metrics.eviction(pool.as_ref(), metric(&answer));
        let now = self.now();
        if let Some(drain) = self.drains.get_mut(&node) {
            drain.answered(&order, &answer, now);
            ctx.notify(Drive);
        }
    }
}

impl Handler<Looked> for Drainer {
    type Result = ();

    fn handle(&mut self, Looked { node, look }: Looked, ctx: &mut Self::Context) {
        let now = self.now();
        let result = match (&look.found, look.empty_at(now.at)) {
            (Err(error), _) => {
                tracing::warn!(
                    node = &*node.node,
                    error,
                    "the node's pods could not be listed; the next attempt follows"
                );
                PodsListed::Failed
            }
            (Ok(_), None) => PodsListed::Held,
            (Ok(_), Some(_)) => PodsListed::Empty,
        };
        self.deps.metrics.pods_listed(result);
        self.looks.answered(&node, look, now.at, now.up);
        ctx.notify(Drive);
    }
}

answers_ping!(Drainer);

fn metric(answer: &EvictionAnswer) -> metrics::EvictionResult {
    match answer {
        EvictionAnswer::Evicted => metrics::EvictionResult::Accepted,
        EvictionAnswer::Gone => metrics::EvictionResult::Gone,
        EvictionAnswer::BudgetExhausted { .. } => metrics::EvictionResult::Budget,
        EvictionAnswer::RateLimited { .. } => metrics::EvictionResult::Throttled,
        EvictionAnswer::SeveralBudgets
        | EvictionAnswer::Forbidden { .. }
        | EvictionAnswer::Conflict
        | EvictionAnswer::Failed { .. } => metrics::EvictionResult::Failed,
    }
}
