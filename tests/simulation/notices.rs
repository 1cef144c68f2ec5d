//! Notices that come again, that change, and that become more urgent.

use crate::play::{Play, Played, Stage, ends};
use jiff::Timestamp;
use serde_json::json;
use spot_guard::crd::{InterruptionNotice, notice_name};
use spot_guard::sim::audit::Invariant;
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::SPOT;
use spot_guard_cloud::cloud::{ImdsMode, Supply};
use spot_guard_core::record::{FlowBox, NoticeKind, OldNodeState, Outcome, Phase, ReplacementStatus};
use std::time::Duration;

/// Reports a notice as the agent of the instance's node would.
fn report(stage: &Stage, instance: &str, deadline: Option<Timestamp>) {
    let node = stage.cloud.node_of(instance).map(|node| node.node_name);
    let node = node.or_else(|| Some(stage.record(instance)?.spec.node_name.to_string())).expect("a node");
    report_of(stage, &node, instance, deadline);
}

/// Reports a notice of any node about any instance.
fn report_of(stage: &Stage, node: &str, instance: &str, deadline: Option<Timestamp>) {
    let kind = match deadline {
        Some(_) => NoticeKind::SpotInterruption,
        None => NoticeKind::RebalanceRecommendation,
    };
    // A name that is taken refuses the report, as it does an agent's.
    let _ = stage.cluster.create_json(json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "InterruptionNotice",
        "metadata": { "name": notice_name(&node.into(), &instance.into(), kind) },
        "spec": {
            "nodeName": node,
            "instanceId": instance,
            "kind": kind,
            "noticeTime": stage.cloud.now(),
            "detectedAt": stage.cloud.now(),
            "deadline": deadline,
        },
    }));
}

fn count(played: &Played, flow_box: FlowBox, outcome: Outcome) -> usize {
    played.report.boxes.iter().filter(|step| (step.flow_box, step.outcome) == (flow_box, outcome)).count()
}

#[test]
fn a_notice_time_that_changes_with_every_read_makes_one_replacement() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            for instance in &stage.spot {
                stage.cloud.set_imds_mode(instance, ImdsMode::RestlessNoticeTime).expect("an instance");
            }
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn reports_of_the_same_notice_by_anybody_make_one_replacement() {
    // Spot stays dry until all have reported.
    let played = Play::plot("reported by anybody", dry_for(700))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::ScalingUp).await;
            for number in 0..40 {
                report(&stage, &instance, None);
                report_of(&stage, &format!("nobody-{number}"), &instance, None);
                stage.pass(15).await;
            }
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
    assert_eq!(count(&played, FlowBox::Notice, Outcome::NoticeReceived), 1);
}

/// A story in which the second notice comes as soon as the first has brought the story to `phase`.
fn escalated_in(phase: Phase, plot: Plot) -> Played {
    let mut plot = Plot { steps: vec![(FlowBox::Notice, Outcome::Escalated)], ..plot };
    plot.steps.push((FlowBox::CleanUp, Outcome::CleanedUp));
    Play::plot(&format!("escalated in {phase:?}"), plot)
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, phase).await;
            if stage.cloud.interrupt(&instance).is_err() {
                // The instance is gone: a report that comes too late.
                let deadline = stage.cloud.now() + Duration::from_secs(120);
                report(&stage, &instance, Some(deadline));
            }
        })
        .play()
}

fn dry_for(seconds: u64) -> Plot {
    Plot {
        script: vec![
            (Duration::from_secs(5), Act::SpotHas(Supply::None)),
            (Duration::from_secs(10), Act::Rebalance(0)),
            (Duration::from_secs(seconds), Act::SpotHas(Supply::Unlimited)),
        ],
        ..Scenario::DrySpot.plot()
    }
}

