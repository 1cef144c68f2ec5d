//! The chart, by the real Helm: what it renders, and what becomes of it on a real control plane.

use crate::helpers::{NodeSpec, create_node, wait_for};
use crate::process::{binaries, built};
use crate::product::{self, CONTROLLER, PATIENCE, RENDERED, kubectl, spot_guard, try_kubectl};
use crate::shown;
use crate::testbed::Testbed;
use serde_json::{Value, json};
use spot_guard::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A release and a namespace with names of their own.
pub const RELEASE: &str = "sg";
pub const NAMESPACE: &str = "elsewhere";

/// Values that users have: Kubernetes and the controller take what the chart renders of them.
const VALUES: [&str; 8] = [
    "{}",
    "image: {digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'}\n\
     imagePullSecrets: [{name: pull}]\npodLabels: {team: a}\npodAnnotations: {note: b}\n\
     serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/x'}}",
    "listenAddress: '[::]'\nclusterName: Berlin (blue)\nawsRegion: eu-central-1\ninstanceMetadataURL: http://169.254.169.254\n\
     agent: {useHostNetwork: true, port: 18081, nodeSelector: {spotguard.dev/pool: workers}}",
    "tls: {secretName: certificate}\nscaleDownWebhook: {secretName: hook, keys: [now, next]}\n\
     notifications:\n\
     - {secretName: slack, key: url, 'on': [Failure], template: '{\"text\": {{ message }}}'}\n\
     - {secretName: slack, key: other}\n\
     settings: {lease: {durationSeconds: 20}, defaults: {stabilitySeconds: 60}, drainNodesOutsidePools: true}",
    "networkPolicy: {scrapers: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}\n\
     flowSchema: {enabled: false}\njsonLogging: false\n\
     controller: {replicas: 3, affinity: {}, tolerations: [{operator: Exists}], extraEnv: [{name: A, value: b}]}",
    AGENTLESS,
    WHOLE,
    MONITORED,
];

/// Notices through the queue alone.
const AGENTLESS: &str = "queue: {url: 'https://sqs.eu-central-1.amazonaws.com/123456789012/notices'}\n\
     agent: {enabled: false}\nserviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/x'}}";

/// An image by its digest, IPv6, a file of each Secret, and requests that wait with those of everybody.
const WHOLE: &str = "image:\n  repository: r.example/sg\n\
     \x20 digest: sha256:0000000000000000000000000000000000000000000000000000000000000000\n\
     listenAddress: '[::]'\nflowSchema: {enabled: false}\ntls: {secretName: certificate}\n\
     scaleDownWebhook: {secretName: hook}\nnotifications: [{secretName: slack, key: url}]";

/// All that a Prometheus operator and Grafana are given.
const MONITORED: &str = "podMonitor: {enabled: true, labels: {team: a}, interval: 15s}\n\
     prometheusRule: {enabled: true, labels: {team: a}}\n\
     dashboard: {enabled: true, labels: {grafana_dashboard: '1', team: a}}";

/// Values that must be refused, with a part of what is said about each.
const REFUSED: [(&str, &str); 13] = [
    ("replicaCount: 2", "replicaCount"),
    ("image: {digest: latest}", "/image/digest"),
    ("listenAddress: 10.0.0.1", "/listenAddress"),
    ("settings: {listen: '0.0.0.0:80'}", "/settings/listen"),
    ("settings: {clusterName: a}", "/settings/clusterName"),
    ("settings: {lease: {namespace: kube-system}}", "namespace"),
    ("podLabels: {app.kubernetes.io/component: agent}", "app.kubernetes.io/component"),
    ("notifications: [{secretName: slack}]", "key"),
    ("prometheusRule: {runbooks: ''}", "/prometheusRule/runbooks"),
    ("dashboard: {folder: a}", "folder"),
    ("agent: {enabled: false}", "agent.enabled is false and queue.url is empty"),
    ("queue: {url: notices}", "/queue/url"),
    ("settings: {queue: {url: 'https://sqs.eu-central-1.amazonaws.com/1/notices'}}", "/settings/queue"),
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn chart() -> PathBuf {
    root().join("deploy/helm/spot-guard")
}

/// Helm, with all that it writes in this folder.
pub fn helm(folder: &Path) -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| built("testbed/helm", &[], "helm"));
    let mut command = Command::new(binary);
    for (name, sub) in [("HELM_CACHE_HOME", "c"), ("HELM_CONFIG_HOME", "f"), ("HELM_DATA_HOME", "d")] {
        command.env(name, folder.join("helm").join(sub));
    }
    command
}

