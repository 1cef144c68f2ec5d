//! A real control plane for one test: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and
//! KWOK in place of the machines.

use crate::helpers::wait_for;
use crate::process::{Folder, LOOPBACK, Process, binaries, flag, free_port};
use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a component may take to start, on a machine that compiles at the same time.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The file in a testbed's folder that tells what the accounts of Spot Guard request, an event a line.
pub const AUDIT_LOG: &str = "audit.json";

/// What a test may want otherwise.
pub struct Options {
    /// How long a pod takes from being bound to a node until it is Ready.
    pub pod_ready_delay: Duration,
    /// Whether KWOK stands in for the kubelets; without it, nodes and pods stay as the test makes them.
    pub kubelets: bool,
    /// The kube-scheduler, the eviction API, the disruption controller and that of ephemeral volumes, and
    /// nobody else: no controller and no admission plugin adds to what the test makes. The scheduler is not
    /// rate limited. Its profiles are `spreading` (the default), `packing` (fills nodes up) and `unscored`
    /// (takes any node that is possible).
    pub scheduling_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pod_ready_delay: Duration::from_secs(2), kubelets: true, scheduling_only: false }
    }
}

/// A running cluster without nodes; it ends, and its folder goes, with this value. After a panic the
/// folder stays, for its logs.
///
/// A test holds at most one, so as many run at a time as there are tests: one for each core by default.
pub struct Testbed {
    // Dropped in this order: what depends on something before it, the folder when all have ended.
    kwok: Option<Process>,
    scheduler: Process,
    controller_manager: Process,
    apiserver: Option<Process>,
    etcd: Process,
    client: Client,
    kubeconfig: PathBuf,
    api_port: u16,
    etcd_port: u16,
    scheduling_only: bool,
    folder: Folder,
}

