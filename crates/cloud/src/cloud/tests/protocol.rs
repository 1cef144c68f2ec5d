//! Reading, paging, error types, faults, lost answers and the call log.

use super::*;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::operation::set_desired_capacity::SetDesiredCapacityError;
use aws_sdk_autoscaling::types::Filter;

#[tokio::test(start_paused = true)]
async fn groups_are_described_with_everything_that_matters() {
    let mixed = MixedPolicy {
        on_demand_base: 0,
        on_demand_percentage_above_base: 0,
        spot_allocation_strategy: "price-capacity-optimized".into(),
    };
    let spec = GroupSpec {
        mixed: Some(mixed),
        operator: Some("eks.amazonaws.com".into()),
        warm_pool: true,
        capacity_rebalance: true,
        suspended: vec![("AZRebalance".into(), "User suspended at 2026-01-01T00:00:00Z".into())],
        tags: vec![("team".into(), "<a> & b".into())],
        ..spot()
    };
    let stage = stage([spec]);
    let output = stage.client.describe_auto_scaling_groups().auto_scaling_group_names("spot").send().await;
    let output = output.unwrap();
    let group = &output.auto_scaling_groups()[0];
    let sizes = (group.min_size(), group.max_size(), group.desired_capacity());
    assert_eq!(sizes, (Some(0), Some(10), Some(2)));
    assert_eq!(group.instances().len(), 2);
    assert_eq!(group.instances()[0].lifecycle_state().unwrap().as_str(), "InService");
    assert_eq!(group.availability_zones(), ["us-east-1a", "us-east-1b"]);
    assert_eq!(group.capacity_rebalance(), Some(true));
    assert!(group.warm_pool_configuration().is_some());
    assert_eq!(group.operator().and_then(|operator| operator.principal()), Some("eks.amazonaws.com"));
    assert_eq!(group.suspended_processes()[0].process_name(), Some("AZRebalance"));
    assert_eq!(group.tags()[0].value(), Some("<a> & b"));
    let distribution = group.mixed_instances_policy().unwrap().instances_distribution().unwrap();
    assert_eq!(distribution.on_demand_percentage_above_base_capacity(), Some(0));
    assert_eq!(distribution.spot_allocation_strategy(), Some("price-capacity-optimized"));
}

#[tokio::test(start_paused = true)]
async fn groups_and_instances_come_in_pages() {
    let groups = (0..7).map(|n| GroupSpec {
        desired: 10,
        tags: vec![("team".into(), if n < 3 { "a" } else { "b" }.into())],
        ..GroupSpec::new(&format!("g{n}"), Market::Spot)
    });
    let stage = stage(groups);
    let pages = stage.client.describe_auto_scaling_groups().max_records(3).include_instances(false);
    let groups: Vec<_> = pages.into_paginator().items().send().try_collect().await.unwrap();
    assert_eq!(groups.len(), 7);
    assert!(groups.iter().all(|group| group.instances().is_empty()));
    let filter = Filter::builder().name("tag:team").values("b").build();
    let tagged = stage.client.describe_auto_scaling_groups().filters(filter).send().await.unwrap();
    assert_eq!(tagged.auto_scaling_groups().len(), 4);
    let first = stage.client.describe_auto_scaling_instances().send().await.unwrap();
    assert_eq!(first.auto_scaling_instances().len(), 50);
    let pages = stage.client.describe_auto_scaling_instances().into_paginator().items();
    let instances: Vec<_> = pages.send().try_collect().await.unwrap();
    assert_eq!(instances.len(), 70);
    let id = stage.ids("g6")[0].clone();
    let one = stage.client.describe_auto_scaling_instances().instance_ids(&id).send().await.unwrap();
    assert_eq!(one.auto_scaling_instances()[0].auto_scaling_group_name(), Some("g6"));
}