#[test]
fn a_deadline_escalates_the_same_replacement_in_every_phase() {
    let cases = [
        (Phase::ScalingUp, Scenario::Rebalance.plot()),
        (Phase::FallingBack, dry_for(240)),
        (Phase::BackingOff, Scenario::AllDry.plot()),
        (Phase::Draining, Scenario::PdbBlocked.plot()),
        (Phase::Terminating, Scenario::Rebalance.plot()),
        (Phase::OnFallback, dry_for(240)),
        (Phase::Returning, dry_for(240)),
        (Phase::ScalingDown, dry_for(240)),
    ];
    for (phase, plot) in cases {
        let played = escalated_in(phase, plot);
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1, "{phase:?}");
        let at =
            |outcome| played.report.boxes.iter().find(|step| step.outcome == outcome).map(|step| step.at);
        let (escalated, tainted) = (at(Outcome::Escalated), at(Outcome::Tainted));
        let (Some(escalated), Some(tainted)) = (escalated, tainted) else { panic!("{phase:?}: no taint") };
        assert!(tainted <= escalated + 3.0, "{phase:?}: {escalated} s, tainted at {tainted} s");
    }
}

#[test]
fn both_notices_at_once_make_one_replacement() {
    let plot = Plot {
        script: vec![
            (Duration::from_secs(5), Act::Rebalance(0)),
            (Duration::from_secs(5), Act::Interrupt(0)),
        ],
        ..Scenario::TwoMinuteNotice.plot()
    };
    let played = Play::plot("both at once", plot).play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

/// How many notices there are of a node.
fn held(stage: &Stage, node: &str) -> usize {
    let notices: Vec<InterruptionNotice> = stage.cluster.list();
    notices.iter().filter(|notice| notice.spec.node_name == node).count()
}

async fn removed(stage: &Stage, node: &str) {
    for _ in 0..100 {
        if held(stage, node) == 0 {
            return;
        }
        stage.pass(1).await;
    }
    panic!("the notices of {node} are still there");
}

fn node_of(stage: &Stage, instance: &str) -> String {
    stage.cloud.node_of(instance).expect("a node").node_name
}

fn soon(stage: &Stage) -> Option<Timestamp> {
    Some(stage.cloud.now() + Duration::from_secs(60))
}

#[track_caller]
fn refused(stage: &Stage, reason: &str, count: usize) {
    let line = format!("spot_guard_notices_refused_total{{reason=\"{reason}\"}} {count}\n");
    let metrics = stage.metrics();
    assert!(metrics.contains(&line), "no {line} in {metrics}");
}

#[test]
fn a_notice_of_another_node_escalates_nothing_and_is_removed() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let (instance, liar) = (stage.spot[0].clone(), node_of(&stage, &stage.spot[1]));
            stage.until_phase(&instance, Phase::ScalingUp).await;
            report_of(&stage, &liar, &instance, soon(&stage));
            removed(&stage, &liar).await;
            refused(&stage, "InstanceOfAnotherNode", 1);
        })
        .play();
    played.assert_ok();
    assert_eq!(count(&played, FlowBox::Notice, Outcome::Escalated), 0);
}

