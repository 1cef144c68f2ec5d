//! What Spot Guard relies on in a Kubernetes API, as functions of a client.
//!
//! They need the disruption and namespace controllers, and bring their own node; whether a kubelet stands
//! behind it makes no difference.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReview};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams,
    Preconditions, WatchEvent, WatchParams,
};
use kube::core::{GroupVersionKind, Status};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

macro_rules! for_each_contract {
    ($run:ident) => {
        $run! {
            creating_twice_is_already_exists
            names_are_generated_and_checked
            a_stale_replace_is_a_conflict
            leases_and_custom_resources_are_replaced_with_a_version_only
            a_patch_with_a_stale_version_is_a_conflict
            a_json_patch_stops_at_a_test_that_fails
            a_strategic_patch_replaces_taints_and_merges_conditions
            custom_resources_take_no_strategic_patch
            server_side_apply_creates_and_merges
            status_is_a_world_of_its_own
            a_change_of_nothing_keeps_the_version
            deletion_checks_its_preconditions
            finalizers_hold_an_object
            dry_runs_change_nothing
            lists_select_and_page
            a_watch_tells_everything_in_order
            a_watch_without_a_version_starts_with_what_is_there
            a_streaming_list_ends_with_a_bookmark
            a_watch_ends_after_its_timeout
            malformed_requests_are_refused
            graceful_deletion_only_gets_shorter
            pods_without_a_node_are_deleted_at_once
            evicting_what_is_not_there_is_not_found
            an_eviction_needs_room_in_its_budget
            a_budget_needs_to_be_observed
            an_eviction_checks_the_uid
            the_client_library_loses_the_options_of_an_eviction
            two_budgets_refuse_each_eviction
            access_reviews_are_answered
            a_right_is_that_of_the_user_and_the_groups
            a_token_that_nobody_gave_is_not_valid
        }
    };
}
pub(crate) use for_each_contract;

/// Makes the custom resource of these tests known to a real API server.
#[allow(dead_code, reason = "the simulated API is told of it directly")]
pub async fn prepare(client: &Client) {
    let definition: CustomResourceDefinition = parse(json!({
        "metadata": { "name": "probes.contract.spotguard.dev" },
        "spec": {
            "group": "contract.spotguard.dev",
            "scope": "Namespaced",
            "names": { "kind": "Probe", "plural": "probes", "singular": "probe" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } }],
        },
    }));
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let _ = definitions.create(&PostParams::default(), &definition).await;
    let probes = probes(client, "default");
    eventually("the custom resource is served", async || probes.list(&ListParams::default()).await.is_ok())
        .await;
}

fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

fn probes(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("contract.spotguard.dev", "v1", "Probe");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk_with_plural(&kind, "probes"))
}

fn probe(name: &str, spec: Value) -> DynamicObject {
    parse(json!({ "apiVersion": "contract.spotguard.dev/v1", "kind": "Probe", "metadata": { "name": name },
        "spec": spec }))
}

/// A namespace of one's own, ready for pods.
async fn namespace(client: &Client) -> String {
    let name = format!("contract-{:08x}", fastrand::u32(..));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = parse(json!({ "metadata": { "name": name } }));
    namespaces.create(&PostParams::default(), &object).await.expect("a namespace");
    // Admission waits for the account; a controller makes it, sooner or later.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
    let _ =
        accounts.create(&PostParams::default(), &parse(json!({ "metadata": { "name": "default" } }))).await;
    name
}

