//! `/api/v1/events`: every step as it happens, as server-sent events.
//!
//! Each stream has a queue of its own that is bounded: a reader that does not keep up is dropped, and never
//! slows what it reads about. A stream begins with now; what was before is in `/api/v1/replacements`. Each
//! step has an id: who comes back with the last one (`Last-Event-ID`) is told what was missed, out of the
//! records. Its token is looked at again every minute, and the stream ends when that is not good for it any
//! more.

use super::ApiState;
use super::access::{Caller, Denial, Pass, Resource, Verb};
use super::problem::{self, ProblemReason, Refused};
use crate::crd::NodeReplacement;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use spot_guard_core::ids::ReplacementName;
use spot_guard_core::record::StepRecord;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Messages that a reader may be behind.
const BACKLOG: usize = 256;
/// Changes within this time are told as one.
const SETTLE: Duration = Duration::from_millis(100);
/// A comment goes out this often when nothing happens, so that proxies keep the connection and a reader that
/// is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The token of a stream is looked at again this often.
const LOOK: Duration = Duration::from_secs(60);
/// The header with the id of the last message that a reader knows (WHATWG HTML, server-sent events).
const LAST_EVENT_ID: &str = "last-event-id";
/// What was so shortly before that is told once more: the watch does not bring the steps of all replacements
/// in their order.
const SLACK: SignedDuration = SignedDuration::from_secs(10);
/// So many steps are told at most to a reader who comes back: the last ones.
const MOST_MISSED: usize = 128;
/// A stream whose token could not be looked at for this many times ends.
const MAX_UNKNOWN: u32 = 3;

/// A step with the replacement that it belongs to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    replacement: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(flatten)]
    step: &'a StepRecord,
}

impl<'a> Step<'a> {
    fn of(record: &'a NodeReplacement, step: &'a StepRecord) -> Self {
        let replacement = record.metadata.name.as_deref().unwrap_or_default();
        Self { replacement, pool: record.spec.pool.as_deref(), step }
    }

    /// As a message of the stream. Its id is the time and the replacement; nothing of it has a line break.
    fn message(&self) -> Option<Bytes> {
        let data = serde_json::to_string(self).ok()?;
        let id = format!("{}/{}", self.step.at, self.replacement);
        Some(Bytes::from(format!("event: step\nid: {id}\ndata: {data}\n\n")))
    }
}

/// From when on the reader has missed something, if it comes back.
fn missed_since(request: &HttpRequest) -> Result<Option<Timestamp>, Refused> {
    let Some(header) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let id = header.to_str().ok().and_then(|text| text.split_once('/')?.0.parse::<Timestamp>().ok());
    let since = id.and_then(|at| at.checked_sub(SLACK).ok());
    since.map(Some).ok_or_else(|| {
        let detail = "it is not the id of a message of this stream".to_owned();
        Refused::field(request, LAST_EVENT_ID, detail)
    })
}

pub(super) async fn events(state: Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let missed = match missed_since(&request) {
        Ok(missed) => missed,
        Err(refused) => return refused.error_response(),
    };
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    // The place goes with the stream.
    let place = match state.streams.open(caller.as_ref().map(|caller| caller.user.as_str())) {
        Ok(place) => place,
        Err(why) => return problem::unavailable(ProblemReason::TooManyStreams, &request, &why),
    };
    let pass = Pass::of(&request, Verb::List, Resource::Replacements);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    actix_web::rt::spawn(async move {
        follow(&state, &sender, missed, pass.as_ref()).await;
        drop(place);
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

/// Tells what is new until the reader is gone, too far behind, or not to be told any more.
async fn follow(
    state: &ApiState,
    reader: &mpsc::Sender<Bytes>,
    missed: Option<Timestamp>,
    pass: Option<&Pass>,
) {
    let mut changes = state.changes.clone();
    changes.mark_unchanged();
    let mut known = by_name(state);
    let first = [Bytes::from_static(b": what happens from now on\n\n")];
    for message in first.into_iter().chain(missed.into_iter().flat_map(|since| steps_since(&known, since))) {
        if reader.try_send(message).is_err() {
            return;
        }
    }
    let (mut next_look, mut unknown) = (Instant::now() + LOOK, 0);
    loop {
        let woken = tokio::select! {
            // Its place is free at once: a page that is loaded again needs it.
            () = reader.closed() => return,
            woken = tokio::time::timeout(KEEP_ALIVE, changes.changed()) => woken,
        };
        if let Some(pass) = pass.filter(|_| next_look <= Instant::now()) {
            unknown = match pass.check().await {
                Ok(()) => 0,
                Err(Denial::Unknown) if unknown + 1 < MAX_UNKNOWN => unknown + 1,
                Err(_) => return,
            };
            next_look = Instant::now() + LOOK;
        }
        let told = match woken {
            Err(_) => vec![Bytes::from_static(b":\n\n")],
            Ok(Err(_)) => return,
            Ok(Ok(())) => {
                tokio::time::sleep(SETTLE).await;
                changes.mark_unchanged();
                let now = by_name(state);
                let mut told = new_steps(&known, &now);
                told.push(changed());
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

fn by_name(state: &ApiState) -> BTreeMap<ReplacementName, Arc<NodeReplacement>> {
    state.replacements.state().into_iter().map(|record| (record.replacement_name(), record)).collect()
}

fn steps(record: &NodeReplacement) -> &[StepRecord] {
    record.status.as_ref().map_or(&[], |status| &status.steps)
}

/// The steps that were not there before, by time.
fn new_steps(
    before: &BTreeMap<ReplacementName, Arc<NodeReplacement>>,
    now: &BTreeMap<ReplacementName, Arc<NodeReplacement>>,
) -> Vec<Bytes> {
    let mut found: Vec<Step<'_>> = Vec::new();
    for (name, record) in now {
        let known = before.get(name);
        if known.is_some_and(|known| Arc::ptr_eq(known, record)) {
            continue;
        }
        let known = known.map_or(&[][..], |known| steps(known));
        let fresh = steps(record).iter().filter(|step| !known.contains(step));
        found.extend(fresh.map(|step| Step::of(record, step)));
    }
    found.sort_by_key(|told| told.step.at);
    found.iter().filter_map(Step::message).collect()
}

/// The last steps since then, by time, and that there is something to look at.
fn steps_since(now: &BTreeMap<ReplacementName, Arc<NodeReplacement>>, since: Timestamp) -> Vec<Bytes> {
    let mut found: Vec<Step<'_>> = Vec::new();
    for record in now.values() {
        let fresh = steps(record).iter().filter(|step| since <= step.at);
        found.extend(fresh.map(|step| Step::of(record, step)));
    }
    found.sort_by_key(|told| told.step.at);
    let told = found.iter().skip(found.len().saturating_sub(MOST_MISSED));
    told.filter_map(Step::message).chain([changed()]).collect()
}

/// Says that something has changed, whatever it is. It has no id: the last step's id stays.
fn changed() -> Bytes {
    Bytes::from_static(b"event: changed\ndata: {}\n\n")
}
