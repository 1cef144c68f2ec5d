//! What a drain relies on in a real API server and a real disruption controller, through the whole product:
//! budgets that are shut, pods under two budgets, a finalizer that hangs, the deadline, and the undo.

use crate::helpers::{object, wait_for};
use crate::product::{PATIENCE, spot_guard};
use crate::stories::{Stagecraft, Tale};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::App;
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::placement::PodName;
use spot_guard_core::reason::{Reason, ReasonCode};
use spot_guard_core::record::{BlockingReason, FlowBox, OldNodeState, Outcome, Phase, ReplacementStatus};
use std::time::Duration;

fn app(name: &str, max_unavailable: u32) -> App {
    let max_unavailable = Some(max_unavailable);
    App { name: name.to_owned(), replicas: 2, cpu_millis: 100, memory_mib: 64, max_unavailable }
}

/// One Spot node that runs everything; the budget of `web` is shut.
fn tale() -> Tale {
    let mut tale = Tale::new(Scenario::Rebalance, Vec::new());
    tale.plot.start.spot_nodes = 1;
    tale.plot.start.on_demand_nodes = 0;
    tale.plot.start.apps = vec![app("web", 0), app("api", 1)];
    // A pod that nobody makes anew would hold the drain by itself.
    tale.plot.start.policy.pod_hold_seconds = Some(0);
    tale
}

impl Stagecraft {
    async fn status(&self) -> Option<ReplacementStatus> {
        self.story.records().await.into_iter().next()?.status
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&ReplacementStatus) -> bool) -> ReplacementStatus {
        wait_for(what, 2 * PATIENCE, async || {
            self.controller.process.check_alive().expect("the controller runs");
            self.status().await.filter(|status| holds(status))
        })
        .await
    }

    /// Waits until the drain is blocked for this reason, and returns what is told of it.
    async fn until_blocked(&mut self, reason: ReasonCode) -> String {
        let waits = |held: &&BlockingReason| (held.flow_box, held.reason) == (FlowBox::Drain, reason);
        let status =
            self.until(reason.as_str(), |status| status.blocking.iter().any(|held| waits(&held))).await;
        status.blocking.iter().find(waits).expect("a reason").message.clone()
    }

    async fn node(&self) -> Node {
        let nodes: Api<Node> = Api::all(self.testbed.client());
        nodes.get(&self.old_node).await.expect("the node")
    }

    fn budgets(&self) -> Api<PodDisruptionBudget> {
        Api::default_namespaced(self.testbed.client())
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.testbed.client())
    }

    /// The budget of `web` allows so many of its two pods to be unavailable.
    async fn set_web(&self, max_unavailable: u32) {
        let patch = Patch::Merge(json!({ "spec": { "maxUnavailable": max_unavailable } }));
        self.budgets().patch("web", &PatchParams::default(), &patch).await.expect("the budget changes");
    }

    /// What both markets have to give from now on.
    async fn markets_have(&self, capacity: Supply) {
        for act in [Act::SpotHas(capacity), Act::OnDemandHas(capacity)] {
            self.story.act(&act).await.expect("the world can do it");
        }
    }

    /// The replacement is lost, and there is no other: the drain is undone, and the node looks as given.
    async fn loses_its_replacement(&self, then: &Value) {
        self.markets_have(Supply::None).await;
        let status = self.status().await.expect("a record");
        let replacement = status.capacity.taken().cloned().expect("a replacement").instance_id;
        self.story.world.cloud.take_now(&replacement).expect("an instance");
        wait_for("the undo", 2 * PATIENCE, async || (look_of(&self.node().await) == *then).then_some(()))
            .await;
    }

    /// What `spot-guard status` prints of the running controller.
    fn told(&self, arguments: &[&str]) -> String {
        let api = format!("http://{}", self.controller.address);
        let told = spot_guard().args(["status", "--api", &api]).args(arguments).output();
        let told = told.expect("spot-guard runs");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8_lossy(&told.stdout).into_owned()
    }

    /// The pods of an application on the node that is drained.
    async fn pods_of(&self, app: &str) -> Vec<Pod> {
        let on_node = ListParams::default()
            .labels(&format!("app={app}"))
            .fields(&format!("spec.nodeName={}", self.old_node));
        self.pods().list(&on_node).await.expect("the pods").items
    }
}

/// What a drain changes on a node, and what others have there.
fn look_of(node: &Node) -> Value {
    let spec = node.spec.as_ref().expect("a spec");
    let taints: Vec<&str> = spec.taints.iter().flatten().map(|taint| taint.key.as_str()).collect();
    // A node in a story is kept from cluster-autoscaler until the story is over, drained or not.
    let own = |key: &str| key.starts_with("kwok") || key.ends_with("/scale-down-disabled");
    let note = node.metadata.annotations.iter().flatten().filter(|(key, _)| !own(key));
    json!({
        "labels": node.metadata.labels,
        "annotations": note.collect::<std::collections::BTreeMap<_, _>>(),
        "taints": taints,
        "unschedulable": spec.unschedulable.unwrap_or(false),
    })
}