async fn node(client: &Client) -> Node {
    let name = format!("contract-{:08x}", fastrand::u32(..));
    let nodes: Api<Node> = Api::all(client.clone());
    let object = parse(json!({
        "metadata": { "name": name },
        "spec": { "providerID": "aws:///eu-west-1a/i-0" },
        "status": {
            "capacity": { "cpu": "4", "memory": "16Gi", "pods": "50" },
            "allocatable": { "cpu": "4", "memory": "16Gi", "pods": "50" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Contract" }],
        },
    }));
    nodes.create(&PostParams::default(), &object).await.expect("a node")
}

/// A pod that runs and is ready on a node, as its kubelet would report it.
async fn running_pod(client: &Client, namespace: &str, node: &Node, name: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let object = parse(json!({
        "metadata": { "name": name, "labels": { "app": "web" } },
        "spec": { "nodeName": node.name_any(), "containers": [{ "name": "main", "image": "app:1" }] },
    }));
    pods.create(&PostParams::default(), &object).await.expect("a pod");
    set_ready(&pods, name, true).await
}

async fn set_ready(pods: &Api<Pod>, name: &str, ready: bool) -> Pod {
    let status = json!({ "status": { "phase": "Running", "conditions": [
        { "type": "Ready", "status": if ready { "True" } else { "False" } }] } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("a status")
}

async fn budget(client: &Client, namespace: &str, name: &str, min_available: u32) {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let object = parse(json!({ "metadata": { "name": name },
        "spec": { "minAvailable": min_available, "selector": { "matchLabels": { "app": "web" } } } }));
    budgets.create(&PostParams::default(), &object).await.expect("a budget");
}

async fn allows(client: &Client, namespace: &str, name: &str, disruptions: i32) {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    eventually("the budget follows its pods", async || {
        let budget = budgets.get(name).await.expect("the budget");
        let generation = budget.metadata.generation;
        budget.status.is_some_and(|status| {
            status.disruptions_allowed == Some(disruptions) && status.observed_generation == generation
        })
    })
    .await;
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 30 s: {what}");
}

#[track_caller]
fn refused<T>(result: kube::Result<T>) -> Status {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(kube::Error::Api(status)) => *status,
        Err(other) => panic!("not a refusal by the API: {other}"),
    }
}

#[track_caller]
fn assert_refused<T>(result: kube::Result<T>, code: u16, reason: &str) -> Status {
    let status = refused(result);
    assert_eq!((status.code, status.reason.as_str()), (code, reason), "{}", status.message);
    status
}

fn map(name: &str, data: Value) -> ConfigMap {
    parse(json!({ "metadata": { "name": name }, "data": data }))
}

async fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), &namespace(client).await)
}

async fn raw<T: DeserializeOwned>(
    client: &Client,
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Serialize,
) -> kube::Result<T> {
    let body = serde_json::to_vec(&body).expect("JSON");
    raw_text(client, method, path, content_type, body).await
}

async fn raw_text<T: DeserializeOwned>(
    client: &Client,
    method: &str,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> kube::Result<T> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(body)
        .expect("a request");
    client.request(request).await
}

pub async fn creating_twice_is_already_exists(client: Client) {
    let maps = maps(&client).await;
    let created = maps.create(&PostParams::default(), &map("a", json!({}))).await.expect("created");
    assert!(created.uid().is_some());
    assert!(created.resource_version().is_some());
    let status =
        assert_refused(maps.create(&PostParams::default(), &map("a", json!({}))).await, 409, "AlreadyExists");
    assert_eq!(status.message, "configmaps \"a\" already exists");
    let status = assert_refused(maps.get("b").await, 404, "NotFound");
    assert_eq!(status.message, "configmaps \"b\" not found");
}

pub async fn names_are_generated_and_checked(client: Client) {
    let maps = maps(&client).await;
    let object = parse(json!({ "metadata": { "generateName": "some-" } }));
    let created = maps.create(&PostParams::default(), &object).await.expect("created");
    assert!(created.name_any().starts_with("some-"));
    assert_eq!(created.name_any().len(), "some-".len() + 5);
    assert_refused(maps.create(&PostParams::default(), &map("Not_A_Name", json!({}))).await, 422, "Invalid");
}

