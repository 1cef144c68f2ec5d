//! On-demand instances above the baseline that nobody of ours requested: they go back to Spot.

use crate::play::{Play, Played, Stage};
use crate::shortfall::ledger;
use serde_json::json;
use spot_guard::crd::NodeReplacement;
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A pool of three Spot nodes with room, and on-demand instances above a baseline of `baseline`.
fn above(on_demand: u32, baseline: Option<u32>) -> Plot {
    let mut plot = Scenario::Adoption.plot();
    plot.start.apps = Scenario::Rebalance.plot().start.apps;
    (plot.start.on_demand_nodes, plot.start.baseline.baseline) = (on_demand, baseline);
    // The story goes on for as long as something may happen beside it.
    plot.script = vec![(Duration::from_secs(4 * 3600), Act::SpotHas(Supply::Unlimited))];
    Plot { replacements: 0, limit: Duration::from_secs(5 * 3600), ..plot }
}

/// The desired capacity of both groups.
fn desired(stage: &Stage) -> (u32, u32) {
    let of = |name: &str| stage.cloud.group(name).expect("a group").desired;
    (of(SPOT), of(ON_DEMAND))
}

fn records(stage: &Stage) -> Vec<NodeReplacement> {
    stage.cluster.list()
}

#[track_caller]
fn nothing_is_violated(played: &Played) {
    assert!(played.violations.is_empty(), "{:#?}", played.violations);
    assert!(ledger(&played.stage).is_settled(), "{:?}", ledger(&played.stage));
}

/// What the pool says of what is not on Spot.
#[track_caller]
fn is_held_by(stage: &Stage, code: ReasonCode, text: &str) {
    let (on_spot, reason, message) = stage.condition("OnSpot").expect("a condition");
    assert_eq!((on_spot, reason.as_str()), (false, code.as_str()), "{message}");
    assert!(message.contains(text), "{message}");
}

#[test]
fn what_somebody_else_raised_goes_back_when_it_has_stood_for_long_enough() {
    let played = Play::plot("raised", above(0, Some(0)))
        .beside(|stage| async move {
            stage.pass(300).await;
            assert!(stage.condition("OnSpot").is_some_and(|(on_spot, ..)| on_spot));
            stage.cloud.set_desired(ON_DEMAND, 1).expect("room");
            stage.pass(1500).await;
            assert!(records(&stage).is_empty(), "it has not stood for half an hour");
            is_held_by(&stage, ReasonCode::AboveBaseline, "1 instance above its baseline of 0");
            stage.pass(1800).await;
            assert_eq!(desired(&stage), (3, 0), "{}", stage.auditor.steps().join("\n"));
            assert!(stage.condition("OnSpot").is_some_and(|(on_spot, ..)| on_spot));
        })
        .play();
    nothing_is_violated(&played);
    assert_eq!(
        played.count("LaunchInstances", Some(SPOT)),
        0,
        "its pods have room on the nodes that there are"
    );
}

#[test]
fn without_a_baseline_nothing_goes_back_that_we_did_not_request() {
    let played = Play::plot("no baseline", above(2, None))
        .beside(|stage| async move {
            stage.pass(4 * 1800).await;
            assert_eq!((records(&stage).len(), desired(&stage)), (0, (3, 2)));
        })
        .play();
    nothing_is_violated(&played);
}

#[test]
fn ten_nodes_above_a_new_baseline_go_back_one_at_a_time_and_no_more_than_that() {
    let played = Play::plot("a new baseline", above(12, None))
        .beside(|stage| async move {
            stage.pass(60).await;
            stage.edit_pool(|spec| spec["onDemand"] = json!({ "baseline": 2, "adoptAfterSeconds": 60 }));
            let mut most = 0;
            for _ in 0..240 {
                stage.pass(30).await;
                most = most.max(records(&stage).iter().filter(|record| record.is_open()).count());
            }
            assert_eq!((desired(&stage), most), ((3, 2), 1), "{}", stage.auditor.steps().join("\n"));
        })
        .play();
    nothing_is_violated(&played);
}

#[test]
fn as_many_nodes_above_the_baseline_go_back_side_by_side_as_the_pool_allows() {
    let took = |at_most: u32| {
        let waited = Arc::new(AtomicU32::new(0));
        let (told, most) = (waited.clone(), usize::try_from(at_most).expect("few"));
        let mut plot = above(8, None);
        // Each node has a pod for which there is no room elsewhere.
        plot.start.apps = Scenario::Adoption.plot().start.apps;
        plot.start.apps[0].replicas = 66;
        let played = Play::plot(&format!("{at_most} at a time"), plot)
            .beside(move |stage| async move {
                stage.pass(60).await;
                stage.edit_pool(|spec| {
                    spec["onDemand"] = json!({ "baseline": 2, "adoptAfterSeconds": 60 });
                    spec["policy"]["maxConcurrentReturns"] = json!(at_most);
                });
                let mut seen = 0;
                while desired(&stage).1 > 2 {
                    stage.pass(30).await;
                    seen = seen.max(records(&stage).iter().filter(|record| record.is_open()).count());
                    told.fetch_add(30, Ordering::Relaxed);
                }
                let told = || stage.auditor.steps().join("\n");
                assert!(seen <= most && (seen > 1) == (most > 1), "{seen}: {}", told());
            })
            .play();
        nothing_is_violated(&played);
        waited.load(Ordering::Relaxed)
    };
    let (one, three) = (took(1), took(3));
    assert!(three * 3 < one * 2, "{three} s three at a time, {one} s one by one");
}

