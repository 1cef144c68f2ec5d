mod adopted;
mod by_group;
mod probes;

use super::*;
use crate::flow::Event;
use crate::freshness::{Freshness, StaleWatch, Step, WatchedKind};
use crate::group::{FailureClass, GroupView, Instance, Lifecycle, PoolView};
use crate::ids::{InstanceId, NodeName, ReplacementName};
use crate::ledger::unusable::{Discarded, Unusable};
use crate::ledger::{Balance, Failure, Ledger, Method, Reduction, RequestState, ScalingRequest, Share};
use crate::limits::Starts;
use crate::neighbours::Neighbour;
use crate::placement::{PodName, Reasons};
use crate::policy::Policy;
use crate::reason::NodeTrouble;
use crate::reason::{Finding, GroupProblem, Pause, Reason, ReasonCode, in_one_line};
use crate::record::{
    BlockingReason, Capacity, CapacityState, FallbackState, GroupKind, NoticeKind, OldNodeState, Outcome,
    Phase, ReplacedBy, StepRecord,
};
use crate::scaling::wants::{End, Want};
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const OLD: &str = "i-old";

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn subject() -> Subject {
    Subject { name: OLD.into(), node: "old".into(), instance_id: OLD.into(), in_pool: true, adopted: false }
}

/// Something that changes the facts.
type Change = fn(&mut Stage);

/// Everything that a step depends on, to be changed at will.
#[derive(Debug)]
struct Stage {
    now: Timestamp,
    policy: Policy,
    mode: Mode,
    rebalance: RebalanceMode,
    taken_over: bool,
    replaced_by: Option<ReplacedBy>,
    queue: Queue,
    starts: Starts,
    created: Option<Timestamp>,
    refused: Vec<Reason>,
    neighbour: Option<Neighbour>,
    in_pool: bool,
    adopted: bool,
    baseline: Option<u32>,
    known: bool,
    view: PoolView,
    ledger: Ledger,
    withdrawn: bool,
    old_node: bool,
    /// How long the old node has not been Ready.
    unready_for: Duration,
    /// Instances that another node says it runs on, and which.
    disputed: Vec<(InstanceId, NodeName)>,
    /// Instances that another replacement ends.
    ended_by_other: BTreeMap<InstanceId, ReplacementName>,
    /// Whether all nodes but the old one are cordoned.
    cordoned: bool,
    /// Whether all nodes but the old one keep a start-up taint.
    tainted: bool,
    /// Ready nodes by instance, and whether they run pods.
    nodes: Vec<(InstanceId, bool)>,
    unready: Vec<InstanceId>,
    fit: Fit,
    never_leave: Vec<Reason>,
    drain: Option<DrainReport>,
    return_drain: Option<DrainReport>,
    assessment: Option<ReturnAssessment>,
    freshness: Freshness,
    status: ReplacementStatus,
}

impl Stage {
    /// A rebalance recommendation was stored, and nothing was asked for yet.
    fn new() -> Self {
        let group = |name: &str, desired, ids: &[&str]| GroupView {
            name: name.into(),
            desired,
            min: 0,
            max: 9,
            zones: vec!["a".to_owned()],
            can_launch: false,
            setup: crate::group::GroupSetup::default(),
            instances: ids
                .iter()
                .map(|id| Instance {
                    id: (*id).into(),
                    zone: "a".to_owned(),
                    lifecycle: Lifecycle::InService,
                    protected: false,
                })
                .collect(),
            failures: Vec::new(),
            unlisted_launches: 0,
            observed_at: now(),
        };
        Self {
            now: now(),
            policy: Policy { wait_before_termination_seconds: 0, ..Policy::default() },
            mode: Mode::Act,
            rebalance: RebalanceMode::Replace,
            taken_over: false,
            replaced_by: None,
            queue: Queue::default(),
            starts: Starts::default(),
            created: None,
            refused: Vec::new(),
            neighbour: None,
            in_pool: true,
            adopted: false,
            baseline: None,
            known: true,
            view: PoolView {
                spot: group("spot", 3, &[OLD, "i-2", "i-3"]),
                on_demand: group("on-demand", 0, &[]),
            },
            ledger: Ledger::default(),
            withdrawn: true,
            old_node: true,
            unready_for: Duration::ZERO,
            disputed: Vec::new(),
            ended_by_other: BTreeMap::new(),
            cordoned: false,
            tainted: false,
            nodes: Vec::new(),
            unready: Vec::new(),
            fit: Fit::Fits,
            never_leave: Vec::new(),
            drain: None,
            return_drain: None,
            assessment: None,
            freshness: Freshness::default(),
            status: open(&subject(), NoticeKind::RebalanceRecommendation, None, None, None, now()),
        }
    }

    /// The same with two minutes.
    fn urgent() -> Self {
        let deadline = Some(now() + Duration::from_secs(120));
        let status = open(&subject(), NoticeKind::SpotInterruption, deadline, None, None, now());
        Self { status, ..Self::new() }
    }

    fn subject(&self) -> Subject {
        let (node, instance_id) = (NodeName::default(), InstanceId::default());
        let subject = Subject { in_pool: self.in_pool, adopted: self.adopted, ..subject() };
        if self.adopted { Subject { node, instance_id, ..subject } } else { subject }
    }

