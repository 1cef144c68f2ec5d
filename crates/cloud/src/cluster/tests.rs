//! The cluster as its clients and its controllers see it, on paused time.

use super::{ChangeKind, Cluster, Deployment, Identity, NodeSpec, RequestFate, RequestGate, RequestInfo};
use crate::clock::CloudClock;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A cluster whose controllers run.
fn cluster() -> Cluster {
    let cluster = Cluster::new(CloudClock::simulated(Timestamp::UNIX_EPOCH), 7);
    tokio::spawn(cluster.clone().run());
    cluster
}

fn add_nodes(cluster: &Cluster, count: usize) {
    for index in 0..count {
        let zone = ["eu-west-1a", "eu-west-1b", "eu-west-1c"][index % 3];
        let name = format!("node-{index}");
        cluster.add_node(&NodeSpec::new(&name, &format!("aws:///{zone}/i-{index}"), zone));
    }
}

fn deploy(cluster: &Cluster, name: &str, replicas: i64) {
    cluster.add_deployment(name, replicas, 500, 1 << 30, Deployment::default()).expect("a deployment");
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn ready_pods(cluster: &Cluster, app: &str) -> Vec<Pod> {
    let ready = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
                conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
    };
    let of_app =
        |pod: &Pod| pod.metadata.labels.as_ref().and_then(|l| l.get("app")).is_some_and(|a| a == app);
    cluster.list::<Pod>().into_iter().filter(|pod| of_app(pod) && ready(pod)).collect()
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_runs_and_recovers_from_an_eviction() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    deploy(&cluster, "web", 3);
    pass(5).await;
    let before = ready_pods(&cluster, "web");
    assert_eq!(before.len(), 3);

    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let victim = name_of(&before[0]);
    let status = pods.evict(&victim, &EvictParams::default()).await.expect("evicted");
    assert!(status.is_success());
    let marked = pods.get(&victim).await.expect("terminating");
    assert!(marked.metadata.deletion_timestamp.is_some());
    let conditions = marked.status.and_then(|status| status.conditions).unwrap_or_default();
    assert!(
        conditions
            .iter()
            .any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("EvictionByEvictionAPI"))
    );

    pass(10).await;
    let after = ready_pods(&cluster, "web");
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|pod| name_of(pod) != victim));
    assert!(cluster.pdb_violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_scheduler_respects_taints_cordons_room_and_anti_affinity() {
    let cluster = cluster();
    add_nodes(&cluster, 3);
    let nodes: Api<Node> = Api::all(cluster.client());
    let taint = json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } });
    nodes.patch("node-0", &PatchParams::default(), &Patch::Merge(&taint)).await.expect("tainted");
    nodes.cordon("node-1").await.expect("cordoned");
    deploy(&cluster, "web", 4);
    pass(5).await;
    assert!(ready_pods(&cluster, "web").iter().all(|pod| node_of(pod) == "node-2"));

    // 4 pods of 500m run on node-2: one of 3 cpus does not fit any more.
    cluster.add_deployment("big", 1, 3000, 1 << 30, Deployment::default()).expect("a deployment");
    pass(5).await;
    let pending = cluster.pending_pods();
    assert_eq!(pending.len(), 1);
    let waiting: Pod = cluster.get(&pending[0].namespace, &pending[0].name).expect("the pod");
    let conditions = waiting.status.and_then(|status| status.conditions).unwrap_or_default();
    let unschedulable = conditions.iter().find(|c| c.type_ == "PodScheduled").expect("a condition");
    assert_eq!(unschedulable.reason.as_deref(), Some("Unschedulable"));
    assert_eq!(
        unschedulable.message.as_deref(),
        Some(
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable."
        )
    );
    nodes.uncordon("node-1").await.expect("uncordoned");
    pass(5).await;
    assert_eq!(node_of(&ready_pods(&cluster, "big")[0]), "node-1");

    let apart = json!({ "affinity": { "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": { "matchLabels": { "app": "apart" } },
            "topologyKey": "kubernetes.io/hostname" }] } } });
    let options = Deployment { pod_spec: Some(apart), ..Deployment::default() };
    cluster.add_deployment("apart", 3, 100, 1 << 20, options).expect("a deployment");
    pass(5).await;
    assert_eq!(ready_pods(&cluster, "apart").len(), 2);
    assert_eq!(cluster.pending_pods().len(), 1);
}

/// Polls nothing: waits for the budget's status to follow the pods.
async fn budget_allows(cluster: &Cluster, allowed: i32) {
    pass(1).await;
    let budget: PodDisruptionBudget = cluster.get("default", "web").expect("the budget");
    assert_eq!(budget.status.and_then(|status| status.disruptions_allowed), Some(allowed));
}

