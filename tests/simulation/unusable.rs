//! Instances that are in service and whose nodes never become usable: they are terminated by their id and
//! replaced, and nobody takes them away by hand.

use crate::play::{Play, Played, Stage, ends};
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::{BootFault, EventKind, GroupSpec, Supply};
use spot_guard_cloud::cluster::Deployment;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, GroupKind, Outcome, Phase};
use std::collections::BTreeSet;
use std::time::Duration;

const FAULTS: [BootFault; 4] =
    [BootFault::NeverJoins, BootFault::NeverReady, BootFault::KeepsTaint, BootFault::StaysCordoned];

/// A plot in which the next nodes of these groups go wrong from that second on.
fn with_faults(plot: Plot, from: u64, faults: &[(&'static str, BootFault)]) -> Plot {
    let mut plot = Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..plot };
    let acts = faults.iter().map(|(group, fault)| Act::NodesFail(group, *fault, 1));
    plot.script.extend(acts.map(|act| (Duration::from_secs(from), act)));
    plot.script.sort_by_key(|(at, _)| *at);
    plot
}

/// The instances that the record of the first node says were given up.
fn discarded(stage: &Stage) -> Vec<String> {
    stage.status(&stage.spot[0]).discarded.iter().map(ToString::to_string).collect()
}

/// The story ended, and so many instances were given up, each by its id, and none of them is left.
fn assert_gave_up(played: &Played, count: usize, about: &str) {
    if let Some(text) = played.complaints() {
        panic!("{about}: {text}");
    }
    let gone = discarded(&played.stage);
    assert_eq!(gone.len(), count, "{about}: {gone:?}\n{}", played.told.join("\n"));
    let groups = played.stage.cloud.snapshot().groups;
    let left = groups.iter().flat_map(|group| &group.instances).any(|held| gone.contains(&held.id));
    assert!(!left, "{about}");
    let told = played.told_of(&played.stage.spot[0], FlowBox::Wait, Outcome::Unusable);
    assert!(gone.iter().any(|id| told.contains(id)), "{about}: {told}");
}

#[test]
fn a_spot_instance_whose_node_never_becomes_usable_is_replaced_from_another_zone() {
    for fault in FAULTS {
        for scenario in [Scenario::Rebalance, Scenario::DrySpotSetDesired] {
            let mut plot = with_faults(scenario.plot(), 0, &[(SPOT, fault)]);
            plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
            let played = Play::plot("spot never usable", plot)
                .beside(move |stage| async move {
                    stage.cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
                    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"].map(str::to_owned);
                    stage.cloud.edit_group(SPOT, |spec| spec.zones = zones.to_vec()).expect("a group");
                    let mut events = stage.cloud.subscribe();
                    stage.until_phase(&stage.spot[0], Phase::Returning).await;
                    let all = std::iter::from_fn(|| events.try_recv().ok());
                    let zones = all.filter(|event| event.kind == EventKind::Launching && event.group == SPOT);
                    let zones: Vec<String> = zones.map(|event| event.text).collect();
                    assert_eq!(zones.len(), 2, "{fault:?}: the bad one and its successor");
                    assert!(scenario != Scenario::Rebalance || zones[0] != zones[1], "{fault:?}: {zones:?}");
                })
                .play();
            assert_gave_up(&played, 1, &format!("{fault:?} in {scenario:?}"));
        }
    }
}

#[test]
fn what_does_not_fit_in_its_zone_is_given_back_and_the_next_zone_is_asked() {
    let mut plot = ends(Scenario::Rebalance);
    plot.start.zones = 3;
    plot.start.policy.join_timeout_seconds = Some(300);
    plot.script = vec![
        (Duration::from_secs(1), Act::OnDemandHas(Supply::None)),
        (Duration::from_secs(60), Act::Rebalance(0)),
    ];
    let played = Play::plot("does not fit", plot)
        .beside(|stage| async move {
            let zone_of = |id: &str| {
                let groups = stage.cloud.snapshot().groups;
                let mut all = groups.into_iter().flat_map(|group| group.instances);
                all.find(|held| held.id == id).expect("an instance").zone
            };
            stage.cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
            let old = stage.spot[0].clone();
            let own = zone_of(&old);
            stage.cloud.set_supply(SPOT, Some(&own), Supply::None).expect("a group");
            spread(&stage);
            let mut events = stage.cloud.subscribe();
            stage.until(&old, |status| status.discarded.len() == 2).await;
            let all = std::iter::from_fn(|| events.try_recv().ok());
            let launches = all.filter(|event| event.kind == EventKind::Launching && event.group == SPOT);
            let zones: Vec<String> = launches.map(|event| event.text).collect();
            assert!(zones.len() == 2 && zones[0] != zones[1], "one zone after another: {zones:?}");
            stage.cloud.set_supply(SPOT, Some(&own), Supply::Unlimited).expect("a group");
            stage.until(&old, |status| status.capacity.taken().is_some()).await;
            let held = stage.status(&old).capacity.taken().cloned().expect("an instance");
            assert_eq!(zone_of(&held.instance_id), own, "the only one that the pods fit in");
        })
        .play();
    assert_gave_up(&played, 2, "does not fit");
}

#[test]
fn what_fits_in_no_zone_is_given_up_and_a_deadline_goes_on() {
    let mut plot = ends(Scenario::Rebalance);
    plot.start.zones = 3;
    // The group chooses the zone by itself: the first of those that are equally empty.
    plot.start.launch_instances = false;
    plot.start.policy.join_timeout_seconds = Some(300);
    // It is over with its script: the last act waits until the notice has had its effect.
    plot.script = vec![(Duration::from_secs(5000), Act::SetBudget("web", 1))];
    let played = Play::plot("fits nowhere", plot)
        .beside(|stage| async move {
            stage.cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
            let group = stage.cloud.group(SPOT).expect("a group");
            let old = group.instances.iter().find(|held| held.zone == "us-east-1c").expect("one");
            let old = old.id.clone();
            spread(&stage);
            stage.pass(60).await;
            stage.cloud.rebalance(&old).expect("an instance");
            stage.until_phase(&old, Phase::Cancelled).await;
            assert_eq!(stage.cloud.group(SPOT).expect("a group").desired, 3, "the new one goes back");
            assert_eq!(stage.cloud.group(ON_DEMAND).expect("a group").desired, 0);
            let changes = stage.changes();
            stage.pass(2000).await;
            assert_eq!(stage.changes(), changes, "the same advice begins nothing anew");
            stage.cloud.interrupt(&old).expect("an instance");
            stage.until_phase(&old, Phase::Completed).await;
        })
        .play();
    if let Some(text) = played.complaints() {
        panic!("{text}");
    }
}

/// Three pods that are spread over the zones.
fn spread(stage: &Stage) {
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "spread" } },
    });
    let pod_spec = Some(json!({ "topologySpreadConstraints": [constraint] }));
    let options = Deployment { pod_spec, ..Deployment::default() };
    stage.cluster.add_deployment("spread", 3, 100, 1 << 20, options).expect("a deployment");
}

