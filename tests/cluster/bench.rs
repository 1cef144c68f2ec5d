//! The drain of a node beside that of its peers, on the real control plane: `make bench`.
//!
//! One node runs ten pods of a Deployment whose PodDisruptionBudget allows one to be unavailable; another
//! node has room for them, and a pod takes 2 s to start. Measured is the time from the cordon until the last
//! pod is Ready on the other node. The bound is a loop that takes the next pod in the moment in which the
//! successor of the last is Ready.

use crate::helpers::is_ready;
use crate::imds::ImdsMock;
use crate::process::{Process, binaries};
use crate::product::PATIENCE;
use crate::stories::{Stagecraft, Tale, dry_spot};
use crate::testbed::Testbed;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use spot_guard::clock::Clock;
use spot_guard::sim::kubelet::pod_is_ready;
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::scenario::Scenario;
use spot_guard::sim::world::{App, SPOT};
use spot_guard_cloud::cloud::BootTimes;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::{FlowBox, Outcome};
use std::collections::BTreeMap;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const PODS: u32 = 10;
const POD_START: Duration = Duration::from_secs(2);
/// After this time a drain counts as stuck.
const LIMIT: Duration = Duration::from_secs(180);
/// What Spot Guard is to reach, as a multiple of the bound.
const GOAL: f64 = 1.2;

fn tale() -> Tale {
    let mut tale = Tale::new(Scenario::Rebalance, Vec::new());
    tale.pod_start = POD_START;
    tale.plot.start.spot_nodes = 1;
    tale.plot.start.on_demand_nodes = 0;
    tale.plot.start.apps = vec![App {
        name: "web".to_owned(),
        replicas: PODS,
        cpu_millis: 100,
        memory_mib: 64,
        max_unavailable: Some(1),
    }];
    tale
}

/// What the API server tells about the drain, as it tells it.
#[derive(Clone, Debug, Default)]
struct Seen {
    cordoned: Option<Instant>,
    on_old: usize,
    ready_elsewhere: usize,
}

impl Seen {
    fn is_over(&self) -> bool {
        self.cordoned.is_some() && self.on_old == 0 && self.ready_elsewhere == PODS as usize
    }
}

/// Watches the drain of a node.
struct Watcher {
    seen: watch::Receiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    fn start(client: &Client, old: &str) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let (client, old) = (client.clone(), old.to_owned());
        Self { seen, task: tokio::spawn(async move { Self::follow(client, &old, &sender).await }) }
    }

    async fn follow(client: Client, old: &str, seen: &watch::Sender<Seen>) {
        let labels = watcher::Config::default().labels("app=web");
        let mut pods = pin!(watcher(Api::<Pod>::default_namespaced(client.clone()), labels));
        let name = watcher::Config::default().fields(&format!("metadata.name={old}"));
        let mut nodes = pin!(watcher(Api::<Node>::all(client), name).applied_objects());
        let mut known: BTreeMap<String, Pod> = BTreeMap::new();
        loop {
            tokio::select! {
                event = pods.try_next() => match event.expect("the pods are told").expect("without end") {
                    watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                        known.insert(pod.name_any(), pod);
                    }
                    watcher::Event::Delete(pod) => {
                        known.remove(&pod.name_any());
                    }
                    watcher::Event::Init | watcher::Event::InitDone => {}
                },
                node = nodes.try_next() => {
                    let node = node.expect("the node is told").expect("without end");
                    let cordoned = node.spec.and_then(|spec| spec.unschedulable) == Some(true);
                    seen.send_modify(|seen| seen.cordoned = seen.cordoned.or(cordoned.then(Instant::now)));
                }
            }
            let is_on_old =
                |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(old);
            let on_old = known.values().filter(is_on_old).count();
            let ready = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && pod_is_ready(pod);
            let elsewhere = known.values().filter(|pod| !is_on_old(pod) && ready(pod)).count();
            seen.send_modify(|seen| (seen.on_old, seen.ready_elsewhere) = (on_old, elsewhere));
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let seen = timeout(LIMIT, self.seen.wait_for(|seen| holds(seen))).await;
        let seen = seen.map(|seen| seen.expect("the watch lives").clone());
        seen.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}: {:?}", *self.seen.borrow()))
    }

    /// How long the drain took, once it is over.
    async fn measured(mut self) -> Duration {
        let seen = self.until("the drain", Seen::is_over).await;
        seen.cordoned.expect("it was cordoned").elapsed()
    }
}

/// A cluster with the full node, and another one.
struct Bench {
    story: ScenarioRun,
    testbed: Testbed,
    old: String,
}

impl Bench {
    async fn set_up(name: &str) -> Self {
        let tale = tale();
        let testbed = tale.testbed(name).await;
        let story = tale.begin(Clock::System, Some(testbed.client())).await;
        let cloud = &story.world.cloud;
        let old = cloud.node_of(&story.spot_instances()[0]).expect("a node").node_name;
        cloud.set_desired(SPOT, 2).expect("within the sizes");
        let nodes: Api<Node> = Api::all(testbed.client());
        crate::helpers::wait_for("the other node", PATIENCE, async || {
            let ready = nodes.list(&Default::default()).await.ok()?.items;
            let open =
                |node: &&Node| is_ready(node) && node.spec.as_ref().is_none_or(|spec| spec.taints.is_none());
            (ready.iter().filter(open).count() == 2).then_some(())
        })
        .await;
        Self { story, testbed, old }
    }

