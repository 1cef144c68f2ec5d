//! Watches everything that a controller does in a world, and says when something that must always hold does
//! not: the invariants of ARCHITECTURE.md, judged from the cloud and the cluster as they are, never from what
//! the controller believes.
//!
//! An [`Auditor`] stands as a gate between one or more controllers and their world ([`Auditor::gates`]); each
//! call is judged at the moment when it is made, and once more when it has taken effect. [`Auditor::close`]
//! judges what is left when the stories are over.

use crate::clock::Clock;
use crate::crd::{NodeReplacement, SpotPool};
use crate::kube::marks;
use crate::sim::world::{Gates, TAINT};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spot_guard_cloud::cloud::{self, Cloud, GateCall, LifecycleState};
use spot_guard_cloud::cluster::{self, Cluster, ObjectKey, RequestInfo};
use spot_guard_core::ledger::{Ledger, RequestState, Share};
use spot_guard_core::policy::{Policy, seconds};
use spot_guard_core::record::{GroupKind, OldNodeState};
use spot_guard_core::replacement::Mode;
use spot_guard_core::time::since;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So long may a mark outlive its story, or the decision to take it back: a change of leaders included.
const MARKS_GO_WITHIN: Duration = Duration::from_secs(60);

/// So often at the most is a group changed in a minute: one call is made at a time, and the largest storm has
/// twenty nodes.
const CHANGES_A_MINUTE: usize = 30;

/// A deadline that lies further back, or further ahead, when its notice is stored is none. The API server
/// stores whole seconds.
const PAST_AT_MOST: Duration = Duration::from_secs(31);
const AHEAD_AT_MOST: Duration = Duration::from_secs(601);

/// What must always hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// One replacement per instance, however often and by whomever it is reported.
    OneReplacement,
    /// The sum of our changes to a group's desired capacity is zero when no story is open.
    BalancedDesired,
    /// No change to a group without a written request.
    WrittenRequest,
    /// Nothing is left in the ledger when the stories are over: what was brought is claimed or ended.
    NothingOwed,
    /// No node is marked before its replacement can take its pods, unless a deadline presses.
    ReplacementFirst,
    /// No PodDisruptionBudget is violated through us.
    BudgetsKept,
    /// No return begins while it is not safe.
    SafeReturn,
    /// No instance is ended while its node runs pods that could still move, unless at its deadline.
    DrainedFirst,
    /// No mark of ours stays on a node whose story is over.
    NoMarkLeft,
    /// No group is changed over and over, as when an instance is ended that comes back each time.
    NoChurn,
    /// A story is about a node that its own agent reported or a person asked about, and its deadline is one
    /// that this agent told and that can be true.
    OnlyReported,
}

/// Something that should have held.
#[derive(Clone, Debug)]
pub struct Violation {
    /// When.
    pub at: Timestamp,
    /// What should have held.
    pub invariant: Invariant,
    /// The object that it is about.
    pub object: String,
    /// What was found.
    pub found: String,
    /// The story so far, a line a step.
    pub story: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.3} {:?}: {}: {}", self.at, self.invariant, self.object, self.found)?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Watches the controllers of one world. Clones are the same auditor.
#[derive(Clone)]
pub struct Auditor {
    inner: Arc<Inner>,
}

struct Inner {
    cloud: Cloud,
    cluster: Cluster,
    clock: Clock,
    policy: Policy,
    /// So much may the clocks of the controllers differ from the world's.
    skew: Duration,
    began: Timestamp,
    state: Mutex<State>,
    read: Mutex<Read>,
}

/// Objects as they were read last: each is read from its JSON once per change.
#[derive(Default)]
struct Read {
    records: Memo<NodeReplacement>,
    nodes: Memo<Node>,
    pools: Memo<SpotPool>,
}

/// What was read of the objects of one kind, by namespace and name.
struct Memo<K>(BTreeMap<(String, String), (Arc<Value>, Arc<K>)>);