#[tokio::test(start_paused = true)]
async fn evictions_are_answered_as_the_budget_says() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    deploy(&cluster, "web", 3);
    cluster.add_pdb("web", &[("app", "web")], Some(json!(2)), None).expect("a budget");
    pass(5).await;
    budget_allows(&cluster, 1).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let running = ready_pods(&cluster, "web");

    // A dry run finds room and spends nothing.
    let dry = EvictParams {
        post_options: PostParams { dry_run: true, ..PostParams::default() },
        ..EvictParams::default()
    };
    pods.evict(&name_of(&running[0]), &dry).await.expect("room");
    budget_allows(&cluster, 1).await;

    pods.evict(&name_of(&running[0]), &EvictParams::default()).await.expect("evicted");
    let budget: PodDisruptionBudget = cluster.get("default", "web").expect("the budget");
    let status = budget.status.expect("a status");
    assert_eq!(status.disruptions_allowed, Some(0));
    assert!(status.disrupted_pods.expect("bookkeeping").contains_key(&name_of(&running[0])));

    let refused = pods.evict(&name_of(&running[1]), &EvictParams::default()).await.expect_err("no room");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    let details = status.details.expect("details");
    assert_eq!(details.retry_after_seconds, 0);
    assert_eq!(details.causes[0].reason, "DisruptionBudget");
    let told = "The disruption budget web does not allow evicting pods currently";
    assert_eq!(details.causes[0].message, told);

    pass(10).await;
    budget_allows(&cluster, 1).await;

    // Twice in the same moment: the second one finds no room, although its pod runs.
    assert!(cluster.pdb_violations().is_empty());
    let running = ready_pods(&cluster, "web");
    pods.evict(&name_of(&running[0]), &EvictParams::default()).await.expect("evicted");
    pods.delete(&name_of(&running[1]), &DeleteParams::default()).await.expect("deleted");
    let violations = cluster.pdb_violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].by, violations[0].healthy, violations[0].desired), ("delete", 1, 2));
}