#[actix::test]
async fn budgets_hold_a_drain_an_undo_leaves_what_is_not_ours_and_a_finalizer_does_not_hang_it() {
    let mut stage = Stagecraft::set_up("drain", &tale()).await;
    let patch = Patch::Merge(json!({
        "metadata": {
            "labels": { "node.kubernetes.io/exclude-from-external-load-balancers": "mine", "team": "blue" },
            "annotations": { "example.com/note": "keep" },
        },
        "spec": { "taints": [{ "key": "example.com/tired", "effect": "PreferNoSchedule" }] },
    }));
    let nodes: Api<Node> = Api::all(stage.testbed.client());
    nodes.patch(&stage.old_node, &PatchParams::default(), &patch).await.expect("foreign marks");
    let also = json!({
        "metadata": { "name": "also" },
        "spec": { "maxUnavailable": 2, "selector": { "matchLabels": { "app": "api" } } },
    });
    stage.budgets().create(&PostParams::default(), &object(also)).await.expect("a second budget");
    let held = json!({
        "metadata": { "name": "held", "finalizers": ["example.com/hangs"] },
        "spec": {
            "nodeName": stage.old_node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": "example.invalid/main" }],
        },
    });
    stage.pods().create(&PostParams::default(), &object(held)).await.expect("a pod that will not go");
    let before = look_of(&stage.node().await);

    // A budget that never opens would let nothing begin.
    stage.set_web(1).await;
    stage.imds.announce_rebalance().await;
    stage.until("the request", |status| status.capacity.is_requested()).await;
    stage.set_web(0).await;
    let named = |name: &str| PodName { namespace: "default".to_owned(), name: name.to_owned() };
    let shut = Reason::BudgetShut { budget: named("web"), healthy: 2, required: 2 };
    assert_eq!(stage.until_blocked(shut.code()).await, shut.to_string());
    let told = stage.until_blocked(ReasonCode::SeveralBudgets).await;
    assert!(told.contains("also, api"), "{told}");
    assert_eq!((stage.pods_of("web").await.len(), stage.pods_of("api").await.len()), (2, 2));
    let marked = look_of(&stage.node().await);
    assert_eq!(marked["unschedulable"], true);
    assert_eq!(marked["labels"], before["labels"], "a label that is there already stays as it is");

    // The terminal client agrees with the API of the running controller.
    assert_eq!(stage.told(&[]), "This replica leads. Replacements: 1 open, 1 blocked; fallbacks: 0.\n");

    stage.loses_its_replacement(&before).await;
    // A person cordons the node, and the next replacement is lost as well: that cordon stays.
    let patch = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    nodes.patch(&stage.old_node, &PatchParams::default(), &patch).await.expect("a foreign cordon");
    let cordoned = wait_for("the taint of the cordon", PATIENCE, async || {
        let look = look_of(&stage.node().await);
        let taint = json!("node.kubernetes.io/unschedulable");
        look["taints"].as_array()?.contains(&taint).then_some(look)
    })
    .await;
    stage.markets_have(Supply::Unlimited).await;
    let is_marked = async || (look_of(&stage.node().await) != cordoned).then_some(());
    wait_for("the marks of the next drain", 2 * PATIENCE, is_marked).await;
    stage.loses_its_replacement(&cordoned).await;

    // The next one comes, and the budgets open.
    stage.markets_have(Supply::Unlimited).await;
    stage.until("the drain to go on", |status| status.phase == Phase::Draining).await;
    stage.budgets().delete("also", &DeleteParams::default()).await.expect("one budget less");
    stage.set_web(2).await;
    let status = stage
        .until("the drain to end", |status| {
            matches!(
                *status.old_node,
                OldNodeState::Terminating(_) | OldNodeState::Gone {} | OldNodeState::Retained {}
            )
        })
        .await;
    let end = status.steps.iter().rfind(|step| step.flow_box == FlowBox::Drain).expect("a step");
    assert_eq!(end.outcome, Outcome::TimedOut, "{end:?}");
    assert!(end.message.contains("pod default/held was to be gone"), "{end:?}");
    assert!(end.message.contains("its finalizers hold it"), "{end:?}");
    assert!(!end.message.contains("ready elsewhere"), "all others run elsewhere: {end:?}");
}