impl<K> Default for Memo<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: DeserializeOwned + ResourceExt> Memo<K> {
    fn all(&mut self, stored: Vec<Arc<Value>>) -> Vec<Arc<K>> {
        let mut held = std::mem::take(&mut self.0);
        for object in stored {
            let text =
                |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            let known = held.remove(&key).filter(|(seen, _)| Arc::ptr_eq(seen, &object));
            let read = known.or_else(|| {
                let read = cluster::readable(&object)?;
                Some((object, Arc::new(read)))
            });
            self.0.extend(read.map(|read| (key, read)));
        }
        self.0.values().map(|(_, read)| read.clone()).collect()
    }
}

#[derive(Default)]
struct State {
    /// Desired capacity of each group at the beginning.
    initial: BTreeMap<String, i64>,
    /// Nodes that carried marks before a write that is under way.
    marked_before: BTreeSet<String>,
    /// Since when a node carries marks that no story accounts for.
    stray: BTreeMap<String, Timestamp>,
    /// When each group was changed by us within the last minute.
    changed: BTreeMap<String, VecDeque<Timestamp>>,
    /// The record of each instance, by its uid.
    records: BTreeMap<String, String>,
    /// The instances whose records were open when they were last looked at.
    open: BTreeSet<String>,
    /// Every notice that was ever stored, by its uid.
    reports: BTreeMap<String, Report>,
    budget_violations: usize,
    log: Vec<(Timestamp, String)>,
    violations: Vec<Violation>,
}

/// What a notice said.
struct Report {
    node: String,
    instance: String,
    deadline: Option<Timestamp>,
    /// When the API server stored it.
    stored: Timestamp,
}

impl Report {
    fn of(notice: &Value) -> Option<Self> {
        let text = |path: &str| notice.pointer(path).and_then(Value::as_str);
        Some(Self {
            node: text("/spec/nodeName")?.to_owned(),
            instance: text("/spec/instanceId")?.to_owned(),
            deadline: text("/spec/deadline").and_then(|at| at.parse().ok()),
            stored: text("/metadata/creationTimestamp")?.parse().ok()?,
        })
    }

    /// Whether its deadline can be true, seen with a clock that differs by `skew`: AWS gives two minutes.
    fn is_plausible(&self, skew: Duration) -> bool {
        let (before, after) = (PAST_AT_MOST + skew, AHEAD_AT_MOST + skew);
        self.deadline.is_some_and(|at| self.stored - before <= at && at <= self.stored + after)
    }
}

impl Auditor {
    /// An auditor of a world on the simulated cluster.
    #[must_use]
    pub fn new(cloud: &Cloud, cluster: &Cluster, clock: Clock, policy: Policy) -> Self {
        Self::with_skew(cloud, cluster, clock, policy, Duration::ZERO)
    }

    /// The same for controllers whose clocks differ from the world's by `skew` at most.
    #[must_use]
    pub fn with_skew(cloud: &Cloud, cluster: &Cluster, clock: Clock, policy: Policy, skew: Duration) -> Self {
        let budget_violations = cluster.pdb_violations().len();
        let groups = cloud.snapshot().groups;
        let initial = groups.into_iter().map(|group| {
            let theirs = i64::from(group.desired) - group.added_by_others;
            (group.name, theirs)
        });
        let state = State { initial: initial.collect(), budget_violations, ..State::default() };
        Self {
            inner: Arc::new(Inner {
                cloud: cloud.clone(),
                cluster: cluster.clone(),
                clock,
                policy,
                skew,
                began: clock.now(),
                state: Mutex::new(state),
                read: Mutex::default(),
            }),
        }
    }

    /// Gates that see what a controller does before `next` does.
    #[must_use]
    pub fn gates(&self, next: Gates) -> Gates {
        Gates {
            kube: Some(Arc::new(KubeGate { auditor: self.clone(), next: next.kube })),
            aws: Some(Arc::new(AwsGate { auditor: self.clone(), next: next.aws })),
            clock: next.clock,
        }
    }

