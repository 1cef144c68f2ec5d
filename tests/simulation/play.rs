//! Plays a story on paused time, under the eyes of an auditor.

use serde_json::{Value, json};
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::crd::{NodeReplacement, SpotPool};
use spot_guard::sim::audit::{Auditor, Violation};
use spot_guard::sim::crash::{CrashPoint, Crasher, RequestKind};
use spot_guard::sim::run::{Report, ScenarioRun};
use spot_guard::sim::scenario::{Plot, Scenario};
use spot_guard::sim::world::{self, ControllerHandle, Gates, ON_DEMAND, POOL};
use spot_guard_cloud::cloud::{CallRecord, Cloud};
use spot_guard_cloud::cluster::Cluster;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{BlockingReason, FlowBox, Outcome, Phase, ReplacementStatus};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

/// When every story begins.
pub const EPOCH: &str = "2026-01-01T03:00:00Z";

/// Longer than a lease lives, and than the next leader needs to tell what the one before it did not.
const TAKEOVER: Duration = Duration::from_secs(60);

/// All stories of the demo but those of groups that replace by themselves, of losses and of neighbours.
pub const SCENARIOS: [Scenario; 9] = [
    Scenario::Rebalance,
    Scenario::DrySpot,
    Scenario::DrySpotSetDesired,
    Scenario::AllDry,
    Scenario::TwoMinuteNotice,
    Scenario::PdbBlocked,
    Scenario::FullCluster,
    Scenario::ThreeFallbacks,
    Scenario::Storm,
];

/// A plot of which no more is expected than that it ends.
pub fn ends(scenario: Scenario) -> Plot {
    Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..scenario.plot() }
}

/// What came of a story.
pub struct Played {
    pub report: Report,
    pub violations: Vec<Violation>,
    /// Everything that the controllers did, in order.
    pub told: Vec<String>,
    /// The writes of the first controller.
    pub writes: Vec<String>,
    /// What kinds of requests it made of the Kubernetes API.
    pub requests: BTreeSet<RequestKind>,
    /// The calls of the Auto Scaling API, oldest first.
    pub calls: Vec<CallRecord>,
    /// Whether the first controller was killed.
    pub crashed: bool,
    /// The world as it is at the end.
    pub stage: Stage,
}

impl Played {
    /// How often an action was called, on any group or on one.
    pub fn count(&self, operation: &str, group: Option<&str>) -> usize {
        let same = |call: &&CallRecord| {
            call.operation == operation && (group.is_none() || call.group.as_deref() == group)
        };
        self.calls.iter().filter(same).count()
    }

    /// What is wrong with it, for a person; nothing if all is well.
    pub fn complaints(&self) -> Option<String> {
        if self.report.ok && self.violations.is_empty() {
            return None;
        }
        let mut text = format!("{} with seed {}:\n", self.report.scenario, self.report.seed);
        for problem in &self.report.problems {
            let _ = writeln!(text, "  not as expected: {problem}");
        }
        for violation in &self.violations {
            let _ = write!(text, "  violated: {violation}");
        }
        if self.violations.is_empty() {
            self.told.iter().for_each(|line| {
                let _ = writeln!(text, "    {line}");
            });
        }
        Some(text)
    }

    /// When each replacement took this step, in seconds since the beginning.
    pub fn times(&self, flow_box: FlowBox, outcome: Outcome) -> Vec<f64> {
        let steps = self.report.boxes.iter();
        steps
            .filter(|step| (step.flow_box, step.outcome) == (flow_box, outcome))
            .map(|step| step.at)
            .collect()
    }

    /// Whether a story took this step.
    pub fn has(&self, flow_box: FlowBox, outcome: Outcome) -> bool {
        self.report.boxes.iter().any(|step| (step.flow_box, step.outcome) == (flow_box, outcome))
    }

    /// What the story of an instance says of a step that it took.
    #[track_caller]
    pub fn told_of(&self, instance: &str, flow_box: FlowBox, outcome: Outcome) -> String {
        let record = self.stage.record(instance).and_then(|record| record.status).expect("a record");
        let step = record.steps.iter().find(|step| (step.flow_box, step.outcome) == (flow_box, outcome));
        step.unwrap_or_else(|| panic!("no {flow_box:?} {outcome:?} in {:#?}", record.steps)).message.clone()
    }

    /// Panics if anything is wrong with it.
    pub fn assert_ok(&self) {
        if let Some(text) = self.complaints() {
            panic!("{text}");
        }
    }
}

