//! A controller that is killed between storing a notice and deleting its message, and a queue that refuses.

use super::proxy::{Manner, Proxy};
use super::{
    Writer, count, create_nodes, event, interruption, may_report_for_others, node, start_cloud, until,
};
use crate::helpers::wait_for;
use crate::product::{self, PATIENCE, QUEUE, Service};
use crate::stories::Tale;
use crate::testbed::Testbed;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard::crd::InterruptionNotice;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard_core::record::{FlowBox, Outcome};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

/// Nodes, and as many messages.
const NODES: usize = 3;

/// A queue that the controllers of the cluster read through a proxy.
async fn behind_a_proxy(testbed: &Testbed) -> Option<(Writer, Proxy)> {
    may_report_for_others(testbed).await;
    let writer = Writer::start(testbed).await?;
    let proxy = Proxy::before(&writer.url);
    fs::write(testbed.dir().join(QUEUE), proxy.url(&writer.url)).expect("the file is written");
    Some((writer, proxy))
}

/// The notices that are there, each with the id that only this one object ever has.
async fn notices(testbed: &Testbed) -> BTreeSet<(String, String)> {
    let notices: Api<InterruptionNotice> = Api::all(testbed.client());
    let listed = notices.list(&ListParams::default()).await.expect("the notices").items;
    listed.into_iter().map(|notice| (notice.name_any(), notice.uid().unwrap_or_default())).collect()
}

async fn is_empty(writer: &Writer) {
    wait_for("all messages to be deleted", PATIENCE, async || {
        (writer.left_in(&writer.url).await == 0).then_some(())
    })
    .await;
}

#[actix::test]
async fn what_was_stored_before_a_kill_is_stored_once_and_its_message_is_deleted_by_the_next() {
    let mut tale = Tale::new(Scenario::Rebalance, Vec::new());
    tale.plot.steps = vec![(FlowBox::CleanUp, Outcome::CleanedUp)];
    let testbed = tale.testbed("queue-killed").await;
    product::install(&testbed).await;
    let Some((writer, proxy)) = behind_a_proxy(&testbed).await else { return };
    let story = tale.begin(Clock::System, Some(testbed.client())).await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let autoscaling = story.world.cloud.serve_autoscaling(listener).expect("the cloud answers");
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.leads().await;
    controller.becomes_ready().await;

    let killed = async {
        // The node is to be there when the message comes again.
        story.act(&Act::SetBudget("web", 0)).await.expect("a budget");
        proxy.set(Manner::Holds("DeleteMessage"));
        let recommended = json!({ "instance-id": story.spot_instances()[0] });
        writer.send(&event("aws.ec2", "EC2 Instance Rebalance Recommendation", &recommended)).await;
        wait_for("the delete to be held", PATIENCE, async || (proxy.held() >= 1).then_some(())).await;
        controller.process.kill();
        let stored = notices(&testbed).await;
        assert_eq!(stored.len(), 1, "it is stored before its message is deleted: {stored:?}");
        assert_eq!(writer.left_in(&writer.url).await, 1, "the message is not deleted");

        proxy.set(Manner::Passes);
        let mut next = product::start_controller(&testbed, "next", &autoscaling.url()).await;
        next.leads().await;
        until(&mut next, "Rebalance", "Known", 1).await;
        is_empty(&writer).await;
        assert_eq!(notices(&testbed).await, stored, "the same object");
        assert_eq!(count(&mut next, "Rebalance", "Stored").await, 0);
        assert_eq!(writer.left_in(&writer.dead_letters).await, 0);
        story.act(&Act::SetBudget("web", 1)).await.expect("a budget");
        next
    };
    let (report, next) = tokio::join!(tale.play(&story), killed);
    println!("killed between store and delete: the story took {:.1} s", report.wall_seconds);
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    assert_eq!(report.replacements.len(), 1);
    next.ends_well().await;
}

/// What `/readyz` says of the queue, and whether the controller serves all the same.
async fn told_of_queue(controller: &mut Service) -> Option<(bool, String)> {
    let answer = controller.get("/readyz").await?;
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let part = body["notReady"].as_array()?.iter().find(|why| why["part"] == "notice-queue").cloned();
    Some((answer.status == 200, part.map_or(String::new(), |part| part.to_string())))
}

/// How many reads had that result.
async fn reads(controller: &mut Service, result: &str) -> usize {
    let text = controller.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
    let name = format!("spot_guard_aws_calls_total{{operation=\"ReceiveMessage\",result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[actix::test]
async fn a_queue_that_refuses_is_told_and_nothing_of_it_is_lost() {
    let testbed = Testbed::start_without_kubelets("queue-refuses").await;
    product::install(&testbed).await;
    let Some((writer, proxy)) = behind_a_proxy(&testbed).await else { return };
    create_nodes(&testbed, NODES).await;
    let (autoscaling, _cloud) = start_cloud();
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.leads().await;
    controller.becomes_ready().await;

    let refusals = [
        (400, "ThrottlingException", "Throttled"),
        (503, "ServiceUnavailable", "Throttled"),
        (400, "AccessDeniedException", "Refused"),
    ];
    for (number, (status, code, result)) in refusals.into_iter().enumerate() {
        let before = reads(&mut controller, result).await;
        proxy.set(Manner::Refuses(status, code));
        writer.send(&interruption(&node(number).1)).await;
        wait_for(&format!("{code} to be told"), PATIENCE, async || {
            let (serves, told) = told_of_queue(&mut controller).await?;
            assert!(serves, "the queue lies outside of the process");
            (told.contains("QueueNotRead") && told.contains(code)).then_some(())
        })
        .await;
        wait_for("a second attempt", PATIENCE, async || {
            (reads(&mut controller, result).await >= before + 2).then_some(())
        })
        .await;
        proxy.set(Manner::Passes);
        until(&mut controller, "Interruption", "Stored", number + 1).await;
        wait_for("the queue to be read again", PATIENCE, async || {
            told_of_queue(&mut controller).await?.1.is_empty().then_some(())
        })
        .await;
    }
    is_empty(&writer).await;
    assert_eq!(count(&mut controller, "Interruption", "Stored").await, NODES, "each once");
    assert_eq!(writer.left_in(&writer.dead_letters).await, 0);
    controller.ends_well().await;
}
