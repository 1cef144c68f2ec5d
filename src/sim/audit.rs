//! Watches everything that a controller does in a world, and says when something that must always hold does
//! not: the invariants of ARCHITECTURE.md, judged from the cloud and the cluster as they are, never from what
//! the controller believes.
//!
//! An [`Auditor`] stands as a gate between one or more controllers and their world ([`Auditor::gates`]); each
//! call is judged at the moment when it is made, and once more when it has taken effect. [`Auditor::close`]
//! judges what is left when the replacements are over.

mod drains;
mod gates;
mod groups;
mod look;
mod memo;
mod places;
mod reports;
mod returns;

use crate::clock::Clock;
use jiff::Timestamp;
use kube::ResourceExt;
use memo::Read;
use serde_json::Value;
use spot_guard_cloud::cloud::Cloud;
use spot_guard_cloud::cluster::{Cluster, RequestInfo};
use spot_guard_core::ids::ReplacementName;
use spot_guard_core::policy::Policy;
use spot_guard_core::time::since;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A deadline that lies further back, or further ahead, when its notice is stored is none. The API server
/// stores whole seconds.
const PAST_AT_MOST: Duration = Duration::from_secs(31);
const AHEAD_AT_MOST: Duration = Duration::from_secs(601);

/// What must always hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// One replacement per instance, however often and by whomever it is reported.
    OneReplacement,
    /// The sum of our changes to a group's desired capacity is zero when no replacement is open.
    BalancedDesired,
    /// No change to a group without a written request.
    WrittenRequest,
    /// Nothing is left in the ledger when the replacements are over: what was brought is claimed or ended.
    NothingOwed,
    /// No node is marked before its replacement can take its pods, unless a deadline presses.
    ReplacementFirst,
    /// No PodDisruptionBudget is violated through us.
    BudgetsKept,
    /// No return begins while it is not safe.
    SafeReturn,
    /// No instance is ended while its node runs pods that could still move, unless at its deadline.
    DrainedFirst,
    /// No mark of ours stays on a node whose replacement is over.
    NoMarkLeft,
    /// No pod leaves a node that no replacement is about: it may have the name of one that is gone.
    RightNode,
    /// No group is changed over and over, as when an instance is ended that comes back each time.
    NoChurn,
    /// A replacement is about a node that its own agent reported or a person asked about. Its deadline is one
    /// that this agent told and that can be true.
    OnlyReported,
    /// No stand-in is requested for more Spot instances than are missing.
    OnlyMissing,
    /// No on-demand instance is given back that no replacement requested, unless it is above the baseline.
    OnlyAboveBaseline,
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
    /// What happened so far, a line a step.
    pub steps: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.3} {:?}: {}: {}", self.at, self.invariant, self.object, self.found)?;
        self.steps.iter().try_for_each(|line| writeln!(f, "    {line}"))
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

#[derive(Default)]
struct State {
    /// Desired capacity of each group at the beginning.
    initial: BTreeMap<String, i64>,
    /// Nodes that carried marks before a write that is under way.
    marked_before: BTreeSet<String>,
    /// Since when a node carries marks that no replacement accounts for.
    stray: BTreeMap<String, Timestamp>,
    /// Groups whose pools had an open replacement when they were last looked at.
    unsettled: BTreeSet<String>,
    /// By how much others had lowered each group by then, and how much of it while a replacement was open.
    lowered: BTreeMap<String, (i64, i64)>,
    /// Until when nobody can list nodes, records or pools, so nobody can tell which marks are to go.
    blind_until: Option<Timestamp>,
    /// When each group was changed by us within the last minute.
    changed: BTreeMap<String, VecDeque<Timestamp>>,
    /// The record of each instance, and whether it is in a pool, by its uid.
    records: BTreeMap<(String, bool), String>,
    /// The instances whose records were open when they were last looked at.
    open: BTreeSet<String>,
    /// The records of stand-ins that were seen, by name.
    places: BTreeSet<String>,
    /// The adopted instances whose termination was called.
    adopted: BTreeMap<String, Moved>,
    /// The adoptions whose instance others took once Spot had taken over, each with its Spot group.
    taken_over: BTreeMap<ReplacementName, String>,
    /// Every notice that was ever stored, by its uid.
    reports: BTreeMap<String, Report>,
    budget_violations: usize,
    log: Vec<(Timestamp, String)>,
    violations: Vec<Violation>,
}

/// Where the capacity of an adopted instance went.
struct Moved {
    /// Its group.
    from: String,
    /// The Spot group, if one more instance was requested of it.
    to: Option<String>,
}

/// What a notice said.
struct Report {
    node: String,
    instance: String,
    deadline: Option<Timestamp>,
    /// When the API server stored it.
    stored: Timestamp,
    /// Whether it tells of maintenance, which EC2 announces weeks ahead.
    maintenance: bool,
}

impl Report {
    fn of(notice: &Value) -> Option<Self> {
        let text = |path: &str| notice.pointer(path).and_then(Value::as_str);
        Some(Self {
            node: text("/spec/nodeName")?.to_owned(),
            instance: text("/spec/instanceId")?.to_owned(),
            deadline: text("/spec/deadline").and_then(|at| at.parse().ok()),
            stored: text("/metadata/creationTimestamp")?.parse().ok()?,
            maintenance: text("/spec/kind") == Some("ScheduledMaintenance"),
        })
    }

    /// Whether its deadline can be true, seen with a clock that differs by `skew`: AWS gives two minutes.
    fn is_plausible(&self, skew: Duration) -> bool {
        let (before, after) = (PAST_AT_MOST + skew, AHEAD_AT_MOST + skew);
        self.deadline
            .is_some_and(|at| self.stored - before <= at && (self.maintenance || at <= self.stored + after))
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

    /// What did not hold so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.state().violations.clone()
    }

    /// Judges what is left once the replacements are over, and gives all that did not hold.
    #[must_use]
    pub fn close(&self) -> Vec<Violation> {
        self.watch_budgets();
        self.watch_balance();
        self.watch_marks(Duration::ZERO);
        for pool in self.pools() {
            let ledger = pool.status.clone().unwrap_or_default().ledger;
            if !ledger.is_settled() {
                let found = format!("the replacements are over and the ledger holds {ledger:?}");
                self.violated(Invariant::NothingOwed, &pool.name_any(), found);
            }
        }
        self.violations()
    }

    /// What the controllers did, and what became of the replacements, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
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
        let steps = self.steps();
        let at = self.inner.clock.now();
        let mut state = self.state();
        let known = |held: &Violation| held.invariant == invariant && held.object == object;
        if !state.violations.iter().any(known) {
            state.violations.push(Violation { at, invariant, object: object.to_owned(), found, steps });
        }
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.inner.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request writes.
#[must_use]
pub fn is_write(request: &RequestInfo) -> bool {
    matches!(request.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
}
