use super::*;
use crate::record::{OldDrain, OldNodeState};
use proptest::prelude::*;
use serde_json::json;

const NOW: &str = "2026-03-01T12:00:10Z";
const ID: &str = "i-0123456789abcdef0";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// An event in the frame that EventBridge gives every event.
fn event(source: &str, detail_type: &str, detail: &Value) -> Value {
    json!({
        "version": "0",
        "id": "12345678-1234-1234-1234-123456789012",
        "detail-type": detail_type,
        "source": source,
        "account": "123456789012",
        "time": "2026-03-01T12:00:00Z",
        "region": "us-east-1",
        "resources": [format!("arn:aws:ec2:us-east-1:123456789012:instance/{ID}")],
        "detail": detail,
    })
}

fn interruption(action: &str) -> Value {
    let detail = json!({ "instance-id": ID, "instance-action": action });
    event("aws.ec2", "EC2 Spot Instance Interruption Warning", &detail)
}

fn state_change(state: &str) -> Value {
    let detail = json!({ "instance-id": ID, "state": state });
    event("aws.ec2", "EC2 Instance State-change Notification", &detail)
}

fn lifecycle_action() -> Value {
    let detail = json!({
        "LifecycleActionToken": "87654321-4321-4321-4321-210987654321",
        "AutoScalingGroupName": "workers-spot",
        "LifecycleHookName": "drain",
        "EC2InstanceId": ID,
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "Origin": "AutoScalingGroup",
        "Destination": "EC2",
    });
    event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", &detail)
}

/// A message of a hook whose notification target is the queue itself.
fn direct_action(transition: &str) -> Value {
    json!({
        "AccountId": "123456789012",
        "RequestId": "0a1b2c3d-0000-4000-8000-210987654321",
        "Service": "AWS Auto Scaling",
        "Time": "2026-03-01T12:00:00.000Z",
        "LifecycleActionToken": "87654321-4321-4321-4321-210987654321",
        "AutoScalingGroupName": "workers-spot",
        "LifecycleHookName": "drain",
        "EC2InstanceId": ID,
        "LifecycleTransition": transition,
        "NotificationMetadata": "anything",
    })
}

/// What a group sends that is no lifecycle action.
fn group_message(event: &str) -> Value {
    json!({
        "AccountId": "123456789012",
        "RequestId": "0a1b2c3d-0000-4000-8000-210987654321",
        "AutoScalingGroupARN": "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1:autoScalingGroupName/workers-spot",
        "AutoScalingGroupName": "workers-spot",
        "Service": "AWS Auto Scaling",
        "Event": event,
        "Time": "2026-03-01T12:00:00.000Z",
    })
}

fn health(category: &str, status: &str, entities: &Value) -> Value {
    let detail = json!({
        "eventArn": "arn:aws:health:us-east-1::event/EC2/AWS_EC2_INSTANCE_STOP_SCHEDULED/1",
        "service": "EC2",
        "eventTypeCode": "AWS_EC2_INSTANCE_STOP_SCHEDULED",
        "eventTypeCategory": category,
        "startTime": "Sat, 21 Mar 2026 09:00:43 GMT",
        "endTime": "Sat, 21 Mar 2026 11:00:43 GMT",
        "statusCode": status,
        "affectedEntities": entities,
    });
    event("aws.health", "AWS Health Event", &detail)
}

fn wrapped(event: &Value) -> Value {
    json!({
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:notices",
        "Message": event.to_string(),
        "Timestamp": "2026-03-01T12:00:01.000Z",
        "SignatureVersion": "1",
    })
}

fn notice(kind: NoticeKind, deadline: Option<&str>) -> QueueEvent {
    let notice_time = Some(at("2026-03-01T12:00:00Z"));
    QueueEvent::Notice(Announcement { kind, notice_time, deadline: deadline.map(at) }, vec![ID.into()])
}

