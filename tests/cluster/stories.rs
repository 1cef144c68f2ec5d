//! Whole stories on the real control plane, each told by the simulation too: the same boxes with the same
//! outcomes in the same order, and the same capacity at the end.
//!
//! Real here: the API server, its controllers, the scheduler, KWOK's nodes, AWS's metadata mock, and the
//! agent and the controller as processes of their own under the accounts of the manifests. Simulated: Auto
//! Scaling.

use crate::helpers::wait_for;
use crate::imds::ImdsMock;
use crate::product::{self, PATIENCE, Service};
use crate::testbed::{Options, Testbed};
use crate::webhook::Webhook;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::crd::{NodeReplacement, OPEN_REQUESTS, SpotPool};
use spot_guard::sim::run::{Report, ScenarioRun};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{Gates, ON_DEMAND, POOL, SPOT, WorldOptions};
use spot_guard_cloud::cloud::{
    BootFault, BootTimes, CloudEvent, CloudSettings, EventKind, LaunchFailure, LifecycleState, Market,
    NoticeQueue, Served, Supply,
};
use spot_guard_core::notification::NotificationKind;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::{FlowBox, Outcome, Phase, StepRecord};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

const SEED: u64 = 1;
/// Time enough for a story, without takeovers.
const LIMIT: Duration = Duration::from_secs(180);

/// When the world does something.
#[derive(Clone, Copy)]
pub enum Cue {
    /// At once.
    Now,
    /// When this step was taken for the given time: no story depends on how fast the machine is.
    After(FlowBox, Outcome, usize),
}

impl Cue {
    fn has_come(self, records: &[NodeReplacement]) -> bool {
        match self {
            Self::Now => true,
            Self::After(flow_box, outcome, times) => times_taken(records, flow_box, outcome) >= times,
        }
    }
}

pub fn times_taken(records: &[NodeReplacement], flow_box: FlowBox, outcome: Outcome) -> usize {
    let steps = records.iter().filter_map(|record| record.status.as_ref()).flat_map(|status| &status.steps);
    steps.filter(|step| (step.flow_box, step.outcome) == (flow_box, outcome)).count()
}

/// A scenario of the demo with its own pace.
pub struct Tale {
    name: String,
    pub plot: Plot,
    script: Vec<(Cue, Act)>,
    /// Whether the groups know LaunchInstances; without it they are asked by SetDesiredCapacity.
    pub launch_instances: bool,
    /// How long an instance takes until its node is Ready.
    pub boot: BootTimes,
    /// From being bound to a node until Ready.
    pub pod_start: Duration,
    /// Whether both groups are asked, so that what comes second of their new instances is given back.
    gives_back: bool,
    /// Whether its controller is killed, whose last events may not have been sent: they are told once.
    pub is_killed: bool,
    /// How events come through a queue, if there is one.
    pub queue: Option<NoticeQueue>,
    /// After this time the story counts as stuck.
    pub limit: Duration,
}

impl Tale {
    pub fn new(scenario: Scenario, script: Vec<(Cue, Act)>) -> Self {
        let mut plot = scenario.plot();
        plot.script.clear();
        plot.start.policy = PolicySpec {
            group_poll_seconds: Some(2),
            // Nothing of what these bound happens in these stories: they end by what the groups say.
            spot_timeout_seconds: Some(120),
            on_demand_timeout_seconds: Some(120),
            // Time enough for Spot to come back before the second attempt.
            retry_seconds: Some(6),
            probe_seconds: Some(5),
            monitor_seconds: Some(1),
            stability_seconds: Some(5),
            // Every node is young when its story begins.
            min_node_age_seconds: Some(0),
            ..PolicySpec::default()
        };
        // One that nobody may end: a group that is told to shrink would take the oldest.
        plot.start.on_demand_nodes = 1;
        let (name, pod_start) = (scenario.name(), Duration::from_secs(1));
        Self {
            name,
            plot,
            script,
            launch_instances: true,
            boot: BootTimes {
                launch: Duration::from_secs(1),
                node_join: Duration::from_secs(1),
                node_ready: Duration::from_millis(500),
            },
            pod_start,
            gives_back: false,
            is_killed: false,
            queue: None,
            limit: LIMIT,
        }
    }

    /// A cluster that it can be played on.
    pub async fn testbed(&self, name: &str) -> Testbed {
        let options = Options { pod_ready_delay: self.pod_start, ..Options::default() };
        Testbed::start_with(name, options).await
    }

