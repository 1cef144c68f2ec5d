//! `POST /webhooks/v1/scale-down`: returns fallbacks to Spot, asked for by another system.
//!
//! A message is signed as the Standard Webhooks specification says (standardwebhooks.com): an HMAC over id,
//! time and body, valid for five minutes. The SpotAction that it leads to is named after its id, so a message
//! that comes again is refused by whichever replica and whenever. Who cannot sign, as Alertmanager, shows a
//! token of the cluster instead.

mod secrets;

pub use secrets::{SecretError, Secrets};

use super::ApiState;
use super::access::is_signed;
use super::problem::{FieldProblem, ProblemReason, Refused};
use super::spot_actions::{self, WriteError};
use crate::crd::SpotActionSpec;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;
use spot_guard_core::spot_action::ActionKind;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, WebhookError};

/// The longest id of a message, in bytes.
const MAX_ID: usize = 255;
/// What a body may name, the most specific first.
const TARGETS: [&str; 3] = ["fallback", "node", "pool"];

pub(super) async fn scale_down(
    state: Data<ApiState>,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Refused> {
    let body = spot_actions::read_body(&request, body).await?;
    let (name, requested_by) = if is_signed(&request) {
        let id = verify(&state.webhook_secrets, &request, &body)?;
        (Some(spot_actions::name_of("webhook", &id)), format!("webhook {id}"))
    } else {
        (None, spot_actions::caller(&request)?.user.clone())
    };
    let wanted = parse_return(&body).map_err(|problem| problem.refuses(&request))?;
    let Some(wanted) = wanted else {
        return Ok(HttpResponse::NoContent().finish());
    };
    let spec = SpotActionSpec {
        action: ActionKind::Return,
        requested_by: spot_actions::requested_by(&requested_by),
        traceparent: spot_actions::traceparent(&request),
        ..wanted
    };
    let is_signed = name.is_some();
    let name = name.unwrap_or_else(spot_actions::random_name);
    match state.spot_actions.write(&name, spec).await {
        Ok(written) if written.fresh || !is_signed => Ok(spot_actions::accepted(&name, &written)),
        Ok(_) | Err(WriteError::Other(_)) => {
            let detail = "a message with this webhook-id was taken before".to_owned();
            Err(Refused::new(ProblemReason::MessageTaken, &request, detail))
        }
        Err(error) => spot_actions::not_stored(&request, &error),
    }
}

/// The id of the message, if one of the secrets has signed it.
fn verify(secrets: &Secrets, request: &HttpRequest, body: &[u8]) -> Result<String, Refused> {
    let refuse = |detail: String| Refused::new(ProblemReason::SignatureInvalid, request, detail);
    let mut headers = http::HeaderMap::new();
    for name in [HEADER_WEBHOOK_ID, HEADER_WEBHOOK_TIMESTAMP, HEADER_WEBHOOK_SIGNATURE] {
        let mut given = request.headers().get_all(name);
        let value = given.next().ok_or_else(|| refuse(format!("the header {name} is missing")))?;
        if given.next().is_some() {
            return Err(refuse(format!("the header {name} is there twice")));
        }
        let value = http::HeaderValue::from_bytes(value.as_bytes());
        headers.insert(name, value.map_err(|_| refuse(format!("the header {name} cannot be read")))?);
    }
    let id = headers.get(HEADER_WEBHOOK_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    if id.is_empty() || id.len() > MAX_ID {
        return Err(refuse(format!("the header {HEADER_WEBHOOK_ID} is not 1 to {MAX_ID} letters long")));
    }
    let secrets = secrets.read();
    if secrets.is_empty() {
        return Err(refuse("no secret is configured for webhooks (setting webhookSecretFiles)".to_owned()));
    }
    // One secret may be a former one. If none fits, what is said is what the last one has against it.
    let mut problem = None;
    for secret in &secrets {
        match secret.verify(body, &headers) {
            Ok(()) => return Ok(id),
            Err(error) => problem = Some(error),
        }
    }
    Err(refuse(match problem {
        Some(WebhookError::TimestampTooOldError) => "the message is older than five minutes".to_owned(),
        Some(WebhookError::FutureTimestampError) => "the message is more than five minutes ahead".to_owned(),
        Some(WebhookError::InvalidTimestamp) => {
            format!("the header {HEADER_WEBHOOK_TIMESTAMP} is no number of seconds")
        }
        _ => "no secret of ours has signed this message".to_owned(),
    }))
}

/// What the body of a message wants to return, without who asked; nothing for an alert that is over.
///
/// # Errors
/// The field that cannot be used.
pub fn parse_return(body: &[u8]) -> Result<Option<SpotActionSpec>, FieldProblem> {
    let refuse = FieldProblem::of;
    let body = spot_actions::fields_of(body)?;
    let from_alertmanager = body.contains_key("alerts");
    let mut fields = if from_alertmanager {
        if body.get("status").and_then(Value::as_str) == Some("resolved") {
            return Ok(None);
        }
        let Some(Value::Object(labels)) = body.get("commonLabels") else {
            return Err(refuse("commonLabels", "there are no labels that all alerts have"));
        };
        let named = labels.iter().filter(|(name, _)| TARGETS.contains(&name.as_str()));
        // An alert has many labels: only the most specific one counts.
        let most = TARGETS.iter().find_map(|target| named.clone().find(|(name, _)| name == target));
        most.map(|(name, value)| (name.clone(), value.clone())).into_iter().collect()
    } else {
        body
    };
    let reason = fields.remove("reason").map(spot_actions::reason_of).transpose()?;
    if let Some(other) = fields.keys().find(|field| !TARGETS.contains(&field.as_str())) {
        return Err(refuse(other, "there is no such field; there are: fallback, node, pool, reason"));
    }
    let mut fields = fields.into_iter();
    let (Some((target, name)), None) = (fields.next(), fields.next()) else {
        return Err(refuse("body", "it is to name one of: fallback, node, pool"));
    };
    let Value::String(name) = name else { return Err(refuse(&target, "it is no text")) };
    if !crate::crd::is_dns_name(&name) {
        return Err(refuse(&target, "it is not a Kubernetes name"));
    }
    let of = |wanted: &str| (target == wanted).then(|| name.clone());
    Ok(Some(SpotActionSpec {
        action: ActionKind::Return,
        pool: of("pool").map(Into::into),
        node: of("node").map(Into::into),
        replacement: of("fallback").map(Into::into),
        requested_by: None,
        reason,
        traceparent: None,
    }))
}
