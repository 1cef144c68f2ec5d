//! Every route from the front door: who gets in, and who does not.

use super::*;
use crate::clock::Clock;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use spot_guard_cloud::cluster::{Cluster, Identity, OpenGate, RequestFate, RequestGate, RequestInfo};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a route needs, written down a second time.
#[derive(Clone, Copy, Debug)]
enum Needs {
    /// Nothing, and not to be had at the main port.
    Probe,
    Nothing,
    AnyToken,
    /// To all of them.
    Right(&'static str, &'static str),
    /// To the one of that name.
    RightTo(&'static str, &'static str),
}
use Needs::{AnyToken, Nothing, Probe, Right, RightTo};

/// A fallback that is there.
const NAME: &str = "i-0000000000000000b";

/// Every route: method, path, what it needs, and what somebody who may gets.
const ROWS: &[(&str, &str, Needs, u16)] = &[
    ("GET", "/healthz", Probe, 200),
    ("GET", "/readyz", Probe, 200),
    ("GET", "/metrics", Probe, 200),
    ("GET", "/", Nothing, 200),
    ("GET", "/dashboard/style.css", Nothing, 200),
    ("GET", "/dashboard/icon.svg", Nothing, 200),
    ("GET", "/dashboard/app.js", Nothing, 200),
    ("GET", "/docs", Nothing, 200),
    ("GET", "/docs/docs.js", Nothing, 200),
    ("GET", "/api/v1/openapi.json", Nothing, 200),
    ("GET", "/api/v1/access", AnyToken, 200),
    ("POST", "/webhooks/v1/scale-down", Right("return", "nodereplacements"), 400),
    ("GET", "/api/v1/status", Right("list", "spotpools"), 200),
    ("GET", "/api/v1/events", Right("list", "nodereplacements"), 200),
    ("POST", "/api/v1/pause", Right("pause", "spotpools"), 202),
    ("POST", "/api/v1/resume", Right("pause", "spotpools"), 202),
    ("GET", "/api/v1/pools", Right("list", "spotpools"), 200),
    ("GET", "/api/v1/pools/{name}", RightTo("get", "spotpools"), 404),
    ("GET", "/api/v1/pools/{name}/history", RightTo("get", "spotpools"), 404),
    ("POST", "/api/v1/pools/{name}/pause", RightTo("pause", "spotpools"), 404),
    ("POST", "/api/v1/pools/{name}/resume", RightTo("pause", "spotpools"), 404),
    ("GET", "/api/v1/savings", Right("list", "spotpools"), 200),
    ("GET", "/api/v1/nodes", Right("list", "nodereplacements"), 200),
    ("GET", "/api/v1/nodes/{name}", Right("list", "nodereplacements"), 404),
    ("GET", "/api/v1/nodes/{name}/safety", Right("list", "nodereplacements"), 404),
    ("POST", "/api/v1/nodes/{name}/replace", Right("replace", "nodereplacements"), 404),
    ("GET", "/api/v1/notices", Right("list", "interruptionnotices"), 200),
    ("GET", "/api/v1/notices/{name}", RightTo("get", "interruptionnotices"), 404),
    ("GET", "/api/v1/replacements", Right("list", "nodereplacements"), 200),
    ("GET", "/api/v1/replacements/{name}", RightTo("get", "nodereplacements"), 200),
    ("GET", "/api/v1/replacements/{name}/timeline", RightTo("get", "nodereplacements"), 200),
    ("POST", "/api/v1/replacements/{name}/cancel", RightTo("cancel", "nodereplacements"), 202),
    ("GET", "/api/v1/fallbacks", Right("list", "nodereplacements"), 200),
    ("GET", "/api/v1/fallbacks/{name}", RightTo("get", "nodereplacements"), 200),
    ("POST", "/api/v1/fallbacks/{name}/return", RightTo("return", "nodereplacements"), 202),
    ("GET", "/api/v1/spotactions", Right("list", "spotactions"), 200),
    ("GET", "/api/v1/spotactions/{name}", RightTo("get", "spotactions"), 404),
];

/// A cluster with the account of the controller and some users, whose rights each test sets.
pub(super) struct Users {
    pub(super) cluster: Cluster,
    pub(super) gate: Arc<Counting>,
}

