//! `LaunchInstances`: tokens, partial success, refusals.

use super::*;
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use aws_sdk_autoscaling::operation::launch_instances::{LaunchInstancesError, LaunchInstancesOutput};
use aws_sdk_autoscaling::types::RetryStrategy;

async fn launch(
    stage: &Stage,
    count: i32,
    zone: Option<&str>,
    token: &str,
) -> Result<LaunchInstancesOutput, LaunchInstancesError> {
    let call = stage.client.launch_instances().auto_scaling_group_name("spot").requested_capacity(count);
    let call = call.client_token(token).set_availability_zones(zone.map(|zone| vec![zone.to_owned()]));
    call.send().await.map_err(|error| error.into_service_error())
}

fn launched(output: &LaunchInstancesOutput) -> Vec<String> {
    output.instances().iter().flat_map(|collection| collection.instance_ids().to_vec()).collect()
}

#[tokio::test(start_paused = true)]
async fn ids_come_at_once_and_desired_capacity_follows_the_setting() {
    for (raises, desired, later) in [(Some(0), 4, 4), (Some(20), 2, 4), (None, 2, 2)] {
        let raises = raises.map(Duration::from_secs);
        let stage = stage([spot()]);
        stage.cloud.configure(|settings| settings.launch_instances_raises_desired = raises);
        let output = launch(&stage, 2, Some("us-east-1b"), "a").await.unwrap();
        assert_eq!(launched(&output).len(), 2);
        let collection = &output.instances()[0];
        assert_eq!(collection.market_type(), Some("Spot"));
        assert_eq!(collection.availability_zone_id(), Some("use1-az2"));
        assert_eq!(stage.group("spot").desired, desired);
        seconds(120).await;
        assert_eq!(stage.group("spot").desired, later);
        assert_eq!(stage.count("spot", LifecycleState::InService), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_answered_from_memory_for_eight_hours() {
    let stage = stage([spot()]);
    let first = launch(&stage, 1, Some("us-east-1a"), "a").await.unwrap();
    seconds(7 * 3600).await;
    let again = launch(&stage, 1, Some("us-east-1a"), "a").await.unwrap();
    assert_eq!(launched(&first), launched(&again));
    let error = launch(&stage, 1, Some("us-east-1b"), "a").await.unwrap_err();
    assert!(matches!(error, LaunchInstancesError::IdempotentParameterMismatchError(_)), "{error:?}");
    seconds(3601).await;
    let late = launch(&stage, 1, Some("us-east-1a"), "a").await.unwrap();
    assert_ne!(launched(&first), launched(&late));
    assert_eq!(stage.ids("spot").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_capacity_is_a_normal_answer_and_stays_in_memory_too() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", Some("us-east-1a"), Supply::Left(1)).unwrap();
    let partial = launch(&stage, 2, Some("us-east-1a"), "a").await.unwrap();
    assert_eq!((launched(&partial).len(), partial.errors().len()), (1, 1));
    let dry = launch(&stage, 1, Some("us-east-1a"), "b").await.unwrap();
    assert!(dry.instances().is_empty());
    assert_eq!(dry.errors()[0].error_code(), Some("UnfulfillableCapacity"));
    assert_eq!(
        dry.errors()[0].error_message(),
        Some("There is no capacity available that matches your request.")
    );
    stage.cloud.set_supply("spot", Some("us-east-1a"), Supply::Unlimited).unwrap();
    let remembered = launch(&stage, 1, Some("us-east-1a"), "b").await.unwrap();
    assert_eq!(remembered.errors().len(), 1);
    assert_eq!(stage.group("spot").desired, 3);
}

#[tokio::test(start_paused = true)]
async fn retry_with_group_configuration_leaves_the_rest_to_the_group() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", Some("us-east-1a"), Supply::None).unwrap();
    let call = stage.client.launch_instances().auto_scaling_group_name("spot").requested_capacity(1);
    let call = call.client_token("a").availability_zones("us-east-1a");
    let output = call.retry_strategy(RetryStrategy::RetryWithGroupConfiguration).send().await.unwrap();
    assert!(output.instances().is_empty());
    assert_eq!(stage.group("spot").desired, 3);
    seconds(40).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 3);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused() {
    let stage = stage([spot()]);
    let code = |outcome: Result<LaunchInstancesOutput, LaunchInstancesError>| {
        outcome.unwrap_err().code().unwrap_or_default().to_owned()
    };
    assert_eq!(code(launch(&stage, 1, None, "a").await), "ValidationError");
    assert_eq!(code(launch(&stage, 1, Some("us-east-1c"), "a").await), "ValidationError");
    assert_eq!(code(launch(&stage, 0, Some("us-east-1a"), "a").await), "ValidationError");
    assert_eq!(code(launch(&stage, 1, Some("us-east-1a"), "a b").await), "ValidationError");
    assert_eq!(code(launch(&stage, 9, Some("us-east-1a"), "a").await), "ValidationError");
    stage.cloud.edit_group("spot", |spec| spec.warm_pool = true).unwrap();
    assert_eq!(code(launch(&stage, 1, Some("us-east-1a"), "a").await), "UnsupportedOperation");
    stage.cloud.configure(|settings| settings.launch_instances = false);
    assert_eq!(code(launch(&stage, 1, Some("us-east-1a"), "a").await), "InvalidAction");
    assert_eq!(stage.ids("spot").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_zone_may_fail_alone_and_each_type_with_its_own_error() {
    let stage = stage([spot()]);
    let failure =
        LaunchFailure::dry(Market::Spot, "m5.xlarge", "us-east-1a").beside("Unsupported", "not here");
    stage.cloud.set_zone_failure("spot", "us-east-1a", Some(failure), Some(2)).unwrap();
    let refused = launch(&stage, 1, Some("us-east-1a"), "a").await.unwrap();
    let codes: Vec<_> = refused.errors().iter().map(|error| error.error_code().unwrap()).collect();
    assert_eq!(codes, ["UnfulfillableCapacity", "Unsupported"]);
    assert_eq!(launched(&launch(&stage, 1, Some("us-east-1b"), "b").await.unwrap()).len(), 1);
    // A group that may choose goes on to its next zone.
    stage.set_desired("spot", 4).await;
    seconds(40).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 4);
    let failed = stage.activities("spot").await.into_iter().filter(|held| held.status_code().is_some());
    let failed = failed.filter(|held| held.status_code().unwrap().as_str() == "Failed");
    assert_eq!(failed.count(), 2, "one by the call, one by the group");
    let last = launch(&stage, 1, Some("us-east-1a"), "c").await.unwrap();
    assert_eq!(launched(&last).len(), 1, "the failure was for two launches");
}
