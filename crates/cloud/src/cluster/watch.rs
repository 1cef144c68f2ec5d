//! Watches: the history of a resource, read by a cursor for as long as the client listens.
//!
//! There is no queue per watcher. Whoever falls further behind than the history reaches is told 410 Gone.

use super::answer::{BoxError, connection_reset, status_object};
use super::apiserver::Call;
use super::discovery::partial;
use super::handle::Cluster;
use super::refusal::{Refusal, expired, invalid, refusal};
use super::request::{RequestFate, RequestGate, RequestInfo};
use super::selector::Filter;
use super::store::{ChangeKind, Event};
use super::world::World;
use bytes::Bytes;
use futures::stream::{self, Stream};
use http_body::Frame;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a watch lasts if the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

/// One open watch.
pub(super) struct Watch {
    cluster: Cluster,
    gate: Arc<dyn RequestGate>,
    info: RequestInfo,
    resource: String,
    api_version: String,
    kind: String,
    filter: Filter,
    metadata_only: bool,
    bookmarks: bool,
    /// The last revision that the client knows of.
    cursor: u64,
    /// What goes out before anything else: the present state, or why there is nothing to watch.
    opening: String,
    news: watch::Receiver<u64>,
    ends: Instant,
    over: bool,
}

impl Watch {
    pub(super) fn open(
        cluster: &Cluster,
        world: &World,
        call: &Call<'_>,
        gate: Arc<dyn RequestGate>,
    ) -> Result<Self, Refusal> {
        let kind = world.kind_of(call.info)?;
        let filter = call.filter(&kind)?;
        let wanted = world.check_version_reachable(call.query)?;
        let bookmarks = call.query.flag("allowWatchBookmarks");
        let initial = call.query.get("sendInitialEvents");
        if initial.is_some() && call.query.get("resourceVersionMatch") != Some("NotOlderThan") {
            return Err(invalid(
                "ListOptions",
                "meta.k8s.io",
                "",
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let streaming_list = call.query.flag("sendInitialEvents");
        let timeout = match call.query.number("timeoutSeconds")? {
            None | Some(0) => DEFAULT_TIMEOUT,
            Some(seconds) => Duration::from_secs(seconds),
        };
        let Some(table) = world.store.table(&kind.id()) else {
            return Err(refusal(404, "NotFound", "the server could not find the requested resource"));
        };
        let mut watch = Self {
            cluster: cluster.clone(),
            gate,
            info: call.info.clone(),
            resource: kind.id(),
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            filter,
            metadata_only: call.metadata_only(),
            bookmarks,
            cursor: wanted,
            opening: String::new(),
            news: table.news(),
            ends: Instant::now() + timeout,
            over: false,
        };
        if streaming_list || (wanted == 0 && initial.is_none()) {
            for object in table.objects.values().filter(|object| watch.filter.matches(object)) {
                let line = watch.line(ChangeKind::Added.as_str(), object);
                watch.opening.push_str(&line);
            }
            watch.cursor = world.store.revision();
            if streaming_list && bookmarks {
                let line = watch.bookmark(true);
                watch.opening.push_str(&line);
            }
        } else if wanted == 0 {
            watch.cursor = world.store.revision();
        }
        Ok(watch)
    }

    /// The body of the response: one JSON document per line.
    pub(super) fn into_frames(self) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
        stream::unfold(self, |mut watch| async move {
            let batch = watch.next().await?;
            Some((batch.map(Frame::data), watch))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if self.over {
                return None;
            }
            // Marked as seen before reading, so that no change is missed between the two.
            self.news.mark_unchanged();
            let batch = self.batch();
            if !batch.is_empty() {
                return Some(self.deliver(batch).await);
            }
            tokio::select! {
                changed = self.news.changed() => self.over = changed.is_err(),
                () = tokio::time::sleep_until(self.ends) => {
                    self.over = true;
                    if self.bookmarks {
                        let line = self.bookmark(false);
                        return Some(self.deliver(line).await);
                    }
                }
            }
        }
    }

    async fn deliver(&mut self, batch: String) -> Result<Bytes, BoxError> {
        match self.gate.after(&self.info, 200) {
            RequestFate::Pass => {}
            RequestFate::Delay(delay) => tokio::time::sleep(delay).await,
            RequestFate::Drop => {
                self.over = true;
                return Err(connection_reset());
            }
            RequestFate::Refuse(code, reason) => {
                self.over = true;
                let status = status_object(&refusal(code, &reason, "refused"));
                return Ok(Bytes::from(error_line(&status)));
            }
        }
        Ok(Bytes::from(batch))
    }

    /// What happened since the cursor, as the client should see it.
    fn batch(&mut self) -> String {
        let mut lines = std::mem::take(&mut self.opening);
        let cluster = self.cluster.clone();
        let world = cluster.world();
        let Some(table) = world.store.table(&self.resource) else { return lines };
        match table.since(self.cursor) {
            Err(oldest) => {
                self.over = true;
                lines.push_str(&error_line(&status_object(&expired(self.cursor, oldest))));
            }
            Ok(events) => {
                for event in events {
                    if let Some((kind, object)) = self.seen(event) {
                        lines.push_str(&self.line(kind, &object));
                    }
                }
                // Whatever else has happened by now, the client has not missed it.
                self.cursor = world.store.revision();
            }
        }
        lines
    }

    /// An object that begins or ceases to match the selectors is added or deleted for this client.
    fn seen(&self, event: &Event) -> Option<(&'static str, Arc<Value>)> {
        let matched = event.before.as_deref().is_some_and(|before| self.filter.matches(before));
        let matches = event.kind != ChangeKind::Deleted && self.filter.matches(&event.object);
        match (matched, matches) {
            (false, false) => None,
            (false, true) => Some((ChangeKind::Added.as_str(), Arc::clone(&event.object))),
            (true, true) => Some((ChangeKind::Modified.as_str(), Arc::clone(&event.object))),
            (true, false) => {
                let mut last = Value::clone(event.before.as_deref()?);
                last["metadata"]["resourceVersion"] = json!(event.revision.to_string());
                Some((ChangeKind::Deleted.as_str(), Arc::new(last)))
            }
        }
    }

    fn line(&self, kind: &str, object: &Value) -> String {
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = if self.metadata_only {
            writeln!(line, "{{\"type\":\"{kind}\",\"object\":{}}}", partial(object))
        } else {
            writeln!(line, "{{\"type\":\"{kind}\",\"object\":{object}}}")
        };
        line
    }

    fn bookmark(&self, initial_events_end: bool) -> String {
        let mut metadata = json!({ "resourceVersion": self.cursor.to_string(), "creationTimestamp": null });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({ "kind": self.kind, "apiVersion": self.api_version, "metadata": metadata });
        format!("{}\n", json!({ "type": "BOOKMARK", "object": object }))
    }
}

fn error_line(status: &Value) -> String {
    format!("{}\n", json!({ "type": "ERROR", "object": status }))
}
