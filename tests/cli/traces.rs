//! The whole story of a node is one tree of spans: from the agent's detection to the clean-up, exported by
//! OTLP when the standard variables ask for it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Takes one request in, hands its body on, and answers that all is well.
fn take_in(mut stream: TcpStream, bodies: &mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    // Whoever has its answer may end, and then all bodies are read.
    bodies.send(body).map_err(std::io::Error::other)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// The demo of a scenario, which sends its spans there.
fn demo_of(scenario: &str, endpoint: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard"));
    command.args(["demo", "--scenario", scenario, "--speed", "max", "--once"]);
    command.env("RUST_LOG", "spot_guard=info").env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    command.env_remove("OTEL_SDK_DISABLED");
    command
}

fn demo(endpoint: &str) -> Command {
    demo_of("dry-spot", endpoint)
}

/// The spans that are sent while a command runs that gets the address of the collector.
fn sent_by(command: impl FnOnce(&str) -> Command) -> Vec<Span> {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in collector.incoming().flatten() {
            // A connection without a request is none of the exporter.
            let _ = take_in(stream, &sender);
        }
    });
    let output = command(&endpoint).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bodies
        .try_iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP").resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

/// Which boxes have a span.
fn boxes_of(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().filter_map(|span| span.name.strip_prefix("box ")?.split(' ').next()).collect()
}

/// All boxes that the scenario `dry-spot` goes through.
const BOXES: [&str; 12] = ["1", "10", "11", "2", "3", "3.2", "4", "5", "6", "7", "8", "9"];

#[test]
fn a_collector_that_never_answers_holds_nothing_up() {
    // The kernel makes the connections, and nobody takes them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let runs = ["http/protobuf", "grpc"].map(|protocol| {
        let mut command = demo(&endpoint);
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).stdout(Stdio::null()).stderr(Stdio::piped());
        (protocol, command.spawn().expect("the demo starts"))
    });
    for (protocol, run) in runs {
        let output = run.wait_with_output().expect("the demo ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{protocol}: {told}");
        assert!(!told.contains("traces are not exported"), "{protocol}: {told}");
    }
}

#[test]
fn a_story_is_one_trace_from_the_notice_to_the_clean_up() {
    let spans = sent_by(demo);
    is_one_tree(&spans, "notice");
    for call in ["LaunchInstances", "TerminateInstanceInAutoScalingGroup", "evict pod", "taint node"] {
        assert!(spans.iter().any(|span| span.name == call), "{call} is a part of the trace");
    }
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), spans.len(), "none is sent twice");
    let mut boxes: Vec<&Span> = spans.iter().filter(|span| span.name.starts_with("box ")).collect();
    assert_eq!(boxes_of(&spans), BTreeSet::from(BOXES), "a span for each box that the story went through");

    let whole = spans.iter().find(|span| span.name == "replacement").expect("the whole replacement");
    let held = |span: &&Span| {
        span.parent_span_id == whole.span_id
            && span.start_time_unix_nano >= whole.start_time_unix_nano
            && span.end_time_unix_nano <= whole.end_time_unix_nano
    };
    assert!(boxes.iter().all(held), "the boxes are parts of the whole");
    boxes.sort_by_key(|span| (span.end_time_unix_nano, span.start_time_unix_nano));
    for (span, next) in boxes.iter().zip(&boxes[1..]) {
        assert!(next.start_time_unix_nano >= span.start_time_unix_nano, "{} and {}", span.name, next.name);
    }
    assert!(boxes.iter().any(|span| span.end_time_unix_nano > span.start_time_unix_nano), "boxes last");
    let failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code == ERROR);
    assert!(boxes.iter().any(failed), "that Spot has no capacity is an error");
    for key in ["spot_guard.box", "spot_guard.outcome", "spot_guard.attempt", "spot_guard.pool"] {
        let has_it = |span: &&Span| span.attributes.iter().any(|held| held.key == key);
        assert!(boxes.iter().all(has_it), "{key}");
    }
}

#[test]
fn a_replacement_with_a_failure_is_sent_with_its_calls_whatever_the_ratio_is() {
    for sampler in ["traceidratio", "parentbased_traceidratio"] {
        let sampled = |scenario: &str, endpoint: &str| {
            let mut command = demo_of(scenario, endpoint);
            command.env("OTEL_TRACES_SAMPLER", sampler).env("OTEL_TRACES_SAMPLER_ARG", "0");
            command
        };
        let spans = sent_by(|endpoint| sampled("dry-spot", endpoint));
        is_one_tree(&spans, "replacement");
        assert_eq!(boxes_of(&spans), BTreeSet::from(BOXES), "{sampler}");
        for call in CALLS_OF_A_FAILURE {
            assert!(spans.iter().any(|span| span.name == *call), "{sampler}: {call} is a part of the trace");
        }
        let smooth = sent_by(|endpoint| sampled("rebalance", endpoint));
        let names: Vec<&str> = smooth.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, [""; 0], "{sampler}: without a failure nothing is sent");
    }
}

#[test]
fn a_call_has_its_answer_and_a_span_the_wait_that_it_ended() {
    let spans = sent_by(demo);
    let launches: Vec<&Span> = spans.iter().filter(|span| span.name == "LaunchInstances").collect();
    let results: BTreeSet<&str> =
        launches.iter().filter_map(|span| text(&span.attributes, "spot_guard.result")).collect();
    assert!(results.is_superset(&BTreeSet::from(["Ok", "OutOfCapacity"])), "{results:?}");
    let has_id = |span: &&&Span| text(&span.attributes, "aws.request_id").is_some_and(|id| !id.is_empty());
    assert_eq!(launches.iter().filter(has_id).count(), launches.len(), "{launches:?}");
    let mut evictions = spans.iter().filter(|span| span.name == "evict pod");
    let accepted = |span: &Span| text(&span.attributes, "spot_guard.result") == Some("Accepted");
    assert!(evictions.any(accepted), "an eviction is accepted");

    let spans = sent_by(|endpoint| demo_of("pdb-blocked", endpoint));
    let waits = spans.iter().flat_map(|span| &span.events).filter(|event| event.name == "wait");
    let reasons: BTreeSet<&str> =
        waits.filter_map(|event| text(&event.attributes, "spot_guard.reason")).collect();
    assert!(!reasons.is_empty(), "what held the drain up is an event");
}

/// A text among attributes.
fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let held = attributes.iter().find(|held| held.key == key)?;
    match held.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Calls of a replacement that fails; the first one, before it does, is that which fails.
const CALLS_OF_A_FAILURE: &[&str] = &["LaunchInstances", "evict pod"];

/// `STATUS_CODE_ERROR` of OTLP.
const ERROR: i32 = 2;

/// One trace, one span without a parent, and no parent that is missing.
fn is_one_tree(spans: &[Span], top: &str) {
    let traces: BTreeSet<&[u8]> = spans.iter().map(|span| span.trace_id.as_slice()).collect();
    assert_eq!(traces.len(), 1, "one trace for one story");
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    let (tops, below): (Vec<&Span>, Vec<&Span>) =
        spans.iter().partition(|span| span.parent_span_id.is_empty());
    let tops: Vec<&str> = tops.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(tops, [top], "where the trace begins");
    let lost: Vec<&str> = below
        .iter()
        .filter(|span| !ids.contains(span.parent_span_id.as_slice()))
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(lost, [""; 0], "these have a parent that nobody sent");
}
