//! Runs a scenario in a world, tells it as it happens, and judges it at the end.

use crate::actors::supervision::Shutdown;
use crate::clock::Clock;
use crate::crd::NodeReplacement;
use crate::kube::marks;
use crate::sim::kubelet::pod_is_ready;
use crate::sim::scenario::{Act, Plot, Scenario};
use crate::sim::world::{ControllerHandle, Gates, ON_DEMAND, SPOT, TAINT, World, WorldOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use spot_guard_cloud::cloud::{GroupSnapshot, LifecycleState};
use spot_guard_cloud::cluster::Cluster;
use spot_guard_core::policy::Policy;
use spot_guard_core::record::{FlowBox, GroupKind, Outcome, Phase, StepRecord};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often the world is looked at for something to tell.
const LOOK: Duration = Duration::from_millis(500);

/// One line of what happens.
#[derive(Clone, Debug)]
pub struct Line {
    /// Simulated time since the beginning.
    pub at: Duration,
    /// The box of the flow; none for what the world does.
    pub flow_box: Option<FlowBox>,
    /// The node.
    pub node: String,
    /// What and why.
    pub text: String,
}

/// A step of a replacement as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoxReport {
    /// The box of the flow.
    #[serde(rename = "box")]
    pub flow_box: FlowBox,
    /// Simulated seconds since the beginning.
    pub at: f64,
    /// The node.
    pub node: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// A replacement as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplacementReport {
    /// Its name.
    pub name: String,
    /// The old node.
    pub node: String,
    /// Where it stands.
    pub phase: Phase,
    /// Whether on-demand stood in at any time.
    pub fallback: bool,
    /// Where the capacity that stands in at the end came from.
    pub capacity: Option<GroupKind>,
}

/// A group as it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// Desired capacity at the beginning, without what is to go from one group to the other.
    pub baseline: u32,
    /// Desired capacity at the end.
    pub desired: u32,
    /// Instances in service at the end.
    pub in_service: u32,
}

/// Both groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupsReport {
    /// The Spot group.
    pub spot: GroupReport,
    /// The on-demand group.
    pub on_demand: GroupReport,
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed of the world.
    pub seed: u64,
    /// Whether every expectation held.
    pub ok: bool,
    /// What did not hold.
    pub problems: Vec<String>,
    /// The steps of all replacements, by time.
    pub boxes: Vec<BoxReport>,
    /// The replacements.
    pub replacements: Vec<ReplacementReport>,
    /// The groups.
    pub groups: GroupsReport,
    /// Nodes that still carry a mark of ours, but for those whose instances are on their way out.
    pub leftover_marks: usize,
    /// Pods that wait for a node, or do not run.
    pub pending_pods: usize,
    /// How often a PodDisruptionBudget was violated, deletions before a deadline not counted.
    pub pdb_violations: usize,
    /// How long the scenario took, simulated.
    pub simulated_seconds: f64,
    /// How long it took.
    pub wall_seconds: f64,
}

/// A scenario under way.
pub struct ScenarioRun {
    /// Its world.
    pub world: World,
    name: String,
    plot: Plot,
    seed: u64,
    began: Timestamp,
    began_wall: std::time::Instant,
    baseline: (u32, u32),
    spot_instances: Vec<String>,
    told: BTreeMap<String, usize>,
    next_act: usize,
}

impl ScenarioRun {
    /// Makes the world and lets it settle.
    ///
    /// # Errors
    /// When the cluster refuses what the scenario needs.
    pub async fn begin(
        scenario: Scenario,
        clock: Clock,
        seed: u64,
        client: Option<Client>,
    ) -> anyhow::Result<Self> {
        let stage = WorldOptions { client, ..WorldOptions::default() };
        Self::begin_on(scenario.name(), scenario.plot(), clock, seed, stage).await
    }

    /// The same with a plot and on a stage of the caller's.
    ///
    /// # Errors
    /// When the cluster refuses what the scenario needs.
    pub async fn begin_on(
        name: String,
        plot: Plot,
        clock: Clock,
        seed: u64,
        stage: WorldOptions,
    ) -> anyhow::Result<Self> {
        let began_wall = std::time::Instant::now();
        fastrand::seed(seed);
        let world = World::begin_on(&plot.start, clock, seed, stage).await?;
        let spot = group(&world, SPOT)?;
        let spot_instances = spot.instances.iter().map(|instance| instance.id.clone()).collect();
        // What is above the baseline is to be on Spot in the end.
        let on_demand = group(&world, ON_DEMAND)?.desired;
        let above = plot.start.baseline.baseline.map_or(0, |baseline| on_demand.saturating_sub(baseline));
        let baseline = (spot.desired + above, on_demand - above);
        let began = clock.now();
        Ok(Self {
            world,
            name,
            plot,
            seed,
            began,
            began_wall,
            baseline,
            spot_instances,
            told: BTreeMap::new(),
            next_act: 0,
        })
    }