#[test]
fn while_neither_group_brings_a_usable_node_the_old_one_is_kept() {
    for fault in FAULTS {
        let plot = with_faults(Scenario::Rebalance.plot(), 0, &[(SPOT, fault), (ON_DEMAND, fault)]);
        let played = Play::plot("neither usable", plot)
            .beside(move |stage| async move {
                let old = stage.spot[0].clone();
                stage.until(&old, |status| !status.discarded.is_empty()).await;
                assert!(stage.status(&old).capacity.taken().is_none(), "{fault:?}");
                assert!(stage.node(&old)["spec"]["unschedulable"].as_bool() != Some(true), "{fault:?}");
            })
            .play();
        assert_gave_up(&played, 2, &format!("{fault:?}"));
    }
}

#[test]
fn a_return_whose_spot_node_never_becomes_usable_gets_another_one() {
    for fault in FAULTS {
        for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
            let played = Play::plot("return", with_faults(scenario.plot(), 200, &[(SPOT, fault)]))
                .beside(|stage| async move {
                    let old = stage.spot[0].clone();
                    let (flow_box, reason) = (FlowBox::Health, ReasonCode::InstanceUnusable);
                    stage.until_waiting(&old, flow_box, reason).await;
                })
                .play();
            assert_gave_up(&played, 1, &format!("{fault:?} in {scenario:?}"));
            assert!(played.has(FlowBox::ScaleDown, Outcome::ScaledDown), "{fault:?} in {scenario:?}");
        }
    }
}

#[test]
fn a_return_whose_spot_node_flaps_gets_another_one() {
    let played = Play::plot("flaps", with_faults(Scenario::DrySpot.plot(), 0, &[]))
        .beside(|stage| async move {
            let old = stage.spot[0].clone();
            stage.until(&old, |status| status.fallback.successor().is_some()).await;
            let held = stage.status(&old).fallback.successor().expect("a successor").clone();
            let serves = || {
                let group = stage.cloud.group(SPOT).expect("a group");
                group.instances.iter().any(|instance| *instance.id == *held.instance_id)
            };
            while serves() {
                for ready in [false, true] {
                    stage.cluster.set_node_ready(&held.node_name, ready);
                    stage.pass(if ready { 20 } else { 40 }).await;
                }
            }
        })
        .play();
    assert_gave_up(&played, 1, "it flaps");
    assert!(played.has(FlowBox::ScaleDown, Outcome::ScaledDown));
}