impl Testbed {
    /// A cluster that can run pods as soon as it gets nodes. `name` names its folder.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, Options::default()).await
    }

    /// The same, with other options.
    pub async fn start_with(name: &str, options: Options) -> Self {
        // Outside the tests' time: the first call of all builds the binaries.
        tokio::task::spawn_blocking(binaries).await.expect("the binaries of the testbed");
        let started = Instant::now();
        match Self::try_start(name, options).await {
            Ok(testbed) => {
                println!("testbed {name}: up in {:.1} s", started.elapsed().as_secs_f64());
                testbed
            }
            Err(error) => panic!("the testbed {name} does not start: {error:#}"),
        }
    }

    /// The same without kubelets.
    pub async fn start_without_kubelets(name: &str) -> Self {
        Self::start_with(name, Options { kubelets: false, ..Options::default() }).await
    }

    async fn try_start(name: &str, options: Options) -> Result<Self> {
        let folder = Folder::create(name)?;
        let dir = folder.path();
        let (etcd_port, api_port) = (free_port(), free_port());
        let admin_token = hex_token();
        write(&dir.join("tokens.csv"), &format!("{admin_token},admin,admin,system:masters\n"))?;
        write(&dir.join("service-accounts.key"), &service_account_key()?)?;
        let pod_ready = options.pod_ready_delay.as_millis().to_string();
        let stages = include_str!("../../testbed/stages.yaml").replace("POD_READY_MILLISECONDS", &pod_ready);
        write(&dir.join("stages.yaml"), &stages)?;

        let etcd = start_etcd(dir, etcd_port)?;
        let mut apiserver = start_apiserver(dir, api_port, etcd_port, options.scheduling_only)?;
        let kubeconfig = write_kubeconfig(dir, "admin", api_port, &admin_token)?;
        let client = ready_client(&kubeconfig, &mut apiserver).await?;

        let mut testbed = Self {
            kwok: options.kubelets.then(|| start_kwok(dir, &kubeconfig)).transpose()?,
            scheduler: start_scheduler(dir, &kubeconfig, options.scheduling_only)?,
            controller_manager: start_controller_manager(dir, &kubeconfig, options.scheduling_only)?,
            apiserver: Some(apiserver),
            etcd,
            client,
            kubeconfig,
            api_port,
            etcd_port,
            scheduling_only: options.scheduling_only,
            folder,
        };
        if options.scheduling_only {
            return Ok(testbed);
        }
        // Without it no pod can be created; the controller manager makes it when it is up.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(testbed.client());
        wait_for("the service account of the default namespace", START_TIMEOUT, async || {
            if let Err(error) = testbed.check_alive() {
                return Some(Err(error));
            }
            accounts.get_opt("default").await.ok().flatten().map(|_| Ok(()))
        })
        .await?;
        Ok(testbed)
    }

    /// An error, with the end of its log, if one of the components that only run along has ended.
    fn check_alive(&mut self) -> Result<()> {
        let always = [&mut self.scheduler, &mut self.controller_manager, &mut self.etcd];
        always.into_iter().chain(&mut self.kwok).try_for_each(Process::check_alive)
    }

    /// A client with every right. It does not retry by itself: a test sees each answer as it came.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig with every right.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The address of the API server as processes inside a cluster get it, and the folder with what its
    /// service account would have (`token`, `ca.crt`), with every right.
    pub fn in_cluster(&self) -> ([(&'static str, String); 2], PathBuf) {
        let folder = self.dir().join("service-account");
        fs::create_dir_all(&folder).expect("a folder");
        let tokens = fs::read_to_string(self.dir().join("tokens.csv")).expect("the tokens");
        let token = tokens.split(',').next().unwrap_or_default();
        write(&folder.join("token"), token).expect("a token is written");
        fs::copy(certificate(self.dir()), folder.join("ca.crt")).expect("the certificate is copied");
        let port = self.api_port.to_string();
        let address = [("KUBERNETES_SERVICE_HOST", LOOPBACK.to_owned()), ("KUBERNETES_SERVICE_PORT", port)];
        (address, folder)
    }

    /// A kubeconfig of a service account, which must exist.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> PathBuf {
        self.kubeconfig_for_token(namespace, name, None).await
    }

    /// A kubeconfig as a pod gets it by its projected token: the API server knows the pod and its node
    /// (`authentication.kubernetes.io/node-name`), and the token dies with the pod. The pod must exist, be
    /// bound to a node and use this service account.
    pub async fn kubeconfig_for_pod_bound_token(
        &self,
        namespace: &str,
        service_account: &str,
        pod_name: &str,
    ) -> PathBuf {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let pod = pods.get(pod_name).await.expect("the pod that the token is bound to");
        self.kubeconfig_for_token(namespace, service_account, Some(&pod)).await
    }

    async fn kubeconfig_for_token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> PathBuf {
        let token = self.token(namespace, account, pod).await;
        let name = match pod {
            Some(pod) => format!("{namespace}-{account}-{}", pod.name_any()),
            None => format!("{namespace}-{account}"),
        };
        write_kubeconfig(self.dir(), &name, self.api_port, &token).expect("a kubeconfig is written")
    }

    /// A token of a service account, which must exist; bound to a pod if there is one.
    pub async fn token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> String {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                bound_object_ref: pod.map(|pod| BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap_or_else(|error| panic!("no token for {namespace}/{account}: {error}"));
        answer.status.and_then(|status| status.token).expect("a token")
    }

    /// Where the API server answers.
    pub fn api_url(&self) -> String {
        api_url(self.api_port)
    }

    /// Ends the API server as a crash would, and returns when its port is free. The rest runs on.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server again, on the port and with the data that it had, and returns when it is ready.
    pub async fn start_apiserver(&mut self) {
        self.stop_apiserver();
        let mut apiserver = start_apiserver(self.dir(), self.api_port, self.etcd_port, self.scheduling_only)
            .expect("the API server starts again");
        if let Err(error) = ready_client(&self.kubeconfig, &mut apiserver).await {
            panic!("the API server does not come back: {error:#}");
        }
        self.apiserver = Some(apiserver);
    }

    /// The folder with everything that the cluster writes: data, kubeconfigs, a log of each component.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }
}

fn start_etcd(dir: &Path, port: u16) -> Result<Process> {
    let client_url = format!("http://{LOOPBACK}:{port}");
    let peer_url = format!("http://{LOOPBACK}:{}", free_port());
    let mut command = Command::new(binaries().join("etcd"));
    command
        .arg(flag("--data-dir", dir.join("etcd")))
        .arg(format!("--listen-client-urls={client_url}"))
        .arg(format!("--advertise-client-urls={client_url}"))
        .arg(format!("--listen-peer-urls={peer_url}"))
        .arg(format!("--initial-advertise-peer-urls={peer_url}"))
        .arg(format!("--initial-cluster=default={peer_url}"))
        // Nobody else votes: there is nothing to wait for.
        .args(["--heartbeat-interval=20", "--election-timeout=200"])
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Process::start("etcd", command, dir)
}

fn start_apiserver(dir: &Path, port: u16, etcd_port: u16, scheduling_only: bool) -> Result<Process> {
    let mut command = Command::new(binaries().join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers=http://{LOOPBACK}:{etcd_port}"))
        .arg(format!("--bind-address={LOOPBACK}"))
        .arg(format!("--advertise-address={LOOPBACK}"))
        .arg(format!("--secure-port={port}"))
        .arg(flag("--cert-dir", dir.join("certificates")))
        .arg(flag("--token-auth-file", dir.join("tokens.csv")))
        .args(["--authorization-mode=RBAC,Node", "--allow-privileged=true"])
        .args(["--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none"])
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg(flag("--service-account-key-file", dir.join("service-accounts.key")))
        .arg(flag("--service-account-signing-key-file", dir.join("service-accounts.key")))
        .arg(concat!("--audit-policy-file=", env!("CARGO_MANIFEST_DIR"), "/testbed/audit-policy.yaml"))
        .arg(flag("--audit-log-path", dir.join(AUDIT_LOG)));
    if scheduling_only {
        // Each leaves something to a controller that does not run: accounts, taints of new nodes, finalizers.
        command.arg(
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,StorageObjectInUseProtection",
        );
    }
    Process::start("kube-apiserver", command, dir)
}

fn start_controller_manager(dir: &Path, kubeconfig: &Path, scheduling_only: bool) -> Result<Process> {
    let controllers =
        if scheduling_only { "disruption-controller,ephemeral-volume-controller" } else { "*,-nodeipam" };
    let mut command = Command::new(binaries().join("kube-controller-manager"));
    command
        .arg(flag("--kubeconfig", kubeconfig))
        .arg(flag("--service-account-private-key-file", dir.join("service-accounts.key")))
        .arg(flag("--root-ca-file", certificate(dir)))
        .arg(format!("--controllers={controllers}"))
        .args(["--leader-elect=false", "--secure-port=0"]);
    Process::start("kube-controller-manager", command, dir)
}

fn start_scheduler(dir: &Path, kubeconfig: &Path, scheduling_only: bool) -> Result<Process> {
    let mut command = Command::new(binaries().join("kube-scheduler"));
    command.arg("--secure-port=0");
    if scheduling_only {
        let configuration = dir.join("scheduler.yaml");
        write(&configuration, &format!("{:#}\n", scheduler_configuration(kubeconfig)))?;
        command.arg(flag("--config", configuration));
    } else {
        command.arg(flag("--kubeconfig", kubeconfig)).arg("--leader-elect=false");
    }
    Process::start("kube-scheduler", command, dir)
}

fn scheduler_configuration(kubeconfig: &Path) -> serde_json::Value {
    let fill_up = json!({
        "name": "NodeResourcesFit",
        "args": { "scoringStrategy": {
            "type": "MostAllocated",
            "resources": [{ "name": "cpu", "weight": 1 }, { "name": "memory", "weight": 1 }],
        } },
    });
    json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": { "leaderElect": false },
        "clientConnection": { "kubeconfig": kubeconfig, "qps": 2000, "burst": 4000 },
        "profiles": [
            { "schedulerName": "spreading" },
            { "schedulerName": "packing", "pluginConfig": [fill_up] },
            { "schedulerName": "unscored", "plugins": { "score": { "disabled": [{ "name": "*" }] } } },
        ],
    })
}