#[test]
fn each_event_that_aws_documents_is_read_alone_and_in_an_sns_notification() {
    let entities = json!([{ "entityValue": ID, "status": "PENDING" }]);
    let rebalance = json!({ "instance-id": ID });
    let group_action =
        LifecycleAction { instance_id: ID.into(), group: "workers-spot".into(), hook: "drain".into() };
    let interrupted = || notice(NoticeKind::SpotInterruption, Some("2026-03-01T12:02:00Z"));
    let ended = || QueueEvent::Ended(ID.into());
    for (event, read) in [
        (interruption("terminate"), interrupted()),
        (interruption("stop"), interrupted()),
        (
            event("aws.ec2", "EC2 Instance Rebalance Recommendation", &rebalance),
            notice(NoticeKind::RebalanceRecommendation, None),
        ),
        (state_change("shutting-down"), ended()),
        (state_change("terminated"), ended()),
        (state_change("stopping"), ended()),
        (state_change("stopped"), ended()),
        (state_change("pending"), QueueEvent::Other),
        (state_change("running"), QueueEvent::Other),
        (lifecycle_action(), QueueEvent::Lifecycle(group_action.clone())),
        (direct_action("autoscaling:EC2_INSTANCE_TERMINATING"), QueueEvent::Lifecycle(group_action)),
        (direct_action("autoscaling:EC2_INSTANCE_LAUNCHING"), QueueEvent::Other),
        (group_message("autoscaling:TEST_NOTIFICATION"), QueueEvent::Other),
        (group_message("autoscaling:EC2_INSTANCE_TERMINATE"), QueueEvent::Other),
        (
            health("scheduledChange", "upcoming", &entities),
            notice(NoticeKind::ScheduledMaintenance, Some("2026-03-21T09:00:43Z")),
        ),
        (health("scheduledChange", "closed", &entities), QueueEvent::Other),
        (health("issue", "open", &entities), QueueEvent::Other),
        (event("aws.s3", "Object Created", &json!({})), QueueEvent::Other),
    ] {
        for body in [&event, &wrapped(&event)] {
            assert_eq!(parse(&body.to_string(), at(NOW)), Ok(read.clone()), "{body}");
        }
    }
}

#[test]
fn a_health_event_names_several_instances_and_other_things() {
    let entities =
        json!([{ "entityValue": ID }, { "entityValue": "vol-1" }, { "entityValue": "i-00000001" }]);
    let read = parse(&health("scheduledChange", "open", &entities).to_string(), at(NOW));
    let Ok(QueueEvent::Notice(_, instances)) = read else { panic!("{read:?}") };
    assert_eq!(instances, [ID, "i-00000001"]);
}

#[test]
fn a_deadline_outside_of_ten_minutes_from_now_is_none() {
    let body = interruption("terminate").to_string();
    for (now, deadline) in [
        ("2026-03-01T12:00:00Z", Some("2026-03-01T12:02:00Z")),
        ("2026-03-01T12:02:00Z", Some("2026-03-01T12:02:00Z")),
        ("2026-03-01T12:02:01Z", None),
        ("2026-03-01T11:52:00Z", Some("2026-03-01T12:02:00Z")),
        ("2026-03-01T11:51:59Z", None),
    ] {
        assert_eq!(parse(&body, at(now)), Ok(notice(NoticeKind::SpotInterruption, deadline)), "{now}");
    }
    // Hibernation begins at once, and a time that cannot be read costs the time alone.
    let hibernates = parse(&interruption("hibernate").to_string(), at("2026-03-01T12:00:00Z"));
    assert_eq!(hibernates, Ok(notice(NoticeKind::SpotInterruption, Some("2026-03-01T12:00:00Z"))));
    let late = parse(&interruption("hibernate").to_string(), at("2026-03-01T12:00:07Z"));
    assert_eq!(
        late,
        Ok(notice(NoticeKind::SpotInterruption, Some("2026-03-01T12:00:07Z"))),
        "a message is late"
    );
    let old = parse(&interruption("hibernate").to_string(), at("2026-03-01T12:03:00Z"));
    assert_eq!(old, Ok(notice(NoticeKind::SpotInterruption, None)));
    let mut timeless = interruption("terminate");
    timeless["time"] = json!("soon");
    let Ok(QueueEvent::Notice(announced, _)) = parse(&timeless.to_string(), at(NOW)) else { panic!() };
    assert_eq!((announced.notice_time, announced.deadline), (None, Some(at("2026-03-01T12:02:10Z"))));
}

#[test]
fn what_cannot_be_read_says_why_and_nothing_of_itself() {
    use MalformedMessage::{NoHook, NoInstance, NoObject};
    let mut nobody = interruption("terminate");
    nobody["detail"]["instance-id"] = json!("../../secret");
    let mut hookless = lifecycle_action();
    hookless["detail"]["LifecycleHookName"] = json!(7);
    let mut unhooked = direct_action("autoscaling:EC2_INSTANCE_TERMINATING");
    unhooked["LifecycleHookName"] = json!("");
    let mut instanceless = direct_action("autoscaling:EC2_INSTANCE_TERMINATING");
    instanceless["EC2InstanceId"] = json!("../../secret");
    let long = format!("{{\"source\":\"{}\"}}", "a".repeat(MAX_BODY));
    for (body, why) in [
        (String::new(), NoObject),
        ("[]".to_owned(), NoObject),
        ("null".to_owned(), NoObject),
        ("{\"source\":".to_owned(), NoObject),
        ("{}".to_owned(), NoObject),
        (long, NoObject),
        (wrapped(&json!("text")).to_string(), NoObject),
        (nobody.to_string(), NoInstance),
        (wrapped(&nobody).to_string(), NoInstance),
        (health("scheduledChange", "open", &json!([])).to_string(), NoInstance),
        (hookless.to_string(), NoHook),
        (unhooked.to_string(), NoHook),
        (instanceless.to_string(), NoInstance),
        (group_message("other:TEST_NOTIFICATION").to_string(), NoObject),
    ] {
        assert_eq!(parse(&body, at(NOW)), Err(why), "{body:.80}");
        assert!(!why.to_string().contains("secret"));
    }
    let confirmation = json!({ "Type": "SubscriptionConfirmation", "Message": "You have chosen" });
    assert_eq!(parse(&confirmation.to_string(), at(NOW)), Ok(QueueEvent::Other));
}