    fn with_facts<T>(&self, decide: impl FnOnce(&Subject, &Facts<'_>) -> T) -> T {
        let node = |name: &str, ready, has_pods| NodeFact {
            name: name.into(),
            ready,
            cordoned: self.cordoned && name != "old",
            tainted: self.tainted && name != "old",
            has_pods,
            volume_zone: None,
            created: self.created,
            ready_changed: Some(self.now - self.unready_for),
        };
        let old_node = self.old_node.then(|| node("old", self.unready_for.is_zero(), true));
        decide(
            &self.subject(),
            &Facts {
                now: self.now,
                policy: &self.policy,
                mode: self.mode,
                rebalance: self.rebalance,
                taken_over: self.taken_over,
                replaced_by: self.replaced_by,
                queue: &self.queue,
                starts: self.starts.clone(),
                freshness: &self.freshness,
                refused: &self.refused,
                neighbour: self.neighbour,
                view: self.known.then_some(&self.view),
                baseline: self.baseline,
                ledger: &self.ledger,
                withdrawn: self.withdrawn,
                old_node: old_node.as_ref(),
                other_holders: &|id, _| {
                    self.disputed.iter().filter(|(held, _)| held == id).map(|(_, by)| by.clone()).collect()
                },
                ended_by_other: &|id| self.ended_by_other.get(id).cloned(),
                never_leave: &|| self.never_leave.clone(),
                node_of: &|id| {
                    if self.unready.iter().any(|held| held == id) {
                        return Some(node(id, false, false));
                    }
                    let (name, has_pods) = self.nodes.iter().find(|(held, _)| held == id)?;
                    Some(node(name, true, *has_pods))
                },
                fit_with: &|_| self.fit.clone(),
                drain: self.drain.as_ref(),
                return_drain: self.return_drain.as_ref(),
                assessment: self.assessment.as_ref(),
            },
        )
    }

    /// Goes on until nothing changes any more.
    fn go(&mut self) -> &mut Self {
        for _ in 0..10 {
            let next = self.with_facts(|subject, facts| advance(subject, &self.status, facts));
            if next == self.status {
                return self;
            }
            self.status = next;
        }
        panic!("it does not come to rest: {:#?}", self.status);
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn commands(&self) -> Commands {
        self.with_facts(|subject, facts| commands(subject, &self.status, facts))
    }

    fn share(
        &mut self,
        group: GroupKind,
        instance: Option<&str>,
        failure: Option<FailureClass>,
    ) -> &mut Self {
        let share = Share {
            replacement: OLD.into(),
            balance: Balance::Raised,
            attempt: self.status.requests_made(),
            since: self.now,
            deadline: None,
            stood_in_for: false,
            instance_id: instance.map(Into::into),
            claimed_at: None,
            unusable: None,
            discarded: None,
            failure: failure.map(|class| Failure { class, message: "text".to_owned(), at: self.now }),
        };
        self.ledger.scaling_requests.retain(|request| request.group != group);
        self.ledger.scaling_requests.push(ScalingRequest {
            id: "r".to_owned(),
            group,
            group_name: group.slug().into(),
            desired_before: 0,
            target: 1,
            instances_before: Vec::new(),
            active: 3,
            requested_at: self.now,
            answered_at: None,
            method: Method::SetDesiredCapacity {},
            state: RequestState::Applied,
            failure: None,
            shares: vec![share],
        });
        if let Some(id) = instance {
            self.serve(group, id);
        }
        self
    }

    fn edit_share(&mut self, change: impl FnOnce(&mut Share)) {
        let share = self.ledger.scaling_requests.iter_mut().flat_map(|request| &mut request.shares).next();
        change(share.expect("a share"));
    }

    fn settle(&mut self, group: GroupKind) -> &mut Self {
        for request in self.ledger.scaling_requests.iter_mut().filter(|request| request.group == group) {
            request.shares.iter_mut().for_each(|share| share.balance = Balance::Even);
        }
        self
    }

    /// The instance is in service and its node Ready.
    fn serve(&mut self, group: GroupKind, id: &str) {
        self.nodes.push((id.into(), false));
        let group = match group {
            GroupKind::Spot => &mut self.view.spot,
            GroupKind::OnDemand => &mut self.view.on_demand,
        };
        if group.instance(&id.into()).is_none() {
            let lifecycle = Lifecycle::InService;
            group.instances.push(Instance {
                id: id.into(),
                zone: "a".to_owned(),
                lifecycle,
                protected: false,
            });
        }
        let instances = i32::try_from(group.instances.len()).expect("few");
        group.desired = group.desired.max(instances);
    }

    fn lose(&mut self, id: &str) -> &mut Self {
        self.view.spot.instances.retain(|instance| instance.id != id);
        self.view.on_demand.instances.retain(|instance| instance.id != id);
        self.nodes.retain(|(held, _)| held != id);
        self.old_node &= id != OLD;
        self
    }

    fn drained(&mut self) -> &mut Self {
        let report = |node: &str| DrainReport {
            node: node.into(),
            tainted: true,
            end: Some(DrainEnd::Moved),
            ..DrainReport::default()
        };
        self.drain = Some(report("old"));
        self.return_drain = self.status.capacity.taken().map(|capacity| report(&capacity.node_name));
        self
    }

    fn phase(&self) -> Phase {
        self.status.phase
    }

    fn has(&self, flow_box: FlowBox, outcome: Outcome) -> bool {
        self.status.steps.iter().any(|step| (step.flow_box, step.outcome) == (flow_box, outcome))
    }

    fn marks(&self, purpose: DrainPurpose) -> bool {
        self.commands().drains.iter().any(|drain| drain.purpose == purpose)
    }

    /// On-demand stands in, and the old instance is gone.
    fn on_fallback() -> Self {
        let mut stage = Self::new();
        stage.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
        stage.share(GroupKind::OnDemand, Some("od"), None).go().drained().go();
        stage.settle(GroupKind::Spot).lose(OLD).go();
        assert_eq!(stage.phase(), Phase::OnFallback, "{:#?}", stage.status);
        (stage.drain, stage.return_drain) = (None, None);
        stage
    }

    /// Spot has served again, and every box lets the return begin.
    fn returning() -> Self {
        let mut stage = Self::on_fallback();
        stage.share(GroupKind::Spot, Some("i-4"), None).settle(GroupKind::Spot);
        stage.assessment = Some(ReturnAssessment::default());
        stage.go();
        assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
        stage
    }
}

fn want(commands: &Commands, group: GroupKind) -> Option<&Want> {
    commands.wants.get(&(group, OLD.into()))
}

#[test]
fn spot_is_asked_first_and_nothing_is_marked() {
    let mut stage = Stage::new();
    stage.go();
    assert_eq!(stage.phase(), Phase::ScalingUp);
    let commands = stage.commands();
    assert!(matches!(want(&commands, GroupKind::Spot), Some(Want::Instance { stood_in_for: false, .. })));
    assert_eq!(want(&commands, GroupKind::OnDemand), None);
    assert!(commands.drains.is_empty() && commands.ends.is_empty());
}

#[test]
fn a_story_is_held_back_unless_a_deadline_presses() {
    let changes: [(&str, Change, bool); 10] = [
        ("observe", |stage| stage.mode = Mode::Observe, true),
        ("paused", |stage| stage.starts.pause = Some(Pause::Pool), false),
        ("everything paused", |stage| stage.starts.pause = Some(Pause::Everything), false),
        ("full", |stage| stage.starts.full = Some(3), false),
        ("young", |stage| stage.created = Some(stage.now - Duration::from_secs(599)), false),
        ("ignored", |stage| stage.rebalance = RebalanceMode::Ignore, false),
        ("no pool", |stage| stage.in_pool = false, false),
        ("not accepted", |stage| stage.refused = vec![owned()], false),
        ("owned by others", |stage| stage.neighbour = Some(Neighbour::Karpenter), true),
        ("marked by others", |stage| stage.neighbour = Some(Neighbour::NodeTerminationHandler), false),
    ];
    for (name, change, always) in changes {
        let mut patient = Stage::new();
        change(&mut patient);
        patient.go();
        assert_eq!(patient.phase(), Phase::Received, "{name}");
        assert!(!patient.status.blocking.is_empty(), "{name}: it says why");
        assert_eq!(patient.commands().drains, [], "{name}");
        (patient.mode, patient.rebalance, patient.in_pool) = (Mode::Act, RebalanceMode::Replace, true);
        (patient.starts, patient.created) = (Starts::default(), Some(patient.now - Duration::from_secs(600)));
        (patient.refused, patient.neighbour) = (Vec::new(), None);
        patient.go();
        assert_eq!(patient.phase(), Phase::ScalingUp, "{name} no more");
        assert_eq!(patient.status.blocking, [], "{name} no more");
        let mut urgent = Stage::urgent();
        change(&mut urgent);
        urgent.go();
        assert_eq!(urgent.phase() == Phase::Received, always, "{name}, at a deadline");
        assert_eq!(urgent.commands().drains.is_empty(), always, "{name}, at a deadline");
    }
}

#[test]
fn a_story_under_way_goes_on_when_its_pool_is_no_longer_accepted() {
    let mut stage = Stage::new();
    stage.go();
    assert!(want(&stage.commands(), GroupKind::Spot).is_some());
    stage.refused = vec![owned()];
    stage.neighbour = Some(Neighbour::ClusterAutoscaler);
    stage.go();
    assert!(want(&stage.commands(), GroupKind::Spot).is_some(), "what it asked for is still its own");
    assert_eq!(stage.commands().drains, [], "and nothing is marked before its replacement is there");
    let mut fresh = Stage::urgent();
    fresh.refused = vec![owned()];
    fresh.go();
    let commands = fresh.commands();
    assert!(
        commands.wants.is_empty() && commands.drains.len() == 1,
        "a deadline drains, and asks for nothing"
    );
}

#[test]
fn drain_only_marks_and_asks_for_nothing() {
    let mut stage = Stage::new();
    stage.mode = Mode::DrainOnly;
    stage.go();
    let commands = stage.commands();
    assert!(stage.marks(DrainPurpose::Replace) && commands.wants.is_empty() && commands.ends.is_empty());
    stage.drained().go();
    assert!(stage.commands().ends.is_empty());
    stage.lose(OLD).go();
    assert_eq!(stage.phase(), Phase::Completed);
}

#[test]
fn nothing_is_decided_about_capacity_before_the_groups_were_read() {
    let mut stage = Stage::new();
    stage.go().pass(1000);
    stage.known = false;
    stage.go();
    assert_eq!(stage.phase(), Phase::ScalingUp, "no timeout without a reading");
    let mut settled = Stage::new();
    settled.status.old_node = OldNodeState::Gone {}.into();
    let instance = Capacity {
        group: GroupKind::Spot,
        instance_id: "i-4".into(),
        node_name: "i-4".into(),
        ready_at: now(),
    };
    settled.status.capacity = CapacityState::Taken { instance, on_demand_requested: false }.into();
    settled.known = false;
    settled.go();
    assert_ne!(settled.phase(), Phase::Completed, "no end without a reading of the ledger");
}

#[test]
fn what_fails_falls_back_now_later_or_never() {
    let rows = [
        (Some(FailureClass::Capacity), 0, Some(Outcome::NoCapacity)),
        (Some(FailureClass::Quota), 0, Some(Outcome::NoCapacity)),
        (Some(FailureClass::Configuration), 0, Some(Outcome::Misconfigured)),
        (Some(FailureClass::Refused), 0, Some(Outcome::LaunchRefused)),
        (Some(FailureClass::Unknown), 0, None),
        (Some(FailureClass::Unknown), 180, Some(Outcome::TimedOut)),
        (Some(FailureClass::Throttle), 179, None),
        (None, 179, None),
        (None, 180, Some(Outcome::TimedOut)),
    ];
    for (failure, waited, expected) in rows {
        let mut stage = Stage::new();
        stage.go().share(GroupKind::Spot, None, failure).pass(waited).go();
        let asked = want(&stage.commands(), GroupKind::OnDemand).is_some();
        assert_eq!(asked, expected.is_some(), "{failure:?} after {waited} s");
        if let Some(outcome) = expected {
            assert!(stage.has(FlowBox::Wait, outcome), "{failure:?} after {waited} s");
        }
        assert!(!stage.marks(DrainPurpose::Replace), "{failure:?}");
    }
}

#[test]
fn an_instance_whose_node_cannot_be_used_is_named_while_it_is_waited_for_and_once_it_was_terminated() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None);
    stage.nodes.clear();
    let since = stage.now;
    let why = NodeTrouble::NotJoined;
    stage.edit_share(|share| share.unusable = Some(Unusable { since, why, usable_since: None }));
    stage.go();
    let held = &stage.status.blocking[0];
    assert_eq!((held.reason, held.flow_box), (ReasonCode::InstanceUnusable, FlowBox::Wait));
    assert!(held.message.starts_with("i-4 is in service"), "{}", held.message);

    let (instance_id, zone) = (InstanceId::from("i-4"), "a".to_owned());
    let (waited_seconds, earlier_zones) = (900, Vec::new());
    let last = Discarded { instance_id, zone, earlier_zones, why, waited_seconds, at: since, times: 1 };
    stage.edit_share(|share| share.discarded = Some(last.clone()));
    stage.go();
    assert!(!stage.has(FlowBox::Wait, Outcome::Unusable), "it is still there");
    stage.edit_share(|share| (share.instance_id, share.unusable) = (None, None));
    stage.go().go();
    let told = stage.status.steps.iter().filter(|step| step.outcome == Outcome::Unusable).count();
    assert_eq!((told, &stage.status.discarded), (1, &vec!["i-4".into()]), "it is told once");
}

#[test]
fn an_instance_that_a_launch_hook_holds_is_named_with_since_when() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None);
    let since = stage.now;
    stage.edit_share(|share| share.claimed_at = Some(since));
    let held = |stage: &mut Stage, lifecycle| {
        for instance in stage.view.spot.instances.iter_mut().filter(|held| *held.id == *"i-4") {
            instance.lifecycle = lifecycle;
        }
    };
    held(&mut stage, Lifecycle::Held);
    stage.pass(60).go();
    let reason = &stage.status.blocking[0];
    assert_eq!((reason.reason, reason.flow_box), (ReasonCode::LaunchHeld, FlowBox::Wait));
    assert!(reason.message.contains(&format!("i-4, waited for since {since:.0}")), "{}", reason.message);
    assert!(want(&stage.commands(), GroupKind::OnDemand).is_none(), "it may still come");
    held(&mut stage, Lifecycle::InService);
    stage.go();
    assert!(stage.status.capacity.taken().is_some() && stage.status.blocking.is_empty());
}