/// Counts the reviews, and answers for the API server if told so.
#[derive(Default)]
pub(super) struct Counting {
    asked: AtomicUsize,
    pub(super) verdict: Mutex<Option<RequestFate>>,
}

impl RequestGate for Counting {
    fn before(&self, _: &RequestInfo) -> RequestFate {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.verdict.lock().unwrap().clone().unwrap_or(RequestFate::Pass)
    }
}

impl Users {
    pub(super) fn new() -> Self {
        let cluster = Cluster::new(Clock::System.into(), 1);
        let user = |name: &str| Identity {
            user: name.to_owned(),
            groups: vec!["team".to_owned()],
            ..Identity::default()
        };
        for name in ["reader", "operator", "stranger", "other"] {
            cluster.add_token(&format!("token-of-{name}"), user(name));
        }
        cluster.add_token_until("expired", user("operator"), Clock::System.now());
        let users = Self { cluster, gate: Arc::default() };
        users.may(|user, info| match user {
            "operator" => true,
            "reader" => ["get", "list"].contains(&info.verb.as_str()),
            _ => false,
        });
        users
    }

    /// Sets the rights of the users; the controller's account may review and request, and nothing else.
    pub(super) fn may(&self, policy: impl Fn(&str, &RequestInfo) -> bool + Send + Sync + 'static) {
        self.cluster.set_policy(move |by, info| {
            if by.user == "system:serviceaccount:spot-guard:spot-guard-controller" {
                let may = [
                    "create tokenreviews",
                    "create subjectaccessreviews",
                    "create spotactions",
                    "get spotactions",
                ];
                return may.contains(&&*format!("{} {}", info.verb, info.resource));
            }
            by.groups == ["team"] && info.group == "spotguard.dev" && policy(&by.user, info)
        });
    }

    /// The controller's client, behind a gate.
    pub(super) fn client(&self, gate: Arc<dyn RequestGate>) -> Client {
        self.cluster.client_through(Identity::service_account("spot-guard", "spot-guard-controller"), gate)
    }

    pub(super) fn door(&self) -> Door {
        let client = self.client(self.gate.clone());
        Door::Main { reviews: Arc::new(Reviews::new(client, Arc::new(Metrics::new()))), tls: None }
    }

    async fn app(&self, door: Door) -> Served {
        app(door, self.client(Arc::new(OpenGate)), Fixture::with_a_fallback()).await
    }

    fn reviews(&self) -> usize {
        self.gate.asked.load(Ordering::Relaxed)
    }
}

