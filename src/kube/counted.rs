//! What a request to the Kubernetes API is counted as.

use crate::telemetry::metrics::{KubeResult, KubeVerb};
use http::{Method, StatusCode};

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

/// How it ended, if there was an answer.
pub(super) fn result(status: StatusCode) -> KubeResult {
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
