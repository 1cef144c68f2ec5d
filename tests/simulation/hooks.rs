//! Lifecycle hooks: instances that are held on their way in or out, launches that are abandoned, and
//! instances that are retained.

use crate::play::Play;
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::SPOT;
use spot_guard_cloud::cloud::{BootFault, GroupSpec};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, Outcome, ReplacementStatus};
use std::time::Duration;

/// The plot with a lifecycle hook that befalls the next Spot instance from that second on.
fn with_hook(scenario: Scenario, from: u64, hook: BootFault) -> Plot {
    let plot = scenario.plot();
    let mut plot = Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..plot };
    plot.script.push((Duration::from_secs(from), Act::NodesFail(SPOT, hook, 1)));
    plot.script.sort_by_key(|(at, _)| *at);
    plot
}

#[test]
fn an_instance_that_a_launch_hook_holds_is_named_with_since_when_and_taken_when_it_is_let_on() {
    let hook = BootFault::HookHolds(Duration::from_secs(120));
    let played = Play::plot("held", with_hook(Scenario::Rebalance, 0, hook))
        .beside(|stage| async move {
            let old = stage.spot[0].clone();
            stage.until_waiting(&old, FlowBox::Wait, ReasonCode::LaunchHeld).await;
            let held = stage.status(&old).blocking[0].clone();
            let there = stage.cloud.group(SPOT).expect("a group").instances;
            let pending = there.last().expect("an instance");
            // It is claimed when the answer of AWS is there.
            let is_told = |later: u64| {
                let since = pending.launched_at + Duration::from_secs(later);
                held.message.contains(&format!("{}, waited for since {since:.0}", pending.id))
            };
            assert!((0..=2).any(is_told), "{} / {}", held.message, pending.launched_at);
            assert!(stage.status(&old).capacity.taken().is_none());
        })
        .play();
    played.assert_ok();
    assert!(!played.report.replacements[0].fallback, "120 s are less than the timeout");
}

#[test]
fn a_launch_that_a_hook_holds_beyond_the_timeout_falls_back_and_what_comes_late_serves_the_return() {
    let hook = BootFault::HookHolds(Duration::from_secs(600));
    let played = Play::plot("held for long", with_hook(Scenario::Rebalance, 0, hook)).play();
    played.assert_ok();
    assert!(played.report.replacements[0].fallback);
    assert!(played.has(FlowBox::ScaleDown, Outcome::ScaledDown));
}

#[test]
fn a_return_names_the_spot_instance_that_a_launch_hook_holds() {
    let hook = BootFault::HookHolds(Duration::from_secs(120));
    let played = Play::plot("a return is held", with_hook(Scenario::DrySpot, 200, hook))
        .beside(|stage| async move {
            let old = stage.spot[0].clone();
            stage.until_waiting(&old, FlowBox::Health, ReasonCode::LaunchHeld).await;
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::ScaleDown, Outcome::ScaledDown));
}

#[test]
fn a_launch_that_a_hook_abandons_is_made_again_and_the_replacement_takes_that() {
    for scenario in [Scenario::Rebalance, Scenario::DrySpotSetDesired] {
        let from = if scenario == Scenario::Rebalance { 0 } else { 200 };
        let hook = BootFault::HookAbandons(Duration::from_secs(60));
        // The node of the abandoned instance is drained: its agent reports that the group terminates it.
        let plot = Plot { replacements: 2, ..with_hook(scenario, from, hook) };
        let played = Play::plot("abandoned", plot).play();
        played.assert_ok();
        let activities = played.stage.cloud.snapshot().activities;
        let texts = activities.iter().filter_map(|held| held.status_message.as_deref());
        assert_eq!(texts.filter(|text| text.contains("was abandoned")).count(), 1, "{scenario:?}");
    }
}

#[test]
fn an_instance_that_is_held_on_its_way_out_or_retained_is_named_until_it_is_gone() {
    let plot = Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..Scenario::Rebalance.plot() };
    let played = Play::plot("retained", plot)
        .beside(|stage| async move {
            let retains = |spec: &mut GroupSpec| {
                (spec.termination_hook, spec.retains) = (Some(Duration::from_secs(300)), true);
            };
            stage.cloud.edit_group(SPOT, retains).expect("a group");
            let old = stage.spot[0].clone();
            stage.until_waiting(&old, FlowBox::Drain, ReasonCode::TerminationHeld).await;
            let held = stage.status(&old).blocking[0].clone();
            assert!(held.message.contains("holds") && held.message.contains("Terminating:Wait"), "{held:?}");
            let says_retained = |status: &ReplacementStatus| {
                status.blocking.iter().any(|held| held.message.contains("Terminating:Retained"))
            };
            stage.until(&old, says_retained).await;
            stage.pass(600).await;
            assert!(says_retained(&stage.status(&old)), "it stays until somebody terminates it");
            assert_eq!(stage.cloud.group(SPOT).expect("a group").desired, 3, "and is no capacity");
            stage.cloud.end_retained(&old).expect("an instance");
        })
        .play();
    played.assert_ok();
}
