//! Clients of the Kubernetes API.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// How long the Kubernetes API may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A client by this kubeconfig. No request is made yet.
///
/// # Errors
/// When the file cannot be read or used.
pub async fn from_file(path: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("cannot use {}", path.display()))?;
    client(config)
}

/// A client by the kubeconfig if there is one, else by the pod's own service account.
///
/// # Errors
/// When neither can be read or used.
pub async fn infer(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    match kubeconfig {
        Some(path) => from_file(path).await,
        None => {
            let config = Config::infer().await.context("no kubeconfig, and not inside a cluster")?;
            client(config)
        }
    }
}

fn client(mut config: Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The client would repeat a 429 by itself, many times: an exhausted budget must be seen at once.
    config.default_retry = false;
    Client::try_from(config).context("cannot make a Kubernetes client")
}
