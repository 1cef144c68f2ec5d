//! The Auto Scaling API, as any endpoint that claims to be one must answer it.
//!
//! `common` holds for every implementation, moto's server included. `refusals_and_activities` holds for AWS
//! and the simulated cloud only: moto enforces no sizes, keeps no activities and fails on unknown instances.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter, LifecycleState};
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{Cloud, GroupSpec, Market, NullHost};
use std::sync::Arc;
use std::time::Duration;

/// Two groups that the contract expects: from 0 to 4 with 2 wanted, in us-east-1a and us-east-1b, the tag
/// `pool` with the group's own name, and nobody else changing them.
pub const GROUPS: [&str; 2] = ["contract-a", "contract-b"];

/// Everything that every implementation must do, in an order that leaves both groups as they were.
pub async fn common(client: &Client) {
    let [a, b] = GROUPS;
    describes_a_group(client, a).await;
    pages_groups(client).await;
    finds_groups_by_tag(client, b).await;
    describes_instances(client, a).await;
    raises_desired_capacity(client, a).await;
    ends_exactly_the_named_instance(client, a).await;
    replaces_an_instance_ended_without_decrement(client, b).await;
}

/// What AWS documents beyond that.
pub async fn refusals_and_activities(client: &Client) {
    let [a, _] = GROUPS;
    refuses_an_unknown_instance(client).await;
    refuses_sizes_outside_the_limits(client, a).await;
    records_activities(client, a).await;
}

async fn group(client: &Client, name: &str) -> AutoScalingGroup {
    let output = client.describe_auto_scaling_groups().auto_scaling_group_names(name).send().await;
    output.expect("describe").auto_scaling_groups.expect("groups").remove(0)
}

fn in_service(group: &AutoScalingGroup) -> Vec<String> {
    let alive = group.instances().iter().filter(|i| i.lifecycle_state() == Some(&LifecycleState::InService));
    alive.filter_map(|instance| instance.instance_id().map(str::to_owned)).collect()
}