pub async fn a_stale_replace_is_a_conflict(client: Client) {
    let maps = maps(&client).await;
    let first = maps.create(&PostParams::default(), &map("a", json!({ "n": "1" }))).await.expect("created");
    let mut second = first.clone();
    second.data = Some([("n".to_owned(), "2".to_owned())].into());
    maps.replace("a", &PostParams::default(), &second).await.expect("replaced");
    let status = assert_refused(maps.replace("a", &PostParams::default(), &second).await, 409, "Conflict");
    assert_eq!(
        status.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    // Without a version, the last writer wins.
    maps.replace("a", &PostParams::default(), &map("a", json!({ "n": "3" }))).await.expect("replaced");
}

pub async fn leases_and_custom_resources_are_replaced_with_a_version_only(client: Client) {
    let namespace = namespace(&client).await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let lease: Lease = parse(json!({ "metadata": { "name": "a" }, "spec": { "holderIdentity": "me",
        "renewTime": "2026-01-01T00:00:00.123456Z" } }));
    let created = leases.create(&PostParams::default(), &lease).await.expect("created");
    let renewed = created.spec.as_ref().and_then(|spec| spec.renew_time.clone()).expect("a time");
    assert_eq!(renewed.0.subsec_microsecond(), 123_456);
    assert_refused(leases.replace("a", &PostParams::default(), &lease).await, 422, "Invalid");
    leases.replace("a", &PostParams::default(), &created).await.expect("replaced");

    let probes = probes(&client, &namespace);
    probes.create(&PostParams::default(), &probe("a", json!({}))).await.expect("created");
    let replaced = probes.replace("a", &PostParams::default(), &probe("a", json!({ "n": 1 }))).await;
    assert_refused(replaced, 422, "Invalid");
}

pub async fn a_patch_with_a_stale_version_is_a_conflict(client: Client) {
    let namespace = namespace(&client).await;
    let probes = probes(&client, &namespace);
    let created = probes.create(&PostParams::default(), &probe("a", json!({}))).await.expect("created");
    let patch = json!({ "metadata": { "resourceVersion": created.resource_version() }, "spec": { "n": 1 } });
    probes.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    let again = json!({ "metadata": { "resourceVersion": created.resource_version() }, "spec": { "n": 2 } });
    let result = probes.patch("a", &PatchParams::default(), &Patch::Merge(&again)).await;
    assert_refused(result, 409, "Conflict");
    let status = json!({ "metadata": { "resourceVersion": created.resource_version() },
        "status": { "n": 2 } });
    let result = probes.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await;
    assert_refused(result, 409, "Conflict");
}

pub async fn a_json_patch_stops_at_a_test_that_fails(client: Client) {
    let namespace = namespace(&client).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    maps.create(&PostParams::default(), &map("a", json!({ "n": "1" }))).await.expect("created");
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/a");
    let patch = |expected: &str| {
        json!([{ "op": "add", "path": "/data/m", "value": "new" },
            { "op": "test", "path": "/data/n", "value": expected }])
    };
    let kind = "application/json-patch+json";
    let result = raw::<ConfigMap>(&client, "PATCH", &path, kind, patch("2")).await;
    assert_eq!(refused(result).code, 422);
    assert!(!maps.get("a").await.expect("the map").data.expect("data").contains_key("m"));
    raw::<ConfigMap>(&client, "PATCH", &path, kind, patch("1")).await.expect("patched");
    assert_eq!(maps.get("a").await.expect("the map").data.expect("data")["m"], "new");
}

pub async fn a_strategic_patch_replaces_taints_and_merges_conditions(client: Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = node(&client).await;
    let name = node.name_any();
    let taints = |key: &str| json!({ "spec": { "taints": [{ "key": key, "value": "x", "effect": "PreferNoSchedule" }] } });
    for key in ["one", "two"] {
        let patch = taints(key);
        nodes.patch(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("patched");
    }
    let taints = nodes.get(&name).await.expect("the node").spec.and_then(|spec| spec.taints);
    let keys: Vec<String> = taints.unwrap_or_default().into_iter().map(|taint| taint.key).collect();
    assert!(keys.contains(&"two".to_owned()) && !keys.contains(&"one".to_owned()), "{keys:?}");

    let patch = json!({ "status": { "conditions": [{ "type": "Contract", "status": "True" }] } });
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("patched");
    let conditions = nodes.get(&name).await.expect("the node").status.and_then(|status| status.conditions);
    let kinds: Vec<String> = conditions.unwrap_or_default().into_iter().map(|one| one.type_).collect();
    assert!(kinds.contains(&"Ready".to_owned()) && kinds.contains(&"Contract".to_owned()), "{kinds:?}");
    nodes.delete(&name, &DeleteParams::default()).await.expect("deleted");
}

pub async fn custom_resources_take_no_strategic_patch(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    probes.create(&PostParams::default(), &probe("a", json!({}))).await.expect("created");
    let patch = json!({ "spec": { "n": 1 } });
    let result = probes.patch("a", &PatchParams::default(), &Patch::Strategic(&patch)).await;
    assert_refused(result, 415, "UnsupportedMediaType");
}

pub async fn server_side_apply_creates_and_merges(client: Client) {
    let maps = maps(&client).await;
    let apply = |data: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data });
    let params = PatchParams::apply("contract");
    maps.patch("a", &params, &Patch::Apply(&apply(json!({ "n": "1" })))).await.expect("created");
    let other = PatchParams::apply("another");
    maps.patch("a", &other, &Patch::Apply(&apply(json!({ "m": "2" })))).await.expect("merged");
    let data = maps.get("a").await.expect("the map").data.expect("data");
    assert_eq!((data["n"].as_str(), data["m"].as_str()), ("1", "2"));
    let nobody = maps.patch("a", &PatchParams::default(), &Patch::Apply(&apply(json!({})))).await;
    assert_eq!(refused(nobody).code / 100, 4);
}

