//! Clients of the Kubernetes API.

use anyhow::Context as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;
use tower::BoxError;

/// How long the Kubernetes API may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to answer a request that is no watch.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The same client for requests that end, each answered within `limit` or failed: of those none may hang, or whoever
/// waits for it would wait for ever. Not for watches.
#[must_use]
pub fn bounded(client: &Client, limit: Duration) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move {
            match tokio::time::timeout(limit, client.send(request)).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(format!("no answer within {} s", limit.as_secs()).into()),
            }
        }
    });
    Client::new(service, namespace)
}

fn client(mut config: Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The client would repeat a 429 by itself, many times: an exhausted budget must be seen at once.
    config.default_retry = false;
    Client::try_from(config).context("cannot make a Kubernetes client")
}
