//! What is asked for becomes an object, once.

use super::access::{Served, Users, app, request};
use super::*;
use actix_web::FromRequest;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use spot_guard_cloud::cluster::{OpenGate, RequestFate};
use spot_guard_core::testing::node;

const FALLBACK: &str = "/api/v1/fallbacks/i-0000000000000000b/return";

/// A server that writes to a simulated cluster.
async fn served(users: &Users) -> Served {
    let cluster = Parts { nodes: vec![Arc::new(node("node-1"))], ..Parts::default() };
    app(users.door(), users.client(Arc::new(OpenGate)), Fixture { cluster, ..Fixture::with_a_fallback() })
        .await
}

fn ask(path: &str) -> TestRequest {
    request("POST", path, Some("token-of-operator"))
}

async fn json(response: ServiceResponse<BoxBody>) -> (u16, Option<String>, Value) {
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION).map(|place| place.to_str().unwrap().to_owned());
    let body = read_body(response).await;
    (status, location, serde_json::from_slice(&body).unwrap())
}

#[actix_web::test]
async fn each_spot_action_is_an_object_that_says_who_wants_what() {
    let users = Users::new();
    let served = served(&users).await;
    for (path, spec) in [
        ("/api/v1/nodes/node-1/replace", json!({ "action": "Replace", "node": "node-1" })),
        (FALLBACK, json!({ "action": "Return", "replacement": "i-0000000000000000b" })),
        (
            "/api/v1/replacements/i-0000000000000000b/cancel",
            json!({ "action": "Cancel", "replacement": "i-0000000000000000b" }),
        ),
        ("/api/v1/pools/web/pause", json!({ "action": "Pause", "pool": "web" })),
        ("/api/v1/pools/web/resume", json!({ "action": "Resume", "pool": "web" })),
        ("/api/v1/pause", json!({ "action": "Pause" })),
        ("/api/v1/resume", json!({ "action": "Resume" })),
    ] {
        let asked =
            ask(path).insert_header(("traceparent", TRACEPARENT)).set_json(json!({ "reason": "a drill" }));
        let (status, location, told) = json(served.answer(asked).await).await;
        assert_eq!(status, 202, "{path}: {told}");
        let location = location.unwrap();
        let name = location.strip_prefix("/api/v1/spotactions/").unwrap();
        let stored: SpotAction = kube::Api::all(users.client(Arc::new(OpenGate)))
            .get(name)
            .await
            .expect("it is stored under that name");
        let mut expected = spec.clone();
        expected["requestedBy"] = json!("operator");
        expected["reason"] = json!("a drill");
        expected["traceparent"] = json!(TRACEPARENT);
        assert_eq!(serde_json::to_value(&stored.spec).unwrap(), expected);
        let (status, _, shown) =
            json(served.answer(request("GET", &location, Some("token-of-reader"))).await).await;
        assert_eq!((status, &shown), (200, &told));
        assert_eq!((&told["name"], &told["conditions"]), (&json!(name), &json!([])));
    }
}

#[actix_web::test]
async fn without_a_body_there_is_no_reason_and_every_request_is_a_new_one() {
    let users = Users::new();
    let served = served(&users).await;
    let (status, first, told) = json(served.answer(ask(FALLBACK)).await).await;
    assert_eq!((status, &told["reason"]), (202, &Value::Null));
    let (_, second, _) = json(served.answer(ask(FALLBACK)).await).await;
    assert_ne!(first, second);
    let (_, _, told) = json(served.answer(ask(FALLBACK).set_json(json!({}))).await).await;
    assert_eq!(told["reason"], Value::Null);
}

#[actix_web::test]
async fn a_key_makes_one_object_of_many_requests_of_one_user() {
    let users = Users::new();
    users.may(|_, _| true);
    let (served, other_replica) = (served(&users).await, self::served(&users).await);
    let keyed = |path: &str, key: &str| ask(path).insert_header(("Idempotency-Key", key));
    let (status, first, told) = json(served.answer(keyed(FALLBACK, "one")).await).await;
    assert_eq!(status, 202);
    let (status, again, same) = json(other_replica.answer(keyed(FALLBACK, "one")).await).await;
    assert_eq!((status, &again, &same), (202, &first, &told));
    let (status, _, problem) = json(served.answer(keyed("/api/v1/pause", "one")).await).await;
    assert_eq!((status, &problem["reason"]), (422, &json!("KeyTaken")));
    assert_eq!(
        problem["errors"][0],
        json!({ "field": "Idempotency-Key", "detail": "it was used for another request" })
    );
    let (status, _, _) =
        json(served.answer(keyed(FALLBACK, "one").set_json(json!({ "reason": "else" }))).await).await;
    assert_eq!(status, 422, "another reason is another request");
    let (_, second, _) = json(served.answer(keyed(FALLBACK, "two")).await).await;
    assert_ne!(second, first);
    let by_other =
        request("POST", FALLBACK, Some("token-of-other")).insert_header(("Idempotency-Key", "one"));
    let (status, third, _) = json(served.answer(by_other).await).await;
    assert_eq!(status, 202);
    assert_ne!(third, first, "keys are each user's own");
    assert_eq!(users.cluster.list::<SpotAction>().len(), 3);
}

