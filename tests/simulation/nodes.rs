//! Node objects that are not what they seem: they stay when the instance is gone, they come back under an old
//! name, and they say late which instance they run on, or never.

use crate::play::{Play, Stage, ends};
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{POOL, SPOT};
use spot_guard_cloud::cloud::{CallRecord, Supply};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{OldNodeState, Phase, ReplacementStatus};
use spot_guard_core::time::since;
use std::time::Duration;

/// Whether the node carries nothing of ours.
fn is_untouched(node: &Value) -> bool {
    let taints = node["spec"]["taints"].to_string();
    node["spec"]["unschedulable"] != json!(true)
        && !taints.contains("RebalanceRecommendation")
        && !node["metadata"].to_string().contains("spotguard.dev/cordoned")
}

/// Waits until this holds; looks once a second.
async fn until(stage: &Stage, holds: impl Fn() -> bool) {
    while !holds() {
        stage.pass(1).await;
    }
}

/// The plot does not end before what happens beside it.
fn long(mut plot: Plot) -> Plot {
    plot.script.push((Duration::from_secs(1500), Act::SpotHas(Supply::Unlimited)));
    plot
}

fn node_stays(scenario: Scenario) {
    let name = format!("{} without a cloud controller", scenario.name());
    let played = Play::plot(&name, long(scenario.plot()))
        .beside(|stage| async move {
            stage.cloud.configure(|settings| settings.nodes_stay = true);
            let instance = stage.spot[0].clone();
            let node = stage.cloud.node_of(&instance).expect("a node").node_name;
            stage.until(&instance, |status| matches!(*status.old_node, OldNodeState::Terminating(_))).await;
            let says = |status: &ReplacementStatus| {
                status.blocking.iter().any(|held| held.reason == ReasonCode::InstanceNotGone)
            };
            stage.until(&instance, |status| says(status) || status.old_node == OldNodeState::Gone {}).await;
            stage.until(&instance, |status| status.old_node == OldNodeState::Gone {}).await;
            stage.pass(10).await;
            let left = stage.cluster.get_json("nodes", "", &node).expect("its Node object stays");
            assert!(is_untouched(&left), "{left}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_node_object_that_is_never_deleted_holds_no_replacement_up() {
    node_stays(Scenario::Rebalance);
    node_stays(Scenario::TwoMinuteNotice);
}

#[test]
fn a_fallback_goes_back_where_no_node_object_is_ever_deleted() {
    node_stays(Scenario::DrySpot);
    node_stays(Scenario::DrySpotSetDesired);
}

#[test]
fn a_drain_that_is_blocked_on_a_node_object_that_stays_comes_to_its_end() {
    let played =
        Play::plot("taken while blocked, without a cloud controller", long(ends(Scenario::PdbBlocked)))
            .beside(|stage| async move {
                stage.cloud.configure(|settings| settings.nodes_stay = true);
                let instance = stage.spot[0].clone();
                let blocked = |status: &ReplacementStatus| {
                    let drain = status.old_node.drain();
                    drain.is_some_and(|drain| drain.stuck_since.is_some())
                };
                stage.until(&instance, blocked).await;
                stage.cloud.take_now(&instance).expect("an instance");
                let taken_at = stage.cloud.now();
                stage.until(&instance, |status| status.old_node.is_past_drain()).await;
                let waited = since(taken_at, stage.cloud.now());
                assert!(waited < Duration::from_secs(120), "it waits for pods that cannot move: {waited:?}");
            })
            .play();
    played.assert_ok();
}

/// A later instance gets the name of the old node while its replacement is open, for AWS cannot be read. Its
/// Node says late which instance it has.
fn namesake(name: &'static str, hand_over: bool) {
    let mut plot = long(Scenario::TwoMinuteNotice.plot());
    plot.steps.clear();
    let mut play = Play::plot(name, plot);
    if hand_over {
        play = play.standby();
    }
    let played = play
        .beside(move |stage| async move {
            let own = stage.spot[0].clone();
            let node = stage.cloud.node_of(&own).expect("a node").node_name;
            stage.until(&own, |status| matches!(*status.old_node, OldNodeState::Terminating(_))).await;
            let first =
                stage.cluster.get_json("nodes", "", &node).expect("a node")["metadata"]["uid"].clone();
            until(&stage, || stage.cloud.calls().iter().any(|call| call.operation.starts_with("Terminate")))
                .await;
            stage.cloud.throttle_for(Duration::from_secs(400));
            stage.cloud.configure(|settings| {
                settings.names_come_back = true;
                settings.provider_id_delay = Duration::from_secs(60);
            });
            until(&stage, || stage.cloud.node_of(&own).is_none()).await;
            let desired = stage.cloud.group(SPOT).expect("a group").desired;
            stage.cloud.set_desired(SPOT, desired + 1).expect("within the sizes");
            let node_now = || stage.cluster.get_json("nodes", "", &node);
            until(&stage, || node_now().is_some_and(|found| found["metadata"]["uid"] != first)).await;
            assert!(
                matches!(*stage.status(&own).old_node, OldNodeState::Terminating(_)),
                "its story is open"
            );
            if hand_over {
                stage.end.trigger();
            }
            for _ in 0..200 {
                let found = node_now().expect("the namesake");
                assert!(is_untouched(&found), "{found}");
                stage.pass(1).await;
            }
            stage.until_phase(&own, Phase::Completed).await;
        })
        .play();
    assert_eq!(played.violations.len(), 0, "{:?}", played.complaints());
}

#[test]
fn a_new_instance_that_gets_the_name_of_the_old_node_is_left_alone() {
    namesake("a name comes back", false);
}

#[test]
fn a_new_leader_leaves_a_node_alone_that_has_the_name_of_an_old_one() {
    namesake("a name comes back and the leader changes", true);
}

/// A Spot instance more than there were, whose Node has its providerID so many seconds after it has joined;
/// once it is Ready.
async fn young(stage: &Stage, provider_id_after: u64) -> String {
    let before: Vec<String> = ids(stage);
    let delay = Duration::from_secs(provider_id_after);
    stage.cloud.configure(|settings| settings.provider_id_delay = delay);
    let desired = stage.cloud.group(SPOT).expect("a group").desired;
    stage.cloud.set_desired(SPOT, desired + 1).expect("within the sizes");
    until(stage, || ids(stage).len() > before.len()).await;
    let id = ids(stage).into_iter().find(|id| !before.contains(id)).expect("an instance");
    let node = stage.cloud.node_of(&id).expect("a node").node_name;
    until(stage, || {
        let found = stage.cluster.get_json("nodes", "", &node);
        let conditions = found.and_then(|node| node["status"]["conditions"].as_array().cloned());
        let is_ready = |held: &Value| held["type"] == json!("Ready") && held["status"] == json!("True");
        conditions.is_some_and(|all| all.iter().any(is_ready))
    })
    .await;
    stage.cloud.configure(|settings| settings.provider_id_delay = Duration::ZERO);
    id
}

fn ids(stage: &Stage) -> Vec<String> {
    let group = stage.cloud.group(SPOT).expect("a group");
    group.instances.into_iter().map(|instance| instance.id).collect()
}

#[test]
fn a_two_minute_notice_of_a_node_whose_provider_id_comes_late_gets_its_replacement() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script.clear();
    plot.steps.clear();
    let plot = long(plot);
    let played = Play::plot("providerID late", plot)
        .beside(|stage| async move {
            // The Node is Ready 15 s after it has joined.
            let id = young(&stage, 35).await;
            let node = stage.cloud.node_of(&id).expect("a node").node_name;
            stage.cloud.interrupt(&id).expect("an instance");
            let unproven = format!("{node}.{id}");
            stage.until(&unproven, |status| status.old_node.drain().is_some()).await;
            assert!(stage.record(&unproven).expect("a record").spec.pool.is_none());
            stage.until(&id, |status| status.old_node.drain().is_some()).await;
            assert!(stage.record(&id).expect("a record").spec.pool.as_deref() == Some(POOL));
            stage.until_phase(&unproven, Phase::Completed).await;
            let left = since(stage.cloud.now(), stage.status(&id).deadline.expect("one"));
            assert!(left > Duration::from_secs(60), "the rest of the two minutes is its own: {left:?}");
            stage.until(&id, |status| status.capacity.taken().is_some()).await;
            stage.until_phase(&id, Phase::Completed).await;
        })
        .play();
    assert_eq!(played.violations.len(), 0, "{:?}", played.complaints());
    assert_eq!(played.count("LaunchInstances", Some(SPOT)), 1);
}

#[test]
fn a_node_of_another_scheme_is_told_at_once_and_drained_before_its_deadline() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script.clear();
    plot.steps.clear();
    let plot = long(plot);
    let played = Play::plot("another scheme", plot)
        .beside(|stage| async move {
            let id = stage.spot[0].clone();
            let node = stage.cloud.node_of(&id).expect("a node").node_name;
            stage.cluster.edit("nodes", "", &node, |found| {
                found["spec"]["providerID"] = json!(format!("k3s://{node}"));
            });
            let told = || stage.condition("Accepted").filter(|held| held.1 == "ForeignProviderId");
            until(&stage, || told().is_some()).await;
            let (accepted, _, message) = told().expect("a condition");
            assert!(accepted && message.contains(&format!("k3s://{node}")), "{message}");
            stage.cloud.interrupt(&id).expect("an instance");
            let unproven = format!("{node}.{id}");
            stage.until(&unproven, |status| status.old_node.is_past_drain()).await;
            assert!(stage.cluster.movable_pods_on(&node).is_empty());
            let unasked = |call: &&CallRecord| call.operation.starts_with("Terminate");
            assert_eq!(stage.cloud.calls().iter().filter(unasked).count(), 0, "nothing is terminated");
            stage.until_phase(&unproven, Phase::Completed).await;
        })
        .play();
    assert_eq!(played.violations.len(), 0, "{:?}", played.complaints());
}
