//! The rows of the flow's table of errors that no story of the demo shows: a timeout, a Spot group that is
//! not healthy, a safety check that says no, a drain that fails. (Both groups failing: `dry-spot`,
//! `all-dry`.)

use crate::play::Play;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::SPOT;
use spot_guard_cloud::cloud::{BootFault, Supply};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FallbackState, FlowBox, Outcome, Phase, ReplacementStatus};

#[test]
fn a_spot_node_that_never_gets_ready_times_out_and_on_demand_takes_over() {
    let mut plot = Scenario::Rebalance.plot();
    plot.steps = vec![
        (FlowBox::Wait, Outcome::TimedOut),
        (FlowBox::Fallback, Outcome::InService),
        (FlowBox::Drain, Outcome::Drained),
        (FlowBox::Safety, Outcome::Safe),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ];
    let played = Play::plot("slow-spot", plot)
        .beside(|stage| async move {
            stage.cloud.fault_next_boots(SPOT, 1, BootFault::NeverReady).expect("a group");
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_return_waits_while_a_spot_node_is_not_ready() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let other = stage.cloud.node_of(&stage.spot[1]).expect("a node").node_name;
            stage.cluster.set_node_ready(&other, false);
            stage.until_waiting(&instance, FlowBox::Stability, ReasonCode::NodesNotReady).await;
            stage.pass(600).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            assert_eq!(status.phase, Phase::OnFallback, "it goes on monitoring");
            stage.cluster.set_node_ready(&other, true);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_return_waits_while_it_is_not_safe_and_is_tried_again() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.set_budgets(&["web", "api"], 0);
            stage.until_waiting(&instance, FlowBox::Safety, ReasonCode::BudgetExhausted).await;
            stage.pass(600).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            assert_eq!(status.phase, Phase::OnFallback, "it goes on monitoring");
            stage.set_budgets(&["web", "api"], 1);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_replacement_that_goes_on_does_not_name_what_it_waited_for_before() {
    let mut plot = Scenario::DrySpot.plot();
    plot.start.policy.min_node_age_seconds = Some(60);
    // Spot comes back when the replacement has waited at each box.
    plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("old reasons", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let gone = |reason: ReasonCode| {
                let held = stage.held_by(&instance);
                assert!(!held.contains(&reason), "{reason:?} in {held:?}");
            };
            stage.until_waiting(&instance, FlowBox::Notice, ReasonCode::NodeTooYoung).await;
            stage.until(&instance, |status| status.phase != Phase::Received).await;
            gone(ReasonCode::NodeTooYoung);
            stage.until_waiting(&instance, FlowBox::Health, ReasonCode::NoSpotInstance).await;
            stage.set_budgets(&["web", "api"], 0);
            stage.until_waiting(&instance, FlowBox::Safety, ReasonCode::BudgetExhausted).await;
            gone(ReasonCode::NoSpotInstance);
            stage.set_budgets(&["web", "api"], 1);
            stage.until_waiting(&instance, FlowBox::Health, ReasonCode::NoSpotInstance).await;
            gone(ReasonCode::BudgetExhausted);
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            let is_healthy =
                |status: &ReplacementStatus| status.steps.iter().any(|step| step.outcome == Outcome::Healthy);
            stage.until(&instance, is_healthy).await;
            gone(ReasonCode::NoSpotInstance);
            stage.until_phase(&instance, Phase::Returning).await;
            let held = stage.status(&instance).blocking;
            assert!(held.iter().all(|held| held.flow_box == FlowBox::ScaleDown), "{held:?}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_return_drain_that_fails_is_undone_and_tried_again() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until(&instance, |status| matches!(*status.fallback, FallbackState::Draining(_))).await;
            stage.set_budgets(&["web", "api"], 0);
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.pass(5).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            let node = status.capacity.taken().cloned().expect("an on-demand node").node_name;
            let found = stage.cluster.get_json("nodes", "", &node).expect("the node");
            assert!(found["spec"]["unschedulable"].as_bool() != Some(true), "{}", found["spec"]);
            assert!(found["spec"]["taints"].as_array().is_none_or(Vec::is_empty), "{}", found["spec"]);
            stage.set_budgets(&["web", "api"], 1);
        })
        .play();
    assert!(played.has(FlowBox::ScaleDown, Outcome::ReturnGivenUp));
    played.assert_ok();
}