#[test]
fn a_node_that_is_gone_has_no_word_about_instances_of_others() {
    let mut plot = Scenario::TwoMinuteNotice.plot();
    plot.script.push((Duration::from_secs(900), Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("gone", plot)
        .beside(|stage| async move {
            let (own, foreign) = (stage.spot[0].clone(), stage.spot[1].clone());
            let node = node_of(&stage, &own);
            stage.until(&own, |status| status.old_node == OldNodeState::Gone {}).await;
            while stage.cluster.get_json("nodes", "", &node).is_some() {
                stage.pass(1).await;
            }
            // As an instance that has no Node yet, and as one that has.
            report_of(&stage, &node, "i-0123456789abcdef0", soon(&stage));
            report_of(&stage, &node, &foreign, Some(stage.cloud.now() - Duration::from_secs(10)));
            stage.pass(90).await;
            refused(&stage, "InstanceOfAnotherNode", 1);
            refused(&stage, "NoSuchNode", 1);
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
    assert!(played.stage.record("i-0123456789abcdef0").is_none());
}

/// What was laid days ago does not go off when a person asks for a harmless replacement.
#[test]
fn a_notice_that_was_refused_is_no_mine() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script = vec![(Duration::from_secs(1200), Act::SpotHas(Supply::Unlimited))];
    let played = Play::plot("mine", plot)
        .beside(|stage| async move {
            let (instance, liar) = (stage.spot[0].clone(), node_of(&stage, &stage.spot[1]));
            report_of(&stage, &liar, &instance, soon(&stage));
            stage.pass(300).await;
            report_of(&stage, &liar, &instance, soon(&stage));
            let replace = json!({ "action": "Replace", "node": node_of(&stage, &instance) });
            crate::spot_actions::ask(&stage, "please", replace);
            stage.until_phase(&instance, Phase::Completed).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            assert_eq!((status.deadline, status.notice), (None, Some(NoticeKind::Manual)));
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_deadline_that_ec2_cannot_have_given_is_none_and_the_real_one_counts() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.script = vec![
        (Duration::from_secs(300), Act::Interrupt(0)),
        (Duration::from_secs(900), Act::SpotHas(Supply::Unlimited)),
    ];
    plot.steps = vec![(FlowBox::CleanUp, Outcome::Cancelled), (FlowBox::CleanUp, Outcome::CleanedUp)];
    let played = Play::plot("far", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = node_of(&stage, &instance);
            let far = "2150-01-01T00:00:00Z".parse().expect("a time");
            report(&stage, &instance, Some(far));
            stage.until(&instance, |status| status.started_at.is_some()).await;
            // Its name is free for the notice that EC2 gives.
            removed(&stage, &node).await;
            refused(&stage, "ImplausibleDeadline", 1);
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            assert_eq!(status.deadline, None);
            crate::spot_actions::ask(&stage, "stop", json!({ "action": "Cancel", "node": node }));
            stage.until(&instance, |status| status.old_node == OldNodeState::Retained {}).await;
            stage.until(&instance, |status| status.deadline.is_some()).await;
        })
        .play();
    played.assert_ok();
}

/// Registers a node as somebody with a kubelet's credentials can.
fn register(stage: &Stage, name: &str, instance: Option<&str>) {
    let provider_id = instance.map(|id| format!("aws:///us-east-1a/{id}"));
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "providerID": provider_id } });
    stage.cluster.create_json(node).expect("a node");
}

/// The rules of the simulation know of no node that lies: its own story, and that there are two of the
/// instance, is all that they have to say.
#[track_caller]
fn only_the_planted_story(played: &Played) {
    let planted = |rule| matches!(rule, Invariant::OnlyReported | Invariant::OneReplacement);
    let others = played.violations.iter().filter(|violation| !planted(violation.invariant));
    assert_eq!(others.count(), 0, "{:?}", played.complaints());
}

fn unregister(stage: &Stage, name: &str) {
    stage.cluster.remove("nodes", "", name);
}

#[test]
fn a_node_that_says_it_runs_on_another_ones_instance_ends_nothing_and_silences_nobody() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.script.clear();
    plot.script.push((Duration::from_secs(900), Act::SpotHas(Supply::Unlimited)));
    plot.steps.clear();
    let played = Play::plot("two nodes of an instance", plot)
        .beside(|stage| async move {
            let victim = stage.spot[0].clone();
            let node = node_of(&stage, &victim);
            register(&stage, "e", Some(&victim));
            stage.pass(2).await;
            report_of(&stage, "e", &victim, soon(&stage));
            stage.pass(200).await;
            assert!(stage.record(&victim).is_none(), "it has no story of the instance");
            let own = stage.record(&format!("e.{victim}")).expect("a story of the node");
            assert_eq!((own.spec.node_name.as_str(), own.spec.pool), ("e", None));
            assert_eq!(stage.changes(), 0, "nothing is terminated");
            report(&stage, &victim, soon(&stage));
            let drained = format!("{node}.{victim}");
            stage.until(&drained, |status| status.old_node.is_past_drain()).await;
            assert_eq!(stage.changes(), 0, "nothing is terminated");
            unregister(&stage, "e");
            stage.pass(5).await;
        })
        .play();
    only_the_planted_story(&played);
}

