//! Terminations, hooks, boots that fail, and the calls to the node host.

use super::*;
use aws_sdk_autoscaling::error::ProvideErrorMetadata;

async fn terminate(stage: &Stage, id: &str, decrement: bool) -> Result<(), (String, String)> {
    let call = stage.client.terminate_instance_in_auto_scaling_group();
    let call = call.instance_id(id).should_decrement_desired_capacity(decrement);
    let outcome = call.send().await.map_err(|error| error.into_service_error());
    outcome.map(drop).map_err(|error| {
        (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned())
    })
}

#[tokio::test(start_paused = true)]
async fn exactly_the_named_instance_ends() {
    let stage = stage([spot()]);
    let ids = stage.ids("spot");
    terminate(&stage, &ids[1], true).await.unwrap();
    assert_eq!(stage.group("spot").desired, 1);
    assert_eq!(stage.count("spot", LifecycleState::Terminating), 1);
    seconds(30).await;
    assert_eq!(stage.ids("spot"), [ids[0].clone()]);
}

#[tokio::test(start_paused = true)]
async fn without_decrement_the_group_replaces_it() {
    let stage = stage([spot()]);
    let ids = stage.ids("spot");
    terminate(&stage, &ids[1], false).await.unwrap();
    seconds(40).await;
    let after = stage.ids("spot");
    assert_eq!((after.len(), stage.group("spot").desired), (2, 2));
    assert!(!after.contains(&ids[1]));
}

#[tokio::test(start_paused = true)]
async fn a_second_termination_does_not_lower_desired_capacity_again() {
    let stage = stage([spot()]);
    let ids = stage.ids("spot");
    terminate(&stage, &ids[1], true).await.unwrap();
    terminate(&stage, &ids[1], true).await.unwrap();
    assert_eq!(stage.group("spot").desired, 1);
}

#[tokio::test(start_paused = true)]
async fn the_minimum_and_unknown_instances_are_refused_in_aws_words() {
    let stage = stage([GroupSpec { min: 2, ..spot() }]);
    let id = stage.ids("spot")[0].clone();
    let (code, message) = terminate(&stage, &id, true).await.unwrap_err();
    assert_eq!(code, "ValidationError");
    assert_eq!(
        message,
        "Currently, desiredSize equals minSize (2). Terminating instance without replacement will violate group's \
         min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size."
    );
    let (code, message) = terminate(&stage, "i-00000000000000000", false).await.unwrap_err();
    assert_eq!(code, "ValidationError");
    assert_eq!(
        message,
        "Instance Id not found - No managed instance found for instance ID: i-00000000000000000"
    );
}

#[tokio::test(start_paused = true)]
async fn a_termination_hook_holds_the_instance_until_it_times_out_or_is_completed() {
    let hook = Some(Duration::from_secs(600));
    let stage = stage([GroupSpec { termination_hook: hook, ..spot() }]);
    let ids = stage.ids("spot");
    let hooks = stage.client.describe_lifecycle_hooks().auto_scaling_group_name("spot").send().await.unwrap();
    assert_eq!(hooks.lifecycle_hooks()[0].heartbeat_timeout(), Some(600));
    terminate(&stage, &ids[0], true).await.unwrap();
    terminate(&stage, &ids[1], true).await.unwrap();
    seconds(500).await;
    assert_eq!(stage.count("spot", LifecycleState::TerminatingWait), 2);
    assert!(stage.group("spot").instances[0].machine_runs);
    let complete = stage.client.complete_lifecycle_action().auto_scaling_group_name("spot");
    let complete = complete.lifecycle_hook_name("spot-termination").instance_id(&ids[0]);
    complete.lifecycle_action_result("CONTINUE").send().await.unwrap();
    seconds(30).await;
    assert_eq!(stage.ids("spot"), [ids[1].clone()]);
    seconds(120).await;
    assert!(stage.ids("spot").is_empty());
}

#[tokio::test(start_paused = true)]
async fn boots_fail_as_scripted() {
    let stage = stage([spot()]);
    let after_joining = [BootFault::NeverReady, BootFault::KeepsTaint, BootFault::StaysCordoned];
    for fault in [BootFault::DiesPending, BootFault::NeverJoins].into_iter().chain(after_joining) {
        stage.cloud.fault_next_boots("spot", 1, fault).unwrap();
    }
    stage.set_desired("spot", 7).await;
    seconds(26).await;
    // The one that died while pending is being replaced.
    assert_eq!(stage.count("spot", LifecycleState::InService), 6);
    let failed = stage.activities("spot").await.into_iter().filter(|activity| {
        activity.status_message().is_some_and(|text| text.starts_with("Instance became unhealthy while"))
    });
    assert_eq!(failed.count(), 1);
    seconds(300).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 7);
    let told = stage.host.told();
    let calls = |what: &str| told.iter().filter(|call| call.starts_with(what)).count();
    assert_eq!((calls("join"), calls("ready")), (6, 5));
}