#[test]
fn what_fits_in_no_zone_is_given_up_without_a_deadline_and_the_node_stays() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None);
    stage.fit = Fit::Misfits(vec![too_small()]);
    stage.go();
    let (since, why) = (stage.now, NodeTrouble::PodsDoNotFit);
    stage.edit_share(|share| share.unusable = Some(Unusable { since, why, usable_since: None }));
    stage.pass(1799).go();
    assert!(!stage.status.old_node.is_retained(), "another zone may still be asked");
    stage.pass(1).go();
    assert!(stage.status.old_node.is_retained() && stage.has(FlowBox::Wait, Outcome::TimedOut));
    assert_eq!(want(&stage.commands(), GroupKind::Spot), Some(&Want::Nothing), "it goes back");
}

#[test]
fn a_node_that_keeps_its_start_up_taint_is_not_taken_even_before_a_deadline() {
    for mut stage in [Stage::new(), Stage::urgent()] {
        stage.tainted = true;
        stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
        assert!(stage.status.capacity.taken().is_none());
        assert!(stage.status.blocking.iter().any(|held| held.reason == ReasonCode::InstanceUnusable));
        stage.tainted = false;
        stage.go();
        assert!(stage.status.capacity.taken().is_some());
    }
}

#[test]
fn a_deadline_leaves_a_node_a_third_of_the_time_until_an_instance_is_taken() {
    let patience = |deadline: Option<u64>, is_taken: bool| {
        let mut stage = Stage::new();
        stage.status.deadline = deadline.map(|seconds| now() + Duration::from_secs(seconds));
        stage.go().share(GroupKind::Spot, is_taken.then_some("i-4"), None).go();
        match want(&stage.commands(), GroupKind::Spot) {
            Some(Want::Instance { join_timeout, .. }) => join_timeout.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(patience(None, false), 900);
    assert_eq!(patience(Some(120), false), 300);
    assert_eq!(patience(Some(120), true), 900);
}

#[test]
fn a_deadline_shortens_what_is_waited_for() {
    // Seconds to the deadline, whether Spot has launched an instance, and when on-demand is requested.
    let rows = [(120, false, 15), (40, false, 5), (120, true, 90), (3600, false, 180), (3600, true, 180)];
    for (left, is_launched, expected) in rows {
        let requested_after = |waited: u64| {
            let mut stage = Stage::new();
            stage.status.deadline = Some(now() + Duration::from_secs(left));
            stage.go().share(GroupKind::Spot, is_launched.then_some("i-4"), None);
            if is_launched {
                let (id, zone) = (InstanceId::from("i-4"), "a".to_owned());
                stage.view.spot.instances.retain(|instance| instance.id != id);
                let lifecycle = Lifecycle::Pending;
                stage.view.spot.instances.push(Instance { id, zone, lifecycle, protected: false });
            }
            stage.pass(waited).go();
            want(&stage.commands(), GroupKind::OnDemand).is_some()
        };
        assert!(!requested_after(expected - 1), "{left} s left, launched: {is_launched}");
        assert!(requested_after(expected), "{left} s left, launched: {is_launched}");
    }
}

#[test]
fn when_both_groups_fail_the_node_is_kept_and_both_are_asked_again() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    stage.share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).go();
    assert_eq!(stage.phase(), Phase::BackingOff);
    assert!(stage.has(FlowBox::Fallback, Outcome::NodeKept) && !stage.marks(DrainPurpose::Replace));
    let attempt = stage.status.requests_made();
    stage.pass(29).go();
    assert_eq!(stage.status.requests_made(), attempt, "not before its time");
    stage.pass(10).go();
    assert_eq!(stage.status.requests_made(), attempt + 1);
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        let wanted = stage.commands();
        assert!(matches!(want(&wanted, group), Some(Want::Instance { attempt: 1, .. })), "{group}");
    }
}

#[test]
fn in_service_is_not_enough_the_node_must_be_ready_and_take_the_pods() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None);
    stage.unready = vec!["i-4".into()];
    stage.go();
    assert!(!stage.marks(DrainPurpose::Replace), "not Ready");
    stage.unready.clear();
    stage.fit = Fit::Misfits(vec![too_small()]);
    stage.go();
    assert!(!stage.marks(DrainPurpose::Replace), "too small");
    assert_eq!(stage.blocked_by(), [ReasonCode::PodDoesNotFit]);
    assert_eq!(stage.commands().misfits["i-4"], NodeTrouble::PodsDoNotFit, "it may be given back");
    (stage.fit, stage.cordoned) = (Fit::Fits, true);
    stage.go();
    assert!(!stage.marks(DrainPurpose::Replace), "cordoned");
    assert_eq!(stage.blocked_by(), [ReasonCode::NodeCordoned]);
    assert!(stage.commands().misfits.is_empty());
    stage.cordoned = false;
    stage.go();
    assert!(stage.has(FlowBox::Success, Outcome::InService) && stage.marks(DrainPurpose::Replace));
}

#[test]
fn an_instance_of_an_earlier_attempt_is_not_taken_before_the_scaler_heard_of_this_one() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None);
    stage.status.attempt += 1;
    stage.go();
    assert_eq!(stage.status.capacity.taken(), None);
}

#[test]
fn at_a_deadline_the_drain_does_not_wait_for_capacity() {
    let mut stage = Stage::urgent();
    stage.go();
    assert!(stage.marks(DrainPurpose::Replace) && want(&stage.commands(), GroupKind::Spot).is_some());
    assert!(stage.commands().drains[0].deadline.is_some());
    stage.pass(109).go();
    assert!(stage.commands().ends.is_empty(), "pods can still move");
    stage.pass(1).go();
    assert_eq!(stage.commands().ends.len(), 1, "ended by us 10 s ahead");
}

#[test]
fn a_late_spot_instance_wins_and_the_on_demand_one_goes() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    stage.share(GroupKind::OnDemand, None, None);
    stage.share(GroupKind::Spot, Some("i-4"), None).go();
    assert!(stage.has(FlowBox::Success, Outcome::InService) && !stage.status.fallback.is_open());
    assert_eq!(want(&stage.commands(), GroupKind::OnDemand), Some(&Want::Nothing));
}

#[test]
fn a_replacement_lost_before_the_drain_ends_goes_back_to_box_2() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    assert!(stage.marks(DrainPurpose::Replace));
    stage.lose("i-4").go();
    assert_eq!(stage.phase(), Phase::ScalingUp);
    assert!(!stage.marks(DrainPurpose::Replace), "the marks are undone");
    let mut drained = Stage::new();
    drained.go().share(GroupKind::Spot, Some("i-4"), None).go().drained().go().lose("i-4").go();
    assert_eq!(drained.phase(), Phase::Terminating, "after the drain its pods have moved");
}

#[test]
fn the_old_instance_is_gone_only_when_nothing_of_it_is_left() {
    let leftovers: [(&str, Change); 4] = [
        ("its group lists it", |stage| stage.serve(GroupKind::Spot, OLD)),
        ("its node is there", |stage| stage.old_node = true),
        ("its +1 is in desired", |stage| {
            stage.share(GroupKind::Spot, Some("i-4"), None);
        }),
        ("a reduction is under way", |stage| {
            stage.ledger.reduction = Some(Reduction {
                group: GroupKind::Spot,
                group_name: "spot".into(),
                instance_id: None,
                settles: None,
                desired_before: 4,
                requested_at: now(),
            });
        }),
    ];
    let ending = || {
        let mut stage = Stage::new();
        stage.go().share(GroupKind::Spot, Some("i-4"), None).go().drained().go();
        assert_eq!(stage.commands().ends.len(), 1);
        stage.settle(GroupKind::Spot).lose(OLD);
        stage
    };
    for (name, leave) in leftovers {
        let mut stage = ending();
        leave(&mut stage);
        stage.go();
        assert!(matches!(*stage.status.old_node, OldNodeState::Terminating(_)), "{name}");
    }
    let mut stage = ending();
    stage.go();
    assert_eq!((&*stage.status.old_node, stage.phase()), (&OldNodeState::Gone {}, Phase::Terminating));
    assert_eq!(want(&stage.commands(), GroupKind::Spot), Some(&Want::Done));
    stage.ledger = Ledger::default();
    stage.go();
    assert_eq!(stage.phase(), Phase::Completed);
    assert_eq!(stage.commands(), Commands::default());
}

#[test]
fn an_instance_that_another_node_says_it_runs_on_is_not_ended_whatever_presses() {
    let liar = |id: &str| vec![(id.into(), "e".into())];
    let mut stage = Stage::urgent();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.disputed = liar(OLD);
    stage.drained().pass(118).go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Drained(_)), "{:#?}", stage.status);
    assert!(stage.marks(DrainPurpose::Replace), "its pods leave all the same");
    assert_eq!(stage.blocked_by(), [ReasonCode::InstanceDisputed]);
    stage.disputed.clear();
    stage.go();
    assert_eq!(stage.commands().ends.len(), 1);
    // It is seen after the end was decided, and before it was announced.
    stage.disputed = liar(OLD);
    assert_eq!(stage.commands().ends.len(), 0);
    stage.go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Drained(_)));
    stage.settle(GroupKind::Spot).lose(OLD).go();
    assert_eq!(stage.status.old_node, OldNodeState::Gone {}, "EC2 has taken it");

    let mut stage = Stage::returning();
    stage.disputed = liar("od");
    stage.drained().go();
    assert!(matches!(*stage.status.fallback, FallbackState::OnFallback(_)));
    assert_eq!(stage.commands().ends.len(), 0);
    let mut stage = Stage::returning();
    stage.drained().go();
    assert_eq!(stage.commands().ends.len(), 1);
    stage.disputed = liar("od");
    assert_eq!(stage.commands().ends.len(), 0);
    stage.go();
    assert!(matches!(*stage.status.fallback, FallbackState::OnFallback(_)));
}

#[test]
fn taken_by_aws_ends_the_drain_and_what_the_group_has_too_many_goes_back() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go().lose(OLD).go();
    assert!(stage.has(FlowBox::Drain, Outcome::TakenByAws));
    assert_eq!(stage.commands().ends.len(), 1, "the AsgScaler settles the +1");
    stage.pass(60).go();
    assert_eq!(stage.phase(), Phase::OnFallback, "nothing could be ended at once: {:#?}", stage.status);
    stage.assessment = Some(ReturnAssessment::default());
    stage.view.spot.min = stage.view.spot.desired;
    stage.go();
    assert_eq!(stage.phase(), Phase::OnFallback, "at its minimum the group would replace it");
    stage.view.spot.min = 0;
    stage.go();
    assert_eq!(stage.commands().drains.iter().map(|drain| drain.node.as_str()).collect::<Vec<_>>(), ["i-4"]);
}

