//! Spot capacity that is missing without an interruption notice: on-demand stands in while pods wait for it.

use crate::play::{Play, Stage};
use serde_json::json;
use spot_guard::crd::{NodeReplacement, SpotPool};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::ledger::Ledger;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use spot_guard_core::shortfall::{ModeOrigin, ShortfallMode};
use std::time::Duration;

/// How a stand-in comes and goes.
fn stood_in_for() -> Vec<(FlowBox, Outcome)> {
    vec![
        (FlowBox::Fallback, Outcome::Requested),
        (FlowBox::Fallback, Outcome::InService),
        (FlowBox::Monitor, Outcome::Monitoring),
        (FlowBox::Health, Outcome::Healthy),
        (FlowBox::Stability, Outcome::Stable),
        (FlowBox::Safety, Outcome::Safe),
        (FlowBox::ScaleDown, Outcome::Drained),
        (FlowBox::ScaleDown, Outcome::ScaledDown),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ]
}

/// Pods that need all three nodes. Spot is out of capacity at once, and is back after so long.
pub fn dry_until(back: u64, stand_ins: usize) -> Plot {
    Plot {
        script: vec![
            (Duration::from_secs(5), Act::SpotHas(Supply::None)),
            (Duration::from_secs(back), Act::SpotHas(Supply::Unlimited)),
        ],
        replacements: stand_ins,
        steps: stood_in_for(),
        limit: Duration::from_secs(4 * 3600),
        ..Scenario::FullCluster.plot()
    }
}

fn groups(stage: &Stage) -> [(u32, usize); 2] {
    [SPOT, ON_DEMAND].map(|name| {
        let group = stage.cloud.group(name).expect("a group");
        let active = group.instances.iter().filter(|held| !held.state.is_ending()).count();
        (group.desired, active)
    })
}

/// A Spot instance dies without a notice, and its group has noticed it.
async fn dies(stage: &Stage, number: usize) {
    stage.cloud.take_now(&stage.spot[number]).expect("an instance");
    let listed = || stage.cloud.group(SPOT).expect("a group").instances;
    while listed().iter().any(|held| held.id == stage.spot[number] && !held.state.is_ending()) {
        stage.pass(1).await;
    }
}

fn requested(stage: &Stage) -> usize {
    let calls = stage.cloud.calls();
    let on_demand = calls.iter().filter(|call| call.group.as_deref() == Some(ON_DEMAND));
    on_demand.filter(|call| call.operation == "LaunchInstances").count()
}

/// Whether a pod has no node: those of a dead node are made anew once its Node object is gone.
fn a_pod_waits(stage: &Stage) -> bool {
    stage.cluster.list_json("pods").iter().any(|pod| pod["spec"]["nodeName"].is_null())
}

pub fn ledger(stage: &Stage) -> Ledger {
    let pool: SpotPool = stage.cluster.get("", POOL).expect("the pool");
    pool.status.unwrap_or_default().ledger
}

fn is_held_by(stage: &Stage, code: ReasonCode) {
    let (covered, reason, message) = stage.condition("Covered").expect("a condition");
    assert_eq!((covered, reason.as_str()), (false, code.as_str()), "{message}");
}

/// One Spot instance dies without a notice while Spot is out of capacity.
fn silent_loss() -> Play {
    Play::plot("a silent loss", dry_until(900, 1)).beside(|stage| async move {
        stage.pass(60).await;
        dies(&stage, 0).await;
    })
}