    /// What did not hold so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.state().violations.clone()
    }

    /// Judges what is left once the stories are over, and gives all that did not hold.
    #[must_use]
    pub fn close(&self) -> Vec<Violation> {
        self.watch_budgets();
        self.watch_balance();
        self.watch_marks(Duration::ZERO);
        for pool in self.pools() {
            let ledger = pool.status.clone().unwrap_or_default().ledger;
            if !ledger.is_settled() {
                let found = format!("the stories are over and the ledger holds {ledger:?}");
                self.violated(Invariant::NothingOwed, &pool.name_any(), found);
            }
        }
        self.violations()
    }

    /// What the controllers did, and what became of the stories, in order.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        let after = |at| since(self.inner.began, at).as_secs_f64();
        self.lines().iter().map(|(at, text)| format!("{:>8.1} s  {text}", after(*at))).collect()
    }

    /// The same with the time of each line.
    #[must_use]
    pub fn lines(&self) -> Vec<(Timestamp, String)> {
        let mut lines = self.state().log.clone();
        for record in self.records() {
            let steps = record.status.as_ref().map_or(&[][..], |status| &status.steps);
            lines.extend(steps.iter().map(|step| {
                let text = format!(
                    "box {} {} {:?}: {}",
                    step.flow_box.number(),
                    step.node,
                    step.outcome,
                    step.message
                );
                (step.at, text)
            }));
        }
        lines.sort_by_key(|(at, _)| *at);
        lines
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: String) {
        let now = self.inner.clock.now();
        self.state().log.push((now, line));
    }

    fn violated(&self, invariant: Invariant, object: &str, found: String) {
        let story = self.story();
        let at = self.inner.clock.now();
        let mut state = self.state();
        let known = |held: &Violation| held.invariant == invariant && held.object == object;
        if !state.violations.iter().any(known) {
            state.violations.push(Violation { at, invariant, object: object.to_owned(), found, story });
        }
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.inner.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> Vec<Arc<NodeReplacement>> {
        let stored = self.inner.cluster.list_json("nodereplacements.spotguard.dev");
        self.read().records.all(stored)
    }

    fn pools(&self) -> Vec<Arc<SpotPool>> {
        let stored = self.inner.cluster.list_json("spotpools.spotguard.dev");
        self.read().pools.all(stored)
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        let stored = self.inner.cluster.list_json("nodes");
        self.read().nodes.all(stored)
    }

    fn node_of(&self, instance: &str) -> Option<String> {
        Some(self.inner.cloud.node_of(instance)?.node_name)
    }

    fn node_is_ready(&self, node: &str) -> bool {
        let found: Option<Node> = self.inner.cluster.get("", node);
        let conditions = found.and_then(|node| node.status).and_then(|status| status.conditions);
        conditions.is_some_and(|all| all.iter().any(|held| held.type_ == "Ready" && held.status == "True"))
    }

    fn is_in_service(&self, instance: &str) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        let mut shares = groups.iter().flat_map(|group| &group.instances);
        shares.any(|share| {
            share.id == instance && share.state == LifecycleState::InService && share.machine_runs
        })
    }

    fn runs(&self, instance: &str) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        groups.iter().flat_map(|group| &group.instances).any(|held| held.id == instance && held.machine_runs)
    }

    /// What our calls have added to a group's desired capacity so far, and by how much others have lowered
    /// it.
    fn ours(&self, group: &str) -> (i64, i64) {
        let Some(found) = self.inner.cloud.group(group) else { return (0, 0) };
        let initial = self.state().initial.get(group).copied().unwrap_or(0);
        (i64::from(found.desired) - found.added_by_others - initial, found.lowered_by_others)
    }

    fn is_marked(&self, node: &str) -> bool {
        let found: Option<Node> = self.inner.cluster.get("", node);
        found.is_some_and(|node| marks::are_left_on(&node, TAINT))
    }

    /// A controller is about to change a group.
    fn before_change(&self, call: &GateCall) {
        self.note(format!(
            "AWS {} {}{}{}",
            call.operation,
            call.group.as_deref().unwrap_or("?"),
            call.instance.as_ref().map_or_else(String::new, |instance| format!(
                " {instance}{}",
                if call.decrement { " with decrement" } else { "" }
            )),
            call.desired.map_or_else(String::new, |desired| format!(" {desired}")),
        ));
        let Some(group) = &call.group else { return };
        self.watch_churn(group);
        if !self.is_written(call, group) {
            let found = format!("{call:?} is not what the stored ledger announces: {:?}", self.ledgers());
            self.violated(Invariant::WrittenRequest, group, found);
        }
        if let Some(instance) = &call.instance
            && call.operation == "TerminateInstanceInAutoScalingGroup"
        {
            self.check_drained(instance);
        }
    }

    /// A SetDesiredCapacity of a controller arrives long after it was made.
    ///
    /// # Errors
    /// When the group does not exist or cannot have so many.
    pub fn late_call(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        self.note(format!("AWS SetDesiredCapacity {group} {desired}, late"));
        self.inner.cloud.deliver_set_desired(group, desired)
    }

    fn watch_churn(&self, group: &str) {
        let now = self.inner.clock.now();
        let changes = {
            let mut state = self.state();
            let changed = state.changed.entry(group.to_owned()).or_default();
            changed.push_back(now);
            changed.retain(|at| since(*at, now) < Duration::from_secs(60));
            changed.len()
        };
        if changes > CHANGES_A_MINUTE {
            self.violated(Invariant::NoChurn, group, format!("changed {changes} times in a minute"));
        }
    }

    fn ledgers(&self) -> Vec<Ledger> {
        self.pools().iter().map(|pool| pool.status.clone().unwrap_or_default().ledger).collect()
    }

    /// Whether a stored ledger announces exactly this change.
    fn is_written(&self, call: &GateCall, group: &str) -> bool {
        self.pools().into_iter().any(|pool| {
            let ledger = pool.status.clone().unwrap_or_default().ledger;
            let in_state = |state| {
                ledger
                    .scaling_requests
                    .iter()
                    .filter(move |request| request.group_name == group && request.state == state)
            };
            let intended = || in_state(RequestState::Intended);
            let reduction = ledger.reduction.as_ref().filter(|reduction| reduction.group_name == group);
            match call.operation.as_str() {
                "SetDesiredCapacity" => {
                    let desired = call.desired.and_then(|desired| i32::try_from(desired).ok());
                    // What was launched without raising desired capacity is made to count.
                    let launched = || in_state(RequestState::Launched);
                    intended().chain(launched()).any(|request| Some(request.target) == desired)
                        || reduction.is_some_and(|reduction| {
                            reduction.instance_id.is_none() && Some(reduction.baseline - 1) == desired
                        })
                }
                "TerminateInstanceInAutoScalingGroup" => reduction.is_some_and(|reduction| {
                    reduction.instance_id == call.instance && (reduction.settles.is_some() || !call.decrement)
                }),
                "LaunchInstances" => intended().next().is_some(),
                _ => false,
            }
        })
    }

    /// The instance may be ended: nothing on its node could still move, or its deadline is there. What was on
    /// a machine that AWS has taken moves no more, nor does a pod whose grace period is over.
    fn check_drained(&self, instance: &str) {
        let Some(node) = self.node_of(instance).filter(|_| self.runs(instance)) else { return };
        let mut movable = self.inner.cluster.movable_pods_on(&node);
        let now = self.inner.clock.now();
        movable.retain(|pod| {
            let found: Option<Pod> = self.inner.cluster.get(&pod.namespace, &pod.name);
            let due = found.and_then(|pod| pod.metadata.deletion_timestamp);
            due.is_none_or(|due| due.0 > now)
        });
        if movable.is_empty() {
            return;
        }
        let ahead = seconds(self.inner.policy.end_before_deadline_seconds) + self.inner.skew;
        let pressed = self.records().iter().any(|record| {
            let deadline = record.status.as_ref().and_then(|status| status.deadline);
            record.spec.instance_id == instance && deadline.is_some_and(|deadline| now + ahead >= deadline)
        });
        if !pressed {
            let found = format!("it is to be ended while {node} runs {movable:?}");
            self.violated(Invariant::DrainedFirst, instance, found);
        }
    }

    /// A node has got its marks.
    fn check_marked(&self, node: &str) {
        self.note(format!("{node} is marked"));
        let records = self.records();
        let old = records.iter().find(|record| {
            let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
            record.spec.node_name == node && status.is_some_and(|status| status.old_node.drain().is_some())
        });
        if let Some(record) = old {
            self.check_replacement_first(node, record);
            return;
        }
        match records.iter().find(|record| returns(record, node)) {
            Some(record) => self.check_safe_return(node, record, &records),
            None if was_just_cancelled(&records, node, self.inner.clock.now()) => {}
            None if self.is_surplus(node) => {}
            None => {
                let found = "it is marked, and no record says that it is drained".to_owned();
                self.violated(Invariant::ReplacementFirst, node, found);
            }
        }
    }

    fn check_replacement_first(&self, node: &str, record: &NodeReplacement) {
        let Some(status) = &record.status else { return };
        let pool = record.spec.pool.as_ref();
        let acts =
            self.pools().iter().any(|held| Some(&held.name_any()) == pool && held.spec.mode == Mode::Act);
        if status.deadline.is_some() || !acts {
            return;
        }
        let found = match status.capacity.taken() {
            None => Some("it has no replacement".to_owned()),
            Some(capacity) if !self.is_in_service(&capacity.instance_id) => {
                Some(format!("its replacement {} is not in service", capacity.instance_id))
            }
            Some(capacity) if !self.node_is_ready(&capacity.node_name) => {
                Some(format!("its replacement {} is not Ready", capacity.node_name))
            }
            Some(_) => {
                let homeless = self.inner.cluster.homeless_without(node, &BTreeSet::new());
                (!homeless.is_empty()).then(|| format!("{homeless:?} would find no place elsewhere"))
            }
        };
        if let Some(found) = found {
            self.violated(Invariant::ReplacementFirst, node, format!("it is marked, and {found}"));
        }
    }

    fn check_safe_return(&self, node: &str, record: &NodeReplacement, all: &[Arc<NodeReplacement>]) {
        let Some(status) = &record.status else { return };
        let now = self.inner.clock.now();
        let stability = seconds(self.inner.policy.stability_seconds);
        let mut found = Vec::new();
        // A Spot node that is one more than the group is to have waits for no other.
        let surplus = status.capacity.taken().is_some_and(|capacity| capacity.group == GroupKind::Spot);
        match status.fallback.successor() {
            None if surplus || status.old_node.is_retained() => {}
            None => found.push("Spot has nothing for it".to_owned()),
            Some(spot) => {
                if !self.is_in_service(&spot.instance_id) || !self.node_is_ready(&spot.node_name) {
                    found.push(format!("its Spot node {} does not serve", spot.node_name));
                }
                let asked = status.fallback.requested_at().is_some();
                if !asked && since(spot.ready_at, now) + self.inner.skew < stability {
                    found.push(format!(
                        "its Spot node {} is Ready only since {}",
                        spot.node_name, spot.ready_at
                    ));
                }
            }
        }
        let fallbacks: BTreeSet<String> = all
            .iter()
            .filter_map(|other| other.status.as_ref())
            .filter(|status| status.fallback.is_open())
            .filter_map(|status| Some(status.capacity.taken()?.node_name.clone()))
            .collect();
        let homeless = self.inner.cluster.homeless_without(node, &fallbacks);
        if !homeless.is_empty() {
            found.push(format!("{homeless:?} would find no place elsewhere"));
        }
        found.extend(self.exhausted_budgets(node));
        let under_way = all.iter().filter(|other| {
            other.name_any() != record.name_any()
                && other.spec.pool == record.spec.pool
                && other.status.as_ref().is_some_and(|status| status.fallback.is_returning())
        });
        found.extend(under_way.map(|other| format!("the return of {} is under way", other.name_any())));
        if !found.is_empty() {
            self.violated(
                Invariant::SafeReturn,
                node,
                format!("its return begins, and {}", found.join(", ")),
            );
        }
    }

    /// The budgets that allow none of the node's pods to go. A pod that is pending asks its budget for
    /// nothing, nor does one that is not ready while enough others are healthy
    /// (pkg/registry/core/pod/storage/eviction.go).
    fn exhausted_budgets(&self, node: &str) -> Vec<String> {
        let budgets: Vec<PodDisruptionBudget> = self.inner.cluster.list();
        let pods: Vec<Pod> = self
            .inner
            .cluster
            .movable_pods_on(node)
            .iter()
            .filter_map(|pod| self.inner.cluster.get::<Pod>(&pod.namespace, &pod.name))
            .filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending"))
            .collect();
        budgets
            .iter()
            .filter(|budget| {
                let Some(status) = &budget.status else { return false };
                let desired = status.desired_healthy.unwrap_or(0);
                let enough = desired > 0 && status.current_healthy.unwrap_or(0) >= desired;
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                let labels = selector.and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
                status.disruptions_allowed.unwrap_or(0) <= 0
                    && pods.iter().filter(|pod| is_ready(pod) || !enough).any(|pod| {
                        budget.namespace() == pod.namespace()
                            && labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
                    })
            })
            .map(|budget| format!("PodDisruptionBudget {} has no room", budget.name_any()))
            .collect()
    }

    /// A record was written.
    fn watch_records(&self) {
        for record in self.records() {
            let uid = record.uid().unwrap_or_default();
            let instance = record.spec.instance_id.clone();
            let other = self.state().records.insert(instance.clone(), uid.clone());
            if other.as_ref().is_some_and(|other| *other != uid) {
                let found = format!("it has a second record {}", record.name_any());
                self.violated(Invariant::OneReplacement, &instance, found);
            }
            self.watch_reported(&record);
        }
        self.watch_balance();
    }

    /// Remembers the notices that are there now: who refuses one may remove it.
    fn read_notices(&self) {
        for notice in self.inner.cluster.list_json("interruptionnotices.spotguard.dev") {
            let uid = notice.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            let mut state = self.state();
            if !state.reports.contains_key(uid) {
                state.reports.extend(Report::of(&notice).map(|report| (uid.to_owned(), report)));
            }
        }
    }

    /// A story begins, or has a deadline, only because of who may say so.
    fn watch_reported(&self, record: &NodeReplacement) {
        let (node, instance) = (&record.spec.node_name, &record.spec.instance_id);
        let status = record.status.as_ref();
        if status.is_some_and(|status| status.phase().is_finished()) {
            self.state().open.remove(instance);
            return;
        }
        let begins = self.state().open.insert(instance.clone());
        let deadline = status.and_then(|status| status.deadline);
        let skew = self.inner.skew;
        let (reported, told) = {
            let state = self.state();
            let mut own =
                state.reports.values().filter(|told| told.node == *node && told.instance == *instance);
            let told = own.clone().any(|told| told.deadline == deadline && told.is_plausible(skew));
            (own.next().is_some(), told)
        };
        let mut found = Vec::new();
        if begins && !reported && !self.is_asked_for(node) {
            found.push("neither its agent nor a person has asked for it".to_owned());
        }
        if begins && self.true_node_of(instance).is_some_and(|real| real != *node) {
            found.push(format!("{instance} is not the instance of {node}"));
        }
        if let Some(deadline) = deadline.filter(|_| !told) {
            found.push(format!("its agent has told no such deadline that can be true: {deadline}"));
        }
        if !found.is_empty() {
            self.violated(
                Invariant::OnlyReported,
                instance,
                format!("its story is open, and {}", found.join(", ")),
            );
        }
    }

    /// Whether a person has asked for the node's replacement.
    fn is_asked_for(&self, node: &str) -> bool {
        let triggers = self.inner.cluster.list_json("triggers.spotguard.dev");
        triggers.iter().any(|trigger| {
            let spec = &trigger["spec"];
            spec["action"].as_str() == Some("Replace") && spec["node"].as_str() == Some(node)
        })
    }

    /// The node of an instance as the cloud has it, or by its Node.
    fn true_node_of(&self, instance: &str) -> Option<String> {
        self.node_of(instance).or_else(|| {
            let nodes = self.nodes();
            let is_its = |node: &&Arc<Node>| {
                let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
                id.and_then(|id| id.rsplit('/').next()) == Some(instance)
            };
            nodes.iter().find(is_its).map(|node| node.name_any())
        })
    }

    /// No story of a pool is open: what we changed must have been changed back.
    fn watch_balance(&self) {
        let records = self.records();
        let open = |pool: &str| {
            records.iter().any(|record| {
                record.spec.pool.as_deref() == Some(pool)
                    && record.status.as_ref().is_none_or(|status| !status.phase().is_finished())
            })
        };
        let pools = self.pools();
        let busy: BTreeSet<&String> = pools
            .iter()
            .filter(|pool| open(&pool.name_any()))
            .flat_map(|pool| [&pool.spec.spot_group, &pool.spec.on_demand_group])
            .collect();
        for pool in &*pools {
            for group in [&pool.spec.spot_group, &pool.spec.on_demand_group] {
                // A pool that is not accepted may name the group of another one.
                if busy.contains(group) {
                    continue;
                }
                let (sum, lowered) = self.ours(group);
                // What others took out while we waited for it may have been asked for again.
                if !(0..=lowered).contains(&sum) {
                    let found =
                        format!("no story is open, and our changes to desired capacity sum up to {sum:+}");
                    self.violated(Invariant::BalancedDesired, group, found);
                }
            }
        }
    }

    fn watch_budgets(&self) {
        let all = self.inner.cluster.pdb_violations();
        let known = std::mem::replace(&mut self.state().budget_violations, all.len());
        for violation in all.iter().skip(known) {
            // Whether it is deleted, or evicted while others are deleted: the deadline leaves no choice.
            if self.is_overdue(&violation.pod, violation.at) {
                continue;
            }
            let found = format!(
                "{} took {}: {} healthy, {} wanted",
                violation.by, violation.pod.name, violation.healthy, violation.desired
            );
            self.violated(Invariant::BudgetsKept, &violation.budget.name, found);
        }
    }

    /// Whether the deadline of the pod's node leaves no more than its grace period, and the pool allows to
    /// delete it.
    fn is_overdue(&self, pod: &ObjectKey, now: Timestamp) -> bool {
        let found: Option<Pod> = self.inner.cluster.get(&pod.namespace, &pod.name);
        let Some(spec) = found.and_then(|pod| pod.spec) else { return false };
        let node = spec.node_name.unwrap_or_default();
        let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or_default();
        let policy = &self.inner.policy;
        let ahead =
            seconds(policy.end_before_deadline_seconds) + self.inner.skew + Duration::from_secs(grace);
        policy.delete_at_deadline
            && self.records().iter().any(|record| {
                let deadline = record.status.as_ref().and_then(|status| status.deadline);
                record.spec.node_name == node && deadline.is_some_and(|deadline| now + ahead >= deadline)
            })
    }

    /// Whether the node's instance is being ended, or its group holds an instance more than is wanted: it is
    /// to take no pods then, if none run on it.
    fn is_surplus(&self, node: &str) -> bool {
        let groups = self.inner.cloud.snapshot().groups;
        let held = groups.iter().find_map(|group| {
            let instance = group.instances.iter().find(|instance| instance.node_name == node)?;
            Some((group, instance.state))
        });
        held.is_some_and(|(group, state)| {
            let surplus = |pool: &Arc<SpotPool>| {
                let ledger = pool.status.clone().unwrap_or_default().ledger;
                kind_in(pool, &group.name).is_some_and(|kind| ledger.shares(kind).any(Share::is_raised))
            };
            state.is_ending() || self.pools().iter().any(surplus)
        })
    }

    /// Marks without a story must go within `patience`.
    fn watch_marks(&self, patience: Duration) {
        let now = self.inner.clock.now();
        let records = self.records();
        let nodes = self.nodes();
        let covered = |node: &str| {
            records.iter().any(|record| {
                let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
                status.is_some_and(|status| {
                    let begun = status.old_node.drain().is_some() || status.old_node == OldNodeState::Gone {};
                    record.spec.node_name == node && begun
                }) || returns(record, node)
            }) || self.is_surplus(node) && self.inner.cluster.movable_pods_on(node).is_empty()
        };
        let stray: BTreeSet<String> = nodes
            .iter()
            .filter(|node| marks::are_left_on(node, TAINT))
            .map(|node| node.name_any())
            .filter(|node| !covered(node))
            .collect();
        let mut state = self.state();
        state.stray.retain(|node, _| stray.contains(node));
        let late: Vec<(String, Timestamp)> = stray
            .into_iter()
            .map(|node| {
                let first = *state.stray.entry(node.clone()).or_insert(now);
                (node, first)
            })
            .filter(|(_, first)| patience.is_zero() || since(*first, now) > patience)
            .collect();
        drop(state);
        for (node, first) in late {
            let found = format!("it carries marks that no story accounts for, since {first:.0}");
            self.violated(Invariant::NoMarkLeft, &node, found);
        }
    }
}

