//! Groups as AWS and EKS make them: accepted, told, and served by the calls that suit them.

use crate::play::{Play, Played};
use serde_json::json;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::GroupSpec;
use spot_guard_core::reason::ReasonCode;
use std::time::Duration;

const LAUNCH: &str = "LaunchInstances";
const SET_DESIRED: &str = "SetDesiredCapacity";
const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";

/// The group of an EKS managed node group: its tags, the label of its nodes, and the hook by which EKS drains
/// (EKS User Guide, "Managed node groups"; the hook's timeout is 1800 s).
fn of_managed_node_group(spec: &mut GroupSpec) {
    let names = [("eks:cluster-name", "prod"), ("eks:nodegroup-name", "workers")];
    spec.tags.extend(names.map(|(key, value)| (key.to_owned(), value.to_owned())));
    spec.node_labels.push(("eks.amazonaws.com/nodegroup".to_owned(), "workers".to_owned()));
    spec.termination_hook = Some(Duration::from_secs(1800));
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
fn launch_instances_is_used_in_a_managed_node_group_where_a_person_allows_it() {
    let played = on_managed_on_demand("Always");
    assert_eq!((played.count(LAUNCH, Some(ON_DEMAND)), played.count(SET_DESIRED, Some(ON_DEMAND))), (1, 0));
}

#[test]
fn a_spot_group_that_evens_out_three_zones_is_accepted_and_nothing_is_launched_to_even_them_out_after_us() {
    let mut plot = Scenario::Rebalance.plot();
    plot.script = vec![(Duration::from_secs(400), Act::Rebalance(0))];
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