    pub async fn begin(&self, clock: Clock, client: Option<kube::Client>) -> ScenarioRun {
        let cloud = CloudSettings {
            machine_stop: Duration::from_secs(1),
            termination: Duration::from_secs(2),
            node_removal: Duration::from_millis(500),
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_secs(2),
            launch_instances: self.launch_instances,
            notice_queue: self.queue,
            ..CloudSettings::default()
        };
        let stage = WorldOptions { plays_machines: client.is_none(), client, boot: self.boot, cloud };
        ScenarioRun::begin_on(self.name.clone(), self.plot.clone(), clock, SEED, stage)
            .await
            .expect("the story begins")
    }

    /// Lets the world play its part until the story is over, and judges it.
    pub async fn play(&self, story: &ScenarioRun) -> Report {
        let mut acts = self.script.iter().peekable();
        let end = Instant::now() + self.limit;
        while Instant::now() < end {
            let records = story.records().await;
            while let Some((_, act)) = acts.next_if(|(cue, _)| cue.has_come(&records)) {
                story.act(act).await.expect("the world can do it");
            }
            if acts.peek().is_none() && story.is_over(&records).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        story.report().await
    }

    /// The story in the simulation, on paused time.
    fn simulated(&self) -> Report {
        std::thread::scope(|scope| scope.spawn(|| self.simulate()).join().expect("the simulation ends"))
    }

    fn simulate(&self) -> Report {
        let system = actix::System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().expect("a runtime")
        });
        system.block_on(async {
            let clock = Clock::simulated("2026-01-01T03:00:00Z".parse::<Timestamp>().expect("a time"));
            let story = self.begin(clock, None).await;
            let end = Shutdown::new();
            let _controller = story.controller("simulated", Gates::default(), &end);
            let report = self.play(&story).await;
            end.trigger();
            report
        })
    }
}

/// A story on a real cluster, its processes running.
pub struct Stagecraft {
    // Dropped first: the processes, then the cluster.
    pub agent: Service,
    pub controller: Service,
    pub imds: ImdsMock,
    events: broadcast::Receiver<CloudEvent>,
    pub autoscaling: Served,
    pub story: ScenarioRun,
    pub testbed: Testbed,
    pub bystanders: Vec<String>,
    pub old_node: String,
    webhook: Webhook,
}

impl Stagecraft {
    pub async fn set_up(name: &str, tale: &Tale) -> Self {
        Self::set_up_on(tale.testbed(name).await, tale).await
    }

    pub async fn set_up_on(testbed: Testbed, tale: &Tale) -> Self {
        product::install(&testbed).await;
        Self::set_up_installed(testbed, tale).await
    }

    /// The same where Spot Guard is installed already.
    pub async fn set_up_installed(testbed: Testbed, tale: &Tale) -> Self {
        let story = tale.begin(Clock::System, Some(testbed.client())).await;
        let cloud = story.world.cloud.clone();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let autoscaling = cloud.serve_autoscaling(listener).expect("the cloud answers");
        let old = cloud.node_of(&story.spot_instances()[0]).expect("the oldest Spot instance has a node");
        let imds = ImdsMock::quiet(&old.instance_id, &old.zone).await;
        let webhook = Webhook::start();
        fs::write(testbed.dir().join(product::WEBHOOK), webhook.url()).expect("the file is written");
        let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
        let mut agent = product::start_agent(&testbed, &old.node_name, &imds.endpoint()).await;
        controller.leads().await;
        controller.becomes_ready().await;
        agent.becomes_ready().await;
        let bystanders = instances_in_service(&story, ON_DEMAND);
        Self {
            agent,
            controller,
            imds,
            events: cloud.subscribe(),
            autoscaling,
            story,
            testbed,
            bystanders,
            old_node: old.node_name,
            webhook,
        }
    }

    /// Plays the tale; what EC2 recommends in the simulated cloud is said by AWS's metadata mock.
    pub async fn play(&mut self, tale: &Tale) -> Report {
        let events = self.story.world.cloud.subscribe();
        tokio::select! {
            report = tale.play(&self.story) => report,
            never = announce(&mut self.imds, events) => match never {},
        }
    }

