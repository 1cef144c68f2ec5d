//! What a group does about its desired capacity.

use super::*;
use aws_sdk_autoscaling::types::ScalingActivityStatusCode;

#[tokio::test(start_paused = true)]
async fn a_raised_desired_capacity_becomes_a_ready_node_after_its_boot() {
    let stage = stage([spot()]);
    stage.set_desired("spot", 3).await;
    seconds(1).await;
    assert_eq!(stage.count("spot", LifecycleState::Pending), 1);
    let activity = stage.activities("spot").await.remove(0);
    assert_eq!(activity.status_code(), Some(&ScalingActivityStatusCode::PreInService));
    seconds(25).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 3);
    let activity = stage.activities("spot").await.remove(0);
    assert_eq!(activity.status_code(), Some(&ScalingActivityStatusCode::Successful));
    assert!(activity.end_time().is_some() && activity.cause().unwrap().contains("from 2 to 3"));
    seconds(35).await;
    let node = stage.group("spot").instances[2].node_name.clone();
    assert_eq!(stage.host.told()[4..], [format!("join {node}"), format!("ready {node}")]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_spot_market_fails_at_once_and_is_tried_again_with_growing_pauses() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", None, Supply::None).unwrap();
    stage.set_desired("spot", 3).await;
    seconds(1).await;
    let failed = stage.activities("spot").await;
    assert_eq!(failed.len(), 2, "each zone that was tried");
    let mut zones: Vec<&str> = failed.iter().filter_map(|activity| activity.details()).collect();
    zones.sort_unstable();
    for (details, zone) in zones.iter().zip(["us-east-1a", "us-east-1b"]) {
        let details: serde_json::Value = serde_json::from_str(details).unwrap();
        assert_eq!(details["Availability Zone"], zone);
    }
    assert_eq!(failed[0].status_code(), Some(&ScalingActivityStatusCode::Failed));
    let message = failed[0].status_message().unwrap();
    assert_eq!(
        message,
        "Could not launch Spot Instances. UnfulfillableCapacity - There is no capacity available that matches \
         your request. Launching EC2 instance failed."
    );
    assert!(!failed[0].description().unwrap().contains("capacity"));
    seconds(30).await;
    assert_eq!(stage.activities("spot").await.len(), 4);
    seconds(59).await;
    assert_eq!(stage.activities("spot").await.len(), 4);
    seconds(2).await;
    assert_eq!(stage.activities("spot").await.len(), 6);
    stage.cloud.set_supply("spot", None, Supply::Left(1)).unwrap();
    seconds(150).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 3);
}

#[tokio::test(start_paused = true)]
async fn one_dry_zone_sends_the_launch_to_the_other() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", Some("us-east-1a"), Supply::None).unwrap();
    stage.set_desired("spot", 4).await;
    seconds(1).await;
    let zones: Vec<_> = stage.group("spot").instances.into_iter().map(|instance| instance.zone).collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1b", "us-east-1b"]);
}