    /// Starts a controller in its world.
    pub fn controller(&self, identity: &str, gates: Gates, end: &Shutdown) -> ControllerHandle {
        self.world.start_controller(identity, gates, end)
    }

    /// Spot nodes at the beginning.
    #[must_use]
    pub fn spot_nodes(&self) -> u32 {
        self.plot.start.spot_nodes
    }

    /// On-demand nodes at the beginning.
    #[must_use]
    pub fn on_demand_nodes(&self) -> u32 {
        self.plot.start.on_demand_nodes
    }

    /// The Spot instances that were there at the beginning, oldest first.
    #[must_use]
    pub fn spot_instances(&self) -> &[String] {
        &self.spot_instances
    }

    /// The settings of the pool.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::default().overridden(&self.plot.start.policy)
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        spot_guard_core::time::since(self.began, self.world.clock.now())
    }

    /// Lets the scenario go on to its end, telling each step; ends early, as stuck, at its time limit.
    ///
    /// # Errors
    /// When the world cannot do what the script says.
    pub async fn to_its_end(&mut self, tell: &mut dyn FnMut(Line)) -> anyhow::Result<()> {
        let limit = Instant::now() + self.plot.limit;
        while Instant::now() < limit {
            self.perform(tell).await?;
            let records = self.records().await;
            self.tell_steps(&records, tell);
            if self.is_over(&records).await {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Lets the world do something that is not in the script.
    ///
    /// # Errors
    /// When the world has no such thing.
    pub async fn act(&self, act: &Act) -> anyhow::Result<()> {
        act.perform(&self.world, &self.spot_instances).await
    }

    /// Does what the script says is due.
    async fn perform(&mut self, tell: &mut dyn FnMut(Line)) -> anyhow::Result<()> {
        while let Some((at, act)) =
            self.plot.script.get(self.next_act).filter(|(at, _)| *at <= self.elapsed())
        {
            tell(Line { at: *at, flow_box: None, node: String::new(), text: act.describe() });
            act.perform(&self.world, &self.spot_instances).await?;
            self.next_act += 1;
        }
        Ok(())
    }

    fn tell_steps(&mut self, records: &[NodeReplacement], tell: &mut dyn FnMut(Line)) {
        for record in records {
            let steps = record.status.as_ref().map_or(&[][..], |status| &status.steps);
            let told = self.told.entry(record.name_any()).or_default();
            for step in steps.iter().skip(*told) {
                tell(Line {
                    at: spot_guard_core::time::since(self.began, step.at),
                    flow_box: Some(step.flow_box),
                    node: step.node.to_string(),
                    text: step.message.clone(),
                });
            }
            *told = steps.len();
        }
    }

    /// All records, the oldest first.
    pub async fn records(&self) -> Vec<NodeReplacement> {
        let api: Api<NodeReplacement> = Api::all(self.world.client.clone());
        let mut found = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        found.sort_by_key(|record| {
            (record.status.as_ref().and_then(|status| status.started_at), record.name_any())
        });
        found
    }

    /// Whether nothing more will happen: all replacements ended, groups and pods at rest.
    pub async fn is_over(&self, records: &[NodeReplacement]) -> bool {
        let finished = records.iter().filter(|record| is_finished(record)).count();
        if self.next_act < self.plot.script.len()
            || finished < self.plot.replacements
            || finished < records.len()
        {
            return false;
        }
        let groups = self.groups();
        groups.spot.in_service == groups.spot.desired
            && groups.on_demand.in_service == groups.on_demand.desired
            && self.pending_pods().await == 0
            && self.leftover_marks().await == 0
    }

    fn groups(&self) -> GroupsReport {
        let report = |name: &str, baseline: u32| {
            let found = self.world.cloud.group(name);
            let in_service = found.as_ref().map_or(0, |group| {
                group.instances.iter().filter(|instance| instance.state == LifecycleState::InService).count()
            });
            GroupReport {
                baseline,
                desired: found.map_or(0, |group| group.desired),
                in_service: u32::try_from(in_service).unwrap_or(u32::MAX),
            }
        };
        GroupsReport { spot: report(SPOT, self.baseline.0), on_demand: report(ON_DEMAND, self.baseline.1) }
    }

    async fn pending_pods(&self) -> usize {
        let wanted: u32 = self.plot.start.apps.iter().map(|app| app.replicas).sum();
        let running = self.world.pods().await.iter().filter(|pod| pod_is_ready(pod)).count();
        (wanted as usize).saturating_sub(running)
    }

    fn pdb_violations(&self, records: &[NodeReplacement]) -> usize {
        // The record may have been removed by now; the script still knows of its deadline.
        let noticed =
            records.iter().any(|record| record.status.as_ref().is_some_and(|s| s.deadline.is_some()));
        let pressed = noticed || self.plot.script.iter().any(|(_, act)| matches!(act, Act::Interrupt(_)));
        let all = self.world.cluster.as_ref().map(Cluster::pdb_violations).unwrap_or_default();
        all.iter().filter(|violation| !pressed || violation.by != "delete").count()
    }

    async fn leftover_marks(&self) -> usize {
        let api: Api<Node> = Api::all(self.world.client.clone());
        let nodes = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let groups = self.world.cloud.snapshot().groups;
        let goes = |node: &Node| {
            let mut instances = groups.iter().flat_map(|group| &group.instances);
            instances.any(|held| held.state.is_ending() && node.name_any() == held.node_name)
        };
        nodes.iter().filter(|node| marks::are_left_on(node, TAINT) && !goes(node)).count()
    }

    /// Judges the scenario.
    pub async fn report(&self) -> Report {
        let records = self.records().await;
        let mut steps: Vec<&StepRecord> = records
            .iter()
            .filter_map(|record| record.status.as_ref())
            .flat_map(|status| &status.steps)
            .collect();
        steps.sort_by_key(|step| step.at);
        let seconds = |at: Timestamp| round(spot_guard_core::time::since(self.began, at));
        let mut report = Report {
            scenario: self.name.clone(),
            seed: self.seed,
            ok: false,
            problems: Vec::new(),
            boxes: steps
                .iter()
                .map(|step| BoxReport {
                    flow_box: step.flow_box,
                    at: seconds(step.at),
                    node: step.node.to_string(),
                    outcome: step.outcome,
                })
                .collect(),
            replacements: records.iter().map(replacement_report).collect(),
            groups: self.groups(),
            leftover_marks: self.leftover_marks().await,
            pending_pods: self.pending_pods().await,
            pdb_violations: self.pdb_violations(&records),
            simulated_seconds: round(self.elapsed()),
            wall_seconds: round(self.began_wall.elapsed()),
        };
        report.problems = self.problems(&report, &records);
        report.ok = report.problems.is_empty();
        report
    }

    fn problems(&self, report: &Report, records: &[NodeReplacement]) -> Vec<String> {
        let mut problems = Vec::new();
        if records.len() != self.plot.replacements {
            problems.push(format!("{} replacements, expected {}", records.len(), self.plot.replacements));
        }
        for record in records {
            let Some(status) = &record.status else { continue };
            if !status.phase().is_finished() {
                let waits: Vec<&str> = status.blocking.iter().map(|reason| reason.message.as_str()).collect();
                problems.push(format!(
                    "{} is at {:?}: {}",
                    record.name_any(),
                    status.phase(),
                    waits.join("; ")
                ));
            }
            if let Some((flow_box, outcome)) = missing_step(&self.plot.steps, &status.steps) {
                problems.push(format!(
                    "{}: box {} {outcome:?} did not come in its turn",
                    record.name_any(),
                    flow_box.number()
                ));
            }
        }
        for (name, group) in [("Spot", report.groups.spot), ("on-demand", report.groups.on_demand)] {
            if group.desired != group.baseline || group.in_service != group.baseline {
                problems.push(format!(
                    "the {name} group ends with desired {} and {} in service, not with its baseline {}",
                    group.desired, group.in_service, group.baseline
                ));
            }
        }
        let counts = [
            (report.leftover_marks, "nodes still carry a mark"),
            (report.pending_pods, "pods do not run"),
            (report.pdb_violations, "violations of a PodDisruptionBudget"),
        ];
        problems.extend(
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        problems
    }
}

/// The first expected step that did not come after the ones before it.
fn missing_step(expected: &[(FlowBox, Outcome)], steps: &[StepRecord]) -> Option<(FlowBox, Outcome)> {
    let mut rest = steps.iter();
    expected
        .iter()
        .find(|(flow_box, outcome)| !rest.any(|step| (step.flow_box, step.outcome) == (*flow_box, *outcome)))
        .copied()
}

fn replacement_report(record: &NodeReplacement) -> ReplacementReport {
    let status = record.status.clone().unwrap_or_default();
    let fell_back = status
        .steps
        .iter()
        .any(|step| (step.flow_box, step.outcome) == (FlowBox::Fallback, Outcome::InService));
    let successor = status.fallback.successor().filter(|_| !status.fallback.is_open());
    let stands_in = successor.or(status.capacity.taken());
    ReplacementReport {
        name: record.name_any(),
        node: record.old_node().to_string(),
        phase: status.phase(),
        fallback: fell_back,
        capacity: stands_in.map(|capacity| capacity.group),
    }
}

fn is_finished(record: &NodeReplacement) -> bool {
    record.status.as_ref().is_some_and(|status| status.phase().is_finished())
}

fn group(world: &World, name: &str) -> anyhow::Result<GroupSnapshot> {
    world.cloud.group(name).ok_or_else(|| anyhow::anyhow!("no group {name}"))
}

fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