/// Which of the pool's groups it is.
fn kind_in(pool: &SpotPool, group: &str) -> Option<GroupKind> {
    let spec = &pool.spec;
    let kinds = [(&spec.spot_group, GroupKind::Spot), (&spec.on_demand_group, GroupKind::OnDemand)];
    kinds.into_iter().find(|(name, _)| *name == group).map(|(_, kind)| kind)
}

/// Whether the story of the node was cancelled so recently that its marks may still have been on their way.
fn was_just_cancelled(records: &[Arc<NodeReplacement>], node: &str, now: Timestamp) -> bool {
    let statuses = records.iter().filter(|record| record.spec.node_name == node);
    let mut released =
        statuses.filter_map(|record| record.status.as_ref()).filter(|status| status.old_node.is_retained());
    released.any(|status| status.phase_since.is_some_and(|at| since(at, now) < MARKS_GO_WITHIN))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|held| held.type_ == "Ready" && held.status == "True"))
}

/// Whether the record's on-demand node is `node`, and on its way back.
fn returns(record: &NodeReplacement, node: &str) -> bool {
    let status = record.status.as_ref().filter(|status| !status.phase().is_finished());
    status.is_some_and(|status| {
        status.fallback.is_returning()
            && status.capacity.taken().is_some_and(|capacity| capacity.node_name == node)
    })
}

