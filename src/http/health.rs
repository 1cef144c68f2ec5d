//! `/healthz`, `/readyz` and `/metrics`.

use super::{ApiState, problem};
use crate::telemetry::liveness::DEAD_AFTER;
use crate::telemetry::metrics;
use crate::telemetry::readiness::Unready;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use schemars::JsonSchema;
use serde::Serialize;

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Whether the process can serve.
    pub ready: bool,
    /// The parts that cannot do their work, by name.
    pub not_ready: Vec<NotReady>,
    /// What people should know of parts that work, for instance that an object cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// What people should know of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remark {
    /// Its name.
    pub part: &'static str,
    /// In plain words.
    pub remark: String,
}

/// A part that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotReady {
    /// Its name.
    pub part: &'static str,
    /// Why, as a code and in plain words.
    #[serde(flatten)]
    pub why: Unready,
}

/// The process lives: it can answer, and so can its actors' thread.
pub(super) async fn healthz(state: web::Data<ApiState>) -> HttpResponse {
    let (mut response, text) = match state.liveness.silent_for(DEAD_AFTER) {
        None => (HttpResponse::Ok(), "ok\n".to_owned()),
        Some(silent) => (
            HttpResponse::ServiceUnavailable(),
            format!("the thread of the actors has not run for {} s\n", silent.as_secs()),
        ),
    };
    response.content_type("text/plain; charset=utf-8").body(text)
}

/// 200 while the process can serve, else 503, with the parts that cannot do their work. It is laid out to be
/// read by people, too.
pub(super) async fn readyz(state: web::Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let not_ready: Vec<NotReady> =
        state.readiness.reasons().into_iter().map(|(part, why)| NotReady { part, why }).collect();
    let remarks =
        state.readiness.remarks().into_iter().map(|(part, remark)| Remark { part, remark }).collect();
    let body = Ready { ready: state.readiness.serves(), not_ready, remarks };
    let Ok(text) = serde_json::to_string_pretty(&body) else {
        return problem::internal(&request, "readiness cannot be written as JSON");
    };
    let mut response = if body.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(header::ContentType::json()).body(text + "\n")
}

/// OpenMetrics text.
pub(super) async fn metrics(state: web::Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let is_leader = *state.is_leader.borrow();
    match state.metrics.encode(is_leader, &state.readiness, &state.replacements.state(), &state.pools.state())
    {
        Ok(text) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(text),
        Err(_) => problem::internal(&request, "the metrics cannot be written as text"),
    }
}
