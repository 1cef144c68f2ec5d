//! Requests that a proxy and this server could read differently, as bytes on a connection.
//!
//! actix-http 3.20.0 reads chunked bodies that end in a bare LF (CVE-2026-134342, `known-holes.yaml`): what a
//! proxy takes for a body can hold a second request, which the proxy has not seen. Here no body in chunks is
//! read at all.

use super::*;
use futures::StreamExt;
use std::time::Instant;

/// What must never be answered.
const HIDDEN: &str = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Everything that the server says to these bytes until it closes the connection, and how long that took.
async fn told(address: std::net::SocketAddr, bytes: String) -> (String, Duration) {
    web::block(move || {
        let began = Instant::now();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut told = Vec::new();
        stream
            .read_to_end(&mut told)
            .expect("the server closes the connection, and not before it has answered");
        (String::from_utf8_lossy(&told).into_owned(), began.elapsed())
    })
    .await
    .unwrap()
}

fn answers(told: &str) -> Vec<&str> {
    told.match_indices("HTTP/1.1 ").map(|(at, _)| &told[at + 9..at + 12]).collect()
}

/// The doors that ask nobody before they answer.
async fn addresses() -> Vec<std::net::SocketAddr> {
    let reviews = Arc::new(Reviews::new(nobody(), Arc::new(Metrics::new())));
    let mut found = Vec::new();
    for door in [Door::Local, Door::Probes, Door::Main { reviews, tls: None }] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        found.push(listener.local_addr().unwrap());
        actix_web::rt::spawn(serve(listener, door, Fixture::empty().state().await).unwrap());
    }
    found
}

#[actix_web::test]
async fn a_body_in_chunks_is_refused_and_what_is_behind_it_is_never_answered() {
    // How a body may end that this parser takes, or took, for an end.
    let endings = ["0\r\n\n", "0\n\n", "0\n\r\n", "0\r\nx: y\n\n", "0\r\n\r\n", "1\r\na\n0\r\n\r\n", ""];
    let names = ["Transfer-Encoding: chunked", "tRaNsFeR-eNcOdInG: ChUnKeD", "transfer-encoding:chunked"];
    let mut cases = Vec::new();
    for address in addresses().await {
        for (ending, header) in endings.iter().flat_map(|ending| names.map(|name| (ending, name))) {
            for ask in ["POST /api/v1/pause", "GET /healthz"] {
                let head = format!("{ask} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n");
                cases.push((address, format!("{head}{ending}{HIDDEN}{HIDDEN}")));
            }
        }
    }
    // A few at a time: a peer has few places at the port for probes.
    let asked =
        cases.into_iter().map(|(address, bytes)| async move { (bytes.clone(), told(address, bytes).await) });
    let all: Vec<_> = futures::stream::iter(asked).buffer_unordered(8).collect().await;
    assert_eq!(all.len(), 3 * endings.len() * names.len() * 2);
    for (bytes, (told, took)) in all {
        assert_eq!(answers(&told), ["411"], "{bytes:?}: {told}");
        assert!(told.contains("connection: close\r\n"), "{told}");
        assert!(told.contains("application/problem+json"), "{told}");
        assert!(told.contains(r#""reason":"LengthRequired""#), "{told}");
        assert!(!told.contains("openapi"), "{told}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[actix_web::test]
async fn heads_that_contradict_themselves_are_answered_once_and_with_no_more_than_a_refusal() {
    let cases = [
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/pause HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: identity\r\n\r\n", "400"),
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n",
            "400",
        ),
        // A request in chunks behind a good one: the good one is answered.
        (
            "GET /none HTTP/1.1\r\nhost: localhost\r\n\r\nPOST /none HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n",
            "404 411",
        ),
    ];
    for address in addresses().await {
        for (bytes, expected) in cases {
            let (told, _) = told(address, format!("{bytes}{HIDDEN}")).await;
            assert_eq!(answers(&told).join(" "), expected, "{bytes:?}: {told}");
            assert!(!told.contains("openapi"), "{told}");
        }
    }
}
