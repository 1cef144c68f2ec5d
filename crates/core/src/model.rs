//! The core against a small made-up cloud: random stories with crashes, lost answers, instances that AWS
//! takes and other people who change the groups. At the end every story is over and the groups are as they
//! were.

mod exhaustive;

use crate::freshness::Freshness;
use crate::group::{FailedActivity, FailureClass, GroupView, Instance, Lifecycle, PoolView};
use crate::health::{self, PoolReplacement};
use crate::ids::{InstanceId, NodeName, ReplacementName};
use crate::ledger::{Ledger, RequestState, Share};
use crate::limits::Starts;
use crate::policy::Policy;
use crate::reason::NodeTrouble;
use crate::record::{
    FallbackState, GroupKind, NoticeKind, OldNodeState, Phase, ReplacedBy, ReplacementStatus,
};
use crate::replacement::{
    self, Commands, DrainEnd, DrainPurpose, DrainReport, Facts, Fit, Mode, NodeFact, RebalanceMode, Subject,
};
use crate::scaling::calls::{Call, Deferred};
use crate::scaling::inputs::Inputs;
use crate::scaling::instances::{InstanceFacts, Trouble};
use crate::scaling::wants::{End, Want, Wants, withdrawn};
use crate::scaling::{self, answers};
use crate::spot_action::{self, ActionKind, ActionStage, RequestedAction};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

const KINDS: [GroupKind; 2] = [GroupKind::Spot, GroupKind::OnDemand];
const LAUNCH_RETRY: Duration = Duration::from_secs(30);

/// What a call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The process dies between the stored intent and the call.
    BeforeCall,
    /// The call takes effect; its answer is lost, or the process dies before it stores the outcome.
    LostAnswer,
    /// The call takes effect or not, and the process hears nothing of it.
    NoAnswer {
        works: bool,
    },
    /// AWS asks to slow down.
    Throttled,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    Track,
    Tell,
    Scale(Fault),
    Drain,
    Take(usize),
    OthersRaise(GroupKind),
    /// cluster-autoscaler deletes the placeholders of what is missing: desired becomes what is there. For the
    /// exploration alone: at random, others raise and erase until a group is at its maximum without any room
    /// for us.
    OthersErase(GroupKind),
    Capacity(GroupKind, Option<u32>),
    Notice(bool),
    Escalate(usize),
    BootFails(GroupKind),
    /// The node of the next instance never joins.
    NeverJoins(GroupKind),
    /// From here on nobody deletes the Node objects of instances that are gone.
    NodesStay,
    Action(ActionKind, usize),
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![Just(GroupKind::Spot), Just(GroupKind::OnDemand)];
    prop_oneof![
        6 => prop_oneof![Just(1_u64), Just(10), Just(60), Just(200)].prop_map(Event::Pass),
        5 => Just(Event::Track),
        5 => Just(Event::Tell),
        5 => Just(Event::Scale(Fault::None)),
        2 => Just(Event::Scale(Fault::BeforeCall)),
        2 => Just(Event::Scale(Fault::LostAnswer)),
        2 => any::<bool>().prop_map(|works| Event::Scale(Fault::NoAnswer { works })),
        1 => Just(Event::Scale(Fault::Throttled)),
        3 => Just(Event::Drain),
        1 => (0..8_usize).prop_map(Event::Take),
        1 => kind.clone().prop_map(Event::OthersRaise),
        2 => (kind.clone(), prop_oneof![Just(Some(0)), Just(Some(1)), Just(None)])
            .prop_map(|(kind, left)| Event::Capacity(kind, left)),
        2 => any::<bool>().prop_map(Event::Notice),
        1 => (0..3_usize).prop_map(Event::Escalate),
        1 => kind.clone().prop_map(Event::BootFails),
        1 => kind.prop_map(Event::NeverJoins),
        1 => Just(Event::NodesStay),
        1 => (0..3_usize).prop_map(|number| Event::Action(ActionKind::Cancel, number)),
        1 => (0..3_usize).prop_map(|number| Event::Action(ActionKind::Return, number)),
    ]
}

fn subject(id: &str) -> Subject {
    Subject { name: id.into(), node: id.into(), instance_id: id.into(), in_pool: true, adopted: false }
}

#[derive(Clone, Debug)]
struct FakeInstance {
    id: InstanceId,
    lifecycle: Lifecycle,
    /// When its present state ends.
    until: Timestamp,
    has_pods: bool,
    dies: bool,
    /// It gets in service, and its node never joins.
    never_joins: bool,
    /// Desired capacity does not count it (yet).
    beyond: bool,
}

impl FakeInstance {
    fn is_beyond(&self) -> bool {
        self.beyond && self.lifecycle != Lifecycle::Leaving
    }

