//! The real parts do what the tests, and the simulated cloud, take for granted about them.

use crate::helpers::{
    DeploymentSpec, NodeSpec, create_deployment, create_node, is_ready, object, running_pods, wait_for,
};
use crate::imds::{INSTANCE_ACTION_PATH, INSTANCE_ID_PATH, ImdsMock, REBALANCE_PATH};
use crate::testbed::{Options, Testbed};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error, ResourceExt};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn evictions_stop_at_an_exhausted_budget() {
    let testbed = Testbed::start("evictions").await;
    let client = testbed.client();
    for (name, provider_id, zone) in [
        ("spot-a", "aws:///us-east-1a/i-0a", "us-east-1a"),
        ("spot-b", "aws:///us-east-1b/i-0b", "us-east-1b"),
    ] {
        create_node(&client, &NodeSpec { name, provider_id, zone, ..NodeSpec::default() }).await;
    }
    // The pod that comes for the evicted one is not ready while the test runs: the budget stays spent.
    let web =
        DeploymentSpec { name: "web", replicas: 2, pdb_min_available: Some(1), ..DeploymentSpec::default() };
    create_deployment(&client, &web).await;
    let pods = running_pods(&client, "default", "web", 2).await;

    let api: Api<Pod> = Api::default_namespaced(client.clone());
    // Until the budget has seen the pods, it refuses with another cause.
    wait_for("the first eviction", Duration::from_secs(20), async || {
        api.evict(&pods[0].name_any(), &EvictParams::default()).await.ok()
    })
    .await;
    match api.evict(&pods[1].name_any(), &EvictParams::default()).await {
        Err(Error::Api(status)) => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            assert_eq!(status.code, 429);
            assert!(causes.iter().any(|cause| cause.reason == "DisruptionBudget"), "{causes:?}");
        }
        other => panic!("the budget is spent, but the answer is {other:?}"),
    }

    // The evicted pod is replaced, and the budget has room again.
    let pods = running_pods(&client, "default", "web", 2).await;
    wait_for("room in the budget", Duration::from_secs(20), async || {
        api.evict(&pods[0].name_any(), &EvictParams::default()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_bound_to_a_pod_names_its_node() {
    let testbed =
        Testbed::start_with("tokens", Options { pod_ready_delay: Duration::ZERO, ..Options::default() })
            .await;
    let client = testbed.client();
    let node = NodeSpec { name: "spot-a", provider_id: "aws:///us-east-1a/i-0a", ..NodeSpec::default() };
    create_node(&client, &node).await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let account = object(json!({ "metadata": { "name": "agent" } }));
    accounts.create(&PostParams::default(), &account).await.expect("a service account");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = object(json!({
        "metadata": { "name": "agent-x" },
        "spec": {
            "serviceAccountName": "agent",
            "nodeName": "spot-a",
            "containers": [{ "name": "main", "image": "example.invalid/agent" }],
        },
    }));
    pods.create(&PostParams::default(), &pod).await.expect("a pod");

    let admin = who_am_i(testbed.kubeconfig()).await;
    assert_eq!(admin["userInfo"]["username"], "admin");

    let plain = testbed.kubeconfig_for_service_account("default", "agent").await;
    let review = who_am_i(&plain).await;
    assert_eq!(review["userInfo"]["username"], "system:serviceaccount:default:agent");
    assert_eq!(review["userInfo"]["extra"].get("authentication.kubernetes.io/node-name"), None);

    let bound = testbed.kubeconfig_for_pod_bound_token("default", "agent", "agent-x").await;
    let review = who_am_i(&bound).await;
    assert_eq!(review["userInfo"]["username"], "system:serviceaccount:default:agent");
    assert_eq!(review["userInfo"]["extra"]["authentication.kubernetes.io/node-name"], json!(["spot-a"]));

    // An admission policy can hold the pod to its node.
    hold_agents_to_their_node(&client).await;
    let bound_client = client_of(&bound).await;
    wait_for("the policy to refuse another node", Duration::from_secs(30), async || {
        let error = record(&bound_client, "spot-b").await.err()?;
        error.to_string().contains("not the node of this pod").then_some(())
    })
    .await;
    record(&bound_client, "spot-a").await.expect("its own node");
    assert!(record(&client_of(&plain).await, "spot-a").await.is_err(), "a token that names no node");

    // RBAC is on: without a role the account may read nothing.
    let nodes: Api<Node> = Api::all(client_of(&bound).await);
    match nodes.get("spot-a").await {
        Err(Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("the agent has no role, but the answer is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_survives_its_api_server() {
    let mut testbed = Testbed::start("outage").await;
    let client = testbed.client();
    let node = NodeSpec { name: "spot-a", provider_id: "aws:///us-east-1a/i-0a", ..NodeSpec::default() };
    create_node(&client, &node).await;
    let nodes: Api<Node> = Api::all(client.clone());

    testbed.stop_apiserver();
    let answer = nodes.get("spot-a").await;
    assert!(matches!(answer, Err(Error::Service(_) | Error::HyperError(_))), "{answer:?}");
    assert!(testbed.api_url().starts_with("https://127.0.0.1:"));
    testbed.start_apiserver().await;
    assert!(is_ready(&nodes.get("spot-a").await.expect("the same client reads the same node")));

    // The other components have found their way back when a node loses, and regains, its condition.
    annotate(&nodes, "spot-a", json!("")).await;
    wait_for("the node to be not Ready", Duration::from_secs(60), async || {
        nodes.get("spot-a").await.ok().filter(|node| !is_ready(node))
    })
    .await;
    annotate(&nodes, "spot-a", Value::Null).await;
    wait_for("the node to be Ready again", Duration::from_secs(60), async || {
        nodes.get("spot-a").await.ok().filter(is_ready)
    })
    .await;
    create_deployment(&client, &DeploymentSpec { name: "web", ..DeploymentSpec::default() }).await;
    running_pods(&client, "default", "web", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_mock_gives_notice() {
    let imds = ImdsMock::rebalance("i-0123456789abcdef0", "eu-west-1b", 0).await;
    assert!(imds.endpoint().starts_with("http://127.0.0.1:"));
    assert_eq!(imds.request("GET", INSTANCE_ID_PATH, &[]).await.status, 401, "no answer without a token");
    let token = imds.token().await;
    assert_eq!(imds.get(&token, INSTANCE_ID_PATH).await.body, "i-0123456789abcdef0");
    assert_eq!(imds.get(&token, "/latest/meta-data/placement/availability-zone").await.body, "eu-west-1b");
    let recommendation = imds.get(&token, REBALANCE_PATH).await;
    assert_eq!(recommendation.status, 200);
    let recommendation: Value = serde_json::from_str(&recommendation.body).expect("a recommendation");
    assert!(recommendation["noticeTime"].is_string(), "{recommendation}");
    assert_eq!(imds.get(&token, INSTANCE_ACTION_PATH).await.status, 404);

    let imds = ImdsMock::spot("i-1", "eu-west-1b", 0).await;
    let token = imds.token().await;
    let action = imds.get(&token, INSTANCE_ACTION_PATH).await;
    let action: Value = serde_json::from_str(&action.body).expect("an instance action");
    assert_eq!(action["action"], "terminate");
    assert_eq!(imds.get(&token, REBALANCE_PATH).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_mock_is_quiet_until_told() {
    let mut imds = ImdsMock::quiet("i-2", "eu-west-1b").await;
    let token = imds.token().await;
    assert_eq!(imds.get(&token, REBALANCE_PATH).await.status, 404);
    assert_eq!(imds.get(&token, INSTANCE_ACTION_PATH).await.status, 404);

    imds.announce_rebalance().await;
    assert_eq!(imds.get(&token, REBALANCE_PATH).await.status, 401, "an old token is not taken");
    let token = imds.token().await;
    assert_eq!(imds.get(&token, REBALANCE_PATH).await.status, 200);
    assert_eq!(imds.get(&token, INSTANCE_ACTION_PATH).await.status, 404);

    imds.announce_interruption("2030-01-01T00:02:00Z").await;
    let token = imds.token().await;
    let action = imds.get(&token, INSTANCE_ACTION_PATH).await;
    let action: Value = serde_json::from_str(&action.body).expect("an instance action");
    assert_eq!(action["time"], "2030-01-01T00:02:00Z");
    assert_eq!(imds.get(&token, REBALANCE_PATH).await.status, 200);
}

/// The service account may create config maps, and its pods only about their own node.
async fn hold_agents_to_their_node(client: &Client) {
    let roles: Api<Role> = Api::default_namespaced(client.clone());
    let role = object(json!({
        "metadata": { "name": "agent" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] }],
    }));
    roles.create(&PostParams::default(), &role).await.expect("a role");
    let bindings: Api<RoleBinding> = Api::default_namespaced(client.clone());
    let binding = object(json!({
        "metadata": { "name": "agent" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent" },
        "subjects": [{ "kind": "ServiceAccount", "name": "agent", "namespace": "default" }],
    }));
    bindings.create(&PostParams::default(), &binding).await.expect("a role binding");

    let node_name = "authentication.kubernetes.io/node-name";
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let policy = object(json!({
        "metadata": { "name": "own-node" },
        "spec": {
            "matchConstraints": { "resourceRules": [
                { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] },
            ] },
            "matchConditions": [{
                "name": "agent",
                "expression": "request.userInfo.username == 'system:serviceaccount:default:agent'",
            }],
            "validations": [{
                "expression": format!(
                    "'{node_name}' in request.userInfo.extra \
                     && request.userInfo.extra['{node_name}'] == [object.data.nodeName]"
                ),
                "message": "not the node of this pod",
            }],
        },
    }));
    policies.create(&PostParams::default(), &policy).await.expect("an admission policy");
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let binding = object(json!({
        "metadata": { "name": "own-node" },
        "spec": { "policyName": "own-node", "validationActions": ["Deny"] },
    }));
    bindings.create(&PostParams::default(), &binding).await.expect("the policy's binding");
}

/// Creates a config map about a node.
async fn record(client: &Client, node: &str) -> Result<ConfigMap, Error> {
    let config_maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let config_map =
        object(json!({ "metadata": { "generateName": "about-" }, "data": { "nodeName": node } }));
    config_maps.create(&PostParams::default(), &config_map).await
}

/// Sets or removes the annotation that KWOK takes as the node's being broken.
async fn annotate(nodes: &Api<Node>, name: &str, value: Value) {
    let patch = json!({ "metadata": { "annotations": { "testbed.spotguard.dev/not-ready": value } } });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("an annotation");
}

async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a valid kubeconfig")).expect("a client")
}

/// What the API server knows about the user of a kubeconfig.
async fn who_am_i(kubeconfig: &Path) -> Value {
    let reviews: Api<SelfSubjectReview> = Api::all(client_of(kubeconfig).await);
    let review =
        reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.expect("a review");
    serde_json::to_value(review.status).expect("a status")
}
