//! The chart in the middle of replacements, by the real Helm: an upgrade, a rollback, and a removal that does
//! not wait. Controller and agent are processes under the accounts that Helm rendered, in a namespace that is
//! not `spot-guard`.

use crate::chart::{
    NAMESPACE, RELEASE, chart, configured, delete_definitions, labelled, on_cluster, root, succeeded,
};
use crate::helpers::{NodeSpec, create_node, wait_for};
use crate::product::{self, CONTROLLER, PATIENCE, kubectl};
use crate::spot_actions::ask;
use crate::stories::{
    Stagecraft, Tale, announce, instances_in_service, spot_stays_dry, stands_at, times_taken,
};
use crate::testbed::Testbed;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;
use spot_guard::crd::{NodeReplacement, OPEN_REQUESTS, SpotPool};
use spot_guard::kube::marks;
use spot_guard::sim::scenario::Act;
use spot_guard::sim::world::{ON_DEMAND, POOL, TAINT};
use spot_guard_cloud::cloud::{EventKind, Served, Supply};
use spot_guard_core::record::{FlowBox, Outcome, Phase, ReplacementStatus};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the release is installed with: a lease that is free again soon, calls that end before that, and
/// controllers on nodes outside of the pool.
const SET: [&str; 4] = [
    "settings.lease.durationSeconds=6",
    "settings.lease.renewSeconds=2",
    "settings.aws.callTimeoutSeconds=3",
    "controller.nodeSelector.role=system",
];
/// What the upgrade sets besides.
const CHANGED: [&str; 2] = ["--set", "settings.drainNodesOutsidePools=true"];
/// An image that a later version of the chart has by default.
const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn operations() -> String {
    fs::read_to_string(root().join("docs/operations.md")).expect("the page").replace("\\\n", " ")
}

/// The flags of the upgrade in docs/operations.md, but for the namespace.
fn upgrade_flags() -> Vec<String> {
    let page = operations();
    let command = page.lines().find_map(|line| line.trim().strip_prefix("helm upgrade spot-guard "));
    let words: Vec<&str> = command.expect("the upgrade").split_whitespace().collect();
    let namespace = words.iter().position(|word| *word == "--namespace").expect("a namespace");
    // The first word is the chart.
    let flags = words.iter().enumerate().skip(1).filter(|(at, _)| ![namespace, namespace + 1].contains(at));
    flags.map(|(_, word)| (*word).to_owned()).collect()
}

/// Upgrades to that chart as the page says.
async fn upgrade(testbed: &Testbed, chart: &Path, more: &[&str]) {
    let flags = upgrade_flags();
    let flags = flags.iter().map(String::as_str);
    let arguments: Vec<&str> =
        ["upgrade", RELEASE, text(chart)].into_iter().chain(flags).chain(more.iter().copied()).collect();
    succeeded(on_cluster(testbed, &arguments).await);
}

/// A later version of the chart: another image by default, and a value that the release does not know.
fn later_chart(folder: &Path) -> PathBuf {
    let later = folder.join("later");
    let copied = Command::new("cp").arg("-rL").arg(chart()).arg(&later).status().expect("cp runs");
    assert!(copied.success());
    let add = |file: &str, before: &str, more: &str| {
        let file = later.join(file);
        let text = fs::read_to_string(&file).expect("a file of the chart");
        assert_eq!(text.matches(before).count(), 1, "{}: {before}", file.display());
        fs::write(&file, text.replace(before, more)).expect("it is written");
    };
    add("values.yaml", "\n  digest: \"\"\n", &format!("\n  digest: {DIGEST}\n"));
    add("values.yaml", "\nimagePullSecrets: []\n", "\nimagePullSecrets: []\nnewcomer:\n  word: there\n");
    let known = "\n    \"imagePullSecrets\": {";
    add("values.schema.json", known, &format!("\n    \"newcomer\": {{\"type\": \"object\"}},{known}"));
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: newcomer\ndata:\n  word: {{ .Values.newcomer.word }}\n";
    fs::write(later.join("templates/newcomer.yaml"), map).expect("it is written");
    later
}

/// A part of an object of the release, as kubectl gives it.
fn part(testbed: &Testbed, object: &str, path: &str) -> String {
    let form = format!("jsonpath={{{path}}}");
    let output = kubectl(testbed, &["get", object, "-n", NAMESPACE, "-o", &form]);
    String::from_utf8(output.stdout).expect("text")
}