pub async fn status_is_a_world_of_its_own(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    let mut object = probe("a", json!({ "n": 1 }));
    object.data["status"] = json!({ "early": true });
    let created = probes.create(&PostParams::default(), &object).await.expect("created");
    assert!(created.data.get("status").is_none());
    assert_eq!(created.metadata.generation, Some(1));

    let both = json!({ "spec": { "n": 2 }, "status": { "seen": 2 } });
    let params = PatchParams::default();
    let patched = probes.patch("a", &params, &Patch::Merge(&both)).await.expect("patched");
    assert!(patched.data.get("status").is_none());
    assert_eq!((patched.data["spec"]["n"].as_i64(), patched.metadata.generation), (Some(2), Some(2)));

    let both = json!({ "spec": { "n": 3 }, "status": { "seen": 3 } });
    let patched = probes.patch_status("a", &params, &Patch::Merge(&both)).await.expect("patched");
    assert_eq!(patched.data["spec"]["n"].as_i64(), Some(2));
    assert_eq!(patched.data["status"]["seen"].as_i64(), Some(3));
    assert_eq!(patched.metadata.generation, Some(2));

    let label = json!({ "metadata": { "labels": { "l": "1" } } });
    let patched = probes.patch("a", &params, &Patch::Merge(&label)).await.expect("patched");
    assert_eq!(patched.metadata.generation, Some(2));
}

pub async fn a_change_of_nothing_keeps_the_version(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    let created =
        probes.create(&PostParams::default(), &probe("a", json!({ "n": 1 }))).await.expect("created");
    let same = json!({ "spec": { "n": 1 } });
    let patched = probes.patch("a", &PatchParams::default(), &Patch::Merge(&same)).await.expect("patched");
    assert_eq!(patched.resource_version(), created.resource_version());
}

pub async fn deletion_checks_its_preconditions(client: Client) {
    let maps = maps(&client).await;
    let created = maps.create(&PostParams::default(), &map("a", json!({}))).await.expect("created");
    let with = |uid: Option<String>, resource_version: Option<String>| {
        DeleteParams::default().preconditions(Preconditions { uid, resource_version })
    };
    let wrong = maps.delete("a", &with(Some("no".to_owned()), None)).await;
    assert_refused(wrong, 409, "Conflict");
    let wrong = maps.delete("a", &with(None, Some("1".to_owned()))).await;
    assert_refused(wrong, 409, "Conflict");
    let deleted = maps.delete("a", &with(created.uid(), created.resource_version())).await.expect("deleted");
    assert!(deleted.right().is_some_and(|status| status.is_success()));
    assert_refused(maps.delete("a", &DeleteParams::default()).await, 404, "NotFound");
}

