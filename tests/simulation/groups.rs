//! Groups as AWS and EKS make them: accepted, told, and served by the calls that suit them.

use crate::play::{Play, Played, Stage};
use serde_json::json;
use spot_guard::crd::{NodeReplacement, SpotPool, SpotPoolStatus, notice_name};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::{GroupSpec, Supply};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, Phase, ReplacedBy};
use spot_guard_core::time::since;
use std::time::Duration;

const LAUNCH: &str = "LaunchInstances";
const SET_DESIRED: &str = "SetDesiredCapacity";
const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";

fn of_managed_node_group(spec: &mut GroupSpec) {
    *spec = spec.clone().of_managed_node_group("workers");
}

/// Spot is dry, and the on-demand group is that of a managed node group.
fn on_managed_on_demand(launch_instances: &'static str) -> Played {
    let played = Play::of(Scenario::DrySpot)
        .beside(move |stage| async move {
            stage.cloud.edit_group(ON_DEMAND, of_managed_node_group).expect("a group");
            stage.edit_pool(|spec| spec["launchInstances"] = json!(launch_instances));
            stage.pass(40).await;
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert!(accepted, "{reason}: {message}");
            let told = reason == ReasonCode::NoLaunchInstances.as_str();
            assert_eq!(told, launch_instances == "Auto", "{reason}: {message}");
        })
        .play();
    played.assert_ok();
    played
}

#[test]
fn a_managed_node_group_as_on_demand_group_stands_in_by_set_desired_capacity_and_goes_back() {
    let played = on_managed_on_demand("Auto");
    assert_eq!((played.count(LAUNCH, Some(ON_DEMAND)), played.count(SET_DESIRED, Some(ON_DEMAND))), (0, 1));
    assert_eq!(played.count(TERMINATE, None), 2, "the old node, and what stood in");
    assert!(played.count(LAUNCH, Some(SPOT)) > 0, "the Spot group is one's own");
}

#[test]
fn groups_that_replace_their_instances_at_a_certain_age_are_accepted_and_told() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            let lifetime = Some(Duration::from_secs(7 * 86_400));
            stage.cloud.edit_group(SPOT, |spec| spec.max_instance_lifetime = lifetime).expect("a group");
            stage.pass(40).await;
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert!(accepted && reason == ReasonCode::MaxInstanceLifetime.as_str(), "{reason}: {message}");
            assert!(message.contains("604800 s"), "{message}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn launch_instances_is_used_in_a_managed_node_group_where_a_person_allows_it() {
    let played = on_managed_on_demand("Always");
    assert_eq!((played.count(LAUNCH, Some(ON_DEMAND)), played.count(SET_DESIRED, Some(ON_DEMAND))), (1, 0));
}

#[test]
fn a_spot_group_that_evens_out_three_zones_is_accepted_and_nothing_is_launched_to_even_them_out_after_us() {
    let mut plot = Scenario::Rebalance.plot();
    plot.script = vec![(Duration::from_secs(400), Act::Rebalance(0))];
    // Two nodes are ended by AWS to even out the zones, and drained for that.
    (plot.replacements, plot.steps) = (3, vec![(FlowBox::CleanUp, Outcome::CleanedUp)]);
    let played = Play::plot("AZRebalance", plot)
        .beside(|stage| async move {
            // AWS evens out the zones first; the oldest instance is left where it is.
            stage.cloud.protect(&stage.spot[0], true).expect("an instance");
            let zones = ["us-east-1a", "us-east-1b", "us-east-1c"].map(str::to_owned);
            let active = |spec: &mut GroupSpec| (spec.zones, spec.az_rebalance) = (zones.to_vec(), true);
            stage.cloud.edit_group(SPOT, active).expect("a group");
            stage.cloud.set_desired(SPOT, 3).expect("a group");
            stage.pass(390).await;
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert_eq!((accepted, reason.as_str()), (true, "AzRebalance"), "{message}");
        })
        .play();
    played.assert_ok();
    assert_eq!((played.count(LAUNCH, Some(SPOT)), played.count(SET_DESIRED, Some(SPOT))), (1, 0));
    let mut zones: Vec<_> = played
        .stage
        .cloud
        .group(SPOT)
        .expect("a group")
        .instances
        .into_iter()
        .map(|held| held.zone)
        .collect();
    zones.sort_unstable();
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
}

