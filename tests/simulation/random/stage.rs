//! Plays a random story: the world, the controllers in it, what befalls them, and the judgement at the end.

mod attacks;
mod autoscaler;
mod stays;

use super::attacks::Counts as AttackCounts;
use super::faults::{Faults, Line};
use super::plot::{Event, LaunchFault, MOST_SKEW, Place, Plot, PoolPlan};
use crate::play::{EPOCH, on_paused_time};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, NodeReplacement, SpotAction, SpotPool, notice_name};
use spot_guard::sim::audit::{Auditor, Violation};
use spot_guard::sim::world::{self, ControllerHandle, Gates, Start, TAINT, World};
use spot_guard::telemetry::metrics::Metrics;
use spot_guard::telemetry::readiness::Readiness;
use spot_guard_cloud::admission;
use spot_guard_cloud::cloud::{
    BootFault, BootTimes, Cloud, GroupSnapshot, GroupSpec, InstanceSnapshot, LaunchFailure, LifecycleState,
    Market,
};
use spot_guard_cloud::cluster::Cluster;
use spot_guard_core::ledger::{Ledger, RequestState};
use spot_guard_core::policy::Policy;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, GroupKind, NoticeKind, Outcome};
use spot_guard_core::spot_action::{self, ActionKind};
use spot_guard_core::stand_ins::OnAdvice;
use spot_guard_core::time::since;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A story that is not over so long after the last fault is stuck.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// So long nothing may be open, and nothing may change, before the story counts as over.
const AT_REST: Duration = Duration::from_secs(90);
/// How often it is looked at whether the story is over.
const LOOK: Duration = Duration::from_secs(5);
/// So long our own change of a group counts more than what listings show.
const OWN_CHANGE_COUNTS: Duration = Duration::from_secs(10);
/// An instance of others whose node is unusable for so long is replaced by a person, once the faults are
/// over.
const FAULTY_AFTER: Duration = Duration::from_secs(300);

/// What came of a random story.
pub struct Played {
    pub violations: Vec<Violation>,
    /// What is not over, or otherwise not as it should be, at the end.
    pub problems: Vec<String>,
    pub told: Vec<String>,
    pub simulated: Duration,
    /// How often each outcome was stored, and how many stories there were.
    pub counts: Counts,
}

/// How much happened: a simulation in which nothing does proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub stories: usize,
    pub fallbacks: usize,
    pub returns: usize,
    pub deadlines: usize,
    /// Controllers that were killed or ended.
    pub lives: usize,
    /// Stories whose cluster kept the Nodes of instances that were gone, gave their names to others, or gave
    /// a Node its providerID late.
    pub nodes_stay: usize,
    pub names_come_back: usize,
    pub provider_ids_late: usize,
    /// Stories in which listings are behind, and in which lifecycle hooks hold a launch, abandon one, or hold
    /// what is terminated.
    pub listings_lag: usize,
    pub launches_take: usize,
    pub launches_held: usize,
    pub launches_abandoned: usize,
    pub ends_held: usize,
    /// Stories in which ended instances are retained, instances are put aside, and shown in other states.
    pub ends_retained: usize,
    pub put_aside: usize,
    pub shown: usize,
    /// Stories in which launches fail in one zone, or with several errors in an answer.
    pub zones_fail: usize,
    pub several_errors: usize,
    /// Stories with pods that ask to stay.
    pub held: usize,
    /// Stories with pods that nothing makes anew, with a budget that never opens, and with pods that are
    /// spread over the zones.
    pub runners: usize,
    pub never_open: usize,
    pub spread: usize,
    /// Replacements that waited for pods that stay, and that began nothing because of a budget.
    pub waited_for_pods: usize,
    pub kept_by_budgets: usize,
    /// Replacements that gave up an instance whose node could not be used, and those that gave up a drain.
    pub unusable: usize,
    pub drains_given_up: usize,
    /// Stories beside cluster-autoscaler.
    pub autoscalers: usize,
    /// Instance refreshes.
    pub refreshes: usize,
    /// Stories with a pool of managed node groups, those that stand in on advice, and updates of such groups.
    pub managed: usize,
    pub advised: usize,
    pub updates: usize,
    /// Stories whose pools have a baseline, and on-demand instances that were adopted and given back.
    pub baselines: usize,
    pub adopted: usize,
    /// What attackers did.
    pub attacks: AttackCounts,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.stories += other.stories;
        self.fallbacks += other.fallbacks;
        self.returns += other.returns;
        self.deadlines += other.deadlines;
        self.lives += other.lives;
        self.nodes_stay += other.nodes_stay;
        self.names_come_back += other.names_come_back;
        self.provider_ids_late += other.provider_ids_late;
        self.listings_lag += other.listings_lag;
        self.launches_take += other.launches_take;
        self.launches_held += other.launches_held;
        self.launches_abandoned += other.launches_abandoned;
        self.ends_held += other.ends_held;
        self.ends_retained += other.ends_retained;
        self.put_aside += other.put_aside;
        self.shown += other.shown;
        self.zones_fail += other.zones_fail;
        self.several_errors += other.several_errors;
        self.held += other.held;
        self.runners += other.runners;
        self.never_open += other.never_open;
        self.spread += other.spread;
        self.waited_for_pods += other.waited_for_pods;
        self.kept_by_budgets += other.kept_by_budgets;
        self.unusable += other.unusable;
        self.drains_given_up += other.drains_given_up;
        self.autoscalers += other.autoscalers;
        self.refreshes += other.refreshes;
        self.managed += other.managed;
        self.advised += other.advised;
        self.updates += other.updates;
        self.baselines += other.baselines;
        self.adopted += other.adopted;
        self.attacks.add(other.attacks);
    }
}

impl Played {
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty() && self.problems.is_empty()
    }

    /// What kinds of things went wrong: a shorter story has to show one of them.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> =
            self.violations.iter().map(|violation| format!("{:?}", violation.invariant)).collect();
        let words = self.problems.iter().map(|problem| problem.split(':').next().unwrap_or_default());
        kinds.extend(words.map(str::to_owned));
        kinds
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            let _ = writeln!(text, "  {problem}");
        }
        for violation in &self.violations {
            let at = violation.at;
            let _ = writeln!(
                text,
                "  {at:.3} {:?}: {}: {}",
                violation.invariant, violation.object, violation.found
            );
        }
        for line in &self.told {
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}

