//! The commands of a laptop find a controller by kubectl, also as its plugin.

use crate::status::{Api, record};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// A kubectl that knows these Deployments, and whose forwarded port is that one.
struct Kubectl {
    folder: tempfile::TempDir,
}

impl Kubectl {
    fn new(deployments: &str, forward: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().display();
        // It goes on as the real one does; an absolute path, for nothing else is in its PATH.
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >> {home}/calls\ncase \"$*\" in\n*get\\ deployments*) {deployments};;\n\
             *get\\ spotpools*) /usr/bin/cat {home}/records;;\n*port-forward*) echo $$ > {home}/pid; {forward};;\nesac\n"
        );
        let kubectl = folder.path().join("kubectl");
        fs::write(&kubectl, script).expect("a script");
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("a program");
        Self { folder }
    }

    /// One controller, which answers at that address.
    fn leading_to(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("a URL");
        let forward = format!("echo \"Forwarding from {address} -> 8081\"; exec /usr/bin/tail -f /dev/null");
        Self::new("echo 'platform spot-guard-controller 2'", &forward)
    }

    /// The same cluster with a pool and a fallback in it.
    fn with_records(self) -> Self {
        let group = json!({ "desired": 3, "inService": 2, "min": 0, "max": 9, "summary": "2/3" });
        let pool = json!({
            "apiVersion": "spotguard.dev/v1alpha1",
            "kind": "SpotPool",
            "metadata": { "name": "web" },
            "spec": { "spotGroup": "spot", "onDemandGroup": "on-demand", "mode": "Act" },
            "status": { "spot": group },
        });
        let items = [pool, record("pod default/db-0 fits on no other node")];
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
        fs::write(self.folder.path().join("records"), list.to_string()).expect("records");
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(Path::new(env!("CARGO_BIN_EXE_spot-guard")), self.folder.path(), arguments)
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).expect("calls");
        calls.lines().map(str::to_owned).collect()
    }
}

fn run(program: &Path, path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).env_remove("KUBECONFIG").env_remove("SPOT_GUARD_API");
    command.output().expect("it runs")
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_controller_is_found_in_the_cluster_and_its_port_is_closed_afterwards() {
    let api = Api::start();
    let kubectl = Kubectl::leading_to(&api.url);
    let told = said(&kubectl.run(&["status", "--context", "prod"]));
    assert!(told.contains("This replica leads. Replacements: 1 open"), "{told}");
    let labels = "app.kubernetes.io/name=spot-guard,app.kubernetes.io/component=controller";
    let names =
        "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name} {.status.replicas}{\"\\n\"}{end}";
    assert_eq!(
        kubectl.calls(),
        [
            format!("--context prod get deployments --all-namespaces --selector {labels} --output {names}"),
            "--context prod --namespace platform port-forward deployment/spot-guard-controller :8081"
                .to_owned(),
        ]
    );
    let pid = fs::read_to_string(kubectl.folder.path().join("pid")).expect("a process");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "kubectl goes on after the command has ended");
}

#[test]
fn a_namespace_that_is_named_is_the_only_one_that_is_looked_at() {
    let api = Api::start();
    let kubectl = Kubectl::leading_to(&api.url);
    said(&kubectl.run(&["explain", "i-old", "-n", "platform", "--kubeconfig", "/some/file"]));
    assert!(kubectl.calls()[0].starts_with("--kubeconfig /some/file get deployments --namespace platform"));
}

#[test]
fn what_is_missing_is_said_and_what_to_do_about_it() {
    let nothing = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_spot-guard"));
    let told = complaint(&run(program, nothing.path(), &["pools"]));
    assert!(
        told.contains("kubectl cannot be run: install it, or name the API of a controller by --api"),
        "{told}"
    );

    let one = "echo 'one spot-guard 2'";
    let noisy = "echo 'E0101 memcache.go:265] noise' >&2; echo 'The connection was refused' >&2; exit 1";
    let cases = [
        ("true", "", "is Spot Guard installed in this cluster?"),
        (
            "echo 'one spot-guard 2'; echo 'two spot-guard 2'",
            "",
            "several namespaces (one, two): name one with -n",
        ),
        ("echo 'Forbidden: deployments' >&2; exit 1", "", "kubectl get deployments: Forbidden: deployments"),
        (
            noisy,
            "",
            "error: kubectl get deployments: The connection was refused (another cluster is named by",
        ),
        (one, "echo 'pods is forbidden' >&2", "kubectl port-forward: pods is forbidden"),
        (
            one,
            noisy,
            "kubectl port-forward: The connection was refused; nor can the records be read: kubectl get",
        ),
        (one, "echo 'hello'", "kubectl port-forward says \"hello\""),
    ];
    for (deployments, forward, message) in cases {
        let told = complaint(&Kubectl::new(deployments, forward).run(&["pools"]));
        assert!(told.contains(message) && !told.contains("memcache"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn without_a_controller_the_records_in_the_cluster_are_told() {
    let no_pod = "no controller runs: the Deployment platform/spot-guard-controller has no pod";
    let no_way = "no controller can be reached: kubectl port-forward: error: no endpoints available";
    let fails = "echo 'error: no endpoints available' >&2; exit 1";
    for (deployments, why) in [
        ("echo 'platform spot-guard-controller '", no_pod),
        ("echo 'platform spot-guard-controller 2'", no_way),
    ] {
        let kubectl = Kubectl::new(deployments, fails).with_records();
        let ask = |arguments: &[&str]| {
            let output = kubectl.run(&[arguments, &["--context", "prod"]].concat());
            let note = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(note.starts_with(&format!("note: {why}; ")), "{note}");
            assert!(note.contains("without what only a controller knows"), "{note}");
            said(&output)
        };
        let row = "web   Act   2/3   -          1          -";
        assert_eq!(ask(&["pools"]).lines().last(), Some(row));
        let status = ask(&["status"]);
        let whole = "No controller is reached. Replacements: 1 open, 1 blocked; fallbacks: 1.\n";
        assert!(status.starts_with(whole) && status.contains("i-old"), "{status}");
        assert!(ask(&["fallbacks"]).contains("pod default/db-0 fits on no other node"));
        let story = ask(&["explain", "i-old"]);
        assert!(story.starts_with("Replacement i-old of node node-old in pool web\n"), "{story}");
        assert!(!story.contains("be drained now"), "nobody knows: {story}");
        assert_eq!(ask(&["explain", "node-new"]).lines().next(), story.lines().next());
        let told: Value = serde_json::from_str(&ask(&["status", "-o", "json"])).expect("JSON");
        let status = &told["status"];
        assert_eq!((&status["leader"], &status["ready"]), (&json!(false), &json!(false)), "{status}");
        let calls = kubectl.calls();
        let get = "--context prod get spotpools.spotguard.dev,nodereplacements.spotguard.dev --output json";
        assert_eq!(calls.last().map(String::as_str), Some(get));
        let tried = calls.iter().any(|call| call.contains("port-forward"));
        assert_eq!(tried, why == no_way, "kubectl would wait for a pod: {calls:?}");
    }
}

#[test]
fn as_a_plugin_of_kubectl_it_says_what_people_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("kubectl-spot_guard");
    symlink(env!("CARGO_BIN_EXE_spot-guard"), &plugin).expect("a link");
    let told = said(&run(&plugin, folder.path(), &["explain", "--help"]));
    assert!(told.contains("Usage: kubectl spot-guard explain [OPTIONS] <NAME>"), "{told}");
    let output = run(&plugin, folder.path(), &["--context", "prod", "status"]);
    assert_eq!(output.status.code(), Some(2), "options stand behind the command");
}