/// The pool as its status says it.
fn pool_status(stage: &Stage) -> SpotPoolStatus {
    let pool: SpotPool = stage.cluster.list().remove(0);
    pool.status.expect("a status")
}

/// The Spot group replaces by itself from the beginning.
fn replaces_by_itself(stage: &Stage) {
    stage.cloud.edit_group(SPOT, |spec| spec.capacity_rebalance = true).expect("a group");
}

/// On-demand stands in and goes back; what the drain of the old node does comes beside it.
fn stood_in_for() -> Vec<(FlowBox, Outcome)> {
    vec![
        (FlowBox::ScaleUp, Outcome::SteppedAside),
        (FlowBox::Fallback, Outcome::Requested),
        (FlowBox::Fallback, Outcome::InService),
        (FlowBox::Monitor, Outcome::Monitoring),
        (FlowBox::Health, Outcome::Healthy),
        (FlowBox::Stability, Outcome::Stable),
        (FlowBox::Safety, Outcome::Safe),
        (FlowBox::ScaleDown, Outcome::ScaledDown),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ]
}

/// Nothing was asked of the Spot group, and none of its instances ended.
fn assert_spot_is_left_alone(played: &Played) {
    let of_spot = played.calls.iter().filter(|call| call.group.as_deref() == Some(SPOT));
    let changes: Vec<_> = of_spot.filter(|call| !call.operation.starts_with("Describe")).collect();
    assert!(changes.is_empty(), "{changes:?}");
}

/// On-demand stands in for what the Spot group does not bring, while this happens.
fn stands_in<const ACTS: usize>(script: [(u64, Act); ACTS]) -> Plot {
    Plot {
        script: script.into_iter().map(|(at, act)| (Duration::from_secs(at), act)).collect(),
        limit: Duration::from_secs(4 * 3600),
        steps: stood_in_for(),
        ..Scenario::DrySpot.plot()
    }
}

#[test]
fn a_recommendation_in_a_group_pool_and_no_launch_for_an_hour_nothing_happens_and_nothing_is_held() {
    let script = [
        (5, Act::SpotHas(Supply::None)),
        (40, Act::Rebalance(0)),
        (3700, Act::Interrupt(0)),
        (4000, Act::SpotHas(Supply::Unlimited)),
    ];
    let plot = stands_in(script);
    let played = Play::plot("a group that replaces by itself", plot)
        .beside(|stage| async move {
            replaces_by_itself(&stage);
            stage.pass(3690).await;
            let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
            assert!(accepted, "{reason}: {message}");
            let status = pool_status(&stage);
            assert_eq!((status.replaced_by, status.recommendations), (Some(ReplacedBy::Group), Some(1)));
            assert!(status.ledger.is_settled(), "{:?}", status.ledger);
            assert_eq!((stage.changes(), stage.cluster.list::<NodeReplacement>().len()), (0, 0));
        })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
    let calls = [LAUNCH, TERMINATE].map(|operation| played.count(operation, Some(ON_DEMAND)));
    assert_eq!(calls, [1, 1], "one stands in, and goes back");
    let record = played.stage.status(&played.stage.spot[0]);
    assert_eq!(record.replaced_by, Some(ReplacedBy::Group));
}

/// A group that replaces by itself, and a pool that stands in on advice.
fn advised(stage: &Stage) {
    replaces_by_itself(stage);
    stage.edit_pool(|spec| spec["cover"] = json!({ "onAdvice": "Failure" }));
}