fn start_kwok(dir: &Path, kubeconfig: &Path) -> Result<Process> {
    let mut command = Command::new(binaries().join("kwok"));
    command
        .arg(flag("--kubeconfig", kubeconfig))
        .arg(flag("--config", dir.join("stages.yaml")))
        // Without leases the controller manager takes the nodes for dead after 40 s.
        .args(["--manage-all-nodes", "--node-lease-duration-seconds=40"]);
    Process::start("kwok", command, dir)
}

/// A client of an API server that answers `/readyz`.
async fn ready_client(kubeconfig: &Path, apiserver: &mut Process) -> Result<Client> {
    let ready = wait_for("the API server to be ready", START_TIMEOUT, async || {
        if let Err(error) = apiserver.check_alive() {
            return Some(Err(error));
        }
        // Before it has written its certificate there is nothing to connect with.
        let client = client_from(kubeconfig).await.ok()?;
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a valid request");
        let answer = client.request_text(request).await.ok()?;
        (answer == "ok").then_some(Ok(client))
    });
    ready.await
}

async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Writes `<name>.kubeconfig`. JSON is YAML too.
fn write_kubeconfig(dir: &Path, name: &str, port: u16, token: &str) -> Result<PathBuf> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "testbed",
            "cluster": { "server": api_url(port), "certificate-authority": certificate(dir) },
        }],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": name, "context": { "cluster": "testbed", "user": name } }],
        "current-context": name,
    });
    let path = dir.join(format!("{name}.kubeconfig"));
    write(&path, &format!("{kubeconfig:#}\n"))?;
    Ok(path)
}

/// The API server signs its own certificate at its first start, and writes the authority into this file too.
fn certificate(dir: &Path) -> PathBuf {
    dir.join("certificates/apiserver.crt")
}

fn api_url(port: u16) -> String {
    format!("https://{LOOPBACK}:{port}")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn hex_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// A fresh key that signs the tokens of service accounts, as PEM.
fn service_account_key() -> Result<String> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).context("cannot generate a key")?;
    let der: EcPrivateKeyRfc5915Der = key.private_key().as_der().context("cannot encode the key")?;
    let body = BASE64.encode(der.as_ref());
    Ok(format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"))
}