/// Runs `work` in an actix system whose time stands still while anything is left to do.
pub fn on_paused_time<F: Future>(work: F) -> F::Output {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(work)
}

/// A story to be played.
pub struct Play {
    name: String,
    plot: Plot,
    seed: u64,
    point: Option<CrashPoint>,
    faults: Option<Gates>,
    standby: bool,
    /// Seconds that the clock of the first controller is ahead.
    ahead: i64,
    options: world::WorldOptions,
    beside: Vec<Beside>,
}

type Beside = Box<dyn FnOnce(Stage) -> Pin<Box<dyn Future<Output = ()>>>>;

/// The world of a story, for what happens beside its script.
#[derive(Clone)]
pub struct Stage {
    pub cloud: Cloud,
    pub cluster: Cluster,
    /// The Spot instances of the beginning, oldest first.
    pub spot: Vec<String>,
    /// The first controller.
    pub controller: Rc<ControllerHandle>,
    /// Sees what the controllers do.
    pub auditor: Auditor,
    /// Ends the first controller gracefully.
    pub end: Shutdown,
    /// The one that takes over, if there is one.
    pub standby: Option<Rc<ControllerHandle>>,
}

impl Stage {
    /// Lets simulated time pass.
    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// What the first controller serves at `/metrics`.
    pub fn metrics(&self) -> String {
        let held = &self.controller;
        let (records, pools) = (held.view.replacements.state(), held.view.pools.state());
        let leads = *held.leading.borrow();
        held.metrics.encode(leads, &held.readiness, &records, &pools).expect("text")
    }

    /// Lets less than a second pass.
    pub async fn pass_millis(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// How many calls have changed a group so far.
    pub fn changes(&self) -> usize {
        self.cloud.calls().iter().filter(|call| !call.operation.starts_with("Describe")).count()
    }

    /// The node of an instance as the API has it.
    pub fn node(&self, instance: &str) -> Value {
        let name = self.cloud.node_of(instance).expect("a node").node_name;
        self.cluster.get_json("nodes", "", &name).map_or(Value::Null, |node| (*node).clone())
    }

    /// Changes the pool's spec as a person would.
    pub fn edit_pool(&self, change: impl FnOnce(&mut Value)) {
        self.cluster.edit("spotpools.spotguard.dev", "", POOL, |pool| change(&mut pool["spec"]));
    }

    /// The message of a condition of the pool, and whether it is true.
    pub fn condition(&self, type_: &str) -> Option<(bool, String, String)> {
        let pool: SpotPool = self.cluster.get("", POOL)?;
        let found = pool.status?.conditions.into_iter().find(|held| held.type_ == type_)?;
        Some((found.status == "True", found.reason, found.message))
    }

    /// The record of an instance, once it is there.
    pub fn record(&self, instance: &str) -> Option<NodeReplacement> {
        self.cluster.get("", instance)
    }

    /// Waits until the record of an instance is as `wanted` says; looks at it ten times a second.
    pub async fn until(&self, instance: &str, wanted: impl Fn(&ReplacementStatus) -> bool) {
        let is_so = || self.record(instance).and_then(|record| record.status).is_some_and(|s| wanted(&s));
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the record of an instance is in `phase`.
    pub async fn until_phase(&self, instance: &str, phase: Phase) {
        self.until(instance, |status| status.phase == phase).await;
    }

    /// The record of an instance, as it is stored.
    pub fn status(&self, instance: &str) -> ReplacementStatus {
        self.record(instance).and_then(|record| record.status).expect("a record")
    }

    /// Waits until the replacement of an instance waits at a box, for this reason.
    pub async fn until_waiting(&self, instance: &str, flow_box: FlowBox, reason: ReasonCode) {
        let waits = |held: &BlockingReason| (held.flow_box, held.reason) == (flow_box, reason);
        self.until(instance, |status| status.blocking.iter().any(waits)).await;
    }

    /// The reasons that the replacement of an instance waits for.
    pub fn held_by(&self, instance: &str) -> Vec<ReasonCode> {
        self.status(instance).blocking.iter().map(|held| held.reason).collect()
    }

    /// A pod that nothing makes anew, on the oldest on-demand node: `default/runner`.
    pub fn pin_on_demand(&self) {
        let group = self.cloud.group(ON_DEMAND).expect("a group");
        let node = group.instances[0].node_name.clone();
        let runner = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "default", "name": "runner" },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "runner:1" }] },
        });
        self.cluster.create_json(runner).expect("a pod");
    }

    /// The budgets of these applications allow so many pods to be unavailable from now on.
    pub fn set_budgets(&self, apps: &[&str], max_unavailable: u32) {
        for app in apps {
            self.cluster.edit("poddisruptionbudgets.policy", "default", app, |budget| {
                budget["spec"]["maxUnavailable"] = json!(max_unavailable);
            });
        }
    }
}

