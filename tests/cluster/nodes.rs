//! Node objects on a real control plane: they stay when the instance is gone, they come back under an old
//! name, and they say late which instance they run on.

use crate::helpers::wait_for;
use crate::imds::ImdsMock;
use crate::product::{self, PATIENCE};
use crate::stories::{Cue, Stagecraft, Tale, dry_spot};
use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use spot_guard::crd::NodeReplacement;
use spot_guard::kube::marks;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{POOL, SPOT, TAINT};
use spot_guard_cloud::cloud::Cloud;
use spot_guard_core::record::{Phase, ReplacementStatus};
use std::convert::Infallible;
use std::time::Duration;

/// The kubelets of machines that have stopped are silent: KWOK plays all of them.
async fn silence(cloud: Cloud, client: Client) -> Infallible {
    let nodes: Api<Node> = Api::all(client);
    let silent = json!({ "metadata": { "annotations": { "testbed.spotguard.dev/not-ready": "stopped" } } });
    loop {
        let groups = cloud.snapshot().groups;
        let all = groups.iter().flat_map(|group| &group.instances).filter(|instance| instance.machine_runs);
        let running: Vec<&str> = all.map(|instance| instance.node_name.as_str()).collect();
        let there = nodes.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for node in there.iter().filter(|node| !running.contains(&node.name_any().as_str())) {
            let _ = nodes.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&silent)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn status_of(client: &Client, record: &str) -> Option<ReplacementStatus> {
    let records: Api<NodeReplacement> = Api::all(client.clone());
    records.get_opt(record).await.ok()??.status
}

/// Whoever knows nothing but the name of the node that was replaced finds its replacement, which is over: by
/// the API, and on a terminal.
async fn is_known_by_its_node(stage: &mut Stagecraft) {
    let (old, name) = (stage.old_node.clone(), stage.story.spot_instances()[0].clone());
    let shown = wait_for("the replacement of the node to be shown as over", PATIENCE, async || {
        let answer = stage.controller.get(&format!("/api/v1/nodes/{old}")).await?;
        let shown: Value = serde_json::from_str(&answer.body).ok()?;
        (shown["phase"] == "Completed").then_some(shown)
    })
    .await;
    assert_eq!((&shown["replacement"], &shown["role"]), (&json!(name), &json!("Replaced")), "{shown:#}");
    let api = format!("http://{}", stage.controller.address);
    let told = product::spot_guard().args(["explain", &old, "--api", &api]).output();
    let told = told.expect("spot-guard runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.starts_with(&format!("Replacement {name} of node {old} in pool {POOL}\n")), "{text}");
    assert!(text.contains("\nOver since ") && text.contains("(Completed)"), "{text}");
}

#[actix::test]
async fn a_node_object_that_is_never_deleted_holds_neither_replacement_nor_return_up() {
    let tale = dry_spot();
    let mut stage = Stagecraft::set_up("node-stays", &tale).await;
    let (cloud, client) = (stage.story.world.cloud.clone(), stage.testbed.client());
    cloud.configure(|settings| settings.nodes_stay = true);
    let (old, stopped) = (stage.old_node.clone(), silence(cloud, client.clone()));
    let report = tokio::select! {
        report = stage.play(&tale) => report,
        never = stopped => match never {},
    };
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    let nodes: Api<Node> = Api::all(client);
    let left = nodes.get(&old).await.expect("its Node object stays");
    assert!(!marks::are_left_on(&left, TAINT), "{left:#?}");
    is_known_by_its_node(&mut stage).await;
    // In the end a person removes it.
    nodes.delete(&old, &DeleteParams::default()).await.expect("it can be deleted");
    wait_for("the Node object to be gone", PATIENCE, async || {
        nodes.get_opt(&old).await.ok()?.is_none().then_some(())
    })
    .await;
    is_known_by_its_node(&mut stage).await;
}

#[actix::test]
async fn a_new_instance_that_gets_the_name_of_the_old_node_is_left_alone_also_by_a_new_leader() {
    let tale = dry_spot();
    let mut stage = Stagecraft::set_up("namesake", &tale).await;
    let (cloud, client) = (stage.story.world.cloud.clone(), stage.testbed.client());
    cloud.configure(|settings| {
        settings.names_come_back = true;
        settings.provider_id_delay = Duration::from_secs(5);
    });
    let (nodes, old): (Api<Node>, _) = (Api::all(client), stage.old_node.clone());
    let first = nodes.get(&old).await.expect("the old node").uid();
    let events = cloud.subscribe();
    let Stagecraft { controller, imds, story, testbed, autoscaling, .. } = &mut stage;
    let takeover = async {
        let namesake = wait_for("another node to have its name", PATIENCE * 2, async || {
            nodes.get_opt(&old).await.ok()?.filter(|node| node.uid() != first)
        })
        .await;
        controller.process.kill();
        *controller = product::start_controller(testbed, "controller-2", &autoscaling.url()).await;
        namesake.uid()
    };
    let unmarked = async {
        loop {
            if let Ok(Some(node)) = nodes.get_opt(&old).await
                && node.uid() != first
            {
                assert!(!marks::are_left_on(&node, TAINT), "{node:#?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (report, namesake) = tokio::select! {
        both = async { tokio::join!(tale.play(story), takeover) } => both,
        never = crate::stories::announce(imds, events) => match never {},
        () = unmarked => unreachable!("it goes on"),
    };
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    assert_eq!(nodes.get(&old).await.expect("the namesake").uid(), namesake, "it is there to stay");
}

#[actix::test]
async fn a_two_minute_notice_of_a_node_whose_provider_id_comes_late_gets_its_replacement() {
    let tale = Tale::new(Scenario::Rebalance, vec![(Cue::Now, Act::Rebalance(0))]);
    let mut stage = Stagecraft::set_up("provider-id-late", &tale).await;
    let (cloud, client) = (stage.story.world.cloud.clone(), stage.testbed.client());
    let nodes: Api<Node> = Api::all(client.clone());
    let before = cloud.group(SPOT).expect("a group");
    cloud.configure(|settings| settings.provider_id_delay = Duration::from_secs(25));
    cloud.set_desired(SPOT, before.desired + 1).expect("within the sizes");
    let is_new = |id: &String| before.instances.iter().all(|held| held.id != *id);
    let young = wait_for("one more instance", PATIENCE, async || {
        let group = cloud.group(SPOT)?;
        let id = group.instances.into_iter().map(|instance| instance.id).find(is_new)?;
        let young = cloud.node_of(&id)?;
        nodes.get_opt(&young.node_name).await.ok()?.map(|_| young)
    })
    .await;
    cloud.configure(|settings| settings.provider_id_delay = Duration::ZERO);
    let mut imds = ImdsMock::quiet(&young.instance_id, &young.zone).await;
    let endpoint = imds.endpoint();
    let _agent = product::start_agent_named(&stage.testbed, "young", &young.node_name, &endpoint).await;
    let deadline = Timestamp::now() + 120.seconds();
    imds.announce_interruption(&format!("{deadline:.0}")).await;
    let unproven = format!("{}.{}", young.node_name, young.instance_id);
    wait_for("the pods of the node to be moved", PATIENCE, async || {
        status_of(&client, &unproven).await?.old_node.drain().map(drop)
    })
    .await;
    let node = nodes.get(&young.node_name).await.expect("the node");
    assert_eq!(node.spec.and_then(|spec| spec.provider_id), None, "it has not come yet");
    wait_for("the replacement in its pool", PATIENCE, async || {
        let records: Api<NodeReplacement> = Api::all(client.clone());
        let record = records.get_opt(&young.instance_id).await.ok()??;
        (record.spec.pool.as_deref() == Some(POOL)).then_some(())
    })
    .await;
    for record in [&unproven, &young.instance_id] {
        wait_for(&format!("{record} to end"), Duration::from_secs(180), async || {
            (status_of(&client, record).await?.phase == Phase::Completed).then_some(())
        })
        .await;
    }
    stage.controller.becomes_ready().await;
}
