//! The HTTP API's main port before a real API server: tokens of service accounts, and the roles of the
//! manifests.

use crate::helpers::{HttpAnswer, http, wait_for};
use crate::product::{self, AGENT, NAMESPACE, PATIENCE};
use crate::testbed::Testbed;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use spot_guard::crd::SpotPool;
use spot_guard::http::AUDIENCE;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::Cloud;
use std::net::{SocketAddr, TcpListener};

async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> HttpAnswer {
    ask(address, "GET", path, token).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> HttpAnswer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    http(address, method, path, &headers).await.expect("an answer")
}

/// A service account with a cluster role.
async fn account(testbed: &Testbed, name: &str, role: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(testbed.client(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("an account");
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE }],
    }))
    .expect("a binding");
    Api::all(testbed.client()).create(&PostParams::default(), &binding).await.expect("a binding");
}

/// A token of an account for one audience, as `kubectl create token --audience` makes it.
fn token_for(testbed: &Testbed, account: &str, audience: &str) -> String {
    let arguments = ["-n", NAMESPACE, "create", "token", account, "--audience", audience];
    let output = product::kubectl(testbed, &arguments);
    String::from_utf8(output.stdout).expect("a token").trim().to_owned()
}

#[actix::test]
async fn the_verbs_of_an_operator_ask_for_everything_and_change_no_object() {
    let testbed = Testbed::start_without_kubelets("verbs").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let mut controller = product::start_controller(&testbed, "controller", &served.url()).await;
    controller.becomes_ready().await;
    let pool: SpotPool = serde_json::from_value(json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotPool", "metadata": { "name": "web" },
        "spec": { "spotGroup": "spot", "onDemandGroup": "on-demand", "mode": "Observe" },
    }))
    .expect("a pool");
    Api::all(testbed.client()).create(&PostParams::default(), &pool).await.expect("a pool");
    account(&testbed, "operator", "spot-guard-operator").await;
    account(&testbed, "viewer", "spot-guard-viewer").await;
    let operator = testbed.token(NAMESPACE, "operator", None).await;
    let viewer = testbed.token(NAMESPACE, "viewer", None).await;

    let main = controller.main;
    wait_for("the role to count", PATIENCE, async || {
        let may = get(main, "/api/v1/access", Some(&operator)).await.body;
        ["Replace", "Return", "Cancel", "Pause", "Resume"]
            .iter()
            .all(|action| may.contains(action))
            .then_some(())
    })
    .await;
    wait_for("the pool to be paused", PATIENCE, async || {
        (ask(main, "POST", "/api/v1/pools/web/pause", Some(&operator)).await.status == 202).then_some(())
    })
    .await;
    let refused = ask(main, "POST", "/api/v1/pools/web/pause", Some(&viewer)).await;
    assert!(
        refused.status == 403 && refused.body.contains("cannot pause spotpools.spotguard.dev"),
        "{refused:?}"
    );
    // Who may ask may not write: neither pools nor replacements.
    let account = format!("system:serviceaccount:{NAMESPACE}:operator");
    for (verb, resource) in ["update", "patch", "delete"]
        .iter()
        .flat_map(|verb| [(verb, "spotpools"), (verb, "nodereplacements")])
    {
        let review: SubjectAccessReview = serde_json::from_value(json!({
            "spec": { "user": account, "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": { "group": "spotguard.dev", "resource": resource, "verb": verb } },
        }))
        .expect("a review");
        let answer =
            Api::all(testbed.client()).create(&PostParams::default(), &review).await.expect("an answer");
        assert!(!answer.status.expect("a status").allowed, "{verb} {resource}");
    }
    served.stop().await;
}

#[actix::test]
async fn tokens_of_the_api_servers_audience_and_of_ours_are_taken_and_no_others() {
    let testbed = Testbed::start_without_kubelets("audience").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let mut controller = product::start_controller(&testbed, "controller", &served.url()).await;
    controller.becomes_ready().await;
    account(&testbed, "viewer", "spot-guard-viewer").await;
    let main = controller.main;
    let plain = testbed.token(NAMESPACE, "viewer", None).await;
    let ours = token_for(&testbed, "viewer", AUDIENCE);
    for token in [&plain, &ours] {
        wait_for("the role to count", PATIENCE, async || {
            (get(main, "/api/v1/pools", Some(token)).await.status == 200).then_some(())
        })
        .await;
    }
    for audience in ["vault", "sts.amazonaws.com"] {
        let other = token_for(&testbed, "viewer", audience);
        assert_eq!(get(main, "/api/v1/pools", Some(&other)).await.status, 401, "{audience}");
    }
    // The API server takes none of ours.
    let client = reqwest::blocking::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    let url = format!("{}/api/v1/namespaces", testbed.api_url());
    let status = actix_web::web::block(move || {
        client
            .build()
            .expect("a client")
            .get(url)
            .bearer_auth(ours)
            .send()
            .map(|answer| answer.status().as_u16())
    });
    assert_eq!(status.await.expect("it runs").expect("an answer"), 401);
    served.stop().await;
}

#[actix::test]
async fn tokens_and_roles_of_the_cluster_decide_who_gets_in() {
    let mut testbed = Testbed::start_without_kubelets("access").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let served =
        cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it is served");
    let mut controller = product::start_controller(&testbed, "controller", &served.url()).await;
    controller.becomes_ready().await;

    let accounts: Api<ServiceAccount> = Api::namespaced(testbed.client(), NAMESPACE);
    account(&testbed, "viewer", "spot-guard-viewer").await;
    let viewer = testbed.token(NAMESPACE, "viewer", None).await;
    let agent = testbed.token(NAMESPACE, AGENT, None).await;

    let (main, probes) = (controller.main, controller.probes);
    assert_eq!(get(probes, "/metrics", None).await.status, 200);
    assert_eq!(get(main, "/metrics", None).await.status, 404, "it is not to be had at the main port");
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
    assert_eq!(get(probes, "/healthz", None).await.status, 200);
    served.stop().await;
}
