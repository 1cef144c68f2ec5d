//! The clients of a cluster: who asks, and what stands between.

use super::answer::{Answer, Body, BoxError, connection_reset};
use super::apiserver::Call;
use super::discovery;
use super::handle::Cluster;
use super::refusal::refusal;
use super::request::{self, Identity, OpenGate, Query, RequestFate, RequestGate};
use super::watch::Watch;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;

impl Cluster {
    /// A client of the administrator. Needs a tokio runtime around it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_as(Identity::admin())
    }

    /// A client of somebody else.
    #[must_use]
    pub fn client_as(&self, by: Identity) -> kube::Client {
        self.client_through(by, Arc::new(OpenGate))
    }

    /// A client of the administrator behind a gate.
    #[must_use]
    pub fn client_with(&self, gate: Arc<dyn RequestGate>) -> kube::Client {
        self.client_through(Identity::admin(), gate)
    }

    /// A client with an identity, behind a gate.
    #[must_use]
    pub fn client_through(&self, by: Identity, gate: Arc<dyn RequestGate>) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (cluster, by, gate) = (cluster.clone(), by.clone(), Arc::clone(&gate));
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                cluster.serve(Request::from_parts(parts, body), &by, gate).await
            }
        });
        kube::Client::new(service, "default")
    }

    /// Answers one request from outside the process. A bearer token says who asks; without one it is the
    /// administrator, since whoever serves this on a port serves it to a demo.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Body> {
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let by = match token {
            None => Identity::admin(),
            Some(token) => match self.world().identity_of(token) {
                Ok(identity) => identity.clone(),
                Err(_) => return response(refusal(401, "Unauthorized", "Unauthorized").into()),
            },
        };
        match self.serve(request, &by, Arc::new(OpenGate)).await {
            Ok(answer) => answer,
            Err(error) => response(refusal(500, "InternalError", error.to_string()).into()),
        }
    }

    async fn serve(
        &self,
        request: Request<Bytes>,
        by: &Identity,
        gate: Arc<dyn RequestGate>,
    ) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let parsed = Query::parse(query).map(|query| (request::parse(&parts.method, path, &query), query));
        let (info, query) = match parsed {
            Ok((info, query)) => (info, query),
            Err(refusal) => return Ok(response(refusal.into())),
        };
        if let Some(answer) = discovery::respond(&self.world(), path) {
            return Ok(response(answer.unwrap_or_else(Answer::from)));
        }
        let info = match info {
            Ok(info) => info,
            Err(refusal) => return Ok(response(refusal.into())),
        };
        if let Some(answer) = pass(gate.before(&info)).await? {
            return Ok(answer);
        }
        let call = Call { info: &info, query: &query, headers: &parts.headers, body: &body, by };
        let (status, answer) = {
            let mut world = self.world();
            let allowed = world.authorize(&info, by);
            if info.verb == "watch" {
                match allowed.and_then(|()| Watch::open(self, &world, &call, Arc::clone(&gate))) {
                    Ok(watch) => (200, stream(watch)),
                    Err(refusal) => (refusal.code, response(refusal.into())),
                }
            } else {
                let answer = allowed.and_then(|()| world.respond(&call)).unwrap_or_else(Answer::from);
                (answer.code, response(answer))
            }
        };
        let mut answer = pass(gate.after(&info, status)).await?.unwrap_or(answer);
        // As each server of Go's net/http does (RFC 9110, section 6.6.1).
        let date = self.world().now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(date) = date.parse() {
            answer.headers_mut().insert(header::DATE, date);
        }
        Ok(answer)
    }
}

/// Carries out a verdict: an answer in its place, a broken connection, or nothing.
async fn pass(verdict: RequestFate) -> Result<Option<Response<Body>>, BoxError> {
    match verdict {
        RequestFate::Pass => Ok(None),
        RequestFate::Refuse(code, reason) => {
            let message = format!("refused with {reason}");
            Ok(Some(response(refusal(code, &reason, message).into())))
        }
        RequestFate::Drop => Err(connection_reset()),
        RequestFate::Delay(delay) => {
            tokio::time::sleep(delay).await;
            Ok(None)
        }
    }
}

fn response(answer: Answer) -> Response<Body> {
    let body = Full::new(answer.body).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = json_response(body);
    *response.status_mut() =
        http::StatusCode::from_u16(answer.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn stream(watch: Watch) -> Response<Body> {
    json_response(StreamBody::new(watch.into_frames()).boxed_unsync())
}

fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
