//! Valid inputs, in the shapes that AWS and Kubernetes document.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The time at which the inputs are read.
pub const NOW: &str = "2026-03-01T12:00:10Z";
/// The instance that they are about.
pub const INSTANCE: &str = "i-0123456789abcdef0";

const TIME: &str = "2026-03-01T12:00:00Z";

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().map(Value::to_string).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn messages() -> Vec<String> {
    let event = |source: &str, detail_type: &str, detail: Value| json!({ "version": "0", "source": source, "detail-type": detail_type, "time": TIME, "detail": detail });
    let action = json!({
        "LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": "workers-spot",
        "LifecycleHookName": "drain", "EC2InstanceId": INSTANCE,
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
    });
    let stops = json!({ "instance-id": INSTANCE, "instance-action": "terminate" });
    let change = json!({
        "service": "EC2", "eventTypeCategory": "scheduledChange", "statusCode": "upcoming",
        "startTime": "Sat, 21 Mar 2026 09:00:43 GMT",
        "affectedEntities": [{ "entityValue": INSTANCE }, { "entityValue": "i-00000001" }],
    });
    let many: Vec<Value> =
        (0..150).map(|number| json!({ "entityValue": format!("i-{number:08x}") })).collect();
    let long = json!({
        "service": "EC2", "eventTypeCategory": "scheduledChange", "startTime": TIME, "affectedEntities": many,
    });
    let ended = json!({ "instance-id": INSTANCE, "state": "shutting-down" });
    let mut all = vec![
        event("aws.ec2", "EC2 Spot Instance Interruption Warning", stops),
        event("aws.ec2", "EC2 Instance Rebalance Recommendation", json!({ "instance-id": INSTANCE })),
        event("aws.ec2", "EC2 Instance State-change Notification", ended),
        event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", action.clone()),
        event("aws.health", "AWS Health Event", change),
        event("aws.health", "AWS Health Event", long),
        event("aws.s3", "Object Created", json!({})),
        action,
        json!({ "Service": "AWS Auto Scaling", "Event": "autoscaling:TEST_NOTIFICATION", "Time": TIME }),
    ];
    let wrapped: Vec<Value> =
        all.iter().map(|event| json!({ "Type": "Notification", "Message": event.to_string() })).collect();
    all.extend(wrapped);
    texts(&all)
}

pub fn rebalances() -> Vec<String> {
    texts(&[json!({ "noticeTime": TIME })])
}

pub fn instance_actions() -> Vec<String> {
    texts(
        &["terminate", "stop", "hibernate"]
            .map(|action| json!({ "action": action, "time": "2026-03-01T12:02:00Z" })),
    )
}

pub fn lifecycle_states() -> Vec<String> {
    words(&["InService", "Terminated", "Warmed:Hibernated"])
}

pub fn maintenances() -> Vec<String> {
    let event = |state: &str| {
        json!({
            "NotBefore": "21 Jan 2026 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot",
            "EventId": "instance-event-0d59937288b749b32", "NotAfter": "21 Jan 2026 09:17:23 GMT", "State": state,
        })
    };
    texts(&[json!([]), json!([event("active"), event("completed")])])
}

pub fn instance_ids() -> Vec<String> {
    words(&[INSTANCE, "i-0123abcd", " i-0123abcd\n"])
}

pub fn configurations() -> Vec<String> {
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/spot-guard.yaml");
    let short = "lease: {durationSeconds: 20, renewSeconds: 4}\naws: {callTimeoutSeconds: 9}\n\
                 queue: {url: 'https://sqs.us-east-1.amazonaws.com/123456789012/notices'}\n\
                 notifications: [{urlFile: /url, 'on': [Failure], template: '{\"text\": {{ message }}}'}]\n\
                 defaults: {stabilitySeconds: 60}\n";
    vec![fs::read_to_string(shown).expect("the configuration"), short.to_owned(), String::new()]
}

pub fn lists() -> Vec<String> {
    let pod = json!({ "metadata": { "name": "a", "annotations": { "x": "{\"items\":[{" } }, "spec": {} });
    texts(&[
        json!({ "kind": "PodList", "metadata": { "resourceVersion": "7" }, "items": [pod, {}] }),
        json!({ "apiVersion": "v1", "items": [] }),
    ])
}

