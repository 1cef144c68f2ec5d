//! What holds voluntary work back, and that nothing holds back what has a deadline.

use crate::play::{Play, Stage};
use serde_json::json;
use spot_guard::crd::NodeReplacement;
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::{GroupSpec, Supply};
use spot_guard_core::limits;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::reason::{Pause, ReasonCode};
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use spot_guard_core::windows::ReturnWindow;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A plot whose pool has these settings.
fn with_policy(plot: Plot, policy: PolicySpec) -> Plot {
    let mut plot = plot;
    plot.start.policy = policy;
    plot
}

#[test]
fn a_storm_moves_ten_nodes_at_a_time_with_few_calls() {
    let played = Play::of(Scenario::Storm)
        .beside(|stage| async move {
            stage.until(&stage.spot[0], |status| status.phase != Phase::Received).await;
            let mut most = 0;
            for second in 0..600 {
                let records: Vec<NodeReplacement> = stage.cluster.list();
                let now = stage.cloud.now();
                let statuses = records.iter().filter_map(|record| record.status.as_ref());
                let moving = statuses.filter(|status| limits::is_under_way(status, now));
                let advised = moving.filter(|status| status.deadline.is_none()).count();
                assert!(advised <= 10, "{advised} nodes are moved on advice at {second} s");
                most = most.max(advised);
                let returns = |record: &NodeReplacement| {
                    record.status.as_ref().is_some_and(|status| status.fallback.is_returning())
                };
                if records.iter().any(returns) {
                    break;
                }
                stage.pass(1).await;
            }
            assert_eq!(most, 10, "the limit is used");
        })
        .play();
    played.assert_ok();
    // In the whole story, its returns among it.
    let asked = played.count("LaunchInstances", None) + played.count("SetDesiredCapacity", None);
    assert!(asked <= 20, "{asked} calls raise capacity");
    assert_eq!(played.report.replacements.len(), 20);
    let fallbacks = played.report.replacements.iter().filter(|story| story.fallback).count();
    assert!(fallbacks > 0, "Spot had not enough for all");
    assert_eq!(played.times(FlowBox::ScaleDown, Outcome::Drained).len(), fallbacks);
}

#[test]
fn the_brake_keeps_the_pool_on_demand_until_the_storm_is_over() {
    let policy = PolicySpec { brake_interruptions: Some(1), brake_percent: Some(0), ..PolicySpec::default() };
    let mut plot = with_policy(Scenario::DrySpot.plot(), policy);
    plot.script.push((120 * SECOND, Act::Interrupt(1)));
    plot.replacements = 2;
    plot.steps = vec![(FlowBox::CleanUp, Outcome::CleanedUp)];
    let played = Play::plot("brake", plot)
        .beside(|stage| async move {
            stage.until(&stage.spot[1], |status| status.phase == Phase::Completed).await;
            stage.pass(60).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::InterruptionBrake]);
        })
        .play();
    played.assert_ok();
    let returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
    assert!(returned.len() == 1 && returned[0] > 3610.0 && returned[0] < 4000.0, "{returned:?}");
}

#[test]
fn a_young_node_is_moved_when_it_is_old_enough_or_at_once_at_a_deadline() {
    let policy = PolicySpec { min_node_age_seconds: Some(600), ..PolicySpec::default() };
    let played = Play::plot("young", with_policy(Scenario::Rebalance.plot(), policy.clone()))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::Received).await;
            stage.pass(300).await;
            assert_eq!(stage.held_by(&instance), [ReasonCode::NodeTooYoung]);
        })
        .play();
    played.assert_ok();
    let asked = played.times(FlowBox::ScaleUp, Outcome::Requested);
    assert!(asked[0] > 500.0 && asked[0] < 602.0, "{asked:?}");

    let plot = Plot { script: vec![(5 * SECOND, Act::Rebalance(0))], ..Scenario::TwoMinuteNotice.plot() };
    let played = Play::plot("young, two minutes", with_policy(plot, policy))
        .beside(|stage| async move {
            stage.until_phase(&stage.spot[0], Phase::Received).await;
            stage.pass(20).await;
            stage.cloud.interrupt(&stage.spot[0]).expect("an instance");
        })
        .play();
    played.assert_ok();
    let asked = played.times(FlowBox::ScaleUp, Outcome::Requested);
    let escalated = played.times(FlowBox::Notice, Outcome::Escalated);
    assert!(asked[0] - escalated[0] <= 1.0, "{escalated:?}, {asked:?}");
}