#[track_caller]
pub fn succeeded(output: Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !product::warns(&told), "{}: {told}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file is written");
    path
}

/// Renders the chart, or says why not.
pub fn helm_template(folder: &Path, namespace: &str, values: &str) -> Output {
    let values = write(folder, "values.yaml", values);
    let mut command = helm(folder);
    command.args(["template", RELEASE, "--namespace", namespace, "--values"]).arg(values).arg(chart());
    command.output().expect("helm runs")
}

/// The rendered files, by the name of their template.
pub fn files(rendered: &str) -> BTreeMap<&str, String> {
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for part in rendered.split("---\n# Source: spot-guard/templates/").skip(1) {
        let (name, text) = part.split_once('\n').expect("a line with the name");
        let file = files.entry(name).or_default();
        if !file.is_empty() {
            file.push_str("---\n");
        }
        file.push_str(text.trim_matches('\n'));
        file.push('\n');
    }
    files
}

#[test]
fn the_manifests_are_what_the_chart_renders() {
    let folder = tempfile::tempdir().expect("a folder");
    let rendered = succeeded(helm_template(folder.path(), "spot-guard", "{}"));
    let listed = fs::read_to_string(product::manifest("kustomization.yaml")).expect("the kustomization");
    for (name, text) in files(&rendered) {
        let manifest = product::manifest(name);
        assert!(listed.contains(&format!("- {name}\n")), "the kustomization lacks {name}");
        if name == "crds.yaml" {
            // Helm must not delete the definitions, and has them as they are for the rest.
            let kept = "  annotations:\n    helm.sh/resource-policy: keep\n";
            assert_eq!(
                text.matches(kept).count(),
                text.matches("\nkind: CustomResourceDefinition\n").count()
            );
            let documents = |text: &str| -> BTreeSet<String> {
                text.split("---\n").map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
            };
            let definitions = fs::read_to_string(manifest).expect("the definitions");
            assert!(documents(&text.replace(kept, "")) == documents(&definitions), "other definitions");
        } else if std::env::var_os("UPDATE_MANIFESTS").is_some() {
            fs::write(&manifest, text).expect("a manifest is written");
        } else {
            let there = fs::read_to_string(&manifest).expect("a manifest");
            assert!(there == text, "run with UPDATE_MANIFESTS=1: {} is not what the chart renders", name);
        }
    }
}

#[test]
fn the_chart_is_sound_and_refuses_values_that_it_does_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let lint = helm(folder.path()).args(["lint", "--strict"]).arg(chart()).output();
    succeeded(lint.expect("helm runs"));
    for (values, message) in REFUSED {
        let output = helm_template(folder.path(), NAMESPACE, values);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(message), "{values}: {told}");
    }
}

#[test]
fn with_a_queue_the_controller_reads_it_and_may_report_for_others_and_agents_may_be_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let beside = AGENTLESS.replace("enabled: false", "enabled: true");
    for (values, has_queue, has_agents) in
        [(AGENTLESS, true, false), (beside.as_str(), true, true), ("{}", false, true)]
    {
        let rendered = succeeded(helm_template(folder.path(), NAMESPACE, values));
        let files = files(&rendered);
        let url = configuration(folder.path(), &files["controller-config.yaml"]).queue.url;
        let expected = has_queue.then_some("https://sqs.eu-central-1.amazonaws.com/123456789012/notices");
        assert_eq!(url.as_deref(), expected, "{values}");
        assert_eq!(files["controller-rbac.yaml"].contains("report-for-others]"), has_queue, "{values}");
        assert_eq!(rendered.contains("kind: DaemonSet\n"), has_agents, "{values}");
        assert_eq!(files.contains_key("agent-rbac.yaml"), has_agents, "{values}");
        // The role that may read the queue is the one of this account.
        let role = "eks.amazonaws.com/role-arn: arn:aws:iam::1:role/x\n";
        assert_eq!(files["controller-rbac.yaml"].contains(role), has_queue, "{values}");
    }
}

/// The pod of the agents, as the chart renders it.
fn agents_pod(rendered: &str) -> Value {
    let files = files(rendered);
    let set = files["agent-daemonset.yaml"].split("---\n").find(|one| one.contains("kind: DaemonSet\n"));
    let set: Value = serde_saphyr::from_str(set.expect("a DaemonSet")).expect("YAML");
    set["spec"]["template"]["spec"].clone()
}