/// Plays it to its end.
pub fn play(plot: &Plot) -> Played {
    on_paused_time(async {
        let _logs = super::log_to_stderr();
        let mut stage = Stage::begin(plot).await;
        let mut beside = Vec::new();
        for (_, at, event) in &plot.events {
            stage.pass_until(stage.began + *at).await;
            beside.extend(stage.perform(event));
        }
        for task in beside {
            // Nothing that happens beside the story takes longer than its own waits.
            let _ = task.await;
        }
        stage.end().await
    })
}

/// A controller, in one of its lives.
struct Member {
    line: Line,
    end: Shutdown,
    handle: ControllerHandle,
}

struct Stage<'a> {
    plot: &'a Plot,
    world: Arc<World>,
    cloud: Cloud,
    cluster: Cluster,
    auditor: Auditor,
    faults: Faults,
    ahead: &'static AtomicI64,
    crew: Vec<Member>,
    vacant: Vec<Instant>,
    lives: usize,
    autoscaler: Option<tokio::task::JoinHandle<()>>,
    metrics: Vec<Arc<Metrics>>,
    began: Instant,
    epoch: Timestamp,
    happened: Vec<(Timestamp, String)>,
    waits: stays::Waits,
    /// What attackers were let do and must not be.
    admitted: Vec<String>,
}

impl<'a> Stage<'a> {
    async fn begin(plot: &'a Plot) -> Self {
        fastrand::seed(plot.seed);
        let clock = Clock::simulated(EPOCH.parse().expect("a time"));
        let first = &plot.pools[0];
        let start = Start {
            spot_nodes: first.start.spot_nodes,
            on_demand_nodes: first.start.on_demand_nodes,
            apps: plot.apps.clone(),
            policy: first.start.policy.clone(),
            launch_instances: first.start.launch_instances,
            zones: first.start.zones,
            managed: first.start.managed,
            cover: first.start.cover,
            baseline: first.start.baseline.clone(),
            autoscaler: false,
            drain_outside_pools: plot.seed.is_multiple_of(2),
        };
        let stage = world::WorldOptions { plays_machines: plot.agents, ..world::WorldOptions::default() };
        let world = World::begin_on(&start, clock, plot.seed, stage).await.expect("a world");
        for pool in &plot.pools[1..] {
            world.add_pool(&pool.start, BootTimes::default()).await.expect("a pool");
        }
        let (cloud, cluster) = (world.cloud.clone(), world.cluster.clone().expect("a simulated cluster"));
        cloud.configure(|settings| {
            settings.launch_instances_raises_desired = Some(plot.raises_after);
            settings.launch_instances_enforces_max = plot.enforces_max;
            settings.loss_detection = plot.loss_detection;
            settings.listing_lag = plot.listing_lag;
            settings.launch_takes = plot.launch_takes;
            settings.notice_queue = plot.queue;
        });
        for pool in &plot.pools {
            for (group, desired) in [
                (pool.start.spot(), pool.start.spot_nodes),
                (pool.start.on_demand(), pool.start.on_demand_nodes),
            ] {
                let edit = |spec: &mut GroupSpec| {
                    spec.boot = pool.boot;
                    if pool.tight {
                        (spec.min, spec.max) = (desired, desired + 1);
                    }
                };
                cloud.edit_group(&group, edit).expect("a group");
                cloud.suspend(&group, "AZRebalance", "User suspended").expect("a group");
            }
        }
        stays::spread(&cluster, plot.spread);
        if plot.events.iter().any(|(_, _, event)| matches!(event, Event::Attacked(_))) {
            cluster.add_validator(admission::notices);
        }
        let policy = Policy::default().overridden(&start.policy);
        let skew = Duration::from_millis(2 * MOST_SKEW.unsigned_abs());
        let skewed = plot.events.iter().any(|(_, _, event)| matches!(event, Event::ClockSet(_)));
        let skew = if skewed { skew } else { Duration::ZERO };
        let auditor = Auditor::with_skew(&cloud, &cluster, clock, policy, skew);
        // One number per story, never given back: the clocks of its controllers may outlive it.
        let ahead: &'static AtomicI64 = Box::leak(Box::default());
        let mut stage = Self {
            plot,
            world: Arc::new(world),
            cloud,
            cluster,
            auditor,
            faults: Faults::default(),
            ahead,
            crew: Vec::new(),
            vacant: Vec::new(),
            lives: 0,
            autoscaler: None,
            metrics: Vec::new(),
            began: Instant::now(),
            epoch: clock.now(),
            happened: Vec::new(),
            waits: stays::Waits::default(),
            admitted: Vec::new(),
        };
        for _ in 0..plot.controllers {
            stage.start_controller();
        }
        stage.autoscaler = plot.autoscaler.then(|| stage.start_autoscaler());
        stage
    }

    /// Lets time pass; controllers that ended are started again meanwhile.
    async fn pass_until(&mut self, at: Instant) {
        self.vacant.sort_unstable();
        while let Some(due) = self.vacant.first().copied().filter(|due| *due <= at) {
            tokio::time::sleep_until(due).await;
            self.vacant.remove(0);
            self.start_controller();
        }
        tokio::time::sleep_until(at).await;
        self.waits.look(&self.cluster);
    }

