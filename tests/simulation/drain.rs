//! The drain through the whole product: budgets, refusals, pods that do not go, both clocks, and the undo.

use crate::play::{Play, Stage};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{Gates, POOL};
use spot_guard_cloud::cluster::{self, RequestInfo};
use spot_guard_core::flow::Event;
use spot_guard_core::placement::PodName;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::reason::{Reason, ReasonCode};
use spot_guard_core::record::{BlockingReason, FallbackState, FlowBox, Outcome, Phase};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Both applications of the usual cluster.
const APPS: [&str; 2] = ["web", "api"];
/// The step of a drain that takes too long.
const TIMED_OUT: (FlowBox, Outcome) = (FlowBox::Drain, Outcome::TimedOut);

fn named(name: &str) -> PodName {
    PodName { namespace: "default".to_owned(), name: name.to_owned() }
}

fn pod_name(pod: &Pod) -> PodName {
    named(pod.metadata.name.as_deref().expect("a name"))
}

/// Whether the text has it that this budget allows no disruption, whatever its numbers.
fn names_shut_budget(text: &str, budget: &str) -> bool {
    let shut = |healthy, required| Reason::BudgetShut { budget: named(budget), healthy, required };
    (0..10).any(|healthy| (0..10).any(|required| text.contains(&shut(healthy, required).to_string())))
}

/// A two-minute notice for the first node, and no more is expected than that the story ends.
fn two_minutes(policy: PolicySpec) -> Plot {
    let mut plot = Scenario::TwoMinuteNotice.plot();
    plot.start.policy = policy;
    plot.steps = vec![(FlowBox::Taint, Outcome::Tainted), (FlowBox::CleanUp, Outcome::CleanedUp)];
    plot
}

impl Stage {
    fn node_of_instance(&self, instance: &str) -> String {
        self.cloud.node_of(instance).expect("a node").node_name
    }

    fn pods_of(&self, app: &str, node: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = self.cluster.list();
        pods.retain(|pod| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get("app")).is_some_and(|found| found == app)
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        });
        pods
    }

    fn edit_pod(&self, pod: &Pod, change: impl FnOnce(&mut Value)) {
        let meta = &pod.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        self.cluster.edit("pods", namespace.expect("a namespace"), name.expect("a name"), change);
    }

    /// A pod that nobody makes anew, on this node.
    fn add_bare_pod(&self, name: &str, node: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "default", "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "app:1" }] },
        });
        self.cluster.create_json(pod).expect("a pod");
    }

    fn has_pod(&self, name: &str) -> bool {
        self.cluster.get_json("pods", "default", name).is_some()
    }

    async fn until_pod_is_gone(&self, name: &str) {
        while self.has_pod(name) {
            self.pass(1).await;
        }
    }
}

#[test]
fn a_shut_budget_holds_up_its_own_pods_only() {
    let played = Play::of(Scenario::PdbBlocked)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.node_of_instance(&instance);
            assert!(!stage.pods_of("web", &node).is_empty() && !stage.pods_of("api", &node).is_empty());
            let web = stage.pods_of("web", &node).len();
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::BudgetExhausted).await;
            assert_eq!(stage.pods_of("api", &node).len(), 0);
            assert_eq!(stage.pods_of("web", &node).len(), web);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pod_under_two_budgets_is_reported_as_such_and_goes_when_one_is_taken_away() {
    let played = Play::of(Scenario::Rebalance)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.cluster.add_pdb("also", &[("app", "web")], None, Some(json!(1))).expect("a budget");
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::SeveralBudgets).await;
            let names = |held: &BlockingReason| held.message.contains("also, web");
            assert!(stage.status(&instance).blocking.iter().any(names));
            stage.cluster.edit("poddisruptionbudgets.policy", "default", "also", |budget| {
                budget["spec"]["selector"] = json!({ "matchLabels": { "app": "nobody" } });
            });
        })
        .play();
    played.assert_ok();
}

/// Answers so many evictions with 429 of the API's own rate limit.
struct TooManyRequests(AtomicU32);

impl cluster::RequestGate for TooManyRequests {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        let is_eviction = request.subresource == "eviction";
        let left = |left: u32| if is_eviction { left.checked_sub(1) } else { None };
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
            Ok(_) => cluster::RequestFate::Refuse(429, "TooManyRequests".to_owned()),
            Err(_) => cluster::RequestFate::Pass,
        }
    }
}