pub async fn finalizers_hold_an_object(client: Client) {
    let maps = maps(&client).await;
    let mut object = map("a", json!({}));
    object.metadata.finalizers = Some(vec!["spotguard.dev/contract".to_owned()]);
    maps.create(&PostParams::default(), &object).await.expect("created");
    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("accepted");
    assert!(deleted.left().is_some_and(|map| map.metadata.deletion_timestamp.is_some()));
    assert!(maps.get("a").await.expect("still there").metadata.deletion_timestamp.is_some());
    let release = json!({ "metadata": { "finalizers": null } });
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&release)).await.expect("released");
    assert_refused(maps.get("a").await, 404, "NotFound");
}

pub async fn dry_runs_change_nothing(client: Client) {
    let maps = maps(&client).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("a", json!({}))).await.expect("would be created");
    assert_refused(maps.get("a").await, 404, "NotFound");
    maps.create(&PostParams::default(), &map("a", json!({}))).await.expect("created");
    let patch = json!({ "data": { "n": "1" } });
    let patched = maps.patch("a", &PatchParams::default().dry_run(), &Patch::Merge(&patch)).await;
    assert!(patched.expect("would be patched").data.is_some());
    maps.delete("a", &DeleteParams::default().dry_run()).await.expect("would be deleted");
    let data = maps.get("a").await.expect("the map").data;
    assert!(data.is_none_or(|data| data.is_empty()));
}

pub async fn lists_select_and_page(client: Client) {
    let namespace = namespace(&client).await;
    let probes = probes(&client, &namespace);
    for (name, colour) in [("a", "red"), ("b", "green"), ("c", "red"), ("d", "blue")] {
        let mut object = probe(name, json!({}));
        object.metadata.labels = Some([("colour".to_owned(), colour.to_owned())].into());
        probes.create(&PostParams::default(), &object).await.expect("created");
    }
    for (selector, names) in [
        ("colour=red", vec!["a", "c"]),
        ("colour!=red", vec!["b", "d"]),
        ("colour in (green,blue)", vec!["b", "d"]),
        ("colour notin (green),colour", vec!["a", "c", "d"]),
        ("!colour", vec![]),
    ] {
        let list = probes.list(&ListParams::default().labels(selector)).await.expect("a list");
        assert_eq!(list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), names, "{selector}");
    }
    let one = probes.list(&ListParams::default().fields("metadata.name=b")).await.expect("a list");
    assert_eq!(one.items.len(), 1);
    assert_refused(probes.list(&ListParams::default().labels("((")).await, 400, "BadRequest");

    let first = probes.list(&ListParams::default().limit(3)).await.expect("a page");
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (3, Some(1)));
    let token = first.metadata.continue_.expect("a token");
    let rest = probes.list(&ListParams::default().limit(3).continue_token(&token)).await.expect("a page");
    assert_eq!(rest.items.len(), 1);
    assert!(rest.metadata.continue_.is_none_or(|token| token.is_empty()));
    assert_eq!(first.metadata.resource_version, rest.metadata.resource_version);
}

async fn events_of<K>(api: &Api<K>, params: &WatchParams, version: &str, count: usize) -> Vec<WatchEvent<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let events = api.watch(params, version).await.expect("a watch").take(count);
    let collected = tokio::time::timeout(Duration::from_secs(20), events.try_collect());
    collected.await.expect("so many events").expect("no errors")
}

pub async fn a_watch_tells_everything_in_order(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    let version = probes.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let red = json!({ "metadata": { "labels": { "colour": "red" } } });
    let green = json!({ "metadata": { "labels": { "colour": "green" } } });
    let params = PatchParams::default();
    probes.create(&PostParams::default(), &probe("a", json!({}))).await.expect("created");
    probes.patch("a", &params, &Patch::Merge(&red)).await.expect("patched");
    probes.patch("a", &params, &Patch::Merge(&green)).await.expect("patched");
    let last = probes.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert!(last.is_right());

    let version = version.expect("a version");
    let seen = events_of(&probes, &WatchParams::default().disable_bookmarks(), &version, 4).await;
    assert!(matches!(
        &seen[..],
        [WatchEvent::Added(_), WatchEvent::Modified(_), WatchEvent::Modified(_), WatchEvent::Deleted(_)]
    ));
    let WatchEvent::Deleted(gone) = &seen[3] else { return };
    let WatchEvent::Modified(changed) = &seen[2] else { return };
    assert_ne!(gone.resource_version(), changed.resource_version());

    // For a selector, an object comes when it begins to match and goes when it ceases to.
    let selected = WatchParams::default().disable_bookmarks().labels("colour=red");
    let seen = events_of(&probes, &selected, &version, 2).await;
    assert!(matches!(&seen[..], [WatchEvent::Added(_), WatchEvent::Deleted(_)]), "{seen:?}");
    let later = changed.resource_version().expect("a version");
    let seen = events_of(&probes, &WatchParams::default().disable_bookmarks(), &later, 1).await;
    assert!(matches!(&seen[..], [WatchEvent::Deleted(_)]));
}