#[test]
fn a_node_without_an_instance_does_not_take_the_place_of_the_one_that_has_it() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.script.clear();
    plot.script.push((Duration::from_secs(900), Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("squatter", plot)
        .beside(|stage| async move {
            let victim = stage.spot[0].clone();
            let node = node_of(&stage, &victim);
            // The instance has no Node yet.
            let held = stage.cluster.get_json("nodes", "", &node).expect("a node");
            stage.cluster.edit("nodes", "", &node, |node| node["spec"]["providerID"] = json!(null));
            register(&stage, "e", None);
            stage.pass(2).await;
            report_of(&stage, "e", &victim, soon(&stage));
            stage.until(&format!("e.{victim}"), |status| status.started_at.is_some()).await;
            assert!(stage.record(&victim).is_none());
            let id = held["spec"]["providerID"].clone();
            stage.cluster.edit("nodes", "", &node, |node| node["spec"]["providerID"] = id);
            stage.pass(2).await;
            report(&stage, &victim, soon(&stage));
            stage.until(&victim, |status| status.started_at.is_some()).await;
            let record = stage.record(&victim).expect("a record");
            assert_eq!(record.spec.node_name, node);
            assert!(record.spec.pool.is_some());
            unregister(&stage, "e");
        })
        .play();
    only_the_planted_story(&played);
}

#[test]
fn another_node_that_has_the_name_of_an_old_one_is_left_alone() {
    let mut plot = Scenario::TwoMinuteNotice.plot();
    plot.steps.clear();
    let played = Play::plot("namesake", plot)
        .beside(|stage| async move {
            let own = stage.spot[0].clone();
            let node = node_of(&stage, &own);
            stage.until(&own, |status| status.old_node != OldNodeState::Kept {}).await;
            unregister(&stage, &node);
            register(&stage, &node, Some("i-0123456789abcdef0"));
            stage.pass(60).await;
            let namesake = stage.cluster.get_json("nodes", "", &node).expect("a node");
            assert_eq!(namesake["spec"]["unschedulable"], json!(null), "{namesake}");
            assert!(!namesake.to_string().contains("spotguard.dev"), "{namesake}");
            unregister(&stage, &node);
        })
        .play();
    assert_eq!(played.violations.len(), 0, "{:?}", played.complaints());
}

/// A story that only what happens beside it begins.
fn quiet(steps: Vec<(FlowBox, Outcome)>) -> Plot {
    Plot { script: Vec::new(), steps, ..Scenario::Rebalance.plot() }
}

#[test]
fn a_node_that_its_group_terminates_is_drained_and_nothing_is_scaled() {
    let drained = vec![
        (FlowBox::Notice, Outcome::NoticeReceived),
        (FlowBox::Taint, Outcome::Tainted),
        (FlowBox::Drain, Outcome::Drained),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ];
    let played = Play::plot("terminated by its group", quiet(drained))
        .beside(|stage| async move {
            let hook = Some(Duration::from_secs(600));
            stage.cloud.edit_group(SPOT, |spec| spec.termination_hook = hook).expect("a group");
            stage.pass(30).await;
            // As cluster-autoscaler scales down, and whoever else.
            stage.cloud.scale_down(&stage.spot[0]).expect("an instance");
            let began = stage.cloud.now();
            stage.until(&stage.spot[0], |status| matches!(*status.old_node, OldNodeState::Drained(_))).await;
            let took = stage.cloud.now().duration_since(began).as_secs();
            assert!(took < 120, "drained within two minutes, not after {took} s");
            // Somebody scales up again.
            stage.cloud.set_desired(SPOT, 3).expect("a group");
        })
        .play();
    played.assert_ok();
    let status = played.stage.status(&played.stage.spot[0]);
    assert_eq!(status.notice, Some(NoticeKind::GroupTermination));
    for operation in ["LaunchInstances", "SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup"] {
        assert_eq!(played.count(operation, None), 0, "{operation}");
    }
}

/// EC2 schedules maintenance of the first node, which is replaced for it; what came of it.
pub fn maintenance(about: &str, change: impl FnOnce(Play) -> Play) -> ReplacementStatus {
    let play = Play::plot(about, Plot { script: Vec::new(), ..Scenario::Rebalance.plot() });
    let play = change(play).beside(|stage| async move {
        stage.pass(5).await;
        stage.cloud.schedule_maintenance(&stage.spot[0], Duration::from_secs(6000)).expect("an instance");
    });
    let played = play.play();
    played.assert_ok();
    let status = played.stage.status(&played.stage.spot[0]);
    assert_eq!((status.notice, status.deadline), (Some(NoticeKind::ScheduledMaintenance), None));
    status
}

#[test]
fn a_node_is_replaced_long_before_the_maintenance_that_ec2_has_scheduled() {
    let status = maintenance("maintenance", |play| play);
    let took = status.finished_at.expect("an end").duration_since(status.started_at.expect("a beginning"));
    assert!(took.as_secs() < 1200, "{took:?}");
}

#[test]
fn maintenance_passes_a_pause_once_its_time_is_near() {
    let steps = vec![
        (FlowBox::Notice, Outcome::NoticeReceived),
        (FlowBox::Notice, Outcome::Escalated),
        (FlowBox::Drain, Outcome::Drained),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ];
    let played = Play::plot("maintenance in a pause", quiet(steps))
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["paused"] = json!(true));
            stage.pass(5).await;
            let instance = stage.spot[0].clone();
            stage.cloud.schedule_maintenance(&instance, Duration::from_secs(1800)).expect("an instance");
            let at = stage.cloud.now() + Duration::from_secs(1800);
            stage.pass(1000).await;
            let waits = stage.status(&instance);
            assert_eq!((waits.phase, waits.deadline), (Phase::Received, None));
            let wanted = Timestamp::from_second(at.as_second()).expect("a time");
            stage.until(&instance, |status| status.deadline == Some(wanted)).await;
            stage.until(&instance, |status| matches!(*status.old_node, OldNodeState::Gone {})).await;
            assert!(stage.cloud.now() < at, "it is gone before EC2 stops it");
        })
        .play();
    played.assert_ok();
}

