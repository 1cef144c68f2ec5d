//! Questions to the API server: whose token is it (TokenReview), and may they (SubjectAccessReview)?
//!
//! Answers are remembered for a few seconds, by a hash of the token. An API server that does not answer lets
//! nobody in but who is remembered.

use super::cache::Cache;
use crate::crd::GROUP;
use crate::http::rights::{Denial, Permission};
use crate::kube::problem::RequestProblem;
use crate::telemetry::metrics::{Metrics, Review, ReviewResult};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a yes is remembered: so long a token that was withdrawn, or a right, still counts.
const YES_LIFE: Duration = Duration::from_secs(10);
/// How long a no is remembered: so long a right that was just given does not count.
const NO_LIFE: Duration = Duration::from_secs(2);
/// Answers that are remembered, of each kind.
const REMEMBERED: usize = 2_000;
/// Questions that are asked at the same time.
const AT_A_TIME: usize = 16;
/// How long an answer may take, waiting for one's turn included.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest token that is asked about, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// The audience of tokens that are made for Spot Guard: the API server itself takes none of them, so who gets
/// hold of one can do nothing else with it. Tokens of the API server's own audience are taken, too; those of
/// any other are not.
pub const AUDIENCE: &str = "spot-guard.spotguard.dev";

type Digest = [u8; 32];

/// Who asks, as the API server knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the user.
    pub user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
    token: Digest,
}

/// Asks the API server, and remembers.
pub struct Reviews {
    client: Client,
    metrics: Arc<Metrics>,
    callers: Cache<Digest, Result<Arc<Caller>, String>>,
    rights: Cache<(Digest, Permission), bool>,
    turns: Semaphore,
}

impl Reviews {
    /// Asks by this client, whose account must be allowed to create token reviews and subject access reviews.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            callers: Cache::new(REMEMBERED),
            rights: Cache::new(REMEMBERED),
            turns: Semaphore::new(AT_A_TIME),
        }
    }

    /// Whose token it is.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Arc<Caller>, Denial> {
        if token.len() > MAX_TOKEN {
            return Err(Denial::BadToken(format!("it is longer than {MAX_TOKEN} bytes")));
        }
        let mut key = Digest::default();
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.callers.get(&key) {
            return known.map_err(Denial::BadToken);
        }
        // Without audiences the API server checks for its own, whose names nobody else knows.
        let audiences = is_for_us(token).then(|| vec![AUDIENCE.to_owned()]);
        let for_us = audiences.is_some();
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences },
            ..TokenReview::default()
        };
        let status = self.ask(Review::Token, &review).await?.status.unwrap_or_default();
        let user = status.user.unwrap_or_default();
        let confirmed = status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE);
        let found = match (status.authenticated, user.username) {
            // An authenticator that knows of no audiences says so by leaving them out
            // (TokenReviewStatus.audiences).
            (Some(true), _) if for_us && !confirmed => {
                Err(format!("the cluster does not say that it is meant for {AUDIENCE}"))
            }
            (Some(true), Some(name)) if !name.is_empty() => Ok(Arc::new(Caller {
                user: name,
                uid: user.uid,
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
                token: key,
            })),
            _ => Err(status.error.unwrap_or_else(|| "the cluster does not know it".to_owned())),
        };
        self.answered(Review::Token, found.is_ok());
        self.callers.put(key, found.clone(), life(found.is_ok()));
        found.map_err(Denial::BadToken)
    }

    /// Whether they may.
    pub(super) async fn authorize(&self, caller: &Caller, question: Permission) -> Result<(), Denial> {
        let key = (caller.token, question);
        let allowed = if let Some(known) = self.rights.get(&key) {
            known
        } else {
            let status =
                self.ask(Review::Access, &access_review(caller, &key.1)).await?.status.unwrap_or_default();
            let allowed = status.allowed && status.denied != Some(true);
            self.answered(Review::Access, allowed);
            self.rights.put(key.clone(), allowed, life(allowed));
            allowed
        };
        if allowed { Ok(()) } else { Err(Denial::Forbidden { user: caller.user.clone(), question: key.1 }) }
    }

    async fn ask<K>(&self, kind: Review, review: &K) -> Result<K, Denial>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let answer = tokio::time::timeout(LIMIT, async {
            let _turn = self.turns.acquire().await;
            api.create(&PostParams::default(), review).await
        });
        let why = match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => RequestProblem(&error).to_string(),
            Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
        };
        tracing::warn!(review = ?kind, error = why, "a caller could not be reviewed");
        self.metrics.review(kind, ReviewResult::Failed);
        Err(Denial::Unknown)
    }

    fn answered(&self, kind: Review, yes: bool) {
        self.metrics.review(kind, if yes { ReviewResult::Allowed } else { ReviewResult::Denied });
    }
}

/// Whether the token itself says that it is for us (RFC 7519, section 4.1.3). That decides what the API
/// server is asked, and nothing else: it verifies what it is asked.
fn is_for_us(token: &str) -> bool {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    match claims.as_ref().and_then(|claims| claims.get("aud")) {
        Some(Value::String(audience)) => audience == AUDIENCE,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == AUDIENCE),
        _ => false,
    }
}

fn life(yes: bool) -> Duration {
    if yes { YES_LIFE } else { NO_LIFE }
}

fn access_review(caller: &Caller, question: &Permission) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            uid: caller.uid.clone(),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(question.resource.as_str().to_owned()),
                verb: Some(question.verb.as_str().to_owned()),
                name: question.name.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
