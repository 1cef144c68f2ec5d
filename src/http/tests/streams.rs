//! Streams of events by token: how many one user has, and how long they last.

use super::access::{Served, Users, app, request};
use super::*;
use spot_guard_cloud::cluster::{OpenGate, RequestFate};

const PATH: &str = "/api/v1/events";

async fn served(users: &Users) -> Served {
    app(users.door(), users.client(Arc::new(OpenGate)), Fixture::with_a_fallback()).await
}

/// How long a stream lasts, if it ends within this time.
async fn lasts(body: &mut actix_web::body::BoxBody, at_most: Duration) -> Option<Duration> {
    let began = tokio::time::Instant::now();
    let all = async { while next_piece(body).await.is_some() {} };
    tokio::time::timeout(at_most, all).await.ok().map(|()| began.elapsed())
}

#[actix_web::test]
async fn one_user_has_few_streams_and_leaves_the_others_theirs() {
    tokio::time::pause();
    let users = Users::new();
    let served = served(&users).await;
    let open = async |token: &str| served.answer(request("GET", PATH, Some(token))).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(open("token-of-reader").await);
        assert_eq!(held.last().unwrap().status(), StatusCode::OK);
    }
    let refused = open("token-of-reader").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "1");
    let problem: Value = serde_json::from_slice(&read_body(refused).await).unwrap();
    assert_eq!(problem["reason"], "TooManyStreams");
    assert_eq!(problem["detail"], "4 streams of this user are open already");
    assert_eq!(open("token-of-operator").await.status(), StatusCode::OK);
    // A stream that is closed makes room at once.
    drop(held.pop());
    tokio::task::yield_now().await;
    assert_eq!(open("token-of-reader").await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn a_stream_ends_when_its_token_or_right_is_withdrawn() {
    tokio::time::pause();
    let users = Users::new();
    let served = served(&users).await;
    let answer = served.answer(request("GET", PATH, Some("token-of-reader"))).await;
    let mut body = answer.into_body();
    assert_eq!(lasts(&mut body, Duration::from_secs(600)).await, None, "it is good as long as the token is");
    users.may(|_, _| false);
    let took = lasts(&mut body, Duration::from_secs(600)).await.expect("it ends");
    assert!(took <= Duration::from_secs(90), "{took:?}");

    users.may(|_, _| true);
    // A no is remembered for a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut body = served.answer(request("GET", PATH, Some("token-of-reader"))).await.into_body();
    *users.gate.verdict.lock().unwrap() = Some(RequestFate::Drop);
    let took = lasts(&mut body, Duration::from_secs(600)).await.expect("it ends");
    let minutes = Duration::from_secs(150)..=Duration::from_secs(300);
    assert!(minutes.contains(&took), "an API server that is away for a minute ends none: {took:?}");
}
