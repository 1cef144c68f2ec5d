//! Notices through the queue: beside the agents, and instead of them.

use crate::notices::maintenance;
use crate::play::{Play, Stage, ends};
use crate::shortfall::{dry_until, ledger};
use serde_json::json;
use spot_guard::crd::InterruptionNotice;
use spot_guard::sim::crash::{CrashPoint, CrashSide};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{SPOT, WorldOptions};
use spot_guard::telemetry::readiness::UnreadyCode;
use spot_guard_cloud::cloud::{CloudSettings, ErrorAnswer, NoticeQueue};
use spot_guard_core::queue::{MessageKind, MessageResult};
use spot_guard_core::record::{FlowBox, OldNodeState, Outcome};
use std::time::Duration;

/// A world with a queue.
fn with_queue(queue: NoticeQueue, agents: bool) -> WorldOptions {
    let cloud = CloudSettings { notice_queue: Some(queue), ..CloudSettings::default() };
    WorldOptions { cloud, plays_machines: agents, ..WorldOptions::default() }
}

/// A world whose notices come through the queue alone.
fn agentless() -> WorldOptions {
    with_queue(NoticeQueue::default(), false)
}

fn count(stage: &Stage, kind: MessageKind, result: MessageResult) -> u64 {
    stage.controller.metrics.queue().messages(kind, result)
}

/// How many messages with these words are in the queue.
fn queued(stage: &Stage, words: &str) -> usize {
    stage.cloud.queued().0.iter().filter(|body| body.contains(words)).count()
}

#[test]
fn a_cluster_without_agents_hears_of_everything_by_the_queue() {
    for (scenario, kind) in [
        (Scenario::Rebalance, MessageKind::Rebalance),
        (Scenario::TwoMinuteNotice, MessageKind::Interruption),
    ] {
        let played = Play::of(scenario)
            .world(agentless())
            .beside(|stage| async move {
                stage.pass(65).await;
                let (watched, _, message) = stage.condition("Watched").expect("a condition");
                assert!(watched, "{message}");
            })
            .play();
        played.assert_ok();
        assert!(count(&played.stage, kind, MessageResult::Stored) >= 1, "{scenario:?}");
    }
}

#[test]
fn maintenance_of_aws_health_is_a_notice() {
    maintenance("maintenance by the queue", |play| play.world(agentless()));
}

#[test]
fn a_notice_of_the_agent_and_the_same_of_the_queue_are_one_whichever_comes_first() {
    for late in [0, 60] {
        let queue = NoticeQueue { late_by: Duration::from_secs(late), twice: true, max_receives: None };
        for scenario in [Scenario::Rebalance, Scenario::TwoMinuteNotice] {
            let played = Play::of(scenario).world(with_queue(queue, true)).play();
            played.assert_ok();
            assert_eq!(played.report.replacements.len(), 1, "{scenario:?}");
            let begun =
                played.report.boxes.iter().filter(|step| step.outcome == Outcome::NoticeReceived).count();
            assert_eq!(begun, 1, "{scenario:?}");
            if late == 0 {
                // The message and its copy come while the node is there: one object is enough for both.
                let kinds = [MessageKind::Rebalance, MessageKind::Interruption];
                let known = kinds.map(|kind| count(&played.stage, kind, MessageResult::Known));
                assert!(known.iter().sum::<u64>() >= 1, "{scenario:?}: {known:?}");
                assert_eq!(queued(&played.stage, "Warning") + queued(&played.stage, "Recommendation"), 0);
            }
        }
    }
}

#[test]
fn a_message_about_no_node_of_the_cluster_is_deleted_after_a_while_and_not_looped_over() {
    let script = vec![(Duration::from_secs(120), Act::Rebalance(0))];
    let plot = Plot { script, ..Scenario::Rebalance.plot() };
    let played = Play::plot("a foreign message", plot)
        .world(agentless())
        .beside(|stage| async move {
            let body = json!({
                "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
                "time": stage.cloud.now(), "detail": { "instance-id": "i-0aaaaaaaaaaaaaaaa", "instance-action": "stop" },
            });
            stage.cloud.send_message(body.to_string());
            stage.pass(100).await;
            assert_eq!(queued(&stage, "i-0aaaaaaaaaaaaaaaa"), 1, "its node may join yet");
            stage.pass(25).await;
            assert_eq!(queued(&stage, "i-0aaaaaaaaaaaaaaaa"), 0);
            assert_eq!(count(&stage, MessageKind::Interruption, MessageResult::Foreign), 1);
        })
        .play();
    played.assert_ok();
    let notices = played.stage.cluster.list::<InterruptionNotice>();
    assert!(notices.iter().all(|notice| notice.spec.instance_id != "i-0aaaaaaaaaaaaaaaa"));
}

