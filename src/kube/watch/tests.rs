use super::*;
use crate::kube::client::bounded;
use crate::kube::slim::Pod;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use std::convert::Infallible;

const SMALL: usize = 600;
const HUGE: usize = 40;
const HUGE_BYTES: usize = 100_000;
/// So many bytes arrive in a second.
const RATE: f64 = 200_000.0;

/// An API server with small objects, then huge ones, behind a slow network.
fn slow() -> Client {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let number = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok())
        };
        let from: usize = number("continue").unwrap_or(0);
        let to = (from + number("limit").unwrap_or(0)).min(SMALL + HUGE);
        let items = (from..to).map(|at| {
            let filler = if at < SMALL { String::new() } else { "x".repeat(HUGE_BYTES) };
            json!({ "metadata": { "name": at.to_string() }, "filler": filler }).to_string()
        });
        let next = if to < SMALL + HUGE { to.to_string() } else { String::new() };
        let rest = json!({ "resourceVersion": "7", "continue": next });
        let items: Vec<String> = items.collect();
        let text = format!("{{\"metadata\":{rest},\"items\":[{}]}}", items.join(","));
        let frames: Vec<Bytes> = text.into_bytes().chunks(50_000).map(Bytes::copy_from_slice).collect();
        let frames = stream::iter(frames).then(|bytes| async move {
            sleep(Duration::from_secs_f64(bytes.len() as f64 / RATE)).await;
            Ok::<_, Infallible>(Frame::data(bytes))
        });
        Ok::<_, Infallible>(http::Response::new(StreamBody::new(frames)))
    });
    bounded(&Client::new(service, "default"), REQUEST_TIMEOUT, std::sync::Arc::default())
}

#[tokio::test(start_paused = true)]
async fn small_objects_before_huge_ones_do_not_keep_a_list_from_its_end() {
    let mut source = Source::new(slow(), "/api/v1/pods");
    let began = Instant::now();
    let mut failures = 0;
    loop {
        let mut named = 0;
        let listed =
            source.list::<Pod>(&mut |told| named += usize::from(matches!(told, WatchSignal::Is(_)))).await;
        if listed.is_ok() {
            assert_eq!(named, SMALL + HUGE);
            break;
        }
        failures += 1;
        assert!(failures < 10, "the list never ends");
    }
    assert!(began.elapsed() < Duration::from_secs(200));
    // Larger pages are tried again by the next list, once.
    let small = source.ceiling;
    if source.list::<Pod>(&mut |_| {}).await.is_err() {
        assert!(source.ceiling < small);
        source.list::<Pod>(&mut |_| {}).await.expect("smaller pages come in time");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_makes_no_page_small() {
    let service = tower::service_fn(|_: http::Request<Body>| async move {
        Err::<http::Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let mut source = Source::new(Client::new(service, "default"), "/api/v1/pods");
    for _ in 0..20 {
        source.list::<Pod>(&mut |_| {}).await.expect_err("nobody answers");
    }
    assert_eq!(source.ceiling, PAGE);
}