/// A server behind a door.
pub(super) struct Served(Box<dyn Fn(TestRequest) -> LocalBoxFuture<'static, ServiceResponse<BoxBody>>>);

impl Served {
    pub(super) async fn answer(&self, request: TestRequest) -> ServiceResponse<BoxBody> {
        (self.0)(request).await
    }
}

/// A server behind a door, that writes by this client.
pub(super) async fn app(door: Door, client: Client, fixture: Fixture) -> Served {
    let state = Fixture { client: Some(client), ..fixture }.state().await;
    let app = Rc::new(init_service(App::new().configure(|cfg| routes(cfg, state, door))).await);
    Served(Box::new(move |request| {
        let app = app.clone();
        async move { call_service(&*app, request.to_request()).await }.boxed_local()
    }))
}

pub(super) fn request(method: &str, path: &str, token: Option<&str>) -> TestRequest {
    let request = TestRequest::with_uri(&path.replace("{name}", NAME))
        .method(method.parse().unwrap())
        .peer_addr("127.0.0.1:4000".parse().unwrap());
    match token {
        Some(token) => request.insert_header((header::AUTHORIZATION, format!("Bearer {token}"))),
        None => request,
    }
}

async fn status(app: &Served, request: TestRequest) -> u16 {
    app.answer(request).await.status().as_u16()
}

#[actix_web::test]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let rows: Vec<(&str, &str)> = ROWS.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let endpoints: Vec<(&str, &str)> =
        routes::ENDPOINTS.iter().map(|endpoint| (endpoint.method.name(), endpoint.path)).collect();
    assert_eq!(rows.len(), endpoints.len(), "a row for each route: {endpoints:?}");
    for endpoint in endpoints {
        assert!(rows.contains(&endpoint), "no row for {endpoint:?}");
    }
    for (method, path, needs, found) in ROWS {
        let users = Users::new();
        let app = users.app(users.door()).await;
        let reads = *method == "GET";
        let expected = |without: u16, no_right: u16, reader: u16| match needs {
            Probe => [404; 6],
            Nothing => [*found; 6],
            AnyToken => [without, without, without, *found, *found, *found],
            Right(..) | RightTo(..) => [without, without, without, no_right, reader, *found],
        };
        let mut seen = Vec::new();
        let tokens = [
            None,
            Some("bad"),
            Some("expired"),
            Some("token-of-stranger"),
            Some("token-of-reader"),
            Some("token-of-operator"),
        ];
        for token in tokens {
            seen.push(status(&app, request(method, path, token)).await);
        }
        assert_eq!(seen, expected(401, 403, if reads { *found } else { 403 }), "{method} {path}");
        // Whoever has this very right gets in, and whoever has every other right does not.
        if let Right(verb, resource) | RightTo(verb, resource) = *needs {
            let name = matches!(needs, RightTo(..)).then(|| NAME.to_owned());
            users.may(move |user, info| {
                let this = (&*info.verb, &*info.resource, &info.name) == (verb, resource, &name);
                this == (user == "stranger")
            });
            let app = users.app(users.door()).await;
            for (token, expected) in [("token-of-stranger", *found), ("token-of-other", 403)] {
                assert_eq!(
                    status(&app, request(method, path, Some(token))).await,
                    expected,
                    "{token} {method} {path}"
                );
            }
        }
        // The port for probes answers them, and nothing else to anybody.
        let probes = users.app(Door::Probes).await;
        for token in [None, Some("token-of-operator")] {
            let expected = if matches!(needs, Probe) { *found } else { 404 };
            assert_eq!(status(&probes, request(method, path, token)).await, expected, "{path}");
        }
        // The local door reads without a token, and does nothing else.
        let local = users.app(Door::Local).await;
        assert_eq!(
            status(&local, request(method, path, None)).await,
            if reads { *found } else { 403 },
            "{path}"
        );
    }
}

#[actix_web::test]
async fn a_refusal_says_what_is_missing() {
    let users = Users::new();
    let app = users.app(users.door()).await;
    for (token, challenge, reason, detail) in [
        (
            None,
            Some("Bearer realm=\"spot-guard\""),
            "TokenRequired",
            "a bearer token of the cluster is required",
        ),
        (
            Some("bad"),
            Some("Bearer realm=\"spot-guard\", error=\"invalid_token\""),
            "TokenInvalid",
            "the token is not valid: invalid bearer token",
        ),
        (
            Some("token-of-stranger"),
            None,
            "Forbidden",
            "user \"stranger\" cannot get nodereplacements.spotguard.dev \"i-0000000000000000b\"",
        ),
    ] {
        let response = app.answer(request("GET", "/api/v1/fallbacks/{name}", token)).await;
        let told =
            response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told.as_deref(), challenge);
        let problem: Value = serde_json::from_slice(&read_body(response).await).unwrap();
        assert_eq!((&problem["reason"], &problem["detail"]), (&json!(reason), &json!(detail)));
    }
    for (scheme, expected) in [("bearer token-of-reader", 200), ("Basic cmVhZGVyOng=", 401), ("Bearer ", 401)]
    {
        let request = request("GET", "/api/v1/pools", None).insert_header((header::AUTHORIZATION, scheme));
        assert_eq!(status(&app, request).await, expected, "{scheme}");
    }
    let long = "x".repeat(9000);
    let before = users.reviews();
    assert_eq!(status(&app, request("GET", "/api/v1/access", Some(&long))).await, 401);
    assert_eq!(users.reviews(), before, "nobody is asked about it");
}

