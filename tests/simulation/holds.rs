//! What a drain waits for while there is no deadline, through the whole product: pods that ask to stay,
//! connections that end, budgets that never open, and a group at its minimum.

use crate::play::{EPOCH, Play, Played, Stage};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use spot_guard_core::time::since;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A recommendation for the oldest Spot instance, and a notice after so many seconds, if there is one.
fn advice(policy: PolicySpec, notice_at: Option<u32>) -> Plot {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.policy = policy;
    plot.script = vec![(5 * SECOND, Act::Rebalance(0))];
    plot.script.extend(notice_at.map(|at| (SECOND * at, Act::Interrupt(0))));
    plot.steps = vec![(FlowBox::Taint, Outcome::Tainted), (FlowBox::CleanUp, Outcome::CleanedUp)];
    plot.limit = 20_000 * SECOND;
    plot
}

impl Stage {
    fn name_of_node(&self, instance: &str) -> String {
        self.cloud.node_of(instance).expect("a node").node_name
    }

    fn has(&self, pod: &str) -> bool {
        self.cluster.get_json("pods", "default", pod).is_some()
    }

    /// A runner pod: nothing makes it anew.
    fn add_runner(&self, name: &str, node: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "default", "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "runner:1" }] },
        });
        self.cluster.create_json(pod).expect("a pod");
    }

    /// Annotates a pod of an application on the node; its name.
    fn annotate(&self, app: &str, node: &str, key: &str, value: &str) -> String {
        let pods: Vec<Pod> = self.cluster.list();
        let on_node = |pod: &&Pod| {
            let labels = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app"));
            labels.is_some_and(|held| held == app)
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        };
        let name = pods.iter().find(on_node).and_then(|pod| pod.metadata.name.clone()).expect("a pod");
        self.cluster
            .edit("pods", "default", &name, |pod| pod["metadata"]["annotations"] = json!({ key: value }));
        name
    }

    /// What the record says of a reason, once it holds the replacement up there.
    async fn told_why(&self, instance: &str, flow_box: FlowBox, reason: ReasonCode) -> String {
        self.until_waiting(instance, flow_box, reason).await;
        let held = self.status(instance).blocking.into_iter().find(|held| held.reason == reason);
        held.expect("a reason").message
    }

    async fn until_label(&self, node: &str) {
        let has_label = || {
            let node = self.cluster.get_json("nodes", "", node);
            node.is_some_and(|node| node["metadata"]["labels"][EXCLUDED].is_string())
        };
        while !has_label() {
            self.pass_millis(100).await;
        }
    }

    fn serves(&self, instance: &str) -> bool {
        let groups = self.cloud.snapshot().groups;
        let mut all = groups.iter().flat_map(|group| &group.instances);
        all.any(|held| held.id == instance && !held.state.is_ending())
    }

    fn is_free(&self, node: &str) -> bool {
        let node = self.cluster.get_json("nodes", "", node).expect("the node");
        node["spec"]["unschedulable"].as_bool() != Some(true)
            && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
            && node["metadata"]["labels"][EXCLUDED].is_null()
    }

    fn desired(&self, group: &str) -> u32 {
        let groups = self.cloud.snapshot().groups;
        groups.iter().find(|held| held.name == group).expect("a group").desired
    }
}

fn refused_terminations(played: &Played) -> usize {
    played.calls.iter().filter(|call| call.operation == TERMINATE && !call.ok).count()
}

