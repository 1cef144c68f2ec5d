//! The notice queue against moto_server's SQS, on the real control plane.

mod lifecycle;
mod outages;
mod proxy;

use crate::helpers::{object, wait_for};
use crate::moto;
use crate::process::Process;
use crate::product::{self, CONTROLLER, NAMESPACE, PATIENCE, QUEUE, Service};
use crate::testbed::Testbed;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard_cloud::cloud::{Cloud, Served};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;
use tokio::time::Instant;

/// Nodes of the storm.
const STORM: usize = 500;

fn node(number: usize) -> (String, String) {
    (format!("node-{number}"), format!("i-{number:017x}"))
}

/// An event in the frame of EventBridge.
fn event(source: &str, detail_type: &str, detail: &Value) -> String {
    json!({
        "version": "0", "source": source, "detail-type": detail_type, "account": "123456789012",
        "time": Timestamp::now(), "region": "us-east-1", "detail": detail,
    })
    .to_string()
}

fn interruption(instance: &str) -> String {
    let detail = json!({ "instance-id": instance, "instance-action": "terminate" });
    event("aws.ec2", "EC2 Spot Instance Interruption Warning", &detail)
}

/// The queue as EventBridge sees it.
struct Writer {
    client: Client,
    url: String,
    dead_letters: String,
    _moto: Process,
}

impl Writer {
    async fn start(testbed: &Testbed) -> Option<Self> {
        let (moto, endpoint) = moto::start(testbed.dir()).await?;
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "queue"))
            .endpoint_url(&endpoint);
        let client = Client::from_conf(config.build());
        let create = client.create_queue().queue_name("dead").send().await.expect("a queue");
        let dead_letters = create.queue_url().expect("a URL").to_owned();
        let arn = "arn:aws:sqs:us-east-1:123456789012:dead";
        let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 3 }).to_string();
        let create = client.create_queue().queue_name("spot-guard-test");
        let create = create.attributes(QueueAttributeName::RedrivePolicy, policy);
        let url = create.send().await.expect("a queue").queue_url().expect("a URL").to_owned();
        Some(Self { client, url, dead_letters, _moto: moto })
    }

    async fn send(&self, body: &str) {
        self.client.send_message().queue_url(&self.url).message_body(body).send().await.expect("it is sent");
    }

    async fn send_ten(&self, bodies: &[String]) {
        let entries = bodies.iter().enumerate().map(|(number, body)| {
            let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body);
            entry.build().expect("an entry")
        });
        let send = self.client.send_message_batch().queue_url(&self.url);
        send.set_entries(Some(entries.collect())).send().await.expect("they are sent");
    }

    async fn left_in(&self, url: &str) -> usize {
        let asked =
            self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let answer = asked.send().await.expect("attributes");
        let said = |name| answer.attributes().and_then(|held| held.get(&name)?.parse().ok()).unwrap_or(0);
        said(QueueAttributeName::ApproximateNumberOfMessages)
            + said(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
    }
}

/// How many messages of a kind had that result.
async fn count(controller: &mut Service, kind: &str, result: &str) -> usize {
    let text = controller.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
    let name = format!("spot_guard_queue_messages_total{{kind=\"{kind}\",result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// How many interruption notices of the queue are there.
async fn interruptions(controller: &mut Service) -> usize {
    count(controller, "Interruption", "Stored").await + count(controller, "Interruption", "Known").await
}

async fn until(controller: &mut Service, kind: &str, result: &str, wanted: usize) {
    wait_for(&format!("{wanted} of {kind} {result}"), PATIENCE, async || {
        (count(controller, kind, result).await >= wanted).then_some(())
    })
    .await;
}

/// What the chart gives the controller where a queue is configured.
async fn may_report_for_others(testbed: &Testbed) {
    let name = "spot-guard-queue";
    let rule = json!({ "apiGroups": ["spotguard.dev"], "resources": ["interruptionnotices"], "verbs": ["report-for-others"] });
    let roles: Api<ClusterRole> = Api::all(testbed.client());
    let role = object(json!({ "metadata": { "name": name }, "rules": [rule] }));
    roles.create(&PostParams::default(), &role).await.expect("a role");
    let bindings: Api<ClusterRoleBinding> = Api::all(testbed.client());
    let binding = object(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE }],
    }));
    bindings.create(&PostParams::default(), &binding).await.expect("a binding");
}