#[test]
fn a_return_needs_every_box_and_a_spot_instance() {
    let reasons = || vec![Reason::NoSpotInstance];
    let rows: [(&str, Option<ReturnAssessment>, bool, bool); 8] = [
        ("held", Some(ReturnAssessment { held: reasons(), ..Default::default() }), true, false),
        ("not assessed yet", None, true, false),
        ("unhealthy", Some(ReturnAssessment { unhealthy: reasons(), ..Default::default() }), true, false),
        ("unstable", Some(ReturnAssessment { unstable: reasons(), ..Default::default() }), true, false),
        ("unsafe", Some(ReturnAssessment { unsafe_: reasons(), ..Default::default() }), true, false),
        (
            "of what went back before",
            Some(ReturnAssessment { of: Some("i-before".into()), ..Default::default() }),
            true,
            false,
        ),
        ("nothing on Spot", Some(ReturnAssessment::default()), false, false),
        ("all well", Some(ReturnAssessment::default()), true, true),
    ];
    for (name, assessment, spot, returns) in rows {
        let mut stage = Stage::on_fallback();
        if spot {
            stage.share(GroupKind::Spot, Some("i-4"), None);
        }
        stage.assessment = assessment;
        stage.go();
        assert_eq!(stage.marks(DrainPurpose::Return), returns, "{name}");
        assert_eq!(stage.phase() == Phase::Returning, returns, "{name}");
    }
}

#[test]
fn a_return_waits_while_its_spot_node_is_cordoned_or_its_group_at_the_minimum() {
    let ready = || {
        let mut stage = Stage::on_fallback();
        stage.share(GroupKind::Spot, Some("i-4"), None);
        stage.assessment = Some(ReturnAssessment::default());
        stage
    };
    let mut stage = ready();
    stage.cordoned = true;
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::NodeCordoned]);
    assert!(!stage.marks(DrainPurpose::Return));
    stage.cordoned = false;
    stage.go();
    assert!(stage.marks(DrainPurpose::Return));

    let mut stage = ready();
    stage.view.on_demand.min = stage.view.on_demand.desired;
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::AtMinimum]);
    assert!(!stage.marks(DrainPurpose::Return));
    stage.view.on_demand.min = 0;
    stage.go();
    assert!(stage.marks(DrainPurpose::Return));

    let mut stage = ready();
    stage.view.on_demand.min = stage.view.on_demand.desired;
    stage.settle(GroupKind::OnDemand).go();
    assert!(stage.marks(DrainPurpose::Return), "what comes in its place is the group's own");
}

#[test]
fn a_pause_lets_no_return_begin_and_does_not_stop_one() {
    for pause in [Pause::Pool, Pause::Everything] {
        let mut stage = Stage::on_fallback();
        stage.share(GroupKind::Spot, Some("i-4"), None);
        stage.assessment = Some(ReturnAssessment::default());
        stage.starts.pause = Some(pause.clone());
        stage.go();
        assert!(!stage.marks(DrainPurpose::Return), "{pause:?}");
        assert_eq!(stage.status.blocking[0].flow_box, FlowBox::Monitor);
        assert_eq!(stage.blocked_by(), [ReasonCode::Paused]);
        assert_eq!(stage.status.blocking[0].message, pause.to_string());
        stage.starts.pause = None;
        stage.go();
        assert!(stage.marks(DrainPurpose::Return), "{pause:?} is over");
        stage.starts.pause = Some(pause);
        stage.go();
        assert!(stage.marks(DrainPurpose::Return), "what has begun goes on");
    }
}

#[test]
fn a_return_that_is_held_asks_spot_for_nothing() {
    let mut stage = Stage::on_fallback();
    stage.share(GroupKind::Spot, None, Some(FailureClass::Capacity));
    stage.ledger.scaling_requests.last_mut().expect("its share").shares[0].balance = Balance::Even;
    stage.assessment = Some(ReturnAssessment::default());
    stage.go().pass(300);
    stage.assessment = Some(ReturnAssessment { held: vec![Reason::ReturnWindow], ..Default::default() });
    stage.go();
    assert_eq!(stage.status.probes, 0, "an instance would stand idle");
    assert_eq!(stage.blocked_by(), [ReasonCode::ReturnWindow]);
    stage.assessment = Some(ReturnAssessment::default());
    stage.go();
    assert_eq!(stage.status.probes, 1, "at once when it may");
}

#[test]
fn a_return_that_takes_too_long_is_given_up_and_tried_again_later() {
    let mut stage = Stage::returning();
    stage.return_drain = Some(DrainReport {
        node: "od".into(),
        tainted: true,
        blocked: vec![shut_budget()],
        stuck: true,
        ..DrainReport::default()
    });
    stage.pass(599).go();
    assert!(stage.marks(DrainPurpose::Return));
    stage.pass(1).go();
    assert!(!stage.marks(DrainPurpose::Return), "the marks are undone");
    assert!(stage.has(FlowBox::ScaleDown, Outcome::ReturnGivenUp));
    stage.pass(299).go();
    assert!(!stage.marks(DrainPurpose::Return));
    stage.pass(1).go();
    assert!(stage.marks(DrainPurpose::Return));
}

#[test]
fn a_drain_that_ends_without_everything_is_told_as_it_is() {
    let overstayed = Reason::PodOverstayed { pod: named("web-1"), due: now(), finalizers: true };
    let reasons = || vec![overstayed.clone()];
    let report = |node: &str, end| {
        Some(DrainReport { node: node.into(), tainted: true, end: Some(end), ..DrainReport::default() })
    };
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.drain = report("old", DrainEnd::Without(reasons()));
    stage.go();
    assert!(stage.has(FlowBox::Drain, Outcome::TimedOut) && !stage.has(FlowBox::Drain, Outcome::Drained));
    assert!(stage.status.steps.last().is_some_and(|step| step.message.contains(&overstayed.to_string())));
    stage.go();
    assert_eq!(stage.commands().ends.len(), 1, "and goes on");

    let mut stage = Stage::returning();
    stage.return_drain = report("od", DrainEnd::Without(reasons()));
    stage.go();
    assert!(stage.has(FlowBox::ScaleDown, Outcome::TimedOut));
    assert_eq!(stage.commands().ends.len(), 1);

    let mut stage = Stage::returning();
    stage.return_drain = report("od", DrainEnd::GivenUp(reasons()));
    stage.go();
    assert!(stage.has(FlowBox::ScaleDown, Outcome::ReturnGivenUp) && !stage.marks(DrainPurpose::Return));
    assert!(stage.commands().ends.is_empty());
}

#[test]
fn a_node_under_notice_whose_drain_takes_too_long_keeps_its_marks_and_the_story_says_so_once() {
    let mut stage = Stage::urgent();
    stage.policy.drain_timeout_seconds = 30;
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.drain = Some(DrainReport {
        node: "old".into(),
        tainted: true,
        blocked: vec![shut_budget()],
        ..DrainReport::default()
    });
    stage.pass(9).go();
    assert!(stage.status.blocking.is_empty(), "not stuck yet");
    stage.drain.as_mut().unwrap().stuck = true;
    stage.go();
    for _ in 0..3 {
        stage.pass(30).go();
        assert!(stage.marks(DrainPurpose::Replace));
        let told = stage.status.steps.iter().filter(|step| step.outcome == Outcome::Blocked);
        assert_eq!(told.count(), 1);
        assert!(!stage.has(FlowBox::Drain, Outcome::TimedOut));
    }
}

fn named(name: &str) -> PodName {
    PodName { namespace: "default".to_owned(), name: name.to_owned() }
}

fn too_small() -> Reason {
    Reason::NoRoomYet { pod: named("web-1"), reasons: Reasons::default() }
}

fn owned() -> Reason {
    Reason::PoolRefused(Finding { group: "spot".into(), problem: GroupProblem::CapacityRebalance })
}

fn shut_budget() -> Reason {
    Reason::BudgetShut { budget: named("web"), healthy: 2, required: 2 }
}

fn old(kind: WatchedKind) -> Freshness {
    Freshness { stale: vec![StaleWatch { kind, since: now() }] }
}

impl Stage {
    fn blocked_by(&self) -> Vec<ReasonCode> {
        self.status.blocking.iter().map(|held| held.reason).collect()
    }

    /// Whether it waits for a current picture at this box, and says so.
    fn waits_for_watch(&self, flow_box: FlowBox) -> bool {
        let says = |held: &BlockingReason| (held.flow_box, held.reason) == (flow_box, ReasonCode::StaleWatch);
        self.status.blocking.iter().any(says)
    }
}

#[test]
fn no_drain_counts_as_finished_on_an_old_picture() {
    for kind in Step::End.looks_at() {
        let mut stage = Stage::new();
        stage.go().share(GroupKind::Spot, Some("i-4"), None).go().drained();
        stage.freshness = old(*kind);
        stage.go();
        assert_eq!(stage.phase(), Phase::Draining, "{kind:?}");
        assert!(stage.waits_for_watch(FlowBox::Drain), "{kind:?}: {:#?}", stage.status.blocking);
        assert!(stage.commands().ends.is_empty());
        stage.freshness = Freshness::default();
        stage.go();
        assert_eq!(stage.phase(), Phase::Terminating, "{kind:?}");
        assert_eq!(stage.commands().ends.first().map(|end| end.pressed), Some(false));
        assert_eq!(stage.blocked_by(), [ReasonCode::InstanceNotGone], "{kind:?}");
        // The instance is still there when a watch breaks again.
        stage.freshness = old(*kind);
        stage.go();
        assert_eq!(stage.phase(), Phase::Draining, "{kind:?}: it is found anew");
        assert!(stage.waits_for_watch(FlowBox::Drain), "{kind:?}: {:#?}", stage.status.blocking);
        assert!(stage.commands().ends.is_empty());
        stage.freshness = Freshness::default();
        stage.go();
        assert_eq!(stage.phase(), Phase::Terminating, "{kind:?}");
        assert_eq!(stage.blocked_by(), [ReasonCode::InstanceNotGone], "{kind:?}");
        // Once it is on its way out, nothing holds it any more.
        stage.freshness = old(*kind);
        let leaving = stage.view.spot.instances.iter_mut().find(|held| held.id == OLD).expect("it is there");
        leaving.lifecycle = Lifecycle::Leaving;
        stage.go();
        assert_eq!(stage.phase(), Phase::Terminating, "{kind:?}");
    }
}