#[test]
fn no_spot_instance_is_bought_for_pods_that_cannot_leave() {
    let mut plot = above(1, Some(0));
    plot.start.apps = Scenario::Adoption.plot().start.apps;
    let played = Play::plot("pinned", plot)
        .beside(|stage| async move {
            stage.pin_on_demand();
            stage.pass(2 * 3600).await;
            assert_eq!((records(&stage).len(), desired(&stage)), (0, (3, 1)));
            is_held_by(&stage, ReasonCode::AboveBaseline, "default/runner");
        })
        .play();
    nothing_is_violated(&played);
    assert_eq!(played.count("LaunchInstances", Some(SPOT)), 0);
}

#[test]
fn in_observe_and_while_paused_the_pool_says_what_is_above_the_baseline() {
    for change in [json!({ "mode": "Observe" }), json!({ "paused": true })] {
        let code = if change.get("mode").is_some() { "ObserveOnly" } else { "Paused" };
        let played = Play::plot(code, above(1, Some(0)))
            .beside(move |stage| async move {
                stage.edit_pool(|spec| {
                    for (key, value) in change.as_object().expect("fields") {
                        spec[key.as_str()] = value.clone();
                    }
                });
                stage.pass(2 * 3600).await;
                assert_eq!((records(&stage).len(), desired(&stage)), (0, (3, 1)), "{code}");
                is_held_by(&stage, ReasonCode::AboveBaseline, "1 instance above");
            })
            .play();
        nothing_is_violated(&played);
    }
}

#[test]
fn one_that_somebody_else_terminates_meanwhile_ends_no_other_node() {
    let mut plot = above(2, Some(1));
    plot.start.apps = Scenario::Adoption.plot().start.apps;
    let played = Play::plot("terminated meanwhile", plot)
        .beside(|stage| async move {
            let stage_limit = stage.cloud.now() + Duration::from_secs(3600);
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage
                .cluster
                .edit("deployments.apps", "default", "web", |web| web["spec"]["replicas"] = json!(24));
            while records(&stage).is_empty() {
                stage.pass(30).await;
                assert!(stage.cloud.now() < stage_limit, "{:?}", stage.condition("OnSpot"));
            }
            let adopted = records(&stage)[0].spec.adopted.clone().expect("an adopted instance");
            assert!(adopted.requests_spot, "{adopted:?}");
            stage.pass(120).await;
            stage.cloud.scale_down(&adopted.instance_id).expect("an instance");
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            stage.pass(3600).await;
            assert!(records(&stage).iter().all(|record| !record.is_open()), "{:#?}", records(&stage));
            assert_eq!(desired(&stage), (3, 1), "{}", stage.auditor.steps().join("\n"));
        })
        .play();
    nothing_is_violated(&played);
}

#[test]
fn a_baseline_that_the_group_cannot_have_is_refused() {
    let played = Play::plot("out of range", above(1, Some(0)))
        .beside(|stage| async move {
            stage.cloud.edit_group(ON_DEMAND, |spec| (spec.min, spec.max) = (1, 5)).expect("a group");
            for baseline in [0, 6] {
                stage.edit_pool(|spec| spec["onDemand"] = json!({ "baseline": baseline }));
                stage.pass(120).await;
                let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
                assert_eq!((accepted, reason.as_str()), (false, "BaselineOutOfRange"), "{message}");
                assert!(message.contains(&format!("baseline is {baseline}, and")), "{message}");
            }
            stage.edit_pool(|spec| spec["onDemand"] = json!({ "baseline": 5 }));
            stage.pass(120).await;
            assert!(stage.condition("Accepted").is_some_and(|(accepted, ..)| accepted));
        })
        .play();
    nothing_is_violated(&played);
}

#[test]
fn the_step_of_an_adoption_names_the_instance() {
    let played = Play::of(Scenario::Adoption).play();
    played.assert_ok();
    assert!(played.has(FlowBox::Monitor, Outcome::Adopted));
    let record = records(&played.stage).remove(0);
    assert!(
        record.spec.adopted.is_some_and(|adopted| adopted.requests_spot),
        "one more Spot node was needed"
    );
    assert_eq!(desired(&played.stage), (4, 0));
    assert_eq!(played.count("LaunchInstances", Some(SPOT)), 1);
}

#[test]
fn a_notice_beside_an_adoption_gets_its_stand_in_all_the_same() {
    let mut plot = above(1, Some(0));
    (plot.start.managed, plot.start.baseline.adopt_after_seconds) = (true, Some(60));
    let played = Play::plot("notice beside", plot)
        .beside(|stage| async move {
            while records(&stage).is_empty() {
                stage.pass(1).await;
            }
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage.cloud.interrupt(&stage.spot[0]).expect("an instance");
            stage.pass(45).await;
            let told = stage.auditor.steps().join("\n");
            assert!(desired(&stage).1 > 1, "on-demand stands in for what its group does not bring: {told}");
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            stage.pass(2 * 3600).await;
            assert_eq!(desired(&stage), (3, 0), "{}", stage.auditor.steps().join("\n"));
        })
        .play();
    nothing_is_violated(&played);
}
