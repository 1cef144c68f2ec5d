//! Objects that a tenant or an agent may write, and that would blind the controller.

use super::agents::Agents;
use crate::helpers::wait_for;
use crate::product::{self, CONTROLLER_MEMORY, NAMESPACE, PATIENCE};
use crate::stories::{Cue, Stagecraft, Tale};
use crate::testbed::Testbed;
use futures::{StreamExt, stream};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::POOL;

const TENANT: &str = "tenant";
/// No time of most libraries.
const FAR: &str = "9999-12-31T23:59:59Z";

/// A request as it is, so that nothing of it is made proper on the way.
async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<String, kube::Error> {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", media);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    client.request_text(request.body(body).expect("a request")).await
}

/// Somebody with `edit` in one namespace.
async fn tenant(testbed: &Testbed) -> Client {
    let admin = testbed.client();
    let named = |name: &str| json!({ "metadata": { "name": name } });
    send(&admin, "POST", "/api/v1/namespaces", &named(TENANT)).await.expect("a namespace");
    let path = format!("/api/v1/namespaces/{TENANT}/serviceaccounts");
    send(&admin, "POST", &path, &named(TENANT)).await.expect("an account");
    let binding = json!({
        "metadata": { "name": TENANT },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "kind": "ServiceAccount", "name": TENANT, "namespace": TENANT }],
    });
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{TENANT}/rolebindings");
    send(&admin, "POST", &path, &binding).await.expect("a binding");
    let file = testbed.kubeconfig_for_service_account(TENANT, TENANT).await;
    let file = Kubeconfig::read_from(file).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.expect("a configuration")).expect("a client");
    wait_for("the tenant's role to count", PATIENCE, async || {
        send(&client, "GET", &format!("/api/v1/namespaces/{TENANT}/pods"), &Value::Null).await.ok()
    })
    .await;
    client
}

/// Puts a time into an object that no reader of times takes, and demands that it stays there.
async fn poison(client: &Client, path: &str) {
    let version = path
        .strip_prefix("/apis/")
        .map_or("v1".to_owned(), |path| path.split('/').take(2).collect::<Vec<_>>().join("/"));
    let entry = json!({
        "manager": "tenant", "operation": "Update", "apiVersion": version, "time": FAR, "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:labels": { "f:poisoned": {} } } },
    });
    let label = json!({ "metadata": { "labels": { "poisoned": "yes" } } });
    send(client, "PATCH", path, &label).await.expect("a label");
    let patch = json!({ "metadata": { "managedFields": [entry] } });
    send(client, "PATCH", path, &patch).await.unwrap_or_else(|error| panic!("{path} is not taken: {error}"));
    let stored = send(client, "GET", path, &Value::Null).await.expect("an answer");
    assert!(stored.contains(FAR), "{path} is not poisoned: {stored}");
}

/// A pod that no node takes.
fn pod(name: &str, annotation: &str) -> Value {
    json!({
        "metadata": { "name": name, "annotations": { "x": annotation } },
        "spec": {
            "nodeSelector": { "nobody": "here" },
            "containers": [{ "name": "main", "image": "example.invalid/main" }],
        },
    })
}

fn claim(name: &str, annotation: &str) -> Value {
    let request = json!({ "requests": { "storage": "1Gi" } });
    json!({
        "metadata": { "name": name, "annotations": { "x": annotation } },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": request },
    })
}

fn of_tenant(group: &str, plural: &str) -> String {
    format!("{group}/namespaces/{TENANT}/{plural}")
}

/// The old controller goes, and a fresh one has to find its way.
async fn starts_afresh(stage: &mut Stagecraft) {
    stage.controller.process.kill();
    stage.controller =
        product::start_controller(&stage.testbed, "fresh-controller", &stage.autoscaling.url()).await;
    stage.controller.becomes_ready().await;
    stage.controller.leads().await;
}

