//! When Spot Guard acts and when it does not: pools that are not accepted, nodes in other hands, modes, nodes
//! outside every pool, and what it asks of cluster-autoscaler.

use crate::play::{Play, Stage, ends};
use k8s_openapi::api::events::v1::Event;
use serde_json::json;
use spot_guard::crd::{SpotPool, notice_name};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::{GroupSpec, Market, MixedPolicy, Supply};
use spot_guard_core::neighbours::Neighbour;
use spot_guard_core::reason::{Reason, ReasonCode};
use spot_guard_core::record::{FlowBox, GroupKind, NoticeKind, OldNodeState, Outcome, Phase};
use std::time::Duration;

const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// Waits until the story of the first node is blocked for this reason at box 1; then, for ten minutes,
/// nothing may be changed.
async fn nothing_happens_to(stage: &Stage, instance: &str, reason: ReasonCode) {
    stage.until_waiting(instance, FlowBox::Notice, reason).await;
    let (changes, node) = (stage.changes(), stage.node(instance));
    stage.pass(600).await;
    assert_eq!(stage.changes(), changes, "{reason}: a group was changed");
    let now = stage.node(instance);
    for part in ["/spec", "/metadata/labels", "/metadata/annotations"] {
        assert_eq!(now.pointer(part), node.pointer(part), "{reason}: the node was changed");
    }
    let marked = now["spec"]["taints"].as_array().is_some_and(|taints| !taints.is_empty());
    assert!(!marked && now["spec"]["unschedulable"] != true, "{reason}: {}", now["spec"]);
}

/// The reasons of the events about an object, and whether each is a warning.
fn events(stage: &Stage, kind: &str, name: &str) -> Vec<(String, bool)> {
    let all: Vec<Event> = stage.cluster.list();
    let about = |event: &Event| {
        let object = event.regarding.as_ref();
        object.is_some_and(|o| o.kind.as_deref() == Some(kind) && o.name.as_deref() == Some(name))
    };
    let told = |event: Event| (event.reason.unwrap_or_default(), event.type_.as_deref() == Some("Warning"));
    all.into_iter().filter(about).map(told).collect()
}

#[test]
fn a_pool_that_is_not_accepted_is_left_alone_and_acted_on_once_it_is() {
    type Set = fn(&mut GroupSpec, bool);
    let cases: [(ReasonCode, &'static str, Set); 6] = [
        (ReasonCode::CountedInUnits, SPOT, |spec, on| {
            let all_spot = MixedPolicy {
                on_demand_base: 0,
                on_demand_percentage_above_base: 0,
                spot_allocation_strategy: "price-capacity-optimized".to_owned(),
            };
            (spec.mixed, spec.weight) = (on.then_some(all_spot), on.then_some(2));
        }),
        (ReasonCode::CountedInUnits, ON_DEMAND, |spec, on| spec.capacity_type = on.then_some("memory-mib")),
        (ReasonCode::CapacityRebalance, SPOT, |spec, on| spec.capacity_rebalance = on),
        (ReasonCode::OperatorOwned, SPOT, |spec, on| {
            spec.operator = on.then(|| "eks.amazonaws.com".to_owned())
        }),
        (ReasonCode::EksManagedNodeGroup, SPOT, |spec, on| {
            spec.tags = if on { vec![("eks:nodegroup-name".to_owned(), "w".to_owned())] } else { Vec::new() };
        }),
        (ReasonCode::NotAllOnDemand, ON_DEMAND, |spec, on| {
            spec.mixed = on.then(|| MixedPolicy {
                on_demand_base: 0,
                on_demand_percentage_above_base: 50,
                spot_allocation_strategy: "price-capacity-optimized".to_owned(),
            });
        }),
    ];
    for (reason, group, set) in cases {
        let mut plot = Scenario::Rebalance.plot();
        // CapacityRebalance would replace the node by itself: the advice comes before it is turned on.
        plot.script.clear();
        let played = Play::plot(reason.as_str(), plot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.edit_pool(|spec| spec["replacedBy"] = json!("SpotGuard"));
                stage.cloud.edit_group(group, |spec| set(spec, true)).expect("a group");
                stage.pass(45).await;
                let (accepted, found, message) = stage.condition("Accepted").expect("a condition");
                assert_eq!((accepted, found.as_str()), (false, reason.as_str()), "{message}");
                let told = events(&stage, "SpotPool", "workers");
                assert!(told.contains(&(format!("SpotGuard{reason}"), true)), "{told:?}");
                stage.cluster.create_json(notice(&stage, &instance)).expect("a notice");
                nothing_happens_to(&stage, &instance, reason).await;
                stage.cloud.edit_group(group, |spec| set(spec, false)).expect("a group");
            })
            .play();
        played.assert_ok();
    }
}