#[test]
fn a_spot_instance_that_dies_without_a_notice_while_spot_is_out_of_capacity_gets_a_stand_in() {
    let played = silent_loss()
        .beside(|stage| async move {
            while groups(&stage)[0] != (3, 2) || !a_pod_waits(&stage) {
                stage.pass(1).await;
            }
            stage.pass(45).await;
            assert_eq!(requested(&stage), 1, "{}", stage.auditor.steps().join("\n"));
        })
        .play();
    played.assert_ok();
    let record = played.stage.cluster.list::<NodeReplacement>().remove(0);
    assert!(record.spec.place.is_some() && record.spec.node_name.is_empty(), "{:?}", record.spec);
    assert!(ledger(&played.stage).empty_places.is_empty());
    let of_spot = played.calls.iter().filter(|call| call.group.as_deref() == Some(SPOT));
    let changes: Vec<_> = of_spot.filter(|call| !call.operation.starts_with("Describe")).collect();
    assert!(changes.is_empty(), "its group fills the place by itself: {changes:?}");
}

#[test]
fn a_desired_capacity_that_spot_cannot_give_is_stood_in_for_as_far_as_pods_wait() {
    let mut plot = dry_until(1800, 1);
    plot.start.spot_nodes = 4;
    let played = Play::plot("raised", plot)
        .beside(|stage| async move {
            stage.pass(60).await;
            stage.cloud.set_desired(SPOT, 7).expect("a group");
            stage.pass(120).await;
            assert_eq!(requested(&stage), 0, "no pod waits");
            let scale = |replicas: u32| {
                stage.cluster.edit("deployments.apps", "default", "web", |web| {
                    web["spec"]["replicas"] = json!(replicas);
                });
            };
            scale(24);
            stage.pass(90).await;
            assert_eq!(requested(&stage), 1, "{}", stage.auditor.steps().join("\n"));
            stage.pass(600).await;
            assert_eq!((requested(&stage), groups(&stage)[1].1), (1, 1), "three are missing, pods need one");
        })
        .play();
    let told = played.told.join("\n");
    assert!(played.violations.is_empty(), "{:#?}", played.violations);
    assert_eq!(groups(&played.stage), [(7, 7), (0, 0)], "{told}");
}

#[test]
fn nothing_is_bought_while_the_pods_have_a_place_elsewhere() {
    let mut plot = dry_until(900, 0);
    plot.start = Scenario::DrySpot.plot().start;
    let played = Play::plot("a place elsewhere", plot)
        .beside(|stage| async move {
            stage.pass(60).await;
            dies(&stage, 0).await;
            stage.pass(600).await;
            assert_eq!(ledger(&stage).empty_places.len(), 1);
            assert_eq!(stage.changes(), 0);
        })
        .play();
    played.assert_ok();
}

/// What is held is said, and nothing is bought.
fn held(name: &str, code: ReasonCode, hold: fn(&Stage)) {
    let played = Play::plot(name, dry_until(900, 0))
        .beside(move |stage| async move {
            hold(&stage);
            stage.pass(60).await;
            dies(&stage, 0).await;
            stage.pass(400).await;
            is_held_by(&stage, code);
            assert_eq!((stage.changes(), stage.cluster.list::<NodeReplacement>().len()), (0, 0));
            // Spot is back at 900 s.
            stage.pass(430).await;
            stage.cloud.resume(SPOT, "Launch").expect("a group");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_shortfall_that_is_only_observed_is_said_and_nothing_is_bought() {
    held("observed", ReasonCode::ShortfallObserved, |stage| {
        stage.edit_pool(|spec| spec["shortfall"] = json!({ "mode": "Observe" }));
    });
}

#[test]
fn a_pause_holds_stand_ins() {
    held("paused", ReasonCode::Paused, |stage| stage.edit_pool(|spec| spec["paused"] = json!(true)));
}

#[test]
fn launch_suspended_by_a_person_is_a_freeze() {
    held("frozen", ReasonCode::LaunchFrozen, |stage| {
        let reason = "User suspended at 2026-01-01T03:00:00Z";
        stage.cloud.suspend(SPOT, "Launch", reason).expect("a group");
    });
}

#[test]
fn an_on_demand_group_at_its_maximum_is_said_and_no_record_is_opened() {
    held("at its maximum", ReasonCode::NoRoom, |stage| {
        stage.cloud.edit_group(ON_DEMAND, |spec| spec.max = 0).expect("a group");
    });
}

/// Renews the Lease of a cluster-autoscaler.
async fn autoscaler_leads(stage: &Stage, seconds: u64) {
    let lease = |now: String| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "cluster-autoscaler", "namespace": "kube-system" },
            "spec": { "holderIdentity": "ca", "leaseDurationSeconds": 15, "renewTime": now },
        })
    };
    let now = || stage.cloud.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    // It may lead already.
    drop(stage.cluster.create_json(lease(now())));
    for _ in 0..seconds / 10 {
        stage.pass(10).await;
        stage.cluster.edit("leases.coordination.k8s.io", "kube-system", "cluster-autoscaler", |held| {
            held["spec"]["renewTime"] = json!(now());
        });
    }
}