#[actix::test]
async fn no_object_of_any_kind_blinds_the_controller() {
    let tale = Tale::new(Scenario::Rebalance, vec![(Cue::Now, Act::Rebalance(0))]);
    let mut stage = Stagecraft::set_up("blinded", &tale).await;
    let (admin, by_tenant) = (stage.testbed.client(), tenant(&stage.testbed).await);

    let objects = [
        (of_tenant("/api/v1", "pods"), pod("poisoned", "")),
        (of_tenant("/api/v1", "persistentvolumeclaims"), claim("poisoned", "")),
        (
            of_tenant("/apis/policy/v1", "poddisruptionbudgets"),
            json!({ "metadata": { "name": "poisoned" }, "spec": { "minAvailable": 1, "selector": {} } }),
        ),
    ];
    for (path, object) in &objects {
        send(&by_tenant, "POST", path, object).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        poison(&by_tenant, &format!("{path}/poisoned")).await;
    }
    let volume = json!({
        "metadata": { "name": "poisoned" },
        "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/x" } },
    });
    send(&admin, "POST", "/api/v1/persistentvolumes", &volume).await.expect("a volume");
    for path in [
        "/api/v1/persistentvolumes/poisoned".to_owned(),
        format!("/api/v1/namespaces/{TENANT}"),
        format!("/api/v1/namespaces/{NAMESPACE}"),
        format!("/api/v1/nodes/{}", stage.old_node),
        format!("/apis/spotguard.dev/v1alpha1/spotpools/{POOL}"),
    ] {
        poison(&admin, &path).await;
    }
    // The definition has limits for times: no agent can write one that nobody reads.
    let agents = Agents::of(&stage.testbed, NAMESPACE);
    for detected_at in [FAR, "-9999-01-01T00:00:00Z", "9999-12-30T21:59:59Z"] {
        let notice = json!({
            "apiVersion": "spotguard.dev/v1alpha1", "kind": "InterruptionNotice",
            "metadata": { "name": "nobody.i-0123456789abcdef0-spot-interruption" },
            "spec": { "nodeName": "nobody", "instanceId": "i-0123456789abcdef0", "kind": "SpotInterruption",
                "detectedAt": detected_at },
        });
        assert_eq!(agents.post("nobody", &notice).await, 422, "{detected_at}");
    }

    starts_afresh(&mut stage).await;
    let report = stage.play(&tale).await;
    let log = stage.controller.process.log();
    assert!(!log.contains("fieldsV1") && !log.contains(FAR), "objects are logged: {log}");
    stage.ends_as_simulated(&tale, &report).await;
}

#[actix::test]
async fn large_objects_of_a_tenant_do_not_fill_the_memory() {
    let tale = Tale::new(Scenario::Rebalance, vec![(Cue::Now, Act::Rebalance(0))]);
    let mut stage = Stagecraft::set_up("large-objects", &tale).await;
    let by_tenant = tenant(&stage.testbed).await;
    let annotation = "x".repeat(250_000);
    let pods = (0..550).map(|i| (of_tenant("/api/v1", "pods"), pod(&format!("large-{i}"), &annotation)));
    let claims = (0..150)
        .map(|i| (of_tenant("/api/v1", "persistentvolumeclaims"), claim(&format!("large-{i}"), &annotation)));
    let sent = stream::iter(pods.chain(claims)).map(|(path, object)| {
        let client = by_tenant.clone();
        async move {
            send(&client, "POST", &path, &object).await.expect("it is taken");
        }
    });
    sent.buffer_unordered(8).collect::<Vec<()>>().await;

    starts_afresh(&mut stage).await;
    let peak = stage.controller.process.peak_memory();
    println!("550 pods and 150 claims with 250 kB of annotations: {} MB at the most", peak >> 20);
    assert!(peak < CONTROLLER_MEMORY / 2, "{peak} of {CONTROLLER_MEMORY} bytes");
    let report = stage.play(&tale).await;
    assert_eq!(report.problems, [""; 0]);
}
