//! What traces cost: the processor time of a storm of replacements with the export of spans and without it.
//!
//! Spans are exported by a process once and for all, so each storm runs in a process of its own (this program
//! again), and sends its spans to this one. A storm is that of the controller, on simulated time: no agent
//! runs beside it.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a measurement may fail")]

use kube::api::{Api, PostParams};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, InterruptionNoticeSpec, NodeReplacement, notice_name};
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::scenario::{Plot, Scenario};
use spot_guard::sim::world::{App, Gates, SPOT, WorldOptions};
use spot_guard::telemetry;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::NoticeKind;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Tells this program that it is to play a storm, of so many replacements.
const ROLE: &str = "TRACED_STORM";
/// Replacements of a storm, unless REPLACEMENTS says otherwise.
const REPLACEMENTS: u32 = 500;
/// Storms of each kind.
const PAIRS: usize = 5;
/// Traces may cost so much of a storm.
const MOST: f64 = 1.10;
/// A storm is over after so much simulated time.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(replacements) = number(ROLE) {
        println!("{}", play(replacements));
        return ExitCode::SUCCESS;
    }
    let replacements = number("REPLACEMENTS").unwrap_or(REPLACEMENTS);
    let (url, spans) = sink();
    println!(
        "| {replacements} replacements | without traces, s | with traces, s | ratio |\n|---|---|---|---|"
    );
    let (mut ratios, mut extra) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut seconds = [0.0; 2];
        // What changes with time on the machine meets both in turn.
        for traced in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            seconds[usize::from(traced)] = storm(replacements, traced.then_some(&*url));
        }
        let [without, with] = seconds;
        println!("| pair {} | {without:.2} | {with:.2} | {:.3} |", pair + 1, with / without);
        ratios.push(with / without);
        extra.push(with - without);
    }
    let each = spans.load(Relaxed) / PAIRS;
    assert!(each > 0, "no span was sent");
    let (ratio, extra) = (median(ratios), median(extra));
    println!("ratio {ratio:.3} (median), {each} spans, {:.1} µs per span", extra * 1e6 / each as f64);
    if ratio > MOST { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Plays a storm in a process of its own, and gives the seconds of processor time that it took.
fn storm(replacements: u32, endpoint: Option<&str>) -> f64 {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.env(ROLE, replacements.to_string()).env("RUST_LOG", "off");
    command.envs(endpoint.map(|url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url)));
    let output = command.stderr(Stdio::inherit()).output().expect("the storm runs");
    assert!(output.status.success(), "the storm ended with {}", output.status);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    told.trim().parse().unwrap_or_else(|_| panic!("no number: {told}"))
}

/// Takes spans in and counts them. Returns where.
fn sink() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Of a connection that broke off nothing is counted.
            counted.fetch_add(take_in(stream).unwrap_or(0), Relaxed);
        }
    });
    (url, count)
}

/// Answers one request, and tells how many spans it has.
fn take_in(mut stream: TcpStream) -> std::io::Result<usize> {
    let mut request: Vec<u8> = Vec::new();
    let mut part = [0; 1 << 16];
    loop {
        let head = request.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let length = head.map(|head| content_length(&request[..head]));
        if let Some((head, length)) = head.zip(length).filter(|(head, length)| request.len() >= head + length)
        {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            let body = ExportTraceServiceRequest::decode(&request[head..head + length]);
            let resources = body.map_err(std::io::Error::other)?.resource_spans;
            let scopes = resources.iter().flat_map(|resource| &resource.scope_spans);
            return Ok(scopes.map(|scope| scope.spans.len()).sum());
        }
        match stream.read(&mut part)? {
            0 => return Ok(0),
            read => request.extend_from_slice(&part[..read]),
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.expect("a length")
}

/// Plays a storm, and gives the seconds of processor time from the notices until all is over and sent.
fn play(replacements: u32) -> f64 {
    let telemetry = telemetry::tracing::init(None).expect("logs are set up once");
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    let began = system.block_on(async {
        let clock = Clock::simulated("2026-01-01T03:00:00Z".parse().expect("a time"));
        let stage = WorldOptions { plays_machines: false, ..WorldOptions::default() };
        let run = ScenarioRun::begin_on("storm".to_owned(), plot(replacements), clock, 1, stage).await;
        let run = run.expect("the world begins");
        run.world.cloud.edit_group(SPOT, |group| group.max = 4 * replacements).expect("a group");
        let end = Shutdown::new();
        let mut leading = run.controller("bench", Gates::default(), &end).leading;
        leading.wait_for(|leads| *leads).await.expect("it lives");
        let began = processor_time();
        announce(&run).await;
        let is_over = |record: &&NodeReplacement| {
            record.status.as_ref().is_some_and(|status| status.finished_at.is_some())
        };
        while run.records().await.iter().filter(is_over).count() < replacements as usize {
            assert!(run.elapsed() < LIMIT, "the storm is stuck");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        began
    });
    // What is left of the spans is sent.
    drop(telemetry);
    (processor_time() - began).as_secs_f64()
}

/// Nodes with one pod each, which may all be replaced at the same time.
fn plot(nodes: u32) -> Plot {
    let mut plot = Scenario::Rebalance.plot();
    plot.script.clear();
    plot.start.spot_nodes = nodes;
    plot.start.policy = PolicySpec {
        max_concurrent_replacements: Some(nodes),
        max_concurrent_percent: Some(100),
        brake_interruptions: Some(10_000),
        ..PolicySpec::default()
    };
    plot.start.apps = vec![App {
        name: "web".to_owned(),
        replicas: nodes,
        cpu_millis: 3000,
        memory_mib: 64,
        max_unavailable: Some((nodes / 5).max(1)),
    }];
    plot
}

/// EC2 recommends to rebalance each Spot instance.
async fn announce(run: &ScenarioRun) {
    let notices: Api<InterruptionNotice> = Api::all(run.world.client.clone());
    let kind = NoticeKind::RebalanceRecommendation;
    for instance in run.spot_instances() {
        let node = run.world.cloud.node_of(instance).expect("a node").node_name;
        let name = notice_name(&node.as_str().into(), &instance.as_str().into(), kind);
        let spec = InterruptionNoticeSpec {
            node_name: node.into(),
            instance_id: instance.as_str().into(),
            kind,
            notice_time: None,
            deadline: None,
            detected_at: run.world.clock.now(),
            traceparent: None,
        };
        let notice = InterruptionNotice::new(&name, spec);
        notices.create(&PostParams::default(), &notice).await.expect("a notice is taken");
    }
}

/// The processor time of all threads of this process.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain system call that fills the struct.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the clock can be read");
    let part = |count: i64| u64::try_from(count).expect("time that has passed");
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