pub async fn a_watch_without_a_version_starts_with_what_is_there(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    for name in ["a", "b"] {
        probes.create(&PostParams::default(), &probe(name, json!({}))).await.expect("created");
    }
    let seen = events_of(&probes, &WatchParams::default().disable_bookmarks(), "0", 2).await;
    assert!(matches!(&seen[..], [WatchEvent::Added(_), WatchEvent::Added(_)]), "{seen:?}");
}

pub async fn a_streaming_list_ends_with_a_bookmark(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    probes.create(&PostParams::default(), &probe("a", json!({}))).await.expect("created");
    let seen = events_of(&probes, &WatchParams::streaming_lists(), "", 2).await;
    let [WatchEvent::Added(_), WatchEvent::Bookmark(mark)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
}

pub async fn a_watch_ends_after_its_timeout(client: Client) {
    let probes = probes(&client, &namespace(&client).await);
    let version = probes.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let params = WatchParams::default().timeout(1);
    let events = probes.watch(&params, &version.expect("a version")).await.expect("a watch");
    let all: Result<Vec<_>, _> =
        tokio::time::timeout(Duration::from_secs(20), events.try_collect()).await.expect("an end");
    let only_bookmarks = all.expect("no errors").iter().all(|event| matches!(event, WatchEvent::Bookmark(_)));
    assert!(only_bookmarks);
}

pub async fn malformed_requests_are_refused(client: Client) {
    let namespace = namespace(&client).await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let json = "application/json";
    let result = raw_text::<Value>(&client, "POST", &path, json, b"{ no".to_vec()).await;
    assert_refused(result, 400, "BadRequest");
    let wrong_kind = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } });
    assert_refused(raw::<Value>(&client, "POST", &path, json, wrong_kind).await, 400, "BadRequest");
    let wrong_type = json!({ "metadata": { "name": "a" }, "data": { "n": 1 }, "kind": "ConfigMap",
        "apiVersion": "v1" });
    assert_refused(raw::<Value>(&client, "POST", &path, json, wrong_type).await, 400, "BadRequest");
    let elsewhere = json!({ "metadata": { "name": "a", "namespace": "default" }, "kind": "ConfigMap",
        "apiVersion": "v1" });
    assert_refused(raw::<Value>(&client, "POST", &path, json, elsewhere).await, 400, "BadRequest");
    let versioned = json!({ "metadata": { "name": "a", "resourceVersion": "1" }, "kind": "ConfigMap",
        "apiVersion": "v1" });
    assert_refused(raw::<Value>(&client, "POST", &path, json, versioned).await, 500, "");
    let nowhere = raw::<Value>(&client, "GET", "/apis/nobody.example.com/v1/things", json, ()).await;
    assert_eq!(refused(nowhere).code, 404);
    let lost: Api<ConfigMap> = Api::namespaced(client.clone(), "contract-no-such-namespace");
    assert_refused(lost.create(&PostParams::default(), &map("a", json!({}))).await, 404, "NotFound");
}

