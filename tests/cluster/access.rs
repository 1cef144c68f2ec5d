//! The HTTP API's main port before a real API server: tokens of service accounts, and the roles of the manifests.

use crate::helpers::{HttpAnswer, http, wait_for};
use crate::product::{self, AGENT, NAMESPACE, PATIENCE};
use crate::testbed::Testbed;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use spot_guard::clock::Clock;
use spot_guard::sim::cloud::Cloud;
use std::net::{SocketAddr, TcpListener};

async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> HttpAnswer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    http(address, "GET", path, &headers).await.expect("an answer")
}

#[actix::test]
async fn tokens_and_roles_of_the_cluster_decide_who_gets_in() {
    let mut testbed = Testbed::start_without_kubelets("access").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(Clock::System, 1);
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let mut controller = product::start_controller(&testbed, "controller", &served.url()).await;
    controller.becomes_ready().await;

    let accounts: Api<ServiceAccount> = Api::namespaced(testbed.client(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": "viewer" } })).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("an account");
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "viewer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "spot-guard-viewer" },
        "subjects": [{ "kind": "ServiceAccount", "name": "viewer", "namespace": NAMESPACE }],
    }))
    .expect("a binding");
    Api::all(testbed.client()).create(&PostParams::default(), &binding).await.expect("a binding");
    let viewer = testbed.token(NAMESPACE, "viewer", None).await;
    let agent = testbed.token(NAMESPACE, AGENT, None).await;

    let main = controller.main;
    assert_eq!(get(main, "/metrics", None).await.status, 200);
    assert_eq!(get(main, "/", None).await.status, 200, "the page asks for a token by itself");
    for path in ["/api/v1/pools", "/api/v1/fallbacks", "/api/v1/access"] {
        assert_eq!(get(main, path, None).await.status, 401, "{path}");
        assert_eq!(get(main, path, Some("nobody-gave-it")).await.status, 401, "{path}");
        wait_for("the role to count", PATIENCE, async || {
            (get(main, path, Some(&viewer)).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(get(controller.address, path, None).await.status, 200, "{path} at the local port");
    }
    let refused = get(main, "/api/v1/pools", Some(&agent)).await;
    assert_eq!(refused.status, 403);
    let user = "system:serviceaccount:spot-guard:spot-guard-agent";
    assert!(
        refused.body.contains(user) && refused.body.contains("cannot list spotpools"),
        "{}",
        refused.body
    );

    // A token that was withdrawn counts for as long as it is remembered, and no longer.
    accounts.delete("viewer", &DeleteParams::default()).await.expect("it is deleted");
    wait_for("the token of a deleted account to be refused", PATIENCE, async || {
        (get(main, "/api/v1/pools", Some(&viewer)).await.status == 401).then_some(())
    })
    .await;

    // Without an answer of the API server nobody gets in; probes do.
    testbed.stop_apiserver();
    wait_for("the agent's token to be forgotten", PATIENCE, async || {
        (get(main, "/api/v1/pools", Some(&agent)).await.status == 503).then_some(())
    })
    .await;
    assert_eq!(get(main, "/healthz", None).await.status, 200);
    served.stop().await;
}