/// How somebody pauses, and what a replacement says of it.
type Switch = (&'static str, fn(&Stage, bool), Pause);

const SWITCHES: [Switch; 2] = [
    (
        "pool",
        |stage, on| {
            stage.cluster.edit("spotpools.spotguard.dev", "", POOL, |pool| pool["spec"]["paused"] = json!(on))
        },
        Pause::Pool,
    ),
    (
        "everything",
        |stage, on| {
            stage.cluster.edit("namespaces", "", "default", |namespace| {
                namespace["metadata"]["labels"]["spotguard.dev/paused"] = json!(on.to_string());
            });
        },
        Pause::Everything,
    ),
];

#[test]
fn a_pause_holds_advice_and_returns_and_a_deadline_passes_it() {
    for (name, switch, pause) in SWITCHES {
        let (told, still) = (pause.to_string(), pause.to_string());
        let plot = Plot {
            script: vec![(10 * SECOND, Act::Rebalance(0)), (10 * SECOND, Act::Interrupt(1))],
            replacements: 2,
            steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)],
            ..Scenario::Rebalance.plot()
        };
        let played = Play::plot(&format!("paused: {name}"), plot)
            .beside(move |stage| async move {
                switch(&stage, true);
                stage.until_phase(&stage.spot[1], Phase::Completed).await;
                stage.until(&stage.spot[0], |status| !status.blocking.is_empty()).await;
                let blocking = &stage.status(&stage.spot[0]).blocking[0];
                assert_eq!((blocking.reason, &blocking.message), (ReasonCode::Paused, &told));
                switch(&stage, false);
                stage.until(&stage.spot[0], |status| status.phase != Phase::Received).await;
            })
            .play();
        played.assert_ok();

        let played = Play::plot(&format!("paused on fallback: {name}"), Scenario::DrySpot.plot())
            .beside(move |stage| async move {
                stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
                switch(&stage, true);
                stage.pass(1800).await;
                let blocking = &stage.status(&stage.spot[0]).blocking[0];
                assert_eq!((blocking.reason, &blocking.message), (ReasonCode::Paused, &still));
                switch(&stage, false);
            })
            .play();
        played.assert_ok();
        let returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
        assert!(returned[0] > 1800.0, "{name}: {returned:?}");
    }
}

#[test]
fn an_instance_refresh_holds_advice_and_returns_and_a_deadline_passes_it() {
    let plot = Plot {
        script: vec![(200 * SECOND, Act::Rebalance(0)), (10 * SECOND, Act::Interrupt(1))],
        replacements: 2,
        steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)],
        ..Scenario::Rebalance.plot()
    };
    let played = Play::plot("instance refresh", plot)
        .beside(|stage| async move {
            stage.cloud.set_refresh(SPOT, "InProgress").expect("a group");
            stage.until_phase(&stage.spot[1], Phase::Completed).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::InstanceRefresh]);
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert!(accepted && reason == ReasonCode::InstanceRefresh.as_str(), "{reason}: {message}");
            assert!(message.contains("under way (InProgress)"), "{message}");
            stage.cloud.set_refresh(SPOT, "Successful").expect("a group");
            stage.until(&stage.spot[0], |status| status.phase != Phase::Received).await;
        })
        .play();
    played.assert_ok();

    let mut plot = Scenario::DrySpot.plot();
    for (at, act) in &mut plot.script {
        if matches!(act, Act::Rebalance(_)) {
            (*at, *act) = (200 * SECOND, Act::Interrupt(0));
        }
    }
    plot.steps = vec![(FlowBox::CleanUp, Outcome::CleanedUp)];
    let played = Play::plot("instance refresh on fallback", plot)
        .beside(|stage| async move {
            stage.cloud.set_refresh(ON_DEMAND, "Baking").expect("a group");
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            stage.pass(3600).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::InstanceRefresh]);
            stage.cloud.set_refresh(ON_DEMAND, "Cancelled").expect("a group");
        })
        .play();
    played.assert_ok();
    let returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
    assert!(returned[0] > 3600.0, "{returned:?}");
}