    /// What must hold at the end of every story, and that the simulation tells the same one.
    pub async fn ends_as_simulated(mut self, tale: &Tale, report: &Report) {
        assert_eq!(report.problems, [""; 0], "the story on the real control plane: {:#?}", steps(report));
        let simulated = tale.simulated();
        assert_eq!(simulated.problems, [""; 0], "the story in the simulation: {:#?}", steps(&simulated));
        // An eviction that dies with its controller holds its budget for a while, see STRANDED.
        let told = |report: &Report| {
            let counts =
                |step: &String| !tale.is_killed || !step.contains(&format!("{:?}", Outcome::Blocked));
            steps(report).into_iter().filter(counts).collect::<Vec<_>>()
        };
        assert_eq!(told(report), told(&simulated), "the same boxes with the same outcomes");
        assert_eq!(report.groups, simulated.groups, "the same capacity");

        let nodes: Api<Node> = Api::all(self.testbed.client());
        assert!(nodes.get_opt(&self.old_node).await.expect("an answer").is_none(), "the old node is gone");
        assert_eq!(instances_in_service(&self.story, ON_DEMAND), self.bystanders, "nobody else was ended");
        let (mut ended, mut expected) = (self.ended_instances(), self.instances_to_end().await);
        if tale.gives_back {
            let first = self.story.spot_instances();
            ended.retain(|id| expected.contains(id) || first.contains(id));
        }
        ended.sort();
        expected.sort();
        assert_eq!(ended, expected, "exactly these were ended");
        self.every_step_is_an_event(report).await;

        self.agent.ends_well().await;
        self.controller.ends_well().await;
        let leases: Api<Lease> = Api::namespaced(self.testbed.client(), &product::namespace(&self.testbed));
        let lease = leases.get(product::CONTROLLER).await.expect("the lease");
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        assert_eq!(holder.as_deref(), Some(""), "the lease was given back");
        self.autoscaling.stop().await;
    }

    /// What `kubectl describe node` shows.
    async fn every_step_is_an_event(&self, report: &Report) {
        let outcomes: BTreeSet<String> =
            report.boxes.iter().map(|step| format!("SpotGuard{:?}", step.outcome)).collect();
        let events: Api<Event> = Api::all(self.testbed.client());
        wait_for("an event for every step", PATIENCE, async || {
            let found = events.list(&ListParams::default()).await.ok()?.items;
            let told: BTreeSet<String> = found.into_iter().filter_map(|event| event.reason).collect();
            outcomes.is_subset(&told).then_some(())
        })
        .await;
    }

    /// What the webhook heard: nothing more often than it happened, and nothing was left out.
    async fn people_were_told(&self, report: &Report) {
        let mut expected: Vec<String> = report
            .boxes
            .iter()
            .filter_map(|step| NotificationKind::of(step.flow_box, step.outcome))
            .map(|kind| format!("Spot Guard, {kind:?}, node "))
            .collect();
        expected.sort();
        wait_for("people to be told", PATIENCE, async || {
            let mut heard = self.webhook.heard();
            heard.iter_mut().for_each(|text| text.truncate(text.find("ip-").unwrap_or(text.len())));
            heard.sort();
            (heard == expected).then_some(())
        })
        .await;
    }

    /// What the groups ended since the story began, in order.
    fn ended_instances(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if event.kind == EventKind::Terminating {
                ended.extend(event.instance);
            }
        }
        ended
    }

    /// What the record says should have been ended: the old instance, and the one that stood in for it.
    async fn instances_to_end(&self) -> Vec<String> {
        let mut expected = Vec::new();
        for record in self.story.records().await {
            let status = record.status.unwrap_or_default();
            expected.push(record.spec.instance_id.to_string());
            expected.extend(status.discarded.iter().map(ToString::to_string));
            let stood_in = status.fallback.successor().is_some();
            expected.extend(
                status.capacity.taken().filter(|_| stood_in).map(|capacity| capacity.instance_id.to_string()),
            );
        }
        expected
    }
}

/// Says by the metadata mock what EC2 recommends and announces in the simulated cloud.
pub async fn announce(imds: &mut ImdsMock, mut events: broadcast::Receiver<CloudEvent>) -> Infallible {
    loop {
        let event = events.recv().await.expect("the cloud outlives its story");
        match event.kind {
            EventKind::RebalanceRecommended => imds.announce_rebalance().await,
            EventKind::InterruptionNoticed => {
                let deadline = Timestamp::now() + 120.seconds();
                imds.announce_interruption(&format!("{deadline:.0}")).await;
            }
            _ => {}
        }
    }
}

pub fn instances_in_service(story: &ScenarioRun, group: &str) -> Vec<String> {
    let group = story.world.cloud.group(group).expect("the group");
    let serving = group.instances.into_iter().filter(|instance| instance.state == LifecycleState::InService);
    serving.map(|instance| instance.id).collect()
}

