//! A way to the local port of a controller, opened by kubectl for as long as a command takes.
//!
//! kubectl knows the clusters of its user and how to log in to each. What it may reach is for the roles in
//! the cluster to say: `list` and `get` of deployments and pods, and `create pods/portforward`. Without a
//! controller, `list` of spotpools and nodereplacements.

use anyhow::{Context, bail};
use clap::Args;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The labels of the controller's Deployment.
const SELECTOR: &str = "app.kubernetes.io/name=spot-guard,app.kubernetes.io/component=controller";
/// The port of the controller that is for reading without a token (`localListen`).
const PORT: u16 = 8081;
/// How long kubectl may take until the port is open.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Which cluster kubectl is to ask.
#[derive(Args, Clone, Debug)]
pub struct ClusterOptions {
    /// The namespace of Spot Guard; by default it is looked for in all
    #[arg(short, long, value_name = "NAME", conflicts_with = "api")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME", conflicts_with = "api")]
    pub context: Option<String>,
    /// The kubeconfig; by default that of kubectl
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    pub kubeconfig: Option<PathBuf>,
}

/// There is no controller to be reached. What is stored in the cluster can be read all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoController(String);

/// An open port; it is closed with this value.
pub(super) struct Forward {
    kubectl: Child,
    /// Where the API of the controller answers now.
    pub(super) url: String,
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Forward {
    /// Opens a free port of this machine to a controller.
    ///
    /// # Errors
    /// Without kubectl, or with what kubectl says: [`NoController`], if it could ask the cluster.
    pub(super) fn open(to: &ClusterOptions) -> anyhow::Result<Self> {
        let (namespace, deployment) = controller(to)?;
        let target = format!("deployment/{deployment}");
        let mut kubectl = kubectl(to)
            .args(["--namespace", &namespace, "port-forward", &target, &format!(":{PORT}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(not_started)?;
        let (sender, first) = mpsc::channel();
        if let Some(told) = kubectl.stdout.take() {
            std::thread::spawn(move || {
                let mut told = BufReader::new(told);
                let mut line = String::new();
                if told.read_line(&mut line).is_ok_and(|read| read > 0) {
                    // Nobody waits any more after the time is over.
                    let _ = sender.send(line);
                }
                // kubectl says a line for each connection: it must not wait for a reader.
                let _ = io::copy(&mut told, &mut io::sink());
            });
        }
        let first = first.recv_timeout(TIMEOUT);
        let mut forward = Self { kubectl, url: String::new() };
        match first {
            Ok(line) => forward.url = local_url(&line)?,
            Err(why) => {
                let why = match why {
                    RecvTimeoutError::Timeout => format!("it opened no port within {} s", TIMEOUT.as_secs()),
                    RecvTimeoutError::Disconnected => forward.complaint(),
                };
                bail!(NoController(format!("no controller can be reached: kubectl port-forward: {why}")));
            }
        }
        Ok(forward)
    }

    /// What kubectl said before it ended.
    fn complaint(&mut self) -> String {
        let mut said = Vec::new();
        if let Some(errors) = self.kubectl.stderr.take() {
            let _ = errors.take(1 << 16).read_to_end(&mut said);
        }
        last_line(&said)
    }
}

/// The namespace and the name of the controller's Deployment.
fn controller(to: &ClusterOptions) -> anyhow::Result<(String, String)> {
    let place = to.namespace.as_deref();
    let place = place.map_or_else(|| vec!["--all-namespaces"], |name| vec!["--namespace", name]);
    let form =
        "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name} {.status.replicas}{\"\\n\"}{end}";
    let text = get(to, "deployments", &[&place[..], &["--selector", SELECTOR, "--output", form]].concat())?;
    let words = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        Some([words.next()?, words.next()?, words.next()?])
    };
    let found: Vec<[String; 3]> = text.lines().filter_map(words).collect();
    match found.as_slice() {
        // kubectl would wait for a pod.
        [[namespace, name, pods]] if pods.is_empty() || pods == "0" => {
            bail!(NoController(format!("no controller runs: the Deployment {namespace}/{name} has no pod")))
        }
        [[namespace, name, _]] => Ok((namespace.clone(), name.clone())),
        [] => bail!(NoController(format!(
            "no Deployment has the labels {SELECTOR}: is Spot Guard installed in this cluster? Another one is named \
             by --context, a controller elsewhere by --api URL"
        ))),
        several => {
            let all: Vec<&str> = several.iter().map(|[namespace, ..]| namespace.as_str()).collect();
            bail!("Spot Guard runs in several namespaces ({}): name one with -n", all.join(", "))
        }
    }
}

/// What kubectl gets of a kind.
pub(super) fn get(of: &ClusterOptions, kind: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = kubectl(of);
    kubectl.args(["get", kind]).args(arguments);
    let output = kubectl.stdin(Stdio::null()).output().map_err(not_started)?;
    if !output.status.success() {
        let said = last_line(&output.stderr);
        bail!("kubectl get {kind}: {said} (another cluster is named by --context or --kubeconfig)");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error itself: before it kubectl may log what it has tried.
fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.unwrap_or("it ended without a word").to_owned()
}

fn kubectl(to: &ClusterOptions) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl
        .args(to.kubeconfig.iter().flat_map(|file| ["--kubeconfig".into(), file.clone().into_os_string()]));
    kubectl.args(to.context.iter().flat_map(|name| ["--context", name]));
    kubectl
}

fn not_started(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error)
        .context("kubectl cannot be run: install it, or name the API of a controller by --api URL")
}

/// The address in `Forwarding from 127.0.0.1:12345 -> 8081`.
fn local_url(line: &str) -> anyhow::Result<String> {
    let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
    let address = address.filter(|address| address.parse::<std::net::SocketAddr>().is_ok());
    let address = address.with_context(|| format!("kubectl port-forward says {:?}", line.trim()))?;
    Ok(format!("http://{address}"))
}