#[test]
fn runners_and_pods_that_ask_to_stay_hold_a_mere_recommendation_and_go_at_a_deadline() {
    let policy = PolicySpec { drain_timeout_seconds: Some(60), ..PolicySpec::default() };
    let played = Play::plot("held", advice(policy, Some(1500)))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.name_of_node(&instance);
            stage.add_runner("runner", &node);
            let safe = "cluster-autoscaler.kubernetes.io/safe-to-evict";
            let web = stage.annotate("web", &node, safe, "false");
            let api = stage.annotate("api", &node, "karpenter.sh/do-not-disrupt", "true");
            let told = stage.told_why(&instance, FlowBox::Drain, ReasonCode::PodUnmanaged).await;
            assert!(told.contains("default/runner") && told.contains("podHoldSeconds"), "{told}");
            let told = stage.told_why(&instance, FlowBox::Drain, ReasonCode::NotSafeToEvict).await;
            assert!(told.contains(&web) && told.contains("until 2026-01-01T04:"), "{told}");
            let told = stage.told_why(&instance, FlowBox::Drain, ReasonCode::DoNotDisrupt).await;
            assert!(told.contains(&api), "{told}");
            stage.pass(1200).await;
            assert!([&web, &api, "runner"].into_iter().all(|pod| stage.has(pod)), "they hold it");
            assert_eq!(stage.cluster.movable_pods_on(&node).len(), 3, "the others have gone");
            stage.until(&instance, |status| status.deadline.is_some()).await;
            stage.pass(10).await;
            assert!(![&web, &api, "runner"].into_iter().any(|pod| stage.has(pod)), "the deadline takes them");
        })
        .play();
    played.assert_ok();
    assert!(!played.has(FlowBox::Drain, Outcome::TimedOut), "nothing is given up meanwhile");
}

#[test]
fn pods_hold_a_mere_recommendation_no_longer_than_the_pool_says() {
    let policy = PolicySpec { pod_hold_seconds: Some(300), ..PolicySpec::default() };
    let played = Play::plot("held for a while", advice(policy, None))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.add_runner("runner", &stage.name_of_node(&instance));
            stage.until_phase(&instance, Phase::Draining).await;
            stage.pass(295).await;
            assert!(stage.has("runner"));
            stage.pass(10).await;
            assert!(!stage.has("runner"));
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained));
}

#[test]
fn pods_that_ask_to_stay_hold_a_return_before_it_begins() {
    for (key, value, reason) in [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false", ReasonCode::NotSafeToEvict),
        ("karpenter.sh/do-not-disrupt", "true", ReasonCode::DoNotDisrupt),
        ("karpenter.sh/do-not-evict", "true", ReasonCode::DoNotDisrupt),
    ] {
        let played = Play::of(Scenario::DrySpot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::OnFallback).await;
                let node = stage.status(&instance).capacity.taken().cloned().expect("a stand-in").node_name;
                let pod = stage.annotate("web", &node, key, value);
                let told = stage.told_why(&instance, FlowBox::Safety, reason).await;
                assert!(told.contains(&pod), "{told}");
                stage.pass(900).await;
                assert!(stage.has(&pod) && stage.is_free(&node));
                let bare = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
                stage.cluster.edit("pods", "default", &pod, bare);
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn a_pod_that_asks_to_stay_for_a_while_holds_a_drain_and_a_return_no_longer() {
    let annotation = "karpenter.sh/do-not-disrupt";
    let played = Play::plot("calm for a while", advice(PolicySpec::default(), None))
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            let pod = stage.annotate("web", &stage.name_of_node(&instance), annotation, "10m");
            let told = stage.told_why(&instance, FlowBox::Drain, ReasonCode::DoNotDisrupt).await;
            // Its pods started when the world began, at 03:00.
            assert!(told.contains(&pod) && told.contains("until 2026-01-01T03:1"), "{told}");
            stage.until_phase(&instance, Phase::Terminating).await;
            let since_start = since(EPOCH.parse().expect("a time"), stage.cloud.now());
            assert!((600..640).contains(&since_start.as_secs()), "{since_start:?}");
        })
        .play();
    played.assert_ok();
    let played = Play::of(Scenario::DrySpot)
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let node = stage.status(&instance).capacity.taken().cloned().expect("a stand-in").node_name;
            stage.annotate("web", &node, annotation, "30m");
            stage.told_why(&instance, FlowBox::Safety, ReasonCode::DoNotDisrupt).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_instance_stays_as_long_as_its_load_balancers_need_without_a_deadline() {
    let policy = PolicySpec { wait_before_termination_seconds: Some(300), ..PolicySpec::default() };
    let played = Play::plot("deregistration", advice(policy, None))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_label(&stage.name_of_node(&instance)).await;
            let told = stage.told_why(&instance, FlowBox::Drain, ReasonCode::ConnectionsEnd).await;
            assert!(told.contains("waitBeforeTerminationSeconds"), "{told}");
            stage.pass(200).await;
            stage.until(&instance, |status| status.old_node.is_past_drain()).await;
            assert!(stage.serves(&instance) || stage.status(&instance).phase == Phase::Terminating);
        })
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_label(&stage.name_of_node(&instance)).await;
            stage.pass(299).await;
            assert!(stage.serves(&instance), "the label is younger than 300 s");
            stage.pass(10).await;
            assert!(!stage.serves(&instance));
        })
        .play();
    played.assert_ok();
    assert!(!played.has(FlowBox::Drain, Outcome::Blocked), "that is no trouble");
}