#[test]
fn before_a_deadline_on_demand_takes_over_from_a_spot_node_that_keeps_its_taint_or_stays_cordoned() {
    for fault in [BootFault::KeepsTaint, BootFault::StaysCordoned] {
        let played =
            Play::plot("deadline", with_faults(Scenario::TwoMinuteNotice.plot(), 0, &[(SPOT, fault)])).play();
        played.assert_ok();
        assert!(played.has(FlowBox::Fallback, Outcome::InService), "{fault:?}");
    }
}

#[test]
fn a_spare_instance_whose_node_never_becomes_usable_is_given_back() {
    for fault in FAULTS {
        let played = Play::plot("spare", with_faults(Scenario::Rebalance.plot(), 0, &[(ON_DEMAND, fault)]))
            .beside(|stage| async move {
                // On-demand is requested when Spot is late, and Spot comes first all the same.
                stage
                    .cloud
                    .edit_group(SPOT, |spec| spec.boot.launch = Duration::from_secs(200))
                    .expect("a group");
            })
            .play();
        played.assert_ok();
        assert_eq!(played.stage.cloud.group(ON_DEMAND).expect("a group").desired, 0, "{fault:?}");
        assert!(played.has(FlowBox::Fallback, Outcome::Requested), "{fault:?}");
    }
}

/// Both groups bring an instance, and the pods fit on the two together alone.
#[test]
fn the_instance_that_would_go_back_is_not_counted_on() {
    let mut plot = ends(Scenario::Rebalance);
    plot.start.apps.clear();
    plot.script = vec![(Duration::from_secs(3600), Act::OnDemandHas(Supply::Unlimited))];
    let played = Play::plot("two halves", plot)
        .beside(|stage| async move {
            let options = Deployment::default();
            stage.cluster.add_deployment("wide", 6, 1500, 1 << 20, options).expect("a deployment");
            let halve = |spec: &mut GroupSpec| {
                spec.cpu_millis = 2000;
                spec.boot.launch = Duration::from_secs(200);
            };
            for group in [SPOT, ON_DEMAND] {
                stage.cloud.edit_group(group, halve).expect("a group");
            }
            stage.pass(60).await;
            let old = stage.spot[0].clone();
            stage.cloud.rebalance(&old).expect("an instance");
            stage.until(&old, |status| status.capacity.taken().is_some()).await;
            let held = stage.status(&old).capacity.taken().cloned().expect("an instance");
            assert_eq!(held.group, GroupKind::OnDemand, "the other one would go back at once");
            stage.until_phase(&old, Phase::OnFallback).await;
            stage.pass(1200).await;
            for group in [SPOT, ON_DEMAND] {
                let halves = stage.cloud.group(group).expect("a group");
                assert_eq!(halves.desired, if group == SPOT { 3 } else { 1 });
            }
            // Three of six pods have room on the Spot nodes.
            let fewer = |deployment: &mut Value| deployment["spec"]["replicas"] = json!(3);
            stage.cluster.edit("deployments.apps", "default", "wide", fewer);
        })
        .play();
    if let Some(text) = played.complaints() {
        panic!("{text}");
    }
}

#[test]
fn before_a_deadline_an_unusable_instance_is_given_up_sooner() {
    let faults = [(SPOT, BootFault::NeverJoins), (ON_DEMAND, BootFault::NeverJoins)];
    let played = Play::plot("deadline", with_faults(Scenario::TwoMinuteNotice.plot(), 0, &faults)).play();
    assert_gave_up(&played, 2, "before a deadline");
    let given_up = played.report.boxes.iter().filter(|step| step.outcome == Outcome::Unusable);
    let times: Vec<f64> = given_up.map(|step| step.at).collect();
    assert!(times.iter().all(|at| *at < 480.0), "{times:?}");
}