struct AwsGate {
    auditor: Auditor,
    next: Option<Arc<dyn cloud::CallGate>>,
}

impl cloud::CallGate for AwsGate {
    fn before_call(&self, call: &GateCall) -> cloud::CallFate {
        let verdict = self.next.as_ref().map_or(cloud::CallFate::Pass, |next| next.before_call(call));
        if call.changes() && matches!(verdict, cloud::CallFate::Pass | cloud::CallFate::Delay(_)) {
            self.auditor.before_change(call);
        }
        verdict
    }

    fn after_call(&self, call: &GateCall) -> cloud::CallFate {
        self.next.as_ref().map_or(cloud::CallFate::Pass, |next| next.after_call(call))
    }
}

struct KubeGate {
    auditor: Auditor,
    next: Option<Arc<dyn cluster::RequestGate>>,
}

/// Whether a request writes.
#[must_use]
pub fn is_write(request: &RequestInfo) -> bool {
    matches!(request.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
}

impl cluster::RequestGate for KubeGate {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        let verdict = self.next.as_ref().map_or(cluster::RequestFate::Pass, |next| next.before(request));
        if is_write(request)
            && matches!(request.resource.as_str(), "nodereplacements" | "interruptionnotices")
        {
            self.auditor.read_notices();
        }
        if is_write(request)
            && request.resource == "nodes"
            && let Some(node) = &request.name
            && self.auditor.is_marked(node)
        {
            self.auditor.state().marked_before.insert(node.clone());
        }
        verdict
    }

    fn after(&self, request: &RequestInfo, status: u16) -> cluster::RequestFate {
        let auditor = &self.auditor;
        if is_write(request) {
            match (request.resource.as_str(), request.subresource.as_str()) {
                ("nodes", _) => {
                    let node = request.name.clone().unwrap_or_default();
                    let before = auditor.state().marked_before.remove(&node);
                    let now = auditor.is_marked(&node);
                    if now && !before {
                        auditor.check_marked(&node);
                    } else if before && !now {
                        auditor.note(format!("{node} is no longer marked"));
                    }
                }
                ("nodereplacements", _) => auditor.watch_records(),
                ("pods", subresource) => {
                    let what = if subresource == "eviction" { "eviction" } else { "deletion" };
                    let pod = request.name.as_deref().unwrap_or_default();
                    auditor.note(format!("{what} of pod {pod}: {status}"));
                    auditor.watch_budgets();
                }
                _ => {}
            }
            auditor.watch_marks(MARKS_GO_WITHIN);
        }
        self.next.as_ref().map_or(cluster::RequestFate::Pass, |next| next.after(request, status))
    }
}
