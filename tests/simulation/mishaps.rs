//! Answers that are lost, APIs that are out, instances that AWS takes at the wrong moment, other people who
//! change the groups: every story ends, and nothing that must always hold is violated.

use crate::play::{Play, Played, ends};
use serde_json::json;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{Gates, ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::{self, BootFault, LaunchFailure, ScriptedGate, Supply};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, OldNodeState, Outcome, Phase};
use std::sync::Arc;
use std::time::Duration;

fn with_aws(gate: ScriptedGate) -> Gates {
    Gates { aws: Some(Arc::new(gate)), ..Gates::default() }
}

const CHANGES: [&str; 3] = ["LaunchInstances", "SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup"];

#[test]
fn a_lost_answer_changes_nothing_twice() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired, Scenario::Rebalance] {
        let gate = ScriptedGate::default();
        for operation in CHANGES {
            for _ in 0..3 {
                gate.next_answer(operation, cloud::CallFate::Drop);
            }
        }
        Play::of(scenario).faults(with_aws(gate)).play().assert_ok();
    }
}

#[test]
fn a_call_that_does_not_arrive_or_hangs_is_made_again() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
        let gate = ScriptedGate::default();
        for operation in CHANGES {
            gate.next_request(operation, cloud::CallFate::Drop);
            gate.next_request(operation, cloud::CallFate::Hang);
            gate.next_answer(operation, cloud::CallFate::Hang);
        }
        Play::of(scenario).faults(with_aws(gate)).play().assert_ok();
    }
}

#[test]
fn throttling_delays_and_is_no_failure() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            stage.cloud.throttle_for(Duration::from_secs(600));
        })
        .play();
    played.assert_ok();
    assert!(played.report.simulated_seconds > 600.0, "{}", played.report.simulated_seconds);
    assert!(!played.report.replacements[0].fallback, "throttled is not dry");
}

/// AWS takes the old instance, without any notice, as soon as the story is in `phase`.
fn taken_in(phase: Phase, scenario: Scenario) -> Played {
    Play::plot(&format!("old instance taken in {phase:?}"), ends(scenario))
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, phase).await;
            stage.cloud.take_now(&instance).expect("an instance");
        })
        .play()
}

#[test]
fn aws_may_take_the_old_instance_in_any_phase() {
    for (phase, scenario) in [
        (Phase::ScalingUp, Scenario::Rebalance),
        (Phase::Draining, Scenario::PdbBlocked),
        (Phase::Terminating, Scenario::Rebalance),
        (Phase::FallingBack, Scenario::DrySpot),
        (Phase::FallingBack, Scenario::DrySpotSetDesired),
        (Phase::BackingOff, Scenario::AllDry),
    ] {
        taken_in(phase, scenario).assert_ok();
    }
}

/// AWS takes the instance that stands in as soon as the story is in `phase`.
fn stand_in_taken(phase: Phase, scenario: Scenario) -> Played {
    Play::plot(&format!("stand-in taken in {phase:?}"), ends(scenario))
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, phase).await;
            let capacity =
                stage.record(&instance).and_then(|record| record.status?.capacity.taken().cloned());
            stage.cloud.take_now(&capacity.expect("a stand-in").instance_id).expect("an instance");
        })
        .play()
}

#[test]
fn aws_may_take_the_instance_that_stands_in() {
    for (phase, scenario) in [
        (Phase::Draining, Scenario::PdbBlocked),
        (Phase::Terminating, Scenario::Rebalance),
        (Phase::OnFallback, Scenario::DrySpot),
        (Phase::OnFallback, Scenario::DrySpotSetDesired),
        (Phase::Returning, Scenario::DrySpot),
        (Phase::ScalingDown, Scenario::DrySpot),
    ] {
        stand_in_taken(phase, scenario).assert_ok();
    }
}

#[test]
fn a_node_whose_replacement_was_lost_loses_its_marks() {
    let played = Play::plot("marks undone", ends(Scenario::PdbBlocked))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::Draining).await;
            stage.pass(5).await;
            let capacity =
                stage.record(&instance).and_then(|record| record.status?.capacity.taken().cloned());
            stage.cloud.take_now(&capacity.expect("a stand-in").instance_id).expect("an instance");
            stage.until_phase(&instance, Phase::ScalingUp).await;
            stage.pass(5).await;
            let node = stage.record(&instance).expect("a record").spec.node_name;
            let node = stage.cluster.get_json("nodes", "", &node).expect("the node");
            assert!(node["spec"]["unschedulable"].as_bool() != Some(true), "{}", node["spec"]);
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_instance_that_dies_while_it_boots_is_no_replacement() {
    let played = Play::plot("dies pending", ends(Scenario::Rebalance))
        .beside(|stage| async move {
            stage.cloud.fault_next_boots(SPOT, 1, BootFault::DiesPending).expect("a group");
        })
        .play();
    played.assert_ok();
}