/// Box, outcome, and which node it was about, counted in the order in which they appear.
fn steps(report: &Report) -> Vec<String> {
    let mut nodes: Vec<&str> = Vec::new();
    let step = |step: &'_ spot_guard::sim::run::BoxReport, number: usize| {
        format!("{} {:?}, node {}", step.flow_box.number(), step.outcome, number + 1)
    };
    report
        .boxes
        .iter()
        .map(|found| {
            let number = nodes.iter().position(|node| *node == found.node).unwrap_or_else(|| {
                nodes.push(&found.node);
                nodes.len() - 1
            });
            step(found, number)
        })
        .collect()
}

async fn tell(name: &str, tale: &Tale) {
    let mut stagecraft = Stagecraft::set_up(name, tale).await;
    let report = stagecraft.play(tale).await;
    println!("{name}: the story took {:.1} s", report.wall_seconds);
    // Whoever is killed may take with it what it had not said yet, so this is not asked of every story.
    stagecraft.people_were_told(&report).await;
    stagecraft.ends_as_simulated(tale, &report).await;
}

pub fn dry_spot() -> Tale {
    Tale::new(
        Scenario::DrySpot,
        vec![
            (Cue::Now, Act::SpotHas(Supply::None)),
            (Cue::Now, Act::Rebalance(0)),
            (Cue::After(FlowBox::Monitor, Outcome::Monitoring, 1), Act::SpotHas(Supply::Unlimited)),
        ],
    )
}

/// Spot stays out of capacity until the test says otherwise.
pub fn spot_stays_dry() -> Tale {
    Tale::new(Scenario::DrySpot, vec![(Cue::Now, Act::SpotHas(Supply::None)), (Cue::Now, Act::Rebalance(0))])
}

