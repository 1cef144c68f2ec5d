//! One drain on its way: what is asked of the API next, what it waits for, and when it is over.

use super::budgets::{Covering, waits_for};
use super::look::{Look, Sight, overstayed};
use super::moment::Moment;
use super::orders::{DrainCommand, DrainEnd, DrainReport, Order};
use super::requests::{PodRequest, Returns};
use super::rescheduled::{Expected, OwnerKey, owner};
use super::rules::{
    DrainClock, DrainPolicy, NextStep, PodFate, SkipReason, Turn, classify, cut_grace, eviction_order,
    next_step, overdue, turns,
};
use crate::cluster::{Pod, Snapshot};
use crate::freshness::{Step, WatchedKind};
use crate::placement::PodName;
use crate::policy::{Policy, seconds};
use crate::reason::{BlockedReason, Blocker, EvictionAnswer, Reason};
use crate::record::DrainPurpose as Purpose;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Requests about one node's pods that are under way at the same time.
const PARALLEL: usize = 20;
/// A drain counts as stuck when no pod has left for so long.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long the watch may take to show that a pod ends whose eviction was granted.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// How long before an instance is ended at its deadline its node is to count as empty.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries of what will not succeed before somebody changes something.
const GIVEN_UP_FOR: Duration = Duration::from_secs(30);
/// A controller that has not made a successor within this time wants fewer pods than it had.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(30);
/// How often the pods of one controller may come back to the node before they are left there.
const MAX_RETURNS: u32 = 3;

/// The pods of the node, sorted by what becomes of them.
#[derive(Default)]
struct Sorted {
    evictable: Vec<Arc<Pod>>,
    /// How many pods the drain waits for, evictable ones included.
    staying: usize,
    /// Until when some of those hold the drain.
    held_until: Option<Timestamp>,
    /// Why some of those stay.
    reasons: Vec<Reason>,
    /// Pods that the drain does not wait for though they should have gone.
    left_behind: Vec<Reason>,
    /// Of these, the ones that come back to the node.
    came_back: usize,
}

/// One node's drain. It knows what was asked so far; if it is lost, a new one goes on from what the cluster
/// shows.
#[derive(Debug)]
pub struct Drain {
    command: DrainCommand,
    policy: Policy,
    expected: Expected,
    requests: HashMap<Arc<str>, PodRequest>,
    came_back: HashMap<OwnerKey, Returns>,
    staying: usize,
    progress_at: Duration,
    emptied_at: Option<Duration>,
    /// Since when the node has its marks, among them the label that takes it out of load balancers.
    marked_at: Option<Moment>,
    /// Whether it has gone by an old picture.
    blind: bool,
    wants_look: bool,
    report: DrainReport,
}

impl Drain {
    /// A drain that begins, or goes on in another process.
    #[must_use]
    pub fn new(command: DrainCommand, policy: Policy, snapshot: &Snapshot, now: Moment) -> Self {
        let expected = expected(&command, &policy, snapshot, now);
        let report = DrainReport { node: command.node.clone(), ..DrainReport::default() };
        Self {
            command,
            policy,
            expected,
            requests: HashMap::new(),
            came_back: HashMap::new(),
            staying: 0,
            progress_at: now.up,
            emptied_at: None,
            marked_at: None,
            blind: false,
            wants_look: false,
            report,
        }
    }

    /// Takes in a command for the same drain, or returns `false` if it is for another one: a second notice
    /// may have brought a deadline, a person may have changed the settings.
    pub fn renew(&mut self, command: &DrainCommand, policy: Policy) -> bool {
        let same = self.command.replacement == command.replacement && self.command.purpose == command.purpose;
        if same {
            self.command.clone_from(command);
            self.policy = policy;
        }
        same
    }

