//! `spot-guard demo --kubeconfig`: the story of the demo on a real control plane.

use crate::testbed::Testbed;
use std::process::{Command, Stdio};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays_on_a_real_cluster_and_leaves_nothing_in_it() {
    let testbed = Testbed::start("demo").await;
    let demo = tokio::process::Command::from(Command::new(env!("CARGO_BIN_EXE_spot-guard")))
        .args(["demo", "--scenario", "rebalance", "--once", "--report", "-", "--kubeconfig"])
        .arg(testbed.kubeconfig())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the demo starts");
    let output = tokio::time::timeout(Duration::from_secs(240), demo.wait_with_output())
        .await
        .expect("the story ends within four minutes")
        .expect("the demo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the report is JSON alone");
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["groups"]["spot"], serde_json::json!({"baseline": 3, "desired": 3, "inService": 3}));

    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(testbed.client());
    crate::helpers::wait_for("the demo's nodes to be gone", Duration::from_secs(30), async || {
        let list = nodes.list(&kube::api::ListParams::default()).await.ok()?;
        list.items.is_empty().then_some(())
    })
    .await;
}