pub async fn graceful_deletion_only_gets_shorter(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    running_pod(&client, &namespace, &node, "a").await;
    let grace = |seconds| DeleteParams::default().grace_period(seconds);
    let deleted = pods.delete("a", &grace(600)).await.expect("accepted").left().expect("the pod");
    assert_eq!(deleted.metadata.deletion_grace_period_seconds, Some(600));
    let longer = pods.delete("a", &grace(900)).await.expect("accepted").left().expect("the pod");
    assert_eq!(longer.metadata.deletion_grace_period_seconds, Some(600));
    assert_eq!(longer.metadata.deletion_timestamp, deleted.metadata.deletion_timestamp);
    let shorter = pods.delete("a", &grace(300)).await.expect("accepted").left().expect("the pod");
    assert_eq!(shorter.metadata.deletion_grace_period_seconds, Some(300));
    assert!(shorter.metadata.deletion_timestamp < deleted.metadata.deletion_timestamp);
    pods.delete("a", &grace(0)).await.expect("deleted");
    assert_refused(pods.get("a").await, 404, "NotFound");
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

pub async fn pods_without_a_node_are_deleted_at_once(client: Client) {
    let namespace = namespace(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let object: Pod = parse(json!({ "metadata": { "name": "a" }, "spec": {
        "nodeSelector": { "contract.spotguard.dev/no-such-node": "true" },
        "containers": [{ "name": "main", "image": "app:1" }] } }));
    let created = pods.create(&PostParams::default(), &object).await.expect("created");
    let spec = created.spec.expect("a spec");
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(spec.priority, Some(0));
    assert!(
        spec.tolerations
            .unwrap_or_default()
            .iter()
            .any(|toleration| toleration.key.as_deref() == Some("node.kubernetes.io/not-ready")
                && toleration.toleration_seconds == Some(300))
    );
    // It waits for nobody: no budget is asked, and no kubelet.
    pods.evict("a", &EvictParams::default()).await.expect("evicted");
    assert_refused(pods.get("a").await, 404, "NotFound");
}

pub async fn evicting_what_is_not_there_is_not_found(client: Client) {
    let namespace = namespace(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    assert_refused(pods.evict("a", &EvictParams::default()).await, 404, "NotFound");
}

pub async fn an_eviction_needs_room_in_its_budget(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for name in ["a", "b"] {
        running_pod(&client, &namespace, &node, name).await;
    }
    budget(&client, &namespace, "web", 1).await;
    allows(&client, &namespace, "web", 1).await;
    let dry = EvictParams {
        post_options: PostParams { dry_run: true, ..PostParams::default() },
        ..EvictParams::default()
    };
    pods.evict("a", &dry).await.expect("room");
    pods.evict("b", &dry).await.expect("still room");
    let status = pods.evict("a", &EvictParams::default()).await.expect("evicted");
    assert!(status.is_success());
    if let Ok(evicted) = pods.get("a").await {
        assert!(evicted.metadata.deletion_timestamp.is_some());
        let conditions = evicted.status.and_then(|status| status.conditions).unwrap_or_default();
        assert!(conditions.iter().any(|condition| condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason.as_deref() == Some("EvictionByEvictionAPI")));
    }
    for params in [dry, EvictParams::default()] {
        let status = assert_refused(pods.evict("b", &params).await, 429, "TooManyRequests");
        assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let details = status.details.expect("details");
        assert_eq!(details.retry_after_seconds, 0);
        assert_eq!(details.causes[0].reason, "DisruptionBudget");
    }
    // A pod that is not ready may go: the application has what it needs without it.
    running_pod(&client, &namespace, &node, "c").await;
    allows(&client, &namespace, "web", 1).await;
    set_ready(&pods, "c", false).await;
    allows(&client, &namespace, "web", 0).await;
    pods.evict("c", &EvictParams::default()).await.expect("evicted");
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

pub async fn a_budget_needs_to_be_observed(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    running_pod(&client, &namespace, &node, "a").await;
    budget(&client, &namespace, "web", 1).await;
    allows(&client, &namespace, "web", 0).await;
    // Nobody observes generations of a budget faster than one request follows another: in the same breath,
    // the change is always ahead of its controller or its controller says no.
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
    let change = json!({ "spec": { "minAvailable": 2 } });
    budgets.patch("web", &PatchParams::default(), &Patch::Merge(&change)).await.expect("patched");
    let status = assert_refused(pods.evict("a", &EvictParams::default()).await, 429, "TooManyRequests");
    let details = status.details.expect("details");
    assert!([0, 10].contains(&details.retry_after_seconds));
    assert_eq!(details.causes[0].reason, "DisruptionBudget");
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

fn eviction(name: &str, namespace: &str, uid: &str) -> Value {
    json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": namespace },
        "deleteOptions": { "preconditions": { "uid": uid } } })
}

pub async fn an_eviction_checks_the_uid(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pod = running_pod(&client, &namespace, &node, "a").await;
    let path = format!("/api/v1/namespaces/{namespace}/pods/a/eviction");
    let json = "application/json";
    let wrong = eviction("a", &namespace, "00000000-0000-4000-a000-000000000000");
    assert_refused(raw::<Value>(&client, "POST", &path, json, wrong).await, 409, "Conflict");
    let misnamed = eviction("b", &namespace, "x");
    assert_eq!(refused(raw::<Value>(&client, "POST", &path, json, misnamed).await).code, 400);
    let right = eviction("a", &namespace, &pod.uid().expect("a uid"));
    let status: Status = raw(&client, "POST", &path, json, right).await.expect("evicted");
    assert!(status.is_success());
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

/// kube writes `delete_options` where the API reads `deleteOptions`: the preconditions of an eviction have to
/// be sent by a request of one's own. When this test fails, the library is repaired.
pub async fn the_client_library_loses_the_options_of_an_eviction(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    running_pod(&client, &namespace, &node, "a").await;
    let preconditions = Preconditions { uid: Some("not this one".to_owned()), resource_version: None };
    let params = EvictParams {
        delete_options: Some(DeleteParams::default().preconditions(preconditions)),
        ..EvictParams::default()
    };
    pods.evict("a", &params).await.expect("evicted all the same");
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

pub async fn two_budgets_refuse_each_eviction(client: Client) {
    let (namespace, node) = (namespace(&client).await, node(&client).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    running_pod(&client, &namespace, &node, "a").await;
    for name in ["one", "two"] {
        budget(&client, &namespace, name, 0).await;
        allows(&client, &namespace, name, 1).await;
    }
    let status = assert_refused(pods.evict("a", &EvictParams::default()).await, 500, "");
    assert!(status.message.starts_with("This pod has more than one PodDisruptionBudget"));
    assert!(pods.get("a").await.expect("the pod").metadata.deletion_timestamp.is_none());
    Api::<Node>::all(client).delete(&node.name_any(), &DeleteParams::default()).await.expect("deleted");
}

pub async fn access_reviews_are_answered(client: Client) {
    let review: SelfSubjectAccessReview = parse(json!({ "metadata": {}, "spec": { "resourceAttributes": {
        "verb": "create", "group": "spotguard.dev", "resource": "interruptionnotices" } } }));
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.expect("an answer");
    assert!(answer.status.is_some_and(|status| status.allowed));
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!(version.major, "1");
}

pub async fn a_right_is_that_of_the_user_and_the_groups(client: Client) {
    let attributes =
        json!({ "verb": "update", "group": "spotguard.dev", "resource": "nodereplacements", "name": "i-1" });
    for (groups, allowed) in [(json!(["system:authenticated"]), false), (json!(["system:masters"]), true)] {
        let review: SubjectAccessReview = parse(json!({ "metadata": {}, "spec": {
            "user": "somebody", "groups": groups, "extra": { "scopes": ["a"] }, "resourceAttributes": attributes } }));
        let answer =
            Api::all(client.clone()).create(&PostParams::default(), &review).await.expect("an answer");
        assert_eq!(answer.status.expect("a status").allowed, allowed, "{groups}");
    }
}

pub async fn a_token_that_nobody_gave_is_not_valid(client: Client) {
    let review: TokenReview = parse(json!({ "metadata": {}, "spec": { "token": "nobody-gave-it" } }));
    let status = Api::all(client).create(&PostParams::default(), &review).await.expect("an answer").status;
    let status = status.expect("a status");
    assert_ne!(status.authenticated, Some(true));
    assert!(status.user.and_then(|user| user.username).unwrap_or_default().is_empty());
    assert!(status.error.is_some_and(|error| error.contains("invalid bearer token")));
}