#[test]
fn instances_that_all_die_while_they_boot_are_a_wrong_configuration_and_on_demand_stands_in_at_once() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
        let mut plot = ends(scenario);
        // Their volumes' key cannot be used, which every launch tells.
        plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(Supply::None)));
        let played = Play::plot("all die pending", plot)
            .beside(|stage| async move {
                stage.cloud.fault_next_boots(SPOT, 6, BootFault::DiesPending).expect("a group");
            })
            .play();
        played.assert_ok();
        let asked = played.times(FlowBox::ScaleUp, Outcome::Requested)[0];
        let failed = played.times(FlowBox::Wait, Outcome::Misconfigured);
        let [failed] = failed[..] else { panic!("{scenario:?}: {failed:?} {:#?}", played.report.boxes) };
        assert!(failed - asked <= 60.0, "{scenario:?}: {asked} {failed}: after the first that died");
    }
}

#[test]
fn what_somebody_else_adds_to_a_group_stays() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
        for phase in [Phase::ScalingUp, Phase::Draining, Phase::OnFallback, Phase::Returning] {
            let played = Play::of(scenario)
                .beside(move |stage| async move {
                    let instance = stage.spot[0].clone();
                    stage.until_phase(&instance, phase).await;
                    stage.pass(3).await;
                    for group in [SPOT, ON_DEMAND] {
                        let desired = stage.cloud.group(group).expect("a group").desired;
                        stage.cloud.set_desired(group, desired + 1).expect("within the sizes");
                    }
                })
                .play();
            assert!(played.violations.is_empty(), "{phase:?}: {:?}", played.complaints());
            let groups = played.report.groups;
            for group in [groups.spot, groups.on_demand] {
                assert_eq!(group.desired, group.baseline + 1, "{phase:?}: {:?}", played.complaints());
            }
        }
    }
}

#[test]
fn a_desired_capacity_that_the_autoscaler_lowered_ends_no_story_for_ever() {
    let played = Play::plot("erased", ends(Scenario::DrySpotSetDesired))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            // As it deletes the placeholder of a node that does not come: desired becomes what is there.
            let group = stage.cloud.group(SPOT).expect("a group");
            let there = u32::try_from(group.instances.len()).expect("few");
            assert!(there < group.desired, "something is missing");
            stage.cloud.set_desired(SPOT, there).expect("within the sizes");
        })
        .play();
    played.assert_ok();
}