#[test]
fn an_update_of_a_managed_node_group_holds_a_return_until_it_is_over() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let tag = ("eks:nodegroup-name".to_owned(), "workers".to_owned());
            stage.cloud.edit_group(ON_DEMAND, |spec| spec.tags.push(tag)).expect("a group");
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            let update = |spec: &mut GroupSpec| (spec.template_version, spec.max) = (2, spec.max + 2);
            stage.cloud.edit_group(ON_DEMAND, update).expect("a group");
            let before = stage.cloud.group(ON_DEMAND).expect("a group");
            stage.cloud.set_desired(ON_DEMAND, before.desired + 1).expect("room");
            stage.pass(3600).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::NodeGroupUpdate]);
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert!(
                accepted && message.contains("EKS updates the managed node group workers"),
                "{reason}: {message}"
            );
            // The update failed: the old version stays, and the maximum is what it was.
            let known: Vec<String> = before.instances.into_iter().map(|held| held.id).collect();
            let group = stage.cloud.group(ON_DEMAND).expect("a group");
            let new = group.instances.iter().find(|held| !known.contains(&held.id)).expect("a new one");
            stage.cloud.scale_down(&new.id).expect("an instance");
            stage.cloud.edit_group(ON_DEMAND, |spec| spec.max -= 2).expect("a group");
        })
        .play();
    played.assert_ok();
    let returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
    assert!(returned[0] > 3600.0, "{returned:?}");
}

#[test]
fn a_return_waits_for_its_window() {
    // Every story begins at 3:00 UTC, which is 4:00 in Berlin.
    let window = ReturnWindow {
        schedule: "30 5 * * *".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        duration_seconds: 3600,
    };
    let policy = PolicySpec { return_windows: Some(vec![window]), ..PolicySpec::default() };
    let played = Play::plot("window", with_policy(Scenario::DrySpot.plot(), policy))
        .beside(|stage| async move {
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            stage.pass(3600).await;
            assert_eq!(stage.held_by(&stage.spot[0]), [ReasonCode::ReturnWindow]);
            let spot = stage.cloud.group(SPOT).expect("a group");
            assert_eq!(spot.instances.len(), 2, "nothing stands idle until the window opens");
        })
        .play();
    played.assert_ok();
    let returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
    assert!(returned[0] > 5400.0 && returned[0] < 5400.0 + 900.0, "{returned:?}");
}

#[test]
fn returns_stay_within_their_budget() {
    let policy = PolicySpec {
        return_budget: Some(1),
        return_budget_seconds: Some(900),
        max_concurrent_percent: Some(100),
        ..PolicySpec::default()
    };
    let plot = Scenario::ThreeFallbacks.plot();
    let plot = Plot {
        script: plot
            .script
            .into_iter()
            .filter(|(_, act)| !matches!(act, Act::SpotHas(Supply::Left(_))))
            .collect(),
        ..plot
    };
    let mut plot = with_policy(plot, policy);
    plot.script.push((300 * SECOND, Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("budget", plot).play();
    played.assert_ok();
    let mut returned = played.times(FlowBox::ScaleDown, Outcome::Drained);
    returned.sort_by(f64::total_cmp);
    assert_eq!(returned.len(), 3);
    assert!(returned.windows(2).all(|pair| pair[1] - pair[0] > 890.0), "{returned:?}");
}

#[test]
fn a_doomed_node_that_a_budget_blocks_for_ten_minutes_gives_its_place_away() {
    let policy = PolicySpec {
        max_concurrent_replacements: Some(1),
        drain_timeout_seconds: Some(86_400),
        ..PolicySpec::default()
    };
    let plot = Plot {
        script: vec![
            (SECOND, Act::Probe("web", false)),
            (5 * SECOND, Act::Rebalance(0)),
            (60 * SECOND, Act::Rebalance(1)),
            (1800 * SECOND, Act::Probe("web", true)),
        ],
        replacements: 2,
        ..Scenario::PdbBlocked.plot()
    };
    let played = Play::plot("gives its place away", with_policy(plot, policy))
        .beside(|stage| async move {
            stage.until_phase(&stage.spot[1], Phase::Received).await;
            stage.pass(300).await;
            assert_eq!(stage.held_by(&stage.spot[1]), [ReasonCode::ConcurrencyLimit]);
        })
        .play();
    played.assert_ok();
    let blocked = played.times(FlowBox::Drain, Outcome::Blocked)[0];
    let asked = played.times(FlowBox::ScaleUp, Outcome::Requested);
    let gap = asked[1] - blocked;
    assert!((600.0..620.0).contains(&gap), "blocked at {blocked}, asked at {asked:?}");
}