#[test]
fn the_best_result_of_several_instances_is_the_one_of_the_message() {
    use MessageResult::{Foreign, Known, Stored};
    for (one, other, both) in [
        (Foreign, Foreign, Foreign),
        (Foreign, Known, Known),
        (Known, Foreign, Known),
        (Known, Stored, Stored),
        (Stored, Known, Stored),
        (Stored, Foreign, Stored),
    ] {
        assert_eq!(one.or(other), both, "{one:?} {other:?}");
    }
}

#[test]
fn an_instance_without_a_node_is_waited_for_and_then_foreign() {
    let ours = || Whose::Ours(vec!["a".into()]);
    for (claimed_by, current, may_wait, waited, expected) in [
        (vec!["a".into()], true, true, 0, ours()),
        (vec!["a".into()], false, false, 500, ours()),
        (vec![], true, true, 0, Whose::Unknown),
        (vec![], true, true, 119, Whose::Unknown),
        (vec![], true, true, 120, Whose::Foreign),
        (vec![], false, true, 4 * 3600, Whose::Unknown),
        (vec![], true, false, 0, Whose::Foreign),
    ] {
        let waited = Duration::from_secs(waited);
        assert_eq!(whose(claimed_by, current, may_wait, waited), expected, "{waited:?}");
    }
}

#[test]
fn what_cannot_be_read_is_left_to_the_dead_letter_queue_and_never_looped_over() {
    for (has_dead_letters, receives, left) in [
        (Some(false), 1, false),
        (Some(true), 1, true),
        (None, 1, true),
        (Some(true), 20, false),
        (None, 20, false),
    ] {
        assert_eq!(is_left(has_dead_letters, receives), left, "{has_dead_letters:?} {receives}");
    }
}

#[test]
fn a_lifecycle_action_is_completed_when_its_node_is_drained_or_gone_or_was_held_for_long() {
    let mut status = ReplacementStatus::default();
    let soon = Duration::from_secs(60);
    assert!(!is_completed(&[], true, soon), "its record is still to come");
    assert!(!is_completed(&[&status], true, soon));
    assert!(is_completed(&[&status], false, soon), "its node is gone");
    assert!(is_completed(&[&status], true, HELD_FOR));
    let mut cancelled = ReplacementStatus { finished_at: Some(at(NOW)), ..status.clone() };
    cancelled.old_node.enter(OldNodeState::Retained {});
    assert!(!is_completed(&[&cancelled], true, soon), "nothing was drained: the notice begins it anew");
    let drain = OldDrain::begun(at(NOW));
    status.old_node.enter(OldNodeState::Draining(drain.clone()));
    assert!(!is_completed(&[&status], true, soon));
    status.old_node.enter(OldNodeState::Drained(drain));
    assert!(is_completed(&[&status], true, soon));
}

proptest! {
    #[test]
    fn no_message_panics(body in ".*", type_ in ".{0,40}", detail in ".{0,80}") {
        let _ = parse(&body, at(NOW));
        for source in ["aws.ec2", "aws.autoscaling", "aws.health"] {
            let _ = parse(&event(source, &type_, &json!(detail)).to_string(), at(NOW));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_has_a_byte_changed_panics_nowhere(
        which in 0..4_usize, cut in 0..2000_usize, byte in any::<u8>(),
    ) {
        let entities = json!([{ "entityValue": ID }]);
        let events = [
            interruption("stop"), state_change("stopped"), lifecycle_action(),
            wrapped(&health("scheduledChange", "open", &entities)),
        ];
        let mut body = events[which].to_string().into_bytes();
        let _ = parse(&String::from_utf8_lossy(&body[..cut.min(body.len())]), at(NOW));
        let place = cut % body.len();
        body[place] = byte;
        let read = parse(&String::from_utf8_lossy(&body), at(NOW));
        if let Ok(QueueEvent::Notice(announced, instances)) = read {
            prop_assert!(instances.iter().all(|id| parse_instance_id(id).is_ok()));
            if announced.kind == NoticeKind::SpotInterruption {
                prop_assert!(announced.deadline.is_none_or(|deadline| may_be_given(deadline, at(NOW))));
            }
        }
    }
}