/// A recommendation as an agent reports it.
fn notice(stage: &Stage, instance: &str) -> serde_json::Value {
    let node = stage.cloud.node_of(instance).expect("a node").node_name;
    json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "InterruptionNotice",
        "metadata": { "name": notice_name(&node.as_str().into(), &instance.into(), NoticeKind::RebalanceRecommendation) },
        "spec": {
            "nodeName": node,
            "instanceId": instance,
            "kind": "RebalanceRecommendation",
            "detectedAt": stage.cloud.now(),
        },
    })
}

#[test]
fn a_node_of_a_pool_that_is_not_accepted_gets_its_drain_on_a_notice_with_a_deadline() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.steps = vec![
        (FlowBox::Notice, Outcome::NoticeReceived),
        (FlowBox::Taint, Outcome::Tainted),
        (FlowBox::Drain, Outcome::Drained),
    ];
    plot.script.clear();
    let played = Play::plot("not accepted, two minutes", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage
                .cloud
                .edit_group(SPOT, |spec| spec.operator = Some("x.amazonaws.com".to_owned()))
                .expect("a group");
            stage.pass(45).await;
            stage.cloud.interrupt(&instance).expect("an instance");
            stage.until_phase(&instance, Phase::Completed).await;
            assert_eq!(stage.changes(), 0, "the group is not ours to change");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_story_that_has_asked_for_capacity_ends_whatever_becomes_of_its_pool() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.edit_pool(|spec| spec["replacedBy"] = json!("SpotGuard"));
            stage.cloud.edit_group(SPOT, |spec| spec.capacity_rebalance = true).expect("a group");
            stage.pass(60).await;
            assert_eq!(stage.condition("Accepted").map(|(accepted, ..)| accepted), Some(false));
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pool_that_is_deleted_during_a_fallback_stays_until_the_fallback_is_given_back() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let (instance, other) = (stage.spot[0].clone(), stage.spot[1].clone());
            stage.until_phase(&instance, Phase::OnFallback).await;
            assert!(stage.cluster.delete("spotpools.spotguard.dev", "", POOL), "accepted");
            stage.pass(5).await;
            assert!(stage.cluster.get::<SpotPool>("", POOL).is_some(), "a fallback is open");
            stage.cluster.create_json(notice(&stage, &other)).expect("a notice");
            stage.pass(120).await;
            assert!(stage.record(&other).is_none(), "nothing begins in a pool that is deleted");
        })
        .play();
    played.assert_ok();
    let stage = played.stage;
    assert!(stage.cluster.get::<SpotPool>("", POOL).is_none(), "nothing is owed any more");
}

