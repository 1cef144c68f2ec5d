//! The command line of the agent: a binary of its own, so that nothing of the controller runs on a Spot node.

use clap::Parser;
use spot_guard::agent::{self, AgentOptions};
use spot_guard::telemetry;
use spot_guard_core::ids::NodeName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Watches a node's instance metadata and reports interruption notices.
#[derive(Parser)]
#[command(name = "spot-guard-agent", version)]
struct Arguments {
    /// The Kubernetes node that the agent runs on
    #[arg(long, env = "NODE_NAME")]
    node_name: NodeName,
    /// The kubeconfig for the Kubernetes API; by default the pod's own service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The address of health and metrics; by default there is none
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Seconds between two reads of the metadata service
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    poll_seconds: u64,
    /// The file with the filter of the logs, in the words of RUST_LOG; it is read again when it changes
    #[arg(long, value_name = "FILE")]
    log_filter_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { node_name, kubeconfig, listen, poll_seconds, log_filter_file } = arguments;
    let poll_every = Duration::from_secs(poll_seconds);
    actix::System::new().block_on(async {
        let telemetry = telemetry::tracing::init(None)?;
        let options = AgentOptions { node_name, kubeconfig, listen, poll_every, log_filter_file };
        agent::run(options, telemetry.logs.clone()).await
    })
}
