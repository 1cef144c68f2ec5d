//! Clients of the Kubernetes API.

use crate::causes::with_causes;
use crate::kube::counted;
use crate::kube::splitter::MAX_OBJECT;
use crate::telemetry::metrics::{KubeResult, KubeVerb, Metrics};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::config::{InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
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
    let cannot_use = |error: KubeconfigError| match error {
        KubeconfigError::ReadConfig(why, _) => {
            anyhow!("cannot read the kubeconfig {}: {why}", path.display())
        }
        other => anyhow!("cannot use the kubeconfig {}: {}", path.display(), with_causes(&other)),
    };
    let file = Kubeconfig::read_from(path).map_err(cannot_use)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    client(config.map_err(cannot_use)?)
}

/// A client by the kubeconfig if there is one, else by the pod's own service account.
///
/// # Errors
/// When neither can be read or used.
pub async fn infer(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    match kubeconfig {
        Some(path) => from_file(path).await,
        None => {
            let config = Config::infer().await.map_err(|error| not_inferred(&error))?;
            client(config)
        }
    }
}

/// Why there is no way to a cluster. Outside of one, that there is no service account is no news.
fn not_inferred(error: &InferConfigError) -> anyhow::Error {
    let is_outside = matches!(Config::incluster(), Err(InClusterError::ReadEnvironmentVariable(_)));
    let of_file = error.source().and_then(|cause| cause.downcast_ref::<KubeconfigError>());
    match of_file.filter(|_| is_outside) {
        Some(KubeconfigError::ReadConfig(why, path)) if why.kind() == ErrorKind::NotFound => anyhow!(
            "no kubeconfig {}, and not inside a cluster: name one by --kubeconfig FILE or KUBECONFIG",
            path.display()
        ),
        Some(other) => anyhow!("cannot use the kubeconfig: {}", with_causes(other)),
        None => anyhow!("{error}"),
    }
}

/// The same client with every request bounded: an answer that ends, its body included, is there within
/// `limit` or the request failed, or whoever waits for it would wait for ever. The body of a list is not
/// held: it can be read as it comes. A watch has to begin within that time; how long it may be silent is its
/// reader's business.
///
/// `metrics` counts each request with how it ended.
#[must_use]
pub fn bounded(client: &Client, limit: Duration, metrics: Arc<Metrics>) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, metrics) = (client.clone(), metrics.clone());
        async move {
            let verb = counted::verb(&request);
            let answer = within(limit, &client, verb, request).await;
            let result = answer.as_ref().map_or(KubeResult::Failed, |answer| counted::answered(verb, answer));
            metrics.kube_request(verb, result);
            answer
        }
    });
    Client::new(service, namespace)
}

async fn within(
    limit: Duration,
    client: &Client,
    verb: KubeVerb,
    request: http::Request<Body>,
) -> Result<http::Response<BoundedBody>, BoxError> {
    let end = Instant::now() + limit;
    let answer = match timeout_at(end, client.send(request)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(BoxError::from(no_answer(limit))),
    };
    let end = (verb != KubeVerb::Watch).then(|| Box::pin(sleep_until(end)));
    let answer = answer.map(|inner| BoundedBody { inner, end, limit });
    if matches!(verb, KubeVerb::Watch | KubeVerb::List) {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_OBJECT).collect().await?.to_bytes();
    let told = retry_after(&head).filter(|_| !body.starts_with(b"{"));
    let inner = told.map_or_else(|| without_managed_fields(body), throttled).into();
    Ok(http::Response::from_parts(head, BoundedBody { inner, end: None, limit }))
}

/// For how many seconds the API server asks to wait, where it says so in a header: when it has too many
/// requests it answers in plain text (k8s.io/apiserver, pkg/server/filters/maxinflight.go).
fn retry_after(head: &http::response::Parts) -> Option<u32> {
    let is_throttled = head.status == http::StatusCode::TOO_MANY_REQUESTS;
    let seconds = head.headers.get(http::header::RETRY_AFTER).filter(|_| is_throttled)?;
    seconds.to_str().ok()?.trim().parse().ok()
}

/// The same as the API server says it where it answers with an object.
fn throttled(seconds: u32) -> Bytes {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429, "reason": "TooManyRequests",
        "message": "too many requests", "details": { "retryAfterSeconds": seconds },
    });
    status.to_string().into()
}

/// The answer about one object without what nobody here reads. Whoever may change an object may write a time
/// there that no reader of times takes, and a change that was done would look like one that failed.
fn without_managed_fields(body: Bytes) -> Bytes {
    const FIELD: &[u8] = b"\"managedFields\"";
    if !body.windows(FIELD.len()).any(|window| window == FIELD) {
        return body;
    }
    let Ok(mut object) = serde_json::from_slice::<Value>(&body) else { return body };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    serde_json::to_vec(&object).map_or(body, Bytes::from)
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// A body that has to be there by its end.
struct BoundedBody {
    inner: Body,
    end: Option<Pin<Box<Sleep>>>,
    limit: Duration,
}

impl http_body::Body for BoundedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let limit = self.limit;
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Some(Err(no_answer(limit).into())));
        }
        Pin::new(&mut self.inner).poll_frame(context).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
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
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use k8s_openapi::api::core::v1::Node;
    use kube::api::{Api, ListParams, WatchParams};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An API server that answers at once, sends `text`, and then nothing for ever.
    fn stalling(text: &'static str) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes())))]);
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(first.chain(stream::pending()))))
        });
        bounded(&Client::new(service, "default"), REQUEST_TIMEOUT, Arc::default())
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

    #[tokio::test]
    async fn a_time_that_nobody_reads_makes_no_answer_unreadable() {
        let node = r#"{"metadata":{"name":"a","managedFields":[{"time":"9999-12-31T23:59:59Z"}]}}"#;
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            Ok::<_, Infallible>(http::Response::new(Body::from(node.as_bytes().to_vec())))
        });
        let plain = Client::new(service, "default");
        assert!(Api::<Node>::all(plain.clone()).get("a").await.is_err(), "it needs the mend");
        let nodes: Api<Node> = Api::all(bounded(&plain, REQUEST_TIMEOUT, Arc::default()));
        assert_eq!(nodes.get("a").await.expect("a node").metadata.name.as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn an_answer_that_is_collected_has_its_bound() {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let sent = counted.clone();
            let endless = stream::repeat_with(move || {
                sent.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; 1 << 20])))
            });
            std::future::ready(Ok::<_, Infallible>(http::Response::new(StreamBody::new(endless))))
        });
        let nodes: Api<Node> =
            Api::all(bounded(&Client::new(service, "default"), REQUEST_TIMEOUT, Arc::default()));
        assert!(nodes.list(&ListParams::default()).await.is_err());
        assert!(nodes.get("a").await.is_err());
        assert!(sent.load(Ordering::Relaxed) <= 2 * (MAX_OBJECT / (1 << 20) + 2));
    }
}