#[tokio::test(start_paused = true)]
async fn unobserved_and_ambiguous_budgets_refuse_and_unready_pods_follow_their_policy() {
    // Controllers that do not run have not observed anything.
    let cluster = Cluster::new(CloudClock::simulated(Timestamp::UNIX_EPOCH), 7);
    let pod = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
            "spec": { "nodeName": "node-0", "containers": [{ "name": "main" }] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } })
    };
    cluster.create_json(pod("a")).expect("a pod");
    cluster.add_pdb("web", &[("app", "web")], None, Some(json!("50%"))).expect("a budget");
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let refused = pods.evict("a", &EvictParams::default()).await.expect_err("not observed");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 429);
    assert_eq!(status.details.expect("details").retry_after_seconds, 10);

    // Pending pods are nobody's business.
    let mut pending = pod("pending");
    pending["status"] = json!({ "phase": "Pending" });
    cluster.create_json(pending).expect("a pod");
    pods.evict("pending", &EvictParams::default()).await.expect("evicted");

    // Unready pods of a broken application stay, unless the policy lets them go.
    let status = json!({ "observedGeneration": 1, "currentHealthy": 0, "desiredHealthy": 1,
        "expectedPods": 1, "disruptionsAllowed": 0 });
    cluster.edit("poddisruptionbudgets.policy", "default", "web", |budget| budget["status"] = status);
    cluster.set_pod_ready("default", "a", false);
    let refused = pods.evict("a", &EvictParams::default()).await.expect_err("no budget");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 429));
    cluster.edit("poddisruptionbudgets.policy", "default", "web", |budget| {
        budget["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
    });
    pods.evict("a", &EvictParams::default()).await.expect("evicted");

    // Two budgets over one pod.
    cluster.create_json(pod("b")).expect("a pod");
    cluster.add_pdb("again", &[("app", "web")], None, Some(json!(1))).expect("a budget");
    let refused = pods.evict("b", &EvictParams::default()).await.expect_err("ambiguous");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 500));
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_node_are_collected_and_replaced() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    deploy(&cluster, "web", 4);
    cluster.add_pdb("web", &[("app", "web")], Some(json!("100%")), None).expect("a budget");
    pass(5).await;
    assert_eq!(cluster.pods_on("node-0").len(), 2);
    assert!(cluster.delete_node("node-0"));
    pass(60).await;
    assert_eq!(ready_pods(&cluster, "web").len(), 4);
    assert_eq!(cluster.pods_on("node-1").len(), 4);
    assert!(cluster.pods_on("node-0").is_empty());
    // Node loss is nobody's fault.
    assert!(cluster.pdb_violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_heard_of_loses_its_pods_after_five_minutes() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    deploy(&cluster, "web", 2);
    pass(5).await;
    cluster.set_node_ready("node-0", false);
    pass(5).await;
    assert_eq!(ready_pods(&cluster, "web").len(), 1);
    let node: Node = cluster.get("", "node-0").expect("the node");
    assert_eq!(node.spec.and_then(|spec| spec.taints).map_or(0, |taints| taints.len()), 2);
    cluster.set_node_ready("node-0", true);
    pass(5).await;
    assert_eq!(ready_pods(&cluster, "web").len(), 2);

    cluster.set_node_ready("node-0", false);
    pass(310).await;
    assert_eq!(ready_pods(&cluster, "web").iter().filter(|pod| node_of(pod) == "node-1").count(), 2);
    // Its kubelet cannot finish what it has not heard of.
    assert_eq!(cluster.pods_on("node-0").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn daemon_pods_follow_nodes() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    cluster
        .create_json(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": { "name": "agent", "namespace": "kube-system" },
            "spec": { "selector": { "matchLabels": { "app": "agent" } },
                "template": { "metadata": { "labels": { "app": "agent" } },
                    "spec": { "containers": [{ "name": "main", "image": "agent:1" }] } } },
        }))
        .expect("a daemon set");
    pass(5).await;
    add_nodes(&cluster, 3);
    pass(5).await;
    assert_eq!(ready_pods(&cluster, "agent").len(), 3);
    assert_eq!(cluster.pods_on("node-2").len(), 1);
    assert!(cluster.movable_pods_on("node-2").is_empty());
    let set: DaemonSet = cluster.get("kube-system", "agent").expect("the set");
    assert_eq!(set.status.map(|status| status.number_ready), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_reflector_survives_compaction_restarts_and_a_broken_connection() {
    let cluster = cluster();
    add_nodes(&cluster, 2);
    for streaming in [false, true] {
        let (reader, writer) = reflector::store();
        let config = if streaming {
            watcher::Config::default().streaming_lists()
        } else {
            watcher::Config::default().page_size(1)
        };
        let nodes: Api<Node> = Api::all(cluster.client());
        let stream = reflector(writer, watcher(nodes, config)).default_backoff();
        let task = tokio::spawn(stream.for_each(|_| futures::future::ready(())));
        reader.wait_until_ready().await.expect("a first list");
        assert_eq!(reader.len(), 2);

        add_nodes(&cluster, 3);
        pass(1).await;
        assert_eq!(reader.len(), 3);
        cluster.close_watches();
        cluster.delete_node("node-2");
        pass(60).await;
        assert_eq!(reader.len(), 2);
        cluster.compact();
        add_nodes(&cluster, 4);
        pass(60).await;
        assert_eq!(reader.len(), 4);
        // Longer than one watch lasts.
        pass(1000).await;
        cluster.delete_node("node-2");
        cluster.delete_node("node-3");
        pass(1).await;
        assert_eq!(reader.len(), 2);
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_what_its_selector_covers() {
    let cluster = Cluster::new(CloudClock::simulated(Timestamp::UNIX_EPOCH), 7);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let config = watcher::Config::default().labels("colour in (red,blue),!hidden");
    let mut events = Box::pin(watcher(maps.clone(), config).applied_objects());
    let map = |name: &str, colour: &str| {
        serde_json::from_value::<ConfigMap>(
            json!({ "metadata": { "name": name, "labels": { "colour": colour } } }),
        )
        .expect("a map")
    };
    maps.create(&PostParams::default(), &map("a", "green")).await.expect("created");
    maps.create(&PostParams::default(), &map("b", "red")).await.expect("created");
    let first = events.try_next().await.expect("no error").expect("an event");
    assert_eq!(first.metadata.name.as_deref(), Some("b"));
    let blue = json!({ "metadata": { "labels": { "colour": "blue" } } });
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&blue)).await.expect("patched");
    let second = events.try_next().await.expect("no error").expect("an event");
    assert_eq!(second.metadata.name.as_deref(), Some("a"));
    let found = maps.list(&ListParams::default().labels("colour=blue").fields("metadata.name=a")).await;
    assert_eq!(found.expect("a list").items.len(), 1);
    let refused = maps.list(&ListParams::default().fields("data.x=y")).await.expect_err("no such field");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 400));
}

/// Lets everything through until it is cut; then effects happen and answers do not arrive.
#[derive(Default)]
struct CutAfter(AtomicBool);

