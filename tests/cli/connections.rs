//! Crowds at the ports of the agent and of the controller: probes are answered all the same.
//!
//! Both are the real processes. Neither needs an API server to answer a probe, so there is none.

use crate::crowd::{Crowd, PACE, PROBER};
use crate::stub::{Asked, Stub};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long probes are sent into a crowd.
const FOR: Duration = Duration::from_secs(8);

/// A process, which ends with this value.
pub struct Service {
    child: Child,
    folder: TempDir,
}

impl Service {
    /// `spot-guard` with these arguments and a kubeconfig of an API server that is not there.
    fn start(arguments: &[String]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same with more variables.
    fn start_with(arguments: &[String], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = folder.path().join("kubeconfig");
        let text = "{apiVersion: v1, kind: Config, current-context: c, \
                    clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: u, user: {}}], \
                    contexts: [{name: c, context: {cluster: c, user: u}}]}";
        fs::write(&kubeconfig, text).expect("a kubeconfig");
        let config = folder.path().join("spot-guard.yaml");
        fs::write(&config, "").expect("a configuration");
        let is_controller = arguments.first().is_some_and(|role| role == "controller");
        let mut command = Command::new(match is_controller {
            true => env!("CARGO_BIN_EXE_spot-guard"),
            false => env!("CARGO_BIN_EXE_spot-guard-agent"),
        });
        command.args(arguments).arg("--kubeconfig").arg(kubeconfig).env_clear().env("RUST_LOG", "error");
        if is_controller {
            command.arg("--config").arg(config);
        }
        command.envs([
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", "http://127.0.0.1:1"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]);
        command.envs(variables.iter().copied());
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("spot-guard starts");
        Self { child, folder }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    /// Writes its configuration anew.
    fn configure(&self, text: &str) {
        fs::write(self.folder.path().join("spot-guard.yaml"), text).expect("a configuration");
    }

    /// A figure of the process in MiB, as /proc has it.
    fn mebibytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a figure");
        let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB").trim();
        kibibytes.parse::<u64>().expect("a number") / 1024
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((PROBER, 0)).and_then(|listener| listener.local_addr()).expect("a port")
}

pub fn agent() -> (Service, SocketAddr) {
    let address = free_address();
    let arguments = ["--node-name", "node-1", "--listen", &address.to_string()].map(str::to_owned);
    let service = Service::start(&arguments);
    answers_in_time(address, "/livez");
    (service, address)
}

/// A controller with its main port and that for probes.
fn controller() -> (Service, SocketAddr, SocketAddr) {
    let (service, [main, _, probes]) = controller_with_ports();
    (service, main, probes)
}

/// A controller with its main port, its local one, and that for probes.
pub fn controller_with_ports() -> (Service, [SocketAddr; 3]) {
    let [main, local, probes] = [(); 3].map(|()| free_address());
    let mut arguments = vec!["controller".to_owned()];
    for (option, address) in [("--listen", main), ("--local-listen", local), ("--probe-listen", probes)] {
        arguments.extend([option.to_owned(), address.to_string()]);
    }
    let service = Service::start(&arguments);
    answers_in_time(probes, "/healthz");
    (service, [main, local, probes])
}

/// Waits until the process answers.
fn answers_in_time(address: SocketAddr, path: &str) {
    let began = Instant::now();
    while probe(address, path).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "{address} does not answer");
        std::thread::park_timeout(PACE);
    }
}

/// The status of an answer, as a kubelet asks for it: on a connection of its own.
pub fn probe(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.get(9..12)?.parse().ok()
}

/// Sends probes for a while and demands each answer within a second.
#[track_caller]
fn every_probe_is_answered_within_a_second(address: SocketAddr, path: &str) {
    let (began, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < FOR {
        let sent = Instant::now();
        assert_eq!(probe(address, path), Some(200), "probe {count} after {:?}", sent.elapsed());
        slowest = slowest.max(sent.elapsed());
        count += 1;
        std::thread::park_timeout(PACE);
    }
    println!("{count} probes of {path}, the slowest answered in {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(count > 40, "{count} probes");
}

/// One at a time: each crowd takes a core.
static TURNS: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn the_metadata_service_is_never_asked_through_a_proxy() {
    let reads_metadata = |asked: &Asked| asked.line.contains("/latest/");
    let imds = Stub::answering(|_| (404, String::new()));
    let proxy = Stub::answering(|_| (404, String::new()));
    let (imds_url, proxy_url) = (imds.url(), proxy.url());
    let arguments = ["--node-name", "node-1"].map(str::to_owned);
    let _agent = Service::start_with(
        &arguments,
        &[
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds_url),
            ("HTTP_PROXY", &proxy_url),
            ("http_proxy", &proxy_url),
            ("HTTPS_PROXY", &proxy_url),
            ("ALL_PROXY", &proxy_url),
        ],
    );
    let began = Instant::now();
    while !imds.asked().iter().any(reads_metadata) {
        let by_proxy = proxy.asked().into_iter().find(reads_metadata);
        assert!(by_proxy.is_none(), "asked through the proxy: {by_proxy:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "nobody reads the metadata");
        std::thread::park_timeout(PACE);
    }
    assert!(!proxy.asked().iter().any(reads_metadata));
}

#[test]
fn region_and_credentials_of_the_instance_itself_are_never_asked_through_a_proxy() {
    let region = ("AWS_REGION", "us-east-1");
    for (command, variable, path, more) in [
        ("lookback", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "/latest/", None),
        ("check", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "/latest/", None),
        ("check", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "/credentials", Some(region)),
    ] {
        let instance = Stub::answering(|_| (404, String::new()));
        let proxy = Stub::answering(|_| (404, String::new()));
        let (proxy_url, folder) = (proxy.url(), tempfile::tempdir().expect("a folder"));
        let url = match more {
            Some(_) => format!("{}{path}", instance.url()),
            None => instance.url(),
        };
        let output = Command::new(env!("CARGO_BIN_EXE_spot-guard"))
            .args([command, "--spot-group", "spot", "--on-demand-group", "od"])
            .env_clear()
            .env("HOME", folder.path())
            .env(variable, url)
            .envs(more)
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, &proxy_url)))
            .output()
            .expect("spot-guard runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let reads = |asked: &Asked| asked.line.contains(path);
        assert!(instance.asked().iter().any(reads), "{command} {variable}: {told}");
        let by_proxy = proxy.asked().into_iter().find(reads);
        assert!(by_proxy.is_none(), "{command} {variable}: asked through the proxy: {by_proxy:?}");
    }
}

#[test]
fn a_crowd_at_the_agents_port_keeps_no_probe_out_and_takes_little_memory() {
    let _turn = TURNS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (service, address) = agent();
    let before = service.mebibytes("VmRSS");
    let crowd = Crowd::at(&[address]);
    every_probe_is_answered_within_a_second(address, "/livez");
    drop(crowd);
    let most = service.mebibytes("VmHWM");
    println!("the agent had {before} MiB before the crowd, and {most} MiB at most");
    assert!(most < before + 16, "{most} MiB, {before} MiB before");
}

#[test]
fn a_crowd_at_all_ports_of_a_controller_keeps_no_probe_out_and_takes_little_memory() {
    let _turn = TURNS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (service, main, probes) = controller();
    let before = service.mebibytes("VmRSS");
    let crowd = Crowd::at(&[main]);
    every_probe_is_answered_within_a_second(probes, "/healthz");
    // Who asks the API gets in, too.
    every_probe_is_answered_within_a_second(main, "/docs");
    drop(crowd);
    let crowd = Crowd::at(&[main, probes]);
    every_probe_is_answered_within_a_second(probes, "/healthz");
    drop(crowd);
    let most = service.mebibytes("VmHWM");
    println!("the controller had {before} MiB before the crowds, and {most} MiB at most");
    assert!(most < before + 64, "{most} MiB, {before} MiB before");
}

#[test]
fn the_agent_refuses_bodies_in_chunks_and_ends_their_connection() {
    let (_service, address) = agent();
    for ending in ["0\r\n\n", "0\n\n", "0\n\r\n", "0\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let hidden = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let request =
            format!("POST /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{ending}{hidden}");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("the connection is closed");
        assert!(told.starts_with("HTTP/1.1 411 "), "{told}");
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{told}");
    }
    assert_eq!(probe(address, "/livez"), Some(200));
}

#[test]
fn the_filter_of_the_logs_follows_the_configuration_while_the_process_runs() {
    let (service, _, probes) = controller();
    let tells = |wanted: &str| {
        let began = Instant::now();
        while !service.log().contains(wanted) {
            assert!(began.elapsed() < Duration::from_secs(60), "no {wanted:?} in\n{}", service.log());
            std::thread::park_timeout(PACE);
        }
    };
    assert!(!service.log().contains("INFO"), "{}", service.log());
    service.configure("logFilter: spot_guard=info");
    tells("the logs have another filter now");
    service.configure("logFilter: '[['");
    tells("logFilter");
    assert_eq!(probe(probes, "/healthz"), Some(200));
    let (lines, before) = (service.log(), "before=");
    assert_eq!(lines.matches(before).count(), 1, "a filter that cannot be read changes nothing: {lines}");
}