    /// What it is for.
    #[must_use]
    pub fn command(&self) -> &DrainCommand {
        &self.command
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> &DrainReport {
        &self.report
    }

    /// Whether the node's pods are to be listed anew: it goes on, or ends, by what the API server says of
    /// them.
    #[must_use]
    pub fn wants_look(&self) -> bool {
        self.wants_look
    }

    /// Goes through the node's pods and returns what is to be asked now. To be called whenever a pod or a
    /// budget changes, and now and then.
    ///
    /// On an old picture nothing ends, and what was found on one is found anew when it is current again.
    /// Before a deadline the drain goes on by what is known: the API server judges each eviction. After it
    /// another node may have the name, which an old picture of the nodes does not show.
    pub fn step(&mut self, sight: &Sight<'_>, now: Moment) -> Vec<Order> {
        self.wants_look = false;
        let stale: Vec<_> = sight.freshness.against(Step::End).into_iter().map(Reason::StaleWatch).collect();
        self.turn_blind(!stale.is_empty(), sight.snapshot, now);
        let is_before = |deadline| now.at < deadline || sight.freshness.is_current(WatchedKind::Node);
        if self.blind && !self.command.deadline.is_some_and(is_before) {
            self.wait_for(stale);
            return Vec::new();
        }
        let is_it = |index: &usize| self.command.is_about(&sight.snapshot.nodes()[*index]);
        let Some(node) = sight.snapshot.node_index(&self.command.node).filter(is_it) else {
            let gone_at = *self.emptied_at.get_or_insert(now.up);
            if self.blind {
                self.wait_for(stale);
            } else {
                // Or it was never shown.
                self.confirm(DrainEnd::Moved, sight.look, &|_| false, gone_at, now);
            }
            return Vec::new();
        };
        self.report.tainted |= sight.marked;
        if sight.marked {
            self.marked_at.get_or_insert(now);
        } else {
            // Pods may come again: the node counts as empty from a later moment on, if it is.
            (self.emptied_at, self.marked_at) = (None, None);
            // A deadline does not wait for marks that somebody refuses.
            if !sight.unmarkable || self.command.deadline.is_none() {
                let is_stuck = sight.unmarkable && now.up.saturating_sub(self.progress_at) >= STUCK_AFTER;
                let node = self.command.node.clone();
                self.wait_for(Vec::from_iter(is_stuck.then_some(Reason::NodeNotTainted { node })));
                return Vec::new();
            }
        }
        if self.report.end.is_some() {
            return Vec::new();
        }
        let (pods, known) = self.pods(sight, node, now);
        let there: HashSet<&str> = pods.iter().map(|pod| &*pod.uid).collect();
        self.requests.retain(|uid, _| there.contains(&**uid));
        let mut sorted = self.sort(&pods, now);
        if sorted.staying != self.staying {
            self.staying = sorted.staying;
            self.progress_at = now.up;
        }
        if sorted.staying == 0 {
            if self.blind || !sight.marked {
                self.emptied_at.get_or_insert(now.up);
                self.wait_for(stale);
            } else {
                self.finish(sorted, sight, &known, now);
            }
            return Vec::new();
        }
        self.emptied_at = None;
        // A budget that may have changed since is not gone by: the API server knows.
        let covering = match sight.freshness.is_current(WatchedKind::DisruptionBudget) {
            true => Covering::of(&sorted.evictable, sight.snapshot),
            false => Covering::default(),
        };
        let orders = self.orders(&sorted.evictable, &covering, &mut sorted.reasons, now);
        sorted.reasons.append(&mut sorted.left_behind);
        sorted.reasons.extend(stale);
        sorted.reasons.sort_by_cached_key(ToString::to_string);
        sorted.reasons.dedup();
        self.report.stuck = now.up.saturating_sub(self.progress_at) >= STUCK_AFTER;
        self.report.held_until = sorted.held_until;
        self.report.blocked = sorted.reasons;
        orders
    }

    /// The pods of the node, and of which of them, by their UID, the watch has told. Before a deadline the
    /// API server's word on others counts too.
    fn pods(&mut self, sight: &Sight<'_>, node: usize, now: Moment) -> (Vec<Arc<Pod>>, HashSet<Arc<str>>) {
        let snapshot = sight.snapshot;
        let shown = snapshot.pod_indexes_on(node).iter().map(|index| &snapshot.pods()[*index as usize]);
        let mut pods: Vec<Arc<Pod>> = shown.cloned().collect();
        let known: HashSet<Arc<str>> = pods.iter().map(|pod| pod.uid.clone()).collect();
        if self.command.deadline.is_some() {
            let unseen = sight.look.map(|look| look.unseen(&|uid| known.contains(uid), now.at));
            pods.extend(unseen.into_iter().flatten());
            self.wants_look = pods.len() > known.len() || !sight.freshness.is_current(WatchedKind::Pod);
        }
        (pods, known)
    }

    /// Nothing on the node is waited for: the drain ends when its pods run on other nodes and the API
    /// server lists no more.
    fn finish(&mut self, sorted: Sorted, sight: &Sight<'_>, known: &HashSet<Arc<str>>, now: Moment) {
        let emptied_at = *self.emptied_at.get_or_insert(now.up);
        if sorted.came_back > 0 && self.command.purpose == Purpose::Return {
            // They run here, so the node is not to end.
            self.end(DrainEnd::GivenUp(sorted.left_behind));
        } else if let Some(end) = self.await_successors(sorted.left_behind, sight.snapshot, emptied_at, now) {
            match self.serves_until(now).filter(|_| !matches!(end, DrainEnd::GivenUp(_))) {
                Some(until) => {
                    self.wait_for(vec![Reason::ConnectionsEnd { until }]);
                    (self.report.stuck, self.report.held_until) = (false, Some(until));
                }
                None => self.confirm(end, sight.look, &|uid| known.contains(uid), emptied_at, now),
            }
        }
    }

    /// Until when the instance may still serve connections that load balancers opened, if it may: from its
    /// label on for as long as the pool says, or as long as the deadline allows. The rule of the label:
    /// Kubernetes, "Well-Known Labels"; of the time: Elastic Load Balancing, "Deregistration delay".
    fn serves_until(&self, now: Moment) -> Option<Timestamp> {
        let (since, wait) = (self.marked_at?, seconds(self.policy.wait_before_termination_seconds));
        let left = wait.saturating_sub(now.up.saturating_sub(since.up));
        let until = match self.clock() {
            DrainClock::Patient => since.at + wait,
            DrainClock::Deadline(deadline) => (since.at + wait).min(deadline - CONFIRMED_WITHIN),
        };
        (!left.is_zero() && until > now.at).then_some(until)
    }

    /// Takes in whether the picture is old. What was found on an old one does not count when it is current
    /// again: it goes on then as another process would, from what the cluster shows.
    fn turn_blind(&mut self, blind: bool, snapshot: &Snapshot, now: Moment) {
        if blind {
            self.report.end = None;
        } else if self.blind {
            self.expected = expected(&self.command, &self.policy, snapshot, now);
            self.emptied_at = None;
            self.progress_at = now.up;
            self.wait_for(Vec::new());
        }
        self.blind = blind;
    }

    /// Nothing is asked until these reasons are gone.
    fn wait_for(&mut self, reasons: Vec<Reason>) {
        self.report.stuck = !reasons.is_empty();
        self.report.held_until = None;
        self.report.blocked = reasons;
    }

    /// Ends the drain if the API server has listed the node's pods since it looks empty, and says the same.
    fn confirm(
        &mut self,
        end: DrainEnd,
        look: Option<&Look>,
        known: &dyn Fn(&str) -> bool,
        emptied_at: Duration,
        now: Moment,
    ) {
        if self.report.end.is_some() {
            return;
        }
        if matches!(end, DrainEnd::GivenUp(_)) {
            // The node stays: nothing on it is lost.
            self.end(end);
            return;
        }
        let look = look.filter(|look| look.asked.up >= emptied_at);
        let against = look.map_or_else(Vec::new, |look| look.against(known, now.at));
        if look.is_some() && against.is_empty() {
            self.end(end);
        } else {
            self.wants_look = true;
            self.wait_for(against);
        }
    }

    /// Notes that a request is on its way; it will be [`Drain::answered`], if only that there was no answer.
    pub fn sent(&mut self, order: &Order) {
        let request = self.requests.entry(order.pod().uid.clone()).or_default();
        request.in_flight = true;
        request.deleted |= matches!(order, Order::Delete(..));
    }

    /// Takes in what the API answered.
    pub fn answered(&mut self, order: &Order, answer: &EvictionAnswer, now: Moment) {
        let pod = order.pod();
        let request = self.requests.entry(pod.uid.clone()).or_default();
        let step = next_step(answer, request.attempts, pod);
        let budget = request.budget.take();
        let (attempts, deleted) = (request.attempts.saturating_add(1), request.deleted);
        let refusal = (step != NextStep::Wait).then(|| answer.clone());
        *request = PodRequest { attempts, deleted, refusal, ..PodRequest::default() };
        match step {
            NextStep::Wait => {
                request.granted_until = Some(now.up + SHOWN_WITHIN);
                self.progress_at = now.up;
                if self.is_late(pod) {
                    self.came_back.entry(owner(pod)).or_default().count(pod.created, now.at);
                }
            }
            NextStep::RetryOnBudget(wait) => {
                request.not_before = Some(now.up + wait);
                request.budget = budget;
            }
            NextStep::Retry(wait) => request.not_before = Some(now.up + wait),
            NextStep::GiveUp => request.not_before = Some(now.up + GIVEN_UP_FOR),
        }
    }

    fn end(&mut self, end: DrainEnd) {
        self.report.end = Some(end);
        self.report.blocked.clear();
        (self.report.stuck, self.report.held_until) = (false, None);
    }

    fn pod_policy(&self) -> DrainPolicy {
        DrainPolicy::of(&self.policy, self.command.purpose, self.command.deadline.is_some())
    }

    /// Until when pods may hold the drain, if they may: a replacement has time as long as there is no
    /// deadline.
    fn may_hold_until(&self, now: Moment) -> Option<Timestamp> {
        let since = self.command.since?;
        let has_time = self.command.purpose == Purpose::Replace && self.command.deadline.is_none();
        let until = since + seconds(self.policy.pod_hold_seconds);
        (has_time && now.at < until).then_some(until)
    }

    fn clock(&self) -> DrainClock {
        // The instance is ended a little ahead of the deadline, so the pods have that much less.
        let ahead = seconds(self.policy.terminate_before_deadline_seconds);
        self.command.deadline.map_or(DrainClock::Patient, |deadline| DrainClock::Deadline(deadline - ahead))
    }

    /// Whether it is left on the node: its controller's pods come back each time. One that is just leaving is
    /// not.
    fn comes_back(&self, pod: &Pod, now: Moment) -> bool {
        let leaving = self.requests.get(&pod.uid).is_some_and(|request| request.is_under_way(now));
        let times = self.came_back.get(&owner(pod)).map_or(0, |returns| returns.times);
        self.is_late(pod) && !leaving && times >= MAX_RETURNS
    }

    /// Whether the pod was made after the node was tainted, and came to it all the same.
    fn is_late(&self, pod: &Pod) -> bool {
        self.marked_at.zip(pod.created).is_some_and(|(marked, created)| created > marked.at)
    }

    fn sort(&self, pods: &[Arc<Pod>], now: Moment) -> Sorted {
        let (policy, until) = (self.pod_policy(), self.may_hold_until(now));
        let mut sorted = Sorted::default();
        for pod in pods {
            let fate = classify(pod, &policy, now.at);
            if fate == PodFate::Evictable
                && let Some(until) = until
                && let PodFate::Blocked(reason) = classify(pod, &policy.holding(), now.at)
            {
                let own_end = pod.do_not_disrupt.filter(|_| reason == BlockedReason::DoNotDisrupt);
                let until = own_end.map_or(until, |end| end.min(until));
                sorted.staying += 1;
                sorted.held_until = Some(sorted.held_until.map_or(until, |held| held.min(until)));
                sorted.reasons.push(Reason::PodHolds { pod: PodName::from(&**pod), reason, until });
                continue;
            }
            match fate {
                PodFate::Skip(SkipReason::AlreadyTerminating) => match overstayed(pod, now.at) {
                    Some(overstayed) => sorted.left_behind.push(overstayed),
                    None => {
                        sorted.staying += 1;
                        sorted.reasons.push(Reason::PodTerminating { pod: PodName::from(&**pod) });
                    }
                },
                PodFate::Skip(_) => {}
                PodFate::Blocked(reason) => {
                    sorted.staying += 1;
                    sorted.reasons.push(Blocker::NotEvictable { pod: PodName::from(&**pod), reason }.into());
                }
                PodFate::Evictable if self.comes_back(pod, now) => {
                    sorted.came_back += 1;
                    sorted.left_behind.push(Reason::PodComesBack { pod: PodName::from(&**pod) });
                }
                PodFate::Evictable => {
                    sorted.staying += 1;
                    sorted.evictable.push(Arc::clone(pod));
                }
            }
        }
        sorted
    }

    /// What is to be asked now for the pods that may be evicted; adds why others have to wait.
    fn orders(
        &mut self,
        evictable: &[Arc<Pod>],
        covering: &Covering<'_>,
        reasons: &mut Vec<Reason>,
        now: Moment,
    ) -> Vec<Order> {
        let (policy, clock) = (self.pod_policy(), self.clock());
        let requested =
            |pod: &&Arc<Pod>| self.requests.get(&pod.uid).is_some_and(|request| request.is_under_way(now));
        let (requested, idle): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = evictable.iter().partition(requested);
        let under_way: Vec<&Pod> = requested.iter().map(|pod| &***pod).collect();
        let refs: Vec<&Pod> = idle.iter().map(|pod| &***pod).collect();
        let budgets = |pod: &Pod| covering.budgets(pod).to_vec();
        let mut order = eviction_order(&refs, &budgets);
        // Who waits after a refusal, or was asked before, keeps nobody from being asked for the first time.
        order.sort_by_key(|index| {
            let request = self.requests.get(&refs[*index].uid)?;
            let waits = request.not_before.is_some_and(|at| now.up < at);
            Some((waits, request.deleted, request.attempts > 0))
        });
        let ordered: Vec<&Pod> = order.iter().map(|index| refs[*index]).collect();
        let mut orders = Vec::new();
        for (index, turn) in order.iter().zip(turns(&ordered, &budgets, &under_way, PARALLEL)) {
            let pod = idle[*index];
            let request = self.requests.entry(pod.uid.clone()).or_default();
            let budget = covering.budgets(pod).first().copied();
            if request.budget.is_some() && request.budget.as_ref() != budget {
                (request.budget, request.not_before) = (None, None);
            }
            let may_ask = request.not_before.is_none_or(|at| now.up >= at);
            let overdue = overdue(pod, clock, now.at).filter(|_| !self.command.is_held);
            // An eviction that was not tried yet is as quick as a deletion, and spends its budget.
            let evict = turn == Turn::Now && (request.attempts == 0 || overdue.is_none());
            if evict && may_ask {
                request.budget = budget.cloned();
                let grace = cut_grace(pod, clock, now.at).filter(|_| self.command.is_announced);
                orders.push(Order::Evict(Arc::clone(pod), grace));
                continue;
            }
            reasons.extend(waits_for(pod, &turn, request.refusal.as_ref()));
            let has_slot = under_way.len() + orders.len() < PARALLEL;
            match overdue {
                Some(_) if !policy.delete_at_deadline => {
                    reasons.push(Reason::DeletionNotAllowed { pod: PodName::from(&**pod) });
                }
                Some(deletion) if has_slot && (may_ask || !request.deleted) => {
                    orders.push(Order::Delete(Arc::clone(pod), deletion));
                }
                _ => {}
            }
        }
        orders
    }

    /// The node is empty: how the drain ends, when as many pods run again elsewhere or when waiting for it
    /// ends.
    fn await_successors(
        &mut self,
        left_behind: Vec<Reason>,
        snapshot: &Snapshot,
        emptied_at: Duration,
        now: Moment,
    ) -> Option<DrainEnd> {
        let waited = now.up.saturating_sub(emptied_at);
        let unmet = self.expected.unmet(&self.command.node, snapshot);
        let patience = seconds(self.policy.reschedule_timeout_seconds);
        let patience = if unmet.coming { patience } else { patience.min(SUCCESSOR_WITHIN) };
        if !unmet.reasons.is_empty() && waited < patience {
            self.wait_for(unmet.reasons);
            self.report.stuck = waited >= STUCK_AFTER;
            return None;
        }
        if unmet.coming && self.command.purpose == Purpose::Return {
            // Without taint and cordon they find their place on this node again.
            return Some(DrainEnd::GivenUp(unmet.reasons));
        }
        let missing = [unmet.reasons, left_behind].concat();
        Some(if missing.is_empty() { DrainEnd::Moved } else { DrainEnd::Without(missing) })
    }
}

/// What is to be met when the node is drained.
fn expected(command: &DrainCommand, policy: &Policy, snapshot: &Snapshot, now: Moment) -> Expected {
    let young = seconds(policy.reschedule_timeout_seconds);
    let counted = |pod: &Pod| !pod.spec.is_placeholder(policy.placeholders_below());
    Expected::of(&command.node, command.since, young, snapshot, now.at, &counted)
}