impl RequestGate for CutAfter {
    fn after(&self, _request: &RequestInfo, _status: u16) -> RequestFate {
        if self.0.load(Ordering::Relaxed) { RequestFate::Drop } else { RequestFate::Pass }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_loses_answers_but_not_effects_and_breaks_watches() {
    let cluster = cluster();
    add_nodes(&cluster, 1);
    let gate = Arc::new(CutAfter::default());
    let nodes: Api<Node> = Api::all(cluster.client_with(gate.clone()));
    let mut events = Box::pin(watcher(nodes.clone(), watcher::Config::default()));
    for _ in 0..3 {
        events.try_next().await.expect("the first list");
    }
    // The watch itself opens when the stream is asked for more.
    let waiting = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(waiting.is_err());
    gate.0.store(true, Ordering::Relaxed);
    nodes.cordon("node-0").await.expect_err("no answer");
    let node: Node = cluster.get("", "node-0").expect("the node");
    assert_eq!(node.spec.and_then(|spec| spec.unschedulable), Some(true));
    assert!(events.next().await.expect("an item").is_err());
    gate.0.store(false, Ordering::Relaxed);
    let resumed = events.try_next().await.expect("resumed").expect("an event");
    assert!(matches!(resumed, watcher::Event::Apply(_)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_day_costs_next_to_nothing() {
    let cluster = cluster();
    add_nodes(&cluster, 10);
    deploy(&cluster, "web", 20);
    let (reader, writer) = reflector::store();
    let pods: Api<Pod> = Api::all(cluster.client());
    let stream = reflector(writer, watcher(pods, watcher::Config::default())).default_backoff();
    tokio::spawn(stream.for_each(|_| futures::future::ready(())));
    pass(5).await;
    let start = std::time::Instant::now();
    pass(24 * 3600).await;
    assert_eq!(reader.len(), 20);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let history = || async {
        let cluster = cluster();
        let mut changes = cluster.subscribe_changes();
        add_nodes(&cluster, 3);
        deploy(&cluster, "web", 5);
        pass(5).await;
        cluster.delete_node("node-1");
        pass(100).await;
        let mut lines = Vec::new();
        while let Ok(change) = changes.try_recv() {
            lines.push(format!("{:?} {} {:?} {}", change.at, change.resource, change.kind, change.object));
            assert_eq!(change.before.is_none(), change.kind == ChangeKind::Added);
        }
        lines
    };
    let (first, second) = (history().await, history().await);
    assert!(!first.is_empty());
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_policy_refuses_requests_and_answers_reviews() {
    use k8s_openapi::api::authentication::v1::TokenReview;
    use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
    let cluster = cluster();
    cluster
        .set_policy(|by, info| by.user == "kubernetes-admin" || info.resource == "selfsubjectaccessreviews");
    let agent = Identity::service_account("spot-guard", "agent").on_node("node-0");
    cluster.add_token("secret", agent.clone());
    let client = cluster.client_as(agent);
    let refused = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.expect_err("forbidden");
    assert!(matches!(refused, kube::Error::Api(status) if status.is_forbidden()));
    let question: SelfSubjectAccessReview = serde_json::from_value(json!({ "metadata": {},
        "spec": { "resourceAttributes": { "verb": "list", "resource": "nodes" } } }))
    .expect("a review");
    let answer = Api::all(client).create(&PostParams::default(), &question).await.expect("an answer");
    assert!(!answer.status.expect("a status").allowed);
    let question: TokenReview =
        serde_json::from_value(json!({ "metadata": {}, "spec": { "token": "secret" } })).expect("a review");
    let answer =
        Api::all(cluster.client()).create(&PostParams::default(), &question).await.expect("an answer");
    let user = answer.status.and_then(|status| status.user).expect("a user");
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:spot-guard:agent"));
    let extra: BTreeMap<String, Vec<String>> = user.extra.expect("extra");
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["node-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_wave_of_evictions_violates_no_budget() {
    let cluster = cluster();
    add_nodes(&cluster, 100);
    for app in 0..10 {
        let name = format!("app-{app}");
        deploy(&cluster, &name, 30);
        cluster.add_pdb(&name, &[("app", &name)], None, Some(json!("10%"))).expect("a budget");
    }
    pass(10).await;
    assert!(cluster.pending_pods().is_empty());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let (mut evicted, mut refused) = (0, 0);
    for pod in cluster.list::<Pod>().iter().step_by(2) {
        match pods.evict(&name_of(pod), &EvictParams::default()).await {
            Ok(_) => evicted += 1,
            Err(kube::Error::Api(status)) if status.code == 429 => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // Three of each application's thirty.
    assert_eq!((evicted, refused), (30, 120));
    pass(10).await;
    assert_eq!(cluster.list::<Pod>().len(), 300);
    assert!(cluster.pdb_violations().is_empty(), "{:?}", cluster.pdb_violations());
}