#[test]
fn what_the_autoscaler_gave_up_while_the_story_waits_is_asked_for_again() {
    let played = Play::plot("given up", ends(Scenario::DrySpotSetDesired))
        .beside(|stage| async move {
            // No failure is seen: the instance does not come, and the placeholder is deleted.
            stage
                .cloud
                .set_launch_failure(SPOT, Some(LaunchFailure::text("Odd", "Not now.")), None)
                .expect("a group");
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::ScalingUp).await;
            stage.pass(20).await;
            stage.cloud.set_desired(SPOT, 3).expect("within the sizes");
            let lowered = stage.cloud.now();
            stage.until_phase(&instance, Phase::FallingBack).await;
            let waited = stage.cloud.now().duration_since(lowered).as_secs_f64();
            assert!(
                waited <= 11.0,
                "nothing is coming: on-demand is asked, not after a timeout ({waited} s)"
            );
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.cloud.set_launch_failure(SPOT, None, None).expect("a group");
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_instance_that_came_while_aws_could_not_be_read_has_its_story_in_its_pool() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script = vec![(Duration::from_secs(1200), Act::SpotHas(Supply::Unlimited))];
    let played = Play::plot("unread", plot)
        .beside(|stage| async move {
            stage.pass(60).await;
            stage.cloud.throttle_for(Duration::from_secs(400));
            stage.cloud.take_now(&stage.spot[0]).expect("an instance");
            // The agent runs on its successor once that is Ready.
            stage.pass(120).await;
            let group = stage.cloud.group(SPOT).expect("a group");
            let successor = group.instances.last().expect("an instance").id.clone();
            assert!(!stage.spot.contains(&successor));
            stage.cloud.rebalance(&successor).expect("an instance");
            stage.until(&successor, |_| true).await;
            let record = stage.record(&successor).expect("a record");
            assert_eq!(record.spec.pool.as_deref(), Some(POOL));
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_instance_that_is_on_its_way_out_already_takes_no_place_with_it() {
    // The group's health check is faster than our call, which lowers nothing then: the +1 is still there.
    let gate = ScriptedGate::default();
    gate.next_request(CHANGES[2], cloud::CallFate::Delay(Duration::from_secs(8)));
    let played = Play::plot("on its way out", ends(Scenario::Rebalance))
        .faults(with_aws(gate))
        .beside(|stage| async move {
            stage.cloud.configure(|settings| settings.loss_detection = Duration::from_secs(1));
            stage
                .until(&stage.spot[0], |status| matches!(*status.old_node, OldNodeState::Terminating(_)))
                .await;
            stage.cloud.take_now(&stage.spot[0]).expect("an instance");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_late_winner_is_not_ended_under_the_pods_that_came_to_it_while_aws_could_not_be_read() {
    let mut plot = ends(Scenario::Rebalance);
    plot.start.policy.spot_timeout_seconds = Some(60);
    let played = Play::plot("late and busy", plot)
        .beside(|stage| async move {
            for group in [SPOT, ON_DEMAND] {
                let slow = |spec: &mut cloud::GroupSpec| spec.boot.launch = Duration::from_secs(70);
                stage.cloud.edit_group(group, slow).expect("a group");
            }
            stage.until_phase(&stage.spot[0], Phase::FallingBack).await;
            // What on-demand launched was never listed when AWS stops answering.
            while stage.cloud.group(ON_DEMAND).is_none_or(|group| group.instances.is_empty()) {
                stage.pass_millis(10).await;
            }
            stage.cloud.throttle_for(Duration::from_secs(600));
            stage.pass(300).await;
            let scale_to = |replicas: u32| {
                stage.cluster.edit("deployments.apps", "default", "web", |web| {
                    web["spec"]["replicas"] = json!(replicas);
                });
            };
            scale_to(14);
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            scale_to(6);
        })
        .play();
    assert!(played.has(FlowBox::Monitor, Outcome::Monitoring), "{}", played.told.join("\n"));
    played.assert_ok();
}

#[test]
fn a_stand_in_that_somebody_else_terminates_is_over_and_no_node_of_the_baseline_is_touched() {
    let mut plot = ends(Scenario::DrySpot);
    plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("terminated by others", plot)
        .beside(|stage| async move {
            stage.cloud.set_desired(ON_DEMAND, 2).expect("within the sizes");
            let old = stage.spot[0].clone();
            stage.until_phase(&old, Phase::OnFallback).await;
            let stand_in = stage.status(&old).capacity.taken().expect("a stand-in").instance_id.clone();
            stage.pass(60).await;
            stage.cloud.scale_down(&stand_in).expect("an instance");
        })
        .play();
    assert!(played.violations.is_empty() && played.has(FlowBox::CleanUp, Outcome::CleanedUp));
    let desired = |group: &str| played.stage.cloud.group(group).expect("a group").desired;
    assert_eq!((desired(SPOT), desired(ON_DEMAND)), (3, 2), "each as before the fallback");
    assert_eq!(played.count("TerminateInstanceInAutoScalingGroup", Some(ON_DEMAND)), 0);
}

#[test]
fn a_stand_in_that_aws_picks_when_somebody_lowers_desired_capacity_is_over() {
    let mut plot = ends(Scenario::DrySpot);
    plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("lowered by others", plot)
        .beside(|stage| async move {
            stage.cloud.set_desired(ON_DEMAND, 2).expect("within the sizes");
            stage.pass(2).await;
            let baseline = stage.cloud.group(ON_DEMAND).expect("a group").instances;
            assert_eq!(baseline.len(), 2, "nothing stands in yet");
            for instance in baseline {
                stage.cloud.protect(&instance.id, true).expect("an instance");
            }
            let old = stage.spot[0].clone();
            stage.until_phase(&old, Phase::OnFallback).await;
            stage.pass(60).await;
            stage.cloud.set_desired(ON_DEMAND, 2).expect("within the sizes");
        })
        .play();
    assert!(played.violations.is_empty(), "{:?}", played.complaints());
    assert!(played.has(FlowBox::CleanUp, Outcome::CleanedUp), "{:?}", played.report.problems);
    let desired = |group: &str| played.stage.cloud.group(group).expect("a group").desired;
    assert_eq!((desired(SPOT), desired(ON_DEMAND)), (3, 2), "each as before the fallback");
    assert_eq!(played.count("TerminateInstanceInAutoScalingGroup", Some(ON_DEMAND)), 0);
}

#[test]
fn a_spot_instance_that_is_unhealthy_holds_the_return_at_box_7() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let (old, other) = (stage.spot[0].clone(), stage.spot[1].clone());
            stage.until_phase(&old, Phase::OnFallback).await;
            stage.cloud.set_health(&other, false).expect("an instance");
            stage.until_waiting(&old, FlowBox::Health, ReasonCode::InstancesMissing).await;
            stage.pass(900).await;
            assert_eq!(stage.held_by(&old), [ReasonCode::InstancesMissing]);
            assert_eq!(stage.cloud.group(SPOT).expect("a group").instances.len(), 3, "nothing is ended");
            stage.cloud.set_health(&other, true).expect("an instance");
        })
        .play();
    played.assert_ok();
}