#[actix::test]
async fn the_upgrade_of_the_page_brings_what_is_new_and_keeps_what_was_set() {
    let testbed = Testbed::start_without_kubelets("chart-defaults").await;
    kubectl(&testbed, &["create", "namespace", NAMESPACE]);
    let here = chart();
    succeeded(on_cluster(&testbed, &["install", RELEASE, text(&here), "--set", "clusterName=kept"]).await);
    upgrade(&testbed, &later_chart(testbed.dir()), &[]).await;
    for workload in ["deployment/spot-guard-controller", "daemonset/spot-guard-agent"] {
        let image = part(&testbed, workload, ".spec.template.spec.containers[0].image");
        assert_eq!(image, format!("spot-guard@{DIGEST}"), "{workload}");
    }
    assert_eq!(part(&testbed, "configmap/newcomer", ".data.word"), "there");
    assert_eq!(configured(&testbed).cluster_name.as_deref(), Some("kept"));
}

/// Spot is out of capacity; the on-demand instance takes its time, so that an upgrade comes in the middle.
fn tale() -> Tale {
    let mut tale = spot_stays_dry();
    tale.boot.node_join = Duration::from_secs(8);
    tale.limit = Duration::from_secs(300);
    tale
}

/// Installs the chart with Helm, on nodes of its own, and begins a story on it.
async fn set_up(tale: &Tale) -> Stagecraft {
    let testbed = tale.testbed("chart-upgrade").await;
    for (name, zone, id) in
        [("system-a", "us-east-1a", "i-0000000a"), ("system-b", "us-east-1b", "i-0000000b")]
    {
        let provider_id = &format!("aws:///{zone}/{id}");
        let labels = &[("role", "system")];
        create_node(&testbed.client(), &NodeSpec { name, zone, labels, provider_id, ..NodeSpec::default() })
            .await;
    }
    kubectl(&testbed, &["create", "namespace", NAMESPACE]);
    let here = chart();
    let set = SET.iter().flat_map(|value| ["--set", *value]);
    let install = ["install", RELEASE, text(&here), "--wait", "--timeout", "3m"].into_iter();
    succeeded(on_cluster(&testbed, &install.chain(set).collect::<Vec<_>>()).await);
    assert_eq!(configured(&testbed).lease.namespace, NAMESPACE);
    Stagecraft::set_up_installed(testbed, tale).await
}

/// What a rollout does: a controller with the configuration of now, and the one before it ends.
async fn roll_out(controller: &mut product::Service, testbed: &Testbed, name: &str, autoscaling: &Served) {
    let mut next = product::start_controller(testbed, name, &autoscaling.url()).await;
    next.becomes_ready().await;
    std::mem::replace(controller, next).ends_well().await;
    controller.leads().await;
}

fn status(record: &NodeReplacement) -> &ReplacementStatus {
    record.status.as_ref().expect("a status")
}

/// What was in the record is in it: since then it may have gone on.
fn goes_on(before: &NodeReplacement, after: &NodeReplacement) {
    assert_eq!((before.uid(), &before.spec), (after.uid(), &after.spec));
    let (before, after) = (status(before), status(after));
    assert_eq!(before.started_at, after.started_at);
    assert_eq!((before.notice, &before.node_uid), (after.notice, &after.node_uid));
    assert!(after.steps.starts_with(&before.steps), "{before:#?}\n{after:#?}");
    if let Some(taken) = before.capacity.taken() {
        assert_eq!(after.capacity.taken(), Some(taken));
    }
}

#[actix::test]
async fn a_replacement_outlives_an_upgrade_and_a_rollback_and_one_that_is_open_does_not_stop_a_removal() {
    let tale = tale();
    let mut stage = set_up(&tale).await;
    let events = stage.story.world.cloud.subscribe();
    let mut launches = stage.story.world.cloud.subscribe();
    let Stagecraft { controller, imds, story, testbed, autoscaling, bystanders, .. } = &mut stage;
    let changes = async {
        stands_at(story, Phase::FallingBack).await;
        let before = story.records().await.remove(0);
        upgrade(testbed, &chart(), &CHANGED).await;
        let config = configured(testbed);
        assert!(config.drain_nodes_outside_pools, "the change is there");
        assert_eq!(config.lease.duration_seconds, 6, "and what was set before");
        goes_on(&before, &story.records().await.remove(0));
        roll_out(controller, testbed, "upgraded", autoscaling).await;

        stands_at(story, Phase::OnFallback).await;
        let before = story.records().await.remove(0);
        succeeded(on_cluster(testbed, &["rollback", RELEASE]).await);
        assert!(!configured(testbed).drain_nodes_outside_pools, "the change is taken back");
        goes_on(&before, &story.records().await.remove(0));
        roll_out(controller, testbed, "rolled-back", autoscaling).await;
        goes_on(&before, &story.records().await.remove(0));
        story.act(&Act::SpotHas(Supply::Unlimited)).await.expect("the world can do it");
    };
    let report = tokio::select! {
        (report, ()) = async { tokio::join!(tale.play(story), changes) } => report,
        never = announce(imds, events) => match never {},
    };
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    let stood_in = std::iter::from_fn(|| launches.try_recv().ok())
        .filter(|event| event.kind == EventKind::Launching && event.group == ON_DEMAND);
    assert_eq!(stood_in.count(), 1, "one instance stood in, though three controllers saw to it");
    assert_eq!(instances_in_service(story, ON_DEMAND), *bystanders, "nobody else was ended");
    let log = controller.process.log();
    assert!(!log.to_lowercase().contains("forbidden"), "the rendered accounts have their rights: {log}");
    removed_in_the_middle_of_another(stage).await;
}