/// EC2 schedules maintenance of the first node three hours ahead, and a person cancels its replacement.
/// Finished records are kept as short as can be. The story goes on for so long at least.
fn given_up(lasts: Duration) -> Plot {
    let steps = vec![(FlowBox::CleanUp, Outcome::Cancelled), (FlowBox::CleanUp, Outcome::CleanedUp)];
    let mut plot = quiet(steps);
    plot.start.policy.keep_finished_seconds = Some(60);
    plot.start.policy.cleanup_seconds = Some(10);
    plot.script = vec![(lasts, Act::SpotHas(Supply::Unlimited))];
    plot.limit = lasts + Duration::from_secs(3600);
    plot
}

const MAINTAINED_IN: Duration = Duration::from_secs(3 * 3600);

async fn give_up(stage: &Stage) {
    stage.pass(30).await;
    let instance = &stage.spot[0];
    stage.cloud.schedule_maintenance(instance, MAINTAINED_IN).expect("an instance");
    stage.until(instance, |status| status.started_at.is_some()).await;
    crate::spot_actions::ask(stage, "stop", json!({ "action": "Cancel", "node": node_of(stage, instance) }));
    stage.until_phase(instance, Phase::Cancelled).await;
}

#[test]
fn maintenance_is_not_forgotten_when_its_replacement_was_given_up_long_ago() {
    let played = Play::plot("maintenance after all", given_up(MAINTAINED_IN))
        .beside(|stage| async move {
            give_up(&stage).await;
            let instance = stage.spot[0].clone();
            let node = node_of(&stage, &instance);
            let notices: Vec<InterruptionNotice> = stage.cluster.list();
            let at = notices.iter().find_map(|notice| notice.spec.deadline).expect("a time");
            // No limit counts the record any more after an hour.
            stage.pass(9000).await;
            assert_eq!((stage.status(&instance).phase, held(&stage, &node)), (Phase::Cancelled, 1));
            stage.until(&instance, |status| status.deadline == Some(at)).await;
            stage.until(&instance, |status| matches!(*status.old_node, OldNodeState::Gone {})).await;
            assert!(stage.cloud.now() < at, "it is drained and gone before EC2 stops it");
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained));
}