#[tokio::test(start_paused = true)]
async fn scripted_launch_failures_have_their_texts_and_status() {
    let stage = stage([on_demand()]);
    let failures = [
        LaunchFailure::dry(Market::OnDemand, "m5.xlarge", "us-east-1a"),
        LaunchFailure::vcpu_limit(Market::OnDemand, 32).cancelled(),
        LaunchFailure::already_running(20),
        LaunchFailure::invalid_parameter_combination(Market::OnDemand, &"x".repeat(300)),
    ];
    let starts = [
        "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient \
         m5.xlarge capacity in the Availability Zone you requested (us-east-1a).",
        "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your \
         current vCPU limit of 32 allows",
        "20 instance(s) are already running.",
        "Could not launch On-Demand Instances. InvalidParameterCombination - x",
    ];
    for (turn, (failure, start)) in failures.into_iter().zip(starts).enumerate() {
        let status = failure.status_code;
        stage.cloud.set_launch_failure("on-demand", Some(failure), Some(1)).unwrap();
        stage.set_desired("on-demand", turn as i32 + 1).await;
        seconds(1).await;
        let activity = stage.activities("on-demand").await.remove(0);
        let message = activity.status_message().unwrap();
        assert!(message.starts_with(start), "{message}");
        assert!(message.len() <= 255);
        assert_eq!(activity.status_code().unwrap().as_str(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_activity_is_listed_as_it_was_described_and_changes_nothing() {
    let stage = stage([spot()]);
    let description = format!("Terminating EC2 instance: {}", stage.ids("spot")[0]);
    stage.cloud.fail_activity("spot", &description, "it was asked.", "You are not authorized.").unwrap();
    let activity = stage.activities("spot").await.remove(0);
    assert_eq!(activity.description(), Some(description.as_str()));
    assert_eq!(activity.status_code(), Some(&ScalingActivityStatusCode::Failed));
    assert_eq!(activity.status_message(), Some("You are not authorized."));
    seconds(60).await;
    assert_eq!((stage.ids("spot").len(), stage.group("spot").desired), (2, 2));
    assert!(stage.cloud.fail_activity("nobody", "Launching", "it was asked.", "No.").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_day_of_failures_suspends_launch_until_someone_resumes_it() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", None, Supply::None).unwrap();
    stage.set_desired("spot", 3).await;
    seconds(25 * 3600).await;
    let groups = stage.client.describe_auto_scaling_groups().send().await.unwrap();
    let suspended = groups.auto_scaling_groups()[0].suspended_processes();
    assert_eq!(suspended[0].process_name(), Some("Launch"));
    stage.cloud.set_supply("spot", None, Supply::Unlimited).unwrap();
    seconds(3600).await;
    assert_eq!(stage.ids("spot").len(), 2);
    stage.cloud.resume("spot", "Launch").unwrap();
    seconds(30).await;
    assert_eq!(stage.ids("spot").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn scale_in_takes_the_oldest_of_the_fullest_zone_unless_protected() {
    let stage = stage([GroupSpec { desired: 3, ..spot() }]);
    let ids = stage.ids("spot");
    stage.cloud.protect(&ids[0], true).unwrap();
    stage.set_desired("spot", 2).await;
    seconds(30).await;
    assert_eq!(stage.ids("spot"), [ids[0].clone(), ids[1].clone()]);
}

/// The words of the User Guide, "Verify a scaling activity for an Auto Scaling group".
#[tokio::test(start_paused = true)]
async fn the_cause_of_a_scale_in_says_from_where_to_where() {
    let stage = stage([GroupSpec { desired: 3, ..spot() }]);
    stage.set_desired("spot", 2).await;
    seconds(30).await;
    let activity = stage.activities("spot").await.remove(0);
    let cause = activity.cause().unwrap();
    assert!(cause.contains("changing the desired capacity from 3 to 2.  At "), "{cause}");
    assert!(
        cause.contains("desired and actual capacity, shrinking the capacity from 3 to 2.  At "),
        "{cause}"
    );
    assert!(cause.ends_with(" was selected for termination."), "{cause}");
    let id = stage.ids("spot").remove(0);
    stage.cloud.scale_down(&id).unwrap();
    let activity = stage.activities("spot").await.remove(0);
    let cause = activity.cause().unwrap();
    let ends = format!(
        "{id} was taken out of service in response to a user request, shrinking the capacity from 2 to 1."
    );
    assert!(cause.ends_with(&ends), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn a_taken_instance_is_replaced_after_the_health_check() {
    let stage = stage([spot()]);
    let ids = stage.ids("spot");
    stage.cloud.interrupt(&ids[0]).unwrap();
    seconds(119).await;
    assert!(stage.group("spot").instances[0].machine_runs);
    seconds(2).await;
    assert!(!stage.group("spot").instances[0].machine_runs);
    seconds(15).await;
    assert_eq!(stage.count("spot", LifecycleState::Pending), 1);
    assert_eq!(stage.count("spot", LifecycleState::Terminating), 1);
    seconds(60).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 2);
    assert!(!stage.ids("spot").contains(&ids[0]));
    assert_eq!(stage.group("spot").desired, 2);
    let node_gone = stage.host.told().iter().any(|call| call.starts_with("leave"));
    assert!(node_gone);
}

#[tokio::test(start_paused = true)]
async fn az_rebalance_launches_before_it_terminates() {
    let stage = stage([GroupSpec { az_rebalance: true, ..spot() }]);
    stage.cloud.set_supply("spot", Some("us-east-1b"), Supply::None).unwrap();
    stage.set_desired("spot", 4).await;
    seconds(60).await;
    let ids = stage.ids("spot");
    stage.cloud.set_supply("spot", Some("us-east-1b"), Supply::Unlimited).unwrap();
    stage.set_desired("spot", 4).await;
    seconds(10).await;
    assert_eq!(stage.ids("spot").len(), 5);
    seconds(60).await;
    let after = stage.ids("spot");
    assert_eq!(after.len(), 4);
    assert!(!after.contains(&ids[0]));
}

#[tokio::test(start_paused = true)]
async fn capacity_rebalance_replaces_the_instance_at_risk_by_itself() {
    let stage = stage([GroupSpec { capacity_rebalance: true, max: 2, ..spot() }]);
    let ids = stage.ids("spot");
    stage.cloud.rebalance(&ids[1]).unwrap();
    seconds(10).await;
    assert_eq!(stage.ids("spot").len(), 3);
    seconds(60).await;
    let after = stage.ids("spot");
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&ids[1]));
}

#[tokio::test(start_paused = true)]
async fn a_mixed_policy_decides_the_market() {
    let mixed = MixedPolicy {
        on_demand_base: 1,
        on_demand_percentage_above_base: 50,
        spot_allocation_strategy: "price-capacity-optimized".into(),
    };
    let stage = stage([GroupSpec { desired: 5, mixed: Some(mixed), ..spot() }]);
    let markets = stage.group("spot").instances.into_iter().map(|instance| instance.market);
    assert_eq!(markets.filter(|market| *market == Market::OnDemand).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_story() {
    let mut stories = Vec::new();
    for _ in 0..2 {
        let stage = stage([spot(), on_demand()]);
        let id = stage.ids("spot")[0].clone();
        stage.cloud.interrupt(&id).unwrap();
        seconds(300).await;
        let activities = stage.activities("spot").await;
        stories.push(format!("{activities:?} {:?}", stage.ids("spot")));
    }
    assert_eq!(stories[0], stories[1]);
}

#[tokio::test(start_paused = true)]
async fn desired_capacity_follows_new_sizes_and_a_removed_group_takes_its_nodes_along() {
    let stage = stage([spot()]);
    stage.cloud.edit_group("spot", |spec| spec.min = 3).unwrap();
    seconds(120).await;
    assert_eq!(stage.ids("spot").len(), 3);
    stage.cloud.remove_group("spot").unwrap();
    seconds(10).await;
    assert!(stage.cloud.group("spot").is_none());
    assert_eq!(stage.host.told().iter().filter(|call| call.starts_with("leave")).count(), 3);
    let groups = stage.client.describe_auto_scaling_groups().auto_scaling_group_names("spot").send().await;
    assert!(groups.unwrap().auto_scaling_groups().is_empty());
}

#[tokio::test(start_paused = true)]
async fn listings_may_be_behind_and_go_back_and_are_right_after_the_lag() {
    let stage = stage([spot()]);
    let lag = Duration::from_secs(10);
    stage.cloud.configure(|settings| settings.listing_lag = lag);
    seconds(60).await;
    let listed = || async {
        let call = stage.client.describe_auto_scaling_groups().auto_scaling_group_names("spot");
        call.send().await.unwrap().auto_scaling_groups()[0].desired_capacity().unwrap()
    };
    let before = listed().await;
    stage.set_desired("spot", before + 1).await;
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(listed().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(seen[0], before);
    assert!(seen.windows(2).any(|pair| pair == [before, before + 1]));
    assert!(seen.windows(2).any(|pair| pair == [before + 1, before]), "{seen:?}");
    assert_eq!(stage.group("spot").desired, u32::try_from(before + 1).unwrap());
    seconds(3).await;
    for _ in 0..20 {
        assert_eq!(listed().await, before + 1);
    }
}
