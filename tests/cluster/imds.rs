//! The instance metadata service of one node: AWS's own mock of it, asked with session tokens only.

use crate::helpers::{HttpAnswer, http, wait_for};
use crate::process::{Folder, Process, binaries, flag, free_port};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The paths that this mock serves for the flow.
pub const REBALANCE_PATH: &str = "/latest/meta-data/events/recommendations/rebalance";
pub const INSTANCE_ACTION_PATH: &str = "/latest/meta-data/spot/instance-action";
pub const INSTANCE_ID_PATH: &str = "/latest/meta-data/instance-id";

/// A time that has passed, or will not come while a test runs, as the mock wants it.
const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2200-01-01T00:00:00Z";

/// A running metadata service, which ends with this value.
///
/// A time in a notice is that of the request, so it is another one at every read, unless
/// [`ImdsMock::announce_rebalance_at`] or [`ImdsMock::announce_interruption`] has set it.
pub struct ImdsMock {
    process: Option<Process>,
    address: SocketAddr,
    config: Value,
    folder: Folder,
}

impl ImdsMock {
    /// The metadata of a Spot instance about which AWS says nothing, yet.
    pub async fn quiet(instance_id: &str, zone: &str) -> Self {
        Self::start(instance_id, zone, None, None).await
    }

    /// One that recommends to rebalance this many seconds after its start.
    pub async fn rebalance(instance_id: &str, zone: &str, delay_seconds: u32) -> Self {
        Self::start(instance_id, zone, Some(delay_seconds), None).await
    }

    /// One that gives the 2-minute notice this many seconds after its start.
    pub async fn spot(instance_id: &str, zone: &str, delay_seconds: u32) -> Self {
        Self::start(instance_id, zone, None, Some(delay_seconds)).await
    }

    async fn start(instance_id: &str, zone: &str, rebalance: Option<u32>, interruption: Option<u32>) -> Self {
        tokio::task::spawn_blocking(binaries).await.expect("the binaries of the testbed");
        let region = zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
        let mut config = json!({
            // No limit to how many addresses may see the notices.
            "mock-ip-count": -1,
            "metadata": { "values": {
                "instance-id": instance_id,
                "instance-life-cycle": "spot",
                "placement-availability-zone": zone,
                "placement-region": region,
            } },
            "dynamic": { "values": { "instance-identity-document": {
                "accountId": "123456789012",
                "architecture": "x86_64",
                "availabilityZone": zone,
                "imageId": "ami-0123456789abcdef0",
                "instanceId": instance_id,
                "instanceType": "m5.xlarge",
                "pendingTime": PAST,
                "privateIp": "10.0.0.10",
                "region": region,
                "version": "2017-09-30",
            } } },
            "spot": {},
        });
        // A trigger time goes before a delay.
        match rebalance {
            Some(seconds) => config["rebalance-delay-sec"] = json!(seconds),
            None => config["rebalance-trigger-time"] = json!(FUTURE),
        }
        match interruption {
            Some(seconds) => config["mock-delay-sec"] = json!(seconds),
            None => config["mock-trigger-time"] = json!(FUTURE),
        }

        let folder = Folder::create("imds").expect("a folder for the metadata mock");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let process = run(&config, address, folder.path()).await;
        Self { process: Some(process), address, config, folder }
    }

    /// Recommends to rebalance from now on.
    pub async fn announce_rebalance(&mut self) {
        self.config["rebalance-trigger-time"] = json!(PAST);
        self.restart().await;
    }

    /// The same with a notice time that stays the same (RFC 3339).
    pub async fn announce_rebalance_at(&mut self, time: &str) {
        self.config["spot"]["rebalance-rec-time"] = json!(time);
        self.announce_rebalance().await;
    }

    /// Gives the 2-minute notice from now on: the instance will be terminated at `time` (RFC 3339).
    pub async fn announce_interruption(&mut self, time: &str) {
        self.config["spot"]["time"] = json!(time);
        self.config["mock-trigger-time"] = json!(PAST);
        self.restart().await;
    }

    /// Where it answers: `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A session token, as the first request of any client asks for it.
    pub async fn token(&self) -> String {
        let headers = [("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
        let answer = self.request("PUT", "/latest/api/token", &headers).await;
        assert_eq!(answer.status, 200, "a session token: {}", answer.body);
        answer.body
    }

    /// Reads a path with a session token.
    pub async fn get(&self, token: &str, path: &str) -> HttpAnswer {
        self.request("GET", path, &[("X-aws-ec2-metadata-token", token)]).await
    }

    /// Any request, with a token or without.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
        match http(self.address, method, path, headers).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path} of the metadata mock: {error:#}"),
        }
    }

    /// The mock reads its notices at its start only. So a client meets a refused connection for a moment,
    /// and then has to ask for a new token, which it must be able to do anyway.
    async fn restart(&mut self) {
        // The old one first: it holds the port.
        self.process = None;
        self.process = Some(run(&self.config, self.address, self.folder.path()).await);
    }
}

/// Starts the mock and returns when it answers.
async fn run(config: &Value, address: SocketAddr, folder: &Path) -> Process {
    let file = folder.join("config.json");
    fs::write(&file, config.to_string()).expect("the mock's configuration");
    let mut command = Command::new(binaries().join("ec2-metadata-mock"));
    command
        .args(["spot", "--imdsv2"])
        .arg(flag("--config-file", file))
        .arg(format!("--hostname={}", address.ip()))
        .arg(format!("--port={}", address.port()));
    let mut process = Process::start("imds", command, folder).expect("the metadata mock");
    wait_for("the metadata mock to answer", Duration::from_secs(30), async || {
        process.check_alive().expect("the metadata mock runs");
        http(address, "GET", "/latest/meta-data/", &[]).await.ok()
    })
    .await;
    process
}
