//! Requests that are not HTTP/1.1 at every port of the real processes: each is refused in the form of our
//! other errors, nothing stays open, and nobody fills the log.

use crate::connections::{Service, agent, controller_with_ports, probe};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A head, or a body, is waited for so long (`REQUEST_TIMEOUT`), and so is the end of what nobody reads.
const SOON: Duration = Duration::from_secs(12);

/// What the port says to these bytes until it closes the connection. They are sent over and over if
/// `endless`.
#[track_caller]
fn told(address: SocketAddr, bytes: &[u8], endless: bool) -> String {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    let (mut sender, bytes) = (stream.try_clone().expect("a second handle"), bytes.to_vec());
    sender.set_write_timeout(Some(SOON)).expect("a limit");
    let sends = std::thread::spawn(move || {
        // The port may close before all is sent.
        while sender.write_all(&bytes).is_ok() && endless && began.elapsed() < SOON {}
    });
    let mut told = Vec::new();
    stream.read_to_end(&mut told).expect("an answer, and then the end of the connection");
    drop(stream);
    sends.join().expect("it ends");
    assert!(began.elapsed() < SOON, "open for {:?}", began.elapsed());
    String::from_utf8(told).expect("text")
}

/// That the answer is a refusal with this status and reason, in full, and the only one.
#[track_caller]
fn is_refused(told: &str, status: u16, reason: &str, case: &str) {
    let (head, body) = told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{case}: no answer: {told:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {told}");
    for header in ["content-type: application/problem+json", "connection: close"] {
        assert!(head.contains(header), "{case}: {told}");
    }
    assert!(head.contains(&format!("content-length: {}", body.len())), "{case}: {told}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{case}: {error}: {told}"));
    assert_eq!((&problem["status"], &problem["reason"]), (&status.into(), &reason.into()), "{case}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{case}: {told}");
}

/// A head with one line of its own.
fn with(line: &str) -> Vec<u8> {
    format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{line}\r\n\r\n").into_bytes()
}

/// What cannot be read, by name.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("no request line", b"NONSENSE\r\n\r\n".to_vec()),
        ("a line of words", b"what do you know of my nodes\r\n\r\n".to_vec()),
        ("an unknown version", b"GET /livez HTTP/9.9\r\nhost: localhost\r\n\r\n".to_vec()),
        ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("no host", b"GET /livez HTTP/1.1\r\n\r\n".to_vec()),
        ("a target with a space", b"GET /li vez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5c\xd1\x00\x0a\r\n\r\n".to_vec()),
        ("bytes of all values", (0..=255).cycle().take(8192).collect()),
    ];
    let lines = [
        ("a header without a colon", "no colon here"),
        ("a header without a name", ": value"),
        ("a header with a space in its name", "my header: value"),
        ("a folded header", "x: a\r\n b"),
        ("a control character in a header", "x: a\u{1}b"),
        ("a length in words", "content-length: five"),
        ("a negative length", "content-length: -1"),
        ("a signed length", "content-length: +5"),
        ("a length beyond all numbers", "content-length: 99999999999999999999999999"),
        ("a list of lengths", "content-length: 5, 6"),
        ("two lengths", "content-length: 0\r\ncontent-length: 5"),
        ("a length and chunks", "content-length: 5\r\ntransfer-encoding: chunked"),
    ];
    cases.extend(lines.map(|(name, line)| (name, with(line))));
    cases
}