#[test]
fn on_advice_on_demand_stands_in_after_a_failed_launch_and_goes_back_without_spot_half_an_hour_later() {
    let script =
        [(5, Act::SpotHas(Supply::None)), (40, Act::Rebalance(0)), (4000, Act::SpotHas(Supply::Unlimited))];
    let mut plot = stands_in(script);
    plot.steps = vec![
        (FlowBox::Fallback, Outcome::InService),
        (FlowBox::Wait, Outcome::TimedOut),
        (FlowBox::CleanUp, Outcome::Cancelled),
    ];
    let played = Play::plot("a stand-in on advice", plot)
        .beside(|stage| async move {
            advised(&stage);
            stage.until(&stage.spot[0], |status| status.capacity.taken().is_some()).await;
            stage.pass(1700).await;
            let node = stage.node(&stage.spot[0]);
            assert!(node["spec"]["unschedulable"] != true && node["spec"]["taints"].is_null(), "{node}");
        })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
    let calls = [LAUNCH, TERMINATE].map(|operation| played.count(operation, Some(ON_DEMAND)));
    assert_eq!(calls, [1, 1], "one stands in, and goes back");
}

/// Somebody has the token of a node's agent, and announces what EC2 does not.
fn announce_falsely(stage: &Stage, instance: &str) {
    let node = stage.cloud.node_of(instance).expect("a node").node_name;
    let name = notice_name(&node.as_str().into(), &instance.into(), NoticeKind::SpotInterruption);
    stage.cluster.delete("interruptionnotices.spotguard.dev", "", &name);
    let now = stage.cloud.now();
    let notice = json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "InterruptionNotice", "metadata": { "name": name },
        "spec": { "nodeName": node, "instanceId": instance, "kind": NoticeKind::SpotInterruption,
            "detectedAt": now, "deadline": now + Duration::from_secs(120) },
    });
    stage.cluster.create_json(notice).expect("a notice");
}

#[test]
fn what_stands_in_for_a_false_notice_goes_back_without_spot_and_the_next_one_is_not_believed() {
    let mut plot = stands_in([(5, Act::SpotHas(Supply::None)), (4000, Act::SpotHas(Supply::Unlimited))]);
    plot.steps = vec![
        (FlowBox::Fallback, Outcome::InService),
        (FlowBox::Wait, Outcome::NoticeFalse),
        (FlowBox::CleanUp, Outcome::Cancelled),
    ];
    let played = Play::plot("a false notice", plot)
        .beside(|stage| async move {
            replaces_by_itself(&stage);
            stage.pass(40).await;
            let instance = stage.spot[0].clone();
            announce_falsely(&stage, &instance);
            let begun = stage.cloud.now();
            stage.until_phase(&instance, Phase::Cancelled).await;
            let took = since(begun, stage.cloud.now()).as_secs();
            assert!((300..900).contains(&took), "{took} s");
            stage.pass(1200).await;
            announce_falsely(&stage, &instance);
            stage.pass(600).await;
            assert_eq!(stage.status(&instance).phase, Phase::Cancelled);
            let node = stage.node(&instance);
            assert!(node["spec"]["unschedulable"] != true && node["spec"]["taints"].is_null(), "{node}");
        })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
    let calls = [LAUNCH, TERMINATE].map(|operation| played.count(operation, Some(ON_DEMAND)));
    assert_eq!(calls, [1, 1], "one stands in, and goes back");
}

#[test]
fn what_stands_in_on_advice_is_there_when_the_interruption_comes() {
    let script = [
        (5, Act::SpotHas(Supply::None)),
        (40, Act::Rebalance(0)),
        (900, Act::Interrupt(0)),
        (1500, Act::SpotHas(Supply::Unlimited)),
    ];
    let played = Play::plot("advice, then an interruption", stands_in(script))
        .beside(|stage| async move { advised(&stage) })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
    let calls = [LAUNCH, TERMINATE].map(|operation| played.count(operation, Some(ON_DEMAND)));
    assert_eq!(calls, [1, 1], "the one that was there");
    let [in_service, ..] = played.times(FlowBox::Fallback, Outcome::InService)[..] else {
        panic!("it stands in");
    };
    assert!(in_service < 300.0, "{in_service} s: long before the notice");
}