#[test]
fn a_rate_limit_is_waited_for_and_is_no_budget() {
    let gate = Arc::new(TooManyRequests(AtomicU32::new(12)));
    let faults = Gates { kube: Some(gate.clone()), ..Gates::default() };
    let played = Play::of(Scenario::Rebalance)
        .faults(faults)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::EvictionFailed).await;
        })
        .play();
    played.assert_ok();
    assert_eq!(gate.0.load(Ordering::Relaxed), 0, "all were met");
    assert!(!played.told.iter().any(|line| line.contains("PodDisruptionBudget")), "{:#?}", played.told);
}

#[test]
fn a_pod_that_comes_meanwhile_goes_too() {
    let played = Play::of(Scenario::PdbBlocked)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.node_of_instance(&instance);
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::BudgetExhausted).await;
            stage.edit_pool(|pool| pool["policy"]["podHoldSeconds"] = json!(0));
            stage.add_bare_pod("late", &node);
            stage.pass(5).await;
            assert!(!stage.has_pod("late"));
        })
        .play();
    played.assert_ok();
}

#[test]
fn finalizers_that_nobody_removes_do_not_hold_the_drain_for_ever() {
    let mut plot = Scenario::Rebalance.plot();
    plot.steps = vec![(FlowBox::Drain, Outcome::TimedOut), (FlowBox::CleanUp, Outcome::CleanedUp)];
    let played = Play::plot("finalizers", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.node_of_instance(&instance);
            let pod = stage.pods_of("web", &node).remove(0);
            stage.edit_pod(&pod, |pod| pod["metadata"]["finalizers"] = json!(["example.com/hangs"]));
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::PodTerminating).await;
            stage.until(&instance, |status| status.old_node.is_past_drain()).await;
            // The pod outlives its node; now somebody cleans up.
            stage.until_phase(&instance, Phase::Terminating).await;
            let mut due = None;
            stage.edit_pod(&pod, |pod| {
                due = pod["metadata"]["deletionTimestamp"].as_str().and_then(|due| due.parse().ok());
                pod["metadata"]["finalizers"] = json!([]);
            });
            let (pod, due) = (pod_name(&pod), due.expect("it is to be gone"));
            let held = Reason::PodOverstayed { pod, due, finalizers: true }.to_string();
            let steps = stage.status(&instance).steps;
            let step = steps.iter().find(|step| (step.flow_box, step.outcome) == TIMED_OUT).expect("a step");
            assert!(step.message.contains(&held), "{} has not {held}", step.message);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pod_that_nobody_makes_anew_is_spared_as_long_as_the_policy_says_and_there_is_no_deadline() {
    let mut plot = two_minutes(PolicySpec { evict_unmanaged: Some(false), ..PolicySpec::default() });
    plot.script =
        vec![(Duration::from_secs(5), Act::Rebalance(0)), (Duration::from_secs(300), Act::Interrupt(0))];
    let played = Play::plot("unmanaged", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.add_bare_pod("bare", &stage.node_of_instance(&instance));
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::PodUnmanaged).await;
            stage.pass(60).await;
            assert!(stage.has_pod("bare"));
            stage.until(&instance, |status| status.deadline.is_some()).await;
            stage.until_pod_is_gone("bare").await;
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained));
}