    fn watcher(&self) -> Watcher {
        Watcher::start(&self.testbed.client(), &self.old)
    }
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

async fn bound() -> Duration {
    let bench = Bench::set_up("bench-bound").await;
    let client = bench.testbed.client();
    let mut watcher = bench.watcher();
    watcher.until("the pods", |seen| seen.on_old == PODS as usize).await;
    let cordon = json!({ "spec": { "unschedulable": true } });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch(&bench.old, &PatchParams::default(), &Patch::Merge(cordon)).await.expect("a cordon");
    let pods: Api<Pod> = Api::default_namespaced(client);
    for (done, pod) in pods.list(&Default::default()).await.expect("the pods").items.iter().enumerate() {
        pods.delete(&pod.name_any(), &DeleteParams::default()).await.expect("a deletion");
        watcher.until("the successor", |seen| seen.ready_elsewhere == done + 1).await;
    }
    watcher.measured().await
}

async fn kubectl() -> Duration {
    let bench = Bench::set_up("bench-kubectl").await;
    let watcher = bench.watcher();
    let mut command = Command::new(binaries().join("kubectl"));
    command.arg("--kubeconfig").arg(bench.testbed.kubeconfig()).args(["drain", &bench.old]);
    command.args(["--ignore-daemonsets", "--delete-emptydir-data", "--force"]);
    let _running = Process::start("kubectl", command, bench.testbed.dir()).expect("kubectl starts");
    watcher.measured().await
}

async fn node_termination_handler() -> Duration {
    let handler = binaries().join("aws-node-termination-handler");
    assert!(handler.exists(), "the peer is not built; `make bench` does it, by `testbed/build --bench`");
    let bench = Bench::set_up("bench-nth").await;
    let cloud = &bench.story.world.cloud;
    let instance = cloud.node_of(&bench.story.spot_instances()[0]).expect("a node");
    let mut imds = ImdsMock::quiet(&instance.instance_id, &instance.zone).await;
    // It takes each other notice time for another event, and would drain the node many times at once.
    imds.announce_rebalance_at(&now()).await;
    let watcher = bench.watcher();
    let (address, account) = bench.testbed.in_cluster();
    // It reads its account at a fixed place of the machine: there it finds one in a mount namespace of its
    // own.
    let inside = "run=$(readlink -f /var/run) && mount -t tmpfs none \"$run\" && \
                  mkdir -p /var/run/secrets/kubernetes.io && \
                  cp -r \"$0\" /var/run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
    let mut command = Command::new("unshare");
    // SAFETY: the call cannot fail and touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", inside]).arg(account).arg(handler).args([
        "--enable-rebalance-draining=true",
        "--enable-spot-interruption-draining=false",
        "--enable-scheduled-event-draining=false",
        &format!("--node-name={}", bench.old),
        &format!("--metadata-url={}", imds.endpoint()),
    ]);
    command.envs(address);
    let mut running = Process::start("nth", command, bench.testbed.dir()).expect("the handler starts");
    let measured = watcher.measured().await;
    running.check_alive().expect("the handler runs");
    measured
}

async fn spot_guard() -> Duration {
    let mut stage = Stagecraft::set_up("bench-spot-guard", &tale()).await;
    let watcher = Watcher::start(&stage.testbed.client(), &stage.old_node);
    stage.imds.announce_rebalance_at(&now()).await;
    watcher.measured().await
}

#[actix::test]
#[ignore = "a benchmark of some minutes: make bench"]
async fn drain() {
    let bound = bound().await;
    let mut table = format!(
        "| drain of {PODS} pods, one at a time | seconds | × the bound |\n|---|---|---|\n\
         | the bound: each pod as soon as the last runs again | {:.1} | 1.00 |\n",
        bound.as_secs_f64()
    );
    let mut ratio = f64::NAN;
    for (name, took) in [
        ("`kubectl drain`", kubectl().await),
        ("aws-node-termination-handler", node_termination_handler().await),
        ("Spot Guard", spot_guard().await),
    ] {
        ratio = took.as_secs_f64() / bound.as_secs_f64();
        table += &format!("| {name} | {:.1} | {ratio:.2} |\n", took.as_secs_f64());
    }
    println!("\n{table}");
    assert!(ratio <= GOAL, "Spot Guard is to take no more than {GOAL} × the bound");
}

/// Spot back → on-demand gone, with the settings of a pool that says nothing, and a boot of 60 s.
#[actix::test]
#[ignore = "a benchmark of some minutes: make bench"]
async fn the_way_back_to_spot() {
    const BOOT: f64 = 60.0;
    const STABILITY: f64 = 120.0;
    let mut tale = dry_spot();
    tale.plot.start.policy = PolicySpec { min_node_age_seconds: Some(0), ..PolicySpec::default() };
    (tale.boot, tale.limit) = (BootTimes::default(), Duration::from_secs(900));
    let mut stage = Stagecraft::set_up("bench-way-back", &tale).await;
    let report = stage.play(&tale).await;
    let at = |flow_box, outcome| {
        let step = report.boxes.iter().find(|step| (step.flow_box, step.outcome) == (flow_box, outcome));
        step.unwrap_or_else(|| panic!("no {flow_box:?} {outcome:?}: {:#?}", report.boxes)).at
    };
    // Spot has capacity again as soon as on-demand stands in.
    let back = at(FlowBox::Monitor, Outcome::Monitoring);
    let drain = at(FlowBox::ScaleDown, Outcome::Drained) - at(FlowBox::Safety, Outcome::Safe);
    let whole = at(FlowBox::ScaleDown, Outcome::ScaledDown) - back;
    println!("\n| Spot back → on-demand gone, s | of which the drain, s | the bound, s |\n|---|---|---|");
    println!("| {whole:.0} | {drain:.0} | {:.0} |", STABILITY + 60.0 + BOOT + drain);
    assert!(whole <= STABILITY + 60.0 + BOOT + drain, "{whole} s");
}
