//! `spot-guard check` on a real API server: what the manifests allow is what the controller does, no less.

use crate::helpers::wait_for;
use crate::product::{self, AGENT, CONTROLLER, NAMESPACE, PATIENCE};
use crate::testbed::Testbed;
use kube::api::{Api, PostParams};
use spot_guard::crd::{SpotPool, SpotPoolSpec};
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{Cloud, GroupSpec, Market};
use std::net::TcpListener;
use std::path::Path;

/// The exit status, and what was told.
async fn check(kubeconfig: &Path, endpoint: &str) -> (Option<i32>, String) {
    let mut command = product::spot_guard();
    command
        .args(["check", "--kubeconfig"])
        .arg(kubeconfig)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_ENDPOINT_URL_AUTO_SCALING", endpoint);
    let output = tokio::task::spawn_blocking(move || command.output().expect("spot-guard runs"));
    let output = output.await.expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[actix::test]
async fn the_roles_of_the_manifests_allow_what_the_controller_does() {
    let testbed = Testbed::start_without_kubelets("check").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    cloud.add_group(GroupSpec { desired: 0, ..GroupSpec::new("spot", Market::Spot) });
    cloud.add_group(GroupSpec { desired: 0, ..GroupSpec::new("on-demand", Market::OnDemand) });
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let controller = testbed.kubeconfig_for_service_account(NAMESPACE, CONTROLLER).await;

    // A policy takes a moment until it binds.
    let (status, told) = wait_for("the policy", PATIENCE, async || {
        let (status, told) = check(&controller, &served.url()).await;
        (!told.contains("any agent can report any node")).then_some((status, told))
    })
    .await;
    assert!(told.contains("the account has all permissions of the controller"), "{told}");
    assert!(told.contains("there is no SpotPool yet"), "{told}");
    assert!(
        told.contains("ok        admission policy       an agent can report its own node only"),
        "{told}"
    );
    assert_eq!(status, Some(0), "{told}");

    // The policy is off: nobody would notice by themselves.
    product::kubectl(&testbed, &["delete", "validatingadmissionpolicybinding", "spot-guard-notices"]);
    wait_for("the check to see it", PATIENCE, async || {
        let (status, told) = check(&controller, &served.url()).await;
        (status == Some(1) && told.contains("refused   admission policy       any agent can report any node"))
            .then_some(())
    })
    .await;
    product::apply(&testbed, &product::manifest("admission-policy.yaml"));

    let spec = SpotPoolSpec {
        spot_group: "spot".into(),
        on_demand_group: "elsewhere".into(),
        ..SpotPoolSpec::default()
    };
    let pools: Api<SpotPool> = Api::all(testbed.client());
    pools.create(&PostParams::default(), &SpotPool::new("workers", spec)).await.expect("a pool");
    let (status, told) = check(&controller, &served.url()).await;
    assert!(told.contains("refused   pool workers           NoSuchGroup"), "{told}");
    assert_eq!(status, Some(1), "{told}");

    let agent = testbed.kubeconfig_for_service_account(NAMESPACE, AGENT).await;
    let (status, told) = check(&agent, &served.url()).await;
    for missing in ["may not patch nodes", "may not create pods/eviction", "may not update leases"] {
        assert!(told.contains(missing), "{missing}: {told}");
    }
    assert_eq!(status, Some(1), "{told}");
    served.stop().await;
}