/// Waits until this many instances are in service and no other instance is left.
async fn settled(client: &Client, name: &str, count: usize) -> Vec<String> {
    for _ in 0..60 {
        let group = group(client, name).await;
        let alive = in_service(&group);
        if alive.len() == count && group.instances().len() == count {
            return alive;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    panic!("{name} never came to {count} instances");
}

async fn describes_a_group(client: &Client, name: &str) {
    let group = group(client, name).await;
    assert_eq!(group.auto_scaling_group_name(), Some(name));
    assert_eq!((group.min_size(), group.max_size(), group.desired_capacity()), (Some(0), Some(4), Some(2)));
    let mut zones = group.availability_zones().to_vec();
    zones.sort();
    assert_eq!(zones, ["us-east-1a", "us-east-1b"]);
    assert!(group.suspended_processes().is_empty());
    for instance in group.instances() {
        assert!(instance.instance_id().is_some_and(|id| id.starts_with("i-")));
        assert!(zones.iter().any(|zone| Some(zone.as_str()) == instance.availability_zone()));
    }
    assert_eq!(in_service(&group).len(), 2);
}

async fn pages_groups(client: &Client) {
    let first = client.describe_auto_scaling_groups().max_records(1).send().await.expect("first page");
    assert_eq!(first.auto_scaling_groups().len(), 1);
    assert!(first.next_token().is_some());
    let pages = client.describe_auto_scaling_groups().max_records(1).into_paginator().items().send();
    let all: Vec<_> = pages.try_collect().await.expect("all pages");
    let mut names: Vec<_> = all.iter().filter_map(|group| group.auto_scaling_group_name()).collect();
    names.sort_unstable();
    assert_eq!(names, GROUPS);
}

async fn finds_groups_by_tag(client: &Client, name: &str) {
    let filter = Filter::builder().name("tag:pool").values(name).build();
    let output = client.describe_auto_scaling_groups().filters(filter).send().await.expect("filtered");
    let found: Vec<_> =
        output.auto_scaling_groups().iter().map(|group| group.auto_scaling_group_name()).collect();
    assert_eq!(found, [Some(name)]);
}

async fn describes_instances(client: &Client, name: &str) {
    let id = in_service(&group(client, name).await).remove(0);
    let output = client.describe_auto_scaling_instances().instance_ids(&id).send().await.expect("instance");
    let [instance] = output.auto_scaling_instances() else { panic!("one instance: {output:?}") };
    assert_eq!(instance.auto_scaling_group_name(), Some(name));
    assert_eq!(instance.lifecycle_state(), Some("InService"));
    let gone = client.describe_auto_scaling_instances().instance_ids("i-00000000000000000").send().await;
    assert!(gone.expect("no error for an unknown id").auto_scaling_instances().is_empty());
}

async fn raises_desired_capacity(client: &Client, name: &str) {
    let before = settled(client, name, 2).await;
    let call = client.set_desired_capacity().auto_scaling_group_name(name).desired_capacity(3);
    call.send().await.expect("raise");
    assert_eq!(group(client, name).await.desired_capacity(), Some(3));
    let after = settled(client, name, 3).await;
    assert!(before.iter().all(|id| after.contains(id)));
}

async fn ends_exactly_the_named_instance(client: &Client, name: &str) {
    let before = settled(client, name, 3).await;
    let call = client.terminate_instance_in_auto_scaling_group().instance_id(&before[1]);
    call.should_decrement_desired_capacity(true).send().await.expect("terminate");
    assert_eq!(group(client, name).await.desired_capacity(), Some(2));
    let mut after = settled(client, name, 2).await;
    let mut expected = vec![before[0].clone(), before[2].clone()];
    after.sort();
    expected.sort();
    assert_eq!(after, expected);
}

async fn replaces_an_instance_ended_without_decrement(client: &Client, name: &str) {
    let before = settled(client, name, 2).await;
    let call = client.terminate_instance_in_auto_scaling_group().instance_id(&before[0]);
    call.should_decrement_desired_capacity(false).send().await.expect("terminate");
    assert_eq!(group(client, name).await.desired_capacity(), Some(2));
    for _ in 0..60 {
        let group = group(client, name).await;
        let alive = in_service(&group);
        if alive.len() == 2 && !group.instances().iter().any(|i| i.instance_id() == Some(before[0].as_str()))
        {
            assert!(alive.contains(&before[1]));
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    panic!("{name} never replaced {}", before[0]);
}

async fn refuses_an_unknown_instance(client: &Client) {
    let call = client.terminate_instance_in_auto_scaling_group().instance_id("i-00000000000000000");
    let error = call.should_decrement_desired_capacity(true).send().await.expect_err("unknown instance");
    assert_eq!(error.into_service_error().code(), Some("ValidationError"));
}

async fn refuses_sizes_outside_the_limits(client: &Client, name: &str) {
    let call = client.set_desired_capacity().auto_scaling_group_name(name).desired_capacity(5);
    let error = call.send().await.expect_err("above max").into_service_error();
    assert_eq!(error.code(), Some("ValidationError"));
    assert!(error.message().is_some_and(|text| text.contains("max")), "{error:?}");
    assert_eq!(group(client, name).await.desired_capacity(), Some(2));
}

async fn records_activities(client: &Client, name: &str) {
    let output = client.describe_scaling_activities().auto_scaling_group_name(name).send().await;
    let activities = output.expect("activities").activities.unwrap_or_default();
    assert!(!activities.is_empty());
    assert!(activities.windows(2).all(|pair| pair[0].start_time() >= pair[1].start_time()));
    for activity in &activities {
        assert_eq!(activity.auto_scaling_group_name(), Some(name));
        assert!(activity.activity_id().is_some() && activity.cause().is_some());
        assert!(activity.status_code().is_some() && activity.start_time().is_some());
    }
    let later = Filter::builder().name("StartTimeLowerBound").values("2999-01-01T00:00:00Z").build();
    let call = client.describe_scaling_activities().auto_scaling_group_name(name).filters(later);
    assert!(call.send().await.expect("filtered").activities().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_simulated_cloud_keeps_it() {
    let epoch = "2026-01-05T08:00:00Z".parse().expect("a time");
    let cloud = Cloud::new(CloudClock::simulated(epoch), 1);
    for name in GROUPS {
        let tags = vec![("pool".to_owned(), name.to_owned())];
        cloud.add_group(GroupSpec { max: 4, tags, ..GroupSpec::new(name, Market::Spot) });
    }
    let run = tokio::spawn(cloud.clone().run(Arc::new(NullHost)));
    let client = Client::new(&cloud.sdk_config(None));
    common(&client).await;
    refusals_and_activities(&client).await;
    run.abort();
}