#[test]
fn a_group_that_ends_instances_at_risk_without_a_hook_is_degraded_until_it_has_one() {
    let mut plot = Scenario::Rebalance.plot();
    plot.script = vec![(Duration::from_secs(600), Act::SpotHas(Supply::Unlimited))];
    (plot.replacements, plot.steps) = (0, Vec::new());
    let played = Play::plot("a termination hook", plot)
        .beside(|stage| async move {
            let told = |stage: &Stage| stage.condition("Accepted").expect("a condition");
            replaces_by_itself(&stage);
            stage.pass(200).await;
            let (accepted, reason, message) = told(&stage);
            assert_eq!((accepted, reason.as_str()), (true, "NoTerminationHook"), "{message}");
            let hook = Some(Duration::from_secs(300));
            stage.cloud.edit_group(SPOT, |spec| spec.termination_hook = hook).expect("a group");
            stage.pass(200).await;
            let (accepted, reason, message) = told(&stage);
            assert!(accepted && reason != "NoTerminationHook", "{reason}: {message}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn what_stands_in_goes_back_one_by_one_as_the_spot_group_brings_instances() {
    let script = [
        (5, Act::SpotHas(Supply::None)),
        (40, Act::Interrupt(0)),
        (50, Act::Interrupt(1)),
        (700, Act::SpotHas(Supply::Left(1))),
        (3000, Act::SpotHas(Supply::Unlimited)),
    ];
    let mut plot = stands_in(script);
    plot.replacements = 2;
    let active = |stage: &Stage| {
        let instances = stage.cloud.group(ON_DEMAND).expect("a group").instances;
        instances.iter().filter(|held| !held.state.is_ending()).count()
    };
    let played = Play::plot("one by one", plot)
        .beside(move |stage| async move {
            replaces_by_itself(&stage);
            stage.pass(690).await;
            assert_eq!(active(&stage), 2, "one for each");
            stage.pass(900).await;
            assert_eq!(active(&stage), 1, "{}", stage.auditor.steps().join("\n"));
            stage.pass(1300).await;
            assert_eq!(active(&stage), 1, "the other one is needed");
        })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
    let calls = [LAUNCH, TERMINATE].map(|operation| played.count(operation, Some(ON_DEMAND)));
    assert_eq!(calls, [2, 2], "each stands in once, and goes back");
}

#[test]
fn an_interruption_that_the_spot_group_makes_up_for_by_itself_changes_nothing_of_ours() {
    let mut plot = Scenario::Rebalance.plot();
    plot.script = vec![(Duration::from_secs(40), Act::Interrupt(0))];
    plot.steps = vec![
        (FlowBox::ScaleUp, Outcome::SteppedAside),
        (FlowBox::Drain, Outcome::Terminated),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ];
    let played = Play::plot("the group makes up for it", plot)
        .beside(|stage| async move { replaces_by_itself(&stage) })
        .play();
    played.assert_ok();
    assert_eq!(played.stage.changes(), 0);
}

#[test]
fn a_pair_of_managed_node_groups_is_stood_in_for_and_its_spot_nodes_are_left_to_eks() {
    let script =
        [(5, Act::SpotHas(Supply::None)), (40, Act::Interrupt(0)), (600, Act::SpotHas(Supply::Unlimited))];
    let plot = stands_in(script);
    let played = Play::plot("a managed pair", plot)
        .beside(|stage| async move {
            replaces_by_itself(&stage);
            stage.cloud.edit_group(ON_DEMAND, of_managed_node_group).expect("a group");
            let tag = ("eks:nodegroup-name".to_owned(), "spot-workers".to_owned());
            let label = ("eks.amazonaws.com/nodegroup".to_owned(), "spot-workers".to_owned());
            stage
                .cloud
                .edit_group(SPOT, |spec| {
                    spec.tags.push(tag);
                    spec.node_labels.push(label);
                })
                .expect("a group");
            for instance in &stage.spot {
                let node = stage.cloud.node_of(instance).expect("a node").node_name;
                stage.cluster.edit("nodes", "", &node, |node| {
                    node["metadata"]["labels"]["eks.amazonaws.com/nodegroup"] = json!("spot-workers");
                });
            }
            stage.pass(100).await;
            let node = stage.node(&stage.spot[0]);
            assert!(node["spec"]["unschedulable"] != true && node["spec"]["taints"].is_null(), "{node}");
        })
        .play();
    played.assert_ok();
    assert_spot_is_left_alone(&played);
}