#[actix_web::test]
async fn answers_are_remembered_for_their_time() {
    tokio::time::pause();
    let users = Users::new();
    let app = users.app(users.door()).await;
    let ask = async |token: &str| status(&app, request("GET", "/api/v1/pools", Some(token))).await;
    assert_eq!((ask("token-of-reader").await, users.reviews()), (200, 2));
    assert_eq!((ask("token-of-reader").await, users.reviews()), (200, 2));
    assert_eq!((ask("token-of-stranger").await, users.reviews()), (403, 4));
    assert_eq!((ask("bad").await, users.reviews()), (401, 5));
    users.may(|user, _| user == "stranger");
    tokio::time::advance(Duration::from_millis(1_900)).await;
    assert_eq!((ask("token-of-stranger").await, ask("bad").await, users.reviews()), (403, 401, 5));
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!((ask("token-of-stranger").await, users.reviews()), (200, 6), "a no is forgotten first");
    assert_eq!((ask("token-of-reader").await, users.reviews()), (200, 6));
    tokio::time::advance(Duration::from_secs(8)).await;
    assert_eq!((ask("token-of-reader").await, users.reviews()), (403, 8), "then a yes");
}

#[actix_web::test]
async fn an_api_server_that_does_not_answer_lets_nobody_in() {
    tokio::time::pause();
    let verdicts = [
        RequestFate::Drop,
        RequestFate::Refuse(500, "InternalError".to_owned()),
        RequestFate::Refuse(403, "Forbidden".to_owned()),
        RequestFate::Delay(Duration::from_secs(3600)),
    ];
    for verdict in verdicts {
        let users = Users::new();
        *users.gate.verdict.lock().unwrap() = Some(verdict.clone());
        let app = users.app(users.door()).await;
        let began = tokio::time::Instant::now();
        let asked = request("GET", "/api/v1/pools", Some("token-of-operator"));
        let response = app.answer(asked).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{verdict:?}");
        assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
        assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
        let probes = users.app(Door::Probes).await;
        assert_eq!(status(&probes, request("GET", "/readyz", None)).await, 200, "probes do not depend on it");
        // Nothing of it is remembered.
        *users.gate.verdict.lock().unwrap() = None;
        assert_eq!(status(&app, request("GET", "/api/v1/pools", Some("token-of-operator"))).await, 200);
    }
}

#[actix_web::test]
async fn a_flood_of_tokens_asks_no_more_than_a_few_at_a_time() {
    tokio::time::pause();
    let users = Users::new();
    *users.gate.verdict.lock().unwrap() = Some(RequestFate::Delay(Duration::from_secs(3600)));
    let app = users.app(users.door()).await;
    let tokens: Vec<String> = (0..100).map(|number| format!("token-{number}")).collect();
    let asked = tokens.iter().map(|token| status(&app, request("GET", "/api/v1/access", Some(token))));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    assert_eq!(users.reviews(), 16);
}

#[actix_web::test]
async fn without_tls_tokens_are_taken_from_loopback_only() {
    let users = Users::new();
    let app = users.app(users.door()).await;
    for (peer, path, expected) in [
        ("10.0.0.7:4000", "/api/v1/pools", 403),
        ("10.0.0.7:4000", "/docs", 200),
        ("[::1]:4000", "/api/v1/pools", 200),
        ("[::ffff:127.0.0.1]:4000", "/api/v1/pools", 200),
        ("[2001:db8::1]:4000", "/api/v1/pools", 403),
    ] {
        let before = users.reviews();
        let asked = request("GET", path, Some("token-of-operator")).peer_addr(peer.parse().unwrap());
        let response = app.answer(asked).await;
        assert_eq!(response.status().as_u16(), expected, "{peer} {path}");
        if expected == 403 {
            let problem: Value = serde_json::from_slice(&read_body(response).await).unwrap();
            assert_eq!(problem["reason"], "TlsRequired");
            assert_eq!(
                problem["detail"],
                "without TLS (setting tls) this port accepts tokens from loopback only"
            );
            assert_eq!(users.reviews(), before, "the token goes nowhere");
        }
    }
}

#[actix_web::test]
async fn the_local_door_does_not_answer_to_foreign_names() {
    let app = Users::new().app(Door::Local).await;
    for (host, expected) in [
        ("localhost:8081", 200),
        ("127.0.0.1", 200),
        ("[::1]:8081", 200),
        ("LOCALHOST", 200),
        ("spot-guard.example:8081", 403),
        ("127.0.0.1.example", 403),
        ("10.0.0.1:8081", 403),
        ("", 403),
    ] {
        for (method, path, _, found) in ROWS {
            // It only reads, so what asks for something is refused in any case.
            let expected = if *method == "POST" || expected == 403 { 403 } else { *found };
            let asked = request(method, path, None).insert_header((header::HOST, host));
            assert_eq!(status(&app, asked).await, expected, "{host} {method} {path}");
        }
    }
}