/// So many Node objects; no kubelet serves them.
async fn create_nodes(testbed: &Testbed, count: usize) {
    let nodes: Api<Node> = Api::all(testbed.client());
    for number in 0..count {
        let (name, instance) = node(number);
        let provider_id = format!("aws:///us-east-1a/{instance}");
        let node = json!({ "metadata": { "name": name }, "spec": { "providerID": provider_id } });
        nodes.create(&PostParams::default(), &object(node)).await.expect("a node");
    }
}

/// An Auto Scaling without groups.
fn start_cloud() -> (Served, Cloud) {
    let cloud = Cloud::new(Clock::System.into(), 1);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    (cloud.serve_autoscaling(listener).expect("the cloud answers"), cloud)
}

#[actix::test]
async fn events_of_every_kind_and_a_storm_of_500_come_through_sqs() {
    let testbed = Testbed::start_without_kubelets("queue").await;
    product::install(&testbed).await;
    let Some(writer) = Writer::start(&testbed).await else { return };
    fs::write(testbed.dir().join(QUEUE), &writer.url).expect("the file is written");
    create_nodes(&testbed, STORM).await;
    let (autoscaling, _cloud) = start_cloud();
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.leads().await;

    // Without its verb the controller may report nothing for others, and the message waits.
    let (_, first) = node(0);
    writer.send(&interruption(&first)).await;
    wait_for("the refusal", PATIENCE, async || {
        controller.process.log().contains("a notice could not be stored").then_some(())
    })
    .await;
    assert_eq!(count(&mut controller, "Interruption", "Stored").await, 0);
    may_report_for_others(&testbed).await;
    until(&mut controller, "Interruption", "Stored", 1).await;

    let rebalance =
        event("aws.ec2", "EC2 Instance Rebalance Recommendation", &json!({ "instance-id": first }));
    let wrapped = json!({ "Type": "Notification", "Message": rebalance }).to_string();
    writer.send(&wrapped).await;
    until(&mut controller, "Rebalance", "Stored", 1).await;
    let ended = json!({ "instance-id": first, "state": "terminated" });
    writer.send(&event("aws.ec2", "EC2 Instance State-change Notification", &ended)).await;
    until(&mut controller, "StateChange", "Told", 1).await;
    let change = json!({
        "service": "EC2", "eventTypeCategory": "scheduledChange", "startTime": "Thu, 27 Jan 2050 13:19:03 GMT",
        "affectedEntities": [{ "entityValue": first }],
    });
    writer.send(&event("aws.health", "AWS Health Event", &change)).await;
    until(&mut controller, "Maintenance", "Stored", 1).await;
    let action =
        json!({ "EC2InstanceId": first, "AutoScalingGroupName": "other", "LifecycleHookName": "drain" });
    writer.send(&event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", &action)).await;
    until(&mut controller, "LifecycleAction", "Foreign", 1).await;
    writer.send("{\"hunter2\":").await;
    until(&mut controller, "Malformed", "Left", 1).await;
    wait_for("the dead letter", PATIENCE, async || {
        (writer.left_in(&writer.dead_letters).await == 1).then_some(())
    })
    .await;

    let before = interruptions(&mut controller).await;
    let bodies: Vec<String> = (0..STORM).map(|number| interruption(&node(number).1)).collect();
    let began = Instant::now();
    for (number, ten) in bodies.chunks(10).enumerate() {
        writer.send_ten(ten).await;
        tokio::time::sleep_until(began + Duration::from_millis(100 * (number as u64 + 1))).await;
    }
    let last = Instant::now();
    wait_for("the storm to be stored", PATIENCE, async || {
        (interruptions(&mut controller).await >= before + STORM).then_some(())
    })
    .await;
    let took = last.elapsed();
    let sent = last - began;
    println!("{STORM} messages in {sent:?}, the last was stored after {took:?}");
    // A machine that cannot even send them in time is as slow for all that follows.
    let bound = if sent < Duration::from_secs(6) { Duration::from_secs(5) } else { 3 * sent };
    assert!(took < bound, "{took:?}, with {sent:?} for the sending");
    wait_for("all messages to be deleted", PATIENCE, async || {
        (writer.left_in(&writer.url).await == 0).then_some(())
    })
    .await;
    assert!(!controller.process.log().contains("hunter2"), "nothing of a message is told");
}