#[test]
fn beside_a_cluster_autoscaler_shortfalls_are_left_to_it_until_it_is_gone() {
    let played = Play::plot("beside cluster-autoscaler", dry_until(1500, 1))
        .beside(|stage| async move {
            let in_force = || {
                let pool: SpotPool = stage.cluster.get("", POOL).expect("the pool");
                let held = pool.status.and_then(|status| status.shortfall).expect("a mode in force");
                (held.mode, held.because)
            };
            autoscaler_leads(&stage, 60).await;
            stage.cloud.take_now(&stage.spot[0]).expect("an instance");
            autoscaler_leads(&stage, 340).await;
            is_held_by(&stage, ReasonCode::ShortfallObserved);
            let observed = (ShortfallMode::Observe, ModeOrigin::AutoscalerLeads);
            assert_eq!((requested(&stage), in_force()), (0, observed));
            stage.pass(600).await;
            assert_eq!((requested(&stage), in_force()), (0, observed), "it may only restart");
            stage.pass(120).await;
            assert_eq!(requested(&stage), 1, "{}", stage.auditor.steps().join("\n"));
            assert_eq!(in_force(), (ShortfallMode::Act, ModeOrigin::NoAutoscaler));
            let told = stage.cluster.list_json("events.events.k8s.io");
            assert!(told.iter().any(|event| event["reason"] == "SpotGuardShortfallMode"), "{told:?}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn no_more_stand_ins_are_open_than_the_pool_allows() {
    let mut plot = dry_until(1500, 1);
    plot.start.spot_nodes = 4;
    plot.start.apps.iter_mut().for_each(|app| app.replicas += 3);
    let played = Play::plot("maxStandIns", plot)
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["shortfall"] = json!({ "maxStandIns": 1 }));
            stage.pass(60).await;
            dies(&stage, 0).await;
            dies(&stage, 1).await;
            stage.pass(300).await;
            is_held_by(&stage, ReasonCode::StandInLimit);
            assert_eq!((requested(&stage), groups(&stage)[1]), (1, (1, 1)));
        })
        .play();
    played.assert_ok();
    let (covered, _, message) = played.stage.condition("Covered").expect("a condition");
    assert!(covered, "{message}");
}

#[test]
fn a_new_leader_goes_on_with_the_shortfall_that_it_finds() {
    let played = Play::plot("a new leader", dry_until(900, 1))
        .standby()
        .beside(|stage| async move {
            // Nothing but the time of Spot tells that it cannot give the instance.
            stage.edit_pool(|spec| spec["shortfall"] = json!({ "afterSeconds": 120 }));
            stage.pass(60).await;
            dies(&stage, 0).await;
            while ledger(&stage).empty_places.is_empty() {
                stage.pass(1).await;
            }
            let (since, noticed) = (ledger(&stage).empty_places, stage.cloud.now());
            stage.pass(60).await;
            stage.end.trigger();
            stage.pass(20).await;
            assert_eq!(ledger(&stage).empty_places, since);
            while requested(&stage) == 0 {
                stage.pass(1).await;
            }
            let waited = spot_guard_core::time::since(noticed, stage.cloud.now());
            assert!(waited < Duration::from_secs(150), "{waited:?}");
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements[0].phase, Phase::Completed);
}