#[test]
fn on_an_old_picture_a_deadline_ends_the_instance_when_it_is_near_and_not_before() {
    let mut stage = Stage::urgent();
    stage.freshness = old(WatchedKind::Pod);
    stage.go().drained().go();
    assert!(stage.marks(DrainPurpose::Replace), "it is drained meanwhile");
    assert!(stage.has(FlowBox::Taint, Outcome::Tainted));
    stage.pass(60).go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Draining(_)));
    stage.pass(50).go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Terminating(_)));
    assert_eq!(stage.commands().ends.first().map(|end| end.pressed), Some(true));
}

#[test]
fn a_node_that_an_old_picture_does_not_show_is_not_gone() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.old_node = false;
    stage.go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Draining(_)), "its instance serves");
    stage.freshness = old(WatchedKind::Node);
    stage.lose(OLD).go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Draining(_)));
    stage.freshness = Freshness::default();
    stage.go();
    assert!(stage.has(FlowBox::Drain, Outcome::TakenByAws));
}

#[test]
fn no_return_begins_ends_or_is_given_up_on_an_old_picture() {
    for kind in Step::Return.looks_at() {
        let mut stage = Stage::on_fallback();
        stage.share(GroupKind::Spot, Some("i-4"), None).settle(GroupKind::Spot);
        stage.assessment = Some(ReturnAssessment::default());
        stage.freshness = old(*kind);
        stage.go();
        assert_eq!(stage.phase(), Phase::OnFallback, "{kind:?}");
        assert!(stage.waits_for_watch(FlowBox::Safety), "{kind:?}: {:#?}", stage.status.blocking);
        stage.freshness = Freshness::default();
        stage.go();
        assert_eq!(stage.phase(), Phase::Returning, "{kind:?}");
    }
    for kind in Step::End.looks_at() {
        let mut stage = Stage::returning();
        stage.drained();
        stage.freshness = old(*kind);
        stage.pass(24 * 3600).go();
        assert_eq!(stage.phase(), Phase::Returning, "{kind:?}");
        assert!(stage.waits_for_watch(FlowBox::ScaleDown), "{kind:?}: {:#?}", stage.status.blocking);
        stage.freshness = Freshness::default();
        stage.go();
        assert_eq!(stage.phase(), Phase::ScalingDown, "{kind:?}");
        stage.freshness = old(*kind);
        stage.go();
        assert_eq!(stage.phase(), Phase::Returning, "{kind:?}: it is found anew");
        assert!(stage.waits_for_watch(FlowBox::ScaleDown), "{kind:?}: {:#?}", stage.status.blocking);
        assert!(stage.commands().ends.is_empty());
    }
}

#[test]
fn what_is_left_at_the_deadline_is_told() {
    let mut stage = Stage::urgent();
    stage.go();
    stage.drain = Some(DrainReport {
        node: "old".into(),
        tainted: true,
        blocked: vec![shut_budget()],
        ..DrainReport::default()
    });
    stage.pass(110).go();
    let is_it = |step: &&StepRecord| (step.flow_box, step.outcome) == (FlowBox::Drain, Outcome::TimedOut);
    let told = stage.status.steps.iter().find(is_it).expect("a step");
    assert_eq!(told.message, Event::DeadlineNear { reasons: vec![shut_budget()] }.to_string());
}

#[test]
fn a_return_ends_the_on_demand_instance_and_then_the_story() {
    let mut stage = Stage::returning();
    stage.drained().go();
    assert_eq!(stage.phase(), Phase::ScalingDown);
    let ends: Vec<(GroupKind, InstanceId)> =
        stage.commands().ends.into_iter().map(|end| (end.group, end.instance_id)).collect();
    assert_eq!(ends, [(GroupKind::OnDemand, "od".into())]);
    stage.settle(GroupKind::OnDemand).lose("od").go();
    assert!(stage.has(FlowBox::ScaleDown, Outcome::ScaledDown) && !stage.status.fallback.is_open());
    stage.ledger = Ledger::default();
    stage.go();
    assert_eq!(stage.phase(), Phase::Completed);
}

#[test]
fn a_lost_on_demand_instance_ends_the_fallback_or_binds_it_to_its_successor() {
    let mut alone = Stage::on_fallback();
    alone.lose("od").go();
    assert_eq!(alone.phase(), Phase::OnFallback);
    alone.share(GroupKind::OnDemand, Some("od-2"), None).go();
    assert_eq!(alone.status.capacity.taken().map(|held| held.instance_id.as_str()), Some("od-2"));
    let mut paid = Stage::on_fallback();
    paid.share(GroupKind::Spot, Some("i-4"), None).lose("od").go();
    assert!(!paid.status.fallback.is_open(), "Spot has taken over");
}

#[test]
fn an_on_demand_node_that_came_too_late_goes_back_even_after_another_one_did() {
    let mut stage = Stage::returning();
    stage.drained().go().settle(GroupKind::OnDemand).lose("od").go();
    assert!(!stage.status.fallback.is_open(), "{:#?}", stage.status);
    stage.return_drain = None;
    // A late one holds the +1, and pods run on it by now.
    stage.share(GroupKind::OnDemand, Some("od-2"), None).settle(GroupKind::Spot);
    stage.nodes.retain(|(id, _)| id != "od-2");
    stage.nodes.push(("od-2".into(), true));
    stage.assessment = None;
    stage.go();
    assert_eq!(stage.phase(), Phase::OnFallback, "{:#?}", stage.status);
    stage.assessment = Some(ReturnAssessment::default());
    stage.go();
    assert_eq!(stage.phase(), Phase::Returning);
    stage.drained().go();
    let ends: Vec<InstanceId> = stage.commands().ends.into_iter().map(|end| end.instance_id).collect();
    assert_eq!(ends, ["od-2"]);
}

#[test]
fn a_deadline_escalates_from_every_phase_and_only_once() {
    let deadline = Some(now() + Duration::from_secs(120));
    let later = Some(now() + Duration::from_secs(500));
    for phase in [
        Phase::Received,
        Phase::ScalingUp,
        Phase::FallingBack,
        Phase::BackingOff,
        Phase::Draining,
        Phase::Terminating,
        Phase::OnFallback,
        Phase::Returning,
        Phase::ScalingDown,
    ] {
        let mut status = ReplacementStatus { phase, ..Stage::new().status };
        escalate(&mut status, &subject(), NoticeKind::SpotInterruption, deadline, now());
        escalate(&mut status, &subject(), NoticeKind::SpotInterruption, later, now());
        escalate(&mut status, &subject(), NoticeKind::RebalanceRecommendation, None, now());
        assert_eq!(
            (status.deadline, status.notice),
            (deadline, Some(NoticeKind::SpotInterruption)),
            "{phase:?}"
        );
    }
    // It may come earlier than it was said first, never later.
    let earlier = Some(now() + Duration::from_secs(60));
    let mut status = Stage::urgent().status;
    escalate(&mut status, &subject(), NoticeKind::SpotInterruption, earlier, now());
    assert_eq!(status.deadline, earlier);
    escalate(&mut status, &subject(), NoticeKind::SpotInterruption, deadline, now());
    assert_eq!(status.deadline, earlier);
    for phase in [Phase::Completed, Phase::Cancelled] {
        let mut status = ReplacementStatus { phase, finished_at: Some(now()), ..Stage::new().status };
        escalate(&mut status, &subject(), NoticeKind::SpotInterruption, deadline, now());
        assert_eq!(status.deadline, None, "{phase:?}");
    }
}

/// Facts at random, in no order that makes sense.
fn stage() -> impl Strategy<Value = Stage> {
    let instance = prop::option::of(prop_oneof![Just("i-4"), Just("i-5")]);
    let failure = prop::option::of(prop_oneof![Just(FailureClass::Capacity), Just(FailureClass::Unknown)]);
    (any::<[bool; 12]>(), instance, prop::option::of(Just("od")), failure.clone(), failure, 0..400_u64)
        .prop_map(|(bits, spot, on_demand, spot_failure, on_demand_failure, passed)| {
            let mut stage = if bits[0] { Stage::urgent() } else { Stage::new() };
            stage.now += Duration::from_secs(passed);
            if bits[1] {
                stage.share(GroupKind::Spot, spot, spot_failure);
            }
            if bits[2] {
                stage.share(GroupKind::OnDemand, on_demand, on_demand_failure);
            }
            (stage.fit, stage.known) = (if bits[3] { Fit::Unknown } else { Fit::Fits }, bits[4]);
            stage.assessment = bits[5].then(|| ReturnAssessment {
                unhealthy: if bits[6] { vec![Reason::NoSpotInstance] } else { Vec::new() },
                unsafe_: if bits[7] { vec![shut_budget()] } else { Vec::new() },
                ..ReturnAssessment::default()
            });
            if bits[8] {
                stage.drained();
            }
            if bits[9] {
                stage.lose(OLD);
            }
            if bits[10] {
                stage.settle(GroupKind::Spot).settle(GroupKind::OnDemand);
            }
            stage.old_node &= bits[11];
            stage
        })
}

proptest! {
    #[test]
    fn nothing_is_marked_or_ended_before_its_time(stages in prop::collection::vec(stage(), 1..20)) {
        let mut status = stages[0].status.clone();
        for mut stage in stages {
            stage.status = status.clone();
            let next = stage.with_facts(|subject, facts| advance(subject, &status, facts));
            prop_assert_eq!(next.phase, next.phase());
            if status.old_node.drain().is_none() && next.old_node.drain().is_some() {
                prop_assert!(next.capacity.taken().is_some() || next.deadline.is_some());
            }
            if !status.fallback.is_returning() && next.fallback.is_returning() {
                prop_assert_eq!(stage.assessment.as_ref(), Some(&ReturnAssessment::default()));
                prop_assert_eq!(&next.old_node, &OldNodeState::Gone {});
            }
            if next.phase == Phase::Completed {
                let left = stage.with_facts(|subject, facts| commands(subject, &next, facts));
                prop_assert!(left == Commands::default());
            }
            status = next;
        }
    }
}