/// Waits until the newest replacement of the story stands there.
pub async fn stands_at(story: &ScenarioRun, phase: Phase) {
    wait_for(&format!("the story to be at {phase:?}"), 2 * PATIENCE, async || {
        let status = story.records().await.pop()?.status?;
        (status.phase == phase).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_rebalance_recommendation_is_followed_while_spot_has_capacity() {
    let tale = Tale::new(Scenario::Rebalance, vec![(Cue::Now, Act::Rebalance(0))]);
    tell("rebalance", &tale).await;
}

#[actix::test]
async fn dry_spot_falls_back_to_on_demand_and_returns() {
    tell("dry-spot", &dry_spot()).await;
}

#[actix::test]
async fn dry_spot_falls_back_and_returns_where_groups_do_not_know_launch_instances() {
    let tale = Tale { launch_instances: false, name: Scenario::DrySpotSetDesired.name(), ..dry_spot() };
    tell("dry-spot-set-desired", &tale).await;
}

#[actix::test]
async fn a_pool_that_is_deleted_during_a_fallback_gives_back_what_it_brought_and_then_goes() {
    let tale = spot_stays_dry();
    let mut stage = Stagecraft::set_up("pool-deleted", &tale).await;
    let events = stage.story.world.cloud.subscribe();
    let pools: Api<SpotPool> = Api::all(stage.testbed.client());
    let Stagecraft { imds, story, testbed, bystanders, .. } = &mut stage;
    let deletion = async {
        stands_at(story, Phase::OnFallback).await;
        product::kubectl(testbed, &["delete", "spotpool", POOL, "--wait=false"]);
        let held = pools.get(POOL).await.expect("the pool stays");
        assert!(held.metadata.deletion_timestamp.is_some(), "it is deleted");
        assert_eq!(held.finalizers(), [OPEN_REQUESTS], "what was requested for it is open");
        assert_eq!(instances_in_service(story, ON_DEMAND).len(), bystanders.len() + 1, "one stands in");
        story.act(&Act::SpotHas(Supply::Unlimited)).await.expect("the world can do it");
    };
    let report = tokio::select! {
        (report, ()) = async { tokio::join!(tale.play(story), deletion) } => report,
        never = announce(imds, events) => match never {},
    };
    assert_eq!(report.problems, [""; 0], "{:#?}", steps(&report));
    assert_eq!(instances_in_service(story, ON_DEMAND), *bystanders, "what it brought went back, and no more");
    wait_for("the pool to go", PATIENCE, async || pools.get_opt(POOL).await.ok()?.is_none().then_some(()))
        .await;
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
    stage.autoscaling.stop().await;
}

/// The Spot group replaces by itself and cannot; EKS drains what its groups end.
#[actix::test]
async fn a_managed_node_group_out_of_capacity_is_stood_in_for_and_the_stand_in_goes_back() {
    let mut tale = Tale::new(
        Scenario::ManagedNodeGroup,
        vec![
            (Cue::Now, Act::SpotHas(Supply::None)),
            (Cue::Now, Act::Interrupt(0)),
            (Cue::After(FlowBox::Monitor, Outcome::Monitoring, 1), Act::SpotHas(Supply::Unlimited)),
        ],
    );
    // EC2 takes the old instance after two minutes, and nobody else does.
    tale.limit = Duration::from_secs(360);
    tell("managed-node-group", &tale).await;
}

#[actix::test]
async fn with_both_markets_dry_the_node_is_kept_until_spot_is_back() {
    let tale = Tale::new(
        Scenario::AllDry,
        vec![
            (Cue::Now, Act::SpotHas(Supply::None)),
            (Cue::Now, Act::OnDemandHas(Supply::None)),
            (Cue::Now, Act::Rebalance(0)),
            (Cue::After(FlowBox::Fallback, Outcome::NodeKept, 1), Act::SpotHas(Supply::Unlimited)),
        ],
    );
    tell("all-dry", &tale).await;
}

/// The nodes of the first instances of these groups never join.
fn never_joins(groups: &[&'static str]) -> Tale {
    let faults = groups.iter().map(|group| (Cue::Now, Act::NodesFail(group, BootFault::NeverJoins, 1)));
    let mut tale = Tale::new(Scenario::Rebalance, faults.chain([(Cue::Now, Act::Rebalance(0))]).collect());
    tale.plot.start.policy.join_timeout_seconds = Some(10);
    tale.plot.steps = vec![(FlowBox::Wait, Outcome::Unusable), (FlowBox::CleanUp, Outcome::CleanedUp)];
    tale
}

#[actix::test]
async fn a_spot_instance_whose_node_never_joins_is_terminated_and_another_one_requested() {
    tell("never-joins", &never_joins(&[SPOT])).await;
}

#[actix::test]
async fn with_nodes_of_neither_group_joining_both_are_terminated_and_requested_again() {
    let mut tale = never_joins(&[SPOT, ON_DEMAND]);
    tale.plot.start.policy.spot_timeout_seconds = Some(5);
    tale.plot.start.policy.on_demand_timeout_seconds = Some(5);
    tale.gives_back = true;
    tell("neither-joins", &tale).await;
}

/// AWS may say anything: here a code that nobody knows, while two minutes are left.
#[actix::test]
async fn before_a_deadline_an_unknown_failure_has_its_on_demand_request_within_five_seconds() {
    let tale = Tale::new(Scenario::TwoMinuteNotice, vec![(Cue::Now, Act::Interrupt(0))]);
    let mut stage = Stagecraft::set_up("unknown-failure", &tale).await;
    let cloud = stage.story.world.cloud.clone();
    let unknown = LaunchFailure::fleet(Market::Spot, "SomethingNew", "In words.");
    cloud.set_launch_failure(SPOT, Some(unknown), None).expect("a group");
    let deadline = Timestamp::now() + 120.seconds();
    stage.imds.announce_interruption(&format!("{deadline:.0}")).await;
    let records: Api<NodeReplacement> = Api::all(stage.testbed.client());
    let falls_back = async {
        let steps = wait_for("the request to on-demand", PATIENCE, async || {
            let mut all = records.list(&ListParams::default()).await.ok()?.items;
            let steps = all.pop()?.status?.steps;
            let is_asked = |step: &StepRecord| step.flow_box == FlowBox::Fallback;
            steps.iter().any(is_asked).then_some(steps)
        })
        .await;
        cloud.set_launch_failure(SPOT, None, None).expect("a group");
        steps
    };
    let (report, steps) = tokio::join!(tale.play(&stage.story), falls_back);
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    let at = |flow_box| steps.iter().find(|step| step.flow_box == flow_box).expect("a step").at;
    let waited = at(FlowBox::Fallback).duration_since(at(FlowBox::Notice));
    assert!(waited <= SignedDuration::from_secs(5), "{waited:#}");
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
}

#[actix::test]
async fn a_budget_without_room_holds_the_drain_up_until_it_has_some() {
    let script = vec![
        (Cue::Now, Act::Rebalance(0)),
        // One that never opens would be told before anything is requested.
        (Cue::After(FlowBox::ScaleUp, Outcome::Requested, 1), Act::SetBudget("web", 0)),
        (Cue::After(FlowBox::Drain, Outcome::Blocked, 1), Act::SetBudget("web", 1)),
    ];
    // The other way to ask for capacity gets its story too.
    let tale = Tale { launch_instances: false, ..Tale::new(Scenario::PdbBlocked, script) };
    tell("pdb-blocked", &tale).await;
}

/// An eviction takes its place in the budget first and deletes the pod then. If the caller dies between the
/// two, the place is held for two minutes (kube-controller-manager, `DeletionTimeout` of its disruption
/// controller), and the drain of the next leader waits for that. Two phases have evictions under way.
const STRANDED: Duration = Duration::from_secs(130);

/// What was seen last, printed if the test fails.
#[derive(Default)]
struct LastSeen(RefCell<String>);

impl LastSeen {
    fn told(&self, text: String) {
        self.0.replace(text);
    }
}

impl Drop for LastSeen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0.borrow());
        }
    }
}

