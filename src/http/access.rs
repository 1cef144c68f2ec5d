//! Who may do what, the Kubernetes way: a bearer token of the cluster says who asks, its roles say what they
//! may do.
//!
//! There are three doors. The main one asks the API server about every token ([`Reviews`]), and lets nobody
//! in without its answer. The local one is for `kubectl port-forward` and the demo: on loopback, for reading
//! only. The third one is for probes and scrapers, so that nobody who crowds the main one keeps them out.

mod cache;
mod reviews;

pub(super) use super::rights::{Denial, Need, Permission, Resource, Verb};
pub use reviews::{AUDIENCE, Caller, Reviews};

use super::model::Access;
use super::problem::{self, ProblemReason, Refused};
use super::query;
use super::tls::Certificate;
use crate::crd::is_dns_name;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use spot_guard_core::spot_action::ActionKind;
use standardwebhooks::HEADER_WEBHOOK_SIGNATURE;
use std::net::IpAddr;
use std::sync::Arc;

/// How a listener is guarded.
#[derive(Clone)]
pub enum Door {
    /// Whoever reaches it may read, and nobody may change anything. For loopback.
    Local,
    /// Each caller shows a token of the cluster.
    Main {
        /// Asks the API server about it.
        reviews: Arc<Reviews>,
        /// The certificate to serve with. Without one, tokens are taken from loopback only: on any other way
        /// they could be read.
        tls: Option<Arc<Certificate>>,
    },
    /// Probes and scrapers come here, without a token, and get nothing else.
    Probes,
}

impl Door {
    /// Whether what needs this is to be had here.
    pub(super) fn serves(&self, need: Need) -> bool {
        match self {
            Self::Local => true,
            Self::Main { .. } => need != Need::Probe,
            Self::Probes => need == Need::Probe,
        }
    }
}

/// Lets a request pass, or answers why not.
///
/// # Errors
/// Those of the handler.
pub(super) async fn admit(
    need: Need,
    takes: Option<&'static [&'static str]>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, actix_web::Error> {
    match check(need, request.request()).await {
        Ok(caller) => {
            let refused = takes.and_then(|takes| {
                let (request, name) = (request.request(), request.match_info().get("name"));
                let not_a_name = name.filter(|name| !is_dns_name(name)).map(|_| {
                    let detail = "it is not a Kubernetes name".to_owned();
                    Refused::field(request, "name", detail)
                });
                query::check(request, takes).err().or(not_a_name)
            });
            if let Some(refused) = refused {
                return Ok(request.error_response(refused));
            }
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.call(request).await
        }
        Err(refusal) => {
            let answer = refused(request.request(), &refusal);
            Ok(request.into_response(answer))
        }
    }
}

/// Who asks, where that is known, if they may.
async fn check(need: Need, request: &HttpRequest) -> Result<Option<Arc<Caller>>, Denial> {
    // A server without a door lets nobody in.
    let door = request.app_data::<Data<Door>>().map(|door| door.get_ref()).ok_or(Denial::Unknown)?;
    let (reviews, tls) = match door {
        // Not even what is open is for a page from elsewhere.
        Door::Local if !names_this_machine(request) => return Err(Denial::ForeignHost),
        Door::Local => {
            let reads = match need {
                Need::Right { verb, .. } => verb.reads(),
                Need::Signed => false,
                Need::Probe | Need::Nothing | Need::Token => true,
            };
            return if reads { Ok(None) } else { Err(Denial::ReadOnly) };
        }
        Door::Probes | Door::Main { .. } if matches!(need, Need::Probe | Need::Nothing) => return Ok(None),
        Door::Probes => return Err(Denial::Unknown),
        Door::Main { reviews, tls } => (reviews, tls),
    };
    // A signature can be read by anybody on its way, and serves nobody else.
    if need == Need::Signed && is_signed(request) {
        return Ok(None);
    }
    let from_loopback = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if tls.is_none() && !from_loopback {
        return Err(Denial::Unencrypted);
    }
    let caller = reviews.authenticate(bearer_token(request).ok_or(Denial::NoToken)?).await?;
    match need {
        Need::Probe | Need::Nothing | Need::Token => {}
        Need::Signed => reviews.authorize(&caller, all(ActionKind::Return)).await?,
        Need::Right { verb, resource, named } => {
            let name = named.then(|| query::path_name(request));
            reviews.authorize(&caller, Permission { verb, resource, name }).await?;
        }
    }
    Ok(Some(caller))
}