/// Removes the release while a drain is held up, as docs/operations.md says for who cannot wait.
async fn removed_in_the_middle_of_another(stage: Stagecraft) {
    let node = drain_is_held_up(&stage).await;
    let testbed = &stage.testbed;
    kubectl(testbed, &["scale", "deployment", CONTROLLER, "-n", NAMESPACE, "--replicas", "0"]);
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
    succeeded(on_cluster(testbed, &["uninstall", RELEASE, "--wait"]).await);
    wait_for("everything to be gone", PATIENCE, async || labelled(testbed).is_empty().then_some(())).await;

    // What people wrote, and the records, are there; and so is what the controller did not come to undo.
    let pool = Api::<SpotPool>::all(testbed.client()).get(POOL).await.expect("the pool");
    assert_eq!(pool.finalizers(), [OPEN_REQUESTS]);
    let mut records = stage.story.records().await;
    assert!(!status(&records.pop().expect("a record")).is_finished(), "the second one is open");
    assert!(status(&records.pop().expect("a record")).is_finished(), "the first one is over");
    let nodes: Api<Node> = Api::all(testbed.client());
    let held = nodes.list(&ListParams::default()).await.expect("the nodes").items;
    let held = held.iter().filter(|node| marks::are_left_on(node, TAINT)).map(ResourceExt::name_any);
    assert_eq!(held.collect::<Vec<_>>(), [node.as_str()], "this node alone is held");

    let free = r#"{"metadata":{"finalizers":null}}"#;
    kubectl(testbed, &["patch", "spotpool", POOL, "--type", "merge", "-p", free]);
    delete_definitions(testbed);
    for command in undone_by() {
        let words = command.split_whitespace().map(|word| if word == "NODE" { node.as_str() } else { word });
        kubectl(testbed, &words.collect::<Vec<_>>());
    }
    let freed = nodes.get(&node).await.expect("the node");
    assert!(!marks::are_left_on(&freed, TAINT), "{freed:#?}");
    assert_ne!(freed.spec.and_then(|spec| spec.unschedulable), Some(true));
    stage.autoscaling.stop().await;
}

/// Lets a second node be replaced, and holds its drain up by the budgets. Returns the node.
async fn drain_is_held_up(stage: &Stagecraft) -> String {
    let story = &stage.story;
    let instance = story.spot_instances()[1].clone();
    let node = story.world.cloud.node_of(&instance).expect("an instance").node_name;
    let records: Api<NodeReplacement> = Api::all(stage.testbed.client());
    let reached = async |flow_box: FlowBox, outcome: Outcome| {
        wait_for(&format!("{flow_box:?} {outcome:?}"), 2 * PATIENCE, async || {
            let record = records.get(&instance).await.ok()?;
            (times_taken(&[record], flow_box, outcome) > 0).then_some(())
        })
        .await;
    };
    story.act(&Act::SpotHas(Supply::None)).await.expect("the world can do it");
    ask(stage, "replace", &json!({ "action": "Replace", "node": node }));
    reached(FlowBox::Fallback, Outcome::Requested).await;
    // Shut before, they would be told before anything is requested.
    for app in ["web", "api"] {
        story.act(&Act::SetBudget(app, 0)).await.expect("the world can do it");
    }
    reached(FlowBox::Drain, Outcome::Blocked).await;
    node
}

/// The commands of docs/operations.md that undo what a stopped replacement leaves on a node, for kubectl.
fn undone_by() -> Vec<String> {
    let page = operations();
    let (_, part) = page.split_once("### What stays behind\n").expect("a part of its own");
    let rows = part.split("\n#").next().expect("a part").lines();
    let last = rows.filter_map(|row| row.trim().strip_suffix('|')?.rsplit('|').next());
    let commands = last.filter_map(|cell| cell.trim().strip_prefix("`kubectl ")?.strip_suffix('`'));
    let is_about_a_node = |command: &&str| command.split_whitespace().any(|word| word == "NODE");
    let commands: Vec<String> = commands.filter(is_about_a_node).map(str::to_owned).collect();
    assert!(commands.len() >= 5, "only these were found: {commands:?}");
    commands
}