    fn has_node(&self) -> bool {
        self.lifecycle != Lifecycle::Pending && !self.never_joins
    }
}

#[derive(Clone, Debug)]
struct FakeGroup {
    desired: i32,
    max: i32,
    /// What the market still gives; `None` is all that is asked for.
    left: Option<u32>,
    instances: Vec<FakeInstance>,
    failures: Vec<FailedActivity>,
    retry_at: Timestamp,
    boots_fail: u32,
    nodes_fail: u32,
    /// How long an instance needs to get in service, and to go.
    boot: Duration,
    leave: Duration,
}

impl FakeGroup {
    fn active(&self) -> i32 {
        let active = self.instances.iter().filter(|instance| instance.lifecycle != Lifecycle::Leaving);
        i32::try_from(active.count()).unwrap_or(i32::MAX)
    }

    /// Those that are held against desired capacity.
    fn counted(&self) -> i32 {
        let beyond = self.instances.iter().filter(|held| held.is_beyond()).count();
        self.active() - i32::try_from(beyond).unwrap_or(i32::MAX)
    }

    /// Desired capacity is changed: what is beyond it is what a raise finds there already.
    fn set_desired(&mut self, desired: i32) {
        let raised = usize::try_from(desired - self.desired).unwrap_or(0);
        self.desired = desired;
        let beyond = self.instances.iter_mut().filter(|held| held.is_beyond());
        beyond.take(raised).for_each(|held| held.beyond = false);
    }
}

/// When LaunchInstances raises desired capacity; AWS does not document it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raises {
    AtOnce,
    /// So many seconds later.
    Later(u64),
}

/// A new instance of a group.
fn launch(
    group: &mut FakeGroup,
    (kind, ours): (GroupKind, bool),
    next_id: &mut usize,
    now: Timestamp,
) -> InstanceId {
    *next_id += 1;
    let dies = group.boots_fail > 0;
    group.boots_fail = group.boots_fail.saturating_sub(1);
    // What others have launched is theirs to mend.
    let never_joins = ours && group.nodes_fail > 0;
    group.nodes_fail -= u32::from(never_joins);
    let id: InstanceId = format!("{}-{next_id}", kind.slug()).into();
    let lifecycle = Lifecycle::Pending;
    let until = now + group.boot;
    group.instances.push(FakeInstance {
        id: id.clone(),
        lifecycle,
        until,
        has_pods: false,
        dies,
        never_joins,
        beyond: false,
    });
    id
}

#[derive(Clone)]
struct World {
    now: Timestamp,
    policy: Policy,
    groups: BTreeMap<GroupKind, FakeGroup>,
    baseline: BTreeMap<GroupKind, i32>,
    others: BTreeMap<GroupKind, i32>,
    /// What others have taken out of desired, and how much of it is still to be made up for.
    lowered: BTreeMap<GroupKind, i32>,
    erased: BTreeMap<GroupKind, i32>,
    /// Stored: survives every crash.
    ledger: Ledger,
    records: BTreeMap<ReplacementName, ReplacementStatus>,
    /// What the tracker last told the scaler.
    told: (Wants, BTreeSet<End>, InstanceFacts),
    /// What the scaler knew when it wrote the ledger: who wants nothing any more.
    withdrawn: BTreeSet<ReplacementName>,
    drained: BTreeSet<(NodeName, DrainPurpose)>,
    /// The idle instances that are cordoned, to be ended.
    cordoned: BTreeSet<InstanceId>,
    old: Vec<InstanceId>,
    /// Whether the Node objects of instances that are gone stay, and those that have.
    nodes_stay: bool,
    left_nodes: BTreeSet<InstanceId>,
    next_id: usize,
    calls: usize,
    asks: usize,
    /// Whether the Spot group replaces its instances by itself (Capacity Rebalancing).
    by_group: bool,
    /// The instances of such a group that are at risk, and when EC2 takes them.
    at_risk: BTreeMap<InstanceId, Option<Timestamp>>,
    /// Whether the groups can be asked with LaunchInstances; what AWS answered to each token.
    can_launch: bool,
    raises: Raises,
    raises_due: Vec<(Timestamp, GroupKind)>,
    answers: BTreeMap<String, Answer>,
    trace: String,
}

/// What LaunchInstances gave: instances, and why there are not more.
type Answer = (Vec<InstanceId>, Vec<(FailureClass, String)>);

