//! What the API server answers with.

use super::refusal::Refusal;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};

/// Any error at all.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: complete, or the stream of a watch.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A finished answer; watches are answered elsewhere.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<u32>,
}

impl Answer {
    pub(super) fn new(code: u16, body: &Value) -> Self {
        Self { code, body: Bytes::from(body.to_string()), retry_after: None }
    }
}

impl From<Refusal> for Answer {
    fn from(status: Refusal) -> Self {
        let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds);
        Self {
            retry_after: retry_after.filter(|seconds| *seconds > 0),
            ..Self::new(status.code, &status_object(&status))
        }
    }
}

/// The `Status` as an API object.
pub(super) fn status_object(status: &kube::core::Status) -> Value {
    let mut object = serde_json::to_value(status).unwrap_or_default();
    object["kind"] = json!("Status");
    object["apiVersion"] = json!("v1");
    object["metadata"] = json!({});
    object
}

/// As a server that dies says it.
pub(super) fn connection_reset() -> BoxError {
    Box::new(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer"))
}