/// Every phase that a story with two dry markets goes through before it is over.
const PHASES: [Phase; 8] = [
    Phase::ScalingUp,
    Phase::FallingBack,
    Phase::BackingOff,
    Phase::Draining,
    Phase::Terminating,
    Phase::OnFallback,
    Phase::Returning,
    Phase::ScalingDown,
];

/// Kills the controller when the story's replacement is in each of these phases, and starts the next one.
pub async fn kill_in_each(
    phases: &[Phase],
    controller: &mut Service,
    story: &ScenarioRun,
    testbed: &Testbed,
    autoscaling: &Served,
) {
    let last = LastSeen::default();
    for (number, phase) in phases.iter().enumerate() {
        wait_for(&format!("the story to be at {phase:?}"), PATIENCE + STRANDED, async || {
            let status = story.records().await.pop()?.status?;
            let is_there = status.phase == *phase;
            last.told(format!("waiting for {phase:?}: {status:#?}"));
            is_there.then_some(())
        })
        .await;
        controller.process.kill();
        println!("killed at {phase:?}");
        let name = format!("controller-{}", number + 2);
        // The story comes to its next phase once this one leads; a phase lasts a few seconds.
        *controller = product::start_controller(testbed, &name, &autoscaling.url()).await;
    }
}

#[actix::test]
async fn a_controller_that_is_killed_in_each_phase_is_carried_on_by_the_next() {
    let script = vec![
        (Cue::Now, Act::SpotHas(Supply::None)),
        (Cue::Now, Act::OnDemandHas(Supply::None)),
        (Cue::Now, Act::Rebalance(0)),
        (Cue::After(FlowBox::Fallback, Outcome::NodeKept, 1), Act::OnDemandHas(Supply::Unlimited)),
        (Cue::After(FlowBox::Monitor, Outcome::Monitoring, 1), Act::SpotHas(Supply::Unlimited)),
    ];
    // By SetDesiredCapacity: what a dry market says takes a moment, so that no phase is over at once.
    let tale = Tale::new(Scenario::DrySpotSetDesired, script);
    // A takeover takes lease and call time limit, 9.5 s.
    let limit = LIMIT + Duration::from_secs(10) * 8 + STRANDED * 2;
    let mut tale = Tale { launch_instances: false, is_killed: true, limit, ..tale };
    // Both groups go on trying by themselves: on-demand comes before the second attempt, however long that
    // takes.
    tale.plot.start.policy.retry_seconds = Some(60);
    tale.plot.steps = vec![(FlowBox::CleanUp, Outcome::CleanedUp)];
    let mut stagecraft = Stagecraft::set_up("killed", &tale).await;
    let events = stagecraft.story.world.cloud.subscribe();
    let mut launches = stagecraft.story.world.cloud.subscribe();
    let Stagecraft { controller, imds, story, testbed, autoscaling, .. } = &mut stagecraft;
    let takeovers = kill_in_each(&PHASES, controller, story, testbed, autoscaling);
    let report = tokio::select! {
        (report, ()) = async { tokio::join!(tale.play(story), takeovers) } => report,
        never = announce(imds, events) => match never {},
    };
    println!("killed {} times: the story took {:.1} s", PHASES.len(), report.wall_seconds);
    let launched = std::iter::from_fn(|| launches.try_recv().ok())
        .filter(|event| event.kind == EventKind::Launching && event.group == ON_DEMAND);
    assert_eq!(launched.count(), 1, "one instance stood in, though nine controllers saw to it");
    assert_eq!(instances_in_service(story, SPOT).len(), 3);
    stagecraft.ends_as_simulated(&tale, &report).await;
}
