//! Notices: what whoever holds the token of one agent can do is to report its own node, and nothing else.

use super::agents::{Agents, Site, says};
use crate::helpers::wait_for;
use crate::product::{self, AGENT, PATIENCE, kubectl};
use crate::testbed::Testbed;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use serde_json::json;
use spot_guard::clock::Clock;
use spot_guard::crd::{NodeReplacement, SpotAction, SpotActionSpec, notice_name};
use spot_guard_cloud::cloud::InstanceSnapshot;
use spot_guard_core::record::{NoticeKind, OldNodeState};
use std::fs;
use std::time::Duration;

const KIND: NoticeKind = NoticeKind::SpotInterruption;

fn ahead(seconds: i64) -> Option<Timestamp> {
    Some(Clock::System.now() + SignedDuration::from_secs(seconds))
}

async fn record(site: &Site, instance: &str) -> Option<NodeReplacement> {
    let records: Api<NodeReplacement> = Api::all(site.testbed.client());
    records.get_opt(instance).await.expect("an answer")
}

fn spot_action(name: &str, spec: serde_json::Value) -> SpotAction {
    let spec: SpotActionSpec = serde_json::from_value(spec).expect("a SpotAction");
    SpotAction::new(name, spec)
}

async fn ask(site: &Site, name: &str, spec: serde_json::Value) {
    let spot_actions: Api<SpotAction> = Api::all(site.testbed.client());
    spot_actions.create(&PostParams::default(), &spot_action(name, spec)).await.expect("a SpotAction");
}

#[actix::test]
async fn one_agents_token_reports_its_own_node_and_nothing_else() {
    let site = Site::set_up("identity", 4).await;
    let [a, b, c, d] = &site.instances[..] else { panic!("four nodes") };
    nobody_has_the_name_of_another_nodes_notice(&site, a, b).await;
    another_nodes_story_is_not_escalated(&site, a, b).await;
    a_node_that_is_gone_ends_nobody_elses_instance(&site, c, b).await;
    a_deadline_that_ec2_never_gave_is_none(&site, d).await;
    a_node_outside_every_pool_is_left_alone(&site).await;
    site.ends_well().await;
}

/// Squatting, whole and by a prefix.
async fn nobody_has_the_name_of_another_nodes_notice(
    site: &Site,
    a: &InstanceSnapshot,
    b: &InstanceSnapshot,
) {
    let agents = &site.agents;
    let name = notice_name(&a.node_name.as_str().into(), &a.id.as_str().into(), KIND);
    let told = says(&name, &a.node_name, &a.id, KIND, ahead(60));
    assert_eq!(agents.post(&b.node_name, &told).await, 403, "a foreign node");
    let told = says(&name, &b.node_name, &a.id, KIND, ahead(60));
    assert_eq!(agents.post(&b.node_name, &told).await, 422, "a foreign name");
    for (own, foreign) in [("a", "a.b"), ("a.b", "a")] {
        let name = notice_name(&foreign.into(), &a.id.as_str().into(), KIND);
        let told = says(&name, own, &a.id, KIND, None);
        assert_eq!(agents.post(own, &told).await, 422, "node {own}, a name of {foreign}");
    }
}

/// Neither while it is open, nor by a mine that was laid before.
async fn another_nodes_story_is_not_escalated(site: &Site, a: &InstanceSnapshot, b: &InstanceSnapshot) {
    let lie = says(
        &notice_name(&b.node_name.as_str().into(), &a.id.as_str().into(), KIND),
        &b.node_name,
        &a.id,
        KIND,
        ahead(60),
    );
    assert_eq!(site.agents.post(&b.node_name, &lie).await, 201);
    site.removed(&b.node_name, &a.id).await;
    assert!(record(site, &a.id).await.is_none(), "it began a story");
    ask(site, "please", json!({ "action": "Replace", "node": a.node_name })).await;
    wait_for("the replacement", PATIENCE, async || record(site, &a.id).await?.status).await;
    assert_eq!(site.agents.post(&b.node_name, &lie).await, 201, "its name is free again");
    site.removed(&b.node_name, &a.id).await;
    let status = record(site, &a.id).await.and_then(|record| record.status).expect("a status");
    assert_eq!((status.deadline, status.notice), (None, Some(NoticeKind::Manual)));
}

