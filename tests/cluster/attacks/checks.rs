//! Tenants' pods with very many rules: their checks take no time from anybody else.

use crate::helpers::{object, wait_for};
use crate::imds::ImdsMock;
use crate::product::{self, NAMESPACE, PATIENCE};
use crate::stories::{Stagecraft, Tale};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use spot_guard::crd::{InterruptionNotice, NodeReplacement};
use spot_guard::sim::scenario::Scenario;
use spot_guard_core::reason::ReasonCode;
use std::time::Duration;
use tokio::time::Instant;

/// From a notice to its record. It takes a fraction of a second; an attack may add one second.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// A pod that no scheduler looks at: it waits for a node.
fn waiting(name: &str, affinity: &Value) -> Pod {
    object(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "schedulerName": "nobody",
            "affinity": affinity,
            "containers": [{ "name": "main", "image": "example.invalid/main" }],
        },
    }))
}

/// Terms that mean everybody, each another one.
fn terms(count: usize, odd: usize) -> Vec<Value> {
    let term = |number: usize| {
        let not = json!({ "key": "app", "operator": "NotIn", "values": [format!("nobody-{odd}-{number}")] });
        json!({ "topologyKey": "topology.kubernetes.io/zone", "labelSelector": { "matchExpressions": [not] } })
    };
    (0..count).map(term).collect()
}

/// 200 pods with 120 terms each, half of them of affinity, half of anti-affinity, and 500 plain ones.
async fn attack(stage: &Stagecraft) {
    let pods: Api<Pod> = Api::namespaced(stage.testbed.client(), "default");
    let evil = (0..200).map(|number| {
        let kind = if number % 2 == 0 { "podAffinity" } else { "podAntiAffinity" };
        let terms = terms(120, number);
        let affinity = json!({ kind: { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
        waiting(&format!("evil-{number}"), &affinity)
    });
    let plain = (0..500).map(|number| waiting(&format!("plain-{number}"), &Value::Null));
    let created = futures::stream::iter(evil.chain(plain))
        .map(|pod| {
            let pods = pods.clone();
            async move { pods.create(&PostParams::default(), &pod).await.expect("the API server takes it") }
        })
        .buffer_unordered(8);
    assert_eq!(created.count().await, 700);
}

async fn lease_holder(stage: &Stagecraft) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(stage.testbed.client(), NAMESPACE);
    leases.get(product::CONTROLLER).await.expect("the lease").spec?.holder_identity
}

#[actix::test]
async fn pods_with_very_many_rules_delay_nobodys_notice() {
    let tale = Tale::new(Scenario::Rebalance, Vec::new());
    let mut stage = Stagecraft::set_up("checks", &tale).await;
    let (client, cloud) = (stage.testbed.client(), stage.story.world.cloud.clone());
    let other = cloud.node_of(&stage.story.spot_instances()[1]).expect("a second Spot instance has a node");
    let mut imds = ImdsMock::quiet(&other.instance_id, &other.zone).await;
    let mut agent =
        product::start_agent_named(&stage.testbed, "other-agent", &other.node_name, &imds.endpoint()).await;
    agent.becomes_ready().await;
    attack(&stage).await;
    let holder = lease_holder(&stage).await;
    assert!(holder.is_some());

    // Whether its pods fit on the others is checked once the instance that takes over is there.
    let nodes: Api<Node> = Api::all(client.clone());
    let count = async || nodes.list(&ListParams::default()).await.ok().map(|found| found.items.len());
    let before = count().await.expect("an answer");
    stage.imds.announce_rebalance().await;
    wait_for("the instance that takes over", PATIENCE, async || {
        count().await.filter(|now| *now > before).map(drop)
    })
    .await;
    // Long enough for the check to be under way, however soon the node is Ready.
    let records: Api<NodeReplacement> = Api::all(client.clone());
    let old = stage.story.spot_instances()[0].clone();
    let notices: Api<InterruptionNotice> = Api::all(client);
    let deadline = Timestamp::now() + Duration::from_secs(120);
    imds.announce_interruption(&format!("{deadline:.0}")).await;
    wait_for("the notice", PATIENCE, async || {
        let found = notices.list(&ListParams::default()).await.ok()?.items;
        found.into_iter().any(|notice| notice.spec.instance_id == other.instance_id).then_some(())
    })
    .await;
    let told = Instant::now();
    wait_for("the record of the other node", PATIENCE, async || {
        records.get_opt(&other.instance_id).await.ok().flatten()
    })
    .await;
    let took = told.elapsed();
    println!("recorded {:.0} ms after the notice", took.as_secs_f64() * 1000.0);
    assert!(took < NOTICED_WITHIN, "{took:?}");

    wait_for("the check to be given up", PATIENCE, async || {
        let answer = stage.controller.get("/healthz").await?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let blocking = records.get(&old).await.ok()?.status?.blocking;
        blocking.iter().any(|reason| reason.reason == ReasonCode::CheckTooLarge).then_some(())
    })
    .await;
    assert_eq!(lease_holder(&stage).await, holder, "the same replica leads");
    agent.ends_well().await;
    stage.controller.ends_well().await;
}
