//! The logs of the agent: their filter follows a file while the process runs.

use crate::crowd::PACE;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Of an API server that is not there.
const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: c, \
    clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: u, user: {}}], \
    contexts: [{name: c, context: {cluster: c, user: u}}]}";

/// An agent whose log and filter are in a folder of its own. It ends with this value.
struct Agent {
    child: Child,
    folder: TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [kubeconfig, filter, log] = ["kubeconfig", "filter", "log"].map(|name| folder.path().join(name));
        fs::write(&kubeconfig, KUBECONFIG).expect("a kubeconfig");
        let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard-agent"));
        command.args(["--node-name", "node-1", "--kubeconfig"]).arg(kubeconfig);
        command.arg("--log-filter-file").arg(filter).env_clear().env("RUST_LOG", "error");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1").stdin(Stdio::null());
        let child = command.stderr(fs::File::create(log).expect("a log")).spawn().expect("the agent starts");
        Self { child, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    fn filter(&self, text: &str) {
        fs::write(self.folder.path().join("filter"), text).expect("a filter");
    }

    /// Waits until it has logged this.
    fn tells(&self, wanted: &str) {
        let began = Instant::now();
        while !self.log().contains(wanted) {
            assert!(began.elapsed() < Duration::from_secs(60), "no {wanted:?} in\n{}", self.log());
            std::thread::park_timeout(PACE);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_filter_of_the_agents_logs_follows_its_file_while_the_process_runs() {
    let mut agent = Agent::start();
    agent.filter("spot_guard=info\n");
    agent.tells("the logs have another filter now");
    agent.filter("[[");
    agent.tells("the filter of the logs stays as it is");
    let log = agent.log();
    assert_eq!(log.matches("before=").count(), 1, "a filter that cannot be read changes nothing: {log}");
    assert!(agent.child.try_wait().expect("a process").is_none(), "it runs on: {log}");
}