#[test]
fn a_group_that_a_pool_names_under_an_open_request_is_not_touched_for_it() {
    const OTHER: &str = "other";
    for launch_instances in [false, true] {
        let mut plot = Scenario::Rebalance.plot();
        plot.start.launch_instances = launch_instances;
        plot.script = vec![(Duration::from_secs(120), Act::Rebalance(0))];
        let played = Play::plot("another group", plot)
            .beside(|stage| async move {
                stage.cloud.add_group(GroupSpec { desired: 3, ..GroupSpec::new(OTHER, Market::Spot) });
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::ScalingUp).await;
                stage.pass(1).await;
                let before = instances_of(&stage, OTHER);
                assert_eq!(before.len(), 3);
                stage.edit_pool(|spec| spec["spotGroup"] = json!(OTHER));
                stage.pass(150).await;
                assert_eq!(instances_of(&stage, OTHER), before, "an instance is ended or launched");
                let pool: SpotPool = stage.cluster.list().remove(0);
                let ledger = pool.status.expect("a status").ledger;
                let [left] = &ledger.left_behind[..] else { panic!("it is not told: {ledger:?}") };
                assert_eq!(left.request.group_name, SPOT);
                assert_eq!(ledger.shares(GroupKind::Spot).count(), 0, "{ledger:?}");
                stage.edit_pool(|spec| spec["spotGroup"] = json!(SPOT));
            })
            .play();
        played.assert_ok();
        let changes = played.calls.iter().filter(|call| call.group.as_deref() == Some(OTHER));
        let changes: Vec<_> = changes.filter(|call| !call.operation.starts_with("Describe")).collect();
        assert!(changes.is_empty(), "{changes:?}");
    }
}

/// The ids of a group's instances.
fn instances_of(stage: &Stage, group: &str) -> Vec<String> {
    let group = stage.cloud.group(group).expect("a group");
    group.instances.into_iter().map(|instance| instance.id).collect()
}

#[test]
fn a_node_in_other_hands_is_left_to_them() {
    let taint = |key: &str| json!([{ "key": key, "effect": "NoSchedule" }]);
    let cases = [
        (Neighbour::Karpenter, "/metadata/labels/karpenter.sh~1nodepool", json!("default")),
        (Neighbour::EksManagedNodeGroup, "/metadata/labels/eks.amazonaws.com~1nodegroup", json!("workers")),
        (
            Neighbour::NodeTerminationHandler,
            "/spec/taints",
            taint("aws-node-termination-handler/rebalance-recommendation"),
        ),
        (Neighbour::ClusterAutoscaler, "/spec/taints", taint("ToBeDeletedByClusterAutoscaler")),
    ];
    for (neighbour, pointer, value) in cases {
        let mut plot = Scenario::Rebalance.plot();
        plot.steps.insert(1, (FlowBox::Notice, Outcome::SteppedAside));
        plot.script.clear();
        let played = Play::plot(&neighbour.to_string(), plot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                let name = stage.cloud.node_of(&instance).expect("a node").node_name;
                let set = |value: serde_json::Value| {
                    stage.cluster.edit("nodes", "", &name, |node| put(node, pointer, value));
                };
                set(value);
                stage.pass(2).await;
                stage.cluster.create_json(notice(&stage, &instance)).expect("a notice");
                let left = Reason::LeftToNeighbour(neighbour).to_string();
                stage
                    .until(&instance, |status| status.blocking.iter().any(|held| held.message == left))
                    .await;
                assert_eq!(stage.held_by(&instance), [ReasonCode::LeftToNeighbour]);
                stage.pass(300).await;
                assert_eq!(stage.changes(), 0, "{neighbour}");
                assert!(stage.node(&instance)["spec"]["unschedulable"] != true, "{neighbour}");
                let told = events(&stage, "Node", &name);
                assert!(told.iter().any(|(reason, _)| reason == "SpotGuardSteppedAside"), "{told:?}");
                // Given back: the story goes on.
                set(serde_json::Value::Null);
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn before_a_deadline_a_node_is_drained_whoever_has_marked_it() {
    for key in ["ToBeDeletedByClusterAutoscaler", "aws-node-termination-handler/spot-itn"] {
        let mut plot = ends(Scenario::TwoMinuteNotice);
        plot.script = vec![(Duration::from_secs(30), Act::Interrupt(0))];
        let played = Play::plot(key, plot)
            .beside(move |stage| async move {
                let name = stage.cloud.node_of(&stage.spot[0]).expect("a node").node_name;
                // Two hours old, as cluster-autoscaler writes it.
                let taint = json!({ "key": key, "value": "1767229200", "effect": "NoSchedule" });
                stage.cluster.edit("nodes", "", &name, |node| put(node, "/spec/taints", json!([taint])));
            })
            .play();
        played.assert_ok();
        assert!(played.has(FlowBox::Drain, Outcome::Drained), "{key}");
    }
}

/// Sets a value in an object, whose last parts need not be there yet; null takes it away.
fn put(object: &mut serde_json::Value, pointer: &str, value: serde_json::Value) {
    let mut parts = pointer.trim_start_matches('/').split('/').map(|part| part.replace("~1", "/")).peekable();
    let mut place = object;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() && value.is_null() {
            place.as_object_mut().map(|map| map.remove(&part));
            return;
        }
        place = &mut place[part];
    }
    *place = value;
}

#[test]
fn observe_says_what_it_would_do_and_changes_nothing() {
    let mut plot = Scenario::Rebalance.plot();
    plot.steps.insert(1, (FlowBox::Notice, Outcome::Observed));
    plot.script = vec![(Duration::from_secs(30), Act::Rebalance(0))];
    let played = Play::plot("observe", plot)
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["mode"] = json!("Observe"));
            let instance = stage.spot[0].clone();
            nothing_happens_to(&stage, &instance, ReasonCode::ObserveOnly).await;
            assert_eq!(stage.changes(), 0);
            let node = stage.cloud.node_of(&instance).expect("a node").node_name;
            let told = events(&stage, "Node", &node);
            assert!(told.iter().any(|(reason, _)| reason == "SpotGuardObserved"), "{told:?}");
            stage.edit_pool(|spec| spec["mode"] = json!("Act"));
        })
        .play();
    played.assert_ok();
}