#[test]
fn maintenance_that_ec2_moves_to_an_earlier_time_begins_the_replacement_anew() {
    let played = Play::plot("maintenance is moved", given_up(Duration::from_secs(3000)))
        .beside(|stage| async move {
            give_up(&stage).await;
            let instance = stage.spot[0].clone();
            let earlier = Duration::from_secs(1800);
            stage.cloud.schedule_maintenance(&instance, earlier).expect("an instance");
            let at = stage.cloud.now() + earlier;
            stage.until(&instance, |status| matches!(*status.old_node, OldNodeState::Gone {})).await;
            assert!(stage.cloud.now() < at, "it is drained and gone before EC2 stops it");
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained));
}

/// How long before EC2 takes the instance it is terminated, by a controller whose clock is so far off.
fn spare_time(ahead: i64) -> i64 {
    // A budget that is shut: nothing but the deadline ends the drain.
    let played = Play::plot("a clock that is off", ends(Scenario::TwoMinuteNotice))
        .clock_ahead(ahead)
        .beside(|stage| async move { stage.set_budgets(&["web", "api"], 0) })
        .play();
    played.assert_ok();
    let terminated = played.calls.iter().find(|call| call.operation == "TerminateInstanceInAutoScalingGroup");
    let deadline = played.stage.status(&played.stage.spot[0]).deadline.expect("a deadline");
    deadline.duration_since(terminated.expect("a termination").at).as_secs()
}

#[test]
fn a_deadline_is_kept_by_a_controller_whose_clock_is_half_a_minute_off() {
    let exact = spare_time(0);
    for ahead in [30, -30] {
        let spare = spare_time(ahead);
        let said = format!("{ahead} s ahead: terminated {spare} s before the deadline, else {exact} s");
        assert!((exact - 3..=exact + 3).contains(&spare), "{said}");
    }
}

#[test]
fn spot_nodes_without_a_ready_agent_are_counted_in_the_condition_of_the_pool() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script = vec![(Duration::from_secs(900), Act::Rebalance(0))];
    let played = Play::plot("agents", plot).beside(|stage| async move {
        let agent = |namespace: &str, instance: &String, number: usize| {
            let node = stage.cloud.node_of(instance).expect("a node").node_name;
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": namespace, "name": format!("spot-guard-agent-{number}"),
                    "labels": {
                        "app.kubernetes.io/name": "spot-guard",
                        "app.kubernetes.io/component": "agent",
                    },
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "spot-guard-agent", "uid": "u",
                        "controller": true,
                    }],
                },
                "spec": { "nodeName": node, "containers": [{ "name": "agent", "image": "spot-guard:1" }] },
            })
        };
        for (number, instance) in stage.spot.iter().enumerate().skip(1) {
            stage.cluster.create_json(agent("default", instance, number)).expect("a pod");
        }
        // Anybody may call a pod of theirs an agent.
        stage.cluster.create_json(agent("tenant", &stage.spot[0], 0)).expect("a pod");
        stage.pass(400).await;
        let (all, reason, message) = stage.condition("Watched").expect("a condition");
        let node = stage.cloud.node_of(&stage.spot[0]).expect("a node").node_name;
        let count = stage.spot.len();
        assert_eq!((all, reason.as_str()), (false, "NotWatched"));
        let expected = format!("1 of {count} Spot nodes are not watched by a ready agent: {node}");
        assert_eq!(message, expected);
        let metrics = stage.metrics();
        assert!(metrics.contains("spot_guard_pool_unwatched_nodes{pool=\"workers\"} 1\n"), "{metrics}");
        stage.cluster.create_json(agent("default", &stage.spot[0], 0)).expect("a pod");
        stage.pass(60).await;
        assert_eq!(stage.condition("Watched").map(|(all, ..)| all), Some(true));
    });
    played.play().assert_ok();
}