fn cancelled(stage: &mut Stage) -> &mut Stage {
    cancel(&mut stage.status, stage.now);
    stage.go()
}

#[test]
fn a_cancelled_story_that_asked_for_nothing_is_over_at_once() {
    let held: [Change; 3] = [
        |stage| stage.starts.pause = Some(Pause::Pool),
        |stage| stage.mode = Mode::Observe,
        |stage| stage.in_pool = false,
    ];
    for change in held {
        let mut stage = Stage::new();
        change(&mut stage);
        cancelled(stage.go());
        assert_eq!((stage.phase(), &*stage.status.old_node), (Phase::Cancelled, &OldNodeState::Retained {}));
        assert!(stage.status.finished_at.is_some() && stage.has(FlowBox::CleanUp, Outcome::Cancelled));
        assert_eq!(stage.commands(), Commands::default());
    }
    let mut drained = Stage { mode: Mode::DrainOnly, ..Stage::new() };
    drained.go();
    assert!(drained.marks(DrainPurpose::Replace));
    cancelled(&mut drained);
    assert_eq!((drained.phase(), drained.commands()), (Phase::Cancelled, Commands::default()));
}

#[test]
fn what_a_cancelled_story_asked_for_is_taken_back() {
    for instance in [None, Some("i-4")] {
        let mut stage = Stage::new();
        stage.go().share(GroupKind::Spot, instance, None);
        cancelled(&mut stage);
        assert_eq!(stage.phase(), Phase::Cancelling, "{instance:?}");
        let commands = stage.commands();
        assert_eq!(want(&commands, GroupKind::Spot), Some(&Want::Nothing));
        assert!(commands.drains.is_empty() && commands.ends.is_empty());
        assert!(commands.taken.contains(OLD), "the old instance is not what goes");
        stage.pass(59).go();
        assert_eq!(stage.phase(), Phase::Cancelling, "while its share is in the ledger");
        stage.ledger = Ledger::default();
        stage.withdrawn = false;
        stage.go();
        assert_eq!(stage.phase(), Phase::Cancelling, "the ledger may not know its request yet");
        stage.withdrawn = true;
        stage.go();
        assert_eq!((stage.phase(), stage.commands()), (Phase::Cancelled, Commands::default()));
    }
}

#[test]
fn a_drain_that_is_cancelled_stops_and_pods_that_moved_move_again_before_anything_is_ended() {
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        let mut stage = Stage::new();
        stage.go();
        if group == GroupKind::OnDemand {
            stage.share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
        }
        stage.share(group, Some("new"), None).go();
        assert!(stage.marks(DrainPurpose::Replace), "{group}");
        stage.nodes = vec![("new".into(), true)];
        cancelled(&mut stage);
        assert!(!stage.marks(DrainPurpose::Replace), "{group}: its marks come off");
        assert_eq!(stage.phase(), Phase::OnFallback, "{group}: what runs pods goes back like a fallback");
        assert!(matches!(want(&stage.commands(), group), Some(Want::Instance { .. })), "{group}");
        assert_eq!(stage.commands().ends, BTreeSet::new(), "{group}");
        let other = if group == GroupKind::Spot { GroupKind::OnDemand } else { GroupKind::Spot };
        assert!(matches!(want(&stage.commands(), other), None | Some(Want::Nothing)), "{group}");

        stage.starts.pause = Some(Pause::Pool);
        stage.assessment = Some(ReturnAssessment::default());
        stage.go();
        assert_eq!(stage.phase(), Phase::OnFallback, "{group}: a pause holds it");
        stage.starts.pause = None;
        stage.view.spot.desired = 4;
        stage.go();
        assert!(stage.marks(DrainPurpose::Return), "{group}: drained with no other instance claimed for it");
        stage.drained().go();
        let (instance_id, replacement) = ("new".to_owned(), OLD.to_owned());
        let end =
            End { group, instance_id: instance_id.into(), replacement: replacement.into(), pressed: false };
        assert_eq!(stage.commands().ends, BTreeSet::from([end]), "{group}");
        stage.settle(group).lose("new").go();
        stage.ledger = Ledger::default();
        stage.go();
        assert_eq!(stage.phase(), Phase::Cancelled, "{group}: {:#?}", stage.status);
    }
}

#[test]
fn two_minutes_bring_a_cancelled_story_back() {
    let deadline = Some(now() + Duration::from_secs(120));
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    assert!(stage.marks(DrainPurpose::Replace));
    stage.nodes = vec![("i-4".into(), true)];
    cancelled(&mut stage);
    escalate(&mut stage.status, &subject(), NoticeKind::SpotInterruption, deadline, now());
    assert_eq!((&*stage.status.old_node, stage.status.deadline), (&OldNodeState::Kept {}, deadline));
    stage.go();
    assert!(stage.marks(DrainPurpose::Replace), "it is drained at once");
    assert!(matches!(want(&stage.commands(), GroupKind::Spot), Some(Want::Instance { attempt: 1, .. })));
    stage.share(GroupKind::Spot, Some("i-4"), None).go();
    assert_eq!(stage.status.capacity.taken().map(|held| held.instance_id.as_str()), Some("i-4"));

    let mut over = Stage::new();
    cancelled(&mut over);
    let fresh = open(&subject(), NoticeKind::SpotInterruption, deadline, None, None, now());
    let again = reopen(&over.status, fresh);
    assert_eq!(
        (again.phase, again.finished_at, &*again.old_node),
        (Phase::Received, None, &OldNodeState::Kept {})
    );
    assert!(again.steps.iter().any(|step| step.outcome == Outcome::Cancelled), "it tells what was before");
}

#[test]
fn a_request_for_the_return_ends_with_the_fallback() {
    let mut stage = Stage::returning();
    stage.status.fallback.open_mut().expect("an open fallback").requested_at = Some(now());
    stage.go();
    assert_eq!(stage.status.fallback.requested_at(), Some(now()), "it holds while the return is under way");
    stage.drained().go();
    stage.lose("od").settle(GroupKind::OnDemand).go();
    assert_eq!((stage.status.fallback.is_open(), stage.status.fallback.requested_at()), (false, None));
}

#[test]
fn what_is_told_of_very_many_pods_fits_in_a_record() {
    let mut status = ReplacementStatus::default();
    let now = Timestamp::UNIX_EPOCH;
    let no_room = |i| Reason::NoRoomYet { pod: named(&format!("evil-{i}")), reasons: Reasons::default() };
    let reasons: Vec<Reason> = (0..10_000).map(no_room).collect();
    status.step(FlowBox::Drain, Outcome::Blocked, &"node".into(), in_one_line(&reasons), now);
    status.block(FlowBox::Drain, reasons, now);
    let last = status.blocking.last().map(|held| (held.reason, held.message.clone()));
    assert_eq!(last, Some((ReasonCode::MoreReasons, Reason::More(9951).to_string())));
    assert!(serde_json::to_string(&status).unwrap().len() < 16_000);
}

/// A cancelled replacement whose instance of that group runs pods, so that it has to go back.
fn cancelled_with_pods(group: GroupKind) -> Stage {
    let mut stage = Stage::new();
    stage.go();
    if group == GroupKind::OnDemand {
        stage.share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    }
    stage.share(group, Some("new"), None).go();
    stage.nodes = vec![("new".into(), true)];
    cancelled(&mut stage);
    assert_eq!(stage.phase(), Phase::OnFallback);
    stage.view.spot.desired = 4;
    stage
}

#[test]
fn an_interruption_notice_brings_a_cancelled_replacement_back_however_far_it_is() {
    let deadline = Some(now() + Duration::from_secs(120));
    let returning = |stage: &mut Stage| {
        stage.assessment = Some(ReturnAssessment::default());
        stage.go();
        assert_eq!(stage.phase(), Phase::Returning);
    };
    let ends = |stage: &mut Stage| {
        returning(stage);
        stage.drained().go();
        assert_eq!(stage.phase(), Phase::ScalingDown);
    };
    let is_over = |stage: &mut Stage| {
        ends(stage);
        // A share of the other group keeps the record open.
        stage.settle(GroupKind::Spot).lose("new").go();
        assert!(matches!(*stage.status.fallback, FallbackState::Gone { .. }));
    };
    let mut waits = Stage::new();
    waits.go().share(GroupKind::Spot, None, None);
    assert_eq!(cancelled(&mut waits).phase(), Phase::Cancelling);
    escalate(&mut waits.status, &subject(), NoticeKind::SpotInterruption, deadline, now());
    waits.go();
    assert!(waits.marks(DrainPurpose::Replace) && waits.status.capacity.spot_requested_at().is_some());
    let far: [&dyn Fn(&mut Stage); 4] = [&|_| {}, &returning, &ends, &is_over];
    for go_so_far in far {
        let mut stage = cancelled_with_pods(GroupKind::Spot);
        go_so_far(&mut stage);
        escalate(&mut stage.status, &subject(), NoticeKind::SpotInterruption, deadline, now());
        assert_eq!(stage.status.fallback, FallbackState::None {});
        stage.go();
        assert!(stage.marks(DrainPurpose::Replace) && !stage.marks(DrainPurpose::Return));
    }
}

#[test]
fn what_a_cancelled_replacement_brought_may_be_lost_before_it_goes_back() {
    let mut stage = cancelled_with_pods(GroupKind::OnDemand);
    stage.lose("new").go();
    assert_eq!((stage.status.capacity.taken(), stage.phase()), (None, Phase::Cancelling));
    assert_eq!(want(&stage.commands(), GroupKind::OnDemand), Some(&Want::Nothing));
}