#[tokio::test(start_paused = true)]
async fn activities_are_filtered_by_time_and_status_and_come_in_pages() {
    let stage = stage([spot()]);
    stage.cloud.set_supply("spot", None, Supply::None).unwrap();
    stage.set_desired("spot", 3).await;
    seconds(3600).await;
    let old = stage.activities("spot").await.len();
    assert!(old > 10);
    let since = stage.cloud.now().to_string();
    stage.cloud.set_supply("spot", None, Supply::Unlimited).unwrap();
    seconds(600).await;
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let call = || stage.client.describe_scaling_activities().auto_scaling_group_name("spot");
    let fresh = call().filters(filter("StartTimeLowerBound", &since)).send().await.unwrap();
    assert_eq!(fresh.activities().len(), 1);
    let before = call().filters(filter("StartTimeUpperBound", &since)).send().await.unwrap();
    assert_eq!(before.activities().len(), old);
    let failed = call().filters(filter("Status", "Failed")).send().await.unwrap();
    assert_eq!(failed.activities().len(), old);
    let pages = call().max_records(4).into_paginator().items().send();
    let all: Vec<_> = pages.try_collect().await.unwrap();
    assert_eq!(all.len(), old + 1);
    assert!(all.windows(2).all(|pair| pair[0].start_time() >= pair[1].start_time()));
}

