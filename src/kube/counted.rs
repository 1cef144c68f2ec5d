//! What a request to the Kubernetes API is counted as, and by which id the API server's audit log has it.

use crate::telemetry::metrics::{KubeResult, KubeVerb, ProcessMetrics};
use http::{Method, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tracing::Span;

/// The header with the id of a request in the audit log (k8s.io/apiserver, pkg/apis/audit).
const AUDIT_ID: &str = "audit-id";

/// The same client, and `metrics` counts each request with how it ended.
#[must_use]
pub fn counting(client: &Client, metrics: ProcessMetrics) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, metrics) = (client.clone(), metrics.clone());
        async move {
            let mut sent = Sent { verb: verb(&request), result: KubeResult::Failed, metrics };
            let answer = client.send(request).await;
            if let Ok(answer) = &answer {
                sent.result = answered(sent.verb, answer);
            }
            answer
        }
    });
    Client::new(service, namespace)
}

/// A request that is counted when it ends, also if nobody waits for its answer any more.
struct Sent {
    verb: KubeVerb,
    result: KubeResult,
    metrics: ProcessMetrics,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.metrics.kube_request(self.verb, self.result);
    }
}

/// What is requested. Of a list and a watch that is their beginning.
pub(super) fn verb<B>(request: &http::Request<B>) -> KubeVerb {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::GET if query.contains("watch=true") => KubeVerb::Watch,
        Method::GET if query.contains("limit=") => KubeVerb::List,
        Method::GET => KubeVerb::Get,
        Method::POST => KubeVerb::Create,
        Method::DELETE => KubeVerb::Delete,
        _ => KubeVerb::Change,
    }
}

/// How it ended, if there was an answer. The id of a change is written into the span that it is made in.
pub(super) fn answered<B>(verb: KubeVerb, answer: &Response<B>) -> KubeResult {
    let changes = matches!(verb, KubeVerb::Create | KubeVerb::Change | KubeVerb::Delete);
    let id = answer.headers().get(AUDIT_ID).filter(|_| changes);
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        Span::current().record("k8s.audit_id", id);
    }
    result(answer.status())
}

fn result(status: StatusCode) -> KubeResult {
    match status {
        StatusCode::CONFLICT => KubeResult::Conflict,
        StatusCode::TOO_MANY_REQUESTS => KubeResult::Throttled,
        status if status.is_client_error() => KubeResult::Refused,
        status if status.is_server_error() => KubeResult::Failed,
        _ => KubeResult::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use std::convert::Infallible;
    use std::fmt;
    use std::future::pending;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::time::timeout;
    use tracing::field::{Field, Visit};
    use tracing::span::{Id, Record};
    use tracing::{Subscriber, field, info_span};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    /// What is written into spans.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    impl Visit for Written {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    #[test]
    fn the_id_of_a_change_in_the_audit_log_is_written_into_its_span() {
        let answer = Response::builder().header("Audit-Id", "7b6f4a").body(()).expect("an answer");
        let written = Written::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(written.clone()), || {
            info_span!("call", k8s.audit_id = field::Empty).in_scope(|| {
                for verb in [KubeVerb::Get, KubeVerb::Create, KubeVerb::List, KubeVerb::Watch] {
                    assert_eq!(answered(verb, &answer), KubeResult::Ok);
                }
            });
        });
        assert_eq!(*written.0.lock().unwrap(), ["k8s.audit_id=\"7b6f4a\""], "readings have none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_is_counted_too() {
        let silent =
            tower::service_fn(|_: http::Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let metrics = ProcessMetrics::of_agent();
        let client = counting(&Client::new(silent, "default"), metrics.clone());
        let request = http::Request::post("/x").body(Body::from(Vec::<u8>::new())).expect("a request");
        assert!(timeout(Duration::from_secs(5), client.send(request)).await.is_err());
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        encode(&mut text, &registry).expect("text");
        assert!(text.contains(r#"kube_requests_total{verb="Create",result="Failed"} 1"#), "{text}");
    }

    #[test]
    fn a_request_has_its_verb_and_an_answer_its_result() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/pods?watch=true&resourceVersion=1", KubeVerb::Watch),
            (Method::GET, "/api/v1/pods?limit=500", KubeVerb::List),
            (Method::GET, "/api/v1/nodes/n", KubeVerb::Get),
            (Method::POST, "/api/v1/namespaces/a/pods/p/eviction", KubeVerb::Create),
            (Method::PATCH, "/api/v1/nodes/n", KubeVerb::Change),
            (Method::PUT, "/api/v1/nodes/n", KubeVerb::Change),
            (Method::DELETE, "/api/v1/nodes/n", KubeVerb::Delete),
        ] {
            let request = http::Request::builder().method(method).uri(path).body(());
            assert_eq!(verb(&request.expect("a request")), expected, "{path}");
        }
        for (status, expected) in [
            (200, KubeResult::Ok),
            (201, KubeResult::Ok),
            (409, KubeResult::Conflict),
            (429, KubeResult::Throttled),
            (403, KubeResult::Refused),
            (404, KubeResult::Refused),
            (500, KubeResult::Failed),
        ] {
            assert_eq!(result(StatusCode::from_u16(status).expect("a status")), expected, "{status}");
        }
    }
}