#[tokio::test(start_paused = true)]
async fn a_hook_holds_a_launched_instance_and_lets_it_on_or_abandons_it() {
    let stage = stage([GroupSpec { desired: 0, ..spot() }]);
    let wait = Duration::from_secs(60);
    stage.cloud.fault_next_boots("spot", 1, BootFault::HookHolds(wait)).unwrap();
    stage.cloud.fault_next_boots("spot", 1, BootFault::HookAbandons(wait)).unwrap();
    stage.set_desired("spot", 2).await;
    seconds(27).await;
    assert_eq!(stage.count("spot", LifecycleState::PendingWait), 2);
    seconds(50).await;
    // The kubelets do not wait for the hook.
    assert_eq!(stage.host.told().iter().filter(|call| call.starts_with("ready")).count(), 2);
    assert_eq!(stage.count("spot", LifecycleState::PendingWait), 2);
    seconds(12).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 1);
    assert_eq!(stage.count("spot", LifecycleState::Terminating), 1);
    let failed = stage
        .activities("spot")
        .await
        .into_iter()
        .filter(|activity| activity.status_message().is_some_and(|text| text.contains("was abandoned")));
    assert_eq!(failed.count(), 1);
    seconds(60).await;
    assert_eq!(stage.count("spot", LifecycleState::InService), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusing_host_is_asked_again_in_order() {
    let stage = stage([GroupSpec { desired: 1, ..spot() }]);
    *stage.host.refusals.lock().unwrap() = 3;
    seconds(10).await;
    let node = stage.group("spot").instances[0].node_name.clone();
    assert_eq!(stage.host.told(), [format!("join {node}"), format!("ready {node}")]);
}

#[tokio::test(start_paused = true)]
async fn nodes_carry_what_kubernetes_expects() {
    let labels = vec![("role".to_owned(), "spot".to_owned())];
    let stage = stage([GroupSpec { node_labels: labels, ..spot() }]);
    let instance = stage.group("spot").instances.remove(0);
    let node = stage.cloud.node_of(&instance.id).unwrap();
    assert_eq!(node.provider_id, format!("aws:///us-east-1a/{}", instance.id));
    assert_eq!(node.node_name, "ip-10-0-0-4.ec2.internal");
    assert_eq!(instance.id.len(), 19);
    let label = |key: &str| node.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    assert_eq!(label("topology.kubernetes.io/zone"), Some("us-east-1a"));
    assert_eq!(label("role"), Some("spot"));
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_story() {
    let stage = stage([spot()]);
    let mut events = stage.cloud.subscribe();
    let id = stage.ids("spot")[0].clone();
    stage.cloud.rebalance(&id).unwrap();
    stage.cloud.interrupt(&id).unwrap();
    seconds(220).await;
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        kinds.push(event.kind);
    }
    use EventKind::*;
    let expected = [
        RebalanceRecommended,
        InterruptionNoticed,
        Taken,
        Terminating,
        Launching,
        Terminated,
        InService,
        NodeJoined,
        NodeReady,
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_hook_has_held_may_be_retained_until_somebody_terminates_it() {
    let hook = Some(Duration::from_secs(60));
    let stage = stage([GroupSpec { termination_hook: hook, retains: true, ..spot() }]);
    let old = stage.ids("spot")[0].clone();
    terminate(&stage, &old, false).await.unwrap();
    seconds(3600).await;
    assert_eq!(stage.count("spot", LifecycleState::TerminatingRetained), 1);
    assert_eq!(stage.count("spot", LifecycleState::InService), 2, "it does not count");
    terminate(&stage, &old, false).await.unwrap();
    seconds(40).await;
    assert_eq!(stage.group("spot").instances.len(), 2);
    assert!(!stage.ids("spot").contains(&old));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_put_aside_does_not_count_until_it_is_back() {
    let stage = stage([spot()]);
    let old = stage.ids("spot")[0].clone();
    assert!(stage.cloud.set_standby(&old, true).unwrap());
    assert!(!stage.cloud.set_standby(&old, true).unwrap(), "once is enough");
    seconds(600).await;
    let listed = stage.client.describe_auto_scaling_instances().instance_ids(&old).send().await.unwrap();
    assert_eq!(listed.auto_scaling_instances()[0].lifecycle_state(), Some("Standby"));
    assert_eq!((stage.group("spot").desired, stage.ids("spot").len()), (1, 2));
    assert!(stage.cloud.set_standby(&old, false).unwrap());
    seconds(60).await;
    assert_eq!((stage.group("spot").desired, stage.count("spot", LifecycleState::InService)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn an_instance_in_service_may_be_shown_in_another_state_and_ends_as_any_other() {
    let stage = stage([spot()]);
    let old = stage.ids("spot")[0].clone();
    stage.cloud.show_state(&old, Some("RootVolumeReplaced")).unwrap();
    let shown = async || {
        let call = stage.client.describe_auto_scaling_instances().instance_ids(&old);
        let listed = call.send().await.unwrap().auto_scaling_instances.unwrap_or_default();
        listed.first().and_then(|held| held.lifecycle_state().map(str::to_owned))
    };
    assert_eq!(shown().await.as_deref(), Some("RootVolumeReplaced"));
    terminate(&stage, &old, true).await.unwrap();
    assert_eq!(shown().await.as_deref(), Some("Terminating"));
}