    fn start_controller(&mut self) {
        self.lives += 1;
        let line = Line { faults: self.faults.clone(), ..Line::default() };
        let gates = Gates {
            kube: Some(Arc::new(line.clone())),
            aws: Some(Arc::new(line.clone())),
            clock: Some(self.world.clock.skewed(self.ahead)),
        };
        let end = Shutdown::new();
        let identity = format!("controller-{}", self.lives);
        let handle = self.world.start_controller(&identity, self.auditor.gates(gates), &end);
        self.metrics.push(handle.metrics.clone());
        self.crew.push(Member { line, end, handle });
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn say(&mut self, text: String) {
        self.happened.push((self.now(), text));
    }

    fn group_name(&self, place: Place) -> String {
        let pool = &self.plot.pools[place.pool].start;
        match place.kind {
            GroupKind::Spot => pool.spot(),
            GroupKind::OnDemand => pool.on_demand(),
        }
    }

    fn group(&self, place: Place) -> GroupSnapshot {
        self.cloud.group(&self.group_name(place)).expect("a group")
    }

    /// The instance of that number among those that run.
    fn instance(&self, place: Place, number: usize) -> Option<InstanceSnapshot> {
        let running = self.group(place).instances.into_iter().filter(|instance| instance.machine_runs);
        let running: Vec<InstanceSnapshot> = running.collect();
        let count = running.len();
        running.into_iter().nth(number % count.max(1))
    }

    /// Lets it happen; what takes time happens beside the story.
    fn perform(&mut self, event: &Event) -> Option<tokio::task::JoinHandle<()>> {
        self.say(format!("-- {event:?}"));
        match event.clone() {
            Event::Rebalance(place, number) => {
                return self.notify(place, number, NoticeKind::RebalanceRecommendation);
            }
            Event::Interrupt(place, number) => {
                return self.notify(place, number, NoticeKind::SpotInterruption);
            }
            Event::ReportedAgain(number) => self.report_again(number),
            Event::Lie(number) => self.lie(number),
            Event::Market(place, capacity) => {
                let name = self.group_name(place);
                self.cloud.set_supply(&name, None, capacity).expect("a group");
            }
            Event::LaunchesFail(place, fault, times) => {
                let name = self.group_name(place);
                let failure = launch_failure(place, fault);
                self.cloud.set_launch_failure(&name, Some(failure), Some(times)).expect("a group");
            }
            Event::ZoneFails(place, zone, fault, times) => {
                let zones = &world::ZONES[..self.plot.pools[place.pool].start.zones];
                let (name, zone) = (self.group_name(place), zones[zone % zones.len()]);
                let failure = launch_failure(place, fault);
                self.cloud.set_zone_failure(&name, zone, Some(failure), Some(times)).expect("a group");
            }
            Event::BootsFail(place, fault, times) => {
                let name = self.group_name(place);
                self.cloud.fault_next_boots(&name, times, fault).expect("a group");
            }
            Event::Taken(place, number) => {
                if let Some(instance) = self.instance(place, number) {
                    self.say(format!("AWS takes {}", instance.id));
                    let _ = self.cloud.take_now(&instance.id);
                }
            }
            Event::Raised(place) => return Some(self.others(place, Change::Raise)),
            Event::Erased(place) => return Some(self.others(place, Change::Erase)),
            Event::ScaledDown(place, number) => return Some(self.others(place, Change::End(number))),
            Event::Throttled(seconds) => {
                self.cloud.throttle_for(Duration::from_secs(seconds));
                self.auditor.note_blindness(Duration::from_secs(seconds));
            }
            Event::Aws(operation, mishap, times) => self.faults.aws(operation, mishap, times),
            Event::Kube(call, mishap, times) => self.faults.kube(call, mishap, times),
            Event::AwsOut(seconds) => {
                self.faults.aws_out(Duration::from_secs(seconds));
                self.auditor.note_blindness(Duration::from_secs(seconds));
            }
            Event::KubeOut(seconds) => {
                self.faults.kube_out(Duration::from_secs(seconds));
                self.auditor.note_blindness(Duration::from_secs(seconds));
            }
            Event::LeaderCutOff(seconds) => {
                let until = Instant::now() + Duration::from_secs(seconds);
                if self.crew.len() == 1 {
                    // Nobody stands by to take over.
                    self.auditor.note_blindness(Duration::from_secs(seconds));
                }
                if let Some(leader) = self.leader() {
                    let mut cut_off =
                        self.crew[leader].line.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
                    *cut_off = Some(until);
                }
            }
            Event::WatchesEnd(forget) => {
                if forget {
                    self.cluster.compact();
                }
                self.cluster.close_watches();
            }
            Event::Budget(app, allowed) => self.set_budget(app, allowed),
            Event::Replicas(app, replicas) => self.set_replicas(app, replicas),
            Event::Held(app) => self.hold(app),
            Event::Runner(place, number) => self.run_on(place, number),
            Event::NeverOpens => stays::never_opens(&self.cluster),
            Event::NodeUnready(number, seconds) => return self.unready(number, Duration::from_secs(seconds)),
            Event::Killed(seconds) => self.end_leader(true, Duration::from_secs(seconds)),
            Event::HandedOver => self.end_leader(false, Duration::ZERO),
            Event::ClockSet(millis) => self.ahead.store(millis, Ordering::Relaxed),
            Event::Paused(pool, seconds) => return Some(self.pause(pool, Duration::from_secs(seconds))),
            Event::Asked(action, number) => self.ask(action, number),
            Event::PauseAsked(pool, seconds) => {
                return Some(self.ask_for_a_pause(pool, Duration::from_secs(seconds)));
            }
            Event::EndsHeld(place, seconds) => {
                let hook = Some(Duration::from_secs(seconds));
                let name = self.group_name(place);
                self.cloud.edit_group(&name, |spec| spec.termination_hook = hook).expect("a group");
            }
            Event::EndsRetained(place, seconds) => {
                let hook = Some(Duration::from_secs(seconds));
                let retains = |spec: &mut GroupSpec| (spec.termination_hook, spec.retains) = (hook, true);
                self.cloud.edit_group(&self.group_name(place), retains).expect("a group");
            }
            Event::PutAside(place, number, seconds) => {
                let aside = self.others(place, Change::PutAside(number));
                let back = self.others_after(Duration::from_secs(seconds), place, Change::BringBack);
                return Some(actix::spawn(async move {
                    let _ = (aside.await, back.await);
                }));
            }
            Event::Shown(place, number, state, seconds) => {
                return self.show(place, number, state, Duration::from_secs(seconds));
            }
            Event::Refreshed(place, number, seconds) => {
                return Some(self.refresh(place, number, Duration::from_secs(seconds)));
            }
            Event::Updated(place, number, seconds) => {
                return Some(self.update(place, number, Duration::from_secs(seconds)));
            }
            Event::NodesStay => self.cloud.configure(|settings| settings.nodes_stay = true),
            Event::NamesComeBack => self.cloud.configure(|settings| settings.names_come_back = true),
            Event::ProviderIdsLate(seconds) => {
                self.cloud.configure(|settings| settings.provider_id_delay = Duration::from_secs(seconds));
            }
            Event::Attacked(act) => return self.attack(&act),
        }
        None
    }

    fn notify(
        &mut self,
        place: Place,
        number: usize,
        kind: NoticeKind,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let instance = self.instance(place, number)?;
        self.say(format!("{kind} for {} ({})", instance.id, instance.node_name));
        let deadline = match kind {
            NoticeKind::SpotInterruption => {
                self.cloud.interrupt(&instance.id).expect("an instance");
                Some(self.now() + Duration::from_secs(120))
            }
            _ => {
                self.cloud.rebalance(&instance.id).expect("an instance");
                None
            }
        };
        if self.plot.agents {
            return None;
        }
        let name = notice_name(&instance.node_name.as_str().into(), &instance.id.as_str().into(), kind);
        let notice = self.notice(&name, &instance.node_name, &instance.id, kind, deadline);
        let cluster = self.cluster.clone();
        // An agent runs on a node that has joined; on one that joins later it finds what was announced
        // before.
        Some(actix::spawn(async move {
            for _ in 0..120 {
                if cluster.get_json("nodes", "", &instance.node_name).is_some() {
                    let _ = cluster.create_json(notice);
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }))
    }

    /// Reports a notice as an agent would.
    fn report(&self, node: &str, instance: &str, kind: NoticeKind, deadline: Option<Timestamp>) {
        // A name that is taken refuses the report, as it does an agent's.
        let name = notice_name(&node.into(), &instance.into(), kind);
        let _ = self.cluster.create_json(self.notice(&name, node, instance, kind, deadline));
    }

    fn notice(
        &self,
        name: &str,
        node: &str,
        instance: &str,
        kind: NoticeKind,
        deadline: Option<Timestamp>,
    ) -> serde_json::Value {
        json!({
            "apiVersion": "spotguard.dev/v1alpha1",
            "kind": "InterruptionNotice",
            "metadata": { "name": name },
            "spec": {
                "nodeName": node,
                "instanceId": instance,
                "kind": kind,
                "noticeTime": self.now(),
                "detectedAt": self.now(),
                "deadline": deadline,
            },
        })
    }

    fn report_again(&self, number: usize) {
        let notices: Vec<InterruptionNotice> = self.cluster.list();
        let Some(notice) = notices.get(number % notices.len().max(1)) else { return };
        let spec = &notice.spec;
        self.report(&spec.node_name, &spec.instance_id, spec.kind, spec.deadline);
    }

    /// A node says that it has an instance which it has not: one that nobody has, or another node's. Its
    /// deadline may be any.
    fn lie(&mut self, number: usize) {
        let nodes = self.cluster.list_json("nodes");
        let Some(node) = nodes.get(number % nodes.len().max(1)) else { return };
        let node = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut others: Vec<String> =
            self.instances().into_iter().filter(|held| held.node_name != node).map(|held| held.id).collect();
        others.push("i-0123456789abcdef0".to_owned());
        let instance = others[number / 7 % others.len()].clone();
        let ahead = [None, Some(-3600), Some(-5), Some(100), Some(550), Some(86_400)][number / 3 % 6];
        let deadline = ahead.map(|seconds| self.now() + SignedDuration::from_secs(seconds));
        let kind = match deadline {
            Some(_) => NoticeKind::SpotInterruption,
            None => NoticeKind::RebalanceRecommendation,
        };
        self.say(format!("{node} says that {instance} is its own"));
        self.report(&node, &instance, kind, deadline);
    }

    /// What somebody else does to a group, once no controller is in the middle of a change: a change that
    /// comes between our call and its lost answer cannot be told from the call's own effect, and one to the
    /// number of a call in doubt not from its arrival.
    fn others(&self, place: Place, change: Change) -> tokio::task::JoinHandle<()> {
        self.others_after(Duration::ZERO, place, change)
    }

    fn others_after(&self, wait: Duration, place: Place, change: Change) -> tokio::task::JoinHandle<()> {
        let (name, pool) = (self.group_name(place), self.plot.pools[place.pool].start.name.clone());
        let (cloud, cluster, faults) = (self.cloud.clone(), self.cluster.clone(), self.faults.clone());
        let interrupts = self.plot.events.iter().filter(|(.., event)| matches!(event, Event::Interrupt(..)));
        let interrupts: Vec<Instant> = interrupts.map(|(_, at, _)| self.began + *at).collect();
        actix::spawn(async move {
            sleep(wait).await;
            for _ in 0..120 {
                let ledger = ledger(&cluster, &pool);
                // A deadline that comes meanwhile goes by our own change, too.
                let now = Instant::now();
                let mut waits = interrupts.iter().map(|at| at.saturating_duration_since(now));
                let will_be = waits.any(|wait| !wait.is_zero() && wait <= OWN_CHANGE_COUNTS);
                let is_lost = (is_pressed(&cluster, &pool) || will_be) && have_just_changed(&cloud);
                if no_change_is_under_way(&ledger)
                    && faults.is_quiet()
                    && nobody_has_just_read(&cloud)
                    && !is_lost
                {
                    let in_doubt = numbers_in_doubt(&ledger, place.kind);
                    change.perform(&name, &cloud, &cluster, &in_doubt);
                    return;
                }
                sleep(Duration::from_millis(997)).await;
            }
        })
    }

    /// Listings show an instance in another state for a while; it runs on.
    fn show(
        &mut self,
        place: Place,
        number: usize,
        state: &'static str,
        duration: Duration,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let instance = self.instance(place, number)?;
        self.say(format!("{} is shown as {state}", instance.id));
        self.cloud.show_state(&instance.id, Some(state)).expect("an instance");
        let cloud = self.cloud.clone();
        Some(actix::spawn(async move {
            sleep(duration).await;
            // It may be gone by then.
            let _ = cloud.show_state(&instance.id, None);
        }))
    }

    fn set_budget(&self, app: usize, allowed: u32) {
        let name = &self.plot.apps[app].name;
        self.cluster.edit("poddisruptionbudgets.policy", "default", name, |budget| {
            budget["spec"]["maxUnavailable"] = json!(allowed);
        });
    }

    /// The budgets know it at once: an eviction that comes before they do is granted by the API server, and
    /// nobody who evicts can tell.
    fn set_replicas(&self, app: usize, replicas: u32) {
        self.cluster.edit("deployments.apps", "default", &self.plot.apps[app].name, |deployment| {
            deployment["spec"]["replicas"] = json!(replicas);
        });
        self.cluster.settle();
    }

    /// The pods that the application has now ask to stay.
    fn hold(&self, app: usize) {
        let name = &self.plot.apps[app].name;
        for pod in self.cluster.list::<Pod>().iter().filter(|pod| pod.labels().get("app") == Some(name)) {
            self.cluster.edit("pods", "default", &pod.name_any(), |pod| {
                pod["metadata"]["annotations"] = json!({ (stays::DO_NOT_DISRUPT): "true" });
            });
        }
    }

    fn unready(&self, number: usize, duration: Duration) -> Option<tokio::task::JoinHandle<()>> {
        let ready: Vec<String> = self
            .instances()
            .into_iter()
            .map(|instance| instance.node_name)
            .filter(|node| self.is_usable(node))
            .collect();
        let node = ready.get(number % ready.len().max(1))?.clone();
        self.cluster.set_node_ready(&node, false);
        let (cloud, cluster) = (self.cloud.clone(), self.cluster.clone());
        Some(actix::spawn(async move {
            sleep(duration).await;
            let groups = cloud.snapshot().groups;
            let mut all = groups.iter().flat_map(|group| &group.instances);
            if all.any(|instance| instance.node_name == node && instance.machine_runs) {
                cluster.set_node_ready(&node, true);
            }
        }))
    }

    /// An instance refresh, as far as others see it: its status, and an instance that is replaced.
    fn refresh(&mut self, place: Place, number: usize, duration: Duration) -> tokio::task::JoinHandle<()> {
        let (cloud, name) = (self.cloud.clone(), self.group_name(place));
        cloud.set_refresh(&name, "InProgress").expect("a group");
        if let Some(instance) = self.instance(place, number) {
            self.say(format!("the refresh replaces {}", instance.id));
            let _ = cloud.take_now(&instance.id);
        }
        actix::spawn(async move {
            sleep(duration).await;
            cloud.set_refresh(&name, "Successful").expect("a group");
        })
    }

    /// An update of a managed node group: a new version, more room, and an instance that is replaced.
    fn update(&mut self, place: Place, number: usize, duration: Duration) -> tokio::task::JoinHandle<()> {
        let (cloud, name) = (self.cloud.clone(), self.group_name(place));
        let begins = |spec: &mut GroupSpec| (spec.template_version, spec.max) = (2, spec.max + 2);
        cloud.edit_group(&name, begins).expect("a group");
        if let Some(instance) = self.instance(place, number) {
            self.say(format!("the update of {name} replaces {}", instance.id));
            let _ = cloud.replace(&instance.id);
        }
        actix::spawn(async move {
            sleep(duration).await;
            let desired = cloud.group(&name).expect("a group").desired;
            let ends = |spec: &mut GroupSpec| spec.max = desired.max(spec.max - 2);
            cloud.edit_group(&name, ends).expect("a group");
        })
    }

    fn pause(&self, pool: usize, duration: Duration) -> tokio::task::JoinHandle<()> {
        let (cluster, name) = (self.cluster.clone(), self.plot.pools[pool].start.name.clone());
        actix::spawn(async move {
            for paused in [true, false] {
                cluster.edit("spotpools.spotguard.dev", "", &name, |pool| {
                    pool["spec"]["paused"] = json!(paused);
                });
                if paused {
                    sleep(duration).await;
                }
            }
        })
    }

    /// Asks for a node's replacement, or for something of a story.
    fn ask(&self, action: ActionKind, number: usize) {
        let (kind, target) = match action {
            ActionKind::Replace => ("nodes", "node"),
            _ => ("nodereplacements.spotguard.dev", "replacement"),
        };
        let all = self.cluster.list_json(kind);
        let Some(found) = all.get(number % all.len().max(1)) else { return };
        let spec = json!({ "action": action, target: found["metadata"]["name"] });
        create_spot_action(&self.cluster, &format!("asked-{}", self.happened.len()), &spec);
    }

    fn ask_for_a_pause(&self, pool: Option<usize>, duration: Duration) -> tokio::task::JoinHandle<()> {
        let name = pool.map(|pool| self.plot.pools[pool].start.name.clone());
        let (cluster, number) = (self.cluster.clone(), self.happened.len());
        actix::spawn(async move {
            let of = |action: ActionKind| match &name {
                Some(name) => json!({ "action": action, "pool": name }),
                None => json!({ "action": action }),
            };
            create_spot_action(&cluster, &format!("pause-{number}"), &of(ActionKind::Pause));
            sleep(duration).await;
            create_spot_action(&cluster, &format!("resume-{number}"), &of(ActionKind::Resume));
        })
    }

    /// The controller that leads, or any.
    fn leader(&self) -> Option<usize> {
        let leads = |member: &Member| *member.handle.leading.borrow();
        self.crew.iter().position(leads).or((!self.crew.is_empty()).then_some(0))
    }

    /// Ends the leader, by force or not; another one comes in its place after `down`.
    fn end_leader(&mut self, killed: bool, down: Duration) {
        let Some(leader) = self.leader() else { return };
        let member = self.crew.remove(leader);
        member.line.dead.store(killed, Ordering::Relaxed);
        member.end.trigger();
        self.vacant.push(Instant::now() + down);
    }

    fn instances(&self) -> Vec<InstanceSnapshot> {
        self.cloud.snapshot().groups.into_iter().flat_map(|group| group.instances).collect()
    }

    /// Whether the node is Ready, has no start-up taint, and is cordoned by nobody but us.
    fn is_usable(&self, node: &str) -> bool {
        let found: Option<k8s_openapi::api::core::v1::Node> = self.cluster.get("", node);
        let taints = found.as_ref().and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
        let has = |key: &str| taints.iter().any(|taint| taint.key == key);
        let stays_cordoned = has("node.kubernetes.io/unschedulable") && !has(TAINT);
        let conditions = found.and_then(|node| node.status?.conditions).unwrap_or_default();
        conditions.iter().any(|held| held.type_ == "Ready" && held.status == "True")
            && !stays_cordoned
            && !has("node.example.com/agent-not-ready")
    }

    /// The faults are over: within a bounded time everything comes to its end.
    async fn end(mut self) -> Played {
        self.say("-- from here on nothing fails".to_owned());
        self.heal();
        self.stop_autoscaler().await;
        let from = Instant::now();
        self.pass_until(from).await;
        // Everything is over when nothing was open for a while: a notice may just have been given. What is
        // found to be wrong need not come to its end.
        let (mut unfinished, mut at_rest) = (Vec::new(), Duration::ZERO);
        while at_rest < AT_REST && from.elapsed() < PATIENCE && self.auditor.violations().is_empty() {
            self.pass_until(Instant::now() + LOOK).await;
            self.replace_faulty_of_others();
            self.end_retained();
            self.make_up_for_others();
            if from.elapsed() > PATIENCE / 2 {
                stays::spread_ends(&self.cluster);
                self.make_room();
                self.lower_minimum();
            }
            unfinished = self.unfinished();
            at_rest = if unfinished.is_empty() { at_rest + LOOK } else { Duration::ZERO };
        }
        // What was broken off is not over, and owes something: that says nothing more.
        let (mut violations, mut problems) = (self.auditor.violations(), Vec::new());
        if violations.is_empty() {
            (violations, problems) = (self.auditor.close(), unfinished);
        }
        for metrics in &self.metrics {
            let (records, pools): ([NodeReplacement; 0], [SpotPool; 0]) = ([], []);
            let text = metrics.encode(false, &Readiness::default(), &records, &pools).unwrap_or_default();
            let restarts = text
                .lines()
                .filter(|line| line.starts_with("spot_guard_actor_restarts_total") && !line.ends_with(" 0"));
            problems.extend(restarts.map(|line| format!("an actor was restarted: {line}")));
        }
        violations.iter_mut().for_each(|violation| violation.steps.clear());
        let mut told = Vec::new();
        if !problems.is_empty() || !violations.is_empty() {
            told = self.told();
        }
        let counts = self.counts();
        Played { violations, problems, told, simulated: since(self.epoch, self.now()), counts }
    }

    /// What came of the stories that are on record.
    fn counts(&self) -> Counts {
        let attacks = AttackCounts::of(&self.plot.events);
        let has = |is_so: fn(&Event) -> bool| {
            usize::from(self.plot.events.iter().any(|(_, _, event)| is_so(event)))
        };
        let mut counts = Counts {
            lives: self.lives,
            nodes_stay: has(|event| matches!(event, Event::NodesStay)),
            names_come_back: has(|event| matches!(event, Event::NamesComeBack)),
            provider_ids_late: has(|event| matches!(event, Event::ProviderIdsLate(_))),
            listings_lag: usize::from(!self.plot.listing_lag.is_zero()),
            launches_take: usize::from(!self.plot.launch_takes.is_zero()),
            launches_held: has(|event| matches!(event, Event::BootsFail(_, BootFault::HookHolds(_), _))),
            launches_abandoned: has(|event| {
                matches!(event, Event::BootsFail(_, BootFault::HookAbandons(_), _))
            }),
            ends_held: has(|event| matches!(event, Event::EndsHeld(..))),
            ends_retained: has(|event| matches!(event, Event::EndsRetained(..))),
            put_aside: has(|event| matches!(event, Event::PutAside(..))),
            shown: has(|event| matches!(event, Event::Shown(..))),
            zones_fail: has(|event| matches!(event, Event::ZoneFails(..))),
            several_errors: has(|event| {
                matches!(
                    event,
                    Event::LaunchesFail(_, LaunchFault::Several, _)
                        | Event::ZoneFails(_, _, LaunchFault::Several, _)
                )
            }),
            held: has(|event| matches!(event, Event::Held(_))),
            runners: has(|event| matches!(event, Event::Runner(..))),
            never_open: has(|event| matches!(event, Event::NeverOpens)),
            spread: usize::from(self.plot.spread > 0),
            waited_for_pods: self.waits.for_pods.len(),
            kept_by_budgets: self.waits.by_budgets.len(),
            autoscalers: usize::from(self.plot.autoscaler),
            managed: usize::from(self.plot.pools.iter().any(|pool| pool.start.managed)),
            advised: usize::from(
                self.plot.pools.iter().any(|pool| pool.start.cover.on_advice == OnAdvice::Failure),
            ),
            updates: has(|event| matches!(event, Event::Updated(..))),
            baselines: usize::from(self.plot.pools.iter().any(|pool| pool.start.baseline.baseline.is_some())),
            refreshes: has(|event| matches!(event, Event::Refreshed(..))),
            attacks,
            ..Counts::default()
        };
        for record in self.cluster.list::<NodeReplacement>() {
            let status = record.status.unwrap_or_default();
            let has = |outcome| status.steps.iter().any(|step| step.outcome == outcome);
            counts.stories += 1;
            counts.fallbacks += usize::from(has(Outcome::Monitoring));
            counts.adopted += usize::from(has(Outcome::Adopted) && has(Outcome::ScaledDown));
            counts.returns += usize::from(has(Outcome::ScaledDown));
            counts.unusable += usize::from(has(Outcome::Unusable));
            let given_up = (FlowBox::Drain, Outcome::TimedOut);
            let gives_up = status.steps.iter().any(|step| (step.flow_box, step.outcome) == given_up);
            counts.drains_given_up += usize::from(gives_up);
            counts.deadlines += usize::from(status.deadline.is_some());
        }
        counts
    }

    /// What the controllers did and what happened to them, in order.
    fn told(&self) -> Vec<String> {
        let mut lines = self.auditor.lines();
        lines.extend(self.happened.iter().cloned());
        lines.sort_by_key(|(at, _)| *at);
        lines
            .iter()
            .map(|(at, text)| format!("{:>8.1} s  {text}", since(self.epoch, *at).as_secs_f64()))
            .collect()
    }

    fn heal(&self) {
        self.faults.end();
        self.cloud.heal();
        for pool in &self.plot.pools {
            for group in [pool.start.spot(), pool.start.on_demand()] {
                let heal = |spec: &mut GroupSpec| (spec.max, spec.retains) = (50, false);
                self.cloud.edit_group(&group, heal).expect("a group");
            }
        }
        for (number, app) in self.plot.apps.iter().enumerate() {
            self.set_budget(number, 1);
            self.set_replicas(number, app.replicas);
        }
        stays::opens(&self.cluster);
        for member in &self.crew {
            *member.line.cut_off.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// What a group launched for itself or for others is its owner's to mend if its node does not come. What
    /// our requests brought or may still bring is left to the product.
    fn replace_faulty_of_others(&self) {
        let now = self.now();
        for pool in &self.plot.pools {
            let ledger = ledger(&self.cluster, &pool.start.name);
            let groups =
                [(GroupKind::Spot, pool.start.spot()), (GroupKind::OnDemand, pool.start.on_demand())];
            for (kind, name) in groups {
                if ledger.shares(kind).any(|share| share.instance_id.is_none()) {
                    continue;
                }
                let ours =
                    |id: &str| ledger.shares(kind).any(|share| share.instance_id.as_deref() == Some(id));
                let group = self.cloud.group(&name).expect("a group");
                for instance in group.instances.iter().filter(|instance| !ours(&instance.id)) {
                    let old = since(instance.launched_at, now) > FAULTY_AFTER;
                    let serves = instance.state == LifecycleState::InService && instance.machine_runs;
                    if old && serves && !self.is_usable(&instance.node_name) {
                        let _ = self.cloud.take_now(&instance.id);
                    }
                }
            }
        }
    }

    /// A pool that the pods of others have filled is too full for a return: somebody does what box 9 says,
    /// and runs fewer pods.
    fn make_room(&self) {
        let records: Vec<NodeReplacement> = self.cluster.list();
        if records.iter().any(|record| waits_for(record, ReasonCode::BufferExceeded)) {
            for number in 0..self.plot.apps.len() {
                let name = &self.plot.apps[number].name;
                let held = self.cluster.get_json("deployments.apps", "default", name);
                let replicas = held.and_then(|held| held["spec"]["replicas"].as_u64()).unwrap_or(1);
                self.set_replicas(number, u32::try_from(replicas * 2 / 3).unwrap_or(1).max(1));
            }
        }
    }

    /// Others who lower an on-demand group while on-demand stands in leave it at its minimum: somebody does
    /// what the hint of the reason says.
    fn lower_minimum(&self) {
        let records: Vec<NodeReplacement> = self.cluster.list();
        for record in records.iter().filter(|record| waits_for(record, ReasonCode::AtMinimum)) {
            let is_its = |pool: &&PoolPlan| record.spec.pool.as_deref() == Some(&*pool.start.name);
            for pool in self.plot.pools.iter().filter(is_its) {
                self.cloud.edit_group(&pool.start.on_demand(), |spec| spec.min = 0).expect("a group");
            }
        }
    }

    /// Somebody terminates what groups have retained.
    fn end_retained(&self) {
        for instance in self.instances() {
            if instance.state == LifecycleState::TerminatingRetained {
                self.cloud.end_retained(&instance.id).expect("an instance");
            }
        }
    }

    /// Whoever lowered a group below what it began with raises it again, and brings back what is aside.
    fn make_up_for_others(&self) {
        for pool in &self.plot.pools {
            let groups =
                [(GroupKind::Spot, pool.start.spot()), (GroupKind::OnDemand, pool.start.on_demand())];
            for (kind, name) in groups {
                let group = self.cloud.group(&name).expect("a group");
                let aside = group.instances.iter().find(|held| held.state == LifecycleState::Standby);
                let missing = u32::try_from(-group.added_by_others).unwrap_or(0);
                let desired = group.desired + aside.map_or(missing, |_| 1);
                let ledger = ledger(&self.cluster, &pool.start.name);
                let may_be_told = no_change_is_under_way(&ledger)
                    && self.faults.is_quiet()
                    && !numbers_in_doubt(&ledger, kind).contains(&desired);
                match aside {
                    _ if !may_be_told => {}
                    Some(instance) => {
                        self.cloud.set_standby(&instance.id, false).expect("an instance");
                    }
                    None if missing > 0 => {
                        self.cloud.set_desired(&name, desired).expect("within the sizes");
                    }
                    None => {}
                }
            }
        }
    }

    /// What is not over yet; nothing when all stories ended and the groups are at rest.
    fn unfinished(&self) -> Vec<String> {
        let mut left = Vec::new();
        let records: Vec<NodeReplacement> = self.cluster.list();
        for record in &records {
            let Some(status) = record.status.as_ref().filter(|status| !status.phase.is_finished()) else {
                continue;
            };
            let waits: Vec<&str> = status.blocking.iter().map(|reason| reason.message.as_str()).collect();
            left.push(format!(
                "a story does not end: {} is at {:?}: {}",
                record.spec.instance_id,
                status.phase,
                waits.join("; ")
            ));
        }
        for pool in self.cluster.list::<SpotPool>() {
            let ledger = pool.status.unwrap_or_default().ledger;
            if !ledger.is_settled() {
                left.push(format!("the ledger is not empty: {ledger:?}"));
            }
            if let Some(excess) = ledger.excess {
                left.push(format!(
                    "on-demand above the baseline stays: {excess:?} of {}",
                    pool.spec.on_demand_group
                ));
            }
        }
        for group in self.cloud.snapshot().groups {
            let serving =
                group.instances.iter().filter(|held| held.state == LifecycleState::InService).count();
            if serving != group.desired as usize || group.instances.len() != serving {
                left.push(format!(
                    "a group is not at rest: {} has {serving} of {} in service",
                    group.name, group.desired
                ));
            }
            if group.added_by_others < 0 {
                left.push(format!("somebody has to raise {} again", group.name));
            }
        }
        for spot_action in self.cluster.list::<SpotAction>() {
            let conditions = spot_action.status.unwrap_or_default().conditions;
            if spot_action::ActionStage::of(&conditions) != spot_action::ActionStage::Over {
                left.push(format!("a SpotAction is not over: {:?}: {conditions:?}", spot_action.spec));
            }
        }
        let pending = self.cluster.pending_pods();
        if !pending.is_empty() {
            left.push(format!("pods do not run: {pending:?}"));
        }
        left.extend(self.harm());
        left
    }
}

/// Asks for something; it is a person's own affair if the API server does not take it now.
fn create_spot_action(cluster: &Cluster, name: &str, spec: &serde_json::Value) {
    let _ = cluster.create_json(json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "SpotAction",
        "metadata": { "name": name },
        "spec": spec,
    }));
}

/// Why launches of a place fail.
fn launch_failure(place: Place, fault: LaunchFault) -> LaunchFailure {
    let market = match place.kind {
        GroupKind::Spot => Market::Spot,
        GroupKind::OnDemand => Market::OnDemand,
    };
    let dry = LaunchFailure::dry(market, "m5.xlarge", "us-east-1a");
    match fault {
        LaunchFault::Quota => LaunchFailure::vcpu_limit(market, 64),
        LaunchFault::Configuration => {
            LaunchFailure::invalid_parameter_combination(market, "no such type in this zone")
        }
        LaunchFault::Unknown => LaunchFailure::text("InternalError", "We are unable to say."),
        LaunchFault::Several => dry.beside("Unsupported", "Your requested instance type is not offered."),
    }
}

/// What somebody else does to a group.
#[derive(Clone, Copy)]
enum Change {
    Raise,
    Erase,
    End(usize),
    PutAside(usize),
    BringBack,
}

impl Change {
    fn perform(self, name: &str, cloud: &Cloud, cluster: &Cluster, in_doubt: &[u32]) {
        let group = cloud.group(name).expect("a group");
        let ends = |instance: &&InstanceSnapshot| instance.state.is_ending();
        let may_become = |desired: u32| !in_doubt.contains(&desired);
        match self {
            Self::Raise if group.desired < group.max && may_become(group.desired + 1) => {
                cloud.set_desired(name, group.desired + 1).expect("within the sizes");
            }
            Self::Raise => {}
            Self::PutAside(number) => {
                let serves = |held: &&InstanceSnapshot| held.state == LifecycleState::InService;
                let serving: Vec<&InstanceSnapshot> = group.instances.iter().filter(serves).collect();
                if let Some(instance) = serving.get(number % serving.len().max(1))
                    && may_become(group.desired.saturating_sub(1))
                {
                    cloud.set_standby(&instance.id, true).expect("an instance");
                }
            }
            Self::BringBack => {
                let aside = group.instances.iter().find(|held| held.state == LifecycleState::Standby);
                if let Some(instance) = aside.filter(|_| may_become(group.desired + 1)) {
                    cloud.set_standby(&instance.id, false).expect("an instance");
                }
            }
            Self::Erase => {
                let there = group.instances.iter().filter(|instance| !ends(instance)).count();
                let there = u32::try_from(there).expect("few").max(group.min);
                if there < group.desired && may_become(there) {
                    cloud.set_desired(name, there).expect("within the sizes");
                }
            }
            Self::End(number) => {
                // Only nodes that are empty, and that nobody protects from it.
                let free: Vec<&InstanceSnapshot> = group
                    .instances
                    .iter()
                    .filter(|instance| instance.state == LifecycleState::InService && instance.machine_runs)
                    .filter(|instance| {
                        cluster.get_json("nodes", "", &instance.node_name).is_some_and(|node| {
                            let annotation = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
                            node["metadata"]["annotations"][annotation].as_str() != Some("true")
                        })
                    })
                    .filter(|instance| cluster.movable_pods_on(&instance.node_name).is_empty())
                    .collect();
                if let Some(instance) = free.get(number % free.len().max(1))
                    && may_become(group.desired.saturating_sub(1))
                {
                    cloud.scale_down(&instance.id).expect("an instance");
                }
            }
        }
    }
}

/// Whether the replacement goes on, and waits for this.
fn waits_for(record: &NodeReplacement, reason: ReasonCode) -> bool {
    let status = record.status.as_ref().filter(|status| !status.phase.is_finished());
    status.is_some_and(|status| status.blocking.iter().any(|held| held.reason == reason))
}

fn ledger(cluster: &Cluster, pool: &str) -> Ledger {
    let found: Option<SpotPool> = cluster.get("", pool);
    found.and_then(|pool| pool.status).unwrap_or_default().ledger
}

/// Whether no group was described a moment ago. Between that and SetDesiredCapacity, which is absolute, a
/// change by others is lost, and nothing in the API prevents it.
fn nobody_has_just_read(cloud: &Cloud) -> bool {
    let last = cloud.last_call("DescribeAutoScalingGroups");
    last.is_none_or(|at| since(at, cloud.now()) >= Duration::from_millis(300))
}

/// Whether a controller has changed a group within the last ten seconds. What others set back in that time
/// looks like an old listing, and before a deadline the next request goes by our own change.
fn have_just_changed(cloud: &Cloud) -> bool {
    ["SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup"].iter().any(|operation| {
        cloud.last_call(operation).is_some_and(|at| since(at, cloud.now()) < OWN_CHANGE_COUNTS)
    })
}

/// Whether a replacement of the pool has a deadline.
fn is_pressed(cluster: &Cluster, pool: &str) -> bool {
    cluster.list::<NodeReplacement>().iter().any(|record| {
        let deadline = record.status.as_ref().and_then(|status| status.deadline);
        record.spec.pool.as_deref() == Some(pool) && record.is_open() && deadline.is_some()
    })
}

/// Whether no change of ours is under way in the pool's groups.
fn no_change_is_under_way(ledger: &Ledger) -> bool {
    ledger.reduction.is_none()
        && ledger.scaling_requests.iter().all(|request| request.state == RequestState::Applied)
}

/// What a call that may still arrive would set a group's desired capacity to.
fn numbers_in_doubt(ledger: &Ledger, group: GroupKind) -> Vec<u32> {
    let about = ledger.doubts.iter().filter(|doubt| doubt.group == group);
    about.filter_map(|doubt| u32::try_from(doubt.desired).ok()).collect()
}
