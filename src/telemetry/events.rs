//! Kubernetes events: what `kubectl describe` shows of a node, a pool or a replacement.
//!
//! Told beside the flow: a queue that is bounded, and a task that empties it. An event that finds the queue
//! full, or cannot be published, is lost and counted; what matters is in the records.

use crate::telemetry::metrics::{EventResult, Metrics};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events that may wait to be published.
const QUEUE: usize = 512;
/// How long the publication of one may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of a note the API takes so many characters (`events.k8s.io/v1`, field `note`).
const NOTE_CHARS: usize = 1000;

/// Tells events; clones share the queue.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Arc<Metrics>,
}

/// What an event says.
pub struct Told<'a> {
    /// Whether somebody might want to look.
    pub warning: bool,
    /// One word, for machines.
    pub reason: &'a str,
    /// What was done or tried.
    pub action: String,
    /// In plain words.
    pub note: &'a str,
    /// A second object that it is about.
    pub secondary: Option<ObjectReference>,
}

impl Events {
    /// Starts the task that publishes; it ends with the last clone. To be called inside a runtime.
    #[must_use]
    pub fn start(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let (queue, mut told) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let reporter = Reporter { controller: "spot-guard".to_owned(), instance: Some(identity.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let counted = metrics.clone();
        tokio::spawn(async move {
            while let Some((event, about)) = told.recv().await {
                let published = tokio::time::timeout(TIMEOUT, recorder.publish(&event, &about)).await;
                let result = if matches!(published, Ok(Ok(()))) {
                    EventResult::Published
                } else {
                    tracing::debug!(reason = event.reason, "an event could not be published: {published:?}");
                    EventResult::Failed
                };
                counted.event(result);
            }
        });
        Self { queue, metrics }
    }

    /// Tells of an object. Never waits.
    pub fn tell(&self, about: ObjectReference, told: Told<'_>) {
        let event = Event {
            type_: if told.warning { EventType::Warning } else { EventType::Normal },
            reason: told.reason.to_owned(),
            note: Some(told.note.chars().take(NOTE_CHARS).collect()),
            action: told.action,
            secondary: told.secondary,
        };
        if self.queue.try_send((event, about)).is_err() {
            self.metrics.event(EventResult::Dropped);
        }
    }
}

/// A reference to a node. As kubelets do, its name stands for its uid: `kubectl describe node` looks for
/// that.
#[must_use]
pub fn node(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}