#[actix_web::test]
async fn what_is_asked_wrongly_is_named_and_nothing_is_written() {
    let users = Users::new();
    let served = served(&users).await;
    let json_body = |text: &str| {
        ask(FALLBACK).insert_header((header::CONTENT_TYPE, "application/json")).set_payload(text.to_owned())
    };
    let keyed = |key: &[u8]| {
        let key = header::HeaderValue::from_bytes(key).unwrap();
        ask(FALLBACK).insert_header((header::HeaderName::from_static("idempotency-key"), key))
    };
    for (asked, status, field, detail) in [
        (json_body("{\"why\": 1}"), 400, "why", "there is no such field; there are: reason"),
        (json_body("{\"reason\": 1}"), 400, "reason", "it is no text"),
        (json_body("{\"reason\": null}"), 400, "reason", "it is no text"),
        (json_body(&json!({ "reason": "x".repeat(1025) }).to_string()), 400, "reason", "longer than 1024"),
        (json_body("[]"), 400, "body", "it is no object"),
        (json_body("{\"reason\""), 400, "body", "it is no JSON"),
        (json_body("\u{0}"), 400, "body", "it is no JSON"),
        (json_body(&" ".repeat(17_000)), 413, "", "the body is longer than 16384 bytes"),
        (ask(FALLBACK).set_payload("reason=drill"), 415, "", "application/json"),
        (keyed(b""), 400, "Idempotency-Key", "1 to 255"),
        (keyed("x".repeat(256).as_bytes()), 400, "Idempotency-Key", "1 to 255"),
        (keyed(b"caf\xe9"), 400, "Idempotency-Key", "visible ones of ASCII"),
        (
            keyed(b"a").append_header(("Idempotency-Key", "b")),
            400,
            "Idempotency-Key",
            "it stands there twice",
        ),
        (ask("/api/v1/pause?pool=web"), 400, "pool", "there is no such parameter"),
        (ask("/api/v1/pools/No_Name/pause"), 400, "name", "not a Kubernetes name"),
        (ask("/api/v1/pools/none/pause"), 404, "", "no pool is named none"),
        (ask("/api/v1/nodes/none/replace"), 404, "", "no node of the cluster is named none"),
        (ask("/api/v1/fallbacks/i-0000000000000000a/return"), 404, "", "no open fallback is named"),
        (ask("/api/v1/replacements/none/cancel"), 404, "", "no replacement is named none"),
    ] {
        let (found, _, problem) = json(served.answer(asked).await).await;
        assert_eq!(found, status, "{detail}: {problem}");
        let reason = match status {
            400 => "InvalidField",
            404 => "NoSuchObject",
            413 => "BodyTooLong",
            _ => "BodyNotJson",
        };
        assert_eq!(problem["reason"], reason, "{problem}");
        assert_eq!(problem["errors"][0]["field"].as_str().unwrap_or_default(), field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    assert!(users.cluster.list::<SpotAction>().is_empty());
}

#[actix_web::test]
async fn an_api_server_that_stores_nothing_is_told_of() {
    tokio::time::pause();
    let users = Users::new();
    let gate = Arc::new(access::Counting::default());
    *gate.verdict.lock().unwrap() = Some(RequestFate::Delay(Duration::from_secs(3600)));
    let served = app(users.door(), users.client(gate.clone()), Fixture::with_a_fallback()).await;
    let (status, _, problem) = json(served.answer(ask(FALLBACK)).await).await;
    assert_eq!(
        (status, &problem["detail"]),
        (503, &json!("the Kubernetes API did not store the SpotAction"))
    );
    assert_eq!(problem["reason"], "KubernetesUnavailable");
    *gate.verdict.lock().unwrap() = Some(RequestFate::Refuse(403, "Forbidden".to_owned()));
    assert_eq!(json(served.answer(ask(FALLBACK)).await).await.0, 503);
    let path = "/api/v1/spotactions/key-1";
    assert_eq!(json(served.answer(request("GET", path, Some("token-of-reader"))).await).await.0, 503);
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_not_waited_for_for_ever() {
    tokio::time::pause();
    let request = TestRequest::post().uri("/api/v1/pause").to_http_request();
    let mut never: actix_web::dev::Payload =
        actix_web::dev::Payload::Stream { payload: Box::pin(futures::stream::pending()) };
    let body = web::Payload::from_request(&request, &mut never).await.unwrap();
    let began = tokio::time::Instant::now();
    let refused = super::super::spot_actions::reason(&request, body).await.unwrap_err();
    assert_eq!(refused.to_string(), "the body did not arrive within 5 s");
    assert!(began.elapsed() < Duration::from_secs(6));
}
