//! Clients of the Kubernetes API.

use anyhow::Context as _;
use http_body_util::BodyExt as _;
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

/// The same client with every request bounded: an answer that ends, its body included, is there within `limit` or the
/// request failed, or whoever waits for it would wait for ever. A watch has to begin within that time; how long it may
/// be silent is its reader's business.
#[must_use]
pub fn bounded(client: &Client, limit: Duration) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let answer = async {
                let (head, body) = client.send(request).await?.into_parts();
                let body = if watches { body } else { body.collect().await?.to_bytes().into() };
                Ok::<_, BoxError>(http::Response::from_parts(head, body))
            };
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use k8s_openapi::api::core::v1::Node;
    use kube::api::{Api, ListParams, WatchParams};
    use std::convert::Infallible;

    /// An API server that answers at once, sends `text`, and then nothing for ever.
    fn stalling(text: &'static str) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes())))]);
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(first.chain(stream::pending()))))
        });
        bounded(&Client::new(service, "default"), REQUEST_TIMEOUT)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_and_a_watch_that_is_silent_is_not() {
        let nodes: Api<Node> = Api::all(stalling(r#"{"kind":"NodeList","apiVersion":"v1","#));
        let began = tokio::time::Instant::now();
        let error = nodes.list(&ListParams::default()).await.expect_err("half an answer is none");
        assert!(error.to_string().contains("no answer within 10 s"), "{error}");
        assert_eq!(began.elapsed(), REQUEST_TIMEOUT);
        assert!(nodes.get("a").await.is_err());

        let nodes: Api<Node> =
            Api::all(stalling("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n"));
        let watch = nodes.watch(&WatchParams::default(), "0").await.expect("a watch");
        let mut watch = std::pin::pin!(watch);
        assert!(watch.next().await.is_some_and(|event| event.is_ok()));
        let silent = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        assert!(silent.is_err(), "nobody ends it: {silent:?}");
    }
}