#[test]
fn the_policy_of_a_pool_says_what_a_return_spares_and_may_be_changed_meanwhile() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            stage.add_bare_pod(
                "bare",
                &status.capacity.taken().cloned().expect("an on-demand node").node_name,
            );
            stage.until_waiting(&instance, FlowBox::Safety, ReasonCode::PodUnmanaged).await;
            stage.pass(120).await;
            assert!(stage.has_pod("bare"));
            stage.cluster.edit("spotpools.spotguard.dev", "", POOL, |pool| {
                pool["spec"]["policy"]["returnUnmanaged"] = json!(true);
            });
            stage.until_pod_is_gone("bare").await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn before_a_deadline_a_budget_that_never_opens_is_passed_when_only_the_grace_period_is_left() {
    let played = Play::plot("deadline", two_minutes(PolicySpec::default()))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.node_of_instance(&instance);
            stage.set_budgets(&APPS, 0);
            let slow = stage.pods_of("web", &node).remove(0);
            stage.edit_pod(&slow, |pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(50));
            stage.until(&instance, |status| status.deadline.is_some()).await;
            let deadline = stage.record(&instance).and_then(|record| record.status?.deadline).expect("one");
            let left = || deadline.duration_since(stage.cloud.now()).as_secs();
            // The instance is ended 10 s ahead of the deadline.
            let mut before = stage.movable(&node);
            while left() > 61 {
                assert_eq!(stage.movable(&node), before, "with {} s left", left());
                stage.pass(1).await;
            }
            before.retain(|name| Some(name) != slow.metadata.name.as_ref());
            while left() > 58 {
                stage.pass(1).await;
            }
            while left() > 41 {
                assert_eq!(
                    stage.movable(&node),
                    before,
                    "only the slow one has gone, with {} s left",
                    left()
                );
                stage.pass(1).await;
            }
            stage.pass(5).await;
            assert_eq!(stage.movable(&node), [""; 0], "with {} s left", left());
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained), "they run elsewhere before the instance is ended");
}

impl Stage {
    /// The names of the pods of a node that a drain has to move and that are not ending.
    fn movable(&self, node: &str) -> Vec<String> {
        let pods = self.cluster.movable_pods_on(node).into_iter();
        pods.filter(|key| {
            let pod: Option<Pod> = self.cluster.get(&key.namespace, &key.name);
            pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
        })
        .map(|key| key.name)
        .collect()
    }
}

#[test]
fn a_pool_that_allows_no_deletion_ends_the_instance_as_it_is_and_says_why() {
    let policy = PolicySpec { delete_at_deadline: Some(false), ..PolicySpec::default() };
    let on_node = Arc::new(Mutex::new(Vec::new()));
    let seen = on_node.clone();
    let played = Play::plot("no deletion", two_minutes(policy))
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.node_of_instance(&instance);
            stage.set_budgets(&["web"], 0);
            let web: Vec<PodName> = stage.pods_of("web", &node).iter().map(pod_name).collect();
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::BudgetExhausted).await;
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::DeletionNotAllowed).await;
            assert_eq!(stage.pods_of("web", &node).len(), web.len());
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = web;
        })
        .play();
    played.assert_ok();
    let told = played.told_of(&played.stage.spot[0], FlowBox::Drain, Outcome::TimedOut);
    assert!(told.starts_with(&Event::DeadlineNear { reasons: Vec::new() }.to_string()), "{told}");
    let web = std::mem::take(&mut *on_node.lock().unwrap_or_else(PoisonError::into_inner));
    let not_deleted = |pod: PodName| told.contains(&Reason::DeletionNotAllowed { pod }.to_string());
    assert!(web.into_iter().any(not_deleted) && names_shut_budget(&told, "web"), "{told}");
}

#[test]
fn a_return_whose_pods_find_no_place_is_given_up_and_they_get_their_node_back() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until(&instance, |status| matches!(*status.fallback, FallbackState::Draining(_))).await;
            stage.set_budgets(&APPS, 10);
            // Somebody closes all other nodes at the same moment.
            let nodes: Vec<String> = stage.cluster.list_json("nodes").iter().map(name_of).collect();
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            let on_demand = status.capacity.taken().cloned().expect("an on-demand node").node_name;
            let others = || nodes.iter().filter(|node| **node != on_demand);
            let cordon = |on: bool| {
                others().for_each(|node| {
                    stage.cluster.edit("nodes", "", node, |node| node["spec"]["unschedulable"] = json!(on));
                });
            };
            cordon(true);
            stage.until_waiting(&instance, FlowBox::ScaleDown, ReasonCode::SuccessorsNotReady).await;
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.pass(5).await;
            assert!(stage.cluster.pending_pods().is_empty(), "{:?}", stage.cluster.pending_pods());
            assert!(!stage.movable(&on_demand).is_empty());
            cordon(false);
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::ScaleDown, Outcome::ReturnGivenUp));
}