#[actix::test]
async fn before_a_deadline_the_pods_of_a_shut_budget_are_deleted_when_only_their_grace_period_is_left() {
    let mut stage = Stagecraft::set_up("deadline", &tale()).await;
    // The instance is ended 10 s ahead, the pods have 30 s of grace: 22 s from now.
    let deadline = Timestamp::now() + 62.seconds();
    stage.imds.announce_interruption(&format!("{deadline:.0}")).await;
    let pods = stage.pods();
    let deletions = async {
        let web = ListParams::default().labels("app=web");
        let names: Vec<Option<String>> = {
            let found = pods.list(&web).await.expect("the pods");
            found.items.into_iter().map(|pod| pod.metadata.name).collect()
        };
        assert_eq!(names.len(), 2);
        wait_for("the old pods to go", PATIENCE, async || {
            let found = pods.list(&web).await.ok()?;
            let gone = found.items.iter().all(|pod| !names.contains(&pod.metadata.name));
            gone.then(Timestamp::now)
        })
        .await
    };
    let gone_at = deletions.await;
    let left = deadline.duration_since(gone_at);
    assert!((30..=40).contains(&left.as_secs()), "deleted {left:#} before the deadline");
    let status = stage
        .until("the drain to end", |status| {
            matches!(
                *status.old_node,
                OldNodeState::Terminating(_) | OldNodeState::Gone {} | OldNodeState::Retained {}
            )
        })
        .await;
    let drained = status.steps.iter().find(|step| step.outcome == Outcome::Drained);
    let drained = drained.unwrap_or_else(|| panic!("they run elsewhere: {:#?}", status.steps));
    assert!(drained.at < deadline - Duration::from_secs(10), "{drained:?}");
    let told =
        status.steps.iter().any(|step| step.outcome == Outcome::Blocked && step.message.contains("web"));
    assert!(told, "the budget held it up before: {:#?}", status.steps);
}

#[actix::test]
async fn an_open_fallback_is_shown_with_the_box_it_waits_at_what_blocks_it_and_since_when() {
    let mut tale = tale();
    tale.plot.start.apps = vec![app("web", 1), app("api", 1)];
    let mut stage = Stagecraft::set_up("status", &tale).await;
    stage.story.act(&Act::SpotHas(Supply::None)).await.expect("the world can do it");
    stage.imds.announce_rebalance().await;
    let waits = |flow_box: FlowBox| {
        move |status: &ReplacementStatus| {
            status.phase == Phase::OnFallback
                && status.blocking.iter().any(|reason| reason.flow_box == flow_box)
        }
    };
    stage.until("the fallback to wait for Spot", waits(FlowBox::Health)).await;
    let table = stage.told(&[]);
    assert!(
        table.starts_with("This replica leads. Replacements: 1 open, 1 blocked; fallbacks: 1.\n"),
        "{table}"
    );

    // Spot comes back when the pods cannot leave: nothing is requested, and the wait for box 9 is the last.
    // What was requested a moment before has failed by then.
    stage.set_web(0).await;
    let status = stage.until("the return to be unsafe", waits(FlowBox::Safety)).await;
    let (on_demand, since) = (status.capacity.taken().cloned().expect("a node"), status.blocking[0].since);
    let passed = async |seconds: i64| {
        let has_passed = || Timestamp::now().duration_since(since).as_secs() >= seconds;
        wait_for("some seconds", PATIENCE, async || has_passed().then_some(())).await;
    };
    passed(15).await;
    stage.story.act(&Act::SpotHas(Supply::Unlimited)).await.expect("the world can do it");
    passed(20).await;
    let table = stage.told(&[]);
    let name = stage.story.records().await.remove(0).metadata.name.expect("a name");
    let row = table.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{table}"));
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let [_, pool, node, _, flow_box, waited, reason] = cells[..] else { panic!("{row}") };
    assert_eq!((pool, node, flow_box), ("workers", on_demand.node_name.as_str(), "9"), "{table}");
    assert!(waited.ends_with('s') && waited != "0s", "{table}");
    assert!(reason.starts_with("PodDisruptionBudget default/web allows no disruption"), "{table}");
    assert!(reason.contains("(2 healthy, 2 required, 2 expected)"), "{table}");

    // The same from the API, to the second.
    let answer = stage.controller.get(&format!("/api/v1/fallbacks/{name}")).await.expect("an answer");
    let shown: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((&shown["box"], &shown["blockedBy"][0]["box"]), (&json!("9"), &json!("9")), "{shown:#}");
    assert_eq!(shown["blockedBy"][0]["since"], json!(since), "{shown:#}");
    assert_eq!(shown["blockedBy"][0]["message"], json!(reason), "{shown:#}");
    assert_eq!(shown["blockedBy"][0]["reason"], "BudgetExhausted", "{shown:#}");

    stage.set_web(1).await;
    stage.until("the return", |status| status.phase == Phase::Completed).await;
    let table = stage.told(&[]);
    assert!(table.ends_with("fallbacks: 0.\n"), "{table}");
}
