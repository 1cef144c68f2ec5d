//! Connections of anyone in the network. What needs no API server is in `tests/cli/connections.rs`.

#[path = "../../cli/crowd.rs"]
mod crowd;

use crate::helpers::http;
use crate::product;
use crate::testbed::Testbed;
use crowd::{Crowd, PACE};
use serde_json::{Value, json};
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::Cloud;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Longer than the lease of this controller.
const FOR: Duration = Duration::from_secs(9);

#[actix::test]
async fn a_crowd_keeps_no_probe_out_and_the_leader_leads_on() {
    let testbed = Testbed::start_without_kubelets("crowd").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let mut controller = product::start_controller(&testbed, "controller", &served.url()).await;
    controller.becomes_ready().await;
    controller.leads().await;
    let crowd = Crowd::at(&[controller.main, controller.probes]);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < FOR {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let sent = Instant::now();
            let answer = http(controller.probes, "GET", path, &[]).await.expect("an answer");
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            slowest = slowest.max(sent.elapsed());
        }
        let status = controller.get("/api/v1/status").await.expect("an answer");
        let status: Value = serde_json::from_str(&status.body).expect("JSON");
        assert_eq!(status["leader"], json!(true));
        tokio::time::sleep(PACE).await;
    }
    println!("the slowest probe was answered in {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(crowd);
    served.stop().await;
}