/// A fallback, and then on its on-demand node: what `change` makes of one of the pods of `web` blocks the
/// return for this reason until `undo` takes it back.
fn what_holds_a_return(
    reason: ReasonCode,
    change: impl Fn(&Stage, &Pod) + 'static,
    undo: impl Fn(&Stage, &Pod) + 'static,
) {
    let played = Play::of(Scenario::DrySpot)
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
            let node = status.capacity.taken().cloned().expect("an on-demand node").node_name;
            let pod = stage.pods_of("web", &node).remove(0);
            change(&stage, &pod);
            stage.until_waiting(&instance, FlowBox::Safety, reason).await;
            let pods = stage.movable(&node);
            stage.pass(300).await;
            assert_eq!(stage.movable(&node), pods, "nothing is evicted meanwhile");
            undo(&stage, &pod);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pod_that_ignores_cordon_and_taint_keeps_its_node_from_being_returned() {
    let tolerate = |stage: &Stage, pod: &Pod, all: Value| {
        stage.edit_pod(pod, |pod| pod["spec"]["tolerations"] = all);
    };
    what_holds_a_return(
        ReasonCode::ToleratesDrain,
        move |stage, pod| tolerate(stage, pod, json!([{ "operator": "Exists" }])),
        move |stage, pod| tolerate(stage, pod, json!([])),
    );
}

#[test]
fn a_pod_whose_empty_dir_the_pool_spares_keeps_its_node_from_being_returned() {
    let spare = |stage: &Stage, spare: bool| {
        stage.edit_pool(|pool| pool["policy"]["returnEmptyDir"] = json!(!spare));
    };
    what_holds_a_return(
        ReasonCode::PodWithEmptyDir,
        move |stage, pod| {
            stage
                .edit_pod(pod, |pod| pod["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDir": {} }]));
            spare(stage, true);
        },
        move |stage, _| spare(stage, false),
    );
}

#[test]
fn a_budget_that_never_opens_keeps_the_node_from_being_returned() {
    what_holds_a_return(
        ReasonCode::BudgetExhausted,
        |stage, _| stage.set_budgets(&["web"], 0),
        |stage, _| stage.set_budgets(&["web"], 1),
    );
}

fn name_of(object: &Arc<Value>) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_undo_of_a_drain_leaves_what_others_did_to_the_node() {
    type Before = fn(&mut Value);
    let foreign: [(&str, Before); 3] = [
        ("nothing", |_| {}),
        ("taint, label, annotation", |node| {
            node["spec"]["taints"] =
                json!([{ "key": "example.com/tired", "value": "very", "effect": "PreferNoSchedule" }]);
            node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] =
                json!("mine");
            node["metadata"]["labels"]["example.com/team"] = json!("blue");
            node["metadata"]["annotations"] = json!({ "example.com/note": "keep" });
        }),
        ("cordon", |node| node["spec"]["unschedulable"] = json!(true)),
    ];
    for (name, change) in foreign {
        let played = Play::plot(name, Scenario::DrySpot.plot())
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::OnFallback).await;
                let status = stage.record(&instance).and_then(|record| record.status).expect("a record");
                let node = status.capacity.taken().cloned().expect("an on-demand node").node_name;
                stage.cluster.edit("nodes", "", &node, change);
                stage.pass(5).await;
                let before = what_undo_may_not_change(&stage, &node);
                stage.until(&instance, |status| matches!(*status.fallback, FallbackState::Draining(_))).await;
                stage.set_budgets(&APPS, 0);
                stage.until_waiting(&instance, FlowBox::ScaleDown, ReasonCode::BudgetExhausted).await;
                assert_ne!(what_undo_may_not_change(&stage, &node), before, "{name}: it is marked");
                stage.until_phase(&instance, Phase::OnFallback).await;
                stage.pass(5).await;
                assert_eq!(what_undo_may_not_change(&stage, &node), before, "{name}");
                stage.set_budgets(&APPS, 1);
            })
            .play();
        played.assert_ok();
    }
}

fn what_undo_may_not_change(stage: &Stage, node: &str) -> Value {
    let node = stage.cluster.get_json("nodes", "", node).expect("the node");
    let none = |value: &Value| {
        if value.as_object().is_none_or(|map| map.is_empty()) { Value::Null } else { value.clone() }
    };
    json!({
        "labels": node["metadata"]["labels"],
        "annotations": none(&node["metadata"]["annotations"]),
        "unschedulable": node["spec"]["unschedulable"].as_bool().unwrap_or(false),
        "taints": node["spec"]["taints"].as_array().cloned().unwrap_or_default(),
    })
}