impl World {
    fn new(can_launch: bool, raises: Raises) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let group = |desired, max| FakeGroup {
            desired,
            max,
            left: None,
            instances: Vec::new(),
            failures: Vec::new(),
            retry_at: now,
            boots_fail: 0,
            nodes_fail: 0,
            boot: Duration::from_secs(45),
            leave: Duration::from_secs(20),
        };
        let mut world = Self {
            now,
            policy: Policy::default(),
            groups: [(GroupKind::Spot, group(3, 6)), (GroupKind::OnDemand, group(0, 3))].into(),
            baseline: [(GroupKind::Spot, 3), (GroupKind::OnDemand, 0)].into(),
            others: BTreeMap::new(),
            lowered: BTreeMap::new(),
            erased: BTreeMap::new(),
            ledger: Ledger::default(),
            records: BTreeMap::new(),
            told: (Wants::new(), BTreeSet::new(), InstanceFacts::default()),
            withdrawn: BTreeSet::new(),
            drained: BTreeSet::new(),
            cordoned: BTreeSet::new(),
            old: Vec::new(),
            nodes_stay: false,
            left_nodes: BTreeSet::new(),
            next_id: 0,
            calls: 0,
            asks: 0,
            by_group: false,
            at_risk: BTreeMap::new(),
            can_launch,
            raises,
            raises_due: Vec::new(),
            answers: BTreeMap::new(),
            trace: String::new(),
        };
        world.reconcile();
        for instance in &mut world.groups.get_mut(&GroupKind::Spot).expect("a group").instances {
            instance.lifecycle = Lifecycle::InService;
            instance.has_pods = true;
            world.old.push(instance.id.clone());
        }
        world
    }

    fn say(&mut self, text: &str) {
        let _ = writeln!(self.trace, "{:>6} {text}", self.now.as_second() - 1_767_225_600);
    }

    fn fail(&self, text: &str) -> ! {
        panic!("{text}\nledger {:#?}\nrecords {:#?}\n{}", self.ledger, self.records, self.trace)
    }

    /// The groups do what groups do.
    fn reconcile(&mut self) {
        let now = self.now;
        let mut lines = Vec::new();
        for (kind, group) in &mut self.groups {
            let due = self.raises_due.extract_if(.., |(at, of)| *at <= now && of == kind).count();
            group.set_desired(group.desired + i32::try_from(due).unwrap_or(0));
            for instance in &mut group.instances {
                if instance.lifecycle == Lifecycle::Pending && now >= instance.until {
                    if instance.dies {
                        instance.lifecycle = Lifecycle::Leaving;
                        instance.until = now + group.leave;
                        group.failures.insert(
                            0,
                            FailedActivity {
                                started_at: now - group.boot,
                                zone: None,
                                class: FailureClass::Unknown,
                                message: "it died".to_owned(),
                            },
                        );
                    } else {
                        instance.lifecycle = Lifecycle::InService;
                        lines.push(format!("{} is in service", instance.id));
                    }
                }
            }
            let stays = |held: &FakeInstance| held.lifecycle != Lifecycle::Leaving || now < held.until;
            if self.nodes_stay {
                let gone = group.instances.iter().filter(|held| !stays(held) && !held.dies);
                self.left_nodes.extend(gone.map(|held| held.id.clone()));
            }
            group.instances.retain(stays);
            let is_at_risk = |held: &FakeInstance| {
                held.lifecycle == Lifecycle::InService && self.at_risk.contains_key(&held.id)
            };
            // The successors of those at risk come first, beyond desired capacity.
            let spare = group.instances.iter().filter(|held| is_at_risk(held)).count();
            let wanted = group.desired + i32::try_from(spare).unwrap_or(0);
            while group.counted() > wanted {
                let victim =
                    group.instances.iter_mut().find(|i| i.lifecycle != Lifecycle::Leaving && !i.beyond);
                let Some(victim) = victim else { break };
                victim.lifecycle = Lifecycle::Leaving;
                victim.until = now + group.leave;
                lines.push(format!("{kind} chose {} as its victim", victim.id));
            }
            // What is beyond desired capacity takes a place that is empty.
            let empty = usize::try_from(wanted - group.counted()).unwrap_or(0);
            let beyond = group.instances.iter_mut().filter(|held| held.is_beyond());
            beyond.take(empty).for_each(|held| held.beyond = false);
            while group.counted() < wanted && now >= group.retry_at {
                if group.left == Some(0) {
                    group.retry_at = now + LAUNCH_RETRY;
                    group.failures.insert(
                        0,
                        FailedActivity {
                            started_at: now,
                            zone: None,
                            class: FailureClass::Capacity,
                            message: "dry".to_owned(),
                        },
                    );
                    break;
                }
                group.left = group.left.map(|left| left - 1);
                let ours = self.ledger.shares(*kind).any(Share::awaits_in_group);
                let id = launch(group, (*kind, ours), &mut self.next_id, now);
                lines.push(format!("{id} is launched"));
            }
            // One at risk goes when EC2 takes it, or when its successor serves.
            let serving =
                group.instances.iter().filter(|held| held.lifecycle == Lifecycle::InService).count();
            let mut surplus = serving.saturating_sub(usize::try_from(group.desired).unwrap_or(0));
            for instance in group.instances.iter_mut().filter(|held| is_at_risk(held)) {
                let taken = self.at_risk[&instance.id].is_some_and(|at| now >= at);
                if taken || surplus > 0 {
                    surplus = surplus.saturating_sub(1);
                    instance.lifecycle = Lifecycle::Leaving;
                    instance.until = now + group.leave;
                    lines.push(format!("{} is ended", instance.id));
                }
            }
        }
        lines.iter().for_each(|line| self.say(line));
    }

    fn view(&self) -> PoolView {
        let group = |kind: GroupKind| {
            let group = &self.groups[&kind];
            let recent = health::failure_counts_for(&self.policy);
            let since = self.ledger.failures_matter_since(kind, recent, self.now);
            GroupView {
                name: kind.slug().into(),
                desired: group.desired,
                min: 0,
                max: group.max,
                zones: vec!["a".to_owned()],
                can_launch: self.can_launch,
                setup: crate::group::GroupSetup::default(),
                instances: group
                    .instances
                    .iter()
                    .map(|instance| Instance {
                        id: instance.id.clone(),
                        zone: "a".to_owned(),
                        lifecycle: instance.lifecycle,
                        protected: false,
                    })
                    .collect(),
                unlisted_launches: 0,
                failures: group
                    .failures
                    .iter()
                    .filter(|failure| since.is_some_and(|since| failure.started_at >= since))
                    .cloned()
                    .collect(),
                observed_at: self.now,
            }
        };
        PoolView { spot: group(GroupKind::Spot), on_demand: group(GroupKind::OnDemand) }
    }

    fn instance(&self, id: &str) -> Option<&FakeInstance> {
        self.groups.values().flat_map(|group| &group.instances).find(|instance| instance.id == id)
    }

    fn set_has_pods(&mut self, id: &str, has_pods: bool) {
        let all = self.groups.values_mut().flat_map(|group| &mut group.instances);
        all.filter(|instance| instance.id == id).for_each(|instance| instance.has_pods = has_pods);
    }

    fn node(&self, id: &str) -> Option<NodeFact> {
        let instance = self.instance(id).filter(|instance| instance.has_node());
        if instance.is_none() && !self.left_nodes.contains(id) {
            return None;
        }
        let ready = instance.is_some_and(|held| held.lifecycle == Lifecycle::InService);
        Some(NodeFact {
            name: id.into(),
            ready,
            cordoned: self.cordoned.contains(id),
            tainted: false,
            has_pods: instance.is_some_and(|held| held.has_pods),
            volume_zone: None,
            created: None,
            ready_changed: None,
        })
    }

    fn with_facts<T>(&self, name: &str, decide: impl FnOnce(&Subject, &Facts<'_>) -> T) -> T {
        let view = self.view();
        let subject = subject(name);
        let instances: Vec<InstanceId> = self.records.keys().map(|name| name.as_str().into()).collect();
        let stories: Vec<PoolReplacement<'_>> = self
            .records
            .iter()
            .zip(&instances)
            .filter(|((_, status), _)| !status.phase.is_finished())
            .map(|((name, status), instance_id)| PoolReplacement { name: name.clone(), instance_id, status })
            .collect();
        let ready = |id: &InstanceId| self.node(id).map(|node| node.ready);
        let safe = |_: &PoolReplacement<'_>| Vec::new();
        let questions = health::Questions { ready: &ready, unsafe_: &safe, unsafe_with_spot: &safe };
        let assessed = health::assess(&view, &self.ledger, &stories, &questions, &self.policy, self.now);
        let status = &self.records[name];
        let open = stories.iter().map(|story| (&story.name, story.instance_id, story.status));
        let queue = replacement::queue(&subject.name, open, Some(&view));
        let report = |purpose, node: &str| DrainReport {
            node: node.into(),
            tainted: true,
            end: self.drained.contains(&(node.into(), purpose)).then_some(DrainEnd::Moved),
            ..DrainReport::default()
        };
        let old_drain = matches!(*status.old_node, OldNodeState::Draining(_))
            .then(|| report(DrainPurpose::Replace, name));
        let capacity = status.capacity.taken().map(|capacity| capacity.node_name.clone());
        let return_drain = matches!(*status.fallback, FallbackState::Draining(_))
            .then(|| report(DrainPurpose::Return, capacity.as_deref().unwrap_or_default()));
        let old_node = self.node(name);
        decide(
            &subject,
            &Facts {
                now: self.now,
                policy: &self.policy,
                mode: Mode::Act,
                rebalance: RebalanceMode::Replace,
                taken_over: false,
                replaced_by: self.by_group.then_some(ReplacedBy::Group),
                queue: &queue,
                starts: Starts::default(),
                freshness: &Freshness::default(),
                refused: &[],
                neighbour: None,
                view: Some(&view),
                baseline: None,
                ledger: &self.ledger,
                withdrawn: self.withdrawn.contains(name),
                old_node: old_node.as_ref(),
                other_holders: &|_, _| Vec::new(),
                ended_by_other: &|id| {
                    let ends = |other: &str, status: &ReplacementStatus| status.ends(&other.into(), id);
                    let mut others = self.records.iter().filter(|(other, _)| other.as_str() != name);
                    others
                        .find(|(other, status)| ends(other.as_str(), status))
                        .map(|(other, _)| other.clone())
                },
                never_leave: &Vec::new,
                node_of: &|id| self.node(id),
                fit_with: &|_| Fit::Fits,
                drain: old_drain.as_ref(),
                return_drain: return_drain.as_ref(),
                assessment: assessed.returns.get(name),
            },
        )
    }

    fn track(&mut self) {
        let names: Vec<ReplacementName> = self.records.keys().cloned().collect();
        for name in names {
            let before = self.records[&name].clone();
            let next = self.with_facts(&name, |subject, facts| replacement::advance(subject, &before, facts));
            for step in next.steps.iter().skip(before.steps.len()) {
                let line =
                    format!("{name}: box {} {:?}: {}", step.flow_box.number(), step.outcome, step.message);
                self.say(&line);
            }
            self.records.insert(name, next);
        }
    }

    fn commands(&self) -> Commands {
        let mut all = Commands::default();
        for (name, status) in &self.records {
            let one = self.with_facts(name, |subject, facts| replacement::commands(subject, status, facts));
            all.wants.extend(one.wants);
            all.ends.extend(one.ends);
            all.drains.extend(one.drains);
            all.taken.extend(one.taken);
        }
        for kind in KINDS {
            for share in self.ledger.shares(kind) {
                all.wants.entry((kind, share.replacement.clone())).or_insert(Want::Done);
            }
        }
        all
    }

    fn tell(&mut self) {
        let commands = self.commands();
        let all = self.groups.values().flat_map(|group| &group.instances);
        let ids = |held: &dyn Fn(&FakeInstance) -> bool| {
            all.clone().filter(|instance| held(instance)).map(|instance| instance.id.clone()).collect()
        };
        let with_pods = ids(&|instance| instance.has_pods);
        let schedulable = ids(&|held| held.has_node() && !self.cordoned.contains(&held.id));
        let (taken, troubles) = (commands.taken, self.troubles());
        let instances = InstanceFacts { taken, with_pods, schedulable, troubles, ..InstanceFacts::default() };
        self.told = (commands.wants, commands.ends, instances);
    }

    fn troubles(&self) -> BTreeMap<InstanceId, Trouble> {
        let trouble = Trouble { why: NodeTrouble::NotJoined, marked: false };
        let all = self.groups.values().flat_map(|group| &group.instances);
        all.filter(|held| !held.has_node()).map(|held| (held.id.clone(), trouble)).collect()
    }

    fn scale(&mut self, fault: Fault) {
        self.scale_until(0, fault);
    }

    /// A turn whose first calls meet nothing, and the next one `fault`; whether there was a next one.
    fn scale_until(&mut self, calls: usize, fault: Fault) -> bool {
        self.withdrawn = withdrawn(&self.told.0);
        let deferred = Deferred::begin(&self.ledger);
        // The group that is still asked for capacity, once a call of the other one got no answer.
        let mut only = None;
        for number in 0..40 {
            let fault = if number < calls || only.is_some() { Fault::None } else { fault };
            // The scaler looks at the nodes anew.
            self.told.2.troubles = self.troubles();
            let (wants, ends, facts) = &self.told;
            let inputs = Inputs {
                ledger: &self.ledger,
                view: &self.view(),
                wants,
                ends,
                instances: facts,
                deferred: &deferred,
                now: self.now,
            };
            let plan =
                only.map_or_else(|| scaling::plan(&inputs), |kind| scaling::plan_requests(&inputs, kind));
            self.ledger = plan.ledger;
            let Some(call) = plan.call else {
                if only.is_none() {
                    self.cordoned = plan.cordon;
                }
                return only.is_some();
            };
            self.say(&format!("{call:?} ({fault:?})"));
            self.check(&call);
            match fault {
                Fault::BeforeCall | Fault::Throttled => return true,
                Fault::None | Fault::LostAnswer | Fault::NoAnswer { .. } => {}
            }
            self.calls += 1;
            let outcome = match fault {
                Fault::NoAnswer { works: false } => Ok(()),
                _ => self.make(&call),
            };
            match fault {
                Fault::LostAnswer => return true,
                Fault::NoAnswer { .. } => {
                    only = Some(call.group().other());
                    continue;
                }
                _ => {}
            }
            match (outcome, &call) {
                (Ok(()), Call::Launch { group, token, .. }) => {
                    let (ids, errors) = self.answers[token].clone();
                    answers::launched(&mut self.ledger, *group, ids, &errors, self.now);
                }
                (Ok(()), _) => answers::accepted(&mut self.ledger, &call),
                (Err(None), _) => {}
                (Err(Some(_)), Call::Launch { .. }) => {
                    // The group cannot: from now on it is asked with SetDesiredCapacity.
                    self.can_launch = false;
                }
                (Err(Some(class)), Call::SetDesired { group, .. }) => {
                    answers::refused(&mut self.ledger, *group, class, "refused", self.now);
                    return only.is_some();
                }
                (Err(Some(_)), Call::Terminate { .. }) => {
                    self.ledger.reduction = None;
                    return false;
                }
            }
        }
        self.fail("one turn made 40 calls");
    }

    /// AWS answers: an error without a class says that there is no such instance.
    fn make(&mut self, call: &Call) -> Result<(), Option<FailureClass>> {
        let now = self.now;
        match call {
            Call::SetDesired { group, desired } => {
                let group = self.groups.get_mut(group).expect("a group");
                if *desired > group.max || *desired < 0 {
                    return Err(Some(FailureClass::Configuration));
                }
                group.set_desired(*desired);
                group.retry_at = now;
            }
            Call::Launch { group: kind, count, token, .. } => {
                if self.answers.contains_key(token) {
                    return Ok(());
                }
                let group = self.groups.get_mut(kind).expect("a group");
                if group.desired.max(group.active()) + count > group.max {
                    return Err(Some(FailureClass::Configuration));
                }
                let mut answer: Answer = (Vec::new(), Vec::new());
                for _ in 0..*count {
                    if group.left == Some(0) {
                        answer.1.push((FailureClass::Capacity, "dry".to_owned()));
                        break;
                    }
                    group.left = group.left.map(|left| left - 1);
                    answer.0.push(launch(group, (*kind, true), &mut self.next_id, now));
                    match self.raises {
                        Raises::AtOnce => group.desired += 1,
                        Raises::Later(seconds) => {
                            self.raises_due.push((now + Duration::from_secs(seconds), *kind));
                        }
                    }
                    if let Some(new) = group.instances.last_mut() {
                        new.beyond = self.raises != Raises::AtOnce;
                    }
                }
                let line = format!("LaunchInstances gives {answer:?}");
                self.answers.insert(token.clone(), answer);
                // The next request has another id.
                self.now += Duration::from_millis(1);
                self.say(&line);
            }
            Call::Terminate { group, instance_id, decrement } => {
                let group = self.groups.get_mut(group).expect("a group");
                let Some(instance) = group.instances.iter_mut().find(|i| i.id == *instance_id) else {
                    return Err(None);
                };
                if instance.lifecycle == Lifecycle::Leaving {
                    return Ok(());
                }
                if *decrement {
                    if group.desired == 0 {
                        return Err(Some(FailureClass::Configuration));
                    }
                    group.desired -= 1;
                }
                instance.lifecycle = Lifecycle::Leaving;
                instance.until = now + group.leave;
            }
        }
        self.reconcile();
        Ok(())
    }

    /// Only what a story asked to end, and what nobody stands on, may be ended; lowering desired may not let
    /// AWS choose a victim.
    fn check(&self, call: &Call) {
        if self.by_group && call.group() == GroupKind::Spot {
            self.fail("a Spot group that replaces by itself is changed");
        }
        match call {
            Call::Launch { .. } => {}
            Call::SetDesired { group, desired } => {
                let held = &self.groups[group];
                if *desired < held.desired && *desired < held.active() {
                    self.fail("desired is lowered below what is there: AWS would choose a victim");
                }
                if *desired > held.max {
                    self.fail("more is asked for than the group may have");
                }
            }
            Call::Terminate { group, instance_id, .. } => {
                let asked = self.records.iter().any(|(name, status)| {
                    let old =
                        **name == **instance_id && matches!(*status.old_node, OldNodeState::Terminating(_));
                    let fallback = matches!(*status.fallback, FallbackState::Terminating(_))
                        && status.capacity.taken().is_some_and(|held| held.instance_id == *instance_id);
                    old || fallback
                });
                if asked {
                    return;
                }
                let taken = self.commands().taken;
                let one_too_many = self.records.values().any(|status| {
                    let held = status.goes_back();
                    held.is_some_and(|held| held.group == GroupKind::Spot && held.instance_id == *instance_id)
                });
                if taken.contains(instance_id) && !one_too_many {
                    self.fail(&format!("{instance_id} is ended while a story stands on it"));
                }
                if self.told.2.with_pods.contains(instance_id) {
                    self.fail(&format!("{instance_id} is ended while it runs pods"));
                }
                let claimant = self
                    .ledger
                    .shares(*group)
                    .find(|share| share.instance_id.as_deref() == Some(instance_id));
                if let Some(share) = claimant
                    && let Some(Want::Instance { .. }) = self.told.0.get(&(*group, share.replacement.clone()))
                    && !self.instance(instance_id).is_some_and(|held| held.never_joins)
                {
                    self.fail(&format!("{instance_id} is ended, and {} waits for it", share.replacement));
                }
            }
        }
    }

    /// Every drain that is under way ends: the pods move.
    fn drain(&mut self) {
        for command in self.commands().drains {
            let status = &self.records[&command.replacement];
            let home = match command.purpose {
                DrainPurpose::Replace => status.capacity.taken(),
                DrainPurpose::Return => status.fallback.successor(),
            };
            let home = home.map(|capacity| capacity.instance_id.clone());
            if self.drained.insert((command.node.clone(), command.purpose)) {
                self.say(&format!("{} is drained for {:?}", command.node, command.purpose));
                self.set_has_pods(&command.node, false);
                if let Some(home) = home {
                    self.set_has_pods(&home, true);
                }
            }
        }
    }

    /// AWS takes an instance and its group sees it.
    fn take(&mut self, number: usize) {
        let now = self.now;
        let all: Vec<(&mut FakeInstance, Duration)> = self
            .groups
            .values_mut()
            .flat_map(|group| group.instances.iter_mut().map(|instance| (instance, group.leave)))
            .filter(|(instance, _)| instance.lifecycle == Lifecycle::InService)
            .collect();
        let count = all.len();
        let Some((victim, leave)) = all.into_iter().nth(number % count.max(1)) else { return };
        victim.lifecycle = Lifecycle::Leaving;
        victim.until = now + leave;
        victim.has_pods = false;
        let line = format!("AWS takes {}", victim.id);
        self.say(&line);
        self.reconcile();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass(seconds) => {
                for _ in 0..seconds {
                    self.now += Duration::from_secs(1);
                    self.reconcile();
                }
            }
            Event::Track => self.track(),
            Event::Tell => self.tell(),
            Event::Scale(fault) => self.scale(fault),
            Event::Drain => self.drain(),
            Event::Take(number) => self.take(number),
            Event::OthersErase(kind) => {
                let there = self.groups[&kind].active();
                if self.nothing_under_way() && there < self.groups[&kind].desired {
                    let group = self.groups.get_mut(&kind).expect("a group");
                    let lowered = group.desired - there;
                    group.desired = there;
                    *self.erased.entry(kind).or_default() += lowered;
                    *self.lowered.entry(kind).or_default() += lowered;
                    self.say(&format!("somebody lowers {kind} to {there}"));
                }
            }
            Event::OthersRaise(kind) => {
                // A change by others while a call's effect is unknown cannot be told from the call's own.
                let settled = self.nothing_under_way();
                let others = self.others.get(&kind).copied().unwrap_or(0);
                let group = self.groups.get_mut(&kind).expect("a group");
                // They leave room for one of ours, or we could never bring back what we owe the group.
                let room = self.baseline[&kind] + others + 1 < group.max;
                if settled && room && group.desired < group.max {
                    group.desired += 1;
                    *self.others.entry(kind).or_default() += 1;
                    self.say(&format!("somebody raises {kind}"));
                    self.reconcile();
                }
            }
            Event::NodesStay => self.nodes_stay = true,
            Event::Capacity(kind, left) => {
                self.groups.get_mut(&kind).expect("a group").left = left;
                self.say(&format!("{kind} has {left:?} left"));
            }
            Event::Notice(deadline) => {
                let next = self.old.iter().find(|id| !self.records.contains_key(id.as_str())).cloned();
                let Some(id) = next.filter(|id| self.instance(id).is_some()) else { return };
                let deadline = deadline.then(|| self.now + Duration::from_secs(120));
                if self.by_group {
                    let taken_at = self.at_risk.entry(id.clone()).or_default();
                    *taken_at = taken_at.or(deadline);
                    if deadline.is_none() {
                        // What is done on advice is the group's affair.
                        return;
                    }
                }
                let kind = match deadline {
                    Some(_) => NoticeKind::SpotInterruption,
                    None => NoticeKind::RebalanceRecommendation,
                };
                let status = replacement::open(&subject(&id), kind, deadline, None, None, self.now);
                self.say(&format!("{kind} for {id}"));
                self.records.insert(id.as_str().into(), status);
            }
            Event::Escalate(number) => {
                let deadline = self.now + Duration::from_secs(120);
                let there: BTreeSet<InstanceId> =
                    self.groups[&GroupKind::Spot].instances.iter().map(|held| held.id.clone()).collect();
                let Some((id, status)) = self.records.iter_mut().nth(number) else { return };
                let (subject, kind) = (subject(id), NoticeKind::SpotInterruption);
                if status.phase != Phase::Cancelled {
                    replacement::escalate(status, &subject, kind, Some(deadline), self.now);
                } else if there.contains(id.as_str()) {
                    let fresh = replacement::open(&subject, kind, Some(deadline), None, None, self.now);
                    *status = replacement::reopen(status, fresh);
                }
                let line = format!("{id} is escalated");
                self.say(&line);
            }
            Event::Action(action, number) => {
                self.asks += 1;
                let ask = RequestedAction {
                    name: format!("ask-{}", self.asks),
                    action,
                    pool: None,
                    node: None,
                    replacement: None,
                    by: None,
                    reason: None,
                    order: (None, 0),
                    stage: ActionStage::Pending,
                };
                let Some((id, status)) = self.records.iter_mut().nth(number) else { return };
                spot_action::take_in(&ask, &subject(id), status, self.now);
                let line = format!("{action} of {id}, taken in: {}", status.spot_actions.contains(&ask.name));
                self.say(&line);
            }
            Event::BootFails(kind) => self.groups.get_mut(&kind).expect("a group").boots_fail += 1,
            Event::NeverJoins(kind) => self.groups.get_mut(&kind).expect("a group").nodes_fail += 1,
        }
    }

    fn nothing_under_way(&self) -> bool {
        let mut requests = self.ledger.scaling_requests.iter();
        self.ledger.reduction.is_none() && requests.all(|request| request.state == RequestState::Applied)
    }

    /// Whoever erased what was missing raises the group again, as there is need for it.
    fn make_up(&mut self) {
        if self.nothing_under_way() {
            for (kind, count) in std::mem::take(&mut self.erased) {
                let group = self.groups.get_mut(&kind).expect("a group");
                group.desired += count;
            }
            self.reconcile();
        }
    }

    /// What desired capacity may be when all is over: what others took out while we waited for it may have
    /// been asked for again.
    fn expected(&self, kind: GroupKind) -> std::ops::RangeInclusive<i32> {
        let count = |changes: &BTreeMap<GroupKind, i32>| changes.get(&kind).copied().unwrap_or(0);
        let theirs = self.baseline[&kind] + count(&self.others) - count(&self.erased);
        theirs..=theirs + count(&self.lowered)
    }

    fn is_settled(&self) -> bool {
        self.ledger == Ledger::default()
            && self.erased.is_empty()
            && self.records.values().all(|status| status.phase.is_finished())
            && self.raises_due.is_empty()
            && self.groups.values().all(|group| group.active() == group.desired)
    }

    /// Capacity is there and nothing fails any more: everything comes to its end within two hours.
    fn settle(&mut self) {
        for group in self.groups.values_mut() {
            (group.left, group.boots_fail, group.nodes_fail) = (None, 0, 0);
        }
        self.say("from here on nothing fails");
        let calls = self.calls;
        for _ in 0..720 {
            self.track();
            self.tell();
            self.scale(Fault::None);
            self.drain();
            self.make_up();
            if self.is_settled() {
                break;
            }
            self.happen(Event::Pass(10));
        }
        if !self.is_settled() {
            self.fail("it does not come to an end");
        }
        // Three stories: three +1 on each group, three ends in each, three late winners, and as many repairs.
        if self.calls - calls > 40 {
            self.fail(&format!("{} calls were made at the end", self.calls - calls));
        }
        for kind in KINDS {
            let (desired, expected) = (self.groups[&kind].desired, self.expected(kind));
            if !expected.contains(&desired) {
                self.fail(&format!("{kind} ends with desired {desired}, not {expected:?}"));
            }
        }
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_groups_end_as_they_began(
        can_launch: bool,
        raises in prop_oneof![
            Just(Raises::AtOnce),
            (1..=20_u64).prop_map(Raises::Later),
        ],
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new(can_launch, raises);
        world.happen(Event::Notice(false));
        for event in events {
            world.happen(event);
        }
        world.settle();
    }
}
