//! The custom resource definitions that `spot-guard crds` prints, on a real API server: they are established,
//! show their columns, and refuse bad objects with a message that names the field.

use crate::product::{self, kubectl};
use crate::testbed::Testbed;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Value, json};
use spot_guard::crd::{
    InterruptionNotice, NodeReplacement, NodeReplacementSpec, SpotAction, SpotPool, SpotPoolStatus,
};
use spot_guard_core::record::{Phase, ReplacementStatus};
use spot_guard_core::spot_action::ActionKind;

fn pool(spec: Value) -> Value {
    let mut object = json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotPool",
        "metadata": { "name": "workers" }, "spec": { "spotGroup": "a", "onDemandGroup": "b" } });
    merge(&mut object["spec"], spec);
    object
}

fn notice(name: &str, spec: Value) -> Value {
    let mut object = json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": "InterruptionNotice",
        "metadata": { "name": name },
        "spec": { "nodeName": "spot-a", "instanceId": "i-0a1b2c3d4e5f60718", "kind": "SpotInterruption",
            "detectedAt": "2026-03-01T12:00:00Z" } });
    merge(&mut object["spec"], spec);
    object
}

fn replacement(spec: Value) -> Value {
    let mut object = json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": "NodeReplacement",
        "metadata": { "name": "i-0a1b2c3d4e5f60718" },
        "spec": { "pool": "workers", "nodeName": "spot-a", "instanceId": "i-0a1b2c3d4e5f60718" } });
    merge(&mut object["spec"], spec);
    object
}

fn spot_action(spec: Value) -> Value {
    json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotAction",
        "metadata": { "name": "asked-by-me" }, "spec": spec })
}

fn merge(object: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("an object") };
    for (key, value) in changes {
        object[key] = value;
    }
}

