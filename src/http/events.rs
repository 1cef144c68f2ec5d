//! `/api/v1/events`: every step as it happens, as server-sent events.
//!
//! Each stream has a queue of its own that is bounded: a reader that does not keep up is dropped, and never slows
//! what it reads about. A stream begins with now; what was before is in `/api/v1/replacements`.

use super::ApiState;
use super::problem;
use crate::core::record::StepRecord;
use crate::crd::NodeReplacement;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use kube::ResourceExt;
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Streams that are served at the same time by one replica.
pub(super) const MAX_STREAMS: usize = 32;
/// Messages that a reader may be behind.
const BACKLOG: usize = 256;
/// Changes within this time are told as one.
const SETTLE: Duration = Duration::from_millis(100);
/// A comment goes out this often when nothing happens, so that proxies keep the connection and a reader that is
/// gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A step with the story that it belongs to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    replacement: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(flatten)]
    step: &'a StepRecord,
}

pub(super) async fn events(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    // The permit goes with the stream.
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        return problem::unavailable(&request, &format!("{MAX_STREAMS} streams are open already"));
    };
    let (sender, receiver) = mpsc::channel(BACKLOG);
    actix_web::rt::spawn(async move {
        follow(&state, &sender).await;
        drop(permit);
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let message: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(message), receiver))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(stream)
}

/// Tells what is new until the reader is gone or too far behind.
async fn follow(state: &ApiState, reader: &mpsc::Sender<Bytes>) {
    let mut changes = state.changes.clone();
    let mut known = by_name(state);
    if reader.try_send(Bytes::from_static(b": what happens from now on\n\n")).is_err() {
        return;
    }
    loop {
        let woken = tokio::time::timeout(KEEP_ALIVE, changes.changed()).await;
        let told = match woken {
            Err(_) => vec![Bytes::from_static(b":\n\n")],
            Ok(Err(_)) => return,
            Ok(Ok(())) => {
                tokio::time::sleep(SETTLE).await;
                changes.mark_unchanged();
                let now = by_name(state);
                let mut told = new_steps(&known, &now);
                told.push(message("changed", "{}"));
                known = now;
                told
            }
        };
        for message in told {
            if reader.try_send(message).is_err() {
                return;
            }
        }
    }
}

fn by_name(state: &ApiState) -> BTreeMap<String, Arc<NodeReplacement>> {
    state.replacements.state().into_iter().map(|record| (record.name_any(), record)).collect()
}

fn steps(record: &NodeReplacement) -> &[StepRecord] {
    record.status.as_ref().map_or(&[], |status| &status.steps)
}

/// The steps that were not there before, by time.
fn new_steps(
    before: &BTreeMap<String, Arc<NodeReplacement>>,
    now: &BTreeMap<String, Arc<NodeReplacement>>,
) -> Vec<Bytes> {
    let mut found: Vec<Step<'_>> = Vec::new();
    for (name, record) in now {
        let known = before.get(name);
        if known.is_some_and(|known| Arc::ptr_eq(known, record)) {
            continue;
        }
        let known = known.map_or(&[][..], |known| steps(known));
        let fresh = steps(record).iter().filter(|step| !known.contains(step));
        let pool = record.spec.pool.as_deref();
        found.extend(fresh.map(|step| Step { replacement: name, pool, step }));
    }
    found.sort_by_key(|told| told.step.at);
    found
        .iter()
        .filter_map(|told| serde_json::to_string(told).ok())
        .map(|data| message("step", &data))
        .collect()
}

/// A message of the stream; `data` has no line breaks (WHATWG HTML, server-sent events).
fn message(event: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}