/// Whether the request is signed, or claims to be.
pub(super) fn is_signed(request: &HttpRequest) -> bool {
    request.headers().contains_key(HEADER_WEBHOOK_SIGNATURE)
}

/// Whether somebody may request this for whatever they name.
fn all(action: ActionKind) -> Permission {
    let (verb, resource) = Verb::of(action);
    Permission { verb, resource, name: None }
}

/// Answers what the caller may request, so that the dashboard offers nothing else.
pub(super) async fn told(request: HttpRequest) -> HttpResponse {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    let door = request.app_data::<Data<Door>>().map(|door| door.get_ref());
    let (Some(caller), Some(Door::Main { reviews, .. })) = (caller, door) else {
        return HttpResponse::Ok().json(Access { user: None, may: Vec::new() });
    };
    let mut may = Vec::new();
    for action in
        [ActionKind::Replace, ActionKind::Return, ActionKind::Cancel, ActionKind::Pause, ActionKind::Resume]
    {
        match reviews.authorize(&caller, all(action)).await {
            Ok(()) => may.push(action),
            Err(Denial::Forbidden { .. }) => {}
            Err(refusal) => return refused(&request, &refusal),
        }
    }
    HttpResponse::Ok().json(Access { user: Some(caller.user.clone()), may })
}

/// A token that was let in, to be looked at again while it is used.
pub(super) struct Pass {
    reviews: Arc<Reviews>,
    token: String,
    question: Permission,
}

impl Pass {
    /// The token and the right of a request that was let in; `None` where nobody asks for one.
    pub(super) fn of(request: &HttpRequest, verb: Verb, resource: Resource) -> Option<Self> {
        let door = request.app_data::<Data<Door>>()?;
        let Door::Main { reviews, .. } = door.get_ref() else { return None };
        let token = bearer_token(request)?.to_owned();
        Some(Self { reviews: reviews.clone(), token, question: Permission { verb, resource, name: None } })
    }

    /// Whether the token is still good for it.
    ///
    /// # Errors
    /// Why it is not, or [`Denial::Unknown`] if the API server does not say.
    pub(super) async fn check(&self) -> Result<(), Denial> {
        let caller = self.reviews.authenticate(&self.token).await?;
        self.reviews.authorize(&caller, self.question.clone()).await
    }
}

/// The token of the header `Authorization` (RFC 6750, section 2.1).
fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A page from elsewhere whose name was made to mean this machine still asks under its own name.
fn names_this_machine(request: &HttpRequest) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<actix_web::http::uri::Authority>().ok())
    else {
        return false;
    };
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refused(request: &HttpRequest, refusal: &Denial) -> HttpResponse {
    let (reason, detail) = match refusal {
        Denial::NoToken => {
            (ProblemReason::TokenRequired, "a bearer token of the cluster is required".to_owned())
        }
        Denial::BadToken(why) => (ProblemReason::TokenInvalid, format!("the token is not valid: {why}")),
        Denial::Forbidden { user, question } => {
            let Permission { verb, resource, name } = question;
            let name = name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
            let detail = format!(
                "user {user:?} cannot {} {}.{}{name}",
                verb.as_str(),
                resource.as_str(),
                crate::crd::GROUP
            );
            (ProblemReason::Forbidden, detail)
        }
        Denial::Unknown => (
            ProblemReason::KubernetesUnavailable,
            "the Kubernetes API did not answer who the caller is and what the caller may do".to_owned(),
        ),
        Denial::ReadOnly => {
            (ProblemReason::ReadOnlyPort, "this port only reads; use the main port, with a token".to_owned())
        }
        Denial::ForeignHost => (
            ProblemReason::ForeignHost,
            "this port answers to host names of this machine only, such as localhost".to_owned(),
        ),
        Denial::Unencrypted => (
            ProblemReason::TlsRequired,
            "without TLS (setting tls) this port accepts tokens from loopback only".to_owned(),
        ),
    };
    let mut answer = problem::answer(reason, request, detail);
    let challenge = match refusal {
        Denial::NoToken => Some("Bearer realm=\"spot-guard\""),
        Denial::BadToken(_) => Some("Bearer realm=\"spot-guard\", error=\"invalid_token\""),
        _ => None,
    };
    if let Some(challenge) = challenge {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(challenge));
    }
    if *refusal == Denial::Unknown {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    answer
}
