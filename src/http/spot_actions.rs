//! What people request: replace, return, cancel, pause and resume.
//!
//! Asking writes a SpotAction and answers 202 with its place; the leader does the rest, so any replica can be
//! asked. With a header `Idempotency-Key` the object's name follows from user and key, so that asking again
//! writes nothing new.

mod writer;

pub use writer::{SpotActions, WriteError, Written};

use super::access::Caller;
use super::model::{ActionState, Items};
use super::problem::{self, FieldProblem, ProblemReason, Refused};
use super::query::{Filter, path_name};
use super::{ApiState, api};
use crate::crd::SpotActionSpec;
use crate::telemetry::tracing::trace_id_of;
use actix_web::http::header;
use actix_web::web::{Data, Json, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use aws_lc_rs::digest::{SHA256, digest};
use futures::StreamExt;
use serde_json::{Map, Value};
use spot_guard_core::ids::{NodeName, PoolName, ReplacementName};
use spot_guard_core::spot_action::ActionKind;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 16 * 1024;
/// The longest reason, in characters (SpotActionSpec).
pub(super) const MAX_REASON: usize = 1024;
/// The longest idempotency key, in bytes.
pub(super) const MAX_KEY: usize = 255;
/// The longest name of a user that is written down, in characters (SpotActionSpec).
const MAX_USER: usize = 512;
/// How long a client may take to send its body.
const BODY_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn replace_node(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    let name = path_name(&request);
    let known = (state.snapshot)().node(&name.as_str().into()).is_some();
    let subject = Subject {
        known,
        what: "node of the cluster",
        pool: None,
        node: Some(name.into()),
        replacement: None,
    };
    spot_action(&state, &request, body, ActionKind::Replace, subject).await
}

pub(super) async fn return_fallback(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    let name = path_name(&request);
    let known = api::find(&state.replacements, &name).is_some_and(|held| api::has_open_fallback(&held));
    let subject =
        Subject { known, what: "open fallback", pool: None, node: None, replacement: Some(name.into()) };
    spot_action(&state, &request, body, ActionKind::Return, subject).await
}

pub(super) async fn cancel_replacement(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    let name = path_name(&request);
    let known = api::find(&state.replacements, &name).is_some();
    let subject =
        Subject { known, what: "replacement", pool: None, node: None, replacement: Some(name.into()) };
    spot_action(&state, &request, body, ActionKind::Cancel, subject).await
}

pub(super) async fn pause_pool(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    spot_action(&state, &request, body, ActionKind::Pause, pool(&state, &request)).await
}

pub(super) async fn resume_pool(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    spot_action(&state, &request, body, ActionKind::Resume, pool(&state, &request)).await
}

pub(super) async fn pause_all(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    spot_action(&state, &request, body, ActionKind::Pause, EVERYTHING).await
}

pub(super) async fn resume_all(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    spot_action(&state, &request, body, ActionKind::Resume, EVERYTHING).await
}

pub(super) async fn spot_actions(
    state: Data<ApiState>,
    request: HttpRequest,
) -> Result<Json<Items<ActionState>>, Refused> {
    let (found, next) = Filter::of(&request)?.page(state.spot_action_store.state(), api::name_of);
    Ok(Json(Items { items: found.iter().map(|held| ActionState::of(held)).collect(), next }))
}

/// As it is stored now: it is found at once, whichever replica has written it.
pub(super) async fn spot_action_named(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    match state.spot_actions.get(&path_name(&request)).await {
        Ok(Some(found)) => HttpResponse::Ok().json(ActionState::of(&found)),
        Ok(None) => api::no_such(&request, "spotaction"),
        Err(_) => {
            let detail = "the Kubernetes API does not answer";
            problem::unavailable(ProblemReason::KubernetesUnavailable, &request, detail)
        }
    }
}

/// What a SpotAction is about.
struct Subject {
    /// Whether it is there.
    known: bool,
    /// What kind of thing it is.
    what: &'static str,
    pool: Option<PoolName>,
    node: Option<NodeName>,
    replacement: Option<ReplacementName>,
}

const EVERYTHING: Subject = Subject { known: true, what: "", pool: None, node: None, replacement: None };

fn pool(state: &ApiState, request: &HttpRequest) -> Subject {
    let name = path_name(request);
    let known = api::find(&state.pools, &name).is_some();
    Subject { known, what: "pool", pool: Some(name.into()), node: None, replacement: None }
}

async fn spot_action(
    state: &ApiState,
    request: &HttpRequest,
    body: Payload,
    action: ActionKind,
    subject: Subject,
) -> Result<HttpResponse, Refused> {
    let caller = caller(request)?;
    let key = idempotency_key(request)?;
    let reason = reason(request, body).await?;
    if !subject.known {
        return Ok(api::no_such(request, subject.what));
    }
    let spec = SpotActionSpec {
        action,
        pool: subject.pool,
        node: subject.node,
        replacement: subject.replacement,
        requested_by: requested_by(&caller.user),
        reason,
        traceparent: traceparent(request),
    };
    let name = match key {
        Some(key) => name_of_key(&caller.user, &key),
        None => random_name(),
    };
    match state.spot_actions.write(&name, spec).await {
        Ok(written) => Ok(accepted(&name, &written)),
        Err(WriteError::Other(_)) => {
            let detail = "it was used for another request".to_owned();
            Err(Refused::fields(ProblemReason::KeyTaken, request, IDEMPOTENCY_KEY, detail))
        }
        Err(error) => not_stored(request, &error),
    }
}

/// The caller.
///
/// # Errors
/// 403 if it is not known: every other door is closed before.
pub(super) fn caller(request: &HttpRequest) -> Result<Arc<Caller>, Refused> {
    let nobody =
        || Refused::new(ProblemReason::Forbidden, request, "the name of the caller is not known".to_owned());
    request.extensions().get::<Arc<Caller>>().cloned().ok_or_else(nobody)
}

/// The name of who asks, as far as it is written down.
pub(super) fn requested_by(name: &str) -> Option<String> {
    Some(name.chars().take(MAX_USER).collect())
}

/// 202 with the place of the SpotAction.
pub(super) fn accepted(name: &str, written: &Written) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/api/v1/spotactions/{name}")))
        .json(ActionState::of(&written.spot_action))
}