#[test]
fn an_instance_stays_for_its_load_balancers_as_long_as_the_deadline_allows() {
    let mut plot =
        advice(PolicySpec { wait_before_termination_seconds: Some(300), ..PolicySpec::default() }, None);
    plot.script = vec![(5 * SECOND, Act::Interrupt(0))];
    let played = Play::plot("deregistration in two minutes", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until(&instance, |status| status.deadline.is_some()).await;
            let deadline = stage.status(&instance).deadline.expect("a deadline");
            let left = || deadline.duration_since(stage.cloud.now()).as_secs();
            while left() > 17 {
                assert!(stage.serves(&instance), "it is ended {} s before its deadline", left());
                stage.pass(1).await;
            }
            stage.pass(12).await;
            assert!(!stage.serves(&instance), "and before EC2 takes it");
        })
        .play();
    played.assert_ok();
    assert!(played.has(FlowBox::Drain, Outcome::Drained));
    assert!(!played.has(FlowBox::Drain, Outcome::TimedOut), "it was drained in time");
}

#[test]
fn an_instance_that_goes_back_stays_for_its_load_balancers_too() {
    let mut plot = Scenario::DrySpot.plot();
    plot.start.policy.wait_before_termination_seconds = Some(200);
    plot.limit = 20_000 * SECOND;
    let played = Play::plot("deregistration of a return", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let stand_in = stage.status(&instance).capacity.taken().cloned().expect("a stand-in");
            stage.until_label(&stand_in.node_name).await;
            stage.pass(199).await;
            assert!(stage.serves(&stand_in.instance_id), "the label is younger than 200 s");
            stage.pass(10).await;
            assert!(!stage.serves(&stand_in.instance_id));
        })
        .play();
    played.assert_ok();
    assert!(!played.has(FlowBox::ScaleDown, Outcome::ReturnGivenUp));
}