async fn set_desired(client: &Client, desired: i32) -> Result<(), SdkError<SetDesiredCapacityError>> {
    let call = client.set_desired_capacity().auto_scaling_group_name("spot").desired_capacity(desired);
    call.send().await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn sizes_are_enforced_and_errors_are_typed() {
    let stage = stage([GroupSpec { min: 1, ..spot() }]);
    let text = async |desired| {
        let error = set_desired(&stage.client, desired).await.unwrap_err().into_service_error();
        assert_eq!(error.code(), Some("ValidationError"));
        error.message().unwrap_or_default().to_owned()
    };
    assert_eq!(
        text(11).await,
        "New SetDesiredCapacity value 11 is above max value 10 for the AutoScalingGroup."
    );
    assert_eq!(
        text(0).await,
        "New SetDesiredCapacity value 0 is below min value 1 for the AutoScalingGroup."
    );
    stage.cloud.fail_next("SetDesiredCapacity", 1, &ErrorAnswer::scaling_activity_in_progress("a-1"));
    let error = set_desired(&stage.client, 3).await.unwrap_err().into_service_error();
    assert!(error.is_scaling_activity_in_progress_fault(), "{error:?}");
    stage.cloud.edit_group("spot", |spec| spec.operator = Some("eks.amazonaws.com".into())).unwrap();
    assert!(text(3).await.contains("eks.amazonaws.com"));
    let unknown = stage.client.delete_policy().policy_name("x").send().await.unwrap_err();
    assert_eq!(unknown.into_service_error().code(), Some("InvalidAction"));
}

#[tokio::test(start_paused = true)]
async fn honoured_cooldown_waits_for_the_running_activity() {
    let stage = stage([spot()]);
    stage.set_desired("spot", 3).await;
    seconds(1).await;
    let call = stage.client.set_desired_capacity().auto_scaling_group_name("spot").desired_capacity(4);
    let error = call.honor_cooldown(true).send().await.unwrap_err().into_service_error();
    assert!(error.is_scaling_activity_in_progress_fault());
}

#[tokio::test(start_paused = true)]
async fn throttling_holds_every_call_until_it_is_over() {
    let stage = stage([spot()]);
    let client = without_retries(&stage.cloud, Arc::new(ScriptedGate::default()));
    stage.cloud.throttle_for(Duration::from_secs(30));
    let throttled = set_desired(&client, 3).await.unwrap_err().into_service_error();
    assert_eq!(throttled.code(), Some("Throttling"));
    assert!(client.describe_auto_scaling_groups().send().await.is_err());
    seconds(30).await;
    set_desired(&client, 3).await.unwrap();
    let log: Vec<_> = stage.cloud.calls().iter().map(|call| call.ok).collect();
    assert_eq!(log, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn the_sdk_retries_what_was_throttled() {
    let stage = stage([spot()]);
    stage.cloud.fail_next("SetDesiredCapacity", 2, &ErrorAnswer::throttling());
    set_desired(&stage.client, 3).await.unwrap();
    assert_eq!(stage.cloud.calls().len(), 3);
}

fn without_retries(cloud: &Cloud, gate: Arc<dyn CallGate>) -> Client {
    let config = cloud.sdk_config(Some(gate));
    let retries = aws_config::retry::RetryConfig::disabled();
    let timeouts = aws_config::timeout::TimeoutConfig::builder();
    let timeouts = timeouts.operation_timeout(Duration::from_secs(10)).build();
    let config = aws_sdk_autoscaling::config::Builder::from(&config);
    Client::from_conf(config.retry_config(retries).timeout_config(timeouts).build())
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_has_taken_effect_and_a_lost_request_has_not() {
    let stage = stage([spot()]);
    let gate = Arc::new(ScriptedGate::default());
    let client = without_retries(&stage.cloud, gate.clone());
    gate.next_answer("SetDesiredCapacity", CallFate::Drop);
    let lost = set_desired(&client, 3).await.unwrap_err();
    assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
    assert_eq!(stage.group("spot").desired, 3);
    gate.next_request("SetDesiredCapacity", CallFate::Drop);
    set_desired(&client, 4).await.unwrap_err();
    assert_eq!(stage.group("spot").desired, 3);
    gate.next_answer("SetDesiredCapacity", CallFate::Delay(Duration::from_secs(60)));
    let began = tokio::time::Instant::now();
    let late = set_desired(&client, 4).await.unwrap_err();
    assert!(matches!(late, SdkError::TimeoutError(_)), "{late:?}");
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(stage.group("spot").desired, 4);
    gate.next_request("SetDesiredCapacity", CallFate::throttling());
    let refused = set_desired(&client, 5).await.unwrap_err().into_service_error();
    assert_eq!(refused.code(), Some("Throttling"));
}

#[tokio::test(start_paused = true)]
async fn the_call_log_and_the_gate_name_the_group() {
    struct Recorder(std::sync::Mutex<Vec<String>>);
    impl CallGate for Recorder {
        fn before(&self, operation: &str, group: Option<&str>) -> CallFate {
            self.0.lock().unwrap().push(format!("{operation} {}", group.unwrap_or("-")));
            CallFate::Pass
        }
    }
    let stage = stage([spot()]);
    let gate = Arc::new(Recorder(std::sync::Mutex::default()));
    let client = Client::new(&stage.cloud.sdk_config(Some(gate.clone())));
    client.describe_auto_scaling_groups().send().await.unwrap();
    client.describe_auto_scaling_groups().auto_scaling_group_names("spot").send().await.unwrap();
    let id = stage.ids("spot")[0].clone();
    let call = client.terminate_instance_in_auto_scaling_group().instance_id(id);
    call.should_decrement_desired_capacity(true).send().await.unwrap();
    let expected = [
        "DescribeAutoScalingGroups -",
        "DescribeAutoScalingGroups spot",
        "TerminateInstanceInAutoScalingGroup spot",
    ];
    assert_eq!(*gate.0.lock().unwrap(), expected);
    let log = stage.cloud.calls();
    let log: Vec<_> = log
        .iter()
        .map(|call| format!("{} {}", call.operation, call.group.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_with_the_callers_timeout() {
    let stage = stage([spot()]);
    let gate = Arc::new(ScriptedGate::default());
    let client = without_retries(&stage.cloud, gate.clone());
    gate.next_request("SetDesiredCapacity", CallFate::Hang);
    let hung = set_desired(&client, 3).await.unwrap_err();
    assert!(matches!(hung, SdkError::TimeoutError(_)), "{hung:?}");
    assert_eq!(stage.group("spot").desired, 2);
    stage.cloud.fail_next("SetDesiredCapacity", u32::MAX, &ErrorAnswer::access_denied("SetDesiredCapacity"));
    for _ in 0..3 {
        let denied = set_desired(&client, 3).await.unwrap_err().into_service_error();
        assert_eq!(denied.code(), Some("AccessDenied"));
    }
}