#[actix_web::test]
async fn what_a_caller_may_request_is_told_verb_by_verb() {
    let users = Users::new();
    for (verb, resource, may) in [
        ("replace", "nodereplacements", json!(["Replace"])),
        ("return", "nodereplacements", json!(["Return"])),
        ("cancel", "nodereplacements", json!(["Cancel"])),
        ("pause", "spotpools", json!(["Pause", "Resume"])),
        ("update", "nodereplacements", json!([])),
        ("update", "spotpools", json!([])),
        ("patch", "spotpools", json!([])),
        ("replace", "spotpools", json!([])),
    ] {
        users.may(move |_, info| (&*info.verb, &*info.resource) == (verb, resource));
        let app = users.app(users.door()).await;
        let answer = app.answer(request("GET", "/api/v1/access", Some("token-of-other"))).await;
        let told: Value = serde_json::from_slice(&read_body(answer).await).unwrap();
        assert_eq!(told, json!({ "user": "other", "may": may }), "{verb} {resource}");
    }
}

/// A token of a user of the cluster that says whom it is for.
fn token_for(audiences: &Value) -> String {
    use base64::Engine;
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmVk", part(json!({ "alg": "none" })), part(json!({ "aud": audiences, "sub": "x" })))
}

#[actix_web::test]
async fn tokens_of_our_own_audience_are_asked_about_as_such() {
    use crate::http::AUDIENCE;
    use k8s_openapi::api::authentication::v1::TokenReview;
    // An API server that confirms what it is told to, whatever the token.
    for (audiences, confirms, asked, expected) in [
        (json!(AUDIENCE), json!([AUDIENCE]), Some(vec![AUDIENCE.to_owned()]), 200),
        (
            json!(["https://kubernetes.default.svc", AUDIENCE]),
            json!([AUDIENCE]),
            Some(vec![AUDIENCE.to_owned()]),
            200,
        ),
        // One that does not look at audiences, or at others.
        (json!(AUDIENCE), json!(null), Some(vec![AUDIENCE.to_owned()]), 401),
        (json!([AUDIENCE]), json!(["https://kubernetes.default.svc"]), Some(vec![AUDIENCE.to_owned()]), 401),
        // Of any other audience, which is the API server's own or is refused by it.
        (json!("https://kubernetes.default.svc"), json!(null), None, 200),
        (json!(["vault"]), json!([]), None, 200),
        (json!(7), json!(null), None, 200),
    ] {
        let seen = Arc::new(Mutex::new(None));
        let questions = seen.clone();
        let server = tower::service_fn(move |request: ::http::Request<kube::client::Body>| {
            let (questions, confirms) = (questions.clone(), confirms.clone());
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let Ok(mut review) = serde_json::from_slice::<TokenReview>(&body) else {
                    return Err("no more is known");
                };
                *questions.lock().unwrap() = Some(review.spec.audiences.clone());
                let status =
                    json!({ "authenticated": true, "user": { "username": "script" }, "audiences": confirms });
                review.status = Some(serde_json::from_value(status).unwrap());
                let body = serde_json::to_vec(&review).unwrap();
                Ok(::http::Response::new(kube::client::Body::from(body)))
            }
        });
        let client = Client::new(server, "default");
        let reviews = Arc::new(Reviews::new(client, Arc::new(Metrics::new())));
        let app = app(Door::Main { reviews, tls: None }, nobody(), Fixture::empty()).await;
        let token = token_for(&audiences);
        // What the user may do is asked next, which this server does not answer.
        let expected = if expected == 200 { 503 } else { expected };
        assert_eq!(
            status(&app, request("GET", "/api/v1/access", Some(&token))).await,
            expected,
            "{audiences}"
        );
        assert_eq!(*seen.lock().unwrap(), Some(asked), "{audiences}");
    }
}