#[test]
fn agents_in_the_hosts_network_find_the_names_of_the_cluster_and_listen_at_the_port_of_the_values() {
    let folder = tempfile::tempdir().expect("a folder");
    // Else the pod would ask the resolver of its node, which does not know the API server.
    let in_host = Some("ClusterFirstWithHostNet");
    for (values, dns_policy, port) in [
        ("{}", None, 8081),
        ("agent: {useHostNetwork: true}", in_host, 8081),
        ("agent: {useHostNetwork: true, port: 18081}", in_host, 18081),
    ] {
        let pod = agents_pod(&succeeded(helm_template(folder.path(), NAMESPACE, values)));
        assert_eq!(pod["hostNetwork"].as_bool(), Some(dns_policy.is_some()), "{values}: {pod:#}");
        assert_eq!(pod["dnsPolicy"].as_str(), dns_policy, "{values}: {pod:#}");
        // There it is a port of the node: what listens, what is told of it and what is probed are one.
        let agent = &pod["containers"][0];
        let arguments = agent["args"].as_array().expect("arguments");
        let listens = format!("--listen=0.0.0.0:{port}");
        assert!(arguments.iter().any(|argument| *argument == *listens), "{values}: {agent:#}");
        let ports = agent["ports"].as_array().expect("ports");
        let told: Vec<_> = ports.iter().map(|held| held["containerPort"].as_u64()).collect();
        assert_eq!(told, [Some(port)], "{values}: {agent:#}");
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(agent[probe]["httpGet"]["port"], ports[0]["name"], "{values}: {agent:#}");
        }
    }
}

#[test]
fn the_commands_of_helm_and_kubectl_in_the_documents_are_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    shown::are_ones("helm", 5, |arguments| helm(folder.path()).args(arguments).output().expect("helm runs"));
    // kubectl finds its plugins in the PATH.
    symlink(env!("CARGO_BIN_EXE_spot-guard"), folder.path().join("kubectl-spot_guard")).expect("a plugin");
    shown::are_ones("kubectl", 30, |arguments| {
        let mut kubectl = Command::new(binaries().join("kubectl"));
        kubectl.args(arguments).env("PATH", folder.path()).output().expect("kubectl runs")
    });
}

/// The controller's configuration, as the chart renders it.
pub fn configuration(folder: &Path, map: &str) -> Config {
    let map: k8s_openapi::api::core::v1::ConfigMap = serde_saphyr::from_str(map).expect("a ConfigMap");
    let text = map.data.expect("data").remove("spot-guard.yaml").expect("the file");
    Config::load(&write(folder, RENDERED, &text)).expect("the controller takes it")
}

/// The same, as the release in the cluster has it now: what a new pod of the controller reads.
pub fn configured(testbed: &Testbed) -> Config {
    let map = kubectl(testbed, &["get", "configmap", "-n", NAMESPACE, CONTROLLER, "-o", "yaml"]).stdout;
    configuration(testbed.dir(), &String::from_utf8(map).expect("text"))
}