#[test]
fn a_pool_whose_every_node_fails_buys_ever_more_seldom_and_goes_on_when_that_is_over() {
    let mut plot = ends(Scenario::Rebalance);
    plot.limit = Duration::from_secs(24 * 3600);
    plot.script.push((Duration::ZERO, Act::NodesFail(SPOT, BootFault::NeverJoins, 1000)));
    plot.script.push((Duration::ZERO, Act::NodesFail(ON_DEMAND, BootFault::NeverJoins, 1000)));
    plot.script.sort_by_key(|(at, _)| *at);
    let played = Play::plot("churn", plot)
        .beside(|stage| async move {
            let mut events = stage.cloud.subscribe();
            stage.pass(8 * 3600).await;
            let launched = std::iter::from_fn(|| events.try_recv().ok());
            let launched = launched.filter(|event| event.kind == EventKind::Launching).count();
            assert!((8..=22).contains(&launched), "{launched} instances in eight hours");
            let old = stage.spot[0].clone();
            assert!(stage.status(&old).capacity.taken().is_none(), "the node is kept");
            stage.cloud.heal();
        })
        .play();
    played.assert_ok();
    assert!(discarded(&played.stage).len() >= 8);
}

#[test]
fn a_failed_launch_of_the_spot_group_holds_a_return_up_for_the_stability_time() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let old = stage.spot[0].clone();
            stage.until(&old, |status| status.fallback.successor().is_some()).await;
            stage.pass(5).await;
            // Somebody else wants one more, gets none, and gives it up.
            let desired = stage.cloud.group(SPOT).expect("a group").desired;
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage.cloud.set_desired(SPOT, desired + 1).expect("within the sizes");
            stage.pass(10).await;
            stage.cloud.set_desired(SPOT, desired).expect("within the sizes");
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            stage.until_waiting(&old, FlowBox::Health, ReasonCode::LaunchFailed).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_return_whose_spot_node_came_up_in_a_zone_where_the_pods_do_not_fit_asks_the_next_zone() {
    let mut plot = with_faults(Scenario::DrySpot.plot(), 0, &[]);
    plot.start.zones = 3;
    plot.start.policy.join_timeout_seconds = Some(300);
    plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
    plot.script.insert(0, (Duration::ZERO, Act::SpotHas(Supply::None)));
    let played = Play::plot("a return does not fit", plot)
        .beside(|stage| async move {
            let zone_of = |group: &str, id: &str| {
                let group = stage.cloud.group(group).expect("a group");
                group.instances.iter().find(|held| held.id == id).expect("an instance").zone.clone()
            };
            stage.cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
            let old = stage.spot[0].clone();
            let own = zone_of(SPOT, &old);
            spread(&stage);
            stage.until_phase(&old, Phase::OnFallback).await;
            let stand_in = stage.status(&old).capacity.taken().expect("an instance").clone();
            assert_eq!(zone_of(ON_DEMAND, &stand_in.instance_id), own, "the pods fit in no other zone");
            for zone in ["us-east-1a", "us-east-1b", "us-east-1c"] {
                if zone != own {
                    stage.cloud.set_supply(SPOT, Some(zone), Supply::Unlimited).expect("a group");
                }
            }
            stage.until_waiting(&old, FlowBox::Safety, ReasonCode::PodDoesNotFit).await;
            stage.until(&old, |status| !status.discarded.is_empty()).await;
            stage.cloud.set_supply(SPOT, Some(&own), Supply::Unlimited).expect("a group");
            stage.until(&old, |status| status.phase().is_finished()).await;
            let group = stage.cloud.group(SPOT).expect("a group");
            let zones: BTreeSet<&str> = group.instances.iter().map(|held| &*held.zone).collect();
            assert_eq!(zones.len(), 3, "{group:?}");
        })
        .play();
    if let Some(text) = played.complaints() {
        panic!("{text}");
    }
    assert!(played.has(FlowBox::ScaleDown, Outcome::ScaledDown));
}

#[test]
fn three_fallbacks_and_one_spot_instance_that_comes_back_are_one_return() {
    for launch_instances in [true, false] {
        let mut plot = ends(Scenario::ThreeFallbacks);
        plot.start.launch_instances = launch_instances;
        plot.script.retain(|(at, act)| !matches!(act, Act::SpotHas(Supply::Left(_))) || at.as_secs() == 300);
        let played = Play::plot("one of three", plot)
            .beside(|stage| async move {
                for old in &stage.spot[..3] {
                    stage.until_phase(old, Phase::OnFallback).await;
                }
                stage.pass(3600).await;
                let returned = |old: &&String| {
                    let steps = stage.status(old).steps;
                    steps.iter().any(|step| step.outcome == Outcome::ScaledDown)
                };
                assert_eq!(stage.spot[..3].iter().filter(returned).count(), 1);
                let serving = |group: &str| stage.cloud.group(group).expect("a group").instances.len();
                assert_eq!((serving(SPOT), serving(ON_DEMAND)), (2, 2));
                stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            })
            .play();
        played.assert_ok();
    }
}