pub fn watches() -> Vec<String> {
    let event = json!({ "type": "ADDED", "object": { "metadata": { "name": "a\\\"}" } } });
    vec![format!("{event}\n{event}\n"), format!("{event}\n")]
}

fn of_kind(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "spotguard.dev/v1alpha1", "kind": kind, "metadata": { "name": "a" }, "spec": spec })
}

/// The objects of a kind as version 0.1.0 has stored them, in an order that a seed can rely on.
fn stored(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records/0.1.0");
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let texts = files.map(|path| fs::read_to_string(path).expect("a file"));
    let kind = format!("\"kind\": \"{kind}\"");
    let mut found: Vec<String> = texts.filter(|text| text.contains(&kind)).collect();
    found.sort();
    assert!(!found.is_empty(), "{kind}");
    found
}

pub fn pools() -> Vec<String> {
    let policy = json!({ "stabilitySeconds": 120, "maxUtilisationPercent": 75 });
    let spec = json!({
        "spotGroup": "s", "onDemandGroup": "o", "mode": "Observe", "rebalance": "Replace", "policy": policy,
        "completeLifecycleActions": true,
    });
    let mut all = texts(&[
        of_kind("SpotPool", spec),
        of_kind("SpotPool", json!({ "spotGroup": "s", "onDemandGroup": "o" })),
    ]);
    all.extend(stored("SpotPool"));
    all
}