#[test]
fn a_budget_that_can_never_open_is_told_before_anything_is_requested_and_a_deadline_goes_on() {
    let mut plot = advice(PolicySpec::default(), None);
    plot.script.clear();
    let played = Play::plot("never opens", plot)
        .beside(|stage| async move {
            let lone = stage.cluster.add_deployment("lone", 1, 100, 1 << 20, Default::default());
            lone.expect("a deployment");
            let budget = stage.cluster.add_pdb("lone", &[("app", "lone")], Some(json!(1)), None);
            budget.expect("a budget");
            stage.pass(30).await;
            let on_node = |instance: &&String| {
                let pods = stage.cluster.pods_on(&stage.name_of_node(instance));
                pods.iter().any(|pod| pod.name.starts_with("lone"))
            };
            let instance = stage.spot.iter().find(on_node).expect("its node").clone();
            stage.cloud.rebalance(&instance).expect("an instance");
            let told = stage.told_why(&instance, FlowBox::Notice, ReasonCode::BudgetExhausted).await;
            assert!(told.contains("default/lone"), "{told}");
            stage.pass(3600).await;
            assert_eq!(stage.changes(), 0, "nothing is requested");
            assert!(stage.is_free(&stage.name_of_node(&instance)));
            stage.cloud.interrupt(&instance).expect("an instance");
            stage.until_phase(&instance, Phase::Completed).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_budget_that_stays_shut_gives_a_recommendation_up_once_and_a_deadline_goes_on() {
    let mut plot = advice(PolicySpec::default(), None);
    // A story is over with its script: the last act waits until the notice has had its effect.
    plot.script = vec![
        (5 * SECOND, Act::Rebalance(0)),
        (7200 * SECOND, Act::Interrupt(0)),
        (7500 * SECOND, Act::SetBudget("web", 1)),
    ];
    plot.steps.insert(1, (FlowBox::Drain, Outcome::TimedOut));
    let played = Play::plot("given up", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            let node = stage.name_of_node(&instance);
            let desired = stage.desired(SPOT);
            stage.until_phase(&instance, Phase::ScalingUp).await;
            stage.set_budgets(&["web", "api"], 0);
            stage.until_waiting(&instance, FlowBox::Drain, ReasonCode::BudgetExhausted).await;
            stage.pass(580).await;
            assert!(!stage.is_free(&node), "it has 600 s");
            stage.until_phase(&instance, Phase::Cancelled).await;
            assert!(stage.is_free(&node) && stage.serves(&instance));
            assert_eq!(stage.desired(SPOT), desired, "the new capacity is given back");
            assert!(stage.status(&instance).blocking.is_empty());
            let changes = stage.changes();
            stage.pass(5000).await;
            assert_eq!(stage.changes(), changes, "the same advice begins nothing anew");
            stage.until(&instance, |status| status.deadline.is_some()).await;
            stage.until_phase(&instance, Phase::Completed).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_return_whose_group_is_raised_to_its_minimum_says_so_and_ends_nothing() {
    let played = Play::of(Scenario::DrySpot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::Returning).await;
            let desired = stage.desired(ON_DEMAND);
            stage.cloud.edit_group(ON_DEMAND, |spec| spec.min = desired).expect("a group");
            stage.until_waiting(&instance, FlowBox::Health, ReasonCode::AtMinimum).await;
            let node = stage.status(&instance).capacity.taken().cloned().expect("a stand-in");
            let changes = stage.changes();
            stage.pass(1800).await;
            assert_eq!(stage.changes(), changes, "nothing is tried again and again");
            assert!(stage.serves(&node.instance_id) && stage.is_free(&node.node_name));
            stage.cloud.edit_group(ON_DEMAND, |spec| spec.min = 0).expect("a group");
        })
        .play();
    played.assert_ok();
    assert_eq!(refused_terminations(&played), 0);
}

#[test]
fn a_termination_handler_in_its_default_configuration_is_told_by_the_pool() {
    a_termination_handler_is_told_by_the_pool("aws-node-termination-handler");
}

#[test]
fn a_termination_handler_with_another_name_is_told_by_the_pool() {
    a_termination_handler_is_told_by_the_pool("nth");
}

fn a_termination_handler_is_told_by_the_pool(name: &'static str) {
    let played = Play::of(Scenario::DrySpot)
        .beside(move |stage| async move {
            let labels = json!({ "app.kubernetes.io/name": name });
            let set = json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": { "namespace": "kube-system", "name": "nth", "labels": labels },
                "spec": { "selector": { "matchLabels": labels }, "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "tolerations": [{ "operator": "Exists" }],
                        "containers": [{ "name": "handler", "image": "aws-node-termination-handler:v1.25.0" }],
                    },
                } },
            });
            assert!(stage.condition("Undisturbed").is_none(), "a pool that was never disturbed says nothing");
            stage.cluster.create_json(set).expect("a DaemonSet");
            stage.pass(60).await;
            let (undisturbed, reason, text) = stage.condition("Undisturbed").expect("a condition");
            assert_eq!((undisturbed, reason.as_str()), (false, "TerminationHandlerRuns"), "{text}");
            assert!(text.contains("kube-system/nth"), "{text}");
            stage.cluster.remove("daemonsets.apps", "kube-system", "nth");
            for pod in stage.cluster.list_json("pods") {
                let name = pod["metadata"]["name"].as_str().expect("a name");
                if name.starts_with("nth") {
                    stage.cluster.delete_pod("kube-system", name);
                }
            }
            stage.pass(120).await;
            assert_eq!(stage.condition("Undisturbed").map(|found| found.0), Some(true));
        })
        .play();
    played.assert_ok();
}