#[test]
fn drain_only_drains_and_changes_no_group() {
    let mut plot = ends(Scenario::Rebalance);
    plot.steps = vec![(FlowBox::Taint, Outcome::Tainted), (FlowBox::Drain, Outcome::Drained)];
    plot.script = vec![(Duration::from_secs(30), Act::Rebalance(0))];
    let played = Play::plot("drain only", plot)
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["mode"] = json!("DrainOnly"));
            let instance = stage.spot[0].clone();
            stage.until(&instance, |status| status.steps.iter().any(|s| s.outcome == Outcome::Drained)).await;
            stage.pass(60).await;
            assert_eq!(stage.changes(), 0);
            stage.cloud.take_now(&instance).expect("an instance");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pool_that_ignores_advice_waits_for_the_notice_with_a_deadline() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.steps.insert(0, (FlowBox::Notice, Outcome::Escalated));
    plot.script = vec![(Duration::from_secs(30), Act::Rebalance(0))];
    let played = Play::plot("ignore", plot)
        .beside(|stage| async move {
            stage.edit_pool(|spec| spec["rebalance"] = json!("Ignore"));
            let instance = stage.spot[0].clone();
            nothing_happens_to(&stage, &instance, ReasonCode::RebalanceIgnored).await;
            stage.cloud.interrupt(&instance).expect("an instance");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_spot_node_outside_every_pool_is_drained_on_a_notice_with_a_deadline() {
    let mut plot = Plot { replacements: 2, ..ends(Scenario::Rebalance) };
    plot.start.drain_outside_pools = true;
    let played = Play::plot("elsewhere", plot)
        .beside(|stage| async move {
            let spec = GroupSpec { desired: 1, ..GroupSpec::new("elsewhere", Market::Spot) };
            stage.cloud.add_group(spec);
            let group = stage.cloud.group("elsewhere").expect("the group");
            let instance = group.instances[0].id.clone();
            stage.pass(60).await;
            stage.cluster.create_json(notice(&stage, &instance)).expect("a notice");
            stage.until_waiting(&instance, FlowBox::Notice, ReasonCode::NotInPool).await;
            stage.cloud.interrupt(&instance).expect("an instance");
            stage.until(&instance, |status| status.steps.iter().any(|s| s.outcome == Outcome::Drained)).await;
            stage.until_phase(&instance, Phase::Completed).await;
        })
        .play();
    played.assert_ok();
    assert!(played.calls.iter().all(|call| call.group.as_deref() != Some("elsewhere")));
}

/// Nobody has allowed more for it than evictions, and budgets hold those back.
#[test]
fn a_node_outside_every_pool_keeps_the_pods_that_its_budgets_hold() {
    let mut plot = Plot { replacements: 2, ..ends(Scenario::Rebalance) };
    plot.start.drain_outside_pools = true;
    let played = Play::plot("elsewhere-held", plot)
        .beside(|stage| async move {
            let spec = GroupSpec { desired: 1, ..GroupSpec::new("elsewhere", Market::Spot) };
            stage.cloud.add_group(spec);
            let instance = stage.cloud.group("elsewhere").expect("the group").instances[0].id.clone();
            stage.pass(60).await;
            stage
                .cluster
                .edit("deployments.apps", "default", "web", |web| web["spec"]["replicas"] = json!(16));
            stage.pass(120).await;
            let node = stage.cloud.node_of(&instance).expect("a node").node_name;
            let pods = |stage: &Stage| {
                let all = stage.cluster.list_json("pods");
                all.iter().filter(|pod| pod["spec"]["nodeName"] == json!(node)).count()
            };
            let before = pods(&stage);
            assert!(before > 0, "no pod runs there");
            stage.set_budgets(&["web", "api"], 0);
            stage.pass(5).await;
            stage.cloud.interrupt(&instance).expect("an instance");
            stage.until(&instance, |status| matches!(*status.old_node, OldNodeState::Draining(_))).await;
            stage.pass(100).await;
            assert_eq!(pods(&stage), before, "AWS takes it in 20 s, and nothing was taken from it");
            stage.set_budgets(&["web", "api"], 1);
            stage.until_phase(&instance, Phase::Completed).await;
        })
        .play();
    played.assert_ok();
    assert!(!played.writes.iter().any(|write| write.starts_with("delete pods/")), "{:?}", played.writes);
}

#[test]
fn cluster_autoscaler_is_kept_off_the_nodes_of_a_story_until_it_is_over() {
    let annotation = |node: &serde_json::Value| node["metadata"]["annotations"][SCALE_DOWN_DISABLED].clone();
    let mut plot = Scenario::DrySpot.plot();
    // The story of the world goes on for a while after the replacement's.
    plot.script.push((Duration::from_secs(1800), Act::SpotHas(Supply::Unlimited)));
    let played = Play::plot("protected", plot)
        .beside(move |stage| async move {
            let [instance, other, ..] = &stage.spot[..] else { panic!("few nodes") };
            // Somebody else's annotation on a node that no story is about.
            let name = stage.cloud.node_of(other).expect("a node").node_name;
            stage.cluster.edit("nodes", "", &name, |node| {
                node["metadata"]["annotations"][SCALE_DOWN_DISABLED] = json!("true");
            });
            stage.until_phase(instance, Phase::FallingBack).await;
            stage.pass(5).await;
            assert_eq!(annotation(&stage.node(instance)), json!("true"), "the old node");
            stage.until(instance, |status| status.fallback.successor().is_some()).await;
            stage.pass(5).await;
            let status = stage.record(instance).and_then(|record| record.status).expect("a record");
            let stands = [status.capacity.taken().cloned(), status.fallback.successor().cloned()];
            for capacity in stands.into_iter().flatten() {
                let node = stage.node(&capacity.instance_id);
                assert_eq!(annotation(&node), json!("true"), "{}", capacity.node_name);
            }
            stage.until_phase(instance, Phase::Completed).await;
            stage.pass(10).await;
            for node in stage.cluster.list_json("nodes") {
                let kept = node["metadata"]["name"] == json!(name);
                assert_eq!(annotation(&node) == json!("true"), kept, "{}", node["metadata"]);
            }
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_instance_that_a_person_has_put_aside_is_left_alone_and_replaced_once_it_is_back() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            assert!(stage.cloud.set_standby(&instance, true).expect("an instance"));
            nothing_happens_to(&stage, &instance, ReasonCode::InStandby).await;
            assert!(stage.cloud.set_standby(&instance, false).expect("an instance"));
        })
        .play();
    played.assert_ok();
}