/// Everything at one port.
#[track_caller]
fn refuses_what_is_malformed(address: SocketAddr) {
    for (case, bytes) in unreadable() {
        is_refused(&told(address, &bytes, false), 400, "RequestUnreadable", case);
        // Whatever follows is neither answered nor waited for.
        let more = [&bytes[..], &with("x: y").repeat(100)].concat();
        is_refused(&told(address, &more, false), 400, "RequestUnreadable", case);
    }
    let long = with(&format!("x: {}", "y".repeat(1_000_000)));
    is_refused(&told(address, &long, false), 431, "HeadersTooLong", "a long head");
    let many = with(&vec!["x: y"; 500].join("\r\n"));
    is_refused(&told(address, &many, false), 431, "HeadersTooLong", "many headers");
    for (case, bytes) in [("letters", &b"AAAAAAAAAAAAAAAA"[..]), ("empty lines", b"\r\n\r\n\r\n\r\n")] {
        let bytes = bytes.repeat(1000);
        is_refused(&told(address, &bytes, true), 431, "HeadersTooLong", &format!("{case} without an end"));
    }
    let chunks = with("transfer-encoding: chunked");
    for broken in ["zz\r\nabc\r\n", "5\r\nabc", "ffffffffffffffffffff\r\n", "-1\r\n"] {
        let told = told(address, &[&chunks[..], broken.as_bytes()].concat(), false);
        assert!(told.starts_with("HTTP/1.1 411 "), "{broken:?}: {told}");
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{told}");
    }
    let half = b"GET /livez HTTP/1.1\r\nhost: localh";
    is_refused(&told(address, half, false), 408, "HeadTooSlow", "half a head");
    is_refused(&told(address, b"", false), 408, "HeadTooSlow", "nothing at all");
    // Behind a good request: that one is answered first.
    let behind = b"GET /none HTTP/1.1\r\nhost: localhost\r\n\r\nNONSENSE\r\n\r\n";
    let told = told(address, behind, false);
    let second = told.rfind("HTTP/1.1 ").expect("an answer");
    assert!(second > 0 && told.starts_with("HTTP/1.1 404"), "{told}");
    is_refused(&told[second..], 400, "RequestUnreadable", "behind a good request");
}

/// How many connections a port ended for this reason, as `/metrics` says.
fn ended(metrics: SocketAddr, listener: &str, reason: &str) -> u64 {
    let text = told(metrics, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", false);
    let name =
        format!("spot_guard_http_connections_ended_total{{listener=\"{listener}\",reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name)).expect("a counter");
    count.trim().parse().expect("a number")
}

#[track_caller]
fn nothing_broke(service: &Service) {
    let log = service.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("stream error"), "a line for each refused request: {log}");
}

#[test]
fn what_is_no_http_is_refused_counted_and_closed_at_the_agents_port() {
    let (service, address) = agent();
    refuses_what_is_malformed(address);
    assert_eq!(probe(address, "/livez"), Some(200));
    assert!(ended(address, "Probes", "Unreadable") >= 2 * unreadable().len() as u64);
    assert!(ended(address, "Probes", "TooSlow") >= 2);
    nothing_broke(&service);
}

#[test]
fn what_is_no_http_is_refused_counted_and_closed_at_every_port_of_the_controller() {
    let (service, ports) = controller_with_ports();
    std::thread::scope(|scope| {
        for port in ports {
            scope.spawn(move || refuses_what_is_malformed(port));
        }
    });
    let [_, _, probes] = ports;
    assert_eq!(probe(probes, "/healthz"), Some(200));
    for listener in ["Api", "Local", "Probes"] {
        assert!(ended(probes, listener, "Unreadable") >= 2 * unreadable().len() as u64, "{listener}");
        assert!(ended(probes, listener, "TooSlow") >= 2, "{listener}");
    }
    nothing_broke(&service);
}

#[test]
fn a_body_of_another_length_than_announced_is_refused_or_ends_the_connection() {
    let (service, [main, ..]) = controller_with_ports();
    // The handler of messages that are signed reads the body before it looks at anything else.
    let signed = |length: usize, body: &str| {
        format!(
            "POST /webhooks/v1/scale-down HTTP/1.1\r\nhost: localhost\r\nwebhook-id: m\r\nwebhook-timestamp: 1\r\n\
             webhook-signature: v1,AA==\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let short = told(main, signed(500, "{}").as_bytes(), false);
    assert!(short.starts_with("HTTP/1.1 408 ") && short.contains("BodyTooSlow"), "{short}");
    let long = told(main, signed(2, "{} and what was not announced\r\n\r\n").as_bytes(), false);
    assert!(long.starts_with("HTTP/1.1 401 "), "{long}");
    let second = long.rfind("HTTP/1.1 ").expect("an answer");
    assert!(second > 0, "{long}");
    is_refused(&long[second..], 400, "RequestUnreadable", "behind a body");
    let huge = told(main, signed(usize::MAX >> 1, &"x".repeat(100_000)).as_bytes(), false);
    assert!(huge.starts_with("HTTP/1.1 413 ") && huge.contains("BodyTooLong"), "{huge}");
    nothing_broke(&service);
}
