//! The commands of a laptop find a controller by kubectl, also as its plugin.

use crate::status::Api;
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
             *port-forward*) echo $$ > {home}/pid; {forward};;\nesac\n"
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
        Self::new("echo 'platform spot-guard-controller'", &forward)
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
    let names = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
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

    let cases = [
        ("true", "", "is Spot Guard installed in this cluster?"),
        (
            "echo 'one spot-guard'; echo 'two spot-guard'",
            "",
            "several namespaces (one, two): name one with -n",
        ),
        ("echo 'Forbidden: deployments' >&2; exit 1", "", "kubectl get deployments: Forbidden: deployments"),
        ("echo 'one spot-guard'", "echo 'pods is forbidden' >&2", "kubectl port-forward: pods is forbidden"),
        ("echo 'one spot-guard'", "echo 'hello'", "kubectl port-forward says \"hello\""),
    ];
    for (deployments, forward, message) in cases {
        let told = complaint(&Kubectl::new(deployments, forward).run(&["pools"]));
        assert!(told.contains(message), "{told}");
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
