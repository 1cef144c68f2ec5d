//! How fast on-demand goes back to Spot, how many at a time, and when it does not.

use crate::play::{EPOCH, Play, Played};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::SPOT;
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use spot_guard_core::time::since;
use std::time::Duration;

/// What a simulated instance takes from its launch until its node is Ready.
const BOOT: f64 = 60.0;
/// Box 8, by default.
const STABILITY: f64 = 120.0;

/// Eight of twelve nodes fall back one after another; Spot has capacity again at `back`.
fn eight_fallbacks(back: u64, policy: PolicySpec) -> Plot {
    let mut plot = Scenario::Storm.plot();
    let policy = PolicySpec { max_concurrent_percent: Some(100), ..policy };
    plot.start.policy = PolicySpec { brake_interruptions: Some(20), ..policy };
    let advice = (0..8).map(|number| (Duration::from_secs(10), Act::Rebalance(number)));
    plot.script = std::iter::once((Duration::from_secs(5), Act::SpotHas(Supply::None)))
        .chain(advice)
        .chain([(Duration::from_secs(back), Act::SpotHas(Supply::Unlimited))])
        .collect();
    plot.replacements = 8;
    plot.steps = vec![(FlowBox::ScaleDown, Outcome::ScaledDown)];
    plot
}

/// How long the last return took since Spot had capacity again, without its drain.
fn took(played: &Played, back: u64) -> f64 {
    played.assert_ok();
    let last = |flow_box, outcome| played.times(flow_box, outcome).into_iter().fold(0.0, f64::max);
    let drain = last(FlowBox::ScaleDown, Outcome::Drained) - last(FlowBox::Safety, Outcome::Safe);
    let whole = last(FlowBox::ScaleDown, Outcome::ScaledDown) - back as f64;
    println!("Spot back -> on-demand gone: {whole:.1} s, of which the last drain {drain:.1} s");
    whole - drain
}

#[test]
fn on_demand_is_gone_a_minute_after_the_time_of_stability_and_the_boot() {
    for back in [600, 607, 613, 622, 631, 640, 649, 655, 1800] {
        let mut plot = Scenario::DrySpot.plot();
        plot.script.last_mut().expect("Spot has capacity again").0 = Duration::from_secs(back);
        let took = took(&Play::plot("return", plot).play(), back);
        // After half an hour a market is asked less often.
        let probe = if back < 700 { 60.0 } else { 300.0 };
        assert!(took <= STABILITY + BOOT + probe, "{took} s after {back} s");
    }
}

#[test]
fn eight_fallbacks_are_asked_for_in_one_call_and_go_back_side_by_side() {
    let play = |returns| {
        let policy = PolicySpec { max_concurrent_returns: Some(returns), ..PolicySpec::default() };
        let played = Play::plot("eight fallbacks", eight_fallbacks(600, policy)).play();
        let whole = took(&played, 600);
        let start = EPOCH.parse().expect("a time");
        let calls = played.calls.iter().filter(|call| call.operation == "LaunchInstances");
        let calls = calls.filter(|call| call.group.as_deref() == Some(SPOT));
        let after = calls.filter(|call| since(start, call.at).as_secs() >= 600).count();
        (whole, after)
    };
    let (one_by_one, _) = play(1);
    let (side_by_side, calls) = play(5);
    assert_eq!(calls, 1, "one request for all");
    assert!(side_by_side <= STABILITY + BOOT + 60.0 + 60.0, "{side_by_side} s");
    assert!(side_by_side < one_by_one, "{side_by_side} and {one_by_one} s");
}

#[test]
fn spot_is_not_asked_for_a_fallback_whose_pods_cannot_leave_until_they_can() {
    let mut plot = Scenario::DrySpot.plot();
    plot.script.last_mut().expect("Spot has capacity again").0 = Duration::from_secs(600);
    let played = Play::plot("pinned", plot)
        .beside(|stage| async move {
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            stage.pin_on_demand();
            stage.pass(120).await;
            let asked = stage.cloud.calls().len();
            stage.pass(3600).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::PodUnmanaged]);
            let launches = |from: usize| {
                let calls = stage.cloud.calls().split_off(from);
                calls.into_iter().filter(|call| call.operation == "LaunchInstances").count()
            };
            assert_eq!(launches(asked), 0, "an instance would stand idle");
            stage.cluster.delete_pod("default", "runner");
        })
        .play();
    played.assert_ok();
}

#[test]
fn what_spot_gave_for_a_return_that_stays_unsafe_is_released_and_comes_again_when_it_is_safe() {
    let mut plot = Scenario::DrySpot.plot();
    plot.script.last_mut().expect("Spot has capacity again").0 = Duration::from_secs(600);
    let played = Play::plot("pinned late", plot)
        .beside(|stage| async move {
            let old = &stage.spot[0];
            stage.until_phase(old, Phase::OnFallback).await;
            stage.until(old, |status| status.fallback.successor().is_some()).await;
            let gave = stage.status(old).fallback.successor().cloned().expect("an instance").instance_id;
            stage.pin_on_demand();
            stage.pass(1700).await;
            let is_there = || {
                let groups = stage.cloud.snapshot().groups;
                let mut all = groups.iter().flat_map(|group| &group.instances);
                all.any(|held| *held.id == *gave && !held.state.is_ending())
            };
            assert!(is_there(), "it has half an hour");
            stage.pass(400).await;
            assert!(!is_there(), "nobody pays for an idle instance for ever");
            let calls = stage.cloud.calls().len();
            stage.pass(3600).await;
            let mut later = stage.cloud.calls().into_iter().skip(calls);
            assert!(later.all(|call| call.operation != "LaunchInstances"), "nor for the next one");
            assert_eq!(stage.held_by(old), [ReasonCode::PodUnmanaged]);
            stage.cluster.delete_pod("default", "runner");
        })
        .play();
    played.assert_ok();
    assert_eq!(played.times(FlowBox::Wait, Outcome::Unusable).len(), 1);
}

#[test]
fn after_a_return_that_was_lost_the_next_one_waits() {
    let mut plot = Scenario::DrySpot.plot();
    plot.script.pop();
    plot.replacements = 2;
    plot.steps = vec![(FlowBox::ScaleDown, Outcome::ScaledDown)];
    let played = Play::plot("lost return", plot)
        .beside(|stage| async move {
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            stage.until_phase(&stage.spot[0], Phase::Completed).await;
            let successor = stage.status(&stage.spot[0]).fallback.successor().cloned().expect("an instance");
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage.cloud.interrupt(&successor.instance_id).expect("an instance");
            stage.until_phase(&successor.instance_id, Phase::OnFallback).await;
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            stage.pass(300).await;
            assert_eq!(stage.held_by(&successor.instance_id), [ReasonCode::ReturnsLost]);
        })
        .play();
    played.assert_ok();
    let [first, second] = played.times(FlowBox::ScaleDown, Outcome::ScaledDown)[..] else {
        panic!("two returns");
    };
    assert!(second - first > 600.0, "{first} {second}");
}