#[actix::test]
async fn whatever_the_values_are_the_api_server_and_the_controller_take_what_comes_of_them() {
    let testbed = Testbed::start_without_kubelets("chart-values").await;
    kubectl(&testbed, &["create", "namespace", NAMESPACE]);
    define_monitoring(&testbed);
    for values in VALUES {
        let rendered = succeeded(helm_template(testbed.dir(), NAMESPACE, values));
        let file = write(testbed.dir(), "rendered.yaml", &rendered);
        let file = file.to_str().expect("a path in UTF-8");
        kubectl(&testbed, &["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file]);
        assert!(!rendered.contains("namespace: spot-guard\n"), "something stays in spot-guard: {values}");
        configuration(testbed.dir(), &files(&rendered)["controller-config.yaml"]);
    }
}

/// The kinds of the Prometheus operator, as far as a name and any content.
fn define_monitoring(testbed: &Testbed) {
    for kind in ["PodMonitor", "PrometheusRule"] {
        let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
        let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let version =
            json!({ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.monitoring.coreos.com") },
            "spec": { "group": "monitoring.coreos.com", "scope": "Namespaced", "versions": [version],
                "names": { "kind": kind, "plural": plural, "singular": singular } },
        });
        product::apply(testbed, &write(testbed.dir(), "definition.json", &definition.to_string()));
    }
    let both = ["podmonitors", "prometheusrules"].map(|plural| format!("crd/{plural}.monitoring.coreos.com"));
    kubectl(testbed, &["wait", "--for=condition=Established", "--timeout=60s", &both[0], &both[1]]);
}

/// The pod of the controllers, as the chart renders it.
fn controllers_pod(rendered: &str) -> Value {
    let files = files(rendered);
    let all =
        files["controller-deployment.yaml"].split("---\n").find(|one| one.contains("kind: Deployment\n"));
    let all: Value = serde_saphyr::from_str(all.expect("a Deployment")).expect("YAML");
    all["spec"]["template"]["spec"].clone()
}

#[test]
fn the_pods_have_the_image_the_addresses_and_the_secrets_of_the_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let rendered = succeeded(helm_template(folder.path(), NAMESPACE, WHOLE));
    assert!(!rendered.contains("kind: FlowSchema\n"));
    let (pod, agent) = (controllers_pod(&rendered), agents_pod(&rendered));
    let image = format!("r.example/sg@sha256:{}", "0".repeat(64));
    for pod in [&pod, &agent] {
        assert_eq!(pod["containers"][0]["image"], image.as_str());
    }
    let arguments = agent["containers"][0]["args"].as_array().expect("arguments");
    assert!(arguments.iter().any(|argument| argument == "--listen=[::]:8081"), "{arguments:?}");
    let config = configuration(folder.path(), &files(&rendered)["controller-config.yaml"]);
    assert_eq!(config.listen.to_string(), "[::]:8080");
    assert_eq!(config.probe_listen.to_string(), "[::]:8082");
    let named = |list: &Value, name: &str| -> Value {
        let mut all = list.as_array().expect("a list").iter();
        all.find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {list:#}")).clone()
    };
    for (name, secret, path) in [
        ("tls", "certificate", "/etc/spot-guard-tls"),
        ("webhook", "hook", "/etc/spot-guard-webhook"),
        ("notification-0", "slack", "/etc/spot-guard-notifications/0"),
    ] {
        assert_eq!(named(&pod["volumes"], name)["secret"]["secretName"], secret);
        assert_eq!(named(&pod["containers"][0]["volumeMounts"], name)["mountPath"], path);
    }
    let tls = config.tls.expect("a certificate");
    assert!(tls.certificate.starts_with("/etc/spot-guard-tls") && tls.key.starts_with("/etc/spot-guard-tls"));
    assert_eq!(config.webhook_secret_files, [PathBuf::from("/etc/spot-guard-webhook/secret")]);
}

/// Runs Helm on the cluster.
pub async fn on_cluster(testbed: &Testbed, arguments: &[&str]) -> Output {
    let mut command = helm(testbed.dir());
    command.args(arguments).args(["--namespace", NAMESPACE]).env("KUBECONFIG", testbed.kubeconfig());
    let running = tokio::task::spawn_blocking(move || command.output().expect("helm runs"));
    running.await.expect("it ends")
}

/// The pods of a component, each with its node.
fn pods(testbed: &Testbed, component: &str) -> BTreeMap<String, String> {
    let label = format!("app.kubernetes.io/component={component}");
    let form = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}";
    let live = "status.phase=Running";
    let arguments = ["get", "pods", "-n", NAMESPACE, "-l", &label, "--field-selector", live, "-o", form];
    let listed = kubectl(testbed, &arguments).stdout;
    let listed = String::from_utf8(listed).expect("text");
    let pairs = listed.lines().filter_map(|line| line.trim().split_once(' '));
    pairs.map(|(pod, node)| (pod.to_owned(), node.to_owned())).collect()
}

/// Everything in the cluster that carries our label, of whatever kind.
pub fn labelled(testbed: &Testbed) -> Vec<String> {
    let kinds = kubectl(testbed, &["api-resources", "--verbs=list", "-o", "name"]).stdout;
    let kinds = String::from_utf8(kinds).expect("text").lines().collect::<Vec<_>>().join(",");
    let label = "app.kubernetes.io/name=spot-guard";
    let found = try_kubectl(testbed, &["get", &kinds, "-A", "-l", label, "-o", "name", "--ignore-not-found"]);
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

/// Deletes the definitions, which Helm keeps, and all objects with them: it does not hang.
pub fn delete_definitions(testbed: &Testbed) {
    let definitions = ["spotpools", "interruptionnotices", "nodereplacements", "spotactions"];
    let definitions = definitions.map(|kind| format!("{kind}.spotguard.dev"));
    let delete = ["delete", "crd", "--timeout=30s"].into_iter();
    let delete: Vec<&str> = delete.chain(definitions.iter().map(String::as_str)).collect();
    kubectl(testbed, &delete);
}

/// Nodes for the controllers, a node of a pool, and nodes that can run nothing of ours.
async fn nodes(testbed: &Testbed) {
    type Labels<'a> = &'a [(&'a str, &'a str)];
    let compute = "eks.amazonaws.com/compute-type";
    let all: [(&str, &str, Labels<'_>); 7] = [
        ("system-a", "us-east-1a", &[]),
        ("system-b", "us-east-1b", &[]),
        ("pool", "us-east-1c", &[("spotguard.dev/pool", "workers")]),
        ("spot", "us-east-1c", &[("eks.amazonaws.com/capacityType", "SPOT")]),
        ("fargate", "us-east-1c", &[(compute, "fargate"), ("spotguard.dev/pool", "none")]),
        ("auto", "us-east-1c", &[(compute, "auto"), ("spotguard.dev/pool", "none")]),
        ("hybrid", "us-east-1c", &[(compute, "hybrid"), ("spotguard.dev/pool", "none")]),
    ];
    for (name, zone, labels) in all {
        let provider_id = &format!("aws:///{zone}/i-{name}");
        create_node(&testbed.client(), &NodeSpec { name, zone, labels, provider_id, ..NodeSpec::default() })
            .await;
    }
}

/// Waits until the pods of a component run on exactly these nodes, each named once for each pod.
async fn run_on(testbed: &Testbed, component: &str, mut nodes: Vec<&str>) {
    nodes.sort_unstable();
    wait_for(&format!("each {component} to run on {nodes:?}"), PATIENCE, async || {
        let mut on: Vec<String> = pods(testbed, component).into_values().collect();
        on.sort_unstable();
        (on == nodes).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_release_in_any_namespace_is_upgraded_rolled_back_and_leaves_only_what_people_wrote() {
    let testbed = Testbed::start("chart").await;
    nodes(&testbed).await;
    let chart = chart();
    let chart = chart.to_str().expect("a path in UTF-8");
    let wait = ["--wait", "--timeout", "3m"];
    kubectl(&testbed, &["create", "namespace", NAMESPACE]);
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&testbed, &["label", "namespace", NAMESPACE, restricted]);
    let install = [&["install", RELEASE, chart], wait.as_slice()].concat();
    succeeded(on_cluster(&testbed, &install).await);
    run_on(&testbed, "controller", vec!["system-a", "system-b"]).await;
    run_on(&testbed, "agent", vec!["system-a", "system-b", "pool", "spot"]).await;

    // Its account has what the controller needs, also for the lease of this namespace.
    let config = configured(&testbed);
    assert_eq!(config.lease.namespace, NAMESPACE);
    let account = testbed.kubeconfig_for_service_account(NAMESPACE, CONTROLLER).await;
    wait_for("the policy to bind", PATIENCE, async || {
        let mut check = spot_guard();
        check.arg("check").arg("--config").arg(testbed.dir().join(RENDERED));
        let check = check.arg("--kubeconfig").arg(&account).env("AWS_REGION", "us-east-1").output();
        let told = String::from_utf8(check.expect("spot-guard runs").stdout).expect("text");
        assert!(told.contains("the account has all permissions of the controller"), "{told}");
        told.contains("an agent can report its own node only").then_some(())
    })
    .await;
    product::apply(&testbed, &product::manifest("example-pool.yaml"));

    // A changed setting starts new pods; neither a cordoned node nor the old pods keep them waiting.
    let before = pods(&testbed, "controller");
    kubectl(&testbed, &["cordon", "system-b"]);
    let changed = ["--set", "settings.drainNodesOutsidePools=true"];
    let upgrade = [["upgrade", RELEASE, chart].as_slice(), &changed, &wait].concat();
    succeeded(on_cluster(&testbed, &upgrade).await);
    run_on(&testbed, "controller", vec!["system-a", "system-a"]).await;
    assert!(pods(&testbed, "controller").keys().all(|pod| !before.contains_key(pod)), "old pods run on");
    kubectl(&testbed, &["uncordon", "system-b"]);
    let rollback = [["rollback", RELEASE].as_slice(), &wait].concat();
    succeeded(on_cluster(&testbed, &rollback).await);
    run_on(&testbed, "controller", vec!["system-a", "system-b"]).await;

    let twice = on_cluster(&testbed, &["install", "second", chart]).await;
    assert!(!twice.status.success(), "a second release in a cluster");

    succeeded(on_cluster(&testbed, &["uninstall", RELEASE, "--wait"]).await);
    wait_for("everything to be gone", PATIENCE, async || labelled(&testbed).is_empty().then_some(())).await;
    kubectl(&testbed, &["get", "spotpool", "example"]);
    // The definitions that were kept are taken over.
    succeeded(on_cluster(&testbed, &install).await);
    kubectl(&testbed, &["get", "spotpool", "example"]);
    succeeded(on_cluster(&testbed, &["uninstall", RELEASE, "--wait"]).await);
    delete_definitions(&testbed);
    wait_for("everything to be gone", PATIENCE, async || labelled(&testbed).is_empty().then_some(())).await;
}