#[test]
fn an_instance_of_ours_behind_99_foreign_ones_of_one_health_event_is_reported_at_once() {
    let script = vec![(Duration::from_secs(140), Act::Rebalance(0))];
    let plot = Plot { script, ..Scenario::Rebalance.plot() };
    let played = Play::plot("a long health event", plot)
        .world(agentless())
        .beside(|stage| async move {
            let ours = stage.spot[1].clone();
            let foreign = (0..99).map(|number| format!("i-{number:017x}"));
            let named = foreign.chain([ours.clone()]).map(|id| json!({ "entityValue": id }));
            let body = json!({
                "source": "aws.health", "detail-type": "AWS Health Event", "time": stage.cloud.now(),
                "detail": {
                    "service": "EC2", "eventTypeCategory": "scheduledChange", "statusCode": "upcoming",
                    "startTime": "Wed, 01 Jul 2026 09:00:00 GMT",
                    "affectedEntities": named.collect::<Vec<_>>(),
                },
            });
            stage.cloud.send_message(body.to_string());
            stage.pass(5).await;
            let notices = stage.cluster.list::<InterruptionNotice>();
            assert!(notices.iter().any(|notice| notice.spec.instance_id == *ours), "its notice is stored");
            assert_eq!(queued(&stage, "aws.health"), 1, "the nodes of the others may join yet");
            stage.pass(130).await;
            assert_eq!(queued(&stage, "aws.health"), 0, "none of them did");
            assert_eq!(count(&stage, MessageKind::Maintenance, MessageResult::Stored), 1);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_message_that_cannot_be_read_goes_to_the_dead_letter_queue_or_is_deleted() {
    for (max_receives, dead, result) in [(Some(3), 1, MessageResult::Left), (None, 0, MessageResult::Deleted)]
    {
        let queue = NoticeQueue { max_receives, ..NoticeQueue::default() };
        let played = Play::of(Scenario::Rebalance)
            .world(with_queue(queue, false))
            .beside(move |stage| async move {
                stage.pass(10).await;
                stage.cloud.send_message("{\"hunter2\":");
                stage.pass(30).await;
                let (_, letters) = stage.cloud.queued();
                assert_eq!(letters.len(), dead);
                assert_eq!(count(&stage, MessageKind::Malformed, result), 1);
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn a_queue_that_is_away_throttled_or_denied_for_ten_minutes_loses_nothing_and_is_told() {
    let away = || ErrorAnswer { status: http::StatusCode::SERVICE_UNAVAILABLE, ..ErrorAnswer::throttling() };
    for refusal in [away(), ErrorAnswer::throttling(), ErrorAnswer::access_denied("ReceiveMessage")] {
        let played = Play::of(Scenario::Rebalance)
            .world(agentless())
            .beside(move |stage| async move {
                stage.cloud.refuse_queue_for(Duration::from_secs(600), refusal);
                stage.pass(300).await;
                let reasons = stage.controller.readiness.reasons();
                let told = reasons.get("notice-queue").expect("it is told");
                assert_eq!((told.reason, told.serves), (UnreadyCode::QueueNotRead, true));
                let (watched, _, message) = stage.condition("Watched").expect("a condition");
                assert!(!watched, "{message}");
                assert!(stage.record(&stage.spot[0]).is_none(), "nobody has heard of it");
                stage.pass(340).await;
                assert!(!stage.controller.readiness.reasons().contains_key("notice-queue"));
                assert!(stage.record(&stage.spot[0]).is_some(), "nothing is lost");
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn an_instance_that_goes_without_a_notice_is_missed_within_seconds() {
    let played = Play::plot("a loss that the queue tells", dry_until(900, 1))
        .world(agentless())
        .beside(|stage| async move {
            // As late as the health check of a group may be.
            stage.cloud.configure(|settings| settings.loss_detection = Duration::from_secs(180));
            stage.pass(60).await;
            stage.cloud.take_now(&stage.spot[0]).expect("an instance");
            stage.pass(5).await;
            assert_eq!(ledger(&stage).empty_places.len(), 1, "the group itself knows nothing yet");
            assert_eq!(count(&stage, MessageKind::StateChange, MessageResult::Told), 1);
        })
        .play();
    played.assert_ok();
}

/// A group ends a Spot instance and waits an hour for its hook.
fn terminated_by_its_group(stage: &Stage) {
    let hook = Some(Duration::from_secs(3600));
    stage.cloud.edit_group(SPOT, |spec| spec.termination_hook = hook).expect("a group");
    stage.cloud.scale_down(&stage.spot[0]).expect("an instance");
}

fn is_there(stage: &Stage) -> bool {
    let listed = stage.cloud.group(SPOT).expect("a group").instances;
    listed.iter().any(|held| held.id == stage.spot[0])
}

#[test]
fn a_lifecycle_action_is_held_until_its_node_is_drained_if_the_pool_says_so() {
    let drained = [Outcome::NoticeReceived, Outcome::Tainted, Outcome::Drained, Outcome::CleanedUp];
    let boxes = [FlowBox::Notice, FlowBox::Taint, FlowBox::Drain, FlowBox::CleanUp];
    let steps = boxes.into_iter().zip(drained).collect();
    let plot = Plot { script: Vec::new(), steps, ..ends(Scenario::Rebalance) };
    let played = Play::plot("a lifecycle action", plot)
        .world(agentless())
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["completeLifecycleActions"] = json!(true));
            stage.pass(10).await;
            terminated_by_its_group(&stage);
            stage.until(&stage.spot[0], |status| matches!(*status.old_node, OldNodeState::Drained(_))).await;
            // Somebody scales up again.
            stage.cloud.set_desired(SPOT, 3).expect("a group");
        })
        .play();
    played.assert_ok();
    assert!(!is_there(&played.stage), "its hook waits for an hour without us");
    assert_eq!(played.count("CompleteLifecycleAction", Some(SPOT)), 1);
    assert!(played.count("RecordLifecycleActionHeartbeat", Some(SPOT)) >= 1);
    assert_eq!(count(&played.stage, MessageKind::LifecycleAction, MessageResult::Completed), 1);
}

#[test]
fn a_lifecycle_action_is_left_to_others_by_default() {
    let played = Play::of(Scenario::Rebalance)
        .world(agentless())
        .beside(|stage| async move {
            stage.pass(1).await;
            let body = json!({
                "source": "aws.autoscaling", "detail-type": "EC2 Instance-terminate Lifecycle Action",
                "detail": {
                    "EC2InstanceId": stage.spot[1], "AutoScalingGroupName": SPOT, "LifecycleHookName": "drain",
                },
            });
            stage.cloud.send_message(body.to_string());
            stage.pass(30).await;
            assert_eq!(count(&stage, MessageKind::LifecycleAction, MessageResult::Ignored), 1);
            assert!(stage.record(&stage.spot[1]).is_none());
        })
        .play();
    played.assert_ok();
    assert_eq!(played.count("CompleteLifecycleAction", None), 0);
}

#[test]
fn a_controller_that_dies_between_store_and_delete_leaves_one_notice_and_one_replacement() {
    let tale = || Play::of(Scenario::Rebalance).world(agentless());
    let whole = tale().play();
    whole.assert_ok();
    let stored = whole.writes.iter().position(|write| write.contains("interruptionnotices"));
    let number = stored.unwrap_or_else(|| panic!("no notice is stored: {:#?}", whole.writes));
    for moment in [CrashSide::Before, CrashSide::After] {
        let played = tale().crash(CrashPoint { number, moment }).play();
        played.assert_ok();
        assert!(played.crashed, "{moment:?}");
        assert_eq!(played.report.replacements.len(), 1, "{moment:?}");
        let left = queued(&played.stage, "Rebalance Recommendation");
        assert_eq!(left, 0, "{moment:?}: the message is deleted in the end");
    }
}

#[test]
fn messages_late_twice_and_out_of_order_begin_one_replacement() {
    let script =
        vec![(Duration::from_secs(10), Act::Rebalance(0)), (Duration::from_secs(40), Act::Interrupt(0))];
    let plot = Plot { script, ..ends(Scenario::TwoMinuteNotice) };
    let queue = NoticeQueue { late_by: Duration::from_secs(60), twice: true, max_receives: None };
    for seed in 1..=4 {
        let played =
            Play::plot("out of order", plot.clone()).seed(seed).world(with_queue(queue, false)).play();
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1, "seed {seed}");
    }
}