async fn a_node_that_is_gone_ends_nobody_elses_instance(
    site: &Site,
    own: &InstanceSnapshot,
    foreign: &InstanceSnapshot,
) {
    let name = notice_name(&own.node_name.as_str().into(), &own.id.as_str().into(), KIND);
    let told = says(&name, &own.node_name, &own.id, KIND, ahead(40));
    assert_eq!(site.agents.post(&own.node_name, &told).await, 201);
    wait_for("its own instance to be ended", Duration::from_secs(120), async || {
        let status = record(site, &own.id).await?.status?;
        (status.old_node == OldNodeState::Gone {} && !site.has_node(&own.node_name).await).then_some(())
    })
    .await;
    for (instance, deadline) in [(foreign.id.as_str(), ahead(-20)), ("i-0123456789abcdef0", ahead(-20))] {
        let name = notice_name(&own.node_name.as_str().into(), &instance.into(), KIND);
        let lie = says(&name, &own.node_name, instance, KIND, deadline);
        assert_eq!(site.agents.post(&own.node_name, &lie).await, 201);
        site.removed(&own.node_name, instance).await;
        assert!(record(site, instance).await.is_none(), "{instance}");
    }
    let group = site.cloud.group("spot").expect("the group");
    let runs = group.instances.iter().any(|held| held.id == foreign.id && held.machine_runs);
    assert!(runs && site.has_node(&foreign.node_name).await);
}

async fn a_deadline_that_ec2_never_gave_is_none(site: &Site, own: &InstanceSnapshot) {
    let name = notice_name(&own.node_name.as_str().into(), &own.id.as_str().into(), KIND);
    let at = |deadline| says(&name, &own.node_name, &own.id, KIND, deadline);
    let far = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
    assert_eq!(site.agents.post(&own.node_name, &at(far("9998-01-01T00:00:00Z"))).await, 422);
    assert_eq!(site.agents.post(&own.node_name, &at(far("2150-01-01T00:00:00Z"))).await, 201);
    let status = wait_for("a story", PATIENCE, async || record(site, &own.id).await?.status).await;
    assert_eq!(status.deadline, None);
    ask(site, "stop", json!({ "action": "Cancel", "node": own.node_name })).await;
    wait_for("it to be cancelled", PATIENCE, async || {
        (record(site, &own.id).await?.status?.old_node == OldNodeState::Retained {}).then_some(())
    })
    .await;
    site.removed(&own.node_name, &own.id).await;
    let real = ahead(100);
    assert_eq!(site.agents.post(&own.node_name, &at(real)).await, 201, "the name is free for the real one");
    wait_for("the deadline", PATIENCE, async || {
        (record(site, &own.id).await?.status?.deadline == real).then_some(())
    })
    .await;
}

/// Unless the configuration asks for more.
async fn a_node_outside_every_pool_is_left_alone(site: &Site) {
    let others = site.cloud.group("others").expect("the group");
    let own = &others.instances[0];
    let told = says(
        &notice_name(&own.node_name.as_str().into(), &own.id.as_str().into(), KIND),
        &own.node_name,
        &own.id,
        KIND,
        ahead(300),
    );
    assert_eq!(site.agents.post(&own.node_name, &told).await, 201);
    site.removed(&own.node_name, &own.id).await;
    assert!(record(site, &own.id).await.is_none());
}

/// The manifests in a namespace of another name, as `kustomize` or a text editor puts them there.
#[actix::test]
async fn in_another_namespace_the_policy_binds_as_well() {
    const ELSEWHERE: &str = "elsewhere";
    let testbed = Testbed::start_without_kubelets("elsewhere").await;
    product::install_crds(&testbed).await;
    kubectl(&testbed, &["create", "namespace", ELSEWHERE]);
    for file in ["agent-rbac.yaml", "admission-policy.yaml", "controller-rbac.yaml", "user-rbac.yaml"] {
        let text = fs::read_to_string(product::manifest(file)).expect("a manifest");
        let moved = text.replace("namespace: spot-guard", &format!("namespace: {ELSEWHERE}"));
        let path = testbed.dir().join(file);
        fs::write(&path, moved).expect("it is written");
        product::apply(&testbed, &path);
    }
    let agents = Agents::of(&testbed, ELSEWHERE);
    agents.are_bound().await;
    let instance = "i-0123456789abcdef0";
    let told =
        |node: &str| says(&notice_name(&node.into(), &instance.into(), KIND), node, instance, KIND, None);
    assert_eq!(agents.post("a", &told("b")).await, 403);
    assert_eq!(agents.post("a", &told("a")).await, 201);
    // A token that is bound to no pod, of the agent or of anybody, names no node.
    let token = testbed.token(ELSEWHERE, AGENT, None).await;
    assert_eq!(agents.post_with(&token, &told("b")).await, 403);
    assert_eq!(agents.post_as_admin(&told("b")).await, 403);
}