impl Play {
    /// A story of the demo.
    pub fn of(scenario: Scenario) -> Self {
        Self::plot(&scenario.name(), scenario.plot())
    }

    /// A story of its own.
    pub fn plot(name: &str, plot: Plot) -> Self {
        Self {
            name: name.to_owned(),
            plot,
            seed: 1,
            point: None,
            faults: None,
            standby: false,
            ahead: 0,
            options: world::WorldOptions::default(),
            beside: Vec::new(),
        }
    }

    /// A world of another kind.
    pub fn world(mut self, options: world::WorldOptions) -> Self {
        self.options = options;
        self
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Two controllers, of which the first dies at `point`.
    pub fn crash(mut self, point: CrashPoint) -> Self {
        self.point = Some(point);
        self.standby()
    }

    /// Two controllers, of which the second takes over when it can.
    pub fn standby(mut self) -> Self {
        self.standby = true;
        self
    }

    /// Faults on the way of the first controller; it dies at no point.
    pub fn faults(mut self, gates: Gates) -> Self {
        self.faults = Some(gates);
        self
    }

    /// The clock of the first controller is so many seconds ahead, or behind.
    pub fn clock_ahead(mut self, seconds: i64) -> Self {
        self.ahead = seconds;
        self
    }

    /// Something that happens besides the script.
    pub fn beside<F: Future<Output = ()> + 'static>(
        mut self,
        act: impl FnOnce(Stage) -> F + 'static,
    ) -> Self {
        self.beside.push(Box::new(|stage| Box::pin(act(stage))));
        self
    }

    /// Plays it to its end.
    pub fn play(self) -> Played {
        on_paused_time(async move {
            let clock = Clock::simulated(EPOCH.parse().expect("a time"));
            let story = ScenarioRun::begin_on(self.name, self.plot, clock, self.seed, self.options);
            let mut story = story.await.expect("a world");
            let world = &story.world;
            let cluster = world.cluster.clone().expect("a simulated cluster");
            let auditor = Auditor::new(&world.cloud, &cluster, clock, story.policy());
            let spot = story.spot_instances().to_vec();
            let end = Shutdown::new();
            let crasher = Crasher::new(self.point, end.clone());
            let mut gates = self.faults.unwrap_or_else(|| crasher.gates());
            if self.ahead != 0 {
                let ahead = Box::leak(Box::new(AtomicI64::new(self.ahead * 1000)));
                gates.clock = Some(clock.skewed(ahead));
            }
            let controller = Rc::new(story.controller("first", auditor.gates(gates), &end));
            let mut standby = None;
            if self.standby || self.point.is_some() {
                // Which of two that begin at once leads is nobody's promise.
                let mut leads = controller.leading.clone();
                let first =
                    tokio::time::timeout(Duration::from_secs(30), leads.wait_for(|leads| *leads)).await;
                first.expect("the first controller leads").expect("it lives");
                let gates = auditor.gates(Gates::default());
                standby = Some(Rc::new(story.controller("second", gates, &Shutdown::new())));
            }
            let stage = Stage {
                cloud: world.cloud.clone(),
                cluster,
                spot,
                controller,
                auditor: auditor.clone(),
                end,
                standby,
            };
            let beside: Vec<_> =
                self.beside.into_iter().map(|act| actix::spawn(act(stage.clone()))).collect();
            story.to_its_end(&mut |_| {}).await.expect("the script can be played");
            if self.point.is_some() {
                // Who was killed at its last write is followed after the story is over.
                tokio::time::sleep(TAKEOVER).await;
            }
            let report = story.report().await;
            for act in beside {
                let told = || auditor.steps().join("\n");
                assert!(
                    act.is_finished(),
                    "the story ended before what was to happen beside it:\n{}",
                    told()
                );
                act.await.expect("what happens beside the story holds");
            }
            Played {
                report,
                violations: auditor.close(),
                told: auditor.steps(),
                writes: crasher.writes(),
                requests: crasher.requests(),
                calls: story.world.cloud.calls(),
                crashed: crasher.is_dead(),
                stage,
            }
        })
    }
}
