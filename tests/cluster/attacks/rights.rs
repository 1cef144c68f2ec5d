//! Rights: who creates a SpotAction asks in their own name for what they may, and nobody has our objects
//! collected.

use crate::helpers::{object, wait_for};
use crate::product::{self, NAMESPACE, PATIENCE, kubectl};
use crate::testbed::Testbed;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::path::Path;

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// A person with these rights on our objects: a service account, which anybody can be given.
async fn person(testbed: &Testbed, name: &str, rules: Value) -> Client {
    kubectl(testbed, &["create", "serviceaccount", name, "-n", NAMESPACE]);
    let create = PostParams::default();
    let roles: Api<ClusterRole> = Api::all(testbed.client());
    let role = object(json!({ "metadata": { "name": name }, "rules": rules }));
    roles.create(&create, &role).await.expect("a role");
    let bindings: Api<ClusterRoleBinding> = Api::all(testbed.client());
    let binding = object(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE }],
    }));
    bindings.create(&create, &binding).await.expect("a binding");
    client(&testbed.kubeconfig_for_service_account(NAMESPACE, name).await).await
}

fn rule(resource: &str, verbs: &[&str], names: &[&str]) -> Value {
    json!({ "apiGroups": ["spotguard.dev"], "resources": [resource], "verbs": verbs, "resourceNames": names })
}

/// The status of the answer, and its message.
async fn create(client: &Client, plural: &str, object: &Value) -> (u16, String) {
    let request = http::Request::post(format!("/apis/spotguard.dev/v1alpha1/{plural}"));
    let request = request.header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    match client.request::<Value>(request).await {
        Ok(_) => (201, String::new()),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("no answer: {error}"),
    }
}

async fn ask(client: &Client, name: &str, spec: Value) -> (u16, String) {
    let object = json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotAction",
        "metadata": { "name": name }, "spec": spec });
    create(client, "spotactions", &object).await
}

#[actix::test]
async fn a_spot_action_takes_the_right_to_what_it_asks_for_and_names_who_asks() {
    let testbed = Testbed::start_without_kubelets("spotaction-rights").await;
    product::install(&testbed).await;
    let spot_actions = rule("spotactions", &["create"], &[]);
    let tenant = person(&testbed, "tenant", json!([spot_actions])).await;
    let ann = person(
        &testbed,
        "ann",
        json!([
            spot_actions,
            rule("nodereplacements", &["replace", "cancel"], &[]),
            rule("nodereplacements", &["return"], &["i-1"]),
            rule("spotpools", &["pause"], &["mine"]),
        ]),
    )
    .await;
    let (mut tries, pause) = (0, json!({ "action": "Pause" }));
    wait_for("the policy", PATIENCE, async || {
        tries += 1;
        (ask(&tenant, &format!("early-{tries}"), pause.clone()).await.0 == 403).then_some(())
    })
    .await;

    for (number, spec) in [
        json!({ "action": "Pause" }),
        json!({ "action": "Resume" }),
        json!({ "action": "Replace", "node": "n" }),
        json!({ "action": "Return", "replacement": "i-1" }),
        json!({ "action": "Cancel", "replacement": "i-1" }),
    ]
    .into_iter()
    .enumerate()
    {
        let (status, message) = ask(&tenant, &format!("tenant-{number}"), spec.clone()).await;
        assert_eq!(status, 403, "{spec}: {message}");
        assert!(message.contains("takes the right to"), "{spec}: {message}");
    }
    let me = format!("system:serviceaccount:{NAMESPACE}:ann");
    for (number, (spec, expected)) in [
        (json!({ "action": "Replace", "node": "n" }), 201),
        (json!({ "action": "Replace", "node": "n", "requestedBy": me }), 201),
        (json!({ "action": "Replace", "node": "n", "requestedBy": "bob" }), 403),
        (json!({ "action": "Cancel", "node": "n" }), 201),
        (json!({ "action": "Return", "replacement": "i-1" }), 201),
        (json!({ "action": "Return", "replacement": "i-2" }), 403),
        (json!({ "action": "Return", "pool": "mine" }), 403),
        (json!({ "action": "Pause", "pool": "mine" }), 201),
        (json!({ "action": "Resume", "pool": "other" }), 403),
        (json!({ "action": "Pause" }), 403),
    ]
    .into_iter()
    .enumerate()
    {
        let (status, message) = ask(&ann, &format!("ann-{number}"), spec.clone()).await;
        assert_eq!(status, expected, "{spec}: {message}");
    }
    // The controller has asked what they may, and writes in their name.
    let controller = testbed.kubeconfig_for_service_account(NAMESPACE, product::CONTROLLER).await;
    let spec = json!({ "action": "Pause", "requestedBy": "bob" });
    assert_eq!(ask(&client(&controller).await, "by-bob", spec).await.0, 201);
    nobody_has_our_objects_collected(&testbed).await;
}

/// With every right: it is a policy, and no role.
async fn nobody_has_our_objects_collected(testbed: &Testbed) {
    let admin = testbed.client();
    let replacement = json!({ "pool": "p", "nodeName": "n", "instanceId": "i-0123456789abcdef0" });
    let kinds = [
        ("spotpools", "SpotPool", json!({ "spotGroup": "a", "onDemandGroup": "b" })),
        ("nodereplacements", "NodeReplacement", replacement),
        ("spotactions", "SpotAction", json!({ "action": "Pause" })),
    ];
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "x",
        "uid": "00000000-0000-0000-0000-000000000000" }]);
    let many: serde_json::Map<String, Value> = (0..33).map(|n| (format!("l{n}"), json!("x"))).collect();
    for (plural, kind, spec) in kinds {
        let with = |metadata: Value| {
            let mut made = json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": kind, "metadata": metadata,
                "spec": spec });
            made["metadata"]["name"] = json!("held");
            made
        };
        for (metadata, words) in [
            (json!({ "ownerReferences": owner }), "no owners"),
            (json!({ "finalizers": ["example.org/never"] }), "no finalizers"),
            (json!({ "annotations": { "a": "x".repeat(8193) } }), "annotations"),
            (json!({ "labels": many }), "labels"),
        ] {
            let (status, message) = create(&admin, plural, &with(metadata)).await;
            assert!(status == 403 && message.contains(words), "{kind}, {words}: {status} {message}");
        }
        assert_eq!(create(&admin, plural, &with(json!({}))).await.0, 201, "{kind}");
        let changed = json!({ "metadata": { "ownerReferences": owner } }).to_string();
        let arguments = ["patch", plural, "held", "--type=merge", "-p", &changed];
        let output = product::try_kubectl(testbed, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains("no owners"), "{kind}: {told}");
    }
}
