//! IMDSv2 through the SDK's own client, and its refusals.

use super::*;
use aws_config::imds::client::error::ImdsError;
use bytes::Bytes;
use http::{Request, StatusCode};

const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const ACTION: &str = "/latest/meta-data/spot/instance-action";

fn status(error: &ImdsError) -> u16 {
    match error {
        ImdsError::ErrorResponse(context) => context.response().status().as_u16(),
        other => panic!("no answer: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn notices_appear_and_stay() {
    let stage = stage([spot()]);
    let id = stage.ids("spot")[0].clone();
    let imds = stage.cloud.imds_client(&id, None);
    for path in [REBALANCE, ACTION] {
        assert_eq!(status(&imds.get(path).await.unwrap_err()), 404);
    }
    stage.cloud.rebalance(&id).unwrap();
    stage.cloud.interrupt(&id).unwrap();
    seconds(60).await;
    stage.cloud.rebalance(&id).unwrap();
    let body = imds.get(REBALANCE).await.unwrap();
    assert_eq!(body.as_ref(), r#"{"noticeTime": "2026-01-05T08:00:00Z"}"#);
    let body = imds.get(ACTION).await.unwrap();
    assert_eq!(body.as_ref(), r#"{"action": "terminate", "time": "2026-01-05T08:02:00Z"}"#);
}

#[tokio::test(start_paused = true)]
async fn the_instance_describes_itself() {
    let stage = stage([spot()]);
    seconds(1).await;
    let instance = stage.group("spot").instances.remove(0);
    let imds = stage.cloud.imds_client(&instance.id, None);
    let expected = [
        ("instance-id", instance.id.as_str()),
        ("instance-type", "m5.xlarge"),
        ("instance-life-cycle", "spot"),
        ("placement/availability-zone", "us-east-1a"),
        ("placement/region", "us-east-1"),
        ("local-hostname", &instance.node_name),
        ("autoscaling/target-lifecycle-state", "InService"),
    ];
    for (item, value) in expected {
        let body = imds.get(format!("/latest/meta-data/{item}")).await.unwrap();
        assert_eq!(body.as_ref(), value, "{item}");
    }
    let document = imds.get("/latest/dynamic/instance-identity/document").await.unwrap();
    let document: serde_json::Value = serde_json::from_str(document.as_ref()).unwrap();
    assert_eq!(document["instanceId"], instance.id.as_str());
}

#[tokio::test(start_paused = true)]
async fn the_clients_token_is_renewed_on_simulated_time() {
    let stage = stage([spot()]);
    let id = stage.ids("spot")[0].clone();
    let imds = stage.cloud.imds_client(&id, None);
    for _ in 0..20 {
        imds.get("/latest/meta-data/instance-id").await.unwrap();
        seconds(3600).await;
    }
}

async fn raw(
    stage: &Stage,
    id: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Bytes) {
    let builder = Request::builder().method(method).uri(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let response = stage.cloud.handle_imds(id, builder.body(Bytes::new()).unwrap()).await;
    (response.status(), response.into_body())
}

#[tokio::test(start_paused = true)]
async fn sessions_are_enforced() {
    let stage = stage([spot()]);
    let id = stage.ids("spot")[0].clone();
    let path = "/latest/meta-data/instance-id";
    let token = "/latest/api/token";
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    assert_eq!(raw(&stage, &id, "GET", path, &[]).await.0, 401);
    assert_eq!(raw(&stage, &id, "PUT", token, &[]).await.0, 400);
    assert_eq!(raw(&stage, &id, "PUT", token, &[(TTL, "0")]).await.0, 400);
    assert_eq!(raw(&stage, &id, "PUT", token, &[(TTL, "21601")]).await.0, 400);
    let forwarded = [(TTL, "60"), ("X-Forwarded-For", "10.0.0.9")];
    assert_eq!(raw(&stage, &id, "PUT", token, &forwarded).await.0, 403);
    let (status, session) = raw(&stage, &id, "PUT", token, &[(TTL, "60")]).await;
    assert_eq!(status, 200);
    let session = std::str::from_utf8(&session).unwrap().to_owned();
    let with_session = [("x-aws-ec2-metadata-token", session.as_str())];
    assert_eq!(raw(&stage, &id, "GET", path, &with_session).await.0, 200);
    seconds(61).await;
    assert_eq!(raw(&stage, &id, "GET", path, &with_session).await.0, 401);
}

#[tokio::test(start_paused = true)]
async fn it_misbehaves_as_told() {
    let stage = stage([spot()]);
    let id = stage.ids("spot")[0].clone();
    let item = "/latest/meta-data/instance-id";
    let imds = || stage.cloud.imds_client(&id, None);
    stage.cloud.set_imds_mode(&id, ImdsMode::Unauthorized).unwrap();
    assert_eq!(status(&imds().get(item).await.unwrap_err()), 401);
    stage.cloud.set_imds_mode(&id, ImdsMode::Disabled403).unwrap();
    assert!(matches!(imds().get(item).await.unwrap_err(), ImdsError::FailedToLoadToken(_)));
    stage.cloud.set_imds_mode(&id, ImdsMode::Status(503)).unwrap();
    assert!(imds().get(item).await.is_err());
    stage.cloud.set_imds_mode(&id, ImdsMode::Garbage).unwrap();
    assert!(imds().get(item).await.is_err());
    stage.cloud.set_imds_mode(&id, ImdsMode::Proxy { gives_token: false }).unwrap();
    assert!(matches!(imds().get(item).await.unwrap_err(), ImdsError::FailedToLoadToken(_)));
    stage.cloud.set_imds_mode(&id, ImdsMode::Proxy { gives_token: true }).unwrap();
    assert_eq!(status(&imds().get(item).await.unwrap_err()), 404);
    stage.cloud.set_imds_mode(&id, ImdsMode::Silent).unwrap();
    let began = tokio::time::Instant::now();
    assert!(imds().get(item).await.is_err());
    assert!(began.elapsed() >= Duration::from_secs(1));
    stage.cloud.set_imds_mode(&id, ImdsMode::Normal).unwrap();
    assert!(imds().get(item).await.is_ok());
    stage.cloud.take_now(&id).unwrap();
    assert!(imds().get(item).await.is_err());
}
