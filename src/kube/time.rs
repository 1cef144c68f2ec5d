//! The API server's clock is the one that counts: what it stores is stored with its time, and a deadline is
//! compared with it.

use crate::clock::Clock;
use http::header::DATE;
use jiff::fmt::rfc2822;
use kube::Client;
use kube::client::Body;
use spot_guard_core::time::behind_by;
use std::sync::atomic::{AtomicI64, Ordering};

/// The same client, which sets `behind` by the date of each answer: by how many milliseconds `own` is behind.
#[must_use]
pub fn heeding_time(client: &Client, own: Clock, behind: &'static AtomicI64) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move {
            let sent = own.now();
            let answer = client.send(request).await?;
            let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|text| rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
            if let Some(date) = date {
                let known = behind.load(Ordering::Relaxed);
                behind.store(behind_by(date, sent, own.now(), known), Ordering::Relaxed);
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, namespace)
}