#[test]
fn a_replacement_can_be_cancelled_from_every_state_that_lets_it() {
    let mut failed = Stage::new();
    failed.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    assert_eq!(cancelled(&mut failed).phase(), Phase::Cancelling);
    let mut backing_off = Stage::new();
    backing_off.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    backing_off.share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).go();
    assert_eq!(backing_off.phase(), Phase::BackingOff);
    assert_eq!(cancelled(&mut backing_off).phase(), Phase::Cancelling);
    let mut drained = Stage::new();
    drained.go().share(GroupKind::Spot, Some("i-4"), None).go();
    drained.disputed = vec![(OLD.into(), "e".into())];
    drained.drained().go();
    assert!(matches!(*drained.status.old_node, OldNodeState::Drained(_)));
    assert_eq!(cancelled(&mut drained).phase(), Phase::Cancelling);
}

#[test]
fn while_both_groups_back_off_an_instance_that_comes_late_is_taken() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    stage.share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).go();
    assert_eq!(stage.phase(), Phase::BackingOff);
    stage.share(GroupKind::OnDemand, Some("od"), None).go();
    assert!(stage.has(FlowBox::Fallback, Outcome::InService) && stage.marks(DrainPurpose::Replace));
    // It is lost before the drain ends.
    stage.lose("od").go();
    assert_eq!((stage.phase(), &*stage.status.fallback), (Phase::ScalingUp, &FallbackState::None {}));
}

#[test]
fn an_on_demand_instance_that_is_lost_while_it_is_drained_ends_the_return() {
    let mut stage = Stage::returning();
    stage.lose("od").go();
    assert!(matches!(*stage.status.fallback, FallbackState::Gone { .. }), "{:#?}", stage.status);
    assert!(!stage.marks(DrainPurpose::Return));
    let mut idle = Stage::on_fallback();
    idle.share(GroupKind::Spot, Some("i-4"), None).lose("od").go();
    assert!(matches!(*idle.status.fallback, FallbackState::Gone { .. }), "{:#?}", idle.status);
}

/// The group has one Spot instance too many, which runs pods.
fn one_too_many() -> Stage {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go().lose(OLD).go().pass(60).go();
    assert_eq!(stage.phase(), Phase::OnFallback);
    stage
}

#[test]
fn a_spot_node_that_is_one_too_many_stays_when_another_instance_could_be_terminated() {
    let mut waits = one_too_many();
    waits.settle(GroupKind::Spot).go();
    assert_eq!(waits.status.fallback, FallbackState::None {});
    let mut drains = one_too_many();
    drains.assessment = Some(ReturnAssessment::default());
    drains.go();
    assert!(drains.marks(DrainPurpose::Return));
    drains.settle(GroupKind::Spot).go();
    assert!(!drains.marks(DrainPurpose::Return) && drains.status.fallback == FallbackState::None {});
}

#[test]
fn the_replacement_that_a_group_launched_by_itself_goes_back_instead() {
    let mut stage = Stage::returning();
    stage.drained().go();
    assert_eq!(stage.phase(), Phase::ScalingDown);
    stage.lose("od").share(GroupKind::OnDemand, Some("od-2"), None).go();
    assert_eq!(stage.phase(), Phase::ScalingDown, "an idle instance may be terminated for it");
    stage.return_drain = None;
    stage.pass(60).go();
    assert_eq!(stage.status.capacity.taken().map(|held| held.instance_id.as_str()), Some("od-2"));
    assert_eq!(stage.phase(), Phase::Returning);
}

/// The tests above take every transition that there is: one that none can take does not belong into the
/// tables.
#[test]
fn every_transition_is_taken() {
    let tests: [fn(); 22] = [
        when_both_groups_fail_the_node_is_kept_and_both_are_asked_again,
        a_late_spot_instance_wins_and_the_on_demand_one_goes,
        a_replacement_lost_before_the_drain_ends_goes_back_to_box_2,
        the_old_instance_is_gone_only_when_nothing_of_it_is_left,
        an_instance_that_another_node_says_it_runs_on_is_not_ended_whatever_presses,
        no_drain_counts_as_finished_on_an_old_picture,
        no_return_begins_ends_or_is_given_up_on_an_old_picture,
        a_return_ends_the_on_demand_instance_and_then_the_story,
        an_on_demand_node_that_came_too_late_goes_back_even_after_another_one_did,
        a_cancelled_story_that_asked_for_nothing_is_over_at_once,
        what_a_cancelled_story_asked_for_is_taken_back,
        two_minutes_bring_a_cancelled_story_back,
        an_interruption_notice_brings_a_cancelled_replacement_back_however_far_it_is,
        what_a_cancelled_replacement_brought_may_be_lost_before_it_goes_back,
        a_replacement_can_be_cancelled_from_every_state_that_lets_it,
        while_both_groups_back_off_an_instance_that_comes_late_is_taken,
        an_on_demand_instance_that_is_lost_while_it_is_drained_ends_the_return,
        a_spot_node_that_is_one_too_many_stays_when_another_instance_could_be_terminated,
        the_replacement_that_a_group_launched_by_itself_goes_back_instead,
        by_group::what_the_group_replaces_in_time_ends_without_a_call,
        by_group::a_node_of_eks_is_stood_in_for_and_neither_marked_nor_drained,
        adopted::nothing_is_done_before_the_ledger_holds_what_others_raised_for_it,
    ];
    tests.iter().for_each(|test| test());
    assert_eq!(crate::record::not_taken(), [""; 0]);
}

#[test]
fn an_instance_is_not_taken_for_gone_when_its_pool_names_another_group() {
    let renamed = |stage: &mut Stage| {
        stage.view.spot.name = "other".into();
        stage.view.spot.instances.retain(|instance| instance.id != OLD);
    };
    let mut patient = Stage::new();
    patient.starts.pause = Some(Pause::Pool);
    patient.go();
    patient.starts = Starts::default();
    let before = patient.view.clone();
    renamed(&mut patient);
    patient.go();
    assert_eq!(patient.phase(), Phase::Received);
    let codes: Vec<_> = patient.status.blocking.iter().map(|held| held.reason).collect();
    assert_eq!(codes, [ReasonCode::NotInPool]);
    assert_eq!(patient.commands().wants.len(), 0);
    patient.view = before;
    patient.go();
    assert_eq!(patient.phase(), Phase::ScalingUp, "the pool names its group again");

    let mut urgent = Stage::urgent();
    urgent.mode = Mode::Observe;
    urgent.go();
    urgent.mode = Mode::Act;
    renamed(&mut urgent);
    urgent.go();
    let commands = urgent.commands();
    assert!(commands.wants.is_empty() && commands.ends.is_empty());
    assert_eq!(commands.drains.len(), 1, "a deadline is served by the drain alone");

    let mut begun = Stage::new();
    begun.go();
    renamed(&mut begun);
    let commands = begun.go().commands();
    let wanted = want(&commands, GroupKind::Spot);
    assert!(matches!(wanted, Some(Want::Instance { gone: false, .. })), "{wanted:?}");
    begun.status.spot_group = Some("other".into());
    let commands = begun.commands();
    let wanted = want(&commands, GroupKind::Spot);
    assert!(matches!(wanted, Some(Want::Instance { gone: true, .. })), "{wanted:?}");
}

fn stuck_on(reason: Reason) -> Option<DrainReport> {
    let report = DrainReport { node: "old".into(), tainted: true, ..DrainReport::default() };
    Some(DrainReport { blocked: vec![reason], stuck: true, ..report })
}

#[test]
fn what_can_never_leave_its_node_is_told_before_anything_is_requested_and_a_deadline_passes_it() {
    let mut stage = Stage { never_leave: vec![shut_budget()], ..Stage::new() };
    stage.go();
    assert_eq!((stage.phase(), stage.blocked_by()), (Phase::Received, vec![ReasonCode::BudgetExhausted]));
    assert_eq!(stage.commands().wants.len(), 0);
    stage.never_leave.clear();
    stage.go();
    assert_eq!((stage.phase(), stage.blocked_by()), (Phase::ScalingUp, vec![]), "its budget has opened");
    let mut urgent = Stage { never_leave: vec![shut_budget()], ..Stage::urgent() };
    urgent.go();
    assert!(urgent.marks(DrainPurpose::Replace));
}

#[test]
fn a_drain_that_gets_no_further_is_given_up_without_a_deadline_and_a_deadline_begins_it_anew() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.drain = stuck_on(shut_budget());
    stage.go().pass(500).go();
    // A pod leaves: it gets further.
    stage.drain.as_mut().expect("a report").stuck = false;
    stage.go();
    assert_eq!(stage.blocked_by(), []);
    stage.drain = stuck_on(shut_budget());
    stage.go().pass(599).go();
    assert!(stage.marks(DrainPurpose::Replace));
    assert_eq!(stage.blocked_by(), [ReasonCode::BudgetExhausted]);
    stage.pass(1).go();
    assert!(!stage.marks(DrainPurpose::Replace), "its marks come off");
    assert!(stage.has(FlowBox::Drain, Outcome::TimedOut));
    assert_eq!((stage.phase(), stage.blocked_by()), (Phase::Cancelling, vec![]));
    assert_eq!(want(&stage.commands(), GroupKind::Spot), Some(&Want::Nothing), "capacity goes back");
    stage.ledger = Ledger::default();
    stage.go().pass(86_000).go();
    assert_eq!(stage.phase(), Phase::Cancelled, "the advice that stands begins nothing anew");

    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.drain = stuck_on(shut_budget());
    stage.go().pass(600).go();
    assert_eq!(stage.phase(), Phase::Cancelling);
    let (subject, deadline) = (subject(), stage.now + Duration::from_secs(120));
    escalate(&mut stage.status, &subject, NoticeKind::SpotInterruption, Some(deadline), stage.now);
    stage.go();
    assert!(stage.marks(DrainPurpose::Replace), "{:#?}", stage.status);
}

#[test]
fn what_the_pool_lets_wait_is_told_and_is_no_reason_to_give_up() {
    let until = now() + Duration::from_secs(3600);
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    let held = Reason::ConnectionsEnd { until };
    stage.drain = stuck_on(held).map(|report| DrainReport { held_until: Some(until), ..report });
    stage.go().pass(3000).go();
    assert!(stage.marks(DrainPurpose::Replace) && !stage.has(FlowBox::Drain, Outcome::Blocked));
    assert_eq!(stage.blocked_by(), [ReasonCode::ConnectionsEnd]);
}

