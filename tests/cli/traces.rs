//! The whole story of a node is one trace: from the agent's detection to the clean-up, exported by OTLP when
//! the standard variables ask for it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// Takes one request in, and answers that all is well.
fn take_in(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
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
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(body)
}

#[test]
fn a_story_is_one_trace_from_the_notice_to_the_clean_up() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in collector.incoming().flatten() {
            if let Ok(body) = take_in(stream)
                && sender.send(body).is_err()
            {
                return;
            }
        }
    });
    let output = Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .args(["demo", "--scenario", "dry-spot", "--speed", "max", "--once"])
        .env("RUST_LOG", "spot_guard=info")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env_remove("OTEL_SDK_DISABLED")
        .output()
        .expect("the demo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let spans: Vec<_> = bodies
        .try_iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP").resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .filter(|span| span.name.starts_with("box "))
        .collect();
    let traces: BTreeSet<&[u8]> = spans.iter().map(|span| span.trace_id.as_slice()).collect();
    assert_eq!(traces.len(), 1, "one trace for one story");
    let boxes: BTreeSet<&str> = spans.iter().filter_map(|span| span.name.split(' ').nth(1)).collect();
    let all = ["1", "10", "11", "2", "3", "3.2", "4", "5", "6", "7", "8", "9"];
    assert_eq!(boxes, BTreeSet::from(all), "a span for each box that the story went through");
}
