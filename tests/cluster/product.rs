//! Spot Guard as it is run: installed by its manifests, its two processes under the accounts of those
//! manifests.

use crate::helpers::{HttpAnswer, http, wait_for};
use crate::process::{LOOPBACK, Process, binaries, free_port};
use crate::testbed::Testbed;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use spot_guard::config::Config;
use spot_guard::crd::{InterruptionNotice, NodeReplacement, SpotAction, SpotPool};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Where the manifests put everything.
pub const NAMESPACE: &str = "spot-guard";
/// The file with the configuration that Helm rendered, if Helm has installed Spot Guard.
pub const RENDERED: &str = "rendered-config.yaml";
/// The service account of the agents.
pub const AGENT: &str = "spot-guard-agent";
/// The service account of the controllers.
pub const CONTROLLER: &str = "spot-guard-controller";

/// What the manifests allow a controller, in bytes.
pub const CONTROLLER_MEMORY: u64 = 256 << 20;
/// What the manifests allow an agent, in bytes.
const AGENT_MEMORY: u64 = 48 << 20;

/// How long something may take that takes a second or two on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn spot_guard() -> Command {
    Command::new(env!("CARGO_BIN_EXE_spot-guard"))
}

/// Runs kubectl with every right.
pub fn kubectl(testbed: &Testbed, arguments: &[&str]) -> Output {
    let output = try_kubectl(testbed, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {}: {told}", arguments.join(" "));
    assert!(arguments[0] != "apply" || !warns(&told), "kubectl {}: {told}", arguments.join(" "));
    output
}

/// The same, whatever comes of it.
pub fn try_kubectl(testbed: &Testbed, arguments: &[&str]) -> Output {
    Command::new(binaries().join("kubectl"))
        .arg("--kubeconfig")
        .arg(testbed.kubeconfig())
        .args(arguments)
        .output()
        .expect("kubectl runs")
}

/// Whether the API server warned of what is installed: as kubectl says it, or as Helm does.
pub fn warns(told: &str) -> bool {
    ["Warning", "warnings.go", "unrecognized format"].iter().any(|word| told.contains(word))
}

/// Applies a file as the README says.
pub fn apply(testbed: &Testbed, file: &Path) {
    let file = file.to_str().expect("a path in UTF-8");
    kubectl(testbed, &["apply", "--server-side", "--validate=strict", "-f", file]);
}

/// A file of `deploy/manifests`.
pub fn manifest(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manifests").join(file)
}

/// Applies the definitions that the binary prints, and waits until they are served.
pub async fn install_crds(testbed: &Testbed) {
    let output = spot_guard().arg("crds").output().expect("spot-guard runs");
    assert!(output.status.success(), "spot-guard crds: {}", String::from_utf8_lossy(&output.stderr));
    let file = testbed.dir().join("crds.yaml");
    fs::write(&file, output.stdout).expect("the definitions are written");
    apply(testbed, &file);
    let served = async |client: Client| {
        let one = ListParams::default().limit(1);
        Api::<SpotPool>::all(client.clone()).list(&one).await.is_ok()
            && Api::<InterruptionNotice>::all(client.clone()).list(&one).await.is_ok()
            && Api::<NodeReplacement>::all(client.clone()).list(&one).await.is_ok()
            && Api::<SpotAction>::all(client).list(&one).await.is_ok()
    };
    wait_for("the kinds to be served", PATIENCE, async || served(testbed.client()).await.then_some(())).await;
}

/// Applies everything but the controllers' Deployment: the tests start the processes themselves.
pub async fn install(testbed: &Testbed) {
    install_crds(testbed).await;
    let files = [
        "namespace.yaml",
        "agent-rbac.yaml",
        "admission-policy.yaml",
        "agent-daemonset.yaml",
        "controller-rbac.yaml",
        "user-rbac.yaml",
    ];
    for file in files {
        apply(testbed, &manifest(file));
    }
}

/// Where Spot Guard is in this cluster: where Helm has installed it, else where the manifests put it.
pub fn namespace(testbed: &Testbed) -> String {
    let rendered = testbed.dir().join(RENDERED);
    if rendered.exists() {
        Config::load(&rendered).expect("the controller takes it").lease.namespace
    } else {
        NAMESPACE.to_owned()
    }
}

/// A kubeconfig with the token that the DaemonSet's pod on that node has.
pub async fn kubeconfig_of_agent(testbed: &Testbed, node: &str) -> PathBuf {
    let namespace = namespace(testbed);
    let pods: Api<Pod> = Api::namespaced(testbed.client(), &namespace);
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pod = wait_for(&format!("the agent's pod on {node}"), PATIENCE, async || {
        let pods = pods.list(&on_node).await.ok()?;
        pods.items.into_iter().next()
    })
    .await;
    testbed.kubeconfig_for_pod_bound_token(&namespace, AGENT, &pod.name_any()).await
}

/// A process of Spot Guard that serves HTTP.
pub struct Service {
    /// The process.
    pub process: Process,
    /// Where it answers; a controller: for reading, without a token.
    pub address: SocketAddr,
    /// Where a controller takes tokens.
    pub main: SocketAddr,
    /// Where it answers probes and scrapers.
    pub probes: SocketAddr,
}

impl Service {
    fn start(name: &str, mut command: Command, dir: &Path, controller: bool) -> Self {
        let free = || SocketAddr::new(LOOPBACK.parse().expect("an address"), free_port());
        let main = free();
        let (address, probes) = if controller { (free(), free()) } else { (main, main) };
        command.arg("--listen").arg(main.to_string()).env("RUST_LOG", "info,spot_guard=debug");
        if controller {
            command.arg("--local-listen").arg(address.to_string());
            command.arg("--probe-listen").arg(probes.to_string());
        }
        let mut process = Process::start(name, command, dir).expect("spot-guard starts");
        process.limit_memory(if controller { CONTROLLER_MEMORY } else { AGENT_MEMORY });
        Self { process, address, main, probes }
    }

    /// An answer, once the process listens.
    pub async fn get(&mut self, path: &str) -> Option<HttpAnswer> {
        self.process.check_alive().expect("spot-guard runs");
        let is_probe = ["/healthz", "/livez", "/readyz", "/metrics"].contains(&path);
        http(if is_probe { self.probes } else { self.address }, "GET", path, &[]).await.ok()
    }

    /// Waits until `/readyz` is green.
    pub async fn becomes_ready(&mut self) {
        wait_for("spot-guard to be ready", PATIENCE, async || {
            self.get("/readyz").await.filter(|answer| answer.status == 200).map(drop)
        })
        .await;
    }

    /// Waits until `/readyz` says 503 with this in its reasons, and returns the whole answer.
    pub async fn is_not_ready_because(&mut self, reason: &str) -> String {
        wait_for(&format!("spot-guard not to be ready because of {reason}"), PATIENCE, async || {
            let answer = self.get("/readyz").await?;
            (answer.status == 503 && answer.body.contains(reason)).then_some(answer.body)
        })
        .await
    }

    /// Waits until this controller is the one that acts.
    pub async fn leads(&mut self) {
        wait_for("the controller to lead", PATIENCE, async || {
            let answer = self.get("/api/v1/status").await?;
            let status: Value = serde_json::from_str(&answer.body).ok()?;
            (status["leader"] == json!(true)).then_some(())
        })
        .await;
    }

    /// Ends it as Kubernetes does, and demands that it ends well.
    pub async fn ends_well(self) {
        let status = self.process.terminate().await;
        assert!(status.success(), "spot-guard ended with {status}");
    }
}

/// A lease that a killed controller does not hold for long. All else comes from the pool.
const CONFIG: &str = "\
lease: { name: spot-guard-controller, namespace: spot-guard, durationSeconds: 6, renewSeconds: 2 }
aws: { callTimeoutSeconds: 3 }
";

/// The file that names the webhook to notify, if there is one.
pub const WEBHOOK: &str = "webhook-url";

/// The file that has the URL of the notice queue, if there is one.
pub const QUEUE: &str = "queue-url";

/// The file that has the variables which ask for traces, if somebody takes them: a line for each.
pub const TRACES: &str = "traces";

/// Lets a process send traces, if the file [`TRACES`] is there.
fn send_traces(command: &mut Command, testbed: &Testbed) {
    let text = fs::read_to_string(testbed.dir().join(TRACES)).unwrap_or_default();
    command.envs(text.lines().filter_map(|line| line.split_once('=')));
}

/// Starts a controller whose AWS answers at `aws`; `name` names its log.
pub async fn start_controller(testbed: &Testbed, name: &str, aws: &str) -> Service {
    let kubeconfig = testbed.kubeconfig_for_service_account(&namespace(testbed), CONTROLLER).await;
    start_controller_with(testbed, name, aws, &kubeconfig)
}

/// The same with a kubeconfig that there is already.
pub fn start_controller_with(testbed: &Testbed, name: &str, aws: &str, kubeconfig: &Path) -> Service {
    let config = testbed.dir().join("spot-guard.yaml");
    let webhook = testbed.dir().join(WEBHOOK);
    let notifications = if webhook.exists() {
        format!("notifications: [{{urlFile: {}}}]\n", webhook.display())
    } else {
        String::new()
    };
    let queue = fs::read_to_string(testbed.dir().join(QUEUE)).ok();
    let queue_setting = queue.as_ref().map_or_else(String::new, |url| format!("queue: {{url: \"{url}\"}}\n"));
    let rendered = fs::read_to_string(testbed.dir().join(RENDERED));
    let settings = rendered.as_deref().unwrap_or(CONFIG);
    let text = format!("{settings}\n{notifications}{queue_setting}");
    fs::write(&config, text).expect("the configuration is written");
    let mut command = spot_guard();
    command.arg("controller").arg("--config").arg(config).arg("--kubeconfig").arg(kubeconfig);
    command.envs([
        ("AWS_ENDPOINT_URL_AUTO_SCALING", aws),
        ("AWS_REGION", "us-east-1"),
        // What it asks of AWS is told apart by this.
        ("AWS_ACCESS_KEY_ID", name),
        // No log may show it (attacks::logs).
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    if let Some(url) = queue {
        // The SDK goes by the endpoint, and not by the URL of the queue.
        let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
        command.env("AWS_ENDPOINT_URL_SQS", host);
    }
    send_traces(&mut command, testbed);
    Service::start(name, command, testbed.dir(), true)
}

/// Starts the agent of a node whose metadata service answers at `imds`.
pub async fn start_agent(testbed: &Testbed, node: &str, imds: &str) -> Service {
    start_agent_named(testbed, "agent", node, imds).await
}

/// The same; `name` names its log.
pub async fn start_agent_named(testbed: &Testbed, name: &str, node: &str, imds: &str) -> Service {
    let kubeconfig = kubeconfig_of_agent(testbed, node).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard-agent"));
    command.args(["--node-name", node, "--poll-seconds", "1", "--kubeconfig"]).arg(kubeconfig);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds);
    send_traces(&mut command, testbed);
    Service::start(name, command, testbed.dir(), false)
}