pub fn notices() -> Vec<String> {
    let spec = json!({
        "nodeName": "node", "instanceId": INSTANCE, "kind": "SpotInterruption", "noticeTime": TIME,
        "deadline": "2026-03-01T12:02:00Z", "detectedAt": NOW,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    texts(&[of_kind("InterruptionNotice", spec)])
}

pub fn replacements() -> Vec<String> {
    let spec = json!({ "nodeName": "node", "instanceId": INSTANCE, "pool": "workers" });
    let mut all = texts(&[of_kind("NodeReplacement", spec)]);
    all.extend(stored("NodeReplacement"));
    all
}

pub fn spot_actions() -> Vec<String> {
    let spec = json!({ "action": "Return", "replacement": "a", "reason": "a test" });
    texts(&[of_kind("SpotAction", spec)])
}

pub fn webhooks() -> Vec<String> {
    let alert = |status: &str| {
        let labels =
            json!({ "alertname": "SpotGuardFallbackTooLong", "pool": "workers", "severity": "page" });
        json!({ "version": "4", "status": status, "alerts": [{ "labels": labels }], "commonLabels": labels })
    };
    texts(&[
        json!({ "pool": "workers", "reason": "a drill" }),
        json!({ "node": "ip-10-0-1-11.ec2.internal" }),
        json!({ "fallback": INSTANCE }),
        alert("firing"),
        alert("resolved"),
    ])
}

pub fn reasons() -> Vec<String> {
    words(&["", "{}", "{\"reason\": \"a drill\"}"])
}

pub fn queries() -> Vec<String> {
    words(&[
        "",
        "limit=10",
        "pool=workers&phase=OnFallback&limit=500",
        "node=ip-10-0-1-11.ec2.internal&since=2026-03-01T12%3A00%3A00Z",
    ])
}

/// A document of the Query API, as the API Reference shows it.
fn document(operation: &str, result: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\n  \
         <{operation}Result>{result}</{operation}Result>\n  <ResponseMetadata>\
         <RequestId>7c6e177f-f082-11e1-ac58-3714bEXAMPLE</RequestId></ResponseMetadata>\n</{operation}Response>\n"
    )
}

pub fn groups() -> Vec<String> {
    let template = "<LaunchTemplateName>workers</LaunchTemplateName><Version>1</Version>";
    let instance = format!(
        "<member><InstanceId>{INSTANCE}</InstanceId><AvailabilityZone>us-east-1a</AvailabilityZone>\
         <LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus>\
         <ProtectedFromScaleIn>false</ProtectedFromScaleIn>\
         <LaunchTemplate>{template}</LaunchTemplate></member>"
    );
    let group = format!(
        "<member><AutoScalingGroupName>workers-spot</AutoScalingGroupName><MinSize>0</MinSize>\
         <MaxSize>10</MaxSize><DesiredCapacity>1</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
         <AvailabilityZones><member>us-east-1a</member></AvailabilityZones><HealthCheckType>EC2</HealthCheckType>\
         <CreatedTime>2026-01-01T00:00:00.123Z</CreatedTime><Instances>{instance}</Instances>\
         <MixedInstancesPolicy><LaunchTemplate><LaunchTemplateSpecification>{template}</LaunchTemplateSpecification>\
         <Overrides><member><InstanceType>m5.large</InstanceType><WeightedCapacity>1</WeightedCapacity></member>\
         </Overrides></LaunchTemplate><InstancesDistribution><OnDemandBaseCapacity>0</OnDemandBaseCapacity>\
         </InstancesDistribution></MixedInstancesPolicy><SuspendedProcesses><member>\
         <ProcessName>AZRebalance</ProcessName><SuspensionReason>by a person &amp; a tool</SuspensionReason>\
         </member></SuspendedProcesses><Tags><member><Key>eks:nodegroup-name</Key><Value>workers</Value></member>\
         </Tags><CapacityRebalance>true</CapacityRebalance><MaxInstanceLifetime>86400</MaxInstanceLifetime></member>"
    );
    let operation = "DescribeAutoScalingGroups";
    vec![
        document(operation, &format!("<AutoScalingGroups>{group}</AutoScalingGroups>")),
        document(operation, "<AutoScalingGroups/>"),
    ]
}

pub fn launches() -> Vec<String> {
    let activity = |status: &str, message: &str| {
        format!(
            "<member><ActivityId>bcb4e2f2-2a4c-4d5a-9b1d-000000000001</ActivityId>\
             <AutoScalingGroupName>workers-spot</AutoScalingGroupName>\
             <Description>Launching a new EC2 instance: {INSTANCE}</Description>\
             <Cause>At {TIME} an instance was started.</Cause><StartTime>{TIME}</StartTime>\
             <StatusCode>{status}</StatusCode><StatusMessage>{message}</StatusMessage><Progress>50</Progress>\
             <Details>{{&quot;Availability Zone&quot;:&quot;us-east-1a&quot;}}</Details></member>"
        )
    };
    let failed =
        activity("Failed", "InsufficientInstanceCapacity: We currently do not have sufficient capacity.");
    let activities = failed + &activity("PreInService", "") + &activity("Successful", "");
    let operation = "DescribeScalingActivities";
    vec![
        document(operation, &format!("<Activities>{activities}</Activities>")),
        document(operation, "<Activities/>"),
    ]
}

pub fn refusals() -> Vec<String> {
    let refusal = |code: &str, message: &str| {
        format!(
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>7c6e177f</RequestId></ErrorResponse>"
        )
    };
    vec![
        refusal("ValidationError", "AutoScalingGroup name not found"),
        refusal("Throttling", "Rate exceeded"),
        refusal("ScalingActivityInProgress", "Activity is in progress &amp; cannot be changed"),
    ]
}

pub fn failures() -> Vec<String> {
    words(&[
        "InsufficientInstanceCapacity We currently do not have sufficient m5.large capacity.",
        "Throttling Rate exceeded",
        "AccessDenied User is not authorized to perform: autoscaling:LaunchInstances",
        "MaxSpotInstanceCountExceeded Max spot instance count exceeded",
    ])
}

pub fn traceparents() -> Vec<String> {
    words(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])
}

pub fn activities() -> Vec<String> {
    let launching = format!("Launching a new EC2 instance: {INSTANCE}");
    let difference = "in response to a difference between desired and actual capacity";
    words(&[
        &format!(
            "{launching}|At {TIME} an instance was started {difference}, increasing the capacity from 2 to 3."
        ),
        &format!("{launching}|At {TIME} an instance was launched in response to an unhealthy instance."),
        &format!(
            "Terminating EC2 instance: {INSTANCE}|At {TIME} an instance was taken out of service {difference}, shrinking the capacity from 3 to 2."
        ),
        &format!(
            "Detaching EC2 instance: {INSTANCE}|At {TIME} instance {INSTANCE} was detached in response to a user request, shrinking the capacity from 2 to 1."
        ),
    ])
}