#[test]
fn pods_that_end_have_their_grace_period_however_long_it_is() {
    let ends = Reason::PodTerminating { pod: named("web-1") };
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    stage.drain = stuck_on(ends.clone());
    stage.go().pass(3600).go();
    assert!(stage.marks(DrainPurpose::Replace), "{:#?}", stage.status);
    assert_eq!(stage.blocked_by(), [ReasonCode::PodTerminating]);

    let mut stage = Stage::returning();
    stage.return_drain = stuck_on(ends).map(|report| DrainReport { node: "od".into(), ..report });
    stage.pass(3600).go();
    assert!(stage.marks(DrainPurpose::Return), "{:#?}", stage.status);
    stage.return_drain.as_mut().expect("a report").blocked.push(shut_budget());
    stage.go();
    assert!(!stage.marks(DrainPurpose::Return), "a budget holds it, too");
}

#[test]
fn what_was_found_while_another_instance_was_to_take_over_lets_no_return_begin() {
    let mut stage = Stage::on_fallback();
    stage.share(GroupKind::Spot, Some("i-4"), None);
    let of = Some(stage.status.goes_back().expect("it stands in").instance_id.clone());
    let found =
        |id: &str| ReturnAssessment { of: of.clone(), successor: Some(id.into()), ..Default::default() };
    stage.assessment = Some(found("i-3"));
    stage.go();
    assert!(!stage.marks(DrainPurpose::Return), "{:#?}", stage.status);
    stage.assessment = Some(found("i-4"));
    stage.go();
    assert!(stage.marks(DrainPurpose::Return), "{:#?}", stage.status);
}

#[test]
fn two_replacements_do_not_drain_one_node() {
    let other = |stage: &mut Stage, id: &str| stage.ended_by_other = [(id.into(), "other".into())].into();
    let mut stage = Stage::new();
    other(&mut stage, OLD);
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::TerminatedByOther], "advice waits");
    assert!(!stage.status.capacity.is_requested());
    stage.status.deadline = Some(now() + Duration::from_secs(300));
    stage.go();
    assert!(stage.status.capacity.is_requested(), "a deadline does not");

    let mut stage = Stage::on_fallback();
    stage.share(GroupKind::Spot, Some("i-4"), None);
    stage.assessment = Some(ReturnAssessment::default());
    let back = stage.status.goes_back().expect("it stands in").instance_id.clone();
    other(&mut stage, back.as_str());
    stage.go();
    assert_eq!((stage.phase(), stage.blocked_by()), (Phase::OnFallback, vec![ReasonCode::TerminatedByOther]));
    stage.ended_by_other.clear();
    stage.go();
    assert!(stage.marks(DrainPurpose::Return), "{:#?}", stage.status);
}

#[test]
fn a_reason_goes_when_its_cause_goes() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go().drained().go();
    assert_eq!(stage.phase(), Phase::Terminating);
    stage.disputed = vec![(OLD.into(), "other".into())];
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::InstanceDisputed]);
    stage.disputed.clear();
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::InstanceNotGone], "nobody else claims the instance");

    let mut stage = Stage::on_fallback();
    stage.share(GroupKind::Spot, Some("i-4"), None);
    stage.assessment = Some(ReturnAssessment { unsafe_: vec![shut_budget()], ..Default::default() });
    stage.go();
    let since = stage.status.blocking[0].since;
    stage.assessment = None;
    stage.pass(10).go();
    assert_eq!(stage.blocked_by(), [ReasonCode::BudgetExhausted], "nothing else is known");
    assert_eq!(stage.status.blocking[0].since, since);
    stage.status.fallback.open_mut().expect("a fallback").not_before =
        Some(stage.now + Duration::from_secs(60));
    stage.assessment = Some(ReturnAssessment::default());
    stage.go();
    let waits = (Phase::OnFallback, vec![ReasonCode::ReturnRetry]);
    assert_eq!((stage.phase(), stage.blocked_by()), waits, "the budget has opened");
}

#[test]
fn what_both_groups_said_is_told_until_they_are_requested_again() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, None, Some(FailureClass::Capacity)).go();
    stage.share(GroupKind::OnDemand, None, Some(FailureClass::Capacity)).go();
    assert_eq!(stage.phase(), Phase::BackingOff);
    stage.pass(5).go();
    assert_eq!(stage.blocked_by(), [ReasonCode::BothGroupsFailed]);
    stage.pass(60).go();
    assert_eq!(stage.blocked_by(), []);
}

/// The old instance has left its group, and its Node object stays.
fn ending_with_its_node() -> Stage {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go().drained().go();
    assert_eq!(stage.blocked_by(), [ReasonCode::InstanceNotGone], "what it waits for is said");
    stage.settle(GroupKind::Spot).lose(OLD);
    stage.old_node = true;
    stage
}

#[test]
fn a_node_object_that_nobody_deletes_holds_no_termination_up_once_it_is_not_ready() {
    let mut stage = ending_with_its_node();
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::NodeNotGone], "a Ready node runs on something");
    stage.unready_for = Duration::from_secs(1);
    stage.go();
    assert_eq!(*stage.status.old_node, OldNodeState::Gone {});
    assert_eq!(stage.blocked_by(), []);
}

#[test]
fn a_return_whose_group_comes_to_its_minimum_is_given_up_and_nothing_is_ended() {
    for drained in [false, true] {
        let mut stage = Stage::returning();
        if drained {
            stage.drained().go();
            assert_eq!(stage.commands().ends.len(), 1);
        }
        stage.view.on_demand.min = stage.view.on_demand.desired;
        stage.go();
        assert_eq!((stage.phase(), stage.blocked_by()), (Phase::OnFallback, vec![ReasonCode::AtMinimum]));
        assert!(!stage.marks(DrainPurpose::Return) && stage.commands().ends.is_empty());
        stage.view.on_demand.min = 0;
        (stage.return_drain, stage.assessment) = (None, Some(ReturnAssessment::default()));
        stage.go().pass(300).go();
        assert!(stage.marks(DrainPurpose::Return), "{:#?}", stage.status);
    }
}

#[test]
fn while_the_pool_names_another_group_a_node_object_that_stays_is_waited_for() {
    let mut stage = ending_with_its_node();
    stage.unready_for = Duration::from_secs(1);
    stage.view.spot.name = "another".into();
    stage.go();
    assert_eq!(stage.blocked_by(), [ReasonCode::NodeNotGone]);
    assert!(stage.status.blocking[0].message.contains("still in the cluster"));
}

#[test]
fn a_drain_on_a_node_object_that_stays_is_over_once_nothing_moves_any_more() {
    let mut stage = Stage::new();
    stage.go().share(GroupKind::Spot, Some("i-4"), None).go();
    let blocked = vec![Reason::PodTerminating { pod: named("web-1") }];
    let report = DrainReport { node: "old".into(), tainted: true, blocked, ..DrainReport::default() };
    stage.drain = Some(report.clone());
    stage.go().lose(OLD);
    (stage.old_node, stage.unready_for) = (true, Duration::from_secs(1));
    stage.go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Draining(_)), "evictions take effect first");
    stage.drain = Some(DrainReport { stuck: true, ..report.clone() });
    stage.freshness = old(WatchedKind::Node);
    stage.go();
    assert!(matches!(*stage.status.old_node, OldNodeState::Draining(_)), "an old picture says nothing");
    stage.freshness = Freshness::default();
    stage.go();
    assert!(stage.status.old_node.is_past_drain());
}

#[test]
fn a_fallback_whose_node_object_stays_goes_back() {
    for ready in [true, false] {
        let mut stage = Stage::returning();
        stage.drained().go();
        assert_eq!(stage.blocked_by(), [ReasonCode::InstanceNotGone], "what it waits for is said");
        stage.settle(GroupKind::OnDemand).lose("od");
        if ready {
            stage.nodes.push(("od".into(), false));
        } else {
            stage.unready.push("od".into());
        }
        stage.go();
        assert_eq!(stage.status.fallback.is_open(), ready, "{:#?}", stage.status);
        assert_eq!(stage.blocked_by(), if ready { vec![ReasonCode::NodeNotGone] } else { vec![] });
    }
}

#[test]
fn a_node_in_no_pool_that_is_not_ready_for_good_is_gone() {
    let mut stage = Stage { in_pool: false, ..Stage::urgent() };
    stage.go().drained().go();
    assert_eq!(stage.blocked_by(), [ReasonCode::NodeNotGone], "what it waits for is said");
    stage.unready_for = Duration::from_secs(899);
    stage.go();
    assert!(!stage.status.is_finished());
    stage.unready_for = Duration::from_secs(900);
    stage.go();
    assert!(stage.status.is_finished());
}

#[test]
fn a_record_that_was_begun_without_a_proof_ends_once_another_one_goes_on() {
    let mut stage = Stage { in_pool: false, ..Stage::urgent() };
    stage.go();
    assert_eq!(stage.commands().drains.len(), 1);
    stage.taken_over = true;
    stage.go();
    assert_eq!((stage.phase(), stage.commands().drains.len()), (Phase::Completed, 0));
}

#[test]
fn an_old_instance_that_a_person_put_into_standby_is_left_alone_and_never_taken_for_gone() {
    let standby = |stage: &mut Stage, id: &str| {
        let held = stage.view.spot.instances.iter_mut().filter(|held| held.id == id);
        held.for_each(|held| held.lifecycle = Lifecycle::Standby);
    };
    let mut stage = Stage::new();
    standby(&mut stage, OLD);
    stage.go().pass(3600).go();
    assert_eq!((stage.phase(), stage.blocked_by()), (Phase::Received, vec![ReasonCode::InStandby]));
    let mut stage = Stage::urgent();
    standby(&mut stage, OLD);
    stage.go();
    let commands = stage.commands();
    let asked = want(&commands, GroupKind::Spot);
    assert!(matches!(asked, Some(Want::Instance { gone: false, .. })), "a deadline passes: {asked:?}");
}