/// Says why a SpotAction is not stored.
pub(super) fn not_stored(request: &HttpRequest, error: &WriteError) -> Result<HttpResponse, Refused> {
    match error {
        WriteError::Unavailable => {
            Ok(problem::unavailable(ProblemReason::KubernetesUnavailable, request, &error.to_string()))
        }
        WriteError::Other(_) | WriteError::Invalid(_) => {
            Err(Refused::new(ProblemReason::ActionInvalid, request, error.to_string()))
        }
    }
}

/// As the draft of the IETF calls it (draft-ietf-httpapi-idempotency-key-header).
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, Refused> {
    let refuse = |detail: &str| Err(Refused::field(request, IDEMPOTENCY_KEY, detail.to_owned()));
    let mut given = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(key) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return refuse("it stands there twice");
    }
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) => refuse(&format!("it is not 1 to {MAX_KEY} letters long")),
        Err(_) => refuse("it has other letters than visible ones of ASCII"),
    }
}

/// The same for the same user and key, and for no others.
fn name_of_key(user: &str, key: &str) -> String {
    name_of("key", &format!("{}:{user}{key}", user.len()))
}

/// The name of the SpotAction of what identifies a request.
pub(super) fn name_of(kind: &str, text: &str) -> String {
    let mut name = format!("{kind}-");
    for byte in &digest(&SHA256, text.as_bytes()).as_ref()[..20] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// A name for a request that nothing identifies.
pub(super) fn random_name() -> String {
    format!("api-{:032x}", fastrand::u128(..))
}

/// The trace that the request belongs to (W3C Trace Context).
pub(super) fn traceparent(request: &HttpRequest) -> Option<String> {
    let given = request.headers().get("traceparent")?.to_str().ok()?;
    trace_id_of(given).filter(|_| given.len() == 55).map(|_| given.to_owned())
}

/// The body, within its limits of size and time; JSON, if there is one.
pub(super) async fn read_body(request: &HttpRequest, mut body: Payload) -> Result<Vec<u8>, Refused> {
    let mut read = Vec::new();
    let all = timeout(BODY_LIMIT, async {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| {
                let detail = format!("the body cannot be read: {error}");
                Refused::new(ProblemReason::BodyUnreadable, request, detail)
            })?;
            if read.len() + piece.len() > MAX_BODY {
                let detail = format!("the body is longer than {MAX_BODY} bytes");
                return Err(Refused::new(ProblemReason::BodyTooLong, request, detail));
            }
            read.extend_from_slice(&piece);
        }
        Ok(())
    });
    let late = || {
        let detail = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
        Refused::new(ProblemReason::BodyTooSlow, request, detail)
    };
    all.await.map_err(|_| late())??;
    if read.is_empty() {
        return Ok(read);
    }
    if request.content_type() != "application/json" {
        let detail = format!("the body is to be application/json, not {:?}", request.content_type());
        return Err(Refused::new(ProblemReason::BodyNotJson, request, detail));
    }
    Ok(read)
}

/// The field of the body, if there is a body.
pub(super) async fn reason(request: &HttpRequest, body: Payload) -> Result<Option<String>, Refused> {
    let read = read_body(request, body).await?;
    parse_reason(&read).map_err(|problem| problem.refuses(request))
}

/// The reason in a body, if there is a body.
///
/// # Errors
/// The field that cannot be used.
pub fn parse_reason(body: &[u8]) -> Result<Option<String>, FieldProblem> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut reason = None;
    for (field, value) in fields_of(body)? {
        if field != "reason" {
            return Err(FieldProblem::of(&field, "there is no such field; there are: reason"));
        }
        reason = Some(reason_of(value)?);
    }
    Ok(reason)
}

/// The fields of a body.
pub(super) fn fields_of(body: &[u8]) -> Result<Map<String, Value>, FieldProblem> {
    let refuse = |detail: &str| FieldProblem::of("body", detail);
    let body: Value =
        serde_json::from_slice(body).map_err(|error| refuse(&format!("it is no JSON: {error}")))?;
    match body {
        Value::Object(fields) => Ok(fields),
        _ => Err(refuse("it is no object")),
    }
}

/// The text of a field `reason`.
pub(super) fn reason_of(value: Value) -> Result<String, FieldProblem> {
    let refuse = |detail: &str| Err(FieldProblem::of("reason", detail));
    match value {
        Value::String(text) if text.chars().count() <= MAX_REASON => Ok(text),
        Value::String(_) => refuse(&format!("it is longer than {MAX_REASON} characters")),
        _ => refuse("it is no text"),
    }
}