/// Sends an object as it is written, unknown fields and all, and asks for strict validation.
async fn create(client: &Client, object: &Value) -> Result<DynamicObject, Error> {
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let path = format!("/apis/spotguard.dev/v1alpha1/{kind}s?fieldValidation=Strict");
    let request = http::Request::post(path);
    let request = request.header("content-type", "application/json");
    client.request(request.body(object.to_string().into_bytes()).expect("a request")).await
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> Status {
    match answer {
        Err(Error::Api(status)) => *status,
        other => panic!("this should have been refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_objects_are_refused_with_a_message_that_names_the_field() {
    let testbed = Testbed::start_without_kubelets("crds").await;
    product::install_crds(&testbed).await;
    let client = testbed.client();
    kubectl(
        &testbed,
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/spotpools.spotguard.dev",
            "crd/interruptionnotices.spotguard.dev",
            "crd/nodereplacements.spotguard.dev",
            "crd/spotactions.spotguard.dev",
        ],
    );

    let instance = "i-0a1b2c3d4e5f60718";
    let name = &format!("spot-a.{instance}-spot-interruption");
    let adopted = json!({ "instanceId": instance, "nodeName": "n", "requestsSpot": true });
    let bad = [
        (pool(json!({ "mode": "Dream" })), "spec.mode"),
        (pool(json!({ "rebalance": "Maybe" })), "spec.rebalance"),
        (pool(json!({ "spotGroup": "b" })), "spec.onDemandGroup must differ from spec.spotGroup"),
        (pool(json!({ "spotGroup": "" })), "spec.spotGroup"),
        (pool(json!({ "onDemandGroup": null })), "spec.onDemandGroup"),
        (pool(json!({ "policy": { "maxUtilisationPercent": 101 } })), "spec.policy.maxUtilisationPercent"),
        (pool(json!({ "policy": { "spotTimeoutSeconds": 0 } })), "spec.policy.spotTimeoutSeconds"),
        (pool(json!({ "policy": { "joinTimeoutSeconds": 9 } })), "spec.policy.joinTimeoutSeconds"),
        (pool(json!({ "policy": { "joinTimeoutSeconds": 86_401 } })), "spec.policy.joinTimeoutSeconds"),
        (pool(json!({ "policy": { "stabilitySeconds": "long" } })), "spec.policy.stabilitySeconds"),
        (pool(json!({ "policy": { "stabilityMinutes": 2 } })), "spec.policy.stabilityMinutes"),
        (pool(json!({ "spotgroup": "a" })), "spec.spotgroup"),
        (pool(json!({ "onDemand": { "baseline": -1 } })), "spec.onDemand.baseline"),
        (pool(json!({ "onDemand": { "baseline": 10_001 } })), "spec.onDemand.baseline"),
        (pool(json!({ "onDemand": { "adoptAfterSeconds": 59 } })), "spec.onDemand.adoptAfterSeconds"),
        (pool(json!({ "onDemand": { "base": 1 } })), "spec.onDemand.base"),
        (notice("x", json!({})), "metadata.name must be <spec.nodeName>"),
        // Not a prefix: node `spot-a` has no name of node `spot-a.b`, and the kind is the notice's own.
        (notice(name, json!({ "nodeName": "spot-a.b" })), "metadata.name must be <spec.nodeName>"),
        (notice(&format!("{name}-2"), json!({})), "metadata.name must be <spec.nodeName>"),
        (notice(name, json!({ "kind": "RebalanceRecommendation" })), "metadata.name must be"),
        (notice(name, json!({ "kind": "Manual" })), "spec.kind must be"),
        (notice(name, json!({ "nodeName": "n".repeat(209) })), "spec.nodeName"),
        (notice(name, json!({ "traceparent": "0".repeat(56) })), "spec.traceparent"),
        (notice(name, json!({ "instanceId": "my-server" })), "spec.instanceId"),
        (notice(name, json!({ "kind": "Rumour" })), "spec.kind"),
        (notice(name, json!({ "nodeName": "" })), "spec.nodeName"),
        (notice(name, json!({ "deadline": "soon" })), "spec.deadline"),
        (notice(name, json!({ "nodename": "spot-a" })), "spec.nodename"),
        (replacement(json!({ "instanceId": "my-server" })), "spec.instanceId"),
        (replacement(json!({ "nodeName": "" })), "spec.nodeName"),
        (replacement(json!({ "pool": "a", "adopted": adopted })), "one of spec.place and spec.adopted"),
        (spot_action(json!({})), "spec.action"),
        (spot_action(json!({ "action": "Explode" })), "spec.action"),
        (spot_action(json!({ "action": "Return", "pool": "a", "node": "b" })), "at most one of spec.pool"),
        (spot_action(json!({ "action": "Replace" })), "action Replace needs spec.node"),
        (spot_action(json!({ "action": "Replace", "pool": "a" })), "action Replace needs spec.node"),
        (spot_action(json!({ "action": "Return" })), "action Return needs"),
        (spot_action(json!({ "action": "Cancel", "pool": "a" })), "action Cancel needs"),
        (spot_action(json!({ "action": "Pause", "node": "a" })), "actions Pause and Resume take spec.pool"),
        (spot_action(json!({ "action": "Resume", "replacement": "a" })), "actions Pause and Resume take"),
        (spot_action(json!({ "action": "Replace", "node": "" })), "spec.node"),
        (spot_action(json!({ "action": "Pause", "reason": "x".repeat(1025) })), "spec.reason"),
        (spot_action(json!({ "action": "Pause", "until": "noon" })), "spec.until"),
    ];
    for (object, field) in &bad {
        let status = refused(create(&client, object).await);
        assert!(matches!(status.code, 400 | 422), "{object}: {status:?}");
        assert!(status.message.contains(field), "{object}: {}", status.message);
    }

    schedules_are_read_when_they_are_written(&client).await;

    // What is not known is refused with strict validation, as kubectl asks for; else it is dropped.
    create(&client, &pool(json!({}))).await.expect("a pool with nothing but its groups");
    create(&client, &notice(name, json!({}))).await.expect("a notice");
    create(&client, &replacement(json!({}))).await.expect("a replacement");
    create(&client, &spot_action(json!({ "action": "Pause", "requestedBy": "me" })))
        .await
        .expect("a SpotAction");
    the_defaults_are_filled_in(&client).await;
    what_was_seen_never_changes(&client, name).await;
    what_was_asked_never_changes(&client).await;
    status_is_written_apart(&client).await;
    the_groups_stay_while_requests_are_open(&client).await;
    columns_are_printed(&testbed);
}

/// As far as a pattern can: a day that never comes, and a time zone that nobody knows, are a condition of the
/// pool.
async fn schedules_are_read_when_they_are_written(client: &Client) {
    let with = |schedule: &str| {
        let window = json!({ "schedule": schedule, "durationSeconds": 3600 });
        let mut object = pool(json!({ "policy": { "returnWindows": [window] } }));
        object["metadata"]["name"] = json!("windows");
        object
    };
    let fields = "must be five fields";
    let bad = [
        ("0 22 * * * *", fields),
        ("0 22 * * MON-FRI UTC", fields),
        ("every day at 10 pm", "the field for the minute"),
        ("@weekly 1 2 3 4", "the field for the minute"),
        ("60 22 * * *", "the field for the minute"),
        ("*/0 22 * * *", "the field for the minute"),
        ("0 24 * * *", "the field for the hour"),
        ("0 22-25 * * *", "the field for the hour"),
        ("0 22 0 * *", "the field for the day of month"),
        ("0 22 32 * *", "the field for the day of month"),
        ("0 22 * 13 *", "the field for the month"),
        ("0 22 * JANUARY *", "the field for the month"),
        ("0 22 * * 8", "the field for the day of week"),
        ("0 22 * * MON,FUN", "the field for the day of week"),
    ];
    for (schedule, why) in bad {
        let status = refused(create(client, &with(schedule)).await);
        let field = "spec.policy.returnWindows[0].schedule";
        assert!(
            status.message.contains(field) && status.message.contains(why),
            "{schedule}: {}",
            status.message
        );
    }
    let pools: Api<SpotPool> = Api::all(client.clone());
    for schedule in [
        "0 22 * * *",
        "*/15 0-6 1,15 jan-Jun MON-FRI",
        "05  4  L * 5#3",
        "0 3 15W 2 5L",
        "0 0-23/2 * */3 0,7",
    ] {
        create(client, &with(schedule)).await.unwrap_or_else(|error| panic!("{schedule}: {error}"));
        let window = pools.get("windows").await.expect("the pool").spec.policy.return_windows;
        window.expect("windows")[0].validate().unwrap_or_else(|why| panic!("{schedule}: {why}"));
        pools.delete("windows", &Default::default()).await.expect("deleted");
    }
}

async fn the_defaults_are_filled_in(client: &Client) {
    let pools: Api<SpotPool> = Api::all(client.clone());
    let spec = pools.get("workers").await.expect("the pool").spec;
    assert_eq!(serde_json::to_value(spec.mode).expect("JSON"), "Act");
    assert_eq!(serde_json::to_value(spec.rebalance).expect("JSON"), "Replace");
    assert!(!spec.paused);
}

async fn what_was_seen_never_changes(client: &Client, name: &str) {
    let notices: Api<InterruptionNotice> = Api::all(client.clone());
    let mut changed = notices.get(name).await.expect("the notice");
    changed.spec.node_name = "spot-b".into();
    let status = refused(notices.replace(name, &PostParams::default(), &changed).await);
    assert!(status.message.contains("spec is immutable: a notice never changes"), "{}", status.message);

    let records: Api<NodeReplacement> = Api::all(client.clone());
    let mut changed = records.get("i-0a1b2c3d4e5f60718").await.expect("the replacement");
    changed.spec.pool = None;
    let status = refused(records.replace("i-0a1b2c3d4e5f60718", &PostParams::default(), &changed).await);
    assert!(status.message.contains("spec is immutable"), "{}", status.message);
}

async fn what_was_asked_never_changes(client: &Client) {
    let spot_actions: Api<SpotAction> = Api::all(client.clone());
    let mut changed = spot_actions.get("asked-by-me").await.expect("the SpotAction");
    changed.spec.action = ActionKind::Resume;
    let status = refused(spot_actions.replace("asked-by-me", &PostParams::default(), &changed).await);
    assert!(status.message.contains("spec is immutable: create another SpotAction"), "{}", status.message);
}

async fn status_is_written_apart(client: &Client) {
    let records: Api<NodeReplacement> = Api::all(client.clone());
    let spec = NodeReplacementSpec {
        pool: Some("workers".into()),
        node_name: "spot-b".into(),
        instance_id: "i-0a1b2c3d4e5f60719".into(),
        place: None,
        adopted: None,
    };
    let mut record = NodeReplacement::new("i-0a1b2c3d4e5f60719", spec);
    record.status = Some(ReplacementStatus { phase: Phase::Draining, ..ReplacementStatus::default() });
    let mut record = records.create(&PostParams::default(), &record).await.expect("a record");
    assert_eq!(record.status, None, "creation takes no status");
    record.status = Some(ReplacementStatus { phase: Phase::Draining, ..ReplacementStatus::default() });
    let written = records.replace_status("i-0a1b2c3d4e5f60719", &PostParams::default(), &record).await;
    let written = written.expect("its status");
    assert_eq!(written.status.as_ref().map(|status| status.phase), Some(Phase::Draining));
    assert_eq!(written.metadata.generation, record.metadata.generation, "no new generation");
    let stale = refused(records.replace_status("i-0a1b2c3d4e5f60719", &PostParams::default(), &record).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"), "a stale writer is refused");

    let pools: Api<SpotPool> = Api::all(client.clone());
    let mut pool = pools.get("workers").await.expect("the pool");
    pool.status = Some(SpotPoolStatus { active_fallbacks: 2, ..SpotPoolStatus::default() });
    pools.replace_status("workers", &PostParams::default(), &pool).await.expect("its status");
}

/// What was requested of a group is taken back from that group, so a pool keeps it.
async fn the_groups_stay_while_requests_are_open(client: &Client) {
    let pools: Api<SpotPool> = Api::all(client.clone());
    let requests = async |open: Value| {
        let status = Patch::Merge(json!({ "status": { "scalingRequests": open } }));
        pools.patch_status("workers", &PatchParams::default(), &status).await.expect("its status");
    };
    let name = async |field: &str, group: &str| {
        let spec = Patch::Merge(json!({ "spec": { field: group } }));
        pools.patch("workers", &PatchParams::default(), &spec).await
    };
    requests(json!([{
        "id": "1", "group": "OnDemand", "groupName": "b", "desiredBefore": 1, "target": 2, "instancesBefore": [],
        "requestedAt": "2026-03-01T12:00:00Z", "state": "Applied", "shares": [],
    }]))
    .await;
    for field in ["spotGroup", "onDemandGroup"] {
        let status = refused(name(field, "other").await);
        assert!(status.message.contains("cannot change while requests are open"), "{}", status.message);
    }
    for paused in [true, false] {
        let spec = Patch::Merge(json!({ "spec": { "paused": paused } }));
        pools.patch("workers", &PatchParams::default(), &spec).await.expect("all else may change");
    }
    requests(json!([])).await;
    name("spotGroup", "other").await.expect("nothing is open");
    name("spotGroup", "a").await.expect("nothing is open");
}

fn columns_are_printed(testbed: &Testbed) {
    for (kind, columns, line) in [
        (
            "spotpools",
            &[
                "NAME",
                "MODE",
                "REPLACED-BY",
                "SPOT",
                "ON-DEMAND",
                "FALLBACKS",
                "READY",
                "HEALTHY",
                "STABLE",
                "AGE",
            ][..],
            &["workers", "Act", "2"][..],
        ),
        (
            "interruptionnotices",
            &["NAME", "NODE", "INSTANCE", "KIND", "DEADLINE", "AGE"],
            &["spot-a", "i-0a1b2c3d4e5f60718", "SpotInterruption"],
        ),
        (
            "nodereplacements",
            &["NAME", "NODE", "POOL", "PHASE", "NEW-NODE", "CAPACITY", "AGE"],
            &["i-0a1b2c3d4e5f60719", "spot-b", "workers", "Draining"],
        ),
        (
            "spotactions",
            &["NAME", "ACTION", "POOL", "NODE", "REPLACEMENT", "REQUESTED-BY", "ACCEPTED", "COMPLETE", "AGE"],
            &["asked-by-me", "Pause", "me"],
        ),
    ] {
        let output = kubectl(testbed, &["get", kind]).stdout;
        let table = String::from_utf8(output).expect("a table");
        let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(header, columns, "{table}");
        let cells: Vec<&str> = table.split_whitespace().collect();
        assert!(line.iter().all(|cell| cells.contains(cell)), "{table}");
    }
    // All kinds at once, by their category.
    let all = kubectl(testbed, &["get", "spotguard", "-o", "name"]).stdout;
    assert_eq!(String::from_utf8_lossy(&all).lines().count(), 5);
}
